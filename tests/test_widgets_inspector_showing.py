"""The metadata inspector in a viewer: fields and frames, shown, exported and verified."""

import json
import threading
import time

import numpy as np
import pytest
from closing import close
from inspector_dock import (
    COUNTS,
    DOCTOR,
    FRAMES,
    LEFT,
    lines,
    movie,
    names,
    open_in,
    settle,
    sick,
    turn_to,
    widget,
)
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QApplication, QFileDialog

import napari_mrcz as nm
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.inspector import model
from napari_mrcz.widgets.inspector.model import FrameTable

# Fixtures, which pytest finds by their names here.
__all__ = ["movie", "sick", "widget"]


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
    real = model.verify

    def held(path, progress):
        def told(done, total):
            if done == 3:
                reached.set()
                assert opened.wait(20)
            progress(done, total)

        return real(path, progress=told)

    monkeypatch.setattr(model, "verify", held)
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
    assert not widget.fields.copy_button.isEnabled()
    viewer.add_image(COUNTS, name="mine", metadata={"who": "me"})
    settle(qtbot, widget)
    assert names(widget.fields.tree)[:2] == ["Layer", "shape"]
    assert "who" in names(widget.fields.tree)
    turn_to(qtbot, widget, FRAMES)
    assert not widget.frames.list.isVisible()
    assert not widget.controls.start_button.isEnabled()
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
    qtbot.keyClicks(search, "kv accel")
    settle(qtbot, widget)
    assert names(tree) == ["Header", "voltage"]
    below = tree.indexBelow(tree.model().index(0, 0))
    qtbot.mouseClick(tree.viewport(), LEFT, pos=tree.visualRect(below).center())
    assert widget.fields.details.text() == "voltage: 300 kV\nAcceleration voltage"
    assert tree.model().data(below, Qt.ItemDataRole.ToolTipRole) == widget.fields.details.text()
    qtbot.keyClicks(search, " nowhere")
    settle(qtbot, widget)
    assert names(tree) == []
    assert "Nothing matches" in widget.fields.details.text()
    search.selectAll()
    qtbot.keyClick(search, Qt.Key.Key_Delete)
    settle(qtbot, widget)
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
    qtbot.keyClicks(widget.fields.search, "NX")
    settle(qtbot, widget)
    assert "NX" in names(tree)
    widget.fields.search.clear()
    settle(qtbot, widget)
    assert "NX" not in names(tree)
    open_in(qtbot, widget, sick)
    assert "NX" not in names(tree)


def test_columns_share_the_width(widget, qtbot, movie):
    """Narrow, meanings are in tooltips."""
    open_in(qtbot, widget, movie)
    tree, room = widget.fields.tree, widget.fields.tree.viewport().width
    for width, hidden in [(300, True), (600, False)]:
        tree.resize(width, 300)
        assert tree.isColumnHidden(2) == hidden
        qtbot.waitUntil(lambda: abs(sum(map(tree.columnWidth, range(3))) - room()) <= 4)
        (voltage,) = [index for index in lines(tree) if index.data() == "voltage"]
        assert voltage.siblingAtColumn(1).data() == "300 kV"


def test_copy_as_json(widget, qtbot, sick):
    """Onto the clipboard, findings and frames included."""
    open_in(qtbot, widget, sick)
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(widget.fields.copy_button, LEFT)
    told = json.loads(QApplication.clipboard().text())
    assert told["header"]["nx"] == 80
    assert len(told["frames"]["offset"]) == 12
    assert len(told["findings"]) == 5
    assert "on the clipboard" in widget.controls.status.text()


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
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(widget.fields.export_button, LEFT)
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["metadata"]["sample"] == "ice"
    assert "a.json" in widget.controls.status.text()


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


def test_verifying_marks_damaged_frames(widget, qtbot, movie):
    """In the table, in the plot, and in words."""
    flip(movie, 8)
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    model = widget.frames.model
    assert model.rowCount() == 12
    assert model.data(model.index(8, 4)) == "unread"
    frames, ratios = widget.frames.curve.getData()
    np.testing.assert_array_equal(frames, range(12))
    np.testing.assert_allclose(ratios, widget.frames.model.table.ratios)
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    said = widget.controls.status.text()
    assert "11 of 12 frames are good" in said and said.endswith("Damaged: 8.")
    assert [model.data(model.index(row, 4)) for row in (4, 8)] == ["matches", "damaged"]
    error = QColor(palette(widget.viewer.theme).error)
    assert model.data(model.index(8, 4), Qt.ItemDataRole.ForegroundRole) == error
    assert model.data(model.index(4, 4), Qt.ItemDataRole.ForegroundRole) is None
    assert "checksum" in model.data(model.index(8, 4), Qt.ItemDataRole.ToolTipRole)
    assert list(widget.frames.damaged.getData()[0]) == [8]
    # A new name changes nothing of what is known.
    widget.layers.layer.name = "renamed"
    settle(qtbot, widget)
    assert model.data(model.index(8, 4)) == "damaged"


def test_verifying_can_be_cancelled(widget, qtbot, movie, gate):
    """Then nothing is claimed."""
    reached, opened = gate
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    controls = widget.controls
    qtbot.mouseClick(controls.start_button, LEFT)
    qtbot.waitUntil(reached.is_set)
    assert controls.progress.isVisible() and widget.busy
    with qtbot.waitSignal(controls.cancelled):
        qtbot.mouseClick(controls.cancel_button, LEFT)
        opened.set()
    assert widget.frames.model.table.texts(0)[-1] == "unread"
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
    qtbot.mouseClick(widget.controls.start_button, LEFT)
    qtbot.waitUntil(reached.is_set)
    if how == "close":
        close(widget, viewer, qtbot)
        opened.set()
        return
    if how == "select":
        viewer.layers.selection.active = viewer.layers[0]
    else:
        del viewer.layers[1]
    qtbot.waitUntil(lambda: "int16" in widget.headline.text())
    opened.set()
    settle(qtbot, widget)
    assert widget.frames.model.table.path == str(sick)
    assert widget.frames.model.table.texts(0)[-1] == "none"


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
    """Shown, scrolled to the end, and drawn within a few blinks: by the extremes of each few."""
    open_in(qtbot, widget, movie)
    turn_to(qtbot, widget, FRAMES)
    sizes = np.random.default_rng(1).integers(400, 600, 100_000).astype(np.uint64)
    sizes[77_777] = 1000
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
    frames, ratios = widget.frames.curve.getData()
    assert len(frames) < 20_000
    assert ratios.min() == 2
    assert frames[ratios.argmin()] == pytest.approx(77_777, abs=300)
    settle(qtbot, widget)


# The window ---------------------------------------------------------------------------------------


def test_colours_follow_the_theme(widget, qtbot, movie):
    """Those of the plot, too."""
    open_in(qtbot, widget, movie)
    for theme in ("light", "dark"):
        widget.viewer.theme = theme
        colours = palette(theme)
        assert widget.frames.curve.opts["pen"].color().name() == colours.accent
        assert widget.frames.model.error == QColor(colours.error)
