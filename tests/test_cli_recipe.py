"""``recipe new``: a file that says what each of its keys is, and what to do with it."""

import re
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.cli.progress import say_error
from napari_mrcz.correction import ORIENTATIONS, GainNormalization
from napari_mrcz.correction.gain import GainStep
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.options import options_of
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.format.chunks import FILTERS
from napari_mrcz.format.header import CODECS
from napari_mrcz.session.correct import corrected as corrected_by
from napari_mrcz.session.recipe import Output, Recipe, tables, to_toml
from napari_mrcz.session.recipe_history import save_recipe_of


def test_a_new_recipe_says_what_each_key_is(napari_mrcz, tmp_path):
    path = tmp_path / "recipe.toml"
    ran = napari_mrcz("recipe", "new", path)
    assert ran.status == 0
    lines = path.read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if re.match(r"(# )?\w+ = ", line)]
    # The limit of tails does nothing without the normal model.
    assert len(keys) == sum(len(options_of(step)) for step in tables().values()) - 1
    assert all(lines[i - 1].startswith("# ") for i in keys)
    assert max(map(len, lines)) <= 100
    recipe = Recipe.load(path)
    assert recipe.gain == GainStep(str(tmp_path / "gain.mrc"), orientation="auto")
    assert (recipe.outliers, recipe.koma, recipe.output) == (OutlierStep(), KomaOptions(), Output())


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
    assert all(f'"{way}"' in options_of(GainStep)["orientation"].note for way in ORIENTATIONS)
    assert all(f'"{codec}"' in options_of(Output)["codec"].note for codec in CODECS)
    assert all(f'"{name}"' in options_of(Output)["filter"].note for name in FILTERS)


@given(st.text(), st.floats(allow_nan=False), st.integers(), st.booleans())
def test_every_value_comes_back_from_among_the_comments(text, number, whole, flag):
    content = {
        "outliers": {"defects": text, "order": number, "seed": whole},
        "gain": {"reference": text, "gamma": number},
        "koma": {"radius": whole, "keep_mean": flag},
        "output": {"dtype": text},
    }
    assert tomllib.loads(to_toml(content)) == content


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


@pytest.fixture
def movies(tmp_path):
    """Return two movies, and what a recipe of them may name."""
    rng = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        frames = rng.poisson(3, (5, 48, 64)).astype(np.uint8)
        frames[:, 7, 9] = 40
        nm.write(tmp_path / "in" / f"{name}.mrcz", frames)
    gain = rng.uniform(0.8, 1.25, (64, 48)).astype(np.float32)
    gain[3, 4] = 0
    nm.write(tmp_path / "gain.mrc", gain)
    nm.write(tmp_path / "dark.mrc", rng.random((48, 64), np.float32))
    (tmp_path / "defects.txt").write_text("20 0 1 48\n30 30 6 6\n")
    return tmp_path / "in"


_KEYS = """
[outliers]
model = "normal"
order = 5
relaxation = 0.9
limit = 0.7
fill = "expectation"
tolerance = 0.01
seed = 8
defects = "defects.txt"
pedestal = 0
counts_per_electron = 1
hot_threshold = 6.5
[output]
codec = "lz4"
level = 7
filter = "shuffle"
dtype = "int16"
"""
_COUNTS = """
[outliers]
seed = 4
[gain]
reference = "gain.mrc"
orientation = "rot90"
[output]
keep = "counts"
level = 2
"""
_GAIN = """
[outliers]
defects = "defects.txt"
[gain]
reference = "gain.mrc"
dark = "dark.mrc"
orientation = "rot90"
gamma = 0.9
[koma]
radius = 1
keep_mean = false
limit = 9
"""


@pytest.mark.parametrize("text", [_KEYS, _GAIN, _COUNTS], ids=["outliers", "KOMA", "counts"])
def test_a_recipe_of_a_history_does_the_same_to_the_byte(napari_mrcz, movies, tmp_path, text):
    """Whatever was chosen is in the corrected file."""
    (tmp_path / "r.toml").write_text(text)
    ran = napari_mrcz("correct", movies, "-r", tmp_path / "r.toml", "-o", tmp_path / "one")
    assert ran.status == 0, ran.err
    history = ("--history", tmp_path / "one" / "b.mrcz")
    (tmp_path / "elsewhere").mkdir()
    recipe = tmp_path / "elsewhere" / "again.toml"
    made = napari_mrcz("recipe", "new", recipe, *history)
    assert made.status == 0, made.err
    first, again = Recipe.load(tmp_path / "r.toml").as_dict(), Recipe.load(recipe).as_dict()
    for table in (first, again):
        for step, key in (("outliers", "defects"), ("gain", "reference"), ("gain", "dark")):
            table.get(step, {}).pop(key, None)
    assert again == first
    ran = napari_mrcz("correct", movies, "-r", recipe, "-o", tmp_path / "two")
    assert ran.status == 0, ran.err
    for name in ("a.mrcz", "b.mrcz", "c.mrcz"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    options = ("-r", recipe, "-o", tmp_path / "one", "--skip-existing")
    assert "3 of them there already" in napari_mrcz("correct", movies, *options).err


@pytest.mark.parametrize(
    "saved",
    [
        {"codec": "zlib", "level": 5, "filter": "shuffle", "dtype": "float16"},
        {"codec": "zstd", "level": 3, "filter": "bitshuffle", "dtype": "int16"},
        {"codec": "zstd", "level": 1, "filter": "bitshuffle", "keep": "counts"},
    ],
)
def test_a_script_s_file_tells_how_it_was_saved(napari_mrcz, tmp_path, saved):
    """Without a footer that says so."""
    stack = nm.Stack.from_array(np.random.default_rng(0).poisson(4, (4, 40, 40)).astype(np.uint8))
    gain = nm.GainNormalization(np.full((40, 40), 1.5, np.float32))
    nm.write(tmp_path / "m.mrcz", stack.apply(gain), **saved)
    made = napari_mrcz("recipe", "new", tmp_path / "r.toml", "--history", tmp_path / "m.mrcz")
    assert made.status == 0, made.err
    assert Recipe.load(tmp_path / "r.toml").output == Output(**saved)


def test_the_dark_of_an_old_history_lies_as_its_frames_did(tmp_path):
    """There it was turned with the reference; recipes have it as the frames lie."""
    rng = np.random.default_rng(2)
    gain = GainNormalization(rng.uniform(0.5, 2, (24, 16)), 1, rng.random((16, 24)), "rot270")
    movie = nm.Stack.from_array(rng.poisson(5, (3, 16, 24)).astype(np.uint8))
    old = dict(gain.describe()) | {"dark": np.rot90(gain.dark).copy()}
    del old["dark_lies"], old["warnings"]
    save_recipe_of([old], tmp_path / "r.toml")
    corrected, _, _ = corrected_by(movie, Recipe.load(tmp_path / "r.toml"))
    for same in (nm.replay([old], movie), movie.apply(gain)):
        np.testing.assert_array_equal(corrected, same)


def test_a_dark_that_lies_as_the_frames_and_a_constant_gain_are_checked(napari_mrcz, tmp_path):
    nm.write(tmp_path / "gain.mrc", np.ones((8, 6), np.float32))
    nm.write(tmp_path / "dark.mrc", np.ones((6, 8), np.float32))
    recipe = tmp_path / "r.toml"
    recipe.write_text('[gain]\nreference = "gain.mrc"\norientation = "rot90"\ndark = "dark.mrc"\n')
    ran = napari_mrcz("recipe", "check", recipe)
    assert ran.status == 0, ran.err
    assert "warning: " in ran.err and "constant" in ran.err
