"""Which way round the reference lies: thumbnails, gain or reciprocal, and finding it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QRadioButton, QVBoxLayout

from napari_mrcz.widgets.base.job_controls import JobControls
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.gain.model import score_text, search_text
from napari_mrcz.widgets.gain.thumbnails import Thumbnails

if TYPE_CHECKING:
    from napari_mrcz.correction import OrientationSearch
    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.gain.model import GainChoice


class OrientationBox(QGroupBox):
    """Choose one of sixteen ways, or have it found.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.

    Attributes
    ----------
    chosen : Signal(str, bool)
        An orientation, and whether the reference is divided by.
    """

    chosen = Signal(str, bool)

    def __init__(self, panel: Panel) -> None:
        super().__init__("Orientation")
        self._panel = panel
        self._search: OrientationSearch | None = None
        self._choice: GainChoice | None = None
        self.multiply = QRadioButton("multiply by it")
        self.multiply.setToolTip("Its values are factors for raw counts, as most programs have it")
        self.divide = QRadioButton("divide by it")
        self.divide.setToolTip("Its values are mean counts, as those of EER movies (.gain) are")
        self.multiply.setChecked(True)
        self.thumbnails = Thumbnails()
        self.legend = WrappedLabel(
            "R is the mean correlation between any two frames (preprint, eq. 7): a fixed pattern "
            "that is left raises it"
        )
        self.controls = JobControls(
            panel,
            "Find orientation",
            "Try all sixteen ways on this movie; the right one leaves the least noise that is "
            "common to all frames",
        )
        self.verdict = WrappedLabel("How sure the best way is")
        signs = QHBoxLayout()
        signs.addWidget(self.multiply)
        signs.addWidget(self.divide)
        signs.addStretch()
        column = QVBoxLayout(self)
        margins = column.contentsMargins()
        # Four thumbnails with their names side by side need nearly all of a narrow dock.
        column.setContentsMargins(4, margins.top(), 4, margins.bottom())
        column.addWidget(self.thumbnails)
        column.addWidget(self.legend)
        column.addLayout(signs)
        column.addWidget(self.controls)
        column.addWidget(self.verdict)
        self.thumbnails.chosen.connect(lambda name: self.chosen.emit(name, self.reciprocal))
        self.divide.clicked.connect(self._on_sign)
        self.multiply.clicked.connect(self._on_sign)
        self.show_search(None)

    @property
    def reciprocal(self) -> bool:
        """Whether the reference is divided by."""
        return bool(self.divide.isChecked())

    def show_choice(self, choice: GainChoice) -> None:
        """Mark what is chosen."""
        old, self._choice = self._choice, choice
        (self.divide if choice.reciprocal else self.multiply).setChecked(True)
        if (
            old is None
            or old.reference is not choice.reference
            or old.reciprocal != choice.reciprocal
        ):
            picture = None if choice.reference is None else choice.reference.picture
            self.thumbnails.show_picture(picture, reciprocal=choice.reciprocal)
        self._show_scores()
        self.thumbnails.show_choice(choice.orientation, choice.fitting)

    def show_search(self, search: OrientationSearch | None) -> None:
        """Show the scores of all ways, and how sure the best is."""
        self._search = search
        text, tone = ("", "text") if search is None else search_text(search)
        self._panel.tell(self.verdict, text, tone)
        self.verdict.setVisible(bool(text))
        self._panel.tell(
            self.legend,
            ""
            if search is None
            else "Fixed-pattern noise left (×10⁻³, lower is better). "
            f"Uncorrected: {score_text(search.before)}.",
            "muted",
        )
        self.legend.setVisible(search is not None)
        self._show_scores()

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.thumbnails.apply_palette(colours)

    def _show_scores(self) -> None:
        scores = (
            {}
            if self._search is None
            else {
                found.orientation: found.noise
                for found in self._search.candidates
                if found.reciprocal == self.reciprocal
            }
        )
        self.thumbnails.show_scores(scores)

    @Slot()
    def _on_sign(self) -> None:
        if self._choice is not None:
            self.chosen.emit(self._choice.orientation, self.reciprocal)
