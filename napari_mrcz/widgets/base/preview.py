"""A lazy layer that shows what a correction makes of a movie, and lies where another layer lies."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_mrcz.plugin.layers import widen_contrast_slider

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import napari

_PLACE = ("scale", "units", "translate", "rotate", "shear", "axis_labels")


class PreviewLayer:
    """At most one layer of a viewer; it holds neither that nor what it is made of.

    Parameters
    ----------
    viewer : napari.Viewer
        Where it is shown.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._layer: weakref.ref[Image] | None = None
        self._look: Hashable = None
        self._limits: tuple[float, ...] = ()

    @property
    def layer(self) -> Image | None:
        """The layer, while it is in the viewer."""
        layer = None if self._layer is None else self._layer()
        return layer if layer in self._viewer.layers else None

    def show(
        self,
        data: Any,
        attributes: Mapping[str, Any],
        source: Image | None = None,
        *,
        above: bool = False,
        look: Hashable = None,
    ) -> Image:
        """Show other data; give the layer.

        Parameters
        ----------
        data, attributes
            As `layer_data` gives them.
        source : Image, optional
            The layer where whose data lie these lie.
        above : bool
            A new layer comes just above the source, rather than above all.
        look : hashable
            Contrast that the user has set is kept as long as this is the same.
        """
        layer = self.layer
        if layer is not None and layer.ndim != len(data.shape):
            self.remove()
            layer = None
        limits = tuple(attributes["contrast_limits"])
        if layer is None:
            layer = self._add(data, attributes, source if above else None)
        else:
            layer.data = data
            layer.name = attributes["name"]
            layer.metadata = attributes["metadata"]
            if look != self._look or tuple(layer.contrast_limits) == self._limits:
                layer.contrast_limits_range = limits
                layer.contrast_limits = limits
                widen_contrast_slider(layer)
        self._limits, self._look = limits, look
        if source is None:
            lay(layer, {"translate": np.zeros(layer.ndim), **attributes})
        else:
            place(layer, source)
        return layer

    def holds(self, layer: Any) -> bool:
        """Tell whether it is this layer, in the viewer or about to come or go."""
        return self._layer is not None and self._layer() is layer

    def remove(self) -> None:
        """Take it from the viewer."""
        layer = self.layer
        self._layer = None
        if layer is not None:
            self._viewer.layers.remove(layer)

    def _add(self, data: Any, attributes: Mapping[str, Any], below: Image | None) -> Image:
        layers, layer = self._viewer.layers, Image(data, **attributes)
        self._layer = weakref.ref(layer)  # before anybody asks whether it is held
        first = not layers
        self._viewer.add_layer(layer)
        if below is not None:
            layers.move(layers.index(layer), layers.index(below) + 1)
        widen_contrast_slider(layer)
        if first:
            self._viewer.dims.set_current_step(0, 0)  # napari begins in the middle
        return layer


def geometry(source: Image, ndim: int) -> dict[str, Any]:
    """Give scale, translation and units of a layer, for one of so many of its last axes.

    Axes that the source has not come first, in pixels.
    """
    missing = max(ndim - source.ndim, 0)
    return {
        "units": [*("pixel",) * missing, *source.units][-ndim:],
        "scale": [*(1.0,) * missing, *source.scale][-ndim:],
        "translate": [*(0.0,) * missing, *source.translate][-ndim:],
    }


def place(layer: Any, source: Image) -> None:
    """Lay a layer where another lies."""
    same = layer.ndim == source.ndim
    lay(
        layer,
        {name: getattr(source, name) for name in _PLACE} if same else geometry(source, layer.ndim),
    )


def frame_shown(viewer: napari.Viewer, layer: Image) -> int:
    """Give the index of the frame that the sliders are at, counted through all axes of a layer."""
    if layer not in viewer.layers:  # it is being removed
        return 0
    index = 0
    steps = viewer.dims.current_step[-layer.ndim : -2]
    for step, length in zip(steps, layer.data.shape[:-2], strict=True):
        index = index * length + min(int(step), length - 1)
    return index


def lay(layer: Any, attributes: Mapping[str, Any]) -> None:
    """Set scale, units and position of a layer, where they are others."""
    for name in _PLACE:
        # Setting what is the same would draw the frame once more.
        if name in attributes and not np.array_equal(
            _plain(getattr(layer, name)), _plain(attributes[name])
        ):
            setattr(layer, name, attributes[name])


def _plain(value: Any) -> Any:
    """Give what can be compared: units are set by name, and read as objects."""
    return np.asarray(value).astype(str)
