"""Gain and dark references from the files that cameras and programs leave.

Rows come in the order of MRC files. TIFF and DigitalMicrograph files begin with the top row, MRC
files with the bottom one, and the programs that convert between them (IMOD, SerialEM, MotionCor,
RELION, EMAN2) turn images upside down on the way: so does this. What then still lies the wrong way
round was saved so; `find_orientation` finds out how.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.naming import without_packing
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from os import PathLike


def read_reference(path: str | PathLike[str]) -> npt.NDArray[np.float32]:
    """Read a gain or dark reference.

    Parameters
    ----------
    path : path-like
        A file of any format that `open` reads, packed or not: MRC, a TIFF (also with the suffix
        `.gain`, as EER movies come with), DM3 or DM4 ...

    Returns
    -------
    ndarray of float32, shape (y, x)
        Rows in the order of MRC files; those of a `.gain` in their own, which is that of its EER
        movie.

    Raises
    ------
    MrczError
        If the file cannot be read or is not one image.
    """
    image = read_image(path)
    if image.dtype.kind not in "fiub":
        raise MrczError(path, f"a reference has real values, not {image.dtype}")
    return np.ascontiguousarray(image, np.float32)


def read_image(path: str | PathLike[str]) -> npt.NDArray[Any]:
    """Read the one image of a file, (y, x), rows in the order of MRC files."""
    path = Path(path)
    with open_stack(path, read_ahead=False) as stack:
        image = _single(path, stack)
        own_rows = stack.header is None and has_own_rows(path)
    return image[::-1] if own_rows else image


def has_own_rows(path: Path) -> bool:
    """Return whether a TIFF's rows lie as those of the EER movie that it belongs to."""
    return without_packing(path).suffix.lower() == ".gain"


def _single(path: Path, images: Any) -> npt.NDArray[Any]:
    shape = tuple(size for size in images.shape if size != 1) or (1, 1)
    if len(images.shape) < 2 or len(shape) > 2:
        raise MrczError(
            path,
            f"one image is expected, not an array of {images.shape}",
            advice="A reference from a movie is made by estimate_gain",
        )
    image: npt.NDArray[Any] = np.asarray(images).reshape(images.shape[-2:])
    return image
