"""A viewer without a canvas, for tests of dock widgets.

Layers, sliders, themes, keys and plugins are napari's own; the docks lie in a plain Qt window.
A napari window costs 2 to 3 s of processor time, this a twentieth of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.components import ViewerModel
from npe2 import PluginManager
from pydantic import PrivateAttr
from qtpy.QtCore import QCoreApplication, QEvent, Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

__all__ = ["DockedViewer", "Docks"]


class DockedViewer(ViewerModel):
    """A viewer whose window has docks and nothing else."""

    _window: Docks | None = PrivateAttr(default=None)

    @property
    def window(self) -> Docks:
        """The window, made when it is first asked for."""
        if self._window is None:
            self._window = Docks(self)
        return self._window

    def close(self) -> None:
        """Destroy the window, and remove all layers."""
        if self._window is not None:  # first: no dock need follow what is removed
            self._window.close()
            self._window = None
        self.layers.clear()
        self.layers.selection.clear()  # it keeps the last layer otherwise


class Docks:
    """A window with docks, with what our widgets and their tests use of napari's `Window`."""

    def __init__(self, viewer: DockedViewer) -> None:
        self._viewer = viewer
        self._qt_window = QMainWindow()
        self.resize(1000, 800)

    def add_dock_widget(self, widget: QWidget, *, name: str = "") -> QDockWidget:
        """Dock a widget at the right."""
        dock = QDockWidget(name, self._qt_window)
        dock.setWidget(widget)
        self._qt_window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
        return dock

    def add_plugin_dock_widget(
        self, plugin: str, title: str, *, tabify: bool = False
    ) -> tuple[QDockWidget, QWidget]:
        """Dock a widget of a plugin, or find the dock that it has."""
        for dock in self._qt_window.findChildren(QDockWidget):
            if dock.windowTitle() == title:
                return dock, dock.widget()
        (found,) = (
            widget
            for widget in PluginManager.instance().iter_widgets()
            if (widget.plugin_name, widget.display_name) == (plugin, title)
        )
        widget = found.exec(kwargs={"napari_viewer": self._viewer})
        return self.add_dock_widget(widget, name=title), widget

    def remove_dock_widget(self, widget: QWidget) -> None:
        """Remove a dock without its widget."""
        dock = widget.parent()
        widget.setParent(None)
        self._qt_window.removeDockWidget(dock)
        dock.deleteLater()

    def resize(self, width: int, height: int) -> None:
        """Resize the window."""
        self._qt_window.resize(width, height)

    def close(self) -> None:
        """Destroy the window with all docks."""
        self._qt_window.close()
        self._qt_window.deleteLater()
        for _ in range(2):  # what is called at a widget's end is deleted after the widget
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            QCoreApplication.processEvents()
