"""A MicroED sweep whose negative counts are known, although its camera cut them off at zero.

The background is what Hattne et al. (2016), doi:10.1107/S1600576716007196, found in theirs: in
each shell a shifted lognormal distribution, narrower and lower the higher the resolution. Bragg
spots stand on it, of known integrated intensity.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_mrcz.simulation.seeds import stream

_COUNTS_PER_ELECTRON = 4.0
_SPOT_SIGMA = 1.1  # Pixels.
_SPOT_REACH = 5
_TOP = 65535


@dataclass(frozen=True, eq=False)
class Spots:
    """Bragg spots, one a line.

    Attributes
    ----------
    frame
        Index of the frame that each is in.
    y, x
        Centre in pixels.
    intensity
        Integrated, in counts: what is expected of it, not what its electrons happened to be.
    """

    frame: NDArray[np.int64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    intensity: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A simulated rotation series.

    Attributes
    ----------
    true_counts
        What a camera with negative counts would give, (n, y, x).
    shells
        Shell of each pixel, (y, x): 1 is the innermost; 0 is behind the beam stop.
    parameters
        mu, sigma and shift of the background of each frame's shells, (n, shells, 3).
    spots
        Where the Bragg spots are.
    center
        Of the beam, (y, x) in pixels.
    """

    true_counts: NDArray[np.int32]
    shells: NDArray[np.uint16]
    parameters: NDArray[np.float64]
    spots: Spots
    center: tuple[float, float]

    @cached_property
    def frames(self) -> NDArray[np.uint16]:
        """What the camera gives: unsigned 16 bits, negative counts cut off, (n, y, x)."""
        return self.true_counts.clip(0, _TOP).astype(np.uint16)

    @cached_property
    def beam_stop(self) -> NDArray[np.bool_]:
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
    seed: int = 0,
) -> Sweep:
    """Simulate diffraction patterns of a small crystal that turns.

    Parameters
    ----------
    n_frames
        How many.
    shape
        Pixels (y, x).
    center
        Of the beam, (y, x) in pixels; near the middle where None.
    n_shells
        Shells of equal area, each with a background of its own; many make a smooth one.
    spots_per_frame
        Bragg spots on each frame, on a lattice, other ones in every frame.
    beam_stop
        A bar from the left edge to the beam throws its shadow.
    seed
        Any non-negative integer.
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
    order = np.sort(distance[~shadow])
    ends = order[np.arange(1, n_shells) * len(order) // n_shells]
    shells = np.where(shadow, 0, 1 + np.searchsorted(ends, distance, side="right"))
    # Thickness and orientation change the background from frame to frame.
    strength = 1 + 0.15 * np.sin(rng.uniform(0, 6) + np.linspace(0, 5, n_frames))
    resolution = np.sqrt((np.arange(n_shells) + 0.5) / n_shells)
    parameters = np.stack([_background(resolution, s) for s in strength])
    spots = _spots(n_frames, spots_per_frame, shape, center, rng)
    counts = np.empty((n_frames, *shape), np.int32)
    for index in range(n_frames):
        draws = stream(seed, "frame", index)
        normal = draws.standard_normal(shape)
        # Behind the beam stop there is the noise of the read-out.
        mu, sigma, shift = np.moveaxis(parameters[index][np.maximum(shells, 1) - 1], -1, 0)
        values = np.where(shadow, 2 * normal, shift + np.exp(mu + sigma * normal))
        _add_spots(values, spots, index, draws)
        counts[index] = np.floor(values + 0.5)
    return Sweep(counts, shells.astype(np.uint16), parameters, spots, center)


def _background(resolution: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
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
    """Return lattice points, other ones in each frame, with Wilson's distribution."""
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


def _add_spots(
    values: NDArray[np.float64], spots: Spots, index: int, rng: np.random.Generator
) -> None:
    reach = np.arange(-_SPOT_REACH, _SPOT_REACH + 1)
    for spot in np.flatnonzero(spots.frame == index):
        row, column = round(float(spots.y[spot])), round(float(spots.x[spot]))
        dy, dx = reach + row - spots.y[spot], reach + column - spots.x[spot]
        profile = np.exp(-(dy[:, None] ** 2 + dx**2) / (2 * _SPOT_SIGMA**2))
        electrons = spots.intensity[spot] / _COUNTS_PER_ELECTRON * profile / profile.sum()
        window = np.s_[row - _SPOT_REACH : row + _SPOT_REACH + 1, column - _SPOT_REACH :]
        values[window][:, : len(reach)] += _COUNTS_PER_ELECTRON * rng.poisson(electrons)
