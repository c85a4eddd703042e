"""Frames as they travel to workers: stored chunks as they are, still compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.format import FrameReader
from napari_mrcz.format.chunks import (
    CHUNK_HEADER_NBYTES,
    check_chunk,
    compress,
    decompress,
    parse_chunk_header,
)
from napari_mrcz.format.modes import FOUR_BIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.stack import Stack


class Parcel(NamedTuple):
    """A frame on its way: its index, its chunk, and at which byte of the file that lies."""

    frame: int
    chunk: bytes
    offset: int


class Parcels:
    """The frames of a movie as chunks, and, where they arrive, as pixels again.

    Only what unpacks them is pickled, the file is not.

    Parameters
    ----------
    movie : Stack
        The movie as it was opened.
    path : str
        Its file. Where frames are stored as no chunks, they are compressed on leaving.
    """

    def __init__(self, movie: Stack, path: str) -> None:
        self._path = path
        self._shape = movie.shape[1:]
        self._dtype = movie.dtype
        self._stored = movie.dtype
        self._movie: Stack | None = movie
        self._reader: FrameReader | None = None
        if movie.header is not None:
            reader = FrameReader(path)
            stored = reader.header.codec and reader.header.mode != FOUR_BIT
            if stored and reader.dtype == movie.dtype:  # not of counts that are normalised
                self._reader = reader
                self._stored = reader.header.stored_dtype
            else:
                reader.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_movie": None, "_reader": None}

    def __iter__(self) -> Iterator[Parcel]:
        """Give the frames in order, each read when it is asked for."""
        if self._reader is not None:
            offsets = self._reader.index.offsets
            for frame in range(self._reader.shape[0]):
                chunk = bytes(self._reader.read_stored(frame))
                yield Parcel(frame, chunk, int(offsets[frame]))
        elif self._movie is not None:
            for frame, maker in enumerate(self._movie.frame_makers()):
                pixels = np.ascontiguousarray(maker(), self._stored)
                yield Parcel(frame, compress(pixels, "zstd", 1, "bitshuffle", 0), 0)

    def pixels(self, parcel: Parcel) -> npt.NDArray[Any]:
        """Decompress a frame, (y, x).

        Raises
        ------
        MrczError
            If its chunk is damaged.
        """
        out = np.empty(self._shape, self._stored)
        chunk = memoryview(parcel.chunk)
        where: dict[str, Any] = {
            "path": self._path,
            "frame": parcel.frame,
            "offset": parcel.offset,
        }
        header = parse_chunk_header(bytes(chunk[:CHUNK_HEADER_NBYTES]))
        check_chunk(header, out.nbytes, len(chunk), **where)
        decompress(chunk[: header.ctbytes], out, **where)
        return out.astype(self._dtype, copy=False)

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()


def pack(values: npt.NDArray[Any]) -> bytes:
    """Compress a table or an image for the way back: (k, n) of uint8 or float32."""
    head = np.array((*values.shape, values.itemsize), "<u4").tobytes()
    if not values.size:
        return head
    return head + compress(np.ascontiguousarray(values), "zstd", 1, "bitshuffle", 0)


def unpack(packed: bytes) -> npt.NDArray[Any]:
    """Give what `pack` was given."""
    rows, columns, itemsize = np.frombuffer(packed, "<u4", 3).tolist()
    values = np.empty((rows, columns), np.uint8 if itemsize == 1 else np.float32)
    if values.size:
        decompress(memoryview(packed)[12:], values, path="", frame=0, offset=0)
    return values
