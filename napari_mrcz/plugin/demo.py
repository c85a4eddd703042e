"""The plugin at work on a simulated movie: ``python -m napari_mrcz.plugin.demo``.

It writes a movie, demo.mrcz, and a session, demo-session, into the current folder, unless they are
there, and opens them with all dock widgets. With --story the window then corrects the session's
first movie by itself: outlier pixels, gain, KOMA; saves it as demo-corrected.mrcz and opens that.
Where there is no screen (NAPARI_MRCZ_NO_SCREEN is set) it does so, too, saves pictures of the
window, demo.png and demo-1.png to demo-5.png, and ends.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from napari.qt import get_qapp
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QDockWidget

from napari_mrcz.plugin.contrast import contrast_limits
from napari_mrcz.plugin.demo_story import play
from napari_mrcz.plugin.sample import write_sample_movie, write_sample_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Image

_PLUGIN = "napari-mrcz"
_MOVIE = Path("demo.mrcz")
_SESSION = Path("demo-session")
_CORRECTED = Path("demo-corrected.mrcz")
_WIDGETS = (
    "Outlier pixels",
    "Gain reference",
    "Session: KOMA",
    "Metadata inspector",
    "Save stack",
)
_WINDOW_PX = (1500, 900)
_DOCK_PX = 420
_PATIENCE_MS = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the demo; give the exit status."""
    no_screen = bool(os.environ.get("NAPARI_MRCZ_NO_SCREEN"))
    parser = argparse.ArgumentParser(prog="python -m napari_mrcz.plugin.demo", description=__doc__)
    parser.add_argument(
        "--screenshot",
        type=Path,
        metavar="PNG",
        default=Path("demo.png") if no_screen else None,
        help="save a picture of the window there, those of the story beside it, and end",
    )
    parser.add_argument(
        "--story", action="store_true", default=no_screen, help="correct a session step by step"
    )
    chosen = parser.parse_args(arguments)
    picture: Path | None = chosen.screenshot
    write_sample_movie(_MOVIE)
    write_sample_session(_SESSION)
    print(f"The movie is {_MOVIE.resolve()}, the session {_SESSION.resolve()}")
    viewer, widgets = open_demo(_MOVIE, _SESSION)
    if picture is not None:
        widgets["Outlier pixels"].start_fit()
        save_picture(viewer, widgets.values(), picture)
        print(f"The window is pictured in {picture.resolve()}")
    if chosen.story:
        tell_story(viewer, widgets, picture)
    if picture is None:
        napari.run()
    else:
        viewer.close()
    return 0


def tell_story(viewer: napari.Viewer, widgets: dict[str, Any], picture: Path | None) -> None:
    """Correct the session's first movie in the window, and say so; picture each step."""
    pictures: list[Path] = []
    steps = play(viewer, widgets, _SESSION, _free(_CORRECTED), wait_until_idle)
    for number, (title, said) in enumerate(steps, 1):
        dock_of(widgets[title]).raise_()
        print(f"{number}. {title}: {said}")
        if picture is not None:
            pictures.append(picture.with_stem(f"{picture.stem}-{number}"))
            save_picture(viewer, widgets.values(), pictures[-1])
    if pictures:
        print(f"The steps are pictured in {pictures[0].resolve()} to {pictures[-1].name}")


def _free(path: Path) -> Path:
    """Give the path, or one with a number where a file is there already, which is kept."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def dock_of(widget: Any) -> QDockWidget:
    """Give the dock that a widget is in."""
    dock = widget.parent()
    while not isinstance(dock, QDockWidget):
        dock = dock.parent()
    return dock


def open_demo(path: Path, session: Path) -> tuple[napari.Viewer, dict[str, Any]]:
    """Open a movie in a new window, with our dock widgets; give viewer and widgets by title.

    The first widget is in sight; the movies of the folder `session` are in the list for KOMA.
    """
    viewer = napari.Viewer(title="napari-mrcz demo")
    viewer.window.resize(*_WINDOW_PX)
    docked = {
        title: viewer.window.add_plugin_dock_widget(_PLUGIN, title, tabify=True)
        for title in _WIDGETS
    }
    widgets = {title: widget for title, (_, widget) in docked.items()}
    widgets["Session: KOMA"].box.add_paths(map(str, sorted(session.glob("movie_*.mrcz"))))
    get_qapp().processEvents()  # napari raises the last one
    first, _ = docked[_WIDGETS[0]]
    first.raise_()
    window = viewer.window._qt_window
    window.resizeDocks([first], [_DOCK_PX], Qt.Orientation.Horizontal)
    get_qapp().processEvents()  # the canvas gets its size, which the movie is then fitted to
    (movie,) = viewer.open(path, plugin=_PLUGIN)
    _add_sum(viewer, movie)
    viewer.reset_view()
    _show_scale_bar(viewer)
    return viewer, widgets


def save_picture(viewer: napari.Viewer, widgets: Iterable[Any], picture: Path) -> None:
    """Save a picture of the whole window when its widgets have come to rest."""
    wait_until_idle(widgets)
    viewer.screenshot(str(picture), canvas_only=False, flash=False)


def _add_sum(viewer: napari.Viewer, movie: Image) -> None:
    """Show the sum of the frames to the right of the movie: in one frame there is only noise."""
    total = movie.data.sum(axis=0)
    viewer.add_image(
        total,
        name=f"sum of {len(movie.data)} frames",
        scale=movie.scale[1:],
        units=movie.units[1:],
        translate=(0, 1.03 * total.shape[1] * movie.scale[-1]),
        contrast_limits=contrast_limits([total]),
    )
    viewer.layers.selection.active = movie


def wait_until_idle(widgets: Iterable[Any]) -> None:
    """Let events happen until the widgets are not busy and all is drawn."""
    widgets = list(widgets)
    loop = QEventLoop()
    poll = QTimer()
    poll.timeout.connect(lambda: None if any(widget.busy for widget in widgets) else loop.quit())
    poll.start(20)
    QTimer.singleShot(_PATIENCE_MS, loop.quit)
    loop.exec()
    for _ in range(3):  # layout, drawing, and what drawing asks for
        get_qapp().processEvents()


def _show_scale_bar(viewer: napari.Viewer) -> None:
    # It moved in napari 0.9.
    overlays = getattr(viewer.canvas, "overlays", None) if hasattr(viewer, "canvas") else None
    (viewer if overlays is None else overlays).scale_bar.visible = True


if __name__ == "__main__":
    sys.exit(main())
