"""Saving layers by napari's hook, without a window: pixels, sizes in Å, and what is known."""

from pathlib import Path

import dask.array
import numpy as np
import pytest
from napari.components import LayerList
from napari.layers import Image

import napari_mrcz as nm
from napari_mrcz.plugin.hooks import read, write_image
from napari_mrcz.plugin.layers import describe, stack_of, widen_contrast_slider

COUNTS = np.random.default_rng(9).poisson(3, (4, 20, 30)).astype(np.uint8)


def saved(path, data, **attributes) -> nm.Stack:
    """Save a layer's data and open the file."""
    assert write_image(str(path), data, attributes) == [str(path)]
    return nm.open(path)


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc", ".mrcs"])
def test_pixels_come_back(tmp_path, suffix):
    """Compressed as the suffix says."""
    with saved(tmp_path / f"movie{suffix}", COUNTS) as stack:
        np.testing.assert_array_equal(np.asarray(stack), COUNTS)
        assert (stack.header.codec > 0) == (suffix == ".mrcz")


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("angstrom", 1), ("Å", 1), ("pm", 0.01), ("picometer", 0.01), ("nm", 10),
        ("nanometer", 10), ("µm", 1e4), ("um", 1e4), ("micrometer", 1e4), ("mm", 1e7),
    ],
)  # fmt: skip
def test_lengths_become_angstrom(tmp_path, unit, factor):
    """Whatever unit of length the layer has; pint's names for units are such."""
    with saved(
        tmp_path / "a.mrc", COUNTS, scale=[1, 0.2, 0.3], units=["pixel", unit, unit]
    ) as stack:
        assert stack.pixel_size == pytest.approx((0, 0.2 * factor, 0.3 * factor), rel=1e-6)
        assert stack.header.ispg == 0


def test_pints_units_are_understood():
    """Those are what napari hands out; their text is the long name."""
    import pint

    registry = pint.get_application_registry()
    units = [registry.pixel, registry.nm, registry.nm]
    assert stack_of(COUNTS, {"scale": [1, 2, 3], "units": units}).pixel_size == (0, 20, 30)


@pytest.mark.parametrize("units", [None, ["pixel"] * 3, "pixel", ["second", "degree", "pixel"]])
def test_what_is_no_length_is_no_pixel_size(units):
    """Unknown stays unknown."""
    assert stack_of(COUNTS, {"scale": [2, 2, 2], "units": units}).pixel_size == (0, 0, 0)


def test_three_lengths_make_an_array_a_volume(tmp_path):
    """ISPG 1, with the spacing of sections."""
    with saved(tmp_path / "a.mrc", COUNTS, scale=[3, 2, 2], units="angstrom") as stack:
        assert stack.pixel_size == (3, 2, 2)
        assert stack.header.ispg == 1


def test_one_image_is_one_frame(tmp_path):
    """Two axes."""
    with saved(tmp_path / "a.mrcz", COUNTS[0], scale=[2, 2], units=["nm", "nm"]) as stack:
        assert stack.shape == (1, 20, 30)
        assert stack.pixel_size == (0, 20, 20)


def test_four_axes_are_a_stack_of_volumes(tmp_path):
    """As MRC has it, and as it opens again."""
    array = COUNTS.reshape(2, 2, 20, 30)
    scale, units = [1, 3, 2, 2], ["pixel", "angstrom", "angstrom", "angstrom"]
    with saved(tmp_path / "a.mrcz", array, scale=scale, units=units) as stack:
        assert stack.header.ispg == 401
        assert stack.pixel_size == (3, 2, 2)
    ((data, attributes, _),) = read(str(tmp_path / "a.mrcz"))
    np.testing.assert_array_equal(np.asarray(data), array)
    assert (attributes["scale"], attributes["units"]) == (scale, units)


def test_movies_dropped_as_one_stack_open_again_as_movies(tmp_path):
    """The names of the axes are kept, which MRC has no place for."""
    for i in range(2):
        nm.write(tmp_path / f"{i}.mrcz", COUNTS[:2] + i, pixel_size=(0, 1.5, 1.5))
    ((data, attributes, _),) = read([str(tmp_path / f"{i}.mrcz") for i in range(2)])
    write_image(str(tmp_path / "all.mrcz"), data, attributes)
    ((again, other, _),) = read(str(tmp_path / "all.mrcz"))
    np.testing.assert_array_equal(np.asarray(again), np.stack([COUNTS[:2], COUNTS[:2] + 1]))
    for key in ("scale", "units", "axis_labels"):
        assert other[key] == attributes[key]


def test_dask_arrays_are_streamed(tmp_path):
    """Frame by frame: a frame's chunk is computed when it is written."""
    lazy = dask.array.from_array(COUNTS, chunks=(1, 20, 30))
    with saved(tmp_path / "a.mrcz", lazy) as stack:
        np.testing.assert_array_equal(np.asarray(stack), COUNTS)


def test_of_a_pyramid_the_finest_level_is_saved(tmp_path):
    """The others follow from it."""
    with saved(tmp_path / "a.mrc", [COUNTS, COUNTS[:, ::2, ::2]], multiscale=True) as stack:
        assert stack.shape == COUNTS.shape


@pytest.mark.parametrize(
    ("shape", "attributes", "message"),
    [((9, 9, 3), {"rgb": True}, "an RGB image.*Split RGB"), ((2, 2, 2, 9, 9), {}, "5 axes")],
)
def test_what_mrc_has_no_place_for_is_refused(tmp_path, shape, attributes, message):
    """Saying why, and leaving nothing behind."""
    with pytest.raises(RuntimeError, match=message):
        write_image(str(tmp_path / "a.mrc"), np.zeros(shape, np.uint8), attributes)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def source(tmp_path) -> str:
    """Return a file that says much of its frames."""
    stack = nm.Stack.from_array(COUNTS, pixel_size=(0, 1.5, 1.5), metadata={"sample": "ice"})
    history = ({"name": "Doubling", "factor": 2},)
    nm.write(tmp_path / "source.mrcz", stack.described(voltage=300.0, c3=2.7, history=history))
    return str(tmp_path / "source.mrcz")


def test_what_a_file_says_goes_into_its_copy(source, tmp_path):
    """Metadata, history, header fields and pixel size, by way of a layer."""
    ((data, attributes, _),) = read(source)
    write_image(str(tmp_path / "copy.mrcz"), data, attributes)
    with nm.open(source) as first, nm.open(tmp_path / "copy.mrcz") as copy:
        assert copy.metadata == {"sample": "ice"}
        assert copy.history == first.history
        assert (copy.header.voltage, copy.header.c3) == pytest.approx((300.0, 2.7))
        assert copy.pixel_size == first.pixel_size


def test_what_the_user_changed_in_the_layer_counts(source, tmp_path):
    """Another pixel size, the map edited, a key added; the rest stays."""
    ((data, attributes, _),) = read(source)
    attributes["scale"], attributes["units"] = [1, 0.2, 0.2], ["pixel", "nm", "nm"]
    attributes["metadata"] = {**attributes["metadata"], "operator": "nobody"}
    attributes["metadata"]["metadata"] = {"sample": "vacuum"}
    write_image(str(tmp_path / "copy.mrcz"), data, attributes)
    with nm.open(tmp_path / "copy.mrcz") as copy:
        assert copy.metadata == {"sample": "vacuum", "operator": "nobody"}
        assert copy.pixel_size == (0, 2, 2)
        assert copy.header.voltage == 300.0


def test_a_corrected_stack_carries_its_history(source, tmp_path):
    """One step longer than its source's."""
    with nm.open(source) as stack:

        class Adding:
            def __call__(self, frame, index):
                return frame + np.uint8(1)

            def describe(self):
                return {"name": "Adding", "what": 1}

        corrected = stack.apply(Adding())
        write_image(str(tmp_path / "b.mrcz"), corrected, {"metadata": describe(corrected)})
    with nm.open(tmp_path / "b.mrcz") as back:
        assert [step["name"] for step in back.history] == ["Doubling", "Adding"]
        np.testing.assert_array_equal(np.asarray(back), COUNTS + 1)


def test_the_file_that_is_read_from_is_not_overwritten(source, tmp_path):
    """By whatever name; a layer in memory may replace it."""
    before = Path(source).read_bytes()
    ((data, attributes, _),) = read(source)
    link = tmp_path / "link.mrcz"
    link.hardlink_to(source)
    for path in (source, str(link)):
        with pytest.raises(RuntimeError, match="is the file that the layer is read from"):
            write_image(path, data, attributes)
    # napari passes the reason on: it would drop that of a ValueError.
    layers = LayerList([Image(data, metadata=attributes["metadata"])])
    with pytest.raises(RuntimeError, match="is the file that the layer is read from"):
        layers.save(source, plugin="napari-mrcz")
    assert Path(source).read_bytes() == before
    in_memory = np.asarray(data)
    data.close()
    write_image(source, in_memory, attributes)


def test_a_map_called_metadata_need_not_be_one():
    """Other plugins may have used the name for a text."""
    stack = stack_of(COUNTS, {"metadata": {"metadata": "a text", "more": 1}})
    assert stack.metadata == {"metadata": "a text", "more": 1}


def test_only_our_own_lazy_layers_get_room_for_their_sliders(source):
    """And the phase has all it can have."""

    class Layer:
        def __init__(self, data, limits):
            self.data, self.contrast_limits = data, limits
            self.contrast_limits_range = limits

    with nm.open(source) as stack:
        mine, others = Layer(stack, [0, 4]), Layer(COUNTS, [0, 4])
        phase = Layer(stack, [-np.pi, np.pi])
        for layer in (mine, others, phase, object()):
            widen_contrast_slider(layer)
    assert mine.contrast_limits_range == (0, 20)
    assert others.contrast_limits_range == [0, 4]
    assert phase.contrast_limits_range == [-np.pi, np.pi]
