"""Weak hot and dark lines, of which no single pixel is an outlier: all of them together are one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts

# Pixels of a line that are looked at together; the last ones overlap those before.
_LENGTH = 64
# Standard errors by which their mean is off; part of what is beside them by which they are, more
# than which no column of a sound detector is.
_SIGNIFICANT, _LEAST = 6.0, 0.1
# Of stronger ones each pixel is an outlier. A line goes as far as its parts are off by so much of
# what it is.
_STRONG, _PARTS, _LEAST_PART = 3.0, 4, 0.45
# A pixel that is farther from it than noise lets it be is not a part of it.
_APART = 2.5
# A line is narrower than the distance of what it is compared with, on both sides.
_ASIDE = np.array([-4, -3, 3, 4])
# Where more of the image is like that it is a pattern, or the specimen; no more are looked at.
_MOST, _MOST_PIECES, _AT_A_TIME = 0.1, 2**15, 2**10
# The mean is taken without so many of the smallest and largest pixels: a bead may lie in its way.
_TRIMMED = 16

Pixels = npt.NDArray[np.intp]


def weak_lines(
    codes: npt.NDArray[np.uint16], zero: int, steps: int, counts: SummedCounts
) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """Find pieces of rows and columns that are brighter, or darker, than what is on both sides.

    Parameters
    ----------
    codes : ndarray of uint16, shape (y, x)
        Deviates as whole numbers of steps from `zero`.
    zero, steps : int
        The code of 0, and codes per deviate.
    counts : SummedCounts
        The movie's sum.

    Returns
    -------
    pixels : ndarray of intp, shape (k,)
        Flat indices, ascending.
    deviate : ndarray, shape (k,)
        Of the line that each is in: that of the sum of `_LENGTH` pixels.
    """
    found, deviates = [np.zeros(0, np.intp)], [np.zeros(0)]
    for axis in (0, 1):
        means = (_means(codes, axis) - zero) / steps
        is_off = np.abs(means) > _SIGNIFICANT / _LENGTH**0.5
        off = np.argwhere(is_off & (np.abs(means) < _STRONG))
        if len(off) > min(_MOST * means.size, _MOST_PIECES):
            continue
        for first in range(0, len(off), _AT_A_TIME):
            piece, line = off[first : first + _AT_A_TIME].T
            deviate = means[piece, line]
            stands_out = _stand_out(counts, axis, piece, line, deviate > 0)
            deviate = deviate[stands_out, None]
            pixels = _pixels(counts.shape, axis, piece[stands_out], line[stands_out])
            # Only as far as the line goes.
            own = (codes.reshape(-1)[pixels].astype(np.float64) - zero) / steps
            parts = own.reshape(-1, _PARTS, _LENGTH // _PARTS).mean(axis=2)
            whole = (parts / deviate > _LEAST_PART).sum(axis=1, keepdims=True) >= _PARTS - 1
            inside = np.repeat(parts / deviate > _LEAST_PART, _LENGTH // _PARTS, axis=1) & whole
            inside &= own * np.sign(deviate) > np.abs(deviate) - _APART
            found.append(pixels[inside])
            deviates.append(np.broadcast_to(deviate * _LENGTH**0.5, inside.shape)[inside])
    pixels, where = np.unique(np.concatenate(found), return_index=True)
    return pixels, np.concatenate(deviates)[where]


def _means(codes: npt.NDArray[np.uint16], axis: int) -> npt.NDArray[np.float64]:
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


def _stand_out(
    counts: SummedCounts, axis: int, piece: Pixels, line: Pixels, bright: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return which pieces differ from what is on both sides of them, by more than chance."""

    def level(line: Pixels) -> npt.NDArray[Any]:
        pixels = _pixels(counts.shape, axis, piece, line)
        electrons = np.sort(counts.normalised(pixels) / counts.per_electron, axis=1)
        return np.asarray(electrons[:, _TRIMMED:-_TRIMMED].mean(axis=1))

    # At the border of the image a line cannot be told from an edge.
    aside = np.clip(line + _ASIDE[:, None], 0, counts.shape[1 - axis] - 1)
    beside = np.stack([level(some) for some in aside])
    usual = np.where(bright, beside.max(axis=0), beside.min(axis=0))
    # Not what a few hot pixels in it do, which are among those left out.
    error = np.sqrt(np.maximum(usual, 1) / _LENGTH)
    least = np.maximum(_LEAST * usual, _SIGNIFICANT * error)
    apart = (level(line) - usual) * np.where(bright, 1, -1)
    stands_out: npt.NDArray[np.bool_] = apart > least
    return stands_out
