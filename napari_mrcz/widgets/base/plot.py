"""Plots in the theme's colours with lines that can be dragged, and what their colours mean."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pyqtgraph as pg
from qtpy.QtCore import QBuffer, QByteArray, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPixmap
from qtpy.QtSvg import QSvgGenerator
from qtpy.QtWidgets import QApplication, QSizePolicy

from napari_mrcz.errors import with_minus
from napari_mrcz.widgets.base.panel import WrappedLabel, csv_text, offer, save_as

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QPaintDevice

    from napari_mrcz.widgets.base.theme import Palette

_HEIGHT_PX = 180
_LINE_PX = 1.5
# How much of an axis numbers may cover, by how many there are: as in pyqtgraph, but fewer of them.
_NUMBERS = [(0, 0.8), (2, 0.45), (4, 0.35), (6, 0.2)]
# Pixels of a picture that is copied or saved, to one of the screen.
_FINER = 3


class _Axis(pg.AxisItem):
    """An axis with minus signs rather than hyphens."""

    def tickStrings(self, *places: Any) -> list[str]:
        """Return the numbers at the ticks."""
        return [with_minus(text) for text in super().tickStrings(*places)]


class _Format(str):
    """The format of a line's label, which has a minus sign rather than a hyphen, too."""

    def format(self, *values: Any, **named: Any) -> str:
        return with_minus(super().format(*values, **named))


class Plot(pg.PlotWidget):
    """Axes with names and units; curves and lines whose colours are named as in `Palette`."""

    def __init__(self, x: str, y: str, tip: str) -> None:
        axes = {side: _Axis(side) for side in ("bottom", "left")}
        super().__init__(background=None, axisItems=axes)
        self.setToolTip(tip)
        self.setFrameShape(pg.QtWidgets.QFrame.Shape.NoFrame)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._colours: dict[str, str] = {}
        self._drawn: list[tuple[Any, str, Qt.PenStyle]] = []
        self._labels = {"bottom": x, "left": y}
        # Else the dock's background is kept as it was before the theme changed.
        self.setCacheMode(self.CacheModeFlag.CacheNone)
        item = self.getPlotItem()
        item.setMenuEnabled(False)
        item.hideButtons()
        # Room for half a number at the ends, and for what reaches above and below letters.
        item.layout.setContentsMargins(4, 6, 4, 4)
        for side, text in self._labels.items():
            item.setLabel(side, text)
            item.getAxis(side).enableAutoSIPrefix(False)
            item.getAxis(side).setStyle(textFillLimits=_NUMBERS)
        # The wheel scrolls the dock; a drag that takes no line moves nothing.
        item.getViewBox().setMouseEnabled(x=False, y=False)
        makers = {
            ".png": lambda: self._file("PNG"),
            ".svg": lambda: self._file("SVG"),
            ".csv": lambda: self.as_csv().encode(),
        }
        clipboard: Any = QApplication.clipboard()
        offer(
            self,
            {
                "Copy plot": lambda: clipboard.setPixmap(self._picture()),
                "Copy numbers": lambda: clipboard.setText(self.as_csv("\t")),
                "Save plot or numbers…": lambda: save_as(self, "Save plot or numbers", makers),
            },
        )

    def sizeHint(self) -> QSize:
        """Return a low plot: docks are narrow."""
        return QSize(240, _HEIGHT_PX)

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the column that the plot is in."""
        event.ignore()

    def curve(
        self,
        colour: str,
        *,
        style: Qt.PenStyle = Qt.PenStyle.SolidLine,
        symbol: str | None = None,
        axis: pg.ViewBox | None = None,
        **options: Any,
    ) -> pg.PlotDataItem:
        """Add an empty curve; `setData` fills it.

        `symbol`: points of this kind instead of a line, as pyqtgraph calls them; `axis`: another
        than the plot's own; `options`: of `pyqtgraph.PlotDataItem`.
        """
        if symbol is not None:
            style = Qt.PenStyle.NoPen
        item = pg.PlotDataItem(symbol=symbol, symbolSize=5, **options)
        (self.getPlotItem() if axis is None else axis).addItem(item)
        self._add(item, colour, style)
        return item

    def line(
        self, colour: str, *, angle: float = 90, movable: bool = False, label: str | None = None
    ) -> pg.InfiniteLine:
        """Add a line through the whole plot, hidden until it is shown, thicker if `movable`.

        `angle`: in degrees, 90 is upright; `label`: format of the text beside it, such as
        ``"{value:.2f} σ"``.
        """
        shown = {"position": 0.92, "fill": (0, 0, 0, 0)} if label else None
        written = _Format(label) if label else None
        line = pg.InfiniteLine(angle=angle, movable=movable, label=written, labelOpts=shown)
        line.setVisible(False)
        if movable:
            line.setCursor(
                Qt.CursorShape.SizeHorCursor if angle == 90 else Qt.CursorShape.SizeVerCursor
            )
        self.addItem(line, ignoreBounds=True)
        self._add(line, colour, Qt.PenStyle.SolidLine if movable else Qt.PenStyle.DashLine)
        return line

    def right_axis(self, label: str, low: float, high: float) -> pg.ViewBox:
        """Add an axis from `low` to `high` at the right, for `curve(axis=...)`; x is shared."""
        item, own = self.getPlotItem(), self.getPlotItem().getViewBox()
        view = pg.ViewBox(enableMenu=False, enableMouse=False)
        view.setZValue(own.zValue() - 1)  # lines that are dragged lie in the plot's own
        view.setYRange(low, high, padding=0)
        view.setXLink(own)
        item.showAxis("right")
        item.scene().addItem(view)
        item.getAxis("right").linkToView(view)
        self._labels["right"] = label
        item.setLabel("right", label)
        own.sigResized.connect(lambda: view.setGeometry(own.sceneBoundingRect()))
        return view

    def as_csv(self, separator: str = ",") -> str:
        """Return the numbers of the curves that are seen, two columns for each."""
        drawn = [item for item, *_ in self._drawn if isinstance(item, pg.PlotDataItem)]
        curves = [c for c in drawn if c.isVisible() and c.xData is not None]
        heads = [self._labels["bottom"], self._labels["left"]] * len(curves)
        columns = [column for c in curves for column in (c.xData, c.yData)]
        return csv_text([heads, *zip_longest(*columns)], separator)

    def _picture(self) -> QPixmap:
        """Return the plot finer than on the screen."""
        picture = QPixmap(self.size() * _FINER)
        picture.setDevicePixelRatio(_FINER)
        picture.fill(QColor(self._colours.get("background", "white")))
        self._draw(picture)
        return picture

    def _draw(self, device: QPaintDevice) -> None:
        painter = QPainter(device)
        self.render(painter, QRectF(self.rect()), self.rect())
        painter.end()

    def _file(self, kind: str) -> bytes:
        """Return what a file of the plot has, "PNG" or "SVG"."""
        data = QByteArray()
        buffer = QBuffer(data)
        buffer.open(QBuffer.OpenModeFlag.WriteOnly)
        if kind == "SVG":
            generator = QSvgGenerator()
            generator.setOutputDevice(buffer)
            generator.setViewBox(self.rect())
            self._draw(generator)
        else:
            self._picture().save(buffer, kind)
        return data.data()

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self._colours = vars(colours)
        item = self.getPlotItem()
        for side in ("bottom", "left", "right"):
            axis = item.getAxis(side)
            axis.setPen(colours.grid)
            axis.setTextPen(colours.text)
        for side, text in self._labels.items():
            item.setLabel(side, text, color=colours.text)
        for drawn in self._drawn:
            self._paint(*drawn)

    def _add(self, item: Any, colour: str, style: Qt.PenStyle) -> None:
        self._drawn.append((item, colour, style))
        if self._colours:
            self._paint(item, colour, style)

    def _paint(self, item: Any, colour: str, style: Qt.PenStyle) -> None:
        shade = self._colours[colour]
        if isinstance(item, pg.InfiniteLine):
            width = 2.5 if item.movable else _LINE_PX
            item.setPen(pg.mkPen(shade, width=width, style=style))
            item.setHoverPen(pg.mkPen(self._colours["text"], width=width + 1))
            if hasattr(item, "label"):
                item.label.setColor(shade)
            return
        item.setPen(pg.mkPen(shade, width=_LINE_PX, style=style))
        item.setSymbolBrush(shade)
        item.setSymbolPen(None)


class Key(WrappedLabel):
    """Signs in their colours, with their meaning: (colour as in `Palette`, sign, what it means)."""

    def __init__(self, meanings: Sequence[tuple[str, str, str]]) -> None:
        super().__init__("What is drawn how in the plot")
        self._meanings = tuple(meanings)
        self.setTextFormat(Qt.TextFormat.RichText)

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        parts = (
            f'<span style="color: {getattr(colours, colour)}">{sign}</span>&nbsp;'
            + meaning.replace(" ", "&nbsp;")
            for colour, sign, meaning in self._meanings
        )
        self.setText(" &ensp;".join(parts))
        self.setStyleSheet(f"color: {colours.text}")
