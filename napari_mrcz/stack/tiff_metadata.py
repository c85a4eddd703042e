"""What a TIFF or EER file says of its frames beside pixels: metadata, pixel size and voltage.

Texts that are understood: SerialEM's, ImageJ's, OME-XML, and the XML of EER files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.naming import angstroms, kilovolts, plausible
from napari_mrcz.stack.tiff_frames import DESCRIPTION, parse_xml
from napari_mrcz.stack.tiff_pages import DEEPEST, DIRECTORIES, TYPES

if TYPE_CHECKING:
    from napari_mrcz.stack.tiff_frames import TiffMovie
    from napari_mrcz.stack.tiff_pages import Page

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
    *range(336, 342), 347, 513, 514, *range(529, 533), 32997,
}  # fmt: skip
# The XML of EER, and the numbers of bits of compression 65002.
_EER_XML = range(65001, 65007)
_EER_BITS = (65007, 65008, 65009)
_TEXT, _UNDEFINED, _BYTE = 2, 7, 1
_MOST_NUMBERS = 256
_LARGEST_TAG = 2**20
_LARGEST_DESCRIPTIONS = 2**24

_NUMBER = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"
_PIXEL_SIZE = re.compile(rf"pixel\s*(?:size|spacing)\s*[=:]?\s*{_NUMBER}\s*(\w+|Å|µm)?", re.I)
_VOLTAGE = re.compile(rf"\b(?:voltage|HV|high\s*tension)\s*[=:]?\s*{_NUMBER}\s*(k?V)?", re.I)


@dataclass(frozen=True)
class TiffMetadata:
    """What a file says of its frames."""

    metadata: dict[str, Any]
    pixel_size: tuple[float, float, float]
    voltage: float
    remarks: tuple[str, ...]


def tiff_metadata(movie: TiffMovie, first: Page) -> TiffMetadata:
    """Return what the first page of a file and those of its frames say.

    Parameters
    ----------
    movie : TiffMovie
        The frames.
    first : Page
        The first page, frame or not: files as a whole are described there.
    """
    remarks: list[str] = []
    tags = _tags(first, remarks)
    if movie.page is not first:
        tags |= _tags(movie.page, remarks)
    description = first.text(DESCRIPTION) or movie.page.text(DESCRIPTION)
    each = _descriptions(movie)
    if len(set(each)) > 1 or (each and each[0] != description):
        tags["descriptions"] = each
    serialem = _serialem(description)
    if serialem:
        tags["serialem"] = serialem
    if not movie.is_eer:
        if (seen_as := movie.page.number(_PHOTOMETRIC, _ZERO_IS_BLACK)) != _ZERO_IS_BLACK:
            tags["photometric"] = seen_as
        if differing := _differing_tags(movie, remarks):
            tags["frames"] = differing
    metadata: dict[str, Any] = {"tiff": tags} if tags else {}
    if first.number(_ORIENTATION, 1) != 1:
        remarks.append(f"its tag of orientation, {first.number(_ORIENTATION, 1)}, is not followed")
    if movie.is_eer:
        eer = _eer(first) or _eer(movie.page)
        if eer:
            metadata["eer"] = eer
            announced = _whole_number(eer.get("numberOfFrames"))
            if announced > len(movie.frames):
                remarks.append(f"{len(movie.frames)} frames, where its metadata names {announced}")
            return TiffMetadata(metadata, _eer_pixel_size(eer), _eer_voltage(eer), tuple(remarks))
    size = (
        _ome_pixel_size(description)
        or _imagej_pixel_size(description, movie.page)
        or _text_pixel_size(description)
        or _resolution_pixel_size(movie.page)
        or (0.0, 0.0, 0.0)
    )
    return TiffMetadata(metadata, size, _text_voltage(description), tuple(remarks))


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
    return [
        code
        for code in sorted(page.tags)
        if code not in _OF_PIXELS and code not in _EER_XML and code not in _EER_BITS
    ]


def _name(code: int) -> str:
    return _NAMES.get(code, f"tag_{code}")


def _value_of(page: Page, code: int, remarks: list[str], depth: int = 0) -> Any:
    """Return what a tag says; None, and a remark, if that cannot be kept."""
    tag = page.tags[code]
    if page.leads_to_directory(code):
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
    if not any(DESCRIPTION in page.tags for page in pages[1:]):
        return []
    if sum(page.tags[DESCRIPTION].nbytes for page in pages if DESCRIPTION in page.tags) > (
        _LARGEST_DESCRIPTIONS
    ):
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


def _resolution_pixel_size(page: Page) -> tuple[float, float, float] | None:
    """Return the pixel size where resolution is in dots per length, as SerialEM has it."""
    length = _RESOLUTION_UNITS.get(page.number(_UNIT, 0), 0.0)
    y, x = (length * _inverse(page, code) for code in (_Y_RESOLUTION, _X_RESOLUTION))
    return (0.0, plausible(y), plausible(x)) if plausible(x) or plausible(y) else None


def _inverse(page: Page, code: int) -> float:
    """Return the length of a dot in units of resolution."""
    value = next(iter(page.values(code)), 0)
    dots, length = value if isinstance(value, tuple) else (value, 1)
    return length / dots if dots else 0.0


def _imagej_pixel_size(description: str, page: Page) -> tuple[float, float, float] | None:
    if not description.startswith("ImageJ="):
        return None
    named = dict(re.findall(r"^(unit|spacing|slices)=(.*)$", description, re.M))
    unit = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), named.get("unit", ""))
    length = angstroms(unit.strip()) or 0.0
    y, x = (plausible(length * _inverse(page, code)) for code in (_Y_RESOLUTION, _X_RESOLUTION))
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


def _text_voltage(description: str) -> float:
    found = _VOLTAGE.search(description)
    return 0.0 if found is None else kilovolts(_float(found[1]), found[2] or "")


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
    """Return the pixel size of the specimen; that of the sensor itself is none."""
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


def _whole_number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
