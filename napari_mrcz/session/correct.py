"""A session corrected by a recipe, one task per stack; only sums are passed between them.

With KOMA every stack is read twice: first for its outliers and its sum, then, when the sums of its
neighbours are known, to be corrected and written.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgpack
import numpy as np

from napari_mrcz.correction import GainNormalization, OutlierFilter, find_orientation
from napari_mrcz.correction.gain import (
    BLANK,
    NORMALISED,
    GainStep,
    doubts_of_gain,
    fitted_gain,
    is_normalised,
)
from napari_mrcz.correction.history import fingerprint, rebuild
from napari_mrcz.correction.koma import KomaNormalization, KomaOptions
from napari_mrcz.correction.orientation import NoCounts
from napari_mrcz.correction.outliers.thresholds import OutlierOptions
from napari_mrcz.correction.rolling import NO_NEIGHBOURS, neighbours_of
from napari_mrcz.errors import MrczError, collected_warnings, counted, failure_text
from napari_mrcz.format import Encoding, FrameReader
from napari_mrcz.format.files import file_nbytes
from napari_mrcz.format.footer import from_tagged, to_plain
from napari_mrcz.session import Session
from napari_mrcz.session.averages import of_other_shapes, surveyed_koma
from napari_mrcz.session.recipe import PLACES, Recipe
from napari_mrcz.session.run import run_all
from napari_mrcz.session.summaries import StackSum, Surveyed, summarise
from napari_mrcz.session.survey import GIVEN, acquired_at
from napari_mrcz.session.tasks import WHOLE, Making, Outcome, Report, Selection, staged
from napari_mrcz.stack import Stack
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.keeping import check_integers, estimated_sizes, sizes_text
from napari_mrcz.stack.kept import packed_mean, packed_nbytes, problem_of
from napari_mrcz.stack.references import read_defects, read_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from napari_mrcz.session.source_files import SourceFiles
    from napari_mrcz.session.tasks import Task


@dataclass(frozen=True)
class Survey:
    """Fits a stack's outlier filter and sums its corrected frames."""

    source: str  # The movie
    recipe: Recipe  # What is done before KOMA

    def __call__(self, report: Report | None = None) -> Outcome:
        """Fit and sum; the result of the outcome is `Surveyed`."""
        start = time.perf_counter()
        with open_stack(self.source) as movie:
            recipe, _ = without_done(self.recipe, movie)
            _check_kept(movie, recipe)
            stack, outliers, _ = corrected(movie, recipe)
            found = summarise(stack, staged(report, "summing"))
            acquired = acquired_at(movie.metadata)
        described = None if outliers is None else dict(outliers.describe())
        surveyed = Surveyed(described, found, acquired)
        seconds, nbytes = time.perf_counter() - start, file_nbytes(self.source)
        return Outcome(self.source, source_nbytes=nbytes, seconds=seconds, result=surveyed)

    def sum(self) -> StackSum:
        """Return the sum alone."""
        return self().result.sum


@dataclass(frozen=True)
class Correct(Making):
    """Corrects a stack by a recipe and writes it."""

    recipe: Recipe  # What is done
    outliers: Mapping[str, Any] | None = None  # The filter, where it was fitted before
    koma: KomaNormalization | None = field(default=None, repr=False)  # The stack's own
    selection: Selection = WHOLE  # Part of the corrected movie that is written
    corrects: ClassVar[bool] = True

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Correct and write."""
        output = self.recipe.output
        record = {**record, "output": asdict(output)}
        with open_stack(self.source) as movie:
            recipe, done = without_done(self.recipe, movie)
            _check_kept(movie, recipe)
            stack, outliers, doubts = corrected(movie, recipe, self.outliers)
            if done or doubts:
                record = {**record, "warnings": [*done, *doubts]}
            koma = self.koma if recipe.koma == self.recipe.koma else None  # it has had it
            if koma is not None:
                stack = stack.apply(koma)
            if recipe.koma is not None:
                stack = _with_own(stack, recipe, "koma")
            if doubts and not done and len(stack.history) == len(movie.history):
                raise MrczError(self.source, doubts[-1].removesuffix("."), advice=_NOTHING_LEFT)
            stack, selected = self.selection.of(stack), self.selection.note(movie)
            tell = files.watched(staged(report, "correcting"))
            self._write_result(stack, record, **output.arguments, progress=tell)
        files.check()
        notes = selected
        warnings = [*done, *doubts]
        if outliers is not None:
            known = f", {counted(outliers.n_defects, 'defect')}" if outliers.n_defects else ""
            notes.append(f"{outliers.n_hot} hot and {outliers.n_dark} dark pixels{known}")
            warnings += outliers.warnings
        if koma is not None:
            warnings += koma.warnings
        return Outcome(self.source, notes=tuple(notes), warnings=tuple(warnings))

    def options(self) -> dict[str, Any]:
        """Return the recipe, as a fingerprint, and the names of the stacks averaged by KOMA.

        Where these are not known, they are taken to be those of a result that is there.
        """
        with open_stack(self.source) as movie:
            _, y, x = movie.shape
        options: dict[str, Any] = {"recipe": _fingerprint_of(self.recipe, (y, x))}
        options |= self.selection.chosen
        if self.recipe.again:
            options["again"] = True
        if self.koma is not None:
            options["neighbours"] = [Path(name).name for name in self.koma.neighbours]
        elif self.recipe.koma is not None:
            options["neighbours"] = self.recorded().get("neighbours")
        return options

    def planned(self) -> Outcome:
        """Return what would be done, as far as that is known before all movies are summed."""
        planned = super().planned()
        if planned.skipped:
            if self.recipe.koma is not None:
                note = "there already, and whole, if the same movies are averaged"
                planned = replace(planned, notes=(note,))
            return planned
        sizes = self.sizes()
        output = self.recipe.output
        chosen = output.dtype or next(iter(sizes))
        nbytes = sizes.get(output.keep, sizes.get(chosen, 0))
        return replace(planned, target_nbytes=nbytes, notes=(*planned.notes, sizes_text(sizes)))

    def sizes(self) -> dict[str, int]:
        """Return how many bytes the result would take as each pixel type, and as counts.

        From excerpts of three frames after the gain; nothing is fitted for it. KOMA's average is
        not known before the session is summed: one that is as noisy takes its place.
        """
        output = self.recipe.output
        with open_stack(self.source) as movie:
            recipe, _ = without_done(self.recipe, movie)
            stack, _, _ = corrected(movie, replace(recipe, outliers=None))
            footer_nbytes = 0
            if recipe.koma is not None:
                gain = None if recipe.gain is None else _gain(recipe.gain, movie.shape[1:])
                koma, footer_nbytes = _stand_in(movie, recipe.koma.radius, gain)
                stack = _with_own(stack.apply(koma), recipe, "koma")
            if output.keep == "counts":
                check_integers(self.target, stack)
            codec = "zstd" if output.codec == "auto" else output.codec
            encoding = Encoding(codec, output.level, output.filter)
            sizes = estimated_sizes(stack, encoding, footer_nbytes)
            if self.selection.is_whole:
                return sizes
            sizes.pop("counts", None)  # whole movies are kept as these
            part = self.selection.of(stack).size / stack.size
            return {name: round(nbytes * part) for name, nbytes in sizes.items()}

    def _why_not_done(self, files: SourceFiles, report: Report | None) -> str:
        """Return why an existing file is not the result: also if its gain reference is missing."""
        why = super()._why_not_done(files, report)
        if not why and self.recipe.output.keep == "counts":
            with FrameReader(self.target) as reader:
                why = problem_of(reader.path, reader.footer.other)
        return why

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result."""
        with open_stack(self.source) as movie:
            return self.selection.of(movie).shape


def correct_all(
    tasks: Iterable[Correct],
    *,
    client: Any = None,
    order: str = GIVEN,
    report: Report | None = None,
) -> Iterator[Outcome]:
    """Correct a session, and yield the outcome of each movie as it comes.

    A movie that cannot be used is not averaged, and not written. With KOMA the sums of all movies
    are needed for any result that is not there yet.

    `tasks`: one per movie, in order of acquisition, all of one recipe; `client`, `report`: as
    `run_all` takes them; `order`: what the order of the movies is, for their history.
    """
    tasks = list(tasks)
    run = partial(run_all, client=client, report=report)
    koma = tasks[0].recipe.koma
    if koma is None:
        yield from run(tasks)
        return
    if tasks[0].skip_existing and _are_of_one_session(tasks, koma.radius):
        of_all = set.intersection(*(set(task.said_before()) for task in tasks))
        yield from (replace(outcome, shared=tuple(of_all)) for outcome in run(tasks))
        return
    with tempfile.TemporaryDirectory(prefix="napari-mrcz-") as folder:
        yield from _averaged(tasks, koma, Path(folder), order, run)


def _averaged(
    tasks: Sequence[Correct],
    options: KomaOptions,
    folder: Path,
    order: str,
    run: Callable[[Iterable[Task]], Iterator[Outcome]],
) -> Iterator[Outcome]:
    """Correct a session with KOMA; the outlier filters that were fitted wait in a folder."""
    recipe = tasks[0].recipe
    correct_of = {task.source: task for task in tasks}
    shapes: dict[str, tuple[int, int]] = {}
    at = {source: index for index, source in enumerate(correct_of)}
    session = Session(correct_of, order=order)
    for outcome in run(Survey(source, recipe) for source in correct_of):
        if outcome.ok:
            found: Surveyed = outcome.result
            index = at[outcome.source]
            session.learn(index, found.sum, Survey(outcome.source, recipe).sum)
            Path(folder, str(index)).write_bytes(msgpack.packb(to_plain(found.outliers)))
            y, x = found.sum.total.shape
            shapes[outcome.source] = y, x
        else:
            yield outcome
    # In order, whichever worker was first.
    wrong = of_other_shapes({source: shapes[source] for source in correct_of if source in shapes})
    for source, why in wrong.items():
        yield Outcome(source, error=f"{source}: {why}")
    usable = [source for source in correct_of if source in shapes and source not in wrong]
    if len(usable) < 2:
        for source in usable:
            yield Outcome(source, error=f"{source}: {NO_NEIGHBOURS}")
        return
    koma = surveyed_koma(session.chosen(at[source] for source in usable), options)
    why_left_out = {usable[i]: why for i, why in koma.left_out.items()}
    failed = []

    def corrections() -> Iterator[Correct]:
        for i, source in enumerate(usable):
            try:
                own = koma[i]
            except (OSError, ValueError) as error:
                failed.append(Outcome(source, error=f"{source}: {failure_text(error)}"))
            else:
                kept = Path(folder, str(at[source])).read_bytes()
                outliers = msgpack.unpackb(kept, object_hook=from_tagged)
                yield replace(correct_of[source], outliers=outliers, koma=own)

    for outcome in run(corrections()):
        left_out = why_left_out.get(outcome.source)
        notes = (*outcome.notes, f"in no average: {left_out}") if left_out else outcome.notes
        yield replace(outcome, notes=notes, shared=koma.shared_warnings)
    yield from failed


def _are_of_one_session(tasks: Sequence[Correct], radius: int) -> bool:
    """Return whether results of KOMA are all there, and average what they would average now."""
    names = [Path(task.source).name for task in tasks]
    if len(set(names)) < len(names):
        return False  # other folders have movies of the same name
    averaged = [task.recorded().get("neighbours") for task in tasks]
    if not all(isinstance(near, list) and set(near) <= set(names) for near in averaged):
        return False
    members = sorted({names.index(name) for near in averaged for name in near or ()})
    return all(
        near == [names[i] for i in neighbours_of(index, members, radius)]
        for index, near in enumerate(averaged)
    ) and all(task.is_done() for task in tasks)


def corrected(
    movie: Stack, recipe: Recipe, outliers: Mapping[str, Any] | None = None
) -> tuple[Stack, OutlierFilter | None, tuple[str, ...]]:
    """Return a movie after the steps that need no other, the outlier filter and warnings.

    `movie`: as it was recorded; `recipe`: the steps. Corrections of one's own after KOMA are done
    if there is no KOMA; `outliers`: the filter, if it was fitted before. The warnings are those of
    the recipe and the gain; the filter has its own.
    """
    movie = _with_own(movie, recipe, "start")
    doubts = list(recipe.warnings)
    gain = None if recipe.gain is None else _gain(recipe.gain, movie.shape[1:])
    if gain is not None:
        found = doubts_of_gain(movie, gain, movie.history)
        if found and recipe.gain_is_optional:
            recipe = _without_gain(recipe, found[0])
            doubts += recipe.warnings
            gain = None
        else:
            gain = replace(gain, warnings=(*gain.warnings, *recipe.warnings, *found))
            doubts += gain.warnings
    used = None
    if (step := recipe.outliers) is not None:
        defects = None
        if step.defects:
            defects, said = _defects(step.defects, movie.shape[1:])
            doubts += said
        if outliers is not None:
            used = rebuild(outliers)
        else:
            used = OutlierFilter.fit(
                movie,
                gain=None if gain is None else gain.factor,
                defects=defects,
                **{option.name: getattr(step, option.name) for option in fields(OutlierOptions)},
            )
            if step.dark_threshold or step.hot_threshold:
                used = used.with_thresholds(step.dark_threshold or None, step.hot_threshold or None)
            used = used.settled()
        movie = movie.apply(used)
    movie = _with_own(movie, recipe, "outliers")
    if gain is not None:
        movie = movie.apply(replace(gain, filled=used is not None))
    movie = _with_own(movie, recipe, "gain")
    if recipe.koma is None:
        movie = _with_own(movie, recipe, "koma")
    return movie, used, tuple(dict.fromkeys(doubts))  # type: ignore[return-value]


def _check_kept(movie: Stack, recipe: Recipe) -> None:
    """Raise `MrczError`, before anything is fitted, if a movie has no counts to be kept."""
    if recipe.output.keep == "counts" and not recipe.more:
        check_integers(movie.path or "", movie)


def _with_own(movie: Stack, recipe: Recipe, place: str) -> Stack:
    """Return a movie after the corrections of one's own that follow a step."""
    for correction in recipe.corrections(place):
        movie = movie.apply(correction)
    return movie


def _stand_in(
    movie: Stack, radius: int, gain: GainNormalization | None
) -> tuple[KomaNormalization, int]:
    """Return a normalisation by an average as noisy as a session's, and its bytes in a footer."""
    frames = 2 * radius * len(movie)
    mean = float(np.nanmean(movie[len(movie) // 2], dtype=np.float64))
    level = max(mean, 0.0) if np.isfinite(mean) else 0.0
    tile, per_pixel = _noise(float(f"{min(level * frames, 1e9):.2g}"), frames)
    average = np.resize(tile, movie.shape[1:])
    if gain is not None:
        average = average * gain.factor
    return KomaNormalization(average, level), round(per_pixel * average.size)


@lru_cache(maxsize=4)
def _noise(counts: float, frames: int) -> tuple[npt.NDArray[np.float32], float]:
    """Return the mean of frames that have so many counts per pixel together, and packed bytes."""
    drawn = np.random.default_rng(0).poisson(counts, (512, 512)) / frames
    tile = drawn.astype(np.float32)
    return tile, packed_nbytes(packed_mean(tile, None)) / tile.size


def _fingerprint_of(recipe: Recipe, shape: tuple[int, int]) -> str:
    """Return a text that differs where recipes do, wherever the files that they name lie.

    Keys that have their defaults count for nothing: new ones leave it as it is.
    """
    tables: dict[str, Any] = recipe.chosen()
    defects = np.zeros(shape, np.bool_)
    if (gain := recipe.gain) is not None:
        normalisation = _gain(gain, shape)
        defects |= normalisation.defects
        for key in ("reference", "dark", "orientation", "gamma"):
            tables["gain"].pop(key, None)
        images = normalisation.factor, normalisation.oriented_dark
        tables["gain"]["images"] = [None if i is None else fingerprint(i) for i in images]
    if (step := recipe.outliers) is not None and step.defects:
        defects |= _defects(step.defects, shape)[0]
        tables["outliers"]["defects"] = fingerprint(defects)
    for name in (one.name for one in recipe.more):
        del tables[name]
    own, after = [], ""
    for place in PLACES:
        after = place if place in tables else after
        for correction in recipe.corrections(place):
            own.append({**correction.describe(), "software": "", "after": after})
    return fingerprint([tables, own] if own else tables)


@lru_cache(maxsize=1)
def _gain(step: GainStep, shape: tuple[int, int]) -> GainNormalization:
    """Read a reference once for all stacks."""
    dark = read_reference(step.dark) if step.dark else None
    reference = read_reference(step.reference)
    if step.orientation == "auto":
        raise MrczError(step.reference, "no movie shows its orientation", advice=_NAME_IT)
    try:
        return fitted_gain(reference, shape, step.gamma, dark=dark, orientation=step.orientation)
    except ValueError as error:
        raise MrczError(step.reference, str(error)) from error


@lru_cache(maxsize=1)
def _defects(path: str, shape: tuple[int, int]) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Read a list of defects once for all stacks, and what is odd about it."""
    with collected_warnings() as said:
        return read_defects(path, shape), said


# Advice where a reference was left out, and the recipe has nothing else.
_NOTHING_LEFT = "Nothing else is to be done. Name the orientation in the recipe to apply it anyway"

_NAME_IT = "Name a movie, or write the orientation into the recipe"

# A single frame shows nothing in common.
_FEWEST_FRAMES = 2
# Movies that are looked at before a reference is taken to help none.
_TRIED = 3


def without_done(recipe: Recipe, movie: Stack) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe without the steps that a movie has had, and a warning for each of these.

    With `Recipe.again` all are done again.
    """
    had = {step.get("name") for step in movie.history}
    if recipe.again or not had:
        return recipe, ()
    steps = {
        "outliers": ("OutlierFilter", "OutlierFilter" in had),
        "gain": ("GainNormalization", is_normalised(movie.history)),
        "koma": ("KomaNormalization", "KomaNormalization" in had),
    }
    done = {
        table: name
        for table, (name, is_done) in steps.items()
        if is_done and getattr(recipe, table) is not None
    }
    names = [*done.values(), *(step.name for step in recipe.more if step.class_name in had)]
    left: dict[str, Any] = dict.fromkeys(done)
    left["more"] = tuple(step for step in recipe.more if step.class_name not in had)
    return replace(recipe, **left), tuple(
        f"{name} is in the movie's history already, and is not done again (--again does it)"
        for name in names
    )


def with_orientation_of(
    recipe: Recipe, sources: Sequence[str | Path], *, are_all: bool = True
) -> Recipe:
    """Return a recipe whose gain has the orientation that the first usable movie shows.

    A reference that does not lower the movie's correlated noise significantly in any orientation
    (`OrientationSearch.helps`) is left out, and the recipe's warnings say why: no movie becomes
    worse. As a movie may be normalised already, another two are looked at before that, besides
    blank ones. `corrected` leaves the reference out for single movies in the same way.

    `recipe`: returned as it is unless its orientation is "auto", or if none of the sources is
    helped and another one, as not `are_all`, may still be. Raise `MrczError` or `OSError`,
    that of the first movie, if none can be used.
    """
    if recipe.gain is None or recipe.gain.orientation != "auto":
        return recipe
    failures: list[Exception] = []
    without: list[Recipe] = []
    for source in sources:
        try:
            with open_stack(source) as movie:
                if len(movie) < _FEWEST_FRAMES:
                    found = "a single frame does not show the orientation of the gain"
                    raise MrczError(source, found, advice=_NAME_IT)
                oriented = _oriented(recipe, recipe.gain, movie)
        except (MrczError, OSError) as error:
            # If another movie shows the orientation, it is reported when its turn comes.
            failures.append(error)
            continue
        if oriented.gain is not None:
            return oriented
        without.append(oriented)
        if sum(not is_blank(one) for one in without) == _TRIED:
            break
    if without and not are_all and sum(not is_blank(one) for one in without) < _TRIED:
        return recipe
    if without:
        return min(without, key=is_blank)
    raise failures[0]


def is_blank(recipe: Recipe) -> bool:
    """Return whether the gain was left out because the frames hold no counts."""
    return recipe.gain is None and any(BLANK in warning for warning in recipe.warnings)


def _oriented(recipe: Recipe, gain: GainStep, movie: Stack) -> Recipe:
    """Return a recipe with the orientation that a movie shows, or without its gain."""
    reference = read_reference(gain.reference)
    frames: Any = movie
    if gain.dark and (dark := read_reference(gain.dark)).shape == movie.shape[1:]:
        frames = (frame - dark for frame in movie)
    try:
        found = find_orientation(frames, reference)
    except NoCounts:
        return _without_gain(recipe, BLANK)
    except MrczError:
        raise
    except ValueError as error:
        raise ValueError(f"{gain.reference}: {error}") from error
    if is_normalised(movie.history):
        return _without_gain(recipe, NORMALISED)
    if not found.helps:
        return _without_gain(recipe, found.warnings[0])
    best = found.best
    gamma = -abs(gain.gamma) if best.reciprocal else abs(gain.gamma)
    gain = replace(gain, orientation=best.orientation, gamma=gamma)
    return replace(recipe, gain=gain, gain_is_optional=True, warnings=found.warnings)


def check_anything_left(recipe: Recipe) -> None:
    """Raise `MrczError` if a recipe does nothing any more, as its reference was left out."""
    if recipe.warnings and not (recipe.outliers or recipe.gain or recipe.koma or recipe.more):
        raise MrczError(None, recipe.warnings[-1].removesuffix("."), advice=_NOTHING_LEFT)


def _without_gain(recipe: Recipe, why: str) -> Recipe:
    """Return a recipe that leaves the gain reference out, with a warning."""
    said = f"The gain reference was not applied. {why}"
    return replace(recipe, gain=None, warnings=(*recipe.warnings, said))
