"""The four-dimensional view of a stack, against numpy."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import basic_indices

import napari_mrcz as nm
from napari_mrcz.plugin.layers import StackSeries

SHAPE = (3, 4, 5, 6)
ARRAY = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


@pytest.fixture(scope="module")
def series() -> StackSeries:
    """Three parts of four frames."""
    return StackSeries(nm.Stack.from_array(ARRAY.reshape(12, 5, 6)), 4)


@given(key=basic_indices(SHAPE))
def test_indexing_is_numpys(series, key):
    """Integers, slices and an ellipsis in any mixture."""
    found = series[key]
    np.testing.assert_array_equal(found, ARRAY[key])
    assert found.shape == ARRAY[key].shape


def test_it_looks_like_an_array(series):
    """What napari asks of one."""
    assert (series.shape, series.ndim, series.size, series.dtype) == (SHAPE, 4, 360, np.int16)
    assert len(series) == 3
    np.testing.assert_array_equal(np.asarray(series), ARRAY)


@pytest.mark.parametrize("key", [(3,), (0, 4), (0, 0, 5), (0,) * 5, (None, 0), (..., 0, ...)])
def test_an_index_out_of_range_is_refused(series, key):
    """As numpy does it, except for new axes."""
    with pytest.raises(IndexError):
        series[key]


def test_a_copy_shares_the_frames_but_not_the_cache(series):
    """What "Duplicate" makes; locks cannot be copied."""
    twin = copy.deepcopy(series)
    assert twin.stack is not series.stack
    np.testing.assert_array_equal(twin[1, 2], ARRAY[1, 2])


def test_unequal_parts_are_refused(series):
    """Twelve frames are no parts of five."""
    with pytest.raises(ValueError, match="12 frames cannot be cut into parts of 5"):
        StackSeries(series.stack, 5)
