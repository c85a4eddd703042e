"""What the "MicroED" widget knows, without a window: beam, annuli, fit, and histograms.

All that reads frames or fits is a function of its own, called in a thread with a `Report`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction import TruncationModel
from napari_mrcz.correction.truncation import annuli, find_center, pedestal_of

if TYPE_CHECKING:
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

Center = tuple[float, float]

SUMMING = "Summing frame"
FITTING = "Fitting frame"
# The viewer shows what lies between its contrast limits: all but so many of the corrected pixels.
_DARKEST = 0.01


@dataclass(frozen=True, eq=False)
class Choice:
    """What is to be fitted alike; see `TruncationModel.fit`.

    Attributes
    ----------
    center : tuple of float or None
        Of the beam, (y, x) in pixels; None while it is not known.
    n_annuli : int
        Annuli of equal numbers of pixels.
    mask : ndarray of bool, shape (y, x), or None
        True where pixels are not valid.
    regions : ndarray of int, shape (y, x), or None
        Labels in the place of annuli.
    force : bool
        Correct what seem to be counted electrons, too.
    """

    center: Center | None = None
    n_annuli: int = 10
    mask: npt.NDArray[np.bool_] | None = None
    regions: npt.NDArray[Any] | None = None
    force: bool = False

    def is_as(self, other: Choice) -> bool:
        """Tell whether a fit with the other one gives the same."""
        if not (_same(self.mask, other.mask) and _same(self.regions, other.regions)):
            return False
        rings = (self.center, self.n_annuli) == (other.center, other.n_annuli)
        return rings or self.regions is not None


@dataclass(frozen=True, eq=False)
class Outline:
    """What is drawn over the pattern before it is fitted.

    Attributes
    ----------
    center : tuple of float
        Of the beam, (y, x) in pixels.
    radii : ndarray, shape (k - 1,)
        Where one annulus ends and the next begins, in pixels.
    """

    center: Center
    radii: npt.NDArray[np.float64]


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
    """A sweep, what was fitted to it, and the sweep with its zeros redrawn.

    Attributes
    ----------
    stack : Stack
        As it was recorded.
    choice : Choice
        What was fitted alike, with the centre that was found.
    model : TruncationModel
        Its regions are numbered 1 ... k.
    names : ndarray of int, shape (k,)
        The label of each region; of annuli its number.
    corrected : Stack
        Lazy.
    darkest : int
        Value in the frame that was looked at below which next to no pixels are.
    """

    stack: Stack
    choice: Choice
    model: TruncationModel
    names: npt.NDArray[np.int64]
    corrected: Stack
    darkest: int

    @property
    def has_annuli(self) -> bool:
        """Whether the regions are annuli."""
        return self.choice.regions is None

    def name(self, region: int) -> str:
        """Say which region it is."""
        return f"{'Annulus' if self.has_annuli else 'Label'} {self.names[region - 1]}"


def fit_truncation(stack: Stack, choice: Choice, frame: int, report: Report) -> Fit:
    """Fit every frame, which can be cancelled between them, and prepare the one looked at.

    Raises
    ------
    ValueError
        If these are no counts that were cut off, or no pixels are valid.
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
    names = np.arange(1, model.n_regions + 1)
    if choice.regions is not None:
        names = np.unique(choice.regions[model.labels > 0]).astype(np.int64)
    corrected = stack.apply(model)
    looked_at = corrected[frame]
    darkest = int(np.quantile(looked_at, _DARKEST))
    return Fit(stack, choice, model, names, corrected, darkest)


def _same(one: npt.NDArray[Any] | None, other: npt.NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
