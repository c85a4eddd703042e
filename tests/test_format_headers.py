"""Headers as real programs write them, byte orders mixed and fields misused, are understood."""

import struct
import warnings

import mrcz
import numpy as np
import pytest
from good_files import STORED_DTYPES, assert_same_pixels, movie
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import blosc

import napari_mrcz as nm
from napari_mrcz.format.header import parse_header

MODES = {
    "int8": 0,
    "int16": 1,
    "float32": 2,
    "complex64": 4,
    "uint16": 6,
    "int32": 7,
    "uint32": 8,
    "float16": 12,
}
IMOD = struct.pack("<i", 1146047817)


def header(shape, mode, order="<", **fields):
    """Make 1024 bytes by hand after the MRC2014 description, as plain as may be."""
    nz, ny, nx = shape
    raw = bytearray(1024)
    places = {
        "n": (0, "3i", nx, ny, nz),
        "mode": (12, "i", mode),
        "m": (28, "3i", nx, ny, nz),
        "cell": (40, "3f", nx, ny, nz),
        "angles": (52, "3f", 90, 90, 90),
        "axes": (64, "3i", 1, 2, 3),
        "map": (208, "4s", b"MAP "),
        "stamp": (212, "4s", b"DD\0\0" if order == "<" else b"\x11\x11\0\0"),
    } | fields
    for place in places.values():
        if place is not None:
            offset, layout, *values = place
            prefix = "" if layout[0] in "<>" else order
            struct.pack_into(prefix + layout, raw, offset, *values)
    return bytes(raw)


def opened(tmp_path, content, name="by-hand.mrc"):
    (tmp_path / name).write_bytes(content)
    return nm.open(tmp_path / name)


def body(pixels, order="<"):
    return pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()


# Byte order --------------------------------------------------------------------------------------

side = st.integers(1, 65_535)


@given(st.tuples(side, side, side), st.sampled_from("<>"), st.sampled_from(sorted(MODES.values())))
def test_the_byte_order_is_that_of_the_sizes_whatever_the_stamp_says(shape, order, mode):
    for stamp in (b"DD\0\0", b"\x11\x11\0\0", b"DA\0\0", bytes(4), b"junk"):
        raw = header(shape, mode, order, stamp=(212, "4s", stamp))
        found = parse_header(raw, "a.mrc")
        assert (found.shape, found.mode, found.byte_order) == (shape, mode, order)
        disagrees = (stamp[:1], order) in ((b"D", ">"), (b"\x11", "<"))
        assert disagrees == any("machine stamp" in note for note in found.notes)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_every_mode_is_read_in_both_byte_orders(tmp_path, dtype, order):
    pixels = movie((3, 5, 7), dtype, 1)
    with opened(tmp_path, header(pixels.shape, MODES[dtype], order) + body(pixels, order)) as stack:
        assert_same_pixels(np.asarray(stack), pixels)
        assert_same_pixels(stack[1, 1:4:2, ::-1], pixels[1, 1:4:2, ::-1])
        assert stack.pixel_size == (1, 1, 1)
        assert stack.header.byte_order == order
        assert not stack.header.notes


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_big_endian_files_of_old_mrcz_have_fields_of_both_orders(tmp_path, codec):
    pixels = movie((4, 5, 7), "float32", 1, smooth=True)
    path = tmp_path / "be.mrcz"
    options = {"voltage": 200, "C3": 2.7, "gain": 1.5, "pixelsize": [3, 2, 1]}
    mrcz.writeMRC(pixels, str(path), endian="be", compressor=codec, **options)
    raw = bytearray(path.read_bytes())
    # What mrcz before 0.6 wrote in the machine's order, whatever was asked for.
    for offset, layout in [(12, "i"), (36, "i"), (76, "3f"), (132, "3f"), (144, "q"), (220, "i")]:
        values = struct.unpack_from(">" + layout, raw, offset)
        struct.pack_into("<" + layout, raw, offset, *values)
    raw[224:234] = b"MRCZ0.5.7\0"
    with opened(tmp_path, bytes(raw), "old.mrcz") as stack:
        assert_same_pixels(np.asarray(stack), pixels)
        assert stack.pixel_size == (3, 2, 1)
        found = stack.header
        assert (found.voltage, found.c3, found.gain) == (200, pytest.approx(2.7), 1.5)
        assert (found.dmin, found.dmax) == (0, 4)
        assert found.byte_order == ">"
        assert found.mrcz_version == (0, 5, 7)
        assert any("MODE" in note for note in found.notes)


# Modes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "flags", "unsigned"),
    [(IMOD, 0, True), (IMOD, 1, False), (IMOD, 2, True), (IMOD, 3, False), (bytes(4), 0, False)],
)
def test_mode_0_is_unsigned_where_imod_says_so(tmp_path, stamp, flags, unsigned):
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    fields = {"stamp2": (152, "4s", stamp), "flags": (156, "i", flags)}
    with opened(tmp_path, header(pixels.shape, 0, **fields) + pixels.tobytes()) as stack:
        expected = pixels if unsigned else pixels.view(np.int8)
        assert_same_pixels(np.asarray(stack), expected)
        for again in ("again.mrc", "again.mrcz"):
            nm.write(tmp_path / again, stack)
            assert_same_pixels(nm.read(tmp_path / again), expected)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nx", [1, 2, 7, 8])
def test_4_bit_rows_begin_at_a_byte(tmp_path, nx, order):
    pixels = np.random.default_rng(nx).integers(0, 16, (3, 5, nx)).astype(np.uint8)
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, nx % 2)))
    packed = padded[..., 0::2] | padded[..., 1::2] << 4
    with opened(tmp_path, header(pixels.shape, 101, order) + packed.tobytes()) as stack:
        assert_same_pixels(np.asarray(stack), pixels)
        assert_same_pixels(stack[2, 1:3, ::2], pixels[2, 1:3, ::2])


def test_complex_integers_are_refused_by_name(tmp_path):
    with pytest.raises(nm.MrczError, match="mode 3, complex int16"):
        opened(tmp_path, header((1, 4, 4), 3) + bytes(64))


@pytest.mark.parametrize("label", [1, 2, 3, 5, 6, 9])
def test_the_chunk_says_its_codec_whatever_the_mode_says(tmp_path, label):
    # mrcz before 0.6 labels lz4hc as lz4.
    pixels = movie((2, 16, 16), "int16", 1, smooth=True)
    chunks = b"".join(blosc.compress(frame, b"zstd", 1, 1) for frame in pixels)
    with opened(tmp_path, header(pixels.shape, 1 + 1000 * label) + chunks) as stack:
        assert_same_pixels(np.asarray(stack), pixels)


# What old writers did ----------------------------------------------------------------------------


def test_frames_that_old_mrcz_halved_are_refused_and_explained(tmp_path):
    pixels = np.ones((2, 16, 16), np.int16)
    halves = b"".join(blosc.compress(frame[:8].copy(), b"zstd", 1, 1) for frame in pixels)
    with pytest.raises(nm.MrczError, match=r"half a frame.*mrcz 0\.4\.0 to 0\.5\.10"):
        opened(tmp_path, header(pixels.shape, 6001) + halves, "half.mrcz")


def test_float64_under_the_name_of_float32_is_refused_and_explained(tmp_path):
    pixels = np.ones((2, 16, 16))
    chunks = b"".join(blosc.compress(frame, b"zstd", 1, 1) for frame in pixels)
    with pytest.raises(nm.MrczError, match=r"float64.*mrcz 0\.2\.5"):
        opened(tmp_path, header(pixels.shape, 6002) + chunks, "double.mrcz")


def test_a_file_that_was_never_finished_is_refused_and_explained(tmp_path):
    with pytest.raises(nm.MrczError, match="no frames"):
        opened(tmp_path, header((2, 16, 16), 6001), "empty.mrcz")


def test_old_mrcz_wrote_sizes_where_the_sampling_belongs(tmp_path):
    # MZ = NY, so that the z size would come out wrong.
    pixels = movie((4, 20, 30), "int16")
    fields = {
        "m": (28, "3i", 30, 20, 20),
        "cell": (40, "3f", 30, 40, 12),
        "label": (224, "9s", b"MRCZ0.4.1"),
    }
    with opened(tmp_path, header(pixels.shape, 1, **fields) + body(pixels)) as stack:
        assert stack.pixel_size == (3, 2, 1)


@pytest.mark.parametrize(
    ("sampling", "cell", "expected"),
    [
        ((7, 5, 1), (7, 10, 3), (3, 2, 1)),  # an image stack
        ((7, 5, 3), (7, 10, 9), (3, 2, 1)),  # a volume
        ((14, 10, 6), (14, 20, 18), (3, 2, 1)),  # part of a larger one
        ((0, 0, 0), (7, 10, 9), (3, 2, 1)),  # mrcz: not told
        ((0, 0, 3), (7, 10, 9), (3, 2, 1)),  # mrcz: slices
        ((-7, 5, 3), (7, 10, 9), (3, 2, 1)),
        ((7, 5, 0x7F7F7F7F), (7, 10, 9), (3, 2, 1)),
        ((7, 5, 3), (0, 0, 0), (0, 0, 0)),
        ((7, 5, 3), (-7, -10, -9), (0, 0, 0)),
        ((7, 5, 3), (1.4e-45, 1.4e-45, 1.4e-45), (0, 0, 0)),
        ((7, 5, 3), (np.nan, np.inf, -np.inf), (0, 0, 0)),
        ((7, 5, 3), (7, np.nan, 0), (0, 0, 1)),
    ],
)
def test_pixel_sizes_are_the_cell_by_the_sampling_or_unknown(tmp_path, sampling, cell, expected):
    pixels = np.zeros((3, 5, 7), np.int16)
    fields = {"m": (28, "3i", *sampling), "cell": (40, "3f", *cell)}
    with opened(tmp_path, header(pixels.shape, 1, **fields) + pixels.tobytes()) as stack:
        assert stack.pixel_size == expected


def test_a_file_cut_off_keeps_the_z_size_it_had(tmp_path):
    pixels = movie((6, 5, 7), "int16")
    for name in ("cut.mrc", "cut.mrcz"):
        nm.write(tmp_path / name, nm.Stack.from_array(pixels), pixel_size=(3, 2, 1), footer=False)
        content = (tmp_path / name).read_bytes()
        with pytest.warns(nm.MrczWarning, match="5 of the 6"):
            stack = opened(tmp_path, content[:-1], name)
        with stack:
            assert stack.pixel_size == (3, 2, 1)
            assert len(stack) == 5


@pytest.mark.parametrize(
    "label", [b"\xe9\xe8 Latin", "β UTF-8".encode(), b"\xff" * 80, b"MRCZx.y.z"]
)
def test_labels_of_any_bytes_are_read(tmp_path, label):
    pixels = np.zeros((1, 5, 7), np.int16)
    fields = {"count": (220, "i", 1), "label": (224, f"{len(label)}s", label)}
    with opened(tmp_path, header(pixels.shape, 1, **fields) + pixels.tobytes()) as stack:
        assert len(stack.header.labels) == 1
        assert stack.header.mrcz_version is None
        nm.write(tmp_path / "again.mrc", stack)
    nm.open(tmp_path / "again.mrc").close()


@pytest.mark.parametrize(
    ("space_group", "is_volume"),
    [
        (0, False),
        (1, True),
        (401, True),
        (402, True),
        (630, True),
        (19, True),
        (230, True),
        (300, False),
        (-5, False),
        (10**6, False),
    ],
)
def test_the_space_group_tells_volumes_from_movies(tmp_path, space_group, is_volume):
    pixels = np.zeros((3, 5, 7), np.int16)
    content = header(pixels.shape, 1, ispg=(88, "i", space_group)) + pixels.tobytes()
    with opened(tmp_path, content) as stack:
        assert stack.header.is_volume == is_volume


def test_axes_in_another_order_are_said_and_sizes_follow_them(tmp_path):
    pixels = np.zeros((3, 5, 7), np.int16)
    fields = {"axes": (64, "3i", 3, 1, 2), "m": (28, "3i", 5, 3, 7), "cell": (40, "3f", 5, 6, 21)}
    with opened(tmp_path, header(pixels.shape, 1, **fields) + pixels.tobytes()) as stack:
        # Columns run along Z, rows along X, sections along Y.
        assert stack.pixel_size == (3, 2, 1)
        assert stack.header.scale == (2, 1, 3)
        assert any("along Z X Y" in note for note in stack.header.notes)


def test_fields_are_given_by_name(tmp_path):
    nm.write(tmp_path / "a.mrc", np.zeros((3, 5, 7), np.int16), pixel_size=2)
    with nm.open(tmp_path / "a.mrc") as stack:
        fields = dict(stack.header)
        assert fields["nx"] == stack.header["nx"] == stack.header.nx == 7
        assert "raw" not in fields
        for name in ("none", "raw", "__class__", "shape"):
            with pytest.raises(KeyError):
                stack.header[name]


def test_a_good_header_of_our_own_has_nothing_odd(tmp_path):
    for name in ("a.mrc", "a.mrcz"):
        nm.write(tmp_path / name, movie((3, 5, 7), "uint8"), pixel_size=1.5, metadata={"a": 1})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with nm.open(tmp_path / name) as stack:
                assert stack.header.notes == ()
