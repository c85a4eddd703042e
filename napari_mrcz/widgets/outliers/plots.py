"""The plots of a fit of outliers, whose two lines are dragged.

After fig. 5 of the preprint (doi:10.1101/116533).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from napari_mrcz.widgets.base.correction_dock import Threshold
from napari_mrcz.widgets.base.form import Section, filled, number_field
from napari_mrcz.widgets.base.plot import Plot

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.correction import OutlierFilter, TailFit
    from napari_mrcz.widgets.outliers.model import Fit

# In standard deviations: how far apart the thresholds are at least; farther than any pixel can lie;
# what is shown at least, of residuals at least, and beyond a threshold.
_APART, _FARTHEST = 0.1, 99.0
_REACH, _LEAST_RESIDUAL, _ROOM = 8.0, 1.0, 2.0
# More points than this cannot be told apart.
_POINTS = 600
_SIGMA = "distance from the model (σ)"
_LEFT_PX, _RIGHT_PX = 52, 42
# Heights at which no curve is: in the distribution's plot, in the residual's.
_LABELS = {"dark": (0.85, 0.25), "hot": (0.12, 0.1)}
_DRAG = "Drag the two upright lines: what lies left of the dark or right of the hot one is replaced"


class ThresholdPlots(QWidget):
    """The residual with the weight, and below it, folded, the cumulative distribution."""

    def __init__(self) -> None:
        super().__init__()
        self._reach = (-_REACH, _REACH)
        self.cdf = Plot(
            _SIGMA,
            "cumulative fraction",
            "Fraction of the pixels whose sum lies below: points are measured, the line is the "
            f"model of good pixels. {_DRAG}",
        )
        self.residual = Plot(
            _SIGMA,
            "residual (σ)",
            "Measured less model: outliers bend the ends away from zero. Dashed: lines through "
            "these tails. Right axis: how much of its own value a pixel keeps (eq. 6 of "
            f"doi:10.1101/116533). {_DRAG}",
        )
        self._cdf = self.cdf.curve("text", symbol="o")
        self._model = self.cdf.curve("model")
        self._zero = self.residual.line("grid", angle=0)
        weights = self.residual.right_axis("weight w", -0.05, 1.05)
        self._weight = self.residual.curve("accent", axis=weights)
        self._residual = self.residual.curve("text", symbol="o")
        self._tails = {
            side: self.residual.curve(side, style=Qt.PenStyle.DashLine) for side in _LABELS
        }
        self.thresholds = {
            "dark": self._threshold("dark", (-_FARTHEST, 0.0), "darker"),
            "hot": self._threshold("hot", (0.0, _FARTHEST), "brighter"),
        }
        # The x axes of both plots are the same, at the same place.
        self.cdf.getPlotItem().showAxis("right")
        self.cdf.getPlotItem().getAxis("right").setTicks([])
        for plot in (self.cdf, self.residual):
            plot.getPlotItem().getAxis("left").setWidth(_LEFT_PX)
            plot.getPlotItem().getAxis("right").setWidth(_RIGHT_PX)
            plot.setXRange(*self._reach, padding=0)
        self.cdf.setYRange(-0.03, 1.03, padding=0)
        self.residual.setYRange(-1, 1, padding=0)
        self.section = Section("Cumulative distribution", self.cdf)
        filled(self, self.residual, self.section, spacing=0)
        self.show_fit(None)

    @property
    def is_dragged(self) -> bool:
        """Whether the mouse holds one of the thresholds."""
        return any(threshold.is_dragged for threshold in self.thresholds.values())

    def show_fit(self, fit: Fit | None) -> None:
        """Show another fit, or empty axes."""
        curves = self._cdf, self._model, self._residual, self._weight, *self._tails.values()
        lines = (line for threshold in self.thresholds.values() for line in threshold.lines)
        for item in (self._zero, *curves, *lines):
            item.setVisible(fit is not None)
        for threshold in self.thresholds.values():
            threshold.field.setEnabled(fit is not None)
        if fit is not None:
            self._draw(fit.current)
            self.show_thresholds(fit)

    def show_thresholds(self, fit: Fit) -> None:
        """Show other thresholds, or other weights, of the same fit."""
        # An axis that moved under a drag would move the threshold.
        if not self.is_dragged and self._reach != reach_of(fit.current):
            self._draw(fit.current)
        limits = fit.current.thresholds
        for side, span in (
            ("dark", (-_FARTHEST, limits.hot - _APART)),
            ("hot", (limits.dark + _APART, _FARTHEST)),
        ):
            self.thresholds[side].show(getattr(limits, side), span, self._reach)
        sigma = np.linspace(*self._reach, _POINTS)
        self._weight.setData(sigma, fit.current.weight(sigma))

    def _threshold(self, side: str, span: tuple[float, float], which: str) -> Threshold:
        lines = []
        for plot, height in zip((self.cdf, self.residual), _LABELS[side], strict=True):
            lines.append(plot.line(side, movable=True, label="{value:.2f} σ"))
            lines[-1].label.setPosition(height)
        tip = f"Pixels {which} than this are replaced: type, or drag"
        field = number_field(span, 0.1, " σ", tip)
        field.setPrefix(f"{side} ")
        return Threshold(field, *lines)

    def _draw(self, outliers: OutlierFilter) -> None:
        """Draw what changes with the fit alone, and with how far it is shown."""
        from scipy.special import ndtr

        fit = outliers.distribution
        if fit is None:
            raise ValueError("a filter rebuilt from its description has no distribution")
        self._reach = low, high = reach_of(outliers)
        shown = np.flatnonzero((low <= fit.sigma) & (fit.sigma <= high))
        shown = shown[:: max(1, shown.size // _POINTS)]
        sigma, residual = fit.sigma[shown], fit.residual[shown]
        finite = np.isfinite(residual)
        self._cdf.setData(sigma, fit.cdf[shown])
        smooth = np.linspace(low, high, _POINTS)
        self._model.setData(smooth, ndtr(smooth))
        self._residual.setData(sigma[finite], residual[finite])
        self._tails["dark"].setData(*tail_line(outliers.dark_tail, low))
        self._tails["hot"].setData(*tail_line(outliers.hot_tail, high))
        # Linked axes would follow the width of one that is folded.
        for plot in (self.cdf, self.residual):
            plot.setXRange(low, high, padding=0)
        most = 1.1 * max(float(np.abs(residual[finite]).max(initial=0)), _LEAST_RESIDUAL)
        self.residual.setYRange(-most, most, padding=0)


def reach_of(outliers: OutlierFilter) -> tuple[float, float]:
    """Return the first and last standard deviation to show: both thresholds are within."""
    limits = outliers.thresholds
    return min(-_REACH, limits.dark - _ROOM), max(_REACH, limits.hot + _ROOM)


def tail_line(tail: TailFit | None, end: float) -> tuple[npt.NDArray[np.float64], ...]:
    """Return a tail's line from where it is zero, or from where it was fitted, to what is shown."""
    if tail is None:
        return np.empty(0), np.empty(0)
    near, far = sorted(tail.sigma, key=abs)
    if 0 < tail.intercept / near < 1:
        near = tail.intercept
    x = np.array([near, np.copysign(min(abs(far), abs(end)), end)])
    return x, tail.slope * x + tail.offset
