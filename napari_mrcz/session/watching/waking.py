"""Waiting until something happens in a folder, or for a while."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Events may be lost: between machines they are never sent, and a queue of them may be full.
_LONGEST_WITH_EVENTS = 30.0
_POLL_WITHOUT_EVENTS = 5.0
_ENDING = ("created", "moved", "closed")

# What it says when it is ended while it looks means nothing; who keeps a log has it there.
logging.getLogger("watchdog").addHandler(logging.NullHandler())


class Wait:
    """Waits, and knows what has changed meanwhile; other threads may end it.

    Parameters
    ----------
    longest : float
        Seconds that are waited at most, and after which everything is looked at again.
    """

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._look_at_all = True
        self._looked = 0.0

    def __call__(self, seconds: float) -> None:
        """Wait for so many seconds at most, or until it is ended."""
        self._event.wait(max(0.0, min(seconds, self.longest)))
        self._event.clear()

    def end(self) -> None:
        """End it; if nobody waits, the next one."""
        self._event.set()

    def note(self, *paths: str, is_folder: bool = False) -> None:
        """Note that files, or all of a folder, have changed."""
        with self._lock:
            self._paths.update(paths)
            self._look_at_all |= is_folder

    def changes(self) -> set[str] | None:
        """Return the files that have changed since this was asked last; None for all."""
        now = time.monotonic()
        with self._lock:
            paths, self._paths = self._paths, set()
            if self._look_at_all or now - self._looked >= self.longest:
                self._look_at_all, self._looked = False, now
                return None
        return paths


@contextmanager
def woken(folder: Path, poll: float | None, tell: Callable[[str], None]) -> Iterator[Wait]:
    """Return a wait that ends when a file of a folder is made, closed or renamed.

    Parameters
    ----------
    folder : Path
        Folders within it are watched too.
    poll : float, optional
        Use no events, but wait no longer than so many seconds: for network disks.
    tell : callable
        Called with a sentence if there are no events to be had.
    """
    if poll is not None:
        yield Wait(poll)
        return
    wait = Wait(_LONGEST_WITH_EVENTS)
    observer = Observer()
    try:
        observer.schedule(_Waker(wait), str(folder), recursive=True)
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


class _Waker(FileSystemEventHandler):
    """Notes what changes, and ends a wait: not at every write, of which a movie has thousands."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def on_any_event(self, event: FileSystemEvent) -> None:
        kind = event.event_type
        if kind not in (*_ENDING, "modified", "deleted"):
            return
        if event.is_directory:
            self._wait.note(is_folder=kind != "modified")
        else:
            self._wait.note(*(os.fsdecode(p) for p in (event.src_path, event.dest_path) if p))
        if kind in _ENDING:
            self._wait.end()
