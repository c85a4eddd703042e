"""Trees of what a file says, which can be searched, and of what was done to its frames."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractItemModel, QModelIndex, QPoint, QSize, Qt, Signal, Slot
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHeaderView,
    QLineEdit,
    QMenu,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.stack.inspection import Entry, matching, step_entries
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import JobControls, LatestJob
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel, plain_tip
from napari_mrcz.widgets.inspector.model import export

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from napari.layers import Image
    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.stack.inspection import Entry
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


_COLUMNS = (
    ("Name", "What it is called"),
    ("Value", "What the file says"),
    ("Unit", "Unit of the value"),
    ("Meaning", "What it is"),
)
_NAME, _VALUE, _UNIT, _MEANING = range(4)
# Below this width units stand behind values, and meanings are left to tooltip and details.
_NARROW_PX = 440
_UNIT_PX = 64
_HEIGHT_PX = 300
_INDENT_PX = 14
# Sections with more entries than this are opened by who wants to see them.
_LONGEST_OPEN = 40
_ROOT = QModelIndex()


class _Node:
    """An entry at its place in the tree; made when it is first shown."""

    __slots__ = ("children", "entry", "parent", "row")

    def __init__(self, entry: Entry, parent: _Node | None, row: int) -> None:
        self.entry, self.parent, self.row = entry, parent, row
        self.children: list[_Node] | None = None

    def beneath(self) -> list[_Node]:
        if self.children is None:
            entries = enumerate(self.entry.children)
            self.children = [_Node(child, self, row) for row, child in entries]
        return self.children


class _EntryModel(QAbstractItemModel):
    """Entries as Qt wants them."""

    def __init__(self) -> None:
        super().__init__()
        self._top: list[_Node] = []
        self.units_apart = True

    def set_entries(self, entries: Sequence[Entry]) -> None:
        self.beginResetModel()
        self._top = [_Node(entry, None, row) for row, entry in enumerate(entries)]
        self.endResetModel()

    def entry(self, index: QModelIndex) -> Entry:
        return index.internalPointer().entry

    def _beneath(self, parent: QModelIndex) -> list[_Node]:
        return parent.internalPointer().beneath() if parent.isValid() else self._top

    def index(self, row: int, column: int, parent: QModelIndex = _ROOT) -> QModelIndex:
        nodes = self._beneath(parent)
        inside = 0 <= row < len(nodes) and 0 <= column < len(_COLUMNS)
        return self.createIndex(row, column, nodes[row]) if inside else QModelIndex()

    def parent(self, index: QModelIndex) -> QModelIndex:  # type: ignore[override]
        node = index.internalPointer().parent if index.isValid() else None
        return QModelIndex() if node is None else self.createIndex(node.row, 0, node)

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        return 0 if parent.column() > 0 else len(self._beneath(parent))

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        return len(_COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return _COLUMNS[section][0]
        if role == Qt.ItemDataRole.ToolTipRole:
            return _COLUMNS[section][1]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        entry = self.entry(index)
        if role == Qt.ItemDataRole.DisplayRole:
            value = entry.value if self.units_apart else _with_unit(entry)
            return (entry.name, value, entry.unit, entry.meaning)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return plain_tip(entry_text(entry))
        return None


class EntryTree(QTreeView):
    """The tree itself.

    Parameters
    ----------
    tip : str
        What is to be seen here.
    """

    def __init__(self, tip: str) -> None:
        super().__init__()
        self._model = _EntryModel()
        self.setModel(self._model)
        self.setToolTip(tip)
        self.setUniformRowHeights(True)
        self.setIndentation(_INDENT_PX)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header: Any = self.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setMinimumSectionSize(24)
        self.expanded.connect(self._share_out)
        self.collapsed.connect(self._share_out)
        self._open: dict[str, bool] = {}
        self._found = False

    def sizeHint(self) -> QSize:
        """Return room for a dozen lines."""
        return QSize(240, _HEIGHT_PX)

    def show_entries(self, entries: Sequence[Entry], *, found: bool = False) -> None:
        """Show other entries; those that were `found` by a search are opened.

        Otherwise sections are open or closed as they were under the same name, and short ones are
        open at first.
        """
        if not self._found:
            self._remember()
        self._found = found
        self._model.set_entries(entries)
        for row, entry in enumerate(entries):
            short = 0 < len(entry.children) <= _LONGEST_OPEN and not entry.folded
            index = self._model.index(row, 0)
            self.setExpanded(index, found or self._open.get(entry.name, short))
            if found:
                self._open_short(index)

    def current_entry(self) -> Entry | None:
        """Return the entry that was clicked last."""
        index = self.currentIndex()
        return self._model.entry(index) if index.isValid() else None

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Share the width out among the columns."""
        super().resizeEvent(event)
        self._share_out()

    def _share_out(self) -> None:
        """Share the width out among the columns; long names take more of it, up to a limit."""
        viewport: Any = self.viewport()
        width = viewport.width()
        narrow = width < _NARROW_PX
        self._model.units_apart = not narrow
        for column in (_UNIT, _MEANING):
            self.setColumnHidden(column, narrow)
        least, most = (0.45, 0.55) if narrow else (0.27, 0.4)
        name = min(max(least * width, self.sizeHintForColumn(_NAME)), most * width)
        value = width - name if narrow else width * 0.27
        self.setColumnWidth(_NAME, int(name))
        self.setColumnWidth(_VALUE, int(value))
        self.setColumnWidth(_UNIT, _UNIT_PX)
        self.setColumnWidth(_MEANING, int(width - name - value) - _UNIT_PX)

    def _remember(self) -> None:
        for row in range(self._model.rowCount()):
            index = self._model.index(row, 0)
            self._open[self._model.entry(index).name] = self.isExpanded(index)

    def _open_short(self, parent: QModelIndex) -> None:
        """Open what is beneath, as long as it is few."""
        count = self._model.rowCount(parent)
        for row in range(count if count <= _LONGEST_OPEN else 0):
            child = self._model.index(row, 0, parent)
            if self._model.rowCount(child):
                self.setExpanded(child, True)
                self._open_short(child)


def entry_text(entry: Entry) -> str:
    """Return an entry in full."""
    value = _with_unit(entry)
    text = f"{entry.name}: {value}" if value else entry.name
    return f"{text}\n{entry.meaning}" if entry.meaning else text


def _with_unit(entry: Entry) -> str:
    return f"{entry.value} {entry.unit}".strip()


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
