"""What was done with each layer: it is there again when the layer is picked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mrcz.widgets.base.corrected_layer import CorrectedLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image, Layer

    from napari_mrcz.widgets.microed.model import Center, Fit

__all__ = ["Work", "Works"]


@dataclass(eq=False)
class Work:
    """The beam in one layer, its fit, and the corrected movie.

    Attributes
    ----------
    layer : Image
        Of the movie.
    data : Stack or array-like
        Of the layer, when it was picked.
    center : tuple of float or None
        Of the beam, (y, x) in pixels; None while it is not known.
    fit : Fit or None
        The last one.
    corrected : CorrectedLayer or None
        None where there is no fit, or the user has removed it.
    """

    layer: Image
    data: Any
    center: Center | None = None
    fit: Fit | None = None
    corrected: CorrectedLayer | None = None

    def show_fit(self, viewer: napari.Viewer, fit: Fit, toggled: Callable[[], None]) -> None:
        """Keep another fit, and show what it makes of the movie."""
        self.fit = fit
        if self.corrected is not None:
            self.corrected.show(fit.corrected)
            return
        low, high = self.layer.contrast_limits
        # Else what was cut off would be as black as zeros are.
        self.layer.contrast_limits = (min(low, fit.darkest), high)
        self.corrected = CorrectedLayer(self.layer, fit.corrected, toggled)
        self.corrected.add(viewer)

    def part(self) -> None:
        """Let the corrected movie be a layer like any other."""
        if self.corrected is not None:
            self.corrected.part()
        self.corrected = None


class Works:
    """The works of all layers of a viewer, none of layers that are gone or have other data."""

    def __init__(self) -> None:
        self._works: dict[Image, Work] = {}

    def of(self, layer: Image | None) -> Work | None:
        """Give the work of a layer as it is now, begun where there is none."""
        if layer is None:
            return None
        work = self._works.get(layer)
        if work is None or work.data is not layer.data:
            if work is not None:
                work.part()
            work = self._works[layer] = Work(layer, layer.data)
        return work

    def forget(self, layer: Layer) -> None:
        """Let go of a layer that the viewer has no more."""
        for work in list(self._works.values()):
            if work.layer is layer:
                self._works.pop(layer).part()
            elif work.corrected is not None and work.corrected.layer is layer:
                work.part()
                work.layer.visible = True

    def let_go(self) -> None:
        """Hold nothing; what is shown stays."""
        for work in self._works.values():
            work.part()
        self._works.clear()

    def own(self, layer: Layer) -> bool:
        """Tell whether a layer is a movie that was corrected here."""
        corrected = [work.corrected for work in self._works.values()]
        return any(c is not None and c.layer is layer for c in corrected)
