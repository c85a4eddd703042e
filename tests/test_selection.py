"""Parts of movies: frames, then a crop, then groups, from each command that takes them; TIFF."""

import json
from unittest import mock

import numpy as np
import pytest
import tifffile

import napari_mrcz as nm
from napari_mrcz.session.selection import Selection
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
