"""What was fitted to a sweep: the histogram of one region, and the table of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal, Slot
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QVBoxLayout, QWidget

from napari_mrcz.errors import with_minus
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.plot import Key, Plot

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.microed.model import Fit, Histogram

COLUMNS = (
    ("#", "Number of the annulus, from the beam on; or label"),
    ("r (pix)", "Outer radius of the annulus, in pixels"),
    ("zeros", "Part of the pixels that was recorded as 0"),
    ("μ", "Mean of log(counts − shift) of the fitted distribution (eq. 1)"),
    ("σ", "Standard deviation of log(counts − shift) (eq. 1)"),
    ("shift", "Least value of the fitted distribution, in counts"),
)
NOTHING = "\N{EN DASH}"
_ROWS_SHOWN = 10


def rows(fit: Fit, frame: int) -> list[tuple[str, ...]]:
    """Return the table of a frame as texts, one row a region."""
    model = fit.model
    pixels = np.bincount(model.labels.reshape(-1), minlength=model.n_regions + 1)[1:]
    radii = [f"{r:.0f}" for r in model.radii] if fit.has_annuli else [NOTHING] * len(pixels)
    texts = []
    for region, (mu, sigma, shift) in enumerate(model.parameters[frame]):
        fitted = (f"{mu:.3f}", f"{sigma:.3f}", f"{shift:.1f}")
        if np.isnan(mu):
            fitted = (NOTHING,) * 3
        zeros = f"{model.zeros[frame, region] / pixels[region]:.1%}"
        name = str(fit.names[region])
        texts.append((name, radii[region], zeros, *map(with_minus, fitted)))
    return texts


class FitTable(QTableView):
    """As high as its rows, up to ten.

    Attributes
    ----------
    chosen : Signal(int)
        The row of a region (1 ... k) was chosen.
    """

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.texts = _Texts()
        self.setModel(self.texts)
        self.setToolTip("What was fitted to the frame that is shown; choose a row to see it")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        side: Any = self.verticalHeader()
        side.setVisible(False)
        head: Any = self.horizontalHeader()
        head.setMinimumSectionSize(36)
        head.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        head.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        selection: Any = self.selectionModel()
        selection.currentRowChanged.connect(self._on_row)
        self.show_rows([])

    def show_rows(self, texts: list[tuple[str, ...]]) -> None:
        """Show other rows; the chosen one stays where there are as many."""
        self.texts.show_rows(texts)
        shown = min(max(len(texts), 1), _ROWS_SHOWN)
        self.setVisible(bool(texts))
        side: Any = self.verticalHeader()
        head: Any = self.horizontalHeader()
        self.setFixedHeight(head.sizeHint().height() + shown * side.defaultSectionSize() + 4)

    def choose(self, region: int) -> None:
        """Mark the row of a region; nothing is emitted."""
        selection: Any = self.selectionModel()
        selection.blockSignals(True)
        self.selectRow(region - 1)
        selection.blockSignals(False)
        self.scrollTo(self.texts.index(region - 1, 0))
        viewport: Any = self.viewport()
        viewport.update()

    def _on_row(self, now: QModelIndex, before: QModelIndex) -> None:
        if now.isValid():
            self.chosen.emit(now.row() + 1)


class _Texts(QAbstractTableModel):
    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[str, ...]] = []

    def show_rows(self, texts: list[tuple[str, ...]]) -> None:
        """Take other texts; the view's selection is kept where there are as many rows."""
        if len(texts) == len(self._rows):
            self._rows = texts
            if texts:
                last = self.index(len(texts) - 1, len(COLUMNS) - 1)
                self.dataChanged.emit(self.index(0, 0), last)
            return
        self.beginResetModel()
        self._rows = texts
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of regions."""
        return len(self._rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return len(COLUMNS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a text, at the right."""
        if role == Qt.ItemDataRole.DisplayRole:
            return self._rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return the name of a column, and what it means."""
        if orientation == Qt.Orientation.Horizontal:
            if role == Qt.ItemDataRole.DisplayRole:
                return COLUMNS[section][0]
            if role == Qt.ItemDataRole.ToolTipRole:
                return COLUMNS[section][1]
        return None


_INVITATION = "Fit, then click an annulus in the pattern to see its histogram."
_EMPTY = (-20.0, 60.0), 1000.0


class HistogramView(QWidget):
    """A sentence, the plot, and what is what in it.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    """

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.histogram: Histogram | None = None
        self.title = WrappedLabel("Which pixels are counted here, and how many were cut off")
        self.plot = Plot(
            "counts",
            "pixels",
            "How many pixels have each count, after fig. 1 of doi:10.1107/S1600576716007196. "
            "Beyond the line, at the right, are Bragg spots",
        )
        self.plot.getPlotItem().setLogMode(x=False, y=True)
        self._recorded = self.plot.curve("hot", symbol="o")
        self._corrected = self.plot.curve("text", symbol="o")
        self._fitted = self.plot.curve("model")
        self._zero = self.plot.line("grid")
        self._zero.setVisible(True)
        self.legend = Key(
            (("hot", "●", "recorded"), ("text", "●", "corrected"),
             ("model", "━", "fitted lognormal"))
        )  # fmt: skip
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.title, self.plot, self.legend):
            column.addWidget(part)
        self.clear()

    @Slot()
    def clear(self) -> None:
        """Show no histogram."""
        self.histogram = None
        self._panel.tell(self.title, _INVITATION, "muted")
        for curve in (self._recorded, self._corrected, self._fitted):
            curve.setData([], [])
        self._show_range(*_EMPTY)

    def show_histogram(self, histogram: Histogram) -> None:
        """Show another one."""
        self.histogram = histogram
        self._panel.tell(self.title, histogram.title)
        self._recorded.setData(*histogram.recorded)
        self._corrected.setData(*histogram.corrected)
        self._fitted.setData(*(histogram.fitted or ([], [])))
        self._show_range(histogram.reach, histogram.most)

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.plot.apply_palette(colours)
        self.legend.apply_palette(colours)

    def _show_range(self, reach: tuple[float, float], most: float) -> None:
        self.plot.setXRange(*reach, padding=0.03)
        self.plot.setYRange(-0.15, np.log10(most) + 0.15, padding=0)
