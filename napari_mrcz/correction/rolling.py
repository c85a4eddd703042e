"""The mean of the stacks around each stack of a session, in a few additions from one to the next.

Also structure that such an average shows at the same place in all images, coarse or fine.
"""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Image: TypeAlias = npt.NDArray[np.float64]

NO_NEIGHBOURS = (
    "KOMA subtracts the mean of other stacks of the session, and there is none: "
    "one stack alone cannot be normalised so; use a gain reference"
)

# Bits that a sum keeps below its average pixel: two more than float32 has. Those above are for hot
# pixels, times the stacks of a window: a hundred million average pixels in all.
_FRACTION_BITS = 26
# Pixels that are rounded at a time, so that they stay in the processor's cache.
_STRIP = 2**17


class _Grid(NamedTuple):
    """Rounding of the pixels of a stack's sum."""

    n_frames: int  # Frames of the stack
    step: float  # A power of two, or 0 where pixels are whole numbers, or too small for one
    is_finite: bool  # Whether all pixels are numbers


class RollingAverage:
    """The mean frame of the neighbours of each stack, from a running total.

    All frames count alike, so that stacks of more frames, or of a higher dose, count for more.

    From one stack to the next costs one addition and two subtractions, whatever the radius; one
    image is held. Any order is allowed: a jump sums anew. The window holds 2 x radius stacks where
    there are so many: it shifts at the ends, and skips stacks left out.

    Sums that are not of whole numbers are rounded to a power of two, some 1e-8 of their average
    pixel, so that their total is exact: an average is the same to the last bit, whichever windows
    came before.

    `sum_of`: returns the sum of the frames (y, x) of the stack with a given index, and their
    number. It may lie in a file: it is read a few rows at a time; `members`: indices of the stacks
    that may be averaged, ascending; `radius`: stacks to either side, at least 1, else `ValueError`.
    """

    def __init__(
        self,
        sum_of: Callable[[int], tuple[npt.NDArray[Any], int]],
        members: Sequence[int],
        radius: int,
    ) -> None:
        if radius < 1:
            raise ValueError(f"a radius is at least 1 stack, not {radius}")
        self._sum_of = sum_of
        self._members = tuple(members)
        self._radius = radius
        self._window = range(0)
        self._total: Image | None = None
        self._grids: dict[int, _Grid] = {}

    def neighbours(self, index: int) -> list[int]:
        """Return the stacks whose mean is subtracted from stack `index`; it is not among them."""
        return neighbours_of(index, self._members, self._radius)

    def at(self, index: int) -> Image:
        """Return the average for stack `index`, (y, x); `ValueError` if there is no other stack."""
        near = self.neighbours(index)
        if not near:
            raise ValueError(NO_NEIGHBOURS)
        window = _window_of(index, self._members, self._radius)
        average = self._roll_to(window).copy()
        if len(window) > len(near) and not self._shift(average, index, np.subtract):
            average = self._anew(near)
        average /= sum(self._grids[i].n_frames for i in near)
        return average

    def _roll_to(self, window: range) -> Image:
        leaving = [self._members[p] for p in self._window if p not in window]
        entering = [self._members[p] for p in window if p not in self._window]
        # None meanwhile: an error while a stack is read must not leave half a step behind.
        total, self._total = self._total, None
        is_near = len(leaving) + len(entering) < len(window)
        # Only a new sum gets rid of a NaN.
        if (
            total is not None
            and is_near
            and all(self._shift(total, index, np.subtract) for index in leaving)
        ):
            for index in entering:
                self._shift(total, index, np.add)
        else:
            total = self._anew([self._members[p] for p in window])
        self._total, self._window = total, window
        return total

    def _anew(self, indices: Sequence[int]) -> Image:
        total = np.zeros(self._sum_of(indices[0])[0].shape)
        for index in indices:
            self._shift(total, index, np.add)
        return total

    def _shift(self, total: Image, index: int, operation: np.ufunc) -> bool:
        """Add or subtract a stack's rounded sum in place; return whether all pixels are numbers.

        If not, nothing is subtracted.
        """
        image, n_frames = self._sum_of(index)
        grid = self._grids.get(index)
        if grid is None:
            grid = self._grids[index] = _grid_of(image, n_frames)
        if operation is np.subtract and not grid.is_finite:
            return False
        for rows in strips(image):
            strip = image[rows].astype(np.float64)
            if grid.step > 0:
                strip /= grid.step
                np.rint(strip, out=strip)
                strip *= grid.step
            with np.errstate(invalid="ignore"):  # inf and -inf have no sum: NaN says so
                operation(total[rows], strip, out=total[rows])
        return grid.is_finite


def neighbours_of(index: int, members: Sequence[int], radius: int) -> list[int]:
    """Return those of the ascending `members` around stack `index`, without itself.

    There are `radius` stacks to either side; at the ends the window shifts.
    """
    window = _window_of(index, members, radius)
    return [members[p] for p in window if members[p] != index]


def _window_of(index: int, members: Sequence[int], radius: int) -> range:
    """Return the positions among the members that are summed, `index` included if it is one."""
    position = bisect.bisect_left(members, index)
    is_member = position < len(members) and members[position] == index
    size = min(2 * radius + is_member, len(members))
    start = min(max(position - radius, 0), len(members) - size)
    return range(start, start + size)


def _grid_of(image: npt.NDArray[Any], n_frames: int) -> _Grid:
    """Find what a sum is rounded to: a power of two, some 1e-8 of its average pixel."""
    if image.dtype.kind in "bui":
        return _Grid(n_frames, 0.0, is_finite=True)
    level, is_finite = 0.0, True
    for rows in strips(image):
        size = np.abs(image[rows].astype(np.float64))
        finite = np.isfinite(size)
        is_finite &= bool(finite.all())
        level += float(size.sum(where=finite))
    level /= image.size
    return _Grid(n_frames, float(np.ldexp(1.0, np.frexp(level)[1] - _FRACTION_BITS)), is_finite)


def strips(image: npt.NDArray[Any], size: int = _STRIP) -> Iterator[slice]:
    """Return slices of rows of an image, of some `size` pixels, that stay in a cache."""
    height = max(1, size // image.shape[1])
    return (np.s_[top : top + height] for top in range(0, len(image), height))


# Steps between cells of an average: their least height, as a fraction of the mean and in robust
# standard deviations (of pattern and noise alone few are beyond 5), and the part of the image's
# side over which they extend.
_LEAST_STEP, _BEYOND, _REACH = 0.05, 6.0, 0.7
_FEWEST = 4
_CELLS, _CELLS_ACROSS = (8, 32), 16
# Pixels of a sample that shows the range of all, and the percentiles of that range.
_SAMPLE, _RANGE = 2**16, (0.5, 50, 99.5)
# Robust standard deviations beyond which a mean is part of an edge; least share of finite pixels in
# a window that has a mean.
_FAR_OUT, _LEAST_SHARE = 5.0, 1e-4


def finer_than(image: Image, length: int) -> Image:
    """Return an image (y, x) without structure coarser than `length` pixels, plus its mean.

    Coarse is the mean over about `length` pixels: two passes of a square window, together of the
    same standard deviation as one of `length` pixels. Beside a sharp edge that leaves a fringe;
    where the mean over a quarter of the length stands far out, it counts as coarse, too. Pixels
    that are far from all others (hot, dead) are limited first, so that they leave no squares
    around them. Pixels that are not numbers stay so.
    """
    finite = np.isfinite(image)
    if not finite.any():
        return image
    step = max(1, math.isqrt(image.size // _SAMPLE))
    sample = image[::step, ::step]
    low, middle, high = np.nanpercentile(np.where(np.isfinite(sample), sample, np.nan), _RANGE)
    limited = np.clip(image, 2 * low - middle, 2 * high - middle).astype(np.float32)
    coarse = _blurred(limited, finite, length)
    fringes = _blurred(limited - coarse, finite, length / 4)
    heights = np.abs(fringes)
    usual = 1.4826 * float(np.median(heights[::step, ::step]))
    coarse += np.where(heights > _FAR_OUT * usual, fringes, 0)
    fine: Image = image - coarse
    fine += float(image.mean(where=finite)) - float(fine.mean(where=finite))
    return fine


def repeated_step(average: Image) -> float:
    """Find structure at the same place in many images by sharp, long steps in their average (y, x).

    Steps between cells of 8 or of 32 pixels: a hole's edge, a beam stop. The camera's own
    sensitivity is smooth, or fine. The result is the typical height of the steps, as a fraction of
    the mean; 0 where there are none.
    """
    if min(average.shape) < _CELLS_ACROSS:
        return 0.0
    found = 0.0
    smallest, *others = sorted(
        {min(c, max(2, min(average.shape) // _CELLS_ACROSS)) for c in _CELLS}
    )
    means = _binned(average, smallest)
    for factor in (1, *(side // smallest for side in others)):
        cells = _binned(means, factor)
        if min(cells.shape) < _CELLS_ACROSS // 2:
            break
        finite = np.isfinite(cells)
        middle = float(np.median(cells[finite])) if finite.any() else 0.0
        if not middle > 0:
            break
        # The median of 3 x 3 cells: single bad pixels make no step.
        cells = scipy.ndimage.median_filter(np.where(finite, cells, middle) / middle, 3)
        down, across = cells[2:] - cells[:-2], cells[:, 2:] - cells[:, :-2]
        steps = np.abs(np.concatenate([down.ravel(), across.ravel()]))
        usual = 1.4826 * float(np.median(steps))
        high = steps[steps > max(_LEAST_STEP, _BEYOND * usual)]
        if high.size >= max(_FEWEST, _REACH * min(cells.shape)):
            found = max(found, float(np.median(high)))
    return found


def _blurred(
    image: npt.NDArray[np.float32], finite: npt.NDArray[np.bool_], length: float
) -> npt.NDArray[np.float32]:
    """Return the means of the finite pixels over about a length; 0 where there are none."""
    size = max(1, round(length / math.sqrt(2))) | 1
    if finite.all():
        return _twice(image, size)
    shares = _twice(finite.astype(np.float32), size)
    means = _twice(np.where(finite, image, np.float32(0)), size)
    return np.divide(means, shares, out=np.zeros_like(means), where=shares > _LEAST_SHARE)


def _twice(image: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Return the means over a square window, twice."""
    for _ in range(2):
        for _ in range(2):
            image = scipy.ndimage.uniform_filter1d(image, size, axis=1)
        image = np.ascontiguousarray(image.T)  # along rows it is several times faster
    return image


def _binned(image: Image, size: int) -> Image:
    """Return the means of cells of `size` pixels, without incomplete ones at the ends."""
    ny, nx = image.shape[0] // size, image.shape[1] // size
    rows = image[: ny * size].reshape(ny, size, -1).sum(axis=1)
    means: Image = rows[:, : nx * size].reshape(ny, nx, size).sum(axis=2)
    return means / size**2
