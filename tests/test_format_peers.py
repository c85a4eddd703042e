"""Files go between us and the peers both ways: `mrcz` 0.6 and `mrcfile` 1.5."""

import bz2
import gzip
import io
import warnings
from contextlib import redirect_stdout

import mrcfile
import mrcz
import numpy as np
import pytest
from good_files import STORED_DTYPES, WIDENED_DTYPES, assert_same_pixels, movie
from hypothesis import given
from hypothesis import strategies as st

import napari_mrcz as nm

CODECS = ("zstd", "lz4", "lz4hc", "zlib", "blosclz")
# mrcz has no half precision; mrcfile none of MRCZ's 32-bit integers.
MRCZ_DTYPES = [d for d in STORED_DTYPES if d != "float16"]
MRCFILE_DTYPES = [d for d in STORED_DTYPES if d not in ("int32", "uint32")]

sides = st.integers(1, 9) | st.sampled_from([16, 31, 64])
shapes = st.tuples(st.integers(1, 5), sides, sides)
sizes = st.tuples(*[st.floats(0.01, 1e4)] * 3)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
json_trees = st.dictionaries(
    texts.map("key {}".format),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("peers")


def three_dimensional(image):
    """Make one array of what mrcz returns: a list, or an array without axes of length 1."""
    return np.array(image) if isinstance(image, list) else image


# mrcz reads ours --------------------------------------------------------------------------------


@given(
    shapes,
    st.sampled_from([*MRCZ_DTYPES, *WIDENED_DTYPES]),
    st.sampled_from(CODECS),
    st.sampled_from(["none", "shuffle", "bitshuffle"]),
    sizes,
    json_trees,
    st.booleans(),
    st.integers(0, 99),
)
def test_mrcz_reads_our_compressed_files(
    folder, shape, dtype, codec, shuffling, pixel_size, metadata, footer, seed
):
    pixels = movie(shape, dtype, seed, smooth=seed % 2 == 0)
    path = folder / "ours.mrcz"
    options = {"codec": codec, "filter": shuffling, "metadata": metadata, "footer": footer}
    nm.write(path, pixels, pixel_size=pixel_size, overwrite=True, **options)
    found, header = mrcz.readMRC(str(path))
    np.testing.assert_array_equal(found, np.squeeze(pixels))
    assert header["compressor"] == codec
    np.testing.assert_allclose(header["pixelsize"], pixel_size, rtol=3e-7)
    assert {key: header[key] for key in metadata} == metadata


@given(shapes, st.sampled_from(MRCZ_DTYPES), sizes, st.booleans(), st.integers(0, 99))
def test_mrcz_reads_our_plain_files(folder, shape, dtype, pixel_size, footer, seed):
    pixels = movie(shape, dtype, seed)
    path = folder / "ours.mrc"
    metadata = {"kept": "in the footer"} if footer else None
    nm.write(path, pixels, pixel_size=pixel_size, metadata=metadata, overwrite=True)
    found, header = mrcz.readMRC(str(path))
    np.testing.assert_array_equal(np.squeeze(three_dimensional(found)), np.squeeze(pixels))
    np.testing.assert_allclose(header["pixelsize"][1:], pixel_size[1:], rtol=3e-7)


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_voltage_aberration_and_gain_go_both_ways(folder, suffix):
    pixels = movie((3, 4, 5), "int16")
    compressor = "zstd" if suffix == ".mrcz" else None
    path, again = folder / f"theirs{suffix}", folder / f"again{suffix}"
    mrcz.writeMRC(pixels, str(path), voltage=200.0, C3=2.7, gain=1.5, compressor=compressor)
    with nm.open(path) as stack:
        header = stack.header
        assert (header.voltage, header.c3, header.gain) == (200.0, pytest.approx(2.7), 1.5)
        nm.write(again, stack, overwrite=True)
    _, found = mrcz.readMRC(str(again))
    assert (found["voltage"], found["C3"], found["gain"]) == (200.0, pytest.approx(2.7), 1.5)


def test_hyperspy_finds_the_extended_header_that_it_takes_for_granted(folder):
    """Its reader removes `metaId` from what `mrcz` returns, whether it is there or not."""
    nm.write(folder / "bare.mrcz", np.ones((2, 5, 7), np.int8))
    assert mrcz.readMRC(str(folder / "bare.mrcz"))[1]["metaId"] == b"json"
    assert dict(nm.open(folder / "bare.mrcz").metadata) == {}


def test_mrcz_reads_our_stack_of_volumes(folder):
    volumes = movie((2, 3, 5, 7), "float32")
    nm.write(folder / "v.mrcz", volumes, pixel_size=(3, 2, 1))
    found, header = mrcz.readMRC(str(folder / "v.mrcz"))
    np.testing.assert_array_equal(np.array(found), volumes)
    np.testing.assert_allclose(header["pixelsize"], (3, 2, 1))


# We read mrcz's ---------------------------------------------------------------------------------


@given(
    shapes,
    st.sampled_from([*MRCZ_DTYPES, "float64", "complex128"]),
    st.sampled_from([None, *CODECS]),
    st.sampled_from(["le", "be"]),
    st.integers(1, 9),
    sizes,
    st.none() | json_trees,
    st.booleans(),
    st.integers(0, 99),
)
def test_we_read_all_that_mrcz_writes(
    folder, shape, dtype, codec, endian, level, pixel_size, metadata, quick, seed
):
    pixels = movie(shape, dtype, seed, smooth=True)
    path = folder / "theirs.mrcz"
    options = {"endian": endian, "clevel": level, "meta": metadata, "quickStats": quick}
    mrcz.writeMRC(pixels, str(path), compressor=codec, pixelsize=list(pixel_size), **options)
    stored = {"float64": "float32", "complex128": "complex64"}.get(dtype, dtype)
    with nm.open(path) as stack:
        assert_same_pixels(np.asarray(stack), pixels.astype(stored))
        assert stack.pixel_size == pytest.approx(pixel_size, rel=3e-7)
        assert stack.metadata == (metadata or {})
        assert stack.header.byte_order == ("<" if endian == "le" else ">")
    report = nm.verify(path)
    assert report.ok
    assert not report.checksums


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    sides,
    sides,
    st.sampled_from([None, "zstd", "lz4"]),
    st.sampled_from(["le", "be"]),
    st.integers(0, 99),
)
def test_we_read_lists_of_images_and_of_volumes(folder, n, slices, ny, nx, codec, endian, seed):
    pixels = movie((n, slices, ny, nx), "uint16", seed, smooth=True)
    path = folder / "list.mrcz"
    mrcz.writeMRC(list(pixels), str(path), compressor=codec, pixelsize=[3, 2, 1], endian=endian)
    with nm.open(path) as stack:
        assert_same_pixels(np.asarray(stack), pixels.reshape(-1, ny, nx))
        assert stack.pixel_size == (3, 2, 1)
    mrcz.writeMRC(list(pixels[:, 0]), str(path), compressor=codec, endian=endian)
    assert_same_pixels(nm.read(path), pixels[:, 0])


@pytest.mark.parametrize("nx", [2, 8, 30])
def test_we_read_4_bit_files_of_mrcz_at_even_widths(folder, nx):
    pixels = np.random.default_rng(0).integers(0, 16, (3, 5, nx)).astype(np.uint8)
    mrcz.writeMRC(pixels, str(folder / "four.mrc"), dtype="uint4")
    assert_same_pixels(nm.read(folder / "four.mrc"), pixels)
    nm.write(folder / "ours4.mrc", pixels, dtype="uint4", overwrite=True)
    found, _ = mrcz.readMRC(str(folder / "ours4.mrc"), slices=0)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("dtype", MRCZ_DTYPES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("threads", [1, 2])
def test_version_5_chunks_are_read_or_refused_where_they_decode_wrongly(
    folder, dtype, codec, threads
):
    # mrcz makes blocks of (pixels / threads) bytes; those that are no multiple of the item size
    # decode to wrong pixels without an error.
    for side in (32, 31, 8):
        pixels = movie((2, side, side), dtype, 1, smooth=True)
        path = folder / "b2.mrcz"
        options = {"compressor": codec, "backend": "blosc2", "n_threads": threads}
        mrcz.writeMRC(pixels, str(path), **options)
        assert path.read_bytes()[1024] == 5
        if (side * side // threads) % pixels.itemsize == 0:
            assert_same_pixels(nm.read(path), pixels)
            continue
        try:
            found = nm.read(path)
        except nm.MrczError as error:
            assert "mrcz 0.6.0" in str(error)
        else:
            assert_same_pixels(found, pixels)


def test_version_5_chunks_of_equal_pixels_are_read(folder):
    for value in (0, 7):
        pixels = np.full((2, 32, 32), value, np.int16)
        options = {"compressor": "zstd", "backend": "blosc2", "n_threads": 1}
        mrcz.writeMRC(pixels, str(folder / "equal.mrcz"), **options)
        assert_same_pixels(nm.read(folder / "equal.mrcz"), pixels)


# mrcfile reads ours -----------------------------------------------------------------------------


def validation(path):
    """Return what mrcfile's validator says, and whether it is content."""
    said = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(said):
        warnings.simplefilter("ignore", RuntimeWarning)
        content = mrcfile.validate(path, print_file=said)
    return content, said.getvalue().strip()


@given(
    st.sampled_from(["stack", "image", "volumes"]),
    shapes,
    st.sampled_from(MRCFILE_DTYPES),
    sizes,
    st.integers(0, 99),
)
def test_mrcfile_reads_our_plain_files_and_is_content(folder, kind, shape, dtype, size, seed):
    pixels = movie(shape, dtype, seed, smooth=True)
    given_frames = {"stack": pixels, "image": pixels[0], "volumes": np.stack([pixels, pixels])}
    path = folder / "ours.mrc"
    nm.write(path, given_frames[kind], pixel_size=size, overwrite=True)
    with mrcfile.open(path) as file:
        expected = pixels[:1] if kind == "image" else given_frames[kind]
        np.testing.assert_array_equal(file.data.reshape(expected.shape), expected)
        found = [float(file.voxel_size[axis]) for axis in "zyx"]
        np.testing.assert_allclose(found, size, rtol=3e-7)
        assert file.is_volume_stack() == (kind == "volumes")
        assert file.header.mz == (shape[0] if kind == "volumes" else 1)
        if kind != "volumes":
            assert file.is_image_stack() or file.is_single_image()
    content, said = validation(path)
    assert content, said


@pytest.mark.parametrize("suffix", [".mrc", ".mrcs", ".map", ".st", ".rec", ".ali", ".preali"])
def test_with_a_footer_the_validator_only_says_that_the_file_is_larger(folder, suffix):
    pixels = movie((3, 4, 5), "uint16")
    path = folder / f"footer{suffix}"
    nm.write(path, pixels, metadata={"a": 1})
    with pytest.warns(RuntimeWarning, match="larger than expected"), mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, pixels)
    content, said = validation(path)
    assert not content
    _, complaint = said.splitlines()  # the first says which file is checked
    assert complaint.startswith("File is larger than expected")


def test_a_volume_stays_a_volume(folder):
    pixels = movie((6, 5, 7), "float32", smooth=True)
    with mrcfile.new(folder / "volume.mrc", pixels) as file:
        file.voxel_size = (1, 2, 3)
    with nm.open(folder / "volume.mrc") as stack:
        assert stack.header.is_volume
        assert stack.pixel_size == (3, 2, 1)
        nm.write(folder / "volume.mrcz", stack)
    with nm.open(folder / "volume.mrcz") as stack:
        assert stack.header.is_volume
        nm.write(folder / "volume-again.mrc", stack)
    with mrcfile.open(folder / "volume-again.mrc") as file:
        assert file.is_volume()
        assert [float(file.voxel_size[axis]) for axis in "zyx"] == [3, 2, 1]
    assert validation(folder / "volume-again.mrc")[0]


# We read mrcfile's ------------------------------------------------------------------------------


@given(
    st.sampled_from(["image", "stack", "volume", "volumes"]),
    shapes,
    st.sampled_from([*MRCFILE_DTYPES, "uint8"]),
    st.sampled_from("<>"),
    sizes,
    st.sampled_from([None, "gzip", "bzip2"]),
    st.binary(max_size=100),
    st.integers(0, 99),
)
def test_we_read_all_that_mrcfile_writes(
    folder, kind, shape, dtype, order, size, compression, extended, seed
):
    pixels = movie(shape, dtype, seed)
    if dtype == "uint8":  # mrcfile casts it to uint16
        pixels //= 2
    data = {"image": pixels[0], "stack": pixels, "volume": pixels, "volumes": pixels[None]}[kind]
    path = folder / f"theirs.mrc{ {None: '', 'gzip': '.gz', 'bzip2': '.bz2'}[compression] }"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its statistics overflow for infinities
        with mrcfile.new(path, compression=compression, overwrite=True) as file:
            file.set_data(data.astype(data.dtype.newbyteorder(order)))
            if kind == "stack":
                file.set_image_stack()
            file.voxel_size = size[::-1]
            if extended:
                file.set_extended_header(np.frombuffer(extended, "V1"))
    expected = pixels[:1] if kind == "image" else pixels
    stored = "uint16" if dtype == "uint8" else dtype
    with nm.open(path) as stack:
        assert_same_pixels(np.asarray(stack), expected.astype(stored))
        z = 0.0 if kind == "image" else size[0]
        assert stack.pixel_size[1:] == pytest.approx(size[1:], rel=3e-7)
        if z:
            assert stack.pixel_size[0] == pytest.approx(z, rel=3e-7)
        assert stack.header.byte_order == (order if pixels.itemsize > 1 else "<")
        assert stack.header.is_volume == kind.startswith("volume")
        found = stack.description.extended
        assert (b"" if found is None else found.data) == extended


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress], ids=["gz", "bz2"])
def test_our_own_files_are_read_packed_too_with_all_they_hold(folder, suffix, pack):
    pixels = movie((3, 4, 5), "uint8")
    nm.write(folder / f"own{suffix}", pixels, metadata={"a": [1, b"2"]}, overwrite=True)
    packed = folder / f"own{suffix}.{'gz' if pack is gzip.compress else 'bz2'}"
    packed.write_bytes(pack((folder / f"own{suffix}").read_bytes()))
    with nm.open(packed) as stack:
        assert_same_pixels(np.asarray(stack), pixels)
        assert stack.metadata == {"a": [1, b"2"]}
        assert_same_pixels(stack[1, 1:3], pixels[1, 1:3])
    assert nm.verify(packed).checksums
