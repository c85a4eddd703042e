"""Messages while files are worked on, and the table of what was done to each.

A bar on a terminal, plain lines above it and elsewhere. All that is written goes through here, so
that no line ends up within the bar. The table (``--manifest``) is whole whenever it is read.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from napari_mrcz.errors import MrczError, counted, failure_text, printable, size_text
from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES, docs_url, path_of, without_packing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_mrcz.session.tasks import Outcome

# Of the files that failed; each was named before, when it failed.
_MOST_NAMED = 10
# Seconds between two drawings of the bar, and before the first of work that is often quick.
_DRAWN, _SILENT = 0.1, 1.0
# The console of the bar that is on the terminal.
_console: Any = None
# The log of all messages, and whether only problems are shown.
_log: Any = None
_quiet = False
_HEAD_NBYTES = 1024


@contextmanager
def listening(log: Path | None, *, quiet: bool) -> Iterator[None]:
    """Append the messages of a block to a log, each with the time; show only problems if quiet.

    Raise `MrczError` if the log cannot be opened, or at the end if it could not be written.
    """
    global _log, _quiet
    before = _log, _quiet
    with nullcontext() if log is None else _opened_log(log) as _log:
        _quiet = quiet
        try:
            yield
        except KeyboardInterrupt:
            note("napari-mrcz: interrupted")
            raise
        except Exception as error:
            if not isinstance(error, RuntimeError):  # click's way to end
                note(f"napari-mrcz: {failure_text(error)}")
            raise
        finally:
            _log, _quiet = before


@contextmanager
def _opened_log(log: Path) -> Iterator[TextIO]:
    """Open a log to append to it; work goes on while it cannot be written.

    Raise `MrczError` if it is a movie, or anything else that is not text: it would be damaged.
    """
    try:
        file = _text_to_append_to(log)
    except OSError as error:
        raise MrczError(log, f"cannot be opened: {failure_text(error)}") from error
    try:
        yield file
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    try:
        file.close()
    except OSError as error:
        found = f"messages are missing at its end: {failure_text(error)}"
        raise MrczError(log, found, advice="All else was done") from error


def _text_to_append_to(log: Path) -> TextIO:
    name = without_packing(Path(os.path.realpath(log))).suffix.lower()
    if log.is_file() and log.stat().st_size:
        with log.open("rb") as file:
            is_text = b"\0" not in file.read(_HEAD_NBYTES)
        if not is_text or name in (*SUFFIXES, *FOREIGN_SUFFIXES):
            found = "is not a log, but a file of another kind"
            raise MrczError(log, found, advice="Choose another name")
    return log.open("a", encoding="utf-8", errors="replace")


def note(line: str) -> None:
    """Write a line to the log, if there is one."""
    if _log is not None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with suppress(OSError):
            _log.write(f"{now} {printable(line)}\n")
            _log.flush()


def say(line: str, *, always: bool = False) -> None:
    """Write a line to the standard error; if that fails (full disk, closed pipe), work goes on.

    `line`: control characters, as in the names of files, are escaped; `always`: also with --quiet.
    """
    note(line)
    if _quiet and not always:
        return
    try:
        _write(printable(from_here(line)), sys.stderr)
    except OSError:
        forget(sys.stderr)


def from_here(line: str) -> str:
    """Return a line with paths in the current folder as they would be typed there."""
    try:
        here = os.getcwd().rstrip(os.sep)
    except OSError:  # it was removed
        return line
    return re.sub(rf"(?<!\S){re.escape(here + os.sep)}(?=\S)", "", line)


def write(*lines: str) -> None:
    """Write lines of data to the standard output; raise `OSError` if it cannot be written."""
    for line in lines:
        _write(printable(line), sys.stdout)


def say_error(error: str) -> None:
    """Write an error; the library's word for replacing a file becomes the option's."""
    say(f"napari-mrcz: {as_option(error)}", always=True)


def say_warning(warning: str) -> None:
    """Write a warning, also with --quiet."""
    say(f"napari-mrcz: warning: {warning}", always=True)


def as_option(error: str, *, skips: bool = False) -> str:
    """Return an error with the options in the place of the library's word for replacing a file.

    `skips`: whether the command can skip files that exist; all that write can replace them.
    """
    options = "have it replaced (--overwrite)"
    if skips:
        options = "have it replaced (--overwrite) or skipped (--skip-existing)"
    return error.replace("have it replaced (overwrite)", options)


def forget(stream: Any) -> None:
    """Redirect a stream that cannot be written to nowhere, as Python flushes it at the end."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _write(line: str, stream: Any) -> None:
    if _console is not None and stream.isatty():
        _console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
    else:
        stream.write(f"{line}\n")
        stream.flush()


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """Return a function that takes (what, done, of how many); on a terminal it draws a bar."""
    global _console
    if _quiet or not sys.stderr.isatty():
        yield lambda what, done, of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    name = TextColumn("{task.description}", markup=False)
    progress = Progress(
        name,
        BarColumn(),
        MofNCompleteColumn(),
        TimeLeft(),
        console=Console(stderr=True),
        transient=True,
        # Drawn when something is shown: it takes no thread, of which there may be none left.
        auto_refresh=False,
        redirect_stdout=False,
    )
    one = progress.add_task("", total=None, visible=False)
    drawn = 0.0

    def advance(what: str, done: int, of: int) -> None:
        nonlocal drawn
        progress.update(
            one, description=printable(what), completed=done, total=of or None, visible=True
        )
        if (now := time.monotonic()) > drawn + _DRAWN:
            drawn = now
            progress.refresh()

    try:
        with progress:
            _console = progress.console
            yield advance
    finally:
        _console = None
        progress.console.show_cursor(True)  # an interrupt may have come when it was to be shown


@contextmanager
def late_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Return a function that takes (done, of how many); after a second it draws a bar."""
    with ExitStack() as drawn:
        began = time.monotonic()
        advance: Callable[[str, int, int], None] | None = None

        def late(done: int, of: int | None) -> None:
            nonlocal advance
            if advance is None and time.monotonic() >= began + _SILENT:
                advance = drawn.enter_context(bar())
            if advance is not None:
                advance(what, done, of or 0)

        yield late


def tell_outcomes(
    outcomes: Iterable[Outcome], verb: str, *, as_json: bool = False, skips: bool = False
) -> int:
    """Print each outcome as it comes, and in the end how many there were; return the exit status.

    `outcomes`: one per file; `verb`: what was done, such as "compressed"; `as_json`: write a JSON
    object per file, and nothing else, to the standard output; `skips`: as in `as_option`.
    """
    done: list[Outcome] = []
    told: set[str] = set()
    for outcome in outcomes:
        done.append(outcome)
        tell_outcome(outcome, told, as_json=as_json, skips=skips)
    failed = [outcome for outcome in done if not outcome.ok]
    if len(done) > 1:
        say(_summary(done, failed, verb))
    if any(outcome.warnings for outcome in done):
        say(f"what to do about warnings: {docs_url('quality.md')}")
    return 1 if failed else 0


def tell_outcome(
    outcome: Outcome, told: set[str], *, as_json: bool, skips: bool = False, **more: str
) -> None:
    """Print the outcome of one file, as `tell_outcomes` does.

    `told`: as in `tell_warnings`; `more`: what to add to the JSON object.
    """
    outcome = replace(outcome, error=as_option(outcome.error, skips=skips))
    tell_warnings(outcome, told)
    if as_json:
        write(json.dumps({**more, **outcome.as_dict()}))
    if not outcome.ok:
        say_error(outcome.error)
    elif as_json:
        note(outcome_text(outcome))
    else:
        say(outcome_text(outcome), always=bool(outcome.kept))


def tell_warnings(outcome: Outcome, told: set[str]) -> None:
    """Print each warning of a file once, also with --quiet.

    `told`: warnings of the whole session that were printed with other files; those of this file are
    added.
    """
    for warning in dict.fromkeys(outcome.warnings):
        where = "" if warning in outcome.shared else f"{outcome.source}: "
        if where or warning not in told:
            say_warning(f"{where}{warning}")
        told |= {warning} & set(outcome.shared)


def outcome_text(outcome: Outcome) -> str:
    """Return a line for a file that was done."""
    line = path_of(outcome.source).name
    if outcome.target:
        line += f" -> {outcome.target}"
    if outcome.target_nbytes:
        line += f": {_sizes_text(outcome.source_nbytes, outcome.target_nbytes)}"
        # Only what is planned took no time.
        line += f", {outcome.seconds:.1f} s" if outcome.seconds else ", estimated"
    return "; ".join([line, *outcome.notes])


def _sizes_text(before: int, after: int) -> str:
    """Return two sizes, and how much smaller or larger a file has become."""
    if 0.995 * before <= after <= 1.005 * before:
        how = "as large"
    elif after > before > 0:
        how = f"{after / before:.3g} times larger"
    else:
        how = f"{before / after:.3g} to 1"
    return f"{size_text(before)} -> {size_text(after)} ({how})"


def _summary(done: list[Outcome], failed: list[Outcome], verb: str) -> str:
    good = [outcome for outcome in done if outcome.ok]
    line = f"{len(good)} of {len(done)} files {verb}"
    if skipped := sum(outcome.skipped for outcome in good):
        line += f" ({skipped} of them there already)"
    if warned := sum(bool(outcome.warnings) for outcome in good):
        line += f", {warned} with warnings"
    before = sum(outcome.source_nbytes for outcome in good)
    after = sum(outcome.target_nbytes for outcome in good)
    if before and after:
        line += f", {_sizes_text(before, after)}"
    if kept := sum(bool(outcome.kept) for outcome in good):
        line += f"; {counted(kept, 'source')} kept"
    if failed:
        named = ", ".join(path_of(outcome.source).name for outcome in failed[:_MOST_NAMED])
        more = len(failed) - _MOST_NAMED
        line += f"; failed: {named}" + (f" and {more} more" if more > 0 else "")
    return line


_COLUMNS = tuple(
    "source target ok skipped source_nbytes target_nbytes source_sha256 target_sha256"
    " seconds error kept notes warnings".split()
)
# Seconds after which what was done until then is written.
_BETWEEN = 30.0


@contextmanager
def recorded(
    path: Path | None, *, overwrite: bool = False, continued: bool = False
) -> Iterator[Callable[[Outcome], Outcome]]:
    """Return a function that takes outcomes for the table and returns them.

    The table is written now and then, and when the block ends, also by an error.

    `path`: the table, .csv or .jsonl; None for none; `overwrite`: replace an existing one;
    `continued`: keep the rows that an existing one has of other files. Raise `MrczError` if it
    exists and may not be replaced, is not such a table, or cannot be written.
    """
    if path is None:
        yield lambda outcome: outcome
        return
    from napari_mrcz.format.atomic import AtomicFile, check_target, write_file

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if not continued:
        check_target(path, overwrite=overwrite)
    there = _read(path) if path.exists() and path.stat().st_size else []
    if continued:
        rows = {(row["source"], row["target"]): row for row in there}
    AtomicFile(path, overwrite=True).discard()  # the folder may be read-only
    last = time.monotonic()

    def write() -> None:
        write_file(path, _packed(path, list(rows.values())), overwrite=True)

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
            if tuple(table.fieldnames or ()) != _COLUMNS:
                raise ValueError("other columns")
            rows = list(table)
        return [{name: row[name] for name in _COLUMNS} for row in rows]
    except OSError as error:
        raise MrczError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        found, advice = "is not a table of files as --manifest writes it", "Choose another name"
        raise MrczError(path, found, advice=advice) from error
