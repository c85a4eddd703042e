"""``watch``: a session followed while it is recorded."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_mrcz import session
from napari_mrcz.cli import options
from napari_mrcz.cli.commands import Saying, with_options
from napari_mrcz.cli.paths import references, tell_of_interrupted
from napari_mrcz.cli.progress import (
    as_option,
    bar,
    outcome_text,
    say,
    say_error,
    tell_warnings,
    write,
)
from napari_mrcz.correction.options import options_of
from napari_mrcz.errors import MrczError
from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES, with_packing

if TYPE_CHECKING:
    from napari_mrcz.session.watching import Watch

_JOURNAL = "watch.jsonl"


@with_options
def watch(
    folder: Annotated[
        Path, typer.Argument(help="Where movies arrive, and folders in it.", show_default=False)
    ],
    output: options.Folder,
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
    given: Annotated[options.Given, options_of(session.Coding)] = options.NOTHING,
    group: options.Group = 1,
    decimate: options.Decimate = None,
    with_: options.With = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete sources whose results were verified.")
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    *,
    how: Saying,
) -> None:
    """Compress, verify and correct movies as they are finished; start it again to go on.

    A journal in the output folder (watch.jsonl) says what is done: ended or killed at any moment,
    it goes on where it was. Every result is read back and compared. Interrupted (Ctrl-C), it ends
    at once, and stacks that wait for their KOMA window wait for the next start; --once corrects
    them with the window that there is.
    """
    from napari_mrcz.session.recipe import Recipe
    from napari_mrcz.session.watching import (
        Arrivals,
        Corrections,
        Ending,
        Journal,
        Ledger,
        Watch,
        woken,
    )

    if delete and group > 1:
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
        "group": group,
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
