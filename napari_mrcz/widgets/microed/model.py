"""What the "MicroED" widget knows, without a window: beam, annuli, fit, and histograms.

All that reads frames or fits is a function of its own, called in a thread with a `Report`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction import TruncationModel
from napari_mrcz.correction.conversions import pedestal_of
from napari_mrcz.correction.regions import annuli, find_center
from napari_mrcz.errors import MINUS

if TYPE_CHECKING:
    from napari_mrcz.correction import ShiftedLognormal
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

Center = tuple[float, float]
# Counts, and numbers of pixels that have them.
Line = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

# What is shown of the counts of a fit, of those that have none, and what the curve is scaled to.
_SHOWN, _SHOWN_UNFITTED, _SCALED = 0.9999, 0.99, 0.95


SUMMING = "Summing frame"
FITTING = "Fitting frame"
# The viewer shows what lies between its contrast limits: all but so many of the corrected pixels.
_DARKEST = 0.01


@dataclass(frozen=True, eq=False)
class Choice:
    """What is to be fitted alike; see `TruncationModel.fit`."""

    center: Center | None = None  # of the beam, (y, x) in pixels; None while it is not known
    n_annuli: int = 10  # of equal numbers of pixels
    mask: npt.NDArray[np.bool_] | None = None  # True where pixels are not valid, (y, x)
    regions: npt.NDArray[Any] | None = None  # labels in the place of annuli, (y, x)
    force: bool = False  # correct what seem to be counted electrons, too

    def is_as(self, other: Choice) -> bool:
        """Return whether a fit with the other one gives the same."""
        labels: Any = ((self.mask, other.mask), (self.regions, other.regions))
        if not all(np.array_equal(one, its) for one, its in labels):  # None equals None alone
            return False
        rings = (self.center, self.n_annuli) == (other.center, other.n_annuli)
        return rings or self.regions is not None


@dataclass(frozen=True, eq=False)
class Outline:
    """What is drawn over the pattern before it is fitted."""

    center: Center
    radii: npt.NDArray[np.float64]  # where one annulus ends and the next begins, in pixels


def outline(stack: Stack, frame: int, choice: Choice, report: Report) -> Outline:
    """Lay annuli about the beam; where that is not known, as one frame has it."""
    report("Looking for the beam", 0, None)
    center = choice.center
    if center is None:
        pattern = stack[frame].astype(np.float64) - pedestal_of(stack.metadata)
        center = find_center(pattern, choice.mask)
    rows, columns = stack.shape[1:]
    labels = annuli((rows, columns), center, choice.n_annuli, choice.mask)
    report("Looking for the beam", 0, None)
    y, x = np.arange(rows)[:, np.newaxis] - center[0], np.arange(columns) - center[1]
    radii = np.zeros(int(labels.max(initial=0)) + 1)
    np.maximum.at(radii, labels, np.hypot(y, x))
    return Outline(center, radii[1:-1])


def find_beam(stack: Stack, mask: npt.NDArray[np.bool_] | None, report: Report) -> Center:
    """Find the beam in the sum of all frames, which can be cancelled between them."""
    total = stack.sum(axis=0, progress=lambda done, n: report(SUMMING, done, n))
    return find_center(total - len(stack) * pedestal_of(stack.metadata), mask)


@dataclass(frozen=True, eq=False)
class Fit:
    """A sweep, what was fitted to it, and the sweep with its zeros redrawn."""

    stack: Stack  # as it was recorded
    choice: Choice  # what was fitted alike, with the centre that was found
    model: TruncationModel  # its regions are numbered 1 ... k
    names: npt.NDArray[np.int64]  # the label of each region; of annuli its number
    pixels: npt.NDArray[np.int64]  # how many each has
    radii: npt.NDArray[np.float64]  # where each annulus ends, in pixels; NaN of other regions
    corrected: Stack  # lazy
    darkest: int  # value below which next to no pixels are, in the frame that was looked at

    @property
    def has_annuli(self) -> bool:
        """Whether the regions are annuli."""
        return self.choice.regions is None

    def name(self, region: int) -> str:
        """Return which region it is."""
        return f"{'Annulus' if self.has_annuli else 'Label'} {self.names[region - 1]}"


def fit_truncation(stack: Stack, choice: Choice, frame: int, report: Report) -> Fit:
    """Fit every frame, which can be cancelled between them, and prepare the one looked at.

    Raise `ValueError` if these are no counts that were cut off, or no pixels are valid.
    """
    if choice.center is None and choice.regions is None:
        choice = replace(choice, center=find_beam(stack, choice.mask, report))
    report(FITTING, 0, len(stack))
    model = TruncationModel.fit(
        stack,
        choice.center,
        choice.n_annuli,
        choice.mask,
        regions=choice.regions,
        force=choice.force,
        progress=lambda done, total: report(FITTING, done, total),
    )
    if not model.n_regions:
        raise ValueError("No pixel is valid: the beam stop covers all, or there are no regions.")
    if choice.regions is None:
        names, radii = np.arange(1, model.n_regions + 1), model.radii
    else:
        names = np.unique(choice.regions[model.labels > 0]).astype(np.int64)
        radii = np.full(len(names), np.nan)
    pixels = np.bincount(model.labels.reshape(-1), minlength=model.n_regions + 1)[1:]
    corrected = stack.apply(model)
    looked_at = corrected[frame]
    darkest = int(np.quantile(looked_at, _DARKEST))
    return Fit(stack, choice, model, names, pixels, radii, corrected, darkest)


# Histograms, after fig. 1 of Hattne et al. (2016), doi:10.1107/S1600576716007196 ----------------


@dataclass(frozen=True, eq=False)
class Histogram:
    """Of one region of one frame; counts that no pixel has are left out."""

    frame: int
    region: int  # 1 ... k
    title: str  # says so, and how many pixels there are
    recorded: Line
    corrected: Line
    fitted: Line | None  # None where there was too little to fit

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
    """Return the curve for as many background pixels as there are: without Bragg spots."""
    usual = max(0, int(distribution.quantile(_SCALED)))
    n = np.count_nonzero(recorded <= usual) / float(distribution.cdf(usual + 0.5))
    counts = np.arange(lowest, top + 1, dtype=np.float64)
    pixels = n * np.diff(distribution.cdf(np.append(counts - 0.5, top + 0.5)))
    seen = pixels > 0
    return counts[seen], pixels[seen]


def summary(fit: Fit) -> str:
    """Return what the fit changes, which offset it needs, and what it left as it was."""
    model = fit.model
    share = int(model.zeros.sum()) / fit.stack.size
    depth, offset = model.pedestal - model.smallest, model.pedestal + model.offset
    if not depth:
        said = [f"{share:.1%} of the pixels had no counts; none of them becomes negative."]
    else:
        said = [
            f"{share:.1%} of the pixels had no counts. They reach down to {MINUS}{depth} "
            f"now: formats without negative numbers need the offset {offset} (ADCOFFSET)."
        ]
    if model.pedestal:
        said.append(f"All pixels keep the pedestal of {model.pedestal}.")
    if model.n_unfitted:
        regions = "region has" if model.n_unfitted == 1 else "regions have"
        said.append(
            f"{model.n_unfitted} {regions} too few counts to fit, in all frames together, and "
            "keep their zeros."
        )
    return " ".join(said)
