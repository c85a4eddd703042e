"""Checking every frame of a file: a report and no error, however bad the file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from typing import TYPE_CHECKING

from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format.reader import FrameReader
from napari_mrcz.format.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True)
class FrameFault:
    """A frame that cannot be read.

    Attributes
    ----------
    frame : int
        Index from 0.
    offset : int or None
        Byte of the file at which it begins.
    found : str
        What is wrong with it.
    """

    frame: int
    offset: int | None
    found: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    path : str
        The file.
    error : str
        Why the file cannot be opened; empty if it can.
    frames : int
        Frames checked.
    checksums : bool
        Whether frames were held against checksums. Without them a flipped bit may go unnoticed:
        most damaged chunks decode to a wrong picture without an error.
    faults : tuple of FrameFault
        The bad frames.
    warnings : tuple of str
        What else is wrong, such as frames that are missing.
    announced : int
        Frames that there should be; more than were checked where the file is cut off.
    """

    path: str
    error: str = ""
    frames: int = 0
    checksums: bool = False
    faults: tuple[FrameFault, ...] = ()
    warnings: tuple[str, ...] = ()
    announced: int = 0

    @property
    def ok(self) -> bool:
        """Every frame that the header announces is there and decodes."""
        return not (self.error or self.faults or self.warnings)

    def __bool__(self) -> bool:
        """Tell whether the file is good."""
        return self.ok

    def __str__(self) -> str:
        if self.error:
            return self.error
        verdict = f"{self.path}: {self._verdict()}"
        faults = (f"{self.path}: frame {f.frame}: {f.found}" for f in self.faults)
        return "\n".join([verdict, *self.warnings, *faults])

    def _verdict(self) -> str:
        """Say how good the file is; if it is not, that comes first."""
        how = "checksums match" if self.checksums else "they decode; the file has no checksums"
        good = self.frames - len(self.faults)
        if self.ok:
            return f"{good} {'frame is' if good == 1 else 'frames are'} good ({how})"
        if self.announced > self.frames:
            there = f"damaged: {self.frames} of {self.announced} frames are there"
            if self.faults:
                return f"{there}, and {good} of these are good ({how})"
            return f"{there}, and these are good ({how})"
        if self.faults:
            return f"damaged: {good} of {self.frames} frames are good ({how})"
        return f"damaged, but all {good} frames are good ({how})"


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
        The file.
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
        reader = FrameReader(path)
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return VerifyReport(fspath(path), error=str(error))
    n = reader.shape[0]
    makers = (partial(reader.read_frame, frame) for frame in range(n))
    with reader:
        faults = faults_of(makers, n, reader.frame_nbytes, threads=threads, progress=progress)
    checksums = reader.index.xxh3 is not None
    return VerifyReport(fspath(path), "", n, checksums, faults, reader.warnings, reader.announced)


def faults_of(
    makers: Iterable[Callable[[], object]],
    n: int,
    frame_nbytes: int,
    *,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[FrameFault, ...]:
    """Return the frames that cannot be made; see `verify`.

    Parameters
    ----------
    makers : iterable of callable
        What reads each frame.
    n : int
        How many there are.
    frame_nbytes : int
        Bytes of one.
    threads, progress
        As for `verify`.
    """

    def check(numbered: tuple[int, Callable[[], object]]) -> FrameFault | None:
        frame, make = numbered
        try:
            make()
        except NotEnoughMemory:
            raise
        except MrczError as error:
            return FrameFault(frame, error.offset, error.found)
        return None

    faults = []
    threads = min(n, threads or processors())
    room = 2 * frame_nbytes  # with its compressed bytes
    with in_order(check, enumerate(makers), threads, "napari-mrcz-verify", nbytes=room) as checked:
        for done, fault in enumerate(checked, 1):
            if fault is not None:
                faults.append(fault)
            if progress is not None:
                progress(done, n)
    return tuple(faults)
