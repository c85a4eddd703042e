"""Sums of frames: exact, whatever the type and the number of frames."""

import weakref

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mrcz.correction.sums import (
    RunningSum,
    binned_sum,
    smallest_sum_dtype,
    sum_array,
    sum_dtype,
    widened,
)
from napari_mrcz.stack import Stack
from napari_mrcz.stack.sources import sum_frames

INTEGERS = [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32]


@given(
    st.sampled_from(INTEGERS).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=3, max_dims=3))
    )
)
def test_squares_of_pixels_are_summed_exactly(frames):
    (image, *_), (y, x) = frames, frames.shape[1:]
    for factor in (1, 2, 3):
        rows, columns = y // factor, x // factor
        inside = image[: rows * factor, : columns * factor].astype(np.int64)
        wanted = inside.reshape(rows, factor, columns, factor).sum(axis=(1, 3))
        assert np.array_equal(binned_sum(image, factor, np.int64), wanted)


@given(
    st.sampled_from(INTEGERS).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=3, max_dims=3))
    )
)
def test_every_way_of_summing_is_exact(frames):
    wanted = frames.sum(axis=0, dtype=np.int64)
    for total in (
        sum_array(frames),
        sum_frames(frames.__getitem__, frames.shape, frames.dtype),
    ):
        assert np.array_equal(total, wanted)


@pytest.mark.parametrize(
    ("dtype", "value"), [(np.uint8, 255), (np.int8, -128), (np.int8, 127), (np.bool_, True)]
)
@pytest.mark.parametrize("n", [255, 256, 257, 258, 600])
def test_small_sums_are_emptied_before_they_overflow(dtype, value, n):
    frames = np.full((n, 2, 3), value, dtype)
    wanted = np.full((2, 3), n * int(value))
    running = RunningSum((2, 3), dtype, n)
    for frame in frames:
        running.add(frame)
    assert np.array_equal(running.total(), wanted)
    assert np.array_equal(sum_array(frames), wanted)
    assert np.array_equal(sum_frames(frames.__getitem__, frames.shape, dtype), wanted)


def test_sums_of_many_small_frames_are_small_where_they_fit(monkeypatch):
    monkeypatch.setattr("napari_mrcz.correction.sums._SMALL_STRIP", 1)
    frames = np.ones((600, 3, 2), np.uint8)
    assert sum_array(frames).dtype == np.uint16
    frames[:, 1] = 255
    total = sum_array(frames)
    assert total.dtype == np.int32
    assert total.tolist() == [[600] * 2, [153_000] * 2, [600] * 2]


@pytest.mark.parametrize(
    ("dtype", "n", "wanted"),
    [
        (np.uint8, 50, np.int32),
        (np.uint16, 2**15, np.int32),
        (np.uint16, 2**15 + 1, np.int64),
        (np.int32, 2, np.int64),
        (np.uint64, 2, np.uint64),
        (np.float32, 2, np.float64),
        (np.complex64, 2, np.complex128),
    ],
)
def test_the_type_of_a_sum_holds_it(dtype, n, wanted):
    assert sum_dtype(dtype, n) == wanted
    frames = np.ones((3, 2, 2), dtype)
    smallest = smallest_sum_dtype(dtype, 3)
    assert sum_frames(frames.__getitem__, frames.shape, dtype).dtype == smallest
    assert Stack.from_array(frames).sum().dtype == sum_dtype(dtype, 3)
    assert Stack.from_array(frames).sum(dtype=smallest).dtype == smallest


@pytest.mark.parametrize(
    ("dtype", "n", "wanted"),
    [
        (np.uint8, 257, np.uint16),
        (np.uint8, 258, np.int32),
        (np.int8, 255, np.int16),
        (np.int8, 256, np.int32),
        (np.bool_, 257, np.uint16),
        (np.int16, 2, np.int32),
        (np.float32, 2, np.float64),
    ],
)
def test_the_smallest_type_holds_the_largest_sum(dtype, n, wanted):
    assert smallest_sum_dtype(dtype, n) == wanted


def test_floating_frames_are_summed_in_double_precision():
    frames = np.full((1000, 4, 4), 0.1, np.float32)
    wanted = 1000 * float(np.float32(0.1))
    assert sum_array(frames) == pytest.approx(np.full((4, 4), wanted), rel=1e-12)
    assert sum_frames(frames.__getitem__, frames.shape, frames.dtype) == pytest.approx(
        np.full((4, 4), wanted), rel=1e-12
    )


@pytest.mark.parametrize(
    ("dtype", "value", "small"),
    [(np.int8, 20, True), (np.int8, -20, True), (np.int8, 127, False), (np.uint8, 100, True),
     (np.uint8, 200, False)],
)  # fmt: skip
def test_few_counts_take_16_bits_in_many_frames(dtype, value, small):
    frames = np.full((600, 2, 3), value // 4, dtype)
    frames[:, 1, 2] = value
    with Stack.from_array(frames) as stack:
        total = stack.sum(dtype="smallest")
        assert (total.dtype.itemsize == 2) == small
        assert np.array_equal(total, frames.sum(axis=0, dtype=np.int64))
        assert stack.sum().dtype == np.int32
        assert np.array_equal(stack.sum(), total)


@pytest.mark.parametrize("size", [1, 7, 2**19 - 1, 2**19 + 5])
def test_a_sum_is_widened_in_its_own_memory(size):
    total = np.arange(size).astype(np.int16).reshape(1, size)
    wanted = total.astype(np.int64)
    assert np.array_equal(widened(total.copy(), np.int32), wanted)
    assert np.array_equal(widened(total.copy(), np.int64), wanted)


def test_the_smallest_sum_and_large_ones_are_kept_only_while_they_are_used(monkeypatch):
    with Stack.from_array(np.ones((3, 4, 5), np.uint8)) as stack:
        for most, dtype in ((2**26, "smallest"), (10, None)):
            monkeypatch.setattr("napari_mrcz.stack.stack._KEPT_SUM_NBYTES", most)
            first = stack.sum(dtype=dtype)
            assert stack.sum(dtype=dtype) is first
            gone = weakref.ref(first)
            del first
            assert gone() is None
            assert (stack.sum(dtype="smallest") == 3).all()


@pytest.mark.parametrize("value", [1, 255])
def test_sums_are_merged(value):
    frames = np.random.default_rng(0).integers(0, 255, (700, 3, 4)).astype(np.uint8)
    frames[:, 1] = np.minimum(frames[:, 1], value)
    wanted = frames.sum(axis=0, dtype=np.int64)
    for first in (0, 1, 300, 699, 700):
        one, other = RunningSum((3, 4), np.uint8, 700), RunningSum((3, 4), np.uint8, 700)
        for index, frame in enumerate(frames):
            (one if index < first else other).add(frame)
        one.merge(other)
        assert np.array_equal(one.total(), wanted)
    assert not RunningSum((3, 4), np.uint8, 1).total().any()


def test_progress_is_told_and_may_end_it():
    frames = np.ones((5, 2, 2), np.uint8)
    told = []
    sum_frames(frames.__getitem__, frames.shape, frames.dtype, lambda *done: told.append(done))
    assert told == [(i, 5) for i in range(1, 6)]

    def stop(done, n):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sum_frames(frames.__getitem__, frames.shape, frames.dtype, stop)
