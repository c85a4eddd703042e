"""Where a stack's frames come from: a file, an array, another stack corrected or several joined."""

from __future__ import annotations

import bisect
import itertools
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Frame = npt.NDArray[Any]


class FrameSource(Protocol):
    """Anything that gives single frames; `format.FrameReader` is one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of every frame."""

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Give one whole frame, decoded into `out` (contiguous) where that is given."""

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Give part of a frame."""

    def close(self) -> None:
        """Let files go; reading opens them again."""


@runtime_checkable
class Correction(Protocol):
    """A small frozen object that turns a frame into a better one.

    It may also say ``output_dtype(dtype) -> dtype``; otherwise the first frame is tried to learn
    what comes out. Rows and columns stay as they are, unless it says
    ``output_shape((y, x)) -> (y, x)``. One that keeps the dtype may have
    ``correct_in_place(frame, index)``, for frames that are nobody else's.
    """

    def __call__(self, frame: Frame, index: int) -> Frame:
        """Correct the frame (y, x) with index `index`, leaving the one given untouched."""

    def describe(self) -> Mapping[str, Any]:
        """Say what it does: name and parameters, enough to build it again."""


class ArraySource:
    """Frames of an array in memory, or of anything that is indexed like one (dask, zarr, memmap).

    Parameters
    ----------
    array : array-like, shape (n, y, x)
        The frames.
    """

    def __init__(self, array: Any) -> None:
        self._array = unmasked(array) if isinstance(array, np.ma.MaskedArray) else array
        self._dtype: np.dtype[Any] = np.dtype(array.dtype).newbyteorder("=")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        n, y, x = self._array.shape
        return int(n), int(y), int(x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        return self._dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Give one frame; a view where the array is in memory."""
        pixels = np.asarray(unmasked(self._array[frame]), self._dtype)
        if out is None:
            return pixels
        out[...] = pixels
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Give part of a frame."""
        return np.asarray(unmasked(self._array[(frame, *window)]), self._dtype)

    def close(self) -> None:
        """Do nothing: the array belongs to whoever made it."""


def unmasked(array: Any) -> Any:
    """Return an array without the mask that it does not need.

    Raises
    ------
    MrczError
        If pixels are masked: no file would say so, and they would come back as good ones.
    """
    if isinstance(getattr(array, "_meta", None), np.ma.MaskedArray):
        array = array.compute()  # dask's: only it knows the mask
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if count := int(np.ma.getmaskarray(array).sum()):
        found = f"an array in which {count} pixels are masked, where MRC has no mask"
        advice = "Fill them first, e.g. with array.filled(0), and save the mask beside it"
        raise MrczError(None, found, advice=advice)
    return array.data


class CachedSource:
    """A source that takes what the cache above it happens to hold, and adds nothing to it.

    Parameters
    ----------
    source : FrameSource
        The frames.
    peek : callable, optional
        Gives a frame that is there already, or None. It stays behind when this is pickled.
    """

    def __init__(
        self, source: FrameSource, peek: Callable[[int], Frame | None] | None = None
    ) -> None:
        self._source = source
        self._peek = peek

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSource, (self._source,)

    @property
    def before(self) -> FrameSource:
        """The source whose frames these are."""
        return self._source

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self._source.dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Give one frame, decoded only if it is not there."""
        cached = self._peek(frame) if self._peek is not None else None
        if cached is None:
            return self._source.read_frame(frame, out)
        if out is None:
            return cached
        out[...] = cached
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return part of a frame, copied from the whole one if that is there."""
        cached = self._peek(frame) if self._peek is not None else None
        if cached is None:
            return self._source.read_window(frame, window)
        return np.array(cached[window])  # a view would keep the whole frame in memory

    def close(self) -> None:
        """Let the file go."""
        self._source.close()


class FlattenedArray:
    """A four-dimensional array, in memory or lazy, as one long row of frames: (n, y, x).

    Parameters
    ----------
    array : array-like, shape (part, frame, y, x)
        Indexed by integers and slices.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._length = int(array.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames of all parts, rows, columns."""
        parts, length, y, x = (int(n) for n in self._array.shape)
        return parts * length, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        dtype: np.dtype[Any] = np.dtype(self._array.dtype)
        return dtype

    def __getitem__(self, key: int | tuple[Any, ...]) -> Any:
        """Give one frame, or a window of it."""
        frame, *window = key if isinstance(key, tuple) else (key,)
        return self._array[(*divmod(frame, self._length), *window)]


class CorrectedSource:
    """Another source's frames after a correction.

    Parameters
    ----------
    source : FrameSource
        The frames before.
    correction : Correction
        What is done to each.
    """

    def __init__(self, source: FrameSource, correction: Correction) -> None:
        self._source = source
        self._correction = correction
        output_shape = getattr(correction, "output_shape", None)
        self._frame_shape: tuple[int, int] = (
            source.shape[1:] if output_shape is None else output_shape(source.shape[1:])
        )
        output_dtype = getattr(correction, "output_dtype", None)
        self._dtype: np.dtype[Any] = (
            self._corrected(0).dtype
            if output_dtype is None
            else np.dtype(output_dtype(source.dtype))
        )

    @property
    def before(self) -> FrameSource:
        """The frames before the correction."""
        return self._source

    @property
    def correction(self) -> Correction:
        """What is done to each frame."""
        return self._correction

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns after the correction."""
        return (self._source.shape[0], *self._frame_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type after the correction."""
        return self._dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return one corrected frame."""
        in_place = getattr(self._correction, "correct_in_place", None)
        if in_place is not None and self._dtype == self._source.dtype:
            own = np.empty(self._frame_shape, self._dtype) if out is None else out
            own = self._source.read_frame(frame, own)
            in_place(own, frame)
            return own
        pixels = self._corrected(frame)
        if out is None:
            return pixels
        out[...] = pixels
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Give part of a corrected frame; the whole of it is corrected, neighbours matter."""
        return np.array(self._corrected(frame)[window])

    def close(self) -> None:
        """Let the files beneath go."""
        self._source.close()

    def _corrected(self, frame: int) -> Frame:
        pixels = self._correction(self._source.read_frame(frame), frame)
        if pixels.shape != self._frame_shape:
            raise ValueError(
                f"the correction made {pixels.shape} of a frame of {self._source.shape[1:]}, "
                f"where {self._frame_shape} was announced; a correction keeps rows and columns "
                "unless its output_shape says otherwise"
            )
        return pixels


class JoinedSource:
    """Several sources of one frame shape, one after the other.

    Parameters
    ----------
    sources : sequence of FrameSource
        At least one; rows, columns and dtype agree.

    Raises
    ------
    ValueError
        If they do not; says which and how.
    """

    def __init__(self, sources: Sequence[FrameSource]) -> None:
        first = sources[0]
        for position, source in enumerate(sources):
            if source.shape[1:] != first.shape[1:] or source.dtype != first.dtype:
                raise ValueError(
                    f"stack {position} has frames of {source.shape[1:]} {source.dtype}, "
                    f"stack 0 of {first.shape[1:]} {first.dtype}; they cannot be joined"
                )
        self._sources = tuple(sources)
        self._ends = list(itertools.accumulate(source.shape[0] for source in sources))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames of all together, rows, columns."""
        return (self._ends[-1], *self._sources[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of all."""
        return self._sources[0].dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Give one frame of whichever source it belongs to."""
        source, index = self._locate(frame)
        return source.read_frame(index, out)

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Give part of a frame."""
        source, index = self._locate(frame)
        return source.read_window(index, window)

    def close(self) -> None:
        """Let all files go."""
        for source in self._sources:
            source.close()

    def _locate(self, frame: int) -> tuple[FrameSource, int]:
        position = bisect.bisect_right(self._ends, frame)
        before = self._ends[position - 1] if position else 0
        return self._sources[position], frame - before


class SelectedSource:
    """Some of another source's frames, rows and columns.

    Parameters
    ----------
    source : FrameSource
        The frames.
    frames, rows, columns : slice
        Which of them.

    Raises
    ------
    ValueError
        If none is left.
    """

    def __init__(self, source: FrameSource, frames: slice, rows: slice, columns: slice) -> None:
        wanted = (frames, rows, columns)
        if not all(isinstance(part, slice) for part in wanted):
            raise TypeError("frames, rows and columns are selected by slices")
        parts = [range(size)[part] for size, part in zip(source.shape, wanted, strict=True)]
        if not all(parts):
            raise ValueError(f"nothing of a stack of {source.shape} is selected")
        self._source = source
        self._frames, self._rows, self._columns = parts

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return len(self._frames), len(self._rows), len(self._columns)

    @property
    def first(self) -> tuple[int, int, int] | None:
        """First column, row and frame in the other source; None where some are left out between."""
        parts = (self._columns, self._rows, self._frames)
        if any(part.step != 1 for part in parts):
            return None
        column, row, frame = (part.start for part in parts)
        return column, row, frame

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self._source.dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Read part of one frame."""
        if (self._rows, self._columns) == tuple(map(range, self._source.shape[1:])):
            return self._source.read_frame(self._frames[frame], out)
        pixels = self.read_window(frame, (slice(None), slice(None)))
        if out is None:
            return pixels
        out[...] = pixels
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Read a smaller part of one frame."""
        rows, columns = self._rows[window[0]], self._columns[window[1]]
        inside = _index(rows), _index(columns)
        return np.ascontiguousarray(self._source.read_window(self._frames[frame], inside))

    def close(self) -> None:
        """Close the underlying files."""
        self._source.close()


def _index(places: int | range) -> int | slice:
    """Return the index that takes the places of a range."""
    if not isinstance(places, range):
        return places
    # A range that counts down to the first place ends before it, which a slice calls None.
    return slice(places.start, places.stop if places.stop >= 0 else None, places.step)


class FrameMaker:
    """Reads one frame when called; its shape and dtype are known before."""

    def __init__(self, source: FrameSource, index: int) -> None:
        self._source = source
        self._index = index

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return self._source.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self._source.dtype

    def __call__(self) -> Frame:
        """Return the frame."""
        return self._source.read_frame(self._index)


def uncached(source: FrameSource) -> FrameSource:
    """Return the source beneath those that only cache."""
    while isinstance(source, CachedSource):
        source = source.before
    return source
