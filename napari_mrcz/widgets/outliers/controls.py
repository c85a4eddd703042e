"""The numbers of the "Outliers" widget: thresholds, weights and fill, table of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QWidget,
)

from napari_mrcz.widgets.base.fields import choice_field, form, number_field
from napari_mrcz.widgets.outliers.model import FitOptions
from napari_mrcz.widgets.outliers.plots import APART
from napari_mrcz.widgets.outliers.words import ROWS, summary

if TYPE_CHECKING:
    from napari_mrcz.widgets.outliers.model import Fit

_FILLS = (
    ("drawn counts", "sample"),
    ("expected value, the preprint's", "expectation"),
)
_NOTHING = "\N{EN DASH}"
_HEADS = ("dark", "hot", "both")
# Farther than any pixel can lie: nothing is an outlier there.
_FARTHEST = 99.0


class ReplacingForm(QWidget):
    """How outliers are replaced; takes effect at once.

    Attributes
    ----------
    changed : Signal()
        Something else was chosen.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.order = number_field(
            (0.5, 50.0), 0.5, "", "Steepness k of the weight at a threshold (eq. 6)"
        )
        self.relaxation = number_field(
            (0.05, 2.0),
            0.05,
            "",
            "Factor ρ on the thresholds at which a pixel keeps half of its value (eq. 6)",
        )
        self.fill = choice_field(
            _FILLS,
            "Drawn counts differ from frame to frame, stay whole numbers and leave no pattern. "
            "The expected value is the same in all frames",
        )
        self.setLayout(
            form(("Order k", self.order), ("Relaxation ρ", self.relaxation), ("Fill", self.fill))
        )
        self.show_options(FitOptions())
        self.order.valueChanged.connect(self.changed)
        self.relaxation.valueChanged.connect(self.changed)
        self.fill.currentIndexChanged.connect(self.changed)

    def show_options(self, options: FitOptions) -> None:
        """Choose these; nothing is emitted."""
        _set(self.order, options.order)
        _set(self.relaxation, options.relaxation)
        _choose(self.fill, options.fill)


class ThresholdFields(QWidget):
    """The two thresholds as numbers.

    Attributes
    ----------
    edited : Signal(str, float)
        "dark" or "hot" was typed or stepped, in standard deviations.
    """

    edited = Signal(str, float)

    def __init__(self) -> None:
        super().__init__()
        self.dark = number_field(
            (-_FARTHEST, 0.0), 0.1, " σ", "Pixels darker than this are replaced: type, or drag"
        )
        self.hot = number_field(
            (0.0, _FARTHEST), 0.1, " σ", "Pixels brighter than this are replaced: type, or drag"
        )
        self.setLayout(form(("Dark below", self.dark), ("Hot above", self.hot)))
        self.dark.valueChanged.connect(lambda value: self.edited.emit("dark", value))
        self.hot.valueChanged.connect(lambda value: self.edited.emit("hot", value))

    def show_thresholds(self, fit: Fit) -> None:
        """Show those of a fit; nothing is emitted."""
        limits = fit.current.thresholds
        for field, value, low, high in (
            (self.dark, limits.dark, -_FARTHEST, limits.hot - APART),
            (self.hot, limits.hot, limits.dark + APART, _FARTHEST),
        ):
            field.blockSignals(True)
            field.setRange(low, high)
            field.setValue(value)
            field.blockSignals(False)


class CountTable(QWidget):
    """How many pixels are outliers, and how many would be by chance."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(0, 1)
        self.setToolTip(
            "Pixels beyond the thresholds now; which part of all pixels that is; and how many good "
            "pixels the model expects there by chance"
        )
        self.heads = [self._cell(0, column, text) for column, text in enumerate(_HEADS, 1)]
        self.cells: list[list[QLabel]] = []
        for row, name in enumerate(ROWS, 1):
            self._grid.addWidget(QLabel(name), row, 0)
            self.cells.append([self._cell(row, column, _NOTHING) for column in (1, 2, 3)])

    def show_fit(self, fit: Fit | None) -> None:
        """Show numbers, or none."""
        empty = [(_NOTHING,) * len(_HEADS)] * len(self.cells)
        rows = empty if fit is None else summary(fit)
        for labels, texts in zip(self.cells, rows, strict=True):
            for label, text in zip(labels, texts, strict=True):
                label.setText(text)

    def _cell(self, row: int, column: int, text: str) -> QLabel:
        label = QLabel(text)
        label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._grid.addWidget(label, row, column)
        return label


def _set(field: QDoubleSpinBox, value: float) -> None:
    field.blockSignals(True)
    field.setValue(value)
    field.blockSignals(False)


def _choose(combo: QComboBox, value: str) -> None:
    combo.blockSignals(True)
    combo.setCurrentIndex(combo.findData(value))
    combo.blockSignals(False)
