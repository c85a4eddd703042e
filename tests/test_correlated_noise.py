"""Correlated noise: the one pass against the definition, pair by pair."""

import itertools
import math
import warnings

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mrcz.correction import correlated_noise
from napari_mrcz.simulation import Camera, simulate_movie
from napari_mrcz.stack import Stack


def by_definition(frames):
    """Return the mean of eq. 7 over all pairs of frames that vary."""
    varying = [f.astype(float).reshape(-1) for f in frames if f.min() != f.max()]
    pairs = []
    for one, other in itertools.combinations(varying, 2):
        x, y = one - one.mean(), other - other.mean()
        pairs.append((x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum()))
    return float(np.mean(pairs)) if pairs else math.nan


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int16, np.int32]),
        arrays.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=9),
    )
)
def test_it_is_exactly_the_mean_over_all_pairs(frames):
    assert correlated_noise(frames) == pytest.approx(by_definition(frames), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.float32])
def test_large_frames_are_worked_on_in_pieces(monkeypatch, dtype):
    """Those of 8 bits in single precision."""
    for name, value in {"_LARGE": 100, "_PIECE": 300, "_AT_A_TIME": 2}.items():
        monkeypatch.setattr(f"napari_mrcz.correction.noise.{name}", value)
    rng = np.random.default_rng(1)
    frames = rng.poisson(np.where(rng.random((61, 70)) < 0.01, 9.0, 2.0), (7, 61, 70))
    wanted = by_definition(frames)
    assert correlated_noise(frames.astype(dtype)) == pytest.approx(wanted, abs=1e-7)
    assert wanted > 0.1


def test_large_offsets_lose_nothing():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(5, 64, 64)) + 0.5 * rng.normal(size=(64, 64))
    wanted = by_definition(frames)
    assert wanted == pytest.approx(0.2, abs=0.03)
    assert correlated_noise(frames) == pytest.approx(wanted, abs=1e-12)
    assert correlated_noise(1e6 + 1e-2 * frames) == pytest.approx(wanted, abs=1e-7)
    frames[:, 0, 0] = 1e6  # A very hot pixel is nearly all of the correlation.
    assert correlated_noise(frames) == pytest.approx(by_definition(frames), abs=1e-12)


def test_frames_alike_and_frames_opposed():
    frame = np.arange(12).reshape(3, 4)
    assert correlated_noise([frame, 7 * frame + 3, frame]) == pytest.approx(1)
    assert correlated_noise([frame, -frame]) == pytest.approx(-1)
    assert correlated_noise([frame, -frame, frame]) == pytest.approx(-1 / 3)


def test_constant_frames_are_left_out():
    rng = np.random.default_rng(0)
    frames = rng.poisson(2.0, (4, 16, 16)) + rng.poisson(2.0, (16, 16))
    wanted = correlated_noise(frames)
    constant = np.full((1, 16, 16), 3)
    assert correlated_noise(np.concatenate([constant, frames, constant])) == wanted
    assert math.isnan(correlated_noise(np.concatenate([frames[:1], constant])))
    assert math.isnan(correlated_noise(np.zeros((5, 4, 4))))


def test_nan_stays_nan():
    frames = np.random.default_rng(0).normal(size=(3, 8, 8))
    frames[1, 2, 3] = np.nan
    assert math.isnan(correlated_noise(frames))


def test_a_stack_or_any_iterable_is_read_once():
    movie = simulate_movie(6, camera=Camera.ideal((64, 64), hot=0.01), seed=1)
    wanted = correlated_noise(movie.frames)
    stack = Stack.from_array(movie.frames)
    assert correlated_noise(stack) == wanted
    assert correlated_noise(movie.iter_frames()) == wanted
    stack.close()


def test_hot_pixels_correlate_as_much_as_their_excess_says():
    """Of n pixels a few count more: their variance is common to all frames."""
    camera = Camera.ideal((512, 512), hot=0.01, hot_excess=(4.0, 4.0), clustered=0.0)
    movie = simulate_movie(20, camera=camera, dose=1.0, specimen=None, seed=2)
    share = movie.defects.hot.mean()
    common = 16 * share * (1 - share)
    noise = 1 + 4 * share
    assert correlated_noise(movie.frames) == pytest.approx(common / (common + noise), rel=0.01)


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 4, 4)), [], np.zeros((2, 4, 4), np.complex64), [np.eye(3), np.eye(4)]]
)
def test_what_has_no_correlation_is_refused(frames):
    with pytest.raises(ValueError, match=r"frame|real"):
        correlated_noise(frames)


def test_frames_of_enormous_numbers_have_no_noise():
    """Their squares are more than any number that is kept."""
    frames = 1e300 * np.random.default_rng(0).random((3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(correlated_noise(frames))
