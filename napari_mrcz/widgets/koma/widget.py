"""The "KOMA" dock widget: a list of stacks, a radius, a preview, all stacks corrected."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QCheckBox, QPushButton, QSpinBox, QWidget

from napari_mrcz.errors import error_text
from napari_mrcz.widgets.base.form import form
from napari_mrcz.widgets.base.job import JobControls, LatestJob
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.koma.export import Export
from napari_mrcz.widgets.koma.model import KomaModel
from napari_mrcz.widgets.koma.pace import Pace
from napari_mrcz.widgets.koma.preview import Preview
from napari_mrcz.widgets.koma.radius_view import AgeingView, RadiusView
from napari_mrcz.widgets.koma.stack_list import StackBox

if TYPE_CHECKING:
    import napari

    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.koma.ageing import Ageing
    from napari_mrcz.widgets.koma.reading import Entry, NoiseCurve, Reading


class KomaSession(Panel):
    """Subtract from each stack of a session what its neighbours have in common (KOMA).

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    curve_shown : Signal(object)
        A `NoiseCurve` is shown, or None where there is none.
    """

    title = "KOMA"

    curve_shown = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.koma = KomaModel()
        self._curve: NoiseCurve | None = None
        self._pace = Pace()
        self._previewed: Entry | None = None
        self.setAcceptDrops(True)

        self.box = StackBox(self, self.koma)
        self.filter_outliers = QCheckBox("Filter outlier pixels first")
        self.filter_outliers.setToolTip(
            "Hot pixels come and go: neighbours leave theirs in a stack unless they are replaced "
            "first. Takes longer: the outliers of each stack are found in a pass of its own"
        )
        self.reading = JobControls(
            self,
            "Read session",
            "Sum each stack once; the sums are kept, so that a second time is quick",
            lambda *step: self._pace.text(*step),
        )
        self.reading.cancel_button.setToolTip("Stop reading; sums that are complete are kept")
        self.radius = RadiusView()
        self.noise = WrappedLabel("At the radius chosen; R is 0 where frames share nothing")
        self.keep_mean = QCheckBox("Keep mean")
        self.keep_mean.setToolTip("Add the mean of what is subtracted, so that counts stay counts")
        self.keep_mean.setChecked(True)
        self.length = QSpinBox()
        self.length.setRange(0, 10**5)
        self.length.setSpecialValueText("all")
        self.length.setSuffix(" pixels")
        self.length.setKeyboardTracking(False)
        self.length.setToolTip(
            "Subtract only what is finer than this, so that structure at the same place in every "
            "image (a hole's edge, a beam stop) stays"
        )
        self.even_if_worse = QCheckBox("Even if noise rises")
        self.even_if_worse.setToolTip(
            "Stacks whose correlated noise R would rise stay as they are, unless this is ticked"
        )
        self.form = QWidget()
        self.form.setLayout(form(("Finer than", self.length)))
        self.warnings = WrappedLabel("Where KOMA should not be trusted without a look")
        self.preview_button = QPushButton("Preview selected stack")
        self.preview_status = WrappedLabel("What became of the preview")
        self.preview_layer = Preview(self.viewer, self)
        self.export = Export(self, self.koma)
        self.ageing = JobControls(
            self,
            "Session plots",
            "Outlier pixels and noise by cumulative dose; the outliers of each stack are found",
            lambda *step: self._pace.text(*step),
        )
        self.ageing_view = AgeingView()
        self._curves = LatestJob(self)
        self._lay_out()
        self._connect()
        self.apply_palette(self.palette_now)
        self._say(self.preview_status, "")
        self._on_list()

    @property
    def busy(self) -> bool:
        """Whether something runs: reading, a curve, a preview, correcting, session plots."""
        jobs = (self.reading, self.export.controls, self.ageing)
        waited_for = self._curves.busy or self.preview_layer.busy
        return waited_for or any(job.running for job in jobs)

    def apply_palette(self, colours: Palette) -> None:
        """Colour list and plots."""
        for part in (self.box, self.radius, self.ageing_view):
            part.apply_palette(colours)

    def dragEnterEvent(self, event: Any) -> None:
        """Take files and folders."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Put them in the list."""
        urls = event.mimeData().urls()
        event.acceptProposedAction()
        self.box.add_paths([url.toLocalFile() for url in urls if url.isLocalFile()])

    def _lay_out(self) -> None:
        groups = (
            (self.box,),
            (self.filter_outliers, self.reading),
            (self.radius, self.noise, self.warnings),
            (
                self.keep_mean,
                self.even_if_worse,
                self.form,
                self.preview_button,
                self.preview_status,
            ),
            (self.export,),
            (self.ageing, self.ageing_view),
        )
        for group in groups:
            for part in group:
                self.column.addWidget(part)
            self.column.addSpacing(6)
        self.column.addStretch()

    def _connect(self) -> None:
        self.box.changed.connect(self._on_list)
        self.box.replaced.connect(self._on_replaced)
        self.box.current_changed.connect(self._show_state)
        self.box.stacks.doubleClicked.connect(lambda _: self.preview())
        self.filter_outliers.toggled.connect(self._on_filter)
        self.reading.start_button.clicked.connect(self._read)
        self.reading.returned.connect(self._on_read)
        self.reading.cancelled.connect(self._on_cancelled)
        self.reading.ended.connect(self._show_state)
        self.radius.radius_changed.connect(self._on_radius)
        self.keep_mean.toggled.connect(self._on_options)
        self.even_if_worse.toggled.connect(self._on_options)
        self.length.valueChanged.connect(self._on_options)
        self.preview_button.clicked.connect(self.preview)
        self.preview_layer.shown.connect(self._on_previewed)
        self.preview_layer.failed.connect(self._on_not_previewed)
        self.ageing.start_button.clicked.connect(self._measure_ageing)
        self.ageing.returned.connect(self._on_ageing)
        self._curves.returned.connect(self._on_curve)
        self._curves.failed.connect(self._on_no_curve)

    @Slot()
    def preview(self) -> None:
        """Show the selected stack corrected, in a layer that follows what is chosen."""
        entry = self.box.stacks.current
        if entry is not None and not self._preview_problem():
            self._previewed = entry
            self._ask_preview(entry)

    @Slot()
    def _on_list(self) -> None:
        """Follow the list: another order, other stacks, others left out."""
        if self._previewed not in self.koma.entries:
            self._previewed = None
            self.preview_layer.drop()
        self.ageing_view.show_ageing(None)
        if self.koma.problem():
            self._curves.drop()
            self._show_curve(None)
        else:
            self._curves.request(self.koma.curve())
        self._show_state()
        self._follow_preview()

    @Slot(object, object)
    def _on_replaced(self, old: Entry, new: Entry) -> None:
        if self._previewed is old:
            self._previewed = new

    @Slot(bool)
    def _on_filter(self, on: bool) -> None:
        self.koma.filter_outliers = on
        self.box.refresh()

    @Slot()
    def _read(self) -> None:
        self._pace = Pace(len(self.koma.entries))
        self.reading.run(self.koma.read())
        self._show_state()

    @Slot(object)
    def _on_read(self, reading: Reading) -> None:
        self.koma.take(reading)
        self.reading.tell(_read_text(reading), "warning" if reading.unusable else "text")
        self.box.refresh()
        stacks = self.box.stacks
        if stacks.current is None and not stacks.selected:
            stacks.select([entry for entry in self.koma.entries if self.koma.enters(entry)][:1])

    @Slot()
    def _on_cancelled(self) -> None:
        if self.koma.reading is not None:
            self.reading.tell("Cancelled; the session read before still stands.")

    @Slot(int)
    def _on_radius(self, radius: int) -> None:
        self.koma.radius = radius
        self._show_noise()
        if self._curve is not None and radius > self._curve.radii[-1]:
            self._curves.request(self.koma.curve())
        self._follow_preview()

    @Slot()
    def _on_options(self) -> None:
        self.koma.keep_mean = self.keep_mean.isChecked()
        self.koma.even_if_worse = self.even_if_worse.isChecked()
        self.koma.length = self.length.value()
        self._show_noise()
        self._follow_preview()

    @Slot(object)
    def _on_curve(self, curve: NoiseCurve) -> None:
        self._show_curve(curve)

    @Slot(object)
    def _on_no_curve(self, error: Exception) -> None:
        self._show_curve(None)
        self._say(self.noise, error_text(error), "error")

    def _show_curve(self, curve: NoiseCurve | None) -> None:
        self._curve = curve
        self.radius.show_range(self.koma.radius, self.koma.largest_radius)
        self.radius.show_curve(curve)
        self._show_noise()
        self.curve_shown.emit(curve)

    def _show_noise(self) -> None:
        warnings = self.koma.warnings
        self._say(self.warnings, "\n".join(warnings), "warning")
        if self._curve is None:
            self._say(self.noise, self.koma.problem(), "muted")
            return
        radius = self.koma.radius
        if radius > self._curve.radii[-1]:
            self._say(self.noise, f"Comparing sums for a radius of {radius}…", "muted")
            return
        noise, limit = self._curve.at(radius)
        before = self._curve.before
        text = f"a = {radius}: R\u0304 = {noise:.2g}, limit {limit:.2g}; without KOMA {before:.2g}"
        if self.koma.length:
            text += ", of whole averages"
        if noise > before:
            text += ". The average brings in more noise than it takes away: a wider one, of more "
            text += "stacks, brings less. "
            if self.koma.even_if_worse:
                text += "These frames are better without KOMA."
            else:
                text += "Stacks whose noise would rise stay as they are."
        self._say(self.noise, text, "warning" if noise > before else "text")

    def _show_state(self) -> None:
        """Enable what can be used now, and say why the rest cannot."""
        problem = self.koma.problem()
        self.reading.allow("" if self.koma.entries else problem)
        self.filter_outliers.setEnabled(not self.reading.running)
        self.export.controls.allow(problem)
        self.ageing.allow(problem)
        refused = self._preview_problem()
        self.preview_button.setEnabled(not refused)
        self.preview_button.setToolTip(
            refused or "Show the stack corrected, as a layer that follows radius and ticks"
        )

    def _preview_problem(self) -> str:
        entry = self.box.stacks.current
        if problem := self.koma.problem():
            return problem
        if entry is None:
            return "Select a stack in the list."
        return self.koma.why_not(entry)

    def _follow_preview(self) -> None:
        """Make the preview anew where there is one."""
        if self.preview_layer.layer is None and not self.preview_layer.busy:
            self._previewed = None
        if self._previewed is None or self.koma.problem():
            self.preview_layer.drop()
            return
        self._ask_preview(self._previewed)

    def _ask_preview(self, entry: Entry) -> None:
        step = self.viewer.dims.current_step
        frame = int(step[-3]) if len(step) > 2 else 0
        self.preview_layer.ask(
            self.koma.preview(entry, frame),
            self.box.layers.layer_of(entry),
            (weakref.ref(entry), self.koma.keep_mean, self.koma.length > 0),
        )
        self._say(self.preview_status, f"Correcting {entry.name}…", "muted")

    @Slot(object)
    def _on_previewed(self, layer: Any) -> None:
        text, tone = f"“{layer.name}” shows radius {self.koma.radius}.", "muted"
        if said := layer.data.history[-1].get("warnings"):
            text, tone = "\n".join([text, *said]), "warning"
        self._say(self.preview_status, text, tone)

    @Slot(object)
    def _on_not_previewed(self, error: Exception) -> None:
        self._previewed = None
        self._say(self.preview_status, error_text(error), "error")

    def _say(self, label: WrappedLabel, text: str, tone: str = "text") -> None:
        self.tell(label, text, tone)
        label.setVisible(bool(text))

    @Slot()
    def _measure_ageing(self) -> None:
        self._pace = Pace(len(self.koma.entries))
        self.ageing.run(self.koma.ageing())

    @Slot(object)
    def _on_ageing(self, ageing: Ageing) -> None:
        self.ageing_view.show_ageing(ageing)


def _read_text(reading: Reading) -> str:
    n, bad = len(reading.entries), len(reading.unusable)
    text = f"{n} stacks read"
    if reading.high_contrast:
        text += f", {len(reading.high_contrast)} of high contrast"
    if reading.cut_short:
        text += f", {len(reading.cut_short)} cut off"
    if reading.without_numbers:
        text += f", {len(reading.without_numbers)} with NaN or inf"
    if bad:
        names = ", ".join(entry.name for entry in reading.unusable)
        text += f"; {bad} cannot be used: {names}"
    return f"{text}."
