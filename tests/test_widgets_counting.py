"""The "Counting" widget in a viewer: fit, threshold, counts, points, closing."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import mouse
import numpy as np
import pytest
from closing import close
from gate import Gate
from qtpy.QtCore import Qt, QTimer

import napari_mrcz as nm
from napari_mrcz.plugin.layers import LateStack
from napari_mrcz.simulation import simulate_raw
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.counting import Counting, Fit, Gallery, fit_counting

LEFT = Qt.MouseButton.LeftButton
RAW = simulate_raw(8, (96, 128), dose=0.01, seed=1)


@pytest.fixture
def layer(viewer, tmp_path):
    """Return what gives the layer of a movie opened from a file, and does not keep it open."""
    nm.write(tmp_path / "raw.mrcz", RAW.frames, pixel_size=(0, 2, 2))
    (layer,) = viewer.open(tmp_path / "raw.mrcz", plugin="napari-mrcz")
    layer.translate = (0, 10, 20)
    viewer.dims.set_current_step(0, 2)
    return weakref.ref(layer)


@pytest.fixture
def widget(viewer, layer, qtbot) -> Counting:
    """Return the widget, docked."""
    widget = Counting(viewer)
    viewer.window.add_dock_widget(widget, name="Counting")
    return widget


@pytest.fixture(scope="module")
def known_fit() -> Fit:
    """Return the fit of the movie, for tests of what is done with it."""
    return fit_counting(nm.Stack.from_array(RAW.frames), lambda *step: None)


@pytest.fixture
def fitted(widget, qtbot, monkeypatch, known_fit) -> Counting:
    """Return the widget with the movie fitted, as it was before, and its counts shown."""
    monkeypatch.setattr(
        "napari_mrcz.widgets.counting.fit_counting",
        lambda stack, report, force: replace(known_fit, stack=stack),
    )
    with qtbot.waitSignal(widget._counting.returned):
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    return widget


def settle(widget, qtbot) -> None:
    """Wait until nothing is left to be computed."""
    qtbot.waitUntil(lambda: not widget.busy)


def type_threshold(widget, qtbot, text: str) -> None:
    """Type a threshold and press Enter."""
    widget.threshold.field.selectAll()
    qtbot.keyClicks(widget.threshold.field, text)
    qtbot.keyClick(widget.threshold.field, Qt.Key.Key_Enter)


@pytest.fixture
def gated(widget, viewer):
    """Return the widget, what holds back the movie that is picked, and its layer."""
    gate = Gate()
    stack = nm.Stack.from_array(RAW.frames).apply(gate)
    layer = viewer.add_image(stack, name="gated", contrast_limits=(80, 200))
    gate.closed = True
    yield widget, gate, layer
    gate.opened.set()


def test_a_fit_tells_dose_noise_and_spread_and_shows_single_electrons(widget, qtbot):
    fitted = widget
    with qtbot.waitSignal(widget._counting.returned):
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    dose = sum(map(len, RAW.positions)) / RAW.frames.size
    said = fitted.found.text()
    assert float(said.split()[0]) == pytest.approx(
        dose, rel=0.08
    )  # eight frames tell an offset badly
    assert fitted.fit.counting.background.noise == pytest.approx(6, rel=0.03)
    assert f"Noise {fitted.fit.counting.background.noise:.1f} grey values" in said
    assert fitted.threshold.field.value() == pytest.approx(fitted.fit.counting.threshold, abs=0.06)

    assert isinstance(fitted.fit, Fit)
    middle, number = fitted.fit.charge_histogram()
    assert middle[number[middle > 100].argmax() + np.count_nonzero(middle <= 100)] == pytest.approx(
        190, abs=60
    )
    middle, pixels = fitted.fit.values
    curve_at, curve = fitted.fit.noise_curve()
    quiet = np.isin(middle, curve_at[np.abs(curve_at) < 8])
    measured, expected = pixels[quiet].sum(), curve[np.abs(curve_at) < 8].sum()
    assert measured == pytest.approx(expected, rel=0.15)

    # Of single electrons, each in the middle of its patch.
    picture = fitted.fit.gallery
    assert picture.shape[0] == 39
    patches = np.isfinite(picture[::10, ::10])
    assert patches.T.reshape(-1)[: np.count_nonzero(patches)].all()
    assert np.count_nonzero(patches) > 40
    for y, x in ((0, 0), (3, 9)):
        patch = picture[10 * y : 10 * y + 9, 10 * x : 10 * x + 9]
        assert np.unravel_index(patch.argmax(), patch.shape) == (4, 4)


def test_the_layer_of_counts_is_what_the_library_counts(fitted, viewer, layer):
    counts = fitted.counts
    assert counts.name == "raw counts"
    wanted = fitted.fit.chosen(fitted.threshold.field.value(), 1)
    np.testing.assert_array_equal(counts.data[2], wanted(RAW.frames[2]))
    np.testing.assert_array_equal(counts.scale, layer().scale)
    np.testing.assert_array_equal(counts.translate, layer().translate)
    assert counts.units == layer().units
    assert viewer.layers.selection.active is layer()
    assert [fitted.layers.itemText(i) for i in range(fitted.layers.count())] == ["raw"]


@pytest.mark.parametrize(("index", "fine"), [(1, 2), (2, 4)])
def test_finer_counts_lie_where_the_movie_lies(fitted, qtbot, layer, index, fine):
    with qtbot.waitSignal(fitted._counting.returned):
        field = fitted.options.fields["super_resolution"].native
        field.setFocus()
        for _ in range(index):
            qtbot.keyClick(field, Qt.Key.Key_Down)
    counts = fitted.counts
    assert counts.data.shape == (8, 96 * fine, 128 * fine)
    np.testing.assert_allclose(counts.scale, (1, 2 / fine, 2 / fine))
    for corner in (0, 1):  # the outermost edges, half a pixel beyond the middles
        edges = [
            np.asarray(x.data_to_world((0, *(corner * n - 0.5 for n in x.data.shape[1:]))))
            for x in (counts, layer())
        ]
        np.testing.assert_allclose(*edges)


def test_a_threshold_that_is_typed_moves_the_line_and_counts_anew(fitted, qtbot):
    before = float(fitted.found.text().split()[0])
    with qtbot.waitSignal(fitted._counting.returned):
        type_threshold(fitted, qtbot, "200")
    assert fitted.threshold.lines[0].value() == 200
    assert float(fitted.found.text().split()[0]) == pytest.approx(before / 2, rel=0.15)
    wanted = fitted.fit.chosen(200, 1)(RAW.frames[2])
    np.testing.assert_array_equal(fitted.counts.data[2], wanted)
    assert fitted.counts.metadata["footer"]["history"][-1]["threshold"] == 200


def test_the_line_is_dragged_with_the_mouse(fitted, qtbot):
    before = fitted.threshold.field.value()
    with qtbot.waitSignal(fitted._counting.returned):
        mouse.drag_line(fitted.charges, before, 250)
    assert fitted.threshold.field.value() == pytest.approx(250, abs=15)
    assert fitted.threshold.field.value() != before
    settle(fitted, qtbot)
    history = fitted.counts.metadata["footer"]["history"]
    assert history[-1]["threshold"] == fitted.threshold.field.value()


def test_electrons_of_the_frame_that_is_shown_are_marked(fitted, qtbot, viewer, layer):
    for frame in (2, 5):
        viewer.dims.set_current_step(0, frame)
        with qtbot.waitSignal(fitted._marking.returned):
            qtbot.mouseClick(fitted.mark_button, LEFT)
        points = fitted.derived("electrons")
        events = fitted.fit.chosen(fitted.threshold.field.value(), 1).events(RAW.frames[frame])
        np.testing.assert_allclose(points.data[:, 1:], np.stack([events.y, events.x], 1))
        assert set(points.data[:, 0]) == {frame}
        np.testing.assert_array_equal(points.scale, layer().scale)
        np.testing.assert_array_equal(points.translate, layer().translate)
    assert [x.name for x in viewer.layers] == ["raw", "raw counts", "raw electrons"]
    viewer.layers.remove(points)
    with qtbot.waitSignal(fitted._marking.returned):
        qtbot.mouseClick(fitted.mark_button, LEFT)
    assert "raw electrons" in viewer.layers


def test_the_layer_of_counts_goes_and_comes(fitted, qtbot, viewer):
    fitted.preview.click()
    assert fitted.counts is None
    with qtbot.waitSignal(fitted._counting.returned):
        fitted.preview.click()
    viewer.layers.remove(fitted.counts)
    assert not fitted.preview.isChecked()
    assert [x.name for x in viewer.layers] == ["raw"]


@pytest.mark.window
def test_a_frame_that_is_stepped_to_is_counted_without_the_window_waiting(
    fitted, qtbot, viewer, layer
):
    """Blank first; then what the library counts, also when the dock is closed."""
    counts, counting, blank = fitted.counts, fitted.fit.counting, []

    def step(frame: int) -> None:
        viewer.dims.set_current_step(0, frame)
        blank.append(counts._slice.image.raw)

    for frame in (6, 7):
        QTimer.singleShot(0, partial(step, frame))  # as the user does, not a script
        expected = nm.count_electrons(layer().data, counting=counting)[frame]
        assert expected.any()
        qtbot.waitUntil(lambda: len(blank) and counts._slice.image.raw.any())
        np.testing.assert_array_equal(counts._slice.image.raw, expected)
        assert blank.pop().shape == (96, 128)
        if frame == 6:
            close(fitted, viewer, qtbot)


class Damaged:
    """Cannot give frame 5."""

    def __call__(self, frame: np.ndarray, index: int) -> np.ndarray:
        """Return the frame, or raise as a damaged file does."""
        if index == 5:
            raise nm.MrczError(None, "its checksum is wrong", frame=index)
        return frame

    def describe(self) -> dict[str, str]:
        """Return an empty description."""
        return {}


def test_a_damaged_frame_stays_blank():
    """It is not asked for again and again."""
    late = LateStack.of(nm.Stack.from_array(RAW.frames).apply(Damaged()))
    wanted = []
    late.wanted = lambda stack, frame: wanted.append(frame)
    everything = slice(None)
    shown = slice(5, 6), everything, everything
    assert not late[shown].any()
    with ThreadPoolExecutor(1) as pool, pytest.warns(nm.MrczWarning, match="shown blank"):
        pool.submit(late.__getitem__, 5).result()
    assert not late[shown].any()
    assert late[shown].shape == (1, *RAW.frames.shape[1:])
    assert wanted == [5]


def test_what_is_computed_with_the_counts_waits_for_them(fitted, layer):
    """Only the picture is blank for a moment: sums and saved files are not."""
    counts = nm.count_electrons(layer().data, counting=fitted.fit.counting)
    data = fitted.counts.data
    for key in (7, slice(4, 7), (slice(None), slice(10, 20), 3)):
        np.testing.assert_array_equal(data[key], np.asarray(counts)[key])
    np.testing.assert_array_equal(np.asarray(data), np.asarray(counts))


def test_turned_axes_show_the_frames_that_are_there(fitted, viewer):
    """All of them would be counted at once, and the window would wait."""
    data = fitted.counts.data
    there = [frame for frame in range(len(data)) if data._cache.peek(frame) is not None]
    assert 0 < len(there) < len(data)
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 40)
    shown = fitted.counts._slice.image.raw
    counted = {frame: data._cache.peek(frame)[40] for frame in there}
    for frame in range(len(data)):
        np.testing.assert_array_equal(shown[frame], counted.get(frame, 0))


def test_counts_that_outlive_the_widget_are_counted_where_they_are_looked_at(
    fitted, viewer, qtbot, layer
):
    """The layer stays, and is like any other."""
    counts, counting = fitted.counts, fitted.fit.counting
    close(fitted, viewer, qtbot)
    viewer.dims.set_current_step(0, 5)
    expected = nm.count_electrons(layer().data, counting=counting)[5]
    np.testing.assert_array_equal(counts._slice.image.raw, expected)


@pytest.mark.parametrize("width", [290, 580])
def test_the_gallery_is_as_wide_as_there_is_room(qtbot, width):
    """With whole patches, of the same size; all columns that there are at the most."""
    gallery = Gallery()
    qtbot.addWidget(gallery)
    gallery.show()
    gallery.resize(width, gallery.height())
    gallery.show_picture(np.ones((39, 399), np.float32))
    shown = gallery.pixmap()
    assert shown.height() == pytest.approx(gallery.height(), abs=6)
    assert width - 20 < shown.width() <= width
    gallery.resize(870 - width, gallery.height())
    assert gallery.pixmap().width() == pytest.approx(870 - width, abs=20)
    gallery.show_picture(np.ones((39, 99), np.float32))
    assert gallery.pixmap().width() <= 300


def test_counts_follow_the_movie_when_it_is_moved(fitted, layer):
    layer().translate = (0, -5, 7)
    layer().name = "other"
    np.testing.assert_array_equal(fitted.counts.translate, layer().translate)


def test_a_movie_that_is_removed_takes_fit_and_counts_with_it(fitted, viewer, layer):
    viewer.layers.remove(layer())
    assert fitted.fit is None
    assert fitted.counts is None
    assert not fitted.mark_button.isEnabled()
    assert not fitted.controls.start_button.isEnabled()
    assert "Fit a movie" in fitted.found.text()


def test_other_data_in_the_layer_are_fitted_anew(fitted, layer):
    layer().data = nm.Stack.from_array(RAW.frames[:5])
    assert fitted.fit is None
    assert fitted.counts is None


def test_frames_without_electrons_are_told_of(widget, viewer, qtbot):
    noise = np.random.default_rng(0).normal(100, 6, (5, 64, 64)).astype(np.float32)
    viewer.add_image(nm.Stack.from_array(noise), name="noise")
    with qtbot.waitSignal(widget.fitted) as caught:
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    assert isinstance(caught.args[0], ValueError)
    assert "Nothing in these frames looks like" in widget.controls.status.text()


def test_a_movie_counted_already_is_fitted_on_request_and_the_warning_stays(widget, viewer, qtbot):
    counts = np.random.default_rng(0).poisson(1, (5, 64, 64)).astype(np.uint8)
    viewer.add_image(nm.Stack.from_array(counts), name="counts")
    assert widget.force.isHidden()
    with qtbot.waitSignal(widget.fitted):
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    assert widget.fit is None
    assert not widget.force.isHidden()
    widget.force.click()
    with qtbot.waitSignal(widget.fitted):
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    assert widget.remark.text() == "\n".join(widget.fit.counting.warnings)
    assert "counted already" in widget.remark.text()
    assert not widget.remark.isHidden()
    settle(widget, qtbot)
    viewer.layers.selection.active = viewer.layers["raw"]
    assert widget.remark.isHidden()
    assert widget.force.isHidden()


def test_a_single_image_cannot_be_fitted(widget, viewer):
    viewer.add_image(RAW.frames[0], name="image")
    assert not widget.controls.start_button.isEnabled()
    assert "frames, rows and columns" in widget.controls.start_button.toolTip()


def test_a_fit_is_cancelled(gated, qtbot):
    widget, gate, _ = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    assert gate.reached.wait(20)
    with qtbot.waitSignal(widget.fitted) as caught:
        qtbot.mouseClick(widget.controls.cancel_button, LEFT)
        gate.opened.set()
    assert caught.args[0] is None
    assert widget.fit is None
    assert widget.controls.start_button.isEnabled()


def test_a_fit_says_what_it_does_and_how_far_it_is():
    """Every step of a known number, and no more frames than the movie has."""
    told = []
    fit_counting(nm.Stack.from_array(RAW.frames), lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == [
        "Reading for medians, frame",
        "Measuring offsets, frame",
        *(f"Finding electrons, round {k} of 3, frame" for k in (1, 2, 3)),
        "Adding up charges, frame",
    ]
    for stage in stages:
        done, total = zip(*[step[1:] for step in told if step[0] == stage], strict=True)
        assert list(done) == list(range(1, total[0] + 1))
        assert set(total) == {total[0]}
        assert total[0] <= len(RAW.frames)


def test_a_movie_that_is_removed_while_it_is_fitted_is_not_shown(gated, qtbot, viewer):
    widget, gate, layer = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    assert gate.reached.wait(20)
    with qtbot.waitSignal(widget.fitted) as caught:
        viewer.layers.remove(layer)
        gate.opened.set()
    assert caught.args[0] is None
    assert widget.fit is None
    assert [x.name for x in viewer.layers] == ["raw"]


def test_the_widget_is_closed_while_a_fit_runs(gated, qtbot, viewer):
    widget, gate, _ = gated
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    assert gate.reached.wait(20)
    close(widget, viewer, qtbot)
    gate.opened.set()


def test_plots_follow_the_theme(fitted, viewer):
    viewer.theme = "light"
    colour = fitted.charges.getPlotItem().getAxis("left").textPen().color().name()
    assert colour == palette("light").text
