"""The metadata inspector in a viewer: a history replayed and saved, a header mended."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from inspector_dock import (
    COUNTS,
    DOCTOR,
    HISTORY,
    LEFT,
    movie,
    names,
    open_in,
    settle,
    sick,
    turn_to,
    widget,
)
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

import napari_mrcz as nm
from napari_mrcz.format.doctor import diagnose
from napari_mrcz.session.recipe import Recipe

# Fixtures, which pytest finds by their names here.
__all__ = ["movie", "sick", "widget"]


@pytest.fixture
def corrected(tmp_path, movie):
    """Return a movie that was corrected and saved."""
    path = tmp_path / "corrected.mrcz"
    gain = np.random.default_rng(1).normal(1, 0.05, COUNTS.shape[1:]).astype(np.float32)
    with nm.open(movie) as stack:
        nm.write(path, stack.apply(nm.GainNormalization(gain)))
    return path


def tick(qtbot, box):
    """Click a finding's tick."""
    QApplication.processEvents()  # a box that has just come is laid out
    qtbot.mouseClick(box, LEFT, pos=QPoint(8, box.height() // 2))


def answer(button, asked):
    """Click a button of the question that is about to be asked, and note the question."""

    def click():
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(10, click)
            return
        asked.append(box.text())
        box.button(button).click()

    QTimer.singleShot(0, click)


# History ------------------------------------------------------------------------------------------


def test_a_history_is_replayed_on_another_layer(viewer, widget, qtbot, movie, corrected):
    """Chosen from a menu; a lazy layer of its own, that sits where the other does."""
    original = open_in(qtbot, widget, movie)
    original.translate = (0, 5, 7)
    saved = open_in(qtbot, widget, corrected)
    assert widget.tabs.tabText(HISTORY) == "History (1)"
    turn_to(qtbot, widget, HISTORY)
    assert "1. Gain normalised" in widget.history.summary.text()
    assert names(widget.history.tree)[:2] == ["1. Gain normalised", "gamma"]
    qtbot.mouseClick(widget.history.apply_button, LEFT)
    qtbot.waitUntil(widget.history.menu.isVisible)
    assert [action.text() for action in widget.history.menu.actions()] == ["movie"]
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Down)
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Return)
    again = viewer.layers["movie replayed"]
    assert isinstance(again.data, nm.Stack)
    np.testing.assert_array_equal(np.asarray(again.data), np.asarray(saved.data))
    assert tuple(again.translate) == (0, 5, 7)
    assert tuple(again.scale) == tuple(original.scale)
    assert "movie replayed" in widget.controls.status.text()
    settle(qtbot, widget)


def test_a_history_is_saved_as_a_recipe(viewer, widget, qtbot, corrected, tmp_path, monkeypatch):
    """For the command line; what is there already is not replaced unasked."""
    open_in(qtbot, widget, corrected)
    turn_to(qtbot, widget, HISTORY)
    asked = []

    def choose(parent, title, beside, kinds):
        asked.append(Path(beside).name)
        return str(tmp_path / "steps"), kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(widget.history.recipe_button, LEFT)
    assert asked == [f"{Path(corrected).name}.toml"]
    recipe = Recipe.load(tmp_path / "steps.toml")
    assert recipe.gain.gamma == 1 and recipe.outliers is None
    assert Path(recipe.gain.reference) == tmp_path / "steps-gain.mrc"
    assert "napari-mrcz correct -r" in widget.controls.status.text()
    (tmp_path / "steps.toml").unlink()
    with qtbot.waitSignal(widget.controls.failed):
        qtbot.mouseClick(widget.history.recipe_button, LEFT)
    assert "steps-gain.mrc" in widget.controls.status.text()
    viewer.layers.clear()
    settle(qtbot, widget)
    assert not widget.history.recipe_button.isEnabled()


def test_what_cannot_be_replayed_is_said(viewer, widget, qtbot, movie, corrected):
    """No other layer, no steps, frames of another size."""
    button = widget.history.apply_button
    open_in(qtbot, widget, movie)
    assert "no corrections" in button.toolTip() and not button.isEnabled()
    viewer.layers.clear()
    saved = open_in(qtbot, widget, corrected)
    assert "another movie" in button.toolTip() and not button.isEnabled()
    viewer.add_image(COUNTS[:, :30], name="small")
    viewer.layers.selection.active = saved
    settle(qtbot, widget)
    turn_to(qtbot, widget, HISTORY)
    assert button.isEnabled()
    with qtbot.waitSignal(widget.controls.failed):
        qtbot.mouseClick(button, LEFT)
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Down)
        qtbot.keyClick(widget.history.menu, Qt.Key.Key_Return)
    assert "(30, 80)" in widget.controls.status.text()
    assert len(viewer.layers) == 2


# The doctor ---------------------------------------------------------------------------------------


def findings(widget):
    """Return the names of what was found."""
    return [finding.field for finding in widget.doctor.findings]


@pytest.mark.window
def test_mending_in_place_asks_and_opens_the_layer_again(viewer, widget, qtbot, sick):
    """What is ticked alone; the pixel size that was told becomes the layer's."""
    layer = open_in(qtbot, widget, sick)
    turn_to(qtbot, widget, DOCTOR)
    doctor = widget.doctor
    assert findings(widget) == ["MX MY MZ", "pixel size", "ISPG", "NVERSION", "DMIN DMAX DMEAN RMS"]
    assert [found.field for found, _ in doctor.boxes] == [
        name for name in findings(widget) if name != "pixel size"
    ]
    assert doctor.pixel_size.isVisible()
    doctor.pixel_size.selectAll()
    qtbot.keyClicks(doctor.pixel_size, "1.25")
    qtbot.keyClick(doctor.pixel_size, Qt.Key.Key_Return)
    settle(qtbot, widget)
    assert doctor.findings[1].proposed == "1.25 × 1.25 Å, as you say"
    (box,) = (box for found, box in doctor.boxes if found.field == "NVERSION")
    tick(qtbot, box)
    assert len(doctor.chosen) == 4
    before = sick.read_bytes()
    asked = []
    answer(QMessageBox.StandardButton.No, asked)
    qtbot.mouseClick(doctor.in_place_button, LEFT)
    assert sick.read_bytes() == before and not widget.busy
    assert "MX MY MZ: 0 0 0 → 80 60 1" in asked[0] and "NVERSION" not in asked[0]
    answer(QMessageBox.StandardButton.Yes, asked)
    old = layer.data
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(doctor.in_place_button, LEFT)
    assert sick.read_bytes()[1024:] == before[1024:]
    assert [f.field for f in diagnose(sick) if f.mendable] == ["NVERSION"]
    assert layer.data is not old
    np.testing.assert_array_equal(np.asarray(layer.data), COUNTS)
    assert tuple(layer.scale) == (1, 1.25, 1.25)
    assert layer.metadata["header"]["ispg"] == 0
    settle(qtbot, widget)
    assert "ISPG: -1 → 0" in widget.controls.status.text()
    assert "NVERSION" in findings(widget) and "ISPG" not in findings(widget)
    old.close()


def test_layers_derived_from_a_mended_file_are_made_again(viewer, widget, qtbot, sick):
    """A corrected movie is read from the new file."""
    layer = open_in(qtbot, widget, sick)
    gain = np.full(COUNTS.shape[1:], 2, np.float32)
    made = viewer.add_image(layer.data.apply(nm.GainNormalization(gain)), name="made")
    expected = np.asarray(made.data)
    settle(qtbot, widget)
    answer(QMessageBox.StandardButton.Yes, [])
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(widget.doctor.in_place_button, LEFT)
    np.testing.assert_array_equal(np.asarray(made.data), expected)
    np.testing.assert_array_equal(np.asarray(layer.data), COUNTS)
    assert made.data.header.nversion == layer.data.header.nversion == 20141
    settle(qtbot, widget)


def test_looking_at_all_frames_fills_the_statistics_in(widget, qtbot, sick, tmp_path, monkeypatch):
    """Mended in a copy, the file stays as it was, and the copy is without fault."""
    open_in(qtbot, widget, sick)
    turn_to(qtbot, widget, DOCTOR)
    doctor = widget.doctor
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(widget.controls.start_button, LEFT)
    assert "all 12 frames" in doctor.findings[-1].sentence
    doctor.pixel_size.selectAll()
    qtbot.keyClicks(doctor.pixel_size, "2")
    qtbot.keyClick(doctor.pixel_size, Qt.Key.Key_Return)
    settle(qtbot, widget)
    # Telling the pixel size has not made it forget what all frames said.
    assert "all 12 frames" in doctor.findings[-1].sentence
    before = sick.read_bytes()
    copy = tmp_path / "copy.mrc"
    suggested = []

    def choose(parent, title, name, kinds):
        suggested.append(name)
        return str(copy), kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    with qtbot.waitSignal(widget.controls.returned):
        qtbot.mouseClick(doctor.copy_button, LEFT)
    assert suggested == [str(tmp_path / "sick-fixed.mrc")]
    assert sick.read_bytes() == before
    assert diagnose(copy, full=True) == ()
    assert widget.controls.status.text().startswith("Fixed in copy.mrc:")


def test_with_nothing_ticked_nothing_can_be_mended(widget, qtbot, sick, movie):
    """The buttons say why."""
    open_in(qtbot, widget, sick)
    turn_to(qtbot, widget, DOCTOR)
    doctor = widget.doctor
    for _, box in doctor.boxes:
        tick(qtbot, box)
    for button in (doctor.copy_button, doctor.in_place_button):
        assert not button.isEnabled() and "Tick" in button.toolTip()
    open_in(qtbot, widget, movie)
    assert not doctor.copy_button.isEnabled() and "Tick" not in doctor.copy_button.toolTip()
    assert not doctor.pixel_size.isVisible()


def test_a_joined_layer_is_mended_in_a_copy_only(viewer, widget, qtbot, sick, tmp_path):
    """Its other files would be left open."""
    other = tmp_path / "sick2.mrc"
    other.write_bytes(sick.read_bytes())
    viewer.open([sick, other], stack=True, plugin="napari-mrcz")
    settle(qtbot, widget)
    assert widget.doctor.copy_button.isEnabled()
    assert not widget.doctor.in_place_button.isEnabled()
    assert "joined" in widget.doctor.in_place_button.toolTip()


def test_a_packed_file_is_mended_in_a_copy_only(widget, qtbot, sick, monkeypatch):
    """Which is suggested without the suffix of packed files."""
    packed = sick.with_name("sick.mrc.gz")
    packed.write_bytes(gzip.compress(sick.read_bytes()))
    open_in(qtbot, widget, packed)
    assert "packed" in widget.doctor.in_place_button.toolTip()
    suggested = []

    def choose(parent, title, name, kinds):
        suggested.append(name)
        return "", kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    turn_to(qtbot, widget, DOCTOR)
    qtbot.mouseClick(widget.doctor.copy_button, LEFT)
    assert suggested == [str(sick.with_name("sick-fixed.mrc"))]


def test_a_file_that_changed_meanwhile_is_not_mended(widget, qtbot, sick):
    """It is said, and nothing is written."""
    open_in(qtbot, widget, sick)
    raw = bytearray(sick.read_bytes())
    raw[44] ^= 1
    sick.write_bytes(raw)
    answer(QMessageBox.StandardButton.Yes, [])
    with qtbot.waitSignal(widget.controls.failed):
        qtbot.mouseClick(widget.doctor.in_place_button, LEFT)
    assert "has changed" in widget.controls.status.text()
    assert sick.read_bytes() == bytes(raw)
