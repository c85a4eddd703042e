"""Outlier pixels: `OutlierFilter` finds and replaces them; the rest says how, and for a plot."""

from napari_mrcz.correction.outliers.filter import OutlierFilter
from napari_mrcz.correction.outliers.fit import DistributionFit
from napari_mrcz.correction.outliers.pixels import OutlierOptions
from napari_mrcz.correction.outliers.thresholds import TailFit, Thresholds

__all__ = ["DistributionFit", "OutlierFilter", "OutlierOptions", "TailFit", "Thresholds"]
