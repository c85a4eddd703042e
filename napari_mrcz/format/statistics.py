"""Minimum, maximum, mean and standard deviation of a stack, gathered frame by frame."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Pixels that are added up at a time: few enough for the processor's caches, and enough that threads
# do not queue for the interpreter between numpy's calls.
_PIECE = 2**20
_COLUMNS = 4096
# Bytes are added up as 16-bit numbers, so many at a time as their squares leave room for.
_LARGEST_SUM = 2**15 - 1
_FEWEST_ROWS = 8


@dataclass(frozen=True)
class Statistics:
    """Moments of some pixels; add two to get those of both together.

    Attributes
    ----------
    count : int
        Pixels.
    low, high, mean : float
        Minimum, maximum, mean.
    squares : float
        Sum of the squared differences from the mean.
    """

    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Statistics) -> Statistics:
        """Combine by Chan, Golub and LeVeque (1979), which loses no digits."""
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        return Statistics(
            count,
            min(self.low, other.low),
            max(self.high, other.high),
            self.mean + apart * other.count / count,
            self.squares + other.squares + apart**2 * self.count * other.count / count,
        )

    def for_header(self) -> tuple[float, float, float, float] | None:
        """Return minimum, maximum, mean, standard deviation; None where they are not finite."""
        if not self.count:
            return None
        values = self.low, self.high, self.mean, math.sqrt(self.squares / self.count)
        largest = float(np.finfo(np.float32).max)
        return values if all(abs(v) <= largest for v in values) else None


def statistics_of(pixels: npt.NDArray[Any]) -> Statistics | None:
    """Return the statistics of a frame, or None if it is complex and so has no minimum."""
    if pixels.dtype.kind == "c":
        return None
    flat = pixels.reshape(-1)
    if not flat.size:
        return Statistics()
    # Differences from a typical value: squares of large numbers would lose the small ones.
    typical = float(flat[flat.size // 2]) if flat.itemsize > 1 else 0.0
    if not math.isfinite(typical):
        typical = 0.0
    lows, highs, total, squares = [], [], 0.0, 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            low, high = _range(piece)
            lows.append(low)
            highs.append(high)
            rows = 0
            if piece.dtype.kind in "iu" and piece.itemsize == 1:
                rows = _LARGEST_SUM // max(1, int(low) ** 2, int(high) ** 2)
            sums = _sums_of_bytes(piece, rows) if rows >= _FEWEST_ROWS else _sums(piece, typical)
            total, squares = total + sums[0], squares + sums[1]
    mean = total / flat.size
    around_mean = max(0.0, squares - total * mean) if math.isfinite(squares) else math.inf
    least, most = float(np.min(lows)), float(np.max(highs))
    return Statistics(flat.size, least, most, mean + typical, around_mean)


def _range(pixels: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Return minimum and maximum."""
    if pixels.dtype == np.int8 and not pixels[:_COLUMNS].all():
        high = pixels.view(np.uint8).max()
        if high <= np.iinfo(np.int8).max:  # none is below 0, and 0 is there: counts
            return 0, high
    return pixels.min(), pixels.max()


def _sums_of_bytes(pixels: npt.NDArray[Any], rows: int) -> tuple[float, float]:
    """Return the sums of bytes and of their squares, of which `rows` are added up in 16 bits."""
    rows = min(rows, 256, pixels.size)
    even = pixels.size // rows * rows
    total, squares = _sums(pixels[even:], 0.0) if even < pixels.size else (0.0, 0.0)
    values = _of_this_thread.room(np.int16)[:even]
    np.copyto(values, pixels[:even])
    table = values.reshape(rows, -1)
    total += float(np.add.reduce(table, axis=0, dtype=np.int16).sum(dtype=np.int64))
    squares += float(np.einsum("ij,ij->j", table, table).sum(dtype=np.int64))
    return total, squares


def _sums(pixels: npt.NDArray[Any], typical: float) -> tuple[float, float]:
    """Return the sums of differences from a typical value, and of their squares."""
    rows = -(-pixels.size // _COLUMNS)
    values = _of_this_thread.room(np.float32 if pixels.itemsize <= 2 else np.float64)
    values = values[: rows * _COLUMNS]
    np.copyto(values[: pixels.size], pixels)
    if typical:
        np.subtract(values, typical, out=values)
    values[pixels.size :] = 0
    table = values.reshape(rows, 1, _COLUMNS)
    # Many short products: BLAS would cut a long one among threads of its own, which wait for those
    # that are here already, and add up in another order each time.
    total = np.matmul(table, np.ones((_COLUMNS, 1), values.dtype)).sum(dtype=np.float64)
    squares = np.matmul(table, table.swapaxes(1, 2)).sum(dtype=np.float64)
    return float(total), float(squares)


class _OfThisThread(threading.local):
    """Room to work in, kept: memory from the system is slow when it is used for the first time."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def room(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return room for a piece."""
        nbytes = _PIECE * np.dtype(dtype).itemsize
        if self._bytes.size < nbytes:
            self._bytes = np.empty(nbytes, np.uint8)
        return self._bytes[:nbytes].view(dtype)


_of_this_thread = _OfThisThread()
