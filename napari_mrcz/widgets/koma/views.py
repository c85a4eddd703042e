"""The plots of a session: noise by radius, with the one chosen; outliers and noise by dose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QSlider, QSpinBox, QWidget

from napari_mrcz.widgets.base.form import filled, show_number
from napari_mrcz.widgets.base.plot import Key, Plot

if TYPE_CHECKING:
    from napari_mrcz.widgets.koma.model import Ageing, NoiseCurve

# Steps between powers of ten, by how many of these an axis has.
_STEPS = ((0.7, (1, 2, 3, 5, 7)), (1.8, (1, 2, 5)), (math.inf, (1,)))
# Of radii, ten of which have room on the axis.
_SPACINGS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_CURVE_PX = 136
_TIP = "How many stacks before and after each are averaged, and subtracted from it"


class RadiusView(QWidget):
    """Three ways to choose the radius, always in step."""

    radius_changed = Signal(int)  # the user has chosen another

    def __init__(self) -> None:
        super().__init__()
        self.plot = Plot(
            "radius a (stacks)",
            "noise R\u0304",
            "Mean correlation of the frames of a stack after KOMA, by radius; drag the line to "
            "choose one. Below the limit no average of so many frames can come",
        )
        self.plot.setFixedHeight(_CURVE_PX)
        self.plot.getPlotItem().setLogMode(y=True)
        self.before = self.plot.line("muted", angle=0)
        self.limit = self.plot.curve("warning", style=Qt.PenStyle.DashLine)
        self.noise = self.plot.curve("accent")
        self.points = self.plot.curve("accent", symbol="o")
        self.marker = self.plot.line("text", movable=True)
        self.key = Key(
            (("accent", "━", "after KOMA"), ("warning", "╍", "limit 1/(2an)"),
             ("muted", "╍", "without KOMA"))
        )  # fmt: skip
        self.slider, self.number = QSlider(Qt.Orientation.Horizontal), QSpinBox()
        self.number.setSuffix(" stacks")
        row = QLabel("Radius a"), self.slider, self.number
        for part in row:
            part.setToolTip(_TIP)
        filled(self, self.plot, self.key, filled(QWidget(), *row, across=True))
        self.slider.valueChanged.connect(self._choose)
        self.number.valueChanged.connect(self.slider.setValue)
        self.marker.sigPositionChanged.connect(
            lambda: self.slider.setValue(round(self.marker.value()))
        )
        self.marker.sigPositionChangeFinished.connect(lambda: self._mark(self.radius))
        self.show_range(1, 0)
        self.show_curve(None)

    @property
    def radius(self) -> int:
        """What is chosen."""
        return int(self.slider.value())

    def show_range(self, radius: int, largest: int) -> None:
        """Show a radius, and how large it may be; tells nobody."""
        for control in (self.slider, self.number):
            show_number(control, radius, 1, max(radius, largest))
            control.setEnabled(largest > 1)
        self._mark(radius)

    def show_curve(self, curve: NoiseCurve | None) -> None:
        """Show a curve, or none."""
        drawn = (self.noise, self.points, self.limit)
        for item in (*drawn, self.marker, self.before):
            item.setVisible(curve is not None)
        if curve is None:
            for item in drawn:
                item.setData([], [])
            self._fit(self.slider.maximum(), 0.0, 1.0, [])
            return
        noise = np.where(curve.noise > 0, curve.noise, np.nan)  # which the axis cannot show
        self.noise.setData(curve.radii, noise, connect="finite")
        self.points.setData(curve.radii[~np.isnan(noise)], noise[~np.isnan(noise)])
        self.limit.setData(curve.radii, curve.limit)
        heights = np.concatenate([noise, curve.limit])
        if curve.before > 0:
            self.before.setValue(np.log10(curve.before))
            heights = np.append(heights, curve.before)
        self.before.setVisible(curve.before > 0)
        low, high = np.log10([np.nanmin(heights), np.nanmax(heights)])
        last = int(curve.radii[-1])
        self._fit(last, low, high, _ticks(low, high))
        self.marker.setBounds((1, last))
        self._mark(self.radius)

    def _fit(self, last: int, low: float, high: float, ticks: list[tuple[float, str]]) -> None:
        """Make the axes reach to a radius, and from one power of ten to another."""
        item = self.plot.getPlotItem()
        item.getAxis("left").setTicks([ticks])
        spacing = next((step for step in _SPACINGS if last < 10 * step), _SPACINGS[-1])
        item.getAxis("bottom").setTickSpacing(levels=[(spacing, 0)])
        margin = 0.08 * (high - low) + 0.05
        item.setRange(xRange=(0, last + 1), yRange=(low - margin, high + margin), padding=0)

    def _mark(self, radius: int) -> None:
        self.marker.blockSignals(True)
        self.marker.setValue(radius)
        self.marker.blockSignals(False)

    def _choose(self, radius: int) -> None:
        self.number.setValue(radius)
        if not self.marker.moving:
            self._mark(radius)
        self.radius_changed.emit(radius)


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return the ticks of a logarithmic axis at round numbers, few enough to be read."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    steps = next(steps for decades, steps in _STEPS if high - low < decades)
    values = (step * 10.0**power for power in powers for step in steps)
    return [(math.log10(value), f"{value:g}") for value in values]


_DOSE = "cumulative dose (e⁻/pixel)"


class AgeingView(QWidget):
    """Two plots, hidden until there is something to show (figs 7 and 11 of the preprint)."""

    def __init__(self) -> None:
        super().__init__()
        self.outliers = Plot(
            _DOSE, "outliers (pixels)", "Hot and dark pixels found in each stack: a camera ages"
        )
        self.hot = self.outliers.curve("hot", symbol="o")
        self.dark = self.outliers.curve("dark", symbol="t")
        self.noise_plot = Plot(
            _DOSE,
            "correlation R",
            "Between the frames of each stack, and of each stack's sum with the first one's: it "
            "falls as the camera's pixels change",
        )
        self.noise = self.noise_plot.curve("accent", symbol="o")
        self.correlation = self.noise_plot.curve("model", symbol="t")
        found = Key((("hot", "●", "hot"), ("dark", "▼", "dark")))
        alike = Key(
            (("accent", "●", "frames of a stack"), ("model", "▼", "sum with the first sum"))
        )
        filled(self, self.outliers, found, self.noise_plot, alike)
        self.show_ageing(None)

    def show_ageing(self, ageing: Ageing | None) -> None:
        """Show what was measured, or nothing."""
        self.setVisible(ageing is not None)
        if ageing is None:
            return
        self.hot.setData(ageing.dose, ageing.n_hot)
        self.dark.setData(ageing.dose, ageing.n_dark)
        told = ~np.isnan(ageing.noise)
        self.noise.setData(ageing.dose[told], ageing.noise[told])
        # With itself it is 1, which says nothing and leaves no room for the others.
        self.correlation.setData(ageing.dose[1:], ageing.correlation[1:])
