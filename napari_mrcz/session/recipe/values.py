"""Judging a recipe's values by what will take them, before the first movie is read."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from napari_mrcz.correction import ORIENTATIONS
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.outliers.pixels import OutlierOptions
from napari_mrcz.format.encoding import Encoding
from napari_mrcz.format.modes import storage_dtype

if TYPE_CHECKING:
    from napari_mrcz.session.recipe.steps import GainStep, KomaStep, OutlierStep, Output

LARGEST_SIGMA = 1e6
"""A threshold beyond all pixels, in standard deviations."""
# Of what weighs or scales thresholds, and of stacks to either side: beyond, nothing changes but
# the time that it takes, or numbers overflow.
_LARGEST_OPTION, _LARGEST_RADIUS, _LARGEST_SEED = 1000, 10**6, 2**63 - 1
# Pixels of the widest camera.
_LARGEST_LENGTH = 10**5
# Cameras have exponents about 1, or about -1 where a reference divides.
_LARGEST_GAMMA = 10


def check_values(
    outliers: OutlierStep | None, gain: GainStep | None, koma: KomaStep | None, output: Output
) -> None:
    """Check that the steps of a recipe can be done, as far as they themselves tell.

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
    if output.keep == "counts" and outliers is not None and outliers.fill != "sample":
        raise ValueError(
            f'keep = "counts" needs whole numbers, where fill = "{outliers.fill}" makes fractions: '
            'choose fill = "sample", or keep = "values"'
        )


def _check_outliers(step: OutlierStep) -> None:
    OutlierOptions(**{field.name: getattr(step, field.name) for field in fields(OutlierOptions)})
    for name, most in (
        ("order", _LARGEST_OPTION),
        ("relaxation", _LARGEST_OPTION),
        ("limit", _LARGEST_OPTION),
        ("seed", _LARGEST_SEED),
    ):
        if (value := getattr(step, name)) > most:
            raise ValueError(f"{name} is {_short(value)}, and {most} at most")
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
    for name, most in (("radius", _LARGEST_RADIUS), ("length", _LARGEST_LENGTH)):
        if (value := getattr(step, name)) > most:
            raise ValueError(f"{name} is {_short(value)}, and {most} at most")
    KomaOptions(**asdict(step))


def _check_output(output: Output) -> None:
    codec = "zstd" if output.codec == "auto" else output.codec
    Encoding(codec, output.level, output.filter)
    if output.dtype:
        storage_dtype(output.dtype)
    if output.keep not in ("values", "counts"):
        raise ValueError(f'keep is "values" or "counts", not {output.keep!r}')
    if output.keep == "counts" and output.dtype:
        raise ValueError('counts keep their pixel type: leave dtype empty, or keep = "values"')
    if output.keep == "counts" and codec == "none":
        raise ValueError('plain files are not kept as counts: choose a codec, or keep = "values"')


def _short(number: float) -> str:
    """Return a number as it is read, however many digits it has."""
    return f"{number:g}" if abs(number) < 1e300 else "a number of hundreds of digits"
