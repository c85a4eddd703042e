"""The form for EER movies that are dropped on a window: its fields, one for all, and Cancel."""

import pytest
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QMainWindow
from tiff_writing import eer_page, tiff

import napari_mrcz as nm
from napari_mrcz.plugin import hooks
from napari_mrcz.plugin.hooks import EerForm

SHAPE = (16, 32)
XML = (
    "<metadata><item name='totalDose' unit='e/pixel'>{dose}</item>"
    "<item name='sensorPixelSize.width' unit='m'>2e-10</item>"
    "<item name='sensorPixelSize.height' unit='m'>2e-10</item></metadata>"
)


@pytest.fixture
def movie_of(tmp_path):
    """Return a function that writes an EER movie with an electron in each pixel of a row."""

    def write(name="movie.eer", n=20, dose=40.0):
        pages = [eer_page([(4 * i, 4 * x) for x in range(32)], SHAPE) for i in range(16)]
        pages = [pages[i % 16] for i in range(n)]
        if dose:
            pages[0].tags[65001] = ("bytes", XML.format(dose=dose).encode())
        (tmp_path / name).write_bytes(tiff(pages))
        return str(tmp_path / name)

    return write


@pytest.fixture
def answers(viewer, monkeypatch):
    """Return a list of buttons to be pressed in the forms that appear."""
    window = QMainWindow()
    monkeypatch.setattr(hooks, "_window", lambda: window)
    buttons = []

    def press(form):
        button = buttons.pop(0)  # a form too many ends the test
        QTimer.singleShot(
            0, form.dialog.native.accept if button == "ok" else form.dialog.native.reject
        )

    ask = EerForm.ask
    monkeypatch.setattr(EerForm, "ask", lambda form: press(form) or ask(form))
    yield buttons
    assert not buttons
    window.deleteLater()


@pytest.mark.parametrize(
    ("dose", "group"), [(40, 2), (20, 4), (200, 1), (0, 1), ("1e400", 1), (1e-300, 20)]
)
def test_fractions_are_of_one_electron_per_square_angstrom(movie_of, qtbot, dose, group):
    """Pixels are of 4 Å²; 20 frames are fewer than 40 fractions where the dose is not known."""
    with nm.open(movie_of(dose=dose)) as movie:
        form = EerForm(movie)
        assert form.group.value == group
        form.dialog.native.deleteLater()


def test_frames_and_dose_follow_each_other(movie_of, qtbot):
    """What was set last is what is asked of `open`."""
    with nm.open(movie_of()) as movie:
        form = EerForm(movie)
        form.dose.value = 8.0
        assert form.group.value == 4
        form.group.value = 10
        assert form.dose.value == 20.0
        assert form.grid.choices == (1, 2, 4)
        form.grid.value = 2
        assert "2 fractions of 20 frames" in form.result.value
        QTimer.singleShot(0, form.dialog.native.accept)
        assert form.ask() == {"superresolution": 2, "group": 10}


def test_one_answer_is_for_all_that_are_dropped_together(viewer, movie_of, answers):
    """Each drop asks again."""
    paths = [movie_of(f"{name}.eer", dose=dose) for name, dose in (("a", 40.0), ("b", 20.0))]
    for _ in range(2):
        answers.append("ok")
        layers = viewer.open(paths, plugin="napari-mrcz")
        assert [len(layer.data) for layer in layers] == [10, 5]
    assert layers[1].data[0].sum() == 4 * 32
    assert layers[0].data.metadata["grouped"]["frames_per_group"] == 2
    for layer in viewer.layers:
        layer.data.close()


def test_cancel_opens_nothing(viewer, movie_of, answers):
    answers.append("cancel")
    assert viewer.open([movie_of("a.eer"), movie_of("b.eer")], plugin="napari-mrcz") == []


def test_a_script_is_not_asked(viewer, movie_of):
    """Frames are as they are in the file; who starts napari with files is asked."""
    window = viewer.window._qt_window
    window.show()
    assert hooks._window() is None
    with hooks.asking():
        assert hooks._window() is window
    (layer,) = viewer.open(movie_of(), plugin="napari-mrcz")
    assert layer.data.shape == (20, *SHAPE)
    layer.data.close()
