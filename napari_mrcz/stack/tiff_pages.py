"""The pages of a TIFF file: its chain of directories, read tag by tag.

TIFF 6.0 and BigTIFF. A directory lists a page's tags, and where the next directory is; one that
cannot be read ends the chain, and what lay behind it is lost: that is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from napari_mrcz.format.files import RandomAccessFile

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
UNCOMPRESSED = 1

_SUBFILE_TYPE, _WIDTH, _LENGTH, _BITS, _COMPRESSION = 254, 256, 257, 258, 259
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_NBYTES = 273, 277, 278, 279
_PREDICTOR, _TILE_OFFSETS, _TILE_NBYTES, _SUBDIRECTORIES = 317, 324, 325, 330
_SAMPLE_FORMAT, _DEPTH = 339, 32997
# Of tags that lead to a directory of further tags: EXIF, GPS and the like, and by their type.
DIRECTORIES = {400: "global_parameters", 34665: "exif", 34853: "gps", 40965: "interoperability"}
_PLACES = (13, 18)
DEEPEST = 2
# Of each type of value, how numpy reads it and how many there are in one.
TYPES = {
    1: ("u1", 1), 2: ("S1", 1), 3: ("u2", 1), 4: ("u4", 1), 5: ("u4", 2), 6: ("i1", 1),
    7: ("S1", 1), 8: ("i2", 1), 9: ("i4", 1), 10: ("i4", 2), 11: ("f4", 1), 12: ("f8", 1),
    13: ("u4", 1), 16: ("u8", 1), 17: ("i8", 1), 18: ("u8", 1),
}  # fmt: skip
_TEXT, _UNDEFINED = 2, 7
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u", 6: "c"}
# Sizes beyond 4 GB do not fit, and lose what is above.
WRAPPED = 2**32
# Far more than any program writes.
_MOST_PAGES = 2**20
_MOST_TAGS = 2**10
_LARGEST_VALUE = 2**28
_DIRECTORY_NBYTES = 2**10


@dataclass(frozen=True)
class Tag:
    """One entry of a directory: where its values are, or the values themselves."""

    kind: int
    count: int
    value: bytes

    @property
    def nbytes(self) -> int:
        """Bytes that its values take."""
        dtype, numbers = TYPES.get(self.kind, ("u1", 1))
        return np.dtype(dtype).itemsize * numbers * self.count


@dataclass(frozen=True)
class Page:
    """One page: the tags of its directory, read when they are asked for."""

    file: RandomAccessFile
    order: str
    offset: int
    nbytes: int
    tags: dict[int, Tag]
    again: tuple[tuple[int, Tag], ...] = ()
    """Tags whose numbers are among `tags` already, such as tifffile's second description."""

    def values(self, code: int) -> tuple[Any, ...]:
        """Return a tag's numbers, none where it is missing or damaged; ratios as pairs."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in TYPES or tag.kind in (_TEXT, _UNDEFINED):
            return ()
        dtype, numbers = TYPES[tag.kind]
        raw = self._raw(tag)
        step = np.dtype(dtype).itemsize * numbers
        found = np.frombuffer(raw[: len(raw) // step * step], f"{self.order}{dtype}")
        if numbers == 2:
            return tuple(map(tuple, found.reshape(-1, 2).tolist()))
        return tuple(found.tolist())

    def raw(self, code: int) -> bytes:
        """Return the bytes of a tag's values."""
        tag = self.tags.get(code)
        return b"" if tag is None else self._raw(tag)

    def texts(self, code: int) -> list[str]:
        """Return all texts of a tag that may be there more than once."""
        return [self.text(code), *(page.text(code) for at, page in self.repeated() if at == code)]

    def repeated(self) -> list[tuple[int, Page]]:
        """Return tags that are there again, each as if it were the page's only one."""
        return [(code, replace(self, tags={code: tag}, again=())) for code, tag in self.again]

    def text(self, code: int) -> str:
        """Return a tag's text without its trailing zeros; "" where it is missing."""
        raw = self.raw(code).rstrip(b"\0")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def number(self, code: int, default: int) -> int:
        """Return a tag's first whole number."""
        return next(iter(self.integers(code)), default)

    def integers(self, code: int) -> tuple[int, ...]:
        """Return a tag's whole numbers, none where it has others."""
        values = self.values(code)
        return values if all(isinstance(value, int) for value in values) else ()

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; before them the depth, after them the samples, if there are several."""
        size = self.number(_LENGTH, 0), self.number(_WIDTH, 0)
        depth, samples = self.number(_DEPTH, 1), self.number(_SAMPLES, 1)
        return (*((depth,) if depth > 1 else ()), *size, *((samples,) if samples > 1 else ()))

    @cached_property
    def dtype(self) -> np.dtype[Any] | None:
        """Pixel type in the file's byte order; None if it is none of numpy's."""
        bits = set(self.integers(_BITS) or (1,))
        kind = _KINDS.get(self.number(_SAMPLE_FORMAT, 1))
        if len(bits) != 1 or kind is None:
            return None
        (width,) = bits
        if kind == "u" and width == 1:
            return np.dtype(np.bool_)
        if kind == "u" and 1 < width <= 32:
            width = max(8, 1 << (width - 1).bit_length())  # 12 bits come as 16
        try:
            return np.dtype(f"{self.order}{kind}{width // 8}") if width % 8 == 0 else None
        except TypeError:
            return None

    @cached_property
    def compression(self) -> int:
        """Its number: 1 for none."""
        return self.number(_COMPRESSION, UNCOMPRESSED)

    @property
    def is_plain(self) -> bool:
        """Whether pixels lie in strips as numpy has them."""
        bits = self.values(_BITS)
        return (
            self.compression == UNCOMPRESSED
            and self.number(_PREDICTOR, 1) == 1
            and self.dtype is not None
            and bits == (8 * self.dtype.itemsize,)
            and _TILE_OFFSETS not in self.tags
            and self.number(266, 1) == 1
        )

    @property
    def is_reduced(self) -> bool:
        """Whether it calls itself a smaller copy of another page, or a mask."""
        return bool(self.number(_SUBFILE_TYPE, 0) & 5)

    @cached_property
    def pixels_nbytes(self) -> int:
        """Bytes that its pixels take, decoded."""
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype is not None else 1)

    def segments(self) -> list[tuple[int, int]]:
        """Return (offset, bytes) of its strips or tiles, those that follow each other as one."""
        offsets = self.integers(_TILE_OFFSETS) or self.integers(_STRIP_OFFSETS)
        sizes = self.integers(_TILE_NBYTES) or self.integers(_STRIP_NBYTES)
        pixels = self.pixels_nbytes
        if len(offsets) == 1 and (not sizes or (self.is_plain and sizes[0] == pixels % WRAPPED)):
            # Some programs leave the size out.
            sizes = (pixels,)
        joined: list[tuple[int, int]] = []
        for offset, nbytes in zip(offsets, sizes, strict=False):
            if joined and self.is_plain and sum(joined[-1]) == offset:
                joined[-1] = joined[-1][0], joined[-1][1] + nbytes
            else:
                joined.append((offset, nbytes))
        return joined

    def subdirectories(self) -> tuple[int, ...]:
        """Return the places of the directories below this one."""
        return tuple(offset for offset in self.integers(_SUBDIRECTORIES)[:_MOST_TAGS] if offset)

    def leads_to_directory(self, code: int) -> bool:
        """Return whether a tag's value is the place of a directory."""
        return code in DIRECTORIES or self.tags[code].kind in _PLACES

    def directory(self, code: int) -> Page | None:
        """Return the directory of further tags that a tag leads to; None if it cannot be read."""
        big = len(self.tags[code].value) > 4
        read = _page(self.file, self.order, big, self.number(code, 0), of_pixels=False)
        return None if read is None else read[0]

    def accounted(self, depth: int = 0) -> list[tuple[int, int]]:
        """Return (offset, bytes) of what is its directory, tags and pixels."""
        found = [(self.offset, self.nbytes), *self.segments()]
        found += [(self._place(tag), tag.nbytes) for tag in self._outlying()]
        for code in DIRECTORIES.keys() & self.tags.keys() if depth < DEEPEST else ():
            below = self.directory(code)
            found += [] if below is None else below.accounted(depth + 1)
        return found

    def outlying_nbytes(self) -> int:
        """Return the bytes that values outside the directory take."""
        return sum(tag.nbytes for tag in self._outlying())

    def _outlying(self) -> list[Tag]:
        tags = [*self.tags.values(), *(tag for _, tag in self.again)]
        return [tag for tag in tags if tag.nbytes > len(tag.value)]

    def _place(self, tag: Tag) -> int:
        return int.from_bytes(tag.value, "little" if self.order == "<" else "big")

    def _raw(self, tag: Tag) -> bytes:
        if tag.nbytes <= len(tag.value):
            return tag.value[: tag.nbytes]
        if tag.nbytes > _LARGEST_VALUE:
            found = f"a tag of {tag.nbytes} bytes in its directory"
            raise MrczError(self.file.path, found, offset=self.offset)
        return self.file.read(self._place(tag), tag.nbytes)


@dataclass(frozen=True)
class Directories:
    """The pages of a file."""

    pages: list[Page]
    below: list[Page | None] = field(default_factory=list)
    """Pages that others name as being below them, such as their smaller copies; None for one that
    cannot be read."""
    is_whole: bool = True
    """Whether the chain of directories ends as it should."""


def read_directories(file: RandomAccessFile) -> Directories:
    """Read the chain of directories of a file.

    Raises
    ------
    MrczError
        If there is not one page.
    """
    head = file.read(0, 16)
    if not head.startswith(MAGIC):
        raise MrczError(file.path, "it is not a TIFF that can be read", offset=0)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    first = head[8:16] if big else head[4:8]
    offset = _integer(first, order)
    pages: list[Page] = []
    seen: set[int] = set()
    while offset:
        if offset in seen or len(pages) >= _MOST_PAGES:
            break
        read = _page(file, order, big, offset)
        if read is None:
            break
        seen.add(offset)
        page, offset = read
        pages.append(page)
    if not pages:
        raise MrczError(file.path, "a TIFF without pages", advice="It is cut off")
    places = [place for page in pages for place in page.subdirectories() if place not in seen]
    read_below = (_page(file, order, big, place) for place in places)
    below = [None if page is None else page[0] for page in read_below]
    return Directories(pages, below, not offset)


def _integer(raw: bytes, order: str) -> int:
    return int.from_bytes(raw, "little" if order == "<" else "big")


def _page(
    file: RandomAccessFile, order: str, big: bool, offset: int, *, of_pixels: bool = True
) -> tuple[Page, int] | None:
    """Return a page and the place of the next one; None if it cannot be read."""
    count_nbytes, place_nbytes = (8, 8) if big else (2, 4)
    entry_nbytes = 4 + 2 * place_nbytes
    raw = file.read(offset, _DIRECTORY_NBYTES)
    count = _integer(raw[:count_nbytes], order)
    if len(raw) < count_nbytes or not 0 < count <= _MOST_TAGS:
        return None
    nbytes = count_nbytes + count * entry_nbytes + place_nbytes
    if nbytes > len(raw):
        raw = file.read(offset, nbytes)
    if len(raw) < nbytes:
        return None
    place = f"{order}u{place_nbytes}"
    dtype = np.dtype([("code", f"{order}u2"), ("kind", f"{order}u2"), ("count", place),
                      ("value", f"V{place_nbytes}")])  # fmt: skip
    entries = np.frombuffer(raw, dtype, count, count_nbytes).tolist()
    tags: dict[int, Tag] = {}
    again = []
    for code, kind, number, value in entries:
        tag = Tag(kind, number, value)
        if tags.setdefault(code, tag) is not tag:
            again.append((code, tag))
    if of_pixels and (_WIDTH not in tags or _LENGTH not in tags):
        return None
    following = _integer(raw[nbytes - place_nbytes : nbytes], order)
    return Page(file, order, offset, nbytes, tags, tuple(again)), following
