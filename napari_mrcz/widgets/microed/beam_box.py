"""Where the beam is, and how many annuli lie about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import (
    QCheckBox,
    QGroupBox,
    QHBoxLayout,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.widgets.base.form import form, number_field, push_button
from napari_mrcz.widgets.base.job_controls import JobControls

if TYPE_CHECKING:
    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.microed.model import Center

_MOST_ANNULI = 60


class BeamBox(QGroupBox):
    """Two numbers for the beam, found or typed; the number of annuli; whether they are drawn.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.

    Attributes
    ----------
    controls : JobControls
        Finds the beam.
    drag_button : QPushButton
        Connect `clicked`.
    draw : QCheckBox
        Connect `toggled`.
    typed : Signal(float, float)
        Another centre was typed, (y, x) in pixels.
    annuli_changed : Signal()
        Another number of them was typed.
    """

    typed = Signal(float, float)
    annuli_changed = Signal()

    def __init__(self, panel: Panel) -> None:
        super().__init__("Beam and annuli")
        self.row = number_field((0, 1), 1, " pix", "Row of the beam, counted from 0 at the top")
        self.column = number_field((0, 1), 1, " pix", "Column of the beam, from 0 at the left")
        for field in (self.row, self.column):
            field.setDecimals(1)
            field.valueChanged.connect(self._on_typed)
        self.controls = JobControls(
            panel, "Find beam", "Find what the sum of all frames is most nearly symmetric about"
        )
        self.drag_button = push_button(
            "Drag beam", "Drag the cross over the pattern with the mouse; the annuli follow it"
        )
        self.controls.buttons.insertWidget(1, self.drag_button)
        self.annuli = QSpinBox()
        self.annuli.setRange(1, _MOST_ANNULI)
        self.annuli.setValue(10)
        self.annuli.setKeyboardTracking(False)
        self.annuli.setToolTip(
            "Annuli with the same number of valid pixels, each of which is fitted by itself"
        )
        self.annuli.valueChanged.connect(lambda n: self.annuli_changed.emit())
        self.draw = QCheckBox("draw")
        self.draw.setToolTip("Draw the beam and where annuli end over the pattern")
        self.draw.setChecked(True)
        rings = QWidget()
        rings.setToolTip(self.annuli.toolTip())
        row = QHBoxLayout(rings)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.annuli, stretch=1)
        row.addWidget(self.draw)
        column = QVBoxLayout(self)
        column.addLayout(form(("Row", self.row), ("Column", self.column), ("Annuli", rings)))
        column.addWidget(self.controls)

    def show_center(self, center: Center | None, shape: tuple[int, int] | None) -> None:
        """Show where the beam is in a pattern of so many rows and columns; nothing is emitted."""
        sizes = shape or (1, 1)
        for field, at, size in zip(
            (self.row, self.column), center or (0.0, 0.0), sizes, strict=True
        ):
            field.blockSignals(True)
            field.setRange(-size, 2 * size)
            field.setValue(at)
            field.blockSignals(False)
            field.setEnabled(center is not None)
        self.drag_button.setEnabled(center is not None)

    @Slot()
    def _on_typed(self) -> None:
        self.typed.emit(self.row.value(), self.column.value())
