"""Tables for other programs, CSV or Parquet, and what tables and figures need to be installed."""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_mrcz.errors import MrczError
from napari_mrcz.format.atomic import AtomicFile

if TYPE_CHECKING:
    from os import PathLike

    from napari_mrcz.correction.counting.events import Events

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


# Rows of Parquet that are compressed together; until there are so many they wait in memory.
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
        parquet = Path(path).suffix.lower() == ".parquet"
        self._rows: _Rows = _Parquet(self._file) if parquet else _Csv(self._file)

    def add(self, frame: int, events: Events) -> None:
        """Add the electrons of a frame."""
        self._rows.add(frame, events)

    def commit(self) -> None:
        """Finish the file and give it its name."""
        self._rows.close()
        self._file.commit()

    def __enter__(self) -> EventTable:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.discard()


class _Rows(Protocol):
    def add(self, frame: int, events: Events) -> None: ...

    def close(self) -> None: ...


class _Csv:
    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        file.write(f"{','.join(EVENT_COLUMNS)}\n".encode())

    def add(self, frame: int, events: Events) -> None:
        rows = zip(*(column.tolist() for column in events), strict=True)
        text = "".join(f"{frame},{y:.3f},{x:.3f},{charge:.1f}\n" for y, x, charge in rows)
        self._file.write(text.encode())

    def close(self) -> None:
        pass


class _Parquet:
    def __init__(self, file: AtomicFile) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        frame, *others = EVENT_COLUMNS
        self._schema = pa.schema([(frame, pa.int64()), *((name, pa.float32()) for name in others)])
        self._writer = pq.ParquetWriter(_Sink(file), self._schema)
        self._waiting: list[tuple[int, Events]] = []
        self._n_waiting = 0

    def add(self, frame: int, events: Events) -> None:
        self._waiting.append((frame, events))
        self._n_waiting += len(events)
        if self._n_waiting >= _ROWS:
            self._write()

    def close(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        frames = [np.full(len(events), frame, np.int64) for frame, events in self._waiting]
        others = zip(*(events for _, events in self._waiting), strict=True)
        columns = [np.concatenate(parts) for parts in (frames, *others)]
        self._writer.write_table(pa.table(columns, schema=self._schema))
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
