"""Sums of frames: exact, in the smallest type that holds them, several frames at a time.

Adding 8-bit frames to a 32-bit sum moves far more memory than the frames take. They go into a
16-bit sum first, which 257 of them cannot overflow, and as many more as its largest value leaves
room for; and an array that is in memory already is
summed strip by strip, so that its sums stay in a cache.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "RunningSum",
    "smallest_sum_dtype",
    "sum_array",
    "sum_dtype",
    "sum_frames",
    "widened",
]

# Pixels of a strip: 1 MB of 16-bit sums.
_STRIP = 2**19
# Threads that add to one sum.
_SHARING = 3
# Frames that a 16-bit sum must have room for, to go on with it.
_FEWEST = 16

Frame = npt.NDArray[Any]


class RunningSum:
    """A sum that frames are added to one by one.

    Parameters
    ----------
    shape : tuple of int
        Of a frame (y, x).
    dtype : dtype
        Of the frames.
    n_frames : int
        Frames that will be added, at most.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, n_frames: int) -> None:
        self._shape = shape
        self._dtype = sum_dtype(dtype, n_frames)
        self._part_dtype, room = _part_of(np.dtype(dtype))
        self._part: Frame | None = None
        # No value of the part is farther from 0; a frame may add so much to it.
        self._farthest = 0
        self._limit, self._step = 0, 0
        if self._part_dtype is not None:
            self._limit = int(np.iinfo(self._part_dtype).max)
            self._step = self._limit // room
        self._total: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Add a frame (y, x)."""
        if self._part_dtype is None:
            if self._total is None:
                self._total = np.zeros(self._shape, self._dtype)
            with np.errstate(invalid="ignore"):  # inf and -inf have no sum: NaN says so
                np.add(self._total, frame, out=self._total, casting="unsafe")
            return
        if self._farthest + self._step > self._limit and not self._has_room(_FEWEST * self._step):
            self._empty_part()
        if self._part is None:
            self._part = np.zeros(self._shape, self._part_dtype)
        np.add(self._part, frame, out=self._part, casting="unsafe")
        self._farthest += self._step

    def merge(self, other: RunningSum) -> None:
        """Take over what was added to another sum of the same kind, which is then used up."""
        if self._part is None and other._part is not None:
            self._part, self._farthest = other._part, other._farthest
            other._part = None
        elif self._part is not None and other._part is not None:
            if self._has_room(other._farthest):
                self._part += other._part
                self._farthest += other._farthest
                other._part = None
            elif self._total is None:
                self._total = np.add(self._part, other._part, dtype=self._dtype)
                self._part, self._farthest = None, 0
                other._part = None
        for part in (other._part, other._total):
            if part is not None:
                self._grow(part)

    def total(self) -> Frame:
        """Return the sum, (y, x), which nothing can be added to after that.

        It is of `sum_dtype`, or, of 8-bit frames, of 16 bits where its values leave room.
        """
        if self._total is None and self._part is not None:
            part, self._part = self._part, None
            return part
        self._empty_part()
        if self._total is None:
            self._total = np.zeros(self._shape, self._dtype)
        return self._total

    def _has_room(self, more: int) -> bool:
        """Return whether so much can be added to any value of the part."""
        if self._part is not None and self._farthest + more > self._limit:
            self._farthest = max(int(self._part.max()), -int(self._part.min()))
        return self._farthest + more <= self._limit

    def _empty_part(self) -> None:
        if self._part is not None:
            self._grow(self._part)
        self._part, self._farthest = None, 0

    def _grow(self, part: Frame) -> None:
        if self._total is None:
            self._total = part.astype(self._dtype)
        else:
            self._total += part


def sum_frames(
    read: Callable[[int], Frame],
    shape: tuple[int, int, int],
    dtype: npt.DTypeLike,
    progress: Callable[[int, int], None] | None = None,
) -> Frame:
    """Sum frames, read in as many threads as there are processors; the same whatever the threads.

    Parameters
    ----------
    read : callable
        Returns frame i, (y, x), in whichever thread asks.
    shape : tuple of int
        Frames, rows, columns.
    dtype : dtype
        Of the frames.
    progress : callable, optional
        Called with (frames done, frames); what it raises ends the summing.

    Returns
    -------
    ndarray, shape (y, x)
        As `RunningSum.total` returns it.
    """
    n = shape[0]
    if np.dtype(dtype).kind in "fc":
        return _sum_in_order(read, shape, dtype, progress)
    threads = max(1, min(n, processors()))
    # Adding takes a quarter of the time of decoding: some threads share a sum, which saves memory.
    sums = [RunningSum(shape[1:], dtype, n) for _ in range(-(-threads // _SHARING))]
    free: SimpleQueue[RunningSum] = SimpleQueue()
    for running in sums:
        free.put(running)

    def add(index: int) -> None:
        frame = read(index)
        running = free.get()
        try:
            running.add(frame)
        finally:
            free.put(running)

    room = 2 * shape[1] * shape[2] * np.dtype(dtype).itemsize  # as it is stored, and read
    with in_order(add, range(n), threads, "napari-mrcz-sum", nbytes=room) as added:
        for done, _ in enumerate(added, 1):
            if progress is not None:
                progress(done, n)
    for other in sums[1:]:
        sums[0].merge(other)
    return sums[0].total()


def _sum_in_order(
    read: Callable[[int], Frame],
    shape: tuple[int, int, int],
    dtype: npt.DTypeLike,
    progress: Callable[[int, int], None] | None,
) -> Frame:
    """Read in threads, add in order: floating sums would else depend on how threads take turns."""
    running = RunningSum(shape[1:], dtype, shape[0])
    threads, room = processors(), 2 * shape[1] * shape[2] * np.dtype(dtype).itemsize
    with in_order(read, range(shape[0]), threads, "napari-mrcz-sum", nbytes=room) as frames:
        for done, frame in enumerate(frames, 1):
            running.add(frame)
            if progress is not None:
                progress(done, shape[0])
    return running.total()


def sum_array(frames: Frame) -> Frame:
    """Sum an array of frames along its first axis.

    Parameters
    ----------
    frames : ndarray, shape (n, y, x)
        In memory, or mapped to it.

    Returns
    -------
    ndarray, shape (y, x)
        Of `smallest_sum_dtype`. Floating frames are added in their order.
    """
    n, y, x = frames.shape
    part_dtype, room = _part_of(frames.dtype)
    total = np.zeros((y, x), smallest_sum_dtype(frames.dtype, n))
    room = room or max(n, 1)
    height = max(1, _STRIP // max(x, 1))

    def work(top: int) -> None:
        rows = np.s_[top : top + height]
        for first in range(0, n, room):
            part = frames[first : first + room, rows]
            total[rows] += np.add.reduce(part, axis=0, dtype=part_dtype or total.dtype)

    with in_order(work, range(0, y, height), processors(), "napari-mrcz-sum") as strips:
        for _ in strips:
            pass
    return total


def widened(total: Frame, dtype: npt.DTypeLike) -> Frame:
    """Return a sum in wider integers, which take over its memory: there are never two of it.

    Parameters
    ----------
    total : ndarray of integers, shape (y, x)
        As `sum_frames` returns it; nobody else has it, and it is used up.
    dtype : dtype-like
        Integers that are as wide, or wider.

    Returns
    -------
    ndarray, shape (y, x)
    """
    dtype = np.dtype(dtype)
    if dtype == total.dtype:
        return total
    size, shape, factor = total.size, total.shape, dtype.itemsize // total.itemsize
    total.resize((factor * size,), refcheck=False)
    wide, narrow = total.view(dtype), total[:size]
    # From the end, so that nothing is overwritten before it was read.
    for stop in range(size, 0, -_STRIP):
        piece = np.s_[max(0, stop - _STRIP) : stop]
        wide[piece] = narrow[piece].astype(dtype)
    return wide.reshape(shape)


def sum_dtype(dtype: npt.DTypeLike, n_frames: int) -> np.dtype[Any]:
    """Return the type that holds the sum of so many frames without overflow.

    int32 or int64 for integers (uint64 for its own kind), float64 or complex128 else.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    if dtype.kind == "f":
        return np.dtype(np.float64)
    if dtype == np.uint64:
        return dtype
    largest = 1 if dtype.kind == "b" else max(abs(np.iinfo(dtype).min), np.iinfo(dtype).max)
    return np.dtype(np.int32 if largest * n_frames < 2**31 else np.int64)


def smallest_sum_dtype(dtype: npt.DTypeLike, n_frames: int) -> np.dtype[Any]:
    """Return `sum_dtype`, or one of 16 bits where that is enough for so many 8-bit frames."""
    part, room = _part_of(np.dtype(dtype))
    return part if part is not None and n_frames <= room else sum_dtype(dtype, n_frames)


def _part_of(dtype: np.dtype[Any]) -> tuple[np.dtype[Any] | None, int]:
    """Return the type of the small sum and how many frames it holds."""
    if dtype.kind == "b" or dtype == np.uint8:
        return np.dtype(np.uint16), 257
    if dtype == np.int8:
        return np.dtype(np.int16), 255
    return None, 0
