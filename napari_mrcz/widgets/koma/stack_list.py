"""The list of a session's stacks, where they come from, and what is done with those selected."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import (
    QAbstractListModel,
    QItemSelection,
    QItemSelectionModel,
    QMimeData,
    QModelIndex,
    QSize,
    Qt,
    Signal,
    Slot,
)
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QListView,
    QMenu,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.errors import collected_warnings
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.form import push_button
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel, plain_tip
from napari_mrcz.widgets.base.theme import readable
from napari_mrcz.widgets.koma.layer_entries import LayerEntries
from napari_mrcz.widgets.koma.model import KomaModel, by_name, by_time, movies_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_mrcz.widgets.base.theme import Palette
    from napari_mrcz.widgets.koma.model import KomaModel
    from napari_mrcz.widgets.koma.reading import Entry, Reading

_ROWS = "application/x-napari-mrcz-stacks"
_FILES = "text/uri-list"
_HEIGHT_PX = 170
_INVITATION = "Drop a folder or movies here"
_ROOT = QModelIndex()
# As wide as a digit, so that names stand beneath each other.
_FIGURE_SPACE = "\u2007"


class StackList(QListView):
    """The list of a `KomaModel`.

    Parameters
    ----------
    koma : KomaModel
        Whose stacks; changed by what is done here.

    Attributes
    ----------
    changed : Signal()
        The order was changed, or which stacks enter averages.
    files_dropped : Signal(object)
        Files and folders, as a list of str.
    current_changed : Signal()
        Another stack is looked at, or others are selected.
    remove_pressed : Signal()
        The Delete key was.
    """

    changed = Signal()
    files_dropped = Signal(object)
    current_changed = Signal()
    remove_pressed = Signal()

    def __init__(self, koma: KomaModel) -> None:
        super().__init__()
        self._koma = koma
        self._rows = _Rows(koma, self)
        self.setModel(self._rows)
        self.setToolTip(
            "Stacks in order of acquisition: drag them to change it. A tick says that a stack "
            "enters the averages that are subtracted from others"
        )
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setDragDropMode(QAbstractItemView.DragDropMode.DragDrop)
        self.setDefaultDropAction(Qt.DropAction.MoveAction)
        self.setDragDropOverwriteMode(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._rows.ticked.connect(self.changed)
        self._rows.moved.connect(self.move_to)
        self._rows.files_dropped.connect(self.files_dropped)
        selection: Any = self.selectionModel()
        # The current row changes before the selection does.
        for changed in (selection.currentChanged, selection.selectionChanged):
            changed.connect(lambda *_: self.current_changed.emit())

    @property
    def current(self) -> Entry | None:
        """The stack that is looked at."""
        return next(iter(self._rows.entries_at([self.currentIndex()])), None)

    @property
    def selected(self) -> list[Entry]:
        """The stacks selected, in order."""
        return self._rows.entries_at(self.selectedIndexes())

    def refresh(self) -> None:
        """Show the model as it is now; what was selected stays so."""
        selected, current = self.selected, self.current
        if self._rows.show_entries():
            self.select(selected or [current])

    def select(self, entries: Iterable[Entry | None]) -> None:
        """Select stacks; the first becomes the one that is looked at."""
        chosen = set(entries)
        rows = [row for row, entry in enumerate(self._koma.entries) if entry in chosen]
        # As one, in few ranges: whoever follows the selection looks at all stacks.
        together = QItemSelection()
        starts = [row for before, row in pairwise([-2, *rows]) if row > before + 1]
        ends = [row for row, after in pairwise([*rows, -1]) if after != row + 1]
        for start, end in zip(starts, ends, strict=True):
            together.select(self._rows.index(start), self._rows.index(end))
        selection: Any = self.selectionModel()
        flags = QItemSelectionModel.SelectionFlag
        if rows:
            selection.setCurrentIndex(self._rows.index(rows[0]), flags.NoUpdate)
        selection.select(together, flags.ClearAndSelect)

    def move_selected(self, steps: int) -> None:
        """Move the selected stacks up (negative) or down by one."""
        rows = sorted(index.row() for index in self.selectedIndexes())
        if not rows:
            return
        to = max(0, rows[0] - 1) if steps < 0 else min(len(self._koma.entries), rows[-1] + 2)
        self.move_to(rows, to)

    def move_to(self, rows: list[int], to: int) -> None:
        """Move stacks before the one at `to`."""
        before = self._koma.entries
        moving = [before[row] for row in rows]
        self._koma.move(moving, to)
        if self._koma.entries == before:
            return
        self.refresh()
        self.select(moving)
        self.changed.emit()

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        # A list is not upon the background that these colours can be read on.
        self._rows.muted, self._rows.error = (
            QColor(readable(colour, colours.foreground, colours.text))
            for colour in (colours.muted, colours.error)
        )
        viewport: Any = self.viewport()
        viewport.update()

    def sizeHint(self) -> QSize:
        """Return a size with room for some stacks; the rest is scrolled to."""
        return QSize(200, _HEIGHT_PX)

    def keyPressEvent(self, event: Any) -> None:
        """Remove by the Delete key."""
        if event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.remove_pressed.emit()
            return
        super().keyPressEvent(event)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint what to do with an empty list."""
        super().paintEvent(event)
        if not self._koma.entries:
            viewport: Any = self.viewport()
            painter = QPainter(viewport)
            painter.setPen(self._rows.muted)
            painter.drawText(viewport.rect(), Qt.AlignmentFlag.AlignCenter, _INVITATION)
            painter.end()


class _Rows(QAbstractListModel):
    """A `KomaModel` as Qt's views read it."""

    ticked = Signal()
    moved = Signal(object, int)
    files_dropped = Signal(object)

    def __init__(self, koma: KomaModel, parent: StackList) -> None:
        super().__init__(parent)
        self._koma = koma
        self._shown: tuple[Entry, ...] = ()
        self.muted = self.error = QColor("#808080")

    def show_entries(self) -> bool:
        """Show what there is now; give whether there are other rows than before."""
        if self._shown != self._koma.entries:
            self.beginResetModel()
            self._shown = self._koma.entries
            self.endResetModel()
            return True
        if self._shown:
            self.dataChanged.emit(self.index(0), self.index(len(self._shown) - 1))
        return False

    def entries_at(self, indexes: Iterable[QModelIndex]) -> list[Entry]:
        rows = sorted(index.row() for index in indexes if index.isValid())
        return [self._shown[row] for row in rows]

    def rowCount(self, parent: QModelIndex = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._shown)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid():
            return None
        entry = self._shown[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            digits = len(str(len(self._shown)))
            number = str(index.row() + 1).rjust(digits, _FIGURE_SPACE)
            return f"{number}  {entry.name}{self._remark(entry)}"
        if role == Qt.ItemDataRole.CheckStateRole and not self._koma.why_not(entry):
            return Qt.CheckState.Checked if self._koma.enters(entry) else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.ForegroundRole:
            if self._koma.why_not(entry):
                return self.error
            return None if self._koma.enters(entry) else self.muted
        if role == Qt.ItemDataRole.ToolTipRole:
            said = filter(None, (entry.path or entry.name, self._koma.why_left_out(entry)))
            return plain_tip("\n".join(said))
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.CheckStateRole:
            return False
        on = Qt.CheckState(value) == Qt.CheckState.Checked
        self._koma.set_enters(self._shown[index.row()], on)
        self.dataChanged.emit(index, index)
        self.ticked.emit()
        return True

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        if not index.isValid():
            return Qt.ItemFlag.ItemIsDropEnabled
        flags = (
            Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsDragEnabled
        )
        if not self._koma.why_not(self._shown[index.row()]):
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        return flags

    def supportedDropActions(self) -> Qt.DropAction:
        return Qt.DropAction.MoveAction | Qt.DropAction.CopyAction

    def mimeTypes(self) -> list[str]:
        return [_ROWS, _FILES]

    def mimeData(self, indexes: Iterable[QModelIndex]) -> QMimeData:
        rows = sorted(index.row() for index in indexes)
        data = QMimeData()
        # Whose rows they are: another list's mean nothing here.
        data.setData(_ROWS, " ".join(map(str, (id(self), *rows))).encode())
        return data

    def canDropMimeData(
        self, data: Any, action: Qt.DropAction, row: int, column: int, parent: QModelIndex
    ) -> bool:
        return data.hasUrls() or self._rows_in(data) is not None

    def dropMimeData(
        self, data: Any, action: Qt.DropAction, row: int, column: int, parent: QModelIndex
    ) -> bool:
        rows = self._rows_in(data)
        if rows is not None:
            self.moved.emit(rows, len(self._shown) if row < 0 else row)
            return True
        paths = [url.toLocalFile() for url in data.urls() if url.isLocalFile()]
        if paths:
            self.files_dropped.emit(paths)
        return bool(paths)

    def _rows_in(self, data: QMimeData) -> list[int] | None:
        if not data.hasFormat(_ROWS):
            return None
        whose, *rows = (int(part) for part in bytes(data.data(_ROWS).data()).split())
        return rows if whose == id(self) else None

    def _remark(self, entry: Entry) -> str:
        if self._koma.why_not(entry):
            return "\n      cannot be used"
        if self._koma.enters(entry):
            return ""
        return f"\n      {_what_is_odd(entry, self._koma.reading)}left out of averages"


def _what_is_odd(entry: Entry, reading: Reading | None) -> str:
    """Return in a word why averages are better off without a stack; empty if it was chosen."""
    if reading is None or entry not in reading.kept_out:
        return ""
    if entry in reading.without_numbers:
        return "NaN or inf, "
    return "high contrast, " if entry in reading.high_contrast else "cut off, "


class StackBox(QWidget):
    """What the session consists of.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.
    koma : KomaModel
        Whose stacks; changed by what is done here.

    Attributes
    ----------
    changed : Signal()
        Other stacks, another order, or others left out.
    replaced : Signal(object, object)
        The layer of a stack has other frames, scale or units: (the entry, one in its place);
        comes before `changed`.
    current_changed : Signal()
        Another stack is selected.
    """

    changed = Signal()
    replaced = Signal(object, object)
    current_changed = Signal()

    def __init__(self, panel: Panel, koma: KomaModel) -> None:
        super().__init__()
        self._panel = panel
        self._koma = koma
        self.sources = SourceBar()
        self.stacks = StackList(koma)
        self.order = OrderBar()
        self.details = WrappedLabel("The selected stack, and whether it enters averages")
        self.layers = LayerEntries(panel.viewer, self)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.sources, self.stacks, self.order, self.details):
            column.addWidget(part)
        self.sources.folder_chosen.connect(lambda folder: self.add_paths([folder]))
        self.sources.layers_wanted.connect(self._add_layers)
        self.stacks.files_dropped.connect(self.add_paths)
        self.stacks.changed.connect(self.refresh)
        self.stacks.current_changed.connect(self._show_details)
        self.stacks.remove_pressed.connect(self._remove_selected)
        self.order.moved.connect(self.stacks.move_selected)
        self.order.sorted.connect(self._sort)
        self.order.removed.connect(self._remove_selected)
        self.layers.removed.connect(self._on_layer_removed)
        self.layers.replaced.connect(self._on_layer_replaced)
        self.layers.renamed.connect(self.refresh)
        self._show_details()

    def add(self, entries: Iterable[Entry]) -> None:
        """Put stacks at the end of the list."""
        self._koma.add(entries)
        self.refresh()

    @Slot(object)
    def add_paths(self, paths: Iterable[str]) -> None:
        """Put the movies of files and folders at the end of the list."""
        try:
            with collected_warnings() as left:
                entries = movies_in(list(paths))
        except OSError as error:
            self._say(f"{error.strerror}: {error.filename}", "error")
            return
        self.add(entries)
        if left:
            self._say("\n".join([*left, "Drop a file itself to add it."]), "warning")
        elif not entries:
            self._say("There are no movies in this folder.", "warning")

    @Slot()
    def refresh(self) -> None:
        """Show the model as it is now."""
        self.stacks.refresh()
        self._show_details()
        self.changed.emit()

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        self.stacks.apply_palette(colours)

    @Slot()
    def _add_layers(self) -> None:
        entries = self.layers.open_movies()
        self.add(entries)
        if not entries:
            self._say("No further movies are open in napari.", "warning")

    @Slot()
    def _remove_selected(self) -> None:
        gone = self.stacks.selected
        for entry in gone:
            self.layers.forget(entry)
        self._koma.remove(gone)
        self.refresh()

    @Slot(object)
    def _sort(self, key: Callable[[Entry], Any]) -> None:
        self._koma.sort(key)
        self.refresh()

    @Slot(object)
    def _on_layer_removed(self, entry: Entry) -> None:
        self._koma.remove([entry])
        if isinstance(entry.source, Stack):
            entry.source.close()  # it was opened for the layer
        self.refresh()

    @Slot(object, object)
    def _on_layer_replaced(self, old: Entry, new: Entry) -> None:
        self._koma.replace(old, new)
        self.replaced.emit(old, new)
        self.refresh()

    @Slot()
    def _show_details(self) -> None:
        entry = self.stacks.current
        n, n_in = len(self._koma.entries), sum(map(self._koma.enters, self._koma.entries))
        if entry is None:
            text = f"{n} stacks, of which {n_in} enter averages" if n else ""
            self._say(text, "muted")
        elif self._koma.why_not(entry):
            self._say(f"{entry.name} {self._koma.why_not(entry)}", "error")
        elif why := self._koma.why_left_out(entry):
            text = f"{entry.name} enters no average: {why}. A tick puts it back."
            self._say(text, "warning")
        else:
            self._say(f"{entry.name} enters averages; {n_in} of {n} do.", "muted")
        selected = bool(self.stacks.selected)
        for button in (self.order.up, self.order.down, self.order.remove):
            button.setEnabled(selected)
        self.order.sort.setEnabled(n > 1)
        self.current_changed.emit()

    def _say(self, text: str, tone: str = "text") -> None:
        self._panel.tell(self.details, text, tone)
        self.details.setVisible(bool(text))


class SourceBar(QWidget):
    """Buttons for a folder and for the open layers.

    Attributes
    ----------
    folder_chosen : Signal(str)
        In a dialog.
    layers_wanted : Signal()
        The open layers are.
    """

    folder_chosen = Signal(str)
    layers_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._folder = ""
        self.folder = push_button(
            "Add folder…",
            "Add all movies of a folder, by acquisition time or, without it, by name",
        )
        self.layers = push_button("Add open layers", "Add the movies open in napari, oldest first")
        _row(self, self.folder, self.layers)
        self.folder.clicked.connect(self._ask)
        self.layers.clicked.connect(self.layers_wanted)

    @Slot()
    def _ask(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Movies of a session", self._folder)
        if folder:
            self._folder = folder
            self.folder_chosen.emit(folder)


class OrderBar(QWidget):
    """Buttons that move, sort and remove stacks.

    Attributes
    ----------
    moved : Signal(int)
        The selected stacks are to go up (-1) or down (1).
    sorted : Signal(object)
        All are to be sorted by this key.
    removed : Signal()
        The selected stacks are to go.
    """

    moved = Signal(int)
    sorted = Signal(object)
    removed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.up = push_button("▲", "Move the selected stacks up: acquired earlier")
        self.down = push_button("▼", "Move the selected stacks down: acquired later")
        self.sort = push_button("Sort", "Put all stacks in the order of acquisition")
        self.remove = push_button("Remove", "Take the selected stacks off the list; files stay")
        menu = QMenu(self)
        self.sort_actions = {
            text: self._action(menu, text, key)
            for text, key in (("By name", by_name), ("By time of the file", by_time))
        }
        self.sort.setMenu(menu)
        _row(self, self.up, self.down, self.sort, self.remove)
        self.up.clicked.connect(lambda: self.moved.emit(-1))
        self.down.clicked.connect(lambda: self.moved.emit(1))
        self.remove.clicked.connect(self.removed)

    def _action(self, menu: QMenu, text: str, key: Callable[..., Any]) -> Any:
        action: Any = menu.addAction(text)
        action.triggered.connect(lambda: self.sorted.emit(key))
        return action


def _row(widget: QWidget, *parts: QWidget) -> None:
    row = QHBoxLayout(widget)
    row.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        row.addWidget(part)
