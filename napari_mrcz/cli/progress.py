"""What is told while files are worked on: a bar on a terminal, plain lines above it and elsewhere.

All that is written goes through here, so that no line ends up within the bar.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.texts import printable, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_mrcz.batch import Outcome

__all__ = ["bar", "forget", "outcome_text", "say", "say_error", "tell_outcomes", "write"]

# Seconds between two pictures of the bar.
_BETWEEN = 0.1
# The console of the bar that is on the terminal.
_console: Any = None


def say(line: str) -> None:
    """Write a line to the standard error; one line it stays, whatever is in the name of a file.

    Where nobody can read it (a full disk, a closed pipe), the work goes on.
    """
    try:
        _write(printable(line), sys.stderr)
    except OSError:
        forget(sys.stderr)


def write(*lines: str) -> None:
    """Write lines of data to the standard output.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    for line in lines:
        _write(printable(line), sys.stdout)


def say_error(error: str) -> None:
    """Write an error; the library's word for replacing a file becomes the option's."""
    # Every command that writes files has this option.
    named = error.replace("have it replaced (overwrite)", "have it replaced (--overwrite)")
    say(f"napari-mrcz: {named}")


def forget(stream: Any) -> None:
    """Have a standard stream that cannot be written lead nowhere: Python flushes it at the end."""
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
    """Give a function that takes (what, done, of how many); on a terminal it draws a bar."""
    global _console
    if not sys.stderr.isatty():
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
        # Drawn when something is to be told: it takes no thread, of which there may be none left.
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
        if (now := time.monotonic()) > drawn + _BETWEEN:
            drawn = now
            progress.refresh()

    try:
        with progress:
            _console = progress.console
            yield advance
    finally:
        _console = None
        progress.console.show_cursor(True)  # an interrupt may have come when it was to be shown


def tell_outcomes(outcomes: Iterable[Outcome], verb: str, *, as_json: bool = False) -> int:
    """Tell each outcome as it comes, and in the end how many there were; give the exit status.

    Parameters
    ----------
    outcomes : iterable of Outcome
        One a file.
    verb : str
        What was done to them, such as "compressed".
    as_json : bool
        Write a JSON object a file to the standard output, and nothing else there.
    """
    done: list[Outcome] = []
    for outcome in outcomes:
        done.append(outcome)
        if as_json:
            write(json.dumps(outcome.as_dict()))
        elif outcome.ok:
            say(outcome_text(outcome))
        if not outcome.ok:
            say_error(outcome.error)
    failed = [outcome for outcome in done if not outcome.ok]
    if len(done) > 1:
        say(_summary(done, failed, verb))
    return 1 if failed else 0


def outcome_text(outcome: Outcome) -> str:
    """Give a line for a file that was done."""
    line = f"{Path(outcome.source).name}"
    if outcome.target:
        line += f" -> {outcome.target}"
    if outcome.target_nbytes:
        sizes = _sizes_text(outcome.source_nbytes, outcome.target_nbytes)
        line += f": {sizes}, {outcome.seconds:.1f} s"
    return "; ".join([line, *outcome.notes])


def _sizes_text(before: int, after: int) -> str:
    """Give two sizes, and how much smaller or larger a file has become."""
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
    before = sum(outcome.source_nbytes for outcome in good)
    after = sum(outcome.target_nbytes for outcome in good)
    if before and after:
        line += f", {_sizes_text(before, after)}"
    if failed:
        line += "; failed: " + ", ".join(Path(outcome.source).name for outcome in failed)
    return line
