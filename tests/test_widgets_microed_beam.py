"""The "MicroED" widget in a viewer: where beam, annuli, beam stop and regions are."""

import os
import subprocess
import sys
import threading

import mouse
import numpy as np
import pytest
from microed_dock import (
    LEFT,
    SWEEP,
    canvas_point,
    fit_layer,
    fitted,
    gated,
    names,
    rings_at,
    settle,
    sweep,
    type_number,
    widget,
)
from qtpy.QtCore import QEvent, Qt

from napari_mrcz.widgets.microed import widget as microed_widget
from napari_mrcz.widgets.microed.widget import MicroED

# Fixtures, which pytest finds by their names here.
__all__ = ["fitted", "gated", "sweep", "widget"]


# Beam and annuli ----------------------------------------------------------------------------------


def test_the_beam_is_drawn_at_once(widget, viewer, sweep):
    """A cross and circles, lying on the sweep, near where the beam is."""
    assert names(viewer) == ["sweep", "annuli", "beam"]
    np.testing.assert_allclose(widget.center, SWEEP.center, atol=4)
    np.testing.assert_allclose(widget.guides.beam.data[0], widget.center)
    assert widget.beam_row.value() == pytest.approx(widget.center[0], abs=0.05)
    for layer in (widget.guides.beam, widget.guides.rings):
        np.testing.assert_array_equal(layer.scale, [2.5, 2.5])
        assert layer.units == sweep().units[-2:]
    np.testing.assert_array_equal(widget.guides.beam.translate, [10, 20])
    assert rings_at(widget) == pytest.approx(widget.center)
    assert len(widget.guides.rings.data) == 9
    assert viewer.layers.selection.active is sweep()


def test_the_beam_is_found_in_all_frames(widget, qtbot):
    """By a button; the point and the circles go there."""
    with qtbot.waitSignal(widget.search.returned) as caught:
        qtbot.mouseClick(widget.search.start_button, LEFT)
    np.testing.assert_allclose(caught.args[0], SWEEP.center, atol=2)
    assert widget.center == caught.args[0]
    np.testing.assert_allclose(widget.guides.beam.data[0], widget.center)


def test_the_beam_is_typed(widget, qtbot):
    """The point and the circles follow at once, their radii when it rests."""
    type_number(qtbot, widget.beam_row, "40")
    type_number(qtbot, widget.beam_column, "50.5")
    assert widget.center == (40, 50.5)
    assert widget.guides.beam.data[0].tolist() == [40, 50.5]
    assert rings_at(widget) == pytest.approx((40, 50.5))
    before = len(widget.guides.rings.data), widget.guides.rings.data[-1].max()
    settle(widget, qtbot)
    after = len(widget.guides.rings.data), widget.guides.rings.data[-1].max()
    assert after[0] == before[0]
    assert after[1] > before[1]  # a beam near a corner has larger annuli


@pytest.mark.window
def test_the_beam_is_dragged_with_the_mouse(widget, viewer, sweep, qtbot):
    """The point; the circles and the numbers follow."""
    qtbot.mouseClick(widget.drag_button, LEFT)
    assert viewer.layers.selection.active is widget.guides.beam
    assert widget.layers.layer is sweep()
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
    assert widget.beam_column.value() == pytest.approx(widget.center[1], abs=0.05)


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
        with qtbot.waitSignal(widget._outlines.returned):
            type_number(qtbot, widget.annuli.native, text)
        assert len(widget.guides.rings.data) == lines


def test_the_drawing_can_be_taken_away_and_comes_back(widget, viewer, qtbot):
    """By its box, or in the layer list; the beam stays known."""
    center = widget.center
    widget.draw.setChecked(False)
    assert names(viewer) == ["sweep"]
    with qtbot.waitSignal(widget._outlines.returned):
        widget.draw.setChecked(True)
    assert names(viewer) == ["sweep", "annuli", "beam"]
    viewer.layers.remove("annuli")
    assert names(viewer) == ["sweep"]
    assert not widget.draw.isChecked()
    settle(widget, qtbot)
    assert widget.center == center


# Beam stop and regions ----------------------------------------------------------------------------


@pytest.mark.window
def test_a_beam_stop_is_painted(fitted, viewer, sweep, qtbot):
    """On a layer made for it; what is painted is not valid, and asks for another fit."""
    qtbot.mouseClick(fitted.paint_button, LEFT)
    layer = fitted.masks.layer
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
    masks = widget.masks
    assert [masks.itemText(i) for i in range(masks.count())] == ["none", "stop"]
    assert masks.layer is None


def test_any_labels_may_be_regions(widget, viewer, qtbot):
    """Annuli and beam are of no concern then."""
    regions = np.zeros((160, 192), np.uint8)
    regions[:80], regions[80:] = 3, 9
    layer = viewer.add_labels(regions, name="halves")
    widget.regions.pick(layer)
    qtbot.waitUntil(lambda: not widget.beam_row.isEnabled())
    assert names(viewer) == ["sweep", "halves"]
    fit = fit_layer(widget, qtbot)
    assert fit.names.tolist() == [3, 9]
    assert widget.region.prefix() == "Region "
    assert widget.histogram_title.text().startswith("Label 3, frame 0")
    widget.masks.pick(layer)
    qtbot.waitUntil(lambda: not widget.controls.start_button.isEnabled())
    assert "same layer" in widget.controls.start_button.toolTip()
    viewer.layers.remove(layer)
    settle(widget, qtbot)
    assert widget.beam_row.isEnabled()
    assert widget.guides.beam is not None


# Searches that end early --------------------------------------------------------------------------


def test_looking_for_the_beam_can_be_cancelled(gated, qtbot):
    """It stays where it was."""
    widget, gate, _ = gated
    center = widget.center
    qtbot.mouseClick(widget.search.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    qtbot.mouseClick(widget.search.cancel_button, LEFT)
    with qtbot.waitSignal(widget.search.cancelled):
        gate.opened.set()
    assert widget.center == center


def test_a_layer_removed_while_its_beam_is_looked_for(gated, viewer, sweep, qtbot):
    """The search ends; the beam of the layer that is picked then is its own."""
    widget, gate, layer = gated
    qtbot.mouseClick(widget.search.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    viewer.layers.remove(layer)
    with qtbot.waitSignal(widget.search.cancelled):
        gate.opened.set()
    settle(widget, qtbot)
    assert widget.layers.layer is sweep()
    assert rings_at(widget) == pytest.approx(widget.center)


# The window ---------------------------------------------------------------------------------------


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
    assert widget.guides.beam is not None
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@pytest.mark.slow
def test_what_was_got_ready_is_not_loaded_any_more():
    """In a program of its own: here, all is loaded already."""
    code = """
import sys
import numpy as np
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication, QWidget
from napari_mrcz.widgets.base.derived import get_points_ready, get_shapes_ready
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
