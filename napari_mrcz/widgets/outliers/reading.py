"""What is read from a fitted movie on demand: correlated noise, and one pixel through the frames.

Both are called in a thread, with a `Report` that may cancel them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.correction import correlated_noise
from napari_mrcz.widgets.outliers.words import kind_text, signed, small

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.outliers.model import Fit

# Frames that correlated noise is measured in, spread over the movie: enough to tell what is left.
_NOISE_FRAMES = 10
# Frames read at a time, between two looks at whether it is still wanted.
_AT_A_TIME = 4


@dataclass(frozen=True)
class Noise:
    """Correlated noise (eq. 7) before and after the correction, in the same frames.

    Attributes
    ----------
    before, after : float
        -1 to 1; NaN where no two frames vary.
    n_measured, n_frames : int
        Frames it was measured in, of how many.
    """

    before: float
    after: float
    n_measured: int
    n_frames: int

    def __str__(self) -> str:
        """Give it as a sentence."""
        if np.isnan(self.before) or np.isnan(self.after):
            return "Correlated noise R cannot be told: no two frames vary."
        where = "all" if self.n_measured == self.n_frames else f"{self.n_measured} of"
        return (
            f"Correlated noise R: {small(self.before)} before, {small(self.after)} after "
            f"({where} {self.n_frames} frames)."
        )


def measure_noise(fit: Fit, report: Report) -> Noise | None:
    """Measure correlated noise before and after; None of a single frame."""
    n = len(fit.stack)
    if n < 2:
        return None
    chosen = sorted(set(np.linspace(0, n - 1, min(n, _NOISE_FRAMES)).round().astype(int).tolist()))
    done = 0

    def frames(stack: Stack) -> Iterator[Any]:
        nonlocal done
        # Not through the cache, which has the frames that are looked at.
        for index, make in enumerate(stack.frame_makers()):
            if index in chosen:
                report("Measuring noise", done, 2 * len(chosen))
                done += 1
                yield make()

    before = correlated_noise(frames(fit.stack))
    after = correlated_noise(frames(fit.stack.apply(fit.current)))
    return Noise(before, after, len(chosen), n)


@dataclass(frozen=True, eq=False)
class PixelCourse:
    """One pixel's value through the frames.

    Attributes
    ----------
    row, column : int
        Which.
    values : ndarray, shape (n,)
        Counts.
    sigma : float
        How far its sum lies from the model; NaN for a defect.
    kind : int
        1 hot, -1 dark, 2 defect, 0 none of these.
    typical : float
        Counts per frame of a typical good pixel, gain-normalised if there is a gain.
    """

    row: int
    column: int
    values: npt.NDArray[Any]
    sigma: float
    kind: int
    typical: float

    def __str__(self) -> str:
        """Say what it is."""
        sigma = "" if np.isnan(self.sigma) else f", {signed(self.sigma)} σ"
        counts = f"{self.values.mean():.3g} counts a frame, where {self.typical:.3g} are typical"
        return f"Row {self.row}, column {self.column}: {kind_text(self.kind)}{sigma}; {counts}."


def read_pixel(fit: Fit, row: int, column: int, report: Report) -> PixelCourse:
    """Read one pixel of every frame."""
    n = len(fit.stack)
    values = np.empty(n, fit.stack.dtype)
    for first in range(0, n, _AT_A_TIME):
        report("Reading frame", first, n)
        part = slice(first, first + _AT_A_TIME)
        values[part] = fit.stack[part, row : row + 1, column : column + 1].reshape(-1)
    return PixelCourse(
        row=row,
        column=column,
        values=values,
        sigma=float(fit.sigma[row, column]),
        kind=fit.kind(row, column),
        typical=fit.fitted.mean / n,
    )
