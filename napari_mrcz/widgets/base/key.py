"""What the colours of a plot mean, in a line or two beneath it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt

from napari_mrcz.widgets.base.panel import WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_mrcz.widgets.base.theme import Palette


class Key(WrappedLabel):
    """Signs in their colours, with their meaning.

    Parameters
    ----------
    meanings : sequence of (str, str, str)
        The colour as `Palette` calls it, the sign, what it means.
    """

    def __init__(self, meanings: Sequence[tuple[str, str, str]]) -> None:
        super().__init__("What is drawn how in the plot")
        self._meanings = tuple(meanings)
        self.setTextFormat(Qt.TextFormat.RichText)

    def apply_palette(self, colours: Palette) -> None:
        """Take the colours of a theme."""
        parts = (
            f'<span style="color: {getattr(colours, colour)}">{sign}</span>&nbsp;'
            + meaning.replace(" ", "&nbsp;")
            for colour, sign, meaning in self._meanings
        )
        self.setText(" &ensp;".join(parts))
        self.setStyleSheet(f"color: {colours.text}")
