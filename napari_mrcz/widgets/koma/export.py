"""Correcting the whole session into a folder: the button, its questions, and how it ended."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QFileDialog, QMessageBox, QVBoxLayout, QWidget

from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.koma.pace import Pace

if TYPE_CHECKING:
    from pathlib import Path

    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.koma.correcting import Corrected, Targets
    from napari_mrcz.widgets.koma.model import KomaModel

_MOST_NAMED = 5
# Corrected frames are float32.
_ITEMSIZE = 4


class Export(QWidget):
    """The "Correct all…" button, with progress and Cancel.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    koma : KomaModel
        What is corrected.

    Attributes
    ----------
    finished : Signal(object)
        `Corrected`, or the exception.
    """

    finished = Signal(object)

    def __init__(self, panel: Panel, koma: KomaModel) -> None:
        super().__init__()
        self._koma = koma
        self._pace = Pace()
        self._folder = ""
        self.controls = JobControls(
            panel,
            "Correct all…",
            "Write every stack, corrected, into a folder that you choose",
            lambda *step: self._pace.text(*step),
        )
        self.controls.cancel_button.setToolTip(
            "Stop: files that are complete stay, and nothing is left of the one under way"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.controls)
        self.controls.start_button.clicked.connect(self._ask_folder)
        self.controls.returned.connect(self._on_returned)
        self.controls.failed.connect(self.finished)

    def correct_into(self, folder: str) -> None:
        """Correct all into a folder; asks about files that are there."""
        reading = self._koma.choice().reading
        targets = self._koma.targets(folder)
        if problem := targets.problem(reading.entries):
            self.controls.tell(problem, "error")
            return
        replaced = self._may_replace(targets)
        if replaced is None:
            return
        y, x = reading.session.total(0).shape
        n_stacks = len(targets.paths) - len(targets.existing) + len(replaced)
        self._pace = Pace(n_stacks, y * x * _ITEMSIZE)
        job = self.controls.run(self._koma.correct(targets, replaced))
        if job is not None:
            job.returned.connect(partial(_announce, weakref.ref(self)))

    @Slot()
    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Correct all stacks into a folder", self._folder
        )
        if folder:
            self._folder = folder
            self.correct_into(folder)

    def _may_replace(self, targets: Targets) -> tuple[Path, ...] | None:
        """Return the files that may be replaced, None if nothing is to be done at all."""
        existing = targets.existing
        if not existing:
            return ()
        names = ", ".join(path.name for path in existing[:_MOST_NAMED])
        more = f" and {len(existing) - _MOST_NAMED} more" if len(existing) > _MOST_NAMED else ""
        box = QMessageBox(
            QMessageBox.Icon.Question,
            "Replace files?",
            f"{len(existing)} of {len(targets.paths)} files exist already in "
            f"{targets.folder.name}: {names}{more}.",
            parent=self,
        )
        replace = box.addButton("Replace", QMessageBox.ButtonRole.DestructiveRole)
        skip = box.addButton("Skip", QMessageBox.ButtonRole.AcceptRole)
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(skip)
        box.exec()
        if box.clickedButton() is replace:
            return existing
        return () if box.clickedButton() is skip else None

    @Slot(object)
    def _on_returned(self, corrected: Corrected) -> None:
        is_well = corrected.ok and not corrected.warnings
        self.controls.tell(str(corrected), "text" if is_well else "warning")
        self.finished.emit(corrected)


def _announce(export: weakref.ref[Export], corrected: Any) -> None:
    """Notify where the widget that would tell is closed or hidden."""
    try:
        widget = export()
        if widget is not None and widget.isVisible():
            return
    except RuntimeError:  # its window is gone, its Python half is not
        pass
    (show_info if corrected.ok and not corrected.warnings else show_warning)(f"KOMA: {corrected}")
