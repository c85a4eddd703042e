"""The metadata inspector in a real window: searching, verifying, mending, replaying, exporting."""

import gzip
import json
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

import napari_mrcz as nm
from napari_mrcz.doctor import diagnose
from napari_mrcz.recipe import Recipe
from napari_mrcz.widgets.base.theme import palette
from napari_mrcz.widgets.inspector import frame_view
from napari_mrcz.widgets.inspector.frame_table import FrameTable
from napari_mrcz.widgets.inspector.frame_view import shares
from napari_mrcz.widgets.inspector.widget import MetadataInspector

COUNTS = np.random.default_rng(8).poisson(1, (12, 60, 80)).astype(np.uint8)
LEFT = Qt.MouseButton.LeftButton
FIELDS, FRAMES, HISTORY, DOCTOR = range(4)


@pytest.fixture
def movie(tmp_path):
    """Return a good movie."""
    path = tmp_path / "movie.mrcz"
    stack = nm.Stack.from_array(COUNTS).described(voltage=300)
    nm.write(path, stack, pixel_size=(0, 1.5, 1.5), metadata={"sample": "ice", "n": [1, {"a": 2}]})
    return path


@pytest.fixture
def sick(tmp_path):
    """Return a plain movie whose header is wrong in five ways."""
    path = tmp_path / "sick.mrc"
    nm.write(path, COUNTS.astype(np.int16), footer=False)
    raw = bytearray(path.read_bytes())
    for offset, layout, *values in [
        (28, "<3i", 0, 0, 0),
        (88, "<i", -1),
        (108, "<i", 0),
        (216, "<f", 50),
    ]:
        struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(raw)
    return path


@pytest.fixture
def corrected(tmp_path, movie):
    """Return a movie that was corrected and saved."""
    path = tmp_path / "corrected.mrcz"
    gain = np.random.default_rng(1).normal(1, 0.05, COUNTS.shape[1:]).astype(np.float32)
    with nm.open(movie) as stack:
        nm.write(path, stack.apply(nm.GainNormalization(gain)))
    return path


@pytest.fixture
def viewer(make_napari_viewer):
    """Return an empty viewer."""
    return make_napari_viewer()


@pytest.fixture
def widget(viewer, qtbot):
    """Return the widget, docked and in sight."""
    viewer.window.resize(1000, 800)
    viewer.window._qt_window.show()
    widget = MetadataInspector(viewer)
    viewer.window.add_dock_widget(widget)
    return widget


def open_in(qtbot, widget, path):
    """Open a file in the viewer; give its layer when it is inspected."""
    (layer,) = widget.viewer.open(path, plugin="napari-mrcz")
    settle(qtbot, widget)
    return layer


def settle(qtbot, widget):
    """Wait until nothing runs."""
    qtbot.waitUntil(lambda: not widget.busy)


def turn_to(qtbot, widget, tab):
    """Click one of the tabs."""
    bar = widget.tabs.tabBar()
    qtbot.mouseClick(bar, LEFT, pos=bar.tabRect(tab).center())
    assert widget.tabs.currentIndex() == tab


def lines(tree):
    """Give the places of what is not folded away."""
    index, found = tree.model().index(0, 0), []
    while index.isValid():
        found.append(index)
        index = tree.indexBelow(index)
    return found


def names(tree):
    """Give the names of what is not folded away, from top to bottom."""
    return [index.data() for index in lines(tree)]


def tick(qtbot, box):
    """Click a finding's tick."""
    QApplication.processEvents()  # a box that has just come is laid out
    qtbot.mouseClick(box.check, LEFT, pos=QPoint(8, box.check.height() // 2))


def answer(button, asked):
    """Click a button of the question that is about to be asked, and note the question."""

    def click():
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(10, click)
            return
        asked.append(box.text())
        box.button(button).click()

    QTimer.singleShot(0, click)


def flip(path, frame):
    """Damage a frame of a file."""
    with nm.open(path) as stack:
        offset = int(stack._source.index.offsets[frame])
    raw = bytearray(path.read_bytes())
    raw[offset + 40] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def gate(monkeypatch):
    """Hold verifying back at the third frame until it is opened."""
    reached, opened = threading.Event(), threading.Event()
    real = frame_view.verify_file

    def held(path, report):
        def told(stage, done, total):
            if done == 3:
                reached.set()
                assert opened.wait(20)
            report(stage, done, total)

        return real(path, told)

    monkeypatch.setattr(frame_view, "verify_file", held)
    yield reached, opened
    opened.set()


# Fields -------------------------------------------------------------------------------------------


def test_the_active_layer_is_told_of(viewer, widget, qtbot, movie, sick):
    """Its file's header, metadata, footer; another layer's when that is selected."""
    first = open_in(qtbot, widget, movie)
    assert widget.headline.text().startswith("12 frames of 60 × 80, uint8, ")
    shown = names(widget.fields.tree)
    assert shown[0] == "File" and {"NX", "voltage", "sample", "checksums"} <= set(shown)
    assert widget.tabs.tabText(DOCTOR) == "Doctor"
    assert widget.doctor.summary.text() == "Nothing is wrong with the header."
    open_in(qtbot, widget, sick)
    assert "int16" in widget.headline.text()
    assert "ISPG -1 taken as 0" in widget.problem.text() and widget.problem.isVisible()
    assert widget.tabs.tabText(DOCTOR) == "Doctor (5)"
    viewer.layers.selection.active = first
    settle(qtbot, widget)
    assert "uint8" in widget.headline.text()
    assert not widget.problem.isVisible()
    assert widget.tabs.tabText(DOCTOR) == "Doctor"


def test_layers_without_a_file_show_what_there_is(viewer, widget, qtbot):
    """And nothing at all is said so."""
    assert "Open a movie" in widget.headline.text()
    assert not widget.fields.controls.start_button.isEnabled()
    viewer.add_image(COUNTS, name="mine", metadata={"who": "me"})
    settle(qtbot, widget)
    assert names(widget.fields.tree)[:2] == ["Layer", "shape"]
    assert "who" in names(widget.fields.tree)
    turn_to(qtbot, widget, FRAMES)
    assert not widget.frames.list.isVisible()
    assert not widget.frames.controls.start_button.isEnabled()
    assert "no file" in widget.frames.summary.text()
    viewer.add_image(np.zeros((4, 5, 3), np.uint8), rgb=True)
    settle(qtbot, widget)
    assert "RGB" in widget.problem.text()
    viewer.layers.clear()
    assert "Open a movie" in widget.headline.text()
    assert names(widget.fields.tree) == []


def test_typing_filters_the_tree_and_a_click_tells_all(widget, qtbot, movie):
    """By names, values and meanings; clearing brings all back."""
    open_in(qtbot, widget, movie)
    tree, search = widget.fields.tree, widget.fields.search
    every = names(tree)
    with qtbot.waitSignal(widget.fields.shown):
        qtbot.keyClicks(search, "kv accel")
    assert names(tree) == ["Header", "voltage"]
    below = tree.indexBelow(tree.model().index(0, 0))
    qtbot.mouseClick(tree.viewport(), LEFT, pos=tree.visualRect(below).center())
    assert widget.fields.details.text() == "voltage: 300 kV\nAcceleration voltage"
    assert tree.model().data(below, Qt.ItemDataRole.ToolTipRole) == widget.fields.details.text()
    with qtbot.waitSignal(widget.fields.shown):
        qtbot.keyClicks(search, " nowhere")
    assert names(tree) == []
    assert "Nothing has to do" in widget.fields.details.text()
    with qtbot.waitSignal(widget.fields.shown):
        search.selectAll()
        qtbot.keyClick(search, Qt.Key.Key_Delete)
    assert names(tree) == every


def test_what_was_folded_stays_so(viewer, widget, qtbot, movie, sick):
    """Also for another layer, and after a search."""
    open_in(qtbot, widget, movie)
    tree = widget.fields.tree
    header = tree.model().index(1, 0)
    place = tree.visualRect(header).center()
    qtbot.mouseClick(tree.viewport(), LEFT, pos=place)
    qtbot.mouseDClick(tree.viewport(), LEFT, pos=place)
    assert "NX" not in names(tree)
    with qtbot.waitSignal(widget.fields.shown):
        qtbot.keyClicks(widget.fields.search, "NX")
    assert "NX" in names(tree)
    with qtbot.waitSignal(widget.fields.shown):
        widget.fields.search.clear()
    assert "NX" not in names(tree)
    open_in(qtbot, widget, sick)
    assert "NX" not in names(tree)


def test_columns_share_the_width(widget, qtbot, movie):
    """Narrow, units stand behind values and meanings are in tooltips."""
    open_in(qtbot, widget, movie)
    tree = widget.fields.tree
    for width, hidden in [(300, True), (600, False)]:
        tree.resize(width, 300)
        assert tree.isColumnHidden(2) == tree.isColumnHidden(3) == hidden
        columns = [tree.columnWidth(i) for i in range(4) if not tree.isColumnHidden(i)]
        assert abs(sum(columns) - tree.viewport().width()) <= 4
        (voltage,) = [index for index in lines(tree) if index.data() == "voltage"]
        assert voltage.siblingAtColumn(1).data() == ("300 kV" if hidden else "300")


def test_copy_as_json(widget, qtbot, sick):
    """Onto the clipboard, findings and frames included."""
    open_in(qtbot, widget, sick)
    with qtbot.waitSignal(widget.fields.controls.returned):
        qtbot.mouseClick(widget.fields.controls.start_button, LEFT)
    told = json.loads(QApplication.clipboard().text())
    assert told["header"]["nx"] == 80
    assert len(told["frames"]["offset"]) == 12
    assert len(told["findings"]) == 5
    assert "on the clipboard" in widget.fields.controls.status.text()


def test_export(widget, qtbot, movie, tmp_path, monkeypatch):
    """Into a file that is chosen; none is written if none is."""
    open_in(qtbot, widget, movie)
    suggested = []

    def choose(parent, title, name, kinds):
        suggested.append(name)
        return (str(tmp_path / "a.json") if len(suggested) > 1 else "", kinds)

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    qtbot.mouseClick(widget.fields.export_button, LEFT)
    assert suggested == [f"{movie}.json"]
    assert not widget.busy
    with qtbot.waitSignal(widget.fields.controls.returned):
        qtbot.mouseClick(widget.fields.export_button, LEFT)
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["metadata"]["sample"] == "ice"
    assert "a.json" in widget.fields.controls.status.text()


# Frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame_nbytes", [999_000, 1_110_000])
def test_sizes_and_their_units_fit_into_a_narrow_table(widget, qtbot, movie, frame_nbytes):
    """And all other columns with them, in a movie of sixty frames."""
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    sizes = np.full(60, frame_nbytes, np.uint64)
    offsets = np.cumsum(sizes)
    table = FrameTable("movie.mrcz", offsets, sizes, 16_000_000, True, True, (1, 1))
    widget.frames.show_table(table)
    view = widget.frames.list
    view.resize(296, 180)  # what a dock of 320 pixels leaves for it
    for column in range(5):
        needed = view.sizeHintForIndex(widget.frames.model.index(59, column)).width()
        assert view.columnWidth(column) >= needed, column
    assert sum(view.columnWidth(c) for c in range(5)) <= view.viewport().width()


def test_a_width_is_shared_out():
    texts, headings = [20, 80, 50, 30, 50], [40, 50, 40, 40, 70]
    assert sum(shares(400, texts, headings)) == 400
    assert shares(280, texts, headings) == [40, 80, 50, 40, 70]
    narrow = shares(255, texts, headings)
    assert all(n >= t for n, t in zip(narrow, texts, strict=True))
    assert 250 < sum(narrow) <= 255
    assert shares(200, texts, headings) == [20, 50, 50, 30, 50]


def test_verifying_marks_damaged_frames(widget, qtbot, movie):
    """In the table, in the plot, and in words."""
    flip(movie, 8)
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    model = widget.frames.model
    assert model.rowCount() == 12
    assert model.data(model.index(8, 4)) == "unread"
    frames, ratios = widget.frames._curve.getData()
    np.testing.assert_array_equal(frames, range(12))
    np.testing.assert_allclose(ratios, widget.frames.table.ratios())
    with qtbot.waitSignal(widget.frames.verified):
        qtbot.mouseClick(widget.frames.controls.start_button, LEFT)
    assert widget.frames.controls.status.text() == "1 frame is damaged: 8."
    assert [model.data(model.index(row, 4)) for row in (4, 8)] == ["matches", "damaged"]
    error = QColor(palette(widget.viewer.theme).error)
    assert model.data(model.index(8, 4), Qt.ItemDataRole.ForegroundRole) == error
    assert model.data(model.index(4, 4), Qt.ItemDataRole.ForegroundRole) is None
    assert "checksum" in model.data(model.index(8, 4), Qt.ItemDataRole.ToolTipRole)
    assert list(widget.frames._damaged.getData()[0]) == [8]
    # A new name changes nothing of what is known.
    widget.layers.layer.name = "renamed"
    settle(qtbot, widget)
    assert model.data(model.index(8, 4)) == "damaged"


def test_verifying_can_be_cancelled(widget, qtbot, movie, gate):
    """Then nothing is claimed."""
    reached, opened = gate
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    controls = widget.frames.controls
    qtbot.mouseClick(controls.start_button, LEFT)
    qtbot.waitUntil(reached.is_set)
    assert controls.progress.isVisible() and widget.busy
    with qtbot.waitSignal(controls.cancelled):
        qtbot.mouseClick(controls.cancel_button, LEFT)
        opened.set()
    assert widget.frames.table.state(0) == "unread"
    assert controls.start_button.isEnabled()


@pytest.mark.parametrize("how", ["select", "remove", "close"])
def test_verifying_ends_when_its_layer_or_the_widget_goes(
    viewer, widget, qtbot, movie, sick, gate, how
):
    """No other layer is told to be whole by it."""
    reached, opened = gate
    open_in(qtbot, widget, sick)
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    qtbot.mouseClick(widget.frames.controls.start_button, LEFT)
    qtbot.waitUntil(reached.is_set)
    if how == "close":
        viewer.window.remove_dock_widget(widget)
        widget.deleteLater()
        qtbot.waitSignal(widget.destroyed).wait()
        opened.set()
        return
    if how == "select":
        viewer.layers.selection.active = viewer.layers[0]
    else:
        del viewer.layers[1]
    qtbot.waitUntil(lambda: "int16" in widget.headline.text())
    opened.set()
    settle(qtbot, widget)
    assert widget.frames.table.path == str(sick)
    assert widget.frames.table.state(0) == "none"


def test_a_double_click_shows_the_frame(viewer, widget, qtbot, movie):
    """The slider goes there."""
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    table = widget.frames.list
    index = widget.frames.model.index(3, 1)
    place = table.visualRect(index).center()
    qtbot.mouseClick(table.viewport(), LEFT, pos=place)
    qtbot.mouseDClick(table.viewport(), LEFT, pos=place)
    assert viewer.dims.current_step[0] == 3


def test_a_hundred_thousand_frames_do_not_block(widget, qtbot, movie):
    """Shown, scrolled to the end, and checked off within a few blinks."""
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    sizes = np.random.default_rng(1).integers(400, 600, 100_000).astype(np.uint64)
    offsets = np.cumsum(sizes)

    def seconds(work):
        started = time.thread_time()  # which others on the machine do not lengthen
        work()
        QApplication.processEvents()
        return time.thread_time() - started

    def show():
        widget.frames.show_table(FrameTable("long.mrcz", offsets, sizes, 2000, True, True, (1, 1)))

    short = min(seconds(lambda: widget.viewer.window._qt_window.repaint()) for _ in range(3))
    assert seconds(show) < max(0.3, 5 * short)
    assert seconds(widget.frames.list.scrollToBottom) < max(0.3, 5 * short)
    model = widget.frames.model
    assert model.data(model.index(99_999, 0)) == "99999"
    settle(qtbot, widget)


# History ------------------------------------------------------------------------------------------


def test_a_history_is_replayed_on_another_layer(viewer, widget, qtbot, movie, corrected):
    """Chosen from a menu; a lazy layer of its own, that sits where the other does."""
    original = open_in(qtbot, widget, movie)
    original.translate = (0, 5, 7)
    saved = open_in(qtbot, widget, corrected)
    assert widget.tabs.tabText(HISTORY) == "History (1)"
    turn_to(qtbot, widget, HISTORY)
    assert "1. Gain normalised" in widget.history.summary.text()
    assert names(widget.history.tree)[:2] == ["1. Gain normalised", "gamma"]
    qtbot.mouseClick(widget.history.controls.start_button, LEFT)
    qtbot.waitUntil(widget.history.menu.isVisible)
    assert [action.text() for action in widget.history.menu.actions()] == ["movie"]
    with qtbot.waitSignal(widget.replayed) as caught:
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Down)
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Return)
    (again,) = caught.args
    assert again in viewer.layers and again.name == "movie replayed"
    assert isinstance(again.data, nm.Stack)
    np.testing.assert_array_equal(np.asarray(again.data), np.asarray(saved.data))
    assert tuple(again.translate) == (0, 5, 7)
    assert tuple(again.scale) == tuple(original.scale)
    assert "movie replayed" in widget.history.controls.status.text()
    settle(qtbot, widget)


def test_a_history_is_saved_as_a_recipe(viewer, widget, qtbot, corrected, tmp_path, monkeypatch):
    """For the command line; what is there already is not replaced unasked."""
    open_in(qtbot, widget, corrected)
    turn_to(qtbot, widget, HISTORY)
    asked = []

    def choose(parent, title, beside, kinds):
        asked.append(Path(beside).name)
        return str(tmp_path / "steps"), kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    with qtbot.waitSignal(widget.recipe_saved):
        qtbot.mouseClick(widget.history.recipe_button, LEFT)
    assert asked == [f"{Path(corrected).name}.toml"]
    recipe = Recipe.load(tmp_path / "steps.toml")
    assert recipe.gain.gamma == 1 and recipe.outliers is None
    assert Path(recipe.gain.reference) == tmp_path / "steps-gain.mrc"
    assert "napari-mrcz correct -r" in widget.history.controls.status.text()
    (tmp_path / "steps.toml").unlink()
    with qtbot.waitSignal(widget.history.controls.failed):
        qtbot.mouseClick(widget.history.recipe_button, LEFT)
    assert "steps-gain.mrc" in widget.history.controls.status.text()
    viewer.layers.clear()
    settle(qtbot, widget)
    assert not widget.history.recipe_button.isEnabled()


def test_what_cannot_be_replayed_is_said(viewer, widget, qtbot, movie, corrected):
    """No other layer, no steps, frames of another size."""
    button = widget.history.controls.start_button
    open_in(qtbot, widget, movie)
    assert "no steps" in button.toolTip() and not button.isEnabled()
    viewer.layers.clear()
    saved = open_in(qtbot, widget, corrected)
    assert "another movie" in button.toolTip() and not button.isEnabled()
    viewer.add_image(COUNTS[:, :30], name="small")
    viewer.layers.selection.active = saved
    settle(qtbot, widget)
    turn_to(qtbot, widget, HISTORY)
    assert button.isEnabled()
    with qtbot.waitSignal(widget.history.controls.failed):
        qtbot.mouseClick(button, LEFT)
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Down)
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Return)
    assert "(30, 80)" in widget.history.controls.status.text()
    assert len(viewer.layers) == 2


# The doctor ---------------------------------------------------------------------------------------


def findings(widget):
    """Give the names of what was found."""
    return [finding.field for finding in widget.doctor.findings]


def test_mending_in_place_asks_and_opens_the_layer_again(viewer, widget, qtbot, sick):
    """What is ticked alone; the pixel size that was told becomes the layer's."""
    layer = open_in(qtbot, widget, sick)
    turn_to(qtbot, widget, DOCTOR)
    doctor = widget.doctor
    assert findings(widget) == ["MX MY MZ", "pixel size", "ISPG", "NVERSION", "DMIN DMAX DMEAN RMS"]
    assert [box.check is not None for box in doctor.boxes] == [True, False, True, True, True]
    assert doctor.pixel_size.isVisible()
    with qtbot.waitSignal(widget.looked):
        doctor.pixel_size.selectAll()
        qtbot.keyClicks(doctor.pixel_size, "1.25")
        qtbot.keyClick(doctor.pixel_size, Qt.Key.Key_Return)
    assert doctor.findings[1].proposed == "1.25 × 1.25 Å, as you say"
    tick(qtbot, doctor.boxes[3])
    assert len(doctor.chosen) == 4
    before = sick.read_bytes()
    asked = []
    answer(QMessageBox.StandardButton.No, asked)
    qtbot.mouseClick(doctor.in_place_button, LEFT)
    assert sick.read_bytes() == before and not widget.busy
    assert "MX MY MZ: 0 0 0 → 80 60 1" in asked[0] and "NVERSION" not in asked[0]
    answer(QMessageBox.StandardButton.Yes, asked)
    old = layer.data
    with qtbot.waitSignal(widget.mended):
        qtbot.mouseClick(doctor.in_place_button, LEFT)
    assert sick.read_bytes()[1024:] == before[1024:]
    assert [f.field for f in diagnose(sick) if f.mendable] == ["NVERSION"]
    assert layer.data is not old
    np.testing.assert_array_equal(np.asarray(layer.data), COUNTS)
    assert tuple(layer.scale) == (1, 1.25, 1.25)
    assert layer.metadata["header"]["ispg"] == 0
    settle(qtbot, widget)
    assert "ISPG: -1 → 0" in doctor.controls.status.text()
    assert "NVERSION" in findings(widget) and "ISPG" not in findings(widget)
    old.close()


def test_layers_derived_from_a_mended_file_are_made_again(viewer, widget, qtbot, sick):
    """A corrected movie is read from the new file."""
    layer = open_in(qtbot, widget, sick)
    gain = np.full(COUNTS.shape[1:], 2, np.float32)
    made = viewer.add_image(layer.data.apply(nm.GainNormalization(gain)), name="made")
    expected = np.asarray(made.data)
    settle(qtbot, widget)
    answer(QMessageBox.StandardButton.Yes, [])
    with qtbot.waitSignal(widget.mended):
        qtbot.mouseClick(widget.doctor.in_place_button, LEFT)
    np.testing.assert_array_equal(np.asarray(made.data), expected)
    np.testing.assert_array_equal(np.asarray(layer.data), COUNTS)
    assert made.data.header.nversion == layer.data.header.nversion == 20141
    settle(qtbot, widget)


def test_looking_at_all_frames_fills_the_statistics_in(widget, qtbot, sick, tmp_path, monkeypatch):
    """Mended in a copy, the file stays as it was, and the copy is without fault."""
    open_in(qtbot, widget, sick)
    turn_to(qtbot, widget, DOCTOR)
    doctor = widget.doctor
    with qtbot.waitSignal(doctor.controls.returned):
        qtbot.mouseClick(doctor.controls.start_button, LEFT)
    assert "all 12 frames" in doctor.findings[-1].sentence
    with qtbot.waitSignal(doctor.controls.returned):
        doctor.pixel_size.selectAll()
        qtbot.keyClicks(doctor.pixel_size, "2")
        qtbot.keyClick(doctor.pixel_size, Qt.Key.Key_Return)
    # Telling the pixel size has not made it forget what all frames said.
    assert "all 12 frames" in doctor.findings[-1].sentence
    before = sick.read_bytes()
    copy = tmp_path / "copy.mrc"
    suggested = []

    def choose(parent, title, name, kinds):
        suggested.append(name)
        return str(copy), kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    with qtbot.waitSignal(widget.mended):
        qtbot.mouseClick(doctor.copy_button, LEFT)
    assert suggested == [str(tmp_path / "sick-mended.mrc")]
    assert sick.read_bytes() == before
    assert diagnose(copy, full=True) == ()
    assert doctor.controls.status.text().startswith("Mended in copy.mrc:")


def test_with_nothing_ticked_nothing_can_be_mended(widget, qtbot, sick, movie):
    """The buttons say why."""
    open_in(qtbot, widget, sick)
    turn_to(qtbot, widget, DOCTOR)
    doctor = widget.doctor
    for box in doctor.boxes:
        if box.check is not None:
            tick(qtbot, box)
    for button in (doctor.copy_button, doctor.in_place_button):
        assert not button.isEnabled() and "Tick" in button.toolTip()
    open_in(qtbot, widget, movie)
    assert "nothing to mend" in doctor.copy_button.toolTip()
    assert not doctor.pixel_size.isVisible()


def test_a_joined_layer_is_mended_in_a_copy_only(viewer, widget, qtbot, sick, tmp_path):
    """Its other files would be left open."""
    other = tmp_path / "sick2.mrc"
    other.write_bytes(sick.read_bytes())
    viewer.open([sick, other], stack=True, plugin="napari-mrcz")
    settle(qtbot, widget)
    assert widget.doctor.copy_button.isEnabled()
    assert not widget.doctor.in_place_button.isEnabled()
    assert "joined" in widget.doctor.in_place_button.toolTip()


def test_a_packed_file_is_mended_in_a_copy_only(widget, qtbot, sick, monkeypatch):
    """Which is suggested without the suffix of packed files."""
    packed = sick.with_name("sick.mrc.gz")
    packed.write_bytes(gzip.compress(sick.read_bytes()))
    open_in(qtbot, widget, packed)
    assert "packed" in widget.doctor.in_place_button.toolTip()
    suggested = []

    def choose(parent, title, name, kinds):
        suggested.append(name)
        return "", kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    turn_to(qtbot, widget, DOCTOR)
    qtbot.mouseClick(widget.doctor.copy_button, LEFT)
    assert suggested == [str(sick.with_name("sick-mended.mrc"))]


def test_a_file_that_changed_meanwhile_is_not_mended(widget, qtbot, sick):
    """It is said, and nothing is written."""
    open_in(qtbot, widget, sick)
    raw = bytearray(sick.read_bytes())
    raw[44] ^= 1
    sick.write_bytes(raw)
    answer(QMessageBox.StandardButton.Yes, [])
    with qtbot.waitSignal(widget.doctor.controls.failed):
        qtbot.mouseClick(widget.doctor.in_place_button, LEFT)
    assert "has changed" in widget.doctor.controls.status.text()
    assert sick.read_bytes() == bytes(raw)


def test_colours_follow_the_theme(widget, qtbot, movie):
    """Those of the plot, too."""
    open_in(qtbot, widget, movie)
    for theme in ("light", "dark"):
        widget.viewer.theme = theme
        colours = palette(theme)
        assert widget.frames._curve.opts["pen"].color().name() == colours.accent
        assert widget.frames.model._error == QColor(colours.error)


def test_every_control_says_what_it_is_for(widget, qtbot, sick):
    """In its tooltip."""
    open_in(qtbot, widget, sick)
    doctor = widget.doctor
    for control in (
        widget.layers,
        widget.fields.search,
        widget.fields.tree,
        widget.fields.controls.start_button,
        widget.fields.export_button,
        widget.frames.list,
        widget.frames.plot,
        widget.frames.controls.start_button,
        widget.history.tree,
        widget.history.controls.start_button,
        doctor.pixel_size,
        doctor.copy_button,
        doctor.in_place_button,
        doctor.controls.start_button,
    ):
        assert control.toolTip()
    assert all(widget.tabs.tabToolTip(tab) for tab in range(4))
