"""What a session was like: measurements of each movie, and of all together.

Each movie is read for its noise, its outliers and its sum; contrast, cumulative dose and the noise
after KOMA at any radius follow from the sums. How a camera changes by the dose that it has
received: McLeod et al., preprint doi:10.1101/116533, outliers by dose (fig. 7), the correlation of
the sums with the first one (fig. 11), the average outlier map (video 1).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction import OutlierFilter, correlated_noise
from napari_mrcz.correction.koma import KomaOptions, contrast_scores, level_of
from napari_mrcz.errors import collected_warnings
from napari_mrcz.format.files import file_nbytes
from napari_mrcz.format.machine import reported
from napari_mrcz.session.averages import (
    KeptOut,
    doubt_of_contrasts,
    kept_out,
    mean_noise,
    of_other_shapes,
    surveyed_koma,
)
from napari_mrcz.session.correct import Survey, corrected, without_done
from napari_mrcz.session.session import Floats, Progress, Session
from napari_mrcz.session.summaries import StackSum, summarise
from napari_mrcz.session.survey import GIVEN
from napari_mrcz.session.tasks import Outcome, Report, staged
from napari_mrcz.stack import Stack
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_mrcz.session.recipe import Recipe


def cumulative_dose(session: Session, counts_per_electron: float = 1.0) -> Floats:
    """Return the electrons per pixel counted before each stack, (n_stacks,).

    `counts_per_electron`: what one electron adds to a pixel; the header may say it
    (`Stack.description.gain`).
    """
    received = [
        level_of(session.summary(i).thumbnail) * session.summary(i).n_frames
        for i in range(len(session))
    ]
    return np.concatenate([[0.0], np.cumsum(received)[:-1]]) / counts_per_electron


def correlation_with(
    session: Session, index: int = 0, *, progress: Progress | None = None
) -> Floats:
    """Return Pearson's R between the sum of one stack and that of each, (n_stacks,) (fig. 11).

    It falls with the dose between them, as the camera's pixels change; what does not fall is the
    fixed pattern.

    `index`: which stack the others are compared with; `progress`: called with (stacks
    done, stacks); what it raises ends it.
    """
    correlations = np.empty(len(session))
    for i in reported(range(len(session)), len(session), progress):
        c = session.covariances([index, i])
        correlations[i] = c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])
    return correlations


def noise_within(session: Session, *, progress: Progress | None = None) -> Floats:
    """Return the correlated noise among the frames of each stack, (n_stacks,).

    The mean covariance of two frames over their mean variance, from sums alone; equal to the mean
    Pearson R (eq. 7) where the frames of a stack vary alike. NaN for a stack of one frame.

    `progress`: called with (stacks done, stacks); what it raises ends it.
    """
    noise = np.full(len(session), np.nan)
    for i in reported(range(len(session)), len(session), progress):
        summary = session.summary(i)
        if summary.n_frames > 1 and summary.variance > 0:
            of_sum = session.covariances([i])[0, 0]
            pairs = (summary.n_frames - 1) * summary.variance
            noise[i] = (of_sum - summary.variance) / pairs
    return noise


@dataclass(frozen=True, eq=False)
class OutlierCensus:
    """Outliers of each stack of a session."""

    n_hot: npt.NDArray[np.int64]  # (n_stacks,): pixels
    n_dark: npt.NDArray[np.int64]
    share: npt.NDArray[np.float32]  # (y, x): in what part of the stacks each pixel was an outlier


def count_outliers(
    session: Session,
    fit: Callable[[Any], Any] = OutlierFilter.fit,
    *,
    progress: Progress | None = None,
) -> OutlierCensus:
    """Find the outliers of each stack, one stack at a time (fig. 7, video 1).

    `session`: of unfiltered stacks; `fit`: returns for a stack an object with a `mask` (not 0 where
    a pixel is an outlier), `n_hot` and `n_dark`; `progress`: called with (stacks done, stacks);
    what it raises ends it.
    """
    hot, dark = [], []
    times = np.zeros(())
    for index in reported(range(len(session)), len(session), progress):
        with session.opened(index) as stack:
            found = fit(stack)
        hot.append(found.n_hot)
        dark.append(found.n_dark)
        times = times + (found.mask != 0)
    share = (times / len(session)).astype(np.float32)
    return OutlierCensus(np.array(hot, np.int64), np.array(dark, np.int64), share)


@dataclass(frozen=True)
class MovieRow:
    """What was found in one movie; None for what is not known."""

    number: int  # Its place in the order of acquisition, from 1.
    movie: str  # The file.
    frames: int | None = None  # Its frames.
    rows: int | None = None  # Size of a frame in pixels.
    columns: int | None = None  # Size of a frame in pixels.
    dose: float | None = None  # Electrons per pixel in the sum of its frames.
    dose_before: float | None = None  # Electrons per pixel in all usable movies before it.
    hot: int | None = None  # Pixels above the hot threshold.
    dark: int | None = None  # Pixels below the dark threshold.
    # Correlated noise R as recorded: mean Pearson correlation of two of its frames (eq. 7 of
    # doi:10.1101/116533).
    noise_raw: float | None = None
    # R after the outlier filter (and the gain, where the recipe has one).
    noise_corrected: float | None = None
    # Standard deviation at low resolution, as a fraction of the mean.
    contrast: float | None = None
    # Of the contrast: robust standard deviations from the session's median.
    score: float | None = None
    # Whether the score is beyond the limit, so that the movie is not averaged.
    high_contrast: bool | None = None
    reason: str = ""  # Why it is, or is not.
    remark: str = ""  # What else is odd about it; empty if nothing is.
    warnings: tuple[str, ...] = ()  # Of the fits: where they should not be trusted without a look.
    error: str = ""  # Why the movie cannot be used; empty if it can.


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found in a session."""

    movies: tuple[MovieRow, ...]  # In order of acquisition, those that cannot be used included
    recipe: Recipe  # What was done to the movies before they were measured
    order: str  # What is known of the order of the movies, such as "by acquisition time"
    limit: float  # Score beyond which a contrast is high
    counts_per_electron: float  # What one electron adds to a pixel, for the doses
    radii: tuple[int, ...]  # Radii a of KOMA; empty where fewer than three movies can be averaged
    # (radii,): correlated noise R(a) after KOMA, the mean over the movies that enter averages
    noise_by_radius: Floats
    noise_without: float  # The same without KOMA
    # Frames n of a movie, the median of those averaged: R(a) cannot fall below 1/(2an)
    frames_averaged: int
    # (y, x): in what part of the movies each pixel was an outlier
    outlier_share: npt.NDArray[np.float32] | None
    # Of the session as a whole: where KOMA should not be trusted without a look
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> list[MovieRow]:
        """The movies that could be read and are of the session's frame shape."""
        return [movie for movie in self.movies if not movie.error]

    @property
    def noise_limits(self) -> list[float]:
        """What R(a) cannot fall below at each radius: 1/(2an)."""
        return [1 / (2 * a * self.frames_averaged) for a in self.radii]


_RADII = (1, 2, 3, 4, 6, 8, 12, 16, 25, 35, 50)


@dataclass(frozen=True, eq=False)
class Measured:
    """What is measured of a movie by itself."""

    sum: StackSum  # Of the corrected frames
    noise_raw: float  # Correlated noise; NaN for a movie of one frame
    noise_corrected: float
    n_hot: int | None  # Outlier pixels; None where none were looked for
    n_dark: int | None
    outliers: npt.NDArray[np.uint32]  # Flat indices of hot, dark and defective pixels
    counts_per_electron: float  # By the header, or else by the noise
    remark: str  # What is odd about the file, if anything
    warnings: tuple[str, ...] = ()  # Of the fits: where they should not be trusted without a look


class Measure(Survey):
    """Measures a movie. Call it, here or on another machine."""

    def __call__(self, report: Report | None = None) -> Outcome:
        """Measure the movie; the outcome's result is `Measured`."""
        start = time.perf_counter()
        with collected_warnings() as odd:
            movie = open_stack(self.source)
        remark = "; ".join(message.removeprefix(f"{self.source}: ") for message in odd)
        with movie:
            noise_raw = _noise(movie, "noise as recorded", report)
            recipe, done = without_done(self.recipe, movie)
            stack, outliers, doubts = corrected(movie, recipe)
            mask = () if outliers is None else outliers.mask
            measured = Measured(
                sum=summarise(stack, staged(report, "summing")),
                noise_raw=noise_raw,
                noise_corrected=_noise(stack, "noise when corrected", report),
                n_hot=None if outliers is None else outliers.n_hot,
                n_dark=None if outliers is None else outliers.n_dark,
                outliers=np.flatnonzero(mask).astype(np.uint32),
                counts_per_electron=self._counts_per_electron(movie, outliers),
                remark=remark,
                warnings=(*done, *doubts, *(() if outliers is None else outliers.warnings)),
            )
        notes = [f"noise {noise_raw:.3g} -> {measured.noise_corrected:.3g}"]
        if outliers is not None:
            notes.insert(0, f"{outliers.n_hot} hot and {outliers.n_dark} dark pixels")
        if remark:
            notes.append(remark)
        return Outcome(
            self.source,
            source_nbytes=file_nbytes(self.source),
            seconds=time.perf_counter() - start,
            notes=tuple(notes),
            warnings=measured.warnings,
            result=measured,
        )

    def _counts_per_electron(self, movie: Stack, outliers: OutlierFilter | None) -> float:
        # Programs that do not know the gain write 0 or 1.
        if movie.description.gain not in (0.0, 1.0):
            return abs(movie.description.gain)
        # What the other model takes for an electron may be no more than a share of the noise.
        if outliers is not None and outliers.options.model == "poisson":
            return outliers.replacement.per_electron
        return 1.0


class Measurements:
    """Collects what is measured of the movies of a session, in any order.

    Sums are kept in files, so that memory holds a few images however long the session is.

    `sources`: the movies in order of acquisition; `recipe`: what is done to them before KOMA, and
    the limit of contrast; `order`: what the order of the movies is.
    """

    def __init__(self, sources: Sequence[str], recipe: Recipe, order: str = GIVEN) -> None:
        self.sources = tuple(dict.fromkeys(sources))
        self._recipe = recipe
        self._session = Session(self.sources, order=order)
        self._measured: dict[int, Measured] = {}
        self._errors: dict[int, str] = {}
        self._shapes: dict[int, tuple[int, int]] = {}
        self._at = {source: index for index, source in enumerate(self.sources)}
        # In how many movies of a shape each pixel was an outlier.
        self._times: dict[tuple[int, int], npt.NDArray[np.float32]] = {}

    def tasks(self) -> Iterator[Measure]:
        """Return one task per movie."""
        return (Measure(source, self._recipe) for source in self.sources)

    def take(self, outcome: Outcome) -> Outcome:
        """Take over what was measured of a movie; return the outcome without it."""
        index = self._at[outcome.source]
        if outcome.ok:
            found: Measured = outcome.result
            again = Survey(outcome.source, self._recipe).sum
            self._session.learn(index, found.sum, again)
            y, x = found.sum.total.shape
            self._shapes[index] = (y, x)
            times = self._times.setdefault((y, x), np.zeros(y * x, np.float32))
            times[found.outliers] += 1
            kept = replace(found.sum, total=np.empty((0, 0)))
            self._measured[index] = replace(found, sum=kept, outliers=np.empty(0, np.uint32))
        else:
            self._errors[index] = outcome.error
        return replace(outcome, result=None)

    def findings(self) -> Findings:
        """Return what was found in the movies that were taken."""
        wrong = of_other_shapes({i: self._shapes[i] for i in sorted(self._shapes)})
        usable = [i for i in sorted(self._shapes) if i not in wrong]
        limit = (self._recipe.koma or KomaOptions()).limit
        electron = float(np.median([self._measured[i].counts_per_electron for i in usable] or 1.0))
        rows = {i: MovieRow(i + 1, name) for i, name in enumerate(self.sources)}
        for i, error in self._errors.items():
            rows[i] = replace(rows[i], error=error)
        for i, error in wrong.items():
            n_frames, (y, x) = self._measured[i].sum.n_frames, self._shapes[i]
            rows[i] = replace(rows[i], frames=n_frames, rows=y, columns=x, error=error)
        out = kept_out(
            {i: self._measured[i].sum.n_frames for i in usable},
            {i: self._measured[i].sum.thumbnail for i in usable},
            limit,
        )
        if usable:
            rows |= self._rows(usable, electron, limit, out)
        averaged = [i for i in usable if i not in out.all]
        radii, noise = self._noise_by_radius(averaged)
        warnings, own = self._koma(usable, averaged)
        for i, said in own.items():
            rows[i] = replace(rows[i], warnings=(*rows[i].warnings, *said))
        n = [self._measured[i].sum.n_frames for i in averaged]
        share = None
        if self._recipe.outliers is not None and usable:
            shape = self._shapes[usable[0]]
            share = (self._times[shape] / np.float32(len(usable))).reshape(shape)
        for i, why in {**out.cut_short, **out.saturated, **out.without_numbers}.items():
            remark = "; ".join(filter(None, (rows[i].remark, f"{why}: it enters no average")))
            rows[i] = replace(rows[i], remark=remark)
        return Findings(
            movies=tuple(rows[i] for i in sorted(rows)),
            recipe=self._recipe,
            order=self._session.order,
            limit=limit,
            counts_per_electron=electron,
            radii=radii,
            noise_by_radius=noise[1:],
            noise_without=float(noise[0]),
            frames_averaged=round(float(np.median(n))) if n else 0,
            outlier_share=share,
            warnings=warnings,
        )

    def _koma(
        self, usable: list[int], averaged: list[int]
    ) -> tuple[tuple[str, ...], dict[int, tuple[str, ...]]]:
        """Return the warnings of KOMA, as the recipe has it: of the session, and of each movie."""
        step = self._recipe.koma
        if step is None or len(usable) < 2:
            doubt = doubt_of_contrasts(self._session.summary(i) for i in averaged)
            return ((doubt,) if doubt else ()), {}
        koma = surveyed_koma(self._session.chosen(usable), step)
        with collected_warnings():  # they are among its own
            session = koma.warnings
        own = {}
        for k, i in enumerate(usable):
            said = koma.warnings_of(k)
            own[i] = tuple(warning for warning in said if warning not in session)
        return session, own

    def _rows(
        self, usable: list[int], electron: float, limit: float, out: KeptOut
    ) -> dict[int, MovieRow]:
        before = cumulative_dose(self._session.chosen(usable), electron)
        odd = {**out.saturated, **out.without_numbers}
        whole = {i: self._measured[i].sum.thumbnail for i in usable if i not in odd}
        contrasts, scores = contrast_scores([*whole.values()])
        scored = {i: (float(contrasts[k]), float(scores[k])) for k, i in enumerate(whole)}
        rows = {}
        for k, i in enumerate(usable):
            found = self._measured[i]
            contrast, score = scored.get(i, (math.nan, math.nan))
            reason = f"score {score:z.1f}, not beyond the limit of {limit:g}" if i in scored else ""
            rows[i] = MovieRow(
                number=i + 1,
                movie=self.sources[i],
                frames=found.sum.n_frames,
                rows=self._shapes[i][0],
                columns=self._shapes[i][1],
                dose=level_of(found.sum.thumbnail) * found.sum.n_frames / electron,
                dose_before=float(before[k]),
                hot=found.n_hot,
                dark=found.n_dark,
                noise_raw=_known(found.noise_raw),
                noise_corrected=_known(found.noise_corrected),
                contrast=_known(contrast),
                score=_known(score),
                high_contrast=i in out.high_contrast if i in scored else None,
                reason=out.high_contrast.get(i, reason),
                remark=found.remark,
                warnings=found.warnings,
            )
        return rows

    def _noise_by_radius(self, averaged: list[int]) -> tuple[tuple[int, ...], Floats]:
        """Return radii, and R without KOMA followed by R(a) at each."""
        usual = (*_RADII, self._recipe.koma.radius) if self._recipe.koma else _RADII
        # A window is whole if there are as many movies as it holds.
        radii = tuple(a for a in sorted(set(usual)) if 2 * a < len(averaged))
        if not radii:
            return (), np.full(1, np.nan)
        summaries = [self._session.summary(i) for i in averaged]
        compared = self._session.covariances(averaged, reach=2 * radii[-1])
        mean = mean_noise(summaries, compared, (0, *radii))
        return ((), np.full(1, np.nan)) if np.isnan(mean).any() else (radii, mean)


def _noise(stack: Stack, stage: str, report: Report | None) -> float:
    tell = staged(report, stage)

    def frames() -> Iterator[npt.NDArray[Any]]:
        for done, frame in enumerate(stack, 1):
            yield frame
            tell(done, len(stack))

    return correlated_noise(frames()) if len(stack) > 1 else math.nan


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
