"""Eight small pictures of a reference, one each way round; a click chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QSizePolicy, QToolButton, QWidget

from napari_mrcz.correction import ORIENTATIONS, orient
from napari_mrcz.widgets.gain.model import score_text, way_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from napari_mrcz.widgets.base.theme import Palette

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
