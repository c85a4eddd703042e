"""A MicroED sweep whose zeros are given likely negative values, written for whoever integrates it.

Formats with negative numbers get them. SMV has none: there an offset is added to all pixels, and
recorded as ADCOFFSET (MOSFLM's name) and IMAGE_PEDESTAL (that of DIALS), and under whatever other
names the images have for it. A pedestal that is in them already stays in them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.correction import Pedestal, TruncationModel
from napari_mrcz.correction.truncation import pedestal_names
from napari_mrcz.correction.truncation.model import TruncationOptions
from napari_mrcz.errors import collected_warnings
from napari_mrcz.format.atomic import check_target
from napari_mrcz.session.source_files import SourceFiles
from napari_mrcz.session.tasks import Made, Making, check_paths, staged
from napari_mrcz.stack import open_sweep, write
from napari_mrcz.stack.raw_frames import frame_header, write_smv
from napari_mrcz.stack.references import read_defects, read_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_mrcz.session.tasks import Report
    from napari_mrcz.stack import Stack

FIRST = "_0001"
"""End of the name of the first of several SMV files."""

_TOP = int(np.iinfo(np.uint16).max)


@dataclass(frozen=True)
class RestoreNegatives(Making):
    """Fits a sweep, redraws its zeros and writes it.

    Attributes
    ----------
    sources : tuple of str
        The files of one sweep, in order.
    targets : tuple of str
        One MRC or MRCZ file; or SMV files, one a frame, or the first of them, `name_0001.img`.
    truncation : TruncationOptions
        How negative counts are restored. An offset of None is none, in SMV the least that leaves no
        negative value.
    footer : bool
        Write a footer. Other programs expect none behind plain frames.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    truncation: TruncationOptions = field(default_factory=TruncationOptions)
    footer: bool = True

    @property
    def source(self) -> str:
        """The first file."""
        return self.sources[0]

    @property
    def target(self) -> str:
        """The file that is written, or the first one."""
        return self.targets[0]

    def make(
        self, files: SourceFiles, record: Mapping[str, Any], report: Report | None, *, there: bool
    ) -> Made:
        """Fit, redraw and write.

        Raises
        ------
        ValueError
            If these are no counts that were cut off, or an offset is too small.
        """
        with open_sweep(self.sources) as movie:
            targets = self._targets(len(movie))
            for target in targets:
                for source in self.sources:
                    check_paths(source, target)
                check_target(Path(target), overwrite=self.overwrite)
            shape = movie.shape[1:]
            model = TruncationModel.fit(
                movie,
                self.truncation.center,
                self.truncation.n_annuli,
                read_defects(self.truncation.mask, shape) if self.truncation.mask else None,
                self.truncation.seed,
                regions=read_image(self.truncation.regions) if self.truncation.regions else None,
                pedestal=self.truncation.pedestal,
                force=self.truncation.force,
                progress=staged(report, "fitting"),
            )
            corrected, added = self._corrected(movie, model)
            offset = model.pedestal + added
            tell = files.watched(staged(report, "writing"))
            if self._is_smv:
                for index, target in enumerate(targets):
                    write_smv(
                        Path(target),
                        corrected[index],
                        _recorded(frame_header(movie.metadata.get("smv", {}), index), offset),
                        overwrite=self.overwrite,
                    )
                    tell(index + 1, len(targets))
            else:
                with collected_warnings() as said:
                    write(
                        self.target,
                        corrected.described(
                            other={**corrected.description.other, "source": record}
                        ),
                        metadata=_kept(movie.metadata, offset),
                        footer=self.footer,
                        overwrite=self.overwrite,
                        progress=tell,
                    )
        files.check()
        notes = _notes(model, added, movie.size)
        if not self._is_smv:
            notes = (*notes, *(text.removeprefix(f"{self.target}: ") for text in said))
        if len(targets) > 1:
            notes = (f"{len(targets)} images, the last {Path(targets[-1]).name}", *notes)
        return Made(notes, model.warnings)

    def options(self) -> dict[str, Any]:
        """Return what the result depends on, where it was chosen."""
        chosen = {**asdict(self.truncation), "force": self.truncation.force or None}
        return {k: v for k, v in chosen.items() if v not in (None, "")}

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the sweep."""
        with open_sweep(self.sources) as movie:
            return movie.shape

    def _files(self) -> SourceFiles:
        return SourceFiles(self.sources)

    def _written(self) -> list[Path]:
        targets = self.targets
        if self._is_smv and len(targets) == 1:
            targets = tuple(self._targets(self.shape()[0]))
        return [Path(target) for target in targets]

    @property
    def _is_smv(self) -> bool:
        return Path(self.target).suffix == ".img"

    def _targets(self, n_frames: int) -> list[str]:
        if not self._is_smv or len(self.targets) == n_frames:
            return list(self.targets)
        first = Path(self.target)
        name = first.stem.removesuffix(FIRST)
        return [str(first.with_stem(f"{name}_{index + 1:04d}")) for index in range(n_frames)]

    def _corrected(self, movie: Stack, model: TruncationModel) -> tuple[Stack, int]:
        corrected = movie.apply(model)
        if self.truncation.offset is None and not self._is_smv:
            return corrected, 0
        offset = model.offset if self.truncation.offset is None else self.truncation.offset
        if offset < model.offset:
            raise ValueError(
                f"an offset of {offset} is too small: values reach down to {model.smallest}"
            )
        if model.largest > _TOP:
            raise ValueError(f"counts of {model.largest}, where 16 bits hold no more than {_TOP}")
        return corrected.apply(Pedestal(offset)), offset


def _recorded(header: Mapping[str, Any], offset: int) -> dict[str, Any]:
    """Return a header whose pedestals, under all names, are the offset of the pixels."""
    names = [*pedestal_names(header), "ADCOFFSET", "IMAGE_PEDESTAL"]
    return {**header, **dict.fromkeys(names, offset)}


def _kept(metadata: Mapping[str, Any], offset: int) -> dict[str, Any]:
    kept = _recorded(metadata, offset)
    if isinstance(smv := kept.get("smv"), dict):
        kept["smv"] = {**smv, **dict.fromkeys(pedestal_names(smv), str(offset))}
    return kept


def _notes(model: TruncationModel, added: int, n_pixels: int) -> tuple[str, ...]:
    notes = [f"{model.n_changed / n_pixels:.1%} of the pixels changed"]
    if model.center is not None:
        y, x = model.center
        notes.insert(0, f"beam at row {y:.1f} from the bottom, column {x:.1f}")
    if model.n_unfitted:
        notes.append(f"{model.n_unfitted} regions left as they are: too few counts")
    offset = model.pedestal + added
    notes.append(f"ADCOFFSET {offset}" if offset else f"values down to {model.smallest}")
    if model.largest + added > _TOP and added:
        notes.append(f"saturated at {_TOP}")
    return tuple(notes)
