"""One file copied without decoding its frames; a damaged one, as far as it is whole."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_mrcz.batch.outcome import Outcome
from napari_mrcz.batch.task import check_paths, staged
from napari_mrcz.doctor import diagnose, mend
from napari_mrcz.format.repacking import repack
from napari_mrcz.software import software

if TYPE_CHECKING:
    from napari_mrcz.batch.task import Report
__all__ = ["Repack"]


@dataclass(frozen=True)
class Repack:
    """Copies frames as they are, and adds index and checksums. Call it, here or elsewhere.

    Attributes
    ----------
    source, target : str
        The files.
    repair : bool
        Leave damaged frames out, and mend the header.
    pixel_size : float
        In Å, where the file does not tell and it is known; 0.0 otherwise.
    overwrite : bool
        Replace an existing target.
    """

    source: str
    target: str
    repair: bool = False
    pixel_size: float = 0.0
    overwrite: bool = False

    def __call__(self, report: Report | None = None) -> Outcome:
        """Copy the file.

        Parameters
        ----------
        report : callable, optional
            Called with (stage, frames done, frames).

        Raises
        ------
        MrczError
            If it cannot be done; the source is as it was.
        """
        start = time.perf_counter()
        check_paths(self.source, self.target)
        done = repack(
            self.source,
            self.target,
            writer=software(),
            leave_out_damaged=self.repair,
            overwrite=self.overwrite,
            progress=staged(report, "copying"),
        )
        notes = [f"{done.frames} of {done.announced} frames"]
        if done.left_out:
            named = ", ".join(str(fault.frame) for fault in done.left_out[:20])
            frames = "frame" if len(done.left_out) == 1 else "frames"
            more = ", ..." * (len(done.left_out) > 20)
            notes.append(f"damaged and left out: {frames} {named}{more}")
        if self.repair:
            findings = diagnose(self.target, pixel_size=self.pixel_size)
            if any(finding.mendable for finding in findings):
                notes += [str(change) for change in mend(self.target, findings)]
        return Outcome.done(start, self.source, self.target, notes)
