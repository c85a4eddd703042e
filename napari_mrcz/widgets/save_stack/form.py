"""The form of the Save widget, and the bars of how large the file will be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QRectF, QSize, Qt, Signal, Slot
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from napari_mrcz.errors import MrczError, block_text, error_text, size_text
from napari_mrcz.naming import COMPRESSED_SUFFIX
from napari_mrcz.plugin.hooks import preferences
from napari_mrcz.plugin.layers import check_not_source, stack_of_layer
from napari_mrcz.stack.keeping import counts_beneath
from napari_mrcz.widgets.base.form import choice_field, push_button
from napari_mrcz.widgets.base.layer_picker import LayerPicker
from napari_mrcz.widgets.save_stack.model import SaveOptions, dtype_choices, suggest_path

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.save_stack.model import FileEstimate

_CODECS = (
    ("zstd, small and fast", "zstd"),
    ("lz4, fastest", "lz4"),
    ("lz4hc, fast to read", "lz4hc"),
    ("zlib, slow", "zlib"),
    ("blosclz", "blosclz"),
)
_FILTERS = (
    ("automatic", "auto"),
    ("bitshuffle", "bitshuffle"),
    ("shuffle", "shuffle"),
    ("none", "none"),
)
_BLOCKS = (("automatic", "auto"), *((block_text(2**k), 2**k) for k in (16, 18, 20, 22)))
_FILE_KINDS = "MRCZ, compressed (*.mrcz);;MRC (*.mrc *.mrcs)"


class SaveForm(QWidget):
    """Layer, file, compression and pixel type.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.

    Attributes
    ----------
    changed : Signal()
        Another layer or option was chosen, or the layer itself has changed.
    """

    changed = Signal()

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._folder: Path | None = None
        self._suggested = ""  # a path that is still this was not typed by anybody
        self._suggested_for: int | None = None
        self.layers = LayerPicker(panel)
        self.layers.setToolTip("The image layer to save; follows the one selected in the list")
        self.summary = QLabel()
        self.summary.setToolTip("Frames, rows × columns, pixel type and size")
        self.summary.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.path = QLineEdit()
        self.path.setPlaceholderText("movie.mrcz")
        self.browse = push_button("Browse…", "Choose the file")
        self.codec = choice_field(
            _CODECS, "Codec of the chunks; every MRCZ reader knows all of these"
        )
        self.level = QSpinBox()
        self.level.setRange(1, 9)
        self.level.setToolTip(
            "From 1 (fast) to 9 (small). On counted frames higher levels take long and gain little"
        )
        self.filter = choice_field(
            _FILTERS,
            "How bits or bytes are rearranged before they are compressed; automatic tries them on "
            "three frames",
        )
        self.block_size = choice_field(
            _BLOCKS, "What is compressed at a time; automatic tries two sizes on three frames"
        )
        self.dtype = choice_field(
            (),
            "Pixel type in the file; values are rounded, but never cut off. Counts are what comes "
            "before gain and KOMA, which are applied when the file is opened",
        )
        self.verify = QCheckBox("Verify when saved")
        self.verify.setToolTip("Read the file back and hold every frame against its checksum")
        preferred = preferences()
        self.choose(preferred.codec, preferred.level, "auto")
        self._lay_out()
        self._connect()
        self._on_layer(self.layers.layer)

    @property
    def options(self) -> SaveOptions:
        """What is chosen."""
        return SaveOptions(
            path=self.path.text().strip(),
            codec=self.codec.currentData(),
            level=self.level.value(),
            filter=self.filter.currentData(),
            block_size=self.block_size.currentData(),
            dtype=self.dtype.currentData(),
            verify=self.verify.isChecked(),
        )

    def stack(self) -> Stack | None:
        """Return the layer as a stack, with the scale and metadata that it has now.

        Raises
        ------
        MrczError
            If it cannot be saved, whatever the file.
        """
        layer = self.layers.layer
        return None if layer is None else stack_of_layer(layer)

    def problem(self) -> str:
        """Show why nothing can be saved as chosen, or nothing."""
        layer, options = self.layers.layer, self.options
        if layer is None:
            return "Open or add an image first."
        if said := options.problem():
            return said
        try:
            stack_of_layer(layer)
            check_not_source(options.path, layer.data, layer.metadata)
        except MrczError as error:
            return error_text(error)
        return ""

    def choose(self, codec: str, level: int, filter_: str) -> None:
        """Choose how to compress."""
        self.codec.setCurrentIndex(self.codec.findData(codec))
        self.level.setValue(level)
        self.filter.setCurrentIndex(self.filter.findData(filter_))

    def set_path(self, path: str) -> None:
        """Choose a file."""
        self.path.setText(path)
        self.path.setCursorPosition(len(path))

    def _lay_out(self) -> None:
        file = QHBoxLayout()
        file.addWidget(self.path, stretch=1)
        file.addWidget(self.browse)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        rows = (
            ("Layer", self.layers),
            ("", self.summary),
            ("File", file),
            ("Codec", self.codec),
            ("Level", self.level),
            ("Filter", self.filter),
            ("Block size", self.block_size),
            ("Pixel type", self.dtype),
            ("", self.verify),
        )
        for name, field in rows:
            form.addRow(name, field)
            label = form.labelForField(field)
            if isinstance(label, QLabel) and isinstance(field, QWidget):
                label.setToolTip(field.toolTip())

    def _connect(self) -> None:
        self.layers.layer_changed.connect(self._on_layer)
        self.path.textChanged.connect(self._on_path)
        self.path.editingFinished.connect(self._complete_path)
        self.browse.clicked.connect(self._browse)
        for combo in (self.codec, self.filter, self.block_size, self.dtype):
            combo.currentIndexChanged.connect(self.changed)
        self.level.valueChanged.connect(self.changed)

    @Slot(object)
    def _on_layer(self, layer: Image | None) -> None:
        try:
            stack = self.stack()
        except MrczError:  # `problem` says why
            stack = None
        self.summary.setText("" if stack is None else _summary(stack))
        self.path.blockSignals(True)
        typed = self._suggested_for == id(layer) and self.path.text() not in ("", self._suggested)
        if stack is not None and layer is not None and not typed:
            suffix = Path(self.path.text()).suffix or COMPRESSED_SUFFIX
            self._suggested = suggest_path(stack, layer.name, self._folder, suffix)
            self._suggested_for = id(layer)
            self.set_path(self._suggested)
        self.path.blockSignals(False)
        self._on_path()

    @Slot()
    def _on_path(self) -> None:
        self.path.setToolTip(
            f"{self.path.text()}\nThe suffix decides: .mrcz is compressed; .mrc, .mrcs and other "
            "MRC suffixes are not"
        )
        compressed = self.options.compressed
        for field in (self.codec, self.level, self.filter, self.block_size):
            field.setEnabled(compressed)
        self._offer_dtypes(compressed)
        self.changed.emit()

    def _offer_dtypes(self, compressed: bool) -> None:
        """Fill the list of pixel types; what was chosen stays chosen where it can."""
        layer = self.layers.layer
        try:
            stack = self.stack()
        except MrczError:  # `problem` says why
            stack = None
        counts = None if stack is None else counts_beneath(stack)
        beneath = None if counts is None else counts.dtype
        choices = [] if layer is None else dtype_choices(layer.dtype, compressed, beneath)
        chosen = self.dtype.currentData()
        self.dtype.blockSignals(True)
        self.dtype.clear()
        for text, value in choices:
            self.dtype.addItem(text, value)
        self.dtype.setCurrentIndex(max(0, self.dtype.findData(chosen)))
        self.dtype.blockSignals(False)

    @Slot()
    def _browse(self) -> None:
        path, kind = QFileDialog.getSaveFileName(
            self,
            "Save",
            self.path.text(),
            _FILE_KINDS,
            options=QFileDialog.Option.DontConfirmOverwrite,  # asked when Save is pressed
        )
        if path:
            if not Path(path).suffix:
                path += ".mrc" if kind.startswith("MRC ") else COMPRESSED_SUFFIX
            self._folder = Path(path).parent
            self.set_path(path)

    @Slot()
    def _complete_path(self) -> None:
        """Make what was typed a whole path."""
        text = self.path.text().strip()
        if not text:
            return
        path = Path(os.path.expanduser(text))  # Path's own raises for users that are not
        if not path.suffix and not os.path.isdir(path):
            path = path.with_name(path.name + COMPRESSED_SUFFIX)
        if not path.is_absolute():
            beside = Path(self._suggested).parent if self._suggested else Path.home()
            path = (self._folder or beside) / path
        self.set_path(str(path))


def _summary(stack: Stack) -> str:
    n, y, x = stack.shape
    length = stack.description.sections_per_volume
    frames = f"{n} frame{'s' * (n > 1)}" if length is None else f"{n // length} × {length} frames"
    size = stack.pixel_size[2]
    scale = f"{size:.4g} Å/pixel" if size else "pixel size unknown"
    return f"{frames} of {y} × {x}\n{stack.dtype}, {scale}"


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
