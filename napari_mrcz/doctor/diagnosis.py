"""`diagnose`: all checks of one file."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mrcz.doctor.finding import Finding, Patient, header_dtype
from napari_mrcz.doctor.geometry import check_geometry
from napari_mrcz.doctor.identity import check_identity, check_sign, is_mixed
from napari_mrcz.doctor.numbers import check_statistics, frames_to_measure, measure
from napari_mrcz.errors import MrczError
from napari_mrcz.format.files import RandomAccessFile, open_file
from napari_mrcz.format.header import HEADER_NBYTES
from napari_mrcz.format.header_reading import parse_header
from napari_mrcz.format.layout import LARGEST_EXTENDED, read_layout
from napari_mrcz.format.reader import FrameReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from os import PathLike

    from napari_mrcz.format.header import Header

__all__ = ["diagnose", "without_extended"]


def diagnose(
    path: str | PathLike[str],
    *,
    full: bool = False,
    pixel_size: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Find what a header says wrongly or not at all.

    Parameters
    ----------
    path : path-like
        An MRC or MRCZ file, or one packed as `.gz` or `.bz2`.
    full : bool
        Hold the statistics against all frames, and propose the true ones; otherwise against the
        first, the middle and the last frame, which only tells where they cannot be true.
    pixel_size : float
        What you know it to be, in Å: proposed where the file does not tell. 0.0 for nothing.
    progress : callable, optional
        Called with (frames done, frames); what it raises ends the looking.

    Returns
    -------
    tuple of Finding
        None of a header in which all is well.

    Raises
    ------
    MrczError
        If the file cannot be read, and would not be with another length of the extended header.
    """
    with contextlib.closing(open_file(path)) as file:
        try:
            layout = read_layout(file)
        except MrczError:
            patient = _with_right_extended(file, pixel_size)
            if patient is None:
                raise
            # No frame can be read before this is mended; only then can they be looked at.
            return _of(patient, [*check_geometry(patient), *check_identity(patient)])
        patient = Patient(layout, file.nbytes, file.read(0, HEADER_NBYTES), pixel_size)
    if is_mixed(patient):  # what else seems wrong is so because of it
        return _of(patient, check_identity(patient))
    findings = [*check_geometry(patient), *check_identity(patient)]
    return _of(patient, [*findings, *_check_pixels(path, patient, full, progress)])


def _check_pixels(
    path: str | PathLike[str],
    patient: Patient,
    full: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Finding]:
    frames = frames_to_measure(patient.header.nz, full)
    try:
        with FrameReader(path) as reader:
            measured = measure(reader, frames, progress)
    except MrczError as error:
        why = "The statistics cannot be held against the pixels: a frame is damaged."
        yield Finding("pixels", why, error.found, "Verify all frames")
        return
    signs = list(check_sign(patient, measured))
    yield from signs
    if not any(finding.mendable for finding in signs):
        # Of other pixels than those that are read now, there are other statistics.
        yield from check_statistics(patient, measured, len(frames))


def _of(patient: Patient, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Say in which header they were found."""
    return tuple(replace(finding, header=patient.raw) for finding in findings)


def _with_right_extended(file: RandomAccessFile, pixel_size: float) -> Patient | None:
    """Give a file that can be read with another length of the extended header, if there is one."""
    raw = file.read(0, HEADER_NBYTES)
    try:
        header = without_extended(raw, file.path)
    except MrczError:
        return None
    for nbytes in _possible_lengths(file, header):
        record = np.frombuffer(raw, header_dtype(header.byte_order)).copy()
        record["nsymbt"] = nbytes
        other = _OtherHeader(file, record.tobytes())
        try:
            layout = read_layout(other)
        except MrczError:
            continue
        finally:
            other.close()
        if len(layout.index) == header.nz:
            return Patient(layout, file.nbytes, raw, pixel_size)
    return None


def _possible_lengths(file: RandomAccessFile, header: Header) -> Iterator[int]:
    if header.codec:
        text = file.read(HEADER_NBYTES, LARGEST_EXTENDED).decode("latin-1")
        with contextlib.suppress(ValueError, RecursionError):
            yield json.JSONDecoder().raw_decode(text)[1]
        yield 0
        return
    # A footer says where frames are; without one they are all that follows.
    rest = file.nbytes - HEADER_NBYTES - header.nz * header.frame_nbytes
    yield from (nbytes for nbytes in (0, rest) if nbytes >= 0)


def without_extended(raw: bytes, path: str | PathLike[str]) -> Header:
    """Understand a header whatever length of the extended one it states.

    Raises
    ------
    MrczError
        If it is no header all the same.
    """
    start = header_dtype("<").fields["nsymbt"][1]  # type: ignore[index]
    return parse_header(raw[:start] + bytes(4) + raw[start + 4 :], path, 2**62)


class _OtherHeader(RandomAccessFile):
    """A file read as if it had another header."""

    def __init__(self, file: RandomAccessFile, raw: bytes) -> None:
        super().__init__(Path(file.path))
        self._raw = raw

    def read(self, offset: int, nbytes: int) -> bytes:
        """Read `nbytes` at `offset`, or fewer where the file ends."""
        return self._raw[:nbytes] if offset == 0 else super().read(offset, nbytes)
