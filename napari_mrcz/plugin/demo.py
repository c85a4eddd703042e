"""Demonstration of the plugin on a simulated movie: ``python -m napari_mrcz.plugin.demo``.

It writes demo.mrcz and demo-session into the current folder, unless they exist, and opens them with
all dock widgets, in front the movie's sum without outlier pixels. As a story, the session's first
movie is then corrected by outlier filter, gain and KOMA, saved as demo-corrected.mrcz and opened.
Without a screen (NAPARI_MRCZ_NO_SCREEN is set) this is done, too, and pictured in demo.png, ….
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
import numpy.typing as npt
from napari.qt import get_qapp
from qtpy.QtCore import QEventLoop, QSize, Qt, QTimer
from qtpy.QtWidgets import QDockWidget

import napari_mrcz as nm
from napari_mrcz.naming import cache_folder
from napari_mrcz.plugin.hooks import read
from napari_mrcz.plugin.layers import LayerData, contrast_limits
from napari_mrcz.simulation import (
    Camera,
    simulate_microed,
    simulate_movie,
    simulate_raw,
    simulate_session,
)
from napari_mrcz.stack import Stack, write
from napari_mrcz.stack.inspection import step_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_PLUGIN = "napari-mrcz"
_MOVIE = Path("demo.mrcz")
_SESSION = Path("demo-session")
_CORRECTED = Path("demo-corrected.mrcz")
_WIDGETS = ("Movie", "Outliers", "Gain", "KOMA", "Metadata", "Save")
_WINDOW = QSize(1500, 900)


def main(picture: Path | None = None, *, story: bool = False) -> None:
    """Show the demo.

    `picture`: save a picture of the window there, those of the story beside it, and end; `story`:
    correct the session step by step.
    """
    if os.environ.get("NAPARI_MRCZ_NO_SCREEN"):
        picture, story = picture or Path("demo.png"), True
    write_sample_movie(_MOVIE)
    write_sample_session(_SESSION)
    print(f"The movie is {_MOVIE.resolve()}, the session {_SESSION.resolve()}")
    viewer, widgets = open_demo(_MOVIE, _SESSION)
    if picture is not None:
        save_picture(viewer, widgets.values(), picture)
        print(f"The window is pictured in {picture.resolve()}")
    if story:
        tell_story(viewer, widgets, picture)
    if picture is None:
        napari.run()
    else:
        viewer.close()


def tell_story(viewer: napari.Viewer, widgets: dict[str, Any], picture: Path | None) -> None:
    """Correct the session's first movie in the window, printing and picturing each step."""
    pictures: list[Path] = []
    saved, number = _CORRECTED, 1
    while saved.exists():
        number += 1
        saved = _CORRECTED.with_stem(f"{_CORRECTED.stem}-{number}")
    steps = play(viewer, widgets, _SESSION, saved, wait_until_idle)
    for number, (title, said) in enumerate(steps, 1):
        print(f"{number}. {title}: {said}")
        if picture is not None:
            pictures.append(picture.with_stem(f"{picture.stem}-{number}"))
            save_picture(viewer, widgets.values(), pictures[-1])
    if pictures:
        print(f"The steps are pictured in {pictures[0].resolve()} to {pictures[-1].name}")


def dock_of(widget: Any) -> QDockWidget:
    """Return the dock that a widget is in."""
    dock = widget.parent()
    while not isinstance(dock, QDockWidget):
        dock = dock.parent()
    return dock


def open_demo(path: Path, session: Path) -> tuple[napari.Viewer, dict[str, Any]]:
    """Open a movie in a new window with our dock widgets; return the viewer and these by title.

    The first widget is in sight, with the sum of the movie without outlier pixels; the movies of
    the folder `session` are in the list for KOMA.
    """
    viewer = napari.Viewer(title="napari-mrcz demo")
    window = viewer.window._qt_window
    window.resize(_WINDOW.boundedTo(window.screen().availableSize()))
    docked = {
        title: viewer.window.add_plugin_dock_widget(_PLUGIN, title, tabify=True)
        for title in _WIDGETS
    }
    widgets = {title: widget for title, (_, widget) in docked.items()}
    widgets["KOMA"].box.add_paths(map(str, sorted(session.glob("movie_*.mrcz"))))
    get_qapp().processEvents()  # napari raises the last one
    first, specimen = docked["Movie"]
    outliers = widgets["Outliers"]
    dock_of(outliers).raise_()
    window.resizeDocks([first], [420], Qt.Orientation.Horizontal)
    get_qapp().processEvents()  # the canvas gets its size, which the movie is then fitted to
    (movie,) = viewer.open(path, plugin=_PLUGIN)
    viewer.layers.selection.active = movie
    # It moved in napari 0.9.
    overlays = getattr(viewer.canvas, "overlays", None) if hasattr(viewer, "canvas") else None
    (viewer if overlays is None else overlays).scale_bar.visible = True
    wait_until_idle([outliers])
    outliers.start_fit()
    wait_until_idle([outliers])
    viewer.layers.selection.active = outliers.corrected
    outliers.work.derived["sigma"].layer.visible = False
    first.raise_()
    specimen.low_pass.setValue(15.0)  # Å
    wait_until_idle([specimen])
    specimen.drift.start()
    return viewer, widgets


def save_picture(viewer: napari.Viewer, widgets: Iterable[Any], picture: Path) -> None:
    """Save a picture of the whole window when its widgets are idle."""
    wait_until_idle(widgets)
    viewer.screenshot(str(picture), canvas_only=False, flash=False)


def wait_until_idle(widgets: Iterable[Any]) -> None:
    """Process events until no widget is busy and everything is drawn."""
    widgets = list(widgets)
    loop = QEventLoop()
    poll = QTimer()
    poll.timeout.connect(lambda: None if any(widget.busy for widget in widgets) else loop.quit())
    poll.start(20)
    QTimer.singleShot(20_000, loop.quit)
    loop.exec()
    for _ in range(3):  # layout, drawing, and what drawing asks for
        get_qapp().processEvents()


def play(
    viewer: napari.Viewer,
    widgets: Mapping[str, Any],
    session: Path,
    saved: Path,
    wait: Callable[[Iterable[Any]], None],
) -> Iterator[tuple[str, str]]:
    """Correct the first movie of a session and save it.

    `widgets`: the dock widgets by their titles; `session`: folder of movie_1.mrcz and so on, and
    gain.mrc; `saved`: a new file; `wait`: waits until some widgets are idle. After each step, yield
    the title of its widget, and its result.
    """
    first, *others = sorted(session.glob("movie_*.mrcz"))
    viewer.layers.clear()
    (raw,) = viewer.open(first, plugin=_PLUGIN)
    viewer.reset_view()

    outliers = widgets["Outliers"]
    _select(viewer, raw, outliers, wait)
    outliers.controls.start_button.click()
    wait([outliers])
    found = outliers.fit.current.thresholds.hot
    outliers.set_threshold("hot", found + 0.5)
    wait([outliers])
    now = outliers.fit.current
    yield (
        "Outliers",
        f"{now.n_hot} hot pixels above {now.thresholds.hot:.1f} σ, where the fit had put "
        f"{found:.1f} σ; {now.n_dark} dark ones",
    )

    gain = widgets["Gain"]
    _select(viewer, outliers.corrected, gain, wait)
    gain.show_preview.setChecked(True)
    gain.references.open(str(session / "gain.mrc"))
    wait([gain])
    gain.controls.start_button.click()
    wait([gain])
    yield "Gain", f"it lies as the movie does: {gain.choice.orientation}"

    koma = widgets["KOMA"]
    normalised = gain.preview.data
    _select(viewer, viewer.layers.selection.active, koma, wait)
    listed = list(koma.koma.entries)  # the raw movies
    koma.koma.remove(listed)
    normalization = nm.GainNormalization.from_description(normalised.history[-1])
    movies = map(nm.open, others)  # corrected alike, with outliers of their own
    stacks = [normalised, *(m.apply(nm.OutlierFilter.fit(m)).apply(normalization) for m in movies)]
    koma.box.add(replace(one, source=stack) for one, stack in zip(listed, stacks, strict=True))
    koma.reading.start_button.click()
    wait([koma])
    koma.box.stacks.select(koma.koma.entries[:1])
    koma.preview_button.click()
    wait([koma])
    averaged = koma.preview_layer
    stages = (raw.data, normalised, averaged.data)
    before, flat, after = (nm.correlated_noise(stack[:]) for stack in stages)
    _show_sums(viewer, raw, averaged)
    yield (
        "KOMA",
        f"frames correlated by R = {before:.4f} as recorded, {flat:.4f} without outliers and gain, "
        f"and {after:.4f} less the mean of their neighbours",
    )

    save = widgets["Save"]
    _select(viewer, averaged, save, wait)
    save.form.set_path(str(saved))
    save.form.verify.setChecked(True)
    wait([save])
    save.save_button.click()
    wait([save])
    yield "Save", f"{saved.name}: {saved.stat().st_size / 1e6:.1f} MB"

    (again,) = viewer.open(saved, plugin=_PLUGIN)
    inspector = widgets["Metadata"]
    _select(viewer, again, inspector, wait)
    inspector.tabs.setCurrentWidget(inspector.history)
    steps = "; ".join(entry.name for entry in step_entries(again.data.history))
    yield "Metadata", f"its history: {steps}"


def _select(viewer: napari.Viewer, layer: Any, widget: Any, wait: Callable[..., None]) -> None:
    """Select a layer, and raise a widget, which follows it in front only."""
    viewer.layers.selection.active = layer
    dock_of(widget).raise_()
    wait([widget])


def _show_sums(viewer: napari.Viewer, *movies: Any) -> None:
    """Show the sums of movies to the right, with one contrast: in one frame there is only noise."""
    active = viewer.layers.selection.active
    totals = [layer.data.sum(axis=0, dtype="float64") for layer in movies]
    limits = contrast_limits(totals[:1])
    for number, (layer, total) in enumerate(zip(movies, totals, strict=True), 1):
        place = {"scale": layer.scale[1:], "units": layer.units[1:]}
        right = (0.0, 1.03 * number * total.shape[1] * layer.scale[-1])
        name = f"{layer.name}, sum"
        viewer.add_image(total, name=name, translate=right, contrast_limits=limits, **place)
    viewer.layers.selection.active = active  # which the widgets follow
    viewer.reset_view()


# Simulated movies, which are napari's sample data, too: written once, then opened like any files.
# The numbers of the files go up when the simulation changes, so that no old file is shown.
_N_FRAMES, _SHAPE = 40, (1024, 1024)
_N_MOVIES, _SESSION_FRAMES, _SESSION_SHAPE = 8, 60, (256, 256)
_SWEEP_FRAMES, _SWEEP_SHAPE = 20, (512, 512)
_RAW_FRAMES, _RAW_SHAPE = 20, (512, 512)


def sample_movie() -> list[LayerData]:
    """Return the sample movie as a layer; its file is kept in the cache folder."""
    path = cache_folder() / "sample-movie-1.mrcz"
    write_sample_movie(path)
    return _opened(path, "simulated movie")


def sample_sweep() -> list[LayerData]:
    """Return diffraction patterns of a rotating crystal as a layer.

    The camera has cut negative counts off at zero, and a beam stop throws its shadow.
    """
    path = cache_folder() / "sample-sweep-1.mrcz"
    if not path.exists():
        _write(path, simulate_microed(_SWEEP_FRAMES, _SWEEP_SHAPE, seed=1).frames)
    return _opened(path, "simulated sweep")


def sample_raw() -> list[LayerData]:
    """Return raw frames, whose electrons can be counted, as a layer."""
    path = cache_folder() / "sample-raw-1.mrcz"
    if not path.exists():
        _write(path, simulate_raw(_RAW_FRAMES, _RAW_SHAPE, seed=1).frames, pixel=1.35)
    return _opened(path, "simulated raw frames")


def write_sample_movie(path: Path) -> None:
    """Write the sample movie, unless it exists.

    40 frames of a counting camera at 1 electron per pixel, in about two seconds; with hot, dark
    and dead pixels, an uneven gain, and particles in ice that drift.
    """
    if not path.exists():
        movie = simulate_movie(_N_FRAMES, _SHAPE, dose=1.0, seed=1)
        _write(path, movie.frames, movie.pixel_size, movie.describe())


def write_sample_session(folder: Path) -> None:
    """Write a session of eight movies and their camera's gain reference, unless it exists.

    movie_1.mrcz to movie_8.mrcz, 60 frames each, from a camera with more hot pixels every time,
    and gain.mrc, whose noise is common to all movies after normalisation: KOMA removes it.
    """
    if folder.exists():
        return
    camera = Camera(_SESSION_SHAPE, etching=0.15, seed=2)
    session = simulate_session(_N_MOVIES, _SESSION_FRAMES, camera=camera, dose=2.0, seed=2)
    # Renamed when it is whole: what was interrupted is not taken for a session.
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent) as unfinished:
        whole = Path(unfinished, folder.name)
        for number, movie in enumerate(session.iter_movies(), 1):
            name = f"movie_{number}.mrcz"
            _write(whole / name, movie.frames, movie.pixel_size, movie.describe())
        write(whole / "gain.mrc", _recorded(camera))
        whole.rename(folder)


def _recorded(camera: Camera) -> npt.NDArray[np.float32]:
    """Return a gain reference recorded at 400 e⁻/pix, so that it is noisy; 0 for dead pixels."""
    gain = camera.gain_reference
    response = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
    flat = np.random.default_rng(camera.seed).poisson(400.0 * response)
    recorded = np.divide(flat.mean(), flat, out=np.zeros(flat.shape), where=flat > 0)
    return recorded.astype(np.float32)


def _opened(path: Path, name: str) -> list[LayerData]:
    ((data, attributes, kind),) = read(str(path))
    return [(data, {**attributes, "name": name}, kind)]


def _write(
    path: Path, frames: Any, pixel: float = 0.0, metadata: Mapping[str, Any] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = metadata or {"simulated": True}
    stack = Stack.from_array(frames, pixel_size=(0.0, pixel, pixel), metadata=metadata)
    write(path, stack.described(voltage=300.0), overwrite=True)


if __name__ == "__main__":
    main()
