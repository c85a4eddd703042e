"""The Movie widget, driven as by hand: ranges, averages, view, spectrum, drift, parts."""

import weakref

import numpy as np
import pytest
from closing import close
from mouse import drag
from outliers_dock import choose, settle, type_number
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

import napari_mrcz as nm
from napari_mrcz.plugin.hooks import write_image
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.simulation import Specimen, simulate_movie
from napari_mrcz.widgets.movie.widget import MovieViewer

LEFT = Qt.MouseButton.LeftButton
SPECIMEN = Specimen(contrast=0.15)
MOVIE = simulate_movie(12, (96, 128), dose=3.0, drift=10.0, specimen=SPECIMEN, seed=1)
FRAMES, PIXEL = MOVIE.frames, MOVIE.pixel_size


@pytest.fixture
def movie(viewer, tmp_path):
    """Return what gives the layer of a movie opened from a file, and does not keep it open."""
    nm.write(tmp_path / "m.mrcz", FRAMES, pixel_size=PIXEL, metadata=MOVIE.describe())
    (layer,) = viewer.open(tmp_path / "m.mrcz", plugin="napari-mrcz")
    return weakref.ref(layer)


@pytest.fixture
def widget(viewer, movie, qtbot) -> MovieViewer:
    """Return the widget, docked, with the sum of the movie."""
    widget = MovieViewer(viewer)
    viewer.window.add_dock_widget(widget, name="Movie")
    settle(widget, qtbot)
    return widget


def total(start: int, stop: int) -> np.ndarray:
    return FRAMES[start:stop].sum(axis=0, dtype=np.int64)


def set_range(widget, qtbot, first: int, last: int) -> None:
    widget.choice.range.setValue((first, last))
    settle(widget, qtbot)


def hover(plot, x, y=0.0) -> None:
    """Move the mouse to a place of a plot, or out of it."""
    if x is None:
        QApplication.sendEvent(plot, QEvent(QEvent.Type.Leave))
        return
    scene = plot.getPlotItem().getViewBox().mapViewToScene(QPointF(x, y))
    at = QPointF(plot.mapFromScene(scene))
    move, none = QEvent.Type.MouseMove, Qt.MouseButton.NoButton
    event = QMouseEvent(move, at, plot.mapToGlobal(at), none, none, Qt.KeyboardModifier(0))
    QApplication.sendEvent(plot.viewport(), event)


def test_a_movie_is_its_sum_at_once(widget, viewer, movie):
    """Laid where the movie lies, which is hidden; nothing of the user's is changed."""
    picture, source = widget.picture, movie()
    np.testing.assert_array_equal(picture.data, total(0, 12))
    np.testing.assert_allclose(picture.scale, source.scale[1:])
    assert picture.units == source.units[1:]
    assert picture.visible and not source.visible
    assert picture.name == "m, sum"
    low, high = picture.contrast_limits
    assert 9 < low < total(0, 12).mean() < high < 90
    dose = 12 * 3 / PIXEL**2
    assert f"{dose:.3g} e⁻/Å²" in widget.info.text() and "0 to 11" in widget.info.text()


def test_the_picture_follows_the_range(widget, qtbot):
    """By number and by mouse; contrast is that of each sum; All brings back all."""
    before = widget.picture.contrast_limits
    set_range(widget, qtbot, 3, 4)
    np.testing.assert_array_equal(widget.picture.data, total(3, 5))
    assert widget.picture.contrast_limits[1] < before[1] / 2
    widget.show()
    slider = widget.choice.range._slider
    width, middle = slider.width(), slider.rect().center().y()
    start = QPoint(round(4.4 / 11 * width), middle)
    drag(slider, start, QPoint(width - 3, middle))
    settle(widget, qtbot)
    first, last = widget.choice.range.value()
    assert (first, last) != (3, 4)
    np.testing.assert_array_equal(widget.picture.data, total(first, last + 1))
    qtbot.mouseClick(widget.choice.all_button, LEFT)
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.picture.data, total(0, 12))


def test_an_average_follows_the_slider(widget, viewer, qtbot):
    choose(widget.choice.mode, "running")
    widget.choice.running.setValue(3)
    for at, (start, stop) in {0: (0, 3), 6: (5, 8), 11: (9, 12)}.items():
        viewer.dims.set_current_step(0, at)
        settle(widget, qtbot)
        np.testing.assert_allclose(widget.picture.data, total(start, stop) / 3, rtol=1e-6)
    assert widget.picture.name == "m, average"


def test_single_frames_are_the_movie_itself(widget, movie, viewer, qtbot):
    """So they are when the user takes the layer of the sum away."""
    choose(widget.choice.mode, "frames")
    assert widget.picture is None and movie().visible
    choose(widget.choice.mode, "sum")
    settle(widget, qtbot)
    assert not movie().visible
    viewer.layers.remove(widget.picture)
    qtbot.waitUntil(lambda: widget.choice.mode.currentData() == "frames")
    assert movie().visible


def test_the_next_movie_is_a_sum_again(widget, viewer, tmp_path, qtbot):
    """All that was of the last one is gone."""
    viewer.layers.clear()
    settle(widget, qtbot)
    assert widget.picture is None and "Open a movie" in widget.info.text()
    viewer.open(tmp_path / "m.mrcz", plugin="napari-mrcz")
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.picture.data, total(0, 12))


def test_the_sum_is_saved_as_any_image(widget, viewer, tmp_path, qtbot):
    """With the pixel size, and what it is a sum of."""
    set_range(widget, qtbot, 1, 4)
    state = widget.picture.as_layer_data_tuple()
    write_image(str(tmp_path / "sum.mrc"), *state[:2])
    with nm.open(tmp_path / "sum.mrc") as saved:
        np.testing.assert_array_equal(np.asarray(saved)[0], total(1, 5))
        assert saved.pixel_size[1:] == pytest.approx((PIXEL, PIXEL))
        assert saved.metadata["summed_frames"] == [1, 4]


def test_binning_and_low_pass_change_the_picture_alone(widget, qtbot):
    seen = widget.spectrum._found
    choose(widget.binning, 4)
    settle(widget, qtbot)
    picture = widget.picture
    binned = total(0, 12).reshape(24, 4, 32, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(picture.data, binned, rtol=1e-6)
    np.testing.assert_allclose(picture.scale, 4 * PIXEL)
    np.testing.assert_allclose(picture.translate, 1.5 * PIXEL)
    choose(widget.binning, 1)
    type_number(qtbot, widget.low_pass, "30")
    settle(widget, qtbot)
    assert widget.picture.data.shape == (96, 128)
    assert 0 < widget.picture.data.std() < total(0, 12).std() / 2
    np.testing.assert_array_equal(widget.spectrum._found.radial, seen.radial)


def test_automatic_binning_follows_the_zoom(widget, viewer, qtbot):
    viewer.scene.camera.zoom = 0.3 / PIXEL
    settle(widget, qtbot)
    assert widget.picture.data.shape == (48, 64)
    viewer.scene.camera.zoom = 2 / PIXEL
    settle(widget, qtbot)
    assert widget.picture.data.shape == (96, 128)


@pytest.mark.slow
def test_contrast_that_was_set_stays_while_the_length_of_the_range_does(widget, qtbot):
    set_range(widget, qtbot, 0, 5)
    widget.picture.contrast_limits = (1, 20)
    set_range(widget, qtbot, 2, 7)
    assert tuple(widget.picture.contrast_limits) == (1, 20)
    set_range(widget, qtbot, 2, 11)
    assert tuple(widget.picture.contrast_limits) != (1, 20)


def test_the_spectrum_tells_the_ring_under_the_mouse(widget, qtbot):
    """It follows the range, and is computed only while it is looked at."""
    found, view = widget.spectrum._found, widget.spectrum
    assert f"Nyquist {2 * PIXEL:.3g} Å" in view.told.text()
    view.show_ring(0.1)
    assert "Ring at 10 Å" in view.told.text() and "0.100 1/Å" in view.told.text()
    widget.show()
    for plot, at, frequency in ((view.average, (0.2, 0.5), 0.2), (view.picture, (0.06, 0.08), 0.1)):
        hover(plot, *at)
        assert view._line.isVisible()
        assert view._line.value() == pytest.approx(frequency, abs=0.01)
        hover(plot, None)
        assert "Ring" not in view.told.text()
    set_range(widget, qtbot, 2, 5)
    assert view._found is not found
    found = view._found
    widget.spectrum_section.button.click()
    set_range(widget, qtbot, 0, 11)
    assert view._found is found
    widget.spectrum_section.button.click()
    settle(widget, qtbot)
    assert view._found is not found


@pytest.fixture
def corrected(widget, viewer, movie, qtbot):
    """Return the widget with the movie corrected, as another layer."""
    stack = movie().data.apply(nm.OutlierFilter.fit(FRAMES))
    viewer.add_image(stack, name="clean", scale=movie().scale, units=movie().units, rgb=False)
    settle(widget, qtbot)
    return widget


def test_before_and_after_act_on_the_sum(corrected, viewer, movie, qtbot):
    after = corrected.picture.data
    assert corrected.layers.layer is viewer.layers["clean"]
    set_range(corrected, qtbot, 1, 6)
    qtbot.mouseClick(corrected.toggle_button, LEFT)
    settle(corrected, qtbot)
    assert corrected.layers.layer is movie()
    np.testing.assert_array_equal(corrected.picture.data, total(1, 7))
    corrected.toggle()
    settle(corrected, qtbot)
    clean = np.asarray(stack_of_layer(viewer.layers["clean"]))
    np.testing.assert_array_equal(corrected.picture.data, clean[1:7].sum(axis=0))
    assert not np.array_equal(after, total(0, 12))
    assert viewer.layers.index(corrected.picture) > viewer.layers.index(viewer.layers["clean"])


def test_a_sum_lies_above_a_corrected_movie_that_was_there_before(viewer, movie, qtbot):
    gain = nm.GainNormalization(np.ones(FRAMES.shape[1:], np.float32))
    viewer.add_image(movie().data.apply(gain), name="clean", rgb=False)
    viewer.layers.selection.active = movie()
    widget = MovieViewer(viewer)
    viewer.window.add_dock_widget(widget, name="Movie")
    settle(widget, qtbot)
    assert widget.layers.layer is movie()
    assert viewer.layers[-1] is widget.picture


def test_drift_is_estimated_shown_and_taken_out(corrected, viewer, qtbot):
    """Before and after the correction; the other plot is folded meanwhile."""
    corrected.drift_section.button.click()
    assert not corrected.spectrum_section.button.isChecked()
    corrected.drift.group.setValue(3)
    qtbot.mouseClick(corrected.drift.controls.start_button, LEFT)
    settle(corrected, qtbot)
    shown = corrected.work.drift
    true = MOVIE.drift.reshape(4, 3, 2).mean(axis=1)
    np.testing.assert_allclose(shown.found.shifts, true - true[0], atol=0.3)
    said = corrected.drift.told.text()
    assert "before the corrections" in said and f"±\u00a0{shown.found.error:.2g}" in said
    assert len(corrected.drift._path[1].getData()[0]) == 4
    qtbot.mouseClick(corrected.drift.aligned_button, LEFT)
    settle(corrected, qtbot)
    aligned = viewer.layers["clean, aligned sum"]
    np.testing.assert_array_equal(aligned.data, shown.found.aligned_sum())
    np.testing.assert_allclose(aligned.scale, viewer.layers["clean"].scale[1:])
    corrected.choice.range.setValue((0, 5))
    assert not aligned.visible  # else the range would seem to change nothing
    settle(corrected, qtbot)


def test_what_is_asked_next_cancels_a_drift(widget, qtbot):
    widget.drift.start()
    widget.drift.group.setValue(2)
    settle(widget, qtbot)
    assert len(widget.work.drift.found.shifts) == 6
    widget.drift.start()
    qtbot.mouseClick(widget.drift.controls.cancel_button, LEFT)
    settle(widget, qtbot)
    assert "Cancelled" in widget.drift.controls.status.text() or widget.work.drift is not None


def test_a_part_is_duplicated_lazily(widget, viewer, movie, qtbot):
    """The rectangle drawn, and the frames chosen; it is the next movie to be looked at."""
    set_range(widget, qtbot, 2, 7)
    qtbot.mouseClick(widget.part.draw_button, LEFT)
    settle(widget, qtbot)
    shapes = viewer.layers.selection.active
    assert shapes.mode == "add_rectangle"
    shapes.add_rectangles(np.array([[9.5, 19.5], [9.5, 79.5], [59.5, 79.5], [59.5, 19.5]]))
    qtbot.mouseClick(widget.part.duplicate_button, LEFT)
    settle(widget, qtbot)
    part = viewer.layers["m, frames 2 to 7"]
    assert isinstance(part.data, nm.Stack)
    np.testing.assert_array_equal(np.asarray(part.data), FRAMES[2:8, 10:60, 20:80])
    np.testing.assert_allclose(part.translate, [0, 10 * PIXEL, 20 * PIXEL])
    assert widget.layers.layer is part
    np.testing.assert_array_equal(widget.picture.data, total(2, 8)[10:60, 20:80])


def test_reading_is_shown_and_can_be_cancelled_and_started_again(viewer, movie, qtbot, monkeypatch):
    from napari_mrcz.widgets.movie import widget as module

    class Cancelling(module.FrameSums):
        def __init__(self, stack, report):
            widget.controls.cancel()
            super().__init__(stack, report)

    monkeypatch.setattr(module, "FrameSums", Cancelling)
    widget = MovieViewer(viewer)
    viewer.window.add_dock_widget(widget, name="Movie")
    settle(widget, qtbot)
    assert widget.picture is None and movie().visible
    monkeypatch.undo()
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.picture.data, total(0, 12))


def test_a_dock_that_is_closed_and_opened_again_finds_its_sums(widget, viewer, movie, qtbot):
    """And the one layer."""
    sums = widget.work.sums
    close(widget, viewer, qtbot)
    assert movie().visible and not viewer.layers["m, sum"].visible
    again = MovieViewer(viewer)
    viewer.window.add_dock_widget(again, name="Movie")
    settle(again, qtbot)
    assert again.work.sums is sums
    assert [layer.name for layer in viewer.layers] == ["m", "m, sum"]
    assert again.picture.visible and not movie().visible


def test_a_remote_movie_is_read_when_it_is_asked_for(viewer, qtbot):
    """All of it would travel."""
    remote = nm.Stack.from_array(FRAMES).described(path="https://example.org/m.mrcz")
    viewer.add_image(remote, name="far", contrast_limits=(0, 5), rgb=False)
    widget = MovieViewer(viewer)
    viewer.window.add_dock_widget(widget, name="Movie")
    settle(widget, qtbot)
    assert widget.picture is None and "remote" in widget.controls.status.text()
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.picture.data, total(0, 12))


@pytest.mark.slow
def test_sums_are_kept_of_two_movies_at_most(widget, viewer, qtbot):
    for number in range(3):
        viewer.add_image(FRAMES + np.uint8(number), name=str(number), scale=(1, 2, 2))
        settle(widget, qtbot)
    assert sum(work.sums is not None for work in widget.works) == 2
    viewer.layers.selection.active = viewer.layers["m"]
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.picture.data, total(0, 12))


def test_volumes_images_and_complex_pixels_are_no_movies(viewer, qtbot):
    widget = MovieViewer(viewer)
    viewer.add_image(np.ones((32, 32)))
    viewer.add_image(np.ones((2, 3, 32, 32)))
    viewer.add_image(np.ones((4, 32, 32, 3)), rgb=True)
    assert widget.layers.layer is None and not widget.busy
    assert "Open a movie" in widget.info.text()


def test_behind_another_tab_the_movie_is_seen_as_it_is(widget, viewer, movie, qtbot):
    """Other widgets work on its frames; the sum is there again when this one is."""
    dock = widget.parent()
    viewer.window._qt_window.show()
    qtbot.waitExposed(widget)
    dock.hide()
    assert movie().visible and not widget.picture.visible
    assert viewer.layers.selection.active is movie()
    dock.show()
    settle(widget, qtbot)
    assert not movie().visible and widget.picture.visible
