"""Blosc chunks one after the other: following them, and finding where they begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format.chunks import (
    CHUNK_HEADER_NBYTES,
    CODECS,
    check_chunk,
    decompress,
    parse_chunk_header,
)
from napari_mrcz.format.extended import LARGEST_EXTENDED
from napari_mrcz.format.footer import FrameIndex
from napari_mrcz.format.header import HEADER_NBYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.format.files import RandomAccessFile
    from napari_mrcz.format.header import Header

# A blosc chunk is never longer than its content and this.
_CHUNK_OVERHEAD = 32
# Of what may precede the first chunk, if NSYMBT is wrong, places at which one seems to begin.
_MOST_PLACES = 64


@dataclass(frozen=True)
class Chain:
    """Chunks one after the other; `stop` is the byte after the last, `cut` if another was begun."""

    start: int
    offsets: list[int]
    sizes: list[int]
    stop: int
    cut: bool

    def index(self) -> FrameIndex:
        """Return where each of them lies."""
        return FrameIndex(np.array(self.offsets, np.uint64), np.array(self.sizes, np.uint64))


def walk(file: RandomAccessFile, header: Header, start: int, end: int) -> Chain:
    """Follow the chunk headers from byte `start`, as long as one leads to another.

    Raises
    ------
    MrczError
        If one of the frames that the header announces cannot be a chunk.
    """
    offsets: list[int] = []
    sizes: list[int] = []
    offset, cut, typesize = start, False, 0
    while (left := end - offset) >= CHUNK_HEADER_NBYTES:
        frame = len(offsets)
        chunk = parse_chunk_header(file.read(offset, CHUNK_HEADER_NBYTES))
        if frame and left < chunk.ctbytes <= header.frame_nbytes + _CHUNK_OVERHEAD:
            # A last frame that was cut off; the ones before it are whole.
            cut = frame < header.nz or chunk.nbytes == header.frame_nbytes
            break
        where: dict[str, Any] = {"path": file.path, "frame": frame, "offset": offset}
        beyond = frame >= max(1, header.nz)
        if beyond and chunk.typesize != typesize:
            break  # a footer is packed as a chunk, too
        try:
            check_chunk(chunk, header.frame_nbytes, left, **where)
        except MrczError:
            if beyond:
                break
            raise
        typesize = chunk.typesize
        offsets.append(offset)
        sizes.append(chunk.ctbytes)
        offset += chunk.ctbytes
    cut |= 0 < end - offset < CHUNK_HEADER_NBYTES and len(offsets) < header.nz
    return Chain(start, offsets, sizes, offset, cut)


def find_chain(file: RandomAccessFile, header: Header, end: int) -> Chain | None:
    """Return the first chain of chunks that accounts for the file, wherever it begins.

    One that begins later than NSYMBT says, and has not as many frames as NZ says, may lack the
    first frames: these may be damaged.
    """
    sound = 0 <= header.nsymbt <= end - HEADER_NBYTES
    for start in _places_of_chunks(file, header, end):
        try:
            chain = walk(file, header, start, end)
        except MrczError:
            continue
        count = len(chain.offsets)
        if not count:
            continue
        if count == header.nz or (
            (not sound or start <= header.data_offset)
            and (chain.cut or (chain.stop == end and count > header.nz))
        ):
            return chain
    return None


def _places_of_chunks(file: RandomAccessFile, header: Header, end: int) -> Iterator[int]:
    """Find where a chunk of one frame may begin: all have the frame's size at their fifth byte."""
    head = file.read(HEADER_NBYTES, min(LARGEST_EXTENDED, end - HEADER_NBYTES))
    if header.frame_nbytes >= 2**32:
        return
    wanted, at = header.frame_nbytes.to_bytes(4, "little"), 0
    for _ in range(_MOST_PLACES):
        at = head.find(wanted, at + 1)
        if at < 0:
            return
        if at >= 4 and head[at - 4] in (2, 5):
            yield HEADER_NBYTES + at - 4


def is_chunk(file: RandomAccessFile, header: Header, offset: int, end: int) -> bool:
    """Return whether a chunk of one frame begins at byte `offset`."""
    if end - offset < CHUNK_HEADER_NBYTES:
        return False
    chunk = parse_chunk_header(file.read(offset, CHUNK_HEADER_NBYTES))
    where: dict[str, Any] = {"path": file.path, "frame": 0, "offset": offset}
    try:
        check_chunk(chunk, header.frame_nbytes, end - offset, **where)
    except MrczError:
        return False
    return True


def decodes(file: RandomAccessFile, header: Header, chain: Chain, at: int) -> bool:
    """Return whether the chunk with index `at` can be decompressed."""
    offset, nbytes = chain.offsets[at], chain.sizes[at]
    where: dict[str, Any] = {"path": file.path, "frame": 0, "offset": offset}
    pixels = np.empty(header.frame_nbytes, np.uint8)
    try:
        decompress(memoryview(file.read(offset, nbytes)), pixels, **where)
    except NotEnoughMemory:
        raise
    except MrczError:
        return False
    return True


def codec_at(file: RandomAccessFile, offset: int) -> int:
    """Return the number in MODE of the codec that a chunk states."""
    chunk = parse_chunk_header(file.read(offset, CHUNK_HEADER_NBYTES))
    return CODECS.get(chunk.codec, CODECS["zstd"])
