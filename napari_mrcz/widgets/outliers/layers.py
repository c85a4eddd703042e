"""What the viewer shows of a fit: outliers in colour, their mask, and the corrected movie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_mrcz.widgets.base.corrected_layer import CorrectedLayer
from napari_mrcz.widgets.base.preview import geometry, place

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_mrcz.widgets.outliers.model import Corrected, Fit

# Told apart by colour-blind eyes, upon black, grey and white (Okabe and Ito 2008).
_HOT, _DARK, _DEFECT = "#e69f00", "#56b4e9", "#cc79a7"
_CLEAR = (0.0, 0.0, 0.0, 0.0)
_COLOURS = Colormap(
    [_CLEAR, _CLEAR],
    name="outliers",
    low_color=_DARK,
    high_color=_HOT,
    nan_color=_DEFECT,
)
_LABELS = {None: _CLEAR, 0: _CLEAR, 1: _HOT, 2: _DARK, 3: _DEFECT}


class OutlierLayers:
    """The layers derived from one movie's layer.

    Parameters
    ----------
    viewer : napari.Viewer
        Where they are shown.
    source : Image
        The movie's layer.
    toggled : callable
        Called when a layer is shown or hidden, by whatever means.

    Attributes
    ----------
    sigma : Image or None
        Each pixel's standard deviations, transparent between the thresholds: these are its
        contrast limits, so that moving them needs no other data.
    mask : Labels or None
        1 hot, 2 dark, 3 defect.
    """

    def __init__(self, viewer: napari.Viewer, source: Image, toggled: Callable[[], None]) -> None:
        self._viewer = viewer
        self._source = source
        self._toggled = toggled
        self._corrected: CorrectedLayer | None = None
        self.sigma: Image | None = None
        self.mask: Labels | None = None

    @property
    def corrected(self) -> Image | None:
        """The layer of the movie without outliers."""
        return None if self._corrected is None else self._corrected.layer

    def owns(self, layer: Layer) -> bool:
        """Tell whether a layer is one of these, also while it comes and goes."""
        return layer in (self.sigma, self.corrected, self.mask)

    @property
    def shows_colours(self) -> bool:
        """Whether outliers are coloured."""
        return self.sigma is not None and self.sigma.visible

    @property
    def shows_corrected(self) -> bool:
        """Whether the corrected movie is there and visible."""
        return self._corrected is not None and self._corrected.shows_after

    def show_fit(self, fit: Fit) -> None:
        """Show each pixel's sigma of another fit."""
        if self.sigma is None:
            self.sigma = Image(
                fit.sigma,
                name=f"{self._source.name} outliers (σ)",
                colormap=_COLOURS,
                contrast_limits=fit.current.thresholds[:2],
                blending="translucent",
                **geometry(self._source, 2),
            )
            self.sigma.events.visible.connect(self._on_visible)
            self._add(self.sigma)
        else:
            self.sigma.data = fit.sigma
        self.show_thresholds(fit)

    def show_thresholds(self, fit: Fit) -> None:
        """Colour what lies beyond the thresholds."""
        if self.sigma is not None:
            self.sigma.contrast_limits = fit.current.thresholds[:2]

    def show_corrected(self, corrected: Corrected) -> None:
        """Show another correction of the movie, and its mask if it has one."""
        if self._corrected is None:
            self._corrected = CorrectedLayer(self._source, corrected.stack, self._toggled)
            self._corrected.add(self._viewer)
        else:
            self._corrected.show(corrected.stack)
        self._show_mask(corrected.mask)

    def show_after(self, after: bool) -> None:
        """Show the corrected movie in place of the movie, or the other way round."""
        if self._corrected is not None:
            self._corrected.show_after(after)

    def show_colours(self, shown: bool) -> None:
        """Show or hide the outliers in colour, which cover what is in their place."""
        if self.sigma is not None:
            self.sigma.visible = shown

    def remove_mask(self) -> None:
        """Take the labels away."""
        if self.mask is not None:
            self._viewer.layers.remove(self.mask)

    def place(self) -> None:
        """Lay all of them where the movie lies now."""
        if self._corrected is not None:
            self._corrected.place()
        for layer in (self.sigma, self.mask):
            if layer is not None:
                place(layer, self._source)

    def forget(self, layer: Layer) -> None:
        """Let go of a layer that the viewer has no more."""
        if layer is self.mask:
            self.mask = None
        elif layer is self.sigma:
            self._disconnect_sigma()
            self.sigma = None
        elif layer is self.corrected:
            self._part_corrected()
            self._source.visible = True

    def part(self) -> None:
        """Let the layers be like any others."""
        self._disconnect_sigma()
        self._part_corrected()

    def release(self) -> None:
        """Take away what says nothing without the fit. The corrected movie stays."""
        self.part()
        for layer in (self.sigma, self.mask):
            if layer is not None:
                self._viewer.layers.remove(layer)
        self.sigma = self.mask = None

    def _show_mask(self, mask: Any) -> None:
        if mask is None:
            return
        if self.mask is not None:
            self.mask.data = mask
            return
        self.mask = Labels(
            mask,
            name=f"{self._source.name} outlier mask",
            colormap=DirectLabelColormap(color_dict=_LABELS),
            features={"index": [0, 1, 2, 3], "kind": ["good", "hot", "dark", "defect"]},
            **geometry(self._source, 2),
        )
        self._add(self.mask)

    def _add(self, layer: Layer) -> None:
        """Add a layer; the active one stays active."""
        layers = self._viewer.layers
        active = layers.selection.active
        layers.append(layer)
        layers.selection.active = active

    def _on_visible(self, event: Any = None) -> None:
        self._toggled()

    def _disconnect_sigma(self) -> None:
        if self.sigma is not None:
            self.sigma.events.visible.disconnect(self._on_visible)

    def _part_corrected(self) -> None:
        if self._corrected is not None:
            self._corrected.part()
        self._corrected = None
