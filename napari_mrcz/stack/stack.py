"""`Stack`: the lazy (n, y, x) array that is opened, shown, corrected and saved."""

from __future__ import annotations

import operator
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.format import Description, Header
from napari_mrcz.stack.cache import FrameCache
from napari_mrcz.stack.sources import (
    ArraySource,
    CorrectedSource,
    Correction,
    FrameSource,
    JoinedSource,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import EllipsisType, TracebackType

    import dask.array

__all__ = ["Stack"]

Frame = npt.NDArray[Any]


class Stack:
    """A movie, volume or series of images: frames decoded as they are asked for.

    Always three-dimensional, (frames, rows, columns). Single frames come read-only, straight from
    a cache of the few used last; slices of several frames are new arrays. Reading is safe from
    many threads; a closed stack opens its file again when it is read; a stack can be pickled.

    Use `napari_mrcz.open` or `Stack.from_array` rather than the constructor.

    Parameters
    ----------
    source : FrameSource
        Where the frames come from.
    description : Description
        What is known of them.
    header : Header, optional
        The file's header.
    read_ahead : int
        Frames decoded ahead when stepping through in order, 0 to 2.
    """

    def __init__(
        self,
        source: FrameSource,
        description: Description,
        header: Header | None = None,
        *,
        read_ahead: int = 2,
    ) -> None:
        self._source = source
        self._description = description
        self._header = header
        self._read_ahead = read_ahead
        n, y, x = source.shape
        self._cache = FrameCache(source.read_frame, n, y * x * source.dtype.itemsize, read_ahead)
        self._sum: Frame | None = None
        self._sum_lock = threading.Lock()

    @classmethod
    def from_array(
        cls,
        array: Any,
        *,
        pixel_size: float | Sequence[float] = 0.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Stack:
        """Make a stack of an array, in memory or lazy (dask, zarr).

        Parameters
        ----------
        array : array-like, shape (n, y, x) or (y, x)
            The frames; a single image becomes one frame.
        pixel_size : float or sequence of float
            (z, y, x), (y, x) or one number for all, in Å; 0.0 for unknown.
        metadata : dict, optional
            Anything to be kept with it.

        Raises
        ------
        ValueError
            If the array has neither two nor three axes.
        """
        if not hasattr(array, "shape"):
            array = np.asarray(array)
        if len(array.shape) == 2:
            array = array[None]
        if len(array.shape) != 3:
            raise ValueError(f"an array of shape {array.shape}, where (n, y, x) is expected")
        description = Description(
            pixel_size=size_zyx(pixel_size), metadata=dict(metadata) if metadata else {}
        )
        return cls(ArraySource(array), description)

    @classmethod
    def joined(cls, stacks: Sequence[Stack]) -> Stack:
        """Put stacks one after the other, e.g. the parts of a movie.

        Raises
        ------
        ValueError
            If there are none, or frame shapes or dtypes differ.
        """
        if not stacks:
            raise ValueError("no stacks to join")
        first = stacks[0]
        return cls(
            JoinedSource([s._source for s in stacks]),
            first.description,
            first.header,
            read_ahead=first._read_ahead,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        return self._source.dtype

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    @property
    def size(self) -> int:
        """Pixels in all frames."""
        n, y, x = self.shape
        return n * y * x

    @property
    def nbytes(self) -> int:
        """Bytes that all frames take in memory."""
        return self.size * self.dtype.itemsize

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """Pixel size along z, y, x in Å; 0.0 where it is not known."""
        return self._description.pixel_size

    @property
    def header(self) -> Header | None:
        """Header of the file, fields by name; None for a stack that comes from an array."""
        return self._header

    @property
    def metadata(self) -> dict[str, Any]:
        """The user's map, as stored with the file."""
        return dict(self._description.metadata)

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """Corrections applied so far, each described well enough to do it again."""
        return self._description.history

    @property
    def description(self) -> Description:
        """All that is said of the frames when they are saved."""
        return self._description

    @property
    def path(self) -> str | None:
        """The file that the frames come from, corrected or not; None without one."""
        return self._description.path or None

    def __len__(self) -> int:
        """Give the number of frames."""
        return self.shape[0]

    def __iter__(self) -> Iterator[Frame]:
        """Give the frames in order, each (y, x) and read-only."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Frame:
        """Index like an array of shape (n, y, x).

        The frame axis takes integers, slices and lists of integers or booleans; rows and columns
        take integers and slices. One frame as a whole is a read-only view of the cached one.
        """
        frames, window = self._split(key)
        whole = all(isinstance(w, slice) and w == slice(None) for w in window)
        if isinstance(frames, int):
            if whole:
                return self._cache.get(frames)
            cached = self._cache.peek(frames)
            if cached is not None:
                return np.asarray(cached[window])
            return self._source.read_window(frames, window)
        if whole:
            if len(frames) == 1:
                return self._cache.get(frames[0])[None]
            return self._read_frames(frames)
        return self._read_windows(frames, window)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Frame:
        """Decode all frames, several at once."""
        if copy is False:
            raise ValueError("a lazy stack can only be made an array by decoding it")
        frames = self._read_frames(range(len(self)))
        return frames if dtype is None else frames.astype(dtype, copy=False)

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Stack:
        # Frames never change, so that a copy (napari's "Duplicate") may share their source.
        return self._with(self._source, self._description)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self._source, self._description, self._header, self._read_ahead)

    def __dask_tokenize__(self) -> Any:
        """Name the same frames alike, so that dask sees that they are."""
        from dask.tokenize import normalize_token

        return normalize_token((self._description.path, self.history, self.__reduce__()))

    def __repr__(self) -> str:
        n, y, x = self.shape
        size = self.pixel_size[2]
        scale = f", {size:.4g} Å/pix" if size else ""
        steps = f", {len(self.history)} corrections" if self.history else ""
        name = os.path.basename(self.path) if self.path else "array"
        return f"<Stack {name}: {n} x {y} x {x} {self.dtype}{scale}{steps}>"

    def apply(self, correction: Correction) -> Stack:
        """Give a lazy stack of corrected frames; its history is one step longer.

        Parameters
        ----------
        correction : Correction
            Called with a frame (y, x) and its index when the frame is asked for.
        """
        step = dict(correction.describe())
        description = replace(self._description, history=(*self.history, step))
        beneath = _ThroughCache(self._source, self._cache.peek)
        return self._with(CorrectedSource(beneath, correction), description)

    def described(self, **changes: Any) -> Stack:
        """Give the same frames with other things said of them.

        Parameters
        ----------
        **changes
            Fields of `Description`, e.g. ``pixel_size=(0.0, 1.35, 1.35)``.
        """
        return self._with(self._source, replace(self._description, **changes))

    def sum(self, axis: int = 0, *, progress: Callable[[int, int], None] | None = None) -> Frame:
        """Give the sum of all frames, computed once, several frames at a time.

        Parameters
        ----------
        axis : int
            0, the only axis along which a stack is streamed.
        progress : callable, optional
            Called with (frames done, frames); what it raises ends the summing.

        Returns
        -------
        ndarray, shape (y, x), read-only
            int32 or int64 for integers, whichever cannot overflow (uint64 stays uint64); float64
            or complex128 else.
        """
        if operator.index(axis) not in (0, -3):
            raise ValueError("a stack is summed along axis 0; else use np.asarray(stack)")
        with self._sum_lock:
            if self._sum is None:
                total = _sum_frames(self._source, progress)
                total.flags.writeable = False
                self._sum = total
            return self._sum

    def to_dask(self) -> dask.array.Array:
        """Give a dask array of the same shape, one chunk a frame."""
        try:
            import dask.array
        except ImportError as error:
            raise ImportError(
                "to_dask() needs dask: pip install 'napari-mrcz[distributed]'"
            ) from error
        chunks = (1, *self.shape[1:])
        array: dask.array.Array = dask.array.from_array(
            self, chunks=chunks, asarray=True, fancy=False
        )
        return array

    def close(self) -> None:
        """Let the file, the cached frames and the threads go; reading opens the file again."""
        self._cache.clear()
        self._source.close()

    def frame_makers(self) -> Iterator[Callable[[], Frame]]:
        """Give a function for each frame that decodes and corrects it, in whichever thread calls.

        What is read so does not pass through the cache.
        """
        return (_FrameMaker(self._source, index) for index in range(len(self)))

    def _with(self, source: FrameSource, description: Description) -> Stack:
        return Stack(source, description, self._header, read_ahead=self._read_ahead)

    def _split(self, key: Any) -> tuple[int | Sequence[int], tuple[Any, ...]]:
        """Split an index into frames and the window within each."""
        parts = key if isinstance(key, tuple) else (key,)
        if sum(p is Ellipsis for p in parts) > 1 or len(parts) > 3 + (Ellipsis in _plain(parts)):
            raise IndexError(f"too many indices for a stack of shape {self.shape}")
        if Ellipsis in _plain(parts):
            at = _plain(parts).index(Ellipsis)
            fill = (slice(None),) * (4 - len(parts))
            parts = (*parts[:at], *fill, *parts[at + 1 :])
        parts = (*parts, *(slice(None),) * (3 - len(parts)))
        window = tuple(
            _row_or_column(part, size) for part, size in zip(parts[1:], self.shape[1:], strict=True)
        )
        return _frame_numbers(parts[0], len(self)), window

    def _read_frames(self, frames: Sequence[int]) -> Frame:
        out = np.empty((len(frames), *self.shape[1:]), self.dtype)

        def read(position: int) -> None:
            cached = self._cache.peek(frames[position])
            if cached is None:
                self._source.read_frame(frames[position], out[position])
            else:
                out[position] = cached

        _in_threads(read, len(frames))
        return out

    def _read_windows(self, frames: Sequence[int], window: tuple[Any, ...]) -> Frame:
        shape = np.broadcast_to(False, self.shape[1:])[window].shape
        out = np.empty((len(frames), *shape), self.dtype)

        def read(position: int) -> None:
            cached = self._cache.peek(frames[position])
            if cached is None:
                out[position] = self._source.read_window(frames[position], window)
            else:
                out[position] = cached[window]

        _in_threads(read, len(frames))
        return out


class _ThroughCache:
    """A source that takes what the cache above it happens to hold, and adds nothing to it."""

    def __init__(
        self, source: FrameSource, peek: Callable[[int], Frame | None] | None = None
    ) -> None:
        self._source = source
        self._peek = peek

    def __reduce__(self) -> tuple[Any, ...]:
        return _ThroughCache, (self._source,)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._source.dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        cached = self._peek(frame) if self._peek is not None else None
        if cached is None:
            return self._source.read_frame(frame, out)
        if out is None:
            return cached
        out[...] = cached
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        return self._source.read_window(frame, window)

    def close(self) -> None:
        self._source.close()


class _FrameMaker:
    """Reads one frame when called."""

    def __init__(self, source: FrameSource, index: int) -> None:
        self._source = source
        self._index = index

    def __call__(self) -> Frame:
        return self._source.read_frame(self._index)


def size_zyx(pixel_size: float | Sequence[float]) -> tuple[float, float, float]:
    """Give a pixel size as (z, y, x) in Å.

    Parameters
    ----------
    pixel_size : float or sequence of float
        One number for all axes, (y, x) with z unknown, or (z, y, x).

    Raises
    ------
    ValueError
        If it is none of these, negative or not finite.
    """
    sizes = np.atleast_1d(np.asarray(pixel_size, np.float64)).tolist()
    if len(sizes) == 1:
        sizes = sizes * 3
    elif len(sizes) == 2:
        sizes = [0.0, *sizes]
    if len(sizes) != 3 or not all(np.isfinite(s) and s >= 0 for s in sizes):
        raise ValueError(f"pixel size {pixel_size!r} is no size, (y, x) or (z, y, x) in Å")
    return sizes[0], sizes[1], sizes[2]


def _unpickled(
    source: FrameSource, description: Description, header: Header | None, read_ahead: int
) -> Stack:
    return Stack(source, description, header, read_ahead=read_ahead)


def _plain(parts: tuple[Any, ...]) -> list[EllipsisType | None]:
    """Make parts comparable: arrays among them would compare elementwise."""
    return [Ellipsis if part is Ellipsis else None for part in parts]


def _frame_numbers(part: Any, n: int) -> int | Sequence[int]:
    if isinstance(part, slice):
        return range(n)[part]
    try:
        array = np.asarray(part)
        if array.ndim == 0 and array.dtype.kind != "b":
            return _within(operator.index(part), n)
    except (TypeError, ValueError):  # ValueError: lists of lists of different lengths
        array = np.asarray(None)
    if array.ndim == 1 and array.dtype.kind == "b":
        if len(array) != n:
            raise IndexError(f"a mask of {len(array)} for {n} frames")
        return [int(i) for i in np.flatnonzero(array)]
    if array.ndim == 1 and (array.dtype.kind in "iu" or not array.size):
        return [_within(i, n) for i in array.tolist()]
    raise IndexError("frames are indexed by integers, slices or lists of them")


def _row_or_column(part: Any, size: int) -> Any:
    if isinstance(part, slice):
        return slice(None) if part == slice(0, size) or part == slice(0, size, 1) else part
    if isinstance(part, bool | np.bool_) or not hasattr(part, "__index__"):
        raise IndexError("rows and columns are indexed by integers and slices")
    return _within(operator.index(part), size)


def _within(index: int, size: int) -> int:
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of range for {size}")
    return index % size


def _in_threads(work: Callable[[int], None], count: int) -> None:
    threads = min(count, os.cpu_count() or 1)
    if threads <= 1:
        for i in range(count):
            work(i)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="napari-mrcz-read") as pool:
        for _ in pool.map(work, range(count)):
            pass


def _sum_frames(source: FrameSource, progress: Callable[[int, int], None] | None) -> Frame:
    """Sum frames in as many threads as there are processors, each with a sum of its own."""
    n, y, x = source.shape
    dtype = _sum_dtype(source.dtype, n)
    threads = min(n, os.cpu_count() or 1)
    sums = [np.zeros((y, x), dtype) for _ in range(threads)]
    free = list(sums)
    lock = threading.Lock()

    def add(frame: int) -> None:
        pixels = source.read_frame(frame)
        with lock:
            total = free.pop()
        np.add(total, pixels, out=total, casting="unsafe")
        with lock:
            free.append(total)

    with ThreadPoolExecutor(threads, thread_name_prefix="napari-mrcz-sum") as pool:
        try:
            for done, _ in enumerate(pool.map(add, range(n)), 1):
                if progress is not None:
                    progress(done, n)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for other in sums[1:]:
        sums[0] += other
    return sums[0]


def _sum_dtype(dtype: np.dtype[Any], n: int) -> np.dtype[Any]:
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    if dtype.kind == "f":
        return np.dtype(np.float64)
    if dtype == np.uint64:
        return dtype
    largest = 1 if dtype.kind == "b" else max(abs(np.iinfo(dtype).min), np.iinfo(dtype).max)
    return np.dtype(np.int32 if largest * n < 2**31 else np.int64)
