"""Normalisation by the stacks acquired before and after: the knock-out moving average (KOMA).

McLeod et al., preprint doi:10.1101/116533, section 5.2: stack i becomes frames - K_i, where K_i is
the mean of the stacks within a radius without stack i, so that no ghost of its specimen is
subtracted from it. Here are the parts that need images only; `napari_mrcz.session` reads stacks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import described, register
from napari_mrcz.correction.options import Option, Options
from napari_mrcz.correction.rolling import finer_than, repeated_step, strips

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Image = npt.NDArray[np.float64]

_CELLS = 16
_LEAST_SPREAD = 0.1
# A frame whose mean, from so many of its pixels, is within this fraction of the stack's is not
# scaled.
_ALIKE, _SAMPLE = 0.1, 2**20
# Pixels worked on at a time, so that intermediate results stay in a cache.
_STRIP = 2**15
# Share of a thumbnail's cells that are above 0 where there is a dose; of a background about 0, half
# are.
_WITH_DOSE = 0.9
# Contrast at low resolution of carbon and crystals, and the least one of thin ones, which is twice
# that of the stacks of least contrast: ice has 0.02 to 0.06. Share of the stacks in averages that
# may have it, and the fewest stacks that are judged.
_HIGH_CONTRAST, _NOT_LOW, _QUIET, _SOME, _FEWEST = 0.08, 0.05, 0.15, 0.1, 3


@dataclass(frozen=True)
class KomaOptions(Options):
    """The mean of the stacks before and after is subtracted."""

    radius: Annotated[
        int,
        Option(
            "Radius",
            "Stacks averaged to either side",
            least=1,
            most=10**6,
            flag="--koma",
            advice="12 or more for sessions of 25 movies and more; a smaller one leaves more noise",
        ),
    ] = 12
    keep_mean: Annotated[
        bool,
        Option(
            "Keep mean",
            "Add the mean of what is subtracted back: counts stay counts",
            advice="Leave it",
        ),
    ] = True
    limit: Annotated[
        float,
        Option(
            "Contrast limit",
            "Contrast beyond which a stack (carbon, ice) enters no average",
            unit="robust standard deviations",
            above=0,
            most=math.inf,
            advice="Lower it where carbon is averaged, raise it where good movies are left out",
        ),
    ] = 5.0
    length: Annotated[
        int,
        Option(
            "Length",
            "Size up to which structure is subtracted",
            unit="pixels",
            least=0,
            most=10**5,
            unset="any size",
            advice="32 where a warning says that something is at the same place in every image",
        ),
    ] = 0
    even_if_worse: Annotated[
        bool,
        Option(
            "Even if worse",
            "Normalise stacks even if their correlated noise R rises by it",
            advice="Leave it, but to see what would happen",
        ),
    ] = False

    def sentences(self) -> list[str]:
        """Describe these options to a person."""
        kept = "; its level is added back" if self.keep_mean else ""
        said = [
            f"The mean of {self.radius} stacks before and {self.radius} after is subtracted{kept}; "
            f"stacks whose contrast exceeds {self.limit:g} robust standard deviations enter none."
        ]
        if self.length:
            said.append(f"Only what is finer than {self.length} pixels is subtracted.")
        if self.even_if_worse:
            said.append("It is subtracted even where the correlated noise R rises by it.")
        return said


@register
@dataclass(frozen=True, eq=False)
class KomaNormalization:
    """Subtract the mean of the neighbouring stacks. Usually made by `Koma`.

    The average is noisy itself: as the mean of m frames, it leaves a correlated noise of at least
    1/m between the frames. Where that is more than it takes away, the frames stay as they are
    (`applied`).

    Parameters
    ----------
    average : array_like, shape (y, x), or None
        K_i, the mean frame of the neighbours; kept as float32. None only where it is not applied.
    level : float
        Mean that is added back, so that counts stay counts, or 0.
    index : int
        Place of the stack in the session.
    neighbours : tuple of str
        The stacks averaged, by name, for the history.
    order : str
        How the order of acquisition is known, for the history.
    scale : float
        Factor on the average: the mean of the stack over that of the average.
    by_dose : bool
        Whether the average is scaled to the mean of each frame that differs from the stack's (a
        blank one, a dose that falls).
    options : KomaOptions, optional
        How the average was chosen, for the history.
    helps : bool
        Whether the correlated noise falls by it. If not, frames stay as they are, unless the
        options say `even_if_worse`.
    noise : tuple of float, optional
        Correlated noise R before and after, as expected from the sums; None if not known.
    step : float
        Height of the steps of structure at the same place in every image, as a fraction of the
        mean; 0 where there is none.
    warnings : tuple of str
        Findings that a person should know; empty if all is well.
    """

    title: ClassVar[str] = "Normalised by KOMA"
    table_options: ClassVar[type] = KomaOptions

    average: npt.NDArray[np.float32] | None
    level: float
    index: int = 0
    neighbours: tuple[str, ...] = ()
    order: str = ""
    scale: float = 1.0
    by_dose: bool = False
    options: KomaOptions | None = None
    helps: bool = True
    noise: tuple[float, float] | None = None
    step: float = 0.0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take a copy."""
        if self.average is not None:
            average = np.array(self.average, np.float32, order="C")
            if average.ndim != 2:
                raise ValueError(f"an average has two axes, not the shape {average.shape}")
            average.flags.writeable = False
            object.__setattr__(self, "average", average)
        elif self.applied:
            raise ValueError("a normalisation that is applied needs an average")
        object.__setattr__(self, "level", float(self.level))
        for name in ("neighbours", "noise", "warnings"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))

    def __call__(self, frame: npt.NDArray[Any], index: int = 0) -> npt.NDArray[Any]:
        """Return a frame (y, x) of the stack, normalised, in float32; itself if not `applied`.

        `index` is not used: all frames are treated alike.
        """
        if not self.applied:
            return frame
        deviation = self._deviation
        if frame.shape != deviation.shape:
            raise ValueError(f"an average of {deviation.shape} for a frame of {frame.shape}")
        if self.by_dose and (share := self._share(frame)) is not None:
            deviation = deviation * np.float32(share)
        with np.errstate(invalid="ignore"):  # inf less inf is NaN
            return np.subtract(frame, deviation, dtype=np.float32, casting="same_kind")

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the pixel type after the correction: float32, or the same if not applied."""
        return np.dtype(np.float32 if self.applied else dtype)

    @property
    def applied(self) -> bool:
        """Whether anything is subtracted."""
        return self.helps or (self.options is not None and self.options.even_if_worse)

    @cached_property
    def _deviation(self) -> npt.NDArray[np.float32]:
        average = np.zeros((1, 1), np.float32) if self.average is None else self.average
        deviation = average * np.float32(self.scale) - np.float32(self.level)
        return deviation.astype(np.float32, copy=False)

    @cached_property
    def _mean(self) -> float:
        return 0.0 if self.average is None else self.scale * level_of(self.average)

    def _share(self, frame: npt.NDArray[Any]) -> float | None:
        """Return a frame's mean over the stack's, None if they are alike."""
        some = frame[:: max(1, frame.size // _SAMPLE)]
        mean = float(some.mean(dtype=np.float64))
        if not math.isfinite(mean):
            mean = level_of(some)
        share = max(mean / self._mean, 0.0)
        return None if abs(share - 1) <= _ALIKE else share

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to do it again, the average itself included."""
        return described(
            self,
            average=self.average if self.applied else None,
            level=self.level,
            index=self.index,
            neighbours=list(self.neighbours),
            **({"order": self.order} if self.order else {}),
            scale=self.scale,
            by_dose=self.by_dose,
            **({} if self.options is None else asdict(self.options)),
            helps=self.helps,
            noise=None if self.noise is None else list(self.noise),
            step=self.step,
            warnings=list(self.warnings),
        )

    @staticmethod
    def said(step: Mapping[str, Any]) -> str:
        """Return what a described normalisation subtracted."""
        others = f"the mean of {len(step['neighbours'])} other stacks"
        if not (step.get("helps", True) or step.get("even_if_worse")):
            return f"unchanged: {others} is noisier than the pattern"
        finer = f", finer than {step['length']} pixels" if step.get("length") else ""
        return f"less {others}{finer}"

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""
        own, chosen = (
            {f.name: description[f.name] for f in fields(kind) if f.name in description}
            for kind in (cls, KomaOptions)
        )
        return cls(**own, options=KomaOptions(**chosen) if chosen else None)


def normalisation(
    average: Image,
    total: npt.NDArray[Any],
    n_frames: int,
    variance: float,
    options: KomaOptions,
    *,
    index: int = 0,
    neighbours: Sequence[str] = (),
    order: str = "",
    doubts: Sequence[str] = (),
) -> KomaNormalization:
    """Make the correction of a stack from the average of its neighbours and its own sum.

    The average is scaled to the stack's own mean. The correlated noise falls if var K < 2 cov(M, K)
    for the stack's mean frame M and the scaled average K: that decides whether it is applied.

    `average` (y, x): mean frame of the neighbours; `total` (y, x): sum of the stack's frames;
    `variance`: Σ var x_t of the stack; `index`, `neighbours`, `order`: see `KomaNormalization`;
    `doubts`: warnings of the session.
    """
    small, of_average = thumbnail(total), thumbnail(average)
    by_dose = has_dose(small) and has_dose(of_average)
    step = repeated_step(average) if by_dose and not options.length else 0.0
    if options.length:
        average = finer_than(average, options.length)
    about = level_of(small), level_of(of_average)
    own, mean, var_s, var_k, cov_sk = _moments(total, average, about)
    scale = own / n_frames / mean if by_dose else 1.0
    change = scale**2 * var_k - 2 * scale * cov_sk / n_frames
    noise = _noise(var_s, variance, n_frames, change)
    made = KomaNormalization(
        average.astype(np.float32),
        scale * level_of(average) if options.keep_mean else 0.0,
        index,
        tuple(neighbours),
        order,
        scale=scale,
        by_dose=by_dose,
        options=options,
        helps=not change >= 0,  # also where pixels are not numbers and nothing is known
        noise=noise,
        step=step,
    )
    warnings = list(doubts)
    if len(neighbours) < 2 * options.radius and made.applied:
        warnings.append(too_few(len(neighbours), options.radius))
    if step and made.applied:
        warnings.append(repeated_text(step))
    unknown = average.size - int(np.count_nonzero(np.isfinite(average)))
    if unknown and made.applied:
        warnings.append(
            f"pixels of the average of neighbours that are not finite become NaN: {unknown}. "
            "Replace them in all stacks first (OutlierFilter)"
        )
    if not made.helps:
        warnings.append(_worse(noise, len(neighbours), applied=made.applied))
    return replace(made, warnings=tuple(warnings))


def _noise(
    of_sum: float, variance: float, n_frames: int, change: float
) -> tuple[float, float] | None:
    """Return R before and after, from var S, Σ var x_t, and the change of the covariance."""
    if n_frames < 2 or not variance > 0 or not math.isfinite(change):
        return None
    covariance = (of_sum - variance) / (n_frames * (n_frames - 1))
    mean = variance / n_frames
    if not mean + change > 0:
        return None
    return covariance / mean, (covariance + change) / (mean + change)


def _worse(noise: tuple[float, float] | None, n_neighbours: int, *, applied: bool) -> str:
    of = "" if noise is None else f" from {noise[0]:.2g} to {noise[1]:.2g}"
    others = "1 other stack" if n_neighbours == 1 else f"{n_neighbours} other stacks"
    raises = f"raises the correlated noise R{of}"
    if not applied:
        raises = f"would raise the correlated noise R{of}, and is not applied"
    return (
        f"KOMA {raises}: the average of {others} is noisier than what the frames have in common. "
        "More stacks or a wider radius bring less noise"
        + ("" if applied else " (even_if_worse applies it all the same)")
    )


def too_few(n_others: int, radius: int) -> str:
    """Return the warning that there are fewer other stacks than a radius takes."""
    return (
        f"KOMA with {n_others} of the {2 * radius} other stacks that a radius of {radius} takes: "
        "the fewer, the noisier their mean. Add movies of the session if there are more"
    )


def repeated_text(step: float) -> str:
    """Return the warning that structure is subtracted with an average."""
    return (
        f"structure at the same place in every image, with steps of {step:.0%} of the mean (a "
        "hole's edge, a beam stop, or joints of the camera), is subtracted with the average. With "
        "a length below its size, such as 32 pixels, only what is finer is subtracted"
    )


def _moments(
    total: npt.NDArray[Any], average: Image, about: tuple[float, float]
) -> tuple[float, float, float, float, float]:
    """Return means of both images, their variances and their covariance, over finite pixels.

    Deviations are from the typical values `about`, so that their products lose no digits.
    """
    n = 0
    sums = np.zeros(5)
    for rows in strips(average, _STRIP):
        x = np.subtract(total[rows], about[0], dtype=np.float64).reshape(-1)
        y = np.subtract(average[rows], about[1]).reshape(-1)
        # Not BLAS, which has threads of its own; and no products that would be held.
        found = [x.sum(), y.sum(), *(np.einsum("i,i", u, v) for u, v in ((x, x), (y, y), (x, y)))]
        size = x.size
        if not np.isfinite(found).all():
            finite = np.isfinite(x) & np.isfinite(y)
            x, y, size = x[finite], y[finite], int(finite.sum())
            found = [x.sum(), y.sum(), x @ x, y @ y, x @ y]
        sums += found
        n += size
    if not n:
        return (math.nan,) * 5
    first = sums / n
    return (
        float(about[0] + first[0]),
        float(about[1] + first[1]),
        float(first[2] - first[0] ** 2),
        float(first[3] - first[1] ** 2),
        float(first[4] - first[0] * first[1]),
    )


def has_dose(thumbnail: npt.NDArray[np.float64]) -> bool:
    """Return whether a thumbnail is of counts: of a background about 0, half of it is below."""
    cells = thumbnail[np.isfinite(thumbnail)]
    return bool(cells.size and cells.mean() > 0 and (cells >= 0).mean() >= _WITH_DOSE)


def level_of(average: npt.NDArray[Any]) -> float:
    """Return the mean of the finite pixels, 0 if there are none."""
    finite = np.isfinite(average)
    if finite.all():
        return float(average.mean(dtype=np.float64))
    return float(average[finite].mean(dtype=np.float64)) if finite.any() else 0.0


def thumbnail(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the means of 16 x 16 cells of an image, fewer where it has fewer pixels."""
    starts = [np.arange(min(_CELLS, size)) * size // min(_CELLS, size) for size in image.shape]
    with np.errstate(invalid="ignore"):  # inf and -inf have no mean: NaN says so
        bands = [
            image[top:bottom].sum(axis=0, dtype=np.float64)
            for top, bottom in pairwise([*starts[0], len(image)])
        ]
        means: npt.NDArray[np.float64] = np.add.reduceat(bands, starts[1], axis=1)
    rows, columns = (np.diff(at, append=size) for at, size in zip(starts, image.shape, strict=True))
    means /= np.outer(rows, columns)
    return means


def contrast_scores(
    thumbnails: Sequence[npt.NDArray[Any]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return contrasts and scores (n,) of micrographs: high ones must not enter an average.

    Carbon film and crystalline ice are seen at low resolution: the contrast of a micrograph is
    the standard deviation of its thumbnail from the session's median one (which has the camera's
    pattern), as a fraction of the mean where there is a dose. Its score is the distance of
    log(contrast) from the session's median in robust standard deviations (of at least 0.1, i.e. a
    tenth of the contrast): below 3 for good micrographs, 10 and more for carbon and crystals. Where
    most micrographs are of high contrast, their scores are low: see `contrast_doubt`.
    """
    contrasts, _ = _contrasts(thumbnails)
    if not contrasts.any():
        return contrasts, np.zeros(len(contrasts))
    # A stack without any contrast is not an outlier on the high side; its logarithm has no use.
    logarithms = np.log(np.maximum(contrasts, 1e-9))
    distances = logarithms - np.median(logarithms)
    spread = max(1.4826 * float(np.median(np.abs(distances))), _LEAST_SPREAD)
    return contrasts, distances / spread


def contrast_doubt(
    thumbnails: Sequence[npt.NDArray[Any]], noises: Sequence[float] | None = None
) -> str:
    """Return a warning if micrographs of high contrast enter averages, "" if none do.

    Scores compare micrographs with the session's usual one, which is carbon where half of them are
    carbon, or nearly. So this goes by the contrast itself.

    `thumbnails` (y, x): of those that enter averages; `noises`: contribution of shot noise to the
    contrast of each.
    """
    contrasts, is_relative = _contrasts(thumbnails)
    if len(contrasts) < _FEWEST or not is_relative:
        return ""
    noise = np.zeros(len(contrasts)) if noises is None else np.asarray(noises)
    contrasts = np.sqrt(np.maximum(contrasts**2 - noise**2, 0))
    # Where only some are of high contrast, the others show the usual one.
    usual = 2 * float(np.quantile(contrasts, _QUIET))
    least = min(_HIGH_CONTRAST, max(_NOT_LOW, usual))
    high = contrasts[contrasts > np.maximum(least, noise)]
    if not high.size or high.size < _SOME * contrasts.size:
        return ""
    return (
        f"{high.size} of the {contrasts.size} stacks that enter averages have a high contrast at "
        f"low resolution ({np.median(high):.0%}), as of carbon or crystals, and leave their image "
        "in others. Where half of a session is like that, it cannot be distinguished from good "
        "micrographs: leave out what should not be averaged (exclude, or a lower limit)"
    )


def _contrasts(thumbnails: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float64], bool]:
    """Return the contrasts of micrographs, and whether they are fractions of the mean."""
    if not thumbnails:
        return np.zeros(0), False
    cells = np.stack([np.ravel(image) for image in thumbnails]).astype(np.float64)
    cells = cells[:, np.isfinite(cells).all(axis=0)]
    if not cells.size:
        return np.zeros(len(cells)), False
    means = cells.mean(axis=1, keepdims=True)
    # Frames from which a background was subtracted have no mean to compare with, nor has a single
    # blank stack among others: most of them decide.
    is_relative = bool((means > cells.std(axis=1, keepdims=True)).mean() > 0.5)
    if is_relative:
        cells /= np.where(means > 0, means, 1)
    return (cells - np.median(cells, axis=0)).std(axis=1), is_relative


def noise_by_radius(
    covariances: npt.NDArray[np.float64],
    variances: npt.NDArray[np.float64],
    n_frames: npt.NDArray[np.intp],
    radii: Sequence[int],
    levels: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Compute the correlated noise after KOMA for many radii (fig. 12), without touching a pixel.

    With x_t the frames of stack i, S their sum and K its average, the mean covariance of two
    frames of x_t - K is (var S - Σ var x_t)/(n(n - 1)) - 2 cov(S, K)/n + var K, their mean
    variance (Σ var x_t - 2 cov(S, K))/n + var K, and K is a sum of sums. R is the ratio of the
    two: equal to the mean Pearson R (eq. 7) where the frames of a stack vary alike.

    `covariances` (m, m): between the sums of m stacks, in order of acquisition; all enter averages;
    `variances` (m,): Σ var x_t of each stack; `radii`: 0 for no normalisation; `levels` (m,): mean
    of each stack's mean frame, to which averages are scaled; NaN where there is none. The result is
    (radii, m): NaN for stacks of one frame, and of frames without any variance.
    """
    m = len(n_frames)
    n = n_frames.astype(np.float64)
    levels = np.full(m, np.nan) if levels is None else levels
    known = np.isfinite(levels)
    # Sums over windows are differences of running sums: along rows, and of squares of the matrix.
    # About its mean, so that the differences lose no digits.
    about = float(covariances.mean()) if m else 0.0
    rows = np.zeros((m + 1, m))
    np.cumsum(covariances - about, axis=0, out=rows[1:])
    squares = np.zeros((m + 1, m + 1))
    np.cumsum(rows, axis=1, out=squares[:, 1:])
    frames = np.append(0, np.cumsum(n))
    doses = np.append(0, np.cumsum(np.where(known, n * levels, 0)))
    without_level = np.append(0, np.cumsum(~known))
    own, at = np.diagonal(covariances), np.arange(m)
    measured = (n > 1) & (variances > 0)
    covariance = (own - variances) / np.maximum(n * (n - 1), 1)  # between the frames of a stack
    result = np.full((len(radii), m), np.nan)
    for row, radius in enumerate(radii):
        change = np.zeros(m)
        size = min(2 * radius + 1, m)
        if size > 1:
            # As `rolling.neighbours_of`: at the ends the window shifts.
            first = np.clip(at - radius, 0, m - size)
            last = first + size
            others = frames[last] - frames[first] - n
            with np.errstate(invalid="ignore", divide="ignore"):
                level = (doses[last] - doses[first] - np.where(known, n * levels, 0)) / others
                scale = levels / level
            in_window = without_level[last] - without_level[first]
            scale = np.where((in_window == 0) & (level > 0) & np.isfinite(scale), scale, 1.0)
            cov_sw = rows[last, at] - rows[first, at] + size * about
            var_w = (
                squares[last, last] - squares[first, last]
                - squares[last, first] + squares[first, first] + size**2 * about
            )  # fmt: skip
            # Of the window without the stack itself.
            cov_sk = (cov_sw - own) * scale / others
            var_k = (var_w - 2 * cov_sw + own) * (scale / others) ** 2
            change = var_k - 2 * cov_sk / n
        mean = variances / n + change
        valid = measured & np.isfinite(change) & (mean > 0)
        result[row, valid] = (covariance + change)[valid] / mean[valid]
    return result
