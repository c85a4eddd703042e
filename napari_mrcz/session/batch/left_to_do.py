"""What of a recipe is left to be done to a movie: not twice, and no gain that does not help."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mrcz.correction import find_orientation
from napari_mrcz.correction.gain import NORMALISED, is_normalised
from napari_mrcz.errors import MrczError
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.references import read_reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_mrcz.session.recipe import Recipe
    from napari_mrcz.stack import Stack

NOTHING_LEFT = "Nothing else is to be done. Name the orientation in the recipe to apply it anyway"
"""What to do where a reference was left out, and the recipe has nothing else."""

# Less than two frames have nothing in common.
_FEWEST_FRAMES = 2
# Movies that are looked at before a reference is taken to help none.
_TRIED = 3


def without_done(recipe: Recipe, movie: Stack) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe without the steps that a movie has had, unless these are done again.

    Returns
    -------
    recipe : Recipe
        What is left to be done.
    warnings : tuple of str
        One for each step that is not.
    """
    had = {step.get("name") for step in movie.history}
    if recipe.again or not had:
        return recipe, ()
    left, done = recipe, []
    if recipe.outliers is not None and "OutlierFilter" in had:
        left = replace(left, outliers=None)
        done.append("OutlierFilter")
    if recipe.gain is not None and is_normalised(movie.history):
        left = replace(left, gain=None)
        done.append("GainNormalization")
    if recipe.koma is not None and "KomaNormalization" in had:
        left = replace(left, koma=None)
        done.append("KomaNormalization")
    done += [step.name for step in recipe.more if step.class_name in had]
    left = replace(left, more=tuple(step for step in recipe.more if step.class_name not in had))
    return left, tuple(
        f"{name} is in the movie's history already, and is not done again (--again does it)"
        for name in done
    )


def with_orientation(recipe: Recipe, movie: Stack) -> Recipe:
    """Return a recipe whose reference lies as a movie shows, where it says "auto".

    A reference that does not lower the movie's correlated noise significantly in any orientation
    (`OrientationSearch.helps`) is left out, and the recipe's warnings say why: no movie becomes
    worse. `corrected` leaves it out for single movies in the same way. A movie that nothing else is
    to be done to is not written: that is an error, as its copy would pass for a corrected movie.

    Parameters
    ----------
    recipe : Recipe
        What is to be done.
    movie : Stack
        As it was recorded.

    Raises
    ------
    ValueError
        If the reference does not fit the movie in any orientation.
    """
    if recipe.gain is None or recipe.gain.orientation != "auto":
        return recipe
    reference = read_reference(recipe.gain.reference)
    frames: Any = movie
    if recipe.gain.dark and (dark := read_reference(recipe.gain.dark)).shape == movie.shape[1:]:
        frames = (frame - dark for frame in movie)
    try:
        found = find_orientation(frames, reference)
    except MrczError:
        raise
    except ValueError as error:
        raise ValueError(f"{recipe.gain.reference}: {error}") from error
    if is_normalised(movie.history):
        return without_gain(recipe, NORMALISED)
    if not found.helps:
        return without_gain(recipe, found.warnings[0])
    best = found.best
    gamma = -abs(recipe.gain.gamma) if best.reciprocal else abs(recipe.gain.gamma)
    gain = replace(recipe.gain, orientation=best.orientation, gamma=gamma)
    return replace(recipe, gain=gain, gain_is_optional=True, warnings=found.warnings)


def with_orientation_of(recipe: Recipe, sources: Sequence[str | Path]) -> Recipe:
    """Return a recipe whose reference lies as the first movie shows that can be used.

    Where the reference does not help the first one, another two are looked at: a movie may be
    blank, or normalised already.

    Raises
    ------
    MrczError, OSError
        That of the first movie, if none can be used.
    """
    if recipe.gain is None or recipe.gain.orientation != "auto":
        return recipe
    failures: list[Exception] = []
    without: list[Recipe] = []
    for source in sources:
        try:
            with open_stack(source) as movie:
                if len(movie) < _FEWEST_FRAMES:
                    found = "a single frame does not tell how the gain lies"
                    advice = "Name a movie, or write the orientation into the recipe"
                    raise MrczError(source, found, advice=advice)
                oriented = with_orientation(recipe, movie)
        except (MrczError, OSError) as error:
            failures.append(error)  # where another tells, it is said when their turn comes
            continue
        if oriented.gain is not None:
            return oriented
        without.append(oriented)
        if len(without) == _TRIED:
            break
    if without:
        return without[0]
    raise failures[0]


def check_anything_left(recipe: Recipe) -> None:
    """Refuse a recipe that does nothing any more, as its reference was left out.

    Raises
    ------
    MrczError
        With the recipe's warning.
    """
    if recipe.warnings and not (recipe.outliers or recipe.gain or recipe.koma or recipe.more):
        raise MrczError(None, recipe.warnings[-1].removesuffix("."), advice=NOTHING_LEFT)


def without_gain(recipe: Recipe, why: str) -> Recipe:
    """Return a recipe that leaves the gain reference out, with a warning."""
    said = f"The gain reference was not applied. {why}"
    return replace(recipe, gain=None, warnings=(*recipe.warnings, said))
