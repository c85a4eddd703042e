"""TIFF files written tag by tag, and frames encoded as EER has them: what no library writes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_KINDS = {"text": (2, 1), "short": (3, 2), "long": (4, 4), "ratio": (5, 8), "bytes": (7, 1)}


@dataclass
class RawPage:
    """One page: its stored pixels and what its directory says."""

    data: bytes
    shape: tuple[int, int]
    bits: int = 8
    compression: int = 1
    tags: dict[int, tuple[str, Any]] = field(default_factory=dict)


def page_of(frame: np.ndarray, **tags: tuple[str, Any]) -> RawPage:
    """Return a page of an image of unsigned integers, little-endian."""
    return RawPage(frame.astype(frame.dtype.newbyteorder("<")).tobytes(), frame.shape,
                   8 * frame.itemsize, 1, {int(k[1:]): v for k, v in tags.items()})  # fmt: skip


def tiff(pages: Sequence[RawPage], *, big: bool = True, data_behind: bytes = b"") -> bytes:
    """Return a little-endian TIFF or BigTIFF: all pixels, then all directories."""
    place, place_nbytes = ("<Q", 8) if big else ("<I", 4)
    content = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big
                        else struct.pack("<2sHI", b"II", 42, 0))  # fmt: skip
    link = len(content) - place_nbytes
    starts = []
    for page in pages:
        starts.append(len(content))
        content += page.data
    content += data_behind
    for page, start in zip(pages, starts, strict=True):
        rows, columns = page.shape
        tags = {256: ("long", columns), 257: ("long", rows), 258: ("short", page.bits),
                259: ("short", page.compression), 262: ("short", 1), 273: ("long", start),
                277: ("short", 1), 278: ("long", rows), 279: ("long", len(page.data)),
                **page.tags}  # fmt: skip
        entries = b""
        for code, (kind, value) in sorted(tags.items()):
            number, size = _KINDS[kind]
            if kind in ("text", "bytes"):
                raw = (value.encode() + b"\0") if isinstance(value, str) else value
            elif kind == "ratio":
                raw = struct.pack("<II", *value)
            else:
                raw = struct.pack("<H" if kind == "short" else "<I", value)
            count = len(raw) // size
            if len(raw) > place_nbytes:
                content += b"\0" * (len(content) % 2)
                inline = struct.pack(place, len(content))
                content += raw
            else:
                inline = raw.ljust(place_nbytes, b"\0")
            entries += struct.pack("<HH", code, number) + struct.pack(place, count) + inline
        content += b"\0" * (len(content) % 2)
        content[link : link + place_nbytes] = struct.pack(place, len(content))
        content += struct.pack("<Q" if big else "<H", len(tags)) + entries
        link = len(content)
        content += bytes(place_nbytes)
    return bytes(content)


def eer_encoded(
    events: Iterable[tuple[int, int]],
    shape: tuple[int, int],
    skip: int,
    across: int,
    down: int,
    *,
    overshoot: bool = False,
) -> bytes:
    """Return the events of one frame as EER stores them.

    Each is the number of pixels that are skipped before it, then the place within its pixel, the
    first bit of which is inverted. The bits fill bytes from the lowest one on.

    Parameters
    ----------
    events : iterable of (row, column)
        In sub-pixels: pixels divided by 2**down rows and 2**across columns; one per pixel.
    shape : tuple of int
        Rows and columns in pixels.
    skip, across, down : int
        Bits of a number of pixels, and of columns and rows within one.
    overshoot : bool
        End with a full number that leads beyond the last pixel.
    """
    bits: list[int] = []

    def put(value: int, count: int) -> None:
        bits.extend((value >> k) & 1 for k in range(count))

    most = (1 << skip) - 1
    position = 0

    def skip_to(pixel: int) -> None:
        left = pixel - position
        while left >= most:
            put(most, skip)
            left -= most
        put(left, skip)

    of_pixel = {((y >> down) * shape[1] + (x >> across)): (y, x) for y, x in events}
    for pixel, (y, x) in sorted(of_pixel.items()):
        skip_to(pixel)
        put((x & ((1 << across) - 1)) ^ (1 << (across - 1)), across)
        put((y & ((1 << down) - 1)) ^ (1 << (down - 1)), down)
        position = pixel + 1
    left = shape[0] * shape[1] - position
    while left >= most or (overshoot and left > 0):
        put(most, skip)
        left -= most
    if left > 0:
        put(left, skip)
        put(0, across + down)
    return np.packbits(bits, bitorder="little").tobytes()


def eer_page(
    events: Iterable[tuple[int, int]],
    shape: tuple[int, int],
    compression: int = 65001,
    bits: tuple[int, int, int] | None = None,
    *,
    overshoot: bool = False,
    tags: dict[int, tuple[str, Any]] | None = None,
) -> RawPage:
    """Return one page of EER, as compression 65000 (8-bit), 65001 (7-bit) or 65002 (any) has it."""
    skip, across, down = bits or {65000: (8, 2, 2), 65001: (7, 2, 2)}[compression]
    own = {65007: ("short", skip), 65008: ("short", across), 65009: ("short", down)}
    data = eer_encoded(events, shape, skip, across, down, overshoot=overshoot)
    return RawPage(data, shape, 8, compression, {**(own if bits else {}), **(tags or {})})
