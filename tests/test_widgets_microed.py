"""The "MicroED" widget in a real window: beam, annuli, fit, clicks, closing."""

import os
import subprocess
import sys
import threading
import weakref

import mouse
import numpy as np
import pytest
from gate import Gate
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QProgressBar,
    QScrollArea,
)

import napari_mrcz as nm
from napari_mrcz.simulation import simulate_microed
from napari_mrcz.widgets.base.theme import palette
from napari_mrcz.widgets.microed import widget as microed_widget
from napari_mrcz.widgets.microed.model import Fit
from napari_mrcz.widgets.microed.widget import MicroED
from napari_mrcz.widgets.save_stack.widget import SaveStack

LEFT = Qt.MouseButton.LeftButton
SWEEP = simulate_microed(3, (160, 192), center=(84.0, 91.0), n_shells=4, spots_per_frame=20)
PIXEL_SIZE = (0, 2.5, 2.5)


@pytest.fixture
def viewer(make_napari_viewer):
    """Return a viewer with nothing in it."""
    return make_napari_viewer()


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
    """Return the widget with the sweep fitted, and all that follows."""
    type_number(qtbot, widget.beam.annuli, "4")
    fit_layer(widget, qtbot)
    return widget


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


# Beam and annuli ----------------------------------------------------------------------------------


def test_the_beam_is_drawn_at_once(widget, viewer, sweep):
    """A cross and circles, lying on the sweep, near where the beam is."""
    assert names(viewer) == ["sweep", "annuli", "beam"]
    np.testing.assert_allclose(widget.center, SWEEP.center, atol=4)
    np.testing.assert_allclose(widget.guides.beam.data[0], widget.center)
    assert widget.beam.row.value() == pytest.approx(widget.center[0], abs=0.05)
    for layer in (widget.guides.beam, widget.guides.rings):
        np.testing.assert_array_equal(layer.scale, [2.5, 2.5])
        assert layer.units == sweep().units[-2:]
    np.testing.assert_array_equal(widget.guides.beam.translate, [10, 20])
    assert rings_at(widget) == pytest.approx(widget.center)
    assert len(widget.guides.rings.data) == 9
    assert viewer.layers.selection.active is sweep()


def test_the_beam_is_found_in_all_frames(widget, qtbot):
    """By a button; the point and the circles go there."""
    with qtbot.waitSignal(widget.found) as caught:
        qtbot.mouseClick(widget.beam.controls.start_button, LEFT)
    np.testing.assert_allclose(caught.args[0], SWEEP.center, atol=2)
    assert widget.center == caught.args[0]
    np.testing.assert_allclose(widget.guides.beam.data[0], widget.center)


def test_the_beam_is_typed(widget, qtbot):
    """The point and the circles follow at once, their radii when it rests."""
    type_number(qtbot, widget.beam.row, "40")
    type_number(qtbot, widget.beam.column, "50.5")
    assert widget.center == (40, 50.5)
    assert widget.guides.beam.data[0].tolist() == [40, 50.5]
    assert rings_at(widget) == pytest.approx((40, 50.5))
    before = len(widget.guides.rings.data), widget.guides.rings.data[-1].max()
    settle(widget, qtbot)
    after = len(widget.guides.rings.data), widget.guides.rings.data[-1].max()
    assert after[0] == before[0]
    assert after[1] > before[1]  # a beam near a corner has larger annuli


def test_the_beam_is_dragged_with_the_mouse(widget, viewer, sweep, qtbot):
    """The point; the circles and the numbers follow."""
    qtbot.mouseClick(widget.beam.drag_button, LEFT)
    assert viewer.layers.selection.active is widget.guides.beam
    assert widget.source.layers.layer is sweep()
    row, column = widget.center
    start = canvas_point(viewer, sweep(), row, column)
    end = canvas_point(viewer, sweep(), 60, 120)
    canvas, n_steps = viewer.window._qt_viewer.canvas.native, 4
    mouse.send(canvas, QEvent.Type.MouseMove, start, Qt.MouseButton.NoButton, held=False)
    mouse.send(canvas, QEvent.Type.MouseButtonPress, start, LEFT, held=True)
    for step in range(1, n_steps + 1):
        at, before = start + (end - start) * step / n_steps, widget.center

        def follows(at=at, before=before) -> bool:
            # Moves that follow each other fast are dropped: a hand is slower, and moves again.
            mouse.send(canvas, QEvent.Type.MouseMove, at, Qt.MouseButton.NoButton, held=True)
            return widget.center != before and rings_at(widget) == pytest.approx(widget.center)

        qtbot.waitUntil(follows)
    mouse.send(canvas, QEvent.Type.MouseButtonRelease, end, LEFT, held=False)
    np.testing.assert_allclose(widget.center, (60, 120), atol=3)
    assert rings_at(widget) == pytest.approx(widget.center)
    assert widget.beam.column.value() == pytest.approx(widget.center[1], abs=0.05)


def test_there_is_one_beam(widget, qtbot):
    """One that was added takes its place; one that was deleted comes back."""
    widget.guides.beam.add([30.0, 40.0])
    qtbot.waitUntil(lambda: len(widget.guides.beam.data) == 1)
    assert widget.center == (30, 40)
    widget.guides.beam.selected_data = {0}
    widget.guides.beam.remove_selected()
    qtbot.waitUntil(lambda: len(widget.guides.beam.data) == 1)
    assert widget.center == (30, 40)


def test_annuli_are_as_many_as_are_typed(widget, qtbot):
    """One line fewer: the last ends with the pattern."""
    for text, lines in (("4", 3), ("1", 0), ("6", 5)):
        with qtbot.waitSignal(widget.outlined):
            type_number(qtbot, widget.beam.annuli, text)
        assert len(widget.guides.rings.data) == lines


def test_the_drawing_can_be_taken_away_and_comes_back(widget, viewer, qtbot):
    """By its box, or in the layer list; the beam stays known."""
    center = widget.center
    widget.beam.draw.setChecked(False)
    assert names(viewer) == ["sweep"]
    with qtbot.waitSignal(widget.outlined):
        widget.beam.draw.setChecked(True)
    assert names(viewer) == ["sweep", "annuli", "beam"]
    viewer.layers.remove("annuli")
    assert names(viewer) == ["sweep"]
    assert not widget.beam.draw.isChecked()
    settle(widget, qtbot)
    assert widget.center == center


# Beam stop and regions ----------------------------------------------------------------------------


def test_a_beam_stop_is_painted(fitted, viewer, sweep, qtbot):
    """On a layer made for it; what is painted is not valid, and asks for another fit."""
    qtbot.mouseClick(fitted.source.paint_button, LEFT)
    layer = fitted.source.masks.layer
    assert layer is viewer.layers.selection.active
    assert layer.mode == "paint"
    np.testing.assert_array_equal(layer.translate, [10, 20])
    settle(fitted, qtbot)
    before = fitted.fit
    at = canvas_point(viewer, sweep(), 100, 40)
    qtbot.mouseClick(viewer.window._qt_viewer.canvas.native, LEFT, pos=at)
    assert layer.data[100, 40] == 1
    qtbot.waitUntil(lambda: "press Fit again" in fitted.remark.text())
    fit_layer(fitted, qtbot)
    assert fitted.fit is not before
    np.testing.assert_array_equal(fitted.fit.model.labels == 0, layer.data != 0)
    assert fitted.remark.text() == ""


def test_a_mask_that_does_not_fit_is_not_offered(widget, viewer):
    """Rows and columns must be those of the sweep."""
    viewer.add_labels(np.zeros((5, 5), np.uint8), name="small")
    viewer.add_labels(SWEEP.beam_stop.astype(np.uint8), name="stop")
    masks = widget.source.masks
    assert [masks.itemText(i) for i in range(masks.count())] == ["none", "stop"]
    assert masks.layer is None


def test_any_labels_may_be_regions(widget, viewer, qtbot):
    """Annuli and beam are of no concern then."""
    regions = np.zeros((160, 192), np.uint8)
    regions[:80], regions[80:] = 3, 9
    layer = viewer.add_labels(regions, name="halves")
    widget.source.regions.pick(layer)
    qtbot.waitUntil(lambda: not widget.beam.isEnabled())
    assert names(viewer) == ["sweep", "halves"]
    fit = fit_layer(widget, qtbot)
    assert fit.names.tolist() == [3, 9]
    assert widget.result.region_label.text() == "Region"
    assert widget.result.view.title.text().startswith("Label 3, frame 0")
    widget.source.masks.pick(layer)
    qtbot.waitUntil(lambda: not widget.controls.start_button.isEnabled())
    assert "same layer" in widget.controls.start_button.toolTip()
    viewer.layers.remove(layer)
    settle(widget, qtbot)
    assert widget.beam.isEnabled()
    assert widget.guides.shown


# Fitting ------------------------------------------------------------------------------------------


def test_a_fit_is_shown(fitted, viewer, sweep):
    """Table, histogram, offset, corrected layer."""
    fit = fitted.fit
    assert fit.choice.center == fitted.center
    assert names(viewer) == ["sweep", "sweep corrected", "annuli", "beam"]
    assert fitted.result.table.texts.rowCount() == 4
    assert f"offset {fit.model.offset} (ADCOFFSET)" in fitted.result.offset.text()
    assert fitted.result.view.title.text().startswith("Annulus 1, frame 0")
    x, pixels = fitted.result.view._corrected.getOriginalDataset()
    assert x.min() < 0
    assert pixels.sum() <= np.count_nonzero(fit.model.labels == 1)
    layer = fitted.corrected
    np.testing.assert_array_equal(layer.data[2], fit.model(SWEEP.frames[2], 2))
    np.testing.assert_array_equal(layer.scale, sweep().scale)
    np.testing.assert_array_equal(layer.translate, sweep().translate)
    assert layer.units == sweep().units
    assert layer.contrast_limits == sweep().contrast_limits
    assert layer.contrast_limits[0] < 0  # what was cut off can be seen
    assert layer.visible and not sweep().visible
    assert viewer.layers.selection.active is sweep()


def test_an_annulus_is_chosen_by_its_number(fitted, qtbot):
    """The row and the circles about it are marked."""
    with qtbot.waitSignal(fitted.histogram_shown) as caught:
        type_number(qtbot, fitted.result.region, "3")
    assert caught.args[0].region == 3
    assert fitted.result.table.selectionModel().currentIndex().row() == 2
    colours = fitted.guides.rings.edge_color
    assert not np.array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[1], colours[2])


def test_an_annulus_is_chosen_in_the_table(fitted, qtbot):
    """By a click on its row."""
    table = fitted.result.table
    at = table.visualRect(table.texts.index(1, 3)).center()
    with qtbot.waitSignal(fitted.histogram_shown) as caught:
        qtbot.mouseClick(table.viewport(), LEFT, pos=at)
    assert caught.args[0].region == fitted.result.region.value() == 2


def test_an_annulus_is_chosen_in_the_pattern(fitted, viewer, qtbot):
    """By a click; a click beside the pattern chooses nothing."""
    canvas = viewer.window._qt_viewer.canvas.native
    at = canvas_point(viewer, fitted.corrected, 150, 12)
    with qtbot.waitSignal(fitted.histogram_shown) as caught:
        qtbot.mouseClick(canvas, LEFT, pos=at)
    assert caught.args[0].region == fitted.fit.model.labels[150, 12] == 4
    qtbot.mouseClick(canvas, LEFT, pos=canvas_point(viewer, fitted.corrected, -8, 12))
    assert fitted.result.region.value() == 4


def test_table_and_histogram_follow_the_frame(fitted, viewer, qtbot):
    """Each frame has parameters of its own."""
    texts = fitted.result.table.texts
    before = texts.data(texts.index(0, 3))
    with qtbot.waitSignal(fitted.histogram_shown) as caught:
        viewer.dims.set_current_step(0, 2)
    assert caught.args[0].frame == 2
    assert texts.data(texts.index(0, 3)) == f"{fitted.fit.model.parameters[2, 0, 0]:.3f}" != before


def test_before_and_after(fitted, sweep, qtbot):
    """The button says what comes next; both look alike."""
    button = fitted.result.toggle_button
    assert button.text() == "Show before"
    qtbot.mouseClick(button, LEFT)
    assert sweep().visible and not fitted.corrected.visible
    assert button.text() == "Show after"
    sweep().contrast_limits = (-3, 44)
    assert list(fitted.corrected.contrast_limits) == [-3, 44]
    qtbot.mouseClick(button, LEFT)
    assert fitted.corrected.visible and not sweep().visible


def test_other_choices_ask_for_another_fit(fitted, viewer, qtbot):
    """And show it in the layer that is there."""
    layer = fitted.corrected
    type_number(qtbot, fitted.beam.annuli, "5")
    assert "press Fit again" in fitted.remark.text()
    assert palette(viewer.theme).warning in fitted.remark.styleSheet()
    fit = fit_layer(fitted, qtbot)
    assert fit.model.n_regions == 5
    assert fitted.corrected is layer
    np.testing.assert_array_equal(layer.data[0], fit.model(SWEEP.frames[0], 0))
    assert fitted.remark.text() == ""


def test_what_was_not_cut_off_is_refused_in_words(widget, viewer, qtbot):
    """Negative counts, or an image in colours."""
    viewer.add_image(SWEEP.true_counts, name="differences")
    assert isinstance(fit_layer(widget, qtbot), ValueError)
    assert "negative counts: none were cut off" in widget.controls.status.text()
    viewer.add_image(np.zeros((4, 5, 3), np.uint8), name="picture", rgb=True)
    assert not widget.controls.start_button.isEnabled()
    assert "RGB" in widget.controls.start_button.toolTip()


def test_a_fit_can_be_cancelled(gated, viewer, qtbot):
    """Nothing is left of it."""
    widget, gate, _ = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    assert widget.controls.progress.isVisibleTo(widget)
    qtbot.mouseClick(widget.controls.cancel_button, LEFT)
    with qtbot.waitSignal(widget.fitted) as caught:
        gate.opened.set()
    assert caught.args == [None]
    assert widget.fit is None
    assert widget.controls.status.text() == "Cancelled."
    assert "gated corrected" not in names(viewer)


@pytest.mark.parametrize("how", ["another picked", "removed", "replaced"])
def test_a_layer_that_goes_in_the_middle_of_its_fit(gated, viewer, sweep, qtbot, how):
    """No layer is added for it."""
    widget, gate, layer = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    if how == "another picked":
        viewer.layers.selection.active = sweep()
    elif how == "removed":
        viewer.layers.remove(layer)
    else:
        layer.data = SWEEP.frames[:2]
    with qtbot.waitSignal(widget.fitted):
        gate.opened.set()
    settle(widget, qtbot)
    assert widget.fit is None
    assert not any("corrected" in name for name in names(viewer))


def test_looking_for_the_beam_can_be_cancelled(gated, qtbot):
    """It stays where it was."""
    widget, gate, _ = gated
    center = widget.center
    qtbot.mouseClick(widget.beam.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    qtbot.mouseClick(widget.beam.controls.cancel_button, LEFT)
    with qtbot.waitSignal(widget.found) as caught:
        gate.opened.set()
    assert caught.args == [None]
    assert widget.center == center


def test_a_layer_removed_while_its_beam_is_looked_for(gated, viewer, sweep, qtbot):
    """The search ends; the beam of the layer that is picked then is its own."""
    widget, gate, layer = gated
    qtbot.mouseClick(widget.beam.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    viewer.layers.remove(layer)
    with qtbot.waitSignal(widget.found) as caught:
        gate.opened.set()
    assert caught.args == [None]
    settle(widget, qtbot)
    assert widget.source.layers.layer is sweep()
    assert rings_at(widget) == pytest.approx(widget.center)


# Layers -------------------------------------------------------------------------------------------


def test_a_fit_is_there_again_when_its_layer_is_picked_again(fitted, viewer, sweep, qtbot):
    """With its beam; the drawing goes to the layer that is picked."""
    fit, center = fitted.fit, fitted.center
    other = viewer.add_image(SWEEP.frames[:, :100, :100], name="other")
    settle(fitted, qtbot)
    assert fitted.fit is None
    np.testing.assert_array_equal(fitted.guides.beam.scale, other.scale[-2:])
    viewer.layers.selection.active = sweep()
    settle(fitted, qtbot)
    assert fitted.fit is fit
    assert fitted.center == center
    assert fitted.result.table.texts.rowCount() == 4


def test_all_follow_when_the_pixel_size_is_mended(fitted, sweep):
    """And where the layer lies."""
    sweep().scale = (1, 4, 4)
    np.testing.assert_array_equal(fitted.corrected.scale, [1, 4, 4])
    np.testing.assert_array_equal(fitted.guides.beam.scale, [4, 4])
    assert rings_at(fitted) == pytest.approx(fitted.center)


def test_a_layer_removed_takes_its_fit_with_it(fitted, viewer, sweep, qtbot):
    """The corrected movie stays, as a movie like any other; the sweep's is closed."""
    viewer.layers.remove(sweep())
    settle(fitted, qtbot)
    assert fitted.fit is None
    assert fitted.source.layers.layer.name == "sweep corrected"
    viewer.layers.clear()
    assert not fitted.controls.start_button.isEnabled()


def test_the_corrected_layer_may_be_removed(fitted, viewer, sweep, qtbot):
    """The sweep is seen again; another fit makes it anew."""
    viewer.layers.remove("sweep corrected")
    assert sweep().visible
    assert not fitted.result.save_button.isEnabled()
    fit_layer(fitted, qtbot)
    assert "sweep corrected" in names(viewer)


def test_the_corrected_movie_goes_to_save_stack(fitted, viewer, tmp_path, qtbot):
    """The dock opens with the corrected layer; negative counts are written."""
    qtbot.mouseClick(fitted.result.save_button, LEFT)
    (dock,) = (w for w in viewer.window.dock_widgets.values() if isinstance(w, SaveStack))
    assert dock.form.layers.layer is fitted.corrected
    viewer.layers.save(str(tmp_path / "out.mrcz"), selected=True, plugin="napari-mrcz")
    with nm.open(tmp_path / "out.mrcz") as saved:
        assert saved[0].min() < 0
        assert saved.history[-1]["name"] == "TruncationModel"
    qtbot.waitUntil(lambda: not dock.busy)


def test_a_single_pattern_can_be_corrected(widget, viewer, qtbot):
    """An image without frames."""
    viewer.add_image(SWEEP.frames[0], name="one")
    fit = fit_layer(widget, qtbot)
    assert len(fit.stack) == 1
    assert widget.result.view.title.text().startswith("Annulus 1: ")


# The window ---------------------------------------------------------------------------------------


def close(widget, viewer, qtbot) -> None:
    """Close the dock, and wait until the widget is gone."""
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))


def test_a_closed_widget_lets_go_of_the_viewer(fitted, viewer, sweep, qtbot):
    """Clicks, points, layers; with a histogram on its way."""
    corrected, beam = fitted.corrected, fitted.guides.beam
    n_callbacks = len(viewer.mouse_drag_callbacks)
    fitted.result.region.setValue(2)
    close(fitted, viewer, qtbot)
    assert len(viewer.mouse_drag_callbacks) == n_callbacks - 1
    beam.data = [[1.0, 2.0]]
    sweep().contrast_limits = (1, 5)
    assert list(corrected.contrast_limits) != [1, 5]
    viewer.dims.set_current_step(0, 2)
    viewer.theme = "light"
    viewer.layers.clear()


def test_the_widget_may_be_closed_while_it_fits(gated, viewer, qtbot):
    """No signal reaches what is no longer there."""
    widget, gate, _ = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    close(widget, viewer, qtbot)
    gate.opened.set()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_follow_the_theme(fitted, viewer, theme):
    """Of the curve and of the words that name it."""
    viewer.theme = theme
    colours = palette(theme)
    assert fitted.result.view._fitted.opts["pen"].color().name() == colours.model
    assert colours.model in fitted.result.view.legend.text()
    assert colours.text in fitted.result.offset.styleSheet()


@pytest.mark.parametrize("width", [320, 600])
def test_it_fits_its_dock(fitted, width):
    """Nothing sticks out, and nothing is scrolled sideways."""
    fitted.resize(width, 700)
    area = fitted.findChild(QScrollArea)
    bar = area.verticalScrollBar().sizeHint().width()
    assert area.widget().minimumSizeHint().width() + bar <= width


def test_every_control_explains_itself(fitted):
    """By a tooltip; the plot, the table and its columns too."""
    kinds = (QAbstractButton, QAbstractSpinBox, QComboBox, QProgressBar)
    controls = [c for kind in kinds for c in fitted.findChildren(kind)]
    parts = ("FitTable", "PlotItem", "QScrollArea", "LayerPicker", "_Field", "QSpinBox")
    own = [
        c
        for c in controls
        if type(c.parent()).__name__ not in parts and not c.objectName().startswith("qt_")
    ]
    assert len(own) >= 12
    assert [c for c in own if not c.toolTip()] == []
    assert fitted.result.view.plot.toolTip() and fitted.result.table.toolTip()
    texts, tip = fitted.result.table.texts, Qt.ItemDataRole.ToolTipRole
    assert all(texts.headerData(n, Qt.Orientation.Horizontal, tip) for n in range(6))


def test_axes_have_names_and_units(fitted):
    """After fig. 1 of the paper; the number of pixels is logarithmic."""
    item = fitted.result.view.plot.getPlotItem()
    assert item.getAxis("bottom").labelText == "counts"
    assert item.getAxis("left").labelText == "pixels"
    assert item.getAxis("left").logMode


def test_layers_of_new_kinds_are_loaded_in_a_thread(viewer, sweep, qtbot, monkeypatch):
    """Else the window would wait for the first of them, for seconds."""
    threads = []
    for name in ("get_points_ready", "get_shapes_ready"):
        monkeypatch.setattr(
            microed_widget, name, lambda: threads.append(threading.current_thread())
        )
    widget = MicroED(viewer)
    viewer.window.add_dock_widget(widget, name="MicroED")
    settle(widget, qtbot)
    assert widget.guides.shown
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_what_was_got_ready_is_not_loaded_any_more():
    """In a program of its own: here, all is loaded already."""
    code = """
import sys
import numpy as np
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication, QWidget
from napari_mrcz.widgets.base.ready import get_points_ready, get_shapes_ready
from napari_mrcz.widgets.microed.guides import Guides
app, viewer, parent = QApplication([]), ViewerModel(), QWidget()
image = viewer.add_image(np.ones((9, 9)))
guides = Guides(viewer, parent)
start = set(sys.modules)
get_shapes_ready()
get_points_ready()
ready = set(sys.modules)
guides.show(image, (4.0, 4.0), np.array([2.0, 3.0]))
print(len(ready - start) > 100, sorted(set(sys.modules) - ready))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "True []"
