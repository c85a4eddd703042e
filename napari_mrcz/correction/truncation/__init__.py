"""Counts that a camera cut off at zero: their distribution, and values drawn from it."""

from napari_mrcz.correction.conversions import Pedestal, pedestal_names, pedestal_of
from napari_mrcz.correction.truncation.model import TruncationModel
from napari_mrcz.correction.truncation.regions import ShiftedLognormal, annuli, find_center

__all__ = [
    "Pedestal",
    "ShiftedLognormal",
    "TruncationModel",
    "annuli",
    "find_center",
    "pedestal_names",
    "pedestal_of",
]
