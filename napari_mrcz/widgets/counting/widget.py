"""The "Counting" dock widget: fit, see charges and single events, look at counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QCheckBox, QLabel

from napari_mrcz.correction.noise import CountedAlready
from napari_mrcz.errors import error_text
from napari_mrcz.plugin.layers import describe, stack_of_layer
from napari_mrcz.widgets.base.form import choice_field, form, push_button
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.job_controls import JobControls
from napari_mrcz.widgets.base.late_stack import LateStack
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.preview import PreviewLayer, frame_shown, geometry
from napari_mrcz.widgets.base.ready import get_points_ready
from napari_mrcz.widgets.counting.model import Fit, count_frame, find_events, fit_counting
from napari_mrcz.widgets.counting.plots import ChargeView, Gallery, PixelView

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_mrcz.correction.counting import Events
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.theme import Palette

_SUPER_RESOLUTIONS = {"detector pixels": 1, "2 × 2 in each pixel": 2, "4 × 4 in each pixel": 4}
_INVITATION = "Fit a movie of raw frames to see its electrons."


class Counting(Panel):
    """Count single electrons in raw frames.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    fitted : Signal(object)
        A fit has ended: `Fit`, the exception, or None if it was cancelled.
    previewed : Signal(object)
        The layer of counts shows what is chosen now.
    arrived : Signal(object)
        The layer of counts shows the frame that was stepped to.
    marked : Signal(object)
        The layer of points at the events of a frame.
    """

    title = "Counting"

    fitted = Signal(object)
    previewed = Signal(object)
    arrived = Signal(object)
    marked = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.fit: Fit | None = None
        self._layer: Image | None = None
        self._data: Any = None
        self._counts: LateStack | None = None
        self._awaited: tuple[LateStack, int] | None = None
        self._preview = PreviewLayer(self.viewer)
        self._points: Points | None = None
        self._counting, self._marking = LatestJob(self), LatestJob(self)
        self._stepping = LatestJob(self, delay_ms=0)
        self.layers = LayerPicker(self, accepts=lambda layer: not self._preview.holds(layer))
        self.layers.setToolTip("The movie of raw frames")
        self.super_resolution = choice_field(
            _SUPER_RESOLUTIONS.items(), "How fine the counts are: where in a pixel it was struck"
        )
        self.controls = JobControls(
            self, "Fit", "Measure offset, noise, spots and threshold on some of the frames"
        )
        self.force = QCheckBox("Count frames that seem to be counted")
        self.force.setToolTip("Fit although the frames look like counts; off for raw frames")
        self.force.setVisible(False)
        self.warnings = WrappedLabel("Why these counts should not be trusted without a look")
        self.found = WrappedLabel("What was measured, and how many electrons are counted with it")
        self.charges, self.pixels, self.gallery = ChargeView(), PixelView(), Gallery()
        self.gallery_title = QLabel("Single electrons")
        self.preview = QCheckBox("Show counts as a layer")
        self.preview.setChecked(True)
        self.preview.setToolTip("Counts of the movie, each frame counted when it is looked at")
        self.mark_button = push_button(
            "Mark electrons of this frame",
            "A layer of points where the electrons of the frame struck",
        )
        self.column.addLayout(form(("Movie", self.layers), ("Counts in", self.super_resolution)))
        self.column.addWidget(self.controls)
        self.column.addWidget(self.force)
        self.column.addWidget(self.warnings)
        self.column.addWidget(self.found)
        self.column.addWidget(self.charges)
        self.column.addWidget(self.pixels)
        self.column.addWidget(self.gallery_title)
        self.column.addWidget(self.gallery)
        self.column.addWidget(self.preview)
        self.column.addWidget(self.mark_button)
        self.column.addStretch()
        self._connect()
        self.apply_palette(self.palette_now)
        self._on_layer(self.layers.layer)

    @property
    def counts(self) -> Image | None:
        """The layer of counts, while it is in the viewer."""
        return self._preview.layer

    @property
    def busy(self) -> bool:
        """Whether something runs, or is about to."""
        jobs = self._counting, self._marking, self._stepping
        return self.controls.running or any(job.busy for job in jobs)

    @Slot()
    def start_fit(self) -> None:
        """Fit the movie picked."""
        layer = self.layers.layer
        if layer is not None and not self._problem():
            force = self.force.isChecked()
            self.controls.run(partial(fit_counting, stack_of_layer(layer), force=force))

    @Slot()
    def mark(self) -> None:
        """Put points where the electrons of the frame that is shown struck."""
        if self.fit is not None and self._layer is not None:
            frame = frame_shown(self.viewer, self._layer)
            self._marking.request(partial(_mark, self.fit, frame, self.charges.threshold))

    def apply_palette(self, colours: Palette) -> None:
        """Colour the plots."""
        self.charges.apply_palette(colours)
        self.pixels.apply_palette(colours)

    def _connect(self) -> None:
        self.layers.layer_changed.connect(self._on_layer)
        self.controls.start_button.clicked.connect(self.start_fit)
        self.controls.returned.connect(self._on_fitted)
        self.controls.failed.connect(self._on_not_fitted)
        self.controls.cancelled.connect(lambda: self.fitted.emit(None))
        self.charges.threshold_changed.connect(self._on_choice)
        self.super_resolution.currentIndexChanged.connect(self._on_choice)
        self.preview.toggled.connect(self._on_choice)
        self.mark_button.clicked.connect(self.mark)
        self._counting.returned.connect(self._on_counted)
        self._counting.failed.connect(self._on_failed)
        self._stepping.returned.connect(self._on_arrived)
        self._stepping.failed.connect(self._on_failed)
        self._marking.returned.connect(self._on_marked)
        self._marking.failed.connect(self._on_failed)
        connect_while_alive(self, self.viewer.layers.events.removed, self._on_removed)
        self.destroyed.connect(lambda: self._let_go())

    # Layers ---------------------------------------------------------------------------------------

    @Slot(object)
    def _on_layer(self, layer: Image | None) -> None:
        """Let go of the movie before; of the same one only its place or name may be another."""
        data = None if layer is None else layer.data
        if layer is not self._layer or data is not self._data:
            self.controls.cancel()
            self._layer, self._data = layer, data
            self.force.setChecked(False)
            self.force.setVisible(False)
            self._show_fit(None)
        elif self.counts is not None and self._counts is not None:
            self._show_counts(self._counts)
        self.controls.allow(self._problem())

    def _problem(self) -> str:
        layer = self.layers.layer
        if layer is None:
            return "Open a movie of raw frames first"
        if layer.rgb or layer.multiscale or len(layer.data.shape) != 3:
            return "Electrons are counted in movies: frames, rows and columns"
        return ""

    def _on_removed(self, event: Any) -> None:
        if event.value is self._points:
            self._points = None
        elif self._preview.holds(event.value) and self.preview.isChecked():
            self.preview.setChecked(False)

    def _let_go(self) -> None:
        """Keep no layer and no movie when the window is gone but the Python half is not."""
        if self._counts is not None:
            self._counts.wanted = None
        self.fit = self._layer = self._data = self._counts = self._points = self._awaited = None

    # Fitting --------------------------------------------------------------------------------------

    @Slot(object)
    def _on_fitted(self, fit: Fit) -> None:
        self._show_fit(fit)
        self.fitted.emit(fit)

    @Slot(object)
    def _on_not_fitted(self, error: Exception) -> None:
        if isinstance(error, CountedAlready):
            self.force.setVisible(True)
        self.fitted.emit(error)

    def _show_fit(self, fit: Fit | None) -> None:
        self.fit = fit
        said = () if fit is None else fit.counting.warnings
        self.tell(self.warnings, "\n".join(said), "warning")
        self.warnings.setVisible(bool(said))
        for job in (self._counting, self._marking, self._stepping):
            job.drop()
        for key in ("counts", "marks"):
            self.forget_put_off(key)
        self._awaited = None
        if fit is None:
            self._counts = None
            self._preview.remove()
        self.charges.show_fit(fit)
        self.pixels.show_fit(fit)
        self.gallery.show_picture(None if fit is None else fit.gallery)
        self.gallery_title.setVisible(fit is not None)
        for control in (self.preview, self.mark_button):
            control.setEnabled(fit is not None)
        self._on_choice()

    # Counts ---------------------------------------------------------------------------------------

    @Slot()
    def _on_choice(self) -> None:
        """Count with another threshold, or finer."""
        fit, layer = self.fit, self._layer
        if fit is None or layer is None:
            self.tell(self.found, _INVITATION, "muted")
            return
        threshold, background = self.charges.threshold, fit.counting.background
        expected, f1 = "", fit.counting.expected_f1
        if f1 is not None and threshold == round(fit.counting.threshold, 1):
            expected = f" Expected F1: {f1:.3f}."
        self.tell(
            self.found,
            f"{fit.dose(threshold):.4f} e⁻/pix in a frame. Noise {background.noise:.1f} grey"
            f" values, spots {fit.counting.spread:.2f} pixels wide (standard deviation).{expected}",
        )
        if not self.preview.isChecked():
            self._counting.drop()
            self._preview.remove()
            return
        fine = self.super_resolution.currentData()
        counts = LateStack.of(fit.counts(threshold, fine))
        self._counting.request(partial(count_frame, counts, frame_shown(self.viewer, layer)))

    @Slot(object)
    def _on_counted(self, counts: LateStack) -> None:
        self.when_in_front("counts", partial(self._take_counts, counts))

    def _take_counts(self, counts: LateStack) -> None:
        if self._layer is not None and self.fit is not None:
            counts.wanted = self._on_wanted
            self._counts = counts
            self._show_counts(counts)
            self.previewed.emit(self.counts)

    def _on_wanted(self, counts: LateStack, frame: int) -> None:
        """Count a frame that the viewer would show; a new layer asks for the first one, too."""
        layer = self._layer
        if layer is None or frame != frame_shown(self.viewer, layer):
            return
        if self._awaited != (counts, frame):
            self._awaited = counts, frame
            self.controls.tell(f"Counting frame {frame}…")
            self._stepping.request(partial(count_frame, counts, frame))

    @Slot(object)
    def _on_arrived(self, counts: LateStack) -> None:
        self._awaited = None
        self.controls.tell("")
        if self.counts is not None and self.counts.data is counts:
            self.counts.refresh(extent=False)
            self.arrived.emit(self.counts)

    def _show_counts(self, counts: LateStack) -> None:
        layer = self._layer
        assert layer is not None  # noqa: S101
        place = geometry(layer, 3)
        fine = counts.shape[-1] // self._data.shape[-1]
        # The middle of the first fine pixel lies before that of the first one of the detector.
        for axis in (1, 2):
            place["translate"][axis] += place["scale"][axis] * (0.5 / fine - 0.5)
            place["scale"][axis] /= fine
        active = self.viewer.layers.selection.active
        self._preview.show(
            counts,
            {
                "name": f"{layer.name} counts",
                "metadata": describe(counts),
                "contrast_limits": (0.0, 1.0),
                "rgb": False,
                "multiscale": False,
                "axis_labels": layer.axis_labels,
                **place,
            },
        )
        self.viewer.layers.selection.active = active

    @Slot(object)
    def _on_marked(self, found: tuple[int, Events]) -> None:
        self.when_in_front("marks", partial(self._show_marks, found))

    def _show_marks(self, found: tuple[int, Events]) -> None:
        layer = self._layer
        if layer is None:
            return
        frame, events = found
        points = np.stack([np.full(len(events), frame), events.y, events.x], axis=1)
        name = f"{layer.name} electrons"
        if self._points is None or self._points not in self.viewer.layers:
            active = self.viewer.layers.selection.active
            self._points = Points(
                points, name=name, size=1.5, face_color="transparent", border_color="#d55e00",
                border_width=0.15, axis_labels=layer.axis_labels, **geometry(layer, 3),
            )  # fmt: skip
            self.viewer.add_layer(self._points)
            self.viewer.layers.selection.active = active
        else:
            self._points.data = points
        self.marked.emit(self._points)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self._awaited = None
        self.controls.tell(error_text(error), "error")


def _mark(fit: Fit, frame: int, threshold: float, report: Report) -> tuple[int, Events]:
    """Find the electrons of a frame, and get ready to draw them."""
    events = find_events(fit, frame, threshold, report)
    get_points_ready()
    return frame, events
