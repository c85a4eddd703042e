"""Watching: what is finished is compressed, verified, deleted if that is wanted, and corrected.

One thing is done after the other. Movies that wait to be compressed come first, as the disk that
they arrive on is the one that must not fill; corrections are done between them. Every step is told
to the journal when it is done, so that a process that is killed is followed by one that goes on
where it was: at most the file that was being written is written anew.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, size_text
from napari_mrcz.naming import without_packing
from napari_mrcz.session.convert import Recode
from napari_mrcz.session.movies import REFERENCE, is_reference
from napari_mrcz.session.run import attempt
from napari_mrcz.session.source_files import TOUCHED, Kept, SourceFiles
from napari_mrcz.session.tasks import Outcome, staged
from napari_mrcz.session.watching.arrival import Look
from napari_mrcz.session.watching.job import DiskFull, Job, free_nbytes
from napari_mrcz.stack import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from napari_mrcz.session.tasks import Report
    from napari_mrcz.session.watching.arrival import Arrivals, Found
    from napari_mrcz.session.watching.correcting import Corrections
    from napari_mrcz.session.watching.ledger import Ledger, Version

# How often a full disk is looked at, and after how long it is tried anyway: quotas do not show.
_LOOK_FOR_ROOM, _TRY_ANYWAY = 5.0, 60.0


@dataclass(frozen=True)
class Ending:
    """When a session is over; neither: when the process is interrupted.

    Attributes
    ----------
    once : bool
        When what is there is done. A movie that is still being written is left.
    silence : float, optional
        When nothing has come for so many seconds.
    """

    once: bool = False
    silence: float | None = None


@dataclass(frozen=True)
class Step:
    """Something that was done.

    Attributes
    ----------
    kind : str
        "compressed", "deleted", "summed" or "corrected"; what was tried, if it failed.
    outcome : Outcome
        How it went.
    """

    kind: str
    outcome: Outcome


@dataclass
class Watch:
    """Follows a session until it is over.

    Attributes
    ----------
    arrivals : Arrivals
        The folder.
    ledger : Ledger
        What is done.
    out : Path
        Folder for the results; folders within the watched one are made in it too.
    wait : callable
        Waits for so many seconds, or until something happens.
    tell : callable
        Called with a sentence when something is to be known: no room, and room again.
    options : dict
        How movies are compressed, as `napari_mrcz.session.convert.Recode` takes it.
    corrections : Corrections, optional
        What is done then.
    delete : bool
        Delete sources whose results were verified.
    overwrite : bool
        Replace results that are not ours.
    ending : Ending
        When it is over.
    report : callable, optional
        Called with (what is done, frames done, frames).
    """

    arrivals: Arrivals
    ledger: Ledger
    out: Path
    wait: Callable[[float], None]
    tell: Callable[[str], None]
    options: Mapping[str, Any] = field(default_factory=dict)
    corrections: Corrections | None = None
    delete: bool = False
    overwrite: bool = False
    ending: Ending = Ending()
    report: Report | None = None
    _failed: dict[str, Version] = field(default_factory=dict, init=False)
    _unseen: bool = field(default=False, init=False)
    _unreadable: set[str] = field(default_factory=set, init=False)
    _paused: bool = field(default=False, init=False)
    _finished: tuple[Found, ...] = field(default=(), init=False)
    _to_do: deque[Found] = field(default_factory=deque, init=False)
    _told: set[tuple[bool, bool]] = field(default_factory=set, init=False)

    def steps(self) -> Iterator[Step]:
        """Do all that is to be done, as it comes.

        Yields
        ------
        Step
            Each when it is done.

        Raises
        ------
        OSError
            If the folder cannot be read at the start; later that is told, and waited for.
        """
        self._tell_of_journal()
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
        if self.ending.once and look.unfinished:
            self.tell(f"left, as they are not finished: {', '.join(look.unfinished)}")

    @property
    def waiting(self) -> int:
        """How many stacks wait for their KOMA window."""
        return 0 if self.corrections is None else len(self.corrections.waiting)

    def _tell_of_journal(self) -> None:
        """Print what was done before, if anything was."""
        if done := self._n_compressed():
            rest = f", {self.waiting} to be corrected" if self.corrections is not None else ""
            self.tell(f"going on: {done} compressed{rest}")

    def _tell_standing(self, look: Look) -> None:
        """Show what is waited for; as a sentence, too, when something of another kind is."""
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
        self._tell_progress(said, done, done + resting)
        kind = resting > 0, self.waiting > 0
        if kind not in self._told:
            self._told.add(kind)
            self.tell(said)

    def _n_compressed(self) -> int:
        return sum(movie.compressed > 0 for movie in self.ledger.movies)

    def _tell_progress(self, what: str, done: int, of: int) -> None:
        if self.report is not None:
            self.report(what, done, of)

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
        """Print once per folder that it is skipped for as long as it cannot be read."""
        for folder in look.unreadable:
            if folder not in self._unreadable:
                self.tell(f"{folder}: passed over")
        self._unreadable = set(look.unreadable)

    def _is_over(self, look: Look, since_start: float, since_change: float) -> bool:
        if self.ending.once:
            return look.soonest is None or since_start > self.arrivals.longest
        silence = self.ending.silence
        return silence is not None and look.soonest is None and since_change >= silence

    def _pause(self, look: Look, since_start: float, since_change: float) -> float:
        """Return the seconds after which something may have to be done."""
        pauses = [float("inf") if look.soonest is None else look.soonest]
        if self.ending.once:
            pauses.append(self.arrivals.longest - since_start)
        if self.ending.silence is not None:
            pauses.append(self.ending.silence - since_change)
        if self.corrections is not None:
            patience = self.corrections.patience()
            if patience is not None:
                pauses.append(patience)
        # Never none at all: a clock may be a little behind what was reckoned.
        return max(min(pauses), 0.01)

    def _next(self, look: Look, *, ending: bool) -> Job | None:
        """Return what is to be done next."""
        if look.finished is not self._finished:
            self._finished = look.finished
            self._to_do = deque(look.finished)
        while self._to_do:
            job = self._job_for(self._to_do[0])
            if job is not None:
                return job
            self._to_do.popleft()
        return None if self.corrections is None else self.corrections.next(ending=ending)

    def _job_for(self, found: Found) -> Job | None:
        """Return what is to be done with a movie that is finished, before it is corrected."""
        if self._failed.get(found.source) == found.version:
            return None
        movie = self.ledger.movie(found.source)
        if movie is None or not movie.compressed or movie.version != found.version:
            if movie is None and is_reference(self.arrivals.path(found.source)):
                self.tell(f"{found.source}: {REFERENCE}; left out")
                self._failed[found.source] = found.version
                return None
            return self._job("compressed", found, self._compress)
        if self.delete and not movie.kept:
            return self._job("deleted", found, self._delete)
        return None

    def _job(self, kind: str, found: Found, work: Callable[[Found, Report | None], Outcome]) -> Job:
        path = str(self.arrivals.path(found.source))
        return Job(kind, found.source, found.version, path, lambda report: work(found, report))

    def _do(self, job: Job) -> Step | None:
        """Do something; None if it is to be done again, later."""
        name = os.path.basename(job.source)

        def report(stage: str, done: int, of: int) -> None:
            self._tell_progress(f"{name}: {stage}", done, of)

        try:
            outcome = attempt(job, report)
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
        with contextlib.suppress(OSError):  # only for who reads the journal
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
        """Return an outcome that says why a source is kept that was to be deleted."""
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
