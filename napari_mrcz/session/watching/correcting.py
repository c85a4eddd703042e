"""What of a session can be corrected by now, with a KOMA window that follows it.

Steps that concern one stack alone (outliers, gain) need no other, and a recipe without KOMA is done
to each movie as soon as it is compressed. With KOMA a stack waits until its window is complete:
until as many stacks of usual contrast have come after it as its radius asks for, and 2 x radius
others in all. Then its window is the one that it has in the finished session, and so is its
average, to the last bit. Stacks whose window will not be complete, as nothing more comes, are
corrected when the session ends (`ending`) or when they have waited for longer than a timeout;
their window shifts towards the earlier stacks, as it does at the end of a session. Each is
corrected once.

Which stacks are of high contrast or cut off, and enter no average, is judged by all that have
arrived by then.
What is read are the compressed movies: their sources may be gone.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_mrcz.correction.history import fingerprint
from napari_mrcz.correction.rolling import NO_NEIGHBOURS
from napari_mrcz.errors import MrczError, collected_warnings
from napari_mrcz.naming import without_packing
from napari_mrcz.session.correct import Correct, Survey, with_orientation_of
from napari_mrcz.session.koma import Koma, usual_shape
from napari_mrcz.session.order import ARRIVED, by_acquisition
from napari_mrcz.session.watching.job import Job
from napari_mrcz.session.watching.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from napari_mrcz.correction.koma import KomaNormalization, KomaOptions
    from napari_mrcz.session import Session
    from napari_mrcz.session.correct import Surveyed
    from napari_mrcz.session.recipe import Recipe
    from napari_mrcz.session.tasks import Outcome, Report
    from napari_mrcz.session.watching.ledger import Ledger, Movie, Summed, Version


class Corrections:
    """Finds what is to be done next, and does it.

    Parameters
    ----------
    ledger : Ledger
        The movies.
    out : Path
        Folder of the compressed movies; results go to ``corrected`` in it.
    recipe : Recipe
        What is done. Movies that were corrected by another recipe are corrected again.
    timeout : float, optional
        Seconds after which a stack does not wait for its window any more.
    overwrite : bool
        Replace results that are not ours.

    Attributes
    ----------
    order : str
        What makes stacks neighbours: the times at which they were acquired, where the metadata of
        all has them, or their arrival; empty before that matters.
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
        self._n_discarded = 0
        self.order = ""

    @property
    def waiting(self) -> list[Movie]:
        """The compressed movies that are not corrected, without those that failed."""
        return [
            movie
            for movie in self._compressed()
            if movie.corrected != self._made_by and self._refused.get(movie.source) != movie.version
        ]

    def leave_out(self, job: Job) -> None:
        """Leave out a movie, as it failed."""
        if self._refused.get(job.movie) != job.version:
            self._left_out[job.movie] = job.version

    def next(self, *, ending: bool) -> Job | None:
        """Return what can be done now.

        Parameters
        ----------
        ending : bool
            Whether nothing more is waited for.
        """
        koma = self._recipe.koma
        if koma is None:
            for movie in self._compressed():
                if movie.corrected != self._made_by:
                    return self._job("corrected", movie, partial(self._correct, movie))
            return None
        # What is corrected changes nothing of the plan.
        key = self._ledger.revision, len(self._left_out)
        if self._plan is None or self._plan[0] != key:
            if not self.waiting:
                return None
            movies = list(self._compressed())
            for movie in movies:
                if movie.summed is None or movie.summed.recipe != self._made_by:
                    return self._job("summed", movie, partial(self._survey, movie))
            plan = self._planned(movies, koma)
            self._plan = key, plan
        plan = self._plan[1]
        return self._complete(plan, koma.radius, ending=ending)

    def patience(self) -> float | None:
        """Return the seconds until a stack will have waited long enough; None if none will."""
        if self._timeout is None:
            return None
        now = time.time() - self._timeout
        return min((m.compressed - now for m in self.waiting if m.compressed > now), default=None)

    def _compressed(self) -> Iterator[Movie]:
        return (
            movie
            for movie in self._ledger.movies
            if movie.compressed and self._left_out.get(movie.source) != movie.version
        )

    def _job(self, kind: str, movie: Movie, work: Callable[[Report | None], Outcome]) -> Job:
        return Job(kind, movie.source, movie.version, movie.target, work)

    def _planned(self, movies: list[Movie], step: KomaOptions) -> _Plan:
        movies, self.order = by_acquisition(movies, [movie.summed for movie in movies], ARRIVED)
        summed = {movie.source: movie.summed for movie in movies if movie.summed is not None}
        shape = usual_shape(one.shape for one in summed.values())
        usable = [movie for movie in movies if summed[movie.source].shape == shape]
        others = [movie for movie in movies if summed[movie.source].shape != shape]
        session = _Arrived(usable, [summed[movie.source] for movie in usable], self._load)
        session.order = self.order
        koma = None
        if len(usable) > 1:
            koma = Koma(cast("Session", session), **asdict(step))
            with collected_warnings():  # each outcome has them
                koma.survey()
        left_out = {} if koma is None else koma.left_out
        members = [i for i in range(len(usable)) if i not in left_out]
        return _Plan(session, others, koma, left_out, members)

    def _complete(self, plan: _Plan, radius: int, *, ending: bool) -> Job | None:
        """Find a stack whose window is complete, or is waited for no longer."""
        impatient = -np.inf if self._timeout is None else time.time() - self._timeout
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
            if complete or ending or (movie.compressed <= impatient and others):
                work = partial(self._normalise, plan, index)
                return self._job("corrected", movie, work)
        if ending or len(plan.session) > 2 * len(plan.others):
            for movie in plan.others:
                if self._refused.get(movie.source) != movie.version:
                    self._refused[movie.source] = movie.version
                    return self._job("corrected", movie, partial(self._refuse, plan, movie))
        return None

    def _is_done(self, movie: Movie) -> bool:
        now = self._ledger.movie(movie.source)
        return now is not None and now.corrected == self._made_by

    def _survey(self, movie: Movie, report: Report | None) -> Outcome:
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
        surveyed = self._load(movie)
        summed = plan.session.summed
        if not summed[index].variance:  # of a journal of an earlier version
            summed[index] = replace(summed[index], variance=surveyed.sum.variance)
        outcome = self._correct(movie, report, surveyed.outliers, plan.koma[index])
        notes = [f"in no average: {plan.left_out[index]}"] if index in plan.left_out else []
        return replace(outcome, notes=(*outcome.notes, *notes), shared=plan.koma.shared_warnings)

    def _refuse(self, plan: _Plan, movie: Movie, report: Report | None) -> Outcome:
        shape = movie.summed and movie.summed.shape
        said = f"frames of {shape}, where most of the session has {plan.session.summed[0].shape}"
        raise MrczError(movie.target, said, advice="A session is of one camera and mode")

    def _correct(
        self,
        movie: Movie,
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

    def _oriented(self, movie: Movie) -> Recipe:
        """Return the recipe, with the orientation that a movie shows where that is asked.

        With KOMA all movies are treated as the first, whose average is that of others. Without,
        the reference is looked at again with each movie, until it helps one.
        """
        gain, koma = self._recipe.gain, self._recipe.koma
        if gain is None or gain.orientation != "auto":
            return self._recipe
        if koma is not None:
            movie = next(first for first in self._ledger.movies if first.compressed)
        oriented = with_orientation_of(self._recipe, [movie.target])
        if koma is not None or oriented.gain is not None:
            self._recipe = oriented
        return oriented

    def _load(self, movie: Movie) -> Surveyed:
        found = self._sums.load(movie)
        if found is None:  # it was deleted, by us as one that is not needed or by others
            found = Survey(movie.target, self._oriented(movie))().result
            self._sums.save(movie, found)
        return found

    def _discard_sums(self, plan: _Plan, radius: int) -> None:
        """Delete the sums of stacks that no window will reach any more.

        Windows reach back by 2 x radius at the end; by one radius more if stacks of high contrast
        are found later.
        """
        before = bisect_left(plan.members, plan.first)
        oldest = plan.members[before - 3 * radius] if before > 3 * radius else 0
        for movie in plan.session.movies[self._n_discarded : oldest]:
            self._sums.discard(movie)
        self._n_discarded = max(self._n_discarded, oldest)


class _Arrived:
    """Compressed movies of one frame shape, in order, as `Koma` takes a session."""

    def __init__(
        self, movies: list[Movie], summed: list[Summed], load: Callable[[Movie], Surveyed]
    ) -> None:
        self.movies = movies
        self.summed = summed
        self.order = ""
        self._load = load

    def __len__(self) -> int:
        return len(self.movies)

    def name(self, index: int) -> str:
        return self.movies[index].target

    def summary(self, index: int) -> Summed:
        return self.summed[index]

    def total(self, index: int) -> npt.NDArray[Any]:
        return self._load(self.movies[index]).sum.total


@dataclass
class _Plan:
    """What can be corrected of the movies that are known by now.

    Attributes
    ----------
    session : _Arrived
        The usable ones.
    others : list of Movie
        Of another frame shape.
    koma : Koma or None
        The corrections of the usable ones; None if there are fewer than two.
    left_out : dict of str
        Which of these enter no average, and why.
    members : list of int
        Which do.
    first : int
        The first that is not corrected.
    """

    session: _Arrived
    others: list[Movie]
    koma: Koma | None
    left_out: Mapping[int, str]
    members: list[int]
    first: int = 0
