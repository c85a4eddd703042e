"""Every dock widget, filled, in a real window: its controls explain themselves, and it fits."""

from pathlib import Path

import gain_dock
import inspector_dock
import koma_dock
import microed_dock
import numpy as np
import outliers_dock
import pytest
from closing import close
from mouse import dragged, drop
from napari._qt.qt_resources import get_stylesheet
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QListView,
    QProgressBar,
    QScrollArea,
    QSlider,
    QTabBar,
    QTableView,
    QTreeView,
    QWidget,
)

import napari_mrcz as nm
from napari_mrcz.simulation import simulate_raw
from napari_mrcz.widgets.base.form import Section
from napari_mrcz.widgets.base.plot import Plot

LEFT = Qt.MouseButton.LeftButton
CONTROLS = (
    *(QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QProgressBar, QSlider),
    *(QListView, QTableView, QTreeView, Plot),
)
WIDTHS = (320, 600)


def fill_counting(widget, viewer, folder, qtbot):
    """Fit a movie, and show its counts."""
    nm.write(folder / "raw.mrcz", simulate_raw(8, (96, 128), dose=0.01, seed=1).frames)
    viewer.open(folder / "raw.mrcz", plugin="napari-mrcz")
    with qtbot.waitSignal(widget._counting.returned):
        qtbot.mouseClick(widget.controls.start_button, LEFT)


def fill_gain(widget, viewer, folder, qtbot):
    """Find how a reference lies, with scores under the thumbnails, and take a dark."""
    nm.write(folder / "movie.mrcz", gain_dock.MOVIE)
    nm.write(folder / "gain.mrc", np.flipud(gain_dock.GAIN).copy())
    nm.write(folder / "dark.mrc", np.full(gain_dock.GAIN.shape, 0.25, np.float32))
    viewer.open(folder / "movie.mrcz", plugin="napari-mrcz")
    drop(widget.references, dragged(folder / "gain.mrc"))
    gain_dock.settle(qtbot, widget)
    drop(widget.references.dark_button, dragged(folder / "dark.mrc"))
    gain_dock.settle(qtbot, widget)
    gain_dock.click(qtbot, widget.controls.start_button)
    gain_dock.settle(qtbot, widget)


def fill_inspector(widget, viewer, folder, qtbot):
    """Show a movie whose header is wrong."""
    inspector_dock.open_in(qtbot, widget, inspector_dock.write_sick(folder))


def fill_koma(widget, viewer, folder, qtbot):
    """Read a session."""
    rng = np.random.default_rng(5)
    for i in range(4):
        nm.write(folder / f"{i}.mrcz", rng.poisson(4, (3, 64, 64)).astype(np.uint8))
    drop(widget, dragged(folder))
    koma_dock.read_session(qtbot, widget)


def fill_microed(widget, viewer, folder, qtbot):
    """Fit a sweep."""
    nm.write(folder / "sweep.mrcz", microed_dock.SWEEP.frames)
    viewer.open(folder / "sweep.mrcz", plugin="napari-mrcz")
    microed_dock.settle(widget, qtbot)
    microed_dock.fit_layer(widget, qtbot)


def fill_outliers(widget, viewer, folder, qtbot):
    """Fit a movie."""
    nm.write(folder / "movie.mrcz", outliers_dock.COUNTS)
    viewer.open(folder / "movie.mrcz", plugin="napari-mrcz")
    outliers_dock.fit_layer(widget, qtbot)


def fill_save(widget, viewer, folder, qtbot):
    """Estimate a movie."""
    nm.write(folder / "movie.mrcz", outliers_dock.COUNTS)
    with qtbot.waitSignal(widget.estimated):
        viewer.open(folder / "movie.mrcz", plugin="napari-mrcz")


def fill_movie(widget, viewer, folder, qtbot):
    """Sum a movie, and estimate its drift."""
    nm.write(folder / "movie.mrcz", outliers_dock.COUNTS)
    viewer.open(folder / "movie.mrcz", plugin="napari-mrcz")
    outliers_dock.settle(widget, qtbot)
    widget.drift_section.button.click()
    qtbot.mouseClick(widget.drift.controls.start_button, LEFT)
    outliers_dock.settle(widget, qtbot)


# How each is filled, and how many controls it has at least.
DOCKS = {
    "Counting": (fill_counting, 10),
    "Gain": (fill_gain, 35),
    "Metadata": (fill_inspector, 20),
    "Movie": (fill_movie, 22),
    "Outliers": (fill_outliers, 18),
    "Save": (fill_save, 15),
    "KOMA": (fill_koma, 20),
    "MicroED": (fill_microed, 18),
}


# What is seen of a dock in a window of 1280 x 720, between its title and its Help button.
SEEN_PX = 598
MAIN_BUTTONS = {
    "Gain": lambda widget: widget.save_button,
    "KOMA": lambda widget: widget.export.start_button,
    "Movie": lambda widget: widget.drift_section.button,
}


def test_no_dock_is_forgotten():
    manifest = PluginManifest.from_file(Path(nm.__file__).with_name("napari.yaml"))
    assert {widget.display_name for widget in manifest.contributions.widgets} == DOCKS.keys()


@pytest.mark.parametrize(
    "title",
    [pytest.param(title, marks=[pytest.mark.window] * (title == "Movie")) for title in DOCKS],
)
def test_a_filled_dock_explains_itself_fits_and_is_closed(title, viewer, tmp_path, qtbot):
    """One as napari docks it; nothing that it has opened is left when it is closed."""
    viewer.window._qt_window.setStyleSheet(get_stylesheet(viewer.theme))
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", title)
    fill, least = DOCKS[title]
    fill(widget, viewer, tmp_path, qtbot)
    check_explained(widget, least)
    if title in MAIN_BUTTONS:
        check_main_button_is_seen(widget, title)
    check_fits(widget)
    close(widget, viewer, qtbot)


def check_explained(widget: QWidget, least: int) -> None:
    """Fail where a control has no tooltip: plots, lists, columns and tabs included."""
    controls = own_controls(widget)
    assert len(controls) >= least
    assert [control for control in controls if not control.toolTip()] == []
    tip = Qt.ItemDataRole.ToolTipRole
    for table in widget.findChildren(QTableView):
        columns = range(table.model().columnCount())
        assert all(table.model().headerData(n, Qt.Orientation.Horizontal, tip) for n in columns)
    for tabs in widget.findChildren(QTabBar):
        assert all(tabs.tabToolTip(n) for n in range(tabs.count()))


def check_main_button_is_seen(widget: QWidget, title: str) -> None:
    """Fail if what the dock is for has to be scrolled to in a window of 1280 x 720."""
    widget.resize(WIDTHS[0], 700)
    widget.grab()  # lays it out
    button, column = MAIN_BUTTONS[title](widget), widget.findChild(QScrollArea).widget()
    assert button.mapTo(column, button.rect().bottomLeft()).y() <= SEEN_PX


def check_fits(widget: QWidget) -> None:
    """Fail if anything sticks out beside the scroll bar, or is scrolled sideways."""
    for section in widget.findChildren(Section):
        section.button.setChecked(True)
    for width in WIDTHS:
        widget.resize(width, 700)
        area = widget.findChild(QScrollArea)
        bar = area.verticalScrollBar().sizeHint().width()
        assert area.widget().minimumSizeHint().width() + bar <= width
    labels = widget.findChildren(QLabel)
    long = [label for label in labels if any(len(line) > 30 for line in label.text().split("\n"))]
    assert [label.text() for label in long if not label.wordWrap()] == []


def own_controls(widget: QWidget) -> list[QWidget]:
    """Return the controls that are ours, without those that are parts of others."""
    parts_of = (QAbstractSpinBox, QComboBox, QLineEdit, QTabBar)
    return [
        control
        for kind in CONTROLS
        for control in widget.findChildren(kind)
        if not control.objectName().startswith("qt_")
        and not isinstance(control.parent(), parts_of)
        and control.window() is widget.window()  # the list that a combo box opens is not
    ]
