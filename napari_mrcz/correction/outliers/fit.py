"""The model of good pixels: a normal distribution fitted to the histogram's cumulative sum.

McLeod et al., preprint doi:10.1101/116533, eqs. 1 to 4. On the scale of the Poisson model, where
good pixels would be standard normal if counting noise was all there is, the same fit is Efron's
empirical null (2004, doi:10.1198/016214504000000089): it takes up what else there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.scale import PixelScale

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DistributionFit:
    """A histogram, the model fitted to it, and how they differ: all that a plot needs.

    Everything but `histogram` and `expected` is at the edges between the histogram's bins, where
    a cumulative sum is known exactly.

    Parameters
    ----------
    dose : ndarray, shape (m,)
        The edges in electrons per pixel of the summed stack.
    histogram : ndarray of int64, shape (m - 1,)
        Pixels between the edges.
    cdf : ndarray, shape (m,)
        Fraction of the pixels below each edge.
    center, width : float
        Of the fitted normal distribution, on the model's own scale.
    sigma : ndarray, shape (m,)
        The edges in standard deviations of the model (eq. 3, without its stray √2).
    n_pixels : int
        Pixels in all. With the Poisson model there may be some before the first edge or after
        the last one.
    """

    dose: Values
    histogram: npt.NDArray[np.int64]
    cdf: Values
    center: float
    width: float
    sigma: Values
    n_pixels: int

    @classmethod
    def of(cls, scale: PixelScale) -> DistributionFit:
        """Fit the model to the places of pixels."""
        counted = np.zeros_like(scale.n_pixels)
        counted[scale.counted] = scale.n_pixels[scale.counted]
        code, number = scale.empty
        counted[code] -= number
        n_pixels = int(counted.sum())
        below = np.concatenate([[0], np.cumsum(counted)])[scale.edges]
        cdf = below / max(1, n_pixels)
        places = scale.edge_places
        center, width = fit_normal_cdf(places, cdf, scale.start)
        return cls(
            scale.dose, np.diff(below), cdf, center, width, (places - center) / width, n_pixels
        )

    @property
    def expected(self) -> Values:
        """Pixels between the edges according to the model, (m - 1,)."""
        return np.diff(self.model_cdf) * self.n_pixels

    @property
    def model_cdf(self) -> Values:
        """The model's cumulative distribution, (m,) (eq. 1)."""
        model: Values = scipy.special.ndtr(self.sigma)
        return model

    @property
    def sigma_of_histogram(self) -> Values:
        """The histogram's cumulative sum in standard deviations, (m,); infinite at 0 and 1 (eq. 2).

        √2 erf⁻¹(2 CDF - 1), which is the normal quantile.
        """
        sigma: Values = scipy.special.ndtri(self.cdf)
        return sigma

    @property
    def residual(self) -> Values:
        """Histogram less model in standard deviations, (m,); infinite where that is (eq. 4)."""
        return self.sigma_of_histogram - self.sigma


def fit_normal_cdf(places: Values, cdf: Values, start: tuple[float, float]) -> tuple[float, float]:
    """Fit a normal distribution to a cumulative one by least absolute deviations (eq. 1).

    Parameters
    ----------
    places : ndarray, shape (m,)
        Where the distribution is known.
    cdf : ndarray, shape (m,)
        Its values there, 0 to 1.
    start : tuple of float
        Centre and standard deviation to start from; also what comes back if fewer than three
        places lie within the distribution, which then tells nothing of its width.

    Returns
    -------
    center, width : float
    """
    inside = (cdf > 1e-3) & (cdf < 1 - 1e-3)
    if np.count_nonzero(inside) < 3:
        return start
    middle, scale = start
    if cdf[0] < 0.1587 and cdf[-1] > 0.8413:
        low, middle, high = np.interp([0.1587, 0.5, 0.8413], cdf, places)
        scale = max((high - low) / 2, start[1] / 10)
    near = np.abs(places - middle) <= 8 * max(scale, start[1])
    x, y = places[near], cdf[near]

    def deviation(parameters: Values) -> float:
        center, width = parameters[0] * scale + middle, parameters[1] * scale
        return float(np.abs(scipy.special.ndtr((x - center) / width) - y).sum())

    # From the quantiles where they are known, which are nearer than the mean and its square root.
    # Absolute deviations have kinks, at which methods that follow a gradient (L-BFGS-B in the
    # preprint) stop a thousandth short.
    fit = scipy.optimize.minimize(
        deviation,
        [0.0, 1.0],
        method="Nelder-Mead",
        bounds=[(-2, 2), (0.2, 5)],
        options={"initial_simplex": [[0, 1], [0.1, 1], [0, 1.1]], "xatol": 1e-6, "fatol": 1e-9},
    )
    return float(fit.x[0] * scale + middle), float(fit.x[1] * scale)
