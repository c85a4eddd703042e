"""Codecs compared on some frames of a movie: size against speed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_mrcz.format import Encoding
from napari_mrcz.format.encoding import (
    COUNT_CODER,
    choose_encoding,
    compressed_fraction,
    shannon_fraction,
)
from napari_mrcz.format.header import CODECS
from napari_mrcz.format.storage import choose_storage
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.base.plot import Key, Plot
from napari_mrcz.widgets.save_stack.model import as_saved

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.save_stack.model import SaveOptions

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
    """Button, plot and what the point under the mouse is.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.

    Attributes
    ----------
    explored : Signal(object)
        An `Exploration` is shown.
    chosen : Signal(object)
        A `Trial` was clicked.
    """

    explored = Signal(object)
    chosen = Signal(object)

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.controls = JobControls(
            panel,
            "Compare codecs",
            "Try all codecs, levels and filters on three frames, which takes some seconds",
        )
        self.plot = Plot(
            "speed of one thread (MB/s)",
            "compression ratio",
            "Each point is a codec, a level and a filter, tried on three frames of this movie",
        )
        self.plot.getPlotItem().setLogMode(x=True)
        self._curves = {}
        self._trials: dict[Any, list[Trial]] = {}
        for coder, (colour, sign, _) in _SIGNS.items():
            curve = self.plot.curve(colour, symbol=sign)
            curve.setSymbolSize(_POINT_PX)
            curve.scatter.opts["hoverable"] = True
            curve.sigPointsClicked.connect(self._on_clicked)
            curve.scatter.sigHovered.connect(self._on_hovered)
            self._curves[coder] = curve
        self._bound = self.plot.line("muted", angle=0)
        signs = [(colour, written, coder) for coder, (colour, _, written) in _SIGNS.items()]
        self.legend = Key([*signs, ("muted", "╌╌", "theoretical minimum")])
        self.told = WrappedLabel("The point under the mouse")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.controls, self.plot, self.legend, self.told):
            column.addWidget(widget)
        self.controls.returned.connect(self._on_explored)
        self.clear()

    @property
    def busy(self) -> bool:
        """Whether something is tried."""
        return self.controls.running

    def explore(self, stack: Stack, options: SaveOptions) -> None:
        """Try everything on a movie."""
        self.controls.run(partial(explore, stack, options))

    def clear(self) -> None:
        """Forget what was found of another movie."""
        self.controls.cancel()
        for widget in (self.plot, self.legend, self.told):
            widget.hide()

    def show_exploration(self, found: Exploration) -> None:
        """Draw what was found."""
        for coder, curve in self._curves.items():
            trials = [trial for trial in found.trials if trial.coder == coder]
            curve.setData([t.rate / 1e6 for t in trials], [t.ratio for t in trials])
            self._trials[curve.scatter] = trials
        self._bound.setVisible(found.bound is not None)
        if found.bound is not None:
            self._bound.setValue(found.bound)
            top = max(found.bound, max(trial.ratio for trial in found.trials))
            self.plot.getPlotItem().setYRange(0, 1.08 * top, padding=0)
        self._panel.tell(self.told, _HINT, "muted")
        for widget in (self.plot, self.legend, self.told):
            widget.show()
        self.explored.emit(found)

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.plot.apply_palette(colours)
        self.legend.apply_palette(colours)

    @Slot(object)
    def _on_explored(self, found: Exploration) -> None:
        self.show_exploration(found)

    def _on_clicked(self, curve: Any, points: Any, event: Any = None) -> None:
        if len(points):
            trial = self._trials[curve.scatter][points[0].index()]
            self._panel.tell(self.told, f"Chosen: {trial}")
            self.chosen.emit(trial)

    def _on_hovered(self, scatter: Any, points: Any, event: Any = None) -> None:
        if len(points):
            self._panel.tell(self.told, str(self._trials[scatter][points[0].index()]))


_LEVELS = (1, 3, 5, 9)


@dataclass(frozen=True)
class Trial:
    """What one choice came to.

    Attributes
    ----------
    codec, level, filter
        The choice.
    coder : str
        What codes the frames then: the codec, or our own encoder for counts.
    ratio : float
        Bytes in memory over bytes on disk.
    rate : float
        Bytes a second in one thread.
    """

    codec: str
    level: int
    filter: str
    coder: str
    ratio: float
    rate: float

    def __str__(self) -> str:
        """Return it in a line."""
        filter_ = "no filter" if self.filter == "none" else self.filter
        speed = f"{self.rate / 1e6:.0f} MB/s a thread"
        return f"{self.coder}, level {self.level}, {filter_}: {self.ratio:.3g} to 1 at {speed}"


@dataclass(frozen=True)
class Exploration:
    """All choices tried on a movie.

    Attributes
    ----------
    trials : tuple of Trial
        In no order that means anything.
    bound : float or None
        The largest ratio that independent pixels allow (Shannon's bound), where it is known.
    """

    trials: tuple[Trial, ...]
    bound: float | None


def explore(stack: Stack, options: SaveOptions, report: Report) -> Exploration:
    """Try all codecs, levels and filters on excerpts of three frames, as they will be stored.

    Raises
    ------
    MrczError
        If the frames cannot be stored as wanted.
    """
    plain = Encoding("zstd", 1, "none", "auto")
    stack, options = as_saved(stack, options)
    path = f"{options.path or 'movie'}"
    samples = stack.sample_makers()
    storage, excerpts = choose_storage(path, samples, options.dtype, plain, wide=False)
    frame_nbytes = storage.shape[0] * storage.shape[1] * storage.stored.itemsize
    filters = (
        ("bitshuffle", "none", "shuffle")
        if storage.stored.itemsize > 1
        else (
            "bitshuffle",
            "none",
        )
    )
    choices = list(product(CODECS, _LEVELS, filters))
    trials = []
    for done, (codec, level, filter_) in enumerate(choices):
        report("Trying compression", done, len(choices))
        wanted = Encoding(codec, level, filter_, options.block_size)
        trials.append(_try(wanted, excerpts, frame_nbytes))
    bound = shannon_fraction(excerpts)
    report("Trying compression", len(choices), len(choices))
    return Exploration(tuple(trials), None if not bound else 1 / bound)


def _try(wanted: Encoding, excerpts: Sequence[npt.NDArray[Any]], frame_nbytes: int) -> Trial:
    chosen = choose_encoding(wanted, excerpts, frame_nbytes)
    start = time.perf_counter()
    fraction = compressed_fraction(chosen, excerpts)
    rate = sum(pixels.nbytes for pixels in excerpts) / (time.perf_counter() - start)
    return Trial(wanted.codec, wanted.level, wanted.filter, chosen.coder, 1 / fraction, rate)
