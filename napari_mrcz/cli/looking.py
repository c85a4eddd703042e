"""What is in files, and whether they are whole: ``info`` and ``verify``, without typer."""

from __future__ import annotations

import json
import shlex
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.cli.paths import movies_in
from napari_mrcz.cli.progress import bar, from_here, note, recorded, say, write
from napari_mrcz.errors import (
    MrczError,
    NotEnoughMemory,
    collected_warnings,
    counted,
    printable,
    size_text,
)
from napari_mrcz.naming import without_packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_mrcz.format import Header
    from napari_mrcz.stack import Stack, VerifyReport
    from napari_mrcz.stack.inspection import Entry

# Of the lines of `info`, and of the names in them.
_COLUMNS, _NAME_COLUMNS = 120, 18
# Longer lists are counted, not listed.
_LONGEST_LIST = 12
# Lines that each piece of metadata may take.
_ROOM = 120

INFO_KEYS = {
    "path": "The file.",
    "shape": "Frames, rows and columns.",
    "dtype": "Pixel type, as numpy names it.",
    "pixel_size": "Pixel size (z, y, x) in Å; 0 where the file does not say.",
    "file_nbytes": "Size of the file in bytes.",
    "ratio": "Bytes of all pixels over bytes of the file.",
    "header": "Fields of the MRC header by name; empty for other formats.",
    "metadata": "What the user, or the program that wrote the source, said.",
    "history": "Corrections that were applied, in order, each with its parameters.",
    "footer": "What else is in the footer, such as the gain reference of a movie of counts.",
    "voltage": "Acceleration voltage in kV; only of other formats than MRC, where it is known.",
    "frames": "With --frames: of each frame its number, offset and bytes in the file, and ratio.",
    "warnings": "What was found odd when the file was opened.",
    "findings": "What the header says wrongly or not at all.",
    "packed": "Only of .gz and .bz2: what is not known, as only the header was unpacked.",
}
"""Keys of ``info --json``, and what is in them."""


def info(files: Sequence[Path], *, frames: bool = False, as_json: bool = False) -> int:
    """Print header, metadata and history of files, and what is wrong with the header.

    `files`: files and folders; `frames`: list every frame as well; `as_json`: write a JSON object
    per file instead of text. The result: the exit status: 1 if a file is cut off, damaged or cannot
    be used.
    """
    from napari_mrcz.format.doctor import diagnose
    from napari_mrcz.format.footer import to_json_safe
    from napari_mrcz.stack import open as open_stack
    from napari_mrcz.stack.opening import is_whole, packed_header

    status = 0
    for file in movies_in(files):
        said: list[str] = []
        try:
            header = packed_header(file)
            if header is not None:
                known = _known_of_header(file, header, frames)
            else:
                missing = []
                with collected_warnings() as said:
                    try:
                        stack = open_stack(file, read_ahead=False)
                    except MrczError as error:
                        with suppress(MrczError):  # kept as counts, its gain is missing
                            stack = open_stack(file, counts=True, read_ahead=False)
                            missing.append(error.found)
                        if not missing:
                            raise
                with stack:
                    known = {**_known(file, stack, frames), "warnings": said}
                    header = stack.header
                    if missing or not is_whole(stack):
                        status = 1
                findings = () if header is None else diagnose(file)
                known["findings"] = [*missing, *map(str, findings)]
        except MrczError as error:
            say(f"napari-mrcz: {error}")
            status = 1
        else:
            for warning in dict.fromkeys(said):
                say(f"napari-mrcz: warning: {warning}")
            known = to_json_safe(known)
            write(*([json.dumps(known, default=str)] if as_json else _as_text(known, header)))
    return status


def verify(
    paths: Sequence[Path],
    *,
    as_json: bool = False,
    quiet: bool = False,
    manifest: Path | None = None,
) -> int:
    """Decode every frame of files, compare it with its checksum and print whether files are good.

    `paths`: files and folders; `as_json`: write a JSON object per file instead of text; `quiet`:
    print damaged files alone; `manifest`: table to be written, with a row per file. The result: the
    exit status: 1 if a file is damaged.
    """
    found = movies_in(paths)
    bad = 0
    with recorded(manifest) as take, _reports(found) as reports:
        for file, report in zip(found, reports, strict=True):
            bad += not report
            text = str(replace(report, path=printable(report.path)))
            if as_json:
                write(json.dumps({**asdict(report), "ok": report.ok, "text": text}))
            elif not report or not quiet:
                write(*from_here(text).splitlines())
            note(text)
            if (report.faults or report.warnings) and report.frames > len(report.faults):
                plain = without_packing(file)
                words = map(str, ("repair", file, "-o", plain.with_stem(f"{plain.stem}-whole")))
                command = shlex.join(["napari-mrcz", *words])
                say(f"{command} saves what is whole", always=True)
            if manifest is not None:
                from napari_mrcz.session.source_files import sha256_of
                from napari_mrcz.session.tasks import Outcome

                there = file.is_file()
                nbytes, checksum = (file.stat().st_size, sha256_of([file])) if there else (0, "")
                error = "" if report else text
                take(Outcome(str(file), "", error, nbytes, source_sha256=checksum))
    if len(found) > 1:
        say(f"{len(found) - bad} of {len(found)} files are good")
    return 1 if bad else 0


@contextmanager
def _reports(files: Sequence[Path]) -> Iterator[Iterator[VerifyReport]]:
    """Verify files, several at a time, and return their reports in order."""
    from napari_mrcz.format.machine import in_order, processors
    from napari_mrcz.stack import VerifyReport, verify

    at_once = min(len(files), processors())
    threads = max(1, processors() // at_once)
    ended = threading.Event()
    short: set[Path] = set()

    with bar() as advance:

        def report(file: Path) -> VerifyReport:
            def tell(done: int, of: int) -> None:
                if ended.is_set():
                    raise InterruptedError
                advance(file.name, done, of)

            try:
                return verify(file, threads=threads, progress=tell)
            except NotEnoughMemory as error:
                if at_once > 1 and file not in short:  # it is done again, alone
                    short.add(file)
                    raise
                return VerifyReport(str(file), error=str(error))

        with in_order(report, files, at_once, "napari-mrcz-files") as reports:
            try:
                yield reports
            finally:
                ended.set()


def _known(file: Path, stack: Stack, frames: bool) -> dict[str, Any]:
    """Return what is known of a file as plain values."""
    header = stack.header
    known = _outline(file, stack, stack.nbytes, header) | {
        "metadata": stack.metadata,
        "history": [dict(step) for step in stack.history],
        "footer": dict(stack.description.other),
    }
    if header is None and stack.description.voltage:
        known["voltage"] = stack.description.voltage
    if frames and header is not None:
        known["frames"] = _frames(file)
    elif frames:
        say(f"{file}: frames are listed of MRC and MRCZ files alone")
    return known


def _known_of_header(file: Path, header: Header, frames: bool) -> dict[str, Any]:
    """Return what the header of a packed file says; the rest of it was not read."""
    if frames:
        say(f"{file}: frames of a packed file are not listed; unpack it")
    return {
        **_outline(file, header, header.nz * header.frame_nbytes, header),
        **{"metadata": {}, "history": [], "footer": {}, "findings": []},
        "packed": "only the header was unpacked: metadata, history and faults are not known",
    }


def _outline(
    file: Path, frames: Stack | Header, nbytes: int, header: Header | None
) -> dict[str, Any]:
    """Return the size and kind of frames, which take so many bytes unpacked, and of their file."""
    from napari_mrcz.format.files import file_nbytes

    stored = file_nbytes(file)
    return {
        "path": str(file),
        "shape": frames.shape,
        "dtype": str(frames.dtype),
        "pixel_size": frames.pixel_size,
        "file_nbytes": stored,
        "ratio": round(nbytes / stored, 3),
        "header": {} if header is None else dict(header),
    }


def _frames(file: Path) -> list[dict[str, Any]]:
    from napari_mrcz.format import FrameReader

    with FrameReader(file) as reader:
        index, nbytes = reader.index, reader.frame_nbytes
        places = zip(index.offsets, index.sizes, strict=True)
        return [
            {"frame": i, "offset": int(o), "bytes": int(s), "ratio": round(nbytes / int(s), 3)}
            for i, (o, s) in enumerate(places)
        ]


def _as_text(known: dict[str, Any], header: Header | None) -> list[str]:
    from napari_mrcz.stack.inspection import entries_of, header_entries, step_entries

    n, y, x = known["shape"]
    size = known["pixel_size"][2]
    lines = [
        known["path"],
        f"  {counted(n, 'frame')} of {y} x {x} pixels, {known['dtype']}, "
        + (f"{size:.5g} Å/pixel" if size else "pixel size unknown"),
        f"  {size_text(known['file_nbytes'])}, {known['ratio']:.3g} to 1",
    ]
    if "packed" in known:
        lines.append(f"  packed: {known['packed']}")
    if "voltage" in known:
        lines.append(f"  {known['voltage']:g} kV")
    lines += [f"  note: {note}" for note in known["header"].get("notes", ())]
    lines += [f"  wrong or missing: {finding}" for finding in known["findings"]]
    sections = {
        "what was done": map(_without_details, step_entries(known["history"])),
        "header": () if header is None else header_entries(header),
        "metadata": (_folded(entry, _ROOM) for entry in entries_of(known["metadata"])),
        "footer": (_folded(entry, _ROOM) for entry in entries_of(known["footer"])),
    }
    for title, entries in sections.items():
        told = [line for entry in entries for line in _lines(entry, 2)]
        lines += [f"  {title}", *told] if told else []
    for frame in known.get("frames", ()):
        lines.append("  " + "  ".join(f"{name} {value}" for name, value in frame.items()))
    return lines


def _without_details(step: Entry) -> Entry:
    """Leave out what is in the parameters of a step, such as every pixel that was replaced."""
    parameters = tuple(replace(parameter, children=()) for parameter in step.children)
    return replace(step, name=f"{step.name}:" if step.value else step.name, children=parameters)


def _folded(entry: Entry, room: int) -> Entry:
    """Count what is in long lists, and in what takes more lines than there is room for."""
    children = entry.children
    is_list = all(child.name.isdecimal() for child in children)
    if len(children) > (_LONGEST_LIST if is_list else room):
        return replace(entry, value=f"{entry.value}; --json has them", children=())
    room -= len(children)
    shown = list(children)
    # Small groups first: what they leave is for the large ones.
    groups = sorted((_n_lines(child), at) for at, child in enumerate(children) if child.children)
    for left, (n_lines, at) in zip(range(len(groups), 0, -1), groups, strict=True):
        each = min(n_lines, room // left)
        shown[at] = _folded(children[at], each)
        room -= each
    return replace(entry, children=tuple(shown))


def _n_lines(entry: Entry) -> int:
    """Return how many lines are below an entry."""
    return sum(1 + _n_lines(child) for child in entry.children)


def _lines(entry: Entry, depth: int) -> Iterator[str]:
    """Yield the lines of an entry and of those below it, of limited length."""
    line = f"{'  ' * depth}{entry.name:<{_NAME_COLUMNS}} {entry.text}".rstrip()
    yield line if len(line) <= _COLUMNS else f"{line[: _COLUMNS - 3]}..."
    for child in entry.children:
        yield from _lines(child, depth + 1)
