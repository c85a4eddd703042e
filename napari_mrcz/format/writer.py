"""Writing a movie frame by frame: compressed in parallel, in order, in little memory, all or none.

`write_frames` is the whole of it: frames come from any iterable, their statistics, checksums and
places are gathered on the way, and the file takes its name when the last byte is on disk.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import MrczError, NotEnoughMemory, is_out_of_memory, size_text
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.chunks import CHUNK_HEADER_NBYTES
from napari_mrcz.format.extended import ExtendedHeader
from napari_mrcz.format.footer import (
    LARGEST_JSON,
    Footer,
    FrameIndex,
    check_content,
    most_values,
    pack_footer,
    to_json_safe,
    to_plain,
)
from napari_mrcz.format.header import HEADER_DTYPE, HEADER_NBYTES, mrcz_version, pack_four_bit
from napari_mrcz.format.header_writing import build_header, has_unsigned_bytes
from napari_mrcz.format.machine import SpareMemory, in_order, processors
from napari_mrcz.format.storage import LazyFrame, Storage, TooWideForMode0, choose_storage

if TYPE_CHECKING:
    from os import PathLike

    from napari_mrcz.format.encoding import Encoding, Planes
    from napari_mrcz.format.header_writing import Description

# The version of `mrcz` whose files ours are like; readers take label 0 for the format's version.
_FORMAT_LABEL = "MRCZ0.6.0"
_OWN_LABEL = "Written by napari-mrcz"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class _Work:
    """The frames to be written, how many (where known), how, and what is added in the end."""

    frames: Iterable[LazyFrame]
    total: int | None
    threads: int
    progress: Progress | None
    more: Callable[[], Mapping[str, Any]] | None


@dataclass(frozen=True)
class _Encoded:
    data: bytes | memoryview
    statistics: Statistics | None
    xxh3: int


@dataclass
class _Written:
    """The frames that are in the file so far."""

    statistics: Statistics | None
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    xxh3: list[int] = field(default_factory=list)

    def add(self, offset: int, frame: _Encoded) -> None:
        self.offsets.append(offset)
        self.sizes.append(len(frame.data))
        self.xxh3.append(frame.xxh3)
        if self.statistics is not None:
            more = frame.statistics
            self.statistics = None if more is None else self.statistics + more

    def index(self) -> FrameIndex:
        columns = (self.offsets, self.sizes, self.xxh3)
        return FrameIndex(*(np.array(column, np.uint64) for column in columns))


def write_frames(
    path: str | PathLike[str],
    frames: Iterable[LazyFrame],
    samples: Iterable[LazyFrame],
    *,
    description: Description,
    encoding: Encoding,
    dtype: npt.DTypeLike | None = None,
    total: int | None = None,
    threads: int | None = None,
    footer: bool = True,
    more: Callable[[], Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> None:
    """Write frames to a file.

    Parameters
    ----------
    path : path-like
        The file.
    frames : iterable of ndarray, shape (y, x), or of functions that make them
        All of one shape and dtype; taken one by one. Where it can be iterated only once, frames
        of uint8 are stored as uint16 (mode 6) from the start, since a later one might not fit
        mode 0.
    samples : iterable of ndarray, shape (y, x), or of functions that make them
        At least one of the frames, better a few: shape, dtype and what is "auto" follow from them.
    description : Description
        What the file says of the frames.
    encoding : Encoding
        How they are compressed.
    dtype : dtype-like or "uint4", optional
        Pixel type asked for; values are rounded into it, never wrapped.
    total : int, optional
        How many frames will come, where that is known.
    threads : int, optional
        Frames compressed at once; as many as there are processors by default.
    footer : bool
        Write our footer; a plain file gets one only where there is something to keep.
    more : callable, optional
        Returns further keys of the footer; called when all frames are written.
    progress : callable, optional
        Called with (frames done, total or None) after each frame; what it raises ends the
        writing and leaves everything as it was.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MrczError
        If the frames cannot be stored without loss, there are none, metadata is too much or too
        deep, or the disk refuses.
    NotEnoughMemory
        If a frame cannot be made or compressed even alone.
    """
    description = _storable(path, description)
    only_once = iter(frames) is frames
    storage = choose_storage(path, samples, dtype, encoding, wide=only_once)[0]
    bytes_ = storage.final == np.uint8 and not (storage.four_bit or encoding.number)
    if bytes_ and has_unsigned_bytes(description.header):
        storage = replace(storage, stored=storage.final)
    work = _Work(frames, total, threads or processors(), progress, more)
    try:
        with AtomicFile(path, overwrite=overwrite) as file:
            _write_file(file, work, description, storage, footer=footer)
    except TooWideForMode0:
        storage = choose_storage(path, samples, dtype, encoding, wide=True)[0]
        with AtomicFile(path, overwrite=overwrite) as file:
            _write_file(file, work, description, storage, footer=footer)


def _storable(path: str | PathLike[str], description: Description) -> Description:
    """Return the description as it is stored; found out here rather than after the last frame."""
    try:
        plain = [
            to_plain(x) for x in (description.metadata, description.history, description.other)
        ]
        check_content(plain, most_values(len(msgpack.packb(plain))))
    except (ValueError, RecursionError) as error:
        advice = "Keep long lists as numpy arrays, and nothing that contains itself"
        raise MrczError(path, f"metadata that cannot be stored: {error}", advice=advice) from error
    metadata, history, other = plain
    return replace(description, metadata=metadata, history=tuple(history), other=other)


def _write_file(
    file: AtomicFile, work: _Work, description: Description, storage: Storage, *, footer: bool
) -> None:
    extended, json_text = description.extended, b""
    if extended is not None and not (work.total and extended.belongs_to(work.total)):
        extended = None
    if storage.encoding.number and (description.metadata or extended is None):
        json_text = _json(file.path, description)
        extended = ExtendedHeader("json", json_text)
    file.write(bytes(HEADER_NBYTES) + (extended.data if extended is not None else b""))
    start = file.tell()
    written = _write_pixels(file, work, storage)
    packed_nbytes = file.tell() - start
    frames = len(written.offsets)
    if extended is not None and not (json_text or extended.belongs_to(frames)):
        found = f"{frames} frames, where {work.total} were announced"
        raise MrczError(file.path, found, advice="Close other programs that change the source")
    if work.more is not None:
        more = to_plain(work.more())
        description = replace(description, other={**description.other, **more})
    if footer and (content := _footer(description, written, storage, own=extended)):
        file.write(pack_footer(content))
    header = build_header(
        file.path,
        (frames, *storage.shape),  # type: ignore[arg-type]
        storage.mode,
        storage.encoding.number,
        description,
        signed=storage.final.kind == "i",
        extended=extended,
        statistics=written.statistics.for_header() if written.statistics else None,
        packed_nbytes=packed_nbytes,
        labels=_labels(description, storage),
    )
    file.write_at(0, header)
    file.commit()


def _write_pixels(file: AtomicFile, work: _Work, storage: Storage) -> _Written:
    """Encode frames in threads and write them in order."""
    written = _Written(Statistics())
    pixels = math.prod(storage.shape)
    frame_nbytes = pixels * max(storage.given.itemsize, storage.stored.itemsize)
    memory = SpareMemory(work.threads)

    def encode(numbered: tuple[int, LazyFrame]) -> _Encoded:
        index, frame = numbered
        try:
            return _encode(storage, frame, index, memory)
        except NotEnoughMemory as error:
            if error.path is not None:
                raise
            raise NotEnoughMemory(storage.path, error.what, frame=index) from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            what = f"making and storing a frame of {size_text(frame_nbytes)}"
            raise NotEnoughMemory(storage.path, what, frame=index) from None

    numbered = enumerate(work.frames)
    in_work = 3 * frame_nbytes  # as it is made, as it is stored, compressed
    with in_order(
        encode, numbered, work.threads, "napari-mrcz-write", nbytes=in_work
    ) as encoded_frames:
        for encoded in encoded_frames:
            written.add(file.tell(), encoded)
            file.write(encoded.data)
            del encoded  # while the next one is waited for
            if work.progress is not None:
                work.progress(len(written.offsets), work.total)
    return written


def _encode(storage: Storage, frame: LazyFrame, index: int, memory: SpareMemory) -> _Encoded:
    pixels = storage.fit(frame() if callable(frame) else frame, index)
    encoding = storage.encoding
    data: bytes | memoryview
    statistics: Statistics | None
    if encoding.as_counts:
        room = memory.array(pixels.nbytes + CHUNK_HEADER_NBYTES).data
        parts: list[Statistics] = []
        if encoding.filter == "bitshuffle":
            data = encoding.compress(pixels, room, lambda *block: parts.append(_of_block(*block)))
            statistics = sum(parts, Statistics())
        else:  # faster alone than in turns with the encoder
            statistics = statistics_of(pixels)
            data = encoding.compress(pixels, room)
    else:
        statistics = statistics_of(pixels)
        if storage.four_bit:
            pixels = pack_four_bit(pixels)
        data = pixels.reshape(-1).view(np.uint8).data
        if encoding.number:
            data = encoding.compress(pixels)
    return _Encoded(data, statistics, xxhash.xxh3_64_intdigest(data))


def _json(path: str | PathLike[str], description: Description) -> bytes:
    """Return the metadata as `mrcz` has them in a compressed file's extended header.

    Where there are none it is an empty map: hyperspy's reader cannot do without.
    """
    text = json.dumps(to_json_safe(description.metadata), allow_nan=False).encode("utf-8")
    if len(text) > LARGEST_JSON:
        found = f"metadata of {len(text) / 1e6:.0f} MB as text"
        raise MrczError(path, found, advice="Keep what is long as numpy arrays")
    return text


def _footer(
    description: Description, written: _Written, storage: Storage, *, own: ExtendedHeader | None
) -> Footer | None:
    """Return the footer, or None for a plain file with nothing to keep."""
    # What the source had in places where this file has something else, or nothing.
    other = dict(description.other)
    other.pop("extended", None)
    other.pop("header", None)
    compressed = bool(storage.encoding.number)
    if description.extended is not None and description.extended is not own:
        other["extended"] = description.extended.as_map()
    if compressed and _is_plain(description.header):
        other["header"] = description.header
    reads_as = np.dtype(np.uint8) if storage.four_bit else storage.stored
    dtype = None if storage.final == reads_as else storage.final.name
    kept = other.keys() - {"source"}
    nothing = not (description.metadata or description.history or kept or dtype)
    if nothing and not compressed:
        return None
    return Footer(
        writer=description.writer,
        frames=written.index(),
        dtype=dtype,
        metadata=description.metadata,
        history=description.history,
        other=other,
    )


def _is_plain(header: bytes) -> bool:
    """Whether a header is that of a file which is not compressed."""
    return bool(header) and 0 <= int(np.frombuffer(header, HEADER_DTYPE)["mode"][0]) < 1000


def _labels(description: Description, storage: Storage) -> list[str]:
    """Return the labels: this program's first where frames are compressed, as `mrcz` has it."""
    own = description.writer
    # Labels of MRCZ and of this program speak of the file that they are in.
    kept = [
        label
        for label in description.labels
        if not (mrcz_version((label,)) or label.startswith(_OWN_LABEL))
    ]
    if storage.encoding.number:
        return [f"{_FORMAT_LABEL} {own}", *kept]
    # A file that was only copied says what its source said.
    copied = description.header and not description.history
    return kept if copied else [*kept, f"Written by {own}"]


# Pixels that are looked at together: few enough for the processor's caches, and enough that threads
# do not queue for the interpreter between numpy's calls.
_PIECE = 2**18
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


def _of_block(pixels: npt.NDArray[Any], planes: Planes | None) -> Statistics:
    """Return the statistics of a block of integers, from its bit planes where they tell."""
    if planes is None or (planes[-1] is not None and pixels.dtype.kind == "i"):
        return statistics_of(pixels) or Statistics()
    used = [plane for plane in planes if plane is not None]
    if not used:
        return Statistics(pixels.size, 0.0, 0.0)
    low = pixels.min() if np.bitwise_or.reduce(used).all() else 0
    high, largest = 0, None  # pixels that are as large as any in the bits looked at so far
    for bit in reversed(range(len(planes))):
        plane = planes[bit]
        if plane is None:
            continue
        among = plane if largest is None else largest & plane
        if among.any():
            high, largest = high | 1 << bit, among
    if high < 2**_MOST_PLANES and hasattr(np, "bitwise_count"):
        return _from_sums(pixels.size, low, high, *_sums_of_planes(planes[: high.bit_length()]))
    return statistics_of(pixels) or Statistics()


def _of_piece(pixels: npt.NDArray[Any], low: Any, high: Any) -> Statistics:
    # Differences from a typical value: squares of large numbers would lose the small ones.
    typical, rows = float(pixels[pixels.size // 2]), 0
    if pixels.dtype.kind in "iu" and pixels.itemsize <= 2:
        rows = _LARGEST_SUM // max(1, int(low) ** 2, int(high) ** 2)
    if rows >= _FEWEST_ROWS or pixels.itemsize == 1 or not math.isfinite(typical):
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


def _sums_of_planes(planes: Planes) -> tuple[int, int]:
    """Return the sums of counts and of their squares, which follow from those of their bits."""
    total = squares = 0
    for bit, plane in enumerate(planes):
        for other, below in enumerate(planes[: bit + 1]):
            if plane is None or below is None:
                continue
            if other == bit:
                count = _ones(plane)
                total += count << bit
                squares += count << 2 * bit
            else:
                squares += _ones(plane & below) << bit + other + 1
    return total, squares


def _ones(plane: npt.NDArray[np.uint8]) -> int:
    """Return how many bits are set."""
    even = plane.size // 8 * 8
    words = np.bitwise_count(plane[:even].view(np.uint64)).sum(dtype=np.uint32)
    return int(words) + int(np.bitwise_count(plane[even:]).sum(dtype=np.uint32))


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


_of_this_thread = _OfThisThread()
