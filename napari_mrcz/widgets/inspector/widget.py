"""The "Metadata" dock widget: fields, frames, history and header doctor of a layer."""

from __future__ import annotations

import os
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Slot
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox, QTabWidget

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.naming import PACKED_SUFFIXES, without_packing
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.form import WrappedLabel, form, show_number
from napari_mrcz.widgets.base.job import Job, JobControls, LatestJob
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive
from napari_mrcz.widgets.base.panel import Panel
from napari_mrcz.widgets.inspector import model
from napari_mrcz.widgets.inspector.model import NOTHING, Inspection, Subject
from napari_mrcz.widgets.inspector.views import DoctorView, FieldView, FrameView, HistoryView

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari
    from qtpy.QtGui import QClipboard

    from napari_mrcz.format.findings import Finding
    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.stack import VerifyReport
    from napari_mrcz.widgets.base.job import Report

    Reader = tuple[weakref.ref[Image], weakref.ref[Any], Subject]

_JOINED = "The layer is joined of several files: open this one alone to fix it in place"
_UNPACK = "The file is packed: fix it in a copy, which is then not packed"
_HEADERS = "MRC files (*.mrc *.mrcs *.mrcz *.map *.st *.rec *.ali *.preali)"
_IN_MEMORY = "These frames are in no file: there is nothing to verify."


class MetadataInspector(Panel):
    """All that a layer's file says, whether it is true, and fixing it where it is not."""

    title = "Metadata"

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.inspection = NOTHING
        self._done: Callable[[Any], None] = self._on_checked  # takes the result of what runs
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
        self.history = HistoryView(self._other_movies)
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
        self._inspections.returned.connect(self._on_inspected)
        self._inspections.failed.connect(
            lambda error: self._show(replace(NOTHING, headline=error_text(error)), "error")
        )
        self._looks.returned.connect(self._show_findings)
        self._looks.failed.connect(
            lambda error: self._show_findings((), error_text(error), "error")
        )
        self.layers.layer_changed.connect(self._on_layer)
        self.controls.start_button.clicked.connect(self._check)
        self.controls.returned.connect(lambda result: self._done(result))
        self.controls.ended.connect(self._show_state)
        self.fields.copy_button.clicked.connect(self._copy)
        self.fields.export_button.clicked.connect(self._export)
        self.frames.list.doubleClicked.connect(lambda index: self._show_frame(index.row()))
        self.history.layer_chosen.connect(self._replay)
        self.history.recipe_button.clicked.connect(self._save_recipe)
        self.doctor.ticked.connect(self._show_state)
        self.doctor.pixel_size.valueChanged.connect(self._look)
        self.doctor.copy_button.clicked.connect(self._mend_in_a_copy)
        self.doctor.in_place_button.clicked.connect(self._mend_in_place)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed):
            connect_while_alive(self, emitter, lambda event=None: self._show_state())
        self.apply_palette(self.palette_now)
        self._on_layer()

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        waits = self._inspections.busy or self._looks.busy or self.fields.searches.busy
        return self.controls.running or waits

    def _other_movies(self) -> list[Image]:
        """Return movies: a gain reference, a sum or a layer of outliers is corrected by nothing."""
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        movies = [layer for layer in images if layer.ndim > 2 and len(layer.data) > 1]
        return [layer for layer in movies if layer is not self.layers.layer and not layer.rgb]

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
        table, subject = self.frames.model.table, self.inspection.subject
        self.controls.allow("" if table is not None else self.frames.summary.text())
        for button in (self.fields.copy_button, self.fields.export_button):
            button.setEnabled(bool(self.inspection.sections) and not wait)
        self.history.show_state(wait)
        packed = Path(subject.description.path).suffix.lower() in PACKED_SUFFIXES
        not_in_place = _JOINED if len(subject.paths) > 1 else _UNPACK if packed else ""
        self.doctor.show_state(wait, not_in_place)
        counts = (
            (self.history, "History", len(subject.description.history)),
            (self.doctor, "Doctor", len(self.doctor.findings)),
        )
        for view, title, count in counts:
            self.tabs.setTabText(self.tabs.indexOf(view), f"{title} ({count})" if count else title)

    # Inspecting ---------------------------------------------------------------------------------

    @Slot()
    def _on_layer(self) -> None:
        layer = self.layers.layer
        self._looks.drop()
        self._inspections.drop()
        subject = NOTHING.subject if layer is None else model.subject_of(layer)
        path = subject.description.path
        if path != self.inspection.subject.description.path:  # what was told is of another file
            show_number(self.doctor.pixel_size, 0, 0, self.doctor.pixel_size.maximum())
            if not self.controls.running:
                self.controls.tell("")
        if layer is None:
            self._show(NOTHING)
            return
        self._show_findings((), "Checking…" if path else "No file")
        self.tell(self.headline, f"Reading {Path(path or subject.name).name}…", "muted")
        self._inspections.request(lambda report: model.inspect(subject))

    @Slot(object)
    def _on_inspected(self, inspection: Inspection) -> None:
        self._show(inspection)
        if inspection.frames is not None:
            self._look()
        elif inspection.subject.description.path:
            self._show_findings((), *(inspection.warnings[:1] or ("No file",)))

    def _show(self, inspection: Inspection, tone: str = "text") -> None:
        self.inspection = inspection
        self.tell(self.headline, inspection.headline, tone)
        said = [w[:1].upper() + w[1:].removesuffix(".") + "." for w in inspection.warnings]
        self.tell(self.problem, "\n".join(said), "warning")
        self.problem.setVisible(bool(said))
        table, before = inspection.frames, self.frames.model.table
        file, shown = ((t.path, t.stamp) if t is not None else None for t in (table, before))
        if file is None or file != shown:  # else the same file keeps what is known of its frames
            if self._done == self._on_checked:
                self.controls.cancel()
            self.frames.show_table(table, _IN_MEMORY if inspection.sections else "No layer")
        self.fields.show_sections(inspection.sections)
        self.history.show_history(inspection.subject.description.history)
        if not inspection.sections:
            self.doctor.show_findings((), "No file")
        self._show_state()

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
        if self.frames.model.table is not None:
            path, pixel_size = self.frames.model.table.path, self.doctor.pixel_size.value()
            self._run(partial(model.check_frames, path, pixel_size), self._on_checked)

    def _on_checked(self, result: tuple[VerifyReport, tuple[Finding, ...]]) -> None:
        (report, findings), table = result, self.frames.model.table
        if table is None or table.path != report.path:
            return  # another layer was picked in the moment in which it ended
        if report.error:
            self.controls.tell(report.error, "error")
            return
        table = replace(table, report=report)
        self.frames.show_table(table)
        self.controls.tell(table.verdict(), "text" if report else "error")
        self._show_findings(findings)

    @Slot()
    def _look(self) -> None:
        """Check the header, and a few frames; or all of them, if all were checked before."""
        table = self.frames.model.table
        if table is not None:
            full, size = table.report is not None, self.doctor.pixel_size.value()
            self._looks.request(partial(model.check_header, table.path, full, size))

    @Slot(object)
    def _show_findings(
        self, findings: Sequence[Finding], text: str = "", tone: str = "text"
    ) -> None:
        self.doctor.show_findings(findings, text, tone)
        self._show_state()

    @Slot()
    def _mend_in_a_copy(self) -> None:
        source = Path(self.inspection.subject.description.path)
        unpacked = without_packing(source)
        beside = unpacked.with_stem(f"{unpacked.stem}-fixed")
        path, _ = QFileDialog.getSaveFileName(self, "Fix in a copy", str(beside), _HEADERS)
        if path and Path(path).exists() and os.path.samefile(path, source):
            self._mend_in_place()
        elif path:
            self._mend(path, [])

    @Slot()
    def _mend_in_place(self) -> None:
        path, chosen = self.inspection.subject.description.path, self.doctor.chosen
        lines = "\n".join(f"{f.field}: {f.found} → {f.proposed}" for f in chosen)
        answer = QMessageBox.question(
            self,
            "Fix this file?",
            f"Write another header into {Path(path).name}?\n\n{lines}\n\nThe frames stay as they "
            "are. The file is replaced in one step when the new one is whole and on disk.",
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._mend(None, self._readers(path))

    def _readers(self, path: str) -> list[Reader]:
        """Return layers that show this file alone, and what they show; nothing of them is kept."""
        found: list[Reader] = []
        for layer in self.viewer.layers:
            stack = _stack_in(layer)
            one = stack is not None and stack.path and len(layer.metadata.get("paths", ())) <= 1
            if one and os.path.realpath(stack.path) == os.path.realpath(path):
                if os.name == "nt":  # an open file cannot be replaced there
                    stack.close()
                subject = model.subject_of(layer)
                found.append((weakref.ref(layer), weakref.ref(layer.data), subject))
        return found

    def _mend(self, target: str | None, readers: Sequence[Reader]) -> None:
        path, chosen = self.inspection.subject.description.path, self.doctor.chosen
        work = partial(model.mend_file, path, chosen, target, [known for *_, known in readers])

        def mended(result: Any) -> None:
            changes, reopened = result
            where = "in place" if target is None else f"in {Path(target).name}"
            self.controls.tell("\n".join([f"Fixed {where}:", *map(str, changes)]))
            for (layer, data, _), new in zip(readers, reopened, strict=True):
                if isinstance(new, Exception):
                    said = f"Fixed, but a layer cannot be opened again: {error_text(new)}"
                    self.controls.tell(said, "error")
                else:
                    self._turn_to(layer(), data(), new)
            if target is None:
                self._on_layer()

        self._run(work, mended, owned=False)

    def _turn_to(self, layer: Any, shown: Any, new: LayerData) -> None:
        """Show a new file in a layer, unless it is gone or shows other data by now."""
        if layer in self.viewer.layers and layer.data is shown:
            before = _stack_in(layer).pixel_size
            layer.data, attributes, _ = new
            if _stack_in(layer).pixel_size != before:
                layer.scale, layer.units = attributes["scale"], attributes["units"]
            layer.metadata = {**layer.metadata, **attributes["metadata"]}

    # History and JSON ---------------------------------------------------------------------------

    @Slot(object)
    def _replay(self, layer: Image) -> None:
        try:
            stack = stack_of_layer(layer)
        except MrczError as error:
            self.controls.tell(error_text(error), "error")
            return
        history, name = self.inspection.subject.description.history, layer.name
        self._run(
            lambda report: model.replayed(history, stack, name),
            partial(self._add_replayed, layer.translate),
        )

    def _add_replayed(self, place: Any, layers: list[LayerData]) -> None:
        for data, attributes, _ in layers:
            # One frame has two axes; replayed it is a movie of one.
            translate = (*[0.0] * data.ndim, *place)[-data.ndim :]
            added = self.viewer.add_image(data, **attributes, translate=translate)
            self.controls.tell(f"Added as the layer “{added.name}”.")

    @Slot()
    def _save_recipe(self) -> None:
        path, layer = self._ask("Save recipe", ".toml", "Recipe (*.toml)"), self.layers.layer
        if path and layer is not None:
            path, stack = path if Path(path).suffix else f"{path}.toml", stack_of_layer(layer)
            self._run(lambda report: model.save_recipe(stack, path), self.controls.tell)

    @Slot()
    def _copy(self) -> None:
        clipboard = cast("QClipboard", QApplication.clipboard())

        def copied(text: str) -> None:
            clipboard.setText(text)
            lines = text.count("\n")
            self.controls.tell(f"{lines} lines of JSON are on the clipboard.")

        self._make_json("", copied)

    @Slot()
    def _export(self) -> None:
        if path := self._ask("Export as JSON", ".json", "JSON (*.json)"):
            self._make_json(path, lambda text: self.controls.tell(f"Saved as {path}"))

    def _make_json(self, path: str, done: Callable[[str], None]) -> None:
        known = self.inspection, self.doctor.findings, self.frames.model.table
        self._run(lambda report: model.as_json(*known, path), done)

    def _ask(self, title: str, suffix: str, kinds: str) -> str:
        """Ask for a file, beside the one that is inspected if nothing else is chosen."""
        subject = self.inspection.subject
        source = Path(subject.description.path or Path.home() / subject.name)
        beside = str(source.with_name(f"{source.name}{suffix}"))
        path, _ = QFileDialog.getSaveFileName(self, title, beside, kinds)
        return str(path)


def _stack_in(layer: Any) -> Any:
    """Return the stack that a layer shows, cut into movies or volumes or not; else None."""
    if not isinstance(layer, Image) or layer.rgb or layer.multiscale:
        return None
    stack = getattr(layer.data, "stack", layer.data)
    return stack if isinstance(stack, Stack) else None
