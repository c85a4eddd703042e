"""Which files of folders are the movies of a session, and in which order they were acquired.

They are sorted by time if all have one, or else by name. Times are in what the programs at the
microscope write with or beside a movie, which is kept in its metadata: SerialEM's mdoc, EPU's XML,
the tags of Digital Micrograph, FEI's extended header. A gain reference, a dark or a sum is often in
the folder of a session: a file of one image, which is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_mrcz.errors import AnyPath, collected_warnings
from napari_mrcz.naming import (
    FOREIGN_SUFFIXES,
    SUFFIXES,
    natural_key,
    with_packing,
    without_packing,
)
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.raw_frames import first_part

TIMES, NAMES = "by acquisition time", "by name"
GIVEN, ARRIVED = "as given", "by arrival"
"""Names of orders."""

# Names of metadata, the most reliable first; letters and digits alone, in lower case.
_NAMES = (
    "acquisitiondatetime",  # EPU
    "datetime",  # SerialEM's mdoc
    "acquisitiontimeos",  # Digital Micrograph
    "acquisitiondate",  # the same, the time of day beside it
    "timestamp",  # FEI's extended header, EER
    "date",  # SMV
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# 25-Mar-2021  13:45:22 and Thu Mar 25 13:45:22 2021, in English whatever the system speaks.
_MDOC = re.compile(r"(\d{1,2})-([a-z]{3})-(\d{2,4})\s+([\d:.]+)", re.IGNORECASE)
_CTIME = re.compile(r"[a-z]{3} ([a-z]{3})\s+(\d{1,2}) ([\d:.]+) (\d{4})", re.IGNORECASE)
_FORMATS = (
    "%Y:%m:%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S",
)  # fmt: skip
# Years in which movies are recorded; a number beyond is not a time.
_FIRST, _LAST = datetime(1990, 1, 1), datetime(2100, 1, 1)

Movie = TypeVar("Movie")


@dataclass(frozen=True)
class MovieInfo:
    """What opening a movie shows before any frame is decoded."""

    shape: tuple[int, int, int]  # Frames, rows, columns
    is_float: bool  # Whether its pixels are floating numbers
    acquired: datetime | None  # When, where its metadata says so
    is_normalised: bool = False  # Whether it was corrected by KOMA before


def look_at(path: AnyPath) -> MovieInfo | None:
    """Return what a look at a movie shows; None if it cannot be opened.

    Errors and warnings are reported when the movie is opened for the work itself.
    """
    with collected_warnings():
        try:
            with open_stack(path, read_ahead=False) as movie:
                done = any(step.get("name") == "KomaNormalization" for step in movie.history)
                is_float, acquired = movie.dtype.kind == "f", acquired_at(movie.metadata)
                return MovieInfo(movie.shape, is_float, acquired, done)
        except (OSError, ValueError, ImportError, MemoryError):
            return None


def by_acquisition(
    movies: Sequence[Movie], times: Sequence[datetime | None], otherwise: str = NAMES
) -> tuple[list[Movie], str]:
    """Sort movies by the time at which they were acquired; return them and what their order is.

    `times`: of each movie; `otherwise`: the order if some are unknown, and of movies of one time:
    `NAMES`, or the name of the order in which they are given.
    """
    indices = list(range(len(movies)))
    if otherwise == NAMES:
        indices.sort(key=lambda i: natural_key(movies[i]))  # type: ignore[arg-type]
    known = [time for time in times if time is not None]
    # Times of a clock with a zone and of one without cannot be compared.
    if len(known) == len(movies) and len({time.tzinfo is None for time in known}) == 1:
        indices.sort(key=known.__getitem__)
        otherwise = TIMES
    return [movies[i] for i in indices], otherwise


def acquired_at(metadata: Mapping[str, Any]) -> datetime | None:
    """Return when a movie was acquired, as its metadata says; the first time of several."""
    found: dict[str, list[datetime]] = {}
    for name, value in _candidates(metadata):
        value = value.tolist() if hasattr(value, "tolist") else value  # one per frame
        for time in map(_time, value if isinstance(value, list | tuple) else (value,)):
            if time is not None and _FIRST <= time.replace(tzinfo=None) <= _LAST:
                found.setdefault(name, []).append(time)
    for name in _NAMES:
        if times := found.get(name):
            return min(times, key=lambda time: time.replace(tzinfo=None))
    return None


def _candidates(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all that may be a time, with its plain name."""
    plain = {re.sub(r"[^a-z0-9]", "", str(key).lower()): value for key, value in metadata.items()}
    for name, value in plain.items():
        if name == "acquisitiondate" and isinstance(value, str):
            yield name, f"{value} {plain.get('acquisitiontime', '')}".strip()
        elif name in _NAMES:
            yield name, value
        yield from _within(value)


def _within(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from _candidates(value)
    elif isinstance(value, list | tuple):
        for one in value:
            if isinstance(one, Mapping | list | tuple):
                yield from _within(one)


def _time(value: Any) -> datetime | None:
    try:
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            return _time_of_number(float(value))
        return _time_of_text(str(value).strip())
    except (ValueError, OverflowError):
        return None


def _time_of_number(value: float) -> datetime | None:
    if 3e4 < value < 8e4:  # days, as in FEI's extended header
        return datetime(1899, 12, 30) + timedelta(days=value)
    if 5e8 < value < 5e9:  # seconds, as Unix counts
        return datetime.fromtimestamp(value, UTC)
    if 1e17 < value < 2e17:  # a tenth of a microsecond, as Windows counts
        return datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=value / 10)
    return None


def _time_of_text(text: str) -> datetime | None:
    if match := _MDOC.fullmatch(text):
        day, month, year, clock = match.groups()
    elif match := _CTIME.fullmatch(text):
        month, day, clock, year = match.groups()
    else:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
        for form in _FORMATS:
            try:
                return datetime.strptime(text, form)
            except ValueError:
                continue
        return _time_of_number(float(text))
    number = _MONTHS.index(month.lower()) + 1
    full = int(year) + (2000 if len(year) == 2 else 0)
    return datetime.fromisoformat(f"{full:04d}-{number:02d}-{int(day):02d}T{clock}")


REFERENCE, SINGLE = "taken for a reference", "a single image, maybe a sum"
DONE = "a result of KOMA"
"""Why files are not movies."""

_NAME = re.compile(
    r"(?<![a-z])(gain|dark|flat|(gain|count|super|dark|flat)?ref(erence)?s?|defects?)(?![a-z])"
)
# Of sums, whose names say what was done to them.
_CORRECTED = re.compile(r"corr|normali")
# Of references: their usual value, and how far from it most pixels may lie.
_LEVEL, _SPREAD = (0.5, 2.0), 0.3


def movies_of(
    paths: Sequence[Path],
    suffixes: tuple[str, ...] = (),
    excluded: Collection[Path] = (),
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[list[Path], list[Path]]:
    """Find the movies that files and folders stand for.

    `paths`: files and folders, which are taken as they are named, or in natural order if they are
    in the plain order of their names, as a shell sorts them; `suffixes`: of movies in folders, also
    packed (default: all that are read); `excluded`: files in folders that are not movies, such as
    a gain reference, and folders of results; `progress`: called with (movies found, None) for each
    file of a folder. Returned are `found`: each once; a folder that may not be read is in it too,
    to be reported when its turn comes; `inside`: those of them that are in folders and not named.
    """
    # A shell that is given a pattern sorts movie_10 before movie_2.
    in_turn = sorted(paths, key=natural_key) if list(paths) == sorted(paths) else paths
    found: list[Path] = []
    for named in in_turn:
        if named.is_dir():
            found += _movies_within(named, suffixes, excluded, progress)
        else:
            found.append(named)  # a missing file is reported when its turn comes
    every, named_ones = set(found), set(paths)
    # Later files of a recording are opened with its first one.
    found = [file for file in dict.fromkeys(found) if first_part(file) not in every]
    return found, [file for file in found if file not in named_ones and not file.is_dir()]


def _movies_within(
    folder: Path,
    suffixes: tuple[str, ...],
    excluded: Collection[Path],
    progress: Callable[[int, int | None], None] | None,
) -> list[Path]:
    """Return the movies of a folder and of all within by name, then folders that may not be read.

    Hidden files are skipped (other systems' ``._movie.mrc``, snapshots of file servers), and so are
    later files of a recording, which is opened with its first one. Links to other folders are not
    followed.
    """
    endings = with_packing(suffixes or (*SUFFIXES, *FOREIGN_SUFFIXES))
    other = {os.path.realpath(file) for file in excluded}
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
    return [*sorted(found, key=natural_key), *sorted(unread, key=natural_key)]


def session_of(
    paths: Sequence[Path],
    excluded: Collection[Path] = (),
    *,
    by_name: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[list[Path], str, dict[Path, str]]:
    """Find the movies of a session in order of acquisition.

    Single images in folders are left out: references, and sums where there are as many movies.
    Files that are named themselves are taken.

    `paths`, `excluded`: as `movies_of` takes them; `by_name`: sort by name where not all have a
    time, also if they were named in another order; `progress`: called with (movies done, movies or
    None) while they are looked for, and looked at. Returned are `movies`: sorted, followed by
    folders that may not be read; `order`: what their order is; `left_out`: images beside the
    movies, and results of KOMA among other movies, and why.
    """
    found, inside = movies_of(paths, (), excluded, progress)
    unread = [file for file in found if file.is_dir()]
    looks = looks_at([file for file in found if file not in unread], progress)
    left_out = images_beside({file: looks[file] for file in inside}, sums=False)
    done = {file for file, look in looks.items() if look is not None and look.is_normalised}
    if len(done) + len(left_out) < len(looks):
        left_out |= {file: DONE for file in inside if file in done}
    movies = [file for file in looks if file not in left_out]
    by_name = by_name or movies == sorted(movies, key=natural_key)
    times = [None if look is None else look.acquired for look in map(looks.get, movies)]
    movies, order = by_acquisition(movies, times, NAMES if by_name else GIVEN)
    return [*movies, *unread], order, left_out


def looks_at(
    paths: Sequence[Path], progress: Callable[[int, int | None], None] | None = None
) -> dict[Path, MovieInfo | None]:
    """Look at movies, and call `progress` with (movies looked at, movies)."""
    looks = {}
    for done, path in enumerate(paths):
        if progress is not None:
            progress(done, len(paths))
        looks[path] = look_at(path)
    return looks


def images_beside(looks: Mapping[Path, MovieInfo | None], *, sums: bool) -> dict[Path, str]:
    """Return the files that are not movies of a session but images beside them, and why.

    `looks`: files of folders, and what opening each shows; `sums`: take other single images than
    references for movies, and leave references out even if nothing else is there, as where the
    movies have been moved elsewhere. Otherwise single images are movies where they outnumber the
    movies: sums have sessions of their own.
    """
    known = {path: look for path, look in looks.items() if look is not None}
    single = {path: look for path, look in known.items() if look.shape[0] == 1}
    frames = {look.shape[1:] for path, look in known.items() if path not in single}
    named = [path for path in single if _has_name_of_reference(path)]
    # Files that cannot be opened count as movies of several frames.
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
    """Return whether a file is a reference: one image, so named or near 1."""
    look = look_at(path)
    if look is None or look.shape[0] != 1:
        return False
    return _has_name_of_reference(path) or (look.is_float and _is_near_one(path))


def _is_near_one(path: Path) -> bool:
    """Return whether the pixels of an image are near 1, as those of a gain reference."""
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
