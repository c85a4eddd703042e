"""Constants added to every pixel, for formats without negative numbers, and what files call them.

ADSC's detectors and DIALS (dxtbx) have IMAGE_PEDESTAL, Rigaku's DARK_PEDESTAL, simulations
(nanoBragg, dxtbx's FormatSMVJHSim) ADC_OFFSET, MOSFLM and the converters of MicroED ADCOFFSET,
Leginon LEGINON_OFFSET.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import Correction, register

_NAMES = re.compile(r"(\w+_)?PEDESTAL|(ADC|IMAGE|LEGINON)_?OFFSET", re.IGNORECASE)


@register
@dataclass(frozen=True)
class Pedestal(Correction):
    """Adds an offset to counts, in an unsigned type; MOSFLM calls it ADCOFFSET.

    Attributes
    ----------
    offset : int
        In counts.
    dtype : str
        What comes out. Counts beyond its range, which are saturated, become its largest value.
    """

    title = "Offset added"

    offset: int
    dtype: str = "uint16"

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return the frame (y, x) with the offset.

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
        """Return the type of the frames that come out."""
        return np.dtype(self.dtype)

    @classmethod
    def said(cls, step: Mapping[str, Any]) -> str:
        """Return how much was added."""
        return f"{step['offset']} more in every pixel"


def pedestal_names(header: Mapping[str, Any]) -> list[str]:
    """Return the names under which a header states a pedestal."""
    return [name for name in header if _NAMES.fullmatch(str(name))]


def pedestal_of(metadata: Mapping[str, Any]) -> int:
    """Return the pedestal that metadata state, themselves or in an SMV header; 0 for none.

    Raises
    ------
    ValueError
        If several are stated, or one that is not a whole number of 0 or more.
    """
    smv = metadata.get("smv")
    headers = [metadata, smv] if isinstance(smv, Mapping) else [metadata]
    stated = {
        f"{name} {value}": value
        for header in headers
        for name in pedestal_names(header)
        for value in (header[name] if isinstance(header[name], list) else [header[name]])
    }
    found = set()
    for text, value in stated.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not (number >= 0 and number.is_integer()):
            raise ValueError(f"the header states {text}, which is not a pedestal")
        found.add(int(number))
    if len(found) > 1:
        several = ", ".join(stated)
        raise ValueError(f"the headers state several pedestals: {several}; name the right one")
    return found.pop() if found else 0
