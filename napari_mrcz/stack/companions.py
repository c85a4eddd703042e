"""What programs at the microscope write beside a movie: SerialEM's mdoc, EPU's XML, an info text.

Each is read into a map. An mdoc is read here and not by ``mdocfile``, which refuses all of a file
for one line that it does not expect (a title with "=", a stage position of three numbers) and takes
a second to import pandas.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import warn
from napari_mrcz.format.footer import value_at
from napari_mrcz.naming import angstroms, decoded_text, kilovolts, without_packing

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree import ElementTree

    from napari_mrcz.stack.stack import Stack

# Real ones have some ten thousand bytes; those of long tilt series a few million.
_LARGEST = 2**24
_MDOC = ".mdoc"
_DEEPEST = 64
# What programs append to the name that a movie has in common with what describes it.
_ENDINGS = re.compile(
    r"_(fractions|frames|eer|movie|integrated_movie|rawimages|final)$", re.IGNORECASE
)
_SECTION = re.compile(r"\[\s*(\w+)\s*=\s*(.*?)\s*\]")
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,17}|\d*\.\d+|\d+\.)([eE][+-]?\d{1,3})?")
# Names in an info text, with units.
_PIXEL_SIZE = re.compile(
    r"(?<!diffraction )pixel (?:size|spacing)( [xy])?\b.*?\((\w+|Å|µm)\b.*\)", re.IGNORECASE
)
_VOLTAGE = re.compile(
    r"(?:instrument )?(?:accelerating |acceleration |high )?voltage(?: \((k?v|kilovolts|volts)\))?",
    re.IGNORECASE,
)
_TILT = re.compile(r"(?:.*stage.* )?(?:tilt|alpha)(?: alpha| angle)?(?: ?\(.*\))?", re.IGNORECASE)
_DOSE = re.compile(r"dose.*\(e\S*/(?:Å|A|angstrom)", re.IGNORECASE)

Map = dict[str, Any]


@dataclass(frozen=True)
class _Facts:
    """Settings of a movie that a companion states; zeros and None for unknown."""

    pixel_size: tuple[float, float] = (0.0, 0.0)  # y and x in Å
    voltage: float = 0.0  # kV
    dose: Any = None  # e⁻/Å² of the whole movie, or a list with that of each frame
    tilt: Any = None  # degrees, likewise


def with_companions(movie: Stack, path: Path) -> Stack:
    """Return a movie with the metadata of the files next to it.

    They are in its metadata as "mdoc", "xml" and "info", unless it has these already. Pixel size,
    voltage, and in the metadata "dose" (e⁻/Å²) and "tilt" (degrees), are theirs where the movie has
    none. For `name.mrc`, these are `name.mrc.mdoc`, `name.mdoc`, `name.xml` and `name_info.txt`;
    without what EPU (`_Fractions`, `_EER`) or Direct Electron (`_movie`) append to the names of
    movies. Warn if one of them cannot be read.
    """
    metadata, found = dict(movie.description.metadata), False
    pixel_size, voltage = movie.pixel_size, movie.description.voltage
    folder = os.path.split(path)[0]
    for kind, ending, parse, facts_of in _KINDS:
        if kind in metadata:
            continue
        for name in companion_names(path, ending):
            companion = os.path.join(folder, name)
            try:
                text = _text(companion)
                if text is None:
                    continue
                content = parse(text)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                warn(f"{companion}: belongs to {path.name}, but cannot be read: {reason}")
                continue
            metadata[kind], found = content, True
            if kind == "mdoc" and (other := _other_movie(content, path)):
                warn(f"{companion}: it describes {other}, but is used for {path.name} by its name")
            facts = facts_of(content, movie.shape, path.name)
            if not any(pixel_size[1:]):
                pixel_size = (pixel_size[0], *facts.pixel_size)
            voltage = voltage or facts.voltage
            for key, value in (("dose", facts.dose), ("tilt", facts.tilt)):
                if value is not None:
                    metadata.setdefault(key, value)
            break
    if not found:
        return movie
    return movie.described(metadata=metadata, pixel_size=pixel_size, voltage=voltage)


def companion_names(path: Path, ending: str = _MDOC) -> tuple[str, ...]:
    """Return the names that a companion of a movie may have: its mdoc, or one of another ending."""
    plain = without_packing(path)
    whole = (path.name, plain.name) if ending == _MDOC else ()
    stems = dict.fromkeys((*whole, plain.stem, _ENDINGS.sub("", plain.stem)))
    return tuple(f"{stem}{ending}" for stem in stems)


def _text(path: str) -> str | None:
    """Return the text of a file; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size > _LARGEST:
        raise ValueError(f"{status.st_size} bytes, where {_LARGEST} are the most that is read")
    with open(path, "rb") as file:
        raw = file.read(_LARGEST)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode("utf-16")
    return decoded_text(raw.removeprefix(b"\xef\xbb\xbf"))


def _parse_mdoc(text: str) -> Map:
    """Read an mdoc: lines ``key = value``, titles ``[T = …]``, and sections ``[ZValue = 0]``."""
    found: Map = {}
    titles: list[str] = []
    other: list[str] = []
    sections: list[Map] = []
    current = found
    for line in filter(None, map(str.strip, text.splitlines())):
        if section := _SECTION.fullmatch(line):
            if section[1] == "T":
                titles.append(section[2])
            else:
                current = {section[1]: _value(section[2])}
                sections.append(current)
        elif "=" in line:
            key, _, value = line.partition("=")
            current[key.strip()] = _value(value.strip())
        else:
            other.append(line)
    extra = {"titles": titles, "sections": sections, "other": other}
    return {**found, **{name: items for name, items in extra.items() if items}}


def _other_movie(mdoc: Map, path: Path) -> str:
    """Return the movie that an mdoc of one movie names, if that is another; its suffix may be."""
    sections = [section for section in mdoc.get("sections", []) if isinstance(section, dict)]
    if len(sections) != 1 or "SubFramePath" not in sections[0]:
        return ""  # one of a tilt series names the movies of its images
    named = re.split(r"[\\/]", str(sections[0]["SubFramePath"]))[-1]
    stems = [_ENDINGS.sub("", os.path.splitext(name)[0]).lower() for name in (named, path.name)]
    same = stems[0] == stems[1] or stems[0] == without_packing(path).stem.lower()
    return "" if same else named


def _mdoc_facts(mdoc: Map, shape: tuple[int, int, int], name: str) -> _Facts:
    n, y, x = shape
    sections = [section for section in mdoc.get("sections", []) if isinstance(section, dict)]
    own = [s for s in sections if re.split(r"[\\/]", str(s.get("SubFramePath")))[-1] == name]
    sections = own or sections
    describes_frames = len(sections) in (1, n)

    def each(key: str) -> Any:
        """Return what sections say, one number where it is one movie or all agree."""
        values = [_number(section.get(key)) for section in sections]
        if not values or None in values or not describes_frames:
            return None
        return values[0] if len(values) == 1 else values

    def common(key: str) -> float:
        values = {_number(said.get(key)) for said in (*sections, mdoc) if key in said}
        return max(0.0, values.pop() or 0.0) if len(values) == 1 else 0.0

    # An mdoc of a smaller or binned picture says nothing of frames.
    size = common("PixelSpacing") if mdoc.get("ImageSize", [x, y]) == [x, y] else 0.0
    dose = each("ExposureDose")
    said = dose if isinstance(dose, list) else [dose or 0.0]
    voltage = kilovolts(common("Voltage"), "kV")
    return _Facts((size, size), voltage, dose if any(said) else None, each("TiltAngle"))


def parse_xml(text: str) -> ElementTree.Element | None:
    """Return the root of an XML text; None if it is not XML, or defines entities."""
    from xml.etree import ElementTree

    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None
    try:
        # Without entities nothing in it can grow.
        return ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError:
        return None


def local_name(element: ElementTree.Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _parse_xml(text: str) -> Map:
    """Read XML as nested maps: elements by their names without namespaces, lists of several."""
    root = parse_xml(text.strip())
    if root is None:
        raise ValueError("damaged XML, or XML that defines entities")
    return {local_name(root): _element(root, 0)}


def _element(element: ElementTree.Element, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"XML more than {_DEEPEST} deep")
    found: Map = {f"@{key}": _value(v) for key, v in element.attrib.items() if "}" not in key}
    text = (element.text or "").strip()
    if not len(element):
        if not found:
            return _value(text)
        return {**found, "#text": _value(text)} if text else found
    for child in element:
        name, value = local_name(child), _element(child, depth + 1)
        if isinstance(value, dict) and set(value) == {"Key", "Value"}:
            name, value = str(value["Key"]), value["Value"]
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def _xml_facts(xml: Map, shape: tuple[int, int, int], name: str) -> _Facts:
    """Return what EPU says, in SI units."""
    _, y, x = shape
    image = value_at(xml, "MicroscopeImage")
    microscope = value_at(image, "microscopeData")
    sizes = [
        1e10 * (_number(value_at(image, "SpatialScale", "pixelSize", axis, "numericValue")) or 0.0)
        for axis in "yx"
    ]
    # Of the camera's pixels, which those of frames may be parts of (super-resolution), or several.
    area = value_at(microscope, "acquisition", "camera", "ReadoutArea")
    camera = [_number(value_at(area, side)) or 0.0 for side in ("height", "width")]
    if all(camera):
        if abs(camera[0] / y / (camera[1] / x) - 1) > 0.01:
            sizes = [0.0, 0.0]
        sizes = [size * camera[1] / x for size in sizes]
    voltage = _number(value_at(microscope, "gun", "AccelerationVoltage")) or 0.0
    dose = _number(value_at(image, "CustomData", "Dose"))
    tilt = _number(value_at(microscope, "stage", "Position", "A"))
    return _Facts(
        (max(0.0, sizes[0]), max(0.0, sizes[1])),
        kilovolts(voltage, "V"),
        dose / 1e20 if dose and dose > 0 else None,
        None if tilt is None else math.degrees(tilt),
    )


def _parse_info(text: str) -> Map:
    """Read lines ``key = value`` or ``key: value``."""
    found: Map = {}
    other: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if separator := re.search(r"=|:", line):
            key, value = line[: separator.start()].strip(), line[separator.end() :].strip()
            found[key] = _value(value)
        else:
            other.append(line)
    return {**found, **({"other": other} if other else {})}


def _info_facts(info: Map, shape: tuple[int, int, int], name: str) -> _Facts:
    """Return what Direct Electron's program says, -1 for unknown, units in the names."""
    _, y, x = shape
    sizes, voltage, tilt, dose = {"y": 0.0, "x": 0.0}, 0.0, None, None
    counts = [_number(info.get(f"Image Size {axis} (pixels)")) for axis in "YX"]
    for key, value in info.items():
        number = _number(value)
        if number is None:
            continue
        if found := _PIXEL_SIZE.search(key):
            unit = found[2].removesuffix("s")
            size = max(0.0, number * (angstroms(unit) or angstroms(unit.lower()) or 0.0))
            axes = [found[1].strip().lower()] if found[1] else ["y", "x"]
            sizes |= {axis: sizes[axis] or size for axis in axes}
        elif found := _VOLTAGE.fullmatch(key):
            voltage = voltage or kilovolts(number, found[1] or "")
        elif _TILT.fullmatch(key):
            tilt = number if tilt is None else tilt
        elif _DOSE.search(key) and number > 0:
            dose = number if dose is None else dose
    if None not in counts and counts != [y, x]:
        sizes = {"y": 0.0, "x": 0.0}
    return _Facts((sizes["y"], sizes["x"]), voltage, dose, tilt)


def _value(text: str) -> Any:
    """Return a number, or several, or the text itself."""
    words = text.split()
    if not words or not all(map(_NUMBER.fullmatch, words)):
        return text
    numbers = [int(word) if re.fullmatch(r"[+-]?\d+", word) else float(word) for word in words]
    return numbers[0] if len(numbers) == 1 else numbers


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if good else None


_KINDS = (
    ("mdoc", _MDOC, _parse_mdoc, _mdoc_facts),
    ("xml", ".xml", _parse_xml, _xml_facts),
    ("info", "_info.txt", _parse_info, _info_facts),
)
