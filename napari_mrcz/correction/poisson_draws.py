"""Poisson draws that stay the same, on any machine and with any release of numpy.

A corrected movie is to be made again bit for bit by what its history says. numpy promises that of
its bit generators, but not of the distributions on top of them; so the Poisson one is here. For
draws around the same means in frame after frame it is several times as fast, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

# Means beyond which a series takes the place of a table.
_LARGE = 24.0
_MOST = np.uint32(2**32 - 1)
# Numbers beyond this one, four in a million, count as it: sums of probabilities reach it for sure.
_LAST = np.uint32(2**32 - 2**14)

Bits = npt.NDArray[np.uint32]
Values = npt.NDArray[np.float64]


def random_bits(key: tuple[int, ...], *lengths: int) -> list[Bits]:
    """Give arrays of random 32-bit numbers, always the same for a key."""
    total = sum(lengths)
    generator = np.random.PCG64(np.random.SeedSequence(key))
    drawn = generator.random_raw((total + 1) // 2).astype("<u8", copy=False).view("<u4")
    return np.split(drawn[:total], np.cumsum(lengths)[:-1])


class PoissonDraws:
    """Draws from Poisson distributions.

    Parameters
    ----------
    means : ndarray, shape (k,)
        Of the distributions, not negative.
    """

    def __init__(self, means: npt.NDArray[np.floating[Any]]) -> None:
        exact: Values = means.astype(np.float64)
        large = exact > _LARGE
        self._small = np.flatnonzero(~large)
        self._large = np.flatnonzero(large)
        self._large_means = exact[large]
        self._below = _cumulated(exact[~large])

    def __call__(self, drawn: Bits) -> npt.NDArray[np.int64]:
        """Turn random numbers, one for each distribution, into its quantiles."""
        small = drawn if not self._large.size else drawn[self._small]
        few = np.zeros(len(small), np.uint8)
        for below in self._below:
            few += small >= below
        if not self._large.size:
            return few.astype(np.int64)
        counts = np.empty(len(drawn), np.int64)
        counts[self._small] = few
        counts[self._large] = _quantiles(drawn[self._large], self._large_means)
        return counts


def poisson_quantiles(drawn: Bits, means: Values) -> npt.NDArray[np.int64]:
    """Turn random numbers into quantiles of Poisson distributions around means, not negative.

    As `PoissonDraws` does, for means that are drawn around only once.
    """
    large = means > _LARGE
    if large.any():
        counts = np.empty(len(drawn), np.int64)
        counts[large] = _quantiles(drawn[large], means[large])
        counts[~large] = poisson_quantiles(drawn[~large], means[~large])
        return counts
    # Single precision is enough for all but the last few in a million.
    share = np.minimum(drawn, _LAST).astype(np.float32)
    share *= np.float32(2.0**-32)
    mean = means.astype(np.float32)
    probability = np.exp(-means).astype(np.float32)
    below = probability.copy()
    few = np.zeros(len(drawn), np.uint8)
    above = share >= below
    number = 0
    while above.any():
        few += above
        number += 1
        probability *= mean
        probability /= np.float32(number)
        below += probability
        np.greater_equal(share, below, out=above)
    return few.astype(np.int64)


def _cumulated(means: Values) -> list[Bits]:
    """Give the probabilities of 0, of up to 1, up to 2, ... in parts of 2**32, until all are 1."""
    table: list[Bits] = []
    probability = np.exp(-means)
    below = probability.copy()
    # Eight standard deviations and more: what is missing then is the rounding of the sum.
    most = int(means.max(initial=0) + 8 * means.max(initial=0) ** 0.5 + 12)
    while means.size and len(table) < most and (not table or table[-1].min() < _MOST):
        table.append(np.minimum(below * 2.0**32, _MOST).astype(np.uint32))
        probability *= means / len(table)
        below += probability
    return table


def _quantiles(drawn: Bits, means: Values) -> Values:
    """Give quantiles by the Cornish-Fisher series: off by 0.0005 in probability at the most."""
    x = scipy.special.ndtri((drawn + 0.5) / 2.0**32)
    root = np.sqrt(means)
    quantiles = means + x * root + (x**2 - 1) / 6 + (x - x**3) / (72 * root)
    whole: Values = np.maximum(np.floor(quantiles + 0.5), 0)
    return whole
