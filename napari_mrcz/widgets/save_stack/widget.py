"""The "Save" dock widget: a form, what the file will take, and saving with progress."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QHBoxLayout, QMessageBox, QProgressBar, QPushButton

from napari_mrcz.errors import error_text, size_text
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import Job, LatestJob
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.save_stack.explorer import Explorer
from napari_mrcz.widgets.save_stack.form import SaveForm, SizeChart
from napari_mrcz.widgets.save_stack.model import FileEstimate, Pace, Saved, estimate_file, save

if TYPE_CHECKING:
    import napari

    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.save_stack.explorer import Trial


class SaveStack(Panel):
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

    title = "Save"

    estimated = Signal(object)
    finished = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._job: Job | None = None
        self._pace = Pace(0)
        self._refusal = ""

        self.form = SaveForm(self)
        self.chart = SizeChart()
        self.explorer = Explorer(self)
        self.estimate = WrappedLabel("From excerpts of the first, the middle and the last frame")
        self.save_button = QPushButton("Save")
        self.cancel_button = push_button(
            "Cancel", "Stop saving; a file that was there before stays as it was"
        )
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setToolTip("Frames written or verified")
        self.status = WrappedLabel("Progress, and how saving ended")
        self._lay_out()

        self._estimates = LatestJob(self)
        self._estimates.returned.connect(self._on_estimated)
        self._estimates.failed.connect(self._on_not_estimated)
        self.form.changed.connect(self._on_changed)
        self.explorer.controls.start_button.clicked.connect(self._explore)
        self.explorer.chosen.connect(self._choose)
        self.form.layers.layer_changed.connect(self.explorer.clear)
        self.save_button.clicked.connect(self.save)
        self.cancel_button.clicked.connect(self.cancel)
        self.apply_palette(self.palette_now)
        self._on_changed()

    @property
    def saving(self) -> bool:
        """Whether a file is being written or verified."""
        return self._job is not None

    @property
    def busy(self) -> bool:
        """Whether something runs: an estimate, a comparison or a save."""
        return self.saving or self._estimates.busy or self.explorer.busy

    @Slot()
    def save(self) -> None:
        """Start saving; asks before it replaces a file."""
        if self.saving or self.form.problem():
            return
        options, stack = self.form.options, self.form.stack()
        if stack is None:
            return
        # A file that comes there after the question was not asked about.
        replaces = Path(options.path).exists()
        if replaces and not self._may_replace(Path(options.path)):
            return
        self._pace = Pace(stack.nbytes // max(1, len(stack)))
        self._job = Job(partial(save, stack, options, overwrite=replaces))
        self._job.progressed.connect(self._on_progress)
        self._job.returned.connect(self._on_saved)
        self._job.returned.connect(partial(_announce, weakref.ref(self)))
        self._job.failed.connect(self._on_failed)
        self._job.failed.connect(partial(_announce, weakref.ref(self)))
        self._job.cancelled.connect(self._on_cancelled)
        self.progress.setRange(0, len(stack))
        self.progress.setValue(0)
        self.tell(self.status, f"Saving {Path(options.path).name}")
        self._show_state()
        self._job.start()

    @Slot()
    def cancel(self) -> None:
        """Stop saving; a file that was there before stays."""
        if self._job is not None:
            self._job.cancel()
            self.cancel_button.setEnabled(False)
            self.tell(self.status, "Cancelling…")

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.save_button)
        buttons.addWidget(self.cancel_button)
        column = self.column
        column.addWidget(self.form)
        column.addSpacing(6)
        column.addWidget(self.chart)
        column.addWidget(self.estimate)
        column.addWidget(self.explorer)
        column.addSpacing(6)
        column.addLayout(buttons)
        column.addWidget(self.progress)
        column.addWidget(self.status)
        column.addStretch()

    def _show_state(self) -> None:
        """Enable what can be used now, and say why Save cannot."""
        problem = self.form.problem() or self._refusal
        self.save_button.setEnabled(not self.saving and not problem)
        self.save_button.setToolTip(problem or "Write the file; the viewer stays usable meanwhile")
        self.cancel_button.setEnabled(self.saving)
        self.progress.setVisible(self.saving)
        self.form.setEnabled(not self.saving)
        uncompressed = "" if self.form.options.compressed else "This file is not compressed."
        self.explorer.controls.allow(problem or uncompressed)

    @Slot()
    def _explore(self) -> None:
        stack = self.form.stack()
        if stack is not None:
            self.explorer.explore(stack, self.form.options)

    @Slot(object)
    def _choose(self, trial: Trial) -> None:
        self.form.choose(trial.codec, trial.level, trial.filter)

    def _may_replace(self, path: Path) -> bool:
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
            self.tell(self.estimate, "Estimating…")
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
        self.tell(self.estimate, text, tone)
        self.estimated.emit(estimate)

    @Slot(str, int, int)
    def _on_progress(self, stage: str, done: int, total: int) -> None:
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        if self.cancel_button.isEnabled():
            self.tell(self.status, self._pace.text(stage, done, total))

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
        self.tell(self.status, text, tone)
        self._show_state()
        self.finished.emit(result)

    def apply_palette(self, colours: Palette) -> None:
        """Colour the bars of the chart, and the plot."""
        self.chart.apply_palette(colours)
        self.explorer.apply_palette(colours)


def _announce(panel: weakref.ref[SaveStack], ended: Saved | Exception) -> None:
    """Show a notification where the widget that would tell is closed or hidden."""
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
