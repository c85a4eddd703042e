"""`Stack`: the lazy (n, y, x) array that is opened, shown, corrected and saved."""

from __future__ import annotations

import operator
import threading
import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.sums import sum_dtype, widened
from napari_mrcz.errors import warn
from napari_mrcz.format import Description, FrameReader, Header
from napari_mrcz.format.footer import to_plain
from napari_mrcz.format.machine import in_order, new_array, processors
from napari_mrcz.naming import path_of, size_zyx
from napari_mrcz.stack import sources
from napari_mrcz.stack.cache import CACHE_NBYTES, FrameCache
from napari_mrcz.stack.sources import Correction, FrameMaker, FrameSource, sum_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import dask.array

# A larger sum takes more memory than all the frames that are kept.
_KEPT_SUM_NBYTES = 2**26

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
    read_ahead : bool
        Decode the next two frames, in the background, when frames are asked for in order.
    cache_nbytes : int
        Bytes of decoded frames to be kept; three frames if that is more.
    """

    def __init__(
        self,
        source: FrameSource,
        description: Description,
        header: Header | None = None,
        *,
        read_ahead: bool = True,
        cache_nbytes: int = CACHE_NBYTES,
    ) -> None:
        self._source = source
        self._description = description
        self._header = header
        # As keywords, for the stacks that are made of this one.
        self._caching: dict[str, Any] = {"read_ahead": read_ahead, "cache_nbytes": cache_nbytes}
        n, y, x = source.shape
        read = source.read_to_look_at if isinstance(source, FrameReader) else source.read_frame
        frame_nbytes = y * x * source.dtype.itemsize
        self._cache = FrameCache(
            read, n, frame_nbytes, read_ahead=read_ahead, nbytes=cache_nbytes, close=source.close
        )
        self._frames = sources.CachedSource(source, self._cache.peek)
        self._sum: Callable[[], Frame | None] = lambda: None
        self._sum_lock = threading.Lock()

    @classmethod
    def from_array(
        cls,
        array: Any,
        *,
        pixel_size: float | Sequence[float] = 0.0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Stack:
        """Return a stack of an array, in memory or lazy (dask, zarr).

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
        return cls(sources.ArraySource(array), description)

    @classmethod
    def joined(cls, stacks: Sequence[Stack]) -> Stack:
        """Return stacks put one after the other, e.g. the parts of a movie.

        Raises
        ------
        ValueError
            If there are none, or frame shapes or dtypes differ.
        """
        if not stacks:
            raise ValueError("no stacks to join")
        # As they are stored: arrays do not compare.
        if len({msgpack.packb(to_plain(stack.history)) for stack in stacks}) > 1:
            raise ValueError("stacks that were corrected differently cannot be joined")
        first = stacks[0]
        return first._with(sources.JoinedSource([s._source for s in stacks]), first.description)

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
        """The user's map, as stored with the file, and what its extended header says of frames."""
        return self._description.all_metadata(len(self))

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """Corrections applied so far, each described well enough to do it again."""
        return self._description.history

    @property
    def description(self) -> Description:
        """All that is saved with the frames."""
        return self._description

    @property
    def path(self) -> str | None:
        """The file that the frames come from, corrected or not; None without one."""
        return self._description.path or None

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.shape[0]

    def __iter__(self) -> Iterator[Frame]:
        """Return an iterator over the frames, each (y, x) and read-only."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Frame:
        """Index like an array of shape (n, y, x).

        The frame axis takes integers, slices and lists of integers or booleans; rows and columns
        take integers and slices. One frame as a whole is a read-only view of the cached one.
        """
        frames, window = split_index(key, self.shape)
        whole = all(isinstance(w, slice) and w == slice(None) for w in window)
        if isinstance(frames, int):
            return self._cache.get(frames) if whole else self._frames.read_window(frames, window)
        if whole and len(frames) == 1:
            return self._cache.get(frames[0])[None]
        return self._read(frames, None if whole else window)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Frame:
        """Decode all frames, several at once.

        Raises
        ------
        NotEnoughMemory
            If they do not fit into memory, before any is decoded.
        """
        if copy is False:
            raise ValueError("a lazy stack can only be made an array by decoding it")
        frames = self._read(range(len(self)))
        return frames if dtype is None else frames.astype(dtype, copy=False)

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Stack:
        # Frames never change, so that a copy (napari's "Duplicate") may share their source.
        return self._with(self._source, self._description)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Stack, **self._caching), (self._source, self._description, self._header)

    def __repr__(self) -> str:
        n, y, x = self.shape
        size = self.pixel_size[2]
        scale = f", {size:.4g} Å/pix" if size else ""
        steps = f", {len(self.history)} corrections" if self.history else ""
        name = path_of(self.path).name if self.path else "array"
        return f"<Stack {name}: {n} x {y} x {x} {self.dtype}{scale}{steps}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a thumbnail of the sum, and a table."""
        from napari_mrcz.stack.inspection import html_of

        return html_of(self)

    def apply(self, correction: Correction) -> Stack:
        """Return a lazy stack of corrected frames; its history is one step longer.

        Parameters
        ----------
        correction : Correction
            Called with a frame (y, x) and its index when the frame is asked for.

        Raises
        ------
        TypeError
            If it is not a correction.

        Warns
        -----
        MrczWarning
            If the correction should not follow those before it, as its ``doubts(history)`` says.
        """
        if not hasattr(correction, "describe"):
            said = "a correction is called with a frame and its index, and has describe()"
            raise TypeError(f"{said}; {type(correction).__name__!r} does not have it")
        step = dict(correction.describe())
        for doubt in getattr(correction, "doubts", lambda history: ())(self.history):
            if doubt not in step.get("warnings", ()):
                step["warnings"] = [*step.get("warnings", ()), doubt]
                warn(f"{self.path or 'stack'}: {doubt}")
        description = replace(self._description, history=(*self.history, step))
        # Frames need nothing of what only another fit does, such as the sum of them all.
        correction = getattr(correction, "settled", lambda: correction)()
        source = sources.CorrectedSource(self._frames, correction)
        if source.shape != self.shape:
            description = replace(description, start=(0, 0, 0))
        return self._with(source, description)

    def recorded(self) -> Stack:
        """Return the frames before the corrections that were applied to them here, lazily.

        Those in the file's history were applied to what it holds, and stay.
        """
        steps, source = 0, self._source
        while isinstance(source, sources.CachedSource | sources.CorrectedSource):
            steps += isinstance(source, sources.CorrectedSource)
            source = source.before
        history = self.history[: len(self.history) - steps]
        return self._with(source, replace(self._description, history=history))

    def group(self, size: int, rest: str = "keep") -> Stack:
        """Return a lazy stack of the sums of `size` consecutive frames each.

        How many frames are in each is in its ``metadata["grouped"]``.

        Parameters
        ----------
        size : int
            Frames per group.
        rest : {"keep", "drop"}
            Whether frames after the last whole group are summed into a last frame, which is a
            shorter exposure than the others, or left out.

        Raises
        ------
        ValueError
            If there is not one whole group, or `rest` is neither.

        Warns
        -----
        MrczWarning
            If there is a rest.
        """
        if rest not in ("keep", "drop"):
            raise ValueError(f'rest is "keep" or "drop", not {rest!r}')
        size = operator.index(size)
        source = sources.GroupedSource(self._source, size, rest == "keep")
        left = len(self) % size
        if left:
            done = f"the last is of {left}" if rest == "keep" else f"the last {left} are left out"
            warn(f"{self.path or 'stack'}: {len(self)} frames in groups of {size}: {done}")
        grouped = {"frames": len(self), "frames_per_group": size}
        grouped["frames_in_last_group"] = left if left and rest == "keep" else size
        metadata = dict(self._description.metadata) | ({"grouped": grouped} if size > 1 else {})
        return self._with(source, replace(self._description, metadata=metadata))

    def select(
        self, frames: slice = slice(None), rows: slice = slice(None), columns: slice = slice(None)
    ) -> Stack:
        """Return a lazy crop: some of the frames, rows and columns.

        Parameters
        ----------
        frames, rows, columns : slice
            As for an array; all by default.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        source = sources.SelectedSource(self._source, frames, rows, columns)
        description = self._description
        depth = description.sections_per_volume if len(self) == source.shape[0] else None
        first, extended = source.first, description.extended
        start = (0, 0, 0)
        if first is not None:
            start = tuple(a + b for a, b in zip(description.start, first, strict=True))  # type: ignore[assignment]
        elif extended is not None:
            extended = replace(extended, frames=-1)
        changes: dict[str, Any] = {"sections_per_volume": depth, "start": start}
        return self._with(source, replace(description, extended=extended, **changes))

    def cached(self, **caching: Any) -> Stack:
        """Return the same frames, read ahead and kept in memory as the constructor has it."""
        return Stack(self._source, self._description, self._header, **caching)

    def described(self, **changes: Any) -> Stack:
        """Return the same frames with another description.

        Parameters
        ----------
        **changes
            Fields of `Description`, e.g. ``pixel_size=(0.0, 1.35, 1.35)``.
        """
        return self._with(self._source, replace(self._description, **changes))

    def sum(
        self,
        axis: int | None = 0,
        *,
        dtype: npt.DTypeLike | None = None,
        progress: Callable[[int, int], None] | None = None,
        out: Frame | None = None,
        keepdims: bool = False,
    ) -> Frame:
        """Return the sum of all frames, computed once, several frames at a time.

        A sum of more than 64 MB, or the "smallest", is kept only as long as it is referenced.
        ``np.sum(stack, axis=0)`` calls this too.

        Parameters
        ----------
        axis : int
            0, the only axis along which a stack is streamed.
        dtype : dtype-like or "smallest", optional
            Of the sum. By default int32 or int64 for integers, whichever cannot overflow (uint64
            stays uint64); float64 or complex128 else. "smallest" is as little as holds the values
            there are: 16 bits for most movies of 8 bits.
        progress : callable, optional
            Called with (frames done, frames); what it raises ends the summing.
        out : ndarray, shape of the sum, optional
            Where to put it, and what is then returned.
        keepdims : bool
            Return it as (1, y, x).

        Returns
        -------
        ndarray, shape (y, x), read-only
        """
        if axis is None or operator.index(axis) not in (0, -3):  # None is numpy's default
            raise ValueError("a stack is summed along axis 0; else use np.asarray(stack)")
        is_any = isinstance(dtype, str) and dtype == "smallest"
        wanted = sum_dtype(self.dtype, len(self))
        if not (dtype is None or is_any):
            wanted = np.dtype(dtype)
        with self._sum_lock:
            total = self._sum()
            if total is None:
                total = sum_frames(self._source.read_frame, self.shape, self.dtype, progress)
                if dtype is None and total.dtype.kind in "iu":
                    total = widened(total, wanted)
                total.flags.writeable = False
                kept = total.nbytes <= _KEPT_SUM_NBYTES and not is_any
                self._sum = partial(np.asarray, total) if kept else weakref.ref(total)
        if not is_any:
            total = total.astype(wanted, copy=False)
        total.flags.writeable = False
        total = total[None] if keepdims else total
        if out is None:
            return total
        np.copyto(out, total, casting="same_kind")
        return out

    def to_dask(self) -> dask.array.Array:
        """Return a dask array of the same shape, one chunk per frame."""
        try:
            import dask.array
        except ImportError as error:
            needed = "to_dask() needs dask: pip install 'napari-mrcz[distributed]'"
            raise ImportError(needed) from error
        chunks = (1, *self.shape[1:])
        return dask.array.from_array(self, chunks=chunks, asarray=True, fancy=False)

    def close(self) -> None:
        """Close the file, and drop cached frames and threads; reading opens the file again."""
        self._cache.clear()
        self._source.close()

    def frame_makers(self) -> Iterator[Callable[[], Frame]]:
        """Return one function per frame that reads it in the calling thread, past the cache."""
        return map(self._maker, range(len(self)))

    def sample_makers(self) -> list[Callable[[], Frame]]:
        """Return the first, middle and last of `frame_makers`, which stand for all."""
        wanted = sorted({0, len(self) // 2, len(self) - 1})
        return [self._maker(index) for index in wanted]

    def _maker(self, index: int) -> FrameMaker:
        return FrameMaker(partial(self._source.read_frame, index), self.shape[1:], self.dtype)

    def _with(self, source: FrameSource, description: Description) -> Stack:
        return Stack(source, description, self._header, **self._caching)

    def _read(self, frames: Sequence[int], window: tuple[Any, ...] | None = None) -> Frame:
        """Read frames, or windows of them, several at once."""
        shape = self.shape[1:]
        if window is not None:
            shape = np.broadcast_to(False, shape)[window].shape
        advice = "Take frames one by one (`for frame in stack`), parts (`select`) or `to_dask()`"
        what = f"{len(frames)} frames of {' x '.join(map(str, shape))} {self.dtype}"
        out = new_array((len(frames), *shape), self.dtype, self.path, what, advice)

        def read(position: int) -> None:
            if window is None:
                self._frames.read_frame(frames[position], out[position])
            else:
                out[position] = self._frames.read_window(frames[position], window)

        threads = max(1, min(len(frames), processors()))
        nbytes = self.nbytes // len(self)
        with in_order(read, range(len(frames)), threads, "napari-mrcz-read", nbytes=nbytes) as done:
            for _ in done:
                pass
        return out


def split_index(
    key: Any, shape: tuple[int, int, int]
) -> tuple[int | Sequence[int], tuple[Any, Any]]:
    """Split an index into frames and the window (rows, columns) within each.

    `key`: as for numpy: integers, slices and an ellipsis; for the frames also a list of integers or
    booleans; `shape`: the stack's, (n, y, x). The frames are one number, whose axis is dropped, or
    several; none is negative. Raise `IndexError` if it is out of range or of another kind.
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    # By identity: arrays among them would compare elementwise.
    ellipses = [at for at, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1 or len(parts) - len(ellipses) > 3:
        raise IndexError(f"too many indices for a stack of shape {shape}")
    at = ellipses[0] if ellipses else len(parts)
    missing = 3 - len(parts) + len(ellipses)
    parts[at : at + 1] = [slice(None)] * missing
    frames, rows, columns = parts
    window = _row_or_column(rows, shape[1]), _row_or_column(columns, shape[2])
    return _frame_numbers(frames, shape[0]), window


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
