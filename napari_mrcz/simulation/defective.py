"""Defective pixels: where they are and what they do to the counts; and streams of random numbers.

A stream depends on the seed and on its own name only: frame 599 is drawn without its predecessors,
and a new kind of noise leaves older numbers as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from zlib import crc32

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

Range = tuple[float, float]

# Good pixels around a cluster or a line, and places that are tried for one.
_APART, _TRIES = 4, 10_000


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
        neighbourly: npt.NDArray[np.bool_] = np.logical_and(outliers, count > 1.5)
        return neighbourly


@dataclass(frozen=True, eq=False)
class Sites:
    """Physical pixels that are defective, or become so in a session. Made by `Sites.draw`."""

    shape: tuple[int, int]  # Physical pixels (y, x)
    # (h,): flat indices of hot pixels, in the order in which they turn hot
    hot: npt.NDArray[np.intp]
    # (h,): electrons that each hot pixel counts in addition, in multiples of the dose per frame
    excess: npt.NDArray[np.float32]
    stuck: npt.NDArray[np.intp]  # (s,): flat indices of dark and dead pixels
    response: npt.NDArray[np.float32]  # (s,): of each stuck pixel, as a fraction of a good one's
    blocks: Blocks | None = None  # Clusters and lines besides

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
        """Draw sites; no pixel is hot and stuck at once.

        `shape`: physical pixels (y, x); `hot`: for each kind of hot pixel how many there are, and
        the range of their excess, in multiples of the dose per frame; `stuck`: for each kind of
        stuck pixel how many there are, and the range of their response; `clustered`: fraction of
        the defects that come in groups of two to four touching pixels; `seed`: of the draws; not
        negative. Raise `ValueError` if they are too many for the camera, or the seed is negative.
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

    def defects(
        self, super_resolution: int = 1, alive: npt.NDArray[np.bool_] | None = None
    ) -> Defects:
        """Return the maps of a frame.

        `super_resolution`: sub-pixels along a side of a physical pixel; `alive` (h,): which of the
        hot pixels are hot now; all by default. The result: of sub-pixels, (y, x).
        """
        excess = np.zeros(self.shape, np.float32)
        response = np.ones(self.shape, np.float32)
        if alive is None:
            excess.flat[self.hot] = self.excess
        else:
            excess.flat[self.hot[alive]] = self.excess[alive]
        response.flat[self.stuck] = self.response
        if self.blocks is not None:
            self.blocks.put_into(excess, response)
        return Defects(to_frame(excess, super_resolution), to_frame(response, super_resolution))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Clusters and lines of defective pixels. Made by `Blocks.draw`."""

    hot: tuple[tuple[slice, slice], ...]  # Rows and columns of each
    dead: tuple[tuple[slice, slice], ...]
    # (y, x): electrons that the pixels of hot ones count in addition, in multiples of the dose
    excess: npt.NDArray[np.float32]

    @classmethod
    def draw(
        cls,
        shape: tuple[int, int],
        *,
        clusters: tuple[int, ...],
        lines: tuple[int, ...],
        excess: Range,
        seed: int,
    ) -> Self:
        """Draw places that do not touch, but where lines cross.

        `shape`: physical pixels (y, x); `clusters`: pixels along a side of each cluster; each is
        there twice, hot and dead; `lines`: width of each line, through the whole image; each is
        there twice, hot and dead; `excess`: range of the excess of hot pixels; `seed`: of the
        draws; not negative. Raise `ValueError` if there is no room for them.
        """
        rng = stream(seed, "blocks")
        taken = np.zeros(shape, np.bool_)
        along = np.zeros((2, max(shape)), np.bool_)
        found: dict[str, list[tuple[slice, slice]]] = {"hot": [], "dead": []}
        for number, width in enumerate(lines):
            for kind, axis in (("dead", number % 2), ("hot", 1 - number % 2)):
                for _ in range(_TRIES):
                    start = int(rng.integers(_APART, shape[axis] - width - _APART))
                    near = np.s_[start - _APART : start + width + _APART]
                    if not along[axis, near].any():
                        break
                else:
                    raise ValueError("so many lines do not fit into the camera")
                along[axis, start : start + width] = True
                whole = [slice(0, shape[0]), slice(0, shape[1])]
                whole[axis] = slice(start, start + width)
                found[kind].append((whole[0], whole[1]))
                taken[whole[0], whole[1]] = True
        for side in clusters:
            for kind in found:
                for _ in range(_TRIES):
                    y, x = (int(rng.integers(_APART, n - side - _APART)) for n in shape)
                    around = np.s_[y - _APART : y + side + _APART, x - _APART : x + side + _APART]
                    if not taken[around].any():
                        break
                else:
                    raise ValueError("so many clusters do not fit into the camera")
                place = (slice(y, y + side), slice(x, x + side))
                found[kind].append(place)
                taken[place] = True
        level = rng.uniform(*excess, shape).astype(np.float32)
        return cls(tuple(found["hot"]), tuple(found["dead"]), level)

    def put_into(self, excess: npt.NDArray[np.float32], response: npt.NDArray[np.float32]) -> None:
        """Put them into the maps of a camera (y, x), in place; dead ones prevail."""
        for place in self.hot:
            excess[place] = self.excess[place]
        for place in self.dead:
            excess[place] = 0
            response[place] = 0


def to_frame(physical: npt.NDArray[np.float32], super_resolution: int) -> npt.NDArray[np.float32]:
    """Repeat each physical pixel (y, x) over its sub-pixels, so many along each side."""
    if super_resolution == 1:
        return physical
    return physical.repeat(super_resolution, axis=0).repeat(super_resolution, axis=1)


def _draw_kinds(
    kinds: list[tuple[int, Range]], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    drawn = [rng.uniform(low, high, n).astype(np.float32) for n, (low, high) in kinds]
    return np.concatenate(drawn)


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
