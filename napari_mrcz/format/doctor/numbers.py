"""Check of DMIN DMAX DMEAN RMS against the frames: a few of them, or all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.format.doctor.finding import Finding
from napari_mrcz.format.statistics import Statistics, statistics_of
from napari_mrcz.format.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_mrcz.format.doctor.finding import Patient
    from napari_mrcz.format.reader import FrameReader

_FIELD = "DMIN DMAX DMEAN RMS"
_UNDETERMINED = (0.0, -1.0, -2.0, -1.0)
# By how much mean and deviation may be off, relative to themselves, where all frames are measured
# (as `mrcfile.validate` has it).
_TOLERANCE = 0.01
# Frames differ: ice gets thinner, beams dimmer. Beyond this (in standard deviations, and as a
# factor) a few of them still tell that the number cannot be that of all.
_MEAN_OFF, _RMS_OFF = 0.5, 2.0


def frames_to_measure(count: int, full: bool) -> tuple[int, ...]:
    """Return the first, the middle and the last frame, or all."""
    return tuple(range(count)) if full else tuple(sorted({0, count // 2, count - 1}))


def measure(
    reader: FrameReader,
    frames: tuple[int, ...],
    progress: Callable[[int, int], None] | None,
) -> Statistics | None:
    """Return the statistics of some frames; None of complex ones.

    Raises
    ------
    MrczError
        If one of them is damaged.
    """
    if reader.dtype.kind == "c":
        return None

    def one(frame: int) -> Statistics | None:
        return statistics_of(reader.read_frame(frame))

    total = Statistics()
    threads = min(len(frames), processors())
    with in_order(one, frames, threads, "napari-mrcz-doctor") as done:
        for count, part in enumerate(done, 1):
            total += part or Statistics()
            if progress is not None:
                progress(count, len(frames))
    return total


def check_statistics(
    patient: Patient, measured: Statistics | None, looked_at: int
) -> Iterator[Finding]:
    """Hold the header's numbers against those of so many frames."""
    values = measured.for_header() if measured is not None else None
    header = patient.header
    stated = header.dmin, header.dmax, header.dmean, header.rms
    if not all(map(math.isfinite, stated)):
        yield from _finding(patient, "They are no numbers.", values, looked_at)
        return
    if values is None:
        return  # complex, or with pixels that are no numbers: then nothing is right or wrong
    if _undetermined(*stated):
        why = "They are not determined, which is allowed; programs then set the contrast by guess."
        if _whole(patient, looked_at):
            yield from _finding(patient, why, values, looked_at)
        else:
            yield Finding(_FIELD, why, _text(stated), "Look at all frames, and they are filled in")
    elif not any(stated) and any(values):
        why = "All are 0, which the pixels are not: they were never determined."
        yield from _finding(patient, why, values, looked_at)
    else:
        compare = _contradictions if _whole(patient, looked_at) else _impossible
        wrong = list(compare(stated, values))
        if wrong:
            verb = "contradicts" if len(wrong) == 1 else "contradict"
            why = f"{' and '.join(wrong)} {verb} {_frames_text(patient, looked_at)}."
            yield from _finding(patient, why, values, looked_at)


def _finding(patient: Patient, why: str, values: Any, looked_at: int) -> Iterator[Finding]:
    header = patient.header
    stated = header.dmin, header.dmax, header.dmean, header.rms
    new, proposed = _UNDETERMINED, "not determined; look at all frames, and they are filled in"
    if values is None:
        proposed = "not determined"
    elif _whole(patient, looked_at):
        new, proposed = values, _text(values)
    patch = dict(zip(("dmin", "dmax", "dmean", "rms"), new, strict=True))
    yield Finding(_FIELD, why, _text(stated), proposed, patch)


def _whole(patient: Patient, looked_at: int) -> bool:
    return looked_at == patient.header.nz


def _undetermined(low: float, high: float, mean: float, rms: float) -> bool:
    return high < low and mean < min(low, high) and rms < 0


def _contradictions(stated: Any, true: Any) -> Iterator[str]:
    """Name the numbers that are not those of all frames."""
    low, high, mean, rms = stated
    if low <= high and (np.float32(true[0]) != low):
        yield "DMIN"
    if low <= high and (np.float32(true[1]) != high):
        yield "DMAX"
    # The mean of pixels around 0 is as good as the noise lets it be.
    slack = 1e-4 * true[3]
    if mean >= min(low, high) and abs(mean - true[2]) > _TOLERANCE * abs(mean) + slack:
        yield "DMEAN"
    if rms >= 0 and abs(rms - true[3]) > _TOLERANCE * rms:
        yield "RMS"


def _impossible(stated: Any, seen: Any) -> Iterator[str]:
    """Name the numbers that cannot be those of all frames, as a few of them show."""
    low, high, mean, rms = stated
    if low <= high and np.float32(seen[0]) < low:
        yield "DMIN"
    if low <= high and np.float32(seen[1]) > high:
        yield "DMAX"
    if mean >= min(low, high) and abs(mean - seen[2]) > _MEAN_OFF * seen[3] + 0.01 * abs(mean):
        yield "DMEAN"
    if rms >= 0 and not rms / _RMS_OFF <= seen[3] <= rms * _RMS_OFF:
        yield "RMS"


def _frames_text(patient: Patient, looked_at: int) -> str:
    count = patient.header.nz
    if looked_at < count:
        return f"{looked_at} of {count} frames that were looked at"
    return "the pixels" if count == 1 else f"the pixels of all {count} frames"


def _text(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)
