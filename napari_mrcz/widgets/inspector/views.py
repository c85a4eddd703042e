"""What the "Metadata" dock has in its tabs: fields, frames, history, and findings to be fixed."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPoint, QSize, Qt, Signal, Slot
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFrame,
    QHeaderView,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QTableView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.stack.inspection import Entry, matching, step_entries
from napari_mrcz.widgets.base.form import filled, form, number_field, push_button
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel, plain_tip
from napari_mrcz.widgets.base.plot import Plot
from napari_mrcz.widgets.inspector.model import COLUMNS, FrameTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari.layers import Image
    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.format.doctor import Finding
    from napari_mrcz.widgets.base.theme import Palette

_HINT = "Click an entry to read it in full."
_COLUMNS = {
    "Name": "What it is called",
    "Value": "What the file says",
    "Meaning": "What it is",
}
_NAME, _VALUE, _MEANING = range(3)
# Below this width meanings are left to tooltip and details.
_NARROW_PX = 440
_TREE_PX, _TABLE_PX, _FINDINGS_PX = 220, 150, 200
# Sections with more entries than this are opened by who wants to see them.
_LONGEST_OPEN = 40
_MOST_LINES = 8


def allow(button: QPushButton, problem: str, tip: str) -> None:
    """Enable a button, or show why it cannot be pressed."""
    button.setEnabled(not problem)
    button.setToolTip(problem or tip)


class EntryTree(QTreeWidget):
    """Entries, those below another made when it is first opened."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setHeaderLabels(list(_COLUMNS))
        head: Any = self.headerItem()
        for column, said in enumerate(_COLUMNS.values()):
            head.setToolTip(column, said)
        self.setToolTip(tip)
        self.setUniformRowHeights(True)
        self.setIndentation(14)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.itemExpanded.connect(self._fill)
        self.itemExpanded.connect(self._share_out)
        self._open: dict[str, bool] = {}
        self._found = False

    def sizeHint(self) -> QSize:
        """Return room for some lines."""
        return QSize(240, _TREE_PX)

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
        column.addStretch()
        self.apply_button.clicked.connect(self._ask)

    def show_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show other corrections."""
        self.history = tuple(history)
        count = len(self.history)
        entries = step_entries(self.history)
        lines = [f"{entry.name}: {entry.value}".removesuffix(": ") for entry in entries]
        if count > _MOST_LINES:
            lines[_MOST_LINES:] = [f"and {count - _MOST_LINES} more"]
        steps = "1 correction" if count == 1 else f"{count} corrections"
        told = "\n".join([f"{steps} applied:", *lines])
        self.summary.setText(told if count else "No corrections of these frames are known.")
        self.tree.show_entries(entries)
        self.tree.setVisible(bool(count))

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


class _FrameList(QTableView):
    """The table itself: each column as wide as its texts and heading, offsets in what is left."""

    def __init__(self, model: FrameModel) -> None:
        super().__init__()
        self.setToolTip("Every frame of the file; double-click one to see it")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setWordWrap(False)
        rows: Any = self.verticalHeader()
        rows.setVisible(False)
        # Of one height, so that the table need not ask each row of a hundred thousand.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        self.setModel(model)
        columns: Any = self.horizontalHeader()
        columns.setMinimumSectionSize(24)
        columns.setSectionResizeMode(_OFFSET, QHeaderView.ResizeMode.Stretch)
        model.modelReset.connect(self._share_out)

    def sizeHint(self) -> QSize:
        return QSize(240, _TABLE_PX)

    @Slot()
    def _share_out(self) -> None:
        model: Any = self.model()
        head: Any = self.horizontalHeader()
        texts = [""] * len(COLUMNS) if model.table is None else model.table.widest()
        for column, (text, (name, _)) in enumerate(zip(texts, COLUMNS, strict=True)):
            needed = self.fontMetrics().horizontalAdvance(text) + 8
            heading = head.fontMetrics().horizontalAdvance(name) + 6
            self.setColumnWidth(column, max(needed, heading))


class FrameView(QWidget):
    """The frames of one file: where they lie, how they are compressed, whether they are whole."""

    frame_chosen = Signal(int)  # it was double-clicked

    def __init__(self) -> None:
        super().__init__()
        self.summary = WrappedLabel("All frames in a line")
        self.model = FrameModel()
        self.list = _FrameList(self.model)
        self.plot = Plot("frame", "compression ratio", "How well each frame is compressed")
        self.curve = self.plot.curve("accent")
        self.damaged = self.plot.curve("error", symbol="x")
        self.damaged.setSymbolSize(10)
        column: Any = filled(self, self.summary, self.list, self.plot).layout()
        column.addStretch()
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
        if table is None or not drawn:
            return
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


class FindingBox(QWidget):
    """One finding: its field, ticked to be fixed, what is wrong, and what is proposed."""

    ticked = Signal()

    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self.finding = finding
        title: QLabel | QCheckBox = QLabel(finding.field)
        title.setToolTip("This cannot be fixed by writing another header")
        self.check: QCheckBox | None = None
        if finding.mendable:
            title = self.check = QCheckBox(finding.field)
            self.check.setChecked(True)
            self.check.setToolTip("Whether this is fixed with the others that are ticked")
            self.check.toggled.connect(self.ticked)
        font = title.font()
        font.setBold(True)
        title.setFont(font)
        what = "Proposed" if finding.mendable else "What to do"
        self.text = WrappedLabel("What is wrong, what the file has, and what is proposed")
        self.text.setText(f"{finding.sentence}\nFound: {finding.found}\n{what}: {finding.proposed}")
        filled(self, title, self.text, spacing=2)


class DoctorView(QWidget):
    """What is wrong with the header of one file, each finding with a tick, to be fixed."""

    pixel_size_told = Signal()  # the header is to be looked at anew

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.path = ""  # of the file; empty without one
        self.why_not_in_place = ""
        self._why_not = ""
        self.findings: tuple[Finding, ...] = ()
        self.boxes: list[FindingBox] = []
        self.summary = WrappedLabel("How many things were found")
        self.pixel_size = number_field(
            (0, 1e6), 0.1, " Å", "What you know the pixel size to be; it is then proposed"
        )
        self.pixel_size.setDecimals(4)
        self.pixel_size.setSpecialValueText("unknown")
        self.copy_button = push_button("Fix in a copy…", "")
        self.in_place_button = push_button("Fix this file…", "")
        content = QWidget()
        self._list = QVBoxLayout(content)
        self._list.setContentsMargins(0, 0, 6, 0)
        self._list.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setMinimumHeight(_FINDINGS_PX)
        scroll.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        scroll.setWidget(content)
        self._told = QWidget()
        self._told.setLayout(form(("Pixel size", self.pixel_size)))
        buttons = filled(QWidget(), self.copy_button, self.in_place_button, across=True)
        filled(self, self.summary, scroll, self._told, buttons)
        self.pixel_size.valueChanged.connect(self.pixel_size_told)
        self.show_findings((), "No file")

    @property
    def chosen(self) -> list[Finding]:
        """The findings that are ticked."""
        return [box.finding for box in self.boxes if box.check and box.check.isChecked()]

    def begin(self, path: str, why_not_in_place: str = "") -> None:
        """Turn to another file, or to the same that was changed; forget what was found."""
        if path != self.path:
            self.pixel_size.blockSignals(True)
            self.pixel_size.setValue(0)
            self.pixel_size.blockSignals(False)
        self.path, self.why_not_in_place = path, why_not_in_place
        self.show_findings((), "Checking…" if path else "No file")

    def show_findings(
        self, findings: Sequence[Finding], text: str = "", tone: str = "text"
    ) -> None:
        """Show what was found in the file, or a sentence instead."""
        self.findings = tuple(findings)
        for box in self.boxes:
            self._list.removeWidget(box)
            box.hide()
            box.deleteLater()
        self.boxes = [FindingBox(finding) for finding in findings]
        for at, box in enumerate(self.boxes):
            box.ticked.connect(lambda: self.show_state(self._why_not))
            self._list.insertWidget(at, box)
        self._panel.tell(self.summary, text or _counted(self.findings), tone)
        self.show_state(self._why_not)

    def show_state(self, problem: str) -> None:
        """Enable what can be used now, and show why the rest cannot."""
        self._why_not = problem
        if not any(finding.mendable for finding in self.findings):
            problem = "There is nothing to fix"
        problem = problem or ("" if self.chosen else "Tick what is to be fixed")
        allow(self.copy_button, problem, "Write the file with another header; keep this one")
        tip = "Replace the file by one with another header, in one step; its frames are copied"
        allow(self.in_place_button, problem or self.why_not_in_place, tip)
        self._told.setVisible(any(finding.field == "pixel size" for finding in self.findings))


def _counted(findings: Sequence[Finding]) -> str:
    if not findings:
        return "Nothing is wrong with the header."
    mendable = sum(finding.mendable for finding in findings)
    things = "1 thing" if len(findings) == 1 else f"{len(findings)} things"
    if mendable == len(findings):
        return f"{things} to fix."
    return f"{things} found, {mendable or 'none'} of them can be fixed here."
