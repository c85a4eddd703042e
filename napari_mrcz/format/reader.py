"""Opening a movie file: header, metadata and where each frame lies; then any frame, in any order.

Opening decodes no pixels. With our footer it takes the same few reads however many frames there
are; without it the chunk headers are walked, 16 bytes a frame.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import MrczError, MrczWarning
from napari_mrcz.format.chunks import (
    CHUNK_HEADER_NBYTES,
    ChunkHeader,
    check_chunk,
    decompress,
    parse_chunk_header,
)
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.format.footer import (
    TRAILER_NBYTES,
    Footer,
    FooterError,
    FrameIndex,
    payload_nbytes,
    unpack_footer,
)
from napari_mrcz.format.header import HEADER_NBYTES, Header
from napari_mrcz.format.header_reading import parse_header
from napari_mrcz.format.metadata import decode_extended
from napari_mrcz.format.modes import FOUR_BIT, storage_dtype, unpack_four_bit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from types import TracebackType

__all__ = ["FrameReader"]

# The largest footer that is read: a gain reference of 64 megapixels in float32, and room to spare.
_LARGEST_FOOTER = 2**30
# A blosc chunk is never longer than its content and this.
_CHUNK_OVERHEAD = 32


@dataclass(frozen=True)
class _Layout:
    """What opening a file finds out."""

    header: Header
    footer: Footer
    metadata: Mapping[str, Any]
    extended: Any
    index: FrameIndex
    end: int
    dtype: np.dtype[Any]


class FrameReader:
    """The frames of one MRC or MRCZ file. Safe to use from many threads, and picklable.

    Parameters
    ----------
    path : path-like
        The file; `.gz` and `.bz2` are unpacked first.

    Attributes
    ----------
    path : Path
        The file.
    header : Header
        Its header; `nz` counts the frames that exist.
    metadata : dict
        The user's map: the footer's where there is one, else the JSON extended header's.
    extended : dict, list or None
        The extended header decoded, where its kind is known ("json", "FEI1", "FEI2").
    footer : Footer
        The rest of the footer, empty where there is none.
    dtype : numpy.dtype
        Pixel type of the frames as they are given, in native byte order.

    Raises
    ------
    MrczError
        If the file cannot be used.

    Warns
    -----
    MrczWarning
        If metadata is damaged, or there are fewer frames than the header announces.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        # Absolute: reopening and unpickling must not depend on the working directory.
        self.path = Path(path).absolute()
        self._file = open_file(self.path)
        try:
            layout = _read_layout(self._file)
        except BaseException:
            self._file.close()
            raise
        self.header = layout.header
        self.footer = layout.footer
        self.metadata = layout.metadata
        self.extended = layout.extended
        self.dtype = layout.dtype
        self.index = layout.index
        self._end = layout.end

    def __reduce__(self) -> tuple[type[FrameReader], tuple[Path]]:
        return FrameReader, (self.path,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self.header.shape

    @property
    def file_nbytes(self) -> int:
        """Length of the file."""
        return self._file.nbytes

    def extended_raw(self) -> bytes:
        """Give the extended header's bytes as they are."""
        return self._file.read(HEADER_NBYTES, self.header.nsymbt)

    def read_stored(self, frame: int) -> memoryview:
        """Give the bytes of a frame as they lie in the file, their checksum verified.

        Raises
        ------
        MrczError
            If they are damaged or missing.
        """
        offset, nbytes = int(self.index.offsets[frame]), int(self.index.sizes[frame])
        stored = np.empty(nbytes, np.uint8).data  # bytes would be set to 0 first
        if (got := self._file.read_into(offset, stored)) < nbytes:
            raise MrczError(
                self.path,
                f"{got} bytes are left of {nbytes}",
                frame=frame,
                offset=offset,
                advice="The file became shorter while it was open",
            )
        self._verify(stored, frame)
        return stored

    def read_frame(self, frame: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Decode one frame.

        Parameters
        ----------
        frame : int
            Index from 0.
        out : ndarray of `dtype`, shape (y, x), optional
            Contiguous array to decode into.

        Returns
        -------
        ndarray, shape (y, x)
            `out` if it was given, else a new array.

        Raises
        ------
        MrczError
            If the frame is damaged.
        """
        header = self.header
        shape = header.shape[1:]
        if out is None:
            out = np.empty(shape, self.dtype)
        # Where the stored pixels are the caller's pixels, they are decoded right into the result.
        direct = header.mode != FOUR_BIT and self.dtype == header.stored_dtype.newbyteorder("=")
        same_bytes = direct or (header.mode == 0 and self.dtype in (np.uint8, np.bool_))
        native = header.stored_dtype.isnative
        if same_bytes and out.flags.c_contiguous:
            target = out.reshape(-1).view(np.uint8)
        else:
            target = np.empty(header.frame_nbytes, np.uint8)
        self._fill(target, frame)
        if header.mode == FOUR_BIT:
            out[...] = unpack_four_bit(target.reshape(shape[0], -1), shape[1])
        elif same_bytes and out.flags.c_contiguous:
            if not native:
                out.byteswap(inplace=True)
        else:
            out[...] = target.view(header.stored_dtype).reshape(shape)
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Read part of a frame; of an uncompressed file no more than the pages it touches.

        Parameters
        ----------
        frame : int
            Index from 0.
        window : tuple
            Index into (y, x): integers and slices.
        """
        header = self.header
        if header.codec or header.mode == FOUR_BIT:
            return np.asarray(self.read_frame(frame)[window])
        offset = int(self.index.offsets[frame])
        stored = self._file.array(header.stored_dtype, offset, header.shape[1:])
        return np.array(stored[window], dtype=self.dtype)

    def chunk_header(self, frame: int) -> ChunkHeader:
        """Give the header of a compressed frame's chunk."""
        return parse_chunk_header(
            self._file.read(int(self.index.offsets[frame]), CHUNK_HEADER_NBYTES)
        )

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading opens it again."""
        self._file.close()

    def _fill(self, target: npt.NDArray[np.uint8], frame: int) -> None:
        """Put a frame's stored pixels, decompressed, into `target`."""
        offset = int(self.index.offsets[frame])
        if not self.header.codec:
            if self._file.read_into(offset, target.data) < len(target):
                raise MrczError(self.path, "the frame is cut off", frame=frame, offset=offset)
            self._verify(target.data, frame)
            return
        chunk = self.read_stored(frame)
        where: dict[str, Any] = {"path": self.path, "frame": frame, "offset": offset}
        if len(chunk) < CHUNK_HEADER_NBYTES:
            raise MrczError(found="the chunk is shorter than its own header", **where)
        chunk_header = parse_chunk_header(bytes(chunk[:CHUNK_HEADER_NBYTES]))
        check_chunk(chunk_header, len(target), len(chunk), **where)
        decompress(chunk[: chunk_header.ctbytes], target, **where)

    def _verify(self, stored: memoryview, frame: int) -> None:
        if self.index.xxh3 is None:
            return
        if xxhash.xxh3_64_intdigest(stored) != int(self.index.xxh3[frame]):
            raise MrczError(
                self.path,
                "the stored bytes do not match their checksum",
                frame=frame,
                offset=int(self.index.offsets[frame]),
                advice="The file was damaged after it was written; restore this frame from a copy",
            )


def _read_layout(file: RandomAccessFile) -> _Layout:
    header = parse_header(file.read(0, HEADER_NBYTES), file.path, file.nbytes)
    footer, end = _read_footer(file, header)
    index = footer.frames
    if index is not None and (wrong := _contradiction(index, header, end)):
        _warn(file, f"the footer's frame index is ignored: {wrong}")
        index = None
    if index is None:
        index = _walk_chunks(file, header, end) if header.codec else _even_frames(file, header, end)
    if len(index) < header.nz:
        _warn(
            file,
            f"{len(index)} of the {header.nz} frames that the header announces are there; "
            "the file is cut off or was never finished",
        )
        header = replace(header, nz=len(index))
    extended = _read_extended(file, header)
    if isinstance(extended, dict) and "_HyperSpy" in extended:
        note = "written by hyperspy: where its axes were in Å the pixel size is 10 times too large"
        header = replace(header, notes=(*header.notes, note))
    metadata = footer.metadata
    if not metadata and isinstance(extended, dict):
        metadata = extended
    return _Layout(header, footer, metadata, extended, index, end, _given_dtype(header, footer))


def _read_footer(file: RandomAccessFile, header: Header) -> tuple[Footer, int]:
    """Give the footer and the byte at which the pixels must have ended."""
    nothing = Footer(), file.nbytes
    if file.nbytes < header.data_offset + TRAILER_NBYTES:
        return nothing
    trailer = file.read(file.nbytes - TRAILER_NBYTES, TRAILER_NBYTES)
    try:
        nbytes = payload_nbytes(trailer)
        if nbytes is None:
            return nothing
        start = file.nbytes - TRAILER_NBYTES - nbytes
        if start < header.data_offset or nbytes > _LARGEST_FOOTER:
            raise FooterError(f"it claims {nbytes} bytes")
        return unpack_footer(file.read(start, nbytes), trailer), start
    except FooterError as error:
        _warn(file, f"the metadata footer is ignored: {error}; the pixels are not affected")
        return nothing


def _contradiction(index: FrameIndex, header: Header, end: int) -> str:
    """Say why an index cannot be this file's, or nothing."""
    if len(index) != header.nz:
        return f"it lists {len(index)} frames, the header {header.nz}"
    offsets, sizes = index.offsets, index.sizes
    if (offsets < header.data_offset).any() or (offsets > end).any() or (sizes > end).any():
        return "frames lie outside the file"
    ends = offsets + sizes
    if (ends > end).any() or (ends[:-1] > offsets[1:]).any():
        return "frames overlap or lie outside the pixel data"
    smallest = CHUNK_HEADER_NBYTES if header.codec else header.frame_nbytes
    if (sizes < smallest).any() or (not header.codec and (sizes != smallest).any()):
        return "frames are of impossible size"
    return ""


def _even_frames(file: RandomAccessFile, header: Header, end: int) -> FrameIndex:
    """Place the frames of an uncompressed file."""
    count = min(header.nz, max(0, end - header.data_offset) // header.frame_nbytes)
    if count < 1:
        raise MrczError(
            file.path,
            f"no whole frame: {end - header.data_offset} bytes of pixels, where one frame of "
            f"{header.nx} x {header.ny} takes {header.frame_nbytes}",
            offset=header.data_offset,
            advice="The file is truncated, or its header is damaged",
        )
    offsets = header.data_offset + header.frame_nbytes * np.arange(count, dtype=np.uint64)
    return FrameIndex(offsets.astype(np.uint64), np.full(count, header.frame_nbytes, np.uint64))


def _walk_chunks(file: RandomAccessFile, header: Header, end: int) -> FrameIndex:
    """Follow the chunk headers of a compressed file without a usable index."""
    offsets: list[int] = []
    sizes: list[int] = []
    offset = header.data_offset
    for frame in range(header.nz):
        left = end - offset
        if left < CHUNK_HEADER_NBYTES:
            break
        chunk = parse_chunk_header(file.read(offset, CHUNK_HEADER_NBYTES))
        if frame and left < chunk.ctbytes <= header.frame_nbytes + _CHUNK_OVERHEAD:
            break  # a last frame that was cut off; the ones before it are whole
        check_chunk(chunk, header.frame_nbytes, left, path=file.path, frame=frame, offset=offset)
        offsets.append(offset)
        sizes.append(chunk.ctbytes)
        offset += chunk.ctbytes
    if not offsets:
        raise MrczError(
            file.path,
            f"no frames: {max(0, end - header.data_offset)} bytes follow the header",
            offset=header.data_offset,
            advice="The file was never finished; the C library writes such files where frames do "
            "not compress",
        )
    return FrameIndex(np.array(offsets, np.uint64), np.array(sizes, np.uint64))


def _read_extended(file: RandomAccessFile, header: Header) -> Any:
    if not header.nsymbt or header.exttyp not in ("json", "FEI1", "FEI2"):
        return None
    try:
        raw = file.read(HEADER_NBYTES, header.nsymbt)
        return decode_extended(header.exttyp, raw, header.byte_order)
    except ValueError as error:
        kind = header.exttyp
        _warn(file, f"the extended header ({kind}) is ignored: {error}; the pixels are intact")
        return None


def _given_dtype(header: Header, footer: Footer) -> np.dtype[Any]:
    """Give the dtype that the writer was handed, where the footer names it and it is possible."""
    if footer.dtype is not None:
        try:
            given = np.dtype(footer.dtype)
            if given.kind in "biufc" and (
                storage_dtype(given) == header.dtype
                or (given == np.uint8 and header.dtype == np.uint16)
            ):
                return given.newbyteorder("=")
        except (TypeError, ValueError):
            pass
    return header.dtype


def _warn(file: RandomAccessFile, message: str) -> None:
    warnings.warn(MrczWarning(f"{file.path}: {message}"), stacklevel=2)
