"""Three bars: what a movie takes in memory, on disk, and at the very least."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from napari_mrcz.errors import size_text

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.save_stack.model import FileEstimate

_ROWS = (
    ("In memory", "What the frames take uncompressed, in memory."),
    ("On disk", "What the file will take, estimated from excerpts of three frames."),
    (
        "Theoretical minimum",
        "Pixels that are independent of each other, such as counted electrons, cannot be stored "
        "in less without loss (Shannon 1948). Known only where values repeat.",
    ),
)


class SizeChart(QWidget):
    """Bars with names and sizes, to scale."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        self._bars, self.values = [], []
        for row, (name, tip) in enumerate(_ROWS):
            bar, value = _Bar(), QLabel()
            value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for column, widget in enumerate((QLabel(name), bar, value)):
                widget.setToolTip(tip)
                grid.addWidget(widget, row, column)
            self._bars.append(bar)
            self.values.append(value)
        # The widest text there can be, so that bars do not jump.
        width = self.values[0].fontMetrics().horizontalAdvance("≈ 888 MB ")
        for value in self.values:
            value.setMinimumWidth(width)
        self.show_estimate(None)

    def show_estimate(self, estimate: FileEstimate | None) -> None:
        """Draw an estimate, or empty bars."""
        sizes: tuple[float | None, ...] = (None, None, None)
        if estimate is not None:
            sizes = estimate.memory_nbytes, estimate.nbytes, estimate.bound_nbytes
        largest = max((size for size in sizes if size), default=1)
        for size, bar, value, about in zip(
            sizes, self._bars, self.values, ("", "≈ ", "≈ "), strict=True
        ):
            bar.set_fraction((size or 0) / largest)
            unknown = "\N{EN DASH}" if estimate is None else "unknown"
            value.setText(unknown if size is None else f"{about}{size_text(size)}")

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        fills = colours.grid, colours.accent, colours.muted
        for bar, fill in zip(self._bars, fills, strict=True):
            bar.set_colours(colours.foreground, fill)


class _Bar(QWidget):
    """A horizontal bar, filled from the left."""

    def __init__(self) -> None:
        super().__init__()
        self._fraction = 0.0
        self._track, self._fill = QColor("#808080"), QColor("#404040")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(40, 8)

    def set_fraction(self, fraction: float) -> None:
        self._fraction = fraction
        self.update()

    def set_colours(self, track: str, fill: str) -> None:
        self._track, self._fill = QColor(track), QColor(fill)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        whole = QRectF(self.rect())
        for colour, fraction in ((self._track, 1.0), (self._fill, self._fraction)):
            painter.setBrush(colour)
            painter.drawRoundedRect(QRectF(0, 0, whole.width() * fraction, whole.height()), 2, 2)
        painter.end()
