"""What the "KOMA" widget decides, without a window: list, reading, choices."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.correction.koma import KomaOptions, repeated_text
from napari_mrcz.errors import warn
from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES, natural_key, with_packing
from napari_mrcz.plugin.layers import LayerData, describe, layer_data
from napari_mrcz.session import Session
from napari_mrcz.session.averages import doubt_of_contrasts
from napari_mrcz.session.survey import session_of
from napari_mrcz.widgets.koma.ageing import Ageing, measure_ageing
from napari_mrcz.widgets.koma.correcting import Corrected, KomaChoice, Targets, correct_all
from napari_mrcz.widgets.koma.outlier_fits import OutlierFits
from napari_mrcz.widgets.koma.reading import (
    COMPARED,
    Entry,
    NoiseCurve,
    Reading,
    noise_curve,
    read_session,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_mrcz.widgets.base.job import Report

# Fewer have no neighbours to either side.
FEWEST = 3
_RADIUS = 12
_ALL_UP_TO, _MOST_RADII = 30, 40


class KomaModel:
    """A session in the making.

    What takes long is given as functions that are called in a thread with a `Report`; they work on
    what was chosen when they were asked for, whatever is chosen meanwhile.

    Attributes
    ----------
    keep_mean : bool
        Add the mean of what is subtracted, so that counts stay counts.
    length : int
        Subtract only what is finer than this, in pixels; 0 for all.
    even_if_worse : bool
        Normalise stacks even if their correlated noise rises by it.
    """

    def __init__(self) -> None:
        self.keep_mean = True
        self.length = 0
        self.even_if_worse = False
        self._wanted_radius = _RADIUS
        self._entries: list[Entry] = []
        self._reading: Reading | None = None
        self._ticks: dict[Entry, bool] = {}
        self._filter_outliers = False
        self._fits = OutlierFits()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The stacks in order of acquisition."""
        return tuple(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Put stacks at the end; files that are there already stay where they are."""
        known = {entry.source for entry in self._entries if isinstance(entry.source, str)}
        for entry in entries:
            if entry.source not in known:
                self._entries.append(entry)

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
        if self._reading is None or not self._reading.covers(self._entries):
            return None
        return self._reading

    def read(self) -> Callable[[Report], Reading]:
        """Return the function that reads the session; its result goes to `take`."""
        fits = self._fits if self._filter_outliers else None
        entries = self.entries
        return lambda report: read_session(entries, fits, report)

    def take(self, reading: Reading) -> None:
        """Use what was read, for those stacks that are still in the list."""
        self._reading = reading
        self._follow_list()

    def why_not(self, entry: Entry) -> str:
        """Return why a stack cannot be used at all; empty if it can."""
        return "" if self._reading is None else self._reading.unusable.get(entry, "")

    def why_left_out(self, entry: Entry) -> str:
        """Return why a stack enters no average; empty if it does."""
        if self.enters(entry):
            return ""
        found = {} if self._reading is None else self._reading.kept_out
        return found.get(entry) or self.why_not(entry) or "left out by choice"

    def enters(self, entry: Entry) -> bool:
        """Return whether a stack enters the averages of others."""
        if self.why_not(entry):
            return False
        kept_out = self._reading is not None and entry in self._reading.kept_out
        return self._ticks.get(entry, not kept_out)

    def set_enters(self, entry: Entry, on: bool) -> None:
        """Leave a stack out of averages, or put it back."""
        self._ticks[entry] = on

    @property
    def members(self) -> list[int]:
        """Which of the entries read enter averages."""
        reading = self.reading
        if reading is None:
            return []
        return [i for i, entry in enumerate(reading.entries) if self.enters(entry)]

    @property
    def largest_radius(self) -> int:
        """The widest window that the stacks can fill; 0 where there is none."""
        return (len(self.members) - 1) // 2 if self.members else 0

    @property
    def radius(self) -> int:
        """Stacks to either side that are averaged."""
        return max(1, min(self._wanted_radius, self.largest_radius or self._wanted_radius))

    @radius.setter
    def radius(self, radius: int) -> None:
        self._wanted_radius = radius

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

    def choice(self) -> KomaChoice:
        """Return all that decides what becomes of the frames, as it is now."""
        reading = self.reading
        if reading is None or self.problem():
            raise ValueError(self.problem())
        members = set(self.members)
        left_out = tuple(i for i in range(len(reading.entries)) if i not in members)
        fits = self._fits if self._filter_outliers else None
        options = KomaOptions(
            self.radius,
            self.keep_mean,
            length=self.length,
            even_if_worse=self.even_if_worse,
        )
        return KomaChoice(reading, fits, left_out, options)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the session as it is averaged; empty if all is well."""
        reading = self.reading
        if reading is None or self.problem():
            return ()
        doubt = doubt_of_contrasts(map(reading.session.summary, self.members))
        step = repeated_text(reading.step) if reading.step and not self.length else ""
        return tuple(said for said in (doubt, step) if said)

    def curve(self) -> Callable[[Report], NoiseCurve]:
        """Return the function that computes the noise by the radius, to the one chosen at least."""
        choice, largest = self.choice(), self.largest_radius
        radii = _radii(min(largest, max(COMPARED, self.radius)))
        return lambda report: noise_curve(choice.koma(), radii, report)

    def preview(self, entry: Entry, frame: int = 0) -> Callable[[Report], LayerData]:
        """Return the function that makes the layer of a corrected stack.

        Parameters
        ----------
        entry : Entry
            Which.
        frame : int
            Decoded at once, since it will be shown.
        """
        return partial(_preview, self.choice(), entry, frame)

    def correct(self, targets: Targets, replaced: Iterable[Path]) -> Callable[[Report], Corrected]:
        """Return the function that corrects all stacks into a folder; see `correct_all`."""
        return partial(correct_all, self.choice(), targets, frozenset(replaced))

    def targets(self, folder: str) -> Targets:
        """Name the files that `correct` writes."""
        return Targets.of(self.choice().reading.entries, folder)

    def ageing(self) -> Callable[[Report], Ageing]:
        """Return the function that measures how the camera aged."""
        reading = self.reading
        if reading is None:
            raise ValueError(self.problem())
        return partial(_ageing, reading, self._fits)

    def _follow_list(self) -> None:
        """Keep of what was read what the list has, in its order; of other stacks nothing."""
        if self._reading is None:
            return
        known = {*self._reading.entries, *self._reading.unusable}
        kept = [entry for entry in self._entries if entry in known]
        read = any(entry in self._reading.entries for entry in kept)
        self._reading = self._reading.of(kept) if read else None


def movies_in(paths: Sequence[str | os.PathLike[str]]) -> list[Entry]:
    """Return the movies of folders and files in the order of their acquisition.

    What is hidden or not a movie is skipped. Single images beside the movies of a folder (a gain
    reference, a sum) are left out as in `Session`, with a warning.
    """
    named = [Path(path).absolute() for path in paths]
    movies, _, left_out = session_of([p for p in named if p.is_dir() or _is_movie(p)], by_name=True)
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


def _is_movie(path: Path) -> bool:
    known = with_packing((*SUFFIXES, *FOREIGN_SUFFIXES))
    return path.name.lower().endswith(known) and path.name[0] != "." and path.is_file()


def _radii(largest: int) -> list[int]:
    """Return all radii, or so many that a curve through them looks the same."""
    if largest <= _ALL_UP_TO:
        return list(range(1, largest + 1))
    return sorted({round(r) for r in np.geomspace(1, largest, _MOST_RADII)})


def _preview(choice: KomaChoice, entry: Entry, frame: int, report: Report) -> LayerData:
    index = choice.reading.entries.index(entry)
    report("Averaging", 0, None)
    step = choice.koma()[index]
    report("Correcting", 0, None)
    with choice.reading.session.opened(index) as stack:
        corrected = stack.apply(step)
    # Closed, it opens its file again when a frame is read.
    ((data, attributes, kind),) = layer_data(
        corrected, f"KOMA: {entry.name}", metadata=describe(corrected)
    )
    data[min(frame, len(data) - 1)]
    return data, attributes, kind


def _ageing(reading: Reading, fits: OutlierFits, report: Report) -> Ageing:
    raw = Session([entry.source for entry in reading.entries])
    with raw.opened(0) as stack:
        counts_per_electron = stack.description.gain or 1.0
    return measure_ageing(reading.session, raw, fits, counts_per_electron, report)
