"""What was done with a layer: its fits, and the layers made from it. It outlives the dock.

A dock that is closed and opened again finds all of it; a layer that is removed takes it along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from napari.layers import Image
from qtpy.QtCore import QObject, Signal, Slot

from napari_mrcz.correction.noise import CountedAlready
from napari_mrcz.errors import error_text
from napari_mrcz.widgets.base.derived import DerivedLayer
from napari_mrcz.widgets.base.job import Job, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    from napari.layers import Layer

# Changes that can be taken back.
_MOST_UNDONE = 100


class LayerWork(QObject):
    """The work on one layer; subclasses keep in it what they know besides the fit."""

    ended = Signal(object, object)  # this; the result of a fit, its exception, None if cancelled
    changed = Signal(object)  # this: a derived layer was shown, hidden or removed

    vanishing: ClassVar[tuple[str, ...]] = ()  # keys of what says nothing without the movie

    def __init__(self, viewer: napari.Viewer, layer: Image) -> None:
        super().__init__()
        self.viewer = viewer
        self.layer: Any = layer
        self.data: Any = layer.data  # when the work began: other data begin another
        self.job: Job | None = None  # runs to its end, whatever is selected meanwhile
        self.message, self.tone = "", "text"  # how the last one ended
        self.fit: Any = None  # of the last one that ended well, with what was changed since
        self.before: list[Any] = []  # what was there before each of the last changes
        self.is_counted = False  # a fit was refused since frames look like counted electrons
        self.derived: dict[str, DerivedLayer] = {}  # the layers made from this one

    def start(self, work: Callable[[Report], Any], watch: Callable[[Job], None]) -> None:
        """Start a fit; `watch` gets the job before it runs."""
        self.message, self.tone = "", "text"
        self.job = job = Job(work)
        job.returned.connect(self._on_returned)
        job.failed.connect(self._on_failed)
        job.cancelled.connect(self._on_cancelled)
        watch(job)
        job.start()

    def take(self, result: Any) -> None:
        """Keep the result of a fit; shown where it is looked at."""
        self.fit, self.before = result, []

    def remember(self, state: Any) -> None:
        """Note what was there before a change."""
        self.before = [*self.before, state][-_MOST_UNDONE:]

    def made(
        self, key: str, suffix: str, make: Callable[..., Layer] = Image, **how: bool
    ) -> DerivedLayer:
        """Return a derived layer, not added to the viewer yet if there was none."""
        if key not in self.derived:
            self.derived[key] = DerivedLayer(
                self.viewer, self.layer, suffix, make, toggled=self.toggled, **how
            )
        return self.derived[key]

    def toggled(self) -> None:
        """Note that a derived layer was shown or hidden."""
        self.changed.emit(self)

    def release(self) -> None:
        """Stop what runs, and let the derived layers that stay be like any others."""
        job, self.job = self.job, None
        if job is not None:
            job.cancel()
            self.ended.emit(self, None)
        derived, self.derived = self.derived, {}
        for key, one in derived.items():
            one.part(remove=key in self.vanishing)
        self.layer = self.data = self.fit = None  # a closed dock's Python half may still have this
        self.before = []

    def forget(self, layer: Layer) -> bool:
        """Release a derived layer that was removed; return whether it was one."""
        for key, derived in list(self.derived.items()):
            if derived.layer is layer:
                del self.derived[key]
                derived.part()
                if derived.replaces:
                    self.layer.visible = True
                self.changed.emit(self)
                return True
        return False

    @Slot(object)
    def _on_returned(self, result: Any) -> None:
        if self.job is not None:  # else the layer is gone
            self.job = None
            self.take(result)
            self.ended.emit(self, result)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        if self.job is not None:
            self.job = None
            self.message, self.tone = error_text(error), "error"
            self.is_counted = self.is_counted or isinstance(error, CountedAlready)
            self.ended.emit(self, error)

    @Slot()
    def _on_cancelled(self) -> None:
        if self.job is not None:
            self.job = None
            self.message = "Cancelled."
            self.ended.emit(self, None)


Kind = TypeVar("Kind", bound=LayerWork)


class Works(QObject, Generic[Kind]):
    """The work of one kind on all layers of a viewer; see `works_of`."""

    ended = Signal(object, object)  # as of any `LayerWork`
    changed = Signal(object)

    def __init__(self, viewer: napari.Viewer, kind: type[Kind]) -> None:
        super().__init__()
        self._viewer, self._kind = viewer, kind
        self._works: dict[Image, Kind] = {}
        self.shared: dict[str, Any] = {}
        viewer.layers.events.removed.connect(self._on_removed)

    def of(self, layer: Image | None) -> Kind | None:
        """Return the work on a layer as it is now, begun where there is none."""
        if layer is None or layer not in self._viewer.layers:
            return None
        work = self._works.get(layer)
        if work is None or work.data is not layer.data:
            if work is not None:
                work.release()
            work = self._works[layer] = self._kind(self._viewer, layer)
            work.ended.connect(self.ended)
            work.changed.connect(self.changed)
        return work

    def __iter__(self) -> Iterator[Kind]:
        """Return an iterator over the work on each layer."""
        return iter(list(self._works.values()))

    def own(self, layer: Any) -> bool:
        """Return whether a layer was made from another here."""
        works = self._works.values()
        return any(one.layer is layer for work in works for one in work.derived.values())

    def _on_removed(self, event: Any) -> None:
        work = self._works.pop(event.value, None)
        if work is not None:
            work.release()
        for other in list(self._works.values()):
            other.forget(event.value)


def works_of(viewer: napari.Viewer, kind: type[Kind]) -> Works[Kind]:
    """Return the work of a kind in a viewer, kept as long as its list of layers."""
    kept: dict[type, Works[Any]] = viewer.layers.__dict__.setdefault("_napari_mrcz_works", {})
    if kind not in kept:
        kept[kind] = Works(viewer, kind)
    return kept[kind]
