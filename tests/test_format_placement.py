"""Where frames lie is what a file's bytes show, whatever NSYMBT, MODE and NZ say of it."""

import struct
import warnings

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numcodecs import blosc

import napari_mrcz as nm
from napari_mrcz.format import FrameReader
from napari_mrcz.format.doctor import diagnose, mend
from napari_mrcz.session.convert import Repack

DTYPES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6}
SIZE = (3.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("placement")


def movie(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def write(path, pixels, *, footer=False, volume=False, metadata=None):
    stack = nm.Stack.from_array(pixels, pixel_size=SIZE).described(volume=volume)
    nm.write(path, stack, footer=footer, metadata=metadata, overwrite=True)


def patch(path, offset, layout, *values):
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, offset, *values)
    path.write_bytes(raw)


def extend(path, extended, kind, *, stated=None):
    """Put an extended header into a plain file, and a length of it into NSYMBT."""
    raw = path.read_bytes()
    path.write_bytes(raw[:1024] + extended + raw[1024:])
    patch(path, 92, "<i", len(extended) if stated is None else stated)
    patch(path, 104, "4s", kind)


def read(path):
    """Return pixels, pixel size, whether it is a volume, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with nm.open(path) as stack:
            pixels = np.asarray(stack)
            assert [str(w.message) for w in caught] == list(stack._source.warnings)
            return pixels, stack.pixel_size, stack.description.volume, caught


def repaired(path):
    """Repair a file, and see that nothing is left to be said of where its frames are."""
    target = path.with_stem("repaired")
    Repack(str(path), str(target), repair=True, overwrite=True)()
    pixels, size, volume, warned = read(target)
    assert not warned
    assert nm.verify(target).ok
    with nm.open(target) as stack:
        assert not [note for note in stack.header.notes if "extended" in note]
    assert {f.field for f in diagnose(target)}.isdisjoint({"NZ", "NSYMBT", "MODE", "file length"})
    return pixels, size, volume


shapes = st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(2, 9))
kinds = st.sampled_from([".mrc", ".mrcz"])


# NSYMBT ------------------------------------------------------------------------------------------


@given(
    shapes,
    st.sampled_from(sorted(DTYPES)),
    st.integers(1, 5000),
    st.sampled_from([b"AGAR", b"SERI", b""]),
)
def test_an_extended_header_that_is_not_there_costs_no_frame(folder, shape, dtype, nsymbt, kind):
    pixels = movie(shape, dtype)
    path = folder / "copied.mrc"
    write(path, pixels)
    patch(path, 92, "<i", nsymbt)
    patch(path, 104, "4s", kind)
    found, size, _, warned = read(path)
    np.testing.assert_array_equal(found, pixels)
    assert size == SIZE
    assert not warned
    with nm.open(path) as stack:
        assert any("NSYMBT" in note for note in stack.header.notes)
    patches = [f.patch for f in diagnose(path) if f.field == "NSYMBT"]
    assert patches == [{"nsymbt": 0}]
    again, size, _ = repaired(path)
    np.testing.assert_array_equal(again, pixels)
    assert size == SIZE


@given(shapes, st.integers(1, 4000), st.sampled_from([-1, -(2**31), 2**31 - 1, 10**8]))
def test_a_length_that_cannot_be_is_the_one_that_is_left(folder, shape, nbytes, stated):
    pixels = movie(shape, "int16")
    path = folder / "impossible.mrc"
    write(path, pixels)
    extend(path, b"\7" * nbytes, b"HDF5", stated=stated)
    found, _, _, warned = read(path)
    np.testing.assert_array_equal(found, pixels)
    assert not warned
    assert [f.patch for f in diagnose(path) if f.field == "NSYMBT"] == [{"nsymbt": nbytes}]


@given(shapes, st.integers(-5, 6000), st.booleans(), st.booleans())
@example((2, 3, 7), 58, False, False)  # where the second chunk begins
def test_chunks_are_found_wherever_they_begin(folder, shape, stated, json, footer):
    pixels = movie(shape, "int16")
    path = folder / "chunks.mrcz"
    write(path, pixels, metadata={"grid": {"a": [1, 2]}} if json else None, footer=footer)
    (true,) = struct.unpack_from("<i", path.read_bytes(), 92)
    assume(stated != true)
    patch(path, 92, "<i", stated)
    found, size, _, warned = read(path)
    np.testing.assert_array_equal(found, pixels)
    assert size == SIZE
    assert not warned
    assert [f.patch for f in diagnose(path) if f.field == "NSYMBT"] == [{"nsymbt": true}]
    np.testing.assert_array_equal(repaired(path)[0], pixels)


@given(shapes, st.integers(-5, 6000), st.integers(0, 3000))
def test_with_checksums_plain_frames_are_found_whatever_nsymbt_says(folder, shape, stated, nbytes):
    pixels = movie(shape, "int16")
    path = folder / "checked.mrc"
    stack = nm.Stack.from_array(pixels, pixel_size=SIZE)
    extended = nm.format.extended.ExtendedHeader("HDF5", bytes(nbytes)) if nbytes else None
    nm.write(path, stack.described(extended=extended), metadata={"a": 1}, overwrite=True)
    patch(path, 92, "<i", stated)
    np.testing.assert_array_equal(read(path)[0], pixels)


@given(shapes, st.integers(0, 11), st.integers(0, 500))
def test_a_length_without_room_for_the_records_is_too_small(folder, shape, stated, padding):
    """SerialEM's records take 12 bytes for each frame here."""
    pixels = movie(shape, "int16")
    nbytes = 12 * len(pixels) + padding
    assume(nbytes % (shape[1] * shape[2] * 2))
    path = folder / "serial.mrc"
    write(path, pixels)
    extend(path, bytes(nbytes), b"SERI", stated=stated)
    patch(path, 128, "<2h", 12, 7)
    found, _, _, warned = read(path)
    np.testing.assert_array_equal(found, pixels)
    assert not warned
    assert [f.patch for f in diagnose(path) if f.field == "NSYMBT"] == [{"nsymbt": nbytes}]


def test_a_file_cut_off_is_not_taken_for_one_without_its_extended_header(folder):
    pixels = movie((4, 8, 8), "int16")
    path = folder / "cut.mrc"
    write(path, pixels)
    text = b'{"a": 1}'
    extend(path, text, b"json")
    path.write_bytes(path.read_bytes()[: -len(text)])
    found, _, _, warned = read(path)
    np.testing.assert_array_equal(found, pixels[:3])
    assert warned


# NZ ----------------------------------------------------------------------------------------------


@given(shapes, st.integers(-3, 12), kinds, st.booleans(), st.booleans())
@example((20, 6, 7), 5, ".mrcz", False, False)
@example((20, 6, 7), 5, ".mrc", False, True)
def test_frames_are_those_that_are_there(folder, shape, stated, suffix, volume, footer):
    pixels = movie(shape, "int16")
    path = folder / f"count{suffix}"
    metadata = {"a": 1} if footer else None
    write(path, pixels, volume=volume, footer=footer, metadata=metadata)
    assume(stated != len(pixels))
    patch(path, 8, "<i", stated)
    found, size, is_volume, warned = read(path)
    np.testing.assert_array_equal(found, pixels)
    assert warned
    assert is_volume == volume
    report = nm.verify(path)
    assert report.frames == len(pixels)
    assert not report.ok
    assert not report.faults
    assert [f.patch for f in diagnose(path) if f.field == "NZ"] == [{"nz": len(pixels)}]
    cut = stated > len(pixels) and suffix == ".mrcz" and not footer
    if not cut:  # without a footer, the cell is that of all frames that there were to be
        assert size == SIZE
    again, size_again, is_volume = repaired(path)
    np.testing.assert_array_equal(again, pixels)
    assert size_again == pytest.approx(size)
    assert is_volume == volume
    mend(path, diagnose(path), target=folder / f"mended{suffix}", overwrite=True)
    found, size_mended, is_volume, warned = read(folder / f"mended{suffix}")
    np.testing.assert_array_equal(found, pixels)
    assert size_mended == pytest.approx(size)
    assert (is_volume, warned) == (volume, [])


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_frames_that_are_left_out_leave_the_pixel_size_as_it_is(folder, suffix):
    pixels = movie((6, 8, 8), "int16")
    for volume in (False, True):
        path = folder / f"damaged{suffix}"
        write(path, pixels, volume=volume, footer=True, metadata={"a": 1})
        with nm.open(path) as stack:
            place = int(stack._source.index.offsets[2])
        patch(path, place + 20, "2s", b"\xff\xfe")
        again, size, is_volume = repaired(path)
        np.testing.assert_array_equal(again, np.delete(pixels, 2, 0))
        assert (size, is_volume) == (SIZE, volume)


def test_what_follows_frames_and_is_none_is_said(folder):
    pixels = movie((3, 8, 8), "int16")
    path = folder / "surplus.mrc"
    for surplus in (b"x", bytes(127), bytes(129)):
        write(path, pixels)
        path.write_bytes(path.read_bytes() + surplus)
        found, _, _, warned = read(path)
        np.testing.assert_array_equal(found, pixels)
        assert str(len(surplus)) in str(warned[0].message)
        assert not nm.verify(path).ok


# MODE --------------------------------------------------------------------------------------------


@given(shapes, st.sampled_from(sorted(DTYPES)), st.booleans(), st.booleans(), st.booleans())
def test_frames_are_chunks_or_pixels_whatever_mode_says(
    folder, shape, dtype, compressed, footer, volume
):
    pixels = movie(shape, dtype)
    path = folder / ("mode.mrcz" if compressed else "mode.mrc")
    metadata = {"a": 1} if footer else None
    write(path, pixels, footer=footer, volume=volume, metadata=metadata)
    patch(path, 12, "<i", DTYPES[dtype] + (0 if compressed else 6000))
    if footer:  # the first frame is sought by its checksum
        patch(path, 92, "<i", 0)
    found, size, is_volume, warned = read(path)
    np.testing.assert_array_equal(found, pixels)
    assert size == SIZE
    assert is_volume == volume
    assert any("MODE" in str(w.message) for w in warned)
    true = DTYPES[dtype] + (6000 if compressed else 0)
    assert [f.patch["mode"] for f in diagnose(path) if f.field == "MODE"] == [true]
    again, size_again, _ = repaired(path)
    np.testing.assert_array_equal(again, pixels)
    assert size_again == size


@given(st.integers(1, 5), st.integers(0, 40), st.integers(0, 2), st.sampled_from([2, 5]))
def test_pixels_that_look_like_chunks_are_pixels(folder, frames, surplus, lie, version):
    """A file is read as chunks only if it consists of them from end to end."""
    pixels = movie((frames, 8, 16), "int8")
    nbytes = 8 * 16
    for frame in pixels:
        begin = struct.pack("<4B3I", version, 1, 0x91, 1, nbytes, nbytes, nbytes - lie)
        frame.reshape(-1)[:16] = np.frombuffer(begin, np.int8)
    path = folder / "looks.mrc"
    write(path, pixels)
    path.write_bytes(path.read_bytes() + bytes(surplus))
    np.testing.assert_array_equal(read(path)[0][:frames], pixels)


def test_the_first_chunk_of_a_file_is_not_passed_over_because_it_is_damaged(folder):
    pixels = movie((5, 8, 16), "int16")
    path = folder / "first.mrcz"
    write(path, pixels)
    with FrameReader(path) as reader:
        first = int(reader.index.offsets[0])
    patch(path, first, "B", 9)
    with pytest.raises(nm.MrczError, match="no blosc chunk"):
        nm.open(path)


def test_one_chunk_after_a_file_of_chunks_is_read_and_a_footer_is_not(folder):
    pixels = movie((5, 8, 16), "int16")
    path = folder / "appended.mrcz"
    write(path, pixels)
    chunk = blosc.compress(pixels[0], b"lz4", 1, 1)
    path.write_bytes(path.read_bytes() + bytes(chunk))
    np.testing.assert_array_equal(read(path)[0], np.concatenate([pixels, pixels[:1]]))


# Volume or movie ---------------------------------------------------------------------------------

suffixes = st.sampled_from([".mrc", ".mrcs", ".map", ".st", ".rec", ".ali", ".preali"])


@settings(max_examples=30)
@given(
    suffixes,
    st.sampled_from([0, 1, 4, 401]),
    st.sampled_from([1, 3, 4]),
    st.booleans(),
    st.booleans(),
)
def test_one_rule_says_what_is_a_volume(folder, suffix, group, depth, cube, labelled):
    """By ISPG; where that is 0, by MZ = NZ with a cube, the name `.rec` or IMOD's label."""
    shape = (4, 4, 4) if cube else (4, 5, 6)
    pixels = movie(shape, "int16")
    path = folder / f"rule{suffix}"
    write(path, pixels)
    nx, ny = shape[2], shape[1]
    patch(path, 36, "<i", depth)
    patch(path, 48, "<f", 3.0 * depth)
    patch(path, 88, "<i", group)
    label = b"tilt: Tomographic reconstruction" if labelled else b"Movie"
    patch(path, 224, "80s", label)
    volume = bool(group) or (depth == 4 and (cube or suffix == ".rec" or labelled))
    with nm.open(path) as stack:
        assert stack.header.is_volume == volume
        assert stack.pixel_size == SIZE
        sections = stack.description.sections_per_volume
        assert sections == (depth if group == 401 and not 4 % depth else None)
        for again in (folder / "again.mrc", folder / "again.rec", folder / "again.mrcz"):
            nm.write(again, stack, overwrite=True)
            with nm.open(again) as saved:
                assert saved.header.is_volume == volume
                assert saved.description.sections_per_volume == sections
                assert saved.pixel_size == SIZE
                if group and (group != 401 or sections):
                    assert saved.header.ispg == group
    findings = diagnose(path, full=True)
    if any(finding.mendable for finding in findings):
        mend(path, findings)
    with nm.open(path) as stack:
        assert stack.header.is_volume == volume
        assert stack.pixel_size == SIZE
        assert stack.header.sampling[:2] == (nx, ny)


def test_frames_that_may_be_taken_for_an_extended_header_are_said(folder):
    path, pixels = folder / "movie.mrc", movie((6, 10, 12), "i2")
    write(path, pixels)
    patch(path, 8, "<i", 1)
    patch(path, 92, "<i", 10**9)
    got, _, _, warned = read(path)
    np.testing.assert_array_equal(got, pixels[-1:])
    assert "may be frames" in str(warned[0].message)
