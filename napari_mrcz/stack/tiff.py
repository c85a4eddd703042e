"""TIFF and EER movies: frames decoded one at a time, and what the file states beside pixels.

Texts that are understood: SerialEM's, ImageJ's, OME-XML, and the XML of EER files.
"""

from __future__ import annotations

import io
import re
import struct
import threading
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, NotEnoughMemory, is_out_of_memory, size_text, warn
from napari_mrcz.format import Description
from napari_mrcz.format.files import open_file
from napari_mrcz.naming import angstroms, kilovolts, plausible
from napari_mrcz.stack.companions import parse_xml
from napari_mrcz.stack.sources import Frames
from napari_mrcz.stack.stack import Stack
from napari_mrcz.stack.tiff_pages import (
    DEEPEST,
    DESCRIPTION,
    DIRECTORIES,
    EER,
    PLACES,
    TYPES,
    Page,
    TiffFrame,
    TiffMovie,
    find_frames,
    read_directories,
)

if TYPE_CHECKING:
    from pathlib import Path

SUPERRESOLUTIONS = (1, 2, 4)

_LZW, _LONG = 5, 4
_DIFFERENCES = 2
_BITS, _PREDICTOR, _TILE_OFFSETS = 258, 317, 324
# Of EER: bits of the numbers of pixels that are skipped, and of the places within pixels.
_EER_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}
_EER_TAGS = ((65007, 7), (65008, 2), (65009, 2))
_EER_XML = range(65001, 65007)
_EER_PADDING = 4
_EER_ROWS = 16  # divided by each number of sub-pixels, as the decoder wants it

Frame = npt.NDArray[Any]


def is_eer(movie: Stack) -> bool:
    """Return whether a stack is an EER movie as it was opened."""
    return isinstance(movie._source, TiffFrames) and movie._source.is_eer


def finest_superresolution(movie: Stack) -> int:
    """Return into how many rows and columns the pixels of an EER movie can be divided."""
    return movie._source.finest if isinstance(movie._source, TiffFrames) else 1


def open_tiff(path: Path, superresolution: int = 1) -> Stack:
    """Open a movie; the first row of a TIFF is the top one, that of EER the bottom one.

    `path`: the file, packed or not; `superresolution`: rows and columns that each pixel of EER
    frames is divided into: 1, 2 or 4. Raise `MrczError` if it cannot be read. Warn if the file
    holds more than is read, or less than it says.
    """
    frames = TiffFrames(path, superresolution)
    for sentence in frames.warnings:
        warn(f"{frames.path}: {sentence}")
    z, y, x = frames.description.pixel_size
    size = z, y / superresolution, x / superresolution
    return Stack(frames, replace(frames.description, pixel_size=size, path=str(frames.path)))


class TiffFrames(Frames):
    """The frames of a TIFF file. Safe to use from many threads, picklable.

    `is_eer`: whether its frames are EER-compressed; `warnings`: what is in the file that is not
    read, or should be and is not; `is_whole`: whether no frame is missing; `description`: what the
    file says of its frames.
    """

    def __init__(self, path: Path, superresolution: int = 1) -> None:
        self.path = path.absolute()
        self._superresolution = superresolution
        self._lock = threading.Lock()
        self._tiff: Any = None
        self._file = open_file(self.path)
        try:
            found = read_directories(self._file)
            movie = find_frames(self._file, found)
            self.description, remarks = tiff_metadata(movie, found.pages[0])
            self._choose(movie)
        except BaseException:
            self.close()
            raise
        self.warnings = [*movie.remarks, *remarks]
        if path.name.lower().endswith(".eer") and not self.is_eer:
            said = "its pages are not EER-compressed: it is read as a TIFF, top row first"
            self.warnings.append(said)

    def _choose(self, movie: TiffMovie) -> None:
        """Set shape and dtype, and check that the frames can be decoded."""
        self._frames, self.is_eer, self.is_whole = movie.frames, movie.is_eer, movie.is_whole
        y, x = movie.page.shape
        factor = self._superresolution if self.is_eer else 1
        self.shape = len(movie.frames), y * factor, x * factor
        self.dtype = np.dtype("u1" if self.is_eer else movie.page.dtype).newbyteorder("=")
        checked = {frame.page.compression: frame for frame in self._frames}
        for frame in checked.values() if self.is_eer else self._frames[:1]:
            self._check_codec(frame)

    def __reduce__(self) -> tuple[Any, ...]:
        return TiffFrames, (self.path, self._superresolution)

    def _read(self, frame: int) -> Frame:
        """Decode one frame; raises `MrczError` if it is damaged."""
        try:
            pixels = self._decode(self._frames[frame])
        except MrczError:
            raise
        except Exception as error:  # neither library has one error for a damaged file
            if is_out_of_memory(error):
                _, y, x = self.shape
                what = f"a frame of {size_text(y * x * self.dtype.itemsize)}"
                raise NotEnoughMemory(self.path, what, frame=frame) from None
            found = f"its TIFF page cannot be decoded ({error})"
            raise MrczError(self.path, found, frame=frame) from error
        if pixels.shape != self.shape[1:]:
            found = f"a page of {pixels.shape}, where the first has {self.shape[1:]}"
            raise MrczError(self.path, found, frame=frame)
        return pixels if self.is_eer else pixels[::-1]

    def close(self) -> None:
        """Close the file; reading opens it again."""
        with self._lock:
            if self._tiff is not None:
                self._tiff.close()
                self._tiff = None
        self._file.close()

    def _decode(self, frame: TiffFrame) -> Frame:
        page = frame.page
        if page.compression in EER:
            return self._decode_eer(page)
        if page.is_plain:
            whole = [(frame.offset, page.pixels_nbytes)] if frame.offset is not None else None
            return self._read_plain(page, whole or page.segments())
        if _is_usual_lzw(page):
            return self._decode_lzw(page)
        with self._lock:
            return np.asarray(self._pages()[frame.number].asarray())

    def _read_plain(self, page: Page, segments: list[tuple[int, int]]) -> Frame:
        pixels = np.empty(page.shape, page.dtype)
        target = pixels.reshape(-1).view(np.uint8).data
        done = 0
        for offset, nbytes in segments:
            part = target[done : done + nbytes]
            if self._file.read_into(offset, part) < len(part):
                raise MrczError(self.path, "it became shorter while it was open", offset=offset)
            done += len(part)
        if done < len(target):
            raise ValueError(f"{done} bytes, where a frame has {len(target)}")
        return pixels

    def _decode_lzw(self, page: Page) -> Frame:
        """Decode what SerialEM and IMOD write, for which tifffile needs a large further package.

        Pillow decodes LZW, but not every type, byte order and BigTIFF: it is handed the bytes of
        rows as pixels of a file of its own.
        """
        from PIL.TiffImagePlugin import TiffImageFile

        dtype = np.dtype(page.dtype)
        segments = [self._file.read(offset, nbytes) for offset, nbytes in page.segments()]
        # Not Image.open, which warns of images of the size of super-resolution frames.
        with TiffImageFile(io.BytesIO(_bytes_as_tiff(page, dtype.itemsize, segments))) as image:
            pixels = np.asarray(image).view(dtype)
        if page.number(_PREDICTOR, 1) == _DIFFERENCES:
            native = dtype.newbyteorder("=")
            return np.add.accumulate(pixels.astype(native), axis=1, dtype=native)
        return pixels

    def _decode_eer(self, page: Page) -> Frame:
        from imagecodecs import eer_decode

        data = b"".join(self._file.read(offset, nbytes) for offset, nbytes in page.segments())
        # The decoder wants an even number, and more after the last electron than its own bits; as
        # a frame ends with the last pixel, what comes behind means nothing.
        data += bytes(_EER_PADDING + len(data) % 2)
        skip, across, down = _eer_bits(page)
        factor = self._superresolution
        level = SUPERRESOLUTIONS.index(factor)
        _, y, x = self.shape
        try:
            frame = eer_decode(data, (y, x), skip, across, down, superres=level)
        except Exception:
            # The last number of skipped pixels may lead beyond the last pixel, by so many.
            rows = -(-((1 << skip) + 8 * _EER_PADDING) // page.shape[1])
            shape = y + _EER_ROWS * -(-rows // _EER_ROWS) * factor, x
            frame = eer_decode(data, shape, skip, across, down, superres=level)[:y]
        return frame.view(np.uint8)

    @property
    def finest(self) -> int:
        """Rows and columns into which a pixel of EER can be divided."""
        return min(1 << min(_eer_bits(frame.page)[1:]) for frame in self._frames)

    def _check_codec(self, frame: TiffFrame) -> None:
        """Raise `MrczError` if a page cannot be decoded, or not as finely as asked."""
        page = frame.page
        if not self.is_eer and (page.is_plain or _is_usual_lzw(page)):
            return
        try:
            if self.is_eer:
                from imagecodecs import eer_decode  # noqa: F401
            else:
                with self._lock:
                    self._pages()[frame.number].decode  # noqa: B018  (tifffile looks for the codec)
        except MrczError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise NotEnoughMemory(self.path, "the library that decodes it") from None
            found = "EER needs imagecodecs" if self.is_eer else f"its pages need a codec ({error})"
            raise MrczError(self.path, found, advice="pip install 'napari-mrcz[eer]'") from error
        if self.is_eer and self._superresolution > self.finest:
            found = f"electrons are known to 1/{self.finest} of a pixel"
            raise MrczError(self.path, found, advice=f"superresolution is {self.finest} at most")

    def _pages(self) -> Any:
        import tifffile  # slow to import, seldom needed

        if self._tiff is None:
            self._tiff = tifffile.TiffFile(self._file.stream())
        return self._tiff.pages


def _is_usual_lzw(page: Page) -> bool:
    """Return whether a page is of LZW, and of pixels that whole bytes or their differences are."""
    if page.compression != _LZW or page.dtype is None:
        return False
    if page.values(_BITS) != (8 * page.dtype.itemsize,):
        return False
    predictor = page.number(_PREDICTOR, 1)
    differences = page.dtype.kind in "iu" and _TILE_OFFSETS not in page.tags
    return predictor == 1 or (predictor == _DIFFERENCES and differences)


def _bytes_as_tiff(page: Page, itemsize: int, segments: list[bytes]) -> bytes:
    """Return a TIFF of one page whose pixels are the bytes of another's, compressed as there."""
    from napari_mrcz.stack.tiff_saving import directories

    rows, columns = page.shape
    tags = {256: [columns * itemsize], 257: [rows], 258: [8], 259: [_LZW], 262: [1],
            266: [page.number(266, 1)], 277: [1]}  # fmt: skip
    sizes = [len(segment) for segment in segments]
    starts = list(accumulate(sizes[:-1], initial=8))
    if _TILE_OFFSETS in page.tags:
        tile = [page.number(322, 0) * itemsize], [page.number(323, 0)]
        tags |= {322: tile[0], 323: tile[1], 324: starts, 325: sizes}
    else:
        tags |= {273: starts, 278: [min(rows, page.number(278, rows))], 279: sizes}
    start = 8 + sum(sizes)
    head = struct.pack("<2sHI", b"II", 42, start + start % 2)
    longs = {code: (_LONG, values) for code, values in tags.items()}
    return b"".join([head, *segments, directories([longs], start, big=False)])


def _eer_bits(page: Page) -> tuple[int, int, int]:
    if (known := _EER_BITS.get(page.compression)) is not None:
        return known
    skip, across, down = (page.number(code, default) for code, default in _EER_TAGS)
    return skip, across, down


_X_RESOLUTION, _Y_RESOLUTION, _UNIT, _ORIENTATION = 282, 283, 296, 274
# How values are meant to be seen: zero as black, or as white, or as the entry of a map of colours.
_PHOTOMETRIC, _ZERO_IS_BLACK = 262, 1
# Of TIFF's ResolutionUnit, in Å. A scanner's dots per inch are no micrograph's: see `plausible`.
_RESOLUTION_UNITS = {2: 2.54e8, 3: 1e8}
_NAMES = {
    269: "document_name", 270: "description", 271: "make", 272: "model", 274: "orientation",
    282: "x_resolution", 283: "y_resolution", 285: "page_name", 296: "resolution_unit",
    305: "software", 306: "date_time", 315: "artist", 316: "host_computer", 320: "color_map",
    33432: "copyright", **DIRECTORIES,
}  # fmt: skip
# What describes how pixels are stored, which is another matter in another file.
_OF_PIXELS = {
    *range(254, 269), *range(273, 282), 284, 292, 293, 297, 317, *range(321, 326), 330, 332,
    *range(336, 342), 347, 513, 514, *range(529, 533), 32997, *_EER_XML, *dict(_EER_TAGS),
}  # fmt: skip
_TEXT, _UNDEFINED, _BYTE = 2, 7, 1
_MOST_NUMBERS = 256
_LARGEST_TAG = 2**20
_LARGEST_DESCRIPTIONS = 2**24

_NUMBER = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"
_PIXEL_SIZE = re.compile(rf"pixel\s*(?:size|spacing)\s*[=:]?\s*{_NUMBER}\s*(\w+|Å|µm)?", re.I)
_VOLTAGE = re.compile(rf"\b(?:voltage|HV|high\s*tension)\s*[=:]?\s*{_NUMBER}\s*(k?V)?", re.I)


def tiff_metadata(movie: TiffMovie, first: Page) -> tuple[Description, list[str]]:
    """Return what the pages of frames and the first page, of the whole file, say; and remarks."""
    remarks: list[str] = []
    tags = _tags(first, remarks)
    if movie.page is not first:
        tags |= _tags(movie.page, remarks)
    description = first.text(DESCRIPTION) or movie.page.text(DESCRIPTION)
    each = _descriptions(movie)
    if len(set(each)) > 1 or (each and each[0] != description):
        tags["descriptions"] = each
    if serialem := _serialem(description):
        tags["serialem"] = serialem
    if not movie.is_eer:
        if (seen_as := movie.page.number(_PHOTOMETRIC, _ZERO_IS_BLACK)) != _ZERO_IS_BLACK:
            tags["photometric"] = seen_as
        if differing := _differing_tags(movie, remarks):
            tags["frames"] = differing
    metadata: dict[str, Any] = {"tiff": tags} if tags else {}
    if first.number(_ORIENTATION, 1) != 1:
        remarks.append(f"its tag of orientation, {first.number(_ORIENTATION, 1)}, is not followed")
    if movie.is_eer and (eer := _eer(first) or _eer(movie.page)):
        metadata["eer"] = eer
        announced = eer.get("numberOfFrames")
        if isinstance(announced, int) and announced > len(movie.frames):
            remarks.append(f"{len(movie.frames)} frames, where its metadata names {announced}")
        size, voltage = _eer_pixel_size(eer), _eer_voltage(eer)
        return Description(size, voltage=voltage, metadata=metadata), remarks
    y, x = _dots(movie.page, _RESOLUTION_UNITS.get(movie.page.number(_UNIT, 0), 0.0))
    size = (
        _ome_pixel_size(description)
        or _imagej_pixel_size(description, movie.page)
        or _text_pixel_size(description)
        or (0.0, y, x)  # in dots per length, as SerialEM has it
    )
    found = _VOLTAGE.search(description)
    voltage = 0.0 if found is None else kilovolts(_float(found[1]), found[2] or "")
    return Description(size, voltage=voltage, metadata=metadata), remarks


def _tags(page: Page, remarks: list[str], depth: int = 0) -> dict[str, Any]:
    """Return names and values of the tags that say more than how pixels are stored."""
    values = {_name(code): _value_of(page, code, remarks, depth) for code in _said(page)}
    for code, repeated in page.repeated():
        if code in _said(repeated):
            number = 2 + sum(name.startswith(f"{_name(code)}_") for name in values)
            values[f"{_name(code)}_{number}"] = _value_of(repeated, code, remarks, depth)
    return {name: value for name, value in values.items() if value is not None}


def _said(page: Page) -> list[int]:
    """Return the tags that say more than how pixels are stored."""
    return sorted(page.tags.keys() - _OF_PIXELS)


def _name(code: int) -> str:
    return _NAMES.get(code, f"tag_{code}")


def _value_of(page: Page, code: int, remarks: list[str], depth: int = 0) -> Any:
    """Return what a tag says; None, and a remark, if that cannot be kept."""
    tag = page.tags[code]
    if code in DIRECTORIES or tag.kind in PLACES:
        below = page.directory(code) if code in DIRECTORIES and depth < DEEPEST else None
        if below is None:
            remarks.append(f"the directory that its tag {code} leads to is not read")
            return None
        return _tags(below, remarks, depth + 1)
    if tag.kind not in TYPES:
        remarks.append(f"its tag {code} is of type {tag.kind}, which is not known")
        return None
    if tag.nbytes > _LARGEST_TAG and code != DESCRIPTION:
        remarks.append(f"its tag {code} of {tag.nbytes} bytes is not kept")
        return None
    raw = page.raw(code)
    if len(raw) < tag.nbytes:
        remarks.append(f"its tag {code} of {tag.nbytes} bytes ends beyond the file")
    if tag.kind == _TEXT:
        return page.text(code)
    if tag.kind in (_UNDEFINED, _BYTE) and tag.count > 4:
        return page.text(code) if _is_text(raw) else raw
    values = page.values(code)
    if tag.count > _MOST_NUMBERS:
        return np.asarray(values)
    listed = [list(v) if isinstance(v, tuple) else v for v in values]
    return listed[0] if len(listed) == 1 else listed or None


def _differing_tags(movie: TiffMovie, remarks: list[str]) -> dict[str, list[Any]]:
    """Return what frames say differently in their tags, descriptions aside: one value per frame."""
    pages = [frame.page for frame in movie.frames if frame.offset is None]
    found: dict[str, list[Any]] = {}
    for code in sorted({code for page in pages for code in _said(page)} - {DESCRIPTION}):
        tags = [page.tags.get(code) for page in pages]
        if tags.count(tags[0]) == len(tags) or not any(tags[1:]):
            continue  # said of the file as a whole
        if sum(tag.nbytes for tag in tags if tag is not None) > _LARGEST_DESCRIPTIONS:
            remarks.append(f"the tags {code} of its frames are not kept: they are too large")
            continue
        raw = {(t.kind, t.count, p.raw(code)) for p, t in zip(pages, tags, strict=True) if t}
        if len(raw) > 1 or None in tags:
            own: list[str] = []
            values = [_value_of(page, code, own) if code in page.tags else None for page in pages]
            found[_name(code)] = values
            remarks += [remark for remark in dict.fromkeys(own) if remark not in remarks]
    again = [[(code, other.raw(code)) for code, other in page.repeated()] for page in pages]
    if any(said and said != again[0] for said in again):
        remarks.append("tags that its frames have more than once are not kept")
    return found


def _is_text(raw: bytes) -> bool:
    try:
        text = raw.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\r\n\t" for letter in text)


def _descriptions(movie: TiffMovie) -> list[str]:
    """Return each frame's own description, none where only the file has one."""
    pages = [frame.page for frame in movie.frames if frame.offset is None]
    tags = [page.tags.get(DESCRIPTION) for page in pages]
    if not any(tags[1:]) or sum(tag.nbytes for tag in tags if tag) > _LARGEST_DESCRIPTIONS:
        return []
    return [page.text(DESCRIPTION) for page in pages]


def _serialem(description: str) -> dict[str, Any]:
    """Return what SerialEM says of frames: their scaling, the rotation and flip, and references."""
    if "SerialEM" not in description:
        return {}
    known: dict[str, Any] = {}
    if scaled := re.search(rf"scaled by\s+{_NUMBER}", description):
        known["scaled_by"] = float(scaled[1])
    if turned := re.search(r"r/f\s+(-?\d+)", description):
        known["rotation_and_flip"] = int(turned[1])
    for line in description.splitlines()[1:]:
        name = line.strip()
        if re.search(r"(?i)(ref|gain)\w*.*\.(dm4|mrc|tif|tiff|gain)$", name):
            known["gain_reference"] = name
        elif re.search(r"(?i)defects.*\.txt$", name):
            known["defects"] = name
    return known


def _dots(page: Page, unit: float) -> list[float]:
    """Return height and width of a dot in Å, of a resolution in dots per unit."""
    sizes = []
    for code in (_Y_RESOLUTION, _X_RESOLUTION):
        value = next(iter(page.values(code)), 0)
        dots, units = value if isinstance(value, tuple) else (value, 1)
        sizes.append(plausible(unit * (units / dots if dots else 0.0)))
    return sizes


def _imagej_pixel_size(description: str, page: Page) -> tuple[float, float, float] | None:
    if not description.startswith("ImageJ="):
        return None
    named = dict(re.findall(r"^(unit|spacing|slices)=(.*)$", description, re.M))
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), named.get("unit", ""))
    length = angstroms(unit.strip()) or 0.0
    y, x = _dots(page, length)
    z = plausible(length * _float(named.get("spacing"))) if "slices" in named else 0.0
    return (z, y, x) if x or y else None


def _ome_pixel_size(description: str) -> tuple[float, float, float] | None:
    root = parse_xml(description.strip()) if "PhysicalSizeX" in description else None
    pixels = None if root is None else root.find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = []
    for axis in "ZYX":
        # Micrometres are OME's default.
        unit = angstroms(pixels.get(f"PhysicalSize{axis}Unit", "um")) or 0.0
        sizes.append(plausible(unit * _float(pixels.get(f"PhysicalSize{axis}"))))
    z, y, x = sizes
    return (z, y, x) if x or y else None


def _text_pixel_size(description: str) -> tuple[float, float, float] | None:
    found = _PIXEL_SIZE.search(description)
    if found is None or description.startswith(("<", "{")):
        return None
    size = plausible(_float(found[1]) * (angstroms(found[2] or "A") or 1.0))
    return (0.0, size, size) if size else None


def _eer(page: Page) -> dict[str, Any]:
    """Return the items of EER's XML by name, their units as ``name.unit``, and it as text."""
    items: dict[str, Any] = {}
    texts: list[str] = []
    for code in _EER_XML:
        tag = page.tags.get(code)
        if tag is None or tag.nbytes > _LARGEST_TAG:
            continue
        text = page.text(code)
        root = parse_xml(text.strip())
        if root is None:
            continue
        texts.append(text)
        for item in root.iter("item"):
            name = item.get("name")
            if name and item.text is not None:
                items.setdefault(name, _value(item.text.strip()))
                if unit := item.get("unit"):
                    items.setdefault(f"{name}.unit", unit)
    return {**items, "xml": texts[0] if len(texts) == 1 else texts} if texts else {}


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _eer_pixel_size(eer: dict[str, Any]) -> tuple[float, float, float]:
    """Return the pixel size of the specimen; 0.0 where it is that of the sensor."""
    sizes = []
    for name in ("sensorPixelSize.height", "sensorPixelSize.width"):
        unit = angstroms(str(eer.get(f"{name}.unit", "m"))) or 0.0
        sizes.append(plausible(unit * _float(eer.get(name))))
    return 0.0, sizes[0] or sizes[1], sizes[1] or sizes[0]


def _eer_voltage(eer: dict[str, Any]) -> float:
    for name, value in eer.items():
        if re.search(r"(?i)voltage$|hightension$", name):
            return kilovolts(_float(value), str(eer.get(f"{name}.unit", "")))
    return 0.0


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
