"""The Gain reference widget in a viewer: a movie and references for it, and a hand on it."""

from pathlib import Path

import numpy as np
import pytest
from gate import Gate
from mouse import dragged, drop
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QFileDialog, QWidget

import napari_mrcz as nm
from napari_mrcz.simulation import Camera, simulate_movie
from napari_mrcz.widgets.gain.widget import GainReference

LEFT = Qt.MouseButton.LeftButton
CAMERA = Camera((128, 128), etching=0.08, gamma=0.9, dead=5e-4, seed=3)
GAIN = CAMERA.gain_reference
MOVIE = simulate_movie(20, camera=CAMERA, dose=1.0, seed=3).frames


@pytest.fixture
def files(tmp_path) -> Path:
    """Return a folder with a movie, its reference upside down, and a dark."""
    nm.write(tmp_path / "movie.mrcz", MOVIE, pixel_size=(0, 1.5, 1.5))
    nm.write(tmp_path / "gain.mrc", np.flipud(GAIN).copy())
    nm.write(tmp_path / "dark.mrc", np.full(GAIN.shape, 0.25, np.float32))
    return tmp_path


@pytest.fixture
def widget(viewer, files, qtbot) -> GainReference:
    """Return the widget, docked, with the movie opened."""
    widget = GainReference(viewer)
    viewer.window.add_dock_widget(widget)
    (layer,) = viewer.open(files / "movie.mrcz", plugin="napari-mrcz")
    layer.translate = (0, 3, 4)
    return widget


@pytest.fixture
def loaded(widget, files, qtbot) -> GainReference:
    """Return the widget with the reference read and the preview shown."""
    drop(widget.references, dragged(files / "gain.mrc"))
    settle(qtbot, widget)
    return widget


@pytest.fixture
def gated(loaded, viewer, qtbot):
    """Return the widget with a movie whose sixth frame is held back, and what does that."""
    gate = Gate(5)
    stack = nm.Stack.from_array(MOVIE).apply(gate)
    viewer.add_image(stack, name="gated", contrast_limits=(0, 4))
    settle(qtbot, loaded)
    gate.closed = True
    yield loaded, gate
    gate.opened.set()


def settle(qtbot, widget: GainReference) -> None:
    """Wait until nothing runs any more."""
    qtbot.waitUntil(lambda: not widget.busy)


def choose_file(monkeypatch, path: Path | str, kind: str = "") -> None:
    """Answer the next file dialogs."""
    for ask in ("getOpenFileName", "getSaveFileName"):
        monkeypatch.setattr(QFileDialog, ask, lambda *_, **__: (str(path), kind))


def click(qtbot, button: QWidget) -> None:
    """Press the left button on a widget, near its left edge, where a box has its tick."""
    qtbot.mouseClick(button, LEFT, pos=QPoint(8, button.height() // 2))


def type_into(qtbot, field: QAbstractSpinBox, text: str) -> None:
    """Type a number and press Enter."""
    field.selectAll()
    qtbot.keyClicks(field, text)
    qtbot.keyClick(field, Qt.Key.Key_Enter)
