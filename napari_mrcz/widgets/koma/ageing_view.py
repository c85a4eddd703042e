"""The session plots: outliers and noise by the dose that the camera has received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mrcz.widgets.base.plot import Key, Plot

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.koma.ageing import Ageing

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
        self.keys = (
            Key((("hot", "●", "hot"), ("dark", "▼", "dark"))),
            Key((("accent", "●", "frames of a stack"), ("model", "▼", "sum with the first sum"))),
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for plot, key in zip((self.outliers, self.noise_plot), self.keys, strict=True):
            column.addWidget(plot)
            column.addWidget(key)
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

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        for part in (self.outliers, self.noise_plot, *self.keys):
            part.apply_palette(colours)
