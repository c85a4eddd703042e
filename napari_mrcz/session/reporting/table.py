"""The findings as a table for other programs: CSV or Parquet, a row a movie."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.session.reporting.findings import MovieRow
from napari_mrcz.session.tables import check_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

_TYPES = {"int": "int64", "float": "float64", "bool": "bool_", "str": "string", "tuple": "string"}


def write_table(
    path: str | PathLike[str], movies: Sequence[MovieRow], *, overwrite: bool = False
) -> None:
    """Write a table by the suffix of its name: .csv or .parquet; all or nothing.

    Parameters
    ----------
    path : path-like
        The file.
    movies : sequence of MovieRow
        Its rows; its columns are the attributes. What is not known is empty, or null; warnings
        are sentences in one text.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    MrczError
        If the suffix is another, the file exists, or what it needs is not installed.
    """
    check_table(path)
    content = _parquet(movies) if Path(path).suffix.lower() == ".parquet" else _csv(movies)
    with AtomicFile(path, overwrite=overwrite) as file:
        file.write(content)
        file.commit()


def _csv(movies: Sequence[MovieRow]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(MovieRow)])
    writer.writeheader()
    writer.writerows(map(_row, movies))
    return text.getvalue().encode(errors="backslashreplace")


def _parquet(movies: Sequence[MovieRow]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Of the annotations: a column of which nothing is known has its type all the same.
    types = {
        f.name: getattr(pa, _TYPES[re.split(r"\W", str(f.type))[0]])() for f in fields(MovieRow)
    }
    sink = pa.BufferOutputStream()
    rows = [{name: _encodable(value) for name, value in _row(m).items()} for m in movies]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(types)), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _row(movie: MovieRow) -> dict[str, Any]:
    return {**asdict(movie), "warnings": " ".join(movie.warnings)}


def _encodable(value: Any) -> Any:
    """Return a text as it can be written: names of files need not be of the system's encoding."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
