"""Raw frames of a fast detector before counting: where each electron struck is known.

Such frames are what McLeod et al. (2018), doi:10.1016/j.jsb.2017.11.012, section 2.4, send to those
who count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

if TYPE_CHECKING:
    from collections.abc import Sequence

# Pixels on each side of the one that was struck, up to which a spot is drawn.
_REACH = 4
# Times the read noise that noisy pixels have; electrons' charges that hot ones gather in a frame,
# in quanta of so many grey values; and electrons' charges that an X-ray leaves.
_NOISY, _DARK, _GREY_PER_QUANTUM, _X_RAY = 8.0, (5.0, 60.0), 2.0, (8.0, 40.0)


@dataclass(frozen=True, eq=False)
class RawMovie:
    """Frames, and the truth about them. Made by `simulate_raw`.

    Attributes
    ----------
    frames : ndarray of uint16, shape (n, y, x)
        As the detector reads them out, in grey values.
    positions : tuple of ndarray of float64, each (m, 2)
        Where the electrons of each frame struck, (y, x) in pixels; the middle of the first
        pixel is 0.
    offset : ndarray of float64, shape (y, x)
        What each pixel reads without electrons, in grey values.
    noise : float
        Standard deviation of the read noise, in grey values.
    spread : float
        Standard deviation of a spot, in pixels.
    noisy : ndarray of bool, shape (y, x)
        Pixels with more noise than the others, hot ones among them.
    x_rays : tuple of ndarray of float64, each (m, 2)
        Where the X-rays of each frame struck.
    """

    frames: npt.NDArray[np.uint16]
    positions: tuple[npt.NDArray[np.float64], ...]
    offset: npt.NDArray[np.float64]
    noise: float
    spread: float
    noisy: npt.NDArray[np.bool_]
    x_rays: tuple[npt.NDArray[np.float64], ...]


def simulate_raw(
    n_frames: int,
    shape: Sequence[int] = (256, 256),
    *,
    dose: float = 0.02,
    spread: float = 0.5,
    charge: float = 200.0,
    noise: float = 6.0,
    frame_wander: float = 0.0,
    row_wander: float = 0.0,
    column_wander: float = 0.0,
    noisy: float = 0.0,
    hot: float = 0.0,
    x_rays: float = 0.0,
    seed: int = 0,
) -> RawMovie:
    """Simulate raw frames.

    Each electron leaves a charge that varies as a Landau-like (log-normal) loss does, spread over
    some pixels; each pixel adds its own offset and read noise.

    Parameters
    ----------
    n_frames : int
        How many.
    shape : sequence of int
        Pixels (y, x) of a frame.
    dose : float
        Mean, in e⁻/pix/frame.
    spread : float
        Standard deviation of a spot, in pixels.
    charge : float
        Median charge of an electron, in grey values added up over its spot.
    noise : float
        Standard deviation of the read noise, in grey values.
    frame_wander, row_wander, column_wander : float
        Standard deviation of what all pixels of a frame, row or column have in common in one frame,
        in grey values.
    noisy, hot : float
        Shares of pixels with eight times the read noise; and with a dark current of 5 to 60
        electrons' charge a frame, and its shot noise.
    x_rays : float
        Mean, per pixel and frame; each leaves 8 to 40 times as much as an electron.
    seed : int
        Of everything random; not negative.

    Returns
    -------
    RawMovie

    Raises
    ------
    ValueError
        If the dose, a noise, a share, the seed or the number of frames is negative.
    """
    # What is not always there is drawn by itself: the rest stays the same without it.
    more = np.random.default_rng((seed, 1))
    rng = np.random.default_rng(seed)
    rows, columns = shape
    offset = 100 + rng.normal(0, 4, (rows, columns))
    own = np.full((rows, columns), float(noise))
    lot = more.random((rows, columns))
    is_noisy, is_hot = lot < noisy, (lot >= noisy) & (lot < noisy + hot)
    own[is_noisy] *= _NOISY
    dark = charge * more.uniform(*_DARK, np.count_nonzero(is_hot))
    offset[is_hot] += dark
    own[is_hot] = np.sqrt(noise**2 + _GREY_PER_QUANTUM * dark)
    frames = np.empty((n_frames, rows, columns), np.uint16)
    positions, struck = [], []
    for frame in frames:
        number = rng.poisson(dose * rows * columns)
        at = rng.uniform((-0.5, -0.5), (rows - 0.5, columns - 0.5), (number, 2))
        charges = charge * rng.lognormal(0, 0.3, number)
        image = offset + own * rng.standard_normal((rows, columns))
        image += _spots(at, charges, spread, shape)
        for size, wander in (
            ((1, 1), frame_wander), ((rows, 1), row_wander), ((1, columns), column_wander),
        ):  # fmt: skip
            image += more.normal(0, wander, size)
        where = more.uniform(
            -0.5, (rows - 0.5, columns - 0.5), (more.poisson(x_rays * own.size), 2)
        )
        image += _spots(where, charge * more.uniform(*_X_RAY, len(where)), spread, shape)
        struck.append(where)
        frame[...] = np.clip(np.rint(image), 0, np.iinfo(np.uint16).max)
        positions.append(at)
    return RawMovie(
        frames, tuple(positions), offset, noise, spread, is_noisy | is_hot, tuple(struck)
    )


def _spots(
    at: npt.NDArray[np.float64], charges: npt.NDArray[np.float64], spread: float, shape: Any
) -> npt.NDArray[np.float64]:
    """Return the image (y, x) of spots that were gathered by square pixels, in grey values."""
    image = np.zeros((shape[0] + 2 * _REACH, shape[1] + 2 * _REACH))
    middle = np.rint(at).astype(int)
    away = np.arange(-_REACH, _REACH + 1)
    parts = []
    for axis in (0, 1):
        edges = np.append(away - 0.5, away[-1] + 0.5) - (at - middle)[:, [axis]]
        parts.append(0.5 * np.diff(erf(edges / (np.sqrt(2) * spread)), axis=1))
    spots = charges[:, None, None] * parts[0][:, :, None] * parts[1][:, None]
    rows = (middle[:, 0, None] + away + _REACH)[:, :, None]
    columns = (middle[:, 1, None] + away + _REACH)[:, None]
    np.add.at(image, (rows, columns), spots)
    return image[_REACH:-_REACH, _REACH:-_REACH]
