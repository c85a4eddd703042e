"""Blosc chunks, one a frame: compressing, checking what one claims, decompressing; chains of them.

What a chunk's 16-byte header says is checked before a byte is decompressed. numcodecs is used
rather than python-blosc because it takes the block size as an argument and releases the GIL,
where python-blosc has process-wide settings for both, which belong to the host program.

Chunk layouts: c-blosc README_CHUNK_FORMAT (version 2), c-blosc2 README_CHUNK_FORMAT (version 5).
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, has_room, size_text
from napari_mrcz.format.header import CODECS, HEADER_NBYTES, LARGEST_EXTENDED, Header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_mrcz.format.files import RandomAccessFile

CHUNK_HEADER_NBYTES = 16
LARGEST_FRAME: int = blosc.MAX_BUFFERSIZE

# Of working memory: blosc's buffers, of two blocks, and a codec's tables, which grow with them;
# a codec's context (zstd: 160 kB to decompress, more to compress) and a thread's stack.
_PER_BLOCK = 4
_CONTEXT_NBYTES = 2**20
_STACK_NBYTES = 2**23
# The largest that blosc chooses itself.
_OWN_BLOCK_NBYTES = 2**21
_ATTEMPTS = 2

FILTERS = {"none": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}

# Bits 5-7 of a chunk's flags; lz4 and lz4hc share a format.
_CODEC_OF_FLAG = {0: "blosclz", 1: "lz4", 2: "snappy", 3: "zlib", 4: "zstd"}
_MEMCPYED = 0x02
# zstd packs equal bytes tightest: blocks of 128 kB into 4 bytes each.
_LARGEST_EXPANSION = 2**15
_BLOSC2_EXTENDED_NBYTES = 32
# Version-5 header: both shuffle bits of the flags announce 16 more bytes, with six filters at 16,
# the codec at 22 and more flags at 31.
_BLOSC2_EXTENDED = 0x05
_BLOSC2_LAST_FILTER, _BLOSC2_LAST_CODEC = 4, 5
_BLOSC2_LAZY, _BLOSC2_INSTRUMENTED, _BLOSC2_UNINITIALISED = 0x08, 0x80, 4


@dataclass(frozen=True)
class ChunkHeader:
    """The first 16 bytes of a blosc chunk; sizes in bytes."""

    version: int
    flags: int
    typesize: int
    nbytes: int
    blocksize: int
    ctbytes: int

    @property
    def codec(self) -> str:
        """Name of the codec that the chunk itself states."""
        if self.flags & _MEMCPYED:
            return "none"
        return _CODEC_OF_FLAG.get(self.flags >> 5, "unknown")


def parse_chunk_header(raw: bytes) -> ChunkHeader:
    """Split the first 16 bytes of a chunk into fields, believing nothing yet."""
    return ChunkHeader(*struct.unpack_from("<BxBB3I", raw))


def chunk_at(file: RandomAccessFile, offset: int) -> ChunkHeader:
    """Return the header of the chunk that begins at byte `offset`."""
    return parse_chunk_header(file.read(offset, CHUNK_HEADER_NBYTES))


def check_chunk(
    header: ChunkHeader,
    frame_nbytes: int,
    available: int,
    *,
    path: AnyPath,
    frame: int,
    offset: int,
) -> None:
    """Refuse a chunk whose header cannot be true.

    `frame_nbytes`: bytes that a frame has according to the file's header; `available`: bytes
    between the chunk's start and the end of the pixel data; `path`, `frame`, `offset`: where the
    chunk lies, for the message. Raise `MrczError` if it is not a blosc chunk, is not decodable
    here, or lies about its sizes.
    """

    def refuse(found: str, advice: str = "The file is damaged") -> MrczError:
        return MrczError(path, found, frame=frame, offset=offset, advice=advice)

    if header.version not in (2, 5):
        raise refuse(f"no blosc chunk begins here (its version would be {header.version})")
    if header.nbytes * 2 == frame_nbytes:
        advice = (
            "mrcz 0.4.0 to 0.5.10 lost the other half when it cast to a wider pixel type; "
            "it can only be had from the original movie"
        )
        raise refuse("the chunk holds half a frame", advice)
    if header.nbytes == 2 * frame_nbytes and header.typesize == 8:
        advice = "mrcz 0.2.5 mislabelled such files; read the file with it and write it again"
        raise refuse("the chunk holds float64, where the header says float32", advice)
    if header.nbytes != frame_nbytes:
        raise refuse(f"the chunk holds {header.nbytes} bytes, where a frame has {frame_nbytes}")
    if not CHUNK_HEADER_NBYTES <= header.ctbytes <= available:
        found = f"the chunk claims {header.ctbytes} compressed bytes, where {available} are left"
        raise refuse(found, "The file is truncated or damaged")
    if not header.typesize or not header.blocksize:
        raise refuse("the chunk's item size or block size is 0")
    if header.version == 2 and header.nbytes > _LARGEST_EXPANSION * header.ctbytes:
        raise refuse(f"the chunk claims that {header.ctbytes} bytes hold {header.nbytes}")
    if header.codec == "snappy":
        found = "the frame is compressed with snappy, which no current blosc can decode"
        raise refuse(found, "Convert the file with mrcz before 0.5 and blosc before 1.11")
    if header.version == 5 and header.blocksize % header.typesize:
        pixels = f"the {header.typesize}-byte pixels, so they decode to wrong pixels"
        found = f"blocks of {header.blocksize} bytes are not a multiple of {pixels}"
        advice = "mrcz 0.6.0 with backend='blosc2' wrote it; write it again without that option"
        raise refuse(found, advice)
    if header.flags >> 5 not in _CODEC_OF_FLAG:
        found = f"codec number {header.flags >> 5} is not built into blosc"
        raise refuse(found, "Only built-in codecs are decoded: a plug-in codec would run code")


def compress(
    frame: npt.NDArray[Any], codec: str, level: int, filter_: str, block_nbytes: int
) -> bytes:
    """Compress one contiguous frame into a version-2 chunk, which every MRCZ reader takes.

    `frame`: pixels in the order and byte order in which they are to be stored; `codec`: a key of
    `CODECS`; `level`: 1 (fast) to 9 (small); `filter_`: a key of `FILTERS`; `block_nbytes`: block
    size in bytes; blosc rounds it to whole pixels and to the frame's size. Raise `NotEnoughMemory`
    if there is not enough to compress it.
    """
    if not has_room(_working_nbytes(block_nbytes or _OWN_BLOCK_NBYTES, frame.nbytes)):
        raise NotEnoughMemory(None, f"compressing a frame of {size_text(frame.nbytes)}")
    code = codec.encode("ascii")
    return bytes(blosc.compress(frame, code, level, FILTERS[filter_], block_nbytes))


def decompress(
    chunk: memoryview, out: npt.NDArray[Any], *, path: AnyPath, frame: int, offset: int
) -> None:
    """Decompress a chunk, which `check_chunk` checks first, into `out` of the frame's exact size.

    `chunk`: its bytes, and perhaps others behind it; `path`, `frame`, `offset`: where it lies, for
    messages. Raise `MrczError` if the chunk is damaged, or of version 5 where `blosc2` is not
    installed. Raise `NotEnoughMemory` if there is not enough to decompress it.
    """
    where: dict[str, Any] = {"path": path, "frame": frame, "offset": offset}
    if len(chunk) < CHUNK_HEADER_NBYTES:
        raise MrczError(found="the chunk is shorter than its own header", **where)
    header = parse_chunk_header(bytes(chunk[:CHUNK_HEADER_NBYTES]))
    check_chunk(header, out.nbytes, len(chunk), **where)
    chunk, target = chunk[: header.ctbytes], out.reshape(-1).view(np.uint8)
    if header.version == 5:
        decode = _blosc2_decoder(chunk, target, where)
    else:
        decode = partial(blosc.decompress, chunk, target)
    if not decoded(decode, header):
        codec = "version-5" if header.version == 5 else header.codec
        found = f"the {codec} chunk cannot be decompressed"
        advice = "The frame is damaged; the others can still be read"
        raise MrczError(found=found, advice=advice, **where)


def decoded(decode: Callable[[], object], header: ChunkHeader) -> bool:
    """Decode a chunk, and return whether that succeeded; if not, the chunk is damaged.

    Blosc gives one error for a damaged chunk and for memory that its codec did not get, and writes
    to address 0 if it gets none itself. So the memory that it needs is looked for before; and what
    failed is tried again, as it may have been taken by another thread in between.

    Raise `NotEnoughMemory` if there is not enough to decompress it.
    """
    needed = _working_nbytes(header.blocksize, header.nbytes)
    for _ in range(_ATTEMPTS):
        _check_room(needed, header.nbytes)
        with contextlib.suppress(RuntimeError, ValueError):
            decode()
            return True
    _check_room(needed, header.nbytes)
    return False


def _check_room(needed: int, frame_nbytes: int) -> None:
    if not has_room(needed):
        raise NotEnoughMemory(None, f"decompressing {size_text(frame_nbytes)}")


def _working_nbytes(block_nbytes: int, frame_nbytes: int) -> int:
    """Return what blosc and its codec allocate at most, in all threads of their own."""
    block = min(block_nbytes, frame_nbytes)
    # In the main thread numcodecs lets blosc use threads of its own, each with its stack.
    each, threads = _PER_BLOCK * block + _CONTEXT_NBYTES, frame_nbytes // max(1, block)
    if threads > 1:
        alone = threading.current_thread() is not threading.main_thread()
        threads = 1 if alone else min(_internal_threads(), threads)
    return threads * (each + _STACK_NBYTES) if threads > 1 else each


def _internal_threads() -> int:
    """Return how many threads blosc uses for one chunk."""
    with contextlib.suppress(ValueError):
        return int(os.environ.get("BLOSC_NTHREADS", ""))  # goes before what was set
    return int(blosc.get_nthreads())


def _blosc2_decoder(
    chunk: memoryview, target: npt.NDArray[np.uint8], where: dict[str, Any]
) -> Callable[[], object]:
    """Return what decompresses a version-5 chunk, by built-in filters only.

    A plug-in codec or filter would make c-blosc2 start Python from the working directory.
    `blosc2.decompress` crashes on damaged chunks, so `decompress2` is the one that is called.
    """
    raw = bytes(chunk[:_BLOSC2_EXTENDED_NBYTES])
    if (
        len(raw) < _BLOSC2_EXTENDED_NBYTES
        or raw[2] & _BLOSC2_EXTENDED != _BLOSC2_EXTENDED
        or max(raw[16:22]) > _BLOSC2_LAST_FILTER
        or raw[22] > _BLOSC2_LAST_CODEC
        or raw[31] & (_BLOSC2_LAZY | _BLOSC2_INSTRUMENTED)
        or (raw[31] >> 4) & 7 >= _BLOSC2_UNINITIALISED
    ):
        found = "the version-5 chunk names a plug-in codec or filter, or is damaged"
        advice = "Only built-in filters are decoded: a plug-in would run code"
        raise MrczError(found=found, advice=advice, **where)
    try:
        import blosc2
    except ImportError:
        found = "the frame is a version-5 chunk, which needs the blosc2 package"
        advice = "Install it with: pip install 'napari-mrcz[blosc2]'"
        raise MrczError(found=found, advice=advice, **where) from None
    return partial(blosc2.decompress2, chunk, dst=target)


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


def walk(file: RandomAccessFile, header: Header, start: int, end: int) -> Chain:
    """Follow the chunk headers from byte `start`, as long as one leads to another.

    Raise `MrczError` if one of the frames that the header announces cannot be a chunk.
    """
    offsets: list[int] = []
    sizes: list[int] = []
    offset, cut, typesize = start, False, 0
    while (left := end - offset) >= CHUNK_HEADER_NBYTES:
        frame = len(offsets)
        chunk = chunk_at(file, offset)
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
    """Return the first chain of chunks that accounts for the file.

    One that begins later than NSYMBT says, with fewer frames than NZ says, may lack the first
    frames: these may be damaged.
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
    if (left := end - offset) < CHUNK_HEADER_NBYTES:
        return False
    where: dict[str, Any] = {"path": file.path, "frame": 0, "offset": offset}
    try:
        check_chunk(chunk_at(file, offset), header.frame_nbytes, left, **where)
    except MrczError:
        return False
    return True


def decodes(file: RandomAccessFile, header: Header, chain: Chain, at: int) -> bool:
    """Return whether the chunk with index `at` can be decompressed."""
    offset = chain.offsets[at]
    chunk = memoryview(file.read(offset, chain.sizes[at]))
    pixels = np.empty(header.frame_nbytes, np.uint8)
    try:
        decompress(chunk, pixels, path=file.path, frame=0, offset=offset)
    except NotEnoughMemory:
        raise
    except MrczError:
        return False
    return True


def codec_at(file: RandomAccessFile, offset: int) -> int:
    """Return the number in MODE of the codec that a chunk states."""
    return CODECS.get(chunk_at(file, offset).codec, CODECS["zstd"])
