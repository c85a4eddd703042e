"""Finding which way round a gain reference lies, at few electrons."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_mrcz.correction import ORIENTATIONS, GainNormalization, find_orientation, orient
from napari_mrcz.correction.gain import doubts_of_gain
from napari_mrcz.simulation import (
    CARBON_EDGE,
    CRYSTALLINE_ICE,
    VITREOUS_ICE,
    Camera,
    simulate_movie,
)

INVERSE = {name: name for name in ORIENTATIONS} | {"rot90": "rot270", "rot270": "rot90"}


def inverted(reference):
    return np.divide(1, reference, where=reference > 0, out=np.zeros_like(reference))


@pytest.mark.parametrize(
    # The carbon of 17 hides all but the finest detail.
    "seed",
    [17, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20) if n != 17)],
)
def test_every_orientation_and_reciprocal_is_found(seed):
    specimen = (VITREOUS_ICE, CARBON_EDGE, CRYSTALLINE_ICE, None)[seed % 4]
    movie = simulate_movie(40, (160, 160), dose=0.5, specimen=specimen, seed=seed)
    reference = movie.camera.gain_reference
    for reciprocal in (False, True):
        for name in ORIENTATIONS:
            turned = orient(inverted(reference) if reciprocal else reference, name)
            found = find_orientation(movie.frames, turned)
            assert (found.best.orientation, found.best.reciprocal) == (INVERSE[name], reciprocal)
            assert found.margin > 3
            assert found.best.noise < found.before
            np.testing.assert_allclose(found.best.prepare(turned), reference, rtol=1e-6)


def test_all_are_ranked_by_the_noise_they_leave():
    movie = simulate_movie(40, (256, 256), dose=0.5, specimen=None, seed=1)
    found = find_orientation(movie.frames, movie.camera.gain_reference)
    assert len(found.candidates) == 16
    noise = [candidate.noise for candidate in found.candidates]
    assert noise == sorted(noise)
    # The wrong way round, the pattern is there twice.
    assert noise[0] < found.before < noise[1]


def test_only_what_fits_is_tried():
    movie = simulate_movie(20, (192, 256), seed=2)
    turned = np.rot90(movie.camera.gain_reference)
    found = find_orientation(movie.frames, turned)
    tried = {candidate.orientation for candidate in found.candidates}
    assert tried == {"rot90", "rot270", "transpose", "transverse"}
    assert found.best.orientation == "rot270"
    normalised = GainNormalization(turned, orientation=found.best.orientation)
    assert normalised(movie.frame(0)).shape == (192, 256)
    with pytest.raises(ValueError, match=r"fits frames of \(192, 256\) in no orientation"):
        find_orientation(movie.frames, turned[1:])


def test_a_reference_in_super_resolution_is_binned():
    rng = np.random.default_rng(3)
    response = np.exp(0.05 * rng.standard_normal((512, 512)))
    # Each frame is binned by the camera: the counts of 2 x 2 sub-pixels are added.
    rate = 0.125 * response.reshape(256, 2, 256, 2).sum(axis=(1, 3))
    frames = rng.poisson(rate, (40, 256, 256)).astype(np.uint8)
    fine = np.fliplr(1 / response)
    fine[:, 10] = 0
    found = find_orientation(frames, fine)
    assert (found.best.orientation, found.best.reciprocal) == ("fliplr", False)
    prepared = found.best.prepare(fine)
    defective = GainNormalization(prepared).defects
    assert (np.flatnonzero(defective.any(axis=0)) == 255 - 5).all()
    flat = (rate * prepared)[~defective]
    # Adding responses, not averaging factors, undoes them exactly.
    np.testing.assert_allclose(flat, 0.5, rtol=1e-6)


def test_a_coarse_reference_is_repeated():
    camera = Camera((256, 256), super_resolution=2, seed=4)
    movie = simulate_movie(40, camera=camera, dose=0.5, seed=4)
    coarse = camera.gain_reference[::2, ::2]
    best = find_orientation(movie.frames, coarse.T).best
    assert best.orientation == "transpose"
    np.testing.assert_allclose(best.prepare(coarse.T), camera.gain_reference, rtol=1e-6)


def worn(reference, seed=0):
    """Return frames of 1 e-/pixel in all that lie as `reference` turned by 90 degrees."""
    rng = np.random.default_rng(seed)
    rate = np.divide(0.05, reference, where=reference > 0, out=np.zeros(reference.shape))
    return rng.poisson(np.rot90(rate), (20, *rate.shape[::-1])).astype(np.uint8)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))]
)
def test_one_electron_per_pixel_is_enough(seed):
    reference = np.exp(0.05 * np.random.default_rng(seed).standard_normal((192, 256)))
    frames = worn(reference, seed)
    for reciprocal, turned in ((False, reference), (True, 1 / reference)):
        fine = turned.repeat(2, axis=0).repeat(2, axis=1)
        for given in (turned, fine):
            found = find_orientation(frames, given)
            assert found.helps
            assert not found.warnings
            assert (found.best.orientation, found.best.reciprocal) == ("rot90", reciprocal)
            assert found.share.value == pytest.approx(1, abs=4 * found.share.error)
            assert found.best.noise < found.before


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))]
)
def test_what_does_not_help_is_refused(seed):
    rng = np.random.default_rng(seed)
    reference = np.exp(0.05 * rng.standard_normal((128, 160)))
    frames = rng.poisson(1 / reference, (40, *reference.shape)).astype(np.uint8)
    assert find_orientation(frames, reference).helps
    normalised = (frames * reference).astype(np.float32)
    rounded = np.rint(100 * normalised).astype(np.uint16)
    columns = np.exp(0.05 * rng.standard_normal(160)) * np.ones((128, 1))
    half = normalised * reference**-0.3
    for movie, given in (
        (normalised, reference),
        (rounded, reference),
        (half, reference),
        (frames, reference[::-1] ** 0.2 * columns),
        (frames, columns),
        (frames, rng.uniform(0.5, 1.5, reference.shape)),
    ):
        found = find_orientation(movie, given)
        assert not found.helps
        assert found.significance < 0
        assert found.warnings
    assert "constant" in find_orientation(frames, np.full(reference.shape, 2.0)).warnings[0]
    # The share of 5 % in 800 electrons is known to 1 / (0.05 √800) = 0.7, where 0.25 is needed.
    few = frames[:2, :20, :20]
    assert "cannot be found" in find_orientation(few, reference[:20, :20]).warnings[0]


def test_columns_that_look_alike_upside_down_are_no_doubt():
    rng = np.random.default_rng(0)
    columns = np.exp(0.05 * rng.standard_normal(160)) * np.ones((128, 1))
    found = find_orientation(rng.poisson(1 / columns, (40, 128, 160)), columns)
    assert found.best.orientation == "identity"
    assert found.candidates[1].orientation == "flipud"
    assert found.margin > 5
    assert not found.warnings


def test_a_smooth_pattern_is_found_in_vacuum():
    """At the scale at which it is clear, not at that of a specimen."""
    y, x = np.mgrid[:256, :256]
    reference = np.exp(0.05 * np.sin(x * y / 2000) * np.cos(x / 15 + (y / 40) ** 2))
    frames = np.random.default_rng(0).poisson(1 / reference, (40, 256, 256))
    found = find_orientation(frames, np.fliplr(reference))
    assert (found.best.orientation, found.helps, found.warnings) == ("fliplr", True, ())


def test_a_noisy_reference_that_helps_as_a_whole_is_not_refused_for_its_fine_noise():
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((256, 256)), 5, mode="wrap")
    pattern = 0.05 * smooth / smooth.std()
    frames = rng.poisson(np.exp(-pattern), (40, 256, 256))
    noisy = np.exp(pattern + 0.03 * rng.standard_normal(pattern.shape))
    found = find_orientation(frames, np.fliplr(noisy))
    assert (found.best.orientation, found.helps, found.warnings) == ("fliplr", True, ())
    assert not doubts_of_gain(frames, GainNormalization(noisy))


def test_one_frame_tells_nothing():
    with pytest.raises(ValueError, match="two frames"):
        find_orientation(np.ones((1, 8, 8)), np.ones((8, 8)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((4, 64, 64), np.uint8), "no counts"),
        (np.full((4, 64, 64), np.nan, np.float32), "no counts"),
        (np.ones((4, 64, 64), np.complex64), "real numbers, not complex64"),
        (np.ones((2, 4, 64, 64), np.uint8), "images of real numbers"),
        (np.ones((64, 64), np.uint8), "images of real numbers"),
    ],
)
def test_no_orientation_is_made_up_of_frames_that_tell_nothing(frames, said):
    reference = np.random.default_rng(1).uniform(0.9, 1.1, (64, 64))
    with pytest.raises(ValueError, match=said):
        find_orientation(frames, reference)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reference", [np.ones(64), np.ones((64, 64), np.complex64), None])
def test_a_reference_that_is_no_image_is_refused(reference):
    frames = np.random.default_rng(1).poisson(3, (4, 64, 64))
    with pytest.raises(ValueError, match="an image of real numbers"):
        find_orientation(frames, reference)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_a_reference_without_a_good_pixel_is_refused(value):
    frames = np.random.default_rng(1).poisson(3, (4, 64, 64))
    with pytest.raises(ValueError, match="no pixel of the reference is positive"):
        find_orientation(frames, np.full((64, 64), value, np.float32))


def test_ways_that_fit_are_counted_as_they_are_tried():
    """A wide reference fits high frames in half of the ways."""
    frames = np.random.default_rng(0).poisson(3, (4, 60, 40))
    told = []
    find_orientation(frames, np.ones((40, 60)), progress=lambda *step: told.append(step))
    assert told == [(done, 8) for done in range(9)]


def test_frames_with_nothing_in_common_scatter_by_the_error():
    rng = np.random.default_rng(0)
    found = [find_orientation(rng.poisson(3, (6, 64, 64)), np.ones((64, 64))) for _ in range(60)]
    assert np.std([search.before for search in found]) == pytest.approx(found[0].error, rel=0.3)


def test_blank_and_saturated_frames_and_a_falling_dose_disturb_nothing():
    rng = np.random.default_rng(0)
    reference = np.exp(0.05 * rng.standard_normal((128, 160)))
    doses = np.linspace(3, 0.5, 20)[:, None, None]
    frames = rng.poisson(doses / reference).astype(np.uint16)
    even = find_orientation(frames, reference)
    # Of the dose alone comes no correlation.
    assert even.before == pytest.approx(0.05**2 * np.mean(doses**2) / np.mean(doses), rel=0.3)
    assert abs(even.best.noise) < 0.2 * even.before
    frames[0], frames[7] = 0, 65535
    found = find_orientation(frames, reference)
    assert found.helps
    assert found.best.orientation == "identity"
    # A pedestal is no reason to doubt the reference.
    (said,) = find_orientation(frames[8:] + 100, reference).warnings
    assert "pedestal" in said


def test_a_reference_with_the_shading_of_an_uneven_flat_is_refused():
    rng = np.random.default_rng(4)
    pixels = np.exp(0.03 * rng.standard_normal((160, 190)))
    shading = np.linspace(0.85, 1.15, 190)
    for response, reference, helps in (
        (pixels, 1 / pixels / shading, False),
        (pixels * shading, 1 / pixels / shading, True),  # the movie has it, too
    ):
        frames = rng.poisson(response, (12, *response.shape)).astype(np.uint8)
        found = find_orientation(frames, np.flipud(reference))
        assert found.best.orientation == "flipud"
        assert (found.helps, not found.warnings) == (helps, helps)
        assert bool(doubts_of_gain(frames, GainNormalization(reference))) == (not helps)
        # Two frames with the values of a saturated camera, but for dead pixels, count for nothing.
        frames[2:4] = 255
        frames[:, 5, 7] = 0
        assert find_orientation(frames, np.flipud(reference)).helps == helps
        assert bool(doubts_of_gain(frames, GainNormalization(reference))) == (not helps)


def test_wrong_shading_is_seen_beside_carbon_and_behind_an_aperture():
    y, x = np.mgrid[-1:1:160j, -1:1:190j]
    camera = Camera((160, 190), seed=4, gamma=1.0, hot=0, very_hot=0, dark=0, dead=0)
    pixels = camera.response(1.0)
    rng = np.random.default_rng(4)
    carbon, aperture = np.where(x + y / 3 > 0.3, 0.7, 1), np.where(x**2 + y**2 < 0.9, 1, 0.02)
    for specimen, fall in ((carbon, 0.2), (aperture, 0.3)):
        shading = 1 - fall * (x**2 + y**2)
        reference = 1 / pixels / shading
        for response, helps in ((pixels, False), (pixels * shading, True)):
            frames = rng.poisson(2 * response * specimen, (12, *response.shape)).astype(np.uint8)
            found = find_orientation(frames, np.flipud(reference))
            assert (found.helps, not found.warnings) == (helps, helps)
            assert bool(doubts_of_gain(frames, GainNormalization(reference))) == (not helps)
    # A beam as uneven as the reference hides whether that is right: applied, with a warning.
    frames = rng.poisson(2 * pixels * np.exp(-((x - 0.4) ** 2)), (12, *pixels.shape))
    found = find_orientation(frames, reference)
    assert found.helps
    assert "cannot be seen" in found.warnings[-1]
