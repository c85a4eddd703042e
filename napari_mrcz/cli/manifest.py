"""The table of what was done to each file: sizes, checksums, errors. Whole whenever it is read."""

from __future__ import annotations

import csv
import io
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_mrcz.session.tasks import Outcome

_COLUMNS = (
    "source",
    "target",
    "ok",
    "skipped",
    "source_nbytes",
    "target_nbytes",
    "source_sha256",
    "target_sha256",
    "seconds",
    "error",
    "kept",
    "notes",
    "warnings",
)
# Of tables of earlier versions.
_FIRST_COLUMNS = _COLUMNS[:-1]
# Seconds after which what was done until then is written.
_BETWEEN = 30.0


@contextmanager
def recorded(
    path: Path | None, *, overwrite: bool = False, continued: bool = False
) -> Iterator[Callable[[Outcome], Outcome]]:
    """Return a function that takes outcomes for the table and returns them.

    The table is written now and then, and in the end, however that comes.

    Parameters
    ----------
    path : Path or None
        The table, .csv or .jsonl; None for none.
    overwrite : bool
        Replace an existing one.
    continued : bool
        Keep the rows of an existing one that are of other files.

    Raises
    ------
    MrczError
        If it exists and may not be replaced, is another file than such a table, or cannot be
        written or continued.
    """
    if path is None:
        yield lambda outcome: outcome
        return
    from napari_mrcz.format.atomic import AtomicFile, check_target

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if not continued:
        check_target(path, overwrite=overwrite)
    there = _read(path) if path.exists() and path.stat().st_size else []
    if continued:
        rows = {(row["source"], row["target"]): row for row in there}
    AtomicFile(path, overwrite=True).discard()  # the folder may be read-only
    last = time.monotonic()

    def write() -> None:
        with AtomicFile(path, overwrite=True) as file:
            file.write(_packed(path, list(rows.values())))
            file.commit()

    def take(outcome: Outcome) -> Outcome:
        nonlocal last
        row = outcome.as_dict()
        rows[outcome.source, outcome.target] = {name: row[name] for name in _COLUMNS}
        if time.monotonic() - last > _BETWEEN:
            write()
            last = time.monotonic()
        return outcome

    try:
        yield take
    finally:
        write()


def _packed(path: Path, rows: list[dict[str, Any]]) -> bytes:
    if path.suffix.lower() == ".jsonl":
        return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        texts = {k: "; ".join(v) for k, v in row.items() if isinstance(v, list | tuple)}
        table.writerow({**row, **texts})
    return text.getvalue().encode("utf-8", "surrogateescape")


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of ours."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines()]
        else:
            table = csv.DictReader(io.StringIO(text, newline=""))
            if tuple(table.fieldnames or ()) not in (_COLUMNS, _FIRST_COLUMNS):
                raise ValueError("other columns")
            rows = list(table)
        return [
            {name: row[name] if name in _FIRST_COLUMNS else row.get(name, "") for name in _COLUMNS}
            for row in rows
        ]
    except OSError as error:
        raise MrczError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        found, advice = "is not a table of files as --manifest writes it", "Choose another name"
        raise MrczError(path, found, advice=advice) from error
