"""The size that is promised before saving, against the size of the file that is then written."""

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.format import Encoding, estimate


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Poisson counts of 2 electrons a pixel."""
    return np.random.default_rng(3).poisson(2.0, (6, 500, 700)).astype(np.uint8)


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("dtype", [None, "uint16", "float32"])
def test_the_file_is_as_large_as_estimated(tmp_path, counts, codec, dtype):
    """Within a percent: three of the six frames were looked at."""
    path = tmp_path / ("counts.mrc" if codec == "none" else "counts.mrcz")
    expected = estimate(path, list(counts[::2]), Encoding(codec), dtype)
    nm.write(path, counts, codec=codec, dtype=dtype)
    size = path.stat().st_size
    assert len(counts) * expected.frame_nbytes == pytest.approx(size, rel=0.01)
    assert expected.stored == (np.dtype(dtype) if dtype else np.int8)


def test_frames_may_be_made_when_they_are_wanted(counts):
    """Functions are called once each, in order, and give the same estimate."""
    made = []
    frames = [lambda i=i: made.append(i) or counts[i] for i in range(3)]
    assert estimate("x", frames, Encoding()) == estimate("x", list(counts[:3]), Encoding())
    assert made == [0, 1, 2]


def test_shannons_bound_is_that_of_the_distribution():
    """Four equally likely values take two bits, however wide the pixels are."""
    frame = np.random.default_rng(5).integers(0, 4, (1000, 1000))
    for dtype in (np.uint8, np.int16, np.float32):
        bound = estimate("x", [frame.astype(dtype)], Encoding()).bound_nbytes
        assert bound == pytest.approx(2 / 8 * frame.size, rel=1e-3)


def test_an_estimate_never_beats_the_bound(counts):
    """Independent pixels cannot be compressed further."""
    found = estimate("x", list(counts), Encoding(level=3))
    assert found.bound_nbytes < found.frame_nbytes < 1.2 * found.bound_nbytes


def test_noise_that_never_repeats_has_no_bound():
    """A sample of values that are all different says nothing of their entropy."""
    noise = np.random.default_rng(7).normal(size=(500, 500)).astype(np.float32)
    assert estimate("x", [noise], Encoding()).bound_nbytes is None


def test_4_bits_take_half_a_byte():
    """Each row is padded to a whole byte."""
    frame = np.zeros((10, 7), np.uint8)
    assert estimate("x.mrc", [frame], Encoding("none"), "uint4").frame_nbytes == 10 * 4


def test_what_cannot_be_stored_is_said_before_it_is_tried(counts):
    """The same error that writing would give."""
    with pytest.raises(nm.MrczError, match="4 bits hold 0 to 15"):
        estimate("x.mrc", [counts[0] + np.uint8(10)], Encoding("none"), "uint4")


def test_a_stack_described_anew_keeps_frames_header_and_the_rest(tmp_path, counts):
    """Only what is named changes."""
    nm.write(tmp_path / "a.mrcz", counts, pixel_size=1.5, metadata={"sample": "ice"})
    with nm.open(tmp_path / "a.mrcz") as stack, stack.described(pixel_size=(0, 2, 2)) as other:
        assert stack.pixel_size == (1.5, 1.5, 1.5)
        assert other.pixel_size == (0, 2, 2)
        assert other.metadata == {"sample": "ice"}
        assert other.header is stack.header
        np.testing.assert_array_equal(other[3], counts[3])
