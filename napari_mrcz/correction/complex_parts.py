"""Amplitude and phase of complex frames, such as stored Fourier transforms and exit waves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import Correction, register


class _ComplexPart(Correction):
    """What both have in common: no options, real pixels of the precision of the complex ones."""

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return float32 for complex64, float64 for complex128."""
        return np.zeros((), dtype).real.dtype


@register
@dataclass(frozen=True)
class Amplitude(_ComplexPart):
    """The modulus of each pixel."""

    title = "Amplitude of complex pixels"

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return the amplitude of a complex frame, shape (y, x)."""
        return np.asarray(np.abs(frame))


@register
@dataclass(frozen=True)
class Phase(_ComplexPart):
    """The argument of each pixel, in radians from -π to π."""

    title = "Phase of complex pixels"

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return the phase of a complex frame, shape (y, x)."""
        return np.asarray(np.angle(frame))
