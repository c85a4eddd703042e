"""Layers made from another, and what else was done with it: fits that outlive the dock.

A dock that is closed and opened again finds all of it; a layer that is removed takes it along.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Signal, Slot

from napari_mrcz.correction.noise import CountedAlready
from napari_mrcz.errors import error_text
from napari_mrcz.plugin.layers import StackSeries, describe, widen_contrast_slider
from napari_mrcz.widgets.base.job import Cancelled, Job, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import napari
    from napari.layers import Layer

    from napari_mrcz.stack import Stack

# Changes that can be taken back.
_MOST_UNDONE = 100
# Seen alike before and after.
_SHARED = ("contrast_limits", "gamma", "colormap")


class DerivedLayer:
    """A layer made from another, added to the viewer once, visible or hidden as it will be.

    `suffix`: behind the name of the source in its own, as long as nobody gives it another;
    `make`: makes the layer, of its data and attributes; `toggled`: called when it or the source is
    shown or hidden, by whatever means; `replaces`: it lies just above the source, looks like it,
    and is seen in its place; `above`: it lies just above the source, rather than above all.
    `layer` is None before `show` and after `part`; so many as `finer` of its pixels lie side by
    side in one of the source's.
    """

    def __init__(
        self,
        viewer: napari.Viewer,
        source: Image,
        suffix: str,
        make: Callable[..., Layer] = Image,
        *,
        toggled: Callable[[], None],
        replaces: bool = False,
        above: bool = False,
    ) -> None:
        self._viewer, self._source, self._suffix = viewer, source, suffix
        self._make, self._toggled = make, toggled
        self.replaces, self._above = replaces, above or replaces
        self.finer = 1
        self._limits: tuple[float, ...] = ()
        self.layer: Any = None
        self._connections: list[tuple[Any, Callable[..., None]]] = []

    @property
    def seen(self) -> bool:
        """Whether it is in the viewer, and visible."""
        return self.layer is not None and bool(self.layer.visible)

    def show(self, data: Any, **attributes: Any) -> None:
        """Show data; the first time the layer is added, and the active layer stays active."""
        limits, self._limits = self._limits, tuple(attributes.get("contrast_limits", ()))
        if self.layer is not None:
            self.layer.data = data
            if "metadata" in attributes:
                self.layer.metadata = attributes["metadata"]
            if self._limits != limits and tuple(self.layer.contrast_limits) == limits:
                # Others, which the user has set, stay.
                self.layer.contrast_limits_range = self.layer.contrast_limits = self._limits
                widen_contrast_slider(self.layer)
            return
        source, ndim = self._source, attributes.get("ndim") or len(data.shape)
        look = {name: getattr(source, name) for name in _SHARED} if self.replaces else {}
        if self.replaces and ndim == source.ndim:
            look["axis_labels"] = source.axis_labels
        look |= {"name": f"{source.name}{self._suffix}", **geometry(source, ndim, self.finer)}
        self.layer = layer = self._make(data, **{**look, **attributes})
        widen_contrast_slider(layer)
        self._follow(source, layer)
        if self.replaces:
            source.visible = False
        add_layer(self._viewer, layer, source if self._above else None)
        self._toggled()

    def show_stack(self, stack: Stack) -> None:
        """Show the frames of a corrected movie."""
        length = stack.description.sections_per_volume
        data = stack if length is None else StackSeries(stack, length)
        self.show(data, metadata=describe(stack), rgb=False, multiscale=False)

    def show_after(self, after: bool) -> None:
        """Show it in place of the source, or the other way round."""
        if self.layer is not None:
            self.layer.visible = after
            self._source.visible = not after

    def place(self) -> None:
        """Lay it where the source lies now."""
        if self.layer is not None:
            place(self.layer, self._source, self.finer)

    def part(self, *, remove: bool = False) -> None:
        """Make it a layer like any other, or take it away."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()
        layer, self.layer = self.layer, None
        if remove and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _follow(self, source: Any, layer: Any) -> None:
        """Take the name of the source, and its look if this replaces it."""
        given = layer.name

        def rename(event: Any = None) -> None:
            nonlocal given
            if layer.name == given:
                layer.name = f"{source.name}{self._suffix}"
                given = layer.name

        self._connections = [(source.events.name, rename)]
        for leader, follower in ((source, layer), (layer, source)):
            self._connections.append((leader.events.visible, lambda event=None: self._toggled()))
            for name in _SHARED if self.replaces else ():
                copy = partial(_copy, leader, follower, name)
                self._connections.append((getattr(leader.events, name), copy))
        for emitter, callback in self._connections:
            emitter.connect(callback)


def _copy(leader: Any, follower: Any, name: str, event: Any = None) -> None:
    """Copy one attribute of a layer to another, unless it is the same; colormaps have names."""
    value, other = getattr(leader, name), getattr(follower, name)
    if getattr(value, "name", value) != getattr(other, "name", other):
        setattr(follower, name, value)


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
        job.ended.connect(self._on_ended)
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
    def _on_ended(self, result: Any) -> None:
        if self.job is None:  # the layer is gone
            return
        self.job = None
        if isinstance(result, Cancelled):
            self.message, result = "Cancelled.", None
        elif isinstance(result, Exception):
            self.message, self.tone = error_text(result), "error"
            self.is_counted = self.is_counted or isinstance(result, CountedAlready)
        else:
            self.take(result)
        self.ended.emit(self, result)


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


def _nothing() -> None:
    """Stand in for a weak reference."""


class PictureLayer:
    """At most one layer of a viewer, of pictures that take each other's place."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._layer: Callable[[], Image | None] = _nothing  # or a weak reference
        self._covered: Callable[[], Image | None] = _nothing  # hidden since this layer is seen
        self._look: Any = None
        self._limits: tuple[float, ...] = ()

    @property
    def layer(self) -> Image | None:
        """The layer, while it is in the viewer."""
        layer = self._layer()
        return layer if layer in self._viewer.layers else None

    def show(
        self, data: Any, attributes: Mapping[str, Any], source: Image | None, look: Any
    ) -> Image:
        """Show a picture above a layer that it is made of; a new one becomes the active layer.

        `attributes` are those of a layer, with contrast limits and a place. Without a source it
        comes above all. Contrast that the user has set is kept as long as `look` is the same.
        """
        layer, layers = self.layer, self._viewer.layers
        limits = tuple(attributes["contrast_limits"])
        if layer is None:
            layer = Image(data, **attributes)
            self._layer = weakref.ref(layer)  # before anybody asks whether it is held
            add_layer(self._viewer, layer, source)
            layers.selection.active = layer
        else:
            layer.data = data
            if layer.name != attributes["name"]:
                layer.name = attributes["name"]
            layer.metadata = attributes["metadata"]
            if look != self._look or tuple(layer.contrast_limits) == self._limits:
                layer.contrast_limits_range = layer.contrast_limits = limits
            lay(layer, attributes)
            if source is not None and layers.index(layer) < layers.index(source):
                layers.move(layers.index(layer), layers.index(source) + 1)
        widen_contrast_slider(layer)
        self._limits, self._look = limits, look
        return layer

    def cover(self, source: Image) -> None:
        """Show the layer in the place of one below it, whose frames need not be read then."""
        if self._covered() is not source:
            self._uncover()
        if source.visible:
            self._covered = weakref.ref(source)
            source.visible = False
        layer = self.layer
        if layer is not None and not layer.visible:  # else napari would draw it once more
            layer.visible = True

    def put_away(self) -> None:
        """Hide the layer, and show what it has covered."""
        self._uncover()
        if (layer := self.layer) is not None:
            layer.visible = False

    def _uncover(self) -> None:
        covered, self._covered = self._covered(), _nothing
        if covered is not None and covered in self._viewer.layers:
            covered.visible = True

    def holds(self, layer: Any) -> bool:
        """Return whether it is this layer, in the viewer or about to come or go."""
        return layer is not None and self._layer() is layer

    def remove(self) -> None:
        """Take it from the viewer."""
        layer, self._layer = self.layer, _nothing
        if layer is not None:
            self._viewer.layers.remove(layer)


_PLACE = ("scale", "units", "translate", "rotate", "shear", "axis_labels")


def add_layer(viewer: napari.Viewer, layer: Layer, below: Layer | None = None) -> None:
    """Add a layer above all others, or above one; the active layer stays active."""
    layers = viewer.layers
    active = layers.selection.active
    # Else napari makes the controls of the new layer, and shows those of the active one again.
    activates, layers._activate_on_insert = layers._activate_on_insert, False
    try:
        layers.insert(len(layers) if below is None else layers.index(below) + 1, layer)
    finally:
        layers._activate_on_insert = activates
    if layers.selection.active is not active:
        layers.selection.active = active


def geometry(source: Image, ndim: int, finer: float = 1) -> dict[str, Any]:
    """Return scale, translation and units of a layer, for one of so many of its last axes.

    Axes that the source has not come first, in pixels. So many as `finer` of the pixels lie side by
    side in one of the source's.
    """
    missing = max(ndim - source.ndim, 0)
    units = [*("pixel",) * missing, *source.units][-ndim:]
    scale = [*(1.0,) * missing, *source.scale][-ndim:]
    translate = [*(0.0,) * missing, *source.translate][-ndim:]
    for axis in (-2, -1):
        # The middle of the first fine pixel lies before that of the first one of the source.
        translate[axis] += scale[axis] * (0.5 / finer - 0.5)
        scale[axis] /= finer
    return {"units": units, "scale": scale, "translate": translate}


def place(layer: Any, source: Image, finer: float = 1) -> None:
    """Lay a layer where another lies."""
    same = layer.ndim == source.ndim and finer == 1
    at = {name: getattr(source, name) for name in _PLACE} if same else None
    lay(layer, at or geometry(source, layer.ndim, finer))


def frame_shown(viewer: napari.Viewer, layer: Image) -> int:
    """Return the index of the frame that the sliders are at, through all axes of a layer."""
    shape = layer.data.shape[:-2]
    if layer not in viewer.layers or not shape:  # it is being removed, or has one frame
        return 0
    steps = viewer.dims.current_step[-layer.ndim : -2]
    return int(np.ravel_multi_index(steps, shape, mode="clip"))


def lay(layer: Any, attributes: Mapping[str, Any]) -> None:
    """Set scale, units and position of a layer, where they are others."""
    for name in _PLACE:
        if name in attributes:
            # Setting what is the same would draw the frame once more. Units are set by name, and
            # read as objects.
            now, wanted = (
                np.asarray(x).astype(str) for x in (getattr(layer, name), attributes[name])
            )
            if not np.array_equal(now, wanted):
                setattr(layer, name, attributes[name])


def get_labels_ready() -> None:
    """Make labels that nobody sees: a part of a second the first time, so call it in a thread."""
    colours = DirectLabelColormap(color_dict={None: "transparent", 1: "red"})
    Labels(np.zeros((1, 1), np.uint8), features={"index": [0]}, colormap=colours)


def get_points_ready() -> None:
    """Make points that nobody sees: half a second the first time, so call it in a thread."""
    Points(np.zeros((1, 2)))


def get_shapes_ready() -> None:
    """Make a shape that nobody sees: seconds the first time, so call it in a thread."""
    Shapes([(np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]]), "ellipse")])
