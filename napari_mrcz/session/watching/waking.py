"""Waiting until something happens in a folder, or for a while."""

from __future__ import annotations

import logging
import threading
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

# What it says when it is ended while it looks means nothing; who keeps a log has it there.
logging.getLogger("watchdog").addHandler(logging.NullHandler())


class Wait:
    """Waits; other threads may end it.

    Parameters
    ----------
    longest : float
        Seconds that are waited at most.
    """

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self._event = threading.Event()

    def __call__(self, seconds: float) -> None:
        """Wait for so many seconds at most, or until it is ended."""
        self._event.wait(max(0.0, min(seconds, self.longest)))
        self._event.clear()

    def end(self) -> None:
        """End it; if nobody waits, the next one."""
        self._event.set()


@contextmanager
def woken(folder: Path, poll: float | None, tell: Callable[[str], None]) -> Iterator[Wait]:
    """Give a wait that ends when a file of a folder is made, closed or renamed.

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
    """Ends a wait. Not at every write: a movie that is being recorded would send thousands."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def on_created(self, event: FileSystemEvent) -> None:
        self._wait.end()

    def on_moved(self, event: FileSystemEvent) -> None:
        self._wait.end()

    def on_closed(self, event: FileSystemEvent) -> None:
        self._wait.end()
