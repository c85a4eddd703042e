"""Minimum, maximum, mean and standard deviation of a stack, gathered frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Statistics", "statistics_of"]

# Pieces that stay in the processor's caches while sums are made of them, and long enough that
# threads do not queue for the interpreter between them.
_ROWS, _COLUMNS = 128, 4096


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
        """Give minimum, maximum, mean, standard deviation; None where they are not finite."""
        if not self.count:
            return None
        values = self.low, self.high, self.mean, math.sqrt(self.squares / self.count)
        largest = float(np.finfo(np.float32).max)
        return values if all(abs(v) <= largest for v in values) else None


def statistics_of(frame: npt.NDArray[Any]) -> Statistics | None:
    """Return the statistics of one frame, or None of a complex one, which has no minimum."""
    if frame.dtype.kind == "c":
        return None
    flat = frame.reshape(-1)
    if not flat.size:
        return Statistics()
    working = np.float32 if flat.dtype.itemsize <= 2 else np.float64
    rows = min(_ROWS, -(-flat.size // _COLUMNS))
    buffer: npt.NDArray[Any] = np.empty((rows, _COLUMNS), working)
    values, ones = buffer.reshape(-1), np.ones((_COLUMNS, 1), working)
    n_pieces = -(-flat.size // buffer.size)
    sums, squares = (np.empty((n_pieces, rows, 1, 1), working) for _ in range(2))
    lows, highs = (np.empty(n_pieces, flat.dtype) for _ in range(2))
    # Differences from a typical value: squares of large numbers would lose the small ones.
    typical = float(flat[flat.size // 2])
    if flat.dtype.itemsize == 1 or not math.isfinite(typical):
        typical = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for index in range(n_pieces):
            piece = flat[index * buffer.size : (index + 1) * buffer.size]
            np.copyto(values[: piece.size], piece)
            lows[index], highs[index] = piece.min(), piece.max()
            if typical:
                np.subtract(values, typical, out=values)
            values[piece.size :] = 0
            # Many short products: BLAS would cut a long one among threads of its own, which wait
            # for those that are here already, and add up in another order each time.
            np.matmul(buffer[:, np.newaxis], ones, out=sums[index])
            np.matmul(buffer[:, np.newaxis], buffer[:, :, np.newaxis], out=squares[index])
        total, total_squares = (float(x.sum(dtype=np.float64)) for x in (sums, squares))
        low, high = float(lows.min()), float(highs.max())
    mean = total / flat.size
    around_mean = math.inf
    if math.isfinite(total_squares):
        around_mean = max(0.0, total_squares - total * mean)
    return Statistics(flat.size, low, high, mean + typical, around_mean)
