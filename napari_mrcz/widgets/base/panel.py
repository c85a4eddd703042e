"""The base of all dock widgets: a column that scrolls, passive while its dock is hidden."""

from __future__ import annotations

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, QUrl, Slot
from qtpy.QtGui import QTextCursor
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QDialog,
    QDockWidget,
    QLabel,
    QMainWindow,
    QSlider,
    QTableView,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.naming import docs_url
from napari_mrcz.widgets.base.form import as_shown, filled, push_button, scrolled
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive
from napari_mrcz.widgets.base.plot import Palette, offer_rows, palette

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image
    from qtpy.QtGui import QShowEvent

_WIDTH_PX, _LEAST_WIDTH_PX = 340, 300
_HELP_PX = 820, 820
_PLUGIN = "napari-mrcz"
_numbers = count()


class Panel(QWidget):
    """A dock widget: what is added to its `column` scrolls where the screen is low.

    While its dock is hidden, or behind the tab of another, it is passive: its pickers follow no
    selection, and `when_in_front` puts off what would read a file or change a layer. `in_front`
    tells whether it is; its `viewer` is without the proxy that napari gives to plugins.
    """

    title = ""  # of the tab; the display name in the manifest

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        # The proxy wraps whatever comes from a module called napari..., our own stacks among it.
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._dock: QDockWidget | None = None
        self._number = next(_numbers)
        # In a window that is not shown, nothing is hidden; else the dock will say.
        window = getattr(getattr(self.viewer, "window", None), "_qt_window", None)
        self.in_front = window is None or not window.isVisible()
        self._put_off: dict[Any, Callable[[], None]] = {}
        self._tones: dict[QLabel, str] = {}
        content = QWidget()
        self.column = QVBoxLayout(content)
        self.column.setContentsMargins(6, 6, 6, 6)
        outer: Any = filled(self, scrolled(content)).layout()
        self._help: HelpPage | None = None
        self.help_button = push_button("Help", "What the parts of this widget are for")
        self.help_button.setFlat(True)
        self.help_button.clicked.connect(self._show_help)
        outer.addWidget(self.help_button, alignment=Qt.AlignmentFlag.AlignRight)
        connect_while_alive(self, self.viewer.events.theme, self._on_theme)

    def when_in_front(self, key: Any, act: Callable[[], None]) -> None:
        """Call what reads files or changes layers: now, or when the dock is in front again.

        Of calls with the same key only the last.
        """
        self.forget_put_off(key)
        if self.in_front:
            act()
        else:
            self._put_off[key] = act

    def forget_put_off(self, key: Any) -> None:
        """Drop what was put off under a key."""
        self._put_off.pop(key, None)

    def changeEvent(self, event: QEvent | None) -> None:
        """Meet the dock: a hidden tab gets no signal from its own widget."""
        super().changeEvent(event)
        dock = self.parentWidget()
        if event is None or event.type() != QEvent.Type.ParentChange or dock is self._dock:
            return
        if self._dock is not None:
            self._dock.visibilityChanged.disconnect(self._on_visibility)
            self._on_visibility(False)
        self._dock = dock if isinstance(dock, QDockWidget) else None
        if self._dock is not None:
            self._dock.visibilityChanged.connect(self._on_visibility)
            self._dock.setMinimumWidth(_LEAST_WIDTH_PX)
            QTimer.singleShot(0, self._join_siblings)

    @Slot(bool)
    def _on_visibility(self, visible: bool) -> None:
        came, self.in_front = visible and not self.in_front, visible
        if not came:
            return
        # Qt tells docks in their order: what was in front puts its layers away first.
        window = None if self._dock is None else self._dock.parentWidget()
        if isinstance(window, QMainWindow):
            for other in window.tabifiedDockWidgets(self._dock):
                panel = other.widget()
                if isinstance(panel, Panel):
                    panel._on_visibility(False)
        for picker in self.findChildren(LayerPicker):
            picker.catch_up()
        put_off, self._put_off = self._put_off, {}
        for act in put_off.values():
            act()

    @Slot()
    def _join_siblings(self) -> None:
        """Lie in a tab with our other docks: napari's menu would put strips below each other."""
        dock = self._dock
        window = None if dock is None else dock.parentWidget()
        if dock is None or not isinstance(window, QMainWindow) or dock.isFloating():
            return
        dock.setWindowTitle(self.title or dock.windowTitle())
        area = window.dockWidgetArea(dock)
        open_ones = [
            other
            for other in window.findChildren(QDockWidget)
            if isinstance(other.widget(), Panel)
            and (other is dock or not (other.isHidden() or other.isFloating()))
            and window.dockWidgetArea(other) == area
        ]
        if len(open_ones) > 1 and not window.tabifiedDockWidgets(dock):
            # As they were opened: Qt lists them as they were raised.
            open_ones.sort(key=lambda other: getattr(other.widget(), "_number", 0))
            for before, after in pairwise(open_ones):
                window.tabifyDockWidget(before, after)
            dock.show()
            dock.raise_()

    @Slot()
    def _show_help(self) -> None:
        if self._help is None:
            self._help = HelpPage(self)
        self._help.open_at("widgets.md", self.title)

    def open_save_stack(self, layer: Image) -> None:
        """Open the Save widget with a layer, in front."""
        self.viewer.layers.selection.active = layer
        dock, _ = self.viewer.window.add_plugin_dock_widget(_PLUGIN, "Save", tabify=True)
        dock.show()
        dock.raise_()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Pass the wheel by the fields: scrolling the dock changes no number. Offer tables."""
        super().showEvent(event)
        for table in self.findChildren(QTableView):
            if not table.actions():
                offer_rows(table)
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
        """Return the size that the dock has at first."""
        return QSize(_WIDTH_PX, super().sizeHint().height())

    def tell(self, label: QLabel, text: str, tone: str = "text") -> None:
        """Show a sentence in one of the palette's colours: text, muted, warning or error."""
        label.setTextFormat(Qt.TextFormat.PlainText)
        label.setText(as_shown(text))
        if self._tones.get(label) != tone:  # styling is slow, and some sentences follow a drag
            self._tones[label] = tone
            self._colour(label, tone)

    def apply_palette(self, colours: Palette) -> None:
        """Colour what a style sheet does not reach, such as plots: all parts that have this, too.

        Called when the theme changes; a subclass that has such parts calls it once.
        """
        for part in self.findChildren(QWidget):
            if hasattr(part, "apply_palette"):
                part.apply_palette(colours)

    def _on_theme(self, event: Any = None) -> None:
        self.apply_palette(self.palette_now)
        for label, tone in self._tones.items():
            self._colour(label, tone)

    def _colour(self, label: QLabel, tone: str) -> None:
        label.setStyleSheet(f"color: {getattr(self.palette_now, tone)}")


class HelpPage(QDialog):
    """The documentation as it was installed: its pages need no browser and no network."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("napari-mrcz: documentation")
        self.browser = QTextBrowser()
        self.browser.setOpenExternalLinks(True)
        # Pictures of widgets are dark, figures light; napari's colours would hide the links.
        self.browser.setStyleSheet("background-color: white; color: black")
        self.back = push_button("Back", "Show the page before")
        self.back.setEnabled(False)
        self.back.clicked.connect(self.browser.backward)
        self.browser.backwardAvailable.connect(self.back.setEnabled)
        column = QVBoxLayout(self)
        column.addWidget(self.back)
        column.addWidget(self.browser)
        self.resize(*_HELP_PX)

    def open_at(self, page: str, heading: str) -> None:
        """Show a page, such as "widgets.md", from the heading that begins with a text."""
        self.browser.setSource(QUrl(docs_url(page)))
        self.show()
        self.raise_()
        document: Any = self.browser.document()
        block = document.begin()
        while not (block.blockFormat().headingLevel() and block.text().startswith(heading)):
            block = block.next()
        self.browser.setTextCursor(QTextCursor(block))
        top = document.documentLayout().blockBoundingRect(block).top()
        scroll: Any = self.browser.verticalScrollBar()
        scroll.setValue(round(top))
