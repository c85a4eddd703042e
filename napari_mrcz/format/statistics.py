"""Minimum, maximum, mean and standard deviation of a stack, gathered frame by frame."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# Pixels that are looked at together: few enough for the processor's caches, and enough that threads
# do not queue for the interpreter between numpy's calls.
_PIECE = 2**19
_COLUMNS = 4096
# Small integers are added up in 16 bits, so many at a time as their squares leave room for.
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
    found = Statistics()
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, flat.size, _PIECE):
            found += _of_piece(flat[start : start + _PIECE])
    return found


def _of_piece(pixels: npt.NDArray[Any]) -> Statistics:
    low, high = _range(pixels)
    # Differences from a typical value: squares of large numbers would lose the small ones.
    typical, rows = float(pixels[pixels.size // 2]), 0
    if pixels.dtype.kind in "iu" and pixels.itemsize <= 2:
        rows = _LARGEST_SUM // max(1, int(low) ** 2, int(high) ** 2)
    if rows >= _FEWEST_ROWS or pixels.itemsize == 1 or not math.isfinite(typical):
        typical = 0.0
    if rows >= _FEWEST_ROWS:
        total, squares = _sums_of_small(pixels, rows)
    else:
        total, squares = _sums(pixels, typical)
    mean = total / pixels.size
    around_mean = max(0.0, squares - total * mean) if math.isfinite(squares) else math.inf
    return Statistics(pixels.size, float(low), float(high), mean + typical, around_mean)


def _range(pixels: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Return minimum and maximum."""
    if pixels.dtype == np.int8 and not pixels[:_COLUMNS].all():
        high = pixels.view(np.uint8).max()
        if high <= np.iinfo(np.int8).max:  # none is below 0, and 0 is there: counts
            return 0, high
    return pixels.min(), pixels.max()


def _sums_of_small(pixels: npt.NDArray[Any], rows: int) -> tuple[float, float]:
    """Return the sums of integers and of their squares, of which `rows` are added up in 16 bits."""
    rows = min(rows, 256, pixels.size)
    even = pixels.size // rows * rows
    total, squares = _sums(pixels[even:], 0.0) if even < pixels.size else (0.0, 0.0)
    values = pixels[:even]
    if pixels.itemsize == 1:
        values = _of_this_thread.room.view(np.int16)[:even]
        np.copyto(values, pixels[:even])
    table = values.view(np.int16).reshape(rows, -1)
    total += float(np.add.reduce(table, axis=0, dtype=np.int16).sum(dtype=np.int64))
    squares += float(np.einsum("ij,ij->j", table, table).sum(dtype=np.int64))
    return total, squares


def _sums(pixels: npt.NDArray[Any], typical: float) -> tuple[float, float]:
    """Return the sums of differences from a typical value, and of their squares."""
    room = _of_this_thread.room.view(np.float32 if pixels.itemsize <= 2 else np.float64)
    ones = np.ones((_COLUMNS, 1), room.dtype)
    total = squares = 0.0
    for start in range(0, pixels.size, room.size):
        piece = pixels[start : start + room.size]
        values = room[: -(-piece.size // _COLUMNS) * _COLUMNS]
        np.copyto(values[: piece.size], piece)
        if typical:
            np.subtract(values, typical, out=values)
        values[piece.size :] = 0
        # Many short products: BLAS would cut a long one among threads of its own, which wait for
        # those that are here already, and add up in another order each time.
        table = values.reshape(-1, 1, _COLUMNS)
        total += float(np.matmul(table, ones).sum(dtype=np.float64))
        squares += float(np.matmul(table, table.swapaxes(1, 2)).sum(dtype=np.float64))
    return total, squares


class _OfThisThread(threading.local):
    """Room to work in, kept: memory from the system is slow when it is used for the first time."""

    def __init__(self) -> None:
        self.room = np.empty(2 * _PIECE, np.uint8)


_of_this_thread = _OfThisThread()
