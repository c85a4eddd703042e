"""The mean of the stacks around each stack of a session, from one to the next in few additions."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["NO_NEIGHBOURS", "RollingAverage"]

NO_NEIGHBOURS = (
    "KOMA subtracts the mean of other stacks of the session, and there is none: "
    "one stack alone cannot be normalised so; use a gain reference"
)
"""What is said where there is no other stack to average."""

# Bits that a mean frame keeps below its average pixel: two more than float32 has. Those above are
# for hot pixels, times the stacks of a window: a hundred million average pixels in all.
_FRACTION_BITS = 26


class RollingAverage:
    """The average of the neighbours of each stack, from a running total.

    From one stack to the next costs two additions and two subtractions, whatever the radius; one
    image is held. Any order is allowed: a jump sums anew. The window always holds 2 x radius
    stacks where there are so many: it shifts at the ends, and goes round stacks left out.

    Means are rounded to a power of two, some 1e-8 of their average pixel, so that sums of them are
    exact: an average is the same to the last bit, whichever windows came before.

    Parameters
    ----------
    mean_of : callable
        Gives the mean frame (y, x) of the stack with a given index.
    members : sequence of int
        Indices of the stacks that may be averaged, ascending.
    radius : int
        Stacks to either side, at least 1.

    Raises
    ------
    ValueError
        If the radius is less than 1.
    """

    def __init__(
        self, mean_of: Callable[[int], npt.NDArray[Any]], members: Sequence[int], radius: int
    ) -> None:
        if radius < 1:
            raise ValueError(f"a radius is at least 1 stack, not {radius}")
        self._mean_of = mean_of
        self._members = tuple(members)
        self._radius = radius
        self._window = range(0)
        self._total: npt.NDArray[np.float64] | None = None

    def neighbours(self, index: int) -> list[int]:
        """Give the stacks whose mean is subtracted from stack `index`, which is not among them."""
        return [self._members[p] for p in self._window_of(index) if self._members[p] != index]

    def at(self, index: int) -> npt.NDArray[np.float64]:
        """Give the average for stack `index`, (y, x).

        Raises
        ------
        ValueError
            If there is no other stack to average.
        """
        count = len(self.neighbours(index))
        if not count:
            raise ValueError(NO_NEIGHBOURS)
        window = self._window_of(index)
        total = self._roll_to(window)
        if len(window) > count:
            own = self._rounded(index)
            is_number = np.isfinite(own).all()
            total = total - own if is_number else self._sum_of(self.neighbours(index))
        average: npt.NDArray[np.float64] = total / count
        return average

    def _window_of(self, index: int) -> range:
        """Give the positions among the members that are summed, `index` included if it is one."""
        position = bisect.bisect_left(self._members, index)
        is_member = position < len(self._members) and self._members[position] == index
        size = min(2 * self._radius + is_member, len(self._members))
        start = min(max(position - self._radius, 0), len(self._members) - size)
        return range(start, start + size)

    def _roll_to(self, window: range) -> npt.NDArray[np.float64]:
        leaving = [self._members[p] for p in self._window if p not in window]
        entering = [self._members[p] for p in window if p not in self._window]
        # Let go meanwhile: what is raised while a stack is read must not leave half a step behind.
        total, self._total = self._total, None
        if total is not None:
            is_near = len(leaving) + len(entering) < len(window)
            total = self._stepped(total, leaving, entering) if is_near else None
        if total is None:
            total = self._sum_of([self._members[p] for p in window])
        self._total, self._window = total, window
        return total

    def _stepped(
        self, total: npt.NDArray[np.float64], leaving: Sequence[int], entering: Sequence[int]
    ) -> npt.NDArray[np.float64] | None:
        """Give the total one step further; None where only a new sum gets rid of a NaN."""
        for index in leaving:
            mean = self._rounded(index)
            if not np.isfinite(mean).all():
                return None
            total -= mean
        for index in entering:
            total += self._rounded(index)
        return total

    def _sum_of(self, indices: Sequence[int]) -> npt.NDArray[np.float64]:
        total = self._rounded(indices[0])
        for index in indices[1:]:
            total += self._rounded(index)
        return total

    def _rounded(self, index: int) -> npt.NDArray[np.float64]:
        """Give a stack's mean frame as multiples of a power of two, in an array of its own."""
        mean = np.array(self._mean_of(index), np.float64)
        level = np.abs(mean).mean()
        if not np.isfinite(level):
            level = np.abs(mean[np.isfinite(mean)]).sum() / mean.size
        step = np.ldexp(1.0, np.frexp(level)[1] - _FRACTION_BITS)
        if step > 0:
            mean /= step
            np.rint(mean, out=mean)
            mean *= step
        return mean
