"""The buttons of the "Outliers" widget that change what is shown, or save it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QGridLayout, QWidget

from napari_mrcz.widgets.base.fields import push_button

if TYPE_CHECKING:
    from napari_mrcz.widgets.outliers.kept_fits import KeptFit


class ButtonBar(QWidget):
    """Reset, before and after, mask, save: they do nothing by themselves.

    Attributes
    ----------
    reset_button, toggle_button, colour_button, mask_button, save_button : QPushButton
        Connect `clicked`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset_button = push_button("Reset to the fit", "Take the thresholds of the fit again")
        self.toggle_button = push_button(
            "Show before", "Change between the movie and the corrected one (Shift+B in the viewer)"
        )
        self.colour_button = push_button(
            "Colour outliers", "Colour hot pixels orange and dark ones blue, over what is shown"
        )
        self.colour_button.setCheckable(True)
        self.mask_button = push_button(
            "Outlier mask", "Show outliers as labels: 1 hot, 2 dark, 3 defect"
        )
        self.mask_button.setCheckable(True)
        self.save_button = push_button(
            "Save corrected…", "Open the Save stack widget with the corrected movie"
        )
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.reset_button, 0, 0)
        grid.addWidget(self.toggle_button, 0, 1)
        grid.addWidget(self.colour_button, 1, 0)
        grid.addWidget(self.mask_button, 1, 1)
        grid.addWidget(self.save_button, 2, 0, 1, 2)

    def show_state(self, kept: KeptFit | None) -> None:
        """Enable what can be used now."""
        corrected = kept is not None and kept.layers.corrected is not None
        self.reset_button.setEnabled(kept is not None and kept.fit.is_changed)
        self.toggle_button.setEnabled(corrected)
        self.save_button.setEnabled(corrected)
        self.mask_button.setEnabled(corrected)
        self.mask_button.setChecked(self.mask_button.isChecked() and kept is not None)
        self.colour_button.setEnabled(kept is not None and kept.layers.sigma is not None)
        self.colour_button.setChecked(kept is not None and kept.layers.shows_colours)
        after = kept is not None and kept.layers.shows_corrected
        self.toggle_button.setText("Show before" if after else "Show after")
