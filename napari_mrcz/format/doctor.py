"""The header doctor: what a file's header says wrongly or not at all, and fixing it.

::

    from napari_mrcz.format.doctor import diagnose, mend

    findings = diagnose("movie.mrc")
    for finding in findings:
        print(finding)
    mend("movie.mrc", findings, target="fixed.mrc")

The pixels are never touched: a fixed file has another header before the same bytes. `repack`
copies the frames that are whole, as they are, with index and checksums: so a file of another
program gets a footer, and the whole frames of a damaged one are saved.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.files import open_file
from napari_mrcz.format.findings import (
    CheckedFile,
    Finding,
    check_geometry,
    check_identity,
    check_sign,
    check_statistics,
    is_mixed,
    measure,
)
from napari_mrcz.format.footer import FrameIndex, pack_footer
from napari_mrcz.format.header import HEADER_NBYTES, Header, header_dtype, parse_header
from napari_mrcz.format.header_writing import keep_depth, set_frames
from napari_mrcz.format.machine import reported
from napari_mrcz.format.reader import FrameFault, FrameReader, read_layout
from napari_mrcz.naming import COMPRESSED_SUFFIX, PACKED_SUFFIXES, without_packing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


def diagnose(
    path: AnyPath,
    *,
    full: bool = False,
    pixel_size: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Find what a header says wrongly or not at all.

    `path`: an MRC or MRCZ file, packed or not; `full`: compare the statistics with all frames, and
    propose the true ones; otherwise with the first, the middle and the last frame, which only shows
    where they cannot be true; `pixel_size`: what you know it to be, in Å, proposed where the file
    has none; 0.0 for unknown; `progress`: called with (frames done, frames); what it raises ends
    the check. The result is empty if all is well. Raise `MrczError` if the file cannot be read.
    """
    with contextlib.closing(open_file(path)) as file:
        checked = CheckedFile(read_layout(file), file.nbytes, file.path, pixel_size)
    findings = list(check_identity(checked))
    if not is_mixed(checked):  # else all that seems wrong is so because of it
        findings = [*check_geometry(checked), *findings]
        findings += _check_pixels(path, checked, full, progress)
    return tuple(replace(finding, header=checked.header.raw) for finding in findings)


def _check_pixels(
    path: AnyPath, checked: CheckedFile, full: bool, progress: Callable[[int, int], None] | None
) -> Iterator[Finding]:
    count = checked.header.nz
    frames = tuple(range(count)) if full else tuple(sorted({0, count // 2, count - 1}))
    try:
        with FrameReader(path) as reader:
            measured = measure(reader, frames, progress)
    except NotEnoughMemory:
        raise
    except MrczError as error:
        why = "The statistics cannot be compared with the pixels: a frame is damaged."
        yield Finding("pixels", why, error.found, "Verify all frames")
        return
    signs = list(check_sign(checked, measured))
    yield from signs
    if not any(finding.mendable for finding in signs):
        # Of other pixels than those that are read now, there are other statistics.
        yield from check_statistics(checked, measured, len(frames))


_PIECE = 2**24
_NAMES = {
    **{"n": "NX NY NZ", "m": "MX MY MZ", "cell": "cell (Å)", "map_crs": "MAPC MAPR MAPS"},
    **{"machst": "machine stamp", "imod_stamp": "IMOD stamp", "imod_flags": "IMOD flags"},
    "label": "labels",
}


@dataclass(frozen=True)
class Change:
    """One field of a header that was fixed: its name, and what it was and is."""

    field: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.field}: {self.before} → {self.after}"


def mend(
    path: AnyPath,
    findings: Iterable[Finding],
    *,
    target: AnyPath | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Change, ...]:
    """Write what the doctor proposes, all or nothing; the bytes after the header are copied unread.

    `path`: the file, unchanged since it was diagnosed; `findings`: what to fix, as returned by
    `diagnose`; what is not mendable is skipped; `target`: the copy to be written; without it, the
    file itself is replaced; `overwrite`: replace an existing target; `progress`: called with (bytes
    done, bytes); what it raises ends it, and nothing is changed. The result: the fields that are
    different now. Raise `MrczError` if there is nothing to fix, the file is another one than was
    diagnosed, is packed (in place), or the disk refuses.
    """
    path = Path(path)
    chosen = [finding for finding in findings if finding.mendable]
    if not chosen:
        raise MrczError(path, "there is nothing to fix")
    new = path if target is None else Path(target)
    if new.suffix.lower() in PACKED_SUFFIXES:
        advice = "Fix it in a copy whose name does not end so"
        raise MrczError(new, "is a packed file, which is not written", advice=advice)
    before = _identity(path)
    with AtomicFile(new, overwrite=overwrite or target is None) as copy:
        with contextlib.closing(open_file(path)) as file:
            raw = file.read(0, HEADER_NBYTES)
            if any(finding.header != raw for finding in chosen):
                raise _changed(path)
            header = read_layout(file).header
            fixed = _fixed(raw, header, chosen)
            copy.write(fixed)
            while piece := file.read(copy.tell(), _PIECE):
                copy.write(piece)
                if progress is not None:
                    progress(copy.tell(), file.nbytes)
            if copy.tell() != file.nbytes or _identity(path) != before:
                raise _changed(path)
        copy.commit()
    return _changes(raw, fixed, header.byte_order)


def _changed(path: Path) -> MrczError:
    advice = "Check it again; nothing was written"
    return MrczError(path, "has changed since it was checked", advice=advice)


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise MrczError(path, f"cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def _fixed(raw: bytes, header: Header, chosen: Sequence[Finding]) -> bytes:
    """Return the header with all that is chosen written into it."""
    patch: dict[str, Any] = {}
    for finding in chosen:
        patch |= finding.patch
    record = np.frombuffer(raw, header_dtype(header.byte_order)).copy()
    _set_sizes(record[0], header, patch)
    for name, value in patch.items():
        record[0][name] = value
    return record.tobytes()


def _set_sizes(record: Any, header: Header, patch: dict[str, Any]) -> None:
    """Write frames, samples and the cell, so that the pixel size stays or becomes what it should.

    Where a number of the three changes, the cell follows: it is pixel size times samples.
    """
    if not patch.keys() & {"nz", "m", "mode", "pixel_size"}:
        return
    _, y, x = parse_header(header.raw, "").pixel_size
    z, asked = header.pixel_size[0], patch.pop("pixel_size", None)
    if "nz" in patch:
        set_frames(record, header, patch.pop("nz"))
    for name in ("m", "mode"):
        if name in patch:
            record[name] = patch.pop(name)
    if asked is not None:
        z, y, x = asked
    mx, my, mz = (int(m) for m in record["m"])
    told = mx > 0 and my > 0
    across = (mx, my) if told else (header.nx, header.ny)
    for axis, length in enumerate((x * across[0], y * across[1])):
        if length or asked is not None:
            record["cell"][axis] = length
    if asked is not None:
        plain = told and mz > 0 and 0 <= int(record["mode"]) < 1000
        record["cell"][2] = z * (mz if plain else int(record["n"][2]))
    keep_depth(record, z)


def _changes(raw: bytes, fixed: bytes, byte_order: str) -> tuple[Change, ...]:
    before, after = (np.frombuffer(b, header_dtype(byte_order))[0] for b in (raw, fixed))
    return tuple(
        Change(_NAMES.get(name, name.upper()), _text(before[name], name), _text(after[name], name))
        for name in before.dtype.names or ()
        if before[name].tobytes() != after[name].tobytes()
    )


def _text(value: Any, name: str = "") -> str:
    if name == "machst":
        return bytes(value).hex(" ")
    if isinstance(value, np.ndarray):
        texts = [_text(item) for item in value]
        while texts and texts[-1] == "''":  # labels that are not in use
            texts.pop()
        return " ".join(texts)
    if isinstance(value, bytes):
        return repr(bytes(value))[1:]
    return f"{value:.7g}" if isinstance(value, np.floating) else str(value)


@dataclass(frozen=True)
class Repacked:
    """The result of `repack`."""

    frames: int  # Frames in the new file
    announced: int  # Frames that there should be; more than there were where the source is cut off
    left_out: tuple[FrameFault, ...] = ()  # Frames that were there but damaged
    warnings: tuple[str, ...] = ()  # What was doubtful about the source


def repack(
    source: AnyPath,
    target: AnyPath,
    *,
    writer: str,
    made_of: Mapping[str, Any] | None = None,
    leave_out_damaged: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Repacked:
    """Copy a file frame by frame, with a footer.

    `source`, `target`: the files; `writer`: program and version, for the footer; `made_of`: what
    the footer says of the source; `leave_out_damaged`: decode every frame, and leave out those that
    cannot be; otherwise they end the copying; `overwrite`: replace an existing target; `progress`:
    called with (frames done, frames); what it raises ends the copying, and leaves no file. Raise
    `MrczError` if the source cannot be used, not one of its frames is whole, or the disk refuses;
    or if the target's name is that of a plain file and the frames are compressed, or the reverse.
    Raise `NotEnoughMemory` if a frame does not fit into memory: it is not left out for that.
    """
    faults: list[FrameFault] = []
    frames: list[tuple[int, int, int]] = []
    with contextlib.ExitStack() as opened:
        reader = opened.enter_context(FrameReader(source))
        old = reader.header
        _check_name(source, target, old)
        file = opened.enter_context(AtomicFile(target, overwrite=overwrite))
        file.write(bytes(len(old.raw)) + reader.extended_raw())
        if file.tell() != old.data_offset:
            raise MrczError(source, f"an extended header of {old.nsymbt} bytes, not to be copied")
        for frame in reported(range(old.nz), old.nz, progress):
            try:
                if leave_out_damaged:
                    reader.read_frame(frame)
                stored = reader.read_stored(frame)
            except NotEnoughMemory:
                raise
            except MrczError as error:
                if not leave_out_damaged:
                    raise
                faults.append(FrameFault(frame, error.offset, error.found))
            else:
                frames.append((file.tell(), len(stored), xxhash.xxh3_64_intdigest(stored)))
                file.write(stored)
        if not frames:
            raise MrczError(source, "not one frame is whole", advice="There is nothing to save")
        index = FrameIndex.of(frames)
        other = {k: v for k, v in reader.footer.other.items() if k != "source"}
        if made_of is not None:
            other["source"] = made_of
        written = replace(
            reader.footer, writer=writer, frames=index, metadata=reader.metadata, other=other
        )
        packed_nbytes = file.tell() - old.data_offset
        if old.codec or reader.footer.frames is not None:
            file.write(pack_footer(written))  # a plain file that had none is to stay plain
        file.write_at(0, _repacked_header(old, len(frames), packed_nbytes))
        file.commit()
    return Repacked(len(frames), reader.announced, tuple(faults), reader.warnings)


def _repacked_header(old: Header, frames: int, packed_nbytes: int) -> bytes:
    """Return the header of so many frames, NSYMBT and MODE as they are; all else as it was."""
    record = np.frombuffer(old.raw, header_dtype(old.byte_order)).copy()[0]
    stated = parse_header(old.raw, "")
    record["nsymbt"] = old.nsymbt
    if old.codec != stated.codec:
        record["mode"] = old.mode + 1000 * old.codec
        record["m"][2] = 0 if old.codec else frames if old.is_volume else 1
    set_frames(record, old, frames)
    if old.codec:
        record["packed_nbytes"] = packed_nbytes
    return bytes(record.tobytes())


def _check_name(source: AnyPath, target: AnyPath, header: Header) -> None:
    """Refuse a name that says of the frames what they are not, unless the source has it too."""
    suffix = Path(target).suffix.lower()
    right = (suffix == COMPRESSED_SUFFIX) == bool(header.codec)
    if right or suffix == without_packing(Path(source)).suffix.lower():
        return
    if header.codec:
        found = "is a name for plain frames, and these stay compressed, as they are copied"
        advice = f"Name it {COMPRESSED_SUFFIX}; napari-mrcz decompress makes a plain file of it"
    else:
        found = "is a name for compressed frames, and these stay plain, as they are copied"
        advice = "napari-mrcz compress makes such a file of them"
    raise MrczError(target, found, advice=advice)
