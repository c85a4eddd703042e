"""Histograms of charges and pixel values, and the gallery of single events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QWidget

from napari_mrcz.widgets.base.form import filled, form, number_field
from napari_mrcz.widgets.base.plot import Key, Plot

if TYPE_CHECKING:
    import numpy.typing as npt
    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.widgets.counting.model import Fit, Histogram

_LARGEST = 1e7
# Of a gallery: its brightest pixels are white, so many are; four rows of patches are so high.
_WHITE = 0.995
_GALLERY_PX = 118
# Pixels of the picture from one column of patches to the next.
_COLUMN = 10


class ChargeView(QWidget):
    """How often each charge occurs, and the threshold, as a line and as a number."""

    threshold_changed = Signal(float)  # in grey values of charge; often while the line is dragged

    def __init__(self) -> None:
        super().__init__()
        self.plot = Plot(
            "charge (grey values)",
            "spots",
            "How many spots have each charge. Drag the line: what is to its right is counted",
        )
        self.plot.getPlotItem().setLogMode(x=False, y=True)
        self._curve = self.plot.curve("accent", stepMode="center")
        self.line = self.plot.line("hot", movable=True)
        tip = "Charge, added up over a spot, from which it is an electron"
        self.number = number_field((0.1, _LARGEST), 1, " grey values", tip)
        self.number.setDecimals(1)
        below: Any = filled(self, self.plot).layout()
        below.addLayout(form(("Threshold", self.number)))
        self.line.sigPositionChanged.connect(self._on_line)
        self.number.valueChanged.connect(self._on_number)
        self.show_fit(None)

    @property
    def threshold(self) -> float:
        """The threshold in grey values of charge."""
        return float(self.number.value())

    def show_fit(self, fit: Fit | None) -> None:
        """Show the charges and the threshold of a fit, or nothing."""
        self.setEnabled(fit is not None)
        self.line.setVisible(fit is not None)
        if fit is None:
            self._curve.setVisible(False)
            self.plot.setXRange(0, 500, padding=0)
            self.plot.setYRange(0, 3, padding=0)
            return
        _draw(self.plot, self._curve, fit.charge_histogram())
        self.line.setBounds((0.1, fit.charge_histogram()[0][-1]))
        self.number.setValue(fit.threshold)
        self._on_number(self.threshold)

    def _on_line(self) -> None:
        if round(self.line.value(), 1) != self.threshold:
            self.number.setValue(self.line.value())

    def _on_number(self, value: float) -> None:
        if round(self.line.value(), 1) != value:
            self.line.blockSignals(True)  # else a number beyond the plot would be drawn back
            self.line.setValue(value)
            self.line.blockSignals(False)
        self.threshold_changed.emit(value)


class PixelView(QWidget):
    """How often each pixel value occurs, and what noise alone would give."""

    def __init__(self) -> None:
        super().__init__()
        self.plot = Plot(
            "pixel value above its offset (grey values)",
            "pixels",
            "How many pixels have each value. What exceeds the curve of the noise was struck",
        )
        self.plot.getPlotItem().setLogMode(x=False, y=True)
        self._values = self.plot.curve("accent", stepMode="center")
        self._noise = self.plot.curve("model")
        self.legend = Key((("accent", "━", "pixels"), ("model", "━", "read noise alone")))
        filled(self, self.plot, self.legend)
        self.show_fit(None)

    def show_fit(self, fit: Fit | None) -> None:
        """Show the pixel values of a fit, or nothing."""
        if fit is None:
            self._values.setVisible(False)
            self._noise.setData([], [])
            self.plot.setXRange(-20, 100, padding=0)
            self.plot.setYRange(0, 3, padding=0)
            return
        _draw(self.plot, self._values, fit.values)
        self._noise.setData(*fit.noise_curve())


class Gallery(QLabel):
    """Patches about single events as one picture, with as many of its columns as fit."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Single electrons as the detector shows them, 9 × 9 pixels each")
        # Were the height to follow the width, a scroll bar beside it would come and go for ever.
        self.setFixedHeight(_GALLERY_PX)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._pixmap: QPixmap | None = None

    def show_picture(self, picture: npt.NDArray[np.float32] | None) -> None:
        """Show another one, or none; what is no number is left transparent."""
        self.setVisible(picture is not None)
        self._pixmap = None if picture is None else _pixmap(picture)
        self._scale()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the picture's shape."""
        super().resizeEvent(event)
        self._scale()

    def _scale(self) -> None:
        if self._pixmap is None:
            self.clear()
            return
        height = self._pixmap.height()
        fitting = max(1, round(self.width() * height / (self.height() * _COLUMN)))
        part = self._pixmap.copy(0, 0, min(fitting * _COLUMN - 1, self._pixmap.width()), height)
        how = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.FastTransformation
        self.setPixmap(part.scaled(self.size(), *how))


def _draw(plot: Plot, curve: Any, histogram: Histogram) -> None:
    middle, number = histogram
    step = middle[1] - middle[0]
    # Empty bins have no logarithm: they lie below the plot.
    curve.setVisible(True)
    curve.setData(np.append(middle - step / 2, middle[-1] + step / 2), np.maximum(number, 0.1))
    plot.setXRange(min(0, middle[0]), middle[-1] + step, padding=0)
    plot.setYRange(-0.15, np.log10(max(number.max(), 10)) + 0.15, padding=0)


def _pixmap(picture: npt.NDArray[np.float32]) -> QPixmap:
    known = picture[np.isfinite(picture)]
    high = float(np.quantile(known, _WHITE)) if known.size else 1.0
    grey = np.clip(np.nan_to_num(picture) / max(high, 1e-6), 0, 1) * 255
    pixels = np.zeros((*picture.shape, 4), np.uint8)
    pixels[..., :3] = grey[..., np.newaxis].astype(np.uint8)
    pixels[..., 3] = np.where(np.isfinite(picture), 255, 0)
    y, x = picture.shape
    image = QImage(pixels.tobytes(), x, y, 4 * x, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image)  # a copy, which outlives the array
