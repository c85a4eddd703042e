"""Files of other programs and real cameras are read right, or refused for the right reason."""

import hashlib
import json
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.format import FrameReader

FOLDER = Path(__file__).parents[1].resolve().parent / "shared" / "data"
EXPECTED = (
    json.loads((FOLDER / "expected.json").read_text("utf-8"))
    if (FOLDER / "expected.json").exists()
    else []
)
READABLE = [e for e in EXPECTED if e["status"] in ("good", "fewer_frames_than_header")]
REFUSED = [e for e in EXPECTED if e not in READABLE]

# What must be said of the files that are refused.
REASONS = {
    "peers/c-mrcz__cm_noise_uint16_lz4_BROKEN.mrcz": "no frames",
    "peers/mrcz-0.2.5__sparse_uint16_snappy_c5.mrcz": "snappy",
    "peers/mrcz-0.6.0__b2_badblock_3x31x31_int16_t1.mrcz": "mrcz 0.6.0.*blosc2",
}
# Pixel sizes that the file states, but that are none: negative, or integers in float fields.
SMALLEST_SIZE = 1e-3
# rosettasciio told mrcz that nanometres were ångströms; what is stored is ten times too large.
TEN_TIMES_TOO_LARGE = "peers/hyperspy__hs_A_zstd.mrcz"


def name(entry):
    return entry["file"]


def opened(entry):
    expected = (
        pytest.warns(nm.MrczWarning, match="frames that the header announces")
        if entry["status"] == "fewer_frames_than_header"
        else nullcontext()
    )
    with expected:
        return nm.open(FOLDER / entry["file"])


def digest(pixels):
    little = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_pixels_and_pixel_size_are_the_true_ones(entry):
    with opened(entry) as stack:
        assert stack.shape == tuple(entry["shape"])
        assert stack.dtype == entry["dtype"]
        assert digest(np.asarray(stack)) == entry["sha256"]
        size = np.array(entry["pixelsize_A_zyx"])
        size[size < SMALLEST_SIZE] = 0
        if entry["file"] == TEN_TIMES_TOO_LARGE:
            size *= 10
            assert any("10 times" in note for note in stack.header.notes)
        assert stack.pixel_size == pytest.approx(tuple(size), rel=1e-6)


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_single_frames_and_windows_are_those_of_the_whole(entry):
    with opened(entry) as stack:
        whole = np.asarray(stack)
        for frame in {0, len(stack) // 2, len(stack) - 1}:
            np.testing.assert_array_equal(stack[frame, ::2, 1:], whole[frame, ::2, 1:])
            np.testing.assert_array_equal(stack[frame], whole[frame])


@pytest.mark.parametrize("entry", REFUSED, ids=name)
def test_what_cannot_be_read_is_refused_for_the_right_reason(entry):
    with pytest.raises(nm.MrczError, match=REASONS[entry["file"]]):
        nm.read(FOLDER / entry["file"])
    report = nm.verify(FOLDER / entry["file"])
    assert not report.ok


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_every_file_can_be_saved_again_and_keeps_pixels_and_sizes(entry, tmp_path):
    with opened(entry) as stack:
        for again in ("again.mrc", "again.mrcz"):
            nm.write(tmp_path / again, stack)
            with nm.open(tmp_path / again) as saved:
                assert digest(np.asarray(saved)) == entry["sha256"]
                assert saved.pixel_size == pytest.approx(stack.pixel_size, rel=3e-7)
                assert saved.header.is_volume == stack.header.is_volume
                assert saved.header.voltage == stack.header.voltage


@pytest.mark.parametrize("entry", READABLE, ids=name)
def test_verifying_finds_nothing_but_missing_frames(entry):
    report = nm.verify(FOLDER / entry["file"])
    assert not report.faults
    assert not report.error
    assert report.ok == (entry["status"] == "good")


def test_fei_extended_headers_are_decoded(shared_data):
    with FrameReader(shared_data / "peers/mrcfile__ext_FEI1_int16.mrc") as reader:
        assert reader.extended[0]["HT"] == 300e3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in ("fei-extended_crop256x128.mrc", "epu2.9_example_crop256x128.mrc"):
            with FrameReader(shared_data / "mrcfile" / file) as reader:
                record, (_, _, x) = reader.extended[0], reader.header.pixel_size
                assert record["HT"] in (200e3, 300e3)
                assert record["Pixel size X"] * 1e10 == pytest.approx(x, rel=1e-3)


@pytest.mark.parametrize("file", sorted({e["file"] for e in READABLE} - {TEN_TIMES_TOO_LARGE}))
def test_what_is_odd_about_a_header_is_said_and_what_is_not_is_not(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.MrczWarning)
        stack = nm.open(FOLDER / file)
    stack.close()
    notes = " ".join(stack.header.notes)
    if "stamp_wrong" in file:
        assert "machine stamp" in notes
    if "nomap" in file or "c-mrcz" in file:
        assert "MAP" in notes
    if "mrcz-0.5.7__be" in file:
        assert "little-endian" in notes or "other byte order" in notes
    if "EMD-3001" in file:
        assert "along Z X Y" in notes
    if file in ("cryodrgn/toymodel_small_nocenter.mrc", "mrcfile/EMD-3197.map"):
        assert notes == ""
