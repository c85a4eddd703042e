"""What is written is what is read: every shape, dtype, codec and source, or it is refused."""

import itertools

import dask.array
import numpy as np
import pytest
from good_files import STORED_DTYPES, WIDENED_DTYPES, assert_same_pixels, movie
from hypothesis import example, given
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.format.header_writing import statistics_of

CODECS = ("zstd", "lz4", "lz4hc", "zlib", "blosclz", "none")
CODEC_NUMBERS = {"none": 0, "blosclz": 1, "lz4": 2, "lz4hc": 3, "zlib": 5, "zstd": 6}

sides = st.integers(1, 9) | st.sampled_from([16, 31, 64])
shapes = st.tuples(st.integers(1, 5), sides, sides)
dtypes = st.sampled_from([*STORED_DTYPES, *WIDENED_DTYPES])
encodings = st.fixed_dictionaries(
    {
        "codec": st.sampled_from(CODECS),
        "level": st.integers(1, 9),
        "filter": st.sampled_from(["auto", "none", "shuffle", "bitshuffle"]),
        "block_size": st.just("auto") | st.sampled_from([16, 17, 100, 256, 4096, 2**20]),
    }
)
sizes = st.just(0.0) | st.floats(0.01, 1e4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("round_trip")


@given(shapes, dtypes, st.sampled_from("<>"), encodings, st.booleans(), st.integers(0, 99))
@example((1, 1, 1), "uint8", "<", {"codec": "zstd"}, True, 0)
@example((2, 64, 64), "int16", ">", {"codec": "lz4", "filter": "bitshuffle"}, True, 1)
def test_every_array_comes_back_as_it_was(folder, shape, dtype, order, encoding, smooth, seed):
    pixels = movie(shape, dtype, seed, smooth=smooth)
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    path = folder / ("a.mrc" if encoding["codec"] == "none" else "a.mrcz")
    nm.write(path, pixels, **encoding, overwrite=True)
    assert_same_pixels(nm.read(path), pixels)
    with nm.open(path) as stack:
        assert stack.header.codec == CODEC_NUMBERS[encoding["codec"]]
        assert (stack.shape, stack.dtype) == (shape, np.dtype(dtype))
    report = nm.verify(path)
    assert report.ok
    assert report.frames == shape[0]


@given(shapes, dtypes, st.sampled_from(["a.mrc", "a.mrcz", "a.map"]), st.integers(0, 99))
def test_without_footer_every_value_survives_in_a_type_that_a_mode_holds(
    folder, shape, dtype, name, seed
):
    pixels = movie(shape, dtype, seed)
    nm.write(folder / name, pixels, footer=False, overwrite=True)
    found = nm.read(folder / name)
    assert found.dtype.name in STORED_DTYPES
    np.testing.assert_array_equal(found, pixels)


@given(shapes, st.integers(0, 99), st.booleans())
def test_4_bit_pixels_come_back_and_take_half_a_byte(folder, shape, seed, footer):
    pixels = np.random.default_rng(seed).integers(0, 16, shape).astype(np.uint8)
    path = folder / "a.mrc"
    nm.write(path, pixels, dtype="uint4", footer=footer, overwrite=True)
    assert_same_pixels(nm.read(path), pixels)
    n, y, x = shape
    assert path.stat().st_size == 1024 + n * y * ((x + 1) // 2)


def test_4_bit_rows_are_packed_low_nibble_first_and_padded_to_a_byte(folder):
    nm.write(folder / "n.mrc", np.array([[[1, 2, 3], [4, 5, 15]]], np.uint8), dtype="uint4")
    assert (folder / "n.mrc").read_bytes()[1024:] == bytes([0x21, 0x03, 0x54, 0x0F])


@pytest.mark.parametrize("late", range(5))
@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
def test_uint8_beyond_127_is_kept_wherever_it_first_turns_up(folder, late, suffix):
    pixels = np.zeros((5, 8, 9), np.uint8)
    pixels[late, 3, 3] = 128
    path = folder / f"late{suffix}"
    nm.write(path, pixels, overwrite=True)
    assert_same_pixels(nm.read(path), pixels)
    nm.write(path, iter(pixels), overwrite=True)
    assert_same_pixels(nm.read(path), pixels)


def test_uint8_up_to_127_is_stored_in_one_byte(folder):
    pixels = np.full((2, 8, 9), 127, np.uint8)
    nm.write(folder / "narrow.mrc", pixels, footer=False)
    assert (folder / "narrow.mrc").stat().st_size == 1024 + pixels.size


# Sources ----------------------------------------------------------------------------------------


class Negated:
    """A correction with known effect."""

    def __call__(self, frame, index):
        return frame * np.float32(-1) + np.float32(index)

    def describe(self):
        return {"name": "negated", "sign": -1}


def _saved(folder, pixels):
    nm.write(folder / "source.mrcz", pixels, overwrite=True)
    return nm.open(folder / "source.mrcz")


SOURCES = {
    "array": lambda folder, p: p,
    "list": lambda folder, p: list(p),
    "tuple": lambda folder, p: tuple(p),
    "generator": lambda folder, p: (frame for frame in p),
    "nested list": lambda folder, p: p.tolist(),
    "transposed": lambda folder, p: np.ascontiguousarray(p.T).T,
    "backwards": lambda folder, p: np.ascontiguousarray(p[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "every second": lambda folder, p: np.repeat(np.repeat(p, 2, 1), 2, 2)[:, ::2, ::2],
    "read-only": lambda folder, p: np.frombuffer(p.tobytes(), p.dtype).reshape(p.shape),
    "dask": lambda folder, p: dask.array.from_array(p, chunks=(2, 3, 4)),
    "Stack of an array": lambda folder, p: nm.Stack.from_array(p),
    "Stack of a file": _saved,
    "joined Stacks": lambda folder, p: nm.Stack.joined(
        [nm.Stack.from_array(p[:1]), nm.Stack.from_array(p[1:])]
    ),
    "dask of a Stack": lambda folder, p: _saved(folder, p).to_dask(),
}


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float64", "complex64"])
def test_every_kind_of_source_is_written_whole(folder, kind, dtype, suffix):
    pixels = movie((4, 6, 7), dtype, 3, smooth=True)
    source = SOURCES[kind](folder, pixels)
    path = folder / f"sources{suffix}"
    nm.write(path, source, overwrite=True)
    if isinstance(source, nm.Stack):
        source.close()
    if kind == "dask of a Stack":
        (stack,) = {t for t in source.dask.values() if isinstance(t, nm.Stack)} or (None,)
        if stack is not None:
            stack.close()
    found = nm.read(path)
    if kind == "nested list":
        np.testing.assert_array_equal(found, pixels)
    else:
        assert_same_pixels(found, pixels)


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
@pytest.mark.parametrize("again", [False, True])
def test_frames_that_come_in_one_buffer_are_all_kept(folder, suffix, again):
    pixels = movie((12, 60, 70), "int16", 1)

    class OneBuffer:
        def __iter__(self):
            buffer = np.empty_like(pixels[0])
            for frame in pixels:
                buffer[...] = frame
                yield buffer

    path = folder / f"buffer{suffix}"
    nm.write(path, OneBuffer() if again else iter(OneBuffer()), threads=6, overwrite=True)
    assert_same_pixels(nm.read(path), pixels)


def test_a_corrected_stack_is_written_corrected_with_its_history(folder):
    pixels = movie((4, 6, 7), "int16", 3)
    with _saved(folder, pixels) as stack:
        nm.write(folder / "corrected.mrcz", stack.apply(Negated()), overwrite=True)
    expected = np.stack([Negated()(frame, i) for i, frame in enumerate(pixels)])
    with nm.open(folder / "corrected.mrcz") as stack:
        assert_same_pixels(np.asarray(stack), expected)
        assert stack.history == ({"name": "negated", "sign": -1},)


def test_one_image_becomes_one_frame(folder):
    image = movie((5, 7), "float32")
    for name, frames in itertools.product(("i.mrc", "i.mrcz"), (image, image[None], [image])):
        nm.write(folder / name, frames, overwrite=True)
        assert_same_pixels(nm.read(folder / name), image[None])


def test_a_stack_of_volumes_is_read_section_by_section(folder):
    volumes = movie((2, 3, 5, 7), "float32")
    for name in ("v.mrc", "v.mrcz"):
        nm.write(folder / name, volumes, pixel_size=(3.0, 2.0, 1.0), overwrite=True)
        with nm.open(folder / name) as stack:
            assert_same_pixels(np.asarray(stack), volumes.reshape(6, 5, 7))
            assert stack.header.ispg == 401
            assert stack.pixel_size == (3.0, 2.0, 1.0)


# Pixel size and statistics ----------------------------------------------------------------------


@given(shapes, st.tuples(sizes, sizes, sizes), st.sampled_from(["s.mrc", "s.mrcz"]))
def test_pixel_sizes_come_back_to_seven_digits(folder, shape, pixel_size, name):
    nm.write(folder / name, np.ones(shape, np.int8), pixel_size=pixel_size, overwrite=True)
    with nm.open(folder / name) as stack:
        assert stack.pixel_size == pytest.approx(pixel_size, rel=3e-7)


@pytest.mark.parametrize(
    ("given_size", "expected"),
    [(1.5, (1.5, 1.5, 1.5)), ((2.0, 3.0), (0.0, 2.0, 3.0)), (None, (0.0, 0.0, 0.0))],
)
def test_pixel_sizes_may_be_given_in_short(folder, given_size, expected):
    nm.write(folder / "p.mrc", np.ones((2, 4, 4), np.int8), pixel_size=given_size, overwrite=True)
    with nm.open(folder / "p.mrc") as stack:
        assert stack.pixel_size == expected


@given(shapes, st.sampled_from(STORED_DTYPES[:-1]), st.integers(0, 99))
def test_the_header_holds_the_true_statistics(folder, shape, dtype, seed):
    pixels = movie(shape, dtype, seed, smooth=dtype.startswith("float"))
    nm.write(folder / "t.mrcz", pixels, overwrite=True)
    with nm.open(folder / "t.mrcz") as stack:
        found = [getattr(stack.header, name) for name in ("dmin", "dmax", "dmean", "rms")]
    exact = pixels.astype(np.float64)
    spread = float(np.ptp(exact))
    assert found[:2] == pytest.approx([exact.min(), exact.max()], rel=1e-7)
    assert found[2:] == pytest.approx([exact.mean(), exact.std()], rel=1e-6, abs=1e-6 * spread)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16"])
@pytest.mark.parametrize("outlier", [3, 16, 100, -100])
def test_statistics_of_large_counted_frames_with_one_outlier(folder, dtype, outlier):
    """A frame of several blocks; the outlier is beyond what bit planes are added up for."""
    pixels = (np.random.default_rng(1).random((1, 1200, 1100)) < 0.1).astype(dtype)
    pixels[0, 7, 5] = abs(outlier) if dtype == "uint16" else outlier
    nm.write(folder / "t.mrcz", pixels, filter="bitshuffle", overwrite=True)
    with nm.open(folder / "t.mrcz") as stack:
        header = stack.header
        assert_same_pixels(stack[0], pixels[0])
    assert (header.dmin, header.dmax) == (pixels.min(), pixels.max())
    assert (header.dmean, header.rms) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-6)


@pytest.mark.parametrize(("dtype", "offset"), [("uint8", 253), ("int16", 0), ("uint16", 1000)])
def test_statistics_lose_nothing_to_an_offset_or_a_hot_pixel(dtype, offset):
    pixels = offset + np.random.default_rng(1).poisson(0.2, 300_000).clip(0, 2).astype(dtype)
    pixels[pixels.size // 2] = np.iinfo(dtype).max
    expected = pixels.min(), pixels.max(), pixels.mean(), pixels.std()
    assert statistics_of(pixels).for_header() == pytest.approx(expected, rel=1e-6)


def test_statistics_of_numbers_that_are_not_finite_are_not_determined(folder):
    nm.write(folder / "t.mrc", np.array([[[1.0, np.nan]]], np.float32), overwrite=True)
    with nm.open(folder / "t.mrc") as stack:
        assert stack.header.dmax < stack.header.dmin


def test_statistics_keep_small_differences_of_large_numbers(folder):
    rng = np.random.default_rng(0)
    pixels = (1e6 + rng.standard_normal((3, 200, 300))).astype(np.float32)
    nm.write(folder / "t.mrc", pixels, overwrite=True)
    with nm.open(folder / "t.mrc") as stack:
        assert stack.header.rms == pytest.approx(pixels.astype(np.float64).std(), rel=1e-4)


# Casting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", 2**31),
        ("int64", -(2**31) - 1),
        ("uint64", 2**32),
        ("float64", 1 / 3),
        ("float64", 1e300),
        ("complex128", complex(0, 1 / 3)),
        ("complex128", complex(np.nan, 1 / 3)),
    ],
)
def test_values_that_no_mode_holds_are_refused_and_no_wrong_frame_is_named(folder, dtype, value):
    pixels = np.zeros((3, 4, 5), dtype)
    pixels[2, 1, 1] = value
    with pytest.raises(nm.MrczError) as refusal:
        nm.write(folder / "refused.mrcz", pixels)
    assert refusal.value.frame in (2, None)
    with pytest.raises(nm.MrczError) as refusal:
        nm.write(folder / "refused.mrcz", iter(pixels))
    assert refusal.value.frame == 2
    assert not (folder / "refused.mrcz").exists()


@pytest.mark.parametrize(
    ("dtype", "value", "asked"),
    [
        ("float32", 2.0**31, "int32"),
        ("float32", 2.0**32, "uint32"),
        ("float64", 2.0**63, "int64"),
        ("float16", 65504, "int16"),
        ("float32", -1.0, "uint8"),
        ("float32", np.nan, "int16"),
        ("float32", np.inf, "int32"),
        ("float32", 1e30, "float16"),
        ("float64", 1e300, "float32"),
        ("int32", 100_000, "float16"),
        ("uint16", 256, "uint8"),
        ("int16", -1, "uint16"),
        ("int16", 2, "bool"),
        ("uint8", 16, "uint4"),
        ("complex64", 1j, "float32"),
    ],
)
def test_a_dtype_that_was_asked_for_never_wraps_or_cuts_off(folder, dtype, value, asked):
    pixels = np.zeros((2, 4, 5), dtype)
    pixels[0, 1, 1] = value
    with pytest.raises(nm.MrczError):
        nm.write(folder / "wrapped.mrc", pixels, dtype=asked)


@given(
    st.sampled_from(["int16", "uint16", "int32", "float16", "float32", "float64", "uint8"]),
    st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "float16", "float32"]),
    st.lists(st.integers(-(2**31), 2**31 - 1) | st.floats(-70_000, 70_000), min_size=1),
)
def test_a_dtype_that_was_asked_for_rounds_or_refuses(folder, dtype, asked, values):
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        values = [int(min(max(v, info.min), info.max)) for v in values]
    with np.errstate(over="ignore"):
        pixels = np.array(values, kind).reshape(1, 1, -1)
    fits = [_fits(v, np.dtype(asked)) for v in pixels.ravel().tolist()]
    try:
        nm.write(folder / "asked.mrc", pixels, dtype=asked, overwrite=True)
    except nm.MrczError:
        assert not all(fits)
        return
    assert all(fits)
    found = nm.read(folder / "asked.mrc")
    assert found.dtype == asked
    exact = pixels.astype(np.float64)
    if np.dtype(asked).kind in "iu":
        np.testing.assert_array_equal(found.astype(np.float64), np.rint(exact))
    else:
        np.testing.assert_array_equal(found, pixels.astype(asked))


def _fits(value, dtype):
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.isfinite(dtype.type(value))) or not np.isfinite(value)
    return bool(np.isfinite(value)) and np.iinfo(dtype).min <= round(value) <= np.iinfo(dtype).max


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 4, 4), np.int16),
        np.zeros((2, 0, 4), np.int16),
        np.zeros((2, 4, 0), np.int16),
        np.zeros((2, 0, 3, 3), np.int16),
        np.zeros((0, 2, 3, 3), np.int16),
        np.zeros(4),
        np.zeros((1, 2, 3, 4, 5)),
        np.array([["a", "b"]]),
        np.array([[object()]]),
        np.zeros((2, 2), "M8[s]"),
        np.zeros((2, 2), [("a", "i4")]),
        np.zeros((2, 2), np.longdouble),
        [],
        iter([]),
        [np.zeros((2, 3)), np.zeros((3, 2))],
        [np.zeros((2, 3), "i2"), np.zeros((2, 3), "i4")],
        [np.zeros(3)],
        [np.zeros((2, 3, 4))],
        5,
        None,
    ],
    ids=lambda f: f"{type(f).__name__}-{getattr(f, 'shape', '')}-{getattr(f, 'dtype', '')}",
)
@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_what_is_no_movie_is_refused(folder, frames, suffix):
    path = folder / f"none{suffix}"
    with pytest.raises(nm.MrczError):
        nm.write(path, frames)
    assert not path.exists()


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "gzip"},
        {"level": 0},
        {"level": 10},
        {"level": 1.5},
        {"filter": "delta"},
        {"block_size": 3},
        {"block_size": "large"},
        {"block_size": 2**30},
        {"pixel_size": -1},
        {"pixel_size": (1, 2, 3, 4)},
        {"pixel_size": np.nan},
    ],
)
def test_options_that_do_not_exist_are_refused(folder, options):
    with pytest.raises(ValueError):
        nm.write(folder / "o.mrcz", np.zeros((2, 4, 4), np.int16), **options)
    assert not (folder / "o.mrcz").exists()


@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.mrcz", "none"), ("x.MRCZ", None), ("x.mrc", "zstd"), ("x.rec", "lz4"), ("x.st", "zlib")],
)
def test_a_suffix_that_contradicts_the_codec_is_refused(folder, name, codec):
    with pytest.raises(nm.MrczError, match="codec"):
        nm.write(folder / name, np.zeros((2, 4, 4), np.int16), codec=codec)
    assert not (folder / name).exists()


def lazily(array):
    return dask.array.from_array(array, chunks=(1, *array.shape[1:]), asarray=False)


@pytest.mark.parametrize("form", [np.asanyarray, lazily, list, iter, lambda a: a[None]])
def test_masked_pixels_are_refused_and_an_empty_mask_costs_nothing(folder, form):
    pixels = np.ma.masked_array(movie((3, 4, 5), "int16"), mask=np.zeros((3, 4, 5), bool))
    path = folder / "masked.mrcz"
    nm.write(path, form(pixels), overwrite=True)
    np.testing.assert_array_equal(nm.read(path), pixels.data)
    path.unlink()
    pixels.mask[2, 3, 4] = True
    with pytest.raises(nm.MrczError, match="1 pixels are masked"):
        nm.write(path, form(pixels))
    assert not path.exists()
    with pytest.raises(nm.MrczError, match="masked"):
        np.asarray(nm.Stack.from_array(form(pixels) if form is lazily else pixels))


def test_a_suffix_that_is_no_movie_is_refused(folder):
    for name in ("a.png", "a", "a.mrc.gz"):
        with pytest.raises(nm.MrczError, match="suffix"):
            nm.write(folder / name, np.zeros((2, 4, 4), np.int16))
