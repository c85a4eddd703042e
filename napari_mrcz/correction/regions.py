"""Regions of a diffraction pattern whose pixels count alike, and the distribution of their counts.

Regions are rings about the beam, without the gaps between a detector's modules, which are 0 in
every frame. Counts have a three-parameter lognormal distribution, fitted to those of 1 and more as
the others were cut off; values of 0 and less are drawn from it.

Hattne et al. (2016), J. Appl. Cryst. 49, 1029-1034, doi:10.1107/S1600576716007196, eqs. 1-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.outliers.fill import random_bits
from napari_mrcz.correction.sums import binned_sum

Labels = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

# Pixels per side of the image in which the centre is searched, and rings.
_SIDE, _RINGS = 64, 48
# Share of the image's size, on each side of its middle, where the beam is tried, and steps.
_AWAY, _STEPS = 0.3, 13


def annuli(
    shape: tuple[int, int],
    center: tuple[float, float],
    n_annuli: int = 10,
    mask: npt.ArrayLike | None = None,
) -> Labels:
    """Divide a pattern into concentric annuli that have the same number of valid pixels.

    `shape`: rows and columns; `center`: of the beam, (y, x) in pixels, 0 being the middle of the
    first one; `n_annuli`: at most; `mask` (y, x): True where a pixel is not valid, such as behind
    the beam stop. The result is (y, x): 1 for the innermost annulus and so on; 0 where pixels are
    not valid. Raise `ValueError` if shapes differ, or there is no annulus or no such centre.
    """
    if n_annuli < 1:
        raise ValueError(f"a pattern has one annulus or more, not {n_annuli}")
    if not np.isfinite(center).all():
        raise ValueError(f"the centre is (y, x) in pixels, not {center}")
    valid = valid_pixels(shape, mask)
    rows, columns = np.arange(shape[0]) - center[0], np.arange(shape[1]) - center[1]
    squares = np.add.outer(rows**2, columns**2)
    # Rings are made of whole circles of pixels, so that no circle is cut by its pixels' order.
    radii, numbers = np.unique(squares[valid], return_counts=True)
    labels = np.zeros(shape, np.uint16)
    if len(radii):
        before = np.cumsum(numbers) - numbers / 2
        ring = np.floor(before * n_annuli / numbers.sum()).astype(np.uint16)
        _, ring = np.unique(ring, return_inverse=True)
        labels[valid] = 1 + ring[np.searchsorted(radii, squares[valid])]
    return labels


def region_labels(
    regions: npt.ArrayLike, shape: tuple[int, int], mask: npt.ArrayLike | None = None
) -> Labels:
    """Take any label image as regions: 1 ... k in the order of its labels, 0 where not valid.

    Raise `ValueError` if shapes differ, or these are not labels.
    """
    labels = np.asarray(regions)
    if labels.dtype.kind not in "biu" or labels.shape != tuple(shape):
        raise ValueError(
            f"regions are whole numbers of the shape {tuple(shape)}, "
            f"not {labels.dtype} of {labels.shape}"
        )
    labels = np.where(valid_pixels(shape, mask) & (labels > 0), labels, 0)
    names, numbered = np.unique(labels, return_inverse=True)
    if len(names) > np.iinfo(np.uint16).max:
        raise ValueError(f"{len(names)} regions are more than can be fitted")
    first = 0 if names[0] == 0 else 1
    return (numbered.reshape(shape) + first).astype(np.uint16)


def find_center(image: npt.NDArray[Any], mask: npt.ArrayLike | None = None) -> tuple[float, float]:
    """Find the beam: the point about which the pattern is most nearly the same all around.

    The sum of absolute deviations from each ring's median is least there. A beam stop and Bragg
    spots deviate from it wherever it is, and so matter little. Accurate to about 1/150 of the
    image's size, which annuli do not need better.

    `image` (y, x): a frame, or better the sum of them; `mask` (y, x): True where a pixel is not
    valid. The result: (y, x) in pixels; the middle of a pattern without contrast. Raise
    `ValueError` if shapes differ.
    """
    shape = image.shape
    valid = valid_pixels(shape, mask)
    step = max(1, min(round(max(shape) / _SIDE), *shape))
    small, weight = (
        binned_sum(values, step, np.float64) for values in (np.where(valid, image, 0), valid)
    )
    good = weight > 0
    middle = (np.array(good.shape) - 1) / 2
    values = np.sqrt(np.maximum(small[good] / weight[good], 0))
    if len(values) >= 4 * _RINGS and np.ptp(values) > 0:
        places = np.argwhere(good).astype(np.float64)
        offsets = np.linspace(-_AWAY, _AWAY, _STEPS)
        tried = [middle + (y, x) * np.array(good.shape) for y in offsets for x in offsets]
        start = min(tried, key=lambda at: _asymmetry(at, places, values))
        near = start + np.array([[0, 0], [2, 0], [0, 2]])
        found = scipy.optimize.minimize(
            _asymmetry,
            start,
            (places, values),
            method="Nelder-Mead",
            options={"initial_simplex": near, "xatol": 0.02, "fatol": 0},
        )
        middle = found.x
    y, x = (middle + 0.5) * step - 0.5
    return float(y), float(x)


def _asymmetry(center: Any, places: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    squares = ((places - center) ** 2).sum(axis=1)
    used = len(values) // _RINGS * _RINGS
    rings = values[np.argsort(squares, kind="stable")[:used]].reshape(_RINGS, -1)
    return float(np.abs(rings - np.median(rings, axis=1, keepdims=True)).sum())


def valid_pixels(shape: tuple[int, int], mask: npt.ArrayLike | None) -> Mask:
    """Return where a mask of invalid pixels is not True, (y, x)."""
    if mask is None:
        return np.ones(shape, np.bool_)
    invalid = np.asarray(mask)
    if invalid.shape != tuple(shape):
        raise ValueError(f"a mask of {invalid.shape} does not fit frames of {tuple(shape)}")
    return np.equal(invalid, 0)


# Side of the tiles within which pixels are 0 about equally often, in pixels.
_TILE = 64
# A run of pixels is a gap if chance leaves it without counts in one of e to this power cases.
_EVIDENCE = 30.0
# Pixels of a tile are not quite alike: so much of the evidence counts.
_TRUSTED = 0.8
# With fewer frames, gaps are straight strips, at least so long, not single pixels.
_FEWEST_FRAMES, _LENGTH = 16, 32
# Least probability of a 0.
_RAREST = 0.02


def find_gaps(zeros: Mask) -> Mask:
    """Find pixels that have no counts in any frame, where chance would have left them some.

    `zeros` (n, y, x): pixels without counts, of some frames of a sweep. The result is (y, x): True
    in the gaps.
    """
    always: Mask = np.logical_and.reduce(zeros, axis=0)
    if not always.any() or always.all():
        return np.zeros(always.shape, np.bool_)
    evidence = np.where(always, _TRUSTED * len(zeros) * -np.log(_chance(zeros.mean(axis=0))), 0)
    shortest = 1 if len(zeros) >= _FEWEST_FRAMES else _LENGTH
    return _runs(always, evidence, shortest) | _runs(always.T, evidence.T, shortest).T


def _chance(often: Values) -> Values:
    """Return how often the pixels about each are 0, gaps left out, shape (y, x).

    The median over the rows or columns of a tile, which strips do not reach.
    """
    rows, columns = ([*range(0, n, _TILE), n] for n in often.shape)
    tiles = np.empty((len(rows) - 1, len(columns) - 1))
    for i, (top, bottom) in enumerate(pairwise(rows)):
        for j, (left, right) in enumerate(pairwise(columns)):
            tile = often[top:bottom, left:right]
            tiles[i, j] = min(np.median(tile.mean(axis=0)), np.median(tile.mean(axis=1)))
    # Tiles within a gap are like the others.
    known = tiles[tiles < 1]
    tiles[tiles == 1] = np.median(known) if known.size else 1
    tiles = np.clip(tiles, _RAREST, 1)
    return np.repeat(np.repeat(tiles, np.diff(rows), axis=0), np.diff(columns), axis=1)


def _runs(always: Mask, evidence: Values, shortest: int) -> Mask:
    """Mark runs along rows that are too long for chance."""
    padded = np.pad(always, ((0, 0), (1, 1))).reshape(-1)
    step = np.diff(padded.astype(np.int8))
    begin, end = np.flatnonzero(step == 1) + 1, np.flatnonzero(step == -1) + 1
    total = np.concatenate([[0], np.cumsum(np.pad(evidence, ((0, 0), (1, 1))).reshape(-1))])
    kept = (total[end] - total[begin] > _EVIDENCE) & (end - begin >= shortest)
    marks = np.zeros(len(padded) + 1, np.int64)
    np.add.at(marks, begin[kept], 1)
    np.add.at(marks, end[kept], -1)
    return np.cumsum(marks)[:-1].reshape(len(always), -1)[:, 1:-1] > 0


Values = npt.NDArray[np.float64]

_ROOT = np.sqrt(2 * np.pi)
# Smaller values round to 0 or less.
_EDGE = 0.5
# Fewest positive pixels, and fewest different values, of a fit.
_FEWEST_PIXELS, _FEWEST_VALUES = 50, 4
# The histogram ends so many times the distance from the median to the upper quartile (of positive
# counts) above the median: 3.5 standard deviations of a normal distribution. Beyond are Bragg
# spots.
_REACH = 6.0
_SEARCH = {"gtol": 1e-7, "maxiter": 300}
# Values that are counted one by one; larger ones share as many places, each wider than the last.
_SINGLE = 2048
# Least probability and least distance from the shift, whose logarithms are finite.
_LEAST = 1e-300
# Bounds of the search, without overflow; a lognormal of the least shape is a normal distribution.
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
        distance = np.maximum(np.asarray(x, np.float64) - self.shift, _LEAST)
        return scipy.special.ndtr((np.log(distance) - self.mu) / self.sigma)

    def quantile(self, p: npt.ArrayLike) -> Values:
        """Return the value below which a share `p` of all lies."""
        return self.shift + np.exp(self.mu + self.sigma * scipy.special.ndtri(p))

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
        """Whether the fit ended at the bounds of its search; False where it is NaN.

        The least shape, that of a normal distribution, does not count.
        """
        free = np.array([self.mu, np.log(self.sigma), np.log(_EDGE - self.shift)])
        low = free[[0, 2]] <= _LEAST_FREE[[0, 2]] + _AT_BOUND
        return bool(low.any() or (free >= _MOST_FREE - _AT_BOUND).any())

    @classmethod
    def fit(cls, histogram: npt.ArrayLike) -> Self | None:
        """Fit it to a histogram whose values below 1 were all made 0, by maximum likelihood.

        The likelihood is that of eq. 4 with two changes. The probability of a count is the
        integral of eq. 2, not the density that the paper takes for it: at a standard deviation of
        1.2 counts that alone puts the shift 60 % off. And the sum, whose end (I max) the paper does
        not state, ends well above the background but below Bragg spots, conditioned on lying there,
        so that it does not matter where exactly.

        Parameters
        ----------
        histogram : array_like of int
            Number of pixels with the value 0, 1, 2, ...

        Returns
        -------
        ShiftedLognormal or None
            None if there are fewer than 50 positive pixels, or fewer than 4 different values.
        """
        counts = np.asarray(histogram, np.float64)
        if counts[1:].sum() < _FEWEST_PIXELS:
            return None
        # The largest value that belongs to the background.
        cumulated = np.cumsum(counts[1:]) / counts[1:].sum()
        median, upper = (int(np.searchsorted(cumulated, q)) + 1 for q in (0.5, 0.75))
        background = counts[: int(median + _REACH * max(upper - median, 1)) + 1]
        if np.count_nonzero(background[1:]) < _FEWEST_VALUES:
            return None
        likelihood = _Likelihood(background)
        # Where there are both long-tailed and nearly normal solutions, the better one counts.
        fits = [
            scipy.optimize.minimize(
                likelihood, likelihood.start(shape), jac=True, method="BFGS", options=_SEARCH
            )
            for shape in (0.5, 0.1)
        ]
        return cls(*_parameters(min(fits, key=lambda fit: fit.fun).x))


class _Likelihood:
    """Minus the mean log-likelihood and its gradient.

    `counts` (k,): number of pixels with the value 0 (or less), 1, ..., k - 1.
    """

    def __init__(self, counts: Values) -> None:
        self._all, self._total = counts, counts.sum()
        first = np.arange(min(len(counts), _SINGLE))
        if len(counts) > _SINGLE:
            wide = np.geomspace(_SINGLE, len(counts) - 1, _SINGLE).astype(np.intp)
            first = np.unique(np.concatenate([first, wide]))
        self._counts = np.add.reduceat(counts, first)
        # Where each value, or some together, end and the next begin.
        self._edges = np.append(first[1:], len(counts)) - 1 + _EDGE

    def start(self, shape: float) -> Values:
        """Return the parameters at which mean and variance are those of the histogram."""
        values = np.arange(len(self._all))
        mean = np.average(values, weights=self._all)
        sd = np.sqrt(np.average((values - mean) ** 2, weights=self._all))
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
    """Return mu, sigma > 0 and shift < 0.5 of parameters that are searched without bounds."""
    mu, log_sigma, log_distance = np.clip(free, _LEAST_FREE, _MOST_FREE).tolist()
    return mu, float(np.exp(log_sigma)), float(_EDGE - np.exp(log_distance))


Frame = npt.NDArray[Any]

_BITS = 2.0**32
# No background goes further below zero than a camera counts above it.
_LOWEST = -(2**16)


def draws(
    frame: Frame, labels: Labels, parameters: Values, seed: int, index: int, pedestal: int = 0
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return the pixels of a frame that have no counts, and counts of 0 and less for them."""
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
    values = np.arange(int(np.clip(first, _LOWEST, 0)), 1)
    below = np.minimum(distribution.cdf(values[:-1] + 0.5) / edge * _BITS, _BITS - 1)
    return values[np.searchsorted(below.astype(np.uint32), bits, side="right")]
