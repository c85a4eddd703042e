"""Where the user is in the viewer: a key and clicks, as long as a widget lives, and the pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    from napari.layers import Image

    from napari_mrcz.widgets.base.panel import Panel

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
    """Give row and column of a layer at a position in the world, and how near a click comes there.

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
