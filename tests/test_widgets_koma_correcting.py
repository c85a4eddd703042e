"""The KOMA widget corrects in a viewer: radius, preview, the whole session, its looks."""

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
    settle,
    widget,
)
from koma_session import CARBON, N_FRAMES, N_STACKS, paths, session_folder
from mouse import drag_line, dragged, drop
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QMessageBox,
    QScrollArea,
)

import napari_mrcz as nm
from napari_mrcz.widgets.base.job import Job
from napari_mrcz.widgets.base.plot import contrast_ratio, palette
from napari_mrcz.widgets.koma.model import folder_problem
from napari_mrcz.widgets.koma.widget import KomaSession

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


def click_box(qtbot, box: QCheckBox) -> None:
    """Click the tick of a check box."""
    qtbot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))


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
        drop(widget, dragged(tmp_path))
        read_session(qtbot, widget)
        assert "brings in more noise than it takes away" in widget.noise.text()
        assert "stay as they are" in widget.noise.text()
        widget.options.fields["even_if_worse"].native.click()
        assert "stay as they are" not in widget.noise.text()
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
        with qtbot.waitSignal(read.previewed):
            qtbot.mouseClick(read.preview_button, LEFT)
        (layer,) = viewer.layers
        self.check(layer, paths, 3, radius=3)
        assert layer.name == "KOMA: movie_4.mrc"
        assert [str(unit) for unit in layer.units] == ["pixel", "angstrom", "angstrom"]
        assert list(layer.scale) == [1, 1.35, 1.35]
        with qtbot.waitSignal(read.previewed):
            qtbot.keyClick(read.radius.slider, Qt.Key.Key_Left)
            qtbot.keyClick(read.radius.slider, Qt.Key.Key_Left)
        self.check(layer, paths, 3, radius=1)
        with qtbot.waitSignal(read.previewed):
            read.options.fields["keep_mean"].native.click()
        self.check(layer, paths, 3, radius=1, keep_mean=False)
        with qtbot.waitSignal(read.previewed):
            click_tick(qtbot, read, 2)
        self.check(layer, paths, 3, radius=1, keep_mean=False, exclude=[2, CARBON])
        click_row(qtbot, read, 0)
        rect = row_rect(read, 0)
        with qtbot.waitSignal(read.previewed):
            qtbot.mouseDClick(read.box.stacks.viewport(), LEFT, pos=rect.center())
        self.check(layer, paths, 0, radius=1, keep_mean=False, exclude=[2, CARBON])
        assert layer.name == "KOMA: movie_1.mrc"
        assert list(viewer.layers) == [layer]

    def test_many_changes_make_one_preview(self, read, qtbot):
        click_row(qtbot, read, 3)
        with qtbot.waitSignal(read.previewed):
            qtbot.mouseClick(read.preview_button, LEFT)
        shown = []
        read.previewed.connect(lambda layer: shown.append(layer.name))
        for key in (Qt.Key.Key_Left, Qt.Key.Key_Left, Qt.Key.Key_Right):
            qtbot.keyClick(read.radius.slider, key)
        settle(qtbot, read)
        assert len(shown) == 1

    def test_a_layer_that_was_removed_does_not_come_back(self, read, qtbot, viewer):
        click_row(qtbot, read, 3)
        with qtbot.waitSignal(read.previewed):
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
        close(read, viewer, qtbot)
        gate.opened.set()
        qtbot.waitUntil(lambda: not Job._running)
        assert not viewer.layers

    @staticmethod
    def check(layer, paths, index, radius, keep_mean=True, exclude=(CARBON,)) -> None:
        """Check that a layer shows what Koma returns."""
        koma = nm.Koma(paths, radius, keep_mean=keep_mean, exclude=exclude)
        with nm.open(paths[index]) as stack:
            expected = np.asarray(stack.apply(koma[index]))
        np.testing.assert_array_equal(np.asarray(layer.data), expected)


class TestCorrectingAll:
    """The whole session into a folder."""

    def test_the_files_are_those_of_koma(self, read, qtbot, paths, tmp_path, monkeypatch):
        """Named like their sources; how large they will be is told before."""
        assert read.folder.text() == str(paths[0].parent / "koma")
        choose_folder(monkeypatch, tmp_path)
        qtbot.mouseClick(read.browse, LEFT)
        settle(qtbot, read)
        assert read.estimate.text().startswith(f"To be written: {N_STACKS} stacks, about ")
        with qtbot.waitSignal(read.corrected) as ended:
            qtbot.mouseClick(read.export.start_button, LEFT)
        (done,) = ended.args
        assert done.ok
        assert read.export.status.text() == str(done)
        assert sorted(p.name for p in tmp_path.iterdir()) == [f"{p.stem}.mrcz" for p in paths]
        koma = nm.Koma(paths, 3)
        for index, path in enumerate(paths):
            with nm.open(path) as stack:
                expected = np.asarray(stack.apply(koma[index]))
            np.testing.assert_array_equal(nm.read(tmp_path / f"{path.stem}.mrcz"), expected)

    def test_it_can_be_cancelled_in_the_middle(self, read, qtbot, paths, tmp_path, gate):
        """Files written stay; of the one under way nothing does."""
        gate.close(paths[2], 4)
        with qtbot.waitSignal(read.corrected) as ended:
            read.correct_into(str(tmp_path))
            qtbot.waitUntil(gate.reached.is_set)
            qtbot.waitUntil(lambda: "stack 3 of 9, movie_3.mrc" in read.export.status.text())
            assert read.export.progress.maximum() == N_STACKS * N_FRAMES
            qtbot.mouseClick(read.export.cancel_button, LEFT)
            gate.opened.set()
        assert ended.args[0].cancelled
        assert sorted(p.name for p in tmp_path.iterdir()) == ["movie_1.mrcz", "movie_2.mrcz"]
        assert read.export.status.text() == str(ended.args[0])
        assert read.export.start_button.isEnabled()

    def test_the_pace_is_told(self, read, qtbot, paths, tmp_path, gate):
        """In MB/s."""
        gate.close(paths[-1], 4)
        with qtbot.waitSignal(read.corrected):
            read.correct_into(str(tmp_path))
            qtbot.waitUntil(gate.reached.is_set)
            qtbot.waitUntil(lambda: "B/s" in read.export.status.text())
            gate.opened.set()

    @pytest.mark.parametrize("answer", ["Replace", "Skip", "Cancel"])
    def test_existing_files_are_asked_about(self, read, qtbot, tmp_path, answer):
        old = tmp_path / "movie_2.mrcz"
        old.write_bytes(b"old")
        asked: list[str] = []
        press(answer, asked)
        if answer == "Cancel":
            read.correct_into(str(tmp_path))
            assert not read.export.running
        else:
            with qtbot.waitSignal(read.corrected):
                read.correct_into(str(tmp_path))
        assert "1 of 9 files exist already" in asked[0] and "movie_2.mrcz" in asked[0]
        assert (old.read_bytes() == b"old") is (answer != "Replace")
        assert len(list(tmp_path.iterdir())) == (1 if answer == "Cancel" else N_STACKS)

    def test_sources_are_not_overwritten(self, widget, qtbot, paths, tmp_path):
        for path in paths[:4]:
            nm.write(tmp_path / f"{path.stem}.mrcz", nm.read(path))
        before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
        drop(widget, dragged(tmp_path))
        read_session(qtbot, widget)
        widget.correct_into(str(tmp_path))
        entries = widget.koma.entries
        problem = folder_problem(tmp_path, entries)
        assert widget.export.status.text() == problem != ""
        assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before

    def test_failures_are_named_in_the_end(self, widget, qtbot, paths, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "out").mkdir()
        (tmp_path / "in" / "bad.mrc").write_bytes(b"no movie at all")
        drop(widget, dragged(tmp_path / "in", *paths))
        read_session(qtbot, widget)
        with qtbot.waitSignal(widget.corrected):
            widget.correct_into(str(tmp_path / "out"))
        status = widget.export.status
        assert "9 stacks corrected" in status.text() and "bad.mrc" in status.text()
        assert palette("dark").warning in status.styleSheet()

    @pytest.mark.window
    def test_the_widget_may_be_closed_in_the_middle(
        self, read, qtbot, viewer, paths, tmp_path, gate
    ):
        """The rest is not done, and napari says so."""
        from napari.utils.notifications import notification_manager

        notification_manager.records.clear()
        gate.close(paths[2], 4)
        read.correct_into(str(tmp_path))
        qtbot.waitUntil(gate.reached.is_set)
        close(read, viewer, qtbot)
        gate.opened.set()
        qtbot.waitUntil(lambda: len(notification_manager.records) == 1)
        assert "Cancelled. 2 stacks" in str(notification_manager.records[0].message)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["movie_1.mrcz", "movie_2.mrcz"]


def test_a_new_folder_is_made(read, qtbot, tmp_path):
    """Typed; not where there is no place for it."""
    field, new = read.folder, tmp_path / "new"
    field.setText(str(new / "in nowhere"))
    assert not read.export.start_button.isEnabled()
    assert "no folder" in read.export.start_button.toolTip()
    field.setText(str(new))
    with qtbot.waitSignal(read.corrected) as ended:
        qtbot.mouseClick(read.export.start_button, LEFT)
    assert ended.args[0].ok
    assert len(list(new.iterdir())) == N_STACKS


def test_a_session_is_kept_when_the_dock_is_closed(read, qtbot, viewer):
    """With what was read and chosen; an entry of a layer is not, whose frames it would hold."""
    status = read.reading.status.text()
    viewer.add_image(np.zeros((N_FRAMES, 64, 80)), name="layer")
    read.box.layers_button.click()
    assert len(read.koma.entries) == N_STACKS + 1
    qtbot.keyClick(read.radius.slider, Qt.Key.Key_Left)
    close(read, viewer, qtbot)
    again = KomaSession(viewer)
    viewer.window.add_dock_widget(again)
    settle(qtbot, again)
    assert again.koma.radius == again.radius.slider.value()
    assert again.box.stacks.model().rowCount() == N_STACKS
    assert again.reading.status.text() == status
    assert again.radius.noise.isVisible()
    assert again.options.values()["even_if_worse"]


def test_session_plots_are_drawn_on_demand(read, qtbot, paths):
    """Outliers by dose, and noise."""
    assert not read.ageing_view.isVisibleTo(read)
    read.plots.button.click()
    with qtbot.waitSignal(read.ageing.returned) as ended:
        qtbot.mouseClick(read.ageing.start_button, LEFT)
    assert read.ageing_view.isVisibleTo(read)
    dose, hot = read.ageing_view.hot.getData()
    assert hot.tolist() == [nm.OutlierFilter.fit(nm.read(path)).n_hot for path in paths]
    np.testing.assert_allclose(dose, ended.args[0].dose)
    click_row(qtbot, read, 0)
    qtbot.mouseClick(read.box.remove, LEFT)
    assert not read.ageing_view.isVisibleTo(read)  # it was of another session


def test_colours_follow_the_theme(read, viewer):
    for theme in ("light", "dark"):
        viewer.theme = theme
        colours = palette(theme)
        assert read.radius.noise.opts["pen"].color().name() == colours.accent
        grey = read.box.stacks.model().index(CARBON).data(Qt.ItemDataRole.ForegroundRole).name()
        assert contrast_ratio(grey, colours.foreground) >= 4.5
        assert grey != colours.text
        assert colours.warning in read.radius.key.text()
