"""Take the README's pictures from the real window into docs/pictures: ``make screenshots``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from napari.qt import get_qapp
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_mrcz import demo
from napari_mrcz.plugin.sample import write_sample_movie

if TYPE_CHECKING:
    import napari

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
THEMES = ("dark", "light")
WIDTHS_PX = (320, 600)
# Noise does not compress; so many colours are enough for it.
COLOURS_OF_NOISE = 40
# What pictures should not show: whose machine they were taken on.
PREPARE = {"Save stack": lambda widget: widget.form.set_path("movie-copy.mrcz")}


def main() -> None:
    """Take all pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        movie = Path(folder, "movie.mrcz")
        write_sample_movie(movie)
        viewer, widgets = demo.open_demo(movie)
        try:
            for title, widget in widgets.items():
                PREPARE[title](widget)
            demo.save_picture(viewer, widgets.values(), PICTURES / "window.png")
            shrink(PICTURES / "window.png", COLOURS_OF_NOISE)
            for title, widget in widgets.items():
                picture_widget(viewer, title.lower().replace(" ", "-"), widget)
        finally:
            viewer.close()
            get_qapp().processEvents()


def picture_widget(viewer: napari.Viewer, name: str, widget: QWidget) -> None:
    """Picture a dock widget in each theme and width."""
    dock = widget.parent()
    while not isinstance(dock, QDockWidget):
        dock = dock.parent()
    window = viewer.window._qt_window
    for theme in THEMES:
        viewer.theme = theme
        for width in WIDTHS_PX:
            window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)
            demo.wait_until_idle([widget])
            path = PICTURES / f"{name}-{width}-{theme}.png"
            dock.grab().save(str(path))
            shrink(path)


def shrink(path: Path, colours: int = 256) -> None:
    """Reduce the colours of a picture, and say how large it is now."""
    picture = Image.open(path).convert("RGB")
    picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
