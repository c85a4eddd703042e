"""KOMA over a session: which stacks are averaged for which, and which are left out.

McLeod et al., preprint doi:10.1101/116533, section 5.2.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.koma import (
    KomaNormalization,
    KomaOptions,
    contrast_doubt,
    contrast_scores,
    has_dose,
    level_of,
    noise_by_radius,
    normalisation,
    repeated_text,
    too_few,
)
from napari_mrcz.correction.rolling import NO_NEIGHBOURS, RollingAverage
from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, collected_warnings, warn
from napari_mrcz.format.machine import reported
from napari_mrcz.session.session import Floats, Progress, Session, StackLike

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Literal

    from napari_mrcz.session.journal import SumRecord
    from napari_mrcz.session.summaries import Summary

Key = TypeVar("Key")

_LIMIT = KomaOptions().limit
# Share of the stacks that makes most of them.
_USUAL = 0.5
# No dose of a session is so many times the usual one: the counts show no electrons.
_SATURATED = 10.0


@dataclass(frozen=True)
class KeptOut:
    """The stacks that should not be averaged, and why, by index."""

    cut_short: Mapping[int, str]  # With less than half the usual frames
    saturated: Mapping[int, str]  # Of ten times the usual mean
    high_contrast: Mapping[int, str]  # Of carbon film, crystalline ice and the like
    without_numbers: Mapping[int, str]  # With pixels of NaN or inf where most have numbers

    @property
    def all(self) -> dict[int, str]:
        """All of them, each with one reason."""
        return {**self.cut_short, **self.saturated, **self.high_contrast, **self.without_numbers}


class Koma:
    """Normalise each stack of a session by the mean of those around it.

    ``koma[i]`` is the correction for stack i: frames - s K_i, where K_i is the mean frame of the 2
    x radius stacks around it, without itself, and s scales it to the stack's own mean. At the ends
    the window shifts, so that it always has as many stacks, and it skips the stacks left out. The
    next stack takes the same time for each radius.

    K_i is noisy itself, and may raise the correlated noise R: ``koma.helps[i]`` and
    ``koma[i].warnings`` say so, ``koma[i].noise`` is R before and after.

    `left_out` are the stacks that are not averaged, and why: micrographs of high contrast (carbon
    film, crystalline ice), whose image would remain in others; movies that were cut off, with less
    than half the usual frames; saturated ones, of ten times the usual mean; and stacks that cannot
    be read, or have no numbers (NaN, inf) where most have. They are normalised like all others, if
    they can be read.

    Parameters
    ----------
    stacks : Session, or iterable of path-like, Stack or ndarray (n, y, x), or a folder
        All of one frame shape. Their order is that of acquisition: a list is taken as it is given,
        a folder as `Session` sorts it.
    radius : int
        Stacks to either side. Correlated noise cannot fall below 1/(2 radius n) of n frames; the
        preprint sees little gain beyond 25.
    keep_mean : bool
        Add the mean of what is subtracted back, so that counts stay counts.
    exclude : "auto" or iterable of int
        Stacks that are not averaged: found by their contrast and length, or as given.
    limit : float
        Score of `correction.koma.contrast_scores` beyond which "auto" leaves a stack out.
    length : int, optional
        Subtract only structure finer than this, in pixels: coarser structure at the same place in
        every image (a hole's edge, a beam stop) stays, and so does that of the camera. 0 or None
        subtracts all.
    even_if_worse : bool
        Normalise stacks even if their correlated noise rises by it. If False, as in recipes and the
        widget, ``koma[i]`` returns the frames of such a stack unchanged.

    Raises
    ------
    ValueError
        If there is only one stack, an option is out of its range, or stacks to be left out do not
        exist.

    Warns
    -----
    UserWarning
        If there are fewer stacks than a window holds; all are averaged then.
    """

    def __init__(
        self,
        stacks: Session | Iterable[StackLike] | AnyPath,
        radius: int = 12,
        *,
        keep_mean: bool = True,
        exclude: Literal["auto"] | Iterable[int] = "auto",
        limit: float = _LIMIT,
        length: int | None = 0,
        even_if_worse: bool = True,
    ) -> None:
        # `watch` has summaries and sums in a folder of its own.
        if isinstance(stacks, Session) or hasattr(stacks, "summary"):
            self._session = cast("Session", stacks)
        else:
            self._session = Session(stacks)
        if len(self._session) < 2:
            raise ValueError(NO_NEIGHBOURS)
        self._options = KomaOptions(
            int(radius), bool(keep_mean), float(limit), int(length or 0), bool(even_if_worse)
        )
        if isinstance(exclude, str) and exclude != "auto":
            raise ValueError(f'exclude is "auto" or a list of stacks, not {exclude!r}')
        self._exclude = None if isinstance(exclude, str) else frozenset(map(int, exclude))
        if not all(0 <= index < len(self._session) for index in self._exclude or ()):
            chosen = sorted(self._exclude or ())
            raise ValueError(f"{chosen} are not all within {len(self._session)} stacks")
        self._lock = threading.RLock()
        self._rolling: RollingAverage | None = None
        self._left_out: dict[int, str] = {}
        self._doubts: tuple[str, ...] = ()
        # The corrections that were made, without their averages.
        self._found: dict[int, KomaNormalization] = {}

    def __len__(self) -> int:
        """Return the number of stacks."""
        return len(self._session)

    def __getitem__(self, index: int) -> KomaNormalization:
        """Return the correction for a stack; negative indices count from the end.

        Raises
        ------
        IndexError
            If there is no such stack.
        ValueError
            If no other stack is left to average.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"stack {index} of a session of {len(self)}")
        index %= len(self)
        with self._lock:
            rolling = self._surveyed()
            near = rolling.neighbours(index)
            if not near:
                others = {i: why for i, why in self._left_out.items() if i != index}
                first, why = next(iter(others.items()))
                left_out = f"{len(others)} left out, the first of them {self._session.name(first)}"
                raise ValueError(f"{NO_NEIGHBOURS}. {left_out}: {why}")
            summary = self._session.summary(index)
            made = normalisation(
                rolling.at(index),
                self._session.total(index),
                summary.n_frames,
                summary.variance,
                self._options,
                index=index,
                neighbours=[self._session.name(j) for j in near],
                order=self._session.order,
                doubts=self._doubts,
            )
            self._found[index] = replace(made, average=np.zeros((1, 1), np.float32))
        return made

    @property
    def session(self) -> Session:
        """The stacks and their sums."""
        return self._session

    @property
    def left_out(self) -> Mapping[int, str]:
        """Stacks that are not averaged, and why."""
        self._surveyed()
        return MappingProxyType(self._left_out)

    @property
    def helps(self) -> tuple[bool, ...]:
        """Whether the correlated noise of each stack falls by its normalisation.

        Averages all stacks once; False for one that cannot be normalised.
        """
        found = self._all_found()
        return tuple(i in found and found[i].helps for i in range(len(self)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the session; ``koma[i].warnings`` has those of each stack.

        Averages all stacks once.
        """
        found = self._all_found().values()
        said = dict.fromkeys(self.shared_warnings)
        if steps := [one.step for one in found if one.applied and one.step]:
            said[repeated_text(max(steps))] = None
        if worse := [one for one in found if not one.helps]:
            said[_worse(worse, len(self))] = None
        return tuple(said)

    @property
    def shared_warnings(self) -> tuple[str, ...]:
        """Warnings about the session that each stack has, too."""
        self._surveyed()
        n_members = len(self) - len(self._left_out)
        few = n_members <= 2 * self._options.radius
        return (*self._doubts, *(too_few(max(0, n_members - 1), self._options.radius),) * few)

    def warnings_of(self, index: int) -> tuple[str, ...]:
        """Return ``koma[index].warnings`` without averaging again; () if normalising fails."""
        found = self._all_found().get(index)
        return () if found is None else found.warnings

    def _all_found(self) -> dict[int, KomaNormalization]:
        for index in range(len(self)):
            if index not in self._found:
                try:
                    self[index]
                except NotEnoughMemory:
                    raise
                except (ValueError, OSError):  # raised again when it is asked for
                    continue
        return self._found

    def neighbours(self, index: int) -> list[int]:
        """Return the stacks whose mean is subtracted from stack `index`."""
        return self._surveyed().neighbours(index)

    def survey(self, progress: Progress | None = None) -> None:
        """Read all stacks that have not been read, and decide which are averaged.

        This is done once, when it is first needed; call it to see the progress.

        Parameters
        ----------
        progress : callable, optional
            Called with (stacks done, stacks); what it raises ends it, and what was read is kept.
        """
        self._surveyed(progress)

    def _surveyed(self, progress: Progress | None = None) -> RollingAverage:
        with self._lock:
            if self._rolling is None:
                self._left_out = self._find_left_out(progress)
                members = [i for i in range(len(self)) if i not in self._left_out]
                radius = self._options.radius
                if len(members) <= 2 * radius:
                    said = too_few(max(0, len(members) - 1), radius)
                    warn(f"{said}: there are no more")
                self._rolling = RollingAverage(self._sum_of, members, radius)
            return self._rolling

    def noise_curve(self, radii: Sequence[int], *, progress: Progress | None = None) -> Floats:
        """Compute the mean correlated noise within the stacks for several radii (fig. 12).

        No stack is read again, as the sums are enough. `length` is not taken into account.

        Parameters
        ----------
        radii : sequence of int
            0 stands for no normalisation.
        progress : callable, optional
            Called with (rows done, rows) while sums are compared; what it raises ends it.

        Returns
        -------
        ndarray, shape (radii,)
            The mean over the stacks that are averaged and have at least two frames; NaN if none
            has.
        """
        self._surveyed()
        members = [i for i in range(len(self)) if i not in self._left_out]
        summaries = [self._session.summary(i) for i in members]
        reach = 2 * max(radii, default=0)
        compared = self._session.covariances(members, reach=reach, progress=progress)
        return mean_noise(summaries, compared, radii)

    def _sum_of(self, index: int) -> tuple[npt.NDArray[Any], int]:
        return self._session.total(index), self._session.summary(index).n_frames

    def _find_left_out(self, progress: Progress | None) -> dict[int, str]:
        left_out = dict.fromkeys(self._exclude or (), "left out by choice")
        found: dict[int, Summary] = {}
        shape: tuple[int, ...] | None = None
        for index in reported(range(len(self)), len(self), progress):
            # Also those left out by choice, to find out whether they can be read.
            try:
                summary = self._session.summary(index)
            except NotEnoughMemory:
                raise
            except (MrczError, OSError) as error:
                left_out[index] = f"cannot be read: {error}"
            else:
                shape = shape or summary.shape
                if summary.shape != shape:
                    said = f"has frames of {summary.shape}, the stacks before {shape}"
                    raise ValueError(f"{self._session.name(index)} {said}")
                found[index] = summary
        if self._exclude is None:
            n_frames = {i: summary.n_frames for i, summary in found.items()}
            thumbnails = {i: summary.thumbnail for i, summary in found.items()}
            left_out.update(kept_out(n_frames, thumbnails, self._options.limit).all)
        doubt = doubt_of_contrasts(one for i, one in found.items() if i not in left_out)
        self._doubts = (doubt,) if doubt else ()
        return dict(sorted(left_out.items()))


def surveyed_koma(session: Session, options: KomaOptions) -> Koma:
    """Return surveyed KOMA with the options of a recipe; its warnings are those of each stack."""
    koma = Koma(session, **asdict(options))
    with collected_warnings():
        koma.survey()
    return koma


def mean_noise(summaries: Sequence[Summary], covariances: Floats, radii: Sequence[int]) -> Floats:
    """Compute the mean correlated noise within some stacks after KOMA among them (fig. 12).

    `summaries`: of the stacks, in order of acquisition; `covariances` (m, m): between their sums,
    as `Session.covariances` returns them; `radii`: in stacks; 0 stands for no normalisation. The
    result is (radii,): the mean over the stacks of at least two frames; NaN if there are none.
    """
    thumbnails = [summary.thumbnail for summary in summaries]
    curves = noise_by_radius(
        covariances,
        np.array([summary.variance for summary in summaries]),
        np.array([summary.n_frames for summary in summaries]),
        radii,
        np.array([level_of(small) if has_dose(small) else np.nan for small in thumbnails]),
    )
    told = ~np.isnan(curves).any(axis=0)
    return curves[:, told].mean(axis=1) if told.any() else curves[:, 0]


def kept_out(
    n_frames: Mapping[int, int], thumbnails: Mapping[int, Floats], limit: float = _LIMIT
) -> KeptOut:
    """Find the stacks that should not be averaged.

    `n_frames`, `thumbnails`: as in `Summary`, by the index of the stack; `limit`: score of
    `correction.koma.contrast_scores` beyond which a contrast is high.
    """
    spoilt = _without_numbers(thumbnails)
    whole = {index: image for index, image in thumbnails.items() if index not in spoilt}
    # Of two stacks neither is usual.
    usual = float(np.median(list(n_frames.values()))) if len(n_frames) > 2 else 0.0
    cut_short = {
        index: f"only {n} frames, where the session has {usual:g}"
        for index, n in n_frames.items()
        if n < usual / 2
    }
    # Of background about 0, or two stacks, no mean is usual.
    levels = {i: level_of(image) for i, image in whole.items() if has_dose(image)}
    mean = float(np.median(list(levels.values()))) if 2 * len(levels) > len(whole) > 2 else math.inf
    saturated = {
        index: f"{level:.3g} counts per pixel and frame, where the session has {mean:.3g}"
        for index, level in levels.items()
        if level > _SATURATED * mean
    }
    whole = {index: image for index, image in whole.items() if index not in saturated}
    return KeptOut(cut_short, saturated, _high_contrasts(whole, limit), spoilt)


def of_other_shapes(shapes: Mapping[Key, tuple[int, int]]) -> dict[Key, str]:
    """Return the stacks that cannot be used, as most have frames of another shape, and why.

    `shapes`: of each stack, in order of acquisition; of two that are as frequent the first counts.
    """
    usual, _ = max(Counter(shapes.values()).items(), key=lambda one: one[1], default=((0, 0), 0))
    where = f"where most of the session has {usual[0]} x {usual[1]}"
    return {
        stack: f"frames of {y} x {x} pixels, {where}"
        for stack, (y, x) in shapes.items()
        if (y, x) != usual
    }


def _without_numbers(thumbnails: Mapping[int, Floats]) -> dict[int, str]:
    """Find the stacks with pixels of NaN or inf where most have numbers.

    Every pixel that is averaged with one would be lost. Pixels that are NaN in most stacks, such as
    masked defects, are lost anyway.
    """
    if not thumbnails:
        return {}
    told = np.isfinite(np.stack(list(thumbnails.values())))
    spoilt = ~told & (told.mean(axis=0) > _USUAL)
    said = "pixels that are not numbers (NaN, inf), where most of the session has numbers"
    return {
        i: said for i, any_of in zip(thumbnails, spoilt.any(axis=(1, 2)), strict=True) if any_of
    }


def _high_contrasts(thumbnails: Mapping[int, Floats], limit: float) -> dict[int, str]:
    """Find the stacks of high contrast."""
    if not thumbnails:
        return {}
    contrasts, scores = contrast_scores(list(thumbnails.values()))
    usual = float(np.median(contrasts))
    return {
        index: f"contrast of {contrast:.1%} at low resolution, where the session has "
        f"{usual:.1%}: {score:.1f} robust standard deviations"
        for index, contrast, score in zip(thumbnails, contrasts, scores, strict=True)
        if score > limit
    }


def doubt_of_contrasts(stacks: Iterable[Summary | SumRecord]) -> str:
    """Return a warning if any of the stacks that are averaged is of high contrast, or ""."""
    stacks = list(stacks)
    noises = []
    for one in stacks:
        pixels = one.shape[0] * one.shape[1] / one.thumbnail.size
        level = max(level_of(one.thumbnail), 1e-9)
        variance = one.variance if math.isfinite(one.variance) else 0.0
        noises.append(math.sqrt(variance / pixels) / one.n_frames / level)
    return contrast_doubt([one.thumbnail for one in stacks], noises)


def _worse(stacks: Sequence[KomaNormalization], n_stacks: int) -> str:
    noise = [one.noise for one in stacks if one.noise is not None]
    mean = ""
    if noise:
        before, after = np.mean(noise, axis=0)
        mean = f", on average from {before:.2g} to {after:.2g}"
    of = f"the correlated noise R of {len(stacks)} of {n_stacks} stacks{mean}"
    if stacks[0].applied:
        return f"KOMA raises {of}: more stacks or a wider radius bring less noise"
    return (
        f"KOMA would raise {of}: they stay as they are. More stacks or a wider radius bring less "
        "noise (even_if_worse applies it all the same)"
    )
