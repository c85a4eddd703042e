"""What a fit knows of every pixel, and what thresholds make of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.options import Option, Options
from napari_mrcz.correction.outliers.fill import FILLS, Replacement, expected_counts, in_parts
from napari_mrcz.correction.outliers.levels import FrameLevels
from napari_mrcz.correction.outliers.thresholds import weight

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts
    from napari_mrcz.correction.outliers.fit import DistributionFit
    from napari_mrcz.correction.outliers.scale import PixelScale
    from napari_mrcz.correction.outliers.thresholds import Thresholds

MODELS = {"poisson": "Poisson, local background", "normal": "Gaussian, global (preprint)"}


@dataclass(frozen=True)
class OutlierOptions(Options):
    """How outliers are found and replaced; see `OutlierFilter.fit`."""

    model: Annotated[str, Option("Model", "Distribution of good pixels", choices=MODELS)] = (
        "poisson"
    )
    order: Annotated[
        float,
        Option(
            "Steepness k",
            "Steepness of the weights at the thresholds",
            above=0,
            most=1000,
            step=0.5,
        ),
    ] = 6.0
    relaxation: Annotated[
        float,
        Option(
            "Threshold factor ρ",
            "Factor on the thresholds at which a pixel keeps half of its own value",
            above=0,
            most=1000,
            step=0.05,
        ),
    ] = 0.95
    limit: Annotated[
        float,
        Option(
            "Tail-fit start",
            "Residual from which a tail is fitted",
            unit="standard deviations",
            above=0,
            most=1000,
            step=0.1,
            only_with=("model", "normal"),
        ),
    ] = 0.5
    fill: Annotated[str, Option("Fill", "Values that replace outliers", choices=FILLS)] = "sample"
    tolerance: Annotated[
        float,
        Option(
            "Tolerance",
            "Distance from 1 at which a weight counts as 1",
            least=0,
            most=0.999,
            step=0.001,
        ),
    ] = 1e-3
    seed: Annotated[int, Option("Seed", "Seed of the random counts", least=0, most=2**63 - 1)] = 0
    counts_per_electron: Annotated[
        float | None,
        Option(
            "Counts per electron",
            "Counts that one electron adds",
            above=0,
            unset="measured",
            flag="--counts-per-electron",
        ),
    ] = None
    pedestal: Annotated[
        float | None,
        Option(
            "Pedestal",
            "Counts of a pixel without electrons in one frame",
            step=0.1,
            unset="measured",
            flag="--pedestal",
        ),
    ] = None


@dataclass(frozen=True)
class OutlierStep(OutlierOptions):
    """Hot and dark pixels are replaced."""

    defects: Annotated[
        str,
        Option(
            "Defects",
            "Pixels known to be defective: list of SerialEM, RELION or MotionCor, or a map",
            unset="none",
            is_file=True,
            flag="--defects",
        ),
    ] = ""
    dark_threshold: Annotated[
        float,
        Option(
            "Dark threshold",
            "Threshold of dark pixels",
            unit="standard deviations",
            most=0,
            unset="that of each fit",
        ),
    ] = 0.0
    hot_threshold: Annotated[
        float,
        Option(
            "Hot threshold",
            "Threshold of hot pixels",
            unit="standard deviations",
            least=0,
            unset="that of each fit",
        ),
    ] = 0.0

    def sentences(self) -> list[str]:
        """Return what is done with these options, for a person."""
        drawn = "drawn from the expected counts" if self.fill == "sample" else "the expectation"
        known = f", and the defects of {self.defects}" if self.defects else ""
        said = [
            f"Hot and dark pixels, by the {self.model} model{known}, are replaced by values {drawn}"
            f" of their neighbours (steepness {self.order:g}, relaxation {self.relaxation:g})."
        ]
        given = {"dark": self.dark_threshold, "hot": self.hot_threshold}
        if sides := [f"{side} at {sigma:g} σ" for side, sigma in given.items() if sigma]:
            said.append(f"Thresholds are not those of each fit: {', '.join(sides)}.")
        if self.counts_per_electron is not None:
            said.append(f"One electron adds {self.counts_per_electron:g} counts.")
        if self.pedestal is not None:
            said.append(f"Pixels without electrons have {self.pedestal:g} counts in each frame.")
        return said


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
