"""What the two plots show of a fit, after fig. 5 of the preprint (doi:10.1101/116533)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

if TYPE_CHECKING:
    from napari_mrcz.correction import OutlierFilter, TailFit

Values = npt.NDArray[np.float64]
Line = tuple[Values, Values]

# In standard deviations: what is shown at least, what is shown of residuals at least, and what is
# shown beyond a threshold.
_REACH, _LEAST_RESIDUAL, _ROOM = 8.0, 1.0, 2.0
# More points than this cannot be told apart.
_POINTS = 600


@dataclass(frozen=True, eq=False)
class Curves:
    """Points (x, y), x in standard deviations of the model.

    Attributes
    ----------
    reach : tuple of float
        The first and last x that are shown.
    cdf, model : tuple of ndarray
        Fraction of the pixels below x: measured, and according to the model.
    residual : tuple of ndarray
        Measured less model, both in standard deviations (eq. 4); where that is finite.
    dark_tail, hot_tail : tuple of ndarray
        The lines fitted to the residual's tails, from zero on; empty where there is none.
    residual_reach : tuple of float
        The lowest and highest residual that are shown.
    """

    reach: tuple[float, float]
    cdf: Line
    model: Line
    residual: Line
    dark_tail: Line
    hot_tail: Line
    residual_reach: tuple[float, float]

    @classmethod
    def of(cls, outliers: OutlierFilter) -> Curves:
        """Take them from a filter that was fitted."""
        fit = outliers.distribution
        if fit is None:
            raise ValueError("a filter rebuilt from its description has no distribution")
        low, high = reach_of(outliers)
        shown = np.flatnonzero((low <= fit.sigma) & (fit.sigma <= high))
        shown = shown[:: max(1, shown.size // _POINTS)]
        sigma, residual = fit.sigma[shown], fit.residual[shown]
        finite = np.isfinite(residual)
        smooth = np.linspace(low, high, _POINTS)
        most = max(float(np.abs(residual[finite]).max(initial=0)), _LEAST_RESIDUAL) * 1.1
        return cls(
            reach=(low, high),
            cdf=(sigma, fit.cdf[shown]),
            model=(smooth, ndtr(smooth)),
            residual=(sigma[finite], residual[finite]),
            dark_tail=_tail(outliers.dark_tail, low),
            hot_tail=_tail(outliers.hot_tail, high),
            residual_reach=(-most, most),
        )


def reach_of(outliers: OutlierFilter) -> tuple[float, float]:
    """Give the first and last standard deviation to show: both thresholds are within."""
    limits = outliers.thresholds
    return min(-_REACH, limits.dark - _ROOM), max(_REACH, limits.hot + _ROOM)


def weight_curve(outliers: OutlierFilter, reach: tuple[float, float]) -> Line:
    """Give how much of its own value a pixel keeps (eq. 6)."""
    sigma = np.linspace(*reach, _POINTS)
    return sigma, outliers.weight(sigma)


def _tail(tail: TailFit | None, end: float) -> Line:
    """Give a tail's line from where it is zero, or from where it was fitted, to what is shown."""
    if tail is None:
        return np.empty(0), np.empty(0)
    near, far = sorted(tail.sigma, key=abs)
    if 0 < tail.intercept / near < 1:
        near = tail.intercept
    x = np.array([near, np.copysign(min(abs(far), abs(end)), end)])
    return x, tail.slope * x + tail.offset
