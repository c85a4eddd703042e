"""The exponent of the gain reference: put in, and come back."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from napari_mrcz.correction import PREPRINT_GAMMA, GainNormalization, GammaCurve, fit_gamma
from napari_mrcz.correction.gamma import FittedGamma
from napari_mrcz.errors import MrczWarning
from napari_mrcz.simulation import GAMMA_COEFFICIENTS, Camera, simulate_flats

RATES = np.geomspace(0.25, 9.0, 12)


@pytest.mark.parametrize("gamma", [0.75, 0.85, 1.0, 1.1])
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_gamma_comes_back(gamma, scale):
    camera = Camera((512, 512), gamma=gamma, seed=5)
    flat = simulate_flats([4.0], camera=camera, seed=5)[0].frames
    # A reference that is not normalised: without dividing by the mean, gamma would run away.
    assert fit_gamma(flat, scale * camera.gain_reference) == pytest.approx(gamma, abs=0.01)
    # As for one that divides.
    reciprocal = np.divide(1, camera.gain_reference, where=camera.gain_reference > 0,
                           out=np.zeros((512, 512), np.float32))  # fmt: skip
    assert fit_gamma(flat[0], reciprocal) == pytest.approx(-gamma, abs=0.01)


def test_a_reference_that_does_not_belong_to_the_flat_is_refused():
    camera = Camera((256, 256), gamma=1.0)
    flat = simulate_flats([4.0], camera=camera)[0].frames
    with pytest.raises(ValueError, match="no pattern"):
        fit_gamma(flat, np.ones((256, 256)))
    with pytest.raises(ValueError, match="does not fit"):
        fit_gamma(flat, np.ones((256, 128)))
    with pytest.raises(ValueError, match="turned"):
        fit_gamma(flat, camera.gain_reference, bounds=(2.0, 3.0))


def flat_of(counts, gamma=0.85, seed=0, shape=(256, 256)):
    """Return a flat of so many counts, and its reference: smooth sweeps of 3 %, pixels of 3 %."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    pattern = 0.04 * np.sin(x / 30 + y / 50) + 0.03 * rng.standard_normal(shape)
    return rng.poisson(counts * np.exp(-gamma * pattern)), np.exp(pattern)


@pytest.mark.parametrize("counts", [30, 300, 3000])
def test_its_error_is_that_of_repeated_flats(counts):
    fits = [fit_gamma(*flat_of(counts, seed=seed)) for seed in range(12)]
    assert not any(fit.warnings for fit in fits)
    scatter = np.std(fits)
    assert scatter / 2 < np.median([fit.error for fit in fits]) < 4 * scatter
    assert np.mean(fits) == pytest.approx(0.85, abs=scatter)
    again = pickle.loads(pickle.dumps(fits[0]))
    assert (again, again.error, again.warnings) == (fits[0], fits[0].error, ())


def test_a_flat_that_determines_nothing_is_warned_of():
    with pytest.warns(MrczWarning, match="not determined"):
        few = fit_gamma(*flat_of(1.0))
    assert "as many are needed" in few.warnings[0]
    assert GainNormalization(np.ones((2, 2)), few).warnings[0] == few.warnings[0]
    flat, reference = flat_of(300)
    with pytest.warns(MrczWarning, match="applied already"):
        done = fit_gamma(flat * reference**0.85, reference)
    assert abs(done) < 0.05
    with pytest.warns(MrczWarning, match="saturated"):
        fit_gamma(np.stack([flat, np.full_like(flat, 65535)]), reference)
    tilted = flat * (1 + np.linspace(-0.05, 0.05, 256))
    with pytest.warns(MrczWarning, match="uneven"):
        assert fit_gamma(tilted, reference).warnings


def test_a_pedestal_and_a_noisy_reference_are_warned_of():
    rng = np.random.default_rng(3)
    _, reference = flat_of(1)
    frames = rng.poisson(5 * reference**-0.85, (48, 256, 256))
    assert not fit_gamma(frames, reference).warnings
    with pytest.warns(MrczWarning, match=r"About [12]\d ± \d % of the flat"):
        pulled = fit_gamma(frames + 1.5, reference)
    assert pulled == pytest.approx(0.85 * 5 / 6.5, abs=0.02)
    with pytest.warns(MrczWarning, match=r"noisy.*wrong by 0\.0\d"):
        fit_gamma(frames, 30 / (1 + rng.poisson(30 / reference)))


def test_a_curve_through_scattered_gammas_is_warned_of():
    rng = np.random.default_rng(0)
    sure = GammaCurve.fit(RATES, [PREPRINT_GAMMA(rate) for rate in RATES])
    assert not sure.warnings
    assert sure.at(2.0) == pytest.approx(PREPRINT_GAMMA(2.0), abs=1e-4)
    wild = GammaCurve.fit(RATES[:6], 0.9 + 0.1 * rng.standard_normal(6))
    assert "uncertain by up to" in wild.warnings[0]
    doubtful = [FittedGamma(PREPRINT_GAMMA(rate), 0.1, ("?",)) for rate in RATES]
    assert GammaCurve.fit(RATES, doubtful).warnings[0].startswith("12 of 12 gammas are doubtful")


@pytest.mark.slow
def test_the_curve_comes_back_from_flats_at_twelve_dose_rates():
    camera = Camera((1024, 1024), seed=1)
    flats = simulate_flats(RATES, camera=camera, electrons=1600, seed=2)
    gammas = [fit_gamma(flat.frames, camera.gain_reference) for flat in flats]
    assert np.abs(np.subtract(gammas, [flat.gamma for flat in flats])).max() < 0.01
    curve = GammaCurve.fit(RATES, gammas)
    np.testing.assert_allclose([curve.a1, curve.b1, curve.a2, curve.a3], GAMMA_COEFFICIENTS, 0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_comes_back_from_noisy_gammas(seed):
    noise = 5e-4 * np.random.default_rng(seed).standard_normal(12)
    curve = GammaCurve.fit(RATES, [PREPRINT_GAMMA(rate) for rate in RATES] + noise)
    np.testing.assert_allclose([curve.a1, curve.b1, curve.a2, curve.a3], GAMMA_COEFFICIENTS, 0.05)
    assert curve.at(2.0) == pytest.approx(PREPRINT_GAMMA.at(2.0), abs=1e-3)


def test_the_constant_is_the_preprints():
    # Read off fig. 9: the curve passes 0.85 at 7 e-/pix/s nearly (fig. 10) and rises to the left.
    assert PREPRINT_GAMMA(7.0) == pytest.approx(0.82, abs=0.03)
    assert PREPRINT_GAMMA(0.25) == pytest.approx(1.54, abs=0.01)
    assert (PREPRINT_GAMMA.a1, PREPRINT_GAMMA.b1, PREPRINT_GAMMA.a2, PREPRINT_GAMMA.a3) == (
        GAMMA_COEFFICIENTS
    )


def test_it_does_not_speak_beyond_what_was_measured():
    assert PREPRINT_GAMMA(9.5) < PREPRINT_GAMMA(9.0)
    for rate in (0.1, 20.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"0\.25 to 9"):
            PREPRINT_GAMMA.at(rate)


@pytest.mark.parametrize(
    ("rates", "gammas"),
    [([1, 2, 3, 4], [1] * 4), ([1, 1, 2, 3, 4], [1] * 5), ([0, 1, 2, 3, 4], [1] * 5),
     ([1, 2, 3, 4, 5], [1, np.nan, 1, 1, 1]), ([1, 2, 3, 4, 5], [1, 1, 1, 1])],
)  # fmt: skip
def test_too_little_to_fit_is_refused(rates, gammas):
    with pytest.raises(ValueError, match="dose rate"):
        GammaCurve.fit(rates, gammas)


def test_it_is_saved_as_json(tmp_path):
    path = tmp_path / "gamma.json"
    PREPRINT_GAMMA.save(path)
    assert GammaCurve.load(path) == PREPRINT_GAMMA
    doubted = replace(PREPRINT_GAMMA, warnings=("Why.",))
    doubted.save(path)
    assert GammaCurve.load(path) == doubted
    content = json.loads(path.read_text())
    del content["warnings"]  # as of the first version
    path.write_text(json.dumps(content))
    assert GammaCurve.load(path) == PREPRINT_GAMMA
    path.write_text('{"a1": 1}')
    with pytest.raises(ValueError, match="no curve of gamma"):
        GammaCurve.load(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("flat", "said"),
    [
        (np.zeros((3, 64, 64), np.uint8), "holds no counts"),
        (np.zeros((0, 64, 64), np.uint8), "without frames"),
        (np.ones((3, 64, 64), np.complex64), "not of complex64"),
        (np.ones((3, 64, 64), object), "not of object"),
        (np.ones((1, 3, 64, 64), np.uint8), "where frames"),
        ([np.ones((64, 64), np.complex64)] * 2, "not of complex64"),
    ],
)
def test_no_gamma_is_made_up_of_a_flat_that_tells_nothing(flat, said):
    reference = np.random.default_rng(1).uniform(0.9, 1.1, (64, 64))
    with pytest.raises(ValueError, match=said):
        fit_gamma(flat, reference)


@pytest.mark.filterwarnings("error")
def test_a_complex_reference_is_refused():
    with pytest.raises(ValueError, match="real values"):
        fit_gamma(np.ones((3, 64, 64), np.uint8), np.ones((64, 64), np.complex64))
