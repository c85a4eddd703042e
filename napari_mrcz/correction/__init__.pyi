from .conversions import Amplitude, Decimation, DecimationError, Pedestal, Phase, decimate, restore
from .counting import CountingOptions, ElectronCounting, count_electrons
from .drift import Drift, estimate_drift
from .gain import GainNormalization, estimate_gain
from .gamma import PREPRINT_GAMMA, GammaCurve, fit_gamma
from .history import fingerprint, rebuild, register, replay
from .koma import KomaNormalization
from .noise import PowerSpectrum, correlated_noise, power_spectrum
from .orientation import ORIENTATIONS, Candidate, OrientationSearch, find_orientation, orient
from .outliers import OutlierFilter
from .outliers.thresholds import DistributionFit, TailFit, Thresholds
from .regions import ShiftedLognormal
from .truncation import TruncationModel, TruncationOptions

lender: str

__all__ = [
    "ORIENTATIONS",
    "PREPRINT_GAMMA",
    "Amplitude",
    "Candidate",
    "CountingOptions",
    "Decimation",
    "DecimationError",
    "DistributionFit",
    "Drift",
    "ElectronCounting",
    "GainNormalization",
    "GammaCurve",
    "KomaNormalization",
    "OrientationSearch",
    "OutlierFilter",
    "Pedestal",
    "Phase",
    "PowerSpectrum",
    "ShiftedLognormal",
    "TailFit",
    "Thresholds",
    "TruncationModel",
    "TruncationOptions",
    "correlated_noise",
    "count_electrons",
    "decimate",
    "estimate_drift",
    "estimate_gain",
    "find_orientation",
    "fingerprint",
    "fit_gamma",
    "orient",
    "power_spectrum",
    "rebuild",
    "register",
    "replay",
    "restore",
]
