"""SMV images of diffraction detectors (`.img`): read by fabio; written for MOSFLM, XDS and DIALS.

A text header of some multiple of 512 bytes between braces, then one image, its top row first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format import Description
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["SmvFrames", "is_smv", "open_smv", "smv_header", "write_smv"]

_BLOCK = 512
# What is said of the pixels by whoever writes them; the rest of a header is the experiment's.
_OF_PIXELS = ("HEADER_BYTES", "DIM", "BYTE_ORDER", "TYPE", "Data_type", "SIZE1", "SIZE2")

Frame = npt.NDArray[Any]


def is_smv(head: bytes) -> bool:
    """Return whether a file that begins so is an SMV image."""
    return head.lstrip()[:1] == b"{" and b"HEADER_BYTES" in head


def open_smv(paths: Sequence[Path]) -> Stack:
    """Open images of one shape as a movie; the first one's header is in ``metadata["smv"]``."""
    frames = SmvFrames(paths)
    path = str(frames.paths[0])
    return Stack(frames, Description(path=path, metadata={"smv": smv_header(frames.paths[0])}))


class SmvFrames:
    """Images of one shape, a file each; one is read when it is asked for.

    Parameters
    ----------
    paths : sequence of Path
        The files, in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [path.absolute() for path in paths]
        first = _read(self.paths[0]).data
        self._page_shape: tuple[int, int] = first.shape
        self._dtype: np.dtype[Any] = np.dtype(first.dtype).newbyteorder("=")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return len(self.paths), *self._page_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self._dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Read one image.

        Raises
        ------
        MrczError
            If it is damaged, or not like the first one.
        """
        pixels = _read(self.paths[frame]).data
        if pixels.shape != self._page_shape or pixels.dtype != self._dtype:
            found = f"{pixels.dtype} pixels of {pixels.shape}"
            expected = f"where the first image has {self._dtype} of {self._page_shape}"
            raise MrczError(self.paths[frame], f"{found}, {expected}")
        if out is None:
            return np.ascontiguousarray(pixels[::-1])
        out[...] = pixels[::-1]
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Read one image and give part of it."""
        return np.array(self.read_frame(frame)[window])

    def close(self) -> None:
        """Do nothing: no file stays open."""


def smv_header(path: Path) -> dict[str, str]:
    """Give what an image's header says of the experiment.

    Raises
    ------
    MrczError
        If it cannot be read.
    """
    items = _read(path).header.items()
    return {str(name): str(value) for name, value in items if name not in _OF_PIXELS}


def write_smv(
    path: Path, frame: Frame, header: Mapping[str, Any] | None = None, *, overwrite: bool = False
) -> None:
    """Write one image.

    Parameters
    ----------
    path : Path
        The file.
    frame : ndarray of uint16, shape (y, x)
        Rows in the order of MRC files.
    header : mapping, optional
        What is said of the experiment, such as DISTANCE, WAVELENGTH or OSC_START.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MrczError
        If the file exists, or the disk refuses.
    ValueError
        If the pixels are of another type: programs rely on this one.
    """
    if frame.dtype != np.uint16 or frame.ndim != 2:
        raise ValueError(f"an SMV image is of uint16 and (y, x), not {frame.dtype} {frame.shape}")
    size = {"SIZE1": frame.shape[1], "SIZE2": frame.shape[0]}
    items = {"DIM": 2, "BYTE_ORDER": "little_endian", "TYPE": "unsigned_short", **size}
    items |= {name: value for name, value in (header or {}).items() if name not in _OF_PIXELS}
    lines = "".join(f"{name}={value};\n" for name, value in items.items())
    nbytes = -(-(len(lines.encode()) + 32) // _BLOCK) * _BLOCK
    head = f"{{\nHEADER_BYTES={nbytes:5d};\n{lines}}}\n\f\n".encode()
    with AtomicFile(path, overwrite=overwrite) as file:
        file.write(head.ljust(nbytes))
        file.write(np.ascontiguousarray(frame[::-1], "<u2").data)
        file.commit()


def _read(path: Path) -> Any:
    try:
        from fabio.adscimage import AdscImage
    except ImportError as error:
        advice = "pip install 'napari-mrcz[microed]'"
        raise MrczError(path, "SMV files need fabio", advice=advice) from error
    try:
        image = AdscImage().read(str(path))
    except OSError as error:
        found = error.strerror or f"it is no SMV image that can be read ({error})"
        raise MrczError(path, found) from error
    except Exception as error:  # it has no error of its own for a damaged file
        raise MrczError(path, f"it is no SMV image that can be read ({error!r})") from error
    if image.data is None or image.data.ndim != 2:
        raise MrczError(path, "an SMV file without an image of two axes")
    return image
