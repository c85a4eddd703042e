"""How given pixels become stored ones, decided before any is written.

They fit into another type without loss, or are refused. A few frames show how large a file will be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format.chunks import LARGEST_FRAME
from napari_mrcz.format.encoding import (
    Encoding,
    choose_encoding,
    compressed_fraction,
    excerpt,
    shannon_fraction,
)
from napari_mrcz.format.header import FOUR_BIT, MODE_OF_DTYPE, frame_nbytes, storage_dtype

if TYPE_CHECKING:
    from os import PathLike


_LARGEST_SIGNED_BYTE, _LARGEST_FOUR_BIT = 127, 15

Frame = npt.NDArray[Any]
# A frame, or a function that makes it: then it is made in the thread that compresses it.
LazyFrame = Frame | Callable[[], Frame]


class TooWideForMode0(Exception):
    """Unsigned bytes beyond 127 turned up, which mode 0 (signed) cannot hold."""


@dataclass(frozen=True)
class Storage:
    """How one frame becomes the pixels of a mode."""

    path: str | PathLike[str]  # The file to be, for messages
    shape: tuple[int, ...]  # Rows, columns
    # What the frames come in, what readers are to give back, what the mode holds.
    given: np.dtype[Any]
    final: np.dtype[Any]
    stored: np.dtype[Any]
    four_bit: bool  # Two pixels a byte, mode 101
    encoding: Encoding  # How the stored pixels are compressed, nothing of it "auto" any more

    @property
    def mode(self) -> int:
        """The pixel mode in the header."""
        if self.four_bit:
            return FOUR_BIT
        # Mode 0 of unsigned bytes, where IMOD's flag says so.
        return 0 if self.stored == np.uint8 else MODE_OF_DTYPE[self.stored]

    @property
    def nbytes(self) -> int:
        """Bytes of a frame's stored pixels, before compression."""
        return math.prod(self.shape) * self.stored.itemsize

    def fit(self, frame: Frame, index: int) -> Frame:
        """Return the frame in its stored dtype, contiguous and little-endian."""
        native = frame.dtype.newbyteorder("=")
        if frame.shape != self.shape or native != self.given:
            first = f"the first frame is {self.given} of {self.shape}"
            found = f"{native} of {frame.shape}, where {first}"
            advice = "All frames of a stack have one shape and dtype"
            raise MrczError(self.path, found, frame=index, advice=advice)
        return self.convert(np.ascontiguousarray(frame, native), index)

    def convert(self, frame: Frame, index: int | None) -> Frame:
        """Return pixels of the dtype that was given in the one that is stored."""
        frame = cast_as_asked(frame, self.final, self.path, index)
        if self.four_bit:
            if frame.max() > _LARGEST_FOUR_BIT:
                found = f"values up to {frame.max()}, where 4 bits hold 0 to {_LARGEST_FOUR_BIT}"
                advice = "Choose uint8 as pixel type (dtype)"
                raise MrczError(self.path, found, frame=index, advice=advice)
            return frame
        if self.final == np.uint8 and self.stored == np.int8:
            if frame.max() > _LARGEST_SIGNED_BYTE:
                raise TooWideForMode0
            return frame.view(np.int8)
        frame = _cast_lossless(frame, self.stored, self.path, index)
        return frame.astype(frame.dtype.newbyteorder("<"), copy=False)


def choose_storage(
    path: str | PathLike[str],
    samples: Iterable[LazyFrame],
    dtype: npt.DTypeLike | None,
    encoding: Encoding,
    *,
    wide: bool,
) -> tuple[Storage, list[Frame]]:
    """Decide dtype, filter and block size before the first byte is written.

    `path`: the file to be, for messages; `samples`: a few frames, of which only one is in memory at
    a time. A function that says `shape` and `dtype` is not called for a frame that cannot be
    stored; `dtype`: pixel type asked for; `encoding`: as asked for; `wide`: store unsigned bytes in
    16 bits, whatever the samples hold. With the storage come excerpts of the samples as they will
    be stored. Raise `MrczError` if there are no frames, or these cannot be stored so.
    """
    remaining = iter(samples)
    first = next(remaining, None)
    if first is None:
        raise MrczError(path, "no frames to write")
    known: Any = first if hasattr(first, "shape") else (first := first())
    shape, given = known.shape, np.dtype(known.dtype).newbyteorder("=")
    if len(shape) != 2 or not all(shape):
        raise MrczError(path, f"frames of shape {shape}, where (rows, columns) are expected")
    storage = _as_asked(path, shape, given, dtype, encoding)
    if wide and storage.final == np.uint8 and not storage.four_bit:
        storage = replace(storage, stored=np.dtype(np.uint16))
    _check_size(storage)
    excerpts = [excerpt(first() if callable(first) else first)]
    del first, known
    excerpts += (excerpt(frame() if callable(frame) else frame) for frame in remaining)
    try:
        stored = [storage.convert(pixels, None) for pixels in excerpts]
    except TooWideForMode0:
        storage = replace(storage, stored=np.dtype(np.uint16))
        _check_size(storage)
        stored = [storage.convert(pixels, None) for pixels in excerpts]
    chosen = choose_encoding(storage.encoding, stored, storage.nbytes)
    return replace(storage, encoding=chosen), stored


def _as_asked(
    path: str | PathLike[str],
    shape: tuple[int, ...],
    given: np.dtype[Any],
    dtype: npt.DTypeLike | None,
    encoding: Encoding,
) -> Storage:
    four_bit = isinstance(dtype, str) and dtype == "uint4"
    try:
        asked = given if dtype is None else np.dtype(np.uint8 if four_bit else dtype)
        final = asked.newbyteorder("=")
        stored = np.dtype(np.uint8) if four_bit else storage_dtype(final)
    except TypeError as error:
        raise MrczError(path, str(error), advice="Convert the frames to numbers first") from error
    if four_bit and encoding.number:
        found = "4-bit packing and compression exclude each other"
        advice = "Compressed uint8 takes less room; or save uncompressed (codec none)"
        raise MrczError(path, found, advice=advice)
    return Storage(path, shape, given, final, stored, four_bit, encoding)


def _check_size(storage: Storage) -> None:
    """Refuse frames that are too large for blosc."""
    nbytes = storage.nbytes
    if storage.encoding.number and nbytes > LARGEST_FRAME:
        found = f"a frame of {nbytes} bytes, where blosc compresses {LARGEST_FRAME} at most"
        raise MrczError(storage.path, found, advice="Save it uncompressed (codec none)")


def _cast_lossless(
    frame: Frame, dtype: np.dtype[Any], path: str | PathLike[str], index: int | None
) -> Frame:
    """Return `frame` as `dtype`; raise `MrczError` unless every value survives."""
    if frame.dtype == dtype:
        return frame
    if frame.dtype.kind in "biu":
        _check_range(frame, dtype, path, index)
        return frame.astype(dtype)
    with np.errstate(over="ignore"):
        cast = frame.astype(dtype)
    if not _same(frame, cast):
        found = f"{frame.dtype} values that {dtype} cannot hold exactly"
        advice = f"Choose {dtype} as pixel type (dtype) to round them"
        raise MrczError(path, found, frame=index, advice=advice)
    return cast


def cast_as_asked(
    frame: Frame, dtype: np.dtype[Any], path: str | PathLike[str], index: int | None
) -> Frame:
    """Return `frame` as the `dtype` asked for: rounded, but never wrapped or cut off.

    Raise `MrczError` if a value is out of the type's range, not a number where integers are asked
    for, or complex where real numbers are.
    """
    if frame.dtype == dtype:
        return frame
    if frame.dtype.kind == "c" and dtype.kind != "c":
        found = f"complex pixels cannot become {dtype}"
        raise MrczError(path, found, frame=index, advice="Write their amplitude or phase")
    if dtype.kind in "biu":
        if frame.dtype.kind == "f":
            frame = np.rint(frame)
        _check_range(frame, dtype, path, index)
        return frame.astype(dtype)
    with np.errstate(over="ignore"):
        cast = frame.astype(dtype)
    if not (np.isfinite(cast) | ~np.isfinite(frame)).all():
        raise MrczError(path, f"values beyond the range of {dtype}", frame=index)
    return cast


def _same(frame: Frame, cast: Frame) -> bool:
    """Return whether every value survived, part by part: a NaN could hide the other's loss."""
    if frame.dtype.kind == "c":
        return _same(frame.real, cast.real) and _same(frame.imag, cast.imag)
    return bool(((cast == frame) | (frame != frame)).all())


def _check_range(
    frame: Frame, dtype: np.dtype[Any], path: str | PathLike[str], index: int | None
) -> None:
    if not frame.size:
        return
    # As Python's numbers, which compare exactly: float32(2**31 - 1) is 2**31.
    low, high = frame.min().item(), frame.max().item()
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not (low >= least and high <= most):  # also false for NaN
        found = f"values from {low} to {high}, where {dtype} holds {least} to {most}"
        advice = "Choose a pixel type (dtype) that holds them; float32 rounds where it must"
        raise MrczError(path, found, frame=index, advice=advice)


@dataclass(frozen=True)
class Estimate:
    """What a frame will take on disk."""

    encoding: Encoding  # Filter and block size as the writer will choose them
    stored: np.dtype[Any]  # Pixel type in the file
    frame_nbytes: float  # Mean size of a frame in bytes
    # The least to which independent pixels can be compressed (Shannon's bound); None where a sample
    # does not show it, as of most float images.
    bound_nbytes: float | None


def estimate(
    path: str | PathLike[str],
    samples: Iterable[LazyFrame],
    encoding: Encoding,
    dtype: npt.DTypeLike | None = None,
) -> Estimate:
    """Decide what `write_frames` would, and compress excerpts of the frames in that way.

    `path`: for messages; `samples`: a few frames; only one is in memory at a time; `encoding`: as
    asked for; `dtype`: pixel type asked for. Raise `MrczError` if these frames cannot be stored so
    without loss.
    """
    storage, stored = choose_storage(path, samples, dtype, encoding, wide=False)
    rows, columns = storage.shape
    nbytes = frame_nbytes(storage.mode, (rows, columns))
    nbytes_written = nbytes * compressed_fraction(storage.encoding, stored)
    bound = shannon_fraction(stored)
    bound_nbytes = None if bound is None else bound * storage.nbytes
    return Estimate(storage.encoding, storage.stored, nbytes_written, bound_nbytes)
