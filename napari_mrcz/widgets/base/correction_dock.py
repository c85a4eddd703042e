"""One correction in a dock: movie → options → fit in a thread → lazy layer → save."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QKeyEvent, QKeySequence, QShortcut
from qtpy.QtWidgets import QCheckBox, QGridLayout, QTableWidget, QTableWidgetItem, QWidget

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.derived import LayerWork, add_layer, frame_shown, geometry, works_of
from napari_mrcz.widgets.base.form import WrappedLabel, form, push_button, show_number
from napari_mrcz.widgets.base.job import JobControls, LatestJob
from napari_mrcz.widgets.base.layer_picker import (
    LayerPicker,
    bind_while_alive,
    on_click_while_alive,
    pixel_at,
    plane_of,
)
from napari_mrcz.widgets.base.panel import Panel
from napari_mrcz.widgets.base.plot import Plot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari
    import numpy.typing as npt
    import pyqtgraph as pg
    from napari.layers import Image

    from napari_mrcz.widgets.base.form import NumberField
    from napari_mrcz.widgets.base.job import Job, Report

_KEY, _UNDO_KEY = "Shift-B", "Control-Z"
_ROWS_SHOWN = 10
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
        on_click_while_alive(self, self.viewer, self._on_click)
        self.destroyed.connect(lambda: self._let_go())

    def finish(self, *parts: QWidget) -> None:
        """Add the other parts of a dock, and show what is known of the layer picked."""
        for part in parts:
            self.column.addWidget(part)
        self.column.addStretch()
        self.apply_palette(self.palette_now)
        self._on_layer(self.layers.layer)

    def in_background(self, take: Callable[[Any], None]) -> LatestJob:
        """Return what computes for the layer picked in a thread, and is taken when in front."""
        job = _FrontJob(self)
        job.returned.connect(lambda found: self.when_in_front(job, partial(take, found)))
        job.failed.connect(self.on_background_failed)
        self._jobs.append(job)
        return job

    def label_picker(self, none: str, tip: str) -> LayerPicker:
        """Return a list of the labels layers that lie on the movie, and of none."""
        picker = LayerPicker(self, accepts=self.lies_on, none=none, kind=Labels)
        picker.setToolTip(tip)
        return picker

    def add_labels(
        self, picker: LayerPicker, mask: npt.NDArray[Any], name: str, **look: Any
    ) -> Labels:
        """Add labels that lie on the movie, which napari's tools can paint, and pick them."""
        labels = Labels(mask.astype(np.uint8), name=name, **look, **geometry(self.layers.layer, 2))
        add_layer(self.viewer, labels)
        picker.pick(labels)
        return labels

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
        layer = self.corrected
        for button in (self.toggle_button, self.save_button):
            button.setEnabled(layer is not None)
        self.toggle_button.setText("Show after" if layer and not layer.visible else "Show before")

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

    def restore(self, state: Any) -> None:
        """Take what the work remembers of the time before a change."""

    def on_pixel(self, row: int, column: int, reach: int) -> None:
        """Show a pixel of a fitted movie that was clicked; so near to it comes what is meant."""

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
    def frame(self) -> int:
        """The frame of the layer picked that is shown."""
        layer = self.layers.layer
        return 0 if layer is None else frame_shown(self.viewer, layer)

    @property
    def busy(self) -> bool:
        """Whether something runs, or is about to."""
        return self.controls.running or any(job.busy for job in self._jobs)

    @property
    def corrected(self) -> Any:
        """The layer of the corrected movie, or None."""
        return self.derived(self.main)

    def derived(self, key: str) -> Any:
        """Return a layer made from the one picked, or None."""
        made = None if self.work is None else self.work.derived.get(key)
        return None if made is None else made.layer

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

    def undo(self) -> None:
        """Take back the last change."""
        if self.work is not None and self.work.before:
            self.restore(self.work.before.pop())

    def toggle(self) -> None:
        """Show the movie if the corrected one is shown, else that."""
        if (layer := self.corrected) is not None:
            self.work.derived[self.main].show_after(not layer.visible)

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

    def _on_click(self, position: tuple[float, ...]) -> None:
        if self.fit is not None and (at := pixel_at(self.viewer, self.layers.layer, position)):
            self.on_pixel(*at)

    def _let_go(self) -> None:
        """Keep no movie when the window is gone but the Python half is not."""
        self._shown = None


class _FrontJob(LatestJob):
    """What has been computed waits for its panel to be in front, as long as it is wanted."""

    def __init__(self, panel: Panel) -> None:
        super().__init__(panel)
        self._panel = panel

    def drop(self) -> None:
        """Forget what was requested; its result will not be shown."""
        super().drop()
        self._panel.forget_put_off(self)


def marked(picker: LayerPicker) -> npt.NDArray[np.bool_] | None:
    """Return the pixels that the labels picked mark, (y, x); None without labels."""
    labels = plane_of(picker.layer)
    return None if labels is None else labels != 0


class Threshold(QObject):
    """A number that is typed in a field, or dragged by lines of plots, which all show it.

    A drag is one change that can be taken back: it `goes_on` when the first part has been told of,
    to the moment when the line is let go.
    """

    changed = Signal(float)

    def __init__(self, field: NumberField, *lines: pg.InfiniteLine) -> None:
        super().__init__(field)
        self.field, self.lines = field, lines
        self.goes_on = self._showing = False
        field.valueChanged.connect(self._on_typed)
        for line in lines:
            line.sigPositionChanged.connect(self._on_dragged)
            line.sigPositionChangeFinished.connect(self._on_dragged)

    @property
    def is_dragged(self) -> bool:
        """Whether the mouse holds one of the lines."""
        return any(line.moving for line in self.lines)

    def show(self, value: float, span: tuple[float, float], drawn: tuple[float, float]) -> None:
        """Show a number within a span, of which a part is drawn; nothing is emitted."""
        self._showing = True
        show_number(self.field, value, *span)
        for line in self.lines:
            line.setVisible(True)  # a label that is not seen takes no value
            line.setBounds((max(span[0], drawn[0]), min(span[1], drawn[1])))
            line.setValue(value)
        self._showing = False

    def _on_typed(self, value: float) -> None:
        self.goes_on = False
        self.changed.emit(value)

    def _on_dragged(self, line: pg.InfiniteLine) -> None:
        if not self._showing:
            self.changed.emit(round(line.value(), self.field.decimals()))
            self.goes_on = line.moving


class HistogramPlot(Plot):
    """How many there are of each value; these numbers have a logarithmic axis."""

    def __init__(self, x: str, y: str, tip: str) -> None:
        super().__init__(x, y, tip)
        self.getPlotItem().setLogMode(x=False, y=True)
        self.setXRange(-20, 100)
        self.setYRange(0, 3)

    def show_all(self) -> None:
        """Show all values that the curves have, and numbers from 1 to the most."""
        values, numbers = (
            np.concatenate([getattr(curve, axis) for curve in self.getPlotItem().listDataItems()])
            for axis in ("xData", "yData")
        )
        self.setXRange(values.min(), values.max(), padding=0.03)
        self.setYRange(-0.15, np.log10(max(numbers.max(), 10)) + 0.15, padding=0)


class RowTable(QTableWidget):
    """Rows of texts below headings, which have tips; as high as its rows, up to ten."""

    chosen = Signal(int)  # a row, from 0 on

    def __init__(self, heads: Sequence[tuple[str, str]], tip: str) -> None:
        super().__init__(0, len(heads))
        self.setToolTip(tip)
        self.setSelectionBehavior(self.SelectionBehavior.SelectRows)
        self.setSelectionMode(self.SelectionMode.SingleSelection)
        self.setEditTriggers(self.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        head: Any = self.horizontalHeader()
        side: Any = self.verticalHeader()
        side.setVisible(False)
        side.setDefaultSectionSize(self.fontMetrics().height() + 6)
        for column, (name, about) in enumerate(heads):
            item = QTableWidgetItem(name)
            item.setToolTip(about)
            self.setHorizontalHeaderItem(column, item)
        head.setMinimumSectionSize(36)
        head.setSectionResizeMode(head.ResizeMode.Stretch)
        head.setSectionResizeMode(0, head.ResizeMode.ResizeToContents)
        self.itemSelectionChanged.connect(self._on_selected)

    def show_rows(self, rows: Sequence[Sequence[str]]) -> None:
        """Show other rows; the chosen one stays where there are as many."""
        if len(rows) != self.rowCount():
            self.setRowCount(len(rows))
            head: Any = self.horizontalHeader()
            side: Any = self.verticalHeader()
            shown = min(len(rows), _ROWS_SHOWN) * side.defaultSectionSize()
            self.setFixedHeight(head.sizeHint().height() + shown + 4)
        for (row, column), text in np.ndenumerate(np.array(rows, object)):
            if (item := self.item(row, column)) is None:
                item = QTableWidgetItem()
                at = Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft
                item.setTextAlignment(at | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
            item.setText(text or "\N{EN DASH}")

    def choose(self, row: int) -> None:
        """Mark a row; nothing is emitted."""
        self.blockSignals(True)
        self.selectRow(row)
        self.blockSignals(False)

    def _on_selected(self) -> None:
        if rows := self.selectedIndexes():
            self.chosen.emit(rows[0].row())
