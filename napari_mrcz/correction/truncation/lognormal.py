"""The three-parameter lognormal distribution, fitted to counts of which those below 1 are lost.

Hattne et al. (2016), J. Appl. Cryst. 49, 1029-1034, doi:10.1107/S1600576716007196, eqs. 1-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy

Values = npt.NDArray[np.float64]

_ROOT = np.sqrt(2 * np.pi)
# What lies below rounds to 0 or less.
_EDGE = 0.5
# A fit to fewer positive pixels says little, and one to fewer different values nothing.
_FEWEST_PIXELS, _FEWEST_VALUES = 50, 4
# The histogram ends so many times the distance from the median to the upper quartile (of positive
# counts) above the median: 3.5 standard deviations of a normal distribution. Beyond are Bragg
# spots.
_REACH = 6.0
_SEARCH = {"gtol": 1e-7, "maxiter": 300}
# Stands for a probability where a step of the search makes a value impossible.
_LEAST = 1e-300
# A step of the search may not overflow, and a lognormal of the least shape is a normal
# distribution.
_LEAST_FREE, _MOST_FREE = np.array([-30.0, -8.0, -30.0]), np.array([30.0, 2.0, 30.0])
_AT_BOUND = 1e-6


@dataclass(frozen=True)
class ShiftedLognormal:
    """A distribution of counts x whose log(x - shift) is normal (eq. 1).

    Attributes
    ----------
    mu, sigma : float
        Mean and standard deviation of log(x - shift).
    shift : float
        Least value there is, in counts.
    """

    mu: float
    sigma: float
    shift: float

    def cdf(self, x: npt.ArrayLike) -> Values:
        """Return the probability of a value below `x`."""
        distance = np.asarray(x, np.float64) - self.shift
        z = np.full(distance.shape, -np.inf)
        inside = distance > 0
        z[inside] = (np.log(distance[inside]) - self.mu) / self.sigma
        below: Values = scipy.special.ndtr(z)
        return below

    def pdf(self, x: npt.ArrayLike) -> Values:
        """Return the probability density at `x`, per count."""
        distance = np.asarray(x, np.float64) - self.shift
        density = np.zeros(distance.shape)
        inside = distance > 0
        z = (np.log(distance[inside]) - self.mu) / self.sigma
        density[inside] = np.exp(-(z**2) / 2) / (distance[inside] * self.sigma * _ROOT)
        return density

    def quantile(self, p: npt.ArrayLike) -> Values:
        """Return the value below which a share `p` of all lies."""
        value: Values = self.shift + np.exp(self.mu + self.sigma * scipy.special.ndtri(p))
        return value

    @property
    def mean(self) -> float:
        """Mean, in counts."""
        return float(self.shift + np.exp(self.mu + self.sigma**2 / 2))

    @property
    def sd(self) -> float:
        """Standard deviation, in counts."""
        spread = np.exp(self.mu + self.sigma**2 / 2) * np.sqrt(np.expm1(self.sigma**2))
        return float(spread)

    @property
    def at_bounds(self) -> bool:
        """Whether the fit ended where its search ends; False where it is NaN.

        The least shape is none of these bounds: it is that of a normal distribution.
        """
        free = np.array([self.mu, np.log(self.sigma), np.log(_EDGE - self.shift)])
        low = free[[0, 2]] <= _LEAST_FREE[[0, 2]] + _AT_BOUND
        return bool(low.any() or (free >= _MOST_FREE - _AT_BOUND).any())

    @classmethod
    def fit(cls, histogram: npt.ArrayLike) -> Self | None:
        """Fit it to a histogram whose values below 1 were all made 0, by maximum likelihood.

        The likelihood is that of eq. 4, with two things done more carefully. The probability of a
        count is the integral of eq. 2, not the density that the paper takes for it: at a standard
        deviation of 1.2 counts that alone puts the shift 60 % off. And the sum, of which the
        paper does not say where it ends (I max), ends well above the background but below Bragg
        spots, conditioned on lying there, so that it does not matter where exactly.

        Parameters
        ----------
        histogram : array_like of int
            Number of pixels with the value 0, 1, 2, ...

        Returns
        -------
        ShiftedLognormal or None
            None where there is too little to fit: fewer than 50 positive pixels, or 4 values.
        """
        counts = np.asarray(histogram, np.float64)
        if counts[1:].sum() < _FEWEST_PIXELS:
            return None
        background = counts[: _end(counts[1:]) + 1]
        if np.count_nonzero(background[1:]) < _FEWEST_VALUES:
            return None
        likelihood = _Likelihood(background)
        # Where there are both long-tailed and nearly normal solutions, the better one counts.
        starts = (likelihood.start(shape) for shape in (0.5, 0.1))
        fits = [
            scipy.optimize.minimize(likelihood, s, jac=True, method="BFGS", options=_SEARCH)
            for s in starts
        ]
        return cls(*_parameters(min(fits, key=lambda fit: fit.fun).x))


def _end(positive: Values) -> int:
    """Return the largest value that belongs to the background, of a histogram from 1 on."""
    cumulated = np.cumsum(positive) / positive.sum()
    median, upper = (int(np.searchsorted(cumulated, q)) + 1 for q in (0.5, 0.75))
    return min(len(positive), int(median + _REACH * max(upper - median, 1)))


class _Likelihood:
    """Minus the mean log-likelihood and its gradient.

    Parameters
    ----------
    counts : ndarray, shape (k,)
        Number of pixels with the value 0 (or less), 1, ..., k - 1.
    """

    def __init__(self, counts: Values) -> None:
        self._counts, self._total = counts, counts.sum()
        # Where each value ends and the next one begins.
        self._edges = np.arange(len(counts)) + _EDGE

    def start(self, shape: float) -> Values:
        """Return the parameters at which mean and variance are those of the histogram."""
        values = np.arange(len(self._counts))
        mean = np.average(values, weights=self._counts)
        sd = np.sqrt(np.average((values - mean) ** 2, weights=self._counts))
        # Zeros stand for negative values: the more there are, the lower is the mean.
        mean -= sd * self._counts[0] / self._total
        scale = sd / np.sqrt(np.expm1(shape**2))
        distance = max(_EDGE - mean + scale, 0.1 * sd)
        return np.array([np.log(scale) - shape**2 / 2, np.log(shape), np.log(distance)])

    def __call__(self, free: Values) -> tuple[float, Values]:
        """Return minus the mean log-likelihood and its gradient by the free parameters."""
        mu, sigma, shift = _parameters(free)
        distance = self._edges - shift
        z = (np.log(distance) - mu) / sigma
        # In the upper tail, differences of what lies above are the exact ones.
        between = np.where(
            z[:-1] > 0, -np.diff(scipy.special.ndtr(-z)), np.diff(scipy.special.ndtr(z))
        )
        ends = scipy.special.log_ndtr(z[[0, -1]])
        logs = np.concatenate([ends[:1], np.log(np.maximum(between, _LEAST)), ends[1:]])
        weights = np.append(self._counts, -self._total)
        # An edge that moves up adds to the probability of the value below it what it takes from
        # the one above; all below the last edge is what the likelihood is conditioned on.
        density = -(z**2) / 2 - np.log(_ROOT)
        by_z = weights[:-1] * np.exp(density - logs[:-1])
        by_z -= np.abs(weights[1:]) * np.exp(density - logs[1:])
        by_mu, by_sigma, by_shift = -by_z.sum(), -by_z @ z, -by_z @ (1 / distance)
        gradient = np.array([by_mu / sigma, by_sigma, by_shift * (shift - _EDGE) / sigma])
        return float(-(weights @ logs) / self._total), -gradient / self._total


def _parameters(free: Values) -> tuple[float, float, float]:
    """Return mu, sigma > 0 and shift < 0.5 of what is searched without bounds."""
    mu, log_sigma, log_distance = np.clip(free, _LEAST_FREE, _MOST_FREE).tolist()
    return mu, float(np.exp(log_sigma)), float(_EDGE - np.exp(log_distance))
