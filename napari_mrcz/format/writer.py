"""Writing a movie frame by frame: compressed in parallel, in order, in little memory, all or none.

How given pixels become stored ones is decided before any is written: they fit into another type
without loss, or are refused. Statistics, checksums and places of frames are gathered on the way,
and the file takes its name when the last byte is on disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, is_out_of_memory, size_text
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.chunks import CHUNK_HEADER_NBYTES, LARGEST_FRAME
from napari_mrcz.format.encoding import (
    Encoding,
    choose_encoding,
    compressed_fraction,
    excerpt,
    shannon_fraction,
)
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
from napari_mrcz.format.header import (
    FOUR_BIT,
    HEADER_NBYTES,
    MODE_OF_DTYPE,
    frame_nbytes,
    has_unsigned_bytes,
    mrcz_version,
    pack_four_bit,
    storage_dtype,
)
from napari_mrcz.format.header_writing import (
    Description,
    Statistics,
    block_statistics,
    build_header,
    statistics_of,
)
from napari_mrcz.format.machine import SpareMemory, in_order, processors

_LARGEST_SIGNED_BYTE, _LARGEST_FOUR_BIT = 127, 15

Frame = npt.NDArray[Any]
# A frame, or a function that makes it: then it is made in the thread that compresses it.
LazyFrame = Frame | Callable[[], Frame]


class TooWideForMode0(Exception):
    """Unsigned bytes beyond 127 turned up, which mode 0 (signed) cannot hold."""


@dataclass(frozen=True)
class Storage:
    """How one frame becomes the pixels of a mode."""

    path: AnyPath  # The file to be, for messages
    shape: tuple[int, ...]  # Rows, columns
    # What the frames come in, what readers are to give back, what the mode holds.
    given: np.dtype[Any]
    final: np.dtype[Any]
    stored: np.dtype[Any]
    four_bit: bool  # Two pixels a byte, mode 101
    encoding: Encoding  # How the stored pixels are compressed, nothing of it "auto" any more

    @property
    def mode(self) -> int:
        """The pixel mode in the header."""
        if self.four_bit:
            return FOUR_BIT
        # Mode 0 of unsigned bytes, where IMOD's flag says so.
        return 0 if self.stored == np.uint8 else MODE_OF_DTYPE[self.stored]

    @property
    def nbytes(self) -> int:
        """Bytes of a frame's stored pixels, before compression."""
        return math.prod(self.shape) * self.stored.itemsize

    def fit(self, frame: Frame, index: int) -> Frame:
        """Return the frame in its stored dtype, contiguous and little-endian."""
        native = frame.dtype.newbyteorder("=")
        if frame.shape != self.shape or native != self.given:
            first = f"the first frame is {self.given} of {self.shape}"
            found = f"{native} of {frame.shape}, where {first}"
            advice = "All frames of a stack have one shape and dtype"
            raise MrczError(self.path, found, frame=index, advice=advice)
        return self.convert(np.ascontiguousarray(frame, native), index)

    def convert(self, frame: Frame, index: int | None) -> Frame:
        """Return pixels of the dtype that was given in the one that is stored."""
        frame = cast_as_asked(frame, self.final, self.path, index)
        if self.four_bit:
            if frame.max() > _LARGEST_FOUR_BIT:
                found = f"values up to {frame.max()}, where 4 bits hold 0 to {_LARGEST_FOUR_BIT}"
                advice = "Choose uint8 as pixel type (dtype)"
                raise MrczError(self.path, found, frame=index, advice=advice)
            return frame
        if self.final == np.uint8 and self.stored == np.int8:
            if frame.max() > _LARGEST_SIGNED_BYTE:
                raise TooWideForMode0
            return frame.view(np.int8)
        frame = _cast_lossless(frame, self.stored, self.path, index)
        return frame.astype(frame.dtype.newbyteorder("<"), copy=False)


def choose_storage(
    path: AnyPath,
    samples: Iterable[LazyFrame],
    dtype: npt.DTypeLike | None,
    encoding: Encoding,
    *,
    wide: bool,
) -> tuple[Storage, list[Frame]]:
    """Decide dtype, filter and block size before the first byte is written.

    `path`: the file to be, for messages; `samples`: a few frames, of which only one is in memory at
    a time. A function that says `shape` and `dtype` is not called for a frame that cannot be
    stored; `dtype`: pixel type asked for; `encoding`: as asked for; `wide`: store unsigned bytes in
    16 bits, whatever the samples hold. With the storage come excerpts of the samples as they will
    be stored. Raise `MrczError` if there are no frames, or these cannot be stored so.
    """
    remaining = iter(samples)
    first = next(remaining, None)
    if first is None:
        raise MrczError(path, "no frames to write")
    known: Any = first if hasattr(first, "shape") else (first := first())
    shape, given = known.shape, np.dtype(known.dtype).newbyteorder("=")
    if len(shape) != 2 or not all(shape):
        raise MrczError(path, f"frames of shape {shape}, where (rows, columns) are expected")
    storage = _as_asked(path, shape, given, dtype, encoding)
    if wide and storage.final == np.uint8 and not storage.four_bit:
        storage = replace(storage, stored=np.dtype(np.uint16))
    _check_size(storage)
    excerpts = [excerpt(first() if callable(first) else first)]
    del first, known
    excerpts += (excerpt(frame() if callable(frame) else frame) for frame in remaining)
    try:
        stored = [storage.convert(pixels, None) for pixels in excerpts]
    except TooWideForMode0:
        storage = replace(storage, stored=np.dtype(np.uint16))
        _check_size(storage)
        stored = [storage.convert(pixels, None) for pixels in excerpts]
    chosen = choose_encoding(storage.encoding, stored, storage.nbytes)
    return replace(storage, encoding=chosen), stored


def _as_asked(
    path: AnyPath,
    shape: tuple[int, ...],
    given: np.dtype[Any],
    dtype: npt.DTypeLike | None,
    encoding: Encoding,
) -> Storage:
    four_bit = isinstance(dtype, str) and dtype == "uint4"
    try:
        asked = np.dtype(np.uint8) if four_bit else given if dtype is None else np.dtype(dtype)
        final = asked.newbyteorder("=")
        stored = np.dtype(np.uint8) if four_bit else storage_dtype(final)
    except TypeError as error:
        raise MrczError(path, str(error), advice="Convert the frames to numbers first") from error
    if four_bit and encoding.number:
        found = "4-bit packing and compression exclude each other"
        advice = "Compressed uint8 takes less room; or save uncompressed (codec none)"
        raise MrczError(path, found, advice=advice)
    return Storage(path, shape, given, final, stored, four_bit, encoding)


def _check_size(storage: Storage) -> None:
    """Refuse frames that are too large for blosc."""
    nbytes = storage.nbytes
    if storage.encoding.number and nbytes > LARGEST_FRAME:
        found = f"a frame of {nbytes} bytes, where blosc compresses {LARGEST_FRAME} at most"
        raise MrczError(storage.path, found, advice="Save it uncompressed (codec none)")


def _cast_lossless(frame: Frame, dtype: np.dtype[Any], path: AnyPath, index: int | None) -> Frame:
    """Return `frame` as `dtype`; raise `MrczError` unless every value survives."""
    if frame.dtype == dtype:
        return frame
    if frame.dtype.kind in "biu":
        _check_range(frame, dtype, path, index)
        return frame.astype(dtype)
    with np.errstate(over="ignore"):
        cast = frame.astype(dtype)
    if not _same(frame, cast):
        found = f"{frame.dtype} values that {dtype} cannot hold exactly"
        advice = f"Choose {dtype} as pixel type (dtype) to round them"
        raise MrczError(path, found, frame=index, advice=advice)
    return cast


def cast_as_asked(frame: Frame, dtype: np.dtype[Any], path: AnyPath, index: int | None) -> Frame:
    """Return `frame` as the `dtype` asked for: rounded, but never wrapped or cut off.

    Raise `MrczError` if a value is out of the type's range, not a number where integers are asked
    for, or complex where real numbers are.
    """
    if frame.dtype == dtype:
        return frame
    if frame.dtype.kind == "c" and dtype.kind != "c":
        found = f"complex pixels cannot become {dtype}"
        raise MrczError(path, found, frame=index, advice="Write their amplitude or phase")
    if dtype.kind in "biu":
        if frame.dtype.kind == "f":
            frame = np.rint(frame)
        _check_range(frame, dtype, path, index)
        return frame.astype(dtype)
    with np.errstate(over="ignore"):
        cast = frame.astype(dtype)
    if not (np.isfinite(cast) | ~np.isfinite(frame)).all():
        raise MrczError(path, f"values beyond the range of {dtype}", frame=index)
    return cast


def _same(frame: Frame, cast: Frame) -> bool:
    """Return whether every value survived, part by part: a NaN could hide the other's loss."""
    if frame.dtype.kind == "c":
        return _same(frame.real, cast.real) and _same(frame.imag, cast.imag)
    return bool(((cast == frame) | (frame != frame)).all())


def _check_range(frame: Frame, dtype: np.dtype[Any], path: AnyPath, index: int | None) -> None:
    if not frame.size:
        return
    # As Python's numbers, which compare exactly: float32(2**31 - 1) is 2**31.
    low, high = frame.min().item(), frame.max().item()
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not (low >= least and high <= most):  # also false for NaN
        found = f"values from {low} to {high}, where {dtype} holds {least} to {most}"
        advice = "Choose a pixel type (dtype) that holds them; float32 rounds where it must"
        raise MrczError(path, found, frame=index, advice=advice)


@dataclass(frozen=True)
class Estimate:
    """What a frame will take on disk."""

    encoding: Encoding  # Filter and block size as the writer will choose them
    stored: np.dtype[Any]  # Pixel type in the file
    frame_nbytes: float  # Mean size of a frame in bytes
    # The least to which independent pixels can be compressed (Shannon's bound); None where a sample
    # does not show it, as of most float images.
    bound_nbytes: float | None


def estimate(
    path: AnyPath,
    samples: Iterable[LazyFrame],
    encoding: Encoding,
    dtype: npt.DTypeLike | None = None,
) -> Estimate:
    """Decide what `write_frames` would, and compress excerpts of the frames in that way.

    `path`: for messages; `samples`: a few frames; only one is in memory at a time; `encoding`: as
    asked for; `dtype`: pixel type asked for. Raise `MrczError` if these frames cannot be stored so
    without loss.
    """
    storage, stored = choose_storage(path, samples, dtype, encoding, wide=False)
    rows, columns = storage.shape
    nbytes = frame_nbytes(storage.mode, (rows, columns))
    nbytes_written = nbytes * compressed_fraction(storage.encoding, stored)
    bound = shannon_fraction(stored)
    bound_nbytes = None if bound is None else bound * storage.nbytes
    return Estimate(storage.encoding, storage.stored, nbytes_written, bound_nbytes)


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


# One frame as it is stored, its statistics (None of complex pixels) and its checksum.
_Encoded = tuple[bytes | memoryview, Statistics | None, int]


def write_frames(
    path: AnyPath,
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
    source = description.source
    work = _Work(frames, total, threads or processors(), progress, more)
    for wide in (iter(frames) is frames, True):
        storage = choose_storage(path, samples, dtype, encoding, wide=wide)[0]
        bytes_ = storage.final == np.uint8 and not (storage.four_bit or encoding.number)
        if bytes_ and source is not None and has_unsigned_bytes(source):
            storage = replace(storage, stored=storage.final)
        with suppress(TooWideForMode0), AtomicFile(path, overwrite=overwrite) as file:
            _write_file(file, work, description, storage, footer=footer)
            return


def _storable(path: AnyPath, description: Description) -> Description:
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
    return data, statistics, xxhash.xxh3_64_intdigest(data)


def _json(path: AnyPath, description: Description) -> bytes:
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
