"""The journal of a watch: lines of JSON that are on the disk when `append` returns.

A process that is killed while it writes leaves a part of a line, which is cut off when the journal
is opened again. A file that is not a journal by its first line is refused, and not changed; no link
is followed.

Each line is an event. A file is announced before it is written, so that it is recognised as ours if
that is interrupted; what is done is written after:

``watching``    the folder
``begun``       a movie (``source``, ``size``, ``mtime_ns``) is about to be written to ``target``
``compressed``  it was, and its pixels were compared; ``kept`` says why it may not be deleted
``deleting``    its source is about to be deleted
``kept``        it was not, as it had changed or a program writes to it (``why``)
``summed``      its sum is known: what KOMA's average and the contrasts need
``correcting``  it is about to be corrected into ``target``
``corrected``   it was; ``warnings`` say where the result should not be trusted without a look,
                as those of ``compressed`` do
``failed``      it could not be used; it is tried again by the next process
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import AnyPath, MrczError
from napari_mrcz.format.atomic import check_target
from napari_mrcz.naming import software

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

    `path`: the file; made where it is not there, and its folder too; `lines`: what was in it when
    it was opened. Raise `MrczError` if another process has it, a line is damaged, it is not a
    journal, or it cannot be opened.
    """

    def __init__(self, path: AnyPath) -> None:
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
            self.lines = self._read()
        except BaseException:
            self.close()
            raise

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line and flush it to the disk; `OSError` if that fails, and nothing is added."""
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
        """Close the journal, so that another process may open it."""
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


@dataclass(frozen=True)
class Version:
    """A file as it is until it is written to."""

    size: int  # Bytes
    mtime_ns: int  # Time of the last change


@dataclass(frozen=True)
class SumRecord:
    """What is in the journal of a stack's sum."""

    recipe: str  # Fingerprint of the recipe by which the stack was corrected
    n_frames: int  # Frames summed
    shape: tuple[int, int]  # Of a frame
    thumbnail: npt.NDArray[np.float64]  # As in `napari_mrcz.session.summaries.Summary`
    variance: float
    acquired: datetime | None  # When, if the movie's metadata says so


@dataclass(frozen=True)
class MovieRecord:
    """How far a movie has come."""

    source: str  # Its path within the watched folder
    version: Version  # What was, or is being, compressed
    target: str  # What it is compressed to
    # When it was compressed and verified, in seconds of `time.time`; 0 if it was not
    compressed: float = 0.0
    nbytes: int = 0  # Size of the compressed file
    # Inode of the source, and when that last changed, in ns: `SourceFiles.stamp` when it was read
    stamp: tuple[int, ...] = ()
    kept: str = ""  # Why the source may not be deleted; empty if it may
    deleting: bool = False  # Whether its source was deleted, or was about to be
    summed: SumRecord | None = None  # Where KOMA needs it
    corrected: str = ""  # Fingerprint of the recipe it was corrected by; empty if it was not


class Ledger:
    """The movies of a session in order of arrival; every change is written to the journal first.

    `journal`: its lines are applied; `folder`: the watched folder. `revision`: rises with each
    movie that is compressed or summed. Raise `MrczError` if the journal is of another folder, or a
    line makes no sense.
    """

    def __init__(self, journal: Journal, folder: Path) -> None:
        self._journal = journal
        self._movies: dict[str, MovieRecord] = {}
        self._owners: dict[str, str] = {}
        self.revision = 0
        watched = os.path.realpath(folder)
        for number, line in enumerate(journal.lines, 1):
            try:
                if line["event"] == "watching" and line["folder"] != watched:
                    found, advice = f"is of {line['folder']}", "Choose another output folder"
                    raise MrczError(journal.path, found, advice=advice)
                self._take(line)
            except MrczError:
                raise
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                found = f"its line {number} makes no sense ({error!r})"
                raise MrczError(journal.path, found) from error
        if not journal.lines:
            self.record("watching", folder=watched, software=software())

    @property
    def movies(self) -> list[MovieRecord]:
        """All movies, in order of arrival."""
        return list(self._movies.values())

    def movie(self, source: str) -> MovieRecord | None:
        """Return what is known of a movie."""
        return self._movies.get(source)

    def record(self, event: str, **content: Any) -> None:
        """Write an event, then apply it; raise `OSError` without doing either."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "event": event, **content}
        self._journal.append(line)
        self._take(line)

    def owns(self, target: Path, source: str) -> bool:
        """Return whether a file is, or was about to be, the result of a movie."""
        return self._owners.get(str(target)) == source

    def may_replace(self, target: Path, source: str, *, overwrite: bool = False) -> bool:
        """Return whether the target of a movie exists and may be replaced.

        Raise `MrczError` if it exists and is not ours, or is the result of another movie, or is all
        that is left of one.
        """
        owner = self._owners.get(str(target))
        if owner not in (None, source):
            advice = "Movies of one name need output folders of their own"
            raise MrczError(target, f"is what {owner} is written to", advice=advice)
        movie = self._movies.get(source)
        left = movie is not None and movie.deleting and movie.target == str(target)
        ours = self.owns(target, source) and not left
        check_target(target, overwrite=ours or (overwrite and owner is None))
        return target.exists()

    def _take(self, line: Mapping[str, Any]) -> None:
        event = line["event"]
        if event in ("watching", "failed"):
            return
        source = line["source"]
        if event == "begun":
            self._begin(
                MovieRecord(source, Version(line["size"], line["mtime_ns"]), line["target"])
            )
        if "target" in line:
            self._owners[line["target"]] = source
        movie = self._movies[source]
        self.revision += event in ("begun", "compressed", "summed")
        if event == "compressed":
            when = datetime.fromisoformat(line["time"]).timestamp()
            movie = replace(
                movie,
                compressed=when,
                nbytes=line["nbytes"],
                stamp=tuple(line["stamp"]),
                kept=line["kept"],
            )
        elif event == "deleting":
            movie = replace(movie, deleting=True)
        elif event == "kept":
            movie = replace(movie, deleting=False, stamp=tuple(line["stamp"]))
        elif event == "summed":
            small = np.array(line["thumbnail"], np.float64)
            y, x = line["shape"]
            said = line["acquired"]
            acquired = None if said is None else datetime.fromisoformat(said)
            numbers = line["n_frames"], (y, x), small, line["variance"]
            movie = replace(movie, summed=SumRecord(line["recipe"], *numbers, acquired))
        elif event == "corrected":
            movie = replace(movie, corrected=line["recipe"])
        self._movies[source] = movie

    def _begin(self, movie: MovieRecord) -> None:
        before = self._movies.get(movie.source)
        if before is not None and before.version != movie.version:
            # Another movie, or more of it: its place is the last.
            del self._movies[movie.source]
            if before.deleting:  # what was made of the one before is not for this one to replace
                owners = self._owners.items()
                self._owners = {path: owner for path, owner in owners if owner != movie.source}
        self._movies[movie.source] = movie
