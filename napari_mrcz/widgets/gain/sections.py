"""Parts of the "Gain" dock: the exponent γ, and defective pixels."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QFileDialog, QSlider, QWidget
from superqt.utils import QSignalDebouncer

from napari_mrcz.correction import PREPRINT_GAMMA, GammaCurve
from napari_mrcz.correction.gain import GainStep
from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.widgets.base.derived import add_layer, geometry
from napari_mrcz.widgets.base.form import (
    OptionsForm,
    WrappedLabel,
    filled,
    form,
    number_field,
    push_button,
)
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import connect_while_alive
from napari_mrcz.widgets.base.plot import Plot
from napari_mrcz.widgets.gain.model import (
    HIGHEST,
    KINDS,
    LISTED,
    LOWEST,
    WITHOUT_GAIN,
    GammaFit,
    add_listed,
    count_defects,
    defects_text,
    export_defects,
    joined,
    load_defects,
)
from napari_mrcz.widgets.gain.references import FileDrops

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.gain.model import Shape

_JSON = "γ by dose rate (*.json)"
# More than the four coefficients of eq. 11, or it would go through any points.
_ENOUGH = 5


class Exponent(QWidget):
    """The exponent γ: by hand (`options`), by the dose rate, or fitted.

    Curve and points are kept in a dict when the dock is closed.
    """

    changed = Signal(float)  # another γ was chosen

    def __init__(self, panel: Panel, kept: dict[str, Any]) -> None:
        super().__init__()
        self._panel, self._kept = panel, kept
        preprint = PREPRINT_GAMMA, "the preprint's, of a K2 Summit"
        self.curve, self._curve_name = kept.get("curve", preprint)
        self.points: dict[float, float] = kept.setdefault("points", {})
        self.options = OptionsForm(GainStep, ("gamma",), sliders={"gamma": (LOWEST, HIGHEST)})
        field: Any = self.options.fields["gamma"].native
        self.slider, self.number = field.findChild(QSlider), field.findChild(QDoubleSpinBox)
        for part in (self.slider, self.number):
            part.setToolTip("Exponent of the reference, 0.5 to 1.5; 1 takes it as it is (eq. 9)")
        self.rate = number_field(
            (0, 1000),
            0.5,
            " e⁻/pix/s",
            "Electrons per physical pixel and second; the curve below gives γ for it (eq. 11)",
        )
        self.rate.setDecimals(3)
        self.rate.setSpecialValueText("unknown")
        self.curve_plot = Plot(
            "dose rate (e⁻/pix/s)", "γ", "The curve of eq. 11, and γ fitted at some dose rates"
        )
        self.curve_line = self.curve_plot.curve("model")
        self.curve_points = self.curve_plot.curve("accent", symbol="o")
        self.rate_line = self.curve_plot.line("text")
        self.curve_text = WrappedLabel("What the curve says")
        self.load_button = push_button("Open curve…", "Read a curve of γ by dose rate (JSON)")
        self.save_button = push_button("Save curve…", "Write the curve as JSON")
        self.curve_button = push_button("Fit curve", "")
        self.forget_button = push_button("Clear points", "Forget the γ fitted so far")
        self.fit_controls = JobControls(
            panel,
            "Fit γ",
            "Find the γ that flattens this movie best. It should show no specimen: vacuum, "
            "evenly illuminated, some 400 electrons a pixel",
        )
        self.fit_plot = Plot(
            "γ", "unevenness (%)", "Standard deviation of means of 64 × 64 pixels (eq. 10)"
        )
        self.fit_curve = self.fit_plot.curve("accent")
        self.fit_line = self.fit_plot.line("hot", label="γ {value:.3f}")
        self.fit_text = WrappedLabel("How well the best γ flattens the movie")
        rate = QWidget()
        rate.setLayout(form(("Dose rate", self.rate)))
        files = filled(QWidget(), self.load_button, self.save_button, across=True)
        points = filled(QWidget(), self.curve_button, self.forget_button, across=True)
        fit = self.fit_controls, self.fit_plot, self.fit_text
        filled(self, rate, self.curve_text, *fit, self.curve_plot, files, points)
        self.options.changed.connect(lambda name: self.changed.emit(self.gamma))
        self.rate.valueChanged.connect(self._on_rate)
        self.load_button.clicked.connect(self._load)
        self.save_button.clicked.connect(self._save)
        self.curve_button.clicked.connect(self._fit_curve)
        self.forget_button.clicked.connect(self._forget)
        self.show_fit(None)
        self._show_curve()

    @property
    def gamma(self) -> float:
        """The exponent."""
        return float(self.options.values()["gamma"])

    @property
    def dose_rate(self) -> float | None:
        """In e⁻/pix/s; None if it is not known."""
        return self.rate.value() or None

    def choose(self, gamma: float) -> None:
        """Choose an exponent, as precisely as it is shown."""
        gamma = round(gamma, 3)
        if gamma != self.gamma:
            self.show_gamma(gamma)
            self.changed.emit(gamma)

    def show_gamma(self, gamma: float) -> None:
        """Show an exponent; nothing is emitted."""
        self.options.show_values({"gamma": gamma})

    def show_fit(self, fit: GammaFit | None, *, choose: bool = True) -> None:
        """Show how even the movie is for each γ, and take the best; None shows nothing."""
        self.fit_plot.setVisible(fit is not None)
        text, tone = ("", "text") if fit is None else fit.text()
        self._panel.tell(self.fit_text, text, tone)
        self.fit_text.setVisible(bool(text))
        if fit is None:
            return
        self.fit_curve.setData(fit.gammas, 100 * fit.unevenness)
        self.fit_line.setVisible(fit.best is not None)
        if fit.best is None:
            return
        self.fit_line.setValue(fit.best)
        if choose:
            self.choose(float(fit.best))
            if self.dose_rate is not None:
                self.points[self.dose_rate] = fit.best
                self._show_curve()

    def _show_curve(self) -> None:
        curve, rate, number = self.curve, self.dose_rate, len(self.points)
        rates = np.geomspace(curve.lowest, curve.highest, 100)
        self.curve_line.setData(rates, [curve.at(one) for one in rates])
        self.curve_points.setData(list(self.points), list(self.points.values()))
        self.rate_line.setVisible(rate is not None)
        self.rate_line.setValue(rate or 0)
        self.curve_button.setEnabled(number >= _ENOUGH)
        self.curve_button.setToolTip(
            f"Fit eq. 11 to γ fitted at {_ENOUGH} or more dose rates; there are {number} so far. "
            "Each Fit γ with a dose rate given adds one"
        )
        self.forget_button.setEnabled(number > 0)
        text, tone = f"{curve.lowest:g} to {curve.highest:g} e⁻/pix/s", "warning"
        text = f"Curve: {self._curve_name}, from {text}"
        gamma = self._gamma_of_curve()
        if rate is None:
            text, tone = f"{text}.", "text"
        elif gamma is None:
            text = f"{text}. It was not measured at {rate:g} e⁻/pix/s."
        elif LOWEST <= gamma <= HIGHEST:
            text, tone = f"{text}; γ {gamma:.3f} at {rate:g}.", "text"
        else:
            text = f"{text}; γ {gamma:.3f} at {rate:g} is too far from 1 to be used."
        if curve.warnings:
            text, tone = f"{text} {' '.join(curve.warnings)}", "warning"
        self._panel.tell(self.curve_text, text, tone)

    def _gamma_of_curve(self) -> float | None:
        try:
            return None if self.dose_rate is None else self.curve.at(self.dose_rate)
        except ValueError:  # beyond what was measured
            return None

    @Slot()
    def _on_rate(self) -> None:
        self._show_curve()
        gamma = self._gamma_of_curve()
        if gamma is not None and LOWEST <= gamma <= HIGHEST:
            self.choose(gamma)

    def _take(self, make: Callable[[], GammaCurve], name: str) -> None:
        try:
            self.curve, self._curve_name = self._kept["curve"] = make(), name
        except ValueError as error:
            self._panel.tell(self.curve_text, error_text(error), "error")
        else:
            self._on_rate()

    @Slot()
    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Curve of γ by dose rate", "", _JSON)
        if path:
            self._take(partial(GammaCurve.load, path), Path(path).name)

    @Slot()
    def _fit_curve(self) -> None:
        fit = partial(GammaCurve.fit, list(self.points), list(self.points.values()))
        self._take(fit, f"fitted at {len(self.points)} dose rates")

    @Slot()
    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save curve", "gamma.json", _JSON)
        if not path:
            return
        named = path if Path(path).suffix else f"{path}.json"
        try:
            if named != path and Path(named).exists():  # which the dialog has not asked about
                raise MrczError(named, "it exists already")
            self.curve.save(named)
        except MrczError as error:
            self._panel.tell(self.curve_text, error_text(error), "error")
        else:
            self._panel.tell(self.curve_text, f"Saved {Path(named).name}.")

    @Slot()
    def _forget(self) -> None:
        self.points.clear()
        self._show_curve()


_DEFECTS = "Defects (*.txt *.mrc *.mrcz *.tif *.tiff);;All files (*)"
_REST_MS = 100


class Defects(QWidget):
    """Defective pixels: imported, joined with those of the reference, painted, exported.

    `movie` returns the image layer whose camera it is, `frames` rows and columns of its frames.
    """

    def __init__(
        self, panel: Panel, movie: Callable[[], Image | None], frames: Callable[[], Shape | None]
    ) -> None:
        super().__init__()
        self._panel, self._movie, self._frames = panel, movie, frames
        self._layer: weakref.ref[Any] | None = None
        # Counted when the brush rests; some events come before the pixels have changed.
        self._soon = QSignalDebouncer(parent=self)
        self._soon.setTimeout(_REST_MS)
        self._soon.triggered.connect(self.refresh)
        self._without_gain: npt.NDArray[np.bool_] | None = None
        self.controls = JobControls(
            panel, "Import…", "Add the pixels of a list of SerialEM or MotionCor, or of a map"
        )
        self.show_button = push_button(
            "Show", "Show them as a labels layer, to be painted and erased with napari's own tools"
        )
        self.export_button = push_button(
            "Export…", "Write them for SerialEM, for MotionCor, or as a map"
        )
        for button in (self.show_button, self.export_button):
            self.controls.buttons.addWidget(button)
        self.join = QCheckBox("with pixels without usable gain")
        self.join.setToolTip("Gain that is 0, negative or no number marks a pixel as defective")
        self.join.setChecked(True)
        self.count = WrappedLabel("How many pixels are defective")
        filled(self, self.controls, self.join, self.count)
        self.controls.start_button.clicked.connect(self._choose)
        self.show_button.clicked.connect(self.show_layer)
        self.export_button.clicked.connect(self._export)
        self.join.toggled.connect(self._rejoin)
        self.controls.returned.connect(self._on_returned)
        self.controls.ended.connect(self.refresh)
        FileDrops(self).dropped.connect(self.open)
        connect_while_alive(self, panel.viewer.layers.events.removed, self.refresh)
        self.refresh()

    @property
    def layer(self) -> Any:
        """The labels, while they are in the viewer and are those of such frames; or None."""
        layer = None if self._layer is None else self._layer()
        if layer is None or layer not in self._panel.viewer.layers:
            return None
        return layer if self._frames() in (None, layer.data.shape) else None

    def set_without_gain(self, pixels: npt.NDArray[np.bool_] | None) -> None:
        """Show which pixels have no usable gain, as the frames lie; None if it is not known."""
        known, self._without_gain = self._without_gain, pixels
        if known is None or pixels is None or not np.array_equal(known, pixels):
            self._rejoin()

    @Slot(str)
    def open(self, path: str) -> None:
        """Add the pixels of a list or map."""
        if (frames := self._frames()) is not None:
            self.controls.run(partial(load_defects, path, frames))
            self.refresh()

    @Slot()
    def show_layer(self) -> None:
        """Show the labels, made where there are none yet."""
        if (layer := self.layer) is not None:
            layer.visible = True
            self._panel.viewer.layers.selection.active = layer
        elif (frames := self._frames()) is not None:
            self._put(np.zeros(frames, np.uint8))

    @Slot()
    def refresh(self, event: Any = None) -> None:
        """Count the pixels, and enable what can be used."""
        layer, frames = self.layer, self._frames()
        self.controls.allow("" if frames is not None else "Open or add a movie first.")
        self.show_button.setEnabled(frames is not None)
        pixels = self._joined_pixels
        bad = without = 0 if pixels is None else int(np.count_nonzero(pixels))
        if layer is not None:
            bad, without = count_defects(np.asarray(layer.data))
        said = "" if frames is None else defects_text(bad, without, frames[0] * frames[1])
        self._panel.tell(self.count, said)
        self.export_button.setEnabled(bad > 0 and not self.controls.running)

    @property
    def _joined_pixels(self) -> npt.NDArray[np.bool_] | None:
        pixels = self._without_gain
        fits = pixels is not None and pixels.shape == self._frames()
        return pixels if fits and self.join.isChecked() else None

    @Slot()
    def _rejoin(self) -> None:
        if self.layer is not None:
            self._put(np.asarray(self.layer.data))
        self.refresh()

    def _put(self, labels: npt.NDArray[Any]) -> None:
        """Show labels, with the pixels without usable gain."""
        movie, layer = self._movie(), self.layer
        if movie is None:
            return
        labels = joined(labels, self._joined_pixels)
        if layer is not None:
            if not np.array_equal(layer.data, labels):
                layer.data = labels
            return
        colours = self._panel.palette_now
        shown: dict[int | None, str] = {
            **dict.fromkeys((None, LISTED), colours.hot),
            0: "transparent",
            WITHOUT_GAIN: colours.dark,
        }
        look = DirectLabelColormap(color_dict=shown)
        place = geometry(movie, 2)
        layer = Labels(labels, name="defective pixels", opacity=1.0, colormap=look, **place)
        add_layer(self._panel.viewer, layer)
        events = layer.events
        for emitter in (events.paint, events.labels_update, events.set_data, events.data):
            connect_while_alive(self, emitter, lambda event: self._soon.throttle())
        self._layer = weakref.ref(layer)
        self.refresh()

    @Slot(object)
    def _on_returned(self, result: npt.NDArray[np.bool_] | Path) -> None:
        if isinstance(result, Path):
            self.controls.tell(f"Wrote {result.name}.")
        elif result.shape == self._frames():  # else another movie was picked meanwhile
            self._put(add_listed(None if self.layer is None else self.layer.data, result))
            self.controls.tell(f"Read {int(np.count_nonzero(result))} pixels.")

    @Slot()
    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Defective pixels", "", _DEFECTS)
        if path:
            self.open(path)

    @Slot()
    def _export(self) -> None:
        if self.layer is None:
            self.show_layer()
        if self.layer is None:
            return
        path, shown = QFileDialog.getSaveFileName(
            self, "Export defective pixels", "defects.txt", ";;".join(KINDS)
        )
        if path:
            mask = np.asarray(self.layer.data) != 0
            self.controls.run(partial(export_defects, path, mask, KINDS[shown]))
            self.refresh()
