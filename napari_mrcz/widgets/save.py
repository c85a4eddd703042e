"""The "Save stack" dock widget: a form, what the file will take, and saving with progress."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize, Qt, Signal, Slot
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.widgets.job import Job, LatestJob
from napari_mrcz.widgets.layer_picker import connect_while_alive, plain_viewer
from napari_mrcz.widgets.save_form import SaveForm, WrappedLabel
from napari_mrcz.widgets.saving import (
    FileEstimate,
    Pace,
    Saved,
    error_text,
    estimate_file,
    save,
    size_text,
)
from napari_mrcz.widgets.size_chart import SizeChart

if TYPE_CHECKING:
    import napari

__all__ = ["SaveStack"]

_WIDTH_PX = 340


class SaveStack(QWidget):
    """Save an image layer as MRC or MRCZ, with choices, an estimate, progress and Cancel.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    estimated : Signal(object)
        A `FileEstimate` is shown, or None where there is none.
    finished : Signal(object)
        Saving has ended: `Saved`, the exception, or None if it was cancelled.
    """

    estimated = Signal(object)
    finished = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        viewer = plain_viewer(napari_viewer)
        self._viewer = viewer
        self._job: Job | None = None
        self._pace = Pace(0)
        self._refusal = ""
        self._tones: dict[WrappedLabel, str] = {}

        self.form = SaveForm(viewer)
        self.chart = SizeChart()
        self.estimate = WrappedLabel("From excerpts of the first, the middle and the last frame")
        self.save_button = QPushButton("Save")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop saving; a file that was there before stays as it was")
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setToolTip("Frames written or verified")
        self.status = WrappedLabel("Progress, and how saving ended")
        self._lay_out()

        self._estimates = LatestJob(self)
        self._estimates.returned.connect(self._on_estimated)
        self._estimates.failed.connect(self._on_not_estimated)
        self.form.changed.connect(self._on_changed)
        self.save_button.clicked.connect(self.save)
        self.cancel_button.clicked.connect(self.cancel)
        connect_while_alive(self, viewer.events.theme, self._on_theme)
        self._on_theme()
        self._on_changed()

    @property
    def saving(self) -> bool:
        """Whether a file is being written or verified."""
        return self._job is not None

    @property
    def busy(self) -> bool:
        """Whether something runs: an estimate or a save."""
        return self.saving or self._estimates.busy

    def sizeHint(self) -> QSize:
        """Give the size that the dock has at first."""
        return QSize(_WIDTH_PX, super().sizeHint().height())

    @Slot()
    def save(self) -> None:
        """Start saving; asks before it replaces a file."""
        if self.saving or self.form.problem():
            return
        options, stack = self.form.options, self.form.stack()
        if stack is None or not self._may_replace(Path(options.path)):
            return
        self._pace = Pace(stack.nbytes // max(1, len(stack)))
        self._job = Job(partial(save, stack, options))
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_saved)
        self._job.returned.connect(partial(_announce, weakref.ref(self)))
        self._job.failed.connect(self._on_failed)
        self._job.failed.connect(partial(_announce, weakref.ref(self)))
        self._job.cancelled.connect(self._on_cancelled)
        self.progress.setRange(0, len(stack))
        self.progress.setValue(0)
        self._tell(self.status, f"Saving {Path(options.path).name}")
        self._show_state()
        self._job.start()

    @Slot()
    def cancel(self) -> None:
        """Stop saving; a file that was there before stays."""
        if self._job is not None:
            self._job.cancel()
            self.cancel_button.setEnabled(False)
            self._tell(self.status, "Cancelling…")

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.save_button)
        buttons.addWidget(self.cancel_button)
        content = QWidget()
        column = QVBoxLayout(content)
        column.addWidget(self.form)
        column.addSpacing(6)
        column.addWidget(self.chart)
        column.addWidget(self.estimate)
        column.addSpacing(6)
        column.addLayout(buttons)
        column.addWidget(self.progress)
        column.addWidget(self.status)
        column.addStretch()
        # On a low screen the form scrolls rather than being squeezed.
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)

    def _show_state(self) -> None:
        """Enable what can be used now, and say why Save cannot."""
        problem = self.form.problem() or self._refusal
        self.save_button.setEnabled(not self.saving and not problem)
        self.save_button.setToolTip(problem or "Write the file; the viewer stays usable meanwhile")
        self.cancel_button.setEnabled(self.saving)
        self.progress.setVisible(self.saving)
        self.form.setEnabled(not self.saving)

    def _may_replace(self, path: Path) -> bool:
        if not path.exists():
            return True
        answer = QMessageBox.question(
            self,
            "Replace the file?",
            f"{path.name} exists already ({size_text(path.stat().st_size)}). Replace it?\n\n"
            "It stays as it is until the new file is complete.",
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    @Slot()
    def _on_changed(self) -> None:
        """Estimate anew, where there is something to be estimated."""
        self._refusal = ""
        problem, options = self.form.problem(), self.form.options
        stack = None if problem else self.form.stack()
        if stack is None:
            self._estimates.drop()
            self._show_estimate(
                None, problem, "text" if self.form.layers.layer is None else "error"
            )
        else:
            self._estimates.request(lambda report: estimate_file(stack, options))
            self._tell(self.estimate, "Estimating…")
        self._show_state()

    @Slot(object)
    def _on_estimated(self, estimate: FileEstimate) -> None:
        self._show_estimate(estimate, str(estimate))

    @Slot(object)
    def _on_not_estimated(self, error: Exception) -> None:
        self._refusal = error_text(error)
        self._show_estimate(None, self._refusal, "error")
        self._show_state()

    def _show_estimate(self, estimate: FileEstimate | None, text: str, tone: str = "text") -> None:
        self.chart.show_estimate(estimate)
        self._tell(self.estimate, text, tone)
        self.estimated.emit(estimate)

    @Slot(str, int, int)
    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        if self.cancel_button.isEnabled():
            self._tell(self.status, self._pace.text(stage, done, total))

    @Slot(object)
    def _on_saved(self, saved: Saved) -> None:
        self._end(saved, str(saved), "text" if saved.ok else "error")

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self._end(error, f"Not saved. {error_text(error)}", "error")

    @Slot()
    def _on_cancelled(self) -> None:
        self._end(None, "Cancelled: nothing was written, and nothing replaced.", "text")

    def _end(self, result: Any, text: str, tone: str) -> None:
        self._job = None
        self._tell(self.status, text, tone)
        self._show_state()
        self.finished.emit(result)

    def _tell(self, label: WrappedLabel, text: str, tone: str = "text") -> None:
        """Show a sentence in the theme's colour for `tone`: text or error."""
        self._tones[label] = tone
        label.setText(text)
        label.setStyleSheet(f"color: {getattr(get_theme(self._viewer.theme), tone).as_hex()}")

    def _on_theme(self, event: Any = None) -> None:
        self.chart.set_theme(get_theme(self._viewer.theme))
        for label, tone in self._tones.items():
            self._tell(label, label.text(), tone)


def _announce(panel: weakref.ref[SaveStack], ended: Saved | Exception) -> None:
    """Tell by a notification where the widget that would tell is closed or hidden."""
    try:
        widget = panel()
        if widget is not None and widget.isVisible():
            return
    except RuntimeError:  # its window is gone, its Python half is not
        pass
    if isinstance(ended, Exception):
        show_error(error_text(ended))
    elif ended.ok:
        show_info(str(ended))
    else:
        show_warning(str(ended))
