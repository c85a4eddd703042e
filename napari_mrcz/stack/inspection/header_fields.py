"""What the fields of an MRC header are called and mean, with their units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mrcz.format.header import CODEC_NAMES
from napari_mrcz.stack.inspection.entries import Entry, entry_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_mrcz.format import Header

# Of each field of `Header`: its name in MRC2014 or MRCZ, its unit, its meaning.
_FIELDS = {
    "nx": ("NX", "pixels", "Columns of a frame"),
    "ny": ("NY", "pixels", "Rows of a frame"),
    "nz": ("NZ", "", "Frames of a movie or sections of a volume that are there"),
    "mode": ("MODE", "", "Pixel type, and 1000 times the codec by which frames are compressed"),
    "start": ("NXSTART…", "pixels", "First column, row and section within a larger image"),
    "sampling": ("MX MY MZ", "", "Samples along the cell: it is as many pixels long; 0: not told"),
    "cell": ("cell xyz", "Å", "Lengths along X, Y, Z; divided by MX MY MZ: the pixel size"),
    "pixel_size": ("pixel size zyx", "Å", "Along Z, Y and X; 0 where the file does not tell"),
    "angles": ("cell angles", "°", "Alpha, beta, gamma; 90 for all that is no crystal"),
    "axis_order": ("MAPC MAPR MAPS", "", "Axes of columns, rows and sections: 1 X, 2 Y, 3 Z"),
    "dmin": ("DMIN", "", "Smallest pixel, as the file states it; above DMAX: not determined"),
    "dmax": ("DMAX", "", "Largest pixel, as the file states it"),
    "dmean": ("DMEAN", "", "Mean of all pixels, as the file states it"),
    "rms": ("RMS", "", "Standard deviation of all pixels, as stated; negative: not determined"),
    "ispg": ("ISPG", "", "Space group: 0 stack of images, 1 volume, 401 stack of volumes"),
    "nsymbt": ("NSYMBT", "bytes", "Length of the extended header"),
    "exttyp": ("EXTTYP", "", "Kind of the extended header, such as json or FEI1"),
    "nversion": ("NVERSION", "", "Year of the MRC standard times 10, and its revision"),
    "voltage": ("voltage", "kV", "Acceleration voltage"),
    "c3": ("C3 (Cs)", "mm", "Spherical aberration of the objective"),
    "gain": ("gain", "counts/e⁻", "Counts of the detector for one electron"),
    "packed_nbytes": ("packed bytes", "bytes", "Length of all compressed frames, as stated"),
    "origin": ("ORIGIN xyz", "Å", "Origin of X, Y, Z"),
    "byte_order": ("byte order", "", "Which byte of a number comes first, as the sizes show"),
    "unsigned_bytes": ("IMOD flag", "", "Whether bytes of mode 0 are unsigned, by IMOD's flag"),
    "is_volume": ("volume", "", "Sections of a volume, by ISPG, MZ, shape and name; else frames"),
    "extra": ("EXTRA", "", "Words of other programs, such as IMOD's and SerialEM's"),
    "labels": ("labels", "", "Lines of text that programs left"),
}
_ZERO_IS_UNKNOWN = ("voltage", "c3", "gain")
_ORDERS = {"<": "little-endian", ">": "big-endian"}
_GROUPS = {0: "stack of images", 1: "volume", 401: "stack of volumes"}


def header_entries(header: Header) -> Iterator[Entry]:
    """Return the fields of a header, in the order in which they lie in it."""
    for field, (name, unit, meaning) in _FIELDS.items():
        if field == "labels":
            lines = tuple(Entry(str(at), text) for at, text in enumerate(header.labels))
            yield Entry(name, f"{len(lines)} of 10", unit, meaning, lines)
        elif field == "extra":
            words = tuple(entry_of(word.upper(), value) for word, value in header.extra.items())
            yield Entry(name, f"{len(words)} set" if words else "nothing", unit, meaning, words)
        else:
            value = _value(header, field)
            yield Entry(name, value, "" if value == "unknown" else unit, meaning)


def _value(header: Header, field: str) -> str:
    value = header[field]
    if field == "mode":
        codec = CODEC_NAMES[header.codec]
        stored = "4 bits" if value == 101 else str(header.dtype)
        return f"{value + 1000 * header.codec} ({stored}, {codec})".replace(", none", "")
    if field in _ZERO_IS_UNKNOWN and not value:
        return "unknown"
    if field == "ispg":
        return f"{value} ({_GROUPS[value]})" if value in _GROUPS else str(value)
    if field == "byte_order":
        return _ORDERS[value]
    if isinstance(value, bool):
        names = ("movie", "volume") if field == "is_volume" else ("not set", "unsigned")
        return names[value]
    if isinstance(value, tuple):
        return _joined(value)
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _joined(values: Iterable[float]) -> str:
    return "  ".join(f"{value:.7g}" for value in values)
