"""Layers that are made from another one: made, laid on it, renamed with it, let go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.colormaps import Colormap

from napari_mrcz.plugin.layers import describe, widen_contrast_slider
from napari_mrcz.plugin.shown import StackSeries
from napari_mrcz.widgets.base.preview import geometry, lay, place

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Layer

    from napari_mrcz.stack import Stack

# Seen alike before and after.
_SHARED = ("contrast_limits", "gamma", "colormap")


class DerivedLayer:
    """A layer made from another, added to the viewer once, visible or hidden as it will be.

    Parameters
    ----------
    viewer : napari.Viewer
        Where it is shown.
    source : Image
        The layer that it is made from.
    suffix : str
        Behind the name of the source in its own, as long as nobody gives it another: " corrected".
    make : callable
        Makes the layer, of its data and attributes.
    toggled : callable
        Called when it or the source is shown or hidden, by whatever means.
    replaces : bool
        It lies just above the source, looks like it, and is seen in its place.
    above : bool
        It lies just above the source, rather than above all.

    Attributes
    ----------
    layer : Layer or None
        None before `show` and after `part`.
    finer : int
        So many of its pixels lie side by side in one of the source's.
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
        layers = self._viewer.layers
        active = layers.selection.active
        if self.replaces:
            self._source.visible = False
        if self._above:
            layers.insert(layers.index(self._source) + 1, layer)
        else:
            layers.append(layer)
        layers.selection.active = active
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
        """Let it be a layer like any other, or take it away."""
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
        """Have one layer look as another does."""

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
