"""``open`` and ``demo``: a window with the movies and our widgets, or why there is none."""

import sys
from pathlib import Path
from unittest import mock

import napari
import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.plugin import demo


@pytest.fixture
def run(monkeypatch, viewer):
    """Return the viewer that a command gets, and the mock that is called to show it."""
    monkeypatch.setattr(napari, "Viewer", lambda title: viewer)
    shown = mock.Mock()
    monkeypatch.setattr(napari, "run", shown)
    return viewer, shown


@pytest.fixture
def movies(tmp_path):
    """Return two movies."""
    paths = [tmp_path / "one.mrcz", tmp_path / "two.mrc"]
    for path in paths:
        nm.write(path, np.random.default_rng(1).poisson(1, (3, 32, 40)).astype(np.uint8))
    return paths


@pytest.mark.window
def test_movies_are_layers_with_three_of_our_widgets_beside_them(napari_mrcz, movies, run, qtbot):
    """In tabs, the first in front; no widget draws anything before it is looked at."""
    viewer, shown = run
    viewer.show()
    ran = napari_mrcz("open", *movies)
    assert (ran.status, ran.err, ran.out) == (0, "", "")
    docked = viewer.window.dock_widgets
    assert list(docked) == [f"{title} (napari-mrcz)" for title in ("Movie", "Outliers", "Gain")]
    qtbot.waitUntil(lambda: docked["Movie (napari-mrcz)"].in_front)
    assert not any(docked[f"{title} (napari-mrcz)"].in_front for title in ("Outliers", "Gain"))
    movie = docked["Movie (napari-mrcz)"]
    qtbot.waitUntil(lambda: not movie.busy)
    assert [layer.name for layer in viewer.layers] == ["one", "two", "two, sum"]
    assert all(layer.data.shape[-2:] == (32, 40) for layer in viewer.layers)
    shown.assert_called_once_with()


def test_a_bad_movie_is_named_and_the_others_are_shown(napari_mrcz, movies, run, tmp_path):
    """Where there is none at all, there is no window."""
    viewer, shown = run
    bad = tmp_path / "bad.mrcz"
    bad.write_bytes(b"none")
    ran = napari_mrcz("open", bad, movies[0])
    assert ran.status == 0
    assert f"napari-mrcz: {bad}: only 4 bytes" in ran.err
    assert [layer.name for layer in viewer.layers] == ["one"]
    shown.assert_called_once_with()


def test_without_any_movie_no_window_is_left(napari_mrcz, run, tmp_path):
    """The exit status says so."""
    viewer, shown = run
    bad = tmp_path / "bad.mrcz"
    bad.write_bytes(b"none")
    with mock.patch.object(type(viewer), "close") as close:
        assert napari_mrcz("open", bad).status == 1
    close.assert_called_once_with()
    shown.assert_not_called()


def test_files_that_are_not_there_are_named_before_a_window_opens(napari_mrcz, tmp_path):
    """In one line; folders without a movie too."""
    ran = napari_mrcz("open", tmp_path / "missing.mrcz")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "missing.mrcz: is not there" in ran.err
    assert "without a movie" in napari_mrcz("open", tmp_path).err


@pytest.mark.parametrize("command", ["open", "demo"])
@pytest.mark.parametrize("missing", ["napari", "qtpy.QtWidgets"])
def test_without_napari_or_qt_it_is_said_how_to_get_them(napari_mrcz, movies, command, missing):
    """In one line."""
    with mock.patch.dict(sys.modules, {missing: None}):
        ran = napari_mrcz(command, *(movies if command == "open" else ()))
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "needs napari and Qt" in ran.err
    assert "pip install 'napari-mrcz[all]'" in ran.err


@pytest.fixture
def no_screen(monkeypatch):
    """Take the screen away."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def small_demo(monkeypatch, tmp_path):
    """Make what the demo simulates small, and write it into a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "_SHAPE", (64, 64))
    monkeypatch.setattr(demo, "_SESSION_SHAPE", (64, 64))
    monkeypatch.setattr(demo, "_N_MOVIES", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_without_a_screen_it_is_said_so(napari_mrcz, movies, no_screen):
    """Rather than by Qt, which ends the program."""
    ran = napari_mrcz("open", *movies)
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "no screen" in ran.err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_without_a_screen_the_demo_writes_its_files(napari_mrcz, small_demo, no_screen):
    """For the commands, which need none."""
    ran = napari_mrcz("demo")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "demo-session are written" in ran.err
    assert Path("demo.mrcz").is_file() and Path("demo-session/gain.mrc").is_file()


def test_the_demo_is_that_of_the_module(napari_mrcz, tmp_path, small_demo):
    """With its picture, if one is wanted."""
    with mock.patch("napari_mrcz.plugin.demo.main") as main:
        assert napari_mrcz("demo").status == 0
        main.assert_called_once_with(None, story=False)
        picture = tmp_path / "demo.png"
        assert napari_mrcz("demo", "--screenshot", picture).status == 0
        main.assert_called_with(picture, story=False)
        assert napari_mrcz("demo", "--story").status == 0
        main.assert_called_with(None, story=True)
