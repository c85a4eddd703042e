"""Gain normalisation and references made from a session, against cameras that are known."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.correction import GainNormalization, estimate_gain, find_orientation, orient
from napari_mrcz.correction.gain import GainStep, doubts_of_gain, fitted_gain
from napari_mrcz.correction.history import rebuild
from napari_mrcz.errors import MrczWarning
from napari_mrcz.session.correct import with_orientation_of
from napari_mrcz.session.recipe import Recipe
from napari_mrcz.simulation import Camera, simulate_movie, simulate_session


def test_eq_9_undoes_the_camera():
    camera = Camera((128, 128), dark_current=0.3, gamma=0.85, hot=0, very_hot=0, dark=0)
    movie = simulate_movie(1, camera=camera, specimen=None, dose=2000.0, dtype=np.uint16)
    reference, dark = camera.gain_reference, camera.dark_reference
    normalise = GainNormalization(reference, 0.85, dark)
    flat = normalise(movie.frames[0])[~normalise.defects]
    assert flat.mean() == pytest.approx(2000.0, rel=0.001)
    # Nothing but Poisson noise is left; with another gamma, or without the dark, there is more.
    assert flat.std() == pytest.approx(2000.0**0.5, rel=0.03)
    for other in (GainNormalization(reference), GainNormalization(reference, -0.85)):
        assert other(movie.frames[0])[~normalise.defects].std() > 1.02 * flat.std()


def test_the_dark_is_subtracted_before_and_lies_as_the_frames_do():
    reference = np.tile(np.array([2, 4, 8], np.float32), (2, 1))
    dark = np.array([[3, 0], [2, 2], [1, 4]], np.float32)
    frame = np.array([[5, 6], [7, 8], [9, 10]], np.uint8)
    turned = GainNormalization(reference, 1.0, dark, "rot90")
    assert turned(frame, 0).tolist() == [[16, 48], [20, 24], [16, 12]]
    # One of twice as many pixels takes the same dark.
    fine = fitted_gain(reference.repeat(2, axis=0).repeat(2, axis=1), (3, 2), dark=dark,
                       orientation="rot90")  # fmt: skip
    np.testing.assert_array_equal(fine(frame), turned(frame))


@pytest.mark.parametrize("orientation", ["identity", "rot90", "transverse"])
def test_histories_of_the_first_version_replay_bit_for_bit(orientation):
    """There the dark was turned with the reference."""
    rng = np.random.default_rng(1)
    reference, dark = rng.uniform(0.5, 2, (2, 5, 7)).astype(np.float32)
    frames = rng.poisson(9, (2, *orient(reference, orientation).shape))
    then = {
        "name": "GainNormalization",
        "software": "napari-mrcz 0.1",
        "gamma": 0.9,
        "orientation": orientation,
        "reference": reference,
        "reference_xxh3": GainNormalization(reference).describe()["reference_xxh3"],
        "dark": dark,
        "filled": False,
    }
    factor = np.power(orient(reference, orientation), 0.9, dtype=np.float64).astype(np.float32)
    wanted = (frames.astype(np.float32) - orient(dark, orientation)) * factor
    np.testing.assert_array_equal(nm.replay([then], frames), wanted)
    again = rebuild(then).describe()
    np.testing.assert_array_equal(nm.replay([again], frames), wanted)
    del then["filled"]
    np.testing.assert_array_equal(nm.replay([then], frames), wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.float16, np.float64])
def test_counts_of_every_type_give_the_same_float32(dtype):
    rng = np.random.default_rng(0)
    reference = rng.uniform(0.5, 2, (16, 16)).astype(np.float32)
    counts = rng.integers(0, 100, (16, 16))
    expected = (counts * reference.astype(np.float64)).astype(np.float32)
    normalise = GainNormalization(reference)
    frame = counts.astype(dtype)
    normalised = normalise(frame, 3)
    assert normalised.dtype == np.float32 == normalise.output_dtype(dtype)
    np.testing.assert_array_equal(normalised, expected)
    np.testing.assert_array_equal(frame, counts)


@given(
    reference=arrays.arrays(np.float32, (3, 4)),
    dark=arrays.arrays(np.float32, (3, 4), elements=st.floats(width=32, max_value=1e6)),
    gamma=st.floats(-3, 3),
    count=st.integers(0, 255),
)
def test_a_defective_pixel_is_0_and_nothing_is_infinite(reference, dark, gamma, count):
    assume((np.isfinite(reference) & (reference > 0) & np.isfinite(dark)).any())
    normalise = GainNormalization(reference, gamma, dark)
    with np.errstate(all="ignore"):  # a factor of 1e38 is a fine reference, times 255 it is none
        frame = normalise(np.full((3, 4), count, np.uint8))
    defects = normalise.defects
    assert defects[~(np.isfinite(reference) & (reference > 0) & np.isfinite(dark))].all()
    assert not frame[defects].any()
    assert not np.isnan(frame).any()
    assert np.isfinite(normalise.factor).all()


def test_frames_that_are_not_finite_stay_so_without_a_warning_of_numpy():
    normalise = GainNormalization([[1, 2, 0]])
    assert np.isnan(normalise(np.array([[np.nan, 1, np.inf]], np.float32))).tolist() == [
        [True, False, True]
    ]


def test_defects_of_the_camera_are_told():
    camera = Camera((256, 256), dead=1e-3)
    assert camera.defects.dead.sum() > 30
    np.testing.assert_array_equal(
        GainNormalization(camera.gain_reference, 0.9, orientation="transpose").defects,
        camera.defects.dead.T,
    )


def test_it_is_frozen():
    reference = np.ones((2, 2), np.float32)
    normalise = GainNormalization(reference)
    reference[:] = 7
    assert (normalise.reference == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        normalise.factor[0] = 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": np.ones(4)}, "two axes"),
        ({"reference": np.ones((2, 3)), "dark": np.ones((3, 2))}, "differ|dark of"),
        ({"reference": np.ones((2, 3)), "gamma": np.nan}, "gamma"),
        ({"reference": np.ones((2, 3)), "orientation": "upside"}, "upside"),
        ({"reference": np.zeros((2, 3))}, "no pixel that can be used"),
        ({"reference": [[-1, np.nan, np.inf]]}, "no pixel that can be used"),
        ({"reference": [[1, 0]], "dark": [[np.nan, 0]]}, "no pixel that can be used"),
    ],
)
def test_what_cannot_be_a_gain_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GainNormalization(**arguments)


def test_a_frame_that_does_not_fit_is_refused():
    normalise = GainNormalization(np.ones((2, 3)))
    with pytest.raises(ValueError, match="find_orientation"):
        normalise(np.ones((3, 2)))
    with pytest.raises(ValueError, match="complex"):
        normalise(np.ones((2, 3), np.complex64))


def test_a_reference_from_a_session_is_the_cameras():
    session = simulate_session(24, 10, (192, 192), dose=4.0, seed=3)
    movies = list(session.iter_movies())
    camera = movies[0].camera
    good = ~session.sites.defects().outliers
    masks = [movie.defects.outliers for movie in movies]
    response = camera.response(movies[0].dose_rate)
    truth = response[good].mean() / response
    counts = 24 * 10 * 4.0
    for estimate in (
        estimate_gain(movie.frames for movie in movies),
        estimate_gain((movie.frames.sum(axis=0) for movie in movies), masks),
    ):
        error = (estimate / truth - 1)[good]
        # Poisson's share, and the specimens' contrast of 6 % averaged over the stacks.
        assert error.std() == pytest.approx(np.hypot(counts**-0.5, 0.06 / 24**0.5), rel=0.15)
        assert abs(error.mean()) < 0.003
    # A pixel that was hot in some of the stacks is known from the others.
    sometimes = (
        np.any(masks, axis=0) & ~np.all(masks, axis=0) & (session.template.defects.response == 1)
    )
    assert sometimes.sum() > 10
    assert np.abs(estimate / truth - 1)[sometimes].mean() < 0.2
    assert not estimate[np.all(masks, axis=0)].any()


def test_references_from_nothing_are_refused():
    with pytest.raises(ValueError, match="no movie"):
        estimate_gain([])
    with pytest.raises(ValueError, match="fewer masks"):
        estimate_gain([np.ones((2, 4, 4))], [])
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 5\)"):
        estimate_gain([np.ones((2, 4, 4)), np.ones((2, 4, 5))])


def test_orientations_are_numpys():
    image = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(orient(image, "rot90"), [[2, 5], [1, 4], [0, 3]])
    np.testing.assert_array_equal(orient(image, "transverse"), [[5, 2], [4, 1], [3, 0]])


def test_defects_that_were_filled_before_stay_filled(tmp_path):
    """In the order of the preprint: outliers in raw counts, then the gain."""
    rng = np.random.default_rng(6)
    reference = rng.uniform(0.9, 1.1, (192, 192)).astype(np.float32)
    dead = rng.random(reference.shape) < 0.01
    frames = rng.poisson(4 / reference, (30, *reference.shape)).astype(np.uint8)
    frames[:, dead] = 0
    reference[dead] = 0
    gain = GainNormalization(reference, filled=True)
    movie = nm.Stack.from_array(frames)
    outliers = nm.OutlierFilter.fit(movie, gain=gain.factor)
    corrected = movie.apply(outliers).apply(gain)
    mean = np.asarray(corrected)[:, dead].mean()
    assert mean == pytest.approx(4, rel=0.02)
    assert (np.asarray(corrected)[:, ~dead].mean() - mean) / mean == pytest.approx(0, abs=0.02)
    np.testing.assert_array_equal(nm.replay(corrected.history, movie), corrected)
    assert not np.asarray(movie.apply(GainNormalization(reference)))[:, dead].any()


def test_a_constant_reference_and_one_of_many_defects_are_doubted():
    assert "constant" in GainNormalization(np.full((4, 4), 2.0)).warnings[0]
    reference = np.random.default_rng(0).uniform(0.9, 1.1, (20, 20)).astype(np.float32)
    assert GainNormalization(reference).warnings == ()
    reference[:2] = 0
    (said,) = GainNormalization(reference).warnings
    assert said.startswith("10 % of the pixels have no usable gain")
    described = GainNormalization(reference, warnings=("Mine.",)).describe()
    assert described["warnings"] == ["Mine.", said]
    assert rebuild(described).describe()["warnings"] == described["warnings"]


def test_a_movie_that_is_normalised_already_is_warned_of():
    rng = np.random.default_rng(0)
    reference = np.exp(0.05 * rng.standard_normal((128, 160)))
    frames = rng.poisson(1 / reference, (10, 128, 160)).astype(np.uint8)
    gain = GainNormalization(reference, 0.9)
    assert doubts_of_gain(frames, gain) == ()
    assert doubts_of_gain(frames[:1, :30, :30], GainNormalization(reference[:30, :30])) == ()
    normalised = np.stack([gain(frame) for frame in frames])
    assert doubts_of_gain(normalised, gain)
    assert doubts_of_gain(frames, GainNormalization(np.flipud(reference)))
    assert doubts_of_gain(frames + 100, gain)
    assert doubts_of_gain(frames + 100, GainNormalization(reference, 1, 0 * reference + 100)) == ()
    stack = nm.Stack.from_array(frames).apply(gain)
    with pytest.warns(MrczWarning, match="normalised already"):
        twice = stack.apply(gain)
    assert "normalised already" in twice.history[-1]["warnings"][0]
    assert not stack.history[-1]["warnings"]


@pytest.mark.parametrize("seed", range(2))
def test_a_reference_is_made_of_sums_of_one_electron_per_pixel(seed):
    rng = np.random.default_rng(seed)
    response = np.exp(0.1 * rng.standard_normal((128, 160)))
    response[3, 4:9] = 0
    response /= response.mean()
    sums = [rng.poisson(1.0 * response) for _ in range(160)]
    gain = estimate_gain(sums[:-20])
    np.testing.assert_array_equal(gain == 0, response == 0)
    good = response > 0
    assert (gain * response)[good].mean() == pytest.approx(1, abs=0.005)
    assert (gain * response)[good].std() == pytest.approx(140**-0.5, rel=0.06)
    found = find_orientation(sums[-20:], np.rot90(gain))
    assert found.best.orientation == "rot270"
    # Of few electrons it has no dead pixels by chance, and says that it is of no use.
    with pytest.warns(MrczWarning, match="noisier"):
        few = estimate_gain(sums[:4])
    assert (few > 0).all()
    assert np.mean((few * response)[good]) == pytest.approx(1 - np.exp(-4), abs=0.012)
    assert not find_orientation(sums[-20:], few).helps


def test_references_are_warned_of_that_have_a_hole_or_are_of_one_sum():
    rng = np.random.default_rng(8)
    response = np.exp(0.05 * rng.standard_normal((120, 150)))
    estimate_gain([rng.poisson(400 * response, (4, 120, 150))])  # one movie of enough electrons
    with pytest.warns(MrczWarning, match="noisier"):
        estimate_gain([rng.poisson(10 * response, (4, 120, 150))])
    with pytest.warns(MrczWarning, match="a single sum"):
        estimate_gain([rng.poisson(1600 * response)])
    response[:, 90:] *= 0.7
    with pytest.warns(MrczWarning, match="structure with steps of"):
        estimate_gain(rng.poisson(200 * response, (8, 120, 150)))


def test_dead_pixels_with_read_noise_are_defects_and_saturated_movies_count_for_nothing():
    rng = np.random.default_rng(9)
    response = np.exp(0.05 * rng.standard_normal((100, 130)))
    dead = rng.random(response.shape) < 0.002
    movies = [
        30 * rng.poisson(50 * np.where(dead, 0, response), (4, 100, 130))
        + np.rint(rng.normal(0, 8, (4, 100, 130))).astype(int)
        for _ in range(8)
    ]
    movies[2][:] = np.where(dead, 0, 32767)
    movies[5][3] = np.where(dead, 0, 32767)
    with pytest.warns(MrczWarning, match="1 blank or saturated movie and 1 saturated"):
        gain = estimate_gain(movies)
    np.testing.assert_array_equal(gain == 0, dead)
    error = (gain * response)[~dead]
    assert error.std() / error.mean() == pytest.approx((27 * 50) ** -0.5, rel=0.05)


def test_a_blank_first_movie_leaves_the_orientation_to_the_next(tmp_path):
    rng = np.random.default_rng(3)
    reference = np.exp(0.1 * rng.standard_normal((100, 120))).astype(np.float32)
    counts = rng.poisson(0.5 / reference, (10, 100, 120)).astype(np.uint8)
    for name, frames in (("blank", 0 * counts), ("good", counts)):
        nm.write(tmp_path / f"{name}.mrcz", frames)
    nm.write(tmp_path / "gain.mrc", np.flipud(reference))
    recipe = Recipe(gain=GainStep(str(tmp_path / "gain.mrc"), "auto"))
    blank, good = tmp_path / "blank.mrcz", tmp_path / "good.mrcz"
    assert with_orientation_of(recipe, [blank, good]).gain.orientation == "flipud"
    left = with_orientation_of(recipe, [blank])
    assert left.gain is None
    assert "blank or saturated" in left.warnings[0]
