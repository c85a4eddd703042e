"""Gaps between a detector's modules: pixels that are 0 in every frame because nothing is there."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

# Side of the tiles within which pixels are 0 about equally often, in pixels.
_TILE = 64
# A run of pixels is a gap where chance leaves it without counts in one case of e to this power.
_EVIDENCE = 30.0
# Tiles are not quite alike: so much of their evidence counts.
_TRUSTED = 0.8
# Fewer frames tell straight strips, which are so long at least, from chance; not single pixels.
_FEWEST_FRAMES, _LENGTH = 16, 32
# No pixel is known to be 0 more rarely.
_RAREST = 0.02


def find_gaps(zeros: Mask) -> Mask:
    """Find pixels that have no counts in any frame, where chance would have left them some.

    Parameters
    ----------
    zeros : ndarray of bool, shape (n, y, x)
        Pixels without counts, of some frames of a sweep.

    Returns
    -------
    ndarray of bool, shape (y, x)
        True in the gaps.
    """
    always: Mask = np.logical_and.reduce(zeros, axis=0)
    if not always.any() or always.all():
        return np.zeros(always.shape, np.bool_)
    evidence = np.where(always, _TRUSTED * len(zeros) * -np.log(_chance(zeros.mean(axis=0))), 0)
    shortest = 1 if len(zeros) >= _FEWEST_FRAMES else _LENGTH
    gaps: Mask = _runs(always, evidence, shortest) | _runs(always.T, evidence.T, shortest).T
    return gaps


def _chance(often: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how often the pixels about each are 0, gaps left out, shape (y, x).

    The median over the rows or columns of a tile, which strips do not reach.
    """
    rows, columns = ([*range(0, n, _TILE), n] for n in often.shape)
    tiles = np.empty((len(rows) - 1, len(columns) - 1))
    for i, (top, bottom) in enumerate(pairwise(rows)):
        for j, (left, right) in enumerate(pairwise(columns)):
            tile = often[top:bottom, left:right]
            tiles[i, j] = min(np.median(tile.mean(axis=0)), np.median(tile.mean(axis=1)))
    # Tiles within a gap are like the others.
    known = tiles[tiles < 1]
    tiles[tiles == 1] = np.median(known) if known.size else 1
    tiles = np.clip(tiles, _RAREST, 1)
    wide = np.repeat(np.repeat(tiles, np.diff(rows), axis=0), np.diff(columns), axis=1)
    return wide


def _runs(always: Mask, evidence: npt.NDArray[np.float64], shortest: int) -> Mask:
    """Mark runs along rows that are too long for chance."""
    padded = np.pad(always, ((0, 0), (1, 1))).reshape(-1)
    step = np.diff(padded.astype(np.int8))
    begin, end = np.flatnonzero(step == 1) + 1, np.flatnonzero(step == -1) + 1
    total = np.concatenate([[0], np.cumsum(np.pad(evidence, ((0, 0), (1, 1))).reshape(-1))])
    kept = (total[end] - total[begin] > _EVIDENCE) & (end - begin >= shortest)
    marks = np.zeros(len(padded) + 1, np.int64)
    np.add.at(marks, begin[kept], 1)
    np.add.at(marks, end[kept], -1)
    inside: Mask = np.cumsum(marks)[:-1].reshape(len(always), -1)[:, 1:-1] > 0
    return inside
