"""``bench``: the ways to store a movie compared, and the article's figures."""

import json
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import napari_mrcz as nm
from napari_mrcz.cli.comparison import (
    Contestant,
    Result,
    as_text,
    by_block,
    by_dose,
    by_level,
    by_threads,
    contestants,
    draw_compression,
    draw_serialisation,
    race,
    serialisations,
)

FRAMES = np.random.default_rng(3).poisson(1, (3, 128, 128)).astype(np.uint8)


def test_every_way_gives_the_movie_back(tmp_path):
    """And the sizes are those of the files."""
    ways = list(contestants(FRAMES))
    names = {way.name for way in ways}
    assert {"MRC, uncompressed", "MRC, 4 bits", "MRCZ, zstd-1", "TIFF, deflate"} <= names
    results = {result.name: result for result in race(FRAMES, ways, rounds=1, folder=tmp_path)}
    assert results["MRC, 4 bits"].ratio == pytest.approx(2, rel=0.1)
    assert results["MRCZ, zstd-1"].ratio > results["MRCZ, lz4-9"].ratio > 2.5
    assert results["copying the plain file"].nbytes == FRAMES.nbytes
    assert not list(tmp_path.iterdir())


def test_a_way_that_changes_pixels_is_found_out(tmp_path):
    """Speed is worth nothing then."""
    wrong = Contestant("wrong", ".npy", np.save, lambda path: np.load(path) + 1)
    with pytest.raises(nm.MrczError, match="wrong gives other pixels"):
        race(FRAMES, [wrong], rounds=1, folder=tmp_path)


def test_the_command_takes_a_movie(napari_mrcz, tmp_path):
    """As a table, and as JSON."""
    nm.write(tmp_path / "movie.mrcz", FRAMES)
    ran = napari_mrcz("bench", tmp_path / "movie.mrcz", "--rounds", 1, "--json")
    assert ran.status == 0, ran.err
    told = {result["name"]: result for result in json.loads(ran.out)}
    assert told["MRCZ, zstd-1"]["ratio"] > 2.5
    ran = napari_mrcz("bench", "--rounds", 1, "--frames", 2, "--shape", 64, 64)
    assert "2 simulated frames of 64 x 64 pixels" in ran.err
    assert ran.out.splitlines()[0].split()[:3] == ["way", "to", "store"]


def test_short_times_and_small_files_have_three_figures():
    """A small movie's times are no rows of 0.00."""
    ways = [
        Result("fast", 123_400, 2.0, 0.001234, 0.000456),
        Result("large", 1_234_000_000, 2.0, 12.34, 0.5),
        Result("copy", 246_800, 1.0, 0.01234, 0.00456),
    ]
    head, fast, large, _ = (line.split("  ") for line in as_text(ways))
    assert [cell.strip() for cell in head if cell][-2:] == ["write speed", "read speed"]
    told = [cell.strip() for cell in fast if cell]
    assert told == [
        "fast",
        "0.123",
        "2.00",
        "0.00123",
        "0.000456",
        "10.0 x copying",
        "10.0 x plain",
    ]
    assert [cell.strip() for cell in large if cell][1:4] == ["1234", "2.00", "12.3"]


def test_ratios_fall_with_dose_and_stay_below_the_bound():
    """Figure 2a."""
    *codecs, bound = by_dose(256, (0.05, 1.0, 4.0))
    names = ["blosclz", "lz4", "zlib", "zstd", "zstd for counts"]
    assert [curve.name for curve in codecs] == names
    assert all(max(c.ratio[i] for c in codecs) == codecs[-1].ratio[i] for i in range(3))
    for curve in codecs:
        assert list(curve.ratio) == sorted(curve.ratio, reverse=True)
        assert (np.array(curve.ratio) <= np.array(bound.ratio) * 1.01).all()


def test_figures_are_drawn(tmp_path):
    """Of the right size, and not empty."""
    pytest.importorskip("matplotlib")
    frame = FRAMES[0]
    curves = by_level(frame, (1, 3)), by_threads(frame, 2), by_block(frame, (4096, 16384))
    draw_compression(by_dose(64, (0.1, 1.0)), *curves, tmp_path / "compression.png")
    draw_serialisation(serialisations(20_000), tmp_path / "serialisation.png")
    for name in ("compression", "serialisation"):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert picture.shape[1] > 800
        assert (picture < 128).mean() > 0.01


def test_figures_that_cannot_be_drawn_are_refused_before_the_work(napari_mrcz, tmp_path):
    """It takes a minute, and the folder is not made either."""
    figures = tmp_path / "figures"
    with mock.patch.dict("sys.modules", {"matplotlib": None, "matplotlib.figure": None}):
        ran = napari_mrcz("bench", "--shape", 64, 64, "--figures", figures)
    assert ran.status == 1
    assert (ran.out, ran.err.count("\n")) == ("", 1)
    assert "needs matplotlib" in ran.err
    assert not figures.exists()


def test_packed_metadata_is_smaller_and_whole():
    """Figure 3b."""
    found = {s.name: s.nbytes for s in serialisations(200_000)}
    for name in ("JSON", "MessagePack"):
        assert found[f"{name}, zstd"] < found[f"{name}, lz4"] < found[f"{name}, bare"]


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.bool_, np.complex64])
def test_ways_that_cannot_hold_the_pixels_are_left_out(dtype, tmp_path):
    """8-bit movies are often bright, which mrcz has no type for."""
    frames = (np.random.default_rng(3).random((2, 32, 32)) * 255).astype(dtype)
    results = race(frames, list(contestants(frames)), rounds=1, folder=tmp_path)
    assert "MRCZ, zstd-1" in {result.name for result in results}


def test_pixels_that_are_not_a_number_come_back_too(tmp_path):
    """NaN equals nothing, itself included."""
    frames = np.full((2, 32, 32), np.nan, np.float32)
    assert race(frames, list(contestants(frames)), rounds=1, folder=tmp_path)
