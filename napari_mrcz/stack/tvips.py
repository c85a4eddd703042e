"""Recordings of TVIPS cameras (`.tvips`): a header, then frames, each after a header of its own.

A long recording is cut into files ``name_000.tvips``, ``name_001.tvips`` and so on, of which only
the first has the header of them all.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import MrczError, collected_warnings, listed, warn
from napari_mrcz.format import Description
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.naming import PACKED_SUFFIXES
from napari_mrcz.stack.raw_frames import LARGEST_SIDE, MOST_FRAMES, FrameRun, RawFrames
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_HEADER_NBYTES = 256
_HEADER = np.dtype(
    [
        (name, "<u4")
        for name in (
            *("size", "version", "columns", "rows", "bits", "column_offset", "row_offset"),
            *("column_binning", "row_binning", "pixel_size_nm", "high_tension_kV"),
            *("magnification", "frame_header_bytes"),
        )
    ]
)
# Version 1 has the first three of these. After the last follow fields that nobody has described.
_FRAME_HEADER = np.dtype(
    [
        *((name, "<u4") for name in ("number", "timestamp", "timestamp_ms", "lut_index")),
        *(("faraday_cup", "<f4"), ("magnification", "<u4"), ("mode", "<u4")),
        *((f"stage_{axis}", "<f4") for axis in ("x", "y", "z", "alpha", "beta")),
        *(("rotator", "<u4"), ("temperature", "<f4"), ("objective", "<f4")),
    ]
)
_FRAME_HEADER_OF_VERSION_1 = 12
_LONGEST_FRAME_HEADER = 2**20
# Of as many frames the headers are read: a day at 10 frames a second would be 2**20.
_MOST_FRAME_HEADERS = 2**18
_MOST_FRAME_HEADERS_NBYTES = 2**26
_RESERVED = "reserved"
_IMAGING = 1
_PART = re.compile(r"(.*)_(\d{3,6})\.tvips(?:\.gz|\.bz2)?", re.IGNORECASE)


def is_tvips(head: bytes) -> bool:
    """Return whether a file that begins so is the first one of a recording."""
    if len(head) < _HEADER_NBYTES or head[208:212] == b"MAP ":
        return False
    fields = np.frombuffer(head, _HEADER, 1)[0]
    return bool(
        fields["size"] == _HEADER_NBYTES
        and fields["version"] in (1, 2)
        and fields["bits"] in (8, 16)
        and min(fields["rows"], fields["columns"]) > 0
    )


def parts_of(path: Path) -> list[Path]:
    """Return the files of a recording by its first one; of a file of another format only that."""
    try:
        file = open_file(path)
        head = file.read(0, _HEADER_NBYTES)
        file.close()
    except MrczError:
        return [path]
    if not is_tvips(head):
        return [path]
    with collected_warnings():  # opening it warns of missing ones
        return _parts(path)


def open_tvips(path: Path) -> Stack:
    """Open a recording by its first file.

    Its header is in ``metadata["tvips"]``, and the headers of its frames in
    ``metadata["tvips"]["frames"]``, one array per field.

    Raises
    ------
    MrczError
        If it is not the first file of a recording, or has no whole frame.

    Warns
    -----
    MrczWarning
        If a file of the recording is cut off or missing.
    """
    path = path.absolute()
    with contextlib.ExitStack() as opened:
        stack = _opened(path, opened)
        opened.pop_all()
    return stack


def _opened(path: Path, opened: contextlib.ExitStack) -> Stack:
    """Open the files, to be closed by `opened` if it fails."""
    first = open_file(path)
    opened.callback(first.close)
    header = _header(first)
    dtype = np.dtype("u1" if header["bits"] == 8 else "<u2")
    before = header["frame_header_bytes"] if header["version"] == 2 else _FRAME_HEADER_OF_VERSION_1
    step = before + header["rows"] * header["columns"] * dtype.itemsize
    runs: list[FrameRun] = []
    for part in _parts(path):
        start = 0 if runs else _HEADER_NBYTES
        file = first
        if runs:
            file = open_file(part)
            opened.callback(file.close)
        n, rest = divmod(max(file.nbytes - start, 0), step)
        if rest or not n:
            found = f"it is cut off: {n} whole frames of {step} bytes, and {rest} bytes more"
            if not runs and not n:
                raise MrczError(part, found, offset=start)
            warn(f"{part}: {found}")
        if n:
            runs.append(FrameRun(file, start + before, step, n))
    if (total := sum(run.count for run in runs)) > MOST_FRAMES:
        found = f"{total} frames of {header['rows']} rows, {header['columns']} columns"
        raise MrczError(path, f"a damaged header of TVIPS: {found}", offset=8)
    each = _frame_headers(path, runs, before)
    description = Description(
        pixel_size=_pixel_size(header, each),
        path=str(path),
        voltage=float(header["high_tension_kV"]),
        metadata={"tvips": {**header, "frames": each} if each else dict(header)},
    )
    return Stack(RawFrames(runs, (header["rows"], header["columns"]), dtype), description)


def first_part(path: Path) -> Path | None:
    """Return the first file of a recording of which this is a later one; None of others."""
    part = _PART.fullmatch(path.name)
    if part is None or not int(part[2]):
        return None
    names = (f"{part[1]}_000.tvips{packed}" for packed in ("", *PACKED_SUFFIXES))
    return next((first for first in map(path.with_name, names) if first.exists()), None)


def _header(file: RandomAccessFile) -> dict[str, Any]:
    path, raw = file.path, file.read(0, _HEADER_NBYTES)
    if len(raw) < _HEADER_NBYTES:
        raise MrczError(path, f"a file of {len(raw)} bytes, shorter than a header of TVIPS")
    fields = np.frombuffer(raw, _HEADER, 1)[0]
    header: dict[str, Any] = {name: int(fields[name]) for name in _HEADER.names or ()}
    if any(reserved := raw[_HEADER.itemsize :]):
        header[_RESERVED] = reserved
    if header["size"] != _HEADER_NBYTES or header["version"] not in (1, 2):
        advice = "Only the first file of a recording has one: open name_000.tvips"
        raise MrczError(path, "no header of TVIPS", offset=0, advice=advice)
    sides = header["rows"], header["columns"]
    pixels = header["bits"] in (8, 16) and 0 < min(sides) and max(sides) <= LARGEST_SIDE
    if not pixels or header["frame_header_bytes"] >= _LONGEST_FRAME_HEADER:
        found = f"{header['rows']} rows, {header['columns']} columns, {header['bits']} bits"
        found += f", {header['frame_header_bytes']} bytes before each frame"
        raise MrczError(path, f"a damaged header of TVIPS: {found}", offset=8)
    return header


def _parts(path: Path) -> list[Path]:
    """Return the files of a recording that are there, in order."""
    named = _PART.fullmatch(path.name)
    if named is None or int(named[2]):
        return [path]
    try:
        beside = sorted(path.parent.iterdir())
    except OSError:
        return [path]  # a folder that may be entered, but not listed
    parts = {0: path}
    twice = []
    for other in beside:
        part = _PART.fullmatch(other.name)
        if part and part[1] == named[1] and other.name != path.name:
            if parts.setdefault(int(part[2]), other) != other:
                twice.append(other.name)
    if twice:
        found = f"other files have the numbers of these, which are left out: {listed(twice)}"
        warn(f"{path}: {found}")
    numbers = sorted(parts)
    missing = sorted(set(range(numbers[-1])) - set(numbers))
    if missing:
        some = listed([f"{number:03d}" for number in missing])
        found = f"the files {some} of the recording are missing: their frames are left out"
        warn(f"{path}: {found}")
    return [parts[number] for number in numbers]


def _frame_headers(path: Path, runs: Sequence[FrameRun], nbytes: int) -> dict[str, Any]:
    """Return the fields of the headers before frames, each an array with one value per frame.

    What nobody has described is in "reserved", as bytes, where it is not empty.
    """
    n = sum(run.count for run in runs)
    if n > _MOST_FRAME_HEADERS or n * nbytes > _MOST_FRAME_HEADERS_NBYTES:
        found = f"the headers of its {n} frames, of {nbytes} bytes each, are too many to be kept"
        warn(f"{path}: {found}")
        return {}
    fields: list[tuple[Any, ...]] = []
    if nbytes >= _FRAME_HEADER.itemsize:
        fields = list(_FRAME_HEADER.descr)
    elif nbytes >= _FRAME_HEADER_OF_VERSION_1:
        fields = list(_FRAME_HEADER.descr[:3])
    if rest := nbytes - np.dtype(fields).itemsize:
        fields.append((_RESERVED, "u1", (rest,)))
    dtype = np.dtype(fields)
    raw = b"".join(
        run.file.read(run.offset - nbytes + frame * run.step, dtype.itemsize)
        for run in runs
        for frame in range(run.count)
    )
    if len(raw) != n * dtype.itemsize:
        raise MrczError(path, "it became shorter while it was opened")
    if not raw:
        return {}
    records = np.frombuffer(raw, dtype)
    each = {name: np.ascontiguousarray(records[name]) for name in dtype.names or ()}
    return {name: values for name, values in each.items() if name != _RESERVED or values.any()}


def _pixel_size(header: dict[str, Any], frames: dict[str, Any]) -> tuple[float, float, float]:
    """Return the pixel size in Å of an image: the camera's pixels divided by the magnification.

    Unknown for diffraction patterns, and with binning, of which the header does not say whether
    the camera's pixel size includes it.
    """
    binned = (header["column_binning"], header["row_binning"]) != (1, 1)
    imaged = "mode" in frames and (frames["mode"] == _IMAGING).all()
    if binned or not imaged or not header["magnification"]:
        return 0.0, 0.0, 0.0
    size = 10.0 * header["pixel_size_nm"] / header["magnification"]
    return 0.0, size, size
