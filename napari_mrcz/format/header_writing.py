"""Making headers that `mrcz` and `mrcfile` read alike, with the statistics of pixels in them."""

from __future__ import annotations

import contextlib
import math
import operator
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError
from napari_mrcz.format.extended import ExtendedHeader, microscope_settings
from napari_mrcz.format.header import (
    EXTRA_WORDS,
    HEADER_DTYPE,
    HEADER_NBYTES,
    IMOD_STAMP,
    SIGNED,
    SPACE_GROUPS,
    VOLUME_STACKS,
    Header,
    along_axes,
    header_dtype,
    holds_volume,
    labels_of,
    parse_header,
    pixel_size_of,
    setting_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_mrcz.format.encoding import Planes


@dataclass(frozen=True)
class Description:
    """All that a file says of its frames."""

    pixel_size: tuple[float, float, float] = (0.0, 0.0, 0.0)  # z, y, x in Å; 0.0 for unknown
    # Which of X (1), Y (2), Z (3) columns, rows and sections run along.
    axis_order: tuple[int, int, int] = (1, 2, 3)
    volume: bool = False  # Sections of a volume rather than frames of a movie
    sections_per_volume: int | None = None  # Of a stack of volumes
    voltage: float = 0.0  # kV, mm, counts per electron; 0 for unknown
    c3: float = 0.0
    gain: float = 0.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)  # X, Y, Z in Å
    # First column, row and section within a larger image, in pixels.
    start: tuple[int, int, int] = (0, 0, 0)
    labels: tuple[str, ...] = ()  # Text labels to be kept from a source
    # A source's header, whose words that belong to other programs are kept; b"" for none.
    header: bytes = b""
    extended: ExtendedHeader | None = None  # A source's extended header, kept as it is
    metadata: Mapping[str, Any] = field(default_factory=dict)  # The user's map
    history: tuple[Mapping[str, Any], ...] = ()  # Corrections applied
    other: Mapping[str, Any] = field(default_factory=dict)  # Further keys of the footer
    writer: str = "napari-mrcz"  # Program and version
    path: str = ""  # The file that the frames come from; "" without one

    def all_metadata(self, frames: int) -> dict[str, Any]:
        """Return the user's map, and under its kind the extended header decoded.

        `frames`: frames that are described; an extended header that is of others is left out.
        """
        extended = self.extended
        if extended is None or not extended.describes(frames) or self._decoded is None:
            return dict(self.metadata)
        return {extended.decoded_as: self._decoded, **self.metadata}

    @cached_property
    def _decoded(self) -> Any:
        with contextlib.suppress(ValueError):  # opening the file has warned of it
            return None if self.extended is None else self.extended.decoded
        return None

    @property
    def settings(self) -> tuple[tuple[float, float] | None, float]:
        """Pixel size (y, x) in Å and voltage in kV that the extended header has."""
        kind = "" if self.extended is None else self.extended.decoded_as
        return microscope_settings(kind, self._decoded)

    @property
    def source(self) -> Any:
        """Fields of `header`; None without one."""
        return np.frombuffer(self.header, HEADER_DTYPE)[0] if self.header else None

    @property
    def scale(self) -> tuple[float, float, float]:
        """Pixel size along sections, rows and columns, wherever `axis_order` puts X, Y, Z."""
        return along_axes(self.pixel_size, self.axis_order)


_MOST_LABELS = 10
_LABEL_NBYTES = 80
_SAME_SIZE = 1e-6
# Minimum, maximum, mean, standard deviation that mean "not determined".
UNDETERMINED = (0.0, -1.0, -2.0, -1.0)
# The words that MRCZ has for itself, where plain files may have those of other programs.
_OF_MRCZ = ("voltage", "c3", "gain", "packed_nbytes")
# What the extended header is laid out by.
_LAYOUT = ("nint", "nreal")


def build_header(
    path: AnyPath,
    shape: tuple[int, int, int],
    mode: int,
    codec: int,
    description: Description,
    *,
    signed: bool,
    extended: ExtendedHeader | None = None,
    statistics: tuple[float, float, float, float] | None = None,
    packed_nbytes: int = 0,
) -> bytes:
    """Return the 1024 bytes of a little-endian header.

    Compressed files follow `mrcz`: MZ is 0 ("one array"; other values would have `mrcz` cut the
    stack into a list) and the cell is the pixel size times NX, NY, NZ. Plain files follow MRC2014:
    MZ is 1 for an image stack, NZ for a volume; but cell, sampling and space group are those of
    the source, where they say the same of these frames.

    `shape`: frames, rows, columns; `codec`: its number, 0 for none; `signed`: whether pixels of
    mode 0 are; `extended`: what follows the header; `statistics`: minimum, maximum, mean, standard
    deviation; None for not determined; `packed_nbytes`: length of all chunks. Up to 10 labels are
    written, each cut at 80 bytes.
    """
    record: Any = np.zeros((), HEADER_DTYPE)
    record["angles"] = 90.0
    if (source := description.source) is not None:
        for name in ("angles", *EXTRA_WORDS):
            record[name] = source[name]
    record["n"] = shape[::-1]
    record["mode"] = mode + 1000 * codec
    record["nstart"] = description.start
    record["map_crs"] = description.axis_order
    _set_cell(record, source, path, codec, description)
    low, high, mean, rms = statistics or UNDETERMINED
    record["dmin"], record["dmax"], record["dmean"], record["rms"] = low, high, mean, rms
    record["nint"], record["nreal"] = (0, 0) if extended is None else extended.layout
    if extended is not None:
        record["exttyp"] = extended.kind.encode("latin-1", "replace")
        record["nsymbt"] = len(extended.data)
    elif source is not None and not source["nsymbt"]:
        record["exttyp"] = source["exttyp"]  # some programs name the kind of an empty one
    record["nversion"] = 20141
    _set_microscope(record, source, codec, description, extended)
    if codec:
        record["packed_nbytes"] = packed_nbytes
    if record["imod_stamp"] == IMOD_STAMP and mode == 0:
        flags = int(record["imod_flags"])
        record["imod_flags"] = flags | SIGNED if signed else flags & ~SIGNED
    record["origin"] = description.origin
    record["map"] = b"MAP "
    record["machst"] = 0x44, 0x44, 0, 0
    _set_labels(record, source, description.labels)
    return bytes(record.tobytes())


def _set_labels(record: Any, source: Any, labels: Sequence[str]) -> None:
    known = [] if source is None else labels_of(source)
    if known and [text for text, _ in known] == list(labels):
        count = int(source["nlabl"])
        if count == len(known) and all(label.strip() for label in source["label"][:count]):
            record["nlabl"], record["label"] = count, source["label"]
            return
    stored = dict(known)
    raw = [stored.get(text, text.encode("ascii", "replace").strip()) for text in labels]
    raw = [label[:_LABEL_NBYTES] for label in raw if label.strip()][:_MOST_LABELS]
    record["nlabl"] = len(raw)
    record["label"][: len(raw)] = raw


def _set_cell(
    record: Any, source: Any, path: AnyPath, codec: int, description: Description
) -> None:
    """Write ISPG, MX MY MZ and the cell: the source's, or those of a new file."""
    nx, ny, nz = record["n"].tolist()
    volumes = description.sections_per_volume
    volume = description.volume or volumes is not None
    z, y, x = description.pixel_size
    depth = volumes or (0 if codec else nz if volume else 1)
    record["ispg"] = 401 if volumes else int(volume)
    record["m"] = nx, ny, depth
    # `mrcz` divides the cell by NZ, whatever MZ says: for compressed files the two must agree.
    record["cell"] = x * nx, y * ny, z * (nz if codec else depth)
    if source is None:
        return
    group, shape = int(source["ispg"]), (nz, ny, nx)
    stacks = group in VOLUME_STACKS
    known = group in SPACE_GROUPS or stacks
    if known and stacks == (volumes is not None):
        if holds_volume(group, depth, shape, path, description.labels) == volume:
            record["ispg"] = group
        m, cell = (tuple(source[name].tolist()) for name in ("m", "cell"))
        if (
            not codec
            and (source["n"] == record["n"]).all()
            and min(m) > 0
            and (volumes or m[2]) == m[2]
            and pixel_size_of(cell, m, (nx, ny, nz), 0) == description.pixel_size
            and holds_volume(int(record["ispg"]), m[2], shape, path, description.labels) == volume
        ):
            record["m"], record["cell"] = m, source["cell"]


def _set_microscope(
    record: Any, source: Any, codec: int, description: Description, extended: ExtendedHeader | None
) -> None:
    """Write voltage, C3 and gain; other words of a plain file in their place stay."""
    voltage = 0.0
    if extended is not None and extended is description.extended:
        _, voltage = description.settings
    if source is not None and not codec:
        plain = 0 <= int(source["mode"]) < 1000
        for name in _OF_MRCZ if plain else _OF_MRCZ[:3]:
            record[name] = source[name]
    for name in _OF_MRCZ[:3]:
        value = getattr(description, name)
        if name == "voltage" and value == voltage and not codec:
            continue  # the extended header says it
        if codec or setting_of(record[name]) != value:
            record[name] = value


def source_header(header: Header, kept: Any) -> Header:
    """Return the header whose words are kept when the frames of a file are saved again.

    `header`: the file's own; `kept`: of a compressed file, the header of the plain one that it was
    made of, as the footer has it; anything else is skipped. `raw` is little-endian.
    """
    if header.byte_order == "<" and not (header.codec and kept):
        return header
    own, labels = _little_endian(header), header.labels
    if header.codec and isinstance(kept, bytes) and len(kept) == HEADER_NBYTES:
        try:
            source = parse_header(kept, "")
        except MrczError:
            source = None
        if source is not None and source.shape[1:] == header.shape[1:]:
            mixed = _little_endian(source)
            # These are in the file's own header, too, where they may have been corrected.
            for name in ("angles", *EXTRA_WORDS):
                if name not in _LAYOUT:
                    mixed[name] = own[name]
            own = mixed
            if labels[1:] == source.labels[: _MOST_LABELS - 1]:
                labels = source.labels
    return replace(header, raw=own.tobytes(), labels=labels)


def other_words(header: bytes) -> dict[str, bytes]:
    """Return the words of other programs, and unusual angles, in a little-endian header.

    NINT and NREAL, which go with the extended header, and the sign of bytes, which goes with the
    mode, are left out.
    """
    if not header:
        return {}
    record = np.frombuffer(header, HEADER_DTYPE).copy()[0]
    record["imod_flags"] &= ~SIGNED
    words = {name: record[name].tobytes() for name in EXTRA_WORDS if name not in _LAYOUT}
    if (record["angles"] != 90).any():
        words["angles"] = record["angles"].tobytes()
    return {name: word for name, word in words.items() if any(word)}


def set_frames(record: Any, header: Header, frames: int) -> None:
    """Write another number of frames into a header, and into MZ where it is that of the frames.

    `record`: the header's fields, in its own byte order; `header`: the header as the whole file
    shows it to be; `frames`: frames that there will be.
    """
    depth = int(record["m"][2])
    follows = depth > 0 and depth in (int(record["n"][2]), header.nz)
    if follows and (header.is_volume or depth != 1):
        record["m"][2] = frames
    record["n"][2] = frames
    keep_depth(record, header.pixel_size[0])


def keep_depth(record: Any, z: float) -> None:
    """Write the cell's length along Z so that the voxel size along it is `z`."""
    read = parse_header(record.tobytes(), "").pixel_size[0]
    if z and read and abs(read - z) > _SAME_SIZE * z:
        record["cell"][2] *= z / read


def _little_endian(header: Header) -> Any:
    record = np.frombuffer(header.raw, header_dtype(header.byte_order))
    return record.astype(HEADER_DTYPE)[0]


# Pixels that are looked at together: few enough for the processor's caches, and enough that threads
# do not queue for the interpreter between numpy's calls.
_PIECE = 2**19
_COLUMNS = 4096
# Small integers are added up in 16 bits, so many at a time as their squares leave room for.
_LARGEST_SUM = 2**15 - 1
_FEWEST_ROWS = 8
# Of more bit planes than so many the sums take longer than those of pixels.
_MOST_PLANES = 4


@dataclass(frozen=True)
class Statistics:
    """Moments of some pixels; add two to get those of both together."""

    count: int = 0  # Pixels
    low: float = math.inf  # Minimum, maximum, mean
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0  # Sum of the squared differences from the mean

    def __add__(self, other: Statistics) -> Statistics:
        """Combine by Chan, Golub and LeVeque (1979), which loses no digits."""
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        return Statistics(
            count,
            min(self.low, other.low),
            max(self.high, other.high),
            self.mean + apart * other.count / count,
            self.squares + other.squares + apart**2 * self.count * other.count / count,
        )

    def for_header(self) -> tuple[float, float, float, float] | None:
        """Return minimum, maximum, mean, standard deviation; None where they are not finite."""
        if not self.count:
            return None
        values = self.low, self.high, self.mean, math.sqrt(self.squares / self.count)
        largest = float(np.finfo(np.float32).max)
        return values if all(abs(v) <= largest for v in values) else None


def statistics_of(pixels: npt.NDArray[Any]) -> Statistics | None:
    """Return the statistics of a frame, or None if it is complex and so has no minimum."""
    if pixels.dtype.kind == "c":
        return None
    flat = pixels.reshape(-1)
    found = Statistics()
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            found += _of_piece(piece, *_range(piece))
    return found


def block_statistics(pixels: npt.NDArray[Any], planes: Planes | None) -> Statistics:
    """Return the statistics of a block of integers, from its bit planes where they tell."""
    negative = planes is None or (planes[-1] is not None and pixels.dtype.kind == "i")
    used = {bit: plane for bit, plane in enumerate(planes or ()) if plane is not None}
    if negative or len(used) > _MOST_PLANES or not hasattr(np, "bitwise_count"):
        return statistics_of(pixels) or Statistics()
    low, high = pixels.min(), pixels.max()
    return _from_sums(pixels.size, low, high, *_sums_of_planes(used))


def _of_piece(pixels: npt.NDArray[Any], low: Any, high: Any) -> Statistics:
    # Differences from a typical value, which is not that of a hot pixel: squares of large numbers
    # would lose the small ones.
    some = np.sort(pixels[:: 1 + pixels.size // 16])
    typical, rows = float(some[some.size // 2]), 0
    if pixels.dtype.kind in "iu" and pixels.itemsize <= 2:
        rows = _LARGEST_SUM // max(1, int(low) ** 2, int(high) ** 2)
    if rows >= _FEWEST_ROWS or not math.isfinite(typical):
        typical = 0.0
    if rows >= _FEWEST_ROWS:
        return _from_sums(pixels.size, low, high, *_sums_of_small(pixels, rows))
    return _from_sums(pixels.size, low, high, *_sums(pixels, typical), typical)


def _from_sums(
    count: int, low: Any, high: Any, total: float, squares: float, typical: float = 0.0
) -> Statistics:
    """Return statistics from the sums of differences from a typical value and of their squares."""
    mean = total / count
    around_mean = max(0.0, squares - total * mean) if math.isfinite(squares) else math.inf
    return Statistics(count, float(low), float(high), mean + typical, around_mean)


def _sums_of_planes(used: Mapping[int, npt.NDArray[np.uint8]]) -> tuple[int, int]:
    """Return the sums of counts and of their squares, which follow from those of their bits.

    In as few calls of numpy's as there can be: between them threads wait for each other.
    """
    if not used:
        return 0, 0
    bits, number, nbytes = list(used), len(used), len(next(iter(used.values())))
    products = _of_this_thread.products(number * (number + 1) // 2, -(-nbytes // 8))
    products[:, -1:] = 0
    rows = products.view(np.uint8)[:, :nbytes]
    np.stack(list(used.values()), out=rows[:number])
    weights, first = [1 << 2 * bit for bit in bits], number
    for apart in range(1, number):
        last = first + number - apart
        np.bitwise_and(rows[apart:number], rows[: number - apart], out=rows[first:last])
        weights += [2 << a + b for a, b in zip(bits, bits[apart:], strict=False)]
        first = last
    ones: list[int] = np.bitwise_count(products).sum(axis=1, dtype=np.uint32).tolist()
    total = sum(count << bit for count, bit in zip(ones, bits, strict=False))
    return total, sum(map(operator.mul, ones, weights))


def _range(pixels: npt.NDArray[Any]) -> tuple[Any, Any]:
    """Return minimum and maximum."""
    if pixels.dtype == np.int8 and not pixels[:_COLUMNS].all():
        high = pixels.view(np.uint8).max()
        if high <= np.iinfo(np.int8).max:  # none is below 0, and 0 is there: counts
            return 0, high
    return pixels.min(), pixels.max()


def _sums_of_small(pixels: npt.NDArray[Any], rows: int) -> tuple[float, float]:
    """Return the sums of integers and of their squares, of which `rows` are added up in 16 bits."""
    rows = 1 << min(rows, 256).bit_length() - 1  # divides all pieces but the last
    even = pixels.size // rows * rows
    rest = pixels[even:].astype(np.int64)
    values = pixels[:even]
    if pixels.itemsize == 1:
        values = _of_this_thread.room.view(np.int16)[:even]
        np.copyto(values, pixels[:even])
    table = values.view(np.int16).reshape(rows, -1)
    total = np.add.reduce(table, axis=0, dtype=np.int16).sum(dtype=np.int64) + rest.sum()
    squares = np.einsum("ij,ij->j", table, table).sum(dtype=np.int64) + (rest * rest).sum()
    return float(total), float(squares)


def _sums(pixels: npt.NDArray[Any], typical: float) -> tuple[float, float]:
    """Return the sums of differences from a typical value, and of their squares."""
    room = _of_this_thread.room.view(np.float32 if pixels.itemsize <= 2 else np.float64)
    ones = np.ones((_COLUMNS, 1), room.dtype)
    total = squares = 0.0
    for start in range(0, pixels.size, room.size):
        piece = pixels[start : start + room.size]
        values = room[: -(-piece.size // _COLUMNS) * _COLUMNS]
        np.copyto(values[: piece.size], piece)
        if typical:
            np.subtract(values[: piece.size], typical, out=values[: piece.size])
        values[piece.size :] = 0
        # Many short products: BLAS would cut a long one among threads of its own, which wait for
        # those that are here already, and add up in another order each time.
        table = values.reshape(-1, 1, _COLUMNS)
        total += float(np.matmul(table, ones).sum(dtype=np.float64))
        squares += float(np.matmul(table, table.swapaxes(1, 2)).sum(dtype=np.float64))
    return total, squares


class _OfThisThread(threading.local):
    """Room to work in, kept: memory from the system is slow when it is used for the first time."""

    def __init__(self) -> None:
        self.room = np.empty(2 * _PIECE, np.uint8)
        self._words = np.empty(0, np.uint64)

    def products(self, rows: int, words: int) -> npt.NDArray[np.uint64]:
        """Return room for products of bit planes."""
        if self._words.size < rows * words:
            self._words = np.empty(rows * words, np.uint64)
        return self._words[: rows * words].reshape(rows, words)


_of_this_thread = _OfThisThread()
