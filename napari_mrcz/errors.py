"""What goes wrong with a file, said so that a person can act on it."""

from __future__ import annotations

import errno
import sys
import threading
import warnings
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MrczError",
    "MrczWarning",
    "NotEnoughMemory",
    "collected_warnings",
    "is_out_of_memory",
    "warn",
]


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
        path: str | PathLike[str] | None,
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
        return _rebuild, (
            type(self), self.path, self.found, self.offset, self.frame, self.advice
        )  # fmt: skip


def _rebuild(
    kind: type[MrczError],
    path: str | None,
    found: str,
    offset: int | None,
    frame: int | None,
    advice: str,
) -> MrczError:
    return kind(path, found, offset=offset, frame=frame, advice=advice)


class NotEnoughMemory(MrczError, MemoryError):
    """Too little memory for the work on a file; nothing is known to be wrong with the file.

    Parameters
    ----------
    path : path-like or None
        The file concerned; None where there is none.
    what : str
        What the memory was for, such as "a frame of 67.1 MB".
    offset, frame, advice
        As for `MrczError`.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        what: str,
        *,
        offset: int | None = None,
        frame: int | None = None,
        advice: str = "",
    ) -> None:
        found = f"not enough memory for {what}"
        super().__init__(path, found, offset=offset, frame=frame, advice=advice)
        self.what = what

    def __reduce__(self) -> tuple[object, ...]:
        # As for any other, but with what `found` is made of.
        return _rebuild, (
            type(self), self.path, self.what, self.offset, self.frame, self.advice
        )  # fmt: skip


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
