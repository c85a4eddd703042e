"""Errors, numbers, sizes and times as a person reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.errors import MrczError, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MINUS",
    "block_text",
    "counted",
    "error_text",
    "failure_text",
    "listed",
    "printable",
    "size_text",
    "time_text",
    "with_minus",
]

# Of numbers and their units, and between columns.
_SPACES = "\u00a0\u2007\u2009\u202f"
MINUS = "\N{MINUS SIGN}"


def error_text(error: BaseException) -> str:
    """Return an error as a sentence or two, of a path only the file's name."""
    text = failure_text(error) if is_out_of_memory(error) else str(error)
    path = getattr(error, "path", None)
    if path:
        text = text.replace(path, Path(path).name, 1)
    else:
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def failure_text(error: BaseException) -> str:
    """Return any error as part of a line: without the system's number for it."""
    if isinstance(error, MrczError):
        return str(error)
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return "not enough memory for a thread, or the system lends no more of them (ulimit -u)"
    if is_out_of_memory(error):
        return f"not enough memory ({error})" if str(error) else "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}"
    return str(error) or type(error).__name__


def counted(count: int, noun: str) -> str:
    """Return a number of things: "1 frame", "2 frames"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(items: Sequence[object], most: int = 10, separator: str = ", ") -> str:
    """Return items one after the other, "..." in the place of those that are too many."""
    named = [str(item) for item in items[:most]]
    return separator.join(named + ["..."] * (len(items) > most))


def printable(text: str) -> str:
    """Return a text, such as a file's name, with control characters escaped."""
    shown = (
        c if c.isprintable() or c in _SPACES else c.encode("unicode_escape").decode() for c in text
    )
    return "".join(shown)


def with_minus(number: str) -> str:
    """Give a number that was formatted, its hyphens made minus signs."""
    return number.replace("-", MINUS)


def size_text(nbytes: float) -> str:
    """Give a size in a unit that suits it, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def block_text(nbytes: int) -> str:
    """Give a block size, in powers of 1024 as blosc counts."""
    return f"{nbytes / 2**10:.3g} KiB" if nbytes < 2**20 else f"{nbytes / 2**20:.3g} MiB"


def time_text(seconds: float) -> str:
    """Give a time in a unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
