"""Checking every frame of a file of any format: a report, never an exception."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import napari_mrcz.format
from napari_mrcz.errors import MrczError, NotEnoughMemory, collected_warnings
from napari_mrcz.format import FrameReader, VerifyReport
from napari_mrcz.format.verification import faults_of
from napari_mrcz.naming import FOREIGN_SUFFIXES, without_packing
from napari_mrcz.stack.kept import is_kept, problem_of
from napari_mrcz.stack.opening import is_mrc, open
from napari_mrcz.stack.sources import CorrectedSource, uncached
from napari_mrcz.stack.tiff import TiffFrames

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_mrcz.stack.stack import Stack


def is_whole(movie: Stack) -> bool:
    """Return whether nothing is missing of a movie's file, as far as opening it shows."""
    source = uncached(movie._source)
    while isinstance(source, CorrectedSource):
        source = uncached(source.before)
    if isinstance(source, FrameReader):
        return not source.warnings
    return not isinstance(source, TiffFrames) or source.is_whole


def verify(
    path: str | PathLike[str],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check that every frame of a file can be read.

    Parameters
    ----------
    path : path-like
        A file of any format that `napari_mrcz.open` takes. Only MRC and MRCZ have checksums; of
        other formats frames are decoded.
    threads : int, optional
        Frames decoded at once; as many as there are processors by default.
    progress : callable, optional
        Called with (frames done, frames); what it raises ends the checking.

    Returns
    -------
    VerifyReport
        True in a condition if all is well.

    Raises
    ------
    NotEnoughMemory
        If a frame does not fit into memory even alone, so that nothing is known of it.
    """
    try:
        ours = is_mrc(Path(path))
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))
    if ours:
        report = napari_mrcz.format.verify(path, threads=threads, progress=progress)
        if not report.error and (why := _why_not_normalised(Path(path))):
            report = replace(report, warnings=(*report.warnings, f"{report.path}: {why}"))
        if not report.error or without_packing(Path(path)).suffix.lower() not in FOREIGN_SUFFIXES:
            return report
    try:
        with collected_warnings() as said:
            movie = open(path, read_ahead=False)
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))
    n = len(movie)
    with movie:
        makers, nbytes = movie.frame_makers(), movie.nbytes // n
        faults = faults_of(makers, n, nbytes, threads=threads, progress=progress)
    return VerifyReport(fspath(path), "", n, False, faults, tuple(said), n)


def _why_not_normalised(path: Path) -> str:
    """Return why the frames of a movie that is kept as counts cannot be normalised, or nothing."""
    with FrameReader(path) as reader:
        other = reader.footer.other
    return problem_of(reader.path, other) if is_kept(other) else ""
