"""The Gain reference widget in a viewer: its reference, orientation and γ, chosen or found."""

import json

import numpy as np
import pytest
from gain_dock import (
    GAIN,
    LEFT,
    MOVIE,
    choose_file,
    click,
    files,
    gated,
    loaded,
    settle,
    type_into,
    widget,
)
from mouse import drag as drag_mouse
from mouse import dragged, drop
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt
from qtpy.QtGui import QDragEnterEvent
from qtpy.QtWidgets import QApplication

import napari_mrcz as nm
from napari_mrcz.correction import PREPRINT_GAMMA, GainNormalization, orient
from napari_mrcz.simulation import Camera, simulate_flats
from napari_mrcz.stack.references import write_defects
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.gain.widget import GainReference

# Fixtures, which pytest finds by their names here.
__all__ = ["files", "gated", "loaded", "widget"]


def shown(widget: GainReference, frame: int) -> np.ndarray:
    """Return a frame of the preview."""
    return widget.preview.data[frame]


class TestReferences:
    """Choosing, dropping, taking and making one."""

    def test_the_file_dialog_reads_one_and_the_movie_is_normalised(
        self, widget, qtbot, files, monkeypatch
    ):
        """As a lazy layer over the raw one."""
        assert widget.references.summary.text() == widget.choice.problem() != ""
        assert not widget.controls.start_button.isEnabled()
        choose_file(monkeypatch, files / "gain.mrc")
        click(qtbot, widget.references.controls.start_button)
        settle(qtbot, widget)
        assert "gain.mrc: 128 × 128" in widget.references.summary.text()
        assert "Fits the frames of 128 × 128." in widget.references.summary.text()
        expected = GainNormalization(np.flipud(GAIN))
        np.testing.assert_array_equal(shown(widget, 7), expected(MOVIE[7]))

    def test_the_preview_lies_where_the_movie_lies(self, loaded, viewer):
        """And the movie stays the one that is picked and selected."""
        raw, preview = viewer.layers[0], loaded.preview
        assert preview.name == "movie, normalised"
        assert [str(u) for u in preview.units] == [str(u) for u in raw.units]
        np.testing.assert_array_equal(preview.scale, raw.scale)
        np.testing.assert_array_equal(preview.translate, raw.translate)
        assert loaded.layers.layer is raw
        assert viewer.layers.selection.active is raw
        assert [loaded.layers.itemText(i) for i in range(loaded.layers.count())] == ["movie"]

    def test_a_dropped_list_of_defects_is_told_from_a_reference(self, widget, qtbot, files):
        """Wherever it falls."""
        write_defects(files / "defects.txt", np.eye(128, dtype=bool), "motioncor")
        assert drop(widget, dragged(files / "defects.txt"))
        settle(qtbot, widget)
        assert np.count_nonzero(widget.defects.layer.data) == 128
        assert drop(widget, dragged(files / "gain.mrc"))
        settle(qtbot, widget)
        assert widget.preview is not None

    def test_what_is_no_file_is_not_taken(self, widget):
        """Text, for one."""
        mime = QMimeData()
        mime.setText("gain")
        event = QDragEnterEvent(
            QPointF(5, 5).toPoint(), Qt.DropAction.CopyAction, mime, LEFT,
            Qt.KeyboardModifier.NoModifier,
        )  # fmt: skip
        QApplication.sendEvent(widget.references, event)
        assert not event.isAccepted()

    def test_a_damaged_file_is_said(self, widget, qtbot, files):
        """By its name and what is wrong."""
        (files / "broken.tif").write_bytes(b"II*\0 nothing")
        drop(widget.references, dragged(files / "broken.tif"))
        settle(qtbot, widget)
        assert "broken.tif" in widget.references.controls.status.text()
        assert palette("dark").error in widget.references.controls.status.styleSheet()

    def test_a_wrong_shape_is_said_with_both(self, widget, qtbot, files):
        """And nothing is shown; one in super-resolution fits."""
        nm.write(files / "wrong.mrc", np.ones((100, 128), np.float32))
        drop(widget.references, dragged(files / "wrong.mrc"))
        settle(qtbot, widget)
        said = widget.references.summary.text()
        assert "The reference is 100 × 128, the frames are 128 × 128" in said
        assert palette("dark").error in widget.references.summary.styleSheet()
        assert widget.preview is None
        assert not widget.orientation.buttons["identity"].isEnabled()
        nm.write(files / "fine.mrc", np.repeat(np.repeat(GAIN, 2, 0), 2, 1))
        drop(widget.references, dragged(files / "fine.mrc"))
        settle(qtbot, widget)
        assert "super-resolution" in widget.references.summary.text()
        np.testing.assert_allclose(shown(widget, 0), GainNormalization(GAIN)(MOVIE[0]), rtol=1e-5)

    def test_a_layer_can_be_taken(self, widget, qtbot, viewer):
        """Any that is one image."""
        viewer.add_image(GAIN, name="my gain")
        widget.layers.pick(viewer.layers["movie"])
        widget.references.menu.aboutToShow.emit()
        actions = {action.text(): action for action in widget.references.menu.actions()}
        actions["my gain"].trigger()
        settle(qtbot, widget)
        assert "my gain: 128 × 128" in widget.references.summary.text()
        np.testing.assert_array_equal(shown(widget, 2), GainNormalization(GAIN)(MOVIE[2]))

    def test_one_is_made_from_the_open_movies(self, widget, qtbot, viewer):
        """Not from the normalised one; it becomes a layer that can be saved."""
        viewer.add_image(MOVIE[::-1], name="second", contrast_limits=(0, 4))
        widget.layers.pick(viewer.layers["movie"])
        for movies in ("the 2 open movies", "the 2 open movies"):
            widget.references.menu.aboutToShow.emit()
            made = widget.references.menu.actions()[-1]
            assert made.text() == f"Make one from {movies}"
            made.trigger()
            settle(qtbot, widget)
            assert widget.preview is not None
        assert viewer.layers["gain of 2 movies"].data.shape == (128, 128)
        assert "gain of 2 movies" in widget.references.summary.text()
        total = np.asarray(widget.preview.data).sum(axis=0)
        assert total[total > 0].std() < 0.05 * MOVIE.sum(axis=0).std()
        assert widget.layers.layer.name == "movie"

    def test_a_dark_is_subtracted_until_it_is_taken_away(self, loaded, qtbot, files, monkeypatch):
        """By a file dialog, a drop and a button."""
        plain = shown(loaded, 0).copy()
        choose_file(monkeypatch, files / "dark.mrc")
        click(qtbot, loaded.references.dark_button)
        settle(qtbot, loaded)
        assert "Dark dark.mrc: 128 × 128, mean 0.25" in loaded.references.dark_summary.text()
        expected = GainNormalization(np.flipud(GAIN), dark=np.full((128, 128), 0.25))
        np.testing.assert_array_equal(shown(loaded, 0), expected(MOVIE[0]))
        click(qtbot, loaded.references.no_dark_button)
        settle(qtbot, loaded)
        np.testing.assert_array_equal(shown(loaded, 0), plain)
        nm.write(files / "small.mrc", np.ones((64, 64), np.float32))
        assert drop(loaded.references.dark_button, dragged(files / "small.mrc"))
        settle(qtbot, loaded)
        text = loaded.references.summary.text()
        assert "The dark reference is 64 × 64, the frames are 128 × 128" in text


class TestOrientation:
    """Clicking one, finding the right one."""

    def test_a_thumbnail_turns_the_reference(self, loaded, qtbot):
        """The one clicked is marked; its reciprocal divides."""
        button = loaded.orientation.buttons["flipud"]
        click(qtbot, button)
        settle(qtbot, loaded)
        assert button.isChecked()
        np.testing.assert_array_equal(shown(loaded, 1), GainNormalization(GAIN)(MOVIE[1]))
        click(qtbot, loaded.orientation.divide)
        settle(qtbot, loaded)
        np.testing.assert_array_equal(shown(loaded, 1), GainNormalization(GAIN, -1)(MOVIE[1]))

    def test_the_orientation_put_in_is_found(self, loaded, qtbot):
        """Ranked first, marked, applied; and how sure it is."""
        click(qtbot, loaded.controls.start_button)
        assert loaded.controls.cancel_button.isEnabled()
        settle(qtbot, loaded)
        assert loaded.choice.orientation == "flipud"
        assert loaded.orientation.order[0] == "flipud"
        assert loaded.orientation.buttons["flipud"].isChecked()
        scores = [
            float(loaded.orientation.buttons[name].text().split("\n")[1])
            for name in loaded.orientation.order
        ]
        assert scores == sorted(scores)
        assert "Best: flipped vertically (certain" in loaded.controls.status.text()
        np.testing.assert_array_equal(shown(loaded, 1), GainNormalization(GAIN)(MOVIE[1]))

    def test_a_change_is_taken_back_and_all_of_them_reset(self, loaded, qtbot):
        """To what was found."""
        assert not loaded.reset_button.isEnabled()
        click(qtbot, loaded.controls.start_button)
        settle(qtbot, loaded)
        assert not loaded.reset_button.isEnabled()
        type_into(qtbot, loaded.gamma.number, "0.8")
        settle(qtbot, loaded)
        click(qtbot, loaded.orientation.buttons["identity"])
        settle(qtbot, loaded)
        loaded.undo()
        assert (loaded.choice.orientation, loaded.choice.gamma) == ("flipud", 0.8)
        settle(qtbot, loaded)
        loaded.undo()
        assert (loaded.choice.gamma, loaded.gamma.number.value()) == (1, 1)
        settle(qtbot, loaded)
        click(qtbot, loaded.orientation.divide)
        settle(qtbot, loaded)
        click(qtbot, loaded.reset_button)
        assert (loaded.choice.orientation, loaded.choice.reciprocal) == ("flipud", False)
        settle(qtbot, loaded)
        assert not loaded.reset_button.isEnabled()

    def test_a_reciprocal_is_found_too(self, widget, qtbot, files):
        """And the other eight are shown."""
        inverted = np.divide(1, GAIN, where=GAIN > 0, out=np.zeros_like(GAIN))
        nm.write(files / "counts.mrc", orient(inverted, "transpose").copy())
        drop(widget.references, dragged(files / "counts.mrc"))
        settle(qtbot, widget)
        click(qtbot, widget.controls.start_button)
        settle(qtbot, widget)
        assert (widget.choice.orientation, widget.choice.reciprocal) == ("transpose", True)
        assert widget.orientation.divide.isChecked()
        before = widget.orientation.order
        click(qtbot, widget.orientation.multiply)
        assert widget.orientation.order != before
        settle(qtbot, widget)

    def test_another_reference_forgets_what_was_found(self, loaded, qtbot, files):
        """Scores are of one movie and one reference."""
        click(qtbot, loaded.controls.start_button)
        settle(qtbot, loaded)
        drop(loaded.references, dragged(files / "gain.mrc"))
        settle(qtbot, loaded)
        assert loaded.controls.status.text() == ""
        assert "\n" not in loaded.orientation.buttons["flipud"].text()

    def test_a_search_can_be_cancelled(self, gated, qtbot):
        """And nothing is chosen."""
        widget, gate = gated
        click(qtbot, widget.controls.start_button)
        qtbot.waitUntil(gate.reached.is_set)
        qtbot.waitUntil(lambda: "frame" in widget.controls.status.text())
        click(qtbot, widget.controls.cancel_button)
        gate.opened.set()
        qtbot.waitUntil(lambda: not widget.controls.running)
        assert widget.choice.orientation == "identity"
        assert widget.controls.status.text() == "Cancelled."
        settle(qtbot, widget)

    def test_another_layer_picked_in_the_middle_of_a_search(self, gated, qtbot, viewer):
        """The answer to the old question is not given; the preview is the new layer's."""
        widget, gate = gated
        click(qtbot, widget.controls.start_button)
        qtbot.waitUntil(gate.reached.is_set)
        viewer.layers.selection.active = viewer.layers["movie"]
        gate.opened.set()
        settle(qtbot, widget)
        assert widget.choice.orientation == "identity"
        assert widget.controls.status.text() == ""
        assert widget.preview.name == "movie, normalised"


class TestGamma:
    """By hand, by dose rate, fitted."""

    def test_slider_and_number_stay_in_step(self, loaded, qtbot):
        """Both ways, and the preview with them."""
        type_into(qtbot, loaded.gamma.number, "0.8")
        part = loaded.gamma.slider.value() / loaded.gamma.slider.maximum()
        assert part == pytest.approx(0.8 / 1.5)
        qtbot.keyClick(loaded.gamma.slider, Qt.Key.Key_Right)
        assert loaded.gamma.number.value() == pytest.approx(0.81)
        settle(qtbot, loaded)
        expected = GainNormalization(np.flipud(GAIN), 0.81)
        np.testing.assert_array_equal(shown(loaded, 4), expected(MOVIE[4]))

    def test_sliding_keeps_one_layer_and_shows_the_last(self, loaded, qtbot, viewer):
        """However many steps it took."""
        layer = loaded.preview
        for _ in range(30):
            qtbot.keyClick(loaded.gamma.slider, Qt.Key.Key_Left)
        settle(qtbot, loaded)
        assert loaded.preview is layer
        assert len(viewer.layers) == 2
        assert layer.data.history[-1]["gamma"] == pytest.approx(0.7)

    def test_contrast_that_was_set_by_hand_stays(self, loaded, qtbot):
        """While the data are replaced."""
        loaded.preview.contrast_limits = (0.5, 2.5)
        type_into(qtbot, loaded.gamma.number, "0.6")
        settle(qtbot, loaded)
        assert tuple(loaded.preview.contrast_limits) == (0.5, 2.5)

    def test_a_dose_rate_gives_gamma(self, widget, qtbot):
        """From the preprint's curve, within what it was measured for."""
        assert widget.gamma.rate.text() == "unknown"
        type_into(qtbot, widget.gamma.rate, "7")
        assert widget.gamma.number.value() == pytest.approx(PREPRINT_GAMMA(7), abs=5e-4)
        assert f"γ {PREPRINT_GAMMA(7):.3f} at 7" in widget.gamma.curve_text.text()
        assert widget.gamma.rate_line.value() == 7
        type_into(qtbot, widget.gamma.rate, "50")
        assert "not measured at 50" in widget.gamma.curve_text.text()
        assert widget.gamma.number.value() == pytest.approx(PREPRINT_GAMMA(7), abs=5e-4)
        type_into(qtbot, widget.gamma.rate, "0.25")
        assert "too far from 1" in widget.gamma.curve_text.text()

    def test_a_curve_is_saved_and_read(self, widget, qtbot, files, monkeypatch):
        """As JSON; what is no curve is said."""
        choose_file(monkeypatch, files / "mine")
        click(qtbot, widget.gamma.save_button)
        saved = json.loads((files / "mine.json").read_text())
        click(qtbot, widget.gamma.save_button)
        assert widget.gamma.curve_text.text() == "mine.json: it exists already."
        saved["a3"] -= 0.1
        (files / "mine.json").write_text(json.dumps(saved))
        type_into(qtbot, widget.gamma.rate, "4")
        choose_file(monkeypatch, files / "mine.json")
        click(qtbot, widget.gamma.load_button)
        assert widget.gamma.number.value() == pytest.approx(PREPRINT_GAMMA(4) - 0.1, abs=5e-4)
        assert "Curve: mine.json" in widget.gamma.curve_text.text()
        (files / "bad.json").write_text("[]")
        choose_file(monkeypatch, files / "bad.json")
        click(qtbot, widget.gamma.load_button)
        assert "bad.json: it holds no curve of gamma" in widget.gamma.curve_text.text()
        choose_file(monkeypatch, files / "no" / "folder.json")
        click(qtbot, widget.gamma.save_button)
        assert "folder.json: cannot be written" in widget.gamma.curve_text.text()
        choose_file(monkeypatch, files / "no" / "folder.json")
        click(qtbot, widget.gamma.load_button)
        assert "folder.json: it cannot be read" in widget.gamma.curve_text.text()

    def test_the_gamma_put_in_is_fitted(self, widget, qtbot, viewer, files):
        """With its plot, and its point on the curve."""
        camera = Camera((256, 256), etching=0.08, gamma=0.9, seed=3)
        (flat,) = simulate_flats([3.0], camera=camera, seed=1)
        viewer.add_image(flat.frames, name="flat", contrast_limits=(0, 800))
        nm.write(files / "large.mrc", camera.gain_reference)
        drop(widget.references, dragged(files / "large.mrc"))
        type_into(qtbot, widget.gamma.rate, "3")
        settle(qtbot, widget)
        assert widget.gamma.fit_plot.isHidden()
        click(qtbot, widget.gamma.fit_controls.start_button)
        settle(qtbot, widget)
        assert widget.gamma.number.value() == pytest.approx(0.9, abs=0.02)
        assert not widget.gamma.fit_plot.isHidden()
        assert widget.gamma.fit_line.isVisible()
        x, y = widget.gamma.fit_curve.getData()
        assert abs(x[np.argmin(y)] - widget.gamma.fit_line.value()) < 0.0126
        assert widget.gamma.points == {3.0: pytest.approx(0.9, abs=0.02)}
        click(qtbot, widget.orientation.buttons["flipud"])
        assert widget.gamma.fit_plot.isHidden()  # it was of another orientation
        settle(qtbot, widget)

    def test_a_curve_is_fitted_to_five_points(self, widget, qtbot):
        """And they can be forgotten."""
        assert not widget.gamma.curve_button.isEnabled()
        for rate in (0.5, 1.0, 2.0, 4.0, 8.0):
            widget.gamma.points[rate] = PREPRINT_GAMMA(rate) - 0.05
        type_into(qtbot, widget.gamma.rate, "4")
        click(qtbot, widget.gamma.curve_button)
        assert "fitted at 5 dose rates, from 0.5 to 8" in widget.gamma.curve_text.text()
        assert widget.gamma.number.value() == pytest.approx(PREPRINT_GAMMA(4) - 0.05, abs=2e-3)
        click(qtbot, widget.gamma.forget_button)
        assert not widget.gamma.curve_button.isEnabled()
        assert widget.gamma.points == {}

    def test_a_fit_can_be_cancelled(self, gated, qtbot):
        """And γ stays."""
        widget, gate = gated
        click(qtbot, widget.gamma.fit_controls.start_button)
        qtbot.waitUntil(gate.reached.is_set)
        click(qtbot, widget.gamma.fit_controls.cancel_button)
        gate.opened.set()
        qtbot.waitUntil(lambda: not widget.gamma.fit_controls.running)
        assert widget.gamma.number.value() == 1.0
        settle(qtbot, widget)

    def test_a_layer_removed_in_the_middle_of_a_fit(self, gated, qtbot, viewer):
        """Its result comes to nothing."""
        widget, gate = gated
        click(qtbot, widget.gamma.fit_controls.start_button)
        qtbot.waitUntil(gate.reached.is_set)
        viewer.layers.remove("gated")
        gate.opened.set()
        settle(qtbot, widget)
        assert widget.gamma.number.value() == 1.0
        assert widget.gamma.fit_text.text() == ""


def test_the_slider_follows_the_mouse(loaded, qtbot):
    """Dragged from the middle to its right end."""
    slider = loaded.gamma.slider
    slider.resize(200, 20)
    drag_mouse(slider, QPoint(100, 10), QPoint(199, 10))
    assert slider.value() == slider.maximum()
    assert loaded.gamma.number.value() == 1.5
    settle(qtbot, loaded)
    assert loaded.preview.data.history[-1]["gamma"] == 1.5
