"""Work in threads, and what a long job needs in a window: button, progress, cancel, time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal, Slot
from qtpy.QtWidgets import (
    QHBoxLayout,
    QProgressBar,
    QSizePolicy,
    QStackedWidget,
    QWidget,
)

from napari_mrcz.errors import error_text, size_text, time_text
from napari_mrcz.format.machine import start_to_the_end
from napari_mrcz.widgets.base.form import filled, push_button
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel

# What a job says now and then: the stage it is in, how far it is, of how many.
Report = Callable[[str, int, "int | None"], None]

# Each report repaints something, and with it all of napari's window.
_REPORT_EVERY_S = 0.1
_DEBOUNCE_MS = 150


class Cancelled(Exception):
    """Raised in a job, by its own report, after `Job.cancel`."""


class Job(QObject):
    """A function in a thread of its own. It outlives the widget that started it.

    It is called with a `Report`, which it calls often: that is where it can be cancelled. Of
    `returned`, `failed` and `cancelled` one comes, last.
    """

    progressed = Signal(str, int, int)  # stage, steps done, steps (0 where unknown); at times
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

    `returned` and `failed` are those of the last request alone. When it is gone, what runs is
    cancelled. It waits for `delay_ms` for newer requests before it begins.
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
        """Do `work` when no more requests have come for a moment."""
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
        self._job.cancelled.connect(self._was_wanted)
        self._job.start()

    @Slot(object)
    def _on_returned(self, result: Any) -> None:
        if self._was_wanted():
            self.returned.emit(result)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        if self._was_wanted():
            self.failed.emit(error)

    def _let_go(self) -> None:
        """Hold nothing of what a result would take that nobody sees."""
        self._wanted = None
        if self._job is not None:
            self._job.cancel()
            self._job = None

    @Slot()
    def _was_wanted(self) -> bool:
        """Release the job; return whether nothing newer was asked for, and start that otherwise."""
        self._job = None
        if not self._stale:
            self._wanted = None
            return True
        if not self._timer.isActive():
            self._start()
        return False


# So long a stage has to run before its end is foretold; less is over before it is read.
_SURE_S, _SHORTEST_S = 2.0, 0.5


class Pace:
    """How fast a job goes, and how long the rest will take, in a sentence and a line below it.

    What has another total, or begins again, is timed anew. `frame_nbytes`: of a frame in memory, 0
    if speed is of no interest; `n_stacks`: that a job goes through, whose stages name them: the
    time left is told when one is done.
    """

    def __init__(
        self,
        frame_nbytes: int = 0,
        n_stacks: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._frame_nbytes, self._n_stacks, self._clock = frame_nbytes, n_stacks, clock
        self._total, self._first, self._done, self._start = -1, 0, 0, clock()

    def __call__(self, stage: str, done: int, total: int) -> str:
        """Return it as text."""
        now = self._clock()
        if total != self._total or done < self._done:
            # What is reported first was done before the clock starts.
            self._total, self._start, self._first = total, now, done
        self._done = done
        elapsed, timed = now - self._start, done - self._first
        said = f"{stage} {done} of {total}" if total and not self._n_stacks else stage
        if timed <= 0 or elapsed <= 0:
            return said
        rate = timed / elapsed
        left = (total - done) / rate
        below = [f"{size_text(rate * self._frame_nbytes)}/s"] if self._frame_nbytes else []
        is_sure = timed * self._n_stacks >= total if self._n_stacks else elapsed > _SURE_S
        if left >= _SHORTEST_S and is_sure:
            below.append(f"{time_text(left)} left")
        return f"{said}\n{', '.join(below)}" if below else said


# Left and right of the sentence in the bar.
_BAR_MARGIN_PX = 6


class _Bar(QProgressBar):
    """Progress, with a sentence in it that is cut off where it is too long."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._sentence = ""
        self.tell("")

    def tell(self, sentence: str) -> None:
        """Show a sentence; all of it is in the tooltip."""
        self._sentence = sentence.replace("\n", ", ")
        self.setToolTip(self._sentence or "How much is done")
        self.update()

    def text(self) -> str:
        """Return what fits: Qt asks for it when it draws the bar."""
        room = self.width() - 2 * _BAR_MARGIN_PX
        return self.fontMetrics().elidedText(self._sentence, Qt.TextElideMode.ElideRight, room)


class JobControls(QWidget):
    """What a long job needs in a window. When it is gone, its job is cancelled.

    While a job runs, its progress and Cancel take the place of the buttons. So nothing below
    moves: plots that move are drawn anew, which holds the window up for longer than the job does.

    `text`, `tip`: of the button that starts the job; connect its `clicked` to what calls `run`.
    `pace`: returns the sentence for (stage, steps done, steps); long ones, which is why it is
    given, stand below the bar; without it, "Summing frame 3 of 40, 12 s left" stands in it.
    `reserve`: so many lines below are always kept for the status, where progress stands, too, so
    that nothing moves under the mouse. `buttons` is the row of buttons before a job, for more of
    them.
    """

    returned = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    ended = Signal()  # after any of these

    def __init__(
        self,
        panel: Panel,
        text: str,
        tip: str,
        pace: Callable[[str, int, int], str] | None = None,
        *,
        reserve: int = 0,
    ) -> None:
        super().__init__()
        self._panel, self._tip, self._reserve = panel, tip, reserve
        self.pace = pace or Pace()
        self._below = pace is not None or reserve > 0
        self._job: Job | None = None
        self._owned = False
        self._may_start = ""
        self.start_button = push_button(text, tip)
        self.cancel_button = push_button(
            "Cancel", "Stop what is running; nothing on disk or shown is changed"
        )
        self.progress = _Bar()
        self.status = WrappedLabel("What is being done, and how it ended", max(1, reserve))
        self.status.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self._rows = QStackedWidget()
        self._rows.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        before = filled(QWidget(), self.start_button, across=True)
        self.buttons: QHBoxLayout = before.layout()  # type: ignore[assignment]
        self._rows.addWidget(before)
        self._rows.addWidget(filled(QWidget(), self.progress, self.cancel_button, across=True))
        filled(self, self._rows, self.status)
        self.cancel_button.clicked.connect(self.cancel)
        self.destroyed.connect(lambda: self._let_go())
        self._show_state()

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return self._job is not None

    def allow(self, problem: str = "") -> None:
        """Show why the job cannot be started; "" if it can."""
        self._may_start = problem
        self._show_state()

    def run(self, work: Callable[[Report], Any]) -> Job | None:
        """Start a job, unless one runs, and return it; it is cancelled with this widget."""
        if self.running:
            return None
        job = Job(work)
        self._watch(job, owned=True)
        job.start()
        return job

    def attach(self, job: Job | None, message: str = "", tone: str = "text") -> None:
        """Show a job of somebody else's, who is told of its result; or how the last one ended."""
        if self._job is not None:
            if job is self._job:
                return
            for signal, slot in self._connections(self._job):
                signal.disconnect(slot)
            self._job = None
        if job is not None:
            self._watch(job, owned=False)
        else:
            self.tell(message, tone)
            self._show_state()

    @Slot()
    def cancel(self) -> None:
        """Ask the job to stop."""
        if self._job is not None:
            self._job.cancel()
            self.cancel_button.setEnabled(False)
            self._tell_progress("Cancelling…")

    def tell(self, text: str, tone: str = "text") -> None:
        """Show a sentence under the buttons."""
        self._panel.tell(self.status, text, tone)
        self.status.setVisible(bool(text) or self._reserve > 0)

    def _connections(self, job: Job) -> tuple[tuple[Any, Any], ...]:
        return (
            (job.progressed, self._on_progress),
            (job.returned, self._on_returned),
            (job.failed, self._on_failed),
            (job.cancelled, self._on_cancelled),
        )

    def _watch(self, job: Job, *, owned: bool) -> None:
        self._job, self._owned = job, owned
        for signal, slot in self._connections(job):
            signal.connect(slot)
        self.progress.setRange(0, 0)
        self.progress.tell("")
        self.tell("")
        self._show_state()

    def _tell_progress(self, sentence: str) -> None:
        (self.tell if self._below else self.progress.tell)(sentence)

    def _let_go(self) -> None:
        """End a job whose result nobody sees, and that nobody can cancel."""
        if self._job is not None and self._owned:
            self._job.cancel()

    def _show_state(self) -> None:
        self.start_button.setEnabled(not self.running and not self._may_start)
        self.start_button.setToolTip(self._may_start or self._tip)
        self.cancel_button.setEnabled(self.running)
        self._rows.setCurrentIndex(int(self.running))
        self.status.setVisible(bool(self.status.text()) or self._reserve > 0)

    @Slot(str, int, int)
    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        if self.cancel_button.isEnabled():
            self._tell_progress(self.pace(stage, done, total))

    @Slot(object)
    def _on_returned(self, result: Any) -> None:
        self._end(self.returned, result)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self._end(self.failed, error, text=error_text(error), tone="error")

    @Slot()
    def _on_cancelled(self) -> None:
        self._end(self.cancelled, text="Cancelled.")

    def _end(self, signal: Any, *results: Any, text: str = "", tone: str = "text") -> None:
        if self._job is None:  # let go of while this was on its way
            return
        self._job = None
        self.tell(text, tone)
        self._show_state()
        signal.emit(*results)
        self.ended.emit()
