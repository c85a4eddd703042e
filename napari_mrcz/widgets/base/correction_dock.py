"""One correction in a dock: movie → options → fit in a thread → lazy layer → save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QKeyEvent, QKeySequence, QShortcut
from qtpy.QtWidgets import QCheckBox, QGridLayout, QWidget

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.derived import LayerWork, works_of
from napari_mrcz.widgets.base.form import WrappedLabel, form, push_button
from napari_mrcz.widgets.base.job import JobControls, LatestJob
from napari_mrcz.widgets.base.layer_picker import LayerPicker, bind_while_alive
from napari_mrcz.widgets.base.panel import Panel

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image

    from napari_mrcz.widgets.base.derived import DerivedLayer
    from napari_mrcz.widgets.base.job import Job, Report

_KEY, _UNDO_KEY = "Shift-B", "Control-Z"
STALE = "Other choices were made since: press Fit again."


class CorrectionDock(Panel):
    """The base of docks that correct a movie.

    A subclass says what a fit is, and shows it; a fit runs to its end for the layer that it was
    started on, and is kept with it. `force` is shown where a fit was refused since the frames look
    counted; `remark` has the warnings.
    """

    fitted = Signal(object)  # a fit of any layer has ended: result, exception, None if cancelled

    work_type: ClassVar[type[LayerWork]] = LayerWork
    main: ClassVar[str] = "corrected"  # key of the derived layer that is toggled and saved
    movie_tip: ClassVar[str] = "The movie; follows the layer selected in the list"
    fit_text: ClassVar[str] = "Fit"
    fit_tip: ClassVar[str] = ""
    save_text: ClassVar[str] = "Save corrected…"
    force_text: ClassVar[str] = "Correct counted electrons, too"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.works = works_of(self.viewer, self.work_type)
        self._shown: Any = ()  # nothing yet
        self._jobs: list[LatestJob] = []
        self.layers = LayerPicker(self, accepts=self.accepts)
        self.layers.setToolTip(self.movie_tip)
        self.controls = JobControls(self, self.fit_text, self.fit_tip, reserve=2)
        self.force = QCheckBox(self.force_text)
        self.force.setToolTip("Fit although the frames seem to be counted electrons already")
        self.remark = WrappedLabel("What is unusual about this movie or fit")
        self.toggle_button = push_button(
            "Show before", "Change between the movie and the corrected one (Shift+B in the viewer)"
        )
        self.reset_button = push_button(
            "Reset", "Take what the fit has found again; Ctrl+Z takes back one change"
        )
        self.save_button = push_button(self.save_text, "Open the Save widget with this movie")
        self.buttons = QWidget()
        grid = QGridLayout(self.buttons)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.toggle_button, 0, 0)
        grid.addWidget(self.reset_button, 0, 1)
        grid.addWidget(self.save_button, 2, 0, 1, 2)
        self.column.setSpacing(4)
        self.rows = form(("Movie", self.layers))
        self.column.addLayout(self.rows)
        for part in (self.controls, self.force, self.remark):
            self.column.addWidget(part)
        self.layers.layer_changed.connect(self._on_layer)
        self.controls.start_button.clicked.connect(self.start_fit)
        self.toggle_button.clicked.connect(self.toggle)
        self.reset_button.clicked.connect(self.reset)
        self.save_button.clicked.connect(self.save_corrected)
        self.works.ended.connect(self._on_ended)
        self.works.changed.connect(self._on_work_changed)
        bind_while_alive(self, self.viewer, _KEY, self.toggle)
        bind_while_alive(self, self.viewer, _UNDO_KEY, self.undo)
        undo = QShortcut(QKeySequence(QKeySequence.StandardKey.Undo), self)
        undo.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        undo.activated.connect(self.undo)
        self.destroyed.connect(lambda: self._let_go())

    def finish(self, *parts: QWidget) -> None:
        """Add the other parts of a dock, and show what is known of the layer picked."""
        for part in parts:
            self.column.addWidget(part)
        self.column.addStretch()
        self.apply_palette(self.palette_now)
        self._on_layer(self.layers.layer)

    def in_background(self, take: Callable[[Any], None], **how: int) -> LatestJob:
        """Return what computes in a thread for the layer picked, and hands it to a method."""
        job = LatestJob(self, **how)
        job.returned.connect(take)
        job.failed.connect(self.on_background_failed)
        self._jobs.append(job)
        return job

    # What a subclass has of its own -------------------------------------------------------------

    def accepts(self, layer: Image) -> bool:
        """Return whether a layer may be a movie for this dock."""
        return not self.works.own(layer)

    def lies_on(self, layer: Any) -> bool:
        """Return whether a layer is a single image of the movie's rows and columns, not derived."""
        movie = self.layers.layer
        if movie is None or layer is movie or layer.multiscale or self.works.own(layer):
            return False
        shape = layer.data.shape
        return bool(shape[-2:] == movie.data.shape[-2:] and all(n == 1 for n in shape[:-2]))

    def problem(self) -> str:
        """Return why the layer picked cannot be fitted, or nothing."""
        layer = self.layers.layer
        if layer is None:
            return "Open or add a movie first."
        try:
            stack_of_layer(layer)
        except MrczError as error:
            return error_text(error)
        return ""

    def fit_work(self, work: Any) -> Callable[[Report], Any]:
        """Return the fit of a layer, for a thread, with what is chosen now."""
        raise NotImplementedError

    def attach(self, job: Job | None, message: str = "", tone: str = "text") -> None:
        """Show what runs for the layer picked, or how the last of it ended."""
        self.controls.attach(job, message, tone)

    def show_work(self) -> None:
        """Show all that is known of the layer picked; may change layers."""

    def show_state(self) -> None:
        """Enable what can be used now, and show the warnings."""
        self.controls.allow(self.problem())
        main = self._main
        self.toggle_button.setEnabled(main is not None)
        self.save_button.setEnabled(main is not None)
        self.toggle_button.setText("Show after" if main and not main.seen else "Show before")

    def place_layers(self) -> None:
        """Lay the derived layers where the movie lies now."""
        if self.work is not None:
            for derived in self.work.derived.values():
                derived.place()

    def on_background_failed(self, error: Exception) -> None:
        """Show what went wrong."""
        self.controls.tell(error_text(error), "error")

    def reset(self) -> None:
        """Take what the fit has found again."""

    def undo(self) -> None:
        """Take back the last change."""

    # What is the same in all --------------------------------------------------------------------

    @property
    def work(self) -> Any:
        """The work on the layer picked, or None."""
        return self.works.of(self.layers.layer)

    @property
    def fit(self) -> Any:
        """The fit of the layer picked, with what was changed since; or None."""
        return None if self.work is None else self.work.fit

    @property
    def busy(self) -> bool:
        """Whether something runs, or is about to."""
        return self.controls.running or any(job.busy for job in self._jobs)

    @property
    def corrected(self) -> Image | None:
        """The layer of the corrected movie."""
        return None if self._main is None else self._main.layer

    @property
    def _main(self) -> DerivedLayer | None:
        return None if self.work is None else self.work.derived.get(self.main)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take back the last change in a field, too, where Qt would only take back the text."""
        if (
            isinstance(event, QKeyEvent)
            and event.type() == QEvent.Type.KeyPress
            and event.matches(QKeySequence.StandardKey.Undo)
        ):
            self.undo()
            return True
        return super().eventFilter(watched, event)

    def start_fit(self) -> None:
        """Fit the layer picked."""
        work = self.work
        if work is not None and work.job is None and not self.problem():
            work.start(self.fit_work(work), self.attach)
            self.show_state()

    def toggle(self) -> None:
        """Show the movie if the corrected one is shown, else that."""
        if (main := self._main) is not None:
            main.show_after(not main.seen)

    def save_corrected(self) -> None:
        """Open the Save widget with the corrected movie."""
        if self.corrected is not None:
            self.open_save_stack(self.corrected)

    def show_warnings(self, *texts: str) -> None:
        """Show sentences near the top, or nothing."""
        said = [text for text in texts if text]
        self.tell(self.remark, "\n".join(said), "warning")
        self.remark.setVisible(bool(said))

    def _on_layer(self, layer: Image | None) -> None:
        work = self.work
        if work is self._shown:
            if self.in_front:
                self.place_layers()
            self.show_state()
            return
        self._shown = work
        if work is None:
            self.attach(None)
        else:
            self.attach(work.job, work.message, work.tone)
        self.force.setChecked(False)
        self.force.setVisible(work is not None and work.is_counted)
        self.when_in_front("work", self._show_work)
        self.show_state()

    def _show_work(self) -> None:
        for job in self._jobs:
            job.drop()
        self.show_work()
        self.show_state()

    def _on_ended(self, work: LayerWork, result: Any) -> None:
        if work is self.work:
            self.attach(None, work.message, work.tone)
            self.force.setVisible(work.is_counted)
            if result is not None and not isinstance(result, Exception):
                self.when_in_front("work", self._show_work)
            self.show_state()
        self.fitted.emit(result)

    def _on_work_changed(self, work: LayerWork) -> None:
        self.layers.refill()  # a derived layer may have become a movie like any other
        if work is self.work:
            self.show_state()

    def _let_go(self) -> None:
        """Keep no movie when the window is gone but the Python half is not."""
        self._shown = None
