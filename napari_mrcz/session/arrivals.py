"""Which movies of a watched folder are finished, and waiting until something happens in it."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from napari_mrcz.naming import natural_key
from napari_mrcz.session.journal import Version
from napari_mrcz.stack.companions import companion_names
from napari_mrcz.stack.raw_frames import first_part

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

# SerialEM writes the mdoc of a movie when the movie is finished.
_FOR_MDOC_S = 5.0


@dataclass(frozen=True)
class Found:
    """A movie that is finished."""

    source: str  # Path within the watched folder, with "/"
    version: Version  # Its size and time when it was looked at


@dataclass(frozen=True)
class Look:
    """What one look at a folder shows."""

    finished: tuple[Found, ...] = ()  # In order of their times, then of their names
    unfinished: tuple[str, ...] = ()  # Others, in order of their names
    # Seconds until one of these may be finished; None if only a marker can tell
    soonest: float | None = None
    changed: bool = False  # Whether anything is new since the last look
    unreadable: tuple[str, ...] = ()  # Folders within it that cannot be read, and why


class Arrivals:
    """Looks at a folder and those within it, and remembers what is there.

    A movie is finished when its size and time have not changed for `settle` seconds by the clock of
    this machine: that of a file server may be wrong. Servers may also report sizes late (NFS by up
    to a minute): then more seconds, or a marker, are needed. If other movies of its folder have an
    mdoc, one without is given a few seconds more.

    `folder`: where movies arrive; `suffixes`: of movies, in lower case; `marker`: if not empty, a
    movie is finished when there is a file of its name and this, such as ``movie.tif.done`` for
    ".done"; `pattern`: of names, such as "*_fractions.tiff"; `ignored`: files and folders that are
    skipped: references, results; `changes`: returns the paths that have changed since its last
    call, or None for all, as without it.
    """

    def __init__(
        self,
        folder: Path,
        suffixes: tuple[str, ...],
        *,
        settle: float = 10.0,
        marker: str = "",
        pattern: str = "*",
        ignored: Collection[Path] = (),
        changes: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.settle = 0.0 if marker else settle
        self.marker = marker
        self._suffixes = suffixes
        self._pattern = pattern
        self._ignored = {os.path.realpath(path) for path in ignored}
        self._ignored_names = {os.path.basename(path) for path in self._ignored}
        self._changes = changes
        self._seen: dict[str, tuple[Version, float]] = {}
        self._finished: dict[str, Found] = {}
        self._in_order: tuple[Found, ...] = ()
        self._markers: set[str] = set()
        self._mdocs: dict[str, set[str]] = {}  # of each folder
        self._unreadable: tuple[str, ...] = ()
        self._looked = False

    def path(self, source: str) -> Path:
        """Return the path of a movie."""
        return self.folder / source

    def marker_of(self, source: str) -> Path | None:
        """Return the path of a movie's marker; None without markers."""
        return self.folder / f"{source}{self.marker}" if self.marker else None

    def version(self, source: str) -> Version | None:
        """Return a movie's size and time now; None if it is gone."""
        try:
            return _version(os.stat(self.path(source)))
        except OSError:
            return None

    @property
    def longest(self) -> float:
        """Seconds after which a movie that has not changed is finished, without a marker."""
        return max(map(self.rest_of, self._seen), default=self.settle)

    def rest_of(self, source: str) -> float:
        """Return the seconds for which a movie has to rest."""
        folder = os.path.dirname(source)
        if self.marker or folder not in self._mdocs or f"{source}.mdoc" in self._mdocs[folder]:
            return self.settle
        names = companion_names(Path(source))
        has_one = any(os.path.join(folder, name) in self._mdocs[folder] for name in names)
        return self.settle + (0.0 if has_one else _FOR_MDOC_S)

    def look(self, now: float) -> Look:
        """Look at what has changed, and at what is not finished.

        `now`: in seconds of `time.monotonic`. Raise `OSError` if the folder cannot be read.
        """
        paths = self._changes() if self._looked else None
        if paths is None:
            changed, again, finished = self._look_at_all(now), list(self._seen), {}
        else:
            changed, again = self._look_at(paths, now)
            finished = dict(self._finished)
        unfinished, waits = [], []
        for source in again:
            finished.pop(source, None)
            if source not in self._seen:
                continue
            version, since = self._seen[source]
            rests = self.rest_of(source) - (now - since)
            marked = not self.marker or f"{source}{self.marker}" in self._markers
            # A file without a byte has been announced, not written.
            if marked and rests <= 0 and version.size:
                finished[source] = Found(source, version)
            else:
                unfinished.append(source)
                if marked and rests > 0:
                    waits.append(rests)
        if finished != self._finished:
            self._finished = finished
            self._in_order = tuple(
                sorted(finished.values(), key=lambda f: (f.version.mtime_ns, natural_key(f.source)))
            )
        return Look(
            self._in_order,
            tuple(sorted(unfinished, key=natural_key)),
            min(waits, default=None),
            changed,
            self._unreadable,
        )

    def _look_at_all(self, now: float) -> bool:
        """Look through the folder; return whether anything is new."""
        self._looked = False
        self._markers, self._mdocs = set(), {}
        movies: dict[str, Version] = {}
        unreadable: list[str] = []
        for entry in self._entries(self.folder, unreadable):
            source = Path(entry.path).relative_to(self.folder).as_posix()
            try:
                if (version := self._version_of(entry, source)) is not None:
                    movies[source] = version
            except FileNotFoundError:
                continue  # it was deleted or renamed in this moment
            except OSError as error:  # such as a link that leads to itself
                unreadable.append(f"{entry.path} cannot be read ({error.strerror})")
        # What was seen before and is the same keeps the time at which it was first seen so.
        before = self._seen
        self._seen = {
            source: before[source] if before.get(source, (None,))[0] == version else (version, now)
            for source, version in movies.items()
        }
        self._unreadable, self._looked = tuple(unreadable), True
        return self._seen != before

    def _look_at(self, paths: Collection[str], now: float) -> tuple[bool, list[str]]:
        """Look at what was changed, and at the movies that are not finished.

        Returned are `changed`: whether anything is new; `sources`: what was looked at.
        """
        sources = dict.fromkeys(source for source in self._seen if source not in self._finished)
        for name in paths:
            source = Path(os.path.relpath(name, self.folder)).as_posix()
            if not any(part.startswith(".") for part in source.split("/")):
                sources[source] = None
        changed = False
        for source in list(sources):
            path, version = self.path(source), None
            try:
                path.stat()
                inside = not any(map(self._is_ignored, path.parents[: source.count("/")]))
                version = self._version_of(path, source) if inside else None
            except OSError:
                self._markers.discard(source)
                self._mdocs.get(os.path.dirname(source), set()).discard(source)
            if self.marker and source.endswith(self.marker):
                sources[source.removesuffix(self.marker)] = None
            if version is None:
                changed |= self._seen.pop(source, None) is not None
            elif self._seen.get(source, (None,))[0] != version:
                self._seen[source] = version, now
                changed = True
        return changed, list(sources)

    def _version_of(self, entry: os.DirEntry[str] | Path, source: str) -> Version | None:
        """Return the size and time of a movie; markers and mdocs are noted."""
        if self.marker and entry.name.endswith(self.marker):
            self._markers.add(source)
        elif entry.name.endswith(".mdoc"):
            self._mdocs.setdefault(os.path.dirname(source), set()).add(source)
        elif self._is_movie(entry):
            return _version(entry.stat())
        return None

    def _entries(self, folder: Path, unreadable: list[str]) -> Iterator[os.DirEntry[str]]:
        """Return all files that are not hidden; note the folders that cannot be read."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif not self._is_ignored(entry):
                    try:
                        yield from self._entries(Path(entry.path), unreadable)
                    except FileNotFoundError:
                        continue  # it was deleted or renamed in this moment
                    except OSError as error:
                        unreadable.append(f"{entry.path} cannot be read ({error.strerror})")

    def _is_movie(self, entry: os.DirEntry[str] | Path) -> bool:
        return (
            entry.name.lower().endswith(self._suffixes)
            and fnmatch(entry.name, self._pattern)
            and entry.is_file()
            and not self._is_ignored(entry)
            and first_part(Path(entry)) is None  # it is read with its first part
        )

    def _is_ignored(self, entry: os.DirEntry[str] | Path) -> bool:
        # Names first: to resolve each path would take longer than all the rest.
        return entry.name in self._ignored_names and os.path.realpath(entry) in self._ignored


def _version(state: os.stat_result) -> Version:
    return Version(state.st_size, state.st_mtime_ns)


# Events may be lost: between machines they are never sent, and a queue of them may be full.
_LONGEST_WITH_EVENTS = 30.0
_POLL_WITHOUT_EVENTS = 5.0
_ENDING = ("created", "moved", "closed")

# Its messages when it is stopped mean nothing; they are in the log of whoever keeps one.
logging.getLogger("watchdog").addHandler(logging.NullHandler())


class Wait(FileSystemEventHandler):
    """Waits until a file is made, closed or renamed, and knows what has changed meanwhile.

    It does not end at every write, of which a movie has thousands.

    `longest`: seconds that are waited at most, and after which everything is looked at again.
    """

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._look_at_all = True
        self._looked = 0.0

    def __call__(self, seconds: float) -> None:
        """Wait for so many seconds at most."""
        self._event.wait(max(0.0, min(seconds, self.longest)))
        self._event.clear()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Note what has changed; called in the thread of the observer."""
        kind = event.event_type
        if kind not in (*_ENDING, "modified", "deleted"):
            return
        with self._lock:
            if event.is_directory:
                self._look_at_all |= kind != "modified"
            else:
                named = (event.src_path, event.dest_path)
                self._paths.update(os.fsdecode(path) for path in named if path)
        if kind in _ENDING:
            self._event.set()

    def changes(self) -> set[str] | None:
        """Return the files that have changed since the last call; None for all."""
        now = time.monotonic()
        with self._lock:
            paths, self._paths = self._paths, set()
            if self._look_at_all or now - self._looked >= self.longest:
                self._look_at_all, self._looked = False, now
                return None
        return paths


@contextmanager
def woken(folder: Path, poll: float | None, tell: Callable[[str], None]) -> Iterator[Wait]:
    """Return a wait for changes in a folder and those within it.

    `poll`: use no events, but look every so many seconds: for network disks; `tell`: called with a
    message if there are no events.
    """
    if poll is not None:
        yield Wait(poll)
        return
    wait = Wait(_LONGEST_WITH_EVENTS)
    observer = Observer()
    try:
        observer.schedule(wait, str(folder), recursive=True)
        observer.start()
    except OSError as error:  # too many are being watched
        every = f"it is looked at every {_POLL_WITHOUT_EVENTS:g} s"
        tell(f"{folder} sends no events ({error.strerror}): {every}")
        yield Wait(_POLL_WITHOUT_EVENTS)
        return
    try:
        yield wait
    finally:
        observer.stop()
        observer.join()
