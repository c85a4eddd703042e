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
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QRadioButton,
    QWidget,
)
from superqt import QLabeledRangeSlider

from napari_mrcz.correction import CountingOptions, TruncationOptions
from napari_mrcz.correction.options import options_of
from napari_mrcz.session.recipe import Coding, tables
from napari_mrcz.widgets.base.job import JobControls
from napari_mrcz.widgets.base.layer_picker import LayerPicker

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "fields.md"
_MANIFEST = ROOT / "napari_mrcz" / "napari.yaml"
_KINDS = (
    QAbstractButton, QAbstractItemView, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit,
    QLabeledRangeSlider,
)  # fmt: skip
# What every section and every job has; what is to be read alone.
_SKIPPED = re.compile(
    r"Stop|Show or hide|Every frame of|What was fitted|All that the file|Each corr"
)
# Fields without a label beside them, by the beginning of what they say.
_NAMES = {
    "The annulus whose histogram": "Annulus",
    "What is shown of": "Way to show",
    "First and last": "Range of frames",
    "Stacks in order": "List of movies",
    "Only entries in": "Search",
}
# Buttons that say why they cannot be pressed while there is no movie.
_BUTTONS = {
    "Fix in a copy…": "Write the file with another header; keep this one",
    "Fix this file…": "Replace the file by one with another header; its frames are copied",
    "Apply to another layer…": "Do the same to another layer; nothing is saved",
}
# Default, where no movie is needed to know it, and when to change what is no option of a recipe.
_ADVICE = {
    "Movie": ("that selected", "Leave it; select a layer in napari's list"),
    "Layer": ("that selected", "Leave it; select a layer in napari's list"),
    "Way to show": ("", "A running average shows drift and jumps; single frames, damage"),
    "Range of frames": ("all", "Leave out first frames that jump, last ones that are damaged"),
    "Average of": ("5 frames", "More where frames have few electrons"),
    "Binning": ("", "Leave it"),
    "Low-pass": ("off", "10 to 20 Å to see particles"),
    "Groups of": ("0.5 e⁻ per pixel", "Larger groups where the shifts are warned of"),
    "Correct counted electrons, too": ("", "Only where you know better than the warning"),
    "Dark": (
        "that of the fit",
        "Drag it where the colours show good pixels taken, or bad ones left",
    ),
    "Hot": (
        "that of the fit",
        "Drag it where the colours show good pixels taken, or bad ones left",
    ),
    "Gain": ("", "The camera's reference, if it has not been applied yet"),
    "Defects": ("", "Give the camera's list if you have one"),
    "Normalise it all the same": ("", "Only where you know better than the warning"),
    "Show the normalised movie": ("", "Leave it"),
    "multiply by it": ("", "Leave it to *Find orientation*"),
    "divide by it": ("", "Leave it to *Find orientation*"),
    "Gamma": ("1", "Leave it at 1, unless *Fit γ* found another with a flat of this camera"),
    "Dose rate": ("none", "Only with a curve, or to fit one"),
    "with pixels without usable gain": ("", "Leave it"),
    "List of movies": ("", "Untick a movie that should enter no average"),
    "Filter outliers first": ("", "Tick it for raw movies"),
    "Radius a": ("12", "12 or more for sessions of 25 movies and more"),
    "Output": ("koma, in the movies' folder", "As you like; sources are never replaced"),
    "Count frames that seem to be counted": ("", "Only where you know better than the warning"),
    "Threshold": ("fitted", "Drag it where it stands wrongly in the histogram"),
    "Show counts as a layer": ("", "Leave it"),
    "Beam": ("found", "Where the cross does not lie on the beam"),
    "Draw": ("", "As you like"),
    "Beam stop": ("", "Give its shadow: these zeros are not truncated counts"),
    "Regions": ("", "For detectors whose background is not round"),
    "Annulus": ("1", "As you like"),
    "Pixel size": ("unknown", "Give it where the file does not say it"),
    "Search": ("", "As you like"),
    "File": ("beside the movie", "As you like"),
    "Pixel type": ("unchanged", "float16 halves what is corrected by gain or KOMA"),
    "Codec": ("", "Leave it, but for readers that are faster with lz4"),
    "Level": ("", "Leave it"),
    "Filter": ("", "Leave it"),
    "Block size": ("", "Leave it"),
    "Verify": ("", "Tick it before you delete a source"),
}
_INTRODUCTION = """\
<!-- Made of the widgets by `make docs`; changes made here are lost. -->

# Fields of the widgets

What the tooltips say, the defaults, and when to change them. The same options as keys of a recipe
and on the command line: [settings](settings.md). The widgets themselves: [in napari](widgets.md).
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
        head = "| field or button | what it is | default | change it? |\n|---|---|---|---|\n"
        parts.append(f"## {entry['display_name']}\n\n{head}{''.join(rows)}")
    return "\n".join(parts)


def _rows(panel: QWidget) -> list[str]:
    found = []
    # What is shown now may be why a button cannot be pressed.
    tips = {job.start_button: job._tip for job in panel.findChildren(JobControls)}
    for field in panel.findChildren(QWidget):
        if not isinstance(field, _KINDS) or isinstance(field.parentWidget(), _KINDS):
            continue
        tip = " ".join(tips.get(field, field.toolTip()).split()).rstrip(".")
        label = _label_of(field, panel)
        label = next((name for said, name in _NAMES.items() if tip.startswith(said)), label)
        tip = _BUTTONS.get(label, tip)
        if tip and label and not _SKIPPED.match(tip):
            cells = label, *_about(field, label, tip)
            found.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n")
    return found


def _about(field: Any, label: str, tip: str) -> tuple[str, str, str]:
    """Return what a field is, its default, and when to change it; nothing more of a button."""
    default = ""
    if isinstance(field, QCheckBox | QRadioButton):
        default = "on" if field.isChecked() else "off"
    elif isinstance(field, QAbstractButton):
        return tip, "", ""
    elif isinstance(field, QComboBox):
        default = field.currentText()
    elif isinstance(field, QAbstractSpinBox):
        default = field.text()
    for cls in (*tables().values(), CountingOptions, TruncationOptions, Coding):
        for option in options_of(cls).values():
            what, advice = option.option.help, option.option.advice
            is_it = tip.startswith(". ".join(filter(None, (what, advice))).rstrip("."))
            if is_it and not isinstance(field, LayerPicker):
                return tip.replace(f". {advice.rstrip('.')}", "", 1), default, advice
    known, advice = _ADVICE[label]
    return tip, known or default, advice


def _label_of(field: Any, panel: QWidget) -> str:
    """Return the text of a button, or the label beside or within a field."""
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
    prefix = getattr(field, "prefix", str)()  # "dark" of a number has no label beside it
    return str(prefix).strip().capitalize()


if __name__ == "__main__":
    application = get_qapp()
    PAGE.write_text(document(), encoding="utf-8")
    print(f"{PAGE} is written")
