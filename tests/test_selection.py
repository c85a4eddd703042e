"""Parts of movies: frames, then a crop, then groups, from each command that takes them; TIFF."""

import json
from unittest import mock

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import napari_mrcz as nm
from napari_mrcz.session.tasks import Selection
from napari_mrcz.stack import tiff_saving

FRAMES = np.random.default_rng(5).poisson(1, (11, 40, 56)).astype(np.uint8)
PART = ("--frames", "1:11:2", "--crop", "4,30,20,10", "--group", 2)
# Frames 1, 3; 5, 7; 9. Ten rows from row 30 on, twenty columns from column 4 on.
CROPPED = FRAMES[[1, 3, 5, 7, 9], 30:40, 4:24].astype(int)
SUMS = np.stack([CROPPED[:2].sum(axis=0), CROPPED[2:4].sum(axis=0), CROPPED[4]])


@pytest.fixture
def movie(tmp_path):
    nm.write(tmp_path / "movie.mrc", FRAMES, pixel_size=1.2, metadata={"grid": 3})
    nm.write(tmp_path / "movie.mrcz", FRAMES, pixel_size=1.2, metadata={"grid": 3})
    return tmp_path / "movie.mrcz"


@pytest.mark.parametrize(
    ("command", "source", "made"),
    [
        (("compress",), "movie.mrc", "movie.mrcz"),
        (("decompress",), "movie.mrcz", "movie.mrc"),
        (("decompress", "--suffix", ".tif"), "movie.mrcz", "movie.tif"),
        (("correct",), "movie.mrcz", "movie.mrcz"),
    ],
)
def test_frames_then_a_crop_then_groups(napari_mrcz, movie, command, source, made):
    out = movie.parent / "out"
    verify = () if command == ("correct",) else ("--verify",)
    ran = napari_mrcz(*command, movie.with_name(source), "-o", out, *PART, *verify)
    assert ran.status == 0, ran.err
    assert "the last frame is the sum of 1, not of 2" in ran.err
    with nm.open(out / made) as part:
        assert (np.asarray(part) == SUMS).all()
        assert part.pixel_size[1:] == pytest.approx((1.2, 1.2))
        metadata = part.metadata
        assert bool(part.history) == (command == ("correct",))
    if made.endswith(".tif"):
        metadata = json.loads(metadata["tiff"]["description"].splitlines()[-1])["metadata"]
    assert metadata["grid"] == 3
    of = {"of_shape": [11, 40, 56], "first_frame": 1, "last_frame": 9, "step": 2}
    assert metadata["selected"] == {**of, "crop": [4, 30, 20, 10]}
    assert metadata["grouped"]["frames_in_last_group"] == 1


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (("--frames", "0:12"), "where there are 11"),
        (("--frames", "5:5"), "where there are 11"),
        (("--crop", "50,0,7,1"), "56 columns"),
        (("--frames", "0:3", "--group", 4), "where there are 3"),
        (("--frames", "3"), "FROM:TO"),
        (("--crop", "0,0,5"), "X,Y,WIDTH,HEIGHT"),
        (("--crop", "0,0,5,0"), "X,Y,WIDTH,HEIGHT"),
    ],
)
def test_parts_that_are_not_there_are_refused(napari_mrcz, movie, part, said):
    ran = napari_mrcz("decompress", movie, "-o", movie.parent / "out", *part)
    assert ran.status in (1, 2)
    assert said in ran.err
    assert not list(movie.parent.glob("out/*"))


def test_a_part_never_counts_as_the_whole(napari_mrcz, movie):
    plain, out = movie.with_name("movie.mrc"), movie.parent / "out"
    for part in (("--frames", "0:5"), ("--crop", "0,0,5,5"), ("--group", 2)):
        ran = napari_mrcz("compress", plain, "-o", out, "--verify", "--delete", *part)
        assert ran.status == 2
        assert f"excludes {part[0]}" in ran.err
    assert napari_mrcz("compress", plain, "-o", out, "--frames", "0:5").status == 0
    ran = napari_mrcz("compress", plain, "-o", out, "--skip-existing")
    assert ran.status == 1
    assert "with other options" in ran.err
    ran = napari_mrcz("correct", movie, "-o", out, "--frames", "0:5", "--keep", "counts")
    assert ran.status == 2
    ran = napari_mrcz("decompress", movie, "-o", out, "--suffix", ".tif", "--skip-existing")
    assert ran.status == 2


def test_parts_of_parts_say_so():
    movie = nm.Stack.from_array(FRAMES)
    part = Selection(frames="2:").of(Selection(crop="0,0,8,8").of(movie))
    assert part.metadata["selected"]["of"] == {"of_shape": [11, 40, 56], "crop": [0, 0, 8, 8]}
    assert Selection().of(movie) is movie


def test_sums_and_averages_keep_the_history(napari_mrcz, movie):
    out = movie.parent / "out"
    assert napari_mrcz("correct", movie, "-o", out).status == 0
    clean = nm.read(out / "movie.mrcz").astype(int)
    ran = napari_mrcz("sum", out / "movie.mrcz", "--frames", "2:11")
    assert ran.status == 0, ran.err
    with nm.open(out / "movie_sum.mrc") as total:
        assert (np.asarray(total) == clean[2:].sum(axis=0)).all()
        assert total.shape == (1, 40, 56)
        assert total.dtype.itemsize == 2
        assert [step["name"] for step in total.history] == ["OutlierFilter"]
        assert total.metadata["grid"] == 3
        assert total.metadata["grouped"]["frames"] == 9
        assert total.pixel_size[1:] == pytest.approx((1.2, 1.2))
    averages = out / "averages.tif"
    ran = napari_mrcz("sum", movie, "-o", averages, "--average", *PART)
    assert ran.status == 0, ran.err
    expected = [CROPPED[:2].mean(axis=0), CROPPED[2:4].mean(axis=0), CROPPED[4]]
    assert nm.read(averages) == pytest.approx(np.stack(expected))
    assert napari_mrcz("sum", movie, movie.with_name("movie.mrc"), "-o", averages).status == 2
    assert napari_mrcz("sum", movie, "-o", out, "--suffix", ".png").status == 2
    assert "unsupported suffix '.xyz'" in napari_mrcz("sum", movie, "-o", out / "sum.xyz").err


def test_wide_sums_are_floats_that_other_programs_read(napari_mrcz, tmp_path):
    frames = np.full((5, 16, 16), 60000, np.uint16)
    nm.write(tmp_path / "a.mrcz", frames)
    assert napari_mrcz("sum", tmp_path / "a.mrcz").status == 0
    with nm.open(tmp_path / "a_sum.mrc") as total:
        assert total.dtype == np.float32
        assert (np.asarray(total) == 300000).all()
    nm.write(tmp_path / "c.mrcz", np.full((3, 8, 8), 0.1 + 0.2j, np.complex64))
    assert napari_mrcz("sum", tmp_path / "c.mrcz", "--average").status == 0
    assert nm.read(tmp_path / "c_average.mrc") == pytest.approx(0.1 + 0.2j)


def test_drift_is_told_as_text_and_json(napari_mrcz, tmp_path):
    rng = np.random.default_rng(1)
    specimen = 2 + ndimage.gaussian_filter(rng.normal(0, 3, (128, 128)), 2, mode="wrap")
    path = np.outer(np.arange(16), [0.25, -0.5])
    frames = [rng.poisson(ndimage.shift(specimen, step, mode="grid-wrap")) for step in path]
    nm.write(tmp_path / "a.mrcz", np.array(frames, np.uint8), pixel_size=2.0)
    aligned = tmp_path / "aligned.mrc"
    ran = napari_mrcz("drift", tmp_path / "a.mrcz", "--group", 4, "--json", "--aligned", aligned)
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert told["frames"] == [1.5, 5.5, 9.5, 13.5]
    assert np.abs(np.array(told["shifts"]) - [[k, -2 * k] for k in range(4)]).max() < 0.3
    assert told["warnings"] == []
    with nm.open(aligned) as total:
        assert total.pixel_size[1:] == (2.0, 2.0)
        assert total.metadata["aligned"]["group"] == 4
        assert np.asarray(total).sum() == pytest.approx(np.sum(frames), rel=1e-4)
    ran = napari_mrcz("drift", tmp_path / "a.mrcz", "--group", 4, "--frames", "0:8")
    assert "8 frames of 128 x 128 pixels in 2 groups of 4, 2 Å/pixel" in ran.out
    assert napari_mrcz("drift", tmp_path / "a.mrcz", "--group", 9).status == 1
    assert napari_mrcz("drift", tmp_path / "a.mrcz", "--aligned", aligned).status == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_holds_every_pixel_top_row_first(tmp_path, dtype, big):
    frames = (FRAMES * 3 - (2 if dtype.startswith("i") else 0)).astype(dtype)
    limit = 1 if big else tiff_saving._LARGEST_CLASSIC
    with mock.patch.object(tiff_saving, "_LARGEST_CLASSIC", limit):
        nm.write(tmp_path / "a.tif", frames)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff == big
        assert {page.compression.name for page in tiff.pages} == {"LZW"}
        assert (tiff.asarray()[:, ::-1] == frames).all()
    with nm.open(tmp_path / "a.tif") as movie:
        assert movie.dtype == dtype
        assert (np.asarray(movie) == frames).all()


def test_tiff_is_written_whole_or_not_at_all(tmp_path):
    def frames():
        yield FRAMES[0]
        yield FRAMES[1].astype(np.float32)

    with pytest.raises(nm.MrczError, match="frame 1"):
        nm.write(tmp_path / "a.tif", frames())
    for wrong in (FRAMES.astype(complex), FRAMES[:0]):
        with pytest.raises(nm.MrczError):
            nm.write(tmp_path / "a.tif", wrong)
    with pytest.raises(nm.MrczError, match="LZW"):
        nm.write(tmp_path / "a.tif", FRAMES, codec="zstd")
    assert not list(tmp_path.iterdir())
