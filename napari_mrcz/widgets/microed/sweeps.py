"""What was done with each sweep: it is there again when its layer is picked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mrcz.widgets.base.corrected_layer import CorrectedLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image, Layer

    from napari_mrcz.widgets.microed.model import Center, Fit


@dataclass(eq=False)
class Sweep:
    """A layer with its beam, its fit, and the corrected movie.

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


class Sweeps:
    """The sweeps of a viewer; none of layers that are gone, those of other data begun anew."""

    def __init__(self) -> None:
        self._sweeps: dict[Image, Sweep] = {}

    def of(self, layer: Image | None) -> Sweep | None:
        """Give the sweep of a layer as it is now, begun where there is none."""
        if layer is None:
            return None
        sweep = self._sweeps.get(layer)
        if sweep is None or sweep.data is not layer.data:
            if sweep is not None:
                sweep.part()
            sweep = self._sweeps[layer] = Sweep(layer, layer.data)
        return sweep

    def forget(self, layer: Layer) -> None:
        """Let go of a layer that the viewer has no more."""
        for sweep in list(self._sweeps.values()):
            if sweep.layer is layer:
                self._sweeps.pop(layer).part()
            elif sweep.corrected is not None and sweep.corrected.layer is layer:
                sweep.part()
                sweep.layer.visible = True

    def let_go(self) -> None:
        """Hold nothing; what is shown stays."""
        for sweep in self._sweeps.values():
            sweep.part()
        self._sweeps.clear()

    def own(self, layer: Layer) -> bool:
        """Tell whether a layer is a movie that was corrected here."""
        corrected = [sweep.corrected for sweep in self._sweeps.values()]
        return any(c is not None and c.layer is layer for c in corrected)
