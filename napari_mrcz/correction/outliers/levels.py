"""How bright each frame is, in each part of the image: what is filled in follows it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_mrcz.correction.outliers.counts import SummedCounts

# Parts along the longer side of the image, of so many pixels at least; and pixels that are looked
# at in a frame.
_PARTS, _LEAST_SIDE, _SAMPLE = 16, 32, 2**17
# Electrons of the whole image's level that a part's own are weighed against: where they are few,
# they say little of it.
_WEIGHT = 50.0
# Levels are kept in parts of an electron, as whole numbers: the same on every machine.
_FINE = 16

Image = npt.NDArray[Any]
Pixels = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class FrameLevels:
    """The mean level of a movie's frames in parts of the image, and that of one frame against it.

    Parameters
    ----------
    shape : tuple of int
        Of a frame (y, x).
    side, step : int
        Pixels along a part, and from row to row that is looked at.
    mean : ndarray of float64, shape (y / side, x / side)
        Electrons of the good pixels looked at in each part, per frame.
    bad : ndarray of intp
        Flat indices of pixels in those rows that are not good ones.
    pedestal, per_electron : float
        Counts of a pixel without electrons, and those that each electron adds.
    """

    shape: tuple[int, int]
    side: int
    step: int
    mean: npt.NDArray[np.float64]
    bad: Pixels
    pedestal: float
    per_electron: float

    @classmethod
    def of(cls, counts: SummedCounts, bad: Pixels) -> Self:
        """Measure the mean of the frames from their sum.

        Parameters
        ----------
        counts : SummedCounts
            The sum.
        bad : ndarray of intp
            Flat indices of all pixels that are not good ones.
        """
        y, x = counts.shape
        side = max(_LEAST_SIDE, -(-max(y, x) // _PARTS))
        step = 1
        while y * x // (2 * step) >= _SAMPLE and 4 * step <= side:
            step *= 2
        rows = bad // x
        bad = bad[rows % step == 0]
        empty = np.zeros((-(-y // side), -(-x // side)))
        made = cls((y, x), side, step, empty, bad, counts.pedestal, counts.per_electron)
        whole = made._electrons(counts.total, counts.n_frames * counts.pedestal)
        return cls(
            (y, x), side, step, whole / _FINE / counts.n_frames, bad, counts.pedestal,
            counts.per_electron,
        )  # fmt: skip

    def relative(self, frame: Image) -> tuple[npt.NDArray[np.float64], int]:
        """Return how bright a frame is, and a number that another frame hardly ever has.

        Returns
        -------
        level : ndarray, shape (y / side, x / side)
            Of each part, 1 where it is the mean of the movie's.
        key : int
            Of 64 bits, the same for the same counts, whatever their type.
        """
        found = self._electrons(frame, self.pedestal)
        key = xxhash.xxh3_64_intdigest(found.astype("<i8").tobytes())
        electrons = np.maximum(found / _FINE, 0)
        everywhere = float(self.mean.sum())
        level = float(electrons.sum()) / everywhere if everywhere > 0 else 1.0
        return (electrons + _WEIGHT * level) / (np.maximum(self.mean, 0) + _WEIGHT), key

    def parts(self, pixels: Pixels) -> Pixels:
        """Return the part of each pixel, both by flat index."""
        row, column = np.divmod(pixels, self.shape[1])
        part: Pixels = row // self.side * self.mean.shape[1] + column // self.side
        return part

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to build it again."""
        gaps = np.diff(self.bad, prepend=0)
        return {
            "side": self.side,
            "step": self.step,
            "mean": self.mean,
            "bad": gaps.astype(np.min_scalar_type(int(gaps.max(initial=0)))),
        }

    @classmethod
    def from_description(
        cls,
        description: Mapping[str, Any],
        shape: tuple[int, int],
        pedestal: float,
        per_electron: float,
    ) -> Self:
        """Build it again.

        Raises
        ------
        ValueError
            If its parts do not fit together.
        """
        side, step = int(description["side"]), int(description["step"])
        mean = np.asarray(description["mean"], np.float64)
        bad = np.cumsum(np.asarray(description["bad"]), dtype=np.intp)
        y, x = shape
        if side < 1 or step < 1 or mean.shape != (-(-y // side), -(-x // side)):
            raise ValueError("its levels and its frames do not fit together")
        if bad.max(initial=0) >= y * x:
            raise ValueError("its levels and its pixels do not fit together")
        return cls(shape, side, step, mean, bad, pedestal, per_electron)

    @cached_property
    def _starts(self) -> tuple[Pixels, Pixels]:
        """Where parts begin, among the rows that are looked at and the columns."""
        rows = np.arange(0, self.shape[0], self.step) // self.side
        return np.flatnonzero(np.diff(rows, prepend=-1)), np.arange(0, self.shape[1], self.side)

    @cached_property
    def _bad_parts(self) -> Pixels:
        return self.parts(self.bad)

    @cached_property
    def _good(self) -> npt.NDArray[np.int64]:
        """Good pixels that are looked at, in each part."""
        ones = np.ones((-(-self.shape[0] // self.step), 1), np.int64)
        rows, columns = self._starts
        height = np.add.reduceat(ones, rows, axis=0)
        width = np.diff(columns, append=self.shape[1])
        number: npt.NDArray[np.int64] = height * width
        number -= np.bincount(self._bad_parts, minlength=number.size).reshape(number.shape)
        return number

    def _electrons(self, image: Image, pedestal: float) -> npt.NDArray[np.int64]:
        """Return the electrons of good pixels in each part, in sixteenths."""
        rows, columns = self._starts
        is_float = image.dtype.kind == "f"
        dtype = np.float64 if is_float else np.int64 if image.dtype.itemsize > 2 else np.int32
        part = image[:: self.step].astype(dtype)
        if is_float:
            part = np.where(np.isfinite(part), part, 0)
        sums = np.add.reduceat(np.add.reduceat(part, columns, axis=1), rows, axis=0)
        values = image.reshape(-1)[self.bad].astype(dtype)
        if is_float:
            values = np.where(np.isfinite(values), values, 0)
        # Weights are floats, exact for sums below 2**53.
        bad = np.bincount(self._bad_parts, values, sums.size)
        electrons = (sums - bad.reshape(sums.shape) - pedestal * self._good) / self.per_electron
        found: npt.NDArray[np.int64] = np.rint(electrons * _FINE).astype(np.int64)
        return found
