"""TIFF and EER movies: their pages as frames, one decoded at a time."""

from __future__ import annotations

import os
import struct
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, MrczWarning
from napari_mrcz.format import Description
from napari_mrcz.stack.stack import Stack
from napari_mrcz.units import plausible

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TiffFrames", "is_tiff", "open_tiff"]

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EER_SUFFIX = ".eer"
_CENTIMETRE = 3  # of TIFF's ResolutionUnit

Frame = npt.NDArray[Any]


def is_tiff(head: bytes) -> bool:
    """Return whether a file that begins so is a TIFF, BigTIFF or EER."""
    return head.startswith(_MAGIC)


def open_tiff(path: Path) -> Stack:
    """Open a movie; the first row of a TIFF is the top one, that of EER the bottom one."""
    frames = TiffFrames(path, path.suffix.lower() != _EER_SUFFIX)
    size = frames.pixel_size
    return Stack(frames, Description(pixel_size=size, path=str(path.absolute())))


class TiffFrames:
    """The pages of a TIFF file, one decoded at a time. Safe to use from many threads, picklable.

    Parameters
    ----------
    path : Path
        The file.
    flip : bool
        Turn rows upside down.
    """

    def __init__(self, path: Path, flip: bool) -> None:
        self._path, self._flip = path.absolute(), flip
        self._lock = threading.Lock()
        self._file: Any = None
        try:
            first = self._look()
        except BaseException:
            self.close()
            raise
        self._page_shape: tuple[int, int] = first.shape
        self._dtype: np.dtype[Any] = np.dtype(first.dtype).newbyteorder("=")
        self.pixel_size = _tiff_pixel_size(first)

    def __reduce__(self) -> tuple[Any, ...]:
        return TiffFrames, (self._path, self._flip)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self._n, *self._page_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        return self._dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Decode one page.

        Raises
        ------
        MrczError
            If it is damaged.
        """
        with self._lock:
            try:
                pixels = self._decode(frame)
            except Exception as error:  # neither library has one error for a damaged file
                found = f"its TIFF page cannot be decoded ({error})"
                raise MrczError(self._path, found, frame=frame) from error
        if pixels.shape != self._page_shape:
            found = f"a page of {pixels.shape}, where the first has {self._page_shape}"
            raise MrczError(self._path, found, frame=frame)
        if self._flip:
            pixels = pixels[::-1]
        if out is None:
            return np.ascontiguousarray(pixels, self._dtype)
        out[...] = pixels
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Decode one page and give part of it."""
        return np.array(self.read_frame(frame)[window])

    def close(self) -> None:
        """Let the file go; reading opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _pages(self) -> Any:
        import tifffile  # slow to import, seldom needed

        try:
            if self._file is None:
                self._file = tifffile.TiffFile(self._path)
            return self._file.pages
        except OSError as error:
            raise MrczError(self._path, f"cannot be opened: {error.strerror}") from error
        except Exception as error:
            raise MrczError(self._path, f"it is no TIFF that can be read ({error})") from error

    def _decode(self, frame: int) -> Frame:
        page = self._pages()[frame]
        if _is_lzw(page):
            return _decode_lzw(self._path, frame)
        return np.asarray(page.asarray())

    def _look(self) -> Any:
        """Give the first page, if it is a frame that can be decoded."""
        with self._lock:
            pages = self._pages()
            self._n = len(pages)
            if not self._n:
                raise MrczError(self._path, "a TIFF without pages", advice="It is cut off")
            first = pages[0]
            if not _is_last(self._file, self._n - 1):
                said = f"only {self._n} of its frames can be read; it is cut off or damaged"
                warnings.warn(f"{self._path}: {said}", MrczWarning, stacklevel=5)
        if len(first.shape) != 2:
            found = f"pages of shape {first.shape}, where frames have two axes"
            raise MrczError(self._path, found)
        try:
            if not _is_lzw(first):
                first.decode  # noqa: B018  (tifffile looks for the codec here)
        except Exception as error:
            found, advice = f"its pages need a codec ({error})", "pip install 'napari-mrcz[eer]'"
            raise MrczError(self._path, found, advice=advice) from None
        return first


def _is_last(file: Any, page: int) -> bool:
    """Tell whether a page is whole and names no page after it."""
    kind, handle = file.tiff, file.filehandle
    try:
        handle.seek(file.pages[page].offset)
        (tags,) = struct.unpack(kind.tagnoformat, handle.read(kind.tagnosize))
    except Exception:  # as for decoding it
        return False
    handle.seek(tags * kind.tagsize, os.SEEK_CUR)
    return bool(handle.read(kind.offsetsize) == bytes(kind.offsetsize))


def _is_lzw(page: Any) -> bool:
    import tifffile

    return bool(page.compression == tifffile.COMPRESSION.LZW)


def _decode_lzw(path: Path, frame: int) -> Frame:
    """Decode what SerialEM and IMOD write, for which tifffile needs a large further package."""
    from PIL import Image

    with Image.open(path) as image:
        image.seek(frame)
        return np.asarray(image)


def _tiff_pixel_size(page: Any) -> tuple[float, float, float]:
    """Give the pixel size in Å where resolution is in dots per centimetre, as SerialEM has it."""
    resolution, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    size = 0.0
    if resolution is not None and unit is not None and int(unit.value) == _CENTIMETRE:
        dots, length = resolution.value
        size = plausible(1e8 * length / dots) if dots else 0.0
    return 0.0, size, size
