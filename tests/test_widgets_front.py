"""Docks in tabs: only the widget in front follows the selection, reads files, changes layers."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from mouse import dragged, drop
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

import napari_mrcz as nm
from napari_mrcz.plugin.demo import dock_of
from napari_mrcz.widgets.base.layer_picker import LayerPicker

LEFT = Qt.MouseButton.LeftButton
TITLES = ("Movie", "Outliers", "Gain", "KOMA", "Counting", "MicroED", "Metadata", "Save")
# What each adds of its own accord for the movie that is picked.
ADDS = {
    "Movie": {"a, sum", "b, sum"},
    "Gain": {"a, normalised", "b, normalised"},
    "MicroED": {"beam", "annuli"},
}


@pytest.fixture(params=[TITLES])
def docks(request, viewer, tmp_path, qtbot):
    """Return widgets by title, each in a tab of one window that is shown."""
    rng = np.random.default_rng(3)
    for name in "abc":
        nm.write(tmp_path / f"{name}.mrcz", rng.poisson(3, (4, 48, 56)).astype(np.uint8))
    nm.write(tmp_path / "gain.mrc", rng.uniform(0.9, 1.1, (48, 56)).astype(np.float32))
    viewer.window._qt_window.show()
    widgets = {t: viewer.window.add_plugin_dock_widget("napari-mrcz", t)[1] for t in request.param}
    qtbot.waitUntil(
        lambda: bool(viewer.window._qt_window.tabifiedDockWidgets(dock_of(widgets["Save"])))
    )
    raise_dock(qtbot, widgets, "Gain")
    viewer.open(tmp_path / "a.mrcz", plugin="napari-mrcz")
    drop(widgets["Gain"], dragged(tmp_path / "gain.mrc"))
    settle(qtbot, widgets)
    return widgets


def settle(qtbot, widgets) -> None:
    for _ in range(2):
        QApplication.processEvents()
        qtbot.waitUntil(lambda: not any(widget.busy for widget in widgets.values()))


def raise_dock(qtbot, widgets, title: str) -> None:
    dock_of(widgets[title]).raise_()
    qtbot.waitUntil(lambda: widgets[title].in_front)
    settle(qtbot, widgets)


def plain(name: str) -> str:
    """Return a layer's name without the number that napari gives to the second of that name."""
    return re.sub(r" \[\d+\]", "", name)


def picked(widgets) -> dict[str, list]:
    """Return the layers that the pickers of each widget have."""
    return {
        title: [picker.layer for picker in widget.findChildren(LayerPicker)]
        for title, widget in widgets.items()
    }


def test_layers_change_only_as_the_widget_in_front_says(docks, viewer, tmp_path, qtbot):
    """Whatever is opened, selected, dropped; the others are as they were. Tabs have short names."""
    first, *others = (dock_of(widget) for widget in docks.values())
    assert set(viewer.window._qt_window.tabifiedDockWidgets(first)) == set(others)
    assert [dock.windowTitle() for dock in (first, *others)] == list(TITLES)
    assert all(dock.minimumWidth() >= 300 for dock in others)
    for front in TITLES:
        raise_dock(qtbot, docks, front)
        hidden = {title: docks[title] for title in TITLES if title != front}

        def happens(event, front=front, hidden=hidden) -> None:
            layers, before = set(viewer.layers), picked(hidden)
            event()
            settle(qtbot, docks)
            added = {plain(layer.name) for layer in set(viewer.layers) - layers}
            assert added <= {"b"} | ADDS.get(front, set()), front
            assert picked(hidden) == before
            assert not any(widget.in_front for widget in hidden.values())

        happens(lambda: viewer.open(tmp_path / "b.mrcz", plugin="napari-mrcz"))
        opened = viewer.layers.selection.active
        happens(lambda: setattr(viewer.layers.selection, "active", viewer.layers["a"]))
        happens(lambda opened=opened: setattr(viewer.layers.selection, "active", opened))
        happens(lambda front=front: drop(docks[front], dragged(tmp_path / "c.mrcz")))
        seen = {plain(layer.name) for layer in viewer.layers}
        assert ("b, normalised" in seen) == (front not in ("Movie", "Outliers"))


@pytest.mark.parametrize("docks", [("Outliers", "Gain", "Save")], indirect=True)
def test_a_widget_catches_up_when_it_comes_to_the_front(docks, viewer, tmp_path, qtbot):
    """It takes the layer that is selected then, and lets go at once of one that is removed."""
    raise_dock(qtbot, docks, "Save")
    viewer.open(tmp_path / "b.mrcz", plugin="napari-mrcz")
    settle(qtbot, docks)
    gain, outliers = docks["Gain"], docks["Outliers"]
    assert gain.layers.layer is viewer.layers["a"]
    viewer.layers.remove("a")
    assert gain.layers.layer is None and outliers.layers.layer is None
    raise_dock(qtbot, docks, "Gain")
    assert gain.layers.layer is viewer.layers["b"]
    assert "b, normalised" in viewer.layers
    assert outliers.layers.layer is None


@pytest.mark.parametrize("docks", [("Outliers", "Gain", "Save")], indirect=True)
def test_a_fit_that_ends_behind_another_tab_is_shown_when_it_comes_forward(docks, viewer, qtbot):
    raise_dock(qtbot, docks, "Outliers")
    viewer.layers.selection.active = viewer.layers["a"]
    outliers = docks["Outliers"]
    qtbot.mouseClick(outliers.controls.start_button, LEFT)
    dock_of(docks["Save"]).raise_()
    qtbot.waitUntil(lambda: docks["Save"].in_front)
    names = [layer.name for layer in viewer.layers]
    settle(qtbot, docks)
    assert [layer.name for layer in viewer.layers] == names
    raise_dock(qtbot, docks, "Outliers")
    assert "a corrected" in viewer.layers
    assert outliers.fit is not None


def test_scipy_is_loaded_when_a_fit_begins():
    """No module of the widgets imports it: the first dock would wait for it."""
    for path in (Path(nm.__file__).parent / "widgets").rglob("*.py"):
        imported = [
            name
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        ]
        assert not any(str(name).startswith("scipy") for name in imported), path
