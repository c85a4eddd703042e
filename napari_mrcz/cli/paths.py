"""Which files the command line names, and where results go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.cli.progress import late_bar, say, say_warning
from napari_mrcz.errors import MrczError, listed
from napari_mrcz.naming import COMPRESSED_SUFFIX, RemotePath, without_packing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_mrcz.session.recipe import Recipe

# Of the files that are left out for one reason.
_MOST_NAMED = 5


class Misused(Exception):
    """A command line that is wrong.

    `said`: what is wrong with it; empty if the help was written instead; `command`: the program and
    the command, if known.
    """

    def __init__(self, said: str, command: str = "") -> None:
        super().__init__(said)
        self.command = command


def references(recipe: Recipe | None, decimate: Path | None = None) -> list[Path]:
    """Return files that look like movies but are not: those that a recipe names, and a gain."""
    named = [] if recipe is None else recipe.files()
    return [*map(Path, named), *([decimate] if decimate else [])]


def movies_in(
    paths: Sequence[Path],
    suffixes: tuple[str, ...] = (),
    excluded: Sequence[Path] = (),
    *,
    leave_references: bool = False,
    leave_done: bool = False,
) -> list[Path]:
    """Return files as they are named, and of folders all movies within by name; each once.

    `paths`, `suffixes`, `excluded`: as `session.survey.movies_of` takes them; `leave_references`:
    leave out gain and other references that are in folders, with a message; `leave_done`: leave out
    MRCZ files that are in folders, with a message. A folder that may not be read is in the result
    too, to be reported when its turn comes. Raise `Misused` if there is no movie.
    """
    from napari_mrcz.session.survey import images_beside, looks_at, movies_of

    if leave_done:
        suffixes = (*suffixes, COMPRESSED_SUFFIX)
    with late_bar(f"looking for movies in {listed(paths, _MOST_NAMED)}") as advance:
        found, inside = movies_of(paths, suffixes, excluded, advance)
    if leave_done:
        done = {
            file for file in inside if without_packing(file).suffix.lower() == COMPRESSED_SUFFIX
        }
        if done:
            files = "1 MRCZ file is" if len(done) == 1 else f"{len(done)} MRCZ files are"
            say(f"{files} compressed already and left out; convert writes such files again")
        found, inside = ([file for file in some if file not in done] for some in (found, inside))
    if leave_references and inside:
        with late_bar("looking at the files of folders") as advance:
            left = images_beside(looks_at(inside, advance), sums=True)
        _tell_left(left)
        found = [file for file in found if file not in left]
    if not found:
        others = movies_of(paths, (), excluded)[1] if suffixes and not leave_done else []
        raise _no_movie(paths, others)
    return found


def session_in(
    paths: list[Path], recipe: Recipe, results: Sequence[Path] = ()
) -> tuple[list[Path], str]:
    """Return the movies of a session, as `session.survey.session_of` sorts them, and their order.

    `paths`: files and folders; `recipe`: the files that it names are not movies; `results`: folders
    of results, which are not movies of the session either.
    """
    from napari_mrcz.session.survey import session_of

    with late_bar(f"looking for movies in {listed(paths, _MOST_NAMED)}") as advance:
        movies, order, left = session_of(paths, [*references(recipe), *results], progress=advance)
    if not movies:
        raise _no_movie(paths)
    _tell_left(left)
    if len(movies) > 1:
        say(f"order of the {len(movies)} movies: {order}")
    return movies, order


def _no_movie(paths: Sequence[Path], others: Sequence[Path] = ()) -> Misused:
    """Return the error; `others`: movies in the folders that are not compressed."""
    where = listed(paths, _MOST_NAMED)
    if not others:
        return Misused(f"no movie in {where}")
    found = f"no {COMPRESSED_SUFFIX} in {where}, but files of other formats"
    return Misused(f"{found}, such as {others[0]}: name the files themselves to take them")


def _tell_left(left: Mapping[Path, str]) -> None:
    """Print which files are left out, those of a kind in one line."""
    for why in dict.fromkeys(left.values()):
        files = [str(file) for file, reason in left.items() if reason == why]
        named = listed(files, _MOST_NAMED)
        count = f"{len(files)} files: {named}" if len(files) > 1 else named
        say(f"{count}: {why}, left out (name it to include it)")


def tell_of_interrupted(paths: Sequence[Path], *, delete: bool) -> None:
    """Print which sources a killed process was deleting, after their results were verified.

    `paths`: files and folders; `delete`: rename the sources back, so that they are verified and
    deleted as others are.
    """
    from napari_mrcz.session.source_files import left_aside, put_back

    for aside, movie in left_aside([path for path in paths if path.is_dir()]).items():
        if delete and put_back(aside, movie):
            say(f"{movie}: its deletion was interrupted; it has its name again", always=True)
        else:
            advice = f"delete it, or rename it to {movie.name}"
            say_warning(f"{aside}: the deletion of {movie.name} was interrupted; {advice}")


def target_of(source: Path, folder: Path | None, suffix: str, named: Sequence[Path] = ()) -> Path:
    """Return the path of the result of a file: with another suffix, next to it or in a folder.

    `folder`: for results; None for next to each file, and for the current folder for URLs; `named`:
    the command line's files and folders: folders within one of these are made in `folder` too.
    """
    name = f"{without_packing(source).stem}{suffix}"
    if folder is None:
        return Path(name) if isinstance(source, RemotePath) else source.with_name(name)
    if source not in named:
        for root in named:
            if source.is_relative_to(root):
                return folder / source.relative_to(root).with_name(name)
    return folder / name


def prepare(sources: Sequence[Path], targets: Sequence[Path], *, dry_run: bool = False) -> None:
    """Make the folders for results, unless `dry_run`.

    Raise `MrczError` if two sources have one target, or a file has the name of a folder.
    """
    seen: dict[Path, Path] = {}
    for source, target in zip(sources, targets, strict=True):
        if (other := seen.setdefault(target, source)) is not source:
            found = f"would be the result of both {other} and {source}"
            advice = "Run the command once for each of them, with another --output"
            raise MrczError(target, found, advice=advice)
    for folder in dict.fromkeys(target.parent for target in targets):
        try:
            if not dry_run:
                folder.mkdir(parents=True, exist_ok=True)
            elif (there := next(p for p in (folder, *folder.parents) if p.exists())).is_file():
                raise NotADirectoryError(there)
        except (FileExistsError, NotADirectoryError) as error:
            advice = "Name a folder with --output"
            raise MrczError(folder, "is or is in a file, not a folder", advice=advice) from error
        except OSError as error:
            found = f"cannot be made: {error.strerror}"
            raise MrczError(folder, found, advice="Name another folder with --output") from error
