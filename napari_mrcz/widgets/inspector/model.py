"""What a layer's file says, and what is done with it; without a window."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz import correction
from napari_mrcz.errors import MrczError, collected_warnings, counted, error_text, listed, size_text
from napari_mrcz.format import Description, FrameReader
from napari_mrcz.format.atomic import write_file
from napari_mrcz.format.doctor import Change, diagnose, mend
from napari_mrcz.format.files import file_nbytes
from napari_mrcz.format.footer import to_json_safe
from napari_mrcz.naming import RemotePath, path_of
from napari_mrcz.plugin.layers import describe, layer_data, stack_of_layer
from napari_mrcz.stack import Stack, verify
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.inspection import Entry, entries_of, entry_of, header_entries
from napari_mrcz.stack.kept import is_kept, summary_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Image

    from napari_mrcz.format import Header
    from napari_mrcz.format.findings import Finding
    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.stack import VerifyReport
    from napari_mrcz.widgets.base.job import Report


@dataclass(frozen=True)
class Subject:
    """A layer, as much of it as is known without reading; it keeps no file open."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    # What is saved with it, its file's path included.
    description: Description = field(default_factory=Description)
    header: Header | None = None  # as it was when the file was opened
    paths: tuple[str, ...] = ()  # all its files, where they were joined
    problem: str = ""  # why it is no stack of frames


def subject_of(layer: Image) -> Subject:
    """Return what a layer tells without a byte being read."""
    try:
        stack = stack_of_layer(layer)
    except MrczError as error:
        shape = tuple(map(int, layer.data[0].shape if layer.multiscale else layer.data.shape))
        return Subject(layer.name, shape, str(layer.dtype), problem=error_text(error))
    paths = tuple(map(str, layer.metadata.get("paths", ()))) if stack.path else ()
    return Subject(
        layer.name, stack.shape, str(stack.dtype), stack.description, stack.header, paths
    )


@dataclass(frozen=True)
class Inspection:
    """All that is known of a layer and its file."""

    subject: Subject
    headline: str
    warnings: tuple[str, ...] = ()  # what is wrong with the file, or unusual
    sections: tuple[Entry, ...] = ()  # the tree
    frames: FrameTable | None = None  # where there is a file that can be read
    read: Mapping[str, Any] = field(default_factory=dict)  # from the file, for JSON


NOTHING = Inspection(Subject(""), "Open a movie, or select an image layer, to inspect it.")


def inspect(subject: Subject) -> Inspection:
    """Read all that a layer's file says, but no pixels; without a file, return what there is."""
    path, header, problem = subject.description.path, subject.header, subject.problem
    nbytes = None
    try:
        if path and header is not None:
            with FrameReader(path) as reader:
                return _of_file(subject, reader)
        if path:  # its metadata was read when it was opened
            nbytes = file_nbytes(path)
    except (MrczError, OSError) as error:
        problem = error_text(error)
    if nbytes is not None:
        sections = [
            _file(subject, nbytes),
            Entry("Frames", subject.name, "", "What the file says of them", _frames(subject)),
        ]
        size, kept = size_text(nbytes), "What the file, or one beside it, says"
    else:
        size = "its file is out of reach" if path else "in no file"
        kept = "What is kept with it when it is saved"
        where = "What was known when it was opened" if path else "Frames in memory"
        sections = [Entry("Layer", subject.name, "", where, _frames(subject))]
        if header is not None:
            entries = tuple(header_entries(header))
            sections.append(_section("Header", entries, "As it was when the file was opened"))
    sections.append(_section("Metadata", entries_of(subject.description.metadata), kept))
    problems, read = (problem,) if problem else (), {"size": nbytes} if nbytes else {}
    return Inspection(subject, _headline(subject, size), problems, tuple(sections), None, read)


def _of_file(subject: Subject, reader: FrameReader) -> Inspection:
    header, footer, path = reader.header, reader.footer, path_of(subject.description.path)
    nbytes = file_nbytes(path)
    changed = 0 if isinstance(path, RemotePath) else path.stat().st_mtime_ns
    notes = (*(w.removeprefix(f"{reader.path}: ") for w in reader.warnings), *header.notes)
    if is_kept(footer.other):
        notes = (*notes, summary_of(reader.path, footer.other, reader.dtype))
    told = {
        "writer": footer.writer,
        "frame index": footer.frames and f"{len(footer.frames)} frames",
        "checksums": footer.frames
        and ("none" if reader.index.xxh3 is None else "xxh3, one per frame"),
        "pixel type before saving": footer.dtype,
        "history": footer.history and f"{len(footer.history)} steps",
    }
    told = {name: value for name, value in told.items() if value} | dict(footer.other)
    sections = [
        _file(subject, nbytes),
        _section("Header", tuple(header_entries(header)), "The first 1024 bytes"),
    ]
    if notes:
        lines = tuple(Entry(str(at), note) for at, note in enumerate(notes, 1))
        sections.append(_section("Notes", lines, "What is unusual", str(len(lines))))
    kept = "Kept with the frames, or in files beside them"
    sections.append(_section("Metadata", entries_of(subject.description.metadata), kept))
    extended, carried = reader.extended, reader.description.extended
    if carried is not None:
        with contextlib.suppress(ValueError):  # the notes say it
            extended = carried.decoded
        extended = carried.data if extended is None else extended
        size, kind = size_text(len(carried.data)), carried.decoded_as or "no kind stated"
        own = header.nsymbt and header.exttyp != "json"
        where = "between header and frames" if own else "of the file that this one was made of"
        value, records = f"{kind}, {size}, not decoded", tuple[Entry, ...]()
        if isinstance(extended, list):
            noun = "frame" if isinstance(extended[0], dict) else "line"
            value = f"{kind}, {counted(len(extended), 'record')}"
            records = tuple(entry_of(f"{noun} {at}", record) for at, record in enumerate(extended))
        meaning = f"{size} {where}, of kind {kind}"
        sections.append(Entry("Extended header", value, "", meaning, records))
    elif extended is not None:
        # What JSON can hold of the user's metadata, which is shown in whole.
        meaning = f"{size_text(header.nsymbt)} between header and frames"
        entries = entries_of(extended)
        sections.append(Entry("Extended header", "json", "", meaning, entries, folded=True))
    sections.append(_section("Footer", entries_of(told), "What follows the last frame"))
    frames = FrameTable(
        str(reader.path),
        reader.index.offsets,
        reader.index.sizes,
        reader.frame_nbytes if header.codec else header.frame_nbytes,
        bool(header.codec),
        reader.index.xxh3 is not None,
        (nbytes, changed),
    )
    read = {"size": nbytes, "header": dict(header), "extended_header": extended, "footer": told}
    headline = _headline(subject, size_text(nbytes))
    return Inspection(subject, headline, notes, tuple(sections), frames, read)


def _file(subject: Subject, nbytes: int) -> Entry:
    path = path_of(subject.description.path)
    size = f"{size_text(nbytes)} ({nbytes} B)"
    told = entries_of({"name": path.name, "folder": str(path.parent), "size": size})
    if len(subject.paths) > 1:
        names = tuple(Entry(str(at), p) for at, p in enumerate(subject.paths))
        meaning = "Shown as one layer; the first of them is inspected"
        told = (*told, Entry("joined with", f"{len(names)} files", "", meaning, names))
    return _section("File", told, "Where the frames are", path.name)


def _frames(subject: Subject) -> tuple[Entry, ...]:
    said = subject.description
    size = " × ".join(f"{s:g}" for s in said.pixel_size if s)
    voltage = f"{said.voltage:g}" if said.voltage else ""
    return (
        Entry("shape", " × ".join(map(str, subject.shape)), "", "Frames, rows, columns"),
        Entry("pixel type", subject.dtype, "", "Type of the numbers"),
        Entry("pixel size", size or "unknown", "Å" if size else "", "Along (z,) y and x"),
        Entry("voltage", voltage or "unknown", "kV" if voltage else "", "Acceleration voltage"),
    )


def _section(name: str, entries: tuple[Entry, ...], meaning: str, value: str = "") -> Entry:
    return Entry(name, value or ("" if entries else "none"), "", meaning, entries)


def _headline(subject: Subject, size: str) -> str:
    """Return the frames in a line, corrections included."""
    *n, y, x = map(str, subject.shape)
    frames = " × ".join([*n, y, x])
    if not subject.problem:
        frames = f"{counted(int(n[0]) if len(n) == 1 else 1, 'frame')} of {y} × {x}"
    steps = counted(len(subject.description.history), "correction").replace(" ", "\u00a0")
    done = f", {steps}" if subject.description.history else ""
    return f"{frames}, {subject.dtype}, {size}{done}"


# Name and meaning of each column.
COLUMNS = (
    ("Frame", "Counted from 0"),
    ("Offset (B)", "Byte of the file at which the frame begins"),
    ("Size", "What the frame takes in the file"),
    ("Ratio", "Compression ratio: its size uncompressed by its size in the file"),
    ("State", "Whether its bytes match their checksum, or decode where there is none"),
)


@dataclass(frozen=True)
class FrameTable:
    """The frames of one file."""

    path: str
    offsets: Sequence[int] | npt.NDArray[np.uint64]  # bytes from the file's start
    sizes: npt.NDArray[np.uint64]  # bytes in the file
    frame_nbytes: int  # uncompressed
    compressed: bool
    checksums: bool
    stamp: tuple[int, int] = (0, 0)  # length and time of change, which another file has not
    report: VerifyReport | None = None  # when all frames were read since

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.offsets)

    @cached_property
    def ratios(self) -> npt.NDArray[np.float64]:
        """The compression ratio of every frame."""
        return np.asarray(self.frame_nbytes / np.maximum(self.sizes, 1), np.float64)

    @cached_property
    def faults(self) -> dict[int, str]:
        """What is wrong with damaged frames, as far as known."""
        return {} if self.report is None else {f.frame: f.found for f in self.report.faults}

    def texts(self, frame: int) -> tuple[str, ...]:
        """Return what is shown of a frame, one text for each of `COLUMNS`."""
        state = "unread" if self.checksums else "none"
        if self.report is not None:
            good = "matches" if self.checksums else "decodes"
            state = "damaged" if frame in self.faults else good
        return (
            str(frame),
            f"{int(self.offsets[frame]):,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
            size_text(int(self.sizes[frame])),
            f"{self.ratios[frame]:.2f}" if self.compressed else "1",
            state,
        )

    def tip(self, frame: int) -> str:
        """Return more than the table has room for."""
        where = f"Frame {frame}: {int(self.sizes[frame])} bytes at {int(self.offsets[frame])}"
        return f"{where}\n{self.faults.get(frame, '')}".rstrip()

    def summary(self) -> str:
        """Return all frames in a sentence or two."""
        stored = float(self.sizes.sum(dtype=np.float64))
        said = f"{counted(len(self), 'frame')} of {size_text(self.frame_nbytes)}"
        if self.compressed:
            ratio = self.frame_nbytes * len(self) / max(1, stored)
            said += f" in {size_text(stored)}: compressed {ratio:.2f} to 1"
            said += f" ({self.ratios.min():.2f} to {self.ratios.max():.2f})."
        else:
            said += ", not compressed."
        return said + (" With checksums." if self.checksums else " No checksums.")

    def verdict(self) -> str:
        """Return how verifying ended, as `verify` words it, and the first damaged frames."""
        said = "Not verified" if self.report is None else self.report.verdict
        bad = f" Damaged: {listed(sorted(self.faults), 8)}." if self.faults else ""
        return f"{said[:1].upper()}{said[1:]}.{bad}"

    def as_map(self) -> dict[str, Any]:
        """Return the table for JSON."""
        return {
            "offset": [int(offset) for offset in self.offsets],
            "size": self.sizes.tolist(),
            "ratio": self.ratios.round(4).tolist(),
            "checksums": self.checksums,
            "verified": self.report is not None,
            "damaged": {str(frame): found for frame, found in self.faults.items()},
        }


def as_json(
    inspection: Inspection, findings: Sequence[Finding], frames: FrameTable | None, path: str = ""
) -> str:
    """Return all of it as JSON, and write that to a file; large arrays and bytes are left out."""
    subject = inspection.subject
    known = {"layer": subject.name, "shape": subject.shape, "dtype": subject.dtype}
    for name in ("path", "pixel_size", "voltage", "metadata", "history"):
        known[name] = getattr(subject.description, name)
    known = to_json_safe({**known, **inspection.read})
    names = ("field", "sentence", "found", "proposed")
    known["findings"] = [{name: getattr(f, name) for name in names} for f in findings]
    if frames is not None:
        known["frames"] = frames.as_map()
    text = json.dumps(known, indent=2, ensure_ascii=False) + "\n"
    if path:
        write_file(path, text.encode(), overwrite=True)
    return text


def check_header(path: str, full: bool, pixel_size: float, report: Report) -> tuple[Finding, ...]:
    """Check a header with the doctor, and at all frames if `full`."""
    progress = partial(report, "Looking at frame")
    return diagnose(path, full=full, pixel_size=pixel_size, progress=progress)


def check_frames(
    path: str, pixel_size: float, report: Report
) -> tuple[VerifyReport, tuple[Finding, ...]]:
    """Read every frame of a file, and hold its header against them."""
    verified = verify(path, progress=partial(report, "Verifying frame"))
    return verified, () if verified.error else check_header(path, True, pixel_size, report)


def mend_file(
    path: str,
    findings: Sequence[Finding],
    target: str | None,
    layers: Sequence[Subject],
    report: Report,
) -> tuple[tuple[Change, ...], list[LayerData | Exception]]:
    """Fix a file in a copy (whose replacing was asked about) or in place, and reopen its layers."""
    progress, overwrite = partial(report, "Copying"), target is not None
    changes = mend(path, findings, target=target, overwrite=overwrite, progress=progress)
    # From here on the file is another; nothing may end this halfway.
    return changes, [_reopened(subject) for subject in layers]


def _reopened(subject: Subject) -> LayerData | Exception:
    """Open a file, and do again what had been done to a layer of it."""
    said, file = subject.description, None
    try:
        with collected_warnings():
            file = stack = open_stack(said.path)
        if len(said.history) > len(file.history):
            stack = correction.replay(said.history[len(file.history) :], file)
        stack = stack.described(metadata=said.metadata)
        return layer_data(stack, subject.name, metadata=describe(stack))[0]
    except ValueError as error:
        if file is not None:
            file.close()  # the error keeps it, as long as it is kept itself
        return error


def replayed(history: Sequence[Mapping[str, Any]], stack: Stack, name: str) -> list[LayerData]:
    """Do a history again to a stack, lazily; an error if a step cannot be done to such frames."""
    return layer_data(correction.replay(history, stack), f"{name} replayed")


def save_recipe(stack: Stack, path: str) -> str:
    """Save what was done to a stack as a recipe for other movies; return a sentence on it."""
    from napari_mrcz.session.recipe_history import output_of, save_recipe_of

    # Whoever chose the name of a recipe that exists agreed to have it replaced, images included.
    replaces = Path(path).exists()
    save_recipe_of(stack.history, path, output=output_of(stack), overwrite=replaces)
    return f"Saved {Path(path).name}. To do it to other movies: napari-mrcz correct -r {path} …"
