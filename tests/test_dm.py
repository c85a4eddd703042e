"""DM3 and DM4 files: which object is the movie, what else there is, and all that the tags say."""

import warnings

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from foreign_files import DM_TYPES, RGB, DmWriter, image
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import napari_mrcz as nm
from napari_mrcz.stack import dm

MOVIE = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
THUMBNAIL = image(np.zeros((5, 6, 4), np.uint8), data_type=RGB)
ANY_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def opened(tmp_path, content, name="file.dm4"):
    path = tmp_path / name
    path.write_bytes(content)
    return nm.open(path)


@ANY_PATH
@given(data=st.data(), version=st.sampled_from([3, 4]), order=st.sampled_from("<>"))
def test_the_movie_is_found_by_its_shape_and_further_objects_are_told_of(
    tmp_path, data, version, order
):
    dtype = np.dtype(data.draw(st.sampled_from(sorted(DM_TYPES))))
    sizes = data.draw(st.tuples(st.integers(2, 4), st.integers(1, 5), st.integers(1, 5)))
    values = arrays.from_dtype(dtype, allow_nan=False)
    movie = data.draw(arrays.arrays(dtype, sizes, elements=values))
    others = st.sampled_from([(7, 9), (30,), (70_000,), (2, 3, 4, 5)])
    images = [image(np.zeros(data.draw(others), np.int16))
              for _ in range(data.draw(st.integers(0, 2)))]  # fmt: skip
    further = len(images)
    images.insert(data.draw(st.integers(0, further)), image(movie, 0.25, "nm"))
    thumbnail = data.draw(st.sampled_from([None, "first", "marked"]))
    if thumbnail:
        images.insert(0, THUMBNAIL)
    marked = 0 if thumbnail == "marked" else None
    content = DmWriter(version, order).images(images, marked)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack = opened(tmp_path, content)
    with stack:
        np.testing.assert_array_equal(stack, movie[:, ::-1])
        assert stack.dtype == dtype
        assert stack.pixel_size == (0, 2.5, 2.5)
    told = [str(warning.message) for warning in caught]
    assert len(told) == bool(further)
    assert all(f"{further} further object" in text for text in told)


def test_a_marked_thumbnail_may_lie_anywhere_and_be_of_any_type(tmp_path):
    small = image(np.ones((3, 8, 9), np.int32))
    with opened(tmp_path, DmWriter().images([image(MOVIE), small], thumbnail=1)) as stack:
        np.testing.assert_array_equal(stack, MOVIE[:, ::-1])
    with opened(tmp_path, DmWriter().images([image(MOVIE[0])], thumbnail=0)) as stack:
        np.testing.assert_array_equal(stack, MOVIE[:1, ::-1])


@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3, 1), (1, 3, 4), (1, 1, 3, 4), (2, 1, 4)])
def test_images_and_rows_are_frames(tmp_path, shape):
    pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    with opened(tmp_path, DmWriter().images([THUMBNAIL, image(pixels)])) as stack:
        np.testing.assert_array_equal(stack, pixels.reshape((-1, *shape[-2:]))[:, ::-1])


@pytest.mark.parametrize(
    "only",
    [image(np.zeros((2, 3, 4, 5), np.int16)), image(np.zeros(7, np.float32)), THUMBNAIL,
     image(np.zeros((4, 5), np.int32), data_type=27)],
)  # fmt: skip
def test_what_has_no_frames_of_numbers_is_refused(tmp_path, only):
    with pytest.raises(nm.MrczError, match="its pixels are"):
        opened(tmp_path, DmWriter().images([THUMBNAIL, only]))


@pytest.mark.parametrize(
    ("scale", "unit", "expected"),
    [(0.5, "µm", 5000.0), (2.0, "mm", 2e7), (0.001, "nm", 0.01), (0.25, "1/nm", 0.0), (3.0, "s", 0),
     (-1.0, "nm", 0.0), (float("nan"), "nm", 0.0), (float("inf"), "nm", 0.0)],
)  # fmt: skip
def test_pixel_sizes_of_any_length_are_kept(tmp_path, scale, unit, expected):
    axes = [(scale, unit), (1.0, "nm"), (1.0, "s")]
    with opened(tmp_path, DmWriter().images([image(MOVIE, axes=axes)])) as stack:
        assert stack.pixel_size == pytest.approx((0, 10, expected))


@pytest.mark.parametrize("version", [3, 4])
def test_all_tags_are_metadata(tmp_path, version):
    gains = np.array([3, 70_000, -2], np.int32)
    tags = {
        "Microscope Info": {"Voltage": np.float32(300_000), "Cs(mm)": np.float32(2.5)},
        "Acquisition": {"Name": "Krios µ", "Gains": gains, "Empty": "", "Steps": [np.int16(4)]},
        "Data": np.arange(3, dtype=np.uint32),
    }
    content = DmWriter(version).images([THUMBNAIL, image(MOVIE, **tags)], 0, Name="a title")
    with pytest.warns(nm.MrczWarning, match=r"1\.ImageTags\.Data"):
        stack = opened(tmp_path, content)
    with stack:
        assert stack.description.voltage == 300
        assert stack.description.c3 == 2.5
        found = stack.metadata["dm"]
    assert found["Name"] == "a title"
    assert found["Thumbnails"] == [{"ImageIndex": 0}]
    kept = found["ImageList"][1]
    assert "Data" not in kept["ImageData"]
    assert kept["ImageData"]["Dimensions"] == [4, 3, 2]
    np.testing.assert_array_equal(kept["ImageTags"]["Acquisition"].pop("Gains"), gains)
    assert kept["ImageTags"]["Acquisition"] == {"Name": "Krios µ", "Empty": "", "Steps": [4]}
    with stack:
        nm.write(tmp_path / "copy.mrcz", stack)
    with nm.open(tmp_path / "copy.mrcz") as copy:
        assert copy.metadata["dm"]["Name"] == "a title"
        assert copy.header.voltage == 300


def test_long_tags_are_left_out_and_told_of(tmp_path):
    long = {"Curve": np.zeros(2**18, np.float64), "Short": np.zeros(5)}
    with pytest.warns(nm.MrczWarning, match=r"Curve \(2097152 bytes\)"):
        stack = opened(tmp_path, DmWriter().images([image(MOVIE, **long)]))
    with stack:
        assert list(stack.metadata["dm"]["ImageList"][0]["ImageTags"]) == ["Short"]


CONTENT = DmWriter().images([THUMBNAIL, image(MOVIE, Name="x", Gains=np.arange(5))], 0, End="end")


@ANY_PATH
@given(st.integers(0, len(CONTENT) - 1))
@example(16)  # within what a file's kind is told by
def test_a_file_that_was_cut_off_is_refused(tmp_path, end):
    path = tmp_path / "file.dm4"
    path.write_bytes(CONTENT[:end])
    with pytest.raises(nm.MrczError, match=r"file\.dm4"):
        nm.open(path)


@ANY_PATH
@given(st.lists(st.tuples(st.integers(16, len(CONTENT) - 1), st.integers(0, 255)), max_size=4))
@pytest.mark.filterwarnings("ignore::napari_mrcz.MrczWarning")
def test_a_damaged_file_is_read_or_refused(tmp_path, changes):
    content = bytearray(CONTENT)
    for at, value in changes:
        content[at] = value
    try:
        with opened(tmp_path, content) as stack:
            assert stack.nbytes <= len(content)
            np.asarray(stack)
    except nm.MrczError:
        pass


@pytest.mark.parametrize("sizes", [(2**31, 2**31, 2), (3, 4, 2**31), (1, 1, 2**31), (70_000, 1, 1)])
def test_absurd_sizes_are_refused(tmp_path, sizes):
    absurd = image(MOVIE)
    absurd["ImageData"]["Dimensions"] = [np.uint32(n) for n in sizes]
    with pytest.raises(nm.MrczError, match="an image of"):
        opened(tmp_path, DmWriter().images([absurd]))


def test_absurd_numbers_of_tags_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dm, "_MOST_TAGS", 300)
    with pytest.raises(nm.MrczError, match="a group of 300 tags"):
        opened(tmp_path, DmWriter().images([image(MOVIE)], Many=[np.uint8(1)] * 300))
    deep = [np.uint8(1)]
    for _ in range(100):
        deep = [deep]
    with pytest.raises(nm.MrczError, match="deep"):
        opened(tmp_path, DmWriter().images([image(MOVIE)], Deep=deep))


@pytest.mark.parametrize("version", [3, 4])
def test_ncempy_reads_the_same(tmp_path, version):
    ncempy = pytest.importorskip("ncempy.io.dm")
    path = tmp_path / "file.dm4"
    path.write_bytes(DmWriter(version).images([THUMBNAIL, image(MOVIE, 0.5, "µm", Name="x")], 0))
    theirs = ncempy.dmReader(str(path))
    with nm.open(path) as ours:
        np.testing.assert_array_equal(ours, theirs["data"][:, ::-1])
        assert ours.pixel_size[2] == 1e4 * theirs["pixelSize"][2]
    with ncempy.fileDM(str(path)) as file:
        assert file.allTags[".ImageList.2.ImageTags.Name"] == "x"


@pytest.mark.parametrize("behind", [b"", bytes(8), b"\0" * 8 + b"text"])
def test_bytes_behind_the_tags_are_told_of(tmp_path, behind):
    content = DmWriter().images([image(MOVIE)]) + behind
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened(tmp_path, content).close()
    assert ["behind its tags" in str(warning.message) for warning in caught] == [True] * any(behind)


def test_pixels_beyond_the_axes_are_told_of(tmp_path):
    longer = image(MOVIE)
    longer["ImageData"]["Dimensions"] = [np.uint32(n) for n in (4, 3, 1)]
    with (
        pytest.warns(nm.MrczWarning, match="24 bytes of pixels beyond"),
        opened(tmp_path, DmWriter().images([longer])) as stack,
    ):
        np.testing.assert_array_equal(stack, MOVIE[:1, ::-1])


def test_a_large_picture_is_no_thumbnail(tmp_path):
    large = image(np.zeros((600, 700, 4), np.uint8), data_type=RGB)
    with (
        pytest.warns(nm.MrczWarning, match="1 further object"),
        opened(tmp_path, DmWriter().images([large, image(MOVIE)])) as stack,
    ):
        np.testing.assert_array_equal(stack, MOVIE[:, ::-1])


def test_text_of_any_encoding_is_kept(tmp_path):
    with opened(
        tmp_path, DmWriter().images([image(MOVIE)], Half=np.array([0xD800, 97], "u2"))
    ) as stack:
        np.testing.assert_array_equal(stack.metadata["dm"]["Half"], [0xD800, 97])
