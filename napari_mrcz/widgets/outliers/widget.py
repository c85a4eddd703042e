"""The "Outliers" dock widget: fit, see why, drag the thresholds, watch the picture, save."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal, Slot

from napari_mrcz.errors import error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.job_controls import JobControls
from napari_mrcz.widgets.base.layer_picker import connect_while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.preview import frame_shown
from napari_mrcz.widgets.base.viewer_input import (
    bind_while_alive,
    on_click_while_alive,
    pixel_at,
)
from napari_mrcz.widgets.outliers.background import Background
from napari_mrcz.widgets.outliers.buttons import ButtonBar
from napari_mrcz.widgets.outliers.controls import CountTable, ReplacingForm, ThresholdFields
from napari_mrcz.widgets.outliers.kept_fits import KeptFit, KeptFits
from napari_mrcz.widgets.outliers.model import Corrected, Fit, FitOptions, fit_outliers
from napari_mrcz.widgets.outliers.pixel_view import PixelView
from napari_mrcz.widgets.outliers.plots import ThresholdPlots
from napari_mrcz.widgets.outliers.source_form import SourceForm
from napari_mrcz.widgets.outliers.words import in_words, remarks

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Labels

    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.outliers.layers import OutlierLayers
    from napari_mrcz.widgets.outliers.reading import Noise, PixelCourse

_KEY = "Shift-B"
_MEASURING = "Correlated noise R: measuring…"


class OutlierPixels(Panel):
    """Find a movie's hot and dark pixels, see why they are called so, and replace them.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    fitted : Signal(object)
        A fit has ended: `Fit`, the exception, or None if it was cancelled.
    corrected : Signal()
        The layers show the thresholds as they are now.
    measured : Signal(object)
        `Noise` is shown, or None.
    pixel_read : Signal(object)
        A clicked pixel's `PixelCourse` is shown.
    """

    title = "Outliers"

    fitted = Signal(object)
    corrected = Signal()
    measured = Signal(object)
    pixel_read = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._kept_fits = KeptFits(self.viewer, self._show_state)
        self._shown: KeptFit | None = None
        self._has_other_defects = False
        self._fitting: tuple[Image, Any, Image | None, Labels | None] | None = None

        self.source = SourceForm(self, accepts=lambda layer: not self._kept_fits.own(layer))
        self.controls = JobControls(
            self, "Fit", "Sum the frames, and find where the sum's distribution leaves the model"
        )
        self.plots = ThresholdPlots()
        self.thresholds = ThresholdFields()
        self.buttons = ButtonBar()
        self.counts = CountTable()
        self.noise = WrappedLabel(
            "Mean correlation of the frames (eq. 7 of doi:10.1101/116533), measured in a few "
            "frames spread over the movie: outliers make frames alike"
        )
        self.remark = WrappedLabel("What is unusual about this fit")
        self.replacing = ReplacingForm()
        self.pixel = PixelView(self)
        self._background = Background(self)
        self._lay_out()
        self._connect()
        self.apply_palette(self.palette_now)
        self._show_kept()

    @property
    def fit(self) -> Fit | None:
        """The fit of the layer picked, with the thresholds that are shown."""
        kept = self._kept
        return None if kept is None else kept.fit

    @property
    def layers(self) -> OutlierLayers | None:
        """The layers that show it."""
        kept = self._kept
        return None if kept is None else kept.layers

    @property
    def busy(self) -> bool:
        """Whether something runs: a fit, a preview or a measurement."""
        return self.controls.running or self._background.busy

    @Slot()
    def start_fit(self) -> None:
        """Fit the layer picked."""
        layer, gain = self.source.layers.layer, self.source.gains.layer
        if layer is None or self.source.problem() or self.controls.running:
            return
        kept = self._kept
        # A stack that was summed need not be read again.
        stack = stack_of_layer(layer) if kept is None else kept.fit.stack
        reference = None if gain is None else gain.data
        self._fitting = (layer, layer.data, gain, self.source.defects.layer)
        self.controls.run(
            partial(
                fit_outliers, stack, self._options, reference, defects=self.source.known_defects
            )
        )
        self._show_state()

    @Slot(str, float)
    def set_threshold(self, side: str, sigma: float) -> None:
        """Move the "dark" or the "hot" threshold, in standard deviations."""
        if (kept := self._kept) is not None:
            self._take(kept, kept.fit.with_thresholds(**{side: sigma}))

    @Slot()
    def reset(self) -> None:
        """Take the thresholds of the fit again."""
        if (kept := self._kept) is not None:
            self._take(kept, kept.fit.reset())

    @Slot()
    def toggle(self) -> None:
        """Show the movie if the corrected one is shown, else that."""
        if (layers := self.layers) is not None:
            layers.show_after(not layers.shows_corrected)

    @Slot()
    def save_corrected(self) -> None:
        """Open the Save stack widget with the corrected movie."""
        layers = self.layers
        if layers is not None and layers.corrected is not None:
            self.open_save_stack(layers.corrected)

    def apply_palette(self, colours: Palette) -> None:
        """Colour the plots."""
        self.plots.apply_palette(colours)
        self.pixel.apply_palette(colours)

    @property
    def _kept(self) -> KeptFit | None:
        return self._kept_fits.of(self.source.layers.layer)

    @property
    def _options(self) -> FitOptions:
        return FitOptions(
            **self.source.options,
            order=self.replacing.order.value(),
            relaxation=self.replacing.relaxation.value(),
            fill=self.replacing.fill.currentData(),
        )

    def _lay_out(self) -> None:
        for part in (
            self.source,
            self.controls,
            self.plots,
            self.thresholds,
            self.buttons,
            self.counts,
            self.noise,
            self.remark,
            self.replacing,
            self.pixel,
        ):
            self.column.addWidget(part)
        self.column.addStretch()

    def _connect(self) -> None:
        self.source.layers.layer_changed.connect(self._on_layer)
        self.source.changed.connect(self._show_state)
        self.source.defects.layer_changed.connect(self._on_defects)
        self.controls.start_button.clicked.connect(self.start_fit)
        self.controls.returned.connect(self._on_fitted)
        self.controls.failed.connect(self._on_not_fitted)
        self.controls.cancelled.connect(self._on_cancelled)
        self.plots.moved.connect(self.set_threshold)
        self.plots.settled.connect(self._on_settled)
        self.thresholds.edited.connect(self.set_threshold)
        self.replacing.changed.connect(self._on_replacing)
        self.buttons.reset_button.clicked.connect(self.reset)
        self.buttons.toggle_button.clicked.connect(self.toggle)
        self.buttons.colour_button.clicked.connect(self._on_colour)
        self.buttons.mask_button.clicked.connect(self._on_mask)
        self.buttons.save_button.clicked.connect(self.save_corrected)
        self._background.corrected.connect(self._on_corrected)
        self._background.measured.connect(self._on_measured)
        self._background.read.connect(self._on_read)
        self._background.failed.connect(self._on_background_failed)
        connect_while_alive(self, self.viewer.layers.events.removed, self._on_removed)
        bind_while_alive(self, self.viewer, _KEY, self.toggle)
        on_click_while_alive(self, self.viewer, self._on_click)
        self.destroyed.connect(lambda: self._let_go())

    # Layers ---------------------------------------------------------------------------------------

    @Slot(object)
    def _on_layer(self, layer: Image | None) -> None:
        """Show what is known of the layer picked; what runs for another one is not wanted."""
        if self._fitting is not None and not self._is_picked(*self._fitting[:2]):
            self.controls.cancel()
        kept = self._kept
        if kept is None and layer is not None:
            self._kept_fits.drop(layer)  # it has other data now
        if kept is not self._shown:
            self._show_kept()
        elif kept is not None:
            kept.layers.place()
        self._show_state()

    def _on_removed(self, event: Any) -> None:
        """Let go of a layer that is gone, and of what was derived from it."""
        if self.layers is not None and event.value is self.layers.mask:
            self.buttons.mask_button.setChecked(False)
        self._kept_fits.forget(event.value)
        self.source.layers.refill()  # a corrected movie may have become a movie like any other
        self._show_state()

    def _let_go(self) -> None:
        """Keep no layer and no movie when the window is gone but the Python half is not."""
        self._shown = self._fitting = None
        self._kept_fits.let_go()

    def _is_picked(self, layer: Image, data: Any) -> bool:
        picked = self.source.layers.layer
        return picked is not None and picked is layer and picked.data is data

    @Slot()
    def _on_defects(self) -> None:
        """Compare the defects with those of the fit; they may have been painted since."""
        kept, mask = self._kept, self.source.known_defects
        if kept is not None:
            known = kept.fit.defects
            if known is None or mask is None:
                self._has_other_defects = known is not mask
            else:
                self._has_other_defects = not np.array_equal(known, mask)
        self._show_state()

    # Fitting --------------------------------------------------------------------------------------

    @Slot(object)
    def _on_fitted(self, fit: Fit) -> None:
        self.when_in_front("fit", partial(self._take_fit, fit))

    def _take_fit(self, fit: Fit) -> None:
        fitting, self._fitting = self._fitting, None
        if fitting is not None and self._is_picked(*fitting[:2]):
            layer, _, gain, defects = fitting
            self._kept_fits.keep(layer, gain, fit, defects)
            self._show_kept()
        self.fitted.emit(fit)

    @Slot(object)
    def _on_not_fitted(self, error: Exception) -> None:
        self._fitting = None
        self.controls.tell(in_words(error_text(error)), "error")
        self._show_state()
        self.fitted.emit(error)

    @Slot()
    def _on_cancelled(self) -> None:
        self._fitting = None
        self._show_state()
        self.fitted.emit(None)

    def _show_kept(self) -> None:
        """Show all that is known of the layer picked."""
        self._background.drop()
        self.forget_put_off("corrected")
        kept = self._shown = self._kept
        self.pixel.clear()
        if kept is None:
            self.plots.clear()
            self.counts.show_fit(None)
            self.tell(self.noise, "")
            self._show_state()
            return
        self.buttons.mask_button.setChecked(kept.layers.mask is not None)
        self.source.show_options(kept.fit.options)
        self.source.gains.pick(kept.gain)
        self.source.defects.pick(kept.defects)
        self._on_defects()
        self.replacing.show_options(kept.fit.options)
        self.plots.show_fit(kept.fit)
        self._take(kept, kept.fit)

    # Thresholds -----------------------------------------------------------------------------------

    def _take(self, kept: KeptFit, fit: Fit) -> None:
        """Show a fit with other thresholds or weights: at once what is quick, then the rest."""
        kept.fit = fit
        self.plots.show_thresholds(fit)
        self.thresholds.show_thresholds(fit)
        self.counts.show_fit(fit)
        kept.layers.show_thresholds(fit)
        self.tell(self.noise, _MEASURING, "muted")
        self._ask_for_correction(kept)
        self._show_state()

    def _ask_for_correction(self, kept: KeptFit) -> None:
        layer = self.source.layers.layer
        frame = 0 if layer is None else frame_shown(self.viewer, layer)
        self._background.correct(kept.fit, frame, self.buttons.mask_button.isChecked())

    @Slot()
    def _on_settled(self) -> None:
        if (kept := self._kept) is not None:
            self.plots.show_thresholds(kept.fit)

    @Slot()
    def _on_replacing(self) -> None:
        kept = self._kept
        if kept is None:
            return
        try:
            fit = kept.fit.with_options(self._options)
        except ValueError as error:
            self.replacing.show_options(kept.fit.options)
            self.controls.tell(in_words(error_text(error)), "error")
            return
        self._take(kept, fit)

    @Slot(bool)
    def _on_colour(self, wanted: bool) -> None:
        if (layers := self.layers) is not None:
            layers.show_colours(wanted)

    @Slot(bool)
    def _on_mask(self, wanted: bool) -> None:
        kept = self._kept
        if kept is None:
            return
        if wanted:
            self._ask_for_correction(kept)
        else:
            kept.layers.remove_mask()

    # What comes from threads ----------------------------------------------------------------------

    @Slot(object)
    def _on_corrected(self, corrected: Corrected) -> None:
        self.when_in_front("corrected", partial(self._show_corrected, corrected))

    def _show_corrected(self, corrected: Corrected) -> None:
        if (kept := self._kept) is not None:
            kept.layers.show_corrected(corrected)
            self._show_state()
        self.corrected.emit()

    @Slot(object)
    def _on_measured(self, noise: Noise | None) -> None:
        text = "Correlated noise needs two frames." if noise is None else str(noise)
        self.tell(self.noise, text)
        self.measured.emit(noise)

    @Slot(object)
    def _on_read(self, course: PixelCourse) -> None:
        self.pixel.show_course(course)
        self.pixel_read.emit(course)

    @Slot(object)
    def _on_background_failed(self, error: Exception) -> None:
        self.controls.tell(in_words(error_text(error)), "error")

    def _on_click(self, position: tuple[float, ...]) -> None:
        """Show the outlier that was clicked, or the pixel where there is none near."""
        kept, layer = self._kept, self.source.layers.layer
        at = None if layer is None else pixel_at(self.viewer, layer, position)
        if kept is None or at is None:
            return
        row, column = kept.fit.outlier_near(*at)
        self.pixel.clear(f"Reading row {row}, column {column}…")
        self._background.read_pixel(kept.fit, row, column)

    def _show_state(self) -> None:
        """Enable what can be used now, and say what is unusual."""
        kept = self._kept
        self.controls.allow(self.source.problem())
        self.replacing.setEnabled(not self.controls.running)
        self.thresholds.setEnabled(kept is not None)
        self.buttons.show_state(kept)
        said = [] if kept is None else remarks(kept.fit)
        stale = kept is not None and (
            kept.fit.options.needs_another_fit(self._options)
            or kept.gain is not self.source.gains.layer
            or self._has_other_defects
        )
        if stale:
            said.insert(0, "Other choices were made since: press Fit again.")
        self.tell(self.remark, "\n".join(said), "warning" if stale else "text")
        self.remark.setVisible(bool(said))
