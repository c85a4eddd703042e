"""What opening a file finds out: header, footer, metadata and where each frame lies.

No pixels are decoded. With our footer it takes the same few reads however many frames there are;
without it the chunk headers are walked, 16 bytes a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.format.extended import LARGEST_EXTENDED, ExtendedHeader, microscope_settings
from napari_mrcz.format.footer import (
    TRAILER_NBYTES,
    EvenFrames,
    Footer,
    FooterError,
    FrameIndex,
    payload_nbytes,
    unpack_footer,
)
from napari_mrcz.format.header import HEADER_NBYTES, Header
from napari_mrcz.format.header_reading import parse_header
from napari_mrcz.format.modes import DTYPE_OF_NAME, storage_dtype
from napari_mrcz.format.placement import place_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_mrcz.format.files import RandomAccessFile

# The largest footer that is read: a gain reference of 64 megapixels in float32, and room to spare.
_LARGEST_FOOTER = 2**30


@dataclass(frozen=True)
class Layout:
    """What opening a file finds out.

    Attributes
    ----------
    header : Header
        As the rest of the file shows it to be: see `place_frames`.
    footer : Footer
        Empty where there is none.
    metadata : dict
        The user's map: the footer's, else the JSON extended header's.
    extended : dict, list or None
        The extended header decoded, where its kind is known.
    carried : ExtendedHeader or None
        It as it is; of a file with JSON, or none, that of its source.
    index : FrameIndex or EvenFrames
        Where each frame lies.
    end : int
        Byte at which pixels must have ended.
    dtype : numpy.dtype
        Pixel type of the frames as they are given.
    warnings : tuple of str
        What is wrong but costs no pixels.
    announced : int
        Frames that there should be; more than in the index where the file is cut off.
    """

    header: Header
    footer: Footer
    metadata: Mapping[str, Any]
    extended: Any
    carried: ExtendedHeader | None
    index: FrameIndex | EvenFrames
    end: int
    dtype: np.dtype[Any]
    warnings: tuple[str, ...]
    announced: int


def read_layout(file: RandomAccessFile) -> Layout:
    """Read all of a file but its pixels.

    Raises
    ------
    MrczError
        If the file cannot be used.
    """
    said: list[str] = []
    header = parse_header(file.read(0, HEADER_NBYTES), file.path)
    footer, end, lost = _read_footer(file, said.append)
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
    dtype = _given_dtype(header, footer)
    warnings = tuple(f"{file.path}: {message}" for message in said)
    return Layout(
        header,
        footer,
        metadata,
        content,
        carried,
        placed.index,
        end,
        dtype,
        warnings,
        placed.announced,
    )


def _read_footer(file: RandomAccessFile, warn: Callable[[str], None]) -> tuple[Footer, int, bool]:
    """Return the footer, the byte at which the pixels must have ended, whether it is damaged."""
    nothing = Footer(), file.nbytes, False
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
        return unpack_footer(file.read(start, nbytes), trailer), start, False
    except FooterError as error:
        warn(f"the metadata footer is ignored: {error}; the pixels are not affected")
        return Footer(), file.nbytes, True


def _own_extended(
    file: RandomAccessFile, header: Header, warn: Callable[[str], None]
) -> ExtendedHeader | None:
    if not header.nsymbt:
        return None
    if header.nsymbt > LARGEST_EXTENDED:
        kind = f" ({header.exttyp})" if header.exttyp else ""
        warn(
            f"the extended header{kind} is ignored: its {header.nsymbt} bytes are more than any "
            "program writes; the pixels are intact"
        )
        return None
    raw = file.read(HEADER_NBYTES, header.nsymbt)
    layout = (header.extra.get("nint", 0), header.extra.get("nreal", 0))
    return ExtendedHeader(header.exttyp, raw, header.nz, header.byte_order, layout)


def _decoded(extended: ExtendedHeader, warn: Callable[[str], None]) -> Any:
    try:
        return extended.decoded()
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
    if given is None or not (
        storage_dtype(given) == header.dtype or (given == np.uint8 and header.dtype == np.uint16)
    ):
        return header.dtype
    return given
