"""The steps of a recipe, each as one table of the text file says it.

What each key is stands beside it; the file says so too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar

from napari_mrcz.naming import COMPRESSED_SUFFIX, PLAIN_SUFFIXES

Value = TypeVar("Value")


def _key(default: Value, note: str) -> Value:
    """Return a field with its default, and what a recipe says of it."""
    made: Value = field(default=default, metadata={"note": note})
    return made


def _number(note: str) -> float | None:
    """Return a field for a number that is measured where it is left out."""
    made: float | None = field(default=None, metadata={"note": note, "kind": float})
    return made


def kinds_of(step: type) -> dict[str, type]:
    """Return the type of each key of a step."""
    return {key.name: key.metadata.get("kind", type(key.default)) for key in fields(step)}


def notes_of(step: type) -> dict[str, str]:
    """Return what each key of a step is, with its unit and range."""
    return {key.name: key.metadata["note"] for key in fields(step)}


@dataclass(frozen=True)
class OutlierStep:
    """Replacing hot and dark pixels, as `OutlierFilter.fit` takes it.

    What each key is stands beside it (`notes_of`).
    """

    model: str = _key(
        "poisson",
        '"poisson" compares each pixel with its neighbours; '
        '"normal" takes one normal distribution for the whole image.',
    )
    order: float = _key(6.0, "Steepness k of the weights at the thresholds, above 0.")
    relaxation: float = _key(
        0.95, "Factor on the thresholds at which a pixel keeps half of its own value, above 0."
    )
    limit: float = _key(
        0.5, 'Residual, in standard deviations, from which a tail is fitted ("normal"); above 0.'
    )
    fill: str = _key(
        "sample",
        'What replaces them: "sample" draws counts for each frame, '
        '"expectation" is the mean of the neighbours, the same in every frame.',
    )
    tolerance: float = _key(1e-3, "How far from 1 a weight may be and count as 1; 0 to 1.")
    seed: int = _key(0, "Of the draws: the same seed gives the same pixels; 0 or more.")
    defects: str = _key(
        "",
        "File of pixels known to be defective, beside the recipe or a whole path; none if empty. "
        "A list of SerialEM, or x y w h as RELION and MotionCor have it, or a map.",
    )
    counts_per_electron: float | None = _number(
        "Counts that one electron adds, above 0; measured where this is left out."
    )
    pedestal: float | None = _number(
        "Counts of a pixel without electrons in one frame, 0 for none; measured where this is left "
        "out."
    )
    dark_threshold: float = _key(
        0.0, "Threshold of dark pixels, in standard deviations, below 0; 0 leaves it to each fit."
    )
    hot_threshold: float = _key(
        0.0, "Threshold of hot pixels, in standard deviations, above 0; 0 leaves it to each fit."
    )


@dataclass(frozen=True)
class GainStep:
    """Gain normalisation, as `GainNormalization` takes it.

    What each key is stands beside it (`notes_of`).
    """

    reference: str = _key("", "File of the gain reference, beside the recipe or a whole path.")
    orientation: str = _key(
        "identity",
        '"auto" finds by the first movie how the reference lies, and whether it multiplies or '
        'divides. Else one of "identity", "rot90", "rot180", "rot270", "fliplr", "flipud", '
        '"transpose", "transverse".',
    )
    gamma: float = _key(
        1.0, "Exponent of the reference, about 1; about -1 divides by it. -10 to 10."
    )
    dark: str = _key(
        "", "File of a dark reference, as the frames lie, that is subtracted first; none if empty."
    )


@dataclass(frozen=True)
class KomaStep:
    """Normalisation by the stacks before and after, as `Koma` takes it.

    What each key is stands beside it (`notes_of`).
    """

    radius: int = _key(12, "Stacks to either side whose mean is subtracted, 1 or more.")
    keep_mean: bool = _key(
        True, "Whether the mean of what is subtracted is added back, so that counts stay counts."
    )
    limit: float = _key(
        5.0,
        "Contrast, in robust standard deviations, beyond which a stack (carbon, ice) enters no "
        "average; above 0.",
    )
    length: int = _key(
        0,
        "Only what is finer than this, in pixels, is subtracted, so that what all images show at "
        "the same place (a hole's edge, a beam stop) stays; 0 subtracts all.",
    )
    even_if_worse: bool = _key(
        False, "Whether stacks are normalised even if their correlated noise R rises by it."
    )


@dataclass(frozen=True)
class Output:
    """How results are saved, as `write` takes it.

    What each key is stands beside it (`notes_of`).
    """

    codec: str = _key(
        "auto", '"zstd" ("auto" is that), "lz4", "lz4hc", "zlib", "blosclz", or "none" for plain.'
    )
    level: int = _key(1, "1 (fast) to 9 (small).")
    filter: str = _key("auto", '"none", "shuffle", "bitshuffle"; "auto" tries on three frames.')
    dtype: str = _key(
        "",
        'Pixel type that values are rounded to, such as "float16" or "int16"; '
        "empty leaves them as they are.",
    )

    keep: str = _key(
        "values",
        '"counts" saves the integers before gain and KOMA, an eighth of the size; these are in the '
        "footer, and the gain reference in one file per folder. Movies open normalised all the "
        'same, and "napari-mrcz restore" makes the raw movie again. "values" saves what comes out.',
    )

    @property
    def suffix(self) -> str:
        """How the names of results end."""
        return PLAIN_SUFFIXES[0] if self.codec == "none" else COMPRESSED_SUFFIX
