"""The sum of a movie's frames, and which of its pixels a fit may rely on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.summing import sum_array

__all__ = ["frame_sum", "ordinary_pixels"]


def frame_sum(movie: Any) -> npt.NDArray[np.float64]:
    """Sum the frames of a movie.

    Parameters
    ----------
    movie : Stack or array_like, shape (n, y, x), or iterable of (y, x)
        The frames; an array (y, x) counts as the sum itself.

    Returns
    -------
    ndarray of float64, shape (y, x)

    Raises
    ------
    ValueError
        If there are no frames, or they are not real numbers.
    """
    shape = getattr(movie, "shape", None)
    if shape is not None and len(shape) not in (2, 3):
        raise ValueError(f"an array of shape {tuple(shape)}, where frames (n, y, x) are expected")
    if shape is not None and len(shape) == 3 and not shape[0]:
        raise ValueError("a movie without frames")
    if hasattr(movie, "dtype"):
        _check_real(movie.dtype)
    if isinstance(movie, np.ndarray):
        total = sum_array(movie) if movie.ndim == 3 else movie
    elif hasattr(movie, "sum"):
        total = movie.sum(axis=0)
    else:
        frames = iter(movie)
        try:
            total = np.asarray(next(frames))
            total = total.astype(np.float64 if total.dtype.kind in "buif" else total.dtype)
        except StopIteration:
            raise ValueError("a movie without frames") from None
        for frame in frames:
            total += frame
    _check_real(total.dtype)
    total = np.asarray(total, np.float64)
    if total.ndim != 2 or not total.size:
        raise ValueError(f"frames sum to an array of shape {total.shape}, where (y, x) is expected")
    return total


def _check_real(dtype: np.dtype[Any]) -> None:
    if np.dtype(dtype).kind not in "buif":
        raise ValueError(f"frames of real numbers are summed, not of {dtype}")


def ordinary_pixels(image: npt.NDArray[Any], limit: float = 6.0) -> npt.NDArray[np.bool_]:
    """Mark the pixels within `limit` robust standard deviations of the median.

    A rule of thumb, for fits that a few hot pixels would pull away; `OutlierFilter` is the
    careful one.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        A sum or a flat. Values that are not finite are not ordinary.
    limit : float
        In standard deviations, estimated by the median absolute deviation.

    Returns
    -------
    ndarray of bool, shape (y, x)
    """
    finite: npt.NDArray[np.bool_] = np.isfinite(image)
    if not finite.any():
        return finite
    median = np.median(image[finite])
    distance = np.abs(image - median)
    # Counts so few that most pixels are alike have no spread by this measure: take Poisson's.
    level = abs(median)
    if level == 0:  # as for less than 0.7 counts a pixel
        values = image[finite]
        level = abs(values[values <= np.quantile(values, 0.99)].mean())
    deviation = max(1.4826 * float(np.median(distance[finite])), float(level) ** 0.5)
    ordinary: npt.NDArray[np.bool_] = np.logical_and(finite, distance <= limit * deviation)
    return ordinary
