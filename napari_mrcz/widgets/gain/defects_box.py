"""Defective pixels: imported, joined with those of the reference, painted as labels, exported."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QTimer, Slot
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QVBoxLayout,
)

from napari_mrcz.stack.references import read_defects, write_defects
from napari_mrcz.widgets.base.derived import geometry
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import connect_while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.gain.reference_box import FileDrops

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from napari.layers import Image, Labels

    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.gain.model import Shape

_FILES = "Defects (*.txt *.mrc *.mrcz *.tif *.tiff);;All files (*)"
_NAME = "defective pixels"
_REST_MS = 100


class DefectsBox(QGroupBox):
    """Import, show, edit and export defective pixels.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    movie, frames : callable
        Give the image layer whose camera it is, and rows and columns of its frames; or None.
    """

    def __init__(
        self,
        panel: Panel,
        movie: Callable[[], Image | None],
        frames: Callable[[], Shape | None],
    ) -> None:
        super().__init__("Defective pixels")
        self._panel = panel
        self._movie = movie
        self._frames = frames
        self._layer: weakref.ref[Labels] | None = None
        # Counted when the brush rests; some events come before the pixels have changed.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_REST_MS)
        self._soon.timeout.connect(self.refresh)
        self._without_gain: npt.NDArray[np.bool_] | None = None
        self.controls = JobControls(
            panel, "Import…", "Add the pixels of a list of SerialEM or MotionCor, or of a map"
        )
        self.show_button = push_button(
            "Show", "Show them as a labels layer, to be painted and erased with napari's own tools"
        )
        self.export_button = push_button(
            "Export…", "Write them for SerialEM, for MotionCor, or as a map"
        )
        self.join = QCheckBox("with pixels without usable gain")
        self.join.setToolTip("Gain that is 0, negative or no number marks a pixel as defective")
        self.join.setChecked(True)
        self.count = WrappedLabel("How many pixels are defective")
        buttons = QHBoxLayout()
        buttons.addWidget(self.show_button)
        buttons.addWidget(self.export_button)
        column = QVBoxLayout(self)
        column.addWidget(self.controls)
        column.addLayout(buttons)
        column.addWidget(self.join)
        column.addWidget(self.count)
        self.controls.start_button.clicked.connect(self._choose)
        self.show_button.clicked.connect(self.show_layer)
        self.export_button.clicked.connect(self._export)
        self.join.toggled.connect(self._rejoin)
        self.controls.returned.connect(self._on_returned)
        self.controls.ended.connect(self.refresh)
        FileDrops(self).dropped.connect(self.open)
        self.refresh()

    @property
    def layer(self) -> Labels | None:
        """The labels, while they are in the viewer and are those of such frames."""
        layer = None if self._layer is None else self._layer()
        if layer is None or layer not in self._panel.viewer.layers:
            return None
        return layer if self._frames() in (None, layer.data.shape) else None

    def set_without_gain(self, pixels: npt.NDArray[np.bool_] | None) -> None:
        """Show which pixels have no usable gain, as the frames lie; None if it is not known."""
        known, self._without_gain = self._without_gain, pixels
        if known is None or pixels is None or not np.array_equal(known, pixels):
            self._rejoin()

    @Slot(str)
    def open(self, path: str) -> None:
        """Add the pixels of a list or map."""
        frames = self._frames()
        if frames is not None:
            self.controls.run(partial(load, path, frames))
            self.refresh()

    @Slot()
    def show_layer(self) -> None:
        """Show the labels, made where there are none yet."""
        layer, frames = self.layer, self._frames()
        if layer is None and frames is not None:
            self._put(np.zeros(frames, np.uint8))
        elif layer is not None:
            layer.visible = True
            self._panel.viewer.layers.selection.active = layer

    @Slot()
    def refresh(self, event: Any = None) -> None:
        """Count the pixels, and enable what can be used."""
        layer, frames = self.layer, self._frames()
        self.controls.allow("" if frames is not None else "Open or add a movie first.")
        self.show_button.setEnabled(frames is not None)
        pixels = self._joined_pixels
        bad = without = 0 if pixels is None else int(np.count_nonzero(pixels))
        if layer is not None:
            bad, without = count(np.asarray(layer.data))
        said = "" if frames is None else count_text(bad, without, frames[0] * frames[1])
        self._panel.tell(self.count, said)
        self.export_button.setEnabled(bad > 0 and not self.controls.running)

    @property
    def _joined_pixels(self) -> npt.NDArray[np.bool_] | None:
        pixels = self._without_gain
        fits = pixels is not None and pixels.shape == self._frames()
        return pixels if fits and self.join.isChecked() else None

    @Slot()
    def _rejoin(self) -> None:
        layer = self.layer
        if layer is not None:
            self._put(np.asarray(layer.data))
        self.refresh()

    def _put(self, labels: npt.NDArray[Any]) -> None:
        """Show labels, with the pixels without usable gain."""
        movie, layer = self._movie(), self.layer
        if movie is None:
            return
        labels = joined(labels, self._joined_pixels)
        if layer is not None:
            if not np.array_equal(layer.data, labels):
                layer.data = labels
            return
        viewer, colours = self._panel.viewer, self._panel.palette_now
        active = viewer.layers.selection.active
        shown: dict[int | None, str] = {
            None: colours.hot,
            0: "transparent",
            LISTED: colours.hot,
            WITHOUT_GAIN: colours.dark,
        }
        layer = viewer.add_labels(
            labels,
            name=_NAME,
            opacity=1.0,
            colormap=DirectLabelColormap(color_dict=shown),
            **geometry(movie, 2),
        )
        events = layer.events
        for emitter in (events.paint, events.labels_update, events.set_data, events.data):
            connect_while_alive(self, emitter, lambda event: self._soon.start())
        self._layer = weakref.ref(layer)
        viewer.layers.selection.active = active
        self.refresh()

    @Slot(object)
    def _on_returned(self, result: npt.NDArray[np.bool_] | Path) -> None:
        if isinstance(result, Path):
            self.controls.tell(f"Wrote {result.name}.")
            return
        layer = self.layer
        if result.shape != self._frames():
            return  # another movie was picked meanwhile
        self._put(add_listed(None if layer is None else layer.data, result))
        self.controls.tell(f"Read {int(np.count_nonzero(result))} pixels.")

    @Slot()
    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Defective pixels", "", _FILES)
        if path:
            self.open(path)

    @Slot()
    def _export(self) -> None:
        if self.layer is None:
            self.show_layer()
        layer = self.layer
        if layer is None:
            return
        path, shown = QFileDialog.getSaveFileName(
            self, "Export defective pixels", "defects.txt", ";;".join(KINDS)
        )
        if path:
            kind = KINDS[shown]
            mask = np.asarray(layer.data) != 0
            self.controls.run(partial(export, path, mask, kind))
            self.refresh()


LISTED, WITHOUT_GAIN = 1, 2

# What a file dialog offers, and what `write_defects` calls it.
KINDS = {
    "SerialEM and IMOD (*.txt)": "serialem",
    "MotionCor and RELION (*.txt)": "motioncor",
    "Map (*.mrc *.mrcz *.tif)": "map",
}
_SUFFIX = {"serialem": ".txt", "motioncor": ".txt", "map": ".mrc"}


def load(path: str, shape: Shape, report: Report) -> npt.NDArray[np.bool_]:
    """Read a list or map of defective pixels, as the frames lie, (y, x)."""
    report(f"Reading {Path(path).name}", 0, None)
    return read_defects(path, shape)


def export(path: str, mask: npt.NDArray[np.bool_], kind: str, report: Report) -> Path:
    """Write a list or map, with the suffix of its kind where the name has none.

    A file of the very name given is replaced: the file dialog has asked about that one.
    """
    given = Path(path)
    target = given if given.suffix else given.with_suffix(_SUFFIX[kind])
    report(f"Writing {target.name}", 0, None)
    write_defects(target, mask, kind, overwrite=target == given)
    return target


def add_listed(
    labels: npt.NDArray[Any] | None, mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Return labels with the pixels of a list added; those that have one keep it."""
    known = np.zeros(mask.shape, np.uint8) if labels is None else labels.astype(np.uint8)
    known[mask & (known == 0)] = LISTED
    return known


def joined(
    labels: npt.NDArray[Any], without_gain: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.uint8]:
    """Return labels with these pixels without usable gain, and no others.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Others than `WITHOUT_GAIN` stay: they are listed, or painted.
    without_gain : ndarray of bool, shape (y, x), or None
        As the frames lie; None for no pixels.
    """
    known = labels.astype(np.uint8)
    known[known == WITHOUT_GAIN] = 0
    if without_gain is not None:
        known[without_gain & (known == 0)] = WITHOUT_GAIN
    return known


def count(labels: npt.NDArray[Any]) -> tuple[int, int]:
    """Count the defective pixels, and those of them without usable gain."""
    return int(np.count_nonzero(labels)), int(np.count_nonzero(labels == WITHOUT_GAIN))


def count_text(bad: int, without: int, size: int) -> str:
    """Return how many of so many pixels are defective."""
    if not bad:
        return "No defective pixels yet: import a list, or paint them."
    pixels = "pixel" if bad == 1 else "pixels"
    return (
        f"{bad} defective {pixels} ({bad / size:.3%}): {bad - without} listed or painted, "
        f"{without} without usable gain."
    )
