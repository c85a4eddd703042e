"""Saving a layer by napari's own File > Save: compressed as its suffix says, nothing asked.

It runs where it is called. Choices, progress and Cancel are in the "Save stack" widget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mrcz.plugin.layers import check_not_source, stack_of
from napari_mrcz.stack import write

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_image(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Save an image layer as `.mrcz` (compressed), `.mrc` or `.mrcs`, frame by frame.

    Parameters
    ----------
    path : str
        The file; replaced where it exists (napari's dialog has asked).
    data : array-like
        In memory or lazy, of two to four axes.
    attributes : dict
        The layer's scale, units and metadata.

    Returns
    -------
    list of str
        The path that was written.

    Raises
    ------
    MrczError
        If the layer cannot be stored without loss, or the disk refuses.
    """
    check_not_source(path, data, attributes.get("metadata") or {})
    write(path, stack_of(data, attributes), overwrite=True)
    return [path]
