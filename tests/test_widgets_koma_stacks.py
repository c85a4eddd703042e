"""The KOMA widget's stacks in a viewer: dropping, dragging, ticking, reading, open layers."""

import threading

import numpy as np
import pytest
from closing import close
from koma_dock import (
    LEFT,
    all_progress,
    choose_folder,
    click_row,
    click_tick,
    gate,
    read,
    read_session,
    row_rect,
    widget,
)
from koma_session import CARBON, N_FRAMES, N_STACKS, SHAPE, paths, session_folder
from mouse import dragged, drop
from qtpy.QtCore import QPoint, Qt

import napari_mrcz as nm
from napari_mrcz.widgets.koma.widget import KomaSession

MOVED = Qt.DropAction.MoveAction

# Fixtures, which pytest finds by their names here.
__all__ = [
    "all_progress",
    "gate",
    "paths",
    "read",
    "session_folder",
    "widget",
]

pytestmark = pytest.mark.usefixtures("own_cache")


def names(widget: KomaSession) -> list[str]:
    """Return the stacks as they are listed."""
    model = widget.box.stacks.model()
    lines = [model.index(row).data().splitlines()[0] for row in range(model.rowCount())]
    return [line.split()[-1] for line in lines]


class TestTheList:
    """Where stacks come from, and in which order."""

    def test_a_folder_is_chosen_in_a_dialog(self, widget, qtbot, session_folder, monkeypatch):
        choose_folder(monkeypatch, session_folder)
        qtbot.mouseClick(widget.box.folder_button, LEFT)
        assert names(widget) == [f"movie_{i}.mrc" for i in range(1, N_STACKS + 1)]
        assert widget.reading.start_button.isEnabled()
        assert not widget.export.start_button.isEnabled()
        assert widget.export.start_button.toolTip() == widget.koma.problem() != ""

    @pytest.mark.parametrize("onto", ["panel", "list"])
    def test_files_are_dropped(self, widget, paths, onto):
        drop(widget if onto == "panel" else widget.box.stacks.viewport(), dragged(*paths[:3]))
        assert names(widget) == [path.name for path in paths[:3]]

    def test_an_empty_folder_is_told(self, widget, tmp_path):
        drop(widget, dragged(tmp_path))
        assert widget.box.details.text() == "There are no movies in this folder."

    def test_stacks_are_dragged(self, read, qtbot):
        """The first between the third and the fourth; the curve follows, nothing is read again."""
        data = read.box.stacks.model().mimeData([read.box.stacks.model().index(0)])
        fourth = row_rect(read, 3)
        with qtbot.waitSignal(read.curve_shown):
            drop(read.box.stacks.viewport(), data, QPoint(60, fourth.top() + 1), MOVED)
        assert names(read)[:4] == ["movie_2.mrc", "movie_3.mrc", "movie_1.mrc", "movie_4.mrc"]
        assert read.box.stacks.current.name == "movie_1.mrc"
        assert read.koma.problem() == ""

    def test_the_hand_really_drags(self, read):
        """Rows can be taken, and the list moves them itself."""
        assert read.box.stacks.dragEnabled()
        model = read.box.stacks.model()
        assert model.flags(model.index(2)) & Qt.ItemFlag.ItemIsDragEnabled

    def test_rows_of_another_list_mean_nothing_here(self, read, viewer):
        other = KomaSession(viewer)
        viewer.window.add_dock_widget(other)
        other.box.add(read.koma.entries[:2])
        data = other.box.stacks.model().mimeData([other.box.stacks.model().index(1)])
        before = names(read)
        drop(read.box.stacks.viewport(), data, QPoint(60, 2), MOVED)
        assert names(read) == before

    def test_buttons_move_and_remove(self, read, qtbot):
        click_row(qtbot, read, 2)
        qtbot.mouseClick(read.box.up, LEFT)
        assert names(read)[:3] == ["movie_1.mrc", "movie_3.mrc", "movie_2.mrc"]
        qtbot.mouseClick(read.box.down, LEFT)
        qtbot.mouseClick(read.box.down, LEFT)
        assert names(read)[:4] == ["movie_1.mrc", "movie_2.mrc", "movie_4.mrc", "movie_3.mrc"]
        read.box.sort_actions["By name"].trigger()
        assert names(read)[:4] == ["movie_1.mrc", "movie_2.mrc", "movie_3.mrc", "movie_4.mrc"]
        qtbot.mouseClick(read.box.remove, LEFT)
        assert "movie_3.mrc" not in names(read)
        click_row(qtbot, read, 0)
        qtbot.keyClick(read.box.stacks, Qt.Key.Key_Delete)
        assert names(read)[0] == "movie_2.mrc"
        assert read.koma.problem() == ""

    def test_carbon_is_greyed_with_the_reason_and_put_back(self, read, qtbot):
        """By a tick; then it is used."""
        index = read.box.stacks.model().index(CARBON)
        assert "high contrast, left out" in index.data()
        assert index.data(Qt.ItemDataRole.ForegroundRole) is not None
        why = read.koma.why_left_out(read.koma.entries[CARBON])
        assert why and why in index.data(Qt.ItemDataRole.ToolTipRole)
        click_row(qtbot, read, CARBON)
        assert why in read.box.details.text()
        assert read.radius.slider.maximum() == 3
        with qtbot.waitSignal(read.curve_shown):
            click_tick(qtbot, read, CARBON)
        assert read.koma.enters(read.koma.entries[CARBON])
        assert index.data(Qt.ItemDataRole.ForegroundRole) is None
        assert read.radius.slider.maximum() == 4

    def test_a_good_stack_can_be_left_out(self, read, qtbot, paths):
        with qtbot.waitSignal(read.curve_shown) as shown:
            click_tick(qtbot, read, 1)
        koma = nm.Koma(paths, 2, exclude=[1, CARBON])
        np.testing.assert_allclose(shown.args[0].noise, koma.noise_curve([1, 2, 3]))


class TestReading:
    """The sums, in a thread."""

    def test_it_shows_the_curve(self, read, paths):
        """As Koma computes it, with the limit, the noise before, and the radius."""
        koma = nm.Koma(paths, 2)
        x, y = read.radius.noise.getOriginalDataset()
        np.testing.assert_array_equal(x, [1, 2, 3])
        np.testing.assert_allclose(y, koma.noise_curve([1, 2, 3]))
        _, limit = read.radius.limit.getOriginalDataset()
        np.testing.assert_allclose(limit, [1 / (2 * a * N_FRAMES) for a in (1, 2, 3)])
        assert read.radius.before.value() == pytest.approx(np.log10(koma.noise_curve([0])[0]))
        assert read.radius.marker.value() == read.radius.radius == 3
        assert read.reading.status.text() == "9 stacks read, 1 of high contrast."

    def test_it_can_be_cancelled(self, widget, qtbot, paths, gate, session_folder):
        """In the middle of a stack, and begun again."""
        drop(widget, dragged(session_folder))
        gate.close(paths[3], 4)
        with qtbot.waitSignal(widget.reading.cancelled):
            qtbot.mouseClick(widget.reading.start_button, LEFT)
            qtbot.waitUntil(gate.reached.is_set)
            assert widget.reading.progress.isVisibleTo(widget)
            qtbot.waitUntil(lambda: "stack 4 of 9" in widget.reading.status.text())
            qtbot.mouseClick(widget.reading.cancel_button, LEFT)
            gate.opened.set()
        assert widget.koma.reading is None
        assert widget.reading.status.text() == "Cancelled."
        read_session(qtbot, widget)
        assert widget.koma.problem() == ""

    def test_the_first_stack_that_enters_is_selected(self, widget, qtbot, session_folder):
        """So that there is one to be previewed."""
        drop(widget, dragged(session_folder))
        widget.koma.entries[0].ticked = False
        assert widget.box.stacks.current is None
        read_session(qtbot, widget)
        assert widget.box.stacks.selected == [widget.koma.entries[1]]
        assert widget.preview_button.isEnabled()

    def test_what_was_selected_stays_selected(self, widget, qtbot, session_folder):
        drop(widget, dragged(session_folder))
        widget.box.stacks.select([widget.koma.entries[3]])
        read_session(qtbot, widget)
        assert widget.box.stacks.selected == [widget.koma.entries[3]]

    def test_a_second_reading_that_is_cancelled_leaves_the_first(self, read, qtbot, monkeypatch):
        before, clicked = read.koma.reading, threading.Event()

        def read_on(report):
            assert clicked.wait(20)
            report("Reading stack 1 of 9", 0, 54)

        monkeypatch.setattr(read.koma, "read", lambda: read_on)
        qtbot.mouseClick(read.reading.start_button, LEFT)
        with qtbot.waitSignal(read.reading.ended):
            qtbot.mouseClick(read.reading.cancel_button, LEFT)
            clicked.set()
        assert read.koma.reading is before
        said = read.reading.status.text()
        assert said == "Cancelled; the session read before still stands."

    def test_the_widget_may_be_closed_meanwhile(
        self, widget, qtbot, paths, gate, viewer, session_folder
    ):
        drop(widget, dragged(session_folder))
        gate.close(paths[3], 2)
        qtbot.mouseClick(widget.reading.start_button, LEFT)
        qtbot.waitUntil(gate.reached.is_set)
        close(widget, viewer, qtbot)
        gate.opened.set()

    def test_a_stack_may_be_removed_meanwhile(self, widget, qtbot, paths, gate, session_folder):
        drop(widget, dragged(session_folder))
        gate.close(paths[3], 2)
        with qtbot.waitSignal(widget.reading.returned):
            qtbot.mouseClick(widget.reading.start_button, LEFT)
            qtbot.waitUntil(gate.reached.is_set)
            click_row(qtbot, widget, 0)
            qtbot.mouseClick(widget.box.remove, LEFT)
            gate.opened.set()
        assert len(widget.koma.reading.entries) == N_STACKS - 1

    def test_other_sums_are_read_when_outliers_are_filtered(self, read, qtbot, paths):
        before = read.radius.noise.getOriginalDataset()[1]
        qtbot.mouseClick(
            read.filter_outliers, LEFT, pos=QPoint(8, read.filter_outliers.height() // 2)
        )
        assert read.koma.reading is None
        assert not read.radius.noise.isVisible()
        assert not read.reading.status.text()  # "9 stacks read" would be wrong
        read_session(qtbot, read)
        after = read.radius.noise.getOriginalDataset()[1]
        assert read.koma.koma().session._prepare is not None
        assert not np.allclose(before, after)

    def test_a_bad_file_is_named(self, widget, qtbot, paths, tmp_path):
        """In red; the others are read."""
        (tmp_path / "bad.mrc").write_bytes(b"no movie at all")
        drop(widget, dragged(tmp_path, *paths))
        read_session(qtbot, widget)
        assert "1 cannot be used: bad.mrc" in widget.reading.status.text()
        row = names(widget).index("bad.mrc")
        index = widget.box.stacks.model().index(row)
        red, green, _, _ = index.data(Qt.ItemDataRole.ForegroundRole).getRgb()
        assert red > green + 30
        assert not widget.box.stacks.model().flags(index) & Qt.ItemFlag.ItemIsUserCheckable
        click_row(qtbot, widget, row)
        assert widget.box.details.text().startswith("bad.mrc ")
        assert not widget.preview_button.isEnabled()
        assert widget.export.start_button.isEnabled()


class TestOpenLayers:
    """A session of layers."""

    @pytest.fixture
    def layers(self, viewer, widget, qtbot, paths):
        """Return the layers of five movies, added and read."""
        for path in paths[:4]:
            viewer.open(path, plugin="napari-mrcz")
        viewer.add_image(nm.read(paths[5]), name="array", contrast_limits=(0, 4))
        viewer.add_image(np.zeros((8, 9)), name="an image")
        qtbot.mouseClick(widget.box.layers_button, LEFT)
        read_session(qtbot, widget)
        return list(viewer.layers)

    def test_they_are_in_the_order_of_opening(self, layers, widget, qtbot):
        """What is no movie is passed over, and what is there is not added again."""
        assert names(widget) == ["movie_1", "movie_2", "movie_3", "movie_4", "array"]
        qtbot.mouseClick(widget.box.layers_button, LEFT)
        assert len(names(widget)) == 5
        assert widget.box.details.text() == "No further movies are open in napari."

    def test_a_preview_lies_where_its_layer_does(self, layers, widget, qtbot, viewer):
        layers[4].translate = (0, 10, 20)
        click_row(qtbot, widget, 4)
        with qtbot.waitSignal(widget.previewed):
            qtbot.mouseClick(widget.preview_button, LEFT)
        layer = viewer.layers[-1]
        assert list(layer.translate) == [0, 10, 20]
        assert list(layer.scale) == list(layers[4].scale)
        qtbot.mouseClick(widget.box.layers_button, LEFT)
        assert len(names(widget)) == 5  # what was corrected is no stack of the session

    def test_layers_are_followed(self, layers, widget, qtbot, viewer):
        """Renamed, removed, with other frames."""
        layers[0].name = "first"
        assert names(widget)[0] == "first"
        viewer.layers.remove(layers[1])
        assert names(widget) == ["first", "movie_3", "movie_4", "array"]
        assert widget.koma.problem() == ""
        layers[4].data = np.ones((3, *SHAPE), np.uint8)
        assert widget.koma.problem() != ""

    def test_a_layer_may_go_while_it_is_read(self, layers, widget, qtbot, viewer, paths, gate):
        qtbot.mouseClick(
            widget.filter_outliers, LEFT, pos=QPoint(8, widget.filter_outliers.height() // 2)
        )
        gate.close(paths[2], 3)
        with qtbot.waitSignal(widget.reading.returned):
            qtbot.mouseClick(widget.reading.start_button, LEFT)
            qtbot.waitUntil(gate.reached.is_set)
            viewer.layers.remove(layers[2])
            gate.opened.set()
        assert [entry.name for entry in widget.koma.reading.entries] == [
            "movie_1", "movie_2", "movie_4", "array",
        ]  # fmt: skip

    def test_layers_may_change_when_the_widget_is_gone(self, layers, widget, qtbot, viewer):
        close(widget, viewer, qtbot)
        layers[0].name = "other"
        layers[0].scale = (1, 2, 2)
        viewer.layers.clear()
        viewer.theme = "light"
