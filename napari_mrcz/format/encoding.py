"""How frames are compressed: codec, level, filter, block size, encoder; the latter from the data.

Counted frames of few electrons compress best with bitshuffle, those of many without a filter, and
both better in 1 MB blocks than in `mrcz`'s 64 kB, by an encoder that looks for no repeats (see
`count_encoding`); frames with repeats, such as volumes, by blosc's own: so each is tried on a
sample. Shannon's bound says how much is left to gain.
"""

from __future__ import annotations

import math
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import groupby, product
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from napari_mrcz.format.chunks import CHUNK_HEADER_NBYTES, FILTERS, compress, parse_chunk_header
from napari_mrcz.format.header import CODECS
from napari_mrcz.format.machine import new_buffer

Result = TypeVar("Result")

# What our own encoder is called: its chunks are zstd's.
COUNT_CODER = "zstd for counts"

_BLOCK_TARGETS = (2**20, 2**18)
# A sample of a frame holds at least one of the largest blocks.
_EXCERPT_NBYTES = 2**21
# Of a chunk's flags.
_FLAG_OF_FILTER = {"shuffle": 0x01, "bitshuffle": 0x04}
# Encodings are tried on a small part of each sample first; those that leave it larger than the best
# by such a factor no further. A small block of counts differs by some per cent from a large one.
_FIRST_NBYTES, _HOPELESS = 2**17, 1.08
# Other than counts, what is left of pixels that hardly differ.
_REPEATING = 0.1
# No difference: the encoding that is faster is taken.
_AS_GOOD = 1.0005


@dataclass(frozen=True)
class Encoding:
    """How frames are compressed; raise `ValueError` if that is not possible."""

    codec: str = "zstd"  # "zstd", "lz4", "lz4hc", "zlib", "blosclz", or "none" for plain pixels
    level: int = 1  # 1 (fast) to 9 (small); a lower level is chosen where that is smaller
    filter: str = "auto"  # "auto", "none", "shuffle" or "bitshuffle"
    block_size: int | str = "auto"  # Bytes
    # Code integers by our own encoder, which looks for no repeats (zstd only); None to choose by a
    # sample
    as_counts: bool | None = None

    def __post_init__(self) -> None:
        if self.codec != "none" and self.codec not in CODECS:
            raise ValueError(f"codec {self.codec!r} is none of {', '.join(CODECS)}, none")
        if self.filter != "auto" and self.filter not in FILTERS:
            raise ValueError(f"filter {self.filter!r} is none of auto, {', '.join(FILTERS)}")
        if self.level not in range(1, 10):
            raise ValueError(f"level {self.level!r} is not a whole number from 1 to 9")
        size = self.block_size
        if size != "auto" and not (isinstance(size, int) and 16 <= size < 2**30):
            raise ValueError(f"block size {size!r} is neither 'auto' nor 16 bytes to 1 GB")

    @property
    def number(self) -> int:
        """The codec's number in MODE, 0 for none."""
        return CODECS.get(self.codec, 0)

    @property
    def coder(self) -> str:
        """Name of what codes the frames: the codec, or our own encoder."""
        return COUNT_CODER if self.as_counts else self.codec

    @property
    def block_nbytes(self) -> int:
        """Block size in bytes; blosc takes 0 as its own choice."""
        return self.block_size if isinstance(self.block_size, int) else 0

    def compress(
        self, frame: npt.NDArray[Any], room: memoryview | None = None, look: Look | None = None
    ) -> bytes | memoryview:
        """Compress one frame; `filter`, `block_size` and `as_counts` must have been chosen.

        `frame`: contiguous pixels, as they are to be stored; `room`, `look`: used by our own
        encoder alone, see `compress_counts`.
        """
        if self.as_counts:
            return compress_counts(frame, self.level, self.filter, self.block_nbytes, room, look)
        return compress(frame, self.codec, self.level, self.filter, self.block_nbytes)


def choose_encoding(
    encoding: Encoding, frames: Sequence[npt.NDArray[Any]], frame_nbytes: int | None = None
) -> Encoding:
    """Replace "auto" by what makes a sample of frames smallest.

    `encoding`: what was asked for; explicit choices are honoured; `frames`: a few frames (y, x) as
    they will be stored, or excerpts of them; `frame_nbytes`: bytes of a whole frame, where excerpts
    are given.
    """
    if encoding.codec == "none":
        return encoding
    # Whole-byte shuffling does nothing for single bytes.
    wide = any(f.dtype.itemsize > 1 for f in frames)
    filters: Sequence[str] = (encoding.filter,)
    if encoding.filter == "auto":
        # The faster ones first.
        filters = ("shuffle", "none", "bitshuffle") if wide else ("none", "bitshuffle")
    blocks: Sequence[int | str] = (encoding.block_size,)
    if encoding.block_size == "auto":
        nbytes, itemsize = frame_nbytes or frames[0].nbytes, frames[0].itemsize
        sizes = {_even_block(nbytes, itemsize, target) for target in _BLOCK_TARGETS}
        blocks = sorted(sizes, reverse=True)
    # Blosc's codecs make some data larger at higher levels: lower ones count as well.
    levels = range(1, encoding.level + 1)
    candidates = [
        replace(encoding, level=level, filter=f, block_size=b, as_counts=False)
        for f, b, level in product(filters, blocks, levels)
    ]
    if encoding.codec == "zstd" and all(f.dtype.kind in "iu" for f in frames):
        # Smaller blocks never help: every bit plane has a code of its own in any case. Bits are
        # coded faster than bytes.
        candidates = [
            replace(encoding, filter=f, block_size=blocks[0], as_counts=True)
            for f in reversed(filters)
        ] + candidates
    if encoding.as_counts is not None:
        candidates = [c for c in candidates if c.as_counts == encoding.as_counts] or candidates
    if len(candidates) > 1:
        tried = _fractions(candidates, frames, _FIRST_NBYTES)
        first = min(tried, key=lambda c: tried[c])
        # What repeats from row to row does so in larger blocks alone.
        repeats = not first.as_counts and tried[first] < _REPEATING
        alike: dict[Encoding, list[Encoding]] = {}  # but for the level
        for candidate in sorted(tried, key=lambda c: tried[c]):
            hopeless = tried[candidate] > _HOPELESS * tried[first]
            if not hopeless or (repeats and not candidate.as_counts):
                alike.setdefault(replace(candidate, level=9), []).append(candidate)
        best = {c for group in alike.values() for c in group[:2]}
        candidates = [c for c in candidates if c in best]
    if len(candidates) == 1:
        return candidates[0]
    largest = [c for c in candidates if c.block_size == blocks[0]]
    tried = _fractions(largest, frames, _EXCERPT_NBYTES)
    chosen = _first_of_the_smallest(tried)
    if not chosen.as_counts:
        smaller = [c for c in candidates if c not in largest and c.filter == chosen.filter]
        tried |= _fractions(smaller, frames, _EXCERPT_NBYTES)
        chosen = _first_of_the_smallest(tried)
    return chosen


def _first_of_the_smallest(tried: dict[Encoding, float]) -> Encoding:
    """Return the first, and so the fastest, of those that make frames as small as any."""
    least = min(tried.values())
    return next(c for c, fraction in tried.items() if fraction <= _AS_GOOD * least)


def _fractions(
    candidates: Sequence[Encoding], frames: Sequence[npt.NDArray[Any]], nbytes: int
) -> dict[Encoding, float]:
    """Return what candidates leave of the first bytes of each frame."""
    parts = [f.reshape(-1)[: max(1, nbytes // f.itemsize)] for f in frames]
    return {c: compressed_fraction(c, parts) for c in candidates}


def encoding_of(frames: Sequence[tuple[bytes, npt.NDArray[Any]]]) -> Encoding | None:
    """Return the encoding that makes these bytes of some frames, found by trying.

    `frames`: chunks of a file, at least one, and the pixels of each as they are stored, contiguous.
    The result is None if no encoding does, as where another version of blosc wrote it, or threads
    of blosc's wrote the blocks of a chunk in another order.
    """
    return alone(lambda: _encoding_of(frames))


def alone(work: Callable[[], Result]) -> Result:
    """Do work in another than the main thread, so that it makes the same chunks each time.

    In the main thread numcodecs lets blosc use threads of its own, which write the blocks of a
    chunk in the order in which they are done.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    with ThreadPoolExecutor(1, "napari-mrcz-encode") as thread:
        return thread.submit(work).result()


def _encoding_of(frames: Sequence[tuple[bytes, npt.NDArray[Any]]]) -> Encoding | None:
    headers = [parse_chunk_header(chunk) for chunk, _ in frames]
    # What could not be compressed is stored as it is, and says little of the encoding.
    first = next((at for at, header in enumerate(headers) if header.codec != "none"), 0)
    header, (chunk, frame) = headers[first], frames[first]
    if header.version != 2 or header.nbytes != frame.nbytes or header.blocksize < 16:
        return None
    filter_ = next((name for name, flag in _FLAG_OF_FILTER.items() if header.flags & flag), "none")
    codecs = {"lz4": ("lz4", "lz4hc"), "none": tuple(CODECS)}.get(header.codec, (header.codec,))
    block = frame.reshape(-1)[: header.blocksize // frame.itemsize]
    start = struct.unpack_from("<I", chunk, CHUNK_HEADER_NBYTES)[0]
    for codec, as_counts, level in product(codecs, (True, False), range(1, 10)):
        if codec not in CODECS or (as_counts and codec != "zstd"):
            continue
        encoding = Encoding(codec, level, filter_, header.blocksize, as_counts)
        # The first block alone shows most of what does not fit.
        made = encoding.compress(block)[CHUNK_HEADER_NBYTES + 4 :]
        if header.codec != "none" and chunk[start : start + len(made)] != made:
            continue
        if all(encoding.compress(pixels) == stored for stored, pixels in frames):
            return encoding
    return None


def compressed_fraction(encoding: Encoding, frames: Sequence[npt.NDArray[Any]]) -> float:
    """Return compressed over plain bytes of frames or excerpts, by a chosen encoding."""
    if encoding.codec == "none":
        return 1.0
    samples = [_whole_blocks(frame, encoding.block_nbytes) for frame in frames]
    return sum(len(encoding.compress(s)) for s in samples) / sum(s.nbytes for s in samples)


def shannon_fraction(frames: Sequence[npt.NDArray[Any]]) -> float | None:
    """Return Shannon's bound for independent pixels: entropy in bits over the bits they take.

    `frames`: a few frames, or excerpts of them. Only counts have a bound that a sample shows: of
    pixels that hardly ever repeat (most float images) the result is None.

    Shannon (1948), doi:10.1002/j.1538-7305.1948.tb01338.x.
    """
    pixels = np.concatenate([excerpt(frame) for frame in frames])
    if pixels.dtype.kind == "f":
        pixels = pixels.view(f"u{pixels.dtype.itemsize}")
    _, counts = np.unique(pixels, return_counts=True)
    if len(counts) > pixels.size // 20:
        return None
    p = counts / pixels.size
    return float(-(p * np.log2(p)).sum() / (8 * pixels.dtype.itemsize)) + 0.0


def excerpt(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy 2 MB of pixels from the middle of a frame, or all there are, in a row."""
    flat = frame.reshape(-1)
    wanted = _EXCERPT_NBYTES // flat.itemsize
    start = max(0, (flat.size - wanted) // 2)
    return flat[start : start + wanted].copy()


def _even_block(frame_nbytes: int, itemsize: int, target: int) -> int:
    """Return a block size near `target` bytes that divides a frame into equal blocks.

    Blosc leaves a last block that is not a multiple of eight pixels unshuffled: with blocks of
    exactly 1 MB that is up to 1 MB per frame, with equal ones no more than a few bytes.
    """
    count = max(1, round(frame_nbytes / target))
    unit = 8 * itemsize
    return max(16, frame_nbytes // (count * unit) * unit)


def _whole_blocks(frame: npt.NDArray[Any], block_nbytes: int) -> npt.NDArray[Any]:
    """Return as many whole blocks as an excerpt holds: the rest would not be shuffled."""
    pixels = excerpt(frame)
    blocks = max(1, pixels.nbytes // max(1, block_nbytes))
    return pixels[: max(1, blocks * block_nbytes // pixels.itemsize)]


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_VERSION, _ZSTD_VERSION = 2, 1
_SHUFFLED, _STORED, _BITSHUFFLED, _NOT_SPLIT, _ZSTD = 0x01, 0x02, 0x04, 0x10, 4 << 5
_HEADER = struct.Struct("<4B3I")
_FLAGS = {"none": 0, "shuffle": _SHUFFLED, "bitshuffle": _BITSHUFFLED}

_P, _S = zstd.CompressionParameter, zstd.Strategy
_COMMON: dict[int, int] = {_P.window_log: 17, _P.content_size_flag: 1, _P.checksum_flag: 0}
# `ZSTD_c_literalCompressionMode` ("enable", "disable"): experimental, so that Python has no name
# for it. Left alone, a long target length would leave literals uncoded.
_LITERAL_MODE, _HUFFMAN, _AS_THEY_ARE = 1002, 1, 2
_FAST: dict[int, int] = {_P.strategy: _S.fast, _P.min_match: 7, _P.hash_log: 6}
# The longest target length skips everything: literals only.
_LITERALS = {**_COMMON, **_FAST, _P.target_length: 2**17, _LITERAL_MODE: _HUFFMAN}
_STORED_LITERALS = {**_LITERALS, _LITERAL_MODE: _AS_THEY_ARE}
# Small tables find what is near: the last run of zeros, which costs least to refer to.
_NEAR: dict[int, int] = {_P.hash_log: 6, _P.chain_log: 6, _P.search_log: 1}
_WIDE: dict[int, int] = {_P.hash_log: 16, _P.chain_log: 17, _P.search_log: 7}
_OPTIMAL: dict[int, int] = {**_COMMON, _P.strategy: _S.btopt, _P.target_length: 999}


class _Parser(NamedTuple):
    """From which level on parameters are tried, on planes with which share of non-zero bytes.

    Other planes are smaller by another parser of the same level (measured on random planes).
    """

    level: int
    parameters: dict[int, int]
    least: float
    most: float


_LITERALS_ONLY, _UNCODED = 0, -1
# Coding would make planes of random bits, of which more bytes than this are not 0, smaller by less
# than 1/64: zstd stores them as they are, but after trying.
_DENSE = 0.9884
# Where planes are dense but not random, as those of an offset, two bytes are equal more often than
# once in so many pairs (of random bits at that density); counted in a sample.
_PAIRS, _SAMPLE_NBYTES = 216, 4096
_PARSERS = (
    _Parser(1, _LITERALS, 0.06, 1.0),
    _Parser(1, {**_COMMON, **_FAST, _P.target_length: 0}, 0.0, 0.11),
    _Parser(3, {**_COMMON, **_NEAR, _P.strategy: _S.lazy2, _P.min_match: 6}, 0.0, 0.15),
    _Parser(6, {**_OPTIMAL, **_NEAR, _P.min_match: 5}, 0.0, 0.35),
    _Parser(9, {**_OPTIMAL, **_WIDE, _P.min_match: 6}, 0.0, 0.25),
    _Parser(9, {**_OPTIMAL, **_NEAR, _P.strategy: _S.btultra, _P.min_match: 6}, 0.0, 0.35),
    _Parser(1, _STORED_LITERALS, math.inf, 0.0),  # for planes that are random alone
)

Bytes = npt.NDArray[np.uint8]
Planes = list[Bytes | None]  # lowest bit first, 8 pixels per byte; None where all are 0
Look = Callable[[npt.NDArray[Any], Planes | None], None]


def compress_counts(
    frame: npt.NDArray[Any],
    level: int,
    filter_: str,
    block_nbytes: int,
    room: memoryview | None = None,
    look: Look | None = None,
) -> memoryview:
    """Compress one contiguous frame into a version-2 chunk.

    `frame`: pixels as they are to be stored; `level`: 1 (literals, and runs of zeros found fast) to
    9 (runs of zeros by zstd's optimal parser); a higher level is never larger; `filter_`: how the
    bytes or bits of a block are rearranged; `block_nbytes`: block size, a multiple of 8 pixels;
    blosc's buffers for reading are as large; `room`: memory for the chunk, of the frame's bytes and
    `CHUNK_HEADER_NBYTES`; `look`: called with the pixels of each block and its bit planes, where
    these are made. The chunk is at the beginning of `room` or of new memory, and the same for the
    same input.
    """
    itemsize, nbytes = frame.itemsize, frame.nbytes
    pixels = frame.reshape(-1).view(f"<u{itemsize}")
    unit = 8 * itemsize
    block_nbytes = min(max(unit, block_nbytes // unit * unit), nbytes)
    n_blocks = -(-nbytes // block_nbytes)
    step = block_nbytes // itemsize
    flags = _ZSTD | _NOT_SPLIT | _FLAGS[filter_]
    most = nbytes + _HEADER.size
    if room is None:
        room = new_buffer(most)
    offsets = np.zeros(n_blocks, "<u4")
    position = _HEADER.size + offsets.nbytes
    for block in range(n_blocks):
        part = pixels[block * step : (block + 1) * step]
        planes = None
        if filter_ == "bitshuffle" and part.size % 8 == 0:
            planes = list(_planes(part))  # blosc leaves blocks of another size as they are
        if look is not None:
            look(part.view(frame.dtype), planes)
        if position > most:  # the frame is stored as it is
            continue
        streams: list[Any] = list(_streams(part, planes, level, filter_))
        length = sum(map(len, streams))
        if length >= part.nbytes:
            streams = [_rearranged(part, planes, filter_)]
            length = part.nbytes
        offsets[block] = position
        if position + 4 + length <= most:
            _put(room, position, struct.pack("<i", length), *streams)
        position += 4 + length
    if position > most:
        flags, position = flags | _STORED, most
        _put(room, _HEADER.size, pixels.view(np.uint8))
    else:
        _put(room, _HEADER.size, offsets.view(np.uint8))
    _HEADER.pack_into(
        room, 0, _VERSION, _ZSTD_VERSION, flags, itemsize, nbytes, block_nbytes, position
    )
    return room[:position]


def _put(room: memoryview, position: int, *pieces: Any) -> None:
    """Copy bytes to a position, one piece after the other."""
    for piece in pieces:
        room[position : position + len(piece)] = piece
        position += len(piece)


def _streams(
    pixels: npt.NDArray[Any], planes: Planes | None, level: int, filter_: str
) -> Iterator[bytes]:
    """Yield the zstd frames of one block."""
    if planes is not None:
        # Planes of nothing else are one frame as long as they follow one another.
        for is_zero, run in groupby(planes, lambda plane: plane is None):
            if is_zero:
                yield _zeros(len(list(run)) * (pixels.size // 8))
            else:
                yield from (_smallest(plane, level) for plane in run if plane is not None)
    elif filter_ == "shuffle":
        for column, _ in _columns(pixels):
            yield _zeros(pixels.size) if column is None else _coded(column, _LITERALS_ONLY)
    else:
        yield _coded(pixels.view(np.uint8), _LITERALS_ONLY)


def _columns(pixels: npt.NDArray[Any]) -> Iterator[tuple[Bytes | None, int]]:
    """Yield the first bytes of all pixels, then the second ...; None where all are 0.

    With each comes the union of its bits.
    """
    used = int(np.bitwise_or.reduce(pixels))
    for shift in range(0, 8 * pixels.itemsize, 8):
        if bits := used >> shift & 0xFF:
            shifted = pixels >> pixels.dtype.type(shift) if shift else pixels
            yield shifted.astype(np.uint8, copy=False), bits
        else:
            yield None, 0


def _planes(pixels: npt.NDArray[Any]) -> Iterator[Bytes | None]:
    """Yield the bit planes of a block, lowest bit first, 8 pixels per byte; None for all zeros."""
    # The same memory each time: fresh memory is slow at first.
    if _of_this_thread.scratch.size < pixels.size:
        _of_this_thread.scratch = np.empty(pixels.size, np.uint8)
    masked = _of_this_thread.scratch[: pixels.size]
    for values, used in _columns(pixels):
        for bit in range(8):
            if values is None or not used >> bit & 1:
                yield None
                continue
            alone = used == 1 << bit
            bits = values if alone else np.bitwise_and(values, np.uint8(1 << bit), out=masked)
            yield np.packbits(bits, bitorder="little")


def _rearranged(pixels: npt.NDArray[Any], planes: Planes | None, filter_: str) -> Bytes:
    """Return the bytes of a block as blosc's filter leaves them."""
    if planes is not None:
        parts, nbytes = planes, pixels.size // 8
    elif filter_ == "shuffle":
        parts, nbytes = [column for column, _ in _columns(pixels)], pixels.size
    else:
        return pixels.view(np.uint8)
    zeros = np.zeros(nbytes, np.uint8)
    return np.concatenate([zeros if part is None else part for part in parts])


@lru_cache(64)
def _zeros(nbytes: int) -> bytes:
    """Return so many zeros compressed: most planes of counts are nothing else."""
    return _coded(np.zeros(nbytes, np.uint8), 1)


def _smallest(data: Bytes, level: int) -> bytes:
    """Return a plane compressed in the best way that the level allows."""
    share = np.count_nonzero(data) / data.size
    if share > _DENSE and _is_random(data):
        return _coded(data, _UNCODED)
    found = (
        _coded(data, number)
        for number, parser in enumerate(_PARSERS)
        if parser.level <= level and parser.least <= share <= parser.most
    )
    return min(found, key=len)


def _is_random(plane: Bytes) -> bool:
    """Check whether the bytes of a dense plane are so evenly distributed that no code helps."""
    sample = plane[:: 1 + plane.size // _SAMPLE_NBYTES]
    counts = np.bincount(sample)
    equal = int(counts @ counts) - sample.size
    return _PAIRS * equal <= sample.size * (sample.size - 1)


def _coded(data: Bytes, number: int) -> bytes:
    """Return data compressed by one of `_PARSERS`."""
    compressors = _of_this_thread.compressors
    if number not in compressors:
        compressors[number] = zstd.ZstdCompressor(options=_parameters(number))
    compressor = compressors[number]
    return compressor.compress(data.data, mode=compressor.FLUSH_FRAME)


@cache
def _parameters(number: int) -> dict[int, int]:
    """Return a parser's parameters, or the nearest that this zstd takes."""
    try:
        zstd.ZstdCompressor(options=_PARSERS[number].parameters)
    except (ValueError, zstd.ZstdError):  # this zstd has no such mode
        number = 1
    return _PARSERS[number].parameters


class _OfThisThread(threading.local):
    def __init__(self) -> None:
        self.compressors: dict[int, zstd.ZstdCompressor] = {}
        self.scratch: Bytes = np.empty(0, np.uint8)


_of_this_thread = _OfThisThread()
