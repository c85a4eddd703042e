"""The header doctor's tab of the "Metadata" dock: what is wrong with a header, to be fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_mrcz.errors import counted
from napari_mrcz.widgets.base.form import (
    WrappedLabel,
    allow,
    filled,
    form,
    number_field,
    push_button,
    scrolled,
    show_number,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_mrcz.format.findings import Finding
    from napari_mrcz.widgets.base.panel import Panel

_FINDINGS_PX = 200
_LARGEST_PIXEL = 1e6  # in angstrom


class FindingBox(QWidget):
    """One finding: its field, ticked to be fixed, what is wrong, and what is proposed."""

    ticked = Signal()

    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self.finding = finding
        title: QLabel | QCheckBox = QLabel(finding.field)
        title.setToolTip("This cannot be fixed by writing another header")
        self.check: QCheckBox | None = None
        if finding.mendable:
            title = self.check = QCheckBox(finding.field)
            self.check.setChecked(True)
            self.check.setToolTip("Whether this is fixed with the others that are ticked")
            self.check.toggled.connect(self.ticked)
        font = title.font()
        font.setBold(True)
        title.setFont(font)
        what = "Proposed" if finding.mendable else "What to do"
        self.text = WrappedLabel("What is wrong, what the file has, and what is proposed")
        self.text.setText(f"{finding.sentence}\nFound: {finding.found}\n{what}: {finding.proposed}")
        filled(self, title, self.text, spacing=2)


class DoctorView(QWidget):
    """What is wrong with the header of one file, each finding with a tick, to be fixed."""

    pixel_size_told = Signal()  # the header is to be looked at anew

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self._panel = panel
        self.path = ""  # of the file; empty without one
        self.why_not_in_place = ""
        self._why_not = ""
        self.findings: tuple[Finding, ...] = ()
        self.boxes: list[FindingBox] = []
        self.summary = WrappedLabel("How many things were found")
        self.pixel_size = number_field(
            (0, _LARGEST_PIXEL),
            0.1,
            " Å",
            "What you know the pixel size to be; it is then proposed",
        )
        self.pixel_size.setDecimals(4)
        self.pixel_size.setSpecialValueText("unknown")
        self.copy_button = push_button("Fix in a copy…", "")
        self.in_place_button = push_button("Fix this file…", "")
        content = QWidget()
        self._list = QVBoxLayout(content)
        self._list.setContentsMargins(0, 0, 6, 0)
        self._list.addStretch()
        scroll = scrolled(content)
        scroll.setMinimumHeight(_FINDINGS_PX)
        scroll.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._told = QWidget()
        self._told.setLayout(form(("Pixel size", self.pixel_size)))
        buttons = filled(QWidget(), self.copy_button, self.in_place_button, across=True)
        filled(self, self.summary, scroll, self._told, buttons)
        self.pixel_size.valueChanged.connect(self.pixel_size_told)
        self.show_findings((), "No file")

    @property
    def chosen(self) -> list[Finding]:
        """The findings that are ticked."""
        return [box.finding for box in self.boxes if box.check and box.check.isChecked()]

    def begin(self, path: str, why_not_in_place: str = "") -> None:
        """Turn to another file, or to the same that was changed; forget what was found."""
        if path != self.path:
            show_number(self.pixel_size, 0, 0, _LARGEST_PIXEL)
        self.path, self.why_not_in_place = path, why_not_in_place
        self.show_findings((), "Checking…" if path else "No file")

    def show_findings(
        self, findings: Sequence[Finding], text: str = "", tone: str = "text"
    ) -> None:
        """Show what was found in the file, or a sentence instead."""
        self.findings = tuple(findings)
        for box in self.boxes:
            self._list.removeWidget(box)
            box.hide()
            box.deleteLater()
        self.boxes = [FindingBox(finding) for finding in findings]
        for at, box in enumerate(self.boxes):
            box.ticked.connect(lambda: self.show_state(self._why_not))
            self._list.insertWidget(at, box)
        self._panel.tell(self.summary, text or _counted(self.findings), tone)
        self.show_state(self._why_not)

    def show_state(self, problem: str) -> None:
        """Enable what can be used now, and show why the rest cannot."""
        self._why_not = problem
        if not any(finding.mendable for finding in self.findings):
            problem = "There is nothing to fix"
        problem = problem or ("" if self.chosen else "Tick what is to be fixed")
        allow(self.copy_button, problem, "Write the file with another header; keep this one")
        tip = "Replace the file by one with another header, in one step; its frames are copied"
        allow(self.in_place_button, problem or self.why_not_in_place, tip)
        self._told.setVisible(any(finding.field == "pixel size" for finding in self.findings))


def _counted(findings: Sequence[Finding]) -> str:
    if not findings:
        return "Nothing is wrong with the header."
    mendable = sum(finding.mendable for finding in findings)
    things = counted(len(findings), "thing")
    if mendable == len(findings):
        return f"{things} to fix."
    return f"{things} found, {mendable or 'none'} of them can be fixed here."
