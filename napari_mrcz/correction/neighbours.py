"""The 24 neighbours of some pixels, which are few, so that no image need be filtered for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NEIGHBOURS", "over_neighbours"]

NEIGHBOURS = np.delete(np.stack(np.divmod(np.arange(25), 5), axis=1) - 2, 12, axis=0)
"""Shifts (y, x) from a pixel to those around it in the 5 x 5 square, (24, 2)."""

# Pixels worked on at a time: what lies around them stays in a cache.
_CHUNK = 2**12

Pixels = npt.NDArray[np.intp]


def over_neighbours(
    work: Callable[[Pixels, Pixels, npt.NDArray[np.bool_]], tuple[npt.NDArray[Any], ...]],
    pixels: Pixels,
    shape: tuple[int, int],
) -> tuple[npt.NDArray[Any], ...]:
    """Do something with pixels and their neighbours, some of the pixels at a time.

    Parameters
    ----------
    work : callable
        Given flat indices of pixels (c,), of their neighbours (c, 24) in the order of
        `NEIGHBOURS`, and which of these there are (c, 24), as beyond the image's border there are
        none (the index is then the pixel's own). Gives arrays, each with a value a pixel. It runs
        in several threads.
    pixels : ndarray of intp, shape (k,)
        Flat indices.
    shape : tuple of int
        Of the image (y, x).

    Returns
    -------
    tuple of ndarray, each of shape (k,)
        What the work gave.
    """

    def chunk(start: int) -> tuple[npt.NDArray[Any], ...]:
        some = pixels[start : start + _CHUNK]
        return work(some, *_neighbours(some, shape))

    starts = range(0, max(1, len(pixels)), _CHUNK)
    with in_order(chunk, starts, processors(), "napari-mrcz-outliers") as parts:
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _neighbours(pixels: Pixels, shape: tuple[int, int]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    dy, dx = NEIGHBOURS.T
    neighbours = pixels[:, None] + (dy * shape[1] + dx)
    y, x = np.divmod(pixels, shape[1])
    to_border = np.minimum(np.minimum(y, shape[0] - 1 - y), np.minimum(x, shape[1] - 1 - x))
    if to_border.min(initial=2) >= 2:
        return neighbours, np.ones(neighbours.shape, np.bool_)
    y, x = y[:, None] + dy, x[:, None] + dx
    within = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    return np.where(within, neighbours, pixels[:, None]), within
