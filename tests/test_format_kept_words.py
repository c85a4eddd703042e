"""What other programs say beside the frames goes through compression and back, and is shown."""

import struct
import warnings

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.format.extended import ExtendedHeader
from napari_mrcz.session.convert import Recode
from napari_mrcz.stack.inspection import header_entries

IMOD = 1146047817


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


def movie(shape, dtype="int16"):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def plain(path, shape, *fields, order="<", extended=b"", dtype="int16"):
    """Write a plain file by hand: MX MY MZ as IMOD has them, then (offset, layout, values...)."""
    nz, ny, nx = shape
    raw = bytearray(1024)
    mode = {"int16": 1, "int8": 0, "uint8": 0, "float32": 2}[dtype]
    for offset, layout, *values in [
        (0, "4i", nx, ny, nz, mode),
        (28, "3i", nx, ny, nz),
        (40, "6f", 2.0 * nx, 2.0 * ny, 3.0 * nz, 90, 90, 90),
        (64, "3i", 1, 2, 3),
        (92, "i", len(extended)),
        (208, "4s", b"MAP "),
        (212, "2B", *((0x44, 0x44) if order == "<" else (0x11, 0x11))),
        *fields,
    ]:
        struct.pack_into(order + layout, raw, offset, *values)
    pixels = movie(shape, dtype)
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(bytes(raw) + extended + data)
    return pixels


def through_mrcz(path):
    """Compress a file and decompress it again; return the new one's bytes."""
    packed, back = path.with_suffix(".mrcz"), path.with_stem("back")
    Recode(str(path), str(packed), overwrite=True, verify=True)()
    Recode(str(packed), str(back), overwrite=True, verify=True)()
    return back.read_bytes()


words = st.fixed_dictionaries(
    {
        (16, 12): st.binary(min_size=12, max_size=12),  # NXSTART NYSTART NZSTART
        (96, 8): st.binary(min_size=8, max_size=8),  # CREATID and what follows it
        (112, 16): st.binary(min_size=16, max_size=16),
        (132, 20): st.binary(min_size=20, max_size=20),  # where MRCZ has words of its own
        (160, 36): st.binary(min_size=36, max_size=36),  # IDTYPE … TILTANGLES
    }
)
labels = st.lists(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=80),
    max_size=10,
)


@given(
    words, labels, st.tuples(*[st.floats(-1e5, 1e5, width=32)] * 3), st.floats(60, 120, width=32)
)
def test_words_and_labels_come_back_byte_for_byte(folder, found, texts, origin, angle):
    path = folder / "words.mrc"
    fields = [(offset, f"{n}s", value) for (offset, n), value in found.items()]
    fields += [(196, "3f", *origin), (52, "3f", 90, angle, 90), (220, "i", len(texts))]
    fields += [(224 + 80 * at, "80s", text.encode()) for at, text in enumerate(texts)]
    pixels = plain(path, (3, 4, 5), *fields)
    raw, back = path.read_bytes(), through_mrcz(path)
    statistics = {*range(76, 88), *range(108, 112), *range(216, 220)}
    differs = {at for at in range(1024) if raw[at] != back[at]}
    assert differs <= statistics
    assert back[1024:] == raw[1024:]
    np.testing.assert_array_equal(nm.read(path), pixels)


@given(words)
def test_words_go_from_a_plain_file_into_another(folder, found):
    path = folder / "source.st"
    plain(path, (3, 4, 5), *[(o, f"{n}s", value) for (o, n), value in found.items()])
    with nm.open(path) as stack:
        nm.write(folder / "copy.mrc", stack, footer=False, overwrite=True)
    raw, copy = path.read_bytes(), (folder / "copy.mrc").read_bytes()
    for offset, n in found:
        assert copy[offset : offset + n] == raw[offset : offset + n]


def test_words_of_big_endian_files_come_back_as_numbers(folder):
    path = folder / "big.mrc"
    plain(
        path,
        (3, 4, 5),
        (16, "3i", -7, 8, 9),
        (96, "h", -16224),
        (152, "2i", IMOD, 1),
        (160, "6h", 1, 2, 3, 4, 500, -6000),
        (172, "6f", 1.5, 0, 0, 0, -2.5, 0),
        order=">",
    )
    back = through_mrcz(path)
    assert struct.unpack_from("<3i", back, 16) == (-7, 8, 9)
    assert struct.unpack_from("<h", back, 96) == (-16224,)
    assert struct.unpack_from("<2i6h6f", back, 152) == (
        *(IMOD, 1, 1, 2, 3, 4, 500, -6000),
        *(1.5, 0, 0, 0, -2.5, 0),
    )
    with nm.open(folder / "big.mrcz") as stack:
        assert stack.header.extra["vd2"] == -6000
        assert stack.header.extra["tiltangles"] == (1.5, 0, 0, 0, -2.5, 0)
        (entry,) = [e for e in header_entries(stack.header) if e.name == "EXTRA"]
        assert {"VD2", "CREATID", "TILTANGLES"} <= {child.name for child in entry.children}


@pytest.mark.parametrize(("dtype", "flags"), [("uint8", 0), ("int8", 1), ("int8", 9)])
def test_the_sign_of_bytes_stays_true(folder, dtype, flags):
    path = folder / "bytes.mrc"
    pixels = plain(path, (3, 4, 5), (152, "2i", IMOD, flags), dtype=dtype)
    back = through_mrcz(path)
    assert back[1024:] == path.read_bytes()[1024:]
    assert struct.unpack_from("<2i", back, 152) == (IMOD, flags)
    with nm.open(path) as stack:
        nm.write(folder / "signed.mrc", np.negative(pixels.astype(np.int8)), overwrite=True)
        negative = stack.apply(Negative())
        nm.write(folder / "negative.mrc", negative, overwrite=True)
        np.testing.assert_array_equal(nm.read(folder / "negative.mrc"), np.asarray(negative))


class Negative:
    """A correction that makes signed bytes of any."""

    def __call__(self, frame, index):
        """Return the frame with the opposite sign."""
        return np.negative(frame.astype(np.int8))

    def describe(self):
        """Return its name."""
        return {"name": "Negative"}


# Cropped and grouped -----------------------------------------------------------------------------


def test_a_crop_begins_where_it_was_cut(folder):
    path = folder / "crop.mrc"
    plain(path, (6, 8, 10), (16, "3i", 100, 200, 300))
    with nm.open(path) as stack:
        crop = stack.select(frames=slice(2, 5), rows=slice(3, None), columns=slice(1, 9))
        for again in ("a.mrc", "a.mrcz"):
            nm.write(folder / again, crop, overwrite=True)
            with nm.open(folder / again) as saved:
                assert saved.header.start == (101, 203, 302)
        every_other = stack.select(rows=slice(None, None, 2))
        nm.write(folder / "b.mrc", every_other, overwrite=True)
        with nm.open(folder / "b.mrc") as saved:
            assert saved.header.start == (0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.select(frames=slice(1, 4)),
        lambda s: s.select(frames=slice(None, None, -1)),
        lambda s: s.group(2),
    ],
)
def test_records_of_other_frames_are_kept_but_not_as_the_file_s_own(folder, change):
    records = struct.pack("<6h", *range(0, 600, 100))
    path = folder / "tilts.st"
    plain(path, (6, 4, 5), (104, "4s", b"SERI"), (128, "2h", 2, 1), extended=records)
    with nm.open(path) as stack:
        assert [frame["TiltAngle"] for frame in stack.metadata["SERI"]] == [0, 1, 2, 3, 4, 5]
        changed = change(stack)
        assert "SERI" not in changed.metadata
        for again in ("fewer.mrc", "fewer.mrcz"):
            nm.write(folder / again, changed, overwrite=True)
            with nm.open(folder / again) as saved:
                assert saved.header.nsymbt == 0 or saved.header.exttyp == "json"
                assert "SERI" not in saved.metadata
                assert saved.description.extended.data == records
                assert saved.description.extended.layout == (2, 1)


# Extended headers --------------------------------------------------------------------------------

FLAGS = {1: "h", 2: "3H", 4: "2h", 8: "h", 16: "H", 32: "2h"}


@settings(max_examples=50)
@given(st.data(), st.integers(1, 63), st.integers(1, 6), st.sampled_from("<>"))
def test_what_serial_em_says_of_each_frame_is_read(folder, data, flags, frames, order):
    """The flags say which numbers there are; the rest of the header is padding."""
    layout = "".join(form for flag, form in FLAGS.items() if flags & flag)
    layout = order + layout
    nbytes = struct.calcsize(layout)
    rows, records = [], b""
    for _ in range(frames):
        row = {
            1: [data.draw(st.integers(-9000, 9000))],
            2: [data.draw(st.integers(0, 65_535)) for _ in range(3)],
            4: [data.draw(st.integers(-30_000, 30_000)) for _ in range(2)],
            8: [data.draw(st.integers(1, 3000))],
            16: [data.draw(st.integers(0, 25_000))],
            32: [data.draw(st.integers(-100, 100)), data.draw(st.integers(-600, 600))],
        }
        rows.append(row)
        records += struct.pack(layout, *[v for flag in FLAGS if flags & flag for v in row[flag]])
    path = folder / "serial.st"
    kind = data.draw(st.sampled_from([b"SERI", b""]))
    pixels = plain(
        path,
        (frames, 4, 5),
        (104, "4s", kind),
        (128, "2h", nbytes, flags),
        order=order,
        extended=records.ljust(1024, b"\0"),
    )
    through_mrcz(path)
    for name in ("serial.st", "serial.mrcz"):
        with nm.open(folder / name) as stack:
            np.testing.assert_array_equal(stack, pixels)
            read = stack.metadata["SERI"]
        assert len(read) == frames
        for row, record in zip(rows, read, strict=True):
            expected = {}
            if flags & 1:
                expected["TiltAngle"] = row[1][0] / 100
            if flags & 2:
                expected["PieceCoordinates"] = row[2]
            if flags & 4:
                expected["StagePosition"] = [value / 25 for value in row[4]]
            if flags & 8:
                expected["Magnification"] = row[8][0] * 100
            if flags & 16:
                # Stored as a signed integer.
                expected["Intensity"] = np.int16(np.uint16(row[16][0])) / 25_000
            if flags & 32:
                s1, s2 = row[32]
                magnitude = (abs(s1) * 256 + abs(s2) % 256) * 2.0 ** (
                    (1 if s2 >= 0 else -1) * (abs(s2) // 256)
                )
                expected["ExposureDose"] = pytest.approx(-magnitude if s1 < 0 else magnitude)
            assert record == expected


def old_fei(frames):
    records = np.zeros((1024, 32), "<f4")
    records[:frames, 0] = np.arange(frames) - 1.5  # a_tilt
    records[:frames, 8] = 0.25  # exp_time
    records[:frames, 11] = 3.4e-10  # pixel_size
    records[:frames, 12] = 42_000  # magnification
    records[:frames, 13] = 200e3  # ht
    return records.tobytes()


@pytest.mark.parametrize(("kind", "layout"), [(b"", (0, 32)), (b"", (0, 0)), (b"AGAR", (0, 32))])
def test_fei_s_extended_headers_before_fei1_are_read(folder, kind, layout):
    """1024 records of 128 bytes; pixel size and voltage are theirs where the header has none."""
    path = folder / "fei.mrc"
    fields = [(104, "4s", kind), (128, "2h", *layout), (40, "3f", 0, 0, 0)]
    plain(path, (3, 4, 5), *fields, extended=old_fei(3))
    for name in ("fei.mrc", "fei.mrcz"):
        with nm.open(folder / name) as stack:
            records = stack.metadata["AGAR"]
            assert [record["a_tilt"] for record in records] == [-1.5, -0.5, 0.5]
            assert records[0]["exp_time"] == 0.25
            assert records[0]["magnification"] == 42_000
            assert stack.pixel_size[1:] == (3.4, 3.4)
            assert stack.header.voltage == 200
        if name == "fei.mrc":
            through_mrcz(path)


def test_pixel_size_and_voltage_of_fei1_fill_what_the_header_has_not(folder):
    path = folder / "fei1.mrc"
    with mrcfile.new(path, movie((2, 4, 5)), overwrite=True) as file:
        file.set_image_stack()
        record = np.zeros(2, mrcfile.dtypes.get_ext_header_dtype(b"FEI1"))
        record["Metadata size"], record["HT"] = record.dtype.itemsize, 300e3
        record["Pixel size X"], record["Pixel size Y"] = 1.35e-10, 1.4e-10
        file.set_extended_header(record)
        file.header.exttyp = b"FEI1"
    with nm.open(path) as stack:
        assert stack.pixel_size == (0, 1.4, 1.35)
        assert stack.header.voltage == 300
    with mrcfile.mmap(path, "r+") as file:
        file.voxel_size = 2.0
    with nm.open(path) as stack:
        assert stack.pixel_size[1:] == (2, 2)


def test_agard_s_integers_and_real_numbers_and_symmetry_are_read(folder):
    path = folder / "agard.mrc"
    row = struct.pack("<3i2f", 7, -8, 9, 0.5, -2.5)
    plain(path, (2, 4, 5), (104, "4s", b"AGAR"), (128, "2h", 3, 2), extended=row * 2)
    with nm.open(path) as stack:
        assert stack.metadata["AGAR"] == [{"integers": [7, -8, 9], "reals": [0.5, -2.5]}] * 2
    text = b"X,  Y,  Z".ljust(80) + b"-X,  Y+1/2,  -Z".ljust(80)
    for kind in (b"CCP4", b"MRCO", b""):
        plain(path, (2, 4, 5), (104, "4s", kind), (88, "i", 4), extended=text)
        with nm.open(path) as stack:
            lines = ["X,  Y,  Z", "-X,  Y+1/2,  -Z"]
            assert stack.metadata == {kind.decode() or "CCP4": lines}
            # Symmetry is that of any part.
            nm.write(folder / "part.mrc", stack.select(slice(0, 1)), footer=False, overwrite=True)
        assert (folder / "part.mrc").read_bytes()[1024:1184] == text


@given(
    st.binary(max_size=400),
    st.sampled_from(["SERI", "AGAR", "CCP4", "MRCO", "FEI1", "HDF5", ""]),
    st.tuples(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**15), 2**15 - 1)),
    st.integers(-1, 9),
)
def test_any_bytes_are_decoded_or_not_and_never_crash(raw, kind, layout, frames):
    extended = ExtendedHeader(kind, raw, frames, "<", layout)
    try:
        _ = extended.decoded
    except ValueError:
        assert kind == "FEI1"
    assert ExtendedHeader.from_map(extended.as_map()) == extended


# For programs that know nothing of footers -------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32"])
def test_without_footer_a_plain_file_is_valid_whatever_it_carries(folder, dtype):
    path = folder / "valid.mrc"
    stack = nm.Stack.from_array(movie((3, 4, 5), dtype), pixel_size=2, metadata={"grid": 3})
    stack = stack.described(history=({"name": "GainNormalization"},), other={"gain": b"1"})
    for volume in (False, True):
        with pytest.warns(nm.MrczWarning, match="metadata and history left out"):
            nm.write(path, stack.described(volume=volume), footer=False, overwrite=True)
        assert mrcfile.validate(path)
        plain(folder / "words.st", (3, 4, 5), (160, "6h", 1, 2, 3, 4, 5, 6), (108, "i", 20140))
        with nm.open(folder / "words.st") as source:
            nm.write(path, source, footer=False, overwrite=True)
        assert mrcfile.validate(path)


def test_warnings_are_none_of_a_sound_file(folder):
    path = folder / "sound.st"
    records = struct.pack("<6h", *range(6))
    plain(path, (6, 4, 5), (104, "4s", b"SERI"), (128, "2h", 2, 1), extended=records)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nm.open(path).close()
    assert nm.verify(path).ok
