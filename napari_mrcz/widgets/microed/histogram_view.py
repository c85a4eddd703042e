"""The histogram of one region: as recorded, as corrected, and as it was fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Slot
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mrcz.widgets.base.key import Key
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.plot import Plot

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.microed.histogram import Histogram

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
