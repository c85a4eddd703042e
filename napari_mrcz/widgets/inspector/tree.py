"""A tree of entries in four columns, two where it is narrow; tooltips have all in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractItemModel, QModelIndex, QSize, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeView

from napari_mrcz.widgets.base.panel import plain_tip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.stack.inspection import Entry

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
        """Give room for a dozen lines."""
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
        """Give the entry that was clicked last."""
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
    """Give an entry in full."""
    value = _with_unit(entry)
    text = f"{entry.name}: {value}" if value else entry.name
    return f"{text}\n{entry.meaning}" if entry.meaning else text


def _with_unit(entry: Entry) -> str:
    return f"{entry.value} {entry.unit}".strip()
