"""How often each count occurs in a region, before and after, and the curve fitted to it.

After fig. 1 of Hattne et al. (2016), doi:10.1107/S1600576716007196.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_mrcz.correction import ShiftedLognormal
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.microed.model import Fit

# Counts, and numbers of pixels that have them.
Line = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

# What is shown of the counts of a fit, of those that have none, and what the curve is scaled to.
_SHOWN, _SHOWN_UNFITTED, _SCALED = 0.9999, 0.99, 0.95


@dataclass(frozen=True, eq=False)
class Histogram:
    """Of one region of one frame; counts that no pixel has are left out.

    Attributes
    ----------
    frame, region : int
        Which; regions are 1 ... k.
    title : str
        Says so, and how many pixels there are.
    recorded, corrected : tuple of ndarray
        Counts and numbers of pixels.
    fitted : tuple of ndarray or None
        The same as the fit has it; None where there was too little to fit.
    """

    frame: int
    region: int
    title: str
    recorded: Line
    corrected: Line
    fitted: Line | None

    @property
    def reach(self) -> tuple[float, float]:
        """The first and last count that are shown."""
        lines = [self.recorded[0], self.corrected[0]]
        lines += [] if self.fitted is None else [self.fitted[0]]
        return min(float(x.min(initial=0)) for x in lines), max(
            float(x.max(initial=1)) for x in lines
        )

    @property
    def most(self) -> float:
        """The largest number of pixels that share a count."""
        return float(max(self.recorded[1].max(initial=1), self.corrected[1].max(initial=1)))


def read_histogram(fit: Fit, frame: int, region: int, report: Report) -> Histogram:
    """Count the pixels of a region of a frame."""
    report("Reading a frame", 0, None)
    here = fit.model.labels == region
    recorded = fit.stack[frame][here].astype(np.int64) - fit.model.pedestal
    report("Reading a frame", 0, None)
    corrected = fit.corrected[frame][here].astype(np.int64) - fit.model.pedestal
    distribution = fit.model.distribution(frame, region)
    if distribution is None:
        top = int(np.quantile(recorded, _SHOWN_UNFITTED))
        fitted = None
    else:
        top = int(np.ceil(distribution.quantile(_SHOWN)))
        fitted = _expected(distribution, recorded, int(corrected.min()), top)
    zeros = np.count_nonzero(recorded == 0) / recorded.size
    where = f"{fit.name(region)}, frame {frame}" if len(fit.stack) > 1 else fit.name(region)
    title = f"{where}: {recorded.size:,} pixels, {zeros:.1%} recorded as 0"
    return Histogram(
        frame, region, title, _counted(recorded, top), _counted(corrected, top), fitted
    )


def _counted(values: npt.NDArray[Any], top: int) -> Line:
    counts, pixels = np.unique(values[values <= top], return_counts=True)
    return counts.astype(np.float64), pixels.astype(np.float64)


def _expected(
    distribution: ShiftedLognormal, recorded: npt.NDArray[Any], lowest: int, top: int
) -> Line:
    """Give the curve for as many background pixels as there are: without Bragg spots."""
    usual = max(0, int(distribution.quantile(_SCALED)))
    n = np.count_nonzero(recorded <= usual) / float(distribution.cdf(usual + 0.5))
    counts = np.arange(lowest, top + 1, dtype=np.float64)
    pixels = n * np.diff(distribution.cdf(np.append(counts - 0.5, top + 0.5)))
    seen = pixels > 0
    return counts[seen], pixels[seen]
