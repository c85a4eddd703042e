"""Checking every frame of a file, and copying what is whole without decoding it.

The copy has the frames' bytes as they are, with index and checksums: this is how a file of another
program gets a footer, and how what is whole of a damaged one is saved.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.format.footer import FrameIndex, pack_footer
from napari_mrcz.format.header import Header, header_dtype
from napari_mrcz.format.header_reading import parse_header
from napari_mrcz.format.header_writing import set_frames
from napari_mrcz.format.machine import in_order, processors
from napari_mrcz.format.reader import FrameReader
from napari_mrcz.naming import COMPRESSED_SUFFIX, without_packing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike


@dataclass(frozen=True)
class FrameFault:
    """A frame that cannot be read."""

    frame: int  # Index from 0
    offset: int | None  # Byte of the file at which it begins
    found: str  # What is wrong with it


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
        """Return whether the file is good."""
        return self.ok

    def __str__(self) -> str:
        if self.error:
            return self.error
        verdict = f"{self.path}: {self._verdict()}"
        faults = (f"{self.path}: frame {f.frame}: {f.found}" for f in self.faults)
        return "\n".join([verdict, *self.warnings, *faults])

    def _verdict(self) -> str:
        """Return how good the file is, in words."""
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

    `makers`: what reads each frame; `n`: how many there are; `frame_nbytes`: bytes of one;
    `threads`, `progress`: as for `verify`.
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


@dataclass(frozen=True)
class Repacked:
    """What came of `repack`."""

    frames: int  # Frames in the new file
    announced: int  # Frames that there should be; more than there were where the source is cut off
    left_out: tuple[FrameFault, ...] = ()  # Frames that were there but damaged
    warnings: tuple[str, ...] = ()  # What was doubtful about the source


def repack(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    writer: str,
    made_of: Mapping[str, Any] | None = None,
    leave_out_damaged: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Repacked:
    """Copy a file frame by frame, and add what the footer says.

    `source`, `target`: the files; `writer`: program and version, for the footer; `made_of`: what
    the footer says of the source; `leave_out_damaged`: decode every frame, and leave out those that
    cannot be; otherwise they end the copying; `overwrite`: replace an existing target; `progress`:
    called with (frames done, frames); what it raises ends the copying, and leaves no file. Raise
    `MrczError` If the source cannot be used, not one of its frames is whole, or the disk refuses;
    or if the target's name is that of a plain file and the frames are compressed, or the reverse.
    Raise `NotEnoughMemory` if a frame does not fit into memory: it is not left out for that.
    """
    faults: list[FrameFault] = []
    offsets: list[int] = []
    sizes: list[int] = []
    checksums: list[int] = []
    with ExitStack() as opened:
        reader = opened.enter_context(FrameReader(source))
        old = reader.header
        _check_name(source, target, old)
        file = opened.enter_context(AtomicFile(target, overwrite=overwrite))
        file.write(bytes(len(old.raw)) + reader.extended_raw())
        if file.tell() != old.data_offset:
            raise MrczError(source, f"an extended header of {old.nsymbt} bytes, not to be copied")
        for frame in range(old.nz):
            try:
                if leave_out_damaged:
                    reader.read_frame(frame)
                stored = reader.read_stored(frame)
            except NotEnoughMemory:
                raise
            except MrczError as error:
                if not leave_out_damaged:
                    raise
                faults.append(FrameFault(frame, error.offset, error.found))
            else:
                offsets.append(file.tell())
                sizes.append(len(stored))
                checksums.append(xxhash.xxh3_64_intdigest(stored))
                file.write(stored)
            if progress is not None:
                progress(frame + 1, old.nz)
        if not offsets:
            raise MrczError(source, "not one frame is whole", advice="There is nothing to save")
        index = FrameIndex(*(np.array(c, np.uint64) for c in (offsets, sizes, checksums)))
        other = {k: v for k, v in reader.footer.other.items() if k != "source"}
        if made_of is not None:
            other["source"] = made_of
        written = replace(
            reader.footer, writer=writer, frames=index, metadata=reader.metadata, other=other
        )
        packed_nbytes = file.tell() - old.data_offset
        if old.codec or reader.footer.frames is not None:
            file.write(pack_footer(written))  # a plain file that had none is to stay plain
        file.write_at(0, _header(old, len(offsets), packed_nbytes))
        file.commit()
    return Repacked(len(offsets), reader.announced, tuple(faults), reader.warnings)


def _header(old: Header, frames: int, packed_nbytes: int) -> bytes:
    """Return the header of so many frames, NSYMBT and MODE as they are; all else as it was."""
    record = np.frombuffer(old.raw, header_dtype(old.byte_order)).copy()[0]
    stated = parse_header(old.raw, "")
    record["nsymbt"] = old.nsymbt
    if old.codec != stated.codec:
        record["mode"] = old.mode + 1000 * old.codec
        record["m"][2] = 0 if old.codec else frames if old.is_volume else 1
    set_frames(record, old, frames)
    if old.codec:
        record["packed_nbytes"] = packed_nbytes
    return bytes(record.tobytes())


def _check_name(source: str | PathLike[str], target: str | PathLike[str], header: Header) -> None:
    """Refuse a name that says of the frames what they are not, unless the source has it too."""
    is_compressed = bool(header.codec)
    suffix = Path(target).suffix.lower()
    said = suffix == COMPRESSED_SUFFIX
    if said == is_compressed or suffix == without_packing(Path(source)).suffix.lower():
        return
    if is_compressed:
        found = "is a name for plain frames, and these stay compressed, as they are copied"
        advice = f"Name it {COMPRESSED_SUFFIX}; napari-mrcz decompress makes a plain file of it"
    else:
        found = "is a name for compressed frames, and these stay plain, as they are copied"
        advice = "napari-mrcz compress makes such a file of them"
    raise MrczError(target, found, advice=advice)
