"""The order in which movies were acquired: by the times that all of them have, or by their names.

Times stand in what the programs at the microscope write with or beside a movie, which is kept in
its metadata: SerialEM's mdoc, EPU's XML, the tags of Digital Micrograph, FEI's extended header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from napari_mrcz.errors import collected_warnings
from napari_mrcz.naming import natural_key
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
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
# Years in which movies are recorded; a number beyond is no time.
_FIRST, _LAST = datetime(1990, 1, 1), datetime(2100, 1, 1)


Movie = TypeVar("Movie")


class Dated(Protocol):
    """What says when a movie was acquired."""

    @property
    def acquired(self) -> datetime | None:
        """The time; None if it is not known."""


@dataclass(frozen=True)
class MovieInfo:
    """What a look at a movie tells before any frame is decoded.

    Attributes
    ----------
    shape : tuple of int
        Frames, rows, columns.
    is_float : bool
        Whether its pixels are floating numbers.
    acquired : datetime or None
        When, where its metadata says so.
    is_normalised : bool
        Whether it was corrected by KOMA before.
    """

    shape: tuple[int, int, int]
    is_float: bool
    acquired: datetime | None
    is_normalised: bool = False


def look_at(path: str | PathLike[str]) -> MovieInfo | None:
    """Return what a look at a movie tells; None where it cannot be opened, for whatever reason."""
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

    Parameters
    ----------
    movies : sequence of path-like
        Anything else where they stay as they come.
    looks : iterable of MovieInfo or None
        What is known of each.
    otherwise : str
        Their order where the times of some are not known: `NAMES`, or what is said where they
        stay as they come.

    Returns
    -------
    sorted : list
        The movies; those of one time in the other order.
    order : str
        Which order that is: `TIMES`, or `otherwise`.
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
