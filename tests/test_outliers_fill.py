"""What is put in the place of outlier pixels: expectation, statistics, repeatability."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from napari_mrcz.correction.outliers.counts import SummedCounts
from napari_mrcz.correction.outliers.fill import (
    K2_POINT_SPREAD,
    Replacement,
    expected_counts,
    first_quantiles,
    random_bits,
)
from napari_mrcz.correction.outliers.levels import NEIGHBOURS, over_neighbours

SHAPE = (12, 14)


def expected(image, marks, gain=None, n_frames=1):
    """Return the expected counts of all marked pixels, by (y, x)."""
    counts = SummedCounts(image, n_frames, 1.0, gain, np.empty(0, np.intp), True)
    pixels = np.flatnonzero(marks)
    values = expected_counts(counts, pixels, marks.reshape(-1))
    return {
        (int(p) // image.shape[1], int(p) % image.shape[1]): v
        for p, v in zip(pixels, values, strict=True)
    }


def marked(*positions, shape=SHAPE):
    marks = np.zeros(shape, np.int8)
    for position in positions:
        marks[position] = 1
    return marks


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 100, SHAPE)


# Expectation -------------------------------------------------------------------------------------


def test_a_singleton_is_filled_by_the_point_spread(image):
    found = expected(image, marked((5, 6)))
    around = image[3:8, 4:9]
    assert found[5, 6] == pytest.approx((around * K2_POINT_SPREAD).sum(), rel=1e-6)


def test_neighbourly_ones_are_filled_by_the_mean_of_the_good_neighbours(image):
    marks = marked((5, 6), (6, 8))
    found = expected(image, marks)
    around = image[3:8, 4:9][marks[3:8, 4:9] == 0]
    assert len(around) == 23
    assert found[5, 6] == pytest.approx(around.mean(), rel=1e-6)
    # Three pixels away is no neighbour.
    found = expected(image, marked((5, 6), (5, 9)))
    assert found[5, 6] == pytest.approx((image[3:8, 4:9] * K2_POINT_SPREAD).sum(), rel=1e-6)


def test_at_the_border_only_neighbours_that_there_are_count(image):
    found = expected(image, marked((0, 0)))
    spread = K2_POINT_SPREAD[2:, 2:]
    assert found[0, 0] == pytest.approx((image[:3, :3] * spread).sum() / spread.sum(), rel=1e-6)
    found = expected(image, marked((0, 0), (1, 1), (11, 13)))
    assert found[0, 0] == pytest.approx(
        (image[:3, :3].sum() - image[0, 0] - image[1, 1]) / 7, rel=1e-6
    )
    spread = K2_POINT_SPREAD[:3, :3]
    assert found[11, 13] == pytest.approx((image[-3:, -3:] * spread).sum() / spread.sum(), rel=1e-6)


def test_the_square_grows_until_a_good_pixel_is_in_it():
    image = np.zeros((40, 40), np.int64)
    image[30:, :] = 100
    image[:, 30:] = 100
    marks = np.zeros((40, 40), np.int8)
    marks[:30, :30] = 1
    found = expected(image, marks)
    assert all(value == pytest.approx(100) for value in found.values())
    # As near as there are: of two levels, the nearer one.
    image[:, 30:] = 10
    found = expected(image, marks)
    assert found[10, 26] == pytest.approx(10)
    assert found[26, 10] == pytest.approx(100)
    assert found[2, 2] > 0


def test_an_image_of_bad_pixels_alone_is_filled_with_nothing():
    found = expected(np.full((4, 4), 9), np.ones((4, 4), np.int8))
    assert all(value == 0 for value in found.values())


def test_the_gain_is_taken_into_account_and_out_again(image):
    gain = np.random.default_rng(1).uniform(0.5, 2, SHAPE).astype(np.float32)
    found = expected(image, marked((5, 6)), gain, n_frames=10)
    normalised = ((image * gain)[3:8, 4:9] * K2_POINT_SPREAD).sum()
    assert found[5, 6] == pytest.approx(normalised / gain[5, 6] / 10, rel=1e-5)


def test_neighbours_are_those_of_the_square_without_its_centre():
    assert len(NEIGHBOURS) == 24
    assert {tuple(shift) for shift in NEIGHBOURS.tolist()} == {
        (y, x) for y in range(-2, 3) for x in range(-2, 3)
    } - {(0, 0)}


@given(st.integers(1, 7), st.integers(1, 7))
def test_neighbours_beyond_the_border_are_none(y, x):
    image = np.arange(y * x).reshape(y, x)
    padded = np.pad(image, 2, constant_values=-1)
    sums, numbers = over_neighbours(
        lambda _, neighbours, within: ((image.flat[neighbours] * within).sum(0), within.sum(0)),
        np.arange(y * x),
        (y, x),
    )
    for pixel in range(y * x):
        row, column = divmod(pixel, x)
        window = padded[row : row + 5, column : column + 5]
        assert numbers[pixel] == np.count_nonzero(window >= 0) - 1
        assert sums[pixel] == window[window >= 0].sum() - pixel


# Putting it there --------------------------------------------------------------------------------


def replacement(weights, expected_, fill="sample", per_electron=1.0, seed=0):
    number = len(weights)
    return Replacement(
        (1, number + 1),
        np.arange(number),
        np.ones(number, np.int8),
        np.rint(np.asarray(weights) * 65535).astype(np.uint16),
        np.asarray(expected_, np.float32),
        per_electron,
        fill,
        seed,
    )


@pytest.mark.parametrize("mean", [0.02, 0.25, 1.0, 4.0, 23.0, 30.0, 400.0])
def test_draws_are_poisson(mean):
    number = 100_000
    put = replacement(np.zeros(number), np.full(number, mean))
    drawn = put(np.zeros((1, number + 1), np.uint16), 3)[0, :-1]
    levels = np.arange(max(0, int(mean - 5 * mean**0.5)), int(mean + 5 * mean**0.5) + 2)
    counted = np.searchsorted(np.sort(drawn), levels, side="right") / number
    # Kolmogorov and Smirnov's bound that one in 10,000 samples passes.
    assert np.abs(counted - stats.poisson.cdf(levels, mean)).max() < 2.2 / number**0.5
    assert drawn.mean() == pytest.approx(mean, abs=5 * (mean / number) ** 0.5)
    assert drawn.var() == pytest.approx(mean, rel=0.03, abs=5e-3)


@pytest.mark.parametrize(("mean", "error"), [(3.0, 1e-4), (24.0, 1e-4), (25.0, 6e-4), (2e3, 1e-5)])
def test_the_quantiles_of_evenly_spread_numbers(mean, error):
    number = 2**18
    spread = np.arange(number, dtype=np.uint32) << 14
    drawn = first_quantiles(spread, np.full(number, mean))
    levels = np.arange(max(0, int(mean - 6 * mean**0.5)), int(mean + 6 * mean**0.5))
    found = np.searchsorted(drawn, levels, side="right") / number
    assert np.abs(found - stats.poisson.cdf(levels, mean)).max() < error


def test_draws_differ_from_pixel_to_pixel_and_frame_to_frame():
    number = 50_000
    put = replacement(np.zeros(number), np.full(number, 1.0))
    empty = np.zeros((1, number + 1), np.uint8)
    frames = np.stack([put(empty, index)[0, :-1] for index in range(3)]).astype(float)
    frames = np.concatenate([frames, np.roll(frames[:1], 1, axis=1)])
    off_diagonal = np.corrcoef(frames)[np.triu_indices(4, 1)]
    assert np.abs(off_diagonal).max() < 5 / number**0.5


def test_draws_are_the_same_for_ever():
    """Numbers that must not change, or corrected movies cannot be made again."""
    assert random_bits((5, 7), 2, 1)[0].tolist() == [1296625086, 2201127080]
    means = np.array([0.5, 2.0, 8.0, 40.0, 1000.0])
    bits = np.array([1 << 31, 1 << 20, 3 << 30, 1 << 31, 1], np.uint32)
    assert first_quantiles(bits, means).tolist() == [0, 0, 10, 40, 811]
    put = replacement(np.full(6, 0.5), np.full(6, 3.0), seed=2)
    assert put(np.full((1, 7), 9, np.uint8), 4).tolist() == [[3, 4, 9, 4, 9, 9, 9]]


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("fill", ["sample", "expectation"])
def test_a_pixel_keeps_its_weight_of_its_own_value(weight, fill):
    number = 200_000
    put = replacement(np.full(number, weight), np.full(number, 2.0), fill)
    out = put(np.full((1, number + 1), 10, np.uint8), 1)
    assert out[0, -1] == 10
    kept = weight * 10 + (1 - weight) * 2
    assert out[0, :-1].mean() == pytest.approx(kept, abs=0.03 if fill == "sample" else 1e-3)
    if fill == "sample":
        # Never anything between: each value is a count that there could have been.
        assert np.mean(out[0, :-1] == 10) == pytest.approx(weight, abs=0.01)


def test_draws_are_whole_electrons():
    put = replacement(np.zeros(1000), np.full(1000, 32.0), per_electron=16.0)
    drawn = put(np.zeros((1, 1001), np.int16), 0)[0, :-1]
    assert set(np.unique(drawn % 16)) == {0}
    assert drawn.mean() == pytest.approx(32, abs=5 * (16 * 32 / 1000) ** 0.5)
    put = replacement(np.zeros(1000), np.full(1000, 3.0), per_electron=1.5)
    drawn = put(np.zeros((1, 1001), np.float32), 0)[0, :-1]
    assert set(np.unique(drawn % 1.5)) == {0}
    assert drawn.mean() == pytest.approx(3, abs=5 * (1.5 * 3 / 1000) ** 0.5)


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=30))
def test_positions_survive_their_description(positions):
    pixels = np.array(sorted(positions), np.intp)
    number = len(pixels)
    put = Replacement(
        (1000, 1001), pixels, np.zeros(number, np.int8), np.zeros(number, np.uint16),
        np.ones(number, np.float32), 1.0, "sample", 0,
    )  # fmt: skip
    again = Replacement.from_description(put.describe())
    assert again.shape == put.shape
    assert again.pixels.tolist() == pixels.tolist()
