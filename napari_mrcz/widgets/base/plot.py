"""Colours of napari's theme, plots in them with lines that can be dragged, and copying both.

Where the theme's colours cannot be read upon its background, they are made readable.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyqtgraph as pg
from napari.utils.notifications import show_error
from napari.utils.theme import get_theme
from qtpy.QtCore import QBuffer, QRectF, QSize, Qt
from qtpy.QtGui import QAction, QColor, QPainter, QPixmap
from qtpy.QtSvg import QSvgGenerator
from qtpy.QtWidgets import QApplication, QFileDialog, QSizePolicy, QWidget

from napari_mrcz.errors import MrczError, error_text, with_minus
from napari_mrcz.format.atomic import write_file
from napari_mrcz.widgets.base.form import WrappedLabel
from napari_mrcz.widgets.base.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from qtpy.QtGui import QPaintDevice

# What small text needs: https://www.w3.org/TR/WCAG21/#contrast-minimum
_READABLE = 4.5
_STEPS = 20


_HEIGHT_PX = 180
_LINE_PX = 1.5
# How much of an axis numbers may cover, by how many there are: as in pyqtgraph, but fewer of them.
_NUMBERS = [(0, 0.8), (2, 0.45), (4, 0.35), (6, 0.2)]
# Pixels of a picture that is copied or saved, to one of the screen.
_FINER = 3


@dataclass(frozen=True)
class Palette:
    """The colours of a theme, as "#rrggbb"."""

    background: str  # of a dock
    foreground: str  # of what lies in it
    text: str
    muted: str  # of what matters less, yet readable
    grid: str  # of lines that are in nobody's way
    error: str
    warning: str
    accent: str
    hot: str
    dark: str
    model: str  # beside what was measured


def palette(theme: str) -> Palette:
    """Return the colours of a theme of napari by its name."""
    known = get_theme(theme)

    def plain(name: str) -> str:
        return QColor(getattr(known, name).as_hex()).name()

    background, text = plain("background"), plain("text")

    def upon(colour: str) -> str:
        return readable(colour, background, text)

    return Palette(
        background=background,
        foreground=plain("foreground"),
        text=text,
        muted=upon(plain("highlight")),
        grid=plain("secondary"),
        error=upon(plain("error")),
        warning=upon(plain("warning")),
        accent=upon(plain("current")),
        # Told apart by colour-blind eyes too (Okabe and Ito, "Color universal design", 2008).
        hot=upon("#d55e00"),
        dark=upon("#0072b2"),
        model=upon("#009e73"),
    )


def readable(colour: str, background: str, text: str) -> str:
    """Return the nearest to a colour, on the way to that of the text, that can be read."""
    start, end = QColor(colour).getRgb()[:3], QColor(text).getRgb()[:3]
    mixed = colour
    for step in range(_STEPS + 1):
        part = step / _STEPS
        mixed = QColor(*(round(a + part * (b - a)) for a, b in zip(start, end, strict=True))).name()
        if contrast_ratio(mixed, background) >= _READABLE:
            break
    return mixed


def contrast_ratio(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2.1 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = QColor(colour).getRgbF()[:3]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


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
        clipboard: Any = QApplication.clipboard()
        offer(
            self,
            {
                "Copy plot": lambda: clipboard.setPixmap(self._picture()),
                "Copy numbers": lambda: clipboard.setText(self._numbers("\t")),
                "Save plot or numbers…": self._save,
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

    def _numbers(self, separator: str) -> str:
        """Return the numbers of the curves that are seen, two columns for each."""
        drawn = [item for item, *_ in self._drawn if isinstance(item, pg.PlotDataItem)]
        curves = [c for c in drawn if c.isVisible() and c.xData is not None]
        heads = [self._labels["bottom"], self._labels["left"]] * len(curves)
        columns = [column for c in curves for column in (c.xData, c.yData)]
        return _csv([heads, *zip_longest(*columns)], separator)

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

    def _save(self) -> None:
        path, overwrite = _ask_for_path(self, "Save plot or numbers", (".png", ".svg", ".csv"))
        content, suffix = QBuffer(), Path(path).suffix.lower()
        content.open(QBuffer.OpenModeFlag.WriteOnly)
        if suffix == ".csv":
            content.write(self._numbers(",").encode())
        elif suffix == ".svg":
            generator = QSvgGenerator()
            generator.setOutputDevice(content)
            generator.setViewBox(self.rect())
            self._draw(generator)
        elif path:
            self._picture().save(content, "PNG")
        if path:
            _write(path, overwrite, content.data().data())

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


def offer(widget: QWidget, actions: Mapping[str, Callable[[], Any]]) -> None:
    """Add a menu that a right click opens; the tooltip mentions it."""
    for text, act in actions.items():
        action = QAction(text, widget)
        action.triggered.connect(lambda _=False, act=act: act())
        widget.addAction(action)
    widget.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
    widget.setToolTip(f"{widget.toolTip()}. Right-click to copy or save it")


def offer_rows(table: QWidget, rows: Callable[[], Iterable[Iterable[Any]]] | None = None) -> None:
    """Offer to copy a table's rows, headings first, for spreadsheets, and to save them.

    `rows`: returns them as they are when it is called, by default those of Qt's table; they are
    gone through in a thread, since there may be many.
    """
    clipboard: Any = QApplication.clipboard()

    def write(separator: str, done: Callable[[str], Any]) -> None:
        found = _rows_of(table) if rows is None else rows()
        job = Job(lambda report: _csv(found, separator))
        job.ended.connect(done)
        job.start()

    def save() -> None:
        path, overwrite = _ask_for_path(table, "Save table", (".csv",))
        if path:
            write(",", partial(_write, path, overwrite))

    def copy() -> None:
        write("\t", lambda text: clipboard.setText(text))

    offer(table, {"Copy table": copy, "Save table as CSV…": save})


def _rows_of(table: Any) -> list[list[Any]]:
    model, columns = table.model(), range(table.model().columnCount())
    heads = [model.headerData(n, Qt.Orientation.Horizontal) for n in columns]
    rows = range(model.rowCount())
    return [heads, *([model.index(row, n).data() for n in columns] for row in rows)]


def _csv(rows: Iterable[Iterable[Any]], separator: str) -> str:
    lines = io.StringIO()
    csv.writer(lines, delimiter=separator, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def _ask_for_path(widget: QWidget, title: str, suffixes: Iterable[str]) -> tuple[str, bool]:
    """Ask for a file with one of some suffixes; return it, and whether one may be replaced."""
    known = list(suffixes)
    kinds = ";;".join(f"{suffix[1:].upper()} (*{suffix})" for suffix in known)
    path, kind = QFileDialog.getSaveFileName(widget, title, "", kinds)
    if not path or Path(path).suffix.lower() in known:
        return path, True
    # The dialog has not asked about the file with this suffix.
    return path + next((suffix for suffix in known if suffix in kind), known[0]), False


def _write(path: str, overwrite: bool, content: bytes | str) -> None:
    try:
        data = content.encode() if isinstance(content, str) else content
        write_file(path, data, overwrite=overwrite)
    except MrczError as error:
        show_error(error_text(error))
