"""The charge from which a spot is an electron: where the fewest mistakes are made.

Too low a threshold counts noise, too high a one misses electrons that left little. How often noise
alone looks like a spot of some charge is counted in frames turned upside down (what the electrons
that were found leave of them, times -1): there all spots are false. The other spots are electrons.
Their charges have a gamma or a lognormal distribution, whichever fits better, widened by the
noise; it tells how many lie below any threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

# Steps of the charges, in standard deviations of the noise, and thresholds that are tried.
_STEP, _TRIED = 0.25, 400
# Charges up to this quantile are fitted: above are pairs and X-rays.
_HIGHEST = 0.8
# Noise makes hardly a spot above so many standard deviations; fewer such spots are not fitted.
_SURE = 5.0
_FEWEST = 30
# Share of electrons that may lie above the upper threshold, which is so many medians at least.
_ABOVE, _LEAST_MEDIANS = 1e-3, 4.0
# Charges that become rare more slowly than with this power have no end that could be told.
_LEAST_POWER = 2.0
_LEAST = 1e-300
# What two thresholds that are as good may differ by in F1.
_AS_GOOD = 0.0002
# Relative error of how often noise alone looks like a spot.
_UNSURE = 0.1

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Expected:
    """What a threshold is expected to do to electrons that are alone.

    Attributes
    ----------
    threshold : float
        Charge in grey values.
    recall, precision : float
        Shares of electrons that are counted, and of counts that are electrons.
    """

    threshold: float
    recall: float
    precision: float


def fewest_mistakes(
    charges: npt.ArrayLike,
    false: npt.ArrayLike,
    least: float,
    noise: float,
    threshold: float | None = None,
) -> Expected | None:
    """Return the threshold with the fewest false and missed electrons for each that is found.

    Parameters
    ----------
    charges : array_like
        Of spots that are alone, above `least`.
    false : array_like
        Of those in the same pixels that noise alone makes.
    least : float
        From which charge on they are known, in grey values.
    noise : float
        Standard deviation of a charge that was measured, in grey values.
    threshold : float, optional
        Where one is given, only what it does is told.

    Returns
    -------
    Expected or None
        None where there are too few spots to say.
    """
    found, wrong = np.asarray(charges, np.float64), np.asarray(false, np.float64)
    sure = found[found > max(_SURE * noise, least)]
    if len(sure) < _FEWEST:
        return None
    top = float(np.quantile(sure, _HIGHEST))
    edges = np.arange(least, max(top, least + 4 * noise) + noise, _STEP * noise)
    width = _noise_width(wrong, least, noise)
    number, _ = np.histogram(found, edges)
    share_false = -np.diff(_tail(edges, width) / _tail(edges[:1], width))
    typical = float(np.median(sure))
    fitted = _fit_true(number, len(wrong) * share_false, edges, noise, typical)
    if fitted is None:
        return None
    grid, density, total = fitted
    tried = (
        np.linspace(least, max(top, 1.5 * least), _TRIED)
        if threshold is None
        else np.array([max(threshold, least)])
    )
    missed = total * np.interp(tried, grid, np.cumsum(density))
    mistaken = len(wrong) * _tail(tried, width) / _tail(np.array([least]), width)
    # F1 is nearly constant around its maximum: there electrons are missed rather than false ones
    # counted, and coincidence loses more. So it is the lowest threshold that is as good.
    f1 = 2 * (total - missed) / np.maximum(2 * total - missed + mistaken, _LEAST)
    best = int(np.argmax(f1 >= f1.max() - _AS_GOOD))
    hit = total - missed[best]
    return Expected(
        float(tried[best]), float(hit / total), float(hit / max(hit + mistaken[best], 1e-9))
    )


def upper_threshold(charges: npt.ArrayLike) -> float | None:
    """Return the charge above which there is hardly an electron; None if that cannot be told.

    From how fast the charges become rare: a power of the charge through the quantiles 0.84 and
    0.95, which falls more slowly than what it stands for, and which X-rays do not reach.
    """
    found = np.asarray(charges, np.float64)
    if len(found) < _FEWEST:
        return None
    median, some, most = np.quantile(found, (0.5, 0.84, 0.95))
    power = np.log(0.16 / 0.05) / np.log(max(most / some, 1 + 1e-6))
    if power < _LEAST_POWER:
        return None
    return float(max(_LEAST_MEDIANS * median, some * (0.16 / _ABOVE) ** (1 / power)))


def _tail(charge: Values, width: float) -> Values:
    """Return the share of noise above a charge, a normal distribution's."""
    above: Values = scipy.special.erfc(charge / (np.sqrt(2) * width)) / 2
    return np.maximum(above, _LEAST)


def _noise_width(wrong: Values, least: float, noise: float) -> float:
    """Fit the width of the normal distribution whose tail the false charges are."""
    if len(wrong) < _FEWEST:
        return noise
    mean = float(np.mean(wrong)) - least
    # The mean of a tail above its beginning tells the width.
    widths = np.linspace(0.5, 2.5, 401) * noise
    normal = np.exp(-np.square(least / widths) / 2) / np.sqrt(2 * np.pi)
    means = widths * normal / _tail(np.full(len(widths), least) / widths, 1.0) - least
    return float(np.interp(mean, means, widths))


def _fit_true(
    number: npt.NDArray[np.int64], false: Values, edges: Values, noise: float, typical: float
) -> tuple[Values, Values, float] | None:
    """Fit what the electrons' charges are, by least squares of a histogram.

    Returns
    -------
    grid, density : ndarray
        Charges, and the share of electrons that are measured with each.
    total : float
        How many electrons there are, those below the histogram included.
    """
    step = edges[1] - edges[0]
    top = edges[-1] * 4
    grid = np.arange(step / 2, top, step)
    apart = edges[:, np.newaxis] - grid
    below = scipy.special.erfc(-apart / (np.sqrt(2) * noise)) / 2
    into = np.diff(below, axis=0)  # of each true charge, into each bin of the histogram
    # Where noise makes most spots, how many it makes is not known well enough to tell the rest.
    variance = np.maximum(number, 1) + false + np.square(_UNSURE * false)

    def shares(free: Values, kind: str) -> Values:
        log_mean, log_width = np.clip(free, (-1, -4), (1, 0))
        mean, width = typical * np.exp(log_mean), np.exp(log_width)
        if kind == "gamma":
            k = 1 / width**2
            logs = (k - 1) * np.log(grid) - grid * k / mean
        else:
            logs = -np.log(grid) - np.square(np.log(grid / mean) / width) / 2
        density = np.exp(logs - logs.max())
        return np.asarray(density / density.sum())

    def misfit(free: Values, kind: str) -> float:
        # How many there are is what makes the histogram's total right.
        expected = into @ shares(free, kind)
        seen = expected.sum()
        if not seen > 1e-6:
            return 1e30
        total = max(number.sum() - false.sum(), 1.0) / seen
        left = number - total * expected - false
        return float(np.sum(np.square(left) / variance)) + 1e-3 * float(np.square(free).sum())

    best: tuple[float, Values, str] | None = None
    for kind in ("lognormal", "gamma"):
        for width in (0.3, 0.7):
            start = np.array([0.0, np.log(width)])
            found = scipy.optimize.minimize(
                misfit, start, (kind,), method="Nelder-Mead", options={"maxiter": 120}
            )
            if best is None or found.fun < best[0]:
                best = float(found.fun), found.x, kind
    if best is None:
        return None
    share = shares(best[1], best[2])
    seen = float((into @ share).sum())
    measured = np.arange(-4 * noise, top, step)
    blurred = np.exp(-np.square((measured[:, np.newaxis] - grid) / noise) / 2) @ share
    return measured, blurred / blurred.sum(), float(max(number.sum() - false.sum(), 1.0) / seen)
