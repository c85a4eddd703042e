"""Float movies back to integers: every bit comes back, and what is no such movie is refused."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import xxhash
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import shift

import napari_mrcz as nm
from napari_mrcz.correction import (
    Decimation,
    DecimationError,
    GainNormalization,
    decimate,
    rebuild,
    restore,
)
from napari_mrcz.correction.conversions import decimate_by
from napari_mrcz.correction.orientation import ORIENTATIONS, orient
from napari_mrcz.simulation import simulate_movie
from napari_mrcz.stack import Stack


@pytest.fixture
def movie():
    return simulate_movie(6, (96, 128), dose=2.0, seed=1)


@pytest.fixture
def floats(movie):
    gain = GainNormalization(movie.camera.gain_reference)
    return np.stack([gain(frame) for frame in movie.frames])


def test_a_float_archive_shrinks_and_comes_back(tmp_path, movie, floats):
    nm.write(tmp_path / "old.mrc", floats)
    with nm.open(tmp_path / "old.mrc") as old:
        nm.write(tmp_path / "new.mrcz", decimate(old, movie.camera.gain_reference))
    with nm.open(tmp_path / "new.mrcz") as new:
        assert new.dtype == np.uint8
        good = ~movie.defects.dead
        np.testing.assert_array_equal(np.asarray(new)[:, good], movie.frames[:, good])
        again = np.asarray(new.apply(restore(new.history)))
    np.testing.assert_array_equal(again.view(np.uint32), floats.view(np.uint32))


def test_the_footer_says_where_the_gain_is(tmp_path, movie, floats):
    twice = Stack.from_array(2 * floats).apply(Halving())
    nm.write(tmp_path / "new.mrcz", decimate(twice, movie.camera.gain_reference))
    with nm.open(tmp_path / "new.mrcz") as new:
        found = new.description.other["gain"]
        first, step, *keys = found["path"].split("/")
        assert first == "history"
        reference = new.history[int(step)]
        for key in keys:
            reference = reference[key]
        np.testing.assert_array_equal(reference, movie.camera.gain_reference)
        assert found["xxh3"] == xxhash.xxh3_64_hexdigest(np.ascontiguousarray(reference).data)


class Halving:
    """A step before the decimation."""

    def __call__(self, frame, index):
        return frame / 2

    def describe(self):
        return {"name": "Halving"}


@given(
    counts=arrays.arrays(np.uint16, (2, 3, 4)),
    gain=arrays.arrays(
        np.float32, (3, 4), elements=st.floats(0.125, 8, width=32) | st.just(np.float32(0))
    ),
)
def test_every_bit_comes_back(counts, gain):
    assume(gain.any())
    normalise = GainNormalization(gain)
    floats = np.stack([normalise(frame) for frame in counts])
    back = decimate(floats, gain)
    np.testing.assert_array_equal(back, counts * (gain > 0))
    again = np.stack([normalise(frame) for frame in back])
    np.testing.assert_array_equal(again.view(np.uint32), floats.view(np.uint32))


@given(
    counts=arrays.arrays(np.int16, (1, 3, 4), elements=st.integers(-100, 5000)),
    gamma=st.floats(-2, 2),
    seed=st.integers(0, 99),
)
def test_gamma_dark_and_orientation_are_undone_too(counts, gamma, seed):
    rng = np.random.default_rng(seed)
    normalise = GainNormalization(
        rng.uniform(0.5, 2, (4, 3)), gamma, rng.uniform(0, 2, (3, 4)), "rot90"
    )
    floats = np.stack([normalise(frame) for frame in counts])
    np.testing.assert_array_equal(decimate(floats, normalise), counts)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 255, np.uint8), (0, 256, np.uint16), (-1, 100, np.int8), (-1, 200, np.int16),
     (0, 70000, np.uint32), (-70000, 1, np.int32)],
)  # fmt: skip
def test_the_smallest_integers_are_taken(low, high, dtype):
    floats = np.float32([[[low, high]]]) * np.float32(0.5)
    decimated = decimate(floats, np.full((1, 2), 0.5))
    assert decimated.dtype == dtype
    assert decimated.tolist() == [[[low, high]]]


def test_an_interpolated_movie_is_refused_with_figures(movie, floats):
    floats[2] = shift(floats[2], (0.3, 0.4), order=1, mode="nearest")
    message = r"frame 2: \d+ of 12288 pixels .* interpolated"
    with nm.Stack.from_array(floats) as stack, pytest.raises(DecimationError, match=message) as e:
        decimate(stack, movie.camera.gain_reference)
    assert e.value.frame == 2
    # Sums of a few quotients do land now and then.
    assert e.value.n_astray > 0.7 * 12288


def test_another_gain_is_refused(movie, floats):
    with pytest.raises(DecimationError, match="not its gain reference"):
        decimate(floats, np.fliplr(movie.camera.gain_reference))


def test_a_gain_that_is_off_in_its_last_bits_is_refused(movie, floats):
    nearly = movie.camera.gain_reference * np.float32(1.0000002)
    with pytest.raises(DecimationError, match="last bits") as e:
        decimate(floats, nearly)
    assert e.value.n_astray == 0
    assert e.value.n_inexact > 1000


def test_single_pixels_that_were_replaced_are_counted(movie, floats):
    floats[0, 5, 5:8] += np.float32(0.3)
    with pytest.raises(DecimationError, match=r"frame 0: 3 of 12288 pixels .* replaced") as e:
        decimate(floats, movie.camera.gain_reference)
    assert (e.value.n_astray, e.value.n_inexact) == (3, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_values_that_no_counts_give_are_refused(value):
    floats = np.ones((1, 2, 2), np.float32)
    floats[0, 0, 0] = value
    gain = np.ones((2, 2))
    if value == 0.5:
        gain[0, 0] = 0  # there, nothing but 0 can come back
    with pytest.raises(DecimationError, match="1 of 4 pixels"):
        decimate(floats, gain)


def test_what_float32_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="float64 that float32 cannot hold"):
        decimate(np.full((1, 1, 1), 0.1), np.ones((1, 1)))
    assert decimate(np.full((1, 1, 1), 3.0), np.ones((1, 1))).tolist() == [[[3]]]
    with pytest.raises(ValueError, match="without frames"):
        decimate(np.ones((0, 1, 1)), np.ones((1, 1)))
    with pytest.raises(ValueError, match="32 bits"):
        decimate(np.full((1, 1, 1), 2.0**33), np.ones((1, 1)))


def test_only_a_decimation_is_undone():
    with pytest.raises(ValueError, match="not a decimation"):
        restore([])
    with pytest.raises(ValueError, match="not a decimation"):
        restore([GainNormalization(np.ones((1, 1))).describe()])


def test_it_is_rebuilt_from_its_description(movie, floats):
    decimation = Decimation.fit(floats, movie.camera.gain_reference)
    again = rebuild(decimation.describe())
    np.testing.assert_array_equal(again(floats[3], 3), decimation(floats[3], 3))
    assert again.output_dtype(np.float32) == np.uint8


@pytest.mark.filterwarnings("error")
def test_complex_movies_and_gains_are_refused():
    frames = np.ones((2, 4, 4), np.complex64)
    with pytest.raises(ValueError, match="holds complex64, where counts are real"):
        decimate(frames, np.ones((4, 4)))
    with pytest.raises(ValueError, match="real values"):
        decimate(frames.real, np.ones((4, 4), np.complex64))


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_the_orientation_of_the_reference_is_found(movie, floats, turn):
    """An empty first frame fits in any."""
    frames = np.concatenate([np.zeros_like(floats[:1]), floats])
    back = {orient(movie.camera.gain_reference, other).tobytes(): other for other in ORIENTATIONS}
    turned = orient(movie.camera.gain_reference, turn)
    counts, found = decimate_by(frames, turned)
    np.testing.assert_array_equal(counts[1:], movie.frames)
    assert orient(turned, found).tobytes() == movie.camera.gain_reference.tobytes()
    assert len(back) == len(ORIENTATIONS)


def test_a_reference_that_leaves_no_whole_counts_in_any_orientation_is_refused(movie, floats):
    other = np.random.default_rng(3).uniform(0.8, 1.2, floats.shape[1:]).astype(np.float32)
    with pytest.raises(DecimationError, match="Nor does it in any other orientation"):
        decimate_by(floats, other)
    with pytest.raises(ValueError, match="does not fit frames"):
        decimate_by(floats, other[:-1])
