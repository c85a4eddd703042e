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
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["read_reference"]

_DM = (".dm3", ".dm4")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_reference(path: str | PathLike[str]) -> npt.NDArray[np.float32]:
    """Read a gain or dark reference.

    Parameters
    ----------
    path : path-like
        An MRC or MRCZ file, a TIFF (also with the suffix `.gain`, as EER movies come with), or a
        DM3 or DM4 file (which needs ``napari-mrcz[dm]``).

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
    if path.is_fifo():
        raise MrczError(path, "is a pipe, where a file is expected")  # it would be waited for
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise MrczError(path, f"it cannot be read ({error.strerror})") from error
    if path.suffix.lower() in _DM:
        return _single(path, _read_dm(path))[::-1]
    if magic in _TIFF_MAGIC:
        image = _single(path, _read_tiff(path))
        return image if path.suffix.lower() == ".gain" else image[::-1]
    with open_stack(path) as stack:
        return _single(path, stack)


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


def _read_tiff(path: Path) -> npt.NDArray[Any]:
    import tifffile  # slow to import, seldom needed

    # Neither this library nor the next ones have one error for a damaged file, which ends in
    # whatever they stumble over.
    try:
        with tifffile.TiffFile(path) as file:
            if file.pages.first.compression == tifffile.COMPRESSION.LZW and len(file.pages) == 1:
                return _read_lzw(path)
            return file.asarray()
    except Exception as error:
        raise MrczError(path, f"its TIFF cannot be decoded ({error})") from error


def _read_lzw(path: Path) -> npt.NDArray[Any]:
    """Read what SerialEM and IMOD write, for which tifffile needs a large further package."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def _read_dm(path: Path) -> npt.NDArray[Any]:
    try:
        from ncempy.io.dm import dmReader
    except ImportError as error:
        advice = "pip install 'napari-mrcz[dm]'"
        raise MrczError(path, "DM3 and DM4 files need ncempy", advice=advice) from error
    try:
        return np.asarray(dmReader(str(path))["data"])
    except Exception as error:
        raise MrczError(path, f"it is no DM file that can be read ({error!r})") from error
