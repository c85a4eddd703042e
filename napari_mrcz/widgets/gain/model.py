"""References, how they are applied to a movie, exponents and defects; without a window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_mrcz.correction import (
    GainNormalization,
    OrientationSearch,
    estimate_gain,
    find_orientation,
)
from napari_mrcz.correction.gain import doubts_of_gain, fitted_gain
from napari_mrcz.correction.gamma import FittedGamma, Roughness
from napari_mrcz.correction.orientation import fitting_orientations
from napari_mrcz.errors import collected_warnings, counted
from napari_mrcz.plugin.layers import layer_data
from napari_mrcz.stack.references import read_defects, read_reference, write_defects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

Shape = tuple[int, int]

# Orientations in a sentence, and below a thumbnail.
WAYS = {
    "identity": ("unchanged", "unchanged"),
    "rot90": ("turned 90° to the left", "90° left"),
    "rot180": ("turned 180°", "180°"),
    "rot270": ("turned 90° to the right", "90° right"),
    "flipud": ("flipped vertically", "flip vert."),
    "fliplr": ("flipped horizontally", "flip hor."),
    "transpose": ("transposed", "transpose"),
    "transverse": ("transposed at the other diagonal", "transverse"),
}

NORMALISED = "This movie is gain-normalised already."


@dataclass(frozen=True)
class GainChoice:
    """How frames are to be normalised."""

    frames: Shape | None = None  # rows and columns; None without a movie
    reference: Reference | None = None
    dark: Reference | None = None  # it lies as the frames do
    orientation: str = "identity"
    reciprocal: bool = False  # divide by the reference rather than multiply with it
    gamma: float = 1.0
    normalised: bool = False  # the frames have been normalised before

    @property
    def fitting(self) -> tuple[str, ...]:
        """Orientations in which the reference fits the frames."""
        if self.reference is None or self.frames is None:
            return ()
        return tuple(fitting_orientations(self.reference.shape, self.frames))

    @property
    def way(self) -> dict[str, Any]:
        """How the reference is applied, by the names of the fields."""
        how = {"orientation": self.orientation, "reciprocal": self.reciprocal}
        return {**how, "gamma": self.gamma}

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
                "(super-resolution) or half as many pixels each way. Select a movie of the same "
                "camera, or choose another reference."
            )
        if self.orientation not in self.fitting:
            return f"It does not fit the frames when {WAYS[self.orientation][0]}."
        if self.dark is not None and self.dark.shape != self.frames:
            return (
                f"The dark reference is {shape_text(self.dark.shape)}, the frames are "
                f"{shape_text(self.frames)}: it lies as they do, however the gain is turned."
            )
        return ""

    def fit_text(self) -> str:
        """Return how the reference's pixels and the frames' belong together, where they do."""
        if self.problem() or self.frames is None or self.reference is None:
            return ""
        frames = shape_text(self.frames)
        return {
            1: f"Fits the frames of {frames}.",
            2: f"Fits the frames of {frames} in super-resolution: 2 × 2 of its pixels make one.",
            0.5: f"Fits frames in super-resolution, {frames}: each of its pixels makes 2 × 2.",
        }[max(self.reference.shape) / max(self.frames)]

    def normalization(self) -> GainNormalization:
        """Return the correction; ValueError with the sentence of `problem`, where there is one."""
        problem = self.problem()
        if problem or self.reference is None or self.frames is None:
            raise ValueError(problem)
        dark = None if self.dark is None else self.dark.image
        gamma = -self.gamma if self.reciprocal else self.gamma
        return fitted_gain(
            self.reference.image, self.frames, gamma, dark=dark, orientation=self.orientation
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a choice makes of a movie."""

    without_gain: npt.NDArray[np.bool_]  # pixels without usable gain, (y, x), as the frames lie
    data: Any = None  # of a layer of the normalised frames, with its attributes; or None
    attributes: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()  # why these frames should not be normalised so
    withheld: bool = False  # a layer is wanted, but the movie looks normalised already


def find(stack: Stack, choice: GainChoice, report: Report) -> OrientationSearch:
    """Find how a reference lies, and whether it helps; what else is chosen does not matter."""
    if choice.reference is None or len(stack) < 2:
        alone = "one frame alone does not tell which way is right; a movie of two or more does"
        raise ValueError(alone if choice.reference else choice.problem())
    dark = None if choice.dark is None else choice.dark.image

    def frames() -> Iterator[npt.NDArray[Any]]:
        for done, frame in enumerate(stack, 1):
            report("Looking at frame", done, len(stack))
            yield frame if dark is None else frame - dark

    told = partial(report, "Comparing way")
    return find_orientation(frames(), choice.reference.image, progress=told)


def apply_choice(
    stack: Stack,
    choice: GainChoice,
    name: str | None,
    frame: int,
    report: Report,
    *,
    anyway: bool = False,
) -> Outcome:
    """Make the lazy layer of the normalised movie, by a choice that has no problem.

    Without a name, none is made; nor, unless `anyway`, of a movie that looks normalised already.
    One frame is decoded at once, as it is the one that will be looked at.
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


def search_text(search: OrientationSearch) -> tuple[str, str]:
    """Return how sure the best way is, and in which tone: text or warning."""
    best, why = search.best, " ".join(search.warnings)
    if not search.helps:
        return f"{why} Nothing was chosen.", "warning"
    left = "× 10⁻³ to less than can be measured"
    if best.noise > search.error:
        left = f"to {score_text(best.noise)} × 10⁻³"
    way = f"Best: {WAYS[best.orientation][0]}{', divided by' * best.reciprocal}"
    fall = f"fixed-pattern noise falls from {score_text(search.before)} {left}."
    if why:
        return f"{way}; {fall} {why}", "warning"
    ahead = f"{search.margin:.2g}" if search.margin < 10 else f"{search.margin:.0f}"
    sure = "certain" if search.margin == np.inf else f"certain: {ahead} standard errors ahead"
    return f"{way} ({sure}); {fall}", "text"


# Pixels of the longer side of a small picture.
_PICTURE = 96


@dataclass(frozen=True, eq=False)
class Reference:
    """A gain or dark reference."""

    name: str  # of its file or layer
    image: npt.NDArray[np.float32]  # (y, x), as it came
    warnings: tuple[str, ...] = ()  # why it should not be used, as found when it was made

    def __post_init__(self) -> None:
        """Compute what is shown, in the thread that makes the reference."""
        self.gain_text, self.dark_text, self.picture  # noqa: B018

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
        y, x = (size // step for size in self.shape)
        if not min(y, x) or not self.usable.any():
            return np.zeros((1, 1), np.uint8)
        values = np.where(self.usable, self.image, np.median(self.image[self.usable]))
        cells = values[: y * step, : x * step].reshape(y, step, x, step).mean(axis=(1, 3))
        low, high = np.percentile(cells, (2, 98))
        grey = (cells - low) / ((high - low) or 1)
        return np.clip(255 * grey, 0, 255).astype(np.uint8)

    @cached_property
    def gain_text(self) -> str:
        """Its shape and values, as those of a gain reference."""
        if not self.usable.any():
            return f"{shape_text(self.shape)}, without any usable gain"
        low, middle, high = np.percentile(self.image[self.usable], (1, 50, 99))
        bad = counted(int(np.count_nonzero(~self.usable)), "pixel")
        return (
            f"{shape_text(self.shape)}, median {middle:.4g}, most from {low:.3g} to {high:.3g}; "
            f"{bad} without usable gain"
        )

    @cached_property
    def dark_text(self) -> str:
        """Its shape and mean, as those of a dark reference."""
        return f"{shape_text(self.shape)}, mean {np.nanmean(self.image):.4g} counts"


def load_reference(path: str | PathLike[str], report: Report) -> Reference:
    """Read a reference, with what is shown of it."""
    report(f"Reading {Path(path).name}", 0, None)
    return Reference(Path(path).name, read_reference(path))


def reference_of(stack: Stack, name: str, report: Report) -> Reference:
    """Take the one image of a layer; ValueError if there are more."""
    if len(stack) != 1 or stack.dtype.kind not in "fiub":
        raise ValueError(f"a reference is one image of real numbers; {name} is none")
    report(f"Reading {name}", 0, None)
    return Reference(name, np.array(stack[0], np.float32))


def estimate_reference(stacks: Sequence[Stack], report: Report) -> Reference:
    """Make a gain reference from movies; specimens average out, the more movies the better."""

    def summed() -> Iterator[Stack]:
        for number, stack in enumerate(stacks):
            report("Summing movie", number, len(stacks))
            yield stack

    with collected_warnings() as said:
        image = estimate_gain(summed())
    return Reference(f"gain of {counted(len(stacks), 'movie')}", image, tuple(said))


def shape_text(shape: Sequence[int]) -> str:
    """Return rows × columns."""
    return " × ".join(str(size) for size in shape)


LOWEST, HIGHEST = 0.5, 1.5
_POINTS = 41


@dataclass(frozen=True, eq=False)
class GammaFit:
    """How uneven a movie is for some exponents, and the best one.

    Unevenness is the standard deviation of means of 64 × 64 pixels, over their mean (eq. 10).
    """

    gammas: npt.NDArray[np.float64]
    unevenness: npt.NDArray[np.float64]
    without: float  # the unevenness of raw frames
    best: FittedGamma | None  # None where the lowest is no minimum, but an end

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


def fit_exponent(stack: Stack, choice: GainChoice, report: Report) -> GammaFit:
    """Find the exponent that flattens a movie without a specimen, evenly illuminated."""
    counts = stack.sum(progress=partial(report, "Summing frame")).astype(np.float64)
    normalise = replace(choice, gamma=1.0).normalization()
    if normalise.oriented_dark is not None:
        counts -= len(stack) * normalise.oriented_dark
    gain = normalise.factor.astype(np.float64)
    gammas = np.linspace(LOWEST, HIGHEST, _POINTS)
    roughness = Roughness(counts, gain, stack)
    unevenness = np.empty(_POINTS)
    for done, gamma in enumerate(gammas):
        report("Trying exponent", done, _POINTS)
        unevenness[done] = roughness(gamma)
    report("Trying exponent", _POINTS, _POINTS)
    best = None
    if 0 < np.argmin(unevenness) < _POINTS - 1:
        best = roughness.fit((LOWEST, HIGHEST))
    report("Trying exponent", _POINTS, _POINTS)
    return GammaFit(gammas, unevenness, roughness(0.0), best)


LISTED, WITHOUT_GAIN = 1, 2

# What a file dialog offers, and what `write_defects` calls it.
KINDS = {
    "SerialEM and IMOD (*.txt)": "serialem",
    "MotionCor and RELION (*.txt)": "motioncor",
    "Map (*.mrc *.mrcz *.tif)": "map",
}
_SUFFIX = {"serialem": ".txt", "motioncor": ".txt", "map": ".mrc"}


def load_defects(path: str, shape: Shape, report: Report) -> npt.NDArray[np.bool_]:
    """Read a list or map of defective pixels, as the frames lie, (y, x)."""
    report(f"Reading {Path(path).name}", 0, None)
    return read_defects(path, shape)


def export_defects(path: str, mask: npt.NDArray[np.bool_], kind: str, report: Report) -> Path:
    """Write a list or map, with the suffix of its kind where the name has none.

    A file of the very name given is replaced: the file dialog has asked about that one.
    """
    given = Path(path)
    target = given if given.suffix else given.with_suffix(_SUFFIX[kind])
    report(f"Writing {target.name}", 0, None)
    write_defects(target, mask, kind, overwrite=target == given)
    return target


def marked(
    labels: npt.NDArray[Any], pixels: npt.NDArray[np.bool_] | None, kind: int
) -> npt.NDArray[np.uint8]:
    """Return labels with these pixels of a kind added; those that have another label keep it.

    Of those without usable gain there are no others then: they follow the reference.
    """
    known = labels.astype(np.uint8)
    if kind == WITHOUT_GAIN:
        known[known == kind] = 0
    if pixels is not None:
        known[pixels & (known == 0)] = kind
    return known


def count_defects(labels: npt.NDArray[Any]) -> tuple[int, int]:
    """Count the defective pixels, and those of them without usable gain."""
    return int(np.count_nonzero(labels)), int(np.count_nonzero(labels == WITHOUT_GAIN))


def defects_text(bad: int, without: int, size: int) -> str:
    """Return how many of so many pixels are defective."""
    if not bad:
        return "No defective pixels yet: import a list, or paint them."
    return (
        f"{counted(bad, 'defective pixel')} ({bad / size:.3%}): {bad - without} listed or painted, "
        f"{without} without usable gain."
    )
