"""Forms: those of options by magicgui, single fields and buttons, sections that are folded."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, get_type_hints

from magicgui.widgets import create_widget
from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_mrcz.correction.options import options_of
from napari_mrcz.errors import MINUS, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_FIELD_PX = 76
# Of a field's step: as near as its numbers come to one that is excluded.
_FINEST = 0.1
_SHORT_UNITS = {"standard deviations": "σ", "robust standard deviations": "σ"}


class OptionsForm(QWidget):
    """The fields of some options of a dataclass, made by magicgui from its annotations.

    `sliders`: ends of the sliders that some numbers have besides their field; `rows`: names and
    fields of others, above these. `fields` has a magicgui widget for each option, by its name.
    """

    changed = Signal(str)  # the name of an option that the user has changed

    def __init__(
        self,
        cls: type,
        names: Sequence[str],
        sliders: Mapping[str, tuple[float, float]] | None = None,
        rows: Sequence[tuple[str, QWidget]] = (),
    ) -> None:
        super().__init__()
        self._options = {name: options_of(cls)[name] for name in names}
        self.fields = {name: option_field(cls, name, (sliders or {}).get(name)) for name in names}
        for name, widget in self.fields.items():
            widget.changed.connect(lambda _, name=name: self.changed.emit(name))
        # Not in a `Container`, whose labels differ in width: it measures them in another font.
        fields = [(widget.label, widget.native) for widget in self.fields.values()]
        beside = [("" if isinstance(field, QCheckBox) else text, field) for text, field in fields]
        self.setLayout(form(*rows, *beside))

    def values(self) -> dict[str, Any]:
        """Return the options that are chosen, by name."""
        found = {}
        for name, declared in self._options.items():
            widget = self.fields[name]
            unset = (declared.default is None) and widget.value <= widget.min
            found[name] = None if unset else widget.value
        return found

    def show_values(self, values: Mapping[str, Any]) -> None:
        """Choose these; nothing is emitted."""
        for name, widget in self.fields.items():
            with widget.changed.blocked():
                widget.value = widget.min if values[name] is None else values[name]


def option_field(cls: type, name: str, slider: tuple[float, float] | None = None) -> Any:
    """Return a magicgui widget for an option of a dataclass, with its default.

    `slider`: the ends of a slider beside the number.
    """
    declared = options_of(cls)[name]
    option, default = declared.option, declared.default
    said = [option.help, option.advice]
    if option.only_with:
        other, value = option.only_with
        needed = options_of(cls)[other].option
        said.append(f"Only with {needed.label}: {needed.choices[value]}")
    tip = ". ".join(filter(None, said))
    how: dict[str, Any] = {"tooltip": tip}
    if slider is not None:
        how |= {"widget_type": "FloatSlider", "min": slider[0], "max": slider[1], "step": 0.001}
    widget: Any = create_widget(
        value=option.least if default is None else default,
        annotation=get_type_hints(cls, include_extras=True)[name],
        name=name,
        options=how,
    )
    native, unit = widget.native, _SHORT_UNITS.get(option.unit, option.unit)
    widget.label = option.label  # without the unit that the annotation adds
    if isinstance(native, QAbstractSpinBox):
        native.setMinimumWidth(_FIELD_PX)
        native.setKeyboardTracking(False)
    if isinstance(native, QDoubleSpinBox):
        if default is None:
            # The least value, which is not allowed itself, stands for "not given".
            widget.min = -1.0 if option.above is None else option.above
            widget.value = widget.min
        elif option.above is not None:
            widget.min = option.above + native.singleStep() * _FINEST
        if default in (None, widget.min):
            native.setSpecialValueText(option.unset)
        if unit:
            native.setSuffix(f" {unit}")
    elif isinstance(native, QAbstractSpinBox) and unit:  # whole numbers have no room for it
        widget.label = f"{option.label} ({unit})"
    elif isinstance(native, QComboBox):
        native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
    for field in native.findChildren(QDoubleSpinBox):  # beside a slider
        field.setDecimals(3)
        for part in (field, native.findChild(QSlider)):
            part.setToolTip(tip)
            part.setSingleStep(part.singleStep() * 10)  # of keys and arrows
    return widget


class Section(QWidget):
    """A title that opens and closes what lies below it; closed at first.

    superqt's moves what is below it in steps, for which plots are drawn anew, and its arrows have
    the colours of the theme that it was made in.
    """

    def __init__(self, title: str, *parts: QWidget) -> None:
        super().__init__()
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setToolTip(f"Show or hide: {title}")
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.content = filled(QWidget(), *parts)
        filled(self, self.button, self.content, spacing=2)
        self.button.toggled.connect(self._on_toggled)
        self._on_toggled(False)

    def _on_toggled(self, opened: bool) -> None:
        self.button.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.content.setVisible(opened)


def filled(
    widget: QWidget, *parts: QWidget, across: bool = False, spacing: int | None = None
) -> QWidget:
    """Return a widget with others below each other, or side by side, that reach to its edges."""
    layout = QHBoxLayout(widget) if across else QVBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    if spacing is not None:
        layout.setSpacing(spacing)
    for part in parts:
        layout.addWidget(part)
    return widget


def form(*rows: tuple[str, QWidget]) -> QFormLayout:
    """Return a form of rows, whose names explain themselves as their fields do."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    # What has no room beside its name stands below it.
    layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
    add_rows(layout, *rows)
    return layout


def add_rows(layout: QFormLayout, *rows: tuple[str, QWidget]) -> None:
    """Add rows to a form."""
    for name, field in rows:
        label = QLabel(name)
        label.setToolTip(field.toolTip())
        layout.addRow(label, field)


def scrolled(content: QWidget) -> QScrollArea:
    """Return what scrolls a widget up and down where it has no room."""
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(content)
    return scroll


class NumberField(QDoubleSpinBox):
    """A field for a number, with the minus sign that sentences and plots have too.

    A hyphen can be typed for it.
    """

    def textFromValue(self, value: float) -> str:
        """Return a number as it is shown."""
        return super().textFromValue(value).replace(self.locale().negativeSign(), MINUS)

    def valueFromText(self, text: str | None) -> float:
        """Return the number that was typed."""
        return super().valueFromText(_with_hyphen(text))

    def validate(self, text: str | None, position: int) -> Any:
        """Check whether what was typed is a number, or may become one; it stays as it was typed."""
        state, *_ = super().validate(_with_hyphen(text), position)
        return state, text, position


def number_field(span: tuple[float, float], step: float, unit: str, tip: str) -> NumberField:
    """Return a field for a number, stepped or typed to its end."""
    field = NumberField()
    field.setMinimumWidth(_FIELD_PX)  # two side by side fit a narrow dock
    field.setKeyboardTracking(False)
    field.setDecimals(2)
    field.setRange(*span)
    field.setSingleStep(step)
    field.setSuffix(unit)
    field.setToolTip(tip)
    # With napari's buttons of 20 pixels, "−12.34 σ" is cut off in a narrow dock.
    field.setStyleSheet("QAbstractSpinBox::up-button, QAbstractSpinBox::down-button {width: 13px}")
    return field


def show_number(field: Any, value: float, low: float, high: float) -> None:
    """Show a number and its range in a field or slider; nothing is emitted."""
    field.blockSignals(True)
    field.setRange(low, high)
    field.setValue(value)
    field.blockSignals(False)


def choice_field(choices: Iterable[tuple[str, Any]], tip: str) -> QComboBox:
    """Return a list of (text, what it stands for); long texts are cut off."""
    combo = QComboBox()
    for text, value in choices:
        combo.addItem(text, value)
    combo.setToolTip(tip)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    return combo


def push_button(text: str, tip: str) -> QPushButton:
    """Return a button that explains itself."""
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


def allow(button: QPushButton, problem: str, tip: str) -> None:
    """Enable a button, or show why it cannot be pressed."""
    button.setEnabled(not problem)
    button.setToolTip(problem or tip)


def _with_hyphen(text: str | None) -> str:
    """Return what Qt takes for the beginning of a number in every language."""
    return (text or "").replace(MINUS, "-")


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
        super().setText(as_shown(text))

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


def plain_tip(text: str) -> str:
    """Return a text as a tip that is shown as it is: Qt takes what has tags for HTML."""
    text = as_shown(text)
    return f"<qt>{escape(text)}</qt>".replace("\n", "<br>") if "<" in text else text


def as_shown(text: str | None) -> str:
    """Return lines of text of which none steers a terminal or a screen: names of files may."""
    return "\n".join(map(printable, (text or "").split("\n")))
