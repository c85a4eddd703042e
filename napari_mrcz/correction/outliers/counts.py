"""The sum of a movie's frames in electrons: what outlier pixels are looked for in.

The sum and not the frames: an outlier stays where it is and gathers strength, while the specimen
drifts and blurs (preprint doi:10.1101/116533, section 4, step 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.summing import RunningSum, smallest_sum_dtype, sum_array

__all__ = ["SummedCounts"]

# Pixels that typical values are taken from.
_SAMPLE = 2**18
# What is larger, or smaller than its reciprocal, has no square in float32; a few pixels may.
_LARGEST, _FEW = 1e18, 0.01
# Beyond these not all whole numbers are floats.
_WHOLE = 2.0**53

Image = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class SummedCounts:
    """The sum of a movie's frames, and what turns it into electrons.

    Parameters
    ----------
    total : ndarray, shape (y, x)
        The sum, in counts; something ordinary where there is a defect.
    n_frames : int
        Frames in it.
    per_electron : float
        Counts that one electron adds.
    gain : ndarray of float32, shape (y, x), optional
        Reference that multiplies counts; finite and positive.
    defects : ndarray of intp
        Flat indices of the pixels that say nothing, in order.
    are_counts : bool
        False where so many pixels are negative that these are no counts of electrons.
    """

    total: Image
    n_frames: int
    per_electron: float
    gain: npt.NDArray[np.float32] | None
    defects: npt.NDArray[np.intp]
    are_counts: bool

    @classmethod
    def of(
        cls,
        movie: Any,
        *,
        gain: npt.ArrayLike | None = None,
        defects: npt.ArrayLike | None = None,
        per_electron: float | None = None,
    ) -> SummedCounts:
        """Sum a movie; pixels that are not finite, or have no usable gain, become defects.

        Parameters
        ----------
        movie : Stack or ndarray, shape (n, y, x)
            Counts.
        gain : array_like, shape (y, x), optional
            As above, but 0, negative, infinite and NaN may be in it.
        defects : array_like of bool, shape (y, x), optional
            Defects that are known.
        per_electron : float, optional
            As above; measured from the noise of the first two frames where it is not given. What
            are no counts have a sixteenth of their own noise for an electron.

        Raises
        ------
        ValueError
            If the frames are not real numbers, of a size that no counts have, shapes differ, or no
            pixel is usable.
        """
        shape = tuple(getattr(movie, "shape", ()))
        if len(shape) != 3 or not all(shape):
            raise ValueError(f"outliers are looked for in frames (n, y, x), not in {shape}")
        if np.dtype(movie.dtype).kind not in "buif":
            raise ValueError(f"outliers are looked for in real numbers, not in {movie.dtype}")
        if per_electron is not None and not 0 < per_electron < math.inf:
            raise ValueError(f"counts per electron are positive, not {per_electron}")
        total = _sum(movie)
        factor = None
        unusable = []
        if defects is not None:
            unusable.append(_fitting("defects", defects, shape[1:]).astype(np.bool_))
        if total.dtype.kind == "f":
            unusable.append(_beyond(total))
        if gain is not None:
            factor = _fitting("a gain", gain, shape[1:]).astype(np.float32)
            unusable.append(~(np.isfinite(factor) & (factor > 0)))
            factor[unusable[-1]] = 1
        where = np.flatnonzero(np.any(unusable, axis=0)) if unusable else np.empty(0, np.intp)
        if where.size == total.size:
            raise ValueError("no pixel is usable: all are defects, not finite, or have no gain")
        if where.size:
            total = _with_ordinary(total, factor, where)
        step = max(1, total.size // _SAMPLE)
        values = total[::step] if factor is None else total[::step] * factor[::step]
        are_counts = float(np.mean(values < 0)) <= 0.1
        if per_electron is None and not are_counts:
            low, high = np.percentile(values, [15.87, 84.13])
            per_electron = float(high - low) / 32 or 1.0
        elif per_electron is None:
            per_electron = _measure_per_electron(movie, values, factor, step)
        return cls(total, shape[0], float(per_electron), factor, where, are_counts)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        y, x = self.total.shape
        return y, x

    @property
    def n_usable(self) -> int:
        """Pixels that are no defects."""
        return self.total.size - self.defects.size

    def rows(self, top: int, bottom: int) -> tuple[Image, Image]:
        """Give rows as electrons, (raw, gain-normalised), each float32."""
        raw = self.total[top:bottom].astype(np.float32)
        if self.per_electron != 1:
            raw *= np.float32(1 / self.per_electron)
        return raw, raw if self.gain is None else raw * self.gain[top:bottom]

    def normalised(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Give the gain-normalised sums, in counts, of pixels by flat index."""
        values: npt.NDArray[np.float64] = self.total.reshape(-1)[pixels].astype(np.float64)
        return values if self.gain is None else values * self.gain.reshape(-1)[pixels]

    def sample(self, height: int = 8) -> list[tuple[int, int]]:
        """Give strips (top, bottom) of rows, spread over the image, that tell what is typical."""
        y, x = self.shape
        height = min(height, y)
        number = max(1, min(_SAMPLE // (height * x), y // height))
        tops = np.linspace(0, y - height, number).astype(int).tolist()
        return [(top, top + height) for top in tops]


def _sum(movie: Any) -> Image:
    if isinstance(movie, np.ndarray):
        return sum_array(movie)
    if hasattr(movie, "sum"):
        return np.asarray(movie.sum(axis=0, dtype=smallest_sum_dtype(movie.dtype, len(movie))))
    n, y, x = movie.shape
    running = RunningSum((y, x), movie.dtype, n)
    for frame in movie:
        running.add(np.asarray(frame))
    return running.total()


def _beyond(total: Image) -> npt.NDArray[np.bool_]:
    """Mark pixels of a float sum that are not finite, or too large to be computed with.

    Raises
    ------
    ValueError
        If these are not single pixels, but all are so large, or all so small.
    """
    beyond = ~_usable(total)
    with np.errstate(invalid="ignore"):
        most = float(np.abs(total).max(where=~beyond, initial=0))
        large = np.count_nonzero(beyond & np.isfinite(total))
    if large > _FEW * total.size:
        raise ValueError(f"sums beyond {_LARGEST:g} are no counts of electrons")
    if 0 < most < 1 / _LARGEST:
        raise ValueError(f"sums of {most:.2g} at most are no counts of electrons")
    return beyond


def _usable(image: Image) -> npt.NDArray[np.bool_]:
    if image.dtype.kind != "f":
        return np.ones(image.shape, np.bool_)
    largest = min(_LARGEST, float(np.finfo(image.dtype).max))
    usable: npt.NDArray[np.bool_] = np.abs(image) <= largest
    return usable


def _fitting(what: str, image: npt.ArrayLike, shape: tuple[int, ...]) -> Image:
    image = np.asarray(image)
    if image.shape != shape:
        raise ValueError(f"{what} of {image.shape} for frames of {shape}")
    return image


def _with_ordinary(
    total: Image, gain: npt.NDArray[np.float32] | None, defects: npt.NDArray[np.intp]
) -> Image:
    """Put the median of the usable pixels where there are defects."""
    usable = np.ones(total.size, np.bool_)
    usable[defects] = False
    some = np.flatnonzero(usable)
    some = some[:: max(1, some.size // _SAMPLE)]
    filled = total.flatten()
    if gain is None:
        filled[defects] = np.median(filled[some])
    else:
        factor = gain.reshape(-1)
        filled[defects] = np.median(filled[some] * factor[some]) / factor[defects]
    return filled.reshape(total.shape)


def _measure_per_electron(
    movie: Any, values: Image, gain: npt.NDArray[np.float32] | None, step: int
) -> float:
    """Measure the counts of an electron: of Poisson counts, the variance over the mean.

    The variance is that between the first two frames, which no fixed pattern adds to; a single
    frame has only its neighbouring pixels to be compared. Whole numbers have whole ones.

    Parameters
    ----------
    movie : Stack or ndarray, shape (n, y, x)
        The frames.
    values : ndarray, shape (y / step, x)
        Every so many-th row of the gain-normalised sum.
    gain : ndarray, shape (y, x), optional
        The gain.
    step : int
        From row to row.
    """
    # Rows of a frame are not kept by a stack, as whole ones are.
    frames = [np.asarray(movie[index, ::step]) for index in range(min(2, len(movie)))]
    low, high = np.percentile(values, [1, 99])
    usual = _usable(frames[0]) & (low <= values) & (values <= high)
    ratio = 0.0
    if len(frames) == 2:
        ratio = _fano(frames[0], frames[1], usual & _usable(frames[1]))
    if not ratio:
        level = frames[0] if gain is None else frames[0] * gain[::step]
        ratio = _fano(level[:, 1:], level[:, :-1], usual[:, 1:] & usual[:, :-1])
    some = frames[0][usual]
    largest = float(np.abs(some).max(initial=0))
    if ratio and largest < _WHOLE and np.all(some == np.rint(some)):
        unit = max(1, int(np.gcd.reduce(some.astype(np.int64), initial=0)))
        ratio = float(unit * max(1, round(ratio / unit)))
    return ratio or 1.0


def _fano(one: Image, other: Image, where: npt.NDArray[np.bool_]) -> float:
    """Give variance over mean of two counts of the same, 0 where they tell nothing."""
    first, second = one[where].astype(np.float64), other[where].astype(np.float64)
    level = float((first + second).mean()) if first.size else 0.0
    return float((first - second).var()) / level if level > 0 else 0.0
