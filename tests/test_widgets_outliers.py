"""The "Outlier pixels" widget in a real window: fitting, dragging, typing, clicking, closing."""

import threading
import weakref

import numpy as np
import pytest
from gate import Gate
from mouse import drag_line
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QProgressBar,
    QScrollArea,
)
from test_widgets_outliers_model import DARK, HOT, counts

import napari_mrcz as nm
from napari_mrcz.correction import correlated_noise
from napari_mrcz.demo import dock_of
from napari_mrcz.widgets.base.theme import palette
from napari_mrcz.widgets.outliers import background, model
from napari_mrcz.widgets.outliers.model import Fit
from napari_mrcz.widgets.outliers.widget import OutlierPixels
from napari_mrcz.widgets.outliers.words import signed
from napari_mrcz.widgets.save_stack.widget import SaveStack

LEFT = Qt.MouseButton.LeftButton
COUNTS = counts()
PIXEL_SIZE = (0, 1.5, 1.5)


@pytest.fixture
def viewer(make_napari_viewer):
    """Return a viewer with a movie that was opened from a file."""
    return make_napari_viewer()


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
    viewer.window.add_dock_widget(widget, name="Outlier pixels")
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


def choose(combo, value) -> None:
    """Choose an entry of a list by what it stands for."""
    combo.setCurrentIndex(combo.findData(value))


def names(viewer) -> list[str]:
    """Return the layers' names, lowest first."""
    return [layer.name for layer in viewer.layers]


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
    for plot_lines, value in zip(widget.plots.lines.values(), limits[:2], strict=True):
        assert [line.value() for line in plot_lines] == [value, value]
        assert all(line.isVisible() for line in plot_lines)
        assert plot_lines[0].label.toPlainText() == f"{signed(value)} σ"
    assert widget.thresholds.hot.value() == pytest.approx(limits.hot, abs=0.005)
    assert widget.counts.cells[0][1].text() == str(fit.current.n_hot)
    assert names(viewer) == ["movie", "movie corrected", "movie outliers (σ)"]
    assert viewer.layers.selection.active is movie()
    assert widget.source.layers.layer is movie()


def test_layers_lie_on_the_movie_and_show_what_they_say(fitted, viewer, movie):
    """Scale and units are the movie's; frames are those that the filter makes."""
    layers = fitted.layers
    for layer in (layers.sigma, layers.corrected):
        np.testing.assert_array_equal(layer.scale[-2:], movie().scale[-2:])
        assert layer.units[-2:] == movie().units[-2:]
    np.testing.assert_array_equal(layers.sigma.data, fitted.fit.sigma)
    assert tuple(layers.sigma.contrast_limits) == fitted.fit.current.thresholds[:2]
    np.testing.assert_array_equal(layers.corrected.data[4], fitted.fit.current(COUNTS[4], 4))
    assert layers.corrected.contrast_limits == movie().contrast_limits
    assert layers.corrected.axis_labels == movie().axis_labels
    assert layers.corrected.visible and not movie().visible


def test_the_colours_say_hot_dark_and_good(fitted):
    """Orange, blue, and nothing between."""
    sigma = fitted.layers.sigma
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
    assert "10 of 24 frames" in fitted.noise.text()


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


def test_another_layer_in_the_middle_of_a_fit_cancels_it(gated, viewer, movie, qtbot):
    """And can be fitted then."""
    widget, gate, layer = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    viewer.layers.selection.active = movie()
    with qtbot.waitSignal(widget.fitted) as caught:
        gate.opened.set()
    assert caught.args == [None]
    assert names(viewer) == ["movie", "gated"]
    assert widget.source.layers.layer is movie()
    fit_layer(widget, qtbot)
    assert names(viewer) == ["movie", "movie corrected", "gated", "movie outliers (σ)"]
    viewer.layers.selection.active = layer
    assert widget.fit is None


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
    with qtbot.waitSignal(widget.fitted):
        gate.opened.set()
    settle(widget, qtbot)
    assert widget.fit is None
    assert "gated corrected" not in names(viewer)


def test_the_widget_may_be_closed_while_it_fits(gated, viewer, qtbot):
    """No signal reaches what is no longer there."""
    widget, gate, _ = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(gate.reached.is_set)
    close(widget, viewer, qtbot)
    gate.opened.set()


def test_a_fit_that_fails_says_why_in_plain_words(widget, viewer, qtbot):
    """And the next one may succeed."""
    normal = np.random.default_rng(1).normal(0, 1, (4, 64, 64)).astype(np.float32)
    viewer.add_image(normal, name="differences")
    assert isinstance(fit_layer(widget, qtbot), ValueError)
    assert "the normal model with the expected value as fill" in widget.controls.status.text()
    choose(widget.source.model, "normal")
    choose(widget.replacing.fill, "expectation")
    assert isinstance(fit_layer(widget, qtbot), Fit)
    assert widget.controls.status.text() == ""
    choose(widget.replacing.fill, "sample")
    assert widget.replacing.fill.currentData() == "expectation"
    assert "no counts" in widget.controls.status.text()


def test_defaults_are_named(widget, viewer, qtbot):
    """Where the histogram has no tails."""
    noise = np.random.default_rng(1).poisson(4, (12, 64, 64)).astype(np.uint8)
    viewer.add_image(noise, name="noise")
    fit_layer(widget, qtbot)
    assert "the dark threshold" in widget.remark.text()
    assert "the hot threshold" in widget.remark.text()
    assert widget.remark.isVisibleTo(widget)
    type_number(qtbot, widget.thresholds.hot, "4.5")
    assert "the hot threshold" not in widget.remark.text()


def test_what_has_no_outliers_says_why(widget, viewer):
    """In the tooltip of the button that cannot be pressed."""
    viewer.add_image(np.zeros((4, 5, 3), np.uint8), name="picture", rgb=True)
    assert not widget.controls.start_button.isEnabled()
    assert "RGB" in widget.controls.start_button.toolTip()


def test_other_choices_ask_for_another_fit(fitted, viewer, movie, qtbot):
    """Model, tail limit and gain; those that need none take effect at once."""
    assert fitted.remark.text() == ""
    choose(fitted.source.model, "normal")
    assert "press Fit again" in fitted.remark.text()
    assert palette(viewer.theme).warning in fitted.remark.styleSheet()
    fit_layer(fitted, qtbot)
    assert fitted.fit.current.options.model == "normal"
    assert "press Fit again" not in fitted.remark.text()


def test_a_gain_layer_is_taken(fitted, viewer, movie, qtbot):
    """One of the movie's shape; others are not offered."""
    viewer.add_image(np.ones((5, 5)), name="small")
    gain = np.ones((1, 96, 128), np.float32)
    gain[0, 50, 51] = 0
    viewer.add_image(gain, name="gain")
    viewer.layers.selection.active = movie()
    gains = fitted.source.gains
    assert [gains.itemText(i) for i in range(gains.count())] == ["none", "gain"]
    gains.activated.emit(1)
    assert "press Fit again" in fitted.remark.text()
    fit_layer(fitted, qtbot)
    assert fitted.fit.current.n_defects == 1
    assert "1 pixel has no usable gain" in fitted.remark.text()


def test_the_frames_are_summed_once(fitted, viewer, qtbot, monkeypatch):
    """Another model of the same movie needs no other sum."""
    said = []
    real = model.fit_outliers

    def noted(stack, options, gain, report):
        return real(stack, options, gain, lambda *a: said.append(a[0]))

    monkeypatch.setattr("napari_mrcz.widgets.outliers.widget.fit_outliers", noted)
    fit_layer(fitted, qtbot)
    assert model.FITTING in said
    assert model.SUMMING not in said


# Thresholds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("plot", ["cdf", "residual"])
@pytest.mark.parametrize(("side", "end"), [("hot", 2.0), ("dark", -2.0)])
def test_a_line_is_dragged_with_the_mouse(fitted, viewer, qtbot, plot, side, end):
    """Model, both lines, field, table, colours follow at once; the movie when it rests."""
    fitted.show()
    start = getattr(fitted.fit.current.thresholds, side)
    drag_line(getattr(fitted.plots, plot), start, end)
    now = getattr(fitted.fit.current.thresholds, side)
    assert now == pytest.approx(end, abs=0.15)
    assert [line.value() for line in fitted.plots.lines[side]] == [now, now]
    assert getattr(fitted.thresholds, side).value() == pytest.approx(now, abs=0.005)
    mask = fitted.fit.current.mask
    column, kind = (1, 1) if side == "hot" else (0, -1)
    assert fitted.counts.cells[0][column].text() == str(np.count_nonzero(mask == kind))
    assert tuple(fitted.layers.sigma.contrast_limits) == fitted.fit.current.thresholds[:2]
    assert "measuring" in fitted.noise.text()
    settle(fitted, qtbot)
    corrected = fitted.layers.corrected.data
    np.testing.assert_array_equal(corrected[7], fitted.fit.current(COUNTS[7], 7))
    assert "before" in fitted.noise.text()


def test_lines_do_not_cross(fitted, qtbot):
    """However far they are dragged or typed."""
    fitted.show()
    drag_line(fitted.plots.cdf, fitted.fit.current.thresholds.hot, -7.0)
    limits = fitted.fit.current.thresholds
    assert limits.dark < limits.hot
    type_number(qtbot, fitted.thresholds.dark, "50")
    limits = fitted.fit.current.thresholds
    assert limits.dark < limits.hot


def test_a_threshold_is_typed_and_stepped(fitted, qtbot):
    """The lines go there; a plot grows where it must."""
    type_number(qtbot, fitted.thresholds.hot, "12.5")
    assert fitted.fit.current.thresholds.hot == 12.5
    assert [line.value() for line in fitted.plots.lines["hot"]] == [12.5, 12.5]
    assert fitted.plots.cdf.getPlotItem().viewRange()[0][1] > 12.5
    assert fitted.plots._cdf_model.getData()[0].max() > 12.5
    qtbot.keyClick(fitted.thresholds.hot, Qt.Key.Key_Up)
    assert fitted.fit.current.thresholds.hot == pytest.approx(12.6)
    type_number(qtbot, fitted.thresholds.dark, "-3.25")
    assert fitted.fit.current.thresholds.dark == -3.25


def test_the_fit_s_thresholds_come_back(fitted, qtbot):
    """By the button, which can be pressed only then."""
    button, fit = fitted.buttons.reset_button, fitted.fit
    assert not button.isEnabled()
    type_number(qtbot, fitted.thresholds.hot, "2")
    assert button.isEnabled()
    qtbot.mouseClick(button, LEFT)
    assert fitted.fit.current.thresholds == fit.fitted.thresholds
    assert not button.isEnabled()
    assert fitted.plots.lines["hot"][0].value() == fit.fitted.thresholds.hot


def test_weights_and_fill_take_effect_at_once(fitted, qtbot):
    """The weight's curve, and the corrected movie."""
    type_number(qtbot, fitted.replacing.order, "1")
    type_number(qtbot, fitted.replacing.relaxation, "0.5")
    choose(fitted.replacing.fill, "expectation")
    options = fitted.fit.current.options
    assert (options.order, options.relaxation, options.fill) == (1.0, 0.5, "expectation")
    sigma, weight = fitted.plots._weight.getData()
    np.testing.assert_allclose(weight, fitted.fit.current.weight(sigma))
    settle(fitted, qtbot)
    assert fitted.layers.corrected.data.dtype == np.float32
    np.testing.assert_allclose(
        fitted.layers.corrected.data[3], fitted.fit.current(COUNTS[3], 3), rtol=1e-6
    )
    assert fitted.remark.text() == ""


# Before and after ---------------------------------------------------------------------------------


def test_before_and_after_by_button_and_key(fitted, viewer, movie, qtbot):
    """The button says what comes next."""
    button = fitted.buttons.toggle_button
    assert button.text() == "Show before"
    qtbot.mouseClick(button, LEFT)
    assert movie().visible and not fitted.layers.corrected.visible
    assert button.text() == "Show after"
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_B, Qt.KeyboardModifier.ShiftModifier)
    assert not movie().visible and fitted.layers.corrected.visible
    fitted.layers.corrected.visible = False
    assert button.text() == "Show after"


def test_both_look_alike(fitted, movie):
    """Contrast, gamma and colours of one are those of the other."""
    corrected = fitted.layers.corrected
    movie().contrast_limits = (1, 7)
    assert list(corrected.contrast_limits) == [1, 7]
    corrected.gamma = 0.7
    corrected.colormap = "magma"
    assert movie().gamma == 0.7
    assert movie().colormap.name == "magma"


def test_the_derived_layers_follow_the_movie(fitted, movie):
    """When its pixel size is mended."""
    movie().scale = (1, 2.5, 2.5)
    for layer in (fitted.layers.sigma, fitted.layers.corrected):
        assert list(layer.scale[-2:]) == [2.5, 2.5]


def test_the_colours_can_be_taken_off(fitted, qtbot):
    """To see what is beneath; by the button or in the layer list."""
    button, sigma = fitted.buttons.colour_button, fitted.layers.sigma
    assert button.isChecked()
    qtbot.mouseClick(button, LEFT)
    assert not sigma.visible
    sigma.visible = True
    assert button.isChecked()


def test_the_mask_comes_and_goes_on_demand(fitted, viewer, qtbot):
    """As labels, which follow the thresholds."""
    button = fitted.buttons.mask_button
    qtbot.mouseClick(button, LEFT)
    settle(fitted, qtbot)
    mask = fitted.layers.mask
    assert "movie outlier mask" in names(viewer)
    assert [mask.data[at] for at in HOT] == [1] * len(HOT)
    assert [mask.data[at] for at in DARK] == [2] * len(DARK)
    type_number(qtbot, fitted.thresholds.hot, "2")
    settle(fitted, qtbot)
    np.testing.assert_array_equal(mask.data == 1, fitted.fit.sigma > 2)
    qtbot.mouseClick(button, LEFT)
    assert "movie outlier mask" not in names(viewer)
    type_number(qtbot, fitted.thresholds.hot, "3")
    settle(fitted, qtbot)
    assert "movie outlier mask" not in names(viewer)


def test_a_mask_that_the_user_removes_is_no_longer_wanted(fitted, viewer, qtbot):
    """The button says so."""
    qtbot.mouseClick(fitted.buttons.mask_button, LEFT)
    settle(fitted, qtbot)
    viewer.layers.remove(fitted.layers.mask)
    assert not fitted.buttons.mask_button.isChecked()


def test_derived_layers_may_be_removed(fitted, viewer, movie, qtbot):
    """The movie is seen again; what follows makes the corrected one anew."""
    viewer.layers.remove(fitted.layers.corrected)
    assert movie().visible
    assert not fitted.buttons.save_button.isEnabled()
    viewer.layers.remove(fitted.layers.sigma)
    assert not fitted.buttons.colour_button.isEnabled()
    type_number(qtbot, fitted.thresholds.hot, "3")
    settle(fitted, qtbot)
    assert names(viewer) == ["movie", "movie corrected"]


# Clicks -------------------------------------------------------------------------------------------


def click_pixel(viewer, qtbot, movie, row: int, column: int) -> None:
    """Click where a pixel is seen."""
    getattr(viewer, "scene", viewer).camera.zoom = 4
    QApplication.processEvents()
    canvas = viewer.window._qt_viewer.canvas
    node = canvas.layer_to_visual[movie].node
    x, y = node.get_transform("visual", "canvas").map([column + 0.5, row + 0.5])[:2]
    qtbot.mouseClick(canvas.native, LEFT, pos=QPoint(round(x), round(y)))


def test_a_clicked_outlier_is_shown_through_the_frames(fitted, viewer, movie, qtbot):
    """Its counts, its sigma, its kind."""
    row, column = HOT[1]
    with qtbot.waitSignal(fitted.pixel_read) as caught:
        click_pixel(viewer, qtbot, movie(), row, column)
    (course,) = caught.args
    assert (course.row, course.column, course.kind) == (row, column, 1)
    frame, value = fitted.pixel._curves["hot"].getData()
    np.testing.assert_array_equal(value, COUNTS[:, row, column])
    np.testing.assert_array_equal(frame, np.arange(len(COUNTS)))
    assert f"Row {row}, column {column}: hot, {course.sigma:.2f} σ" in fitted.pixel.text.text()
    assert fitted.pixel.plot.isVisibleTo(fitted)


def test_a_click_outside_or_before_a_fit_does_nothing(widget, viewer, movie, qtbot):
    """No error, nothing to wait for."""
    click_pixel(viewer, qtbot, movie(), 20, 40)
    assert not widget.busy
    fit_layer(widget, qtbot)
    click_pixel(viewer, qtbot, movie(), -30, 40)
    viewer.dims.ndisplay = 3
    click_pixel(viewer, qtbot, movie(), 20, 40)
    assert not widget.busy
    assert not widget.pixel.plot.isVisibleTo(widget)


# Several layers -----------------------------------------------------------------------------------


def test_a_layer_s_fit_is_there_again_when_it_is_picked_again(fitted, viewer, movie, qtbot):
    """With the thresholds and the options that it had."""
    type_number(qtbot, fitted.thresholds.hot, "2.5")
    type_number(qtbot, fitted.replacing.order, "9")
    fit = fitted.fit
    viewer.add_image(COUNTS[:6], name="other")
    assert fitted.fit is None
    assert fitted.counts.cells[0][1].text() == "\N{EN DASH}"
    assert not fitted.plots.lines["hot"][0].isVisible()
    type_number(qtbot, fitted.replacing.order, "3")
    viewer.layers.selection.active = movie()
    assert fitted.fit is fit
    assert fitted.thresholds.hot.value() == 2.5
    assert fitted.replacing.order.value() == 9
    assert fitted.plots.lines["hot"][0].value() == 2.5
    settle(fitted, qtbot)


def test_a_layer_removed_takes_its_fit_with_it(fitted, viewer, movie, qtbot, tmp_path):
    """Also in the middle of a preview; the corrected movie stays, as a movie like any other."""
    type_number(qtbot, fitted.thresholds.hot, "2.5")
    corrected = fitted.layers.corrected
    assert fitted.busy
    viewer.layers.remove(movie())
    assert names(viewer) == ["movie corrected"]
    assert fitted.source.layers.layer is corrected
    assert fitted.fit is None
    settle(fitted, qtbot)
    assert names(viewer) == ["movie corrected"]
    viewer.layers.clear()
    assert fitted.source.layers.layer is None
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
    corrected = widget.layers.corrected
    assert corrected.data.shape == (2, 12, 96, 128)
    np.testing.assert_array_equal(corrected.data[1, 3], fit.current(COUNTS[15], 15))


def test_a_single_image_can_be_corrected(widget, viewer, qtbot):
    """There is no correlated noise of one frame."""
    viewer.add_image(COUNTS.sum(axis=0), name="sum")
    fit = fit_layer(widget, qtbot)
    assert fit.kind(*HOT[0]) == 1
    assert widget.layers.corrected.data.shape == (1, 96, 128)
    assert widget.noise.text() == "Correlated noise needs two frames."


# Saving -------------------------------------------------------------------------------------------


def test_the_corrected_movie_goes_to_save_stack(fitted, viewer, movie, qtbot, tmp_path):
    """The dock opens, with the corrected layer; the fit is still there after."""
    qtbot.mouseClick(fitted.buttons.save_button, LEFT)
    (save,) = (w for w in viewer.window.dock_widgets.values() if isinstance(w, SaveStack))
    assert save.form.layers.layer is fitted.layers.corrected
    assert fitted.source.layers.layer is movie()
    outliers_dock, save_dock = (dock_of(widget) for widget in (fitted, save))
    window = viewer.window._qt_window
    assert save_dock in window.tabifiedDockWidgets(outliers_dock)  # neither is squeezed
    save.form.set_path(str(tmp_path / "clean.mrcz"))
    qtbot.waitUntil(lambda: not save.busy)
    with qtbot.waitSignal(save.finished):
        qtbot.mouseClick(save.save_button, LEFT)
    with nm.open(tmp_path / "clean.mrcz") as back:
        np.testing.assert_array_equal(back[9], fitted.fit.current(COUNTS[9], 9))
        assert back.pixel_size == PIXEL_SIZE
        assert back.metadata == {"sample": "ice"}
        assert back.history[-1]["name"] == "OutlierFilter"
    viewer.layers.selection.active = movie()
    qtbot.mouseClick(fitted.buttons.save_button, LEFT)
    assert save.form.layers.layer is fitted.layers.corrected


# The window ---------------------------------------------------------------------------------------


def close(widget, viewer, qtbot) -> None:
    """Close the dock, and wait until the widget is gone."""
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))


def test_a_closed_widget_lets_go_of_the_viewer(fitted, viewer, movie, qtbot):
    """Key, clicks, layers."""
    corrected = fitted.layers.corrected
    n_callbacks = len(viewer.mouse_drag_callbacks)
    type_number(qtbot, fitted.thresholds.hot, "2.5")  # with a preview on its way
    close(fitted, viewer, qtbot)
    assert len(viewer.mouse_drag_callbacks) == n_callbacks - 1
    assert not viewer.keymap
    corrected.visible = False
    movie().contrast_limits = (1, 5)
    assert list(corrected.contrast_limits) != [1, 5]
    viewer.theme = "light"
    viewer.layers.clear()


def test_another_binding_of_the_key_comes_back(viewer, movie, qtbot):
    """When the widget is closed."""
    pressed = []
    viewer.bind_key("Shift-B", lambda viewer: pressed.append(True))
    widget = OutlierPixels(viewer)
    viewer.window.add_dock_widget(widget)
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_B, Qt.KeyboardModifier.ShiftModifier)
    assert pressed == []
    close(widget, viewer, qtbot)
    qtbot.keyClick(canvas, Qt.Key.Key_B, Qt.KeyboardModifier.ShiftModifier)
    assert pressed == [True]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_follow_the_theme(fitted, viewer, theme):
    """Of lines, curves and words."""
    viewer.theme = theme
    colours = palette(theme)
    assert fitted.plots.lines["hot"][0].pen.color().name() == colours.hot
    assert fitted.plots._weight.opts["pen"].color().name() == colours.accent
    assert colours.text in fitted.noise.styleSheet()


@pytest.mark.parametrize("width", [320, 600])
def test_it_fits_its_dock(fitted, width):
    """Nothing sticks out, and nothing is scrolled sideways."""
    fitted.resize(width, 700)
    area = fitted.findChild(QScrollArea)
    bar = area.verticalScrollBar().sizeHint().width()
    assert area.widget().minimumSizeHint().width() + bar <= width


def test_every_control_explains_itself(fitted):
    """By a tooltip; the plots too."""
    kinds = (QAbstractButton, QAbstractSpinBox, QComboBox, QProgressBar)
    controls = [c for kind in kinds for c in fitted.findChildren(kind)]
    parts = ("QDoubleSpinBox", "_Field", "QComboBox", "LayerPicker", "PlotItem", "QScrollArea")
    own = [
        c
        for c in controls
        if type(c.parent()).__name__ not in parts and not c.objectName().startswith("qt_")
    ]
    assert len(own) >= 14
    assert [c for c in own if not c.toolTip()] == []
    assert all(plot.toolTip() for plot in (fitted.plots.cdf, fitted.plots.residual))


def test_axes_have_names_and_units(fitted):
    """All of them."""
    labels = {
        fitted.plots.cdf: ("distance from the model (σ)", "cumulative fraction"),
        fitted.plots.residual: ("distance from the model (σ)", "residual (σ)"),
        fitted.pixel.plot: ("frame", "counts"),
    }
    for plot, (x, y) in labels.items():
        assert plot.getPlotItem().getAxis("bottom").labelText == x
        assert plot.getPlotItem().getAxis("left").labelText == y
    assert fitted.plots.residual.getPlotItem().getAxis("right").labelText == "weight w"


def test_the_first_labels_are_loaded_in_a_thread(fitted, qtbot, monkeypatch):
    """Else the window would wait for them."""
    threads = []
    monkeypatch.setattr(
        background, "get_labels_ready", lambda: threads.append(threading.current_thread())
    )
    qtbot.mouseClick(fitted.buttons.mask_button, LEFT)
    settle(fitted, qtbot)
    assert fitted.layers.mask is not None
    assert threads
    assert threading.main_thread() not in threads
