"""An electron-counting camera: its response, its gain reference, its defective pixels.

The convention, everywhere in this package::

    corrected = (raw - dark_reference) * gain_reference ** gamma(dose_rate)

(McLeod et al., preprint doi:10.1101/116533, section 5.1, eq. 9). So the gain reference *multiplies*
raw counts, a sensitive pixel has a gain below 1, and the camera's own response is
``gain_reference ** -gamma``. Its fixed pattern (fig. 8): electrons pass the read-out electronics,
then an active layer that was thinned by etching.

Each kind of noise has a stream of random numbers of its own, which depends on the seed and on its
name only: frame 599 is drawn without its predecessors, and a new kind does not change the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter, zoom

GAMMA_COEFFICIENTS = (0.12035633, -1.04171635, -0.03363192, 1.03902726)
"""a1, b1, a2, a3 of gamma(d) = a1 d^b1 + a2 d + a3, d in e⁻/pix/s (preprint, eq. 11)."""

# Sweeps are smooth: a grid of so many points per side, linearly enlarged, shows no steps.
_GRID = 192
# Good pixels around a cluster or a line, and places that are tried for one.
_APART, _TRIES = 4, 10_000


@dataclass(frozen=True, eq=False)
class Camera:
    """A counting camera, known completely.

    Parameters
    ----------
    shape : tuple of int
        Pixels (y, x) of a frame; in super-resolution these are the sub-pixels.
    etching, cmos, pixel : float
        Standard deviations, as a fraction of the mean, of the three parts of the response:
        smooth diagonal sweeps of the back-thinned layer, read-out columns and rows, independent
        pixels. All zero is a uniform camera.
    dark_current : float
        Mean counted without a beam, in e⁻/pix/frame, distributed like the read-out electronics
        (the term I_CMOS of eq. 9).
    hot, very_hot, dark, dead : float
        Fractions of the physical pixels. Hot ones count `hot_excess`, very hot ones
        `very_hot_excess` times the dose in addition to their signal; dark ones see only
        `dark_response` of it, dead ones nothing.
    hot_excess, very_hot_excess : tuple of float
        Ranges, in multiples of the dose per frame, within which excess is drawn uniformly.
    dark_response : tuple of float
        Range, as a fraction of a good pixel's, within which response is drawn uniformly.
    clustered : float
        Fraction of the defects that come in groups of two to four touching pixels.
    clusters, lines : tuple of int
        Sides of clusters (squares) and widths of lines (through the whole image) of physical
        pixels; each is there twice, hot by `cluster_excess` and dead.
    cluster_excess : tuple of float
        As `hot_excess`.
    flicker : float
        Fraction of the hot pixels that are hot in half of the frames only.
    counts_per_electron : int
        What one electron adds to a pixel.
    pedestal, read_noise : float
        Counts added to every pixel of a frame, their mean and standard deviation, as by an
        integrating camera.
    gamma : float or tuple of four floats
        Exponent of the gain reference: a number, or the coefficients a1, b1, a2, a3 of eq. 11.
    super_resolution : int
        1, or 2: patterns and defects then belong to physical pixels of 2 x 2 sub-pixels.
    seed : int
        Of the patterns and the defects; not negative.

    Raises
    ------
    ValueError
        If the shape is not positive (or odd in super-resolution), a number is out of its range,
        or more than a tenth of the pixels would be defective.
    """

    shape: tuple[int, int] = (1024, 1024)
    etching: float = 0.03
    cmos: float = 0.01
    pixel: float = 0.02
    dark_current: float = 0.0
    hot: float = 0.0045
    hot_excess: tuple[float, float] = (0.6, 3.0)
    very_hot: float = 2e-5
    very_hot_excess: tuple[float, float] = (8.0, 40.0)
    dark: float = 1e-4
    dark_response: tuple[float, float] = (0.1, 0.5)
    dead: float = 2e-5
    clustered: float = 0.1
    clusters: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()
    cluster_excess: tuple[float, float] = (1.0, 4.0)
    flicker: float = 0.0
    counts_per_electron: int = 1
    pedestal: float = 0.0
    read_noise: float = 0.0
    gamma: float | tuple[float, float, float, float] = GAMMA_COEFFICIENTS
    super_resolution: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no camera has."""
        if self.super_resolution not in (1, 2):
            raise ValueError(f"super_resolution must be 1 or 2, not {self.super_resolution}")
        if min(self.shape) < 1 or any(n % self.super_resolution for n in self.shape):
            raise ValueError(f"shape {self.shape} is not a whole number of physical pixels")
        fractions = (self.hot, self.very_hot, self.dark, self.dead)
        if min(fractions) < 0 or sum(fractions) > 0.1:
            raise ValueError(f"hot, very_hot, dark, dead = {fractions}: at most 0.1 together")
        for name in ("flicker", "clustered"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie within 0 and 1, not {getattr(self, name)}")
        if min(self.pedestal, self.read_noise, *self.cluster_excess) < 0:
            raise ValueError("pedestal, read_noise and cluster_excess are not negative")
        if min((*self.clusters, *self.lines), default=1) < 1:
            raise ValueError("clusters and lines are at least one pixel wide")
        if min(*self.hot_excess, *self.very_hot_excess) <= 0:
            raise ValueError("hot_excess and very_hot_excess must be positive")
        if not 0 < min(self.dark_response) <= max(self.dark_response) < 1:
            raise ValueError(f"dark_response lies between 0 and 1, not {self.dark_response}")
        if self.counts_per_electron < 1:
            raise ValueError(f"counts_per_electron must be >= 1, not {self.counts_per_electron}")

    @classmethod
    def ideal(cls, shape: tuple[int, int] = (1024, 1024), **changes: Any) -> Self:
        """Return a uniform camera without defects, except for `changes`."""
        imperfections = ("etching", "cmos", "pixel", "hot", "very_hot", "dark", "dead")
        return cls(shape, **(dict.fromkeys(imperfections, 0.0) | changes))

    @property
    def physical_shape(self) -> tuple[int, int]:
        """Physical pixels (y, x) of a frame."""
        y, x = self.shape
        return y // self.super_resolution, x // self.super_resolution

    def gamma_at(self, dose_rate: float) -> float:
        """Return the exponent of the gain reference at a dose rate in e⁻/pix/s (eq. 11)."""
        if dose_rate <= 0:
            raise ValueError(f"dose_rate must be positive, not {dose_rate}")
        if isinstance(self.gamma, Sequence):
            a1, b1, a2, a3 = self.gamma
            return float(a1 * dose_rate**b1 + a2 * dose_rate + a3)
        return float(self.gamma)

    @cached_property
    def _sensitivity(self) -> npt.NDArray[np.float32]:
        """Response of good pixels where gamma is 1, (y, x), mean 1."""
        shape = self.physical_shape
        pattern = self.etching * etching_pattern(shape, stream(self.seed, "etching"))
        pattern += self.cmos * self._cmos_pattern
        pattern += self.pixel * stream(self.seed, "pixel").standard_normal(shape, np.float32)
        sensitivity: npt.NDArray[np.float32] = np.exp(pattern)
        sensitivity /= sensitivity.mean(dtype=np.float64)
        return to_frame(sensitivity, self.super_resolution)

    @cached_property
    def _cmos_pattern(self) -> npt.NDArray[np.float32]:
        return cmos_pattern(self.physical_shape, stream(self.seed, "cmos"))

    def response(self, dose_rate: float) -> npt.NDArray[np.float32]:
        """Return the counts of good pixels per electron, about 1, (y, x): gain ** -gamma (eq. 9).

        `dose_rate` is in e⁻/pix/s of a physical pixel.
        """
        return np.power(self._sensitivity, np.float32(self.gamma_at(dose_rate)))

    @cached_property
    def gain_reference(self) -> npt.NDArray[np.float32]:
        """The camera's reference, (y, x), which multiplies raw counts.

        Dead pixels are 0 in it, as in a vendor's. Hot and dark ones are not marked: they are newer
        than the reference.
        """
        gain = np.reciprocal(self._sensitivity)
        gain[self.defects.dead] = 0
        return gain

    @cached_property
    def dark_reference(self) -> npt.NDArray[np.float32]:
        """Mean counts of a frame without a beam, (y, x): subtracted from raw counts (eq. 9)."""
        level = np.maximum(1 + self._cmos_pattern / 2, 0).astype(np.float32)
        level *= self.dark_current * self.counts_per_electron / level.mean(dtype=np.float64)
        return to_frame(level, self.super_resolution)

    @cached_property
    def defects(self) -> Defects:
        """The defective pixels of a frame, (y, x)."""
        return self.sites().defects(self.super_resolution)

    def sites(self, n_hot: int | None = None) -> Sites:
        """Return the physical pixels that are defective; none is hot and stuck at once.

        `n_hot`: number of hot pixels; by default the camera's own. A session asks for all that ever
        turn hot in it. Dark and dead pixels are the same ones for any number. Raise `ValueError` if
        they are too many for the camera.
        """
        shape = self.physical_shape
        n_pixels = shape[0] * shape[1]
        rng = stream(self.seed, "stuck")
        dark = rng.uniform(*self.dark_response, round(self.dark * n_pixels))
        dead = rng.uniform(0, 0, round(self.dead * n_pixels))
        response = np.concatenate([dark, dead]).astype(np.float32)
        stuck = _scatter(len(response), shape, self.clustered, rng)
        n_hot = round((self.hot + self.very_hot) * n_pixels) if n_hot is None else n_hot
        share = self.very_hot / (self.hot + self.very_hot) if self.very_hot else 0.0
        n_very = round(share * n_hot)
        rng = stream(self.seed, "hot")
        usual = rng.uniform(*self.hot_excess, n_hot - n_very)
        very = rng.uniform(*self.very_hot_excess, n_very)
        excess = rng.permutation(np.concatenate([usual, very]).astype(np.float32))
        # As many more are drawn as may be dropped.
        hot = _scatter(len(excess) + len(response), shape, self.clustered, rng)
        hot = hot[~np.isin(hot, stuck)][: len(excess)]
        return Sites(shape, hot, excess, stuck, response, self._blocks())

    def _blocks(self) -> Blocks | None:
        """Draw clusters and lines at places that do not touch, except where lines cross."""
        if not (self.clusters or self.lines):
            return None
        shape = self.physical_shape
        rng = stream(self.seed, "blocks")
        taken = np.zeros(shape, np.bool_)
        along = np.zeros((2, max(shape)), np.bool_)
        places: dict[str, list[tuple[slice, slice]]] = {"hot": [], "dead": []}

        def free(occupied: npt.NDArray[np.bool_], size: int, *sides: int) -> list[slice]:
            """Return places of a size, drawn until nothing is near them."""
            for _ in range(_TRIES):
                starts = [int(rng.integers(_APART, side - size - _APART)) for side in sides]
                near = tuple(np.s_[at - _APART : at + size + _APART] for at in starts)
                if not occupied[near].any():
                    return [np.s_[at : at + size] for at in starts]
            raise ValueError("so many clusters and lines do not fit into the camera")

        for number, width in enumerate(self.lines):
            for kind, axis in (("dead", number % 2), ("hot", 1 - number % 2)):
                (line,) = free(along[axis], width, shape[axis])
                along[axis, line] = True
                place = (line, slice(None)) if axis == 0 else (slice(None), line)
                places[kind].append(place)
                taken[place] = True
        for side in self.clusters:
            for found in places.values():
                y, x = free(taken, side, *shape)
                found.append((y, x))
                taken[y, x] = True
        level = rng.uniform(*self.cluster_excess, shape).astype(np.float32)
        return Blocks(**places, excess=level)


def etching_pattern(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return smooth, slightly bent diagonal sweeps, as etching leaves them: mean 0, deviation 1."""
    grid = (min(_GRID, shape[0]), min(_GRID, shape[1]))
    y = np.linspace(0, 1, grid[0])[:, None]
    x = np.linspace(0, 1, grid[1])[None, :]
    angle = rng.uniform(0.6, 1.0)
    bend = 0.08 * np.sin(2 * np.pi * (rng.random() + rng.uniform(0.5, 1.2) * (x - y)))
    across = np.cos(angle) * y + np.sin(angle) * x + bend
    along = np.cos(angle) * x - np.sin(angle) * y
    pattern = np.zeros(grid)
    for waves, strength in ((1.3, 1.0), (3.1, 0.8), (6.7, 0.5), (11.3, 0.25)):
        fading = 1 + 0.6 * np.sin(2 * np.pi * (rng.random() + rng.uniform(0.3, 1.0) * along))
        pattern += strength * fading * np.sin(2 * np.pi * (rng.random() + waves * across))
    factors = (shape[0] / grid[0], shape[1] / grid[1])
    return _standardised(zoom(pattern.astype(np.float32), factors, order=1))


def cmos_pattern(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return read-out columns, banks of columns, and rows that differ between banks, likewise."""
    n_banks = min(8, shape[1])
    bank = np.arange(shape[1]) * n_banks // shape[1]
    columns = rng.standard_normal(shape[1]) + rng.standard_normal(n_banks)[bank]
    rows = rng.standard_normal(shape[0])
    strength = rng.uniform(0.1, 1.0, n_banks)[bank]
    pattern = columns[None, :] + rows[:, None] * strength[None, :]
    return _standardised(pattern.astype(np.float32))


def _standardised(pattern: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    pattern = pattern - pattern.mean(dtype=np.float64)
    spread = pattern.std(dtype=np.float64)
    # A single pixel has no pattern.
    return (pattern / spread if spread > 0 else pattern).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Defects:
    """The truth about the defective pixels of a frame. Made by `Sites.defects`.

    Attributes
    ----------
    excess : ndarray of float32, shape (y, x)
        Electrons counted in addition to the signal, in multiples of the dose per frame.
    response : ndarray of float32, shape (y, x)
        Fraction of the signal that is counted: 1 for good and for hot pixels, 0 for dead ones.
    """

    excess: npt.NDArray[np.float32]
    response: npt.NDArray[np.float32]

    @property
    def hot(self) -> npt.NDArray[np.bool_]:
        """Pixels that count too much, (y, x)."""
        return np.greater(self.excess, 0)

    @property
    def dark(self) -> npt.NDArray[np.bool_]:
        """Pixels that count too little but not nothing, (y, x)."""
        return (self.response > 0) & (self.response < 1)

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """Pixels that count nothing, (y, x)."""
        return np.equal(self.response, 0)

    @property
    def outliers(self) -> npt.NDArray[np.bool_]:
        """Every defective pixel, (y, x)."""
        return np.logical_or(self.excess > 0, self.response < 1)

    @property
    def clusters(self) -> npt.NDArray[np.bool_]:
        """Defective pixels with another one in their 5 x 5 neighbourhood, (y, x).

        The "neighbourly" ones of McLeod et al., preprint doi:10.1101/116533, section 4; the other
        outliers are singletons.
        """
        outliers = self.outliers
        count = uniform_filter(outliers.astype(np.float32), size=5, mode="constant") * 25
        return np.logical_and(outliers, count > 1.5)


@dataclass(frozen=True, eq=False)
class Sites:
    """Physical pixels that are defective, or become so in a session. Made by `Camera.sites`."""

    shape: tuple[int, int]  # Physical pixels (y, x)
    hot: npt.NDArray[np.intp]  # (h,): flat indices of hot pixels, in the order of turning hot
    # (h,): electrons that each hot pixel counts in addition, in multiples of the dose per frame
    excess: npt.NDArray[np.float32]
    stuck: npt.NDArray[np.intp]  # (s,): flat indices of dark and dead pixels
    response: npt.NDArray[np.float32]  # (s,): of each stuck pixel, as a fraction of a good one's
    blocks: Blocks | None = None  # Clusters and lines besides

    def defects(
        self, super_resolution: int = 1, alive: npt.NDArray[np.bool_] | slice = slice(None)
    ) -> Defects:
        """Return the maps of a frame's sub-pixels, (y, x).

        `super_resolution`: sub-pixels along a side of a physical pixel; `alive` (h,): which of the
        hot pixels are hot now.
        """
        excess = np.zeros(self.shape, np.float32)
        response = np.ones(self.shape, np.float32)
        excess.flat[self.hot[alive]] = self.excess[alive]
        response.flat[self.stuck] = self.response
        if self.blocks is not None:
            for place in self.blocks.hot:
                excess[place] = self.blocks.excess[place]
            for place in self.blocks.dead:
                excess[place] = response[place] = 0
        return Defects(to_frame(excess, super_resolution), to_frame(response, super_resolution))


class Blocks(NamedTuple):
    """Clusters and lines of defective pixels: rows and columns of each."""

    hot: list[tuple[slice, slice]]
    dead: list[tuple[slice, slice]]
    # (y, x): electrons that hot ones count in addition, in multiples of the dose per frame
    excess: npt.NDArray[np.float32]


def to_frame(physical: npt.NDArray[np.float32], super_resolution: int) -> npt.NDArray[np.float32]:
    """Repeat each physical pixel (y, x) over its sub-pixels, so many along each side."""
    if super_resolution == 1:
        return physical
    return physical.repeat(super_resolution, axis=0).repeat(super_resolution, axis=1)


def _scatter(
    n: int, shape: tuple[int, int], clustered: float, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Return `n` different flat indices, the fraction `clustered` of them in touching groups.

    The members of a group follow one another.
    """
    # Groups have 2, 3 or 4 members, 3 on average; more than needed, as repeats are dropped.
    n_groups = int(1.5 * n) + 32
    share = clustered / (3 - 2 * clustered)
    grouped = rng.random(n_groups) < share
    size = np.where(grouped, rng.integers(2, 5, n_groups), 1)
    # A group fills cells of the 2 x 2 block at its origin: however chosen, they touch.
    cells = rng.random((n_groups, 4)).argsort(axis=1)
    y = (rng.integers(shape[0], size=n_groups)[:, None] + cells // 2) % shape[0]
    x = (rng.integers(shape[1], size=n_groups)[:, None] + cells % 2) % shape[1]
    flat = (y * shape[1] + x)[np.arange(4) < size[:, None]]
    _, first = np.unique(flat, return_index=True)
    if len(first) < n:
        raise ValueError(f"{n} defects are too many for {shape[0]} x {shape[1]} pixels")
    return flat[np.sort(first)[:n]]


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Return the generator of a name and a seed, e.g. ``stream(7, "frame", 12)``."""
    return np.random.default_rng(_sequence(seed, name))


def child_seed(seed: int, *name: str | int) -> int:
    """Return a seed of a name under a seed, below 2**53: JSON readers may know floats only."""
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0] >> np.uint64(11))


def _sequence(seed: int, name: tuple[str | int, ...]) -> np.random.SeedSequence:
    key = [crc32(word.encode()) if isinstance(word, str) else word for word in name]
    return np.random.SeedSequence(seed, spawn_key=key)
