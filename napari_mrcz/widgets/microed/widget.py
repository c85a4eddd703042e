"""The "MicroED" dock widget: find the beam, fit each annulus, see why, restore cut-off counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QSizePolicy, QSpinBox, QWidget

from napari_mrcz.correction.truncation import TruncationOptions
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.correction_dock import (
    STALE,
    CorrectionDock,
    HistogramPlot,
    RowTable,
    marked,
)
from napari_mrcz.widgets.base.derived import LayerWork, get_points_ready, get_shapes_ready
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
from napari_mrcz.widgets.base.layer_picker import connect_while_alive, plane_of
from napari_mrcz.widgets.base.plot import Key
from napari_mrcz.widgets.microed import model
from napari_mrcz.widgets.microed.guides import Guides

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.microed.model import Center, Histogram

_MOST_ANNULI = 60
# Of the brush that paints the beam stop, in the pattern's longer side.
_BRUSH = 1 / 40


class SweepWork(LayerWork):
    """The fit of a movie of diffraction patterns, and the beam's (y, x), None while not known."""

    center: Center | None = None


class MicroED(CorrectionDock):
    """Restore likely negative counts where a camera cut them off at zero."""

    title = "MicroED"

    work_type = SweepWork
    movie_tip = "The diffraction patterns; follows the layer selected in the list"
    fit_tip = "Fit a shifted lognormal distribution to each annulus of each frame"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._finding: SweepWork | None = None
        self._fill_form()
        self.offset = WrappedLabel(
            "Added to all pixels where a format has no negative numbers, such as SMV: the "
            "command napari-mrcz microed writes these. MRC files need none"
        )
        self.region = QSpinBox()
        self.region.setKeyboardTracking(False)
        self.region.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.region.setToolTip("The annulus whose histogram is shown; or click it in the pattern")
        self.histogram_title = WrappedLabel(
            "Which pixels are counted here, and how many were cut off"
        )
        self.histogram = HistogramPlot(
            "counts",
            "pixels",
            "How many pixels have each count, after fig. 1 of doi:10.1107/S1600576716007196. "
            "Beyond the line, at the right, are Bragg spots",
        )
        self.curves = {
            "recorded": self.histogram.curve("hot", symbol="o"),
            "corrected": self.histogram.curve("text", symbol="o"),
            "fitted": self.histogram.curve("model"),
        }
        self.histogram.line("grid").setVisible(True)
        self.legend = Key(
            (("hot", "●", "recorded"), ("text", "●", "corrected"),
             ("model", "━", "fitted lognormal"))
        )  # fmt: skip
        self.table = RowTable(
            model.COLUMNS, "What was fitted to the frame that is shown; choose a row to see it"
        )
        self.table_section = Section("Fit of all annuli", self.table)
        self.guides = Guides(self.viewer, self)
        self._outlines = self.in_background(self._on_outlined)
        self._histograms = self.in_background(self._on_histogram)
        self.reset_button.hide()  # nothing of a fit can be changed
        grid: Any = self.buttons.layout()
        grid.addWidget(self.save_button, 0, 1)
        for signal, slot in (
            (self.drag_button.clicked, self._on_drag),
            (self.search.start_button.clicked, self.look_for_beam),
            (self.search.returned, self._on_found),
            (self.guides.moved, self.set_center),
            (self.region.valueChanged, self._on_step),
            (self.table.chosen, lambda row: self.region.setValue(row + 1)),
        ):
            signal.connect(slot)
        connect_while_alive(self, self.viewer.layers.events.removed, self._on_removed)
        connect_while_alive(self, self.viewer.dims.events.current_step, self._on_step)
        drawn = filled(QWidget(), self.histogram_title, self.histogram, self.legend)
        self.finish(self.offset, self.buttons, self.region, drawn, self.table_section)

    def _fill_form(self) -> None:
        """Add rows: where the beam is, and which pixels are fitted alike."""
        tip = "Row of the beam in pixels, 0 at the top of the view"
        self.beam_row = number_field((0, 1), 1, "", tip)
        self.beam_column = number_field((0, 1), 1, "", "Column of the beam in pixels, from 0, left")
        for number, name in ((self.beam_row, "row "), (self.beam_column, "col. ")):
            number.setPrefix(name)
            number.setDecimals(1)
            number.setButtonSymbols(number.ButtonSymbols.NoButtons)  # room for the digits
            number.valueChanged.connect(
                lambda: self.set_center(self.beam_row.value(), self.beam_column.value())
            )
        self.search = JobControls(
            self, "Find beam", "Find what the sum of all frames is most nearly symmetric about"
        )
        self.drag_button = push_button(
            "Drag beam", "Drag the cross over the pattern with the mouse; the annuli follow it"
        )
        self.search.buttons.insertWidget(1, self.drag_button)
        self.annuli = option_field(TruncationOptions, "n_annuli")
        self.annuli.max = _MOST_ANNULI
        self.draw = QCheckBox("Draw")
        self.draw.setToolTip("Draw the beam and where annuli end over the pattern")
        self.draw.setChecked(True)
        self.masks = self.label_picker(
            "none",
            "A labels layer: what is painted is not valid, such as the shadow of the beam stop. "
            "These pixels are neither fitted nor changed",
        )
        self.paint_button = push_button(
            "Paint…",
            "Paint the beam stop's shadow with napari's brush, on the labels layer picked or a "
            "new one",
        )
        self.regions = self.label_picker(
            "annuli about the beam",
            "Which pixels have the same distribution: annuli, or those of each label of a layer",
        )
        add_rows(
            self.rows,
            ("Beam", filled(QWidget(), self.beam_row, self.beam_column, across=True)),
            ("", self.search),
            ("Annuli", filled(QWidget(), self.annuli.native, self.draw, across=True)),
            ("Beam stop", filled(QWidget(), self.masks, self.paint_button, across=True)),
            ("Regions", self.regions),
        )
        # Labels are looked at when the brush rests; some events come before pixels have changed.
        self._resting = self.in_background(lambda _: self._ask_for_outline())
        for picker in (self.masks, self.regions):
            picker.layer_changed.connect(lambda _: self._resting.request(lambda report: None))
        self.annuli.changed.connect(lambda n: self._ask_for_outline())
        self.draw.toggled.connect(self._ask_for_outline)
        self.paint_button.clicked.connect(self.paint)

    @property
    def center(self) -> Center | None:
        """Where the beam is, (y, x) in pixels."""
        return None if self.work is None else self.work.center

    @property
    def busy(self) -> bool:
        """Whether something runs, or is about to."""
        return super().busy or self.search.running

    def problem(self) -> str:
        """Return why the layer picked cannot be fitted, or nothing."""
        if problem := super().problem():
            return problem
        if np.dtype(self.layers.layer.data.dtype).kind not in "iuf":
            return "Diffraction patterns are counts, not complex numbers."
        if self.masks.layer is not None and self.masks.layer is self.regions.layer:
            return "The beam stop and the regions are the same layer."
        return ""

    def fit_work(self, work: SweepWork) -> Callable[[Report], Any]:
        """Return the fit of a layer."""
        return partial(model.fit_truncation, stack_of_layer(work.layer), self._choice, self.frame)

    def look_for_beam(self) -> None:
        """Find the beam in the sum of all frames."""
        work = self.work
        if work is not None and not self.problem() and not self.search.running:
            self._finding = work
            self.search.run(
                partial(model.find_beam, stack_of_layer(work.layer), marked(self.masks))
            )

    def set_center(self, y: float, x: float) -> None:
        """Put the beam elsewhere, in pixels; the annuli follow."""
        if self.work is not None:
            self.work.center = (y, x)
            self._show_center()
            self.guides.place((y, x))
            self._ask_for_outline()

    def paint(self) -> None:
        """Take napari's brush, on the beam stop's layer; made where there is none."""
        movie, layer = self.layers.layer, self.masks.layer
        if movie is None:
            return
        if layer is None:
            shape = movie.data.shape[-2:]
            layer = self.add_labels(self.masks, np.zeros(shape), "beam stop", opacity=0.5)
            layer.brush_size = max(3, round(max(shape) * _BRUSH))
        self.viewer.layers.selection.active = layer
        layer.selected_label = 1
        layer.mode = "paint"

    @property
    def _choice(self) -> model.Choice:
        regions = plane_of(self.regions.layer)
        return model.Choice(
            self.center,
            self.annuli.value,
            marked(self.masks),
            None if regions is None else regions.copy(),
            force=self.force.isChecked(),
        )

    # Layers ---------------------------------------------------------------------------------------

    def show_work(self) -> None:
        """Show all that is known of the layer picked."""
        work, fit = self.work, self.fit
        for picker in (self.masks, self.regions):
            picker.refill()
        self._show_center()
        if work is None or self.guides.source is not work.layer:
            self.guides.remove()
        for part in (self.region, self.offset, self.table_section):
            part.setVisible(fit is not None)
        if fit is None:
            invitation = "Fit, then click an annulus in the pattern to see its histogram."
            self.tell(self.histogram_title, invitation, "muted")
            for curve in self.curves.values():
                curve.setData([], [])
            self.table.show_rows([])
        else:
            last = fit.model.n_regions
            show_number(self.region, min(self.region.value(), last), 1, last)
            self.region.setSuffix(f" of {last}")
            self.region.setPrefix("Annulus " if fit.has_annuli else "Region ")
            self.tell(self.offset, model.summary(fit))
            corrected = work.made("corrected", " corrected", replaces=True)
            if corrected.layer is None:
                low, high = work.layer.contrast_limits
                # Else what was cut off would be as black as zeros are.
                work.layer.contrast_limits = (min(low, fit.darkest), high)
            if corrected.layer is None or corrected.layer.data is not fit.corrected:
                corrected.show_stack(fit.corrected)
        self._on_step()
        self._ask_for_outline()

    def place_layers(self) -> None:
        """Lay the derived layers and the guides where the movie lies now."""
        super().place_layers()
        self.guides.place()
        self._ask_for_outline()

    def _on_removed(self, event: Any) -> None:
        if self._finding is not None and self._finding.layer in (None, event.value):
            self.search.cancel()
        if event.value in (self.guides.beam, self.guides.rings):
            self.guides.remove()
            self.draw.setChecked(False)
        self.show_state()

    def _let_go(self) -> None:
        """Keep no layer and no movie when the window is gone but the Python half is not."""
        self._finding = None
        self.guides.let_go()
        super()._let_go()

    # Beam and annuli ------------------------------------------------------------------------------

    def _show_center(self) -> None:
        """Show where the beam is; nothing is emitted."""
        center, work = self.center, self.work
        sizes = (1, 1) if work is None else work.data.shape[-2:]
        fields = self.beam_row, self.beam_column
        for field, at, size in zip(fields, center or (0.0, 0.0), sizes, strict=True):
            show_number(field, at, -size, 2 * size)
            field.setReadOnly(center is None)
        self.drag_button.setEnabled(center is not None)

    def _ask_for_outline(self) -> None:
        """Lay the annuli anew, for what is chosen now."""
        self.show_state()
        work, choice = self.work, self._choice
        possible = work is not None and not self.problem() and choice.regions is None
        if not (possible and self.draw.isChecked()):
            self.guides.remove()
        if possible:
            stack = stack_of_layer(work.layer)
            self._outlines.request(partial(_outline, stack, self.frame, choice))
        else:
            self._outlines.drop()

    def _on_outlined(self, drawn: tuple[Center, npt.NDArray[np.float64]]) -> None:
        center, radii = drawn
        self.work.center = center
        self._show_center()
        if self.draw.isChecked():
            self.guides.show(self.work.layer, center, radii)
            self._mark_region()
        self.show_state()

    def _on_found(self, center: Center) -> None:
        if (work := self._finding) is not None:
            work.center = center
            if work is self.work:
                self.when_in_front("center", partial(self.set_center, *center))

    def _on_drag(self) -> None:
        self.draw.setChecked(True)
        self.guides.grasp()

    # Fitting --------------------------------------------------------------------------------------

    def _on_step(self, event: Any = None) -> None:
        """Show the parameters and the histogram of the frame, and of the annulus chosen."""
        self.when_in_front("step", self._show_step)

    def _show_step(self) -> None:
        self._mark_region()
        if (fit := self.fit) is not None:
            frame, region = self.frame, self.region.value()
            self.table.show_rows(model.rows(fit, frame))
            self.table.choose(region - 1)
            self._histograms.request(partial(model.read_histogram, fit, frame, region))

    def _mark_region(self) -> None:
        fit = self.fit
        annulus = fit is not None and fit.has_annuli and not self._is_stale
        self.guides.choose(self.region.value() if annulus else 0)

    def _on_histogram(self, histogram: Histogram) -> None:
        self.tell(self.histogram_title, histogram.title)
        for name, curve in self.curves.items():
            curve.setData(*getattr(histogram, name))
        self.histogram.show_all()

    def on_pixel(self, row: int, column: int, reach: int) -> None:
        """Choose the annulus that was clicked."""
        if region := int(self.fit.model.labels[row, column]):
            self.region.setValue(region)

    @property
    def _is_stale(self) -> bool:
        """Whether something else was chosen since the fit."""
        return self.fit is not None and not self.fit.choice.is_as(self._choice)

    def show_state(self) -> None:
        """Enable what can be used now, and show what is unusual."""
        super().show_state()
        self.search.allow(self.problem())
        self.paint_button.setEnabled(self.layers.layer is not None)
        beam = self.beam_row, self.beam_column, self.search, self.annuli.native, self.draw
        for part in beam:  # without a layer of regions
            part.setEnabled(self.regions.layer is None)
        warnings = () if self.fit is None else self.fit.model.warnings
        self.show_warnings(STALE if self._is_stale else "", *warnings)


def _outline(
    stack: Stack, frame: int, choice: model.Choice, report: Report
) -> tuple[Center, npt.NDArray[np.float64]]:
    """Lay the annuli, and get ready to draw them."""
    drawn = model.outline(stack, frame, choice, report)
    get_shapes_ready()
    get_points_ready()
    return drawn
