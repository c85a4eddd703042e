"""The exponent that flattens a movie best, and the curve of eq. 10 whose minimum it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_mrcz.correction import fit_gamma
from napari_mrcz.correction.gamma import FittedGamma, Roughness
from napari_mrcz.errors import collected_warnings

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.gain.model import GainChoice

LOWEST, HIGHEST = 0.5, 1.5
_POINTS = 41


@dataclass(frozen=True, eq=False)
class GammaFit:
    """How uneven a movie is for some exponents, and the best one.

    Attributes
    ----------
    gammas, unevenness : ndarray of float64, shape (n,)
        Standard deviation of the means of 64 × 64 pixels, over their mean (eq. 10).
    without : float
        The same of raw frames.
    best : FittedGamma or None
        None where the lowest is no minimum, but an end.
    """

    gammas: npt.NDArray[np.float64]
    unevenness: npt.NDArray[np.float64]
    without: float
    best: FittedGamma | None

    @property
    def lowest(self) -> float:
        """How uneven it is at the lowest of the points."""
        return float(self.unevenness.min())

    def text(self) -> tuple[str, str]:
        """Return how good it is, and in which tone: text or warning."""
        fall = f"unevenness {self.lowest:.2%} of the mean, {self.without:.2%} without a reference"
        if self.best is None:
            return (
                f"No γ between {LOWEST} and {HIGHEST} flattens this movie best ({fall}). The "
                "reference may lie the wrong way round (Find orientation), or the movie shows a "
                "specimen."
            ), "warning"
        found = f"γ {self.best:.3f} ± {self.best.error:.2g}: {fall}."
        if self.best.warnings:
            return f"{' '.join(self.best.warnings)} {found}", "warning"
        return found, "text"


def fit(stack: Stack, choice: GainChoice, report: Report) -> GammaFit:
    """Find the exponent that flattens a movie without a specimen.

    Parameters
    ----------
    stack : Stack
        Raw frames, evenly illuminated, at one dose rate.
    choice : GainChoice
        Reference, dark and orientation; its exponent does not matter.
    report : Report
        Where it can be cancelled.
    """
    counts = stack.sum(progress=lambda done, n: report("Summing frame", done, n))
    counts = counts.astype(np.float64)
    normalise = choice.at(1.0).normalization()
    if normalise.oriented_dark is not None:
        counts -= len(stack) * normalise.oriented_dark
    gain = normalise.factor.astype(np.float64)
    gammas = np.linspace(LOWEST, HIGHEST, _POINTS)
    roughness = Roughness(counts, gain)
    unevenness = np.empty(_POINTS)
    for done, gamma in enumerate(gammas):
        report("Trying exponent", done, _POINTS)
        unevenness[done] = roughness(gamma)
    report("Trying exponent", _POINTS, _POINTS)
    best = None
    if 0 < np.argmin(unevenness) < _POINTS - 1:
        with collected_warnings():  # they are kept with the exponent
            best = fit_gamma(counts, gain, bounds=(LOWEST, HIGHEST))
    report("Trying exponent", _POINTS, _POINTS)
    return GammaFit(gammas, unevenness, roughness(0.0), best)
