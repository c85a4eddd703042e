"""The "MicroED" dock widget: find the beam, fit each annulus, see why, restore cut-off counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QSizePolicy, QSpinBox, QWidget

from napari_mrcz.correction.truncation import TruncationOptions
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.correction_dock import STALE, CorrectionDock
from napari_mrcz.widgets.base.derived import (
    LayerWork,
    frame_shown,
    geometry,
    get_points_ready,
    get_shapes_ready,
)
from napari_mrcz.widgets.base.form import (
    Section,
    WrappedLabel,
    add_rows,
    filled,
    number_field,
    option_field,
    push_button,
    show_number,
)
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import (
    LayerPicker,
    connect_while_alive,
    on_click_while_alive,
    pixel_at,
    plane_of,
)
from napari_mrcz.widgets.microed.model import (
    Center,
    Choice,
    Fit,
    Histogram,
    Outline,
    find_beam,
    fit_truncation,
    outline,
    read_histogram,
    summary,
)
from napari_mrcz.widgets.microed.views import FitTable, Guides, HistogramView, rows

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

_MOST_ANNULI = 60
_BEAM_STOP = "beam stop"
# Of the brush that paints it, in the pattern's longer side.
_BRUSH = 1 / 40
_REST_MS = 100


class SweepWork(LayerWork):
    """The fit of a movie of diffraction patterns, and the beam's (y, x), None while not known."""

    center: Center | None = None


class MicroED(CorrectionDock):
    """Restore likely negative counts where a camera cut them off at zero."""

    title = "MicroED"

    outlined = Signal(object)  # the beam and the annuli are drawn: `Outline`
    found = Signal(object)  # the beam in all frames: (y, x), the exception, None if cancelled
    histogram_shown = Signal(object)  # a `Histogram`

    work_type = SweepWork
    movie_tip = "The diffraction patterns; follows the layer selected in the list"
    fit_tip = "Fit a shifted lognormal distribution to each annulus of each frame"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._finding: SweepWork | None = None
        self.form = SweepForm(self)
        self.offset = WrappedLabel(
            "Added to all pixels where a format has no negative numbers, such as SMV: the "
            "command napari-mrcz microed writes these. MRC files need none"
        )
        self.region = QSpinBox()
        self.region.setKeyboardTracking(False)
        self.region.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.region.setToolTip("The annulus whose histogram is shown; or click it in the pattern")
        self.region_label = QLabel("Annulus")
        self.region_label.setToolTip(self.region.toolTip())
        self._choosing = filled(QWidget(), self.region_label, self.region, across=True)
        self.histogram = HistogramView(self)
        self.table = FitTable()
        self.table_section = Section("Fit of all annuli", self.table)
        self.guides = Guides(self.viewer, self)
        self._outlines = self.in_background(self._on_outlined)
        self._histograms = self.in_background(self._on_histogram)
        self.reset_button.hide()  # nothing of a fit can be changed
        grid: Any = self.buttons.layout()
        grid.addWidget(self.save_button, 0, 1)
        self._connect()
        self.finish(self.offset, self.buttons, self._choosing, self.histogram, self.table_section)

    @property
    def center(self) -> Center | None:
        """Where the beam is, (y, x) in pixels."""
        return None if self.work is None else self.work.center

    @property
    def busy(self) -> bool:
        """Whether something runs, or is about to."""
        return super().busy or self.form.busy

    def problem(self) -> str:
        """Return why the layer picked cannot be fitted, or nothing."""
        layer = self.layers.layer
        if layer is None:
            return "Open or add diffraction patterns first."
        if problem := super().problem():
            return problem
        if np.dtype(layer.data.dtype).kind not in "iuf":
            return "Diffraction patterns are counts, not complex numbers."
        return self.form.problem()

    def fit_work(self, work: SweepWork) -> Callable[[Report], Any]:
        """Return the fit of a layer."""
        return partial(fit_truncation, stack_of_layer(work.layer), self._choice, self._frame)

    def look_for_beam(self) -> None:
        """Find the beam in the sum of all frames."""
        work = self.work
        if work is not None and not self.problem() and not self.form.controls.running:
            self._finding = work
            stack = stack_of_layer(work.layer)
            self.form.controls.run(partial(find_beam, stack, self.form.invalid))

    def set_center(self, y: float, x: float) -> None:
        """Put the beam elsewhere, in pixels; the annuli follow."""
        if self.work is not None:
            self.work.center = (y, x)
            self.form.show_center(self.center, self._shape)
            self.guides.move((y, x))
            self._ask_for_outline()

    @property
    def _choice(self) -> Choice:
        return Choice(
            self.center,
            self.form.annuli.value,
            self.form.invalid,
            self.form.region_labels,
            force=self.force.isChecked(),
        )

    @property
    def _shape(self) -> tuple[int, int] | None:
        return None if self.work is None else self.work.data.shape[-2:]

    @property
    def _frame(self) -> int:
        """Which frame of the layer picked is seen."""
        layer = self.layers.layer
        return frame_shown(self.viewer, layer) if layer in self.viewer.layers else 0

    def _connect(self) -> None:
        self.form.typed.connect(self.set_center)
        self.form.changed.connect(self._ask_for_outline)
        self.form.drag_button.clicked.connect(self._on_drag)
        self.form.controls.start_button.clicked.connect(self.look_for_beam)
        self.form.controls.returned.connect(self._on_found)
        self.form.controls.failed.connect(self._on_not_found)
        self.form.controls.cancelled.connect(lambda: self._on_not_found(None))
        self.guides.moved.connect(self.set_center)
        self.region.valueChanged.connect(self._on_region)
        self.table.chosen.connect(self.region.setValue)
        connect_while_alive(self, self.viewer.layers.events.removed, self._on_removed)
        connect_while_alive(self, self.viewer.dims.events.current_step, self._on_step)
        on_click_while_alive(self, self.viewer, self._on_click)

    # Layers ---------------------------------------------------------------------------------------

    def show_work(self) -> None:
        """Show all that is known of the layer picked."""
        work, fit = self.work, self.fit
        self.form.refill()
        self.form.show_center(self.center, self._shape)
        if work is None or self.guides.source is not work.layer:
            self.guides.remove()
        for part in (self._choosing, self.offset, self.table_section):
            part.setVisible(fit is not None)
        if work is None or fit is None:
            self.histogram.clear()
            self.table.show_rows([])
        else:
            last = fit.model.n_regions
            show_number(self.region, min(self.region.value(), last), 1, last)
            self.region.setSuffix(f" of {last}")
            self.region_label.setText("Annulus" if fit.has_annuli else "Region")
            self.tell(self.offset, summary(fit))
            self._show_corrected(work, fit)
        self._mark_region()
        self._on_step()
        self._ask_for_outline()

    def _show_corrected(self, work: SweepWork, fit: Fit) -> None:
        derived = work.made("corrected", " corrected", replaces=True)
        if derived.layer is None:
            low, high = work.layer.contrast_limits
            # Else what was cut off would be as black as zeros are.
            work.layer.contrast_limits = (min(low, fit.darkest), high)
        if derived.layer is None or derived.layer.data is not fit.corrected:
            derived.show_stack(fit.corrected)

    def place_layers(self) -> None:
        """Lay the derived layers and the guides where the movie lies now."""
        super().place_layers()
        self.guides.place()
        self._ask_for_outline()

    def _on_removed(self, event: Any) -> None:
        if self._finding is not None and self._finding.layer in (None, event.value):
            self.form.controls.cancel()
        if event.value in (self.guides.beam, self.guides.rings):
            self.guides.remove()
            self.form.draw.setChecked(False)
        self.show_state()

    def _let_go(self) -> None:
        """Keep no layer and no movie when the window is gone but the Python half is not."""
        self._finding = None
        self.guides.let_go()
        super()._let_go()

    # Beam and annuli ------------------------------------------------------------------------------

    def _ask_for_outline(self) -> None:
        """Lay the annuli anew, for what is chosen now."""
        self.forget_put_off("outline")
        self.show_state()
        work, choice = self.work, self._choice
        possible = work is not None and not self.problem() and choice.regions is None
        if not (possible and self.form.draw.isChecked()):
            self.guides.remove()
        if possible:
            stack = stack_of_layer(work.layer)
            self._outlines.request(partial(_outline, stack, self._frame, choice))
        else:
            self._outlines.drop()

    def _on_outlined(self, drawn: Outline) -> None:
        self.when_in_front("outline", partial(self._draw, drawn))

    def _draw(self, drawn: Outline) -> None:
        work = self.work
        if work is None:
            return
        work.center = drawn.center
        self.form.show_center(work.center, self._shape)
        if self.form.draw.isChecked():
            self.guides.show(work.layer, drawn.center, drawn.radii)
            self._mark_region()
        self.show_state()
        self.outlined.emit(drawn)

    def _on_found(self, center: Center) -> None:
        work, self._finding = self._finding, None
        if work is not None:
            work.center = center
            if work is self.work:
                self.when_in_front("center", partial(self.set_center, *center))
        self.found.emit(center)

    def _on_not_found(self, error: Exception | None) -> None:
        self._finding = None
        self.found.emit(error)

    def _on_drag(self) -> None:
        self.form.draw.setChecked(True)
        self.guides.grasp()

    # Fitting --------------------------------------------------------------------------------------

    def _on_step(self, event: Any = None) -> None:
        """Show the parameters and the histogram of the frame that is shown."""
        self.when_in_front("step", self._show_step)

    def _show_step(self) -> None:
        fit = self.fit
        if fit is not None:
            frame, region = self._frame, self.region.value()
            self.table.show_rows(rows(fit, frame))
            self.table.choose(region)
            self._histograms.request(partial(read_histogram, fit, frame, region))

    def _on_region(self, region: int) -> None:
        self._mark_region()
        self._on_step()

    def _mark_region(self) -> None:
        fit = self.fit
        annulus = fit is not None and fit.has_annuli and not self._is_stale
        self.guides.choose(self.region.value() if annulus else 0)

    def _on_histogram(self, histogram: Histogram) -> None:
        self.histogram.show_histogram(histogram)
        self.histogram_shown.emit(histogram)

    def _on_click(self, position: tuple[float, ...]) -> None:
        """Choose the annulus that was clicked."""
        fit, layer = self.fit, self.layers.layer
        at = None if layer is None else pixel_at(self.viewer, layer, position)
        if fit is None or at is None:
            return
        if region := int(fit.model.labels[at[:2]]):
            self.region.setValue(region)

    @property
    def _is_stale(self) -> bool:
        """Whether something else was chosen since the fit."""
        return self.fit is not None and not self.fit.choice.is_as(self._choice)

    def show_state(self) -> None:
        """Enable what can be used now, and show what is unusual."""
        super().show_state()
        self.form.show_state(self.problem())
        warnings = () if self.fit is None else self.fit.model.warnings
        self.show_warnings(STALE if self._is_stale else "", *warnings)


class SweepForm(QObject):
    """Rows of the dock's form: where the beam is, and which pixels are fitted alike."""

    typed = Signal(float, float)  # another centre, (y, x) in pixels
    changed = Signal()  # other annuli or labels were chosen, or labels painted

    def __init__(self, panel: CorrectionDock) -> None:
        super().__init__(panel)
        self._panel = panel
        self.row = number_field(
            (0, 1), 1, "", "Row of the beam in pixels, 0 at the top of the view"
        )
        self.column = number_field((0, 1), 1, "", "Column of the beam in pixels, from 0, left")
        for number, name in ((self.row, "row "), (self.column, "col. ")):
            number.setPrefix(name)
            number.setDecimals(1)
            number.setButtonSymbols(number.ButtonSymbols.NoButtons)  # room for the digits
            number.valueChanged.connect(self._on_typed)
        self.controls = JobControls(
            panel, "Find beam", "Find what the sum of all frames is most nearly symmetric about"
        )
        self.drag_button = push_button(
            "Drag beam", "Drag the cross over the pattern with the mouse; the annuli follow it"
        )
        self.controls.buttons.insertWidget(1, self.drag_button)
        self.annuli = option_field(TruncationOptions, "n_annuli")
        self.annuli.max = _MOST_ANNULI
        self.draw = QCheckBox("Draw")
        self.draw.setToolTip("Draw the beam and where annuli end over the pattern")
        self.draw.setChecked(True)
        self.masks = self._picker("none")
        self.masks.setToolTip(
            "A labels layer: what is painted is not valid, such as the shadow of the beam stop. "
            "These pixels are neither fitted nor changed"
        )
        self.paint_button = push_button(
            "Paint…",
            "Paint the beam stop's shadow with napari's brush, on the labels layer picked or a "
            "new one",
        )
        self.regions = self._picker("annuli about the beam")
        self.regions.setToolTip(
            "Which pixels have the same distribution: annuli, or those of each label of a layer"
        )
        add_rows(
            panel.rows,
            ("Beam", filled(QWidget(), self.row, self.column, across=True)),
            ("", self.controls),
            ("Annuli", filled(QWidget(), self.annuli.native, self.draw, across=True)),
            ("Beam stop", filled(QWidget(), self.masks, self.paint_button, across=True)),
            ("Regions", self.regions),
        )
        # Labels are looked at when the brush rests; some events come before pixels have changed.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_REST_MS)
        self._soon.timeout.connect(self.changed)
        for picker in (self.masks, self.regions):
            picker.layer_changed.connect(lambda layer: self._soon.start())
        self.annuli.changed.connect(lambda n: self.changed.emit())
        self.draw.toggled.connect(lambda on: self.changed.emit())
        self.paint_button.clicked.connect(self.paint)

    @property
    def busy(self) -> bool:
        """Whether the beam is looked for, or what was painted is about to be looked at."""
        return self.controls.running or self._soon.isActive()

    @property
    def invalid(self) -> npt.NDArray[np.bool_] | None:
        """Pixels that are not valid, as they are now."""
        labels = plane_of(self.masks.layer)
        return None if labels is None else labels != 0

    @property
    def region_labels(self) -> npt.NDArray[Any] | None:
        """Labels in the place of annuli, as they are now."""
        labels = plane_of(self.regions.layer)
        return None if labels is None else labels.copy()

    def problem(self) -> str:
        """Return why a movie cannot be fitted with these labels, or nothing."""
        if self.masks.layer is not None and self.masks.layer is self.regions.layer:
            return "The beam stop and the regions are the same layer."
        return ""

    def refill(self) -> None:
        """Offer the labels that fit the patterns."""
        self.masks.refill()
        self.regions.refill()

    def show_state(self, problem: str) -> None:
        """Enable what can be used now: without a layer of regions, the beam and its annuli."""
        self.controls.allow(problem)
        self.paint_button.setEnabled(self._panel.layers.layer is not None)
        beam = self.row, self.column, self.controls, self.annuli.native, self.draw
        for part in beam:
            part.setEnabled(self.regions.layer is None)

    def show_center(self, center: Center | None, shape: tuple[int, int] | None) -> None:
        """Show where the beam is in a pattern of so many rows and columns; nothing is emitted."""
        sizes = shape or (1, 1)
        for field, at, size in zip(
            (self.row, self.column), center or (0.0, 0.0), sizes, strict=True
        ):
            show_number(field, at, -size, 2 * size)
            field.setReadOnly(center is None)
        self.drag_button.setEnabled(center is not None)

    def paint(self) -> None:
        """Take napari's brush, on the beam stop's layer; made where there is none."""
        movie, layer = self._panel.layers.layer, self.masks.layer
        if movie is None:
            return
        viewer, shape = self._panel.viewer, movie.data.shape[-2:]
        if layer is None:
            layer = viewer.add_labels(
                np.zeros(shape, np.uint8), name=_BEAM_STOP, opacity=0.5, **geometry(movie, 2)
            )
            layer.brush_size = max(3, round(max(shape) * _BRUSH))
            self.masks.pick(layer)
        viewer.layers.selection.active = layer
        layer.selected_label = 1
        layer.mode = "paint"

    def _picker(self, none: str) -> LayerPicker:
        return LayerPicker(self._panel, accepts=self._panel.lies_on, none=none, kind=Labels)

    def _on_typed(self) -> None:
        self.typed.emit(self.row.value(), self.column.value())


def _outline(stack: Stack, frame: int, choice: Choice, report: Report) -> Outline:
    """Lay the annuli, and get ready to draw them."""
    drawn = outline(stack, frame, choice, report)
    get_shapes_ready()
    get_points_ready()
    return drawn
