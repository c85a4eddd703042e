"""Outlier pixels: `OutlierFilter` finds and replaces them; the rest says how, and for a plot."""

from napari_mrcz.correction.outliers.filter import OutlierFilter
from napari_mrcz.correction.outliers.thresholds import (
    DistributionFit,
    OutlierOptions,
    TailFit,
    Thresholds,
)

__all__ = ["DistributionFit", "OutlierFilter", "OutlierOptions", "TailFit", "Thresholds"]
