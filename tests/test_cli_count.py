"""``count`` as an own process would see it, its tables of events, and frames that travel."""

import csv
import gzip
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction import CountingOptions, ElectronCounting
from napari_mrcz.session.detectors import CountElectrons, Parcels, pack, unpack
from napari_mrcz.session.page import EventTable
from napari_mrcz.session.run import cluster, run_all
from napari_mrcz.simulation import simulate_raw

N_FRAMES = 6


@pytest.fixture(scope="module")
def raw():
    """Return raw frames."""
    return simulate_raw(N_FRAMES, (72, 80), seed=1)


@pytest.fixture
def movie(tmp_path, raw):
    """Write them as MRCZ."""
    nm.write(tmp_path / "raw.mrcz", raw.frames, pixel_size=1.2)
    return tmp_path / "raw.mrcz"


def test_counts_are_those_that_the_library_gives(napari_mrcz, movie, raw, tmp_path):
    ran = napari_mrcz("count", movie, "-o", tmp_path / "out", "--super-resolution", 2)
    assert ran.status == 0, ran.err
    with nm.open(tmp_path / "out" / "raw.mrcz") as done, nm.open(movie) as before:
        wanted = nm.count_electrons(before, super_resolution=2)
        np.testing.assert_array_equal(done, wanted)
        assert done.pixel_size[1:] == pytest.approx((0.6, 0.6))
        np.testing.assert_array_equal(nm.replay(done.history, before), wanted)
        number = int(np.asarray(wanted).sum())
    assert number == pytest.approx(sum(map(len, raw.positions)), rel=0.05)
    assert f"{number} electrons" in ran.err


def test_a_packed_movie_in_a_folder_is_counted(napari_mrcz, movie, tmp_path):
    packed = tmp_path / "in" / "raw.mrcz.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(movie.read_bytes()))
    for source, out in ((movie, "plain"), (packed.parent, "packed")):
        ran = napari_mrcz("count", source, "-o", tmp_path / out)
        assert ran.status == 0, ran.err
    results = [nm.read(tmp_path / out / "raw.mrcz") for out in ("plain", "packed")]
    np.testing.assert_array_equal(*results)


def test_a_threshold_that_is_given_is_taken(napari_mrcz, movie, tmp_path):
    ran = napari_mrcz("count", movie, "-o", tmp_path / "out", "--threshold", 150, "--json")
    assert ran.status == 0, ran.err
    (told,) = [json.loads(line) for line in ran.out.splitlines()]
    assert any("threshold 150.0" in note for note in told["notes"])
    with nm.open(tmp_path / "out" / "raw.mrcz") as done:
        assert done.history[0]["threshold"] == 150


@pytest.mark.parametrize("suffix", [".csv", pytest.param(".parquet", marks=pytest.mark.slow)])
def test_events_are_a_table_of_their_own(napari_mrcz, movie, raw, tmp_path, suffix):
    table = tmp_path / f"events{suffix}"
    s = 2 if suffix == ".csv" else 4
    options = ("--events", table, "--super-resolution", s)
    ran = napari_mrcz("count", movie, "-o", tmp_path / "out", *options)
    assert ran.status == 0, ran.err
    if suffix == ".csv":
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        content = io.BytesIO(table.read_bytes())  # pyarrow's threads may close a path's file later
        columns = {k: np.array(v) for k, v in parquet.read_table(content).to_pydict().items()}
    assert list(columns) == ["frame", "y", "x", "charge"]
    counting = ElectronCounting.fit(raw.frames)
    for frame in range(N_FRAMES):
        events = counting.events(raw.frames[frame])
        own = columns["frame"] == frame
        for name, wanted in zip(("y", "x", "charge"), events, strict=True):
            np.testing.assert_allclose(columns[name][own], wanted, atol=0.06)
    # Together they are the image, whoever adds them up.
    with nm.open(tmp_path / "out" / "raw.mrcz") as counts:
        rows, column = (np.floor((columns[k].astype(float) + 0.5) * s).astype(int) for k in "yx")
        added = np.zeros(counts.shape, int)
        np.add.at(added, (columns["frame"].astype(int), rows, column), 1)
        np.testing.assert_array_equal(added, counts)


def test_a_long_table_is_written_in_parts_and_is_whole(tmp_path, monkeypatch, raw):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("napari_mrcz.session.page._ROWS", 100)
    counting = ElectronCounting.fit(raw.frames)
    found = [counting.events(frame) for frame in raw.frames]
    with EventTable(tmp_path / "events.parquet") as table:
        for frame, events in enumerate(found):
            table.add(frame, events)
        assert not (tmp_path / "events.parquet").exists()
        table.commit()
    written = parquet.ParquetFile(tmp_path / "events.parquet")
    assert written.num_row_groups > 2
    np.testing.assert_array_equal(
        written.read()["charge"].to_numpy(), np.concatenate([e.charge for e in found])
    )


def counted_by(client, movie, raw, folder):
    """Count a movie on the workers of a client, or in this process; return movie and table."""
    folder.mkdir()
    target, table = folder / "counts.mrcz", folder / "events.csv"
    task = CountElectrons(
        str(movie), str(target), CountingOptions(2), events=str(table), client=client
    )
    (outcome,) = run_all([task])
    assert outcome.ok, outcome.error
    sizes = [len(parcel.chunk) for parcel in _parcels(movie)]
    assert outcome.result["sent"] == (0 if client is None else sum(sizes))
    assert outcome.result["raw"] == raw.frames.nbytes
    return target.read_bytes(), table.read_bytes()


def test_the_file_is_the_same_on_workers(movie, raw, tmp_path, workers):
    here = counted_by(None, movie, raw, tmp_path / "here")
    assert counted_by(workers, movie, raw, tmp_path / "there") == here


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 4])
def test_the_file_is_the_same_on_however_many_workers(movie, raw, tmp_path, n):
    here = counted_by(None, movie, raw, tmp_path / "here")
    with cluster("", n) as client:
        assert counted_by(client, movie, raw, tmp_path / "there") == here


def test_no_more_frames_are_under_way_than_keep_the_workers_busy(movie, tmp_path):
    most = 0

    class Future:
        under_way = 0

        def __init__(self, value):
            nonlocal most
            self.value = value
            Future.under_way += 1
            most = max(most, Future.under_way)

        def result(self, timeout):
            return self.value

        def release(self):
            Future.under_way -= 1

    class Client:
        def scatter(self, value, **_):
            return value

        scheduler = SimpleNamespace(ncores=None)

        def sync(self, function, **_):
            return {"one": 1, "other": 1}

        def submit(self, function, *arguments, **_):
            return Future(function(*arguments))

        def cancel(self, futures):
            pass

    outcome = CountElectrons(str(movie), str(tmp_path / "out.mrcz"), client=Client())()
    assert outcome.result["electrons"] > 500
    assert most == 4


def _parcels(path):
    with nm.open(path) as movie:
        parcels = Parcels(movie, str(path))
        yield from parcels
        parcels.close()


def test_stored_chunks_travel_as_they_are(movie, raw):
    with nm.open(movie) as opened:
        parcels = Parcels(opened, str(movie))
        content = movie.read_bytes()
        for frame, parcel in enumerate(parcels):
            assert content[parcel.offset :].startswith(parcel.chunk)
            np.testing.assert_array_equal(parcels.pixels(parcel), raw.frames[frame])
        parcels.close()


@pytest.mark.parametrize("name", ["plain.mrc", "plain.tif"])
def test_frames_that_are_not_stored_in_chunks_are_compressed_on_leaving(tmp_path, raw, name):
    path = tmp_path / name
    if path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, raw.frames)
    else:
        nm.write(path, raw.frames)

    with nm.open(path) as opened:
        parcels = Parcels(opened, str(path))
        for frame, parcel in enumerate(parcels):
            assert len(parcel.chunk) < opened[frame].nbytes
            np.testing.assert_array_equal(parcels.pixels(parcel), opened[frame])
        parcels.close()


def test_a_chunk_that_was_damaged_on_its_way_is_told_of(movie):
    with nm.open(movie) as opened:
        parcels = Parcels(opened, str(movie))
        first = next(iter(parcels))
        with pytest.raises(nm.MrczError, match="frame 0"):
            parcels.pixels(first._replace(chunk=first.chunk[:-20]))
        parcels.close()


@pytest.mark.parametrize("shape", [(3, 0), (3, 7), (40, 30)])
def test_what_is_packed_comes_back(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(unpack(pack(values)), values)
    counts = values.astype(np.uint8)
    assert unpack(pack(counts)).dtype == np.uint8
    np.testing.assert_array_equal(unpack(pack(counts)), counts)


def test_what_is_wrong_is_one_line_and_leaves_no_file(napari_mrcz, movie, tmp_path):
    out = tmp_path / "out"
    nm.write(tmp_path / "flat.mrcz", np.full((4, 32, 32), 5, np.uint16))
    ran = napari_mrcz("count", tmp_path / "flat.mrcz", movie, "-o", out)
    assert ran.status == 1
    assert "the frames do not vary" in ran.err
    assert [path.name for path in out.iterdir()] == ["raw.mrcz"]
    again = napari_mrcz("count", movie, "-o", out)
    assert again.status == 1
    assert "exists already" in again.err
    assert napari_mrcz("count", movie, "-o", out, "--overwrite").status == 0
    ran = napari_mrcz("count", movie, "-o", tmp_path / "b", "--events", tmp_path / "events.xlsx")
    assert ran.status == 1
    assert "Write .csv or .parquet" in ran.err
    assert not list((tmp_path / "b").iterdir())


def test_warnings_are_printed_kept_and_in_json(napari_mrcz, tmp_path):
    troubled = simulate_raw(8, (96, 96), row_wander=12.0, x_rays=4e-4, seed=3)
    nm.write(tmp_path / "raw.mrcz", troubled.frames)
    ran = napari_mrcz("count", tmp_path / "raw.mrcz", "-o", tmp_path / "out", "--json")
    assert ran.status == 0, ran.err
    (told,) = [json.loads(line) for line in ran.out.splitlines()]
    said = " ".join(told["warnings"])
    assert "rows wanders" in said
    assert "X-rays" in said
    assert "warning:" in ran.err
    assert any("set aside" in note for note in told["notes"])
    with nm.open(tmp_path / "out" / "raw.mrcz") as done:
        assert list(done.history[0]["warnings"]) == told["warnings"]
        assert done.history[0]["upper"] > done.history[0]["threshold"]


def test_a_movie_counted_already_is_counted_only_if_forced(napari_mrcz, tmp_path):
    counts = np.random.default_rng(0).poisson(1, (6, 96, 96)).astype(np.uint8)
    nm.write(tmp_path / "counts.mrcz", counts)
    arguments = ("count", tmp_path / "counts.mrcz", "-o", tmp_path / "out")
    ran = napari_mrcz(*arguments)
    assert ran.status == 1
    assert "counted already" in ran.err
    ran = napari_mrcz(*arguments, "--force")
    assert ran.status == 0, ran.err
    assert "warning:" in ran.err


def test_an_upper_threshold_that_is_given_is_taken(napari_mrcz, movie, raw, tmp_path):
    ran = napari_mrcz("count", movie, "-o", tmp_path / "out", "--upper-threshold", 300)
    assert ran.status == 0, ran.err
    with nm.open(tmp_path / "out" / "raw.mrcz") as done:
        assert done.history[0]["upper"] == 300
        n_found = np.asarray(done).sum()
    # A tenth of the charges is higher, and takes what is beside it along.
    assert 0.75 < n_found / sum(map(len, raw.positions)) < 0.93


@pytest.mark.parametrize(
    "arguments",
    [
        ("--threshold", -1),
        ("--upper-threshold", -1),
        ("--super-resolution", 3),
        ("--events", "events.csv"),
    ],
)
def test_a_wrong_command_line_is_told_of(napari_mrcz, movie, tmp_path, arguments):
    files = (movie, movie.with_name("other.mrcz"))
    assert napari_mrcz("count", *files, "-o", tmp_path / "out", *arguments).status == 2
    assert not (tmp_path / "out").exists()


def test_a_damaged_frame_ends_the_counting_of_its_file(napari_mrcz, movie, tmp_path, workers):
    with nm.open(movie) as opened:
        parcels = Parcels(opened, str(movie))
        at = list(parcels)[4]
        parcels.close()
    content = bytearray(movie.read_bytes())
    content[at.offset + 40] ^= 255
    movie.write_bytes(content)
    arguments = ("count", movie, "-o", tmp_path / "out")
    for more in ((), ("--scheduler", workers.scheduler.address)):
        ran = napari_mrcz(*arguments, *more)
        assert ran.status == 1
        assert "frame 4" in ran.err
        assert not list((tmp_path / "out").iterdir())
