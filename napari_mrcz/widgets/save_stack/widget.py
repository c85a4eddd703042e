"""The "Save" dock widget: a form, what the file will take, codecs compared, and saving."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal, Slot
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QWidget,
)

from napari_mrcz.errors import MrczError, counted, error_text, size_text
from napari_mrcz.format.encoding import COUNT_CODER
from napari_mrcz.naming import COMPRESSED_SUFFIX
from napari_mrcz.plugin.hooks import preferences
from napari_mrcz.plugin.layers import check_not_source, stack_of_layer
from napari_mrcz.stack.keeping import counts_below
from napari_mrcz.widgets.base.form import (
    OptionsForm,
    Section,
    WrappedLabel,
    choice_field,
    filled,
    form,
    push_button,
)
from napari_mrcz.widgets.base.job import Job, JobControls, LatestJob, Pace
from napari_mrcz.widgets.base.layer_picker import LayerPicker
from napari_mrcz.widgets.base.panel import Panel
from napari_mrcz.widgets.base.plot import Key, Plot
from napari_mrcz.widgets.save_stack.model import (
    Exploration,
    FileEstimate,
    Saved,
    SaveOptions,
    Trial,
    dtype_choices,
    estimate_file,
    explore,
    save,
    suggest_path,
)

if TYPE_CHECKING:
    import napari

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.plot import Palette

_COMPRESSION = ("codec", "level", "filter", "block_size")
_FILE_KINDS = "MRCZ, compressed (*.mrcz);;MRC (*.mrc *.mrcs)"


class SaveStack(Panel):
    """Save an image layer as MRC or MRCZ, with choices, an estimate, progress and Cancel.

    Attributes
    ----------
    estimated : Signal(object)
        A `FileEstimate` is shown, or None where there is none.
    finished : Signal(object)
        Saving has ended: `Saved`, the exception, or None if it was cancelled.
    """

    title = "Save"

    estimated = Signal(object)
    finished = Signal(object)

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._refusal = ""
        self.form = SaveForm(self)
        self.chart = SizeChart()
        self.estimate = WrappedLabel("From excerpts of the first, the middle and the last frame", 2)
        tip = "Write the file; the viewer stays usable meanwhile"
        self.controls = JobControls(self, "Save", tip, reserve=2)
        self.save_button = self.controls.start_button
        self.explorer = Explorer(self)
        self.advanced = Section("Advanced", self.form.compression, self.explorer)
        for part in (self.form, self.chart, self.estimate, self.controls, self.advanced):
            self.column.addWidget(part)
        self.column.addStretch()
        self._estimates = LatestJob(self)
        self._estimates.returned.connect(lambda found: self._show_estimate(found, str(found)))
        self._estimates.failed.connect(self._on_not_estimated)
        self.form.changed.connect(self._on_changed)
        self.form.layers.layer_changed.connect(self.explorer.clear)
        self.explorer.controls.start_button.clicked.connect(self._explore)
        self.explorer.chosen.connect(lambda t: self.form.choose(t.codec, t.level, t.filter))
        self.controls.start_button.clicked.connect(self.save)
        for ended in (self.controls.returned, self.controls.failed, self.controls.cancelled):
            ended.connect(self._on_ended)
        self.apply_palette(self.palette_now)
        self._on_changed()

    @property
    def busy(self) -> bool:
        """Whether something runs: an estimate, a comparison or a save."""
        return self.controls.running or self._estimates.busy or self.explorer.controls.running

    @Slot()
    def save(self) -> None:
        """Start saving; asks before it replaces a file."""
        options, stack = self.form.options, self.form.stack()
        if self.controls.running or self.form.problem() or stack is None:
            return
        # A file that comes there after the question was not asked about.
        path = Path(options.path)
        replaces = path.exists()
        if replaces:
            asked = f"{path.name} exists already ({size_text(path.stat().st_size)}). Replace it?"
            kept = "It stays as it is until the new file is complete."
            answer = QMessageBox.question(self, "Replace the file?", f"{asked}\n\n{kept}")
            if answer != QMessageBox.StandardButton.Yes:
                return
        self.controls.pace = Pace(stack.nbytes // max(1, len(stack)))
        # It goes on when the dock is closed.
        job = Job(partial(save, stack, options, overwrite=replaces))
        job.announce(self, lambda saved: saved.ok)
        self.controls.attach(job)
        self.controls.progress.setRange(0, len(stack))
        self.controls.tell(f"Saving {path.name}")
        self._show_state()
        job.start()

    def _show_state(self) -> None:
        """Enable what can be used now, and say why Save cannot."""
        problem = self.form.problem() or self._refusal
        self.controls.allow(problem)
        for part in (self.form, self.form.compression):
            part.setEnabled(not self.controls.running)
        uncompressed = "" if self.form.options.compressed else "This file is not compressed."
        self.explorer.controls.allow(problem or uncompressed)

    @Slot()
    def _explore(self) -> None:
        if (stack := self.form.stack()) is not None:
            self.explorer.controls.run(partial(explore, stack, self.form.options))

    @Slot()
    def _on_changed(self) -> None:
        """Estimate anew, where there is something to be estimated."""
        self._refusal = ""
        problem, options, stack = self.form.problem(), self.form.options, self.form.stack()
        if problem or stack is None:
            self._estimates.drop()
            tone = "text" if self.form.layers.layer is None else "error"
            self._show_estimate(None, problem, tone)
        else:
            self._estimates.request(lambda report: estimate_file(stack, options))
            self.tell(self.estimate, "Estimating…")
        self._show_state()

    @Slot(object)
    def _on_not_estimated(self, error: Exception) -> None:
        self._refusal = error_text(error)
        self._show_estimate(None, self._refusal, "error")
        self._show_state()

    def _show_estimate(self, estimate: FileEstimate | None, text: str, tone: str = "text") -> None:
        self.chart.show_estimate(estimate)
        folder = Path(self.form.options.path).parent
        if estimate is not None and not folder.is_dir():
            text += f"\nIn the new folder {folder.name}."
        self.tell(self.estimate, text, tone)
        self.estimated.emit(estimate)

    @Slot()
    @Slot(object)
    def _on_ended(self, ended: Saved | Exception | None = None) -> None:
        text, tone = "Cancelled: nothing was written, and nothing replaced.", "text"
        if isinstance(ended, Exception):
            text, tone = f"Not saved. {error_text(ended)}", "error"
        elif ended is not None:
            text, tone = str(ended), "text" if ended.ok else "error"
        self.controls.tell(text, tone)
        self._show_state()
        self.finished.emit(ended)


class SaveForm(QWidget):
    """Layer, file and pixel type; and apart from these the compression."""

    changed = Signal()  # another layer or option was chosen, or the layer itself has changed

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._folder: Path | None = None
        self._suggested = ""  # a path that is still this was not typed by anybody
        self._suggested_for: int | None = None
        self.layers = LayerPicker(panel)
        self.layers.setToolTip("The image layer to save; follows the one selected in the list")
        self.summary = WrappedLabel("Frames, rows × columns, pixel type and size")
        self.path = QLineEdit()
        self.path.setPlaceholderText("movie.mrcz")
        self.browse = push_button("Browse…", "Choose the file")
        self.dtype = choice_field(
            (),
            "Pixel type in the file; values are rounded, but never cut off. Counts are what comes "
            "before gain and KOMA, which are applied when the file is opened",
        )
        self.compression = OptionsForm(SaveOptions, (*_COMPRESSION, "verify"))
        fields: Any = self.compression.fields
        self.codec, self.level, self.filter, self.block_size, self.verify = (
            widget.native for widget in fields.values()
        )
        file = filled(QWidget(), self.path, self.browse, across=True)
        fields = ("Layer", self.layers), ("", self.summary), ("File", file)
        self.setLayout(form(*fields, ("Pixel type", self.dtype)))
        preferred = preferences()
        self.choose(preferred.codec, preferred.level, "auto")
        self.layers.layer_changed.connect(self._on_layer)
        self.path.textChanged.connect(self._on_path)
        self.path.editingFinished.connect(self._complete_path)
        self.browse.clicked.connect(self._browse)
        self.dtype.currentIndexChanged.connect(self.changed)
        self.compression.changed.connect(lambda name: self.changed.emit())
        self._on_layer()

    @property
    def options(self) -> SaveOptions:
        """What is chosen."""
        path, dtype = self.path.text().strip(), self.dtype.currentData()
        return SaveOptions(path, dtype=dtype, **self.compression.values())

    def stack(self) -> Stack | None:
        """Return the layer as a stack, as it is now; None if it cannot be saved at all."""
        layer = self.layers.layer
        try:
            return None if layer is None else stack_of_layer(layer)
        except MrczError:  # `problem` says why
            return None

    def problem(self) -> str:
        """Return why nothing can be saved as chosen, or nothing."""
        layer, options = self.layers.layer, self.options
        if layer is None:
            return "Open or add an image first."
        try:
            stack_of_layer(layer)
            check_not_source(options.path, layer.data, layer.metadata)
        except MrczError as error:
            return error_text(error)
        return options.problem()

    def choose(self, codec: str, level: int, filter_: str) -> None:
        """Choose how to compress."""
        chosen = {"codec": codec, "level": level, "filter": filter_}
        self.compression.show_values(self.compression.values() | chosen)
        self.changed.emit()

    def set_path(self, path: str) -> None:
        """Choose a file."""
        self.path.setText(path)
        self.path.setCursorPosition(len(path))

    @Slot()
    def _on_layer(self) -> None:
        layer, stack = self.layers.layer, self.stack()
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
        for name in _COMPRESSION:
            self.compression.fields[name].enabled = compressed
        self._offer_dtypes(compressed)
        self.changed.emit()

    def _offer_dtypes(self, compressed: bool) -> None:
        """Fill the list of pixel types; what was chosen stays chosen where it can."""
        layer, stack = self.layers.layer, self.stack()
        counts = None if stack is None else counts_below(stack)
        beneath = None if counts is None else counts.dtype
        chosen = self.dtype.currentData()
        self.dtype.blockSignals(True)
        self.dtype.clear()
        if layer is not None:
            for text, value in dtype_choices(layer.dtype, compressed, beneath):
                self.dtype.addItem(text, value)
        self.dtype.setCurrentIndex(max(0, self.dtype.findData(chosen)))
        self.dtype.blockSignals(False)

    @Slot()
    def _browse(self) -> None:
        unasked = QFileDialog.Option.DontConfirmOverwrite  # it is asked when Save is pressed
        path, kind = QFileDialog.getSaveFileName(
            self, "Save", self.path.text(), _FILE_KINDS, options=unasked
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
    frames = counted(n, "frame") if length is None else f"{n // length} × {length} frames"
    size = stack.pixel_size[2]
    scale = f"{size:.4g} Å/pixel" if size else "pixel size unknown"
    return f"{frames} of {y} × {x}\n{stack.dtype}, {scale}"


_ROWS = {
    "In memory": "What the frames take uncompressed, in memory",
    "On disk": "What the file will take, estimated from excerpts of three frames",
    "Theoretical minimum": "Pixels that are independent of each other, such as counted electrons, "
    "cannot be stored in less without loss (Shannon 1948). Known only where values repeat",
}


class SizeChart(QWidget):
    """Bars with names and sizes, to scale."""

    def __init__(self) -> None:
        super().__init__()
        self.bars, self.values = [QProgressBar() for _ in _ROWS], [QLabel() for _ in _ROWS]
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        parts = zip(map(QLabel, _ROWS), self.bars, self.values, _ROWS.values(), strict=True)
        for row, (name, bar, value, tip) in enumerate(parts):
            bar.setTextVisible(False)
            bar.setFixedHeight(8)
            bar.setMinimumWidth(40)
            value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            # The widest text there can be, so that bars do not jump.
            value.setMinimumWidth(value.fontMetrics().horizontalAdvance("≈ 888 MB "))
            for column, widget in enumerate((name, bar, value)):
                widget.setToolTip(tip)
                grid.addWidget(widget, row, column)
        self.show_estimate(None)

    def show_estimate(self, estimate: FileEstimate | None) -> None:
        """Draw an estimate, or empty bars."""
        known = ("memory_nbytes", "nbytes", "bound_nbytes")
        sizes = [getattr(estimate, name, None) for name in known]
        largest = max((size for size in sizes if size), default=1)
        unknown = "\N{EN DASH}" if estimate is None else "unknown"
        for size, bar, value in zip(sizes, self.bars, self.values, strict=True):
            about = "" if value is self.values[0] else "≈ "
            bar.setValue(round(100 * (size or 0) / largest))
            value.setText(unknown if size is None else f"{about}{size_text(size)}")

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        for bar, fill in zip(self.bars, (colours.grid, colours.accent, colours.muted), strict=True):
            bar.setStyleSheet(
                f"QProgressBar {{ background: {colours.foreground}; border: none; }}"
                f"QProgressBar::chunk {{ background: {fill}; border-radius: 2px; }}"
            )


_HINT = "Click a point to choose it. Up is smaller, right is faster."
# One colour and one sign for each coder, so that no eye needs the colours: as pyqtgraph calls the
# sign, and as it is written below the plot.
_SIGNS = {
    COUNT_CODER: ("accent", "star", "★"),
    "zstd": ("accent", "o", "●"),
    "lz4": ("hot", "s", "■"),
    "lz4hc": ("model", "t", "▼"),
    "zlib": ("dark", "d", "◆"),
    "blosclz": ("warning", "+", "✚"),
}
_POINT_PX = 9


class Explorer(QWidget):
    """Codecs compared on some frames of a movie: button, plot, and the point under the mouse."""

    explored = Signal(object)  # the `Exploration` that is shown
    chosen = Signal(object)  # a `Trial` was clicked

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        tip = "Try all codecs, levels and filters on three frames, which takes some seconds"
        self.controls = JobControls(panel, "Compare codecs", tip, reserve=2)
        tip = "Each point is a codec, a level and a filter, tried on three frames of this movie"
        self.plot = Plot("speed of one thread (MB/s)", "compression ratio", tip)
        self.plot.getPlotItem().setLogMode(x=True)
        self._curves = {}
        for coder, (colour, sign, _) in _SIGNS.items():
            curve = self._curves[coder] = self.plot.curve(colour, symbol=sign)
            curve.setSymbolSize(_POINT_PX)
            curve.scatter.opts["hoverable"] = True
            curve.sigPointsClicked.connect(partial(self._show, chosen=True))
            curve.scatter.sigHovered.connect(self._show)
        self._bound = self.plot.line("muted", angle=0)
        signs = [(colour, written, coder) for coder, (colour, _, written) in _SIGNS.items()]
        self.legend = Key([*signs, ("muted", "╌╌", "theoretical minimum")])
        self.told = WrappedLabel("The point under the mouse")
        filled(self, self.controls, self.plot, self.legend, self.told)
        self.controls.returned.connect(self.show_exploration)
        self.clear()

    @Slot()
    def clear(self) -> None:
        """Forget what was found of another movie."""
        self.controls.cancel()
        for widget in (self.plot, self.legend, self.told):
            widget.hide()

    @Slot(object)
    def show_exploration(self, found: Exploration) -> None:
        """Draw what was found."""
        for coder, curve in self._curves.items():
            trials = [trial for trial in found.trials if trial.coder == coder]
            curve.setData([t.rate / 1e6 for t in trials], [t.ratio for t in trials], data=trials)
        self._bound.setVisible(found.bound is not None)
        if found.bound is not None:
            self._bound.setValue(found.bound)
            top = max(found.bound, max(trial.ratio for trial in found.trials))
            self.plot.getPlotItem().setYRange(0, 1.08 * top, padding=0)
        self._panel.tell(self.told, _HINT, "muted")
        for widget in (self.plot, self.legend, self.told):
            widget.show()
        self.explored.emit(found)

    def _show(self, item: Any, points: Any, event: Any = None, *, chosen: bool = False) -> None:
        if len(points):
            trial: Trial = points[0].data()
            self._panel.tell(self.told, f"Chosen: {trial}" if chosen else str(trial))
            if chosen:
                self.chosen.emit(trial)
