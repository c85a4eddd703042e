"""``microed``: diffraction patterns whose negative counts a camera cut off at zero."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from napari_mrcz.cli import options
from napari_mrcz.cli.paths import movies_in, prepare
from napari_mrcz.cli.running import run
from napari_mrcz.suffixes import SMV_SUFFIXES, without_packing

__all__ = ["add_to"]


class Format(StrEnum):
    """What is written."""

    mrcz = "mrcz"
    mrc = "mrc"
    smv = "smv"


_SMV_SUFFIX = ".img"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(microed)


def microed(
    files: options.Files,
    output: options.Folder,
    center: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="Y X", help="Row and column of the beam, from 0; found without it."),
    ] = None,
    annuli: Annotated[int, typer.Option(min=1, help="Rings that are fitted each by itself.")] = 10,
    mask: Annotated[
        Path | None, typer.Option(help="Pixels that are not valid, such as the beam stop's.")
    ] = None,
    regions: Annotated[
        Path | None, typer.Option(help="Label image of other regions than rings.")
    ] = None,
    offset: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Added to all pixels; without it nothing is, in SMV as little as is needed.",
        ),
    ] = None,
    pedestal: Annotated[
        int | None,
        typer.Option(min=0, help="Value at which counts were cut off; of the headers without it."),
    ] = None,
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="SMV stays SMV, all else becomes MRCZ without it."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random values.")] = 0,
    overwrite: options.Overwrite = False,
    workers: options.Workers = 0,
    scheduler: options.Scheduler = "",
    as_json: options.Json = False,
) -> None:
    """Give zeros of MicroED patterns likely negative values again: MRC, SMV, TVIPS or TIFF.

    Numbered files of one image each are taken as one rotation series. (Hattne et al. 2016)
    """
    from napari_mrcz.batch import run_all
    from napari_mrcz.batch.microed import RestoreNegatives
    from napari_mrcz.stack import sweeps

    tasks = []
    for sweep in sweeps(movies_in(files)):
        task = RestoreNegatives(
            tuple(str(path.absolute()) for path in sweep),
            tuple(str(path.absolute()) for path in _targets(sweep, output, file_format)),
            center=center,
            n_annuli=annuli,
            mask=str(mask or ""),
            regions=str(regions or ""),
            seed=seed,
            offset=offset,
            pedestal=pedestal,
            overwrite=overwrite,
        )
        tasks.append(task)
    pairs = [(Path(task.source), Path(target)) for task in tasks for target in task.targets]
    prepare([source for source, _ in pairs], [target for _, target in pairs], output)
    status = run(partial(run_all, tasks), "corrected", scheduler, workers, as_json=as_json)
    if status:
        raise typer.Exit(status)


def _targets(sweep: list[Path], folder: Path, wanted: Format | None) -> list[Path]:
    """Give what is written of a sweep: its images again, or one file of them all."""
    from napari_mrcz.batch.microed import FIRST
    from napari_mrcz.stack.sweeps import sweep_name

    images = all(path.suffix.lower() in SMV_SUFFIXES for path in sweep)
    suffix = _SMV_SUFFIX
    if wanted is not Format.smv and not (wanted is None and images):
        suffix = f".{(wanted or Format.mrcz).value}"
    if suffix == _SMV_SUFFIX and (images or len(sweep) > 1):
        return [folder / f"{without_packing(path).stem}{suffix}" for path in sweep]
    name = sweep_name(sweep[0]) if len(sweep) > 1 else without_packing(sweep[0]).stem
    return [folder / f"{name}{FIRST if suffix == _SMV_SUFFIX else ''}{suffix}"]
