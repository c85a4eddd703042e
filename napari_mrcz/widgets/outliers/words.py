"""What a fit found, as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mrcz.errors import with_minus

if TYPE_CHECKING:
    from napari_mrcz.widgets.outliers.model import Fit

ROWS = ("Pixels", "Of all", "By chance")
"""What `summary` tells, of dark pixels, of hot ones, of both."""

_IN_WORDS = {
    "model='normal' with fill='expectation'": "the normal model with the expected value as fill"
}
_KINDS = {0: "no outlier", 1: "hot", -1: "dark", 2: "defect"}


def summary(fit: Fit) -> list[tuple[str, ...]]:
    """Return `ROWS` of a table of the outliers, for the thresholds that there are now."""
    now, n = fit.current, fit.sigma.size
    found = (now.n_dark, now.n_hot, now.n_dark + now.n_hot)
    chance = (now.false_dark, now.false_hot, now.false_dark + now.false_hot)
    return [
        tuple(f"{number:,}" for number in found),
        tuple(_percentage(number / n) for number in found),
        tuple(_expected(number) for number in chance),
    ]


def remarks(fit: Fit) -> list[str]:
    """Return what is unusual: doubts about the fit, thresholds that are defaults, defects."""
    said = list(fit.current.warnings)
    limits = fit.current.thresholds
    sides = (
        ("dark", limits.dark, limits.dark_is_default),
        ("hot", limits.hot, limits.hot_is_default),
    )
    for side, value, default in sides:
        if default:
            said.append(
                f"No {side} pixels stand out of the noise: the {side} threshold "
                f"{signed(value)} σ is a default, not fitted."
            )
    if defects := fit.current.n_defects:
        plural = "s are known to be defective, or have" if defects > 1 else " is defective, or has"
        said.append(f"{defects:,} pixel{plural} no usable gain or value: replaced in every frame.")
    return said


def in_words(text: str) -> str:
    """Return an error of the filter without the words of scripts."""
    for script, plain in _IN_WORDS.items():
        text = text.replace(script, plain)
    return text


def kind_text(kind: int) -> str:
    """Return a kind of pixel, as masks number them, in words."""
    return _KINDS[kind]


def signed(sigma: float) -> str:
    """Return standard deviations, with a true minus sign."""
    return with_minus(f"{sigma:.2f}")


def small(value: float) -> str:
    """Return a number about 0."""
    return with_minus(f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.4f}")


def _percentage(part: float) -> str:
    percent = 100 * part
    return "0 %" if not part else "< 0.001 %" if percent < 1e-3 else f"{percent:.2g} %"


def _expected(number: float) -> str:
    if number < 0.05:
        return "< 0.1"
    return f"{number:.1f}" if number < 9.95 else f"{number:,.0f}"
