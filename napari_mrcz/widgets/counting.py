"""The "Counting" dock widget: fit, see charges and single events, look at counts, save them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from napari.layers import Points
from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QCheckBox, QLabel, QSizePolicy

from napari_mrcz.correction import ElectronCounting, count_electrons
from napari_mrcz.correction.counting import CountingOptions
from napari_mrcz.correction.counting.background import Background
from napari_mrcz.plugin.layers import FrameFetcher, LateStack, describe, stack_of_layer
from napari_mrcz.widgets.base.correction_dock import CorrectionDock, HistogramPlot, Threshold
from napari_mrcz.widgets.base.derived import LayerWork, get_points_ready
from napari_mrcz.widgets.base.form import (
    OptionsForm,
    Section,
    WrappedLabel,
    number_field,
    push_button,
)
from napari_mrcz.widgets.base.plot import Key

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from qtpy.QtGui import QResizeEvent

    from napari_mrcz.correction.counting.events import Events
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

_LEAST, _LARGEST = 0.1, 1e7
# Of a gallery: its brightest pixels are white, so many are; four rows of patches are so high.
_WHITE = 0.995
_GALLERY_PX = 118
# Some frames, and a central part of large ones, are enough for histograms.
_FRAMES, _SIDE = 6, 512
_BINS = 100
# Spots fainter than the threshold are shown too, so that one sees what it parts.
_FAINT = 0.5
# Of patches about single events: their side, and how they stand in the gallery.
_PATCH, _ROWS, _FEWEST_STEPS, _MOST_STEPS = 9, 4, 10, 40
_STEP = _PATCH + 1

# Middles of bins, and how much is in each.
Histogram = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


class CountingWork(LayerWork):
    """The fit of raw frames, the threshold as it is now, and how counts are shown."""

    vanishing = ("counts", "electrons")
    threshold = 0.0
    super_resolution = 1
    with_layer = True

    def take(self, result: Fit) -> None:
        """Keep a fit."""
        super().take(result)
        self.threshold = result.threshold

    def forget(self, layer: Any) -> bool:
        """Release a layer that was removed; counts that the user removes are not wanted."""
        counts = self.derived.get("counts")
        self.with_layer = self.with_layer and (counts is None or counts.layer is not layer)
        return super().forget(layer)


class Counting(CorrectionDock):
    """Count single electrons in raw frames."""

    title = "Counting"

    work_type = CountingWork
    main = "counts"
    movie_tip = "The movie of raw frames; follows the layer selected in the list"
    fit_tip = "Measure offset, noise, spots and threshold on some of the frames"
    save_text = "Save counts…"
    force_text = "Count frames that seem to be counted"

    counts = CorrectionDock.corrected

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._counting = self.in_background(self._on_counted)
        self._marking = self.in_background(self._on_marked)
        self.found = WrappedLabel("What was measured, and how many electrons are counted with it")
        self.charges = HistogramPlot(
            "charge (grey values)",
            "spots",
            "How many spots have each charge. Drag the line: what is to its right is counted",
        )
        self._charges = self.charges.curve("accent", stepMode="center")
        tip = "Charge, added up over a spot, from which it is an electron"
        field = number_field((_LEAST, _LARGEST), 1, " grey values", tip)
        field.setDecimals(1)
        self.threshold = Threshold(field, self.charges.line("hot", movable=True))
        self.pixels = HistogramPlot(
            "pixel value above its offset (grey values)",
            "pixels",
            "How many pixels have each value. What exceeds the curve of the noise was struck",
        )
        self._pixels = self.pixels.curve("accent", stepMode="center")
        self._noise = self.pixels.curve("model")
        legend = Key((("accent", "━", "pixels"), ("model", "━", "read noise alone")))
        self.gallery = Gallery()
        self.options = OptionsForm(
            CountingOptions, ("super_resolution",), rows=(("Threshold", field),)
        )
        self.preview = QCheckBox("Show counts as a layer")
        self.preview.setToolTip("Counts of the movie, each frame counted when it is looked at")
        self.mark_button = push_button(
            "Mark electrons of this frame",
            "A layer of points where the electrons of the frame struck",
        )
        self.pictures = Section("Single electrons", self.gallery)
        self.threshold.changed.connect(self._on_threshold)
        self.options.changed.connect(self._on_choice)
        self.preview.clicked.connect(self._on_choice)
        self.mark_button.clicked.connect(self.mark)
        values = Section("Pixel values and noise", self.pixels, legend)
        self.finish(
            self.found, self.charges, self.options, self.preview, self.buttons, self.mark_button,
            values, self.pictures,
        )  # fmt: skip

    def problem(self) -> str:
        """Return why the layer picked cannot be fitted, or nothing."""
        layer = self.layers.layer
        if layer is not None and (layer.rgb or layer.multiscale or len(layer.data.shape) != 3):
            return "Electrons are counted in movies: frames, rows and columns"
        return super().problem()

    def fit_work(self, work: CountingWork) -> Callable[[Report], Any]:
        """Return the fit of a layer."""
        return partial(fit_counting, stack_of_layer(work.layer), force=self.force.isChecked())

    def mark(self) -> None:
        """Put points where the electrons of the frame that is shown struck."""
        if self.fit is not None:
            self._marking.request(partial(_mark, self.fit, self.frame, self.work.threshold))

    def reset(self) -> None:
        """Take the threshold of the fit again."""
        if self.fit is not None:
            self._on_threshold(self.fit.threshold)

    def restore(self, state: float) -> None:
        """Take the threshold that there was."""
        self.work.threshold = state
        self._count()

    def show_work(self) -> None:
        """Show all that is known of the layer picked."""
        fit = self.fit
        self.show_warnings(*(() if fit is None else fit.counting.warnings))
        for part in (*self.threshold.lines, self._charges, self._pixels, self._noise):
            part.setVisible(fit is not None)
        for widget in (self.charges, self.threshold.field):
            widget.setEnabled(fit is not None)
        self.pictures.setVisible(fit is not None)
        if fit is None:
            self.tell(self.found, "Fit a movie of raw frames to see its electrons.", "muted")
            return
        self._noise.setData(*fit.noise_curve())
        for plot, curve, (middle, number) in (
            (self.charges, self._charges, fit.charge_histogram()),
            (self.pixels, self._pixels, fit.values),
        ):
            step = middle[1] - middle[0]
            # Empty bins have no logarithm: they lie below the plot.
            curve.setData(
                np.append(middle - step / 2, middle[-1] + step / 2), np.maximum(number, 0.1)
            )
            plot.show_all()
        self.gallery.show_picture(fit.gallery)
        self._count()

    def show_state(self) -> None:
        """Enable what can be used now, and show what is chosen."""
        super().show_state()
        work, fit = self.work, self.fit
        for control in (self.preview, self.mark_button):
            control.setEnabled(fit is not None)
        self.reset_button.setEnabled(fit is not None and work.threshold != fit.threshold)
        self.preview.setChecked(work is None or work.with_layer)

    # Counts ---------------------------------------------------------------------------------------

    def _on_threshold(self, threshold: float) -> None:
        work = self.work
        if self.fit is not None and threshold != work.threshold:
            if not self.threshold.goes_on:
                work.remember(work.threshold)
            work.threshold = threshold
            self._count()

    def _on_choice(self, *_: Any) -> None:
        if (work := self.work) is not None:
            work.super_resolution = self.options.values()["super_resolution"]
            work.with_layer = self.preview.isChecked()
            if work.fit is not None:
                self._count()

    def _count(self) -> None:
        """Show what is chosen, and count with it."""
        work: CountingWork = self.work
        fit: Fit = work.fit
        drawn = self._charges.xData[0], self._charges.xData[-1]
        self.threshold.show(work.threshold, (_LEAST, _LARGEST), drawn)
        self.options.show_values({"super_resolution": work.super_resolution})
        self.tell(self.found, fit.sentence(work.threshold))
        if work.with_layer:
            counts = LateStack.of(fit.counts(work.threshold, work.super_resolution))
            self._counting.request(partial(_count_frame, counts, self.frame))
        else:
            self._counting.drop()
            if "counts" in work.derived:
                work.derived.pop("counts").part(remove=True)
        self.show_state()

    def _on_counted(self, counts: LateStack) -> None:
        counts.wanted = lambda *_: None  # a new layer asks for the first frame, too
        derived = self.work.made("counts", " counts")
        derived.finer = counts.shape[-1] // self.work.data.shape[-1]
        derived.show(
            counts,
            metadata=describe(counts),
            contrast_limits=(0.0, 1.0),
            rgb=False,
            multiscale=False,
            axis_labels=self.work.layer.axis_labels,
        )
        counts.wanted = FrameFetcher(derived.layer)
        derived.place()
        self.show_state()

    def _on_marked(self, found: tuple[int, Events]) -> None:
        frame, events = found
        points = np.stack([np.full(len(events), frame), events.y, events.x], axis=1)
        look = {"face_color": "transparent", "border_color": "#d55e00", "border_width": 0.15}
        marks = self.work.made("electrons", " electrons", partial(Points, size=1.5, **look))
        marks.show(points, ndim=3, axis_labels=self.work.layer.axis_labels)


class Gallery(QLabel):
    """Patches about single events as one picture, with as many of its columns as fit."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Single electrons as the detector shows them, 9 × 9 pixels each")
        # Were the height to follow the width, a scroll bar beside it would come and go for ever.
        self.setFixedHeight(_GALLERY_PX)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._picture = QPixmap()

    def show_picture(self, picture: npt.NDArray[np.float32]) -> None:
        """Show another one; what is no number is left transparent."""
        known = picture[np.isfinite(picture)]
        high = float(np.quantile(known, _WHITE)) if known.size else 1.0
        colours, _ = pg.makeARGB(picture, levels=(0, max(high, 1e-6)))
        self._picture.convertFromImage(pg.makeQImage(colours, alpha=True, transpose=False))
        self._scale()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the picture's shape."""
        super().resizeEvent(event)
        if not self._picture.isNull():
            self._scale()

    def _scale(self) -> None:
        width, height = self._picture.width(), self._picture.height()
        fitting = max(1, round(self.width() * height / (self.height() * _STEP)))
        part = self._picture.copy(0, 0, min(fitting * _STEP - 1, width), height)
        how = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.FastTransformation
        self.setPixmap(part.scaled(self.size(), *how))


# What is fitted and shown ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Fit:
    """How electrons of a movie are counted, and what some of its frames show of it.

    The gallery has patches about single events, in grey values, put together as one picture: four
    in each column and as many columns as there are patches for, so that it can be cut off anywhere.
    """

    stack: Stack  # the raw movie
    counting: ElectronCounting  # with the threshold that was fitted, in detector pixels
    charges: npt.NDArray[np.float32]  # of spots, half the threshold and more, in grey values
    n_pixels: int  # of the frames that have these
    values: Histogram  # of pixels above their offsets, in grey values
    gallery: npt.NDArray[np.float32]  # (y, x)

    def chosen(self, threshold: float, super_resolution: int) -> ElectronCounting:
        """Return the counting with what the user has chosen."""
        return replace(self.counting.with_threshold(threshold), super_resolution=super_resolution)

    def counts(self, threshold: float, super_resolution: int) -> Stack:
        """Return the counts of the movie, lazily."""
        counting = self.chosen(threshold, super_resolution)
        counts: Stack = count_electrons(self.stack, counting=counting)
        return counts

    @property
    def threshold(self) -> float:
        """The threshold that was fitted, as it is shown."""
        return round(self.counting.threshold, 1)

    def sentence(self, threshold: float) -> str:
        """Return how many electrons are counted, and what was measured."""
        dose = int(np.count_nonzero(self.charges > threshold)) / self.n_pixels
        said = (
            f"{dose:.4f} e⁻/pixel/frame. Noise {self.counting.background.noise:.1f} grey values, "
            f"spots {self.counting.spread:.2f} pixels wide (standard deviation)."
        )
        if self.counting.expected_f1 is not None and threshold == self.threshold:
            said += f" Expected F1: {self.counting.expected_f1:.3f} (1 is perfect)."
        return said

    def charge_histogram(self) -> Histogram:
        """Return how often each charge occurs."""
        top = float(np.quantile(self.charges, 0.999)) if self.charges.size else 1.0
        return _histogram(self.charges, 0.0, top)

    def noise_curve(self) -> Histogram:
        """Return the normal distribution that noise alone has, in pixels of `values`."""
        middle, pixels = self.values
        noise = self.counting.background.noise
        curve = np.exp(-np.square(middle / noise) / 2) / (np.sqrt(2 * np.pi) * noise)
        curve *= pixels.sum() * (middle[1] - middle[0])
        seen = curve > 0.5
        return middle[seen], curve[seen]


def fit_counting(stack: Stack, report: Report, *, force: bool = False) -> Fit:
    """Fit background, spread and threshold, and look at some frames with them.

    Raise `ValueError` if these are no raw frames of single electrons.
    """
    counting = ElectronCounting.fit(stack, progress=report, force=force)
    faint = counting.with_threshold(_FAINT * counting.threshold)
    background = counting.background
    few = np.unique(np.linspace(0, len(stack) - 1, min(len(stack), _FRAMES)).astype(int))
    starts = (max(0, n - _SIDE) // 2 for n in stack.shape[1:])
    window = tuple(slice(start, start + _SIDE) for start in starts)
    known = np.ones(background.offset[window].shape, np.bool_)
    if background.noisy is not None:
        known = ~background.noisy[window]
    # Of the part of a frame above its background, which the whole frame tells.
    part = replace(
        faint, background=Background(np.zeros(known.shape, np.float32), background.noise, ~known)
    )
    charges, patches, values = [], [], []
    for done, index in enumerate(few, 1):
        report("Adding up charges, frame", done, len(few))
        above = background.above(np.asarray(stack[int(index)]))[window].astype(np.float32)
        events = part.events(above)
        charges.append(events.charge)
        values.append(above[known])
        patches += _patches(above, events, counting.threshold)
    pixels = np.concatenate(values)
    low, high = (float(v) for v in np.quantile(pixels, (0.0001, 0.9999)))
    return Fit(
        stack,
        counting,
        np.concatenate(charges),
        pixels.size,
        _histogram(pixels, low, high),
        _gallery(patches),
    )


def _histogram(values: npt.NDArray[Any], low: float, high: float) -> Histogram:
    number, edges = np.histogram(values.astype(np.float64), _BINS, (low, max(high, low + 1)))
    return (edges[1:] + edges[:-1]) / 2, number.astype(np.float64)


def _patches(
    above: npt.NDArray[np.float32], events: Events, threshold: float
) -> list[npt.NDArray[np.float32]]:
    """Return the pixels about events that are alone and whole."""
    reach = _PATCH // 2
    at = np.rint(np.stack([events.y, events.x], axis=1)).astype(int)
    found = []
    for (y, x), charge in zip(at.tolist(), events.charge.tolist(), strict=True):
        near = np.abs(at - (y, x)).max(axis=1) <= reach
        if charge < threshold or np.count_nonzero(near) > 1:
            continue
        patch = above[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        if patch.shape == (_PATCH, _PATCH):
            found.append(patch)
        if len(found) == _MOST_STEPS * _ROWS:
            break
    return found


def _gallery(patches: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Put patches below each other and side by side, a pixel apart."""
    columns = min(max(-(-len(patches) // _ROWS), _FEWEST_STEPS), _MOST_STEPS)
    picture = np.full((_ROWS * _STEP - 1, columns * _STEP - 1), np.nan, np.float32)
    for number, patch in enumerate(patches[: _ROWS * columns]):
        x, y = (_STEP * k for k in divmod(number, _ROWS))
        picture[y : y + _PATCH, x : x + _PATCH] = patch
    return picture


def _mark(fit: Fit, frame: int, threshold: float, report: Report) -> tuple[int, Events]:
    """Find the electrons of a frame, and get ready to draw them."""
    report("Finding electrons", 0, None)
    events = fit.chosen(threshold, 1).events(np.asarray(fit.stack[frame]))
    get_points_ready()
    return frame, events


def _count_frame(counts: LateStack, frame: int, report: Report) -> LateStack:
    """Count one frame, so that showing it takes no time."""
    report("Counting a frame", 0, None)
    counts[frame]
    return counts
