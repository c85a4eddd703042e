"""Minimum, maximum, mean and standard deviation of a stack, gathered frame by frame."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

# Pieces that stay in the processor's caches while sums are made of them, and long enough that
# threads do not queue for the interpreter between them.
_PIECE = 2**19
_COLUMNS = 4096
_BUFFER_NBYTES = 2**19
# Counts whose squares fit into a byte; as many of them as are added up at a time.
_LARGEST_SMALL = 15
_EVEN = 2**13


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


def statistics_of(frame: npt.NDArray[Any]) -> Statistics | None:
    """Return the statistics of one frame, or None of a complex one, which has no minimum."""
    if frame.dtype.kind == "c":
        return None
    flat = frame.reshape(-1)
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
            of_bytes = piece.itemsize == 1
            high = piece.view(np.uint8).max() if of_bytes else piece.max()
            if of_bytes and high <= _LARGEST_SMALL:  # and none is below 0
                lows.append(0 if not piece[:_COLUMNS].all() else piece.min())
                even = piece.size // _EVEN * _EVEN
                sums = _sums_of_small(piece[:even].view(np.uint8), int(high))
                piece = piece[even:]
                total, squares = total + sums[0], squares + sums[1]
            else:
                lows.append(piece.min())
                high = piece.max() if of_bytes and lows[-1] < 0 else high
            highs.append(high)
            if piece.size:
                sums = _sums(piece, typical)
                total, squares = total + sums[0], squares + sums[1]
    mean = total / flat.size
    around_mean = max(0.0, squares - total * mean) if math.isfinite(squares) else math.inf
    low, high = float(np.min(lows)), float(np.max(highs))
    return Statistics(flat.size, low, high, mean + typical, around_mean)


def _sums_of_small(pixels: npt.NDArray[np.uint8], high: int) -> tuple[float, float]:
    """Return the sum of counts, and of their squares, which are bytes as well.

    Sums of bytes are made of bytes, and of pairs of them: two to four times as fast as of floats.
    """
    if not pixels.size:
        return 0.0, 0.0
    squares = _of_this_thread.squares[: pixels.size]
    np.multiply(pixels, pixels, out=squares)
    return _sum_of_bytes(pixels, high), _sum_of_bytes(squares, high**2)


def _sum_of_bytes(values: npt.NDArray[np.uint8], high: int) -> float:
    """Add up bytes of which none is above `high`; their number is a multiple of `_EVEN`."""
    if 4 * high <= 255:
        rows = 16 if 16 * high <= 255 else 4
        values = np.add.reduce(values.reshape(rows, -1), axis=0, dtype=np.uint8)
    elif 2 * high <= 255:
        half = values.size // 2
        values = np.add(values[:half], values[half:], out=_of_this_thread.halves[:half])
    pairs = values.view(np.uint16).reshape(256, -1)
    of_both = np.add.reduce(pairs, axis=0, dtype=np.uint16)
    second = _of_this_thread.pairs[: pairs.size].reshape(pairs.shape)
    np.right_shift(pairs, 8, out=second)
    of_second = np.add.reduce(second, axis=0, dtype=np.uint16)
    # Modulo 2**16, below which the sum of 256 bytes is.
    of_first = of_both - (of_second << np.uint16(8))
    return float(of_first.sum() + of_second.sum())


def _sums(pixels: npt.NDArray[Any], typical: float) -> tuple[float, float]:
    """Return the sums of differences from a typical value, and of their squares."""
    buffer, ones, sums = _of_this_thread.floats(pixels.itemsize)
    total = squares = 0.0
    for start in range(0, pixels.size, buffer.size):
        piece = pixels[start : start + buffer.size]
        rows = -(-piece.size // _COLUMNS)
        used, of_rows = buffer[:rows], sums[:rows]
        values = used.reshape(-1)
        np.copyto(values[: piece.size], piece)
        if typical:
            np.subtract(used, typical, out=used)
        values[piece.size :] = 0
        # Many short products: BLAS would cut a long one among threads of its own, which wait for
        # those that are here already, and add up in another order each time.
        np.matmul(used[:, np.newaxis], ones, out=of_rows)
        total += float(of_rows.sum(dtype=np.float64))
        np.matmul(used[:, np.newaxis], used[:, :, np.newaxis], out=of_rows)
        squares += float(of_rows.sum(dtype=np.float64))
    return total, squares


class _OfThisThread(threading.local):
    """Room to work in, kept: memory from the system is slow when it is used for the first time."""

    def __init__(self) -> None:
        self._floats: dict[int, tuple[npt.NDArray[Any], ...]] = {}

    @cached_property
    def squares(self) -> npt.NDArray[np.uint8]:
        """Squares of the small counts of a piece."""
        return np.empty(_PIECE, np.uint8)

    @cached_property
    def halves(self) -> npt.NDArray[np.uint8]:
        """Sums of two of them each."""
        return np.empty(_PIECE // 2, np.uint8)

    @cached_property
    def pairs(self) -> npt.NDArray[np.uint16]:
        """The second byte of each pair."""
        return np.empty(_PIECE // 2, np.uint16)

    def floats(self, itemsize: int) -> tuple[npt.NDArray[Any], ...]:
        """Return a buffer, ones to multiply it by, and room for a sum of each row."""
        if itemsize not in self._floats:
            dtype = np.dtype(np.float32 if itemsize <= 2 else np.float64)
            rows = _BUFFER_NBYTES // _COLUMNS // dtype.itemsize
            self._floats[itemsize] = (
                np.empty((rows, _COLUMNS), dtype),
                np.ones((_COLUMNS, 1), dtype),
                np.empty((rows, 1, 1), dtype),
            )
        return self._floats[itemsize]


_of_this_thread = _OfThisThread()
