"""Many stacks at once: their sums, KOMA, and how the camera ages."""

from napari_mrcz.session.ageing import (
    OutlierCensus,
    correlation_with,
    count_outliers,
    cumulative_dose,
    noise_within,
)
from napari_mrcz.session.koma import Koma
from napari_mrcz.session.session import Session
from napari_mrcz.session.summaries import sums_folder

__all__ = [
    "Koma",
    "OutlierCensus",
    "Session",
    "correlation_with",
    "count_outliers",
    "cumulative_dose",
    "noise_within",
    "sums_folder",
]
