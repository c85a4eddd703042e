"""One movie written again: in another format, copied chunk by chunk, or as it was when raw."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, collected_warnings, listed, warn
from napari_mrcz.format import Encoding, FrameReader, estimate
from napari_mrcz.format.doctor import diagnose, mend, repack
from napari_mrcz.format.files import file_nbytes
from napari_mrcz.format.footer import to_plain
from napari_mrcz.format.header_writing import other_words
from napari_mrcz.format.machine import in_order, processors
from napari_mrcz.naming import COMPRESSED_SUFFIX, SUFFIXES, software, without_packing
from napari_mrcz.session.source_files import Kept, SourceFiles, sha256_of
from napari_mrcz.session.tasks import WHOLE, Making, Outcome, Report, Selection, staged
from napari_mrcz.stack import Stack
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.keeping import original, original_file, restore_file
from napari_mrcz.stack.kept import copy_references, kept_reader
from napari_mrcz.stack.sources import ArraySource, DerivedFrames, FrameSource
from napari_mrcz.stack.tiff import is_eer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Frame = npt.NDArray[Any]

# Of a description; a header holds them as float32.
_FLOATS = ("pixel_size", "voltage", "c3", "gain", "origin")


@dataclass(frozen=True)
class Recode(Making):
    """Reads one file and writes another, frame by frame."""

    codec: str = "auto"  # As `napari_mrcz.write` takes them
    level: int = 1
    filter: str = "auto"
    dtype: str | None = None
    selection: Selection = WHOLE  # Frames and pixels that are taken
    # Gain reference by which a gain-normalised float movie is divided to get its counts back
    decimate: str = ""
    verify: bool = False  # Read the result back and compare every pixel with the source
    # Delete the source, if it is still the file that was read and all of it is in the result
    delete: bool = False
    # Find out whether the source may be deleted later: the outcome's `kept` says why not, its
    # result is the `stamp` of the file that was read
    judge: bool = False
    footer: bool = True  # Write a footer. Other programs expect none behind plain frames.

    def __post_init__(self) -> None:
        """Refuse to delete a source of which only a part or sums are kept, or without verifying."""
        if self.delete and not (self.selection.is_whole and self.verify):
            raise ValueError(
                "a source is deleted only where the result was verified to be the same"
            )

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Write, verify and delete."""
        notes: list[str] = []
        with collected_warnings() as heard, open_stack(self.source) as movie:
            wanted = self._wanted(movie, notes)
            if not there:
                notes += self._write(files, record, wanted, staged(report, "writing"))
                notes += self.selection.note(movie)
            with SourceFiles([self.target]) as result:
                if self.verify:
                    self._compare(wanted, staged(report, "verifying"))
                    notes.append("verified: every pixel is the same")
                files.check()
                kept = ""
                if self.delete or self.judge:
                    odd = [text.removeprefix(f"{movie.path}: ") for text in heard]
                    if is_eer(movie):
                        odd.append("it says where in their pixels electrons are, frames do not")
                    if kept_reader(movie) is not None and not self._stays_counts(wanted):
                        odd.append("it is kept as counts, which the result is not")
                    kept = "; ".join([*odd, *_left_out(wanted, self.target)])
                if self.delete and not kept:
                    movie.close()
                    try:
                        notes.append(files.delete(result.check_result))
                    except Kept as reason:
                        kept = str(reason)
        for message in heard:
            warn(message)
        if self.delete and kept:
            notes.append(f"source kept: {kept}")
        return Outcome(self.source, notes=tuple(notes), kept=kept, result=files.stamp)

    def options(self) -> dict[str, Any]:
        """Return the options that the pixels of the result depend on."""
        options = {
            "codec": self.codec,
            "dtype": self.dtype,
            **self.selection.chosen,
            "decimate": Path(self.decimate).name,
        }
        return {name: value for name, value in options.items() if value}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result."""
        with open_stack(self.source) as movie:
            return self.selection.of(movie).shape

    def estimate(self) -> int:
        """Estimate the size of the result in bytes from excerpts of a few frames."""
        if self.decimate or self.selection.group > 1:
            return 0
        codec = self.codec
        if codec == "auto":
            codec = "zstd" if self.target.endswith(COMPRESSED_SUFFIX) else "none"
        with open_stack(self.source) as whole:
            movie = self.selection.of(whole)
            if codec == "none":
                return movie.size * np.dtype(self.dtype or movie.dtype).itemsize
            encoding = Encoding(codec, self.level, self.filter)
            found = estimate(self.target, movie.sample_makers(), encoding, self.dtype)
            return round(found.frame_nbytes * len(movie))

    @property
    def works_on_results(self) -> bool:
        """Whether the source is to be deleted, for which its result has to be verified."""
        return self.delete

    def _files(self) -> SourceFiles:
        return SourceFiles([self.source], resting=self.delete or self.judge)

    def _write(
        self,
        files: SourceFiles,
        record: Mapping[str, Any],
        wanted: Stack,
        tell: Callable[[int, int | None], None],
    ) -> list[str]:
        """Write the result; return what is lost if it has no footer."""
        said: list[str] = []
        with ExitStack() as collecting:
            if not self.footer:
                said = collecting.enter_context(collected_warnings())
            self._write_result(
                wanted,
                record,
                codec=self.codec,
                level=self.level,
                filter=self.filter,
                dtype=self.dtype,
                footer=self.footer,
                keep="counts" if self._stays_counts(wanted) else "values",
                progress=files.watched(tell),
            )
        files.give_time(self.target)
        return [message.removeprefix(f"{self.target}: ") for message in said]

    def _stays_counts(self, wanted: Stack) -> bool:
        """Return whether the movie is kept as counts, and the result can be, too."""
        changed = self.dtype or self.decimate or not self.target.endswith(COMPRESSED_SUFFIX)
        return not changed and kept_reader(wanted) is not None

    def _compare(self, wanted: Stack, report: Callable[[int, int], None]) -> None:
        """Read the result back and raise `MrczError` if a pixel differs from the source."""
        with open_stack(self.target) as written:
            if written.shape != wanted.shape:
                found = f"{written.shape} was written, where {wanted.shape} was meant"
                raise MrczError(self.target, found)
            pairs = zip(wanted.frame_makers(), written.frame_makers(), strict=True)
            with in_order(_same_pixels, pairs, processors(), "napari-mrcz-compare") as compared:
                for index, same in enumerate(compared):
                    if not same:
                        found = "differs from its source"
                        advice = "Values were rounded, or the file is damaged; the source is kept"
                        raise MrczError(self.target, found, frame=index, advice=advice)
                    report(index + 1, len(wanted))

    def _wanted(self, movie: Stack, notes: list[str]) -> Stack:
        if self.decimate:
            from napari_mrcz.correction.conversions import DecimationError, decimate_by
            from napari_mrcz.stack.references import read_reference

            reference = read_reference(self.decimate)
            try:
                movie, orientation = decimate_by(movie, reference)
            except DecimationError:
                raise
            except ValueError as error:
                advice = "Name the one that this movie was multiplied by"
                raise MrczError(self.decimate, str(error), advice=advice) from error
            notes.append(f"orientation of the gain reference: {orientation}")
        return self.selection.of(movie)


def _left_out(wanted: Stack, target: str) -> list[str]:
    """Return which parts of a movie's description are not in its result."""
    with open_stack(target) as written:
        before, after = wanted.description, written.description
    names = [field.name for field in fields(before) if field.name not in ("path", "writer")]
    lost = [n for n in names if not _is_kept(n, getattr(before, n), getattr(after, n))]
    return [f"not all is in the result: {', '.join(lost)}"] if lost else []


def _is_kept(name: str, before: Any, after: Any) -> bool:
    if name == "labels":
        return {label for label in before if "MRCZ" not in label.upper()} <= set(after)
    if name == "extended":
        return bool(before == after)
    if name == "header":
        return other_words(before) == other_words(after)
    if name == "other":
        own = ("source", "extended", "header")
        before, after = ({k: v for k, v in d.items() if k not in own} for d in (before, after))
    if name in _FLOATS:
        return np.allclose(before, after, rtol=1e-5, atol=0)
    return msgpack.packb(to_plain(before)) == msgpack.packb(to_plain(after))


def _same_pixels(makers: tuple[Callable[[], Frame], Callable[[], Frame]]) -> bool:
    one, other = (maker() for maker in makers)
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


@dataclass(frozen=True)
class SumFrames(Making):
    """Sums the frames of a movie, or averages them; its history is kept."""

    selection: Selection = WHOLE  # What is summed; all of it, unless its groups are more than 1
    average: bool = False  # Divide by the number of frames
    dtype: str | None = None  # As `napari_mrcz.write` takes it

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Sum and write."""
        with open_stack(self.source) as movie:
            tell = files.watched(staged(report, "summing"))
            sums = self._sums(movie, tell)
            dtype = self.dtype
            # Other programs know neither integers of more than 16 bits nor float64.
            if dtype is None and sums.dtype.kind in "iuf" and sums.dtype.itemsize > 2:
                dtype = "float32"
            elif dtype is None and sums.dtype.kind == "c":
                dtype = "complex64"
            progress = tell if self.selection.group > 1 else None
            self._write_result(sums, record, dtype=dtype, progress=progress)
            files.check()
        files.give_time(self.target)
        return Outcome(self.source, notes=tuple(self.selection.note(movie)))

    def options(self) -> dict[str, Any]:
        """Return the options that the result depends on."""
        kind = "average" if self.average else "sum"
        chosen = {**self.selection.chosen, "dtype": self.dtype}
        return {"made": kind, **{name: value for name, value in chosen.items() if value}}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result."""
        with open_stack(self.source) as movie:
            shape = self.selection.of(movie).shape
            return shape if self.selection.group > 1 else (1, *shape[1:])

    def _sums(self, movie: Stack, progress: Callable[[int, int], None]) -> Stack:
        """Return one frame, or lazily one per group."""
        part = replace(self.selection, group=1).of(movie)
        n, size = len(part), self.selection.group
        if size > 1:
            sums, numbers = self.selection.of(movie), [size] * (n // size) + [n % size or size]
        else:
            total, numbers = part.sum(dtype="smallest", progress=progress), [n]
            metadata = {**part.description.metadata, "grouped": {"frames": n}}
            metadata["grouped"]["frames_per_group"] = n
            sums = Stack(ArraySource(total[None]), part.description, part.header)
            sums = sums.described(metadata=metadata, sections_per_volume=None)
        if not self.average:
            return sums
        source = _Averages(sums._source, numbers)
        metadata = {**sums.description.metadata, "averaged": True}
        return Stack(source, sums.description, sums.header).described(metadata=metadata)


class _Averages(DerivedFrames):
    """Sums divided by the number of frames in each."""

    def __init__(self, before: FrameSource, numbers: list[int]) -> None:
        super().__init__(before)
        self._numbers = numbers
        self.dtype = np.result_type(before.dtype, np.float32)

    def _read(self, frame: int) -> Frame:
        return np.asarray(self.before.read_frame(frame) / self.dtype.type(self._numbers[frame]))


@dataclass(frozen=True)
class Repack(Making):
    """Copies chunks unchanged, and adds index and checksums."""

    repair: bool = False  # Leave damaged frames out, and fix the header
    pixel_size: float = 0.0  # In Å, for files without; 0.0 if unknown

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Copy the file."""
        done = repack(
            self.source,
            self.target,
            writer=software(),
            made_of=record,
            leave_out_damaged=self.repair,
            overwrite=self.overwrite,
            progress=files.watched(staged(report, "copying")),
        )
        files.check()
        copy_references(self.source, self.target)
        notes = [f"{done.frames} of {done.announced} frames"]
        notes += [warning.removeprefix(f"{self.source}: ") for warning in done.warnings]
        if done.left_out:
            named = listed([fault.frame for fault in done.left_out], 20)
            plural = "s" * (len(done.left_out) > 1)
            notes.append(f"damaged and left out: frame{plural} {named}")
        if self.repair:
            findings = diagnose(self.target, pixel_size=self.pixel_size)
            if any(finding.mendable for finding in findings):
                notes += [str(change) for change in mend(self.target, findings)]
        else:
            files.give_time(self.target)
        return Outcome(self.source, notes=tuple(notes))

    def options(self) -> dict[str, Any]:
        """Return nothing: chunks are copied unchanged."""
        return {}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result."""
        with FrameReader(self.source) as reader:
            return reader.shape

    def estimate(self) -> int:
        """Return the size of the source: that of the result is about the same."""
        return file_nbytes(self.source)


@dataclass(frozen=True)
class Restore(Making):
    """Writes the raw movie: the same bytes if they can be restored, else the same frames."""

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Outcome:
        """Write it."""
        progress = files.watched(staged(report, "restoring"))
        name, _ = original_file(self.source)
        sha256 = ""
        if _same_kind(name, self.target):
            sha256 = restore_file(
                self.source, self.target, overwrite=self.overwrite, progress=progress
            )
        if sha256:
            note = f"the same bytes as {name}, SHA-256 {sha256}"
        else:
            with original(self.source) as raw:
                self._write_result(raw, record, progress=progress)
            note = f"the same frames as {name}, in a file of other bytes"
            if not name:
                note = "the frames that were corrected, which are not all of a file"
        files.check()
        return Outcome(self.source, notes=(note,))

    def options(self) -> dict[str, Any]:
        """Return that the result is the raw movie."""
        return {"restored": True}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the raw movie."""
        with original(self.source) as raw:
            return raw.shape

    def estimate(self) -> int:
        """Return the size of the raw movie, if it is known."""
        _, known = original_file(self.source)
        return 0 if known is None else known.nbytes

    def _why_not_done(self, files: SourceFiles, report: Report | None) -> str:
        name, known = original_file(self.source)
        if known is not None and _same_kind(name, self.target):
            if sha256_of([Path(self.target)]) == known.sha256:
                return ""
            if os.path.getsize(self.target) == known.nbytes:
                return f"it differs from {name}"
        return super()._why_not_done(files, report)


def restored_name(source: Path) -> str:
    """Return the file name of the raw movie: its own if that was MRC, else with ``.mrcz``."""
    name, _ = original_file(source)
    plain = without_packing(Path(Path(name or source).name))
    return plain.name if plain.suffix.lower() in SUFFIXES else f"{plain.stem}{COMPRESSED_SUFFIX}"


def _same_kind(name: str, target: str) -> bool:
    """Return whether two files are both compressed, or both plain, by their names."""
    return (Path(name).suffix.lower() == COMPRESSED_SUFFIX) == target.endswith(COMPRESSED_SUFFIX)
