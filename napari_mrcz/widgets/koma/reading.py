"""The stacks of the "KOMA" widget: where they come from, and what reading a session shows of them.

Reading is called in a thread with a `Report`, and works on the stacks there were when it was asked
for, whatever is chosen meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.correction import OutlierFilter
from napari_mrcz.correction.rolling import repeated_step
from napari_mrcz.errors import MrczError, error_text, warn
from napari_mrcz.naming import has_movie_suffix, natural_key
from napari_mrcz.session import Session
from napari_mrcz.session.averages import kept_out, of_other_shapes
from napari_mrcz.session.summaries import key_of
from napari_mrcz.session.survey import is_reference, session_of
from napari_mrcz.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from napari_mrcz.widgets.base.job import Report

# Up to which radius sums are compared while they are read: beyond, little is gained.
COMPARED = 50
# What a file that is damaged or is none of a movie can end in.
BAD_STACK = (MrczError, OSError, ValueError)

# The outlier filters of files, by `key_of`.
OutlierFits = dict[str | None, OutlierFilter]


@dataclass(eq=False)
class Entry:
    """A stack in the list, known by itself, not by its name: a file's path, or frames."""

    name: str
    source: str | Stack
    ticked: bool | None = None  # whether it enters averages, where that was chosen by hand

    @property
    def path(self) -> str | None:
        """The file that its frames come from, if any."""
        return self.source.path if isinstance(self.source, Stack) else self.source


def movies_in(paths: Iterable[str | os.PathLike[str]]) -> list[Entry]:
    """Return the movies of folders and files in the order of their acquisition.

    What is hidden or not a movie is skipped. Single images beside the movies of a folder (a gain
    reference, a sum) are left out as in `Session`, with a warning.
    """
    named = [Path(path).absolute() for path in paths]
    shown = (p for p in named if has_movie_suffix(p.name) and p.name[0] != "." and p.is_file())
    looked_for = [*filter(Path.is_dir, named), *shown]
    movies, _, left_out = session_of(looked_for, by_name=True)
    for path, why in left_out.items():
        warn(f"{path.name}: {why}; it is left out")
    for path in filter(Path.is_dir, movies):
        if path in named:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        warn(f"{path.name}: this folder cannot be read")
    return [Entry(path.name, str(path)) for path in movies if not path.is_dir()]


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


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading a session has told; of the entries that are odd, `Koma` leaves out the same."""

    entries: tuple[Entry, ...]  # those that can be used, in order of acquisition
    session: Session  # the same, with their sums
    unusable: Mapping[Entry, str]  # why
    is_filtered: bool  # whether outliers were filtered first
    # Should enter no average: a few words, and why.
    kept_out: Mapping[Entry, tuple[str, str]] = field(default_factory=dict)
    step: float = 0.0  # height of steps of structure at the same place in all; 0 without any

    def of(self, entries: Iterable[Entry]) -> Reading | None:
        """Return the same for those of some entries that were read; None if none is usable."""
        entries, at = tuple(entries), {entry: index for index, entry in enumerate(self.entries)}
        usable = tuple(entry for entry in entries if entry in at)
        found = replace(
            self,
            entries=usable,
            session=self.session.chosen(at[entry] for entry in usable),
            unusable={entry: self.unusable[entry] for entry in entries if entry in self.unusable},
            kept_out={entry: self.kept_out[entry] for entry in entries if entry in self.kept_out},
        )
        return found if usable else None

    def judged(self, limit: float) -> Reading:
        """Return the same with what should enter no average by another limit of contrast."""
        summaries = [self.session.summary(index) for index in range(len(self.entries))]
        found = kept_out(
            {index: summary.n_frames for index, summary in enumerate(summaries)},
            {index: summary.thumbnail for index, summary in enumerate(summaries)},
            limit,
        )
        kinds = {
            "cut off": found.cut_short,
            "saturated": found.saturated,
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


def read_session(
    entries: Sequence[Entry], fits: OutlierFits | None, limit: float, report: Report
) -> Reading:
    """Read the sums of all stacks; those that cannot be used are named, and the rest goes on.

    `fits`: of outliers, which are filtered first then; `limit`: contrast beyond which a stack
    enters no average. What `report` raises ends the reading. Raise `MrczError` if not a single
    stack can be used.
    """
    sources = [entry.source for entry in entries]
    raw = session = Session(sources)
    lengths, unusable = _lengths(entries, raw, report)
    if fits is not None:
        session = Session(sources, prepare=lambda stack: stack.apply(outliers_of(stack, fits)))
    # Frames are read once more where outliers are to be found.
    part = parts(report, (1 if fits is None else 2) * sum(lengths.values()))
    for index, n_frames in lengths.items():
        stack_of = f"stack {index + 1} of {len(entries)}"
        finding = None if fits is None else part(f"Finding outliers of {stack_of}", n_frames)
        reading = part(f"Reading {stack_of}", n_frames)
        try:
            if fits is not None:
                with raw.opened(index) as stack:
                    if key_of(stack) is not None:  # else it would have to be found again
                        outliers_of(stack, fits, finding)
            session.summary(index, progress=reading)
        except BAD_STACK as error:
            unusable[entries[index]] = _why(entries[index], error)
        reading(n_frames, n_frames)
    usable = [index for index in lengths if entries[index] not in unusable]
    if not usable:
        why = next(iter(unusable.values()))
        raise MrczError(None, "none of these stacks can be used", advice=why)
    session = session.chosen(usable)
    session.covariances(  # which are kept, for the noise by the radius
        range(len(session)), reach=2 * COMPARED, progress=partial(report, "Comparing the sums")
    )
    kept = tuple(entries[index] for index in usable)
    found = Reading(kept, session, unusable, is_filtered=fits is not None).judged(limit)
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
                shapes[index] = stack.shape
        except BAD_STACK as error:
            unusable[entry] = _why(entry, error)
        report("Opening the files", index + 1, len(entries))
    wrong = of_other_shapes({index: (y, x) for index, (_, y, x) in shapes.items()})
    wrong = {index: f"has {found}" for index, found in wrong.items()}
    has_movies = any(n > 1 for n, _, _ in shapes.values())
    for index, (n, _, _) in shapes.items():
        source = entries[index].source
        if n == 1 and has_movies and isinstance(source, str) and is_reference(Path(source)):
            wrong.setdefault(index, "is a reference, not a movie")
    unusable |= {entries[index]: why for index, why in wrong.items()}
    return {index: n for index, (n, _, _) in shapes.items() if index not in wrong}, unusable


def _why(entry: Entry, error: Exception) -> str:
    """Return why a stack cannot be read; its name stands beside it already."""
    return f"cannot be read: {error_text(error).removeprefix(f'{entry.name}: ')}"


def outliers_of(stack: Stack, fits: OutlierFits, progress: Any = None) -> OutlierFilter:
    """Return the outlier filter of a stack, fitted once, however often its file is opened.

    Of a filter only what it replaces is kept, not the images that it was fitted to. Stacks that
    are no file cannot be known again, and are fitted each time. What `progress` raises ends the
    fit.
    """
    key = key_of(stack)
    if key in fits:
        return fits[key]
    # Summed here because a fit tells no progress; it finds the sum done.
    total = stack.sum(dtype="smallest", progress=progress)
    found = OutlierFilter.fit(stack).settled()
    del total
    if key is not None:
        fits[key] = found
    return found


def parts(report: Report, total: int) -> Callable[[str, int], Any]:
    """Return a function that begins a part of a job, as so many of all its steps."""
    begun = 0

    def part(stage: str, steps: int) -> Callable[..., None]:
        nonlocal begun
        before, begun = begun, begun + steps
        return lambda done, of, what="": report(f"{what}{stage}", before + done, total)

    return part
