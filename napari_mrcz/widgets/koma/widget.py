"""The "KOMA" dock widget: a list of stacks, a radius, a preview, all stacks corrected."""

from __future__ import annotations

import shutil
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QLineEdit, QMessageBox, QWidget

from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.errors import error_text, listed, size_text
from napari_mrcz.session.recipe import Output
from napari_mrcz.widgets.base.derived import LayerWork, PictureLayer, place, works_of
from napari_mrcz.widgets.base.form import (
    OptionsForm,
    Section,
    WrappedLabel,
    allow,
    filled,
    form,
    option_field,
    push_button,
)
from napari_mrcz.widgets.base.job import JobControls, LatestJob, Pace
from napari_mrcz.widgets.base.panel import Panel
from napari_mrcz.widgets.koma.model import KomaModel, folder_problem, in_words
from napari_mrcz.widgets.koma.stack_list import StackBox
from napari_mrcz.widgets.koma.views import AgeingView, RadiusView

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image

    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.koma.model import Corrected, NoiseCurve
    from napari_mrcz.widgets.koma.reading import Entry, Reading

_OPTIONS = ("keep_mean", "length", "limit", "even_if_worse")
# Corrected frames are float32.
_ITEMSIZE = 4


class KomaSession(Panel):
    """Subtract from each stack of a session what its neighbours have in common (KOMA)."""

    title = "KOMA"

    curve_shown = Signal(object)  # a `NoiseCurve`, or None where there is none
    previewed = Signal(object)  # the layer shows what is chosen now
    corrected = Signal(object)  # all: `Corrected`, or the exception

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        kept = works_of(self.viewer, LayerWork).shared
        koma = self.koma = kept.pop("koma", None) or KomaModel()
        self._curve: NoiseCurve | None = None
        self._previewed: Entry | None = None
        self._picture = PictureLayer(self.viewer)
        self.setAcceptDrops(True)

        self.box = StackBox(self, koma)
        self.preview_button = self.box.preview
        self.filter_outliers = QCheckBox("Filter outliers first")
        self.filter_outliers.setChecked(koma.filter_outliers)
        self.filter_outliers.setToolTip(
            "Hot pixels come and go: neighbours leave theirs in a stack unless they are replaced "
            "first. Takes longer: the outliers of each stack are found in a pass of its own"
        )
        self.reading = JobControls(
            self,
            "Read session",
            "Sum each stack once; the sums are kept, so that a second time is quick",
            Pace(n_stacks=1),
            reserve=1,
        )
        self.reading.cancel_button.setToolTip("Stop reading; sums that are complete are kept")
        self.reading.buttons.insertWidget(0, self.filter_outliers)
        self.radius = RadiusView()
        self.noise = WrappedLabel("At the radius chosen; R is 0 where frames share nothing")
        self.warnings = WrappedLabel("Where KOMA should not be trusted without a look")
        self.preview_status = WrappedLabel("What became of the preview")
        self.keep = option_field(Output, "keep")
        self.keep.value = koma.keep
        # Its longest entry would make the dock wide.
        short = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self.keep.native.setSizeAdjustPolicy(short)
        rows = [(self.keep.label, self.keep.native)]
        self.options = OptionsForm(KomaOptions, _OPTIONS, rows=rows)
        self.options.show_values(vars(koma.options))
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("new or existing folder")
        self.folder.setToolTip("Where corrected stacks are written; a new folder is made")
        self.browse = push_button("…", "Choose a folder")
        self.browse.setMaximumWidth(30)
        into = filled(QWidget(), self.folder, self.browse, across=True)
        into.setToolTip(self.folder.toolTip())
        where = QWidget()
        where.setLayout(form(("Output", into)))
        self.estimate = WrappedLabel("Estimated from excerpts of one corrected stack")
        tip = "Write every stack, corrected, into the folder"
        self.export = JobControls(self, "Correct all", tip, Pace(n_stacks=1))
        self.export.cancel_button.setToolTip(
            "Stop: files that are complete stay, and nothing is left of the one under way"
        )
        tip = "Outlier pixels and noise by cumulative dose; the outliers of each stack are found"
        self.ageing = JobControls(self, "Measure", tip, Pace(n_stacks=1))
        self.ageing_view = AgeingView()
        self.plots = Section("Session plots", self.ageing, self.ageing_view)
        self.column.setSpacing(4)
        for group in (
            (self.box,),
            (self.reading,),
            (self.radius, self.noise, self.warnings, self.preview_status),
            (where, self.export, self.estimate),
            (Section("Advanced", self.options),),
            (self.plots,),
        ):
            self.column.addWidget(filled(QWidget(), *group, spacing=4))
        self.column.addStretch()
        self._curves, self._previews, self._sizes = (LatestJob(self) for _ in range(3))
        for signal, slot in (
            (self.box.changed, self._on_list),
            (self.box.replaced, self._on_replaced),
            (self.box.current_changed, self._show_state),
            (self.box.stacks.doubleClicked, lambda _: self.preview()),
            (self.filter_outliers.toggled, self._on_filter),
            (self.reading.start_button.clicked, lambda: self._run(self.reading, koma.read())),
            (self.reading.returned, self._on_read),
            (self.reading.cancelled, self._on_cancelled),
            (self.reading.ended, self._show_state),
            (self.radius.radius_changed, self._on_radius),
            (self.options.changed, self._on_options),
            (self.keep.changed, self._on_keep),
            (self.preview_button.clicked, self.preview),
            (self.browse.clicked, self._ask_folder),
            (self.folder.textChanged, self._show_state),
            (self.export.start_button.clicked, lambda: self.correct_into(self.folder.text())),
            (self.export.returned, self._on_corrected),
            (self.export.failed, self.corrected),
            (self.ageing.start_button.clicked, lambda: self._run(self.ageing, koma.ageing())),
            (self.ageing.returned, self.ageing_view.show_ageing),
            (self._curves.returned, self._show_curve),
            (self._curves.failed, self._on_no_curve),
            (
                self._previews.returned,
                lambda made: self.when_in_front("preview", partial(self._show_preview, made)),
            ),
            (self._previews.failed, self._on_not_previewed),
            (self._sizes.returned, self._show_size),
            (self._sizes.failed, lambda error: self._say(self.estimate, "")),
            (self.destroyed, lambda: kept.setdefault("koma", koma)),
        ):
            signal.connect(slot)
        self.apply_palette(self.palette_now)
        self._say(self.preview_status, "")
        self._on_list()

    @property
    def busy(self) -> bool:
        """Whether something runs: reading, a curve, a preview, correcting, session plots."""
        latest = (self._curves, self._previews, self._sizes)
        jobs = (self.reading, self.export, self.ageing)
        return any(job.busy for job in latest) or any(job.running for job in jobs)

    @property
    def preview_layer(self) -> Image | None:
        """The layer of the stack that is previewed, while it is in the viewer."""
        return self._picture.layer

    def dragEnterEvent(self, event: Any) -> None:
        """Take files and folders."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Put them in the list."""
        urls = event.mimeData().urls()
        event.acceptProposedAction()
        self.box.add_paths([url.toLocalFile() for url in urls if url.isLocalFile()])

    # The list and what is read of it ------------------------------------------------------------

    def _on_list(self) -> None:
        """Follow the list: another order, other stacks, others left out."""
        if self._previewed not in self.koma.entries:
            self._previewed = None
        self.ageing_view.show_ageing(None)
        if not self.reading.running:
            self._show_reading(self.koma.reading)
        if self.koma.problem():
            self._curves.drop()
            self._show_curve(None)
        else:
            self._curves.request(self.koma.curve())
        self._follow_choices()

    def _on_replaced(self, old: Entry, new: Entry) -> None:
        if self._previewed is old:
            self._previewed = new

    def _on_filter(self, on: bool) -> None:
        self.koma.filter_outliers = on
        self.box.refresh()

    def _run(self, controls: JobControls, work: Callable[[Report], Any]) -> None:
        """Start what goes through all stacks."""
        controls.pace = Pace(n_stacks=len(self.koma.entries))
        controls.run(work)
        self._show_state()

    def _on_read(self, reading: Reading) -> None:
        self.koma.take(reading)
        self.box.refresh()
        stacks = self.box.stacks
        if stacks.current is None and not stacks.selected:
            stacks.select([entry for entry in self.koma.entries if self.koma.enters(entry)][:1])

    def _show_reading(self, reading: Reading | None) -> None:
        if reading is None:
            self.reading.tell("")
            return
        self.reading.tell(str(reading), "warning" if reading.unusable else "text")
        folders = {Path(entry.path).parent for entry in reading.entries if entry.path}
        if len(folders) == 1 and not self.folder.text():
            self.folder.setText(str(folders.pop() / "koma"))

    def _on_cancelled(self) -> None:
        if self.koma.reading is not None:
            self.reading.tell("Cancelled; the session read before still stands.")

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
        self._say(self.warnings, "\n".join(self.koma.warnings), "warning")
        radius, curve = self.koma.radius, self._curve
        if curve is None:
            self._say(self.noise, self.koma.problem(), "muted")
        elif radius > curve.radii[-1]:
            self._say(self.noise, f"Comparing sums for a radius of {radius}…", "muted")
        else:
            noise, limit = curve.at(radius)
            text = f"a = {radius}: R\u0304 = {noise:.2g}, limit {limit:.2g}; "
            text += f"without KOMA {curve.before:.2g}"
            if self.koma.options.length:
                text += ", of whole averages"
            if noise > curve.before:
                text += ". The average brings in more noise than it takes away: a wider one, of "
                text += "more stacks, brings less. "
                text += (
                    "These frames are better without KOMA."
                    if self.koma.options.even_if_worse
                    else "Stacks whose noise would rise stay as they are."
                )
            self._say(self.noise, text, "warning" if noise > curve.before else "text")

    # Choices ------------------------------------------------------------------------------------

    def _on_radius(self, radius: int) -> None:
        self.koma.choose(radius=radius)
        self._show_noise()
        if self._curve is not None and radius > self._curve.radii[-1]:
            self._curves.request(self.koma.curve())
        self._follow_choices()

    def _on_keep(self, keep: str) -> None:
        self.koma.keep = keep
        self._follow_choices()

    def _on_options(self, name: str) -> None:
        self.koma.choose(**self.options.values())
        if name == "limit":
            self.box.refresh()
        else:
            self._show_noise()
            self._follow_choices()

    def _follow_choices(self) -> None:
        """Make the preview anew where there is one, and estimate anew."""
        self._show_state()
        if self.preview_layer is None and not self._previews.busy:
            self._previewed = None
        if self.koma.problem():
            self._sizes.drop()
            self._previews.drop()
            self._say(self.estimate, "")
            return
        self._sizes.request(self.koma.estimate())
        self._ask_preview()

    def _show_state(self) -> None:
        """Enable what can be used now, and say why the rest cannot."""
        problem, entry = self.koma.problem(), self.box.stacks.current
        self.reading.allow("" if self.koma.entries else problem)
        self.filter_outliers.setEnabled(not self.reading.running)
        bad = "Choose a folder, or type the name of a new one."
        if self.folder.text().strip():
            # Whether it has the movies themselves is looked at when the button is pressed: there
            # may be many.
            bad = folder_problem(Path(self.folder.text()))
        self.export.allow(problem or bad)
        self.ageing.allow(problem)
        unusable = "Select a stack in the list." if entry is None else self.koma.why_not(entry)
        tip = "Show the selected stack corrected, as a layer that follows radius and ticks"
        allow(self.preview_button, problem or unusable, tip)

    # The preview --------------------------------------------------------------------------------

    def preview(self) -> None:
        """Show the selected stack corrected, in a layer that follows what is chosen."""
        entry = self.box.stacks.current
        if entry is not None and self.preview_button.isEnabled():
            self._previewed = entry
            self._ask_preview()

    def _ask_preview(self) -> None:
        entry, step = self._previewed, self.viewer.dims.current_step
        if entry is None:
            self._previews.drop()
            return
        self._previews.request(self.koma.preview(entry, int(step[-3]) if len(step) > 2 else 0))
        self._say(self.preview_status, f"Correcting {entry.name}…", "muted")

    def _show_preview(self, made: LayerData) -> None:
        """Show the layer where its own lies; contrast that was set stays with the stack."""
        data, attributes, _ = made
        entry, is_first = self._previewed, not self.viewer.layers
        if entry is None:
            return
        options = self.koma.options
        look = weakref.ref(entry), options.keep_mean, options.length > 0
        here = {"translate": (0,) * len(data.shape), **attributes}
        layer = self._picture.show(data, here, None, look)
        if is_first:
            self.viewer.dims.set_current_step(0, 0)  # napari begins in the middle
        if (source := self.box.layers.get(entry)) is not None:
            place(layer, source)
        said = [*map(in_words, data.history[-1].get("warnings", ()))]
        text = "\n".join([f"“{layer.name}” shows radius {self.koma.radius}.", *said])
        self._say(self.preview_status, text, "warning" if said else "muted")
        self.previewed.emit(layer)

    def _on_not_previewed(self, error: Exception) -> None:
        self._previewed = None
        self._say(self.preview_status, error_text(error), "error")

    # Correcting all, and session plots ----------------------------------------------------------

    def _show_size(self, nbytes: int) -> None:
        said = f"To be written: {len(self.koma.targets(Path()))} stacks, about {size_text(nbytes)}"
        folder = Path(self.folder.text()).absolute()
        there = next((one for one in (folder, folder.parent) if one.is_dir()), None)
        free = nbytes if there is None else shutil.disk_usage(there).free
        if free < nbytes:
            text = f"{said}, more than the {size_text(free)} free there."
            self._say(self.estimate, text, "warning")
        else:
            self._say(self.estimate, f"{said}.", "muted")

    def _ask_folder(self) -> None:
        title = "Folder for corrected stacks"
        if found := QFileDialog.getExistingDirectory(self, title, self.folder.text()):
            self.folder.setText(found)

    def correct_into(self, folder: str) -> None:
        """Correct all into a folder, new or not; asks about files that are there."""
        where, reading = Path(folder).absolute(), self.koma.reading
        if reading is None:
            return
        if problem := folder_problem(where, reading.entries):
            self.export.tell(problem, "error")
            return
        paths = self.koma.targets(where)
        existing = [path for path in paths if path.exists()]
        replaced = self._may_replace(existing, len(paths))
        if replaced is None:
            return
        y, x = reading.session.total(0).shape
        n_stacks = len(paths) - len(existing) + len(replaced)
        self.export.pace = Pace(y * x * _ITEMSIZE, n_stacks)
        job = self.export.run(self.koma.correct(where, paths, replaced))
        if job is not None:
            job.announce(self, lambda found: found.ok and not found.warnings, "KOMA: ")

    def _may_replace(self, existing: list[Path], n_files: int) -> list[Path] | None:
        """Return the files that may be replaced, None if nothing is to be done at all."""
        if not existing:
            return []
        box = QMessageBox(
            QMessageBox.Icon.Question,
            "Replace files?",
            f"{len(existing)} of {n_files} files exist already in {existing[0].parent.name}: "
            f"{listed([path.name for path in existing])}.",
            parent=self,
        )
        replace = box.addButton("Replace", QMessageBox.ButtonRole.DestructiveRole)
        skip = box.addButton("Skip", QMessageBox.ButtonRole.AcceptRole)
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(skip)
        box.exec()
        answers: dict[Any, list[Path]] = {replace: existing, skip: []}
        return answers.get(box.clickedButton())

    def _on_corrected(self, corrected: Corrected) -> None:
        is_well = corrected.ok and not corrected.warnings
        self.export.tell(str(corrected), "text" if is_well else "warning")
        self._show_state()
        self.corrected.emit(corrected)

    def _say(self, label: WrappedLabel, text: str, tone: str = "text") -> None:
        self.tell(label, text, tone)
        label.setVisible(bool(text))
