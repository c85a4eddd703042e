"""Blosc chunks of counts, written by our own encoder and read by every blosc.

Counts of independent pixels hold no repeats. zstd's search for them takes most of its time, and
every match that it finds costs more than the literals that it replaces: only its entropy coder
(Huffman) helps. Blosc cannot be asked to leave out the search, but a chunk of version 2 is only a
header, the offsets of its blocks, and one zstd stream per block, which may be made with any
parameters and may consist of several zstd frames. Bit planes become one frame each, so that each
has a code of its own, and the sparse ones may be searched where time allows.

Layout: c-blosc README_CHUNK_FORMAT, version 2.
"""

from __future__ import annotations

import struct
import sys
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["compress_counts"]

_VERSION, _ZSTD_VERSION = 2, 1
_SHUFFLED, _STORED, _BITSHUFFLED, _NOT_SPLIT, _ZSTD = 0x01, 0x02, 0x04, 0x10, 4 << 5
_HEADER = struct.Struct("<4B3I")
_FLAGS = {"none": 0, "shuffle": _SHUFFLED, "bitshuffle": _BITSHUFFLED}
# The levels from which planes are searched for runs, by better and better parsers; a plane that
# literals leave larger than this has none (measured on Poisson counts).
_LARGEST_SEARCHED = 0.65
_SEARCHED_FROM, _OPTIMISED_FROM, _ULTRA_FROM = 4, 7, 9

_P, _S = zstd.CompressionParameter, zstd.Strategy
_COMMON: dict[int, int] = {_P.window_log: 17, _P.content_size_flag: 1, _P.checksum_flag: 0}
# As near to literals only as zstd comes; a target length above 0 would leave them uncoded.
_LITERALS: dict[int, int] = {
    _P.strategy: _S.fast,
    _P.min_match: 7,
    _P.hash_log: 6,
    _P.target_length: 0,
}
_LAZY: dict[int, int] = {_P.min_match: 7, _P.hash_log: 15, _P.chain_log: 15, _P.search_log: 5}
_OPTIMAL: dict[int, int] = {
    _P.min_match: 6,
    _P.hash_log: 16,
    _P.chain_log: 17,
    _P.search_log: 7,
    _P.target_length: 999,
}
_PARSERS: dict[int, dict[int, int]] = {
    1: {**_COMMON, **_LITERALS},
    _SEARCHED_FROM: {**_COMMON, _P.strategy: _S.lazy2, **_LAZY},
    _OPTIMISED_FROM: {**_COMMON, _P.strategy: _S.btopt, **_OPTIMAL},
    _ULTRA_FROM: {**_COMMON, _P.strategy: _S.btultra, **_OPTIMAL},
}

Bytes = npt.NDArray[np.uint8]


def compress_counts(frame: npt.NDArray[Any], level: int, filter_: str, block_nbytes: int) -> bytes:
    """Compress one contiguous frame of integers into a version-2 chunk.

    Parameters
    ----------
    frame : ndarray of integers
        Pixels as they are to be stored.
    level : int
        1 (literals only) to 9 (sparse bit planes by zstd's optimal parser); a higher level is
        never larger.
    filter_ : {"none", "shuffle", "bitshuffle"}
        How the bytes or bits of a block are rearranged.
    block_nbytes : int
        Block size, a multiple of 8 pixels; blosc's buffers for reading are as large.

    Returns
    -------
    bytes
        The chunk; the same for the same input.
    """
    pixels = frame.reshape(-1)
    itemsize, nbytes = pixels.itemsize, pixels.nbytes
    unit = 8 * itemsize
    block_nbytes = min(max(unit, block_nbytes // unit * unit), nbytes)
    n_blocks = -(-nbytes // block_nbytes)
    step = block_nbytes // itemsize
    flags = _ZSTD | _NOT_SPLIT | _FLAGS[filter_]
    offsets = np.empty(n_blocks, "<u4")
    pieces: list[Any] = [b"", offsets.data]
    position = _HEADER.size + offsets.nbytes
    for block in range(n_blocks):
        offsets[block] = position
        part = pixels[block * step : (block + 1) * step]
        streams: list[Any] = list(_streams(part, level, filter_))
        length = sum(map(len, streams))
        if length >= part.nbytes:
            streams = [_rearranged(part, filter_)]
            length = part.nbytes
        pieces += (struct.pack("<i", length), *streams)
        position += 4 + length
    if position > nbytes + _HEADER.size:
        pieces, position = [b"", pixels.view(np.uint8).data], nbytes + _HEADER.size
        flags |= _STORED
    pieces[0] = _HEADER.pack(
        _VERSION, _ZSTD_VERSION, flags, itemsize, nbytes, block_nbytes, position
    )
    return b"".join(pieces)


def _streams(pixels: npt.NDArray[Any], level: int, filter_: str) -> Iterator[bytes]:
    """Yield the zstd frames of one block."""
    if filter_ == "bitshuffle" and pixels.size % 8 == 0:
        for plane in _planes(pixels):
            yield _zeros(pixels.size // 8) if plane is None else _smallest(plane, level)
    else:
        yield _coded(_rearranged(pixels, filter_), 1)


def _planes(pixels: npt.NDArray[Any]) -> Iterator[Bytes | None]:
    """Yield the bit planes of a block, lowest bit first, 8 pixels per byte; None for all zeros."""
    by_byte = pixels.view(np.uint8).reshape(pixels.size, pixels.itemsize)
    masked = np.empty(pixels.size, np.uint8)
    for column in range(pixels.itemsize):
        values = np.ascontiguousarray(by_byte[:, column])
        used = int(np.bitwise_or.reduce(values))
        for bit in range(8):
            if used >> bit & 1:
                np.bitwise_and(values, np.uint8(1 << bit), out=masked)
                yield np.packbits(masked, bitorder="little")
            else:
                yield None


def _rearranged(pixels: npt.NDArray[Any], filter_: str) -> Bytes:
    """Return the bytes of a block as blosc's filter leaves them."""
    if filter_ == "bitshuffle" and pixels.size % 8 == 0:
        zeros = np.zeros(pixels.size // 8, np.uint8)
        return np.concatenate([zeros if p is None else p for p in _planes(pixels)])
    if filter_ == "shuffle":
        by_byte = pixels.view(np.uint8).reshape(pixels.size, pixels.itemsize)
        return np.ascontiguousarray(by_byte.T).reshape(-1)
    return pixels.view(np.uint8)  # blosc leaves a block of no multiple of 8 pixels as it is


@lru_cache(64)
def _zeros(nbytes: int) -> bytes:
    """Return so many zeros compressed: most planes of counts are nothing else."""
    return _coded(np.zeros(nbytes, np.uint8), 1)


def _smallest(plane: Bytes, level: int) -> bytes:
    """Return a plane compressed in the best way that the level allows."""
    best = _coded(plane, 1)
    if len(best) < _LARGEST_SEARCHED * plane.size:
        for parser in _PARSERS:
            if 1 < parser <= level:
                best = min(best, _coded(plane, parser), key=len)
    return best


def _coded(data: Bytes, parser: int) -> bytes:
    if not hasattr(_of_this_thread, "compressors"):
        _of_this_thread.compressors = {}
    compressors: dict[int, zstd.ZstdCompressor] = _of_this_thread.compressors
    if parser not in compressors:
        compressors[parser] = zstd.ZstdCompressor(options=_PARSERS[parser])
    compressor = compressors[parser]
    coded: bytes = compressor.compress(data.data, mode=compressor.FLUSH_FRAME)
    return coded


_of_this_thread = threading.local()
