"""Sums of ranges, as the Movie widget computes them, their spectrum, drift and parts."""

from unittest import mock

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.simulation import Camera, Specimen, simulate_movie
from napari_mrcz.widgets.movie import model
from napari_mrcz.widgets.movie.model import FrameSums, doses, drift_of, part_of, picture_of

INTEGERS = [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32]


def no_report(stage: str, done: int, total: int | None) -> None:
    """Take what a job reports."""


def sums_of(frames) -> FrameSums:
    return FrameSums(nm.Stack.from_array(frames), no_report)


@st.composite
def movies_and_ranges(draw, dtypes):
    """Return frames, and the two ends of a range of them."""
    shape = draw(st.integers(2, 17)), *draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dtype = draw(st.sampled_from(dtypes))
    finite = {"elements": {"allow_nan": False, "allow_infinity": False}}
    options = finite if np.dtype(dtype).kind == "f" else {}
    frames = draw(arrays.arrays(dtype, shape, **options))
    start = draw(st.integers(0, len(frames) - 1))
    return frames, start, draw(st.integers(start + 1, len(frames)))


@given(movies_and_ranges(INTEGERS), st.sampled_from([3, 40, 10**9]))
def test_the_sum_of_any_range_is_that_of_numpy(drawn, kept):
    """However many sums could be kept on the way."""
    frames, start, stop = drawn
    with mock.patch.multiple(model, _FULL_NBYTES=kept * frames[0].nbytes, _APART=2):
        sums = sums_of(frames)
    wanted = frames[start:stop].sum(axis=0, dtype=np.int64)
    exact, quick = sums.exact(start, stop, no_report), sums.quick(start, stop)
    np.testing.assert_array_equal(exact, wanted)
    np.testing.assert_allclose(quick, wanted, rtol=1e-4, atol=1e-4)
    assert quick.dtype == exact.dtype  # another would be another texture, while a range is dragged


@given(movies_and_ranges([np.float16, np.float32]))
def test_sums_of_floating_frames_are_added_in_order_in_float64(drawn):
    frames, start, stop = drawn
    with mock.patch.object(model, "_APART", 2):
        sums = sums_of(frames)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = frames[start:stop].sum(axis=0, dtype=np.float64)
    assert (
        sums.exact(start, stop, no_report).tobytes() == wanted.tobytes() or np.isnan(wanted).any()
    )


def test_pictures_while_dragging_are_binned_and_ranges_rounded_to_what_is_kept():
    rng = np.random.default_rng(0)
    frames = rng.poisson(1.0, (40, 64, 48)).astype(np.uint8)
    with mock.patch.multiple(model, _PICTURE=16, _BINNED_NBYTES=2500):
        sums = sums_of(frames)
    assert sums.binning == 4
    assert sums.nbytes < 2500 + 40 * frames[0].nbytes
    assert sums.quick(3, 30).shape == (16, 12)
    whole = frames.sum(axis=0).reshape(16, 4, 12, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(sums.quick(0, 40), whole, rtol=1e-6)
    assert sums.quick(17, 18).mean() == pytest.approx(1, rel=0.1)
    assert sums.mean == pytest.approx(frames.mean())


def test_what_is_kept_of_a_large_movie_is_bounded():
    frames = np.broadcast_to(np.uint8(255), (40, 512, 512))
    with mock.patch.multiple(model, _PICTURE=256, _BINNED_NBYTES=10**6, _FULL_NBYTES=2 * 10**6):
        sums = sums_of(frames)
    assert 2 * 10**6 < sums.nbytes <= 3 * 10**6
    assert sums.exact(5, 17, no_report).max() == 12 * 255
    assert sums.quick(5, 17).max() == pytest.approx(12 * 255)


def test_damaged_frames_count_as_nothing_and_are_named(tmp_path):
    frames = np.random.default_rng(0).poisson(9.0, (8, 40, 40)).astype(np.uint8)
    nm.write(tmp_path / "movie.mrcz", frames)
    data = bytearray((tmp_path / "movie.mrcz").read_bytes())
    at = 1024 + (len(data) - 1024) // 3
    data[at : at + 60] = bytes(60)
    (tmp_path / "movie.mrcz").write_bytes(data)
    with nm.open(tmp_path / "movie.mrcz") as movie:
        sums = FrameSums(movie, no_report)
        (lost,) = sums.damaged
        good = np.delete(frames, lost, axis=0).sum(axis=0)
        np.testing.assert_array_equal(sums.exact(0, 8, no_report), good)


@pytest.mark.parametrize("binning", [1, 2])
def test_a_low_pass_halves_waves_of_its_spacing(binning):
    """Those ten times as long pass, and borders cast no shadow on the other side."""
    x = np.arange(256)
    for spacing, factor in ((20.0, 0.5), (200.0, 2**-0.01)):
        wave = np.tile(np.cos(2 * np.pi * x * 1.25 / spacing), (64, 1)).astype(np.float32)
        passed = picture_of(wave, binning, 20.0, (1.25, 1.25))
        plain = picture_of(wave, binning, 0.0, (1.25, 1.25))
        inside = np.s_[:, 64 // binning : 192 // binning]
        assert passed[inside].std() / plain[inside].std() == pytest.approx(factor, abs=0.01)
    step = np.repeat([[0.0, 1.0]], 128, axis=1).repeat(64, axis=0)
    passed = picture_of(step, binning, 20.0, (1.25, 1.25))
    assert passed[:, 0].max() < 0.01 and passed[:, -1].min() > 0.99


def test_an_average_is_divided_and_nothing_to_do_leaves_the_sum_as_it_is():
    total = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert picture_of(total, 1, 0.0, (1.0, 1.0)) is total
    np.testing.assert_allclose(picture_of(total, 1, 0.0, (1.0, 1.0), 4), total / 4)


@pytest.mark.parametrize(
    ("metadata", "in_all"),
    [
        ({"dose": 30.0}, 30.0),
        ({"dose": [1.0, 2.0, 3.0, 4.0]}, 10.0),
        ({"simulated": True, "dose_per_frame": 2.0}, 2.0),
        ({"eer": {"totalDose": 8.0, "totalDose.unit": "e/pixel"}}, 2.0),
        ({"eer": {"totalDose": 8.0, "totalDose.unit": "e/A^2"}}, 8.0),
        ({"dose": [1.0, 2.0]}, None),
        ({"dose": float("nan")}, None),
        ({}, None),
    ],
)
def test_the_dose_is_told_where_it_is_known(metadata, in_all):
    stack = nm.Stack.from_array(np.ones((4, 8, 8)), pixel_size=2.0, metadata=metadata)
    found = doses(stack)
    assert (found is None) if in_all is None else found[-1] == pytest.approx(in_all)
    if in_all is not None:
        assert found[0] == 0 and len(found) == 5


def test_minima_of_the_spectrum_are_the_zeros_of_the_transfer_function():
    """Within one ring of 1/(512 pixels): Rohou and Grigorieff (2015), as simulated."""
    pixel, defocus, wavelength, aberration = 1.35, 1.5, 0.0197, 2.7e7
    carbon = Specimen(contrast=0.3, spacing=np.inf, defocus=defocus, thickness_variation=0.0)
    movie = simulate_movie(
        2, camera=Camera.ideal((1024, 1024), seed=1), dose=40.0, specimen=carbon, drift=0.0,
        pixel_size=pixel, seed=1,
    )  # fmt: skip
    shown = model.spectrum_of(movie.frames.sum(axis=0), (pixel, pixel), no_report)
    squared = np.square(shown.frequency)
    phase = (
        np.pi * wavelength * squared * (1e4 * defocus - 0.5 * aberration * wavelength**2 * squared)
    )
    turns = (phase + np.arcsin(0.1)) / np.pi
    zeros = [float(np.interp(k, turns, shown.frequency)) for k in range(1, 5)]
    ring = 1 / (512 * pixel)
    assert shown.nyquist == pytest.approx(1 / (2 * pixel)) and shown.known
    for zero in zeros:
        near = np.abs(shown.frequency - zero) < 5 * ring
        lowest = shown.frequency[near][shown.radial[near].argmin()]
        assert abs(lowest - zero) <= 1.01 * ring
    assert shown.radial[-20:].mean() == pytest.approx(1, rel=0.1)


def test_a_spectrum_of_nothing_is_no_error():
    shown = model.spectrum_of(np.zeros((64, 64), np.uint8), (0.0, 0.0), no_report)
    assert np.isfinite(shown.radial).all() and not shown.known


def test_the_fixed_pattern_is_shown_before_and_after_corrections():
    """By the same shifts: only what was applied here is taken back."""
    frames = simulate_movie(12, (256, 256), dose=2.0, drift=12.0, seed=1).frames
    stack = nm.Stack.from_array(frames)
    clean = stack.apply(nm.OutlierFilter.fit(stack))
    stages = []
    shown = drift_of(clean, 3, lambda stage, done, total: stages.append(stage))
    height, correlation = shown.before
    assert height > 1 > 0.3 > abs(shown.found.fixed_pattern)
    at_zero = np.abs(correlation[:, 0]).argmin()
    assert correlation[at_zero, 1] == correlation[:, 1].max() > 2
    assert shown.found.correlation[at_zero, 1] < 1
    assert drift_of(stack, 3, no_report).before is None
    np.testing.assert_array_equal(np.asarray(clean.recorded()), frames)
    assert clean.recorded().history == () and len(clean.history) == 1
    assert any("before" in stage.lower() for stage in stages)


def test_a_part_is_lazy_and_knows_its_dose():
    frames = np.random.default_rng(0).poisson(2.0, (6, 20, 30)).astype(np.uint8)
    stack = nm.Stack.from_array(frames, metadata={"dose": 12.0})
    corners = np.array([[3.6, -5.0], [12.2, 9.4]])
    part, first = part_of(stack, (1, 4), corners)
    np.testing.assert_array_equal(np.asarray(part), frames[1:4, 4:13, 0:10])
    assert first == (4, 0)
    assert doses(part)[-1] == pytest.approx(6.0)
    with pytest.raises(ValueError, match="outside"):
        part_of(stack, (0, 6), corners + 100)
