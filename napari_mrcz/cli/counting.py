"""``count``: electrons counted in raw frames."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mrcz.cli import options
from napari_mrcz.cli.commands import Running, with_options
from napari_mrcz.cli.paths import movies_in, prepare, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.session.tasks import Outcome


class SuperResolution(Enum):
    """Pixels of the counts along one of the detector's."""

    one = "1"
    two = "2"
    four = "4"


@with_options
def count(
    files: options.Files,
    output: options.Folder,
    super_resolution: Annotated[
        SuperResolution,
        typer.Option(help="Pixels of the counts along one of the detector's."),
    ] = SuperResolution.one,
    threshold: Annotated[
        float | None,
        typer.Option(help="Charge that makes an electron, in grey values; fitted without it."),
    ] = None,
    upper: Annotated[
        float | None,
        typer.Option(
            "--upper-threshold",
            help="Charge too high for an electron, such as an X-ray's; fitted without it.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Count frames that seem to be counted already.")
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(help="Table of one movie's electrons, frame, y, x, charge: .csv or .parquet."),
    ] = None,
    *,
    how: Running,
) -> None:
    """Count single electrons in raw frames of a fast detector; background and spots are fitted."""
    from napari_mrcz.session.electrons import CountElectrons
    from napari_mrcz.session.run import run_all

    if threshold is not None and not threshold > 0:
        raise typer.BadParameter(f"--threshold is a positive charge, not {threshold:g}")
    if upper is not None and not upper > (threshold or 0):
        raise typer.BadParameter(f"--upper-threshold is above --threshold, not {upper:g}")
    sources = movies_in(files, besides=[output], leave_references=True)
    targets = [target_of(source, output, ".mrcz", files) for source in sources]
    if events is not None and len(sources) > 1:
        raise typer.BadParameter("--events takes the electrons of one movie")
    prepare(sources, targets, dry_run=how.dry_run)
    tasks = [
        CountElectrons(
            str(source),
            str(target),
            super_resolution=int(super_resolution.value),
            threshold=threshold,
            upper=upper,
            force=force,
            events=str(events or ""),
            **how.making,
        )
        for source, target in zip(sources, targets, strict=True)
    ]

    def work(*, client: Any, report: Any) -> Iterator[Outcome]:
        # One movie after the other: the workers share the frames of each.
        return run_all((replace(task, client=client) for task in tasks), report=report)

    how.run(tasks, "counted", work)
