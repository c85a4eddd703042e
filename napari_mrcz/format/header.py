"""The 1024-byte MRC header: MRC2014 with MRCZ's fields, and the pixel types of its modes.

`HEADER_DTYPE` is the layout, `Header` what it says. `parse_header` reads headers as real files have
them: in either byte order, or both mixed, and worse; what was unusual, and how it was understood,
is in the `notes`. Headers are written by `header_writing`.

Mode 101 packs two 4-bit pixels per byte, the even pixel in the low nibble, every row padded to a
whole byte (IMOD). MRCZ adds 7 (int32) and 8 (uint32), which plain MRC readers refuse. Sources:
MRC2014 (Cheng et al. 2015, doi:10.1016/j.jsb.2015.04.002) and MRCZ (McLeod et al. 2018,
doi:10.1016/j.jsb.2017.11.012).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError
from napari_mrcz.naming import TIFF_MAGIC, decoded_text, without_packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HEADER_NBYTES = 1024
# The largest extended header that is decoded or kept; real ones take a megabyte.
LARGEST_EXTENDED = 2**25

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
        ("creatid", "<i2"),  # 96: IMOD, the program that made the file
        ("extra1", "V6"),  # 98
        ("exttyp", "S4"),  # 104: kind of extended header
        ("nversion", "<i4"),  # 108: year x 10 + revision of the standard
        ("extra2", "V16"),  # 112
        ("nint", "<i2"),  # 128: integers (or bytes) a frame in the extended header
        ("nreal", "<i2"),  # 130: real numbers (or flags, SerialEM) a frame in it
        ("voltage", "<f4"),  # 132: MRCZ, kV
        ("c3", "<f4"),  # 136: MRCZ, spherical aberration, mm
        ("gain", "<f4"),  # 140: MRCZ, counts per electron
        ("packed_nbytes", "<i8"),  # 144: MRCZ, length of all chunks; advisory
        ("imod_stamp", "<i4"),  # 152: 1146047817 where IMOD wrote it
        ("imod_flags", "<i4"),  # 156: bit 0 set: mode 0 is signed
        ("idtype", "<i2"),  # 160: IMOD, kind of tilt series
        ("lens", "<i2"),  # 162
        ("nd1", "<i2"),  # 164: tilt axis, 1 X, 2 Y, 3 Z
        ("nd2", "<i2"),  # 166
        ("vd1", "<i2"),  # 168: tilt increment x 100
        ("vd2", "<i2"),  # 170: first tilt angle x 100
        ("tiltangles", "<f4", 6),  # 172: rotation of a volume, original and current
        ("origin", "<f4", 3),  # 196: origin X Y Z, angstrom
        ("map", "S4"),  # 208: b"MAP "
        ("machst", "u1", 4),  # 212: machine stamp, 0x44 0x44 little, 0x11 0x11 big
        ("rms", "<f4"),  # 216: standard deviation; negative means not determined
        ("nlabl", "<i4"),  # 220: labels in use
        ("label", "S80", 10),  # 224
    ]
)

# The codecs that are written, with their numbers in MODE; and the names of all numbers.
CODECS = {"zstd": 6, "lz4": 2, "lz4hc": 3, "zlib": 5, "blosclz": 1}
CODEC_NAMES = {
    **{code: f"codec {code} of blosc2" for code in range(7, 16)},
    **{number: name for name, number in CODECS.items()},
    0: "none",
    4: "snappy",
}

# Words of other programs, none of which the standard defines: kept, and shown where they are set.
EXTRA_WORDS = (
    *("creatid", "extra1", "extra2", "nint", "nreal", "imod_stamp", "imod_flags"),
    *("idtype", "lens", "nd1", "nd2", "vd1", "vd2", "tiltangles"),
)

# Of IMOD's flags, which count where its stamp is: bytes are signed.
IMOD_STAMP, SIGNED = 1146047817, 1
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
_MRCZ_LABEL = re.compile(r"MRCZ\s*(\d+)\.(\d+)\.(\d+)")
SPACE_GROUPS, VOLUME_STACKS = range(231), range(401, 631)
"""Of ISPG: 0 for images, 1 for a volume, a crystal's group; stacks of volumes."""
SMALLEST_PIXEL, LARGEST_PIXEL = 1e-3, 1e6
"""In Å. Atoms are 1 Å apart; nobody records a movie with pixels of a tenth of a millimetre."""
# The label of IMOD's program `tilt`, which later programs keep.
_TOMOGRAM = "tomographic reconstruction"

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Header:
    """An MRC header, its fields by name and what follows from them.

    Fields can be read as attributes or by name (``header["voltage"]``, ``dict(header)``). Triples
    are in the header's own order X, Y, Z; `shape` and `pixel_size` are in numpy's, z, y, x.
    """

    nx: int  # Columns, rows and sections; `nz` counts the frames that exist
    ny: int
    nz: int
    # Pixel mode without the codec: 0 int8, 1 int16, 2 float32, 4 complex64, 6 uint16, 7 int32, 8
    # uint32, 12 float16, 101 4-bit.
    mode: int
    codec: int  # Blosc codec that MODE names, 0 for uncompressed; advisory, each chunk says its own
    sampling: tuple[int, int, int]  # MX, MY, MZ; 0 where the file does not tell
    cell: Triple  # Cell lengths (Å), cell angles (degrees), origin (Å)
    angles: Triple
    origin: Triple
    axis_order: tuple[int, int, int]  # MAPC, MAPR, MAPS: 1 X, 2 Y, 3 Z
    # First column, row and section within a larger image (NXSTART, NYSTART, NZSTART), in pixels.
    start: tuple[int, int, int]
    dmin: float  # Statistics as the file states them
    dmax: float
    dmean: float
    rms: float
    ispg: int  # 0 image stack, 1 volume, 401 stack of volumes
    nsymbt: int  # Length (bytes) and kind of the extended header
    exttyp: str
    nversion: int  # Year of the MRC standard times 10, and its revision
    # Acceleration voltage (kV), spherical aberration (mm), counts per electron; 0 if unknown.
    voltage: float
    c3: float
    gain: float
    packed_nbytes: int  # Length of all compressed frames in bytes, as stated; advisory
    labels: tuple[str, ...]  # Text labels
    byte_order: str  # "<" or ">"
    unsigned_bytes: bool  # Mode 0 holds unsigned pixels (IMOD's flag)
    pixel_size: Triple  # Voxel size along Z, Y and X in Å; 0.0 where the file does not say
    # Sections are slices of a volume (or of several), not frames of a movie: see `holds_volume`.
    is_volume: bool
    # Words of other programs that are set, such as IMOD's and SerialEM's, by `EXTRA_WORDS`.
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()  # What was unusual about the header, and how it was understood
    raw: bytes = field(default=b"", repr=False)  # The 1024 bytes; not among the fields by name

    def __getitem__(self, name: str) -> Any:
        """Return one field by its name; KeyError if there is none."""
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the fields."""
        return iter(self.keys())

    def keys(self) -> tuple[str, ...]:
        """Return the names of the fields."""
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
    def mrcz_version(self) -> tuple[int, int, int] | None:
        """Version of the MRCZ library that wrote the file, where label 0 names it."""
        return mrcz_version(self.labels)

    @property
    def scale(self) -> Triple:
        """`pixel_size` along the array's axes (sections, rows, columns), as MAPC MAPR MAPS say."""
        return along_axes(self.pixel_size, self.axis_order)


def parse_header(raw: bytes, path: AnyPath) -> Header:
    """Read a header as real files have it.

    The byte order is decided field by field: sizes, mode and counts are far below 65536, so the
    order that gives the smaller number is the right one, whatever the machine stamp says (`mrcz`
    before 0.6 mixes the two within one header).

    `raw`: the file's first 1024 bytes, or fewer if it has fewer; `path`: for messages, and for the
    suffix. NSYMBT, the codec and NZ are as stated: only the rest of the file shows whether they are
    true. Raise `MrczError` if this cannot be an MRC header: too short, impossible sizes, unknown
    mode.
    """
    if len(raw) < HEADER_NBYTES:
        found = f"only {len(raw)} bytes, where an MRC header alone takes {HEADER_NBYTES}"
        advice = "The file is empty, truncated or of another format"
        raise MrczError(path, found, offset=len(raw), advice=advice)
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
    ispg = _space_group(both)
    return Header(
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        codec=codec,
        sampling=sampling,
        cell=cell,
        angles=_three(record["angles"]),
        origin=_three(record["origin"]),
        axis_order=_axis_order(both),
        start=_three(record["nstart"]),
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
        unsigned_bytes=has_unsigned_bytes(record),
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
    path: AnyPath
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
    nx, ny, nz = _three(both.record["n"])
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
    axes = _three(both.record["map_crs"])
    if sorted(axes) != [1, 2, 3]:
        if any(axes):
            both.note(f"MAPC MAPR MAPS are {axes}, taken as 1 2 3")
        return 1, 2, 3
    if axes != (1, 2, 3):
        names = " ".join("XYZ"[axis - 1] for axis in axes)
        both.note(f"columns, rows, sections run along {names} (MAPC MAPR MAPS); shown as stored")
    return axes


def _cell(both: _BothOrders) -> Triple:
    cell = _three(both.record["cell"])
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


def has_unsigned_bytes(record: Any) -> bool:
    """Return whether a header says by IMOD's flag that bytes are unsigned."""
    return bool(record["imod_stamp"] == IMOD_STAMP and not int(record["imod_flags"]) & SIGNED)


def labels_of(record: Any) -> list[tuple[str, bytes]]:
    """Return the labels that have text, and their bytes."""
    labels = filter(None, record["label"].tolist())
    texts = [(decoded_text(raw.split(b"\0", 1)[0]).strip(), raw) for raw in labels]
    return [(text, raw) for text, raw in texts if text]


def _three(values: npt.NDArray[Any]) -> tuple[Any, Any, Any]:
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


def header_dtype(byte_order: str) -> np.dtype[np.void]:
    """Return the layout of a header in this byte order."""
    return HEADER_DTYPE if byte_order == "<" else HEADER_DTYPE.newbyteorder(">")


def holds_volume(
    ispg: int, depth: int, shape: tuple[int, int, int], path: AnyPath, labels: Sequence[str] = ()
) -> bool:
    """Decide whether sections are slices of a volume or frames of a movie.

    By MRC2014 the space group says so: 0 a stack of images, 1 a volume, 2 to 230 a crystal's map,
    401 to 630 a stack of volumes. Many programs write 0 for everything, and MZ = NZ for volumes as
    well as for movies. With both, it is a volume if it is a cube, if it is named `.rec`, or if a
    label says that IMOD's `tilt` reconstructed it; anything else is a movie.

    `ispg`, `depth`: ISPG and MZ; `shape`: sections, rows, columns; `path`: the file, for its
    suffix; `labels`: the header's.
    """
    if ispg:
        return ispg in SPACE_GROUPS or ispg in VOLUME_STACKS
    if shape[0] < 2 or depth != shape[0]:
        return False
    return (
        len(set(shape)) == 1
        or without_packing(Path(path)).suffix.lower() == ".rec"
        or any(_TOMOGRAM in label.lower() for label in labels)
    )


def along_axes(pixel_size: Triple, axis_order: tuple[int, int, int]) -> Triple:
    """Return sizes along Z, Y, X as sizes along sections, rows, columns (MAPC MAPR MAPS)."""
    by_axis = dict(zip((3, 2, 1), pixel_size, strict=True))
    column, row, section = axis_order
    return by_axis[section], by_axis[row], by_axis[column]


def mrcz_version(labels: tuple[str, ...]) -> tuple[int, int, int] | None:
    """Return the version of the MRCZ library that label 0 names."""
    found = _MRCZ_LABEL.match(labels[0]) if labels else None
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


FOUR_BIT = 101

_NAMES = {0: "int8", 1: "int16", 2: "float32", 4: "complex64", 6: "uint16", 7: "int32", 8: "uint32",
          12: "float16", FOUR_BIT: "uint8"}  # fmt: skip
DTYPE_OF_MODE: dict[int, np.dtype[Any]] = {mode: np.dtype(name) for mode, name in _NAMES.items()}

MODE_OF_DTYPE: dict[np.dtype[Any], int] = {
    dtype: mode for mode, dtype in DTYPE_OF_MODE.items() if mode != FOUR_BIT
}

# What a dtype that no mode holds becomes. uint8 fits mode 0 as long as its values do (the writer
# widens it to uint16 when they do not); 64 bits are narrowed only where every value survives.
_NARROWED = {"bool": "int8", "uint8": "int8", "int64": "int32", "uint64": "uint32",
             "float64": "float32", "complex128": "complex64"}  # fmt: skip
_STORED_AS = {np.dtype(given): np.dtype(stored) for given, stored in _NARROWED.items()}

DTYPE_OF_NAME = {dtype.name: dtype for dtype in (*MODE_OF_DTYPE, *_STORED_AS)}


def storage_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the dtype in which frames of `dtype` are stored.

    `dtype`: pixel type of the array to be written, of either byte order. The result is in native
    order. Raise `TypeError` if no mode can hold such pixels (text, objects, structured types,
    extended precision).
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native in MODE_OF_DTYPE:
        return native
    try:
        return _STORED_AS[native]
    except KeyError:
        raise TypeError(f"no MRC mode holds pixels of type {native}") from None


def frame_nbytes(mode: int, shape: tuple[int, int]) -> int:
    """Return the bytes that one frame of `shape` (y, x) takes on disk, uncompressed."""
    rows, columns = shape
    if mode == FOUR_BIT:
        return rows * ((columns + 1) // 2)
    return rows * columns * DTYPE_OF_MODE[mode].itemsize


def unpack_four_bit(packed: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Unpack rows of 4-bit pixels.

    `packed`: rows as stored, each padded to a whole byte; `columns`: pixels in a row. The values
    are 0 to 15.
    """
    pixels = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.uint8)
    np.bitwise_and(packed, 0x0F, out=pixels[..., 0::2])
    np.right_shift(packed, 4, out=pixels[..., 1::2])
    return np.ascontiguousarray(pixels[..., :columns])


def pack_four_bit(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pack pixels of 0 to 15 into rows of 4 bits each; the inverse of `unpack_four_bit`.

    `pixels`: values 0 to 15; larger ones are the caller's mistake and would spill over. The last
    byte's high nibble is 0 where x is odd.
    """
    packed = pixels[..., 0::2].copy()
    packed[..., : pixels.shape[-1] // 2] |= pixels[..., 1::2] << 4
    return packed
