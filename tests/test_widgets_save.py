"""The Save widget in a viewer: selecting, typing, clicking, cancelling, closing."""

from pathlib import Path

import numpy as np
import pytest
from closing import close
from gate import Gate
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QMessageBox

import napari_mrcz as nm
from napari_mrcz.format.chunks import parse_chunk_header
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.save_stack.model import KEPT, FileEstimate, Saved
from napari_mrcz.widgets.save_stack.widget import SaveStack

COUNTS = np.random.default_rng(8).poisson(1, (12, 60, 80)).astype(np.uint8)
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def movie(tmp_path) -> str:
    """Return a movie in a folder of its own."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "movie.mrcz"
    nm.write(path, COUNTS, pixel_size=(0, 1.5, 1.5), metadata={"sample": "ice"})
    return str(path)


@pytest.fixture
def widget(viewer, movie, qtbot) -> SaveStack:
    """Return the widget as napari docks it, with the movie opened and estimated."""
    viewer.open(movie, plugin="napari-mrcz")
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", "Save")
    qtbot.waitSignal(widget.estimated).wait()
    return widget


def type_path(qtbot, widget: SaveStack, path: Path | str) -> None:
    """Type a path and press Enter."""
    widget.form.path.selectAll()
    qtbot.keyClicks(widget.form.path, str(path))
    qtbot.keyClick(widget.form.path, Qt.Key.Key_Enter)


def choose(combo, value) -> None:
    """Choose an entry of a list by what it stands for."""
    combo.setCurrentIndex(combo.findData(value))


def answer(button: QMessageBox.StandardButton, asked: list[str]) -> None:
    """Click a button of the question that is about to be asked, and note the question."""

    def click() -> None:
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(10, click)
            return
        asked.append(box.text())
        box.button(button).click()

    QTimer.singleShot(0, click)


def settle(qtbot, widget: SaveStack) -> FileEstimate | None:
    """Wait until the last estimate is there, and return it."""
    shown = [None]
    widget.estimated.connect(shown.append)
    qtbot.waitUntil(lambda: not widget.busy)
    widget.estimated.disconnect(shown.append)
    return shown[-1]


@pytest.fixture
def gated(viewer, qtbot, tmp_path):
    """Return a widget, and what holds back a frame that is among no samples, once it is closed."""
    gate = Gate(8)
    viewer.add_image(nm.Stack.from_array(COUNTS).apply(gate), name="gated", contrast_limits=(0, 4))
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", "Save")
    type_path(qtbot, widget, tmp_path / "gated.mrcz")
    settle(qtbot, widget)
    gate.closed = True
    yield widget, gate
    gate.opened.set()


def test_the_movie_is_described_and_estimated(widget, movie):
    """By size, pixel size, and what it would take."""
    assert widget.form.summary.text() == "12 frames of 60 × 80\nuint8, 1.5 Å/pixel"
    assert widget.form.path.text() == str(Path(movie).with_name("movie-copy.mrcz"))
    assert "smaller" in widget.estimate.text()
    assert widget.chart.values[0].text() == "57.6 kB"
    assert widget.chart.values[1].text().startswith("≈ ")
    assert widget.save_button.isEnabled()
    assert not widget.controls.cancel_button.isEnabled()


def test_saving_writes_the_file_that_was_estimated(widget, qtbot, movie, tmp_path):
    """Typed, clicked, verified, with all that the source says."""
    type_path(qtbot, widget, tmp_path / "out.mrcz")
    estimate = settle(qtbot, widget)
    widget.form.verify.setChecked(True)
    with qtbot.waitSignal(widget.finished) as caught:
        qtbot.mouseClick(widget.save_button, LEFT)
        assert widget.controls.running
        assert not widget.save_button.isEnabled()
        assert widget.controls.cancel_button.isEnabled()
        assert not widget.form.isEnabled()
    (saved,) = caught.args
    assert isinstance(saved, Saved) and saved.ok and saved.report.checksums
    assert saved.nbytes == pytest.approx(estimate.nbytes, rel=0.02, abs=2000)
    assert widget.controls.status.text() == str(saved)
    assert widget.form.isEnabled() and widget.save_button.isEnabled()
    with nm.open(tmp_path / "out.mrcz") as back:
        np.testing.assert_array_equal(np.asarray(back), COUNTS)
        assert back.pixel_size == (0, 1.5, 1.5)
        assert back.metadata == {"sample": "ice"}


def test_choices_are_taken(widget, qtbot, tmp_path):
    """Codec, level, filter, block size and pixel type of the file are those chosen."""
    type_path(qtbot, widget, tmp_path / "out.mrcz")
    choose(widget.form.codec, "lz4")
    widget.form.level.setValue(5)
    choose(widget.form.filter, "shuffle")
    choose(widget.form.block_size, 2**16)
    choose(widget.form.dtype, "int16")
    with qtbot.waitSignal(widget.finished) as caught:
        qtbot.mouseClick(widget.save_button, LEFT)
    assert isinstance(caught.args[0], Saved)
    with nm.open(tmp_path / "out.mrcz") as back:
        chunk = parse_chunk_header(back._source.read_stored(0))
        assert back.dtype == np.int16
        assert chunk.codec.startswith("lz4")
        assert chunk.typesize == 2
        assert chunk.flags & 1  # shuffled by bytes


def test_each_choice_is_estimated_anew(widget, qtbot):
    """The last of many alone is."""
    shown = []
    widget.estimated.connect(shown.append)
    with qtbot.waitSignal(widget.estimated):
        for level in range(2, 8):
            widget.form.level.setValue(level)
        choose(widget.form.dtype, "float32")
    (estimate,) = shown
    assert 2 < estimate.frame.encoding.level <= 7  # lower where it is smaller
    assert estimate.frame.stored == np.float32


def test_an_uncompressed_file_needs_no_codec(widget, qtbot, tmp_path):
    """Its lists are closed, and 4 bits are offered."""
    assert widget.form.dtype.findData("uint4") < 0
    type_path(qtbot, widget, tmp_path / "out.mrc")
    assert settle(qtbot, widget).nbytes == COUNTS.nbytes
    for field in (widget.form.codec, widget.form.level, widget.form.filter, widget.form.block_size):
        assert not field.isEnabled()
    choose(widget.form.dtype, "uint4")
    type_path(qtbot, widget, tmp_path / "out.mrcz")
    assert widget.form.codec.isEnabled()
    assert widget.form.dtype.currentData() is None


@pytest.mark.parametrize(
    ("typed", "completed"), [("out", "out.mrcz"), ("out.mrc", "out.mrc"), ("a.b.mrcs", "a.b.mrcs")]
)
def test_a_name_alone_is_put_where_the_suggestion_was(widget, qtbot, typed, completed):
    """Compressed unless something else is typed."""
    suggested = Path(widget.form.path.text())
    type_path(qtbot, widget, typed)
    assert widget.form.path.text() == str(suggested.parent / completed)


def test_a_typed_path_stays_when_the_layer_changes_its_scale(widget, qtbot, viewer, tmp_path):
    type_path(qtbot, widget, tmp_path / "mine.mrc")
    widget.form.layers.layer.scale = (1, 2.5, 2.5)
    assert widget.form.path.text() == str(tmp_path / "mine.mrc")


def test_an_unknown_user_in_a_path_is_only_a_name(widget, qtbot):
    type_path(qtbot, widget, "~nobody-of-that-name.mrcz")
    assert widget.form.path.text().endswith("~nobody-of-that-name.mrcz")


def test_what_is_wrong_with_a_path_is_said(widget, qtbot, tmp_path):
    """Save stays closed."""
    for path in (tmp_path / "out.tif", tmp_path / "no" / "where" / "out.mrc", ""):
        type_path(qtbot, widget, path)
        assert not widget.save_button.isEnabled()
        assert widget.estimate.text() == widget.form.problem() != ""
    qtbot.mouseClick(widget.save_button, LEFT)
    assert not widget.controls.running


def test_one_new_folder_is_made(widget, qtbot, tmp_path):
    """When the file is saved, not before; it is told of."""
    type_path(qtbot, widget, tmp_path / "new" / "out.mrcz")
    settle(qtbot, widget)
    assert widget.estimate.text().endswith("In the new folder new.")
    assert not (tmp_path / "new").exists()
    with qtbot.waitSignal(widget.finished):
        qtbot.mouseClick(widget.save_button, LEFT)
    with nm.open(tmp_path / "new" / "out.mrcz") as back:
        assert len(back) == 12


def test_the_source_cannot_be_overwritten(widget, qtbot, movie):
    """The layer is still read from it."""
    before = Path(movie).read_bytes()
    type_path(qtbot, widget, movie)
    assert widget.estimate.text() == widget.form.problem() != ""
    widget.save()
    assert not widget.controls.running
    assert Path(movie).read_bytes() == before


@pytest.mark.parametrize("button", [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes])
def test_a_file_is_replaced_only_if_the_user_says_so(widget, qtbot, tmp_path, button):
    """It is named in the question."""
    old = tmp_path / "old.mrcz"
    old.write_bytes(b"old")
    type_path(qtbot, widget, old)
    asked: list[str] = []
    answer(button, asked)
    if button == QMessageBox.StandardButton.Yes:
        with qtbot.waitSignal(widget.finished):
            qtbot.mouseClick(widget.save_button, LEFT)
        with nm.open(old) as stack:
            assert len(stack) == 12
    else:
        qtbot.mouseClick(widget.save_button, LEFT)
        assert not widget.controls.running
        assert old.read_bytes() == b"old"
    assert len(asked) == 1 and "old.mrcz exists already (3 B)" in asked[0]


def test_values_that_do_not_fit_are_said_before_saving(widget, qtbot, viewer):
    """And Save is closed until another type is chosen."""
    with qtbot.waitSignal(widget.estimated):
        viewer.add_image(np.full((3, 20, 30), 300.5, np.float32), name="bright")
    with qtbot.waitSignal(widget.estimated) as caught:
        choose(widget.form.dtype, "uint8")
    assert caught.args == [None]
    assert "where uint8 holds 0 to 255" in widget.estimate.text()
    assert not widget.save_button.isEnabled()
    with qtbot.waitSignal(widget.estimated) as caught:
        choose(widget.form.dtype, "int16")
    assert isinstance(caught.args[0], FileEstimate)
    assert widget.save_button.isEnabled()


def test_a_value_that_no_sample_showed_ends_the_saving(widget, qtbot, viewer, tmp_path):
    """The error names the frame, and nothing is left behind."""
    frames = np.zeros((9, 20, 30), np.uint16)
    frames[2, 5, 5] = 999
    with qtbot.waitSignal(widget.estimated):
        viewer.add_image(frames, name="counts")
    choose(widget.form.dtype, "uint8")
    type_path(qtbot, widget, tmp_path / "out.mrcz")
    settle(qtbot, widget)
    with qtbot.waitSignal(widget.finished) as caught:
        qtbot.mouseClick(widget.save_button, LEFT)
    assert isinstance(caught.args[0], nm.MrczError)
    assert widget.controls.status.text().startswith(
        "Not saved. out.mrcz: frame 2: values from 0 to 999"
    )
    assert not (tmp_path / "out.mrcz").exists()


class TestFollowingLayers:
    """Which layer is to be saved."""

    def test_the_selected_layer_is_picked(self, widget, qtbot, viewer):
        """By a click in the layer list."""
        with qtbot.waitSignal(widget.estimated):
            added = viewer.add_image(np.zeros((2, 10, 20)), name="second", scale=(1, 3, 3))
        assert widget.form.layers.layer is added
        assert widget.form.summary.text() == "2 frames of 10 × 20\nfloat64, pixel size unknown"
        with qtbot.waitSignal(widget.estimated):
            viewer.layers.selection.active = viewer.layers[0]
        assert widget.form.layers.currentText() == "movie"
        assert "12 frames" in widget.form.summary.text()

    def test_picking_in_the_widget_leaves_the_selection(self, widget, qtbot, viewer):
        """One may look at one layer and save another."""
        viewer.add_image(np.zeros((2, 10, 20)), name="second")
        widget.form.layers.activated.emit(widget.form.layers.findText("movie"))
        assert widget.form.layers.layer.name == "movie"
        assert viewer.layers.selection.active.name == "second"

    def test_other_kinds_of_layers_are_passed_over(self, widget, viewer):
        """Points cannot be saved as a movie."""
        viewer.add_points(np.zeros((3, 2)))
        assert widget.form.layers.layer.name == "movie"
        assert widget.form.layers.count() == 1

    def test_renaming_moving_and_removing(self, widget, qtbot, viewer):
        """The list follows."""
        viewer.add_image(np.zeros((2, 10, 20)), name="second")
        viewer.layers[0].name = "renamed"
        viewer.layers.move(0, 2)
        listed = [widget.form.layers.itemText(i) for i in range(widget.form.layers.count())]
        assert listed == ["renamed", "second"]
        viewer.layers.remove("second")
        assert widget.form.layers.layer.name == "renamed"
        viewer.layers.clear()
        assert widget.form.layers.layer is None
        assert widget.estimate.text() == "Open or add an image first."
        assert not widget.save_button.isEnabled()

    def test_new_data_and_another_scale_are_noticed(self, widget, qtbot, viewer):
        """Of the layer that is picked."""
        layer = viewer.layers[0]
        layer.scale = (1, 2.5, 2.5)
        assert "2.5 Å/pixel" in widget.form.summary.text()
        with qtbot.waitSignal(widget.estimated) as caught:
            layer.data = np.zeros((3, 60, 80), np.float32)
        assert caught.args[0].memory_nbytes == 3 * 60 * 80 * 4
        assert "3 frames" in widget.form.summary.text()

    def test_a_layer_that_goes_while_it_is_estimated(self, gated, qtbot, viewer, tmp_path):
        """Its estimate comes to nothing; the next layer's is shown."""
        widget, gate = gated
        gate.frame = 6  # the middle one, which is among the samples
        widget.form.level.setValue(3)
        qtbot.waitUntil(gate.reached.is_set)
        shown = []
        widget.estimated.connect(shown.append)
        viewer.layers.clear()
        viewer.add_image(np.zeros((4, 10, 20), np.int16), name="next")
        with qtbot.waitSignal(widget.estimated):
            gate.opened.set()
        assert [e and e.memory_nbytes for e in shown if e] == [4 * 10 * 20 * 2]

    def test_an_rgb_image_is_refused(self, widget, viewer):
        """With what to do instead."""
        viewer.add_image(np.zeros((9, 9, 3), np.uint8), rgb=True)
        assert "Split RGB" in widget.estimate.text()
        assert not widget.save_button.isEnabled()


class TestCancelling:
    """Stopping in the middle."""

    def test_cancel_stops_and_leaves_the_old_file(self, gated, qtbot, tmp_path):
        """At once, and without litter."""
        widget, gate = gated
        old = tmp_path / "gated.mrcz"
        old.write_bytes(b"old")
        answer(QMessageBox.StandardButton.Yes, [])
        with qtbot.waitSignal(widget.finished) as caught:
            qtbot.mouseClick(widget.save_button, LEFT)
            qtbot.waitUntil(gate.reached.is_set)
            qtbot.mouseClick(widget.controls.cancel_button, LEFT)
            assert widget.controls.status.text() == "Cancelling…"
            assert not widget.controls.cancel_button.isEnabled()
            gate.opened.set()
        assert caught.args == [None]
        assert old.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [old]
        assert widget.controls.status.text().startswith("Cancelled")
        assert widget.save_button.isEnabled()

    def test_the_layer_may_go_while_it_is_saved(self, gated, qtbot, viewer, tmp_path):
        """Its frames are still there."""
        widget, gate = gated
        with qtbot.waitSignal(widget.finished) as caught:
            qtbot.mouseClick(widget.save_button, LEFT)
            qtbot.waitUntil(gate.reached.is_set)
            viewer.layers.clear()
            gate.opened.set()
        assert isinstance(caught.args[0], Saved)
        assert not widget.save_button.isEnabled()  # there is no layer any more
        with nm.open(tmp_path / "gated.mrcz") as back:
            np.testing.assert_array_equal(np.asarray(back), COUNTS)

    @pytest.mark.window
    def test_the_widget_may_be_closed_while_it_saves(self, gated, qtbot, viewer, tmp_path):
        """The file becomes whole, and napari says so."""
        from napari.utils.notifications import notification_manager

        widget, gate = gated
        notification_manager.records.clear()
        qtbot.mouseClick(widget.save_button, LEFT)
        qtbot.waitUntil(gate.reached.is_set)
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
        del widget
        gate.opened.set()
        qtbot.waitUntil(lambda: len(notification_manager.records) == 1)
        assert "Saved gated.mrcz" in str(notification_manager.records[0].message)
        with nm.open(tmp_path / "gated.mrcz") as back:
            assert len(back) == 12

    def test_progress_is_shown(self, gated, qtbot):
        """Frames written, out of how many."""
        widget, gate = gated
        with qtbot.waitSignal(widget.finished):
            qtbot.mouseClick(widget.save_button, LEFT)
            qtbot.waitUntil(gate.reached.is_set)
            assert widget.controls.progress.isVisibleTo(widget)
            assert widget.controls.progress.maximum() == 12
            qtbot.waitUntil(lambda: widget.controls.progress.value() > 0)
            assert "of 12" in widget.controls.status.text()
            gate.opened.set()
        assert not widget.controls.progress.isVisibleTo(widget)


def test_the_widget_may_be_closed_while_it_estimates(gated, qtbot, viewer):
    """No signal reaches what is no longer there."""
    widget, gate = gated
    gate.frame = 6  # the middle one
    widget.form.level.setValue(2)
    qtbot.waitUntil(gate.reached.is_set)
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    gate.opened.set()


def test_layers_may_change_when_the_widget_is_gone(widget, qtbot, viewer):
    """It has let go of the viewer."""
    close(widget, viewer, qtbot)
    viewer.layers[0].name = "other"
    viewer.add_image(np.zeros((3, 4)))
    viewer.layers.clear()
    viewer.theme = "light"


def test_colours_follow_the_theme(widget, viewer):
    """Of text and bars."""
    for theme in ("light", "dark"):
        viewer.theme = theme
        colours = palette(theme)
        assert colours.text in widget.estimate.styleSheet()
        assert colours.accent in widget.chart.bars[1].styleSheet()
        assert colours.foreground in widget.chart.bars[1].styleSheet()


def test_counts_beneath_a_gain_are_offered_and_open_normalised(viewer, qtbot, tmp_path):
    gain = nm.GainNormalization(np.random.default_rng(1).uniform(0.9, 1.1, COUNTS.shape[1:]))
    stack = nm.Stack.from_array(COUNTS).apply(gain)
    viewer.add_image(stack, name="normalised", contrast_limits=(0, 4))
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", "Save")
    type_path(qtbot, widget, tmp_path / "kept.mrcz")
    estimate = settle(qtbot, widget)
    assert list(estimate.sizes) == ["float32", "float16", "counts"]
    assert all(name in widget.estimate.text() for name in estimate.sizes)
    choose(widget.form.dtype, KEPT)
    assert settle(qtbot, widget).nbytes == pytest.approx(estimate.sizes["counts"], rel=0.01)
    with qtbot.waitSignal(widget.finished):
        qtbot.mouseClick(widget.save_button, LEFT)
    (layer,) = viewer.open(tmp_path / "kept.mrcz", plugin="napari-mrcz")
    np.testing.assert_array_equal(layer.data, np.asarray(stack))
    assert any("not applied" in note for note in layer.metadata["notes"])
    type_path(qtbot, widget, tmp_path / "plain.mrc")
    assert widget.form.dtype.findData(KEPT) < 0
