"""What opening a file finds out: header, footer, metadata and where each frame lies.

No pixels are decoded. With our footer it takes the same few reads however many frames there are;
without it the chunk headers are walked, 16 bytes a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import MrczError
from napari_mrcz.format.chunks import CHUNK_HEADER_NBYTES, check_chunk, parse_chunk_header
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
from napari_mrcz.format.modes import DTYPE_OF_NAME, storage_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_mrcz.format.files import RandomAccessFile

__all__ = ["LARGEST_EXTENDED", "EvenFrames", "Layout", "read_layout"]

# The largest footer that is read: a gain reference of 64 megapixels in float32, and room to spare.
_LARGEST_FOOTER = 2**30
# The largest extended header that is decoded or kept; real ones take a megabyte.
LARGEST_EXTENDED = 2**25
# A blosc chunk is never longer than its content and this.
_CHUNK_OVERHEAD = 32


@dataclass(frozen=True)
class EvenFrames:
    """Frames one after the other, as `FrameIndex` has them, but without listing them.

    Where frames are small and a file is long, there may be a thousand million of them.
    """

    start: int
    nbytes: int
    count: int
    xxh3: None = None

    def __len__(self) -> int:
        """Give the number of frames."""
        return self.count

    @property
    def offsets(self) -> range:
        """Bytes from the file's start."""
        return range(self.start, self.start + self.count * self.nbytes, self.nbytes)

    @property
    def sizes(self) -> npt.NDArray[np.uint64]:
        """Bytes taken."""
        return np.broadcast_to(np.uint64(self.nbytes), self.count)


@dataclass(frozen=True)
class Layout:
    """What opening a file finds out."""

    header: Header
    footer: Footer
    metadata: Mapping[str, Any]
    extended: Any
    index: FrameIndex | EvenFrames
    end: int
    dtype: np.dtype[Any]
    warnings: tuple[str, ...]
    announced: int
    """Frames that there should be; more than in the index where the file is cut off."""


def read_layout(file: RandomAccessFile) -> Layout:
    """Read all of a file but its pixels.

    What is wrong but costs no pixels is told in the layout's `warnings`.

    Raises
    ------
    MrczError
        If the file cannot be used.
    """
    said: list[str] = []
    header = parse_header(file.read(0, HEADER_NBYTES), file.path, file.nbytes)
    footer, end = _read_footer(file, said.append)
    index: FrameIndex | EvenFrames | None = None
    if footer.frames is not None:
        header, index = _reconcile(footer.frames, header, end, file, said.append)
    if index is None:
        if header.codec:
            index = _walk_chunks(file, header, end, said.append)
        else:
            index = _even_frames(file, header, end)
    announced = header.nz
    if len(index) < announced:
        said.append(
            f"{len(index)} of the {announced} frames that the header announces are there; "
            "the file is cut off or was never finished",
        )
        header = replace(header, nz=len(index))
    extended = _read_extended(file, header, said.append)
    if isinstance(extended, dict) and "_HyperSpy" in extended:
        note = "written by hyperspy: where its axes were in Å the pixel size is 10 times too large"
        header = replace(header, notes=(*header.notes, note))
    metadata = footer.metadata
    if not metadata and isinstance(extended, dict):
        metadata = extended
    dtype = _given_dtype(header, footer)
    warnings = tuple(f"{file.path}: {message}" for message in said)
    return Layout(header, footer, metadata, extended, index, end, dtype, warnings, announced)


def _read_footer(file: RandomAccessFile, warn: Callable[[str], None]) -> tuple[Footer, int]:
    """Give the footer and the byte at which the pixels must have ended."""
    nothing = Footer(), file.nbytes
    if file.nbytes < HEADER_NBYTES + TRAILER_NBYTES:
        return nothing
    trailer = file.read(file.nbytes - TRAILER_NBYTES, TRAILER_NBYTES)
    try:
        nbytes = payload_nbytes(trailer)
        if nbytes is None:
            return nothing
        start = file.nbytes - TRAILER_NBYTES - nbytes
        if start < HEADER_NBYTES or nbytes > _LARGEST_FOOTER:
            raise FooterError(f"it claims {nbytes} bytes")
        return unpack_footer(file.read(start, nbytes), trailer), start
    except FooterError as error:
        warn(f"the metadata footer is ignored: {error}; the pixels are not affected")
        return nothing


def _reconcile(
    index: FrameIndex,
    header: Header,
    end: int,
    file: RandomAccessFile,
    warn: Callable[[str], None],
) -> tuple[Header, FrameIndex | None]:
    """Decide between an index and a header that contradict each other: a checksum tells."""
    wrong = _contradiction(index, header, end)
    if not wrong:
        return header, index
    if not _matches(index, end, file):
        warn(f"the footer's frame index is ignored: {wrong}; what is read is not checked")
        return header, None
    if not header.codec and (index.sizes != header.frame_nbytes).all():
        raise MrczError(
            file.path,
            f"frames of {header.nx} x {header.ny} in mode {header.mode} by the header, "
            f"{header.frame_nbytes} bytes each; of {index.sizes[0]} bytes by the footer, whose "
            "checksums are right",
            offset=0,
            advice="The header was damaged after the file was written; restore it from a copy",
        )
    warn(f"{wrong}; the footer is right, as its checksums show")
    # What is outside is given no bytes, which do not match the checksum.
    inside = (index.offsets <= end) & (index.sizes <= end) & (index.offsets + index.sizes <= end)
    offsets, sizes = np.where(inside, index.offsets, 0), np.where(inside, index.sizes, 0)
    return replace(header, nz=len(index)), replace(index, offsets=offsets, sizes=sizes)


def _matches(index: FrameIndex, end: int, file: RandomAccessFile) -> bool:
    """Tell whether the first or the last frame is where an index says, and has its checksum."""
    if index.xxh3 is None or (index.offsets[:-1] >= index.offsets[1:]).any():
        return False
    for frame in (0, -1)[: len(index)]:
        offset, nbytes = int(index.offsets[frame]), int(index.sizes[frame])
        if offset + nbytes > end:
            continue
        if xxhash.xxh3_64_intdigest(file.read(offset, nbytes)) == int(index.xxh3[frame]):
            return True
    return False


def _contradiction(index: FrameIndex, header: Header, end: int) -> str:
    """Say why an index cannot be this file's, or nothing."""
    if len(index) != header.nz:
        return f"it lists {len(index)} frames, the header {header.nz}"
    offsets, sizes = index.offsets, index.sizes
    # Checksums say more of where the frames are than the length of the extended header.
    start = header.data_offset if index.xxh3 is None else HEADER_NBYTES
    if (offsets < start).any() or (offsets > end).any() or (sizes > end).any():
        return "frames lie outside the file"
    ends = offsets + sizes
    if (ends > end).any() or (ends[:-1] > offsets[1:]).any():
        return "frames overlap or lie outside the pixel data"
    smallest = CHUNK_HEADER_NBYTES if header.codec else header.frame_nbytes
    if (sizes < smallest).any() or (not header.codec and (sizes != smallest).any()):
        return "frames are of impossible size"
    return ""


def _even_frames(file: RandomAccessFile, header: Header, end: int) -> EvenFrames:
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
    return EvenFrames(header.data_offset, header.frame_nbytes, count)


def _walk_chunks(
    file: RandomAccessFile, header: Header, end: int, warn: Callable[[str], None]
) -> FrameIndex:
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
    if len(offsets) == header.nz and offset < end == file.nbytes:
        warn(
            f"{end - offset} bytes after the last frame are no footer that can be read; metadata "
            "or frames are lost",
        )
    return FrameIndex(np.array(offsets, np.uint64), np.array(sizes, np.uint64))


def _read_extended(file: RandomAccessFile, header: Header, warn: Callable[[str], None]) -> Any:
    if not header.nsymbt or header.exttyp not in ("json", "FEI1", "FEI2"):
        return None
    try:
        if header.nsymbt > LARGEST_EXTENDED:
            raise ValueError(f"its {header.nsymbt} bytes are more than any program writes")
        raw = file.read(HEADER_NBYTES, header.nsymbt)
        return decode_extended(header.exttyp, raw, header.byte_order)
    except ValueError as error:
        kind = header.exttyp
        warn(f"the extended header ({kind}) is ignored: {error}; the pixels are intact")
        return None


def _given_dtype(header: Header, footer: Footer) -> np.dtype[Any]:
    """Give the dtype that the writer was handed, where the footer names it and it is possible."""
    given = DTYPE_OF_NAME.get(footer.dtype or "")
    if given is None or not (
        storage_dtype(given) == header.dtype or (given == np.uint8 and header.dtype == np.uint16)
    ):
        return header.dtype
    return given
