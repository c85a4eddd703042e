"""Correlated noise: how alike the frames of a movie are, where only noise should be.

McLeod et al., preprint doi:10.1101/116533, section 4.1, eq. 7.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["correlated_noise"]

# Pixels worked on at a time: what is computed of them stays in a cache.
_PIECE = 2**16


def correlated_noise(movie: Any) -> float:
    """Give the mean Pearson correlation R of all pairs of a movie's frames (eq. 7).

    Parameters
    ----------
    movie : Stack or ndarray, shape (n, y, x)
        Real numbers; anything that gives frames (y, x) when iterated.

    Returns
    -------
    float
        -1 / (n - 1) to 1. NaN if fewer than two frames vary (a constant frame correlates with
        nothing and is left out), or if a pixel is NaN.

    Raises
    ------
    ValueError
        If there are fewer than two frames, they differ in shape, or are complex.

    Notes
    -----
    Frames are read once, and one image is kept. With z the frames standardised to mean 0 and
    variance 1, the variance of their sum is the sum of all n² correlations, of which n are 1:
    R = (var(Σ z) - n) / (n (n - 1)), which is exact.
    """
    total: npt.NDArray[np.float64] | None = None
    n_frames = n = 0
    for frame in movie:
        image = np.asarray(frame)
        if image.dtype.kind not in "buif":
            raise ValueError(f"correlations are those of real numbers, not of {image.dtype}")
        if total is None:
            total, shape = np.zeros(image.size), image.shape
        elif image.shape != shape:
            raise ValueError(f"frame {n_frames} is {image.shape}, where the first is {shape}")
        n_frames += 1
        pixels = image.reshape(-1)
        deviation = _standard_deviation(pixels)
        if deviation == 0:
            continue
        n += 1
        for start in range(0, pixels.size, _PIECE):
            piece = np.s_[start : start + _PIECE]
            # Their means need not be taken off: the variance of the sum knows no offset.
            total[piece] += pixels[piece] * np.float64(1 / deviation)
    if total is None or n_frames < 2:
        raise ValueError(f"{n_frames} frames have no pairs to correlate")
    if n < 2:
        return math.nan
    total -= total.mean()
    total *= total
    return float((total.mean() - n) / (n * (n - 1)))


def _standard_deviation(pixels: npt.NDArray[Any]) -> float:
    if not pixels.size or pixels.min() == pixels.max():
        return 0.0
    # Around a typical value: squares of large numbers would lose the small differences.
    typical = float(np.median(pixels[:: max(1, pixels.size // 1000)]))
    total = squares = 0.0
    for start in range(0, pixels.size, _PIECE):
        with np.errstate(over="ignore", invalid="ignore"):  # of what is no count: NaN comes of it
            apart = pixels[start : start + _PIECE] - np.float64(typical)
            total += float(apart.sum())
            squares += float((apart * apart).sum())
    return math.sqrt(max(squares - total * total / pixels.size, 0.0) / pixels.size)
