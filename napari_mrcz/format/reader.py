"""Opening a file, and reading its frames in any order and from any thread.

Opening decodes no pixels. With our footer it takes the same few reads however many frames there
are; without it the chunk headers are walked, 16 bytes a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, size_text
from napari_mrcz.format.chunks import decompress
from napari_mrcz.format.extended import ExtendedHeader, microscope_settings
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.format.footer import EvenFrames, Footer, FrameIndex, read_footer
from napari_mrcz.format.header import (
    DTYPE_OF_NAME,
    FOUR_BIT,
    HEADER_NBYTES,
    LARGEST_EXTENDED,
    VOLUME_STACKS,
    Header,
    parse_header,
    storage_dtype,
    unpack_four_bit,
)
from napari_mrcz.format.header_writing import Description, source_header
from napari_mrcz.format.machine import SpareMemory, new_buffer
from napari_mrcz.format.placement import place_frames
from napari_mrcz.naming import path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """What opening a file finds out."""

    header: Header  # As the rest of the file shows it to be: see `place_frames`
    footer: Footer  # Empty where there is none
    metadata: Mapping[str, Any]  # The user's map: the footer's, else the JSON extended header's
    extended: Any  # The extended header decoded, where its kind is known
    carried: ExtendedHeader | None  # Undecoded; of a file with JSON, or none, that of its source
    index: FrameIndex | EvenFrames  # Where each frame lies
    end: int  # Byte at which pixels must have ended
    dtype: np.dtype[Any]  # Pixel type of the frames as they are given
    warnings: tuple[str, ...]  # What is wrong but costs no pixels
    announced: int  # Frames that there should be; more than in the index where the file is cut off


def read_layout(file: RandomAccessFile) -> Layout:
    """Read all of a file but its pixels. Raise `MrczError` if the file cannot be used."""
    said: list[str] = []
    header = parse_header(file.read(0, HEADER_NBYTES), file.path)
    footer, end, lost = read_footer(file, said.append)
    placed = place_frames(file, header, footer.frames, end, said.append, footer_lost=lost)
    header = placed.header
    own = _own_extended(file, header, said.append)
    content = None if own is None else _decoded(own, said.append)
    if isinstance(content, dict) and "_HyperSpy" in content:
        note = "written by hyperspy: where its axes were in Å the pixel size is 10 times too large"
        header = replace(header, notes=(*header.notes, note))
    metadata = footer.metadata
    if not metadata and isinstance(content, dict):
        metadata = content
    if own is not None and own.kind != "json":
        header = _with_settings(header, own.decoded_as, content)
    carried = own
    if own is None or own.kind == "json":
        carried = ExtendedHeader.from_map(footer.other.get("extended"))
    dtype, index, announced = _given_dtype(header, footer), placed.index, placed.announced
    warnings = tuple(f"{file.path}: {message}" for message in said)
    return Layout(
        header, footer, metadata, content, carried, index, end, dtype, warnings, announced
    )


def _own_extended(
    file: RandomAccessFile, header: Header, warn: Callable[[str], None]
) -> ExtendedHeader | None:
    if not header.nsymbt:
        return None
    if header.nsymbt > LARGEST_EXTENDED:
        kind = f" ({header.exttyp})" if header.exttyp else ""
        said = f"its {header.nsymbt} bytes are more than any program writes"
        warn(f"the extended header{kind} is ignored: {said}; the pixels are intact")
        return None
    raw = file.read(HEADER_NBYTES, header.nsymbt)
    layout = (header.extra.get("nint", 0), header.extra.get("nreal", 0))
    return ExtendedHeader(header.exttyp, raw, header.nz, header.byte_order, layout)


def _decoded(extended: ExtendedHeader, warn: Callable[[str], None]) -> Any:
    try:
        return extended.decoded
    except ValueError as error:
        warn(f"the extended header ({extended.kind}) is ignored: {error}; the pixels are intact")
        return None


def _with_settings(header: Header, kind: str, content: Any) -> Header:
    """Return the header with pixel size and voltage of the extended one, where it has none."""
    across, voltage = microscope_settings(kind, content)
    if across is not None and not any(header.pixel_size[1:]):
        size = (header.pixel_size[0], *across)
        note = f"the pixel size is the extended header's ({kind}); the header has none"
        header = replace(header, pixel_size=size, notes=(*header.notes, note))
    if voltage and not header.voltage:
        note = f"the voltage is the extended header's ({kind}); the header has none"
        header = replace(header, voltage=voltage, notes=(*header.notes, note))
    return header


def _given_dtype(header: Header, footer: Footer) -> np.dtype[Any]:
    """Return the dtype that the writer was handed, where the footer names it and it is possible."""
    given = DTYPE_OF_NAME.get(footer.dtype or "")
    if given is None:
        return header.dtype
    widened = given == np.uint8 and header.dtype == np.uint16
    return given if widened or storage_dtype(given) == header.dtype else header.dtype


@dataclass(frozen=True)
class FrameFault:
    """A frame that cannot be read."""

    frame: int  # Index from 0
    offset: int | None  # Byte of the file at which it begins
    found: str  # What is wrong with it


class FrameReader:
    """The frames of one MRC or MRCZ file. Safe to use from many threads, and picklable.

    `path`: the file; `.gz` and `.bz2` are unpacked first; `file`: it, if it is open already. Raise
    `MrczError` if the file cannot be used; `NotEnoughMemory` if it cannot be found out.
    """

    def __init__(self, path: AnyPath, file: RandomAccessFile | None = None) -> None:
        # Absolute: reopening and unpickling must not depend on the working directory.
        self.path = path_of(path).absolute()
        self._file = file or open_file(self.path)
        self._frames, self._chunks = SpareMemory(1), SpareMemory(2)
        try:
            layout = read_layout(self._file)
        except BaseException as error:
            self._file.close()
            if isinstance(error, MemoryError):
                raise NotEnoughMemory(self.path, "opening it") from None
            raise
        # As they are described in `Layout`.
        self.header = layout.header
        self.footer = layout.footer
        self.metadata = layout.metadata
        self.extended = layout.extended
        self.dtype = layout.dtype
        self.index = layout.index
        self.announced = layout.announced
        self.warnings = layout.warnings
        header, footer = layout.header, layout.footer
        source = source_header(header, footer.other.get("header"))
        sections, depth = None, header.sampling[2]
        if header.ispg in VOLUME_STACKS and depth > 0 and header.nz % depth == 0:
            sections = depth
        self.description = Description(
            pixel_size=header.pixel_size,
            axis_order=header.axis_order,
            # A stack of volumes that does not come out even can only be shown as one.
            volume=header.is_volume and sections is None,
            sections_per_volume=sections,
            voltage=header.voltage,
            c3=header.c3,
            gain=header.gain,
            origin=header.origin,
            start=header.start,
            labels=source.labels,
            header=source.raw,
            extended=layout.carried,
            metadata=layout.metadata,
            history=footer.history,
            # What this file was made of, another file is not.
            other={key: value for key, value in footer.other.items() if key != "source"},
            path=str(self.path),
        )

    def __reduce__(self) -> tuple[type[FrameReader], tuple[Path]]:
        return FrameReader, (self.path,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self.header.shape

    @property
    def is_packed(self) -> bool:
        """Whether the file was packed with gzip or bzip2, and is read unpacked."""
        return self._file.is_packed

    @property
    def frame_nbytes(self) -> int:
        """Bytes of a frame as it is given: counts of uint8 may be stored as uint16."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    def extended_raw(self) -> bytes:
        """Return the extended header's bytes; none if it is longer than any program writes."""
        nbytes = self.header.nsymbt
        return self._file.read(HEADER_NBYTES, nbytes) if nbytes <= LARGEST_EXTENDED else b""

    def read_stored(self, frame: int, spare: SpareMemory | None = None) -> memoryview:
        """Return the bytes of a frame as they lie in the file, their checksum verified.

        `spare`: whose memory they are put in. Raise `MrczError` if they are damaged or missing.
        Raise `NotEnoughMemory` if there is not enough for them.
        """
        nbytes = int(self.index.sizes[frame])
        try:
            stored = new_buffer(nbytes) if spare is None else spare.array(nbytes).data
        except MemoryError:
            raise self._no_memory(frame, nbytes) from None
        self._read_verified(stored, frame)
        return stored

    def read_frame(self, frame: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Decode one frame.

        `frame`: index from 0; `out`: contiguous array to decode into. The result is `out`, or a
        new array. Raise `MrczError` if the frame is damaged. Raise `NotEnoughMemory` if there is
        not enough for it: it may well be sound.
        """
        try:
            return self._read_frame(frame, out)
        except MemoryError:
            raise self._no_memory(frame, self.frame_nbytes) from None

    def _read_frame(self, frame: int, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        header = self.header
        shape = header.shape[1:]
        # Many frames are read so, one after the other.
        spare = None if out is None else self._chunks
        if out is None:
            out = np.empty(shape, self.dtype)
        # Where the stored pixels are the caller's pixels, they are decoded right into the result.
        direct = header.mode != FOUR_BIT and self.dtype == header.stored_dtype.newbyteorder("=")
        same_bytes = direct or (header.mode == 0 and self.dtype in (np.uint8, np.bool_))
        if same_bytes and out.flags.c_contiguous:
            target = out.reshape(-1).view(np.uint8)
        else:
            target = np.empty(header.frame_nbytes, np.uint8)
        if header.codec:
            chunk, offset = self.read_stored(frame, spare), int(self.index.offsets[frame])
            decompress(chunk, target, path=self.path, frame=frame, offset=offset)
        else:
            self._read_verified(target.data, frame)
        if header.mode == FOUR_BIT:
            out[...] = unpack_four_bit(target.reshape(shape[0], -1), shape[1])
        elif same_bytes and out.flags.c_contiguous:
            if not header.stored_dtype.isnative:
                out.byteswap(inplace=True)
            if self.dtype == np.bool_:
                np.not_equal(target.reshape(shape), 0, out=out)  # numpy takes for granted 0 or 1
        else:
            out[...] = target.view(header.stored_dtype).reshape(shape)
        return out

    def read_to_look_at(self, frame: int) -> npt.NDArray[Any]:
        """Return a frame, in the memory of one that was looked at before where it is free."""
        try:
            memory = self._frames.array(self.frame_nbytes)
        except MemoryError:
            raise self._no_memory(frame, self.frame_nbytes) from None
        return self.read_frame(frame, memory.view(self.dtype).reshape(self.shape[1:]))

    def read_window(self, frame: int, window: tuple[Any, Any]) -> npt.NDArray[Any]:
        """Read rows and columns of a frame; of plain pixels without checksums only these rows."""
        header = self.header
        if header.codec or header.mode == FOUR_BIT or self.index.xxh3 is not None:
            # A copy: a view would keep the whole frame in memory.
            return np.array(self.read_frame(frame)[window])
        ny, nx = header.shape[1:]
        rows, columns = window
        wanted = range(ny)[rows] if isinstance(rows, slice) else range(rows, rows + 1)
        first = min(wanted[0], wanted[-1]) if wanted else 0
        # Read rather than mapped: the system kills programs that touch pages of a mapped file
        # which another one has cut off.
        n_rows = abs(wanted[-1] - wanted[0]) + 1 if wanted else 0
        try:
            block = np.empty((n_rows, nx), header.stored_dtype)
        except MemoryError:
            raise self._no_memory(frame, n_rows * nx * header.stored_dtype.itemsize) from None
        self._read_whole(block.reshape(-1).view(np.uint8).data, frame, first * block.strides[0])
        picked = block[:: wanted.step] if isinstance(rows, slice) else block[0]
        return np.array(picked[..., columns], self.dtype)

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading opens it again."""
        self._file.close()
        self._frames.clear()
        self._chunks.clear()

    def _no_memory(self, frame: int, nbytes: int) -> NotEnoughMemory:
        what = f"a frame of {size_text(nbytes)}"
        advice = "The file may be sound: read it where there is more"
        return NotEnoughMemory(self.path, what, frame=frame, advice=advice)

    def _read_whole(self, buffer: memoryview, frame: int, start: int = 0) -> None:
        """Fill `buffer` with a frame's stored bytes from `start` on."""
        offset = int(self.index.offsets[frame]) + start
        if (got := self._file.read_into(offset, buffer)) < len(buffer):
            found = f"{start + got} bytes are left of {int(self.index.sizes[frame])}"
            advice = "The file became shorter while it was open"
            raise MrczError(self.path, found, frame=frame, offset=offset, advice=advice)

    def _read_verified(self, buffer: memoryview, frame: int) -> None:
        """Fill `buffer` with all stored bytes of a frame, each part verified while it is cached."""
        checksum = None if self.index.xxh3 is None else xxhash.xxh3_64()
        step = self._file.piece_nbytes
        for start in range(0, len(buffer), step):
            piece = buffer[start : start + step]
            self._read_whole(piece, frame, start)
            if checksum is not None:
                checksum.update(piece)
        if checksum is None or self.index.xxh3 is None:
            return
        if checksum.intdigest() != int(self.index.xxh3[frame]):
            offset = int(self.index.offsets[frame])
            found = "the stored bytes do not match their checksum"
            advice = "The file was damaged after it was written; restore this frame from a copy"
            raise MrczError(self.path, found, frame=frame, offset=offset, advice=advice)
