"""The journal: lines of JSON that are on the disk when `append` returns, and stay as they are.

A process killed in the middle of a line leaves a part of it, without its end; that part is cut off
when the journal is opened again, and counts as never written. A file that is no journal by its
first line is refused, and stays as it is; no link is followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from collections.abc import Mapping

if sys.platform != "win32":
    import fcntl

_ADVICE = "Choose another output folder"
# How the first line of every journal begins.
_FIRST_LINE = b'{"time":"2000-01-01T00:00:00.000+00:00","event":"watching","folder":"'
_FIRST = re.compile(rb'\{"time":"[0-9T:.+-]{29}","event":"watching","folder":"')


class Journal:
    """A file of JSON lines, for one process at a time.

    Parameters
    ----------
    path : path-like
        The file; made where it is not there, and its folder too.

    Raises
    ------
    MrczError
        If another process has it, a line is damaged, it is no journal, or it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        flags = os.O_RDWR | os.O_CREAT
        for name in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
            flags |= getattr(os, name, 0)
        if self.path.is_symlink():
            raise MrczError(path, "is a link, not a journal of a watch", advice=_ADVICE)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise MrczError(path, f"cannot be opened: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise MrczError(path, "is not a file", advice=_ADVICE)
            self._lock()
            self._lines = self._read()
        except BaseException:
            self.close()
            raise

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was in it when it was opened."""
        return list(self._lines)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line; it is on the disk, or an error says that nothing was added.

        Raises
        ------
        OSError
            If the disk refuses.
        """
        left = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError as error:
            self._cut()
            error.filename = str(self.path)
            raise
        self._end = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Let another process have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            advice = "End it first, or choose another output folder"
            raise MrczError(self.path, "another process is writing it", advice=advice) from None
        except OSError:
            return  # a file system without locks

    def _read(self) -> list[dict[str, Any]]:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            content = file.read()
        if content and not _is_journal(content):
            raise MrczError(self.path, "is not a journal of a watch", advice=_ADVICE)
        self._end = content.rfind(b"\n") + 1
        self._cut()
        lines = []
        for number, line in enumerate(content[: self._end].splitlines(), 1):
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                advice = f"Put it right, or {_ADVICE.lower()}"
                raise MrczError(self.path, f"its line {number} is damaged", advice=advice)
            lines.append(found)
        return lines

    def _cut(self) -> None:
        """Remove what follows the last whole line."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._end)
        os.lseek(self._descriptor, self._end, os.SEEK_SET)


def _is_journal(content: bytes) -> bool:
    """Return whether a file is a journal by its first line, or by the part of it that it has."""
    line, end, _ = content.partition(b"\n")
    first = line[: len(_FIRST_LINE)]
    if end and len(first) < len(_FIRST_LINE):
        return False
    return _FIRST.fullmatch(first + _FIRST_LINE[len(first) :]) is not None
