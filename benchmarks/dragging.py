"""How soon the picture follows a threshold that is dragged, in napari's real window."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.qt import get_qapp
from vispy.gloo import gl

import napari_mrcz as nm
from benchmarks.measure import Row
from benchmarks.outliers import large_movie
from napari_mrcz.plugin.demo import wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEPS = 30
_PATIENCE_S = 20.0


def rows() -> Iterator[Row]:
    """Drag the hot threshold of 40 frames of 4096 x 4096; move the contrast of one such frame."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "movie.mrcz")
        nm.write(path, large_movie(40))
        viewer = napari.Viewer()
        try:
            yield from _dragged(viewer, path)
        finally:
            viewer.close()
            get_qapp().processEvents()


def _dragged(viewer: napari.Viewer, path: Path) -> Iterator[Row]:
    viewer.window.resize(1500, 900)
    (movie,) = viewer.open(path, plugin="napari-mrcz")
    limits = movie.contrast_limits
    drawing = [
        until_drawn(viewer, partial(setattr, movie, "contrast_limits", (limits[0], high)))
        for high in np.linspace(limits[1], limits[1] + 2, _STEPS)
    ]
    area, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", "Outliers")
    viewer.window._qt_window.show()
    area.show()
    get_qapp().processEvents()  # widgets that are not seen do nothing
    widget.start_fit()
    wait_until_idle([widget])
    fitted = widget.fit.current.thresholds.hot
    working, dragging = [], []
    for sigma in np.linspace(fitted, fitted + 2, _STEPS):
        start = time.perf_counter()
        widget.set_threshold("hot", float(sigma))
        working.append(time.perf_counter() - start)
        dragging.append(working[-1] + until_drawn(viewer, lambda: None))
        wait_until_idle([widget])  # the corrected movie comes when the line rests
    what = "threshold dragged, 4096²"
    yield Row(f"{what}: our own work", "one display frame", 1e3 * median(working), "ms", most=16)
    yield Row(f"{what}: until it is drawn", "", 1e3 * median(dragging), "ms", most=50)
    yield Row(
        f"{what}: until it is drawn", "contrast of a frame moved in napari",
        median(dragging) / median(drawing), "× the time",
    )  # fmt: skip


def until_drawn(viewer: napari.Viewer, change: Callable[[], Any]) -> float:
    """Change something; give the seconds until the canvas was drawn after that."""
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    drawn: list[float] = []

    def on_draw(event: Any) -> None:
        gl.glFinish()  # what was drawn so far were commands
        drawn.append(time.perf_counter())

    canvas.events.draw.connect(on_draw, position="last")
    start = time.perf_counter()
    change()
    canvas.update()
    while not drawn and time.perf_counter() < start + _PATIENCE_S:
        get_qapp().processEvents()
    canvas.events.draw.disconnect(on_draw)
    return drawn[0] - start
