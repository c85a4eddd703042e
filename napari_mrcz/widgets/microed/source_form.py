"""Which movie, which of its pixels are not valid, and other regions than annuli."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer, Signal, Slot
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.form import form, push_button
from napari_mrcz.widgets.base.layer_picker import LayerPicker
from napari_mrcz.widgets.base.preview import geometry

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from napari.layers import Image

    from napari_mrcz.widgets.base.panel import Panel

_NAME = "beam stop"
# Of the brush that paints it, in the pattern's longer side.
_BRUSH = 1 / 40
_REST_MS = 100


class SourceForm(QWidget):
    """Layer, beam stop, regions.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    accepts : callable
        Tells of an image layer whether it is none that was derived here.

    Attributes
    ----------
    layers, masks, regions : LayerPicker
        Of the patterns; and of labels, or none.
    changed : Signal()
        Other labels were picked, or painted.
    """

    changed = Signal()

    def __init__(self, panel: Panel, accepts: Callable[[Image], bool]) -> None:
        super().__init__()
        self._panel, self._viewer = panel, panel.viewer
        self.layers = LayerPicker(panel, accepts=accepts)
        self.layers.setToolTip("The diffraction patterns; follows the layer selected in the list")
        self.masks = self._labels_picker("none")
        self.masks.setMinimumWidth(90)  # names are cut off rather than the dock made wide
        self.masks.setToolTip(
            "A labels layer: what is painted is not valid, such as the shadow of the beam stop. "
            "These pixels are neither fitted nor changed"
        )
        self.paint_button = push_button(
            "Paint…",
            "Paint the beam stop's shadow with napari's brush, on the labels layer picked or a "
            "new one",
        )
        self.regions = self._labels_picker("annuli about the beam")
        self.regions.setToolTip(
            "Which pixels have the same distribution: annuli, or those of each label of a layer"
        )
        masks = QWidget()
        masks.setToolTip(self.masks.toolTip())
        row = QHBoxLayout(masks)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.masks, stretch=1)
        row.addWidget(self.paint_button)
        self.setLayout(
            form(("Layer", self.layers), ("Beam stop", masks), ("Regions", self.regions))
        )
        # Looked at when the brush rests; some events come before the pixels have changed.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_REST_MS)
        self._soon.timeout.connect(self.changed)
        self.layers.layer_changed.connect(self._on_layer)
        for picker in (self.masks, self.regions):
            picker.layer_changed.connect(lambda layer: self._soon.start())
        self.paint_button.clicked.connect(self.paint)
        self._on_layer()

    @property
    def busy(self) -> bool:
        """Whether what was painted is about to be looked at."""
        return self._soon.isActive()

    @property
    def invalid(self) -> npt.NDArray[np.bool_] | None:
        """Pixels that are not valid, as they are now."""
        labels = _labels(self.masks.layer)
        return None if labels is None else labels != 0

    @property
    def region_labels(self) -> npt.NDArray[Any] | None:
        """Labels in the place of annuli, as they are now."""
        labels = _labels(self.regions.layer)
        return None if labels is None else labels.copy()

    def problem(self) -> str:
        """Say why the layer cannot be fitted, or nothing."""
        layer = self.layers.layer
        if layer is None:
            return "Open or add diffraction patterns first."
        try:
            stack = stack_of_layer(layer)
        except MrczError as error:
            return error_text(error)
        if stack.dtype.kind not in "iuf":
            return "Diffraction patterns are counts, not complex numbers."
        if self.masks.layer is not None and self.masks.layer is self.regions.layer:
            return "The beam stop and the regions are the same layer."
        return ""

    @Slot()
    def paint(self) -> None:
        """Take napari's brush, on the beam stop's layer; made where there is none."""
        movie, layer = self.layers.layer, self.masks.layer
        if movie is None:
            return
        shape = movie.data.shape[-2:]
        if layer is None:
            layer = self._viewer.add_labels(
                np.zeros(shape, np.uint8), name=_NAME, opacity=0.5, **geometry(movie, 2)
            )
            layer.brush_size = max(3, round(max(shape) * _BRUSH))
            self.masks.pick(layer)
        self._viewer.layers.selection.active = layer
        layer.selected_label = 1
        layer.mode = "paint"

    def _labels_picker(self, none: str) -> LayerPicker:
        return LayerPicker(self._panel, accepts=self._fits, none=none, kind=Labels)

    def _fits(self, layer: Labels) -> bool:
        movie = self.layers.layer
        if movie is None or layer.multiscale:
            return False
        shape = layer.data.shape
        fits = shape[-2:] == movie.data.shape[-2:] and all(n == 1 for n in shape[:-2])
        return bool(fits)

    @Slot()
    def _on_layer(self) -> None:
        """Offer the labels that fit these patterns."""
        self.masks.refill()
        self.regions.refill()
        self.paint_button.setEnabled(self.layers.layer is not None)


def _labels(layer: Labels | None) -> npt.NDArray[Any] | None:
    return None if layer is None else np.asarray(layer.data).reshape(layer.data.shape[-2:])
