"""What all dock widgets stand on: a column that scrolls, and sentences in the theme's colours."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.errors import printable
from napari_mrcz.widgets.base.layer_picker import connect_while_alive, plain_viewer
from napari_mrcz.widgets.base.theme import Palette, palette

if TYPE_CHECKING:
    import napari
    from napari.layers import Image
    from qtpy.QtGui import QShowEvent

_WIDTH_PX = 340
_SAVE = ("napari-mrcz", "Save stack")


class Panel(QWidget):
    """A dock widget: whatever is added to its `column` scrolls where the screen is low.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Whose window and layers.

    Attributes
    ----------
    viewer : napari.Viewer
        The same, without the proxy that napari gives to plugins.
    column : QVBoxLayout
        Where a subclass puts its controls.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = plain_viewer(napari_viewer)
        self._tones: dict[QLabel, str] = {}
        content = QWidget()
        self.column = QVBoxLayout(content)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        connect_while_alive(self, self.viewer.events.theme, self._on_theme)

    def open_save_stack(self, layer: Image) -> None:
        """Open the Save stack widget with a layer."""
        self.viewer.layers.selection.active = layer
        # Behind a tab where it is new: below this widget there is room for neither.
        dock, _ = self.viewer.window.add_plugin_dock_widget(*_SAVE, tabify=True)
        dock.show()
        dock.raise_()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Let the wheel pass by the fields: who scrolls the dock changes no number unawares."""
        super().showEvent(event)
        for kind in (QAbstractSpinBox, QComboBox, QSlider):
            for field in self.findChildren(kind):
                field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                field.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Leave a field's wheel to the column, unless the field is being edited."""
        if (
            event is not None
            and event.type() == QEvent.Type.Wheel
            and isinstance(watched, QWidget)
            and not watched.hasFocus()
        ):
            event.ignore()
            return True
        return False

    @property
    def palette_now(self) -> Palette:
        """The colours of the viewer's theme."""
        return palette(self.viewer.theme)

    def sizeHint(self) -> QSize:
        """Give the size that the dock has at first."""
        return QSize(_WIDTH_PX, super().sizeHint().height())

    def tell(self, label: QLabel, text: str, tone: str = "text") -> None:
        """Show a sentence in one of the palette's colours: text, muted, warning or error."""
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setText(_plain(text))
        if self._tones.get(label) != tone:  # styling is slow, and some sentences follow a drag
            self._tones[label] = tone
            self._colour(label, tone)

    def apply_palette(self, colours: Palette) -> None:
        """Colour what a style sheet does not reach, such as plots; called when the theme changes.

        A subclass that has such things overrides it, and calls it once when they are there.
        """

    def _on_theme(self, event: Any = None) -> None:
        self.apply_palette(self.palette_now)
        for label, tone in self._tones.items():
            self._colour(label, tone)

    def _colour(self, label: QLabel, tone: str) -> None:
        label.setStyleSheet(f"color: {getattr(self.palette_now, tone)}")


def plain_tip(text: str) -> str:
    """Return a text as a tip that is shown as it is: Qt takes what has tags for HTML."""
    text = _plain(text)
    return f"<qt>{escape(text)}</qt>".replace("\n", "<br>") if "<" in text else text


def _plain(text: str | None) -> str:
    """Return lines of text of which none steers a terminal or a screen: names of files may."""
    return "\n".join(map(printable, (text or "").split("\n")))


class WrappedLabel(QLabel):
    """A label that wraps, takes the height it needs and can be copied from.

    Its text is shown as it is: a file may be named ``<b>``.
    """

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        super().setText(_plain(text))
