"""The spectrum with a ring under the mouse, and the drift with the peak of the fixed pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QRectF, Qt, Signal, Slot
from qtpy.QtWidgets import QWidget

from napari_mrcz.widgets.base.form import WrappedLabel, filled
from napari_mrcz.widgets.base.plot import Key, Plot

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.plot import Palette
    from napari_mrcz.widgets.movie.model import DriftShown, SpectrumShown

_IMAGE_PX, _CURVE_PX, _PATH_PX = 176, 126, 130
_TURN = np.linspace(0, 2 * np.pi, 181)


class _Watched(Plot):
    """A plot that tells where the mouse is.

    `hovered` comes with (x, y) as the axes count, or None when the mouse leaves.
    """

    hovered = Signal(object)
    bare = False

    def name_x(self, text: str) -> None:
        """Name the lower axis, in this theme and others."""
        self._labels["bottom"] = text
        self.getPlotItem().setLabel("bottom", text)

    def apply_palette(self, colours: Palette) -> None:
        super().apply_palette(colours)
        for side in ("bottom", "left") if self.bare else ():
            self.getPlotItem().hideAxis(side)

    def mouseMoveEvent(self, event: Any) -> None:
        super().mouseMoveEvent(event)
        scene = self.mapToScene(event.position().toPoint())
        at = self.getPlotItem().getViewBox().mapSceneToView(scene)
        self.hovered.emit((at.x(), at.y()))

    def leaveEvent(self, event: Any) -> None:
        super().leaveEvent(event)
        self.hovered.emit(None)


class SpectrumView(QWidget):
    """A power spectrum, its rotational average, and the ring that the mouse is at in either."""

    def __init__(self) -> None:
        super().__init__()
        tip = "Power spectrum of the sum, over its smooth background; a ring shows its spacing"
        self.picture = _Watched("", "", tip)
        self.picture.setFixedSize(_IMAGE_PX, _IMAGE_PX)
        self.picture.bare = True
        item = self.picture.getPlotItem()
        item.getViewBox().setAspectLocked(True)
        item.getViewBox().invertY(True)  # as the picture in the viewer
        self.image = pg.ImageItem(axisOrder="row-major")
        self.picture.addItem(self.image)
        self._ring = self.picture.curve("hot")
        tip = "Rotational average of the spectrum; rings that reach far out mean fine detail"
        self.average = _Watched("", "power / noise", tip)
        self.average.setFixedHeight(_CURVE_PX)
        self.average.getPlotItem().setLogMode(x=False, y=True)
        ticks = [(float(np.log10(value)), str(value)) for value in (1, 2, 5, 10, 20, 50, 100)]
        self.average.getPlotItem().getAxis("left").setTicks([ticks])
        self._curve = self.average.curve("accent")
        self._line = self.average.line("hot")
        self.told = WrappedLabel("Pixel size, Nyquist frequency, and the ring under the mouse")
        self.told.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._found: SpectrumShown | None = None
        filled(
            self, filled(QWidget(), self.picture, self.told, across=True), self.average, spacing=2
        )
        self.picture.hovered.connect(self._on_picture)
        self.average.hovered.connect(self._on_average)
        self.show_spectrum(None)

    def show_spectrum(self, found: SpectrumShown | None) -> None:
        """Show a spectrum, or nothing."""
        self._found = found
        self.image.setVisible(found is not None)
        if found is None:
            self._curve.setData([], [])
            self.show_ring(None)
            return
        rows, columns = found.image.shape
        self.image.setImage(found.image, levels=(0, 255), autoLevels=False)
        step_y, step_x = found.step
        left, top = (-(n // 2 + 0.5) * s for n, s in ((columns, step_x), (rows, step_y)))
        self.image.setRect(QRectF(left, top, columns * step_x, rows * step_y))
        self.picture.setRange(xRange=(left, -left), yRange=(top, -top), padding=0)
        self._curve.setData(found.frequency[1:], found.radial[1:])
        unit = "1/Å" if found.known else "1/pixel"
        self.average.name_x(f"frequency ({unit})")
        self.average.setXRange(0, found.nyquist, padding=0)
        high = np.log10(max(np.quantile(found.radial[2:], 0.99), 2))
        self.average.setYRange(-0.15, high, padding=0)
        self.show_ring(None)

    def show_ring(self, frequency: float | None) -> None:
        """Draw the ring of a frequency, and tell its spacing; None for no ring."""
        found = self._found
        shown = (
            found is not None and frequency is not None and 0 < frequency <= 1.42 * found.nyquist
        )
        self._line.setVisible(bool(shown))
        self._ring.setVisible(bool(shown))
        if found is None:
            self.told.setText("The spectrum comes with the sum.")
            return
        if shown and frequency is not None:
            self._line.setValue(frequency)
            self._ring.setData(frequency * np.cos(_TURN), frequency * np.sin(_TURN))
        unit = "Å" if found.known else "pixels"
        lines = [
            f"Pixel {0.5 / found.nyquist:.3g} Å" if found.known else "Pixel size unknown",
            f"Nyquist {1 / found.nyquist:.3g} {unit}",
            "",
        ]
        if shown and frequency is not None:
            lines += [
                f"Ring at {1 / frequency:.3g} {unit}",
                f"{frequency:.3f} 1/{unit.rstrip('s')}",
            ]
            if frequency <= found.nyquist:
                height = np.interp(frequency, found.frequency, found.radial)
                lines.append(f"{height:.3g} × the noise")
        else:
            lines.append("Move the mouse over the rings for their spacing.")
        self.told.setText("\n".join(lines))

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.picture.apply_palette(colours)
        self.average.apply_palette(colours)

    @Slot(object)
    def _on_picture(self, at: tuple[float, float] | None) -> None:
        self.show_ring(None if at is None else float(np.hypot(*at)))

    @Slot(object)
    def _on_average(self, at: tuple[float, float] | None) -> None:
        self.show_ring(None if at is None else at[0])


class DriftView(QWidget):
    """The path of the specimen, and the peaks of specimen and fixed pattern."""

    def __init__(self) -> None:
        super().__init__()
        tip = "Where the specimen moved, against the first group of frames; one point per group"
        self.path = Plot("x (pixels)", "y (pixels)", tip)
        self.path.setFixedHeight(_PATH_PX)
        self.path.getPlotItem().getViewBox().invertY(True)
        self.path.getPlotItem().getViewBox().setAspectLocked(True)
        tip = (
            "Correlation of the first and last third of the movie. The specimen's peak is where it"
            " moved to; a fixed pattern (hot pixels, gain) has its own at 0, and pulls there"
        )
        self.peaks = Plot("distance along the drift (pixels)", "correlation", tip)
        self.peaks.setFixedHeight(_PATH_PX)
        self.legend = Key((("hot", "━", "before the corrections"), ("accent", "━", "this movie")))
        self.told = WrappedLabel("How far the specimen drifted, and the fixed pattern's peak")
        self._line, self._points = self.path.curve("accent"), self.path.curve("accent", symbol="o")
        self._peaks = {colour: self.peaks.curve(colour) for colour in ("hot", "accent")}
        filled(self, self.told, self.path, self.peaks, self.legend, spacing=2)
        self.show_drift(None)

    def show_drift(
        self, shown: DriftShown | None, pixel_size: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Show a drift, or nothing; `pixel_size` is (y, x) in Å, 0 where it is unknown."""
        for part in (self.told, self.peaks, self.path):
            part.setVisible(shown is not None)
        self.legend.setVisible(shown is not None and shown.before is not None)
        if shown is None:
            return
        found = shown.found
        y, x = found.shifts.T
        self._line.setData(x, y)
        self._points.setData(x, y)
        self._peaks["accent"].setData(*found.correlation.T)
        self._peaks["hot"].setVisible(shown.before is not None)
        pattern = _height(found.fixed_pattern)
        if shown.before is not None:
            height, correlation = shown.before
            self._peaks["hot"].setData(*correlation.T)
            pattern = f"{_height(height)} before the corrections, {pattern} after them"
        steps = np.diff(found.shifts, axis=0)
        length = f"{np.hypot(*steps.T).sum():.1f} pixels"
        if all(pixel_size):
            length += f" ({np.hypot(*(steps * pixel_size).T).sum():.1f} Å)"
        # Of no specimen there is no error; the warnings say so.
        error = "" if found.warnings else f", each shift ±\u00a0{found.error:.2g} pixels"
        self.told.setText(
            f"The specimen moved {length}{error}. Fixed-pattern peak, relative to the"
            f" specimen's: {pattern}."
        )

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        for part in (self.path, self.peaks, self.legend):
            part.apply_palette(colours)


def _height(fixed_pattern: float) -> str:
    if np.isinf(fixed_pattern):
        return "without limit, as no specimen was found"
    return "unknown" if np.isnan(fixed_pattern) else f"{fixed_pattern:.2f}"
