"""The "Gain" dock widget: a reference, its orientation and exponent, seen at once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QFileDialog, QSlider, QWidget

from napari_mrcz.correction import PREPRINT_GAMMA, GammaCurve, OrientationSearch
from napari_mrcz.correction.gain import GainStep, is_normalised
from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.correction_dock import CorrectionDock
from napari_mrcz.widgets.base.derived import LayerWork, add_layer, frame_shown, geometry
from napari_mrcz.widgets.base.form import (
    OptionsForm,
    Section,
    WrappedLabel,
    filled,
    form,
    number_field,
    push_button,
)
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.plot import Plot
from napari_mrcz.widgets.gain import model
from napari_mrcz.widgets.gain.parts import Defects, FileDrops, Orientation, References, ask_for_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_mrcz.widgets.base.job import Job, Report
    from napari_mrcz.widgets.base.panel import Panel

_SHOWN = ("metadata", "contrast_limits", "axis_labels")
_JSON = "γ by dose rate (*.json)"
# More than the four coefficients of eq. 11, or it would go through any points.
_ENOUGH = 5


class GainWork(LayerWork):
    """What was found on a movie: how a reference lies (`fit`), and the exponent."""

    vanishing = ("normalised",)

    asked: Any = None  # the reference that is being looked at, or was last
    gamma: model.GammaFit | None = None
    gamma_asked: tuple[Any, ...] = ()  # reference, orientation and sign, of the exponent
    fits_gamma = False  # the last job's kind
    made_by: model.GainChoice | None = None  # the choice by which the normalised movie was made
    withheld = forced = False  # it looks normalised already; and is normalised all the same

    def take(self, result: OrientationSearch | model.GammaFit) -> None:
        """Keep a search or an exponent."""
        if isinstance(result, model.GammaFit):
            self.gamma = result
        else:
            self.fit = result


class GainReference(CorrectionDock):
    """Normalise a movie by a gain reference: which, which way round, with which exponent.

    All of that (`choice`) is chosen for all movies.
    """

    title = "Gain"

    work_type = GainWork
    main = "normalised"
    movie_tip = "The raw movie; follows the layer selected in the list"
    fit_text = "Find orientation"
    fit_tip = (
        "Try all sixteen ways on this movie; the right one leaves the least noise that is common "
        "to all frames"
    )
    save_text = "Save normalised…"
    force_text = "Normalise it all the same"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.choice: model.GainChoice = self.works.shared.get("choice", model.GainChoice())
        self.references = References(self, lambda: self.choice.frames)
        self.orientation = Orientation(self, self.choice)
        self.gamma = Exponent(self, self.works.shared)
        self.gamma.show_gamma(self.choice.gamma)
        self.defects = Defects(self, lambda: self.layers.layer, lambda: self.choice.frames)
        self.show_preview = QCheckBox("Show the normalised movie")
        self.show_preview.setToolTip(
            "As a layer of its own above the raw one: frames are normalised as they are looked at"
        )
        self.show_preview.setChecked(True)
        self.force.setToolTip("Normalise this movie though it looks as if it were already")
        self.reset_button.setToolTip(
            "Take the orientation that was found, and γ = 1; Ctrl+Z takes back one change"
        )
        self.column.insertWidget(1, self.references)
        self.column.addWidget(self.force)  # below the warning
        self._outcomes = self.in_background(
            lambda found: self.when_in_front("outcome", partial(self._show_outcome, found))
        )
        for signal, slot in (
            (self.references.read, self._on_read),
            (self.references.controls.cancelled, lambda: self._choose()),
            (self.orientation.chosen, lambda way: self._change(**way)),
            (self.gamma.changed, lambda gamma: self._change(gamma=gamma)),
            (self.gamma.fit_controls.start_button.clicked, self.fit_gamma),
            (self.show_preview.toggled, self._request),
            (self.force.clicked, self._on_force),
        ):
            signal.connect(slot)
        FileDrops(self, self._open)
        self.finish(
            self.show_preview,
            self.buttons,
            self.orientation,
            Section("Advanced", self.gamma.options, self.references.dark),
            Section("γ by dose rate", self.gamma),
            Section("Defective pixels", self.defects),
        )

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        jobs = self.references.controls, self.gamma.fit_controls, self.defects.controls
        return super().busy or any(job.running for job in jobs)

    preview = CorrectionDock.corrected

    def accepts(self, layer: Image) -> bool:
        """Return whether a layer may be a camera's; sums and other images of no file are not."""
        of_file = layer.source.path or layer.metadata.get("path")
        return bool(of_file or layer.ndim != 2 or layer.rgb) and super().accepts(layer)

    def problem(self) -> str:
        """Return why nothing can be found or fitted, or nothing."""
        if self.work is not None and self.work.job:
            return "Wait until what is running has ended"
        return self.choice.problem()

    def fit_work(self, work: GainWork) -> Callable[[Report], Any]:
        """Return the search of how the reference lies."""
        work.asked, work.fit, work.fits_gamma = self.choice.reference, None, False
        self.orientation.show_search(None)
        return partial(model.find, stack_of_layer(work.layer), self.choice)

    def fit_gamma(self) -> None:
        """Fit the exponent to the movie."""
        work = self.work
        if work is not None and not self.problem():
            work.gamma, work.gamma_asked, work.fits_gamma = None, self._way, True
            fit = partial(model.fit_exponent, stack_of_layer(work.layer), self.choice)
            work.start(fit, self.attach)
            self.show_state()

    def attach(self, job: Job | None, message: str = "", tone: str = "text") -> None:
        """Show what runs where it was started."""
        fits_gamma = self.work is not None and self.work.fits_gamma
        controls = (self.controls, self.gamma.fit_controls)
        controls[not fits_gamma].attach(None)
        controls[fits_gamma].attach(job, message, tone)

    def show_work(self) -> None:
        """Show all that is known of the layer picked, and normalise it."""
        work, layer, stack, said = self.work, self.layers.layer, None, ""
        try:
            stack = None if layer is None else stack_of_layer(layer)
        except MrczError as error:
            said = error_text(error)
        if stack is not None and stack.dtype.kind == "c":
            stack, said = None, "Complex frames have no gain."
        done = stack is not None and is_normalised(stack.history)
        self.show_warnings(model.NORMALISED if done else said)
        is_known = work is not None and work.asked is self.choice.reference
        self.orientation.show_search(work.fit if is_known else None)
        if is_known and work.fit and not self.controls.running:
            self.controls.tell(*model.search_text(work.fit))
        is_known = work is not None and work.gamma_asked == self._way
        self.gamma.show_fit(work.gamma if is_known else None, choose=False)
        self._choose(frames=None if stack is None else stack.shape[1:], normalised=done)

    def show_state(self) -> None:
        """Enable what can be used now."""
        super().show_state()
        self.gamma.fit_controls.allow(self.problem())
        self.reset_button.setEnabled(self.choice.way != self._found)
        self.force.setVisible(self.work is not None and self.work.withheld)
        self.force.setChecked(self.work is not None and self.work.forced)

    def reset(self) -> None:
        """Take the orientation that was found, or none, and no exponent."""
        self._change(**self._found)

    def undo(self) -> None:
        """Take back the last change of orientation or exponent."""
        if self.work is not None and self.work.before:
            self._choose(**self.work.before.pop())

    @property
    def _way(self) -> tuple[Any, ...]:
        """What an exponent belongs to."""
        return self.choice.reference, self.choice.orientation, self.choice.reciprocal

    @property
    def _found(self) -> dict[str, Any]:
        """What the reference and a search say of orientation, sign and exponent."""
        work, found = self.work, replace(self.choice, orientation="identity", reciprocal=False)
        found = found.with_fitting_orientation()
        if work is not None and work.fit and work.fit.helps and work.asked is found.reference:
            best = work.fit.best
            found = replace(found, orientation=best.orientation, reciprocal=best.reciprocal)
        return {**found.way, "gamma": 1.0}

    def _change(self, **changes: Any) -> None:
        """Choose something that can be taken back."""
        if self.work is not None and not (self._outcomes.busy and self.work.before):
            # A drag is one change.
            self.work.remember(self.choice.way)
        self._choose(**changes)

    def _choose(self, **changes: Any) -> None:
        """Change what is chosen, and show it."""
        old, work = self.choice, self.work
        self.choice = choice = replace(old, **changes).with_fitting_orientation()
        self.works.shared["choice"] = choice
        if choice.reference is not old.reference:
            self.orientation.show_search(None)
            self.controls.tell("")
            if work is not None:
                work.forced = work.withheld = False
                if work.job is not None:
                    work.job.cancel()
        if work is None or work.gamma_asked != self._way:
            self.gamma.show_fit(None)
        problem = choice.problem()
        unfit = problem and choice.reference is not None and choice.frames is not None
        fits = "" if choice.normalised else problem or choice.fit_text()
        self.references.show_gain(choice.reference, fits, "error" if fits and unfit else "text")
        self.references.show_dark(choice.dark)
        self.orientation.show_choice(choice)
        self.gamma.show_gamma(choice.gamma)
        self.show_state()
        self._request()

    def _open(self, path: str) -> None:
        """Take a list of defects for one, and all else for a gain reference."""
        (self.defects if path.lower().endswith(".txt") else self.references).open(path)

    def _on_read(self, kind: str, reference: Any) -> None:
        if kind == "made":
            self.when_in_front(reference, partial(self._add_layer_of, reference))
        self._choose(**{"dark" if kind == "dark" else "reference": reference})

    def _add_layer_of(self, made: model.Reference) -> None:
        """Show a reference that was made, from where it can be saved."""
        if (movie := self.layers.layer) is not None:
            add_layer(self.viewer, Image(made.image, name=made.name, **geometry(movie, 2)))

    def _on_force(self, wanted: bool) -> None:
        if self.work is not None:
            self.work.forced, self.work.made_by = wanted, None
            self._request()

    def _request(self) -> None:
        """Apply the choice, soon and in a thread."""
        self.forget_put_off("outcome")
        layer, work = self.layers.layer, self.work
        if layer is None or work is None or self.choice.problem():
            self._remove_preview()
            self._outcomes.drop()
            if self.choice.frames is not None and not self.choice.normalised:
                self.show_warnings()
            self.defects.set_without_gain(None)
            return
        wanted = self.show_preview.isChecked()
        if not wanted:
            self._remove_preview()
        elif self.preview is not None and work.made_by == self.choice:
            # Picked again: what is there stays, for it may be in use elsewhere.
            work.derived[self.main].place()
            wanted = False
        # The stack is made anew each time, so that it is kept by nobody.
        stack, name = stack_of_layer(layer), f"{layer.name}, normalised" if wanted else None
        frame = frame_shown(self.viewer, layer)
        apply = partial(model.apply_choice, stack, self.choice, name, frame, anyway=work.forced)
        self._outcomes.request(apply)

    def _show_outcome(self, outcome: model.Outcome) -> None:
        work = self.work
        if outcome.attributes is not None and work is not None:
            work.made_by = self.choice
            shown = {key: outcome.attributes[key] for key in _SHOWN}
            derived = work.made(self.main, ", normalised", above=True)
            derived.show(outcome.data, **shown, rgb=False, multiscale=False)
            derived.place()
        elif outcome.withheld:
            self._remove_preview()
        self.show_warnings(*outcome.warnings)
        if work is not None:
            work.withheld = outcome.withheld or work.forced
        self.defects.set_without_gain(outcome.without_gain)
        self.show_state()

    def on_background_failed(self, error: Exception) -> None:
        """Show why the movie cannot be normalised."""
        self._remove_preview()
        self.show_warnings(error_text(error))

    def _remove_preview(self) -> None:
        """Take the normalised movie away, when this dock is in front."""
        if self.work is not None and self.main in self.work.derived:
            part = partial(self.work.derived.pop(self.main).part, remove=True)
            self.when_in_front("outcome", part)

    def _on_ended(self, work: Any, result: Any) -> None:
        if work is self.work and isinstance(result, model.GammaFit):
            self.gamma.show_fit(result if work.gamma_asked == self._way else None)
        elif work is self.work and isinstance(result, OrientationSearch) and result.helps:
            if work.asked is self.choice.reference:
                self._choose(**{**self._found, "gamma": self.choice.gamma})
        super()._on_ended(work, result)

    def _on_work_changed(self, work: Any) -> None:
        """Notice that the user has closed a preview."""
        if work is self.work and self.main not in work.derived:
            work.layer.visible = True
            self.show_preview.setChecked(False)
        super()._on_work_changed(work)


class Exponent(QWidget):
    """The exponent γ: by hand (`options`), by the dose rate, or fitted.

    Curve and points are kept in a dict when the dock is closed.
    """

    changed = Signal(float)  # another γ was chosen

    def __init__(self, panel: Panel, kept: dict[str, Any]) -> None:
        super().__init__()
        self._panel, self._kept = panel, kept
        kept.setdefault("curve", (PREPRINT_GAMMA, "the preprint's, of a K2 Summit"))
        self.points: dict[float, float] = kept.setdefault("points", {})
        ends = {"gamma": (model.LOWEST, model.HIGHEST)}
        self.options = OptionsForm(GainStep, ("gamma",), sliders=ends)
        field: Any = self.options.fields["gamma"].native
        self.slider, self.number = field.findChild(QSlider), field.findChild(QDoubleSpinBox)
        for part in (self.slider, self.number):
            part.setToolTip("Exponent of the reference, 0.5 to 1.5; 1 takes it as it is (eq. 9)")
        tip = "Electrons per physical pixel and second; the curve below gives γ for it (eq. 11)"
        self.rate = number_field((0, 1000), 0.5, " e⁻/pix/s", tip)
        self.rate.setDecimals(3)
        self.rate.setSpecialValueText("unknown")
        rate = QWidget()
        rate.setLayout(form(("Dose rate", self.rate)))
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
        tip = "Find the γ that flattens this movie best. It should show no specimen: vacuum, "
        tip += "evenly illuminated, some 400 electrons a pixel"
        self.fit_controls = JobControls(panel, "Fit γ", tip)
        self.fit_plot = Plot(
            "γ", "unevenness (%)", "Standard deviation of means of 64 × 64 pixels (eq. 10)"
        )
        self.fit_curve = self.fit_plot.curve("accent")
        self.fit_line = self.fit_plot.line("hot", label="γ {value:.3f}")
        self.fit_text = WrappedLabel("How well the best γ flattens the movie")
        files = filled(QWidget(), self.load_button, self.save_button, across=True)
        points = filled(QWidget(), self.curve_button, self.forget_button, across=True)
        fit = self.fit_controls, self.fit_plot, self.fit_text
        filled(self, rate, self.curve_text, *fit, self.curve_plot, files, points)
        for signal, slot in (
            (self.options.changed, lambda name: self.changed.emit(self.gamma)),
            (self.rate.valueChanged, self._on_rate),
            (self.save_button.clicked, self._save),
            (self.curve_button.clicked, self._fit_curve),
            (self.forget_button.clicked, self._forget_points),
        ):
            signal.connect(slot)
        ask_for_file(self.load_button, "Curve of γ by dose rate", _JSON, self._load)
        self.show_fit(None)
        self._show_curve()

    @property
    def gamma(self) -> float:
        """The exponent."""
        return float(self.options.values()["gamma"])

    def choose(self, gamma: float) -> None:
        """Choose an exponent, as precisely as it is shown."""
        gamma = round(gamma, 3)
        if gamma != self.gamma:
            self.show_gamma(gamma)
            self.changed.emit(gamma)

    def show_gamma(self, gamma: float) -> None:
        """Show an exponent; nothing is emitted."""
        self.options.show_values({"gamma": gamma})

    def show_fit(self, fit: model.GammaFit | None, *, choose: bool = True) -> None:
        """Show how even the movie is for each γ, and take the best; None shows nothing."""
        for part in (self.fit_plot, self.fit_text):
            part.setVisible(fit is not None)
        self._panel.tell(self.fit_text, *(("",) if fit is None else fit.text()))
        if fit is None:
            return
        self.fit_curve.setData(fit.gammas, 100 * fit.unevenness)
        self.fit_line.setVisible(fit.best is not None)
        if fit.best is None:
            return
        self.fit_line.setValue(fit.best)
        if choose:
            self.choose(float(fit.best))
            if rate := self.rate.value():
                self.points[rate] = fit.best
                self._show_curve()

    def _show_curve(self) -> float | None:
        """Show the curve and what it says of the dose rate; return γ for it, if it can be used."""
        (curve, name), rate, number = self._kept["curve"], self.rate.value(), len(self.points)
        rates = np.geomspace(curve.lowest, curve.highest, 100)
        self.curve_line.setData(rates, [curve.at(one) for one in rates])
        self.curve_points.setData(list(self.points), list(self.points.values()))
        self.rate_line.setVisible(rate > 0)
        self.rate_line.setValue(rate)
        self.curve_button.setEnabled(number >= _ENOUGH)
        self.curve_button.setToolTip(
            f"Fit eq. 11 to γ fitted at {_ENOUGH} or more dose rates; there are {number} so far. "
            "Each Fit γ with a dose rate given adds one"
        )
        self.forget_button.setEnabled(number > 0)
        gamma, is_usable, said = None, False, "."
        if rate:
            try:
                gamma = curve.at(rate)
            except ValueError:
                said = f". It was not measured at {rate:g} e⁻/pix/s."
            else:
                is_usable = model.LOWEST <= gamma <= model.HIGHEST
                far = "" if is_usable else " is too far from 1 to be used"
                said = f"; γ {gamma:.3f} at {rate:g}{far}."
        text = f"Curve: {name}, from {curve.lowest:g} to {curve.highest:g} e⁻/pix/s{said}"
        tone = "warning" if curve.warnings or (rate and not is_usable) else "text"
        self._panel.tell(self.curve_text, " ".join([text, *curve.warnings]), tone)
        return gamma if is_usable else None

    def _on_rate(self) -> None:
        gamma = self._show_curve()
        if gamma is not None:
            self.choose(gamma)

    def _take(self, make: Callable[[], GammaCurve], name: str) -> None:
        try:
            self._kept["curve"] = make(), name
        except ValueError as error:
            self._panel.tell(self.curve_text, error_text(error), "error")
        else:
            self._on_rate()

    def _load(self, path: str) -> None:
        self._take(partial(GammaCurve.load, path), Path(path).name)

    def _fit_curve(self) -> None:
        fit = partial(GammaCurve.fit, list(self.points), list(self.points.values()))
        self._take(fit, f"fitted at {len(self.points)} dose rates")

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save curve", "gamma.json", _JSON)
        if not path:
            return
        named = Path(path) if Path(path).suffix else Path(f"{path}.json")
        try:
            if str(named) != path and named.exists():  # which the dialog has not asked about
                raise MrczError(named, "it exists already")
            self._kept["curve"][0].save(named)
        except MrczError as error:
            self._panel.tell(self.curve_text, error_text(error), "error")
        else:
            self._panel.tell(self.curve_text, f"Saved {named.name}.")

    def _forget_points(self) -> None:
        self.points.clear()
        self._show_curve()
