"""The formulas of the outlier filter, each alone against what is known; the preprint's errata."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri

from napari_mrcz.correction.outliers.counts import SummedCounts
from napari_mrcz.correction.outliers.fill import K2_POINT_SPREAD
from napari_mrcz.correction.outliers.levels import LocalBackground
from napari_mrcz.correction.outliers.scale import normal_scale, poisson_deviate, poisson_scale
from napari_mrcz.correction.outliers.thresholds import (
    DistributionFit,
    Thresholds,
    fewest_mistakes,
    fit_normal_cdf,
    fit_tails,
    intercepts,
    weight,
)
from napari_mrcz.simulation import Camera, simulate_movie


def distribution(sigma: np.ndarray, cdf: np.ndarray, n_pixels: int = 10**6) -> DistributionFit:
    """Return a standard normal model beside whatever was counted."""
    histogram = np.diff(np.rint(cdf * n_pixels).astype(np.int64))
    return DistributionFit(sigma, histogram, cdf, 0.0, 1.0, sigma, n_pixels)


def noise(mean: float, shape: tuple[int, int, int] = (4, 256, 256), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(mean, shape).astype(np.uint16)


@pytest.mark.parametrize("mean", [0.3, 2.0])
def test_deviates_that_are_looked_up_have_the_same_bits(mean, monkeypatch):
    frames = noise(mean, (6, 512, 512))
    # Beside these, sums of neighbours are no whole numbers.
    frames[:, ::37, ::41] = 30 * mean + 5
    frames[:, 100:140, 100:140] = 0
    counts = SummedCounts.of(frames, per_electron=1.0)
    computed = []

    def counted(pixels, expected):
        computed.append(pixels.size)
        return poisson_deviate(pixels, expected)

    module = "napari_mrcz.correction.outliers.scale"
    monkeypatch.setattr(f"{module}.poisson_deviate", counted)
    codes = poisson_scale(counts).codes
    assert max(computed) < codes.size / 4  # the table, and what is not in it
    monkeypatch.setattr(f"{module}._MOST_ENTRIES", 0)
    assert np.array_equal(poisson_scale(counts).codes, codes)
    assert max(computed) == codes.size


# Equations 1 to 4 ------------------------------------------------------------------------------


@given(st.floats(-50, 500), st.floats(0.5, 40))
def test_eq_1_finds_the_normal_distribution_that_there_is(center, width):
    places = np.linspace(center - 8 * width, center + 8 * width, 200)
    found = fit_normal_cdf(places, stats.norm.cdf(places, center, width), (center, width))
    assert found == pytest.approx((center, width), abs=1e-3 * width)


def test_eq_1_is_not_moved_by_the_tails():
    places = np.linspace(-8, 8, 321)
    cdf = 0.99 * stats.norm.cdf(places)  # One pixel in a hundred is far beyond.
    center, width = fit_normal_cdf(places, cdf, (0.0, 1.0))
    assert center == pytest.approx(0, abs=0.02)
    assert width == pytest.approx(1, abs=0.02)


def test_eqs_2_and_3_have_both_axes_in_standard_deviations():
    """With the √2 that is printed in eq. 3 the residual of perfect noise would be 0.29 sigma."""
    fit = DistributionFit.of(normal_scale(SummedCounts.of(noise(250.0))))
    inside = np.abs(fit.sigma) < 2
    assert np.count_nonzero(inside) > 50
    assert np.abs(fit.residual[inside]).max() < 0.05
    assert fit.center == pytest.approx(1000, abs=1)
    assert fit.width == pytest.approx(1000**0.5, rel=0.02)


def test_the_histogram_has_bins_centred_on_whole_electrons():
    counts = SummedCounts.of(noise(10.0))
    for scale in (normal_scale(counts), poisson_scale(counts)):
        fit = DistributionFit.of(scale)
        assert np.allclose(np.mod(fit.dose, 1), 0.5)
        assert np.allclose(np.diff(fit.dose), 1)
    number = np.bincount(counts.total.reshape(-1))
    fit = DistributionFit.of(normal_scale(counts))
    for electrons in (30, 40, 55):
        (at,) = np.flatnonzero(fit.dose == electrons - 0.5)
        assert fit.histogram[at] == number[electrons]
        assert fit.cdf[at] == pytest.approx((counts.total < electrons).mean(), abs=1e-6)


def test_the_histogram_has_the_mean_and_eight_standard_deviations():
    frames = noise(25.0)
    frames[:, 5, 5:9] = 200  # Beyond 100 + 8 * 10, all together.
    fit = DistributionFit.of(normal_scale(SummedCounts.of(frames)))
    assert fit.n_pixels == frames[0].size - 4
    assert fit.dose[0] == pytest.approx(20, abs=2)
    assert fit.dose[-1] == pytest.approx(180, abs=2)


@pytest.mark.parametrize("scale", [normal_scale, poisson_scale])
def test_defects_are_not_counted(scale):
    frames = noise(25.0)
    defects = np.zeros(frames[0].shape, np.bool_)
    defects[:20] = True
    frames[:, defects] = 0
    fit = DistributionFit.of(scale(SummedCounts.of(frames, defects=defects)))
    assert fit.n_pixels == np.count_nonzero(~defects)
    assert fit.histogram.sum() == pytest.approx(fit.n_pixels, abs=2)


# Equation 5 --------------------------------------------------------------------------------------


def test_eq_5_finds_where_each_tail_begins():
    """A tenth of a percent on each side: the cumulative sum stays at that quantile."""
    sigma = np.linspace(-8, 8, 161)
    cdf = 0.001 + 0.998 * stats.norm.cdf(sigma)
    dark, hot = fit_tails(distribution(sigma, cdf), limit=0.5)
    assert dark.slope == pytest.approx(-1, abs=0.01)  # The plateau less the model's sigma.
    assert hot.slope == pytest.approx(-1, abs=0.01)
    thresholds = intercepts(dark, hot)
    assert thresholds.hot == pytest.approx(-ndtri(0.001), abs=0.02)
    assert thresholds.dark == pytest.approx(ndtri(0.001), abs=0.02)
    assert not thresholds.dark_is_default
    assert not thresholds.hot_is_default


@pytest.mark.parametrize("side", [-1, 1])
def test_eq_5_keeps_its_sides_apart(side):
    sigma = np.linspace(-8, 8, 161)
    cdf = stats.norm.cdf(sigma) * 0.998
    if side < 0:
        cdf += 0.002
    dark, hot = fit_tails(distribution(sigma, cdf), limit=0.5)
    thresholds = intercepts(dark, hot)
    assert thresholds.hot_is_default == (side < 0)
    assert thresholds.dark_is_default == (side > 0)
    assert (thresholds.hot == 3.25) == (side < 0)
    assert (thresholds.dark == -4.0) == (side > 0)


def test_a_few_wild_bins_do_not_turn_the_line():
    sigma = np.linspace(-8, 8, 161)
    cdf = 0.998 * stats.norm.cdf(sigma)
    fit = distribution(sigma, cdf)
    _, straight = fit_tails(fit, limit=0.5)
    cdf = cdf.copy()
    cdf[-4:] = 1 - 1e-9
    _, bent = fit_tails(distribution(sigma, cdf), limit=0.5)
    assert bent.intercept == pytest.approx(straight.intercept, abs=0.05)


# Fewest mistakes ---------------------------------------------------------------------------------


def test_the_fewest_mistakes_are_where_outliers_and_good_pixels_are_as_many():
    sigma = np.linspace(-8, 8, 1601)
    share, n_pixels = 0.004, 10**9
    outliers = stats.uniform(1, 9)  # Evenly spread from 1 to 10 sigma.
    cdf = (1 - share) * stats.norm.cdf(sigma) + share * outliers.cdf(sigma)
    thresholds = fewest_mistakes(distribution(sigma, cdf, n_pixels))
    crossing = sigma[sigma > 2][np.argmin(np.abs(stats.norm.pdf(sigma[sigma > 2]) - share / 9))]
    assert thresholds.hot == pytest.approx(crossing, abs=0.02)
    assert not thresholds.hot_is_default
    assert thresholds.dark_is_default


@pytest.mark.parametrize(("beyond", "threshold"), [(332, 5.0), (345, 3.5)])
def test_a_threshold_that_only_chance_makes_better_is_not_taken(beyond, threshold):
    """Of 32 pixels where 15 were expected 17 would be outliers; so many may be good by chance."""
    sigma = np.array([-8, 0, 3.5, 5, 8])
    n_pixels = 65_536
    above = np.array([n_pixels, n_pixels / 2, beyond, 300, 100])
    found = fewest_mistakes(distribution(sigma, 1 - above / n_pixels, n_pixels))
    assert found.hot == threshold


def test_noise_alone_has_the_default_that_costs_half_a_pixel():
    sigma = np.linspace(-8, 8, 1601)
    thresholds = fewest_mistakes(distribution(sigma, stats.norm.cdf(sigma), 10**7))
    assert thresholds.dark_is_default
    assert thresholds.hot_is_default
    assert 10**7 * stats.norm.sf(thresholds.hot) == pytest.approx(0.5)
    assert thresholds.dark == -thresholds.hot


# Equation 6 --------------------------------------------------------------------------------------


def test_eq_6():
    thresholds = Thresholds(-4.0, 3.0)
    at = np.array([-20, -4 * 0.95, 0, 3 * 0.95, 3 * 0.95 + 0.5, 20])
    kept = weight(at, thresholds, order=6.0, relaxation=0.95)
    beyond = 1 / (1 + np.exp(6 * 0.5))
    assert kept == pytest.approx([0, 0.5, 1, 0.5, beyond, 0], abs=1e-6)


# The Poisson scale -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "error"), [(2.0, 0.08), (5.0, 0.05), (10.0, 0.03), (120.0, 0.01), (3000.0, 0.01)]
)
def test_deviates_are_as_improbable_as_the_counts(mean, error):
    edges = np.arange(1, mean + 8 * mean**0.5)  # At an edge: as many, or more.
    exact = -ndtri(stats.poisson.sf(edges - 1, mean))
    near = (exact > -3) & (exact < 4)
    assert np.count_nonzero(near) > 6
    deviate = poisson_deviate(edges.copy(), np.full(len(edges), mean))
    assert np.abs(deviate - exact)[near].max() < error
    far = (exact > 4) & (exact < 7)
    assert np.all(deviate[far] < exact[far] + 0.01)  # Never taken for less probable than they are.


@pytest.mark.parametrize("mean", [0.01, 1.0, 30.0, 3000.0])
def test_deviates_grow_with_the_count_from_none_on(mean):
    counts = np.arange(0, 2 * mean + 5) + 0.5
    deviate = poisson_deviate(counts, np.full(len(counts), mean))
    assert np.all(np.diff(deviate) >= 0)


@pytest.mark.parametrize("mean", [2.5, 10.0, 100.0])
def test_noise_is_standard_normal_on_the_poisson_scale(mean):
    fit = DistributionFit.of(poisson_scale(SummedCounts.of(noise(mean))))
    assert fit.center == pytest.approx(0, abs=0.02)
    assert fit.width == pytest.approx(1, abs=0.03)
    inside = np.abs(fit.sigma) < 3
    assert np.abs(fit.residual[inside]).max() < 0.12


def test_the_background_follows_the_specimen_no_more_than_noise_allows():
    camera = Camera.ideal((256, 256))
    slopes = []
    for dose in (0.05, 1.0, 50.0):
        movie = simulate_movie(20, camera=camera, dose=dose, dtype=np.uint16, seed=4)
        slopes.append(LocalBackground.of(SummedCounts.of(movie.frames)).slope)
    assert slopes[0] < 0.3 < slopes[1] < slopes[2]
    assert slopes[2] > 0.9
    vacuum = LocalBackground.of(SummedCounts.of(noise(10.0)))
    assert vacuum.slope == pytest.approx(0, abs=0.05)
    assert vacuum.typical == pytest.approx(40, rel=0.01)
    assert vacuum.offset == pytest.approx(40 * (1 - vacuum.slope), rel=0.01)


# The point spread --------------------------------------------------------------------------------


def test_the_point_spread_is_table_1_made_to_sum_to_one():
    assert K2_POINT_SPREAD.sum() == pytest.approx(1)
    assert K2_POINT_SPREAD[2, 2] == 0
    assert np.array_equal(K2_POINT_SPREAD, K2_POINT_SPREAD[::-1])
    assert np.array_equal(K2_POINT_SPREAD, K2_POINT_SPREAD.T)
    printed = 1.336
    assert K2_POINT_SPREAD[2, 3] == pytest.approx(0.173 / printed)
    assert K2_POINT_SPREAD[3, 3] == pytest.approx(0.084 / printed)
    assert K2_POINT_SPREAD[2, 4] == pytest.approx(0.03 / printed)
    assert K2_POINT_SPREAD[3, 4] == pytest.approx(0.02 / printed)
    assert K2_POINT_SPREAD[4, 4] == pytest.approx(0.007 / printed)
