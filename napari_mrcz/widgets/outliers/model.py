"""The fit of a movie's outliers, and what is shown of it, in numbers and words; without a window.

All that reads frames is a function of its own, called in a thread with a `Report`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_mrcz.correction import OutlierFilter, correlated_noise
from napari_mrcz.errors import with_minus

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from napari_mrcz.correction.outliers.thresholds import OutlierOptions
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

# Options that need another fit; the others take effect at once.
REFIT = ("model", "limit", "counts_per_electron", "pedestal")

KINDS = {0: "no outlier", 1: "hot", -1: "dark", 2: "defect"}

# Frames that correlated noise is measured in, spread over the movie: enough to see what is left.
_NOISE_FRAMES = 10
# Frames read at a time, between two looks at whether it is still wanted.
_AT_A_TIME = 4

SUMMING = "Summing frame"
FITTING = "Fitting the distribution of the sum"


@dataclass(frozen=True, eq=False)
class Fit:
    """A movie, its fitted filter, and the filter with what was changed since."""

    stack: Stack
    fitted: OutlierFilter
    current: OutlierFilter
    sigma: npt.NDArray[np.float32]  # of each pixel's sum from the model, (y, x)
    defects: npt.NDArray[np.bool_] | None = None  # pixels known to be defective, (y, x)
    total: npt.NDArray[Any] | None = None  # kept, so that another fit need not read the movie

    @property
    def is_changed(self) -> bool:
        """Whether thresholds are not those of the fit."""
        return self.current.thresholds[:2] != self.fitted.thresholds[:2]

    def needs_another(self, options: OutlierOptions) -> bool:
        """Return whether other options need another fit, rather than other weights."""
        now = self.current.options
        return any(getattr(now, name) != getattr(options, name) for name in REFIT)

    def with_thresholds(self, dark: float | None = None, hot: float | None = None) -> Self:
        """Return the same with other thresholds in standard deviations; quick enough for a drag."""
        return replace(self, current=self.current.with_thresholds(dark, hot))

    def with_options(self, options: OutlierOptions) -> Self:
        """Return the same with another order, relaxation or fill.

        Raise `ValueError` if they cannot be for this movie.
        """
        new = {name: getattr(options, name) for name in ("order", "relaxation", "fill")}
        fitted, current = (one.with_options(**new) for one in (self.fitted, self.current))
        return replace(self, fitted=fitted, current=current)

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
    options: OutlierOptions,
    gain: npt.ArrayLike | None,
    report: Report,
    *,
    defects: npt.NDArray[np.bool_] | None = None,
) -> Fit:
    """Sum a movie, which can be cancelled between frames, and fit the filter to the sum.

    A movie that was summed is not read again. `gain`: a reference, with more axes of length 1
    or not; `defects`: pixels known to be defective, (y, x).
    """
    total = stack.sum(dtype="smallest", progress=lambda done, n: report(SUMMING, done, n))
    report(FITTING, 0, None)
    reference = None if gain is None else np.asarray(gain).reshape(stack.shape[1:])
    fitted = OutlierFilter.fit(stack, gain=reference, defects=defects, **vars(options))
    report(FITTING, 0, None)
    return Fit(stack, fitted, fitted, fitted.sigma_image(), defects, total)


def correct(
    fit: Fit, frame: int, with_mask: bool, report: Report
) -> tuple[Stack, npt.NDArray[np.int8] | None]:
    """Return the corrected movie, lazy, and if asked for where outliers are, (y, x).

    That is 1 for hot, 2 for dark pixels, 3 for defects; the movie's cache has the frame looked at.
    """
    report("Correcting", 0, None)
    stack = fit.stack.apply(fit.current)
    stack[min(frame, len(stack) - 1)]
    # Labels are not negative.
    return stack, np.array([0, 1, 3, 2], np.int8)[fit.current.mask] if with_mask else None


@dataclass(frozen=True)
class Noise:
    """Correlated noise (eq. 7) before and after the correction, in the same frames."""

    before: float  # -1 to 1; NaN where no two frames vary
    after: float
    n_measured: int  # frames it was measured in
    n_frames: int

    def __str__(self) -> str:
        """Return it as a sentence."""
        if np.isnan(self.before) or np.isnan(self.after):
            return "Correlated noise R could not be measured (no variation between frames)."
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
    chosen = np.unique(np.linspace(0, n - 1, min(n, _NOISE_FRAMES)).round().astype(int))

    def frames(stack: Stack, done: int) -> Iterator[Any]:
        # Not through the cache, which has the frames that are looked at.
        makers = list(stack.frame_makers())
        for number, index in enumerate(chosen, done):
            report("Measuring noise", number, 2 * len(chosen))
            yield makers[index]()

    before = correlated_noise(frames(fit.stack, 0))
    after = correlated_noise(frames(fit.stack.apply(fit.current), len(chosen)))
    return Noise(before, after, len(chosen), n)


@dataclass(frozen=True, eq=False)
class PixelCourse:
    """One pixel's value through the frames."""

    row: int
    column: int
    values: npt.NDArray[Any]  # counts, (n,)
    sigma: float  # how far its sum lies from the model; NaN for a defect
    kind: int  # as `Fit.kind`
    typical: float  # counts per frame of a good pixel, gain-normalised if there is a gain

    def __str__(self) -> str:
        """Return what it is, in a sentence."""
        sigma = "" if np.isnan(self.sigma) else f", {signed(self.sigma)} σ"
        counts = f"{self.values.mean():.3g} counts/frame (typical: {self.typical:.3g})"
        return f"Row {self.row}, column {self.column}: {KINDS[self.kind]}{sigma}; {counts}."


def read_pixel(fit: Fit, row: int, column: int, report: Report) -> PixelCourse:
    """Read one pixel of every frame."""
    n = len(fit.stack)
    values = np.empty(n, fit.stack.dtype)
    for first in range(0, n, _AT_A_TIME):
        report("Reading frame", first, n)
        part = slice(first, first + _AT_A_TIME)
        values[part] = fit.stack[part, row : row + 1, column : column + 1].reshape(-1)
    sigma, kind = float(fit.sigma[row, column]), fit.kind(row, column)
    return PixelCourse(row, column, values, sigma, kind, fit.fitted.mean / n)


# In words ----------------------------------------------------------------------------------------


def summary(fit: Fit | None) -> list[tuple[str, ...]]:
    """Return rows of numbers of outliers, dark, hot and both, with the thresholds of now."""
    names = ("Pixels", "% of pixels", "Expected by chance")
    if fit is None:
        return [(name, "", "", "") for name in names]
    now, n = fit.current, fit.sigma.size
    found = (now.n_dark, now.n_hot, now.n_dark + now.n_hot)
    chance = (now.false_dark, now.false_hot, now.false_dark + now.false_hot)
    return [
        (names[0], *(f"{number:,}" for number in found)),
        (names[1], *(_percentage(number / n) for number in found)),
        (names[2], *(_expected(number) for number in chance)),
    ]


def remarks(fit: Fit) -> list[str]:
    """Return what is unusual: doubts about the fit, thresholds that are defaults, defects."""
    said = list(fit.current.warnings)
    limits = fit.current.thresholds
    for side, value, is_default, found in (
        ("dark", limits.dark, limits.dark_is_default, fit.current.n_dark),
        ("hot", limits.hot, limits.hot_is_default, fit.current.n_hot),
    ):
        where = f"the {side} threshold {signed(value)} σ is a default, not fitted"
        if is_default and found:
            said.append(f"{where[0].upper()}{where[1:]}: too few pixels lie beyond it.")
        elif is_default:
            said.append(f"No {side} pixels stand out of the noise: {where}.")
    if defects := fit.current.n_defects:
        plural = "s are known to be defective, or have" if defects > 1 else " is defective, or has"
        said.append(f"{defects:,} pixel{plural} no usable gain or value: replaced in every frame.")
    return said


def in_words(text: str) -> str:
    """Return an error of the filter without the words of scripts."""
    script = "model='normal' with fill='expectation'"
    return text.replace(script, "the normal model with the expected value as fill")


def signed(sigma: float) -> str:
    """Return standard deviations, with a true minus sign."""
    return with_minus(f"{sigma:.2f}")


def small(value: float) -> str:
    """Return a number about 0."""
    return with_minus(f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.4f}")


def _percentage(part: float) -> str:
    percent = 100 * part
    if 0 < percent < 1e-3:
        return "< 0.001"
    return f"{percent:.{2 if percent < 99 else 3}g}"


def _expected(number: float) -> str:
    if number < 0.05:
        return "< 0.1"
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"
