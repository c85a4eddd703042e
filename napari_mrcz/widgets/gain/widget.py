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
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.preview import frame_shown, geometry
from napari_mrcz.widgets.gain.defects_box import DefectsBox
from napari_mrcz.widgets.gain.drops import FileDrops
from napari_mrcz.widgets.gain.gamma_box import GammaBox
from napari_mrcz.widgets.gain.gamma_fit import GammaFit, fit
from napari_mrcz.widgets.gain.model import (
    NORMALISED,
    GainChoice,
    Outcome,
    apply_choice,
    find,
)
from napari_mrcz.widgets.gain.orientation_box import OrientationBox
from napari_mrcz.widgets.gain.previews import Previews, weak
from napari_mrcz.widgets.gain.reference_box import ReferenceBox

if TYPE_CHECKING:
    from collections.abc import Iterator

    import napari
    from napari.layers import Image

    from napari_mrcz.correction import OrientationSearch
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.gain.reference import Reference

_LISTS = (".txt",)


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
        self.choice = GainChoice()
        self._seen = weak(None), weak(None)
        # Goes up with each movie and reference: answers to an older question are void.
        self._question = 0
        self._asked: tuple[Any, ...] = ()
        self._asked_gamma: tuple[Any, ...] = ()
        self._previews = Previews(self.viewer)
        self._outcomes = LatestJob(self)
        self.layers = LayerPicker(self, accepts=self._may_be_raw)
        self.layers.setToolTip("The raw movie; follows the layer selected in the list")
        self.references = ReferenceBox(self, lambda: self.choice.frames)
        self.orientation = OrientationBox(self)
        self.gamma = GammaBox(self)
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
    def preview(self) -> Image | None:
        """The layer of the picked movie's normalised frames, while there is one."""
        return self._previews.of(self.layers.layer)

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
        self.orientation.controls.returned.connect(self._on_found)
        self.gamma.changed.connect(lambda gamma: self._choose(gamma=gamma))
        self.gamma.fit_controls.start_button.clicked.connect(self._fit)
        self.gamma.fit_controls.returned.connect(self._on_fitted)
        self.show_preview.toggled.connect(self._on_show_preview)
        self.anyway_button.clicked.connect(self._on_anyway)
        self._outcomes.returned.connect(self._on_outcome)
        self._outcomes.failed.connect(self._on_failed)
        connect_while_alive(self, self.viewer.layers.events.removed, self._on_removed)
        FileDrops(self).dropped.connect(self._on_dropped)

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
        if self._is_another(layer):
            self._ask_anew()
        self._choose(frames=None if stack is None else stack.shape[1:], normalised=done)

    def _show_status(self, text: str, tone: str, *, withheld: bool = False) -> None:
        """Show what is wrong with the movie or the choice, near the top."""
        self.tell(self.status, text, tone)
        self.status.setVisible(bool(text))
        self.anyway_button.setVisible(withheld)

    def _is_another(self, layer: Image | None) -> bool:
        """Return whether the movie is another one than before, and remember it."""
        things = layer, None if layer is None else layer.data
        another = any(seen() is not thing for seen, thing in zip(self._seen, things, strict=True))
        self._seen = weak(things[0]), weak(things[1])
        return another

    def _choose(self, **changes: Any) -> None:
        """Change what is chosen, and show it."""
        old = self.choice
        self.choice = choice = replace(old, **changes).with_fitting_orientation()
        if (choice.reference, choice.frames) != (old.reference, old.frames):
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
        return not computed and not self._previews.own(layer)

    def _ask_anew(self) -> None:
        """Forget what was found for another movie or reference."""
        self._question += 1
        self._anyway = False
        self.orientation.controls.cancel()
        self.gamma.fit_controls.cancel()
        self.orientation.show_search(None)
        self.gamma.show_fit(None)

    @Slot(bool)
    def _on_show_preview(self, wanted: bool) -> None:
        if not wanted:
            self._previews.remove(self.layers.layer)
        self._request()

    @Slot()
    def _on_anyway(self) -> None:
        self._anyway = True
        self._request()

    def _request(self) -> None:
        """Have the choice applied, soon and elsewhere."""
        self.forget_put_off("outcome")
        layer = self.layers.layer
        if layer is None or self.choice.problem():
            self._previews.remove(layer)
            self._outcomes.drop()
            if self.choice.frames is not None and not self.choice.normalised:
                self._show_status("", "text")
            self.defects.set_without_gain(None)
            self.settled.emit(None)
            return
        name = f"{layer.name}, normalised" if self.show_preview.isChecked() else None
        if name is not None and self._previews.is_made(layer, (name, self.choice)):
            # Picked again: what is there stays, for it may be in use elsewhere.
            self._previews.place(layer)
            name = None
        stack, frame = self._stack(), frame_shown(self.viewer, layer)
        if stack is not None:
            work = partial(apply_choice, stack, self.choice, name, frame, anyway=self._anyway)
            self._outcomes.request(work)

    @Slot(object)
    def _on_outcome(self, outcome: Outcome) -> None:
        self.when_in_front("outcome", partial(self._show_outcome, outcome))

    def _show_outcome(self, outcome: Outcome) -> None:
        layer = self.layers.layer
        if outcome.attributes is not None and layer is not None:
            made = outcome.attributes["name"], self.choice
            with self._movie_kept():
                self._previews.show(layer, outcome.data, outcome.attributes, made)
        elif outcome.withheld:
            self._previews.remove(layer)
        text = "\n".join(outcome.warnings)
        self._show_status(text, "warning", withheld=outcome.withheld)
        self.defects.set_without_gain(outcome.without_gain)
        self.settled.emit(outcome)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self._previews.remove(self.layers.layer)
        self._show_status(error_text(error), "error")
        self.settled.emit(None)

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
        stack = self._stack()
        if stack is not None and self.choice.reference is not None:
            self._asked = (self._question,)
            self.orientation.show_search(None)
            self.orientation.controls.run(partial(find, stack, self.choice))

    @Slot(object)
    def _on_found(self, search: OrientationSearch) -> None:
        if self._asked != (self._question,):
            return
        self.orientation.show_search(search)
        best = search.best
        if search.helps:
            self._choose(orientation=best.orientation, reciprocal=best.reciprocal)

    @Slot()
    def _fit(self) -> None:
        stack = self._stack()
        if stack is not None:
            self._asked_gamma = self._question, self.choice.orientation, self.choice.reciprocal
            self.gamma.fit_controls.run(partial(fit, stack, self.choice))

    @Slot(object)
    def _on_fitted(self, found: GammaFit) -> None:
        now = self._question, self.choice.orientation, self.choice.reciprocal
        if self._asked_gamma == now:
            self.gamma.show_fit(found)

    def _on_removed(self, event: Any) -> None:
        """See that the user has closed a preview, or the movie that one belongs to."""
        source = self._previews.source_of(event.value)
        if source is not None and source is self.layers.layer:
            self.show_preview.setChecked(False)
        self._previews.remove(event.value)
        self.defects.refresh()

    @Slot(str)
    def _on_dropped(self, path: str) -> None:
        """Take a list of defects for one, and all else for a gain reference."""
        take = self.defects.open if path.lower().endswith(_LISTS) else self.references.open
        take(path)
