"""Commands with references of twice or half the frames' pixels: what the library gives by hand."""

from pathlib import Path

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction import Candidate, orient

SHAPE = (96, 128)


@pytest.fixture(scope="module")
def fine() -> np.ndarray:
    """Return factors of sub-pixels as the frames lie, a few of which are dead."""
    rng = np.random.default_rng(3)
    gain = np.exp(0.1 * rng.standard_normal((2 * SHAPE[0], 2 * SHAPE[1]))).astype(np.float32)
    gain[5, 10:40:7] = 0
    return gain


@pytest.fixture
def folder(tmp_path, fine) -> Path:
    """Return a folder with frames that such a camera bins."""
    with np.errstate(divide="ignore"):
        response = np.where(fine > 0, 1 / fine, 0)
    y, x = SHAPE
    rate = 0.5 * response.reshape(y, 2, x, 2).sum(axis=(1, 3))
    frames = np.random.default_rng(4).poisson(rate, (30, y, x)).astype(np.uint8)
    nm.write(tmp_path / "movie.mrcz", frames)
    return tmp_path


def save(folder: Path, reference: np.ndarray, lines: str) -> Path:
    nm.write(folder / "gain.mrc", np.ascontiguousarray(reference))
    recipe = folder / "r.toml"
    recipe.write_text(f'[gain]\nreference = "gain.mrc"\n{lines}\n')
    return recipe


def by_hand(folder, orientation, gamma=1.0, dark=None) -> np.ndarray:
    way = Candidate(orientation, gamma < 0, SHAPE, 0.0)
    prepared = way.prepare(nm.read_reference(folder / "gain.mrc"))
    with nm.open(folder / "movie.mrcz") as movie:
        return np.asarray(movie.apply(nm.GainNormalization(prepared, abs(gamma), dark)))


@pytest.mark.parametrize(
    ("saved", "orientation", "gamma", "lines"),
    [
        ("identity", "identity", 1.0, ""),
        ("identity", "identity", 0.97, "gamma = 0.97"),
        ("fliplr", "fliplr", 1.0, 'orientation = "auto"'),
        ("rot270", "rot90", 1.0, 'orientation = "rot90"'),
        ("rot270", "rot90", 1.0, 'orientation = "auto"'),
        ("reciprocal", "flipud", -0.9, 'orientation = "auto"\ngamma = 0.9'),
        ("reciprocal", "flipud", -0.9, 'orientation = "flipud"\ngamma = -0.9'),
    ],
)
def test_a_reference_in_super_resolution_is_binned(
    napari_mrcz, folder, fine, saved, orientation, gamma, lines
):
    """Whether its orientation is found or named, to the last bit."""
    if saved == "reciprocal":
        lying = np.flipud(np.divide(1, fine, where=fine > 0, out=np.zeros_like(fine)))
    else:
        lying = orient(fine, saved)
    recipe = save(folder, lying, lines)
    assert napari_mrcz("recipe", "check", recipe).status == 0
    ran = napari_mrcz("correct", folder / "movie.mrcz", "-r", recipe, "-o", folder / "out")
    assert ran.status == 0, ran.err
    wanted = by_hand(folder, orientation, gamma)
    with nm.open(folder / "movie.mrcz") as raw, nm.open(folder / "out" / "movie.mrcz") as done:
        np.testing.assert_array_equal(done, wanted)
        np.testing.assert_array_equal(nm.replay(done.history, raw), wanted)
    dead = (wanted == 0).all(axis=0)
    np.testing.assert_array_equal(np.argwhere(dead), [(2, x // 2) for x in range(10, 40, 7)])


def test_a_coarse_reference_is_repeated(napari_mrcz, folder, fine):
    """As those of frames in super-resolution are."""
    recipe = save(folder, fine[::4, ::4], "")
    ran = napari_mrcz("correct", folder / "movie.mrcz", "-r", recipe, "-o", folder / "out")
    assert ran.status == 0, ran.err
    np.testing.assert_array_equal(
        nm.read(folder / "out" / "movie.mrcz"), by_hand(folder, "identity")
    )


def test_the_dark_is_then_as_the_frames_are(napari_mrcz, folder, fine):
    """One of sub-pixels is refused, as nobody knows whether they are added or averaged."""
    dark = np.random.default_rng(5).uniform(0, 1, SHAPE).astype(np.float32)
    recipe = save(folder, np.rot90(fine), 'orientation = "rot270"\ndark = "dark.mrc"')
    nm.write(folder / "dark.mrc", dark)
    assert napari_mrcz("recipe", "check", recipe).status == 0
    arguments = ("correct", folder / "movie.mrcz", "-r", recipe, "-o", folder / "out")
    ran = napari_mrcz(*arguments)
    assert ran.status == 0, ran.err
    done = nm.read(folder / "out" / "movie.mrcz")
    np.testing.assert_array_equal(done, by_hand(folder, "rot270", dark=dark))
    nm.write(folder / "fine.mrc", np.rot90(fine).copy())
    recipe.write_text(recipe.read_text().replace("dark.mrc", "fine.mrc"))
    ran = napari_mrcz(*arguments, "--overwrite")
    assert ran.status == 1
    assert "needs a dark of (96, 128), not (256, 192)" in ran.err
    nm.write(folder / "fine.mrc", dark[1:], overwrite=True)
    ran = napari_mrcz("recipe", "check", recipe)
    assert ran.status == 1
    assert f"{folder / 'fine.mrc'}: a dark reference of (95, 128) pixels" in ran.err


def test_a_reference_of_another_size_is_named(napari_mrcz, folder, fine):
    """With the sizes, and as it would have been turned."""
    recipe = save(folder, np.rot90(fine), 'orientation = "flipud"')
    ran = napari_mrcz("correct", folder / "movie.mrcz", "-r", recipe, "-o", folder / "out")
    assert ran.status == 1
    said = "a reference of (256, 192), turned by flipud, does not fit frames of (96, 128)"
    assert f"{folder / 'gain.mrc'}: {said}" in ran.err


def test_float_movies_are_decimated_by_such_a_reference(napari_mrcz, folder, fine):
    """Those that were normalised by it, binned."""
    recipe = save(folder, fine, "")
    out = folder / "out"
    assert napari_mrcz("correct", folder / "movie.mrcz", "-r", recipe, "-o", out).status == 0
    assert napari_mrcz("decompress", out).status == 0
    arguments = ("compress", out / "movie.mrc", "-o", folder / "small", "--decimate")
    ran = napari_mrcz(*arguments, folder / "gain.mrc")
    assert ran.status == 0, ran.err
    with nm.open(folder / "small" / "movie.mrcz") as small:
        assert small.dtype == np.uint8
        good = by_hand(folder, "identity").any(axis=0)
        raw = nm.read(folder / "movie.mrcz")
        np.testing.assert_array_equal(np.asarray(small)[:, good], raw[:, good])
        np.testing.assert_array_equal(
            small.apply(nm.restore(small.history)), nm.read(out / "movie.mrc")
        )
    ran = napari_mrcz(*arguments, folder / "movie.mrcz", "--overwrite")
    assert ran.status == 1 and "one image is expected" in ran.err
    nm.write(folder / "gain.mrc", fine[1:], overwrite=True)
    ran = napari_mrcz(*arguments, folder / "gain.mrc", "--overwrite")
    assert ran.status == 1
    assert "does not fit frames of (96, 128)" in ran.err
    assert "Name the one that this movie was multiplied by" in ran.err
