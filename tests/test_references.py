"""Gain references and defect lists of other programs, in their formats and row orders."""

import gzip

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import tifffile
from foreign_files import DmWriter, image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import napari_mrcz as nm
from napari_mrcz.stack.references import read_defects, read_reference, write_defects

GAIN = np.random.default_rng(0).uniform(0.5, 2, (6, 9)).astype(np.float32)


def test_references_come_in_the_rows_of_mrc(tmp_path):
    nm.write(tmp_path / "gain.mrc", GAIN)
    nm.write(tmp_path / "gain.mrcz", GAIN[None])
    for name in ("gain.tif", "zipped.tiff", "gain.gain"):
        compression = "zlib" if name == "zipped.tiff" else None
        tifffile.imwrite(tmp_path / name, GAIN, compression=compression)
    Image.fromarray(GAIN).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    expected = {"lzw.tif": GAIN[::-1], "gain.mrc": GAIN, "gain.mrcz": GAIN, "gain.tif": GAIN[::-1],
                "zipped.tiff": GAIN[::-1], "gain.gain": GAIN, "gain.mrc.gz": GAIN,
                "gain.dm4": GAIN[::-1],
                "gain.dm3.gz": GAIN[::-1], "gain.tif.gz": GAIN[::-1],
                "gain.gain.gz": GAIN}  # fmt: skip
    for name in ("gain.mrc", "gain.tif", "gain.gain"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    (tmp_path / "gain.dm4").write_bytes(DmWriter().images([image(GAIN)]))
    (tmp_path / "gain.dm3.gz").write_bytes(gzip.compress(DmWriter(3).images([image(GAIN)])))
    for name, pixels in expected.items():
        found = read_reference(tmp_path / name)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, pixels)


def test_references_of_digital_micrograph(shared_data):
    dm = pytest.importorskip("ncempy.io.dm")
    path = shared_data / "openNCEM" / "dmTest_float32_nonSquare_diffPixelSize.dm4"
    np.testing.assert_array_equal(read_reference(path), dm.dmReader(str(path))["data"][::-1])
    with pytest.raises(nm.MrczError, match=r"not an array of \(66, 65, 64\)"):
        read_reference(shared_data / "openNCEM" / "dmTest_3D_int16_64,65,66.dm4")


def test_damaged_dm_files_are_refused(tmp_path):
    (tmp_path / "gain.dm4").write_bytes(b"\0\0\0\4" + bytes(100))
    for name in ("gain.dm4", "missing.dm4"):
        with pytest.raises(nm.MrczError, match=name):
            read_reference(tmp_path / name)


def test_what_is_no_reference_is_refused(tmp_path):
    nm.write(tmp_path / "movie.mrc", np.ones((3, 4, 5), np.int16))
    nm.write(tmp_path / "waves.mrc", np.ones((4, 5), np.complex64))
    tifffile.imwrite(tmp_path / "stack.tif", np.ones((3, 4, 5), np.uint8), photometric="minisblack")
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + bytes(3))
    with pytest.raises(nm.MrczError, match="estimate_gain"):
        read_reference(tmp_path / "movie.mrc")
    with pytest.raises(nm.MrczError, match="estimate_gain"):
        read_reference(tmp_path / "stack.tif")
    with pytest.raises(nm.MrczError, match="complex64"):
        read_reference(tmp_path / "waves.mrc")
    for name in ("broken.tif", "missing.tif"):
        with pytest.raises(nm.MrczError, match=name):
            read_reference(tmp_path / name)


SERIALEM = """\
# made by hand
CameraSizeX 9
CameraSizeY 6
RotationAndFlip 0
WasScaled 0
K2Type 1
UsableArea 1 0 0 7
PartialBadColumn 2 2 3 4
PartialBadRow 5 1 0 1
BadPixels 4 2 6 3
BadColumns 5
BadRows 4
NewKeyword 3
"""


def test_serialems_list_counts_rows_from_the_top(tmp_path):
    path = tmp_path / "defects.txt"
    path.write_text(SERIALEM)
    top_first = np.array([list(row) for row in (
        "xxxxxxxxx",  # above the usable area
        "     x  x",  # the bad column; to the right of the usable area
        "    xx  x",
        "  xx xx x",
        "xxxxxxxxx",
        "xx   x  x",
    )]) == "x"  # fmt: skip
    np.testing.assert_array_equal(read_defects(path), top_first[::-1])
    path.with_name("packed.gz").write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_defects(path.with_name("packed.gz")), top_first[::-1])
    doubled = top_first[::-1].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read_defects(path, (12, 18)), doubled)


@pytest.mark.parametrize(("scaled", "block"), [(-1, 1), (0, 1), (1, 2), (2, 4)])
def test_pixels_of_a_scaled_list_are_physical_ones(tmp_path, scaled, block):
    path = tmp_path / "defects.txt"
    path.write_text(f"CameraSizeX 16\nCameraSizeY 12\nWasScaled {scaled}\nBadPixels 4 8\n")
    mask = np.zeros((12, 16), bool)
    mask[8 : 8 + block, 4 : 4 + block] = True
    np.testing.assert_array_equal(read_defects(path), mask[::-1])
    # Any bad sub-pixel makes a binned pixel bad.
    binned = mask[::-1].reshape(6, 2, 8, 2).any(axis=(1, 3))
    np.testing.assert_array_equal(read_defects(path, (6, 8)), binned)


def test_motioncors_rectangles_lie_in_the_frame_as_stored(tmp_path):
    path = tmp_path / "defects.txt"
    path.write_bytes(b"\xef\xbb\xbf# x y w h\r\n1 0 2 1 # hot\r\n\r\n7 4 2 2\r\n0, 2, 1, 1\r\n")
    mask = np.zeros((6, 9), bool)
    mask[0, 1:3] = mask[4:, 7:] = mask[2, :1] = True
    np.testing.assert_array_equal(read_defects(path, (6, 9)), mask)
    path.write_text("1 0 2 1\n7 4 5 9\n-2 2 3 1\n")
    with pytest.warns(nm.MrczWarning, match=r"beyond frames of \(6, 9\) is cut off \(lines 2, 3\)"):
        np.testing.assert_array_equal(read_defects(path, (6, 9)), mask)
    with pytest.raises(ValueError, match="shape"):
        read_defects(path)


FALCON = """<?xml version="1.0"?><defects><row>2-3</row><col>7</col>
<area>0,5,1,5</area><point>4,0</point><nonmaskingpoint>5,1</nonmaskingpoint></defects>"""


def test_a_falcon_lists_defects_in_its_gain_reference(tmp_path):
    """In the rows of the EER movie; a TIFF of another name lies upside down."""
    tags = [(65100, 2, len(FALCON) + 1, FALCON, True)]
    for name in ("falcon.gain", "falcon.tif"):
        tifffile.imwrite(tmp_path / name, GAIN, extratags=tags)
    mask = np.zeros((6, 9), bool)
    mask[2:4] = mask[:, 7] = mask[5, :2] = mask[0, 4] = mask[1, 5] = True
    np.testing.assert_array_equal(read_defects(tmp_path / "falcon.gain"), mask)
    np.testing.assert_array_equal(read_defects(tmp_path / "falcon.tif"), mask[::-1])
    doubled = mask.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(read_defects(tmp_path / "falcon.gain", (12, 18)), doubled)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "lists no defects"), ("<defects", "not XML"), ("<d><row>x</row></d>", "cannot be read"),
     ("<d><area>1,2,3</area></d>", "area"), ("<d><col></col></d>", "cannot be read")],
)  # fmt: skip
def test_a_falcon_list_that_makes_no_sense_is_refused(tmp_path, text, said):
    tags = [(65100, 2, len(text) + 1, text, True)] if text else []
    tifffile.imwrite(tmp_path / "falcon.gain", GAIN, extratags=tags)
    with pytest.raises(nm.MrczError, match=said):
        read_defects(tmp_path / "falcon.gain")


def test_a_list_that_lies_on_its_side_is_told_of(tmp_path):
    (tmp_path / "d.txt").write_text("CameraSizeX 6\nCameraSizeY 9\nBadRows 1\n")
    with pytest.raises(nm.MrczError, match="on its side"):
        read_defects(tmp_path / "d.txt", (12, 18))


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 1, np.uint8), (0, 255, np.uint8), (128, 129, np.uint8), (0, 1, np.float32),
     (-128, -127, np.int8), (0, 1, np.int16), (0, 2, np.uint8), (0, 128, np.uint8),
     (0, -2, np.int16), (0, 40_000, np.uint16), (0, np.nan, np.float32), (0, -1, np.int8)],
)  # fmt: skip
def test_maps_of_all_programs(tmp_path, low, high, dtype):
    mask = np.random.default_rng(1).random((6, 9)) < 0.3
    values = np.where(mask, high, low).astype(dtype)
    nm.write(tmp_path / "map.mrc", values)
    tifffile.imwrite(tmp_path / "map.tif", values[::-1])
    for name in ("map.mrc", "map.tif"):
        np.testing.assert_array_equal(read_defects(tmp_path / name, (6, 9)), mask)


@given(values=arrays.arrays(st.sampled_from(["u1", "i1", "i2", "u2", "i4"]), (3, 4)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore::napari_mrcz.MrczWarning")
def test_any_value_but_zero_is_bad(tmp_path, values):
    tifffile.imwrite(tmp_path / "map.tif", values[::-1])
    expected = values != 0
    for zero in (128, -128):
        if set(values.flat) <= {zero, zero + 1}:
            expected = values != zero
    np.testing.assert_array_equal(read_defects(tmp_path / "map.tif"), expected)


def test_a_map_with_good_and_bad_swapped_is_told_of(tmp_path):
    mask = np.random.default_rng(3).random((6, 9)) < 0.9
    write_defects(tmp_path / "map.mrc", mask, "map")
    with pytest.warns(nm.MrczWarning, match="of its pixels are defective"):
        np.testing.assert_array_equal(read_defects(tmp_path / "map.mrc", mask.shape), mask)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore::napari_mrcz.MrczWarning")
@given(
    mask=arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 30))),
    kind_and_name=st.sampled_from(
        [("serialem", "d.txt"), ("motioncor", "d.txt"), ("map", "d.mrc"), ("map", "d.tif")]
    ),
    row=st.integers(0, 11),
    column=st.integers(0, 29),
)
def test_masks_come_back(tmp_path, mask, kind_and_name, row, column):
    kind, name = kind_and_name
    mask[row % mask.shape[0]] = True
    mask[:, column % mask.shape[1]] = True
    mask[:2, :3] = False
    write_defects(tmp_path / name, mask, kind, overwrite=True)
    np.testing.assert_array_equal(read_defects(tmp_path / name, mask.shape), mask)


def test_a_long_list_keeps_to_what_serialem_reads(tmp_path):
    path = tmp_path / "defects.txt"
    mask = np.random.default_rng(2).random((200, 300)) < 0.1
    mask[:, 20:80] = mask[50] = True
    write_defects(path, mask, "serialem")
    lines = path.read_text().splitlines()
    assert max(len(line) for line in lines) < 512
    assert max(len(line.split()) for line in lines) <= 21
    assert "BadRows 149" in lines
    assert any(line.startswith("BadColumns 20 21 22") for line in lines)
    np.testing.assert_array_equal(read_defects(path), mask)


@pytest.mark.parametrize(
    ("text", "warning", "n"),
    [
        ("CameraSizeX 4\nCameraSizeY 4\nBadPixels 1 2 9 2\nBadRows 1\n", "line 3", 5),
        ("CameraSizeX 4\nCameraSizeY 4\nBadColumns 1 7\nPartialBadRow 0 2 1 9\n", "lines 3, 4", 8),
        ("0 0 4 3\n", "75% of its pixels", 12),
        ("# none\n\n", "lists no defects", 0),
    ],
)
def test_odd_lists_are_warned_of(tmp_path, text, warning, n):
    (tmp_path / "defects.txt").write_text(text)
    with pytest.warns(nm.MrczWarning, match=warning):
        mask = read_defects(tmp_path / "defects.txt", (4, 4))
    assert np.count_nonzero(mask) == n


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CameraSizeX 4\nBadPixels 1 1\n", "CameraSizeX and CameraSizeY"),
        ("CameraSizeX 4\nCameraSizeY 4\nBadPixels 1 1 2\n", "line 3 is not a BadPixels entry"),
        ("CameraSizeX 4\nCameraSizeY 4\nBadRows one\n", "line 3 has no whole numbers"),
        ("CameraSizeX 4\nCameraSizeY 4\nPartialBadRow 1 1 2\n", "line 3 is not a PartialBadRow"),
        ("CameraSizeX 4\nCameraSizeY 4\nBadColumns -1\n", "line 3 is not a BadColumns entry"),
        ("CameraSizeX 4\nCameraSizeY 5\nBadRows 1\n", r"camera of \(5, 4\).*frames have \(4, 4\)"),
        ("CameraSizeX 4\nCameraSizeY 4\nPartialBadRow 1 1 2 0\n", "line 3 is not a PartialBadRow"),
        ("1 2 3\n", "line 1 is not x y w h"),
        ("1 2 0 3\n", "line 1 is not x y w h"),
        ("1 2 3 x\n", "line 1 is not x y w h"),
    ],
)
def test_damaged_lists_say_where(tmp_path, text, message):
    path = tmp_path / "defects.txt"
    path.write_text(text)
    with pytest.raises(nm.MrczError, match=message):
        read_defects(path, (4, 4))


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "defects.txt"
    path.write_text("precious")
    with pytest.raises(nm.MrczError, match="overwrite"):
        write_defects(path, np.ones((2, 2)), "serialem")
    assert path.read_text() == "precious"
    with pytest.raises(ValueError, match="'rectangles'"):
        write_defects(tmp_path / "d", np.ones((2, 2)), "rectangles")
    with pytest.raises(ValueError, match="two axes"):
        write_defects(tmp_path / "d", np.ones(2), "map")
