"""Two plots with one σ axis, the distribution and its residual, and two lines that are dragged."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mrcz.widgets.base.plot import Plot
from napari_mrcz.widgets.outliers.curves import Curves, reach_of, weight_curve

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyqtgraph as pg

    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.outliers.model import Fit

APART = 0.1
"""Standard deviations that the dark and the hot threshold are apart at least."""

_SIGMA = "distance from the model (σ)"
_LEFT_PX, _RIGHT_PX = 52, 42
# Heights at which no curve is: in the residual's plot, in the distribution's.
_LABELS = {"dark": (0.25, 0.85), "hot": (0.1, 0.12)}
_DRAG = "Drag the two upright lines: what lies left of the dark or right of the hot one is replaced"


class ThresholdPlots(QWidget):
    """The cumulative distribution, and below it the residual with the weight.

    Attributes
    ----------
    moved : Signal(str, float)
        A line is being dragged: "dark" or "hot", and where it is in standard deviations.
    settled : Signal()
        It was let go.
    cdf, residual : Plot
        The two plots.
    lines : dict of str to list of InfiniteLine
        The dark and the hot line of each.
    """

    moved = Signal(str, float)
    settled = Signal()

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
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        for plot in self._plots:
            column.addWidget(plot)
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
        if not self._is_dragged() and self._reach != reach_of(fit.current):
            self._draw(Curves.of(fit.current))
        limits = fit.current.thresholds
        bounds = {
            "dark": (self._reach[0], limits.hot - APART),
            "hot": (limits.dark + APART, self._reach[1]),
        }
        with self._showing():
            self.cdf.setXRange(*self._reach, padding=0)
            for side, value in (("dark", limits.dark), ("hot", limits.hot)):
                for line in self.lines[side]:
                    line.setVisible(True)  # a label that is not seen takes no value
                    line.setBounds(bounds[side])
                    line.setValue(value)
        self._weight.setData(*weight_curve(fit.current, self._reach))

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        for plot in self._plots:
            plot.apply_palette(colours)

    def _line(self, plot: Plot, side: str) -> pg.InfiniteLine:
        line = plot.line(side, movable=True, label="{value:.2f} σ")
        line.label.setPosition(_LABELS[side][plot is self.cdf])
        line.sigPositionChanged.connect(lambda: self._on_moved(side, line.value()))
        line.sigPositionChangeFinished.connect(lambda: self.settled.emit())
        return line

    def _align(self) -> None:
        """Give both plots the same x axis, at the same place."""
        self.residual.setXLink(self.cdf)
        self.cdf.setYRange(-0.03, 1.03, padding=0)
        self.cdf.getPlotItem().showAxis("right")
        self.cdf.getPlotItem().getAxis("right").setTicks([])
        for plot in self._plots:
            plot.getPlotItem().getAxis("left").setWidth(_LEFT_PX)
            plot.getPlotItem().getAxis("right").setWidth(_RIGHT_PX)

    def _draw(self, curves: Curves | None) -> None:
        if curves is None:
            for curve in (self._cdf_points, self._cdf_model, self._residual_points, self._weight):
                curve.setData([], [])
            for tail in self._tails.values():
                tail.setData([], [])
            self.cdf.setXRange(-8, 8, padding=0)
            self.residual.setYRange(-1, 1, padding=0)
            return
        self._cdf_points.setData(*curves.cdf)
        self._cdf_model.setData(*curves.model)
        self._residual_points.setData(*curves.residual)
        self._tails["dark"].setData(*curves.dark_tail)
        self._tails["hot"].setData(*curves.hot_tail)
        self._reach = curves.reach
        self.residual.setYRange(*curves.residual_reach, padding=0)

    def _is_dragged(self) -> bool:
        return any(line.moving for side in self.lines.values() for line in side)

    @contextmanager
    def _showing(self) -> Iterator[None]:
        self._shows = True
        try:
            yield
        finally:
            self._shows = False

    def _on_moved(self, side: str, value: float) -> None:
        if not self._shows:
            self.moved.emit(side, value)
