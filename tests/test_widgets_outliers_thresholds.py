"""The "Outliers" widget after a fit: thresholds, before and after, clicks, saving, looks."""

import threading

import numpy as np
import pytest
from closing import close
from mouse import drag_line
from outliers_dock import (
    COUNTS,
    LEFT,
    PIXEL_SIZE,
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
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QApplication,
)
from test_widgets_outliers_model import DARK, HOT

import napari_mrcz as nm
from napari_mrcz.plugin.demo import dock_of
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.outliers import widget as dock
from napari_mrcz.widgets.outliers.widget import OutlierPixels
from napari_mrcz.widgets.save_stack.widget import SaveStack

# Fixtures, which pytest finds by their names here.
__all__ = ["fitted", "movie", "widget"]


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
    assert [line.value() for line in fitted.plots.thresholds[side].lines] == [now, now]
    assert fitted.plots.thresholds[side].field.value() == pytest.approx(now, abs=0.005)
    mask = fitted.fit.current.mask
    column, kind = (2, 1) if side == "hot" else (1, -1)
    assert cell(fitted, column) == str(np.count_nonzero(mask == kind))
    assert tuple(fitted.derived("sigma").contrast_limits) == fitted.fit.current.thresholds[:2]
    assert "measuring" in fitted.noise.text()
    settle(fitted, qtbot)
    corrected = fitted.corrected.data
    np.testing.assert_array_equal(corrected[7], fitted.fit.current(COUNTS[7], 7))
    assert "before" in fitted.noise.text()


def test_counts_are_copied_with_their_headings(fitted, viewer, qtbot):
    viewer.window._qt_window.show()
    copy, _ = fitted.counts.actions()
    copy.trigger()
    qtbot.waitUntil(lambda: QApplication.clipboard().text().startswith("outliers"))
    head, *rows = QApplication.clipboard().text().splitlines()
    assert head == "outliers\tdark\thot\tboth"
    assert [len(row.split("\t")) for row in rows] == [4] * 3


def test_lines_do_not_cross(fitted, qtbot):
    """However far they are dragged or typed."""
    fitted.show()
    drag_line(fitted.plots.cdf, fitted.fit.current.thresholds.hot, -7.0)
    limits = fitted.fit.current.thresholds
    assert limits.dark < limits.hot
    type_number(qtbot, fitted.plots.thresholds["dark"].field, "50")
    limits = fitted.fit.current.thresholds
    assert limits.dark < limits.hot


def test_a_threshold_is_typed_and_stepped(fitted, qtbot):
    """The lines go there; a plot grows where it must."""
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "12.5")
    assert fitted.fit.current.thresholds.hot == 12.5
    assert [line.value() for line in fitted.plots.thresholds["hot"].lines] == [12.5, 12.5]
    assert fitted.plots.cdf.getPlotItem().viewRange()[0][1] > 12.5
    assert fitted.plots._model.getData()[0].max() > 12.5
    qtbot.keyClick(fitted.plots.thresholds["hot"].field, Qt.Key.Key_Up)
    assert fitted.fit.current.thresholds.hot == pytest.approx(12.6)
    type_number(qtbot, fitted.plots.thresholds["dark"].field, "-3.25")
    assert fitted.fit.current.thresholds.dark == -3.25


def test_the_fit_s_thresholds_come_back(fitted, qtbot):
    """By the button, which can be pressed only then."""
    button, fit = fitted.reset_button, fitted.fit
    assert not button.isEnabled()
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "2")
    assert button.isEnabled()
    qtbot.mouseClick(button, LEFT)
    assert fitted.fit.current.thresholds == fit.fitted.thresholds
    assert not button.isEnabled()
    assert fitted.plots.thresholds["hot"].lines[0].value() == fit.fitted.thresholds.hot


def test_a_change_is_taken_back_by_ctrl_z(fitted, viewer, qtbot):
    """A drag is one change; in a field, too."""
    found = fitted.fit
    drag_line(fitted.plots.residual, found.current.thresholds.hot, 6.0)
    dragged = fitted.fit.current.thresholds.hot
    viewer.window._qt_window.show()
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "2")
    ctrl = Qt.KeyboardModifier.ControlModifier
    qtbot.keyClick(fitted.plots.thresholds["hot"].field, Qt.Key.Key_Z, ctrl)
    assert fitted.fit.current.thresholds.hot == dragged != 2
    assert fitted.plots.thresholds["hot"].field.value() == pytest.approx(dragged, abs=0.005)
    qtbot.keyClick(fitted.plots.thresholds["hot"].field, Qt.Key.Key_Z, ctrl)
    qtbot.keyClick(fitted.plots.thresholds["hot"].field, Qt.Key.Key_Z, ctrl)
    assert fitted.fit is found
    settle(fitted, qtbot)


def test_weights_and_fill_take_effect_at_once(fitted, qtbot):
    """The weight's curve, and the corrected movie."""
    type_number(qtbot, fitted.options.fields["order"].native, "1")
    type_number(qtbot, fitted.options.fields["relaxation"].native, "0.5")
    choose(fitted.options.fields["fill"].native, "expectation")
    options = fitted.fit.current.options
    assert (options.order, options.relaxation, options.fill) == (1.0, 0.5, "expectation")
    sigma, weight = fitted.plots._weight.getData()
    np.testing.assert_allclose(weight, fitted.fit.current.weight(sigma))
    settle(fitted, qtbot)
    assert fitted.corrected.data.dtype == np.float32
    np.testing.assert_allclose(
        fitted.corrected.data[3], fitted.fit.current(COUNTS[3], 3), rtol=1e-6
    )
    assert fitted.remark.text() == ""


# Before and after ---------------------------------------------------------------------------------


def test_warnings_do_not_move_the_plot_under_a_drag(fitted):
    fitted.show()
    before, seen = fitted.remark.text(), []
    for line in fitted.plots.thresholds["hot"].lines:
        line.sigPositionChanged.connect(lambda: seen.append(fitted.remark.text()))
    drag_line(fitted.plots.residual, fitted.fit.current.thresholds.hot, 0.5)
    assert seen and set(seen) == {before}
    assert fitted.remark.text() not in seen


@pytest.mark.window
def test_before_and_after_by_button_and_key(fitted, viewer, movie, qtbot):
    """The button says what comes next."""
    button = fitted.toggle_button
    assert button.text() == "Show before"
    qtbot.mouseClick(button, LEFT)
    assert movie().visible and not fitted.corrected.visible
    assert button.text() == "Show after"
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_B, Qt.KeyboardModifier.ShiftModifier)
    assert not movie().visible and fitted.corrected.visible
    fitted.corrected.visible = False
    assert button.text() == "Show after"


def test_both_look_alike(fitted, movie):
    """Contrast, gamma and colours of one are those of the other."""
    corrected = fitted.corrected
    movie().contrast_limits = (1, 7)
    assert list(corrected.contrast_limits) == [1, 7]
    corrected.gamma = 0.7
    corrected.colormap = "magma"
    assert movie().gamma == 0.7
    assert movie().colormap.name == "magma"


def test_the_derived_layers_follow_the_movie(fitted, movie):
    """When its pixel size is mended."""
    movie().scale = (1, 2.5, 2.5)
    for layer in (fitted.derived("sigma"), fitted.corrected):
        assert list(layer.scale[-2:]) == [2.5, 2.5]


def test_the_colours_can_be_taken_off(fitted, qtbot):
    """To see what is beneath; by the button or in the layer list. They come with the next fit."""
    button, sigma = fitted.colour_button, fitted.derived("sigma")
    assert button.isChecked()
    qtbot.mouseClick(button, LEFT)
    assert not sigma.visible
    sigma.visible = True
    assert button.isChecked()
    qtbot.mouseClick(button, LEFT)
    qtbot.mouseClick(fitted.controls.start_button, LEFT)
    settle(fitted, qtbot)
    assert sigma.visible


def test_the_mask_comes_and_goes_on_demand(fitted, viewer, qtbot):
    """As labels, which follow the thresholds."""
    button = fitted.mask_button
    qtbot.mouseClick(button, LEFT)
    settle(fitted, qtbot)
    mask = fitted.derived("mask")
    assert "movie outlier mask" in names(viewer)
    assert [mask.data[at] for at in HOT] == [1] * len(HOT)
    assert [mask.data[at] for at in DARK] == [2] * len(DARK)
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "2")
    settle(fitted, qtbot)
    np.testing.assert_array_equal(mask.data == 1, fitted.fit.sigma > 2)
    qtbot.mouseClick(button, LEFT)
    assert "movie outlier mask" not in names(viewer)
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "3")
    settle(fitted, qtbot)
    assert "movie outlier mask" not in names(viewer)


def test_a_mask_that_the_user_removes_is_no_longer_wanted(fitted, viewer, qtbot):
    """The button says so."""
    qtbot.mouseClick(fitted.mask_button, LEFT)
    settle(fitted, qtbot)
    viewer.layers.remove(fitted.derived("mask"))
    assert not fitted.mask_button.isChecked()


def test_derived_layers_may_be_removed(fitted, viewer, movie, qtbot):
    """The movie is seen again; what follows makes the corrected one anew."""
    viewer.layers.remove(fitted.corrected)
    assert movie().visible
    assert not fitted.save_button.isEnabled()
    viewer.layers.remove(fitted.derived("sigma"))
    assert not fitted.colour_button.isEnabled()
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "3")
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


@pytest.mark.window
def test_a_clicked_outlier_is_shown_through_the_frames(widget, viewer, movie, qtbot):
    """Its counts, its sigma, its kind. Clicks outside, before a fit or in 3D do nothing."""
    fitted, (row, column) = widget, HOT[1]
    click_pixel(viewer, qtbot, movie(), row, column)
    assert not widget.busy
    fit_layer(widget, qtbot)
    click_pixel(viewer, qtbot, movie(), -30, 40)
    viewer.dims.ndisplay = 3
    click_pixel(viewer, qtbot, movie(), row, column)
    assert not widget.busy
    assert not widget.course.isVisibleTo(widget)
    viewer.dims.ndisplay = 2
    with qtbot.waitSignal(fitted._pixels.returned) as caught:
        click_pixel(viewer, qtbot, movie(), row, column)
    (course,) = caught.args
    assert (course.row, course.column, course.kind) == (row, column, 1)
    frame, value = fitted._courses["hot"].getData()
    np.testing.assert_array_equal(value, COUNTS[:, row, column])
    np.testing.assert_array_equal(frame, np.arange(len(COUNTS)))
    assert f"Row {row}, column {column}: hot, {course.sigma:.2f} σ" in fitted.pixel.text()
    assert fitted.course.isVisibleTo(fitted)


# Saving -------------------------------------------------------------------------------------------


@pytest.mark.window
def test_the_corrected_movie_goes_to_save_stack(fitted, viewer, movie, qtbot, tmp_path):
    """The dock opens, with the corrected layer; the fit is still there after."""
    qtbot.mouseClick(fitted.save_button, LEFT)
    (save,) = (w for w in viewer.window.dock_widgets.values() if isinstance(w, SaveStack))
    assert save.form.layers.layer is fitted.corrected
    assert fitted.layers.layer is movie()
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
    qtbot.mouseClick(fitted.save_button, LEFT)
    assert save.form.layers.layer is fitted.corrected


# The window ---------------------------------------------------------------------------------------


@pytest.mark.window
def test_a_closed_widget_lets_go_of_the_viewer(fitted, viewer, movie, qtbot):
    """Key, clicks, layers."""
    corrected = fitted.corrected
    n_callbacks = len(viewer.mouse_drag_callbacks)
    type_number(qtbot, fitted.plots.thresholds["hot"].field, "2.5")  # with a preview on its way
    close(fitted, viewer, qtbot)
    assert len(viewer.mouse_drag_callbacks) == n_callbacks - 1
    assert not viewer.keymap
    corrected.visible = False  # nothing of the widget is called
    viewer.theme = "light"
    viewer.layers.clear()


@pytest.mark.window
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


def test_colours_follow_the_theme(fitted, viewer):
    """Of lines, curves and words."""
    for theme in ("light", "dark"):
        viewer.theme = theme
        colours = palette(theme)
        assert fitted.plots.thresholds["hot"].lines[0].pen.color().name() == colours.hot
        assert fitted.plots._weight.opts["pen"].color().name() == colours.accent
        assert colours.text in fitted.noise.styleSheet()


def test_axes_have_names_and_units(fitted):
    """All of them."""
    labels = {
        fitted.plots.cdf: ("distance from the model (σ)", "cumulative fraction"),
        fitted.plots.residual: ("distance from the model (σ)", "residual (σ)"),
        fitted.course: ("frame", "counts"),
    }
    for plot, (x, y) in labels.items():
        assert plot.getPlotItem().getAxis("bottom").labelText == x
        assert plot.getPlotItem().getAxis("left").labelText == y
    assert fitted.plots.residual.getPlotItem().getAxis("right").labelText == "weight w"


def test_the_first_labels_are_loaded_in_a_thread(fitted, qtbot, monkeypatch):
    """Else the window would wait for them."""
    threads = []
    monkeypatch.setattr(
        dock, "get_labels_ready", lambda: threads.append(threading.current_thread())
    )
    qtbot.mouseClick(fitted.mask_button, LEFT)
    settle(fitted, qtbot)
    assert fitted.derived("mask") is not None
    assert threads
    assert threading.main_thread() not in threads
