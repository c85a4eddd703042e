"""Arrays that are only indexed, such as those of zarr: four axes, and stacks behind a proxy."""

import numpy as np
import pytest

import napari_mrcz as nm


class OnlyIndexed:
    """What zarr and h5py give: shape, dtype and indexing, and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.asked: list[object] = []

    def __getitem__(self, key: object) -> np.ndarray:
        """Index like numpy, and note it."""
        self.asked.append(key)
        return self._array[key]


def test_a_stack_of_volumes_is_written_section_by_section(tmp_path):
    """No more is asked for at once than one section, and the depth is kept."""
    array = np.arange(2 * 3 * 5 * 7, dtype=np.int16).reshape(2, 3, 5, 7)
    lazy = OnlyIndexed(array)
    nm.write(tmp_path / "volumes.mrcz", lazy)
    assert {np.shape(array[key]) for key in lazy.asked} == {(5, 7)}
    with nm.open(tmp_path / "volumes.mrcz") as stack:
        assert stack.header["ispg"] == 401
        assert stack.description.sections_per_volume == 3
        np.testing.assert_array_equal(np.asarray(stack).reshape(array.shape), array)


def test_a_window_of_a_volume_in_a_stack_of_them(tmp_path):
    """A frame's index finds volume and section."""
    from napari_mrcz.stack.sources import FlattenedArray

    array = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    stack = nm.Stack.from_array(FlattenedArray(array))
    np.testing.assert_array_equal(stack[4, 1:3, 2], array[1, 1, 1:3, 2])


def test_a_stack_from_naparis_console_can_be_written(tmp_path):
    """It comes wrapped in a proxy there."""
    proxies = pytest.importorskip("napari.utils._proxies")
    stack = nm.Stack.from_array(np.ones((2, 3, 4), np.int16), pixel_size=2.0)
    nm.write(tmp_path / "ones.mrcz", proxies.PublicOnlyProxy.create(stack))
    with nm.open(tmp_path / "ones.mrcz") as back:
        assert back.pixel_size == (2.0, 2.0, 2.0)
        assert np.asarray(back).sum() == 24
