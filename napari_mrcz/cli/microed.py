"""``microed``: diffraction patterns whose negative counts a camera cut off at zero."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_mrcz.cli.compressing import Files, Json, Overwrite, Scheduler, Workers
from napari_mrcz.cli.looking import SUFFIXES
from napari_mrcz.cli.paths import distinct, movies_in, path
from napari_mrcz.cli.progress import bar, tell_outcomes

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
    files: Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results.", parser=path)
    ],
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
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="SMV stays SMV, all else becomes MRCZ without it."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random values.")] = 0,
    overwrite: Overwrite = False,
    workers: Workers = 0,
    scheduler: Scheduler = "",
    as_json: Json = False,
) -> None:
    """Give zeros of MicroED patterns likely negative values again: MRC, SMV, TVIPS or TIFF.

    Numbered files of one image each are taken as one rotation series. (Hattne et al. 2016)
    """
    from napari_mrcz.batch import cluster, run_all
    from napari_mrcz.batch.microed import RestoreNegatives
    from napari_mrcz.foreign import FOREIGN_SUFFIXES, sweeps

    tasks = []
    for sweep in sweeps(movies_in(files, (*SUFFIXES, *FOREIGN_SUFFIXES))):
        task = RestoreNegatives(
            tuple(str(path.absolute()) for path in sweep),
            tuple(str(path.absolute()) for path in _targets(sweep, output, file_format)),
            center=center,
            n_annuli=annuli,
            mask=str(mask or ""),
            regions=str(regions or ""),
            seed=seed,
            offset=offset,
            overwrite=overwrite,
        )
        tasks.append(task)
    distinct([Path(target) for task in tasks for target in task.targets])
    output.mkdir(parents=True, exist_ok=True)
    with cluster(scheduler, workers) as client, bar() as advance:
        outcomes = run_all(
            tasks,
            client=client,
            report=lambda task, stage, n, of: advance(f"{Path(task.source).name}: {stage}", n, of),
        )
        status = tell_outcomes(outcomes, "corrected", as_json=as_json)
    if status:
        raise typer.Exit(status)


def _targets(sweep: list[Path], folder: Path, wanted: Format | None) -> list[Path]:
    """Give what is written of a sweep: its images again, or one file of them all."""
    from napari_mrcz.batch.microed import FIRST
    from napari_mrcz.foreign.opening import SMV
    from napari_mrcz.foreign.sweeps import sweep_name

    images = all(path.suffix.lower() in SMV for path in sweep)
    suffix = _SMV_SUFFIX
    if wanted is not Format.smv and not (wanted is None and images):
        suffix = f".{(wanted or Format.mrcz).value}"
    if suffix == _SMV_SUFFIX and (images or len(sweep) > 1):
        return [folder / f"{path.stem}{suffix}" for path in sweep]
    name = sweep_name(sweep[0]) if len(sweep) > 1 else sweep[0].stem
    return [folder / f"{name}{FIRST if suffix == _SMV_SUFFIX else ''}{suffix}"]
