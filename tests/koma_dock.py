"""The KOMA widget in a viewer: a session of movies for it, and a hand on its list."""

import threading
from pathlib import Path

import pytest
from mouse import dragged, drop
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtWidgets import QFileDialog, QStyle, QStyleOptionViewItem

from napari_mrcz.widgets.koma.widget import KomaSession

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(autouse=True)
def all_progress(monkeypatch):
    """Show every step of progress: small sessions are done before the first is due."""
    monkeypatch.setattr("napari_mrcz.widgets.base.job._REPORT_EVERY_S", 0.0)


@pytest.fixture
def widget(viewer) -> KomaSession:
    """Return the widget as napari docks it, empty."""
    widget = KomaSession(viewer)
    viewer.window.add_dock_widget(widget, name="KOMA")
    return widget


@pytest.fixture
def read(widget, qtbot, session_folder) -> KomaSession:
    """Return the widget with the session read."""
    drop(widget, dragged(session_folder))
    read_session(qtbot, widget)
    # Of so few frames the averages are noisier than the camera's pattern.
    widget.options.fields["even_if_worse"].value = True
    return widget


def read_session(qtbot, widget) -> None:
    """Press "Read session" and wait."""
    with qtbot.waitSignal(widget.reading.ended):
        qtbot.mouseClick(widget.reading.start_button, LEFT)
    settle(qtbot, widget)


def settle(qtbot, widget) -> None:
    """Wait until all is shown that was asked for."""
    qtbot.waitUntil(lambda: not widget.busy)


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


def choose_folder(monkeypatch, folder: Path) -> None:
    """Make the dialog for a folder return this one."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *args: str(folder))


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
