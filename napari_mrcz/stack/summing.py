"""Sums of frames that are read, and decoded, in several threads."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.sums import RunningSum
from napari_mrcz.format.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable

# Threads that add to one sum.
_SHARING = 3

Frame = npt.NDArray[Any]


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
