"""The layers that read a file which is about to be replaced, and turning them to the new one."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_mrcz.stack import Stack
from napari_mrcz.widgets.inspector.subject import Subject, subject_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

    from napari_mrcz.plugin.layers import LayerData


class Readers:
    """Layers of one file; none of them, nor what they show, is kept alive.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers.
    path : str
        The file.
    """

    def __init__(self, viewer: napari.Viewer, path: str) -> None:
        self._viewer = viewer
        layers = [layer for layer in viewer.layers if _reads(layer, path)]
        if os.name == "nt":  # an open file cannot be replaced there
            for layer in layers:
                _stack(layer.data).close()
        self._layers = [(weakref.ref(layer), weakref.ref(layer.data)) for layer in layers]

    def subjects(self) -> list[Subject]:
        """Give what is known of each."""
        layers = [reference() for reference, _ in self._layers]
        return [subject_of(layer) for layer in layers if layer is not None]

    def turn_to(self, new: Sequence[LayerData | Exception]) -> Exception | None:
        """Show the new file in them, unless they show other data by now.

        Parameters
        ----------
        new : sequence of (LayerData or Exception)
            What becomes of each, as of `subjects`.

        Returns
        -------
        Exception or None
            Why one of them cannot.
        """
        problem = None
        for (reference, shown), made in zip(self._layers, new, strict=True):
            layer, data = reference(), shown()
            if isinstance(made, Exception):
                problem = made
            elif layer is not None and layer in self._viewer.layers and layer.data is data:
                self._turn(layer, made)
        return problem

    def _turn(self, layer: Image, made: LayerData) -> None:
        stack, attributes, _ = made
        sized_otherwise = _stack(stack).pixel_size != _stack(layer.data).pixel_size
        layer.data = stack
        if sized_otherwise:
            layer.scale, layer.units = attributes["scale"], attributes["units"]
        layer.metadata = {**layer.metadata, **attributes["metadata"]}


def _reads(layer: Any, path: str) -> bool:
    """Tell whether a layer shows one file alone, this one."""
    if not isinstance(layer, Image) or layer.rgb or layer.multiscale:
        return False
    stack = _stack(layer.data)
    if not isinstance(stack, Stack) or len(layer.metadata.get("paths", ())) > 1:
        return False
    return stack.path is not None and os.path.realpath(stack.path) == os.path.realpath(path)


def _stack(data: Any) -> Any:
    """Give the stack of which a layer's data consist, cut into movies or volumes or not."""
    return getattr(data, "stack", data)
