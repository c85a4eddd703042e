"""`OutlierFilter`: finds hot and dark pixels in a movie's sum and replaces them, frame by frame.

McLeod et al., preprint doi:10.1101/116533, section 4, with its errata corrected. `counts` sums the
frames; `scale` places every pixel on a scale, by its neighbours (`levels`), without structure of
the specimen (`lattice`), and judges those far out (`suspects`); `thresholds` fits the distribution
of good pixels and finds where it ends; `fill` replaces the others by likely values.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.history import described, register
from napari_mrcz.correction.outliers.counts import Area, SummedCounts
from napari_mrcz.correction.outliers.fill import Replacement
from napari_mrcz.correction.outliers.scale import PixelScale, normal_scale, poisson_scale
from napari_mrcz.correction.outliers.suspects import MANY_SPOTS, find_areas, read_course
from napari_mrcz.correction.outliers.thresholds import (
    DistributionFit,
    FittedPixels,
    OutlierOptions,
    OutlierStep,
    TailFit,
    Thresholds,
    fewest_mistakes,
    fit_tails,
    intercepts,
    weight,
)
from napari_mrcz.errors import with_minus

if TYPE_CHECKING:
    from collections.abc import Mapping

# Where pickles of earlier versions look for it.
sys.modules[f"{__name__}.filter"] = sys.modules[__name__]

_NUMBERS = ("mean", "sigma", "n_hot", "n_dark", "n_defects", "false_hot", "false_dark")


@register
@dataclass(frozen=True, eq=False)
class OutlierFilter:
    """Replaces the hot and dark pixels of a movie. Made by `OutlierFilter.fit`.

    Call it with a frame and its index, or pass it to `Stack.apply`. One that was rebuilt from its
    description corrects frames, and has its mask and numbers, but no distribution, and takes no
    other thresholds.

    Attributes
    ----------
    options : OutlierOptions
        As given to `fit`.
    thresholds : Thresholds
        In standard deviations: dark, hot, and whether each is a default.
    mean, sigma : float
        Centre and standard deviation of a good pixel's sum, in counts.
    n_hot, n_dark, n_defects : int
        Outliers of each kind.
    false_hot, false_dark : float
        Good pixels that the model expects beyond each threshold.
    warnings : tuple of str
        Why the fit should not be trusted without a look; empty when all is well.
    distribution : DistributionFit or None
        Histogram, cumulative distribution, model and residual, for a plot.
    dark_tail, hot_tail : TailFit or None
        Lines through the residual's tails, where it has any.
    """

    title: ClassVar[str] = "Outlier pixels replaced"
    table_options: ClassVar[type] = OutlierStep

    options: OutlierOptions
    thresholds: Thresholds
    mean: float
    sigma: float
    n_hot: int
    n_dark: int
    n_defects: int
    false_hot: float
    false_dark: float
    warnings: tuple[str, ...] = ()
    distribution: DistributionFit | None = field(default=None, repr=False)
    dark_tail: TailFit | None = field(default=None, repr=False)
    hot_tail: TailFit | None = field(default=None, repr=False)
    _pixels: FittedPixels | None = field(default=None, repr=False)
    _rebuilt: Replacement | None = field(default=None, repr=False)

    @classmethod
    def fit(
        cls,
        movie: Any,
        *,
        order: float = 6.0,
        relaxation: float = 0.95,
        limit: float = 0.5,
        model: str = "poisson",
        gain: npt.ArrayLike | None = None,
        defects: npt.ArrayLike | None = None,
        fill: str = "sample",
        counts_per_electron: float | None = None,
        pedestal: float | None = None,
        tolerance: float = 1e-3,
        seed: int = 0,
    ) -> Self:
        """Find the outliers of a movie.

        Parameters
        ----------
        movie : Stack or ndarray, shape (n, y, x)
            Integer or floating counts.
        order : float
            Steepness of the weights k (eq. 6).
        relaxation : float
            Factor ρ on the thresholds at which half of a pixel's own value is kept (eq. 6).
        limit : float
            Residual in standard deviations from which a tail is fitted (eq. 5). With the
            "poisson" model the lines are only drawn.
        model : str
            "poisson" compares each pixel with its neighbours, by Poisson statistics, and chooses
            the thresholds that mistake the fewest pixels. "normal" is the preprint's: one normal
            distribution for the image, thresholds where its tails begin.
        gain : array_like, shape (y, x), optional
            Reference that multiplies counts (with its exponent, if any). Outliers are searched
            after it, and replaced before it. Pixels with 0, negative or no finite gain are defects.
        defects : array_like of bool, shape (y, x), optional
            Pixels known to be defective, which are always replaced.
        fill : str
            "sample" draws counts for each frame: the type stays, integers stay integers.
            "expectation" is the preprint's mean of the neighbours, the same in every frame.
        counts_per_electron : float, optional
            Counts that one electron adds; by default measured from the noise.
        pedestal : float, optional
            Counts of a pixel without electrons in one frame, as integrating cameras add them; by
            default measured from the noise.
        tolerance : float
            Weights this close to 1 count as 1.
        seed : int
            Of the draws.

        Raises
        ------
        ValueError
            If an option is not valid, shapes differ, no pixel is usable, or too many sums are
            negative to be counts, which "poisson" and "sample" need.
        """
        options = OutlierOptions(
            model, order, relaxation, limit, fill, tolerance, seed, counts_per_electron, pedestal
        )
        counts = SummedCounts.of(
            movie, gain=gain, defects=defects, per_electron=counts_per_electron, pedestal=pedestal
        )
        _check_drawable(counts, options)
        areas = counts.odd_borders()
        if model == "poisson":
            areas += find_areas(counts)
        else:  # the preprint replaces what is beyond its thresholds, nothing else
            areas = [area._replace(is_certain=False) for area in areas]
        counts = counts.with_areas(areas)
        if model == "poisson":
            scale = poisson_scale(counts, partial(read_course, movie, counts))
        else:
            scale = normal_scale(counts)
        distribution = DistributionFit.of(scale)
        dark_tail, hot_tail = fit_tails(distribution, limit)
        if model == "poisson":
            thresholds = fewest_mistakes(distribution)
        else:
            thresholds = intercepts(dark_tail, hot_tail)
        pixels = FittedPixels.of(counts, scale, distribution, doubts_of_counts(counts))
        if not isinstance(movie, np.ndarray):  # beside which its sum is small
            pixels.pack()
        unfinished = cls(
            options=options,
            thresholds=thresholds,
            mean=(scale.origin + distribution.center * scale.unit) * counts.per_electron,
            sigma=distribution.width * scale.unit * counts.per_electron,
            n_hot=0,
            n_dark=0,
            n_defects=len(counts.defects),
            false_hot=0.0,
            false_dark=0.0,
            distribution=distribution,
            dark_tail=dark_tail,
            hot_tail=hot_tail,
            _pixels=pixels,
        )
        return unfinished._with(thresholds)

    def with_thresholds(self, dark: float | None = None, hot: float | None = None) -> Self:
        """Return the same filter with other thresholds, without another fit.

        In standard deviations; by default unchanged. Infinite ones switch a side off. Raise
        `ValueError` if they are not in order, or this was rebuilt from a description.
        """
        old = self.thresholds
        new = Thresholds(
            old.dark if dark is None else float(dark),
            old.hot if hot is None else float(hot),
            old.dark_is_default and dark is None,
            old.hot_is_default and hot is None,
            old.dark_is_given or dark is not None,
            old.hot_is_given or hot is not None,
        )
        if not new.dark < new.hot:
            raise ValueError(f"the dark threshold {new.dark} must lie below the hot one, {new.hot}")
        return self._with(new)

    def with_options(self, **options: Any) -> Self:
        """Return the same filter with other weights or another fill, without another fit.

        `options`: order, relaxation, fill, tolerance or seed, as `fit` takes them. Raise
        `ValueError` if one is not valid, needs another fit, or draws counts from numbers that are
        none, or if this was rebuilt from a description.
        """
        if fitted := options.keys() & {"model", "limit", "counts_per_electron", "pedestal"}:
            raise ValueError(f"another {fitted.pop()} needs another fit")
        new = replace(self.options, **options)
        _check_drawable(self._known().counts, new)
        return replace(self, options=new)

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return a frame (y, x) of raw counts, corrected, of `output_dtype`.

        w · frame + (1 - w) · fill, on average where it is drawn; pixels far from the thresholds
        have the same bits. `index` in the movie seeds the draws.
        """
        return self.replacement(frame, index)

    def correct_in_place(self, frame: npt.NDArray[Any], index: int) -> None:
        """Correct a frame (y, x) of `output_dtype`, contiguous and writeable, in its own memory."""
        self.replacement.correct_in_place(frame, index)

    def settled(self) -> Self:
        """Return the same correction without the sum of the movie and every pixel's distance.

        Only other thresholds and plots need them; they take several frames' memory.
        """
        return replace(
            self, distribution=None, dark_tail=None, hot_tail=None, _pixels=None,
            _rebuilt=self.replacement,
        )  # fmt: skip

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the type of corrected frames: the same, or floating if `fill` is "expectation"."""
        return self.replacement.output_dtype(dtype)

    def weight(self, sigma: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the share of its own value that a pixel keeps at a distance in sigmas (eq. 6)."""
        at = np.asarray(sigma, np.float64)
        return weight(at, self.thresholds, self.options.order, self.options.relaxation)

    @cached_property
    def mask(self) -> npt.NDArray[np.int8]:
        """Outliers, (y, x): 1 hot, -1 dark, 2 defect, 0 good."""
        if self._pixels is not None:
            marked = self._pixels.mask(self.thresholds)
        else:
            marked = np.zeros(self.replacement.shape, np.int8)
            marked.reshape(-1)[self.replacement.pixels] = self.replacement.kinds
        marked.flags.writeable = False
        return marked

    def sigma_image(self) -> npt.NDArray[np.float32]:
        """Return every pixel's distance from the centre in standard deviations, (y, x).

        NaN at defects. A pixel is hot or dark exactly if it lies beyond a threshold. Raise
        `ValueError` if this was rebuilt from a description.
        """
        pixels = self._known()
        image = pixels.sigma.astype(np.float32)[pixels.codes()]
        image.reshape(-1)[pixels.counts.defects] = np.nan
        return image

    @cached_property
    def replacement(self) -> Replacement:
        """The pixels that are replaced, and their weights and expected counts."""
        if self._rebuilt is not None:
            return self._rebuilt
        return self._known().replacement(self.thresholds, self.options)

    def describe(self) -> dict[str, Any]:
        """Return the options and results of the fit, and all that is needed to build it again."""
        return described(
            self,
            **asdict(self.options),
            thresholds=self.thresholds._asdict(),
            **{name: getattr(self, name) for name in _NUMBERS},
            warnings=list(self.warnings),
            replacement=self.replacement.describe(),
        )

    @staticmethod
    def said(step: Mapping[str, Any]) -> str:
        """Return the numbers of outliers of a described filter, and their thresholds."""
        hot, dark = (with_minus(f"{step['thresholds'][side]:.2f} σ") for side in ("hot", "dark"))
        return f"{step['n_hot']} hot beyond {hot}, {step['n_dark']} dark beyond {dark}"

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again; `ValueError` if its parts do not fit together."""
        # Files of the first version do not say whether these were given.
        known = {"counts_per_electron": None, "pedestal": None, **description}
        options = OutlierOptions(**{name: known[name] for name in asdict(OutlierOptions())})
        return cls(
            options=options,
            thresholds=Thresholds(**description["thresholds"]),
            **{name: description[name] for name in _NUMBERS},
            warnings=tuple(description.get("warnings", ())),
            _rebuilt=Replacement.from_description(description["replacement"]),
        )

    def _known(self) -> FittedPixels:
        if self._pixels is None:
            raise ValueError(
                "a filter rebuilt from its description cannot be changed: fit it again"
            )
        return self._pixels

    def _with(self, thresholds: Thresholds) -> Self:
        pixels = self._known()
        n_dark, n_hot = pixels.numbers(thresholds)
        false_hot = float(pixels.counts.n_usable * scipy.special.ndtr(-thresholds.hot))
        false_dark = float(pixels.counts.n_usable * scipy.special.ndtr(thresholds.dark))
        doubts = pixels.doubts
        if self.distribution is not None and self.options.model == "poisson":
            numbers = n_dark + n_hot, false_dark + false_hot
            doubts = doubts + doubts_of_fit(
                pixels.counts, pixels.scale, self.distribution.width, *numbers
            )
        return replace(
            self, thresholds=thresholds, n_hot=n_hot, n_dark=n_dark, false_hot=false_hot,
            false_dark=false_dark, warnings=tuple(doubts),
        )  # fmt: skip


def _check_drawable(counts: SummedCounts, options: OutlierOptions) -> None:
    """Check that electrons can be drawn, or their numbers compared."""
    if not counts.are_counts and (options.model == "poisson" or options.fill == "sample"):
        raise ValueError(
            "so many negative sums are not counts: give the pedestal, if it is negative; "
            "model='normal' with fill='expectation' takes any numbers"
        )


# Limits of warnings: part of the image with lattice fringes; width of good pixels, 1 without a
# fixed pattern; part of the pixels beyond the thresholds, and part of these expected by chance;
# fewest pixels.
_STRUCTURED, _WIDE, _MANY, _BY_CHANCE, _FEW = 0.1, 1.25, 0.03, 0.25, 20
# Standard deviations beyond which a single pixel nearly always stands out of noise; hot pixels that
# count so many times as much as good ones are not weak.
_OUT_OF_NOISE, _WEAK = 4.0, 3.0
# Areas that are named in a sentence.
_FEW_AREAS = 5


def doubts_of_counts(counts: SummedCounts) -> list[str]:
    """Return why a movie's sum is doubtful."""
    said = []
    if counts.left_out:
        number = len(counts.left_out)
        some = ", ".join(map(str, counts.left_out[:5])) + (", …" if number > 5 else "")
        frames = f"Frame {some} was" if number == 1 else f"{number} frames ({some}) were"
        said.append(f"{frames} left out of the fit: saturated or damaged, unlike the others.")
    if counts.pedestal_is_unknown:
        said.append(
            "The frames seem to have a pedestal (counts without electrons) that could not be "
            "measured: give it, or subtract a dark reference."
        )
    borders = [area for area in counts.areas if area.is_border]
    for is_certain, done in (
        (True, "They were replaced"),
        (False, "The filter may find only part of these pixels"),
    ):
        lines = [border for border in borders if border.is_certain == is_certain]
        if lines:
            named = ", ".join(f"{line.name} ({line.level:.2g} times)" for line in lines)
            said.append(
                f"The border has another level than the image: {named}. {done}: name them as "
                "defects, or crop them."
            )
    if replaced := [area for area in counts.areas if area.is_certain and not area.is_border]:
        said.append(
            f"Wider than a line, {_named(replaced)}: a defect of the camera, since the edges are "
            "sharp; replaced as known defects are, which brings no detail back. Name such areas as "
            "defects."
        )
    if left := [area for area in counts.areas if not (area.is_certain or area.is_border)]:
        said.append(
            f"Wider than a line, {_named(left)}: a defect of the camera, or the shadow or picture "
            "of something; left as it is. If it is a defect, name it as one."
        )
    total = counts.total
    if total[0].min() == total[-1].max() and total.min() == total.max():
        said.append("All pixels have the same sum, so that no outlier can be found.")
    return said


def _named(areas: list[Area]) -> str:
    """Return where areas are and what they count."""
    some = [
        f"rows {area.top} to {area.bottom - 1}, columns {area.left} to {area.right - 1} "
        + ("count nothing" if area.level < 0.01 else f"count {area.level:.2g} times as much")
        for area in areas[:_FEW_AREAS]
    ]
    more = [f"{len(areas) - _FEW_AREAS} more areas"] if len(areas) > _FEW_AREAS else []
    return "; ".join(some + more)


def doubts_of_fit(
    counts: SummedCounts, scale: PixelScale, width: float, found: int, by_chance: float
) -> list[str]:
    """Return why a fit is doubtful.

    `width`: of good pixels, 1 for pure counts; `found`: number of outliers; `by_chance`: expected
    number of good pixels among them.
    """
    said = []
    if scale.n_spots >= MANY_SPOTS:
        said.append(
            f"{scale.n_spots} spots are peaks, or bright in a few frames only, as in diffraction "
            "patterns; they were left as they are. The filter is made for images."
        )
    elif scale.n_spots:
        said.append(
            "Spots that are bright in a few frames only, as X-rays and diffraction make them: "
            f"{scale.n_spots}. They were left as they are."
        )
    if scale.structured > _STRUCTURED:
        said.append(
            f"{100 * scale.structured:.0f} % of the image has lattice fringes; they are left as "
            "they are, but weak outliers may be missed there."
        )
    if width > _WIDE:
        said.append(
            f"Good pixels vary {width:.2g} times as much as counts do: a fixed pattern hides "
            "weak outliers. A gain reference takes it away."
        )
    if found > max(_MANY * counts.n_usable, _FEW):
        said.append(
            f"{100 * found / counts.n_usable:.1f} % of the pixels are outliers, more than a "
            "detector has."
        )
    # On the scale of square roots a Poisson count varies by 1/2, whatever its mean (Anscombe).
    typical = max(scale.origin, 1e-9)
    distinct = (typical**0.5 + _OUT_OF_NOISE / 2) ** 2 / typical
    if distinct > _WEAK and found:
        said.append(
            f"The movie has {typical:.2g} electrons per pixel in all: dead pixels, and hot ones "
            f"that count less than {distinct:.2g} times as much as good ones, cannot be "
            "distinguished from noise."
        )
    if found > _FEW and by_chance > _BY_CHANCE * found:
        said.append(
            f"Of {found} pixels beyond the thresholds about {by_chance:.0f} are good ones: the "
            "summed dose is low."
        )
    return said
