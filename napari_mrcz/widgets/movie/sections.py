"""Parts of the "Movie" dock: which frames are shown, spectrum, drift, a part that is duplicated."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from napari.layers import Image, Shapes
from qtpy.QtCore import QRectF, Qt, Signal, Slot
from qtpy.QtWidgets import QSizePolicy, QSpinBox, QStackedWidget, QWidget
from superqt import QLabeledRangeSlider

from napari_mrcz.plugin.layers import contrast_limits, describe, layer_data
from napari_mrcz.widgets.base.derived import LayerWork, add_layer, geometry, get_shapes_ready
from napari_mrcz.widgets.base.form import (
    WrappedLabel,
    choice_field,
    filled,
    form,
    push_button,
    show_number,
)
from napari_mrcz.widgets.base.job import JobControls, LatestJob
from napari_mrcz.widgets.base.plot import Key, Plot
from napari_mrcz.widgets.movie.model import DriftShown, drift_of, part_of, usual_group

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.movie.model import FrameSums, SpectrumShown

SUM, RUNNING, FRAMES = "sum", "running", "frames"
_MODES = {"Sum of the range": SUM, "Running average": RUNNING, "Single frames": FRAMES}
# Frames of a running average, until another number is chosen.
_AVERAGED = 5
# Rows and columns that shifts can be found in, at least.
_SMALLEST = 32
_IMAGE_PX, _CURVE_PX, _PATH_PX = 176, 126, 130
_TURN = np.linspace(0, 2 * np.pi, 181)


class MovieWork(LayerWork):
    """The sums of a movie's frames, and its drift."""

    sums: FrameSums | None = None
    drift: DriftShown | None = None
    doses: npt.NDArray[np.float64] | None = None
    stack: Stack | None = None

    def take(self, result: FrameSums) -> None:
        """Keep the sums."""
        self.sums = result

    def release(self) -> None:
        """Keep nothing of the movie."""
        self.sums = self.drift = self.stack = None
        super().release()


class FrameChoice(QWidget):
    """Which frames are shown, and how: summed, averaged, or one after another.

    `buttons` lie beside the list of ways.
    """

    changed = Signal()  # by the user

    def __init__(self, *buttons: QWidget) -> None:
        super().__init__()
        self.mode = choice_field(_MODES.items(), "What is shown of the movie")
        self.mode.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.all_button = push_button("All", "Sum all frames")
        self.range = QLabeledRangeSlider(Qt.Orientation.Horizontal)
        self.range.setEdgeLabelMode(QLabeledRangeSlider.EdgeLabelMode.NoLabel)
        self.range.setRange(0, 1)
        self.range.setValue((0, 1))
        tip = "First and last frame of the sum: drag an end, or what is between; or type a number"
        for part in (self.range, *self.range.findChildren(QWidget)):
            part.setToolTip(tip)
        tip = "Frames that are averaged around the one that the slider is at"
        self.running, average = _frames_field("Average of", tip)
        self._pages = QStackedWidget()
        self._pages.addWidget(self.range)
        self._pages.addWidget(average)
        self._pages.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        row = filled(QWidget(), self.mode, self.all_button, *buttons, across=True)
        filled(self, row, self._pages, spacing=4)
        self.mode.currentIndexChanged.connect(self._on_mode)
        self.range.valueChanged.connect(self.changed)
        self.running.valueChanged.connect(self.changed)
        self.all_button.clicked.connect(self.choose_all)

    @property
    def kind(self) -> str:
        """One of `SUM`, `RUNNING` and `FRAMES`."""
        return str(self.mode.currentData())

    def frames(self, n: int, at: int) -> tuple[int, int]:
        """Return the first frame that is shown of `n`, and the one after the last.

        `at`: the frame that napari's slider is at.
        """
        if self.kind == SUM:
            first, last = (min(int(value), n - 1) for value in self.range.value())
            return first, last + 1
        if self.kind == FRAMES:
            return at, at + 1
        number = min(self.running.value(), n)
        start = min(max(0, at - (number - 1) // 2), n - number)
        return start, start + number

    def choose(self, kind: str) -> None:
        """Choose one of `SUM`, `RUNNING` and `FRAMES`."""
        self.mode.setCurrentIndex(self.mode.findData(kind))

    @Slot()
    def choose_all(self) -> None:
        """Sum all frames."""
        self.choose(SUM)
        self.range.setValue((self.range.minimum(), self.range.maximum()))

    def show_length(self, n: int) -> None:
        """Offer so many frames; a range that was not all of a movie stays. Nothing is emitted."""
        self.blockSignals(True)
        first, last = self.range.value()
        was_all = (first, last) == (self.range.minimum(), self.range.maximum())
        self.range.setRange(0, n - 1)
        if was_all or last > n - 1:
            self.range.setValue((0, n - 1))
        self.running.setRange(1, n)
        if self.running.value() == 1:
            self.running.setValue(min(_AVERAGED, n))
        self.blockSignals(False)

    def allow(self, ready: bool) -> None:
        """Enable what can be used once the frames have been read."""
        for part in (self.mode, self.all_button, self._pages):
            part.setEnabled(ready)
        self.range.setEnabled(ready and self.kind == SUM)

    @Slot()
    def _on_mode(self) -> None:
        self._pages.setCurrentIndex(int(self.kind == RUNNING))
        self.range.setEnabled(self.kind == SUM)
        self.changed.emit()


def _frames_field(name: str, tip: str) -> tuple[QSpinBox, QWidget]:
    """Return a field for a number of frames, and the row that it is in."""
    field, row = QSpinBox(), QWidget()
    field.setRange(1, 1)
    field.setSuffix(" frames")
    field.setToolTip(tip)
    row.setLayout(form((name, field)))
    return field, row


class SpectrumView(QWidget):
    """A power spectrum, its rotational average, and the ring that the mouse is at in either."""

    def __init__(self) -> None:
        super().__init__()
        tip = "Power spectrum of the sum, over its smooth background; a ring shows its spacing"
        self.picture = Plot("", "", tip)
        self.picture.setFixedSize(_IMAGE_PX, _IMAGE_PX)
        item, box = self.picture.getPlotItem(), self.picture.getPlotItem().getViewBox()
        item.getAxis("left").setWidth(0)
        item.getAxis("bottom").setHeight(0)
        for side in ("left", "bottom"):
            item.getAxis(side).setOpacity(0)
        box.setAspectLocked(True)
        box.invertY(True)  # as the picture in the viewer
        box.hoverEvent = partial(self._on_hover, box, lambda at: np.hypot(at.x(), at.y()))
        self.image = pg.ImageItem(axisOrder="row-major")
        self.picture.addItem(self.image)
        self._ring = self.picture.curve("hot")
        tip = "Rotational average of the spectrum; rings that reach far out mean fine detail"
        self.average = Plot("", "power / noise", tip)
        self.average.setFixedHeight(_CURVE_PX)
        item, box = self.average.getPlotItem(), self.average.getPlotItem().getViewBox()
        item.setLogMode(x=False, y=True)
        ticks = [(float(np.log10(value)), str(value)) for value in (1, 2, 5, 10, 20, 50, 100)]
        item.getAxis("left").setTicks([ticks])
        box.hoverEvent = partial(self._on_hover, box, lambda at: at.x())
        self._curve = self.average.curve("accent")
        self._line = self.average.line("hot")
        self.told = WrappedLabel("Pixel size, Nyquist frequency, and the ring under the mouse")
        self.told.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._found: SpectrumShown | None = None
        row = filled(QWidget(), self.picture, self.told, across=True)
        filled(self, row, self.average, spacing=2)
        self.show_spectrum(None)

    def show_spectrum(self, found: SpectrumShown | None) -> None:
        """Show a spectrum, or nothing."""
        self._found = found
        self.image.setVisible(found is not None)
        self._curve.setVisible(found is not None)
        if found is not None:
            rows, columns = found.image.shape
            self.image.setImage(found.image, levels=(0, 255), autoLevels=False)
            step_y, step_x = found.step
            left, top = (-(n // 2 + 0.5) * s for n, s in ((columns, step_x), (rows, step_y)))
            self.image.setRect(QRectF(left, top, columns * step_x, rows * step_y))
            self.picture.setRange(xRange=(left, -left), yRange=(top, -top), padding=0)
            self._curve.setData(found.frequency[1:], found.radial[1:])
            label = f"frequency ({'1/Å' if found.known else '1/pixel'})"
            self.average._labels["bottom"] = label  # kept when the theme changes
            self.average.getPlotItem().setLabel("bottom", label)
            self.average.setXRange(0, found.nyquist, padding=0)
            high = np.log10(max(np.quantile(found.radial[2:], 0.99), 2))
            self.average.setYRange(-0.15, high, padding=0)
        self.show_ring(None)

    def show_ring(self, frequency: float | None) -> None:
        """Draw the ring of a frequency, and tell its spacing; None for no ring."""
        found = self._found
        at = 0.0 if found is None or frequency is None else frequency
        shown = found is not None and bool(0 < at <= 1.42 * found.nyquist)
        self._line.setVisible(shown)
        self._ring.setVisible(shown)
        if found is None:
            self.told.setText("The spectrum comes with the sum.")
            return
        unit = "Å" if found.known else "pixels"
        size = f"Pixel {0.5 / found.nyquist:.3g} Å" if found.known else "Pixel size unknown"
        lines = [size, f"Nyquist {1 / found.nyquist:.3g} {unit}", ""]
        if shown:
            self._line.setValue(at)
            self._ring.setData(at * np.cos(_TURN), at * np.sin(_TURN))
            lines += [f"Ring at {1 / at:.3g} {unit}", f"{at:.3f} 1/{unit.rstrip('s')}"]
            if at <= found.nyquist:
                lines.append(f"{np.interp(at, found.frequency, found.radial):.3g} × the noise")
        else:
            lines.append("Move the mouse over the rings for their spacing.")
        self.told.setText("\n".join(lines))

    def _on_hover(self, box: Any, frequency: Callable[[Any], float], event: Any) -> None:
        self.show_ring(None if event.isExit() else float(frequency(box.mapToView(event.pos()))))


class Drift(QWidget):
    """Estimate how a specimen drifted, see what fixed patterns do to that, and undo the drift."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self._work: MovieWork | None = None  # of the movie picked
        self._started: MovieWork | None = None  # what runs, or ran last, is for this one
        self._again = False
        self._aligned: weakref.ref[Image] | None = None
        tip = "Frames that are summed before they are aligned: half an electron per pixel, or more"
        self.group, groups = _frames_field("Groups of", tip)
        self.controls = JobControls(
            panel, "Estimate drift", "Align groups of frames, and see what fixed patterns do to it"
        )
        self.aligned_button = push_button(
            "Add aligned sum",
            "A layer of the sum of all frames, each group moved back; not smoothed",
        )
        self.controls.buttons.addWidget(self.aligned_button)
        self.doubts = WrappedLabel("Why the drift should not be trusted")
        self.told = WrappedLabel("How far the specimen drifted, and the fixed pattern's peak")
        tip = "Where the specimen moved, against the first group of frames; one point per group"
        self.path = Plot("x (pixels)", "y (pixels)", tip)
        self.path.getPlotItem().getViewBox().invertY(True)
        self.path.getPlotItem().getViewBox().setAspectLocked(True)
        self._path = self.path.curve("accent"), self.path.curve("accent", symbol="o")
        tip = (
            "Correlation of the first and last third of the movie. The specimen's peak is where it"
            " moved to; a fixed pattern (hot pixels, gain) has its own at 0, and pulls there"
        )
        self.peaks = Plot("distance along the drift (pixels)", "correlation", tip)
        self._before, self._now = self.peaks.curve("hot"), self.peaks.curve("accent")
        self.legend = Key((("hot", "━", "before the corrections"), ("accent", "━", "this movie")))
        found = filled(QWidget(), self.told, self.path, self.peaks, self.legend, spacing=2)
        filled(self, groups, self.controls, self.doubts, found)
        for plot in (self.path, self.peaks):
            plot.setFixedHeight(_PATH_PX)
        self._found = found
        self.group.valueChanged.connect(self._on_group)
        self.controls.start_button.clicked.connect(self.start)
        self.controls.returned.connect(self._on_returned)
        self.controls.ended.connect(self._on_ended)
        self.aligned_button.clicked.connect(self.add_aligned)
        self.destroyed.connect(lambda: self._let_go())

    def show_work(self, work: MovieWork | None) -> None:
        """Show what is known of the drift of a movie."""
        self._work = work
        stack = None if work is None else work.stack
        shown = None if work is None else work.drift
        self._found.setVisible(shown is not None)
        if shown is not None and stack is not None:
            self._show_drift(shown, stack.pixel_size[1:])
        doubts = () if shown is None else shown.found.warnings
        self._panel.tell(self.doubts, "\n".join(doubts), "warning")
        self.doubts.setVisible(bool(doubts))
        is_enough = stack is not None and min(stack.shape[1:]) >= _SMALLEST
        pixels = f"{_SMALLEST} x {_SMALLEST} pixels"
        self.controls.allow("" if is_enough else f"Drift needs a movie of {pixels} or more")
        self.group.setEnabled(is_enough)
        self.aligned_button.setEnabled(shown is not None)
        if work is not None and stack is not None:
            number = self.group.value()
            if work.sums is not None and shown is None and not self.controls.running:
                number = usual_group(work.sums)
            show_number(self.group, number, 1, max(1, len(stack) // 2))

    def _show_drift(self, shown: DriftShown, pixel_size: tuple[float, float]) -> None:
        found = shown.found
        for curve in self._path:
            curve.setData(*found.shifts.T[::-1])
        self._now.setData(*found.correlation.T)
        self._before.setVisible(shown.before is not None)
        self.legend.setVisible(shown.before is not None)
        pattern = _height(found.fixed_pattern)
        if shown.before is not None:
            height, correlation = shown.before
            self._before.setData(*correlation.T)
            pattern = f"{_height(height)} before the corrections, {pattern} after them"
        steps = np.diff(found.shifts, axis=0)
        length = f"{np.hypot(*steps.T).sum():.1f} pixels"
        if all(pixel_size):
            length += f" ({np.hypot(*(steps * pixel_size).T).sum():.1f} Å)"
        # Of no specimen there is no error; the warnings say so.
        error = "" if found.warnings else f", each shift ±\u00a0{found.error:.2g} pixels"
        self.told.setText(
            f"The specimen moved {length}{error}. Fixed-pattern peak, relative to the"
            f" specimen's: {pattern}."
        )

    @Slot()
    def start(self) -> None:
        """Estimate the drift of the movie picked; what is being estimated is cancelled."""
        work = self._work
        if work is None or work.stack is None:
            return
        if self.controls.running:
            self._again = True
            self.controls.cancel()
            return
        self._started = work
        self.controls.run(partial(drift_of, work.stack, self.group.value()))

    @Slot()
    def add_aligned(self) -> None:
        """Add the aligned sum as a layer."""
        work = self._work
        if work is not None and work.drift is not None and not self.controls.running:
            self._started = work
            self.controls.run(work.drift.found.aligned_sum)

    @Slot()
    def hide_aligned(self) -> None:
        """Hide the aligned sum that was added last: it lies above the sum of the movie."""
        if self._aligned is not None and (layer := self._aligned()) is not None:
            layer.visible = False

    @Slot()
    def _on_group(self) -> None:
        if self.controls.running:
            self.start()

    @Slot(object)
    def _on_returned(self, result: Any) -> None:
        work = self._started
        if work is None or work.layer is None:
            return  # the movie was removed
        if not isinstance(result, DriftShown):
            self._panel.when_in_front("aligned", partial(self._add_aligned, work, result))
            return
        work.drift = result
        if work is self._work:
            self.show_work(work)

    def _add_aligned(self, work: MovieWork, total: npt.NDArray[np.float32]) -> None:
        if work.layer is None or work.stack is None:
            return
        aligned = Image(
            total,
            name=f"{work.layer.name}, aligned sum",
            contrast_limits=contrast_limits([total]),
            rgb=False,
            multiscale=False,
            metadata=describe(work.stack),
            **geometry(work.layer, 2),
        )
        self._aligned = weakref.ref(aligned)
        add_layer(self._panel.viewer, aligned)
        self.controls.tell(f"“{aligned.name}” lies above the sum. It is not smoothed.", "muted")

    @Slot()
    def _on_ended(self) -> None:
        again, self._again = self._again, False
        if again:
            self.start()

    def _let_go(self) -> None:
        """Keep no movie when the window is gone but the Python half is not."""
        self._work = self._started = None


def _height(fixed_pattern: float) -> str:
    if np.isinf(fixed_pattern):
        return "without limit, as no specimen was found"
    return "unknown" if np.isnan(fixed_pattern) else f"{fixed_pattern:.2f}"


class Part(QWidget):
    """Duplicate the frames chosen of a movie, cut to a rectangle that is drawn on the picture.

    `chosen` returns the layer, its stack, the first frame and the one after the last; or None.
    """

    refused = Signal(str)  # why nothing was duplicated

    def __init__(
        self, panel: Panel, chosen: Callable[[], tuple[Image, Stack, tuple[int, int]] | None]
    ) -> None:
        super().__init__()
        self._panel, self._chosen = panel, chosen
        self._rectangle: weakref.ref[Shapes] | None = None
        self.drawing = LatestJob(self)
        self.draw_button = push_button(
            "Draw rectangle", "Draw the part of the picture to be taken; none takes all of it"
        )
        self.duplicate_button = push_button(
            "Duplicate",
            "A movie of the rectangle and the frames chosen, as a layer; nothing is read",
        )
        filled(self, self.draw_button, self.duplicate_button, across=True)
        self.draw_button.clicked.connect(
            lambda: self.drawing.request(lambda report: get_shapes_ready())
        )
        self.duplicate_button.clicked.connect(self.duplicate)
        self.drawing.returned.connect(
            lambda ready: panel.when_in_front("rectangle", self._add_rectangle)
        )

    @Slot()
    def duplicate(self) -> None:
        """Add the frames chosen, cut to the rectangle, as a movie."""
        chosen = self._chosen()
        if chosen is None:
            return
        movie, stack, frames = chosen
        try:
            part, first = part_of(stack, frames, self._corners(movie))
        except ValueError as error:
            self.refused.emit(str(error))
            return
        name = f"{movie.name}, frames {frames[0]} to {frames[1] - 1}"
        ((data, attributes, _),) = layer_data(part, name, metadata=describe(part))
        at = geometry(movie, 3)
        at["translate"][1:] += np.array(first) * at["scale"][1:]
        self._panel.viewer.add_layer(Image(data, **{**attributes, **at}))

    def _add_rectangle(self) -> None:
        """Start drawing the part to be duplicated."""
        chosen, layers = self._chosen(), self._panel.viewer.layers
        if chosen is None:
            return
        movie, *_ = chosen
        rectangle = None if self._rectangle is None else self._rectangle()
        if rectangle is None or rectangle not in layers:
            rectangle = Shapes(
                name=f"{movie.name}, part",
                ndim=2,
                face_color="transparent",
                edge_color="#d55e00",
                edge_width=max(1.0, movie.data.shape[-1] / 300),
                **geometry(movie, 2),
            )
            layers.append(rectangle)
            self._rectangle = weakref.ref(rectangle)
        rectangle.data = []
        layers.selection.active = rectangle
        rectangle.mode = "add_rectangle"

    def _corners(self, movie: Image) -> npt.NDArray[np.float64] | None:
        """Return the corners of the rectangle that was drawn, in pixels of a movie."""
        layers = self._panel.viewer.layers
        shapes: Any = layers.selection.active
        if not isinstance(shapes, Shapes):
            shapes = None if self._rectangle is None else self._rectangle()
        if shapes is None or shapes not in layers or not len(shapes.data):
            return None
        corners = np.asarray(shapes.data[-1])[:, -2:] * shapes.scale[-2:] + shapes.translate[-2:]
        found: npt.NDArray[np.float64] = (corners - movie.translate[-2:]) / movie.scale[-2:]
        return found
