"""A button that starts a job, one that cancels it, its progress, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from napari_mrcz.texts import error_text
from napari_mrcz.widgets.base.fields import push_button
from napari_mrcz.widgets.base.job import Job, Report
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JobControls"]


class JobControls(QWidget):
    """What a long job needs in a window. When it is gone, its job is cancelled.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    text, tip : str
        Of the button that starts the job.
    pace : callable, optional
        Gives the sentence for (stage, steps done, steps); "Summing frame 3 of 40" by default.

    Attributes
    ----------
    start_button : QPushButton
        Clicked, it does nothing by itself: connect `clicked` to what calls `run`.
    buttons : QHBoxLayout
        The row of buttons, for more of them.
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
    ) -> None:
        super().__init__()
        self._panel = panel
        self._pace = pace or _plain_pace
        self._job: Job | None = None
        self._may_start = ""
        self.start_button = push_button(text, tip)
        self._tip = tip
        self.cancel_button = push_button(
            "Cancel", "Stop what is running; nothing on disk or shown is changed"
        )
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setToolTip("How much is done")
        self.status = WrappedLabel("What is being done, and how it ended")
        self.buttons = QHBoxLayout()
        self.buttons.addWidget(self.start_button)
        self.buttons.addWidget(self.cancel_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(self.buttons)
        column.addWidget(self.progress)
        column.addWidget(self.status)
        self.cancel_button.clicked.connect(self.cancel)
        self.destroyed.connect(lambda: self._let_go())
        self._show_state()

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return self._job is not None

    def allow(self, problem: str = "") -> None:
        """Say why the job cannot be started, or with "" that it can."""
        self._may_start = problem
        self._show_state()

    def run(self, work: Callable[[Report], Any]) -> Job | None:
        """Start a job, unless one runs; gives it."""
        if self.running:
            return None
        self._job = Job(work)
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_returned)
        self._job.failed.connect(self._on_failed)
        self._job.cancelled.connect(self._on_cancelled)
        self.progress.setRange(0, 0)
        self.tell("")
        self._show_state()
        self._job.start()
        return self._job

    @Slot()
    def cancel(self) -> None:
        """Ask the job to stop."""
        if self._job is not None:
            self._job.cancel()
            self.cancel_button.setEnabled(False)
            self.tell("Cancelling…")

    def tell(self, text: str, tone: str = "text") -> None:
        """Show a sentence under the buttons."""
        self._panel.tell(self.status, text, tone)
        self.status.setVisible(bool(text))

    def _let_go(self) -> None:
        """Nobody is there any more to see the result, or to cancel."""
        if self._job is not None:
            self._job.cancel()

    def _show_state(self) -> None:
        self.start_button.setEnabled(not self.running and not self._may_start)
        self.start_button.setToolTip(self._may_start or self._tip)
        self.cancel_button.setEnabled(self.running)
        self.cancel_button.setVisible(self.running)
        self.progress.setVisible(self.running)
        self.status.setVisible(bool(self.status.text()))

    @Slot(str, int, int)
    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        if self.cancel_button.isEnabled():
            self.tell(self._pace(stage, done, total))

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


def _plain_pace(stage: str, done: int, total: int) -> str:
    return f"{stage} {done} of {total}" if total else stage
