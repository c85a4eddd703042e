"""The pixel that was clicked: its value through the frames, and what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.plot import Plot

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.outliers.reading import PixelCourse

_INVITATION = "Click an outlier in the viewer to see its value through the frames."
_COLOURS = {1: "hot", -1: "dark"}


class PixelView(QWidget):
    """A sentence, and below it a plot while there is something to show.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    """

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
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.text)
        column.addWidget(self.plot)
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
            curve.setData(np.arange(len(values)), values) if name == named else curve.setData(
                [], []
            )
        self._typical.setValue(course.typical)
        self._typical.setVisible(True)
        finite = np.append(values[np.isfinite(values)], [course.typical, 0.0])
        room = 0.05 * (float(np.ptp(finite)) or 1.0)
        self.plot.setYRange(float(finite.min()) - room, float(finite.max()) + room, padding=0)
        self.plot.setXRange(0, max(1, len(values) - 1), padding=0.02)
        self.plot.setVisible(True)

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.plot.apply_palette(colours)
