"""The viewer's open movies as stacks of a session, followed as their layers change and go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

from napari_mrcz.errors import MrczError
from napari_mrcz.plugin.layers import StackSeries, stack_of_layer
from napari_mrcz.widgets.base.layer_picker import connect_while_alive
from napari_mrcz.widgets.koma.model import movies_in
from napari_mrcz.widgets.koma.reading import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from qtpy.QtWidgets import QWidget

_KOMA = "KomaNormalization"


class LayerEntries(QObject):
    """Entries that stand for layers.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers.
    parent : QWidget
        The dock widget; when it goes, the layers are let go.

    Attributes
    ----------
    removed : Signal(object)
        The layer of an entry is gone, and so is the entry.
    replaced : Signal(object, object)
        The layer of an entry has other frames, scale or units: (the entry, one in its place).
    renamed : Signal()
        An entry has another name.
    """

    removed = Signal(object)
    replaced = Signal(object, object)
    renamed = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QWidget) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layers: dict[Entry, Image] = {}
        self._relays: dict[Image, tuple[Callable[..., Any], Callable[..., Any]]] = {}
        connect_while_alive(parent, viewer.layers.events.removed, self._on_removed)
        parent.destroyed.connect(lambda: self._let_go())

    def open_movies(self) -> list[Entry]:
        """Return the movies open now that are no entries yet, first opened first."""
        known = set(map(id, self._layers.values()))
        entries = []
        for layer in self._viewer.layers:
            if not isinstance(layer, Image) or id(layer) in known:
                continue
            if isinstance(layer.data, StackSeries):
                # Movies dropped together: each is a stack of the session.
                entries += movies_in(layer.metadata.get("paths", ()))
            elif (entry := _entry_of(layer)) is not None:
                self._follow(layer, entry)
                entries.append(entry)
        return entries

    def layer_of(self, entry: Entry) -> Image | None:
        """Return the layer that an entry stands for, if it does."""
        return self._layers.get(entry)

    def forget(self, entry: Entry) -> None:
        """Follow the layer of an entry no longer."""
        layer = self._layers.pop(entry, None)
        if layer is not None:
            self._unfollow(layer)

    def _follow(self, layer: Image, entry: Entry) -> None:
        self._layers[entry] = layer
        # Plain functions: napari fails to compare methods of a widget that is gone.
        changed = lambda event=None: self._on_changed(layer)  # noqa: E731
        renamed = lambda event=None: self._on_renamed(layer)  # noqa: E731
        for emitter in (layer.events.data, layer.events.scale, layer.events.units):
            emitter.connect(changed)
        layer.events.name.connect(renamed)
        self._relays[layer] = changed, renamed

    def _unfollow(self, layer: Image) -> None:
        changed, renamed = self._relays.pop(layer)
        for emitter in (layer.events.data, layer.events.scale, layer.events.units):
            emitter.disconnect(changed)
        layer.events.name.disconnect(renamed)

    def _entry(self, layer: Image) -> Entry:
        return next(entry for entry, known in self._layers.items() if known is layer)

    def _on_changed(self, layer: Image) -> None:
        old = self._entry(layer)
        self.forget(old)
        new = _entry_of(layer)
        if new is None:
            self.removed.emit(old)
            return
        self._follow(layer, new)
        self.replaced.emit(old, new)

    def _on_renamed(self, layer: Image) -> None:
        self._entry(layer).name = layer.name
        self.renamed.emit()

    def _on_removed(self, event: Any) -> None:
        if event.value in self._relays:
            entry = self._entry(event.value)
            self.forget(entry)
            self.removed.emit(entry)

    def _let_go(self) -> None:
        for layer in list(self._relays):
            self._unfollow(layer)
        self._layers.clear()


def _entry_of(layer: Image) -> Entry | None:
    """Return the entry of a layer that is a movie, and was not corrected by KOMA before."""
    if layer.ndim != 3:
        return None
    try:
        stack = stack_of_layer(layer)
    except MrczError:
        return None
    done = any(step.get("name") == _KOMA for step in stack.history)
    return None if done or stack.description.volume else Entry(layer.name, stack)
