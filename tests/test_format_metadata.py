"""Metadata comes back as it was, whatever it is; what peers read is the part JSON can hold."""

import enum
import json
import math
import pathlib
import struct
from datetime import UTC, date, datetime

import mrcfile
import mrcz
import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import napari_mrcz as nm
from napari_mrcz.format.footer import Footer, FooterError, FrameIndex, pack_footer, unpack_footer

PIXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
INT64 = st.integers(-(2**63), 2**64 - 1)

arrays = hnp.arrays(
    st.sampled_from(["?", "i1", "<u2", ">i4", "<f8", ">f4", "f2", "c8", "c16", "U3", "S3"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
scalars = st.one_of(
    st.none(), st.booleans(), INT64, st.floats(), st.text(), st.binary(), st.complex_numbers()
)
metadata = st.dictionaries(
    st.text() | INT64,
    st.recursive(
        scalars | arrays,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("metadata")


def written(folder, content, name="m.mrcz", **options):
    nm.write(folder / name, PIXELS, metadata=content, overwrite=True, **options)
    with nm.open(folder / name) as stack:
        return stack.metadata


def assert_same(found, expected):
    """Compare trees: types count, NaN equals NaN, arrays by dtype, shape and content."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, strict=True)
    else:
        assert type(found) is type(expected)
        assert repr(found) == repr(expected)


@given(metadata, st.sampled_from(["m.mrcz", "m.mrc"]))
@example({"": {"": []}, "a": [[], {}, None, -0.0, math.nan, math.inf]}, "m.mrcz")
@example({"a": {"__complex__": "no number"}, "b": {"__ndarray__": 1}}, "m.mrc")
def test_every_tree_of_values_comes_back(folder, content, name):
    assert_same(written(folder, content, name), content)


class Colour(enum.Enum):
    """Something with a value."""

    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (np.float32(1.5), 1.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.complex64(1 + 2j), 1 + 2j),
        (np.str_("text"), "text"),
        (np.bytes_(b"bytes"), b"bytes"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), "2024-05-06T07:08:09+00:00"),
        (date(2024, 5, 6), "2024-05-06"),
        (np.datetime64("2024-05-06"), "2024-05-06"),
        (np.array(["2024-05-06"], "M8[D]"), ["2024-05-06"]),
        (np.array([None, 1], object), [None, 1]),
        (np.array([(1, 2.5)], "i4,f8"), [[1, 2.5]]),
        (Colour.RED, "red"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        ({3}, [3]),
        ("half \ud800 character", "half ? character"),
        ({2**80: 1, None: 2, 1.5: 3, np.int8(4): 4}, {str(2**80): 1, "None": 2, "1.5": 3, 4: 4}),
        ({"\udc80": 1}, {"?": 1}),
        (range(3), "range(0, 3)"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_values_that_msgpack_lacks_come_back_as_the_nearest_it_has(folder, value, expected):
    assert_same(written(folder, {"v": value})["v"], expected)


def test_metadata_of_a_stack_is_added_to(folder):
    nm.write(folder / "a.mrcz", PIXELS, metadata={"a": 1, "b": 2}, overwrite=True)
    with nm.open(folder / "a.mrcz") as stack:
        nm.write(folder / "b.mrc", stack, metadata={"b": 3, "c": 4}, overwrite=True)
    with nm.open(folder / "b.mrc") as stack:
        assert stack.metadata == {"a": 1, "b": 3, "c": 4}


def test_changing_what_metadata_gives_does_not_change_the_stack(folder):
    nm.write(folder / "a.mrcz", PIXELS, metadata={"a": 1}, overwrite=True)
    with nm.open(folder / "a.mrcz") as stack:
        stack.metadata["a"] = 2
        assert stack.metadata == {"a": 1}


def nested(depth):
    content = {}
    for _ in range(depth):
        content = {"d": content}
    return content


def test_metadata_as_deep_as_200_levels_comes_back(folder):
    assert written(folder, nested(200)) == nested(200)


def endless():
    content = {}
    content["self"] = content
    return content


@pytest.mark.parametrize(
    "content",
    [nested(300), nested(5000), endless(), {"a": [0] * 600_000}, {"a": "x" * 35_000_000}],
    ids=["deep", "very deep", "endless", "many values", "long text"],
)
def test_metadata_that_cannot_be_stored_is_refused_before_the_first_frame(folder, content):
    asked = []

    def frames():
        for frame in PIXELS:
            asked.append(1)
            yield frame

    with pytest.raises(nm.MrczError, match=r"metadata"):
        nm.write(folder / "refused.mrcz", frames(), metadata=content)
    assert len(asked) <= 1
    assert not (folder / "refused.mrcz").exists()


def test_an_array_is_one_value_however_large(folder):
    array = np.arange(1_000_000, dtype=np.float32)
    assert_same(written(folder, {"flat": array}), {"flat": array})
    _, header = mrcz.readMRC(str(folder / "m.mrcz"))
    assert "flat" not in header


# What peers see ----------------------------------------------------------------------------------


@given(metadata)
def test_the_json_header_is_strict_json_of_all_that_json_holds(folder, content):
    written(folder, content)
    raw = (folder / "m.mrcz").read_bytes()
    nsymbt = int(np.frombuffer(raw, "<i4", 1, 92)[0])
    assert raw[104:108] == b"json"

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    shown = json.loads(raw[1024 : 1024 + nsymbt], parse_constant=refuse)
    assert set(shown) == {str(k) for k, v in content.items() if not isinstance(v, bytes)}
    for key, value in content.items():
        if isinstance(value, str | bool | int | None):
            assert shown[str(key)] == value
        if isinstance(value, float) and math.isfinite(value):
            assert shown[str(key)] == value


def test_arrays_and_complex_numbers_are_lists_in_json(folder):
    content = {
        "a": np.arange(6.0).reshape(2, 3),
        "c": 1 + 2j,
        "n": np.array([np.nan, 1]),
        "b": b"x",
    }
    written(folder, content)
    _, header = mrcz.readMRC(str(folder / "m.mrcz"))
    assert header["a"] == [[0, 1, 2], [3, 4, 5]]
    assert header["c"] == [1, 2]
    assert header["n"] == [None, 1]
    assert "b" not in header


def test_without_footer_the_json_header_is_what_comes_back(folder):
    content = {"a": [1, {"b": None}], "t": "β", "bytes": b"lost"}
    assert written(folder, content, footer=False) == {"a": [1, {"b": None}], "t": "β"}


def test_an_extended_header_goes_through_compression_and_back(folder):
    with mrcfile.new(folder / "fei.mrc", PIXELS, overwrite=True) as file:
        record = np.zeros(3, mrcfile.dtypes.get_ext_header_dtype(b"FEI1"))
        record["Metadata size"], record["HT"] = record.dtype.itemsize, 300e3
        file.set_extended_header(record)
        file.header.exttyp = b"FEI1"
    raw = (folder / "fei.mrc").read_bytes()[1024 : 1024 + record.nbytes]
    for before, after in (("fei.mrc", "c.mrcz"), ("c.mrcz", "d.mrcz"), ("d.mrcz", "e.mrc")):
        with nm.open(folder / before) as stack:
            extended = stack.description.extended
            assert (extended.kind, extended.data, extended.frames) == ("FEI1", raw, 3)
            assert [frame["HT"] for frame in stack.metadata["FEI1"]] == [300e3] * 3
            nm.write(folder / after, stack, metadata={"by": after}, overwrite=True)
    assert (folder / "e.mrc").read_bytes()[1024 : 1024 + record.nbytes] == raw
    with pytest.warns(RuntimeWarning, match="larger"), mrcfile.open(folder / "e.mrc") as file:
        assert file.indexed_extended_header["HT"].tolist() == [300e3] * 3


@pytest.mark.parametrize(
    "kind", [b"FEI1", b"SERI", b"AGAR", b"\xe2\x82\xac ", b"\xff\xfe\x01 ", b""]
)
def test_extended_headers_of_any_kind_are_kept_byte_for_byte(folder, kind):
    with mrcfile.new(folder / "x.mrc", PIXELS, overwrite=True) as file:
        file.set_extended_header(np.frombuffer(b"whatever it is, it stays as it is", "V1"))
        file.header.exttyp = kind
    raw = (folder / "x.mrc").read_bytes()
    if kind == b"FEI1":
        with pytest.warns(nm.MrczWarning, match="FEI1"):
            stack = nm.open(folder / "x.mrc")
    else:
        stack = nm.open(folder / "x.mrc")
    with stack:
        nm.write(folder / "y.mrc", stack, footer=False, overwrite=True)
    kept = (folder / "y.mrc").read_bytes()
    assert kept[104:108] == raw[104:108]
    assert kept[1024:] == raw[1024:]


# The footer itself -------------------------------------------------------------------------------


@given(
    st.sampled_from(["msgpack", "json"]),
    st.lists(st.integers(0, 2**64 - 1), max_size=20),
    st.dictionaries(st.text(min_size=1).map("x_".__add__), st.text() | st.integers(-99, 99)),
)
def test_footers_of_every_encoding_come_back(encoding, numbers, other):
    column = np.array(numbers, np.uint64)
    footer = Footer(
        writer="someone 1.0",
        frames=FrameIndex(column, column, column),
        dtype="uint8",
        metadata={"a": [1, "β", None]},
        history=({"name": "gain", "gamma": 1.5},),
        other=other,
    )
    raw = pack_footer(footer)
    if encoding == "json":
        columns = dict.fromkeys(("offsets", "sizes", "xxh3"), numbers)
        content = {"writer": footer.writer, "frames": columns, "dtype": footer.dtype, **other}
        content |= {"metadata": footer.metadata, "history": footer.history}
        payload = json.dumps(content).encode()
        numbers = 1, 0, 0, 0, len(payload), xxhash.xxh3_64_intdigest(payload)
        raw = payload + struct.pack("<8s4H2Q", b"MRCZFOOT", *numbers)
    found = unpack_footer(raw[:-32], raw[-32:])
    for name in ("writer", "dtype", "metadata", "history", "other"):
        assert getattr(found, name) == getattr(footer, name)
    for name in ("offsets", "sizes", "xxh3"):
        np.testing.assert_array_equal(
            getattr(found.frames, name), getattr(footer.frames, name), strict=True
        )


def test_a_long_index_is_packed_and_comes_back():
    sizes = np.random.default_rng(0).integers(10**6, 2 * 10**6, 100_000, np.uint64)
    offsets = np.cumsum(sizes)
    raw = pack_footer(Footer(frames=FrameIndex(offsets, sizes)))
    assert len(raw) < 0.6 * (offsets.nbytes + sizes.nbytes)
    found = unpack_footer(raw[:-32], raw[-32:])
    np.testing.assert_array_equal(found.frames.offsets, offsets)


def test_unknown_keys_are_kept_and_written_back(folder):
    nm.write(folder / "a.mrcz", PIXELS, overwrite=True)
    raw = (folder / "a.mrcz").read_bytes()
    length = int.from_bytes(raw[-16:-8], "little")
    footer = unpack_footer(raw[-32 - length : -32], raw[-32:])
    added = Footer(
        footer.writer, footer.frames, other={"of 2031": {"x": [1, b"2"]}, "gain": b"ref"}
    )
    (folder / "a.mrcz").write_bytes(raw[: -32 - length] + pack_footer(added))
    with nm.open(folder / "a.mrcz") as stack:
        nm.write(folder / "b.mrcz", stack, overwrite=True)
    with nm.open(folder / "b.mrcz") as stack:
        assert stack.description.other == {"of 2031": {"x": [1, b"2"]}, "gain": b"ref"}


def test_a_footer_with_one_wrong_byte_is_no_footer():
    good = pack_footer(Footer(metadata={"a": bytes(range(100))}))
    for place in [*range(len(good) - 32), *range(len(good) - 8, len(good))]:
        raw = bytearray(good)
        raw[place] ^= 1
        with pytest.raises(FooterError):
            unpack_footer(bytes(raw[:-32]), bytes(raw[-32:]))


def test_what_takes_a_footer_is_told_of_where_there_is_none(tmp_path):
    frames = np.zeros((2, 4, 5), np.int8)
    with pytest.warns(nm.MrczWarning, match="metadata left out"):
        nm.write(tmp_path / "a.mrc", frames, metadata={"grid": 3}, footer=False)
    nm.write(tmp_path / "b.mrc", frames, footer=False)
