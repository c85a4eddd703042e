"""Work in threads, and what a long job needs in a window: button, progress, cancel, time left."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QObject, Qt, QTimer, Signal, Slot
from qtpy.QtWidgets import QProgressBar, QSizePolicy, QStackedWidget, QWidget

from napari_mrcz.errors import error_text, size_text, time_text
from napari_mrcz.format.machine import start_to_the_end
from napari_mrcz.widgets.base.form import WrappedLabel, filled, push_button

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.panel import Panel

# What a job says now and then: the stage it is in, how far it is, of how many.
Report = Callable[[str, int, "int | None"], None]

# Each report repaints something, and with it all of napari's window.
_REPORT_EVERY_S = 0.1
_DEBOUNCE_MS = 150


class Cancelled(Exception):
    """Raised in a job, by its own report, after `Job.cancel`."""


class Job(QObject):
    """A function in a thread of its own. It outlives the widget that started it.

    It is called with a `Report`, which it calls often: that is where it can be cancelled.
    """

    progressed = Signal(str, int, int)  # stage, steps done, steps (0 where unknown); at times
    ended = Signal(object)  # the result or the exception, `Cancelled` if it was
    _delivered = Signal()

    _running: set[Job] = set()  # noqa: RUF012  (kept alive until their last signal is delivered)

    def __init__(self, work: Callable[[Report], Any]) -> None:
        super().__init__()
        self._work: Callable[[Report], Any] | None = work
        self._cancel = threading.Event()
        self._reported = 0.0
        self._delivered.connect(self._forget)

    def start(self) -> None:
        """Start the thread."""
        Job._running.add(self)
        # A program that ends does not take a half-saved file with it.
        self._thread = start_to_the_end(self._run, "napari-mrcz-job")

    @Slot()
    def cancel(self) -> None:
        """Ask it to stop; unless it was done before, it ends by `Cancelled`."""
        self._cancel.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop."""
        return self._cancel.is_set()

    def announce(self, widget: QWidget, good: Callable[[Any], bool], title: str = "") -> None:
        """Notify how it ends where the widget that would tell is closed or hidden by then."""
        known = weakref.ref(widget)

        def notify(result: Any) -> None:
            with contextlib.suppress(RuntimeError):  # its window is gone, its Python half is not
                if (there := known()) is not None and there.isVisible():
                    return
            if not isinstance(result, Exception):
                (show_info if good(result) else show_warning)(f"{title}{result}")
            elif not isinstance(result, Cancelled):
                show_error(error_text(result))

        self.ended.connect(notify)

    def _run(self) -> None:
        self.ended.emit(self._result())
        self._delivered.emit()

    def _result(self) -> Any:
        """Do the work, and keep nothing of what it held, such as open files."""
        work, self._work = self._work, None
        try:
            return None if work is None else work(self._report)
        except Exception as error:
            return error

    def _report(self, stage: str, done: int, total: int | None) -> None:
        if self.is_cancelled:
            raise Cancelled
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY_S or done == total:
            self._reported = now
            self.progressed.emit(stage, done, total or 0)

    @Slot()
    def _forget(self) -> None:
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

    @property
    def busy(self) -> bool:
        """Whether something was requested that has not come yet."""
        return self._wanted is not None

    @Slot()
    def _start(self) -> None:
        if self._job is None and self._wanted is not None:  # else that one starts it when it ends
            self._job = Job(self._wanted)
            self._job.ended.connect(self._on_ended)
            self._job.start()

    @Slot(object)
    def _on_ended(self, result: Any) -> None:
        job, self._job = self._job, None
        if job is None or not job.is_cancelled:
            self._wanted = None
            (self.failed if isinstance(result, Exception) else self.returned).emit(result)
        elif not self._timer.isActive():
            self._start()

    def _let_go(self) -> None:
        """Hold nothing of what a result would take that nobody sees."""
        job, self._wanted, self._job = self._job, None, None
        if job is not None:
            job.cancel()


# So long a stage has to run before its end is foretold; less is over before it is read.
_SURE_S, _SHORTEST_S = 2.0, 0.5


class Pace:
    """How fast a job goes, and how long the rest will take, in a sentence and a line below it.

    What has another total, or begins again, is timed anew. `frame_nbytes`: of a frame in memory, 0
    if speed is of no interest; `n_stacks`: named by the stages; time left is told when one is done.
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
    `pace`: returns the sentence for (stage, steps done, steps). It stands in the bar, or below it
    where `pace` is given or `reserve` lines are kept there for the status. `buttons` is the row of
    buttons before a job, for more of them.
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
        self._problem = ""
        self.start_button = push_button(text, tip)
        self.cancel_button = push_button(
            "Cancel", "Stop what is running; nothing on disk or shown is changed"
        )
        self.progress = _Bar()
        self.status = WrappedLabel("What is being done, and how it ended", max(1, reserve))
        self.status.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        before = filled(QWidget(), self.start_button, across=True)
        self.buttons: Any = before.layout()
        self._rows = QStackedWidget()
        self._rows.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._rows.addWidget(before)
        self._rows.addWidget(filled(QWidget(), self.progress, self.cancel_button, across=True))
        filled(self, self._rows, self.status)
        self.cancel_button.clicked.connect(self.cancel)
        self.attach(None)

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return self._job is not None

    def allow(self, problem: str = "") -> None:
        """Show why the job cannot be started; "" if it can."""
        self._problem = problem
        self._show_state()

    def run(self, work: Callable[[Report], Any]) -> Job | None:
        """Start a job, unless one runs, and return it; it is cancelled with this widget."""
        if self.running:
            return None
        job = Job(work)
        self.destroyed.connect(job.cancel)
        self.attach(job)
        job.start()
        return job

    def attach(self, job: Job | None, message: str = "", tone: str = "text") -> None:
        """Show a job of somebody else's, who is told of its result; or how the last one ended."""
        if self._job is not None:
            if job is self._job:
                return
            self._job.progressed.disconnect(self._on_progress)
            self._job.ended.disconnect(self._on_ended)
        self._job = job
        if job is not None:
            job.progressed.connect(self._on_progress)
            job.ended.connect(self._on_ended)
            self.progress.setRange(0, 0)
            self.progress.tell("")
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

    def _tell_progress(self, sentence: str) -> None:
        (self.tell if self._below else self.progress.tell)(sentence)

    def _show_state(self) -> None:
        self.start_button.setEnabled(not self.running and not self._problem)
        self.start_button.setToolTip(self._problem or self._tip)
        self.cancel_button.setEnabled(self.running)
        self._rows.setCurrentIndex(int(self.running))

    @Slot(str, int, int)
    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        if self.cancel_button.isEnabled():
            self._tell_progress(self.pace(stage, done, total))

    @Slot(object)
    def _on_ended(self, result: Any) -> None:
        if self._job is None:  # let go of while this was on its way
            return
        self._job = None
        is_error, is_cancelled = isinstance(result, Exception), isinstance(result, Cancelled)
        said = "Cancelled." if is_cancelled else error_text(result) if is_error else ""
        self.tell(said, "error" if is_error and not is_cancelled else "text")
        self._show_state()
        if is_cancelled:
            self.cancelled.emit()
        else:
            (self.failed if is_error else self.returned).emit(result)
        self.ended.emit()
