"""Layers that are made from another: laid on it, renamed with it, let go."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_mrcz.plugin.layers import StackSeries, describe, widen_contrast_slider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import napari
    from napari.layers import Layer

    from napari_mrcz.stack import Stack

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
        limits = tuple(attributes.get("contrast_limits", ()))
        if self.layer is not None:
            self.layer.data = data
            if "metadata" in attributes:
                self.layer.metadata = attributes["metadata"]
            if limits != self._limits and tuple(self.layer.contrast_limits) == self._limits:
                # Limits that the user has set stay.
                self.layer.contrast_limits_range = self.layer.contrast_limits = limits
                widen_contrast_slider(self.layer)
            self._limits = limits
            return
        self._limits = limits
        ndim = attributes.get("ndim") or len(data.shape)
        look = {name: getattr(self._source, name) for name in _SHARED if self.replaces}
        same = self.replaces and ndim == self._source.ndim
        self.layer = layer = self._make(
            data,
            name=f"{self._source.name}{self._suffix}",
            **{
                **look,
                **({"axis_labels": self._source.axis_labels} if same else {}),
                **self._geometry(ndim),
                **attributes,
            },
        )
        widen_contrast_slider(layer)
        self._follow()
        if self.replaces:
            self._source.visible = False
        add_layer(self._viewer, layer, self._source if self._above else None)
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
        if self.layer is not None and self.finer == 1:
            place(self.layer, self._source)
        elif self.layer is not None:
            lay(self.layer, self._geometry(self.layer.ndim))

    def part(self, *, remove: bool = False) -> None:
        """Make it a layer like any other, or take it away."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()
        layer, self.layer = self.layer, None
        if remove and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _geometry(self, ndim: int) -> dict[str, Any]:
        at = geometry(self._source, ndim)
        # The middle of the first fine pixel lies before that of the first one of the source.
        for axis in (ndim - 2, ndim - 1):
            at["translate"][axis] += at["scale"][axis] * (0.5 / self.finer - 0.5)
            at["scale"][axis] /= self.finer
        return at

    def _follow(self) -> None:
        source, layer = self._source, self.layer
        for each in (source, layer):
            self._connect(each.events.visible, lambda event=None: self._toggled())
        given = [layer.name]

        def rename(event: Any = None) -> None:
            if layer.name == given[0]:
                layer.name = f"{source.name}{self._suffix}"
                given[0] = layer.name

        self._connect(source.events.name, rename)
        if not self.replaces:
            return
        for leader, follower in ((source, layer), (layer, source)):
            for name in _SHARED:
                self._copy(leader, follower, name)

    def _copy(self, leader: Any, follower: Any, name: str) -> None:
        """Copy the look of one layer to another."""

        def copy(event: Any = None) -> None:
            value = getattr(leader, name)
            if _plain(getattr(follower, name)) != _plain(value):
                setattr(follower, name, value)

        self._connect(getattr(leader.events, name), copy)

    def _connect(self, emitter: Any, callback: Callable[..., None]) -> None:
        emitter.connect(callback)
        self._connections.append((emitter, callback))


def _plain(value: Any) -> Any:
    """Return what tells values apart; colormaps do not compare."""
    return value.name if isinstance(value, Colormap) else value


class PictureLayer:
    """At most one layer of a viewer, of pictures that take each other's place."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._layer: weakref.ref[Image] | None = None
        self._covered: weakref.ref[Image] | None = None  # hidden since this layer is seen
        self._look: Any = None
        self._limits: tuple[float, ...] = ()

    @property
    def layer(self) -> Image | None:
        """The layer, while it is in the viewer."""
        layer = None if self._layer is None else self._layer()
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
        if self._covered is None or self._covered() is not source:
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
        covered = None if self._covered is None else self._covered()
        self._covered = None
        if covered is not None and covered in self._viewer.layers:
            covered.visible = True

    def holds(self, layer: Any) -> bool:
        """Return whether it is this layer, in the viewer or about to come or go."""
        return self._layer is not None and self._layer() is layer

    def remove(self) -> None:
        """Take it from the viewer."""
        layer, self._layer = self.layer, None
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


def geometry(source: Image, ndim: int) -> dict[str, Any]:
    """Return scale, translation and units of a layer, for one of so many of its last axes.

    Axes that the source has not come first, in pixels.
    """
    missing = max(ndim - source.ndim, 0)
    return {
        "units": [*("pixel",) * missing, *source.units][-ndim:],
        "scale": [*(1.0,) * missing, *source.scale][-ndim:],
        "translate": [*(0.0,) * missing, *source.translate][-ndim:],
    }


def place(layer: Any, source: Image) -> None:
    """Lay a layer where another lies."""
    same = layer.ndim == source.ndim
    lay(
        layer,
        {name: getattr(source, name) for name in _PLACE} if same else geometry(source, layer.ndim),
    )


def frame_shown(viewer: napari.Viewer, layer: Image) -> int:
    """Return the index of the frame that the sliders are at, through all axes of a layer."""
    if layer not in viewer.layers:  # it is being removed
        return 0
    index = 0
    steps = viewer.dims.current_step[-layer.ndim : -2]
    for step, length in zip(steps, layer.data.shape[:-2], strict=True):
        index = index * length + min(int(step), length - 1)
    return index


def lay(layer: Any, attributes: Mapping[str, Any]) -> None:
    """Set scale, units and position of a layer, where they are others."""
    for name in _PLACE:
        # Setting what is the same would draw the frame once more.
        if name in attributes and not np.array_equal(
            _comparable(getattr(layer, name)), _comparable(attributes[name])
        ):
            setattr(layer, name, attributes[name])


def _comparable(value: Any) -> Any:
    """Return what can be compared: units are set by name, and read as objects."""
    return np.asarray(value).astype(str)


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
