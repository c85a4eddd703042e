"""Write docs/fields.md, the fields and buttons of every widget, from the widgets: `make docs`."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from napari.components import ViewerModel
from napari.qt import get_qapp
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QWidget,
)

from napari_mrcz.widgets.base.job import JobControls

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "fields.md"
_MANIFEST = ROOT / "napari_mrcz" / "napari.yaml"
_KINDS = (
    QAbstractButton, QAbstractItemView, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit,
)  # fmt: skip
# What every section and every job has, and what depends on the movie.
_SKIPPED = re.compile(
    r"Stop|Show or hide|Every frame of|No file|There (is|are) n|.*: does not fit the frames"
)
_INTRODUCTION = """\
<!-- Made of the widgets by `make docs`; changes made here are lost. -->

# Fields of the widgets

What the tooltips say. Options that recipes have too, with defaults and whether to touch them:
[settings](settings.md). The widgets themselves: [in napari](widgets.md).
"""


def document() -> str:
    """Return the page; there has to be a Qt application."""
    manifest = yaml.safe_load(_MANIFEST.read_text("utf-8"))["contributions"]
    names = {command["id"]: command["python_name"] for command in manifest["commands"]}
    parts = [_INTRODUCTION]
    for entry in manifest["widgets"]:
        module, _, name = names[entry["command"]].partition(":")
        widget = getattr(import_module(module), name)(ViewerModel())
        rows = dict.fromkeys(_rows(widget))
        widget.close()
        widget.deleteLater()
        head = "| field or button | what it is |\n|---|---|\n"
        parts.append(f"## {entry['display_name']}\n\n{head}{''.join(rows)}")
    return "\n".join(parts)


def _rows(panel: QWidget) -> list[str]:
    found = []
    # What is shown now may be why a button cannot be pressed.
    tips = {job.start_button: job._tip for job in panel.findChildren(JobControls)}
    for field in panel.findChildren(QWidget):
        parent = field.parentWidget()
        tip = " ".join(tips.get(field, field.toolTip()).split())
        label = _label_of(field, panel)
        if isinstance(field, _KINDS) and not isinstance(parent, _KINDS) and tip and label:
            if not _SKIPPED.match(tip):
                found.append(f"| {label} | {tip.rstrip('.').replace('|', '/')} |\n")
    return found


def _label_of(field: Any, panel: QWidget) -> str:
    """Return the text of a button, or the label beside a field."""
    if isinstance(field, QAbstractButton) and field.text():
        return str(field.text()).replace("&", "")
    within = field
    while within is not panel:
        for layout in panel.findChildren(QFormLayout):
            label = layout.labelForField(within)
            if isinstance(label, QLabel) and label.text():
                return str(label.text())
        layout = within.parentWidget().layout()
        place = layout.indexOf(within) if layout is not None else -1
        before = layout.itemAt(place - 1).widget() if place > 0 else None
        if isinstance(before, QLabel) and re.fullmatch(r"[\w .]{1,20}", before.text()):
            return str(before.text())
        within = within.parentWidget()
    return ""


if __name__ == "__main__":
    application = get_qapp()
    PAGE.write_text(document(), encoding="utf-8")
    print(f"{PAGE} is written")
