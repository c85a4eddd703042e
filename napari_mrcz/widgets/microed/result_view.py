"""What a fit found: before and after, offset, one histogram, and the table of all regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QSpinBox, QWidget

from napari_mrcz.errors import MINUS
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.microed.fit_table import FitTable, rows
from napari_mrcz.widgets.microed.histogram_view import HistogramView

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.microed.model import Fit
    from napari_mrcz.widgets.microed.sweeps import Sweep


class ResultView(QWidget):
    """Does nothing by itself but to keep its parts at the same region.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.

    Attributes
    ----------
    toggle_button, save_button : QPushButton
        Connect `clicked`.
    region_chosen : Signal(int)
        Another region (1 ... k) was chosen, by any means.
    """

    region_chosen = Signal(int)

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.toggle_button = push_button(
            "Show before", "Change between the movie as recorded and as corrected"
        )
        self.save_button = push_button(
            "Save corrected…", "Open the Save stack widget with the corrected movie"
        )
        self.offset = WrappedLabel(
            "Added to all pixels where a format has no negative numbers, such as SMV: the "
            "command napari-mrcz microed writes these. MRC files need none"
        )
        self.region = QSpinBox()
        self.region.setKeyboardTracking(False)
        self.region.setToolTip("The annulus whose histogram is shown; or click it in the pattern")
        self.region_label = QLabel("Annulus")
        self.region_label.setToolTip(self.region.toolTip())
        self.view = HistogramView(panel)
        self.table = FitTable()
        choosing = QHBoxLayout()
        choosing.addWidget(self.region_label)
        choosing.addWidget(self.region, stretch=1)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.toggle_button, 0, 0)
        grid.addWidget(self.save_button, 0, 1)
        grid.addWidget(self.offset, 1, 0, 1, 2)
        grid.addLayout(choosing, 2, 0, 1, 2)
        grid.addWidget(self.view, 3, 0, 1, 2)
        grid.addWidget(self.table, 4, 0, 1, 2)
        self.region.valueChanged.connect(self._on_region)
        self.table.chosen.connect(self.region.setValue)
        self.show_sweep(None)

    def show_sweep(self, sweep: Sweep | None) -> None:
        """Show another fit, or none."""
        fit = None if sweep is None else sweep.fit
        self.view.clear()
        self.table.show_rows([])
        self.region.blockSignals(True)
        self.region.setRange(1, 1 if fit is None else fit.model.n_regions)
        self.region.setSuffix("" if fit is None else f" of {fit.model.n_regions}")
        self.region.blockSignals(False)
        self.region_label.setText("Annulus" if fit is None or fit.has_annuli else "Region")
        self._panel.tell(self.offset, "" if fit is None else summary(fit))
        for part in (self.region, self.region_label, self.offset):
            part.setVisible(fit is not None)
        self.show_state(sweep)

    def show_state(self, sweep: Sweep | None) -> None:
        """Enable what can be used now."""
        corrected = None if sweep is None else sweep.corrected
        self.toggle_button.setEnabled(corrected is not None)
        self.save_button.setEnabled(corrected is not None)
        before = corrected is None or corrected.shows_after
        self.toggle_button.setText("Show before" if before else "Show after")

    def show_frame(self, fit: Fit, frame: int) -> None:
        """Show the parameters of another frame."""
        self.table.show_rows(rows(fit, frame))
        self.table.choose(self.region.value())

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.view.apply_palette(colours)

    @Slot(int)
    def _on_region(self, region: int) -> None:
        self.table.choose(region)
        self.region_chosen.emit(region)


def summary(fit: Fit) -> str:
    """Say what the fit changes, which offset it needs, and what it left as it was."""
    model = fit.model
    share = int(model.zeros.sum()) / fit.stack.size
    depth, offset = model.pedestal - model.smallest, model.pedestal + model.offset
    if not depth:
        said = [f"{share:.1%} of the pixels had no counts; none of them becomes negative."]
    else:
        said = [
            f"{share:.1%} of the pixels had no counts. They reach down to {MINUS}{depth} "
            f"now: formats without negative numbers need the offset {offset} (ADCOFFSET)."
        ]
    if model.pedestal:
        said.append(f"All pixels keep the pedestal of {model.pedestal}.")
    if model.n_unfitted:
        regions = "region has" if model.n_unfitted == 1 else "regions have"
        said.append(
            f"{model.n_unfitted} {regions} too few counts to fit, in all frames together, and "
            "keep their zeros."
        )
    return " ".join(said)
