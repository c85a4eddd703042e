"""The Gain reference widget in a viewer: its previews, its defective pixels, its looks."""

import gc
import weakref

import numpy as np
from closing import close
from gain_dock import (
    GAIN,
    MOVIE,
    choose_file,
    click,
    files,
    gated,
    loaded,
    settle,
    type_into,
    widget,
)
from mouse import dragged, drop

import napari_mrcz as nm
from napari_mrcz.correction import GainNormalization
from napari_mrcz.stack.references import read_defects, write_defects
from napari_mrcz.widgets.base.plot import palette
from napari_mrcz.widgets.gain.widget import GainReference

# Fixtures, which pytest finds by their names here.
__all__ = ["files", "gated", "loaded", "widget"]


class TestLayers:
    """The preview follows the movie, and goes with it."""

    def test_the_preview_goes_with_its_movie(self, loaded, qtbot, viewer):
        """And keeps nothing of it."""
        kept = weakref.ref(loaded.preview.data)
        viewer.layers.remove("movie")
        assert len(viewer.layers) == 0
        assert loaded.layers.layer is None
        problem = loaded.choice.problem()
        assert problem and problem in loaded.references.summary.text()
        settle(qtbot, loaded)

        def gone() -> bool:
            gc.collect()
            return kept() is None

        qtbot.waitUntil(gone)

    def test_a_movie_removed_in_the_middle_of_a_preview(self, gated, qtbot, viewer):
        """No layer comes after it."""
        widget, gate = gated
        gate.frame = 9
        widget.show_preview.setChecked(False)
        viewer.dims.set_point(0, 0)
        settle(qtbot, widget)
        click(qtbot, widget.show_preview)
        qtbot.waitUntil(gate.reached.is_set)
        viewer.layers.clear()
        gate.opened.set()
        settle(qtbot, widget)
        assert len(viewer.layers) == 0

    def test_the_preview_can_be_switched_off_and_closed(self, loaded, qtbot, viewer):
        """By the box, and by removing the layer, which unticks it."""
        click(qtbot, loaded.show_preview)
        assert loaded.preview is None
        settle(qtbot, loaded)
        assert len(viewer.layers) == 1
        click(qtbot, loaded.show_preview)
        settle(qtbot, loaded)
        viewer.layers.remove(loaded.preview)
        assert not loaded.show_preview.isChecked()
        type_into(qtbot, loaded.gamma.number, "0.7")
        settle(qtbot, loaded)
        assert loaded.preview is None

    def test_the_preview_lies_just_above_its_movie(self, loaded, qtbot, viewer):
        """Below defective pixels and what else is there."""
        click(qtbot, loaded.defects.show_button)
        for _ in range(2):
            click(qtbot, loaded.show_preview)
            settle(qtbot, loaded)
        names = [layer.name for layer in viewer.layers]
        assert names == ["movie", "movie, normalised", "defective pixels"]

    def test_scale_and_name_follow(self, loaded, qtbot, viewer):
        """When the movie's change."""
        raw = viewer.layers["movie"]
        raw.scale = (1, 2.5, 2.5)
        raw.name = "first"
        settle(qtbot, loaded)
        assert loaded.preview.name == "first, normalised"
        assert tuple(loaded.preview.scale) == (1, 2.5, 2.5)

    def test_a_normalised_movie_is_noticed(self, loaded, qtbot, viewer):
        """It is not done twice; the preview of another movie stays as it was."""
        layer, data = loaded.preview, loaded.preview.data
        done = nm.Stack.from_array(MOVIE).apply(GainNormalization(GAIN))
        viewer.add_image(done, name="done", contrast_limits=(0, 4))
        settle(qtbot, loaded)
        assert loaded.remark.text() == "This movie is gain-normalised already."
        assert loaded.preview is None
        assert [x.name for x in viewer.layers] == ["movie", "movie, normalised", "done"]
        viewer.layers.selection.active = viewer.layers["movie"]
        settle(qtbot, loaded)
        # The reference is upside down.
        assert "does not fit this movie" in loaded.remark.text()
        assert loaded.preview is layer
        assert layer.data is data
        loaded.orientation.buttons["flipud"].click()
        settle(qtbot, loaded)
        assert loaded.remark.isHidden()

    def test_floats_that_are_normalised_are_warned_of_before(self, loaded, qtbot, viewer):
        """Though they have no history; whoever insists gets them, near the top of a low dock."""
        floats = np.stack([GainNormalization(GAIN)(frame) for frame in MOVIE])
        viewer.add_image(floats, name="floats", contrast_limits=(0, 4))
        settle(qtbot, loaded)
        assert loaded.preview is None
        assert "normalised already" in loaded.remark.text()
        assert not loaded.force.isHidden()
        loaded.resize(320, 500)
        assert loaded.column.indexOf(loaded.force) == 4
        loaded.force.click()
        settle(qtbot, loaded)
        assert loaded.preview.name == "floats, normalised"
        assert "normalised already" in loaded.remark.text()
        assert loaded.force.isChecked() and not loaded.force.isHidden()
        loaded.force.click()
        settle(qtbot, loaded)
        assert loaded.preview is None

    def test_an_image_that_was_computed_is_not_normalised(self, widget, qtbot, viewer, files):
        """A click on a sum changes nothing."""
        drop(widget.references, dragged(files / "gain.mrc"))
        settle(qtbot, widget)
        movie, before = widget.layers.layer, len(viewer.layers)
        viewer.add_image(MOVIE.sum(axis=0), name="sum")
        settle(qtbot, widget)
        assert viewer.layers.selection.active.name == "sum"
        assert widget.layers.layer is movie
        assert len(viewer.layers) == before + 1

    def test_each_movie_has_its_own_preview(self, loaded, qtbot, viewer):
        """It goes with its movie; picked again with another exponent, it is made anew."""
        first, raw = loaded.preview, viewer.layers["movie"]
        other = viewer.add_image(nm.Stack.from_array(MOVIE), name="other", contrast_limits=(0, 4))
        type_into(qtbot, loaded.gamma.number, "0.7")
        settle(qtbot, loaded)
        assert loaded.preview.name == "other, normalised"
        assert first.data.history[-1]["gamma"] == 1
        viewer.layers.selection.active = raw
        settle(qtbot, loaded)
        assert loaded.preview is first
        assert first.data.history[-1]["gamma"] == 0.7
        viewer.layers.remove(other)
        assert [x.name for x in viewer.layers] == ["movie", "movie, normalised"]

    def test_what_has_no_gain_is_refused(self, widget, viewer):
        """RGB pictures, for one."""
        viewer.add_image(np.zeros((9, 9, 3), np.uint8), rgb=True)
        assert "RGB" in widget.remark.text()
        assert not widget.defects.show_button.isEnabled()

    def test_a_series_of_volumes_keeps_its_axes(self, loaded, qtbot, viewer):
        """Four of them, as the movie has."""
        viewer.add_image(MOVIE.reshape(4, 5, 128, 128), name="four", contrast_limits=(0, 4))
        viewer.dims.set_point((0, 1), (2, 3))
        settle(qtbot, loaded)
        assert loaded.preview.data.shape == (4, 5, 128, 128)
        expected = GainNormalization(np.flipud(GAIN))(MOVIE[13])
        np.testing.assert_array_equal(np.asarray(loaded.preview.data[2, 3]).squeeze(), expected)

    def test_the_widget_may_go_while_it_works(self, gated, qtbot, viewer):
        """No signal reaches what is no longer there."""
        widget, gate = gated
        click(qtbot, widget.controls.start_button)
        qtbot.waitUntil(gate.reached.is_set)
        close(widget, viewer, qtbot)
        gate.opened.set()
        viewer.layers.clear()
        viewer.theme = "light"


def test_a_dock_closed_and_opened_again_shows_scores_and_preview(loaded, qtbot, viewer):
    """Reference, orientation and exponent are those that were chosen; no layer comes twice."""
    click(qtbot, loaded.controls.start_button)
    settle(qtbot, loaded)
    type_into(qtbot, loaded.gamma.number, "0.9")
    settle(qtbot, loaded)
    choice, said = loaded.choice, loaded.controls.status.text()
    names = [layer.name for layer in viewer.layers]
    close(loaded, viewer, qtbot)
    again = GainReference(viewer)
    viewer.window.add_dock_widget(again)
    settle(qtbot, again)
    assert again.choice == choice
    assert again.controls.status.text() == said != ""
    assert again.gamma.number.value() == 0.9
    assert [layer.name for layer in viewer.layers] == names
    assert again.preview is viewer.layers["movie, normalised"]


class TestDefects:
    """Imported, joined, painted, exported."""

    def test_pixels_without_gain_are_shown_and_follow_the_orientation(self, loaded, qtbot):
        """As a labels layer in the movie's place."""
        click(qtbot, loaded.defects.show_button)
        layer = loaded.defects.layer
        np.testing.assert_array_equal(layer.data == 2, np.flipud(GAIN) == 0)
        np.testing.assert_array_equal(layer.scale, (1.5, 1.5))
        np.testing.assert_array_equal(layer.translate, (3, 4))
        click(qtbot, loaded.orientation.buttons["flipud"])
        settle(qtbot, loaded)
        np.testing.assert_array_equal(layer.data == 2, GAIN == 0)
        click(qtbot, loaded.defects.join)
        assert not layer.data.any()

    def test_a_list_is_imported_joined_painted_and_exported(
        self, loaded, qtbot, files, monkeypatch
    ):
        """What comes out is what is seen."""
        listed = np.zeros((128, 128), bool)
        listed[:, 40] = True
        write_defects(files / "in.txt", listed, "serialem")
        choose_file(monkeypatch, files / "in.txt")
        click(qtbot, loaded.defects.controls.start_button)
        settle(qtbot, loaded)
        assert loaded.defects.controls.status.text() == "Read 128 pixels."
        layer = loaded.defects.layer
        layer.brush_size = 1
        layer.paint((100, 100), 1)
        expected = listed | (np.flipud(GAIN) == 0)
        expected[100, 100] = True
        counted = f"{expected.sum()} defective pixels"
        qtbot.waitUntil(lambda: loaded.defects.count.text().startswith(counted))
        for kind, name in (("SerialEM and IMOD (*.txt)", "s.txt"),
                           ("MotionCor and RELION (*.txt)", "m.txt")):  # fmt: skip
            choose_file(monkeypatch, files / name, kind)
            click(qtbot, loaded.defects.export_button)
            settle(qtbot, loaded)
            assert loaded.defects.controls.status.text() == f"Wrote {name}."
            np.testing.assert_array_equal(read_defects(files / name, (128, 128)), expected)

    def test_without_a_layer_those_of_the_reference_are_exported(
        self, loaded, qtbot, files, monkeypatch
    ):
        """And shown then."""
        choose_file(monkeypatch, files / "map", "Map (*.mrc *.mrcz *.tif)")
        click(qtbot, loaded.defects.export_button)
        settle(qtbot, loaded)
        np.testing.assert_array_equal(read_defects(files / "map.mrc"), np.flipud(GAIN) == 0)
        assert loaded.defects.layer is not None

    def test_a_list_of_another_camera_is_refused(self, widget, qtbot, files):
        """With both shapes."""
        write_defects(files / "other.txt", np.eye(100, dtype=bool), "serialem")
        drop(widget.defects, dragged(files / "other.txt"))
        settle(qtbot, widget)
        assert "(100, 100)" in widget.defects.controls.status.text()
        assert widget.defects.layer is None

    def test_a_removed_layer_begins_anew(self, widget, qtbot, viewer, files):
        """With nothing listed."""
        write_defects(files / "in.txt", np.eye(128, dtype=bool), "motioncor")
        drop(widget.defects, dragged(files / "in.txt"))
        settle(qtbot, widget)
        assert widget.defects.count.text().startswith("128")
        viewer.layers.remove(widget.defects.layer)
        assert not widget.defects.count.text().startswith("128")
        assert not widget.defects.export_button.isEnabled()


def test_colours_follow_the_theme(loaded, viewer):
    """Of words, frames and plots."""
    for theme in ("light", "dark"):
        viewer.theme = theme
        colours = palette(theme)
        assert colours.text in loaded.references.summary.styleSheet()
        assert colours.accent in loaded.orientation.thumbnails.styleSheet()
        assert loaded.gamma.curve_line.opts["pen"].color().name() == colours.model
