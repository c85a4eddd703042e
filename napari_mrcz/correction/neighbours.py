"""The 24 neighbours of some pixels, which are few, so that no image need be filtered for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.parallel import in_order

if TYPE_CHECKING:
    from collections.abc import Callable

NEIGHBOURS = np.delete(np.stack(np.divmod(np.arange(25), 5), axis=1) - 2, 12, axis=0)
"""Shifts (y, x) from a pixel to those around it in the 5 x 5 square, (24, 2)."""

# Pixels worked on at a time: what lies around them stays in a cache.
_CHUNK = 2**13

Pixels = npt.NDArray[np.intp]


def over_neighbours(
    work: Callable[[Pixels, Pixels, npt.NDArray[np.bool_]], tuple[npt.NDArray[Any], ...]],
    pixels: Pixels,
    shape: tuple[int, int],
) -> tuple[npt.NDArray[Any], ...]:
    """Compute something of pixels and their neighbours, some of the pixels at a time.

    Parameters
    ----------
    work : callable
        Called with flat indices of pixels (c,), of their neighbours (24, c) in the order of
        `NEIGHBOURS`, and which of these exist (24, c): beyond the image's border there are none,
        and the index is the pixel's own. Returns arrays with one value per pixel. It runs in
        several threads.
    pixels : ndarray of intp, shape (k,)
        Flat indices.
    shape : tuple of int
        Of the image (y, x).

    Returns
    -------
    tuple of ndarray, each of shape (k,)
        What the work returned.
    """

    def chunk(start: int) -> tuple[npt.NDArray[Any], ...]:
        some = pixels[start : start + _CHUNK]
        return work(some, *_neighbours(some, shape))

    starts = range(0, max(1, len(pixels)), _CHUNK)
    with in_order(chunk, starts, "napari-mrcz-outliers") as parts:
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _neighbours(pixels: Pixels, shape: tuple[int, int]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    dy, dx = NEIGHBOURS.T[:, :, None]
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
