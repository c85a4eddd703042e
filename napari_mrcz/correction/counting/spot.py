"""The spot that an electron leaves: a normal distribution, integrated over square pixels.

Also whether spots that overlap are one electron or two, and where each of two struck.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy

REACH = 2
"""Pixels of a spot to either side of its centre."""

_AWAY = np.arange(-REACH, REACH + 1)
# Table of profiles: shifts to either side, and entries for each pixel.
_BEYOND, _PER_PIXEL = 6, 512
# Steps of the fit of single spots.
_STEPS = 4
# Largest distance from the middle of the brightest pixel, in pixels; narrow spots that are farther
# away than half a pixel leave their charge in another one.
FARTHEST, _NARROW_FARTHEST = 0.9, 0.55
# Standard deviations of a spot, in pixels, that are tried, and shifts in a pixel that are averaged.
_SPREADS, _SHIFTS = (0.15, 1.2), 100
# The fit of narrower spots would not converge from the middle: it starts at the best of so many
# places along each axis, so far from the middle.
_NARROW, _PLACES, _AROUND = 0.42, 13, 0.6
# Least share of the spots that are single electrons: the best fits are taken for these.
_SINGLE = 0.8
# Sum of squares, in the noise's variance, that five more parameters rarely explain by chance.
_SUSPICIOUS = 4.5
# Half of the distance of two electrons, in pixels, that can be resolved.
_SHORTEST = 0.1

Values = npt.NDArray[np.float64]


def profile(shift: Values, spread: float) -> tuple[Values, Values]:
    """Return the shares of spots in the pixels along one axis, and their slope by the shift.

    Both are (m, 2 REACH + 1), from a table: hundreds of thousands of spots are drawn repeatedly.
    `shift` (m,): of each spot from the middle of the central pixel, in pixels; `spread`: standard
    deviation of the spots in pixels.
    """
    table = _table(spread)
    at = (np.clip(shift, -_BEYOND, _BEYOND) + _BEYOND) * _PER_PIXEL
    row = at.astype(np.intp)
    part = (at - row)[:, np.newaxis]
    both = table[row]
    both += part * (table[row + 1] - both)
    return both[:, : len(_AWAY)], both[:, len(_AWAY) :]


@lru_cache(maxsize=8)
def _table(spread: float) -> Values:
    """Return `profile` for every possible shift, in steps that lines join."""
    number = 2 * _BEYOND * _PER_PIXEL
    shift = np.arange(number + 2) / _PER_PIXEL - _BEYOND
    edges = np.append(_AWAY - 0.5, _AWAY[-1] + 0.5) - shift[:, np.newaxis]
    scaled = edges / (np.sqrt(2) * spread)
    density = np.exp(-np.square(scaled)) / (np.sqrt(2 * np.pi) * spread)
    return np.concatenate(
        [0.5 * np.diff(scipy.special.erf(scaled), axis=1), -np.diff(density, axis=1)], axis=1
    )


def first_position(patches: Values, spread: float) -> Values:
    """Return the start (y, x) of a fit of a spot to each patch (m, k, k), in pixels, (m, 2).

    That is the middle, except for narrow spots, whose slopes are too small beside the brightest
    pixel: there it is the best of some places.
    """
    if spread >= _NARROW or not len(patches):
        return np.zeros((len(patches), 2))
    places = np.linspace(-_AROUND, _AROUND, _PLACES)
    along = profile(places, spread)[0]
    along /= np.sqrt(_dot(along, along))[:, np.newaxis]
    matched = along @ (patches @ along.T)
    y, x = np.divmod(matched.reshape(len(patches), -1).argmax(axis=1), _PLACES)
    return np.stack([places[y], places[x]], axis=1)


def farthest(spread: float) -> float:
    """Return the largest distance of a spot from the middle of the brightest pixel, in pixels."""
    return FARTHEST if spread >= _NARROW else _NARROW_FARTHEST


def fit_spots(
    patches: Values, spread: float, start: Values | None = None, most: float = FARTHEST
) -> tuple[Values, Values, Values]:
    """Fit charge and position of a spot to each patch, by least squares (Gauss and Newton).

    `patches` (m, k, k): background subtracted; `start` (m, 2): positions (y, x), in pixels from the
    middle of the central pixel; `most`: largest distance from there along each axis. Returned are
    `charge` (m,), the sum of the spot in grey values; `position` (m, 2); `misfit` (m,), the mean
    squared residual.
    """
    position = first_position(patches, spread) if start is None else start.copy()
    for step in range(_STEPS + 1):
        # A spot is a product of one profile along y and one along x, so that sums over its pixels
        # are products of sums along its rows and columns.
        (gy, sy), (gx, sx) = profile(position[:, 0], spread), profile(position[:, 1], spread)
        along = np.einsum("mij,mj->mi", patches, gx)
        yy, xx = _dot(gy, gy), _dot(gx, gx)
        charge = _dot(gy, along) / (yy * xx)
        if step == _STEPS:
            break
        size = np.maximum(charge, 1e-9)
        across = np.einsum("mij,mj->mi", patches, sx)
        # The slopes are all but at right angles to each other and to the model.
        by_y = (_dot(sy, along) - charge * _dot(gy, sy) * xx) / (size * _dot(sy, sy) * xx)
        by_x = (_dot(gy, across) - charge * yy * _dot(gx, sx)) / (size * yy * _dot(sx, sx))
        position += np.stack([by_y, by_x], axis=1)
        np.clip(position, -most, most, out=position)
    left = np.einsum("mij,mij->m", patches, patches) - np.square(charge) * yy * xx
    return charge, position, np.maximum(left, 0) / len(_AWAY) ** 2


def _dot(one: Values, other: Values) -> Values:
    """Return the inner product of each row of one with that of another."""
    return np.einsum("mi,mi->m", one, other)


def pairs_in(
    patches: Values, position: Values, spread: float, noise: float
) -> tuple[npt.NDArray[np.bool_], Values]:
    """Find spots that may be two: electrons so close that there is only one brightest pixel.

    Two close, equal spots at p + d and p - d are nearly one at p and half of its second derivative
    along d: a linear fit of the spot, its first and its second derivatives yields d.

    `patches` (m, k, k): background subtracted; `position` (m, 2): of the single spot that was
    fitted to each; `noise`: standard deviation of a pixel. Returned are `two` (m,): where the fit
    is better than noise explains; `apart` (m, 2): d.
    """
    y, x = _derivatives(position[:, 0], spread), _derivatives(position[:, 1], spread)
    orders = ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1))
    basis = np.stack([y[i][:, :, np.newaxis] * x[j][:, np.newaxis] for i, j in orders], axis=1)
    basis = basis.reshape(len(patches), len(orders), -1)
    values = patches.reshape(len(patches), -1)
    charge = (values * basis[:, 0]).sum(1) / np.square(basis[:, 0]).sum(1)
    alone = np.square(values - charge[:, np.newaxis] * basis[:, 0]).sum(1)
    normal = basis @ basis.transpose(0, 2, 1)
    right = basis @ values[:, :, np.newaxis]
    try:
        found = np.linalg.solve(normal, right)[:, :, 0]
    except np.linalg.LinAlgError:
        # The derivatives of very narrow spots vanish in the middle of a pixel.
        found = (np.linalg.pinv(normal, hermitian=True) @ right)[:, :, 0]
    left = np.square(values - (found[:, np.newaxis] @ basis)[:, 0]).sum(1)
    spot = np.maximum(found[:, 0], 1e-9)
    outer = np.empty((len(patches), 2, 2))
    outer[:, 0, 0], outer[:, 1, 1] = 2 * found[:, 3] / spot, 2 * found[:, 4] / spot
    outer[:, 0, 1] = outer[:, 1, 0] = found[:, 5] / spot
    lengths, directions = np.linalg.eigh(outer)
    longest = lengths[:, -1]
    apart = np.sqrt(np.clip(longest, 0, 1))[:, np.newaxis] * directions[:, :, -1]
    two = (alone - left > _SUSPICIOUS * noise**2) & (longest > _SHORTEST**2)
    return two, apart


def _derivatives(shift: Values, spread: float) -> tuple[Values, Values, Values]:
    """Return `profile`, and its first and second derivative by the shift."""
    edges = np.append(_AWAY - 0.5, _AWAY[-1] + 0.5) - shift[:, np.newaxis]
    density = np.exp(-np.square(edges / spread) / 2) / (np.sqrt(2 * np.pi) * spread)
    gathered, slope = profile(shift, spread)
    return gathered, slope, -np.diff(density * edges, axis=1) / spread**2


def fit_spread(patches: Values) -> float:
    """Return the standard deviation, in pixels, of single spots from their patches (m, k, k).

    It is fitted to their mean: electrons strike anywhere in the brightest pixel, so that it is the
    profile's mean over all shifts, however narrow the spots.
    """
    spread = _spread_of(patches.mean(axis=0))
    for _ in range(2):
        charge, _, misfit = fit_spots(patches, spread, most=farthest(spread))
        # The worst are pairs that pass for one.
        order = np.argsort(misfit / np.square(np.maximum(charge, 1e-9)))
        spread = _spread_of(patches[order[: int(_SINGLE * len(patches))]].mean(axis=0))
    return spread


def _spread_of(mean: Values) -> float:
    """Fit the spread, a charge and a background to the mean of many spots."""
    shifts = (np.arange(_SHIFTS) + 0.5) / _SHIFTS - 0.5

    def misfit(spread: float) -> float:
        along = profile(shifts, spread)[0].mean(axis=0)
        terms = np.stack([np.outer(along, along).reshape(-1), np.ones(mean.size)], axis=1)
        left = mean.reshape(-1) - terms @ np.linalg.lstsq(terms, mean.reshape(-1))[0]
        return float(left @ left)

    return float(scipy.optimize.minimize_scalar(misfit, bounds=_SPREADS, method="bounded").x)


# Spots closer than this, in pixels, are looked at together.
_CLOSE = 1.9
# Largest distance of two spots from the middle of a patch, in pixels, and steps of their fit.
_FARTHEST, _TURNS = 2.0, 12
_PIXELS = (2 * REACH + 1) ** 2
# Sum of squares, in the noise's variance, that three more parameters must explain: without the
# electrons' usual charge, and with it...
_UNLIKELY, _UNLIKELY_CHARGES = 9.5, 10.5
# ...beside the part of the charge squared by which spots differ from their model.
_MISFIT = 3e-4
# Squared residuals of 25 pixels, in the noise's variance, that two spots leave if there are two.
_EXPLAINED = 50.0
# Spots of so many usual charges are tried as two; the most that an unusual charge tells.
_BRIGHT, _UNUSUAL = 1.6, 8.0


def resolve(
    left: Values,
    where: Values,
    charge: Values,
    *,
    spread: float,
    threshold: float,
    noise: float,
    most: float = FARTHEST,
    usual: tuple[float, ...] = (),
) -> tuple[Values, Values]:
    """Fit one spot and two to spots that lie close together, and keep the likelier.

    `left` (y, x): the frame without the spots that were found; `where` (m, 2): those spots, (y, x)
    in pixels of `left`; `charge` (m,): their charges; `threshold`: charge from which a spot is an
    electron; `noise`: standard deviation of a pixel; `most`: see `fit_spots`; `usual`: mean and
    standard deviation of the charges, if known. Returned are `where` (k, 2), `charge` (k,).
    """
    if not len(where):
        return where, charge
    group = _groups(where)
    number = np.bincount(group)
    total = np.bincount(group, charge)
    centre = np.stack([np.bincount(group, charge * where[:, i]) / total for i in (0, 1)], axis=1)
    last = np.array(left.shape) - REACH - 1
    middle = np.clip(np.rint(centre), REACH, last).astype(np.intp)
    rows, columns = middle[:, 0, np.newaxis] + _AWAY, middle[:, 1, np.newaxis] + _AWAY
    patches = left[rows[:, :, np.newaxis], columns[:, np.newaxis]]
    np.add.at(patches, group, models(where - middle[group], charge, spread))

    one_charge, one, misfit = fit_spots(
        patches, spread, np.clip(centre - middle, -FARTHEST, FARTHEST), most
    )
    one_left = misfit * _PIXELS
    maybe, apart = pairs_in(patches, one, spread, noise)
    typical, pull, unlikely, unusual = 0.0, 0.0, _UNLIKELY * noise**2, np.zeros(len(one_charge))
    if usual:
        # Two electrons of the usual charge are likelier than one of twice as much.
        typical, pull = usual[0], (noise / usual[1]) ** 2
        unusual = np.minimum(pull * np.square(one_charge - typical), _UNUSUAL * noise**2)
        unlikely = _UNLIKELY_CHARGES * noise**2
        maybe |= one_charge > _BRIGHT * typical
        # Two in one place would never come apart.
        apart[np.abs(apart).max(axis=1) < _SHORTEST] = _SHORTEST
    start = np.stack([one + apart, one - apart], axis=1)
    # Where two were found, these are a better start.
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.nonzero(number == 2)[0])
    both = np.stack([where[order[first]], where[order[first + 1]]], axis=1)
    start[number == 2] = both - middle[number == 2][:, np.newaxis]
    tried = np.nonzero(maybe | (number > 1))[0]
    two, two_charge, two_left = _fit_two(
        patches[tried], start[tried], one_charge[tried] / 2, spread, typical, pull
    )
    chance = _MISFIT * one_charge[tried] ** 2
    better = (one_left + unusual)[tried] - two_left > unlikely + chance
    better &= two_charge.min(axis=1) > threshold
    # Spots that not even two explain are three or more, which stay as they were found.
    more = (number[tried] > 2) & (two_left > _EXPLAINED * noise**2 + chance)
    of_pair = better & ~more
    pair = tried[of_pair]
    several = np.isin(group, tried[more])
    single = one_charge > threshold
    single[pair] = single[tried[more]] = False
    pairs = two[of_pair] + middle[pair][:, np.newaxis]
    return (
        np.concatenate([one[single] + middle[single], pairs.reshape(-1, 2), where[several]]),
        np.concatenate([one_charge[single], two_charge[of_pair].reshape(-1), charge[several]]),
    )


def models(position: Values, charge: Values, spread: float) -> Values:
    """Draw spots, each on pixels of its own: (m, k, k)."""
    (gy, _), (gx, _) = profile(position[:, 0], spread), profile(position[:, 1], spread)
    return charge[:, np.newaxis, np.newaxis] * gy[:, :, np.newaxis] * gx[:, np.newaxis]


def _groups(where: Values) -> npt.NDArray[np.int32]:
    """Return a number for each spot, the same for those close to each other."""
    n = len(where)
    near = scipy.spatial.cKDTree(where).query_pairs(_CLOSE, output_type="ndarray")
    links = scipy.sparse.coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(n, n))
    return scipy.sparse.csgraph.connected_components(links, directed=False)[1]


def _fit_two(
    patches: Values, position: Values, charge: Values, spread: float, typical: float, pull: float
) -> tuple[Values, Values, Values]:
    """Fit two spots to each patch by least squares (Levenberg and Marquardt).

    Returned are `position`, `charge` (m, 2, 2); `left` (m,): sum of the squared residuals, and of
    `pull` times the squared difference of charges from a `typical` one.
    """
    values = patches.reshape(len(patches), _PIXELS)
    charge = np.repeat(charge[:, np.newaxis], 2, axis=1)
    slopes, residual = _slopes(values, position, charge, spread)
    left = np.square(residual).sum(1) + pull * np.square(charge - typical).sum(1)
    damping = np.full(len(patches), 0.01)
    for _ in range(_TURNS):
        normal = slopes @ slopes.transpose(0, 2, 1)
        right = slopes @ residual[:, :, np.newaxis]
        right[:, :2, 0] += pull * (typical - charge)
        diagonal = np.einsum("mii->mi", normal)  # a view: this adds to it
        diagonal[:, :2] += pull
        diagonal += damping[:, np.newaxis] * diagonal
        diagonal += 1e-9 * diagonal.max(axis=1, keepdims=True) + 1e-12
        step = np.linalg.solve(normal, right)[:, :, 0]
        next_charge = np.maximum(charge + step[:, :2], 1e-3)
        moved = position + np.stack([step[:, 2:4], step[:, 4:]], axis=-1)
        moved = np.clip(moved, -_FARTHEST, _FARTHEST)
        next_slopes, next_residual = _slopes(values, moved, next_charge, spread)
        next_left = np.square(next_residual).sum(1)
        next_left += pull * np.square(next_charge - typical).sum(1)
        good = next_left < left
        charge[good], position[good] = next_charge[good], moved[good]
        slopes[good], residual[good] = next_slopes[good], next_residual[good]
        left[good] = next_left[good]
        damping = np.clip(np.where(good, damping / 5, damping * 5), 1e-6, 1e4)
    return position, charge, left


def _slopes(
    values: Values, position: Values, charge: Values, spread: float
) -> tuple[Values, Values]:
    """Return derivatives of two spots by charges, rows and columns (m, 6, p), and the residual."""
    gathered, slope = profile(position.reshape(-1), spread)
    shape = (*position.shape, 2 * REACH + 1)
    gathered, slope = gathered.reshape(shape), slope.reshape(shape)
    gy, gx = gathered[:, :, 0, :, np.newaxis], gathered[:, :, 1, np.newaxis]
    sy, sx = slope[:, :, 0, :, np.newaxis], slope[:, :, 1, np.newaxis]
    size = charge[:, :, np.newaxis, np.newaxis]
    by = np.concatenate([gy * gx, size * sy * gx, size * gy * sx], axis=1)
    flat = by.reshape(len(values), 6, _PIXELS)
    return flat, values - (charge[:, :, np.newaxis] * flat[:, :2]).sum(1)
