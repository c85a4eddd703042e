"""``microed``: diffraction patterns whose negative counts a camera cut off at zero."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_mrcz import correction
from napari_mrcz.cli import options
from napari_mrcz.cli.commands import Running, with_options
from napari_mrcz.cli.paths import movies_in, prepare, target_of
from napari_mrcz.correction.options import options_of
from napari_mrcz.naming import SMV_SUFFIXES, without_packing


class Format(StrEnum):
    """What is written."""

    mrcz = "mrcz"
    mrc = "mrc"
    smv = "smv"


_SMV_SUFFIX = ".img"


@with_options
def microed(
    files: options.Files,
    output: options.Folder,
    given: Annotated[options.Given, options_of(correction.TruncationOptions)] = options.NOTHING,
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="SMV stays SMV, all else becomes MRCZ without it."),
    ] = None,
    no_footer: options.NoFooter = False,
    *,
    how: Running,
) -> None:
    """Replace truncated zeros of MicroED patterns by likely negative values: MRC, SMV, TVIPS, TIFF.

    Numbered files of one image each are taken as one rotation series. (Hattne et al. 2016)
    """
    from napari_mrcz.session.microed import RestoreNegatives
    from napari_mrcz.stack import sweeps

    if "regions" in given and ("n_annuli" in given or "center" in given):
        raise typer.BadParameter(
            "--regions excludes --annuli and --center: they are other regions than rings"
        )
    tasks = []
    for sweep in sweeps(movies_in(files, besides=[output])):
        task = RestoreNegatives(
            tuple(str(path.absolute()) for path in sweep),
            tuple(str(path.absolute()) for path in _targets(sweep, output, file_format, files)),
            correction.TruncationOptions(**given),
            footer=not no_footer,
            **how.making,
        )
        tasks.append(task)
    pairs = [(Path(task.source), Path(target)) for task in tasks for target in task.targets]
    smv = any(target.suffix == _SMV_SUFFIX for _, target in pairs)
    if how.skip_existing and smv:
        raise typer.BadParameter("--skip-existing: SMV images do not say what they were made of")
    if no_footer and any(target.suffix != ".mrc" for _, target in pairs):
        raise typer.BadParameter("--no-footer is for --format mrc")
    prepare(*zip(*pairs, strict=True), dry_run=how.dry_run)
    how.run(tasks, "corrected")


def _targets(
    sweep: list[Path], folder: Path, wanted: Format | None, named: list[Path]
) -> list[Path]:
    """Return what is written of a sweep: its images again, or one file of them all."""
    from napari_mrcz.session.microed import FIRST
    from napari_mrcz.stack.opening import sweep_name

    images = all(without_packing(path).suffix.lower() in SMV_SUFFIXES for path in sweep)
    suffix = _SMV_SUFFIX
    if wanted is not Format.smv and not (wanted is None and images):
        suffix = f".{(wanted or Format.mrcz).value}"
    if suffix == _SMV_SUFFIX and (images or len(sweep) > 1):
        return [target_of(path, folder, suffix, named) for path in sweep]
    name = sweep_name(sweep[0]) if len(sweep) > 1 else without_packing(sweep[0]).stem
    within = target_of(sweep[0], folder, suffix, named).parent
    return [within / f"{name}{FIRST if suffix == _SMV_SUFFIX else ''}{suffix}"]
