"""What the "Outliers" widget knows, without a window: the fit of a movie, and what is asked.

All that reads frames is a function of its own, called in a thread with a `Report`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from napari_mrcz.correction import OutlierFilter

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

SUMMING = "Summing frame"
FITTING = "Fitting the distribution of the sum"


@dataclass(frozen=True)
class FitOptions:
    """What the user has chosen; see `OutlierFilter.fit`.

    Attributes
    ----------
    model, limit, counts_per_electron, pedestal
        Need another fit. Of the last two, None is measured.
    order, relaxation, fill
        Do not.
    """

    model: str = "poisson"
    limit: float = 0.5
    order: float = 6.0
    relaxation: float = 0.95
    fill: str = "sample"
    counts_per_electron: float | None = None
    pedestal: float | None = None

    def needs_another_fit(self, other: FitOptions) -> bool:
        """Return whether a fit with the other ones is none with these."""
        names = ("model", "limit", "counts_per_electron", "pedestal")
        return any(getattr(self, name) != getattr(other, name) for name in names)


@dataclass(frozen=True, eq=False)
class Fit:
    """A movie, its fitted filter, and the filter with what was changed since.

    Attributes
    ----------
    stack : Stack
        The movie.
    fitted, current : OutlierFilter
        As fitted, and as it is wanted now.
    sigma : ndarray of float32, shape (y, x)
        How far each pixel's sum lies from the model, in standard deviations.
    options : FitOptions
        Of the current filter.
    defects : ndarray of bool, shape (y, x), or None
        Pixels that were known to be defective.
    """

    stack: Stack
    fitted: OutlierFilter
    current: OutlierFilter
    sigma: npt.NDArray[np.float32]
    options: FitOptions
    defects: npt.NDArray[np.bool_] | None = None

    @property
    def is_changed(self) -> bool:
        """Whether thresholds are not those of the fit."""
        return self.current.thresholds[:2] != self.fitted.thresholds[:2]

    def with_thresholds(self, dark: float | None = None, hot: float | None = None) -> Self:
        """Return the same with other thresholds in standard deviations; quick enough for a drag."""
        return replace(self, current=self.current.with_thresholds(dark, hot))

    def with_options(self, options: FitOptions) -> Self:
        """Return the same with another order, relaxation or fill.

        Raises
        ------
        ValueError
            If they need another fit, or cannot be for this movie.
        """
        new = {name: getattr(options, name) for name in ("order", "relaxation", "fill")}
        return replace(
            self,
            fitted=self.fitted.with_options(**new),
            current=self.current.with_options(**new),
            options=replace(self.options, **new),
        )

    def reset(self) -> Self:
        """Return the same with the thresholds of the fit."""
        return replace(self, current=self.fitted)

    def outlier_near(self, row: int, column: int, reach: int) -> tuple[int, int]:
        """Return the outlier that is nearest to a pixel, or the pixel itself if none is near."""
        top, left = max(0, row - reach), max(0, column - reach)
        near = self.sigma[top : row + reach + 1, left : column + reach + 1]
        rows, columns = np.nonzero(self._kinds(near))
        if not rows.size:
            return row, column
        nearest = np.hypot(rows + top - row, columns + left - column).argmin()
        return int(rows[nearest]) + top, int(columns[nearest]) + left

    def kind(self, row: int, column: int) -> int:
        """Return what a pixel is: 1 hot, -1 dark, 2 defect, 0 none of these."""
        return int(self._kinds(self.sigma[row, column]))

    def _kinds(self, sigma: npt.ArrayLike) -> npt.NDArray[np.int8]:
        at, limits = np.asarray(sigma), self.current.thresholds
        kinds = (at > limits.hot).astype(np.int8) - (at < limits.dark).astype(np.int8)
        return np.where(np.isnan(at), np.int8(2), kinds)


def fit_outliers(
    stack: Stack,
    options: FitOptions,
    gain: npt.ArrayLike | None,
    report: Report,
    *,
    defects: npt.NDArray[np.bool_] | None = None,
) -> Fit:
    """Sum a movie, which can be cancelled between frames, and fit the filter to the sum.

    Parameters
    ----------
    stack : Stack
        The movie; one that was summed already is not read again.
    options : FitOptions
        What is chosen.
    gain : array_like, optional
        Gain reference; besides rows and columns it may have axes of length 1.
    report : Report
        Called with each frame.
    defects : ndarray of bool, shape (y, x), optional
        Pixels known to be defective.
    """
    # Kept until the filter is fitted, which then need not sum the movie again.
    total = stack.sum(dtype="smallest", progress=lambda done, n: report(SUMMING, done, n))
    report(FITTING, 0, None)
    fitted = OutlierFilter.fit(
        stack,
        model=options.model,
        limit=options.limit,
        order=options.order,
        relaxation=options.relaxation,
        fill=options.fill,
        gain=None if gain is None else np.asarray(gain).reshape(stack.shape[1:]),
        defects=defects,
        counts_per_electron=options.counts_per_electron,
        pedestal=options.pedestal,
    )
    del total
    report(FITTING, 0, None)
    return Fit(stack, fitted, fitted, fitted.sigma_image(), options, defects)


@dataclass(frozen=True, eq=False)
class Corrected:
    """The movie without its outliers, ready to be shown.

    Attributes
    ----------
    fit : Fit
        What it was corrected by.
    stack : Stack
        Lazy.
    mask : ndarray of int8, shape (y, x), or None
        The outliers, if they were asked for: 1 hot, 2 dark, 3 defect.
    """

    fit: Fit
    stack: Stack
    mask: npt.NDArray[np.int8] | None


def correct(fit: Fit, frame: int, with_mask: bool, report: Report) -> Corrected:
    """Prepare the corrected movie, with one frame of it in its cache: that which is looked at."""
    report("Correcting", 0, None)
    stack = fit.stack.apply(fit.current)
    stack[min(frame, len(stack) - 1)]
    mask = None
    if with_mask:
        # Labels are not negative.
        mask = np.array([0, 1, 3, 2], np.int8)[fit.current.mask]
    return Corrected(fit, stack, mask)
