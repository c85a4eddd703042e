"""The "MicroED" widget in a viewer: a fit, its annuli and layers, its looks."""

import numpy as np
import pytest
from closing import close
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

import napari_mrcz as nm
from napari_mrcz.correction.noise import CountedAlready
from napari_mrcz.errors import error_text
from napari_mrcz.simulation import simulate_microed
from napari_mrcz.widgets.base.job import Job
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.save_stack.widget import SaveStack

# Fixtures, which pytest finds by their names here.
__all__ = ["fitted", "gated", "sweep", "widget"]


# Fitting ------------------------------------------------------------------------------------------


def test_counted_electrons_are_fitted_on_request_and_the_warning_stays(widget, viewer, qtbot):
    counts = simulate_microed(2, (96, 96), counted=True, seed=1).frames
    viewer.add_image(nm.Stack.from_array(counts), name="counts", contrast_limits=(0, 8))
    settle(widget, qtbot)
    assert isinstance(fit_layer(widget, qtbot), CountedAlready)
    assert widget.fit is None
    widget.force.click()
    fit = fit_layer(widget, qtbot)
    assert widget.remark.text() == "\n".join(fit.model.warnings)
    assert "counted electrons" in widget.remark.text()
    assert not widget.remark.isHidden()


def test_a_fit_is_shown(fitted, viewer, sweep):
    """Table, histogram, offset, corrected layer."""
    fit = fitted.fit
    assert fit.choice.center == fitted.center
    assert names(viewer) == ["sweep", "sweep corrected", "annuli", "beam"]
    assert fitted.table.rowCount() == 4
    assert f"offset {fit.model.offset} (ADCOFFSET)" in fitted.offset.text()
    assert fitted.histogram_title.text().startswith("Annulus 1, frame 0")
    x, pixels = fitted.curves["corrected"].getOriginalDataset()
    (low, high), (_, top) = fitted.histogram.getPlotItem().viewRange()
    assert low < x.min() < 0 < x.max() < high
    assert np.log10(pixels.max()) < top
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
    with qtbot.waitSignal(fitted._histograms.returned) as caught:
        type_number(qtbot, fitted.region, "3")
    assert caught.args[0].region == 3
    assert fitted.table.selectionModel().currentIndex().row() == 2
    colours = fitted.guides.rings.edge_color
    assert not np.array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[1], colours[2])


def test_an_annulus_is_chosen_in_the_table(fitted, qtbot):
    """By a click on its row."""
    table = fitted.table
    at = table.visualRect(table.model().index(1, 3)).center()
    with qtbot.waitSignal(fitted._histograms.returned) as caught:
        qtbot.mouseClick(table.viewport(), LEFT, pos=at)
    assert caught.args[0].region == fitted.region.value() == 2


@pytest.mark.window
def test_an_annulus_is_chosen_in_the_pattern(fitted, viewer, qtbot):
    """By a click; a click beside the pattern chooses nothing."""
    canvas = viewer.window._qt_viewer.canvas.native
    at = canvas_point(viewer, fitted.corrected, 150, 12)
    with qtbot.waitSignal(fitted._histograms.returned) as caught:
        qtbot.mouseClick(canvas, LEFT, pos=at)
    assert caught.args[0].region == fitted.fit.model.labels[150, 12] == 4
    qtbot.mouseClick(canvas, LEFT, pos=canvas_point(viewer, fitted.corrected, -8, 12))
    assert fitted.region.value() == 4


def test_table_and_histogram_follow_the_frame(fitted, viewer, qtbot):
    """Each frame has parameters of its own."""
    texts = fitted.table.model()
    before = texts.data(texts.index(0, 3))
    with qtbot.waitSignal(fitted._histograms.returned) as caught:
        viewer.dims.set_current_step(0, 2)
    assert caught.args[0].frame == 2
    assert texts.data(texts.index(0, 3)) == f"{fitted.fit.model.parameters[2, 0, 0]:.3f}" != before


def test_before_and_after(fitted, sweep, qtbot):
    """The button says what comes next; both look alike."""
    button = fitted.toggle_button
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
    type_number(qtbot, fitted.annuli.native, "5")
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
    refused = fit_layer(widget, qtbot)
    assert isinstance(refused, ValueError)
    assert widget.controls.status.text() == error_text(refused)
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
    """No layer is added for it, nor for one that was fitted and is not picked any more."""
    widget, gate, layer = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    if how == "another picked":
        viewer.layers.selection.active = sweep()
    elif how == "removed":
        viewer.layers.remove(layer)
    else:
        layer.data = SWEEP.frames[:2]
    gate.opened.set()
    qtbot.waitUntil(lambda: not Job._running)
    settle(widget, qtbot)
    assert widget.fit is None
    assert not any("corrected" in name for name in names(viewer))


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
    assert fitted.table.rowCount() == 4


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
    assert fitted.layers.layer.name == "sweep corrected"
    viewer.layers.clear()
    assert not fitted.controls.start_button.isEnabled()


def test_the_corrected_layer_may_be_removed(fitted, viewer, sweep, qtbot):
    """The sweep is seen again; another fit makes it anew."""
    viewer.layers.remove("sweep corrected")
    assert sweep().visible
    assert not fitted.save_button.isEnabled()
    fit_layer(fitted, qtbot)
    assert "sweep corrected" in names(viewer)


@pytest.mark.window
def test_the_corrected_movie_goes_to_save_stack(fitted, viewer, tmp_path, qtbot):
    """The dock opens with the corrected layer; negative counts are written."""
    qtbot.mouseClick(fitted.save_button, LEFT)
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
    assert widget.histogram_title.text().startswith("Annulus 1: ")


# The window ---------------------------------------------------------------------------------------


def test_a_closed_widget_lets_go_of_the_viewer(fitted, viewer, sweep, qtbot):
    """Clicks, points, layers; with a histogram on its way."""
    beam = fitted.guides.beam
    n_callbacks = len(viewer.mouse_drag_callbacks)
    fitted.region.setValue(2)
    close(fitted, viewer, qtbot)
    assert len(viewer.mouse_drag_callbacks) == n_callbacks - 1
    beam.data = [[1.0, 2.0]]
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


def test_colours_follow_the_theme(fitted, viewer):
    """Of the curve and of the words that name it."""
    for theme in ("light", "dark"):
        viewer.theme = theme
        colours = palette(theme)
        assert fitted.curves["fitted"].opts["pen"].color().name() == colours.model
        assert colours.model in fitted.legend.text()
        assert colours.text in fitted.offset.styleSheet()


def test_axes_have_names_and_units(fitted):
    """After fig. 1 of the paper; the number of pixels is logarithmic."""
    item = fitted.histogram.getPlotItem()
    assert item.getAxis("bottom").labelText == "counts"
    assert item.getAxis("left").labelText == "pixels"
    assert item.getAxis("left").logMode
