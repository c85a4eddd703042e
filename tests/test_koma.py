"""KOMA: what it averages, what it leaves out, and what noise it leaves in simulated sessions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_mrcz.correction import KomaNormalization
from napari_mrcz.correction.koma import (
    KomaOptions,
    contrast_scores,
    noise_by_radius,
    normalisation,
    thumbnail,
)
from napari_mrcz.correction.rolling import RollingAverage
from napari_mrcz.simulation import (
    CARBON_EDGE,
    CRYSTALLINE_ICE,
    VITREOUS_ICE,
    Camera,
    Specimen,
    simulate_session,
)

N_STACKS, N_FRAMES = 60, 40


def single(means):
    """Return what a rolling average asks for, of stacks of one frame each."""
    return lambda index: (means[index], 1)


def neighbours_by_the_book(index, members, radius):
    """Return the 2 x radius others around a stack, shifted where the session ends."""
    others = [j for j in members if j != index]
    before = sum(j < index for j in others)
    start = min(max(before - radius, 0), max(len(others) - 2 * radius, 0))
    return others[start : start + 2 * radius]


@given(st.data())
def test_rolling_equals_direct_for_every_stack_radius_and_exclusion(data):
    n = data.draw(st.integers(1, 12))
    radius = data.draw(st.integers(1, 7))
    members = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    order = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    means = rng.random((n, 2, 3)) * 10.0 ** rng.integers(-3, 4, (n, 1, 1))
    rolling = RollingAverage(single(means), members, radius)
    for index in order:
        expected = neighbours_by_the_book(index, members, radius)
        assert rolling.neighbours(index) == expected
        if expected:
            direct = means[expected].mean(axis=0)
            # Means are rounded by no more than 1/2^26 of their own average pixel.
            np.testing.assert_allclose(rolling.at(index), direct, 0, 2**-26 * means.max())
            anew = RollingAverage(single(means), members, radius)
            np.testing.assert_array_equal(rolling.at(index), anew.at(index), strict=True)
        else:
            with pytest.raises(ValueError, match="one stack alone"):
                rolling.at(index)


def test_a_step_costs_the_same_whatever_the_radius():
    calls = []

    def sum_of(index):
        calls.append(index)
        return np.zeros((1, 1)), 1

    per_step = []
    for radius in (4, 25):
        rolling = RollingAverage(sum_of, range(100), radius)
        rolling.at(40)
        calls.clear()
        for index in range(41, 61):
            rolling.at(index)
        per_step.append(len(calls) / 20)
    # One stack enters, one leaves, the one in question is knocked out.
    assert per_step == [3, 3]


def test_a_pixel_without_a_number_spoils_no_later_average():
    means = np.random.default_rng(3).random((30, 4, 4))
    means[10, 1, 2], means[12, 0, 0] = np.nan, np.inf
    rolling = RollingAverage(single(means), range(30), 3)
    for index in range(30):
        anew = RollingAverage(single(means), range(30), 3).at(index)
        np.testing.assert_array_equal(rolling.at(index), anew)
        near = neighbours_by_the_book(index, range(30), 3)
        assert np.isfinite(anew).all() == (10 not in near and 12 not in near)


def test_a_stack_that_cannot_be_read_leaves_no_half_step_behind():
    means, gone = np.random.default_rng(4).random((20, 4, 4)), {13}

    def sum_of(index):
        if index in gone:
            raise OSError("gone")
        return means[index], 1

    rolling = RollingAverage(sum_of, range(20), 3)
    rolling.at(9)
    with pytest.raises(OSError, match="gone"):
        rolling.at(10)
    gone.clear()
    anew = RollingAverage(sum_of, range(20), 3)
    np.testing.assert_array_equal(rolling.at(10), anew.at(10))


@pytest.mark.parametrize("radius", [0, -1])
def test_no_radius_is_refused(radius):
    with pytest.raises(ValueError, match="at least 1"):
        RollingAverage(single(np.zeros((2, 1, 1))), [0, 1], radius)


def test_the_average_is_subtracted_and_its_mean_added_back():
    average = np.array([[1.0, 3.0]])
    normalise = KomaNormalization(average, 2.0)
    frame = np.array([[7, 7]], np.uint8)
    assert normalise(frame, 0).tolist() == [[8.0, 6.0]]
    assert normalise(frame, 0).dtype == np.float32 == normalise.output_dtype(np.uint8)
    assert KomaNormalization(average, 0.0)(frame).tolist() == [[6.0, 4.0]]
    with pytest.raises(ValueError, match=r"frame of \(1, 3\)"):
        normalise(np.ones((1, 3)))
    with pytest.raises(ValueError, match="two axes"):
        KomaNormalization(np.ones(3), 0.0)


def test_pixels_that_are_not_finite_are_warned_of():
    average = np.random.default_rng(0).normal(5, 0.1, (32, 32)).astype(np.float32)
    average[3, 4] = np.inf
    total = 10 * average
    made = normalisation(average, total, 10, 1e3, KomaOptions(even_if_worse=True))
    assert any("become NaN: 1." in warning for warning in made.warnings)
    assert np.argwhere(np.isnan(made(average))).tolist() == [[3, 4]]  # and no RuntimeWarning


def test_thumbnails_are_means_of_cells():
    image = np.arange(40 * 33.0).reshape(40, 33)
    small = thumbnail(image)
    assert small.shape == (16, 16)
    assert small[0, 0] == image[:2, :2].mean()
    assert small[-1, -1] == image[37:, 30:].mean()
    np.testing.assert_array_equal(thumbnail(image[:3, :5]), image[:3, :5])


def mean_pearson(frames):
    """Return the mean of R over all pairs of frames, pair by pair."""
    r = np.corrcoef(frames.reshape(len(frames), -1))
    return (r.sum() - len(frames)) / (len(frames) * (len(frames) - 1))


def good_frames(movie, rng):
    """Draw a movie's frames, its outliers filled from what a good pixel would count."""
    frames = movie.frames.astype(np.float32)
    outliers = movie.defects.outliers
    frames[:, outliers] = rng.poisson(movie.rate[outliers], (len(frames), outliers.sum()))
    return frames


@pytest.fixture(scope="module")
def vacuum():
    """Return sums, summed variances and a few stacks of a session without a specimen."""
    session = simulate_session(N_STACKS, N_FRAMES, (96, 96), specimen=None, seed=3)
    rng = np.random.default_rng(3)
    sums, variances, some = [], [], {}
    for index, movie in enumerate(session.iter_movies()):
        frames = good_frames(movie, rng)
        sums.append(frames.sum(axis=0, dtype=np.float64))
        variances.append(frames.var(axis=(1, 2), dtype=np.float64).sum())
        if index in (0, 7, 31, 59):
            some[index] = frames
    return np.array(sums), np.array(variances), some


def curves_of(sums, variances, radii):
    covariances = np.cov(sums.reshape(len(sums), -1), bias=True)
    n_frames = np.full(len(sums), N_FRAMES)
    return noise_by_radius(covariances, variances, n_frames, radii)


def test_noise_falls_to_the_limit(vacuum):
    sums, variances, _ = vacuum
    radii = [1, 2, 4, 8, 12, 25]
    curve = curves_of(sums, variances, radii).mean(axis=1)
    limit = 1 / (2 * np.array(radii) * N_FRAMES)
    assert (curve < 1.3 * limit).all()
    assert (curve > 0.9 * limit).all()
    exponent = np.polyfit(np.log(radii), np.log(curve), 1)[0]
    assert exponent == pytest.approx(-1, abs=0.15)


def test_stacks_of_one_frame_or_without_variance_have_no_noise(vacuum):
    sums, variances, _ = vacuum
    covariances = np.cov(sums[:4].reshape(4, -1), bias=True)
    n_frames = np.array([N_FRAMES, 1, N_FRAMES, N_FRAMES])
    variances = np.where([True, True, False, True], variances[:4], 0)
    found = noise_by_radius(covariances, variances, n_frames, [0, 1])
    assert np.isnan(found).tolist() == [[False, True, True, False]] * 2


def test_the_curve_is_what_the_normalised_frames_show(vacuum):
    sums, variances, some = vacuum
    curves = curves_of(sums, variances, [0, 4, 12])
    for row, radius in enumerate([None, 4, 12]):
        for index, frames in some.items():
            normalised = frames
            if radius:
                rolling = RollingAverage(lambda j: (sums[j], N_FRAMES), range(N_STACKS), radius)
                koma = KomaNormalization(rolling.at(index), 1.0)
                normalised = np.stack([koma(frame) for frame in frames])
            assert mean_pearson(normalised) == pytest.approx(curves[row, index], abs=1e-5)


def test_no_ghost_of_the_specimen_is_subtracted():
    session = simulate_session(
        N_STACKS, 10, camera=Camera.ideal((256, 256)), dose=4.0, hot=(0, 0), seed=4
    )
    rates = np.array([movie.rate for movie in session.iter_movies()], np.float32)
    specimens = rates.reshape(N_STACKS, -1)
    specimens = specimens - specimens.mean(axis=1, keepdims=True)
    specimens /= specimens.std(axis=1, keepdims=True)
    rng = np.random.default_rng(4)
    means = [rng.poisson(rate * 10) / 10 for rate in rates]

    def correlations(average):
        """Correlate an average with the specimen of every stack."""
        standardised = (average - average.mean()).ravel() / average.std()
        return specimens @ standardised / standardised.size

    for radius in (4, 25):
        rolling = RollingAverage(single(means), range(N_STACKS), radius)
        ghosts, not_knocked_out = [], []
        for index in range(0, N_STACKS, 2):
            average = rolling.at(index)
            whole = (average * 2 * radius + means[index]) / (2 * radius + 1)
            # Particles on a grid are somewhat alike in all stacks: with stacks that are not in
            # the average, the correlation has to be the same.
            others = [j for j in range(N_STACKS) if j not in (index, *rolling.neighbours(index))]
            for image, found in ((average, ghosts), (whole, not_knocked_out)):
                r = correlations(image)
                found.append(r[index] - r[others].mean())
        assert abs(np.mean(ghosts)) < 0.01
        assert np.mean(not_knocked_out) > 0.03


def session_of_sums(seed, exceptions):
    """Return the thumbnails of a session of 60 stacks, drawn as sums of 40 frames."""
    session = simulate_session(N_STACKS, 1, (256, 256), exceptions=exceptions, seed=seed)
    rng = np.random.default_rng(seed)
    return [thumbnail(rng.poisson(N_FRAMES * movie.expected)) for movie in session.iter_movies()]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))]
)
def test_high_contrast_is_found_without_a_false_alarm(seed):
    rng = np.random.default_rng(seed)
    bad = rng.choice(N_STACKS, rng.integers(0, 7), replace=False).tolist()
    kinds = (CARBON_EDGE, CRYSTALLINE_ICE)
    exceptions = {index: kinds[k % 2] for k, index in enumerate(bad)}
    vacuum = next(index for index in range(N_STACKS) if index not in bad)
    _, scores = contrast_scores(session_of_sums(seed, {**exceptions, vacuum: None}))
    assert np.flatnonzero(scores > 5).tolist() == sorted(bad)


def test_contrast_of_what_has_none_is_defined():
    rng = np.random.default_rng(0)
    assert not contrast_scores([np.zeros((4, 4))] * 3)[1].any()
    assert not contrast_scores([np.full((4, 4), np.nan)] * 3)[1].any()
    # Nothing but noise about 0, one of them louder; one cell is not a number in some.
    noise = rng.standard_normal((9, 16, 16))
    noise[5] *= 4
    noise[2:4, 3, 3] = np.nan
    contrasts, scores = contrast_scores(list(noise))
    assert contrasts[5] == pytest.approx(4, rel=0.2)
    assert np.flatnonzero(scores > 5).tolist() == [5]


def test_contrast_is_that_of_the_specimen_not_of_the_camera():
    seed = 9
    exceptions = {3: Specimen(carbon=0.3), 8: VITREOUS_ICE}
    contrasts, scores = contrast_scores(session_of_sums(seed, exceptions))
    # A third of the field behind a film that takes 30 %: sqrt(1/3 * 2/3) * 0.3 of the mean.
    assert contrasts[3] == pytest.approx(0.15, abs=0.05)
    assert scores[3] > 8
    assert np.median(contrasts) < 0.04
