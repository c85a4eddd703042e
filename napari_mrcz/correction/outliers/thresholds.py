"""Where good pixels end: thresholds in standard deviations, and the weights that follow.

Two rules. The preprint's (doi:10.1101/116533, eq. 5) looks where the tails of the histogram start
to leave the model. The other one counts mistakes: how many good pixels lie beyond a threshold, the
model tells; how many outliers, the histogram then tells. Where outliers found less good pixels
lost is largest, the fewest pixels are mistaken: beyond it a pixel is more likely an outlier than
not (a local false discovery rate of 1/2: Efron 2004, doi:10.1198/016214504000000089).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.fit import DistributionFit

# The preprint's, for stacks without tails.
_DEFAULT_DARK, _DEFAULT_HOT = -4.0, 3.25
# Nearer to the centre than this a histogram tells nothing of single outliers.
_NEAREST = 3.0
# Fewer edges than this are no tail; more than this are as many as are needed.
_FEWEST, _TAIL_POINTS = 5, 256
# How improbable it may be that all pixels between two thresholds are good ones.
_BY_CHANCE = 0.2

Values = npt.NDArray[np.float64]


class Thresholds(NamedTuple):
    """Thresholds in standard deviations, and where each comes from if not from the histogram.

    Parameters
    ----------
    dark, hot : float
        A pixel below `dark` or above `hot` is an outlier.
    dark_is_default, hot_is_default : bool
        The histogram had no tail to tell.
    dark_is_given, hot_is_given : bool
        Somebody has set it.
    """

    dark: float
    hot: float
    dark_is_default: bool = False
    hot_is_default: bool = False
    dark_is_given: bool = False
    hot_is_given: bool = False


@dataclass(frozen=True)
class TailFit:
    """A line through the residual of one tail: residual = slope · sigma + offset (eq. 5).

    Parameters
    ----------
    slope, offset : float
        Of the line.
    sigma : tuple of float
        Between which it was fitted.
    """

    slope: float
    offset: float
    sigma: tuple[float, float]

    @property
    def intercept(self) -> float:
        """Where the line says that the tail begins."""
        return -self.offset / self.slope if self.slope else np.nan


def fit_tails(fit: DistributionFit, limit: float) -> tuple[TailFit | None, TailFit | None]:
    """Fit lines to the dark and the hot tail's residual, where it exceeds `limit`.

    *Both* sides have |residual| > limit; the preprint's eq. 5 means its sign to tell them apart,
    but it is the side of the centre that does. None where fewer than five edges do.
    """
    residual = fit.residual
    far = np.isfinite(residual) & (np.abs(residual) > limit)
    tails = (far & (fit.sigma < 0), far & (fit.sigma > 0))
    dark, hot = (
        _fit_tail(fit.sigma[tail], residual[tail]) if np.count_nonzero(tail) >= _FEWEST else None
        for tail in tails
    )
    return dark, hot


def intercepts(dark: TailFit | None, hot: TailFit | None) -> Thresholds:
    """Give the preprint's thresholds: where the tails' lines reach zero (eq. 5).

    A line that does so on the wrong side of the centre says no more than a missing one.
    """
    t_dark = dark.intercept if dark is not None else np.nan
    t_hot = hot.intercept if hot is not None else np.nan
    no_dark, no_hot = not -np.inf < t_dark < 0, not 0 < t_hot < np.inf
    return Thresholds(
        _DEFAULT_DARK if no_dark else t_dark, _DEFAULT_HOT if no_hot else t_hot, no_dark, no_hot
    )


def fewest_mistakes(fit: DistributionFit) -> Thresholds:
    """Give the thresholds for which the fewest pixels are taken for what they are not.

    Of those that differ by less than half the standard error of the pixels between them, it is
    the farthest. Where no more outliers are found than good pixels lost, but for what chance may
    do, the default is the one beyond which half a good pixel is expected, at 4 sigma at least.
    """
    below = fit.cdf * fit.n_pixels
    default = max(4.0, float(-scipy.special.ndtri(0.5 / fit.n_pixels)))
    dark, no_dark = _fewest(-fit.sigma, below, fit.n_pixels, default)
    hot, no_hot = _fewest(fit.sigma, fit.n_pixels - below, fit.n_pixels, default)
    return Thresholds(-dark, hot, no_dark, no_hot)


def weight(sigma: Values, thresholds: Thresholds, order: float, relaxation: float) -> Values:
    """Give how much of a pixel's own value is kept, 0 to 1 (eq. 6).

    Parameters
    ----------
    sigma : ndarray
        The pixel's distance from the centre in standard deviations.
    thresholds : Thresholds
        The weight is 1/2 at `relaxation` times each of them.
    order : float
        Steepness k of the logistic functions.
    relaxation : float
        The factor ρ.

    Returns
    -------
    ndarray
    """
    above = scipy.special.expit(order * (sigma - relaxation * thresholds.dark))
    beneath = scipy.special.expit(-order * (sigma - relaxation * thresholds.hot))
    product: Values = above * beneath
    return product


def _fit_tail(sigma: Values, residual: Values) -> TailFit:
    """Fit a line by least absolute deviations.

    Such a line passes through two of the points: of the best through each point, the best.
    """
    # At many electrons the edges are dense; so many tell as much.
    step = -(-len(sigma) // _TAIL_POINTS)
    sigma, residual = sigma[::step], residual[::step]
    best = (np.inf, 0.0, 0.0)
    for x, y in zip(sigma, residual, strict=True):
        apart = sigma - x
        others = apart != 0
        if not others.any():
            continue
        slopes = (residual[others] - y) / apart[others]
        order = np.argsort(slopes)
        # The median of the slopes, weighted by the distances, is the best through this point.
        cumulated = np.cumsum(np.abs(apart[others])[order])
        slope = float(slopes[order][np.searchsorted(cumulated, cumulated[-1] / 2)])
        offset = float(y - slope * x)
        error = float(np.abs(residual - slope * sigma - offset).sum())
        best = min(best, (error, slope, offset))
    return TailFit(best[1], best[2], (float(sigma.min()), float(sigma.max())))


def _fewest(distance: Values, beyond: Values, n_pixels: int, default: float) -> tuple[float, bool]:
    """Give the distance that mistakes fewest pixels, of those at which pixels beyond are known."""
    order = np.argsort(distance)
    order = order[distance[order] > _NEAREST]
    distance, beyond = distance[order], beyond[order]
    # Outliers found (beyond less the good ones) less good pixels lost.
    lost = n_pixels * scipy.special.ndtr(-distance)
    gained = beyond - 2 * lost
    if not gained.size:
        return default, True
    best = int(gained.argmax())
    if gained[best] <= np.sqrt(beyond[best]):
        return default, True
    # By chance as many more pixels may lie between here and there; then the farther one is as good.
    # So it is where these few may all be good ones.
    more, good = np.maximum(beyond[best] - beyond, 0), np.maximum(lost[best] - lost, 1e-12)
    as_good = gained >= gained[best] - np.sqrt(more) / 2
    as_good |= scipy.special.pdtrc(more - 1, good) > _BY_CHANCE
    as_good &= (gained > 0) & (distance >= distance[best])
    as_good[best] = True
    return float(distance[as_good].max()), False
