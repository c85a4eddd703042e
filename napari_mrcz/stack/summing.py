"""The sum of a stack's frames, several at a time."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_mrcz.stack.sources import FrameSource

__all__ = ["sum_frames"]


def sum_frames(
    source: FrameSource, progress: Callable[[int, int], None] | None
) -> npt.NDArray[Any]:
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
