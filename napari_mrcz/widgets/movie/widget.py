"""The dock widget that shows sums of a movie's frames: the specimen rather than noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Shapes
from qtpy.QtCore import Qt, QTimer, Signal, Slot
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QSpinBox, QStackedWidget, QWidget
from superqt import QLabeledRangeSlider

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.naming import RemotePath, path_of
from napari_mrcz.plugin.layers import contrast_limits, describe, layer_data, stack_of_layer
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.derived import (
    PictureLayer,
    add_layer,
    frame_shown,
    geometry,
    get_shapes_ready,
)
from napari_mrcz.widgets.base.form import (
    Section,
    choice_field,
    filled,
    form,
    number_field,
    push_button,
)
from napari_mrcz.widgets.base.job import JobControls, LatestJob
from napari_mrcz.widgets.base.layer_picker import (
    LayerPicker,
    bind_while_alive,
    connect_while_alive,
)
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.work import LayerWork, works_of
from napari_mrcz.widgets.movie.model import (
    DriftShown,
    FrameSums,
    SpectrumShown,
    doses,
    drift_of,
    part_of,
    picture_of,
    spectrum_of,
    usual_group,
)
from napari_mrcz.widgets.movie.plots import DriftView, SpectrumView

if TYPE_CHECKING:
    import napari
    import numpy.typing as npt

    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.theme import Palette

_SUM, _RUNNING, _FRAMES = "sum", "running", "frames"
_MODES = {
    "Sum of the range": _SUM,
    "Running average": _RUNNING,
    "Single frames": _FRAMES,
}
# A hand that has not moved for so long rests.
_RESTED_MS = 80
_AUTOMATIC = 0
_BINNINGS = {"automatic": _AUTOMATIC, "1 (all pixels)": 1, "2 × 2": 2, "4 × 4": 4, "8 × 8": 8}
_COARSEST_A = 1000.0
_INVITATION = "Open a movie: the sum of its frames shows the specimen."
_TOGGLE_KEY = "Shift-B"
# Movies whose sums are kept: those before and after a correction.
_MOST_KEPT = 2


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


@dataclass(frozen=True, eq=False)
class _Detail:
    """A range that was summed at full size, for the work it was asked for."""

    work: MovieWork
    start: int
    stop: int
    total: npt.NDArray[Any]
    picture: npt.NDArray[Any]
    binning: int


class MovieViewer(Panel):
    """Sum any range of a movie's frames, and look at its spectrum and drift.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    drawn : Signal(object)
        The layer of the sum shows a range at full detail.
    """

    title = "Movie"

    drawn = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.works = works_of(self.viewer, MovieWork)
        kept: Any = self.works.shared  # one layer, however often the dock is opened
        self._picture_layer: PictureLayer = kept.setdefault("picture", PictureLayer(self.viewer))
        self._covered: Any = None  # the movie that is hidden while its sum is shown
        self._rectangle: Any = None
        self._bared: Any = None  # the movie whose sum was just removed
        self._total: npt.NDArray[Any] | None = None
        self._drifting: MovieWork | None = None
        self._again = self._showing = False
        self._detail = LatestJob(self, delay_ms=_RESTED_MS)
        self._spectrum, self._drawing = LatestJob(self), LatestJob(self)
        self.layers = LayerPicker(self, accepts=self._accepts)
        self.layers.setToolTip("The movie; follows the layer selected in the list")
        self._make_controls()
        self._lay_out()
        self._connect()
        self.apply_palette(self.palette_now)
        self._on_layer(self.layers.layer)

    # Controls -----------------------------------------------------------------------------------

    def _make_controls(self) -> None:
        self.mode = choice_field(_MODES.items(), "What is shown of the movie")
        self.all_button = push_button("All", "Sum all frames")
        self.toggle_button = push_button(
            "Before", "Show the sum before or after a correction (Shift+B in the viewer)"
        )
        self.range = QLabeledRangeSlider(Qt.Orientation.Horizontal)
        self.range.setEdgeLabelMode(QLabeledRangeSlider.EdgeLabelMode.NoLabel)
        self.range.setRange(0, 1)
        self.range.setValue((0, 1))
        tip = "First and last frame of the sum: drag an end, or what is between; or type a number"
        for part in (self.range, *self.range.findChildren(QWidget)):
            part.setToolTip(tip)
        self.running = QSpinBox()
        self.running.setRange(1, 1)
        self.running.setSuffix(" frames")
        self.running.setToolTip("Frames that are averaged around the one that the slider is at")
        self.info = WrappedLabel("Frames and dose of the sum, and how fine its picture is")
        self.info.setMinimumHeight(2 * self.fontMetrics().lineSpacing())
        self.info.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.controls = JobControls(
            self, "Read frames", "Read all frames once, to sum any range of them", reserve=True
        )
        self.remark = WrappedLabel("What is unusual about this movie")
        self.binning = choice_field(
            _BINNINGS.items(),
            "Pixels averaged in the picture; automatic follows the zoom. For looking only:"
            " spectrum, drift and saved data are not binned",
        )
        self.low_pass = number_field(
            (0, _COARSEST_A), 1, " Å", "Smooth the picture: finer details fade. For looking only"
        )
        self.low_pass.setDecimals(1)
        self.low_pass.setSpecialValueText("off")
        self.spectrum = SpectrumView()
        self.group = QSpinBox()
        self.group.setRange(1, 1)
        self.group.setSuffix(" frames")
        self.group.setToolTip(
            "Frames that are summed before they are aligned: half an electron per pixel, or more"
        )
        self.drift = JobControls(
            self, "Estimate drift", "Align groups of frames, and see what fixed patterns do to it"
        )
        self.aligned_button = push_button(
            "Add aligned sum", "A layer of the sum of all frames, each group moved back"
        )
        self.drift.buttons.addWidget(self.aligned_button)
        self.drift_view = DriftView()
        self.doubts = WrappedLabel("Why the drift should not be trusted")
        self.draw_button = push_button(
            "Draw rectangle", "Draw the part of the picture to be taken; none takes all of it"
        )
        self.duplicate_button = push_button(
            "Duplicate",
            "A movie of the rectangle and the frames chosen, as a layer; nothing is read",
        )

    def _lay_out(self) -> None:
        first = QHBoxLayout()
        for widget in (self.mode, self.all_button, self.toggle_button):
            first.addWidget(widget, int(widget is self.mode))
        self.pages = QStackedWidget()
        running = QWidget()
        running.setLayout(form(("Average of", self.running)))
        for page in (self.range, running):
            self.pages.addWidget(page)
        self.pages.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        estimate = QWidget()
        estimate.setLayout(form(("Groups of", self.group)))
        part = filled(QWidget(), self.draw_button, self.duplicate_button, across=True)
        self.spectrum_section = Section("Spectrum", self.spectrum)
        self.spectrum_section.button.setChecked(True)
        self.drift_section = Section("Drift", estimate, self.drift, self.doubts, self.drift_view)
        self.column.setSpacing(4)
        self.column.addLayout(form(("Movie", self.layers)))
        self.column.addLayout(first)
        self.column.addWidget(self.pages)
        self.column.addWidget(self.info)
        self.column.addWidget(self.controls)
        self.column.addWidget(self.remark)
        self.column.addLayout(form(("Binning", self.binning), ("Low-pass", self.low_pass)))
        self.column.addWidget(self.spectrum_section)
        self.column.addWidget(self.drift_section)
        self.column.addWidget(Section("Duplicate from selection", part))
        self.column.addStretch()

    def _connect(self) -> None:
        self.layers.layer_changed.connect(self._on_layer)
        self.mode.currentIndexChanged.connect(self._on_mode)
        self.range.valueChanged.connect(self._on_range)
        self.running.valueChanged.connect(self._on_choice)
        self.binning.currentIndexChanged.connect(self._on_choice)
        self.low_pass.valueChanged.connect(self._on_choice)
        self.all_button.clicked.connect(self.show_all)
        self.toggle_button.clicked.connect(self.toggle)
        self.controls.start_button.clicked.connect(self.start_reading)
        self.group.valueChanged.connect(self._on_group)
        self.drift.start_button.clicked.connect(self.start_drift)
        self.drift.returned.connect(self._on_drift)
        self.drift.ended.connect(self._on_drift_ended)
        self.aligned_button.clicked.connect(self.add_aligned)
        self.draw_button.clicked.connect(self.draw_rectangle)
        self.duplicate_button.clicked.connect(self.duplicate)
        for section, other in (
            (self.spectrum_section, self.drift_section),
            (self.drift_section, self.spectrum_section),
        ):
            section.button.toggled.connect(partial(_close_if, other))
        self.spectrum_section.button.toggled.connect(self._transform)
        self._detail.returned.connect(self._on_detail)
        self._spectrum.returned.connect(self._on_spectrum)
        self._drawing.returned.connect(self._on_shapes_ready)
        for job in (self._detail, self._spectrum, self._drawing):
            job.failed.connect(self._on_failed)
        self.works.ended.connect(self._on_ended)
        scene = getattr(self.viewer, "scene", self.viewer)  # it moved in napari 0.9
        connect_while_alive(self, self.viewer.dims.events.current_step, self._on_step)
        connect_while_alive(self, scene.camera.events.zoom, self._on_zoom)
        connect_while_alive(self, self.viewer.layers.events.removed, self._on_removed)
        connect_while_alive(self, self.viewer.layers.events.inserted, self._on_inserted)
        bind_while_alive(self, self.viewer, _TOGGLE_KEY, self.toggle)
        self.destroyed.connect(lambda: self._let_go())

    # What it is asked ---------------------------------------------------------------------------

    @property
    def work(self) -> MovieWork | None:
        """The work on the movie picked, or None."""
        return self.works.of(self.layers.layer)

    @property
    def picture(self) -> Image | None:
        """The layer of the sum, while it is in the viewer."""
        return self._picture_layer.layer

    @property
    def busy(self) -> bool:
        """Whether something runs, or is about to."""
        jobs = self._detail, self._spectrum, self._drawing
        return self.controls.running or self.drift.running or any(job.busy for job in jobs)

    @property
    def frames(self) -> tuple[int, int]:
        """The first frame of what is shown, and the one after the last."""
        work = self.work
        if work is None or work.stack is None:
            return 0, 1
        n = len(work.stack)
        if self.mode.currentData() == _SUM:
            first, last = (min(int(value), n - 1) for value in self.range.value())
            return first, last + 1
        at = frame_shown(self.viewer, work.layer)
        if self.mode.currentData() == _FRAMES:
            return at, at + 1
        number = min(self.running.value(), n)
        start = min(max(0, at - (number - 1) // 2), n - number)
        return start, start + number

    @Slot()
    def show_all(self) -> None:
        """Sum all frames."""
        self.mode.setCurrentIndex(self.mode.findData(_SUM))
        self.range.setValue((self.range.minimum(), self.range.maximum()))

    @Slot()
    def toggle(self) -> None:
        """Pick the same movie before or after a correction."""
        other = self._counterpart()
        if other is not None:
            self.layers.pick(other)

    @Slot()
    def start_reading(self) -> None:
        """Read all frames of the movie picked."""
        work = self.work
        if work is not None and work.job is None and work.stack is not None:
            work.start(partial(FrameSums, work.stack), self.controls.attach)
            self._show_state()

    @Slot()
    def start_drift(self) -> None:
        """Estimate the drift of the movie picked; what is being estimated is cancelled."""
        work = self.work
        if work is None or work.stack is None:
            return
        if self.drift.running:
            self._again = True
            self.drift.cancel()
            return
        self._drifting = work
        self.drift.run(partial(drift_of, work.stack, self.group.value()))

    @Slot()
    def add_aligned(self) -> None:
        """Add the aligned sum as a layer."""
        work = self.work
        if work is not None and work.drift is not None and not self.drift.running:
            self._drifting = work
            self.drift.run(work.drift.found.aligned_sum)

    @Slot()
    def draw_rectangle(self) -> None:
        """Start drawing the part to be duplicated."""
        self._drawing.request(_get_shapes_ready)

    @Slot()
    def duplicate(self) -> None:
        """Add the frames chosen, cut to the rectangle, as a movie."""
        work = self.work
        if work is None or work.stack is None:
            return
        frames, corners = self.frames, self._corners(work.layer)
        if self.mode.currentData() == _FRAMES:
            frames = 0, len(work.stack)
        try:
            part, first = part_of(work.stack, frames, corners)
        except ValueError as error:
            self.tell(self.info, str(error), "warning")
            return
        name = f"{work.layer.name}, frames {frames[0]} to {frames[1] - 1}"
        ((data, attributes, _),) = layer_data(part, name, metadata=describe(part))
        at = geometry(work.layer, 3)
        at["translate"][1:] += np.array(first) * at["scale"][1:]
        self.viewer.add_layer(Image(data, **{**attributes, **at}))

    def apply_palette(self, colours: Palette) -> None:
        """Colour the plots."""
        self.spectrum.apply_palette(colours)
        self.drift_view.apply_palette(colours)

    # The movie picked ---------------------------------------------------------------------------

    def _accepts(self, layer: Image) -> bool:
        """Return whether a layer is a movie: frames of real numbers, two or more."""
        data = layer.data
        if layer.rgb or layer.multiscale or len(data.shape) != 3 or data.shape[0] < 2:
            return False
        if np.dtype(data.dtype).kind not in "buif" or self._picture_layer.holds(layer):
            return False
        return not (isinstance(data, Stack) and data.description.volume)

    def _counterpart(self) -> Image | None:
        """Return the layer of the same frames with other corrections, if there is one."""
        work = self.work
        if work is None or work.stack is None or work.stack.path is None:
            return None
        own = work.stack
        for layer in reversed(self.viewer.layers):
            data = getattr(layer, "data", None)
            if layer is work.layer or not isinstance(data, Stack) or not self._accepts(layer):
                continue
            if (data.path, data.shape) == (own.path, own.shape) and len(data.history) != len(
                own.history
            ):
                return layer
        return None

    @Slot(object)
    def _on_layer(self, layer: Image | None) -> None:
        for job in (self._detail, self._spectrum):
            job.drop()
        self._total = None
        self.when_in_front("work", self._show_work)

    def _show_work(self) -> None:
        """Show the movie picked: read it, unless it was."""
        work = self.work
        self._put_away()
        if work is None:
            self.controls.attach(None)
            self._picture_layer.remove()
            self.tell(self.info, _INVITATION, "muted")
            self._show_state()
            return
        try:
            work.stack = stack_of_layer(work.layer)
        except MrczError as error:
            self.tell(self.info, error_text(error), "error")
            return
        n = len(work.stack)
        work.doses = doses(work.stack)
        self._showing = True
        first, last = self.range.value()
        whole = (first, last) == (self.range.minimum(), self.range.maximum())
        self.range.setRange(0, n - 1)
        if whole or last > n - 1:
            self.range.setValue((0, n - 1))
        self.running.setRange(1, n)
        if self.running.value() == 1:
            self.running.setValue(min(5, n))
        self._showing = False
        self.controls.attach(work.job, work.message, work.tone)
        if work.sums is None and work.job is None and not work.message:
            if isinstance(path_of(work.stack.path or ""), RemotePath):
                self.controls.tell("A remote movie: all of it is read for sums of its frames.")
            else:
                self.start_reading()
        self._show_drift(work)
        self._show_state()
        self._draw()

    def _show_state(self) -> None:
        work = self.work
        ready = work is not None and work.sums is not None
        self.controls.setVisible(work is not None and not ready)
        self.controls.allow("" if work is not None else "Open a movie first")
        self.info.setVisible(work is None or ready)
        for control in (self.mode, self.all_button, self.pages, self.binning, self.low_pass):
            control.setEnabled(ready)
        self.range.setEnabled(ready and self.mode.currentData() == _SUM)
        self.duplicate_button.setEnabled(work is not None)
        self.draw_button.setEnabled(work is not None)
        other = self._counterpart()
        self.toggle_button.setVisible(other is not None)
        if other is not None and work is not None and work.stack is not None:
            after = len(work.stack.history) > len(other.data.history)
            self.toggle_button.setText("Before" if after else "After")
        damaged = work.sums.damaged if work is not None and work.sums is not None else {}
        if damaged:
            numbers = ", ".join(map(str, sorted(damaged)))
            self.tell(self.remark, f"Damaged frames count as 0: {numbers}.", "warning")
        self.remark.setVisible(bool(damaged))
        enough = work is not None and work.stack is not None and min(work.stack.shape[1:]) >= 32
        self.drift.allow("" if enough else "Drift needs a movie of 32 x 32 pixels or more")
        self.group.setEnabled(enough)
        self.aligned_button.setEnabled(work is not None and work.drift is not None)

    @Slot(object, object)
    def _on_ended(self, work: MovieWork, result: Any) -> None:
        others = [one for one in self.works if one.sums is not None and one is not work]
        for old in others[: max(0, len(others) + 1 - _MOST_KEPT)]:
            old.sums = None
        if work is not self.work:
            return
        self.controls.attach(None, work.message, work.tone)
        self.when_in_front("work", self._show_work)

    # The picture --------------------------------------------------------------------------------

    @Slot()
    def _on_mode(self) -> None:
        self.pages.setCurrentIndex(int(self.mode.currentData() == _RUNNING))
        self._show_state()
        self._draw()

    @Slot()
    def _on_choice(self) -> None:
        if not self._showing:
            self._draw()

    @Slot(tuple)
    def _on_range(self, ends: tuple[int, int]) -> None:
        if not self._showing:
            self._draw()

    def _on_step(self, event: Any = None) -> None:
        if self.in_front and self.mode.currentData() == _RUNNING:
            self._draw()

    def _on_zoom(self, event: Any = None) -> None:
        layer = self.picture
        if not self.in_front or layer is None or self.binning.currentData() != _AUTOMATIC:
            return
        work = self.work
        if work is not None and self._wanted_binning(work) != self._shown_binning:
            self._ask_for_detail()

    _shown_binning = 1

    def _wanted_binning(self, work: MovieWork) -> int:
        """Return the binning that is chosen, or that fits the zoom."""
        chosen = self.binning.currentData()
        if chosen:
            return int(chosen)
        scene = getattr(self.viewer, "scene", self.viewer)  # it moved in napari 0.9
        apart = scene.camera.zoom * abs(float(work.layer.scale[-1]))  # pixels of the screen
        return max([b for b in (1, 2, 4, 8) if b * apart <= 1] or [1])

    def _draw(self) -> None:
        """Show what is chosen: binned at once, in full detail when nothing is dragged."""
        work = self.work
        if not self.in_front or work is None or work.sums is None or work.stack is None:
            return
        if self.mode.currentData() == _FRAMES:
            self._detail.drop()
            self._spectrum.drop()
            self._put_away()
            self._picture_layer.remove()
            self._tell_range(work, "the movie itself")
            self._total = None
            self.spectrum.show_spectrum(None)
            return
        start, stop = self.frames
        sums = work.sums
        coarser = max(1, self._wanted_binning(work) // sums.binning)
        y, x = (size * sums.binning for size in work.stack.pixel_size[1:])
        picture = picture_of(
            sums.quick(start, stop), coarser, self.low_pass.value(), (y, x), self._divisor()
        )
        self._put(work, picture, sums.binning * coarser)
        self._ask_for_detail()

    def _divisor(self) -> int:
        start, stop = self.frames
        return stop - start if self.mode.currentData() == _RUNNING else 1

    def _ask_for_detail(self) -> None:
        work = self.work
        if work is None or work.sums is None:
            return
        self._spectrum.drop()
        self._detail.request(
            partial(
                _sum_in_detail,
                work,
                self.frames,
                self._wanted_binning(work),
                self.low_pass.value(),
                self._divisor(),
            )
        )

    def _put(self, work: MovieWork, picture: npt.NDArray[Any], binning: int) -> None:
        """Show a picture as the layer of the sum, in the place of the movie."""
        source, running = work.layer, self.mode.currentData() == _RUNNING
        at = geometry(source, 2)
        at["translate"] = np.array(at["translate"]) + np.array(at["scale"]) * (binning - 1) / 2
        at["scale"] = np.array(at["scale"]) * binning
        start, stop = self.frames
        metadata = describe(work.stack) if work.stack is not None else {}
        metadata["metadata"] = {
            **metadata.get("metadata", {}), "summed_frames": [start, stop - 1]
        }  # fmt: skip
        attributes = {
            "name": f"{source.name}, {'average' if running else 'sum'}",
            "metadata": metadata,
            "contrast_limits": contrast_limits([picture]),
            "rgb": False,
            "multiscale": False,
            **at,
        }
        look = running, stop - start, work
        # Above the corrected movie, too, which hides what is below it.
        above = max(source, self._counterpart() or source, key=self.viewer.layers.index)
        layer = self._picture_layer.show(picture, attributes, above, look)
        self._cover(source, layer)
        self._shown_binning = binning
        state = "all pixels" if binning == 1 else f"binned {binning} × {binning}"
        if self.low_pass.value():
            state += f", low-pass {self.low_pass.value():g} Å"
        self._tell_range(work, f"{state} (zoom in for more)" if self._is_coarse(binning) else state)

    def _is_coarse(self, binning: int) -> bool:
        return binning > 1 and self.binning.currentData() == _AUTOMATIC

    def _tell_range(self, work: MovieWork, state: str) -> None:
        start, stop = self.frames
        n = 0 if work.stack is None else len(work.stack)
        text = f"Frames {start} to {stop - 1} of {n}"
        if work.doses is not None:
            text += " · {:.3g} to {:.3g} e⁻/Å²".format(*work.doses[[start, stop]])
        number = "1 frame" if stop - start == 1 else f"{stop - start} frames"
        self.tell(self.info, f"{text}\n{number}, {state}")

    def _cover(self, source: Image, layer: Image) -> None:
        """Hide the movie below its sum: its frames need not be read at each step."""
        if self._covered is not source:
            self._uncover()
            if source.visible:
                self._covered = source
        if source.visible:
            source.visible = False
        if not layer.visible:  # else napari would draw it once more
            layer.visible = True

    def _uncover(self) -> None:
        covered, self._covered = self._covered, None
        if covered is not None and covered in self.viewer.layers:
            covered.visible = True

    def _put_away(self) -> None:
        """Show the movie in place of its sum."""
        self._uncover()
        layer, selection = self.picture, self.viewer.layers.selection
        if layer is not None:
            layer.visible = False
            if selection.active is layer and self.layers.layer is not None:
                selection.active = self.layers.layer  # what the other widgets take

    @Slot(bool)
    def _on_visibility(self, visible: bool) -> None:
        was = self.in_front
        super()._on_visibility(visible)
        if was and not visible:
            self._detail.drop()
            self._spectrum.drop()
            self._put_away()
        elif visible and not was:
            self._show_work()

    @Slot(object)
    def _on_detail(self, detail: _Detail) -> None:
        self.when_in_front("detail", partial(self._take_detail, detail))

    def _take_detail(self, detail: _Detail) -> None:
        if detail.work is not self.work or self.mode.currentData() == _FRAMES:
            return
        self._put(detail.work, detail.picture, detail.binning)
        self._total = detail.total
        self._transform()
        self.drawn.emit(self.picture)

    # Spectrum -----------------------------------------------------------------------------------

    @Slot()
    def _transform(self) -> None:
        """Compute the spectrum of the sum that is shown, if it is looked at."""
        work = self.work
        if not self.spectrum_section.button.isChecked() or self._total is None:
            return
        if work is not None and work.stack is not None and min(self._total.shape) >= 8:
            pixel = work.stack.pixel_size[1:]
            self._spectrum.request(partial(spectrum_of, self._total, pixel))

    @Slot(object)
    def _on_spectrum(self, found: SpectrumShown) -> None:
        self.spectrum.show_spectrum(found)

    # Drift --------------------------------------------------------------------------------------

    @Slot()
    def _on_group(self) -> None:
        if self.drift.running and not self._showing:
            self.start_drift()

    def _show_drift(self, work: MovieWork) -> None:
        self.drift_view.show_drift(work.drift)
        doubts = () if work.drift is None else work.drift.found.warnings
        self.tell(self.doubts, "\n".join(doubts), "warning")
        self.doubts.setVisible(bool(doubts))
        self._showing = True
        if work.stack is not None:
            self.group.setRange(1, max(1, len(work.stack) // 2))
            if work.sums is not None and work.drift is None and not self.drift.running:
                self.group.setValue(usual_group(work.sums))
        self._showing = False

    @Slot(object)
    def _on_drift(self, result: Any) -> None:
        work = self._drifting
        if work is None or work.layer is None:
            return  # the movie was removed
        if isinstance(result, DriftShown):
            work.drift = result
            if work is self.work:
                self._show_drift(work)
        else:
            self.when_in_front("aligned", partial(self._add_aligned, work, result))
        self._show_state()

    def _add_aligned(self, work: MovieWork, total: npt.NDArray[np.float32]) -> None:
        if work.layer is None or work.stack is None:
            return
        limits = contrast_limits([total])
        name = f"{work.layer.name}, aligned sum"
        attributes = {"contrast_limits": limits, "rgb": False, "multiscale": False, "name": name}
        attributes |= {"metadata": describe(work.stack)}
        add_layer(self.viewer, Image(total, **attributes, **geometry(work.layer, 2)))

    @Slot()
    def _on_drift_ended(self) -> None:
        again, self._again = self._again, False
        if again:
            self.start_drift()

    # Duplicate ----------------------------------------------------------------------------------

    @Slot(object)
    def _on_shapes_ready(self, ready: None) -> None:
        self.when_in_front("rectangle", self._add_rectangle)

    def _add_rectangle(self) -> None:
        work = self.work
        if work is None:
            return
        if self._rectangle is None or self._rectangle not in self.viewer.layers:
            self._rectangle = Shapes(
                name=f"{work.layer.name}, part",
                ndim=2,
                face_color="transparent",
                edge_color="#d55e00",
                edge_width=max(1.0, work.layer.data.shape[-1] / 300),
                **geometry(work.layer, 2),
            )
            self.viewer.add_layer(self._rectangle)
        self._rectangle.data = []
        self.viewer.layers.selection.active = self._rectangle
        self._rectangle.mode = "add_rectangle"

    def _corners(self, source: Image) -> npt.NDArray[np.float64] | None:
        """Return the corners of the rectangle that was drawn, in pixels of a movie."""
        shapes = self._rectangle
        active = self.viewer.layers.selection.active
        if isinstance(active, Shapes):
            shapes = active
        if shapes is None or shapes not in self.viewer.layers or not len(shapes.data):
            return None
        corners = np.asarray(shapes.data[-1])[:, -2:] * shapes.scale[-2:] + shapes.translate[-2:]
        found: npt.NDArray[np.float64] = (corners - source.translate[-2:]) / source.scale[-2:]
        return found

    # The end ------------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        if self.in_front:
            self._show_state()  # a movie before or after a correction may have come

    def _on_removed(self, event: Any) -> None:
        if event.value is self._covered:
            self._covered = None
        if event.value is self._rectangle:
            self._rectangle = None
        if self._picture_layer.holds(event.value):
            self._picture_layer.remove()
            self._bared = self.layers.layer
            QTimer.singleShot(0, self._on_picture_removed)
        elif self.in_front:
            self._show_state()

    @Slot()
    def _on_picture_removed(self) -> None:
        """Show frames, unless the user has removed the movie, too."""
        bared, self._bared = self._bared, None
        if bared is not None and bared in self.viewer.layers and self.picture is None:
            self.mode.setCurrentIndex(self.mode.findData(_FRAMES))

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self.tell(self.info, error_text(error), "error")

    def _let_go(self) -> None:
        """Keep no movie when the window is gone but the Python half is not."""
        self._covered = self._rectangle = self._total = self._drifting = self._bared = None


def _close_if(section: Section, opened: bool) -> None:
    """Fold a section when the other one opens: both do not fit a low window."""
    if opened:
        section.button.setChecked(False)


def _get_shapes_ready(report: Report) -> None:
    report("Getting ready to draw", 0, None)
    get_shapes_ready()


def _sum_in_detail(
    work: MovieWork,
    frames: tuple[int, int],
    binning: int,
    low_pass: float,
    divisor: int,
    report: Report,
) -> _Detail:
    """Sum a range at full size, in a thread."""
    sums = work.sums
    if sums is None:
        raise ValueError("the movie was closed")
    total = sums.exact(*frames, report)
    pixel = sums.stack.pixel_size[1:]
    picture = picture_of(total, binning, low_pass, pixel, divisor)
    return _Detail(work, *frames, total, picture, binning)
