"""A gain or dark reference, and how it is applied to a movie; without a window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_mrcz.correction import (
    ORIENTATIONS,
    GainNormalization,
    OrientationSearch,
    estimate_gain,
    find_orientation,
    orient,
)
from napari_mrcz.correction.gain import doubts_of_gain, fitted_gain
from napari_mrcz.errors import collected_warnings, counted
from napari_mrcz.plugin.layers import layer_data
from napari_mrcz.stack.references import read_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

_WAYS = {
    "identity": "unchanged",
    "rot90": "turned 90° to the left",
    "rot180": "turned 180°",
    "rot270": "turned 90° to the right",
    "flipud": "flipped vertically",
    "fliplr": "flipped horizontally",
    "transpose": "transposed",
    "transverse": "transposed at the other diagonal",
}


NORMALISED = "This movie is gain-normalised already."


@dataclass(frozen=True)
class GainChoice:
    """How frames are to be normalised.

    Attributes
    ----------
    frames : tuple of int or None
        Rows and columns of the frames; None without a movie.
    reference, dark : Reference or None
        The dark lies as the frames do.
    orientation : str
        One of `ORIENTATIONS`.
    reciprocal : bool
        Divide by the reference rather than multiply with it.
    gamma : float
        Exponent.
    normalised : bool
        The frames have been normalised before.
    """

    frames: Shape | None = None
    reference: Reference | None = None
    dark: Reference | None = None
    orientation: str = "identity"
    reciprocal: bool = False
    gamma: float = 1.0
    normalised: bool = False

    @property
    def fitting(self) -> tuple[str, ...]:
        """Orientations in which the reference fits the frames."""
        if self.reference is None or self.frames is None:
            return ()
        return tuple(name for name in ORIENTATIONS if self._relation(name) is not None)

    def at(self, gamma: float) -> Self:
        """Return the same with another exponent."""
        return replace(self, gamma=gamma)

    def with_fitting_orientation(self) -> Self:
        """Return the same in an orientation that fits: this one, or else the first that does."""
        fitting = self.fitting
        if not fitting or self.orientation in fitting:
            return self
        return replace(self, orientation=fitting[0])

    def problem(self) -> str:
        """Return why frames cannot be normalised so, or nothing."""
        if self.frames is None:
            return "Open or add a movie first."
        if self.normalised:
            return NORMALISED
        if self.reference is None:
            return "Choose a gain reference, or drop its file here."
        if not self.reference.usable.any():
            return "The reference has no pixel with a gain that can be used."
        if not self.fitting:
            return (
                f"The reference is {shape_text(self.reference.shape)}, the frames are "
                f"{shape_text(self.frames)}: it fits them in no orientation, nor with twice "
                "(super-resolution) or half as many pixels each way."
            )
        if self._relation(self.orientation) is None:
            return f"It does not fit the frames when {_WAYS[self.orientation]}."
        if self.dark is not None and self.dark.shape != self.frames:
            return (
                f"The dark reference is {shape_text(self.dark.shape)}, the frames are "
                f"{shape_text(self.frames)}: it lies as they do, however the gain is turned."
            )
        return ""

    def fit_text(self) -> str:
        """Return how the reference's pixels and the frames' belong together, where they do."""
        if self.problem() or self.frames is None:
            return ""
        frames = shape_text(self.frames)
        return {
            1: f"Fits the frames of {frames}.",
            2: f"Fits the frames of {frames} in super-resolution: 2 × 2 of its pixels make one.",
            0.5: f"Fits frames in super-resolution, {frames}: each of its pixels makes 2 × 2.",
        }[self._relation(self.orientation) or 1]

    def normalization(self) -> GainNormalization:
        """Return the correction.

        Raises
        ------
        ValueError
            With the sentence of `problem`, where there is one.
        """
        problem = self.problem()
        if problem or self.reference is None or self.frames is None:
            raise ValueError(problem)
        dark = None if self.dark is None else self.dark.image
        gamma = -self.gamma if self.reciprocal else self.gamma
        return fitted_gain(
            self.reference.image, self.frames, gamma, dark=dark, orientation=self.orientation
        )

    def _relation(self, orientation: str) -> float | None:
        """Return how many of the reference's pixels there are to one of the frames, each way."""
        if self.reference is None or self.frames is None:
            return None
        shape = orient(np.broadcast_to(np.False_, self.reference.shape), orientation).shape
        for factor in (1, 2, 0.5):
            if shape == tuple(factor * size for size in self.frames):
                return factor
        return None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a choice makes of a movie.

    Attributes
    ----------
    without_gain : ndarray of bool, shape (y, x)
        Pixels without usable gain, as the frames lie.
    data, attributes
        Of a layer of the normalised frames; None and {} where none is wanted, or it is withheld.
    warnings : tuple of str
        Why these frames should not be normalised so.
    withheld : bool
        A layer is wanted, but the movie looks normalised already.
    """

    without_gain: npt.NDArray[np.bool_]
    data: Any = None
    attributes: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    withheld: bool = False


def find(stack: Stack, choice: GainChoice, report: Report) -> OrientationSearch:
    """Find how a reference lies, and whether it helps; what else is chosen does not matter."""
    reference = choice.reference
    if reference is None:
        raise ValueError(choice.problem())
    dark = None if choice.dark is None else choice.dark.image

    def frames() -> Iterator[npt.NDArray[Any]]:
        for done, frame in enumerate(stack, 1):
            report("Looking at frame", done, len(stack))
            yield frame if dark is None else frame - dark

    if len(stack) < 2:
        raise ValueError(
            "one frame alone does not tell which way is right; a movie of two or more does"
        )
    return find_orientation(
        frames(), reference.image, progress=lambda done, ways: report("Comparing way", done, ways)
    )


def apply_choice(
    stack: Stack,
    choice: GainChoice,
    name: str | None,
    frame: int,
    report: Report,
    *,
    anyway: bool = False,
) -> Outcome:
    """Make the lazy layer of the normalised movie.

    Parameters
    ----------
    stack : Stack
        Raw frames.
    choice : GainChoice
        One without a problem.
    name : str or None
        Of the layer; None makes none.
    frame : int
        Decoded at once, as it is the one that will be looked at.
    report : Report
        Where it can be cancelled.
    anyway : bool
        Make it of a movie that looks normalised already, too.
    """
    report("Normalising", 0, None)
    # An outlier filter before has put likely counts where the reference knows of defects.
    filled = any(step.get("name") == "OutlierFilter" for step in stack.history)
    normalise = replace(choice.normalization(), filled=filled)
    defects = normalise.defects
    doubts = doubts_of_gain(stack, normalise, stack.history)
    normalise = replace(normalise, warnings=(*normalise.warnings, *doubts))
    # Counts of a camera are integers; others are warned of all the same.
    withheld = bool(name and doubts) and stack.dtype.kind == "f" and not anyway
    if name is None or withheld:
        return Outcome(defects, warnings=normalise.warnings, withheld=withheld)
    corrected = stack.apply(normalise)
    report("Normalising", 0, None)
    ((data, attributes, _),) = layer_data(corrected, name)
    corrected[min(frame, len(corrected) - 1)]
    report("Normalising", 0, None)
    return Outcome(defects, data, attributes, normalise.warnings)


def score_text(noise: float) -> str:
    """Return a correlation in thousandths: not the R of whole frames, but of their fine detail."""
    return f"{1000 * noise:.2f}"


def way_text(orientation: str, reciprocal: bool = False) -> str:
    """Name an orientation."""
    return f"{_WAYS[orientation]}, divided by" if reciprocal else _WAYS[orientation]


def search_text(search: OrientationSearch) -> tuple[str, str]:
    """Return how sure the best way is, and in which tone: text or warning."""
    best = search.best
    way = way_text(best.orientation, best.reciprocal)
    left = score_text(best.noise) if best.noise > search.error else "less than can be measured"
    fall = f"fixed-pattern noise falls from {score_text(search.before)} to {left}"
    if not search.helps:
        why = " ".join(search.warnings)
        return f"{why} Nothing was chosen.", "warning"
    if search.warnings:
        return f"Best {way}; {fall}. {' '.join(search.warnings)}", "warning"
    if search.margin == np.inf:
        return f"{way.capitalize()}: certain; {fall}.", "text"
    ahead = f"{search.margin:.2g}" if search.margin < 10 else f"{search.margin:.0f}"
    return f"Best {way}: certain, {ahead} standard errors ahead of the second; {fall}.", "text"


Shape = tuple[int, int]

# Pixels of the longer side of a small picture.
_PICTURE = 96


@dataclass(frozen=True, eq=False)
class Reference:
    """A gain or dark reference.

    Attributes
    ----------
    name : str
        Of its file or layer.
    image : ndarray of float32, shape (y, x)
        As it came.
    warnings : tuple of str
        Why it should not be used, as far as that was found when it was made.
    """

    name: str
    image: npt.NDArray[np.float32]
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """Rows, columns."""
        y, x = self.image.shape
        return y, x

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Pixels whose gain is finite and above 0, (y, x)."""
        usable: npt.NDArray[np.bool_] = np.isfinite(self.image) & (self.image > 0)
        return usable

    @cached_property
    def picture(self) -> npt.NDArray[np.uint8]:
        """A small grey picture, (rows, columns), of the medium values from black to white."""
        step = max(1, -(-max(self.shape) // _PICTURE))
        y, x = (size // step * step for size in self.shape)
        if not min(y, x) or not self.usable.any():
            return np.zeros((1, 1), np.uint8)
        values = np.where(self.usable, self.image, np.median(self.image[self.usable]))[:y, :x]
        cells = values.reshape(y // step, step, x // step, step).mean(axis=(1, 3))
        low, high = np.percentile(cells, (2, 98))
        grey: npt.NDArray[np.uint8] = np.clip(
            255 * (cells - low) / ((high - low) or 1), 0, 255
        ).astype(np.uint8)
        return grey

    @cached_property
    def gain_text(self) -> str:
        """Its shape and values, as those of a gain reference."""
        if not self.usable.any():
            return f"{shape_text(self.shape)}, without any usable gain"
        low, middle, high = np.percentile(self.image[self.usable], (1, 50, 99))
        bad = self.usable.size - np.count_nonzero(self.usable)
        pixels = "pixel" if bad == 1 else "pixels"
        return (
            f"{shape_text(self.shape)}, median {middle:.4g}, most from {low:.3g} to {high:.3g}; "
            f"{bad} {pixels} without usable gain"
        )

    @cached_property
    def dark_text(self) -> str:
        """Its shape and mean, as those of a dark reference."""
        return f"{shape_text(self.shape)}, mean {np.nanmean(self.image):.4g} counts"


def load_reference(path: str | PathLike[str], report: Report) -> Reference:
    """Read a reference, with what is shown of it."""
    report(f"Reading {Path(path).name}", 0, None)
    return _seen(Reference(Path(path).name, read_reference(path)))


def reference_of(stack: Stack, name: str, report: Report) -> Reference:
    """Take the one image of a layer.

    Raises
    ------
    ValueError
        If there are more.
    """
    if len(stack) != 1 or stack.dtype.kind not in "fiub":
        raise ValueError(f"a reference is one image of real numbers; {name} is none")
    report(f"Reading {name}", 0, None)
    return _seen(Reference(name, np.array(stack[0], np.float32)))


def estimate_reference(stacks: Sequence[Stack], report: Report) -> Reference:
    """Make a gain reference from movies; specimens average out, the more movies the better."""

    def sums() -> Iterator[npt.NDArray[Any]]:
        for number, stack in enumerate(stacks, 1):
            stage = f"Movie {number} of {len(stacks)}: summing frame"
            yield stack.sum(progress=partial(report, stage))

    movies = counted(len(stacks), "movie")
    with collected_warnings() as said:
        image = estimate_gain(sums())
    return _seen(Reference(f"gain of {movies}", image, tuple(said)))


def shape_text(shape: Sequence[int]) -> str:
    """Return rows × columns."""
    return " × ".join(str(size) for size in shape)


def _seen(reference: Reference) -> Reference:
    """Compute what is shown of a reference in the thread that makes it, not in the window's."""
    reference.gain_text, reference.dark_text, reference.picture  # noqa: B018
    return reference
