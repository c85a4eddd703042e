"""What the "Outliers" widget knows, without a window, against movies with known outliers."""

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.correction import OutlierFilter, correlated_noise
from napari_mrcz.correction.outliers.thresholds import OutlierOptions
from napari_mrcz.widgets.base.job import Cancelled
from napari_mrcz.widgets.outliers.model import (
    Noise,
    correct,
    fit_outliers,
    in_words,
    measure_noise,
    read_pixel,
    remarks,
    signed,
    summary,
)
from napari_mrcz.widgets.outliers.plots import ThresholdPlots, reach_of

HOT = [(5, 7), (20, 40), (33, 90), (60, 60), (80, 11)]
DARK = [(10, 10), (70, 25)]


def counts(n_frames: int = 24) -> np.ndarray:
    """Return noise with a few pixels that count twice as much, and a few that count nothing."""
    frames = np.random.default_rng(3).poisson(4, (n_frames, 96, 128)).astype(np.uint8)
    for row, column in HOT:
        frames[:, row, column] += 5
    for row, column in DARK:
        frames[:, row, column] = 0
    return frames


def silent(stage: str, done: int, total: int | None) -> None:
    """Take a report and do nothing."""


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Return the movie as an array."""
    return counts()


@pytest.fixture(scope="module")
def fit(frames):
    """Return the movie fitted with the options there are at first."""
    return fit_outliers(nm.Stack.from_array(frames), OutlierOptions(), None, silent)


def test_what_was_planted_is_found(fit):
    """The hot ones and the dark ones, and next to nothing else."""
    assert {fit.kind(*at) for at in HOT} == {1}
    assert {fit.kind(*at) for at in DARK} == {-1}
    assert fit.current.n_hot + fit.current.n_dark <= len(HOT) + len(DARK) + 2
    assert fit.kind(50, 50) == 0


def test_summing_is_told_frame_by_frame_and_then_the_fit(frames):
    """So that it can be shown, and cancelled, at each of them."""
    said = []
    fit_outliers(
        nm.Stack.from_array(frames), OutlierOptions(), None, lambda *report: said.append(report)
    )
    assert said[: len(frames)] == [("Summing frame", n, 24) for n in range(1, 25)]
    assert said[-1][0].startswith("Fitting")


def test_a_fit_can_be_cancelled_while_frames_are_summed(frames):
    """What a report raises ends it."""

    def third(stage, done, total):
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        fit_outliers(nm.Stack.from_array(frames), OutlierOptions(), None, third)


def test_options_are_those_of_the_filter(frames):
    """Each of them reaches it."""
    options = OutlierOptions("normal", limit=0.7, order=9.0, relaxation=0.8, fill="expectation")
    fit = fit_outliers(nm.Stack.from_array(frames), options, None, silent)
    same = OutlierFilter.fit(
        frames, model="normal", limit=0.7, order=9.0, relaxation=0.8, fill="expectation"
    )
    assert fit.current.options == same.options
    assert fit.current.thresholds == same.thresholds
    assert all(getattr(fit.current.options, name) == value for name, value in vars(options).items())


def test_a_gain_may_be_a_movie_of_one_frame(frames):
    """As a gain reference opened from an MRC file is."""
    gain = np.ones((1, 96, 128), np.float32)
    gain[0, 50, 51] = 0
    fit = fit_outliers(nm.Stack.from_array(frames), OutlierOptions(), gain, silent)
    assert fit.kind(50, 51) == 2
    assert fit.current.n_defects == 1
    assert any("1 pixel" in said for said in remarks(fit))


def test_thresholds_change_and_come_back(fit):
    """Nothing is fitted again."""
    moved = fit.with_thresholds(hot=2.0)
    assert moved.current.thresholds.hot == 2.0
    assert moved.current.thresholds.dark == fit.current.thresholds.dark
    assert moved.is_changed and not fit.is_changed
    assert moved.current.n_hot == np.count_nonzero(fit.sigma > 2)
    assert not moved.reset().is_changed
    assert moved.reset().current.n_hot == fit.current.n_hot


def test_weights_and_fill_take_effect_without_another_fit(fit):
    """And stay when the thresholds are reset."""
    options = OutlierOptions(order=2.0, relaxation=0.5, fill="expectation")
    assert not fit.needs_another(options)
    changed = fit.with_thresholds(hot=3.5).with_options(options)
    assert changed.current.thresholds.hot == 3.5
    assert changed.reset().current.options.fill == "expectation"
    assert changed.reset().current.options.order == 2.0
    assert fit.needs_another(OutlierOptions(model="normal"))
    assert fit.needs_another(OutlierOptions(limit=0.6))


def test_the_table_counts_what_the_mask_counts(fit):
    """Dark, hot, both: pixels, part, and how many by chance."""
    moved = fit.with_thresholds(-3.0, 3.0)
    mask = moved.current.mask
    n_dark, n_hot = np.count_nonzero(mask == -1), np.count_nonzero(mask == 1)
    pixels, part, chance = (numbers for _, *numbers in summary(moved))
    assert pixels == [str(n_dark), str(n_hot), str(n_dark + n_hot)]
    assert part[2] == f"{100 * (n_dark + n_hot) / mask.size:.2g}"
    # 0.135 % of a normal distribution lie beyond 3 sigma: 16.6 pixels on each side.
    assert chance == ["17", "17", "33"]
    assert summary(fit.with_thresholds(-30.0, 30.0))[2][1:] == ("< 0.1",) * 3


def test_a_threshold_that_is_a_default_is_named():
    """Noise alone has no tails."""
    noise = np.random.default_rng(1).poisson(4, (12, 64, 64)).astype(np.uint8)
    fit = fit_outliers(nm.Stack.from_array(noise), OutlierOptions(), None, silent)
    limits = fit.current.thresholds
    assert limits.dark_is_default and limits.hot_is_default
    dark, hot = remarks(fit)
    assert f"the dark threshold {signed(limits.dark)} σ is a default" in dark
    assert f"the hot threshold {signed(limits.hot)} σ is a default" in hot
    assert len(remarks(fit.with_thresholds(hot=3.0))) == 1


def test_the_nearest_outlier_is_found(fit):
    """Within reach; else the pixel itself."""
    assert fit.outlier_near(22, 39, 3) == (20, 40)
    assert fit.outlier_near(20, 40, 0) == (20, 40)
    assert fit.outlier_near(22, 39, 1) == (22, 39)
    assert fit.outlier_near(0, 0, 8) == (5, 7)


def test_the_corrected_movie_has_the_thresholds_of_now(fit, frames):
    """And the mask is in labels that napari takes."""
    moved = fit.with_thresholds(hot=3.0)
    stack, labels = correct(moved, 5, True, silent)
    np.testing.assert_array_equal(stack[5], moved.current(frames[5], 5))
    mask = moved.current.mask
    np.testing.assert_array_equal(labels == 1, mask == 1)
    np.testing.assert_array_equal(labels == 2, mask == -1)
    assert stack.history[-1]["thresholds"]["hot"] == 3.0
    stack, labels = correct(moved, 99, False, silent)
    assert labels is None
    assert stack.shape == frames.shape


def test_noise_is_measured_before_and_after_in_the_same_frames(fit, frames):
    """Ten frames of a longer movie, from the first to the last."""
    noise = measure_noise(fit, silent)
    chosen = np.linspace(0, 23, 10).round().astype(int)
    after = np.stack([fit.current(frames[i], i) for i in chosen])
    assert noise.before == pytest.approx(correlated_noise(frames[chosen]))
    assert noise.after == pytest.approx(correlated_noise(after))
    assert abs(noise.after) < noise.before / 2
    assert "(10 of 24 frames)" in str(noise)


def test_noise_of_few_frames(frames):
    """All of them are measured; one alone has no correlation."""
    fit = fit_outliers(nm.Stack.from_array(frames[:4]), OutlierOptions(), None, silent)
    noise = measure_noise(fit, silent)
    assert "(all 4 frames)" in str(noise)
    assert noise.before == pytest.approx(correlated_noise(frames[:4]))
    one = fit_outliers(nm.Stack.from_array(frames[:1]), OutlierOptions(), None, silent)
    assert measure_noise(one, silent) is None


def test_measuring_can_be_cancelled(fit):
    """Between frames."""

    def second(stage, done, total):
        assert total == 20
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        measure_noise(fit, second)


@pytest.mark.parametrize(
    ("before", "said"), [(0.01234, "0.0123 before"), (-0.00002, "\N{MINUS SIGN}2.0e")]
)
def test_small_numbers_are_written_in_full(before, said):
    """With a true minus sign."""
    assert said in str(Noise(before, 0.0, 3, 3))
    assert "could not be measured" in str(Noise(float("nan"), 0.0, 3, 3))


def test_a_pixel_is_read_through_all_frames(fit, frames):
    """Its counts, sigma and kind."""
    course = read_pixel(fit, 20, 40, silent)
    np.testing.assert_array_equal(course.values, frames[:, 20, 40])
    assert course.kind == 1
    assert course.sigma == pytest.approx(float(fit.sigma[20, 40]))
    assert course.typical == pytest.approx(4, rel=0.05)
    assert str(course).startswith("Row 20, column 40: hot, ")
    assert "no outlier" in str(read_pixel(fit, 50, 50, silent))


def test_reading_a_pixel_can_be_cancelled(fit):
    """Between a few frames."""

    def later(stage, done, total):
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        read_pixel(fit, 1, 1, later)


@pytest.mark.parametrize("model", ["poisson", "normal"])
def test_the_curves_are_those_of_the_distribution(frames, model, qtbot):
    """Points lie on the distribution, residuals are finite, tails start at zero."""
    fit = fit_outliers(nm.Stack.from_array(frames), OutlierOptions(model=model), None, silent)
    plots = ThresholdPlots()
    qtbot.addWidget(plots)
    plots.show_fit(fit)
    sigma, cdf = plots._cdf.getData()
    assert np.interp(sigma[3], fit.current.distribution.sigma, fit.current.distribution.cdf) == (
        pytest.approx(cdf[3])
    )
    np.testing.assert_allclose(cdf, np.interp(sigma, *plots._model.getData()), atol=0.02)
    at, residual = plots._residual.getData()
    assert np.isfinite(residual).all()
    (low, high), (bottom, top) = plots.residual.getPlotItem().viewRange()
    assert (low <= at).all() and (at <= high).all()
    assert bottom < residual.min() and residual.max() < top


def test_both_thresholds_lie_within_what_is_shown(fit):
    """Also when they are far out."""
    assert reach_of(fit.with_thresholds(-20.0, 30.0).current) == (-22, 32)
    at = 0.95 * fit.current.thresholds.hot
    assert fit.current.weight(at) == pytest.approx(0.5, abs=0.05)


def test_errors_are_in_plain_words():
    """Not in those of scripts."""
    signed_numbers = np.random.default_rng(1).normal(0, 1, (4, 64, 64)).astype(np.float32)
    with pytest.raises(ValueError, match="not counts") as caught:
        fit_outliers(nm.Stack.from_array(signed_numbers), OutlierOptions(), None, silent)
    said = in_words(str(caught.value))
    assert "=" not in said
    assert "the normal model with the expected value as fill" in said
