"""Which files of folders are the movies of a session, and in which order they were acquired.

The order is that of the times that all of them have, or of their names. Times stand in what the
programs at the microscope write with or beside a movie, which is kept in its metadata: SerialEM's
mdoc, EPU's XML, the tags of Digital Micrograph, FEI's extended header. A gain reference, a dark or
a sum often lies in the folder of a session: a file of one image, which is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from napari_mrcz.errors import collected_warnings
from napari_mrcz.naming import (
    FOREIGN_SUFFIXES,
    SUFFIXES,
    natural_key,
    with_packing,
    without_packing,
)
from napari_mrcz.stack import open as open_stack
from napari_mrcz.stack.raw_frames import first_part

if TYPE_CHECKING:
    from os import PathLike


TIMES, NAMES = "by acquisition time", "by name"
GIVEN, ARRIVED = "as given", "by arrival"
"""What is said of an order."""

# In the order in which they are believed; letters and digits alone, in lower case.
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


class Dated(Protocol):
    """What says when a movie was acquired."""

    @property
    def acquired(self) -> datetime | None:
        """The time; None if it is not known."""


@dataclass(frozen=True)
class MovieInfo:
    """What a look at a movie shows before any frame is decoded."""

    shape: tuple[int, int, int]  # Frames, rows, columns
    is_float: bool  # Whether its pixels are floating numbers
    acquired: datetime | None  # When, where its metadata says so
    is_normalised: bool = False  # Whether it was corrected by KOMA before


def look_at(path: str | PathLike[str]) -> MovieInfo | None:
    """Return what a look at a movie shows; None where it cannot be opened, for whatever reason."""
    with collected_warnings():  # they come when its turn does, and so does what is wrong
        try:
            with open_stack(path, read_ahead=False) as movie:
                done = any(step.get("name") == "KomaNormalization" for step in movie.history)
                is_float, acquired = movie.dtype.kind == "f", acquired_at(movie.metadata)
                return MovieInfo(movie.shape, is_float, acquired, done)
        except (OSError, ValueError, ImportError, MemoryError):
            return None


def by_acquisition(
    movies: Sequence[Movie], looks: Iterable[Dated | None], otherwise: str = NAMES
) -> tuple[list[Movie], str]:
    """Sort movies as they were acquired.

    `movies`: anything else where they stay as they come; `looks`: what is known of each;
    `otherwise`: their order where the times of some are not known: `NAMES`, or what is said where
    they stay as they come. Returned are `sorted`: the movies; those of one time in the other order;
    `order`: which order that is: `TIMES`, or `otherwise`.
    """
    times = [None if look is None else look.acquired for look in looks]
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
    for name, value in _told(metadata):
        value = value.tolist() if hasattr(value, "tolist") else value  # one per frame
        for time in map(_time, value if isinstance(value, list | tuple) else (value,)):
            if time is not None and _FIRST <= time.replace(tzinfo=None) <= _LAST:
                found.setdefault(name, []).append(time)
    for name in _NAMES:
        if times := found.get(name):
            return min(times, key=lambda time: time.replace(tzinfo=None))
    return None


def _told(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return all that may be a time, by its plain name."""
    plain = {re.sub(r"[^a-z0-9]", "", str(key).lower()): value for key, value in metadata.items()}
    for name, value in plain.items():
        if name == "acquisitiondate" and isinstance(value, str):
            yield name, f"{value} {plain.get('acquisitiontime', '')}".strip()
        elif name in _NAMES:
            yield name, value
        yield from _within(value)


def _within(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from _told(value)
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
"""What is said of files that are not movies."""

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

    What is hidden is skipped (other systems' ``._movie.mrc``, snapshots of file servers), and
    so are later files of a recording, which is opened with its first one.

    `folder`: links to other folders are not followed; `suffixes`: of the movies, also packed; those
    of all formats that are read where there are none; `besides`: files that are not movies, such as
    a gain reference, and folders of results; `progress`: called with (movies found, None) for each
    file that is met. Returned are `movies`: in natural order of their names: movie_2 before
    movie_10; `unread`: folders that may not be read.
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

    `paths`: files, which are taken as they are named, and folders. In plain order of their names,
    as a shell has them, they are taken in natural order; `suffixes`, `besides`, `progress`: of
    movies in folders, as `movies_within` takes them. Returned are `found`: each once; a folder that
    may not be read is in it too, to be reported when its turn comes; `inside`: those of them that
    folders have and nobody named.
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

    `paths`: files and folders; `besides`: files that are not movies, such as a gain reference, and
    folders of results; `by_name`: sort by name where not all have a time, also if they were named
    in another order; `progress`: called with (movies done, movies or None) while they are looked
    for, and looked at. Returned are `movies`: as `order.by_acquisition` sorts them, followed by
    folders that may not be read; `order`: what is known of the order; `left_out`: images beside the
    movies, and what they are taken for; results of KOMA among other movies.
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

    `paths`: the movies; `progress`: called with (movies looked at, movies).
    """
    looks = {}
    for done, path in enumerate(paths):
        if progress is not None:
            progress(done, len(paths))
        looks[path] = look_at(path)
    return looks


def images_beside(looks: Mapping[Path, MovieInfo | None], *, sums: bool) -> dict[Path, str]:
    """Find the files that are not movies of a session but images beside them.

    `looks`: files of folders, and what a look at each shows; `sums`: whether other single images
    than references are movies, too, and references are left out even where nothing else is there,
    as where the movies have been moved elsewhere. Otherwise single images are movies where they are
    more than the movies: sums have sessions of their own. The result: `REFERENCE` or `SINGLE` of
    each.
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
