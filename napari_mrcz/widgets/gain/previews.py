"""The normalised movies that lie above the raw ones: of each layer at most one."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mrcz.widgets.base.preview import PreviewLayer, place

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    import napari
    from napari.layers import Image


@dataclass(eq=False)
class _Preview:
    """One preview, what it was made of, and how."""

    shown: PreviewLayer
    movie: Callable[[], Any]
    made: Hashable


class Previews:
    """Previews by the layer of the raw movie. They stay when another movie is picked.

    Parameters
    ----------
    viewer : napari.Viewer
        Where they are shown.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._previews: weakref.WeakKeyDictionary[Image, _Preview] = weakref.WeakKeyDictionary()

    def of(self, source: Image | None) -> Image | None:
        """Return the layer of a movie's preview, while there is one."""
        preview = None if source is None else self._previews.get(source)
        return None if preview is None else preview.shown.layer

    def own(self, layer: Any) -> bool:
        """Return whether a layer is one of them, in the viewer or about to come or go."""
        return self.source_of(layer) is not None

    def source_of(self, layer: Any) -> Image | None:
        """Return the movie that a layer is the preview of, if it is one."""
        sources = (x for x, preview in self._previews.items() if preview.shown.holds(layer))
        return next(sources, None)

    def is_made(self, source: Image, made: Hashable) -> bool:
        """Return whether a movie's preview shows the frames that it has now, made in this way."""
        preview = self._previews.get(source)
        return (
            preview is not None
            and preview.shown.layer is not None
            and preview.movie() is source.data
            and preview.made == made
        )

    def show(self, source: Image, data: Any, attributes: Mapping[str, Any], made: Hashable) -> None:
        """Show what was made of a movie, just above it."""
        preview = self._previews.get(source)
        if preview is None:
            shown = PreviewLayer(self._viewer)
            preview = self._previews[source] = _Preview(shown, weak(None), None)
        preview.movie, preview.made = weak(source.data), made
        preview.shown.show(data, attributes, source, above=True)

    def place(self, source: Image) -> None:
        """Lay the preview of a movie where that lies now."""
        if (layer := self.of(source)) is not None:
            place(layer, source)

    def remove(self, source: Image | None) -> None:
        """Take the preview of a movie away."""
        if source is not None and (preview := self._previews.pop(source, None)) is not None:
            preview.shown.remove()


def weak(thing: Any) -> Callable[[], Any]:
    """Return what gives a thing without keeping it: None when it is gone, or cannot be had so."""
    try:
        return (lambda: None) if thing is None else weakref.ref(thing)
    except TypeError:
        return lambda: None
