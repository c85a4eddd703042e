"""The steps of a recipe, each as one table of the text file says it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GainStep", "KomaStep", "OutlierStep", "Output"]


@dataclass(frozen=True)
class OutlierStep:
    """Replacing hot and dark pixels, as `OutlierFilter.fit` takes it.

    Attributes
    ----------
    model, order, relaxation, limit, fill, tolerance, seed
        See there.
    defects : str
        File of pixels known to be defective; empty for none.
    dark_threshold, hot_threshold : float
        In standard deviations, the same for every movie; 0 leaves it to its fit.
    """

    model: str = "poisson"
    order: float = 6.0
    relaxation: float = 0.95
    limit: float = 0.5
    fill: str = "sample"
    tolerance: float = 1e-3
    seed: int = 0
    defects: str = ""
    dark_threshold: float = 0.0
    hot_threshold: float = 0.0


@dataclass(frozen=True)
class GainStep:
    """Gain normalisation, as `GainNormalization` takes it.

    Attributes
    ----------
    reference, dark : str
        Files; no dark reference is subtracted where it is empty.
    orientation : str
        Of the reference; "auto" finds it by the first movie.
    gamma : float
        Exponent of the reference; -1 divides by it.
    """

    reference: str = ""
    orientation: str = "identity"
    gamma: float = 1.0
    dark: str = ""


@dataclass(frozen=True)
class KomaStep:
    """Normalisation by the stacks before and after, as `Koma` takes it.

    Attributes
    ----------
    radius : int
        Stacks to either side.
    keep_mean : bool
        Counts stay counts.
    limit : float
        Contrast, in robust standard deviations, beyond which a stack enters no average.
    """

    radius: int = 12
    keep_mean: bool = True
    limit: float = 5.0


@dataclass(frozen=True)
class Output:
    """How results are saved, as `write` takes it.

    Attributes
    ----------
    codec, level, filter
        See there.
    dtype : str
        Pixel type that values are rounded to; empty leaves them as they are.
    """

    codec: str = "auto"
    level: int = 1
    filter: str = "auto"
    dtype: str = ""
