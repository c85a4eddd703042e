"""Take the pictures of README and docs from the real window: ``make screenshots``.

Arguments are the names of pictures to be taken, such as ``gain``; all without. docs/pictures gets
each widget once, 320 pixels wide, its parts numbered as docs/widgets.md explains them. With
``--gallery`` build/gallery gets the window with each one, in both themes, two widths and two sizes
of the window, to be looked at by those who change a widget.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from napari.qt import get_qapp
from PIL import Image, ImageDraw, ImageFont
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QLabel, QScrollArea

import napari_mrcz as nm
from napari_mrcz.plugin import demo
from napari_mrcz.plugin.demo import write_sample_movie, write_sample_session
from napari_mrcz.simulation import simulate_microed, simulate_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari

    Widgets = dict[str, Any]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "widgets.md"
PICTURES, GALLERY = ROOT / "docs" / "pictures", ROOT / "build" / "gallery"
THEMES = ("dark", "light")
WIDTHS_PX = (320, 600)
WINDOWS_PX = ((1280, 720), (1600, 1000))
# A dock is at least so high; what does not fit then makes it higher.
LOW_PX = 620
# Noise does not compress; so many colours are enough for it and what is drawn upon it.
COLOURS_OF_NOISE = 128
# Where the hot threshold is dragged to, in standard deviations from where the fit has put it.
DRAGS = (-1.2, 0.0, 1.5, 3.5)
CANVAS_PX = 320


def main(arguments: list[str]) -> None:
    """Take the pictures wanted."""
    wanted = [argument for argument in arguments if argument != "--gallery"]
    gallery = "--gallery" in arguments
    for folder in (PICTURES, GALLERY):
        folder.mkdir(parents=True, exist_ok=True)
    # Names without a folder tell nobody whose machine it was.
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        mock.patch("platformdirs.user_cache_dir", lambda *_, **__: folder),
    ):
        write_sample_movie(Path("movie.mrcz"))
        write_sample_session(Path("session"))
        viewer, widgets = demo.open_demo(Path("movie.mrcz"), Path("session"))
        try:
            demo.wait_until_idle(widgets.values())
            for name, picture in OF_THE_WINDOW.items():
                if name in wanted or not (wanted or gallery):
                    picture(viewer, widgets, PICTURES / f"{name}.png")
            for name, prepare in OF_WIDGETS.items():
                if name in wanted or (not wanted and (gallery or is_explained(name))):
                    title = prepare(viewer, widgets)
                    (picture_windows if gallery else picture_widget)(viewer, name, widgets[title])
        finally:
            viewer.close()
            get_qapp().processEvents()


# What the widgets show when they are pictured -----------------------------------------------------


def show_spectrum(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Show the spectrum of the sum of the corrected movie."""
    widget = widgets["Movie"]
    demo.dock_of(widget).raise_()
    select(viewer, "movie corrected")
    widget.spectrum_section.button.setChecked(True)
    demo.wait_until_idle([widget])
    widget.spectrum.show_ring(0.1)
    return "Movie"


def show_drift(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Show the drift of the corrected movie."""
    show_spectrum(viewer, widgets)
    widgets["Movie"].drift_section.button.setChecked(True)
    widgets["Movie"].drift.start()
    return "Movie"


def fit_outliers(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Find the outliers of the movie."""
    widget = widgets["Outliers"]
    select(viewer, "movie")
    demo.wait_until_idle([widget])
    if widget.fit is None:
        widget.start_fit()
    return "Outliers"


def find_gain(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Find the orientation of the session's gain reference."""
    widget = widgets["Gain"]
    demo.dock_of(widget).raise_()
    demo.wait_until_idle([widget])
    (movie,) = viewer.open("session/movie_1.mrcz", plugin="napari-mrcz")
    movie.visible = False
    widget.references.open("session/gain.mrc")
    demo.wait_until_idle([widget])
    widget.controls.start_button.click()
    return "Gain"


def read_session(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Read the session."""
    widget = widgets["KOMA"]
    widget.reading.start_button.click()
    demo.wait_until_idle([widget])
    widget.box.stacks.select(widget.koma.entries[:1])
    return "KOMA"


def plot_ageing(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Measure how the session's camera aged, and show the plots."""
    widget = widgets["KOMA"]
    widget.plots.button.click()
    widget.ageing.start_button.click()
    return "KOMA"


def look_at_fields(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Open a file that tells how it was made."""
    widget = widgets["Metadata"]
    demo.dock_of(widget).raise_()
    demo.wait_until_idle([widget])
    if "corrected" not in viewer.layers:
        write_corrected(Path("corrected.mrcz"))
        (layer,) = viewer.open("corrected.mrcz", plugin="napari-mrcz")
        layer.visible = False
    select(viewer, "corrected")
    demo.wait_until_idle([widget])
    widget.tabs.setCurrentWidget(widget.fields)
    widget.fields.tree.topLevelItem(0).setExpanded(False)  # the folder is no matter
    return "Metadata"


def look_at_history(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Show its history."""
    title = look_at_fields(viewer, widgets)
    widgets[title].tabs.setCurrentWidget(widgets[title].history)
    return title


def look_at_frames(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Show its frames, verified."""
    title = look_at_fields(viewer, widgets)
    demo.wait_until_idle([widgets[title]])
    widgets[title].tabs.setCurrentWidget(widgets[title].frames)
    widgets[title].controls.start_button.click()
    return title


def look_at_doctor(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Show what the header doctor says of a header without a pixel size."""
    title = "Metadata"
    nm.write("old-header.mrc", np.zeros((4, 256, 256), np.int8), footer=False)
    raw = bytearray(Path("old-header.mrc").read_bytes())
    raw[28:40] = raw[40:52] = raw[64:76] = bytes(12)  # MX, MY, MZ; cell; axes
    Path("old-header.mrc").write_bytes(raw)
    (layer,) = viewer.open("old-header.mrc", plugin="napari-mrcz")
    layer.visible = False
    widgets[title].tabs.setCurrentWidget(widgets[title].doctor)
    return title


def compare_compressions(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Compare compressions of the movie."""
    widget = widgets["Save"]
    select(viewer, "movie")
    demo.wait_until_idle([widget])
    widget.explorer.controls.start_button.click()
    return "Save"


def fit_truncated(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Fit the truncated pixels of a MicroED sweep."""
    title = "MicroED"
    sweep = simulate_microed(6, (512, 512))
    nm.write("sweep.mrcz", sweep.frames)
    (layer,) = viewer.open("sweep.mrcz", plugin="napari-mrcz")
    layer.visible = False
    widget = widgets[title] = docked(viewer, title)
    for button in (widget.search.start_button, widget.controls.start_button):
        demo.wait_until_idle([widget])
        button.click()
    return title


def fit_counting(viewer: napari.Viewer, widgets: Widgets) -> str:
    """Fit the electrons of raw frames."""
    title = "Counting"
    raw = simulate_raw(8, (512, 512))
    nm.write("raw.mrcz", raw.frames, pixel_size=(0, 1.35, 1.35))
    (layer,) = viewer.open("raw.mrcz", plugin="napari-mrcz")
    layer.visible = False
    widget = widgets[title] = docked(viewer, title)
    demo.wait_until_idle([widget])
    widget.controls.start_button.click()
    return title


def docked(viewer: napari.Viewer, title: str) -> Any:
    """Dock one more widget."""
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", title, tabify=True)
    get_qapp().processEvents()  # napari raises it
    return widget


OF_WIDGETS: dict[str, Callable[[napari.Viewer, Widgets], str]] = {
    "movie": show_spectrum,
    "movie-drift": show_drift,
    "outliers": fit_outliers,
    "gain": find_gain,
    "koma": read_session,
    "koma-plots": plot_ageing,
    "metadata": look_at_fields,
    "metadata-frames": look_at_frames,
    "metadata-history": look_at_history,
    "metadata-doctor": look_at_doctor,
    "save": compare_compressions,
    "microed": fit_truncated,
    "counting": fit_counting,
}


# What pictures should not show: whose machine they were taken on.
RETOUCH = {
    "save": lambda widget: widget.form.set_path("movie-copy.mrcz"),
    "koma": lambda widget: widget.folder.setText("session/koma"),
    "metadata": lambda widget: widget.fields.tree.topLevelItem(0).setExpanded(False),
}


def write_corrected(path: Path) -> None:
    """Write the session's first movie, corrected in three steps."""
    with nm.open("session/gain.mrc") as file:
        gain = np.asarray(file)[0]
    with contextlib.ExitStack() as opened:
        stacks = []
        for number in range(1, 9):
            stack = opened.enter_context(nm.open(f"session/movie_{number}.mrcz"))
            stack = stack.apply(nm.OutlierFilter.fit(stack))
            stacks.append(stack.apply(nm.GainNormalization(gain, filled=True)))
        nm.write(path, stacks[0].apply(nm.Koma(stacks, 3)[0]))


def select(viewer: napari.Viewer, name: str) -> None:
    """Select a layer, which the widgets follow."""
    viewer.layers.selection.active = viewer.layers[name]


# Taking pictures ----------------------------------------------------------------------------------


def picture_widget(viewer: napari.Viewer, name: str, widget: Any) -> None:
    """Picture a dock widget wholly, its parts numbered."""
    dock, window = demo.dock_of(widget), viewer.window._qt_window
    dock.raise_()
    with alone(dock, window):
        demo.wait_until_idle([widget])
        window.resize(window.width(), LOW_PX)
        for _ in range(3):  # sentences wrap, which makes others scroll
            resize(window, dock, WIDTHS_PX[0])
            demo.wait_until_idle([widget])
            hidden = widget.findChild(QScrollArea).verticalScrollBar().maximum()
            window.resize(window.width(), window.height() + hidden)
        demo.wait_until_idle([widget])
        if name in RETOUCH:
            RETOUCH[name](widget)
            demo.wait_until_idle([widget])
        path = PICTURES / f"{name}.png"
        dock.grab().save(str(path))
    number(path, list(places_of_parts(widget, dock)))
    shrink(path)


def picture_windows(viewer: napari.Viewer, name: str, widget: Any) -> None:
    """Picture the window with a dock widget in each theme, width and size of the window."""
    dock, window = demo.dock_of(widget), viewer.window._qt_window
    dock.raise_()
    for theme, size, width in product(THEMES, WINDOWS_PX, WIDTHS_PX):
        viewer.theme = theme
        with alone(dock, window):
            window.resize(*size)
            resize(window, dock, width)
            path = GALLERY / f"{name}-{size[0]}-{width}-{theme}.png"
            demo.save_picture(viewer, [widget], path)
    viewer.theme = THEMES[0]


def resize(window: Any, dock: Any, width: int) -> None:
    """Make a dock so wide, in pixels."""
    window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)


def is_explained(name: str) -> bool:
    """Return whether docs/widgets.md has the picture."""
    return f"(pictures/{name}.png)" in PAGE.read_text("utf-8")


def places_of_parts(widget: Any, dock: Any) -> Iterator[tuple[int, int]]:
    """Yield where in its dock each visible part of a widget's column begins and ends, in pixels."""
    column = widget.column
    for place in range(column.count()):
        item, part = column.itemAt(place), column.itemAt(place).widget()
        box = item.geometry()
        said = part.text() if isinstance(part, QLabel) else "something"
        if item.spacerItem() is None and box.height() > 1 and said:
            if part is None or not part.isHidden():
                top = column.parentWidget().mapTo(dock, QPoint(0, box.top())).y()
                yield top, top + box.height()


def number(path: Path, places: list[tuple[int, int]]) -> None:
    """Draw the numbers of a widget's parts on the left of its picture; cut off what is below."""
    picture = Image.open(path).convert("RGB")
    strip, (_, end) = 26, places[-1]
    size = picture.width + strip, min(picture.height, end + 10)
    wide = Image.new("RGB", size, picture.getpixel((1, 1)))
    wide.paste(picture, (strip, 0))
    draw = ImageDraw.Draw(wide)
    for label, (top, _) in enumerate(places, 1):
        middle = top + 12
        draw.ellipse((3, middle - 10, 23, middle + 10), fill="#f0c674")
        font = ImageFont.load_default(13)
        draw.text((13, middle), str(label), fill="#202028", anchor="mm", font=font)
    wide.save(path)
    explained = (
        PAGE.read_text("utf-8").partition(f"(pictures/{path.name})")[2].partition("\n## ")[0]
    )
    listed = len(re.findall(r"^\d+\. ", explained, re.MULTILINE))
    if listed not in (0, len(places)):
        print(f"{path.name} has {len(places)} parts: explain as many in docs/widgets.md")


@contextlib.contextmanager
def alone(dock: Any, window: Any) -> Iterator[None]:
    """Hide what is docked with a widget: the narrowest of them would be as wide as the widest."""
    size = window.size()
    others = [other for other in window.tabifiedDockWidgets(dock) if not other.isHidden()]
    for other in others:
        other.hide()
    yield
    for other in others:
        other.show()
    dock.raise_()
    window.resize(size)


def picture_specimen(viewer: napari.Viewer, widgets: Widgets, path: Path) -> None:
    """Picture the window as the demo opens it: the sum of the corrected movie."""
    demo.save_picture(viewer, widgets.values(), path)
    shrink(path, COLOURS_OF_NOISE)


def picture_drag(viewer: napari.Viewer, widgets: Widgets, path: Path) -> None:
    """Picture the hot threshold as it is dragged: outliers in the movie above, the line below."""
    widget = widgets["Outliers"]
    demo.wait_until_idle([widget])
    demo.dock_of(widget).raise_()
    select(viewer, "movie")
    demo.wait_until_idle([widget])
    for layer in viewer.layers:
        layer.visible = layer.name in ("movie", "movie outliers (σ)")
    line = widget.plots.thresholds["hot"].lines[1]
    found = widget.fit.current.thresholds.hot
    rows, columns = widget.fit.sigma.shape
    viewer.scene.camera.center = (0, *(size / 3 * 1.35 for size in (rows, columns)))
    viewer.scene.camera.zoom = 3
    dock, window = demo.dock_of(widget), viewer.window._qt_window
    dock.raise_()
    window.resizeDocks([dock], [CANVAS_PX + 40], Qt.Orientation.Horizontal)
    frames = []
    for moved in DRAGS:
        line.setValue(found + moved)  # as the mouse does
        demo.wait_until_idle([widget])
        canvas = Image.fromarray(viewer.screenshot(flash=False)).convert("RGB")
        plot = widget.plots.residual.grab().toImage()
        frames.append(beside_each_other([middle(canvas), as_picture(plot)], upright=True))
    widget.reset()
    viewer.reset_view()
    beside_each_other(frames).save(path)
    shrink(path, COLOURS_OF_NOISE)


OF_THE_WINDOW: dict[str, Callable[[napari.Viewer, Widgets, Path], None]] = {
    "specimen": picture_specimen,
    "drag-threshold": picture_drag,
}


def middle(picture: Image.Image) -> Image.Image:
    """Cut a square out of the middle."""
    x, y = ((size - CANVAS_PX) // 2 for size in picture.size)
    return picture.crop((x, y, x + CANVAS_PX, y + CANVAS_PX))


def as_picture(image: QImage) -> Image.Image:
    """Return a picture of Qt's as one that can be joined to others, as wide as the cut squares."""
    image = image.convertToFormat(QImage.Format.Format_RGBA8888)
    data = image.constBits().asarray(image.sizeInBytes())
    picture = Image.frombytes("RGBA", (image.width(), image.height()), bytes(data)).convert("RGB")
    return picture.resize((CANVAS_PX, round(picture.height * CANVAS_PX / picture.width)))


def beside_each_other(pictures: list[Image.Image], *, upright: bool = False) -> Image.Image:
    """Join pictures in a row, or in a column."""
    gap = 6
    background = pictures[-1].getpixel((0, pictures[-1].height - 1))
    if upright:
        pictures = [picture.transpose(Image.Transpose.TRANSPOSE) for picture in pictures]
    width = sum(picture.width + gap for picture in pictures) - gap
    joined = Image.new("RGB", (width, max(picture.height for picture in pictures)), background)
    at = 0
    for picture in pictures:
        joined.paste(picture, (at, 0))
        at += picture.width + gap
    return joined.transpose(Image.Transpose.TRANSPOSE) if upright else joined


def shrink(path: Path, colours: int = 256) -> None:
    """Reduce the colours of a picture, and say how large it is now."""
    picture = Image.open(path).convert("RGB")
    few = picture.quantize(palette=palette_of(picture, colours), dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size // 1000} kB")


def palette_of(picture: Image.Image, colours: int) -> Image.Image:
    """Return the most frequent colours, and some of all others: outliers are rare, but meant."""
    pixels = np.asarray(picture).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    frequent = found[np.argsort(counts)[::-1][: colours // 2]]
    others = Image.fromarray(found[None]).quantize(colours // 2, Image.Quantize.MAXCOVERAGE)
    chosen = Image.new("P", (1, 1))
    chosen.putpalette([*frequent.ravel().tolist(), *others.getpalette()])
    return chosen


if __name__ == "__main__":
    main(sys.argv[1:])
