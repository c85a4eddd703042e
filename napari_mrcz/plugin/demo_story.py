"""The demo's session corrected from beginning to end, as a user would with the dock widgets.

Outlier pixels found and a threshold moved, the gain reference turned until it fits, neighbours
averaged (KOMA), saved, opened again, and its history read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari_mrcz as nm
from napari_mrcz.plugin.contrast import contrast_limits
from napari_mrcz.stack.inspection import step_entries
from napari_mrcz.widgets.koma.reading import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import napari

_PLUGIN = "napari-mrcz"
# How far the hot threshold is moved, in standard deviations.
_MOVED = 0.5


def play(
    viewer: napari.Viewer,
    widgets: Mapping[str, Any],
    session: Path,
    saved: Path,
    wait: Callable[[Iterable[Any]], None],
) -> Iterator[tuple[str, str]]:
    """Correct the first movie of a session and save it.

    Parameters
    ----------
    viewer : napari.Viewer
        With the dock widgets.
    widgets : dict
        The widgets by their titles.
    session : Path
        Folder of movie_1.mrcz and so on, and gain.mrc.
    saved : Path
        The file to be written; not there yet.
    wait : callable
        Waits until the widgets it is given are idle.

    Yields
    ------
    title, said : str
        After each step the widget that shows it, and what came of it.
    """
    first, *others = sorted(session.glob("movie_*.mrcz"))
    viewer.layers.clear()
    (raw,) = viewer.open(first, plugin=_PLUGIN)
    viewer.reset_view()

    outliers = widgets["Outlier pixels"]
    _select(viewer, raw, outliers, wait)
    outliers.controls.start_button.click()
    wait([outliers])
    found = outliers.fit.current.thresholds.hot
    outliers.set_threshold("hot", found + _MOVED)
    wait([outliers])
    now = outliers.fit.current
    yield (
        "Outlier pixels",
        f"{now.n_hot} hot pixels above {now.thresholds.hot:.1f} σ, where the fit had put "
        f"{found:.1f} σ; {now.n_dark} dark ones",
    )

    gain = widgets["Gain reference"]
    _select(viewer, outliers.layers.corrected, gain, wait)
    gain.show_preview.setChecked(True)
    gain.references.open(str(session / "gain.mrc"))
    wait([gain])
    gain.orientation.controls.start_button.click()
    wait([gain])
    yield "Gain reference", f"it lies as the movie does: {gain.choice.orientation}"

    koma = widgets["Session: KOMA"]
    normalised = gain.preview.data
    koma.koma.remove(koma.koma.entries)  # the raw movies
    koma.box.add([Entry(first.name, normalised)])
    koma.box.add(Entry(path.name, _like(normalised, nm.open(path))) for path in others)
    koma.reading.start_button.click()
    wait([koma])
    koma.box.stacks.select(koma.koma.entries[:1])
    koma.preview_button.click()
    wait([koma])
    averaged = koma.preview_layer.layer
    stages = (raw.data, normalised, averaged.data)
    before, flat, after = (nm.correlated_noise(stack[:]) for stack in stages)
    _show_sums(viewer, raw, averaged)
    yield (
        "Session: KOMA",
        f"frames correlated by R = {before:.4f} as recorded, {flat:.4f} without outliers and gain, "
        f"and {after:.4f} less the mean of their neighbours",
    )

    save = widgets["Save stack"]
    _select(viewer, averaged, save, wait)
    save.form.set_path(str(saved))
    save.form.verify.setChecked(True)
    wait([save])
    save.save_button.click()
    wait([save])
    yield "Save stack", f"{saved.name}: {saved.stat().st_size / 1e6:.1f} MB"

    (again,) = viewer.open(saved, plugin=_PLUGIN)
    inspector = widgets["Metadata inspector"]
    _select(viewer, again, inspector, wait)
    inspector.tabs.setCurrentWidget(inspector.history)
    steps = "; ".join(entry.name for entry in step_entries(again.data.history))
    yield "Metadata inspector", f"its history: {steps}"


def _select(viewer: napari.Viewer, layer: Any, widget: Any, wait: Callable[..., None]) -> None:
    """Select a layer, which a widget follows."""
    viewer.layers.selection.active = layer
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


def _like(corrected: nm.Stack, raw: nm.Stack) -> nm.Stack:
    """Correct another movie of a session as its first one was, with outliers of its own."""
    normalization = nm.GainNormalization.from_description(corrected.history[-1])
    return raw.apply(nm.OutlierFilter.fit(raw)).apply(normalization)
