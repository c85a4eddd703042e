"""The outlier filter against simulated cameras with known defects, and other programs' rules."""

import pickle

import numpy as np
import pytest
from scipy.ndimage import binary_opening

from benchmarks.outlier_rules import local_median, motioncor3, relion
from napari_mrcz.correction import OutlierFilter, correlated_noise, rebuild
from napari_mrcz.simulation import CARBON_EDGE, VITREOUS_ICE, Camera, simulate_movie
from napari_mrcz.stack import Stack

SHAPE = (256, 256)
ROWS = [
    (40, 0.25),
    (30, 4.0),
    pytest.param(40, 1.0, marks=pytest.mark.slow),
    pytest.param(100, 1.0, marks=pytest.mark.slow),
]
"""Frames, and electrons per pixel and frame."""


def simulate(
    n_frames=40, dose=1.0, specimen=VITREOUS_ICE, seed=1, dtype=np.uint16, shape=SHAPE, **camera
):
    camera = Camera.ideal(shape, seed=seed, **{"hot": 0.0045, **camera})
    return simulate_movie(
        n_frames, camera=camera, dose=dose, specimen=specimen, dtype=dtype, seed=seed
    )


def f1(mask, truth):
    return 2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth))


def corrected(outliers, frames):
    return np.stack([outliers(frame, index) for index, frame in enumerate(frames)])


@pytest.fixture(scope="module")
def movie():
    return simulate(dark=2e-3, dead=5e-4)


@pytest.fixture(scope="module")
def outliers(movie):
    return OutlierFilter.fit(movie.frames)


# Finding them ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_frames", "dose", "least"),
    [
        (40, 0.25, 0.73),
        (30, 4.0, 0.985),
        pytest.param(40, 1.0, 0.95, marks=pytest.mark.slow),
        pytest.param(100, 1.0, 0.985, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "specimen",
    [pytest.param(None, id="vacuum", marks=pytest.mark.slow), pytest.param(VITREOUS_ICE, id="ice")],
)
def test_no_rule_of_others_finds_them_better(n_frames, dose, least, specimen):
    scores = {"ours": [], "relion": [], "motioncor3": [], "median": []}
    for seed in (3, 4):
        movie = simulate(n_frames, dose, specimen, seed)
        truth, total = movie.defects.outliers, movie.frames.sum(axis=0)
        scores["ours"].append(f1(OutlierFilter.fit(movie.frames).mask != 0, truth))
        scores["relion"].append(f1(relion(total), truth))
        scores["motioncor3"].append(f1(motioncor3(total), truth))
        scores["median"].append(f1(local_median(total), truth))
    mean = {name: np.mean(score) for name, score in scores.items()}
    assert mean["ours"] >= least
    # Where all are nearly perfect, a pixel or two among the 300 decide.
    assert mean["ours"] >= max(mean.values()) - 0.004


def test_the_preprint_s_model_takes_many_good_pixels_where_counts_are_few():
    movie = simulate(40, 1.0, None)
    truth = movie.defects.outliers
    normal = OutlierFilter.fit(movie.frames, model="normal")
    found = normal.mask != 0
    assert np.count_nonzero(found & truth) / np.count_nonzero(truth) > 0.97
    precision = np.count_nonzero(found & truth) / np.count_nonzero(found)
    assert precision == pytest.approx(0.5, abs=0.12)
    # Its thresholds are where the tails' lines reach zero.
    assert normal.hot_tail is not None
    assert normal.thresholds.hot == pytest.approx(normal.hot_tail.intercept)
    assert normal.thresholds.dark == -4.0
    assert normal.thresholds.dark_is_default


def test_dark_and_dead_pixels_are_found_too(movie, outliers):
    stuck = movie.defects.dark | movie.defects.dead
    found = outliers.mask == -1
    assert np.all(found[movie.defects.dead])
    # Half-dark pixels cannot all be told from good ones with forty electrons, and squares of dark
    # pixels that are not dead may be beads.
    clear = stuck & (movie.expected < 0.35 * movie.dose) & ~binary_opening(stuck, np.ones((2, 2)))
    assert np.count_nonzero(found & clear) > 0.85 * np.count_nonzero(clear)


def test_the_expected_false_positives_are_those_that_there_are():
    false, expected = 0, 0.0
    for seed in range(4):
        movie = simulate(20, 1.0, None, seed=seed, hot=0.0)
        fitted = OutlierFilter.fit(movie.frames).with_thresholds(dark=-3.0, hot=3.0)
        false += fitted.n_hot
        expected += fitted.false_hot
    assert expected == pytest.approx(4 * SHAPE[0] * SHAPE[1] * 0.00135, rel=0.01)
    assert false == pytest.approx(expected, abs=4 * expected**0.5)


def test_noise_alone_has_hardly_any_outliers():
    found = [
        OutlierFilter.fit(simulate(20, 1.0, specimen, hot=0.0, seed=seed).frames)
        for specimen in (None, VITREOUS_ICE)
        for seed in range(3)
    ]
    assert sum(f.n_hot + f.n_dark for f in found) <= 12


def test_what_has_many_neighbours_like_it_is_no_outlier():
    """The edge of the beam is sharp, and one half of the image dark."""
    rng = np.random.default_rng(1)
    rate = np.where(np.arange(256) < 100, 0.05, 1.0)
    frames = rng.poisson(np.broadcast_to(rate, (40, 256, 256))).astype(np.uint8)
    frames[:, 20, 150] += 3
    frames[:, 200, 40] += 2
    fitted = OutlierFilter.fit(frames)
    assert fitted.mask[20, 150] == fitted.mask[200, 40] == 1
    # The edge is 256 pixels long.
    assert fitted.n_hot + fitted.n_dark <= 10


def test_a_gain_reference_takes_the_pattern_away():
    camera = Camera(
        SHAPE, cmos=0.05, pixel=0.08, hot=0.0045, hot_excess=(0.45, 1.0), very_hot=0, dark=0,
        gamma=1.0, seed=2,
    )  # fmt: skip
    movie = simulate_movie(40, camera=camera, dose=4.0, specimen=None, dtype=np.uint16, seed=2)
    truth = movie.defects.outliers
    with_gain = OutlierFilter.fit(movie.frames, gain=camera.gain_reference)
    without = OutlierFilter.fit(movie.frames)
    assert f1(with_gain.mask != 0, truth) > 0.95
    assert f1(with_gain.mask != 0, truth) > f1(without.mask != 0, truth) + 0.05
    assert with_gain.sigma < 0.9 * without.sigma
    # Dead pixels are known by their gain of 0, and are no outliers of their own.
    assert with_gain.n_defects == np.count_nonzero(camera.defects.dead)
    assert np.array_equal(with_gain.mask == 2, camera.defects.dead)


def test_super_resolution():
    movie = simulate(40, 1.0, super_resolution=2)
    fitted = OutlierFilter.fit(movie.frames)
    truth = movie.defects.outliers
    assert f1(fitted.mask != 0, truth) > 0.93
    after = correlated_noise(corrected(fitted, movie.frames))
    assert abs(after) < 0.3 * correlated_noise(movie.frames)


# Types of counts ---------------------------------------------------------------------------------


def test_counts_of_many_per_electron_are_the_same_outliers():
    one = simulate(counts_per_electron=1)
    many = simulate(counts_per_electron=16)
    assert np.array_equal(16 * one.frames, many.frames)
    fitted, scaled = OutlierFilter.fit(one.frames), OutlierFilter.fit(many.frames)
    assert scaled.replacement.per_electron == 16
    assert np.array_equal(fitted.mask, scaled.mask)
    assert scaled.mean == pytest.approx(16 * fitted.mean)
    assert scaled.sigma == pytest.approx(16 * fitted.sigma)
    assert np.array_equal(16 * corrected(fitted, one.frames), corrected(scaled, many.frames))


def test_floating_counts_with_the_gain_applied():
    camera = Camera(SHAPE, hot=0.0045, very_hot=0, dark=0, dead=0, gamma=1.0, seed=5)
    movie = simulate_movie(40, camera=camera, dtype=np.uint16, seed=5)
    frames = (movie.frames * camera.gain_reference * 100).astype(np.float32)
    fitted = OutlierFilter.fit(frames)
    assert fitted.replacement.per_electron == pytest.approx(100, rel=0.02)
    assert f1(fitted.mask != 0, movie.defects.outliers) > 0.94
    assert fitted(frames[0], 0).dtype == np.float32
    given = OutlierFilter.fit(frames, counts_per_electron=50.0)
    assert given.replacement.per_electron == 50
    # Twice as many electrons would have less noise than there is.
    assert given.distribution.width == pytest.approx(fitted.distribution.width * 2**0.5, rel=0.05)
    assert given.sigma == pytest.approx(fitted.sigma, rel=0.05)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int64, np.float16, np.float64])
def test_every_type_gives_the_same_pixels(movie, outliers, dtype):
    frames = movie.frames.astype(dtype)
    fitted = OutlierFilter.fit(frames)
    assert np.array_equal(fitted.mask, outliers.mask)
    out = fitted(frames[3], 3)
    assert out.dtype == dtype
    assert np.array_equal(out, outliers(movie.frames[3], 3).astype(dtype))


def test_a_stack_gives_the_same_as_its_array(movie, outliers):
    stack = Stack.from_array(movie.frames)
    fitted = OutlierFilter.fit(stack)
    assert fitted.thresholds == outliers.thresholds
    assert np.array_equal(fitted.mask, outliers.mask)
    applied = stack.apply(fitted)
    assert applied.dtype == movie.frames.dtype
    assert np.array_equal(np.asarray(applied[7]), outliers(movie.frames[7], 7))
    assert applied.history[0]["name"] == "OutlierFilter"
    stack.close()


# Replacing them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_frames", "dose"), ROWS)
def test_no_correlated_noise_is_left_in_vacuum(n_frames, dose):
    movie = simulate(n_frames, dose, None)
    before = correlated_noise(movie.frames)
    n_pixels = SHAPE[0] * SHAPE[1]
    # The correlation of so many pixels of pure noise, averaged over so many pairs.
    chance = (2 / (n_frames * (n_frames - 1) * n_pixels)) ** 0.5
    for fill in ("sample", "expectation"):
        fitted = OutlierFilter.fit(movie.frames, fill=fill)
        assert abs(correlated_noise(corrected(fitted, movie.frames))) < 0.1 * before + 2 * chance


def contrast_kept(movie):
    """Return how much of the specimen's contrast there is after the filter, in the good pixels."""
    fitted = OutlierFilter.fit(movie.frames)
    good = ~movie.defects.outliers
    truth = movie.rate[good] - movie.rate[good].mean()
    before = movie.frames.sum(axis=0)[good]
    after = corrected(fitted, movie.frames).sum(axis=0)[good]
    return (after * truth).sum() / (before * truth).sum()


@pytest.mark.parametrize("specimen", [VITREOUS_ICE, CARBON_EDGE], ids=["ice", "carbon"])
@pytest.mark.parametrize(("n_frames", "dose"), ROWS)
def test_the_specimen_keeps_its_contrast(specimen, n_frames, dose):
    assert contrast_kept(simulate(n_frames, dose, specimen)) == pytest.approx(1, abs=0.01)


def test_ten_times_as_many_outliers_cost_no_contrast_either():
    """Hot pixels do not make the good ones between them look dark."""
    movie = simulate(30, 4.0, hot=0.05, shape=(512, 512))
    assert contrast_kept(movie) == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize("fill", ["sample", "expectation"])
def test_pixels_far_from_the_thresholds_have_the_same_bits(movie, fill):
    fitted = OutlierFilter.fit(movie.frames, fill=fill)
    total = movie.frames.sum(axis=0)
    outlying = np.abs(total - fitted.mean) > 6 * fitted.sigma
    usual = np.abs(total - fitted.mean) < fitted.sigma
    assert np.count_nonzero(usual) > 0.6 * usual.size
    for index in (0, 5):
        changed = fitted(movie.frames[index], index) != movie.frames[index]
        assert np.count_nonzero(changed) < 0.03 * changed.size
        assert not changed[usual].any()
        assert changed[outlying].mean() > 0.5
    loose = OutlierFilter.fit(movie.frames, fill=fill, tolerance=0.2)
    assert len(loose.replacement.pixels) < 0.7 * len(fitted.replacement.pixels)


def test_any_frame_alone_is_as_among_the_others(movie, outliers):
    frames = corrected(outliers, movie.frames)
    again = OutlierFilter.fit(movie.frames)
    for index in (39, 7, 0):
        assert np.array_equal(again(movie.frames[index], index), frames[index])
    assert not np.array_equal(outliers(movie.frames[7], 8), frames[7])
    other = OutlierFilter.fit(movie.frames, seed=1)
    assert np.array_equal(other.mask, outliers.mask)
    assert not np.array_equal(other(movie.frames[7], 7), frames[7])


def test_the_frame_given_is_left_alone(movie, outliers):
    frame = movie.frames[0].copy()
    frame.flags.writeable = False
    out = outliers(frame, 0)
    assert out is not frame
    assert np.array_equal(frame, movie.frames[0])


def test_known_defects_are_replaced_and_tell_nothing(movie):
    defects = np.zeros(SHAPE, np.bool_)
    defects[100:110, 50:60] = True
    defects[0, 0] = True
    frames = movie.frames.copy()
    frames[:, defects] = 1000
    fitted = OutlierFilter.fit(frames, defects=defects)
    assert np.array_equal(fitted.mask == 2, defects)
    assert fitted.n_defects == 101
    out = corrected(fitted, frames)
    # The innermost have no good neighbour within two pixels, and take the nearest ones there are.
    assert out[:, defects].mean() == pytest.approx(1.0, abs=0.1)
    assert out[:, 104:106, 54:56].mean() == pytest.approx(1.0, abs=0.3)
    clean = OutlierFilter.fit(movie.frames)
    assert fitted.mean == pytest.approx(clean.mean, rel=0.01)
    assert abs(fitted.n_hot - clean.n_hot) <= 10


@pytest.mark.parametrize("fill", ["sample", "expectation"])
def test_what_a_stack_keeps_needs_neither_the_sum_nor_a_copy(movie, fill):
    fitted = OutlierFilter.fit(movie.frames, fill=fill)
    settled = fitted.settled()
    assert settled._pixels is settled.distribution is None
    assert np.array_equal(settled.mask, fitted.mask)
    assert settled.describe().keys() == fitted.describe().keys()
    wanted = fitted(movie.frames[3], 3)
    frame = movie.frames[3].astype(wanted.dtype)
    settled.correct_in_place(frame, 3)
    assert frame.tobytes() == wanted.tobytes()
    with Stack.from_array(movie.frames) as stack, stack.apply(fitted) as applied:
        assert np.array_equal(applied[3], wanted)
        assert np.array_equal(np.asarray(applied)[3], wanted)
        assert np.array_equal(stack[3], movie.frames[3])


@pytest.mark.parametrize("model", ["poisson", "normal"])
def test_a_filter_that_is_held_is_small_and_has_the_same_bits(movie, model):
    frames = np.tile(movie.frames[:10].astype(np.uint8), (1, 2, 2))
    frames[:, 300] += 1  # a weak line
    fitted = OutlierFilter.fit(frames, model=model)
    with Stack.from_array(frames) as stack:
        held = OutlierFilter.fit(stack, model=model)
        stack.apply(held)
    sizes = [len(pickle.dumps(f._pixels)) / frames[0].nbytes for f in (fitted, held)]
    assert sizes[1] < sizes[0] - 2.5
    for hot in (0.3, 2.5, np.inf):
        some = [f.with_thresholds(dark=-hot, hot=hot) for f in (fitted, held)]
        assert np.array_equal(*(f.mask for f in some))
        assert np.array_equal(*(f(frames[3], 3) for f in some))
    assert np.array_equal(fitted.sigma_image(), held.sigma_image())


# Thresholds again --------------------------------------------------------------------------------


def test_other_thresholds_without_another_fit(outliers):
    changed = outliers.with_thresholds(dark=-5.0, hot=6.0)
    assert changed.distribution is outliers.distribution
    assert changed.thresholds == (-5.0, 6.0, False, False, True, True)
    assert np.count_nonzero(changed.mask == 1) == changed.n_hot < outliers.n_hot
    assert np.count_nonzero(changed.mask == -1) == changed.n_dark <= outliers.n_dark
    back = changed.with_thresholds(outliers.thresholds.dark, outliers.thresholds.hot)
    assert np.array_equal(back.mask, outliers.mask)
    assert (back.n_hot, back.n_dark) == (outliers.n_hot, outliers.n_dark)
    frame = np.ones(SHAPE, np.uint16)
    assert np.array_equal(back(frame, 2), outliers(frame, 2))


@pytest.mark.parametrize("model", ["poisson", "normal"])
def test_counts_agree_with_the_mask_for_any_threshold(movie, model):
    fitted = OutlierFilter.fit(movie.frames, model=model)
    assert np.count_nonzero(fitted.mask == 1) == fitted.n_hot
    for hot in (0.5, 2.0, 2.71, 3.9, 12.0, 1e9, np.inf):
        changed = fitted.with_thresholds(dark=-hot, hot=hot)
        assert np.count_nonzero(changed.mask == 1) == changed.n_hot
        assert np.count_nonzero(changed.mask == -1) == changed.n_dark
    assert changed.n_hot == changed.n_dark == 0


@pytest.mark.parametrize("model", ["poisson", "normal"])
def test_the_sigma_image_is_what_the_thresholds_divide(movie, model):
    defects = np.zeros(movie.frames.shape[1:], np.bool_)
    defects[3, 4] = True
    fitted = OutlierFilter.fit(movie.frames, model=model, defects=defects)
    sigma = fitted.sigma_image()
    assert sigma.shape == defects.shape
    assert np.isnan(sigma[3, 4]) and np.isfinite(sigma[~defects]).all()
    np.testing.assert_array_equal(fitted.mask == 1, sigma > fitted.thresholds.hot)
    np.testing.assert_array_equal(fitted.mask == -1, sigma < fitted.thresholds.dark)


def test_other_weights_and_fill_without_another_fit(movie, outliers):
    changed = outliers.with_options(order=9.0, relaxation=0.5, fill="expectation")
    assert changed.thresholds == outliers.thresholds
    assert changed.weight(0.5 * changed.thresholds.hot) == pytest.approx(0.5, abs=1e-3)
    fitted = OutlierFilter.fit(movie.frames, order=9.0, relaxation=0.5, fill="expectation")
    np.testing.assert_array_equal(changed(movie.frames[2], 2), fitted(movie.frames[2], 2))
    with pytest.raises(ValueError, match="needs another fit"):
        outliers.with_options(model="normal")
    with pytest.raises(ValueError, match="fill"):
        outliers.with_options(fill="zero")


def test_a_given_threshold_is_no_default(outliers):
    assert outliers.with_thresholds(hot=5.0).thresholds.dark == outliers.thresholds.dark
    assert not outliers.with_thresholds(hot=5.0).thresholds.hot_is_default
    for dark, hot in ((1.0, 1.0), (3.0, -3.0), (np.nan, 3.0)):
        with pytest.raises(ValueError, match="must lie below"):
            outliers.with_thresholds(dark, hot)


# For plots, for files ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["poisson", "normal"])
def test_a_plot_has_all_that_it_needs(movie, model):
    fitted = OutlierFilter.fit(movie.frames, model=model)
    fit = fitted.distribution
    assert fit.histogram.shape == fit.expected.shape == (len(fit.dose) - 1,)
    for curve in (fit.cdf, fit.model_cdf, fit.sigma, fit.sigma_of_histogram, fit.residual):
        assert curve.shape == fit.dose.shape
    assert np.all(np.diff(fit.dose) > 0)
    assert np.all(np.diff(fit.sigma) > 0)
    near = np.abs(fit.sigma[1:]) < 2
    assert fit.expected[near] == pytest.approx(fit.histogram[near], rel=0.15, abs=60)
    assert fitted.weight(0.0) == pytest.approx(1)
    assert fitted.weight(fitted.thresholds.hot * 0.95) == pytest.approx(0.5, abs=0.01)
    assert fitted.hot_tail.slope < 0


@pytest.mark.parametrize("fill", ["sample", "expectation"])
def test_a_description_is_enough_to_do_it_again(movie, fill):
    fitted = OutlierFilter.fit(movie.frames, fill=fill, seed=3, order=5.0)
    again = rebuild(fitted.describe())
    for index in (0, 31):
        one, other = fitted(movie.frames[index], index), again(movie.frames[index], index)
        assert one.dtype == other.dtype == fitted.output_dtype(movie.frames.dtype)
        assert one.tobytes() == other.tobytes()
    assert np.array_equal(again.mask, fitted.mask)
    assert again.thresholds == fitted.thresholds
    assert again.options == fitted.options
    assert (again.n_hot, again.n_dark, again.sigma) == (fitted.n_hot, fitted.n_dark, fitted.sigma)
    assert again.distribution is None
    with pytest.raises(ValueError, match="fit it again"):
        again.with_thresholds(hot=4.0)


def test_a_description_is_small(outliers):
    arrays = [v for v in outliers.describe()["replacement"].values() if isinstance(v, np.ndarray)]
    assert sum(a.nbytes for a in arrays) <= 11 * len(outliers.replacement.pixels)


def test_damaged_descriptions_are_refused(outliers):
    description = outliers.describe()
    for part, value in (("weights", np.zeros(3, np.uint16)), ("fill", "glue"), ("shape", [4, 4])):
        damaged = {**description, "replacement": {**description["replacement"], part: value}}
        with pytest.raises(ValueError, match="do not fit together"):
            rebuild(damaged)


def test_it_can_be_pickled(movie, outliers):
    copy = pickle.loads(pickle.dumps(outliers))
    assert np.array_equal(copy(movie.frames[1], 1), outliers(movie.frames[1], 1))
    assert copy.with_thresholds(hot=9.0).n_hot == outliers.with_thresholds(hot=9.0).n_hot
