"""A dock that is closed, as by its cross."""

from qtpy.QtWidgets import QWidget


def close(widget: QWidget, viewer, qtbot) -> None:
    """Close the dock, and wait until the widget is gone."""
    gone = []
    # PySide takes amiss who lets go of the signal of what is gone, as `qtbot.waitSignal` does.
    widget.destroyed.connect(lambda: gone.append(True))
    viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
