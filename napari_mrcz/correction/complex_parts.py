"""Amplitude and phase of complex frames, such as stored Fourier transforms and exit waves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import described, register

if TYPE_CHECKING:
    from collections.abc import Mapping


class _ComplexPart:
    """What both have in common: no parameters, real pixels of the precision of the complex ones."""

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Give float32 for complex64, float64 for complex128."""
        return np.zeros((), dtype).real.dtype

    def describe(self) -> dict[str, Any]:
        """Say what it does."""
        return described(self)  # type: ignore[arg-type]

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""
        return cls()


@register
@dataclass(frozen=True)
class Amplitude(_ComplexPart):
    """The modulus of each pixel."""

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Give the amplitude of a complex frame, shape (y, x)."""
        return np.asarray(np.abs(frame))


@register
@dataclass(frozen=True)
class Phase(_ComplexPart):
    """The argument of each pixel, in radians from -π to π."""

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Give the phase of a complex frame, shape (y, x)."""
        return np.asarray(np.angle(frame))
