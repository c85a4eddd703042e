"""Fields and buttons that explain themselves, and lists of choices in a narrow dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QFormLayout, QLabel, QPushButton, QWidget

from napari_mrcz.errors import MINUS

if TYPE_CHECKING:
    from collections.abc import Iterable


def form(*rows: tuple[str, QWidget]) -> QFormLayout:
    """Give a form of rows, whose names explain themselves as their fields do."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for name, field in rows:
        label = QLabel(name)
        label.setToolTip(field.toolTip())
        layout.addRow(label, field)
    return layout


class NumberField(QDoubleSpinBox):
    """A field for a number, with the minus sign that sentences and plots have too.

    A hyphen can be typed for it.
    """

    def textFromValue(self, value: float) -> str:
        """Give a number as it is shown."""
        return super().textFromValue(value).replace(self.locale().negativeSign(), MINUS)

    def valueFromText(self, text: str | None) -> float:
        """Give the number that was typed."""
        return super().valueFromText(_with_hyphen(text))

    def validate(self, text: str | None, position: int) -> Any:
        """Tell whether what was typed is a number, or may become one; it stays as it was typed."""
        state, *_ = super().validate(_with_hyphen(text), position)
        return state, text, position


def number_field(span: tuple[float, float], step: float, unit: str, tip: str) -> NumberField:
    """Give a field for a number, stepped or typed to its end."""
    field = NumberField()
    field.setKeyboardTracking(False)
    field.setDecimals(2)
    field.setRange(*span)
    field.setSingleStep(step)
    field.setSuffix(unit)
    field.setToolTip(tip)
    return field


def choice_field(choices: Iterable[tuple[str, Any]], tip: str) -> QComboBox:
    """Give a list of (text, what it stands for)."""
    combo = QComboBox()
    for text, value in choices:
        combo.addItem(text, value)
    combo.setToolTip(tip)
    # Long entries are cut off rather than making the dock wide.
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    return combo


def push_button(text: str, tip: str) -> QPushButton:
    """Give a button that explains itself."""
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def _with_hyphen(text: str | None) -> str:
    """Give what Qt takes for the beginning of a number in every language."""
    return (text or "").replace(MINUS, "-")
