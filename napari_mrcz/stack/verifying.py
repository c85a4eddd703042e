"""Checking every frame of a file of any format: a report, never an exception."""

from __future__ import annotations

import warnings
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari_mrcz.format
from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format import VerifyReport
from napari_mrcz.format.verification import FrameFault
from napari_mrcz.stack.opening import is_mrc, open
from napari_mrcz.suffixes import FOREIGN_SUFFIXES, without_packing
from napari_mrcz.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["verify"]


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
        if not report.error or without_packing(Path(path)).suffix.lower() not in FOREIGN_SUFFIXES:
            return report
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            movie = open(path, read_ahead=False)
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))

    def check(numbered: tuple[int, Callable[[], Any]]) -> FrameFault | None:
        frame, maker = numbered
        try:
            maker()
        except NotEnoughMemory:
            raise
        except MrczError as error:
            return FrameFault(frame, error.offset, error.found)
        return None

    n = len(movie)
    faults = []
    work = enumerate(movie.frame_makers())
    threads = min(n, threads or processors())
    room = 2 * movie.nbytes // n
    with movie, in_order(check, work, threads, "napari-mrcz-verify", nbytes=room) as all_:
        for done, fault in enumerate(all_, 1):
            faults += [fault] if fault is not None else []
            if progress is not None:
                progress(done, n)
    said = tuple(str(warning.message) for warning in caught)
    return VerifyReport(fspath(path), "", n, False, tuple(faults), said, n)
