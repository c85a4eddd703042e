"""The simulated detector: what it says about itself must be what its frames show."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.optimize import minimize_scalar

import napari_mrcz.simulation
from napari_mrcz.simulation import (
    CARBON_EDGE,
    CRYSTALLINE_ICE,
    Camera,
    Specimen,
    drift_path,
    simulate_flats,
    simulate_movie,
    simulate_session,
)
from napari_mrcz.simulation.specimen import Scene

SHAPE = (256, 320)


def reduced_chi_squared(counts: NDArray, expected: NDArray) -> float:
    """Return the mean of (counts - expected)² / expected: 1 for Poisson counts."""
    return float(np.mean((counts - expected) ** 2 / expected))


def chi_squared_tolerance(expected: NDArray) -> float:
    """Return five standard errors of the reduced χ² of Poisson counts, about 1."""
    return 5 * float(np.sqrt(np.mean(2 + 1 / expected) / expected.size))


def total(movie) -> NDArray:
    return movie.frames.sum(axis=0, dtype=np.float64)


@pytest.fixture(scope="module")
def movie():
    """Return a movie with every imperfection, of a type so wide that nothing saturates."""
    camera = Camera(SHAPE, dark=2e-3, dead=1e-3, dark_current=0.05, seed=3)
    return simulate_movie(24, camera=camera, dose=1.5, dtype=np.uint16, seed=5)


# Counting statistics ---------------------------------------------------------------------------


@pytest.mark.parametrize("dose", [0.05, 1.0, 20.0])
def test_an_ideal_camera_shows_poisson_noise_and_nothing_else(dose):
    movie = simulate_movie(
        10, camera=Camera.ideal(SHAPE), dose=dose, specimen=None, dtype=np.uint16, seed=1
    )
    n = movie.frames.size
    frames = movie.frames.astype(float)
    assert frames.mean() == pytest.approx(dose, abs=5 * np.sqrt(dose / n))
    standard_error = np.sqrt((2 * dose**2 + dose) / n)
    assert frames.var() == pytest.approx(dose, abs=5 * standard_error)
    zeros = np.exp(-dose)
    assert np.mean(frames == 0) == pytest.approx(zeros, abs=5 * np.sqrt(zeros / n))


def test_frames_are_independent():
    movie = simulate_movie(6, camera=Camera.ideal(SHAPE), specimen=None, seed=1)
    pixels = movie.frames.reshape(6, -1).astype(float)
    off_diagonal = np.corrcoef(pixels)[np.triu_indices(6, k=1)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(pixels.shape[1])


def test_the_counts_are_those_the_truth_expects(movie):
    live = ~movie.defects.dead
    expected = movie.expected[live].astype(float) * len(movie.frames)
    counts = total(movie)[live]
    assert counts.sum() == pytest.approx(expected.sum(), abs=5 * np.sqrt(expected.sum()))
    chi_squared = reduced_chi_squared(counts, expected)
    assert chi_squared == pytest.approx(1, abs=chi_squared_tolerance(expected))


def test_the_rate_without_outliers_is_that_of_the_good_pixels_only(movie):
    good = ~movie.defects.outliers
    np.testing.assert_allclose(movie.rate[good], movie.expected[good], rtol=1e-6)
    assert (movie.rate[movie.defects.hot] < movie.expected[movie.defects.hot]).all()
    assert (movie.rate[movie.defects.dead] > movie.expected[movie.defects.dead]).all()


def test_each_kind_of_outlier_counts_what_the_truth_says(movie):
    defects, counts = movie.defects, total(movie)
    n, dark_current = len(movie.frames), movie.camera.dark_reference
    incident = n * (movie.rate - dark_current)
    for kind in (defects.hot, defects.dark):
        expected = n * (movie.dose * defects.excess + dark_current) + incident * defects.response
        chi_squared = reduced_chi_squared(counts[kind], expected[kind])
        assert chi_squared == pytest.approx(1, abs=chi_squared_tolerance(expected[kind]))
    # A dead pixel is blind to the beam, but the read-out still counts.
    expected = n * float(dark_current[defects.dead].sum())
    assert counts[defects.dead].sum() == pytest.approx(expected, abs=5 * np.sqrt(expected))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_counts_beyond_the_type_saturate(dtype):
    movie = simulate_movie(1, (32, 32), dose=600.0, specimen=None, dtype=dtype, seed=1)
    frame = movie.frame(0)
    assert frame.dtype == dtype
    if np.dtype(dtype).itemsize == 1:
        good = ~movie.defects.outliers
        assert (frame[good] == np.iinfo(dtype).max).all()
    else:
        assert frame.mean() == pytest.approx(movie.expected.mean(), rel=0.01)


def test_counts_per_electron_scale_the_counts():
    camera = Camera.ideal((64, 64), counts_per_electron=7, dark_current=0.5)
    frames = simulate_movie(20, camera=camera, specimen=None, dtype="int16", seed=1).frames
    assert (frames % 7 == 0).all()
    electrons = 1.5
    tolerance = 5 * 7 * np.sqrt(electrons / frames.size)
    assert frames.mean() == pytest.approx(7 * electrons, abs=tolerance)
    assert camera.dark_reference.mean() == pytest.approx(7 * 0.5, rel=1e-5)


# Seeds and laziness ----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_movie_and_another_seed_another():
    first, again, other = (simulate_movie(3, SHAPE, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.drift, again.drift)
    np.testing.assert_array_equal(first.camera.gain_reference, again.camera.gain_reference)
    assert (first.frames != other.frames).mean() > 0.3
    assert not np.array_equal(first.defects.hot, other.defects.hot)


@settings(max_examples=25, deadline=None)
@given(
    n_frames=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from(["uint8", "int8", "uint16", "float32"]),
    specimen=st.sampled_from([None, Specimen(), CARBON_EDGE, CRYSTALLINE_ICE]),
    seed=st.integers(0, 2**40),
)
def test_a_frame_drawn_alone_is_the_frame_of_the_whole(n_frames, shape, dtype, specimen, seed):
    def simulate():
        return simulate_movie(n_frames, shape, specimen=specimen, dtype=dtype, seed=seed)

    whole = simulate().frames
    assert whole.shape == simulate().shape == (n_frames, *shape)
    np.testing.assert_array_equal(simulate().frame(n_frames - 1), whole[-1])
    np.testing.assert_array_equal(simulate().frame(-n_frames), whole[0])
    np.testing.assert_array_equal(np.stack(list(simulate().iter_frames())), whole)


@pytest.mark.parametrize("index", [3, -4])
def test_there_is_no_frame_past_the_end(index):
    with pytest.raises(IndexError, match="3 frames"):
        simulate_movie(3, (16, 16)).frame(index)


# Outliers --------------------------------------------------------------------------------------


def test_there_are_as_many_outliers_as_asked_for_and_no_pixel_is_two_kinds():
    camera = Camera((400, 500), hot=0.004, very_hot=0.0005, dark=0.001, dead=0.0002, seed=2)
    defects = camera.defects
    numbers = [int(kind.sum()) for kind in (defects.hot, defects.dark, defects.dead)]
    assert numbers == [900, 200, 40]
    assert defects.outliers.sum() == sum(numbers)
    hot = defects.excess[defects.hot]
    very_hot = hot >= camera.very_hot_excess[0]
    assert very_hot.sum() == 100
    assert hot.min() >= camera.hot_excess[0]
    assert hot[~very_hot].max() <= camera.hot_excess[1]
    assert hot.max() <= camera.very_hot_excess[1]
    dark = defects.response[defects.dark]
    assert camera.dark_response[0] <= dark.min() < dark.max() <= camera.dark_response[1]


def test_clusters_are_the_outliers_with_a_neighbour_within_two_pixels(movie):
    outliers = movie.defects.outliers
    expected = np.zeros_like(outliers)
    places = np.argwhere(outliers)
    for y, x in places:
        near = np.abs(places - (y, x)).max(axis=1) <= 2
        expected[y, x] = near.sum() > 1
    np.testing.assert_array_equal(movie.defects.clusters, expected)


def test_the_share_of_clustered_outliers_is_that_of_a_k2():
    """15 to 25 % in normal mode, more than 66 % in super-resolution (preprint, section 4)."""
    normal = Camera((1024, 1024), seed=1).defects
    assert 0.15 < normal.clusters.sum() / normal.outliers.sum() < 0.25
    super_resolved = Camera((1024, 1024), super_resolution=2, seed=1).defects
    assert super_resolved.clusters.sum() == super_resolved.outliers.sum()
    scattered = Camera((1024, 1024), clustered=0.0, seed=1).defects
    grouped = Camera((1024, 1024), clustered=1.0, seed=1).defects
    by_chance = 1 - np.exp(-24 * scattered.outliers.mean())
    share = scattered.clusters.sum() / scattered.outliers.sum()
    assert share == pytest.approx(by_chance, abs=0.03)
    assert grouped.clusters.sum() / grouped.outliers.sum() > 0.99


# Gain, gamma, dark -----------------------------------------------------------------------------


def flatness(corrected: NDArray, expected_variance: NDArray, good: NDArray) -> float:
    """Return the variance of 16-pixel patches' means over that of the noise alone: 1 if flat."""
    window = 16
    weight = uniform_filter(good.astype(float), window)
    mean = uniform_filter(np.where(good, corrected, 0.0), window) / weight
    variance = uniform_filter(np.where(good, expected_variance, 0.0), window) / weight
    patches = (slice(window // 2, None, window),) * 2
    return float(mean[patches].var() / (variance[patches] / window**2 / weight[patches]).mean())


@pytest.mark.parametrize("super_resolution", [1, 2])
def test_the_gain_reference_with_the_right_gamma_flattens_to_poisson_noise(super_resolution):
    camera = Camera(
        (512, 512), gamma=0.75, dark_current=0.3, super_resolution=super_resolution, seed=4
    )
    movie = simulate_movie(1, camera=camera, dose=800.0, specimen=None, dtype="uint32", seed=6)
    good = ~movie.defects.outliers
    raw = movie.frame(0).astype(float)
    gain = camera.gain_reference.astype(float)

    def corrected(gamma: float) -> NDArray:
        return (raw - camera.dark_reference) * np.where(good, gain, 1) ** gamma

    variance = movie.rate * gain ** (2 * movie.gamma)
    flat = corrected(movie.gamma)
    # Every single pixel is where its own Poisson noise may put it, ...
    chi_squared = np.mean((flat[good] - movie.dose) ** 2 / variance[good])
    assert chi_squared == pytest.approx(1, abs=5 * np.sqrt(2 / good.sum()))
    # ... and no pattern is left in the patches; their variance is known to 5 √(2 / 1024) = 22 %.
    assert flatness(flat, variance, good) == pytest.approx(1, abs=0.22)
    for wrong in (0.0, 1.0, -0.75):
        assert flatness(corrected(wrong), variance, good) > 5


def test_gamma_follows_equation_11():
    camera = Camera((8, 8))
    assert camera.gamma_at(1.0) == pytest.approx(0.12035633 - 0.03363192 + 1.03902726)
    # Fig. 9 and 10 of the preprint: above 1 at a low dose rate, about 0.8 to 0.85 at 7 e-/pix/s.
    assert 0.80 < camera.gamma_at(7.0) < 0.86
    assert camera.gamma_at(0.25) > 1.4
    assert Camera((8, 8), gamma=0.9).gamma_at(7.0) == 0.9
    with pytest.raises(ValueError, match="dose_rate"):
        camera.gamma_at(0.0)


def test_flats_at_several_dose_rates_give_their_gamma_back():
    """Equation 10 finds the gamma that was put in."""
    dose_rates = (0.5, 2.0, 8.0)
    flats = simulate_flats(dose_rates, (512, 512), seed=3)
    for dose_rate, movie in zip(dose_rates, flats, strict=True):
        assert movie.dose_rate == pytest.approx(dose_rate)
        assert movie.gamma == pytest.approx(Camera((8, 8)).gamma_at(dose_rate))
        gain = movie.camera.gain_reference.astype(float)
        good = ~movie.defects.outliers
        flat = np.where(good, movie.frame(0), np.nan)

        def spread(gamma, flat=flat, gain=gain, good=good):
            image = flat * gain**gamma
            return uniform_filter(np.where(good, image, image[good].mean()), 64).std()

        found = minimize_scalar(spread, bounds=(0.4, 1.8), method="bounded").x
        assert found == pytest.approx(movie.gamma, abs=0.01)


def test_the_patterns_have_the_strength_that_was_asked_for():
    strengths = {"etching": 0.05, "cmos": 0.02, "pixel": 0.03}
    for name, strength in strengths.items():
        flat = Camera.ideal(SHAPE, **{name: strength}).response(1.0) ** (
            1 / Camera((8, 8)).gamma_at(1.0)
        )
        assert np.log(flat).std() == pytest.approx(strength, rel=0.02)
    assert (Camera.ideal(SHAPE).gain_reference == 1).all()
    assert Camera.ideal(SHAPE).defects.outliers.sum() == 0


def test_dead_pixels_are_zero_in_the_gain_reference_and_nothing_else_is():
    camera = Camera(SHAPE, dead=1e-3, seed=3)
    np.testing.assert_array_equal(camera.gain_reference == 0, camera.defects.dead)
    assert np.isfinite(camera.gain_reference).all()


def test_super_resolution_repeats_physical_pixels():
    camera = Camera((128, 256), super_resolution=2, dark=1e-3, dead=1e-3, seed=1)
    assert camera.physical_shape == (64, 128)
    assert camera.defects.outliers.any()
    for image in (camera.gain_reference, camera.defects.excess, camera.defects.response):
        blocks = image.reshape(64, 2, 128, 2)
        assert (blocks == blocks[:, :1, :, :1]).all()
    movie = simulate_movie(1, camera=camera, dose=0.5, dose_rate=8.0)
    assert movie.frame_time == pytest.approx(4 * 0.5 / 8)


# Specimen and drift ----------------------------------------------------------------------------


def displacement(moved: NDArray, still: NDArray) -> tuple[float, float]:
    """Return (y, x) by the peak of the cross-correlation, interpolated by a parabola."""
    window = np.outer(np.hanning(still.shape[0]), np.hanning(still.shape[1]))
    first = np.fft.rfft2((still - still.mean()) * window)
    second = np.fft.rfft2((moved - moved.mean()) * window)
    correlation = np.fft.irfft2(second * first.conj(), s=still.shape)
    peak = np.unravel_index(correlation.argmax(), correlation.shape)
    found = []
    for axis, (place, size) in enumerate(zip(peak, still.shape, strict=True)):
        line = np.take(correlation, peak[1 - axis], axis=1 - axis)
        low, top, high = line[place - 1], line[place], line[(place + 1) % size]
        offset = 0.5 * (low - high) / (low - 2 * top + high)
        found.append((place + offset + size / 2) % size - size / 2)
    return found[0], found[1]


def test_drift_is_where_cross_correlation_finds_the_specimen():
    path = np.array([(0, 0), (3, 0), (0, -4), (1.5, 2.25), (-7.6, 5.3)])
    movie = simulate_movie(
        5, camera=Camera.ideal(SHAPE), dose=500.0, drift=path, dtype=np.uint16, seed=2
    )
    frames = movie.frames.astype(float)
    for index, expected in enumerate(path):
        assert displacement(frames[index], frames[0]) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("specimen", [Specimen(), CARBON_EDGE, CRYSTALLINE_ICE])
def test_images_are_single_precision(specimen):
    """Half the memory and time of numpy's default, and precise beyond any counting noise."""
    image = Scene(specimen, SHAPE, 1.35, seed=1).averaged(np.zeros((1, 2)))
    assert image.dtype == np.float32
    movie = simulate_movie(2, SHAPE, specimen=specimen)
    assert movie.rate.dtype == movie.expected.dtype == np.float32
    assert movie.camera.gain_reference.dtype == movie.camera.dark_reference.dtype == np.float32


def test_a_whole_pixel_of_drift_moves_the_image_by_exactly_that():
    scene = Scene(Specimen(), SHAPE, 1.35, seed=1)
    still, moved = (scene.averaged(np.array([drift], float)) for drift in [(0, 0), (2, -3)])
    np.testing.assert_allclose(moved[2:, :-3], still[:-2, 3:], atol=1e-5)


def test_the_mean_over_a_path_is_the_mean_of_its_frames():
    path = drift_path(7, 9.0, np.random.default_rng(1))
    scene = Scene(Specimen(), SHAPE, 1.35, seed=1)
    each = np.mean([scene.averaged(path[index : index + 1]) for index in range(7)], axis=0)
    np.testing.assert_allclose(scene.averaged(path), each, atol=1e-5)


@given(n_frames=st.integers(2, 200), length=st.floats(0, 100), seed=st.integers(0, 2**32))
def test_a_drift_path_starts_at_rest_and_has_its_length(n_frames, length, seed):
    path = drift_path(n_frames, length, np.random.default_rng(seed))
    steps = np.hypot(*np.diff(path, axis=0).T)
    assert path.shape == (n_frames, 2)
    assert (path[0] == 0).all()
    assert steps.sum() == pytest.approx(length)
    assert (np.diff(steps) <= 1e-9).all()  # It slows down.


@pytest.mark.parametrize("contrast", [0.02, 0.1])
def test_contrast_is_the_standard_deviation_over_the_mean(contrast):
    specimen = Specimen(contrast=contrast, thickness_variation=0)
    image = Scene(specimen, (512, 512), 1.35, seed=1).averaged(np.zeros((1, 2)))
    assert image.std() == pytest.approx(contrast, rel=0.1)
    assert image.mean() == pytest.approx(1, abs=0.01)


def test_particles_are_dark():
    """Underfocused protein is dark: the image's low frequencies are skewed to the dark side."""

    def skewness(spacing: float) -> float:
        specimen = Specimen(spacing=spacing, thickness_variation=0)
        image = Scene(specimen, (768, 768), 1.35, seed=1).averaged(np.zeros((1, 2)))
        smooth = uniform_filter(image, 8)
        return float(np.mean(((smooth - smooth.mean()) / smooth.std()) ** 3))

    assert skewness(210.0) < -0.3
    assert abs(skewness(np.inf)) < 0.1


@pytest.mark.parametrize("specimen", [CARBON_EDGE, CRYSTALLINE_ICE])
def test_high_contrast_specimens_stand_out_from_ice(specimen):
    def spread(kind, seed):
        image = Scene(kind, (512, 512), 1.35, seed).averaged(np.zeros((1, 2)))
        return uniform_filter(image, 64).std()

    ice = max(spread(Specimen(), seed) for seed in range(5))
    assert min(spread(specimen, seed) for seed in range(5)) > 3 * ice


# Sessions --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session():
    return simulate_session(
        30, 4, (256, 256), hot=(0.002, 0.006), lifetime=8, exceptions={7: CARBON_EDGE}, seed=9
    )


def test_hot_pixels_become_more_and_come_and_go(session):
    expected = np.rint(np.linspace(0.002, 0.006, 30) * 256 * 256)
    np.testing.assert_array_equal(session.n_hot, expected)
    masks = np.stack([movie.defects.hot for movie in session.iter_movies()])
    np.testing.assert_array_equal(masks.sum(axis=(1, 2)), expected)
    # A pixel lives 8 stacks on average: 1/8 of the hot ones anneal from each stack to the next.
    survived = (masks[:-1] & masks[1:]).sum() / masks[:-1].sum()
    assert survived == pytest.approx(7 / 8, abs=5 * np.sqrt(7 / 64 / masks[:-1].sum()))
    assert ((~masks[:-1]) & masks[1:]).any(axis=(1, 2)).all()


def test_very_hot_pixels_appear_at_any_time():
    camera = Camera((256, 256), hot=0.002, very_hot=0.002, seed=1)
    session = simulate_session(10, 1, camera=camera, hot=(0.01, 0.02), lifetime=5, seed=1)
    for movie in session.iter_movies():
        excess = movie.defects.excess[movie.defects.hot]
        share = np.mean(excess >= camera.very_hot_excess[0])
        assert share == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(excess.size))


def test_a_camera_may_also_recover_over_a_session():
    session = simulate_session(5, 1, (128, 128), hot=(0.01, 0.002), lifetime=50, seed=1)
    np.testing.assert_array_equal(session.n_hot, np.rint(np.linspace(0.01, 0.002, 5) * 128 * 128))


def test_the_default_session_has_the_hot_pixels_of_the_preprint():
    """Fig. 7a: from about 5,500 to 12,300 on the 3838 x 3710 pixels of a K2, over 500 stacks."""
    camera = Camera((3710, 3838), dark=0, dead=0)
    n_hot = simulate_session(500, 100, camera=camera, dtype="uint8").n_hot
    assert n_hot[0] == pytest.approx(5500, rel=0.02)
    assert n_hot[-1] == pytest.approx(12300, rel=0.02)


def test_the_fixed_pattern_and_the_dead_pixels_are_those_of_the_camera(session):
    camera = session.template.camera
    for movie in (session.movie(0), session.movie(-1)):
        assert movie.camera is camera
        np.testing.assert_array_equal(movie.defects.dead, camera.gain_reference == 0)
        np.testing.assert_array_equal(movie.defects.dark, camera.defects.dark)


def test_a_stack_comes_out_the_same_each_time_and_no_two_are_alike(session):
    first, second = session.movie(3), session.movie(4)
    np.testing.assert_array_equal(first.frames, session.movie(3).frames)
    np.testing.assert_array_equal(first.frames, session.movie(3 - 30).frames)
    assert (first.frames != second.frames).mean() > 0.3
    assert not np.allclose(first.drift[-1], second.drift[-1])
    vacuum = first.camera.response(first.dose_rate)
    ghost = np.corrcoef((first.rate / vacuum).ravel(), (second.rate / vacuum).ravel())[0, 1]
    assert abs(ghost) < 0.1  # Each has its own particles.


def test_exceptions_are_where_they_were_put(session):
    assert [index for index, kind in enumerate(session.specimens) if kind == CARBON_EDGE] == [7]
    spread = [uniform_filter(movie.rate, 64).std() for movie in session.iter_movies()]
    assert int(np.argmax(spread)) == 7


def test_the_dose_accumulates_from_stack_to_stack(session):
    np.testing.assert_allclose(session.cumulative_dose, np.arange(30) * 4.0)


def test_there_is_no_stack_past_the_end(session):
    with pytest.raises(IndexError, match="30"):
        session.movie(30)


# Refusals and rooms ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (0, 8)},
        {"shape": (9, 8), "super_resolution": 2},
        {"super_resolution": 3},
        {"hot": -0.1},
        {"hot": 0.2},
        {"clustered": 1.5},
        {"counts_per_electron": 0},
        {"hot_excess": (0.0, 1.0)},
        {"dark_response": (0.0, 0.5)},
        {"dark_response": (0.2, 1.0)},
    ],
)
def test_an_impossible_camera_is_refused(wrong):
    with pytest.raises(ValueError):
        Camera(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_frames": 0},
        {"dose": 0.0},
        {"dose_rate": -1.0},
        {"pixel_size": 0.0},
        {"dtype": "complex64"},
        {"shape": (8, 8), "camera": Camera((8, 9))},
        {"drift": np.zeros((3, 2))},
    ],
)
def test_an_impossible_movie_is_refused(wrong):
    with pytest.raises(ValueError):
        simulate_movie(**({"n_frames": 2} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"n_stacks": 0}, {"exceptions": {5: None}}, {"lifetime": 0.5}, {"hot": (-1.0, 0.1)}],
)
def test_an_impossible_session_is_refused(wrong):
    with pytest.raises(ValueError):
        simulate_session(**({"n_stacks": 5, "shape": (16, 16)} | wrong))


@pytest.mark.parametrize(
    "wrong", [{"contrast": -0.1}, {"diameter": 0.0}, {"carbon": 1.0}, {"crystals": -0.1}]
)
def test_an_impossible_specimen_is_refused(wrong):
    with pytest.raises(ValueError):
        Specimen(**wrong)


def test_a_movie_describes_itself_in_plain_values(movie):
    description = movie.describe()
    assert description["n_hot"] == movie.defects.hot.sum()
    assert description["dose_per_frame"] == 1.5
    assert len(description["drift"]) == 24
    plain = (bool, int, float, str, list)
    assert all(type(value) in plain for value in description.values())


def test_truth_is_frozen(movie):
    with pytest.raises(dataclasses.FrozenInstanceError):
        movie.dose = 2.0


def test_the_simulation_knows_numpy_and_scipy_only():
    for path in Path(napari_mrcz.simulation.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_mrcz"):
                assert node.module.startswith("napari_mrcz.simulation.")
