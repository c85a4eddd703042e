"""Every pixel's place on a scale of probability: how far it is from what it should be.

Two models. "normal" is the preprint's: all pixels of the image have one mean, and the scale is
that of their electrons (doi:10.1101/116533, section 4). "poisson" expects of each pixel what its
neighbours tell (`background`), and gives the probability of its count, or more, as the
normal deviate that is as improbable: few counts are not normal, and no specimen is flat.

Places are kept as 16-bit codes of fine steps, counted once. All that follows, the fit, thresholds,
weights and masks, is done with the few thousand codes instead of millions of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.outliers.lattice import BLOCK, Structure, block_widths, weak_lines
from napari_mrcz.correction.outliers.levels import (
    LEAST,
    NEIGHBOURS,
    LocalBackground,
    over_neighbours,
)
from napari_mrcz.correction.outliers.suspects import Course, Gaps, Suspects
from napari_mrcz.correction.sums import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_mrcz.correction.outliers.counts import SummedCounts

# Pixels worked on at a time: few enough for the caches, and enough that threads do not queue for
# the interpreter between numpy's calls.
_STRIP = 2**18
# Codes of the Poisson scale: steps per deviate, the farthest deviate (what lies beyond is an
# outlier anyway), the code of 0, and how many codes there are.
_STEPS = 256
_FARTHEST = 40
_ZERO = _FARTHEST * _STEPS
_CODES = 2 * _ZERO + 1
# Numbers of electrons whose codes are looked up: some for each code.
_MOST_EDGES = 2**19
# Good pixels of as many electrons hardly ever count nothing, which is this part of them. How far
# those are placed that do.
_ENOUGH, _NOTHING, _SUSPECT = 8.0, 0.02, 4.5
# Where less than this part of what is typical is expected, it is too dark to tell.
_LIT = 0.2
# Fewer pixels than this in the beam have no distribution.
_FEWEST = 1000

# Those of the neighbours that touch a pixel along a side.
_NEAREST = np.flatnonzero(np.abs(NEIGHBOURS).sum(axis=1) == 1)
# With so many neighbours as bright, or as dark, a pixel is a part of something. Small dark things
# there are many of, gold beads; two by two pixels are none, with three neighbours each.
_BRIGHT, _DARK = 6.0, 3.4
# Pixels of a small bead, in a square of two by two, are dark alike, or some in half-shade, where
# defects differ: variance over that of counts; least part of a pixel's own shade that those beside
# it have, and standard errors of their sum. Dead squares count less than this part of what is
# expected.
_SQUARES = [
    [
        int(np.flatnonzero((NEIGHBOURS == shift).all(axis=1))[0])
        for shift in ((y, 0), (0, x), (y, x))
    ]
    for y in (-1, 1)
    for x in (-1, 1)
]
_ALIKE, _SHADE, _SURE, _DEAD = 4.0, 0.2, 3.5, 0.02
# Neighbours are like a pixel that are on its side of the middle between it and what is expected. Of
# those that touch it so many are dark around the middle of a soft bead, from this part of the way.
_TOUCHING, _SOFT = np.flatnonzero(np.abs(NEIGHBOURS).max(axis=1) == 1), 0.35
# Neighbours whose variance is so many times what counts have lie on both sides of an edge. The mean
# of the larger half of normal deviates.
_UNEVEN, _HALF_NORMAL = 2.0, 0.8
# A pixel that is so far on the other side does not belong to the line that it is in.
_OWN = 4.0
# Beside so many bright suspects a pixel looks dark.
_BRIGHT_BESIDE = 3

Codes = npt.NDArray[np.uint16]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PixelScale:
    """Where every pixel stands."""

    codes: Codes  # (y, x): place of each pixel, in steps; a defect's is nowhere in particular
    # (k,): what a code stands for, ascending: electrons ("normal") or deviates ("poisson")
    places: Values
    n_pixels: npt.NDArray[np.int64]  # (k,): pixels with each code, defects left out
    counted: slice  # Codes that the histogram counts; those before and after are outside its range
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
    # The code of pixels outside the beam, which have no part in the histogram, and how many there
    # are
    empty: tuple[int, int] = (0, 0)
    n_spots: int = 0  # Spots that are bright in a few frames only, which are not outliers
    structured: float = 0.0  # Part of the image that has lattice fringes

    def outside(self, first: int, last: int) -> npt.NDArray[np.intp]:
        """Return the pixels, by flat index, with codes below `first` or from `last` on."""
        return _outside(self.codes, first, last)

    def sides(self, first: int, last: int) -> npt.NDArray[np.int8]:
        """Return -1 where codes are below `first`, 1 from `last` on, and 0 between, (y, x)."""
        y, x = self.codes.shape
        marked = np.empty((y, x), np.int8)

        def work(top: int, bottom: int) -> npt.NDArray[np.int8]:
            strip, marks = self.codes[top:bottom], marked[top:bottom]
            np.greater_equal(strip, last, out=marks.view(np.bool_))
            marks -= np.less(strip, first).view(np.int8)
            return marks

        for _ in _by_strips(work, (y, x)):
            pass
        return marked

    @property
    def edge_places(self) -> Values:
        """The edges in units of `places`: half a step below the code that follows."""
        return (self.places[self.edges - 1] + self.places[self.edges]) / 2


def normal_scale(counts: SummedCounts) -> PixelScale:
    """Return the gain-normalised electrons themselves; the histogram has the mean ± 8 √mean.

    Patterns wider than the noise widen the range. What lies outside is not counted in it.
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
    edges = np.arange(1, count)
    dose = places[1:] - width / 2
    counted = slice(1, count - 1)
    start = (mean, max(noise, 0.5))
    return PixelScale(codes, places, n_pixels, counted, edges, dose, start, 0.0, 1.0)


def poisson_scale(counts: SummedCounts, course: Course | None = None) -> PixelScale:
    """Return each pixel's Poisson deviate, its mean expected by its neighbours.

    Where a pixel may be an outlier it is expected anew, from those neighbours that are none.

    `counts`: the movie's sum; `course`: reads pixels in some frames; see `Suspects.judged`.
    """
    background = LocalBackground.of(counts)
    codes = np.empty(counts.shape, np.uint16)
    widths = np.empty((-(-counts.shape[0] // BLOCK), -(-counts.shape[1] // BLOCK)))
    empty_in: list[int] = []
    # What counts nothing at all is suspect, though its neighbours be dead, too.
    dead = _NOTHING * background.typical if background.typical > _ENOUGH else -np.inf
    lit = np.float32(_LIT * background.typical)

    def work(top: int, bottom: int) -> None:
        raw, expected = background.rows(counts, top, bottom)
        empty = None
        if expected.min(initial=np.inf) <= LEAST:
            empty = (expected <= LEAST) & (raw <= 0)
            empty_in.append(int(np.count_nonzero(empty)))
        nothing = None
        if raw.min(initial=np.inf) <= dead:
            nothing = (raw <= dead) & (expected > lit)
        raw += np.float32(0.5)
        deviate = poisson_deviate(raw, expected)
        if empty is not None:
            deviate[empty] = 0
        if nothing is not None:
            deviate[nothing] = np.minimum(deviate[nothing], -_SUSPECT)
        widths[top // BLOCK : -(-bottom // BLOCK)] = block_widths(deviate)
        codes[top:bottom] = _codes(deviate)

    for _ in _by_strips(work, counts.shape):
        pass
    # Where there is no beam nothing can be said, but that there are no outliers.
    n_empty = sum(empty_in) if sum(empty_in) < codes.size - counts.defects.size - _FEWEST else 0
    structure = Structure.of(codes, _ZERO, _STEPS, widths)
    n_pixels = _numbers(codes)
    n_pixels -= np.bincount(codes.reshape(-1)[counts.defects], minlength=_CODES)
    n_empty = min(n_empty, int(n_pixels[_ZERO]))
    lines, of_line = weak_lines(codes, _ZERO, _STEPS, counts)
    n_spots = _judge_suspects(counts, background, structure, codes, n_pixels, n_empty, course)
    usable = np.isin(lines, counts.defects, invert=True)
    _put_lines(codes, n_pixels, lines[usable], of_line[usable])
    places = (np.arange(_CODES) - float(_ZERO)) / _STEPS
    edges, dose = _whole_electrons(max(background.typical, 1e-3))
    counted, start = slice(0, _CODES), (0.0, 1.0)
    mean = max(background.typical, 0.0)
    return PixelScale(
        codes=codes,
        places=places,
        n_pixels=n_pixels,
        counted=counted,
        edges=edges,
        dose=dose,
        start=start,
        origin=mean,
        unit=mean**0.5,
        empty=(_ZERO, n_empty),
        n_spots=n_spots,
        structured=structure.share,
    )


def poisson_deviate(counted: Any, expected: Any) -> Any:
    """Return the normal deviate that is as improbable as a Poisson count.

    `counted`: counts, plus 1/2: the middle of the bin that a whole number stands for, when the
    distribution is continued to all numbers by the gamma function. It is overwritten; `expected`:
    means, positive. It is overwritten.

    Wilson and Hilferty (1931), doi:10.1073/pnas.17.12.684: the cube root of a gamma variate is
    nearly normal. Within 0.05 of exact for means from 5 and deviates from -3 to 4; counts that are
    far above their mean come out as a little more probable than they are.
    """
    # Far below its mean (under 1/27) the formula turns round.
    np.maximum(counted, expected / 20, out=counted)
    root = np.sqrt(counted, out=counted)
    expected *= root
    deviate = np.cbrt(expected, out=expected)
    np.subtract(root, deviate, out=deviate)
    deviate -= np.reciprocal(root, out=root) / 9
    deviate *= 3
    return deviate


def _judge_suspects(
    counts: SummedCounts,
    background: LocalBackground,
    structure: Structure,
    codes: Codes,
    n_pixels: npt.NDArray[np.int64],
    n_empty: int,
    course: Course | None,
) -> int:
    """Renew, in place, the codes of pixels beyond 3 sigma, and the count of pixels per code.

    What they should have counted tell those of their neighbours that are not beyond. Returns how
    many spots are bright in a few frames only.
    """
    lit = n_pixels.copy()
    lit[_ZERO] -= n_empty
    cumulated = np.cumsum(lit)
    low, middle, high = np.searchsorted(cumulated, np.array([0.1587, 0.5, 0.8413]) * cumulated[-1])
    reach = int(max(3 * (high - low) / 2, 3 * _STEPS / 4))
    first, last = max(0, middle - reach), middle + reach + 1
    flat = codes.reshape(-1)
    # Defects are not suspected of anything, but tell nothing of others.
    flat[counts.defects] = middle
    pixels = _outside(codes, first, last)
    flat[counts.defects] = 0
    if not pixels.size:
        return 0

    def told(pixels: Any, neighbours: Any, within: Any) -> tuple[npt.NDArray[Any], ...]:
        own, around = counts.normalised(pixels), counts.normalised(neighbours)
        beside = flat[neighbours]
        usable = (beside >= first) & (beside < last) & within
        number = usable.sum(axis=0, dtype=np.float32)
        mean = (around * usable).sum(axis=0) / np.maximum(number, 1)
        electron = np.float32(counts.per_electron)
        company = _in_company(own, around, mean, within)
        company |= _in_small_bead(own, around, mean, within, electron)
        bright_beside = ((beside >= last) & within).sum(axis=0, dtype=np.uint8)
        company |= (own < mean) & (bright_beside >= _BRIGHT_BESIDE)
        excess = ((around[_NEAREST] - mean) * within[_NEAREST]).sum(axis=0)
        profile = excess / np.sqrt(4 * np.maximum(mean, electron) * electron)
        uneven = ((around - mean) ** 2 * usable).sum(axis=0) > _UNEVEN * number * mean * electron
        uneven &= ~structure.has_lattice(pixels, counts.shape[1])
        if uneven.any():
            here = np.where(usable[:, uneven], around[:, uneven], mean[uneven])
            mean[uneven] = _own_side(here, mean[uneven], electron, own[uneven] > mean[uneven])
        return mean / electron, number > 0, company, profile

    def expect(pixels: npt.NDArray[np.intp]) -> Suspects:
        around, known, company, profile = over_neighbours(told, pixels, counts.shape)
        gain = None if counts.gain is None else counts.gain.reshape(-1)[pixels]
        expected = background.expected(around, gain)
        raw = counts.raw(pixels) / counts.per_electron
        here = structure.with_lattice(expected, pixels, counts.shape[1])
        deviate = poisson_deviate(raw + 0.5, here.copy())
        deviate = structure.narrowed(deviate, pixels, counts.shape[1])
        deviate[~known] = (flat[pixels[~known]].astype(np.float64) - _ZERO) / _STEPS
        expected[~known] = background.typical
        return Suspects(counts.shape, pixels, deviate, raw, expected, company, profile)

    def put(pixels: npt.NDArray[np.intp], anew: Codes) -> None:
        n_pixels[:] -= np.bincount(flat[pixels], minlength=_CODES)
        n_pixels[:] += np.bincount(anew, minlength=_CODES)
        flat[pixels] = anew

    verdict = expect(pixels).judged(counts, background.brightest, course)
    put(pixels, _codes(verdict.deviate))
    put(verdict.more, _codes(verdict.more_deviate))
    # What is beside clusters and spots was expected to be like them; but spots have skirts.
    for extended, has_skirts in ((verdict.clusters, False), (verdict.spots, True)):
        beside = _around(extended, counts.shape)
        for others in (pixels, verdict.more, counts.defects):
            beside = np.setdiff1d(beside, others, assume_unique=True)
        if beside.size:
            anew = _codes(expect(beside).deviate)
            nearer = np.abs(flat[beside] - float(middle)) < np.abs(anew - float(middle))
            anew[nearer & has_skirts] = flat[beside][nearer & has_skirts]
            put(beside, anew)
    put(pixels[verdict.left_alone], np.full(verdict.left_alone.sum(), middle, np.uint16))
    dark = flat[verdict.clusters] < middle
    for members, farthest in ((verdict.clusters[dark], 0), (verdict.clusters[~dark], _CODES - 1)):
        gaps = Gaps.of(members, counts.shape)
        asked = np.setdiff1d(np.union1d(gaps.pixels, gaps.members), counts.defects)
        if gaps.pixels.size and asked.size:
            found = gaps.like_their_line(expect(asked))
            found = found[(flat[found] >= first) & (flat[found] < last)]
            put(found, np.full(len(found), farthest, np.uint16))
    return verdict.n_spots


def _put_lines(
    codes: Codes,
    n_pixels: npt.NDArray[np.int64],
    lines: npt.NDArray[np.intp],
    deviate: Values,
) -> None:
    """Renew, in place, the codes of pixels in weak lines; those are all as far as their line."""
    flat = codes.reshape(-1)
    anew = _codes(np.clip(deviate, -_FARTHEST, _FARTHEST))
    before = flat[lines]
    own, of_line = (before - float(_ZERO)) / _STEPS, (anew - float(_ZERO)) / _STEPS
    # Where two lines cross, or a hot pixel is in a dark line, what it is itself counts.
    kept = (np.abs(own) >= np.abs(of_line)) | (own * np.sign(of_line) < -_OWN)
    anew = np.where(kept, before, anew)
    n_pixels -= np.bincount(before, minlength=_CODES)
    n_pixels += np.bincount(anew, minlength=_CODES)
    flat[lines] = anew


def _around(pixels: npt.NDArray[np.intp], shape: tuple[int, int]) -> npt.NDArray[np.intp]:
    """Return the neighbours of pixels, by flat index, each once."""
    row, column = np.divmod(pixels, shape[1])
    row = (row[:, None] + NEIGHBOURS[:, 0]).ravel()
    column = (column[:, None] + NEIGHBOURS[:, 1]).ravel()
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return np.unique(row[inside] * shape[1] + column[inside])


def _in_company(own: Any, around: Any, mean: Any, within: Any) -> npt.NDArray[np.bool_]:
    """Mark pixels of which several neighbours (24, k) are nearer to them than to what is expected.

    Such are parts of an edge, a corner or a bead.
    """
    own, mean = np.sqrt(np.maximum(own, 0)), np.sqrt(np.maximum(mean, 0))
    bright = own > mean
    nearer = ((around > ((own + mean) / 2) ** 2) == bright) & within
    # At the border of the image a part of the neighbours shows what is there.
    there = within.sum(axis=0, dtype=np.uint8).clip(min=1)
    number = nearer.sum(axis=0, dtype=np.uint8) * (np.float32(24) / there)
    part: npt.NDArray[np.bool_] = number >= np.where(bright, _BRIGHT, _DARK)
    soft = around[_TOUCHING] <= (mean + np.float32(_SOFT) * (own - mean)) ** 2
    part |= ~bright & ((soft & within[_TOUCHING]).sum(axis=0, dtype=np.uint8) > _DARK)
    return part


def _in_small_bead(
    own: Any, around: Any, mean: Any, within: Any, electron: Any
) -> npt.NDArray[np.bool_]:
    """Mark dark pixels of squares of two by two that are as dark as they are, or partly so.

    Squares that are dead, or of which each pixel has a response of its own, are defects.
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
    """Return what neighbours (24, k) tell of pixels beside an edge: those on their side of it.

    That is the half of them with more counts, or fewer; less what these have more by chance.
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
    # Of very many electrons each code stands for several.
    electrons = np.arange(least, most, max(1.0, (most - least) // _MOST_EDGES))
    deviate = poisson_deviate(electrons.copy(), np.full(len(electrons), typical))
    # A pixel whose code is at the edge lies above it.
    edges = np.rint(deviate * _STEPS + 0.5).astype(np.intp) + _ZERO
    near = np.abs(deviate) <= _FARTHEST
    edges, first = np.unique(edges[near], return_index=True)
    return edges, electrons[near][first] - 0.5


def _numbers(codes: Codes) -> npt.NDArray[np.int64]:
    """Return how many pixels have each code."""

    def work(top: int, bottom: int) -> npt.NDArray[np.int64]:
        return np.bincount(codes[top:bottom].reshape(-1), minlength=_CODES)

    y, x = codes.shape
    return sum(_by_strips(work, (y, x)), np.zeros(_CODES, np.int64))


def _outside(codes: Codes, first: int, last: int) -> npt.NDArray[np.intp]:
    """Return the pixels, by flat index, with codes below `first` or from `last` on."""

    def work(top: int, bottom: int) -> npt.NDArray[np.intp]:
        # Those below `first` wrap around, to the largest numbers.
        above = np.subtract(codes[top:bottom], first, dtype=np.uint16, casting="unsafe")
        found: npt.NDArray[np.intp] = np.flatnonzero(above >= last - first)
        found += top * codes.shape[1]
        return found

    y, x = codes.shape
    return np.concatenate(list(_by_strips(work, (y, x))))


def _by_strips(work: Callable[[int, int], Any], shape: tuple[int, int]) -> Iterator[Any]:
    """Run ``work(top, bottom)`` on strips of an image's rows, several at a time, in order."""
    height = max(1, _STRIP // shape[1] // BLOCK) * BLOCK
    tops = range(0, shape[0], height)

    def strip(top: int) -> Any:
        return work(top, min(shape[0], top + height))

    with in_order(strip, tops, "napari-mrcz-outliers") as strips:
        yield from strips
