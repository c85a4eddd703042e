"""The demo, as it runs where there is no screen."""

import numpy as np
from PIL import Image

import napari_mrcz as nm
from napari_mrcz import demo
from napari_mrcz.plugin import sample


def test_it_writes_a_movie_and_pictures_the_window(qtbot, monkeypatch, tmp_path, capsys):
    """The second time the movie is there; the picture shows more than one colour."""
    monkeypatch.setattr(sample, "_SHAPE", (96, 128))
    monkeypatch.setattr(sample, "_N_FRAMES", 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_MRCZ_NO_SCREEN", "1")
    assert demo.main([]) == 0
    with nm.open("demo.mrcz") as movie:
        assert movie.shape == (5, 96, 128)
    picture = np.asarray(Image.open("demo.png").convert("L"))
    assert picture.shape[0] > 600 and picture.shape[1] > 1000
    canvas = picture[200:500, 400:900]
    assert canvas.std() > 10
    said = capsys.readouterr().out
    assert str(tmp_path / "demo.mrcz") in said
    assert str(tmp_path / "demo.png") in said


def test_a_movie_that_is_there_is_left_alone(tmp_path):
    """Whatever it is."""
    (tmp_path / "demo.mrcz").write_bytes(b"mine")
    sample.write_sample_movie(tmp_path / "demo.mrcz")
    assert (tmp_path / "demo.mrcz").read_bytes() == b"mine"
