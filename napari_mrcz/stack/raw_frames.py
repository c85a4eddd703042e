"""Frames that lie uncompressed in files: SMV images, TVIPS recordings, and the base of DM's.

SMV (`.img`), as ADSC, Rigaku (d*TREK) and MicroED have it: a text header of some multiple of 512
bytes between braces, then an image, its top row first. d*TREK Image Format 1.1 (Rigaku) names
types in ``Data_type``, ADSC and the converters of electron cameras in ``TYPE``. TVIPS (`.tvips`):
a header, then frames, each after a header of its own; a long recording is cut into files
``name_000.tvips``, ``name_001.tvips`` and so on, of which only the first has the header of all.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, collected_warnings, listed, warn
from napari_mrcz.format import Description
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.naming import PACKED_SUFFIXES, RemotePath
from napari_mrcz.stack.sources import MOST_OPEN, Frames
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LARGEST_SIDE = 2**16
"""More rows or columns than any camera has: what claims them is damaged."""

MOST_FRAMES = 2**24
"""More frames than any recording has: 40,000 a second for seven minutes."""

Frame = npt.NDArray[Any]


@dataclass(frozen=True)
class FrameRun:
    """Frames of one file that follow each other at equal distances."""

    file: RandomAccessFile  # which may be packed
    offset: int  # byte at which the pixels of the first frame begin
    step: int  # bytes from the pixels of one frame to those of the next
    count: int  # number of frames

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "file": self.file.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, file=open_file(state["file"]))


class RawFrames(Frames):
    """Frames read as they are asked for, their rows turned into the order of MRC files.

    `runs`: where the frames are, in order; `page_shape`: rows and columns of a frame; `stored`:
    pixel type in the files, with its byte order.
    """

    def __init__(
        self, runs: Sequence[FrameRun], page_shape: tuple[int, int], stored: np.dtype[Any]
    ) -> None:
        self.runs = tuple(runs)
        self._ends = list(itertools.accumulate(run.count for run in self.runs))
        self._stored = stored
        self.shape = self._ends[-1], *page_shape
        self.dtype = stored.newbyteorder("=")

    def _read(self, frame: int) -> Frame:
        """Read one frame; raises `MrczError` if the file is gone, changed or damaged."""
        at = bisect.bisect_right(self._ends, frame)
        run = self.runs[at]
        offset = run.offset + run.step * (frame - (self._ends[at] - run.count))
        _, rows, columns = self.shape
        buffer = np.empty(rows * columns * self._stored.itemsize, np.uint8)
        got = run.file.read_into(offset, buffer.data)
        if len(self.runs) > MOST_OPEN:
            run.file.close()
        if got != len(buffer):
            found = f"it ends after {got} of {len(buffer)} bytes; it was whole when opened"
            raise MrczError(run.file.path, found, frame=frame, offset=offset)
        return buffer.view(self._stored).reshape(rows, columns)[::-1]

    def close(self) -> None:
        """Close the files; reading opens them again."""
        for run in self.runs:
            run.file.close()


_BLOCK = 512
_LONGEST_HEADER = 2**22
_LENGTH = re.compile(rb"\s*\{.*?HEADER_BYTES\s*=\s*(\d{1,9})", re.DOTALL)
# These describe the pixels as they are stored in one file; the others describe the experiment.
_OF_PIXELS = re.compile(r"HEADER_BYTES|DIM|BYTE_ORDER|TYPE|Data_type|SIZE\d", re.IGNORECASE)
# Between entries, and behind them up to the pixels.
_PADDING = re.compile(r"[\s;{}\0]+")
_MOST_SHOWN = 80
_ENTRY = re.compile(r"([^=;\n{}]+)=([^;\n]*)")
_TYPES = {"char": "i1", "byte": "i1", "short": "i2", "long": "i4", "": "i4", "float": "f4",
          "double": "f8"}  # fmt: skip
_ORDERS = {"little_endian": "<", "big_endian": ">"}
# Shorter ones, in Å, are those of electrons of more than 15 keV, not of X-rays.
_ELECTRONS = 0.1
_VOLTAGES = (60.0, 80.0, 100.0, 120.0, 160.0, 200.0, 300.0)


def is_smv(head: bytes) -> bool:
    """Return whether a file that begins so is an SMV image."""
    return head.lstrip()[:1] == b"{" and b"HEADER_BYTES" in head


def open_smv(paths: Sequence[Path]) -> Stack:
    """Open images of one shape as a movie.

    The fields of their headers are in ``metadata["smv"]``: text, or a list with one text per
    image where images differ.

    `paths`: the files, in order. Raise `MrczError` if a file is damaged or unlike the first one.
    Warn if a file holds more than its header describes.
    """
    paths = [path.absolute() for path in paths]
    read = [_read(path) for path in paths]
    headers = [header for header, _, _, _ in read]
    _, first, page_shape, stored = read[0]
    for path, (_, _, shape, dtype) in zip(paths, read, strict=True):
        if shape != page_shape or dtype.newbyteorder("=") != stored.newbyteorder("="):
            found = f"{dtype} pixels of {shape}, where {paths[0].name} has {stored} of {page_shape}"
            raise MrczError(path, found)
        if dtype != stored:
            found = f"another byte order than {paths[0].name}"
            raise MrczError(path, found, advice="Open it by itself")
    frames = RawFrames([run for _, run, _, _ in read], page_shape, stored)
    description = Description(
        path=str(first.file.path),
        voltage=_kilovolts(headers[0].get("WAVELENGTH", "")),
        metadata={"smv": merged(headers)},
    )
    return Stack(frames, description)


def merged(maps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what several maps say: values in common, and lists of those that differ."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for each in maps for name in each):
        values: list[Any] = [each.get(name) for each in maps]
        if all(isinstance(value, dict) for value in values):
            found[name] = merged([dict(value or {}) for value in values])
        else:
            same = all(np.array_equal(value, values[0]) for value in values)
            found[name] = values[0] if same else values
    return found


def frame_header(smv: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what ``metadata["smv"]`` says of one frame."""
    return {name: v[index] if isinstance(v, list) else v for name, v in smv.items()}


def write_smv(
    path: Path, frame: Frame, header: Mapping[str, Any] | None = None, *, overwrite: bool = False
) -> None:
    """Write one image.

    `path`: the file; `frame` (y, x): of uint16, which programs rely on, rows in the order of MRC
    files; `header`: fields of the experiment, such as DISTANCE, WAVELENGTH or OSC_START; None and
    fields that describe pixels are left out; `overwrite`: replace an existing file. Raise
    `MrczError` if the file exists, or the disk refuses; `ValueError` for other pixels.
    """
    if frame.dtype != np.uint16 or frame.ndim != 2:
        raise ValueError(f"an SMV image is of uint16 and (y, x), not {frame.dtype} {frame.shape}")
    size = {"SIZE1": frame.shape[1], "SIZE2": frame.shape[0]}
    items = {"DIM": 2, "BYTE_ORDER": "little_endian", "TYPE": "unsigned_short", **size}
    for name, value in (header or {}).items():
        if value is not None and not _OF_PIXELS.fullmatch(name):
            items[name] = re.sub(r"[;\n]", " ", str(value))
    lines = "".join(f"{name}={value};\n" for name, value in items.items())
    nbytes = -(-(len(lines.encode()) + 32) // _BLOCK) * _BLOCK
    head = f"{{\nHEADER_BYTES={nbytes:5d};\n{lines}}}\n\f\n".encode()
    with AtomicFile(path, overwrite=overwrite) as file:
        file.write(head.ljust(nbytes))
        file.write(np.ascontiguousarray(frame[::-1], "<u2").data)
        file.commit()


def _read(path: Path) -> tuple[dict[str, str], FrameRun, tuple[int, int], np.dtype[Any]]:
    """Return a file's header, and where its pixels are, of which shape and type."""
    with contextlib.closing(open_file(path)) as file:
        stated = _LENGTH.match(file.read(0, _BLOCK))
        if stated is None or not 0 < int(stated[1]) <= _LONGEST_HEADER:
            raise MrczError(path, "no header of SMV", offset=0)
        nbytes, length = int(stated[1]), file.nbytes
        raw = file.read(0, nbytes)
    text, *behind = re.split(r"^\s*\}", raw.decode("latin-1"), maxsplit=1, flags=re.MULTILINE)
    entries = [(name.strip(), value.strip()) for name, value in _ENTRY.findall(text)]
    header = dict(entries)
    again = [f"{name}={value}" for name, value in entries if header[name] != value]
    other = [_PADDING.sub(" ", part).strip() for part in (_ENTRY.sub("", text), *behind)]
    sizes = _sizes(path, header)
    stored = _dtype(path, header)
    step = sizes[0] * sizes[1] * stored.itemsize
    surplus = length - nbytes - step * sizes[2]
    if surplus < 0:
        found = f"a damaged SMV image: {-surplus} of its {step * sizes[2]} bytes are missing"
        raise MrczError(path, found, offset=length)
    if surplus:
        warn(f"{path}: {surplus} bytes after the image, which are not read")
    if unread := "; ".join(filter(None, (*again, *other))):
        warn(f"{path}: text of its header is not kept: {unread[:_MOST_SHOWN]!r}")
    return header, FrameRun(file, nbytes, step, sizes[2]), (sizes[1], sizes[0]), stored


def _sizes(path: Path, header: Mapping[str, str]) -> tuple[int, int, int]:
    """Return columns, rows and images."""
    try:
        dim = int(header.get("DIM", 2))
        x, y, n = (int(header[f"SIZE{axis + 1}"]) if axis < dim else 1 for axis in range(3))
    except (KeyError, ValueError) as error:
        raise MrczError(path, f"a damaged header of SMV ({error})", offset=0) from error
    possible = 0 < min(x, y) <= max(x, y) <= LARGEST_SIDE and 0 < n <= MOST_FRAMES
    if dim not in (2, 3) or not possible:
        found = f"a damaged header of SMV: {dim} axes, {x} columns, {y} rows, {n} images"
        raise MrczError(path, found, offset=0)
    return x, y, n


def _dtype(path: Path, header: Mapping[str, str]) -> np.dtype[Any]:
    """Return the pixel type, named as by ADSC (unsigned_short) or d*TREK (unsigned short int)."""
    named = header.get("Data_type") or header.get("TYPE") or "unsigned_short"
    words = set(re.split(r"[\s_]+", named.lower())) - {"int", "integer", "ieee"}
    kind = " ".join(words - {"signed", "unsigned"})
    order = header.get("BYTE_ORDER", "little_endian").lower()
    if kind not in _TYPES or order not in _ORDERS:
        found = f"an SMV image of {named}, {order}, which is not known"
        raise MrczError(path, found, offset=0)
    letters = _TYPES[kind]
    if "unsigned" in words or (kind == "byte" and "signed" not in words):
        letters = letters.replace("i", "u")
    return np.dtype(_ORDERS[order] + letters)


def _kilovolts(wavelength: str) -> float:
    """Return the voltage of electrons of a wavelength in Å; 0.0 where it is that of X-rays."""
    try:
        length = float(wavelength)
    except ValueError:
        length = 0.0
    if not 0 < length < _ELECTRONS:
        return 0.0
    # The relativistic momentum h / λ, in keV, and the rest energy of the electron.
    momentum, rest = 12.398419843 / length, 510.99895
    voltage = (momentum**2 + rest**2) ** 0.5 - rest
    usual = min(_VOLTAGES, key=lambda nominal: abs(nominal - voltage))
    # Wavelengths are often rounded: 0.025 Å would be 201 kV.
    return usual if abs(usual - voltage) < 0.02 * usual else float(round(voltage))


_HEADER_NBYTES = 256
_FIELDS = (
    "size version columns rows bits column_offset row_offset column_binning row_binning "
    "pixel_size_nm high_tension_kV magnification frame_header_bytes"
)
_HEADER = np.dtype([(name, "<u4") for name in _FIELDS.split()])
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
        with contextlib.closing(open_file(path)) as file:
            head = file.read(0, _HEADER_NBYTES)
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

    Raise `MrczError` if it is not the first file of a recording, or has no whole frame. Warn if a
    file of the recording is cut off or missing.
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
        start, file = _HEADER_NBYTES, first
        if runs:
            start, file = 0, open_file(part)
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
    if isinstance(path, RemotePath):
        warn(f"{path}: later files of the recording, if there are any, are not looked for at a URL")
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
        warn(f"{path}: other files have the numbers of these, which are left out: {listed(twice)}")
    numbers = sorted(parts)
    missing = sorted(set(range(numbers[-1])) - set(numbers))
    if missing:
        some = listed([f"{number:03d}" for number in missing])
        warn(f"{path}: the files {some} of the recording are missing: their frames are left out")
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
