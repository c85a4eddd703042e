"""The spot that an electron leaves: a normal distribution, gathered by square pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import erf

__all__ = ["REACH", "fit_spots", "fit_spread", "pairs_in", "profile"]

REACH = 2
"""Pixels to either side of its centre that a spot is taken to reach."""

_AWAY = np.arange(-REACH, REACH + 1)
_STEPS = 4
_FARTHEST = 0.9  # pixels from the brightest one
_SPREADS = (0.25, 1.2)
_SINGLE = 0.8
# Sum of squares, in those of the noise, that five more parameters rarely explain by chance.
_SUSPICIOUS = 4.5
_SHORTEST = 0.1

Values = npt.NDArray[np.float64]


def profile(shift: Values, spread: float) -> tuple[Values, Values]:
    """Give what each pixel along one axis gathers of a spot, and how that changes with the shift.

    Parameters
    ----------
    shift : ndarray, shape (m,)
        Of each spot from the middle of the central pixel, in pixels.
    spread : float
        Standard deviation of the spots in pixels.

    Returns
    -------
    gathered, slope : ndarray, shape (m, 2 REACH + 1)
    """
    edges = np.append(_AWAY - 0.5, _AWAY[-1] + 0.5) - shift[:, np.newaxis]
    scaled = edges / (np.sqrt(2) * spread)
    density = np.exp(-np.square(scaled)) / (np.sqrt(2 * np.pi) * spread)
    return 0.5 * np.diff(erf(scaled), axis=1), -np.diff(density, axis=1)


def fit_spots(
    patches: Values, spread: float, start: Values | None = None
) -> tuple[Values, Values, Values]:
    """Fit charge and position of a spot to each patch, by least squares (Gauss and Newton).

    Parameters
    ----------
    patches : ndarray, shape (m, k, k), k = 2 REACH + 1
        Background subtracted.
    spread : float
        Standard deviation of the spots in pixels.
    start : ndarray, shape (m, 2), optional
        Positions (y, x) to begin with, in pixels from the middle.

    Returns
    -------
    charge : ndarray, shape (m,)
        Grey values, added up over the spot.
    position : ndarray, shape (m, 2)
        (y, x) in pixels from the middle of the central pixel.
    misfit : ndarray, shape (m,)
        Mean squared residual.
    """
    position = np.zeros((len(patches), 2)) if start is None else start.copy()
    charge = np.zeros(len(patches))
    for _ in range(_STEPS):
        (gy, sy), (gx, sx) = profile(position[:, 0], spread), profile(position[:, 1], spread)
        model = gy[:, :, np.newaxis] * gx[:, np.newaxis]
        charge = (patches * model).sum((1, 2)) / np.square(model).sum((1, 2))
        size = np.maximum(charge, 1e-9)[:, np.newaxis, np.newaxis]
        by_y = size * sy[:, :, np.newaxis] * gx[:, np.newaxis]
        by_x = size * gy[:, :, np.newaxis] * sx[:, np.newaxis]
        left = patches - charge[:, np.newaxis, np.newaxis] * model
        # The slopes are all but at right angles to each other and to the model.
        for axis, slope in enumerate((by_y, by_x)):
            step = (left * slope).sum((1, 2)) / np.square(slope).sum((1, 2))
            position[:, axis] = np.clip(position[:, axis] + step, -_FARTHEST, _FARTHEST)
    (gy, _), (gx, _) = profile(position[:, 0], spread), profile(position[:, 1], spread)
    model = gy[:, :, np.newaxis] * gx[:, np.newaxis]
    charge = (patches * model).sum((1, 2)) / np.square(model).sum((1, 2))
    misfit = np.square(patches - charge[:, np.newaxis, np.newaxis] * model).mean((1, 2))
    return charge, position, misfit


def pairs_in(
    patches: Values, position: Values, spread: float, noise: float
) -> tuple[npt.NDArray[np.bool_], Values]:
    """Find spots that may be two: electrons so close that there is only one brightest pixel.

    Two equal spots at p + d and p - d are one at p and half of its second derivative along d, as
    far as they are close: a linear fit of the spot, its first and its second derivatives gives d.

    Parameters
    ----------
    patches : ndarray, shape (m, k, k)
        Background subtracted.
    position : ndarray, shape (m, 2)
        Of the single spot that was fitted to each.
    spread : float
        Standard deviation of the spots in pixels.
    noise : float
        Standard deviation of a pixel.

    Returns
    -------
    two : ndarray of bool, shape (m,)
        Where the fit is so much better that noise is no good explanation.
    apart : ndarray, shape (m, 2)
        d, half of the way from one to the other.
    """
    y, x = _derivatives(position[:, 0], spread), _derivatives(position[:, 1], spread)
    orders = ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1))
    basis = np.stack([y[i][:, :, np.newaxis] * x[j][:, np.newaxis] for i, j in orders], axis=1)
    basis = basis.reshape(len(patches), len(orders), -1)
    values = patches.reshape(len(patches), -1)
    charge = (values * basis[:, 0]).sum(1) / np.square(basis[:, 0]).sum(1)
    alone = np.square(values - charge[:, np.newaxis] * basis[:, 0]).sum(1)
    normal = basis @ basis.transpose(0, 2, 1)
    found = np.linalg.solve(normal, (basis @ values[:, :, np.newaxis]))[:, :, 0]
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
    """Give `profile`, and its first and second derivative by the shift."""
    edges = np.append(_AWAY - 0.5, _AWAY[-1] + 0.5) - shift[:, np.newaxis]
    density = np.exp(-np.square(edges / spread) / 2) / (np.sqrt(2 * np.pi) * spread)
    gathered, slope = profile(shift, spread)
    return gathered, slope, -np.diff(density * edges, axis=1) / spread**2


def fit_spread(patches: Values) -> float:
    """Give the standard deviation, in pixels, that fits single spots best.

    Parameters
    ----------
    patches : ndarray, shape (m, k, k)
        Of spots that are alone, at least ten.
    """
    kept = int(_SINGLE * len(patches))

    def misfit(spread: float) -> float:
        # The worst are pairs that pass for one.
        return float(np.sort(fit_spots(patches, spread)[2])[:kept].mean())

    return float(minimize_scalar(misfit, bounds=_SPREADS, method="bounded").x)
