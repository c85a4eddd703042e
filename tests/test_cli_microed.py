"""``microed``, and the formats that it reads and writes, as an own process would see them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.defects import write_defects
from napari_mrcz.simulation import simulate_microed
from napari_mrcz.stack import open_sweep, sweeps
from napari_mrcz.stack.smv import smv_header, write_smv

fabio = pytest.importorskip("fabio")
N_FRAMES = 3


@pytest.fixture(scope="module")
def sweep():
    """Return a sweep whose negative counts are known."""
    return simulate_microed(N_FRAMES, (160, 192), seed=1)


@pytest.fixture
def images(tmp_path, sweep):
    """Write it as SMV images, as a detector does."""
    paths = [tmp_path / "raw" / f"crystal_{i + 1:03d}.img" for i in range(N_FRAMES)]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        write_smv(path, sweep.frames[i], {"DISTANCE": "2200.0", "OSC_START": f"{0.09 * i:.2f}"})
    return paths


@pytest.fixture
def movie(tmp_path, sweep):
    """Write it as MRCZ."""
    nm.write(tmp_path / "sweep.mrcz", sweep.frames)
    return tmp_path / "sweep.mrcz"


def write_tvips(path, frames, *, version=2, parts=1):
    """Write a recording as the camera's own program does."""
    n, y, x = frames.shape
    own = 64 if version == 2 else 12
    head = np.zeros(64, "<i4")
    head[:13] = 256, version, x, y, frames.itemsize * 8, 0, 0, 2, 2, 15600, 200, 0, own
    for part, some in enumerate(np.array_split(np.arange(n), parts)):
        with path.with_stem(f"{path.stem}_{part:03d}").open("wb") as file:
            file.write(head.tobytes() if part == 0 else b"")
            for i in some:
                file.write(bytes([i]) * own + frames[i, ::-1].astype("<u2").tobytes())
    return path.with_stem(f"{path.stem}_000")


def test_mrcz_gets_the_negative_counts_that_the_library_draws(napari_mrcz, movie, sweep, tmp_path):
    ran = napari_mrcz("microed", movie, "-o", tmp_path / "out", "--annuli", 5, "--seed", 4)
    assert ran.status == 0, ran.err
    assert "of the pixels redrawn" in ran.err
    with nm.open(tmp_path / "out" / "sweep.mrcz") as done, nm.open(movie) as raw:
        model = nm.TruncationModel.fit(raw, n_annuli=5, seed=4)
        np.testing.assert_array_equal(done, raw.apply(model))
        np.testing.assert_array_equal(done, nm.replay(done.history, raw))
        assert done.dtype == np.int16
        assert np.min(done) < 0
        assert done.metadata["ADCOFFSET"] == 0


def test_smv_gets_an_offset_that_its_headers_tell(napari_mrcz, images, sweep, tmp_path):
    ran = napari_mrcz("microed", images[0].parent, "-o", tmp_path / "out", "--json")
    assert ran.status == 0, ran.err
    (told,) = [json.loads(line) for line in ran.out.splitlines()]
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [path.name for path in images]
    model = nm.TruncationModel.fit(sweep.frames)
    assert f"ADCOFFSET {model.offset}" in told["notes"]
    assert f"{len(images)} images, the last {images[-1].name}" in told["notes"]
    smallest = []
    for i, path in enumerate(written):
        image = fabio.open(str(path))
        assert image.header["ADCOFFSET"] == image.header["IMAGE_PEDESTAL"] == str(model.offset)
        assert image.header["OSC_START"] == f"{0.09 * i:.2f}"
        counts = image.data[::-1].astype(int) - model.offset
        np.testing.assert_array_equal(counts, model(sweep.frames[i], i))
        smallest.append(image.data.min())
    assert min(smallest) == 0


def test_the_beam_the_mask_and_the_offset_can_be_given(napari_mrcz, movie, sweep, tmp_path):
    write_defects(tmp_path / "mask.mrc", sweep.beam_stop, "map")
    y, x = sweep.center
    arguments = ("--center", y, x, "--mask", tmp_path / "mask.mrc", "--offset", 100)
    ran = napari_mrcz("microed", movie, "-o", tmp_path / "out", *arguments, "--format", "mrc")
    assert ran.status == 0, ran.err
    assert f"beam at row {y:.1f}, column {x:.1f}" in ran.err
    with nm.open(tmp_path / "out" / "sweep.mrc") as done:
        assert done.dtype == np.uint16
        shadow = np.asarray(done)[:, sweep.beam_stop]
        np.testing.assert_array_equal(shadow, sweep.frames[:, sweep.beam_stop] + 100)
        assert 50 < np.min(done) < 100


def test_regions_can_be_any_labels(napari_mrcz, movie, sweep, tmp_path):
    nm.write(tmp_path / "shells.mrc", sweep.shells[np.newaxis])
    arguments = ("-o", tmp_path / "out", "--regions", tmp_path / "shells.mrc")
    ran = napari_mrcz("microed", movie, *arguments)
    assert ran.status == 0, ran.err
    with nm.open(tmp_path / "out" / "sweep.mrcz") as done, nm.open(movie) as raw:
        model = nm.TruncationModel.fit(raw, regions=sweep.shells)
        np.testing.assert_array_equal(done, raw.apply(model))


def test_one_movie_becomes_numbered_smv_images(napari_mrcz, movie, tmp_path):
    ran = napari_mrcz("microed", movie, "-o", tmp_path / "out", "--format", "smv")
    assert ran.status == 0, ran.err
    names = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert names == ["sweep_0001.img", "sweep_0002.img", "sweep_0003.img"]


def test_workers_write_the_same_and_replace_nothing_unasked(napari_mrcz, movie, images, tmp_path):
    pytest.importorskip("distributed")
    here, there = tmp_path / "here", tmp_path / "there"
    arguments = ("microed", movie, *images, "--format", "smv")
    assert napari_mrcz(*arguments, "-o", here).status == 0
    assert napari_mrcz(*arguments, "-o", there, "--workers", 1).status == 0
    for path in sorted(here.iterdir()):
        assert (there / path.name).read_bytes() == path.read_bytes()
    again = napari_mrcz(*arguments, "-o", there, "--workers", 1)
    assert again.status == 1
    assert again.err.count("exists already") == 2


@pytest.mark.parametrize(("version", "parts"), [(1, 1), (2, 1), (2, 2)])
def test_a_tvips_recording_is_a_movie(napari_mrcz, sweep, tmp_path, version, parts):
    first = write_tvips(tmp_path / "rec.tvips", sweep.frames, version=version, parts=parts)
    with nm.open(first) as movie:
        np.testing.assert_array_equal(movie, sweep.frames)
        np.testing.assert_array_equal(movie[1, 3:9, ::2], sweep.frames[1, 3:9, ::2])
        assert movie.description.voltage == 200
    ran = napari_mrcz("microed", *sorted(tmp_path.glob("*.tvips")), "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rec_000.mrcz"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[:100], "shorter than a header"),
        (lambda raw: b"\0" * len(raw), "no header of TVIPS.*open name_000.tvips"),
        (lambda raw: raw[:-1], "it is cut off"),
        (lambda raw: raw[:16] + b"\x0c" + raw[17:], "12 bits"),
        (lambda raw: raw[:300], "0 frames"),
    ],
)
def test_a_damaged_recording_is_told_of(sweep, tmp_path, damage, said):
    path = write_tvips(tmp_path / "rec.tvips", sweep.frames)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(nm.MrczError, match=said):
        nm.open(path)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:100], lambda raw: b"\0" * 600, lambda raw: raw[:-7], lambda raw: b""],
)
def test_a_damaged_smv_image_is_told_of(images, damage):
    images[1].write_bytes(damage(images[1].read_bytes()))
    with pytest.raises(nm.MrczError, match=r"crystal_002.img: it is no SMV image"):
        nm.open(images[1])
    with open_sweep(images) as movie, pytest.raises(nm.MrczError, match="crystal_002"):
        movie[1]


def test_an_image_of_another_shape_is_told_of(images):
    write_smv(images[2], np.zeros((4, 6), np.uint16), overwrite=True)
    with open_sweep(images) as movie, pytest.raises(nm.MrczError, match=r"\(4, 6\)"):
        movie[2]


def test_fabio_and_we_read_what_the_other_wrote(tmp_path):
    frame = np.random.default_rng(0).integers(0, 65536, (30, 42)).astype(np.uint16)
    write_smv(tmp_path / "ours.img", frame, {"WAVELENGTH": 0.0251})
    theirs = fabio.open(str(tmp_path / "ours.img"))
    np.testing.assert_array_equal(theirs.data[::-1], frame)
    assert theirs.header["WAVELENGTH"] == "0.0251"
    fabio.adscimage.AdscImage(frame, {"DISTANCE": "1"}).write(str(tmp_path / "theirs.img"))
    with nm.open(tmp_path / "theirs.img") as movie:
        np.testing.assert_array_equal(movie[0], frame[::-1])
        assert movie.metadata["smv"] == {"DISTANCE": "1"}
    assert smv_header(tmp_path / "ours.img") == {"WAVELENGTH": "0.0251"}


def test_numbered_files_of_one_image_are_a_sweep_and_movies_are_not(images, movie, tmp_path):
    singles = [tmp_path / f"still-{i}.mrc" for i in (10, 9)]
    for path in singles:
        nm.write(path, np.zeros((1, 4, 4), np.int16))
    second = movie.with_name("sweep2.mrcz")
    second.write_bytes(movie.read_bytes())
    found = sweeps([movie, *images, *singles, second])
    assert found == [[movie], [second], images, singles[::-1]]
    with open_sweep(singles) as joined:
        assert joined.shape == (2, 4, 4)


def test_packed_images_are_a_sweep_as_others_are(napari_mrcz, sweep, tmp_path):
    for folder in ("plain", "packed"):
        (tmp_path / folder).mkdir()
    for i, frame in enumerate(sweep.frames):
        plain = tmp_path / "plain" / f"xtal_{i + 8}.mrc"
        nm.write(plain, frame[np.newaxis])
        packed = tmp_path / "packed" / f"{plain.name}.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
    for folder in ("plain", "packed"):
        ran = napari_mrcz("microed", tmp_path / folder, "-o", tmp_path / f"{folder}_out")
        assert ran.status == 0, ran.err
        assert [path.name for path in (tmp_path / f"{folder}_out").iterdir()] == ["xtal.mrcz"]
    results = [nm.read(tmp_path / f"{folder}_out" / "xtal.mrcz") for folder in ("plain", "packed")]
    np.testing.assert_array_equal(*results)
    alone = tmp_path / "packed" / "xtal_9.mrc.gz"
    ran = napari_mrcz("microed", alone, "-o", tmp_path / "alone")
    assert ran.status == 0, ran.err
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["xtal_9.mrcz"]


def test_what_is_wrong_is_one_line(napari_mrcz, movie, images, tmp_path):
    ran = napari_mrcz("microed", movie, "-o", tmp_path / "out", "--offset", 1)
    assert ran.status == 1
    assert "an offset of 1 is too small" in ran.err
    assert napari_mrcz("microed", *images, "-o", images[0].parent).status == 1
    assert all(Path(path).stat().st_size > 512 for path in images)
    assert napari_mrcz("microed", movie, "-o", tmp_path / "out").status == 0
    again = napari_mrcz("microed", movie, "-o", tmp_path / "out")
    assert again.status == 1
    assert "exists already" in again.err
    assert napari_mrcz("microed", movie, "-o", tmp_path / "out", "--overwrite").status == 0
    assert napari_mrcz("microed", movie, "-o", tmp_path / "out", "--annuli", 0).status == 2


def test_a_movie_that_was_not_cut_off_is_refused(napari_mrcz, tmp_path, sweep):
    nm.write(tmp_path / "signed.mrcz", sweep.true_counts.astype(np.int16))
    ran = napari_mrcz("microed", tmp_path / "signed.mrcz", "-o", tmp_path / "out")
    assert ran.status == 1
    assert "negative counts: none were cut off" in ran.err
    assert not list((tmp_path / "out").iterdir())
