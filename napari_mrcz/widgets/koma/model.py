"""What the "KOMA" widget decides and computes, without a window: stacks, choices, results."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.koma import KomaOptions, repeated_text
from napari_mrcz.errors import counted, error_text, listed, size_text, time_text
from napari_mrcz.format import Encoding
from napari_mrcz.naming import COMPRESSED_SUFFIX, has_movie_suffix, legal_stem, without_packing
from napari_mrcz.plugin.layers import LayerData, describe, layer_data
from napari_mrcz.session import (
    Koma,
    Session,
    correlation_with,
    count_outliers,
    cumulative_dose,
    noise_within,
)
from napari_mrcz.session.averages import doubt_of_contrasts
from napari_mrcz.session.recipe import Output
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack.keeping import estimated_sizes
from napari_mrcz.widgets.base.job import Cancelled
from napari_mrcz.widgets.koma.reading import (
    BAD_STACK,
    COMPARED,
    Entry,
    OutlierFits,
    Reading,
    outliers_of,
    parts,
    read_session,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_mrcz.correction import OutlierFilter
    from napari_mrcz.widgets.base.job import Report

Series = npt.NDArray[np.float64]

# Fewer have no neighbours to either side.
_FEWEST = 3
# All radii up to this one are compared; beyond, so many that a curve through them looks the same.
_ALL_UP_TO, _MOST_RADII = 30, 40


class KomaModel:
    """A session in the making.

    `options` has what is chosen, the radius whatever the stacks can fill; `keep` is what is written
    of corrected stacks, as `Output.keep`. What takes long is returned as a function for a thread,
    which works on what is chosen now, whatever is chosen meanwhile.
    """

    def __init__(self) -> None:
        self.options = KomaOptions()
        self.keep = Output().keep
        self.filter_outliers = False  # before all else; another choice reads anew
        self._entries: tuple[Entry, ...] = ()
        self._reading: Reading | None = None
        self._fits: OutlierFits = {}

    # The list -----------------------------------------------------------------------------------

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The stacks in order of acquisition; of others nothing is kept that was read."""
        return self._entries

    @entries.setter
    def entries(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)
        self._reading = None if self._reading is None else self._reading.of(self._entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Put stacks at the end; files that are there already stay where they are."""
        known = {entry.source for entry in self.entries if isinstance(entry.source, str)}
        self.entries += tuple(entry for entry in entries if entry.source not in known)

    def remove(self, entries: Iterable[Entry]) -> None:
        """Take stacks off the list."""
        gone = set(entries)
        self.entries = tuple(entry for entry in self.entries if entry not in gone)

    def move(self, entries: Iterable[Entry], to: int) -> None:
        """Move stacks before the one that has the position `to` now, or to the end."""
        moving = set(entries)
        ends = self.entries[:to], self.entries[to:]
        before, after = ([entry for entry in end if entry not in moving] for end in ends)
        self.entries = (*before, *(entry for entry in self.entries if entry in moving), *after)

    # Choices ------------------------------------------------------------------------------------

    def choose(self, **options: Any) -> None:
        """Choose some of the options."""
        before, self.options = self.options.limit, replace(self.options, **options)
        if self._reading is not None and self.options.limit != before:
            self._reading = self._reading.judged(self.options.limit)

    @property
    def reading(self) -> Reading | None:
        """What is known of the session; None until all that is in the list has been read."""
        found = self._reading
        if found is None or found.is_filtered != self.filter_outliers:
            return None
        known = {*found.entries, *found.unusable}
        return found if known.issuperset(self.entries) else None

    def read(self) -> Callable[[Report], Reading]:
        """Return the function that reads the session; its result goes to `take`."""
        fits = self._fits if self.filter_outliers else None
        return partial(read_session, self.entries, fits, self.options.limit)

    def take(self, reading: Reading) -> None:
        """Use what was read, for those stacks that are still in the list."""
        self._reading = reading.of(self.entries)

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
        wanted = entry.ticked if entry.ticked is not None else not any(self.oddity(entry))
        return wanted and not self.why_not(entry)

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
        if not self.entries:
            return "Add a folder of movies, or take the open layers."
        if self.reading is None:
            return "Read the session first."
        if len(self.members) < _FEWEST:
            return (
                f"KOMA subtracts the mean of neighbouring stacks, and needs at least {_FEWEST} to "
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

    # What is computed ---------------------------------------------------------------------------

    def _ready(self) -> Reading:
        """Return what is known of the session; `ValueError` if nothing can be corrected yet."""
        if (reading := self.reading) is None or self.problem():
            raise ValueError(self.problem())
        return reading

    def koma(self) -> Koma:
        """Return the corrections, as they are chosen now; nothing is read for them."""
        reading = self._ready()
        options = {**asdict(self.options), "radius": self.radius}
        left_out = set(range(len(reading.entries))).difference(self.members)
        return Koma(reading.session, **options, exclude=left_out)

    def curve(self) -> Callable[[Report], NoiseCurve]:
        """Return the function that computes the noise by the radius, to the one chosen at least.

        No stack is read again: the sums are enough.
        """
        koma, members = self.koma(), self.members
        largest = min(self.largest_radius, max(COMPARED, self.radius))
        radii = np.arange(1, largest + 1)
        if largest > _ALL_UP_TO:
            radii = np.unique(np.geomspace(1, largest, _MOST_RADII).round().astype(np.int64))

        def compute(report: Report) -> NoiseCurve:
            told = partial(report, "Comparing the sums")
            before, *noise = koma.noise_curve([0, *radii.tolist()], progress=told)
            n_frames = np.mean([koma.session.summary(i).n_frames for i in members])
            return NoiseCurve(radii, np.array(noise), 1 / (2 * radii * n_frames), float(before))

        return compute

    def preview(self, entry: Entry, frame: int = 0) -> Callable[[Report], LayerData]:
        """Return the function that makes the layer of a corrected stack.

        One frame is decoded at once, as it is shown first.
        """
        koma, index, name = self.koma(), self._ready().entries.index(entry), f"KOMA: {entry.name}"

        def make(report: Report) -> LayerData:
            report("Averaging", 0, None)
            step = koma[index]
            report("Correcting", 0, None)
            with koma.session.opened(index) as stack:
                corrected = stack.apply(step)
            # Closed, it opens its file again when a frame is read.
            (made,) = layer_data(corrected, name, metadata=describe(corrected))
            corrected[min(frame, len(corrected) - 1)]
            return made

        return make

    def estimate(self) -> Callable[[Report], int]:
        """Return the function that estimates how many bytes all corrected stacks take.

        It compresses excerpts of the stack in the middle, as it is corrected.
        """
        koma, output = self.koma(), Output(keep=self.keep)

        def compute(report: Report) -> int:
            report("Estimating", 0, None)
            index = len(koma) // 2
            with koma.session.opened(index) as stack:
                encoding = Encoding("zstd", output.level, output.filter)
                sizes = estimated_sizes(stack.apply(koma[index]), encoding)
                nbytes = sizes.get(output.keep, next(iter(sizes.values()))) / len(stack)
            return round(nbytes * sum(koma.session.summary(i).n_frames for i in range(len(koma))))

        return compute

    def targets(self, folder: Path) -> list[Path]:
        """Return the files that `correct` writes."""
        return targets_in(folder, () if self.reading is None else self.reading.entries)

    def correct(
        self, folder: Path, paths: Sequence[Path], replaced: Iterable[Path] = ()
    ) -> Callable[[Report], Corrected]:
        """Return the function that writes all stacks corrected, each to its path, see `targets`.

        Of files that exist only those in `replaced` are; one that fails is named, and the rest goes
        on. If it is cancelled, it returns what was done until then.
        """
        koma, reading, arguments = self.koma(), self._ready(), Output(keep=self.keep).arguments
        may_go = frozenset(replaced)

        def write_all(report: Report) -> Corrected:
            start = time.perf_counter()
            folder.mkdir(exist_ok=True)
            done = Corrected(folder, [(entry.name, why) for entry, why in reading.unusable.items()])
            done.skipped = [path for path in paths if path.exists() and path not in may_go]
            to_do = [i for i, path in enumerate(paths) if path not in done.skipped]
            lengths = [koma.session.summary(i).n_frames for i in to_do]
            part = parts(report, sum(lengths))
            try:
                for at, (index, n_frames) in enumerate(zip(to_do, lengths, strict=True), start=1):
                    path, name = paths[index], reading.entries[index].name
                    told = part(f"stack {at} of {len(to_do)}, {name}", n_frames)
                    try:
                        told(0, n_frames, "Averaging for ")
                        step = koma[index]
                        progress = partial(told, what="Correcting ")
                        with koma.session.opened(index) as stack:
                            corrected = stack.apply(step)
                            may = path in may_go
                            write(path, corrected, **arguments, progress=progress, overwrite=may)
                    except BAD_STACK as error:
                        done.failures.append((name, error_text(error)))
                    else:
                        done.written.append(path)
                        done.warnings += [(name, in_words(said)) for said in step.warnings]
            except Cancelled:
                done.cancelled = True
            done.seconds = time.perf_counter() - start
            return done

        return write_all

    def ageing(self) -> Callable[[Report], Ageing]:
        """Return the function that measures how the camera aged: outliers and noise of each."""
        reading, fits = self._ready(), self._fits

        def measure(report: Report) -> Ageing:
            session, raw = reading.session, Session([entry.source for entry in reading.entries])
            lengths = [session.summary(i).n_frames for i in range(len(raw))]
            part, waiting = parts(report, sum(lengths)), iter(enumerate(lengths, start=1))

            def fit(stack: Stack) -> OutlierFilter:
                number, n = next(waiting)
                told = part(f"Finding outliers of stack {number} of {len(raw)}", n)
                return outliers_of(stack, fits, told)

            census = count_outliers(raw, fit)
            with raw.opened(0) as stack:
                dose = cumulative_dose(session, stack.description.gain or 1.0)
            told = partial(report, "Comparing the sums")
            noise = noise_within(session, progress=told)
            correlation = correlation_with(session, progress=told)
            return Ageing(dose, census.n_hot, census.n_dark, noise, correlation)

        return measure


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


@dataclass
class Corrected:
    """How correcting all has gone; stacks are called by their names."""

    folder: Path
    failures: list[tuple[str, str]]  # stack, why it was not corrected
    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)  # files that were there, and still are
    warnings: list[tuple[str, str]] = field(default_factory=list)  # stack, why not to trust it
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
        n, folder = counted(len(self.written), "stack"), self.folder.name or self.folder
        how = f"{size_text(self.nbytes)} in {time_text(self.seconds)}"
        stay = (
            "; these files stay, and nothing is left of the one under way" if self.written else ""
        )
        lines = [
            f"Cancelled. {n} corrected before, to {folder}{stay}."
            if self.cancelled
            else f"{n} corrected to {folder}: {how}."
        ]
        if self.skipped:
            skipped = listed([path.name for path in self.skipped])
            lines.append(f"{skipped} skipped: there before.")
        if self.failures:
            lines.append(listed([f"{name}: {why}" for name, why in self.failures], separator="\n"))
        if self.warnings:
            warned = [*dict.fromkeys(name for name, _ in self.warnings)]
            lines.append(f"{len(warned)} with warnings: {listed(warned)}. The first of them:")
            lines.append(f"{self.warnings[0][0]}: {self.warnings[0][1]}.")
        return "\n".join(lines)


def in_words(warning: str) -> str:
    """Return a warning with the option's label in the place of its name in scripts."""
    return warning.replace("even_if_worse", "“Even if worse”")


def targets_in(folder: Path, entries: Iterable[Entry]) -> list[Path]:
    """Return one file for each entry, of its name; of equal names the later ones are numbered."""
    paths: list[Path] = []
    taken: set[str] = set()
    for entry in entries:
        stem = legal_stem(entry.name)
        stem = without_packing(Path(stem)).stem if has_movie_suffix(stem) else stem
        name, number = stem, 1
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
