"""What an average of many images shows at the same place in all of them, coarse or fine."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.float64]

# Steps between cells of an average: how large they are, in parts of the mean and in robust standard
# deviations, and over what part of the image's side they reach. Of pattern and noise alone few are
# beyond 5 deviations.
_LEAST_STEP, _BEYOND, _REACH = 0.05, 6.0, 0.7
_FEWEST = 4
_CELLS, _CELLS_ACROSS = (8, 32), 16
# Pixels that tell the range of all, and the percentiles that do.
_SAMPLE, _RANGE = 2**16, (0.5, 50, 99.5)
# Robust standard deviations beyond which a mean is part of an edge; share of a window's pixels that
# tell its mean.
_FAR_OUT, _LEAST_SHARE = 5.0, 1e-4


def finer_than(image: Image, length: int) -> Image:
    """Return an image less what is coarser than a length, plus its mean.

    What is coarser is the mean over about `length` pixels: two passes of a square window each, of
    the same standard deviation as one of `length` pixels. Beside a sharp edge that leaves a fringe;
    where the mean over a quarter of the length stands far out, it counts as coarse, too. Pixels
    that are far from all others (hot, dead) are limited first, so that they leave no squares
    around them.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        An average; pixels that are not numbers stay so.
    length : int
        In pixels.

    Returns
    -------
    ndarray of float64, shape (y, x)
    """
    told = np.isfinite(image)
    if not told.any():
        return image
    step = max(1, math.isqrt(image.size // _SAMPLE))
    sample = image[::step, ::step]
    low, middle, high = np.nanpercentile(np.where(np.isfinite(sample), sample, np.nan), _RANGE)
    limited = np.clip(image, 2 * low - middle, 2 * high - middle).astype(np.float32)
    coarse = _blurred(limited, told, length)
    fringes = _blurred(limited - coarse, told, length / 4)
    heights = np.abs(fringes)
    usual = 1.4826 * float(np.median(heights[::step, ::step]))
    coarse += np.where(heights > _FAR_OUT * usual, fringes, 0)
    fine: Image = image - coarse
    fine += _mean(image, told) - _mean(fine, told)
    return fine


def repeated_step(average: Image) -> float:
    """Find structure that is at the same place in many images, by the steps in their average.

    Sharp, long steps between cells of 8 or of 32 pixels: a hole's edge, a beam stop. The camera's
    own sensitivity is smooth, or fine.

    Parameters
    ----------
    average : ndarray, shape (y, x)
        Of several stacks.

    Returns
    -------
    float
        The typical height of the steps, as a fraction of the mean; 0 where there are none.
    """
    from scipy.ndimage import median_filter

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
        told = np.isfinite(cells)
        middle = float(np.median(cells[told])) if told.any() else 0.0
        if not middle > 0:
            break
        # The median of 3 x 3 cells: single bad pixels make no step.
        cells = median_filter(np.where(told, cells, middle) / middle, 3)
        down, across = cells[2:] - cells[:-2], cells[:, 2:] - cells[:, :-2]
        steps = np.abs(np.concatenate([down.ravel(), across.ravel()]))
        usual = 1.4826 * float(np.median(steps))
        high = steps[steps > max(_LEAST_STEP, _BEYOND * usual)]
        if high.size >= max(_FEWEST, _REACH * min(cells.shape)):
            found = max(found, float(np.median(high)))
    return found


def _blurred(
    image: npt.NDArray[np.float32], told: npt.NDArray[np.bool_], length: float
) -> npt.NDArray[np.float32]:
    """Return the means of the pixels told over about a length; 0 where there are none."""
    size = max(1, round(length / math.sqrt(2))) | 1
    if told.all():
        return _twice(image, size)
    shares = _twice(told.astype(np.float32), size)
    means = _twice(np.where(told, image, np.float32(0)), size)
    return np.divide(means, shares, out=np.zeros_like(means), where=shares > _LEAST_SHARE)


def _twice(image: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Return the means over a square window, twice."""
    from scipy.ndimage import uniform_filter1d

    for _ in range(2):
        for _ in range(2):
            image = uniform_filter1d(image, size, axis=1)
        image = np.ascontiguousarray(image.T)  # along rows it is several times faster
    return image


def _binned(image: Image, size: int) -> Image:
    """Return the means of cells of `size` pixels; what is left over at the ends is left out."""
    ny, nx = image.shape[0] // size, image.shape[1] // size
    rows = image[: ny * size].reshape(ny, size, -1).sum(axis=1)
    means: Image = rows[:, : nx * size].reshape(ny, nx, size).sum(axis=2)
    return means / size**2


def _mean(image: Image, told: npt.NDArray[np.bool_]) -> float:
    return float(image.mean(where=told))
