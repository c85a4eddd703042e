"""Values of 0 and less for pixels that were cut off, drawn from their regions' distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.poisson_draws import random_bits
from napari_mrcz.correction.truncation.lognormal import ShiftedLognormal

Frame = npt.NDArray[Any]

_BITS = 2.0**32
# No background goes further below zero than a camera counts above it.
_LEAST = -(2**16)


def draws(
    frame: Frame,
    labels: npt.NDArray[np.uint16],
    parameters: npt.NDArray[np.float64],
    seed: int,
    index: int,
    pedestal: int = 0,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return the pixels of a frame that have no counts, and values of 0 and less for them.

    Those are counts: pixels without any have the pedestal's value.
    """
    pixels = np.flatnonzero((frame == pedestal) & (labels > 0))
    regions = labels.reshape(-1)[pixels]
    (bits,) = random_bits((seed, index), len(pixels))
    drawn = np.zeros(len(pixels), np.int64)
    for region in np.unique(regions):
        mu, sigma, shift = parameters[region - 1].tolist()
        if not np.isnan(mu):
            here = regions == region
            drawn[here] = _below_edge(ShiftedLognormal(mu, sigma, shift), bits[here])
    return pixels, drawn


def _below_edge(
    distribution: ShiftedLognormal, bits: npt.NDArray[np.uint32]
) -> npt.NDArray[np.int64]:
    """Turn random numbers into values below 0.5, rounded.

    By a table of cumulated probabilities: the same on any machine, as numpy's draws are not.
    """
    edge = float(distribution.cdf(0.5))
    if edge == 0:
        return np.zeros(len(bits), np.int64)
    first = float(np.floor(distribution.quantile(edge / _BITS)))
    values = np.arange(int(np.clip(first, _LEAST, 0)), 1)
    below = np.minimum(distribution.cdf(values[:-1] + 0.5) / edge * _BITS, _BITS - 1)
    return values[np.searchsorted(below.astype(np.uint32), bits, side="right")]
