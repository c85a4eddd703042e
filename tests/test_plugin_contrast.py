"""Contrast limits: what is seen of a movie before anybody has touched a slider."""

import numpy as np
import pytest

from napari_mrcz.plugin.layers import contrast_limits, slider_range

SHAPE = (400, 500)


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(11)


def test_counts_span_nearly_all_of_their_distribution(rng):
    """For 10 electrons a pixel, 0.5 % lie below 3 and above 19 (Poisson quantiles)."""
    frame = rng.poisson(10, SHAPE).astype(np.uint8)
    assert contrast_limits([frame]) == (3, 19)


def test_real_numbers_span_their_percentiles(rng):
    """99 % of a normal distribution are within 2.576 standard deviations."""
    low, high = contrast_limits([rng.normal(5, 2, SHAPE).astype(np.float32)])
    assert (low, high) == pytest.approx((5 - 2 * 2.576, 5 + 2 * 2.576), abs=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_few_hot_pixels_do_not_make_it_black(rng, dtype):
    """One pixel in a thousand is hot; the limits are what they are without."""
    frame = rng.poisson(4, SHAPE).astype(dtype)
    without = contrast_limits([frame])
    frame.reshape(-1)[rng.choice(frame.size, frame.size // 1000, replace=False)] = 100
    assert contrast_limits([frame]) == without
    assert without[1] < 15


@pytest.mark.parametrize("rate", [0.02, 0.004, 0.0005])
def test_sparse_counts_are_black_and_white(rng, rate):
    """Nearly all pixels are 0 and the others 1, with some hot ones: 0 is black and 1 is white."""
    frames = rng.binomial(1, rate, (2, *SHAPE)).astype(np.int8)
    frames[:, 7, :3] = 120
    assert contrast_limits(frames) == (0, 1)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, (0, 1)), (3, (0, 6)), (-2, (-4, 0)), (0.5, (0, 1)), (True, (0, 2))]
)
def test_a_constant_frame_has_limits(value, expected):
    """Nothing is black, anything else is grey."""
    assert contrast_limits([np.full(SHAPE, value)]) == expected


def test_what_is_not_finite_does_not_count(rng):
    """NaN, as from a division by a dead pixel's gain, and infinities are passed over."""
    frame = rng.normal(0, 1, SHAPE)
    expected = contrast_limits([frame.copy()])
    frame[::7] = np.nan
    frame[3::7] = np.inf
    assert contrast_limits([frame]) == pytest.approx(expected, abs=0.1)
    assert contrast_limits([np.full(SHAPE, np.nan)]) == (0, 1)


def test_one_blank_frame_among_the_samples_does_not_decide(rng):
    """The first frame, before the shutter opened, is all 0."""
    frames = [np.zeros(SHAPE, np.uint8), rng.poisson(10, SHAPE).astype(np.uint8)]
    assert contrast_limits(frames) == (0, 18)


def test_columns_are_sampled_alike():
    """A bright column of 64 shifts 99.5 % only if a sample hits it more often than it is there."""
    frame = np.zeros((2048, 2048), np.uint8)
    frame[:, ::512] = 200  # four columns: 0.2 %
    assert contrast_limits([frame]) == (0, 200)  # all that stands out
    frame[:, ::64] = 100  # 1.6 %: beyond the percentile
    assert contrast_limits([frame]) == (0, 100)


@pytest.mark.parametrize(
    ("limits", "dtype", "expected"),
    [
        ((0, 4), np.uint8, (0, 20)),
        ((0, 100), np.int8, (0, 127)),
        ((-10, 10), np.int8, (-50, 90)),
        ((100, 150), np.int16, (0, 350)),
        ((-1.0, 1.0), np.float32, (-5.0, 9.0)),
        ((0.0, 0.5), np.float64, (0.0, 2.5)),
    ],
)
def test_sliders_have_room_within_what_pixels_can_be(limits, dtype, expected):
    """Four widths above; below none for counts, two widths for the rest."""
    assert slider_range(limits, dtype) == expected
