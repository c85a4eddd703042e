"""What the "Metadata" dock has in its tabs: fields, frames and history."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPoint, Qt, Signal, Slot
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLineEdit,
    QMenu,
    QSizePolicy,
    QTableView,
    QTreeWidget,
    QTreeWidgetItem,
    QWidget,
)

from napari_mrcz.errors import counted, listed
from napari_mrcz.stack.inspection import Entry, matching, step_entries
from napari_mrcz.widgets.base.form import WrappedLabel, allow, filled, plain_tip, push_button
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.plot import Plot, offer_rows
from napari_mrcz.widgets.inspector.model import COLUMNS, FrameTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari.layers import Image
    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.base.plot import Palette

_HINT = "Click an entry to read it in full."
_COLUMNS = {
    "Name": "What it is called",
    "Value": "What the file says",
    "Meaning": "What it is",
}
_NAME, _VALUE, _MEANING = range(3)
# Below this width meanings are left to tooltip and details.
_NARROW_PX = 440
_TREE_PX, _TABLE_PX = 140, 120
# Sections with more entries than this are opened by who wants to see them.
_LONGEST_OPEN = 40
_MOST_LINES = 8


class EntryTree(QTreeWidget):
    """Entries, those below another made when it is first opened."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setHeaderLabels(list(_COLUMNS))
        head: Any = self.headerItem()
        for column, said in enumerate(_COLUMNS.values()):
            head.setToolTip(column, said)
        self.setToolTip(tip)
        self.setMinimumHeight(_TREE_PX)
        self.setUniformRowHeights(True)
        self.setIndentation(14)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemExpanded.connect(self._fill)
        self.itemExpanded.connect(self._share_out)
        self._open: dict[str, bool] = {}
        self._found = False

    def show_entries(self, entries: Sequence[Entry], *, found: bool = False) -> None:
        """Show other entries; those that were `found` by a search are opened.

        Otherwise sections are open or closed as they were under the same name, and short ones are
        open at first.
        """
        before = [self.topLevelItem(row) for row in range(self.topLevelItemCount())]
        if not self._found:
            self._open |= {item.text(_NAME): item.isExpanded() for item in before if item}
        self._found = found
        self.clear()
        for entry in entries:
            item = self._add(self.invisibleRootItem(), entry)
            short = 0 < len(entry.children) <= _LONGEST_OPEN and not entry.folded
            if found or self._open.get(entry.name, short):
                self._expand(item, deep=found)
        self._share_out()

    def current_entry(self) -> Entry | None:
        """Return the entry that was clicked last."""
        item = self.currentItem()
        return None if item is None else item.data(_NAME, Qt.ItemDataRole.UserRole)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Share the width out among the columns."""
        super().resizeEvent(event)
        self._share_out()

    def _add(self, parent: Any, entry: Entry) -> QTreeWidgetItem:
        item = QTreeWidgetItem(parent, [entry.name, _with_unit(entry), entry.meaning])
        item.setData(_NAME, Qt.ItemDataRole.UserRole, entry)
        for column in range(len(_COLUMNS)):
            item.setToolTip(column, plain_tip(entry_text(entry)))
        if entry.children:
            item.setChildIndicatorPolicy(QTreeWidgetItem.ChildIndicatorPolicy.ShowIndicator)
        return item

    def _fill(self, item: QTreeWidgetItem) -> None:
        if not item.childCount():
            for child in item.data(_NAME, Qt.ItemDataRole.UserRole).children:
                self._add(item, child)

    def _expand(self, item: QTreeWidgetItem, *, deep: bool) -> None:
        """Open an entry, and what is below it as long as it is few."""
        self._fill(item)
        item.setExpanded(True)
        if deep and item.childCount() <= _LONGEST_OPEN:
            for child in (item.child(row) for row in range(item.childCount())):
                if child is not None and child.data(_NAME, Qt.ItemDataRole.UserRole).children:
                    self._expand(child, deep=True)

    @Slot()
    def _share_out(self) -> None:
        """Share the width out among the columns; long names take more of it, up to a limit."""
        viewport: Any = self.viewport()
        width = viewport.width()
        narrow = width < _NARROW_PX
        self.setColumnHidden(_MEANING, narrow)
        least, most = (0.45, 0.55) if narrow else (0.27, 0.4)
        name = int(min(max(least * width, self.sizeHintForColumn(_NAME)), most * width))
        value = width - name if narrow else int(0.3 * width)
        for column, share in enumerate((name, value, width - name - value)):
            self.setColumnWidth(column, share)


def entry_text(entry: Entry) -> str:
    """Return an entry in full."""
    value = _with_unit(entry)
    text = f"{entry.name}: {value}" if value else entry.name
    return f"{text}\n{entry.meaning}" if entry.meaning else text


def _with_unit(entry: Entry) -> str:
    return f"{entry.value} {entry.unit}".strip()


class FieldView(QWidget):
    """All that a file says, searched, read in full, and given as JSON."""

    shown = Signal()  # the tree shows what was asked for

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.sections: tuple[Entry, ...] = ()
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search names, values and meanings")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("Only entries in which all these words are found are shown")
        self.tree = EntryTree("All that the file says; an arrow opens the entries below")
        self.details = WrappedLabel("The entry that is selected, in full; it can be copied")
        self.copy_button = push_button(
            "Copy as JSON", "Copy all of it, but for large arrays, which JSON cannot hold"
        )
        self.export_button = push_button("Export…", "Save the same JSON as a file")
        buttons = filled(QWidget(), self.copy_button, self.export_button, across=True)
        filled(self, self.search, self.tree, self.details, buttons)
        self.searches = LatestJob(self)
        self.searches.returned.connect(self._on_found)
        self.search.textChanged.connect(self._search)
        self.tree.currentItemChanged.connect(self._show_details)

    def show_sections(self, sections: Sequence[Entry]) -> None:
        """Show another tree."""
        self.sections = tuple(sections)
        self._search()

    @Slot()
    def _search(self) -> None:
        words, sections = self.search.text().strip(), self.sections
        if words:
            self.searches.request(lambda report: (words, matching(sections, words)))
            return
        self.searches.drop()
        self.tree.show_entries(sections)
        self._show_details()
        self.shown.emit()

    @Slot(object)
    def _on_found(self, result: tuple[str, tuple[Entry, ...]]) -> None:
        words, entries = result
        self.tree.show_entries(entries, found=True)
        self._show_details()
        if not entries:
            self._panel.tell(self.details, f"Nothing matches “{words}”.", "muted")
        self.shown.emit()

    @Slot()
    def _show_details(self) -> None:
        entry = self.tree.current_entry()
        text, tone = (_HINT, "muted") if entry is None else (entry_text(entry), "text")
        self._panel.tell(self.details, text if self.sections else "", tone)


class HistoryView(QWidget):
    """The corrections of a layer; `others` returns the layers to which they may be done, too."""

    layer_chosen = Signal(object)  # the corrections are to be done to this layer

    def __init__(self, others: Callable[[], list[Image]]) -> None:
        super().__init__()
        self._others = others
        self.history: tuple[Mapping[str, Any], ...] = ()
        self.summary = WrappedLabel("How many corrections there are")
        self.tree = EntryTree("Each correction with its parameters, in the order of application")
        self.apply_button = push_button("Apply to another layer…", "")
        self.recipe_button = push_button(
            "Save recipe…", "Save the corrections as a recipe (TOML), for whole sessions"
        )
        self.menu = QMenu(self)
        self.menu.setToolTip("Movies to which the corrections can be applied")
        buttons = filled(QWidget(), self.apply_button, self.recipe_button, across=True)
        column: Any = filled(self, self.summary, self.tree, buttons).layout()
        column.setStretchFactor(self.tree, 1)
        column.addStretch()  # has the room while there is no tree
        self.apply_button.clicked.connect(self._ask)

    def show_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show other corrections."""
        self.history = tuple(history)
        entries = step_entries(self.history)
        lines = [f"{entry.name}: {entry.value}".removesuffix(": ") for entry in entries]
        told = f"{counted(len(lines), 'correction')} applied:\n" + listed(lines, _MOST_LINES, "\n")
        self.summary.setText(told if lines else "No corrections of these frames are known.")
        self.tree.show_entries(entries)
        self.tree.setVisible(bool(lines))

    def show_state(self, problem: str) -> None:
        """Show why the corrections cannot be applied to another layer, if they cannot."""
        if not self._others():
            problem = "Open another movie to apply the corrections to"
        if not self.history:
            problem = "There are no corrections to apply"
        tip = "Do the same to another layer; the result is a new layer, and nothing is saved"
        allow(self.apply_button, problem, tip)
        self.recipe_button.setEnabled(bool(self.history))

    @Slot()
    def _ask(self) -> None:
        self.menu.clear()
        for layer in self._others():
            action: Any = self.menu.addAction(layer.name)
            # The menu stays when it is closed, and must not keep a removed layer's file open.
            action.triggered.connect(partial(self._choose, weakref.ref(layer)))
        below = QPoint(0, self.apply_button.height())
        self.menu.popup(self.apply_button.mapToGlobal(below))

    def _choose(self, chosen: weakref.ref[Image], checked: bool = False) -> None:
        if (layer := chosen()) is not None:
            self.layer_chosen.emit(layer)


_MOST_POINTS = 2000
_LEAST_SPAN = 0.2
_STATE = len(COLUMNS) - 1
# What is cut off where all is too narrow; tooltips have it, too.
_OFFSET = 1
_ROOT = QModelIndex()


class FrameModel(QAbstractTableModel):
    """A `FrameTable` as Qt wants it: texts are made of the rows that are seen, no others."""

    def __init__(self) -> None:
        super().__init__()
        self.table: FrameTable | None = None
        self.error = QColor("red")

    def set_table(self, table: FrameTable | None) -> None:
        """Show other frames."""
        self.beginResetModel()
        self.table = table
        self.endResetModel()

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return the number of frames."""
        return 0 if self.table is None or parent.isValid() else len(self.table)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        """Return the number of columns."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return name and meaning of a column."""
        roles = (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole)
        if orientation == Qt.Orientation.Horizontal and role in roles:
            return COLUMNS[section][roles.index(Qt.ItemDataRole(role))]
        return None

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Return what is shown of all frames, below the headings."""
        yield tuple(name for name, _ in COLUMNS)
        if (table := self.table) is not None:  # this one, whichever is shown meanwhile
            yield from map(table.texts, range(len(table)))

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what is shown of a frame."""
        if self.table is None:
            return None
        frame = index.row()
        if role == Qt.ItemDataRole.DisplayRole:
            return self.table.texts(frame)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return self.table.tip(frame)
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() != _STATE:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        if role == Qt.ItemDataRole.ForegroundRole and frame in self.table.faults:
            return self.error
        return None


class FrameView(QWidget):
    """The frames of one file: where they lie, how they are compressed, whether they are whole."""

    frame_chosen = Signal(int)  # it was double-clicked

    def __init__(self) -> None:
        super().__init__()
        self.summary = WrappedLabel("All frames in a line")
        self.model = FrameModel()
        self.list = QTableView()
        self.list.setToolTip("Every frame of the file; double-click one to see it")
        self.list.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setShowGrid(False)
        self.list.setWordWrap(False)
        self.list.setMinimumHeight(_TABLE_PX)
        self.list.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
        rows: Any = self.list.verticalHeader()
        rows.setVisible(False)
        # Of one height, so that the table need not ask each row of a hundred thousand.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.list.fontMetrics().height() + 6)
        self.list.setModel(self.model)
        head: Any = self.list.horizontalHeader()
        head.setMinimumSectionSize(24)
        head.setSectionResizeMode(_OFFSET, QHeaderView.ResizeMode.Stretch)
        offer_rows(self.list, self.model.rows)
        self.plot = Plot("frame", "compression ratio", "How well each frame is compressed")
        self.curve = self.plot.curve("accent")
        self.damaged = self.plot.curve("error", symbol="x")
        self.damaged.setSymbolSize(10)
        column: Any = filled(self, self.summary, self.list, self.plot).layout()
        column.setStretchFactor(self.list, 1)
        column.addStretch()  # has the room while there is no table
        self.list.doubleClicked.connect(lambda index: self.frame_chosen.emit(index.row()))
        self.show_table(None, "No file")

    @property
    def table(self) -> FrameTable | None:
        """The frames shown."""
        return self.model.table

    def show_table(self, table: FrameTable | None, why: str = "") -> None:
        """Show other frames, or why there are none."""
        scroll: Any = self.list.verticalScrollBar()
        row = scroll.value()
        self.model.set_table(table)
        scroll.setValue(row)
        self.summary.setText(table.summary() if table is not None else why)
        self.list.setVisible(table is not None)
        drawn = table is not None and table.compressed and len(table) > 1
        self.plot.setVisible(drawn)
        if table is not None:
            self._share_out(table)
        if table is not None and drawn:
            self._draw(table)

    def _share_out(self, table: FrameTable) -> None:
        """Make each column as wide as its texts and heading, offsets as wide as what is left."""
        head: Any = self.list.horizontalHeader()
        for column, (text, (name, _)) in enumerate(zip(table.widest(), COLUMNS, strict=True)):
            needed = self.list.fontMetrics().horizontalAdvance(text) + 8
            heading = head.fontMetrics().horizontalAdvance(name) + 6
            self.list.setColumnWidth(column, max(needed, heading))

    def _draw(self, table: FrameTable) -> None:
        frames, ratios = table.curve(_MOST_POINTS)
        self.curve.setData(frames, ratios)
        # Differences in the third digit are none, and should not look like any.
        low, high, least = ratios.min(), ratios.max(), _LEAST_SPAN * ratios.mean()
        rest = max(0.0, least - (high - low)) / 2
        self.plot.getPlotItem().setYRange(low - rest, high + rest)
        damaged = sorted(table.faults)[:_MOST_POINTS]
        self.damaged.setData(damaged, [table.ratio(frame) for frame in damaged])
        if damaged:
            self.list.scrollTo(self.model.index(damaged[0], 0))

    def apply_palette(self, colours: Palette) -> None:
        """Colour damaged frames."""
        self.model.error = QColor(colours.error)
