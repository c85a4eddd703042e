"""Parts of the "Gain" dock: which reference, and how it lies."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal, Slot
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QGridLayout,
    QMenu,
    QRadioButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_mrcz.correction import ORIENTATIONS, orient
from napari_mrcz.correction.gain import is_normalised
from napari_mrcz.errors import MrczError
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.form import WrappedLabel, filled, push_button
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.gain.model import (
    Reference,
    estimate_reference,
    load_reference,
    reference_of,
    score_text,
    way_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_mrcz.correction import OrientationSearch
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.base.plot import Palette
    from napari_mrcz.widgets.gain.model import GainChoice, Shape

_REFERENCES = "References (*.mrc *.mrcz *.mrcs *.tif *.tiff *.gain *.dm3 *.dm4);;All files (*)"
_TAKE = "Take this image as the gain reference"
_MAKE = (
    "The reciprocal of their mean, without outliers. Specimens average out: the more movies the "
    "better"
)


class References(QWidget):
    """Choose, drop or make gain and dark references; `dark` is a part of its own.

    The panel is the dock that this is in; `frames` returns rows and columns of the movie's frames.
    """

    gain_read = Signal(object)
    gain_made = Signal(object)  # from the open movies; `gain_read` follows
    dark_read = Signal(object)  # None for no dark any more

    def __init__(self, panel: Panel, frames: Callable[[], Shape | None]) -> None:
        super().__init__()
        self._panel, self._frames = panel, frames
        self._ready: Callable[[Reference], None] = self.gain_read.emit
        self.controls = JobControls(
            panel,
            "Gain reference…",
            "Choose a gain reference: MRC, TIFF, .gain, DM3 or DM4",
            reserve=2,
        )
        self.summary = self.controls.status  # of the reference, and how it fits the frames
        self.menu = QMenu(self)
        self.menu.setToolTipsVisible(True)
        self.menu_button = push_button(
            "From layers",
            "Take a layer of one image as the gain reference, or make one from the open movies",
        )
        self.menu_button.setMenu(self.menu)
        self.controls.buttons.addWidget(self.menu_button)
        self.dark_button = push_button(
            "Dark reference…",
            "Choose the mean counts of a frame without a beam, which are subtracted first. "
            "It lies as the frames do, however the gain reference is turned",
        )
        self.no_dark_button = push_button("No dark", "Subtract nothing")
        self.dark_summary = WrappedLabel("The dark reference")
        filled(self, self.controls)
        buttons = filled(QWidget(), self.dark_button, self.no_dark_button, across=True)
        self.dark = filled(QWidget(), buttons, self.dark_summary)
        self.controls.start_button.clicked.connect(lambda: self._choose("Gain", self.open))
        self.dark_button.clicked.connect(lambda: self._choose("Dark", self.open_dark))
        self.no_dark_button.clicked.connect(lambda: self.dark_read.emit(None))
        self.menu.aboutToShow.connect(self.fill_menu)
        self.controls.returned.connect(lambda reference: self._ready(reference))
        self.controls.ended.connect(self._show_state)
        FileDrops(self).dropped.connect(self.open)
        FileDrops(self.dark_button).dropped.connect(self.open_dark)
        self.show_dark(None)

    @Slot(str)
    def open(self, path: str) -> None:
        """Read a gain reference from a file."""
        self._run(partial(load_reference, path), self.gain_read.emit)

    @Slot(str)
    def open_dark(self, path: str) -> None:
        """Read a dark reference from a file."""
        self._run(partial(load_reference, path), self.dark_read.emit)

    def show_gain(self, reference: Reference | None, text: str, tone: str) -> None:
        """Describe the gain reference, and how it fits."""
        known = "" if reference is None else f"{reference.name}: {reference.gain_text}. "
        doubts = () if reference is None else reference.warnings
        tone = "warning" if doubts and tone == "text" else tone
        if not self.controls.running:
            self.controls.tell("\n".join([known + text, *doubts]), tone)

    def show_dark(self, dark: Reference | None) -> None:
        """Describe the dark reference."""
        text = "" if dark is None else f"Dark {dark.name}: {dark.dark_text}."
        self._panel.tell(self.dark_summary, text)
        self.dark_summary.setVisible(dark is not None)
        self.no_dark_button.setVisible(dark is not None)

    @Slot()
    def fill_menu(self) -> None:
        """Offer the layers of one image, and raw movies like the one that is to be normalised."""
        self.menu.clear()
        movies, frames = [], self._frames()
        for layer in self._panel.viewer.layers:
            if not isinstance(layer, Image):
                continue
            try:
                stack = stack_of_layer(layer)
            except MrczError:
                continue
            if len(stack) == 1:
                # An entry of a menu keeps no layer.
                self._offer(layer.name, _TAKE, partial(self._take, weakref.ref(layer)))
            elif not is_normalised(stack.history) and stack.shape[1:] == frames:
                movies.append(stack)
        self.menu.addSeparator()
        number = "the open movie" if len(movies) == 1 else f"the {len(movies)} open movies"
        make = partial(self._run, partial(estimate_reference, movies), self._on_made)
        self._offer(f"Make one from {number}", _MAKE, make).setEnabled(bool(movies))

    def _offer(self, text: str, tip: str, act: Callable[..., None]) -> Any:
        action: Any = self.menu.addAction(text)
        action.setToolTip(tip)
        action.triggered.connect(lambda: act())
        return action

    def _take(self, known: weakref.ref[Image]) -> None:
        if (layer := known()) is not None:
            work = partial(reference_of, stack_of_layer(layer), layer.name)
            self._run(work, self.gain_read.emit)

    def _run(self, work: Callable[[Report], Reference], ready: Callable[[Reference], None]) -> None:
        if not self.controls.running:
            self._ready = ready
            self.controls.run(work)
            self._show_state()

    @Slot()
    def _show_state(self) -> None:
        for button in (self.menu_button, self.dark_button, self.no_dark_button):
            button.setEnabled(not self.controls.running)

    def _on_made(self, reference: Reference) -> None:
        self.gain_made.emit(reference)
        self.gain_read.emit(reference)

    def _choose(self, kind: str, take: Callable[[str], None]) -> None:
        path, _ = QFileDialog.getOpenFileName(self, f"{kind} reference", "", _REFERENCES)
        if path:
            take(path)


class FileDrops(QObject):
    """Takes single files dropped onto a widget, which keeps this, or anything in it."""

    dropped = Signal(str)  # the path of a file

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: Any) -> bool:
        """Accept what is a file, and take it."""
        kinds = (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop)
        if event is None or event.type() not in kinds:
            return False
        urls = event.mimeData().urls()
        path = urls[0].toLocalFile() if len(urls) == 1 else ""
        if not path:
            event.ignore()
            return True
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self.dropped.emit(path)
        return True


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
_SIZE_PX = 40


class Orientation(QWidget):
    """One of sixteen ways in which the reference may lie, chosen by its look or by its score."""

    chosen = Signal(str, bool)  # an orientation, and whether the reference is divided by

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self._search: OrientationSearch | None = None
        self._choice: GainChoice | None = None
        self.order: tuple[str, ...] = ()
        self.multiply = QRadioButton("multiply by it")
        self.multiply.setToolTip("Its values are factors for raw counts, as most programs have it")
        self.divide = QRadioButton("divide by it")
        self.divide.setToolTip("Its values are mean counts, as those of EER movies (.gain) are")
        self.multiply.setChecked(True)
        self.legend = WrappedLabel(
            "R is the mean correlation between any two frames (preprint, eq. 7): a fixed pattern "
            "that is left raises it"
        )
        self.thumbnails = QWidget()
        self._grid = QGridLayout(self.thumbnails)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(1)
        group = QButtonGroup(self)
        self.buttons: dict[str, QToolButton] = {}
        for name in ORIENTATIONS:
            button = self.buttons[name] = QToolButton()
            button.setCheckable(True)
            button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
            button.setIconSize(QSize(_SIZE_PX, _SIZE_PX))
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.clicked.connect(lambda _, name=name: self._choose(name))
            group.addButton(button)
        signs = filled(QWidget(), self.multiply, self.divide, across=True)
        filled(self, self.thumbnails, self.legend, signs, spacing=2)
        self.divide.clicked.connect(lambda: self._choose())
        self.multiply.clicked.connect(lambda: self._choose())
        self.show_search(None)

    def show_choice(self, choice: GainChoice) -> None:
        """Mark what is chosen; only ways that fit can be."""
        old, self._choice = self._choice, choice
        (self.divide if choice.reciprocal else self.multiply).setChecked(True)
        self.buttons[choice.orientation].setChecked(True)
        shown = choice.reference, choice.reciprocal
        if old is None or shown != (old.reference, old.reciprocal):
            grey = np.full((1, 1), 128, np.uint8)
            picture = grey if choice.reference is None else choice.reference.picture
            for name, button in self.buttons.items():
                # Of a reciprocal with black and white exchanged.
                button.setIcon(_icon(orient(~picture if choice.reciprocal else picture, name)))
        self._show_scores()

    def show_search(self, search: OrientationSearch | None) -> None:
        """Show the scores of all ways."""
        self._search = search
        scale = "Fixed-pattern noise left (×10⁻³, lower is better). Uncorrected: "
        before = "" if search is None else f"{scale}{score_text(search.before)}."
        self._panel.tell(self.legend, before, "muted")
        self.legend.setVisible(search is not None)
        self._show_scores()

    def apply_palette(self, colours: Palette) -> None:
        """Frame the chosen one."""
        self.thumbnails.setStyleSheet(
            "QToolButton { border: 2px solid transparent; border-radius: 3px; padding: 2px;"
            " font-size: 10px; background: transparent; }"
            f"QToolButton:hover {{ border-color: {colours.grid}; }}"
            f"QToolButton:checked:enabled {{ border-color: {colours.accent};"
            f" background: {colours.foreground}; }}"
            f"QToolButton:disabled {{ color: {colours.muted}; }}"
        )

    def _show_scores(self) -> None:
        """Write a score under each that has one, and put them in order, the lowest first."""
        found = () if self._search is None else self._search.candidates
        reciprocal = self.divide.isChecked()
        scores = {one.orientation: one.noise for one in found if one.reciprocal == reciprocal}
        fitting = () if self._choice is None else self._choice.fitting
        has_reference = self._choice is not None and self._choice.reference is not None
        for name, button in self.buttons.items():
            tip = f"The reference {way_text(name)}"
            score = score_text(scores[name]) if name in scores else ""
            if name not in fitting and has_reference:
                tip += ": does not fit the frames"
            elif score:
                tip += f": leaves fixed-pattern noise of {score} × 10⁻³"
            button.setEnabled(name in fitting)
            button.setToolTip(tip)
            button.setText(f"{_SHORT[name]}\n{score}".strip())
        order = tuple(sorted(ORIENTATIONS, key=lambda name: scores.get(name, np.inf)))
        if order != self.order:
            self.order = order
            for at, name in enumerate(order):
                self._grid.addWidget(self.buttons[name], *divmod(at, 4))

    def _choose(self, orientation: str = "") -> None:
        if self._choice is not None:
            self.chosen.emit(orientation or self._choice.orientation, self.divide.isChecked())


def _icon(grey: npt.NDArray[np.uint8]) -> QIcon:
    grey = np.ascontiguousarray(grey)
    y, x = grey.shape
    image = QImage(grey.tobytes(), x, y, x, QImage.Format.Format_Grayscale8)
    pixmap = QPixmap.fromImage(image)  # a copy, which outlives the array
    aspect, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    return QIcon(pixmap.scaled(_SIZE_PX, _SIZE_PX, aspect, smooth))
