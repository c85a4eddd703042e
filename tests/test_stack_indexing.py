"""A stack is indexed like the array it stands for, whatever it comes from."""

import numpy as np
import pytest
from good_files import movie
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import napari_mrcz as nm

SHAPE = (6, 5, 7)
PIXELS = movie(SHAPE, "int16", 4)


class Identity:
    """A correction that changes nothing."""

    def __call__(self, frame, index):
        return frame.copy()

    def describe(self):
        return {"name": "identity"}


def test_what_is_no_correction_is_said():
    with pytest.raises(TypeError, match=r"has describe\(\); 'function' does not have it"):
        nm.Stack.from_array(PIXELS).apply(lambda frame, index: frame)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexing")
    for suffix in ("mrcz", "mrc"):
        nm.write(folder / f"a.{suffix}", PIXELS)
    compressed, plain = nm.open(folder / "a.mrcz"), nm.open(folder / "a.mrc")
    stacks = {
        "compressed": compressed,
        "plain": plain,
        "array": nm.Stack.from_array(PIXELS),
        "corrected": compressed.apply(Identity()),
        "joined": nm.Stack.joined([plain, compressed]),
    }
    compressed.close()
    plain.close()
    return stacks


@pytest.fixture(params=["compressed", "plain", "array", "corrected", "joined"])
def stack(request, stacks):
    with stacks[request.param] as stack:
        yield stack


def truth(stack):
    return np.concatenate([PIXELS] * (len(stack) // len(PIXELS)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(basic_indices(SHAPE), st.lists(st.integers(0, 5), max_size=3), st.booleans())
def test_basic_indices_give_what_the_array_gives(stack, key, seen_before, closed_before):
    if closed_before:
        stack.close()
    for frame in seen_before:
        _ = stack[frame]
    found, expected = stack[key], truth(stack)[key]
    assert isinstance(found, np.ndarray)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected, strict=True)


@given(
    st.lists(st.integers(-6, 5)) | st.lists(st.booleans(), min_size=6, max_size=6).map(np.array),
    basic_indices(SHAPE[1:], min_dims=1).map(lambda k: k if isinstance(k, tuple) else (k,)),
)
def test_frames_can_be_picked_by_a_list_or_a_mask(frames, window):
    stack = nm.Stack.from_array(PIXELS)
    window = tuple(part for part in window if part is not Ellipsis)
    picked = PIXELS[np.array(frames, None if len(frames) else int)]
    window_of_one = np.stack([f[window] for f in picked]) if len(picked) else None
    found = stack[(frames, *window)]
    if window_of_one is None:
        assert found.shape == (0, *PIXELS[0][window].shape)
    else:
        np.testing.assert_array_equal(found, window_of_one, strict=True)


@pytest.mark.parametrize("stack", ["compressed", "plain", "array", "corrected"], indirect=True)
@pytest.mark.parametrize(
    "key",
    [
        6,
        -7,
        2**70,
        -(2**70),
        1.5,
        1.0,
        "0",
        b"0",
        None,
        True,
        np.True_,
        1j,
        {},
        object(),
        [1.5],
        ["a"],
        [6],
        [-7],
        [[0], [1, 2]],
        [[0, 1]],
        np.zeros((6, 5, 7), bool),
        [True],
        (0, 5),
        (0, -6),
        (0, 0, 7),
        (0, 0, 0, 0),
        (0, 1.5),
        (0, None),
        (0, "a"),
        (0, [1, 2]),
        (0, True),
        (..., ...),
        (slice(None), slice(None), 7),
    ],
    ids=lambda key: "object" if type(key) is object else repr(key),
)
def test_what_is_no_index_is_an_index_error(stack, key):
    with pytest.raises(IndexError):
        stack[key]


@pytest.mark.parametrize("key", [slice(None, None, 0), (0, slice(None, None, 0)), slice("a", None)])
def test_slices_that_make_no_sense_fail_as_they_do_for_arrays(stack, key):
    with pytest.raises(Exception) as expected:
        PIXELS[key]
    with pytest.raises(expected.type):
        stack[key]


def test_frames_are_read_only_and_selections_are_not(stack):
    with pytest.raises(ValueError, match="read-only"):
        stack[2][0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        stack[2:3][0, 0, 0] = 1
    some = stack[2:4]
    some[...] = 0
    np.testing.assert_array_equal(stack[2:4], PIXELS[2:4])


def test_iterating_gives_the_frames_in_order_and_ends(stack):
    frames = list(stack)
    assert len(frames) == len(stack)
    np.testing.assert_array_equal(frames, truth(stack))


def test_the_array_protocol_decodes_all(stack):
    np.testing.assert_array_equal(np.asarray(stack), truth(stack), strict=True)
    as_float = np.asarray(stack, np.float32)
    assert as_float.dtype == np.float32
    np.testing.assert_array_equal(as_float, truth(stack))
    with pytest.raises(ValueError, match="decoding"):
        stack.__array__(copy=False)


def test_dask_has_one_chunk_a_frame_and_the_same_pixels(stack):
    lazy = stack.to_dask()
    assert lazy.chunks[0] == (1,) * len(stack)
    np.testing.assert_array_equal(lazy.compute(), truth(stack), strict=True)
    np.testing.assert_array_equal(lazy[2:4, 1, ::2].compute(), truth(stack)[2:4, 1, ::2])


@pytest.mark.parametrize(
    "dtype", "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32".split()
)
def test_the_sum_is_exact(dtype):
    pixels = np.ones((40, 3, 4), dtype)
    if dtype.startswith("float"):
        pixels *= 1000
    elif dtype != "bool":
        largest = np.iinfo(dtype).max
        pixels *= (largest - 1) // 40 if dtype.endswith("64") else largest
    stack = nm.Stack.from_array(pixels)
    exact = sum(int(f[0, 0]) for f in pixels)
    assert [int(v) for v in stack.sum().ravel()] == [exact] * 12
    assert not stack.sum().flags.writeable
    with pytest.raises(ValueError, match="axis 0"):
        stack.sum(axis=1)
    with pytest.raises(ValueError):
        np.sum(stack)
    pixels[...] = 0  # it is not summed again
    assert [int(v) for v in stack.sum(axis=0, dtype=object).ravel()] == [exact] * 12
    out = np.zeros((1, *stack.shape[1:]), stack.sum().dtype)
    assert np.sum(stack, axis=0, out=out, keepdims=True) is out
    np.testing.assert_array_equal(out[0], np.sum(stack, axis=0))
