"""Opening a movie whatever its format is: what a file is, its bytes say before its name does."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, NotEnoughMemory, warn
from napari_mrcz.format import FrameReader
from napari_mrcz.format.files import open_file
from napari_mrcz.format.header_reading import parse_header
from napari_mrcz.naming import (
    DM_SUFFIXES,
    SMV_SUFFIXES,
    TIFF_SUFFIXES,
    TVIPS_SUFFIX,
    without_packing,
)
from napari_mrcz.stack.cache import CACHE_NBYTES
from napari_mrcz.stack.companions import with_companions
from napari_mrcz.stack.dm import is_dm, open_dm
from napari_mrcz.stack.kept import NOTE, is_kept, opened, summary_of, waiting
from napari_mrcz.stack.smv import is_smv, open_smv
from napari_mrcz.stack.stack import Stack
from napari_mrcz.stack.tiff import SUPERRESOLUTIONS, is_eer, is_tiff, open_tiff
from napari_mrcz.stack.tvips import is_tvips, open_tvips

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from napari_mrcz.format import Header
    from napari_mrcz.format.files import RandomAccessFile

# Enough of a file to know its format by.
_HEAD_NBYTES = 1024
# Of each format but MRC: whether a file begins as its files do, how they end, what opens them.
_FORMATS: tuple[tuple[Callable[[bytes], bool], tuple[str, ...], Callable[[Path], Stack]], ...] = (
    (is_tiff, TIFF_SUFFIXES, open_tiff),
    (is_dm, DM_SUFFIXES, open_dm),
    (is_smv, SMV_SUFFIXES, lambda path: open_smv([path])),
    (is_tvips, (TVIPS_SUFFIX,), open_tvips),
)


def open(
    path: str | PathLike[str],
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
        with gzip or bzip2.
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
        If the file cannot be used: what was found, at which byte, what to do; if an option is for
        EER, which it is not; if the gain of a movie that is kept as counts is missing or altered;
        or if `counts` is asked of another file.
    ValueError
        If an option has no such value.

    Warns
    -----
    MrczWarning
        If metadata is damaged or frames are missing or not read, but pixels can be read; also
        metadata in files beside it.
    """
    path = Path(path).absolute()
    file = open_file(path)
    try:
        opener = _opener(file.read(0, _HEAD_NBYTES))
    except BaseException:
        file.close()
        raise
    if counts and opener is not None:
        file.close()
        raise _not_kept(path)
    if group is not None or dose_per_frame is not None or superresolution != 1:
        file.close()
        movie = _open_eer(path, opener is open_tiff, group, dose_per_frame, superresolution)
        return movie.cached(read_ahead=read_ahead, cache_nbytes=cache_nbytes)
    if opener is None:
        try:
            return with_companions(_open_mrc(file, counts, read_ahead, cache_nbytes), path)
        except NotEnoughMemory:
            raise
        except MrczError:
            suffix = without_packing(path).suffix.lower()
            opener = next((opener for _, ends, opener in _FORMATS if suffix in ends), None)
            if opener is None:
                raise
    file.close()
    # Also of what is not the format of its suffix: the format's own error says so.
    movie = opener(path).cached(read_ahead=read_ahead, cache_nbytes=cache_nbytes)
    return with_companions(movie, path)


def _open_eer(
    path: Path,
    is_tiff: bool,
    group: int | None,
    dose_per_frame: float | None,
    superresolution: int,
) -> Stack:
    """Open an EER movie with the options that are for EER alone."""
    if superresolution not in SUPERRESOLUTIONS:
        raise ValueError(f"superresolution is 1, 2 or 4, not {superresolution!r}")
    if group is not None and dose_per_frame is not None:
        raise ValueError("group and dose_per_frame exclude each other")
    if group is not None and group < 1:
        raise ValueError(f"group is a number of frames, not {group!r}")
    if dose_per_frame is not None and not dose_per_frame > 0:
        raise ValueError(f"dose_per_frame is a dose, not {dose_per_frame!r}")
    movie = open_tiff(path, superresolution) if is_tiff else None
    if movie is None or not is_eer(movie):
        if movie is not None:
            movie.close()
        found = "group, dose_per_frame and superresolution are options of EER movies"
        advice = "Sum the frames of others by Stack.group"
        raise MrczError(path, f"{found}, which this is not", advice=advice)
    size = movie.pixel_size
    movie = with_companions(movie, path)
    if movie.pixel_size != size:
        z, y, x = movie.pixel_size  # that of whole pixels
        size = z, y / superresolution, x / superresolution
        movie = movie.described(pixel_size=size)
    try:
        if dose_per_frame is not None:
            group = _frames_of_dose(movie, dose_per_frame)
        return movie if group is None else movie.group(group)
    except ValueError as error:
        movie.close()
        if isinstance(error, MrczError):
            raise
        raise MrczError(path, str(error)) from error


def _frames_of_dose(movie: Stack, dose: float) -> int:
    """Return how many frames of an EER movie have a dose, as nearly as can be."""
    total = movie.metadata.get("eer", {}).get("totalDose")
    if not isinstance(total, int | float) or not total > 0:
        found = "it names no total dose, by which frames could be grouped"
        raise MrczError(movie.path, found, advice="Name the number of frames by group")
    return min(len(movie), max(1, round(dose * len(movie) / total)))


def is_mrc(path: Path) -> bool:
    """Return whether a file does not begin as those of other formats do.

    Raises
    ------
    MrczError
        If it cannot be opened.
    """
    return _opener(_head(path)) is None


def packed_header(path: Path) -> Header | None:
    """Return the header of a packed MRC file, of which no more is unpacked; None of other files.

    Raises
    ------
    MrczError
        If it cannot be opened or unpacked.
    """
    with closing(open_file(path)) as file:
        head = file.read(0, _HEAD_NBYTES) if file.is_packed else b""
    if not head or _opener(head) is not None:
        return None
    try:
        return parse_header(head, path)
    except MrczError:
        return None


def _head(path: Path) -> bytes:
    with closing(open_file(path)) as file:
        return file.read(0, _HEAD_NBYTES)


def _opener(head: bytes) -> Callable[[Path], Stack] | None:
    return next((opener for begins, _, opener in _FORMATS if begins(head)), None)


def _open_mrc(file: RandomAccessFile, counts: bool, read_ahead: bool, cache_nbytes: int) -> Stack:
    reader = FrameReader(file.path, file)
    for message in reader.warnings:
        warn(message)
    other = reader.footer.other
    header = reader.header
    caching: dict[str, Any] = {"read_ahead": read_ahead, "cache_nbytes": cache_nbytes}
    try:
        if NOTE in reader.metadata and not waiting(reader.path, other):
            said = "these are counts, to which gain and KOMA are NOT applied: the footer that had "
            warn(f"{reader.path}: {said}them is lost or was left out")
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
