"""The exponent γ: by hand, by the dose rate, or fitted; with the plots that it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal, Slot
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QSlider,
    QVBoxLayout,
)

from napari_mrcz.correction import PREPRINT_GAMMA, GammaCurve, fit_gamma
from napari_mrcz.correction.gamma import FittedGamma, Roughness
from napari_mrcz.errors import MrczError, collected_warnings, error_text
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.plot import Plot

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.gain.model import GainChoice

_JSON = "γ by dose rate (*.json)"
_PREPRINT = "the preprint's, of a K2 Summit"
# More than the four coefficients of eq. 11, or it would go through any points.
_ENOUGH = 5
# Of the slider, which counts in integers, to 1.
_STEPS = 1000


class GammaBox(QGroupBox):
    """Slider, number, dose rate and fit of γ.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    kept : dict
        Keeps curve and points when the dock is closed.

    Attributes
    ----------
    changed : Signal(float)
        Another γ was chosen.
    curve : GammaCurve
        Gives γ for a dose rate.
    points : dict of float to float
        γ by dose rate (e⁻/pix/s), as fitted so far.
    """

    changed = Signal(float)

    def __init__(self, panel: Panel, kept: dict[str, Any]) -> None:
        super().__init__("Exponent γ")
        self._panel = panel
        self._kept = kept
        self.curve, self._curve_name = kept.get("curve", (PREPRINT_GAMMA, _PREPRINT))
        self.points: dict[float, float] = kept.setdefault("points", {})
        self._make_controls(panel)
        self._lay_out()
        self._connect()
        self._show_curve()

    @property
    def gamma(self) -> float:
        """The exponent."""
        return float(self.number.value())

    @property
    def dose_rate(self) -> float | None:
        """In e⁻/pix/s; None if it is not known."""
        return self.rate.value() or None

    def show_gamma(self, gamma: float) -> None:
        """Show an exponent; nothing is emitted."""
        self.number.blockSignals(True)
        self.number.setValue(gamma)
        self.number.blockSignals(False)
        self.slider.blockSignals(True)
        self.slider.setValue(round(gamma * _STEPS))
        self.slider.blockSignals(False)

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
        if not choose:
            return
        self.number.setValue(fit.best)
        if self.dose_rate is not None:
            self.points[self.dose_rate] = fit.best
            self._show_curve()

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.fit_plot.apply_palette(colours)
        self.curve_plot.apply_palette(colours)

    def _make_controls(self, panel: Panel) -> None:
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.number = QDoubleSpinBox()
        self.slider.setRange(round(LOWEST * _STEPS), round(HIGHEST * _STEPS))
        self.slider.setSingleStep(_STEPS // 100)
        self.slider.setPageStep(_STEPS // 20)
        self.slider.setValue(_STEPS)
        self.number.setRange(LOWEST, HIGHEST)
        self.number.setSingleStep(0.01)
        self.number.setValue(1.0)
        for control in (self.slider, self.number):
            control.setToolTip("Frames are multiplied by gain to the power of γ (eq. 9)")
        self.number.setDecimals(3)
        self.rate = QDoubleSpinBox()
        self.rate.setRange(0, 1000)
        self.rate.setDecimals(3)
        self.rate.setSingleStep(0.5)
        self.rate.setSuffix(" e⁻/pix/s")
        self.rate.setSpecialValueText("unknown")
        self.rate.setToolTip(
            "Electrons per physical pixel and second; the curve below gives γ for it (eq. 11)"
        )
        for field in (self.number, self.rate):
            field.setKeyboardTracking(False)
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
        self.fit_plot.setVisible(False)
        self.fit_text.setVisible(False)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow(self.slider)
        form.addRow("γ", self.number)
        form.addRow("Dose rate", self.rate)
        buttons = QGridLayout()
        for at, button in enumerate(
            (self.load_button, self.save_button, self.curve_button, self.forget_button)
        ):
            buttons.addWidget(button, *divmod(at, 2))
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.curve_text)
        column.addWidget(self.fit_controls)
        column.addWidget(self.fit_plot)
        column.addWidget(self.fit_text)
        column.addWidget(self.curve_plot)
        column.addLayout(buttons)

    def _connect(self) -> None:
        self.slider.valueChanged.connect(lambda steps: self.number.setValue(steps / _STEPS))
        self.number.valueChanged.connect(self._on_number)
        self.rate.valueChanged.connect(self._on_rate)
        self.load_button.clicked.connect(self._load)
        self.save_button.clicked.connect(self._save)
        self.curve_button.clicked.connect(self._fit_curve)
        self.forget_button.clicked.connect(self._forget)

    def _show_curve(self) -> None:
        curve = self.curve
        rates = np.geomspace(curve.lowest, curve.highest, 100)
        self.curve_line.setData(rates, [curve.at(rate) for rate in rates])
        self.curve_points.setData(list(self.points), list(self.points.values()))
        self.rate_line.setVisible(self.dose_rate is not None)
        self.rate_line.setValue(self.dose_rate or 0)
        number = len(self.points)
        self.curve_button.setEnabled(number >= _ENOUGH)
        self.curve_button.setToolTip(
            f"Fit eq. 11 to γ fitted at {_ENOUGH} or more dose rates; there are {number} so far. "
            "Each Fit γ with a dose rate given adds one"
        )
        self.forget_button.setEnabled(number > 0)
        self._show_curve_text()

    def _show_curve_text(self) -> None:
        curve = self.curve
        text = f"Curve: {self._curve_name}, from {curve.lowest:g} to {curve.highest:g} e⁻/pix/s"
        tone = "text"
        if self.dose_rate is not None:
            gamma = self._gamma_of_curve()
            if gamma is None:
                text, tone = (
                    f"{text}. It was not measured at {self.dose_rate:g} e⁻/pix/s.",
                    "warning",
                )
            elif LOWEST <= gamma <= HIGHEST:
                text = f"{text}; γ {gamma:.3f} at {self.dose_rate:g}."
            else:
                tone = "warning"
                text = f"{text}; γ {gamma:.3f} at {self.dose_rate:g} is too far from 1 to be used."
        else:
            text += "."
        if curve.warnings:
            text, tone = f"{text} {' '.join(curve.warnings)}", "warning"
        self._panel.tell(self.curve_text, text, tone)

    def _gamma_of_curve(self) -> float | None:
        try:
            return None if self.dose_rate is None else self.curve.at(self.dose_rate)
        except ValueError:  # beyond what was measured
            return None

    @Slot(float)
    def _on_number(self, gamma: float) -> None:
        self.slider.blockSignals(True)
        self.slider.setValue(round(gamma * _STEPS))
        self.slider.blockSignals(False)
        self.changed.emit(gamma)

    @Slot()
    def _on_rate(self) -> None:
        self._show_curve()
        gamma = self._gamma_of_curve()
        if gamma is not None and LOWEST <= gamma <= HIGHEST:
            self.number.setValue(gamma)

    def _take(self, curve: GammaCurve, name: str) -> None:
        self.curve, self._curve_name = self._kept["curve"] = curve, name
        self._on_rate()

    @Slot()
    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Curve of γ by dose rate", "", _JSON)
        if not path:
            return
        try:
            self._take(GammaCurve.load(path), Path(path).name)
        except MrczError as error:
            self._panel.tell(self.curve_text, error_text(error), "error")

    @Slot()
    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save curve", "gamma.json", _JSON)
        if not path:
            return
        if not Path(path).suffix:
            path += ".json"
            if Path(path).exists():  # which the dialog has not asked about
                self._panel.tell(self.curve_text, f"{Path(path).name} exists already.", "error")
                return
        try:
            self.curve.save(path)
        except MrczError as error:
            self._panel.tell(self.curve_text, error_text(error), "error")
        else:
            self._panel.tell(self.curve_text, f"Saved {Path(path).name}.")

    @Slot()
    def _fit_curve(self) -> None:
        try:
            curve = GammaCurve.fit(list(self.points), list(self.points.values()))
        except ValueError as error:
            self._panel.tell(self.curve_text, error_text(error), "error")
        else:
            self._take(curve, f"fitted at {len(self.points)} dose rates")

    @Slot()
    def _forget(self) -> None:
        self.points.clear()
        self._show_curve()


LOWEST, HIGHEST = 0.5, 1.5
_POINTS = 41


@dataclass(frozen=True, eq=False)
class GammaFit:
    """How uneven a movie is for some exponents, and the best one.

    Attributes
    ----------
    gammas, unevenness : ndarray of float64, shape (n,)
        Standard deviation of the means of 64 × 64 pixels, over their mean (eq. 10).
    without : float
        The same of raw frames.
    best : FittedGamma or None
        None where the lowest is no minimum, but an end.
    """

    gammas: npt.NDArray[np.float64]
    unevenness: npt.NDArray[np.float64]
    without: float
    best: FittedGamma | None

    @property
    def lowest(self) -> float:
        """How uneven it is at the lowest of the points."""
        return float(self.unevenness.min())

    def text(self) -> tuple[str, str]:
        """Return how good it is, and in which tone: text or warning."""
        fall = f"unevenness {self.lowest:.2%} of the mean, {self.without:.2%} without a reference"
        if self.best is None:
            return (
                f"No γ between {LOWEST} and {HIGHEST} flattens this movie best ({fall}). The "
                "reference may lie the wrong way round (Find orientation), or the movie shows a "
                "specimen."
            ), "warning"
        found = f"γ {self.best:.3f} ± {self.best.error:.2g}: {fall}."
        if self.best.warnings:
            return f"{' '.join(self.best.warnings)} {found}", "warning"
        return found, "text"


def fit(stack: Stack, choice: GainChoice, report: Report) -> GammaFit:
    """Find the exponent that flattens a movie without a specimen.

    Parameters
    ----------
    stack : Stack
        Raw frames, evenly illuminated, at one dose rate.
    choice : GainChoice
        Reference, dark and orientation; its exponent does not matter.
    report : Report
        Where it can be cancelled.
    """
    counts = stack.sum(progress=lambda done, n: report("Summing frame", done, n))
    counts = counts.astype(np.float64)
    normalise = choice.at(1.0).normalization()
    if normalise.oriented_dark is not None:
        counts -= len(stack) * normalise.oriented_dark
    gain = normalise.factor.astype(np.float64)
    gammas = np.linspace(LOWEST, HIGHEST, _POINTS)
    roughness = Roughness(counts, gain)
    unevenness = np.empty(_POINTS)
    for done, gamma in enumerate(gammas):
        report("Trying exponent", done, _POINTS)
        unevenness[done] = roughness(gamma)
    report("Trying exponent", _POINTS, _POINTS)
    best = None
    if 0 < np.argmin(unevenness) < _POINTS - 1:
        with collected_warnings():  # they are kept with the exponent
            best = fit_gamma(counts, gain, bounds=(LOWEST, HIGHEST))
    report("Trying exponent", _POINTS, _POINTS)
    return GammaFit(gammas, unevenness, roughness(0.0), best)
