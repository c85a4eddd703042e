"""Work in threads, told to the window's own thread by signals: progress, result, error, cancelled.

napari's `thread_worker` is not used: it replaces the whole program's warning filters for as long as
a worker runs, and two at a time leave them replaced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal, Slot

from napari_mrcz.format.threads import start_to_the_end

# What a job says now and then: the stage it is in, how far it is, of how many.
Report = Callable[[str, int, "int | None"], None]

# Each report repaints something, and with it all of napari's window.
_REPORT_EVERY_S = 0.1
_DEBOUNCE_MS = 150


class Cancelled(Exception):
    """Raised in a job, by its own report, after `Job.cancel`."""


class Job(QObject):
    """A function in a thread of its own. It outlives the widget that started it.

    Parameters
    ----------
    work : callable
        Called with a `Report`, which it calls often: that is where it can be cancelled.

    Attributes
    ----------
    progressed : Signal(str, int, int)
        Stage, steps done, steps (0 where unknown); at most 10 times a second.
    returned, failed, cancelled : Signal(object), Signal(object), Signal()
        One of them comes, last, with the result or the exception.
    """

    progressed = Signal(str, int, int)
    returned = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    _ended = Signal()

    _running: set[Job] = set()  # noqa: RUF012  (kept alive until their last signal is delivered)

    def __init__(self, work: Callable[[Report], Any]) -> None:
        super().__init__()
        self._work: Callable[[Report], Any] | None = work
        self._cancel = threading.Event()
        self._reported = 0.0
        self._thread: threading.Thread | None = None
        self._ended.connect(self._forget)

    def start(self) -> None:
        """Start the thread."""
        Job._running.add(self)
        # A program that ends does not take a half-saved file with it.
        self._thread = start_to_the_end(self._run, "napari-mrcz-job")

    def cancel(self) -> None:
        """Ask it to stop; `cancelled` tells that it has, unless it was done before."""
        self._cancel.set()

    def _run(self) -> None:
        try:
            result = self._done()
        except Cancelled:
            self.cancelled.emit()
        except Exception as error:
            self.failed.emit(error)
        else:
            self.returned.emit(result)
        finally:
            self._ended.emit()

    def _done(self) -> Any:
        """Do the work, and keep nothing of what it held, such as open files."""
        work, self._work = self._work, None
        return None if work is None else work(self._report)

    def _report(self, stage: str, done: int, total: int | None) -> None:
        if self._cancel.is_set():
            raise Cancelled
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY_S or done == total:
            self._reported = now
            self.progressed.emit(stage, done, total or 0)

    @Slot()
    def _forget(self) -> None:
        if self._thread is not None:
            self._thread.join()
        Job._running.discard(self)


class LatestJob(QObject):
    """One job at a time, and of what is asked meanwhile only the last: for previews.

    When it is gone, what runs is cancelled.

    Parameters
    ----------
    parent : QObject, optional
        What it goes with.
    delay_ms : int
        How long it waits for newer requests before it begins.

    Attributes
    ----------
    returned, failed : Signal(object)
        Of the last request alone.
    """

    returned = Signal(object)
    failed = Signal(object)

    def __init__(self, parent: QObject | None = None, *, delay_ms: int = _DEBOUNCE_MS) -> None:
        super().__init__(parent)
        self._wanted: Callable[[Report], Any] | None = None
        self._job: Job | None = None
        self._stale = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(delay_ms)
        self._timer.timeout.connect(self._start)
        self.destroyed.connect(lambda: self._let_go())

    def request(self, work: Callable[[Report], Any]) -> None:
        """Have `work` done when no more requests have come for a moment."""
        self.drop()
        self._wanted = work
        self._timer.start()

    def drop(self) -> None:
        """Forget what was requested; its result will not come."""
        self._wanted = None
        self._timer.stop()
        if self._job is not None:
            self._job.cancel()
            self._stale = True

    @property
    def busy(self) -> bool:
        """Whether something was requested that has not come yet."""
        return self._wanted is not None

    @Slot()
    def _start(self) -> None:
        if self._job is not None or self._wanted is None:
            return  # the running one starts the next when it ends
        self._stale = False
        self._job = Job(self._wanted)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(self._on_failed)
        self._job.cancelled.connect(self._on_cancelled)
        self._job.start()

    @Slot(object)
    def _on_returned(self, result: Any) -> None:
        if self._was_wanted():
            self.returned.emit(result)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        if self._was_wanted():
            self.failed.emit(error)

    @Slot()
    def _on_cancelled(self) -> None:
        self._was_wanted()

    def _let_go(self) -> None:
        """Nobody is there any more to see the result; hold nothing of what it would take."""
        self._wanted = None
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def _was_wanted(self) -> bool:
        """Let the job go, tell whether nothing newer was asked for, and start that otherwise."""
        self._job = None
        if not self._stale:
            self._wanted = None
            return True
        if not self._timer.isActive():
            self._start()
        return False


def while_alive(widget: QObject, work: Callable[[Report], Any]) -> Callable[[Report], Any]:
    """Give the same work, which ends when a widget is closed: nobody waits for its result then."""
    gone = threading.Event()
    widget.destroyed.connect(gone.set)

    def work_on(report: Report) -> Any:
        def told(stage: str, done: int, total: int | None) -> None:
            if gone.is_set():
                raise Cancelled
            report(stage, done, total)

        return work(told)

    return work_on
