"""The metadata inspector in a viewer: a good movie and a sick one, and a hand on it."""

import struct

import numpy as np
import pytest
from qtpy.QtCore import Qt

import napari_mrcz as nm
from napari_mrcz.widgets.inspector.widget import MetadataInspector

COUNTS = np.random.default_rng(8).poisson(1, (12, 60, 80)).astype(np.uint8)
LEFT = Qt.MouseButton.LeftButton
FIELDS, FRAMES, HISTORY, DOCTOR = range(4)


@pytest.fixture
def movie(tmp_path):
    """Return a good movie."""
    path = tmp_path / "movie.mrcz"
    stack = nm.Stack.from_array(COUNTS).described(voltage=300)
    nm.write(path, stack, pixel_size=(0, 1.5, 1.5), metadata={"sample": "ice", "n": [1, {"a": 2}]})
    return path


@pytest.fixture
def sick(tmp_path):
    """Return a plain movie whose header is wrong in five ways."""
    return write_sick(tmp_path)


def write_sick(folder):
    """Write a plain movie whose header is wrong in five ways, and return it."""
    path = folder / "sick.mrc"
    nm.write(path, COUNTS.astype(np.int16), footer=False)
    raw = bytearray(path.read_bytes())
    for offset, layout, *values in [
        (28, "<3i", 0, 0, 0),
        (88, "<i", -1),
        (108, "<i", 0),
        (216, "<f", 50),
    ]:
        struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(raw)
    return path


@pytest.fixture
def widget(viewer, qtbot):
    """Return the widget, docked and in sight."""
    viewer.window.resize(1000, 800)
    viewer.window._qt_window.show()
    widget = MetadataInspector(viewer)
    viewer.window.add_dock_widget(widget)
    return widget


def open_in(qtbot, widget, path):
    """Open a file in the viewer; give its layer when it is inspected."""
    (layer,) = widget.viewer.open(path, plugin="napari-mrcz")
    settle(qtbot, widget)
    return layer


def settle(qtbot, widget):
    """Wait until nothing runs."""
    qtbot.waitUntil(lambda: not widget.busy)


def turn_to(qtbot, widget, tab):
    """Click one of the tabs."""
    bar = widget.tabs.tabBar()
    qtbot.mouseClick(bar, LEFT, pos=bar.tabRect(tab).center())
    assert widget.tabs.currentIndex() == tab


def lines(tree):
    """Return the places of what is not folded away."""
    index, found = tree.model().index(0, 0), []
    while index.isValid():
        found.append(index)
        index = tree.indexBelow(index)
    return found


def names(tree):
    """Return the names of what is not folded away, from top to bottom."""
    return [index.data() for index in lines(tree)]
