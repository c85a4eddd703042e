"""The list of stacks with all that fills and orders it, and a sentence on the one selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mrcz.errors import collected_warnings
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.koma.layer_entries import LayerEntries
from napari_mrcz.widgets.koma.model import KomaModel, movies_in
from napari_mrcz.widgets.koma.source_bar import OrderBar, SourceBar
from napari_mrcz.widgets.koma.stack_list import StackList

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.koma.reading import Entry


class StackBox(QWidget):
    """What the session consists of.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    koma : KomaModel
        Whose stacks; changed by what is done here.

    Attributes
    ----------
    changed : Signal()
        Other stacks, another order, or others left out.
    replaced : Signal(object, object)
        The layer of a stack has other frames, scale or units: (the entry, one in its place);
        comes before `changed`.
    current_changed : Signal()
        Another stack is selected.
    """

    changed = Signal()
    replaced = Signal(object, object)
    current_changed = Signal()

    def __init__(self, panel: Panel, koma: KomaModel) -> None:
        super().__init__()
        self._panel = panel
        self._koma = koma
        self.sources = SourceBar()
        self.stacks = StackList(koma)
        self.order = OrderBar()
        self.details = WrappedLabel("The selected stack, and whether it enters averages")
        self.layers = LayerEntries(panel.viewer, self)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.sources, self.stacks, self.order, self.details):
            column.addWidget(part)
        self.sources.folder_chosen.connect(lambda folder: self.add_paths([folder]))
        self.sources.layers_wanted.connect(self._add_layers)
        self.stacks.files_dropped.connect(self.add_paths)
        self.stacks.changed.connect(self.refresh)
        self.stacks.current_changed.connect(self._show_details)
        self.stacks.remove_pressed.connect(self._remove_selected)
        self.order.moved.connect(self.stacks.move_selected)
        self.order.sorted.connect(self._sort)
        self.order.removed.connect(self._remove_selected)
        self.layers.removed.connect(self._on_layer_removed)
        self.layers.replaced.connect(self._on_layer_replaced)
        self.layers.renamed.connect(self.refresh)
        self._show_details()

    def add(self, entries: Iterable[Entry]) -> None:
        """Put stacks at the end of the list."""
        self._koma.add(entries)
        self.refresh()

    @Slot(object)
    def add_paths(self, paths: Iterable[str]) -> None:
        """Put the movies of files and folders at the end of the list."""
        try:
            with collected_warnings() as left:
                entries = movies_in(list(paths))
        except OSError as error:
            self._say(f"{error.strerror}: {error.filename}", "error")
            return
        self.add(entries)
        if left:
            self._say("\n".join([*left, "Drop a file itself to add it."]), "warning")
        elif not entries:
            self._say("There are no movies in this folder.", "warning")

    @Slot()
    def refresh(self) -> None:
        """Show the model as it is now."""
        self.stacks.refresh()
        self._show_details()
        self.changed.emit()

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.stacks.apply_palette(colours)

    @Slot()
    def _add_layers(self) -> None:
        entries = self.layers.open_movies()
        self.add(entries)
        if not entries:
            self._say("No further movies are open in napari.", "warning")

    @Slot()
    def _remove_selected(self) -> None:
        gone = self.stacks.selected
        for entry in gone:
            self.layers.forget(entry)
        self._koma.remove(gone)
        self.refresh()

    @Slot(object)
    def _sort(self, key: Callable[[Entry], Any]) -> None:
        self._koma.sort(key)
        self.refresh()

    @Slot(object)
    def _on_layer_removed(self, entry: Entry) -> None:
        self._koma.remove([entry])
        if isinstance(entry.source, Stack):
            entry.source.close()  # it was opened for the layer
        self.refresh()

    @Slot(object, object)
    def _on_layer_replaced(self, old: Entry, new: Entry) -> None:
        self._koma.replace(old, new)
        self.replaced.emit(old, new)
        self.refresh()

    @Slot()
    def _show_details(self) -> None:
        entry = self.stacks.current
        n, n_in = len(self._koma.entries), sum(map(self._koma.enters, self._koma.entries))
        if entry is None:
            text = f"{n} stacks, of which {n_in} enter averages" if n else ""
            self._say(text, "muted")
        elif self._koma.why_not(entry):
            self._say(f"{entry.name} {self._koma.why_not(entry)}", "error")
        elif why := self._koma.why_left_out(entry):
            text = f"{entry.name} enters no average: {why}. A tick puts it back."
            self._say(text, "warning")
        else:
            self._say(f"{entry.name} enters averages; {n_in} of {n} do.", "muted")
        selected = bool(self.stacks.selected)
        for button in (self.order.up, self.order.down, self.order.remove):
            button.setEnabled(selected)
        self.order.sort.setEnabled(n > 1)
        self.current_changed.emit()

    def _say(self, text: str, tone: str = "text") -> None:
        self._panel.tell(self.details, text, tone)
        self.details.setVisible(bool(text))
