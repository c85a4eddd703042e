"""The 1024-byte MRC header: MRC2014 with MRCZ's fields, and the pixel types of its modes.

`HEADER_DTYPE` is the layout, `Header` what it says; `header_reading` makes one of the other,
`header_writing` the bytes that peers agree with. Mode 101 packs two 4-bit pixels a byte, the even
pixel in the low nibble, every row padded to a whole byte (IMOD). MRCZ adds 7 (int32) and 8
(uint32), which plain MRC readers refuse. Sources: MRC2014 (Cheng et al. 2015,
doi:10.1016/j.jsb.2015.04.002) and MRCZ (McLeod et al. 2018, doi:10.1016/j.jsb.2017.11.012).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.naming import without_packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

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

_MRCZ_LABEL = re.compile(r"MRCZ\s*(\d+)\.(\d+)\.(\d+)")
SPACE_GROUPS, VOLUME_STACKS = range(231), range(401, 631)
"""Of ISPG: 0 for images, 1 for a volume, a crystal's group; stacks of volumes."""
SMALLEST_PIXEL, LARGEST_PIXEL = 1e-3, 1e6
"""In Å. Atoms are 1 Å apart; nobody records a movie with pixels of a tenth of a millimetre."""
# The label of IMOD's program `tilt`, which stays with what is made of its result.
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
    # The 1024 bytes themselves; not among the fields by name.
    raw: bytes = field(default=b"", repr=False)

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
    def is_volume_stack(self) -> bool:
        """The space group is that of a stack of volumes."""
        return self.ispg in VOLUME_STACKS

    @property
    def mrcz_version(self) -> tuple[int, int, int] | None:
        """Version of the MRCZ library that wrote the file, where label 0 names it."""
        return mrcz_version(self.labels)

    @property
    def scale(self) -> Triple:
        """`pixel_size` along the array's axes (sections, rows, columns), as MAPC MAPR MAPS say."""
        return along_axes(self.pixel_size, self.axis_order)


def header_dtype(byte_order: str) -> np.dtype[np.void]:
    """Return the layout of a header in this byte order."""
    return HEADER_DTYPE if byte_order == "<" else HEADER_DTYPE.newbyteorder(">")


def holds_volume(
    ispg: int,
    depth: int,
    shape: tuple[int, int, int],
    path: str | PathLike[str],
    labels: Sequence[str] = (),
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

DTYPE_OF_MODE: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.int8),
    1: np.dtype(np.int16),
    2: np.dtype(np.float32),
    4: np.dtype(np.complex64),
    6: np.dtype(np.uint16),
    7: np.dtype(np.int32),
    8: np.dtype(np.uint32),
    12: np.dtype(np.float16),
    FOUR_BIT: np.dtype(np.uint8),
}

MODE_OF_DTYPE: dict[np.dtype[Any], int] = {
    dtype: mode for mode, dtype in DTYPE_OF_MODE.items() if mode != FOUR_BIT
}

# What a dtype that no mode holds becomes. uint8 fits mode 0 as long as its values do (the writer
# widens it to uint16 when they do not); 64 bits are narrowed only where every value survives.
_STORED_AS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.bool_): np.dtype(np.int8),
    np.dtype(np.uint8): np.dtype(np.int8),
    np.dtype(np.int64): np.dtype(np.int32),
    np.dtype(np.uint64): np.dtype(np.uint32),
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.complex64),
}

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
