"""Contrast limits at which a movie is seen at once, not black because of one hot pixel.

They come from percentiles of a few frames. Counts that are nearly all 0 have no spread between
percentiles; then what stands out of them decides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

Limits = tuple[float, float]

# Hot pixels of an ageing detector are less than 0.1 %, zeros outside a mask may be much more.
_PERCENTILES = (0.5, 99.5)
_SAMPLED_PIXELS = 2**17


def contrast_limits(frames: Iterable[npt.NDArray[Any]]) -> Limits:
    """Give the limits between which nearly all pixels of some frames lie.

    Parameters
    ----------
    frames : iterable of ndarray, shape (y, x)
        A few frames of real numbers; some 100,000 pixels of each are looked at.

    Returns
    -------
    tuple of float
        Black and white; black is the smaller. Whole numbers for integer frames.
    """
    pixels = np.concatenate([_sample(frame) for frame in frames])
    whole = pixels.dtype.kind in "biu"
    values = pixels.astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, _PERCENTILES))
    if whole:
        low, high = math.floor(low), math.ceil(high)
    if low == high:
        low, high = _limits_around(low, values)
    return float(low), float(high)


def slider_range(limits: Limits, dtype: npt.DTypeLike) -> Limits:
    """Give the range that napari's contrast sliders should have: the limits, and room to move them.

    Parameters
    ----------
    limits : tuple of float
        As `contrast_limits` gives them.
    dtype : dtype-like
        Of the pixels; integers have no room beyond what they can hold.
    """
    low, high = limits
    width = high - low
    wide_low, wide_high = low - 2 * width, high + 4 * width
    if low >= 0:  # counts, amplitudes and the like
        wide_low = min(low, 0.0)
    if np.dtype(dtype).kind in "iu":
        held = np.iinfo(dtype)
        wide_low, wide_high = max(wide_low, held.min), min(wide_high, held.max)
    return min(low, wide_low), max(high, wide_high)


def _limits_around(value: float, values: npt.NDArray[np.float64]) -> Limits:
    """Give limits where nearly all pixels have one value, such as 0 in sparse counts."""
    above, below = values[values > value], values[values < value]
    low = float(np.median(below)) if below.size else value
    high = float(np.median(above)) if above.size else value
    if low < high:
        return low, high
    # All alike: zeros are black, all else is grey.
    return (0.0, 1.0) if value == 0 else (value - abs(value), value + abs(value))


def _sample(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give pixels at even distances that fall into all columns alike."""
    flat = frame.reshape(-1)
    step = max(1, flat.size // _SAMPLED_PIXELS)
    while math.gcd(step, frame.shape[-1]) > 1:
        step += 1
    return flat[::step]
