"""Where the gain and the dark reference come from: files, dropped files, layers, open movies."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, QObject, Signal, Slot
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QFileDialog, QGroupBox, QHBoxLayout, QMenu, QVBoxLayout

from napari_mrcz.correction.gain import is_normalised
from napari_mrcz.errors import MrczError
from napari_mrcz.plugin.layers import stack_of_layer
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.gain.model import (
    Reference,
    Shape,
    estimate_reference,
    load_reference,
    reference_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

    from napari_mrcz.widgets.base.job import Report

_FILES = "References (*.mrc *.mrcz *.mrcs *.tif *.tiff *.gain *.dm3 *.dm4);;All files (*)"
_TAKE = "Take this image as the gain reference"
_MAKE = (
    "The reciprocal of their mean, without outliers. Specimens average out: the more movies the "
    "better"
)


class ReferenceBox(QGroupBox):
    """Choose, drop or make references.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    frames : callable
        Gives rows and columns of the frames that are to be normalised, or None.

    Attributes
    ----------
    gain_read, dark_read : Signal(object)
        A `Reference`; None for no dark any more.
    gain_made : Signal(object)
        A `Reference` made from the open movies; `gain_read` follows.
    """

    gain_read = Signal(object)
    gain_made = Signal(object)
    dark_read = Signal(object)

    def __init__(self, panel: Panel, frames: Callable[[], Shape | None]) -> None:
        super().__init__("References")
        self._panel = panel
        self._frames = frames
        self._ready: Callable[[Reference], None] = self.gain_read.emit
        self.controls = JobControls(
            panel, "Gain reference…", "Choose a gain reference: MRC, TIFF, .gain, DM3 or DM4"
        )
        self.menu = QMenu(self)
        self.menu.setToolTipsVisible(True)
        self.menu_button = push_button(
            "From layers",
            "Take a layer of one image as the gain reference, or make one from the open movies",
        )
        self.menu_button.setMenu(self.menu)
        self.dark_button = push_button(
            "Dark reference…",
            "Choose the mean counts of a frame without a beam, which are subtracted first. "
            "It lies as the frames do, however the gain reference is turned",
        )
        self.no_dark_button = push_button("No dark", "Subtract nothing")
        self.summary = WrappedLabel("The gain reference, and how it fits the frames")
        self.dark_summary = WrappedLabel("The dark reference")
        self._lay_out()
        self.controls.start_button.clicked.connect(self._choose_gain)
        self.dark_button.clicked.connect(self._choose_dark)
        self.no_dark_button.clicked.connect(lambda: self.dark_read.emit(None))
        self.menu.aboutToShow.connect(self.fill_menu)
        self.controls.returned.connect(self._on_returned)
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
        """Describe the gain reference, and say how it fits."""
        known = "" if reference is None else f"{reference.name}: {reference.gain_text}.\n"
        doubts = () if reference is None else reference.warnings
        said = "\n".join([known + text, *doubts])
        self._panel.tell(self.summary, said, "warning" if doubts and tone == "text" else tone)

    def show_dark(self, dark: Reference | None) -> None:
        """Describe the dark reference."""
        text = "" if dark is None else f"Dark {dark.name}: {dark.dark_text}."
        self._panel.tell(self.dark_summary, text)
        self.dark_summary.setVisible(dark is not None)
        self.no_dark_button.setVisible(dark is not None)

    @Slot()
    def fill_menu(self) -> None:
        """Offer the layers that there are now."""
        self.menu.clear()
        singles, movies = self._layers()
        for layer in singles:
            # An entry of a menu keeps no layer.
            self._offer(layer.name, _TAKE, partial(self._take, weakref.ref(layer)))
        self.menu.addSeparator()
        number = "the open movie" if len(movies) == 1 else f"the {len(movies)} open movies"
        made = self._offer(f"Make one from {number}", _MAKE, self._make)
        made.setEnabled(bool(movies))

    def _offer(self, text: str, tip: str, act: Callable[..., None]) -> QAction:
        action = QAction(text, self.menu)
        action.setToolTip(tip)
        action.triggered.connect(lambda: act())
        self.menu.addAction(action)
        return action

    def _take(self, known: weakref.ref[Image]) -> None:
        layer = known()
        if layer is not None:
            stack = stack_of_layer(layer)
            self._run(partial(reference_of, stack, layer.name), self.gain_read.emit)

    def _make(self) -> None:
        _, movies = self._layers()
        stacks = [stack_of_layer(layer) for layer in movies]
        self._run(partial(estimate_reference, stacks), self._on_made)

    def _layers(self) -> tuple[list[Image], list[Image]]:
        """Return layers of one image, and raw movies like the one that is to be normalised."""
        singles, movies = [], []
        frames = self._frames()
        for layer in self._panel.viewer.layers:
            if not isinstance(layer, Image):
                continue
            try:
                stack = stack_of_layer(layer)
            except MrczError:
                continue
            if len(stack) == 1:
                singles.append(layer)
            elif not is_normalised(stack.history) and stack.shape[1:] == frames:
                movies.append(layer)
        return singles, movies

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.menu_button)
        buttons.addWidget(self.dark_button)
        dark = QHBoxLayout()
        dark.addWidget(self.dark_summary, stretch=1)
        dark.addWidget(self.no_dark_button)
        column = QVBoxLayout(self)
        column.addWidget(self.controls)
        column.addLayout(buttons)
        column.addWidget(self.summary)
        column.addLayout(dark)

    def _run(self, work: Callable[[Report], Reference], ready: Callable[[Reference], None]) -> None:
        if self.controls.running:
            return
        self._ready = ready
        self.controls.run(work)
        self._show_state()

    def _show_state(self) -> None:
        for button in (self.menu_button, self.dark_button, self.no_dark_button):
            button.setEnabled(not self.controls.running)

    @Slot(object)
    def _on_returned(self, reference: Reference) -> None:
        self._ready(reference)

    def _on_made(self, reference: Reference) -> None:
        self.gain_made.emit(reference)
        self.gain_read.emit(reference)

    @Slot()
    def _choose_gain(self) -> None:
        if path := self._ask("Gain reference"):
            self.open(path)

    @Slot()
    def _choose_dark(self) -> None:
        if path := self._ask("Dark reference"):
            self.open_dark(path)

    def _ask(self, title: str) -> str:
        path, _ = QFileDialog.getOpenFileName(self, title, "", _FILES)
        return str(path)


class FileDrops(QObject):
    """Take single files dropped onto a widget or anything in it.

    Parameters
    ----------
    widget : QWidget
        Which keeps this, too.

    Attributes
    ----------
    dropped : Signal(str)
        The path of a file.
    """

    dropped = Signal(str)

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        widget.setAcceptDrops(True)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Accept what is a file, and take it."""
        kinds = (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop)
        if event is None or event.type() not in kinds:
            return False
        path = _path(event)
        if path:
            event.acceptProposedAction()  # type: ignore[attr-defined]
            if event.type() == QEvent.Type.Drop:
                self.dropped.emit(path)
        else:
            event.ignore()
        return True


def _path(event: Any) -> str:
    urls = event.mimeData().urls()
    return urls[0].toLocalFile() if len(urls) == 1 else ""
