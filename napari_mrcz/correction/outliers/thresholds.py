"""The distribution of good pixels, the thresholds where it ends, and the weights that follow.

A normal distribution is fitted to the histogram's cumulative sum (preprint doi:10.1101/116533,
eqs. 1 to 4). On the scale of the Poisson model, where good pixels would be standard normal if
counting noise was all there is, the same fit is Efron's empirical null (2004,
doi:10.1198/016214504000000089): it takes up what else there is.

Two rules set the thresholds. The preprint's (eq. 5) finds where the tails of the histogram start to
leave the model. The other one counts mistakes: the model predicts the number of good pixels beyond
a threshold, the rest of the histogram are outliers. Where outliers found less good pixels lost is
largest, the fewest pixels are mistaken: beyond it a pixel is more likely an outlier than not (a
local false discovery rate of 1/2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.options import Option, Options
from napari_mrcz.correction.outliers.fill import FILLS, Replacement, expected_counts, in_parts
from napari_mrcz.correction.outliers.levels import FrameLevels
from napari_mrcz.correction.outliers.scale import codes_outside
from napari_mrcz.correction.sums import PackedSum

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts
    from napari_mrcz.correction.outliers.scale import Codes, Indices, PixelScale

# The preprint's, for stacks without tails.
_DEFAULT_DARK, _DEFAULT_HOT = -4.0, 3.25
# Nearer to the centre than this a histogram does not show single outliers.
_NEAREST = 3.0
# Standard deviations up to which pixels are so many that their codes are not kept.
_MANY = 1.9
# Fewest edges of a tail, and points of it that are enough.
_FEWEST, _TAIL_POINTS = 5, 256
# Probability above which all pixels between two thresholds may be good ones.
_BY_CHANCE = 0.2

Values = npt.NDArray[np.float64]

_NONE = np.empty(0, np.uint32), np.empty(0, np.uint16)


class Thresholds(NamedTuple):
    """Thresholds in standard deviations, and their origin if not the histogram.

    Parameters
    ----------
    dark, hot : float
        A pixel below `dark` or above `hot` is an outlier.
    dark_is_default, hot_is_default : bool
        Whether the histogram had no such tail.
    dark_is_given, hot_is_given : bool
        Whether the user has set it.
    """

    dark: float
    hot: float
    dark_is_default: bool = False
    hot_is_default: bool = False
    dark_is_given: bool = False
    hot_is_given: bool = False


@dataclass(frozen=True)
class TailFit:
    """A line through the residual of one tail: residual = slope · sigma + offset (eq. 5).

    Parameters
    ----------
    slope, offset : float
        Of the line.
    sigma : tuple of float
        Range of the fit.
    """

    slope: float
    offset: float
    sigma: tuple[float, float]

    @property
    def intercept(self) -> float:
        """The beginning of the tail: the zero of the line."""
        return -self.offset / self.slope if self.slope else np.nan


def fit_tails(fit: DistributionFit, limit: float) -> tuple[TailFit | None, TailFit | None]:
    """Fit lines to the dark and the hot tail's residual, where it exceeds `limit`.

    *Both* sides have |residual| > limit; the preprint's eq. 5 distinguishes them by its sign, here
    the side of the centre does. None for fewer than five edges.
    """
    residual = fit.residual
    far = np.isfinite(residual) & (np.abs(residual) > limit)
    tails = (far & (fit.sigma < 0), far & (fit.sigma > 0))
    dark, hot = (
        _fit_tail(fit.sigma[tail], residual[tail]) if np.count_nonzero(tail) >= _FEWEST else None
        for tail in tails
    )
    return dark, hot


def intercepts(dark: TailFit | None, hot: TailFit | None) -> Thresholds:
    """Return the preprint's thresholds: where the tails' lines reach zero (eq. 5).

    A line that does so on the wrong side of the centre counts as missing.
    """
    t_dark = dark.intercept if dark is not None else np.nan
    t_hot = hot.intercept if hot is not None else np.nan
    no_dark, no_hot = not -np.inf < t_dark < 0, not 0 < t_hot < np.inf
    return Thresholds(
        _DEFAULT_DARK if no_dark else t_dark, _DEFAULT_HOT if no_hot else t_hot, no_dark, no_hot
    )


def fewest_mistakes(fit: DistributionFit) -> Thresholds:
    """Return the thresholds that mistake the fewest pixels.

    Of those that differ by less than half the standard error of the pixels between them, the
    farthest are taken. Where not significantly more outliers are found than good pixels lost, half
    a good pixel is expected beyond the default, which is at 4 sigma at least.
    """
    below = fit.cdf * fit.n_pixels
    default = max(4.0, float(-scipy.special.ndtri(0.5 / fit.n_pixels)))
    dark, no_dark = _fewest(-fit.sigma, below, fit.n_pixels, default)
    hot, no_hot = _fewest(fit.sigma, fit.n_pixels - below, fit.n_pixels, default)
    return Thresholds(-dark, hot, no_dark, no_hot)


def weight(sigma: Values, thresholds: Thresholds, order: float, relaxation: float) -> Values:
    """Return the share of a pixel's own value that is kept, 0 to 1 (eq. 6).

    `sigma`: the pixel's distance from the centre in standard deviations; `order`: steepness k of
    the logistic functions; `relaxation`: factor ρ on the thresholds at which the weight is 1/2.
    """
    above_dark = scipy.special.expit(order * (sigma - relaxation * thresholds.dark))
    below_hot = scipy.special.expit(-order * (sigma - relaxation * thresholds.hot))
    return above_dark * below_hot


def _fit_tail(sigma: Values, residual: Values) -> TailFit:
    """Fit a line by least absolute deviations.

    It passes through two of the points: the best of the best lines through each point.
    """
    # At many electrons the edges are denser than needed.
    step = -(-len(sigma) // _TAIL_POINTS)
    sigma, residual = sigma[::step], residual[::step]
    apart = sigma - sigma[:, None]
    slopes = (residual - residual[:, None]) / np.where(apart == 0, np.inf, apart)
    order = np.argsort(slopes, axis=1)
    # The median of the slopes, weighted by the distances, is the best through each point.
    cumulated = np.cumsum(np.take_along_axis(np.abs(apart), order, axis=1), axis=1)
    middle = (cumulated < cumulated[:, -1:] / 2).sum(axis=1)
    through = np.arange(len(sigma))
    slope = slopes[through, order[through, middle]]
    offset = residual - slope * sigma
    best = np.abs(residual - slope[:, None] * sigma - offset[:, None]).sum(axis=1).argmin()
    ends = float(sigma.min()), float(sigma.max())
    return TailFit(float(slope[best]), float(offset[best]), ends)


def _fewest(distance: Values, beyond: Values, n_pixels: int, default: float) -> tuple[float, bool]:
    """Return the distance, of those given, that mistakes the fewest pixels."""
    order = np.argsort(distance)
    order = order[distance[order] > _NEAREST]
    distance, beyond = distance[order], beyond[order]
    # Outliers found (beyond less the good ones) less good pixels lost.
    lost = n_pixels * scipy.special.ndtr(-distance)
    gained = beyond - 2 * lost
    if not gained.size:
        return default, True
    best = int(gained.argmax())
    if gained[best] <= np.sqrt(beyond[best]):
        return default, True
    # A farther threshold is as good if the pixels between are no more than chance explains, or if
    # they may all be good ones.
    more, good = np.maximum(beyond[best] - beyond, 0), np.maximum(lost[best] - lost, 1e-12)
    as_good = gained >= gained[best] - np.sqrt(more) / 2
    as_good |= scipy.special.pdtrc(more - 1, good) > _BY_CHANCE
    as_good &= (gained > 0) & (distance >= distance[best])
    as_good[best] = True
    return float(distance[as_good].max()), False


@dataclass(frozen=True, eq=False)
class DistributionFit:
    """A histogram, the model fitted to it, and their residual: all that a plot needs.

    Everything but `histogram` and `expected` is at the edges between the histogram's bins, where
    a cumulative sum is known exactly.

    Parameters
    ----------
    dose : ndarray, shape (m,)
        The edges in electrons per pixel of the summed stack.
    histogram : ndarray of int64, shape (m - 1,)
        Pixels between the edges.
    cdf : ndarray, shape (m,)
        Fraction of the pixels below each edge.
    center, width : float
        Of the fitted normal distribution, on the model's own scale.
    sigma : ndarray, shape (m,)
        The edges in standard deviations of the model (eq. 3, without its stray √2).
    n_pixels : int
        All pixels, also those before the first edge or after the last one.
    """

    dose: Values
    histogram: npt.NDArray[np.int64]
    cdf: Values
    center: float
    width: float
    sigma: Values
    n_pixels: int

    @classmethod
    def of(cls, scale: PixelScale) -> DistributionFit:
        """Fit the model to the places of pixels."""
        counted = np.zeros_like(scale.n_pixels)
        counted[scale.counted] = scale.n_pixels[scale.counted]
        code, number = scale.empty
        counted[code] -= number
        n_pixels = int(counted.sum())
        below = np.concatenate([[0], np.cumsum(counted)])[scale.edges]
        cdf = below / max(1, n_pixels)
        # Half a step below the code that follows.
        places = (scale.places[scale.edges - 1] + scale.places[scale.edges]) / 2
        center, width = fit_normal_cdf(places, cdf, scale.start)
        return cls(
            scale.dose, np.diff(below), cdf, center, width, (places - center) / width, n_pixels
        )

    @property
    def expected(self) -> Values:
        """Pixels between the edges according to the model, (m - 1,)."""
        return np.diff(self.model_cdf) * self.n_pixels

    @property
    def model_cdf(self) -> Values:
        """The model's cumulative distribution, (m,) (eq. 1)."""
        return scipy.special.ndtr(self.sigma)

    @property
    def sigma_of_histogram(self) -> Values:
        """The histogram's cumulative sum in standard deviations, (m,); infinite at 0 and 1 (eq. 2).

        √2 erf⁻¹(2 CDF - 1), which is the normal quantile.
        """
        return scipy.special.ndtri(self.cdf)

    @property
    def residual(self) -> Values:
        """Histogram less model in standard deviations, (m,); infinite where that is (eq. 4)."""
        return self.sigma_of_histogram - self.sigma


def fit_normal_cdf(places: Values, cdf: Values, start: tuple[float, float]) -> tuple[float, float]:
    """Fit a normal distribution to a cumulative one by least absolute deviations (eq. 1).

    `cdf` (m,): its values at `places` (m,), 0 to 1; `start`: centre and standard deviation to start
    from, which are returned if fewer than three places lie within the distribution. Returned are
    `center`, `width`.
    """
    inside = (cdf > 1e-3) & (cdf < 1 - 1e-3)
    if np.count_nonzero(inside) < 3:
        return start
    middle, scale = start
    if cdf[0] < 0.1587 and cdf[-1] > 0.8413:
        low, middle, high = np.interp([0.1587, 0.5, 0.8413], cdf, places)
        scale = max((high - low) / 2, start[1] / 10)
    near = np.abs(places - middle) <= 8 * max(scale, start[1])
    x, y = places[near], cdf[near]

    def deviation(parameters: Values) -> float:
        center, width = parameters[0] * scale + middle, parameters[1] * scale
        return float(np.abs(scipy.special.ndtr((x - center) / width) - y).sum())

    # From the quantiles where they are known, which are nearer than the mean and its square root.
    # Absolute deviations have kinks, at which methods that follow a gradient (L-BFGS-B in the
    # preprint) stop a thousandth short.
    fit = scipy.optimize.minimize(
        deviation,
        [0.0, 1.0],
        method="Nelder-Mead",
        bounds=[(-2, 2), (0.2, 5)],
        options={"initial_simplex": [[0, 1], [0.1, 1], [0, 1.1]], "xatol": 1e-6, "fatol": 1e-9},
    )
    return float(fit.x[0] * scale + middle), float(fit.x[1] * scale)


MODELS = {"poisson": "Poisson, local background", "normal": "Gaussian, global (preprint)"}


def _threshold(side: str, **limits: Any) -> Option:
    """Declare a threshold that a person has set."""
    return Option(
        f"{side} threshold",
        f"Threshold of {side.lower()} pixels",
        unit="standard deviations",
        unset="that of each fit",
        advice="Leave it at 0; a recipe made of a history has the threshold that you dragged",
        **limits,
    )


@dataclass(frozen=True)
class OutlierOptions(Options):
    """How outliers are found and replaced; see `OutlierFilter.fit`."""

    model: Annotated[
        str,
        Option(
            "Model",
            "Distribution of good pixels",
            choices=MODELS,
            advice="Leave it: the preprint's takes good pixels for outliers where doses are low",
        ),
    ] = "poisson"
    order: Annotated[
        float,
        Option(
            "Steepness k",
            "Steepness of the weights at the thresholds",
            above=0,
            most=1000,
            step=0.5,
            advice="Leave it: at 6 a pixel goes from kept to replaced within 1 σ",
        ),
    ] = 6.0
    relaxation: Annotated[
        float,
        Option(
            "Threshold factor ρ",
            "Factor on the thresholds at which a pixel keeps half of its own value",
            above=0,
            most=1000,
            step=0.05,
            advice="Leave it, and move the thresholds: at 1 fewer pixels are replaced, at 0.9 more",
        ),
    ] = 0.95
    limit: Annotated[
        float,
        Option(
            "Tail-fit start",
            "Residual from which a tail is fitted",
            unit="standard deviations",
            above=0,
            most=1000,
            step=0.1,
            only_with=("model", "normal"),
            advice="Leave it",
        ),
    ] = 0.5
    fill: Annotated[
        str,
        Option(
            "Fill",
            "Values that replace outliers",
            choices=FILLS,
            advice="Leave it: counts stay whole numbers, and no two frames share their noise",
        ),
    ] = "sample"
    tolerance: Annotated[
        float,
        Option(
            "Tolerance",
            "Distance from 1 at which a weight counts as 1",
            least=0,
            most=0.999,
            step=0.001,
            advice="Leave it: it decides which pixels near a threshold keep all their bits",
        ),
    ] = 1e-3
    seed: Annotated[
        int,
        Option(
            "Seed",
            "Seed of the random counts",
            least=0,
            most=2**63 - 1,
            advice="Any other number shows how much depends on the draw",
        ),
    ] = 0
    counts_per_electron: Annotated[
        float | None,
        Option(
            "Counts per electron",
            "Counts that one electron adds",
            above=0,
            unset="measured",
            flag="--counts-per-electron",
            advice="Give it where you know it, or a warning says that it is uncertain",
        ),
    ] = None
    pedestal: Annotated[
        float | None,
        Option(
            "Pedestal",
            "Counts of a pixel without electrons in one frame",
            step=0.1,
            unset="measured",
            flag="--pedestal",
            advice="Give it where the camera adds a constant that a warning names",
        ),
    ] = None


@dataclass(frozen=True)
class OutlierStep(OutlierOptions):
    """Hot and dark pixels are replaced."""

    defects: Annotated[
        str,
        Option(
            "Defects",
            "Pixels known to be defective: list of SerialEM, RELION or MotionCor, or a map",
            unset="none",
            is_file=True,
            flag="--defects",
            advice="Give the camera's list if you have one: its pixels are replaced at any dose",
        ),
    ] = ""
    dark_threshold: Annotated[float, _threshold("Dark", most=0)] = 0.0
    hot_threshold: Annotated[float, _threshold("Hot", least=0)] = 0.0

    def sentences(self) -> list[str]:
        """Describe these options to a person."""
        drawn = "drawn from the expected counts" if self.fill == "sample" else "the expectation"
        known = f", and the defects of {self.defects}" if self.defects else ""
        said = [
            f"Hot and dark pixels, by the {self.model} model{known}, are replaced by values {drawn}"
            f" of their neighbours (steepness {self.order:g}, relaxation {self.relaxation:g})."
        ]
        given = {"dark": self.dark_threshold, "hot": self.hot_threshold}
        if sides := [f"{side} at {sigma:g} σ" for side, sigma in given.items() if sigma]:
            said.append(f"Thresholds are not those of each fit: {', '.join(sides)}.")
        if self.counts_per_electron is not None:
            said.append(f"One electron adds {self.counts_per_electron:g} counts.")
        if self.pedestal is not None:
            said.append(f"Pixels without electrons have {self.pedestal:g} counts in each frame.")
        return said


@dataclass(eq=False)
class FittedPixels:
    """Every pixel's distance from the fitted distribution.

    If it is packed, only the codes of pixels far out are kept once a replacement was made: all
    others are computed anew where they are needed.
    """

    counts: SummedCounts  # The movie's sum, a `PackedSum` if it is packed
    scale: PixelScale  # The pixels' codes, if they are kept
    sigma: Values  # (k,): what each code stands for in standard deviations, ascending
    below: npt.NDArray[np.int64]  # (k + 1,): number of pixels with a lower code
    doubts: list[str]  # Why the sum is doubtful
    near: tuple[int, int] = (-1, -1)  # If packed: codes between which pixels are not far out
    far: tuple[Indices, Codes] = _NONE  # Pixels that are, by flat index, and their codes

    @classmethod
    def of(
        cls, counts: SummedCounts, scale: PixelScale, fit: DistributionFit, doubts: list[str]
    ) -> FittedPixels:
        """Convert the codes of a scale to standard deviations."""
        sigma = (scale.places - fit.center) / fit.width
        below = np.concatenate([[0], np.cumsum(scale.n_pixels)])
        return cls(counts, scale, sigma, below, doubts)

    def pack(self) -> None:
        """Compress the sum, and copy the codes of pixels far out."""
        first, last = np.searchsorted(self.sigma, (-_MANY, _MANY)).tolist()
        self.near, self.far = (first, last), codes_outside(self.scale.codes, first, last)
        packed: Any = PackedSum(self.counts.total)
        self.counts = replace(self.counts, total=packed)

    def numbers(self, thresholds: Thresholds) -> tuple[int, int]:
        """Return the numbers of dark and hot pixels."""
        first, last = self._bounds(thresholds)
        return int(self.below[first]), int(self.below[-1] - self.below[last])

    def mask(self, thresholds: Thresholds) -> npt.NDArray[np.int8]:
        """Mark outliers, (y, x): 1 hot, -1 dark, 2 defect, 0 good."""
        first, last = self._bounds(thresholds)
        if self._are_far(first, last):
            pixels, codes = self.far
            marked = np.zeros(self.counts.shape, np.int8)
            marked.reshape(-1)[pixels[codes < first]] = -1
            marked.reshape(-1)[pixels[codes >= last]] = 1
        else:
            # Kept for a threshold that is dragged on.
            self.scale = scale = replace(self.scale, codes=self.codes())
            marked = scale.sides(first, last)
        marked.reshape(-1)[self.counts.defects] = 2
        return marked

    def codes(self) -> Codes:
        """Return the codes of all pixels, (y, x)."""
        codes: Codes | None = self.scale.codes
        return self.scale.codes_again(self._unpacked()) if codes is None else codes

    def _unpacked(self) -> SummedCounts:
        """Return the sum as an array."""
        total: Any = self.counts.total
        if isinstance(total, PackedSum):
            return replace(self.counts, total=total.unpacked())
        return self.counts

    def replacement(self, thresholds: Thresholds, options: OutlierOptions) -> Replacement:
        """Return the pixels to be replaced, and their weights and expected counts."""
        kept = weight(self.sigma, thresholds, options.order, options.relaxation)
        unchanged = np.flatnonzero(kept >= 1 - options.tolerance)
        first, last = (unchanged[0], unchanged[-1] + 1) if unchanged.size else (0, 0)
        marks = self.mask(thresholds).reshape(-1)
        far, codes = self.far
        if self._are_far(first, last):
            some = (codes < first) | (codes >= last)
            far, codes = far[some], codes[some]
        else:
            far, codes = codes_outside(self.codes(), first, last)
        pixels = far.astype(np.intp)
        if self.near[0] >= 0:
            self.scale = replace(self.scale, codes=None)
        counts = self._unpacked()
        if counts.defects.size:
            codes = codes[marks[pixels] != 2]
            # A bad border has so many pixels that sorting them would take seconds.
            changed = np.zeros(counts.total.size, np.bool_)
            changed[pixels] = changed[counts.defects] = True
            pixels = np.flatnonzero(changed)
        weights = np.zeros(len(pixels), np.uint16)
        weights[marks[pixels] != 2] = in_parts(kept)[codes]
        return Replacement(
            shape=counts.shape,
            pixels=pixels,
            kinds=marks[pixels],
            weights=weights,
            expected=expected_counts(counts, pixels, marks),
            per_electron=counts.per_electron,
            fill=options.fill,
            seed=options.seed,
            levels=FrameLevels.of(counts, pixels[marks[pixels] != 0]),
            pedestal=counts.pedestal,
        )

    def _are_far(self, first: int, last: int) -> bool:
        """Return whether all pixels with codes below `first`, or from `last` on, are far out."""
        return first <= self.near[0] and last >= self.near[1]

    def _bounds(self, thresholds: Thresholds) -> tuple[int, int]:
        """Return the codes between which no outlier lies: dark < first, last <= hot."""
        first = np.searchsorted(self.sigma, thresholds.dark, "left")
        last = np.searchsorted(self.sigma, thresholds.hot, "right")
        return int(first), int(last)
