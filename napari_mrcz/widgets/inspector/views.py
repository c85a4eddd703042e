"""What the "Metadata" dock has in its tabs: fields, frames, history and header doctor."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPoint, Qt, Signal, Slot
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHeaderView,
    QLabel,
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
from napari_mrcz.widgets.base.form import (
    WrappedLabel,
    allow,
    filled,
    form,
    number_field,
    plain_tip,
    push_button,
    scrolled,
)
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.plot import Plot, offer_rows
from napari_mrcz.widgets.inspector.model import COLUMNS, FrameTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from napari.layers import Image
    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.format.findings import Finding
    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.base.plot import Palette

_HINT = "Click an entry to read it in full."
_NAME, _VALUE, _MEANING = range(3)
_ENTRY = Qt.ItemDataRole.UserRole
# Below this width meanings are left to tooltip and details.
_NARROW_PX = 440
_TREE_PX, _TABLE_PX, _FINDINGS_PX, _APART_PX = 140, 120, 200, 6
# Sections with more entries than this are opened by who wants to see them.
_LONGEST_OPEN = 40
_MOST_LINES = 8
_LARGEST_PIXEL = 1e6  # in angstrom


class EntryTree(QTreeWidget):
    """Entries, those below another made when it is first opened."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setHeaderLabels(["Name", "Value", "Meaning"])
        self.setToolTip(tip)
        self.setMinimumHeight(_TREE_PX)
        self.setUniformRowHeights(True)
        self.setIndentation(14)
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

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Share the width out among the columns."""
        super().resizeEvent(event)
        self._share_out()

    def _add(self, parent: Any, entry: Entry) -> QTreeWidgetItem:
        item = QTreeWidgetItem(parent, [entry.name, entry.text, entry.meaning])
        item.setData(_NAME, _ENTRY, entry)
        for column in range(self.columnCount()):
            item.setToolTip(column, plain_tip(entry_text(entry)))
        if entry.children:
            item.setChildIndicatorPolicy(QTreeWidgetItem.ChildIndicatorPolicy.ShowIndicator)
        return item

    def _fill(self, item: QTreeWidgetItem) -> None:
        if not item.childCount():
            for child in item.data(_NAME, _ENTRY).children:
                self._add(item, child)

    def _expand(self, item: Any, *, deep: bool) -> None:
        """Open an entry, and what is below it as long as it is few."""
        item.setExpanded(True)  # which fills it
        if deep and item.childCount() <= _LONGEST_OPEN:
            for row in range(item.childCount()):
                self._expand(item.child(row), deep=True)

    @Slot()
    def _share_out(self) -> None:
        """Make names as wide as they are, within limits; the last column has the rest."""
        viewport: Any = self.viewport()
        width = viewport.width()
        self.setColumnHidden(_MEANING, width < _NARROW_PX)
        least, most = (0.45, 0.55) if width < _NARROW_PX else (0.27, 0.4)
        name = min(max(least * width, self.sizeHintForColumn(_NAME)), most * width)
        self.setColumnWidth(_NAME, int(name))
        self.setColumnWidth(_VALUE, int(0.3 * width))


def entry_text(entry: Entry) -> str:
    """Return an entry in full."""
    text = f"{entry.name}: {entry.text}" if entry.text else entry.name
    return f"{text}\n{entry.meaning}" if entry.meaning else text


class FieldView(QWidget):
    """All that a file says, searched, read in full, and given as JSON."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self._sections: tuple[Entry, ...] = ()
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
        self.searches.returned.connect(self._show)
        self.search.textChanged.connect(self._search)
        self.tree.currentItemChanged.connect(self._show_details)

    def show_sections(self, sections: tuple[Entry, ...]) -> None:
        """Show another tree."""
        self._sections = sections
        self._search()

    @Slot()
    def _search(self) -> None:
        words, sections = self.search.text().strip(), self._sections
        if words:
            self.searches.request(lambda report: (matching(sections, words), words))
        else:
            self.searches.drop()
            self._show((sections, ""))

    @Slot(object)
    def _show(self, found: tuple[tuple[Entry, ...], str]) -> None:
        entries, words = found
        self.tree.show_entries(entries, found=bool(words))
        self._show_details()
        if words and not entries:
            self._panel.tell(self.details, f"Nothing matches “{words}”.", "muted")

    @Slot()
    def _show_details(self) -> None:
        item = self.tree.currentItem()
        if item is None:
            self._panel.tell(self.details, _HINT if self._sections else "", "muted")
        else:
            self._panel.tell(self.details, entry_text(item.data(_NAME, _ENTRY)))


class HistoryView(QWidget):
    """The corrections of a layer; `others` returns the layers to which they may be done, too."""

    layer_chosen = Signal(object)  # the corrections are to be done to this layer

    def __init__(self, others: Callable[[], list[Image]]) -> None:
        super().__init__()
        self._others = others
        self.summary = WrappedLabel("How many corrections there are")
        self.tree = EntryTree("Each correction with its parameters, in the order of application")
        self.apply_button = push_button("Apply to another layer…", "")
        self.recipe_button = push_button(
            "Save recipe…", "Save the corrections as a recipe (TOML), for whole sessions"
        )
        self.menu = QMenu(self)
        buttons = filled(QWidget(), self.apply_button, self.recipe_button, across=True)
        column: Any = filled(self, self.summary, self.tree, buttons).layout()
        column.setStretchFactor(self.tree, 1)
        column.addStretch()  # has the room while there is no tree
        self.apply_button.clicked.connect(self._ask)

    def show_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show other corrections."""
        entries = step_entries(history)
        lines = [f"{entry.name}: {entry.value}".removesuffix(": ") for entry in entries]
        told = f"{counted(len(lines), 'correction')} applied:\n" + listed(lines, _MOST_LINES, "\n")
        self.summary.setText(told if lines else "No corrections of these frames are known.")
        self.tree.show_entries(entries)
        self.tree.setVisible(bool(lines))
        self.recipe_button.setEnabled(bool(lines))

    def show_state(self, problem: str) -> None:
        """Show why the corrections cannot be applied to another layer, if they cannot."""
        if not self._others():
            problem = "Open another movie to apply the corrections to"
        if not self.tree.topLevelItemCount():
            problem = "There are no corrections to apply"
        tip = "Do the same to another layer; the result is a new layer, and nothing is saved"
        allow(self.apply_button, problem, tip)

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
# The column that is cut off where all is too narrow (tooltips have it, too), and the last one.
_OFFSET, _STATE = 1, len(COLUMNS) - 1
# As wide as any size.
_WIDEST_SIZE = "8.88 MB"
_ROOT = QModelIndex()


class _FrameModel(QAbstractTableModel):
    """A `FrameTable` as Qt wants it: texts are made of the rows that are seen, no others."""

    def __init__(self) -> None:
        super().__init__()
        self.table: FrameTable | None = None
        self.error = QColor("red")

    def set_table(self, table: FrameTable | None) -> None:
        self.beginResetModel()
        self.table = table
        self.endResetModel()

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        return len(self.table or ())

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        return len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
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

    def __init__(self) -> None:
        super().__init__()
        self.summary = WrappedLabel("All frames in a line")
        self.model = _FrameModel()
        self.list = QTableView()
        self.list.setToolTip("Every frame of the file; double-click one to see it")
        self.list.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setShowGrid(False)
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
        # Of many frames the extremes of each few are drawn.
        self.curve = self.plot.curve("accent")
        self.curve.setDownsampling(auto=True, method="peak")
        self.damaged = self.plot.curve("error", symbol="x")
        self.damaged.setSymbolSize(10)
        column: Any = filled(self, self.summary, self.list, self.plot).layout()
        column.setStretchFactor(self.list, 1)
        column.addStretch()  # has the room while there is no table
        self.show_table(None, "No file")

    def show_table(self, table: FrameTable | None, why: str = "") -> None:
        """Show other frames, or why there are none."""
        scroll: Any = self.list.verticalScrollBar()
        row = scroll.value()
        self.model.set_table(table)
        scroll.setValue(row)
        self.list.setVisible(table is not None)
        self.plot.setVisible(table is not None and table.compressed and len(table) > 1)
        if table is None:
            self.summary.setText(why)
            return
        self.summary.setText(table.summary())
        # Each column is as wide as its texts and heading, offsets as wide as what is left.
        frame, offset, *_ = table.texts(len(table) - 1)
        ratio = f"{table.ratios.max():.2f}"
        head: Any = self.list.horizontalHeader()
        for column, text in enumerate((frame, offset, _WIDEST_SIZE, ratio, "damaged")):
            needed = self.list.fontMetrics().horizontalAdvance(text) + 8
            heading = head.fontMetrics().horizontalAdvance(COLUMNS[column][0]) + 6
            self.list.setColumnWidth(column, max(needed, heading))
        damaged = sorted(table.faults)[:_MOST_POINTS]
        self.curve.setData(table.ratios)
        self.damaged.setData(damaged, table.ratios[damaged])
        # Differences in the third digit are none, and should not look like any.
        low, high, mean = table.ratios.min(), table.ratios.max(), table.ratios.mean()
        rest = max(0.0, _LEAST_SPAN * mean - (high - low)) / 2
        self.plot.getPlotItem().setYRange(low - rest, high + rest)
        if damaged:
            self.list.scrollTo(self.model.index(damaged[0], 0))

    def apply_palette(self, colours: Palette) -> None:
        """Colour damaged frames."""
        self.model.error = QColor(colours.error)


class DoctorView(QWidget):
    """What is wrong with the header of one file, each finding with a tick, to be fixed."""

    ticked = Signal()

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.findings: Sequence[Finding] = ()
        self.boxes: list[tuple[Finding, QCheckBox]] = []  # of those that can be fixed
        self.summary = WrappedLabel("How many things were found")
        tip = "What you know the pixel size to be; it is then proposed"
        self.pixel_size = number_field((0, _LARGEST_PIXEL), 0.1, " Å", tip)
        self.pixel_size.setDecimals(4)
        self.pixel_size.setSpecialValueText("unknown")
        self.copy_button = push_button("Fix in a copy…", "")
        self.in_place_button = push_button("Fix this file…", "")
        self._scroll = scrolled(QWidget())
        self._scroll.setMinimumHeight(_FINDINGS_PX)
        self._told = QWidget()
        self._told.setLayout(form(("Pixel size", self.pixel_size)))
        buttons = filled(QWidget(), self.copy_button, self.in_place_button, across=True)
        filled(self, self.summary, self._scroll, self._told, buttons)

    @property
    def chosen(self) -> list[Finding]:
        """The findings that are ticked."""
        return [finding for finding, box in self.boxes if box.isChecked()]

    def show_findings(
        self, findings: Sequence[Finding], text: str = "", tone: str = "text"
    ) -> None:
        """Show what was found in the file, or a sentence instead."""
        self.findings, self.boxes = findings, []
        content = filled(QWidget(), spacing=2)
        column: Any = content.layout()
        column.setContentsMargins(0, 0, 6, 0)
        for finding in findings:
            title: QLabel | QCheckBox = QLabel(finding.field)
            title.setToolTip("This cannot be fixed by writing another header")
            what = "What to do"
            if finding.mendable:
                title, what = QCheckBox(finding.field), "Proposed"
                title.setChecked(True)
                title.setToolTip("Whether this is fixed with the others that are ticked")
                title.toggled.connect(self.ticked)
                self.boxes.append((finding, title))
            title.setStyleSheet("font-weight: bold")
            said = WrappedLabel("What is wrong, what the file has, and what is proposed")
            said.setText(f"{finding.sentence}\nFound: {finding.found}\n{what}: {finding.proposed}")
            column.addWidget(title)
            column.addWidget(said)
            column.addSpacing(_APART_PX)
        column.addStretch()
        self._scroll.setWidget(content)
        can = len(self.boxes)
        how = "to fix" if can == len(findings) else f"found, {can} of them can be fixed here"
        wrong = f"{counted(len(findings), 'thing')} {how}."
        text = text or (wrong if findings else "Nothing is wrong with the header.")
        self._panel.tell(self.summary, text, tone)
        self._told.setVisible(any(finding.field == "pixel size" for finding in findings))

    def show_state(self, problem: str, not_in_place: str) -> None:
        """Enable what can be used now, and show why the rest cannot."""
        if not self.boxes:
            problem = "There is nothing to fix"
        problem = problem or ("" if self.chosen else "Tick what is to be fixed")
        allow(self.copy_button, problem, "Write the file with another header; keep this one")
        tip = "Replace the file by one with another header, in one step; its frames are copied"
        allow(self.in_place_button, problem or not_in_place, tip)
