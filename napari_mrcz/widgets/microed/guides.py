"""The beam, as a point that can be dragged, and the annuli about it, drawn over the pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

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
    annuli; both None while they are not shown.
    """

    moved = Signal(float, float)  # the point is being dragged: y and x in pixels of the pattern

    def __init__(self, viewer: napari.Viewer, parent: QWidget) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._source: Image | None = None
        self._center: Center = (0.0, 0.0)
        self._radii = self._drawn = np.empty(0)
        self._chosen = 0
        self.beam: Points | None = None
        self.rings: Shapes | None = None
        # napari is in the middle of something when it tells of other points.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._keep_one)

    @property
    def source(self) -> Image | None:
        """The image that they lie over."""
        return self._source

    @property
    def shown(self) -> bool:
        """Whether they are there."""
        return self.beam is not None

    def show(self, source: Image, center: Center, radii: npt.NDArray[np.float64]) -> None:
        """Draw them over an image."""
        self._source, self._center, self._radii = source, center, radii
        if self.rings is None:
            self._add_rings()
        elif not np.array_equal(radii, self._drawn):
            self.rings.data = _circles(radii)
        self._drawn = radii
        if self.beam is None:
            self._add_beam()
        self.choose(self._chosen)
        self.place()

    def move(self, center: Center) -> None:
        """Lay them about another centre, with the radii that they have."""
        self._center = center
        # A point that is being dragged is there already, and would be lost.
        if self.beam is not None and tuple(self.beam.data[0]) != center:
            self.beam.data = [center]
        self._center_rings()

    def place(self) -> None:
        """Lay them where the image lies now."""
        if self._source is None:
            return
        if self.beam is not None:
            place(self.beam, self._source)
        self.move(self._center)

    def choose(self, region: int) -> None:
        """Mark the circles at which an annulus (1 ... k) begins and ends; 0 for none."""
        self._chosen = region
        if self.rings is not None and len(self._radii):
            ends = {region - 2, region - 1} if region else set()
            self.rings.edge_color = [
                _CHOSEN if ring in ends else _RING for ring in range(len(self._radii))
            ]

    def grasp(self) -> None:
        """Drag the point with the mouse."""
        if self.beam is not None:
            self._viewer.layers.selection.active = self.beam
            self.beam.mode = "select"

    def remove(self) -> None:
        """Take them away."""
        beam, rings = self.beam, self.rings
        self.let_go()
        for layer in (beam, rings):
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def forget(self, layer: Layer) -> bool:
        """Release a layer that the viewer has no more; return whether it was one of these."""
        if layer not in (self.beam, self.rings):
            return False
        self.remove()
        return True

    def let_go(self) -> None:
        """Hold nothing; what is shown stays."""
        if self.beam is not None:
            self.beam.events.data.disconnect(self._on_points)
            self.beam.events.set_data.disconnect(self._on_points)
        self.beam = self.rings = self._source = None

    def _add_rings(self) -> None:
        self.rings = Shapes(
            _circles(self._radii),
            ndim=2,
            units=self._units,
            name="annuli",
            edge_width=max(self._side * _LINE, 0.5),
            edge_color=_RING,
            face_color="transparent",
            opacity=0.8,
        )
        add_layer(self._viewer, self.rings)
        self.rings.editable = False  # they follow the beam

    def _add_beam(self) -> None:
        self.beam = Points(
            np.array([self._center]),
            units=self._units,
            name="beam",
            symbol="cross",
            size=self._side * _CROSS,
            face_color=_BEAM,
            border_color="black",
            border_width=0.04,
            opacity=0.9,
        )
        add_layer(self._viewer, self.beam)
        self.beam.mode = "select"
        # The first comes when a drag has ended, the second while it lasts.
        self.beam.events.data.connect(self._on_points)
        self.beam.events.set_data.connect(self._on_points)

    @property
    def _side(self) -> int:
        """The pattern's longer side, in pixels."""
        return 1 if self._source is None else max(self._source.data.shape[-2:])

    @property
    def _units(self) -> Any:
        # From the first moment: napari warns of layers of different units.
        return None if self._source is None else geometry(self._source, 2)["units"]

    def _center_rings(self) -> None:
        if self.rings is not None and self._source is not None:
            at = geometry(self._source, 2)
            away = np.multiply(self._center, at["scale"])
            lay(self.rings, {**at, "translate": at["translate"] + away})

    def _on_points(self, event: Any = None) -> None:
        if self.beam is None:
            return
        if len(self.beam.data) != 1:
            self._soon.start()
            return
        y, x = (float(at) for at in self.beam.data[0])
        if (y, x) != self._center:
            self._center = (y, x)
            self._center_rings()
            self.moved.emit(y, x)

    def _keep_one(self) -> None:
        """There is one beam: where a point was added last, or where it was."""
        if self.beam is None or len(self.beam.data) == 1:
            return
        data = self.beam.data
        self.beam.data = data[-1:] if len(data) else [self._center]


def _circles(radii: npt.NDArray[np.float64]) -> list[tuple[npt.NDArray[np.float64], str]]:
    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    return [(radius * corners, "ellipse") for radius in radii]
