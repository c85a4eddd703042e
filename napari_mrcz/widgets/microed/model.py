"""What the "MicroED" widget knows, without a window: beam, annuli, fit, histograms, table.

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
from napari_mrcz.errors import MINUS, with_minus

if TYPE_CHECKING:
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

Center = tuple[float, float]
# Counts, and numbers of pixels that have them.
Line = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

# What is shown of the counts of a fit, of those that have none, and what the curve is scaled to;
# fewer pixels than this are not drawn.
_SHOWN, _SHOWN_UNFITTED, _SCALED = 0.9999, 0.99, 0.95
_FEWEST = 0.1
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


def outline(
    stack: Stack, frame: int, choice: Choice, report: Report
) -> tuple[Center, npt.NDArray[np.float64]]:
    """Return the beam, as one frame has it if it is not known, and where annuli begin about it."""
    report("Looking for the beam", 0, None)
    center = choice.center
    if center is None:
        pattern = stack[frame].astype(np.float64) - pedestal_of(stack.metadata)
        center = find_center(pattern, choice.mask)
    labels = annuli(stack.shape[1:], center, choice.n_annuli, choice.mask)
    report("Looking for the beam", 0, None)
    k = int(labels.max(initial=0))
    zeros = np.empty((0, k), np.int64)
    of_no_frames = TruncationModel(labels, np.empty((0, k, 3)), zeros, 0, 0, center)
    return center, of_no_frames.radii[:-1]


def find_beam(stack: Stack, mask: npt.NDArray[np.bool_] | None, report: Report) -> Center:
    """Find the beam in the sum of all frames, which can be cancelled between them."""
    total = stack.sum(axis=0, progress=lambda done, n: report("Summing frame", done, n))
    return find_center(total - len(stack) * pedestal_of(stack.metadata), mask)


@dataclass(frozen=True, eq=False)
class Fit:
    """A sweep, what was fitted to it, and the sweep with its zeros redrawn."""

    stack: Stack  # as it was recorded
    choice: Choice  # what was fitted alike, with the centre that was found
    model: TruncationModel  # its regions are numbered 1 ... k
    names: npt.NDArray[np.int64]  # the label of each region; of annuli its number
    pixels: npt.NDArray[np.int64]  # how many each has
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
    report("Fitting frame", 0, len(stack))
    model = TruncationModel.fit(
        stack,
        choice.center,
        choice.n_annuli,
        choice.mask,
        regions=choice.regions,
        force=choice.force,
        progress=lambda done, total: report("Fitting frame", done, total),
    )
    if not model.n_regions:
        raise ValueError("No pixel is valid: the beam stop covers all, or there are no regions.")
    names = np.arange(1, model.n_regions + 1)
    if choice.regions is not None:
        names = np.unique(choice.regions[model.labels > 0]).astype(np.int64)
    pixels = np.bincount(model.labels.reshape(-1), minlength=model.n_regions + 1)[1:]
    corrected = stack.apply(model)
    darkest = int(np.quantile(corrected[frame], _DARKEST))
    return Fit(stack, choice, model, names, pixels, corrected, darkest)


# Histograms, after fig. 1 of Hattne et al. (2016), doi:10.1107/S1600576716007196 ----------------


@dataclass(frozen=True, eq=False)
class Histogram:
    """Of one region of one frame; counts that no pixel has are left out."""

    frame: int
    region: int  # 1 ... k
    title: str  # says so, and how many pixels there are
    recorded: Line
    corrected: Line
    fitted: Line  # empty where there was too little to fit


def read_histogram(fit: Fit, frame: int, region: int, report: Report) -> Histogram:
    """Count the pixels of a region of a frame."""
    report("Reading a frame", 0, None)
    here = fit.model.labels == region
    recorded = fit.stack[frame][here].astype(np.int64) - fit.model.pedestal
    report("Reading a frame", 0, None)
    corrected = fit.corrected[frame][here].astype(np.int64) - fit.model.pedestal
    distribution = fit.model.distribution(frame, region)
    if distribution is None:
        top, fitted = int(np.quantile(recorded, _SHOWN_UNFITTED)), (np.empty(0), np.empty(0))
    else:
        top = int(np.ceil(distribution.quantile(_SHOWN)))
        # For as many background pixels as there are: without Bragg spots.
        usual = max(0, int(distribution.quantile(_SCALED)))
        n = np.count_nonzero(recorded <= usual) / float(distribution.cdf(usual + 0.5))
        counts = np.arange(corrected.min(), top + 1, dtype=np.float64)
        pixels = n * np.diff(distribution.cdf(np.append(counts - 0.5, top + 0.5)))
        fitted = counts[pixels > _FEWEST], pixels[pixels > _FEWEST]
    zeros = np.count_nonzero(recorded == 0) / recorded.size
    where = f"{fit.name(region)}, frame {frame}" if len(fit.stack) > 1 else fit.name(region)
    title = f"{where}: {recorded.size:,} pixels, {zeros:.1%} recorded as 0"
    return Histogram(
        frame, region, title, _counted(recorded, top), _counted(corrected, top), fitted
    )


def _counted(values: npt.NDArray[Any], top: int) -> Line:
    counts, pixels = np.unique(values[values <= top], return_counts=True)
    return counts.astype(np.float64), pixels.astype(np.float64)


# In words ----------------------------------------------------------------------------------------

COLUMNS = (
    ("#", "Number of the annulus, from the beam on; or label"),
    ("r (pix)", "Outer radius of the annulus, in pixels"),
    ("zeros", "Part of the pixels that was recorded as 0"),
    ("μ", "Mean of log(counts − shift) of the fitted distribution (eq. 1)"),
    ("σ", "Standard deviation of log(counts − shift) (eq. 1)"),
    ("shift", "Least value of the fitted distribution, in counts"),
)


def rows(fit: Fit, frame: int) -> list[tuple[str, ...]]:
    """Return the table of a frame as texts, one row a region; empty where there is no number."""
    model, texts = fit.model, []
    for region, (mu, sigma, shift) in enumerate(model.parameters[frame]):
        fitted = (f"{mu:.3f}", f"{sigma:.3f}", f"{shift:.1f}")
        if np.isnan(mu):
            fitted = ("", "", "")
        zeros = f"{model.zeros[frame, region] / fit.pixels[region]:.1%}"
        radius = f"{model.radii[region]:.0f}" if fit.has_annuli else ""
        texts.append((str(fit.names[region]), radius, zeros, *map(with_minus, fitted)))
    return texts


def summary(fit: Fit) -> str:
    """Return what the fit changes, and which offset it needs."""
    model = fit.model
    share = int(model.zeros.sum()) / fit.stack.size
    depth, offset = model.pedestal - model.smallest, model.pedestal + model.offset
    said = f"{share:.1%} of the pixels had no counts"
    if depth:
        said += (
            f". They reach down to {MINUS}{depth} now: formats without negative numbers need the "
            f"offset {offset} (ADCOFFSET)."
        )
    else:
        said += "; none of them becomes negative."
    return said + f" All pixels keep the pedestal of {model.pedestal}." * bool(model.pedestal)
