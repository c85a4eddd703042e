"""Known defects in the lists of other programs: filled in every frame, wherever they are named."""

import json

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.session.recipe import Recipe

SHAPE = (96, 128)
# Dose of each frame, in electrons per pixel.
DOSES = np.array([3.0, 2.0, 1.0, 0.5] * 6)


def rectangles(*listed: tuple[int, int, int, int]) -> np.ndarray:
    """Return a mask of rectangles, each (x, y, width, height)."""
    mask = np.zeros(SHAPE, bool)
    for x, y, w, h in listed:
        mask[y : y + h, x : x + w] = True
    return mask


COLUMN, ROW, WIDE = (40, 0, 1, 96), (0, 20, 128, 1), (60, 0, 3, 96)
BLOCK, CORNER, EDGE = (80, 40, 20, 20), (108, 76, 20, 20), (0, 0, 3, 96)
EVERY = rectangles(COLUMN, ROW, WIDE, BLOCK, CORNER, EDGE)


def movie_with(mask: np.ndarray, value: int, seed: int = 0) -> np.ndarray:
    """Return frames of falling dose whose defects always count the same."""
    rates = np.broadcast_to(DOSES[:, None, None], (len(DOSES), *SHAPE))
    frames = np.random.default_rng(seed).poisson(rates).astype(np.uint8)
    frames[:, mask] = value
    return frames


@pytest.mark.parametrize("value", [0, 200])
@pytest.mark.parametrize(
    "mask",
    [rectangles(COLUMN, ROW, WIDE, EDGE), rectangles(BLOCK, CORNER)],
    ids=["lines", "rectangles"],
)
def test_defects_are_filled_at_the_dose_of_each_frame(mask, value):
    """Within 5 % of the good pixels, though a rectangle of 20 reaches beyond any neighbourhood."""
    fills = []
    for seed in range(3):
        frames = movie_with(mask, value, seed)
        fitted = nm.OutlierFilter.fit(frames, defects=mask, fill="expectation")
        clean = np.stack([fitted(frame, i) for i, frame in enumerate(frames)])
        fills.append([frame[mask].mean() / frame[~mask].mean() for frame in clean])
        assert np.isfinite(clean).all()
    np.testing.assert_allclose(np.mean(fills, axis=0), 1, atol=0.05)


@pytest.mark.parametrize("mask", [EVERY])
def test_drawn_counts_have_the_same_level(mask):
    frames = movie_with(mask, 0)
    fitted = nm.OutlierFilter.fit(frames, defects=mask)
    clean = np.stack([fitted(frame, i) for i, frame in enumerate(frames)])
    assert clean.dtype == np.uint8
    expected = DOSES * np.count_nonzero(mask)
    found = clean[:, mask].sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=0, rtol=0.05)


def lists_of(mask: np.ndarray, folder) -> dict[str, object]:
    """Write a mask as RELION and MotionCor, SerialEM, and whatever draws maps have it."""
    lines = "".join(f"{x} {y} {w} {h}\n" for x, y, w, h in (COLUMN, ROW, WIDE, BLOCK, CORNER, EDGE))
    (folder / "relion.txt").write_text(lines)
    nm.write_defects(folder / "serialem.txt", mask, "serialem")
    nm.write_defects(folder / "map.mrc", mask, "map")
    nm.write_defects(folder / "map.tif", mask, "map")
    return {name: folder / name for name in ("relion.txt", "serialem.txt", "map.mrc", "map.tif")}


def test_a_defect_list_is_taken_by_the_command_line_and_by_recipes(napari_mrcz, tmp_path):
    """All formats and doors give the same pixels."""
    movie = tmp_path / "movie.mrcz"
    nm.write(movie, movie_with(EVERY, 0))
    with nm.open(movie) as stack:
        expected = np.asarray(stack.apply(nm.OutlierFilter.fit(stack, defects=EVERY)))
    for name, path in lists_of(EVERY, tmp_path).items():
        ran = napari_mrcz("correct", movie, "-o", tmp_path / f"out-{name}", "--defects", path)
        assert ran.status == 0, ran.err
        np.testing.assert_array_equal(nm.read(tmp_path / f"out-{name}" / "movie.mrcz"), expected)
    (tmp_path / "recipe.toml").write_text('[outliers]\ndefects = "relion.txt"\n')
    recipe = ("-r", tmp_path / "recipe.toml")
    assert napari_mrcz("correct", movie, "-o", tmp_path / "by", *recipe).status == 0
    np.testing.assert_array_equal(nm.read(tmp_path / "by" / "movie.mrcz"), expected)


def test_a_defect_list_that_is_cut_is_warned_of_for_each_movie(napari_mrcz, tmp_path):
    """With KOMA, too, which reads movies twice; and how many pixels it named is said."""
    (tmp_path / "in").mkdir()
    for number in range(2):
        frames = movie_with(np.zeros(SHAPE, bool), 0, number)
        nm.write(tmp_path / "in" / f"{number}.mrcz", frames)
    (tmp_path / "beyond.txt").write_text("126 3 5 2\n")
    options = ("--defects", tmp_path / "beyond.txt", "--json")
    for more in ((), ("--koma", 1)):
        out = tmp_path / f"out-{len(more)}"
        ran = napari_mrcz("correct", tmp_path / "in", "-o", out, *options, *more)
        assert ran.status == 0, ran.err
        for line in map(json.loads, ran.out.splitlines()):
            assert any("is cut off (line 1)" in warning for warning in line["warnings"])
            assert any(warning.startswith("beyond.txt: ") for warning in line["warnings"])
            assert line["notes"][0].endswith(", 4 defects")


def test_a_defect_list_of_another_camera_is_refused(napari_mrcz, tmp_path):
    movie, out = tmp_path / "movie.mrcz", tmp_path / "out"
    nm.write(movie, movie_with(EVERY, 0))
    nm.write_defects(tmp_path / "other.mrc", np.eye(50, dtype=bool), "map")
    (tmp_path / "beyond.txt").write_text("500 3 2 2\n")
    nm.write_defects(tmp_path / "turned.txt", EVERY.T, "serialem")
    for name in ("other.mrc", "beyond.txt", "turned.txt"):
        ran = napari_mrcz("correct", movie, "-o", out, "--defects", tmp_path / name)
        assert ran.status == 1
        assert name in ran.err and str(SHAPE) in ran.err
    assert napari_mrcz("correct", movie, "-o", out, "--defects", tmp_path / "no.txt").status == 2
    (tmp_path / "gain.toml").write_text('[gain]\nreference = "gain.mrc"\n')
    ran = napari_mrcz("correct", movie, "-o", out, "-r", tmp_path / "gain.toml", "--pedestal", 5)
    assert ran.status == 2 and "[outliers]" in ran.err
    ran = napari_mrcz("correct", movie, "-o", out, "--counts-per-electron", -1)
    assert ran.status == 2 and "above 0" in ran.err


def test_pedestal_and_counts_per_electron_are_options_everywhere(napari_mrcz, tmp_path):
    """Command line, recipe, history, and the recipe of that history."""
    movie, out = tmp_path / "movie.mrcz", tmp_path / "out"
    nm.write(movie, movie_with(EVERY, 0).astype(np.uint16) * 16 + 100)
    with nm.open(movie) as stack:
        fitted = nm.OutlierFilter.fit(stack, pedestal=100, counts_per_electron=16)
        expected = np.asarray(stack.apply(fitted))
    options = ("--pedestal", 100, "--counts-per-electron", 16)
    assert napari_mrcz("correct", movie, "-o", out, *options).status == 0
    with nm.open(out / "movie.mrcz") as done:
        np.testing.assert_array_equal(done, expected)
        (step,) = done.history
        assert (step["pedestal"], step["counts_per_electron"]) == (100, 16)
        assert nm.OutlierFilter.from_description(step).options == fitted.options
    recipe = tmp_path / "recipe.toml"
    made = napari_mrcz("recipe", "new", recipe, "--history", out / "movie.mrcz")
    assert made.status == 0, made.err
    step = Recipe.load(recipe).outliers
    assert (step.pedestal, step.counts_per_electron) == (100, 16)
    assert napari_mrcz("correct", movie, "-o", tmp_path / "again", "-r", recipe).status == 0
    np.testing.assert_array_equal(nm.read(tmp_path / "again" / "movie.mrcz"), expected)
    plain = json.loads(json.dumps(Recipe.load(recipe).as_dict()))
    assert Recipe.from_dict(plain) == Recipe.load(recipe)
