"""What was done to a movie, step by step, and doing it again: to a layer, or as a recipe."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QPoint, Signal, Slot
from qtpy.QtWidgets import QMenu, QVBoxLayout, QWidget

from napari_mrcz.stack.inspection import step_entries
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job_controls import JobControls
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.inspector.tree import EntryTree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from napari.layers import Image

_MOST_LINES = 8


class HistoryView(QWidget):
    """The steps of one layer.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    others : callable
        Gives the layers on which the steps may be done again.

    Attributes
    ----------
    layer_chosen : Signal(object)
        The steps are to be done again to this layer.
    recipe_pressed : Signal()
        They are to be saved as a recipe.
    """

    layer_chosen = Signal(object)
    recipe_pressed = Signal()

    def __init__(self, panel: Panel, others: Callable[[], list[Image]]) -> None:
        super().__init__()
        self._others = others
        self.history: tuple[Mapping[str, Any], ...] = ()
        self.summary = WrappedLabel("How many steps there are")
        self.tree = EntryTree("Each step with its parameters, in the order in which it was done")
        tip = "Do the same to another layer; the result is a new layer, and nothing is saved"
        self.controls = JobControls(panel, "Apply to another layer…", tip)
        self.recipe_button = push_button(
            "Save recipe…", "Save the steps as a recipe (TOML), to do them to whole sessions"
        )
        self.controls.buttons.addWidget(self.recipe_button)
        self.recipe_button.clicked.connect(self.recipe_pressed)
        self.menu = QMenu(self)
        self.menu.setToolTip("Layers to which the steps can be done")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        column.addWidget(self.summary)
        column.addWidget(self.tree, 1)
        column.addStretch()
        column.addWidget(self.controls)
        self.controls.start_button.clicked.connect(self._ask)

    def show_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show other steps."""
        self.history = tuple(history)
        count = len(self.history)
        steps = "1 correction" if count == 1 else f"{count} corrections"
        nothing = "No corrections of these frames are known."
        entries = step_entries(self.history)
        lines = [f"{entry.name}: {entry.value}".removesuffix(": ") for entry in entries]
        if count > _MOST_LINES:
            lines[_MOST_LINES:] = [f"and {count - _MOST_LINES} more"]
        told = "\n".join([f"{steps} applied:", *lines])
        self.summary.setText(told if count else nothing)
        self.tree.show_entries(entries)
        self.tree.setVisible(bool(count))
        self.show_state()

    def show_state(self) -> None:
        """Show why the corrections cannot be applied to another layer, if they cannot."""
        problem = "" if self._others() else "Open another movie to apply the corrections to"
        self.controls.allow(problem if self.history else "There are no corrections to apply")
        self.recipe_button.setEnabled(bool(self.history))

    @Slot()
    def _ask(self) -> None:
        self.menu.clear()
        for layer in self._others():
            action = self.menu.addAction(layer.name)
            # The menu stays when it is closed, and must not keep a removed layer's file open.
            action.triggered.connect(partial(self._choose, weakref.ref(layer)))
        button = self.controls.start_button
        self.menu.popup(button.mapToGlobal(QPoint(0, button.height())))

    def _choose(self, chosen: weakref.ref[Image], checked: bool = False) -> None:
        layer = chosen()
        if layer is not None:
            self.layer_chosen.emit(layer)
