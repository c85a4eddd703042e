"""The demo, as it runs where there is no screen."""

from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import QSize

import napari_mrcz as nm
from napari_mrcz.plugin import demo


@pytest.fixture(autouse=True)
def own_window(make_napari_viewer, monkeypatch):
    """Open windows as other tests do: a test of the demo may come between any two of them."""
    monkeypatch.setattr(demo.napari, "Viewer", partial(make_napari_viewer, show=True))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make what is simulated small."""
    for name, value in {
        "_SHAPE": (96, 128), "_N_FRAMES": 5,
        "_SESSION_SHAPE": (64, 64), "_SESSION_FRAMES": 4, "_N_MOVIES": 3,
        "_WINDOW": QSize(1050, 650),
    }.items():  # fmt: skip
        monkeypatch.setattr(demo, name, value)


def opened_and_looked_at(open_demo, movie, session):
    """Open the demo: all widgets are docked, the first is in sight, KOMA's lists the session."""
    viewer, widgets = open_demo(movie, session)
    demo.wait_until_idle(widgets.values())
    assert list(widgets) == ["Movie", "Outliers", "Gain", "KOMA", "Metadata", "Save"]
    seen = [name for name, widget in widgets.items() if not widget.visibleRegion().isEmpty()]
    assert seen == ["Movie"]
    assert widgets["Movie"].picture is not None and widgets["Movie"].work.drift is not None
    listed = [entry.name for entry in widgets["KOMA"].koma.entries]
    assert listed == ["movie_1.mrcz", "movie_2.mrcz", "movie_3.mrcz"]
    return viewer, widgets


def test_it_writes_a_movie_tells_its_story_and_pictures_the_window(
    qtbot, monkeypatch, tmp_path, capsys
):
    """The file that it ends with, done again to the raw movie, gives the same pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_MRCZ_NO_SCREEN", "1")
    Path("demo-corrected.mrcz").write_bytes(b"mine")
    open_demo = mock.Mock(side_effect=partial(opened_and_looked_at, demo.open_demo))
    monkeypatch.setattr(demo, "open_demo", open_demo)
    demo.main()
    assert open_demo.call_count == 1
    said = capsys.readouterr().out
    with nm.open("demo.mrcz") as movie:
        assert movie.shape == (5, 96, 128)
    assert len(list(tmp_path.glob("demo-session/movie_*.mrcz"))) == 3

    titles = ["Outliers", "Gain", "KOMA", "Save"]
    for number, title in enumerate(titles, 1):
        assert f"{number}. {title}: " in said
    steps = "1. Outlier pixels replaced; 2. Gain normalised; 3. Normalised by KOMA"
    assert f"5. Metadata: its history: {steps}\n" in said
    assert Path("demo-corrected.mrcz").read_bytes() == b"mine"
    with nm.open("demo-corrected-2.mrcz") as saved, nm.open("demo-session/movie_1.mrcz") as raw:
        again = nm.replay(saved.history, raw)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(saved))

    picture = np.asarray(Image.open("demo.png").convert("L"))
    assert picture.shape[0] > 600 and picture.shape[1] > 1000
    canvas = picture[200:450, 300:500]
    assert canvas.std() > 10  # the picture shows more than one colour
    assert [path.name for path in sorted(tmp_path.glob("demo*.png"))] == [
        *(f"demo-{number}.png" for number in range(1, 6)), "demo.png"
    ]  # fmt: skip
    assert str(tmp_path / "demo.mrcz") in said
    assert str(tmp_path / "demo.png") in said
    assert f"The steps are pictured in {tmp_path / 'demo-1.png'} to demo-5.png\n" in said


def test_a_movie_that_is_there_is_left_alone(tmp_path):
    """Whatever it is."""
    (tmp_path / "demo.mrcz").write_bytes(b"mine")
    demo.write_sample_movie(tmp_path / "demo.mrcz")
    assert (tmp_path / "demo.mrcz").read_bytes() == b"mine"


def test_a_session_is_written_whole_or_not_at_all(tmp_path):
    """Its gain reference lies as its movies do; one that is there is left alone."""
    folder = tmp_path / "session"
    demo.write_sample_session(folder)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["session"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "gain.mrc", "movie_1.mrcz", "movie_2.mrcz", "movie_3.mrcz",
    ]  # fmt: skip
    movies = nm.Session(sorted(folder.glob("movie_*.mrcz")))
    with movies.opened(0) as movie, nm.open(folder / "gain.mrc") as gain:
        assert movie.shape == (4, 64, 64)
        assert gain.shape[-2:] == (64, 64)
    (folder / "movie_1.mrcz").write_bytes(b"mine")
    demo.write_sample_session(folder)
    assert (folder / "movie_1.mrcz").read_bytes() == b"mine"
