"""SMV images of diffraction detectors (`.img`), as ADSC and Rigaku (d*TREK) and MicroED have them.

A text header of some multiple of 512 bytes between braces, then an image, its top row first.
d*TREK Image Format 1.1 (Rigaku) names types in ``Data_type``, ADSC and the converters of cameras
for electrons in ``TYPE``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, warn
from napari_mrcz.format import Description
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.files import open_file
from napari_mrcz.stack.raw_frames import LARGEST_SIDE, MOST_FRAMES, FrameRun, RawFrames
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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

Frame = npt.NDArray[Any]


def is_smv(head: bytes) -> bool:
    """Return whether a file that begins so is an SMV image."""
    return head.lstrip()[:1] == b"{" and b"HEADER_BYTES" in head


def open_smv(paths: Sequence[Path]) -> Stack:
    """Open images of one shape as a movie.

    The fields of their headers are in ``metadata["smv"]``: text, or a list with one text per
    image where images differ.

    Parameters
    ----------
    paths : sequence of Path
        The files, in order.

    Raises
    ------
    MrczError
        If a file is damaged or unlike the first one.

    Warns
    -----
    MrczWarning
        If a file holds more than its header describes.
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

    Parameters
    ----------
    path : Path
        The file.
    frame : ndarray of uint16, shape (y, x)
        Rows in the order of MRC files.
    header : mapping, optional
        What is said of the experiment, such as DISTANCE, WAVELENGTH or OSC_START; what describes
        pixels is left out, as is None.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MrczError
        If the file exists, or the disk refuses.
    ValueError
        If the pixels are of another type: programs rely on this one.
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
    file = open_file(path)
    try:
        stated = _LENGTH.match(file.read(0, _BLOCK))
        if stated is None or not 0 < int(stated[1]) <= _LONGEST_HEADER:
            raise MrczError(path, "no header of SMV", offset=0)
        nbytes, length = int(stated[1]), file.nbytes
        raw = file.read(0, nbytes)
    finally:
        file.close()
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
        found = f"{surplus} bytes after the image, which are not read"
        warn(f"{path}: {found}")
    if unread := "; ".join(filter(None, (*again, *other))):
        found = f"text of its header is not kept: {unread[:_MOST_SHOWN]!r}"
        warn(f"{path}: {found}")
    return header, FrameRun(file, nbytes, step, sizes[2]), (sizes[1], sizes[0]), stored


def _sizes(path: Path, header: Mapping[str, str]) -> tuple[int, int, int]:
    """Return columns, rows and images."""
    try:
        dim = int(header.get("DIM", 2))
        x, y, n = (int(header[f"SIZE{axis + 1}"]) if axis < dim else 1 for axis in range(3))
    except (KeyError, ValueError) as error:
        raise MrczError(path, f"a damaged header of SMV ({error})", offset=0) from error
    if dim not in (2, 3) or not 0 < min(x, y) <= max(x, y) <= LARGEST_SIDE or not 0 < n:
        found = f"a damaged header of SMV: {dim} axes, {x} columns, {y} rows, {n} images"
        raise MrczError(path, found, offset=0)
    if n > MOST_FRAMES:
        raise MrczError(path, f"a damaged header of SMV: {n} images", offset=0)
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
        return 0.0
    if not 0 < length < _ELECTRONS:
        return 0.0
    # The relativistic momentum h / λ, in keV, and the rest energy of the electron.
    momentum, rest = 12.398419843 / length, 510.99895
    voltage = (momentum**2 + rest**2) ** 0.5 - rest
    usual = min(_VOLTAGES, key=lambda nominal: abs(nominal - voltage))
    # Wavelengths are often rounded: 0.025 Å would be 201 kV.
    return usual if abs(usual - voltage) < 0.02 * usual else float(round(voltage))
