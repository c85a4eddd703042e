"""The "Outliers" dock widget: fit, see why, drag the thresholds, watch the picture, save."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import Colormap, DirectLabelColormap
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_mrcz.correction.outliers.thresholds import OutlierOptions
from napari_mrcz.errors import collected_warnings, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.stack.references import read_defects
from napari_mrcz.widgets.base.correction_dock import STALE, CorrectionDock, RowTable, marked
from napari_mrcz.widgets.base.derived import LayerWork, get_labels_ready
from napari_mrcz.widgets.base.form import OptionsForm, Section, WrappedLabel, filled, push_button
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import LayerPicker
from napari_mrcz.widgets.base.plot import Plot
from napari_mrcz.widgets.outliers import model
from napari_mrcz.widgets.outliers.plots import ThresholdPlots

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.outliers.model import Fit, Noise, PixelCourse

# Told apart by colour-blind eyes, upon black, grey and white (Okabe and Ito 2008).
_HOT, _DARK, _DEFECT = "#e69f00", "#56b4e9", "#cc79a7"
_CLEAR = (0.0, 0.0, 0.0, 0.0)
_LABELS = {None: _CLEAR, 0: _CLEAR, 1: _HOT, 2: _DARK, 3: _DEFECT}
_FILES = "Defects (*.txt *.mrc *.mrcz *.tif *.tiff *.gain *.dm3 *.dm4);;All files (*)"
_COUNTED = (
    ("outliers", "How many there are now, and how many good pixels are among them by chance"),
    ("dark", "Pixels below the dark threshold"),
    ("hot", "Pixels above the hot threshold"),
    ("both", "Pixels below the one or above the other"),
)


class OutlierWork(LayerWork):
    """The fit of a movie, with the thresholds as they are now, and what it was made with."""

    vanishing = ("sigma", "mask")
    used: tuple[Any, ...] = (None, None)  # the layers of gain and of defects
    began: tuple[Any, ...] = (None, None)  # those of the fit that runs, or was begun last

    def take(self, result: Fit) -> None:
        """Keep a fit."""
        super().take(result)
        self.used = self.began

    def forget(self, layer: Any) -> bool:
        """Release a layer that was removed: one derived, or that of the gain or the defects."""
        self.used, self.began = (
            tuple(None if one is layer else one for one in both) for both in (self.used, self.began)
        )
        return super().forget(layer)

    def release(self) -> None:
        """Take away what says nothing without the fit; the corrected movie stays."""
        super().release()
        self.used = self.began = (None, None)


class OutlierPixels(CorrectionDock):
    """Find a movie's hot and dark pixels, see why they are called so, and replace them."""

    title = "Outliers"

    work_type = OutlierWork
    fit_tip = "Sum the frames, and find where the sum's distribution leaves the model"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.plots = ThresholdPlots()
        for side, threshold in self.plots.thresholds.items():
            threshold.changed.connect(partial(self.set_threshold, side))
        numbers = (threshold.field for threshold in self.plots.thresholds.values())
        fields = filled(QWidget(), *numbers, across=True)
        self.counts = RowTable(_COUNTED, "How many pixels are outliers")
        self.colour_button = push_button(
            "Colour outliers", "Colour hot pixels orange and dark ones blue, over what is shown"
        )
        self.mask_button = push_button(
            "Outlier mask", "Show outliers as labels: 1 hot, 2 dark, 3 defect"
        )
        grid: Any = self.buttons.layout()
        for column, button in enumerate((self.colour_button, self.mask_button)):
            button.setCheckable(True)
            grid.addWidget(button, 1, column)
        self.noise = WrappedLabel(
            "Mean correlation of the frames (eq. 7 of doi:10.1101/116533), measured in a few "
            "frames spread over the movie: outliers make frames alike"
        )
        self.pixel = WrappedLabel("The pixel that was clicked last, or the outlier nearest to it")
        self.course = Plot(
            "frame",
            "counts",
            "The pixel's value in each frame; dashed is what a typical good pixel counts",
        )
        self._courses = {kind: self.course.curve(kind) for kind in ("dark", "hot", "text")}
        self._typical = self.course.line("model", angle=0)
        self._typical.setVisible(True)
        self.gains = LayerPicker(
            self, accepts=lambda layer: not layer.rgb and self.lies_on(layer), none="none"
        )
        self.gains.setToolTip(
            "A gain reference that counts are multiplied by before outliers are looked for: an "
            "image layer of the movie's rows and columns. Leave it at none for corrected movies"
        )
        self.defects = self.label_picker(
            "none",
            "Pixels known to be defective, replaced in every frame whatever the fit finds: a "
            "labels layer of the movie's rows and columns, painted or loaded",
        )
        self.load = JobControls(
            self,
            "Load defects…",
            "Read a list of SerialEM, RELION or MotionCor, or a map, as a labels layer",
        )
        self.options = OptionsForm(
            OutlierOptions,
            ("model", "limit", "counts_per_electron", "pedestal", "order", "relaxation", "fill"),
            rows=(("Gain", self.gains), ("Defects", self.defects), ("", self.load)),
        )
        self.advanced = Section("Advanced", self.options)
        self._corrections = self.in_background(self._on_corrected)
        self._noises = self.in_background(self._on_measured)
        self._pixels = self.in_background(self._on_read)
        for signal, slot in (
            (self.gains.layer_changed, self.show_state),
            (self.defects.layer_changed, self.show_state),
            (self.load.start_button.clicked, self._choose),
            (self.load.returned, self._on_loaded),
            (self.options.changed, self._on_option),
            (self.colour_button.clicked, self._on_colour),
            (self.mask_button.clicked, self._on_mask),
        ):
            signal.connect(slot)
        self.finish(
            fields, self.counts, self.buttons, self.plots, self.noise, self.pixel, self.course,
            self.advanced,
        )  # fmt: skip

    def start_fit(self) -> None:
        """Fit the layer picked; what is found is coloured, though colours were off before."""
        super().start_fit()
        self._on_colour(True)

    def fit_work(self, work: OutlierWork) -> Callable[[Report], Any]:
        """Return the fit of a layer; a movie that was summed is not read again."""
        work.began = layer, _ = self.gains.layer, self.defects.layer
        stack = stack_of_layer(work.layer) if work.fit is None else work.fit.stack
        gain = None if layer is None else layer.data
        known = marked(self.defects)
        return partial(model.fit_outliers, stack, self._options, gain, defects=known)

    def set_threshold(self, side: str, sigma: float) -> None:
        """Move the "dark" or the "hot" threshold, in standard deviations."""
        if (fit := self.fit) is not None:
            goes_on = self.plots.thresholds[side].goes_on
            self._change(fit.with_thresholds(**{side: sigma}), goes_on)

    def reset(self) -> None:
        """Take the thresholds of the fit again."""
        if (fit := self.fit) is not None and fit.is_changed:
            self._change(fit.reset())

    def restore(self, state: Fit) -> None:
        """Take the thresholds and weights that there were."""
        self.work.fit = state
        self.options.show_values(vars(state.current.options))
        self._show_fit(self.work)

    def open(self, path: str) -> None:
        """Read a defect file for the movie picked."""
        if (movie := self.layers.layer) is not None:
            self.load.run(partial(_load, path, movie.data.shape[-2:]))

    @property
    def _options(self) -> OutlierOptions:
        values = self.options.values()
        if values["model"] != "normal":
            del values["limit"]
        return OutlierOptions(**values)

    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Defective pixels", "", _FILES)
        if path:
            self.open(path)

    def _on_loaded(self, loaded: tuple[str, npt.NDArray[np.bool_], list[str]]) -> None:
        def show() -> None:
            movie, (name, mask, said) = self.layers.layer, loaded
            if movie is not None and mask.shape == movie.data.shape[-2:]:  # no other was picked
                self.add_labels(self.defects, mask, name)
                count = f"{int(np.count_nonzero(mask)):,} defective pixels."
                self.load.tell(" ".join([count, *said]), "warning" if said else "text")

        self.when_in_front("defects", show)

    # Showing a fit --------------------------------------------------------------------------------

    def show_work(self) -> None:
        """Show all that is known of the layer picked."""
        for picker in (self.gains, self.defects):
            picker.refill()
        self._show_no_pixel("Click an outlier to see it through the frames.")
        work, fit = self.work, self.fit
        self.plots.show_fit(fit)
        self.mask_button.setChecked(fit is not None and "mask" in work.derived)
        if fit is None:
            self.counts.show_rows(model.summary(None))
            self.tell(self.noise, "")
            return
        self.options.show_values(vars(fit.current.options))
        for picker, layer in zip((self.gains, self.defects), work.used, strict=True):
            picker.pick(layer)
        # Each pixel's sigma, transparent between the thresholds, its contrast limits.
        colours = Colormap(
            [_CLEAR, _CLEAR], name="outliers", low_color=_DARK, high_color=_HOT, nan_color=_DEFECT
        )
        work.made("sigma", " outliers (σ)").show(
            fit.sigma,
            colormap=colours,
            contrast_limits=fit.current.thresholds[:2],
            blending="translucent",
        )
        self._show_fit(work)

    def _change(self, fit: Fit, goes_on: bool = False) -> None:
        """Take another threshold or weight, which can be taken back."""
        if not goes_on:
            self.work.remember(self.fit)
        self.work.fit = fit
        self._show_fit(self.work)

    def _show_fit(self, work: OutlierWork) -> None:
        """Show thresholds and weights: at once what is quick, then the rest."""
        fit: Fit = work.fit
        self.plots.show_thresholds(fit)
        self.counts.show_rows(model.summary(fit))
        if (sigma := self.derived("sigma")) is not None:
            sigma.contrast_limits = fit.current.thresholds[:2]
        self.tell(self.noise, "Correlated noise R: measuring…", "muted")
        self._ask_for_correction()
        self.show_state()

    def _ask_for_correction(self) -> None:
        self._noises.drop()
        self._corrections.request(
            partial(_correct, self.fit, self.frame, self.mask_button.isChecked())
        )

    def _on_corrected(self, corrected: tuple[Stack, npt.NDArray[np.int8] | None]) -> None:
        stack, mask = corrected
        self._noises.request(partial(model.measure_noise, self.fit))
        self.work.made("corrected", " corrected", replaces=True).show_stack(stack)
        if mask is not None:
            self.work.made("mask", " outlier mask", Labels).show(
                mask,
                colormap=DirectLabelColormap(color_dict=_LABELS),
                features={"index": [0, 1, 2, 3], "kind": ["good", "hot", "dark", "defect"]},
            )
        self.show_state()

    def _on_measured(self, noise: Noise | None) -> None:
        text = "Correlated noise needs two frames." if noise is None else str(noise)
        self.tell(self.noise, text)

    def _show_no_pixel(self, text: str) -> None:
        self.tell(self.pixel, text, "muted")
        self.course.setVisible(False)

    def _on_read(self, course: PixelCourse) -> None:
        self.tell(self.pixel, str(course))
        values = course.values.astype(np.float64)
        colour = {1: "hot", -1: "dark"}.get(course.kind, "text")
        for name, curve in self._courses.items():
            curve.setData(values if name == colour else [])
        self._typical.setValue(course.typical)
        known = np.append(values[np.isfinite(values)], [course.typical, 0.0])
        self.course.setYRange(known.min(), known.max() or 1.0, padding=0.05)
        self.course.setXRange(0, max(1, len(values) - 1), padding=0.02)
        self.course.setVisible(True)

    # What the user does ---------------------------------------------------------------------------

    def _on_option(self, name: str) -> None:
        fit = self.fit
        if fit is None or name in model.REFIT:
            self.show_state()
            return
        try:
            changed = fit.with_options(self._options)
        except ValueError as error:
            self.options.show_values(vars(fit.current.options))
            self.controls.tell(model.in_words(error_text(error)), "error")
            return
        self._change(changed)

    def _on_colour(self, wanted: bool) -> None:
        if (sigma := self.derived("sigma")) is not None:
            sigma.visible = wanted

    def _on_mask(self, wanted: bool) -> None:
        if wanted and self.fit is not None:
            self._ask_for_correction()
        elif (mask := self.derived("mask")) is not None:
            self.viewer.layers.remove(mask)

    def on_pixel(self, row: int, column: int, reach: int) -> None:
        """Show the outlier that was clicked, or the pixel where there is none near."""
        row, column = self.fit.outlier_near(row, column, reach)
        self._show_no_pixel(f"Reading row {row}, column {column}…")
        self._pixels.request(partial(model.read_pixel, self.fit, row, column))

    def show_state(self) -> None:
        """Enable what can be used now, and show what is unusual."""
        super().show_state()
        work, fit, chosen = self.work, self.fit, self._options
        self.load.allow("" if self.layers.layer is not None else "Open or add a movie first.")
        for name, field in self.options.fields.items():
            means = name != "limit" or chosen.model == "normal"
            field.enabled = means and not self.controls.running
        self.reset_button.setEnabled(fit is not None and fit.is_changed)
        self.mask_button.setEnabled(self.corrected is not None)
        if "mask" not in (() if work is None else work.derived) and not self._corrections.busy:
            self.mask_button.setChecked(False)
        sigma = self.derived("sigma")
        self.colour_button.setEnabled(sigma is not None)
        self.colour_button.setChecked(sigma is not None and sigma.visible)
        if fit is None:
            self.show_warnings()
            return
        defects: Any = fit.defects, marked(self.defects)  # None equals None alone
        stale = (
            fit.needs_another(chosen)
            or work.used[0] is not self.gains.layer
            or not np.array_equal(*defects)
        )
        if not self.plots.is_dragged:  # sentences that come or go would move the plot
            self.show_warnings(STALE if stale else "", *model.remarks(fit))


def _load(path: str, shape: tuple[int, int], report: Report) -> Any:
    report(f"Reading {Path(path).name}", 0, None)
    with collected_warnings() as said:
        return Path(path).name, read_defects(path, shape), said


def _correct(fit: Fit, frame: int, with_mask: bool, report: Report) -> Any:
    """Correct the movie, and get ready to show the mask."""
    corrected = model.correct(fit, frame, with_mask, report)
    if with_mask:
        get_labels_ready()
    return corrected
