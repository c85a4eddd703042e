"""The 1024-byte MRC header: MRC2014 with MRCZ's fields, in either byte order.

`HEADER_DTYPE` is the layout, `parse_header` reads one as real files have it, `build_header` makes
one that `mrcfile` and `mrcz` agree with. Sources: MRC2014 (Cheng et al. 2015,
doi:10.1016/j.jsb.2015.04.002) and MRCZ (McLeod et al. 2018, doi:10.1016/j.jsb.2017.11.012).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format.modes import DTYPE_OF_MODE, frame_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

__all__ = ["CODEC_NAMES", "HEADER_DTYPE", "HEADER_NBYTES", "Header", "build_header", "parse_header"]

HEADER_NBYTES = 1024

HEADER_DTYPE = np.dtype(
    [
        ("n", "<i4", 3),  # 0: NX NY NZ, columns, rows, sections
        ("mode", "<i4"),  # 12: pixel mode + 1000 x codec
        ("nstart", "<i4", 3),  # 16: first column, row, section in the unit cell
        ("m", "<i4", 3),  # 28: MX MY MZ, sampling of the cell
        ("cell", "<f4", 3),  # 40: cell lengths along X Y Z, angstrom
        ("angles", "<f4", 3),  # 52: cell angles, degrees
        ("map_crs", "<i4", 3),  # 64: MAPC MAPR MAPS: 1 X, 2 Y, 3 Z
        ("dmin", "<f4"),  # 76: statistics; DMAX < DMIN means not determined
        ("dmax", "<f4"),
        ("dmean", "<f4"),
        ("ispg", "<i4"),  # 88: 0 image stack, 1 volume, 401 stack of volumes
        ("nsymbt", "<i4"),  # 92: bytes of extended header
        ("extra1", "V8"),  # 96
        ("exttyp", "S4"),  # 104: kind of extended header
        ("nversion", "<i4"),  # 108: year x 10 + revision of the standard
        ("extra2", "V20"),  # 112
        ("voltage", "<f4"),  # 132: MRCZ, kV
        ("c3", "<f4"),  # 136: MRCZ, spherical aberration, mm
        ("gain", "<f4"),  # 140: MRCZ, counts per electron
        ("packed_nbytes", "<i8"),  # 144: MRCZ, length of all chunks; advisory
        ("imod_stamp", "<i4"),  # 152: 1146047817 where IMOD wrote it
        ("imod_flags", "<i4"),  # 156: bit 0 set: mode 0 is signed
        ("extra3", "V36"),  # 160
        ("origin", "<f4", 3),  # 196: origin X Y Z, angstrom
        ("map", "S4"),  # 208: b"MAP "
        ("machst", "u1", 4),  # 212: machine stamp, 0x44 0x44 little, 0x11 0x11 big
        ("rms", "<f4"),  # 216: standard deviation; negative means not determined
        ("nlabl", "<i4"),  # 220: labels in use
        ("label", "S80", 10),  # 224
    ]
)

CODEC_NAMES = {0: "none", 1: "blosclz", 2: "lz4", 3: "lz4hc", 4: "snappy", 5: "zlib", 6: "zstd"} | {
    code: f"codec {code} of blosc2" for code in range(7, 16)
}

_IMOD_STAMP = 1146047817
_MRCZ_LABEL = re.compile(r"MRCZ\s*(\d+)\.(\d+)\.(\d+)")
_VOLUME_STACKS = range(401, 631)
# An angstrom length below this is an integer that was written into a float field (1.4e-45).
_SMALLEST_CELL = 1e-6
_MOST_SECTIONS = 2**31 - 1

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Header:
    """An MRC header, its fields by name and what follows from them.

    Fields can be read as attributes or by name (``header["voltage"]``, ``dict(header)``). Triples
    are in the header's own order X, Y, Z; `shape` and `pixel_size` are in numpy's, z, y, x.

    Attributes
    ----------
    nx, ny, nz : int
        Columns, rows and sections; `nz` counts the frames that exist.
    mode : int
        Pixel mode without the codec: 0 int8, 1 int16, 2 float32, 4 complex64, 6 uint16, 7 int32,
        8 uint32, 12 float16, 101 4-bit.
    codec : int
        Blosc codec that MODE names, 0 for uncompressed; advisory, each chunk says its own.
    sampling : tuple of int
        MX, MY, MZ; 0 where the file does not tell.
    cell, angles, origin : tuple of float
        Cell lengths (Å), cell angles (degrees), origin (Å).
    axis_order : tuple of int
        MAPC, MAPR, MAPS: 1 X, 2 Y, 3 Z.
    dmin, dmax, dmean, rms : float
        Statistics as the file states them.
    ispg : int
        0 image stack, 1 volume, 401 stack of volumes.
    nsymbt, exttyp : int, str
        Length (bytes) and kind of the extended header.
    voltage, c3, gain : float
        Acceleration voltage (kV), spherical aberration (mm), counts per electron; 0 if unknown.
    labels : tuple of str
        Text labels.
    byte_order : str
        "<" or ">".
    unsigned_bytes : bool
        Mode 0 holds unsigned pixels (IMOD's flag).
    pixel_size : tuple of float
        Voxel size along Z, Y and X in Å; 0.0 where the file does not say.
    notes : tuple of str
        What was unusual about the header, and how it was understood.
    """

    nx: int
    ny: int
    nz: int
    mode: int
    codec: int
    sampling: tuple[int, int, int]
    cell: Triple
    angles: Triple
    origin: Triple
    axis_order: tuple[int, int, int]
    start: tuple[int, int, int]
    dmin: float
    dmax: float
    dmean: float
    rms: float
    ispg: int
    nsymbt: int
    exttyp: str
    nversion: int
    voltage: float
    c3: float
    gain: float
    packed_nbytes: int
    labels: tuple[str, ...]
    byte_order: str
    unsigned_bytes: bool
    pixel_size: Triple
    notes: tuple[str, ...] = ()
    raw: bytes = field(default=b"", repr=False)

    def __getitem__(self, name: str) -> Any:
        """Give one field by its name; KeyError if there is none."""
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the fields."""
        return iter(self.keys())

    def keys(self) -> tuple[str, ...]:
        """Give the names of the fields."""
        return tuple(f.name for f in fields(self) if f.name != "raw")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self.nz, self.ny, self.nx

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        if self.mode == 0 and self.unsigned_bytes:
            return np.dtype(np.uint8)
        return DTYPE_OF_MODE[self.mode]

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Pixel type in the file's byte order."""
        return self.dtype.newbyteorder("<" if self.byte_order == "<" else ">")

    @property
    def frame_nbytes(self) -> int:
        """Bytes of one frame as stored, before compression."""
        return frame_nbytes(self.mode, (self.ny, self.nx))

    @property
    def data_offset(self) -> int:
        """Byte at which the first frame begins."""
        return HEADER_NBYTES + self.nsymbt

    @property
    def is_volume(self) -> bool:
        """Sections are slices of a volume (or of several), not frames of a movie."""
        return self.ispg == 1 or self.ispg in _VOLUME_STACKS

    @property
    def mrcz_version(self) -> tuple[int, int, int] | None:
        """Version of the MRCZ library that wrote the file, where label 0 tells."""
        return _version(self.labels)

    @property
    def scale(self) -> Triple:
        """`pixel_size` along the array's axes (sections, rows, columns), as MAPC MAPR MAPS say."""
        by_axis = dict(zip((3, 2, 1), self.pixel_size, strict=True))
        column, row, section = self.axis_order
        return by_axis[section], by_axis[row], by_axis[column]


def parse_header(raw: bytes, path: str | PathLike[str], file_nbytes: int) -> Header:
    """Understand a header as real files have it.

    The byte order is decided field by field: sizes, mode and counts are far below 65536, so the
    order that gives the smaller number is the right one, whatever the machine stamp says (`mrcz`
    before 0.6 mixes the two within one header).

    Parameters
    ----------
    raw : bytes
        The file's first 1024 bytes, or fewer if it has fewer.
    path : path-like
        For messages.
    file_nbytes : int
        The file's length, against which sizes are checked.

    Returns
    -------
    Header

    Raises
    ------
    MrczError
        If this cannot be an MRC header: too short, impossible sizes, unknown mode, an extended
        header longer than the file.
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
    big = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(">"))[0]
    notes: list[str] = []

    order = _byte_order(little, big)
    record = little if order == "<" else big
    if _stamp_order(record["machst"]) not in (order, None):
        notes.append("the machine stamp names the other byte order than the sizes have")
    if record["map"] != b"MAP ":
        notes.append("no 'MAP ' at byte 208")
    nx, ny, nz = (int(n) for n in record["n"])
    if min(nx, ny, nz) < 1 or nx * ny > 2**40 or nz > _MOST_SECTIONS:
        raise MrczError(
            path,
            f"sizes of {nx} x {ny} x {nz} (NX NY NZ), which no movie has",
            offset=0,
            advice="The file is damaged or not an MRC file",
        )

    mode, mode_order = _smaller(little["mode"], big["mode"], order)
    if mode_order != order:
        notes.append("MODE is in the other byte order than the sizes (mrcz before 0.6 writes so)")
    codec, mode = divmod(mode, 1000)
    if mode not in DTYPE_OF_MODE or codec not in CODEC_NAMES:
        named = "complex int16, which is not supported" if mode == 3 and not codec else "unknown"
        raise MrczError(
            path,
            f"mode {mode + 1000 * codec}: pixel mode {mode} or codec {codec} is {named}",
            offset=12,
            advice="The file is damaged or not an MRC file",
        )

    nsymbt = int(record["nsymbt"])
    if nsymbt < 0 or HEADER_NBYTES + nsymbt > file_nbytes:
        raise MrczError(
            path,
            f"an extended header of {nsymbt} bytes (NSYMBT) in a file of {file_nbytes} bytes",
            offset=92,
            advice="The file is truncated or damaged",
        )

    labels = _labels(record["label"])
    old_mixed = order == ">" and (version := _version(labels)) is not None and version < (0, 6, 0)
    if old_mixed:
        notes.append("statistics and kV are little-endian, the rest is not (mrcz before 0.6)")
    numbers = little if old_mixed else record
    sampling = tuple(_smaller(a, b, order)[0] for a, b in zip(little["m"], big["m"], strict=True))
    if (version := _version(labels)) is not None and version < (0, 5, 0) and any(sampling):
        notes.append("MX MY MZ ignored: mrcz before 0.5 writes the sizes there")
        sampling = (0, 0, 0)
    if any(m < 0 or m > 2**24 for m in sampling):
        notes.append(f"MX MY MZ ignored: {sampling} cannot be a sampling")
        sampling = (0, 0, 0)
    axis_order = tuple(int(a) for a in record["map_crs"])
    if sorted(axis_order) != [1, 2, 3]:
        if any(axis_order):
            notes.append(f"MAPC MAPR MAPS are {axis_order}, taken as 1 2 3")
        axis_order = (1, 2, 3)
    elif axis_order != (1, 2, 3):
        names = " ".join("XYZ"[a - 1] for a in axis_order)
        notes.append(f"columns, rows, sections run along {names} (MAPC MAPR MAPS); shown as stored")
    cell = _floats(record["cell"])
    if any(c < 0 or 0 < c <= _SMALLEST_CELL or not np.isfinite(c) for c in cell):
        notes.append(f"the cell of {cell[0]:g} x {cell[1]:g} x {cell[2]:g} Å is no size: unknown")
    ispg = int(record["ispg"])
    if abs(ispg) > 10_000:
        notes.append(f"ISPG {ispg} taken as 0, an image stack")
        ispg = 0
    imod = int(record["imod_stamp"]) == _IMOD_STAMP

    return Header(
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        codec=codec,
        sampling=sampling,  # type: ignore[arg-type]
        cell=cell,
        angles=_floats(record["angles"]),
        origin=_floats(record["origin"]),
        axis_order=axis_order,  # type: ignore[arg-type]
        start=tuple(int(s) for s in record["nstart"]),  # type: ignore[arg-type]
        dmin=float(numbers["dmin"]),
        dmax=float(numbers["dmax"]),
        dmean=float(numbers["dmean"]),
        rms=float(record["rms"]),
        ispg=ispg,
        nsymbt=nsymbt,
        exttyp=_text(bytes(record["exttyp"])),
        nversion=int(record["nversion"]),
        voltage=_finite(numbers["voltage"]),
        c3=_finite(numbers["c3"]),
        gain=_finite(numbers["gain"]),
        packed_nbytes=_smaller(little["packed_nbytes"], big["packed_nbytes"], order)[0],
        labels=labels,
        byte_order=order,
        unsigned_bytes=imod and not int(record["imod_flags"]) & 1,
        pixel_size=_pixel_size(cell, sampling, (nx, ny, nz), codec),  # type: ignore[arg-type]
        notes=tuple(notes),
        raw=raw,
    )


def build_header(
    shape: tuple[int, int, int],
    mode: int,
    *,
    codec: int = 0,
    pixel_size: Triple = (0.0, 0.0, 0.0),
    volume: bool = False,
    sections_per_volume: int | None = None,
    statistics: tuple[float, float, float, float] | None = None,
    extended: tuple[str, int] = ("", 0),
    voltage: float = 0.0,
    c3: float = 0.0,
    gain: float = 0.0,
    origin: Triple = (0.0, 0.0, 0.0),
    packed_nbytes: int = 0,
    labels: Sequence[str] = (),
) -> bytes:
    """Make the 1024 bytes of a little-endian header.

    Compressed files follow `mrcz`: MZ is 0 ("one array"; other values would have `mrcz` cut the
    stack into a list) and the cell is the pixel size times NX, NY, NZ. Plain files follow MRC2014:
    MZ is 1 for an image stack, NZ for a volume.

    Parameters
    ----------
    shape : tuple of int
        Frames, rows, columns.
    mode, codec : int
        Pixel mode, and the codec's number (0 for none).
    pixel_size : tuple of float
        z, y, x in Å; 0.0 for unknown.
    volume : bool
        A volume (ISPG 1) rather than a stack of images (ISPG 0).
    sections_per_volume : int, optional
        Given for a stack of volumes (ISPG 401).
    statistics : tuple of float, optional
        Minimum, maximum, mean, standard deviation; None for not determined.
    extended : tuple of (str, int)
        Kind and length (bytes) of the extended header.
    voltage, c3, gain : float
        kV, mm, counts per electron; 0 for unknown.
    origin : tuple of float
        X, Y, Z in Å.
    packed_nbytes : int
        Length of all chunks.
    labels : sequence of str
        Up to 10, each cut at 80 bytes.

    Returns
    -------
    bytes
    """
    nz, ny, nx = shape
    record = np.zeros((), HEADER_DTYPE)
    record["n"] = nx, ny, nz
    record["mode"] = mode + 1000 * codec
    if sections_per_volume is not None:
        depth, record["ispg"] = sections_per_volume, 401
    elif volume:
        depth, record["ispg"] = (0 if codec else nz), 1
    else:
        depth, record["ispg"] = (0 if codec else 1), 0
    record["m"] = nx, ny, depth
    z, y, x = pixel_size
    # `mrcz` divides the cell by NZ, whatever MZ says: for compressed files the two must agree.
    record["cell"] = x * nx, y * ny, z * (nz if codec else depth)
    record["angles"] = 90.0
    record["map_crs"] = 1, 2, 3
    low, high, mean, rms = statistics if statistics else (0.0, -1.0, -2.0, -1.0)
    record["dmin"], record["dmax"], record["dmean"], record["rms"] = low, high, mean, rms
    record["exttyp"], record["nsymbt"] = extended[0].encode("latin-1"), extended[1]
    record["nversion"] = 20141
    record["voltage"], record["c3"], record["gain"] = voltage, c3, gain
    record["packed_nbytes"] = packed_nbytes
    record["origin"] = origin
    record["map"] = b"MAP "
    record["machst"] = 0x44, 0x44, 0, 0
    texts = [t for label in labels if (t := label.encode("ascii", "replace").strip())][:10]
    record["nlabl"] = len(texts)
    for i, text in enumerate(texts):
        record["label"][i] = text[:80]
    return record.tobytes()


def _byte_order(little: np.void, big: np.void) -> str:
    """Decide by the sizes: the wrong order makes them at least 65536 times larger."""
    volumes = [float(np.prod(r["n"].astype(np.float64).clip(-1))) for r in (little, big)]
    plausible = [v > 0 and (r["n"] > 0).all() for v, r in zip(volumes, (little, big), strict=True)]
    if plausible[0] != plausible[1]:
        return "<" if plausible[0] else ">"
    if volumes[0] != volumes[1]:
        return "<" if volumes[0] < volumes[1] else ">"
    return _stamp_order(little["machst"]) or "<"


def _stamp_order(stamp: npt.NDArray[np.uint8]) -> str | None:
    return {0x44: "<", 0x11: ">"}.get(int(stamp[0]))


def _smaller(little: Any, big: Any, order: str) -> tuple[int, str]:
    """Give the smaller of the two readings that is not negative, and its byte order."""
    readings = {"<": int(little), ">": int(big)}
    if readings["<"] == readings[">"]:
        return readings[order], order
    best = min(readings, key=lambda o: (readings[o] < 0, abs(readings[o])))
    return readings[best], best


def _labels(raw: npt.NDArray[np.bytes_]) -> tuple[str, ...]:
    texts = (_text(bytes(label)) for label in raw)
    return tuple(text for text in texts if text)


def _text(raw: bytes) -> str:
    """Decode ASCII, UTF-8 or Latin-1, whichever it is; never a reason to refuse a file."""
    raw = raw.split(b"\0", 1)[0]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.strip()


def _version(labels: tuple[str, ...]) -> tuple[int, int, int] | None:
    found = _MRCZ_LABEL.match(labels[0]) if labels else None
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _floats(values: npt.NDArray[np.float32]) -> Triple:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _pixel_size(
    cell: Triple, sampling: tuple[int, int, int], sizes: tuple[int, int, int], codec: int
) -> Triple:
    """Give the voxel size along Z, Y, X: the cell's length divided by MX, MY, MZ.

    Where those are 0 (as `mrcz` writes them), it is divided by NX, NY, NZ, and along Z in every
    compressed file: there MZ says how `mrcz` cuts the stack into a list. Rounded to the seven
    digits that the header's float32 holds.
    """
    told = sampling[0] > 0 and sampling[1] > 0
    along_z = 0 if codec else sampling[2]
    samples = [
        m if told and m > 0 else n for m, n in zip((*sampling[:2], along_z), sizes, strict=True)
    ]
    x, y, z = (
        float(f"{c / m:.7g}") if np.isfinite(c) and c > _SMALLEST_CELL else 0.0
        for c, m in zip(cell, samples, strict=True)
    )
    return z, y, x


def _finite(value: np.float32) -> float:
    """Give a microscope setting, or 0.0 for one that no microscope has."""
    number = float(value)
    return number if np.isfinite(number) and 1e-6 < abs(number) < 1e6 else 0.0
