"""What a fit knows of every pixel, and what thresholds make of that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.outliers.fill import FILLS, Replacement, expected_counts, in_parts
from napari_mrcz.correction.outliers.levels import FrameLevels
from napari_mrcz.correction.outliers.thresholds import weight

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts
    from napari_mrcz.correction.outliers.fit import DistributionFit
    from napari_mrcz.correction.outliers.scale import PixelScale
    from napari_mrcz.correction.outliers.thresholds import Thresholds

MODELS = ("poisson", "normal")


@dataclass(frozen=True)
class OutlierOptions:
    """How outliers are told and replaced; see `OutlierFilter.fit`."""

    model: str = "poisson"
    order: float = 6.0
    relaxation: float = 0.95
    limit: float = 0.5
    fill: str = "sample"
    tolerance: float = 1e-3
    seed: int = 0
    counts_per_electron: float | None = None
    pedestal: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.model not in MODELS:
            raise ValueError(f"model is one of {', '.join(MODELS)}, not {self.model!r}")
        if self.fill not in FILLS:
            raise ValueError(f"fill is one of {', '.join(FILLS)}, not {self.fill!r}")
        if not (self.order > 0 and self.relaxation > 0 and self.limit > 0):
            raise ValueError("order, relaxation and limit are positive")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance lies within 0 and 1, not {self.tolerance}")
        if self.seed < 0:
            raise ValueError(f"a seed is not negative, as {self.seed} is")
        if self.counts_per_electron is not None and not 0 < self.counts_per_electron < math.inf:
            raise ValueError(f"counts per electron are positive, not {self.counts_per_electron}")
        if self.pedestal is not None and not math.isfinite(self.pedestal):
            raise ValueError(f"a pedestal is a number of counts, not {self.pedestal}")


@dataclass(frozen=True, eq=False)
class FittedPixels:
    """Every pixel's distance from the fitted distribution.

    Parameters
    ----------
    counts : SummedCounts
        The movie's sum.
    scale : PixelScale
        The pixels' codes.
    sigma : ndarray, shape (k,)
        What each code stands for in standard deviations, ascending.
    below : ndarray of int64, shape (k + 1,)
        How many pixels have a lower code.
    """

    counts: SummedCounts
    scale: PixelScale
    sigma: npt.NDArray[np.float64]
    below: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts: SummedCounts, scale: PixelScale, fit: DistributionFit) -> FittedPixels:
        """Put the codes of a scale into standard deviations."""
        sigma = (scale.places - fit.center) / fit.width
        return cls(counts, scale, sigma, np.concatenate([[0], np.cumsum(scale.n_pixels)]))

    def numbers(self, thresholds: Thresholds) -> tuple[int, int]:
        """Give how many pixels are dark and how many hot, without looking at any."""
        first, last = self._bounds(thresholds)
        return int(self.below[first]), int(self.below[-1] - self.below[last])

    def mask(self, thresholds: Thresholds) -> npt.NDArray[np.int8]:
        """Mark outliers, (y, x): 1 hot, -1 dark, 2 defect, 0 good."""
        marked = self.scale.sides(*self._bounds(thresholds))
        marked.reshape(-1)[self.counts.defects] = 2
        return marked

    def replacement(self, thresholds: Thresholds, options: OutlierOptions) -> Replacement:
        """Say which pixels are to be replaced, and by what."""
        kept = weight(self.sigma, thresholds, options.order, options.relaxation)
        unchanged = np.flatnonzero(kept >= 1 - options.tolerance)
        first, last = (unchanged[0], unchanged[-1] + 1) if unchanged.size else (0, 0)
        pixels = self.scale.outside(int(first), int(last))
        if self.counts.defects.size:
            # A bad border has so many pixels that sorting them would take seconds.
            changed = np.zeros(self.counts.total.size, np.bool_)
            changed[pixels] = changed[self.counts.defects] = True
            pixels = np.flatnonzero(changed)
        marks = self.mask(thresholds).reshape(-1)
        weights = in_parts(kept)[self.scale.codes.reshape(-1)[pixels]]
        weights[marks[pixels] == 2] = 0
        return Replacement(
            shape=self.counts.shape,
            pixels=pixels,
            kinds=marks[pixels],
            weights=weights,
            expected=expected_counts(self.counts, pixels, marks),
            per_electron=self.counts.per_electron,
            fill=options.fill,
            seed=options.seed,
            levels=FrameLevels.of(self.counts, pixels[marks[pixels] != 0]),
            pedestal=self.counts.pedestal,
        )

    def _bounds(self, thresholds: Thresholds) -> tuple[int, int]:
        """Give the codes between which no outlier lies: dark < first, last <= hot."""
        first = np.searchsorted(self.sigma, thresholds.dark, "left")
        last = np.searchsorted(self.sigma, thresholds.hot, "right")
        return int(first), int(last)
