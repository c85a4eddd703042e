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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.correction.history import fingerprint
from napari_mrcz.correction.koma import KomaOptions, normalisation
from napari_mrcz.correction.rolling import RollingAverage
from napari_mrcz.errors import MrczError
from napari_mrcz.naming import without_packing
from napari_mrcz.session.correct import Correct, Survey, with_orientation_of
from napari_mrcz.session.koma import doubt_of_contrasts, kept_out
from napari_mrcz.session.order import ARRIVED, by_acquisition
from napari_mrcz.session.watching.job import Job
from napari_mrcz.session.watching.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from napari_mrcz.correction.koma import KomaNormalization
    from napari_mrcz.session.correct import Surveyed
    from napari_mrcz.session.recipe import Recipe
    from napari_mrcz.session.tasks import Outcome, Report
    from napari_mrcz.session.watching.ledger import Ledger, Movie, Version


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
        self._rolling: tuple[Any, RollingAverage] | None = None
        self._left_out: dict[str, Version] = {}
        self._n_discarded = 0
        self.order = ""

    @property
    def waiting(self) -> list[Movie]:
        """The compressed movies that are not corrected, without those that failed."""
        return [movie for movie in self._compressed() if movie.corrected != self._made_by]

    def leave_out(self, job: Job) -> None:
        """Leave out a movie, as it failed."""
        self._left_out[job.movie] = job.version

    def next(self, *, ending: bool) -> Job | None:
        """Return what can be done now.

        Parameters
        ----------
        ending : bool
            Whether nothing more is waited for.
        """
        waiting = self.waiting
        if not waiting:
            return None
        koma = self._recipe.koma
        if koma is None:
            movie = waiting[0]
            return _job("corrected", movie, lambda report: self._correct(movie, report))
        usable: list[Movie] = []
        for movie in self._compressed():
            if movie.summed is None or movie.summed.recipe != self._made_by:
                return self._survey_of(movie, usable[0] if usable else None)
            usable.append(movie)
        looks = [movie.summed for movie in usable]
        usable, self.order = by_acquisition(usable, looks, ARRIVED)
        return self._complete(usable, koma.radius, koma.limit, ending=ending)

    def patience(self) -> float | None:
        """Return the seconds until a stack will have waited long enough; None if none will."""
        if self._timeout is None:
            return None
        now = time.time() - self._timeout
        return min((m.compressed - now for m in self.waiting if m.compressed > now), default=None)

    def _compressed(self) -> list[Movie]:
        found = (movie for movie in self._ledger.movies if movie.compressed)
        return [movie for movie in found if self._left_out.get(movie.source) != movie.version]

    def _survey_of(self, movie: Movie, first: Movie | None) -> Job:
        return _job("summed", movie, lambda report: self._survey(movie, first, report))

    def _complete(
        self, usable: list[Movie], radius: int, limit: float, *, ending: bool
    ) -> Job | None:
        """Find a stack whose window is complete, or is waited for no longer."""
        summed = {i: m.summed for i, m in enumerate(usable) if m.summed is not None}
        left_out = kept_out(
            {i: found.n_frames for i, found in summed.items()},
            {i: found.thumbnail for i, found in summed.items()},
            limit,
        ).all
        members = [i for i in range(len(usable)) if i not in left_out]
        self._discard_sums(usable, members, radius)
        impatient = -np.inf if self._timeout is None else time.time() - self._timeout
        for index, movie in enumerate(usable):
            if movie.corrected == self._made_by:
                continue
            later = sum(member > index for member in members)
            others = len(members) - (index not in left_out)
            complete = later >= radius and others >= 2 * radius
            if complete or ending or (movie.compressed <= impatient and others):
                return self._normalisation_of(index, usable, members, left_out.get(index, ""))
        return None

    def _normalisation_of(
        self, index: int, usable: list[Movie], members: list[int], why: str
    ) -> Job:
        def work(report: Report | None) -> Outcome:
            return self._normalise(index, usable, members, why, report)

        return _job("corrected", usable[index], work)

    def _survey(self, movie: Movie, first: Movie | None, report: Report | None) -> Outcome:
        outcome = Survey(movie.target, self._oriented(movie))(report)
        found: Surveyed = outcome.result
        shape = found.sum.total.shape
        if first is not None and first.summed is not None and shape != first.summed.shape:
            said = f"has frames of {shape}, the stacks before {first.summed.shape}"
            raise MrczError(movie.target, said, advice="A session is of one camera and mode")
        self._sums.save(movie, found)
        self._ledger.record(
            "summed",
            source=movie.source,
            recipe=self._made_by,
            n_frames=found.sum.n_frames,
            shape=list(shape),
            thumbnail=found.sum.thumbnail.tolist(),
            variance=found.sum.variance,
            acquired=found.acquired and found.acquired.isoformat(),
        )
        return replace(outcome, result=None)

    def _normalise(
        self, index: int, usable: list[Movie], members: list[int], why: str, report: Report | None
    ) -> Outcome:
        options = self._recipe.koma or KomaOptions()
        rolling = self._rolling_over(usable, members, options.radius)
        movie, near = usable[index], rolling.neighbours(index)
        average = rolling.at(index)
        surveyed = self._surveyed(movie)
        averaged = (usable[i].summed for i in members)
        doubt = doubt_of_contrasts(found for found in averaged if found is not None)
        correction = normalisation(
            average,
            surveyed.sum.total,
            surveyed.sum.n_frames,
            surveyed.sum.variance,
            options,
            index=index,
            neighbours=[usable[i].target for i in near],
            order=self.order,
            doubts=[doubt] if doubt else [],
        )
        outcome = self._correct(movie, report, surveyed.outliers, correction)
        notes = [f"in no average: {why}"] if why else []
        shared = (doubt,) if doubt else ()
        return replace(outcome, notes=(*outcome.notes, *notes), shared=shared)

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

    def _rolling_over(self, usable: list[Movie], members: list[int], radius: int) -> RollingAverage:
        """Return the average that was used before, if it is of the same stacks."""
        key = [(movie.source, movie.version) for movie in usable], members
        if self._rolling is None or self._rolling[0] != key:
            rolling = RollingAverage(lambda i: self._sum_of(usable[i]), members, radius)
            self._rolling = key, rolling
        return self._rolling[1]

    def _sum_of(self, movie: Movie) -> tuple[npt.NDArray[Any], int]:
        found = self._surveyed(movie).sum
        return found.total, found.n_frames

    def _surveyed(self, movie: Movie) -> Surveyed:
        found = self._sums.load(movie)
        if found is None:  # it was deleted, by us as one that is not needed or by others
            found = Survey(movie.target, self._oriented(movie))().result
            self._sums.save(movie, found)
        return found

    def _discard_sums(self, usable: list[Movie], members: list[int], radius: int) -> None:
        """Delete the sums of stacks that no window will reach any more.

        Windows reach back by 2 x radius at the end; by one radius more if stacks of high contrast
        are found later.
        """
        first = next((i for i, m in enumerate(usable) if m.corrected != self._made_by), len(usable))
        before = [member for member in members if member < first]
        oldest = before[-3 * radius] if len(before) > 3 * radius else 0
        for movie in usable[self._n_discarded : oldest]:
            self._sums.discard(movie)
        self._n_discarded = max(self._n_discarded, oldest)


def _job(kind: str, movie: Movie, work: Callable[[Report | None], Outcome]) -> Job:
    return Job(kind, movie.source, movie.version, movie.target, work)
