"""The expected electrons of a pixel, in the sum and in one frame, from its neighbours.

The specimen, the ice and the etching of the active layer change the rate from place to place. The
mean of the 5 x 5 neighbours follows them, but is noisy itself where counts are few; so it is drawn
towards the mean of the image as far as it is unreliable, by a straight line fitted to pixels
against their neighbours: the best linear estimate, whatever the specimen (`LocalBackground`).

`FrameLevels` measures the brightness of each frame in parts of the image, which fills follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.correction.sums import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_mrcz.correction.outliers.counts import SummedCounts

LEAST = 1e-3
"""Fewest electrons that are expected; a Poisson distribution needs a mean."""

# Where the neighbours have a smaller part of the typical electrons, there is no beam.
_EMPTY = 0.01

# Columns of a window that are beyond the image.
_OUTSIDE = [0, 1, -2, -1]

Image = npt.NDArray[Any]
Pixels = npt.NDArray[np.intp]


@dataclass(frozen=True)
class LocalBackground:
    """Expected electrons, gain-normalised: offset + slope · (mean of the 24 neighbours)."""

    offset: float
    slope: float  # 0 makes all of the image alike, 1 leaves all to the neighbours
    # Pixels with more electrons count as typical ones for their neighbours: if they were clipped to
    # this, many hot pixels would make good ones among them look dark
    ceiling: float
    typical: float  # Mean of the image, outliers left out
    brightest: float = 0.0  # Electrons in the brightest fiftieth of the image, narrow defects aside

    @classmethod
    def of(cls, counts: SummedCounts) -> Self:
        """Fit the line to strips of the image, outliers left out."""
        strips = counts.sample()
        # The lower of the left and the right neighbour is hardly ever a hot one.
        pixel = np.concatenate([counts.rows(*strip)[1] for strip in strips])
        lower = np.minimum(pixel[:, :-2], pixel[:, 2:]) if pixel.shape[1] > 2 else pixel
        usual, bright = map(float, np.percentile(lower[:, ::2], [50, 99.9]))
        ceiling = bright + 5 * max(bright, 1.0) ** 0.5
        made = cls(0.0, 0.0, ceiling, usual)
        around = np.concatenate([made.rows(counts, *strip)[1].reshape(-1) for strip in strips])
        around = around.astype(np.float32, copy=False) / np.float32(24)
        pixel, around = pixel.reshape(-1).astype(np.float64), around.astype(np.float64)
        good = pixel <= ceiling
        for _ in range(2):
            offset, slope = _line(around[good], pixel[good])
            error = pixel - offset - slope * around
            low, high = np.percentile(error[::4], [15.87, 84.13])
            spread = max((high - low) / 2, max(float(pixel[good].mean()), 0.0) ** 0.5)
            good = np.abs(error) <= 4 * spread
        squares = np.concatenate([_squares(counts.rows(*strip)[1]) for strip in strips])
        brightest = float(np.quantile(squares, 0.98))
        return cls(offset, slope, ceiling, float(pixel[good].mean()), brightest)

    def rows(self, counts: SummedCounts, top: int, bottom: int) -> tuple[Image, Image]:
        """Return rows of raw electrons and the gain-normalised sums of their 24 neighbours.

        Both are float32, or whole numbers of the sum's own type. Pixels beyond the ceiling count as
        typical ones, in whole electrons. The image is mirrored at its borders.
        """
        first, last = max(0, top - 2), min(counts.shape[0], bottom + 2)
        raw = normalised = counts.total[first:last]
        ceiling = self.ceiling
        if counts.are_electrons and raw.min() >= 0 and 24 * ceiling <= np.iinfo(raw.dtype).max:
            ceiling = int(ceiling)
        else:
            raw, normalised = counts.rows(first, last)
        rows, columns = _mirrored(counts.shape[0]), _mirrored(counts.shape[1])
        window = np.empty((bottom - top + 4, len(columns)), normalised.dtype)
        is_within = last - first == len(window)
        window[:, 2:-2] = normalised if is_within else normalised[rows[top : bottom + 4] - first]
        window[:, _OUTSIDE] = window[:, 2 + columns[_OUTSIDE]]
        if normalised.max(initial=0) > ceiling:
            np.copyto(window, window.dtype.type(round(self.typical)), where=window > ceiling)
        # Sums of two, of four, of five: down the columns, then along the rows.
        pairs = window[:-1] + window[1:]
        fives = pairs[:-3] + pairs[2:-1]
        fives += window[4:]
        pairs = np.add(fives[:, :-1], fives[:, 1:], out=pairs[:-3, 1:])
        sums = pairs[:, :-3] + pairs[:, 2:-1]
        sums += fives[:, 4:]
        sums -= window[2:-2, 2:-2]
        return raw[top - first : top - first + bottom - top], sums

    def expected_beside(self, sums: Image, gain: Image | None) -> Image:
        """Return the raw electrons expected of pixels, from the sums of their 24 neighbours."""
        around = sums.astype(np.float32, copy=False) / np.float32(24)
        expected = self.expected(around, gain)
        if around.min(initial=np.inf) <= _EMPTY * self.typical:
            # Where there is no beam, the line of the rest of the image is not valid.
            expected[around <= _EMPTY * self.typical] = LEAST
        return expected

    def expected(self, around: Image, gain: Image | None) -> Image:
        """Return the raw electrons expected of pixels, from the means of their neighbours."""
        expected: Image = np.multiply(around, around.dtype.type(self.slope))
        expected += around.dtype.type(self.offset)
        np.maximum(expected, around.dtype.type(LEAST), out=expected)
        if gain is not None:
            expected /= gain
        return expected


@lru_cache(8)
def _mirrored(length: int) -> Pixels:
    """Return the indices of a row's pixels, and of those that stand for two beyond each end."""
    return np.pad(np.arange(length), 2, mode="reflect")


def _squares(strip: Image) -> Image:
    """Return the level that two thirds of each piece of a strip exceed: defects are narrower."""
    length = min(16, strip.shape[1])
    pieces = strip[:, : strip.shape[1] // length * length]
    pieces = pieces.reshape(len(strip), -1, length).swapaxes(0, 1)
    return np.percentile(pieces.reshape(len(pieces), -1), 33, axis=1)


def _line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Fit offset and slope, neither negative and the slope 1 at most, by least squares."""
    x_mean, y_mean = float(x.mean()), float(y.mean())
    apart = x - x_mean
    variance = float((apart**2).mean())
    slope = float((apart * y).mean()) / variance if variance > 0 else 0.0
    slope = max(min(slope, 1.0, y_mean / x_mean if x_mean > 0 else 1.0), 0.0)
    return y_mean - slope * x_mean, slope


# Parts along the longer side of the image, their least side in pixels, and pixels of a frame that
# are looked at.
_PARTS, _LEAST_SIDE, _SAMPLE = 16, 32, 2**17
# Weight of the whole image's level in the level of a part, in electrons: few are uncertain.
_WEIGHT = 50.0
# Levels are kept in parts of an electron, as whole numbers: the same on every machine.
_FINE = 16


@dataclass(frozen=True, eq=False)
class FrameLevels:
    """The mean level of a movie's frames in parts of the image, and one frame's against it."""

    shape: tuple[int, int]  # Of a frame (y, x)
    side: int  # Pixels along a part
    step: int  # Distance of the rows that are looked at
    # (y / side, x / side): electrons of the good pixels looked at in each part, per frame
    mean: npt.NDArray[np.float64]
    bad: Pixels  # Flat indices of pixels in those rows that are not good ones
    pedestal: float  # Counts of a pixel without electrons, and those that each electron adds
    per_electron: float

    @classmethod
    def of(cls, counts: SummedCounts, bad: Pixels) -> Self:
        """Measure the mean of the frames from their sum; `bad`: flat indices of pixels to skip."""
        y, x = counts.shape
        side = max(_LEAST_SIDE, -(-max(y, x) // _PARTS))
        step = 1
        while y * x // (2 * step) >= _SAMPLE and 4 * step <= side:
            step *= 2
        bad = bad[bad // x % step == 0]
        empty = np.zeros((-(-y // side), -(-x // side)))
        made = cls((y, x), side, step, empty, bad, counts.pedestal, counts.per_electron)
        whole = made._electrons(counts.total, counts.n_frames * counts.pedestal)
        return replace(made, mean=whole / _FINE / counts.n_frames)

    def relative(self, frame: Image) -> tuple[npt.NDArray[np.float64], int]:
        """Return how bright a frame is, and a number that another frame hardly ever has.

        Returned are `level` (y / side, x / side): of each part, 1 where it is the mean of the
        movie's; `key`: of 64 bits, the same for the same counts, whatever their type.
        """
        found = self._electrons(frame, self.pedestal)
        key = xxhash.xxh3_64_intdigest(found.astype("<i8").tobytes())
        electrons = np.maximum(found / _FINE, 0)
        everywhere = float(self.mean.sum())
        level = float(electrons.sum()) / everywhere if everywhere > 0 else 1.0
        return (electrons + _WEIGHT * level) / (np.maximum(self.mean, 0) + _WEIGHT), key

    def parts(self, pixels: Pixels) -> Pixels:
        """Return the part of each pixel, both by flat index."""
        row, column = np.divmod(pixels, self.shape[1])
        return row // self.side * self.mean.shape[1] + column // self.side

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to build it again."""
        gaps = np.diff(self.bad, prepend=0)
        return {
            "side": self.side,
            "step": self.step,
            "mean": self.mean,
            "bad": gaps.astype(np.min_scalar_type(int(gaps.max(initial=0)))),
        }

    @classmethod
    def from_description(
        cls,
        description: Mapping[str, Any],
        shape: tuple[int, int],
        pedestal: float,
        per_electron: float,
    ) -> Self:
        """Build it again; `ValueError` if its parts do not fit together."""
        side, step = int(description["side"]), int(description["step"])
        mean = np.asarray(description["mean"], np.float64)
        bad = np.cumsum(np.asarray(description["bad"]), dtype=np.intp)
        y, x = shape
        if side < 1 or step < 1 or mean.shape != (-(-y // side), -(-x // side)):
            raise ValueError("its levels and its frames do not fit together")
        if bad.max(initial=0) >= y * x:
            raise ValueError("its levels and its pixels do not fit together")
        return cls(shape, side, step, mean, bad, pedestal, per_electron)

    @cached_property
    def _starts(self) -> tuple[Pixels, Pixels]:
        """The beginnings of parts among the rows that are looked at, and among the columns."""
        rows = np.arange(0, self.shape[0], self.step) // self.side
        return np.flatnonzero(np.diff(rows, prepend=-1)), np.arange(0, self.shape[1], self.side)

    @cached_property
    def _bad_parts(self) -> Pixels:
        return self.parts(self.bad)

    @cached_property
    def _good(self) -> npt.NDArray[np.int64]:
        """Good pixels that are looked at, in each part."""
        rows, columns = self._starts
        height = np.diff(rows, append=-(-self.shape[0] // self.step))
        number = np.outer(height, np.diff(columns, append=self.shape[1]))
        return number - np.bincount(self._bad_parts, minlength=number.size).reshape(number.shape)

    def _electrons(self, image: Image, pedestal: float) -> npt.NDArray[np.int64]:
        """Return the electrons of good pixels in each part, in sixteenths."""
        rows, columns = self._starts
        is_float = image.dtype.kind == "f"
        dtype = np.float64 if is_float else np.int64 if image.dtype.itemsize > 2 else np.int32
        part = image[:: self.step].astype(dtype)
        if is_float:
            part = np.where(np.isfinite(part), part, 0)
        sums = np.add.reduceat(np.add.reduceat(part, columns, axis=1), rows, axis=0)
        values = image.reshape(-1)[self.bad].astype(dtype)
        if is_float:
            values = np.where(np.isfinite(values), values, 0)
        # Weights are floats, exact for sums below 2**53.
        bad = np.bincount(self._bad_parts, values, sums.size)
        electrons = (sums - bad.reshape(sums.shape) - pedestal * self._good) / self.per_electron
        return np.rint(electrons * _FINE).astype(np.int64)


NEIGHBOURS = np.delete(np.stack(np.divmod(np.arange(25), 5), axis=1) - 2, 12, axis=0)
"""Shifts (y, x) from a pixel to those around it in the 5 x 5 square, (24, 2)."""
TOUCHING = np.flatnonzero(np.abs(NEIGHBOURS).max(axis=1) == 1)
"""Indices of those that touch it, along a side or at a corner, (8,)."""

# Pixels worked on at a time: what lies around them stays in a cache.
_CHUNK = 2**13


def over_neighbours(
    work: Callable[[Pixels, Pixels, npt.NDArray[np.bool_]], tuple[npt.NDArray[Any], ...]],
    pixels: Pixels,
    shape: tuple[int, int],
) -> tuple[npt.NDArray[Any], ...]:
    """Return arrays (k,) computed from pixels and their neighbours in chunks, in several threads.

    `work`: called with flat indices of pixels (c,), their neighbours and which exist, both (24, c),
    from `neighbours_of`. Returns arrays with one value per pixel; `pixels` (k,): flat indices;
    `shape`: of the image (y, x).
    """

    def chunk(start: int) -> tuple[npt.NDArray[Any], ...]:
        some = pixels[start : start + _CHUNK]
        return work(some, *neighbours_of(some, shape))

    starts = range(0, max(1, len(pixels)), _CHUNK)
    with in_order(chunk, starts, "napari-mrcz-outliers") as parts:
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def neighbours_of(
    pixels: Pixels, shape: tuple[int, int], shifts: Pixels = NEIGHBOURS
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Return the neighbours (24, k) of pixels (k,), by flat index, and which exist (24, k).

    Beyond the image's border there are none, and the index is the pixel's own. `shifts` selects
    some of `NEIGHBOURS`.
    """
    dy, dx = shifts.T[:, :, None]
    neighbours = dy * shape[1] + dx + pixels
    y, x = np.divmod(pixels, shape[1])
    to_border = np.minimum(np.minimum(y, shape[0] - 1 - y), np.minimum(x, shape[1] - 1 - x))
    within = np.ones(neighbours.shape, np.bool_)
    near = np.flatnonzero(to_border < 2)
    if near.size:
        row, column = y[near] + dy, x[near] + dx
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        within[:, near] = inside
        neighbours[:, near] = np.where(inside, neighbours[:, near], pixels[near])
    return neighbours, within
