"""Which way round the reference lies: thumbnails, gain or reciprocal, and finding it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal, Slot
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QRadioButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.correction import ORIENTATIONS, orient
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.gain.model import score_text, search_text, way_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

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


_SHORT = {
    "identity": "unchanged",
    "rot90": "90° left",
    "rot180": "180°",
    "rot270": "90° right",
    "flipud": "flip vert.",
    "fliplr": "flip hor.",
    "transpose": "transpose",
    "transverse": "transverse",
}
_SIZE_PX = 50
_COLUMNS = 4


class Thumbnails(QWidget):
    """A grid of buttons, the best score first where there are scores.

    Attributes
    ----------
    chosen : Signal(str)
        An orientation was clicked.
    """

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(1)
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QToolButton] = {}
        for name in ORIENTATIONS:
            button = QToolButton()
            button.setCheckable(True)
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
            button.setIconSize(QSize(_SIZE_PX, _SIZE_PX))
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.clicked.connect(lambda _, name=name: self.chosen.emit(name))
            self._group.addButton(button)
            self.buttons[name] = button
        self.order: tuple[str, ...] = ()
        self.show_scores({})
        self.show_picture(None, reciprocal=False)
        self.show_choice("identity", ())

    def show_picture(self, picture: npt.NDArray[np.uint8] | None, *, reciprocal: bool) -> None:
        """Draw a picture each way round; of a reciprocal with black and white exchanged."""
        for name, button in self.buttons.items():
            pixels = np.full((1, 1), 128, np.uint8) if picture is None else orient(picture, name)
            button.setIcon(_icon(~pixels if reciprocal else pixels))

    def show_choice(self, orientation: str, fitting: Sequence[str]) -> None:
        """Mark the one that is chosen; only those that fit can be."""
        for name, button in self.buttons.items():
            button.setEnabled(name in fitting)
            button.setToolTip(self._tip(name, fits=name in fitting))
        self.buttons[orientation].setChecked(True)

    def show_scores(self, scores: Mapping[str, float]) -> None:
        """Write a score under each that has one, and put them in order, the lowest first."""
        self._scores = dict(scores)
        order = tuple(sorted(ORIENTATIONS, key=lambda name: scores.get(name, np.inf)))
        for name, button in self.buttons.items():
            score = f"\n{score_text(scores[name])}" if name in scores else ""
            button.setText(_SHORT[name] + score)
        if order != self.order:
            self.order = order
            for at, name in enumerate(order):
                self._grid.addWidget(self.buttons[name], *divmod(at, _COLUMNS))

    def apply_palette(self, colours: Palette) -> None:
        """Frame the chosen one."""
        self.setStyleSheet(
            "QToolButton { border: 2px solid transparent; border-radius: 3px; padding: 2px;"
            " font-size: 10px; background: transparent; }"
            f"QToolButton:hover {{ border-color: {colours.grid}; }}"
            f"QToolButton:checked:enabled {{ border-color: {colours.accent};"
            f" background: {colours.foreground}; }}"
            f"QToolButton:disabled {{ color: {colours.muted}; }}"
        )

    def _tip(self, name: str, *, fits: bool) -> str:
        tip = f"The reference {way_text(name)}"
        if not fits:
            return f"{tip}: does not fit the frames"
        if name in self._scores:
            tip += f": leaves fixed-pattern noise of {score_text(self._scores[name])} × 10⁻³"
        return tip


def _icon(grey: npt.NDArray[np.uint8]) -> QIcon:
    grey = np.ascontiguousarray(grey)
    y, x = grey.shape
    image = QImage(grey.tobytes(), x, y, x, QImage.Format.Format_Grayscale8)
    pixmap = QPixmap.fromImage(image)  # a copy, which outlives the array
    return QIcon(
        pixmap.scaled(
            _SIZE_PX,
            _SIZE_PX,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
    )
