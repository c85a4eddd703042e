"""Opening files of any format, and a rotation series as one movie.

The format is known by the first bytes of a file rather than by its name.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, listed, warn
from napari_mrcz.format import FrameReader, Header
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.format.header import parse_header
from napari_mrcz.naming import (
    DM_SUFFIXES,
    SMV_SUFFIXES,
    TIFF_MAGIC,
    TIFF_SUFFIXES,
    TVIPS_SUFFIX,
    has_movie_suffix,
    natural_key,
    path_of,
    without_packing,
)
from napari_mrcz.stack.cache import CACHE_NBYTES
from napari_mrcz.stack.companions import with_companions
from napari_mrcz.stack.kept import NOTE, is_kept, opened, summary_of, waiting
from napari_mrcz.stack.raw_frames import first_part, is_smv, is_tvips, merged, open_smv, open_tvips
from napari_mrcz.stack.sources import MOST_OPEN, uncorrected
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Enough of a file to know its format by.
HEAD_NBYTES = 1024
# Of the movies in a folder.
_MOST_NAMED = 5
# In any unit.
_MOST_DOSE = 1e9


def _is_dm(head: bytes) -> bool:
    """Return whether a file that begins so is a DM3 or DM4 file."""
    if len(head) < 18 or head[208:212] == b"MAP ":
        return False
    version = int.from_bytes(head[:4], "big")
    at = {3: 8, 4: 12}.get(version)
    if at is None:
        return False
    little_endian = int.from_bytes(head[at : at + 4], "big")
    return little_endian in (0, 1) and any(head[4:at]) and max(head[at + 4 : at + 6]) <= 1


def _open_tiff(path: Path) -> Stack:
    from napari_mrcz.stack.tiff import open_tiff  # not loaded for other files

    return open_tiff(path)


def _open_dm(path: Path) -> Stack:
    from napari_mrcz.stack.dm import open_dm  # likewise

    return open_dm(path)


# Of each format but MRC: whether a file begins as its files do, how they end, what opens them.
_FORMATS: tuple[tuple[Callable[[bytes], bool], tuple[str, ...], Callable[[Path], Stack]], ...] = (
    (lambda head: head.startswith(TIFF_MAGIC), TIFF_SUFFIXES, _open_tiff),
    (_is_dm, DM_SUFFIXES, _open_dm),
    (is_smv, SMV_SUFFIXES, lambda path: open_smv([path])),
    (is_tvips, (TVIPS_SUFFIX,), open_tvips),
)


def open(
    path: AnyPath,
    *,
    group: int | None = None,
    dose_per_frame: float | None = None,
    superresolution: int = 1,
    counts: bool = False,
    read_ahead: bool = True,
    cache_nbytes: int = CACHE_NBYTES,
) -> Stack:
    """Open a movie of any format without decoding anything.

    A movie that is kept as counts (``write(..., keep="counts")``) opens as its normalised frames.

    Parameters
    ----------
    path : path-like
        MRC or MRCZ; TIFF; EER (needs ``napari-mrcz[eer]``); DM3 or DM4; SMV; the first file of a
        TVIPS recording, ``_000.tvips``. Its content decides, whatever the suffix; it may be packed
        with gzip or bzip2. Or a folder with the images of one sweep, or with one movie. Or a
        URL, ``https://`` or ``s3://`` (needs ``napari-mrcz[remote]``), from which no more is
        fetched than header, footer and the frames that are asked for.
    group : int, optional
        Of EER: how many frames are summed into one (see `Stack.group`).
    dose_per_frame : float, optional
        Of EER, instead of `group`: so many frames are summed as come nearest to this dose, in the
        unit of the total dose that the file names.
    superresolution : {1, 2, 4}
        Of EER: into how many rows and columns each pixel is divided, e.g. 4096², 8192² or 16384²
        pixels per frame.
    counts : bool
        Of a movie that is kept as counts: return the counts, without gain and KOMA.
    read_ahead : bool
        Decode the next two frames, in the background, when frames are asked for in order.
    cache_nbytes : int
        Bytes of decoded frames to be kept; three frames if that is more.

    Returns
    -------
    Stack
        Lazy, of shape (frames, rows, columns). Its header is None unless it is an MRC file. What
        SerialEM's `.mdoc`, EPU's `.xml` or an `_info.txt` beside it says is in its metadata.

    Raises
    ------
    MrczError
        If the file cannot be used: what was found, at which byte, what to do; if a folder holds
        no movie, or several; if the options of EER movies are used for another; if the gain of a
        movie that is kept as counts is missing or altered; or if `counts` is used for a file that
        is not kept so.
    ValueError
        If an option has no such value.

    Warns
    -----
    MrczWarning
        If metadata is damaged or frames are missing or not read, but pixels can be read; also
        metadata in files beside it.
    """
    path = path_of(path).absolute()
    caching: dict[str, Any] = {"read_ahead": read_ahead, "cache_nbytes": cache_nbytes}
    for_eer = group is not None or dose_per_frame is not None or superresolution != 1
    if os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK):
        files = _sweep_in(path)
        if len(files) > 1:
            if counts or for_eer:
                found = f"is a folder of {len(files)} images, for which there are no options"
                raise MrczError(path, found)
            return open_sweep(files).cached(**caching)
        (path,) = files
    file = open_file(path)
    try:
        opener = opener_of(file.read(0, HEAD_NBYTES))
        if counts and opener is not None:
            raise _not_kept(path)
    except BaseException:
        file.close()
        raise
    if for_eer:
        file.close()
        movie = _open_eer(path, opener is _open_tiff, group, dose_per_frame, superresolution)
        return movie.cached(**caching)
    if opener is None:
        try:
            return with_companions(_open_mrc(file, counts, **caching), path)
        except NotEnoughMemory:
            raise
        except MrczError:
            suffix = without_packing(path).suffix.lower()
            opener = next((opener for _, ends, opener in _FORMATS if suffix in ends), None)
            if opener is None:
                raise
    file.close()
    # Also if the suffix is wrong about the format: the format's own error says so.
    movie = opener(path).cached(**caching)
    return with_companions(movie, path)


def _sweep_in(folder: Path) -> list[Path]:
    """Return the files of the one movie or sweep in a folder; not of folders in it."""
    try:
        files = sorted((f for f in folder.iterdir() if not f.name.startswith(".")), key=natural_key)
    except OSError as error:
        raise MrczError(folder, f"cannot be listed: {error.strerror}") from error
    found = sweeps([file for file in files if has_movie_suffix(file.name) and not file.is_dir()])
    if not found:
        advice = "Open a file, or a folder with the images of a sweep"
        raise MrczError(folder, "is a folder without a movie", advice=advice)
    if len(found) > 1:
        named = [" to ".join(dict.fromkeys((one[0].name, one[-1].name))) for one in found]
        said = f"is a folder of {len(found)} movies or sweeps: {listed(named, _MOST_NAMED)}"
        raise MrczError(folder, said, advice="Open one of them, or move a sweep to its own folder")
    return found[0]


def _open_eer(
    path: Path, is_tiff: bool, group: int | None, dose_per_frame: float | None, superresolution: int
) -> Stack:
    """Open an EER movie with the options that are for EER alone."""
    from napari_mrcz.stack.tiff import SUPERRESOLUTIONS, is_eer, open_tiff

    if superresolution not in SUPERRESOLUTIONS:
        raise ValueError(f"superresolution is 1, 2 or 4, not {superresolution!r}")
    if group is not None and dose_per_frame is not None:
        raise ValueError("group and dose_per_frame exclude each other")
    if group is not None and operator.index(group) < 1:
        raise ValueError(f"group is a number of frames, not {group!r}")
    if dose_per_frame is not None and not dose_per_frame > 0:
        raise ValueError(f"dose_per_frame is a dose, not {dose_per_frame!r}")
    movie = open_tiff(path, int(superresolution)) if is_tiff else None
    if movie is None or not is_eer(movie):
        if movie is not None:
            movie.close()
        found = "group, dose_per_frame and superresolution are options of EER movies, not of this"
        raise MrczError(path, found, advice="Sum the frames of others by Stack.group")
    size = movie.pixel_size
    movie = with_companions(movie, path)
    if movie.pixel_size != size:
        z, y, x = movie.pixel_size  # that of whole pixels
        size = z, y / superresolution, x / superresolution
        movie = movie.described(pixel_size=size)
    try:
        if dose_per_frame is not None:
            group = frames_of_dose(movie, dose_per_frame)
        return movie if group is None else movie.group(group)
    except ValueError as error:
        movie.close()
        if isinstance(error, MrczError):
            raise
        raise MrczError(path, str(error)) from error


def frames_of_dose(movie: Stack, dose: float) -> int:
    """Return how many frames of an EER movie have a dose, as nearly as can be.

    `movie`: the movie, in single frames; `dose`: in the unit of the total dose that the file
    states. Raise `MrczError` if the file states none.
    """
    total = total_dose(movie)
    if not total:
        found = "it names no total dose, by which frames could be grouped"
        raise MrczError(movie.path, found, advice="Name the number of frames by group")
    return max(1, round(min(len(movie), dose * len(movie) / total)))


def total_dose(movie: Stack) -> float:
    """Return the total dose that an EER movie states, in its unit; 0.0 if it states none."""
    total = movie.metadata.get("eer", {}).get("totalDose")
    return float(total) if isinstance(total, int | float) and 0 < total < _MOST_DOSE else 0.0


def packed_header(path: Path) -> Header | None:
    """Return the header of a packed MRC file, of which no more is unpacked; None of other files.

    Raise `MrczError` if it cannot be opened or unpacked.
    """
    with closing(open_file(path)) as file:
        head = file.read(0, HEAD_NBYTES) if file.is_packed else b""
    if not head or opener_of(head) is not None:
        return None
    try:
        return parse_header(head, path)
    except MrczError:
        return None


def opener_of(head: bytes) -> Callable[[Path], Stack] | None:
    """Return what opens files that begin so; None for MRC, and for what no format begins with."""
    return next((opener for begins, _, opener in _FORMATS if begins(head)), None)


def _open_mrc(file: RandomAccessFile, counts: bool, **caching: Any) -> Stack:
    reader = FrameReader(file.path, file)
    for message in reader.warnings:
        warn(message)
    header, other = reader.header, reader.footer.other
    try:
        if NOTE in reader.metadata and not waiting(reader.path, other):
            lost = "the footer that had them is lost or was left out"
            warn(f"{reader.path}: these are counts; gain and KOMA are NOT applied: {lost}")
        if is_kept(other):
            note = summary_of(reader.path, other, reader.dtype)
            header = replace(header, notes=(*header.notes, note))
            stack = Stack(reader, reader.description, header, **caching)
            return opened(stack, other, counts=counts)
        if counts:
            raise _not_kept(file.path)
    except BaseException:
        reader.close()
        raise
    return Stack(reader, reader.description, header, **caching)


def _not_kept(path: Path) -> MrczError:
    found = "is not kept as counts: there are no other frames in it than those that it shows"
    return MrczError(path, found, advice="Open it without counts=True")


def is_whole(movie: Stack) -> bool:
    """Return whether nothing is missing of a movie's file, as far as opening it shows."""
    source = uncorrected(movie._source)
    if isinstance(source, FrameReader):
        return not source.warnings
    return bool(getattr(source, "is_whole", True))  # TIFF says so


_NUMBER = re.compile(r"[-_.]?\d+$")


def sweeps(paths: Sequence[Path]) -> list[list[Path]]:
    """Return files sorted into movies: images whose names differ by their last number are one.

    `paths`: files of any format that is known. Later files of a TVIPS recording are left out: they
    are opened with the first one. The result: in the order in which they are first met; within a
    series by number. Raise `MrczError` if a file that may belong to a series cannot be opened.
    """
    groups: dict[tuple[Path, str, str], list[Path]] = {}
    for path in paths:
        if first_part(path) is None:
            suffixes = path.name.removeprefix(without_packing(path).stem)
            key = path.parent, _NUMBER.sub("", without_packing(path).stem), suffixes.lower()
            groups.setdefault(key, []).append(path)
    found: list[list[Path]] = []
    for group in groups.values():
        if len(group) > 1 and all(map(_is_single, group)):
            found.append(sorted(group, key=_number))
        else:
            found += ([path] for path in group)
    return found


def open_sweep(paths: Sequence[AnyPath]) -> Stack:
    """Open files as one movie, one after the other, such as the images of a rotation series.

    `paths`: one or more, in order; see `sweeps`. The result: what their metadata have in common is
    as in each of them; where they differ, it is a list with one value per file. Raise `MrczError`
    if one cannot be read, or their frames differ in shape or type. Raise `ValueError` if there is
    none. Warn if numbers are missing in the series.
    """
    if len(paths) == 1:
        return open(paths[0])
    files = [path_of(path).absolute() for path in paths]
    if missing := _gaps(files):
        warn(f"{files[0]}: images {missing} are missing")
    if files and all(without_packing(path).suffix.lower() in SMV_SUFFIXES for path in files):
        return open_smv(files)
    parts: list[Stack] = []
    try:
        for path in files:
            parts.append(open(path))
            if len(files) > MOST_OPEN:
                parts[-1].close()  # reading opens it again
        joined = Stack.joined(parts)
    except BaseException as error:
        for part in parts:
            part.close()
        if not isinstance(error, ValueError) or isinstance(error, MrczError) or not files:
            raise
        raise MrczError(files[0].parent, str(error)) from error
    return joined.described(metadata=merged([dict(part.description.metadata) for part in parts]))


def sweep_name(path: Path) -> str:
    """Return what the names of a series have in common: without number and suffix."""
    stem = without_packing(path).stem
    return _NUMBER.sub("", stem) or stem


def _number(path: Path) -> tuple[int, str]:
    digits = re.search(r"\d+$", without_packing(path).stem)
    return int(digits[0]) if digits else 0, path.name


def _gaps(paths: Sequence[Path]) -> str:
    """Return which numbers are missing among the files of one series, in words; "" for none."""
    if len({(path.parent, _NUMBER.sub("", without_packing(path).stem)) for path in paths}) != 1:
        return ""
    numbers = sorted({_number(path)[0] for path in paths})
    missing = [
        f"{one + 1}" if other == one + 2 else f"{one + 1} to {other - 1}"
        for one, other in itertools.pairwise(numbers)
        if other > one + 1
    ]
    return listed(missing)


def _is_single(path: Path) -> bool:
    if without_packing(path).suffix.lower() in SMV_SUFFIXES:
        return True
    with open(path) as movie:
        return len(movie) == 1
