"""Extended headers: what programs write between the header and the frames, decoded frame by frame.

JSON is MRCZ's way. FEI1 and FEI2 have a record of named fields for each frame, AGAR (Agard's, and
FEI's before FEI1) a row of numbers, SERI (SerialEM's) a few short integers. CCP4 and MRCO hold the
text of symmetry operators.

References: the FEI specification by `mrcfile.dtypes`; IMOD's description of the format,
https://bio3d.colorado.edu/imod/doc/mrc_format.txt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from napari_mrcz.format.footer import decode_json
from napari_mrcz.format.header import LARGEST_PIXEL, SMALLEST_PIXEL

# One record describes one frame; a file with more of them than this is not a movie.
_MOST_RECORDS = 2**11

_FEI = ("FEI1", "FEI2")
_SYMMETRY = ("CCP4", "MRCO")
_SYMMETRY_LINE = 80

# FEI's extended headers before FEI1: 1024 records of 32 float32, of which these have names.
_OLD_FEI_NAMES = (
    "a_tilt b_tilt x_stage y_stage z_stage x_shift y_shift defocus exp_time mean_int tilt_axis "
    "pixel_size magnification ht binning applied_defocus"
).split()
_OLD_FEI_REALS = 32

# JSON whose end is looked for; longer one is not found.
_LONGEST_SCAN = 2**18

_METRE, _KILOVOLT = 1e10, 1e-3
_LOWEST_VOLTAGE, _HIGHEST_VOLTAGE = 1.0, 5000.0


@dataclass(frozen=True)
class ExtendedHeader:
    """An extended header, with all that is needed to decode it."""

    kind: str  # EXTTYP; empty in old files
    data: bytes  # Its bytes, as they are
    # Frames of the file that it was written for; 0 where that is not known, -1 where they are in
    # another order now.
    frames: int = 0
    byte_order: str = "<"  # "<" or ">", that file's
    # NINT and NREAL of that file: by these, SerialEM and Agard say what each frame's record has.
    layout: tuple[int, int] = (0, 0)

    @classmethod
    def from_map(cls, kept: Any) -> ExtendedHeader | None:
        """Return what `as_map` made a map of; None of anything else."""
        if not isinstance(kept, Mapping) or not isinstance(kept.get("data"), bytes):
            return None
        frames, layout = kept.get("frames"), kept.get("layout")
        if not (isinstance(layout, list) and len(layout) == 2 and all(map(_is_short, layout))):
            layout = (0, 0)
        return cls(
            str(kept.get("kind", ""))[:4],
            kept["data"],
            frames if isinstance(frames, int) else 0,
            ">" if kept.get("order") == ">" else "<",
            (layout[0], layout[1]),
        )

    def as_map(self) -> dict[str, Any]:
        """Return it as a map for the footer."""
        return {
            "kind": self.kind,
            "data": self.data,
            "frames": self.frames,
            "order": self.byte_order,
            "layout": list(self.layout),
        }

    def describes(self, frames: int) -> bool:
        """Return whether it is of so many frames; text is of any number."""
        return self.decoded_as in _SYMMETRY or self.frames in (0, frames)

    def belongs_to(self, frames: int) -> bool:
        """Return whether a file of so many frames, written by this program, can have it as its own.

        The numbers in it have to be in the byte order of that file, which is little-endian.
        """
        return self.describes(frames) and (self.byte_order == "<" or self.decoded_as in _SYMMETRY)

    @property
    def decoded_as(self) -> str:
        """EXTTYP, or the kind that a header without one must have; empty if that is not known."""
        if kind := self.kind.strip("\0 "):
            return kind
        # As IMOD decides it.
        if _serial_em_fields(self.layout):
            return "SERI"
        if not len(self.data) % _SYMMETRY_LINE and self.data and _is_text(self.data):
            return "CCP4"
        row = 4 * sum(self.layout)
        if min(self.layout) >= 0 and 0 < row * max(1, self.frames) <= len(self.data):
            return "AGAR"
        return "AGAR" if len(self.data) == 1024 * 4 * _OLD_FEI_REALS else ""

    @cached_property
    def decoded(self) -> Any:
        """It decoded; None if its kind is not known.

        That is the map of "json"; a list with one map for each frame, of FEI1 and FEI2 in the
        units of their specification (SI), of SERI in degrees, pixels, µm and e⁻/Å² by the names
        that SerialEM has for them in .mdoc files, of AGAR by FEI's names (SI); or the lines of
        symmetry operators. Raise `ValueError` if it is of a known kind but cannot be decoded; says
        why.
        """
        kind = self.decoded_as
        if kind == "json":
            return decode_json(self.data)
        if kind in _FEI:
            return _decode_fei(kind, self.data, self.byte_order)
        if kind == "SERI":
            return self._decode_serial_em()
        if kind == "AGAR":
            return self._decode_agard() or None
        if kind in _SYMMETRY and _is_text(self.data):
            text = self.data.decode("ascii")
            lines = (text[at : at + _SYMMETRY_LINE] for at in range(0, len(text), _SYMMETRY_LINE))
            return [line.strip("\0 ") for line in lines]
        return None

    def _count(self, record_nbytes: int) -> int:
        """Return the number of records: one for each frame, or as many as there are."""
        there = len(self.data) // record_nbytes
        return min(there, self.frames if self.frames > 0 else there, _MOST_RECORDS)

    def _decode_serial_em(self) -> list[dict[str, Any]] | None:
        fields, nbytes = _serial_em_fields(self.layout), self.layout[0]
        if not fields:
            return None
        count = self._count(nbytes)
        shorts = np.frombuffer(self.data, f"{self.byte_order}i2", count * nbytes // 2)
        rows = shorts.reshape(count, nbytes // 2).tolist()
        return [_serial_em_record(row, fields) for row in rows]

    def _decode_agard(self) -> list[dict[str, Any]]:
        integers, reals = self.layout if min(self.layout) >= 0 else (0, 0)
        if not integers and not reals:
            reals = _OLD_FEI_REALS
        count, row = self._count(4 * (integers + reals)), integers + reals
        words = np.frombuffer(self.data, f"{self.byte_order}u4", count * row).reshape(count, row)
        whole = words[:, :integers].astype(np.uint32).view(np.int32)
        real = np.ascontiguousarray(words[:, integers:]).view(f"{self.byte_order}f4")
        if not integers and reals == _OLD_FEI_REALS:
            names = _OLD_FEI_NAMES
            return [dict(zip(names, map(_short, line), strict=False)) for line in real.tolist()]
        return [
            {"integers": i, "reals": [_short(value) for value in r]}
            for i, r in zip(whole.tolist(), real.tolist(), strict=True)
        ]


def record_nbytes(kind: str, layout: tuple[int, int], head: bytes, byte_order: str) -> int:
    """Return how many bytes an extended header of this kind takes for each frame; 0 if unknown.

    `kind`: EXTTYP; `layout`: NINT and NREAL; `head`: what would be its first bytes; `byte_order`:
    "<" or ">".
    """
    if kind in _FEI and len(head) >= 4:
        stated = int(np.frombuffer(head, f"{byte_order}i4", 1)[0])
        dtype = _fei_dtype(kind, byte_order)
        return stated if dtype.itemsize <= stated < 2 * dtype.itemsize else 0
    if kind == "SERI":
        return layout[0] if _serial_em_fields(layout) else 0
    if kind == "AGAR" and min(layout) >= 0:
        return 4 * sum(layout)
    return 0


def json_nbytes(head: bytes) -> int | None:
    """Return the length of the JSON map at the beginning."""
    if not head.startswith(b"{"):
        return None
    text = head[:_LONGEST_SCAN].decode("latin-1")  # a letter for each byte
    try:
        return json.JSONDecoder(strict=False).raw_decode(text)[1]
    except (ValueError, RecursionError):
        return None


def microscope_settings(kind: str, content: Any) -> tuple[tuple[float, float] | None, float]:
    """Return the pixel size (y, x) in Å and the voltage in kV that the first record has.

    None and 0.0 where it has none, or none that a microscope can have.
    """
    record = content[0] if isinstance(content, list) and content else None
    if not isinstance(record, dict):
        return None, 0.0
    names = ("Pixel size Y", "Pixel size X") if kind in _FEI else ("pixel_size", "pixel_size")
    y, x = (float(f"{float(record.get(name, 0.0)) * _METRE:.6g}") for name in names)
    voltage = float(record.get("HT" if kind in _FEI else "ht", 0.0)) * _KILOVOLT
    known = all(SMALLEST_PIXEL <= size <= LARGEST_PIXEL for size in (y, x))
    believable = _LOWEST_VOLTAGE <= voltage <= _HIGHEST_VOLTAGE
    return (y, x) if known else None, float(f"{voltage:.6g}") if believable else 0.0


def _fei_dtype(kind: str, byte_order: str) -> Any:
    import mrcfile.dtypes  # slow to import, and few files need it

    return mrcfile.dtypes.get_ext_header_dtype(kind.encode("ascii"), byte_order)


def _decode_fei(kind: str, raw: bytes, byte_order: str) -> list[dict[str, Any]]:
    dtype = _fei_dtype(kind, byte_order)
    if len(raw) < dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes, where one {kind} record takes {dtype.itemsize}")
    # Records may be longer than the layout known here; each states its own length.
    stated = int(np.frombuffer(raw, f"{byte_order}i4", 1)[0])
    step = stated if dtype.itemsize <= stated <= len(raw) else dtype.itemsize
    count = min((len(raw) - dtype.itemsize) // step + 1, _MOST_RECORDS)
    records = np.ndarray(count, dtype, raw, strides=step)
    padding = np.flatnonzero(records["Metadata size"] != stated)
    whole = records[: padding[0]] if padding.size else records
    return [dict(zip(dtype.names, map(_plain, record), strict=True)) for record in whole.tolist()]


def _float_of_two_shorts(mantissa: int, exponent: int) -> float:
    """Return the number that SerialEM stores in two 16-bit integers."""
    whole, fraction = divmod(abs(exponent), 256)
    value = (abs(mantissa) * 256 + fraction) * 2.0 ** (whole if exponent >= 0 else -whole)
    return float(f"{-value if mantissa < 0 else value:.6g}")


# Name as in SerialEM's .mdoc files, 16-bit integers taken, how to decode these.
_SerialField = tuple[str, int, Callable[..., Any]]
# By its flags in NREAL. What the format reserves has no name and is skipped.
_SERIAL_EM: dict[int, _SerialField] = {
    1: ("TiltAngle", 1, lambda angle: angle / 100),
    # Large montages go beyond 32767.
    2: ("PieceCoordinates", 3, lambda *places: [place & 0xFFFF for place in places]),
    4: ("StagePosition", 2, lambda *places: [place / 25 for place in places]),
    8: ("Magnification", 1, lambda hundreds: hundreds * 100),
    16: ("Intensity", 1, lambda intensity: intensity / 25_000),
    32: ("ExposureDose", 2, _float_of_two_shorts),
    **{64: ("", 1, tuple), 128: ("", 2, tuple), 256: ("", 1, tuple)},
    **{512: ("", 2, tuple), 1024: ("", 1, tuple)},
}


def _serial_em_fields(layout: tuple[int, int]) -> list[_SerialField]:
    """Return the fields of SerialEM's records; none of other programs'.

    The bytes that the flags imply must add up to those that are stated: otherwise the two numbers
    count integers and real numbers, as in Agard's headers.
    """
    nbytes, flags = layout
    if flags <= 0 or flags >= 2 * max(_SERIAL_EM):
        return []
    fields = [field for flag, field in _SERIAL_EM.items() if flags & flag]
    return fields if 2 * sum(size for _, size, _ in fields) == nbytes else []


def _serial_em_record(row: list[int], fields: list[_SerialField]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    at = 0
    for name, size, decode in fields:
        if name:
            record[name] = decode(*row[at : at + size])
        at += size
    return record


def _short(value: float) -> float:
    """Return a float32 with the digits that it has: 0.3 rather than 0.30000001192092896."""
    return float(f"{value:.7g}")


def _is_text(raw: bytes) -> bool:
    return all(32 <= byte < 127 or byte == 0 for byte in raw[: 100 * _SYMMETRY_LINE])


def _is_short(value: Any) -> bool:
    return isinstance(value, int) and -(2**15) <= value < 2**15


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.split(b"\0", 1)[0].decode("latin-1").strip()
    return value
