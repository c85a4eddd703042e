"""The raw movie of a result that is kept as counts, as it was before it was corrected."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.naming import COMPRESSED_SUFFIX, SUFFIXES, without_packing
from napari_mrcz.session.batch.making import Made, Making
from napari_mrcz.session.batch.source_files import sha256_of
from napari_mrcz.session.batch.task import staged
from napari_mrcz.stack import write
from napari_mrcz.stack.keeping import original, original_file, restore_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_mrcz.session.batch.source_files import SourceFiles
    from napari_mrcz.session.batch.task import Report


@dataclass(frozen=True)
class Restore(Making):
    """Writes the raw movie: the same bytes where these can be made again, else the same frames.

    Attributes
    ----------
    source, target : str
        The file that is kept as counts, and the one to write.
    """

    source: str
    target: str

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Made:
        """Write it."""
        progress = files.watched(staged(report, "restoring"))
        name, _ = original_file(self.source)
        sha256 = ""
        if _same_kind(name, self.target):
            sha256 = restore_file(
                self.source, self.target, overwrite=self.overwrite, progress=progress
            )
        if sha256:
            note = f"the same bytes as {name}, SHA-256 {sha256}"
        else:
            with original(self.source) as raw:
                other = {**raw.description.other, "source": record}
                raw = raw.described(other=other)
                write(self.target, raw, overwrite=self.overwrite, progress=progress)
            note = f"the same frames as {name or 'the raw movie'}, in a file of other bytes"
        files.check()
        return Made((note,))

    def options(self) -> dict[str, Any]:
        """Return that it is the raw movie."""
        return {"restored": True}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the raw movie."""
        with original(self.source) as raw:
            return raw.shape

    def estimate(self) -> int:
        """Return how many bytes the result will take, where it is the same file."""
        _, known = original_file(self.source)
        return 0 if known is None else known.nbytes

    def _why_not_done(self, files: SourceFiles, report: Report | None) -> str:
        name, known = original_file(self.source)
        if known is not None and _same_kind(name, self.target):
            if sha256_of([Path(self.target)]) == known.sha256:
                return ""
            if os.path.getsize(self.target) == known.nbytes:
                return f"it differs from {name}"
        return super()._why_not_done(files, report)


def restored_name(source: Path) -> str:
    """Return the file name of the raw movie: its own if that was MRC, else with ``.mrcz``.

    Raises
    ------
    MrczError
        If the file is not kept as counts.
    """
    name, _ = original_file(source)
    plain = without_packing(Path(Path(name or source).name))
    return plain.name if plain.suffix.lower() in SUFFIXES else f"{plain.stem}{COMPRESSED_SUFFIX}"


def _same_kind(name: str, target: str) -> bool:
    """Return whether two files are both compressed, or both plain, by their names."""
    return (Path(name).suffix.lower() == COMPRESSED_SUFFIX) == target.endswith(COMPRESSED_SUFFIX)
