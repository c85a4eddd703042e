"""What the inspector knows of a layer: read from its file in a thread, told as plain entries."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, error_text, size_text
from napari_mrcz.format import FrameReader
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.metadata import to_json_safe
from napari_mrcz.stack.inspection import Entry, entries_of, entry_of, header_entries
from napari_mrcz.stack.kept import is_kept, summary_of
from napari_mrcz.widgets.inspector.frame_table import FrameTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_mrcz.format import Header
    from napari_mrcz.format.doctor import Finding
    from napari_mrcz.format.extended import ExtendedHeader
    from napari_mrcz.format.footer import Footer
    from napari_mrcz.widgets.inspector.subject import Subject


@dataclass(frozen=True)
class Inspection:
    """All that is known of a layer and its file.

    Attributes
    ----------
    subject : Subject
        The layer.
    headline : str
        It in a line.
    warnings : tuple of str
        What is wrong with the file, or unusual.
    sections : tuple of Entry
        The tree.
    frames : FrameTable or None
        Where there is a file that can be read.
    content : dict
        The same for JSON.
    """

    subject: Subject
    headline: str
    warnings: tuple[str, ...] = ()
    sections: tuple[Entry, ...] = ()
    frames: FrameTable | None = None
    content: Mapping[str, Any] = field(default_factory=dict)


def inspect(subject: Subject) -> Inspection:
    """Read all that a layer's file says, but no pixels; without a file, return what there is."""
    if not subject.path:
        return _without_file(subject, ())
    try:
        if subject.header is None:  # its metadata was read when it was opened
            return _of_other_format(subject, Path(subject.path).stat().st_size)
        with FrameReader(subject.path) as reader:
            return _of_file(subject, reader)
    except MrczError as error:
        return _without_file(subject, (error_text(error),))
    except OSError as error:
        return _without_file(subject, (f"{Path(subject.path).name}: {error.strerror}.",))


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
    status = Path(subject.path).stat()
    nbytes = status.st_size
    warnings_ = tuple(w.removeprefix(f"{reader.path}: ") for w in reader.warnings)
    notes = (*warnings_, *header.notes)
    if is_kept(footer.other):
        notes = (*notes, summary_of(reader.path, footer.other, reader.dtype))
    carried = reader.description.extended
    sections = [
        Entry("File", Path(subject.path).name, "", "Where the frames are", _file(subject, nbytes)),
        _section("Header", tuple(header_entries(header)), "The first 1024 bytes"),
    ]
    if notes:
        lines = tuple(Entry(str(at), note) for at, note in enumerate(notes, 1))
        sections.append(Entry("Notes", f"{len(lines)}", "", "What is unusual", lines))
    sections.append(
        _section(
            "Metadata",
            entries_of(subject.metadata),
            "Kept with the frames, or in files beside them",
        )
    )
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
        FrameTable.of(reader, (nbytes, status.st_mtime_ns)),
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


def _of_other_format(subject: Subject, nbytes: int) -> Inspection:
    """Return what there is of a file without a header of MRC."""
    file = Entry(
        "File", Path(subject.path).name, "", "Where the frames are", _file(subject, nbytes)
    )
    frames = Entry("Frames", subject.name, "", "What the file says of them", _frames(subject))
    metadata = entries_of(subject.metadata)
    sections = file, frames, _section("Metadata", metadata, "What the file, or one beside it, says")
    content = {"path": subject.path, "size": nbytes, **_content(subject)}
    return Inspection(subject, _headline(subject, size_text(nbytes)), (), sections, None, content)


def _without_file(subject: Subject, problems: tuple[str, ...]) -> Inspection:
    problems = tuple(problem for problem in (*problems, subject.problem) if problem)
    where = "Frames in memory" if not subject.path else "What was known when it was opened"
    sections = [Entry("Layer", subject.name, "", where, _frames(subject))]
    if subject.header is not None:
        entries = tuple(header_entries(subject.header))
        sections.append(_section("Header", entries, "As it was when the file was opened"))
    metadata = entries_of(subject.metadata)
    sections.append(_section("Metadata", metadata, "What is kept with it when it is saved"))
    headline = _headline(subject, "in no file" if not subject.path else "its file is out of reach")
    return Inspection(subject, headline, problems, tuple(sections), None, _content(subject))


def _frames(subject: Subject) -> tuple[Entry, ...]:
    size = " × ".join(f"{s:g}" for s in subject.pixel_size if s)
    voltage = f"{subject.voltage:g}" if subject.voltage else ""
    return (
        Entry("shape", " × ".join(map(str, subject.shape)), "", "Frames, rows, columns"),
        Entry("pixel type", subject.dtype, "", "Type of the numbers"),
        Entry("pixel size", size or "unknown", "Å" if size else "", "Along (z,) y and x"),
        Entry("voltage", voltage or "unknown", "kV" if voltage else "", "Acceleration voltage"),
    )


def _content(subject: Subject) -> dict[str, Any]:
    """Return what is known of a layer whose header is not, for JSON."""
    return {
        "layer": subject.name,
        "shape": list(subject.shape),
        "dtype": subject.dtype,
        "pixel_size": list(subject.pixel_size),
        "voltage": subject.voltage,
        "metadata": subject.metadata,
        "history": list(subject.history),
    }


def _headline(subject: Subject, size: str) -> str:
    shape = " × ".join(map(str, subject.shape[-2:]))
    count = subject.shape[0] if len(subject.shape) == 3 else 1
    frames = f"{count} frames of {shape}" if count != 1 else f"1 frame of {shape}"
    if subject.problem:
        frames = " × ".join(map(str, subject.shape))
    steps = len(subject.history)
    done = "" if not steps else f", {steps} correction{'s' if steps > 1 else ''}"
    return f"{frames}, {subject.dtype}, {size}{done}"


def _file(subject: Subject, nbytes: int) -> tuple[Entry, ...]:
    path = Path(subject.path)
    told = [
        Entry("name", path.name, "", "The file"),
        Entry("folder", str(path.parent), "", "Where it is"),
        Entry("size", f"{size_text(nbytes)} ({nbytes} B)", "", "Its length"),
    ]
    if len(subject.paths) > 1:
        names = tuple(Entry(str(at), p) for at, p in enumerate(subject.paths))
        meaning = "Shown as one layer; the first of them is inspected"
        told.append(Entry("joined with", f"{len(names)} files", "", meaning, names))
    return tuple(told)


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


def _section(name: str, entries: tuple[Entry, ...], meaning: str) -> Entry:
    return Entry(name, "" if entries else "nothing", "", meaning, entries)


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
