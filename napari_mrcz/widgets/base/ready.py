"""What napari loads with its first layer of a kind: the window would wait for it, a thread may."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels, Points, Shapes
from napari.utils.colormaps import DirectLabelColormap


def get_labels_ready() -> None:
    """Make labels that nobody sees: a part of a second the first time, so call it in a thread."""
    colours = DirectLabelColormap(color_dict={None: "transparent", 1: "red"})
    Labels(np.zeros((1, 1), np.uint8), features={"index": [0]}, colormap=colours)


def get_points_ready() -> None:
    """Make points that nobody sees: half a second the first time, so call it in a thread."""
    Points(np.zeros((1, 2)))


def get_shapes_ready() -> None:
    """Make a shape that nobody sees: seconds the first time, so call it in a thread."""
    Shapes([(np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]]), "ellipse")])
