"""Writing a movie frame by frame: compressed in parallel, in order, in little memory, all or none.

Statistics, checksums and places of frames are gathered on the way, and the file takes its name when
the last byte is on disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

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
from napari_mrcz.format.header import HEADER_NBYTES, has_unsigned_bytes, mrcz_version, pack_four_bit
from napari_mrcz.format.header_writing import (
    Description,
    Statistics,
    block_statistics,
    build_header,
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
    """The frames to be written, and the options of `write_frames` on them."""

    frames: Iterable[LazyFrame]
    total: int | None
    threads: int
    progress: Progress | None
    more: Callable[[], Mapping[str, Any]] | None


class _Encoded(NamedTuple):
    """One frame as it is stored; statistics of complex pixels are None."""

    data: bytes | memoryview
    statistics: Statistics | None
    xxh3: int


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
    """Write frames to a file, with the options of `napari_mrcz.write`.

    `frames`: (y, x), of one shape and dtype, or functions that make them; taken one by one. Where
    they can be iterated over only once, uint8 is stored as uint16 (mode 6) from the start, since a
    later frame might not fit mode 0; `samples`: at least one of them, better a few: shape, dtype
    and what is "auto" follow from them; `description`: what the file says of the frames;
    `encoding`: how they are compressed; `total`: how many will come, where that is known; `footer`:
    write our footer, to a plain file only where there is something to keep; `more`: returns further
    keys of the footer; called when all frames are written. Raise `MrczError` if the frames cannot
    be stored without loss, there are none, metadata is too much or too deep, or the disk refuses.
    Raise `NotEnoughMemory` if a frame cannot be made or compressed even alone.
    """
    description = _storable(path, description)
    only_once = iter(frames) is frames
    storage = choose_storage(path, samples, dtype, encoding, wide=only_once)[0]
    source = description.source
    bytes_ = storage.final == np.uint8 and not (storage.four_bit or encoding.number)
    if bytes_ and source is not None and has_unsigned_bytes(source):
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
    """Return the description as it is stored; raise `MrczError` now, not after the last frame."""
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
    index, statistics = _write_pixels(file, work, storage)
    packed_nbytes, frames = file.tell() - start, len(index)
    if extended is not None and not (json_text or extended.belongs_to(frames)):
        found = f"{frames} frames, where {work.total} were announced"
        raise MrczError(file.path, found, advice="Close other programs that change the source")
    if work.more is not None:
        more = to_plain(work.more())
        description = replace(description, other={**description.other, **more})
    if footer and (content := _footer(description, index, storage, own=extended)):
        file.write(pack_footer(content))
    header = build_header(
        file.path,
        (frames, *storage.shape),  # type: ignore[arg-type]
        storage.mode,
        storage.encoding.number,
        replace(description, labels=_labels(description, storage)),
        signed=storage.final.kind == "i",
        extended=extended,
        statistics=statistics.for_header() if statistics else None,
        packed_nbytes=packed_nbytes,
    )
    file.write_at(0, header)
    file.commit()


def _write_pixels(
    file: AtomicFile, work: _Work, storage: Storage
) -> tuple[FrameIndex, Statistics | None]:
    """Encode frames in threads and write them in order; return where they are, and statistics."""
    written: list[tuple[int, int, int]] = []
    total: Statistics | None = Statistics()
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
            data, more, checksum = encoded
            written.append((file.tell(), len(data), checksum))
            total = None if total is None or more is None else total + more
            file.write(data)
            del encoded, data  # while the next one is waited for
            if work.progress is not None:
                work.progress(len(written), work.total)
    return FrameIndex.of(written), total


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
    description: Description, index: FrameIndex, storage: Storage, *, own: ExtendedHeader | None
) -> Footer | None:
    """Return the footer, or None for a plain file with nothing to keep."""
    # What the source had in places where this file has something else, or nothing.
    other = {k: v for k, v in description.other.items() if k not in ("extended", "header")}
    compressed = bool(storage.encoding.number)
    if description.extended is not None and description.extended is not own:
        other["extended"] = description.extended.as_map()
    source = description.source
    if compressed and source is not None and 0 <= source["mode"] < 1000:  # of a plain file
        other["header"] = description.header
    reads_as = np.dtype(np.uint8) if storage.four_bit else storage.stored
    dtype = None if storage.final == reads_as else storage.final.name
    kept = other.keys() - {"source"}
    if not (compressed or description.metadata or description.history or kept or dtype):
        return None
    return Footer(
        writer=description.writer,
        frames=index,
        dtype=dtype,
        metadata=description.metadata,
        history=description.history,
        other=other,
    )


def _labels(description: Description, storage: Storage) -> tuple[str, ...]:
    """Return the labels: this program's first where frames are compressed, as `mrcz` has it."""
    own = description.writer
    # Labels of MRCZ and of this program speak of the file that they are in.
    labels = [label for label in description.labels if not label.startswith(_OWN_LABEL)]
    kept = tuple(label for label in labels if not mrcz_version((label,)))
    if storage.encoding.number:
        return f"{_FORMAT_LABEL} {own}", *kept
    # A file that was only copied says what its source said.
    copied = description.header and not description.history
    return kept if copied else (*kept, f"Written by {own}")
