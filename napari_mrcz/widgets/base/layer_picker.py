"""Layers of the viewer in a list that follows the selection; keys, clicks, and the pixel there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    import numpy.typing as npt

    from napari_mrcz.widgets.base.panel import Panel


class LayerPicker(QComboBox):
    """Layers by name. Selecting one in the viewer picks it; picking changes nothing there.

    In a dock that is hidden, it follows nothing until `catch_up`; a layer that is removed is let
    go at once. `owner`: the dock widget that it is for, or a viewer; `accepts`: tells of a layer
    whether it may be picked, asked again by `refill`; `none`: what the entry for no layer says,
    where the picker begins then and does not follow the viewer; `kind`: of the layers.
    """

    # Another layer (or None) was picked, or the picked one has other data, scale, units or name,
    # or is being painted.
    layer_changed = Signal(object)

    def __init__(
        self,
        owner: Any,
        *,
        accepts: Callable[[Any], bool] | None = None,
        none: str = "",
        kind: type[Image] | type[Labels] = Image,
    ) -> None:
        super().__init__()
        self._panel = owner if hasattr(owner, "in_front") else None
        self._viewer = viewer = plain_viewer(owner if self._panel is None else owner.viewer)
        self._accepts = accepts or (lambda layer: True)
        self._none = none
        self._kind = kind
        self._layers: list[Any] = []
        self._picked: Any = None
        self._missed = False
        self._changed = _relay(self._on_changed)
        # Long names are cut off rather than making the dock wide.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            connect_while_alive(self, emitter, self._on_layers)
        connect_while_alive(self, viewer.layers.selection.events.active, self._on_active)
        self.activated.connect(self._on_activated)
        self.destroyed.connect(lambda: self._let_go())
        if self._is_passive:
            self._show()
        else:
            self.refill()
            self._follow()

    @property
    def layer(self) -> Any:
        """The layer picked, or None."""
        return self._picked

    def pick(self, layer: Image | Labels | None) -> None:
        """Pick a layer of the viewer, or none."""
        if layer is self._picked:
            return
        _disconnect(self._picked, self._changed)
        self._picked = layer
        for emitter in emitters_of(layer):
            emitter.connect(self._changed)
        self._show()
        self.layer_changed.emit(layer)

    def showPopup(self) -> None:
        """Open the list, with the names that the layers have now."""
        self._show()
        super().showPopup()

    def refill(self) -> None:
        """Take the layers that are accepted now, uppermost first, as napari lists them."""
        if self._is_passive:
            self._missed = True
            return
        layers = [x for x in reversed(self._viewer.layers) if isinstance(x, self._kind)]
        self._layers = [layer for layer in layers if self._accepts(layer)]
        if self._none:
            self._layers.insert(0, None)
        self._show()
        if self._picked not in self._layers:
            active = self._viewer.layers.selection.active
            follows = active in self._layers and not self._none
            self.pick(active if follows else self._layers[0] if self._layers else None)

    def catch_up(self) -> None:
        """Take what has happened while the dock was hidden."""
        missed, self._missed = self._missed, False
        self.refill()
        before = self._picked
        self._follow()
        if missed and self._picked is before:
            self.layer_changed.emit(self._picked)

    @property
    def _is_passive(self) -> bool:
        """Whether the dock that it is in is hidden."""
        return self._panel is not None and not self._panel.in_front

    def _on_layers(self, event: Any = None) -> None:
        if not self._is_passive:
            self.refill()
        elif self._picked is not None and self._picked not in self._viewer.layers:
            self._layers = []
            self.pick(None)

    def _on_active(self, event: Any = None) -> None:
        if not self._is_passive:
            self._follow()

    def _follow(self) -> None:
        active = self._viewer.layers.selection.active
        if active in self._layers and not self._none:
            self.pick(active)

    def _let_go(self) -> None:
        """Keep no layer's file open when the widget is gone but its Python half is not."""
        _disconnect(self._picked, self._changed)
        self._picked, self._layers, self._panel = None, [], None

    def _on_activated(self, at: int) -> None:
        self.pick(self._layers[at])

    def _on_changed(self, event: Any = None) -> None:
        if self._is_passive:
            self._missed = True
            return
        self._show()
        self.layer_changed.emit(self._picked)

    def _show(self) -> None:
        names = [self._none if layer is None else layer.name for layer in self._layers]
        if names != [self.itemText(i) for i in range(self.count())]:
            self.clear()
            self.addItems(names)
        picked = self._picked
        self.setCurrentIndex(self._layers.index(picked) if picked in self._layers else -1)
        self.setEnabled(bool(names))
        self.setPlaceholderText("no image layer")


def plane_of(layer: Image | Labels | None) -> npt.NDArray[Any] | None:
    """Return the rows and columns of a layer that has nothing else; of None None."""
    return None if layer is None else np.asarray(layer.data).reshape(layer.data.shape[-2:])


def plain_viewer(viewer: napari.Viewer) -> napari.Viewer:
    """Return the viewer itself for the proxy that napari gives to plugins.

    The proxy wraps whatever comes from a module called napari..., our own stacks among it.
    """
    return getattr(viewer, "__wrapped__", viewer)


def connect_while_alive(widget: QWidget, emitter: Any, callback: Callable[..., Any]) -> None:
    """Connect to an event of napari until the widget is destroyed, which napari cannot know."""
    relay = _relay(callback)
    emitter.connect(relay)
    widget.destroyed.connect(lambda: emitter.disconnect(relay))


def _relay(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function that calls a method.

    To disconnect, napari compares callbacks, which fails for methods of a widget that is gone.
    """
    return lambda event=None: callback(event)


def emitters_of(layer: Image | Labels | None) -> list[Any]:
    """Return the events after which a layer has another name, place or content; of None none."""
    if layer is None:
        return []
    events = layer.events
    emitters = [events.data, events.name, events.scale, events.units]
    if isinstance(layer, Labels):
        emitters += [events.paint, events.labels_update, events.set_data]
    return emitters


def _disconnect(layer: Image | Labels | None, callback: Callable[..., Any]) -> None:
    for emitter in emitters_of(layer):
        emitter.disconnect(callback)


# A hand moves that much when it clicks, in pixels of the screen.
_TREMBLE = 3
# So near a click comes to what is meant, in pixels of the screen; but in those of the movie at most
_NEAR, _FARTHEST = 6, 32


def bind_while_alive(
    widget: Panel, viewer: napari.Viewer, key: str, callback: Callable[[], None]
) -> None:
    """Bind a key of the viewer; what it was bound to before comes back when the widget is gone."""

    def pressed(viewer: Any) -> None:
        if widget.in_front:
            callback()
        elif previous is not None:  # of another of our docks, as a rule
            previous(viewer)

    def unbind() -> None:
        bound = viewer.bind_key(key, None)
        back = previous if bound is pressed else bound
        if back is not None:
            viewer.bind_key(key, back)

    previous = viewer.bind_key(key, None)
    viewer.bind_key(key, pressed)
    widget.destroyed.connect(unbind)


def on_click_while_alive(
    widget: Panel, viewer: napari.Viewer, callback: Callable[[tuple[float, ...]], None]
) -> None:
    """Call with the position, in the world's coordinates, of each click that drags nothing.

    Only while the widget is in front.
    """

    def pressed(viewer: Any, event: Any) -> Iterator[None]:
        position, start = tuple(event.position), np.array(event.pos)
        apart = 0.0
        yield
        while event.type == "mouse_move":
            apart = max(apart, float(np.abs(np.array(event.pos) - start).max()))
            yield
        layer = viewer.layers.selection.active
        paints = layer is not None and layer.mode != "pan_zoom"
        if (
            widget.in_front
            and apart <= _TREMBLE
            and event.button == 1
            and not event.modifiers
            and not paints
        ):
            callback(position)

    viewer.mouse_drag_callbacks.append(pressed)
    widget.destroyed.connect(lambda: viewer.mouse_drag_callbacks.remove(pressed))


def pixel_at(
    viewer: napari.Viewer, layer: Image, position: tuple[float, ...]
) -> tuple[int, int, int] | None:
    """Return row and column of a layer at a world position, and how near a click comes.

    None outside the image, and where it is not rows and columns that are seen.
    """
    if tuple(viewer.dims.displayed) != (viewer.dims.ndim - 2, viewer.dims.ndim - 1):
        return None
    row, column = (round(float(at)) for at in layer.world_to_data(position)[-2:])
    rows, columns = layer.data.shape[-2:]
    if not (0 <= row < rows and 0 <= column < columns):
        return None
    scene = getattr(viewer, "scene", viewer)  # it moved in napari 0.9
    screen = scene.camera.zoom * abs(float(layer.scale[-1]))
    return row, column, min(round(_NEAR / screen), _FARTHEST)
