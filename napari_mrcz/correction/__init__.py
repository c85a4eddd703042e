"""Corrections: array mathematics on frames and movies, of numpy and scipy alone.

A movie is anything of shape (n, y, x) that gives its frames when iterated. A correction is a small
frozen object: call it with a frame (y, x) and its index, ask it to `describe` itself.
"""

from napari_mrcz.allowance import check_room_to_import

check_room_to_import("scipy", 2 * 10**8)  # before any of these does

from napari_mrcz.correction.complex_parts import Amplitude, Phase
from napari_mrcz.correction.counting import ElectronCounting, count_electrons
from napari_mrcz.correction.decimation import Decimation, DecimationError, decimate, restore
from napari_mrcz.correction.gain import GainNormalization, estimate_gain
from napari_mrcz.correction.gamma import PREPRINT_GAMMA, GammaCurve, fit_gamma
from napari_mrcz.correction.history import fingerprint, rebuild, register, replay
from napari_mrcz.correction.koma import KomaNormalization
from napari_mrcz.correction.noise import correlated_noise
from napari_mrcz.correction.orientation import (
    ORIENTATIONS,
    Candidate,
    OrientationSearch,
    find_orientation,
    orient,
)
from napari_mrcz.correction.outliers import (
    DistributionFit,
    OutlierFilter,
    TailFit,
    Thresholds,
)
from napari_mrcz.correction.truncation import Pedestal, ShiftedLognormal, TruncationModel

__all__ = [
    "ORIENTATIONS",
    "PREPRINT_GAMMA",
    "Amplitude",
    "Candidate",
    "Decimation",
    "DecimationError",
    "DistributionFit",
    "ElectronCounting",
    "GainNormalization",
    "GammaCurve",
    "KomaNormalization",
    "OrientationSearch",
    "OutlierFilter",
    "Pedestal",
    "Phase",
    "ShiftedLognormal",
    "TailFit",
    "Thresholds",
    "TruncationModel",
    "correlated_noise",
    "count_electrons",
    "decimate",
    "estimate_gain",
    "find_orientation",
    "fingerprint",
    "fit_gamma",
    "orient",
    "rebuild",
    "register",
    "replay",
    "restore",
]
