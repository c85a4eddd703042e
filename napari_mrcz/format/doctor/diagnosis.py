"""`diagnose`: all checks of one file."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format.doctor.finding import Finding, Patient
from napari_mrcz.format.doctor.geometry import check_geometry
from napari_mrcz.format.doctor.identity import check_identity, check_sign, is_mixed
from napari_mrcz.format.doctor.numbers import check_statistics, frames_to_measure, measure
from napari_mrcz.format.files import open_file
from napari_mrcz.format.layout import read_layout
from napari_mrcz.format.reader import FrameReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from os import PathLike


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
        If the file cannot be read.
    """
    with contextlib.closing(open_file(path)) as file:
        patient = Patient(read_layout(file), file.nbytes, file.path, pixel_size)
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
    except NotEnoughMemory:
        raise
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
    """Name the header in which they were found."""
    return tuple(replace(finding, header=patient.raw) for finding in findings)
