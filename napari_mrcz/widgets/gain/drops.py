"""Files that are dropped onto a widget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Signal

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget


class FileDrops(QObject):
    """Take single files dropped onto a widget or anything in it.

    Parameters
    ----------
    widget : QWidget
        Which keeps this, too.

    Attributes
    ----------
    dropped : Signal(str)
        The path of a file.
    """

    dropped = Signal(str)

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Accept what is a file, and take it."""
        kinds = (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop)
        if event is None or event.type() not in kinds:
            return False
        path = _path(event)
        if path:
            event.acceptProposedAction()  # type: ignore[attr-defined]
            if event.type() == QEvent.Type.Drop:
                self.dropped.emit(path)
        else:
            event.ignore()
        return True


def _path(event: Any) -> str:
    urls = event.mimeData().urls()
    return urls[0].toLocalFile() if len(urls) == 1 else ""
