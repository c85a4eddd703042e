"""The "Metadata" dock widget: fields, frames, history and header doctor of a layer."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QFileDialog, QMessageBox, QTabWidget

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.naming import PACKED_SUFFIXES, without_packing
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.job import LatestJob
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.inspector.doctor_view import DoctorView
from napari_mrcz.widgets.inspector.field_view import FieldView, HistoryView
from napari_mrcz.widgets.inspector.frame_view import FrameView
from napari_mrcz.widgets.inspector.model import (
    Inspection,
    Readers,
    as_json,
    check_header,
    inspect,
    replayed,
    save_recipe,
    subject_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_mrcz.format.doctor import Finding
    from napari_mrcz.plugin.layers import LayerData
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.inspector.model import Mended

_JOINED = "The layer is joined of several files: open this one alone to fix it in place"
_UNPACK = "The file is packed: fix it in a copy, which is then not packed"
_HEADERS = "MRC files (*.mrc *.mrcs *.mrcz *.map *.st *.rec *.ali *.preali)"


class MetadataInspector(Panel):
    """All that a layer's file says, whether it is true, and mending it where it is not.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose layers.

    Attributes
    ----------
    inspected : Signal(object)
        An `Inspection` is shown, or None where there is no layer.
    looked : Signal(object)
        The findings of the header doctor are shown.
    mended : Signal(object)
        A file was mended (`Mended`), and its layers are opened again.
    replayed : Signal(object)
        A history was done again: the new layer.
    recipe_saved : Signal()
        A history was saved as a recipe.
    """

    title = "Metadata"

    inspected = Signal(object)
    looked = Signal(object)
    mended = Signal(object)
    replayed = Signal(object)
    recipe_saved = Signal()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self.inspection: Inspection | None = None
        self._readers: Readers | None = None
        self._replaying: Any = None

        self.layers = LayerPicker(self)
        self.layers.setToolTip("The layer that is inspected; it follows the one that is active")
        self.headline = WrappedLabel("What the layer is")
        self.problem = WrappedLabel("What is wrong with the file")
        self.fields = FieldView(self, self._json_maker)
        self.frames = FrameView(self)
        self.history = HistoryView(self, self._other_layers)
        self.doctor = DoctorView(self)
        self.tabs = QTabWidget()
        self._lay_out()

        self._inspections = LatestJob(self)
        self._looks = LatestJob(self)
        self._connect()
        self.apply_palette(self.palette_now)
        self._on_layer()

    @property
    def busy(self) -> bool:
        """Whether something runs."""
        views = self.frames, self.history, self.doctor
        running = self.fields.busy or any(view.controls.running for view in views)
        return running or self._inspections.busy or self._looks.busy

    def apply_palette(self, colours: Palette) -> None:
        """Colour plot and table."""
        self.frames.apply_palette(colours)

    def _lay_out(self) -> None:
        for view, title, tip in (
            (self.fields, "Fields", "All that the file says, and what it means"),
            (self.frames, "Frames", "Where each frame lies, and whether it is whole"),
            (self.history, "History", "What was done to the frames"),
            (self.doctor, "Doctor", "What the header says wrongly, and mending it"),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(view, title), tip)
        self.tabs.setDocumentMode(True)
        for part in (self.layers, self.headline, self.problem):
            self.column.addWidget(part)
        self.column.addWidget(self.tabs, 1)

    def _connect(self) -> None:
        self._inspections.returned.connect(self._on_inspected)
        self._inspections.failed.connect(self._on_not_inspected)
        self._looks.returned.connect(self._on_looked)
        self._looks.failed.connect(self._on_not_looked)
        self.layers.layer_changed.connect(self._on_layer)
        self.fields.export_pressed.connect(self._export)
        self.frames.frame_chosen.connect(self._show_frame)
        self.history.layer_chosen.connect(self._replay)
        self.history.recipe_pressed.connect(self._save_recipe)
        self.history.controls.returned.connect(self._on_history_done)
        self.doctor.looked.connect(self._on_findings)
        self.doctor.pixel_size_told.connect(self._look)
        self.doctor.copy_pressed.connect(self._mend_in_a_copy)
        self.doctor.in_place_pressed.connect(self._mend_in_place)
        self.doctor.mended.connect(self._on_mended)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed):
            connect_while_alive(self, emitter, self._on_layers)

    def _on_layers(self, event: Any = None) -> None:
        self.history.show_state()

    def _other_layers(self) -> list[Image]:
        picked = self.layers.layer
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        # Movies only: a gain reference, a sum or a layer of outliers is corrected by nothing.
        movies = [layer for layer in images if layer.ndim > 2 and len(layer.data) > 1]
        return [layer for layer in movies if layer is not picked and not layer.rgb]

    # Inspecting

    @Slot()
    def _on_layer(self) -> None:
        layer = self.layers.layer
        self._looks.drop()
        if layer is None:
            self._inspections.drop()
            self._show(None)
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
            self.doctor.show_findings("", (), *(inspection.warnings[:1] or ("No file",)))

    @Slot(object)
    def _on_not_inspected(self, error: Exception) -> None:
        self._show(None)
        self.tell(self.headline, error_text(error), "error")

    def _show(self, inspection: Inspection | None) -> None:
        self.inspection = inspection
        no_layer = "Open a movie, or select an image layer, to inspect it."
        self.tell(self.headline, no_layer if inspection is None else inspection.headline)
        problems = () if inspection is None else inspection.warnings
        self.tell(self.problem, "\n".join(map(_sentence, problems)), "warning")
        self.problem.setVisible(bool(problems))
        in_memory = "These frames are in no file: there is nothing to verify."
        if inspection is None:
            self.fields.show_sections(())
            self.frames.show_table(None, "No layer")
            self.history.show_history(())
            self.doctor.begin("")
        else:
            self.fields.show_sections(inspection.sections)
            self.frames.show_table(inspection.frames, in_memory)
            self.history.show_history(inspection.subject.history)
        self._count_in_tabs()
        self.inspected.emit(inspection)

    def _count_in_tabs(self) -> None:
        counts = {
            self.history: ("History", len(self.history.history)),
            self.doctor: ("Doctor", len(self.doctor.findings)),
        }
        for view, (title, count) in counts.items():
            self.tabs.setTabText(self.tabs.indexOf(view), f"{title} ({count})" if count else title)

    @Slot(int)
    def _show_frame(self, frame: int) -> None:
        layer = self.layers.layer
        if layer is None or layer.ndim < 3 or layer.ndim > self.viewer.dims.ndim:
            return
        steps = np.unravel_index(frame % int(np.prod(layer.data.shape[:-2])), layer.data.shape[:-2])
        world = layer.data_to_world((*map(int, steps), 0, 0))
        first = self.viewer.dims.ndim - layer.ndim
        for axis in range(len(steps)):
            self.viewer.dims.set_point(first + axis, world[axis])

    # The header doctor

    @Slot()
    def _look(self) -> None:
        """Check the header, and a few frames."""
        inspection = self.inspection
        if inspection is not None and inspection.frames is not None:
            path = inspection.frames.path
            pixel_size = self.doctor.pixel_size.value()
            self._looks.request(
                lambda report: (path, check_header(path, False, pixel_size, report))
            )

    @Slot(object)
    def _on_looked(self, result: tuple[str, tuple[Finding, ...]]) -> None:
        self.doctor.show_findings(*result)
        self.looked.emit(self.doctor.findings)

    @Slot(object)
    def _on_not_looked(self, error: Exception) -> None:
        self.doctor.show_findings("", (), error_text(error), "error")
        self.looked.emit(())

    @Slot(object)
    def _on_findings(self, findings: Any) -> None:
        self._count_in_tabs()

    @Slot()
    def _mend_in_a_copy(self) -> None:
        source = Path(self.doctor.path)
        unpacked = without_packing(source)
        beside = unpacked.with_stem(f"{unpacked.stem}-fixed")
        path, _ = QFileDialog.getSaveFileName(self, "Fix in a copy", str(beside), _HEADERS)
        if path and Path(path).exists() and os.path.samefile(path, source):
            self._mend_in_place()
        elif path:
            self.doctor.mend(path)

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
        if answer != QMessageBox.StandardButton.Yes:
            return
        self._readers = Readers(self.viewer, path)
        self.doctor.mend(None, self._readers.subjects())

    @Slot(object)
    def _on_mended(self, mended: Mended) -> None:
        if mended.in_place:
            if self._readers is not None and (error := self._readers.turn_to(mended.layers)):
                said = f"Fixed, but a layer cannot be opened again: {error_text(error)}"
                self.doctor.controls.tell(said, "error")
            self._readers = None
            self._on_layer()
        self.mended.emit(mended)

    # History and JSON

    @Slot(object)
    def _replay(self, layer: Image) -> None:
        try:
            stack = stack_of_layer(layer)
        except MrczError as error:
            self.history.controls.tell(error_text(error), "error")
            return
        self._replaying = layer.translate
        work = partial(replayed, self.history.history, stack, layer.name)
        self.history.controls.run(lambda report: work())

    @Slot()
    def _save_recipe(self) -> None:
        inspection, layer = self.inspection, self.layers.layer
        if inspection is None or layer is None:
            return
        beside = self._beside(inspection, ".toml")
        path, _ = QFileDialog.getSaveFileName(self, "Save recipe", beside, "Recipe (*.toml)")
        if path:
            path = path if Path(path).suffix else f"{path}.toml"
            self.history.controls.run(partial(save_recipe, stack_of_layer(layer), path))

    @Slot(object)
    def _on_history_done(self, done: list[LayerData] | str) -> None:
        if isinstance(done, str):
            self.history.controls.tell(done)
            self.recipe_saved.emit()
        else:
            self._add_replayed(done)

    def _add_replayed(self, layers: list[LayerData]) -> None:
        added = None
        for data, attributes, _ in layers:
            # One frame has two axes; replayed it is a movie of one.
            place = (*[0.0] * data.ndim, *self._replaying)[-data.ndim :]
            added = self.viewer.add_image(data, **attributes, translate=place)
        if added is not None:
            self.history.controls.tell(f"Added as the layer “{added.name}”.")
        self.replayed.emit(added)

    def _json_maker(self) -> Callable[[], str]:
        if self.inspection is None:
            return str
        return partial(as_json, self.inspection, self.doctor.findings, self.frames.table)

    @Slot()
    def _export(self) -> None:
        inspection = self.inspection
        if inspection is None:
            return
        beside = self._beside(inspection, ".json")
        path, _ = QFileDialog.getSaveFileName(self, "Export as JSON", beside, "JSON (*.json)")
        if path:
            self.fields.export_to(path)

    @staticmethod
    def _beside(inspection: Inspection, suffix: str) -> str:
        """Propose a name beside the file that is inspected."""
        source = Path(inspection.subject.path or Path.home() / inspection.subject.name)
        return str(source.with_name(f"{source.name}{suffix}"))


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
