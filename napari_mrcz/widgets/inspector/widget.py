"""The "Metadata" dock widget: fields, frames, history and header doctor of a layer."""

from __future__ import annotations

import os
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox, QTabWidget

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.naming import PACKED_SUFFIXES, without_packing
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.form import WrappedLabel, form
from napari_mrcz.widgets.base.job import Job, JobControls, LatestJob
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive
from napari_mrcz.widgets.base.panel import Panel
from napari_mrcz.widgets.inspector.doctor import DoctorView
from napari_mrcz.widgets.inspector.model import (
    NOTHING,
    Inspection,
    Subject,
    as_json,
    check_frames,
    check_header,
    export,
    inspect,
    mend_file,
    replayed,
    save_recipe,
    subject_of,
)
from napari_mrcz.widgets.inspector.views import FieldView, FrameView, HistoryView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari

    from napari_mrcz.format.findings import Finding
    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.stack import VerifyReport
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.inspector.model import Mended

_JOINED = "The layer is joined of several files: open this one alone to fix it in place"
_UNPACK = "The file is packed: fix it in a copy, which is then not packed"
_HEADERS = "MRC files (*.mrc *.mrcs *.mrcz *.map *.st *.rec *.ali *.preali)"
_IN_MEMORY = "These frames are in no file: there is nothing to verify."


class MetadataInspector(Panel):
    """All that a layer's file says, whether it is true, and fixing it where it is not."""

    title = "Metadata"

    looked = Signal(object)  # the findings of the header doctor that are shown
    checked = Signal(object)  # a `VerifyReport` is shown
    mended = Signal(object)  # a file was fixed (`Mended`), and its layers are opened again
    replayed = Signal(object)  # the layer made by a history done again
    recipe_saved = Signal()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.inspection = NOTHING
        self._readers: Readers | None = None
        self._full = False  # all frames were looked at for what the doctor says
        self._done: Callable[[Any], None] = self._on_checked
        self.layers = LayerPicker(self)
        self.layers.setToolTip("The layer that is inspected; it follows the one that is active")
        self.headline = WrappedLabel("What the layer is")
        self.problem = WrappedLabel("What is wrong with the file")
        self.controls = JobControls(
            self,
            "Check all frames",
            "Read every frame, hold it against its checksum, and the header against all of them",
            reserve=2,
        )
        self.fields = FieldView(self)
        self.frames = FrameView()
        self.history = HistoryView(self._other_layers)
        self.doctor = DoctorView(self)
        self.tabs = QTabWidget()
        for view, title, tip in (
            (self.fields, "Fields", "All that the file says, and what it means"),
            (self.frames, "Frames", "Where each frame lies, and whether it is whole"),
            (self.history, "History", "What was done to the frames"),
            (self.doctor, "Doctor", "What the header says wrongly, and fixing it"),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(view, title), tip)
        self.tabs.setDocumentMode(True)
        self.column.setSpacing(4)
        self.column.addLayout(form(("Layer", self.layers)))
        for part in (self.headline, self.problem, self.controls):
            self.column.addWidget(part)
        self.column.addWidget(self.tabs, 1)
        self._inspections, self._looks = LatestJob(self), LatestJob(self)
        self._connect()
        self.apply_palette(self.palette_now)
        self._on_layer()

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        jobs = self._inspections, self._looks, self.fields.searches
        return self.controls.running or any(job.busy for job in jobs)

    def _connect(self) -> None:
        self._inspections.returned.connect(self._on_inspected)
        self._inspections.failed.connect(
            lambda error: self._show(replace(NOTHING, headline=error_text(error)), "error")
        )
        self._looks.returned.connect(self._on_looked)
        self._looks.failed.connect(lambda error: self._on_looked((), error_text(error), "error"))
        self.layers.layer_changed.connect(self._on_layer)
        self.controls.start_button.clicked.connect(self._check)
        self.controls.returned.connect(lambda result: self._done(result))
        self.controls.ended.connect(self._show_state)
        self.fields.copy_button.clicked.connect(self._copy)
        self.fields.export_button.clicked.connect(self._export)
        self.frames.frame_chosen.connect(self._show_frame)
        self.history.layer_chosen.connect(self._replay)
        self.history.recipe_button.clicked.connect(self._save_recipe)
        self.doctor.pixel_size_told.connect(self._look)
        self.doctor.copy_button.clicked.connect(self._mend_in_a_copy)
        self.doctor.in_place_button.clicked.connect(self._mend_in_place)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed):
            connect_while_alive(self, emitter, lambda event=None: self._show_state())

    def _other_layers(self) -> list[Image]:
        picked = self.layers.layer
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        # Movies only: a gain reference, a sum or a layer of outliers is corrected by nothing.
        movies = [layer for layer in images if layer.ndim > 2 and len(layer.data) > 1]
        return [layer for layer in movies if layer is not picked and not layer.rgb]

    def _run(
        self, work: Callable[[Report], Any], done: Callable[[Any], None], *, owned: bool = True
    ) -> None:
        """Do something in a thread, and `done` with its result; unless something runs."""
        if self.controls.running:
            return
        self._done = done
        if owned:
            self.controls.run(work)
        else:  # it is brought to its end even if the dock is closed
            job = Job(work)
            self.controls.attach(job)
            job.start()
        self._show_state()

    @Slot()
    def _show_state(self) -> None:
        """Enable what can be used now, and count in the tabs."""
        wait = "Wait until what is running has ended" if self.controls.running else ""
        table = self.frames.table
        self.controls.allow("" if table is not None else self.frames.summary.text())
        for button in (self.fields.copy_button, self.fields.export_button):
            button.setEnabled(bool(self.fields.sections) and not wait)
        self.history.show_state(wait)
        self.doctor.show_state(wait)
        counts = (
            (self.history, "History", len(self.history.history)),
            (self.doctor, "Doctor", len(self.doctor.findings)),
        )
        for view, title, count in counts:
            self.tabs.setTabText(self.tabs.indexOf(view), f"{title} ({count})" if count else title)

    # Inspecting ---------------------------------------------------------------------------------

    @Slot()
    def _on_layer(self) -> None:
        layer = self.layers.layer
        self._looks.drop()
        if layer is None:
            self._inspections.drop()
            self._show(NOTHING)
            return
        subject = subject_of(layer)
        self.tell(self.headline, f"Reading {Path(subject.path or subject.name).name}…", "muted")
        packed = Path(subject.path).suffix.lower() in PACKED_SUFFIXES
        self.doctor.begin(
            subject.path, _JOINED if len(subject.paths) > 1 else _UNPACK if packed else ""
        )
        self._inspections.request(lambda report: inspect(subject))

    @Slot(object)
    def _on_inspected(self, inspection: Inspection) -> None:
        self._show(inspection)
        if inspection.frames is not None:
            self._look()
        elif inspection.subject.path:
            self.doctor.show_findings((), *(inspection.warnings[:1] or ("No file",)))
            self._show_state()

    def _show(self, inspection: Inspection, tone: str = "text") -> None:
        self.inspection = inspection
        self.tell(self.headline, inspection.headline, tone)
        self.tell(self.problem, "\n".join(map(_sentence, inspection.warnings)), "warning")
        self.problem.setVisible(bool(inspection.warnings))
        table, before = inspection.frames, self.frames.table
        # The same file keeps what is known of its frames.
        if before is None or table is None or not table.is_of_same_file(before):
            self._full = False
            if self._done == self._on_checked:
                self.controls.cancel()
            is_other = before is None or table is None or table.path != before.path
            if is_other and not self.controls.running:
                self.controls.tell("")
            self.frames.show_table(table, _IN_MEMORY if inspection.sections else "No layer")
        self.fields.show_sections(inspection.sections)
        self.history.show_history(inspection.subject.history)
        if not inspection.sections:
            self.doctor.begin("")
        self._show_state()

    @Slot(int)
    def _show_frame(self, frame: int) -> None:
        layer, dims = self.layers.layer, self.viewer.dims
        if layer is None or layer.ndim < 3 or layer.ndim > dims.ndim:
            return
        lengths = layer.data.shape[:-2]
        steps = np.unravel_index(frame % int(np.prod(lengths)), lengths)
        world = layer.data_to_world((*map(int, steps), 0, 0))
        for axis in range(len(steps)):
            dims.set_point(dims.ndim - layer.ndim + axis, world[axis])

    # Frames and header --------------------------------------------------------------------------

    @Slot()
    def _check(self) -> None:
        if self.frames.table is not None:
            path, pixel_size = self.frames.table.path, self.doctor.pixel_size.value()
            self._run(partial(check_frames, path, pixel_size), self._on_checked)

    def _on_checked(self, result: tuple[VerifyReport, tuple[Finding, ...]]) -> None:
        (report, findings), table = result, self.frames.table
        if table is None or table.path != report.path:
            return  # another layer was picked in the moment in which it ended
        if report.error:
            self.controls.tell(report.error, "error")
        else:
            table = table.with_report(report)
            self.frames.show_table(table)
            self.controls.tell(table.verdict(), "error" if table.faults else "text")
            self._full = True
            self._on_looked(findings)
        self.checked.emit(report)

    @Slot()
    def _look(self) -> None:
        """Check the header, and a few frames; or all of them, if all were checked before."""
        inspection = self.inspection
        if inspection.frames is not None:
            path, size = inspection.frames.path, self.doctor.pixel_size.value()
            self._looks.request(partial(check_header, path, self._full, size))

    @Slot(object)
    def _on_looked(self, findings: Any, text: str = "", tone: str = "text") -> None:
        self.doctor.show_findings(findings, text, tone)
        self._show_state()
        self.looked.emit(self.doctor.findings)

    @Slot()
    def _mend_in_a_copy(self) -> None:
        source = Path(self.doctor.path)
        unpacked = without_packing(source)
        beside = unpacked.with_stem(f"{unpacked.stem}-fixed")
        path, _ = QFileDialog.getSaveFileName(self, "Fix in a copy", str(beside), _HEADERS)
        if path and Path(path).exists() and os.path.samefile(path, source):
            self._mend_in_place()
        elif path:
            self._mend(path)

    @Slot()
    def _mend_in_place(self) -> None:
        path, chosen = self.doctor.path, self.doctor.chosen
        lines = "\n".join(f"{f.field}: {f.found} → {f.proposed}" for f in chosen)
        answer = QMessageBox.question(
            self,
            "Fix this file?",
            f"Write another header into {Path(path).name}?\n\n{lines}\n\nThe frames stay as they "
            "are. The file is replaced in one step when the new one is whole and on disk.",
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._readers = Readers(self.viewer, path)
            self._mend(None)

    def _mend(self, target: str | None) -> None:
        layers = [] if target is not None or self._readers is None else self._readers.subjects()
        work = partial(mend_file, self.doctor.path, self.doctor.chosen, target, layers)
        self._run(work, self._on_mended, owned=False)

    def _on_mended(self, mended: Mended) -> None:
        self.controls.tell(str(mended))
        if mended.in_place:
            if self._readers is not None and (error := self._readers.turn_to(mended.layers)):
                said = f"Fixed, but a layer cannot be opened again: {error_text(error)}"
                self.controls.tell(said, "error")
            self._readers = None
            self._on_layer()
        self.mended.emit(mended)

    # History and JSON ---------------------------------------------------------------------------

    @Slot(object)
    def _replay(self, layer: Image) -> None:
        try:
            stack = stack_of_layer(layer)
        except MrczError as error:
            self.controls.tell(error_text(error), "error")
            return
        work = partial(replayed, self.history.history, stack, layer.name)
        self._run(lambda report: work(), partial(self._add_replayed, layer.translate))

    def _add_replayed(self, place: Any, layers: list[LayerData]) -> None:
        added = None
        for data, attributes, _ in layers:
            # One frame has two axes; replayed it is a movie of one.
            translate = (*[0.0] * data.ndim, *place)[-data.ndim :]
            added = self.viewer.add_image(data, **attributes, translate=translate)
        if added is not None:
            self.controls.tell(f"Added as the layer “{added.name}”.")
        self.replayed.emit(added)

    @Slot()
    def _save_recipe(self) -> None:
        path, layer = self._ask("Save recipe", ".toml", "Recipe (*.toml)"), self.layers.layer
        if path and layer is not None:
            path = path if Path(path).suffix else f"{path}.toml"
            self._run(partial(save_recipe, stack_of_layer(layer), path), self._on_recipe)

    def _on_recipe(self, said: str) -> None:
        self.controls.tell(said)
        self.recipe_saved.emit()

    def _json_maker(self) -> Callable[[], str]:
        return partial(as_json, self.inspection, self.doctor.findings, self.frames.table)

    @Slot()
    def _copy(self) -> None:
        make = self._json_maker()
        self._run(lambda report: make(), self._on_json)

    def _on_json(self, text: str) -> None:
        clipboard: Any = QApplication.clipboard()
        clipboard.setText(text)
        lines = text.count("\n")
        self.controls.tell(f"{lines} lines of JSON are on the clipboard.")

    @Slot()
    def _export(self) -> None:
        make, path = self._json_maker(), self._ask("Export as JSON", ".json", "JSON (*.json)")
        if path:
            said = f"Saved as {path}"
            self._run(lambda report: export(path, make()), lambda _: self.controls.tell(said))

    def _ask(self, title: str, suffix: str, kinds: str) -> str:
        """Ask for a file, beside the one that is inspected if nothing else is chosen."""
        subject = self.inspection.subject
        source = Path(subject.path or Path.home() / subject.name)
        beside = str(source.with_name(f"{source.name}{suffix}"))
        path, _ = QFileDialog.getSaveFileName(self, title, beside, kinds)
        return str(path)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


class Readers:
    """The layers of a viewer that read one file; none of them, nor what they show, is kept."""

    def __init__(self, viewer: napari.Viewer, path: str) -> None:
        self._viewer = viewer
        layers = [layer for layer in viewer.layers if _reads(layer, path)]
        if os.name == "nt":  # an open file cannot be replaced there
            for layer in layers:
                _stack(layer.data).close()
        self._layers = [(weakref.ref(layer), weakref.ref(layer.data)) for layer in layers]

    def subjects(self) -> list[Subject]:
        """Return what is known of each."""
        layers = [reference() for reference, _ in self._layers]
        return [subject_of(layer) for layer in layers if layer is not None]

    def turn_to(self, new: Sequence[LayerData | Exception]) -> Exception | None:
        """Show the new file in them, unless they show other data by now.

        What becomes of each comes in the order of `subjects`. Return why one of them cannot.
        """
        problem = None
        for (reference, shown), made in zip(self._layers, new, strict=True):
            layer, data = reference(), shown()
            if isinstance(made, Exception):
                problem = made
            elif layer is not None and layer in self._viewer.layers and layer.data is data:
                stack, attributes, _ = made
                sized_otherwise = _stack(stack).pixel_size != _stack(data).pixel_size
                layer.data = stack
                if sized_otherwise:
                    layer.scale, layer.units = attributes["scale"], attributes["units"]
                layer.metadata = {**layer.metadata, **attributes["metadata"]}
        return problem


def _reads(layer: Any, path: str) -> bool:
    """Return whether a layer shows one file alone, this one."""
    if not isinstance(layer, Image) or layer.rgb or layer.multiscale:
        return False
    stack = _stack(layer.data)
    if not isinstance(stack, Stack) or len(layer.metadata.get("paths", ())) > 1:
        return False
    return stack.path is not None and os.path.realpath(stack.path) == os.path.realpath(path)


def _stack(data: Any) -> Any:
    """Return the stack of which a layer's data consist, cut into movies or volumes or not."""
    return getattr(data, "stack", data)
