"""What the "KOMA" widget decides and does, without a window: stacks, sums, noise, correcting all.

What takes long is a function that is called in a thread with a `Report`; it works on what was
chosen when it was asked for, whatever is chosen meanwhile.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction import OutlierFilter
from napari_mrcz.correction.koma import KomaOptions, repeated_text
from napari_mrcz.correction.rolling import repeated_step
from napari_mrcz.errors import MrczError, error_text, size_text, time_text, warn
from napari_mrcz.format import Encoding
from napari_mrcz.naming import (
    COMPRESSED_SUFFIX,
    FOREIGN_SUFFIXES,
    PACKED_SUFFIXES,
    SUFFIXES,
    legal_stem,
    natural_key,
    with_packing,
)
from napari_mrcz.plugin.layers import LayerData, describe, layer_data
from napari_mrcz.session import (
    Koma,
    Session,
    correlation_with,
    count_outliers,
    cumulative_dose,
    noise_within,
)
from napari_mrcz.session.averages import doubt_of_contrasts, kept_out, of_other_shapes
from napari_mrcz.session.recipe import Output
from napari_mrcz.session.summaries import key_of
from napari_mrcz.session.survey import is_reference, session_of
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack.keeping import estimated_sizes
from napari_mrcz.widgets.base.job import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from napari_mrcz.widgets.base.job import Report

# Fewer have no neighbours to either side.
FEWEST = 3
# Up to which radius the noise is computed without being asked: beyond, little is gained.
COMPARED = 50
_ALL_UP_TO, _MOST_RADII = 30, 40
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


class KomaModel:
    """A session in the making.

    `options` has what is chosen, the radius whatever the stacks can fill; `keep` is what is written
    of corrected stacks, as `Output.keep`.
    """

    def __init__(self) -> None:
        self.options = KomaOptions()
        self.keep = Output().keep
        self._entries: list[Entry] = []
        self._reading: Reading | None = None
        self._ticks: dict[Entry, bool] = {}
        self._filter_outliers = False
        self._fits = OutlierFits()

    # The list -----------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The stacks in order of acquisition."""
        return tuple(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Put stacks at the end; files that are there already stay where they are."""
        known = {entry.source for entry in self._entries if isinstance(entry.source, str)}
        self._entries += [entry for entry in entries if entry.source not in known]

    def remove(self, entries: Iterable[Entry]) -> None:
        """Take stacks off the list."""
        gone = set(entries)
        self._entries = [entry for entry in self._entries if entry not in gone]
        self._ticks = {entry: on for entry, on in self._ticks.items() if entry not in gone}
        self._follow_list()

    def replace(self, old: Entry, new: Entry) -> None:
        """Put another stack in the place of one."""
        self._entries[self._entries.index(old)] = new
        self._ticks.pop(old, None)
        self._follow_list()

    def move(self, entries: Iterable[Entry], to: int) -> None:
        """Move stacks before the one that has the position `to` now, or to the end."""
        moving = set(entries)
        before = [entry for entry in self._entries[:to] if entry not in moving]
        after = [entry for entry in self._entries[to:] if entry not in moving]
        moved = [entry for entry in self._entries if entry in moving]
        self._entries = [*before, *moved, *after]
        self._follow_list()

    def sort(self, key: Callable[[Entry], Any]) -> None:
        """Put the stacks in an order, see `by_name` and `by_time`."""
        self._entries.sort(key=key)
        self._follow_list()

    def _follow_list(self) -> None:
        """Keep of what was read what the list has, in its order; of other stacks nothing."""
        if self._reading is not None:
            known = {*self._reading.entries, *self._reading.unusable}
            kept = [entry for entry in self._entries if entry in known]
            is_any_left = any(entry not in self._reading.unusable for entry in kept)
            self._reading = self._reading.of(kept) if is_any_left else None

    # Choices ------------------------------------------------------------------------------------

    def choose(self, **options: Any) -> None:
        """Choose some of the options."""
        before, self.options = self.options.limit, replace(self.options, **options)
        if self._reading is not None and self.options.limit != before:
            self._reading = self._reading.judged(self.options.limit)

    @property
    def filter_outliers(self) -> bool:
        """Whether outlier pixels are filtered before all else; another choice reads anew."""
        return self._filter_outliers

    @filter_outliers.setter
    def filter_outliers(self, on: bool) -> None:
        if on != self._filter_outliers:
            self._filter_outliers = on
            self._reading = None

    @property
    def reading(self) -> Reading | None:
        """What is known of the session; None until all that is in the list has been read."""
        found = self._reading
        known = set() if found is None else {*found.entries, *found.unusable}
        return found if known.issuperset(self._entries) else None

    def read(self) -> Callable[[Report], Reading]:
        """Return the function that reads the session; its result goes to `take`."""
        fits = self._fits if self._filter_outliers else None
        return partial(read_session, self.entries, fits, self.options.limit)

    def take(self, reading: Reading) -> None:
        """Use what was read, for those stacks that are still in the list."""
        self._reading = reading
        self._follow_list()

    def why_not(self, entry: Entry) -> str:
        """Return why a stack cannot be used at all; empty if it can."""
        return "" if self._reading is None else self._reading.unusable.get(entry, "")

    def oddity(self, entry: Entry) -> tuple[str, str]:
        """Return what is odd about a stack, in few words and in full; empty if nothing is."""
        return ("", "") if self._reading is None else self._reading.kept_out.get(entry, ("", ""))

    def why_left_out(self, entry: Entry) -> str:
        """Return why a stack enters no average; empty if it does."""
        if self.enters(entry):
            return ""
        return self.oddity(entry)[1] or self.why_not(entry) or "left out by choice"

    def enters(self, entry: Entry) -> bool:
        """Return whether a stack enters the averages of others."""
        is_good = not any(self.oddity(entry))
        return not self.why_not(entry) and self._ticks.get(entry, is_good)

    def set_enters(self, entry: Entry, on: bool) -> None:
        """Leave a stack out of averages, or put it back."""
        self._ticks[entry] = on

    @property
    def members(self) -> list[int]:
        """Which of the entries read enter averages."""
        entries = () if self.reading is None else self.reading.entries
        return [i for i, entry in enumerate(entries) if self.enters(entry)]

    @property
    def largest_radius(self) -> int:
        """The widest window that the stacks can fill; 0 where there is none."""
        return max(0, (len(self.members) - 1) // 2)

    @property
    def radius(self) -> int:
        """Stacks to either side that are averaged."""
        return max(1, min(self.options.radius, self.largest_radius or self.options.radius))

    def problem(self) -> str:
        """Return why nothing can be corrected yet; empty if it can."""
        if not self._entries:
            return "Add a folder of movies, or take the open layers."
        if self.reading is None:
            return "Read the session first."
        if len(self.members) < FEWEST:
            return (
                f"KOMA subtracts the mean of neighbouring stacks, and needs {FEWEST} at least that "
                f"enter averages; here are {len(self.members)}."
            )
        return ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the session as it is averaged; empty if all is well."""
        reading = self.reading
        if reading is None or self.problem():
            return ()
        doubt = doubt_of_contrasts(map(reading.session.summary, self.members))
        step = repeated_text(reading.step) if reading.step and not self.options.length else ""
        return tuple(said for said in (doubt, step) if said)

    # What is computed with them -----------------------------------------------------------------

    def ready(self) -> Reading:
        """Return what is known of the session.

        Raises
        ------
        ValueError
            If nothing can be corrected yet.
        """
        if (reading := self.reading) is None or self.problem():
            raise ValueError(self.problem())
        return reading

    def koma(self) -> Koma:
        """Return the corrections, as they are chosen now; nothing is read for them."""
        reading = self.ready()
        options = {**asdict(self.options), "radius": self.radius}
        left_out = set(range(len(reading.entries))).difference(self.members)
        return Koma(reading.session, **options, exclude=left_out)

    def curve(self) -> Callable[[Report], NoiseCurve]:
        """Return the function that computes the noise by the radius, to the one chosen at least."""
        radii = _radii(min(self.largest_radius, max(COMPARED, self.radius)))
        return partial(noise_curve, self.koma(), radii)

    def preview(self, entry: Entry, frame: int = 0) -> Callable[[Report], LayerData]:
        """Return the function that makes the layer of a corrected stack; `frame` is shown first."""
        index = self.ready().entries.index(entry)
        return partial(_preview, self.koma(), index, entry.name, frame)

    def estimate(self) -> Callable[[Report], int]:
        """Return the function that estimates how many bytes all corrected stacks take."""
        return partial(_estimate, self.koma(), self.keep)

    def correct(
        self, folder: Path, paths: Sequence[Path], replaced: Iterable[Path] = ()
    ) -> Callable[[Report], Corrected]:
        """Return the function that corrects all stacks into files, see `targets_in`.

        Of files that exist only those in `replaced` are; one that fails is named, and the rest goes
        on. If its report raises `Cancelled`, it returns what was done until then.
        """
        what = self.koma(), self.ready(), self.keep
        return partial(_correct_all, *what, folder, paths, frozenset(replaced))

    def targets(self, folder: Path) -> list[Path]:
        """Return the files that `correct` writes."""
        return targets_in(folder, () if self.reading is None else self.reading.entries)

    def ageing(self) -> Callable[[Report], Ageing]:
        """Return the function that measures how the camera aged."""
        return partial(_ageing, self.ready(), self._fits)


# Files ------------------------------------------------------------------------------------------


def movies_in(paths: Sequence[str | os.PathLike[str]]) -> list[Entry]:
    """Return the movies of folders and files in the order of their acquisition.

    What is hidden or not a movie is skipped. Single images beside the movies of a folder (a gain
    reference, a sum) are left out as in `Session`, with a warning.
    """
    named = [Path(path).absolute() for path in paths]
    known = with_packing((*SUFFIXES, *FOREIGN_SUFFIXES))
    looked_for = [
        p
        for p in named
        if p.is_dir() or (p.name.lower().endswith(known) and p.name[0] != "." and p.is_file())
    ]
    movies, _, left_out = session_of(looked_for, by_name=True)
    for path, why in left_out.items():
        warn(f"{path.name}: {why}; it is left out")
    unread = [path for path in movies if path.is_dir()]
    for path in unread:
        if path in named:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        warn(f"{path.name}: this folder cannot be read")
    return [Entry(path.name, str(path)) for path in movies if path not in unread]


def by_name(entry: Entry) -> Any:
    """Order names as a person does: numbers by their value."""
    return natural_key(entry.name)


def by_time(entry: Entry) -> Any:
    """Order files by when they were written, then by name; layers without a file come last."""
    try:
        written = os.stat(entry.path).st_mtime_ns if entry.path else None
    except OSError:
        written = None
    return written is None, written or 0, by_name(entry)


def targets_in(folder: Path, entries: Iterable[Entry]) -> list[Path]:
    """Return one file for each entry, of its name; of equal names the later ones are numbered."""
    paths: list[Path] = []
    taken: set[str] = set()
    for entry in entries:
        stem = entry.name
        for suffix in (*PACKED_SUFFIXES, *SUFFIXES):
            stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
        stem, number = legal_stem(stem), 1
        name = stem
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        paths.append(folder / f"{name}{COMPRESSED_SUFFIX}")
    return paths


def folder_problem(folder: Path, entries: Sequence[Entry] = ()) -> str:
    """Return why the entries cannot be written into a folder, which may be new; or nothing."""
    if folder.exists() and not folder.is_dir():
        return f"{folder.name} is a file. Choose a folder."
    if not folder.parent.is_dir():
        return f"There is no folder {folder.parent}."
    sources = [entry.path for entry in entries if entry.path and os.path.exists(entry.path)]
    for path in filter(Path.exists, targets_in(folder, entries)):
        if any(os.path.samefile(path, source) for source in sources):
            found = f"{path.name} in this folder is itself a movie of the session."
            return f"{found} Choose another folder."
    return ""


def in_words(warning: str) -> str:
    """Return a warning with the option's label in the place of its name in scripts."""
    return warning.replace("even_if_worse", "“Even if worse”")


def some_of(names: Iterable[str]) -> str:
    """Return names as they are read, not too many of them."""
    first, more = [*names][:_MOST_NAMED], len([*names]) - _MOST_NAMED
    return f"{', '.join(first)} and {more} more" if more > 0 else ", ".join(first)


# What takes long --------------------------------------------------------------------------------


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


def _radii(largest: int) -> list[int]:
    """Return all radii, or so many that a curve through them looks the same."""
    if largest <= _ALL_UP_TO:
        return list(range(1, largest + 1))
    return sorted({round(r) for r in np.geomspace(1, largest, _MOST_RADII)})


def _preview(koma: Koma, index: int, name: str, frame: int, report: Report) -> LayerData:
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


def _estimate(koma: Koma, keep: str, report: Report) -> int:
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


def _correct_all(
    koma: Koma,
    reading: Reading,
    keep: str,
    folder: Path,
    paths: Sequence[Path],
    replaced: frozenset[Path],
    report: Report,
) -> Corrected:
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


def _ageing(reading: Reading, fits: OutlierFits, report: Report) -> Ageing:
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
