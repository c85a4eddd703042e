"""Gain and dark references and lists of defective pixels, as cameras and programs leave them.

Rows come in the order of MRC files. TIFF and DigitalMicrograph files begin with the top row, MRC
files with the bottom one, and the programs that convert between them (IMOD, SerialEM, MotionCor,
RELION, EMAN2) turn images upside down on the way: so does this. What then still lies the wrong way
round was saved so; `find_orientation` finds out how.

Three kinds of defect list are read and written: SerialEM's `defects.txt`, the rectangles of
MotionCor (``-DefectFile``) and RELION (``--defect_file``), and a map (``-DefectMap``,
``--defect_file``). Those in a Falcon's EER gain reference are read. Masks are (y, x), True where a
pixel is bad; those of a `.gain` lie as its EER movie.

SerialEM counts rows from the top of the image as its camera gives it, from 0; where it saves MRC
frames, and where IMOD applies such a file to them, these are upside down, and so is the mask here.
It turns the list that it writes beside frames as the frames are turned (``RotationAndFlip``).
Rectangles ``x y w h`` are corner and size in the frame as stored, from 0. In a map all values but
0 are bad. IMOD may write bytes 128 higher: in a map of nothing but 128 and 129 (-128 and -127 where
they are read as signed) the higher ones are bad.
"""

from __future__ import annotations

import codecs
import io
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError, listed, warn
from napari_mrcz.format.atomic import write_file
from napari_mrcz.format.files import open_file
from napari_mrcz.naming import TIFF_MAGIC, without_packing
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack import write
from napari_mrcz.stack.companions import local_name, parse_xml
from napari_mrcz.stack.tiff_pages import read_directories

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def read_reference(path: AnyPath) -> npt.NDArray[np.float32]:
    """Read a gain or dark reference.

    Parameters
    ----------
    path : path-like
        A file of any format that `open` reads, packed or not: MRC, a TIFF (also with the suffix
        `.gain`, as EER movies come with), DM3 or DM4 ...

    Returns
    -------
    ndarray of float32, shape (y, x)
        Rows in the order of MRC files; those of a `.gain` in their own, which is that of its EER
        movie.

    Raises
    ------
    MrczError
        If the file cannot be read or is not one image.
    """
    image = read_image(path)
    if image.dtype.kind not in "fiub":
        raise MrczError(path, f"a reference has real values, not {image.dtype}")
    return np.ascontiguousarray(image, np.float32)


def read_image(path: AnyPath) -> npt.NDArray[Any]:
    """Read the one image of a file, (y, x), rows in the order of MRC files."""
    path = Path(path)
    with open_stack(path, read_ahead=False) as stack:
        if len(stack) != 1:
            found = f"one image is expected, not an array of {stack.shape}"
            advice = "A reference from a movie is made by estimate_gain"
            raise MrczError(path, found, advice=advice)
        image: npt.NDArray[Any] = np.asarray(stack)[0]
        own_rows = stack.header is None and has_own_rows(path)
    return image[::-1] if own_rows else image


def has_own_rows(path: Path) -> bool:
    """Return whether a TIFF's rows lie as those of the EER movie that it belongs to."""
    return without_packing(path).suffix.lower() == ".gain"


Mask = npt.NDArray[np.bool_]
# Line, x, y, width and height.
_Rectangle: TypeAlias = tuple[int, int, int, int, int]

_SERIALEM = re.compile(r"^\s*(CameraSize[XY]|RotationAndFlip|K2Type|UsableArea|\w*Bad[A-Z]\w*)\s")
_SHORTEST_RUN = 3
_LARGEST_CAMERA = 2**16
_IMODS_ZEROS = (128, -128)
_MOST_BAD = 0.5
_LONGEST_TEXT = 2**24
# Of a Falcon's gain reference: an XML of rows, columns, areas and points.
_FALCON_TAG = 65100
_FALCON_NUMBERS = {"area": 4, "nonmaskingarea": 4, "point": 2, "nonmaskingpoint": 2}


def read_defects(path: AnyPath, shape: tuple[int, int] | None = None) -> Mask:
    """Read which pixels are defective.

    Parameters
    ----------
    path : path-like
        A text file of SerialEM, MotionCor or RELION, a map (MRC, MRCZ, TIFF or DM), or the
        `.gain` of EER movies.
    shape : tuple of int, optional
        Of the frames (y, x). Rectangles say nothing of the camera's size, so they need it.
        SerialEM's lists and maps are brought to it where it is two or four times theirs
        (super-resolution), or a half or quarter of it (binning).

    Returns
    -------
    ndarray of bool, shape (y, x)

    Raises
    ------
    MrczError
        If the file is none of these, damaged, or of a camera of another shape; also if one of its
        rectangles lies wholly outside the frames.
    ValueError
        If the shape is needed and not given.

    Warns
    -----
    MrczWarning
        If a list has entries beyond the frames, which are cut there, or no rectangle; if more than
        half of the pixels are bad: it is another camera's, or good and bad are swapped.
    """
    path = Path(path)
    text = _text(path)
    if text is None:
        bad = _falcon_mask(path)
        if bad is None:
            image = read_image(path)
            bad = image != 0
            for zero in _IMODS_ZEROS:
                if image.dtype.kind in "iu" and np.isin(image, (zero, zero + 1)).all():
                    bad = image != zero
    elif any(_SERIALEM.match(line) for line in text.splitlines()):
        return _scaled(path, _serialem_mask(path, text), shape)
    else:
        bad = _motioncor_mask(path, text, shape)
    if (share := bad.mean()) > _MOST_BAD:
        why = "it may be of another camera, or have 1 for good ones"
        warn(f"{path}: {share:.0%} of its pixels are defective: {why}")
    return _scaled(path, bad, shape)


def write_defects(
    path: AnyPath, mask: npt.NDArray[Any], kind: str, *, overwrite: bool = False
) -> None:
    """Write which pixels are defective, all or nothing.

    Parameters
    ----------
    path : path-like
        The file; a map's suffix is one of MRC's or `.tif`.
    mask : ndarray of bool, shape (y, x)
        True where a pixel is bad, rows in the order of MRC files.
    kind : {"serialem", "motioncor", "map"}
        For SerialEM and IMOD, for MotionCor and RELION, for whatever reads images.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MrczError
        If the file exists and may not be replaced, or the disk refuses.
    ValueError
        If there is no such kind, or the mask has not two axes.
    """
    path = Path(path)
    mask = np.asarray(mask, np.bool_)
    if mask.ndim != 2:
        raise ValueError(f"a mask has two axes, not the shape {mask.shape}")
    if kind == "serialem":
        content = "".join(f"{line}\n" for line in _serialem_lines(mask[::-1])).encode("ascii")
    elif kind == "motioncor":
        lines = (f"{x} {y} {w} {h}\n" for x, y, w, h in _rectangles(mask))
        content = "".join(lines).encode("ascii")
    elif kind == "map" and path.suffix.lower() in (".tif", ".tiff"):
        import tifffile  # slow to import, seldom needed

        image = io.BytesIO()
        tifffile.imwrite(image, mask[::-1].astype(np.uint8), compression="zlib")
        content = image.getvalue()
    elif kind == "map":
        write(path, mask.astype(np.int8), overwrite=overwrite)
        return
    else:
        raise ValueError(f'kind is "serialem", "motioncor" or "map", not {kind!r}')
    write_file(path, content, overwrite=overwrite)


def _text(path: Path) -> str | None:
    """Return the content of a text file; None of a binary one."""
    with closing(open_file(path)) as file:
        if b"\0" in file.read(0, 1024):
            return None
        raw = file.read(0, _LONGEST_TEXT + 1)
    if len(raw) > _LONGEST_TEXT:
        found = f"more than {_LONGEST_TEXT} bytes of text, which is not a defect list"
        raise MrczError(path, found)
    return raw.removeprefix(codecs.BOM_UTF8).decode("latin-1")


def _falcon_mask(path: Path) -> Mask | None:
    """Read the defects that a Falcon's gain reference lists, as IMOD's CorrectDefects does.

    None if the file is not a TIFF with such a list; `MrczError` if the list is damaged or missing.
    """
    with closing(open_file(path)) as file:
        if file.read(0, 4) not in TIFF_MAGIC:
            return None
        page = read_directories(file).pages[0]
        text, (y, x) = page.text(_FALCON_TAG), page.shape[-2:]
    if not text:
        if has_own_rows(path):
            raise MrczError(path, "a gain reference that lists no defects; go on without it")
        return None
    mask = np.zeros((y, x), np.bool_)
    root = parse_xml(text)
    if root is None:
        raise MrczError(path, "its list of defects is not XML")
    try:
        for element in root.iter():
            kind, words = local_name(element), (element.text or "").replace("-", ",")
            values = [int(word) for word in words.split(",") if word.strip()]
            if len(values) != _FALCON_NUMBERS.get(kind, len(values)):
                raise ValueError(f"{kind} of {element.text!r}")
            if kind == "row":
                mask[values[0] : values[-1] + 1] = True
            elif kind == "col":
                mask[:, values[0] : values[-1] + 1] = True
            elif kind in _FALCON_NUMBERS:
                mask[values[1] : values[-1] + 1, values[0] : values[-2] + 1] = True
    except (ValueError, IndexError) as error:
        raise MrczError(path, f"its list of defects cannot be read: {error}") from error
    return mask if has_own_rows(path) else mask[::-1]


def _serialem_mask(path: Path, text: str) -> Mask:
    """Read SerialEM's list; the names and meanings are those of its CorrectDefects module."""
    entries = list(_entries(path, text))
    size = {name: values[0] for _, name, values in entries if name.startswith("CameraSize")}
    y, x = size.get("CameraSizeY", 0), size.get("CameraSizeX", 0)
    if min(y, x) < 1:
        raise MrczError(path, "it has no CameraSizeX and CameraSizeY")
    if max(y, x) > _LARGEST_CAMERA:
        raise MrczError(path, f"it is of a camera of {x} x {y} pixels; no camera has so many")
    scaled = max((v[0] for _, name, v in entries if name == "WasScaled"), default=0)
    # Coordinates scaled up to super-resolution name the corner of a physical pixel.
    block = {1: 2, 2: 4}.get(scaled, 1)
    usable = np.ones((y, x), np.bool_)
    rectangles: list[_Rectangle] = []
    for number, name, values in entries:
        if name == "BadPixels":
            places = zip(values[::2], values[1::2], strict=True)
            rectangles += [(number, px, py, block, block) for px, py in places]
        elif name == "BadColumns":
            rectangles += [(number, column, 0, 1, y) for column in values]
        elif name == "BadRows":
            rectangles += [(number, 0, row, x, 1) for row in values]
        elif name == "PartialBadColumn":
            column, width, start, end = values[:4]
            rectangles.append((number, column, start, width, end + 1 - start))
        elif name == "PartialBadRow":
            row, height, start, end = values[:4]
            rectangles.append((number, start, row, end + 1 - start, height))
        elif name == "UsableArea":
            # First and last usable row and column; 0 stands for the edge.
            top, left, bottom, right = values[:4]
            inside = np.zeros_like(usable)
            inside[top : (bottom or y) + 1, left : (right or x) + 1] = True
            usable &= inside
    return (_filled(path, (y, x), rectangles) | ~usable)[::-1]


def _filled(path: Path, shape: tuple[int, int], rectangles: Iterable[_Rectangle]) -> Mask:
    """Return a mask of rectangles, cut at its borders; warn of those that reach beyond them."""
    mask = np.zeros(shape, np.bool_)
    beyond = []
    for number, x, y, w, h in rectangles:
        mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
        if min(x, y) < 0 or y + h > shape[0] or x + w > shape[1]:
            beyond.append(number)
    if beyond:
        numbers = sorted(set(beyond))
        lines = f"line{'s' * (len(numbers) > 1)} {listed(numbers, 5)}"
        found = f"what lies beyond frames of {shape} is cut off ({lines})"
        warn(f"{path.name}: {found}. It may be of another camera or mode")
    return mask


def _entries(path: Path, text: str) -> Iterator[tuple[int, str, list[int]]]:
    """Yield number, name and values of each line of SerialEM's list."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if len(words) < 2 or words[0].startswith("#"):
            continue
        name = words[0]
        try:
            values = [int(word) for word in words[1:]]
        except ValueError:
            raise MrczError(path, f"line {number} has no whole numbers: {line!r}") from None
        needed = 4 if name in ("UsableArea", "PartialBadColumn", "PartialBadRow") else 1
        odd = name == "BadPixels" and len(values) % 2
        negative = min(values) < 0 and ("Bad" in name or name == "UsableArea")
        few = len(values) < needed
        empty = name.startswith("Partial") and not few and (values[1] < 1 or values[2] > values[3])
        if few or odd or negative or empty:
            raise MrczError(path, f"line {number} is not a {name} entry: {line!r}")
        yield number, name, values


def _motioncor_mask(path: Path, text: str, shape: tuple[int, int] | None) -> Mask:
    """Read a list of rectangles, x, y, width and height."""
    rectangles: list[_Rectangle] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            x, y, w, h = (int(word) for word in words)
            if min(w, h) < 1:
                raise ValueError("it has no pixels")
        except ValueError:
            raise MrczError(path, f"line {number} is not x y w h: {line[:80]!r}") from None
        rectangles.append((number, x, y, w, h))
    if shape is None:
        raise ValueError(f"{path}: a list of rectangles needs the shape of the frames")
    for number, x, y, w, h in rectangles:
        if x >= shape[1] or y >= shape[0] or x + w <= 0 or y + h <= 0:
            found = f"line {number}, {x} {y} {w} {h}, lies outside frames of {shape}"
            raise MrczError(path, found, advice="It may be of another camera or mode")
    if not rectangles:
        warn(f"{path}: it lists no defects")
    return _filled(path, shape, rectangles)


def _scaled(path: Path, mask: Mask, shape: tuple[int, int] | None) -> Mask:
    """Bring a mask to frames of two or four times its shape, or of a half or quarter."""
    if shape is None or mask.shape == tuple(shape):
        return np.ascontiguousarray(mask)
    for factor in (2, 4):
        if (mask.shape[0] * factor, mask.shape[1] * factor) == tuple(shape):
            return mask.repeat(factor, axis=0).repeat(factor, axis=1)
        if (shape[0] * factor, shape[1] * factor) == mask.shape:
            cells = mask.reshape(shape[0], factor, shape[1], factor)
            return np.asarray(cells.any(axis=(1, 3)))
    found = f"it is of a camera of {mask.shape}, where frames have {tuple(shape)}"
    advice = "It may be of another camera or mode"
    y, x = mask.shape
    if y != x and y * shape[0] == x * shape[1]:
        advice = "It lies on its side: take the list that was written beside the frames"
    raise MrczError(path, found, advice=advice)


def _serialem_lines(mask: Mask) -> Iterator[str]:
    """Write a mask, top row first, as whole rows and columns, long runs, and single pixels."""
    y, x = mask.shape
    yield f"CameraSizeX {x}"
    yield f"CameraSizeY {y}"
    for name in ("RotationAndFlip", "WasScaled", "K2Type", "FalconType", "NumToAvgSuperRes"):
        yield f"{name} 0"
    yield "UsableArea 0 0 0 0"
    rows, columns = np.asarray(mask.all(axis=1)), np.asarray(mask.all(axis=0))
    left = mask & ~rows[:, np.newaxis] & ~columns
    for name, lines in (("PartialBadColumn", left.T), ("PartialBadRow", left)):
        for line, start, end in _runs(lines):
            if end - start >= _SHORTEST_RUN:
                yield f"{name} {line} 1 {start} {end - 1}"
                lines[line, start:end] = False
    pixels = [f"{px} {py}" for py, px in np.argwhere(left)]
    yield from _several("BadPixels", pixels, 10)
    yield from _several("BadColumns", [str(c) for c in np.flatnonzero(columns)], 20)
    yield from _several("BadRows", [str(r) for r in np.flatnonzero(rows)], 20)


def _several(name: str, items: list[str], most: int) -> Iterator[str]:
    """Write so many items a line as SerialEM does; it reads no more than 50 numbers."""
    for start in range(0, len(items), most):
        yield f"{name} {' '.join(items[start : start + most])}"


def _runs(mask: Mask) -> list[tuple[int, int, int]]:
    """Return row, first column and end of each run of bad pixels."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(edges == 1).tolist(), np.argwhere(edges == -1).tolist()
    return [(row, start, end) for (row, start), (_, end) in zip(starts, ends, strict=True)]


def _rectangles(mask: Mask) -> list[tuple[int, int, int, int]]:
    """Return x, y, width and height: the runs of bad pixels, merged over rows where they agree."""
    tops_and_ends: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, start, end in _runs(mask):
        stacked = tops_and_ends.setdefault((start, end), [])
        if stacked and stacked[-1][1] == row:
            stacked[-1] = (stacked[-1][0], row + 1)
        else:
            stacked.append((row, row + 1))
    return [
        (start, top, end - start, bottom - top)
        for (start, end), stacked in tops_and_ends.items()
        for top, bottom in stacked
    ]
