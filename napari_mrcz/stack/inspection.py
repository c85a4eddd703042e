"""What a file contains, in words, and whether all of its frames are whole.

Header fields, metadata and history are a tree of plain entries: the metadata inspector shows it in
napari, ``napari-mrcz info`` on a terminal. `verify` reads every frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from napari_mrcz.errors import MrczError, NotEnoughMemory, collected_warnings, size_text
from napari_mrcz.format import FrameFault, FrameReader, Header
from napari_mrcz.format.files import open_file
from napari_mrcz.format.header import CODEC_NAMES
from napari_mrcz.format.machine import in_order, processors
from napari_mrcz.naming import FOREIGN_SUFFIXES, without_packing
from napari_mrcz.stack.kept import is_kept, problem_of
from napari_mrcz.stack.opening import HEAD_NBYTES, opener_of
from napari_mrcz.stack.opening import open as open_stack

# Lists of plain values up to this long are one line; of longer ones the beginning is shown.
_LONGEST_LINE = 16
_PLAIN = (str, int, float, complex, bool, type(None), np.generic)


@dataclass(frozen=True)
class Entry:
    """One line of the tree, and those below it."""

    name: str  # As shown; `unit` is empty for what has none
    value: str = ""
    unit: str = ""
    meaning: str = ""  # One line on what it is; may be empty
    children: tuple[Entry, ...] = ()  # What it consists of
    folded: bool = False  # Whether these are hidden at first


def entries_of(values: Mapping[Any, Any]) -> tuple[Entry, ...]:
    """Return an entry for each item of a map, nested as it is."""
    return tuple(entry_of(str(name), value) for name, value in values.items())


def entry_of(name: str, value: Any, meaning: str = "") -> Entry:
    """Return the entry of one value: of maps and lists what is in them, of arrays what they are."""
    if isinstance(value, Mapping):
        return Entry(name, _counted(len(value), "entry"), "", meaning, entries_of(value))
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= _LONGEST_LINE:
        value = value.tolist()
    if isinstance(value, np.ndarray):
        shape = " × ".join(map(str, value.shape))
        return Entry(name, f"array of {shape}, {value.dtype}", "", meaning)
    if isinstance(value, bytes | bytearray):
        return Entry(name, f"{size_text(len(value))}, not text", "", meaning)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(item, _PLAIN) for item in value):
            return Entry(name, _line(value), "", meaning)
        children = tuple(entry_of(str(at), item) for at, item in enumerate(value))
        return Entry(name, _counted(len(value), "entry"), "", meaning, children)
    return Entry(name, _text(value), "", meaning)


def matching(entries: Iterable[Entry], words: str) -> tuple[Entry, ...]:
    """Return the entries in which every word is found, each with what leads to it.

    Words may be in an entry itself or in what it belongs to; what is below a match is kept.
    """
    wanted = tuple(words.lower().split())
    return _matching(entries, wanted) if wanted else tuple(entries)


def _matching(entries: Iterable[Entry], wanted: tuple[str, ...]) -> tuple[Entry, ...]:
    found = []
    for entry in entries:
        said = f"{entry.name}\n{entry.value}\n{entry.unit}\n{entry.meaning}".lower()
        left = tuple(word for word in wanted if word not in said)
        if not left:
            found.append(entry)
        elif children := _matching(entry.children, left):
            found.append(replace(entry, children=children))
    return tuple(found)


def _line(values: Sequence[Any]) -> str:
    line = ", ".join(map(_text, values[:_LONGEST_LINE]))
    if len(values) > _LONGEST_LINE:
        line += f", … ({len(values)} in all)"
    return line or "nothing"


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.7g}"
    return str(value)


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun.removesuffix('y')}ies"


# Of each field of `Header`: its name in MRC2014 or MRCZ, its unit, its meaning.
_FIELDS = {
    "nx": ("NX", "pixels", "Columns of a frame"),
    "ny": ("NY", "pixels", "Rows of a frame"),
    "nz": ("NZ", "", "Frames of a movie or sections of a volume that are there"),
    "mode": ("MODE", "", "Pixel type, and 1000 times the codec by which frames are compressed"),
    "start": ("NXSTART…", "pixels", "First column, row and section within a larger image"),
    "sampling": (
        "MX MY MZ",
        "",
        "Samples along the cell: it is as many pixels long; 0: not stated",
    ),
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


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    path : str
        The file.
    error : str
        Why the file cannot be opened; empty if it can.
    frames : int
        Frames checked.
    checksums : bool
        Whether frames were held against checksums. Without them a flipped bit may go unnoticed:
        most damaged chunks decode to a wrong picture without an error.
    faults : tuple of FrameFault
        The bad frames.
    warnings : tuple of str
        What else is wrong, such as frames that are missing.
    announced : int
        Frames that there should be; more than were checked where the file is cut off.
    """

    path: str
    error: str = ""
    frames: int = 0
    checksums: bool = False
    faults: tuple[FrameFault, ...] = ()
    warnings: tuple[str, ...] = ()
    announced: int = 0

    @property
    def ok(self) -> bool:
        """Every frame that the header announces is there and decodes."""
        return not (self.error or self.faults or self.warnings)

    def __bool__(self) -> bool:
        """Return whether the file is good."""
        return self.ok

    def __str__(self) -> str:
        if self.error:
            return self.error
        verdict = f"{self.path}: {self._verdict()}"
        faults = (f"{self.path}: frame {f.frame}: {f.found}" for f in self.faults)
        return "\n".join([verdict, *self.warnings, *faults])

    def _verdict(self) -> str:
        """Return how good the file is, in words."""
        how = "checksums match" if self.checksums else "they decode; the file has no checksums"
        good = self.frames - len(self.faults)
        if self.ok:
            return f"{good} {'frame is' if good == 1 else 'frames are'} good ({how})"
        if self.announced > self.frames:
            there = f"damaged: {self.frames} of {self.announced} frames are there"
            if self.faults:
                return f"{there}, and {good} of these are good ({how})"
            return f"{there}, and these are good ({how})"
        if self.faults:
            return f"damaged: {good} of {self.frames} frames are good ({how})"
        return f"damaged, but all {good} frames are good ({how})"


def verify(
    path: str | PathLike[str],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check that every frame of a file can be read.

    Parameters
    ----------
    path : path-like
        A file of any format that `napari_mrcz.open` takes. Only MRC and MRCZ have checksums; of
        other formats frames are decoded.
    threads : int, optional
        Frames decoded at once; as many as there are processors by default.
    progress : callable, optional
        Called with (frames done, frames); what it raises ends the checking.

    Returns
    -------
    VerifyReport
        True in a condition if all is well.

    Raises
    ------
    NotEnoughMemory
        If a frame does not fit into memory even alone, so that nothing is known of it.
    """
    try:
        with closing(open_file(path)) as file:
            is_mrc = opener_of(file.read(0, HEAD_NBYTES)) is None
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))
    if is_mrc:
        report = _verify_mrc(path, threads, progress)
        if not report.error or without_packing(Path(path)).suffix.lower() not in FOREIGN_SUFFIXES:
            return report
    try:
        with collected_warnings() as said:
            movie = open_stack(path, read_ahead=False)
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))
    n = len(movie)
    with movie:
        makers, nbytes = movie.frame_makers(), movie.nbytes // n
        faults = _faults_of(makers, n, nbytes, threads, progress)
    return VerifyReport(fspath(path), "", n, False, faults, tuple(said), n)


def _verify_mrc(
    path: str | PathLike[str], threads: int | None, progress: Callable[[int, int], None] | None
) -> VerifyReport:
    try:
        reader = FrameReader(path)
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))
    n, other, warnings = reader.shape[0], reader.footer.other, reader.warnings
    makers = (partial(reader.read_frame, frame) for frame in range(n))
    with reader:
        faults = _faults_of(makers, n, reader.frame_nbytes, threads, progress)
    if is_kept(other) and (why := problem_of(reader.path, other)):
        warnings = (*warnings, f"{fspath(path)}: {why}")
    checksums = reader.index.xxh3 is not None
    return VerifyReport(fspath(path), "", n, checksums, faults, warnings, reader.announced)


def _faults_of(
    makers: Iterable[Callable[[], object]],
    n: int,
    frame_nbytes: int,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[FrameFault, ...]:
    """Return which of `n` frames cannot be made, each of so many bytes; see `verify`."""

    def check(numbered: tuple[int, Callable[[], object]]) -> FrameFault | None:
        frame, make = numbered
        try:
            make()
        except NotEnoughMemory:
            raise
        except MrczError as error:
            return FrameFault(frame, error.offset, error.found)
        return None

    faults = []
    threads = min(n, threads or processors())
    room = 2 * frame_nbytes  # with its compressed bytes
    with in_order(check, enumerate(makers), threads, "napari-mrcz-verify", nbytes=room) as checked:
        for done, fault in enumerate(checked, 1):
            if fault is not None:
                faults.append(fault)
            if progress is not None:
                progress(done, n)
    return tuple(faults)
