"""Every pixel's place on a scale of probability: its distance from the expected value.

Two models. "normal" is the preprint's: all pixels of the image have one mean, and the scale is
that of their electrons (doi:10.1101/116533, section 4). "poisson" expects the value of the
neighbours (`levels`), and converts the probability of a pixel's count, or more, to the normal
deviate that is as improbable: few counts are not normal, and no specimen is flat.

Places are kept as 16-bit codes of fine steps, counted once. The fit, thresholds, weights and masks
then work on a few thousand codes instead of millions of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.outliers.lattice import BLOCK, Structure, block_widths, weak_lines
from napari_mrcz.correction.outliers.levels import (
    LEAST,
    NEIGHBOURS,
    TOUCHING,
    LocalBackground,
    neighbours_of,
    over_neighbours,
)
from napari_mrcz.correction.outliers.suspects import (
    MANY_SPOTS,
    Course,
    Gaps,
    Suspects,
    Verdict,
    far_above,
)
from napari_mrcz.correction.sums import both, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_mrcz.correction.outliers.counts import SummedCounts

# Pixels worked on at a time: few enough for the caches, and enough that threads do not queue for
# the interpreter between numpy's calls.
_STRIP = 2**19
# Codes of the Poisson scale: steps per deviate, the farthest deviate (beyond it all are outliers
# anyway), the code of 0, and the number of codes.
_STEPS = 256
_FARTHEST = 40
_ZERO = _FARTHEST * _STEPS
_CODES = 2 * _ZERO + 1
# Numbers of electrons whose codes are looked up: some for each code.
_MOST_EDGES = 2**19
# Good pixels of so many electrons hardly ever count nothing, i.e. less than this part of them; the
# deviate of those that do, far enough for the widest block.
_ENOUGH, _NOTHING, _SUSPECT = 8.0, 0.02, 15.0
# Where less than this part of the typical electrons is expected, it is too dark for that.
_LIT = 0.12
# Fewer pixels than this in the beam have no distribution.
_FEWEST = 1000

# Indices of the neighbours that touch a pixel along a side.
_NEAREST = np.flatnonzero(np.abs(NEIGHBOURS).sum(axis=1) == 1)
# With so many neighbours as bright, or as dark, a pixel is a part of something larger: gold beads
# are small and dark, but 2 x 2 pixels, with three neighbours each, are not one.
_BRIGHT, _DARK = 6.0, 3.4
# Pixels of a small bead, in a square of 2 x 2, are equally dark, or some are in half-shade, where
# defects differ: variance over that of counts; least part of a pixel's own shade that those beside
# it have, and standard errors of their sum. Dead squares count less than this part of the expected
# electrons.
_SQUARES = [
    [12 + 5 * dy + dx - (5 * dy + dx > 0) for dy, dx in ((y, 0), (0, x), (y, x))]
    for y in (-1, 1)
    for x in (-1, 1)
]
_ALIKE, _SHADE, _SURE, _DEAD = 4.0, 0.2, 3.5, 0.02
# Neighbours are like a pixel if they are beyond the middle between it and its expected value. Of
# those that touch it, neighbours from this part of the way on are dark in a soft bead.
_SOFT = 0.35
# Neighbours whose variance is so many times that of counts lie on both sides of an edge. The mean
# of the larger half of normal deviates.
_UNEVEN, _HALF_NORMAL = 2.0, 0.8
# A pixel that is so far on the other side does not belong to the line that it is in.
_OWN = 4.0
# Beside so many bright suspects a pixel looks dark.
_BRIGHT_BESIDE = 3
# Most deviates in a table.
_MOST_ENTRIES = 2**20

Codes = npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.intp]
Indices = npt.NDArray[np.unsignedinteger[Any]]
Image = npt.NDArray[Any]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PixelScale:
    """The place of every pixel on a scale."""

    # (y, x): place of each pixel, in steps; of defects without meaning; None if they were dropped
    codes: Codes | Any
    places: Values  # (k,): of each code, ascending: electrons ("normal") or deviates ("poisson")
    n_pixels: npt.NDArray[np.int64]  # (k,): pixels with each code, defects left out
    counted: slice  # Codes within the range of the histogram
    # (m,): edges of the histogram's bins, which are centred on whole electrons: the bin after edge
    # j has the codes edges[j] <= code < edges[j + 1]
    edges: npt.NDArray[np.intp]
    # (m,): the edges in electrons ("poisson": of a pixel of which as many are expected as of most)
    dose: Values
    # Centre and standard deviation, in units of `places`, if there was nothing but noise
    start: tuple[float, float]
    # Electrons of a pixel at place 0, and those from there to place 1, of a typical pixel
    origin: float
    unit: float
    # The code of pixels outside the beam, which have no part in the histogram, and their number
    empty: tuple[int, int] = (0, 0)
    n_spots: int = 0  # Spots of diffraction, which are not outliers
    structured: float = 0.0  # Part of the image that has lattice fringes
    # "poisson": pixels judged by more than their neighbours, by flat index, and their codes
    judged: tuple[Indices, Codes] | None = None

    def codes_again(self, counts: SummedCounts) -> Codes:
        """Compute the codes anew from the sum."""
        codes: Codes
        if self.judged is None:
            codes = normal_scale(counts).codes
        else:
            codes = _BesideNeighbours.of(counts).codes
            codes.reshape(-1)[self.judged[0]] = self.judged[1]
        return codes

    def sides(self, first: int, last: int) -> npt.NDArray[np.int8]:
        """Return -1 where codes are below `first`, 1 from `last` on, and 0 between, (y, x)."""
        y, x = self.codes.shape
        marked = np.empty((y, x), np.int8)

        def work(top: int, bottom: int) -> None:
            strip, marks = self.codes[top:bottom], marked[top:bottom]
            np.greater_equal(strip, last, out=marks.view(np.bool_))
            marks -= np.less(strip, first).view(np.int8)

        for _ in _by_strips(work, (y, x)):
            pass
        return marked


def normal_scale(counts: SummedCounts) -> PixelScale:
    """Return the scale of gain-normalised electrons; the histogram has the mean ± 8 √mean.

    Patterns wider than the noise widen its range.
    """
    values = np.concatenate([counts.rows(*strip)[1].reshape(-1) for strip in counts.sample()])
    low, middle, high = np.percentile(values, [15.87, 50, 84.13])
    within = np.abs(values - middle) <= 8 * max((high - low) / 2, abs(middle) ** 0.5, 0.5)
    mean = float(values[within].mean())
    noise = max(mean, 0.0) ** 0.5
    reach = 8 * max(noise, float(high - low) / 2, 0.25)
    first = int(np.floor(mean - reach))
    width = max(1, -(-int(2 * reach + 2) // 2**15))
    count = int(2 * reach + 2) // width + 2
    codes = np.empty(counts.shape, np.uint16)

    def work(top: int, bottom: int) -> npt.NDArray[np.int64]:
        step = counts.rows(top, bottom)[1] - np.float32(first)
        if width > 1:
            step /= np.float32(width)
        np.clip(np.rint(step, out=step), 0, count - 1, out=step)
        codes[top:bottom] = step
        return np.bincount(codes[top:bottom].reshape(-1), minlength=count)

    n_pixels = sum(_by_strips(work, counts.shape), np.zeros((), np.int64))
    n_pixels -= np.bincount(codes.reshape(-1)[counts.defects], minlength=count)
    places = first + width * np.arange(count, dtype=np.float64)
    edges, dose = np.arange(1, count), places[1:] - width / 2
    counted, start = slice(1, count - 1), (mean, max(noise, 0.5))
    return PixelScale(codes, places, n_pixels, counted, edges, dose, start, 0.0, 1.0)


def poisson_scale(counts: SummedCounts, course: Course | None = None) -> PixelScale:
    """Return the scale of each pixel's Poisson deviate from the mean of its neighbours.

    For pixels that may be outliers, the mean is then that of the good neighbours.

    `counts`: the movie's sum; `course`: reads pixels in some frames; see `Suspects.judged`.
    """
    beside = _BesideNeighbours.of(counts)
    codes = beside.codes
    find_lines = partial(weak_lines, codes, _ZERO, _STEPS, counts)
    n_pixels, (lines, of_line) = both(partial(_numbers, codes), find_lines)
    n_pixels -= np.bincount(codes.reshape(-1)[counts.defects], minlength=_CODES)
    n_empty = min(beside.n_empty, int(n_pixels[_ZERO]))
    judgement = _Judgement(counts, beside, n_pixels, n_empty)
    n_spots = judgement.judge(course)
    # Beside a beam stop the direct beam looks like lines.
    usable = np.isin(lines, counts.defects, invert=True) & (n_spots < MANY_SPOTS)
    judgement.put_lines(lines[usable], of_line[usable])
    renewed = np.concatenate(judgement.renewed)
    mean = max(beside.background.typical, 0.0)
    edges, dose = _whole_electrons(max(mean, 1e-3))
    return PixelScale(
        codes=codes,
        places=(np.arange(_CODES) - float(_ZERO)) / _STEPS,
        n_pixels=n_pixels,
        counted=slice(0, _CODES),
        edges=edges,
        dose=dose,
        start=(0.0, 1.0),
        origin=mean,
        unit=mean**0.5,
        empty=(_ZERO, n_empty),
        n_spots=n_spots,
        structured=beside.structure.share,
        judged=(renewed.astype(np.min_scalar_type(codes.size)), codes.reshape(-1)[renewed]),
    )


@dataclass(frozen=True, eq=False)
class _BesideNeighbours:
    """The codes of pixels beside their neighbours, before any is judged."""

    codes: Codes  # (y, x)
    background: LocalBackground
    structure: Structure
    n_empty: int  # Pixels outside the beam
    bright: Pixels  # Those far above all of the image

    @classmethod
    def of(cls, counts: SummedCounts) -> Self:
        """Compute them."""
        background = LocalBackground.of(counts)
        codes = np.empty(counts.shape, np.uint16)
        widths = np.empty((-(-counts.shape[0] // BLOCK), -(-counts.shape[1] // BLOCK)))
        codes_of = _codes_from(counts, background)
        limit = far_above(background.brightest)

        def work(top: int, bottom: int) -> tuple[int, Pixels]:
            gain = None if counts.gain is None else counts.gain[top:bottom]
            raw, sums = background.rows(counts, top, bottom)
            codes[top:bottom] = some = codes_of(raw, sums, gain)
            widths[top // BLOCK : -(-bottom // BLOCK)] = block_widths(some, _ZERO, _STEPS)
            dark = np.flatnonzero(raw <= 0)
            gain = None if gain is None else gain.reshape(-1)[dark]
            expected = background.expected_beside(sums.reshape(-1)[dark], gain)
            above = np.flatnonzero(raw > int(limit)) + top * counts.shape[1]
            return int(np.count_nonzero(expected <= LEAST)), above

        numbers, above = zip(*_by_strips(work, counts.shape), strict=True)
        n_empty = sum(numbers)
        # Where there is no beam, no outliers are searched.
        n_empty = n_empty if n_empty < codes.size - counts.defects.size - _FEWEST else 0
        bright = np.concatenate(above)
        bright = bright[counts.normalised(bright) > limit * counts.per_electron]
        structure = Structure.of(codes, _ZERO, _STEPS, widths)
        return cls(codes, background, structure, n_empty, bright)


def poisson_deviate(counted: Any, expected: Any) -> Any:
    """Return the normal deviate that is as improbable as a Poisson count.

    `counted`: counts, plus 1/2: the middle of a whole number's bin, when the distribution is
    continued to all numbers by the gamma function; `expected`: means, positive. Both are
    overwritten.

    Wilson and Hilferty (1931), doi:10.1073/pnas.17.12.684: the cube root of a gamma variate is
    nearly normal. Within 0.05 of exact for means from 5 and deviates from -3 to 4; counts that are
    far above their mean come out as a little more probable than they are.
    """
    # Far below the mean (under 1/27) the formula is not monotonic.
    np.maximum(counted, expected / 20, out=counted)
    root = np.sqrt(counted, out=counted)
    expected *= root
    deviate = np.cbrt(expected, out=expected)
    np.subtract(root, deviate, out=deviate)
    deviate -= np.reciprocal(root, out=root) / 9
    deviate *= 3
    return deviate


def _codes_from(counts: SummedCounts, background: LocalBackground) -> Callable[..., Codes]:
    """Return a function from raw electrons, the sums of 24 neighbours, and the gain to codes.

    A cube root takes longer than all else. Where counts are whole, thousands of pixels have as many
    of them and as many around them, and their code is looked up.
    """
    typical = background.typical
    dead = _NOTHING * typical if typical > _ENOUGH else -np.inf

    def computed(raw: Image, sums: Image, gain: Image | None) -> Codes:
        raw = raw.astype(np.float32, copy=False)
        expected = background.expected_beside(sums, gain)
        empty = (expected <= LEAST) & (raw <= 0)
        # Pixels that count nothing at all are suspect, even if their neighbours are dead, too.
        nothing = (raw <= dead) & (expected > np.float32(_LIT * typical))
        deviate: Image = poisson_deviate(raw + np.float32(0.5), expected)
        deviate[empty] = 0
        deviate[nothing] = np.minimum(deviate[nothing], -_SUSPECT)
        return _codes(deviate)

    strips = [background.rows(counts, *strip) for strip in counts.sample()]
    if any(raw.dtype.kind == "f" for raw, _ in strips):
        return computed
    some, around = (np.concatenate(part, axis=None) for part in zip(*strips, strict=True))
    # The outermost rows and columns have no code, and stand for all that lies beyond.
    most = int(some[some <= background.ceiling].max(initial=0)) + 1
    low, high = int(around.min()), int(around.max()) + 1
    length = high - low + 1
    if (most + 1) * length > min(_MOST_ENTRIES, counts.total.size // 8):
        return computed
    counted, beside = np.indices((most + 1, length), np.float32)
    table = computed(counted, beside + np.float32(low), None)
    table[-1] = table[:, 0] = table[:, -1] = _CODES

    def looked_up(raw: Image, sums: Image, _: None) -> Codes:
        if raw.dtype.kind == "f":
            return computed(raw, sums, None)
        at = np.multiply(np.minimum(raw, most), length, dtype=np.int32)
        at += np.clip(sums, low, high) - low
        codes = table.take(at)
        flat = codes.reshape(-1)
        others = np.flatnonzero(flat == _CODES)
        flat[others] = computed(raw.reshape(-1)[others], sums.reshape(-1)[others], None)
        return codes

    return looked_up


class _Judgement:
    """Renews, in place, the codes of pixels beyond 3 sigma, and the count of pixels per code.

    They are expected to be like those of their neighbours that are not beyond.
    """

    def __init__(
        self,
        counts: SummedCounts,
        beside: _BesideNeighbours,
        n_pixels: npt.NDArray[np.int64],
        n_empty: int,
    ) -> None:
        """`n_pixels` (k,): pixels with each code; `n_empty`: those of them outside the beam."""
        self._counts, self._beside, self._n_pixels = counts, beside, n_pixels
        self._flat = beside.codes.reshape(-1)
        self.renewed: list[Pixels] = []  # Pixels whose codes are other ones now
        lit = n_pixels.copy()
        lit[_ZERO] -= n_empty
        cumulated = np.cumsum(lit)
        shares = np.array([0.1587, 0.5, 0.8413]) * cumulated[-1]
        low, middle, high = np.searchsorted(cumulated, shares).tolist()
        reach = int(max(3 * (high - low) / 2, 3 * _STEPS / 4))
        # Codes of pixels that are no suspects: first <= code < last.
        self._first, self._middle, self._last = max(0, middle - reach), middle, middle + reach + 1

    def judge(self, course: Course | None) -> int:
        """Judge suspects, and pixels beside them. Return the number of spots of diffraction."""
        flat, defects = self._flat, self._counts.defects
        # Pixels far above all of the image may hide each other.
        above = self._beside.bright[self._is_usual(self._beside.bright)]
        above = np.setdiff1d(above, defects)
        before = flat[above]
        self._put(above, self._last)
        # Defects are not suspects, but are not used for others either.
        flat[defects] = self._middle
        pixels = pixels_outside(self._beside.codes, self._first, self._last)
        flat[defects] = 0
        if not pixels.size:
            return 0
        suspects = self._expected(pixels)
        verdict = suspects.judged(self._counts, self._beside.background.brightest, course)
        self._put(pixels, _codes(verdict.deviate))
        self._put(verdict.more, _codes(verdict.more_deviate))
        self._judge_beside(verdict, pixels)
        self._put(pixels[verdict.left_alone], self._middle)
        alone = np.isin(above, verdict.clusters, invert=True)
        self._put(above[alone], before[alone])
        dark = flat[verdict.clusters] < self._middle
        self._fill_gaps(verdict.clusters[dark], 0)
        self._fill_gaps(verdict.clusters[~dark], _CODES - 1)
        return verdict.n_spots

    def put_lines(self, lines: Pixels, deviate: Values) -> None:
        """Renew the codes of pixels in weak lines: those of their line."""
        anew = _codes(np.clip(deviate, -_FARTHEST, _FARTHEST))
        before = self._flat[lines]
        own, of_line = (before - float(_ZERO)) / _STEPS, (anew - float(_ZERO)) / _STEPS
        # Where two lines cross, or a hot pixel is in a dark line, its own code is kept.
        kept = (np.abs(own) >= np.abs(of_line)) | (own * np.sign(of_line) < -_OWN)
        self._put(lines, np.where(kept, before, anew))

    def _put(self, pixels: Pixels, anew: Codes | int) -> None:
        anew = np.broadcast_to(np.asarray(anew, np.uint16), pixels.shape)
        self._n_pixels -= np.bincount(self._flat[pixels], minlength=_CODES)
        self._n_pixels += np.bincount(anew, minlength=_CODES)
        self._flat[pixels] = anew
        self.renewed.append(pixels)

    def _is_usual(self, pixels: Pixels) -> npt.NDArray[np.bool_]:
        codes = self._flat.take(pixels)
        return (codes >= self._first) & (codes < self._last)

    def _judge_beside(self, verdict: Verdict, suspects: Pixels) -> None:
        """Renew the codes of pixels beside clusters and spots, expected to be like them before."""
        flat, middle = self._flat, float(self._middle)
        for extended, has_skirts in ((verdict.clusters, False), (verdict.spots, True)):
            around, exist = neighbours_of(extended, self._counts.shape)
            beside = np.unique(around[exist])
            for others in (suspects, verdict.more, self._counts.defects):
                beside = np.setdiff1d(beside, others, assume_unique=True)
            if beside.size:
                anew = _codes(self._expected(beside).deviate)
                if has_skirts:
                    nearer = np.abs(flat[beside] - middle) < np.abs(anew - middle)
                    anew[nearer] = flat[beside][nearer]
                self._put(beside, anew)

    def _fill_gaps(self, members: Pixels, farthest: int) -> None:
        """Find pixels between those of lines that are like their line."""
        gaps = Gaps.of(members, self._counts.shape)
        asked = np.setdiff1d(np.union1d(gaps.pixels, gaps.members), self._counts.defects)
        if gaps.pixels.size and asked.size:
            found = gaps.like_their_line(self._expected(asked))
            self._put(found[self._is_usual(found)], farthest)

    def _expected(self, pixels: Pixels) -> Suspects:
        """Measure what pixels count and should count, by neighbours that are no suspects."""
        counts, structure, background = (
            self._counts,
            self._beside.structure,
            self._beside.background,
        )
        around, known, company, profile = over_neighbours(self._around, pixels, counts.shape)
        gain = None if counts.gain is None else counts.gain.reshape(-1)[pixels]
        expected = background.expected(around, gain)
        raw = counts.raw(pixels) / counts.per_electron
        here = structure.with_lattice(expected, pixels, counts.shape[1])
        deviate = poisson_deviate(raw + 0.5, here.copy())
        row, column = np.divmod(pixels, counts.shape[1])
        deviate /= structure.width[row // BLOCK, column // BLOCK]
        deviate[~known] = (self._flat[pixels[~known]].astype(np.float64) - _ZERO) / _STEPS
        expected[~known] = background.typical
        return Suspects(counts.shape, pixels, deviate, raw, expected, company, profile)

    def _around(self, pixels: Any, neighbours: Any, within: Any) -> tuple[npt.NDArray[Any], ...]:
        """Return the mean of the neighbours, whether there are any, company, and the profile."""
        counts = self._counts
        own, around = counts.normalised(pixels), counts.normalised(neighbours)
        beside = self._flat.take(neighbours)
        usable = (beside >= self._first) & (beside < self._last) & within
        number = usable.sum(axis=0, dtype=np.float32)
        mean = (around * usable).sum(axis=0) / np.maximum(number, 1)
        electron = np.float32(counts.per_electron)
        company = _in_company(own, around, mean, within)
        company |= _in_small_bead(own, around, mean, within, electron)
        # Not those that look bright only because this pixel is dark.
        noise = np.sqrt(np.maximum(mean, electron) * electron)
        bright = (beside >= self._last) & within & (around > mean + 3 * noise)
        dead = own + 2 * electron < _DEAD * mean
        bright_beside = bright.sum(axis=0, dtype=np.uint8)
        company |= (own < mean) & ~dead & (bright_beside >= _BRIGHT_BESIDE)
        excess = ((around[_NEAREST] - mean) * within[_NEAREST]).sum(axis=0)
        profile = excess / np.sqrt(4 * np.maximum(mean, electron) * electron)
        uneven = ((around - mean) ** 2 * usable).sum(axis=0) > _UNEVEN * number * mean * electron
        uneven &= ~self._beside.structure.has_lattice(pixels, counts.shape[1])
        if uneven.any():
            here = np.where(usable[:, uneven], around[:, uneven], mean[uneven])
            mean[uneven] = _own_side(here, mean[uneven], electron, own[uneven] > mean[uneven])
        return mean / electron, number > 0, company, profile


def _in_company(own: Any, around: Any, mean: Any, within: Any) -> npt.NDArray[np.bool_]:
    """Mark parts of an edge, a corner or a bead: several neighbours (24, k) are like the pixel.

    That is, they are nearer to it than to its expected value.
    """
    own, mean = np.sqrt(np.maximum(own, 0)), np.sqrt(np.maximum(mean, 0))
    bright = own > mean
    nearer = ((around > ((own + mean) / 2) ** 2) == bright) & within
    # At the border of the image there are fewer neighbours.
    there = within.sum(axis=0, dtype=np.uint8).clip(min=1)
    number = nearer.sum(axis=0, dtype=np.uint8) * (np.float32(24) / there)
    part: npt.NDArray[np.bool_] = number >= np.where(bright, _BRIGHT, _DARK)
    soft = around[TOUCHING] <= (mean + np.float32(_SOFT) * (own - mean)) ** 2
    part |= ~bright & ((soft & within[TOUCHING]).sum(axis=0, dtype=np.uint8) > _DARK)
    return part


def _in_small_bead(
    own: Any, around: Any, mean: Any, within: Any, electron: Any
) -> npt.NDArray[np.bool_]:
    """Mark dark pixels in squares of 2 x 2 that are as dark, or partly so.

    Squares that are dead, or whose pixels differ in response, are defects.
    """
    part = np.zeros(len(own), np.bool_)
    depth = mean - own
    noise = np.sqrt(np.maximum(mean, electron) * electron)
    for square in _SQUARES:
        beside = around[square]
        level = (own + beside.sum(axis=0)) / 4
        variance = ((own - level) ** 2 + ((beside - level) ** 2).sum(axis=0)) / 3
        shade = mean - beside
        of_bead = variance <= _ALIKE * np.maximum(level, electron) * electron
        of_bead |= (shade < depth / 2).any(axis=0)
        of_bead &= (shade > _SHADE * depth).all(axis=0) & within[square].all(axis=0)
        of_bead &= shade.sum(axis=0) > _SURE * 3**0.5 * noise
        part |= of_bead & (depth > 0) & (level > _DEAD * mean)
    return part


def _own_side(around: Any, mean: Any, electron: Any, bright: npt.NDArray[np.bool_]) -> Any:
    """Return the expected value of pixels beside an edge, from neighbours (24, k) on their side.

    That is the mean of the half of them with more counts, or fewer, corrected for their selection.
    """
    around = np.sort(around, axis=0)
    half = len(around) // 2
    noise = np.float32(_HALF_NORMAL) * np.sqrt(np.maximum(mean, electron) * electron)
    more = np.maximum(around[half:].mean(axis=0) - noise, mean)
    fewer = np.minimum(around[:half].mean(axis=0) + noise, mean)
    return np.where(bright, more, fewer)


def _codes(deviate: Any) -> Codes:
    deviate *= _STEPS
    deviate += _ZERO
    np.rint(deviate, out=deviate)
    np.clip(deviate, 0, _CODES - 1, out=deviate)
    return deviate.astype(np.uint16)


def _whole_electrons(typical: float) -> tuple[npt.NDArray[np.intp], Values]:
    """Return edges between whole electrons as codes, where `typical` ones are expected."""
    reach = 2 * _FARTHEST * typical**0.5
    most = typical + reach + _FARTHEST**2
    least = max(1.0, np.floor(typical / 20) + 1, np.floor(typical - reach))
    # At high doses each code stands for several numbers.
    electrons = np.arange(least, most, max(1.0, (most - least) // _MOST_EDGES))
    deviate = poisson_deviate(electrons.copy(), np.full(len(electrons), typical))
    # A pixel whose code is at the edge lies above it.
    edges = np.rint(deviate * _STEPS + 0.5).astype(np.intp) + _ZERO
    near = np.abs(deviate) <= _FARTHEST
    edges, first = np.unique(edges[near], return_index=True)
    return edges, electrons[near][first] - 0.5


def _numbers(codes: Codes) -> npt.NDArray[np.int64]:
    """Return how many pixels have each code."""
    flat, number = codes.reshape(-1), np.zeros(_CODES, np.int64)
    for start in range(0, flat.size, _STRIP):
        number += np.bincount(flat[start : start + _STRIP], minlength=_CODES)
    return number


def pixels_outside(codes: Codes, first: int, last: int) -> Pixels:
    """Return the pixels, by flat index, with codes below `first` or from `last` on."""
    return codes_outside(codes, first, last)[0].astype(np.intp)


def codes_outside(codes: Codes, first: int, last: int) -> tuple[Indices, Codes]:
    """Return the pixels, by flat index, with codes below `first` or from `last` on, and these."""

    def work(top: int, bottom: int) -> tuple[Indices, Codes]:
        strip = codes[top:bottom]
        # Codes below `first` wrap around, to the largest numbers.
        above = np.subtract(strip, first, dtype=np.uint16, casting="unsafe")
        found = np.flatnonzero(above >= last - first)
        own = strip.reshape(-1)[found]
        found += top * codes.shape[1]
        return found.astype(np.min_scalar_type(codes.size)), own

    y, x = codes.shape
    pixels, own = zip(*_by_strips(work, (y, x)), strict=True)
    return np.concatenate(pixels), np.concatenate(own)


def _by_strips(work: Callable[[int, int], Any], shape: tuple[int, int]) -> Iterator[Any]:
    """Run ``work(top, bottom)`` on strips of an image's rows, several at a time, in order."""
    height = max(1, _STRIP // shape[1] // BLOCK) * BLOCK
    tops = range(0, shape[0], height)

    def strip(top: int) -> Any:
        return work(top, min(shape[0], top + height))

    with in_order(strip, tops, "napari-mrcz-outliers") as strips:
        yield from strips
