"""What outliers are looked for in: the movie, its gain reference, the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QWidget

from napari_mrcz.errors import MrczError
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.texts import error_text
from napari_mrcz.widgets.base.fields import choice_field, form, number_field
from napari_mrcz.widgets.base.layer_picker import LayerPicker
from napari_mrcz.widgets.outliers.model import FitOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image


__all__ = ["SourceForm"]

_MODELS = (
    ("Poisson, by neighbours", "poisson"),
    ("Normal, the preprint's", "normal"),
)


class SourceForm(QWidget):
    """Layer, gain layer, model and limit.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers.
    accepts : callable
        Tells of an image layer whether it is none that was derived here.

    Attributes
    ----------
    layers, gains : LayerPicker
        Of the movie, and of the gain reference.
    changed : Signal()
        Something else was chosen than the movie.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer, accepts: Callable[[Image], bool]) -> None:
        super().__init__()
        self._accepts = accepts
        self.layers = LayerPicker(viewer, accepts=accepts)
        self.layers.setToolTip("The movie; follows the layer selected in the list")
        self.gains = LayerPicker(viewer, accepts=self._is_gain, none="none")
        self.gains.setToolTip(
            "A gain reference that counts are multiplied by before outliers are looked for: an "
            "image layer of the movie's rows and columns. Leave it at none for corrected movies"
        )
        self.model = choice_field(
            _MODELS,
            "Poisson compares each pixel with its neighbours and mistakes the fewest pixels. "
            "Normal is the preprint's: one distribution for the whole image",
        )
        self.limit = number_field(
            (0.05, 5.0), 0.05, " σ", "Residual from which on a tail's line is fitted (eq. 5)"
        )
        self.show_options(FitOptions())
        self.setLayout(
            form(
                ("Layer", self.layers),
                ("Gain", self.gains),
                ("Model", self.model),
                ("Tail limit", self.limit),
            )
        )
        self.layers.layer_changed.connect(self._on_layer)
        self.gains.layer_changed.connect(self.changed)
        self.model.currentIndexChanged.connect(self.changed)
        self.limit.valueChanged.connect(self.changed)
        self._on_layer()

    @property
    def gain(self) -> Any:
        """Data of the gain layer, or None."""
        layer = self.gains.layer
        return None if layer is None else layer.data

    def show_options(self, options: FitOptions) -> None:
        """Choose these; nothing is emitted."""
        for field in (self.model, self.limit):
            field.blockSignals(True)
        self.model.setCurrentIndex(self.model.findData(options.model))
        self.limit.setValue(options.limit)
        for field in (self.model, self.limit):
            field.blockSignals(False)

    def problem(self) -> str:
        """Say why outliers cannot be looked for in the layer, or nothing."""
        layer = self.layers.layer
        if layer is None:
            return "Open or add a movie first."
        try:
            stack_of_layer(layer)
        except MrczError as error:
            return error_text(error)
        return ""

    def _is_gain(self, layer: Image) -> bool:
        movie = getattr(self, "layers", None)
        movie = None if movie is None else movie.layer
        if movie is None or layer is movie or layer.rgb or layer.multiscale:
            return False
        shape = layer.data.shape
        fits = shape[-2:] == movie.data.shape[-2:] and all(n == 1 for n in shape[:-2])
        return bool(fits and self._accepts(layer))

    @Slot()
    def _on_layer(self) -> None:
        """Offer the gain references that fit this movie."""
        self.gains.refill()
