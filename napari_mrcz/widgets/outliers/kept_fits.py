"""The fit of each layer: it is there again when the layer is picked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mrcz.widgets.outliers.layers import OutlierLayers

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image, Labels, Layer

    from napari_mrcz.widgets.outliers.model import Fit


@dataclass(eq=False)
class KeptFit:
    """The fit of one layer and what shows it.

    Attributes
    ----------
    data : Stack or array-like
        Of the layer, when it was fitted.
    gain : Image or None
        The layer of the gain reference.
    defects : Labels or None
        The layer of known defects.
    fit : Fit
        With the thresholds as they are now.
    layers : OutlierLayers
        Derived from the layer.
    """

    data: Any
    gain: Image | None
    fit: Fit
    layers: OutlierLayers
    defects: Labels | None = None


class KeptFits:
    """The fits of all layers of a viewer, none of layers that are gone or have other data.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers.
    toggled : callable
        Called when one of the derived layers is shown or hidden.
    """

    def __init__(self, viewer: napari.Viewer, toggled: Callable[[], None]) -> None:
        self._viewer = viewer
        self._toggled = toggled
        self._fits: dict[Image, KeptFit] = {}

    def of(self, layer: Image | None) -> KeptFit | None:
        """Return the fit of a layer, if it still has the same data."""
        kept = None if layer is None else self._fits.get(layer)
        return kept if kept is not None and layer is not None and kept.data is layer.data else None

    def keep(
        self, layer: Image, gain: Image | None, fit: Fit, defects: Labels | None = None
    ) -> KeptFit:
        """Keep another fit of a layer, and show it there."""
        kept = self.of(layer)
        if kept is None:
            self.drop(layer)
            layers = OutlierLayers(self._viewer, layer, self._toggled)
            kept = self._fits[layer] = KeptFit(layer.data, gain, fit, layers)
        kept.gain, kept.fit, kept.defects = gain, fit, defects
        kept.layers.show_fit(fit)
        return kept

    def drop(self, layer: Image) -> None:
        """Forget the fit of a layer; its corrected movie becomes a layer like any other."""
        kept = self._fits.pop(layer, None)
        if kept is not None:
            kept.layers.release()

    def forget(self, layer: Layer) -> None:
        """Drop a layer that was removed from the viewer."""
        for kept in self._fits.values():
            kept.layers.forget(layer)
            if kept.gain is layer:
                kept.gain = None
            if kept.defects is layer:
                kept.defects = None
        if layer in self._fits:
            self.drop(layer)

    def let_go(self) -> None:
        """Hold nothing; what is shown stays."""
        for kept in self._fits.values():
            kept.layers.part()
        self._fits.clear()

    def own(self, layer: Layer) -> bool:
        """Return whether a layer was derived here."""
        return any(kept.layers.owns(layer) for kept in self._fits.values())
