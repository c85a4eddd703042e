"""Tables for other programs, CSV or Parquet, and the packages that tables and figures need."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import MrczError
from napari_mrcz.format.atomic import AtomicFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from napari_mrcz.correction.counting.events import Events
    from napari_mrcz.session.report import MovieRow

TABLE_SUFFIXES = (".csv", ".parquet")
EVENT_COLUMNS = {
    "frame": "Frame in which the electron struck, from 0.",
    "y": "Row where it struck, in pixels of the detector; the middle of the first pixel is 0.",
    "x": "Column where it struck, in the same way.",
    "charge": "Charge that it left, in grey values.",
}
"""Columns of a table of electrons, and what is in them."""


def check_table(path: str | PathLike[str]) -> None:
    """Check that a table of this name can be written.

    Raise `MrczError` if its suffix is another, or what it needs is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise MrczError(path, f"a table as {suffix or 'no type'}", advice="Write .csv or .parquet")
    if suffix == ".parquet":
        need_installed("pyarrow.parquet", "Parquet", path, otherwise=", or write a .csv")


def need_installed(
    module: str, what: str, path: str | PathLike[str] | None = None, *, otherwise: str = ""
) -> None:
    """Check that a module of the extra ``report`` can be imported.

    `what`: what needs it, for the file `path`; `otherwise`: further advice. Raise `MrczError` if
    it is not installed.
    """
    try:
        import_module(module)
    except ImportError as error:
        found = f"{what} needs {module.partition('.')[0]}"
        advice = f"pip install 'napari-mrcz[report]'{otherwise}"
        raise MrczError(path, found, advice=advice) from error


# Rows that are written together (and compressed, as Parquet); until then they wait in memory.
_ROWS = 2**18


class EventTable:
    """A table that electrons are added to frame by frame; a file only after `commit`.

    Its columns are `EVENT_COLUMNS`. An electron is in the pixel floor((y + 0.5) s),
    floor((x + 0.5) s) of counts of the super-resolution s.

    `path`: the file, .csv or .parquet; `overwrite`: replace an existing one. Raise `MrczError` if
    it cannot be written.
    """

    def __init__(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        check_table(path)
        self._file = AtomicFile(path, overwrite=overwrite)
        self._waiting: list[tuple[int, Events]] = []
        self._n_waiting = 0
        self._parquet: Any = None
        if Path(path).suffix.lower() == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            frame, *others = EVENT_COLUMNS
            schema = pa.schema([(frame, pa.int64()), *((name, pa.float32()) for name in others)])
            self._parquet = pq.ParquetWriter(_Sink(self._file), schema)
        else:
            self._file.write(f"{','.join(EVENT_COLUMNS)}\n".encode())

    def add(self, frame: int, events: Events) -> None:
        """Add the electrons of a frame."""
        self._waiting.append((frame, events))
        self._n_waiting += len(events)
        if self._n_waiting >= _ROWS:
            self._write()

    def commit(self) -> None:
        """Finish the file and give it its name."""
        self._write()
        if self._parquet is not None:
            self._parquet.close()
        self._file.commit()

    def __enter__(self) -> EventTable:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.discard()

    def _write(self) -> None:
        """Write the electrons that wait in memory."""
        if not self._waiting:
            return
        frames = [np.full(len(events), frame, np.int64) for frame, events in self._waiting]
        others = zip(*(events for _, events in self._waiting), strict=True)
        columns = [np.concatenate(parts) for parts in (frames, *others)]
        if self._parquet is not None:
            import pyarrow as pa

            self._parquet.write_table(pa.table(columns, schema=self._parquet.schema))
        else:
            rows = zip(*(column.tolist() for column in columns), strict=True)
            text = "".join(f"{t},{y:.3f},{x:.3f},{charge:.1f}\n" for t, y, x, charge in rows)
            self._file.write(text.encode())
        self._waiting, self._n_waiting = [], 0


class _Sink(io.RawIOBase):
    """The file as pyarrow writes to it."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(memoryview(data))
        return memoryview(data).nbytes

    def tell(self) -> int:
        return self._file.tell()


_TYPES = {"int": "int64", "float": "float64", "bool": "bool_", "str": "string", "tuple": "string"}


def write_table(
    path: str | PathLike[str], movies: Sequence[MovieRow], *, overwrite: bool = False
) -> None:
    """Write a table of movies, .csv or .parquet, all or nothing.

    `movies`: the rows; the columns are their attributes. Unknown values are empty, or null;
    warnings are joined. Raise `MrczError` as `check_table` does, or if the file exists and is not
    to be replaced.
    """
    check_table(path)
    content = _parquet(movies) if Path(path).suffix.lower() == ".parquet" else _csv(movies)
    with AtomicFile(path, overwrite=overwrite) as file:
        file.write(content)
        file.commit()


def _csv(movies: Sequence[MovieRow]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(movies[0])])
    writer.writeheader()
    writer.writerows(map(_table_row, movies))
    return text.getvalue().encode()


def _parquet(movies: Sequence[MovieRow]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Of the annotations: a column of which nothing is known has its type all the same.
    types = {
        f.name: getattr(pa, _TYPES[re.split(r"\W", str(f.type))[0]])() for f in fields(movies[0])
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([*map(_table_row, movies)], pa.schema(types)), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _table_row(movie: MovieRow) -> dict[str, Any]:
    row = {**asdict(movie), "warnings": " ".join(movie.warnings)}
    # Names of files need not be of the system's encoding.
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }
