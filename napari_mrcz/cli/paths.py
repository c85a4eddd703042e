"""Which files are meant, and where what is made of them goes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from napari_mrcz.cli.progress import say
from napari_mrcz.errors import MrczError
from napari_mrcz.suffixes import FOREIGN_SUFFIXES, PACKED_SUFFIXES, SUFFIXES, without_packing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_mrcz.recipe import Recipe

__all__ = ["movies_in", "path", "prepare", "references", "session_in", "target_of"]


def path(text: str) -> Path:
    """Take a path from the command line; whether it can be read is found out when its turn comes.

    Raises
    ------
    typer.BadParameter
        If it is empty: it would be the current folder, with all that is in it.
    """
    if not text:
        raise typer.BadParameter("an empty name, maybe of a variable that is not set")
    return Path(text)


def references(recipe: Recipe | None, decimate: Path | None = None) -> list[Path]:
    """Give the files that look like movies and are none: what a recipe names, and a gain."""
    named = [str(decimate or "")]
    if recipe is not None and recipe.gain is not None:
        named += [recipe.gain.reference, recipe.gain.dark]
    if recipe is not None and recipe.outliers is not None:
        named.append(recipe.outliers.defects)
    return [Path(name) for name in named if name]


def movies_in(
    paths: list[Path], suffixes: tuple[str, ...] = (), besides: Sequence[Path] = ()
) -> list[Path]:
    """Give files as they are named, and of folders all movies within in order of names; each once.

    Parameters
    ----------
    paths : list of Path
        Files and folders.
    suffixes : tuple of str
        Of the movies in folders, packed or not; those of all formats that are read by default.
    besides : sequence of Path
        What in folders is no movie, such as a gain reference.

    Returns
    -------
    list of Path
        A folder that may not be read is in it too, to be told of when its turn comes.

    Raises
    ------
    typer.BadParameter
        If there is none.
    """
    suffixes = suffixes or (*SUFFIXES, *FOREIGN_SUFFIXES)
    endings = (*suffixes, *(f"{s}{p}" for s in suffixes for p in PACKED_SUFFIXES))
    other = {file.resolve() for file in besides}
    found: list[Path] = []
    for named in paths:
        if named.is_dir():
            files, unread = _walked(named)
            inside = (p for p in files if p.name.lower().endswith(endings))
            movies = [p for p in inside if p.is_file() and p.resolve() not in other]
            found += sorted([*movies, *unread])
        else:
            found.append(named)  # one that is not there is told of when its turn comes
    if not found:
        raise typer.BadParameter(f"no movie is in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(found))


def _walked(folder: Path) -> tuple[list[Path], list[Path]]:
    """Give the files of a folder and of all within, and the folders that may not be read."""
    unread: list[Path] = []
    walk = os.walk(folder, onerror=lambda error: unread.append(Path(error.filename)))
    return [Path(inside, name) for inside, _, names in walk for name in names], unread


def session_in(paths: list[Path], recipe: Recipe) -> list[Path]:
    """Give the movies of a session as `movies_in` does, without the single images among them.

    A gain reference or a sum often lies in the folder of a session. What is named itself is taken,
    and so are single images where half of all are: sums have sessions of their own.

    Parameters
    ----------
    paths : list of Path
        Files and folders.
    recipe : Recipe
        The files that it names are no movies.
    """
    found = movies_in(paths, besides=references(recipe))
    inside = [file for file in found if file not in paths]
    single = [file for file in inside if _is_single_image(file)]
    if not single or 2 * len(single) >= len(found):
        return found
    for file in single:
        say(f"{file}: a single image, maybe a gain reference or a sum: left out unless it is named")
    return [file for file in found if file not in single]


def _is_single_image(file: Path) -> bool:
    from napari_mrcz.stack import open as open_stack

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when its turn does, and so does what is wrong
        try:
            with open_stack(file) as movie:
                return len(movie) == 1
        except (OSError, ValueError, ImportError):
            return False


def target_of(source: Path, folder: Path | None, suffix: str) -> Path:
    """Give the path of what is made of a file: beside it or in a folder, with another suffix."""
    return (folder or source.parent) / f"{without_packing(source).stem}{suffix}"


def prepare(sources: Sequence[Path], targets: Sequence[Path], folder: Path | None) -> None:
    """See that no two files go to one place, and make the folder for them.

    Raises
    ------
    MrczError
        If they do, or a file has the folder's name.
    """
    seen: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        if (other := seen.setdefault(target, source)) is not source:
            found = f"is what both {other} and {source} would be written to"
            raise MrczError(target, found, advice="Give them folders of their own with --output")
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        advice = "Name a folder with --output"
        raise MrczError(folder, "is or is in a file, not a folder", advice=advice) from error
    except OSError as error:
        found = f"cannot be made: {error.strerror}"
        raise MrczError(folder, found, advice="Name another folder with --output") from error
