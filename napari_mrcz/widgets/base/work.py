"""What was done with a layer: its fits, and the layers made from it. It outlives the dock.

A dock that is closed and opened again finds all of it; a layer that is removed takes it along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from qtpy.QtCore import QObject, Signal, Slot

from napari_mrcz.errors import error_text
from napari_mrcz.widgets.base.job import Job, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    from napari.layers import Image, Layer

    from napari_mrcz.widgets.base.derived import DerivedLayer


class LayerWork(QObject):
    """The work on one layer; subclasses keep their results in it.

    Attributes
    ----------
    layer : Image
        The movie's.
    data : Stack or array-like
        Of the layer, when the work began: other data begin another.
    job : Job or None
        The fit that runs. It runs to its end, whatever is selected meanwhile.
    message, tone : str
        How the last one ended.
    derived : dict of str to DerivedLayer
        The layers made from this one.
    ended : Signal(object, object)
        This, and the result of a fit, its exception, or None if it was cancelled.
    changed : Signal(object)
        A derived layer was shown, hidden or removed.
    """

    ended = Signal(object, object)
    changed = Signal(object)

    def __init__(self, viewer: napari.Viewer, layer: Image) -> None:
        super().__init__()
        self.viewer = viewer
        self.layer: Any = layer
        self.data: Any = layer.data
        self.job: Job | None = None
        self.message, self.tone = "", "text"
        self.derived: dict[str, DerivedLayer] = {}

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

    def toggled(self) -> None:
        """Note that a derived layer was shown or hidden."""
        self.changed.emit(self)

    def release(self) -> None:
        """Stop what runs, and let the derived layers be like any others."""
        job, self.job = self.job, None
        if job is not None:
            job.cancel()
            self.ended.emit(self, None)
        for derived in self.derived.values():
            derived.part()
        self.derived.clear()
        self.layer = self.data = None  # a closed dock's Python half may still have this

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
            self.ended.emit(self, error)

    @Slot()
    def _on_cancelled(self) -> None:
        if self.job is not None:
            self.job = None
            self.message = "Cancelled."
            self.ended.emit(self, None)


Kind = TypeVar("Kind", bound=LayerWork)


class Works(QObject, Generic[Kind]):
    """The work of one kind on all layers of a viewer; see `works_of`.

    Attributes
    ----------
    shared : dict
        What a dock keeps that belongs to no layer.
    ended, changed
        Those of any `LayerWork`.
    """

    ended = Signal(object, object)
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
