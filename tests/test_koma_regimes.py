"""KOMA where it used to fail: other doses, few stacks, structure at one place, mostly carbon."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import napari_mrcz as nm
from napari_mrcz.correction import KomaNormalization, correlated_noise, rebuild
from napari_mrcz.correction.koma import contrast_doubt, thumbnail
from napari_mrcz.correction.rolling import finer_than, repeated_step
from napari_mrcz.session import Koma
from napari_mrcz.simulation import CARBON_EDGE, simulate_session

SHAPE = (96, 112)
slow = pytest.mark.slow


pytestmark = pytest.mark.usefixtures("own_cache")


def pattern_of(rng, strength=0.08):
    """Return a camera's fixed pattern: pixels and columns."""
    columns = rng.normal(0, strength / 3, (1, SHAPE[1]))
    return (1 + rng.normal(0, strength, SHAPE) + columns).clip(0.1)


def session_of(rng, pattern, doses, n_frames, specimen=None):
    """Return stacks of counts, one per dose."""
    lengths = np.broadcast_to(n_frames, len(doses))
    return [
        rng.poisson(
            dose * pattern * (1 if specimen is None else specimen(rng)), (n, *SHAPE)
        ).astype(np.uint8)
        for dose, n in zip(doses, lengths, strict=True)
    ]


def noise_of(stack, correction):
    return correlated_noise([correction(frame, i) for i, frame in enumerate(stack)])


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=slow), pytest.param(2, marks=slow)])
@pytest.mark.parametrize("order", ["steps", "turns"])
def test_noise_is_at_the_limit_whatever_the_doses(order, seed):
    radius, n_frames, n_stacks = 4, 16, 18
    rng = np.random.default_rng(seed)
    doses = np.array([1.0, 3.0])[np.arange(n_stacks) * 2 // n_stacks]
    if order == "turns":
        doses = np.array([1.0, 3.0])[np.arange(n_stacks) % 2]
    stacks = session_of(rng, pattern_of(rng, 0.15), doses, n_frames)
    koma = Koma(stacks, radius)
    # As few electrons as the average has to a frame's.
    expected, found, unscaled = [], [], []
    for i in range(2, n_stacks, 3):
        near = koma.neighbours(i)
        expected.append(doses[i] / (n_frames * doses[near].sum()))
        found.append(noise_of(stacks[i], koma[i]))
        unscaled.append(noise_of(stacks[i], KomaNormalization(koma[i].average, 0.0)))
        assert koma[i].noise[1] == pytest.approx(found[-1], abs=2e-4)
        assert koma[i].scale == pytest.approx(stacks[i].mean() / koma[i].average.mean(), rel=1e-4)
        assert koma[i](stacks[i][0]).mean() == pytest.approx(stacks[i][0].mean(), rel=1e-4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.0025)
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.15)
    assert np.mean(found) < 1.3 / (2 * radius * n_frames)
    if order == "turns":
        assert np.mean(unscaled) > 1.5 * np.mean(found)


def test_stacks_of_more_frames_count_for_more():
    rng = np.random.default_rng(1)
    lengths = np.where(np.arange(14) % 3, 8, 32)
    stacks = session_of(rng, pattern_of(rng, 0.15), np.ones(14), lengths)
    koma = Koma(stacks, 4)
    for i in (0, 5, 6):
        near = koma.neighbours(i)
        frames = np.concatenate([stacks[j] for j in near])
        np.testing.assert_allclose(koma[i].average, frames.mean(axis=0), rtol=1e-6)
        assert noise_of(stacks[i], koma[i]) == pytest.approx(1 / lengths[near].sum(), rel=0.2)
    members = [i for i in range(14) if i not in koma.left_out]
    expected = np.mean([koma[i].noise[1] for i in members])
    assert koma.noise_curve([4])[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["blank", "falling"])
def test_frames_of_another_dose_have_as_much_of_the_average(kind):
    """Blank frames stay blank, and dim ones get no bright pattern."""
    rng = np.random.default_rng(2)
    pattern = pattern_of(rng)
    dose = np.full(16, 2.0) if kind == "blank" else np.linspace(3, 0.5, 16)
    dose[:2] = 0 if kind == "blank" else dose[:2]
    stacks = [
        rng.poisson(dose[:, np.newaxis, np.newaxis] * pattern).astype(np.uint8) for _ in range(11)
    ]
    koma = Koma(stacks, 5)
    for i in (0, 6):
        out = np.stack([koma[i](frame, t) for t, frame in enumerate(stacks[i])])
        assert correlated_noise(out) < 0.6 * correlated_noise(stacks[i])
        np.testing.assert_allclose(out.mean(axis=(1, 2)), stacks[i].mean(axis=(1, 2)), atol=1e-5)
        if kind == "blank":
            assert not out[:2].any()


def test_a_stack_whose_noise_would_rise_is_told_and_can_be_left():
    rng = np.random.default_rng(3)
    stacks = session_of(rng, pattern_of(rng, 0.02), np.ones(5), 28)
    with pytest.warns(UserWarning, match="KOMA with 4 of the 24"):
        koma = Koma(stacks)
        assert koma.helps == (False,) * 5
    assert any("raises the correlated noise" in said for said in koma.warnings)
    with pytest.warns(UserWarning, match="KOMA with 4 of the 24"):
        kept = Koma(stacks, even_if_worse=False)
        assert any("stay as they are" in said for said in kept.warnings)
    for i in (0, 3):
        before, after = koma[i].noise
        assert before == pytest.approx(correlated_noise(stacks[i]), abs=1e-5)
        assert after == pytest.approx(noise_of(stacks[i], koma[i]), abs=1e-4)
        assert after > 5 * before
        assert koma[i].warnings and kept[i].warnings
        left = nm.Stack.from_array(stacks[i]).apply(kept[i])
        np.testing.assert_array_equal(left, stacks[i], strict=True)
        again = rebuild(kept[i].describe())
        assert again.describe() == kept[i].describe()
        np.testing.assert_array_equal(again(stacks[i][1], 1), stacks[i][1], strict=True)
        forced = rebuild(koma[i].describe())
        np.testing.assert_array_equal(forced(stacks[i][1]), koma[i](stacks[i][1]), strict=True)


def test_single_images_are_judged_too():
    """They have no pairs of frames: what counts is the variance."""
    rng = np.random.default_rng(4)
    for strength, helps in ((0.3, True), (0.02, False)):
        pattern = pattern_of(rng, strength)
        images = [rng.poisson(20 * pattern, (1, *SHAPE)).astype(np.uint8) for _ in range(9)]
        koma = Koma(images, 2)
        assert koma.helps == (helps,) * 9
        assert koma[0].noise is None


def edge(shape, kind, height):
    y, x = np.indices(shape)
    inside = x > 0.4 * shape[1]
    if kind == "hole":
        inside = np.hypot(y - 0.3 * shape[0], x - 0.4 * shape[1]) < 0.45 * min(shape)
    return 1 - height * ~inside


@pytest.mark.parametrize("kind", ["straight", "hole"])
@pytest.mark.parametrize("shape", [(96, 112), (256, 224), pytest.param((1024, 800), marks=slow)])
def test_steps_at_one_place_are_found_and_those_of_a_camera_are_not(kind, shape):
    for seed in range(3):
        session = simulate_session(6, 1, shape, seed=seed)
        rng = np.random.default_rng(seed)
        average = sum(rng.poisson(40 * movie.expected) for movie in session.iter_movies()) / 240
        assert repeated_step(average) == 0
        assert repeated_step(average * edge(shape, kind, 0.25)) == pytest.approx(0.25, abs=0.1)


def test_what_is_coarser_than_a_length_is_not_subtracted():
    rng = np.random.default_rng(5)
    truth = edge((256, 256), "straight", 0.25)
    fine = rng.normal(0, 0.05, truth.shape)
    average = truth + fine
    average[20, 30] = 40  # a hot pixel leaves no square around it
    average[200:203] = np.nan
    kept = finer_than(average, 32)
    assert np.nanmean(kept) == pytest.approx(np.nanmean(average))
    assert np.isnan(kept[200:203]).all() and np.isfinite(np.delete(kept, np.s_[200:203], 0)).all()
    error = (kept - np.nanmean(kept) - fine)[:190]
    error[20, 30] = 0
    assert error.std() < 0.03 < truth.std() / 4
    assert abs(error[22:40, 32:50].mean()) < 0.01
    assert error[:, :80].std() < 0.015


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=slow)])
def test_an_edge_at_one_place_is_warned_of_and_kept_by_a_length(seed):
    rng = np.random.default_rng(seed)
    pattern, step = pattern_of(rng, 0.12), edge(SHAPE, "straight", 0.25)

    def specimen(rng):
        blurred = gaussian_filter(rng.normal(size=SHAPE), 3)
        return step * (1 + 0.04 * blurred / blurred.std())

    stacks = session_of(rng, pattern, np.ones(9), 20, specimen)
    sides = np.s_[:, 5:25], np.s_[:, -25:-5]

    def height(koma):
        low, high = (koma[4](stacks[4].mean(axis=0))[side].mean() for side in sides)
        return high - low

    whole, fine = Koma(stacks, 4), Koma(stacks, 4, length=24)
    assert any("same place" in said for said in whole[4].warnings)
    assert any("same place" in said for said in whole.warnings)
    assert not fine.warnings and not fine[4].warnings
    assert abs(height(whole)) < 0.02
    assert height(fine) == pytest.approx(0.25, abs=0.03)
    assert all(fine.helps)
    assert fine[4].noise[1] == pytest.approx(noise_of(stacks[4], fine[4]), abs=2e-4)
    assert fine[4].describe()["length"] == 24


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=slow), pytest.param(2, marks=slow)])
def test_a_session_mostly_of_carbon_is_told_and_one_of_ice_is_not(seed):
    n = 20
    for n_carbon in (0, 3, 12, 20):
        rng = np.random.default_rng(seed)
        bad = rng.choice(n, n_carbon, replace=False)
        session = simulate_session(
            n, 1, (128, 128), exceptions=dict.fromkeys(bad.tolist(), CARBON_EDGE), seed=seed
        )
        small = [thumbnail(rng.poisson(40 * m.expected)) for m in session.iter_movies()]
        entering = [image for i, image in enumerate(small) if n_carbon > 3 or i not in bad]
        assert bool(contrast_doubt(entering, [0.02] * len(entering))) == (n_carbon > 3)


def test_carbon_that_enters_averages_is_warned_of_in_each_history():
    rng = np.random.default_rng(6)
    bar = [np.where(np.arange(SHAPE[1]) < rng.integers(20, 90), 0.6, 1.0) for _ in range(6)]
    stacks = [rng.poisson(np.ones(SHAPE) * b, (10, *SHAPE)).astype(np.uint8) for b in bar]
    koma = Koma(stacks, 2)
    (said,) = [said for said in koma.warnings if "high contrast" in said]
    assert said in koma[3].describe()["warnings"]


def test_histories_of_earlier_versions_are_done_again_to_the_bit():
    rng = np.random.default_rng(7)
    average, frame = rng.random(SHAPE).astype(np.float32), rng.poisson(0.2, SHAPE).astype(np.uint8)
    old = {
        "name": "KomaNormalization",
        "software": "napari-mrcz 0.1",
        "average": average,
        "level": 0.5,
        "index": 3,
        "neighbours": ["a.mrc", "b.mrc"],
    }
    again = rebuild(old)
    assert again.helps and again.applied
    # A frame of another mean is treated as all were.
    expected = np.subtract(frame, average - np.float32(0.5), dtype=np.float32)
    np.testing.assert_array_equal(again(frame), expected)


def test_a_session_whose_background_is_subtracted_is_not_scaled():
    rng = np.random.default_rng(8)
    pattern = rng.normal(0, 0.3, SHAPE)
    stacks = [rng.normal(pattern - pattern.mean(), 1, (8, *SHAPE)) for _ in range(7)]
    koma = Koma([stack.astype(np.float32) for stack in stacks], 3)
    assert koma[2].scale == 1 and not koma[2].by_dose
    assert all(koma.helps)


def test_a_saturated_stack_enters_no_average():
    rng = np.random.default_rng(9)
    stacks = session_of(rng, pattern_of(rng, 0.15), np.ones(11), 16)
    stacks[4][3] = stacks[6][:] = 255
    koma = Koma(stacks, 4)
    assert list(koma.left_out) == [4, 6]
    assert "where the session has 1" in koma.left_out[6]
    for i in (0, 5):
        assert noise_of(stacks[i], koma[i]) == pytest.approx(1 / (8 * 16), rel=0.2)
