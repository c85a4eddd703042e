"""What takes long in the "KOMA" widget: sums read, noise, a preview, all stacks corrected.

Each is called in a thread with a `Report`, and works on what was chosen when it was asked for,
whatever is chosen meanwhile.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction import OutlierFilter
from napari_mrcz.correction.rolling import repeated_step
from napari_mrcz.errors import MrczError, error_text, size_text, time_text
from napari_mrcz.format import Encoding
from napari_mrcz.plugin.layers import LayerData, describe, layer_data
from napari_mrcz.session import (
    Koma,
    Session,
    correlation_with,
    count_outliers,
    cumulative_dose,
    noise_within,
)
from napari_mrcz.session.averages import kept_out, of_other_shapes
from napari_mrcz.session.recipe import Output
from napari_mrcz.session.summaries import key_of
from napari_mrcz.session.survey import is_reference
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack.keeping import estimated_sizes
from napari_mrcz.widgets.base.job import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from napari_mrcz.widgets.base.job import Report

# Up to which radius sums are compared while they are read: beyond, little is gained.
COMPARED = 50
_MOST_NAMED = 8
# What a file that is damaged or is none of a movie can end in.
_BAD_STACK = (MrczError, OSError, ValueError)

Series = npt.NDArray[np.float64]


@dataclass(eq=False)
class Entry:
    """A stack in the list, known by itself, not by its name: a file's path, or frames."""

    name: str
    source: str | Stack

    @property
    def path(self) -> str | None:
        """The file that its frames come from, if any."""
        return self.source.path if isinstance(self.source, Stack) else self.source


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading a session has told; of the entries that are odd, `Koma` leaves out the same."""

    entries: tuple[Entry, ...]  # those that can be used, in order of acquisition
    session: Session  # the same, with their sums
    step: float  # height of steps of structure at the same place in all of them; 0 without any
    kept_out: Mapping[Entry, tuple[str, str]]  # should enter no average: a few words, and why
    unusable: Mapping[Entry, str]  # why

    def of(self, entries: Sequence[Entry]) -> Reading:
        """Return the same for some of the entries, one usable at least, in their order."""
        usable = tuple(entry for entry in entries if entry not in self.unusable)
        at = {entry: index for index, entry in enumerate(self.entries)}
        unusable = {entry: self.unusable[entry] for entry in entries if entry in self.unusable}
        session = self.session.chosen([at[entry] for entry in usable])
        return replace(self, entries=usable, session=session, unusable=unusable)

    def judged(self, limit: float) -> Reading:
        """Return the same with what should enter no average by another limit of contrast."""
        summaries = {entry: self.session.summary(i) for i, entry in enumerate(self.entries)}
        found = kept_out(
            {i: one.n_frames for i, one in enumerate(summaries.values())},
            {i: one.thumbnail for i, one in enumerate(summaries.values())},
            limit,
        )
        kinds = {
            "cut off": found.cut_short,
            "of high contrast": found.high_contrast,
            "with NaN or inf": found.without_numbers,
        }
        odd = {self.entries[i]: (kind, why) for kind in kinds for i, why in kinds[kind].items()}
        return replace(self, kept_out=odd)

    def __str__(self) -> str:
        """Return how many stacks there are, and what is odd about some."""
        kinds = Counter(kind for kind, _ in self.kept_out.values())
        said = [f"{len(self.entries)} stacks read", *(f"{n} {kind}" for kind, n in kinds.items())]
        bad = f"; {len(self.unusable)} cannot be used: " if self.unusable else ""
        return f"{', '.join(said)}{bad}{', '.join(entry.name for entry in self.unusable)}."


class NoiseCurve(NamedTuple):
    """The correlated noise after KOMA by its radius (fig. 12 of the preprint)."""

    radii: npt.NDArray[np.int64]  # in stacks
    noise: Series  # mean R over the stacks that enter averages
    limit: Series  # 1/(2 a n): what an average of 2 a stacks of n frames leaves at the least
    before: float  # mean R without KOMA

    def at(self, radius: int) -> tuple[float, float]:
        """Return noise and limit at a radius, between those computed on a straight line."""
        noise, limit = (np.interp(radius, self.radii, y) for y in (self.noise, self.limit))
        return float(noise), float(limit)


class Ageing(NamedTuple):
    """How the camera has changed, by stack in order of acquisition (figs 7, 11 of the preprint)."""

    dose: Series  # before each stack, e⁻/pixel; counts where files do not say what an e⁻ adds
    n_hot: npt.NDArray[np.int64]
    n_dark: npt.NDArray[np.int64]
    noise: Series  # mean R of the frames of each stack
    correlation: Series  # R of each sum with the first one


@dataclass(frozen=True)
class Corrected:
    """How correcting all has gone; stacks are called by their names."""

    folder: Path
    written: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()  # files that were there, and still are
    failures: tuple[tuple[str, str], ...] = ()  # stack, why it was not corrected
    warnings: tuple[tuple[str, str], ...] = ()  # stack, why it should not be trusted unseen
    cancelled: bool = False  # before all was done
    seconds: float = 0.0

    @property
    def nbytes(self) -> int:
        """Of the files written."""
        return sum(path.stat().st_size for path in self.written if path.exists())

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def __str__(self) -> str:
        """Return it in a few lines."""
        n = len(self.written)
        count = f"{n} stack{'s' * (n != 1)} corrected to {self.folder.name or self.folder}"
        if self.cancelled:
            stays = "; these files stay, and nothing is left of the one under way" if n else ""
            lines = [f"Cancelled. {count.replace(' to ', ' before, to ')}{stays}."]
        else:
            lines = [f"{count}: {size_text(self.nbytes)} in {time_text(self.seconds)}."]
        if self.skipped:
            lines.append(f"{some_of(path.name for path in self.skipped)} skipped: there before.")
        lines += [f"{name}: {why}" for name, why in self.failures[:_MOST_NAMED]]
        if (more := len(self.failures) - _MOST_NAMED) > 0:
            lines.append(f"and {more} more.")
        if warned := [*dict.fromkeys(name for name, _ in self.warnings)]:
            lines.append(f"{len(warned)} with warnings: {some_of(warned)}. The first of them:")
            lines.append(f"{self.warnings[0][0]}: {self.warnings[0][1]}.")
        return "\n".join(lines)


class OutlierFits:
    """The outlier filter of each file of a session, fitted once, however often it is opened.

    Of a filter only what it replaces is kept, not the images that it was fitted to. Stacks that
    are no file cannot be known again, and are fitted each time.
    """

    def __init__(self) -> None:
        self._kept: dict[str, OutlierFilter] = {}

    def of(self, stack: Stack, progress: Any = None) -> OutlierFilter:
        """Return the filter of a stack; what `progress` raises ends the fit."""
        key = key_of(stack)
        if key in self._kept:
            return self._kept[key]
        # Summed here because a fit tells no progress; it finds the sum done.
        total = stack.sum(dtype="smallest", progress=progress)
        found = OutlierFilter.fit(stack).settled()
        del total
        if key is not None:
            self._kept[key] = found
        return found

    def filtered(self, stack: Stack) -> Stack:
        """Return the lazy stack without its outliers."""
        return stack.apply(self.of(stack))


def in_words(warning: str) -> str:
    """Return a warning with the option's label in the place of its name in scripts."""
    return warning.replace("even_if_worse", "“Even if worse”")


def some_of(names: Iterable[str]) -> str:
    """Return names as they are read, not too many of them."""
    first, more = [*names][:_MOST_NAMED], len([*names]) - _MOST_NAMED
    return f"{', '.join(first)} and {more} more" if more > 0 else ", ".join(first)


def read_session(
    entries: Sequence[Entry], fits: OutlierFits | None, limit: float, report: Report
) -> Reading:
    """Read the sums of all stacks; those that cannot be used are named, and the rest goes on.

    `fits` filters the outliers of each stack first; `limit`: contrast beyond which a stack enters
    no average. What `report` raises ends the reading. Raise `MrczError` if not a single stack can
    be used.
    """
    sources = [entry.source for entry in entries]
    raw = Session(sources)
    lengths, unusable = _lengths(entries, raw, report)
    session = raw if fits is None else Session(sources, prepare=fits.filtered)
    # Frames are read once more where outliers are to be found.
    part = _parts(report, (1 if fits is None else 2) * sum(lengths.values()))
    for index, n_frames in lengths.items():
        stack_of = f"stack {index + 1} of {len(entries)}"
        finding = None if fits is None else part(f"Finding outliers of {stack_of}", n_frames)
        reading = part(f"Reading {stack_of}", n_frames)
        try:
            if fits is not None:
                with raw.opened(index) as stack:
                    if key_of(stack) is not None:  # else it would have to be found again
                        fits.of(stack, finding)
            session.summary(index, progress=reading)
        except _BAD_STACK as error:
            unusable[entries[index]] = _why(entries[index], error)
        reading(n_frames, n_frames)
    usable = [index for index in lengths if entries[index] not in unusable]
    if not usable:
        raise MrczError(
            None, "none of these stacks can be used", advice=next(iter(unusable.values()))
        )
    session = session.chosen(usable)
    session.covariances(  # which are kept, for the noise by the radius
        range(len(session)), reach=2 * COMPARED, progress=partial(report, "Comparing the sums")
    )
    kept = tuple(entries[index] for index in usable)
    found = Reading(kept, session, 0.0, {}, unusable).judged(limit)
    # Structure that is at the same place in all stacks that enter averages.
    members = [i for i, entry in enumerate(kept) if entry not in found.kept_out]
    total = sum((session.total(i) for i in members), np.zeros(session.total(0).shape))
    return replace(found, step=repeated_step(total) if len(members) > 1 else 0.0)


def _lengths(
    entries: Sequence[Entry], session: Session, report: Report
) -> tuple[dict[int, int], dict[Entry, str]]:
    """Return the frames of each stack that is like most, and why others are no use."""
    shapes: dict[int, tuple[int, int, int]] = {}
    unusable: dict[Entry, str] = {}
    for index, entry in enumerate(entries):
        try:
            with session.opened(index) as stack:
                if stack.dtype.kind == "c":
                    unusable[entry] = "has complex pixels, which are no counts"
                else:
                    shapes[index] = stack.shape
        except _BAD_STACK as error:
            unusable[entry] = _why(entry, error)
        report("Opening the files", index + 1, len(entries))
    wrong = of_other_shapes({index: (y, x) for index, (_, y, x) in shapes.items()})
    has_movies = any(n > 1 for n, _, _ in shapes.values())
    for index, (n, _, _) in list(shapes.items()):
        entry = entries[index]
        if index in wrong:
            found = f"has {wrong[index]}"
        elif n == 1 and has_movies and isinstance(entry.source, str):
            found = "is a reference, not a movie" if is_reference(Path(entry.source)) else ""
        else:
            found = ""
        if found:
            unusable[entry] = found
            del shapes[index]
    return {index: shape[0] for index, shape in shapes.items()}, unusable


def _why(entry: Entry, error: Exception) -> str:
    """Return why a stack cannot be read; its name stands beside it already."""
    return f"cannot be read: {error_text(error).removeprefix(f'{entry.name}: ')}"


def _parts(report: Report, total: int) -> Callable[[str, int], Any]:
    """Return a function that begins a part of a job, as so many of all its steps."""
    begun = 0

    def part(stage: str, steps: int) -> Callable[..., None]:
        nonlocal begun
        before, begun = begun, begun + steps
        return lambda done, of, what="": report(f"{what}{stage}", before + done, total)

    return part


def noise_curve(koma: Koma, radii: Sequence[int], report: Report) -> NoiseCurve:
    """Compute the noise by the radius, 1 at least, from sums that were read."""
    before, *noise = koma.noise_curve([0, *radii], progress=partial(report, "Comparing the sums"))
    members = (i for i in range(len(koma)) if i not in koma.left_out)
    n_frames = np.mean([koma.session.summary(i).n_frames for i in members])
    at = np.asarray(radii, np.int64)
    return NoiseCurve(at, np.array(noise), 1 / (2 * at * n_frames), float(before))


def preview(koma: Koma, index: int, name: str, frame: int, report: Report) -> LayerData:
    """Make the layer of a corrected stack; one frame is decoded at once, as it is shown first."""
    report("Averaging", 0, None)
    step = koma[index]
    report("Correcting", 0, None)
    with koma.session.opened(index) as stack:
        corrected = stack.apply(step)
    # Closed, it opens its file again when a frame is read.
    ((data, attributes, kind),) = layer_data(
        corrected, f"KOMA: {name}", metadata=describe(corrected)
    )
    data[min(frame, len(data) - 1)]
    return data, attributes, kind


def estimate(koma: Koma, keep: str, report: Report) -> int:
    """Compress excerpts of the stack in the middle, as it is corrected."""
    report("Estimating", 0, None)
    index = len(koma) // 2
    with koma.session.opened(index) as stack:
        output = Output(keep=keep)
        sizes = estimated_sizes(
            stack.apply(koma[index]), Encoding("zstd", output.level, output.filter)
        )
        nbytes = sizes.get(keep, next(iter(sizes.values()))) / len(stack)
    return round(nbytes * sum(koma.session.summary(i).n_frames for i in range(len(koma))))


def correct_all(
    koma: Koma,
    reading: Reading,
    keep: str,
    folder: Path,
    paths: Sequence[Path],
    replaced: frozenset[Path],
    report: Report,
) -> Corrected:
    """Write all stacks corrected, each to its path.

    Of files that exist only those in `replaced` are; one that fails is named, and the rest goes on.
    If `report` raises `Cancelled`, return what was done until then.
    """
    start, cancelled = time.perf_counter(), False
    folder.mkdir(exist_ok=True)
    skipped = tuple(path for path in paths if path.exists() and path not in replaced)
    to_do = [i for i, path in enumerate(paths) if path not in skipped]
    lengths = [koma.session.summary(i).n_frames for i in to_do]
    part = _parts(report, sum(lengths))
    failures = [(entry.name, why) for entry, why in reading.unusable.items()]
    warnings: list[tuple[str, str]] = []
    written: list[Path] = []
    try:
        for at, (index, n_frames) in enumerate(zip(to_do, lengths, strict=True), start=1):
            path, name = paths[index], reading.entries[index].name
            told = part(f"stack {at} of {len(to_do)}, {name}", n_frames)
            try:
                told(0, n_frames, "Averaging for ")
                step = koma[index]
                with koma.session.opened(index) as stack:
                    write(
                        path,
                        stack.apply(step),
                        **Output(keep=keep).arguments,
                        progress=partial(told, what="Correcting "),
                        overwrite=path in replaced,
                    )
            except _BAD_STACK as error:
                failures.append((name, error_text(error)))
            else:
                written.append(path)
                warnings += [(name, in_words(said)) for said in step.warnings]
    except Cancelled:
        cancelled = True
    seconds = time.perf_counter() - start
    found = tuple(written), skipped, tuple(failures), tuple(warnings)
    return Corrected(folder, *found, cancelled, seconds)


def ageing(reading: Reading, fits: OutlierFits, report: Report) -> Ageing:
    """Measure how the camera aged: outliers and noise of each stack."""
    session, raw = reading.session, Session([entry.source for entry in reading.entries])
    lengths = [session.summary(i).n_frames for i in range(len(raw))]
    part, waiting = _parts(report, sum(lengths)), iter(enumerate(lengths, start=1))

    def fit(stack: Stack) -> OutlierFilter:
        number, n_frames = next(waiting)
        return fits.of(stack, part(f"Finding outliers of stack {number} of {len(raw)}", n_frames))

    census = count_outliers(raw, fit)
    with raw.opened(0) as stack:
        counts_per_electron = stack.description.gain or 1.0
    told = partial(report, "Comparing the sums")
    return Ageing(
        cumulative_dose(session, counts_per_electron),
        census.n_hot,
        census.n_dark,
        noise_within(session, progress=told),
        correlation_with(session, progress=told),
    )
