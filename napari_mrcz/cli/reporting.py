"""``session``: what a session was like, as a page to read and a table to compute with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_mrcz.cli import options
from napari_mrcz.cli.commands import Saying, at_work, with_options
from napari_mrcz.cli.paths import session_in
from napari_mrcz.cli.progress import say, tell_outcomes
from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from napari_mrcz.session.recipe import Recipe


@with_options
def session(
    files: options.Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The report to write, one HTML file.")
    ],
    table: Annotated[
        Path | None,
        typer.Option(help="One row per movie, as .csv or .parquet.", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", help="Movies are measured after it; outliers alone without it."
        ),
    ] = None,
    with_: options.With = None,
    overwrite: options.Overwrite = False,
    workers: options.Workers = 0,
    scheduler: options.Scheduler = "",
    *,
    how: Saying,
) -> None:
    """Report on a session: dose, outliers, noise, contrast. Name movies in order of acquisition.

    A movie that cannot be used is listed as such; the exit status is 1 then.
    """
    from datetime import datetime

    from napari_mrcz.correction.outliers.pixels import OutlierStep
    from napari_mrcz.format.atomic import AtomicFile, check_target
    from napari_mrcz.session.recipe import Recipe
    from napari_mrcz.session.reporting import Measurements, page, write_table
    from napari_mrcz.session.run import run_all
    from napari_mrcz.session.tables import TABLE_SUFFIXES, check_table, need_matplotlib

    if output.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter("--output is the report, a file of .html")
    if table is not None and table.suffix.lower() not in TABLE_SUFFIXES:
        raise typer.BadParameter(f"--table is a file of {' or '.join(TABLE_SUFFIXES)}")
    # Whatever would refuse the results is found before hours are spent on them.
    need_matplotlib()
    if table is not None:
        check_table(table)
    for target in filter(None, (output, table)):
        check_target(target, overwrite=overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        AtomicFile(target, overwrite=overwrite).discard()  # the folder may be read-only
    wanted = Recipe.load(recipe) if recipe is not None else Recipe(outliers=OutlierStep())
    wanted = wanted.with_modules(with_ or ())
    movies, order = session_in(files, wanted)
    sources = [str(path.absolute()) for path in movies]
    measurements = Measurements(sources, _oriented(wanted, sources), order)
    tasks = measurements.tasks()
    with at_work(scheduler, workers) as where:
        status = tell_outcomes(map(measurements.take, run_all(tasks, **where)), "measured")
    findings = measurements.findings()
    for warning in findings.warnings:
        say(f"napari-mrcz: warning: {warning}", always=True)
    with AtomicFile(output, overwrite=overwrite) as file:
        # Names of files need not be of the encoding that the system claims.
        file.write(page(findings, datetime.now().astimezone()).encode(errors="backslashreplace"))
        file.commit()
    if table is not None:
        write_table(table, findings.movies, overwrite=overwrite)
    say(f"the report is {output}" + (f", the table {table}" if table is not None else ""))
    if status or len(findings.usable) < len(findings.movies):
        raise typer.Exit(1)


def _oriented(recipe: Recipe, sources: list[str]) -> Recipe:
    """Return a recipe whose reference lies as the first movie that can be used shows."""
    from napari_mrcz.session.correct import with_orientation_of

    try:
        return with_orientation_of(recipe, sources)
    except (MrczError, OSError):
        return recipe  # the report says of each movie why it cannot be used
