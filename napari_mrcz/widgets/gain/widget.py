"""The "Gain" dock widget: a reference, its orientation and exponent, seen at once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Slot
from qtpy.QtWidgets import QCheckBox

from napari_mrcz.correction import OrientationSearch
from napari_mrcz.correction.gain import is_normalised
from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.correction_dock import CorrectionDock
from napari_mrcz.widgets.base.derived import LayerWork, add_layer, frame_shown, geometry
from napari_mrcz.widgets.base.form import Section
from napari_mrcz.widgets.gain.model import (
    NORMALISED,
    GainChoice,
    GammaFit,
    Outcome,
    Reference,
    apply_choice,
    find,
    fit_exponent,
    search_text,
)
from napari_mrcz.widgets.gain.references import FileDrops, Orientation, References
from napari_mrcz.widgets.gain.sections import Defects, Exponent

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_mrcz.widgets.base.job import Job, Report

_UNDONE = ("orientation", "reciprocal", "gamma")
_SHOWN = ("metadata", "contrast_limits", "axis_labels")
_WAIT = "Wait until what is running has ended"


class GainWork(LayerWork):
    """What was found on a movie: how a reference lies (`fit`), and the exponent."""

    vanishing = ("normalised",)

    asked: Any = None  # the reference that is being looked at, or was last
    gamma: GammaFit | None = None
    gamma_asked: tuple[Any, ...] = ()  # reference, orientation and sign, of the exponent
    fits_gamma = False  # the last job's kind
    made_by: GainChoice | None = None  # the choice by which the normalised movie was made
    withheld = forced = False  # it looks normalised already; and is normalised all the same

    def take(self, result: OrientationSearch | GammaFit) -> None:
        """Keep a search or an exponent."""
        if isinstance(result, GammaFit):
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
        self.choice: GainChoice = self.works.shared.get("choice", GainChoice())
        self.references = References(self, lambda: self.choice.frames)
        self.orientation = Orientation(self)
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
        self._outcomes = self.in_background(self._on_outcome)
        self.references.gain_read.connect(lambda gain: self._choose(reference=gain))
        self.references.dark_read.connect(lambda dark: self._choose(dark=dark))
        self.references.controls.cancelled.connect(lambda: self._choose())
        self.references.gain_made.connect(
            lambda made: self.when_in_front(made, partial(self._add_layer_of, made))
        )
        self.orientation.chosen.connect(
            lambda way, sign: self._change(orientation=way, reciprocal=sign)
        )
        self.gamma.changed.connect(lambda gamma: self._change(gamma=gamma))
        self.gamma.fit_controls.start_button.clicked.connect(self.fit_gamma)
        self.show_preview.toggled.connect(self._on_show_preview)
        self.force.clicked.connect(self._on_force)
        FileDrops(self).dropped.connect(self._on_dropped)
        self.advanced = Section("Advanced", self.gamma.options, self.references.dark)
        self.finish(
            self.show_preview,
            self.buttons,
            self.orientation,
            self.advanced,
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
        """Return whether a layer may be a camera's: single images of no file were computed.

        Without that, a click on a sum or on a layer of outliers would have it normalised.
        """
        of_file = layer.source.path or layer.metadata.get("path")
        computed = layer.ndim == 2 and not layer.rgb and not of_file
        return not computed and super().accepts(layer)

    def problem(self) -> str:
        """Return why nothing can be found or fitted, or nothing."""
        return _WAIT if self.work is not None and self.work.job else self.choice.problem()

    def fit_work(self, work: GainWork) -> Callable[[Report], Any]:
        """Return the search of how the reference lies."""
        work.asked, work.fit, work.fits_gamma = self.choice.reference, None, False
        self.orientation.show_search(None)
        return partial(find, stack_of_layer(work.layer), self.choice)

    @Slot()
    def fit_gamma(self) -> None:
        """Fit the exponent to the movie."""
        work = self.work
        if work is not None and not self.problem():
            work.gamma, work.gamma_asked, work.fits_gamma = None, self._way, True
            work.start(partial(fit_exponent, stack_of_layer(work.layer), self.choice), self.attach)
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
        self.show_warnings(NORMALISED if done else said)
        is_known = work is not None and work.fit and work.asked is self.choice.reference
        self.orientation.show_search(work.fit if is_known else None)
        if is_known and not self.controls.running:
            self.controls.tell(*search_text(work.fit))
        is_known = work is not None and work.gamma_asked == self._way
        self.gamma.show_fit(work.gamma if is_known else None, choose=False)
        self._choose(frames=None if stack is None else stack.shape[1:], normalised=done)

    def show_state(self) -> None:
        """Enable what can be used now."""
        super().show_state()
        self.gamma.fit_controls.allow(self.problem())
        now = {name: getattr(self.choice, name) for name in _UNDONE}
        self.reset_button.setEnabled(now != self._found)
        self.force.setVisible(self.work is not None and self.work.withheld)
        self.force.setChecked(self.work is not None and self.work.forced)

    @Slot()
    def reset(self) -> None:
        """Take the orientation that was found, or none, and no exponent."""
        self._change(**self._found)

    @Slot()
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
        return {**{name: getattr(found, name) for name in _UNDONE}, "gamma": 1.0}

    def _change(self, **changes: Any) -> None:
        """Choose something that can be taken back."""
        if self.work is not None and not (self._outcomes.busy and self.work.before):
            # A drag is one change.
            self.work.remember({name: getattr(self.choice, name) for name in _UNDONE})
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
        fits = choice.fit_text() if choice.normalised else problem or choice.fit_text()
        tone = "error" if unfit and not choice.normalised else "text"
        self.references.show_gain(choice.reference, fits, tone)
        self.references.show_dark(choice.dark)
        self.orientation.show_choice(choice)
        self.gamma.show_gamma(choice.gamma)
        self.show_state()
        self._request()

    @Slot(bool)
    def _on_force(self, wanted: bool) -> None:
        if self.work is not None:
            self.work.forced, self.work.made_by = wanted, None
            self._request()

    @Slot(bool)
    def _on_show_preview(self, wanted: bool) -> None:
        if not wanted:
            self._remove_preview()
        self._request()

    @Slot()
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
        if wanted and self.preview is not None and work.made_by == self.choice:
            # Picked again: what is there stays, for it may be in use elsewhere.
            work.derived[self.main].place()
            wanted = False
        # The stack is made anew each time, so that it is kept by nobody.
        stack, name = stack_of_layer(layer), f"{layer.name}, normalised" if wanted else None
        frame = frame_shown(self.viewer, layer)
        apply = partial(apply_choice, stack, self.choice, name, frame, anyway=work.forced)
        self._outcomes.request(apply)

    @Slot(object)
    def _on_outcome(self, outcome: Outcome) -> None:
        self.when_in_front("outcome", partial(self._show_outcome, outcome))

    def _show_outcome(self, outcome: Outcome) -> None:
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

    @Slot(object)
    def on_background_failed(self, error: Exception) -> None:
        """Show why the movie cannot be normalised."""
        self._remove_preview()
        self.show_warnings(error_text(error))

    def _remove_preview(self) -> None:
        """Take the normalised movie away, when this dock is in front."""
        if self.work is not None and self.main in self.work.derived:
            part = partial(self.work.derived.pop(self.main).part, remove=True)
            self.when_in_front("outcome", part)

    def _add_layer_of(self, reference: Reference) -> None:
        """Show a reference that was made, from where it can be saved."""
        if (movie := self.layers.layer) is not None:
            made = Image(reference.image, name=reference.name, **geometry(movie, 2))
            add_layer(self.viewer, made)

    @Slot(object, object)
    def _on_ended(self, work: GainWork, result: Any) -> None:
        if work is self.work and isinstance(result, GammaFit) and work.gamma_asked == self._way:
            self.gamma.show_fit(result)
        elif work is self.work and isinstance(result, OrientationSearch):
            if result.helps and work.asked is self.choice.reference:
                best = result.best
                self._choose(orientation=best.orientation, reciprocal=best.reciprocal)
        super()._on_ended(work, result)

    @Slot(object)
    def _on_work_changed(self, work: GainWork) -> None:
        """Notice that the user has closed a preview."""
        if work is self.work and self.main not in work.derived:
            work.layer.visible = True
            self.show_preview.setChecked(False)
        super()._on_work_changed(work)

    @Slot(str)
    def _on_dropped(self, path: str) -> None:
        """Take a list of defects for one, and all else for a gain reference."""
        (self.defects if path.lower().endswith(".txt") else self.references).open(path)
