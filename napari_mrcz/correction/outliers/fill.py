"""What an outlier pixel should have counted, and putting that in its place.

McLeod et al., preprint doi:10.1101/116533, section 4, step 5. The same fill in every frame is
itself correlated noise, and no whole number: so each frame's counts are drawn from the Poisson
distribution around it, unless the preprint's expectation itself is asked for.

The expectation comes from the sum of the frames; in each of them it is scaled by how bright that
frame is there (`levels`): doses change, specimens tilt, frames are blank. What is drawn depends on
the frame's own counts, too, so that no two movies have the same noise in the same pixels.

Draws are the same on any machine and with any release of numpy, so that a history makes a movie
again bit for bit. numpy promises that of its bit generators, but not of the distributions on top
of them; so the Poisson one is here.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.outliers.levels import NEIGHBOURS, FrameLevels, over_neighbours
from napari_mrcz.correction.sums import both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari_mrcz.correction.outliers.counts import SummedCounts

FILLS = {"sample": "random counts", "expectation": "local mean (preprint)"}

_QUADRANT = np.array([[0, 0.173, 0.03], [0.173, 0.084, 0.02], [0.03, 0.02, 0.007]])
_HALF = np.concatenate([_QUADRANT[:0:-1], _QUADRANT])
_TABLE = np.concatenate([_HALF[:, :0:-1], _HALF], axis=1)
K2_POINT_SPREAD: npt.NDArray[np.float64] = _TABLE / _TABLE.sum()
"""Weights of the 24 neighbours, (5, 5): the preprint's table 1, which sums to 1.336, made 1."""

_SPREAD = K2_POINT_SPREAD[tuple(NEIGHBOURS.T + 2)].astype(np.float32)

# Electrons that a level is taken from where a pixel has no good neighbour: 3 % of noise.
_ENOUGH = 1000

# Weights are kept in 16 bits: finer than any tolerance, and decided by a draw of 16 bits.
_WHOLE = 2**16 - 1

# Pixels of a frame that one thread takes; pixels drawn at a time, which stay in a cache.
_SMALL, _CHUNK = 2**20, 2**15

Pixels = npt.NDArray[np.intp]
Values = npt.NDArray[np.floating[Any]]
Frame = npt.NDArray[Any]
Drawn = tuple[Pixels, Frame]  # Pixels of a frame, and what replaces them


@dataclass(frozen=True, eq=False)
class Replacement:
    """Puts other values in place of some pixels of a frame, however these were found."""

    shape: tuple[int, int]  # Of a frame (y, x)
    pixels: Pixels  # (k,): flat indices of those that change, ascending
    kinds: npt.NDArray[np.int8]  # (k,): 1 hot, -1 dark, 2 defect, 0 neither but near a threshold
    weights: npt.NDArray[np.uint16]  # (k,): share of its own value that is kept, in parts of 65535
    expected: Values  # (k,): counts per frame expected of it, without a pedestal
    per_electron: float  # Counts of an electron
    fill: str  # One of `FILLS`
    # With a frame's index it decides what is drawn: any frame alone comes out as it does among the
    # others
    seed: int
    # How bright the frames are; without it all are alike, as in files of the first version
    levels: FrameLevels | None = None
    pedestal: float = 0.0  # Counts of a pixel without electrons

    def __call__(self, frame: Frame, index: int) -> Frame:
        """Return the frame (y, x) with index `index`, corrected."""
        out = np.empty(frame.shape, self.output_dtype(frame.dtype))
        self._put(frame, index, out)
        return out

    def correct_in_place(self, frame: Frame, index: int) -> None:
        """Replace pixels of a frame (y, x), contiguous, of `output_dtype`."""
        self._put(frame, index, frame)

    def _put(self, frame: Frame, index: int, out: Frame) -> None:
        """Put a frame into `out`, unless it is that, and other values into some of its pixels."""
        if frame.shape != self.shape:
            raise ValueError(f"outliers of frames of {self.shape} in a frame of {frame.shape}")

        parts: deque[Callable[[], Drawn]] = deque()

        def copied() -> list[Drawn]:
            if out is not frame:
                np.copyto(out, frame, casting="unsafe")
            return _done(parts)

        def drawn() -> list[Drawn]:
            parts.extend(self._replaced(frame, index, out.dtype))
            return _done(parts)

        # Draws take longer than the copy: the thread that has made it draws, too.
        for done in both(copied, drawn, alone=frame.size < _SMALL):
            for pixels, values in done:
                out.reshape(-1)[pixels] = values

    def _replaced(
        self, frame: Frame, index: int, dtype: np.dtype[Any]
    ) -> Iterator[Callable[[], Drawn]]:
        """Yield functions that return flat indices of pixels, and what replaces them in a frame.

        Of random counts, a pixel keeps its own with the probability of its weight: that share on
        average, and every value is a count that there could have been.
        """
        level, keys = None, [self.seed, index]
        if self.levels is not None:
            level, key = self.levels.relative(frame)
            keys.append(key)
        if self.fill != "sample":
            # What is replaced as a whole may have been NaN.
            own = np.where(self.weights > 0, frame.reshape(-1)[self.pixels].astype(dtype), 0)
            kept = self.weights / np.float32(_WHOLE)
            expected = self._scaled(slice(None), level) + np.float32(self.pedestal)
            values = own * kept + expected * (1 - kept)
            yield lambda: (self.pixels, values)
            return
        every, some, weights = self._split
        n = len(every.pixels)
        bits, decisions = random_bits((*keys, 0), n, len(weights))
        length = _CHUNK if self.levels else max(1, n)
        for start in range(0, n, length):
            piece = slice(start, start + length)
            yield partial(every._drawn, piece, bits[piece], level, dtype)
        lost = np.flatnonzero(decisions >= weights)
        (more,) = random_bits((*keys, 1), len(lost))
        yield partial(some._drawn, lost, more, level, dtype)

    def _drawn(self, some: Any, bits: Bits, level: Any, dtype: np.dtype[Any]) -> Drawn:
        """Draw counts for some pixels of a frame with levels in its parts."""
        expected = self._scaled(some, level)
        if level is None:
            electrons = first_quantiles(bits, expected / self.per_electron)
        else:
            means = expected.astype(np.float64) / self.per_electron
            electrons = poisson_quantiles(bits, np.maximum(means, 0, out=means))
        return self.pixels[some], self._counts(electrons, dtype)

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the pixel type after the correction: the same, or floating for expectations."""
        dtype = np.dtype(dtype)
        if dtype.kind not in "buif":
            raise ValueError(f"outlier pixels are those of real numbers, not of {dtype}")
        return dtype if self.fill == "sample" else np.result_type(dtype, np.float32)

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to do it again, pixels by the gaps between them."""
        gaps = np.diff(self.pixels, prepend=0)
        smallest = np.min_scalar_type(int(gaps.max(initial=0)))
        return {
            "shape": list(self.shape),
            "gaps": gaps.astype(smallest),
            "kinds": self.kinds,
            "weights": self.weights,
            "expected": self.expected,
            "per_electron": self.per_electron,
            "fill": self.fill,
            "seed": self.seed,
            "levels": None if self.levels is None else self.levels.describe(),
            "pedestal": self.pedestal,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again; raise `ValueError` if its parts do not fit together."""
        y, x = description["shape"]
        levels = description.get("levels")
        pedestal = float(description.get("pedestal", 0.0))
        per_electron = float(description["per_electron"])
        pixels = np.cumsum(np.asarray(description["gaps"]), dtype=np.intp)
        made = cls(
            (int(y), int(x)),
            pixels,
            np.asarray(description["kinds"], np.int8),
            np.asarray(description["weights"], np.uint16),
            np.asarray(description["expected"], np.float32),
            per_electron,
            str(description["fill"]),
            int(description["seed"]),
            None
            if levels is None
            else FrameLevels.from_description(levels, (int(y), int(x)), pedestal, per_electron),
            pedestal,
        )
        lengths = {len(a) for a in (made.pixels, made.kinds, made.weights, made.expected)}
        if len(lengths) != 1 or pixels.max(initial=0) >= y * x or made.fill not in FILLS:
            raise ValueError("its pixels, weights and fills do not fit together")
        return made

    @cached_property
    def _parts(self) -> npt.NDArray[np.int32]:
        """The part of the image that each pixel is in."""
        parts = np.zeros(0) if self.levels is None else self.levels.parts(self.pixels)
        return parts.astype(np.int32)

    @cached_property
    def _split(self) -> tuple[Replacement, Replacement, npt.NDArray[Any]]:
        """Pixels that are replaced in every frame, those in some, and the weights of these."""
        every, some = (
            replace(self, pixels=self.pixels[at], expected=self.expected[at])
            for at in (self.weights == 0, self.weights > 0)
        )
        if self.levels is None:  # the first version rounded the means of these less
            some = replace(some, expected=some.expected.astype(np.float64))
        return every, some, self.weights[self.weights > 0].astype(np.uint32) << 16

    def _scaled(self, some: Any, level: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float32]:
        """Return what is expected of some pixels in a frame with levels in its parts."""
        expected: npt.NDArray[np.float32] = self.expected[some]
        if level is None:
            return expected
        scaled: npt.NDArray[np.float32] = level.reshape(-1).astype(np.float32)[self._parts[some]]
        scaled *= expected
        return scaled

    def _counts(self, electrons: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> Frame:
        if dtype.kind == "f":
            return (electrons * self.per_electron + self.pedestal).astype(dtype)
        counts = electrons
        if self.per_electron != 1 or self.pedestal:
            counts = np.rint(electrons * self.per_electron + self.pedestal).astype(np.int64)
        most = 1 if dtype.kind == "b" else np.iinfo(dtype).max
        return np.minimum(counts, min(most, 2**63 - 1)).astype(dtype)


def _done(parts: deque[Callable[[], Drawn]]) -> list[Drawn]:
    """Do the parts of the work that nobody else has taken."""
    done: list[Drawn] = []
    while True:
        try:
            part = parts.popleft()
        except IndexError:
            return done
        done.append(part())


def in_parts(weight: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Return weights from 0 to 1 in parts of 65535."""
    return np.rint(weight * _WHOLE).astype(np.uint16)


def expected_counts(
    counts: SummedCounts, pixels: Pixels, marks: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """Estimate what pixels should count in a frame, from their good neighbours.

    Of a singleton, whose neighbours within two pixels are all good, by the point spread of the
    detector; else the mean of the good ones of the 5 x 5 neighbours, or of as wide a square as it
    takes to find enough of them (within wide lines and rectangles that are known to be defective).

    `counts`: the movie's sum; `pixels` (k,): flat indices; `marks` (y · x,): 0 for good pixels. The
    result is (k,): raw counts per frame: the gain is taken into account, and out again.
    """

    def work(_: Pixels, neighbours: Pixels, within: Any) -> tuple[npt.NDArray[Any], ...]:
        usable = (marks.take(neighbours) == 0) & within
        single = (usable == within).all(axis=0)
        weights = np.where(single, _SPREAD[:, None], np.float32(1))
        weights *= usable
        total = weights.sum(axis=0)
        none = total == 0
        total[none] = 1
        weights *= counts.normalised(neighbours)
        return weights.sum(axis=0) / total, none

    expected, alone = over_neighbours(work, pixels, counts.shape)
    lost = np.flatnonzero(alone)
    if lost.size:
        expected[lost] = _wide_means(counts, pixels[lost], marks == 0)
    expected /= counts.n_frames
    if counts.gain is not None:
        expected /= counts.gain.reshape(-1)[pixels]
    return np.maximum(expected, 0).astype(np.float32)


def _wide_means(
    counts: SummedCounts, pixels: Pixels, good: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return the mean of the good pixels in the smallest square around each pixel with enough.

    Squares grow by a half until they have; sums over them come from one cumulative image.
    """
    everything = np.arange(good.size)
    values = np.where(good, counts.normalised(everything), 0).reshape(counts.shape)
    sums = _cumulated(values)
    numbers = _cumulated(good.reshape(counts.shape))
    mean = values.sum() / max(1, np.count_nonzero(good))
    means = np.full(len(pixels), mean)
    electrons = max(mean / counts.per_electron, 1e-9)
    enough = min(max(1.0, _ENOUGH / electrons), np.count_nonzero(good) / 4)
    row, column = np.divmod(pixels, counts.shape[1])
    missing = np.arange(len(pixels))
    radius = 3
    while missing.size and radius < 2 * max(counts.shape) and good.any():
        reach = np.array([[-radius], [radius + 1]])
        top, bottom = np.clip(row[missing] + reach, 0, counts.shape[0])
        left, right = np.clip(column[missing] + reach, 0, counts.shape[1])
        number = _within(numbers, top, bottom, left, right)
        found = number >= enough
        total = _within(sums, top, bottom, left, right)
        means[missing[found]] = total[found] / number[found]
        missing = missing[~found]
        radius = math.ceil(1.5 * radius)
    return means


def _cumulated(image: Frame) -> npt.NDArray[np.float64]:
    out = np.zeros((image.shape[0] + 1, image.shape[1] + 1))
    np.cumsum(np.cumsum(image, axis=0, dtype=np.float64), axis=1, out=out[1:, 1:])
    return out


def _within(cumulated: Frame, top: Pixels, bottom: Pixels, left: Pixels, right: Pixels) -> Frame:
    return (
        cumulated[bottom, right]
        - cumulated[top, right]
        - cumulated[bottom, left]
        + cumulated[top, left]
    )


# Means beyond which a series takes the place of a table.
_LARGE = 24.0
_MOST = np.uint32(2**32 - 1)
# Numbers beyond this one, four in a million, count as it: sums of probabilities reach it for sure.
_LAST = np.uint32(2**32 - 2**14)

Bits = npt.NDArray[np.uint32]


def random_bits(key: tuple[int, ...], *lengths: int) -> list[Bits]:
    """Return arrays of random 32-bit numbers, always the same for a key."""
    total = sum(lengths)
    generator = np.random.PCG64(np.random.SeedSequence(key))
    drawn = generator.random_raw((total + 1) // 2).astype("<u8", copy=False).view("<u4")
    return np.split(drawn[:total], np.cumsum(lengths)[:-1])


def poisson_quantiles(drawn: Bits, means: Values) -> npt.NDArray[np.int64]:
    """Turn random numbers into quantiles of Poisson distributions around means, not negative."""
    large = means > _LARGE
    if large.any():
        counts = np.empty(len(drawn), np.int64)
        counts[large] = _quantiles(drawn[large], means[large])
        counts[~large] = poisson_quantiles(drawn[~large], means[~large])
        return counts
    # Single precision is enough for all but the last few in a million.
    share = np.minimum(drawn, _LAST).astype(np.float32)
    share *= np.float32(2.0**-32)
    mean = means.astype(np.float32)
    probability = np.exp(-means).astype(np.float32)
    below = probability.copy()
    few = np.zeros(len(drawn), np.uint8)
    above = share >= below
    number = 0
    while above.any():
        few += above
        number += 1
        probability *= mean
        probability /= np.float32(number)
        below += probability
        np.greater_equal(share, below, out=above)
    return few.astype(np.int64)


def first_quantiles(drawn: Bits, means: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """Do the same in double precision, as the first version did."""
    exact: Values = means.astype(np.float64)
    large = exact > _LARGE
    counts = np.empty(len(drawn), np.int64)
    counts[large] = _quantiles(drawn[large], exact[large])
    drawn, exact = drawn[~large], exact[~large]
    few = np.zeros(len(drawn), np.uint8)
    probability = np.exp(-exact)
    below = probability.copy()
    # Eight standard deviations and more: what is missing then is the rounding of the sum.
    most = int(exact.max(initial=0) + 8 * exact.max(initial=0) ** 0.5 + 12)
    for number in range(1, most + 1):
        table = np.minimum(below * 2.0**32, _MOST).astype(np.uint32)
        few += drawn >= table
        if table.min(initial=_MOST) == _MOST:
            break
        probability *= exact / number
        below += probability
    counts[~large] = few
    return counts


def _quantiles(drawn: Bits, means: Values) -> Values:
    """Return quantiles by the Cornish-Fisher series: off by 0.0005 in probability at the most."""
    x = scipy.special.ndtri((drawn + 0.5) / 2.0**32)
    root = np.sqrt(means)
    quantiles = means + x * root + (x**2 - 1) / 6 + (x - x**3) / (72 * root)
    return np.maximum(np.floor(quantiles + 0.5), 0)
