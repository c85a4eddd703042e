"""The pages of a TIFF file, read tag by tag, and which of them are the frames of a movie.

TIFF 6.0 and BigTIFF. A directory lists a page's tags, and where the next directory is; one that
cannot be read ends the chain, with a remark. Programs store a movie as one page per frame, in the
order of the pages; or in another order, described by OME-XML; or as one page with all frames behind
it (ImageJ beyond 4 GB, tifffile's "shaped" files). Thumbnails, smaller copies, sums and gains
beside the frames become remarks.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import MrczError, listed, size_text
from napari_mrcz.naming import TIFF_MAGIC, decoded_text
from napari_mrcz.stack.companions import local_name, parse_xml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree import ElementTree

    from napari_mrcz.format.files import RandomAccessFile

UNCOMPRESSED = 1

_SUBFILE_TYPE, _WIDTH, _LENGTH, _BITS, _COMPRESSION = 254, 256, 257, 258, 259
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_NBYTES = 273, 277, 278, 279
_PREDICTOR, _TILE_OFFSETS, _TILE_NBYTES, _SUBDIRECTORIES = 317, 324, 325, 330
_SAMPLE_FORMAT, _DEPTH = 339, 32997
# Of tags that lead to a directory of further tags: EXIF, GPS and the like, and by their type.
DIRECTORIES = {400: "global_parameters", 34665: "exif", 34853: "gps", 40965: "interoperability"}
PLACES = (13, 18)
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
    # Tags whose numbers are among `tags` already, such as tifffile's second description.
    again: tuple[tuple[int, Tag], ...] = ()

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
        return decoded_text(self.raw(code).rstrip(b"\0"))

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
        """Pixel type in the file's byte order; None if numpy has no such type."""
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
        elif self.is_plain and self.shape[0]:
            # What is behind the rows of a strip is not pixels.
            most = self.number(_ROWS_PER_STRIP, self.shape[0]) * (pixels // self.shape[0])
            sizes = tuple(min(nbytes, most) for nbytes in sizes) if most else sizes
        joined: list[tuple[int, int]] = []
        for offset, nbytes in zip(offsets, sizes, strict=False):
            if not offset:  # it was not written: the file's header is there
                continue
            if joined and self.is_plain and sum(joined[-1]) == offset:
                joined[-1] = joined[-1][0], joined[-1][1] + nbytes
            else:
                joined.append((offset, nbytes))
        return joined

    def directory(self, code: int) -> Page | None:
        """Return the directory of further tags that a tag leads to; None if it cannot be read."""
        big = len(self.tags[code].value) > 4
        read = _page(self.file, self.order, big, self.number(code, 0), of_pixels=False)
        return None if read is None else read[0]

    def accounted(self, depth: int = 0) -> list[tuple[int, int]]:
        """Return (offset, bytes) of what is its directory, tags and pixels."""
        found = [(self.offset, self.nbytes), *self.segments()]
        found += [(_integer(tag.value, self.order), tag.nbytes) for tag in self.outlying()]
        for code in DIRECTORIES.keys() & self.tags.keys() if depth < DEEPEST else ():
            below = self.directory(code)
            found += [] if below is None else below.accounted(depth + 1)
        return found

    def outlying(self) -> list[Tag]:
        """Return the tags whose values are outside the directory."""
        tags = [*self.tags.values(), *(tag for _, tag in self.again)]
        return [tag for tag in tags if tag.nbytes > len(tag.value)]

    def _raw(self, tag: Tag) -> bytes:
        if tag.nbytes <= len(tag.value):
            return tag.value[: tag.nbytes]
        if tag.nbytes > _LARGEST_VALUE:
            found = f"a tag of {tag.nbytes} bytes in its directory"
            raise MrczError(self.file.path, found, offset=self.offset)
        return self.file.read(_integer(tag.value, self.order), tag.nbytes)


@dataclass(frozen=True)
class Directories:
    """The pages of a file."""

    pages: list[Page]
    # Pages below others, such as their smaller copies; None for one that cannot be read.
    below: list[Page | None]
    is_whole: bool  # Whether the chain of directories ends as it should


def read_directories(file: RandomAccessFile) -> Directories:
    """Read the chain of directories of a file; raise `MrczError` if there is not one page."""
    head = file.read(0, 16)
    if not head.startswith(TIFF_MAGIC):
        raise MrczError(file.path, "it is not a TIFF that can be read", offset=0)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    offset = _integer(head[8:16] if big else head[4:8], order)
    pages: list[Page] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(pages) < _MOST_PAGES:
        read = _page(file, order, big, offset)
        if read is None:
            break
        seen.add(offset)
        page, offset = read
        pages.append(page)
    if not pages:
        raise MrczError(file.path, "a TIFF without pages", advice="It is cut off")
    named = [page.integers(_SUBDIRECTORIES)[:_MOST_TAGS] for page in pages]
    places = [place for some in named for place in some if place and place not in seen]
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


EER = (65000, 65001, 65002)
DESCRIPTION = 270

# Less than this between pages is padding, or a directory that was written anew elsewhere.
_LEAST_SURPLUS = 4096
_STEP = 2**20
_MOST_NAMED = 5
_HEAD_NBYTES = 8


@dataclass(frozen=True)
class TiffFrame:
    """Where one frame is: the page with this number, or pixels at this byte of the file."""

    page: Page
    number: int
    offset: int | None = None


@dataclass(frozen=True)
class TiffMovie:
    """The frames of a file; in remarks, what else is in it."""

    frames: list[TiffFrame]
    is_eer: bool
    remarks: tuple[str, ...]
    is_whole: bool  # Whether no frame is missing that the file has, or says that it has

    @property
    def page(self) -> Page:
        """The page of the first frame, for all."""
        return self.frames[0].page


def find_frames(file: RandomAccessFile, found: Directories) -> TiffMovie:
    """Find the frames of a movie among a file's pages; `MrczError` if there is no whole one."""
    remarks: list[str] = []
    everything = [TiffFrame(page, number) for number, page in enumerate(found.pages)]
    frames = [frame for frame in everything if frame.page.compression in EER]
    is_eer = bool(frames)
    frames = _alike(frames) if is_eer else frames
    descriptions = found.pages[0].texts(DESCRIPTION)
    if not is_eer:
        planes, about = ome_planes(descriptions[0], file.path.name, len(everything))
        remarks += about
        frames = _alike([everything[number] for number in planes] or everything)
    _check(frames[0].page)
    if not found.is_whole:
        remarks.append(f"only {len(frames)} of its frames can be read; it is cut off or damaged")
    inside = {frame.page.offset for frame in frames}
    others = Counter(
        f"{'x'.join(map(str, page.shape))} {page.dtype if page.dtype is not None else ''}".strip()
        for page in found.pages
        if page.offset not in inside
    )
    announced = 0
    if not is_eer:
        announced = max(announced_images(text, frames[0].page) for text in descriptions)
        if announced > len(frames):
            behind = _contiguous(file, frames[0], announced, found.pages)
            frames = behind or frames
        if announced > len(frames):
            read = f"of which {len(frames)} are read"
            remarks.append(f"its description names {announced} images, {read}")
    whole = _whole(file, frames)
    if not whole:
        raise MrczError(file.path, "a TIFF whose first frame is not all there; it is cut off")
    if len(whole) < len(frames):
        remarks.append(f"only {len(whole)} of its {len(frames)} frames are whole; it is cut off")
    if others:
        why = "not EER-compressed" if is_eer else "none of its frames"
        kinds = [f"{count} of {kind}" for kind, count in others.most_common()]
        remarks.append(f"pages that are {why} are not read: {listed(kinds, _MOST_NAMED)}")
    if found.below:
        remarks.append(f"{len(found.below)} pages below others, e.g. smaller copies, are not read")
    if not remarks:
        remarks += _surplus(file, found, whole)
    is_whole = found.is_whole and announced <= len(frames) == len(whole)
    return TiffMovie(whole, is_eer, tuple(remarks), is_whole)


def _alike(frames: Sequence[TiffFrame]) -> list[TiffFrame]:
    """Return the frames of the shape and type that most have, the largest if several are equal."""
    # Others call themselves smaller copies of pages, or masks.
    full = [frame for frame in frames if not frame.page.number(_SUBFILE_TYPE, 0) & 5] or frames
    groups: dict[Any, list[TiffFrame]] = {}
    for frame in full:
        groups.setdefault((frame.page.shape, frame.page.dtype), []).append(frame)
    return max(groups.values(), key=lambda group: (len(group), group[0].page.pixels_nbytes))


def _check(page: Page) -> None:
    path = page.file.path
    if len(page.shape) != 2:
        found = f"pages of shape {page.shape}, where frames have two axes"
        raise MrczError(path, found, advice="Colour images and pages with a depth are not read")
    if page.dtype is None or not min(page.shape):
        found = f"pages of shape {page.shape}, whose pixels are of no type that is read"
        raise MrczError(path, found)


def _contiguous(
    file: RandomAccessFile, first: TiffFrame, count: int, pages: Sequence[Page]
) -> list[TiffFrame]:
    """Return frames that follow the first one without pages of their own, as many as there are."""
    page = first.page
    segments = page.segments()
    nbytes = page.pixels_nbytes
    if not page.is_plain or len(segments) != 1 or segments[0][1] != nbytes:
        return []
    start = segments[0][0]
    # They end where the file does, or something else begins.
    places = [other.offset for other in pages]
    places += [offset for other in pages for offset, _ in other.segments()]
    end = min([file.nbytes, *(place for place in places if place > start)])
    count = min(count, (end - start) // nbytes)
    return [replace(first, offset=start + i * nbytes) for i in range(count)]


def _whole(file: RandomAccessFile, frames: list[TiffFrame]) -> list[TiffFrame]:
    """Return the frames up to the last one that does not end beyond the file."""

    def is_whole(frame: TiffFrame) -> bool:
        if frame.offset is not None:
            return frame.offset + frame.page.pixels_nbytes <= file.nbytes
        segments = frame.page.segments()
        return bool(segments) and all(offset + nbytes <= file.nbytes for offset, nbytes in segments)

    count = len(frames)
    while count and not is_whole(frames[count - 1]):
        count -= 1
    return frames[:count]


def _surplus(file: RandomAccessFile, found: Directories, frames: Sequence[TiffFrame]) -> list[str]:
    """Return a remark on what no page accounts for, if it may be a frame, text or other data."""
    known = [place for page in found.pages for place in page.accounted()]
    behind = [frame for frame in frames if frame.offset is not None]
    known += [(frame.offset or 0, frame.page.pixels_nbytes) for frame in behind]
    gaps, at = [], _HEAD_NBYTES
    for offset, nbytes in sorted([*known, (file.nbytes, 0)]):
        if offset > at:
            gaps.append((at, min(offset, file.nbytes)))
        at = max(at, offset + nbytes)
    stored = sum(sum(n for _, n in frame.page.segments()) for frame in frames) // len(frames)
    surplus = sum(stop - start for start, stop in gaps)
    # tifffile leaves behind the last page those values that it has in common with the first.
    least_behind = sum(tag.nbytes for tag in found.pages[-1].outlying())
    filled = (
        _is_filled(file, start, stop)
        for start, stop in gaps
        if stop - start > (least_behind if stop == file.nbytes else _LEAST_SURPLUS)
    )
    if surplus < max(stored, _LEAST_SURPLUS) and not any(filled):
        return []
    return [f"{size_text(surplus)} of the file belong to none of its pages and are not read"]


def _is_filled(file: RandomAccessFile, start: int, stop: int) -> bool:
    """Return whether these bytes of a file are more than zeros."""
    steps = range(start, stop, _STEP)
    return any(any(file.read(at, min(_STEP, stop - at))) for at in steps)


def announced_images(description: str, page: Page) -> int:
    """Return how many images of a page's shape a description names; 0 where it names none."""
    if description.startswith("ImageJ="):
        named = dict(re.findall(r"^(images|channels|slices|frames)=(\d+)\s*$", description, re.M))
        hyper = math.prod(int(named.get(axis, 1)) for axis in ("channels", "slices", "frames"))
        return max(int(named.get("images", 1)), hyper)
    if description.startswith("{"):
        try:
            count = math.prod(int(size) for size in json.loads(description)["shape"])
            return count // max(1, page.shape[0] * page.shape[1])
        except (ValueError, TypeError, KeyError, RecursionError):
            return 0
    return 0


def ome_planes(description: str, name: str, n_pages: int) -> tuple[list[int], list[str]]:
    """Return the pages of the largest image that OME-XML describes, in order, and remarks.

    `description`: the first page's, OME-XML or not; `name`: the file's; planes in other files are
    left out; `n_pages`: its pages.
    """
    if not description.lstrip().startswith("<") or "OME" not in description[:1000]:
        return [], []
    root = parse_xml(description.strip())
    if root is None or local_name(root) != "OME":
        return [], []
    if (elsewhere := root.find("{*}BinaryOnly")) is not None:
        return [], [f"its OME-XML is in another file, {elsewhere.get('MetadataFile', '')}"]
    found = root.iterfind("{*}Image/{*}Pixels")
    images = [_pixels_planes(pixels, root.get("UUID"), name, n_pages) for pixels in found]
    if not images:
        return [], []
    announced, pages, others = max(images, key=lambda image: len(image[1]))
    remarks = []
    if len(images) > 1:
        remarks.append(f"{len(images)} images, of which the largest one is read")
    if announced > len(pages):
        where = f"; more are in {listed(others, _MOST_NAMED)}" if others else ""
        remarks.append(f"{len(pages)} of the {announced} planes of its image are read{where}")
    return pages, remarks


def _pixels_planes(
    pixels: ElementTree.Element, uuid: str | None, name: str, n_pages: int
) -> tuple[int, list[int], list[str]]:
    """Return how many planes an image has, the pages that they are, and which files hold more."""
    axes = pixels.get("DimensionOrder", "XYZCT")[2:]
    sizes = {axis: _number(pixels, f"Size{axis}", 1) for axis in axes}
    announced = math.prod(sizes.values())
    if (channel := pixels.find("{*}Channel")) is not None:
        announced //= max(1, _number(channel, "SamplesPerPixel", 1))
    place: dict[int, int] = {}
    others: list[str] = []
    blocks = pixels.findall("{*}TiffData")
    for block in blocks:
        first, step = 0, 1
        for axis in axes:
            first += step * _number(block, f"First{axis}", 0)
            step *= sizes[axis]
        page = _number(block, "IFD", 0)
        left = announced - first
        count = _number(block, "PlaneCount", 1 if block.get("IFD") is not None else left)
        at = block.find("{*}UUID")
        file = None if at is None else at.get("FileName")
        if at is not None and (at.text or "").strip() != uuid and file not in (None, name):
            others.append(str(file))
            continue
        for step in range(max(0, min(count, left, n_pages - page))):
            place.setdefault(first + step, page + step)
    if not blocks:
        place = {i: i for i in range(min(announced, n_pages))}
    used = [place[plane] for plane in sorted(place)]
    return announced, list(dict.fromkeys(used)), list(dict.fromkeys(others))


def _number(element: ElementTree.Element, name: str, default: int) -> int:
    try:
        return max(0, int(element.get(name, default)))
    except ValueError:
        return default
