"""The "Counting" dock widget: fit, see charges and single events, look at counts, save them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QCheckBox, QLabel, QSizePolicy, QWidget

from napari_mrcz.correction.counting import CountingOptions
from napari_mrcz.plugin.layers import LateStack, describe, stack_of_layer
from napari_mrcz.widgets.base.correction_dock import CorrectionDock
from napari_mrcz.widgets.base.derived import LayerWork, frame_shown, get_points_ready
from napari_mrcz.widgets.base.form import (
    OptionsForm,
    Section,
    WrappedLabel,
    filled,
    number_field,
    push_button,
)
from napari_mrcz.widgets.base.plot import Key, Plot
from napari_mrcz.widgets.counting.model import Fit, count_frame, find_events, fit_counting

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    import numpy.typing as npt
    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.correction.counting.events import Events
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.counting.model import Histogram

_INVITATION = "Fit a movie of raw frames to see its electrons."
_LARGEST = 1e7
# Of a gallery: its brightest pixels are white, so many are; four rows of patches are so high.
_WHITE = 0.995
_GALLERY_PX = 118
# Pixels of the picture from one column of patches to the next.
_COLUMN = 10


class CountingWork(LayerWork):
    """The fit of raw frames, the threshold as it is now, and the counts that are shown."""

    vanishing = ("counts", "electrons")
    threshold = 0.0
    super_resolution = 1
    with_layer = True
    counts: LateStack | None = None

    def take(self, result: Fit) -> None:
        """Keep a fit."""
        super().take(result)
        self.threshold = result.threshold

    def let_counts_go(self) -> None:
        """Stop counting the frames that are shown."""
        if self.counts is not None:
            self.counts.wanted = None
        self.counts = None

    def release(self) -> None:
        """Take counts and marks away with the movie."""
        self.let_counts_go()
        super().release()


class Counting(CorrectionDock):
    """Count single electrons in raw frames."""

    title = "Counting"

    previewed = Signal(object)  # the layer of counts shows what is chosen now
    arrived = Signal(object)  # the layer of counts shows the frame that was stepped to
    marked = Signal(object)  # the layer of points at the events of a frame

    work_type = CountingWork
    main = "counts"
    movie_tip = "The movie of raw frames; follows the layer selected in the list"
    fit_tip = "Measure offset, noise, spots and threshold on some of the frames"
    save_text = "Save counts…"
    force_text = "Count frames that seem to be counted"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._awaited: tuple[LateStack, int] | None = None
        self._showing = False
        self._counting = self.in_background(self._on_counted)
        self._marking = self.in_background(self._on_marked)
        self._stepping = self.in_background(self._on_arrived, delay_ms=0)
        self.found = WrappedLabel("What was measured, and how many electrons are counted with it")
        self.charges, self.pixels, self.gallery = ChargeView(), PixelView(), Gallery()
        threshold = ("Threshold", self.charges.number)
        self.options = OptionsForm(CountingOptions, ("super_resolution",), rows=(threshold,))
        self.preview = QCheckBox("Show counts as a layer")
        self.preview.setChecked(True)
        self.preview.setToolTip("Counts of the movie, each frame counted when it is looked at")
        self.mark_button = push_button(
            "Mark electrons of this frame",
            "A layer of points where the electrons of the frame struck",
        )
        self.pictures = Section("Single electrons", self.gallery)
        self.charges.threshold_changed.connect(self._on_threshold)
        self.options.changed.connect(self._on_choice)
        self.preview.toggled.connect(self._on_choice)
        self.mark_button.clicked.connect(self.mark)
        values = Section("Pixel values and noise", self.pixels)
        self.finish(
            self.found, self.charges, self.options, self.preview, self.buttons, self.mark_button,
            values, self.pictures,
        )  # fmt: skip

    @property
    def counts(self) -> Image | None:
        """The layer of counts, while it is in the viewer."""
        return self.corrected

    def problem(self) -> str:
        """Return why the layer picked cannot be fitted, or nothing."""
        layer = self.layers.layer
        if layer is None:
            return "Open a movie of raw frames first"
        if layer.rgb or layer.multiscale or len(layer.data.shape) != 3:
            return "Electrons are counted in movies: frames, rows and columns"
        return ""

    def fit_work(self, work: CountingWork) -> Callable[[Report], Any]:
        """Return the fit of a layer."""
        return partial(fit_counting, stack_of_layer(work.layer), force=self.force.isChecked())

    def mark(self) -> None:
        """Put points where the electrons of the frame that is shown struck."""
        work = self.work
        if self.fit is not None:
            frame = frame_shown(self.viewer, work.layer)
            self._marking.request(partial(_mark, work.fit, frame, work.threshold))

    def reset(self) -> None:
        """Take the threshold of the fit again."""
        if self.fit is not None:
            self.charges.number.setValue(self.fit.threshold)

    def undo(self) -> None:
        """Take back the last change of the threshold."""
        work = self.work
        if work is not None and work.before:
            work.threshold = work.before.pop()
            self._show_choices(work)
            self._count(work)

    def show_work(self) -> None:
        """Show all that is known of the layer picked."""
        work, fit = self.work, self.fit
        for key in ("counts", "marks"):
            self.forget_put_off(key)
        self._awaited = None
        self.show_warnings(*(() if fit is None else fit.counting.warnings))
        self._showing = True
        self.charges.show_fit(fit)
        self._showing = False
        self.pixels.show_fit(fit)
        self.gallery.show_picture(None if fit is None else fit.gallery)
        self.pictures.setVisible(fit is not None)
        if fit is None:
            self.tell(self.found, _INVITATION, "muted")
            return
        self._show_choices(work)
        self._count(work)

    def show_state(self) -> None:
        """Enable what can be used now."""
        super().show_state()
        fit = self.fit
        for control in (self.preview, self.mark_button):
            control.setEnabled(fit is not None)
        self.reset_button.setEnabled(fit is not None and self.work.threshold != fit.threshold)

    def _show_choices(self, work: CountingWork) -> None:
        self._showing = True
        self.charges.number.setValue(work.threshold)
        self.options.show_values({"super_resolution": work.super_resolution})
        self.preview.setChecked(work.with_layer)
        self._showing = False

    # Counts ---------------------------------------------------------------------------------------

    def _on_threshold(self, threshold: float) -> None:
        work = self.work
        if self._showing or self.fit is None or threshold == work.threshold:
            return
        if not self._counting.busy or not work.before:  # a drag is one change
            work.remember(work.threshold)
        work.threshold = threshold
        self._count(work)

    def _on_choice(self, *_: Any) -> None:
        work = self.work
        if self._showing or work is None:
            return
        work.super_resolution = self.options.values()["super_resolution"]
        work.with_layer = self.preview.isChecked()
        if work.fit is not None:
            self._count(work)

    def _count(self, work: CountingWork) -> None:
        """Count with another threshold, or finer."""
        self.tell(self.found, work.fit.sentence(work.threshold))
        if work.with_layer:
            counts = LateStack.of(work.fit.counts(work.threshold, work.super_resolution))
            frame = frame_shown(self.viewer, work.layer)
            self._counting.request(partial(count_frame, counts, frame))
        else:
            self._counting.drop()
            self.forget_put_off("counts")
            if "counts" in work.derived:
                work.derived.pop("counts").part(remove=True)
        self.show_state()

    def _on_counted(self, counts: LateStack) -> None:
        self.when_in_front("counts", partial(self._take_counts, counts))

    def _take_counts(self, counts: LateStack) -> None:
        work = self.work
        if self.fit is None:
            return
        work.let_counts_go()
        counts.wanted = self._on_wanted
        work.counts = counts
        derived = work.made("counts", " counts")
        derived.finer = counts.shape[-1] // work.data.shape[-1]
        derived.show(
            counts,
            metadata=describe(counts),
            contrast_limits=(0.0, 1.0),
            rgb=False,
            multiscale=False,
            axis_labels=work.layer.axis_labels,
        )
        derived.place()
        self.show_state()
        self.previewed.emit(self.counts)

    def _on_wanted(self, counts: LateStack, frame: int) -> None:
        """Count a frame that the viewer would show; a new layer asks for the first one, too."""
        work = self.work
        if work is None or frame != frame_shown(self.viewer, work.layer):
            return
        if self._awaited != (counts, frame):
            self._awaited = counts, frame
            self.controls.tell(f"Counting frame {frame}…")
            self._stepping.request(partial(count_frame, counts, frame))

    def _on_arrived(self, counts: LateStack) -> None:
        self._awaited = None
        self.controls.tell("")
        if self.counts is not None and self.counts.data is counts:
            self.counts.refresh(extent=False)
            self.arrived.emit(self.counts)

    def _on_marked(self, found: tuple[int, Events]) -> None:
        self.when_in_front("marks", partial(self._show_marks, *found))

    def _show_marks(self, frame: int, events: Events) -> None:
        if (work := self.work) is not None:
            points = np.stack([np.full(len(events), frame), events.y, events.x], axis=1)
            marks = work.made("electrons", " electrons", _points)
            marks.show(points, ndim=3, axis_labels=work.layer.axis_labels)
            self.marked.emit(marks.layer)

    def _on_work_changed(self, work: Any) -> None:
        if work is self.work and "counts" not in work.derived and work.counts is not None:
            work.let_counts_go()
            work.with_layer = False
            self._show_choices(work)
        super()._on_work_changed(work)

    def on_background_failed(self, error: Exception) -> None:
        """Show what went wrong; the frame may be asked for again."""
        self._awaited = None
        super().on_background_failed(error)

    def _let_go(self) -> None:
        """Count frames where they are looked at when no widget is there to count them."""
        works: Any = self.works
        for work in works:
            if work.counts is not None and work.counts.wanted == self._on_wanted:
                work.counts.wanted = None
        super()._let_go()


class ChargeView(QWidget):
    """How often each charge occurs, with the threshold as a line; its number belongs in a form."""

    threshold_changed = Signal(float)  # in grey values of charge; often while the line is dragged

    def __init__(self) -> None:
        super().__init__()
        self.plot = Plot(
            "charge (grey values)",
            "spots",
            "How many spots have each charge. Drag the line: what is to its right is counted",
        )
        self.plot.getPlotItem().setLogMode(x=False, y=True)
        self._curve = self.plot.curve("accent", stepMode="center")
        self.line = self.plot.line("hot", movable=True)
        tip = "Charge, added up over a spot, from which it is an electron"
        self.number = number_field((0.1, _LARGEST), 1, " grey values", tip)
        self.number.setDecimals(1)
        filled(self, self.plot)
        self.line.sigPositionChanged.connect(self._on_line)
        self.number.valueChanged.connect(self._on_number)
        self.show_fit(None)

    @property
    def threshold(self) -> float:
        """The threshold in grey values of charge."""
        return float(self.number.value())

    def show_fit(self, fit: Fit | None) -> None:
        """Show the charges and the threshold of a fit, or nothing."""
        for part in (self, self.number):
            part.setEnabled(fit is not None)
        self.line.setVisible(fit is not None)
        if fit is None:
            self._curve.setVisible(False)
            self.plot.setXRange(0, 500, padding=0)
            self.plot.setYRange(0, 3, padding=0)
            return
        _draw(self.plot, self._curve, fit.charge_histogram())
        self.line.setBounds((0.1, fit.charge_histogram()[0][-1]))
        self.number.setValue(fit.threshold)
        self._on_number(self.threshold)

    def _on_line(self) -> None:
        if round(self.line.value(), 1) != self.threshold:
            self.number.setValue(self.line.value())

    def _on_number(self, value: float) -> None:
        if round(self.line.value(), 1) != value:
            self.line.blockSignals(True)  # else a number beyond the plot would be drawn back
            self.line.setValue(value)
            self.line.blockSignals(False)
        self.threshold_changed.emit(value)


class PixelView(QWidget):
    """How often each pixel value occurs, and what noise alone would give."""

    def __init__(self) -> None:
        super().__init__()
        self.plot = Plot(
            "pixel value above its offset (grey values)",
            "pixels",
            "How many pixels have each value. What exceeds the curve of the noise was struck",
        )
        self.plot.getPlotItem().setLogMode(x=False, y=True)
        self._values = self.plot.curve("accent", stepMode="center")
        self._noise = self.plot.curve("model")
        self.legend = Key((("accent", "━", "pixels"), ("model", "━", "read noise alone")))
        filled(self, self.plot, self.legend)
        self.show_fit(None)

    def show_fit(self, fit: Fit | None) -> None:
        """Show the pixel values of a fit, or nothing."""
        if fit is None:
            self._values.setVisible(False)
            self._noise.setData([], [])
            self.plot.setXRange(-20, 100, padding=0)
            self.plot.setYRange(0, 3, padding=0)
            return
        _draw(self.plot, self._values, fit.values)
        self._noise.setData(*fit.noise_curve())


class Gallery(QLabel):
    """Patches about single events as one picture, with as many of its columns as fit."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Single electrons as the detector shows them, 9 × 9 pixels each")
        # Were the height to follow the width, a scroll bar beside it would come and go for ever.
        self.setFixedHeight(_GALLERY_PX)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._pixmap: QPixmap | None = None

    def show_picture(self, picture: npt.NDArray[np.float32] | None) -> None:
        """Show another one, or none; what is no number is left transparent."""
        self.setVisible(picture is not None)
        self._pixmap = None if picture is None else _pixmap(picture)
        self._scale()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the picture's shape."""
        super().resizeEvent(event)
        self._scale()

    def _scale(self) -> None:
        if self._pixmap is None:
            self.clear()
            return
        height = self._pixmap.height()
        fitting = max(1, round(self.width() * height / (self.height() * _COLUMN)))
        part = self._pixmap.copy(0, 0, min(fitting * _COLUMN - 1, self._pixmap.width()), height)
        how = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.FastTransformation
        self.setPixmap(part.scaled(self.size(), *how))


def _draw(plot: Plot, curve: Any, histogram: Histogram) -> None:
    middle, number = histogram
    step = middle[1] - middle[0]
    # Empty bins have no logarithm: they lie below the plot.
    curve.setVisible(True)
    curve.setData(np.append(middle - step / 2, middle[-1] + step / 2), np.maximum(number, 0.1))
    plot.setXRange(min(0, middle[0]), middle[-1] + step, padding=0)
    plot.setYRange(-0.15, np.log10(max(number.max(), 10)) + 0.15, padding=0)


def _pixmap(picture: npt.NDArray[np.float32]) -> QPixmap:
    known = picture[np.isfinite(picture)]
    high = float(np.quantile(known, _WHITE)) if known.size else 1.0
    grey = np.clip(np.nan_to_num(picture) / max(high, 1e-6), 0, 1) * 255
    pixels = np.zeros((*picture.shape, 4), np.uint8)
    pixels[..., :3] = grey[..., np.newaxis].astype(np.uint8)
    pixels[..., 3] = np.where(np.isfinite(picture), 255, 0)
    y, x = picture.shape
    image = QImage(pixels.tobytes(), x, y, 4 * x, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image)  # a copy, which outlives the array


def _points(data: Any, **attributes: Any) -> Points:
    look = {"size": 1.5, "face_color": "transparent", "border_color": "#d55e00"}
    return Points(data, border_width=0.15, **look, **attributes)


def _mark(fit: Fit, frame: int, threshold: float, report: Report) -> tuple[int, Events]:
    """Find the electrons of a frame, and get ready to draw them."""
    events = find_events(fit, frame, threshold, report)
    get_points_ready()
    return frame, events
