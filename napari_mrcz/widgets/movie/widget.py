"""The dock widget that shows sums of a movie's frames: the specimen rather than noise."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QTimer, Signal, Slot

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.naming import RemotePath, path_of
from napari_mrcz.plugin.layers import contrast_limits, describe, stack_of_layer
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.derived import PictureLayer, frame_shown, geometry, works_of
from napari_mrcz.widgets.base.form import (
    Section,
    WrappedLabel,
    choice_field,
    form,
    number_field,
    push_button,
)
from napari_mrcz.widgets.base.job import JobControls, LatestJob
from napari_mrcz.widgets.base.layer_picker import LayerPicker, bind_while_alive, connect_while_alive
from napari_mrcz.widgets.base.panel import Panel
from napari_mrcz.widgets.movie.model import FrameSums, doses, picture_of, spectrum_of
from napari_mrcz.widgets.movie.sections import (
    FRAMES,
    RUNNING,
    Drift,
    FrameChoice,
    MovieWork,
    Part,
    SpectrumView,
)

if TYPE_CHECKING:
    import napari
    import numpy.typing as npt
    from napari.layers import Image
    from qtpy.QtWidgets import QToolButton

    from napari_mrcz.widgets.base.job import Report

    # A range that was summed at full size: of which movie, the sum, its picture, its binning.
    Detail = tuple[MovieWork, npt.NDArray[Any], npt.NDArray[Any], int]

# A hand that has not moved for so long rests.
_RESTED_MS = 80
_AUTOMATIC = 0
_BINNINGS = {"automatic": _AUTOMATIC, "1 (all pixels)": 1, "2 × 2": 2, "4 × 4": 4, "8 × 8": 8}
_COARSEST_A = 1000.0
_INVITATION = "Open a movie: the sum of its frames shows the specimen."
_TOGGLE_KEY = "Shift-B"
# Movies whose sums are kept: those before and after a correction.
_MOST_KEPT = 2


class MovieViewer(Panel):
    """Sum any range of a movie's frames, and look at its spectrum and drift."""

    title = "Movie"

    drawn = Signal(object)  # the layer of the sum shows a range at full detail

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.works = works_of(self.viewer, MovieWork)
        kept: Any = self.works.shared  # one layer, however often the dock is opened
        self._picture_layer: PictureLayer = kept.setdefault("picture", PictureLayer(self.viewer))
        self._shown_binning = 1
        self._bared: Any = None  # the movie whose sum was just removed
        self._total: npt.NDArray[Any] | None = None  # of what is shown, at full size
        self._detail = LatestJob(self, delay_ms=_RESTED_MS)
        self._spectrum = LatestJob(self)
        self.layers = LayerPicker(self, accepts=self._accepts)
        self.layers.setToolTip("The movie; follows the layer selected in the list")
        self.toggle_button = push_button(
            "Before", "Show the sum before or after a correction (Shift+B in the viewer)"
        )
        self.choice = FrameChoice(self.toggle_button)
        self.info = WrappedLabel("Frames and dose of the sum, and how fine its picture is", 2)
        self.info.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.controls = JobControls(
            self, "Read frames", "Read all frames once, to sum any range of them", reserve=2
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
        self.drift = Drift(self)
        self.part = Part(self, self._chosen)
        self.spectrum_section = Section("Spectrum", self.spectrum)
        self.spectrum_section.button.setChecked(True)
        self.drift_section = Section("Drift", self.drift)
        self.column.setSpacing(4)
        self.column.addLayout(form(("Movie", self.layers)))
        for part in (self.choice, self.info, self.controls, self.remark):
            self.column.addWidget(part)
        self.column.addLayout(form(("Binning", self.binning), ("Low-pass", self.low_pass)))
        duplicate = Section("Duplicate from selection", self.part)
        for section in (self.spectrum_section, self.drift_section, duplicate):
            self.column.addWidget(section)
        self.column.addStretch()
        self._connect()
        self.apply_palette(self.palette_now)
        self._on_layer(self.layers.layer)

    def _connect(self) -> None:
        self.layers.layer_changed.connect(self._on_layer)
        for changed in (
            self.choice.changed, self.binning.currentIndexChanged, self.low_pass.valueChanged,
        ):  # fmt: skip
            changed.connect(self._draw)
            changed.connect(self.drift.hide_aligned)
        self.toggle_button.clicked.connect(self.toggle)
        self.controls.start_button.clicked.connect(self.start_reading)
        self.part.refused.connect(lambda why: self.tell(self.info, why, "warning"))
        for section, other in (
            (self.spectrum_section, self.drift_section),
            (self.drift_section, self.spectrum_section),
        ):
            section.button.toggled.connect(partial(_fold_if, other.button))
        self.spectrum_section.button.toggled.connect(self._transform)
        self._detail.returned.connect(self._on_detail)
        self._spectrum.returned.connect(self.spectrum.show_spectrum)
        for job in (self._detail, self._spectrum, self.part.drawing):
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
        jobs = self._detail, self._spectrum, self.part.drawing
        running = self.controls.running or self.drift.controls.running
        return running or any(job.busy for job in jobs)

    @property
    def frames(self) -> tuple[int, int]:
        """The first frame of what is shown, and the one after the last."""
        work = self.work
        if work is None or work.stack is None:
            return 0, 1
        return self.choice.frames(len(work.stack), frame_shown(self.viewer, work.layer))

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
            same_frames = (data.path, data.shape) == (own.path, own.shape)
            if same_frames and len(data.history) != len(own.history):
                return layer
        return None

    def _chosen(self) -> tuple[Image, Stack, tuple[int, int]] | None:
        """Return what would be duplicated: of single frames all, else those of the picture."""
        work = self.work
        if work is None or work.stack is None:
            return None
        frames = (0, len(work.stack)) if self.choice.kind == FRAMES else self.frames
        return work.layer, work.stack, frames

    @Slot(object)
    def _on_layer(self, layer: Image | None) -> None:
        self._drop()
        self._total = None
        self.when_in_front("work", self._show_work)

    def _drop(self) -> None:
        for job in (self._detail, self._spectrum):
            job.drop()

    def _show_work(self) -> None:
        """Show the movie picked: read it, unless it was."""
        work = self.work
        self._put_away()
        if work is None:
            self.controls.attach(None)
            self._picture_layer.remove()
            self.tell(self.info, _INVITATION, "muted")
            self.drift.show_work(None)
            self._show_state()
            return
        try:
            work.stack = stack_of_layer(work.layer)
        except MrczError as error:
            self.tell(self.info, error_text(error), "error")
            return
        work.doses = doses(work.stack)
        self.choice.show_length(len(work.stack))
        self.controls.attach(work.job, work.message, work.tone)
        if work.sums is None and work.job is None and not work.message:
            if isinstance(path_of(work.stack.path or ""), RemotePath):
                self.controls.tell("A remote movie: all of it is read for sums of its frames.")
            else:
                self.start_reading()
        self.drift.show_work(work)
        self._show_state()
        self._draw()

    def _show_state(self) -> None:
        work = self.work
        sums = None if work is None else work.sums
        self.controls.setVisible(work is not None and sums is None)
        self.controls.allow("" if work is not None else "Open a movie first")
        self.info.setVisible(work is None or sums is not None)
        self.choice.allow(sums is not None)
        for field in (self.binning, self.low_pass):
            field.setEnabled(sums is not None)
        self.part.setEnabled(work is not None)
        other = self._counterpart()
        self.toggle_button.setVisible(other is not None)
        if other is not None and work is not None and work.stack is not None:
            after = len(work.stack.history) > len(other.data.history)
            self.toggle_button.setText("Before" if after else "After")
        damaged = {} if sums is None else sums.damaged
        numbers = ", ".join(map(str, sorted(damaged)))
        self.tell(self.remark, f"Damaged frames count as 0: {numbers}.", "warning")
        self.remark.setVisible(bool(damaged))

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

    def _on_step(self, event: Any = None) -> None:
        if self.choice.kind == RUNNING:
            self._draw()

    def _on_zoom(self, event: Any = None) -> None:
        work = self.work
        if not self.in_front or self.picture is None or work is None:
            return
        if self._wanted_binning(work) != self._shown_binning:
            self._ask_for_detail(work)

    def _wanted_binning(self, work: MovieWork) -> int:
        """Return the binning that is chosen, or that fits the zoom."""
        chosen = self.binning.currentData()
        if chosen != _AUTOMATIC:
            return int(chosen)
        scene = getattr(self.viewer, "scene", self.viewer)  # it moved in napari 0.9
        apart = scene.camera.zoom * abs(float(work.layer.scale[-1]))  # pixels of the screen
        return max([b for b in (1, 2, 4, 8) if b * apart <= 1] or [1])

    @Slot()
    def _draw(self) -> None:
        """Show what is chosen: binned at once, in full detail when nothing is dragged."""
        work = self.work
        if not self.in_front or work is None or work.sums is None or work.stack is None:
            return
        if self.choice.kind == FRAMES:
            self._drop()
            self._put_away()
            self._picture_layer.remove()
            self._tell_range(work, "the movie itself")
            self._total = None
            self.spectrum.show_spectrum(None)
            return
        sums = work.sums
        coarser = max(1, self._wanted_binning(work) // sums.binning)
        y, x = (size * sums.binning for size in work.stack.pixel_size[1:])
        binned = sums.quick(*self.frames)
        picture = picture_of(binned, coarser, self.low_pass.value(), (y, x), self._divisor())
        self._put(work, picture, sums.binning * coarser)
        self._ask_for_detail(work)

    def _divisor(self) -> int:
        """Return by what a sum is divided for its picture."""
        start, stop = self.frames
        return stop - start if self.choice.kind == RUNNING else 1

    def _ask_for_detail(self, work: MovieWork) -> None:
        self._spectrum.drop()
        sums, frames, divisor = work.sums, self.frames, self._divisor()
        binning, low_pass = self._wanted_binning(work), self.low_pass.value()
        if sums is None:
            return

        def sum_up(report: Report) -> Detail:
            total, pixel = sums.exact(*frames, report), sums.stack.pixel_size[1:]
            return work, total, picture_of(total, binning, low_pass, pixel, divisor), binning

        self._detail.request(sum_up)

    def _put(self, work: MovieWork, picture: npt.NDArray[Any], binning: int) -> None:
        """Show a picture as the layer of the sum, in the place of the movie."""
        source, is_average = work.layer, self.choice.kind == RUNNING
        start, stop = self.frames
        metadata = {} if work.stack is None else describe(work.stack)
        own = {**metadata.get("metadata", {}), "summed_frames": [start, stop - 1]}
        attributes = {
            "name": f"{source.name}, {'average' if is_average else 'sum'}",
            "metadata": {**metadata, "metadata": own},
            "contrast_limits": contrast_limits([picture]),
            "rgb": False,
            "multiscale": False,
            **geometry(source, 2, 1 / binning),
        }
        # Above the corrected movie, too, which hides what is below it.
        above = max(source, self._counterpart() or source, key=self.viewer.layers.index)
        look = is_average, stop - start, work
        self._picture_layer.show(picture, attributes, above, look)
        self._picture_layer.cover(source)
        self._shown_binning = binning
        state = "all pixels" if binning == 1 else f"binned {binning} × {binning}"
        if self.low_pass.value():
            state += f", low-pass {self.low_pass.value():g} Å"
        if binning > 1 and self.binning.currentData() == _AUTOMATIC:
            state += " (zoom in for more)"
        self._tell_range(work, state)

    def _tell_range(self, work: MovieWork, state: str) -> None:
        start, stop = self.frames
        n = 0 if work.stack is None else len(work.stack)
        text = f"Frames {start} to {stop - 1} of {n}"
        if work.doses is not None:
            text += " · {:.3g} to {:.3g} e⁻/Å²".format(*work.doses[[start, stop]])
        number = "1 frame" if stop - start == 1 else f"{stop - start} frames"
        self.tell(self.info, f"{text}\n{number}, {state}")

    def _put_away(self) -> None:
        """Show the movie in place of its sum."""
        self._picture_layer.put_away()
        selection, movie = self.viewer.layers.selection, self.layers.layer
        if self.picture is not None and selection.active is self.picture and movie is not None:
            selection.active = movie  # what the other widgets take

    @Slot(bool)
    def _on_visibility(self, visible: bool) -> None:
        was = self.in_front
        super()._on_visibility(visible)
        if was and not visible:
            self._drop()
            self._put_away()
        elif visible and not was:
            self._show_work()

    @Slot(object)
    def _on_detail(self, detail: Detail) -> None:
        self.when_in_front("detail", partial(self._take_detail, *detail))

    def _take_detail(
        self, work: MovieWork, total: npt.NDArray[Any], picture: npt.NDArray[Any], binning: int
    ) -> None:
        if work is self.work and self.choice.kind != FRAMES:
            self._put(work, picture, binning)
            self._total = total
            self._transform()
            self.drawn.emit(self.picture)

    @Slot()
    def _transform(self) -> None:
        """Compute the spectrum of the sum that is shown, if it is looked at."""
        work, total = self.work, self._total
        if not self.spectrum_section.button.isChecked() or total is None or min(total.shape) < 8:
            return
        if work is not None and work.stack is not None:
            self._spectrum.request(partial(spectrum_of, total, work.stack.pixel_size[1:]))

    # Layers that come and go, and the end -------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        if self.in_front:
            self._show_state()  # a movie before or after a correction may have come

    def _on_removed(self, event: Any) -> None:
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
            self.choice.choose(FRAMES)

    @Slot(object)
    def _on_failed(self, error: Exception) -> None:
        self.tell(self.info, error_text(error), "error")

    def _let_go(self) -> None:
        """Keep no movie when the window is gone but the Python half is not."""
        self._total = self._bared = None


def _fold_if(button: QToolButton, opened: bool) -> None:
    """Fold a section when the other one opens: both do not fit a low window."""
    if opened:
        button.setChecked(False)
