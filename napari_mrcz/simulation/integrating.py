"""Frames before counting, with the truth: MicroED sweeps and raw frames.

The background of a sweep is that of Hattne et al. (2016), doi:10.1107/S1600576716007196: in each
shell a shifted lognormal distribution (eq. 1), narrower and lower the higher the resolution. Raw
frames are those that are to be counted (McLeod et al. 2018, doi:10.1016/j.jsb.2017.11.012, section
2.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from napari_mrcz.simulation.camera import stream

if TYPE_CHECKING:
    from collections.abc import Sequence

# Counts that one electron adds to a Bragg spot.
_COUNTS_PER_ELECTRON = 4.0
# Standard deviation of a spot, and pixels to each side of its middle in which it is drawn.
_SPOT_SIGMA, _SPOT_REACH = 1.1, 5
# Pixels between two modules.
_GAP = 6
# Most counts of the camera.
_TOP = 65535


@dataclass(frozen=True, eq=False)
class Spots:
    """Bragg spots of a sweep, by frame. Made by `simulate_microed`.

    Attributes
    ----------
    frame : ndarray of int64, shape (m,)
        Index of the frame that each is in.
    y, x : ndarray of float64, shape (m,)
        Centres, in pixels; 0 is the middle of the first one.
    intensity : ndarray of float64, shape (m,)
        Expected integrated intensity, in counts, without the noise of its electrons.
    """

    frame: npt.NDArray[np.int64]
    y: npt.NDArray[np.float64]
    x: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A simulated rotation series. Made by `simulate_microed`.

    Attributes
    ----------
    true_counts : ndarray of int32, shape (n, y, x)
        Counts before negative ones are cut off.
    shells : ndarray of uint16, shape (y, x)
        Shell of each pixel: 1 ... k from the innermost; 0 is behind the beam stop.
    parameters : ndarray of float64, shape (n, k, 3)
        mu, sigma and shift of the background of each frame's shells: log(counts - shift) is
        normal, with mean mu and standard deviation sigma (Hattne et al., eq. 1).
    spots : Spots
        Where the Bragg spots are.
    center : tuple of float
        Of the beam, (y, x) in pixels; 0 is the middle of the first one.
    """

    true_counts: npt.NDArray[np.int32]
    shells: npt.NDArray[np.uint16]
    parameters: npt.NDArray[np.float64]
    spots: Spots
    center: tuple[float, float]

    @cached_property
    def frames(self) -> npt.NDArray[np.uint16]:
        """The camera's frames: unsigned 16 bits, negative counts cut off, (n, y, x)."""
        return self.true_counts.clip(0, _TOP).astype(np.uint16)

    @cached_property
    def beam_stop(self) -> npt.NDArray[np.bool_]:
        """Pixels in the shadow of the beam stop, (y, x)."""
        return np.equal(self.shells, 0)


def simulate_microed(
    n_frames: int = 10,
    shape: tuple[int, int] = (512, 512),
    *,
    center: tuple[float, float] | None = None,
    n_shells: int = 10,
    spots_per_frame: int = 150,
    beam_stop: bool = True,
    gaps: bool = False,
    counted: bool = False,
    seed: int = 0,
) -> Sweep:
    """Simulate diffraction patterns of a small crystal that turns.

    Parameters
    ----------
    n_frames : int
        At least one.
    shape : tuple of int
        Pixels (y, x) of a frame.
    center : tuple of float, optional
        Of the beam, (y, x) in pixels, 0 being the middle of the first one; by default near the
        frame's.
    n_shells : int
        Shells of equal area, at least one, each with a background of its own; many make a smooth
        one.
    spots_per_frame : int
        Bragg spots on a lattice, others in every frame; fewer if there are fewer lattice points.
    beam_stop : bool
        A bar from the left edge to the beam throws its shadow.
    gaps : bool
        The detector has modules, with gaps between them in which nothing is ever counted.
    counted : bool
        The detector counts electrons: zeros are real. `parameters` determine the mean, at 4 counts
        per electron.
    seed : int
        The same seed, the same sweep; not negative.

    Raises
    ------
    ValueError
        If there are no frames, or the number of spots or the seed is negative.
    """
    rng = stream(seed, "microed")
    if center is None:
        y, x = (np.array(shape) - 1) / 2 + rng.uniform(-0.04, 0.04, 2) * shape
        center = (float(y), float(x))
    rows, columns = np.arange(shape[0])[:, None] - center[0], np.arange(shape[1]) - center[1]
    distance = np.hypot(rows, columns)
    shadow = np.zeros(shape, np.bool_)
    if beam_stop:
        width = 0.025 * min(shape)
        shadow = (np.abs(rows) < width) & (columns < 0) | (distance < 1.6 * width)
    between = np.zeros(shape, np.bool_)
    if gaps:
        for axis, size in enumerate(shape):
            for at in (size // 3, 2 * size // 3):
                np.moveaxis(between, axis, 0)[at : at + _GAP] = True
    nothing = shadow | between
    order = np.sort(distance[~nothing])
    ends = order[np.arange(1, n_shells) * len(order) // n_shells]
    shells = np.where(nothing, 0, 1 + np.searchsorted(ends, distance, side="right"))
    # Thickness and orientation change the background from frame to frame.
    strength = 1 + 0.15 * np.sin(rng.uniform(0, 6) + np.linspace(0, 5, n_frames))
    resolution = np.sqrt((np.arange(n_shells) + 0.5) / n_shells)
    parameters = np.stack([_background(resolution, s) for s in strength])
    spots = _spots(n_frames, spots_per_frame, shape, center, rng)
    counts = np.empty((n_frames, *shape), np.int32)
    reach = np.arange(-_SPOT_REACH, _SPOT_REACH + 1)
    per_electron = 1.0 if counted else _COUNTS_PER_ELECTRON
    for index in range(n_frames):
        draws = stream(seed, "frame", index)
        normal = draws.standard_normal(shape)
        # Behind the beam stop there is the noise of the read-out.
        mu, sigma, shift = np.moveaxis(parameters[index][np.maximum(shells, 1) - 1], -1, 0)
        if counted:
            mean = np.where(shadow, 0, np.maximum(shift + np.exp(mu + sigma**2 / 2), 0))
            values = draws.poisson(mean / _COUNTS_PER_ELECTRON).astype(np.float64)
        else:
            values = np.where(shadow, 2 * normal, shift + np.exp(mu + sigma * normal))
        for spot in np.flatnonzero(spots.frame == index):
            row, column = round(float(spots.y[spot])), round(float(spots.x[spot]))
            dy, dx = reach + row - spots.y[spot], reach + column - spots.x[spot]
            profile = np.exp(-(dy[:, None] ** 2 + dx**2) / (2 * _SPOT_SIGMA**2))
            electrons = spots.intensity[spot] / _COUNTS_PER_ELECTRON * profile / profile.sum()
            window = np.s_[row - _SPOT_REACH : row + _SPOT_REACH + 1, column - _SPOT_REACH :]
            values[window][:, : len(reach)] += per_electron * draws.poisson(electrons)
        values[between] = 0
        counts[index] = np.floor(values + 0.5)
    return Sweep(counts, shells.astype(np.uint16), parameters, spots, center)


def _background(resolution: npt.NDArray[np.float64], strength: float) -> npt.NDArray[np.float64]:
    """Return mu, sigma and shift by the distance from the beam, 0 to 1: (shells, 3)."""
    mean = strength * (3 + 60 * np.exp(-5 * resolution))
    sd = 6 + strength * 25 * np.exp(-4 * resolution)
    sigma = 0.35 + 0.2 * np.exp(-3 * resolution)
    scale = sd / np.sqrt(np.expm1(sigma**2))
    return np.stack([np.log(scale) - sigma**2 / 2, sigma, mean - scale], axis=-1)


def _spots(
    n_frames: int,
    number: int,
    shape: tuple[int, int],
    center: tuple[float, float],
    rng: np.random.Generator,
) -> Spots:
    """Return lattice points, others in each frame, with Wilson's distribution of intensities.

    Exponential for a crystal without a centre of symmetry; Wilson (1949),
    doi:10.1107/S0365110X49000813.
    """
    spacing, angle = 14.0, rng.uniform(0.2, 0.6)
    index = np.arange(-max(shape) // 14, max(shape) // 14 + 1)
    h, k = (a.reshape(-1) * spacing for a in np.meshgrid(index, index))
    y = center[0] + np.cos(angle) * h + np.sin(angle) * k
    x = center[1] - np.sin(angle) * h + np.cos(angle) * k
    away = np.hypot(h, k)
    margin = _SPOT_REACH + 4
    inside = (y > margin) & (y < shape[0] - margin) & (x > margin) & (x < shape[1] - margin)
    points = np.flatnonzero(inside & (away > 0))
    number = min(number, len(points))
    chosen = np.concatenate([rng.choice(points, number, replace=False) for _ in range(n_frames)])
    falloff = 6000 * np.exp(-6.0 * away[chosen] / (0.5 * max(shape)))
    return Spots(
        np.repeat(np.arange(n_frames), number),
        y[chosen],
        x[chosen],
        (40 + falloff) * rng.exponential(1.0, len(chosen)),
    )


# Pixels on each side of the one that was struck in which a spot is drawn.
_REACH = 4
# Read noise of noisy pixels over that of others; dark current of hot ones in electrons' charges per
# frame, in quanta of so many grey values; and an X-ray's charge in those of an electron.
_NOISY, _DARK, _GREY_PER_QUANTUM, _X_RAY = 8.0, (5.0, 60.0), 2.0, (8.0, 40.0)


@dataclass(frozen=True, eq=False)
class RawMovie:
    """Frames, and the truth about them. Made by `simulate_raw`.

    Attributes
    ----------
    frames : ndarray of uint16, shape (n, y, x)
        As the detector reads them out, in grey values.
    positions : tuple of ndarray of float64, each (m, 2)
        Electrons of each frame, (y, x) in pixels; the middle of the first pixel is 0.
    offset : ndarray of float64, shape (y, x)
        Mean of each pixel without electrons, in grey values.
    noise : float
        Standard deviation of the read noise, in grey values.
    spread : float
        Standard deviation of a spot, in pixels.
    noisy : ndarray of bool, shape (y, x)
        Pixels with more noise than the others, hot ones among them.
    x_rays : tuple of ndarray of float64, each (m, 2)
        X-rays of each frame, as `positions`.
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

    Each electron leaves a charge with a Landau-like (log-normal) distribution, spread over some
    pixels; each pixel adds its own offset and read noise.

    Parameters
    ----------
    n_frames : int
        Number of frames.
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
        Standard deviation of the common mode of a frame, its rows or columns, in grey values.
    noisy, hot : float
        Shares of pixels with eight times the read noise; and with a dark current of 5 to 60
        electrons' charge per frame, and its shot noise.
    x_rays : float
        Mean, per pixel and frame; each leaves 8 to 40 times as much as an electron.
    seed : int
        Not negative.

    Raises
    ------
    ValueError
        If the dose, a noise, a share, the seed or the number of frames is negative.
    """
    # Optional defects have a generator of their own: the rest is the same without them.
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
        image += _image_of(at, charges, spread, shape)
        for size, wander in (
            ((1, 1), frame_wander), ((rows, 1), row_wander), ((1, columns), column_wander),
        ):  # fmt: skip
            image += more.normal(0, wander, size)
        where = more.uniform(
            -0.5, (rows - 0.5, columns - 0.5), (more.poisson(x_rays * own.size), 2)
        )
        image += _image_of(where, charge * more.uniform(*_X_RAY, len(where)), spread, shape)
        struck.append(where)
        frame[...] = np.clip(np.rint(image), 0, np.iinfo(np.uint16).max)
        positions.append(at)
    return RawMovie(
        frames, tuple(positions), offset, noise, spread, is_noisy | is_hot, tuple(struck)
    )


def _image_of(
    at: npt.NDArray[np.float64], charges: npt.NDArray[np.float64], spread: float, shape: Any
) -> npt.NDArray[np.float64]:
    """Return the image (y, x) of spots integrated over square pixels, in grey values."""
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
