"""The files of a movie while it is worked on: held open, and deleted only if they are unchanged.

A file is identified by its open descriptor (device, inode, size, times), not by its name, which
another file can take at any moment. To be deleted it is first moved to a random name; if it is not
the file that was read, it is renamed back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_mrcz.errors import MrczError
from napari_mrcz.format.atomic import rename_to_free_name
from napari_mrcz.format.files import file_nbytes
from napari_mrcz.naming import RemotePath, path_of
from napari_mrcz.stack.raw_frames import parts_of

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# Times of change may be this coarse, and coarser where they are whole seconds (FAT: 2 s).
_TICK_S, _COARSE_TICK_S = 0.02, 2.0
# File systems whose servers decide on leases: there a refusal says nothing of writers.
_NETWORKED = ("nfs", "nfs4", "cifs", "smb3")
_ASIDE = ".deleting"
_NAMED_ASIDE = re.compile(rf"(.+)\.[0-9a-f]{{8}}{re.escape(_ASIDE)}")
# A file that is being deleted has its other name for a moment.
_LEAST_AGE_S = 5.0

_GONE = "it is not there any more: it was renamed or deleted"
_OTHER = "another file has its name now"
TOUCHED = "it was renamed, linked or had its rights changed after it was read"
"""Why a source is kept whose contents and times look the same, but not its system's record."""
_CHANGED = "it was written to while it was read"
_WRITTEN = "another program has it open to write to it"


class Kept(Exception):
    """A source that is not deleted; the message says why."""


class _State(NamedTuple):
    """A file as its descriptor shows it."""

    device: int
    inode: int
    nbytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> _State:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class SourceFiles:
    """The files of one movie, open from before they are read until the work is done.

    `paths`: the movie; of a recording in several files, the first; of a series of images, all;
    `resting`: if a file was written just now, wait until another write would show in its time.
    """

    def __init__(self, paths: Sequence[str], *, resting: bool = False) -> None:
        self.path = paths[0]
        self._named = [path_of(path) for path in paths]
        self._files: list[_Held] = []
        if not all(map(os.path.isfile, paths)):  # opening them says why
            return
        try:
            for part in self._parts():
                self._files.append(_Held(part, resting=resting))
        except OSError:
            self.close()  # opening the movie says why

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [held.path for held in self._files] or self._named

    @property
    def nbytes(self) -> int:
        """Size of all files together."""
        remote = [path for path in self._named if isinstance(path, RemotePath)]
        return sum(held.state.nbytes for held in self._files) + sum(map(file_nbytes, remote))

    @property
    def stamp(self) -> tuple[int, int] | None:
        """Inode of the first file and when that last changed, in ns: kept by the journal."""
        held = self._files[0] if self._files else None
        return None if held is None else (held.state.inode, held.ctime_ns)

    def record(self, **options: Any) -> dict[str, Any]:
        """Return what a result says of its source, by which it is recognised."""
        mtime_ns = self._files[0].state.mtime_ns if self._files else 0
        said = {"name": path_of(self.path).name, "size": self.nbytes, "mtime_ns": mtime_ns}
        return {**said, "options": options}

    def check(self) -> None:
        """Raise `MrczError` if a program has written to the files since they were opened."""
        for held in self._files:
            if held.was_written():
                advice = "Do this again when the file is finished"
                raise MrczError(held.path, "was written to while it was read", advice=advice)

    def check_result(self) -> None:
        """Raise `Kept` if these files, a verified result, have changed: the source is needed."""
        try:
            if not self._files:
                raise Kept(_GONE)
            for held in self._files:
                held.check_name()
        except Kept as reason:
            raise Kept(f"of its result {self.path}: {reason}") from None

    def watched(self, tell: Callable[[int, int | None], None]) -> Callable[[int, int | None], None]:
        """Return a progress function that also does `check`, which ends the writing by an error."""

        def checked(done: int, total: int | None) -> None:
            self.check()
            tell(done, total)

        return checked

    def give_time(self, target: str) -> None:
        """Set a result's time of change to that of its source."""
        if self._files:
            mtime_ns = self._files[0].state.mtime_ns
            with contextlib.suppress(OSError):  # a file system that does not allow it
                os.utime(target, ns=(mtime_ns, mtime_ns))

    def delete(self, before: Callable[[], None] = lambda: None) -> str:
        """Delete the files, all or none, and return a note.

        `before`: called when all is checked; what it raises keeps the files. Raise `Kept` if one is
        not the file that was opened, or is being written to; `MrczError` if the system refuses.
        """
        if not self._files:
            raise Kept("it could not be opened")
        if self._parts() != self.paths:
            raise Kept("its recording has other files than before")
        for held in self._files:
            held.check_name()
        try:
            with _aside(self._files):
                for held in self._files:
                    held.check_aside()
                before()
                for held in self._files:
                    held.remove()
        except OSError as error:
            found = f"cannot be deleted: {error.strerror}"
            advice = "It was verified and is whole in the result"
            raise MrczError(self.path, found, advice=advice) from error
        if len(self._files) > 1:
            return f"source deleted: {len(self._files)} files"
        return self._files[0].farewell

    def _parts(self) -> list[Path]:
        return [part for path in self._named for part in parts_of(path)]

    def close(self) -> None:
        """Close the files."""
        for held in self._files:
            held.close()
        self._files = []

    def __enter__(self) -> SourceFiles:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class _Held:
    """One open file."""

    def __init__(self, path: Path, *, resting: bool) -> None:
        self.path = path
        self.aside: Path | None = None
        self._is_leased = False
        entry = os.lstat(path)
        self._entry = entry.st_dev, entry.st_ino
        self._leads_to = Path(os.path.realpath(path)) if stat.S_ISLNK(entry.st_mode) else None
        # Without waiting for someone to write to it, should it be a pipe.
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        self._descriptor = os.open(path, flags)
        status = os.fstat(self._descriptor)
        if resting:
            _rest(status.st_mtime_ns)
            status = os.fstat(self._descriptor)
        self.state = _State.of(status)
        # Changes with its names and rights, too: it shows that a file was away for a while.
        self.ctime_ns = status.st_ctime_ns
        self._links = status.st_nlink

    @property
    def farewell(self) -> str:
        """The note on a source that was deleted."""
        if self._leads_to is not None:
            return f"source deleted, a link; the file it leads to stays at {self._leads_to}"
        if self._links > 1:
            others = "another name" if self._links == 2 else f"{self._links - 1} other names"
            return f"source deleted; the file stays under {others}"
        return "source deleted"

    def was_written(self) -> bool:
        """Return whether the open file has changed."""
        return _State.of(os.fstat(self._descriptor)) != self.state

    def check_name(self) -> None:
        """Raise `Kept` if the file was written to, or its name leads to another."""
        try:
            entry, status = os.lstat(self.path), os.fstat(self._descriptor)
            named = _State.of(os.stat(self.path))
        except FileNotFoundError:
            raise Kept(_GONE) from None
        if _State.of(status) != self.state:
            raise Kept(_CHANGED)
        if (entry.st_dev, entry.st_ino) != self._entry or named != self.state:
            raise Kept(_OTHER)
        if os.name != "nt" and status.st_ctime_ns != self.ctime_ns:
            raise Kept(TOUCHED)
        if self._leads_to is None:  # of a link only the link goes
            self._is_leased = _leased(self._descriptor, self.state)

    def check_aside(self) -> None:
        """Raise `Kept` if the file that was moved aside is not the one that was read."""
        if self.aside is None:
            raise Kept("it could not be moved")
        entry, status = os.lstat(self.aside), os.stat(self.aside)
        if (entry.st_dev, entry.st_ino) != self._entry or _State.of(status) != self.state:
            raise Kept(_OTHER)
        if self._descriptor >= 0 and self.was_written():
            raise Kept(_CHANGED)
        if not self._is_leased and self._leads_to is None and _has_writer(self.state):
            raise Kept(_WRITTEN)

    def remove(self) -> None:
        """Delete the file that was moved aside."""
        if self.aside is None:
            return
        if self._is_leased and not self._has_lease():
            raise Kept(_WRITTEN)  # a program waits to write
        os.remove(self.aside)
        self.aside = None

    def stamp_anew(self) -> None:
        """Take over the time at which it was moved back, if no other program changed it."""
        if self._is_leased and self._has_lease():
            self.ctime_ns = os.fstat(self._descriptor).st_ctime_ns

    def _has_lease(self) -> bool:
        """Return whether no program waits to write to the file."""
        return bool(fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK)

    def close(self) -> None:
        """Close the file, and with it end its lease."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of files as `sha256sum` prints it, separated by spaces."""
    sums = []
    for path in paths:
        if not isinstance(path, RemotePath):  # these are not read as a whole
            with path.open("rb") as file:
                sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(sums)


def left_aside(folders: Iterable[Path]) -> dict[Path, Path]:
    """Return files in folders whose deletion was interrupted, and the names that they had."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob(f"*{_ASIDE}")):
            named = _NAMED_ASIDE.fullmatch(path.name)
            with contextlib.suppress(OSError):
                if named and time.time() - path.stat().st_ctime >= _LEAST_AGE_S:
                    found[path] = path.with_name(named[1])
    return found


def put_back(aside: Path, path: Path) -> bool:
    """Rename a file whose deletion was interrupted back; return whether that was possible."""
    try:
        rename_to_free_name(aside, path)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _aside(files: list[_Held]) -> Iterator[None]:
    """Move files to random names, and those that are not deleted back when the block ends."""
    left = []
    try:
        for held in files:
            aside = held.path.with_name(f"{held.path.name}.{os.urandom(4).hex()}{_ASIDE}")
            if sys.platform == "win32":
                held.close()  # an open file cannot be renamed there
            try:
                os.rename(held.path, aside)
            except FileNotFoundError:
                raise Kept(_GONE) from None
            held.aside = aside
        yield
    finally:
        for held in files:
            if held.aside is not None:
                try:
                    rename_to_free_name(held.aside, held.path)
                    held.stamp_anew()
                except OSError:
                    left.append(held.aside)
                held.aside = None
        if left:
            raise Kept(f"{_OTHER}; it is {', '.join(map(str, left))}")


def _rest(mtime_ns: int) -> None:
    """Wait until another change would show in the time of a file that was just changed."""
    tick = _COARSE_TICK_S if mtime_ns % 10**9 == 0 else _TICK_S
    age = time.time() - mtime_ns / 1e9
    if 0 <= age < tick:
        time.sleep(tick - age)


def _leased(descriptor: int, state: _State) -> bool:
    """Take a lease of a file; raise `Kept` if a process has it open for writing.

    A process that opens it for writing waits from then on, until the descriptor is closed.
    """
    if sys.platform != "linux":
        return False
    try:
        # The signal that is sent when a program waits; the usual one would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN and not _is_networked(state.device):
            raise Kept(_WRITTEN) from None
        if _has_writer(state):  # a file of another user, or a file system without leases
            raise Kept(_WRITTEN) from None
        return False
    return True


def _is_networked(device: int) -> bool:
    major, minor = os.major(device), os.minor(device)
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    kinds = [
        line.partition(" - ")[2].split()[0]
        for line in mounts
        if line.split()[2] == f"{major}:{minor}"
    ]
    return any(kind in _NETWORKED for kind in kinds)


def _has_writer(state: _State) -> bool:
    """Return whether a process, of those that may be inspected, has a file open for writing."""
    if sys.platform != "linux":
        return False
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # of another user, or gone by now
            for entry in os.scandir(process / "fd"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    status = os.stat(entry.path)
                    if (status.st_dev, status.st_ino) != (state.device, state.inode):
                        continue
                    said = (process / "fdinfo" / entry.name).read_text()
                    flags = int(said.split("flags:")[1].split()[0], 8)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        return True
    return False
