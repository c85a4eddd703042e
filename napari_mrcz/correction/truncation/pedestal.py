"""`Pedestal`: a constant added to every pixel, for formats without negative numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import described, register

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Pedestal"]


@register
@dataclass(frozen=True)
class Pedestal:
    """Adds an offset to counts, in an unsigned type; MOSFLM calls it ADCOFFSET.

    Attributes
    ----------
    offset : int
        In counts.
    dtype : str
        What comes out. Counts beyond its range, which are saturated, become its largest value.
    """

    offset: int
    dtype: str = "uint16"

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Give the frame (y, x) with the offset.

        Raises
        ------
        ValueError
            If a value stays negative.
        """
        raised = frame.astype(np.int64) + self.offset
        if raised.min(initial=0) < 0:
            raise ValueError(
                f"frame {index} has counts of {int(frame.min())}, and the offset is {self.offset}"
            )
        dtype = self.output_dtype(frame.dtype)
        return np.minimum(raised, np.iinfo(dtype).max).astype(dtype)

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Give the type of the frames that come out."""
        return np.dtype(self.dtype)

    def describe(self) -> dict[str, Any]:
        """Say how much it adds."""
        return described(self, offset=self.offset, dtype=self.dtype)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""
        return cls(description["offset"], description["dtype"])
