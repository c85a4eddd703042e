"""``open`` and ``demo``: movies in a window of napari."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_mrcz.cli.progress import say
from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from collections.abc import Callable

_PLUGIN = "napari-mrcz"
# The others are opened from the menu.
_DOCKS = ("Outliers", "Gain", "Save")


def open_(
    files: Annotated[
        list[Path], typer.Argument(help="Files, each to be a layer.", show_default=False)
    ],
) -> None:
    """Open movies in napari, with the widgets Outliers, Gain and Save beside them."""
    for path in files:
        if not path.is_file():
            found = "is a folder; name the files in it" if path.is_dir() else "is not there"
            raise MrczError(path, found)
    _with_window(lambda: _show(files))


def demo(
    screenshot: Annotated[
        Path | None,
        typer.Option(help="Save a picture of the window there and end.", show_default=False),
    ] = None,
    story: Annotated[
        bool,
        typer.Option("--story", help="Correct the session step by step, as with the widgets."),
    ] = False,
) -> None:
    """Write a simulated movie, demo.mrcz, and a session, demo-session, and open them in napari."""

    def run() -> None:
        from napari_mrcz.plugin.demo import main

        picture = [] if screenshot is None else ["--screenshot", str(screenshot)]
        main(["--story", *picture] if story else picture)

    _with_window(run)


def _with_window(show: Callable[[], None]) -> None:
    """Do what needs napari, Qt and a screen; say which of them is missing.

    Raises
    ------
    MrczError
        If one is.
    """
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, screens)):
        # Qt would end the program, and say much.
        advice = "Over ssh, use ssh -X; the other commands need none"
        raise MrczError(None, "there is no screen for a window", advice=advice)
    try:
        import napari  # noqa: F401
        import qtpy.QtWidgets  # noqa: F401
    except (ImportError, RuntimeError) as error:  # qtpy without Qt raises either, by its version
        advice = "pip install 'napari-mrcz[all]'; the other commands need neither"
        raise MrczError(None, "a window needs napari and Qt", advice=advice) from error
    show()


def _show(files: list[Path]) -> None:
    import napari

    from napari_mrcz.plugin.hooks import get_reader

    viewer = napari.Viewer(title=", ".join(path.name for path in files[:3]))
    for path in files:
        try:
            # Other kinds of files are left to whoever reads them in napari.
            viewer.open(path, plugin=_PLUGIN if get_reader(str(path)) else None)
        except (MrczError, OSError, ValueError) as error:
            say(f"napari-mrcz: {error}")
    if not viewer.layers:
        viewer.close()
        raise typer.Exit(1)
    docks = [viewer.window.add_plugin_dock_widget(_PLUGIN, t, tabify=True)[0] for t in _DOCKS]
    docks[0].raise_()
    napari.run()
