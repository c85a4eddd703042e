"""What was fitted to a sweep: the histogram of one region, and the table of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_mrcz.errors import with_minus
from napari_mrcz.widgets.base.form import filled
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.plot import Key, Plot

if TYPE_CHECKING:
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
    texts = []
    for region, (mu, sigma, shift) in enumerate(model.parameters[frame]):
        fitted = (f"{mu:.3f}", f"{sigma:.3f}", f"{shift:.1f}")
        if np.isnan(mu):
            fitted = (NOTHING,) * 3
        zeros = f"{model.zeros[frame, region] / fit.pixels[region]:.1%}"
        radius = NOTHING if np.isnan(fit.radii[region]) else f"{fit.radii[region]:.0f}"
        texts.append((str(fit.names[region]), radius, zeros, *map(with_minus, fitted)))
    return texts


class FitTable(QTableWidget):
    """As high as its rows, up to ten."""

    chosen = Signal(int)  # the row of a region (1 ... k)

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.setToolTip("What was fitted to the frame that is shown; choose a row to see it")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._side = cast("QHeaderView", self.verticalHeader())
        self._side.setVisible(False)
        self._head = cast("QHeaderView", self.horizontalHeader())
        for column, (name, tip) in enumerate(COLUMNS):
            item = QTableWidgetItem(name)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(column, item)
        self._head.setMinimumSectionSize(36)
        self._head.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self._head.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.itemSelectionChanged.connect(self._on_selected)
        self.show_rows([])

    def show_rows(self, texts: list[tuple[str, ...]]) -> None:
        """Show other rows; the chosen one stays where there are as many."""
        if len(texts) != self.rowCount():
            self.setRowCount(len(texts))
            for row, column in np.ndindex(len(texts), len(COLUMNS)):
                item = QTableWidgetItem()
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
        for row, column in np.ndindex(len(texts), len(COLUMNS)):
            item = self.item(row, column)  # type: ignore[assignment]
            item.setText(texts[row][column])
        shown = min(max(len(texts), 1), _ROWS_SHOWN)
        self.setVisible(bool(texts))
        height = self._head.sizeHint().height() + shown * self._side.defaultSectionSize() + 4
        self.setFixedHeight(height)

    def choose(self, region: int) -> None:
        """Mark the row of a region; nothing is emitted."""
        self.blockSignals(True)
        self.selectRow(region - 1)
        self.blockSignals(False)

    def _on_selected(self) -> None:
        if rows := {index.row() for index in self.selectedIndexes()}:
            self.chosen.emit(rows.pop() + 1)


_INVITATION = "Fit, then click an annulus in the pattern to see its histogram."
_EMPTY = (-20.0, 60.0), 1000.0


class HistogramView(QWidget):
    """A sentence, the plot, and what is what in it."""

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
        filled(self, self.title, self.plot, self.legend)
        self.clear()

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

    def _show_range(self, reach: tuple[float, float], most: float) -> None:
        self.plot.setXRange(*reach, padding=0.03)
        self.plot.setYRange(-0.15, np.log10(most) + 0.15, padding=0)
