"""Which files of folders are movies of a session, and which are images that lie beside them.

A gain reference, a dark or a sum often lies in the folder of a session: a file of one image. What
is taken for what is decided here, for all commands, and said.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mrcz.naming import (
    FOREIGN_SUFFIXES,
    SUFFIXES,
    natural_key,
    with_packing,
    without_packing,
)
from napari_mrcz.session.order import GIVEN, NAMES, by_acquisition, look_at
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.raw_frames import first_part

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from napari_mrcz.session.order import MovieInfo

REFERENCE, SINGLE = "taken for a reference", "a single image, maybe a sum"
DONE = "a result of KOMA"
"""What is said of files that are no movies."""

_NAME = re.compile(
    r"(?<![a-z])(gain|dark|flat|(gain|count|super|dark|flat)?ref(erence)?s?|defects?)(?![a-z])"
)
# Of sums, whose names say what was done to them.
_CORRECTED = re.compile(r"corr|normali")
# Of references: their usual value, and how far from it most pixels may lie.
_LEVEL, _SPREAD = (0.5, 2.0), 0.3


def movies_within(
    folder: Path,
    suffixes: tuple[str, ...] = (),
    besides: Collection[Path] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[list[Path], list[Path]]:
    """Find the movies of a folder and of all within.

    What is hidden is passed over (other systems' ``._movie.mrc``, snapshots of file servers), and
    so are later files of a recording, which is opened with its first one.

    Parameters
    ----------
    folder : Path
        Links to other folders are not followed.
    suffixes : tuple of str
        Of the movies, also packed; those of all formats that are read where there are none.
    besides : collection of Path
        Files that are no movies, such as a gain reference, and folders of results.
    progress : callable, optional
        Called with (movies found, None) for each file that is met.

    Returns
    -------
    movies : list of Path
        In natural order of their names: movie_2 before movie_10.
    unread : list of Path
        Folders that may not be read.
    """
    endings = with_packing(suffixes or (*SUFFIXES, *FOREIGN_SUFFIXES))
    other = {os.path.realpath(file) for file in besides}
    unread: list[Path] = []
    found: list[Path] = []
    walk = os.walk(folder, onerror=lambda error: unread.append(Path(error.filename)))
    for inside, folders, names in walk:
        shown = (name for name in folders if not name.startswith("."))
        folders[:] = [n for n in shown if os.path.realpath(Path(inside, n)) not in other]
        for name in names:
            if progress is not None:
                progress(len(found), None)
            path = Path(inside, name)
            if name.startswith(".") or not name.lower().endswith(endings) or not path.is_file():
                continue
            if os.path.realpath(path) not in other and first_part(path) is None:
                found.append(path)
    return sorted(found, key=natural_key), sorted(unread, key=natural_key)


def movies_of(
    paths: Sequence[Path],
    suffixes: tuple[str, ...] = (),
    besides: Collection[Path] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[list[Path], list[Path]]:
    """Find the movies that files and folders stand for.

    Parameters
    ----------
    paths : sequence of Path
        Files, which are taken as they are named, and folders. In plain order of their names, as a
        shell has them, they are taken in natural order.
    suffixes, besides, progress
        Of movies in folders, as `movies_within` takes them.

    Returns
    -------
    found : list of Path
        Each once; a folder that may not be read is in it too, to be reported when its turn comes.
    inside : list of Path
        Those of them that folders have and nobody named.
    """
    # A shell that is given a pattern sorts movie_10 before movie_2.
    in_turn = sorted(paths, key=natural_key) if list(paths) == sorted(paths) else paths
    found: list[Path] = []
    for named in in_turn:
        if named.is_dir():
            movies, unread = movies_within(named, suffixes, besides, progress)
            found += [*movies, *unread]
        else:
            found.append(named)  # one that is not there is reported when its turn comes
    every, named_ones = set(found), set(paths)
    # Later files of a recording are opened with its first one.
    found = [file for file in dict.fromkeys(found) if first_part(file) not in every]
    return found, [file for file in found if file not in named_ones and not file.is_dir()]


def session_of(
    paths: Sequence[Path],
    besides: Collection[Path] = (),
    *,
    by_name: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[list[Path], str, dict[Path, str]]:
    """Find the movies of a session in order of acquisition: for scripts, commands and widgets.

    Single images in folders are left out: references, and sums where there are as many movies.
    What is named itself is taken.

    Parameters
    ----------
    paths : sequence of Path
        Files and folders.
    besides : collection of Path
        Files that are no movies, such as a gain reference, and folders of results.
    by_name : bool
        Sort by name where not all have a time, also if they were named in another order.
    progress : callable, optional
        Called with (movies done, movies or None) while they are looked for, and looked at.

    Returns
    -------
    movies : list of Path
        As `order.by_acquisition` sorts them, followed by folders that may not be read.
    order : str
        What is known of the order.
    left_out : dict of str
        Images beside the movies, and what they are taken for; results of KOMA among other movies.
    """
    found, inside = movies_of(paths, (), besides, progress)
    unread = [file for file in found if file.is_dir()]
    looks = looks_at([file for file in found if file not in unread], progress)
    left_out = images_beside({file: looks[file] for file in inside}, sums=False)
    done = {file for file, look in looks.items() if look is not None and look.is_normalised}
    if len(done) + len(left_out) < len(looks):
        left_out |= {file: DONE for file in inside if file in done}
    movies = [file for file in looks if file not in left_out]
    by_name = by_name or movies == sorted(movies, key=natural_key)
    looked = [looks[file] for file in movies]
    movies, order = by_acquisition(movies, looked, NAMES if by_name else GIVEN)
    return [*movies, *unread], order, left_out


def looks_at(
    paths: Sequence[Path], progress: Callable[[int, int | None], None] | None = None
) -> dict[Path, MovieInfo | None]:
    """Look at movies; None for what cannot be opened, which is reported when its turn comes.

    Parameters
    ----------
    paths : sequence of Path
        The movies.
    progress : callable, optional
        Called with (movies looked at, movies).
    """
    looks = {}
    for done, path in enumerate(paths):
        if progress is not None:
            progress(done, len(paths))
        looks[path] = look_at(path)
    return looks


def images_beside(looks: Mapping[Path, MovieInfo | None], *, sums: bool) -> dict[Path, str]:
    """Find the files that are no movies of a session but images beside them.

    Parameters
    ----------
    looks : dict
        Files of folders, and what a look at each tells.
    sums : bool
        Whether other single images than references are movies, too, and references are left out
        even where nothing else is there, as where the movies have been moved elsewhere. Otherwise
        single images are movies where they are more than the movies: sums have sessions of their
        own.

    Returns
    -------
    dict of str
        `REFERENCE` or `SINGLE` of each.
    """
    known = {path: look for path, look in looks.items() if look is not None}
    single = {path: look for path, look in known.items() if look.shape[0] == 1}
    frames = {look.shape[1:] for path, look in known.items() if path not in single}
    named = [path for path in single if _has_name_of_reference(path)]
    # Also beside files that cannot be opened, which are none of single images as far as is known.
    most = len(single) == len(looks) and 2 * len(named) > len(single)
    by_name = named if sums or not most else []
    found = {
        path: REFERENCE
        for path, look in single.items()
        if path in by_name
        or (
            look.is_float
            and (_fits(look.shape[1:], frames) if frames else sums)
            and _is_near_one(path)
        )
    }
    others = [path for path in single if path not in found]
    if not sums and frames and len(others) <= len(known) - len(single):
        found.update(dict.fromkeys(others, SINGLE))
    return found if sums or len(found) < len(looks) else {}


def is_reference(path: Path) -> bool:
    """Return whether a file is a reference, by itself: one image, so named or near 1."""
    look = look_at(path)
    if look is None or look.shape[0] != 1:
        return False
    return _has_name_of_reference(path) or (look.is_float and _is_near_one(path))


def _is_near_one(path: Path) -> bool:
    """Return whether the image of a file is one of floating numbers near 1, as of a gain."""
    try:
        with open_stack(path, read_ahead=False) as stack:
            image = stack[0]
    except (OSError, ValueError, ImportError, MemoryError):
        return False
    values = image[np.isfinite(image) & (image > 0)]
    # Defects are 0 in references, but not half of all pixels.
    if 2 * values.size < image.size or np.array_equal(values, np.rint(values)):
        return False
    low, level, high = np.percentile(values, (16, 50, 84))
    return bool(_LEVEL[0] <= level <= _LEVEL[1] and (high - low) / 2 <= _SPREAD * level)


def _fits(shape: tuple[int, ...], frames: Collection[tuple[int, ...]]) -> bool:
    """Return whether a reference fits frames: turned or not, in super-resolution or half of it."""
    y, x = shape
    sizes = {(y, x), (2 * y, 2 * x), (y // 2, x // 2)}
    return any({frame, frame[::-1]} & sizes for frame in frames)


def _has_name_of_reference(path: Path) -> bool:
    stem = without_packing(path).stem
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem).lower()
    return bool(_NAME.search(words)) and not _CORRECTED.search(words)
