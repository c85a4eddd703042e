"""``correct`` and ``recipe``: a recipe of corrections, and doing it to one movie or a session."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mrcz import session
from napari_mrcz.cli import options
from napari_mrcz.cli.commands import Running, with_options
from napari_mrcz.cli.paths import prepare, references, session_in, target_of
from napari_mrcz.cli.progress import say, write
from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    pass

RecipeFile = Annotated[Path, typer.Argument(help="The recipe.", show_default=False)]

recipe_ = typer.Typer(no_args_is_help=True, help="Show, check and make recipes of corrections.")


@with_options
def correct(
    files: options.Files,
    output: options.Folder,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="What to do; outliers alone without it.")
    ] = None,
    given: Annotated[options.Given, session.recipe_options()] = options.NOTHING,
    with_: options.With = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also do steps that a movie has had already.")
    ] = False,
    *,
    how: Running,
) -> None:
    """Correct movies by a recipe: outlier pixels, gain, KOMA. Name them in order of acquisition."""
    from napari_mrcz.correction.outliers.pixels import OutlierStep
    from napari_mrcz.session.correct import (
        Correct,
        check_anything_left,
        correct_all,
        with_orientation_of,
    )
    from napari_mrcz.session.recipe import Recipe

    wanted = Recipe.load(recipe) if recipe is not None else Recipe(outliers=OutlierStep())
    chosen: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        table, _, name = key.partition("__")
        chosen.setdefault(table, {})[name] = value
    try:
        wanted = replace(wanted, again=again).with_options(chosen).with_modules(with_ or ())
    except MrczError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
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
    tasks = [Correct(*pair, wanted, **how.making) for pair in zip(movies, results, strict=True)]
    how.run(
        tasks, "corrected", partial(correct_all, movies, results, wanted, order=order, **how.making)
    )


@recipe_.command()
def show(recipe: RecipeFile, with_: options.With = None) -> None:
    """Show what a recipe does, in words."""
    from napari_mrcz.session.recipe import Recipe, load_modules

    load_modules(with_ or ())
    for sentence in Recipe.load(recipe).sentences():
        write(sentence)


@recipe_.command()
def check(recipe: RecipeFile, with_: options.With = None) -> None:
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
    with_: options.With = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a recipe to be edited, or that of a movie that was corrected.

    Without one of its steps, the recipe undoes that step: correct the raw movie by it.
    """
    from napari_mrcz.correction.gain import GainStep
    from napari_mrcz.correction.koma import KomaOptions
    from napari_mrcz.correction.outliers.pixels import OutlierStep
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
