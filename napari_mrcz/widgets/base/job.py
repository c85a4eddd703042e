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
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.errors import error_text
from napari_mrcz.format.machine import start_to_the_end
from napari_mrcz.widgets.base.form import push_button
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
        """Release the job; return whether nothing newer was asked for, and start that otherwise."""
        self._job = None
        if not self._stale:
            self._wanted = None
            return True
        if not self._timer.isActive():
            self._start()
        return False


def while_alive(widget: QObject, work: Callable[[Report], Any]) -> Callable[[Report], Any]:
    """Return the same work, which ends when a widget is closed."""
    gone = threading.Event()
    widget.destroyed.connect(gone.set)

    def work_on(report: Report) -> Any:
        def told(stage: str, done: int, total: int | None) -> None:
            if gone.is_set():
                raise Cancelled
            report(stage, done, total)

        return work(told)

    return work_on


# Left and right of the sentence in the bar.
_BAR_MARGIN_PX = 6
# So long a stage has to run before its end is foretold.
_SURE_S = 2.0


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
        self._sentence = sentence
        self.setToolTip(sentence or "How much is done")
        self.update()

    def text(self) -> str:
        """Return what fits: Qt asks for it when it draws the bar."""
        room = self.width() - 2 * _BAR_MARGIN_PX
        return self.fontMetrics().elidedText(self._sentence, Qt.TextElideMode.ElideRight, room)


class JobControls(QWidget):
    """What a long job needs in a window. When it is gone, its job is cancelled.

    While a job runs, its progress and Cancel take the place of the buttons. So nothing below
    moves: plots that move are drawn anew, which holds the window up for longer than the job does.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    text, tip : str
        Of the button that starts the job.
    pace : callable, optional
        Returns the sentence for (stage, steps done, steps). Long ones, which is why it is given,
        stand below the bar; without it, "Summing frame 3 of 40, 12 s left" stands in it.
    reserve : bool
        Two lines below the button are always kept for the status, where progress stands, too: so
        that nothing moves under the mouse.

    Attributes
    ----------
    start_button : QPushButton
        Clicked, it does nothing by itself: connect `clicked` to what calls `run`.
    buttons : QHBoxLayout
        The row of buttons before a job, for more of them.
    returned, failed, cancelled : Signal(object), Signal(object), Signal()
        One of them comes, last, with the result or the exception.
    ended : Signal()
        Comes after any of them.
    """

    returned = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    ended = Signal()

    def __init__(
        self,
        panel: Panel,
        text: str,
        tip: str,
        pace: Callable[[str, int, int], str] | None = None,
        *,
        reserve: bool = False,
    ) -> None:
        super().__init__()
        self._panel = panel
        self._pace = pace or _PlainPace()
        self._below = pace is not None or reserve
        self._reserve = reserve
        self._job: Job | None = None
        self._owned = False
        self._may_start = ""
        self.start_button = push_button(text, tip)
        self._tip = tip
        self.cancel_button = push_button(
            "Cancel", "Stop what is running; nothing on disk or shown is changed"
        )
        self.progress = _Bar()
        self.status = WrappedLabel("What is being done, and how it ended")
        self.status.setMinimumHeight((2 if reserve else 1) * self.fontMetrics().lineSpacing())
        self.status.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self._rows = QStackedWidget()
        self._rows.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.buttons = self._add_row(self.start_button)
        self._add_row(self.progress, self.cancel_button).setStretch(0, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._rows)
        column.addWidget(self.status)
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
            self._job.progressed.disconnect(self._on_progress)
            self._job.returned.disconnect(self._on_returned)
            self._job.failed.disconnect(self._on_failed)
            self._job.cancelled.disconnect(self._on_cancelled)
            self._job = None
        if job is not None:
            self._watch(job, owned=False)
        else:
            self.tell(message, tone)
            self._show_state()

    def _watch(self, job: Job, *, owned: bool) -> None:
        self._job, self._owned = job, owned
        job.progressed.connect(self._on_progress)
        job.returned.connect(self._on_returned)
        job.failed.connect(self._on_failed)
        job.cancelled.connect(self._on_cancelled)
        self.progress.setRange(0, 0)
        self.progress.tell("")
        self.tell("")
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
        self.status.setVisible(bool(text) or self._reserve)

    def _add_row(self, *widgets: QWidget) -> QHBoxLayout:
        page = QWidget()
        row = QHBoxLayout(page)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in widgets:
            row.addWidget(widget)
        self._rows.addWidget(page)
        return row

    def _tell_progress(self, sentence: str) -> None:
        if self._below:
            self.tell(sentence)
        else:
            self.progress.tell(sentence)

    def _let_go(self) -> None:
        """Nobody is there any more to see the result, or to cancel."""
        if self._job is not None and self._owned:
            self._job.cancel()

    def _show_state(self) -> None:
        self.start_button.setEnabled(not self.running and not self._may_start)
        self.start_button.setToolTip(self._may_start or self._tip)
        self.cancel_button.setEnabled(self.running)
        self._rows.setCurrentIndex(int(self.running))
        self.status.setVisible(bool(self.status.text()) or self._reserve)

    @Slot(str, int, int)
    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        if self.cancel_button.isEnabled():
            self._tell_progress(self._pace(stage, done, total))

    @Slot(object)
    def _on_returned(self, result: Any) -> None:
        self._end("")
        self.returned.emit(result)
        self.ended.emit()

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self._end(error_text(error), "error")
        self.failed.emit(error)
        self.ended.emit()

    @Slot()
    def _on_cancelled(self) -> None:
        self._end("Cancelled.")
        self.cancelled.emit()
        self.ended.emit()

    def _end(self, text: str, tone: str = "text") -> None:
        self._job = None
        self.tell(text, tone)
        self._show_state()


class _PlainPace:
    """The stage, how far it is, and how long it will take if that can be told."""

    def __init__(self) -> None:
        self._stage, self._started = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> str:
        if stage != self._stage or not done:
            self._stage, self._started = stage, time.monotonic()
        if not total:
            return stage
        spent = time.monotonic() - self._started
        left = f", {spent * (total - done) / done:.0f} s left" if done and spent > _SURE_S else ""
        return f"{stage} {done} of {total}{left}"
