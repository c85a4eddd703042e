"""Correcting a whole session into a folder: what goes where, doing it, and how it went."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.errors import error_text, size_text, time_text
from napari_mrcz.naming import COMPRESSED_SUFFIX, PACKED_SUFFIXES, SUFFIXES, legal_stem
from napari_mrcz.session import Koma
from napari_mrcz.stack import write
from napari_mrcz.widgets.base.job import Cancelled
from napari_mrcz.widgets.koma.reading import BAD_STACK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_mrcz.correction import KomaNormalization
    from napari_mrcz.correction.koma import KomaOptions
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.koma.outlier_fits import OutlierFits
    from napari_mrcz.widgets.koma.reading import Entry, Reading

_MOST_NAMED = 8


@dataclass(frozen=True, eq=False)
class KomaChoice:
    """All that decides what becomes of the frames.

    Attributes
    ----------
    reading : Reading
        The stacks, in order, with their sums.
    fits : OutlierFits or None
        What filters their outliers first.
    left_out : tuple of int
        Which of them enter no averages.
    options : KomaOptions
        How they are averaged and subtracted.
    """

    reading: Reading
    fits: OutlierFits | None
    left_out: tuple[int, ...]
    options: KomaOptions

    def koma(self) -> Koma:
        """Return the corrections; nothing is read for them."""
        return Koma(self.reading.session, **asdict(self.options), exclude=self.left_out)


@dataclass(frozen=True)
class Targets:
    """Files to be written, one for each entry.

    Attributes
    ----------
    folder : Path
        Where.
    paths : tuple of Path
        In the order of the entries: their names, with .mrcz.
    """

    folder: Path
    paths: tuple[Path, ...]

    @classmethod
    def of(cls, entries: Sequence[Entry], folder: str | os.PathLike[str]) -> Targets:
        """Name the files; of equal names the later ones are numbered."""
        paths: list[Path] = []
        taken: set[str] = set()
        for entry in entries:
            stem, number = _stem(entry.name), 1
            name = stem
            while name.casefold() in taken:
                number += 1
                name = f"{stem}-{number}"
            taken.add(name.casefold())
            paths.append(Path(folder, f"{name}{COMPRESSED_SUFFIX}"))
        return cls(Path(folder), tuple(paths))

    @property
    def existing(self) -> tuple[Path, ...]:
        """Those that are there already."""
        return tuple(path for path in self.paths if path.exists())

    def problem(self, entries: Sequence[Entry]) -> str:
        """Return why nothing can be written there; empty if it can."""
        if not self.folder.is_dir():
            return f"There is no folder {self.folder}."
        sources = [entry.path for entry in entries if entry.path and os.path.exists(entry.path)]
        for path in self.existing:
            if any(os.path.samefile(path, source) for source in sources):
                return (
                    f"{path.name} in this folder is itself a movie of the session. "
                    "Choose another folder."
                )
        return ""


@dataclass(frozen=True)
class Corrected:
    """How it went.

    Attributes
    ----------
    folder : Path
        Where the files are.
    written : tuple of Path
        Whole files.
    skipped : tuple of Path
        Files that were there, and still are.
    failures : tuple of (str, str)
        What a stack is called, and why it was not corrected.
    warnings : tuple of (str, str)
        What a stack is called, and where its result should not be trusted without a look.
    cancelled : bool
        Whether it ended before all was done.
    nbytes : int
        Of the files written.
    seconds : float
        For all.
    """

    folder: Path
    written: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    cancelled: bool = False
    nbytes: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def __str__(self) -> str:
        """Return it in a few lines."""
        n = len(self.written)
        count = f"{n} stack{'s' * (n != 1)}"
        where = f"to {self.folder.name or self.folder}"
        took = f"{size_text(self.nbytes)} in {time_text(self.seconds)}"
        if self.cancelled:
            stays = "; these files stay, and nothing is left of the one under way" if n else ""
            lines = [f"Cancelled. {count} corrected {where} before{stays}."]
        else:
            lines = [f"{count} corrected {where}: {took}."]
        if self.skipped:
            lines.append(f"{_names([p.name for p in self.skipped])} skipped: there before.")
        lines += [f"{name}: {why}" for name, why in self.failures[:_MOST_NAMED]]
        if (more := len(self.failures) - _MOST_NAMED) > 0:
            lines.append(f"and {more} more.")
        warned = dict.fromkeys(name for name, _ in self.warnings)
        if warned:
            lines.append(f"{len(warned)} with warnings: {_names([*warned])}. The first of them:")
            lines.append(f"{self.warnings[0][0]}: {self.warnings[0][1]}.")
        return "\n".join(lines)


def correct_all(
    choice: KomaChoice, targets: Targets, replaced: frozenset[Path], report: Report
) -> Corrected:
    """Correct each stack and write it; one that fails is named, and the rest goes on.

    Parameters
    ----------
    choice : KomaChoice
        The stacks and how they are corrected.
    targets : Targets
        Where they go.
    replaced : frozenset of Path
        Existing files that may be replaced; others are skipped.
    report : callable
        Told of every frame. What it raises ends the work; if it is `Cancelled`, what was done
        until then is returned.
    """
    reading = choice.reading
    skipped = tuple(path for path in targets.existing if path not in replaced)
    to_do = [i for i, path in enumerate(targets.paths) if path not in skipped]
    lengths = {i: reading.session.summary(i).n_frames for i in to_do}
    total, done = sum(lengths.values()), 0
    failures = [(entry.name, why) for entry, why in reading.unusable.items()]
    warnings: list[tuple[str, str]] = []
    written: list[Path] = []
    start = time.perf_counter()
    cancelled = False
    try:
        koma = choice.koma()
        for position, index in enumerate(to_do, start=1):
            path, entry = targets.paths[index], reading.entries[index]
            where = f"stack {position} of {len(to_do)}, {entry.name}"
            tell = partial(_tell, report, where, done, total)
            try:
                tell("Averaging for", 0, 0)
                step = koma[index]
                _correct_one(choice, index, step, path, path in replaced, tell)
            except BAD_STACK as error:
                failures.append((entry.name, error_text(error)))
            else:
                written.append(path)
                warnings += [(entry.name, said) for said in step.warnings]
            done += lengths[index]
    except Cancelled:
        cancelled = True
    return Corrected(
        targets.folder,
        tuple(written),
        skipped,
        tuple(failures),
        tuple(warnings),
        cancelled,
        sum(path.stat().st_size for path in written if path.exists()),
        time.perf_counter() - start,
    )


def _correct_one(
    choice: KomaChoice,
    index: int,
    step: KomaNormalization,
    path: Path,
    overwrite: bool,
    tell: Callable[[str, int, int | None], None],
) -> None:
    with ExitStack() as closing:
        if choice.fits is not None:
            # Finding outliers is not counted as progress: most have been found before.
            finding = partial(tell, "Finding outliers of")
            closing.enter_context(choice.fits.followed(lambda done, of: finding(0, 0)))
        stack = closing.enter_context(choice.reading.session.opened(index))
        write(path, stack.apply(step), progress=partial(tell, "Correcting"), overwrite=overwrite)


def _tell(
    report: Report, where: str, before: int, total: int, what: str, done: int, of: int | None
) -> None:
    frame = f", frame {done} of {of}" if of else ""
    report(f"{what} {where}{frame}", before + done, total)


def _stem(name: str) -> str:
    """Return a name without the suffixes of movies, and without what file systems refuse."""
    stem = name
    for suffix in (*PACKED_SUFFIXES, *SUFFIXES):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
    return legal_stem(stem)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
