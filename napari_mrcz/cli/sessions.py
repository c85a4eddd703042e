"""Commands on sessions: correct, with recipes of corrections; session, a report; watch."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mrcz import session
from napari_mrcz.cli import arguments
from napari_mrcz.cli.arguments import Running, Saying, at_work, with_options
from napari_mrcz.cli.paths import references, session_in, target_of, tell_of_interrupted
from napari_mrcz.cli.progress import (
    bar,
    say,
    say_warning,
    tell_outcome,
    tell_outcomes,
    tell_warnings,
    write,
)
from napari_mrcz.correction.options import options_of
from napari_mrcz.errors import MrczError
from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES, with_packing

if TYPE_CHECKING:
    from napari_mrcz.session.follow import Watch

RecipeFile = Annotated[Path, typer.Argument(help="The recipe.", show_default=False)]
RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", "-r", help="Recipe of corrections (default: outlier filter)."),
]

recipe_ = typer.Typer(no_args_is_help=True, help="Show, check and make recipes of corrections.")


@with_options
def correct(
    files: arguments.Files,
    output: arguments.Folder,
    recipe: RecipeOption = None,
    given: Annotated[arguments.Given, session.recipe_options()] = arguments.NOTHING,
    chosen: Annotated[arguments.Given, options_of(session.Selection)] = arguments.NOTHING,
    with_: arguments.With = None,
    again: Annotated[
        bool, typer.Option("--again", help="Repeat corrections that a movie has had already.")
    ] = False,
    *,
    how: Running,
) -> None:
    """Correct movies by a recipe: outlier pixels, gain, KOMA. Name them in order of acquisition.

    Whole movies are fitted and corrected; --frames, --crop and --group, in this order, select the
    part of the result that is written.
    """
    from napari_mrcz.correction.outliers.thresholds import OutlierStep
    from napari_mrcz.session.correct import (
        Correct,
        check_anything_left,
        correct_all,
        with_orientation_of,
    )
    from napari_mrcz.session.recipe import Recipe

    wanted = Recipe.load(recipe) if recipe is not None else Recipe(outliers=OutlierStep())
    options: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        table, _, name = key.partition("__")
        options.setdefault(table, {})[name] = value
    selection = session.Selection(**chosen)
    try:
        wanted = replace(wanted, again=again).with_options(options).with_modules(with_ or ())
    except MrczError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if wanted.output.keep == "counts" and selection.chosen:
        asked = ", ".join(f"--{name}" for name in selection.chosen)
        raise typer.BadParameter(f"--keep counts excludes {asked}: it keeps whole movies")
    sources, order = session_in(files, wanted, [output])
    if os.path.realpath(output) in map(os.path.dirname, map(os.path.realpath, sources)):
        # Corrected movies would pass for movies that were only compressed.
        raise typer.BadParameter("results need a folder of their own: --output")
    targets = [target_of(source, output, wanted.output.suffix, files) for source in sources]
    if wanted.gain is not None and wanted.gain.orientation == "auto":
        wanted = with_orientation_of(wanted, sources)
        check_anything_left(wanted)
        if wanted.gain is not None:
            say(f"orientation of the gain reference: {wanted.gain.orientation_text}")
    tasks = [
        Correct(
            str(source.absolute()),
            str(target.absolute()),
            wanted,
            selection=selection,
            **how.making,
        )
        for source, target in zip(sources, targets, strict=True)
    ]
    how.run(tasks, "corrected", partial(correct_all, tasks, order=order))


@recipe_.command()
def show(recipe: RecipeFile, with_: arguments.With = None) -> None:
    """Show what a recipe does, in words."""
    from napari_mrcz.session.recipe import Recipe, load_modules

    load_modules(with_ or ())
    for sentence in Recipe.load(recipe).sentences():
        write(sentence)


@recipe_.command()
def check(recipe: RecipeFile, with_: arguments.With = None) -> None:
    """Check a recipe: its keys, its values, and the files that it names."""
    from napari_mrcz.correction import GainNormalization
    from napari_mrcz.session.recipe import Recipe, load_modules
    from napari_mrcz.stack.references import read_defects, read_reference

    load_modules(with_ or ())
    found = Recipe.load(recipe)
    for step in found.more:
        if with_ or step.is_loaded:
            step.correction()
            write(f"{step.name}: its options are valid")
    shape = None
    if found.gain is not None:
        reference = read_reference(found.gain.reference)
        shape = reference.shape
        if not (reference > 0).any():
            raise MrczError(found.gain.reference, "has no pixel that can be used")
        write(f"gain reference: {shape[0]} x {shape[1]} pixels")
        for warning in GainNormalization(reference).warnings:
            say_warning(f"{found.gain.reference}: {warning}")
        if found.gain.dark:
            # A dark has the size of frames that the gain fits: turned, binned or not.
            y, x = shape
            fitting = [(y, x), (y // 2, x // 2), (2 * y, 2 * x)]
            dark = read_reference(found.gain.dark).shape
            if dark not in fitting and dark[::-1] not in fitting:
                advice = f"Its size is {shape}, turned or not, or half or twice that"
                raise MrczError(
                    found.gain.dark, f"a dark reference of {dark} pixels", advice=advice
                )
    if found.outliers is not None and found.outliers.defects:
        try:
            defects = read_defects(found.outliers.defects, shape)
        except MrczError:
            raise
        except ValueError:  # rectangles; without a reference the shape is not known
            write("defects: rectangles, which are checked against the frames")
        else:
            write(f"defects: {int(defects.sum())} pixels")
    if unknown := [step.name for step in found.more if not step.is_loaded]:
        write(f"{recipe} is valid; not checked: {', '.join(unknown)} (name the module, --with)")
    else:
        write(f"{recipe} is valid")


@recipe_.command()
def new(
    recipe: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    history: Annotated[
        Path | None, typer.Option(help="Corrected movie whose corrections become the recipe.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Step of the history to leave out, such as KomaNormalization."),
    ] = None,
    with_: arguments.With = None,
    overwrite: arguments.Overwrite = False,
) -> None:
    """Write a recipe to be edited, or that of a corrected movie.

    To undo a step, leave it out (--without) and correct the raw movie by the recipe.
    """
    from napari_mrcz.correction.gain import GainStep
    from napari_mrcz.correction.koma import KomaOptions
    from napari_mrcz.correction.outliers.thresholds import OutlierStep
    from napari_mrcz.format.atomic import check_target
    from napari_mrcz.session.recipe import Recipe, load_modules
    from napari_mrcz.session.recipe_history import output_of, save_recipe_of
    from napari_mrcz.stack import open as open_stack

    if without and history is None:
        raise typer.BadParameter("--without leaves out steps of a --history")
    load_modules(with_ or ())
    check_target(recipe, overwrite=overwrite)
    if history is None:
        # The reference is named, for who edits it; `check` says whether it is there.
        made = Recipe(OutlierStep(), GainStep("gain.mrc", orientation="auto"), KomaOptions())
        made.save(recipe, overwrite=overwrite)
    else:
        with open_stack(history) as stack:
            if not stack.history:
                raise MrczError(history, "has no history: nothing was done to it")
            if unknown := set(without or ()) - {step.get("name") for step in stack.history}:
                raise MrczError(history, f"has no step {', '.join(sorted(unknown))}")
            steps = [step for step in stack.history if step.get("name") not in (without or ())]
            made = save_recipe_of(steps, recipe, output=output_of(stack), overwrite=overwrite)
    for sentence in made.sentences():
        write(sentence)
    name = shlex.join([str(recipe), *(word for one in with_ or () for word in ("--with", one))])
    beside = [str(recipe.with_name(str(image))) for image in references(made)]
    if history is None:
        say(f"wrote {recipe}: put your gain reference beside it as gain.mrc, or edit it")
    else:
        say(f"wrote {', '.join([str(recipe), *beside])}")
    say(f"next: napari-mrcz recipe check {name}; napari-mrcz correct MOVIES -r {name} -o FOLDER")


@with_options
def session_(
    files: arguments.Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The report to write, an HTML file.")
    ],
    table: Annotated[
        Path | None,
        typer.Option(help="One row per movie, as .csv or .parquet.", show_default=False),
    ] = None,
    recipe: RecipeOption = None,
    with_: arguments.With = None,
    overwrite: arguments.Overwrite = False,
    workers: arguments.Workers = 0,
    scheduler: arguments.Scheduler = "",
    *,
    how: Saying,
) -> None:
    """Report on a session: dose, outliers, noise, contrast. Name movies in order of acquisition.

    Movies that cannot be used are listed as such; the exit status is 1 then.
    """
    from datetime import datetime

    from napari_mrcz.correction.outliers.thresholds import OutlierStep
    from napari_mrcz.format.atomic import AtomicFile, check_target, write_file
    from napari_mrcz.session.correct import with_orientation_of
    from napari_mrcz.session.page import (
        REPORT_MODULES,
        TABLE_SUFFIXES,
        check_table,
        need_installed,
        page,
        write_table,
    )
    from napari_mrcz.session.recipe import Recipe
    from napari_mrcz.session.report import Measurements
    from napari_mrcz.session.run import run_all

    if output.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter("--output is the report, a file of .html")
    if table is not None and table.suffix.lower() not in TABLE_SUFFIXES:
        raise typer.BadParameter(f"--table is a file of {' or '.join(TABLE_SUFFIXES)}")
    # Whether the results can be written is checked before hours of work.
    for module, what in REPORT_MODULES.items():
        need_installed(module, what)
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
    with suppress(MrczError, OSError):  # the report says why each movie cannot be used
        wanted = with_orientation_of(wanted, sources)
    measurements = Measurements(sources, wanted, order)
    tasks = measurements.tasks()
    with at_work(scheduler, workers) as where:
        status = tell_outcomes(map(measurements.take, run_all(tasks, **where)), "measured")
    findings = measurements.findings()
    for warning in findings.warnings:
        say_warning(warning)
    # Names of files need not be of the encoding that the system claims.
    html = page(findings, datetime.now().astimezone()).encode(errors="backslashreplace")
    write_file(output, html, overwrite=overwrite)
    if table is not None:
        write_table(table, findings.movies, overwrite=overwrite)
    say(f"the report is {output}" + (f", the table {table}" if table is not None else ""))
    if status or len(findings.usable) < len(findings.movies):
        raise typer.Exit(1)


_JOURNAL = "watch.jsonl"


@with_options
def watch(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder where movies arrive, in folders within it, too.", show_default=False
        ),
    ],
    output: arguments.Folder,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", help="Recipe by which movies are corrected into OUTPUT/corrected."
        ),
    ] = None,
    settle: Annotated[
        float,
        typer.Option(
            min=0, max=1e6, help="Seconds without change after which a movie is finished."
        ),
    ] = 10.0,
    marker: Annotated[
        str, typer.Option(help='Suffix of the files that mark movies as finished, such as ".done".')
    ] = "",
    pattern: Annotated[
        str, typer.Option(help='Pattern of the names of movies, such as "*_fractions.tiff".')
    ] = "*",
    poll: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1e6, help="Seconds between looks at the folder, for network disks."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds after which a stack is corrected with an incomplete KOMA window "
            "(default: when watching ends).",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Process the movies that are there, and end.")
    ] = False,
    stop_after: Annotated[
        float | None,
        typer.Option(min=0, max=1e6, help="Seconds without new movies after which watching ends."),
    ] = None,
    given: Annotated[arguments.Given, options_of(session.Coding)] = arguments.NOTHING,
    chosen: Annotated[arguments.Given, arguments.only(session.Selection, "group")] = (
        arguments.NOTHING
    ),
    decimate: arguments.Decimate = None,
    with_: arguments.With = None,
    delete: arguments.Delete = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    *,
    how: Saying,
) -> None:
    """Compress, verify and correct movies as they are finished; start it again to continue.

    A journal in the output folder (watch.jsonl) records what is done: after it was interrupted or
    killed, it continues where it was. Every result is read back and compared. Ctrl-C ends it at
    once: stacks that wait for their KOMA window wait for the next start; --once corrects them with
    an incomplete window.
    """
    from napari_mrcz.session.arrivals import Arrivals, woken
    from napari_mrcz.session.follow import Corrections, Watch
    from napari_mrcz.session.journal import Journal, Ledger
    from napari_mrcz.session.recipe import Recipe

    if delete and session.Selection(**chosen).chosen:
        raise typer.BadParameter("--delete and --group exclude each other: frames would be lost")
    if timeout is not None and recipe is None:
        raise typer.BadParameter("--timeout is for the KOMA windows of a --recipe")
    if not folder.is_dir():
        raise MrczError(folder, "is not a folder that can be watched")
    if os.path.realpath(output) == os.path.realpath(folder):
        raise typer.BadParameter("results need a folder of their own: --output")
    tell_of_interrupted([folder], delete=delete)
    wanted = None if recipe is None else Recipe.load(recipe).with_modules(with_ or ())
    coding = {
        **session.Coding(**given).arguments,
        "selection": session.Selection(**chosen),
        "decimate": str(decimate or ""),
    }
    with Journal(output / _JOURNAL) as journal, woken(folder, poll, _say) as wait, bar() as advance:
        arrivals = Arrivals(
            folder,
            with_packing((*SUFFIXES, *FOREIGN_SUFFIXES)),
            settle=settle,
            marker=marker,
            pattern=pattern,
            ignored=[output, *references(wanted, decimate)],
            changes=wait.changes,
        )
        ledger = Ledger(journal, folder)
        corrections = None
        if wanted is not None:
            corrections = Corrections(ledger, output, wanted, timeout=timeout, overwrite=overwrite)
        watching = Watch(
            arrivals,
            ledger,
            output,
            wait,
            _say,
            coding,
            corrections,
            delete=delete,
            overwrite=overwrite,
            once=once,
            silence=stop_after,
            report=advance,
        )
        status = _tell(watching, as_json)
    if status:
        raise typer.Exit(status)


def _tell(watching: Watch, as_json: bool) -> int:
    """Print each step, and in the end how many there were; return the exit status."""
    done = Counter[str]()
    failed: list[str] = []
    order, corrections = "", watching.corrections
    orientation = "" if corrections is None else corrections.orientation
    kept = warned = 0
    shared: set[str] = set()
    try:
        for step in watching.steps():
            outcome = step.outcome
            done[step.kind] += outcome.ok
            kept += bool(outcome.kept)
            warned += bool(outcome.warnings)
            if corrections is not None and order != corrections.order:
                order = corrections.order
                _say(f"order of the movies: {order}")
            if corrections is not None and orientation != corrections.orientation:
                orientation = corrections.orientation
                _say(f"orientation of the gain reference: {orientation}")
            if step.kind == "summed" and outcome.ok:
                tell_warnings(outcome, shared)
            else:
                tell_outcome(outcome, shared, as_json=as_json, step=step.kind)
            if not outcome.ok:
                failed.append(Path(outcome.source).name)
    finally:
        line = f"movies compressed: {done['compressed']}"
        if corrections is not None:
            line += f", corrected: {done['corrected']}"
        if watching.waiting:
            line += f", waiting for their KOMA window: {watching.waiting}"
        if warned:
            line += f", with warnings: {warned}"
        if kept:
            line += f", sources kept: {kept}"
        if failed:
            line += f"; failed: {', '.join(failed)}"
        say(line)
    return 1 if failed else 0


def _say(line: str) -> None:
    say(f"napari-mrcz: {line}")
