"""Electrons of a frame: spots are found and fitted, and the threshold of their charge is chosen.

Too low a threshold of charge counts noise, too high a one misses electrons that left little. False
spots are counted in inverted frames (the residual, times -1), where all spots are noise. The other
spots are electrons. Their charges have a gamma or a lognormal distribution, whichever fits better,
widened by the noise; it predicts how many lie below any threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.counting.spot import (
    REACH,
    farthest,
    first_position,
    fit_spots,
    models,
    profile,
    resolve,
)
from napari_mrcz.correction.sums import in_order

# Number of searches: of the frame, then of the residual.
_ROUNDS = 3
# Threshold for a spot that touches one found before, over the threshold and the usual charge.
_BESIDE, _BESIDE_USUAL = 2.0, 0.4
# Positions are rounded to this many decimals, the same in images and tables: pixels' edges are on
# this grid.
_DECIMALS = 3
# Events within this distance of one too bright for an electron are parts of it, in pixels.
_PARTS = REACH + 1.5
# Spots wider than this, in pixels, are searched in a blurred frame: in the frame itself noise gives
# them several brightest pixels.
_WIDE = 0.6
# Rows that are searched in one thread, and rows beyond: those of a spot and of others beside it.
_STRIP, _MARGIN = 256, 6 * REACH

Values = npt.NDArray[np.float64]


class Events(NamedTuple):
    """Electrons of one frame."""

    y: npt.NDArray[np.float32]  # Where they struck, in pixels; the middle of the first pixel is 0
    x: npt.NDArray[np.float32]
    charge: npt.NDArray[np.float32]  # What each left, in grey values

    def __len__(self) -> int:
        """Return the number of electrons."""
        return len(self.y)


def find_events(
    frame: npt.NDArray[Any],
    spread: float,
    threshold: float,
    noise: float,
    *,
    noisy: npt.NDArray[np.bool_] | None = None,
    rules: int = 3,
    usual: tuple[float, ...] = (),
) -> Events:
    """Find the electrons of a frame.

    Spots are fitted to pixels brighter than their neighbours. The residual may show others close
    by, so that it is searched, too, and all are fitted again beside each other. Those that overlap
    are fitted together in the end.

    `frame` (y, x): background subtracted; `spread`: standard deviation of the spots, in pixels;
    `threshold`: charge from which a spot is an electron, in grey values; `noise`: standard
    deviation of a pixel, in grey values; `noisy` (y, x): pixels that are ignored; `rules`: 3 or
    more, or less to replay earlier histories, 2: wide spots are searched in the frame as it is; 1:
    also, all pixels count, positions are not rounded, and spots narrower than 0.4 pixel are not
    fitted to convergence; `usual`: see `resolve`. The result lies within the frame, in whole
    thousandths of a pixel.
    """
    rows, columns = frame.shape

    def part(top: int) -> Values:
        bottom = min(top + _STRIP, rows)
        first, last = max(0, top - _MARGIN), min(bottom + _MARGIN, rows)
        strip = np.pad(frame[first:last].astype(np.float64), REACH)
        # Pixels beyond the edges are unknown, too.
        unknown = np.full(strip.shape, rules > 1)
        ignored = noisy[first:last] if noisy is not None and rules > 1 else False
        unknown[REACH:-REACH, REACH:-REACH] = ignored
        narrow = spread if rules > 1 else np.inf
        blurred = rules > 2 and spread > _WIDE
        y, x, charge = _in_strip(strip, spread, threshold, noise, unknown, narrow, usual, blurred)
        y += first - REACH
        x -= REACH
        if rules > 1:
            y = np.clip(np.round(y, _DECIMALS), -0.5, rows - 0.5 - 10**-_DECIMALS)
            x = np.clip(np.round(x, _DECIMALS), -0.5, columns - 0.5 - 10**-_DECIMALS)
        own = (y >= top - 0.5) & (y < bottom - 0.5)
        return np.stack([y, x, charge])[:, own]

    with in_order(part, range(0, rows, _STRIP), "napari-mrcz-count") as ended:
        y, x, charge = np.concatenate(list(ended), axis=1).astype(np.float32)
    return Events(y, x, charge)


def without_bright(events: Events, upper: float) -> tuple[Events, int]:
    """Return events without those brighter than `upper`, such as X-rays, and their number.

    Events beside bright ones are left out as well.
    """
    bright = events.charge > upper
    if not bright.any():
        return events, 0
    where = np.stack([events.y, events.x], axis=1)
    distance, _ = scipy.spatial.cKDTree(where[bright]).query(where, distance_upper_bound=_PARTS)
    groups = scipy.spatial.cKDTree(where[bright]).query_pairs(_PARTS, output_type="ndarray")
    # Of bright events beside each other all but the first are parts of it.
    n_bright = int(bright.sum()) - len(np.unique(groups[:, 1]))
    return Events(*(column[np.isinf(distance)] for column in events)), n_bright


def draw(events: Events, spread: float, shape: tuple[int, ...]) -> Values:
    """Return the image (y, x) of some electrons."""
    where = np.stack([events.y, events.x], axis=1).astype(np.float64)
    middle = np.rint(where).astype(np.intp)
    padded = (shape[0] + 2 * REACH, shape[1] + 2 * REACH)
    at = (middle[:, 0] + REACH) * padded[1] + middle[:, 1] + REACH
    _, index = patches_at(np.zeros(padded), at)
    spots = models(where - middle, events.charge.astype(np.float64), spread)
    return _drawn(spots, index, padded)[REACH:-REACH, REACH:-REACH]


def peaks(frame: Values, least: float) -> npt.NDArray[np.intp]:
    """Return flat indices of pixels above `least` and brighter than their eight neighbours.

    Of equal ones the last counts; the outermost REACH pixels are not looked at.
    """
    rows, columns = frame.shape
    inner = frame[REACH:-REACH, REACH:-REACH]
    found = inner > least
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            other = frame[REACH + dy : rows - REACH + dy, REACH + dx : columns - REACH + dx]
            found &= (inner > other) if (dy, dx) > (0, 0) else (inner >= other)
    y, x = np.nonzero(found)
    return (y + REACH) * columns + x + REACH


def patches_at(frame: Values, at: npt.NDArray[np.intp]) -> tuple[Values, npt.NDArray[np.intp]]:
    """Return the pixels around some flat indices, (m, k, k), and the flat indices of these."""
    away = np.arange(-REACH, REACH + 1)
    offsets = away[:, np.newaxis] * frame.shape[1] + away
    index = at[:, np.newaxis, np.newaxis] + offsets
    return frame.reshape(-1)[index], index


def _in_strip(
    frame: Values,
    spread: float,
    threshold: float,
    noise: float,
    unknown: npt.NDArray[np.bool_],
    narrow: float,
    usual: tuple[float, ...],
    blurred: bool,
) -> tuple[Values, Values, Values]:
    """Find the electrons of a strip.

    `narrow`: the spread by which a fit is started; `blurred`: whether the frame is for the search.
    """
    along = profile(np.zeros(1), spread)[0][0]
    central = 1.0 if blurred else float(np.square(along.max()))
    # A spot midway between pixels is only half as bright.
    least = threshold * central / 2
    high = max([_BESIDE * threshold, *(_BESIDE_USUAL * mean for mean in usual[:1])])
    most = farthest(narrow)
    left = np.where(unknown, 0, frame)
    at = np.empty(0, np.intp)
    position, charge, enough = np.empty((0, 2)), np.empty(0), np.empty(0)
    touching = np.add.outer(np.arange(-1, 2) * frame.shape[1], np.arange(-1, 2)).ravel()
    for _ in range(_ROUNDS):
        searched = left
        for axis in (0, 1) if blurred else ():
            # To the charge that a spot in the middle of each pixel would have.
            searched = scipy.ndimage.correlate1d(searched, along / (along @ along), axis)
        new = peaks(searched, least)
        new = new[~np.isin(new, at)]
        if not new.size:
            break
        # Beside a brighter spot noise and misfit gather: there the threshold is higher.
        marked = np.zeros(frame.size, np.bool_)
        marked[at] = True
        beside = marked[new[:, np.newaxis] + touching].any(axis=1)
        enough = np.concatenate([enough, np.where(beside, high, threshold)])
        at = np.concatenate([at, new])
        started = first_position(patches_at(left, new)[0], narrow)
        position = np.concatenate([position, started])
        charge = np.concatenate([charge, np.zeros(len(new))])
        for _ in range(2):
            # Each spot is fitted to the frame without all others.
            patches, index = patches_at(left, at)
            own = models(position, charge, spread)
            charge, position, _ = fit_spots(patches + own, spread, position, most)
            keep = charge > enough
            at, position, charge, enough = at[keep], position[keep], charge[keep], enough[keep]
            index = index[keep]
            left = frame - _drawn(models(position, charge, spread), index, frame.shape)
            left[unknown] = 0
    y, x = np.divmod(at, frame.shape[1])
    where, charge = resolve(
        left, np.stack([y, x], axis=1) + position, charge,
        spread=spread, threshold=threshold, noise=noise, most=most, usual=usual,
    )  # fmt: skip
    return where[:, 0], where[:, 1], charge


def _drawn(spots: Values, index: npt.NDArray[np.intp], shape: tuple[int, ...]) -> Values:
    """Add all spots into one image."""
    image = np.bincount(index.reshape(-1), spots.reshape(-1), shape[0] * shape[1])
    return image.astype(np.float64, copy=False).reshape(shape)


# Steps of the charges, in standard deviations of the noise, and number of thresholds tried.
_CHARGE_STEP, _TRIED = 0.25, 400
# Charges up to this quantile are fitted: above are pairs and X-rays.
_HIGHEST = 0.8
# Noise makes hardly a spot above so many standard deviations; fewer such spots are not fitted.
_SURE, _FEWEST = 5.0, 30
# Share of electrons that may lie above the upper threshold, and its least value in medians.
_ABOVE, _LEAST_MEDIANS = 1e-3, 4.0
# Charges that become rare more slowly than with this power have no upper threshold.
_LEAST_POWER = 2.0
_LEAST = 1e-300
# Largest difference in F1 of two thresholds that are equally good.
_AS_GOOD = 0.0002
# Relative error of the number of false spots.
_UNSURE = 0.1


@dataclass(frozen=True)
class Expected:
    """The expected effect of a threshold on electrons that are alone."""

    threshold: float  # Charge in grey values
    recall: float  # Shares of electrons that are counted, and of counts that are electrons
    precision: float


def electron_threshold(
    charges: npt.ArrayLike,
    false: npt.ArrayLike,
    least: float,
    noise: float,
    threshold: float | None = None,
) -> Expected | None:
    """Return the threshold with the fewest false and missed electrons for each that is found.

    `charges`: of spots that are alone, above `least`; `false`: of false spots in the same pixels;
    `least`: least charge that was searched, in grey values; `noise`: standard deviation of a
    measured charge, in grey values; `threshold`: the only one tried. None if there are too few
    spots.
    """
    found, wrong = np.asarray(charges, np.float64), np.asarray(false, np.float64)
    sure = found[found > max(_SURE * noise, least)]
    if len(sure) < _FEWEST:
        return None
    top = float(np.quantile(sure, _HIGHEST))
    edges = np.arange(least, max(top, least + 4 * noise) + noise, _CHARGE_STEP * noise)
    width = _noise_width(wrong, least, noise)
    number, _ = np.histogram(found, edges)
    share_false = -np.diff(_tail(edges, width) / _tail(edges[:1], width))
    typical = float(np.median(sure))
    grid, density, total = _fit_true(number, len(wrong) * share_false, edges, noise, typical)
    tried = np.linspace(least, max(top, 1.5 * least), _TRIED)
    if threshold is not None:
        tried = np.array([max(threshold, least)])
    missed = total * np.interp(tried, grid, np.cumsum(density))
    mistaken = len(wrong) * _tail(tried, width) / _tail(np.array([least]), width)
    # F1 is nearly constant around its maximum: there electrons are missed rather than false ones
    # counted, and coincidence loses more. So take the lowest threshold that is as good.
    f1 = 2 * (total - missed) / np.maximum(2 * total - missed + mistaken, _LEAST)
    best = int(np.argmax(f1 >= f1.max() - _AS_GOOD))
    hit = total - missed[best]
    return Expected(
        float(tried[best]), float(hit / total), float(hit / max(hit + mistaken[best], 1e-9))
    )


def upper_threshold(charges: npt.ArrayLike) -> float | None:
    """Return the charge above which there is hardly an electron; None if that is not known.

    Extrapolated by a power of the charge through the quantiles 0.84 and 0.95, which falls more
    slowly than the charges become rare; through 0.7 and 0.84 where X-rays reach the former.
    """
    found = np.asarray(charges, np.float64)
    if len(found) < _FEWEST:
        return None
    median, many, some, most = np.quantile(found, (0.5, 0.7, 0.84, 0.95))
    power = np.log(0.16 / 0.05) / np.log(max(most / some, 1 + 1e-6))
    before = np.log(0.3 / 0.16) / np.log(max(some / many, 1 + 1e-6))
    # No tail becomes so much flatter all at once.
    power = before if power < before / 2 else power
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
    # The mean of a tail above its beginning gives the width.
    widths = np.linspace(0.5, 2.5, 401) * noise
    normal = np.exp(-np.square(least / widths) / 2) / np.sqrt(2 * np.pi)
    means = widths * normal / _tail(np.full(len(widths), least) / widths, 1.0) - least
    return float(np.interp(mean, means, widths))


def _fit_true(
    number: npt.NDArray[np.int64], false: Values, edges: Values, noise: float, typical: float
) -> tuple[Values, Values, float]:
    """Fit the distribution of the electrons' charges to a histogram, by least squares.

    Returned are `grid`, `density`: charges, and the share of electrons that are measured with each;
    `total`: number of electrons, those below the histogram included.
    """
    step = edges[1] - edges[0]
    top = edges[-1] * 4
    grid = np.arange(step / 2, top, step)
    apart = edges[:, np.newaxis] - grid
    below = scipy.special.erfc(-apart / (np.sqrt(2) * noise)) / 2
    into = np.diff(below, axis=0)  # of each true charge, into each bin of the histogram
    # Where most spots are false, their number is not known well enough to infer the others.
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
        expected = into @ shares(free, kind)
        seen = expected.sum()
        if not seen > 1e-6:
            return 1e30
        total = max(number.sum() - false.sum(), 1.0) / seen
        left = number - total * expected - false
        return float(np.sum(np.square(left) / variance)) + 1e-3 * float(np.square(free).sum())

    fits = []
    for kind in ("lognormal", "gamma"):
        for width in (0.3, 0.7):
            start = np.array([0.0, np.log(width)])
            found = scipy.optimize.minimize(
                misfit, start, (kind,), method="Nelder-Mead", options={"maxiter": 120}
            )
            fits.append((found.fun, shares(found.x, kind)))
    _, share = min(fits, key=itemgetter(0))
    seen = float((into @ share).sum())
    measured = np.arange(-4 * noise, top, step)
    blurred = np.exp(-np.square((measured[:, np.newaxis] - grid) / noise) / 2) @ share
    return measured, blurred / blurred.sum(), float(max(number.sum() - false.sum(), 1.0) / seen)
