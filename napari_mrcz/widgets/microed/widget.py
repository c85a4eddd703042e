"""The "MicroED" dock widget: find the beam, fit each annulus, see why, give zeros their noise."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QCheckBox

from napari_mrcz.correction.noise import CountedAlready
from napari_mrcz.errors import error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.job_controls import JobControls
from napari_mrcz.widgets.base.layer_picker import connect_while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.preview import frame_shown
from napari_mrcz.widgets.base.ready import get_points_ready, get_shapes_ready
from napari_mrcz.widgets.base.viewer_input import on_click_while_alive, pixel_at
from napari_mrcz.widgets.microed.beam_box import BeamBox
from napari_mrcz.widgets.microed.guides import Guides
from napari_mrcz.widgets.microed.histogram import Histogram, read_histogram
from napari_mrcz.widgets.microed.model import (
    Choice,
    Fit,
    Outline,
    find_beam,
    fit_truncation,
    outline,
)
from napari_mrcz.widgets.microed.result_view import ResultView
from napari_mrcz.widgets.microed.source_form import SourceForm
from napari_mrcz.widgets.microed.sweeps import Sweep, Sweeps

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.theme import Palette


class MicroED(Panel):
    """Give pixels that a camera cut off at zero likely negative counts again.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    outlined : Signal(object)
        The beam and the annuli are drawn: `Outline`.
    found : Signal(object)
        The beam was looked for in all frames: (y, x), the exception, or None if cancelled.
    fitted : Signal(object)
        A fit has ended: `Fit`, the exception, or None if it was cancelled.
    histogram_shown : Signal(object)
        A `Histogram` is shown.
    """

    title = "MicroED"

    outlined = Signal(object)
    found = Signal(object)
    fitted = Signal(object)
    histogram_shown = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._sweeps = Sweeps()
        self._shown: Sweep | None = None
        # What runs is for this one alone.
        self._finding: Sweep | None = None
        self._fitting: Sweep | None = None
        self._outlined: Choice | None = None
        self.source = SourceForm(self, accepts=lambda layer: not self._sweeps.own(layer))
        self.beam = BeamBox(self)
        self.controls = JobControls(
            self, "Fit", "Fit a shifted lognormal distribution to each annulus of each frame"
        )
        self.force = QCheckBox("Correct counted electrons, too")
        self.force.setToolTip("Fit although the zeros seem to be real: counted electrons")
        self.force.setVisible(False)
        self.remark = WrappedLabel("What is unusual about this fit")
        self.result = ResultView(self)
        self.guides = Guides(self.viewer, self)
        self._outlines, self._histograms = LatestJob(self), LatestJob(self)
        for part in (
            self.source, self.beam, self.controls, self.force, self.remark, self.result
        ):  # fmt: skip
            self.column.addWidget(part)
        self.column.addStretch()
        self._connect()
        self.apply_palette(self.palette_now)
        self._on_layer(self.source.layers.layer)

    @property
    def fit(self) -> Fit | None:
        """The fit of the layer picked."""
        return None if self._sweep is None else self._sweep.fit

    @property
    def corrected(self) -> Image | None:
        """The layer of the corrected movie."""
        sweep = self._sweep
        return None if sweep is None or sweep.corrected is None else sweep.corrected.layer

    @property
    def center(self) -> tuple[float, float] | None:
        """Where the beam is, (y, x) in pixels."""
        return None if self._sweep is None else self._sweep.center

    @property
    def busy(self) -> bool:
        """Whether something runs, or is about to."""
        jobs = self.controls.running or self.beam.controls.running or self.source.busy
        return jobs or self._outlines.busy or self._histograms.busy

    @Slot()
    def find(self) -> None:
        """Find the beam in the sum of all frames."""
        sweep = self._sweep
        if sweep is not None and not self.source.problem() and not self.beam.controls.running:
            self._finding = sweep
            self.beam.controls.run(
                partial(find_beam, stack_of_layer(sweep.layer), self.source.invalid)
            )

    @Slot()
    def start_fit(self) -> None:
        """Fit the layer picked."""
        sweep = self._sweep
        if sweep is None or self.source.problem() or self.controls.running:
            return
        self._fitting = sweep
        stack = stack_of_layer(sweep.layer)
        self.controls.run(partial(fit_truncation, stack, self._choice, self._frame))
        self._show_state()

    @Slot(float, float)
    def set_center(self, y: float, x: float) -> None:
        """Put the beam elsewhere, in pixels; the annuli follow."""
        sweep = self._sweep
        if sweep is None:
            return
        sweep.center = (y, x)
        self.beam.show_center(sweep.center, self._shape)
        self.guides.move(sweep.center)
        self._ask_for_outline()

    @Slot()
    def toggle(self) -> None:
        """Show the movie if the corrected one is shown, else that."""
        sweep = self._sweep
        if sweep is not None and sweep.corrected is not None:
            sweep.corrected.show_after(not sweep.corrected.shows_after)

    @Slot()
    def save_corrected(self) -> None:
        """Open the Save stack widget with the corrected movie."""
        if self.corrected is not None:
            self.open_save_stack(self.corrected)

    def apply_palette(self, colours: Palette) -> None:
        """Colour the plot."""
        self.result.apply_palette(colours)

    @property
    def _sweep(self) -> Sweep | None:
        return self._sweeps.of(self.source.layers.layer)

    @property
    def _choice(self) -> Choice:
        return Choice(
            self.center, self.beam.annuli.value(), self.source.invalid, self.source.region_labels,
            force=self.force.isChecked(),
        )  # fmt: skip

    @property
    def _shape(self) -> tuple[int, int] | None:
        return None if self._sweep is None else self._sweep.data.shape[-2:]

    @property
    def _frame(self) -> int:
        """Which frame of the layer picked is seen."""
        layer = self.source.layers.layer
        # One that is being removed is not seen.
        return frame_shown(self.viewer, layer) if layer in self.viewer.layers else 0

    def _connect(self) -> None:
        self.source.layers.layer_changed.connect(self._on_layer)
        self.source.changed.connect(self._ask_for_outline)
        self.beam.typed.connect(self.set_center)
        self.beam.annuli_changed.connect(self._ask_for_outline)
        self.beam.draw.toggled.connect(self._ask_for_outline)
        self.beam.drag_button.clicked.connect(self._on_drag)
        self.beam.controls.start_button.clicked.connect(self.find)
        self.beam.controls.returned.connect(self._on_found)
        self.beam.controls.failed.connect(self._on_not_found)
        self.beam.controls.cancelled.connect(lambda: self._on_not_found(None))
        self.guides.moved.connect(self.set_center)
        self._outlines.returned.connect(self._on_outlined)
        self._outlines.failed.connect(self._on_background_failed)
        self.controls.start_button.clicked.connect(self.start_fit)
        self.controls.returned.connect(self._on_fitted)
        self.controls.failed.connect(self._on_not_fitted)
        self.controls.cancelled.connect(lambda: self._on_not_fitted(None))
        self.result.toggle_button.clicked.connect(self.toggle)
        self.result.save_button.clicked.connect(self.save_corrected)
        self.result.region_chosen.connect(self._on_region)
        self._histograms.returned.connect(self._on_histogram)
        self._histograms.failed.connect(self._on_background_failed)
        viewer = self.viewer
        connect_while_alive(self, viewer.layers.events.removed, self._on_removed)
        connect_while_alive(self, viewer.dims.events.current_step, self._on_step)
        on_click_while_alive(self, viewer, self._on_click)
        self.destroyed.connect(lambda: self._let_go())

    # Layers ---------------------------------------------------------------------------------------

    @Slot(object)
    def _on_layer(self, layer: Image | None) -> None:
        """Show what is known of the layer picked; what runs for another one is not wanted."""
        sweep = self._sweep
        if self._fitting is not None and self._fitting is not sweep:
            self.controls.cancel()
        if self._finding is not None and self._finding is not sweep:
            self.beam.controls.cancel()
        if sweep is not self._shown:
            self._shown = sweep
            self._outlined = None
            self.force.setChecked(False)
            self.force.setVisible(False)
            self.guides.remove()
            self._show_fit()
        elif sweep is not None:
            self.guides.place()
            if sweep.corrected is not None:
                sweep.corrected.place()
        self.beam.show_center(self.center, self._shape)
        self._ask_for_outline()

    def _on_removed(self, event: Any) -> None:
        """Let go of a layer that is gone, and of what was derived from it."""
        if self.guides.forget(event.value):
            self.beam.draw.setChecked(False)
        self._sweeps.forget(event.value)
        self.source.layers.refill()  # a corrected movie may have become a movie like any other
        self._show_state()

    def _let_go(self) -> None:
        """Keep no layer and no movie when the window is gone but the Python half is not."""
        self._shown = self._fitting = self._finding = None
        self.guides.let_go()
        self._sweeps.let_go()

    # Beam and annuli ------------------------------------------------------------------------------

    @Slot()
    def _ask_for_outline(self) -> None:
        """Have the annuli laid anew, if they are others now."""
        self.forget_put_off("outline")
        self._show_state()
        sweep, choice = self._sweep, self._choice
        if sweep is None or self.source.problem() or choice.regions is not None:
            self._outlines.drop()
            self.guides.remove()
            self._outlined = None
            return
        drawn = self.guides.shown
        if drawn and not self.beam.draw.isChecked():
            self.guides.remove()
        known = self._outlined is not None and self._outlined.is_as(choice)
        if known and drawn == self.beam.draw.isChecked():
            return
        self._outlined = choice
        stack = stack_of_layer(sweep.layer)
        self._outlines.request(partial(_outline, stack, self._frame, choice))

    @Slot(object)
    def _on_outlined(self, drawn: Outline) -> None:
        self.when_in_front("outline", partial(self._draw, drawn))

    def _draw(self, drawn: Outline) -> None:
        sweep = self._sweep
        if sweep is None or self._outlined is None:
            return
        sweep.center = drawn.center
        self._outlined = self._choice
        self.beam.show_center(sweep.center, self._shape)
        if self.beam.draw.isChecked():
            self.guides.show(sweep.layer, drawn.center, drawn.radii)
            self._mark_region()
        self._show_state()
        self.outlined.emit(drawn)

    @Slot(object)
    def _on_found(self, center: tuple[float, float]) -> None:
        sweep, self._finding = self._finding, None
        if sweep is not None and sweep is self._sweep:
            self.set_center(*center)
        self.found.emit(center)

    @Slot(object)
    def _on_not_found(self, error: Exception | None) -> None:
        self._finding = None
        self.found.emit(error)

    @Slot()
    def _on_drag(self) -> None:
        self.beam.draw.setChecked(True)
        self.guides.grasp()

    # Fitting --------------------------------------------------------------------------------------

    @Slot(object)
    def _on_fitted(self, fit: Fit) -> None:
        self.when_in_front("fit", partial(self._take_fit, fit))

    def _take_fit(self, fit: Fit) -> None:
        sweep, self._fitting = self._fitting, None
        if sweep is not None and sweep is self._sweep:
            sweep.show_fit(self.viewer, fit, self._show_state)
            self._show_fit()
        self._show_state()
        self.fitted.emit(fit)

    @Slot(object)
    def _on_not_fitted(self, error: Exception | None) -> None:
        self._fitting = None
        if isinstance(error, CountedAlready):
            self.force.setVisible(True)
        self._show_state()
        self.fitted.emit(error)

    def _show_fit(self) -> None:
        """Show all that is known of the layer picked."""
        self._histograms.drop()
        self.result.show_sweep(self._sweep)
        self._mark_region()
        self._on_step()

    def _on_step(self, event: Any = None) -> None:
        """Show the parameters and the histogram of the frame that is shown."""
        self.when_in_front("step", self._show_step)

    def _show_step(self) -> None:
        fit = self.fit
        if fit is None:
            return
        frame = self._frame
        self.result.show_frame(fit, frame)
        self._histograms.request(partial(read_histogram, fit, frame, self.result.region.value()))

    @Slot(int)
    def _on_region(self, region: int) -> None:
        self._mark_region()
        self._on_step()

    def _mark_region(self) -> None:
        fit = self.fit
        annulus = fit is not None and fit.has_annuli and not self._is_stale
        self.guides.choose(self.result.region.value() if annulus else 0)

    @Slot(object)
    def _on_histogram(self, histogram: Histogram) -> None:
        self.result.view.show_histogram(histogram)
        self.histogram_shown.emit(histogram)

    @Slot(object)
    def _on_background_failed(self, error: Exception) -> None:
        self.controls.tell(error_text(error), "error")

    def _on_click(self, position: tuple[float, ...]) -> None:
        """Choose the annulus that was clicked."""
        fit, layer = self.fit, self.source.layers.layer
        at = None if layer is None else pixel_at(self.viewer, layer, position)
        if fit is None or at is None:
            return
        if region := int(fit.model.labels[at[:2]]):
            self.result.region.setValue(region)

    @property
    def _is_stale(self) -> bool:
        """Whether something else was chosen since the fit."""
        return self.fit is not None and not self.fit.choice.is_as(self._choice)

    def _show_state(self) -> None:
        """Enable what can be used now, and say what is unusual."""
        sweep, problem = self._sweep, self.source.problem()
        self.controls.allow(problem)
        self.beam.controls.allow(problem)
        self.beam.setEnabled(self.source.regions.layer is None)
        self.result.show_state(sweep)
        said = [] if self.fit is None else list(self.fit.model.warnings)
        if self._is_stale:
            said.insert(0, "Other choices were made since: press Fit again.")
        self.tell(self.remark, "\n".join(said), "warning")
        self.remark.setVisible(bool(said))


def _outline(stack: Stack, frame: int, choice: Choice, report: Report) -> Outline:
    """Lay the annuli, and get ready to draw them."""
    drawn = outline(stack, frame, choice, report)
    get_shapes_ready()
    get_points_ready()
    return drawn
