"""What outliers are looked for in: the movie, its gain reference and defects, the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_mrcz.errors import MrczError, error_text
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.stack.references import read_defects
from napari_mrcz.widgets.base.fields import choice_field, form, number_field
from napari_mrcz.widgets.base.job_controls import JobControls
from napari_mrcz.widgets.base.layer_picker import LayerPicker
from napari_mrcz.widgets.base.preview import geometry
from napari_mrcz.widgets.outliers.model import FitOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from napari.layers import Image

    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.panel import Panel

_MODELS = (
    ("Poisson, by neighbours", "poisson"),
    ("Normal, the preprint's", "normal"),
)
_FILES = "Defects (*.txt *.mrc *.mrcz *.tif *.tiff *.gain *.dm3 *.dm4);;All files (*)"
_MEASURED = "measured"
_MOST = 1e6


class SourceForm(QWidget):
    """Layers of movie, gain and defects, model and limit, electrons and pedestal.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    accepts : callable
        Tells of an image layer whether it is none that was derived here.

    Attributes
    ----------
    layers, gains, defects : LayerPicker
        Of the movie, of the gain reference, and of labels that mark known defects.
    load : JobControls
        Reads a defect file into a labels layer.
    changed : Signal()
        Something else was chosen than the movie.
    """

    changed = Signal()

    def __init__(self, panel: Panel, accepts: Callable[[Any], bool]) -> None:
        super().__init__()
        self._accepts = accepts
        self._panel = panel
        self._viewer = panel.viewer
        self.layers = LayerPicker(panel, accepts=accepts)
        self.layers.setToolTip("The movie; follows the layer selected in the list")
        self.gains = LayerPicker(panel, accepts=self._is_gain, none="none")
        self.gains.setToolTip(
            "A gain reference that counts are multiplied by before outliers are looked for: an "
            "image layer of the movie's rows and columns. Leave it at none for corrected movies"
        )
        self.defects = LayerPicker(panel, accepts=self._is_mask, none="none", kind=Labels)
        self.defects.setToolTip(
            "Pixels known to be defective, replaced in every frame whatever the fit finds: a "
            "labels layer of the movie's rows and columns, painted or loaded"
        )
        self.load = JobControls(
            panel,
            "Load defects…",
            "Read a list of SerialEM, RELION or MotionCor, or a map, as a labels layer",
        )
        self.model = choice_field(
            _MODELS,
            "Poisson compares each pixel with its neighbours and mistakes the fewest pixels. "
            "Normal is the preprint's: one distribution for the whole image",
        )
        self.limit = number_field(
            (0.05, 5.0), 0.05, " σ", "Residual from which on a tail's line is fitted (eq. 5)"
        )
        self.per_electron = number_field(
            (0.0, _MOST), 1.0, "", "Counts that one electron adds; 0 to measure it from the noise"
        )
        self.pedestal = number_field(
            (-1.0, _MOST),
            1.0,
            "",
            "Counts of a pixel without electrons in one frame, as integrating cameras add them; "
            "-1 to measure it from the noise",
        )
        for field in (self.per_electron, self.pedestal):
            field.setSpecialValueText(_MEASURED)
        self.show_options(FitOptions())
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addLayout(
            form(
                ("Layer", self.layers),
                ("Gain", self.gains),
                ("Defects", self.defects),
                ("", self.load),
                ("Model", self.model),
                ("Tail limit", self.limit),
                ("Counts per e⁻", self.per_electron),
                ("Pedestal", self.pedestal),
            )
        )
        self.layers.layer_changed.connect(self._on_layer)
        self.gains.layer_changed.connect(self.changed)
        self.defects.layer_changed.connect(self.changed)
        self.load.start_button.clicked.connect(self._choose)
        self.load.returned.connect(self._on_loaded)
        self.model.currentIndexChanged.connect(self.changed)
        for field in (self.limit, self.per_electron, self.pedestal):
            field.valueChanged.connect(self.changed)
        self._on_layer()

    @property
    def gain(self) -> Any:
        """Data of the gain layer, or None."""
        layer = self.gains.layer
        return None if layer is None else layer.data

    @property
    def known_defects(self) -> npt.NDArray[np.bool_] | None:
        """Known defects, (y, x); None without a layer of them."""
        layer = self.defects.layer
        return None if layer is None else np.asarray(layer.data).reshape(layer.data.shape[-2:]) != 0

    @property
    def options(self) -> dict[str, Any]:
        """What is chosen, of `FitOptions`."""
        electron, pedestal = self.per_electron.value(), self.pedestal.value()
        return {
            "model": self.model.currentData(),
            "limit": self.limit.value(),
            "counts_per_electron": electron if electron > self.per_electron.minimum() else None,
            "pedestal": pedestal if pedestal > self.pedestal.minimum() else None,
        }

    def show_options(self, options: FitOptions) -> None:
        """Choose these; nothing is emitted."""
        fields = (self.model, self.limit, self.per_electron, self.pedestal)
        for field in fields:
            field.blockSignals(True)
        self.model.setCurrentIndex(self.model.findData(options.model))
        self.limit.setValue(options.limit)
        electron, pedestal = options.counts_per_electron, options.pedestal
        self.per_electron.setValue(self.per_electron.minimum() if electron is None else electron)
        self.pedestal.setValue(self.pedestal.minimum() if pedestal is None else pedestal)
        for field in fields:
            field.blockSignals(False)

    @Slot(str)
    def open(self, path: str) -> None:
        """Read a defect file for the movie picked."""
        movie = self.layers.layer
        if movie is not None:
            self.load.run(partial(_load, path, movie.data.shape[-2:]))

    def problem(self) -> str:
        """Return why outliers cannot be looked for in the layer, or nothing."""
        layer = self.layers.layer
        if layer is None:
            return "Open or add a movie first."
        try:
            stack_of_layer(layer)
        except MrczError as error:
            return error_text(error)
        return ""

    def _is_gain(self, layer: Image) -> bool:
        return not layer.rgb and self._fits(layer)

    def _is_mask(self, layer: Labels) -> bool:
        return self._fits(layer)

    def _fits(self, layer: Any) -> bool:
        """Return whether a layer is an image of the movie's rows and columns, and not derived."""
        movie = getattr(self, "layers", None)
        movie = None if movie is None else movie.layer
        if movie is None or layer is movie or layer.multiscale:
            return False
        shape = layer.data.shape
        fits = shape[-2:] == movie.data.shape[-2:] and all(n == 1 for n in shape[:-2])
        return bool(fits and self._accepts(layer))

    @Slot()
    def _on_layer(self) -> None:
        """Offer the gain references and defects that fit this movie."""
        self.gains.refill()
        self.defects.refill()
        self.load.allow("" if self.layers.layer is not None else "Open or add a movie first.")

    @Slot()
    def _choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Defective pixels", "", _FILES)
        if path:
            self.open(path)

    @Slot(object)
    def _on_loaded(self, loaded: tuple[str, npt.NDArray[np.bool_]]) -> None:
        """Show what was read as labels, to be painted with napari's own tools, and pick them."""
        self._panel.when_in_front("defects", partial(self._add_labels, loaded))

    def _add_labels(self, loaded: tuple[str, npt.NDArray[np.bool_]]) -> None:
        name, mask = loaded
        movie = self.layers.layer
        if movie is None or mask.shape != movie.data.shape[-2:]:
            return  # another movie was picked meanwhile
        layers = self._viewer.layers
        active = layers.selection.active
        labels = self._viewer.add_labels(mask.astype(np.uint8), name=name, **geometry(movie, 2))
        layers.selection.active = active
        self.defects.pick(labels)
        self.load.tell(f"{int(np.count_nonzero(mask)):,} defective pixels.")


def _load(path: str, shape: tuple[int, int], report: Report) -> tuple[str, npt.NDArray[np.bool_]]:
    report(f"Reading {Path(path).name}", 0, None)
    return Path(path).name, read_defects(path, shape)
