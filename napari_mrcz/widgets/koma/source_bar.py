"""Where the stacks come from, and the buttons that order them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QWidget

from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.koma.model import by_name, by_time

if TYPE_CHECKING:
    from collections.abc import Callable


class SourceBar(QWidget):
    """Buttons for a folder and for the open layers.

    Attributes
    ----------
    folder_chosen : Signal(str)
        In a dialog.
    layers_wanted : Signal()
        The open layers are.
    """

    folder_chosen = Signal(str)
    layers_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._folder = ""
        self.folder = push_button(
            "Add folder…",
            "Add all movies of a folder, by acquisition time or, without it, by name",
        )
        self.layers = push_button("Add open layers", "Add the movies open in napari, oldest first")
        _row(self, self.folder, self.layers)
        self.folder.clicked.connect(self._ask)
        self.layers.clicked.connect(self.layers_wanted)

    @Slot()
    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Movies of a session", self._folder)
        if folder:
            self._folder = folder
            self.folder_chosen.emit(folder)


class OrderBar(QWidget):
    """Buttons that move, sort and remove stacks.

    Attributes
    ----------
    moved : Signal(int)
        The selected stacks are to go up (-1) or down (1).
    sorted : Signal(object)
        All are to be sorted by this key.
    removed : Signal()
        The selected stacks are to go.
    """

    moved = Signal(int)
    sorted = Signal(object)
    removed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.up = push_button("▲", "Move the selected stacks up: acquired earlier")
        self.down = push_button("▼", "Move the selected stacks down: acquired later")
        self.sort = push_button("Sort", "Put all stacks in the order of acquisition")
        self.remove = push_button("Remove", "Take the selected stacks off the list; files stay")
        menu = QMenu(self)
        self.sort_actions = {
            text: self._action(menu, text, key)
            for text, key in (("By name", by_name), ("By time of the file", by_time))
        }
        self.sort.setMenu(menu)
        _row(self, self.up, self.down, self.sort, self.remove)
        self.up.clicked.connect(lambda: self.moved.emit(-1))
        self.down.clicked.connect(lambda: self.moved.emit(1))
        self.remove.clicked.connect(self.removed)

    def _action(self, menu: QMenu, text: str, key: Callable[..., Any]) -> Any:
        action: Any = menu.addAction(text)
        action.triggered.connect(lambda: self.sorted.emit(key))
        return action


def _row(widget: QWidget, *parts: QWidget) -> None:
    row = QHBoxLayout(widget)
    row.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        row.addWidget(part)
