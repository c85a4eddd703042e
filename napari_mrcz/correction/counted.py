"""Whether pixels hold counted electrons: whole numbers whose zeros are real."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Of fewer pixels with one of two neighbouring values nothing can be told.
_FEWEST = 60
# Above this mean no camera's zeros matter, and counts look like any noise.
_HIGHEST_MEAN = 30.0
# Twos over what zeros and ones lead to expect: contrast and spots make them more, up to this; noise
# that was cut off has at least so many more unless it is as narrow as one count.
_RATIO = 1.5
# Variance over mean, of all but the brightest values; and more strictly where hardly a pixel is 0.
_VARIANCE, _STRICT = (0.6, 3.0), (0.6, 1.6)
_BRIGHTEST = 0.02
# Tiles along each axis, within which the dose is nearly the same.
_TILES = 4
# Values above are of no electron counts.
_TOP = 1000


class CountedAlready(ValueError):
    """Frames hold counted electrons, where others are expected; `force` goes on all the same."""


def looks_counted(histogram: npt.ArrayLike) -> bool | None:
    """Return whether values are distributed as counted electrons are.

    Poisson's distribution has as much variance as mean, and P(1)² = 2 P(0) P(2); noise of which
    everything below zero was made 0 has far more zeros.

    Parameters
    ----------
    histogram : array_like of int
        Number of pixels, all of about the same dose, with the value 0, 1, 2, ...

    Returns
    -------
    bool or None
        None where that cannot be told: too few pixels, or too high a dose.
    """
    number = np.asarray(histogram, np.float64)
    # Counts may have been multiplied by what an electron is to count.
    unit = int(np.gcd.reduce(np.flatnonzero(number)))
    number = number[:: max(unit, 1)][:_TOP]
    total = number.sum()
    if not total:
        return None
    kept = max(int(np.searchsorted(np.cumsum(number), (1 - _BRIGHTEST) * total)) + 1, 3)
    number = np.append(number[:kept], np.zeros(3))
    values = np.arange(len(number))
    mean = float(number @ values / number.sum())
    variance = float(number @ np.square(values - mean) / number.sum())
    k, (least, most) = 1, _VARIANCE
    if min(number[:2]) < _FEWEST:
        # Of counts that are hardly ever 0 the most frequent ones tell.
        k, (least, most) = max(int(number.argmax()), 1), _STRICT
    before, here, after = number[k - 1 : k + 2]
    if min(before, here) < _FEWEST or mean > _HIGHEST_MEAN:
        return None
    expected = here**2 * k / ((k + 1) * before)
    # Detectors that see one electron in each pixel and frame, at most, lack higher counts.
    enough = after <= _RATIO * expected + 4 * np.sqrt(expected + 1)
    return bool(enough and variance <= most * mean and (variance >= least * mean or mean < 1))


def tiles_look_counted(frames: npt.NDArray[Any]) -> bool:
    """Return whether most parts of some frames (n, y, x) hold counted electrons."""
    if frames.dtype.kind == "f" and not np.array_equal(frames, np.rint(frames)):
        return False
    if frames.min() < 0 or frames.max() > 2**31:
        return False
    told = []
    for rows in np.array_split(frames, _TILES, axis=1):
        for tile in np.array_split(rows, _TILES, axis=2):
            values = np.minimum(tile.reshape(-1).astype(np.int64), 2**16)
            told.append(looks_counted(np.bincount(values)) if values.size else None)
    known = [one for one in told if one is not None]
    if not known:
        # Too few electrons in each; then what is the same everywhere matters little.
        values = np.minimum(frames.reshape(-1).astype(np.int64), 2**16)
        return bool(looks_counted(np.bincount(values)))
    return 2 * sum(known) > len(told)
