"""Counts cut off at zero: their distribution is found again, and its lower part comes back."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

import napari_mrcz as nm
from napari_mrcz.correction import Pedestal, ShiftedLognormal, rebuild
from napari_mrcz.correction.noise import CountedAlready
from napari_mrcz.correction.regions import annuli, find_center
from napari_mrcz.simulation import simulate_microed


def counts_of(distribution, shape, seed):
    """Draw whole counts, negative ones too."""
    normal = np.random.default_rng(seed).standard_normal(shape)
    values = distribution.shift + np.exp(distribution.mu + distribution.sigma * normal)
    return np.floor(values + 0.5).astype(np.int32)


WIDE = ShiftedLognormal(2.5, 0.5, -8.0)
NARROW = ShiftedLognormal(1.2, 0.6, -2.0)
LONG_TAILED = ShiftedLognormal(4.5, 0.6, -40.0)
# Tens of thousands of values, each of which hardly any pixel has.
OF_16_BITS = ShiftedLognormal(9.1, 0.35, -3000.0)


@pytest.mark.parametrize("truth", [WIDE, NARROW, LONG_TAILED, OF_16_BITS])
def test_the_parameters_come_back_within_5_percent(truth):
    counts = counts_of(truth, (1, 600, 600), seed=1)
    model = nm.TruncationModel.fit(counts.clip(0).astype(np.uint16), n_annuli=1)
    found = model.distribution(0, 1)
    assert found.mu == pytest.approx(truth.mu, rel=0.05)
    assert found.sigma == pytest.approx(truth.sigma, rel=0.05)
    assert found.shift == pytest.approx(truth.shift, rel=0.05)
    assert found.mean == pytest.approx(truth.mean, abs=0.01 * truth.sd)
    assert found.sd == pytest.approx(truth.sd, rel=0.01)


@pytest.mark.parametrize("truth", [WIDE, NARROW])
def test_the_histogram_below_zero_passes_a_chi_squared_test(truth):
    # The fit to a histogram errs by as much as that histogram: to more pixels than are compared.
    counts = counts_of(truth, (1, 1000, 1000), seed=2).clip(0).astype(np.uint16)
    model = nm.TruncationModel.fit(counts, n_annuli=1)
    corrected = model(counts[0], 0)[::30]
    values = np.arange(np.floor(truth.quantile(1e-3)), 1)
    edges = np.concatenate([[-np.inf], values[:-1] + 0.5, [0.5]])
    observed = np.histogram(corrected[corrected <= 0], edges)[0]
    expected = np.diff(truth.cdf(edges))
    scaled = expected * observed.sum() / expected.sum()
    assert len(values) >= 3
    assert chisquare(observed, scaled).pvalue > 0.001
    # A test that anything passes shows nothing.
    assert chisquare(np.roll(observed, 1), scaled).pvalue < 1e-6


def test_fitting_a_normal_distribution_ends_and_describes_it():
    counts = np.rint(np.random.default_rng(0).normal(8, 6, 100_000)).clip(0).astype(int)
    found = ShiftedLognormal.fit(np.bincount(counts))
    assert found.mean == pytest.approx(8, abs=0.1)
    assert found.sd == pytest.approx(6, rel=0.02)
    assert found.cdf(0.5) == pytest.approx((counts == 0).mean(), abs=0.003)


def test_bragg_spots_do_not_widen_the_background():
    counts = counts_of(WIDE, 200_000, seed=3).clip(0)
    spots = counts.copy()
    spots[:2000] += np.random.default_rng(0).exponential(2000, 2000).astype(int)
    found = ShiftedLognormal.fit(np.bincount(spots))
    assert found.sd == pytest.approx(WIDE.sd, rel=0.02)
    assert found.shift == pytest.approx(WIDE.shift, rel=0.05)


def test_quantiles_are_where_the_distribution_has_them():
    np.testing.assert_allclose(WIDE.cdf(WIDE.quantile([0.01, 0.5, 0.9])), [0.01, 0.5, 0.9])


def test_every_frame_is_fitted_by_itself():
    truths = [ShiftedLognormal(2.5, 0.5, -8.0), ShiftedLognormal(3.5, 0.4, -20.0)]
    movie = np.stack([counts_of(t, (300, 300), seed) for seed, t in enumerate(truths)])
    model = nm.TruncationModel.fit(movie.clip(0), center=(149.5, 149.5), n_annuli=2)
    for index, truth in enumerate(truths):
        for region in (1, 2):
            assert model.distribution(index, region).sd == pytest.approx(truth.sd, rel=0.03)


def test_a_sweep_gets_its_negative_counts_back():
    sweep = simulate_microed(3, (384, 384), seed=4)
    movie = nm.Stack.from_array(sweep.frames)
    model = nm.TruncationModel.fit(movie, mask=sweep.beam_stop)
    corrected = np.asarray(movie.apply(model))
    seen = ~sweep.beam_stop
    true, cut = sweep.true_counts[:, seen], sweep.frames[:, seen]
    for statistic in (np.mean, np.std):
        off = abs(statistic(cut) - statistic(true))
        assert abs(statistic(corrected[:, seen]) - statistic(true)) < 0.1 * off
    assert (corrected[:, seen] < 0).mean() == pytest.approx((true < 0).mean(), rel=0.02)


@given(
    frames=st.sampled_from(["uint8", "uint16", "int8", "int16", "int32"]).flatmap(
        lambda dtype: arrays.arrays(
            dtype,
            arrays.array_shapes(min_dims=3, max_dims=3, max_side=12),
            elements=st.integers(0, 6) | st.integers(0, min(np.iinfo(dtype).max, 65535)),
        )
    ),
    n_annuli=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_what_never_happens(frames, n_annuli, seed):
    """Counts above 0 change, values rise, a type overflows; not even in nonsense."""
    model = nm.TruncationModel.fit(frames, n_annuli=n_annuli, seed=seed)
    for index, frame in enumerate(frames):
        corrected = model(frame, index)
        assert corrected.dtype == model.output_dtype(frame.dtype)
        assert corrected.dtype.kind == "i"
        np.testing.assert_array_equal(corrected[frame > 0], frame[frame > 0])
        assert (corrected <= frame).all()
        assert corrected.min() >= model.smallest
        assert corrected.max() <= model.largest
        raised = Pedestal(model.offset)(corrected, index)
        assert raised.dtype == np.uint16
    least = min(int(model(frame, index).min()) for index, frame in enumerate(frames))
    assert model.offset == max(0, -least)


def test_a_movie_without_zeros_comes_back_the_same():
    frames = np.random.default_rng(0).poisson(50, (3, 64, 64)).astype(np.uint16) + 1
    model = nm.TruncationModel.fit(frames, n_annuli=2)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(model(frame, index), frame)
    assert model.offset == model.n_unfitted == 0


def test_a_movie_of_zeros_comes_back_the_same_and_it_is_told():
    frames = np.zeros((2, 32, 32), np.uint16)
    model = nm.TruncationModel.fit(frames, n_annuli=3)
    np.testing.assert_array_equal(model(frames[1], 1), frames[1])
    assert model.n_unfitted == 2 * model.n_regions
    assert model.distribution(0, 1) is None


def test_a_tiny_pattern_has_fewer_annuli_than_were_asked_for():
    model = nm.TruncationModel.fit(np.zeros((1, 2, 2), np.uint8), n_annuli=10)
    assert 1 <= model.n_regions <= 4
    assert model.output_dtype(np.uint8) == np.int8


def test_masked_pixels_stay_zero_and_masked_annuli_are_none():
    truth = counts_of(WIDE, (1, 200, 200), seed=5).clip(0).astype(np.uint16)
    inner = np.hypot(*np.indices((200, 200)) - 99.5) < 60
    truth[:, inner] = 0
    model = nm.TruncationModel.fit(truth, center=(99.5, 99.5), mask=inner)
    assert not model.labels[inner].any()
    corrected = model(truth[0], 0)
    assert (corrected[inner] == 0).all()
    assert corrected.min() < -3
    numbers = np.bincount(model.labels.ravel())[1:]
    assert numbers.max() < 1.1 * numbers.min()
    nothing = nm.TruncationModel.fit(truth, mask=np.ones((200, 200), bool))
    np.testing.assert_array_equal(nothing(truth[0], 0), truth[0])


def test_any_label_image_can_be_the_regions():
    left, right = counts_of(WIDE, (200, 100), 6), counts_of(LONG_TAILED, (200, 100), 7)
    labels = np.repeat([[3, 7]], 100, axis=1).repeat(200, axis=0)
    model = nm.TruncationModel.fit(np.hstack([left, right]).clip(0), regions=labels)
    assert model.n_regions == 2
    assert model.center is None
    assert model.distribution(0, 1).sd == pytest.approx(WIDE.sd, rel=0.03)
    assert model.distribution(0, 2).sd == pytest.approx(LONG_TAILED.sd, rel=0.03)
    with pytest.raises(ValueError, match="no radius"):
        _ = model.radii


def test_it_is_replayed_from_a_file_bit_for_bit(tmp_path):
    sweep = simulate_microed(3, (128, 128), seed=8)
    raw = nm.Stack.from_array(sweep.frames)
    model = nm.TruncationModel.fit(raw, mask=sweep.beam_stop, seed=5)
    done = raw.apply(model).apply(Pedestal(model.offset + 2))
    nm.write(tmp_path / "done.mrcz", done)
    with nm.open(tmp_path / "done.mrcz") as saved:
        np.testing.assert_array_equal(nm.replay(saved.history, raw), done)
        again = rebuild(saved.history[0])
        assert again.center == model.center
        assert again.offset == model.offset
    np.testing.assert_array_equal(again(sweep.frames[2], 2), model(sweep.frames[2], 2))


def test_seeds_and_frames_have_draws_of_their_own():
    frame = counts_of(WIDE, (64, 64), seed=9).clip(0).astype(np.uint16)
    movie = np.stack([frame, frame])
    one = nm.TruncationModel.fit(movie, n_annuli=1)
    other = nm.TruncationModel.fit(movie, n_annuli=1, seed=1)
    assert not np.array_equal(one(frame, 0), one(frame, 1))
    assert not np.array_equal(one(frame, 0), other(frame, 0))
    np.testing.assert_array_equal(one(frame, 0), one(frame, 0))


@pytest.mark.parametrize(
    ("frames", "options", "said"),
    [
        (np.full((1, 4, 4), -1, np.int16), {}, "negative counts: none were cut off"),
        (np.full((1, 4, 4), 0.5, np.float32), {}, "other values than whole counts"),
        (np.full((1, 4, 4), np.nan, np.float32), {}, "other values than whole counts"),
        (np.full((1, 4, 4), np.inf, np.float32), {}, "other values than whole counts"),
        (np.zeros((1, 4, 4), complex), {}, "counts are numbers, not complex"),
        (np.zeros((0, 4, 4), np.uint16), {}, r"where \(n, y, x\) is expected"),
        (np.zeros((1, 4, 4), np.uint16), {"mask": np.zeros((4, 5))}, "does not fit frames"),
        (np.zeros((1, 4, 4), np.uint16), {"n_annuli": 0}, "one annulus or more"),
        (np.zeros((1, 4, 4), np.uint16), {"center": (np.nan, 0)}, "the centre is"),
        (np.zeros((1, 4, 4), np.uint16), {"regions": np.zeros((4, 4))}, "whole numbers"),
    ],
)
def test_what_cannot_be_fitted_is_refused(frames, options, said):
    with pytest.raises(ValueError, match=said):
        nm.TruncationModel.fit(frames, **options)


def test_frames_that_were_not_fitted_are_refused():
    frame = np.zeros((4, 4), np.uint16)
    model = nm.TruncationModel.fit(frame)
    with pytest.raises(ValueError, match="not one of the 1"):
        model(frame, 1)
    with pytest.raises(ValueError, match="more counts than any"):
        model(frame + 60_000, 0)


def test_floats_of_whole_counts_stay_floats():
    counts = counts_of(WIDE, (100, 100), 1).clip(0).astype(np.float32)
    model = nm.TruncationModel.fit(counts, n_annuli=1)
    corrected = model(counts, 0)
    assert corrected.dtype == np.float32
    np.testing.assert_array_equal(corrected, np.rint(corrected))
    assert corrected.min() == model.smallest < 0


def test_an_offset_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="the offset is 2"):
        Pedestal(2)(np.array([[-3, 0]], np.int16), 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_beam_is_found_behind_its_stop(seed):
    sweep = simulate_microed(2, (320, 288), seed=seed)
    found = find_center(sweep.frames.sum(axis=0))
    assert np.hypot(*np.subtract(found, sweep.center)) < 3
    masked = find_center(sweep.frames.sum(axis=0), sweep.beam_stop)
    assert np.hypot(*np.subtract(masked, sweep.center)) < 3


def test_a_flat_image_has_its_beam_in_the_middle():
    assert find_center(np.ones((40, 60))) == (19.5, 29.5)


def test_annuli_are_concentric_and_of_equal_area():
    labels = annuli((120, 160), (50.0, 70.0), 8)
    numbers = np.bincount(labels.ravel(), minlength=9)
    assert numbers[0] == 0
    assert numbers[1:].max() < 1.02 * numbers[1:].min()
    distance = np.hypot(*np.indices(labels.shape) - np.array([50.0, 70.0])[:, None, None])
    for inner in range(1, 8):
        assert distance[labels == inner].max() < distance[labels == inner + 1].min()


def test_the_simulation_says_what_it_drew():
    sweep = simulate_microed(2, (256, 256), spots_per_frame=0, n_shells=4, seed=2)
    again = simulate_microed(2, (256, 256), spots_per_frame=0, n_shells=4, seed=2)
    np.testing.assert_array_equal(sweep.true_counts, again.true_counts)
    for index in range(2):
        for shell in range(1, 5):
            truth = ShiftedLognormal(*sweep.parameters[index, shell - 1])
            here = sweep.true_counts[index][sweep.shells == shell]
            assert here.mean() == pytest.approx(truth.mean, abs=0.05 * truth.sd)
            assert here.std() == pytest.approx(truth.sd, rel=0.05)
    spotted = simulate_microed(1, (256, 256), spots_per_frame=60, seed=2)
    bare = simulate_microed(1, (256, 256), spots_per_frame=0, seed=2)
    added = spotted.true_counts.sum() - bare.true_counts.sum()
    assert added == pytest.approx(spotted.spots.intensity.sum(), rel=0.03)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e37])
def test_values_that_are_no_counts_are_named_by_their_frame(bad):
    frames = np.random.default_rng(1).poisson(3, (4, 48, 48)).astype(np.float32)
    frames[2, 5, 6] = bad
    with pytest.raises(ValueError, match="frame 2 has other values than whole counts"):
        nm.TruncationModel.fit(frames)


@pytest.mark.parametrize("dose", [0.02, 0.5, 5.0])
def test_counted_electrons_are_refused_unless_that_is_forced(dose):
    rng = np.random.default_rng(3)
    distance = np.hypot(*np.indices((128, 128)) - 64.0)
    counts = rng.poisson(dose * (0.3 + 3 * np.exp(-distance / 25)), (4, 128, 128)).astype(np.uint8)
    with pytest.raises(CountedAlready, match="zeros are real"):
        nm.TruncationModel.fit(counts)
    model = nm.TruncationModel.fit(counts, force=True)
    assert "counted electrons" in model.warnings[0]
    assert rebuild(model.describe()).warnings == model.warnings


@pytest.mark.parametrize(("mean", "sd"), [(0, 3), (1, 2.6), (4, 2), (8, 3), (-2, 4)])
def test_noise_that_was_cut_off_is_not_taken_for_electrons(mean, sd):
    values = np.random.default_rng(4).normal(mean, sd, (1, 128, 128))
    model = nm.TruncationModel.fit(np.rint(values).clip(0).astype(np.uint16), n_annuli=2)
    assert not any("electrons" in said for said in model.warnings)


@pytest.mark.parametrize("n_frames", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_gaps_between_modules_are_masked_and_said(n_frames):
    sweep = simulate_microed(n_frames, (160, 192), gaps=True, seed=2)
    model = nm.TruncationModel.fit(sweep.frames)
    gaps = np.zeros((160, 192), bool)
    for axis, size in enumerate(gaps.shape):
        for at in (size // 3, 2 * size // 3):
            np.moveaxis(gaps, axis, 0)[at : at + 6] = True
    np.testing.assert_array_equal(model.labels == 0, gaps)
    assert f"{gaps.sum()} pixels" in model.warnings[0]
    assert not model(sweep.frames[0], 0)[gaps].any()
    whole = nm.TruncationModel.fit(simulate_microed(n_frames, (160, 192), seed=2).frames)
    assert whole.labels.all()
    assert whole.warnings == ()


@pytest.mark.parametrize(("shift", "is_said"), [(-8.0, False), (-22.0, True)])
def test_fits_to_few_counts_above_zero_are_said_to_be_uncertain(shift, is_said):
    """Nine tenths of the pixels are 0: the mean comes back with an error of 0.1 sd and more."""
    counts = counts_of(ShiftedLognormal(2.5, 0.5, shift), (1, 80, 80), seed=5)
    model = nm.TruncationModel.fit(counts.clip(0), n_annuli=1)
    assert ("few counts above 0" in " ".join(model.warnings)) == is_said


def test_what_is_unusual_about_a_fit_is_said():
    high = np.random.default_rng(0).poisson(50, (1, 64, 64)).astype(np.uint16) + 1
    said = " ".join(nm.TruncationModel.fit(high, n_annuli=10).warnings)
    assert "No pixel is 0" in said
    assert "fewer than 500 pixels" in said
    sweep = simulate_microed(2, (64, 64), seed=1).frames.copy()
    model = nm.TruncationModel.fit(np.stack([*sweep, np.full_like(sweep[0], 9999)]), n_annuli=2)
    assert "frame 2 have one value: leave saturated frames out" in " ".join(model.warnings)
    sweep[:, :8] //= 1000
    regions = np.ones((64, 64), int)
    regions[:8] = 2
    sweep[:, 3, 5] = 1
    said = " ".join(nm.TruncationModel.fit(sweep, regions=regions).warnings)
    assert "2 of 4 fits" in said
    assert ShiftedLognormal(3.0, np.exp(2.0), -5.0).at_bounds
    assert not ShiftedLognormal(9.0, np.exp(-8.0), -8000.0).at_bounds


def test_a_simulated_detector_that_counts_is_recognised():
    sweep = simulate_microed(3, (128, 128), counted=True, seed=5)
    with pytest.raises(CountedAlready):
        nm.TruncationModel.fit(sweep.frames)
