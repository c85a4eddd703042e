"""A session followed while it is recorded: movies compressed, verified and corrected one by one.

Each step is in the journal when it is done: a process that is killed is followed by one that goes
on where it was, and at most the file that was being written is written again.

Without KOMA each movie is corrected as soon as it is compressed. With KOMA a stack waits until its
window is complete: until as many stacks of usual contrast have come after it as the radius, and 2 x
radius others in all. Its window, and so its average, is then that of the finished session, to the
last bit. Stacks whose window will not be complete are corrected when the session ends, or when they
have waited for longer than a timeout; their window shifts towards the earlier stacks, as it does at
the end of a session. Each is corrected once. Stacks that are cut off or of high contrast, which
are not averaged, are found among all that have arrived. Compressed movies are read: their sources
may be gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_mrcz.correction.history import fingerprint
from napari_mrcz.correction.rolling import NO_NEIGHBOURS
from napari_mrcz.errors import MrczError, size_text
from napari_mrcz.naming import without_packing
from napari_mrcz.session.arrivals import Arrivals, Found, Look
from napari_mrcz.session.averages import Koma, of_other_shapes, surveyed_koma
from napari_mrcz.session.convert import Recode
from napari_mrcz.session.correct import Correct, Survey, is_blank, with_orientation_of
from napari_mrcz.session.run import attempt
from napari_mrcz.session.source_files import TOUCHED, Kept, SourceFiles
from napari_mrcz.session.summaries import Sums, Surveyed
from napari_mrcz.session.survey import ARRIVED, REFERENCE, by_acquisition, is_reference
from napari_mrcz.session.tasks import Outcome, Report, staged
from napari_mrcz.stack import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from napari_mrcz.correction.koma import KomaNormalization, KomaOptions
    from napari_mrcz.session import Session
    from napari_mrcz.session.journal import Ledger, MovieRecord, SumRecord, Version
    from napari_mrcz.session.recipe import Recipe

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(BaseException):
    """The disk is full. This is not a failure of the movie: `attempt` lets it pass."""


@dataclass(frozen=True)
class WatchJob:
    """Something to be done with a movie."""

    kind: str  # "compressed", "deleted", "summed" or "corrected": what it will be
    movie: str  # Path of the movie within the watched folder
    version: Version  # Its size and time
    source: str  # The file that is read
    work: Callable[[Report | None], Outcome]

    def __call__(self, report: Report | None = None) -> Outcome:
        """Do the work; raise `DiskFull` if there is no room, or the quota is used up."""
        try:
            return self.work(report)
        except (MrczError, OSError) as error:
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, OSError) and cause.errno in _FULL:
                    raise DiskFull from error
                cause = cause.__cause__
            raise


def free_nbytes(folder: Path) -> int:
    """Return the free bytes of a disk; 0 if unknown."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


class Corrections:
    """Finds the next correction that can be done, and does it.

    `ledger`: the movies; `out`: folder of the compressed movies; results go to ``corrected`` in it;
    `recipe`: movies that were corrected by another one are corrected again; `timeout`: seconds
    after which a stack does not wait for its window any more; `overwrite`: replace results that are
    not ours. `order`: of the stacks, by acquisition time if all have one, or else by arrival; empty
    before that matters.
    """

    def __init__(
        self,
        ledger: Ledger,
        out: Path,
        recipe: Recipe,
        *,
        timeout: float | None = None,
        overwrite: bool = False,
    ) -> None:
        self._ledger = ledger
        self._out = out
        self._recipe = recipe
        self._made_by = fingerprint(recipe.as_dict())
        self._timeout = timeout
        self._overwrite = overwrite
        self._sums = Sums(out / "sums", self._made_by)
        self._plan: tuple[Any, _Plan] | None = None
        self._left_out: dict[str, Version] = {}
        self._refused: dict[str, Version] = {}  # of another frame shape
        self._n_discarded = self._n_looked_at = 0
        self.order = ""

    @property
    def orientation(self) -> str:
        """The orientation and exponent of the gain reference; empty if they are not known."""
        gain = self._recipe.gain
        return "" if gain is None or gain.orientation == "auto" else gain.orientation_text

    @property
    def waiting(self) -> list[MovieRecord]:
        """The compressed movies that are not corrected, except those that failed."""
        return [
            movie
            for movie in self._compressed()
            if movie.corrected != self._made_by and self._refused.get(movie.source) != movie.version
        ]

    def leave_out(self, job: WatchJob) -> None:
        """Leave out a movie that failed."""
        if self._refused.get(job.movie) != job.version:
            self._left_out[job.movie] = job.version

    def next(self, *, ending: bool) -> WatchJob | None:
        """Return what can be done now; `ending`: without waiting for more movies."""
        koma = self._recipe.koma
        if koma is None:
            for movie in self._compressed():
                if movie.corrected != self._made_by:
                    return self._job("corrected", movie, partial(self._correct, movie))
            return None
        # The plan does not depend on which movies are corrected.
        key = self._ledger.revision, len(self._left_out)
        if self._plan is None or self._plan[0] != key:
            if not self.waiting:
                return None
            movies = list(self._compressed())
            if self._waits_for_orientation(movies, ending=ending):
                return None
            for movie in movies:
                if movie.summed is None or movie.summed.recipe != self._made_by:
                    return self._job("summed", movie, partial(self._survey, movie))
            self._plan = key, self._planned(movies, koma)
        return self._complete(self._plan[1], koma.radius, ending=ending)

    def seconds_to_timeout(self) -> float | None:
        """Return the seconds until the next stack has waited for too long; None if none does."""
        if self._timeout is None:
            return None
        now = time.time() - self._timeout
        return min((m.compressed - now for m in self.waiting if m.compressed > now), default=None)

    def _compressed(self) -> Iterator[MovieRecord]:
        return (
            movie
            for movie in self._ledger.movies
            if movie.compressed and self._left_out.get(movie.source) != movie.version
        )

    def _job(
        self, kind: str, movie: MovieRecord, work: Callable[[Report | None], Outcome]
    ) -> WatchJob:
        return WatchJob(kind, movie.source, movie.version, movie.target, work)

    def _planned(self, movies: list[MovieRecord], step: KomaOptions) -> _Plan:
        times = [None if movie.summed is None else movie.summed.acquired for movie in movies]
        movies, self.order = by_acquisition(movies, times, ARRIVED)
        summed = {movie.source: movie.summed for movie in movies if movie.summed is not None}
        wrong = of_other_shapes({source: one.shape for source, one in summed.items()})
        usable = [movie for movie in movies if movie.source not in wrong]
        others = [(movie, wrong[movie.source]) for movie in movies if movie.source in wrong]
        sums = [summed[movie.source] for movie in usable]
        session = _Arrived(usable, sums, self.order, self._load)
        koma = surveyed_koma(cast("Session", session), step) if len(usable) > 1 else None
        left_out = {} if koma is None else koma.left_out
        members = [i for i in range(len(usable)) if i not in left_out]
        return _Plan(session, others, koma, left_out, members)

    def _complete(self, plan: _Plan, radius: int, *, ending: bool) -> WatchJob | None:
        """Return the next stack whose window is complete, or not waited for any longer."""
        timed_out = -np.inf if self._timeout is None else time.time() - self._timeout
        movies = plan.session.movies
        while plan.first < len(movies) and self._is_done(movies[plan.first]):
            plan.first += 1
        if plan.first < len(movies):
            self._discard_sums(plan, radius)
        for index in range(plan.first, len(movies)):
            movie = movies[index]
            if self._is_done(movie):
                continue
            later = len(plan.members) - bisect_right(plan.members, index)
            others = len(plan.members) - (index not in plan.left_out)
            complete = later >= radius and others >= 2 * radius
            if complete or ending or (movie.compressed <= timed_out and others):
                return self._job("corrected", movie, partial(self._normalise, plan, index))
        if ending or len(plan.session) > 2 * len(plan.others):
            for movie, why in plan.others:
                if self._refused.get(movie.source) != movie.version:
                    self._refused[movie.source] = movie.version
                    return self._job("corrected", movie, partial(self._refuse, movie, why))
        return None

    def _is_done(self, movie: MovieRecord) -> bool:
        now = self._ledger.movie(movie.source)
        return now is not None and now.corrected == self._made_by

    def _survey(self, movie: MovieRecord, report: Report | None) -> Outcome:
        outcome = Survey(movie.target, self._oriented(movie))(report)
        found: Surveyed = outcome.result
        self._sums.save(movie, found)
        self._ledger.record(
            "summed",
            source=movie.source,
            recipe=self._made_by,
            n_frames=found.sum.n_frames,
            shape=list(found.sum.total.shape),
            thumbnail=found.sum.thumbnail.tolist(),
            variance=found.sum.variance,
            acquired=found.acquired and found.acquired.isoformat(),
        )
        return replace(outcome, result=None)

    def _normalise(self, plan: _Plan, index: int, report: Report | None) -> Outcome:
        movie = plan.session.movies[index]
        if plan.koma is None:
            raise MrczError(movie.target, NO_NEIGHBOURS)
        outliers = self._load(movie).outliers
        outcome = self._correct(movie, report, outliers, plan.koma[index])
        left_out = plan.left_out.get(index)
        notes = (*outcome.notes, f"in no average: {left_out}") if left_out else outcome.notes
        return replace(outcome, notes=notes, shared=plan.koma.shared_warnings)

    def _refuse(self, movie: MovieRecord, why: str, report: Report | None) -> Outcome:
        raise MrczError(movie.target, why, advice="A session is of one camera and mode")

    def _correct(
        self,
        movie: MovieRecord,
        report: Report | None,
        outliers: Mapping[str, Any] | None = None,
        koma: KomaNormalization | None = None,
    ) -> Outcome:
        target = without_packing(self._out / "corrected" / movie.source)
        target = target.with_suffix(self._recipe.output.suffix).absolute()
        replaces = self._ledger.may_replace(target, movie.source, overwrite=self._overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self._ledger.owns(target, movie.source):
            self._ledger.record("correcting", source=movie.source, target=str(target))
        task = Correct(
            movie.target, str(target), self._oriented(movie), outliers, koma, overwrite=replaces
        )
        outcome = task(report)
        said = {"warnings": list(outcome.warnings)} if outcome.warnings else {}
        self._ledger.record("corrected", source=movie.source, recipe=self._made_by, **said)
        return outcome

    def _waits_for_orientation(self, movies: list[MovieRecord], *, ending: bool) -> bool:
        """Look for the orientation of the gain, with KOMA, as for a finished session.

        All movies are treated alike, as they are averaged: it waits until as many have come as
        `with_orientation_of` would look at, but not for longer than the timeout.
        """
        if self._recipe.gain is None or self._recipe.gain.orientation != "auto":
            return False
        late = -np.inf if self._timeout is None else time.time() - self._timeout
        ending = ending or any(movie.compressed <= late for movie in movies)
        if len(movies) > self._n_looked_at or ending:
            self._n_looked_at = len(movies)
            sources = [movie.target for movie in movies]
            try:
                oriented = with_orientation_of(self._recipe, sources, are_all=ending)
            except (MrczError, OSError, ValueError):
                return False  # it is reported of the movie that is summed next
            if is_blank(oriented):
                return False
            self._recipe = oriented
        return self._recipe.gain is not None and self._recipe.gain.orientation == "auto"

    def _oriented(self, movie: MovieRecord) -> Recipe:
        """Return the recipe; its gain in the orientation that a movie shows, if that is "auto".

        The orientation is looked for in each movie, until the reference helps one.
        """
        oriented = with_orientation_of(self._recipe, [movie.target])
        if oriented.gain is not None:
            self._recipe = oriented
        return oriented

    def _load(self, movie: MovieRecord) -> Surveyed:
        found = self._sums.load(movie)
        if found is None:  # it was deleted, by us when it was not needed or by others
            found = Survey(movie.target, self._oriented(movie))().result
            self._sums.save(movie, found)
        return found

    def _discard_sums(self, plan: _Plan, radius: int) -> None:
        """Delete the sums of stacks that no window will reach any more.

        Windows reach back by 2 x radius at the end, and by one radius more if stacks of high
        contrast are found later.
        """
        before = bisect_left(plan.members, plan.first)
        oldest = plan.members[before - 3 * radius] if before > 3 * radius else 0
        for movie in plan.session.movies[self._n_discarded : oldest]:
            self._sums.discard(movie)
        self._n_discarded = max(self._n_discarded, oldest)


@dataclass(frozen=True)
class _Arrived:
    """Compressed movies of one frame shape, in order, as `Koma` takes a session."""

    movies: list[MovieRecord]
    summed: list[SumRecord]
    order: str
    load: Callable[[MovieRecord], Surveyed]

    def __len__(self) -> int:
        return len(self.movies)

    def name(self, index: int) -> str:
        return self.movies[index].target

    def summary(self, index: int) -> SumRecord:
        return self.summed[index]

    def total(self, index: int) -> npt.NDArray[Any]:
        return self.load(self.movies[index]).sum.total


@dataclass
class _Plan:
    """What can be corrected of the movies that have arrived."""

    session: _Arrived  # The usable ones
    others: list[tuple[MovieRecord, str]]  # Of another frame shape, and why they are not usable
    koma: Koma | None  # The corrections of the usable ones; None if there are fewer than two
    left_out: Mapping[int, str]  # Which of these enter no average, and why
    members: list[int]  # Which do
    first: int = 0  # The first that is not corrected


# Seconds between two looks at a full disk, and after which writing is tried again: quotas do not
# show.
_LOOK_FOR_ROOM, _TRY_ANYWAY = 5.0, 60.0


@dataclass(frozen=True)
class Step:
    """A job that was done."""

    kind: str  # "compressed", "deleted", "summed" or "corrected"; what was tried, if it failed
    outcome: Outcome  # How it went


@dataclass
class Watch:
    """Follows a session until it is over."""

    arrivals: Arrivals  # The folder
    ledger: Ledger  # What is done
    out: Path  # Folder for the results; folders within the watched one are made in it too
    wait: Callable[[float], None]  # Waits for so many seconds, or until something happens
    tell: Callable[[str], None]  # Called with messages, such as that there is no room
    # How movies are compressed, as `napari_mrcz.session.convert.Recode` takes it
    options: Mapping[str, Any] = field(default_factory=dict)
    corrections: Corrections | None = None  # What is done with compressed movies
    delete: bool = False  # Delete sources whose results were verified
    overwrite: bool = False  # Replace results that are not ours
    once: bool = False  # End when what is there is done; a movie still being written is left
    silence: float | None = None  # End when nothing has come for so many seconds
    report: Report = lambda what, done, of: None  # Called with (what is done, frames done, frames)
    _failed: dict[str, Version] = field(default_factory=dict, init=False)
    _unseen: bool = field(default=False, init=False)
    _unreadable: set[str] = field(default_factory=set, init=False)
    _paused: bool = field(default=False, init=False)
    _finished: tuple[Found, ...] = field(default=(), init=False)
    _to_do: deque[Found] = field(default_factory=deque, init=False)
    _told: set[tuple[bool, bool]] = field(default_factory=set, init=False)

    def steps(self) -> Iterator[Step]:
        """Do what is to be done as movies arrive, and yield each step when it is done.

        Raise `OSError` if the folder cannot be read at the start; later that is reported, and
        waited for.
        """
        if done := self._n_compressed():
            rest = f", {self.waiting} to be corrected" if self.corrections is not None else ""
            self.tell(f"going on: {done} compressed{rest}")
        look = self.arrivals.look(time.monotonic())
        self._tell_unreadable(look)
        start = lately = time.monotonic()
        while True:
            now = time.monotonic()
            job = self._next(look, ending=False)
            if job is not None:
                lately = now
            elif self._is_over(look, now - start, now - lately):
                job = self._next(look, ending=True)
                if job is None:
                    break
            if job is None:
                self._tell_standing(look)
                self.wait(self._pause(look, now - start, now - lately))
            else:
                step = self._do(job)
                if step is not None:
                    yield step
            look = self._look()
            if look.changed:
                lately = time.monotonic()
        if self.once and look.unfinished:
            self.tell(f"left, as they are not finished: {', '.join(look.unfinished)}")

    @property
    def waiting(self) -> int:
        """How many stacks wait for their KOMA window."""
        return 0 if self.corrections is None else len(self.corrections.waiting)

    def _tell_standing(self, look: Look) -> None:
        """Show what is waited for; as a message, too, when it is something of another kind."""
        movies = map(self.ledger.movie, look.unfinished)
        resting = sum(movie is None or not movie.compressed for movie in movies)
        done, parts = self._n_compressed(), []
        if resting:
            marker = self.arrivals.marker
            until = f"without {marker}" if marker else f"resting for {self.arrivals.settle:g} s"
            parts.append(f"{resting} seen and {until}")
        if done:
            parts.append(f"{done} compressed")
        if self.waiting:
            parts.append(f"{self.waiting} waiting for their KOMA window")
        said = f"waiting for movies: {', '.join(parts) or 'none seen yet'}"
        self.report(said, done, done + resting)
        kind = resting > 0, self.waiting > 0
        if kind not in self._told:
            self._told.add(kind)
            self.tell(said)

    def _n_compressed(self) -> int:
        return sum(movie.compressed > 0 for movie in self.ledger.movies)

    def _look(self) -> Look:
        try:
            look = self.arrivals.look(time.monotonic())
        except OSError as error:
            if not self._unseen:
                self.tell(f"{self.arrivals.folder} cannot be read ({error.strerror}): waiting")
            self._unseen = True
            return Look()
        if self._unseen:
            self.tell(f"{self.arrivals.folder} can be read again")
            self._unseen = False
        self._tell_unreadable(look)
        return look

    def _tell_unreadable(self, look: Look) -> None:
        """Report each folder that cannot be read once."""
        for folder in look.unreadable:
            if folder not in self._unreadable:
                self.tell(f"{folder}: skipped")
        self._unreadable = set(look.unreadable)

    def _is_over(self, look: Look, since_start: float, since_change: float) -> bool:
        if self.once:
            return look.soonest is None or since_start > self.arrivals.longest
        if self.silence is None or look.soonest is not None:
            return False
        return since_change >= self.silence

    def _pause(self, look: Look, since_start: float, since_change: float) -> float:
        """Return the seconds after which something may have to be done."""
        pauses = [float("inf") if look.soonest is None else look.soonest]
        if self.once:
            pauses.append(self.arrivals.longest - since_start)
        if self.silence is not None:
            pauses.append(self.silence - since_change)
        if self.corrections is not None:
            timeout = self.corrections.seconds_to_timeout()
            if timeout is not None:
                pauses.append(timeout)
        # Not 0: clocks may differ a little.
        return max(min(pauses), 0.01)

    def _next(self, look: Look, *, ending: bool) -> WatchJob | None:
        if look.finished is not self._finished:
            self._finished = look.finished
            self._to_do = deque(look.finished)
        while self._to_do:
            job = self._job_for(self._to_do[0])
            if job is not None:
                return job
            self._to_do.popleft()
        return None if self.corrections is None else self.corrections.next(ending=ending)

    def _job_for(self, found: Found) -> WatchJob | None:
        """Return what is to be done with a finished movie before it is corrected."""
        if self._failed.get(found.source) == found.version:
            return None
        movie = self.ledger.movie(found.source)
        if movie is None or not movie.compressed or movie.version != found.version:
            if movie is None and is_reference(self.arrivals.path(found.source)):
                self.tell(f"{found.source}: {REFERENCE}; left out")
                self._failed[found.source] = found.version
                return None
            return self._job("compressed", found, self._compress)
        # What was deleted just now may be in the last look still.
        if self.delete and not movie.kept and self.arrivals.version(found.source) is not None:
            return self._job("deleted", found, self._delete)
        return None

    def _job(
        self, kind: str, found: Found, work: Callable[[Found, Report | None], Outcome]
    ) -> WatchJob:
        path = str(self.arrivals.path(found.source))
        return WatchJob(kind, found.source, found.version, path, lambda report: work(found, report))

    def _do(self, job: WatchJob) -> Step | None:
        """Do a job; return None if it is to be done again, later."""
        name = os.path.basename(job.source)
        try:
            outcome = attempt(
                job, lambda stage, done, of: self.report(f"{name}: {stage}", done, of)
            )
        except DiskFull:
            self._wait_for_room()
            return None
        if self._paused:
            self.tell("there is room again: it goes on")
            self._paused = False
        if outcome.ok:
            if outcome.kept:
                self._failed[job.movie] = job.version
            return Step(job.kind, outcome)
        now = self.arrivals.version(job.movie)
        if job.kind == "compressed" and now not in (None, job.version):
            self.tell(f"{job.movie} was written to while it was read: it waits until it rests")
            return None
        if job.kind in ("compressed", "deleted"):
            self._failed[job.movie] = job.version
        elif self.corrections is not None:
            self.corrections.leave_out(job)
        with contextlib.suppress(OSError):  # the journal does without it
            self.ledger.record("failed", source=job.movie, at=job.kind, error=outcome.error)
        return Step(job.kind, outcome)

    def _compress(self, found: Found, report: Report | None) -> Outcome:
        source = self.arrivals.path(found.source)
        target = without_packing(self.out / found.source).with_suffix(".mrcz").absolute()
        replaces = self.ledger.may_replace(target, found.source, overwrite=self.overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        movie = self.ledger.movie(found.source)
        if movie is None or movie.version != found.version or movie.target != str(target):
            version = {"size": found.version.size, "mtime_ns": found.version.mtime_ns}
            self.ledger.record("begun", source=found.source, target=str(target), **version)
        task = Recode(
            str(source), str(target), **self.options, verify=True, judge=True, overwrite=replaces
        )
        outcome = task(report)
        if self.arrivals.version(found.source) != found.version:
            raise MrczError(source, "has changed while it was compressed")
        said = {"nbytes": outcome.target_nbytes, "stamp": outcome.result, "kept": outcome.kept}
        if outcome.warnings:
            said["warnings"] = list(outcome.warnings)
        self.ledger.record("compressed", source=found.source, **said)
        return self._keeping(replace(outcome, result=None), outcome.kept)

    def _delete(self, found: Found, report: Report | None) -> Outcome:
        source, movie = self.arrivals.path(found.source), self.ledger.movie(found.source)
        marker = self.arrivals.marker_of(found.source)
        with (
            SourceFiles([str(source)], resting=True) as files,
            SourceFiles([movie.target if movie else ""]) as result,
        ):
            if movie is None or self.arrivals.version(found.source) != found.version:
                raise MrczError(source, "has changed, and is kept")
            checked = verify(movie.target, progress=staged(report, "checking the result"))
            if not checked or os.stat(movie.target).st_size != movie.nbytes:
                advice = "The source is kept"
                raise MrczError(source, "its result is not as it was verified", advice=advice)

            if movie.stamp != files.stamp:
                return self._keeping(Outcome(str(source)), TOUCHED)
            if not movie.deleting:
                self.ledger.record("deleting", source=found.source)

            def before() -> None:
                result.check_result()
                # The marker first: it would call the next movie of this name finished.
                if marker is not None:
                    marker.unlink(missing_ok=True)

            try:
                return Outcome(str(source), notes=(files.delete(before),))
            except BaseException as reason:  # an interrupt, too, leaves the source where it was
                said = {"stamp": files.stamp, "why": str(reason)}
                self.ledger.record("kept", source=found.source, **said)
                if not isinstance(reason, Kept):
                    raise
                return self._keeping(Outcome(str(source)), str(reason))

    def _keeping(self, outcome: Outcome, why: str) -> Outcome:
        """Return an outcome that says why its source is kept, if it was to be deleted."""
        if not self.delete or not why:
            return replace(outcome, kept="")
        return replace(outcome, kept=why, notes=(*outcome.notes, f"source kept: {why}"))

    def _wait_for_room(self) -> None:
        """Wait until there is more room than there is now."""
        free = free_nbytes(self.out)
        if not self._paused:
            self._paused = True
            self.tell(
                f"no room on the disk of {self.out} ({size_text(free)} free): "
                "paused; it goes on when there is room"
            )
        until = time.monotonic() + _TRY_ANYWAY
        while free_nbytes(self.out) <= free and time.monotonic() < until:
            self.wait(_LOOK_FOR_ROOM)
