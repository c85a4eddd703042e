"""Degenerate and wrong input to the outlier filter: each has a defined answer."""

import tracemalloc

import numpy as np
import pytest

from napari_mrcz.correction import OutlierFilter

MODELS = ["poisson", "normal"]


def noise(shape=(4, 64, 64), mean=5.0, dtype=np.uint8):
    return np.random.default_rng(7).poisson(mean, shape).astype(dtype)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fill", ["sample", "expectation"])
@pytest.mark.parametrize("value", [0, 7, 0.37])
def test_a_constant_image_stays_as_it_is(model, fill, value):
    frames = np.full((3, 16, 16), value, np.uint8 if isinstance(value, int) else np.float32)
    fitted = OutlierFilter.fit(frames, model=model, fill=fill)
    assert fitted.n_hot == fitted.n_dark == fitted.n_defects == 0
    assert fitted.thresholds.hot_is_default
    assert fitted.thresholds.dark_is_default
    assert not fitted.mask.any()
    assert np.array_equal(fitted(frames[0], 0), frames[0])
    assert any("the same sum" in warning for warning in fitted.warnings)
    assert not OutlierFilter.fit(noise(), model=model, fill=fill).warnings


@pytest.mark.parametrize("model", MODELS)
def test_one_hot_pixel_in_the_dark(model):
    frames = np.zeros((3, 16, 16), np.uint8)
    frames[:, 8, 9] = 50
    fitted = OutlierFilter.fit(frames, model=model)
    assert fitted.n_hot == 1
    assert fitted.n_dark == 0
    assert fitted.mask[8, 9] == 1
    assert not fitted(frames[0], 0).any()


@pytest.mark.parametrize("model", MODELS)
def test_one_frame(model):
    frames = noise((1, 128, 128), mean=30.0)
    frames[0, 50, 60] = 200
    fitted = OutlierFilter.fit(frames, model=model)
    assert fitted.replacement.per_electron == 1
    assert fitted.mask[50, 60] == 1
    assert fitted.sigma == pytest.approx(30**0.5, rel=0.05)
    assert abs(int(fitted(frames[0], 0)[50, 60]) - 30) < 6 * 30**0.5


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 9), (9, 1), (3, 4)])
def test_tiny_images(model, shape):
    frames = noise((4, *shape))
    fitted = OutlierFilter.fit(frames, model=model)
    assert fitted.n_hot + fitted.n_dark <= 1
    assert fitted(frames[0], 0).shape == shape
    known = OutlierFilter.fit(
        frames, model=model, defects=np.arange(frames[0].size).reshape(shape) > 0
    )
    assert known.n_defects == frames[0].size - 1
    assert known(frames[0], 0).shape == shape


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("fill", ["sample", "expectation"])
def test_pixels_that_are_not_finite_are_defects(model, fill):
    frames = noise((4, 64, 64), dtype=np.float32)
    frames[1, 3, 4] = np.nan
    frames[2, 0, 0] = np.inf
    fitted = OutlierFilter.fit(frames, model=model, fill=fill)
    assert fitted.n_defects == 2
    assert fitted.mask[3, 4] == fitted.mask[0, 0] == 2
    for index, frame in enumerate(frames):
        out = fitted(frame, index)
        assert np.isfinite(out).all()
        assert 0 <= out[3, 4] < 25


def test_gains_that_are_none_are_defects():
    gain = np.ones((64, 64))
    gain[1, 2], gain[3, 4], gain[5, 6], gain[7, 8] = 0, -1, np.nan, np.inf
    fitted = OutlierFilter.fit(noise(), gain=gain)
    assert fitted.n_defects == 4
    out = fitted(noise()[0], 0)
    assert out.dtype == np.uint8
    assert np.isfinite(fitted.replacement.expected).all()
    assert fitted.replacement.expected == pytest.approx(5, abs=3)


@pytest.mark.parametrize("offset", [0.0, -5.0])
def test_numbers_that_are_no_counts(offset):
    frames = np.random.default_rng(1).normal(offset, 1.0, (4, 128, 128)).astype(np.float32)
    frames[:, 5, 6] += 10
    for options in ({}, {"model": "normal"}, {"fill": "expectation"}):
        with pytest.raises(ValueError, match="model='normal' with fill='expectation'"):
            OutlierFilter.fit(frames, **options)
    fitted = OutlierFilter.fit(frames, model="normal", fill="expectation")
    assert fitted.mask[5, 6] == 1
    assert fitted.n_hot < 60
    assert fitted.sigma == pytest.approx(2, rel=0.05)
    assert fitted.mean == pytest.approx(4 * offset, abs=0.1)


def test_counts_do_not_pass_the_end_of_their_type():
    frames = np.minimum(noise((4, 64, 64), mean=250.0, dtype=np.uint16), 255).astype(np.uint8)
    defects = np.zeros((64, 64), np.bool_)
    defects[::4, ::4] = True
    fitted = OutlierFilter.fit(frames, defects=defects)
    drawn = fitted(frames[0], 0)[defects]
    assert drawn.max() == 255
    assert drawn.min() > 180
    flags = np.random.default_rng(1).random((6, 64, 64)) < 0.1
    out = OutlierFilter.fit(flags, defects=defects)(flags[0], 0)
    assert out.dtype == np.bool_


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.zeros((4, 4)), {}, "frames"),
        (np.zeros((0, 4, 4)), {}, "frames"),
        (np.zeros((2, 4, 4), np.complex64), {}, "real"),
        (np.full((2, 4, 4), np.nan), {}, "no pixel is usable"),
        (np.zeros((2, 4, 4)), {"model": "gauss"}, "model"),
        (np.zeros((2, 4, 4)), {"fill": "zero"}, "fill"),
        (np.zeros((2, 4, 4)), {"order": 0.0}, "order"),
        (np.zeros((2, 4, 4)), {"tolerance": 1.0}, "tolerance"),
        (np.zeros((2, 4, 4)), {"seed": -1}, "seed"),
        (np.zeros((2, 4, 4)), {"gain": np.ones((4, 5))}, "gain"),
        (np.zeros((2, 4, 4)), {"defects": np.ones((4, 4), bool)}, "no pixel is usable"),
        (np.zeros((2, 4, 4)), {"defects": np.ones((3, 4), bool)}, "defects"),
        (np.zeros((2, 4, 4)), {"counts_per_electron": 0.0}, "above 0"),
    ],
)
def test_wrong_input_is_refused_with_a_reason(frames, options, message):
    with pytest.raises(ValueError, match=message):
        OutlierFilter.fit(frames, **options)


def test_frames_of_another_shape_or_kind_are_refused():
    fitted = OutlierFilter.fit(noise())
    with pytest.raises(ValueError, match=r"\(64, 64\)"):
        fitted(np.zeros((64, 65), np.uint8), 0)
    with pytest.raises(ValueError, match="real"):
        fitted.output_dtype(np.complex64)


@pytest.mark.parametrize("model", MODELS)
def test_saturated_frames_of_32_bits_take_no_memory(model):
    """As many electrons as there are grey values would be 180 GB of them."""
    frames = np.full((6, 16, 16), 2**32 - 1, np.uint32)
    tracemalloc.start()
    try:
        fitted = OutlierFilter.fit(frames, model=model)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert fitted.n_hot == fitted.n_dark == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scale", [1e25, 1e36, 1e-40])
def test_sums_of_a_size_that_no_counts_have_are_refused(model, scale):
    frames = (noise().astype(np.float64) * scale).astype(np.float32)
    with pytest.raises(ValueError, match="not counts of electrons"):
        OutlierFilter.fit(frames, model=model)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_the_scale_of_the_counts_does_not_matter(scale):
    frames = noise(mean=50).astype(np.float32)
    frames[:, 8, 9] = 500
    fitted = OutlierFilter.fit(frames * np.float32(scale))
    assert np.array_equal(fitted.mask, OutlierFilter.fit(frames).mask)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", MODELS)
def test_a_pixel_too_large_to_compute_with_is_a_defect(model):
    frames = noise(dtype=np.float32)
    frames[:, 8, 9] = 1e35
    fitted = OutlierFilter.fit(frames, model=model)
    assert fitted.mask[8, 9] == 2
    assert fitted(frames[0], 0).max() < 50


@pytest.mark.parametrize("movie", [None, "movie.mrcz", 5, [[1, 2]]])
def test_what_is_no_movie_is_refused(movie):
    with pytest.raises(ValueError, match="outliers are looked for in frames"):
        OutlierFilter.fit(movie)
