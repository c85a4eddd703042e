"""What a file or stack contains, in words: for the inspector, a terminal and a notebook.

Header fields, metadata and history are a tree of plain entries: the metadata inspector shows it in
napari, ``napari-mrcz info`` on a terminal. A notebook shows a stack as HTML: a thumbnail of its sum
beside a table.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, size_text
from napari_mrcz.format.header import CODEC_NAMES
from napari_mrcz.naming import path_of
from napari_mrcz.stack.sources import uncorrected

if TYPE_CHECKING:
    from napari_mrcz.format import Header
    from napari_mrcz.stack.stack import Stack

# Lists of plain values up to this long are one line; of longer ones the beginning is shown.
_LONGEST_LINE = 16
_PLAIN = (str, int, float, complex, bool, type(None), np.generic)
# Pixels that are read for a thumbnail, which is as large as this along its longer side.
_READ, _SIDE = 2**28, 256
# Of the histogram, in per cent, what is black and what is white.
_BLACK, _WHITE = 1, 99


@dataclass(frozen=True)
class Entry:
    """One line of the tree, and those below it."""

    name: str  # As shown; `unit` is empty for what has none
    value: str = ""
    unit: str = ""
    meaning: str = ""  # One line on what it is; may be empty
    children: tuple[Entry, ...] = ()  # What it consists of
    folded: bool = False  # Whether these are hidden at first

    @property
    def text(self) -> str:
        """Value and unit."""
        return f"{self.value} {self.unit}".strip()


def entries_of(values: Mapping[Any, Any]) -> tuple[Entry, ...]:
    """Return an entry for each item of a map, nested as it is."""
    return tuple(entry_of(str(name), value) for name, value in values.items())


def entry_of(name: str, value: Any) -> Entry:
    """Return the entry of one value: of maps and lists what is in them, of arrays what they are."""
    if isinstance(value, Mapping):
        return Entry(name, _n_entries(value), children=entries_of(value))
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= _LONGEST_LINE:
        value = value.tolist()
    if isinstance(value, np.ndarray):
        shape = " × ".join(map(str, value.shape))
        return Entry(name, f"array of {shape}, {value.dtype}")
    if isinstance(value, bytes | bytearray):
        return Entry(name, f"{size_text(len(value))}, not text")
    if isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(item, _PLAIN) for item in value):
            return Entry(name, _line(value))
        children = tuple(entry_of(str(at), item) for at, item in enumerate(value))
        return Entry(name, _n_entries(value), children=children)
    return Entry(name, _text(value))


def matching(entries: Iterable[Entry], words: str) -> tuple[Entry, ...]:
    """Return the entries in which every word is found, each with what leads to it.

    Words may be in an entry itself or in what it belongs to; what is below a match is kept.
    """
    found = []
    for entry in entries:
        said = f"{entry.name}\n{entry.value}\n{entry.unit}\n{entry.meaning}".lower()
        left = " ".join(word for word in words.lower().split() if word not in said)
        if not left:
            found.append(entry)
        elif children := matching(entry.children, left):
            found.append(replace(entry, children=children))
    return tuple(found)


def _line(values: Sequence[Any]) -> str:
    line = ", ".join(map(_text, values[:_LONGEST_LINE]))
    if len(values) > _LONGEST_LINE:
        line += f", … ({len(values)} in all)"
    return line or "none"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.7g}"
    return str(value)


def _n_entries(values: Sized) -> str:
    return "1 entry" if len(values) == 1 else f"{len(values)} entries"


# Of each field of `Header`: its name in MRC2014 or MRCZ, its unit, its meaning.
_FIELDS = {
    "nx": ("NX", "pixels", "Columns of a frame"),
    "ny": ("NY", "pixels", "Rows of a frame"),
    "nz": ("NZ", "", "Frames of a movie or sections of a volume that are there"),
    "mode": ("MODE", "", "Pixel type, and 1000 times the codec by which frames are compressed"),
    "start": ("NXSTART…", "pixels", "First column, row and section within a larger image"),
    "sampling": ("MX MY MZ", "", "Length of the cell in pixels; 0: not stated"),
    "cell": ("cell xyz", "Å", "Lengths along X, Y, Z; divided by MX MY MZ: the pixel size"),
    "pixel_size": ("pixel size zyx", "Å", "Along Z, Y and X; 0 where the file does not tell"),
    "angles": ("cell angles", "°", "Alpha, beta, gamma; 90 for all that is not a crystal"),
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
            yield Entry(name, f"{len(words)} set" if words else "none", unit, meaning, words)
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
        return "  ".join(f"{each:.7g}" for each in value)
    return f"{value:.7g}" if isinstance(value, float) else str(value)


# What every step has; the title says it already.
_TOLD = ("name", "software")


def step_entries(history: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """Return a history's steps in order: what was done, how, and by which software."""
    return tuple(_step(number, step) for number, step in enumerate(history, 1))


def _step(number: int, step: Mapping[str, Any]) -> Entry:
    from napari_mrcz.correction.history import step_text  # not loaded where there is no history

    title, value = step_text(step)
    parameters = {key: item for key, item in step.items() if key not in _TOLD}
    by = f"By {step['software']}" if "software" in step else ""
    return Entry(f"{number}. {title}", value, "", by, entries_of(parameters))


def html_of(stack: Stack) -> str:
    """Return a stack as HTML: a thumbnail of its sum and a table of what is known of it.

    A few hundred million pixels are read at most, of frames spread over the movie; of a URL one
    frame. The caption says how many.
    """
    n, y, x = stack.shape
    room = 1 if "://" in (stack.path or "") else max(1, _READ // (y * x))
    frames = [i * n // min(n, room) for i in range(min(n, room))]
    warnings = _warnings(stack)
    picture = ""
    try:
        data = _png(_thumbnail(stack, frames))
        said = f"sum of {len(frames)} of {n} frames" if len(frames) < n else f"sum of {n} frames"
        picture = (
            f'<td style="vertical-align: top"><img alt="{said}" src="data:image/png;base64,{data}">'
            f"<br>{said if n > 1 else 'one frame'}</td>"
        )
    except MrczError as error:
        warnings.append(f"no picture: {error}")
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{"<br>".join(map(escape, lines))}</td></tr>'
        for name, lines in _rows(stack, warnings)
    )
    title = path_of(stack.path).name if stack.path else "array"
    return (
        f'<table><tr>{picture}<td style="vertical-align: top"><table>'
        f'<tr><th colspan="2" style="text-align: left">{escape(title)}</th></tr>{rows}'
        "</table></td></tr></table>"
    )


def _rows(stack: Stack, warnings: list[str]) -> Iterator[tuple[str, list[str]]]:
    n, y, x = stack.shape
    yield "shape", [f"{n} {'frame' if n == 1 else 'frames'} of {y} × {x} pixels"]
    yield "pixel type", [str(stack.dtype)]
    _, size_y, size_x = stack.pixel_size
    size = f"{size_x:.5g} Å" if size_x == size_y else f"{size_y:.5g} × {size_x:.5g} Å"
    yield "pixel size", [size if size_x else "unknown"]
    yield "in memory", [size_text(stack.nbytes)]
    if stack.path and os.path.isfile(stack.path):
        yield "on disk", [size_text(os.path.getsize(stack.path))]
    if stack.history:
        steps = step_entries(stack.history)
        yield "history", [f"{step.name}: {step.value}".removesuffix(": ") for step in steps]
    if warnings:
        yield "warnings", warnings


def _warnings(stack: Stack) -> list[str]:
    """Return what the file and the corrections warn of."""
    found = [*getattr(uncorrected(stack._source), "warnings", ())]
    for step in stack.history:
        said = step.get("warnings", ())
        found += said if isinstance(said, list | tuple) else []
    return list(dict.fromkeys(map(str, found)))


def _thumbnail(stack: Stack, frames: list[int]) -> npt.NDArray[np.uint8]:
    """Return the sum of some frames, binned, with grey values from 0 to 255."""
    _, y, x = stack.shape
    by = -(-max(y, x) // _SIDE)
    rows, columns = max(1, y // by), max(1, x // by)
    total: npt.NDArray[Any] = np.zeros((rows, columns))
    for index in frames:
        frame = stack._frames.read_frame(index)[: rows * by, : columns * by]
        whole = np.abs(frame) if frame.dtype.kind == "c" else frame
        blocks = whole.reshape(rows, min(by, y), columns, min(by, x))
        total += blocks.mean(axis=(1, 3), dtype=np.float64)
    good = total[np.isfinite(total)]
    low, high = np.percentile(good, (_BLACK, _WHITE)) if good.size else (0.0, 0.0)
    grey = (np.nan_to_num(total, nan=low) - low) * (255 / (high - low) if high > low else 0)
    return np.clip(grey, 0, 255).astype(np.uint8)


def _png(image: npt.NDArray[np.uint8]) -> str:
    """Return a grey image as a PNG file, in base 64."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
