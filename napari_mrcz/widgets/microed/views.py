"""What is seen of a sweep: beam and annuli over the pattern, a region's histogram, the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from napari.layers import Points, Shapes
from qtpy.QtCore import QObject, Qt, QTimer, Signal, Slot
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_mrcz.errors import with_minus
from napari_mrcz.widgets.base.derived import add_layer, geometry, lay, place
from napari_mrcz.widgets.base.form import WrappedLabel, filled
from napari_mrcz.widgets.base.plot import Key, Plot

if TYPE_CHECKING:
    import napari
    import numpy.typing as npt
    from napari.layers import Image

    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.microed.model import Center, Fit, Histogram

# Told apart by colour-blind eyes, upon black, grey and white (Okabe and Ito 2008).
_BEAM, _RING, _CHOSEN = "#e69f00", "#56b4e9", "#e69f00"
# Of the pattern's longer side.
_CROSS, _LINE = 1 / 25, 1 / 500


class Guides(QObject):
    """Two layers at most, over one image layer at a time.

    Circles are drawn about the origin and the whole layer is laid where the beam is: that follows
    the mouse, as other circles would not. `beam` is one point, `rings` are circles between the
    annuli; both None while they are not shown. `source` is the image that they lie over.
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

    @property
    def shown(self) -> bool:
        """Whether they are there."""
        return self.beam is not None

    def show(self, source: Image, center: Center, radii: npt.NDArray[np.float64]) -> None:
        """Draw them over an image."""
        others = not np.array_equal(radii, self._radii)
        self.source, self._center, self._radii = source, center, radii
        side = max(source.data.shape[-2:])
        # From the first moment: napari warns of layers of different units.
        units: Any = geometry(source, 2)["units"]
        if self.rings is None:
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
            self._colours = []
            add_layer(self._viewer, self.rings)
            self.rings.editable = False  # they follow the beam
        elif others:
            self.rings.data = _circles(radii)
            self._colours = []
        if self.beam is None:
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
            self.beam.events.data.connect(self._on_points)
            self.beam.events.set_data.connect(self._on_points)
        self.choose(self._chosen)
        self.place()

    def move(self, center: Center) -> None:
        """Lay them about another centre, with the radii that they have."""
        self._center = center
        # A point that is being dragged is there already, and would be lost.
        if self.beam is not None and tuple(self.beam.data[0]) != center:
            self.beam.data = [center]
        if self.rings is not None and self.source is not None:
            at = geometry(self.source, 2)
            away = np.multiply(center, at["scale"])
            lay(self.rings, {**at, "translate": at["translate"] + away})

    def place(self) -> None:
        """Lay them where the image lies now."""
        if self.beam is not None and self.source is not None:
            place(self.beam, self.source)
            self.move(self._center)

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
            self.beam.events.data.disconnect(self._on_points)
            self.beam.events.set_data.disconnect(self._on_points)
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
            self.move((y, x))
            self.moved.emit(y, x)

    @Slot()
    def _keep_one(self) -> None:
        """There is one beam: where a point was added last, or where it was."""
        if self.beam is not None and len(self.beam.data) != 1:
            self.beam.data = self.beam.data[-1:] if len(self.beam.data) else [self._center]


def _circles(radii: npt.NDArray[np.float64]) -> list[tuple[npt.NDArray[np.float64], str]]:
    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    return [(radius * corners, "ellipse") for radius in radii]


COLUMNS = (
    ("#", "Number of the annulus, from the beam on; or label"),
    ("r (pix)", "Outer radius of the annulus, in pixels"),
    ("zeros", "Part of the pixels that was recorded as 0"),
    ("μ", "Mean of log(counts − shift) of the fitted distribution (eq. 1)"),
    ("σ", "Standard deviation of log(counts − shift) (eq. 1)"),
    ("shift", "Least value of the fitted distribution, in counts"),
)
NOTHING = "\N{EN DASH}"
_ROWS_SHOWN = 10


def rows(fit: Fit, frame: int) -> list[tuple[str, ...]]:
    """Return the table of a frame as texts, one row a region."""
    model = fit.model
    texts = []
    for region, (mu, sigma, shift) in enumerate(model.parameters[frame]):
        fitted = (f"{mu:.3f}", f"{sigma:.3f}", f"{shift:.1f}")
        if np.isnan(mu):
            fitted = (NOTHING,) * 3
        zeros = f"{model.zeros[frame, region] / fit.pixels[region]:.1%}"
        radius = NOTHING if np.isnan(fit.radii[region]) else f"{fit.radii[region]:.0f}"
        texts.append((str(fit.names[region]), radius, zeros, *map(with_minus, fitted)))
    return texts


class FitTable(QTableWidget):
    """As high as its rows, up to ten."""

    chosen = Signal(int)  # the row of a region (1 ... k)

    def __init__(self) -> None:
        super().__init__(0, len(COLUMNS))
        self.setToolTip("What was fitted to the frame that is shown; choose a row to see it")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        side: Any = self.verticalHeader()
        side.setVisible(False)
        side.setDefaultSectionSize(self.fontMetrics().height() + 6)
        head: Any = self.horizontalHeader()
        for column, (name, tip) in enumerate(COLUMNS):
            item = QTableWidgetItem(name)
            item.setToolTip(tip)
            self.setHorizontalHeaderItem(column, item)
        head.setMinimumSectionSize(36)
        head.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        head.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.itemSelectionChanged.connect(self._on_selected)

    def show_rows(self, texts: list[tuple[str, ...]]) -> None:
        """Show other rows; the chosen one stays where there are as many."""
        if len(texts) != self.rowCount():
            self.setRowCount(len(texts))
            for row, column in np.ndindex(len(texts), len(COLUMNS)):
                item = QTableWidgetItem()
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.setItem(row, column, item)
            head, side = cast("Any", self.horizontalHeader()), cast("Any", self.verticalHeader())
            shown = min(len(texts), _ROWS_SHOWN)
            self.setFixedHeight(head.sizeHint().height() + shown * side.defaultSectionSize() + 4)
        for row, column in np.ndindex(len(texts), len(COLUMNS)):
            cast("QTableWidgetItem", self.item(row, column)).setText(texts[row][column])

    def choose(self, region: int) -> None:
        """Mark the row of a region; nothing is emitted."""
        self.blockSignals(True)
        self.selectRow(region - 1)
        self.blockSignals(False)

    def _on_selected(self) -> None:
        if rows := {index.row() for index in self.selectedIndexes()}:
            self.chosen.emit(rows.pop() + 1)


_INVITATION = "Fit, then click an annulus in the pattern to see its histogram."
_EMPTY = (-20.0, 60.0), 1000.0


class HistogramView(QWidget):
    """A sentence, the plot, and what is what in it."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.histogram: Histogram | None = None
        self.title = WrappedLabel("Which pixels are counted here, and how many were cut off")
        self.plot = Plot(
            "counts",
            "pixels",
            "How many pixels have each count, after fig. 1 of doi:10.1107/S1600576716007196. "
            "Beyond the line, at the right, are Bragg spots",
        )
        self.plot.getPlotItem().setLogMode(x=False, y=True)
        self._recorded = self.plot.curve("hot", symbol="o")
        self._corrected = self.plot.curve("text", symbol="o")
        self._fitted = self.plot.curve("model")
        self._zero = self.plot.line("grid")
        self._zero.setVisible(True)
        self.legend = Key(
            (("hot", "●", "recorded"), ("text", "●", "corrected"),
             ("model", "━", "fitted lognormal"))
        )  # fmt: skip
        filled(self, self.title, self.plot, self.legend)
        self.clear()

    def clear(self) -> None:
        """Show no histogram."""
        self.histogram = None
        self._panel.tell(self.title, _INVITATION, "muted")
        for curve in (self._recorded, self._corrected, self._fitted):
            curve.setData([], [])
        self._show_range(*_EMPTY)

    def show_histogram(self, histogram: Histogram) -> None:
        """Show another one."""
        self.histogram = histogram
        self._panel.tell(self.title, histogram.title)
        self._recorded.setData(*histogram.recorded)
        self._corrected.setData(*histogram.corrected)
        self._fitted.setData(*(histogram.fitted or ([], [])))
        self._show_range(histogram.reach, histogram.most)

    def _show_range(self, reach: tuple[float, float], most: float) -> None:
        self.plot.setXRange(*reach, padding=0.03)
        self.plot.setYRange(-0.15, np.log10(most) + 0.15, padding=0)
