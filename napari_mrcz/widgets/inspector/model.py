"""What a layer's file says, and what is done with it; without a window."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, collected_warnings, counted, error_text, listed, size_text
from napari_mrcz.format import FrameReader
from napari_mrcz.format.atomic import AtomicFile
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
    from napari_mrcz.format.extended import ExtendedHeader
    from napari_mrcz.format.findings import Finding
    from napari_mrcz.format.footer import Footer
    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.stack import VerifyReport
    from napari_mrcz.widgets.base.job import Report


@dataclass(frozen=True)
class Inspection:
    """All that is known of a layer and its file."""

    subject: Subject
    headline: str
    warnings: tuple[str, ...] = ()  # what is wrong with the file, or unusual
    sections: tuple[Entry, ...] = ()  # the tree
    frames: FrameTable | None = None  # where there is a file that can be read
    content: Mapping[str, Any] = field(default_factory=dict)  # the same for JSON


def inspect(subject: Subject) -> Inspection:
    """Read all that a layer's file says, but no pixels; without a file, return what there is."""
    if not subject.path:
        return _without_header(subject, ())
    try:
        if subject.header is None:  # its metadata was read when it was opened
            return _without_header(subject, (), file_nbytes(subject.path))
        with FrameReader(subject.path) as reader:
            return _of_file(subject, reader)
    except MrczError as error:
        return _without_header(subject, (error_text(error),))
    except OSError as error:
        return _without_header(subject, (f"{Path(subject.path).name}: {error.strerror}.",))


def as_json(inspection: Inspection, findings: Sequence[Finding], frames: FrameTable | None) -> str:
    """Return all of it as JSON; what JSON cannot hold (large arrays, bytes) is left out."""
    content = dict(to_json_safe(inspection.content))
    content["findings"] = [
        {"field": f.field, "sentence": f.sentence, "found": f.found, "proposed": f.proposed}
        for f in findings
    ]
    if frames is not None:
        content["frames"] = frames.as_map()
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def export(path: str, text: str) -> None:
    """Write the JSON to a file, which is replaced only when all is on disk."""
    with AtomicFile(path, overwrite=True) as file:
        file.write(text.encode())
        file.commit()


def _of_file(subject: Subject, reader: FrameReader) -> Inspection:
    header, footer = reader.header, reader.footer
    path = path_of(subject.path)
    nbytes = file_nbytes(path)
    changed = 0 if isinstance(path, RemotePath) else path.stat().st_mtime_ns
    warnings_ = tuple(w.removeprefix(f"{reader.path}: ") for w in reader.warnings)
    notes = (*warnings_, *header.notes)
    if is_kept(footer.other):
        notes = (*notes, summary_of(reader.path, footer.other, reader.dtype))
    carried = reader.description.extended
    sections = [
        _file(subject, nbytes),
        _section("Header", tuple(header_entries(header)), "The first 1024 bytes"),
    ]
    if notes:
        lines = tuple(Entry(str(at), note) for at, note in enumerate(notes, 1))
        sections.append(_section("Notes", lines, "What is unusual", str(len(lines))))
    kept = "Kept with the frames, or in files beside them"
    sections.append(_section("Metadata", entries_of(subject.metadata), kept))
    extended = reader.extended
    if carried is not None:
        with contextlib.suppress(ValueError):  # the notes say it
            extended = carried.decoded()
        extended = carried.data if extended is None else extended
        sections.append(_extended_section(header, carried, extended))
    elif extended is not None:
        # What JSON can hold of the user's metadata, which is shown in whole.
        meaning = f"{size_text(header.nsymbt)} between header and frames"
        entries = entries_of(extended)
        sections.append(Entry("Extended header", "json", "", meaning, entries, folded=True))
    told = _footer(footer, reader.index.xxh3 is not None)
    sections.append(_section("Footer", entries_of(told), "What follows the last frame"))
    return Inspection(
        subject,
        _headline(subject, size_text(nbytes)),
        notes,
        tuple(sections),
        FrameTable.of(reader, (nbytes, changed)),
        {
            "path": subject.path,
            "size": nbytes,
            "header": dict(header),
            "extended_header": extended,
            "metadata": subject.metadata,
            "footer": told,
            "history": list(subject.history),
        },
    )


def _without_header(
    subject: Subject, problems: tuple[str, ...], nbytes: int | None = None
) -> Inspection:
    """Return what there is of a layer whose file has no header of MRC, or cannot be read now."""
    content = {
        "layer": subject.name,
        "shape": list(subject.shape),
        "dtype": subject.dtype,
        "pixel_size": list(subject.pixel_size),
        "voltage": subject.voltage,
        "metadata": subject.metadata,
        "history": list(subject.history),
    }
    if nbytes is not None:
        size, said = size_text(nbytes), "What the file, or one beside it, says"
        frames = Entry("Frames", subject.name, "", "What the file says of them", _frames(subject))
        sections = [_file(subject, nbytes), frames]
        content = {"path": subject.path, "size": nbytes, **content}
    else:
        size = "in no file" if not subject.path else "its file is out of reach"
        said = "What is kept with it when it is saved"
        where = "Frames in memory" if not subject.path else "What was known when it was opened"
        sections = [Entry("Layer", subject.name, "", where, _frames(subject))]
        if subject.header is not None:
            entries = tuple(header_entries(subject.header))
            sections.append(_section("Header", entries, "As it was when the file was opened"))
    sections.append(_section("Metadata", entries_of(subject.metadata), said))
    told = tuple(problem for problem in (*problems, subject.problem) if problem)
    return Inspection(subject, _headline(subject, size), told, tuple(sections), None, content)


def _frames(subject: Subject) -> tuple[Entry, ...]:
    size = " × ".join(f"{s:g}" for s in subject.pixel_size if s)
    voltage = f"{subject.voltage:g}" if subject.voltage else ""
    return (
        Entry("shape", " × ".join(map(str, subject.shape)), "", "Frames, rows, columns"),
        Entry("pixel type", subject.dtype, "", "Type of the numbers"),
        Entry("pixel size", size or "unknown", "Å" if size else "", "Along (z,) y and x"),
        Entry("voltage", voltage or "unknown", "kV" if voltage else "", "Acceleration voltage"),
    )


def _headline(subject: Subject, size: str) -> str:
    shape = " × ".join(map(str, subject.shape[-2:]))
    frames = f"{counted(subject.shape[0] if len(subject.shape) == 3 else 1, 'frame')} of {shape}"
    if subject.problem:
        frames = " × ".join(map(str, subject.shape))
    steps = len(subject.history)
    plural = "s" if steps > 1 else ""
    done = f", {steps}\N{NO-BREAK SPACE}correction{plural}" if steps else ""
    return f"{frames}, {subject.dtype}, {size}{done}"


def _file(subject: Subject, nbytes: int) -> Entry:
    path = path_of(subject.path)
    told = [
        Entry("name", path.name, "", "The file"),
        Entry("folder", str(path.parent), "", "Where it is"),
        Entry("size", f"{size_text(nbytes)} ({nbytes} B)", "", "Its length"),
    ]
    if len(subject.paths) > 1:
        names = tuple(Entry(str(at), p) for at, p in enumerate(subject.paths))
        meaning = "Shown as one layer; the first of them is inspected"
        told.append(Entry("joined with", f"{len(names)} files", "", meaning, names))
    return _section("File", tuple(told), "Where the frames are", path.name)


def _extended_section(header: Header, extended: ExtendedHeader, content: Any) -> Entry:
    size, kind = size_text(len(extended.data)), extended.decoded_as or "no kind stated"
    own = header.nsymbt and header.exttyp != "json"
    where = "between header and frames" if own else "of the file that this one was made of"
    meaning = f"{size} {where}, of kind {kind}"
    if isinstance(content, list):
        noun = "frame" if isinstance(content[0], dict) else "line"
        records = tuple(entry_of(f"{noun} {at}", record) for at, record in enumerate(content))
        what = f"{kind}, {len(records)} record{'s' if len(records) != 1 else ''}"
        return Entry("Extended header", what, "", meaning, records)
    return Entry("Extended header", f"{kind}, {size}, not decoded", "", meaning)


def _section(name: str, entries: tuple[Entry, ...], meaning: str, value: str = "") -> Entry:
    return Entry(name, value or ("" if entries else "none"), "", meaning, entries)


def _footer(footer: Footer, checksums: bool) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if footer.writer:
        told["writer"] = footer.writer
    if footer.frames is not None:
        told["frame index"] = f"{len(footer.frames)} frames"
        told["checksums"] = "xxh3, one per frame" if checksums else "none"
    if footer.dtype is not None:
        told["pixel type before saving"] = footer.dtype
    if footer.history:
        told["history"] = f"{len(footer.history)} steps"
    return told | dict(footer.other)


# Name and meaning of each column.
COLUMNS = (
    ("Frame", "Counted from 0"),
    ("Offset", "Byte of the file at which the frame begins"),
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
    verified: bool = False  # all frames were read since
    faults: Mapping[int, str] = field(default_factory=dict)  # of damaged frames, as far as known

    @classmethod
    def of(cls, reader: FrameReader, stamp: tuple[int, int]) -> FrameTable:
        """Make the table of an open file."""
        header, index = reader.header, reader.index
        return cls(
            str(reader.path),
            index.offsets,
            index.sizes,
            reader.frame_nbytes if header.codec else header.frame_nbytes,
            bool(header.codec),
            index.xxh3 is not None,
            stamp,
        )

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.offsets)

    def is_of_same_file(self, other: FrameTable) -> bool:
        """Return whether nothing but what is known of the frames differs."""
        return (self.path, self.stamp, len(self)) == (other.path, other.stamp, len(other))

    def with_report(self, report: VerifyReport) -> FrameTable:
        """Return the same frames with what verifying them found."""
        return replace(self, verified=True, faults={f.frame: f.found for f in report.faults})

    def ratio(self, frame: int) -> float:
        """Return the compression ratio of a frame."""
        return self.frame_nbytes / max(1, int(self.sizes[frame]))

    def ratios(self) -> npt.NDArray[np.float64]:
        """Return the compression ratio of every frame."""
        return np.asarray(self.frame_nbytes / np.maximum(self.sizes, 1), np.float64)

    def curve(self, most: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return frames and ratios to be drawn: of many frames the extremes of each few."""
        ratios = self.ratios()
        count = len(ratios)
        if count <= most:
            return np.arange(count, dtype=np.float64), ratios
        starts = np.arange(0, count, -(-2 * count // most))
        low, high = (f.reduceat(ratios, starts) for f in (np.minimum, np.maximum))
        return np.repeat(starts.astype(np.float64), 2), np.stack([low, high], axis=1).reshape(-1)

    def texts(self, frame: int) -> tuple[str, ...]:
        """Return what is shown of a frame, one text for each of `COLUMNS`."""
        return (
            str(frame),
            f"{int(self.offsets[frame]):,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
            size_text(int(self.sizes[frame])),
            f"{self.ratio(frame):.2f}" if self.compressed else "1",
            self.state(frame),
        )

    def widest(self) -> tuple[str, ...]:
        """Return texts at least as wide as any of `texts`, in the same order."""
        if not len(self):
            return ("",) * len(COLUMNS)
        last, least = len(self) - 1, int(self.sizes.argmin())
        return (str(last), self.texts(last)[1], "8.88 MB", self.texts(least)[3], "damaged")

    def state(self, frame: int) -> str:
        """Return a word or two on whether a frame is whole."""
        if frame in self.faults:
            return "damaged"
        if not self.verified:
            return "unread" if self.checksums else "none"
        return "matches" if self.checksums else "decodes"

    def tip(self, frame: int) -> str:
        """Return more than the table has room for."""
        where = f"Frame {frame}: {int(self.sizes[frame])} bytes at {int(self.offsets[frame])}"
        return f"{where}\n{self.faults.get(frame, '')}".rstrip()

    def summary(self) -> str:
        """Return all frames in a sentence or two."""
        count, stored = len(self), float(self.sizes.astype(np.float64).sum())
        frames = counted(count, "frame")
        if not self.compressed:
            said = f"{frames}, not compressed: {size_text(self.frame_nbytes)} each."
        else:
            ratios = self.ratios()
            said = (
                f"{frames} of {size_text(self.frame_nbytes)} in {size_text(stored)}: compressed "
                f"{self.frame_nbytes * count / max(1, stored):.2f} to 1"
            )
            said += f" ({ratios.min():.2f} to {ratios.max():.2f})." if count > 1 else "."
        return said + (" With checksums." if self.checksums else " No checksums.")

    def verdict(self) -> str:
        """Show how the verifying ended."""
        if self.faults:
            are = "is" if len(self.faults) == 1 else "are"
            named = listed(sorted(self.faults), 8)
            return f"{counted(len(self.faults), 'frame')} {are} damaged: {named}."
        if self.checksums:
            return f"All {len(self)} frames match their checksums."
        return f"All {len(self)} frames decode; without checksums more cannot be told."

    def as_map(self) -> dict[str, Any]:
        """Return the table for JSON."""
        return {
            "offset": [int(offset) for offset in self.offsets],
            "size": [int(size) for size in self.sizes],
            "ratio": [round(float(ratio), 4) for ratio in self.ratios()],
            "checksums": self.checksums,
            "verified": self.verified,
            "damaged": {str(frame): found for frame, found in self.faults.items()},
        }


@dataclass(frozen=True)
class Subject:
    """A layer, as much of it as is known without reading; it keeps no file open."""

    name: str
    path: str = ""
    paths: tuple[str, ...] = ()  # all its files, where they were joined
    shape: tuple[int, ...] = ()
    dtype: str = ""
    pixel_size: tuple[float, float, float] = (0.0, 0.0, 0.0)  # z, y, x in Å; 0.0 for unknown
    header: Header | None = None  # as it was when the file was opened
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the user's
    history: tuple[Mapping[str, Any], ...] = ()  # corrections applied to the layer
    voltage: float = 0.0  # in kV; 0.0 for unknown
    problem: str = ""  # why it is no stack of frames


NOTHING = Inspection(Subject(""), "Open a movie, or select an image layer, to inspect it.")
"""What is shown without a layer."""


def subject_of(layer: Image) -> Subject:
    """Return what a layer tells without a byte being read."""
    metadata = layer.metadata
    try:
        stack = stack_of_layer(layer)
    except MrczError as error:
        shape = tuple(map(int, layer.data[0].shape if layer.multiscale else layer.data.shape))
        problem = error_text(error)
        return Subject(layer.name, shape=shape, dtype=str(layer.dtype), problem=problem)
    return Subject(
        layer.name,
        stack.path or "",
        tuple(map(str, metadata.get("paths", ()))) if stack.path else (),
        stack.shape,
        str(stack.dtype),
        stack.pixel_size,
        stack.header,
        dict(stack.description.metadata),
        stack.history,
        stack.description.voltage,
    )


@dataclass(frozen=True)
class Mended:
    """A file that was fixed."""

    path: str  # of the new file
    in_place: bool  # it took the name of the old one
    changes: tuple[Change, ...]
    layers: tuple[LayerData | Exception, ...] = ()  # what becomes of those that were read from it

    def __str__(self) -> str:
        where = "in place" if self.in_place else f"in {Path(self.path).name}"
        changes = "\n".join(str(change) for change in self.changes)
        return f"Fixed {where}:\n{changes}"


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
) -> Mended:
    """Fix a file in a copy (whose replacing was asked about) or in place, and reopen its layers."""
    changes = mend(
        path,
        findings,
        target=target,
        overwrite=target is not None,
        progress=partial(report, "Copying"),
    )
    # From here on the file is another; nothing may end this halfway.
    return Mended(target or path, target is None, changes, tuple(map(_reopened, layers)))


def replayed(history: Sequence[Mapping[str, Any]], stack: Stack, name: str) -> list[LayerData]:
    """Do a history again to a stack, lazily; an error if a step cannot be done to such frames."""
    from napari_mrcz.correction import replay

    return layer_data(replay(history, stack), f"{name} replayed")


def save_recipe(stack: Stack, path: str, report: Report) -> str:
    """Save what was done to a stack as a recipe for other movies; return a sentence on it."""
    from napari_mrcz.session.recipe_history import output_of, save_recipe_of

    report("Writing the recipe", 0, 0)
    # Whoever chose the name of a recipe that exists agreed to have it replaced, images included.
    replaces = Path(path).exists()
    save_recipe_of(stack.history, path, output=output_of(stack), overwrite=replaces)
    return f"Saved {Path(path).name}. To do it to other movies: napari-mrcz correct -r {path} …"


def _reopened(subject: Subject) -> LayerData | Exception:
    """Open a file, and do again what had been done to a layer of it."""
    try:
        with collected_warnings():
            file = open_stack(subject.path)
    except MrczError as error:
        return error
    try:
        stack, done = file, len(file.history)
        if len(subject.history) > done:
            from napari_mrcz.correction import replay

            stack = replay(subject.history[done:], file)
        stack = stack.described(metadata=subject.metadata)
        return layer_data(stack, subject.name, metadata=describe(stack))[0]
    except (MrczError, ValueError) as error:
        file.close()  # the error keeps it, as long as it is kept itself
        return error
