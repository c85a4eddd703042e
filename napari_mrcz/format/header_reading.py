"""Understanding headers as real files have them: either byte order, or both mixed, and worse.

What was unusual, and how it was understood, ends up in the header's `notes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format.header import (
    CODEC_NAMES,
    DTYPE_OF_MODE,
    EXTRA_WORDS,
    HEADER_DTYPE,
    HEADER_NBYTES,
    Header,
    Triple,
    header_dtype,
    holds_volume,
    mrcz_version,
)
from napari_mrcz.naming import TIFF_MAGIC

if TYPE_CHECKING:
    from os import PathLike

IMOD_STAMP = 1146047817
_UNSUPPORTED_COMPLEX_INT16 = 3
# Above these, a number is not a size or sampling of anything that was ever recorded.
_MOST_PIXELS = 2**40
MOST_SAMPLES = 2**24
# An angstrom length below this is an integer that was written into a float field (1.4e-45).
_SMALLEST_CELL = 1e-6
_FLOAT32_STEP = 2.0**-23
_EXTRA_PLACES = {
    name: slice(offset, offset + dtype.itemsize)
    for name in EXTRA_WORDS
    for dtype, offset, *_ in [HEADER_DTYPE.fields[name]]  # type: ignore[index]
}


def parse_header(raw: bytes, path: str | PathLike[str]) -> Header:
    """Understand a header as real files have it.

    The byte order is decided field by field: sizes, mode and counts are far below 65536, so the
    order that gives the smaller number is the right one, whatever the machine stamp says (`mrcz`
    before 0.6 mixes the two within one header).

    `raw`: the file's first 1024 bytes, or fewer if it has fewer; `path`: for messages, and for the
    suffix. NSYMBT, the codec and NZ are as stated: only the rest of the file shows whether they are
    true. Raise `MrczError` if this cannot be an MRC header: too short, impossible sizes, unknown
    mode.
    """
    if len(raw) < HEADER_NBYTES:
        raise MrczError(
            path,
            f"only {len(raw)} bytes, where an MRC header alone takes {HEADER_NBYTES}",
            offset=len(raw),
            advice="The file is empty, truncated or of another format",
        )
    raw = bytes(raw[:HEADER_NBYTES])
    little = np.frombuffer(raw, HEADER_DTYPE)[0]
    big = np.frombuffer(raw, header_dtype(">"))[0]
    order = _byte_order(little, big)
    both = _BothOrders(little, big, order, path)
    record = both.record

    nx, ny, nz = _sizes(both)
    codec, mode = _mode(both)
    labels = tuple(text for text, _ in labels_of(record))
    # Where `mrcz` before 0.6 wrote big-endian files, it forgot some fields.
    version = mrcz_version(labels)
    numbers = record
    if order == ">" and version is not None and version < (0, 6, 0):
        both.note("statistics and kV are little-endian, the rest is not (mrcz before 0.6)")
        numbers = little
    if _stamp_order(record["machst"]) not in (order, None):
        both.note("the machine stamp names the other byte order than the sizes have")
    if record["map"] != b"MAP ":
        both.note("no 'MAP ' at byte 208")
    sampling = _sampling(both, version)
    cell = _cell(both)
    imod = int(record["imod_stamp"]) == IMOD_STAMP
    ispg = _space_group(both)
    return Header(
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        codec=codec,
        sampling=sampling,
        cell=cell,
        angles=_floats(record["angles"]),
        origin=_floats(record["origin"]),
        axis_order=_axis_order(both),
        start=_integers(record["nstart"]),
        dmin=float(numbers["dmin"]),
        dmax=float(numbers["dmax"]),
        dmean=float(numbers["dmean"]),
        rms=float(record["rms"]),
        ispg=ispg,
        nsymbt=int(record["nsymbt"]),
        exttyp=bytes(record["exttyp"]).decode("latin-1"),
        nversion=int(record["nversion"]),
        voltage=setting_of(numbers["voltage"]),
        c3=setting_of(numbers["c3"]),
        gain=setting_of(numbers["gain"]),
        packed_nbytes=both.smaller(little["packed_nbytes"], big["packed_nbytes"])[0],
        labels=labels,
        byte_order=order,
        unsigned_bytes=imod and not int(record["imod_flags"]) & 1,
        pixel_size=pixel_size_of(cell, sampling, (nx, ny, nz), codec),
        # Where frames are compressed, MZ is how `mrcz` cuts a stack into a list.
        is_volume=holds_volume(ispg, 0 if codec else sampling[2], (nz, ny, nx), path, labels),
        extra=_extra(record, raw),
        notes=tuple(both.notes),
        raw=raw,
    )


@dataclass(frozen=True)
class _BothOrders:
    """A header read in both byte orders, the order decided upon, and what was noticed."""

    little: np.void
    big: np.void
    order: str
    path: str | PathLike[str]
    notes: list[str] = field(default_factory=list)

    @property
    def record(self) -> np.void:
        return self.little if self.order == "<" else self.big

    def note(self, text: str) -> None:
        self.notes.append(text)

    def refuse(self, found: str, offset: int) -> MrczError:
        if self.little["n"].tobytes().startswith(TIFF_MAGIC):
            advice = "compress and decompress read such files, and write MRCZ and MRC"
            return MrczError(self.path, "is a TIFF or EER file, not MRC", advice=advice)
        advice = "The file is damaged or not an MRC file"
        return MrczError(self.path, found, offset=offset, advice=advice)

    def smaller(self, little: Any, big: Any) -> tuple[int, str]:
        """Return the smaller of two readings that is not negative, and its byte order."""
        readings = {"<": int(little), ">": int(big)}
        if readings["<"] == readings[">"]:
            return readings[self.order], self.order
        best = min(readings, key=lambda o: (readings[o] < 0, abs(readings[o])))
        return readings[best], best


def _sizes(both: _BothOrders) -> tuple[int, int, int]:
    nx, ny, nz = _integers(both.record["n"])
    # Frames can be counted in the file; but without their number it must say that it is MRC.
    impossible = min(nx, ny) < 1 or nx * ny > _MOST_PIXELS
    if impossible or (nz < 1 and both.record["map"] != b"MAP "):
        raise both.refuse(f"sizes of {nx} x {ny} x {nz} (NX NY NZ), which no movie has", 0)
    return nx, ny, nz


def _mode(both: _BothOrders) -> tuple[int, int]:
    """Return codec and pixel mode."""
    number, order = both.smaller(both.little["mode"], both.big["mode"])
    if order != both.order:
        both.note("MODE is in the other byte order than the sizes (mrcz before 0.6 writes so)")
    codec, mode = divmod(number, 1000)
    if number == _UNSUPPORTED_COMPLEX_INT16:
        raise both.refuse("mode 3, complex int16, is not supported", 12)
    if mode not in DTYPE_OF_MODE or codec not in CODEC_NAMES:
        raise both.refuse(f"mode {number}: pixel mode {mode} or codec {codec} is unknown", 12)
    return codec, mode


def _sampling(both: _BothOrders, version: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Return MX MY MZ, or 0 0 0 where they mean something else."""
    mx, my, mz = (
        both.smaller(little, big)[0]
        for little, big in zip(both.little["m"].tolist(), both.big["m"].tolist(), strict=True)
    )
    if version is not None and version < (0, 5, 0) and any((mx, my, mz)):
        both.note("MX MY MZ ignored: mrcz before 0.5 writes the sizes there")
        return 0, 0, 0
    if min(mx, my, mz) < 0 or max(mx, my, mz) > MOST_SAMPLES:
        both.note(f"MX MY MZ ignored: {mx} {my} {mz} cannot be a sampling")
        return 0, 0, 0
    return mx, my, mz


def _axis_order(both: _BothOrders) -> tuple[int, int, int]:
    axes = _integers(both.record["map_crs"])
    if sorted(axes) != [1, 2, 3]:
        if any(axes):
            both.note(f"MAPC MAPR MAPS are {axes}, taken as 1 2 3")
        return 1, 2, 3
    if axes != (1, 2, 3):
        names = " ".join("XYZ"[axis - 1] for axis in axes)
        both.note(f"columns, rows, sections run along {names} (MAPC MAPR MAPS); shown as stored")
    return axes


def _cell(both: _BothOrders) -> Triple:
    cell = _floats(both.record["cell"])
    if any(c < 0 or 0 < c <= _SMALLEST_CELL or not math.isfinite(c) for c in cell):
        both.note(f"the cell of {cell[0]:g} x {cell[1]:g} x {cell[2]:g} Å is not a size: unknown")
    return cell


def _space_group(both: _BothOrders) -> int:
    ispg = int(both.record["ispg"])
    if 0 <= ispg < 1000:
        return ispg
    both.note(f"ISPG {ispg} taken as 0, an image stack")
    return 0


def _byte_order(little: np.void, big: np.void) -> str:
    """Decide by the sizes: the wrong order makes them at least 65536 times larger."""
    sizes = [record["n"].tolist() for record in (little, big)]
    plausible = [min(n[:2]) > 0 for n in sizes]
    if plausible[0] != plausible[1]:
        return "<" if plausible[0] else ">"
    # NZ may be wrong, but says more of what is larger by far.
    volumes = [n[0] * n[1] * max(1, n[2]) for n in sizes]
    if plausible[0] and volumes[0] != volumes[1]:
        return "<" if volumes[0] < volumes[1] else ">"
    return _stamp_order(little["machst"]) or "<"


def _stamp_order(stamp: npt.NDArray[np.uint8]) -> str | None:
    return {0x44: "<", 0x11: ">"}.get(int(stamp[0]))


def _extra(record: np.void, raw: bytes) -> dict[str, Any]:
    """Return the words of other programs that are set."""
    extra: dict[str, Any] = {}
    for name, place in _EXTRA_PLACES.items():
        if any(raw[place]):
            value = record[name]
            if value.dtype.kind == "V":
                extra[name] = value.tobytes()
            else:
                extra[name] = tuple(value.tolist()) if value.ndim else value.item()
    return extra


def labels_of(record: Any) -> list[tuple[str, bytes]]:
    """Return the labels that have text, and their bytes."""
    labels = [(_text(raw), raw) for raw in record["label"].tolist() if raw]
    return [(text, raw) for text, raw in labels if text]


def _text(raw: bytes) -> str:
    """Decode ASCII, UTF-8 or Latin-1, whichever it is; never a reason to refuse a file."""
    raw = raw.split(b"\0", 1)[0]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.strip()


def _integers(values: npt.NDArray[np.int32]) -> tuple[int, int, int]:
    x, y, z = values.tolist()
    return x, y, z


def _floats(values: npt.NDArray[np.float32]) -> Triple:
    x, y, z = values.tolist()
    return x, y, z


def pixel_size_of(
    cell: Triple, sampling: tuple[int, int, int], sizes: tuple[int, int, int], codec: int
) -> Triple:
    """Return the voxel size along Z, Y, X: the cell's length divided by MX, MY, MZ.

    Where those are 0 (as `mrcz` writes them), it is divided by NX, NY, NZ, and along Z in every
    compressed file: there MZ says how `mrcz` cuts the stack into a list.
    """
    told = sampling[0] > 0 and sampling[1] > 0
    along_z = 0 if codec else sampling[2]
    samples = [
        m if told and m > 0 else max(1, n)
        for m, n in zip((*sampling[:2], along_z), sizes, strict=True)
    ]
    x, y, z = (
        _shortest(c / m) if math.isfinite(c) and c > _SMALLEST_CELL else 0.0
        for c, m in zip(cell, samples, strict=True)
    )
    return z, y, x


def _shortest(value: float) -> float:
    """Return the shortest number with this float32: 1.05 rather than 1.0499999."""
    rounded = (float(f"{value:.{digits}g}") for digits in (6, 7, 8, 9))
    return next(r for r in rounded if abs(r - value) <= _FLOAT32_STEP * value)


def setting_of(value: Any) -> float:
    """Return a microscope setting, or 0.0 for one that no microscope has."""
    number = float(value)
    return number if math.isfinite(number) and 1e-6 < abs(number) < 1e6 else 0.0
