"""The form that asks how EER movies are summed and divided, where they are dropped on a window.

A single frame of EER has an electron in one of some fifty pixels. Movies are shown in fractions, by
default of 1 e⁻/Å², or 40 of them where the file states no dose.
"""

from __future__ import annotations

import os
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import counted, size_text
from napari_mrcz.plugin.layers import in_event_loop
from napari_mrcz.stack.opening import frames_of_dose, total_dose
from napari_mrcz.stack.tiff import SUPERRESOLUTIONS, finest_superresolution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.stack import Stack

_FRACTIONS = 40

# Whether to ask although napari does not answer its user yet; the progress bar of files that were
# dropped together, and the answer for them.
_asks = False
_answered: tuple[weakref.ref[Any], dict[str, Any] | None] | None = None


def eer_options(movie: Stack) -> dict[str, Any] | None:
    """Ask how an EER movie is to be opened, once for all that are dropped together.

    `movie`: opened without options. Return options of `napari_mrcz.open`, {} if there is no window
    to ask in, None after Cancel.
    """
    global _answered
    window = _window()
    if window is None:
        return {}
    drop = _drop()
    if drop is not None and _answered is not None and _answered[0]() is drop:
        return _answered[1]
    options = EerForm(movie, window).ask()
    _answered = None if drop is None else (weakref.ref(drop), options)
    return options


@contextmanager
def asking() -> Iterator[None]:
    """Ask within this block although napari does not answer its user yet, as it starts."""
    global _asks
    _asks = True
    try:
        yield
    finally:
        _asks = False


def _window() -> Any:
    """Return napari's window, if it is visible and its user there: a script is not held up."""
    import napari

    viewer = napari.current_viewer()
    window = None if viewer is None else viewer.window._qt_window
    is_seen = window is not None and window.isVisible()
    return window if is_seen and (_asks or in_event_loop()) else None


def _drop() -> Any:
    """Return the progress bar that napari shows for each drop of files, if there is one."""
    from napari.utils import progress

    bars = getattr(progress, "_all_instances", ())
    return next((bar for bar in bars if str(bar.desc).startswith("Opening Files")), None)


class EerForm:
    """The form for one movie, opened without options, in front of a window."""

    def __init__(self, movie: Stack, window: Any = None) -> None:
        from magicgui.widgets import ComboBox, Dialog, FloatSpinBox, Label, SpinBox

        self._movie = movie
        n, y, x = movie.shape
        eer = movie.metadata.get("eer", {})
        total, unit = total_dose(movie), str(eer.get("totalDose.unit", ""))
        known = total > 0
        self._per_frame = total / n
        group = max(1, round(n / _FRACTIONS))
        area = movie.pixel_size[1] * movie.pixel_size[2] if "pix" in unit.lower() else 1.0
        if known and area:
            group = frames_of_dose(movie, area)
        # The dose that was chosen; None where a number of frames was.
        self._dose: float | None = group * self._per_frame or None
        self.group = SpinBox(
            value=group,
            min=1,
            max=n,
            label="Frames per fraction",
            tooltip="EER frames summed into each frame that is shown",
        )
        self.dose = FloatSpinBox(
            value=group * self._per_frame,
            min=self._per_frame,
            max=n * self._per_frame or 1.0,
            step=self._per_frame or 1.0,
            label=f"Dose per fraction ({unit})" if unit else "Dose per fraction",
            tooltip="Dose of each frame that is shown, to the nearest whole EER frame",
        )
        finest = finest_superresolution(movie)
        self.grid = ComboBox(
            value=1,
            choices=[(f"{f * y} × {f * x}", f) for f in SUPERRESOLUTIONS if f <= finest],
            label="Pixels",
            tooltip="The camera's pixels, or each divided into 2 × 2 or 4 × 4 (super-resolution)",
        )
        self.result = Label(label="Result", tooltip="What is shown, and its size in memory")
        fields = [self.group, *([self.dose] if known else []), self.grid, self.result]
        self.dialog = Dialog(widgets=fields, parent=window)
        self.dialog.native.setWindowTitle(f"EER: {os.path.basename(movie.path or '')}")
        self.group.changed.connect(self._take_group)
        self.dose.changed.connect(self._take_dose)
        self.grid.changed.connect(self._show_result)
        self._show_result()

    def ask(self) -> dict[str, Any] | None:
        """Show the form until it is answered; return options of `open`, or None after Cancel."""
        accepted = self.dialog.exec()
        group = {"group": int(self.group.value)} if self.group.value > 1 else {}
        summed = group if self._dose is None else {"dose_per_frame": self._dose}
        options = {"superresolution": int(self.grid.value), **summed}
        self.dialog.native.deleteLater()
        return options if accepted else None

    def _take_group(self, group: int) -> None:
        self._dose = None
        with self.dose.changed.blocked():
            self.dose.value = group * self._per_frame
        self._show_result()

    def _take_dose(self, dose: float) -> None:
        self._dose = dose
        with self.group.changed.blocked():
            self.group.value = frames_of_dose(self._movie, dose)
        self._show_result()

    def _show_result(self, changed: Any = None) -> None:
        n, y, x = self._movie.shape
        group, factor = int(self.group.value), int(self.grid.value)
        nbytes = y * x * factor**2 * np.min_scalar_type(255 * group).itemsize
        fractions = counted(-(-n // group), "fraction")
        self.result.value = f"{fractions} of {n} frames, {size_text(nbytes)} each"
