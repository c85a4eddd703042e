"""The "Outliers" widget in a viewer: a movie for it, fitted, and a hand on it."""

import weakref

import pytest
from qtpy.QtCore import Qt
from test_widgets_outliers_model import counts

import napari_mrcz as nm
from napari_mrcz.widgets.outliers.model import Fit
from napari_mrcz.widgets.outliers.widget import OutlierPixels

LEFT = Qt.MouseButton.LeftButton
COUNTS = counts()
PIXEL_SIZE = (0, 1.5, 1.5)


@pytest.fixture
def movie(viewer, tmp_path):
    """Return what gives the layer of a movie opened from a file, and does not keep it open."""
    nm.write(tmp_path / "movie.mrcz", COUNTS, pixel_size=PIXEL_SIZE, metadata={"sample": "ice"})
    (layer,) = viewer.open(tmp_path / "movie.mrcz", plugin="napari-mrcz")
    return weakref.ref(layer)


@pytest.fixture
def widget(viewer, movie) -> OutlierPixels:
    """Return the widget, docked."""
    widget = OutlierPixels(viewer)
    viewer.window.add_dock_widget(widget, name="Outliers")
    return widget


@pytest.fixture
def fitted(widget, qtbot) -> OutlierPixels:
    """Return the widget with the movie fitted, and all that follows."""
    fit_layer(widget, qtbot)
    return widget


def fit_layer(widget, qtbot) -> Fit:
    """Press Fit and wait until all is shown."""
    with qtbot.waitSignal(widget.fitted) as caught:
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    settle(widget, qtbot)
    return caught.args[0]


def settle(widget, qtbot) -> None:
    """Wait until nothing is left to be computed."""
    qtbot.waitUntil(lambda: not widget.busy)


def type_number(qtbot, field, text: str) -> None:
    """Type a number and press Enter."""
    field.selectAll()
    qtbot.keyClicks(field, text)
    qtbot.keyClick(field, Qt.Key.Key_Enter)


def cell(widget, column: int) -> str:
    """Return a number of outliers from the table: dark, hot or both."""
    return widget.counts.item(0, column).text()


def choose(combo, value) -> None:
    """Choose an entry of a list by what it stands for."""
    combo.setCurrentIndex(combo.findData(value))


def names(viewer) -> list[str]:
    """Return the layers' names, lowest first."""
    return [layer.name for layer in viewer.layers]
