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

    While its dock is hidden, it follows nothing until `catch_up`; a layer that is removed is let go
    at once. `accepts`: tells of a layer whether it may be picked, asked again by `refill`; `none`:
    what the entry for no layer says, where the picker begins then and does not follow the viewer;
    `kind`: of the layers. `layer` is the one picked, or None.
    """

    # Another layer (or None) was picked, or the picked one has other data, scale, units or name,
    # or is being painted.
    layer_changed = Signal(object)

    def __init__(
        self,
        panel: Panel,
        *,
        accepts: Callable[[Any], bool] | None = None,
        none: str = "",
        kind: type[Image] | type[Labels] = Image,
    ) -> None:
        super().__init__()
        self._panel, self._none, self._kind = panel, none, kind
        self._accepts = accepts or (lambda layer: True)
        self.layer: Any = None
        self._layers: list[Any] = []
        self._missed = False
        self._changed = lambda event=None: self._on_changed()  # as in `connect_while_alive`
        # Long names are cut off rather than making the dock wide.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setPlaceholderText("no image layer")
        layers = panel.viewer.layers
        for emitter in (layers.events.inserted, layers.events.removed, layers.events.reordered):
            connect_while_alive(self, emitter, self.refill)
        connect_while_alive(self, layers.selection.events.active, self._follow)
        self.activated.connect(lambda at: self.pick(self._layers[at]))
        self.destroyed.connect(lambda: self._let_go())
        self._show()
        if panel.in_front:
            self.catch_up()

    def pick(self, layer: Image | Labels | None) -> None:
        """Pick a layer of the viewer, or none."""
        if layer is self.layer:
            return
        self._leave()
        self.layer = layer
        for emitter in emitters_of(layer):
            emitter.connect(self._changed)
        self._show()
        self.layer_changed.emit(layer)

    def showPopup(self) -> None:
        """Open the list, with the names that the layers have now."""
        self._show()
        super().showPopup()

    def refill(self, event: Any = None) -> None:
        """Take the layers that are accepted now, uppermost first, as napari lists them."""
        known = self._panel.viewer.layers
        if not self._panel.in_front:
            if self.layer is not None and self.layer not in known:
                self._layers = []
                self.pick(None)
            return
        layers = [x for x in reversed(known) if isinstance(x, self._kind) and self._accepts(x)]
        self._layers = [None, *layers] if self._none else layers
        self._show()
        if self.layer not in self._layers:
            first = self._layers[0] if self._layers else None
            self.pick(first if self._active is None else self._active)

    def catch_up(self) -> None:
        """Take what has happened while the dock was hidden."""
        missed, self._missed, before = self._missed, False, self.layer
        self.refill()
        self._follow()
        if missed and self.layer is before:
            self.layer_changed.emit(before)

    @property
    def _active(self) -> Any:
        """The viewer's active layer, if it may be followed to; or None."""
        active = self._panel.viewer.layers.selection.active
        return active if active in self._layers and not self._none else None

    def _follow(self, event: Any = None) -> None:
        if self._panel.in_front and (active := self._active) is not None:
            self.pick(active)

    def _leave(self) -> None:
        for emitter in emitters_of(self.layer):
            emitter.disconnect(self._changed)

    def _let_go(self) -> None:
        """Keep no layer's file open when the widget is gone but its Python half is not."""
        self._leave()
        self.layer, self._layers = None, []

    def _on_changed(self) -> None:
        if self._panel.in_front:
            self._show()
            self.layer_changed.emit(self.layer)
        else:
            self._missed = True

    def _show(self) -> None:
        names = [self._none if layer is None else layer.name for layer in self._layers]
        if names != [self.itemText(i) for i in range(self.count())]:
            self.clear()
            self.addItems(names)
        known = self.layer in self._layers
        self.setCurrentIndex(self._layers.index(self.layer) if known else -1)
        self.setEnabled(bool(names))


def plane_of(layer: Image | Labels | None) -> npt.NDArray[Any] | None:
    """Return the rows and columns of a layer that has nothing else; of None None."""
    return None if layer is None else np.asarray(layer.data).reshape(layer.data.shape[-2:])


def connect_while_alive(widget: QWidget, emitter: Any, callback: Callable[..., Any]) -> None:
    """Connect to an event of napari until the widget is destroyed, which napari cannot know."""

    # To disconnect, napari compares callbacks, which fails for methods of a widget that is gone.
    def relay(event: Any = None) -> None:
        callback(event)

    emitter.connect(relay)
    widget.destroyed.connect(lambda: emitter.disconnect(relay))


def emitters_of(layer: Image | Labels | None) -> list[Any]:
    """Return the events after which a layer has another name, place or content; of None none."""
    if layer is None:
        return []
    events = layer.events
    emitters = [events.data, events.name, events.scale, events.units]
    if isinstance(layer, Labels):
        emitters += [events.paint, events.labels_update, events.set_data]
    return emitters


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
