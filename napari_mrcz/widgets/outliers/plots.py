"""The plots of a fit of outliers, whose two lines are dragged, and of the pixel that was clicked.

After fig. 5 of the preprint (doi:10.1101/116533).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QWidget

from napari_mrcz.widgets.base.form import Section, WrappedLabel, filled
from napari_mrcz.widgets.base.plot import Plot

if TYPE_CHECKING:
    import pyqtgraph as pg

    from napari_mrcz.correction import OutlierFilter, TailFit
    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.outliers.model import Fit, PixelCourse

APART = 0.1
"""Standard deviations that the dark and the hot threshold are apart at least."""

_SIGMA = "distance from the model (σ)"
_LEFT_PX, _RIGHT_PX = 52, 42
# Heights at which no curve is: in the residual's plot, in the distribution's.
_LABELS = {"dark": (0.25, 0.85), "hot": (0.1, 0.12)}
_DRAG = "Drag the two upright lines: what lies left of the dark or right of the hot one is replaced"


class ThresholdPlots(QWidget):
    """The residual with the weight, and below it, folded, the cumulative distribution."""

    moved = Signal(str, float)  # "dark" or "hot" is being dragged: where it is, in sigma
    settled = Signal()  # it was let go

    def __init__(self) -> None:
        super().__init__()
        self._shows = False  # whether lines are moved by us
        self._reach = (0.0, 0.0)
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
        self._cdf_points = self.cdf.curve("text", symbol="o")
        self._cdf_model = self.cdf.curve("model")
        self._zero = self.residual.line("grid", angle=0)
        weights = self.residual.right_axis("weight w", -0.05, 1.05)
        self._weight = self.residual.curve("accent", axis=weights)
        self._residual_points = self.residual.curve("text", symbol="o")
        self._tails = {
            side: self.residual.curve(side, style=Qt.PenStyle.DashLine) for side in ("dark", "hot")
        }
        self.lines = {
            side: [self._line(plot, side) for plot in self._plots] for side in self._tails
        }
        self._align()
        self.section = Section("Cumulative distribution", self.cdf)
        filled(self, self.residual, self.section, spacing=0)
        self.clear()

    @property
    def _plots(self) -> tuple[Plot, Plot]:
        return self.cdf, self.residual

    def clear(self) -> None:
        """Show empty axes."""
        self._draw(None)
        for line in (self._zero, *self.lines["dark"], *self.lines["hot"]):
            line.setVisible(False)

    def show_fit(self, fit: Fit) -> None:
        """Show another fit."""
        self._draw(Curves.of(fit.current))
        self._zero.setVisible(True)
        self.show_thresholds(fit)

    def show_thresholds(self, fit: Fit) -> None:
        """Show other thresholds, or other weights, of the same fit."""
        # An axis that moved under a drag would move the threshold.
        if not self.is_dragged and self._reach != reach_of(fit.current):
            self._draw(Curves.of(fit.current))
        limits = fit.current.thresholds
        bounds = {
            "dark": (self._reach[0], limits.hot - APART),
            "hot": (limits.dark + APART, self._reach[1]),
        }
        self._shows = True
        self._show_range(*self._reach)
        for side, value in (("dark", limits.dark), ("hot", limits.hot)):
            for line in self.lines[side]:
                line.setVisible(True)  # a label that is not seen takes no value
                line.setBounds(bounds[side])
                line.setValue(value)
        self._shows = False
        self._weight.setData(*weight_curve(fit.current, self._reach))

    def _line(self, plot: Plot, side: str) -> pg.InfiniteLine:
        line = plot.line(side, movable=True, label="{value:.2f} σ")
        line.label.setPosition(_LABELS[side][plot is self.cdf])
        line.sigPositionChanged.connect(lambda: self._on_moved(side, line.value()))
        line.sigPositionChangeFinished.connect(lambda: self.settled.emit())
        return line

    def _align(self) -> None:
        """Make the x axes of both plots the same, at the same place."""
        self.cdf.setYRange(-0.03, 1.03, padding=0)
        self.cdf.getPlotItem().showAxis("right")
        self.cdf.getPlotItem().getAxis("right").setTicks([])
        for plot in self._plots:
            plot.getPlotItem().getAxis("left").setWidth(_LEFT_PX)
            plot.getPlotItem().getAxis("right").setWidth(_RIGHT_PX)

    def _draw(self, curves: Curves | None) -> None:
        if curves is None:
            drawn = self._cdf_points, self._cdf_model, self._residual_points, self._weight
            for curve in (*drawn, *self._tails.values()):
                curve.setData([], [])
            self._show_range(-8.0, 8.0)
            self.residual.setYRange(-1, 1, padding=0)
            return
        self._cdf_points.setData(*curves.cdf)
        self._cdf_model.setData(*curves.model)
        self._residual_points.setData(*curves.residual)
        self._tails["dark"].setData(*curves.dark_tail)
        self._tails["hot"].setData(*curves.hot_tail)
        self._reach = curves.reach
        self.residual.setYRange(*curves.residual_reach, padding=0)

    def _show_range(self, low: float, high: float) -> None:
        """Show the same x in both; linked axes would follow the width of one that is folded."""
        for plot in self._plots:
            plot.setXRange(low, high, padding=0)

    @property
    def is_dragged(self) -> bool:
        """Whether the mouse holds one of the lines."""
        return any(line.moving for side in self.lines.values() for line in side)

    def _on_moved(self, side: str, value: float) -> None:
        if not self._shows:
            self.moved.emit(side, value)


_INVITATION = "Click an outlier to see it through the frames."
_COLOURS = {1: "hot", -1: "dark"}


class PixelView(QWidget):
    """A sentence, and below it a plot while there is something to show."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.text = WrappedLabel("The pixel that was clicked last, or the outlier nearest to it")
        self.plot = Plot(
            "frame",
            "counts",
            "The pixel's value in each frame; dashed is what a typical good pixel counts",
        )
        self._curves = {name: self.plot.curve(name) for name in ("dark", "hot", "text")}
        self._typical = self.plot.line("model", angle=0)
        filled(self, self.text, self.plot)
        self.clear()

    def clear(self, text: str = _INVITATION, tone: str = "muted") -> None:
        """Show no pixel."""
        self._panel.tell(self.text, text, tone)
        self.plot.setVisible(False)

    def show_course(self, course: PixelCourse) -> None:
        """Show a pixel."""
        self._panel.tell(self.text, str(course))
        values = course.values.astype(np.float64)
        named = _COLOURS.get(course.kind, "text")
        for name, curve in self._curves.items():
            curve.setData(values if name == named else [])
        self._typical.setValue(course.typical)
        self._typical.setVisible(True)
        finite = np.append(values[np.isfinite(values)], [course.typical, 0.0])
        room = 0.05 * (float(np.ptp(finite)) or 1.0)
        self.plot.setYRange(float(finite.min()) - room, float(finite.max()) + room, padding=0)
        self.plot.setXRange(0, max(1, len(values) - 1), padding=0.02)
        self.plot.setVisible(True)


# The curves --------------------------------------------------------------------------------------

Values = npt.NDArray[np.float64]
Line = tuple[Values, Values]

# In standard deviations: what is shown at least, what is shown of residuals at least, and what is
# shown beyond a threshold.
_REACH, _LEAST_RESIDUAL, _ROOM = 8.0, 1.0, 2.0
# More points than this cannot be told apart.
_POINTS = 600


@dataclass(frozen=True, eq=False)
class Curves:
    """Points (x, y), x in standard deviations of the model."""

    reach: tuple[float, float]  # the first and last x that are shown
    cdf: Line  # fraction of the pixels below x: measured
    model: Line  # and according to the model
    residual: Line  # measured less model, in standard deviations (eq. 4); where that is finite
    dark_tail: Line  # fitted to the residual's tail, from zero on; empty where there is none
    hot_tail: Line
    residual_reach: tuple[float, float]  # the lowest and highest residual that are shown

    @classmethod
    def of(cls, outliers: OutlierFilter) -> Curves:
        """Take them from a filter that was fitted."""
        from scipy.special import ndtr

        fit = outliers.distribution
        if fit is None:
            raise ValueError("a filter rebuilt from its description has no distribution")
        low, high = reach_of(outliers)
        shown = np.flatnonzero((low <= fit.sigma) & (fit.sigma <= high))
        shown = shown[:: max(1, shown.size // _POINTS)]
        sigma, residual = fit.sigma[shown], fit.residual[shown]
        finite = np.isfinite(residual)
        smooth = np.linspace(low, high, _POINTS)
        most = max(float(np.abs(residual[finite]).max(initial=0)), _LEAST_RESIDUAL) * 1.1
        return cls(
            reach=(low, high),
            cdf=(sigma, fit.cdf[shown]),
            model=(smooth, ndtr(smooth)),
            residual=(sigma[finite], residual[finite]),
            dark_tail=_tail(outliers.dark_tail, low),
            hot_tail=_tail(outliers.hot_tail, high),
            residual_reach=(-most, most),
        )


def reach_of(outliers: OutlierFilter) -> tuple[float, float]:
    """Return the first and last standard deviation to show: both thresholds are within."""
    limits = outliers.thresholds
    return min(-_REACH, limits.dark - _ROOM), max(_REACH, limits.hot + _ROOM)


def weight_curve(outliers: OutlierFilter, reach: tuple[float, float]) -> Line:
    """Return how much of its own value a pixel keeps (eq. 6)."""
    sigma = np.linspace(*reach, _POINTS)
    return sigma, outliers.weight(sigma)


def _tail(tail: TailFit | None, end: float) -> Line:
    """Return a tail's line from where it is zero, or from where it was fitted, to what is shown."""
    if tail is None:
        return np.empty(0), np.empty(0)
    near, far = sorted(tail.sigma, key=abs)
    if 0 < tail.intercept / near < 1:
        near = tail.intercept
    x = np.array([near, np.copysign(min(abs(far), abs(end)), end)])
    return x, tail.slope * x + tail.offset
