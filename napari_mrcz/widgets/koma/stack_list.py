"""The list of a session's stacks, where they come from, and what is done with those selected."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import (
    QAbstractListModel,
    QItemSelection,
    QItemSelectionModel,
    QMimeData,
    QModelIndex,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QAbstractItemView, QFileDialog, QListView, QMenu, QSizePolicy, QWidget

from napari_mrcz.errors import MrczError, collected_warnings
from napari_mrcz.plugin.layers import StackSeries, stack_of_layer
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.form import WrappedLabel, filled, plain_tip, push_button
from napari_mrcz.widgets.base.layer_picker import connect_while_alive, emitters_of
from napari_mrcz.widgets.base.plot import readable
from napari_mrcz.widgets.koma.computing import Entry
from napari_mrcz.widgets.koma.model import KomaModel, by_name, by_time, movies_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.base.plot import Palette

_KOMA = "KomaNormalization"
_ROWS, _FILES = "application/x-napari-mrcz-stacks", "text/uri-list"
# In a low window the list shows half a dozen stacks; in a high one as many as it has.
_HEIGHT_PX, _MARGIN_PX = 92, 8
_ARROW_PX = 36
_INVITATION = "Drop a folder or movies here"
_ROOT = QModelIndex()
# As wide as a digit, so that names stand below each other.
_FIGURE_SPACE = "\u2007"


class StackBox(QWidget):
    """What a `KomaModel` consists of: a list and buttons, which change it; layers are followed."""

    changed = Signal()  # other stacks, another order, or others left out
    replaced = Signal(object, object)  # before that: an entry, and one of other frames in its place
    current_changed = Signal()  # another stack is looked at, or others are selected

    def __init__(self, panel: Panel, koma: KomaModel) -> None:
        super().__init__()
        self._panel, self._koma = panel, koma
        self._folder = ""
        # By entry, its layer and what is connected to that.
        self._layers: dict[Entry, tuple[Image, Callable[..., None]]] = {}
        self.folder_button = push_button(
            "Add folder…",
            "Add all movies of a folder, by acquisition time or, without it, by name",
        )
        self.layers_button = push_button(
            "Add open layers", "Add the movies open in napari, oldest first"
        )
        self.stacks = StackList(koma)
        self.up = push_button("▲", "Move the selected stacks up: acquired earlier")
        self.down = push_button("▼", "Move the selected stacks down: acquired later")
        self.sort = push_button("Sort", "Put all stacks in the order of acquisition")
        self.remove = push_button("Remove", "Take the selected stacks off the list; files stay")
        self.preview = push_button("Preview", "")
        for arrow in (self.up, self.down):
            arrow.setMaximumWidth(_ARROW_PX)
        self.details = WrappedLabel("The selected stack, and whether it is used for averaging")
        self._for_selected = (self.up, self.down, self.remove)
        menu = QMenu(self)
        self.sort_actions: dict[str, Any] = {}
        for text, key in (("By name", by_name), ("By time of the file", by_time)):
            self.sort_actions[text] = action = menu.addAction(text)
            action.triggered.connect(partial(self._sort, key))  # type: ignore[union-attr]
        self.sort.setMenu(menu)
        filled(
            self,
            filled(QWidget(), self.folder_button, self.layers_button, across=True),
            self.stacks,
            filled(QWidget(), *self._for_selected, self.sort, self.preview, across=True),
            self.details,
            spacing=4,
        )
        self.folder_button.clicked.connect(self._ask_folder)
        self.layers_button.clicked.connect(self._add_layers)
        self.up.clicked.connect(lambda: self.stacks.move_selected(-1))
        self.down.clicked.connect(lambda: self.stacks.move_selected(1))
        self.remove.clicked.connect(self._remove_selected)
        self.stacks.files_dropped.connect(self.add_paths)
        self.stacks.changed.connect(self.refresh)
        self.stacks.current_changed.connect(self._show_details)
        self.stacks.remove_pressed.connect(self._remove_selected)
        connect_while_alive(self, panel.viewer.layers.events.removed, self._on_layer_removed)
        self.destroyed.connect(lambda: self._let_go())
        self.stacks.refresh()
        self._show_details()

    def add(self, entries: Iterable[Entry]) -> None:
        """Put stacks at the end of the list."""
        self._koma.add(entries)
        self.refresh()

    def add_paths(self, paths: Iterable[str]) -> None:
        """Put the movies of files and folders at the end of the list."""
        try:
            with collected_warnings() as left:
                entries = movies_in(list(paths))
        except OSError as error:
            self._panel.tell(self.details, f"{error.strerror}: {error.filename}", "error")
            return
        self.add(entries)
        if left:
            said = "\n".join([*left, "Drop a file itself to add it."])
            self._panel.tell(self.details, said, "warning")
        elif not entries:
            self._panel.tell(self.details, "There are no movies in this folder.", "warning")

    def refresh(self) -> None:
        """Show the model as it is now."""
        self.stacks.refresh()
        self._show_details()
        self.changed.emit()

    def layer_of(self, entry: Entry) -> Image | None:
        """Return the layer that an entry stands for, if it does."""
        layer, _ = self._layers.get(entry, (None, None))
        return layer

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Movies of a session", self._folder)
        if folder:
            self._folder = folder
            self.add_paths([folder])

    def _remove_selected(self) -> None:
        gone = self.stacks.selected
        for entry in gone:
            self._unfollow(entry)
        self._koma.remove(gone)
        self.refresh()

    def _sort(self, key: Callable[[Entry], Any]) -> None:
        self._koma.sort(key)
        self.refresh()

    def _show_details(self) -> None:
        entry, entries = self.stacks.current, self._koma.entries
        n = sum(not self._koma.why_not(one) for one in entries)
        n_in = sum(map(self._koma.enters, entries))
        tone = "muted"
        if entry is None:
            text = f"{n_in} of {n} stacks are used for averaging." if entries else ""
        elif why := self._koma.why_not(entry):
            text, tone = f"{entry.name} {why}", "error"
        elif why := self._koma.why_left_out(entry):
            text = f"{entry.name} is not used for averaging: {why}. Tick it to use it."
            tone = "warning"
        else:
            text = f"{entry.name} is used for averaging ({n_in} of {n} are)."
        self._panel.tell(self.details, text, tone)
        for button in self._for_selected:
            button.setEnabled(bool(self.stacks.selected))
        self.sort.setEnabled(len(entries) > 1)
        self.current_changed.emit()

    # Layers -------------------------------------------------------------------------------------

    def _add_layers(self) -> None:
        """Add the movies open now that are no entries yet, first opened first."""
        known = {id(layer) for layer, _ in self._layers.values()}
        entries = []
        for layer in self._panel.viewer.layers:
            if not isinstance(layer, Image) or id(layer) in known:
                continue
            if isinstance(layer.data, StackSeries):
                # Movies dropped together: each is a stack of the session.
                entries += movies_in(layer.metadata.get("paths", ()))
            elif (entry := _entry_of(layer)) is not None:
                self._follow(layer, entry)
                entries.append(entry)
        self.add(entries)
        if not entries:
            self._panel.tell(self.details, "No further movies are open in napari.", "warning")

    def _follow(self, layer: Image, entry: Entry) -> None:
        def changed(event: Any = None) -> None:
            self._on_layer_changed(layer, event)

        for emitter in emitters_of(layer):
            emitter.connect(changed)
        self._layers[entry] = layer, changed

    def _unfollow(self, entry: Entry) -> None:
        layer, changed = self._layers.pop(entry, (None, None))
        for emitter in emitters_of(layer):
            emitter.disconnect(changed)

    def _let_go(self) -> None:
        """Hold no layer and no frames of one when the window is gone."""
        self._koma.remove(self._layers)
        for entry in list(self._layers):
            self._unfollow(entry)

    def _on_layer_changed(self, layer: Image, event: Any) -> None:
        """Rename the entry of a layer, or put one with its other frames, or scale, in its place."""
        old = next(entry for entry, (known, _) in self._layers.items() if known is layer)
        if event.type == "name":
            old.name = layer.name
        else:
            self._unfollow(old)
            if (new := _entry_of(layer)) is None:
                self._koma.remove([old])
            else:
                self._follow(layer, new)
                self._koma.replace(old, new)
                self.replaced.emit(old, new)
        self.refresh()

    def _on_layer_removed(self, event: Any) -> None:
        for entry, (layer, _) in list(self._layers.items()):
            if layer is event.value:
                self._unfollow(entry)
                self._koma.remove([entry])
                if isinstance(entry.source, Stack):
                    entry.source.close()  # it was opened for the layer
                self.refresh()


def _entry_of(layer: Image) -> Entry | None:
    """Return the entry of a layer that is a movie, and was not corrected by KOMA before."""
    if layer.ndim != 3:
        return None
    try:
        stack = stack_of_layer(layer)
    except MrczError:
        return None
    done = any(step.get("name") == _KOMA for step in stack.history)
    return None if done or stack.description.volume else Entry(layer.name, stack)


class StackList(QListView):
    """The list of a `KomaModel`, which is changed by what is done here."""

    changed = Signal()  # the order, or which stacks enter averages
    files_dropped = Signal(object)  # files and folders, as a list of str
    current_changed = Signal()  # another stack is looked at, or others are selected
    remove_pressed = Signal()  # the Delete key was

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
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(_HEIGHT_PX)
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
            rows_px = self.sizeHintForRow(0) * len(self._koma.entries)
            self.setMaximumHeight(max(_HEIGHT_PX, rows_px + _MARGIN_PX))

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
        if rows := sorted(index.row() for index in self.selectedIndexes()):
            last = len(self._koma.entries)
            self.move_to(rows, max(0, rows[0] - 1) if steps < 0 else min(last, rows[-1] + 2))

    def move_to(self, rows: list[int], to: int) -> None:
        """Move stacks before the one at `to`."""
        before = self._koma.entries
        moving = [before[row] for row in rows]
        self._koma.move(moving, to)
        if self._koma.entries != before:
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
        self.viewport().update()  # type: ignore[union-attr]

    def sizeHint(self) -> QSize:
        """Return the least size; the column gives more where it has it."""
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
        """Show what there is now; return whether there are other rows than before."""
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
        entry, koma = self._shown[index.row()], self._koma
        if role == Qt.ItemDataRole.DisplayRole:
            digits = len(str(len(self._shown)))
            number = str(index.row() + 1).rjust(digits, _FIGURE_SPACE)
            remark = ""
            if koma.why_not(entry):
                remark = "\n      cannot be used"
            elif not koma.enters(entry):
                odd, _ = koma.oddity(entry)
                remark = f"\n      {odd}{', ' * bool(odd)}left out of averages"
            return f"{number}  {entry.name}{remark}"
        if role == Qt.ItemDataRole.CheckStateRole and not koma.why_not(entry):
            return Qt.CheckState.Checked if koma.enters(entry) else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.ForegroundRole:
            if koma.why_not(entry):
                return self.error
            return None if koma.enters(entry) else self.muted
        if role == Qt.ItemDataRole.ToolTipRole:
            said = filter(None, (entry.path or entry.name, koma.why_left_out(entry)))
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
        flag = Qt.ItemFlag
        if not index.isValid():
            return flag.ItemIsDropEnabled
        flags = flag.ItemIsEnabled | flag.ItemIsSelectable | flag.ItemIsDragEnabled
        if self._koma.why_not(self._shown[index.row()]):
            return flags
        return flags | flag.ItemIsUserCheckable

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

    def canDropMimeData(self, data: Any, *where: Any) -> bool:
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
