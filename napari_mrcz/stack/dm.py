"""DM3 and DM4 files of DigitalMicrograph.

``ImageList`` among the tags has an entry for each object with pixels: nearly always a thumbnail,
then the movie or image, and sometimes more, such as a gain reference or a sum.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import MrczError, counted, listed, warn
from napari_mrcz.format import Description
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.format.metadata import value_at
from napari_mrcz.naming import angstroms
from napari_mrcz.stack.dm_tags import ArrayPlace, read_tags
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
    """One entry of ``ImageList`` with pixels.

    Attributes
    ----------
    number : int
        Its place in the list.
    shape : tuple of int
        The slowest axis first, as in numpy; axes of length 1 before rows and columns left out.
    data_type : int
        DigitalMicrograph's.
    pixels : ArrayPlace
        Where they are.
    tags : dict
        All that is said of it.
    """

    number: int
    shape: tuple[int, ...]
    data_type: int
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


def is_dm(head: bytes) -> bool:
    """Return whether a file that begins so is a DM3 or DM4 file."""
    if len(head) < 16 or head[208:212] == b"MAP ":
        return False
    version = int.from_bytes(head[:4], "big")
    at = {3: 8, 4: 12}.get(version)
    if at is None:
        return False
    little_endian = int.from_bytes(head[at : at + 4], "big")
    return little_endian in (0, 1) and any(head[4:at]) and max(head[at + 4 : at + 6]) <= 1


def open_dm(path: Path) -> Stack:
    """Open a movie or image; all tags are in ``metadata["dm"]``.

    Raises
    ------
    MrczError
        If the file is damaged, or has no frames with one number per pixel.

    Warns
    -----
    MrczWarning
        If there are further objects in the file, beside a thumbnail, or tags that are not kept.
    """
    file = open_file(path.absolute())
    try:
        return _opened(file)
    except BaseException:
        file.close()
        raise


def _opened(file: RandomAccessFile) -> Stack:
    path = file.path
    tags, order, end = read_tags(file, _LONGEST_ARRAY, _MOST_ARRAYS)
    # Some zeros are all that DigitalMicrograph writes there.
    if (behind := file.nbytes - end) > _STEP or any(file.read(end, behind)):
        found = f"{behind} bytes behind its tags, which are not read"
        warn(f"{path}: {found}")
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
        found = f"{surplus} bytes of pixels beyond the {movie}, which are not read"
        warn(f"{path}: {found}")
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
