"""Judging a recipe's values by what will take them, before the first movie is read."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from napari_mrcz.correction import ORIENTATIONS
from napari_mrcz.correction.outliers.pixels import OutlierOptions
from napari_mrcz.format.encoding import Encoding
from napari_mrcz.format.modes import storage_dtype

if TYPE_CHECKING:
    from napari_mrcz.recipe.steps import GainStep, KomaStep, OutlierStep, Output

__all__ = ["LARGEST_SIGMA", "check_values"]

LARGEST_SIGMA = 1e6
"""A threshold beyond all pixels, in standard deviations."""
# Cameras have exponents about 1, or about -1 where a reference divides.
_LARGEST_GAMMA = 10


def check_values(
    outliers: OutlierStep | None, gain: GainStep | None, koma: KomaStep | None, output: Output
) -> None:
    """See that the steps of a recipe can be done, as far as they themselves tell.

    Raises
    ------
    ValueError, TypeError
        If it cannot; says which value is wrong.
    """
    if outliers is not None:
        _check_outliers(outliers)
    if gain is not None:
        _check_gain(gain)
    if koma is not None:
        _check_koma(koma)
    _check_output(output)


def _check_outliers(step: OutlierStep) -> None:
    OutlierOptions(**{field.name: getattr(step, field.name) for field in fields(OutlierOptions)})
    dark, hot = step.dark_threshold, step.hot_threshold
    if dark > 0 or hot < 0:
        raise ValueError(
            f"thresholds of {dark:g} and {hot:g} sigma, where the dark one is below 0 and the hot "
            "one above; 0 leaves it to the fit"
        )


def _check_gain(step: GainStep) -> None:
    known = ("auto", *ORIENTATIONS)
    if step.orientation not in known:
        raise ValueError(f"orientation {step.orientation!r} is none of {', '.join(known)}")
    if abs(step.gamma) > _LARGEST_GAMMA:
        raise ValueError(f"gamma is {step.gamma:g}, where it is about 1 or -1")


def _check_koma(step: KomaStep) -> None:
    if step.radius < 1:
        raise ValueError(f"a radius is at least 1 stack, not {step.radius}")
    if step.limit <= 0:
        raise ValueError(f"the limit of contrasts is positive, not {step.limit:g}")


def _check_output(output: Output) -> None:
    codec = "zstd" if output.codec == "auto" else output.codec
    Encoding(codec, output.level, output.filter)
    if output.dtype:
        storage_dtype(output.dtype)
