"""``microed``, and the formats that it reads and writes, as an own process would see them."""

import gzip
import json
from pathlib import Path

import fabio
import numpy as np
import pytest
from foreign_files import write_tvips

import napari_mrcz as nm
from napari_mrcz.correction.conversions import pedestal_of
from napari_mrcz.simulation import simulate_microed
from napari_mrcz.stack import open_sweep, sweeps
from napari_mrcz.stack.raw_frames import write_smv
from napari_mrcz.stack.references import write_defects

N_FRAMES = 3
PEDESTALS = ("IMAGE_PEDESTAL", "DARK_PEDESTAL", "PEDESTAL", "ADCOFFSET", "ADC_OFFSET",
             "LEGINON_OFFSET", "image_pedestal")  # fmt: skip


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


def test_mrcz_gets_the_negative_counts_that_the_library_draws(napari_mrcz, movie, sweep, tmp_path):
    ran = napari_mrcz("microed", movie, "-o", tmp_path / "out", "--annuli", 5, "--seed", 4)
    assert ran.status == 0, ran.err
    assert "of the pixels changed" in ran.err
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
    assert f"beam at row {y:.1f} from the bottom, column {x:.1f}" in ran.err
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


def test_workers_write_the_same_and_replace_nothing_unasked(
    napari_mrcz, movie, images, tmp_path, workers
):
    here, there = tmp_path / "here", tmp_path / "there"
    arguments = ("microed", movie, *images, "--format", "smv")
    assert napari_mrcz(*arguments, "-o", here).status == 0
    arguments += ("--scheduler", workers.scheduler.address)
    assert napari_mrcz(*arguments, "-o", there).status == 0
    for path in sorted(here.iterdir()):
        assert (there / path.name).read_bytes() == path.read_bytes()
    again = napari_mrcz(*arguments, "-o", there)
    assert again.status == 1
    assert again.err.count("exists already") == 2


def test_a_tvips_recording_is_a_movie(napari_mrcz, sweep, tmp_path):
    write_tvips(tmp_path / "rec.tvips", sweep.frames, parts=2)
    ran = napari_mrcz("microed", *sorted(tmp_path.glob("*.tvips")), "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rec_000.mrcz"]
    model = nm.TruncationModel.fit(sweep.frames)
    with nm.open(tmp_path / "out" / "rec_000.mrcz") as done:
        np.testing.assert_array_equal(done[1], model(sweep.frames[1], 1))


@pytest.mark.parametrize("name", PEDESTALS)
@pytest.mark.parametrize(("value", "expected"), [("64", 64), (40.0, 40), (" 0 ", 0), ([5, 5], 5)])
def test_pedestals_have_many_names(name, value, expected):
    assert pedestal_of({"smv": {"UNIF_PED": "1500", "PHI": "7", name: value}}) == expected
    assert pedestal_of({name: value}) == expected


@pytest.mark.parametrize("value", ["-3", "4.5", "nan", "none", None, [3, 4]])
def test_what_is_not_a_pedestal_is_refused(value):
    with pytest.raises(ValueError, match="pedestal"):
        pedestal_of({"smv": {"IMAGE_PEDESTAL": value}})


@pytest.mark.parametrize("form", ["smv", "mrcz"])
def test_pedestals_are_used_and_carried_on(napari_mrcz, sweep, tmp_path, form):
    """Counts were cut off at 0, then 5 was added, which is too little for what is drawn."""
    (tmp_path / "raw").mkdir()
    stated = dict.fromkeys(PEDESTALS, "5.0")
    for i, frame in enumerate(sweep.frames):
        header = {**stated, "PHI": i, "GAIN": "1"}
        write_smv(tmp_path / "raw" / f"x_{i + 1}.img", frame + np.uint16(5), header)
    ran = napari_mrcz("microed", tmp_path / "raw", "-o", tmp_path / "out", "--format", form)
    assert ran.status == 0, ran.err
    expected = nm.TruncationModel.fit(sweep.frames)
    assert expected.offset > 5
    offset = expected.offset if form == "smv" else 5
    with open_sweep(sorted((tmp_path / "out").iterdir())) as done:
        counts, smv = np.asarray(done).astype(int) - offset, done.metadata["smv"]
        metadata = smv if form == "smv" else done.metadata
    for i, frame in enumerate(sweep.frames):
        np.testing.assert_array_equal(counts[i], expected(frame, i))
    assert {int(smv[name]) for name in PEDESTALS} == {offset}
    assert {int(metadata[name]) for name in ("ADCOFFSET", "IMAGE_PEDESTAL")} == {offset}
    assert (smv["PHI"], smv["GAIN"]) == (["0", "1", "2"], "1")


def test_packed_images_stay_images(napari_mrcz, images, sweep, tmp_path):
    for path in images:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    ran = napari_mrcz("microed", images[0].parent, "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [path.name for path in images]
    with open_sweep(written) as done:
        assert done.metadata["smv"]["OSC_START"] == ["0.00", "0.09", "0.18"]


def test_pedestals_that_contradict_each_other_are_refused(napari_mrcz, sweep, tmp_path):
    path = tmp_path / "x_1.img"
    write_smv(path, sweep.frames[0] + np.uint16(8), {"ADC_OFFSET": 8, "IMAGE_PEDESTAL": 40})
    ran = napari_mrcz("microed", path, "-o", tmp_path / "out")
    assert ran.status == 1
    assert "ADC_OFFSET 8, IMAGE_PEDESTAL 40" in ran.err
    assert napari_mrcz("microed", path, "-o", tmp_path / "out", "--pedestal", 9).status == 1
    ran = napari_mrcz("microed", path, "-o", tmp_path / "out", "--pedestal", 8)
    assert ran.status == 0, ran.err
    with nm.open(tmp_path / "out" / "x_1.img") as done:
        header = done.metadata["smv"]
        assert header["ADC_OFFSET"] == header["IMAGE_PEDESTAL"] == header["ADCOFFSET"]


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


def test_a_beam_outside_of_the_frames_is_warned_of(movie, napari_mrcz, tmp_path):
    ran = napari_mrcz("microed", movie, "-o", tmp_path / "out", "--center", 170, 3)
    assert ran.status == 0, ran.err
    assert "outside of frames of 160 x 192" in ran.err


@pytest.mark.parametrize("other", [("--annuli", 10), ("--center", 3, 3)])
def test_regions_besides_rings_are_refused(movie, napari_mrcz, tmp_path, other):
    ran = napari_mrcz("microed", movie, "-o", tmp_path / "out", "--regions", movie, *other)
    assert ran.status == 2
    assert "--regions excludes" in ran.err


def test_the_percentage_is_that_of_the_pixels_that_change(napari_mrcz, sweep, tmp_path):
    """Not of the zeros: those of a region with too few counts stay."""
    regions = np.ones(sweep.frames.shape[1:], np.int8)
    regions[0, :50] = 2
    frames = sweep.frames.copy()
    frames[:, 0, :50] = 0
    nm.write(tmp_path / "in.mrc", frames)
    nm.write(tmp_path / "regions.mrc", regions)
    options = ("-o", tmp_path / "out", "--regions", tmp_path / "regions.mrc")
    ran = napari_mrcz("microed", tmp_path / "in.mrc", *options)
    assert ran.status == 0, ran.err
    changed = np.mean(nm.read(tmp_path / "out/in.mrcz") != frames)
    assert 0 < changed < np.mean(frames == 0)
    assert f"{changed:.1%} of the pixels changed" in ran.err


def test_counted_electrons_are_corrected_only_if_forced(napari_mrcz, tmp_path):
    nm.write(tmp_path / "counts.mrcz", simulate_microed(2, (96, 96), counted=True, seed=1).frames)
    arguments = ("microed", tmp_path / "counts.mrcz", "-o", tmp_path / "out", "--json")
    ran = napari_mrcz(*arguments)
    assert ran.status == 1
    assert "zeros are real" in ran.err
    ran = napari_mrcz(*arguments, "--force")
    assert ran.status == 0, ran.err
    (told,) = [json.loads(line) for line in ran.out.splitlines()]
    assert "counted electrons" in told["warnings"][0]
    assert "warning:" in ran.err
    with nm.open(tmp_path / "out" / "counts.mrcz") as done:
        assert list(done.history[0]["warnings"]) == told["warnings"]
