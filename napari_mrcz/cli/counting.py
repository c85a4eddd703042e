"""``count``: electrons counted in raw frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mrcz import correction
from napari_mrcz.cli import options
from napari_mrcz.cli.commands import Running, with_options
from napari_mrcz.cli.paths import movies_in, prepare, target_of
from napari_mrcz.correction.options import options_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.session.tasks import Outcome


@with_options
def count(
    files: options.Files,
    output: options.Folder,
    given: Annotated[options.Given, options_of(correction.CountingOptions)] = options.NOTHING,
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

    sources = movies_in(files, besides=[output], leave_references=True)
    targets = [target_of(source, output, ".mrcz", files) for source in sources]
    if events is not None and len(sources) > 1:
        raise typer.BadParameter("--events takes the electrons of one movie")
    prepare(sources, targets, dry_run=how.dry_run)
    tasks = [
        CountElectrons(
            str(source),
            str(target),
            correction.CountingOptions(**given),
            events=str(events or ""),
            **how.making,
        )
        for source, target in zip(sources, targets, strict=True)
    ]

    def work(*, client: Any, report: Any) -> Iterator[Outcome]:
        # One movie after the other: the workers share the frames of each.
        return run_all((replace(task, client=client) for task in tasks), report=report)

    how.run(tasks, "counted", work)
