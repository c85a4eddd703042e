"""A corrected movie beside its raw one: two layers that look alike, of which one is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.colormaps import Colormap

from napari_mrcz.plugin.layers import describe, widen_contrast_slider
from napari_mrcz.plugin.shown import StackSeries
from napari_mrcz.widgets.base.preview import geometry, place

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_mrcz.stack import Stack

# Seen alike before and after.
_SHARED = ("contrast_limits", "gamma", "colormap")


class CorrectedLayer:
    """The layer of a corrected movie, just above that of the movie, which is hidden.

    Parameters
    ----------
    source : Image
        The layer of the movie.
    stack : Stack
        The corrected movie.
    toggled : callable
        Called when the layer is shown or hidden, by whatever means.

    Attributes
    ----------
    layer : Image
        Not in a viewer before `add`: who asks whose it is can be told then.
    """

    def __init__(self, source: Image, stack: Stack, toggled: Callable[[], None]) -> None:
        self._source = source
        self._connections: list[tuple[Any, Callable[..., None]]] = []
        data = _shown(stack)
        ndim = len(data.shape)
        self.layer = Image(
            data,
            name=f"{source.name} corrected",
            metadata=describe(stack),
            contrast_limits=source.contrast_limits,
            colormap=source.colormap,
            gamma=source.gamma,
            rgb=False,
            multiscale=False,
            axis_labels=source.axis_labels if ndim == source.ndim else None,
            **geometry(source, ndim),
        )
        widen_contrast_slider(self.layer)
        for leader, follower in ((source, self.layer), (self.layer, source)):
            for name in _SHARED:
                self._follow(leader, follower, name)
        self._connect(self.layer.events.visible, lambda event=None: toggled())
        self._connect(source.events.visible, lambda event=None: toggled())

    def add(self, viewer: napari.Viewer) -> None:
        """Add it to the viewer of the movie, and show it; the active layer stays active."""
        layers = viewer.layers
        active = layers.selection.active
        layers.insert(layers.index(self._source) + 1, self.layer)
        layers.selection.active = active
        self.show_after(True)

    @property
    def shows_after(self) -> bool:
        """Whether the corrected movie is visible."""
        return bool(self.layer.visible)

    def show(self, stack: Stack) -> None:
        """Show another correction of the movie."""
        self.layer.data = _shown(stack)
        self.layer.metadata = describe(stack)

    def show_after(self, after: bool) -> None:
        """Show the corrected movie in place of the movie, or the other way round."""
        self.layer.visible = after
        self._source.visible = not after

    def place(self) -> None:
        """Lay it where the movie lies now."""
        place(self.layer, self._source)

    def part(self) -> None:
        """Let it be a layer like any other."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections.clear()

    def _follow(self, leader: Image, follower: Image, name: str) -> None:
        """Have one layer look as another does."""

        def copy(event: Any = None) -> None:
            value = getattr(leader, name)
            if _plain(getattr(follower, name)) != _plain(value):
                setattr(follower, name, value)

        self._connect(getattr(leader.events, name), copy)

    def _connect(self, emitter: Any, callback: Callable[..., None]) -> None:
        emitter.connect(callback)
        self._connections.append((emitter, callback))


def _shown(stack: Stack) -> Any:
    length = stack.description.sections_per_volume
    return stack if length is None else StackSeries(stack, length)


def _plain(value: Any) -> Any:
    """Give what tells values apart; colormaps do not compare."""
    return value.name if isinstance(value, Colormap) else value
