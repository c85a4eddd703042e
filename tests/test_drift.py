"""Drift and power spectra, against what the simulation put in."""

import numpy as np
import pytest
from scipy import ndimage

import napari_mrcz as nm
from napari_mrcz.correction import alignment
from napari_mrcz.simulation import CARBON_EDGE, VITREOUS_ICE, simulate_movie

FRAMES, GROUP = 40, 5


def drifting(pixels_a_group, specimen, seed, n=384):
    """Return a movie with 0.5 % of outlier pixels, and the true shifts of its groups."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    steps = rng.normal([np.sin(angle), np.cos(angle)], 0.2, (FRAMES, 2))
    path = pixels_a_group / GROUP * np.cumsum(steps, axis=0)
    path -= path[0]
    movie = simulate_movie(FRAMES, (n, n), dose=1.0, drift=path, seed=seed, specimen=specimen)
    truth = path.reshape(-1, GROUP, 2).mean(axis=1)
    return movie.frames, truth - truth[0]


@pytest.mark.parametrize(
    ("specimen", "pixels_a_group"),
    [
        (VITREOUS_ICE, 0.1),
        (CARBON_EDGE, 3.0),
        pytest.param(VITREOUS_ICE, 3.0, marks=pytest.mark.slow),
        pytest.param(CARBON_EDGE, 0.1, marks=pytest.mark.slow),
    ],
    ids=["ice, slow drift", "carbon, fast", "ice, fast", "carbon, slow drift"],
)
def test_shifts_are_those_put_in_and_fixed_patterns_are_seen(pixels_a_group, specimen):
    frames, truth = drifting(pixels_a_group, specimen, seed=3)
    recorded = nm.estimate_drift(frames, group=GROUP)
    outliers = nm.OutlierFilter.fit(frames)
    clean = np.stack([outliers(frame, index) for index, frame in enumerate(frames)])
    found = nm.estimate_drift(clean, group=GROUP)
    error = found.shifts - truth
    error -= error.mean(axis=0)  # that of the first group is in all
    assert np.sqrt(np.square(error).sum(axis=1).mean()) < 0.2
    assert not found.shifts[0].any()
    assert list(found.frames) == [2, 7, 12, 17, 22, 27, 32, 37]
    assert recorded.fixed_pattern > 0.3 > 0.1 > abs(found.fixed_pattern)
    assert recorded.warnings and not found.warnings


def weak_ice(path, contrast, *, n=384, spacing=9.0, dose=5.0, fixed=0.0, seed=0):
    """Return groups of frames of ice alone: noise of about one spacing in pixels, moved by `path`.

    `dose`: electrons per pixel in each group; `fixed`: standard deviation of a gain error.
    """
    rng = np.random.default_rng(seed)
    size = n + 2 * int(np.abs(path).max() + 2)
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    band = np.exp(-(((np.hypot(fy, fx) - 1 / spacing) * spacing / 0.4) ** 2))
    ice = np.fft.rfft2(rng.normal(size=(size, size))) * band
    ice *= contrast / np.fft.irfft2(ice, s=(size, size)).std()
    gain = 1 + fixed * rng.normal(size=(n, n))
    groups = []
    for y, x in path:
        image = np.fft.irfft2(ice * np.exp(-2j * np.pi * (y * fy + x * fx)), s=(size, size))
        groups.append(rng.poisson(dose * gain * (1 + image[:n, :n])).astype(np.uint8))
    return np.array(groups)


def rms(drift, path):
    error = drift.shifts - path
    return np.sqrt(np.square(error - error.mean(axis=0)).sum(axis=1).mean())


def test_weak_ice_is_followed_where_no_two_groups_show_it():
    """Neighbours correlate less than noise does somewhere near; all of them together do not."""
    t = np.arange(16)[:, None]
    path = t * [1.2, -0.7] - 6 * np.exp(-t / 4) * [0.3, 1.0]
    drift = nm.estimate_drift(weak_ice(path, 0.035, n=256, spacing=5.0), group=1)
    assert rms(drift, path) < 0.2


@pytest.mark.parametrize("speed", [pytest.param(0.5, marks=pytest.mark.slow), 3.0])
def test_a_fixed_pattern_does_not_hold_weak_ice_back(speed):
    path = np.arange(8)[:, None] * [0.6 * speed, 0.8 * speed]
    drift = nm.estimate_drift(weak_ice(path, 0.03, fixed=0.06), group=1)
    assert rms(drift, path) < 0.2
    assert drift.fixed_pattern > 0.1 and any("fixed pattern" in one for one in drift.warnings)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_a_path_is_as_smooth_as_it_is(jitter):
    path = np.arange(8)[:, None] * [0.4, 1.0] + jitter * np.random.default_rng(5).normal(
        size=(8, 2)
    )
    drift = nm.estimate_drift(weak_ice(path, 0.035), group=1)
    assert rms(drift, path) < (0.2 if jitter else 0.12)


@pytest.mark.slow
@pytest.mark.parametrize("contrast", [0.02, 0.03, 0.05])
def test_the_error_expected_is_that_made(contrast):
    made, expected = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        path = np.cumsum(rng.normal(0.5, 0.4, (8, 2)), axis=0)
        path -= path[0]
        drift = nm.estimate_drift(weak_ice(path, contrast, seed=seed), group=1)
        made.append(np.square(drift.shifts - path).sum(axis=1).mean())
        expected.append(drift.error**2)
        assert (drift.error > 0.2) == any("uncertain" in one for one in drift.warnings)
    assert 0.5 < np.sqrt(np.mean(made) / np.mean(expected)) < 2


def test_ice_that_is_too_weak_is_doubted():
    path = np.arange(6)[:, None] * [0.5, 0.5]
    drift = nm.estimate_drift(weak_ice(path, 0.01, n=192), group=1)
    assert drift.warnings
    drift = nm.estimate_drift(weak_ice(path, 0.02, n=256), group=1)
    assert drift.error > 0.2 and any("pixels" in one for one in drift.warnings)


def test_a_group_without_the_specimen_is_named():
    path = np.arange(8)[:, None] * [0.5, 0.9]
    groups = weak_ice(path, 0.06, n=256)
    groups[5] = np.random.default_rng(0).poisson(5.0, groups[5].shape)
    drift = nm.estimate_drift(groups, group=1)
    assert any("group 5 (of 0 to 7)" in one for one in drift.warnings)
    groups[5] = 0
    assert rms(nm.estimate_drift(groups, group=1), path) < 0.2


def test_high_frequencies_are_used_where_low_ones_are_not_enough(monkeypatch):
    path = np.arange(8)[:, None] * [0.8, -0.3]
    groups = weak_ice(path, 0.045, spacing=4.0, n=320)
    monkeypatch.setattr(alignment, "_COARSEST", 150)
    fine = nm.estimate_drift(groups, group=1)
    monkeypatch.setattr(alignment, "_ENOUGH", np.inf)
    coarse = nm.estimate_drift(groups, group=1)
    assert rms(fine, path) < 0.1 and fine.error < 0.7 * coarse.error


def test_what_progress_raises_ends_an_estimate_a_sum_and_a_spectrum():
    frames = np.random.default_rng(0).poisson(1.0, (12, 64, 64)).astype(np.uint8)
    stages = []
    drift = nm.estimate_drift(frames, 3, progress=lambda stage, done, total: stages.append(stage))
    assert len(set(stages)) >= 4

    def cancel(stage: str, done: int, total: int) -> None:
        raise KeyError(stage)

    for work in (
        lambda: nm.estimate_drift(frames, 3, progress=cancel),
        lambda: drift.aligned_sum(progress=cancel),
        lambda: drift.pattern_in(frames, progress=cancel),
        lambda: nm.power_spectrum(frames[0], progress=cancel),
    ):
        with pytest.raises(KeyError):
            work()


def test_the_aligned_sum_is_the_specimen_at_rest():
    rng = np.random.default_rng(5)
    specimen = 2 + 0.5 * ndimage.gaussian_filter(rng.normal(0, 4, (256, 256)), 2, mode="wrap")
    path = np.linspace([0, 0], [14, -9], FRAMES)
    frames = [rng.poisson(ndimage.shift(specimen, step, mode="grid-wrap")) for step in path]
    drift = nm.estimate_drift(np.array(frames), group=GROUP)

    def likeness(image):
        return np.corrcoef(
            image.ravel(), ndimage.shift(specimen, path[2], mode="grid-wrap").ravel()
        )[0, 1]

    total = drift.aligned_sum()
    assert total.sum() == pytest.approx(np.sum(frames), rel=1e-5)
    assert likeness(total) > 0.7 > likeness(np.sum(frames, axis=0)) + 0.1


def test_a_specimen_that_rests_says_that_nothing_can_be_told():
    frames = np.random.default_rng(0).poisson(1.0, (20, 64, 64))
    pattern = np.random.default_rng(1).poisson(3.0, (64, 64))
    drift = nm.estimate_drift(frames + pattern)
    assert np.abs(drift.shifts).max() < 0.2
    assert np.isnan(drift.fixed_pattern) and drift.warnings


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_is_no_drift(seed):
    frames = np.random.default_rng(seed).poisson(1.0, (20, 128, 128))
    drift = nm.estimate_drift(frames)
    assert any("noise alone" in warning for warning in drift.warnings)


def test_shifts_along_an_edge_are_doubted():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:160, :160]
    frames = [rng.poisson(np.where(x + y > 150 + 0.3 * i, 1.0, 0.6)) for i in range(20)]
    drift = nm.estimate_drift(np.array(frames))
    assert any("along an edge" in warning for warning in drift.warnings)


def test_a_crystal_fits_at_many_shifts():
    rng = np.random.default_rng(3)
    wave = 2 * np.pi / 8 * (np.arange(160)[None] + np.outer(np.arange(8), [1, 2])[:, :, None])
    frames = rng.poisson(1 + 0.3 * np.cos(wave[:, 0, :, None]) * np.cos(wave[:, 1, None]))
    drift = nm.estimate_drift(frames, group=1)
    assert any("crystals" in warning for warning in drift.warnings)


def test_groups_without_pixels_cannot_be_aligned_to():
    frames = np.zeros((4, 64, 64), np.uint8)
    frames[0] = np.random.default_rng(0).poisson(1.0, (64, 64))
    with pytest.raises(ValueError, match="those of one group alone"):
        nm.estimate_drift(frames, group=1)


def test_a_jump_is_not_smoothed_away():
    rng = np.random.default_rng(1)
    specimen = 1 + ndimage.gaussian_filter(rng.normal(0, 1.2, (280, 280)), 2, mode="wrap")
    path = np.array([[0, 0]] * 12 + [[4, -1]] * 12) + 0.1 * np.arange(24)[:, None]
    frames = [rng.poisson(ndimage.shift(specimen, step, mode="grid-wrap")) for step in path]
    drift = nm.estimate_drift(np.array(frames)[:, 12:-12, 12:-12], group=3)
    truth = path.reshape(-1, 3, 2).mean(axis=1)
    assert np.sqrt(np.square(drift.shifts - truth + truth[0]).sum(axis=1).mean()) < 0.15


def test_a_smaller_rest_joins_the_last_group():
    frames = np.random.default_rng(0).poisson(1.0, (13, 64, 64)).astype(np.uint8)
    drift = nm.estimate_drift(frames)
    assert list(drift.frames) == [2.0, 8.5]
    assert drift.aligned_sum().shape == (64, 64)
    for n, advice in ((9, "smaller groups"), (1, "not the sum of it")):
        with pytest.raises(ValueError, match=advice):
            nm.estimate_drift(frames[:n], group=5 if n == 1 else 9)


def test_pixels_that_are_not_finite_are_as_the_mean():
    frames = weak_ice(np.zeros((8, 2)), 0.2, n=96, dose=4.0).astype(np.float32)
    shifts = nm.estimate_drift(frames, group=2).shifts
    frames[:, 40, 50], frames[3, 7, 8] = np.nan, np.inf
    drift = nm.estimate_drift(frames, group=2)
    np.testing.assert_allclose(drift.shifts, shifts, atol=0.1)
    assert drift.aligned_sum().sum() == pytest.approx(8 * 4 * 96**2, rel=0.02)
    for value, said in ((np.nan, "no pixel is finite"), (7, "do not vary")):
        with pytest.raises(ValueError, match=said):
            nm.estimate_drift(np.full((8, 64, 64), value, np.float32), group=2)


@pytest.mark.parametrize(
    ("frames", "group"),
    [
        (np.zeros((5, 64, 64)), 5),
        (np.zeros((12, 16, 64)), 5),
        (np.zeros((12, 64, 64), complex), 5),
        (np.zeros((12, 64, 64)), 0),
        (np.zeros((0, 64, 64)), 5),
    ],
)
def test_what_cannot_be_aligned_is_refused(frames, group):
    with pytest.raises(ValueError):
        nm.estimate_drift(frames, group=group)


@pytest.mark.parametrize("shape", [(256, 256), (700, 500), (65, 40)])
def test_white_noise_has_its_variance_at_all_frequencies(shape):
    image = np.random.default_rng(0).normal(5.0, 3.0, shape)
    spectrum = nm.power_spectrum(image)
    size = min(shape)
    assert spectrum.image.shape == (size, size)
    assert spectrum.image.mean() == pytest.approx(9, rel=0.15)
    assert spectrum.radial[size // 8 :].mean() == pytest.approx(9, rel=0.15)
    assert spectrum.image[size // 2, size // 2] < 1  # no mean
    assert spectrum.frequency[0] == 0
    assert spectrum.frequency[-1] == pytest.approx(0.5, rel=0.02)


def test_waves_are_found_at_their_frequency_in_one_over_angstrom():
    y, x = np.mgrid[:600, :640]
    image = np.cos(2 * np.pi * (0.05 * y + 0.12 * x)) + np.random.default_rng(0).normal(
        0, 0.1, y.shape
    )
    image[3, 5] = np.nan
    spectrum = nm.power_spectrum(image, pixel_size=1.3)
    assert spectrum.frequency[spectrum.radial.argmax()] == pytest.approx(0.13 / 1.3, abs=0.002)
    peaks = np.argwhere(spectrum.image > 0.5 * spectrum.image.max()) - 256
    assert {tuple(np.sign(peak)) for peak in peaks} == {(1, 1), (-1, -1)}
    assert np.abs(np.abs(peaks).mean(axis=0) / 512 - [0.05, 0.12]).max() < 0.002


def test_pixels_that_are_not_square_have_round_rings():
    y, x = np.mgrid[:256, :256]
    for image in (np.cos(2 * np.pi * 0.1 * y), np.cos(2 * np.pi * 0.2 * x)):
        spectrum = nm.power_spectrum(image, pixel_size=(1.0, 2.0))
        assert spectrum.frequency[spectrum.radial.argmax()] == pytest.approx(0.1, abs=0.004)


@pytest.mark.parametrize("image", [np.zeros((4, 64)), np.zeros(64), np.zeros((64, 64), complex)])
def test_what_has_no_spectrum_is_refused(image):
    with pytest.raises(ValueError):
        nm.power_spectrum(image)
