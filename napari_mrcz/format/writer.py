"""Writing a movie frame by frame: compressed in parallel, in order, in little memory, all or none.

`write_frames` is the whole of it: frames come from any iterable, their statistics, checksums and
places are gathered on the way, and the file takes its name when the last byte is on disk.
"""

from __future__ import annotations

import json
import math
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
from napari_mrcz.format.header_writing import (
    Description,
    Statistics,
    block_statistics,
    build_header,
    has_unsigned_bytes,
    statistics_of,
)
from napari_mrcz.format.machine import SpareMemory, in_order, processors
from napari_mrcz.format.storage import LazyFrame, Storage, TooWideForMode0, choose_storage

if TYPE_CHECKING:
    from os import PathLike

    from napari_mrcz.format.encoding import Encoding

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
            data = encoding.compress(
                pixels, room, lambda *block: parts.append(block_statistics(*block))
            )
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
