"""The "MicroED" widget in a viewer: a sweep for it, fitted, and a hand on it."""

import weakref

import pytest
from gate import Gate
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

import napari_mrcz as nm
from napari_mrcz.correction import TruncationModel
from napari_mrcz.simulation import simulate_microed
from napari_mrcz.widgets.microed.model import Fit
from napari_mrcz.widgets.microed.widget import MicroED

LEFT = Qt.MouseButton.LeftButton
SWEEP = simulate_microed(3, (160, 192), center=(84.0, 91.0), n_shells=4, spots_per_frame=20)
PIXEL_SIZE = (0, 2.5, 2.5)


@pytest.fixture
def sweep(viewer, tmp_path):
    """Return what gives the layer of a sweep opened from a file, and does not keep it open."""
    nm.write(tmp_path / "sweep.mrcz", SWEEP.frames, pixel_size=PIXEL_SIZE)
    (layer,) = viewer.open(tmp_path / "sweep.mrcz", plugin="napari-mrcz")
    layer.translate = (0, 10, 20)
    viewer.dims.set_current_step(0, 0)
    return weakref.ref(layer)


@pytest.fixture
def widget(viewer, sweep, qtbot) -> MicroED:
    """Return the widget, docked, with the beam drawn where one frame has it."""
    widget = MicroED(viewer)
    viewer.window.add_dock_widget(widget, name="MicroED")
    settle(widget, qtbot)
    return widget


@pytest.fixture
def fitted(widget, qtbot) -> MicroED:
    """Return the widget with the sweep fitted, as it was before, and all that follows."""
    type_number(qtbot, widget.annuli.native, "4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TruncationModel, "fit", known_fit)
        fit_layer(widget, qtbot)
    return widget


_fit = TruncationModel.fit
_known: dict[tuple, TruncationModel] = {}


def known_fit(stack, center, n_annuli, mask, **options) -> TruncationModel:
    """Return the fit of the sweep, which is made once."""
    key = (tuple(center), n_annuli, None if mask is None else mask.tobytes())
    if key not in _known:
        _known[key] = _fit(stack, center, n_annuli, mask, **options)
    return _known[key]


def settle(widget, qtbot) -> None:
    """Wait until nothing is left to be computed."""
    qtbot.waitUntil(lambda: not widget.busy)


def fit_layer(widget, qtbot) -> Fit:
    """Press Fit and wait until all is shown."""
    settle(widget, qtbot)
    with qtbot.waitSignal(widget.fitted) as caught:
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    settle(widget, qtbot)
    return caught.args[0]


def type_number(qtbot, field, text: str) -> None:
    """Type a number and press Enter."""
    field.selectAll()
    qtbot.keyClicks(field, text)
    qtbot.keyClick(field, Qt.Key.Key_Enter)


def names(viewer) -> list[str]:
    """Return the layers' names, lowest first."""
    return [layer.name for layer in viewer.layers]


def canvas_point(viewer, layer, row: float, column: float) -> QPoint:
    """Return where a pixel of an image is on the canvas."""
    QApplication.processEvents()
    canvas = viewer.window._qt_viewer.canvas
    node = canvas.layer_to_visual[layer].node
    x, y = node.get_transform("visual", "canvas").map([column + 0.5, row + 0.5])[:2]
    return QPoint(round(x), round(y))


def rings_at(widget) -> tuple[float, float]:
    """Return the (y, x) in pixels of the sweep about which the annuli are drawn."""
    rings = widget.guides.rings
    y, x = (rings.translate - (10, 20)) / rings.scale
    return float(y), float(x)


@pytest.fixture
def gated(widget, viewer, qtbot):
    """Return the widget with its beam known, and what holds back the movie that is picked."""
    gate = Gate()
    layer = viewer.add_image(
        nm.Stack.from_array(SWEEP.frames).apply(gate), name="gated", contrast_limits=(0, 80)
    )
    settle(widget, qtbot)
    gate.closed = True
    yield widget, gate, layer
    gate.opened.set()
