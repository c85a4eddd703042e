"""A hand on the mouse: drags, which `qtbot.mouseMove` cannot since it holds no button down.

And drops of what comes from other windows.
"""

from pathlib import Path

import pyqtgraph
from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent, QMouseEvent
from qtpy.QtWidgets import QApplication, QWidget

LEFT = Qt.MouseButton.LeftButton
_STEPS = 6
# pyqtgraph drops moves that follow each other faster than a hand's; here they are all meant.
pyqtgraph.setConfigOption("mouseRateLimit", 0)


def drag(widget: QWidget, start: QPoint, end: QPoint) -> None:
    """Press at one point of a widget, move to another in steps, release."""
    send(widget, QEvent.Type.MouseMove, start, Qt.MouseButton.NoButton, held=False)
    send(widget, QEvent.Type.MouseButtonPress, start, LEFT, held=True)
    for step in range(1, _STEPS + 1):
        at = start + (end - start) * step / _STEPS
        send(widget, QEvent.Type.MouseMove, at, Qt.MouseButton.NoButton, held=True)
    send(widget, QEvent.Type.MouseButtonRelease, end, LEFT, held=False)


def drag_line(plot: pyqtgraph.PlotWidget, start: float, end: float) -> None:
    """Drag an upright line of a plot from one value of x to another."""
    QApplication.processEvents()  # the axes take the width that their numbers need
    view = plot.getPlotItem().getViewBox()
    middle = view.viewRect().center().y()

    def pixel(x: float) -> QPoint:
        return plot.mapFromScene(view.mapViewToScene(QPointF(x, middle)))

    drag(plot.viewport(), pixel(start), pixel(end))


def click_point(plot: pyqtgraph.PlotWidget, x: float, y: float) -> None:
    """Click at a point of a plot, given in what its axes count (logarithms where they do)."""
    QApplication.processEvents()
    scene = plot.getPlotItem().getViewBox().mapViewToScene(QPointF(x, y))
    at, viewport = plot.mapFromScene(scene), plot.viewport()
    send(viewport, QEvent.Type.MouseMove, at, Qt.MouseButton.NoButton, held=False)
    send(viewport, QEvent.Type.MouseButtonPress, at, LEFT, held=True)
    send(viewport, QEvent.Type.MouseButtonRelease, at, LEFT, held=False)


def dragged(*paths: Path) -> QMimeData:
    """Return what a file manager drags."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    return data


def drop(
    onto: QWidget,
    data: QMimeData,
    at: QPoint | None = None,
    action: Qt.DropAction = Qt.DropAction.CopyAction,
) -> bool:
    """Drag something over a widget and let it go; tell whether it was taken."""
    at = onto.rect().center() if at is None else at
    shared = action, data, LEFT, Qt.KeyboardModifier.NoModifier
    events = (
        QDragEnterEvent(at, *shared),
        QDragMoveEvent(at, *shared),
        QDropEvent(QPointF(at), *shared),
    )
    for event in events:
        QApplication.sendEvent(onto, event)
        QApplication.processEvents()
    return all(event.isAccepted() for event in events)


def send(
    widget: QWidget, kind: QEvent.Type, at: QPoint, button: Qt.MouseButton, held: bool
) -> None:
    """Send one event to a widget, and let it take effect."""
    buttons = LEFT if held else Qt.MouseButton.NoButton
    event = QMouseEvent(
        kind,
        QPointF(at),
        QPointF(widget.mapToGlobal(at)),
        button,
        buttons,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(widget, event)
    QApplication.processEvents()
