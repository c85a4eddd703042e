"""What was done with each layer: it is there again when the layer is picked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mrcz.widgets.outliers.layers import OutlierLayers

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image, Layer

    from napari_mrcz.widgets.outliers.model import Fit

__all__ = ["Work", "Works"]


@dataclass(eq=False)
class Work:
    """The fit of one layer and what shows it.

    Attributes
    ----------
    data : Stack or array-like
        Of the layer, when it was fitted.
    gain : Image or None
        The layer of the gain reference.
    fit : Fit
        With the thresholds as they are now.
    layers : OutlierLayers
        Derived from the layer.
    """

    data: Any
    gain: Image | None
    fit: Fit
    layers: OutlierLayers


class Works:
    """The works of all layers of a viewer, none of layers that are gone or have other data.

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
        self._works: dict[Image, Work] = {}

    def of(self, layer: Image | None) -> Work | None:
        """Give the work of a layer, if it still has the same data."""
        work = None if layer is None else self._works.get(layer)
        return work if work is not None and layer is not None and work.data is layer.data else None

    def keep(self, layer: Image, gain: Image | None, fit: Fit) -> Work:
        """Keep another fit of a layer, and show it there."""
        work = self.of(layer)
        if work is None:
            self.drop(layer)
            layers = OutlierLayers(self._viewer, layer, self._toggled)
            work = self._works[layer] = Work(layer.data, gain, fit, layers)
        work.gain, work.fit = gain, fit
        work.layers.show_fit(fit)
        return work

    def drop(self, layer: Image) -> None:
        """Forget the work of a layer; its corrected movie becomes a layer like any other."""
        work = self._works.pop(layer, None)
        if work is not None:
            work.layers.release()

    def forget(self, layer: Layer) -> None:
        """Let go of a layer that the viewer has no more."""
        for work in self._works.values():
            work.layers.forget(layer)
            if work.gain is layer:
                work.gain = None
        if layer in self._works:
            self.drop(layer)

    def let_go(self) -> None:
        """Hold nothing; what is shown stays."""
        for work in self._works.values():
            work.layers.part()
        self._works.clear()

    def own(self, layer: Layer) -> bool:
        """Tell whether a layer was derived here."""
        return any(work.layers.owns(layer) for work in self._works.values())
