"""The "Outliers" widget in a viewer: what is fitted, and the fits of several layers."""

import numpy as np
import pytest
from closing import close
from gate import Gate
from outliers_dock import (
    COUNTS,
    LEFT,
    cell,
    choose,
    fit_layer,
    fitted,
    movie,
    names,
    settle,
    type_number,
    widget,
)
from test_widgets_outliers_model import DARK, HOT

import napari_mrcz as nm
from napari_mrcz.correction import correlated_noise
from napari_mrcz.widgets.base.job import Job
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.outliers import model
from napari_mrcz.widgets.outliers.model import Fit, remarks, signed
from napari_mrcz.widgets.outliers.widget import OutlierPixels

# Fixtures, which pytest finds by their names here.
__all__ = ["fitted", "movie", "widget"]


@pytest.fixture
def gated(widget, viewer):
    """Return the widget, and what holds back the movie that is picked."""
    gate = Gate()
    stack = nm.Stack.from_array(COUNTS).apply(gate)
    layer = viewer.add_image(stack, name="gated", contrast_limits=(0, 12))
    gate.closed = True
    yield widget, gate, layer
    gate.opened.set()


# Fitting ------------------------------------------------------------------------------------------


def test_a_fit_finds_what_was_planted_and_shows_it(widget, viewer, movie, qtbot):
    """In the model, the plots, the fields, the table and the layers."""
    fit = fit_layer(widget, qtbot)
    assert widget.fit is fit
    limits = fit.current.thresholds
    assert all(fit.current.mask[at] == 1 for at in HOT)
    for threshold, value in zip(widget.plots.thresholds.values(), limits[:2], strict=True):
        assert [line.value() for line in threshold.lines] == [value, value]
        assert all(line.isVisible() for line in threshold.lines)
        assert threshold.lines[0].label.toPlainText() == f"{signed(value)} σ"
    assert widget.plots.thresholds["hot"].field.value() == pytest.approx(limits.hot, abs=0.005)
    assert cell(widget, 2) == str(fit.current.n_hot)
    assert names(viewer) == ["movie", "movie corrected", "movie outliers (σ)"]
    assert viewer.layers.selection.active is movie()
    assert widget.layers.layer is movie()


def test_layers_lie_on_the_movie_and_show_what_they_say(fitted, viewer, movie):
    """Scale and units are the movie's; frames are those that the filter makes."""
    for layer in (fitted.derived("sigma"), fitted.corrected):
        np.testing.assert_array_equal(layer.scale[-2:], movie().scale[-2:])
        assert layer.units[-2:] == movie().units[-2:]
    np.testing.assert_array_equal(fitted.derived("sigma").data, fitted.fit.sigma)
    assert tuple(fitted.derived("sigma").contrast_limits) == fitted.fit.current.thresholds[:2]
    np.testing.assert_array_equal(fitted.corrected.data[4], fitted.fit.current(COUNTS[4], 4))
    assert fitted.corrected.contrast_limits == movie().contrast_limits
    assert fitted.corrected.axis_labels == movie().axis_labels
    assert fitted.corrected.visible and not movie().visible


def test_a_derived_layer_is_added_once_as_it_will_be_seen(widget, viewer, movie, qtbot):
    """Its frame is not drawn and drawn again, nor shown and hidden."""
    added, drawn = {}, []

    def note(event):
        added[event.value.name] = event.value.visible
        event.value.events.set_data.connect(lambda _: drawn.append(event.value.name))

    viewer.layers.events.inserted.connect(note)
    fit_layer(widget, qtbot)
    assert added == {"movie outliers (σ)": True, "movie corrected": True}
    assert drawn.count("movie corrected") <= 1
    assert all(viewer.layers[name].visible for name in added)


def test_the_colours_say_hot_dark_and_good(fitted):
    """Orange, blue, and nothing between."""
    sigma = fitted.derived("sigma")
    low, high = sigma.contrast_limits

    def shown(row: int, column: int) -> np.ndarray:
        place = (fitted.fit.sigma[row, column] - low) / (high - low)
        return sigma.colormap.map(place)[0]

    hot, dark, good = shown(*HOT[0]), shown(*DARK[0]), shown(50, 50)
    assert hot[0] > hot[2] and hot[3] == 1
    assert dark[2] > dark[0] and dark[3] == 1
    assert good[3] == 0


def test_noise_is_told_before_and_after(fitted):
    """As it is when it is computed without the window."""
    chosen = np.linspace(0, 23, 10).round().astype(int)
    before = correlated_noise(COUNTS[chosen])
    assert f"{before:.4f} before" in fitted.noise.text()


def test_progress_is_shown_and_a_fit_can_be_cancelled(gated, qtbot):
    """Nothing is left of it."""
    widget, gate, _ = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    assert widget.busy
    assert widget.controls.progress.isVisibleTo(widget)
    qtbot.mouseClick(widget.controls.cancel_button, LEFT)
    with qtbot.waitSignal(widget.fitted) as caught:
        gate.opened.set()
    assert caught.args == [None]
    assert widget.fit is None
    assert widget.controls.status.text() == "Cancelled."
    assert widget.controls.start_button.isEnabled()


def test_a_fit_runs_to_its_end_whatever_is_selected_meanwhile(gated, viewer, movie, qtbot):
    """It is kept with its layer, and shown when that is picked again."""
    widget, gate, layer = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    viewer.layers.selection.active = movie()
    assert not widget.controls.running
    viewer.layers.selection.active = layer
    assert widget.controls.running
    viewer.layers.selection.active = movie()
    with qtbot.waitSignal(widget.fitted) as caught:
        gate.opened.set()
    assert names(viewer) == ["movie", "gated"]
    assert widget.fit is None
    fit_layer(widget, qtbot)
    assert names(viewer) == ["movie", "movie corrected", "gated", "movie outliers (σ)"]
    viewer.layers.selection.active = layer
    settle(widget, qtbot)
    assert [widget.fit] == caught.args
    assert widget.corrected.name == "gated corrected"


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_layer_that_goes_in_the_middle_of_its_fit(gated, viewer, qtbot, how):
    """No layer is added for it."""
    widget, gate, layer = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    if how == "removed":
        viewer.layers.remove(layer)
    else:
        layer.data = COUNTS[:5]
    gate.opened.set()
    qtbot.waitUntil(lambda: not Job._running)
    settle(widget, qtbot)
    assert widget.fit is None
    assert "gated corrected" not in names(viewer)


def test_a_dock_closed_and_opened_again_shows_what_was_done(gated, viewer, movie, qtbot):
    """A fit that runs meanwhile goes on; thresholds are those that were set."""
    widget, gate, layer = gated
    viewer.layers.selection.active = movie()
    fit_layer(widget, qtbot)
    type_number(qtbot, widget.plots.thresholds["hot"].field, "2.5")
    settle(widget, qtbot)
    fit, shown = widget.fit, names(viewer)
    viewer.layers.selection.active = layer
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    close(widget, viewer, qtbot)
    assert names(viewer) == shown
    again = OutlierPixels(viewer)
    viewer.window.add_dock_widget(again, name="Outliers")
    assert again.controls.running
    with qtbot.waitSignal(again.fitted):
        gate.opened.set()
    settle(again, qtbot)
    assert again.corrected.name == "gated corrected"
    viewer.layers.selection.active = movie()
    settle(again, qtbot)
    assert again.fit is fit
    assert again.plots.thresholds["hot"].field.value() == 2.5
    assert names(viewer).count("movie corrected") == 1


@pytest.mark.window
def test_a_window_may_be_closed_while_a_fit_runs(gated, viewer, qtbot):
    """No signal reaches what is no longer there."""
    widget, gate, _ = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    close(widget, viewer, qtbot)
    viewer.layers.clear()
    gate.opened.set()
    qtbot.waitUntil(lambda: not Job._running)


def test_a_fit_that_fails_says_why_in_plain_words(widget, viewer, qtbot):
    """And the next one may succeed."""
    normal = np.random.default_rng(1).normal(0, 1, (4, 64, 64)).astype(np.float32)
    viewer.add_image(normal, name="differences")
    assert isinstance(fit_layer(widget, qtbot), ValueError)
    assert palette(viewer.theme).error in widget.controls.status.styleSheet()
    choose(widget.options.fields["model"].native, "normal")
    choose(widget.options.fields["fill"].native, "expectation")
    assert isinstance(fit_layer(widget, qtbot), Fit)
    assert widget.controls.status.text() == ""
    choose(widget.options.fields["fill"].native, "sample")
    assert widget.options.fields["fill"].native.currentData() == "expectation"
    assert "not counts" in widget.controls.status.text()


def test_defaults_are_named(widget, viewer, qtbot):
    """Where the histogram has no tails."""
    noise = np.random.default_rng(1).poisson(4, (12, 64, 64)).astype(np.uint8)
    viewer.add_image(noise, name="noise")
    fit_layer(widget, qtbot)
    dark, hot = remarks(widget.fit)
    assert dark in widget.remark.text() and hot in widget.remark.text()
    assert widget.remark.isVisibleTo(widget)
    type_number(qtbot, widget.plots.thresholds["hot"].field, "4.5")
    assert dark in widget.remark.text() and hot not in widget.remark.text()


def test_what_has_no_outliers_says_why(widget, viewer):
    """In the tooltip of the button that cannot be pressed."""
    viewer.add_image(np.zeros((4, 5, 3), np.uint8), name="picture", rgb=True)
    assert not widget.controls.start_button.isEnabled()
    assert "RGB" in widget.controls.start_button.toolTip()


def test_other_choices_ask_for_another_fit(fitted, viewer, movie, qtbot):
    """Model, tail limit and gain; those that need none take effect at once."""
    assert fitted.remark.text() == ""
    choose(fitted.options.fields["model"].native, "normal")
    assert "press Fit again" in fitted.remark.text()
    assert palette(viewer.theme).warning in fitted.remark.styleSheet()
    fit_layer(fitted, qtbot)
    assert fitted.fit.current.options.model == "normal"
    assert "press Fit again" not in fitted.remark.text()


def test_options_are_explained_in_plain_words(widget):
    """What does nothing with the model that is chosen cannot be set, and says so."""
    fields = widget.options.fields
    assert not any('"' in field.tooltip or "=" in field.tooltip for field in fields.values())
    assert not fields["limit"].enabled
    assert "Only with Model: Gaussian" in fields["limit"].tooltip
    choose(fields["model"].native, "normal")
    assert fields["limit"].enabled


def test_a_gain_layer_is_taken(fitted, viewer, movie, qtbot):
    """One of the movie's shape; others are not offered."""
    viewer.add_image(np.ones((5, 5)), name="small")
    gain = np.ones((1, 96, 128), np.float32)
    gain[0, 50, 51] = 0
    viewer.add_image(gain, name="gain")
    viewer.layers.selection.active = movie()
    gains = fitted.gains
    assert [gains.itemText(i) for i in range(gains.count())] == ["none", "gain"]
    gains.activated.emit(1)
    assert fitted.remark.text() != ""
    fit_layer(fitted, qtbot)
    assert fitted.fit.current.n_defects == 1
    (said,) = remarks(fitted.fit)
    assert said in fitted.remark.text()


def test_known_defects_are_loaded_painted_and_replaced(fitted, viewer, movie, qtbot, tmp_path):
    """From a file, as labels that fit the movie; painting them asks for another fit."""
    (tmp_path / "defects.txt").write_text("30 40 2 3\n")
    viewer.add_labels(np.zeros((5, 5), np.uint8), name="small")
    fitted.open(str(tmp_path / "defects.txt"))
    qtbot.waitUntil(lambda: not fitted.load.running)
    picked = fitted.defects.layer
    assert picked is viewer.layers["defects.txt"]
    assert [fitted.defects.itemText(i) for i in range(2)] == ["none", "defects.txt"]
    assert "press Fit again" in fitted.remark.text()
    fit_layer(fitted, qtbot)
    assert fitted.fit.current.n_defects == 6
    assert "press Fit again" not in fitted.remark.text()
    picked.data_setitem((np.array([50]), np.array([51])), 1)
    assert "press Fit again" in fitted.remark.text()
    fit_layer(fitted, qtbot)
    assert (fitted.fit.current.mask == 2).sum() == 7
    assert (np.asarray(fitted.corrected.data)[:, 40:43, 30:32].mean()) > 2
    viewer.layers.remove(picked)
    assert "press Fit again" in fitted.remark.text()


def test_a_defect_file_of_another_camera_says_why(widget, movie, qtbot, tmp_path):
    (tmp_path / "defects.txt").write_text("900 40 2 3\n")
    widget.open(str(tmp_path / "defects.txt"))
    qtbot.waitUntil(lambda: not widget.load.running)
    assert "outside frames of (96, 128)" in widget.load.status.text()
    assert widget.defects.layer is None
    (tmp_path / "defects.txt").write_text("126 40 9 3\n")
    widget.open(str(tmp_path / "defects.txt"))
    qtbot.waitUntil(lambda: widget.defects.layer is not None)
    assert widget.load.status.text().startswith("6 defective pixels. ")
    assert "beyond frames of (96, 128) is cut off (line 1)" in widget.load.status.text()


def test_electrons_and_pedestal_may_be_given(fitted, movie, qtbot):
    """Each asks for another fit; at their least they are measured."""
    options = fitted.fit.current.options
    assert (options.counts_per_electron, options.pedestal) == (None, None)
    assert (
        fitted.options.fields["pedestal"].native.text()
        == fitted.options.fields["counts_per_electron"].native.text()
        == "measured"
    )
    type_number(qtbot, fitted.options.fields["pedestal"].native, "0")
    type_number(qtbot, fitted.options.fields["counts_per_electron"].native, "2")
    assert "press Fit again" in fitted.remark.text()
    fit_layer(fitted, qtbot)
    options = fitted.fit.current.options
    assert (options.counts_per_electron, options.pedestal) == (2, 0)


def test_the_frames_are_summed_once(fitted, viewer, qtbot, monkeypatch):
    """Another model of the same movie needs no other sum."""
    said = []
    real = model.fit_outliers

    def noted(stack, options, gain, report, **more):
        return real(stack, options, gain, lambda *a: said.append(a[0]), **more)

    monkeypatch.setattr("napari_mrcz.widgets.outliers.model.fit_outliers", noted)
    fit_layer(fitted, qtbot)
    assert model.FITTING in said
    assert model.SUMMING not in said


# Several layers -----------------------------------------------------------------------------------


def test_a_layer_s_fit_is_there_again_when_it_is_picked_again(fitted, viewer, movie, qtbot):
    """With the thresholds and the options that it had."""
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "2.5")
    type_number(qtbot, fitted.options.fields["order"].native, "9")
    fit = fitted.fit
    viewer.add_image(COUNTS[:6], name="other")
    assert fitted.fit is None
    assert cell(fitted, 1) == "\N{EN DASH}"
    assert not fitted.plots.thresholds["hot"].lines[0].isVisible()
    type_number(qtbot, fitted.options.fields["order"].native, "3")
    viewer.layers.selection.active = movie()
    assert fitted.fit is fit
    assert fitted.plots.thresholds["hot"].field.value() == 2.5
    assert fitted.options.fields["order"].native.value() == 9
    assert fitted.plots.thresholds["hot"].lines[0].value() == 2.5
    settle(fitted, qtbot)


def test_a_layer_removed_takes_its_fit_with_it(fitted, viewer, movie, qtbot, tmp_path):
    """Also in the middle of a preview; the corrected movie stays, as a movie like any other."""
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "2.5")
    corrected = fitted.corrected
    assert fitted.busy
    viewer.layers.remove(movie())
    assert names(viewer) == ["movie corrected"]
    assert fitted.layers.layer is corrected
    assert fitted.fit is None
    settle(fitted, qtbot)
    assert names(viewer) == ["movie corrected"]
    viewer.layers.clear()
    assert fitted.layers.layer is None
    assert fitted.controls.start_button.toolTip() == "Open or add a movie first."


def test_other_data_in_the_layer_end_its_fit(fitted, viewer, movie):
    """It was a fit of something else."""
    movie().data = COUNTS[:5]
    assert fitted.fit is None
    assert "movie outliers (σ)" not in names(viewer)


def test_a_series_of_volumes_keeps_its_axes(widget, viewer, qtbot):
    """Four axes stay four."""
    viewer.add_image(COUNTS.reshape(2, 12, 96, 128), name="series")
    fit = fit_layer(widget, qtbot)
    corrected = widget.corrected
    assert corrected.data.shape == (2, 12, 96, 128)
    np.testing.assert_array_equal(corrected.data[1, 3], fit.current(COUNTS[15], 15))


def test_a_single_image_can_be_corrected(widget, viewer, qtbot):
    """There is no correlated noise of one frame."""
    viewer.add_image(COUNTS.sum(axis=0), name="sum")
    fit = fit_layer(widget, qtbot)
    assert fit.kind(*HOT[0]) == 1
    assert widget.corrected.data.shape == (1, 96, 128)
    assert widget.noise.text() == "Correlated noise needs two frames."
