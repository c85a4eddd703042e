"""A whole session in one window: from raw movies to a saved one that tells how it was made."""

from pathlib import Path

import numpy as np
import pytest
from mouse import drag_line, dragged, drop
from qtpy.QtCore import QItemSelectionModel, Qt
from qtpy.QtWidgets import QApplication

import napari_mrcz as nm
from napari_mrcz.correction import correlated_noise
from napari_mrcz.simulation import Camera, simulate_session

LEFT = Qt.MouseButton.LeftButton
N_MOVIES, N_FRAMES, SHAPE = 5, 12, (128, 128)
STEPS = ["OutlierFilter", "GainNormalization", "KomaNormalization"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Return the test a cache folder of its own."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *a, **k: cache)


@pytest.fixture
def session(tmp_path) -> Path:
    """Return a folder of raw movies, and of the gain reference, which lies upside down."""
    camera = Camera(SHAPE, etching=0.08, dead=2e-4, seed=3)
    movies = simulate_session(N_MOVIES, N_FRAMES, dose=2.0, camera=camera, hot=(4e-3, 6e-3), seed=3)
    for index, movie in enumerate(movies.iter_movies(), 1):
        nm.write(tmp_path / f"movie_{index}.mrcz", movie.frames, pixel_size=(0, 1.35, 1.35))
    nm.write(tmp_path / "gain.mrc", np.flipud(camera.gain_reference).copy())
    return tmp_path


def dock(viewer, title: str):
    """Return one of our widgets, as napari docks it from its menu."""
    area, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", title)
    area.show()
    area.raise_()
    QApplication.processEvents()
    return widget


def settle(qtbot, widget) -> None:
    """Wait until all is shown that was asked for."""
    qtbot.waitUntil(lambda: not widget.busy)


def click(qtbot, widget, button) -> None:
    """Press a button and wait for all that comes of it."""
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, LEFT)
    settle(qtbot, widget)


def filter_and_drag(viewer, qtbot):
    """Fit the outliers of the layer shown, drag the hot line; give the corrected layer."""
    widget = dock(viewer, "Outliers")
    click(qtbot, widget, widget.controls.start_button)
    found = widget.fit.current
    drag_line(widget.plots.cdf, found.thresholds.hot, found.thresholds.hot + 1)
    settle(qtbot, widget)
    assert widget.fit.current.thresholds.hot == pytest.approx(found.thresholds.hot + 1, abs=0.2)
    assert 0 < widget.fit.current.n_hot <= found.n_hot
    return widget.corrected


def normalise(viewer, qtbot, corrected, reference: Path):
    """Drop a gain reference for a layer and find its orientation; give its correction, a layer."""
    widget = dock(viewer, "Gain")
    viewer.layers.selection.active = corrected
    settle(qtbot, widget)
    drop(widget.references, dragged(reference))
    settle(qtbot, widget)
    click(qtbot, widget, widget.controls.start_button)
    assert widget.choice.orientation == "flipud"
    return widget.choice.normalization(), widget.preview


def subtract_neighbours(viewer, qtbot, not_wanted: set[str]):
    """Take the open layers as a session, without some; give the preview of the first."""
    widget = dock(viewer, "KOMA")
    click(qtbot, widget, widget.box.layers_button)
    model, stacks = widget.box.stacks.model(), widget.box.stacks
    for row, entry in enumerate(widget.koma.entries):
        if entry.name in not_wanted:
            stacks.selectionModel().select(
                model.index(row), QItemSelectionModel.SelectionFlag.Select
            )
    click(qtbot, widget, widget.box.remove)
    assert len(widget.koma.entries) == N_MOVIES
    click(qtbot, widget, widget.reading.start_button)
    assert not widget.koma.reading.kept_out
    stacks.setCurrentIndex(model.index(0))
    click(qtbot, widget, widget.preview_button)
    return widget.preview_layer


def save(viewer, qtbot, layer, path: Path) -> None:
    """Save a layer with the Save widget, verified."""
    widget = dock(viewer, "Save")
    viewer.layers.selection.active = layer
    widget.form.path.selectAll()
    qtbot.keyClicks(widget.form.path, str(path))
    qtbot.keyClick(widget.form.path, Qt.Key.Key_Enter)
    widget.form.verify.setChecked(True)
    settle(qtbot, widget)
    with qtbot.waitSignal(widget.finished) as ended:
        qtbot.mouseClick(widget.save_button, LEFT)
    assert ended.args[0].ok


@pytest.mark.window
def test_a_session_is_corrected_saved_inspected_and_done_again(viewer, qtbot, session):
    """Every step with mouse and keys; the file's own history makes the same file of raw frames."""
    viewer.window.resize(1000, 700)
    viewer.window._qt_window.show()
    paths = [session / f"movie_{number}.mrcz" for number in range(1, N_MOVIES + 1)]
    (raw,) = viewer.open(paths[0], plugin="napari-mrcz")

    corrected = filter_and_drag(viewer, qtbot)
    gain, normalised = normalise(viewer, qtbot, corrected, session / "gain.mrc")
    for path in paths[1:]:
        stack = nm.open(path)
        stack = stack.apply(nm.OutlierFilter.fit(stack)).apply(
            nm.GainNormalization(
                gain.reference, gain.gamma, orientation=gain.orientation, filled=True
            )
        )
        viewer.add_image(stack, name=path.stem, scale=raw.scale, units=raw.units)
    koma = subtract_neighbours(viewer, qtbot, {raw.name, corrected.name})
    assert koma.name == f"KOMA: {normalised.name}"

    # Frames have less and less in common. So few neighbours would bring more, 1 / (2 a n), and are
    # not subtracted.
    frames = [np.asarray(layer.data[:]) for layer in (raw, corrected, normalised, koma)]
    before, filtered, flat, subtracted = (correlated_noise(movie) for movie in frames)
    assert before > 2 * filtered > 4 * flat
    assert flat < 1 / (2 * 2 * N_FRAMES)
    assert subtracted == flat
    save(viewer, qtbot, koma, session / "first-koma.mrcz")

    viewer.layers.clear()
    (saved,) = viewer.open(session / "first-koma.mrcz", plugin="napari-mrcz")
    inspector = dock(viewer, "Metadata")
    settle(qtbot, inspector)
    assert [step["name"] for step in inspector.inspection.subject.description.history] == STEPS
    assert inspector.tabs.tabText(inspector.tabs.indexOf(inspector.history)) == "History (3)"
    for number, said in enumerate(["Outlier pixels replaced", "Gain normalised", "KOMA"], 1):
        assert f"{number}. " in inspector.history.summary.text()
        assert said in inspector.history.summary.text()

    with nm.open(paths[0]) as movie:
        again = nm.replay(saved.data.history, movie)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(saved.data))
        np.testing.assert_array_equal(np.asarray(again), frames[-1])
        nm.write(session / "again.mrcz", again)
    with nm.open(session / "again.mrcz") as again, nm.open(session / "first-koma.mrcz") as first:
        assert again.dtype == first.dtype
        np.testing.assert_array_equal(np.asarray(again), np.asarray(first))
