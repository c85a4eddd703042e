"""The base of all dock widgets: a column that scrolls, passive while its dock is hidden."""

from __future__ import annotations

import csv
import io
import time
from functools import partial
from html import escape
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, QUrl, Slot
from qtpy.QtGui import QAction, QTextCursor
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QDockWidget,
    QFileDialog,
    QLabel,
    QMainWindow,
    QSizePolicy,
    QSlider,
    QTableView,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.errors import MrczError, error_text, printable
from napari_mrcz.format.atomic import AtomicFile
from napari_mrcz.naming import docs_url
from napari_mrcz.widgets.base.form import push_button, scrolled
from napari_mrcz.widgets.base.layer_picker import LayerPicker, connect_while_alive, plain_viewer
from napari_mrcz.widgets.base.theme import Palette, palette

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import napari
    from napari.layers import Image
    from qtpy.QtGui import QShowEvent

_WIDTH_PX, _LEAST_WIDTH_PX = 340, 300
_HELP_PX = 820, 820
_PLUGIN = "napari-mrcz"
# A long table is written for so long at a time.
_STEP_S = 0.01
_numbers = count()


class Panel(QWidget):
    """A dock widget: what is added to its `column` scrolls where the screen is low.

    While its dock is hidden, or behind the tab of another, it is passive: its pickers follow no
    selection, and `when_in_front` puts off what would read a file or change a layer. Its `viewer`
    is without the proxy that napari gives to plugins.
    """

    title = ""  # of the tab; the display name in the manifest

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = plain_viewer(napari_viewer)
        self._dock: QDockWidget | None = None
        self._number = next(_numbers)
        # In a window that is not shown, nothing is hidden; else the dock will say.
        self._in_front = not _is_seen(self.viewer)
        self._put_off: dict[Any, Callable[[], None]] = {}
        self._tones: dict[QLabel, str] = {}
        content = QWidget()
        self.column = QVBoxLayout(content)
        self.column.setContentsMargins(6, 6, 6, 6)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scrolled(content))
        self._help: HelpPage | None = None
        self.help_button = push_button("Help", "What the parts of this widget are for")
        self.help_button.setFlat(True)
        self.help_button.clicked.connect(self._show_help)
        outer.addWidget(self.help_button, alignment=Qt.AlignmentFlag.AlignRight)
        connect_while_alive(self, self.viewer.events.theme, self._on_theme)

    @property
    def in_front(self) -> bool:
        """Whether the dock is open and its tab in front."""
        return self._in_front

    def when_in_front(self, key: Any, act: Callable[[], None]) -> None:
        """Call what reads files or changes layers: now, or when the dock is in front again.

        Of calls with the same key only the last.
        """
        self._put_off.pop(key, None)
        if self._in_front:
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
        came, self._in_front = visible and not self._in_front, visible
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
        """Open the Save widget with a layer."""
        self.viewer.layers.selection.active = layer
        open_dock(self.viewer, "Save")

    def showEvent(self, event: QShowEvent | None) -> None:
        """Pass the wheel by the fields: scrolling the dock changes no number. Offer tables."""
        super().showEvent(event)
        for table in self.findChildren(QTableView):
            if not table.actions():
                offer_rows(table, partial(_rows_of, table))
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
        label.setText(_plain(text))
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


def open_dock(viewer: napari.Viewer, title: str) -> Any:
    """Open one of our docks by its title, in front; returns its widget."""
    dock, widget = viewer.window.add_plugin_dock_widget(_PLUGIN, title, tabify=True)
    dock.show()
    dock.raise_()
    return widget


def offer(widget: QWidget, actions: Mapping[str, Callable[[], Any]]) -> None:
    """Add a menu that a right click opens; the tooltip mentions it."""
    for text, act in actions.items():
        action = QAction(text, widget)
        action.triggered.connect(lambda _=False, act=act: act())
        widget.addAction(action)
    widget.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
    widget.setToolTip(f"{widget.toolTip()}. Right-click to copy or save it")


def save_as(widget: QWidget, title: str, makers: Mapping[str, Callable[[], bytes]]) -> None:
    """Ask for a file, and write into it what is made for its suffix, such as ".csv"."""
    path, overwrite = _ask_for_path(widget, title, makers)
    if path:
        _write(path, overwrite, makers[Path(path).suffix.lower()]())


def offer_rows(widget: QWidget, rows: Callable[[], Iterable[Iterable[Any]]]) -> None:
    """Offer to copy a table's rows, headings first, for spreadsheets, and to save them.

    `rows`: returns them as they are when it is called; a long table is gone through in steps, so
    that the window stays awake.
    """
    clipboard: Any = QApplication.clipboard()

    def copy() -> None:
        _as_text(widget, rows(), "\t", clipboard.setText, "The table is copied.")

    def save() -> None:
        path, overwrite = _ask_for_path(widget, "Save table", (".csv",))
        if path:
            write = partial(_write, path, overwrite)
            _as_text(widget, rows(), ",", write, f"{Path(path).name} is saved.")

    offer(widget, {"Copy table": copy, "Save table as CSV…": save})


def csv_text(rows: Iterable[Iterable[Any]], separator: str = ",") -> str:
    """Return rows as lines of text."""
    lines = io.StringIO()
    _writer(lines, separator).writerows(rows)
    return lines.getvalue()


def _writer(lines: io.StringIO, separator: str) -> Any:
    return csv.writer(lines, delimiter=separator, lineterminator="\n")


def _as_text(
    widget: QWidget,
    rows: Iterable[Iterable[Any]],
    separator: str,
    done: Callable[[str], Any],
    notice: str,
) -> None:
    """Call `done` with rows as lines of text: at once if they are few, else with a notice."""
    lines, left, timer = io.StringIO(), iter(rows), QTimer(widget)
    writer = _writer(lines, separator)

    def go_on() -> None:
        end = time.perf_counter() + _STEP_S
        for row in left:
            writer.writerow(row)
            if time.perf_counter() > end:
                if not timer.isActive():
                    timer.start()
                return
        done(lines.getvalue())
        if timer.isActive():
            show_info(notice)
        timer.stop()
        timer.deleteLater()

    timer.timeout.connect(go_on)
    go_on()


def _ask_for_path(widget: QWidget, title: str, suffixes: Iterable[str]) -> tuple[str, bool]:
    """Ask for a file with one of some suffixes; return it, and whether one may be replaced."""
    known = list(suffixes)
    kinds = ";;".join(f"{suffix[1:].upper()} (*{suffix})" for suffix in known)
    path, kind = QFileDialog.getSaveFileName(widget, title, "", kinds)
    if not path or Path(path).suffix.lower() in known:
        return path, True
    # The dialog has not asked about the file with this suffix.
    return path + next((suffix for suffix in known if suffix in kind), known[0]), False


def _write(path: str, overwrite: bool, content: bytes | str) -> None:
    try:
        with AtomicFile(path, overwrite=overwrite) as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.commit()
    except MrczError as error:
        show_error(error_text(error))


def _rows_of(table: QTableView) -> Iterable[list[Any]]:
    model: Any = table.model()
    columns = range(model.columnCount())
    heads = [model.headerData(n, Qt.Orientation.Horizontal) for n in columns]
    return [
        heads,
        *([model.index(row, n).data() for n in columns] for row in range(model.rowCount())),
    ]


def _is_seen(viewer: napari.Viewer) -> bool:
    """Return whether the viewer's window is shown."""
    window = getattr(getattr(viewer, "window", None), "_qt_window", None)
    return window is not None and bool(window.isVisible())


def plain_tip(text: str) -> str:
    """Return a text as a tip that is shown as it is: Qt takes what has tags for HTML."""
    text = _plain(text)
    return f"<qt>{escape(text)}</qt>".replace("\n", "<br>") if "<" in text else text


def _plain(text: str | None) -> str:
    """Return lines of text of which none steers a terminal or a screen: names of files may."""
    return "\n".join(map(printable, (text or "").split("\n")))


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
        scroll: Any = self.browser.verticalScrollBar()
        block = document.begin()
        while block.isValid():
            if block.blockFormat().headingLevel() and block.text().startswith(heading):
                top = document.documentLayout().blockBoundingRect(block).top()
                self.browser.setTextCursor(QTextCursor(block))
                scroll.setValue(round(top))
                return
            block = block.next()


class WrappedLabel(QLabel):
    """A label that wraps, takes the height it needs and can be copied from.

    Its text is shown as it is: a file may be named ``<b>``. Room for so many `lines` is always
    kept, so that what is below does not move when the text comes.
    """

    def __init__(self, tip: str, lines: int = 0) -> None:
        super().__init__()
        self._lines = lines
        self.setToolTip(tip)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._keep_room()

    def setText(self, text: str | None) -> None:
        """Show a text."""
        super().setText(_plain(text))

    def changeEvent(self, event: QEvent | None) -> None:
        """Keep room in the font and the margins of the theme."""
        super().changeEvent(event)
        changes = QEvent.Type.StyleChange, QEvent.Type.FontChange
        if event is not None and event.type() in changes:
            self._keep_room()

    def _keep_room(self) -> None:
        if self._lines:
            text = self.text()
            super().setText("\n".join("x" * self._lines))
            self.setMinimumHeight(self.heightForWidth(self.maximumWidth()))
            super().setText(text)
