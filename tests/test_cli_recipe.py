"""``recipe new``: a file that says what each of its keys is, and what to do with it."""

import re
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.cli.progress import say_error
from napari_mrcz.correction import ORIENTATIONS
from napari_mrcz.format.chunks import CODECS, FILTERS
from napari_mrcz.recipe import GainStep, KomaStep, OutlierStep, Output, Recipe
from napari_mrcz.recipe.recipe import _STEPS
from napari_mrcz.recipe.steps import notes_of
from napari_mrcz.recipe.text import to_toml


def test_a_new_recipe_says_what_each_key_is(napari_mrcz, tmp_path):
    path = tmp_path / "recipe.toml"
    ran = napari_mrcz("recipe", "new", path)
    assert ran.status == 0
    lines = path.read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if re.match(r"(# )?\w+ = ", line)]
    assert len(keys) == sum(len(notes_of(step)) for step in _STEPS.values())
    assert all(lines[i - 1].startswith("# ") for i in keys)
    assert max(map(len, lines)) <= 100
    recipe = Recipe.load(path)
    assert recipe.gain == GainStep(str(tmp_path / "gain.mrc"), orientation="auto")
    assert (recipe.outliers, recipe.koma, recipe.output) == (OutlierStep(), KomaStep(), Output())


def test_it_says_which_file_it_wrote_and_what_is_next(napari_mrcz, tmp_path):
    path = tmp_path / "a recipe.toml"
    wrote, following = napari_mrcz("recipe", "new", path).err.splitlines()
    assert wrote.startswith(f"wrote {path}: put your gain reference beside it as gain.mrc")
    assert f"napari-mrcz recipe check '{path}'" in following
    frames = np.random.default_rng(1).poisson(3, (4, 32, 32)).astype(np.uint8)
    gain = nm.GainNormalization(np.full((32, 32), 1.5, np.float32))
    nm.write(tmp_path / "raw.mrcz", frames)
    with nm.open(tmp_path / "raw.mrcz") as stack:
        nm.write(tmp_path / "movie.mrcz", stack.apply(gain))
    made = napari_mrcz("recipe", "new", tmp_path / "b.toml", "--history", tmp_path / "movie.mrcz")
    wrote = f"wrote {tmp_path / 'b.toml'}, {tmp_path / 'b-gain.mrc'}"
    assert made.err.splitlines()[0] == wrote
    assert (tmp_path / "b-gain.mrc").is_file()


def test_the_notes_name_all_that_may_be_chosen():
    assert all(f'"{way}"' in notes_of(GainStep)["orientation"] for way in ORIENTATIONS)
    assert all(f'"{codec}"' in notes_of(Output)["codec"] for codec in CODECS)
    assert all(f'"{name}"' in notes_of(Output)["filter"] for name in FILTERS)


@given(st.text(), st.floats(allow_nan=False), st.integers(), st.booleans())
def test_every_value_comes_back_from_among_the_comments(text, number, whole, flag):
    tables = {
        "outliers": {"defects": text, "order": number, "seed": whole},
        "gain": {"reference": text, "gamma": number},
        "koma": {"radius": whole, "keep_mean": flag},
        "output": {"dtype": text},
    }
    assert tomllib.loads(to_toml(tables, _STEPS)) == tables


def test_a_file_that_exists_names_the_option(napari_mrcz, tmp_path):
    path = tmp_path / "recipe.toml"
    path.touch()
    ran = napari_mrcz("recipe", "new", path)
    assert ran.status == 1
    assert ran.err.endswith("Choose another name, or have it replaced (--overwrite)\n")
    assert napari_mrcz("recipe", "new", path, "--overwrite").status == 0


@pytest.mark.parametrize("command", ["compress", "correct", "watch"])
def test_so_it_is_for_movies(napari_mrcz, tmp_path, command):
    movies, out = tmp_path / "in", tmp_path / "out"
    movies.mkdir()
    out.mkdir()
    nm.write(movies / "a.mrc", np.random.default_rng(0).poisson(4, (4, 32, 32)).astype(np.uint8))
    (out / "a.mrcz").touch()
    more = ("--once", "--settle", 0) if command == "watch" else ()
    ran = napari_mrcz(command, movies, "-o", out, *more)
    assert ran.status == 1
    assert "have it replaced (--overwrite)" in ran.err


def test_names_stay_as_they_are(capsys):
    """Only the library's own words are changed."""
    say_error("a (overwrite).mrc: exists already")
    assert "a (overwrite).mrc" in capsys.readouterr().err
