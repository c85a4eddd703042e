"""Which pages of a TIFF file are the frames of a movie: what is none of them becomes a remark.

Programs store a movie as one page per frame, in the order of the pages; or in another order, which
OME-XML describes; or with one page and all frames after each other behind it (ImageJ beyond 4 GB,
tifffile's "shaped" files). Beside the frames there are thumbnails, smaller copies, sums and gains.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from napari_mrcz.errors import MrczError, listed, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_mrcz.format.files import RandomAccessFile
    from napari_mrcz.stack.tiff_pages import Directories, Page

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
    """The frames of a file, and what is in it that is none of them."""

    frames: list[TiffFrame]
    is_eer: bool
    remarks: tuple[str, ...]
    is_whole: bool = True
    """Whether no frame is missing that the file has, or says that it has."""

    @property
    def page(self) -> Page:
        """The page of the first frame, for all."""
        return self.frames[0].page


def find_frames(file: RandomAccessFile, found: Directories) -> TiffMovie:
    """Find the frames of a movie among the pages of a file.

    Raises
    ------
    MrczError
        If its pages are no frames, or none of them is whole.
    """
    remarks: list[str] = []
    everything = [TiffFrame(page, number) for number, page in enumerate(found.pages)]
    frames = [frame for frame in everything if frame.page.compression in EER]
    is_eer = bool(frames)
    frames = _alike(frames) if is_eer else frames
    descriptions = found.pages[0].texts(DESCRIPTION)
    if not is_eer:
        frames = _alike(everything)
        planes = ome_planes(descriptions[0], file.path.name, len(everything))
        if planes is not None:
            remarks += planes.remarks
            inside = [everything[number] for number in planes.pages]
            frames = _alike(inside) if inside else frames
    _check(frames[0].page)
    if not found.is_whole:
        remarks.append(f"only {len(frames)} of its frames can be read; it is cut off or damaged")
    others = Counter(
        f"{'x'.join(map(str, page.shape))} {page.dtype if page.dtype is not None else ''}".strip()
        for page in _without([f.page for f in everything], [f.page for f in frames])
    )
    announced = 0
    if not is_eer:
        announced = max(announced_images(text, frames[0].page) for text in descriptions)
        if announced > len(frames):
            behind = _contiguous(file, frames[0], announced, found.pages)
            frames = behind or frames
        if announced > len(frames):
            remarks.append(
                f"its description names {announced} images, of which {len(frames)} are read"
            )
    whole = _whole(file, frames)
    if not whole:
        raise MrczError(file.path, "a TIFF whose first frame is not all there; it is cut off")
    if len(whole) < len(frames):
        remarks.append(f"only {len(whole)} of its {len(frames)} frames are whole; it is cut off")
    if others:
        why = "not EER-compressed" if is_eer else "none of its frames"
        named = [f"{count} of {kind}" for kind, count in others.most_common()]
        remarks.append(f"pages that are {why} are not read: {listed(named, _MOST_NAMED)}")
    if found.below:
        remarks.append(f"{len(found.below)} pages below others, e.g. smaller copies, are not read")
    if not remarks:
        remarks += _surplus(file, found, whole)
    is_whole = found.is_whole and announced <= len(frames) == len(whole)
    return TiffMovie(whole, is_eer, tuple(remarks), is_whole)


def _alike(frames: Sequence[TiffFrame]) -> list[TiffFrame]:
    """Return the frames of the shape and type that most have, the largest if several are equal."""
    full = [frame for frame in frames if not frame.page.is_reduced] or frames
    groups: dict[Any, list[TiffFrame]] = {}
    for frame in full:
        groups.setdefault((frame.page.shape, frame.page.dtype), []).append(frame)
    return max(groups.values(), key=lambda group: (len(group), group[0].page.pixels_nbytes))


def _without(pages: Sequence[Page], others: Sequence[Page]) -> list[Page]:
    places = {page.offset for page in others}
    return [page for page in pages if page.offset not in places]


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
    least_behind = found.pages[-1].outlying_nbytes()
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
        hyper = 1
        for axis in ("channels", "slices", "frames"):
            hyper *= int(named.get(axis, 1))
        return max(int(named.get("images", 1)), hyper)
    if description.startswith("{"):
        try:
            shape = json.loads(description)["shape"]
            count = 1
            for size in shape:
                count *= int(size)
            return count // max(1, page.shape[0] * page.shape[1])
        except (ValueError, TypeError, KeyError, RecursionError):
            return 0
    return 0


def parse_xml(text: str) -> ElementTree.Element | None:
    """Return the root of an XML text of a file; None if it is none, or names entities."""
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


@dataclass(frozen=True)
class OmePlanes:
    """The pages of the largest image that OME-XML describes, in the order of its planes."""

    pages: list[int]
    remarks: list[str]


def ome_planes(description: str, name: str, n_pages: int) -> OmePlanes | None:
    """Return which pages are planes, in which order; None where the description is no OME-XML.

    Parameters
    ----------
    description : str
        Of the first page.
    name : str
        Of the file: planes may be in others.
    n_pages : int
        Pages that there are.
    """
    if not description.lstrip().startswith("<") or "OME" not in description[:1000]:
        return None
    root = parse_xml(description.strip())
    if root is None or local_name(root) != "OME":
        return None
    elsewhere = [e.get("MetadataFile", "") for e in root if local_name(e) == "BinaryOnly"]
    if elsewhere:
        return OmePlanes([], [f"its OME-XML is in another file, {elsewhere[0]}"])
    images = [
        _pixels_planes(pixels, root.get("UUID"), name, n_pages)
        for image in root
        if local_name(image) == "Image"
        for pixels in image
        if local_name(pixels) == "Pixels"
    ]
    if not images:
        return None
    announced, pages, others = max(images, key=lambda image: len(image[1]))
    remarks = []
    if len(images) > 1:
        remarks.append(f"{len(images)} images, of which the largest one is read")
    if announced > len(pages):
        where = f"; more are in {listed(others, _MOST_NAMED)}" if others else ""
        remarks.append(f"{len(pages)} of the {announced} planes of its image are read{where}")
    return OmePlanes(pages, remarks)


def _pixels_planes(
    pixels: ElementTree.Element, uuid: str | None, name: str, n_pages: int
) -> tuple[int, list[int], list[str]]:
    """Return how many planes an image has, the pages that they are, and which files hold more."""
    axes = pixels.get("DimensionOrder", "XYZCT")[2:]
    sizes = {axis: _number(pixels, f"Size{axis}", 1) for axis in axes}
    announced = 1
    for size in sizes.values():
        announced *= size
    samples = [_number(e, "SamplesPerPixel", 1) for e in pixels if local_name(e) == "Channel"]
    announced //= max([1, *samples[:1]])
    place: dict[int, int] = {}
    others: list[str] = []
    blocks = [element for element in pixels if local_name(element) == "TiffData"]
    for block in blocks:
        first, step = 0, 1
        for axis in axes:
            first += step * _number(block, f"First{axis}", 0)
            step *= sizes[axis]
        page = _number(block, "IFD", 0)
        left = announced - first
        count = _number(block, "PlaneCount", 1 if block.get("IFD") is not None else left)
        at = next((e for e in block if local_name(e) == "UUID"), None)
        file = None if at is None else at.get("FileName")
        if at is not None and (at.text or "").strip() != uuid and file not in (None, name):
            others += [file] if file not in others else []
            continue
        for step in range(max(0, min(count, left, n_pages - page))):
            place.setdefault(first + step, page + step)
    if not blocks:
        place = {i: i for i in range(min(announced, n_pages))}
    used = [place[plane] for plane in sorted(place)]
    return announced, list(dict.fromkeys(used)), [str(other) for other in others]


def _number(element: ElementTree.Element, name: str, default: int) -> int:
    try:
        return max(0, int(element.get(name, default)))
    except ValueError:
        return default
