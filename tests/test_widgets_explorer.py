"""Comparing compressions in the Save widget: what is found, and a click that chooses."""

import numpy as np
import pytest
from mouse import click_point
from qtpy.QtCore import Qt

import napari_mrcz as nm
from napari_mrcz.widgets.save_stack.model import SaveOptions, explore

COUNTS = np.random.default_rng(8).poisson(0.5, (5, 96, 128)).astype(np.uint8)


def test_ratios_are_those_of_files_and_below_the_bound(tmp_path):
    """For counts, which Shannon's bound holds for."""
    stack = nm.Stack.from_array(COUNTS)
    reports = []
    found = explore(stack, SaveOptions("a.mrcz"), lambda *said: reports.append(said))
    assert found.bound is not None
    assert max(trial.ratio for trial in found.trials) <= found.bound
    assert reports[-1][1] == reports[-1][2] == len(found.trials)
    assert {t.coder for t in found.trials} >= {"zstd for counts", "lz4"}
    by_choice = {(t.codec, t.level, t.filter): t for t in found.trials}
    for choice in (("zstd", 1, "bitshuffle"), ("lz4", 9, "none"), ("zlib", 5, "bitshuffle")):
        codec, level, filter_ = choice
        path = tmp_path / "a.mrcz"
        nm.write(path, COUNTS, codec=codec, level=level, filter=filter_, overwrite=True)
        with nm.open(path) as written:
            sizes = written._source.index.sizes
        expected = COUNTS[0].nbytes / float(np.mean(sizes))
        assert by_choice[choice].ratio == pytest.approx(expected, rel=0.03)


def test_shuffle_is_tried_where_pixels_have_more_bytes():
    """Of single bytes it does nothing."""
    wide = nm.Stack.from_array(COUNTS.astype(np.int16))
    filters = {t.filter for t in explore(wide, SaveOptions("a.mrcz"), lambda *_: None).trials}
    assert filters == {"bitshuffle", "none", "shuffle"}


@pytest.fixture
def widget(viewer, qtbot, tmp_path):
    """Return a docked Save widget with a movie."""
    nm.write(tmp_path / "movie.mrcz", COUNTS)
    viewer.open(tmp_path / "movie.mrcz", plugin="napari-mrcz")
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", "Save")
    widget.resize(400, 900)
    qtbot.waitUntil(lambda: not widget.busy)
    return widget


def test_a_click_on_a_point_chooses_it(widget, qtbot):
    """In the form, and the estimate follows."""
    explorer = widget.explorer
    widget.advanced.button.click()
    assert explorer.plot.isHidden()
    with qtbot.waitSignal(explorer.explored) as explored:
        qtbot.mouseClick(explorer.controls.start_button, Qt.MouseButton.LeftButton)
    assert not explorer.plot.isHidden()
    wanted = max(explored.args[0].trials, key=lambda trial: trial.ratio)
    with qtbot.waitExposed(widget.window()):
        widget.window().show()
    qtbot.waitUntil(lambda: explorer.plot.viewport().height() > 50)
    with qtbot.waitSignal(explorer.chosen) as chosen:
        click_point(explorer.plot, np.log10(wanted.rate / 1e6), wanted.ratio)
    trial = chosen.args[0]
    options = widget.form.options
    assert (options.codec, options.level, options.filter) == (
        trial.codec,
        trial.level,
        trial.filter,
    )
    assert trial.ratio == pytest.approx(wanted.ratio, rel=0.05)
    assert str(trial) in explorer.told.text()


def test_another_layer_forgets_what_was_found(widget, qtbot):
    """It was another movie's."""
    with qtbot.waitSignal(widget.explorer.explored):
        qtbot.mouseClick(widget.explorer.controls.start_button, Qt.MouseButton.LeftButton)
    widget.viewer.add_image(COUNTS[:2], name="other")
    assert widget.explorer.plot.isHidden()


def test_an_uncompressed_file_has_nothing_to_compare(widget):
    """The button says so."""
    widget.form.path.setText("movie.mrc")
    assert not widget.explorer.controls.start_button.isEnabled()
    assert "not compressed" in widget.explorer.controls.start_button.toolTip() or (
        "folder" in widget.explorer.controls.start_button.toolTip()
    )


def test_cancelling_shows_nothing(widget, qtbot):
    """And leaves the form alone."""
    before = widget.form.options
    qtbot.mouseClick(widget.explorer.controls.start_button, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(widget.explorer.controls.ended):
        widget.explorer.controls.cancel()
    assert widget.form.options == before
