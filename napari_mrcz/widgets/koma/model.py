"""What the "KOMA" widget decides, without a window: stacks and their order, choices, files."""

from __future__ import annotations

import errno
import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.correction.koma import KomaOptions, repeated_text
from napari_mrcz.errors import warn
from napari_mrcz.naming import (
    COMPRESSED_SUFFIX,
    FOREIGN_SUFFIXES,
    PACKED_SUFFIXES,
    SUFFIXES,
    legal_stem,
    natural_key,
    with_packing,
)
from napari_mrcz.session import Koma
from napari_mrcz.session.averages import doubt_of_contrasts
from napari_mrcz.session.recipe import Output
from napari_mrcz.session.survey import session_of
from napari_mrcz.widgets.koma import computing
from napari_mrcz.widgets.koma.computing import COMPARED, Entry, OutlierFits, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.koma.computing import Ageing, Corrected, NoiseCurve

# Fewer have no neighbours to either side.
FEWEST = 3
# All radii up to this one are compared; beyond, so many that a curve through them looks the same.
_ALL_UP_TO, _MOST_RADII = 30, 40


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
        return partial(computing.read_session, self.entries, fits, self.options.limit)

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
                f"KOMA subtracts the mean of neighbouring stacks, and needs at least {FEWEST} to "
                f"average; here are {len(self.members)}."
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
        return partial(computing.noise_curve, self.koma(), radii)

    def preview(self, entry: Entry, frame: int = 0) -> Callable[[Report], LayerData]:
        """Return the function that makes the layer of a corrected stack; `frame` is shown first."""
        index = self.ready().entries.index(entry)
        return partial(computing.preview, self.koma(), index, entry.name, frame)

    def estimate(self) -> Callable[[Report], int]:
        """Return the function that estimates how many bytes all corrected stacks take."""
        return partial(computing.estimate, self.koma(), self.keep)

    def correct(
        self, folder: Path, paths: Sequence[Path], replaced: Iterable[Path] = ()
    ) -> Callable[[Report], Corrected]:
        """Return the function that corrects all stacks into files, see `targets_in`."""
        what = self.koma(), self.ready(), self.keep
        return partial(computing.correct_all, *what, folder, paths, frozenset(replaced))

    def targets(self, folder: Path) -> list[Path]:
        """Return the files that `correct` writes."""
        return targets_in(folder, () if self.reading is None else self.reading.entries)

    def ageing(self) -> Callable[[Report], Ageing]:
        """Return the function that measures how the camera aged."""
        return partial(computing.ageing, self.ready(), self._fits)


def _radii(largest: int) -> list[int]:
    """Return all radii, or so many that a curve through them looks the same."""
    if largest <= _ALL_UP_TO:
        return list(range(1, largest + 1))
    return sorted({round(r) for r in np.geomspace(1, largest, _MOST_RADII)})


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
