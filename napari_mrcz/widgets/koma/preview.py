"""Makes the layer that shows one stack as KOMA corrects it, and makes it anew as choices change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal, Slot

from napari_mrcz.widgets.base.derived import PreviewLayer
from napari_mrcz.widgets.base.job import LatestJob, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import napari
    from napari.layers import Image

    from napari_mrcz.plugin.layers import LayerData


class Preview(QObject):
    """At most one layer, above all others.

    Parameters
    ----------
    viewer : napari.Viewer
        Where it is shown.
    parent : QObject
        The dock widget.

    Attributes
    ----------
    shown : Signal(object)
        The layer has what was asked for last.
    failed : Signal(object)
        It cannot be made: the exception.
    """

    shown = Signal(object)
    failed = Signal(object)

    def __init__(self, viewer: napari.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._preview = PreviewLayer(viewer)
        self._source: Image | None = None
        self._look: Hashable = None
        self._jobs = LatestJob(self)
        self._jobs.returned.connect(self._on_made)
        self._jobs.failed.connect(self.failed)
        parent.destroyed.connect(lambda: self._let_go())

    @property
    def layer(self) -> Image | None:
        """The layer, as long as it is in the viewer."""
        return self._preview.layer

    @property
    def busy(self) -> bool:
        """Whether something was asked for that is not shown yet."""
        return self._jobs.busy

    def ask(
        self,
        work: Callable[[Report], LayerData],
        source: Image | None,
        look: Hashable,
    ) -> None:
        """Show a stack soon; of what is asked for in quick succession only the last.

        Parameters
        ----------
        work : callable
            Makes the layer's data, in a thread.
        source : Image, optional
            The layer that it belongs to, whose place in the world it takes.
        look : hashable
            Contrast that the user has set is kept as long as this is the same.
        """
        self._source, self._look = source, look
        self._jobs.request(work)

    def drop(self) -> None:
        """Forget what was asked for."""
        self._jobs.drop()
        self._source = None

    @Slot(object)
    def _on_made(self, made: LayerData) -> None:
        data, attributes, _ = made
        source, self._source = self._source, None
        if source not in self._viewer.layers:
            source = None
        self.shown.emit(self._preview.show(data, attributes, source, look=self._look))

    def _let_go(self) -> None:
        self._source = None
