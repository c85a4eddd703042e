"""The tree of all that a file says, with a search, details of one entry, and JSON of it all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QApplication, QLineEdit, QVBoxLayout, QWidget

from napari_mrcz.stack.inspection import Entry, matching
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.job_controls import JobControls
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.inspector.model import export
from napari_mrcz.widgets.inspector.tree import EntryTree, entry_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_mrcz.widgets.base.job import Report

_HINT = "Click an entry to read it in full."


class FieldView(QWidget):
    """Search field, tree, details, and the buttons that give it all as JSON.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    json_maker : callable
        Gives a function that makes the JSON of what is shown now, in a thread.

    Attributes
    ----------
    shown : Signal()
        The tree shows what was asked for.
    export_pressed : Signal()
        All is to be exported; `export_to` does it, once a file was chosen.
    """

    shown = Signal()
    export_pressed = Signal()

    def __init__(self, panel: Panel, json_maker: Callable[[], Callable[[], str]]) -> None:
        super().__init__()
        self._panel = panel
        self._json_maker = json_maker
        self._sections: tuple[Entry, ...] = ()
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search names, values and meanings")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("Only entries in which all these words are found are shown")
        self.tree = EntryTree("All that the file says; an arrow opens what lies beneath")
        self.details = WrappedLabel("The entry that is selected, in full; it can be copied")
        tip = "Put all of it on the clipboard, but for large arrays, which JSON cannot hold"
        self.controls = JobControls(panel, "Copy as JSON", tip)
        self.export_button = push_button("Export…", "Save the same JSON as a file")
        self.controls.buttons.insertWidget(1, self.export_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        column.addWidget(self.search)
        column.addWidget(self.tree, 1)
        column.addWidget(self.details)
        column.addWidget(self.controls)
        self._searches = LatestJob(self)
        self._searches.returned.connect(self._on_found)
        self.search.textChanged.connect(self._search)
        selection: Any = self.tree.selectionModel()
        selection.currentChanged.connect(self._show_details)
        self.controls.start_button.clicked.connect(self._copy)
        self.controls.returned.connect(self._on_json)
        self.export_button.clicked.connect(self.export_pressed)
        self.show_sections(())

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        return self._searches.busy or self.controls.running

    def show_sections(self, sections: Sequence[Entry]) -> None:
        """Show another tree."""
        self._sections = tuple(sections)
        self.controls.allow("" if sections else "There is nothing to copy")
        self.export_button.setEnabled(bool(sections))
        if not self.controls.running:
            self.controls.tell("")
        self._search()

    def export_to(self, path: str) -> None:
        """Save all of it."""
        self.controls.run(partial(_export, path, self._json_maker()))

    @Slot()
    def _search(self) -> None:
        words, sections = self.search.text().strip(), self._sections
        if words:
            self._searches.request(lambda report: (words, matching(sections, words)))
            return
        self._searches.drop()
        self.tree.show_entries(sections)
        self._show_details()
        self.shown.emit()

    @Slot(object)
    def _on_found(self, result: tuple[str, tuple[Entry, ...]]) -> None:
        words, entries = result
        self.tree.show_entries(entries, found=True)
        if entries:
            self._show_details()
        else:
            self._panel.tell(self.details, f"Nothing matches “{words}”.", "muted")
        self.shown.emit()

    @Slot()
    def _show_details(self) -> None:
        entry = self.tree.current_entry()
        text, tone = (_HINT, "muted") if entry is None else (entry_text(entry), "text")
        self._panel.tell(self.details, text if self._sections else "", tone)

    @Slot()
    def _copy(self) -> None:
        make = self._json_maker()
        self.controls.run(lambda report: ("", make()))

    @Slot(object)
    def _on_json(self, result: tuple[str, str]) -> None:
        path, text = result
        if path:
            self.controls.tell(f"Saved as {path}")
            return
        clipboard: Any = QApplication.clipboard()
        clipboard.setText(text)
        lines = text.count("\n")
        self.controls.tell(f"{lines} lines of JSON are on the clipboard.")


def _export(path: str, make: Callable[[], str], report: Report) -> tuple[str, str]:
    text = make()
    export(path, text)
    return path, text
