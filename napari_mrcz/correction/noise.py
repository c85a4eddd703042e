"""Correlated noise: how alike the frames of a movie are, where only noise should be.

McLeod et al., preprint doi:10.1101/116533, section 4.1, eq. 7.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.parallel import in_order

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

# Pixels worked on at a time: what is computed of them stays in a cache.
_PIECE = 2**16
# Pieces that a thread is given at a time.
_AT_A_TIME = 16
# Larger images than this are worked on in several threads, and summed in float32 if their pixels
# have 8 bits: a sum in float64 would take eight frames' memory.
_LARGE = 2**22


def correlated_noise(movie: Any) -> float:
    """Return the mean Pearson correlation R of all pairs of a movie's frames (eq. 7).

    Parameters
    ----------
    movie : Stack or ndarray, shape (n, y, x)
        Real numbers; anything that yields frames (y, x) when iterated.

    Returns
    -------
    float
        -1 / (n - 1) to 1. NaN if fewer than two frames vary (a constant frame correlates with
        nothing and is left out), or if a pixel is NaN.

    Raises
    ------
    ValueError
        If there are fewer than two frames, they differ in shape, or are complex.

    Notes
    -----
    Frames are read once, and one image is kept. With z the frames standardised to mean 0 and
    variance 1, the variance of their sum is the sum of all n² correlations, of which n are 1:
    R = (var(Σ z) - n) / (n (n - 1)), which is exact; to 1e-7 for large frames of 8 bits, which
    are summed in single precision.
    """
    total: npt.NDArray[Any] | None = None
    n_frames = n = 0
    # Not through the cache of a stack, which would keep three of them.
    frames = (make() for make in movie.frame_makers()) if hasattr(movie, "frame_makers") else movie
    for frame in frames:
        image = np.asarray(frame)
        del frame
        if image.dtype.kind not in "buif":
            raise ValueError(f"correlations are those of real numbers, not of {image.dtype}")
        if total is None:
            is_coarse = image.itemsize == 1 and image.size >= _LARGE
            total, shape = np.zeros(image.size, "f4" if is_coarse else "f8"), image.shape
        elif image.shape != shape:
            raise ValueError(f"frame {n_frames} is {image.shape}, where the first is {shape}")
        n_frames += 1
        pixels = image.reshape(-1)
        deviation = _standard_deviation(pixels)
        if deviation != 0:
            n += 1
            _add(total, pixels, deviation)
        del image, pixels  # while the next one is read
    if total is None or n_frames < 2:
        raise ValueError(f"{n_frames} frames have no pairs to correlate")
    if n < 2:
        return math.nan
    return (_standard_deviation(total) ** 2 - n) / (n * (n - 1))


def _add(total: npt.NDArray[Any], pixels: npt.NDArray[Any], deviation: float) -> None:
    """Add a frame over its standard deviation.

    Its mean need not be taken off: the variance of the sum knows no offset.
    """
    factor = total.dtype.type(1 / deviation)

    def work(piece: slice) -> None:
        total[piece] += pixels[piece] * factor

    _by_pieces(work, pixels.size)


def _standard_deviation(pixels: npt.NDArray[Any]) -> float:
    if not pixels.size:
        return 0.0
    # Around a typical value: squares of large numbers would lose the small differences.
    typical = np.float64(np.median(pixels[:: max(1, pixels.size // 1000)]))

    def work(piece: slice) -> tuple[float, float]:
        with np.errstate(over="ignore", invalid="ignore"):  # of what is no count: NaN comes of it
            apart = pixels[piece] - typical
            return float(apart.sum()), float(np.einsum("i,i", apart, apart))

    sums, squares = map(sum, zip(*_by_pieces(work, pixels.size), strict=True))
    return math.sqrt(max(squares - sums * sums / pixels.size, 0.0) / pixels.size)


def _by_pieces(work: Callable[[slice], Result], size: int) -> list[Result]:
    """Return ``work(piece)`` of all pieces, which stay in a cache."""
    # Several pieces at a time, of which each alone would take no longer than handing it on.
    starts = range(0, size, _PIECE)

    def some(first: int) -> list[Result]:
        return [work(np.s_[start : start + _PIECE]) for start in starts[first : first + _AT_A_TIME]]

    firsts = range(0, len(starts), _AT_A_TIME)
    with in_order(some, firsts, "napari-mrcz-noise", alone=size < _LARGE) as parts:
        return [result for part in parts for result in part]
