"""Errors and warnings, and how they, numbers, sizes and times are worded for a person."""

from __future__ import annotations

import copyreg
import errno
import mmap
import sys
import threading
import warnings
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


AnyPath: TypeAlias = str | PathLike[str]


class MrczError(ValueError):
    """A file (or what should become one) that cannot be used as it is.

    Parameters
    ----------
    path : path-like or None
        The file concerned; None where there is none.
    found : str
        What was found, as a sentence without its full stop.
    offset : int, optional
        Byte of the file at which it was found.
    frame : int, optional
        Index of the frame concerned, counted from 0.
    advice : str, optional
        What to do about it, as a sentence.
    """

    def __init__(
        self,
        path: AnyPath | None,
        found: str,
        *,
        offset: int | None = None,
        frame: int | None = None,
        advice: str = "",
    ) -> None:
        self.path = None if path is None else fspath(path)
        self.found = found
        self.offset = offset
        self.frame = frame
        self.advice = advice
        where = "" if self.path is None else f"{self.path}: "
        which = "" if frame is None else f"frame {frame}: "
        at = "" if offset is None else f" (at byte {offset})"
        then = f". {advice}" if advice else ""
        super().__init__(f"{where}{which}{found}{at}{then}")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling of exceptions.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class NotEnoughMemory(MrczError, MemoryError):
    """Too little memory for the work on a file; nothing is known to be wrong with the file.

    `path`: the file concerned; None where there is none; `what`: what the memory was for, such as
    "a frame of 67.1 MB"; `where`: offset, frame and advice, as for `MrczError`.
    """

    def __init__(self, path: AnyPath | None, what: str, **where: Any) -> None:
        super().__init__(path, f"not enough memory for {what}", **where)
        self.what = what


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or what led to it, is an allocation that failed.

    Not every library raises MemoryError: the system refuses memory for a thread, a mapped file or
    a shared library in its own ways.
    """
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if type(error).__name__ == "ZstdError" and "not enough memory" in str(error):
            return True
        if isinstance(error, RuntimeError) and str(error).startswith("can't start new thread"):
            return True
        if isinstance(error, ImportError) and any(said in str(error) for said in _UNLOADABLE):
            return True
        error = error.__cause__
    return False


# What the dynamic loader says of a shared library that finds no room.
_UNLOADABLE = ("annot allocate memory", "failed to map segment", "cannot create shared object")


def has_room(nbytes: int) -> bool:
    """Return whether this process could allocate so much now, by doing it for a moment.

    Not through `malloc`, which keeps what is given back to it.
    """
    try:
        if hasattr(mmap, "MAP_ANONYMOUS"):
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            mmap.mmap(-1, max(1, nbytes), flags).close()
        else:
            mmap.mmap(-1, max(1, nbytes)).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return True


def check_room_to_import(name: str, nbytes: int) -> None:
    """Check that there is memory to import a package that else ends, or hangs, the process.

    OpenBLAS, which comes with numpy and scipy, does so if it finds none while it is loaded.

    `name`: of the package; nothing is checked if it is imported already; `nbytes`: what it takes,
    its libraries' own buffers included. Raise `NotEnoughMemory` if there is not enough.
    """
    if name not in sys.modules and not has_room(nbytes):
        raise NotEnoughMemory(None, f"{name}, which takes {size_text(nbytes)}")


class MrczWarning(UserWarning):
    """Something in a file is wrong or lost, but its pixels are intact."""


class _Collecting(threading.local):
    messages: list[str] | None = None


_collecting = _Collecting()


def warn(message: str) -> None:
    """Issue an `MrczWarning` at the line outside this package that led to it."""
    if _collecting.messages is not None:
        _collecting.messages.append(message)
        return
    level, frame = 1, sys._getframe()
    while frame.f_globals.get("__name__", "").startswith("napari_mrcz.") and frame.f_back:
        level, frame = level + 1, frame.f_back
    warnings.warn(MrczWarning(message), stacklevel=level)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the messages of this thread's `warn`, which are not issued.

    `warnings.catch_warnings` changes the filters of all threads: two of them at a time would take
    each other's warnings, and leave the filters of one in place.
    """
    before, messages = _collecting.messages, list[str]()
    _collecting.messages = messages
    try:
        yield messages
    finally:
        _collecting.messages = before


# Of numbers and their units, and between columns.
_SPACES = "\u00a0\u2007\u2009\u202f"
MINUS = "\N{MINUS SIGN}"


def error_text(error: BaseException) -> str:
    """Return an error as a sentence or two, of a path only the file's name."""
    text = failure_text(error)
    path = getattr(error, "path", None) or getattr(error, "filename", None)
    if path:
        text = text.replace(str(path), Path(path).name, 1)
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
    """Return a number that was formatted, its hyphens made minus signs."""
    return number.replace("-", MINUS)


def size_text(nbytes: float) -> str:
    """Return a size in a unit that suits it, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def block_text(nbytes: int) -> str:
    """Return a block size, in powers of 1024 as blosc counts."""
    return f"{nbytes / 2**10:.3g} KiB" if nbytes < 2**20 else f"{nbytes / 2**20:.3g} MiB"


def time_text(seconds: float) -> str:
    """Return a time in a unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
