"""Parts of the "Gain" dock: which reference, how it lies, and defective pixels."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QFileDialog,
    QGridLayout,
    QMenu,
    QPushButton,
    QRadioButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)
from superqt.utils import QSignalDebouncer

from napari_mrcz.correction import ORIENTATIONS, orient
from napari_mrcz.correction.gain import is_normalised
from napari_mrcz.errors import MrczError
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.derived import add_layer, geometry
from napari_mrcz.widgets.base.form import WrappedLabel, filled, push_button
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import connect_while_alive
from napari_mrcz.widgets.gain import model

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from napari_mrcz.correction import OrientationSearch
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.base.plot import Palette
    from napari_mrcz.widgets.gain.model import GainChoice, Reference, Shape

_REFERENCES = "References (*.mrc *.mrcz *.mrcs *.tif *.tiff *.gain *.dm3 *.dm4);;All files (*)"
_DEFECTS = "Defects (*.txt *.mrc *.mrcz *.tif *.tiff);;All files (*)"
_TAKE = "Take this image as the gain reference"
_MAKE = (
    "The reciprocal of their mean, without outliers. Specimens average out: the more movies the "
    "better"
)


class FileDrops(QObject):
    """Takes single files dropped onto a widget, which keeps this, or anything in it."""

    def __init__(self, widget: QWidget, take: Callable[[str], None]) -> None:
        super().__init__(widget)
        self._take = take
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: Any) -> bool:
        """Accept what is a file, and take it."""
        kinds = (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop)
        if event is None or event.type() not in kinds:
            return False
        urls = event.mimeData().urls()
        path = urls[0].toLocalFile() if len(urls) == 1 else ""
        event.setAccepted(bool(path))
        if path and event.type() == QEvent.Type.Drop:
            self._take(path)
        return True


def ask_for_file(button: QPushButton, title: str, kinds: str, take: Callable[[str], None]) -> None:
    """Make a button ask for a file, and hand over its path."""

    def ask() -> None:
        path, _ = QFileDialog.getOpenFileName(button, title, "", kinds)
        if path:
            take(path)

    button.clicked.connect(ask)


class References(QWidget):
    """Choose, drop or make gain and dark references; `dark` is a part of its own.

    The panel is the dock that this is in; `frames` returns rows and columns of the movie's frames.
    """

    # "reference", "made" (a reference, from the open movies) or "dark", and which; None for no dark
    # any more.
    read = Signal(str, object)

    def __init__(self, panel: Panel, frames: Callable[[], Shape | None]) -> None:
        super().__init__()
        self._panel, self._frames = panel, frames
        self._kind = ""  # of what is read now, or was last
        tip = "Choose a gain reference: MRC, TIFF, .gain, DM3 or DM4"
        self.controls = JobControls(panel, "Gain reference…", tip, reserve=2)
        self.summary = self.controls.status  # of the reference, and how it fits the frames
        self.menu = QMenu(self)
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self.fill_menu)
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
        self.no_dark_button.clicked.connect(lambda: self.read.emit("dark", None))
        self.dark_summary = WrappedLabel("The dark reference")
        filled(self, self.controls)
        buttons = filled(QWidget(), self.dark_button, self.no_dark_button, across=True)
        self.dark = filled(QWidget(), buttons, self.dark_summary)
        for button, title, drops, take in (
            (self.controls.start_button, "Gain reference", self, self.open),
            (self.dark_button, "Dark reference", self.dark_button, self.open_dark),
        ):
            ask_for_file(button, title, _REFERENCES, take)
            FileDrops(drops, take)
        self.controls.returned.connect(lambda found: self.read.emit(self._kind, found))
        self.controls.ended.connect(self._show_state)
        self.show_dark(None)

    def open(self, path: str) -> None:
        """Read a gain reference from a file."""
        self._run("reference", partial(model.load_reference, path))

    def open_dark(self, path: str) -> None:
        """Read a dark reference from a file."""
        self._run("dark", partial(model.load_reference, path))

    def show_gain(self, reference: Reference | None, text: str, tone: str) -> None:
        """Describe the gain reference, and how it fits."""
        known = "" if reference is None else f"{reference.name}: {reference.gain_text}. "
        doubts = () if reference is None else reference.warnings
        tone = "warning" if doubts and tone == "text" else tone
        if not self.controls.running:
            self.controls.tell("\n".join([known + text, *doubts]), tone)

    def show_dark(self, dark: Reference | None) -> None:
        """Describe the dark reference."""
        if dark is not None:
            self._panel.tell(self.dark_summary, f"Dark {dark.name}: {dark.dark_text}.")
        for part in (self.dark_summary, self.no_dark_button):
            part.setVisible(dark is not None)

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
        make = partial(self._run, "made", partial(model.estimate_reference, movies))
        self._offer(f"Make one from {number}", _MAKE, make).setEnabled(bool(movies))

    def _offer(self, text: str, tip: str, act: Callable[[], None]) -> Any:
        action: Any = self.menu.addAction(text)
        action.setToolTip(tip)
        action.triggered.connect(lambda: act())
        return action

    def _take(self, known: weakref.ref[Image]) -> None:
        if (layer := known()) is not None:
            self._run("reference", partial(model.reference_of, stack_of_layer(layer), layer.name))

    def _run(self, kind: str, work: Callable[[Report], Reference]) -> None:
        if not self.controls.running:
            self._kind = kind
            self.controls.run(work)
            self._show_state()

    def _show_state(self) -> None:
        for button in (self.menu_button, self.dark_button, self.no_dark_button):
            button.setEnabled(not self.controls.running)


_SIZE_PX = 40


class Orientation(QWidget):
    """One of sixteen ways in which the reference may lie, chosen by its look or by its score."""

    chosen = Signal(object)  # an orientation, and whether it is divided by, as in `GainChoice`

    def __init__(self, panel: Panel, choice: GainChoice) -> None:
        super().__init__()
        self._panel, self._choice = panel, choice
        self._search: OrientationSearch | None = None
        self._pictured: Any = None  # reference and sign
        self.order: tuple[str, ...] = ()
        self.multiply = QRadioButton("multiply by it")
        self.multiply.setToolTip("Its values are factors for raw counts, as most programs have it")
        self.divide = QRadioButton("divide by it")
        self.divide.setToolTip("Its values are mean counts, as those of EER movies (.gain) are")
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
        for sign in (self.multiply, self.divide):
            sign.clicked.connect(lambda: self._choose(self._choice.orientation))
        signs = filled(QWidget(), self.multiply, self.divide, across=True)
        filled(self, self.thumbnails, self.legend, signs, spacing=2)
        self.show_search(None)

    def show_choice(self, choice: GainChoice) -> None:
        """Mark what is chosen; only ways that fit can be."""
        self._choice, reference = choice, choice.reference
        (self.divide if choice.reciprocal else self.multiply).setChecked(True)
        self.buttons[choice.orientation].setChecked(True)
        if self._pictured != (reference, choice.reciprocal):
            self._pictured = reference, choice.reciprocal
            grey = np.full((1, 1), 128, np.uint8) if reference is None else reference.picture
            for name, button in self.buttons.items():
                # Of a reciprocal with black and white exchanged.
                button.setIcon(_icon(orient(~grey if choice.reciprocal else grey, name)))
        self._show_scores()

    def show_search(self, search: OrientationSearch | None) -> None:
        """Show the scores of all ways."""
        self._search = search
        if search is not None:
            scale = "Fixed-pattern noise left (×10⁻³, lower is better). Uncorrected: "
            self._panel.tell(self.legend, f"{scale}{model.score_text(search.before)}.", "muted")
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
        reciprocal, fitting = self._choice.reciprocal, self._choice.fitting
        scores = {one.orientation: one.noise for one in found if one.reciprocal == reciprocal}
        for name, button in self.buttons.items():
            tip = f"The reference {model.WAYS[name][0]}"
            score = model.score_text(scores[name]) if name in scores else ""
            if name not in fitting and self._choice.reference is not None:
                tip += ": does not fit the frames"
            elif score:
                tip += f": leaves fixed-pattern noise of {score} × 10⁻³"
            button.setEnabled(name in fitting)
            button.setToolTip(tip)
            button.setText(f"{model.WAYS[name][1]}\n{score}".strip())
        order = tuple(sorted(ORIENTATIONS, key=lambda name: scores.get(name, np.inf)))
        if order != self.order:
            self.order = order
            for at, name in enumerate(order):
                self._grid.addWidget(self.buttons[name], *divmod(at, 4))

    def _choose(self, orientation: str) -> None:
        self.chosen.emit({"orientation": orientation, "reciprocal": self.divide.isChecked()})


def _icon(grey: npt.NDArray[np.uint8]) -> QIcon:
    y, x = grey.shape
    image = QImage(grey.tobytes(), x, y, x, QImage.Format.Format_Grayscale8)
    pixmap = QPixmap.fromImage(image)  # a copy, which outlives the array
    aspect, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    return QIcon(pixmap.scaled(_SIZE_PX, _SIZE_PX, aspect, smooth))


_REST_MS = 100


class Defects(QWidget):
    """Defective pixels: imported, joined with those of the reference, painted, exported.

    `movie` returns the image layer whose camera it is, `frames` rows and columns of its frames.
    """

    def __init__(
        self, panel: Panel, movie: Callable[[], Image | None], frames: Callable[[], Shape | None]
    ) -> None:
        super().__init__()
        self._panel, self._movie, self._frames = panel, movie, frames
        self._layer: weakref.ref[Any] | None = None
        # Counted when the brush rests; some events come before the pixels have changed.
        self._soon = QSignalDebouncer(parent=self)
        self._soon.setTimeout(_REST_MS)
        self._without_gain: npt.NDArray[np.bool_] | None = None
        self.controls = JobControls(
            panel, "Import…", "Add the pixels of a list of SerialEM or MotionCor, or of a map"
        )
        self.show_button = push_button(
            "Show", "Show them as a labels layer, to be painted and erased with napari's own tools"
        )
        self.export_button = push_button(
            "Export…", "Write them for SerialEM, for MotionCor, or as a map"
        )
        for button in (self.show_button, self.export_button):
            self.controls.buttons.addWidget(button)
        self.join = QCheckBox("with pixels without usable gain")
        self.join.setToolTip("Gain that is 0, negative or no number marks a pixel as defective")
        self.join.setChecked(True)
        self.count = WrappedLabel("How many pixels are defective")
        filled(self, self.controls, self.join, self.count)
        for signal, slot in (
            (self._soon.triggered, self.refresh),
            (self.show_button.clicked, self.show_layer),
            (self.export_button.clicked, self._export),
            (self.join.toggled, self._rejoin),
            (self.controls.returned, self._on_returned),
            (self.controls.ended, self.refresh),
        ):
            signal.connect(slot)
        ask_for_file(self.controls.start_button, "Defective pixels", _DEFECTS, self.open)
        FileDrops(self, self.open)
        connect_while_alive(self, panel.viewer.layers.events.removed, self.refresh)
        self.refresh()

    @property
    def layer(self) -> Any:
        """The labels, while they are in the viewer and are those of such frames; or None."""
        layer = None if self._layer is None else self._layer()
        if layer is None or layer not in self._panel.viewer.layers:
            return None
        return layer if self._frames() in (None, layer.data.shape) else None

    def set_without_gain(self, pixels: npt.NDArray[np.bool_] | None) -> None:
        """Show which pixels have no usable gain, as the frames lie; None if it is not known."""
        known, self._without_gain = self._without_gain, pixels
        if known is None or pixels is None or not np.array_equal(known, pixels):
            self._rejoin()

    def open(self, path: str) -> None:
        """Add the pixels of a list or map."""
        if (frames := self._frames()) is not None:
            self.controls.run(partial(model.load_defects, path, frames))
            self.refresh()

    def show_layer(self) -> None:
        """Show the labels, made where there are none yet."""
        if (layer := self.layer) is not None:
            layer.visible = True
            self._panel.viewer.layers.selection.active = layer
        elif (frames := self._frames()) is not None:
            self._put(np.zeros(frames, np.uint8))

    def refresh(self, event: Any = None) -> None:
        """Count the pixels, and enable what can be used."""
        layer, frames, pixels = self.layer, self._frames(), self._joined_pixels
        self.controls.allow("" if frames is not None else "Open or add a movie first.")
        self.show_button.setEnabled(frames is not None)
        bad = without = 0 if pixels is None else int(np.count_nonzero(pixels))
        if layer is not None:
            bad, without = model.count_defects(np.asarray(layer.data))
        said = "" if frames is None else model.defects_text(bad, without, frames[0] * frames[1])
        self._panel.tell(self.count, said)
        self.export_button.setEnabled(bad > 0 and not self.controls.running)

    @property
    def _joined_pixels(self) -> npt.NDArray[np.bool_] | None:
        pixels = self._without_gain
        fits = pixels is not None and pixels.shape == self._frames()
        return pixels if fits and self.join.isChecked() else None

    def _rejoin(self) -> None:
        if self.layer is not None:
            self._put(np.asarray(self.layer.data))
        self.refresh()

    def _put(self, labels: npt.NDArray[Any]) -> None:
        """Show labels, with the pixels without usable gain."""
        movie, layer = self._movie(), self.layer
        if movie is None:
            return
        labels = model.marked(labels, self._joined_pixels, model.WITHOUT_GAIN)
        if layer is not None:
            if not np.array_equal(layer.data, labels):
                layer.data = labels
            return
        hot, dark = self._panel.palette_now.hot, self._panel.palette_now.dark
        look = DirectLabelColormap(
            color_dict={None: hot, model.LISTED: hot, 0: "transparent", model.WITHOUT_GAIN: dark}
        )
        place = geometry(movie, 2)
        layer = Labels(labels, name="defective pixels", opacity=1.0, colormap=look, **place)
        add_layer(self._panel.viewer, layer)
        events = layer.events
        for emitter in (events.paint, events.labels_update, events.set_data, events.data):
            connect_while_alive(self, emitter, lambda event: self._soon.throttle())
        self._layer = weakref.ref(layer)
        self.refresh()

    def _on_returned(self, result: npt.NDArray[np.bool_] | Path) -> None:
        if isinstance(result, Path):
            self.controls.tell(f"Wrote {result.name}.")
        elif result.shape == self._frames():  # else another movie was picked meanwhile
            known = np.zeros(result.shape) if self.layer is None else self.layer.data
            self._put(model.marked(known, result, model.LISTED))
            self.controls.tell(f"Read {int(np.count_nonzero(result))} pixels.")

    def _export(self) -> None:
        if self.layer is None:
            self.show_layer()
        if self.layer is None:
            return
        path, shown = QFileDialog.getSaveFileName(
            self, "Export defective pixels", "defects.txt", ";;".join(model.KINDS)
        )
        if path:
            mask = np.asarray(self.layer.data) != 0
            self.controls.run(partial(model.export_defects, path, mask, model.KINDS[shown]))
            self.refresh()
