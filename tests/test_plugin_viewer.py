"""The plugin in napari: opening, stepping, saving, samples, what goes wrong."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import NotificationSeverity, notification_manager
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

import napari_mrcz as nm
from napari_mrcz.format import FrameReader
from napari_mrcz.plugin import demo
from napari_mrcz.plugin.layers import contrast_limits

COUNTS = np.random.default_rng(2).poisson(2, (21, 40, 60)).astype(np.uint8)


@pytest.fixture
def movie(tmp_path) -> str:
    """Return a movie of 21 frames."""
    nm.write(tmp_path / "movie.mrcz", COUNTS, pixel_size=(0, 1.5, 1.5))
    return str(tmp_path / "movie.mrcz")


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Return the list of frames that are decoded from files."""
    frames: list[int] = []
    read_frame = FrameReader.read_frame

    def noted(self, frame, out=None):
        frames.append(frame)
        return read_frame(self, frame, out)

    monkeypatch.setattr(FrameReader, "read_frame", noted)
    return frames


def open_files(viewer, paths, **options) -> list:
    """Open files as napari does when somebody drops them, by this plugin."""
    return viewer.open(paths, plugin="napari-mrcz", **options)


def shown(layer) -> np.ndarray:
    """Return the pixels that napari has of a layer at this moment."""
    return layer._slice.image.raw


@pytest.mark.window
def test_opening_decodes_two_frames_stepping_one_each_and_contrast_none(viewer, movie, decoded):
    """The first and the middle one, where napari puts the slider of the first layer."""
    (layer,) = open_files(viewer, movie)
    assert sorted(decoded) == [0, 10]
    np.testing.assert_array_equal(shown(layer), COUNTS[viewer.dims.current_step[0]])
    for step in (11, 12, 13, 14):
        viewer.dims.set_current_step(0, step)
        np.testing.assert_array_equal(shown(layer), COUNTS[step])
    layer.data.close()  # waits for what is decoded ahead
    assert sorted(set(decoded)) == sorted(decoded)
    assert set(decoded) <= {0, *range(10, 17)}
    decoded.clear()
    layer.contrast_limits = (1, 3)  # the graphics card's work, as all that follows
    layer.gamma = 0.5
    layer.colormap = "viridis"
    viewer.reset_view()
    assert decoded == []


def test_a_layer_is_in_angstrom_and_its_sliders_have_room(viewer, movie):
    """In window and scale bar."""
    (layer,) = open_files(viewer, movie)
    assert layer.name == "movie"
    assert list(layer.scale) == [1, 1.5, 1.5]
    assert [str(unit) for unit in layer.units] == ["pixel", "angstrom", "angstrom"]
    limits = contrast_limits([COUNTS[0], COUNTS[10]])
    assert tuple(layer.contrast_limits) == limits
    assert layer.contrast_limits_range == [0, 5 * limits[1]]
    assert layer.axis_labels == ("frame", "y", "x")


@pytest.mark.window
def test_files_can_be_dropped_on_the_window(viewer, movie, tmp_path):
    """Each becomes a layer; no question which plugin is to open it."""
    nm.write(tmp_path / "other.mrc", COUNTS)
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(movie), QUrl.fromLocalFile(str(tmp_path / "other.mrc"))])
    event = QDropEvent(
        QPointF(10, 10),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    viewer.window._qt_viewer.dropEvent(event)
    assert [layer.name for layer in viewer.layers] == ["movie", "other"]
    assert all(isinstance(layer.data, nm.Stack) for layer in viewer.layers)


def test_what_the_user_asks_of_the_layer_counts(viewer, movie):
    """By keywords of `viewer.open`."""
    (layer,) = open_files(viewer, movie, name="mine", colormap="magma", opacity=0.5)
    assert (layer.name, layer.colormap.name, layer.opacity) == ("mine", "magma", 0.5)


def test_the_sum_that_napari_makes_has_its_own_contrast(viewer, movie):
    """Layers > Project > Sum; napari gives it that of single frames."""
    from napari.layers._layer_actions import _project

    (layer,) = open_files(viewer, movie)
    _project(viewer.layers, 0, "sum")
    total = viewer.layers["movie sum-proj"]
    np.testing.assert_array_equal(total.data, COUNTS.sum(axis=0))
    assert tuple(total.contrast_limits) == contrast_limits([COUNTS.sum(axis=0)])
    assert total.contrast_limits[1] > layer.contrast_limits[1]
    assert [str(unit) for unit in total.units] == ["angstrom", "angstrom"]


def test_several_files_as_one_stack(viewer, movie, tmp_path):
    """Two sliders, the frame that they point at."""
    nm.write(tmp_path / "other.mrcz", COUNTS[::-1].copy(), pixel_size=(0, 1.5, 1.5))
    (layer,) = open_files(viewer, [movie, str(tmp_path / "other.mrcz")], stack=True)
    assert layer.axis_labels == ("movie", "frame", "y", "x")
    viewer.dims.set_current_step((0, 1), (1, 4))
    np.testing.assert_array_equal(shown(layer), COUNTS[::-1][4])


def test_complex_pixels_are_two_layers(viewer, tmp_path):
    """The phase in its own colours."""
    nm.write(tmp_path / "wave.mrcz", np.full((3, 20, 30), 1j, np.complex64), pixel_size=1.0)
    amplitude, phase = open_files(viewer, str(tmp_path / "wave.mrcz"))
    assert (shown(amplitude) == 1).all()
    np.testing.assert_allclose(shown(phase), np.pi / 2)
    assert phase.contrast_limits_range == pytest.approx([-np.pi, np.pi])


def test_a_duplicate_shows_the_same_frames(viewer, movie):
    """What "Duplicate layer" does: a deep copy of the data."""
    (layer,) = open_files(viewer, movie)
    data, attributes, kind = layer.as_layer_data_tuple()
    (twin,) = viewer._add_layer_from_data(copy.deepcopy(data), attributes, kind)
    np.testing.assert_array_equal(shown(twin), shown(layer))


def test_narrow_frames_are_no_colours(viewer, tmp_path):
    """Three columns of uint8 would be taken for red, green and blue."""
    nm.write(tmp_path / "strip.mrcz", COUNTS[:, :, :3].copy())
    (layer,) = open_files(viewer, str(tmp_path / "strip.mrcz"))
    assert not layer.rgb
    assert layer.ndim == 3


@pytest.mark.parametrize("name", ["copy.mrcz", "copy.mrc"])
def test_saving_a_layer(viewer, movie, tmp_path, name):
    """The layer's pixel size, which was changed, goes with it."""
    (layer,) = open_files(viewer, movie)
    layer.scale = [1, 2, 2]
    assert viewer.layers.save(str(tmp_path / name)) == [str(tmp_path / name)]
    with nm.open(tmp_path / name) as back:
        np.testing.assert_array_equal(np.asarray(back), COUNTS)
        assert back.pixel_size == (0, 2, 2)


def test_a_damaged_file_is_said_once(viewer, movie, tmp_path):
    """A readable warning in napari's corner; the frames that are there are shown."""
    cut = tmp_path / "cut.mrcz"
    with nm.open(movie) as stack:
        end = int(stack._source.index.offsets[17])
    cut.write_bytes(Path(movie).read_bytes()[:end])
    notification_manager.records.clear()
    with warnings.catch_warnings(), notification_manager:
        warnings.simplefilter("default", nm.MrczWarning)
        (layer,) = open_files(viewer, str(cut))
    assert layer.data.shape[0] == 17
    (record,) = notification_manager.records
    assert record.severity == NotificationSeverity.WARNING
    assert "cut.mrcz: 17 of the 21 frames" in str(record.message)


@pytest.mark.parametrize("damaged", [0, pytest.param(10, marks=pytest.mark.window), 20])
def test_a_damaged_frame_is_blank_and_keeps_nothing_from_being_shown(
    viewer, movie, tmp_path, damaged
):
    """It is said once; but it is not saved as if it had been blank."""
    path = tmp_path / "damaged.mrcz"
    raw = bytearray(Path(movie).read_bytes())
    with nm.open(movie) as stack:
        raw[int(stack._source.index.offsets[damaged]) + 40] ^= 0xFF
    path.write_bytes(raw)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (layer,) = open_files(viewer, str(path))
        for frame in (*range(len(COUNTS)), damaged):
            viewer.dims.set_current_step(0, frame)
            shown = np.asarray(layer.data[frame])
            np.testing.assert_array_equal(shown, 0 if frame == damaged else COUNTS[frame])
    (said,) = [w for w in told if issubclass(w.category, nm.MrczWarning)]
    assert f"frame {damaged}" in str(said.message)
    assert "shown blank" in str(said.message)
    for compute in (np.asarray, list, lambda data: data.sum(axis=0)):
        with pytest.raises(nm.MrczError, match=f"frame {damaged}"):
            compute(layer.data)
    with pytest.raises(nm.MrczError, match=f"frame {damaged}"):
        nm.write(tmp_path / "copy.mrcz", layer.data)


def test_a_file_that_cannot_be_used_says_why(viewer, tmp_path):
    """The error that napari shows is ours."""
    (tmp_path / "short.mrcz").write_bytes(b"not a movie")
    with pytest.raises(nm.MrczError, match="only 11 bytes, where an MRC header alone takes 1024"):
        open_files(viewer, str(tmp_path / "short.mrcz"))


@pytest.fixture
def small_sample(monkeypatch, tmp_path):
    """Make the sample movie small, and its folder this test's own."""
    monkeypatch.setattr(demo, "_SHAPE", (64, 96))
    monkeypatch.setattr(demo, "_N_FRAMES", 5)
    monkeypatch.setattr(demo, "cache_folder", lambda: tmp_path / "cache")


def test_the_sample_is_simulated_once(viewer, small_sample, monkeypatch, tmp_path):
    """Then it is a file like any other, lazily opened."""
    (layer,) = viewer.open_sample("napari-mrcz", "movie")
    monkeypatch.setattr(demo, "simulate_movie", None)
    (again,) = viewer.open_sample("napari-mrcz", "movie")
    assert layer.data.shape == again.data.shape == (5, 64, 96)
    assert layer.name == "simulated movie"
    assert layer.data.metadata["simulated"] is True
    assert layer.data.pixel_size[0] == 0.0
    assert layer.data.pixel_size[2] > 0
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    ("key", "name", "shape"),
    [
        ("movie", "simulated movie", (5, 96, 128)),
        ("sweep", "simulated sweep", (3, 128, 128)),
        ("raw", "simulated raw frames", (3, 64, 64)),
    ],
)
def test_each_sample_opens(viewer, monkeypatch, tmp_path, key, name, shape):
    """The second time from the file that the first has made."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *a, **k: tmp_path / "cache")
    for number, value in {
        "_N_FRAMES": 5, "_SHAPE": (96, 128),
        "_SWEEP_FRAMES": 3, "_SWEEP_SHAPE": (128, 128), "_RAW_FRAMES": 3, "_RAW_SHAPE": (64, 64),
    }.items():  # fmt: skip
        monkeypatch.setattr(demo, number, value)
    written = set()
    for _ in range(2):
        (layer,) = viewer.open_sample("napari-mrcz", key)
        assert layer.name.startswith(name)
        assert layer.data.shape == shape
        assert layer.data.description.voltage == 300.0
        (path,) = (tmp_path / "cache").iterdir()
        written.add(path.stat().st_mtime_ns)
    assert len(written) == 1
