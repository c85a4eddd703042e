"""Tasks, one per file: what they are called with, what they return, and results that exist.

A task takes a file, or a part of it (`Selection`). A result that exists, whole and made of the same
source in the same way, need not be made again. Results say in their footer what they were made of
(`SourceFiles.record`). Plain files have no footer, for other programs' sake: they are recognised
by shape, length and the time of change, which results take over from their source.
"""

from __future__ import annotations

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeAlias

from napari_mrcz.correction.options import Option, Options
from napari_mrcz.errors import MrczError, NotEnoughMemory, collected_warnings, counted
from napari_mrcz.format import FrameReader
from napari_mrcz.format.atomic import check_target
from napari_mrcz.format.footer import to_plain
from napari_mrcz.format.machine import in_order, processors
from napari_mrcz.session.source_files import SourceFiles, sha256_of
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack import open as open_stack

_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?")
_CROP = re.compile(r"(\d+),(\d+),(\d+),(\d+)")


@dataclass(frozen=True)
class Selection(Options):
    """Part of a movie that is taken: some frames, a rectangle of their pixels, sums of groups."""

    frames: Annotated[
        str,
        Option(
            "Frames",
            "Frames as FROM:TO or FROM:TO:STEP; the first is 0, TO is excluded",
            unset="all",
            flag="--frames",
            advice="A range of dose, such as 0:20",
        ),
    ] = ""
    crop: Annotated[
        str,
        Option(
            "Crop",
            "Pixels as X,Y,WIDTH,HEIGHT; the first column and row are 0",
            unset="all",
            flag="--crop",
            advice="To look at a part, or send it",
        ),
    ] = ""
    group: Annotated[
        int,
        Option(
            "Group",
            "Frames summed into one; the last sum may have fewer",
            least=1,
            flag="--group",
            advice="For EER, and where single frames have too few electrons",
        ),
    ] = 1

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        _ = self._slice, self._rectangle

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out, and nothing summed."""
        return not self.chosen

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that are not their defaults."""
        found = {"frames": self.frames, "crop": self.crop, "group": self.group}
        return {name: value for name, value in found.items() if value not in ("", 1)}

    def of(self, movie: Stack) -> Stack:
        """Return the part of a movie, lazily, named in its metadata; `MrczError` if it has none."""
        if self.is_whole:
            return movie
        n, height, width = movie.shape
        wanted = range(n)[self._slice]
        ends = [end for end in (self._slice.start, self._slice.stop) if end is not None]
        if not wanted or any(not -n <= end <= n for end in ends):
            found = f"frames {self.frames} are asked for, where there are {n}"
            raise MrczError(movie.path, found, advice=f"Frames are 0 to {n - 1}")
        x, y, columns, rows = self._rectangle or (0, 0, width, height)
        if x + columns > width or y + rows > height:
            found = f"a crop of {self.crop}, where frames have {width} columns and {height} rows"
            raise MrczError(movie.path, found)
        if len(wanted) // self.group == 0:
            found = f"groups of {self.group} frames are asked for, where there are {len(wanted)}"
            raise MrczError(movie.path, found)
        part = movie
        if self.frames or self.crop:
            part = movie.select(self._slice, slice(y, y + rows), slice(x, x + columns))
            selected: dict[str, Any] = {"of_shape": list(movie.shape)}
            if self.frames:
                step = wanted.step
                selected |= {"first_frame": wanted[0], "last_frame": wanted[-1], "step": step}
            selected |= {"crop": [x, y, columns, rows]} if self.crop else {}
            metadata = dict(part.description.metadata)
            if "selected" in metadata:  # a part of a part
                selected["of"] = metadata["selected"]
            metadata["selected"] = selected
            part = part.described(metadata=metadata)
        with collected_warnings():  # `note` says it
            return part.group(self.group) if self.group > 1 else part

    def note(self, movie: Stack) -> list[str]:
        """Return a note if the last group of frames is smaller than the others."""
        left = len(range(len(movie))[self._slice]) % self.group
        return [f"the last frame is the sum of {left}, not of {self.group}"] if left else []

    @property
    def _slice(self) -> slice:
        if not self.frames:
            return slice(None)
        found = _SLICE.fullmatch(self.frames)
        parts = [int(part) if part else None for part in found.groups()] if found else []
        if not parts or parts[2] == 0:
            raise ValueError(
                f"frames are FROM:TO or FROM:TO:STEP, such as 0:20, not {self.frames!r}"
            )
        return slice(*parts)

    @property
    def _rectangle(self) -> tuple[int, int, int, int] | None:
        if not self.crop:
            return None
        found = _CROP.fullmatch(self.crop)
        x, y, columns, rows = map(int, found.groups()) if found else (0, 0, 0, 0)
        if not columns or not rows:
            raise ValueError(
                f"a crop is X,Y,WIDTH,HEIGHT in pixels, such as 0,0,512,512, not {self.crop!r}"
            )
        return x, y, columns, rows


WHOLE = Selection()
"""All frames and pixels."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of the work on one file."""

    source: str  # The file that was read.
    target: str = ""  # The file that was written; empty if none was.
    error: str = ""  # Why it failed; empty if it did not.
    source_nbytes: int = 0  # Size of the file that was read, in bytes.
    target_nbytes: int = 0  # Size of the file that was written, in bytes.
    seconds: float = 0.0  # Time that the work took.
    notes: tuple[str, ...] = ()  # What else is worth knowing.
    # Sentences that say where the result should not be trusted without a look; empty if all is
    # well. Not in `notes`.
    warnings: tuple[str, ...] = ()
    kept: str = ""  # Why a source that was to be deleted is still there; empty otherwise.
    # Whether the result was there before, whole and of this source, and nothing was done.
    skipped: bool = False
    # SHA-256 of the source in hexadecimal digits; empty where it was not asked for.
    source_sha256: str = ""
    target_sha256: str = ""  # SHA-256 of the target, in the same way.
    result: Any = field(default=None, repr=False)  # What was found, for the caller.
    # Those of `warnings` that concern the whole session: they are printed once.
    shared: tuple[str, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return not self.error

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        plain = asdict(replace(self, result=None))
        del plain["result"], plain["shared"]
        return {**plain, "ok": self.ok}


Report: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage of the work, the frames that are done, and how many there are."""


class Task(Protocol):
    """Something to be done with one file. Pickled, where it is done elsewhere."""

    @property
    def source(self) -> str:
        """The file."""

    def __call__(self, report: Report | None = None) -> Outcome:
        """Run the task and return its outcome."""


def staged(report: Report | None, stage: str) -> Callable[[int, int | None], None]:
    """Return a function of (frames done, frames or None) that reports them with a stage."""

    def tell(done: int, total: int | None) -> None:
        if report is not None:
            report(stage, done, total or 0)

    return tell


def check_paths(sources: Iterable[str | Path], target: str) -> None:
    """Raise `MrczError` if a file would be written over itself."""
    there = [source for source in sources if os.path.exists(source) and os.path.exists(target)]
    if any(os.path.samefile(source, target) for source in there):
        raise MrczError(target, "is the file that is read", advice="Choose another name or folder")


_THERE = "there already, and whole"


@dataclass(frozen=True)
class Making(ABC):
    """A task that reads one file and writes another. Call it, here or on another machine."""

    source: str  # The file that is read, or the first one
    target: str  # The file that is written, or the first one
    _: KW_ONLY
    overwrite: bool = False  # Replace an existing target
    skip_existing: bool = False  # Do nothing where the result is there, whole and of this source
    checksums: bool = False  # Compute the SHA-256 of source and target for the outcome
    corrects: ClassVar[bool] = False  # Whether a result's history has warnings of its own

    @abstractmethod
    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Make the result; return an outcome with notes, warnings and the like, without sizes.

        `files`: the source, open; `record`: what the result should say of its source; `there`:
        whether the result exists; only if `works_on_results`.
        """

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return the options that the result depends on; for its footer."""

    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result, by which plain files are recognised."""

    @property
    def works_on_results(self) -> bool:
        """Whether there is something to be done with a result that exists."""
        return False

    def __call__(self, report: Report | None = None) -> Outcome:
        """Make the result; raise `MrczError` if that fails. The source is not changed."""
        start = time.perf_counter()
        with self._files() as files:
            check_paths(files.paths, self.target)
            there = self.skip_existing and self._is_done(files, report)
            before = sha256_of(files.paths) if self.checksums else ""
            made = Outcome(self.source, warnings=self.said_before() if there else ())
            if not there or self.works_on_results:
                made = self.make(files, files.record(**self.options()), report, there=there)
            after = sha256_of(self._written()) if self.checksums else ""
            return replace(
                made,
                target=self.target,
                source_nbytes=files.nbytes,
                target_nbytes=sum(os.path.getsize(path) for path in self._written()),
                seconds=time.perf_counter() - start,
                notes=(*(_THERE,) * there, *made.notes),
                skipped=there,
                source_sha256=before,
                target_sha256=after,
            )

    def planned(self) -> Outcome:
        """Return what would be done, without writing; raise `MrczError` if it cannot be done."""
        with self._files() as files:
            check_paths(files.paths, self.target)
            n, y, x = self.shape()
            if self.skip_existing and self._is_done(files, None):
                return Outcome(self.source, self.target, notes=(_THERE,), skipped=True)
            exists = any(path.exists() for path in self._written())
            for path in self._written():
                check_target(path, overwrite=self.overwrite)
            notes = (f"{counted(n, 'frame')} of {y} x {x}", *("would be replaced",) * exists)
            sizes = files.nbytes, self.estimate() if files.nbytes else 0
            return Outcome(self.source, self.target, "", *sizes, notes=notes)

    def is_done(self) -> bool:
        """Return whether the result exists, whole and of this source."""
        if not os.path.exists(self.target):
            return False
        with self._files() as files:
            return not self._why_not_done(files, None)

    def recorded(self) -> dict[str, Any]:
        """Return the options by which an existing result was made; {} if it does not say."""
        options = self._record().get("options")
        return options if isinstance(options, dict) else {}

    def said_before(self) -> tuple[str, ...]:
        """Return the warnings of a result that exists, as its history and footer have them."""
        if not self.corrects:
            return ()
        with open_stack(self.target) as result, open_stack(self.source) as movie:
            steps = result.history[len(movie.history) :]
        own = [warning for step in steps for warning in step.get("warnings", ())]
        return tuple(dict.fromkeys([*self._record().get("warnings", ()), *own]))

    def _record(self) -> dict[str, Any]:
        """Return what the footer of an existing result says of its source; {} if nothing."""
        try:
            with FrameReader(self.target) as reader:
                said = reader.footer.other.get("source")
        except NotEnoughMemory:
            raise
        except MrczError:
            return {}
        return said if isinstance(said, dict) else {}

    def estimate(self) -> int:
        """Estimate the size of the result in bytes; 0 if that is not possible."""
        return 0

    def _write_result(self, movie: Stack, record: Mapping[str, Any], **options: Any) -> None:
        """Write a movie as the result, with what it was made of in its footer."""
        other = {**movie.description.other, "source": record}
        write(self.target, movie.described(other=other), overwrite=self.overwrite, **options)

    def _files(self) -> SourceFiles:
        return SourceFiles([self.source])

    def _written(self) -> list[Path]:
        return [Path(self.target)]

    def _is_done(self, files: SourceFiles, report: Report | None) -> bool:
        """Return whether the result exists; raise `MrczError` if another file is in its place."""
        if not os.path.exists(self.target):
            return False
        why = self._why_not_done(files, report)
        if why and not self.overwrite:
            found = f"exists already, and is not this result: {why}"
            raise MrczError(self.target, found, advice="Choose another name, or --overwrite it")
        return not why

    def _why_not_done(self, files: SourceFiles, report: Report | None) -> str:
        """Return why an existing file is not the result, or "".

        Stored bytes are compared with their checksums; nothing is decompressed.
        """
        record = files.record(**self.options())
        try:
            with FrameReader(self.target) as reader:
                if reader.warnings:
                    return reader.warnings[0].removeprefix(f"{reader.path}: ")
                said = reader.footer.other.get("source")
                if said is not None or reader.header.codec:
                    if differing := _differing(said, record):
                        return differing
                elif reader.shape != self.shape():
                    return f"it has frames of {reader.shape}"
                elif os.stat(self.target).st_mtime_ns != record["mtime_ns"]:
                    return "it is not of the same time as its source"
                n = len(reader.index) if reader.index.xxh3 is not None else 0

                def check(frame: int) -> None:
                    reader.read_stored(frame)

                tell = staged(report, "checking")
                with in_order(check, range(n), processors(), "napari-mrcz-check") as frames:
                    for done, _ in enumerate(frames, 1):
                        tell(done, n)
        except NotEnoughMemory:
            raise
        except MrczError as error:
            return str(error).removeprefix(f"{self.target}: ")
        return ""


def _differing(said: Any, record: Mapping[str, Any]) -> str:
    """Return in what the source that a footer names differs from another, or ""."""
    if not isinstance(said, dict):
        return "it does not say which file it was made of"
    if any(said.get(key) != record[key] for key in ("name", "size", "mtime_ns")):
        return f"it was made of another file, or of {record['name']} before that was changed"
    if said.get("options") != to_plain(record["options"]):
        return f"it was made of {record['name']} with other options"
    return ""
