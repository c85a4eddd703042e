"""The sum of a movie's frames in electrons: what outlier pixels are looked for in.

The sum and not the frames: an outlier stays where it is and gathers strength, while the specimen
drifts and blurs (preprint doi:10.1101/116533, section 4, step 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.outliers.frames import FrameStatistics, frame_reader
from napari_mrcz.correction.sums import RunningSum, smallest_sum_dtype, sum_array

# Pixels that typical values are taken from.
_SAMPLE = 2**18
# Pixels that are looked at in single frames.
_FRAME_SAMPLE = 2**16
# What is larger, or smaller than its reciprocal, has no square in float32; a few pixels may.
_LARGEST, _FEW = 1e18, 0.01
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
    pedestal : float
        Counts in a frame's pixel without electrons; the sum has as many of them as frames.
    left_out : tuple of int
        Frames that are not in the sum, being unlike the others.
    pedestal_is_unknown : bool
        There seems to be one, which could not be measured.
    """

    total: Image
    n_frames: int
    per_electron: float
    gain: npt.NDArray[np.float32] | None
    defects: npt.NDArray[np.intp]
    are_counts: bool
    pedestal: float = 0.0
    left_out: tuple[int, ...] = ()
    pedestal_is_unknown: bool = False

    @classmethod
    def of(
        cls,
        movie: Any,
        *,
        gain: npt.ArrayLike | None = None,
        defects: npt.ArrayLike | None = None,
        per_electron: float | None = None,
        pedestal: float | None = None,
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
            As above; measured from the noise of typical frames where it is not given. What are
            no counts have a sixteenth of their own noise for an electron.
        pedestal : float, optional
            As above; measured from the skewness of the noise where it is not given.

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
        step = max(1, total.size // _FRAME_SAMPLE)
        values = total[::step] if factor is None else total[::step] * factor[::step]
        shown = FrameStatistics(1.0, pedestal or 0.0)
        if float(np.mean(values < 0)) <= 0.1:
            low, high = np.percentile(values, [1, 99])
            usual = (low <= values) & (values <= high)
            row, column = np.divmod(where, total.shape[1])
            usual[row[row % step == 0] // step, column[row % step == 0]] = False
            if usual.any():
                mean = float(total[::step][usual].mean()) / shape[0]
                shown = FrameStatistics.of(movie, usual, step, mean, factor, pedestal)
                level = values if factor is None else total[::step]
                if pedestal is None and np.mean(level < shape[0] * shown.pedestal) > 0.1:
                    # It is not the same in all pixels.
                    shown = FrameStatistics.of(movie, usual, step, mean, factor, 0.0)
                    shown = replace(shown, pedestal_is_unknown=True)
        if shown.unlike:
            total = _without(total, movie, shown.unlike)
            if where.size:
                total = _with_ordinary(total, factor, where)
        n_frames = shape[0] - len(shown.unlike)
        values = total[::step] - n_frames * shown.pedestal
        if factor is not None:
            values = values * factor[::step]
        are_counts = float(np.mean(values < 0)) <= 0.1
        if per_electron is None and not are_counts:
            low, high = np.percentile(values, [15.87, 84.13])
            per_electron = float(high - low) / 32 or 1.0
        elif per_electron is None:
            per_electron = shown.per_electron
        return cls(
            total, n_frames, float(per_electron), factor, where, are_counts, shown.pedestal,
            shown.unlike, shown.pedestal_is_unknown,
        )  # fmt: skip

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
        """Return rows as electrons, (raw, gain-normalised), each float32."""
        raw = self.total[top:bottom].astype(np.float32)
        if self.pedestal:
            raw -= np.float32(self.n_frames * self.pedestal)
        if self.per_electron != 1:
            raw *= np.float32(1 / self.per_electron)
        return raw, raw if self.gain is None else raw * self.gain[top:bottom]

    def raw(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Return the sums, in counts and without the pedestal, of pixels by flat index."""
        values: npt.NDArray[np.float32] = self.total.reshape(-1)[pixels].astype(np.float32)
        if self.pedestal:
            values -= np.float32(self.n_frames * self.pedestal)
        return values

    def normalised(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Return the gain-normalised sums, in counts, of pixels by flat index."""
        values = self.raw(pixels)
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
    if hasattr(movie, "frame_makers"):
        return np.asarray(movie.sum(dtype="smallest"))
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


def _without(total: Image, movie: Any, frames: tuple[int, ...]) -> Image:
    """Return the sum without some of its frames."""
    read_frame = frame_reader(movie)
    if total.dtype.kind != "f":
        rest = total.copy()
        for index in frames:
            np.subtract(rest, read_frame(index), out=rest, casting="unsafe")
        return rest
    # A float cannot be taken from a sum again without its rounding; nor can NaN.
    running = RunningSum(total.shape, movie.dtype, len(movie))
    for index in range(len(movie)):
        if index not in frames:
            running.add(read_frame(index))
    rest = running.total()
    return np.where(_usable(rest), rest, 0)
