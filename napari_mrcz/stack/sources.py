"""Sources of frames: arrays, and other sources corrected, cropped, grouped or joined; sums.

All sources share the base `Frames`. Those of files are in `raw_frames`, `tiff` and
`format.FrameReader`.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.sums import RunningSum
from napari_mrcz.errors import MrczError
from napari_mrcz.format.machine import in_order, processors, reported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Threads that add to one sum.
_SHARING = 3
# Of sources in more files than these, the files read last are open, and the others closed.
MOST_OPEN = 8

Frame = npt.NDArray[Any]


class FrameSource(Protocol):
    """Anything that returns single frames, such as `Frames` and `format.FrameReader`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of every frame."""

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return one whole frame, decoded into `out` (contiguous) if given."""

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return part of a frame."""

    def close(self) -> None:
        """Close files; reading opens them again."""


@runtime_checkable
class Correction(Protocol):
    """A small frozen object that turns a frame into a better one.

    Optional: ``output_dtype(dtype) -> dtype`` (otherwise the first frame is corrected to learn the
    type); ``output_shape((y, x)) -> (y, x)`` where rows and columns do not stay as they are;
    ``correct_in_place(frame, index)`` of a correction that keeps the dtype, for frames that nothing
    else uses.
    """

    def __call__(self, frame: Frame, index: int) -> Frame:
        """Correct the frame (y, x) with index `index`, leaving the one given untouched."""

    def describe(self) -> Mapping[str, Any]:
        """Return name and parameters, enough to build it again."""


class Frames:
    """Base of the sources: they set `shape` (n, y, x) and native `dtype`, and define `_read`."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return one whole frame, decoded into `out` (contiguous) if given."""
        pixels = self._read(frame)
        if out is None:
            return np.ascontiguousarray(pixels, self.dtype)
        out[...] = pixels
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return part of a frame, copied: a view would keep the whole frame in memory."""
        return np.array(self.read_frame(frame)[window])

    def close(self) -> None:
        """Close files; reading opens them again."""

    def _read(self, frame: int) -> Frame:
        """Return one frame, in any byte order and layout."""
        raise NotImplementedError


class ArraySource(Frames):
    """Frames of an array (n, y, x) in memory, or of one that is indexed like it (dask, zarr)."""

    def __init__(self, array: Any) -> None:
        self._array = unmasked(array) if isinstance(array, np.ma.MaskedArray) else array
        n, y, x = map(int, array.shape)
        self.shape = n, y, x
        self.dtype = np.dtype(array.dtype).newbyteorder("=")

    def _read(self, frame: int) -> Frame:
        return np.asarray(unmasked(self._array[frame]), self.dtype)

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return part of a frame; no more of a lazy array is computed."""
        return np.asarray(unmasked(self._array[(frame, *window)]), self.dtype)


def unmasked(array: Any) -> Any:
    """Return an array without the mask that it does not need.

    Raise `MrczError` if pixels are masked: files have no mask, so they would come back as good
    ones.
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


class FlattenedArray:
    """An array (part, frame, y, x), in memory or lazy, as one long row of frames (n, y, x)."""

    def __init__(self, array: Any) -> None:
        self._array = array
        parts, self._length, y, x = map(int, array.shape)
        self.shape = parts * self._length, y, x
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    def __getitem__(self, key: int | tuple[Any, ...]) -> Any:
        """Return one frame, or a window of it."""
        frame, *window = key if isinstance(key, tuple) else (key,)
        return self._array[(*divmod(frame, self._length), *window)]


class DerivedFrames(Frames):
    """Frames that are made from those of another source, `before`."""

    def __init__(self, before: FrameSource) -> None:
        self.before = before
        self.shape = before.shape
        self.dtype = before.dtype

    def close(self) -> None:
        """Close the underlying files."""
        self.before.close()


class CachedSource(DerivedFrames):
    """The same frames; `peek`, which is not pickled, returns one that is cached, else None."""

    def __init__(
        self, before: FrameSource, peek: Callable[[int], Frame | None] | None = None
    ) -> None:
        super().__init__(before)
        self._peek = peek

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSource, (self.before,)

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return one frame, decoded only if it is not cached."""
        cached = self._peek(frame) if self._peek is not None else None
        if cached is None:
            return self.before.read_frame(frame, out)
        if out is None:
            return cached
        out[...] = cached
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return part of a frame, copied from the whole one if that is cached."""
        cached = self._peek(frame) if self._peek is not None else None
        if cached is None:
            return self.before.read_window(frame, window)
        return np.array(cached[window])


class CorrectedSource(DerivedFrames):
    """The frames of another source, `before`, each after a correction."""

    def __init__(self, before: FrameSource, correction: Correction) -> None:
        super().__init__(before)
        self.correction = correction
        if (output_shape := getattr(correction, "output_shape", None)) is not None:
            self.shape = (before.shape[0], *output_shape(before.shape[1:]))
        output_dtype = getattr(correction, "output_dtype", None)
        self.dtype = (
            self._read(0).dtype if output_dtype is None else np.dtype(output_dtype(before.dtype))
        )

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return one corrected frame."""
        in_place = getattr(self.correction, "correct_in_place", None)
        if in_place is None or self.dtype != self.before.dtype:
            return super().read_frame(frame, out)
        own = np.empty(self.shape[1:], self.dtype) if out is None else out
        own = self.before.read_frame(frame, own)
        in_place(own, frame)
        return own

    def _read(self, frame: int) -> Frame:
        pixels = self.correction(self.before.read_frame(frame), frame)
        if pixels.shape != self.shape[1:]:
            made = f"the correction made {pixels.shape} of a frame of {self.before.shape[1:]}"
            kept = "a correction keeps rows and columns unless its output_shape says otherwise"
            raise ValueError(f"{made}, where {self.shape[1:]} was announced; {kept}")
        return pixels


class SelectedSource(DerivedFrames):
    """Some of another source's frames, rows and columns.

    `before`: the frames; `frames`, `rows`, `columns`: which of them. Raise `ValueError` if none is
    left.
    """

    def __init__(self, before: FrameSource, frames: slice, rows: slice, columns: slice) -> None:
        super().__init__(before)
        wanted = (frames, rows, columns)
        if not all(isinstance(part, slice) for part in wanted):
            raise TypeError("frames, rows and columns are selected by slices")
        parts = [range(size)[part] for size, part in zip(before.shape, wanted, strict=True)]
        if not all(parts):
            raise ValueError(f"nothing of a stack of {before.shape} is selected")
        self._frames, self._rows, self._columns = parts
        self.shape = len(self._frames), len(self._rows), len(self._columns)

    @property
    def first(self) -> tuple[int, int, int] | None:
        """First column, row and frame in the other source; None where some between are left out."""
        parts = (self._columns, self._rows, self._frames)
        if any(part.step != 1 for part in parts):
            return None
        column, row, frame = (part.start for part in parts)
        return column, row, frame

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return part of one frame."""
        if (self._rows, self._columns) == tuple(map(range, self.before.shape[1:])):
            return self.before.read_frame(self._frames[frame], out)
        return super().read_frame(frame, out)

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return a smaller part of one frame."""
        rows, columns = self._rows[window[0]], self._columns[window[1]]
        inside = _index(rows), _index(columns)
        return np.asarray(self.before.read_window(self._frames[frame], inside), order="C")

    def _read(self, frame: int) -> Frame:
        return self.read_window(frame, (slice(None), slice(None)))


def _index(places: int | range) -> int | slice:
    """Return the index that takes the places of a range."""
    if not isinstance(places, range):
        return places
    # A range that counts down to the first place ends before it, which a slice calls None.
    return slice(places.start, places.stop if places.stop >= 0 else None, places.step)


class GroupedSource(DerivedFrames):
    """Another source's frames, summed in groups, in the narrowest type that no sum overflows.

    `before`: the frames; `size`: frames per group; `keep_rest`: whether frames after the last whole
    group are a last, smaller one. Raise `ValueError` if there would be no group.
    """

    def __init__(self, before: FrameSource, size: int, keep_rest: bool) -> None:
        super().__init__(before)
        n = before.shape[0]
        if not 1 <= size <= n:
            raise ValueError(f"groups of {size} frames of a movie of {n}")
        self._size = size
        self.shape = (-(-n // size) if keep_rest else n // size, *before.shape[1:])
        kind = "u" if self.dtype.kind == "b" else self.dtype.kind
        if kind in "iu":
            largest = size * (1 if self.dtype.kind == "b" else int(np.iinfo(self.dtype).max))
            wide = [np.dtype(f"{kind}{nbytes}") for nbytes in (1, 2, 4, 8)]
            self.dtype = next((w for w in wide if np.iinfo(w).max >= largest), wide[-1])
        elif self.dtype == np.float16:  # whose largest number is 65504
            self.dtype = np.dtype(np.float32)

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return the sum of one group."""
        first, *others = self._group(frame)
        total = np.empty(self.shape[1:], self.dtype) if out is None else out
        total[...] = self.before.read_frame(first)
        for index in others:
            total += self.before.read_frame(index)
        return total

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return part of the sum of one group."""
        parts = (self.before.read_window(index, window) for index in self._group(frame))
        total = next(parts).astype(self.dtype)
        for part in parts:
            total += part
        return total

    def _group(self, frame: int) -> range:
        first = frame * self._size
        return range(first, min(first + self._size, self.before.shape[0]))


class JoinedSource(Frames):
    """Sources one after the other; `ValueError` if their rows, columns or dtypes differ."""

    def __init__(self, sources: Sequence[FrameSource]) -> None:
        first = sources[0]
        for position, source in enumerate(sources):
            if source.shape[1:] != first.shape[1:] or source.dtype != first.dtype:
                found = f"stack {position} has frames of {source.shape[1:]} {source.dtype}"
                other = f"stack 0 of {first.shape[1:]} {first.dtype}"
                raise ValueError(f"{found}, {other}; they cannot be joined")
        self._sources = tuple(sources)
        self._ends = list(itertools.accumulate(source.shape[0] for source in sources))
        self._open: list[int] = []  # those read last
        self.shape = (self._ends[-1], *first.shape[1:])
        self.dtype = first.dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Return one frame of the source that it belongs to."""
        source, index = self._locate(frame)
        return source.read_frame(index, out)

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Return part of a frame."""
        source, index = self._locate(frame)
        return source.read_window(index, window)

    def close(self) -> None:
        """Close all files."""
        for source in self._sources:
            source.close()

    def _locate(self, frame: int) -> tuple[FrameSource, int]:
        position = bisect.bisect_right(self._ends, frame)
        before = self._ends[position - 1] if position else 0
        if position not in self._open:
            self._open.append(position)
            if len(self._open) > MOST_OPEN:
                self._sources[self._open.pop(0)].close()
        return self._sources[position], frame - before


@dataclass(frozen=True)
class FrameMaker:
    """Makes one frame when called; its shape and dtype are known before."""

    make: Callable[[], Frame]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __call__(self) -> Frame:
        """Return the frame."""
        return self.make()


def uncached(source: FrameSource) -> FrameSource:
    """Return the source below those that only cache."""
    while isinstance(source, CachedSource):
        source = source.before
    return source


def uncorrected(source: FrameSource) -> FrameSource:
    """Return the source below those that cache and correct: a file, an array, a crop or sum."""
    while isinstance(source, CachedSource | CorrectedSource):
        source = source.before
    return source


def sum_frames(
    read: Callable[[int], Frame],
    shape: tuple[int, int, int],
    dtype: npt.DTypeLike,
    progress: Callable[[int, int], None] | None = None,
) -> Frame:
    """Sum frames, read in as many threads as there are processors; the same whatever the threads.

    `read`: returns frame i, (y, x), in whichever thread asks; `shape`: frames, rows, columns;
    `dtype`: of the frames; `progress`: called with (frames done, frames); what it raises ends the
    summing. The result is (y, x): as `RunningSum.total` returns it.
    """
    n, dtype = shape[0], np.dtype(dtype)
    threads = max(1, min(n, processors()))
    # Floating sums depend on the order: frames are read in threads, but added in turn.
    in_turn = dtype.kind in "fc"
    # Adding takes a quarter of the time of decoding: some threads share a sum, which saves memory.
    sums = [
        RunningSum(shape[1:], dtype, n) for _ in range(1 if in_turn else -(-threads // _SHARING))
    ]
    free: SimpleQueue[RunningSum] = SimpleQueue()
    for running in sums:
        free.put(running)

    def add(frame: Frame) -> None:
        running = free.get()
        try:
            running.add(frame)
        finally:
            free.put(running)

    def work(index: int) -> Frame | None:
        frame = read(index)
        if in_turn:
            return frame
        add(frame)
        return None

    room = 2 * shape[1] * shape[2] * dtype.itemsize  # as it is stored, and read
    with in_order(work, range(n), threads, "napari-mrcz-sum", nbytes=room) as frames:
        for frame in reported(frames, n, progress):
            if frame is not None:
                add(frame)
    for other in sums[1:]:
        sums[0].merge(other)
    return sums[0].total()
