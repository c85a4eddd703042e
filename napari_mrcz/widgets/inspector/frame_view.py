"""The frames of a file: a table, the compression ratio over them, and verifying them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, Signal, Slot
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.widgets.base.job import JobControls, while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.plot import Plot
from napari_mrcz.widgets.inspector.model import COLUMNS, FrameTable, verify_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.stack import VerifyReport
    from napari_mrcz.widgets.base.theme import Palette

_HEIGHT_PX = 180
_MOST_POINTS = 2000
_LEAST_SPAN = 0.2
_STATE = len(COLUMNS) - 1
# What is cut off where all is too narrow; tooltips have it, too.
_OFFSET = 1
# Left and right of a text, besides what Qt leaves there itself.
_ROOM_PX = 2
_ROOT = QModelIndex()


class _FrameModel(QAbstractTableModel):
    """A `FrameTable` as Qt wants it: texts are made of the rows that are seen, no others."""

    def __init__(self) -> None:
        super().__init__()
        self.table: FrameTable | None = None
        self._error = QColor("red")

    def set_table(self, table: FrameTable | None) -> None:
        self.beginResetModel()
        self.table = table
        self.endResetModel()

    def set_error_colour(self, colour: str) -> None:
        self._error = QColor(colour)

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        return 0 if self.table is None or parent.isValid() else len(self.table)

    def columnCount(self, parent: QModelIndex = _ROOT) -> int:
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section][0]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole:
            return COLUMNS[section][1]
        return None

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
            return self._error
        return None


def shares(width: int, texts: Sequence[int], headings: Sequence[int]) -> list[int]:
    """Share a width out among columns: for their texts first, then for their headings.

    Parameters
    ----------
    width : int
        Of all columns, in pixels.
    texts, headings : sequence of int
        What these need in each column, in pixels.

    Returns
    -------
    list of int
        Where not even all texts fit, it is offsets that are cut off.
    """
    least = np.array(texts)
    more = np.maximum(headings, least) - least
    spare = width - int(least.sum())
    if spare < 0:
        least[_OFFSET] += spare
        return [int(each) for each in np.maximum(least, 0)]
    if more.sum() > spare:
        return [int(each) for each in least + more * spare // more.sum()]
    return [int(each) for each in least + more + (spare - more.sum()) // len(least)]


class _FrameList(QTableView):
    """The table itself, its width shared out among the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Every frame of the file; double-click one to see it")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setWordWrap(False)
        rows: Any = self.verticalHeader()
        columns: Any = self.horizontalHeader()
        rows.setVisible(False)
        # Of one height, so that the table need not ask each row of a hundred thousand.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        columns.setMinimumSectionSize(24)

    def sizeHint(self) -> QSize:
        return QSize(240, _HEIGHT_PX)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._share()

    def setModel(self, model: Any) -> None:
        super().setModel(model)
        model.modelReset.connect(self._share)
        self._share()

    @Slot()
    def _share(self) -> None:
        """Return each column what its texts need, then what its heading does, then more."""
        model: Any = self.model()
        if model is None or model.table is None:
            return
        viewport: Any = self.viewport()
        head: Any = self.horizontalHeader()
        style: Any = self.style()
        margin = style.pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin, None, self) + 1
        room = 2 * margin + _ROOM_PX
        # Qt's own hint leaves headings much more, which a narrow table has not.
        texts, headings = (
            [font.horizontalAdvance(text) + room for text in words]
            for font, words in (
                (self.fontMetrics(), model.table.widest()),
                (head.fontMetrics(), (name for name, _ in COLUMNS)),
            )
        )
        widths = shares(viewport.width(), texts, headings)
        for column, width in enumerate(widths):
            self.setColumnWidth(column, width)


class FrameView(QWidget):
    """Table, plot and verifying, of one file at a time.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.

    Attributes
    ----------
    verified : Signal(object)
        A `VerifyReport` is shown.
    frame_chosen : Signal(int)
        A frame was double-clicked.
    """

    verified = Signal(object)
    frame_chosen = Signal(int)

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.summary = WrappedLabel("All frames in a line")
        self.model = _FrameModel()
        self.list = _FrameList()
        self.list.setModel(self.model)
        self.plot = Plot("frame", "compression ratio", "How well each frame is compressed")
        self._curve = self.plot.curve("accent")
        self._damaged = self.plot.curve("error", symbol="x")
        self._damaged.setSymbolSize(10)
        tip = "Read every frame and hold it against its checksum; the viewer stays usable"
        self.controls = JobControls(panel, "Check all frames", tip)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        for widget in (self.summary, self.list, self.plot, self.controls):
            column.addWidget(widget)
        column.setStretchFactor(self.list, 1)
        column.addStretch()
        self.list.doubleClicked.connect(self._on_double_clicked)
        self.controls.start_button.clicked.connect(self._verify)
        self.controls.returned.connect(self._on_verified)
        self._show(None)
        self.show_table(None)

    @property
    def table(self) -> FrameTable | None:
        """The frames shown."""
        return self.model.table

    def show_table(self, table: FrameTable | None, why: str = "No file") -> None:
        """Show other frames; those of the same file keep what is known of them."""
        before = self.table
        if table is not None and before is not None and table.is_of_same_file(before):
            table = before
        if table is not before:
            self._show(table)
            self.controls.cancel()
            if not self.controls.running:
                self.controls.tell("")
        self.summary.setText(table.summary() if table is not None else why)
        self.controls.allow("" if table is not None else why)

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.plot.apply_palette(colours)
        self.model.set_error_colour(colours.error)

    def _show(self, table: FrameTable | None) -> None:
        scroll: Any = self.list.verticalScrollBar()
        row = scroll.value()
        self.model.set_table(table)
        scroll.setValue(row)
        self.list.setVisible(table is not None)
        drawn = table is not None and table.compressed and len(table) > 1
        self.plot.setVisible(drawn)
        if table is not None and drawn:
            frames, ratios = table.curve(_MOST_POINTS)
            self._curve.setData(frames, ratios)
            # Differences in the third digit are none, and should not look like any.
            low, high, least = ratios.min(), ratios.max(), _LEAST_SPAN * ratios.mean()
            rest = max(0.0, least - (high - low)) / 2
            self.plot.getPlotItem().setYRange(low - rest, high + rest)
            damaged = sorted(table.faults)[:_MOST_POINTS]
            self._damaged.setData(damaged, [table.ratio(frame) for frame in damaged])

    @Slot()
    def _verify(self) -> None:
        if self.table is not None:
            self.controls.run(while_alive(self, partial(verify_file, self.table.path)))

    @Slot(object)
    def _on_verified(self, report: VerifyReport) -> None:
        table = self.table
        if table is None or table.path != report.path:
            return  # another layer was picked in the moment in which it ended
        if report.error:
            self.controls.tell(report.error, "error")
        else:
            table = table.with_report(report)
            self._show(table)
            self.controls.tell(table.verdict(), "error" if table.faults else "text")
            if table.faults:
                self.list.scrollTo(self.model.index(min(table.faults), 0))
        self.verified.emit(report)

    @Slot(QModelIndex)
    def _on_double_clicked(self, index: QModelIndex) -> None:
        self.frame_chosen.emit(index.row())
