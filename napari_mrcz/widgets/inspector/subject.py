"""A layer as the inspector knows it before anything is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Image

    from napari_mrcz.format import Header


@dataclass(frozen=True)
class Subject:
    """A layer, as much of it as is told without reading; it keeps no file open.

    Attributes
    ----------
    name, path : str
        Of the layer, of its file; "" without one.
    paths : tuple of str
        All its files, where they were joined.
    shape, dtype : tuple of int, str
        Of its frames.
    pixel_size : tuple of float
        Along z, y and x in Å; 0.0 for unknown.
    header : Header or None
        As it was when the file was opened.
    metadata : dict
        The user's.
    history : tuple of dict
        Corrections applied, to the layer rather than to its file.
    voltage : float
        In kV; 0.0 for unknown.
    problem : str
        Why it is no stack of frames.
    """

    name: str
    path: str = ""
    paths: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = ""
    pixel_size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    header: Header | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    voltage: float = 0.0
    problem: str = ""


def subject_of(layer: Image) -> Subject:
    """Return what a layer tells without a byte being read."""
    metadata = layer.metadata
    try:
        stack = stack_of_layer(layer)
    except MrczError as error:
        shape = tuple(map(int, layer.data[0].shape if layer.multiscale else layer.data.shape))
        problem = error_text(error)
        return Subject(layer.name, shape=shape, dtype=str(layer.dtype), problem=problem)
    return Subject(
        layer.name,
        stack.path or "",
        tuple(map(str, metadata.get("paths", ()))) if stack.path else (),
        stack.shape,
        str(stack.dtype),
        stack.pixel_size,
        stack.header,
        dict(stack.description.metadata),
        stack.history,
        stack.description.voltage,
    )
