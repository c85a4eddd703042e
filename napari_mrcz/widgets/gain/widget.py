"""The "Gain" dock widget: a reference, its orientation and exponent, seen at once."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel

from napari_mrcz.correction.gain import is_normalised
from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.derived import DerivedLayer, frame_shown, geometry
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.work import LayerWork, works_of
from napari_mrcz.widgets.gain.defects_box import DefectsBox
from napari_mrcz.widgets.gain.gamma_box import GammaBox, GammaFit, fit
from napari_mrcz.widgets.gain.model import (
    NORMALISED,
    GainChoice,
    Outcome,
    apply_choice,
    find,
)
from napari_mrcz.widgets.gain.orientation_box import OrientationBox
from napari_mrcz.widgets.gain.reference_box import FileDrops, ReferenceBox

if TYPE_CHECKING:
    from collections.abc import Iterator

    import napari
    from napari.layers import Image

    from napari_mrcz.correction import OrientationSearch
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.gain.model import Reference

_LISTS = (".txt",)


class GainWork(LayerWork):
    """What was found of the reference on a movie, and the normalised movie.

    Attributes
    ----------
    asked : Reference or None
        The reference that is being looked at, or was last.
    search : OrientationSearch or None
        How it lies.
    made : hashable
        What the normalised movie was made by.
    """

    asked: Reference | None = None
    search: OrientationSearch | None = None
    made: Any = None

    def take(self, result: OrientationSearch) -> None:
        """Keep a search."""
        self.search = result

    def release(self) -> None:
        """Take the normalised movie away with the raw one."""
        if "normalised" in self.derived:
            self.derived.pop("normalised").part(remove=True)
        super().release()


class GammaWork(LayerWork):
    """The exponent fitted to a movie."""

    asked: tuple[Any, ...] = ()
    fit: GammaFit | None = None

    def take(self, result: GammaFit) -> None:
        """Keep a fit."""
        self.fit = result


class GainReference(Panel):
    """Normalise a movie by a gain reference: which, which way round, with which exponent.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    choice : GainChoice
        What is chosen.
    settled : Signal(object)
        An `Outcome` is shown, or None where nothing can be normalised.
    """

    title = "Gain"

    settled = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.works = works_of(self.viewer, GainWork)
        self.gammas = works_of(self.viewer, GammaWork)
        self.choice = self.works.shared.get("choice", GainChoice())
        self._shown: Any = ()
        self._outcomes = LatestJob(self)
        self.layers = LayerPicker(self, accepts=self._may_be_raw)
        self.layers.setToolTip("The raw movie; follows the layer selected in the list")
        self.references = ReferenceBox(self, lambda: self.choice.frames)
        self.orientation = OrientationBox(self)
        self.gamma = GammaBox(self, self.gammas.shared)
        self.gamma.show_gamma(self.choice.gamma)
        self.show_preview = QCheckBox("Show the normalised movie")
        self.show_preview.setToolTip(
            "As a layer of its own above the raw one: frames are normalised as they are looked "
            "at. Hide it to see the raw ones. Save it with Save stack"
        )
        self.show_preview.setChecked(True)
        self.status = WrappedLabel("What is wrong, or has been done before")
        self.anyway_button = push_button(
            "Apply it anyway", "Normalise this movie though it looks as if it were already"
        )
        self.anyway_button.hide()
        self._anyway = False
        self.defects = DefectsBox(self, lambda: self.layers.layer, lambda: self.choice.frames)
        movie = QHBoxLayout()
        movie.addWidget(QLabel("Movie"))
        movie.addWidget(self.layers, stretch=1)
        self.column.addLayout(movie)
        boxes = (self.references, self.orientation, self.gamma, self.defects)
        for part in (self.status, self.anyway_button, self.show_preview, *boxes):
            self.column.addWidget(part)
        self.column.addStretch()
        self._connect()
        self.apply_palette(self.palette_now)
        self._on_layer(self.layers.layer)

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        jobs = (
            self.references.controls,
            self.orientation.controls,
            self.gamma.fit_controls,
            self.defects.controls,
        )
        return self._outcomes.busy or any(job.running for job in jobs)

    @property
    def work(self) -> GainWork | None:
        """The work on the layer picked."""
        return self.works.of(self.layers.layer)

    @property
    def _derived(self) -> DerivedLayer:
        """The normalised movie's layer."""
        work = self.work
        assert work is not None  # noqa: S101
        if "normalised" not in work.derived:
            work.derived["normalised"] = DerivedLayer(
                self.viewer, work.layer, ", normalised", toggled=work.toggled, above=True
            )
        return work.derived["normalised"]

    @property
    def preview(self) -> Image | None:
        """The layer of the picked movie's normalised frames, while there is one."""
        work = self.work
        return None if work is None or "normalised" not in work.derived else self._derived.layer

    def apply_palette(self, colours: Palette) -> None:
        """Colour thumbnails and plots."""
        self.orientation.apply_palette(colours)
        self.gamma.apply_palette(colours)

    def _connect(self) -> None:
        self.layers.layer_changed.connect(self._on_layer)
        self.references.gain_read.connect(lambda gain: self._choose(reference=gain))
        self.references.dark_read.connect(lambda dark: self._choose(dark=dark))
        self.references.gain_made.connect(
            lambda reference: self.when_in_front(reference, partial(self._add_layer_of, reference))
        )
        self.orientation.chosen.connect(
            lambda way, reciprocal: self._choose(orientation=way, reciprocal=reciprocal)
        )
        self.orientation.controls.start_button.clicked.connect(self._find)
        self.works.ended.connect(self._on_found)
        self.works.changed.connect(self._on_work_changed)
        self.gamma.changed.connect(lambda gamma: self._choose(gamma=gamma))
        self.gamma.fit_controls.start_button.clicked.connect(self._fit)
        self.gammas.ended.connect(self._on_fitted)
        self.show_preview.toggled.connect(self._on_show_preview)
        self.anyway_button.clicked.connect(self._on_anyway)
        self._outcomes.returned.connect(self._on_outcome)
        self._outcomes.failed.connect(self._on_failed)
        connect_while_alive(self, self.viewer.layers.events.removed, self._on_removed)
        FileDrops(self).dropped.connect(self._on_dropped)
        self.destroyed.connect(lambda: self._let_go())

    def _let_go(self) -> None:
        """Keep no movie when the window is gone but the Python half is not."""
        self._shown = None

    def _stack(self) -> Stack | None:
        """Return the movie that is picked; made anew each time, so that it is kept by nobody."""
        layer = self.layers.layer
        if layer is None:
            return None
        stack = stack_of_layer(layer)
        if stack.dtype.kind == "c":
            raise MrczError(None, "complex frames have no gain")
        return stack

    @Slot(object)
    def _on_layer(self, layer: Image | None) -> None:
        """Take another movie, or what has changed of this one."""
        said, tone = "", "text"
        try:
            stack = self._stack()
        except MrczError as error:
            stack, said, tone = None, error_text(error), "error"
        done = stack is not None and is_normalised(stack.history)
        if done:
            said, tone = NORMALISED, "warning"
        self._show_status(said, tone)
        work = self.work
        if work is not self._shown:
            self._shown = work
            self._anyway = False
            self._show_found()
        self._choose(frames=None if stack is None else stack.shape[1:], normalised=done)

    def _show_status(self, text: str, tone: str, *, withheld: bool = False) -> None:
        """Show what is wrong with the movie or the choice, near the top."""
        self.tell(self.status, text, tone)
        self.status.setVisible(bool(text))
        self.anyway_button.setVisible(withheld)

    def _show_found(self) -> None:
        """Show what was found on this movie with the reference that is chosen."""
        work, fitted = self.work, self.gammas.of(self.layers.layer)
        reference = self.choice.reference
        known = work is not None and work.asked is reference
        self.orientation.show_search(work.search if work is not None and known else None)
        if work is not None:
            self.orientation.controls.attach(work.job, work.message, work.tone)
        if fitted is not None:
            self.gamma.fit_controls.attach(fitted.job, fitted.message, fitted.tone)
        asked = (reference, self.choice.orientation, self.choice.reciprocal)
        self.gamma.show_fit(
            fitted.fit if fitted is not None and fitted.asked == asked else None, choose=False
        )

    def _choose(self, **changes: Any) -> None:
        """Change what is chosen, and show it."""
        old = self.choice
        self.choice = choice = replace(old, **changes).with_fitting_orientation()
        self.works.shared["choice"] = choice
        if choice.reference is not old.reference:
            self._ask_anew()
        elif (choice.orientation, choice.reciprocal) != (old.orientation, old.reciprocal):
            self.gamma.show_fit(None)
        problem = choice.problem()
        unfit = problem and choice.reference is not None and choice.frames is not None
        fits = choice.fit_text() if choice.normalised else problem or choice.fit_text()
        tone = "error" if unfit and not choice.normalised else "text"
        self.references.show_gain(choice.reference, fits, tone)
        self.references.show_dark(choice.dark)
        self.orientation.show_choice(choice)
        self.orientation.controls.allow(problem)
        self.gamma.fit_controls.allow(problem)
        self._request()

    def _may_be_raw(self, layer: Image) -> bool:
        """Return whether a layer may be a camera's: a single image that is of no file was computed.

        Without that, a click on a sum or on a layer of outliers would have it normalised.
        """
        of_file = layer.source.path or layer.metadata.get("path")
        computed = layer.ndim == 2 and not layer.rgb and not of_file
        return not computed and not self.works.own(layer)

    def _ask_anew(self) -> None:
        """Forget what was found with another reference."""
        self._anyway = False
        for work in (self.work, self.gammas.of(self.layers.layer)):
            if work is not None and work.job is not None:
                work.job.cancel()
        self._show_found()

    @Slot(bool)
    def _on_show_preview(self, wanted: bool) -> None:
        if not wanted:
            self._remove_preview()
        self._request()

    @Slot()
    def _on_anyway(self) -> None:
        self._anyway = True
        self._request()

    def _request(self) -> None:
        """Apply the choice, soon and in a thread."""
        self.forget_put_off("outcome")
        layer = self.layers.layer
        if layer is None or self.choice.problem():
            if layer is not None:
                self._remove_preview()
            self._outcomes.drop()
            if self.choice.frames is not None and not self.choice.normalised:
                self._show_status("", "text")
            self.defects.set_without_gain(None)
            self.settled.emit(None)
            return
        name = f"{layer.name}, normalised" if self.show_preview.isChecked() else None
        work = self.work
        if name is not None and self.preview is not None and work and work.made == self.choice:
            # Picked again: what is there stays, for it may be in use elsewhere.
            self._derived.place()
            name = None
        stack, frame = self._stack(), frame_shown(self.viewer, layer)
        if stack is not None:
            self._outcomes.request(
                partial(apply_choice, stack, self.choice, name, frame, anyway=self._anyway)
            )

    @Slot(object)
    def _on_outcome(self, outcome: Outcome) -> None:
        self.when_in_front("outcome", partial(self._show_outcome, outcome))

    def _show_outcome(self, outcome: Outcome) -> None:
        layer = self.layers.layer
        if outcome.attributes is not None and layer is not None:
            work = self.work
            if work is not None:
                work.made = self.choice
            attributes = outcome.attributes
            with self._movie_kept():
                self._derived.show(
                    outcome.data,
                    **{k: attributes[k] for k in ("metadata", "contrast_limits", "axis_labels")},
                    rgb=False,
                    multiscale=False,
                )
                self._derived.place()
        elif outcome.withheld:
            self._remove_preview()
        text = "\n".join(outcome.warnings)
        self._show_status(text, "warning", withheld=outcome.withheld)
        self.defects.set_without_gain(outcome.without_gain)
        self.settled.emit(outcome)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self._remove_preview()
        self._show_status(error_text(error), "error")
        self.settled.emit(None)

    def _remove_preview(self) -> None:
        """Take the normalised movie away, when this dock is in front."""
        work = self.work
        if work is not None and "normalised" in work.derived:
            self.when_in_front("outcome", partial(work.derived.pop("normalised").part, remove=True))

    @contextlib.contextmanager
    def _movie_kept(self) -> Iterator[None]:
        """Add layers without that one of them is taken for the movie."""
        movie, active = self.layers.layer, self.viewer.layers.selection.active
        self.layers.blockSignals(True)
        try:
            yield
            self.viewer.layers.selection.active = active
            self.layers.pick(movie)
        finally:
            self.layers.blockSignals(False)

    @Slot(object)
    def _add_layer_of(self, reference: Reference) -> None:
        """Show a reference that was made, from where it can be saved."""
        movie = self.layers.layer
        if movie is not None:
            with self._movie_kept():
                place = geometry(movie, 2)
                self.viewer.add_image(reference.image, name=reference.name, **place)

    @Slot()
    def _find(self) -> None:
        stack, work = self._stack(), self.work
        if stack is not None and work is not None and self.choice.reference is not None:
            work.asked, work.search = self.choice.reference, None
            self.orientation.show_search(None)
            work.start(partial(find, stack, self.choice), self.orientation.controls.attach)

    @Slot(object, object)
    def _on_found(self, work: GainWork, search: Any) -> None:
        if work is not self.work:
            return
        self.orientation.controls.attach(None, work.message, work.tone)
        if work.search is not search or work.asked is not self.choice.reference:
            return
        self.orientation.show_search(work.search)
        if work.search is not None and work.search.helps:
            best = work.search.best
            self._choose(orientation=best.orientation, reciprocal=best.reciprocal)

    @Slot()
    def _fit(self) -> None:
        stack, work = self._stack(), self.gammas.of(self.layers.layer)
        if stack is not None and work is not None:
            choice = self.choice
            work.asked, work.fit = (choice.reference, choice.orientation, choice.reciprocal), None
            work.start(partial(fit, stack, choice), self.gamma.fit_controls.attach)

    @Slot(object, object)
    def _on_fitted(self, work: GammaWork, found: Any) -> None:
        if work is not self.gammas.of(self.layers.layer):
            return
        self.gamma.fit_controls.attach(None, work.message, work.tone)
        now = self.choice.reference, self.choice.orientation, self.choice.reciprocal
        if work.fit is found and work.asked == now:
            self.gamma.show_fit(found)

    @Slot(object)
    def _on_work_changed(self, work: GainWork) -> None:
        """Notice that the user has closed a preview."""
        if work is self.work and "normalised" not in work.derived:
            self.show_preview.setChecked(False)

    def _on_removed(self, event: Any) -> None:
        self.defects.refresh()

    @Slot(str)
    def _on_dropped(self, path: str) -> None:
        """Take a list of defects for one, and all else for a gain reference."""
        take = self.defects.open if path.lower().endswith(_LISTS) else self.references.open
        take(path)
