"""Spots that overlap: whether they are one electron or two, and where each of two struck."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.counting.spot import FARTHEST, REACH, fit_spots, pairs_in, profile

# Spots closer than this, in pixels, are looked at together.
_CLOSE = 1.9
# Pixels from the middle of a patch that a spot is looked for, and steps of its fit.
_FARTHEST = 2.0
_STEPS = 12
_PIXELS = (2 * REACH + 1) ** 2
# How much more three further parameters must explain than noise does, in its variance...
_UNLIKELY = 9.5
# ...and the part of the charge squared that spots differ from their model.
_MISFIT = 3e-4
# Squared residuals of 25 pixels, in the noise's variance, that two spots leave if there are two.
_EXPLAINED = 50.0

Values = npt.NDArray[np.float64]


def resolve(
    left: Values,
    where: Values,
    charge: Values,
    *,
    spread: float,
    threshold: float,
    noise: float,
    most: float = FARTHEST,
) -> tuple[Values, Values]:
    """Fit one spot and two to whatever lies close together, and keep what the pixels call for.

    Parameters
    ----------
    left : ndarray, shape (y, x)
        What the spots that were found leave of the frame.
    where : ndarray, shape (m, 2)
        Those spots, (y, x) in pixels of `left`.
    charge : ndarray, shape (m,)
        Their charges.
    spread : float
        Standard deviation of the spots, in pixels.
    threshold : float
        Charge from which a spot is an electron.
    noise : float
        Standard deviation of a pixel.
    most : float
        Distance of a single spot from its pixel's middle along each axis, in pixels.

    Returns
    -------
    where, charge : ndarray, shapes (k, 2) and (k,)
    """
    if not len(where):
        return where, charge
    group = _groups(where)
    number = np.bincount(group)
    total = np.bincount(group, charge)
    centre = np.stack([np.bincount(group, charge * where[:, i]) / total for i in (0, 1)], axis=1)
    last = np.array(left.shape) - REACH - 1
    middle = np.clip(np.rint(centre), REACH, last).astype(np.intp)
    away = np.arange(-REACH, REACH + 1)
    rows, columns = middle[:, 0, np.newaxis] + away, middle[:, 1, np.newaxis] + away
    patches = left[rows[:, :, np.newaxis], columns[:, np.newaxis]]
    np.add.at(patches, group, models(where - middle[group], charge, spread))

    one_charge, one, misfit = fit_spots(
        patches, spread, np.clip(centre - middle, -FARTHEST, FARTHEST), most
    )
    one_left = misfit * _PIXELS
    maybe, apart = pairs_in(patches, one, spread, noise)
    start = np.stack([one + apart, one - apart], axis=1)
    # Where two were found, these are a better start.
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.nonzero(number == 2)[0])
    start[number == 2] = (
        np.stack([where[order[first]], where[order[first + 1]]], axis=1)
        - middle[number == 2][:, np.newaxis]
    )
    tried = np.nonzero(maybe | (number > 1))[0]
    two, two_charge, two_left = _fit_two(
        patches[tried], start[tried], one_charge[tried] / 2, spread
    )
    chance = _MISFIT * one_charge[tried] ** 2
    better = one_left[tried] - two_left > _UNLIKELY * noise**2 + chance
    better &= two_charge.min(axis=1) > threshold
    # What not even two spots explain are three or more, which stay as they were found.
    more = (number[tried] > 2) & (two_left > _EXPLAINED * noise**2 + chance)
    pair = tried[better & ~more]
    several = np.isin(group, tried[more])
    single = one_charge > threshold
    single[pair] = single[tried[more]] = False
    of_pair = better & ~more
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
    """Give each spot a number that it shares with those close to it."""
    n = len(where)
    near = scipy.spatial.cKDTree(where).query_pairs(_CLOSE, output_type="ndarray")
    links = scipy.sparse.coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(n, n))
    group: npt.NDArray[np.int32] = scipy.sparse.csgraph.connected_components(links, directed=False)[
        1
    ]
    return group


def _fit_two(
    patches: Values, position: Values, charge: Values, spread: float
) -> tuple[Values, Values, Values]:
    """Fit two spots to each patch by least squares (Levenberg and Marquardt).

    Returns
    -------
    position, charge : ndarray, shapes (m, 2, 2) and (m, 2)
    left : ndarray, shape (m,)
        Sum of the squared residuals.
    """
    values = patches.reshape(len(patches), _PIXELS)
    charge = np.repeat(charge[:, np.newaxis], 2, axis=1)
    slopes, residual = _slopes(values, position, charge, spread)
    left = np.square(residual).sum(1)
    damping = np.full(len(patches), 0.01)
    for _ in range(_STEPS):
        normal = slopes @ slopes.transpose(0, 2, 1)
        diagonal = np.einsum("mii->mi", normal)  # a view: this adds to it
        diagonal += damping[:, np.newaxis] * diagonal
        diagonal += 1e-9 * diagonal.max(axis=1, keepdims=True) + 1e-12
        step = np.linalg.solve(normal, slopes @ residual[:, :, np.newaxis])[:, :, 0]
        next_charge = np.maximum(charge + step[:, :2], 1e-3)
        moved = position + np.stack([step[:, 2:4], step[:, 4:]], axis=-1)
        moved = np.clip(moved, -_FARTHEST, _FARTHEST)
        next_slopes, next_residual = _slopes(values, moved, next_charge, spread)
        next_left = np.square(next_residual).sum(1)
        good = next_left < left
        charge[good], position[good] = next_charge[good], moved[good]
        slopes[good], residual[good] = next_slopes[good], next_residual[good]
        left[good] = next_left[good]
        damping = np.clip(np.where(good, damping / 5, damping * 5), 1e-6, 1e4)
    return position, charge, left


def _slopes(
    values: Values, position: Values, charge: Values, spread: float
) -> tuple[Values, Values]:
    """Give how two spots change with charges, rows and columns (m, 6, p), and what they leave."""
    gathered, slope = profile(position.reshape(-1), spread)
    shape = (*position.shape, 2 * REACH + 1)
    gathered, slope = gathered.reshape(shape), slope.reshape(shape)
    gy, gx = gathered[:, :, 0, :, np.newaxis], gathered[:, :, 1, np.newaxis]
    sy, sx = slope[:, :, 0, :, np.newaxis], slope[:, :, 1, np.newaxis]
    size = charge[:, :, np.newaxis, np.newaxis]
    by = np.concatenate([gy * gx, size * sy * gx, size * gy * sx], axis=1)
    flat = by.reshape(len(values), 6, _PIXELS)
    return flat, values - (charge[:, :, np.newaxis] * flat[:, :2]).sum(1)
