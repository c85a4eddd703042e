"""DM3 and DM4 files of DigitalMicrograph: their tags as a tree of plain values, and their frames.

A file is a group of tags, with names or without. A tag is a group, or a number, a structure of
numbers, a text or an array. Numbers of the layout are big-endian, those in tags usually
little-endian. Gatan never published it; this follows what Greg Jefferis and Chris Boothroyd found
(http://www.er-c.org/cbb/info/dmformat/), and is compared with ncempy, which makes text of arrays of
numbers and knows no limits. ``ImageList`` has an entry for each object with pixels: nearly always a
thumbnail, then the movie or image, and sometimes more, such as a gain reference or a sum.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_mrcz.errors import MrczError, counted, listed, warn
from napari_mrcz.format import Description
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.format.footer import value_at
from napari_mrcz.naming import angstroms, decoded_text
from napari_mrcz.stack.raw_frames import LARGEST_SIDE, MOST_FRAMES, FrameRun, RawFrames
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# DigitalMicrograph's types with one number per pixel; binary images have a byte per pixel.
_DTYPES = {1: "i2", 2: "f4", 3: "c8", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8",
           13: "c16", 14: "u1"}  # fmt: skip
_COLOURS = (8, 23)
# Arrays among the tags are kept up to these sizes, each and together.
_LONGEST_ARRAY, _MOST_ARRAYS = 2**20, 2**24
_STEP = 2**20
_LARGEST_THUMBNAIL = 512
_PIXELS = re.compile(r"\.ImageList\.[^.]*\.ImageData\.Data")


@dataclass(frozen=True)
class _Object:
    """One entry of ``ImageList`` with pixels."""

    number: int  # its place in the list
    shape: tuple[int, ...]  # the slowest axis first; axes of length 1 before rows are left out
    data_type: int  # DigitalMicrograph's
    pixels: ArrayPlace
    tags: dict[str, Any]

    @property
    def is_readable(self) -> bool:
        """Whether it consists of frames with one number per pixel."""
        return len(self.shape) in (2, 3) and self.data_type in _DTYPES

    @property
    def nbytes(self) -> int:
        """Bytes that so many pixels take."""
        return math.prod(self.shape) * np.dtype(_DTYPES.get(self.data_type, "u1")).itemsize

    def __str__(self) -> str:
        kind = f"pixels of DigitalMicrograph's type {self.data_type}"
        if self.data_type in _DTYPES:
            kind = str(np.dtype(_DTYPES[self.data_type]))
        elif self.data_type in _COLOURS:
            kind = "RGB colours"
        return f"{' x '.join(map(str, self.shape))} of {kind}"


def open_dm(path: Path) -> Stack:
    """Open a movie or image; all tags are in ``metadata["dm"]``.

    Raise `MrczError` if the file is damaged, or has no frames with one number per pixel. Warn of
    further objects in the file, other than a thumbnail, and of tags that are not kept.
    """
    file = open_file(path.absolute())
    try:
        return _opened(file)
    except BaseException:
        file.close()
        raise


def _opened(file: RandomAccessFile) -> Stack:
    path, reader = file.path, _Reader(file)
    tags, order, end = reader.root(), reader.order, reader.at
    # Some zeros are all that DigitalMicrograph writes there.
    if (behind := file.nbytes - end) > _STEP or any(file.read(end, behind)):
        warn(f"{path}: {behind} bytes behind its tags, which are not read")
    objects = _objects(path, tags)
    wanted = _without_thumbnails(objects, tags)
    if not wanted:
        raise MrczError(path, "a DM file without pixels, only tags")
    # A stack rather than a single image, then what has the most pixels, then the first.
    movie = max(wanted, key=lambda o: (o.is_readable, len(o.shape) == 3, math.prod(o.shape)))
    if not movie.is_readable:
        advice = "Frames of two axes with one number per pixel are read"
        raise MrczError(path, f"its pixels are {movie}", advice=advice)
    if others := [str(other) for other in wanted if other is not movie]:
        count = counted(len(others), "further object")
        found = f"{count} in the file beside {movie}, not read: {listed(others, separator='; ')}"
        warn(f"{path}: {found}")
    if (surplus := movie.pixels.nbytes - movie.nbytes) > 0:
        warn(f"{path}: {surplus} bytes of pixels beyond the {movie}, which are not read")
    n, y, x = (1,) * (3 - len(movie.shape)) + movie.shape
    dtype = np.dtype(_DTYPES[movie.data_type]).newbyteorder(order)
    run = FrameRun(file, movie.pixels.offset, y * x * dtype.itemsize, n)
    microscope = value_at(movie.tags, "ImageTags", "Microscope Info")
    description = Description(
        pixel_size=(0.0, _pixel_size(movie, 1), _pixel_size(movie, 0)),
        voltage=_positive(value_at(microscope, "Voltage")) / 1000,
        c3=_positive(value_at(microscope, "Cs(mm)")),
        path=str(path),
        metadata={"dm": _kept(path, tags)},
    )
    return Stack(RawFrames([run], (y, x), dtype), description)


def _objects(path: Path, tags: dict[str, Any]) -> list[_Object]:
    found = []
    for number, entry in enumerate(_values(value_at(tags, "ImageList"))):
        data = value_at(entry, "ImageData")
        pixels, data_type = value_at(data, "Data"), value_at(data, "DataType")
        sizes = _values(value_at(data, "Dimensions"))[::-1]
        if not isinstance(pixels, ArrayPlace):
            continue
        if not isinstance(data_type, int) or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise MrczError(path, f"a damaged DM file: an image of type {data_type}, axes {sizes}")
        while len(sizes) > 2 and sizes[0] == 1:
            sizes = sizes[1:]
        object_ = _Object(number, tuple(sizes), data_type, pixels, entry)
        # A spectrum may be longer.
        absurd = len(sizes) > 1 and (max(sizes[-2:]) > LARGEST_SIDE or max(sizes) > MOST_FRAMES)
        if not sizes or object_.nbytes > pixels.nbytes or absurd:
            claimed = " x ".join(map(str, sizes)) or "no axes"
            found_ = f"a damaged DM file: an image of {claimed} in {pixels.nbytes} bytes"
            raise MrczError(path, found_, offset=pixels.offset)
        found.append(object_)
    return found


def _without_thumbnails(objects: list[_Object], tags: dict[str, Any]) -> list[_Object]:
    """Leave out what the file itself calls a thumbnail; where it calls none so, a first picture."""
    named = {value_at(entry, "ImageIndex") for entry in _values(value_at(tags, "Thumbnails"))}
    if not named and objects and objects[0].data_type in _COLOURS:
        named = {objects[0].number}
    small = {other.number for other in objects if max(other.shape) <= _LARGEST_THUMBNAIL}
    return [other for other in objects if other.number not in named & small] or objects


def _pixel_size(movie: _Object, axis: int) -> float:
    """Return the pixel size in Å along an axis, x first; 0.0 where its unit is not a length."""
    axes = _values(value_at(movie.tags, "ImageData", "Calibrations", "Dimension"))
    if axis >= len(axes):
        return 0.0
    unit = value_at(axes[axis], "Units")
    length = angstroms(unit.strip()) if isinstance(unit, str) else None
    return _positive(value_at(axes[axis], "Scale")) * (length or 0.0)


def _kept(path: Path, tags: dict[str, Any]) -> Any:
    """Return the tags without pixels."""
    left_out: list[str] = []

    def kept(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            pairs = ((key, kept(item, f"{name}.{key}")) for key, item in value.items())
            return {key: item for key, item in pairs if not isinstance(item, ArrayPlace)}
        if isinstance(value, list):
            items = (kept(item, f"{name}.{at}") for at, item in enumerate(value))
            return [None if isinstance(item, ArrayPlace) else item for item in items]
        if isinstance(value, ArrayPlace) and not _PIXELS.fullmatch(name):
            left_out.append(f"{name.lstrip('.')} ({value.nbytes} bytes)")
        return value

    found = kept(tags, "")
    if left_out:
        warn(f"{path}: long tags that are not kept: {listed(left_out)}")
    return found


def _values(group: Any) -> Sequence[Any]:
    """Return the tags of a group in order, without their names."""
    return list(group.values()) if isinstance(group, dict) else group or []


def _positive(number: Any) -> float:
    good = isinstance(number, int | float) and math.isfinite(number) and number > 0
    return float(number) if good else 0.0


_GROUP, _DATA = 20, 21
_STRUCTURE, _STRING, _ARRAY = 15, 18, 20
_USHORT = 4
_NUMBERS = {2: "i2", 3: "i4", _USHORT: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "u1",
            11: "i8", 12: "u8"}  # fmt: skip
# Real files have some thousand tags, in some ten levels.
_MOST_TAGS, _DEEPEST, _MOST_FIELDS = 2**17, 64, 2**10
_SHORTEST_TAG = 9
_AHEAD = 2**16


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array lies that was not read: pixels, or a long one."""

    offset: int
    nbytes: int


class _Reader:
    """Reads the tags of a file: groups are maps, or lists where tags have no names.

    Pixels and long arrays become an `ArrayPlace`. `order`: byte order of the numbers; `at`: the
    byte that is read next.
    """

    def __init__(self, file: RandomAccessFile) -> None:
        self._path, self._file = file.path, file
        self._left = _MOST_ARRAYS
        self._end = file.nbytes
        # The last: what was read ahead, and from where.
        self.at, self._ahead, self._start = 0, b"", 0
        self._n_tags = 0
        (version,) = struct.unpack(">I", self._read(4))
        if version not in (3, 4):
            raise MrczError(self._path, "neither a DM3 nor a DM4 file", offset=0)
        # Sizes and counts of the layout.
        self._long = "I" if version == 3 else "Q"
        _, little = self._unpack(f"{self._long}I")
        if little not in (0, 1):
            raise MrczError(self._path, f"a byte order of {little}, where DM files have 0 or 1")
        self.order: Literal["<", ">"] = "<" if little else ">"

    def root(self) -> dict[str, Any]:
        group = self._group(0)
        return group if isinstance(group, dict) else {}

    def _group(self, depth: int) -> dict[str, Any] | list[Any]:
        if depth > _DEEPEST:
            raise self._damaged(f"groups of tags more than {_DEEPEST} deep")
        _, _, count = self._unpack(f"BB{self._long}")
        self._n_tags += count
        if self._n_tags > _MOST_TAGS or count * _SHORTEST_TAG > self._end - self.at:
            raise self._damaged(f"a group of {count} tags")
        named: dict[str, Any] = {}
        unnamed: list[Any] = []
        for _ in range(count):
            kind, length = self._unpack("BH")
            name = self._read(length).decode("latin-1")
            if self._long == "Q":
                self._unpack("Q")  # bytes to the next tag
            if kind == _GROUP:
                value: Any = self._group(depth + 1)
            elif kind == _DATA:
                value = self._data(name)
            else:
                raise self._damaged(f"a tag of kind {kind}")
            if not name:
                unnamed.append(value)
                continue
            named[_free_name(name, named)] = value
        if not named:
            return unnamed
        for at, value in enumerate(unnamed):
            named[_free_name(str(at), named)] = value
        return named

    def _data(self, name: str) -> Any:
        if self._read(4) != b"%%%%":
            raise self._damaged("a tag without its mark")
        (count,) = self._unpack(self._long)
        if not 0 < count <= _MOST_FIELDS:
            raise self._damaged(f"a tag described by {count} numbers")
        kind, *about = self._unpack(f"{count}{self._long}")
        if kind in _NUMBERS:
            return self._numbers([kind], 1).item()
        if kind == _STRING and len(about) == 1:
            return decoded_text(self._read(about[0]))
        if kind == _STRUCTURE:
            return list(self._numbers(self._fields(about), 1)[0].item())
        if kind == _ARRAY and len(about) >= 2:
            kinds = self._fields(about[1:-1]) if about[0] == _STRUCTURE else [about[0]]
            return self._array(name, kinds, about[-1])
        raise self._damaged(f"a tag of type {kind}")

    def _fields(self, about: list[int]) -> list[int]:
        """Return the types of a structure: it is described by a length, a count, and pairs."""
        kinds = about[3::2]
        if len(about) < 2 or len(kinds) != about[1] or not kinds:
            raise self._damaged("a structure whose fields are not as many as it says")
        return kinds

    def _array(self, name: str, kinds: list[int], count: int) -> Any:
        offset = self.at
        nbytes = count * self._dtype(kinds).itemsize
        if offset + nbytes > self._end:
            raise self._damaged(f"{nbytes} bytes of {name!r}, which end beyond the file")
        if name == "Data" or nbytes > min(_LONGEST_ARRAY, self._left):
            self.at += nbytes
            return ArrayPlace(offset, nbytes)
        self._left -= nbytes
        values = self._numbers(kinds, count)
        if kinds != [_USHORT]:
            from numpy.lib.recfunctions import structured_to_unstructured  # slow to import

            return structured_to_unstructured(values) if values.dtype.names else values
        try:
            text = values.astype("<u2").tobytes().decode("utf-16-le").rstrip("\0")
        except UnicodeDecodeError:
            return values
        return text if all(c.isprintable() or c.isspace() for c in text) else values

    def _numbers(self, kinds: list[int], count: int) -> Any:
        dtype = self._dtype(kinds)
        stored = np.frombuffer(self._read(count * dtype.itemsize), dtype)
        return stored.astype(dtype.newbyteorder("="))

    def _dtype(self, kinds: list[int]) -> np.dtype[Any]:
        if unknown := set(kinds) - _NUMBERS.keys():
            raise self._damaged(f"numbers of type {min(unknown)}")
        types = [f"{self.order}{_NUMBERS[kind]}" for kind in kinds]
        return np.dtype(types[0] if len(types) == 1 else ",".join(types))

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f">{form}", self._read(struct.calcsize(f">{form}")))

    def _read(self, nbytes: int) -> bytes:
        if nbytes > self._end - self.at:
            raise self._damaged("it ends within a tag: cut off or damaged")
        if self.at + nbytes > self._start + len(self._ahead) or self.at < self._start:
            self._ahead, self._start = self._file.read(self.at, max(nbytes, _AHEAD)), self.at
        found = self._ahead[self.at - self._start : self.at - self._start + nbytes]
        self.at += nbytes
        if len(found) != nbytes:
            raise self._damaged("it became shorter while it was read")
        return found

    def _damaged(self, found: str) -> MrczError:
        return MrczError(self._path, f"a damaged DM file: {found}", offset=self.at)


def _free_name(name: str, named: dict[str, Any]) -> str:
    """Return a name, numbered if it is among others already."""
    again = 1
    while (key := f"{name} ({again})" if again > 1 else name) in named:
        again += 1
    return key
