"""Defective pixels: where they are, what they do to the counts, and which of them touch."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from napari_mrcz.simulation.seeds import stream

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Defects:
    """The truth about the defective pixels of a frame.

    Parameters
    ----------
    excess
        Electrons counted in addition to the signal, in multiples of the dose per frame, (y, x).
    response
        Fraction of the signal that is counted, (y, x): 1 for good and for hot pixels, 0 for dead.
    """

    excess: NDArray[np.float32]
    response: NDArray[np.float32]

    @property
    def hot(self) -> NDArray[np.bool_]:
        """Pixels that count too much, (y, x)."""
        return np.greater(self.excess, 0)

    @property
    def dark(self) -> NDArray[np.bool_]:
        """Pixels that count too little but not nothing, (y, x)."""
        return (self.response > 0) & (self.response < 1)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Pixels that count nothing, (y, x)."""
        return np.equal(self.response, 0)

    @property
    def outliers(self) -> NDArray[np.bool_]:
        """Every defective pixel, (y, x)."""
        return np.logical_or(self.excess > 0, self.response < 1)

    @property
    def clusters(self) -> NDArray[np.bool_]:
        """Defective pixels with another one in their 5 x 5 neighbourhood, (y, x).

        The "neighbourly" ones of the preprint, section 4; the other outliers are singletons.
        """
        outliers = self.outliers
        count = uniform_filter(outliers.astype(np.float32), size=5, mode="constant") * 25
        neighbourly: NDArray[np.bool_] = np.logical_and(outliers, count > 1.5)
        return neighbourly


@dataclass(frozen=True, eq=False)
class Sites:
    """Physical pixels that are defective, or become so in the course of a session.

    Parameters
    ----------
    shape
        Physical pixels (y, x).
    hot, stuck
        Flat indices of hot pixels, in the order in which they turn hot, and of dark and dead ones.
    excess
        Of each hot pixel, in multiples of the dose per frame.
    response
        Of each stuck pixel, as a fraction of a good one's.
    """

    shape: tuple[int, int]
    hot: NDArray[np.intp]
    excess: NDArray[np.float32]
    stuck: NDArray[np.intp]
    response: NDArray[np.float32]

    @classmethod
    def draw(
        cls,
        shape: tuple[int, int],
        *,
        hot: list[tuple[int, Range]],
        stuck: list[tuple[int, Range]],
        clustered: float,
        seed: int,
    ) -> Self:
        """Draw sites; each kind is a number of pixels and its range of excess or response.

        Raises
        ------
        ValueError
            If they are too many for the camera.
        """
        rng = stream(seed, "stuck")
        response = _draw_kinds(stuck, rng)
        stuck_index = _scatter(len(response), shape, clustered, rng)
        rng = stream(seed, "hot")
        excess = rng.permutation(_draw_kinds(hot, rng))
        # No pixel is hot and dead at once: as many more are drawn as may be dropped.
        hot_index = _scatter(len(excess) + len(response), shape, clustered, rng)
        hot_index = hot_index[~np.isin(hot_index, stuck_index)][: len(excess)]
        return cls(shape, hot_index, excess, stuck_index, response)

    def defects(self, super_resolution: int = 1, alive: NDArray[np.bool_] | None = None) -> Defects:
        """Return the maps of a frame, with the hot pixels that are `alive` (all where None)."""
        excess = np.zeros(self.shape, np.float32)
        response = np.ones(self.shape, np.float32)
        if alive is None:
            excess.flat[self.hot] = self.excess
        else:
            excess.flat[self.hot[alive]] = self.excess[alive]
        response.flat[self.stuck] = self.response
        return Defects(to_frame(excess, super_resolution), to_frame(response, super_resolution))


def to_frame(physical: NDArray[np.float32], super_resolution: int) -> NDArray[np.float32]:
    """Repeat each physical pixel over its super-resolution x super-resolution sub-pixels."""
    if super_resolution == 1:
        return physical
    return physical.repeat(super_resolution, axis=0).repeat(super_resolution, axis=1)


def _draw_kinds(kinds: list[tuple[int, Range]], rng: np.random.Generator) -> NDArray[np.float32]:
    drawn = [rng.uniform(low, high, n).astype(np.float32) for n, (low, high) in kinds]
    return np.concatenate(drawn)


def _scatter(
    n: int, shape: tuple[int, int], clustered: float, rng: np.random.Generator
) -> NDArray[np.intp]:
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
