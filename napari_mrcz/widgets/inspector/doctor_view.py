"""The findings of the header doctor, each with a tick, and mending them in a copy or in place."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal, Slot
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.widgets.base.job import JobControls, while_alive
from napari_mrcz.widgets.base.panel import Panel, WrappedLabel
from napari_mrcz.widgets.inspector.model import Mended, check_header, mend_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from napari_mrcz.format.doctor import Finding
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.inspector.model import Subject

_HEIGHT_PX = 260
_LARGEST_PIXEL = 1e6


class FindingBox(QWidget):
    """One finding: its field, ticked to be mended, what is wrong, and what is proposed.

    Attributes
    ----------
    ticked : Signal()
        The tick was changed.
    """

    ticked = Signal()

    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self.finding = finding
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 6)
        column.setSpacing(2)
        self.check: QCheckBox | None = None
        if finding.mendable:
            self.check = QCheckBox(finding.field)
            self.check.setChecked(True)
            self.check.setToolTip("Whether this is fixed with the others that are ticked")
            self.check.toggled.connect(self.ticked)
            title: QWidget = self.check
        else:
            title = QLabel(finding.field)
            title.setToolTip("This cannot be fixed by writing another header")
        font = title.font()
        font.setBold(True)
        title.setFont(font)
        what = "Proposed" if finding.mendable else "What to do"
        self.text = WrappedLabel("What is wrong, what the file has, and what is proposed")
        self.text.setText(f"{finding.sentence}\nFound: {finding.found}\n{what}: {finding.proposed}")
        column.addWidget(title)
        column.addWidget(self.text)

    @property
    def chosen(self) -> bool:
        """Whether it is to be mended."""
        return self.check is not None and self.check.isChecked()


class DoctorView(QWidget):
    """Findings of one file at a time.

    Parameters
    ----------
    panel : Panel
        The dock widget that this is in.

    Attributes
    ----------
    path : str
        The file; "" without one.
    findings : tuple of Finding
        What was found in it.
    looked : Signal(object)
        Other findings are shown.
    copy_pressed, in_place_pressed : Signal()
        The ticked findings are to be mended; `mend` does it, once it was asked about.
    pixel_size_told : Signal()
        The user says what the pixel size is: the header is to be looked at anew.
    mended : Signal(object)
        `Mended`.
    """

    looked = Signal(object)
    copy_pressed = Signal()
    in_place_pressed = Signal()
    pixel_size_told = Signal()
    mended = Signal(object)

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.path = ""
        self._mending = self._looked_at_all = False
        self._why_not_in_place = ""
        self.findings: tuple[Finding, ...] = ()
        self.boxes: list[FindingBox] = []
        self.summary = WrappedLabel("How many things were found")
        self._list = QVBoxLayout()
        self._list.setContentsMargins(0, 0, 6, 0)
        self.pixel_size = _pixel_size_field()
        self.copy_button = QPushButton("Fix in a copy…")
        self.in_place_button = QPushButton("Fix this file…")
        tip = "Hold the statistics against every frame, and propose the true ones"
        self.controls = JobControls(panel, "Check all frames", tip)
        self._lay_out()
        self.pixel_size.valueChanged.connect(self._on_pixel_size)
        self.copy_button.clicked.connect(self.copy_pressed)
        self.in_place_button.clicked.connect(self.in_place_pressed)
        self.controls.start_button.clicked.connect(self._look_at_all)
        self.controls.returned.connect(self._on_returned)
        self.controls.ended.connect(self._on_ended)
        self.show_findings("", (), "No file")

    @property
    def chosen(self) -> list[Finding]:
        """The findings that are ticked."""
        return [box.finding for box in self.boxes if box.chosen]

    def begin(self, path: str, why_not_in_place: str = "") -> None:
        """Turn to another file, or to the same that was changed; forget what was found."""
        if path != self.path:
            if not self._mending:
                self.controls.cancel()
            self.pixel_size.blockSignals(True)
            self.pixel_size.setValue(0)
            self.pixel_size.blockSignals(False)
            if not self.controls.running:
                self.controls.tell("")
        self._why_not_in_place = why_not_in_place
        self.show_findings(path, (), "Checking…" if path else "No file")

    def show_findings(
        self, path: str, findings: Sequence[Finding], text: str = "", tone: str = "text"
    ) -> None:
        """Show what was found in a file, or a sentence instead."""
        self.path, self.findings, self._looked_at_all = path, tuple(findings), False
        for box in self.boxes:
            self._list.removeWidget(box)
            box.hide()
            box.deleteLater()
        self.boxes = [FindingBox(finding) for finding in findings]
        for at, box in enumerate(self.boxes):
            box.ticked.connect(self._show_state)
            self._list.insertWidget(at, box)
        self._panel.tell(self.summary, text or _counted(self.findings), tone)
        self._show_state()
        self.looked.emit(self.findings)

    def mend(self, target: str | None, layers: Sequence[Subject] = ()) -> None:
        """Mend what is ticked in a copy, or in place, and open these layers of it again."""
        # It is brought to its end even if the widget is closed: it was asked for.
        self._mending = True
        self.controls.run(partial(mend_file, self.path, self.chosen, target, layers))
        self._show_state()

    def _lay_out(self) -> None:
        content = QWidget()
        outer = QVBoxLayout(content)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(self._list)
        outer.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setMinimumHeight(_HEIGHT_PX)
        scroll.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        scroll.setWidget(content)
        self._told = QWidget()
        told = QHBoxLayout(self._told)
        told.setContentsMargins(0, 0, 0, 0)
        told.addWidget(QLabel("Pixel size"))
        told.addWidget(self.pixel_size, 1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy_button)
        buttons.addWidget(self.in_place_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 6, 0, 0)
        column.addWidget(self.summary)
        column.addWidget(scroll, 1)
        column.addWidget(self._told)
        column.addLayout(buttons)
        column.addWidget(self.controls)

    @Slot()
    def _on_pixel_size(self) -> None:
        if self._looked_at_all:
            self._look_at_all()  # or what all frames told would be lost
        else:
            self.pixel_size_told.emit()

    @Slot()
    def _look_at_all(self) -> None:
        work = partial(_look, self.path, self.pixel_size.value())
        self.controls.run(while_alive(self, work))
        self._show_state()

    @Slot(object)
    def _on_returned(self, result: Any) -> None:
        if isinstance(result, Mended):
            self.controls.tell(str(result))
            self.mended.emit(result)
            return
        path, findings = result
        if path == self.path:
            self.show_findings(path, findings)
            self._looked_at_all = True

    @Slot()
    def _on_ended(self) -> None:
        self._mending = False
        self._show_state()

    @Slot()
    def _show_state(self) -> None:
        """Enable what can be used now, and say why the rest cannot."""
        nothing = "" if self.chosen else "Tick what is to be fixed"
        if not any(finding.mendable for finding in self.findings):
            nothing = "There is nothing to fix"
        if self.controls.running:
            nothing = "Wait until what is running has ended"
        here = nothing or self._why_not_in_place
        self.copy_button.setEnabled(not nothing)
        self.copy_button.setToolTip(nothing or "Write the file with another header; keep this one")
        self.in_place_button.setEnabled(not here)
        tip = "Replace the file by one with another header, in one step; its frames are copied"
        self.in_place_button.setToolTip(here or tip)
        self.controls.allow("" if self.path else "No file")
        self._told.setVisible(any(finding.field == "pixel size" for finding in self.findings))


def _pixel_size_field() -> QDoubleSpinBox:
    field = QDoubleSpinBox()
    field.setRange(0, _LARGEST_PIXEL)
    field.setDecimals(4)
    field.setSuffix(" Å")
    field.setSpecialValueText("unknown")
    field.setKeyboardTracking(False)
    field.setToolTip("What you know the pixel size to be; it is then proposed")
    return field


def _look(path: str, pixel_size: float, report: Report) -> tuple[str, tuple[Finding, ...]]:
    return path, check_header(path, True, pixel_size, report)


def _counted(findings: Sequence[Finding]) -> str:
    if not findings:
        return "Nothing is wrong with the header."
    mendable = sum(finding.mendable for finding in findings)
    things = "1 thing" if len(findings) == 1 else f"{len(findings)} things"
    if mendable == len(findings):
        return f"{things} to mend."
    return f"{things} found, {mendable or 'none'} of them can be mended here."
