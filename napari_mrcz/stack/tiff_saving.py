"""TIFF movies, compressed by LZW, as RELION, MotionCor and IMOD read them: one page per frame.

The directories come last: only then it is known whether offsets take 32 bits or 64 (BigTIFF).
"""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, size_text, warn
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.footer import to_json_safe
from napari_mrcz.format.machine import in_order, processors
from napari_mrcz.format.writer import LazyFrame, cast_as_asked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_mrcz.format import Description, Progress

_LARGEST_CLASSIC = 2**32 - 1
# Of the metadata and history that a description takes.
_LARGEST_TEXT = 2**20
_SAMPLE_FORMATS = {"b": 1, "u": 1, "i": 2, "f": 3}
_OFFSETS, _ROWS, _SIZES = 273, 278, 279
_ASCII, _SHORT, _LONG, _RATIONAL, _LONG8 = 2, 3, 4, 5, 16
_FORMS = {_ASCII: "s", _SHORT: "H", _LONG: "I", _LONG8: "Q"}
_CENTIMETRE = 3  # of TIFF's units of resolution
_ANGSTROMS_PER_CENTIMETRE = 10**8
# Room for the head of either kind of file.
_HEAD_NBYTES = 16


class _Page(NamedTuple):
    """One frame as it is stored, the top row first."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int  # per strip
    strips: list[bytes]


def write_tiff(
    path: Path,
    frames: Iterable[LazyFrame],
    *,
    description: Description,
    dtype: npt.DTypeLike | None,
    total: int | None,
    threads: int | None,
    footer: bool,
    progress: Progress | None,
    overwrite: bool,
) -> None:
    """Write frames, all or nothing, one after the other.

    The last row of each is the first, top one of the file, as `open` reads it. Arguments are those
    of `write`; `footer`: describe metadata and history, as JSON, in the first page. Raise
    `MrczError` if TIFF has no such pixel type, or frames differ in shape.
    """
    if isinstance(dtype, str) and dtype == "uint4":
        dtype = np.object_
    wanted = None if dtype is None else np.dtype(dtype)

    def packed(numbered: tuple[int, LazyFrame]) -> _Page:
        index, maker = numbered
        frame = maker() if callable(maker) else maker
        kind = (wanted or frame.dtype).newbyteorder("=")
        if kind.kind not in _SAMPLE_FORMATS:
            advice = "Choose another pixel type (dtype), or write MRC"
            raise MrczError(path, f"TIFF has no pixels of {dtype or kind}", advice=advice)
        cast = cast_as_asked(np.asarray(frame), kind, path, index)
        return _compressed(cast.astype(kind.newbyteorder("<"), copy=False)[::-1])

    tags: list[dict[int, tuple[int, Any]]] = []
    first = None
    with AtomicFile(path, overwrite=overwrite) as file:
        file.write(bytes(_HEAD_NBYTES))
        threads = threads or processors()
        with in_order(packed, enumerate(frames), threads, "napari-mrcz-tiff") as pages:
            for done, page in enumerate(pages, 1):
                first = first or page
                if page.shape != first.shape or page.dtype != first.dtype:
                    found = f"{page.dtype} of {page.shape}, where the first frame is {first.dtype}"
                    raise MrczError(path, f"{found} of {first.shape}", frame=done - 1)
                offsets = []
                for strip in page.strips:
                    offsets.append(file.tell())
                    file.write(strip)
                tags.append(_tags(page, offsets))
                if progress is not None:
                    progress(done, total)
        tags[0] |= _described(path, description, footer)
        for one in tags:
            one |= _resolution(description.pixel_size[1:])
        big = False
        start = file.tell()
        content = directories(tags, start, big=big)
        if start + len(content) > _LARGEST_CLASSIC:
            big = True
            content = directories(tags, start, big=big)
        file.write(content)
        link = start + (start % 2)
        head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, link)
        file.write_at(0, head if big else struct.pack("<2sHI", b"II", 42, link))
        file.commit()


def _compressed(pixels: npt.NDArray[Any]) -> _Page:
    """Compress one frame: Pillow knows not every type, but LZW takes pixels as bytes anyway."""
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile

    dtype = pixels.dtype
    raw = np.ascontiguousarray(pixels).view(np.uint8)
    file = io.BytesIO()
    Image.fromarray(raw).save(file, "TIFF", compression="tiff_lzw")
    stored = file.getbuffer()
    file.seek(0)
    # Not Image.open, which warns of images of the size of super-resolution frames.
    with TiffImageFile(file) as image:
        known = image.tag_v2
        places = zip(known[_OFFSETS], known[_SIZES], strict=True)
        strips = [bytes(stored[offset : offset + nbytes]) for offset, nbytes in places]
        return _Page(pixels.shape, dtype, int(known[_ROWS]), strips)


def _tags(page: _Page, offsets: list[int]) -> dict[int, tuple[int, Any]]:
    """Return the type and the value, or values, of the tags of a page."""
    rows, columns = page.shape
    return {
        256: (_LONG, columns),
        257: (_LONG, rows),
        258: (_SHORT, 8 * page.dtype.itemsize),
        259: (_SHORT, 5),  # LZW
        262: (_SHORT, 1),  # zero is black
        _OFFSETS: (_LONG8, offsets),
        274: (_SHORT, 1),  # the first row is the top one
        277: (_SHORT, 1),
        _ROWS: (_LONG, min(rows, page.rows)),
        _SIZES: (_LONG, [len(strip) for strip in page.strips]),
        339: (_SHORT, _SAMPLE_FORMATS[page.dtype.kind]),
    }


def _resolution(pixel_size: tuple[float, float]) -> dict[int, tuple[int, Any]]:
    """Return the tags of a pixel size, (y, x) in Å, as pixels per centimetre."""
    ratios = []
    for size in pixel_size:
        pixels = _ANGSTROMS_PER_CENTIMETRE / size if size else 0.0
        most = int(_LARGEST_CLASSIC / max(1.0, pixels)) - 1
        ratio = Fraction(pixels).limit_denominator(max(1, most))
        if not 0 < ratio.numerator <= _LARGEST_CLASSIC:
            return {}
        ratios.append((ratio.numerator, ratio.denominator))
    return {282: (_RATIONAL, ratios[1]), 283: (_RATIONAL, ratios[0]), 296: (_SHORT, _CENTIMETRE)}


def _described(path: Path, description: Description, footer: bool) -> dict[int, tuple[int, Any]]:
    """Return the tags of the first page that say what is known of the frames."""
    lines = [description.writer]
    if description.voltage:
        lines.append(f"voltage = {description.voltage:g} kV")
    known = {"metadata": description.metadata, "history": description.history}
    known = {name: content for name, content in known.items() if content}
    if known and footer:
        text = json.dumps(to_json_safe(known), ensure_ascii=True)
        if len(text) <= _LARGEST_TEXT:
            lines.append(text)
        else:
            warn(f"{path}: {' and '.join(known)} left out, as they take {size_text(len(text))}")
    elif known:
        warn(f"{path}: {' and '.join(known)} left out")
    texts = {270: "\n".join(lines), 305: description.writer}
    return {code: (_ASCII, t.encode("ascii", "replace") + b"\0") for code, t in texts.items()}


def directories(pages: list[dict[int, tuple[int, Any]]], start: int, *, big: bool) -> bytes:
    """Return the bytes of the directories, one per page and linked, that begin at byte `start`.

    They begin with a byte of padding where `start` is odd. `pages`: of each page its tags: type,
    and value or list of values; `big`: of BigTIFF.
    """
    place, count_form, room = ("Q", "Q", 8) if big else ("I", "H", 4)
    content = bytearray(start % 2)
    for number, tags in enumerate(pages):
        at = start + len(content)
        nbytes = struct.calcsize(f"<{count_form}") + len(tags) * (4 + 2 * room) + room
        entries, behind = b"", b""
        for code, (kind, value) in sorted(tags.items()):
            if kind == _LONG8 and not big:
                kind = _LONG
            if kind == _ASCII:
                raw, count = value, len(value)
            elif kind == _RATIONAL:
                raw, count = struct.pack("<2I", *value), 1
            else:
                values = value if isinstance(value, list) else [value]
                count = len(values)
                raw = struct.pack(f"<{count}{_FORMS[kind]}", *values)
            if len(raw) > room:
                where = struct.pack(f"<{place}", at + nbytes + len(behind))
                behind += raw + bytes(len(raw) % 2)
            else:
                where = raw.ljust(room, b"\0")
            entries += struct.pack(f"<HH{place}", code, kind, count) + where
        end = at + nbytes + len(behind)
        link = 0 if number == len(pages) - 1 else end
        content += struct.pack(f"<{count_form}", len(tags)) + entries
        content += struct.pack(f"<{place}", link) + behind
    return bytes(content)
