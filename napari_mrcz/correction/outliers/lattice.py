"""Structure that a pixel's neighbours do not predict: lattice fringes, sharp edges, weak lines.

Where good pixels vary more than elsewhere, deviates are divided by the local width. A lattice is
subtracted first: all its contrast is in a few Fourier components, in which outliers have no part.

Of a weak hot or dark line no single pixel is an outlier, but all of them together are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.sums import in_order

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts

BLOCK = 32
"""Pixels along a side of a block, whose width of good pixels is measured."""

_TILE = 2 * BLOCK
# A window is wider than its tile on each side: near its borders, Fourier components of a wave that
# does not repeat in it are incomplete.
_MARGIN = 16
_INNER = slice(_MARGIN, _MARGIN + _TILE)
# Absolute deviates are cut off here, so that outliers and lines do not make a block wide; and
# widths of a table of the mean that is left.
_FLAT = 1.5
_WIDTHS = np.linspace(0.01, 12, 2048)
# Deviates beyond this have no part in a lattice; mean absolute value of the others.
_CLIP, _MEAN = 3.0, 0.7963
# Standard errors by which a block must be wider than most to have a width of its own.
_SIGNIFICANT = 4.0
# Where there are electrons, a block is wider than this.
_NONE = 0.3
# Wider than this, on average, a tile may have a lattice.
_WIDE = 1.05
# Power of a Fourier component of a lattice, over noise; below this frequency, in cycles per pixel,
# a pixel's neighbours predict it.
_PEAK, _LOWEST = 14.0, 0.08
# A defective line has more than this mean power along a line of components, each counted up to so
# much, where noise has 1; and no component above this.
_OF_LINE, _SPREAD, _OF_WAVE = 1.7, 4.0, 200.0
# Deviates of a code of the pattern.
_PATTERN_STEP = 1 / 16
# Mean fourth power over the square of the mean square, of the pattern of a lattice, at most: a wave
# has 1.5, three of them 2.5; 4 in half of a tile.
_EVEN = 4.5
# The code of a pixel beyond the image's border, and a deviate that none within has.
_UNKNOWN, _FARTHEST = 2**16 - 1, 100.0
# Rounds in which a lattice is found; each uses the former lattice to recognise outliers.
_ROUNDS = 3
# Tiles worked on at a time.
_AT_A_TIME = 32

Image = npt.NDArray[Any]
Values = npt.NDArray[np.float64]


def block_widths(codes: Image, zero: int, steps: int) -> Values:
    """Return the width of the deviates of each block of some rows, 1 of a normal distribution.

    `codes` (y, x): deviates in `steps` per deviate from `zero`, of rows from the top of a block on;
    blocks at the ends may be smaller. The result is (y / 32, x / 32).
    """
    x = codes.shape[1]
    # Every other row is enough.
    part = np.abs(codes[::2].astype(np.float32) - np.float32(zero))
    np.minimum(part, np.float32(_FLAT * steps), out=part)
    # `reduceat` lets no other thread work: rows are added first.
    starts = range(0, len(part), BLOCK // 2)
    rows = np.stack([np.add.reduce(part[start : start + BLOCK // 2]) for start in starts])
    sums = np.add.reduceat(rows, np.arange(0, x, BLOCK), axis=1)
    means = sums / steps / (_sizes(len(part), BLOCK // 2)[:, None] * _sizes(x, BLOCK))
    return np.interp(means, _means_of_widths(), _WIDTHS)


@cache
def _means_of_widths() -> Values:
    """Return the mean absolute values of normal deviates of the widths, cut off at `_FLAT`."""
    at = _FLAT / _WIDTHS
    cut = (1 - np.exp(-(at**2) / 2)) * (2 / np.pi) ** 0.5 + 2 * at * scipy.special.ndtr(-at)
    return _WIDTHS * cut


def _sizes(length: int, block: int) -> Values:
    return np.minimum(block, length - np.arange(0, length, block)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Structure:
    """The specimen's fine structure in the deviates of an image."""

    # (y / 32, x / 32): of good pixels in each block; 1 where it is that of most
    width: npt.NDArray[np.float32]
    pattern: npt.NDArray[np.int8]  # (k, 64, 64): deviates of the lattice in tiles, in steps of 1/16
    tiles: npt.NDArray[np.int32]  # (y / 64, x / 64): which of these a tile has; -1 is none

    @classmethod
    def of(cls, codes: Image, zero: int, steps: int, widths: Values) -> Structure:
        """Find lattices in deviates, subtract them, and measure the widths that are left.

        `codes` (y, x): deviates in `steps` per deviate from `zero`. They are changed in place: the
        lattice is subtracted, and the rest divided by the width; `widths` (y / 32, x / 32): from
        `block_widths`.
        """
        y, x = codes.shape
        tiles = np.full((-(-y // _TILE), -(-x // _TILE)), -1, np.int32)
        patterns: list[npt.NDArray[np.int8]] = []
        widths = widths.copy()
        wide = _candidates(codes, zero, steps, widths) if min(y, x) >= _TILE else []

        def work(start: int) -> tuple[Image, Image]:
            some = np.array(wide[start : start + _AT_A_TIME])
            windows = [_window(codes, row, column) for row, column in some]
            lattice, found = _lattices(_deviates(np.stack(windows), zero, steps))
            pattern = np.rint(lattice[found] / _PATTERN_STEP).clip(-127, 127).astype(np.int8)
            return some[found], pattern

        starts = range(0, len(wide), _AT_A_TIME)
        with in_order(work, starts, "napari-mrcz-outliers") as results:
            for some, found in results:
                tiles[some[:, 0], some[:, 1]] = np.arange(len(some)) + len(patterns)
                patterns.extend(found)
        pattern = np.stack(patterns) if patterns else np.zeros((0, _TILE, _TILE), np.int8)
        made = cls(np.ones(widths.shape, np.float32), pattern, tiles)
        for at in np.argwhere(tiles >= 0):
            made._subtract(codes, at, zero, steps, widths)
        # Blocks without a beam have no width.
        usual = float(np.median(widths[widths > _NONE])) if (widths > _NONE).any() else 1.0
        number = np.outer(_sizes(-(-y // 2), BLOCK // 2), _sizes(x, BLOCK))
        bound = 1 + _SIGNIFICANT * 0.84 / np.sqrt(number)
        structured = widths > usual * bound
        made.width[structured] = widths[structured] / usual
        for row, column in np.argwhere(structured):
            part = codes[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
            deviate = (part.astype(np.float32) - np.float32(zero)) / made.width[row, column]
            part[:] = np.rint(deviate + np.float32(zero))
        return made

    @property
    def share(self) -> float:
        """Part of the image that has a lattice."""
        return float((self.tiles >= 0).mean())

    def has_lattice(self, pixels: Pixels, n_columns: int) -> npt.NDArray[np.bool_]:
        """Return which pixels, by flat index, are in a tile with a lattice."""
        if not len(self.pattern):
            return np.zeros(len(pixels), np.bool_)
        row, column = np.divmod(pixels, n_columns)
        return self.tiles[row // _TILE, column // _TILE] >= 0

    def with_lattice(self, expected: Image, pixels: Pixels, n_columns: int) -> Image:
        """Return expected electrons of some pixels, by flat index, as the lattice changes them."""
        if not len(self.pattern):
            return expected
        row, column = np.divmod(pixels, n_columns)
        tile = self.tiles[row // _TILE, column // _TILE]
        pattern = self.pattern[tile, row % _TILE, column % _TILE]
        # A deviate is twice the difference of square roots.
        shift = np.where(tile >= 0, pattern * (_PATTERN_STEP / 2), 0).astype(expected.dtype)
        return np.maximum(np.sqrt(expected) + shift, expected.dtype.type(0.1)) ** 2

    def _subtract(self, codes: Image, at: Image, zero: int, steps: int, widths: Values) -> None:
        """Subtract the lattice from a tile's codes; renew the widths of its blocks."""
        row, column = at
        part = codes[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE]
        pattern = self.pattern[self.tiles[row, column]][: part.shape[0], : part.shape[1]]
        changed = part - np.rint(pattern * np.float32(_PATTERN_STEP * steps))
        np.clip(changed, 0, 2 * zero, out=changed)
        part[:] = changed
        blocks = widths[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        blocks[:] = block_widths(part, zero, steps)


def _candidates(codes: Image, zero: int, steps: int, widths: Values) -> list[tuple[int, int]]:
    """Return tiles (row, column) that are wide, and periodic in the widest of their blocks."""
    shape = -(-widths.shape[0] // 2), -(-widths.shape[1] // 2)
    missing = [(0, 2 * tiles - blocks) for tiles, blocks in zip(shape, widths.shape, strict=True)]
    blocks = np.pad(widths, missing, mode="symmetric").reshape(shape[0], 2, shape[1], 2)
    wide = np.argwhere(blocks.mean(axis=(1, 3)) > _WIDE)
    down, right = np.divmod(blocks[wide[:, 0], :, wide[:, 1]].reshape(-1, 4).argmax(axis=1), 2)
    first = (2 * wide + np.stack([down, right], axis=1)) * BLOCK
    top, left = np.minimum(first, np.array(codes.shape) - BLOCK).T
    squares = np.lib.stride_tricks.sliding_window_view(codes, (BLOCK, BLOCK))
    found: list[tuple[int, int]] = []
    for start in range(0, len(wide), 4 * _AT_A_TIME):
        some = np.s_[start : start + 4 * _AT_A_TIME]
        deviates = _deviates(squares[top[some], left[some]], zero, steps)
        _, strong = _components(deviates, np.zeros_like(deviates))
        found += [(int(row), int(column)) for row, column in wide[some][strong.any(axis=(1, 2))]]
    return found


def _deviates(codes: Image, zero: int, steps: int) -> npt.NDArray[np.float32]:
    return (codes.astype(np.float32) - np.float32(zero)) / np.float32(steps)


def _window(codes: Image, row: int, column: int) -> Image:
    """Return a tile and the margin around it, `_UNKNOWN` beyond the image's border."""
    window = np.full((_TILE + 2 * _MARGIN,) * 2, _UNKNOWN, codes.dtype)
    top, left = row * _TILE - _MARGIN, column * _TILE - _MARGIN
    part = codes[max(top, 0) : top + len(window), max(left, 0) : left + len(window)]
    first = max(-top, 0), max(-left, 0)
    window[first[0] : first[0] + part.shape[0], first[1] : first[1] + part.shape[1]] = part
    return window


def _components(deviates: Image, lattice: Image) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Return Fourier components without outliers, and which are stronger than noise can be."""
    rest = deviates - lattice
    absolute = np.abs(rest)
    known = absolute < _FARTHEST
    number = known.sum(axis=(1, 2), keepdims=True, dtype=np.float32)
    width = (np.minimum(absolute, _CLIP) * known).sum(axis=(1, 2), keepdims=True) / number / _MEAN
    # Outliers have no part in it, nor have pixels beyond the border.
    kept = np.where(absolute > _CLIP * np.maximum(width, 1), lattice, deviates)
    spectrum = scipy.fft.rfft2(kept)
    side = deviates.shape[1]
    frequency = np.hypot(scipy.fft.fftfreq(side)[:, None], scipy.fft.rfftfreq(side))
    power = spectrum.real**2 + spectrum.imag**2
    power /= (side * width) ** 2
    strong = (power > _PEAK) & (frequency >= _LOWEST)
    if side > BLOCK:
        # A defective line has components all along one direction, as has a wave whose periods do
        # not fit into the tile; but those of the line are weaker.
        cut = np.minimum(power, _SPREAD)
        for axis in (1, 2):
            wave = power.max(axis=axis, keepdims=True) > _OF_WAVE
            strong &= wave | (cut.mean(axis=axis, keepdims=True) < _OF_LINE)
    return spectrum, strong


def _lattices(deviates: npt.NDArray[np.float32]) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Return the lattice in each tile (k, 64, 64) of windows, and which tiles have one."""
    side = deviates.shape[1]
    lattice = np.zeros_like(deviates)
    for _ in range(_ROUNDS):
        spectrum, strong = _components(deviates, lattice)
        lattice = scipy.fft.irfft2(np.where(strong, spectrum, 0), s=(side, side))
    lattice = lattice[:, _INNER, _INNER]
    # A lattice is everywhere; an edge has such frequencies only beside it.
    square = lattice**2
    mean = square.mean(axis=(1, 2))
    even = (square**2).mean(axis=(1, 2)) < _EVEN * mean**2
    return lattice, strong.any(axis=(1, 2)) & even


# Pixels of a line that are looked at together; the last ones overlap those before.
_LENGTH = 64
# Least departure of their mean, in standard errors, and as a fraction of the pixels beside them,
# which no column of a sound detector reaches.
_CERTAIN, _LEAST = 6.0, 0.1
# In stronger lines each pixel is an outlier. A line extends over parts that depart by so much of
# its own departure; the median of its pixels departs by no more than that.
_STRONG, _PARTS, _LEAST_PART, _MOST_PART = 6.0, 4, 0.45, 1.4
# A pixel that is farther from the line than noise explains is not a part of it. Its neighbours show
# where a line ends that is not too faint.
_APART, _NEAR, _FAINT = 2.5, 9, 1.5
# Distances of the lines that it is compared with: a line is narrower.
_ASIDE = np.array([-4, -3, 3, 4])
# Where more of the image is like that it is a pattern, or the specimen; no more are looked at.
_MOST, _MOST_PIECES, _PIECES_AT_A_TIME = 0.1, 2**15, 2**10
# The mean is taken without so many of the smallest and largest pixels, for beads on the line.
_TRIMMED = 16

Pixels = npt.NDArray[np.intp]


def weak_lines(
    codes: npt.NDArray[np.uint16], zero: int, steps: int, counts: SummedCounts
) -> tuple[Pixels, Values]:
    """Find pieces of rows and columns that are brighter, or darker, than both sides of them.

    `codes` (y, x): deviates in `steps` per deviate from `zero`; `counts`: the movie's sum. Returned
    are `pixels` (k,): flat indices, ascending; `deviate` (k,): of the sum of `_LENGTH` pixels of
    the line that each is in.
    """
    found, deviates = [np.zeros(0, np.intp)], [np.zeros(0)]
    for axis in (0, 1):
        means = (_means(codes, axis) - zero) / steps
        # Columns of a fixed pattern vary more than chance.
        varies = float(np.median(np.abs(means[:, ::4]))) if means.size else 0.0
        varies = max(1 / _LENGTH**0.5, varies)
        is_off = np.abs(means) > _CERTAIN * varies
        off = np.argwhere(is_off & (np.abs(means) < _STRONG))
        if len(off) > min(_MOST * means.size, _MOST_PIECES):
            continue
        for first in range(0, len(off), _PIECES_AT_A_TIME):
            piece, line = off[first : first + _PIECES_AT_A_TIME].T
            deviate = means[piece, line]
            stands_out = _stand_out(counts, axis, piece, line, deviate > 0)
            deviate = deviate[stands_out, None]
            pixels = _pixels(counts.shape, axis, piece[stands_out], line[stands_out])
            own = (codes.reshape(-1)[pixels].astype(np.float64) - zero) / steps
            parts = own.reshape(-1, _PARTS, _LENGTH // _PARTS).mean(axis=2)
            whole = (parts / deviate > _LEAST_PART).sum(axis=1) >= _PARTS - 1
            # Unlike one in which a stronger line ends.
            middle = np.median(own, axis=1) / deviate[:, 0]
            whole &= (_LEAST_PART < middle) & (middle < _MOST_PART)
            # Only as far as the line goes, which may be into the next pieces.
            place = piece[stands_out][whole], line[stands_out][whole]
            pixels, exist = _reach(codes, axis, *place)
            own = (codes.reshape(-1)[pixels].astype(np.float64) - zero) / steps
            deviate = deviate[whole]
            inside = _to_the_ends(own / deviate, exist)
            # Again, without what is beyond the ends.
            share = np.clip(own / deviate, -1, 2).mean(axis=1, keepdims=True, where=inside)
            deviate = deviate * np.maximum(share, _LEAST_PART)
            inside = _to_the_ends(own / deviate, exist)
            near = scipy.ndimage.uniform_filter1d(own, _NEAR, axis=1, mode="nearest")
            inside &= (near / deviate > _LEAST_PART) | (np.abs(deviate) < _FAINT)
            inside &= own * np.sign(deviate) > np.abs(deviate) - _APART
            found.append(pixels[inside])
            deviates.append(np.broadcast_to(deviate * _LENGTH**0.5, inside.shape)[inside])
    pixels, where = np.unique(np.concatenate(found), return_index=True)
    return pixels, np.concatenate(deviates)[where]


def _means(codes: npt.NDArray[np.uint16], axis: int) -> Values:
    """Return the mean code of each piece (first) of each line (second) along an axis."""
    y, x = codes.shape
    starts = _starts(codes.shape[axis])
    means = np.zeros((len(starts), codes.shape[1 - axis]))
    if axis == 0:
        for piece, top in enumerate(starts):
            means[piece] = np.add.reduce(codes[top : top + _LENGTH], axis=0, dtype=np.uint32)
        return means / _LENGTH
    whole = x // _LENGTH * _LENGTH
    for top in range(0, y if whole else 0, _LENGTH):
        rows = slice(top, top + _LENGTH)
        sums = np.add.reduceat(
            codes[rows, :whole], np.arange(0, whole, _LENGTH), axis=1, dtype=np.uint32
        )
        means[: sums.shape[1], rows] = sums.T
        means[-1, rows] = np.add.reduce(codes[rows, -_LENGTH:], axis=1, dtype=np.uint32)
    return means / _LENGTH


def _starts(length: int) -> Pixels:
    """Return where pieces of a line begin; none where it is shorter than one."""
    starts = np.arange(0, length - _LENGTH + 1, _LENGTH)
    return np.append(starts, length - _LENGTH) if starts.size and length % _LENGTH else starts


def _pixels(shape: tuple[int, ...], axis: int, piece: Pixels, line: Pixels) -> Pixels:
    """Return the pixels (k, 64) of pieces of lines, by flat index."""
    along = _starts(shape[axis])[piece][:, None] + np.arange(_LENGTH)
    across = line[:, None]
    return along * shape[1] + across if axis == 0 else across * shape[1] + along


def _reach(
    codes: npt.NDArray[np.uint16], axis: int, piece: Pixels, line: Pixels
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Return the pixels (k, 192) of pieces and those before and behind them, and which exist."""
    along = _starts(codes.shape[axis])[piece][:, None] + np.arange(-_LENGTH, 2 * _LENGTH)
    exist = (along >= 0) & (along < codes.shape[axis])
    along = np.where(exist, along, _starts(codes.shape[axis])[piece][:, None])
    across = line[:, None]
    pixels = along * codes.shape[1] + across if axis == 0 else across * codes.shape[1] + along
    return pixels, exist


def _to_the_ends(relative: Values, exist: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark pixels between the most likely ends of lines, which go through the middle.

    `relative` (k, 192): deviates over that of the line.
    """
    # Nearer to the line than to good pixels; hot pixels count as one of the line does.
    gained = np.where(exist, np.clip(relative, -1, 2) - 0.5, -1)
    middle = gained.shape[1] // 2
    last = gained[:, middle:].cumsum(axis=1).argmax(axis=1)
    first = gained[:, :middle][:, ::-1].cumsum(axis=1).argmax(axis=1)
    place = np.arange(gained.shape[1]) - middle
    return (place <= last[:, None]) & (place >= -1 - first[:, None])


def _stand_out(
    counts: SummedCounts, axis: int, piece: Pixels, line: Pixels, bright: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return which pieces differ from both sides of them, by more than chance."""

    def level(line: Pixels) -> npt.NDArray[Any]:
        pixels = _pixels(counts.shape, axis, piece, line)
        electrons = np.sort(counts.normalised(pixels) / counts.per_electron, axis=1)
        return np.asarray(electrons[:, _TRIMMED:-_TRIMMED].mean(axis=1))

    # At the border of the image a line cannot be distinguished from an edge.
    aside = np.clip(line + _ASIDE[:, None], 0, counts.shape[1 - axis] - 1)
    beside = np.stack([level(some) for some in aside])
    usual = np.where(bright, beside.max(axis=0), beside.min(axis=0))
    # A few hot pixels in it are among those left out.
    error = np.sqrt(np.maximum(usual, 1) / _LENGTH)
    least = np.maximum(_LEAST * usual, _CERTAIN * error)
    apart = (level(line) - usual) * np.where(bright, 1, -1)
    return apart > least
