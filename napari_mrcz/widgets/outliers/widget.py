"""The "Outliers" dock widget: fit, see why, drag the thresholds, watch the picture, save."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import Colormap, DirectLabelColormap
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QWidget
from superqt import QElidingLabel

from napari_mrcz.correction.outliers.thresholds import OutlierOptions
from napari_mrcz.errors import error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.stack.references import read_defects
from napari_mrcz.widgets.base.correction_dock import STALE, CorrectionDock
from napari_mrcz.widgets.base.derived import (
    LayerWork,
    add_layer,
    frame_shown,
    geometry,
    get_labels_ready,
)
from napari_mrcz.widgets.base.form import (
    OptionsForm,
    Section,
    WrappedLabel,
    filled,
    form,
    number_field,
    push_button,
    show_number,
)
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import (
    LayerPicker,
    on_click_while_alive,
    pixel_at,
    plane_of,
)
from napari_mrcz.widgets.base.plot import offer_rows
from napari_mrcz.widgets.outliers.model import (
    REFIT,
    ROWS,
    Corrected,
    Fit,
    correct,
    fit_outliers,
    in_words,
    measure_noise,
    read_pixel,
    remarks,
    summary,
)
from napari_mrcz.widgets.outliers.plots import APART, PixelView, ThresholdPlots

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    import numpy.typing as npt

    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.outliers.model import Noise, PixelCourse

# Told apart by colour-blind eyes, upon black, grey and white (Okabe and Ito 2008).
_HOT, _DARK, _DEFECT = "#e69f00", "#56b4e9", "#cc79a7"
_CLEAR = (0.0, 0.0, 0.0, 0.0)
_LABELS = {None: _CLEAR, 0: _CLEAR, 1: _HOT, 2: _DARK, 3: _DEFECT}
_FILES = "Defects (*.txt *.mrc *.mrcz *.tif *.tiff *.gain *.dm3 *.dm4);;All files (*)"
_MEASURING = "Correlated noise R: measuring…"
_NOTHING = "\N{EN DASH}"
_HEADS = ("dark", "hot", "both")
# Farther than any pixel can lie: nothing is an outlier there.
_FARTHEST = 99.0


class OutlierWork(LayerWork):
    """The fit of a movie, with the thresholds as they are now, and what it was made with."""

    vanishing = ("sigma", "mask")
    gain: Image | None = None
    defects: Labels | None = None
    began: tuple[Image | None, Labels | None] = (None, None)

    def take(self, result: Fit) -> None:
        """Keep a fit."""
        super().take(result)
        self.gain, self.defects = self.began

    def forget(self, layer: Any) -> bool:
        """Release a layer that was removed: one derived, or that of the gain or the defects."""
        if layer is self.gain:
            self.gain = None
        if layer is self.defects:
            self.defects = None
        return super().forget(layer)

    def release(self) -> None:
        """Take away what says nothing without the fit; the corrected movie stays."""
        super().release()
        self.gain = self.defects = None
        self.began = (None, None)


class OutlierPixels(CorrectionDock):
    """Find a movie's hot and dark pixels, see why they are called so, and replace them."""

    title = "Outliers"

    corrected_shown = Signal()  # the layers show the thresholds as they are now
    measured = Signal(object)  # `Noise` is shown, or None
    pixel_read = Signal(object)  # a clicked pixel's `PixelCourse` is shown

    work_type = OutlierWork
    fit_tip = "Sum the frames, and find where the sum's distribution leaves the model"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._changing = False  # a drag is one change
        self.thresholds = ThresholdFields()
        self.counts = CountTable()
        self.plots = ThresholdPlots()
        self.colour_button = push_button(
            "Colour outliers", "Colour hot pixels orange and dark ones blue, over what is shown"
        )
        self.mask_button = push_button(
            "Outlier mask", "Show outliers as labels: 1 hot, 2 dark, 3 defect"
        )
        for button in (self.colour_button, self.mask_button):
            button.setCheckable(True)
        self.noise = WrappedLabel(
            "Mean correlation of the frames (eq. 7 of doi:10.1101/116533), measured in a few "
            "frames spread over the movie: outliers make frames alike"
        )
        self.pixel = PixelView(self)
        self.gains = LayerPicker(self, accepts=self._is_gain, none="none")
        self.gains.setToolTip(
            "A gain reference that counts are multiplied by before outliers are looked for: an "
            "image layer of the movie's rows and columns. Leave it at none for corrected movies"
        )
        self.defects = LayerPicker(self, accepts=self.lies_on, none="none", kind=Labels)
        self.defects.setToolTip(
            "Pixels known to be defective, replaced in every frame whatever the fit finds: a "
            "labels layer of the movie's rows and columns, painted or loaded"
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
        grid: Any = self.buttons.layout()
        grid.addWidget(self.colour_button, 1, 0)
        grid.addWidget(self.mask_button, 1, 1)
        self._connect()
        self.finish(
            self.thresholds, self.counts, self.buttons, self.plots, self.noise, self.pixel,
            self.advanced,
        )  # fmt: skip

    def derived(self, key: str) -> Any:
        """Return a layer that shows the fit: "corrected", "sigma" or "mask"; or None."""
        made = None if self.work is None else self.work.derived.get(key)
        return None if made is None else made.layer

    def start_fit(self) -> None:
        """Fit the layer picked; what is found is coloured, though colours were off before."""
        super().start_fit()
        self._on_colour(True)

    def fit_work(self, work: OutlierWork) -> Callable[[Report], Any]:
        """Return the fit of a layer; a movie that was summed is not read again."""
        gain = self.gains.layer
        work.began = gain, self.defects.layer
        stack = stack_of_layer(work.layer) if work.fit is None else work.fit.stack
        return partial(
            fit_outliers,
            stack,
            self._options,
            None if gain is None else gain.data,
            defects=self.known_defects,
        )

    @property
    def known_defects(self) -> npt.NDArray[np.bool_] | None:
        """Known defects, (y, x); None without a layer of them."""
        labels = plane_of(self.defects.layer)
        return None if labels is None else labels != 0

    def set_threshold(self, side: str, sigma: float) -> None:
        """Move the "dark" or the "hot" threshold, in standard deviations."""
        if (fit := self.fit) is not None:
            self._change(fit.with_thresholds(**{side: sigma}))

    def reset(self) -> None:
        """Take the thresholds of the fit again."""
        if (fit := self.fit) is not None and fit.is_changed:
            self._change(fit.reset())

    def undo(self) -> None:
        """Take back the last change of a threshold or a weight."""
        if self.fit is not None and (work := self.work).before:
            work.fit = work.before.pop()
            self.options.show_values(vars(work.fit.options))
            self._show_fit(work)

    def open(self, path: str) -> None:
        """Read a defect file for the movie picked."""
        movie = self.layers.layer
        if movie is not None:
            self.load.run(partial(_load, path, movie.data.shape[-2:]))

    @property
    def _options(self) -> OutlierOptions:
        return OutlierOptions(**self.options.values())

    def _connect(self) -> None:
        self.gains.layer_changed.connect(self.show_state)
        self.defects.layer_changed.connect(self.show_state)
        self.load.start_button.clicked.connect(self._choose)
        self.load.returned.connect(self._on_loaded)
        self.options.changed.connect(self._on_option)
        self.plots.moved.connect(self._on_dragged)
        self.plots.settled.connect(self._on_settled)
        self.thresholds.edited.connect(self.set_threshold)
        self.colour_button.clicked.connect(self._on_colour)
        self.mask_button.clicked.connect(self._on_mask)
        on_click_while_alive(self, self.viewer, self._on_click)

    # Layers ---------------------------------------------------------------------------------------

    def _is_gain(self, layer: Image) -> bool:
        return not layer.rgb and self.lies_on(layer)

    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Defective pixels", "", _FILES)
        if path:
            self.open(path)

    def _on_loaded(self, loaded: tuple[str, npt.NDArray[np.bool_]]) -> None:
        """Show what was read as labels, to be painted with napari's own tools, and pick them."""
        self.when_in_front("defects", partial(self._add_labels, *loaded))

    def _add_labels(self, name: str, mask: npt.NDArray[np.bool_]) -> None:
        movie = self.layers.layer
        if movie is None or mask.shape != movie.data.shape[-2:]:
            return  # another movie was picked meanwhile
        labels = Labels(mask.astype(np.uint8), name=name, **geometry(movie, 2))
        add_layer(self.viewer, labels)
        self.defects.pick(labels)
        self.load.tell(f"{int(np.count_nonzero(mask)):,} defective pixels.")

    # Showing a fit --------------------------------------------------------------------------------

    def show_work(self) -> None:
        """Show all that is known of the layer picked."""
        self.gains.refill()
        self.defects.refill()
        self.forget_put_off("corrected")
        self.pixel.clear()
        if self.fit is None:
            self.plots.clear()
            self.counts.show_fit(None)
            self.tell(self.noise, "")
            self.mask_button.setChecked(False)
            return
        work = self.work
        self.mask_button.setChecked("mask" in work.derived)
        self.options.show_values(vars(work.fit.options))
        self.gains.pick(work.gain)
        self.defects.pick(work.defects)
        self.plots.show_fit(work.fit)
        self._show_sigma(work)
        self._show_fit(work)

    def _change(self, fit: Fit) -> None:
        """Take another threshold or weight, which can be taken back."""
        work = self.work
        if not self._changing:
            work.remember(work.fit)
        work.fit = fit
        self._show_fit(work)

    def _show_fit(self, work: OutlierWork) -> None:
        """Show thresholds and weights: at once what is quick, then the rest."""
        fit: Fit = work.fit
        self.plots.show_thresholds(fit)
        self.thresholds.show_thresholds(fit)
        self.counts.show_fit(fit)
        if (sigma := self.derived("sigma")) is not None:
            sigma.contrast_limits = fit.current.thresholds[:2]
        self.tell(self.noise, _MEASURING, "muted")
        self._ask_for_correction(work)
        self.show_state()

    def _show_sigma(self, work: OutlierWork) -> None:
        """Show each pixel's sigma, transparent between the thresholds, its contrast limits."""
        colours = Colormap(
            [_CLEAR, _CLEAR], name="outliers", low_color=_DARK, high_color=_HOT, nan_color=_DEFECT
        )
        work.made("sigma", " outliers (σ)").show(
            work.fit.sigma,
            colormap=colours,
            contrast_limits=work.fit.current.thresholds[:2],
            blending="translucent",
        )

    def _ask_for_correction(self, work: OutlierWork) -> None:
        self._noises.drop()
        frame = frame_shown(self.viewer, work.layer)
        self._corrections.request(partial(_correct, work.fit, frame, self.mask_button.isChecked()))

    def _on_corrected(self, corrected: Corrected) -> None:
        self._noises.request(partial(measure_noise, corrected.fit))
        self.when_in_front("corrected", partial(self._show_corrected, corrected))

    def _show_corrected(self, corrected: Corrected) -> None:
        work = self.work
        if self.fit is not None:
            work.made("corrected", " corrected", replaces=True).show_stack(corrected.stack)
            if corrected.mask is not None:
                self._show_mask(work, corrected.mask)
            self.show_state()
        self.corrected_shown.emit()

    def _show_mask(self, work: OutlierWork, mask: npt.NDArray[np.int8]) -> None:
        work.made("mask", " outlier mask", Labels).show(
            mask,
            colormap=DirectLabelColormap(color_dict=_LABELS),
            features={"index": [0, 1, 2, 3], "kind": ["good", "hot", "dark", "defect"]},
        )

    def _on_measured(self, noise: Noise | None) -> None:
        text = "Correlated noise needs two frames." if noise is None else str(noise)
        self.tell(self.noise, text)
        self.measured.emit(noise)

    def _on_read(self, course: PixelCourse) -> None:
        self.pixel.show_course(course)
        self.pixel_read.emit(course)

    def on_background_failed(self, error: Exception) -> None:
        """Show what went wrong."""
        self.controls.tell(in_words(error_text(error)), "error")

    # What the user does ---------------------------------------------------------------------------

    def _on_dragged(self, side: str, sigma: float) -> None:
        self.set_threshold(side, sigma)
        self._changing = self.plots.is_dragged

    def _on_settled(self) -> None:
        self._changing = False
        if (fit := self.fit) is not None:
            self.plots.show_thresholds(fit)

    def _on_option(self, name: str) -> None:
        fit = self.fit
        if fit is None or name in REFIT:
            self.show_state()
            return
        try:
            changed = fit.with_options(self._options)
        except ValueError as error:
            self.options.show_values(vars(fit.options))
            self.controls.tell(in_words(error_text(error)), "error")
            return
        self._change(changed)

    def _on_colour(self, wanted: bool) -> None:
        if (sigma := self.derived("sigma")) is not None:
            sigma.visible = wanted

    def _on_mask(self, wanted: bool) -> None:
        if wanted and self.fit is not None:
            self._ask_for_correction(self.work)
        elif (mask := self.derived("mask")) is not None:
            self.viewer.layers.remove(mask)

    def _on_click(self, position: tuple[float, ...]) -> None:
        """Show the outlier that was clicked, or the pixel where there is none near."""
        fit, layer = self.fit, self.layers.layer
        at = None if layer is None else pixel_at(self.viewer, layer, position)
        if fit is None or at is None:
            return
        row, column = fit.outlier_near(*at)
        self.pixel.clear(f"Reading row {row}, column {column}…")
        self._pixels.request(partial(read_pixel, fit, row, column))

    def show_state(self) -> None:
        """Enable what can be used now, and show what is unusual."""
        super().show_state()
        work, fit = self.work, self.fit
        self.load.allow("" if self.layers.layer is not None else "Open or add a movie first.")
        for field in self.options.fields.values():
            field.enabled = not self.controls.running
        self.thresholds.setEnabled(fit is not None)
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
        defects: Any = fit.defects, self.known_defects  # None equals None alone
        stale = (
            fit.needs_another(self._options)
            or work.gain is not self.gains.layer
            or not np.array_equal(*defects)
        )
        self.show_warnings(STALE if stale else "", *remarks(fit))


class ThresholdFields(QWidget):
    """The two thresholds as numbers."""

    edited = Signal(str, float)  # "dark" or "hot" was typed or stepped, in standard deviations

    def __init__(self) -> None:
        super().__init__()
        said = "Pixels {} than this are replaced: type, or drag"
        self.dark = number_field((-_FARTHEST, 0.0), 0.1, " σ", said.format("darker"))
        self.hot = number_field((0.0, _FARTHEST), 0.1, " σ", said.format("brighter"))
        self.dark.valueChanged.connect(lambda value: self.edited.emit("dark", value))
        self.hot.valueChanged.connect(lambda value: self.edited.emit("hot", value))
        row: Any = filled(self, across=True).layout()
        row.addLayout(form(("Dark", self.dark)))
        row.addLayout(form(("Hot", self.hot)))

    def show_thresholds(self, fit: Fit) -> None:
        """Show those of a fit; nothing is emitted."""
        limits = fit.current.thresholds
        show_number(self.dark, limits.dark, -_FARTHEST, limits.hot - APART)
        show_number(self.hot, limits.hot, limits.dark + APART, _FARTHEST)


class CountTable(QWidget):
    """How many pixels are outliers, and how many would be by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip(
            "Pixels beyond the thresholds now; which part of all pixels that is; and how many good "
            "pixels the model expects there by chance"
        )
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(1)
        grid.setHorizontalSpacing(5)
        grid.setColumnStretch(0, 1)
        # Numbers of large frames need the room that names have.
        names = [QElidingLabel(name) for name in ("", *ROWS)]
        numbers = [[QLabel(text) for text in _HEADS], *([QLabel() for _ in _HEADS] for _ in ROWS)]
        for row, (name, line) in enumerate(zip(names, numbers, strict=True)):
            grid.addWidget(name, row, 0)
            for column, label in enumerate(line, 1):
                grid.addWidget(label, row, column, Qt.AlignmentFlag.AlignRight)
                label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
                label.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)
        self.heads, *self.cells = numbers
        offer_rows(
            self,
            lambda: [
                [name.text(), *(label.text() for label in line)]
                for name, line in zip(names, numbers, strict=True)
            ],
        )
        self.show_fit(None)

    def show_fit(self, fit: Fit | None) -> None:
        """Show numbers, or none."""
        rows = [(_NOTHING,) * len(_HEADS)] * len(ROWS) if fit is None else summary(fit)
        for labels, texts in zip(self.cells, rows, strict=True):
            for label, text in zip(labels, texts, strict=True):
                label.setText(text)


def _load(path: str, shape: tuple[int, int], report: Report) -> tuple[str, npt.NDArray[np.bool_]]:
    report(f"Reading {Path(path).name}", 0, None)
    return Path(path).name, read_defects(path, shape)


def _correct(fit: Fit, frame: int, with_mask: bool, report: Report) -> Corrected:
    """Correct the movie, and get ready to show the mask."""
    corrected = correct(fit, frame, with_mask, report)
    if with_mask:
        get_labels_ready()
    return corrected
