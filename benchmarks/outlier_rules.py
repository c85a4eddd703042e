"""How other programs tell outlier pixels, as far as their sources say: each gives a mask of a sum.

They take the sum of the frames after the gain reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

__all__ = ["local_median", "motioncor3", "relion"]

Image = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def relion(total: Image) -> Mask:
    """Return RELION's hot pixels: more than six standard deviations above the mean."""
    mask: Mask = total > total.mean() + 6 * total.std()
    return mask


def motioncor3(total: Image) -> Mask:
    """Return MotionCor3's hot pixels: six standard deviations, or ten counts, above the mean."""
    mask: Mask = total > total.mean() + max(6 * total.std(), 10)
    return mask


def local_median(total: Image, size: int = 5, sigmas: float = 6.0) -> Mask:
    """Return the pixels far from the median of the square around them, dark ones too.

    The spread is the median absolute deviation of that difference, as of a normal distribution.
    """
    apart = np.subtract(total, median_filter(total, size), dtype=np.float64)
    spread = 1.4826 * np.median(np.abs(apart - np.median(apart)))
    mask: Mask = np.abs(apart) > sigmas * spread
    return mask
