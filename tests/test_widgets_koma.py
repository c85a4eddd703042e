"""The KOMA widget in a real window: dropping, ticking, dragging, sliding, cancelling, closing."""

import threading
from pathlib import Path

import numpy as np
import pytest
from mouse import drag_line
from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, QRect, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QCheckBox,
    QFileDialog,
    QLineEdit,
    QMessageBox,
    QScrollArea,
    QSlider,
    QStyle,
    QStyleOptionViewItem,
)

import napari_mrcz as nm
from napari_mrcz import folders
from napari_mrcz.simulation import CARBON_EDGE, simulate_session
from napari_mrcz.widgets.base.job import Job
from napari_mrcz.widgets.base.theme import contrast_ratio, palette
from napari_mrcz.widgets.koma.widget import KomaSession

N_STACKS, N_FRAMES, SHAPE = 9, 6, (64, 80)
CARBON = 4
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Give each test a cache folder of its own."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(folders.platformdirs, "user_cache_dir", lambda *a, **k: cache)


@pytest.fixture(autouse=True)
def all_progress(monkeypatch):
    """Show every step of progress: small sessions are done before the first is due."""
    monkeypatch.setattr("napari_mrcz.widgets.base.job._REPORT_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def session_folder(tmp_path_factory) -> Path:
    """Return a folder with a session of nine movies, of which one shows carbon."""
    folder = tmp_path_factory.mktemp("session")
    session = simulate_session(
        N_STACKS, N_FRAMES, SHAPE, dose=2.0, exceptions={CARBON: CARBON_EDGE}, seed=4
    )
    for index, movie in enumerate(session.iter_movies(), start=1):
        nm.write(folder / f"movie_{index}.mrc", movie.frames, pixel_size=(0, 1.35, 1.35))
    return folder


@pytest.fixture
def paths(session_folder) -> list[Path]:
    """Return the movies in order."""
    return [session_folder / f"movie_{index}.mrc" for index in range(1, N_STACKS + 1)]


@pytest.fixture
def viewer(make_napari_viewer):
    """Return an empty viewer with a window."""
    return make_napari_viewer()


@pytest.fixture
def widget(viewer) -> KomaSession:
    """Return the widget as napari docks it, empty."""
    widget = KomaSession(viewer)
    viewer.window.add_dock_widget(widget, name="Session: KOMA")
    return widget


@pytest.fixture
def read(widget, qtbot, session_folder) -> KomaSession:
    """Return the widget with the session read."""
    drop(widget, files(session_folder))
    read_session(qtbot, widget)
    return widget


def read_session(qtbot, widget) -> None:
    """Press "Read session" and wait."""
    with qtbot.waitSignal(widget.reading.ended):
        qtbot.mouseClick(widget.reading.start_button, LEFT)
    settle(qtbot, widget)


def settle(qtbot, widget) -> None:
    """Wait until all is shown that was asked for."""
    qtbot.waitUntil(lambda: not widget.busy)


def files(*paths: Path) -> QMimeData:
    """Return what a file manager drops."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    return data


def drop(target, data: QMimeData, at: QPoint | None = None) -> None:
    """Drag something onto a widget and let it go."""
    at = at if at is not None else target.rect().center()
    action, none = Qt.DropAction.MoveAction, Qt.KeyboardModifier.NoModifier
    for event in (
        QDragEnterEvent(at, action, data, LEFT, none),
        QDragMoveEvent(at, action, data, LEFT, none, QEvent.Type.DragMove),
        QDropEvent(QPointF(at), action, data, LEFT, none),
    ):
        QApplication.sendEvent(target, event)
        QApplication.processEvents()


def row_rect(widget: KomaSession, row: int) -> QRect:
    """Return where a stack is shown, scrolled to."""
    index = widget.box.stacks.model().index(row)
    widget.box.stacks.scrollTo(index)
    return widget.box.stacks.visualRect(index)


def click_tick(qtbot, widget: KomaSession, row: int) -> None:
    """Click the tick of a stack."""
    option = QStyleOptionViewItem()
    widget.box.stacks.initViewItemOption(option)
    option.rect = row_rect(widget, row)
    option.features |= QStyleOptionViewItem.ViewItemFeature.HasCheckIndicator
    box = widget.box.stacks.style().subElementRect(
        QStyle.SubElement.SE_ItemViewItemCheckIndicator, option, widget.box.stacks
    )
    qtbot.mouseClick(widget.box.stacks.viewport(), LEFT, pos=box.center())


def click_row(qtbot, widget: KomaSession, row: int) -> None:
    """Select a stack."""
    rect = row_rect(widget, row)
    qtbot.mouseClick(
        widget.box.stacks.viewport(), LEFT, pos=QPoint(rect.right() - 10, rect.center().y())
    )


def click_box(qtbot, box: QCheckBox) -> None:
    """Click the tick of a check box."""
    qtbot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))


def close(qtbot, viewer, widget: KomaSession) -> None:
    """Close the widget, as its dock's cross does."""
    gone = []
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))


def names(widget: KomaSession) -> list[str]:
    """Return the stacks as they are listed."""
    model = widget.box.stacks.model()
    lines = [model.index(row).data().splitlines()[0] for row in range(model.rowCount())]
    return [line.split()[-1] for line in lines]


def choose_folder(monkeypatch, folder: Path) -> None:
    """Have the dialog for a folder give this one."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *args: str(folder))


def press(text: str, asked: list[str]) -> None:
    """Press a button of the question that is about to be asked, and note the question."""

    def click() -> None:
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(10, click)
            return
        asked.append(box.text())
        next(b for b in box.buttons() if b.text().replace("&", "") == text).click()

    QTimer.singleShot(0, click)


class Gate:
    """Holds back the reading of one frame of one stack, from when it is closed until opened."""

    def __init__(self, monkeypatch) -> None:
        self.path, self.frame = "", -1
        self.reached, self.opened = threading.Event(), threading.Event()
        from napari_mrcz.format import FrameReader

        original = FrameReader.read_frame

        def gated(reader, frame, out=None):
            if str(reader.path) == self.path and frame == self.frame:
                self.reached.set()
                assert self.opened.wait(20)
            return original(reader, frame, out)

        monkeypatch.setattr(FrameReader, "read_frame", gated)

    def close(self, path: Path, frame: int) -> None:
        """Hold back a frame."""
        self.path, self.frame = str(path), frame


@pytest.fixture
def gate(monkeypatch):
    """Return a gate that is open in the end."""
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()


class TestTheList:
    """Where stacks come from, and in which order."""

    def test_a_folder_is_chosen_in_a_dialog(self, widget, qtbot, session_folder, monkeypatch):
        choose_folder(monkeypatch, session_folder)
        qtbot.mouseClick(widget.box.sources.folder, LEFT)
        assert names(widget) == [f"movie_{i}.mrc" for i in range(1, N_STACKS + 1)]
        assert widget.reading.start_button.isEnabled()
        assert not widget.export.controls.start_button.isEnabled()
        assert widget.export.controls.start_button.toolTip() == "Read the session first."

    @pytest.mark.parametrize("onto", ["panel", "list"])
    def test_files_are_dropped(self, widget, paths, onto):
        drop(widget if onto == "panel" else widget.box.stacks.viewport(), files(*paths[:3]))
        assert names(widget) == [path.name for path in paths[:3]]

    def test_an_empty_folder_is_told(self, widget, tmp_path):
        drop(widget, files(tmp_path))
        assert widget.box.details.text() == "There are no movies in this folder."

    def test_stacks_are_dragged(self, read, qtbot):
        """The first between the third and the fourth; the curve follows, nothing is read again."""
        data = read.box.stacks.model().mimeData([read.box.stacks.model().index(0)])
        fourth = row_rect(read, 3)
        with qtbot.waitSignal(read.curve_shown):
            drop(read.box.stacks.viewport(), data, QPoint(60, fourth.top() + 1))
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
        drop(read.box.stacks.viewport(), data, QPoint(60, 2))
        assert names(read) == before

    def test_buttons_move_and_remove(self, read, qtbot):
        click_row(qtbot, read, 2)
        qtbot.mouseClick(read.box.order.up, LEFT)
        assert names(read)[:3] == ["movie_1.mrc", "movie_3.mrc", "movie_2.mrc"]
        qtbot.mouseClick(read.box.order.down, LEFT)
        qtbot.mouseClick(read.box.order.down, LEFT)
        assert names(read)[:4] == ["movie_1.mrc", "movie_2.mrc", "movie_4.mrc", "movie_3.mrc"]
        read.box.order.sort_actions["By name"].trigger()
        assert names(read)[:4] == ["movie_1.mrc", "movie_2.mrc", "movie_3.mrc", "movie_4.mrc"]
        qtbot.mouseClick(read.box.order.remove, LEFT)
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
        assert "robust standard deviations" in index.data(Qt.ItemDataRole.ToolTipRole)
        click_row(qtbot, read, CARBON)
        assert "robust standard deviations" in read.box.details.text()
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
        drop(widget, files(session_folder))
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
        drop(widget, files(session_folder))
        widget.koma.set_enters(widget.koma.entries[0], False)
        assert widget.box.stacks.current is None
        read_session(qtbot, widget)
        assert widget.box.stacks.selected == [widget.koma.entries[1]]
        assert widget.preview_button.isEnabled()

    def test_what_was_selected_stays_selected(self, widget, qtbot, session_folder):
        drop(widget, files(session_folder))
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
        drop(widget, files(session_folder))
        gate.close(paths[3], 2)
        qtbot.mouseClick(widget.reading.start_button, LEFT)
        qtbot.waitUntil(gate.reached.is_set)
        close(qtbot, viewer, widget)
        gate.opened.set()

    def test_a_stack_may_be_removed_meanwhile(self, widget, qtbot, paths, gate, session_folder):
        drop(widget, files(session_folder))
        gate.close(paths[3], 2)
        with qtbot.waitSignal(widget.reading.returned):
            qtbot.mouseClick(widget.reading.start_button, LEFT)
            qtbot.waitUntil(gate.reached.is_set)
            click_row(qtbot, widget, 0)
            qtbot.mouseClick(widget.box.order.remove, LEFT)
            gate.opened.set()
        assert len(widget.koma.reading.entries) == N_STACKS - 1

    def test_other_sums_are_read_when_outliers_are_filtered(self, read, qtbot, paths):
        before = read.radius.noise.getOriginalDataset()[1]
        qtbot.mouseClick(
            read.filter_outliers, LEFT, pos=QPoint(8, read.filter_outliers.height() // 2)
        )
        assert read.koma.reading is None
        assert not read.radius.noise.isVisible()
        read_session(qtbot, read)
        after = read.radius.noise.getOriginalDataset()[1]
        assert read.koma.choice().fits is not None
        assert not np.allclose(before, after)

    def test_a_bad_file_is_named(self, widget, qtbot, paths, tmp_path):
        """In red; the others are read."""
        (tmp_path / "bad.mrc").write_bytes(b"no movie at all")
        drop(widget, files(tmp_path, *paths))
        read_session(qtbot, widget)
        assert "1 cannot be used: bad.mrc" in widget.reading.status.text()
        row = names(widget).index("bad.mrc")
        index = widget.box.stacks.model().index(row)
        red, green, _, _ = index.data(Qt.ItemDataRole.ForegroundRole).getRgb()
        assert red > green + 30
        assert not widget.box.stacks.model().flags(index) & Qt.ItemFlag.ItemIsUserCheckable
        click_row(qtbot, widget, row)
        assert widget.box.details.text().startswith("bad.mrc cannot be read: ")
        assert not widget.preview_button.isEnabled()
        assert widget.export.controls.start_button.isEnabled()


class TestTheRadius:
    """Slider, number and line are in step."""

    def test_the_slider_moves_the_rest(self, read, qtbot):
        qtbot.keyClick(read.radius.slider, Qt.Key.Key_Left)
        assert read.koma.radius == read.radius.number.value() == read.radius.marker.value() == 2
        assert read.noise.text().startswith("a = 2: ")

    def test_the_number_moves_the_rest(self, read, qtbot):
        field = read.radius.number.lineEdit()
        field.selectAll()
        qtbot.keyClicks(field, "1")
        qtbot.keyClick(field, Qt.Key.Key_Enter)
        assert read.koma.radius == read.radius.slider.value() == read.radius.marker.value() == 1

    def test_the_line_moves_the_rest(self, read, qtbot):
        """It comes to stand at a whole number."""
        read.findChild(QScrollArea).ensureWidgetVisible(read.radius)
        drag_line(read.radius.plot, 3.0, 1.2)
        assert read.koma.radius == read.radius.slider.value() == read.radius.number.value() == 1
        assert read.radius.marker.value() == 1

    def test_an_average_too_noisy_to_help_is_told(self, widget, qtbot, tmp_path):
        """Movies of an even camera have no noise in common that neighbours could take away."""
        rng = np.random.default_rng(0)
        for index in range(5):
            nm.write(tmp_path / f"{index}.mrc", rng.poisson(2.0, (6, 64, 64)).astype(np.uint8))
        drop(widget, files(tmp_path))
        read_session(qtbot, widget)
        assert "brings in more noise than it takes away" in widget.noise.text()
        widget.noise.setText("")
        fixed = rng.normal(4.0, 1.0, (64, 64)).clip(0.1)
        for index in range(5):
            movie = rng.poisson(fixed, (6, 64, 64)).astype(np.uint8)
            nm.write(tmp_path / f"{index}.mrc", movie, overwrite=True)
        read_session(qtbot, widget)
        assert widget.noise.text().startswith("a = 2: ")
        assert "more noise" not in widget.noise.text()


class TestThePreview:
    """One stack corrected, as a layer."""

    def test_it_follows_what_is_chosen(self, read, qtbot, viewer, paths):
        """Stack, radius, mean, ticks: each the frames that Koma gives."""
        click_row(qtbot, read, 3)
        with qtbot.waitSignal(read.preview_layer.shown):
            qtbot.mouseClick(read.preview_button, LEFT)
        (layer,) = viewer.layers
        self.check(layer, paths, 3, radius=3)
        assert layer.name == "KOMA: movie_4.mrc"
        assert [str(unit) for unit in layer.units] == ["pixel", "angstrom", "angstrom"]
        assert list(layer.scale) == [1, 1.35, 1.35]
        with qtbot.waitSignal(read.preview_layer.shown):
            qtbot.keyClick(read.radius.slider, Qt.Key.Key_Left)
            qtbot.keyClick(read.radius.slider, Qt.Key.Key_Left)
        self.check(layer, paths, 3, radius=1)
        with qtbot.waitSignal(read.preview_layer.shown):
            click_box(qtbot, read.keep_mean)
        self.check(layer, paths, 3, radius=1, keep_mean=False)
        with qtbot.waitSignal(read.preview_layer.shown):
            click_tick(qtbot, read, 2)
        self.check(layer, paths, 3, radius=1, keep_mean=False, exclude=[2, CARBON])
        click_row(qtbot, read, 0)
        rect = row_rect(read, 0)
        with qtbot.waitSignal(read.preview_layer.shown):
            qtbot.mouseDClick(read.box.stacks.viewport(), LEFT, pos=rect.center())
        self.check(layer, paths, 0, radius=1, keep_mean=False, exclude=[2, CARBON])
        assert layer.name == "KOMA: movie_1.mrc"
        assert list(viewer.layers) == [layer]

    def test_many_changes_make_one_preview(self, read, qtbot):
        click_row(qtbot, read, 3)
        with qtbot.waitSignal(read.preview_layer.shown):
            qtbot.mouseClick(read.preview_button, LEFT)
        shown = []
        read.preview_layer.shown.connect(lambda layer: shown.append(layer.name))
        for key in (Qt.Key.Key_Left, Qt.Key.Key_Left, Qt.Key.Key_Right):
            qtbot.keyClick(read.radius.slider, key)
        settle(qtbot, read)
        assert len(shown) == 1

    def test_a_layer_that_was_removed_does_not_come_back(self, read, qtbot, viewer):
        click_row(qtbot, read, 3)
        with qtbot.waitSignal(read.preview_layer.shown):
            qtbot.mouseClick(read.preview_button, LEFT)
        viewer.layers.clear()
        qtbot.keyClick(read.radius.slider, Qt.Key.Key_Left)
        settle(qtbot, read)
        assert not viewer.layers

    def test_the_widget_may_be_closed_meanwhile(self, read, qtbot, viewer, paths, gate):
        click_row(qtbot, read, 3)
        gate.close(paths[3], 0)
        qtbot.mouseClick(read.preview_button, LEFT)
        qtbot.waitUntil(gate.reached.is_set)
        close(qtbot, viewer, read)
        gate.opened.set()
        qtbot.waitUntil(lambda: not Job._running)
        assert not viewer.layers

    @staticmethod
    def check(layer, paths, index, radius, keep_mean=True, exclude=(CARBON,)) -> None:
        """See that a layer shows what Koma gives."""
        koma = nm.Koma(paths, radius, keep_mean=keep_mean, exclude=exclude)
        with nm.open(paths[index]) as stack:
            expected = np.asarray(stack.apply(koma[index]))
        np.testing.assert_array_equal(np.asarray(layer.data), expected)


class TestCorrectingAll:
    """The whole session into a folder."""

    def test_the_files_are_those_of_koma(self, read, qtbot, paths, tmp_path, monkeypatch):
        """Named like their sources."""
        choose_folder(monkeypatch, tmp_path)
        with qtbot.waitSignal(read.export.finished) as ended:
            qtbot.mouseClick(read.export.controls.start_button, LEFT)
        (done,) = ended.args
        assert done.ok
        assert read.export.controls.status.text() == str(done)
        assert sorted(p.name for p in tmp_path.iterdir()) == [f"{p.stem}.mrcz" for p in paths]
        koma = nm.Koma(paths, 3)
        for index, path in enumerate(paths):
            with nm.open(path) as stack:
                expected = np.asarray(stack.apply(koma[index]))
            np.testing.assert_array_equal(nm.read(tmp_path / f"{path.stem}.mrcz"), expected)

    def test_it_can_be_cancelled_in_the_middle(self, read, qtbot, paths, tmp_path, gate):
        """Files written stay; of the one under way nothing does."""
        gate.close(paths[2], 4)
        with qtbot.waitSignal(read.export.finished) as ended:
            read.export.correct_into(str(tmp_path))
            qtbot.waitUntil(gate.reached.is_set)
            qtbot.waitUntil(
                lambda: "stack 3 of 9, movie_3.mrc" in read.export.controls.status.text()
            )
            assert read.export.controls.progress.maximum() == N_STACKS * N_FRAMES
            qtbot.mouseClick(read.export.controls.cancel_button, LEFT)
            gate.opened.set()
        assert ended.args[0].cancelled
        assert sorted(p.name for p in tmp_path.iterdir()) == ["movie_1.mrcz", "movie_2.mrcz"]
        assert read.export.controls.status.text().startswith("Cancelled. 2 stacks corrected")
        assert read.export.controls.start_button.isEnabled()

    def test_the_pace_is_told(self, read, qtbot, paths, tmp_path, gate):
        """In MB/s."""
        gate.close(paths[-1], 4)
        with qtbot.waitSignal(read.export.finished):
            read.export.correct_into(str(tmp_path))
            qtbot.waitUntil(gate.reached.is_set)
            qtbot.waitUntil(lambda: "B/s" in read.export.controls.status.text())
            gate.opened.set()

    @pytest.mark.parametrize("answer", ["Replace", "Skip", "Cancel"])
    def test_existing_files_are_asked_about(self, read, qtbot, tmp_path, answer):
        old = tmp_path / "movie_2.mrcz"
        old.write_bytes(b"old")
        asked: list[str] = []
        press(answer, asked)
        if answer == "Cancel":
            read.export.correct_into(str(tmp_path))
            assert not read.busy
        else:
            with qtbot.waitSignal(read.export.finished):
                read.export.correct_into(str(tmp_path))
        assert "1 of 9 files exist already" in asked[0] and "movie_2.mrcz" in asked[0]
        assert (old.read_bytes() == b"old") is (answer != "Replace")
        assert len(list(tmp_path.iterdir())) == (1 if answer == "Cancel" else N_STACKS)

    def test_sources_are_not_overwritten(self, widget, qtbot, paths, tmp_path):
        for path in paths[:4]:
            nm.write(tmp_path / f"{path.stem}.mrcz", nm.read(path))
        before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
        drop(widget, files(tmp_path))
        read_session(qtbot, widget)
        widget.export.correct_into(str(tmp_path))
        assert "Choose another folder" in widget.export.controls.status.text()
        assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before

    def test_failures_are_named_in_the_end(self, widget, qtbot, paths, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "in" / "bad.mrc").write_bytes(b"no movie at all")
        drop(widget, files(tmp_path / "in", *paths))
        read_session(qtbot, widget)
        with qtbot.waitSignal(widget.export.finished):
            widget.export.correct_into(str(tmp_path / "out"))
        status = widget.export.controls.status
        assert "9 stacks corrected" in status.text() and "bad.mrc: cannot be read" in status.text()
        assert palette("dark").warning in status.styleSheet()

    def test_the_widget_may_be_closed_in_the_middle(
        self, read, qtbot, viewer, paths, tmp_path, gate
    ):
        """The rest is not done, and napari says so."""
        from napari.utils.notifications import notification_manager

        notification_manager.records.clear()
        gate.close(paths[2], 4)
        read.export.correct_into(str(tmp_path))
        qtbot.waitUntil(gate.reached.is_set)
        close(qtbot, viewer, read)
        gate.opened.set()
        qtbot.waitUntil(lambda: len(notification_manager.records) == 1)
        assert "Cancelled. 2 stacks" in str(notification_manager.records[0].message)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["movie_1.mrcz", "movie_2.mrcz"]


class TestOpenLayers:
    """A session of layers."""

    @pytest.fixture
    def layers(self, viewer, widget, qtbot, paths):
        """Return the layers of five movies, added and read."""
        for path in paths[:4]:
            viewer.open(path, plugin="napari-mrcz")
        viewer.add_image(nm.read(paths[5]), name="array", contrast_limits=(0, 4))
        viewer.add_image(np.zeros((8, 9)), name="an image")
        qtbot.mouseClick(widget.box.sources.layers, LEFT)
        read_session(qtbot, widget)
        return list(viewer.layers)

    def test_they_are_in_the_order_of_opening(self, layers, widget, qtbot):
        """What is no movie is passed over, and what is there is not added again."""
        assert names(widget) == ["movie_1", "movie_2", "movie_3", "movie_4", "array"]
        qtbot.mouseClick(widget.box.sources.layers, LEFT)
        assert len(names(widget)) == 5
        assert widget.box.details.text() == "No further movies are open in napari."

    def test_a_preview_lies_where_its_layer_does(self, layers, widget, qtbot, viewer):
        layers[4].translate = (0, 10, 20)
        click_row(qtbot, widget, 4)
        with qtbot.waitSignal(widget.preview_layer.shown):
            qtbot.mouseClick(widget.preview_button, LEFT)
        layer = viewer.layers[-1]
        assert list(layer.translate) == [0, 10, 20]
        assert list(layer.scale) == list(layers[4].scale)
        qtbot.mouseClick(widget.box.sources.layers, LEFT)
        assert len(names(widget)) == 5  # what was corrected is no stack of the session

    def test_layers_are_followed(self, layers, widget, qtbot, viewer):
        """Renamed, removed, with other frames."""
        layers[0].name = "first"
        assert names(widget)[0] == "first"
        viewer.layers.remove(layers[1])
        assert names(widget) == ["first", "movie_3", "movie_4", "array"]
        assert widget.koma.problem() == ""
        layers[4].data = np.ones((3, *SHAPE), np.uint8)
        assert widget.koma.problem() == "Read the session first."

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
        close(qtbot, viewer, widget)
        layers[0].name = "other"
        layers[0].scale = (1, 2, 2)
        viewer.layers.clear()
        viewer.theme = "light"


def test_session_plots_are_drawn_on_demand(read, qtbot, paths):
    """Outliers by dose, and noise."""
    assert not read.ageing_view.isVisibleTo(read)
    with qtbot.waitSignal(read.ageing.returned) as ended:
        qtbot.mouseClick(read.ageing.start_button, LEFT)
    assert read.ageing_view.isVisibleTo(read)
    dose, hot = read.ageing_view.hot.getData()
    assert hot.tolist() == [nm.OutlierFilter.fit(nm.read(path)).n_hot for path in paths]
    np.testing.assert_allclose(dose, ended.args[0].dose)
    click_row(qtbot, read, 0)
    qtbot.mouseClick(read.box.order.remove, LEFT)
    assert not read.ageing_view.isVisibleTo(read)  # it was of another session


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_follow_the_theme(read, viewer, theme):
    viewer.theme = theme
    colours = palette(theme)
    assert read.radius.noise.opts["pen"].color().name() == colours.accent
    grey = read.box.stacks.model().index(CARBON).data(Qt.ItemDataRole.ForegroundRole).name()
    assert contrast_ratio(grey, colours.foreground) >= 4.5
    assert grey != colours.text
    assert colours.warning in read.radius.key.text()


def test_every_control_explains_itself(read):
    """By a tooltip."""
    kinds = (QAbstractButton, QAbstractSpinBox, QSlider)
    controls = [control for kind in kinds for control in read.findChildren(kind)]
    assert len(controls) >= 15
    silent = [c for c in controls if not c.toolTip() and not c.objectName().startswith("qt_")]
    assert [c for c in silent if not isinstance(c.parent(), QAbstractSpinBox | QLineEdit)] == []


@pytest.mark.parametrize("width", [320, 600])
def test_it_fits_its_dock(read, width):
    """Nothing sticks out, and nothing is scrolled sideways."""
    read.resize(width, 700)
    assert read.findChild(QScrollArea).widget().minimumSizeHint().width() <= width
