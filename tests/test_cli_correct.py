"""``correct`` and ``recipe``, as they are typed: the same files wherever it is done."""

import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import distributed
import numpy as np
import pytest
from test_own_corrections import MODULE, TABLE
from watch_session import frames_in

import napari_mrcz as nm
from napari_mrcz.correction.koma import KomaNormalization, KomaOptions, too_few
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.format import FrameReader
from napari_mrcz.session.correct import Correct, correct_all
from napari_mrcz.session.correct import corrected as corrected_by
from napari_mrcz.session.recipe import Recipe
from napari_mrcz.session.recipe_history import save_recipe_of
from napari_mrcz.session.run import cluster, run_all
from napari_mrcz.session.survey import NAMES
from napari_mrcz.simulation import Camera, simulate_movie

N_STACKS, SHAPE = 8, (10, 64, 72)

RECIPE = """
[outliers]
order = 5
seed = 3

[gain]
reference = "gain.mrc"
gamma = 0.97

[koma]
radius = 3
even_if_worse = true

[output]
level = 2
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    """Return a folder of movies, a gain reference and a recipe."""
    folder = tmp_path_factory.mktemp("session")
    rng = np.random.default_rng(2)
    hot = rng.random(SHAPE[1:]) < 0.004
    for i in range(N_STACKS):
        frames = rng.poisson(np.where(hot, 8.0, 1.5), SHAPE).astype(np.uint8)
        nm.write(folder / f"movie_{i:02}.mrcz", frames, pixel_size=1.1)
    nm.write(folder / "gain.mrc", rng.uniform(0.9, 1.1, SHAPE[1:]).astype(np.float32))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def tasks(sources, targets, recipe):
    return [Correct(*pair, recipe) for pair in zip(sources, targets, strict=True)]


@pytest.fixture(scope="module")
def corrected(session, tmp_path_factory) -> Path:
    """Return the folder of what comes of them in one process."""
    folder = tmp_path_factory.mktemp("corrected")
    recipe = Recipe.load(session / "recipe.toml")
    for outcome in correct_all(tasks(*paths(session, folder), recipe), order=NAMES):
        assert outcome.ok, outcome.error
    return folder


def paths(session: Path, folder: Path) -> tuple[list[str], list[str]]:
    movies = sorted(session.glob("movie_*.mrcz"))
    return [str(movie) for movie in movies], [str(folder / movie.name) for movie in movies]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_it_is_what_the_library_does(session, corrected):
    """Step by step, by hand."""
    gain = nm.GainNormalization(nm.read_reference(session / "gain.mrc"), 0.97)
    movies, _ = paths(session, corrected)
    cleaned = []
    for movie in movies:
        stack = nm.open(movie)
        outliers = nm.OutlierFilter.fit(stack, order=5.0, seed=3, gain=gain.factor)
        cleaned.append(stack.apply(outliers).apply(gain))
    koma = nm.Koma(cleaned, radius=3, even_if_worse=True)
    for i in (0, 4, N_STACKS - 1):
        with nm.open(corrected / Path(movies[i]).name) as result:
            np.testing.assert_array_equal(result, np.asarray(cleaned[i].apply(koma[i])))
            names = [step["name"] for step in result.history]
            assert names == ["OutlierFilter", "GainNormalization", "KomaNormalization"]
            assert result.pixel_size == pytest.approx((1.1, 1.1, 1.1))
    for stack in cleaned:
        stack.close()


def test_replaying_a_result_gives_it_again(session, corrected):
    """The footer is enough."""
    with nm.open(corrected / "movie_03.mrcz") as done, nm.open(session / "movie_03.mrcz") as raw:
        np.testing.assert_array_equal(nm.replay(done.history, raw), done)


def test_the_command_gives_the_same_files(napari_mrcz, session, corrected, tmp_path):
    """From one process."""
    arguments = ("correct", *sorted(session.glob("movie_*")), "-r", session / "recipe.toml")
    ran = napari_mrcz(*arguments, "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert f"{N_STACKS} of {N_STACKS} files corrected" in ran.err
    assert contents(tmp_path / "out") == contents(corrected)


def test_workers_give_the_same_files(napari_mrcz, session, corrected, tmp_path, workers):
    """Two processes."""
    arguments = ("correct", *sorted(session.glob("movie_*")), "-r", session / "recipe.toml")
    address = workers.scheduler.address
    ran = napari_mrcz(*arguments, "-o", tmp_path / "out", "--scheduler", address)
    assert ran.status == 0, ran.err
    assert contents(tmp_path / "out") == contents(corrected)


def test_workers_import_a_correction_of_one_s_own(
    napari_mrcz, session, tmp_path, workers, forgotten
):
    """The module is named once, on the command line."""
    (tmp_path / "brightening_module.py").write_text(MODULE)
    (tmp_path / "r.toml").write_text(f"{TABLE}\namount = 3\n")
    movies = [session / f"movie_0{i}.mrcz" for i in range(3)]
    recipe = ("-r", tmp_path / "r.toml", "--with", tmp_path / "brightening_module.py")
    for where, more in (("here", ()), ("there", ("--scheduler", workers.scheduler.address))):
        ran = napari_mrcz("correct", *movies, *recipe, "-o", tmp_path / where, *more)
        assert ran.status == 0, ran.err
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_worker_that_is_killed_changes_nothing(session, corrected, tmp_path):
    """Another takes over. Nor does another cluster on the same machine change anything."""
    pytest.importorskip("distributed")
    recipe = Recipe.load(session / "recipe.toml")
    with socket.socket() as taken, ExitStack() as closing:
        with suppress(OSError):  # by another cluster, then: its page has that port
            taken.bind(("", 8787))
            taken.listen()
        client = closing.enter_context(cluster(workers=2))
        killed = 0
        all_of_them = tasks(*paths(session, tmp_path), recipe)
        for outcome in correct_all(all_of_them, client=client, order=NAMES):
            assert outcome.ok, outcome.error
            if not killed:
                killed = client.run(os.getpid).popitem()[1]
                os.kill(killed, signal.SIGKILL)
    assert contents(tmp_path) == contents(corrected)


def test_results_do_not_go_among_the_movies(napari_mrcz, tmp_path):
    """They would have the names of movies that were only compressed."""
    nm.write(tmp_path / "a.mrc", np.ones((3, 32, 32), np.uint8))
    ran = napari_mrcz("correct", tmp_path, "-o", tmp_path / ".." / tmp_path.name)
    assert ran.status == 2
    assert "results need a folder of their own" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]


def test_a_bad_movie_enters_no_average_and_stops_nothing(napari_mrcz, session, tmp_path):
    """The rest is corrected as if it had not been there."""
    movies = sorted(session.glob("movie_*"))
    (tmp_path / "movie_00b.mrcz").write_bytes(b"cut off")
    some = [*movies[:2], tmp_path / "movie_00b.mrcz", *movies[2:]]
    ran = napari_mrcz("correct", *some, "-r", session / "recipe.toml", "-o", tmp_path / "out")
    assert ran.status == 1
    assert "failed: movie_00b.mrcz" in ran.err
    good = napari_mrcz("correct", *movies, "-r", session / "recipe.toml", "-o", tmp_path / "good")
    assert good.status == 0
    assert frames_in(tmp_path / "out") == frames_in(tmp_path / "good")


@pytest.mark.parametrize("place", [0, 3])
def test_a_movie_of_another_size_enters_no_average_and_stops_nothing(
    napari_mrcz, session, tmp_path, place
):
    """Nor where it comes first."""
    movies = sorted(session.glob("movie_*"))[:4]
    other = tmp_path / "other.mrcz"
    nm.write(other, np.random.default_rng(1).poisson(1.5, (10, 72, 64)).astype(np.uint8))
    (tmp_path / "r.toml").write_text("[koma]\nradius = 1\n")
    options = ("-r", tmp_path / "r.toml", "-o")
    some = [*movies[:place], other, *movies[place:]]
    ran = napari_mrcz("correct", *some, *options, tmp_path / "out")
    assert ran.status == 1
    assert f"{other}: frames of 72 x 64 pixels, where most of the session has 64 x 72" in ran.err
    assert napari_mrcz("correct", *movies, *options, tmp_path / "good").status == 0
    assert frames_in(tmp_path / "out") == frames_in(tmp_path / "good")


def test_without_a_recipe_outliers_are_replaced(napari_mrcz, session, tmp_path):
    """And the movie stays integer."""
    movie = session / "movie_00.mrcz"
    ran = napari_mrcz("correct", movie, "-o", tmp_path)
    assert ran.status == 0, ran.err
    assert "hot and" in ran.err
    with nm.open(tmp_path / "movie_00.mrcz") as result, nm.open(movie) as raw:
        expected = raw.apply(nm.OutlierFilter.fit(raw))
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, expected)


def test_warnings_of_results_that_exist_are_repeated(napari_mrcz, session, tmp_path):
    nm.write(tmp_path / "gain.mrc", np.full((64, 72), 2, np.float32))
    (tmp_path / "r.toml").write_text('[gain]\nreference = "gain.mrc"\n')
    command = ("correct", session / "movie_00.mrcz", "-r", tmp_path / "r.toml", "-o", tmp_path)
    (said,) = [line for line in napari_mrcz(*command).err.splitlines() if "is constant" in line]
    again = napari_mrcz(*command, "--skip-existing").err
    assert "there already" in again
    assert said in again.splitlines()


@pytest.mark.parametrize("koma", [(), ("--koma", 2)])
def test_floating_movies_are_not_fitted_to_be_kept_as_counts(
    napari_mrcz, tmp_path, monkeypatch, koma
):
    monkeypatch.setattr(nm.OutlierFilter, "fit", None)
    movies = [tmp_path / f"m{i}.mrcz" for i in range(2)]
    for path in movies:
        nm.write(path, np.ones((4, 16, 16), np.float32))
    ran = napari_mrcz("correct", *movies, "--keep", "counts", *koma, "-o", tmp_path / "out")
    assert ran.status == 1
    assert ran.err.count("frames of float32 cannot be kept as counts") == 2


def test_the_reference_is_turned_as_the_first_movie_shows(napari_mrcz, tmp_path):
    """A flipped reference is found out."""
    movie = simulate_movie(40, (192, 256), seed=2)
    gain = movie.camera.gain_reference
    nm.write(tmp_path / "movie.mrcz", movie.frames)
    nm.write(tmp_path / "gain.mrc", np.ascontiguousarray(np.flipud(gain)))
    (tmp_path / "r.toml").write_text('[gain]\nreference = "gain.mrc"\norientation = "auto"\n')
    movie_path = tmp_path / "movie.mrcz"
    ran = napari_mrcz("correct", movie_path, "-r", tmp_path / "r.toml", "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert "orientation of the gain reference: flipud" in ran.err
    # A movie that cannot be used stops nothing, though it comes first.
    (tmp_path / "bad.mrcz").write_bytes(b"cut off")
    some = (tmp_path / "bad.mrcz", movie_path)
    ran = napari_mrcz("correct", *some, "-r", tmp_path / "r.toml", "-o", tmp_path / "some")
    assert ran.status == 1
    assert "orientation of the gain reference: flipud" in ran.err
    assert "1 of 2 files corrected" in ran.err
    assert contents(tmp_path / "some") == contents(tmp_path / "out")


def test_a_reference_and_koma_need_no_recipe(napari_mrcz, tmp_path):
    """The files are those of a recipe with the same in it."""
    camera = Camera((96, 128), seed=2)
    (tmp_path / "in").mkdir()
    for number in range(3):
        movie = simulate_movie(20, (96, 128), seed=number, camera=camera)
        nm.write(tmp_path / "in" / f"m{number}.mrcz", movie.frames)
    reference = tmp_path / "gain.mrc"
    nm.write(reference, np.ascontiguousarray(np.fliplr(camera.gain_reference)))
    (tmp_path / "r.toml").write_text(
        f'[outliers]\n[gain]\nreference = "{reference}"\norientation = "auto"\n[koma]\nradius = 2\n'
    )
    one, other = tmp_path / "one", tmp_path / "other"
    ran = napari_mrcz("correct", tmp_path / "in", "--gain", reference, "--koma", 2, "-o", one)
    assert ran.status == 0, ran.err
    assert "orientation of the gain reference: fliplr" in ran.err
    ran = napari_mrcz("correct", tmp_path / "in", "-r", tmp_path / "r.toml", "-o", other)
    assert ran.status == 0, ran.err
    assert contents(one) == contents(other)


def test_a_reference_that_does_not_help_is_left_out(napari_mrcz, tmp_path):
    """Of movies that are normalised already, in a session of others too; alone it is an error."""
    rng = np.random.default_rng(3)
    gain = np.exp(0.05 * rng.standard_normal((96, 128))).astype(np.float32)
    raw = rng.poisson(1 / gain, (12, 96, 128)).astype(np.uint8)
    nm.write(tmp_path / "done.mrcz", raw * gain)
    nm.write(tmp_path / "raw.mrcz", raw)
    nm.write(tmp_path / "gain.mrc", gain)
    alone = '[gain]\nreference = "gain.mrc"\norientation = "auto"\n'
    (tmp_path / "r.toml").write_text(alone + "[outliers]\n")
    (tmp_path / "alone.toml").write_text(alone)
    done, recipe = tmp_path / "done.mrcz", tmp_path / "r.toml"
    ran = napari_mrcz("correct", done, "-r", recipe, "-o", tmp_path / "out", "--json")
    assert ran.status == 0, ran.err
    (warning,) = json.loads(ran.out)["warnings"]
    assert "not applied" in warning
    with nm.open(tmp_path / "out" / "done.mrcz") as result:
        assert [step["name"] for step in result.history] == ["OutlierFilter"]
        assert nm.correlated_noise(result) <= nm.correlated_noise(raw * gain) + 1e-4
    with FrameReader(tmp_path / "out" / "done.mrcz") as reader:
        assert reader.footer.other["source"]["warnings"] == [warning]
    again = napari_mrcz("correct", done, "-r", recipe, "-o", tmp_path / "out", "--skip-existing")
    assert f"{warning}\n" in again.err and "there already" in again.err
    ran = napari_mrcz("correct", done, "-r", tmp_path / "alone.toml", "-o", tmp_path / "none")
    assert ran.status == 1
    assert "does not help" in ran.err
    assert not (tmp_path / "none" / "done.mrcz").exists()
    # One that does not help the first movie may help the next.
    both = (done, tmp_path / "raw.mrcz")
    ran = napari_mrcz("correct", *both, "-r", recipe, "-o", tmp_path / "both")
    assert ran.status == 0, ran.err
    assert "orientation of the gain reference: identity" in ran.err
    assert "1 with warnings" in ran.err
    for name, steps in (("done", 1), ("raw", 2)):
        with nm.open(tmp_path / "both" / f"{name}.mrcz") as result:
            assert len(result.history) == steps
    # Who names the orientation gets it, and is warned.
    recipe.write_text(recipe.read_text().replace('"auto"', '"identity"'))
    ran = napari_mrcz("correct", done, "-r", recipe, "-o", tmp_path / "named")
    assert ran.status == 0
    assert "warning: " in ran.err and "does not fit this movie" in ran.err
    with nm.open(tmp_path / "named" / "done.mrcz") as result:
        assert "does not fit" in result.history[-1]["warnings"][0]


def test_blank_movies_neither_hide_a_reference_nor_get_it(napari_mrcz, tmp_path):
    """Though they come first, one by one or watched; a saturated one stays even."""
    rng = np.random.default_rng(3)
    gain = np.exp(0.05 * rng.standard_normal((96, 128))).astype(np.float32)
    raw = rng.poisson(1 / gain, (12, 96, 128)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    movies = [0 * raw, 0 * raw, raw, np.full_like(raw, 255)]
    for number, frames in enumerate(movies):
        nm.write(tmp_path / "in" / f"{number}.mrcz", frames)
    nm.write(tmp_path / "gain.mrc", gain)
    recipe = tmp_path / "r.toml"
    recipe.write_text('[outliers]\n[gain]\nreference = "gain.mrc"\norientation = "auto"\n')
    koma = tmp_path / "koma.toml"
    koma.write_text(recipe.read_text() + "[koma]\nradius = 2\n")
    options = ("--once", "--settle", 0)
    for command, by, more, out in [
        ("correct", recipe, (), tmp_path / "out"),
        ("watch", recipe, options, tmp_path / "seen"),
        ("watch", koma, options, tmp_path / "averaged"),
    ]:
        ran = napari_mrcz(command, tmp_path / "in", "-r", by, "-o", out, *more)
        assert ran.status == 0, ran.err
        assert ran.err.count("orientation of the gain reference: identity") == 1
        out = out / "corrected" if command == "watch" else out
        for number, frames in enumerate(movies):
            with nm.open(out / f"{number}.mrcz") as result:
                is_done = any(step["name"] == "GainNormalization" for step in result.history)
                assert is_done == (number == 2)
                if number != 2:
                    np.testing.assert_array_equal(result, frames)
    ran = napari_mrcz("correct", tmp_path / "in" / "0.mrcz", "-r", recipe, "-o", tmp_path / "one")
    assert ran.status == 0
    assert "The gain reference was not applied. The frames are blank" in ran.err


def test_a_reference_that_fits_in_no_orientation_is_named(napari_mrcz, session, tmp_path):
    gain = tmp_path / "gain.mrc"
    nm.write(gain, np.ones((50, 60), np.float32))
    (tmp_path / "r.toml").write_text('[gain]\nreference = "gain.mrc"\norientation = "auto"\n')
    ran = napari_mrcz("correct", session, "-r", tmp_path / "r.toml", "-o", tmp_path / "out")
    assert ran.status == 1
    assert f"napari-mrcz: {gain}: a reference of (50, 60) fits" in ran.err


def test_a_reference_in_the_folder_is_no_movie(napari_mrcz, tmp_path):
    """Not even where its name comes first; named, it is told to be a single frame."""
    movie = simulate_movie(40, (192, 256), seed=2)
    (tmp_path / "in").mkdir()
    nm.write(tmp_path / "in" / "movie.mrcz", movie.frames)
    gain = tmp_path / "in" / "gain.mrc"
    nm.write(gain, movie.camera.gain_reference)
    recipe = tmp_path / "in" / "r.toml"
    recipe.write_text('[gain]\nreference = "gain.mrc"\norientation = "auto"\n')
    ran = napari_mrcz("correct", tmp_path / "in", "-r", recipe, "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["movie.mrcz"]
    ran = napari_mrcz("correct", gain, "-r", recipe, "-o", tmp_path / "other")
    assert ran.status == 1
    assert (
        f"{gain}: a single frame does not show the orientation of the gain. Name a movie" in ran.err
    )
    table = tmp_path / "t.csv"
    report = tmp_path / "report.html"
    ran = napari_mrcz("session", gain, "-r", recipe, "-o", tmp_path / "single.html")
    assert ran.status == 1
    assert f"{gain}: no movie shows its orientation. Name a movie" in ran.err
    ran = napari_mrcz("session", tmp_path / "in", "-r", recipe, "-o", report, "--table", table)
    assert ran.status == 0, ran.err
    assert len(table.read_text().splitlines()) == 2  # the names of the columns, and the movie


def test_a_single_image_among_movies_is_left_out_and_said(napari_mrcz, session, tmp_path):
    """Without a recipe nothing else tells that it is a gain reference."""
    ran = napari_mrcz("correct", session, "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    assert f"{session / 'gain.mrc'}: taken for a reference" in ran.err
    assert len(list((tmp_path / "out").iterdir())) == N_STACKS
    some = session / "movie_00.mrcz", session / "gain.mrc"
    ran = napari_mrcz("correct", *some, "-o", tmp_path / "named")
    assert len(list((tmp_path / "named").iterdir())) == 2, ran.err
    sums = tmp_path / "sums"
    sums.mkdir()
    for i in range(2):
        nm.write(sums / f"{i}.mrc", np.random.default_rng(i).poisson(50, (1, 64, 64)))
    ran = napari_mrcz("correct", sums, "-o", tmp_path / "of-sums")
    assert len(list((tmp_path / "of-sums").iterdir())) == 2, ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[outlier]\n", r"a table \[outlier\] \(did you mean outliers\?\). Known are outliers"),
        ("[outliers]\nk = 6\n", r"k in \[outliers\]. Known are model, order"),
        ('[outliers]\norder = "steep"\n', r"order = 'steep' in \[outliers\]. Write a number"),
        ("[koma]\nkeep_mean = 1\n", "Write true or false"),
        ("[koma]\nradius = 1.5\n", "Write a whole number"),
        ("[gain]\n", "without a reference"),
        ("[gain]\ngamma = 0.9\n", "without a reference"),
        ("[output]\nlevel = 3\n", "does nothing"),
        ("koma = 12\n", r"Write a table: \[koma\]"),
        ("[outliers]\nhot_threshold = -3\n", "hot_threshold must be 0 or more"),
        ("[koma\n", "it is not valid TOML"),
        ("x = " + 3000 * "[" + 3000 * "]", "nested too deeply"),
    ],
)
def test_what_means_nothing_in_a_recipe_is_named(tmp_path, text, said):
    """With what is known."""
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(nm.MrczError, match=said):
        Recipe.load(tmp_path / "recipe.toml")


def test_a_recipe_may_begin_with_the_mark_that_some_editors_write(tmp_path):
    """Those of Windows do."""
    (tmp_path / "recipe.toml").write_bytes(b"\xef\xbb\xbf[koma]\r\nradius = 3\r\n")
    assert Recipe.load(tmp_path / "recipe.toml").koma == KomaOptions(radius=3)


def test_a_recipe_comes_back_as_it_was_saved(tmp_path):
    """Every value of it."""
    recipe = Recipe(OutlierStep(fill="expectation", seed=9), None, KomaOptions(radius=25))
    recipe.save(tmp_path / "r.toml")
    assert Recipe.load(tmp_path / "r.toml") == recipe


def test_recipes_can_be_made_shown_and_checked(napari_mrcz, session, corrected, tmp_path):
    """Of a history too."""
    ran = napari_mrcz("recipe", "show", session / "recipe.toml")
    assert "to the power of 0.97" in ran.out
    assert "3 stacks before and 3 after" in ran.out
    assert "recipe.toml is valid" in napari_mrcz("recipe", "check", session / "recipe.toml").out
    made = napari_mrcz(
        "recipe", "new", tmp_path / "again.toml", "--history", corrected / "movie_04.mrcz"
    )
    assert made.status == 0, made.err
    again, first = Recipe.load(tmp_path / "again.toml"), Recipe.load(session / "recipe.toml")
    assert again.outliers == first.outliers
    assert again.koma == first.koma
    assert again.gain.gamma == 0.97
    np.testing.assert_array_equal(
        nm.read_reference(again.gain.reference), nm.read_reference(session / "gain.mrc")
    )
    (tmp_path / "plain").mkdir()
    assert napari_mrcz("recipe", "new", tmp_path / "plain" / "r.toml").status == 0
    assert napari_mrcz("recipe", "check", tmp_path / "plain" / "r.toml").status == 1


def test_thresholds_that_were_set_and_defects_are_in_the_recipe(napari_mrcz, session, tmp_path):
    """A line that was dragged for one movie stays where it is for all; defects go with them."""
    movie = session / "movie_01.mrcz"
    defects = np.zeros(SHAPE[1:], bool)
    defects[3, 5:9] = True
    with nm.open(movie) as stack:
        fitted = nm.OutlierFilter.fit(stack, defects=defects)
        nm.write(tmp_path / "dragged.mrcz", stack.apply(fitted.with_thresholds(hot=8.0)))
    recipe = tmp_path / "r.toml"
    made = napari_mrcz("recipe", "new", recipe, "--history", tmp_path / "dragged.mrcz")
    assert made.status == 0, made.err
    assert "hot at 8 σ" in made.out and "dark at" not in made.out
    step = Recipe.load(recipe).outliers
    assert (step.dark_threshold, step.hot_threshold) == (0.0, 8.0)
    np.testing.assert_array_equal(nm.read_defects(step.defects), defects)
    ran = napari_mrcz("correct", movie, "-r", recipe, "-o", tmp_path / "out")
    assert ran.status == 0, ran.err
    with nm.open(tmp_path / "out" / movie.name) as again, nm.open(tmp_path / "dragged.mrcz") as one:
        assert again.history[0]["thresholds"] == one.history[0]["thresholds"]
        np.testing.assert_array_equal(np.asarray(again), np.asarray(one))


def test_a_side_that_was_switched_off_stays_off(session, tmp_path):
    """Though TOML that anybody reads knows no infinity."""
    with nm.open(session / "movie_01.mrcz") as stack:
        fitted = nm.OutlierFilter.fit(stack).with_thresholds(dark=-np.inf)
        save_recipe_of(stack.apply(fitted).history, tmp_path / "r.toml")
        _, outliers, _ = corrected_by(stack, Recipe.load(tmp_path / "r.toml"))
    assert outliers.n_dark == 0
    assert outliers.n_hot == fitted.n_hot


def test_a_history_that_no_recipe_does_is_refused(session, tmp_path):
    """Steps in another order, or twice: doing others instead would be a lie."""
    with nm.open(session / "movie_01.mrcz") as stack:
        outliers = nm.OutlierFilter.fit(stack)
        gain = nm.GainNormalization(np.ones(SHAPE[1:], np.float32))
        for odd in (stack.apply(gain).apply(outliers), stack.apply(outliers).apply(outliers)):
            with pytest.raises(nm.MrczError, match=r"each once and in the order.*nm\.replay"):
                save_recipe_of(odd.history, tmp_path / "r.toml")
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_cannot_be_saved_leaves_nothing(
    napari_mrcz, corrected, tmp_path, monkeypatch
):
    refused = nm.MrczError(tmp_path / "r.toml", "cannot be written: No space left on device")
    monkeypatch.setattr(Recipe, "save", mock.Mock(side_effect=refused))
    movie = corrected / "movie_02.mrcz"
    assert napari_mrcz("recipe", "new", tmp_path / "r.toml", "--history", movie).status == 1
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_replaces_no_image_unasked(napari_mrcz, corrected, tmp_path):
    """Neither of the recipe's own name nor of those that it would write."""
    for name in ("r.toml", "r-gain.mrc"):
        (tmp_path / name).write_text("mine")
        ran = napari_mrcz(
            "recipe", "new", tmp_path / "r.toml", "--history", corrected / "movie_02.mrcz"
        )
        assert ran.status == 1 and name in ran.err and "exists" in ran.err
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "mine")]
        (tmp_path / name).unlink()


def test_files_are_told_of_when_the_scheduler_is_lost(session, tmp_path):
    """Each by itself, those that were not begun yet included."""
    sources, targets = paths(session, tmp_path)
    with cluster(workers=1) as client:
        outcomes = []
        for outcome in correct_all(tasks(sources, targets, Recipe(OutlierStep())), client=client):
            outcomes.append(outcome)
            client.close()
    assert sorted(outcome.source for outcome in outcomes) == sources
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert len(failed) >= len(sources) - 2
    assert all("scheduler or its workers were lost" in outcome.error for outcome in failed)


def test_files_are_told_of_when_the_scheduler_was_lost_before_they_were_sent():
    """As between the sums of a session and what is corrected by them."""

    class Lost:
        scheduler = SimpleNamespace(ncores=None)

        def sync(self, function, **options):
            raise OSError("Timed out trying to connect to tcp://127.0.0.1:8786 after 10 s")

    tasks = [Correct(name, f"{name}.mrcz", Recipe()) for name in ("a", "b")]
    outcomes = list(run_all(tasks, client=Lost()))
    assert [outcome.source for outcome in outcomes] == ["a", "b"]
    assert all("scheduler or its workers were lost" in outcome.error for outcome in outcomes)


def test_averages_as_large_as_a_camera_travel_without_a_word(tmp_path, workers):
    """Dask warns of tasks above 10 MB."""
    frame = np.random.default_rng(0).integers(0, 9, (2048, 2048), np.uint8)
    source, target = str(tmp_path / "a.mrcz"), str(tmp_path / "b.mrcz")
    nm.write(source, frame[np.newaxis])
    task = Correct(source, target, Recipe(), koma=KomaNormalization(frame, 0.0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (outcome,) = run_all([task], client=workers)
    assert outcome.ok, outcome.error
    assert not said
    with nm.open(target) as stack:
        assert not stack[0].any()


def test_ctrl_c_is_left_to_the_process_that_ends_the_workers(workers):
    found = workers.run(signal.getsignal, signal.SIGINT)
    assert list(found.values()) == [signal.SIG_IGN] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="no masks of signals there")
@pytest.mark.parametrize("starts", [True, False])
def test_ctrl_c_while_workers_start_or_end_waits_until_they_are_closed(monkeypatch, starts):
    closed = []

    class Interrupted(distributed.LocalCluster):
        def __init__(self, **options):
            if starts:
                signal.raise_signal(signal.SIGINT)
            super().__init__(**options)
            if starts:
                signal.raise_signal(signal.SIGINT)

        def __exit__(self, *raised):
            signal.raise_signal(signal.SIGINT)
            super().__exit__(*raised)
            closed.append(self.status.name)

    monkeypatch.setattr("dask.distributed.LocalCluster", Interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), cluster(workers=1):
        assert not starts
    assert closed == ["closed"]
    assert signal.getsignal(signal.SIGINT) == handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.skipif(sys.platform == "win32", reason="no masks of signals there")
def test_workers_do_not_hear_of_ctrl_c_even_before_they_can_ignore_it(workers):
    masks = workers.run(signal.pthread_sigmask, signal.SIG_BLOCK, [])
    assert all(signal.SIGINT in mask for mask in masks.values())


def test_workers_whose_scheduler_is_closed_first_say_nothing(workers):
    """It depends on when they last told it that they are there."""

    def is_told(said):
        record = logging.LogRecord("distributed.worker", logging.ERROR, "", 0, said, (), None)
        return bool(logging.getLogger("distributed.worker").filter(record))

    heartbeat = "Failed to communicate with scheduler during heartbeat."
    assert list(workers.run(is_told, heartbeat).values()) == [False] * 2
    assert list(workers.run(is_told, "Compute Failed").values()) == [True] * 2


def test_workers_that_are_ended_at_work_say_nothing(capfd):
    def work(begun):
        begun.set()
        threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt), cluster(workers=1) as client:
        begun = distributed.Event(client=client)
        working = client.submit(work, begun)
        begun.wait()
        raise KeyboardInterrupt
    assert working.status != "finished"
    assert not capfd.readouterr().err


def test_arithmetic_that_fails_concerns_one_file():
    class Overflowing:
        source = "a.mrcz"

        def __call__(self, report=None):
            return math.exp(1e9)

    (outcome,) = run_all([Overflowing()])
    assert outcome.error == "a.mrcz: math range error"


def test_stacks_that_koma_would_make_worse_are_written_without_it(napari_mrcz, tmp_path):
    """It is printed, counted, and in the history; the recipe can have it all the same."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "movies"
    folder.mkdir()
    for i in range(5):
        nm.write(folder / f"{i}.mrc", rng.poisson(1.5, (12, 48, 56)).astype(np.uint8))
    written = {}
    for forced in (False, True):
        recipe = tmp_path / f"{forced}.toml"
        Recipe(koma=KomaOptions(radius=2, limit=1e6, even_if_worse=forced)).save(recipe)
        ran = napari_mrcz("correct", folder, "-r", recipe, "-o", tmp_path / f"out-{forced}")
        assert ran.status == 0, ran.err
        assert ran.err.count("warning: ") == 5
        assert "5 with warnings" in ran.err
        written[forced] = [nm.open(path) for path in sorted((tmp_path / f"out-{forced}").iterdir())]
    for i, (left, subtracted) in enumerate(zip(*written.values(), strict=True)):
        raw = nm.read(folder / f"{i}.mrc")
        np.testing.assert_array_equal(left, raw, strict=True)
        assert left.history[-1]["warnings"] and subtracted.history[-1]["warnings"]
        before, after = (nm.correlated_noise(stack) for stack in (left, subtracted))
        assert subtracted.history[-1]["noise"] == pytest.approx([before, after], abs=1e-3)
        assert before < after
        left.close()
        subtracted.close()


def test_a_warning_of_the_whole_session_is_printed_once(napari_mrcz, tmp_path):
    """And is in the history and the JSON of each movie."""
    rng = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    for i in range(3):
        nm.write(tmp_path / "in" / f"{i}.mrc", rng.poisson(1.5, (4, 24, 32)).astype(np.uint8))
    Recipe(koma=KomaOptions(radius=12, even_if_worse=True)).save(tmp_path / "k.toml")
    options = "-r", tmp_path / "k.toml", "-o", tmp_path / "out", "--json"
    ran = napari_mrcz("correct", tmp_path / "in", *options)
    assert ran.status == 0, ran.err
    few = too_few(2, 12)
    assert [line for line in ran.err.splitlines() if few in line] == [
        f"napari-mrcz: warning: {few}"
    ]
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert len(told) == 3
    for one in told:
        assert few in one["warnings"] and "shared" not in one
        with nm.open(one["target"]) as stack:
            assert few in stack.history[-1]["warnings"]


@pytest.mark.parametrize("limit", [7.5, math.inf])
def test_the_recipe_of_a_history_has_all_of_koma(session, tmp_path, limit):
    """So that the same movies give the same files again."""
    step = KomaOptions(2, keep_mean=False, limit=limit, length=9, even_if_worse=True)
    recipe = Recipe(koma=step)
    movies, results = paths(session, tmp_path)
    outcomes = correct_all(tasks(movies, results, recipe), order=NAMES)
    assert all(outcome.ok for outcome in outcomes)
    with nm.open(results[3]) as stack:
        assert save_recipe_of(stack.history, tmp_path / "again.toml").koma == step
    assert Recipe.load(tmp_path / "again.toml").koma == step
