"""The list of a session's stacks, where they come from, and what is done with those selected."""

from __future__ import annotations

from functools import partial
from itertools import groupby
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
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QLabel,
    QListView,
    QMenu,
    QSizePolicy,
    QWidget,
)

from napari_mrcz.errors import MrczError, collected_warnings
from napari_mrcz.plugin.layers import StackSeries, stack_of_layer
from napari_mrcz.stack import Stack
from napari_mrcz.widgets.base.form import WrappedLabel, filled, plain_tip, push_button
from napari_mrcz.widgets.base.layer_picker import connect_while_alive, emitters_of
from napari_mrcz.widgets.base.plot import readable
from napari_mrcz.widgets.koma.reading import Entry, by_name, by_time, movies_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_mrcz.widgets.base.panel import Panel
    from napari_mrcz.widgets.base.plot import Palette
    from napari_mrcz.widgets.koma.model import KomaModel

_ROWS = "application/x-napari-mrcz-stacks"
# In a low window the list shows half a dozen stacks; it takes half of what a high one has more.
_HEIGHT_PX, _ARROW_PX = 92, 36
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
        self.layers: dict[Entry, Image] = {}  # those that entries stand for
        self._relay = lambda event: self._on_layer_changed(event)
        tip = "Add all movies of a folder, by acquisition time or, without it, by name"
        self.folder_button = push_button("Add folder…", tip)
        tip = "Add the movies open in napari, oldest first"
        self.layers_button = push_button("Add open layers", tip)
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
        rows: Any = self.stacks.rows
        selection: Any = self.stacks.selectionModel()
        for signal, slot in (
            (self.folder_button.clicked, self._ask_folder),
            (self.layers_button.clicked, self._add_layers),
            (self.up.clicked, lambda: self._move_selected(-1)),
            (self.down.clicked, lambda: self._move_selected(1)),
            (self.remove.clicked, self._remove_selected),
            (self.stacks.remove_pressed, self._remove_selected),
            # The current row changes before the selection does.
            (selection.currentChanged, lambda *_: self._show_details()),
            (selection.selectionChanged, lambda *_: self._show_details()),
            (rows.ticked, self.refresh),
            (rows.moved, self._move),
        ):
            signal.connect(slot)
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
                entries = movies_in(paths)
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

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Movies of a session", self._folder)
        if folder:
            self._folder = folder
            self.add_paths([folder])

    def _move_selected(self, steps: int) -> None:
        rows = sorted(index.row() for index in self.stacks.selectedIndexes())
        last = len(self._koma.entries)
        self._move(rows, max(0, rows[0] - 1) if steps < 0 else min(last, rows[-1] + 2))

    def _move(self, rows: list[int], to: int) -> None:
        before = self._koma.entries
        self._koma.move([before[row] for row in rows], to)
        if self._koma.entries != before:
            self.refresh()

    def _remove_selected(self) -> None:
        self._remove(self.stacks.selected)
        self.refresh()

    def _sort(self, key: Callable[[Entry], Any]) -> None:
        self._koma.entries = tuple(sorted(self._koma.entries, key=key))
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
        known = {id(layer) for layer in self.layers.values()}
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
        self.layers[entry] = layer
        for emitter in emitters_of(layer):
            emitter.connect(self._relay)

    def _unfollow(self, entry: Entry) -> None:
        for emitter in emitters_of(self.layers.pop(entry, None)):
            emitter.disconnect(self._relay)

    def _remove(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        for entry in entries:
            self._unfollow(entry)
        self._koma.remove(entries)

    def _let_go(self) -> None:
        """Hold no layer and no frames of one when the window is gone."""
        self._remove(self.layers)

    def _on_layer_changed(self, event: Any) -> None:
        """Rename the entry of a layer, or put one with its other frames, or scale, in its place."""
        layer = event.source
        old = next(entry for entry, known in self.layers.items() if known is layer)
        if event.type == "name":
            old.name = layer.name
        elif (new := _entry_of(layer)) is None:
            self._remove([old])
        else:
            self._unfollow(old)
            self._follow(layer, new)
            self._koma.entries = tuple(new if one is old else one for one in self._koma.entries)
            self.replaced.emit(old, new)
        self.refresh()

    def _on_layer_removed(self, event: Any) -> None:
        for entry, layer in list(self.layers.items()):
            if layer is event.value:
                self._remove([entry])
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
    done = any(step.get("name") == "KomaNormalization" for step in stack.history)
    return None if done or stack.description.volume else Entry(layer.name, stack)


class StackList(QListView):
    """The list of a `KomaModel`; what is done with its `rows` is done to the model elsewhere."""

    remove_pressed = Signal()  # the Delete key was

    def __init__(self, koma: KomaModel) -> None:
        super().__init__()
        self._koma = koma
        self.rows = _Rows(koma, self)
        self.setModel(self.rows)
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
        self._invitation = QLabel("Drop a folder or movies here")
        self._invitation.setAlignment(Qt.AlignmentFlag.AlignCenter)
        filled(self.viewport(), self._invitation)  # type: ignore[arg-type]

    @property
    def current(self) -> Entry | None:
        """The stack that is looked at."""
        return next(iter(self.rows.entries_at([self.currentIndex()])), None)

    @property
    def selected(self) -> list[Entry]:
        """The stacks selected, in order."""
        return self.rows.entries_at(self.selectedIndexes())

    def refresh(self) -> None:
        """Show the model as it is now; what was selected stays so."""
        selected, current = self.selected, self.current
        self._invitation.setVisible(not self._koma.entries)
        if self.rows.show_entries():
            self.select(selected or [current])

    def select(self, entries: Iterable[Entry | None]) -> None:
        """Select stacks; the first becomes the one that is looked at."""
        chosen = set(entries)
        rows = [row for row, entry in enumerate(self._koma.entries) if entry in chosen]
        # As one, in few ranges: whoever follows the selection looks at all stacks.
        together = QItemSelection()
        for _, group in groupby(enumerate(rows), lambda at: at[1] - at[0]):
            run = [self.rows.index(row) for _, row in group]
            together.select(run[0], run[-1])
        selection: Any = self.selectionModel()
        flags = QItemSelectionModel.SelectionFlag
        if rows:
            selection.setCurrentIndex(self.rows.index(rows[0]), flags.NoUpdate)
        selection.select(together, flags.ClearAndSelect)

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        # A list is not upon the background that these colours can be read on.
        self.rows.muted, self.rows.error = (
            QColor(readable(colour, colours.foreground, colours.text))
            for colour in (colours.muted, colours.error)
        )
        self._invitation.setStyleSheet(f"color: {self.rows.muted.name()}")
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


class _Rows(QAbstractListModel):
    """A `KomaModel` as Qt's views read it."""

    ticked = Signal()  # or unticked
    moved = Signal(object, int)  # rows, and before which one

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
        entry = self._shown[index.row()]
        is_bad, enters = bool(self._koma.why_not(entry)), self._koma.enters(entry)
        if role == Qt.ItemDataRole.DisplayRole:
            digits = len(str(len(self._shown)))
            number = str(index.row() + 1).rjust(digits, _FIGURE_SPACE)
            odd, _ = self._koma.oddity(entry)
            remark = "cannot be used" if is_bad else f"{odd}{', ' * bool(odd)}left out of averages"
            return f"{number}  {entry.name}" + ("" if enters else f"\n      {remark}")
        if role == Qt.ItemDataRole.CheckStateRole and not is_bad:
            return Qt.CheckState.Checked if enters else Qt.CheckState.Unchecked
        if role == Qt.ItemDataRole.ForegroundRole and not enters:
            return self.error if is_bad else self.muted
        if role == Qt.ItemDataRole.ToolTipRole:
            said = filter(None, (entry.path or entry.name, self._koma.why_left_out(entry)))
            return plain_tip("\n".join(said))
        return None

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        if role != Qt.ItemDataRole.CheckStateRole:
            return False
        self._shown[index.row()].ticked = Qt.CheckState(value) == Qt.CheckState.Checked
        self.ticked.emit()
        return True

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flag = Qt.ItemFlag
        if not index.isValid():
            return flag.ItemIsDropEnabled
        flags = flag.ItemIsEnabled | flag.ItemIsSelectable | flag.ItemIsDragEnabled
        is_bad = self._koma.why_not(self._shown[index.row()])
        return flags if is_bad else flags | flag.ItemIsUserCheckable

    def supportedDropActions(self) -> Qt.DropAction:
        return Qt.DropAction.MoveAction | Qt.DropAction.CopyAction

    def mimeTypes(self) -> list[str]:
        return [_ROWS]

    def mimeData(self, indexes: Iterable[QModelIndex]) -> QMimeData:
        rows = sorted(index.row() for index in indexes)
        data = QMimeData()
        # Whose rows they are: another list's mean nothing here.
        data.setData(_ROWS, " ".join(map(str, (id(self), *rows))).encode())
        return data

    def canDropMimeData(self, data: Any, *where: Any) -> bool:
        return self._rows_in(data) is not None  # files go to the panel around the list

    def dropMimeData(
        self, data: Any, action: Qt.DropAction, row: int, column: int, parent: QModelIndex
    ) -> bool:
        if (rows := self._rows_in(data)) is not None:
            self.moved.emit(rows, len(self._shown) if row < 0 else row)
        return rows is not None

    def _rows_in(self, data: QMimeData) -> list[int] | None:
        if not data.hasFormat(_ROWS):
            return None
        whose, *rows = (int(part) for part in bytes(data.data(_ROWS).data()).split())
        return rows if whose == id(self) else None
