"""One file copied without decoding its frames; a damaged one, as far as it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import listed
from napari_mrcz.format import FrameReader
from napari_mrcz.format.doctor import diagnose, mend
from napari_mrcz.format.repacking import repack
from napari_mrcz.naming import software
from napari_mrcz.session.batch.making import Made, Making
from napari_mrcz.session.batch.task import staged
from napari_mrcz.stack.kept import copy_references

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_mrcz.session.batch.source_files import SourceFiles
    from napari_mrcz.session.batch.task import Report


@dataclass(frozen=True)
class Repack(Making):
    """Copies frames as they are, and adds index and checksums.

    Attributes
    ----------
    source, target : str
        The files.
    repair : bool
        Leave damaged frames out, and mend the header.
    pixel_size : float
        In Å, where the file does not tell and it is known; 0.0 otherwise.
    """

    source: str
    target: str
    repair: bool = False
    pixel_size: float = 0.0

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Made:
        """Copy the file."""
        done = repack(
            self.source,
            self.target,
            writer=software(),
            made_of=record,
            leave_out_damaged=self.repair,
            overwrite=self.overwrite,
            progress=files.watched(staged(report, "copying")),
        )
        files.check()
        copy_references(self.source, self.target)
        notes = [f"{done.frames} of {done.announced} frames"]
        notes += [warning.removeprefix(f"{self.source}: ") for warning in done.warnings]
        if done.left_out:
            named = listed([fault.frame for fault in done.left_out], 20)
            frames = "frame" if len(done.left_out) == 1 else "frames"
            notes.append(f"damaged and left out: {frames} {named}")
        if self.repair:
            findings = diagnose(self.target, pixel_size=self.pixel_size)
            if any(finding.mendable for finding in findings):
                notes += [str(change) for change in mend(self.target, findings)]
        else:
            files.give_time(self.target)
        return Made(tuple(notes))

    def options(self) -> dict[str, Any]:
        """Return nothing: chunks are copied as they are."""
        return {}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the result."""
        with FrameReader(self.source) as reader:
            return reader.shape

    def estimate(self) -> int:
        """Return how many bytes the result will take: about as many."""
        return Path(self.source).stat().st_size
