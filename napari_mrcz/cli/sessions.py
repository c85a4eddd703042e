"""Commands on sessions: correct, with recipes of corrections; session, a report; watch."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mrcz import session
from napari_mrcz.cli import arguments
from napari_mrcz.cli.commands import Running, Saying, at_work, with_options
from napari_mrcz.cli.paths import prepare, references, session_in, target_of, tell_of_interrupted
from napari_mrcz.cli.progress import (
    as_option,
    bar,
    outcome_text,
    say,
    say_error,
    tell_outcomes,
    tell_warnings,
    write,
)
from napari_mrcz.correction.options import options_of
from napari_mrcz.errors import MrczError
from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES, with_packing

if TYPE_CHECKING:
    from napari_mrcz.session.follow import Watch
    from napari_mrcz.session.recipe import Recipe

RecipeFile = Annotated[Path, typer.Argument(help="The recipe.", show_default=False)]

recipe_ = typer.Typer(no_args_is_help=True, help="Show, check and make recipes of corrections.")


@with_options
def correct(
    files: arguments.Files,
    output: arguments.Folder,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="What to do; outliers alone without it.")
    ] = None,
    given: Annotated[arguments.Given, session.recipe_options()] = arguments.NOTHING,
    chosen: Annotated[arguments.Given, options_of(session.Selection)] = arguments.NOTHING,
    with_: arguments.With = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also do steps that a movie has had already.")
    ] = False,
    *,
    how: Running,
) -> None:
    """Correct movies by a recipe: outlier pixels, gain, KOMA. Name them in order of acquisition.

    Whole movies are fitted and corrected. --frames, --crop and --group, in this order, say which
    part of the result is written.
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
    prepare(sources, targets, dry_run=how.dry_run)
    if wanted.gain is not None and wanted.gain.orientation == "auto":
        wanted = with_orientation_of(wanted, sources)
        check_anything_left(wanted)
        if wanted.gain is not None:
            say(f"the reference lies: {wanted.gain.orientation}, exponent {wanted.gain.gamma:g}")
    movies = [str(source.absolute()) for source in sources]
    results = [str(target.absolute()) for target in targets]
    making: dict[str, Any] = {**how.making, "selection": selection}
    tasks = [Correct(*pair, wanted, **making) for pair in zip(movies, results, strict=True)]
    how.run(
        tasks, "corrected", partial(correct_all, movies, results, wanted, order=order, **making)
    )


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
            say(f"napari-mrcz: warning: {found.gain.reference}: {warning}", always=True)
        if found.gain.dark:
            _check_dark(read_reference(found.gain.dark).shape, shape, found.gain.dark)
    if found.outliers is not None and found.outliers.defects:
        try:
            defects = read_defects(found.outliers.defects, shape)
        except MrczError:
            raise
        except ValueError:  # rectangles; without a reference the shape is not known
            write("defects: rectangles, which will be held against the frames")
        else:
            write(f"defects: {int(defects.sum())} pixels")
    if unknown := [step.name for step in found.more if not step.is_loaded]:
        write(f"{recipe} is valid; not checked: {', '.join(unknown)} (name the module, --with)")
    else:
        write(f"{recipe} is valid")


def _check_dark(shape: tuple[int, ...], gain: tuple[int, ...], path: str) -> None:
    """Check that a dark has the size of frames that the gain fits, turned, binned or not."""
    sizes = [gain, tuple(size // 2 for size in gain), tuple(size * 2 for size in gain)]
    if shape not in (*sizes, *(size[::-1] for size in sizes)):
        advice = f"A dark lies as the frames do: {gain}, turned or not, or half or twice that"
        raise MrczError(path, f"a dark reference of {shape} pixels", advice=advice)


@recipe_.command()
def new(
    recipe: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    history: Annotated[
        Path | None,
        typer.Option(help="A corrected movie: the recipe says what was done to it."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Step of the history to leave out, such as KomaNormalization."),
    ] = None,
    with_: arguments.With = None,
    overwrite: arguments.Overwrite = False,
) -> None:
    """Write a recipe to be edited, or that of a movie that was corrected.

    Without one of its steps, the recipe undoes that step: correct the raw movie by it.
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
    name = shlex.quote(str(recipe))
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
    with_: arguments.With = None,
    overwrite: arguments.Overwrite = False,
    workers: arguments.Workers = 0,
    scheduler: arguments.Scheduler = "",
    *,
    how: Saying,
) -> None:
    """Report on a session: dose, outliers, noise, contrast. Name movies in order of acquisition.

    A movie that cannot be used is listed as such; the exit status is 1 then.
    """
    from datetime import datetime

    from napari_mrcz.correction.outliers.thresholds import OutlierStep
    from napari_mrcz.format.atomic import AtomicFile, check_target
    from napari_mrcz.session.page import REPORT_MODULES, page, write_table
    from napari_mrcz.session.recipe import Recipe
    from napari_mrcz.session.report import Measurements
    from napari_mrcz.session.run import run_all
    from napari_mrcz.session.tables import TABLE_SUFFIXES, check_table, need_installed

    if output.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter("--output is the report, a file of .html")
    if table is not None and table.suffix.lower() not in TABLE_SUFFIXES:
        raise typer.BadParameter(f"--table is a file of {' or '.join(TABLE_SUFFIXES)}")
    # Whatever would refuse the results is found before hours are spent on them.
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


_JOURNAL = "watch.jsonl"


@with_options
def watch(
    folder: Annotated[
        Path, typer.Argument(help="Where movies arrive, and folders in it.", show_default=False)
    ],
    output: arguments.Folder,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", help="Also correct them, into the folder OUT/corrected."),
    ] = None,
    settle: Annotated[
        float,
        typer.Option(
            min=0, max=1e6, help="Seconds for which a finished movie's size and time rest."
        ),
    ] = 10.0,
    marker: Annotated[
        str,
        typer.Option(
            help='A movie is finished when there is a file of its name and this: ".done".'
        ),
    ] = "",
    pattern: Annotated[
        str, typer.Option(help='Names of the movies, such as "*_fractions.tiff".')
    ] = "*",
    poll: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1e6, help="Look every so many seconds, as network disks send no events."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds after which a stack is corrected with the KOMA window "
            "that there is; without it when the window is complete or watching is over.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Do what is there, correct all stacks, and end.")
    ] = False,
    stop_after: Annotated[
        float | None,
        typer.Option(min=0, max=1e6, help="End when nothing has come for so many seconds."),
    ] = None,
    given: Annotated[arguments.Given, options_of(session.Coding)] = arguments.NOTHING,
    chosen: Annotated[arguments.Given, arguments.only(session.Selection, "group")] = (
        arguments.NOTHING
    ),
    decimate: arguments.Decimate = None,
    with_: arguments.With = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete sources whose results were verified.")
    ] = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    *,
    how: Saying,
) -> None:
    """Compress, verify and correct movies as they are finished; start it again to go on.

    A journal in the output folder (watch.jsonl) says what is done: ended or killed at any moment,
    it goes on where it was. Every result is read back and compared. Interrupted (Ctrl-C), it ends
    at once, and stacks that wait for their KOMA window wait for the next start; --once corrects
    them with the window that there is.
    """
    from napari_mrcz.session.arrivals import Arrivals, woken
    from napari_mrcz.session.follow import Corrections, Ending, Watch
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
    with (
        Journal(output / _JOURNAL) as journal,
        woken(folder, poll, _say) as wait,
        bar() as advance,
    ):
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
            ending=Ending(once, stop_after),
            report=advance,
        )
        status = _tell(watching, as_json)
    if status:
        raise typer.Exit(status)


def _tell(watching: Watch, as_json: bool) -> int:
    """Print each step, and in the end how many there were; return the exit status."""
    done = Counter[str]()
    failed: list[str] = []
    order = ""
    kept = warned = 0
    shared: set[str] = set()
    try:
        for step in watching.steps():
            outcome = replace(step.outcome, error=as_option(step.outcome.error))
            done[step.kind] += outcome.ok
            kept += bool(outcome.kept)
            warned += bool(outcome.warnings)
            told = step.kind != "summed" or not outcome.ok
            if watching.corrections is not None and order != watching.corrections.order:
                order = watching.corrections.order
                _say(f"order of the movies: {order}")
            tell_warnings(outcome, shared)
            if as_json and told:
                write(json.dumps({"step": step.kind, **outcome.as_dict()}))
            elif outcome.ok and told:
                say(outcome_text(outcome), always=bool(outcome.kept))
            if not outcome.ok:
                failed.append(Path(outcome.source).name)
                say_error(outcome.error)
    finally:
        line = f"movies compressed: {done['compressed']}"
        if watching.corrections is not None:
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
