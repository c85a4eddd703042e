"""The beam and the annuli that are drawn over a diffraction pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal, Slot

from napari_mrcz.widgets.base.derived import add_layer, geometry, lay, place

if TYPE_CHECKING:
    import napari
    import numpy.typing as npt
    from napari.layers import Image
    from qtpy.QtWidgets import QWidget

    from napari_mrcz.widgets.microed.model import Center

# Told apart by colour-blind eyes, upon black, grey and white (Okabe and Ito 2008).
_BEAM, _RING, _CHOSEN = "#e69f00", "#56b4e9", "#e69f00"
# Of the pattern's longer side.
_CROSS, _LINE = 1 / 25, 1 / 500


class Guides(QObject):
    """Two layers at most, over one image layer at a time.

    Circles are drawn about the origin and the whole layer is laid where the beam is: that follows
    the mouse, as other circles would not. `beam` is one point, `rings` are circles between the
    annuli, `source` is the image that they lie over; None while they are not shown.
    """

    moved = Signal(float, float)  # the point is being dragged: y and x in pixels of the pattern

    def __init__(self, viewer: napari.Viewer, parent: QWidget) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.source: Image | None = None
        self.beam: Points | None = None
        self.rings: Shapes | None = None
        self._center: Center = (0.0, 0.0)
        self._radii: npt.NDArray[np.float64] = np.empty(0)
        self._colours: list[str] = []  # of the circles
        self._chosen = 0

    def show(self, source: Image, center: Center, radii: npt.NDArray[np.float64]) -> None:
        """Draw them over an image."""
        others = not np.array_equal(radii, self._radii)
        self.source, self._radii = source, radii
        if others or self.rings is None:
            self._colours = []
        side = max(source.data.shape[-2:])
        # From the first moment: napari warns of layers of different units.
        units = geometry(source, 2)["units"]
        if self.rings is None or self.beam is None:
            self.rings = Shapes(
                _circles(radii),
                ndim=2,
                units=units,
                name="annuli",
                edge_width=max(side * _LINE, 0.5),
                edge_color=_RING,
                face_color="transparent",
                opacity=0.8,
            )
            add_layer(self._viewer, self.rings)
            self.rings.editable = False  # they follow the beam
            self.beam = Points(
                np.array([center]),
                units=units,
                name="beam",
                symbol="cross",
                size=side * _CROSS,
                face_color=_BEAM,
                border_color="black",
                border_width=0.04,
                opacity=0.9,
            )
            add_layer(self._viewer, self.beam)
            self.beam.mode = "select"
            # The first comes when a drag has ended, the second while it lasts.
            for emitter in (self.beam.events.data, self.beam.events.set_data):
                emitter.connect(self._on_points)
        elif others:
            self.rings.data = _circles(radii)
        self.choose(self._chosen)
        self.place(center)

    def place(self, center: Center | None = None) -> None:
        """Lay them where the image lies now, about the same or another centre."""
        self._center = center = center or self._center
        if self.beam is None or self.rings is None or self.source is None:
            return
        place(self.beam, self.source)
        # A point that is being dragged is there already, and would be lost.
        if tuple(self.beam.data[0]) != center:
            self.beam.data = [center]
        at = geometry(self.source, 2)
        lay(self.rings, {**at, "translate": at["translate"] + np.multiply(center, at["scale"])})

    def choose(self, region: int) -> None:
        """Mark the circles at which an annulus (1 ... k) begins and ends; 0 for none."""
        self._chosen = region
        ends = {region - 2, region - 1} if region else set()
        colours = [_CHOSEN if ring in ends else _RING for ring in range(len(self._radii))]
        # Setting them draws all of the canvas.
        if self.rings is not None and colours and colours != self._colours:
            self._colours = colours
            self.rings.edge_color = colours

    def grasp(self) -> None:
        """Drag the point with the mouse."""
        if self.beam is not None:
            self._viewer.layers.selection.active = self.beam
            self.beam.mode = "select"

    def remove(self) -> None:
        """Take them away."""
        layers = self.beam, self.rings
        self.let_go()
        for layer in layers:
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def let_go(self) -> None:
        """Hold nothing; what is shown stays."""
        if self.beam is not None:
            for emitter in (self.beam.events.data, self.beam.events.set_data):
                emitter.disconnect(self._on_points)
        self.beam = self.rings = self.source = None

    def _on_points(self, event: Any = None) -> None:
        if self.beam is None:
            return
        if len(self.beam.data) != 1:
            # napari is in the middle of something when it tells of other points.
            QTimer.singleShot(0, self._keep_one)
            return
        y, x = (float(at) for at in self.beam.data[0])
        if (y, x) != self._center:
            self.place((y, x))
            self.moved.emit(y, x)

    @Slot()
    def _keep_one(self) -> None:
        """There is one beam: where a point was added last, or where it was."""
        if self.beam is not None and len(self.beam.data) != 1:
            self.beam.data = self.beam.data[-1:] if len(self.beam.data) else [self._center]


def _circles(radii: npt.NDArray[np.float64]) -> list[tuple[npt.NDArray[np.float64], str]]:
    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    return [(radius * corners, "ellipse") for radius in radii]
