"""What goes wrong with a file, said so that a person can act on it."""

from __future__ import annotations

from os import PathLike, fspath

__all__ = ["MrczError", "MrczWarning"]


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
        return _rebuild, (self.path, self.found, self.offset, self.frame, self.advice)


def _rebuild(
    path: str | None, found: str, offset: int | None, frame: int | None, advice: str
) -> MrczError:
    return MrczError(path, found, offset=offset, frame=frame, advice=advice)


class MrczWarning(UserWarning):
    """Something in a file is wrong or lost, but its pixels are intact."""
