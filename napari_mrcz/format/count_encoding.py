"""Blosc chunks of counts, written by our own encoder and read by every blosc.

Counts of independent pixels hold no repeats. zstd's search for them takes most of its time, and
every match that it finds costs more than the literals that it replaces: only its entropy coder
(Huffman) helps. Blosc cannot be asked to leave out the search, but a chunk of version 2 is only a
header, the offsets of its blocks, and one zstd stream per block, which may be made with any
parameters and may consist of several zstd frames. Bit planes become one frame each, so that each
has a code of its own. A byte of a Huffman code takes at least one bit, so planes in which most
bytes are 0 are searched for runs of zeros, the better the higher the level.

Layout: c-blosc README_CHUNK_FORMAT, version 2.
"""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.format.memory import new_buffer

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
# `ZSTD_c_literalCompressionMode` and its value "enable": of zstd's "experimental" parameters, which
# Python has no names for. Without it a long target length would leave literals uncoded.
_LITERAL_MODE, _HUFFMAN = 1002, 1
_FAST: dict[int, int] = {_P.strategy: _S.fast, _P.min_match: 7, _P.hash_log: 6}
# The longest target length skips everything: literals only.
_LITERALS = {**_COMMON, **_FAST, _P.target_length: 2**17, _LITERAL_MODE: _HUFFMAN}
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


_LITERALS_ONLY = 0
_PARSERS = (
    _Parser(1, _LITERALS, 0.06, 1.0),
    _Parser(1, {**_COMMON, **_FAST, _P.target_length: 0}, 0.0, 0.11),
    _Parser(3, {**_COMMON, **_NEAR, _P.strategy: _S.lazy2, _P.min_match: 6}, 0.0, 0.15),
    _Parser(6, {**_OPTIMAL, **_NEAR, _P.min_match: 5}, 0.0, 0.35),
    _Parser(9, {**_OPTIMAL, **_WIDE, _P.min_match: 6}, 0.0, 0.25),
    _Parser(9, {**_OPTIMAL, **_NEAR, _P.strategy: _S.btultra, _P.min_match: 6}, 0.0, 0.35),
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
        zeros = 0  # planes of nothing else are one frame as long as they follow one another
        for plane in planes:
            if plane is None:
                zeros += pixels.size // 8
                continue
            if zeros:
                yield _zeros(zeros)
                zeros = 0
            yield _smallest(plane, level)
        if zeros:
            yield _zeros(zeros)
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
    masked = _scratch(pixels.size)
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
    found = (
        _coded(data, number)
        for number, parser in enumerate(_PARSERS)
        if parser.level <= level and parser.least <= share <= parser.most
    )
    return min(found, key=len)


def _coded(data: Bytes, number: int) -> bytes:
    """Return data compressed by one of `_PARSERS`."""
    compressors = _of_this_thread.compressors
    if number not in compressors:
        compressors[number] = zstd.ZstdCompressor(options=_parameters(number))
    compressor = compressors[number]
    coded: bytes = compressor.compress(data.data, mode=compressor.FLUSH_FRAME)
    return coded


@cache
def _parameters(number: int) -> dict[int, int]:
    """Return a parser's parameters, or the nearest that this zstd takes."""
    parameters = _PARSERS[number].parameters
    try:
        zstd.ZstdCompressor(options=parameters)
    except (ValueError, zstd.ZstdError):  # this zstd has no such mode
        return _PARSERS[1].parameters
    return parameters


def _scratch(size: int) -> Bytes:
    """Return room for so many bytes, the same each time: fresh memory is slow at first."""
    if _of_this_thread.scratch.size < size:
        _of_this_thread.scratch = np.empty(size, np.uint8)
    return _of_this_thread.scratch[:size]


class _OfThisThread(threading.local):
    def __init__(self) -> None:
        self.compressors: dict[int, zstd.ZstdCompressor] = {}
        self.scratch: Bytes = np.empty(0, np.uint8)


_of_this_thread = _OfThisThread()
