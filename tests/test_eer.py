"""EER movies, decoded pixel by pixel as they were encoded, at all resolutions."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiff_writing import eer_page, page_of, tiff

import napari_mrcz as nm

SHAPE = (16, 32)
SCHEMES = [(65000, None), (65001, None), (65002, (7, 2, 2)), (65002, (9, 1, 2)), (65002, (6, 2, 2))]
XML = (
    "<metadata><item name='exposureTime' unit='s'>2.5</item>"
    "<item name='totalDose' unit='e/pixel'>12.5</item>"
    "<item name='numberOfFrames'>{n}</item>"
    "<item name='accelerationVoltage' unit='V'>300000</item>"
    "<item name='sensorPixelSize.width' unit='m'>1.4e-10</item>"
    "<item name='sensorPixelSize.height' unit='m'>1.3e-10</item></metadata>"
)


def events_of(rng, share, across=2, down=2):
    """Return a frame's events in sub-pixels, no two in a pixel."""
    y, x = np.nonzero(rng.random(SHAPE) < share)
    rows = (y << down) + rng.integers(1 << down, size=y.size)
    columns = (x << across) + rng.integers(1 << across, size=x.size)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def truth(events, factor, across=2, down=2):
    """Count events on a grid of `factor` rows and columns per pixel."""
    image = np.zeros((SHAPE[0] * factor, SHAPE[1] * factor), int)
    for y, x in events:
        image[y * factor >> down, x * factor >> across] += 1
    return image


def movie_of(path, n=10, *, extra=(), share=0.1, xml=None):
    """Write n frames, and pages before and after; return the frames as they are."""
    rng = np.random.default_rng(n)
    each = [events_of(rng, share) for _ in range(n)]
    pages = [eer_page(events, SHAPE) for events in each]
    before = [page_of(np.full(SHAPE, 7, np.uint32)) for where in extra if where == "before"]
    after = [page_of(np.full(SHAPE, 7, np.uint32)) for where in extra if where == "after"]
    pages = [*before, *pages, *after]
    if xml is not None:
        pages[0].tags[65001] = ("bytes", xml.encode())
    path.write_bytes(tiff(pages))
    return np.array([truth(events, 1) for events in each])


@pytest.mark.parametrize(("compression", "bits"), SCHEMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.sampled_from([0.0, 0.003, 0.1, 0.9, 1.0]),
       overshoot=st.booleans())  # fmt: skip
def test_every_electron_is_where_it_was(
    tmp_path_factory, compression, bits, seed, share, overshoot
):
    across, down = bits[1:] if bits else (2, 2)
    rng = np.random.default_rng(seed)
    each = [events_of(rng, share, across, down) for _ in range(2)]
    path = tmp_path_factory.mktemp("eer") / "movie.eer"
    pages = [eer_page(events, SHAPE, compression, bits, overshoot=overshoot) for events in each]
    path.write_bytes(tiff(pages))
    for factor in (1, 2, 4):
        if factor > 1 << min(across, down):
            with pytest.raises(nm.MrczError, match=f"superresolution is {1 << across} at most"):
                nm.open(path, superresolution=factor)
            continue
        with nm.open(path, superresolution=factor) as movie:
            assert movie.dtype == np.uint8
            expected = [truth(events, factor, across, down) for events in each]
            np.testing.assert_array_equal(np.asarray(movie), expected)


def test_sums_of_half_precision_do_not_overflow():
    frames = np.full((4, 2, 3), 40000, np.float16)
    grouped = nm.Stack.from_array(frames).group(2)
    np.testing.assert_array_equal(np.asarray(grouped), np.full((2, 2, 3), 80000, np.float32))


@pytest.mark.filterwarnings("always::napari_mrcz.MrczWarning")
@pytest.mark.parametrize("extra", [["before"], ["after"], ["before", "after", "after"]])
def test_only_eer_pages_are_frames_and_others_are_warned_of(napari_mrcz, tmp_path, extra):
    frames = movie_of(tmp_path / "movie.eer", extra=extra)
    with pytest.warns(nm.MrczWarning, match=f"{len(extra)} of 16x32 uint32"):
        movie = nm.open(tmp_path / "movie.eer")
    with movie:
        np.testing.assert_array_equal(np.asarray(movie), frames)
    ran = napari_mrcz("compress", tmp_path / "movie.eer", "--verify", "--delete")
    assert ran.status == 0, ran.err
    assert "not EER-compressed" in ran.err
    assert (tmp_path / "movie.eer").exists()
    np.testing.assert_array_equal(nm.read(tmp_path / "movie.mrcz"), frames)


def test_eer_stays_where_frames_were_compressed(napari_mrcz, tmp_path):
    """It says where in their pixels the electrons are, which frames do not."""
    frames = movie_of(tmp_path / "movie.eer")
    ran = napari_mrcz("compress", tmp_path / "movie.eer", "--verify", "--delete")
    assert ran.status == 0, ran.err
    assert "source kept" in ran.err
    assert (tmp_path / "movie.eer").exists()
    np.testing.assert_array_equal(nm.read(tmp_path / "movie.mrcz"), frames)


def test_what_the_file_says_is_read_and_kept(napari_mrcz, tmp_path):
    movie_of(tmp_path / "movie.eer", xml=XML.format(n=10))

    def check(path):
        with nm.open(path) as movie:
            eer = movie.metadata["eer"]
            assert eer["exposureTime"] == 2.5
            assert eer["totalDose"] == 12.5
            assert eer["numberOfFrames"] == 10
            assert eer["totalDose.unit"] == "e/pixel"
            assert movie.pixel_size[1:] == pytest.approx((1.3, 1.4))
            assert movie.description.voltage == 300

    check(tmp_path / "movie.eer")
    for command, name in (("compress", "movie.eer"), ("decompress", "movie.mrcz")):
        ran = napari_mrcz(command, tmp_path / name, "--verify")
        assert ran.status == 0, ran.err
    check(tmp_path / "movie.mrc")
    with nm.open(tmp_path / "movie.eer", superresolution=2) as movie:
        assert movie.pixel_size[1:] == pytest.approx((0.65, 0.7))


def test_fewer_frames_than_the_file_names_are_warned_of(tmp_path):
    movie_of(tmp_path / "movie.eer", xml=XML.format(n=12))
    with pytest.warns(nm.MrczWarning, match="10 frames, where its metadata names 12"):
        nm.open(tmp_path / "movie.eer").close()


def test_frames_are_grouped_by_number_or_dose(tmp_path):
    frames = movie_of(tmp_path / "movie.eer", xml=XML.format(n=10))
    for options in ({"group": 5}, {"dose_per_frame": 6.0}):
        with nm.open(tmp_path / "movie.eer", **options) as movie:
            np.testing.assert_array_equal(np.asarray(movie), frames.reshape(2, 5, *SHAPE).sum(1))
            assert movie.metadata["grouped"]["frames_per_group"] == 5


@pytest.mark.parametrize(
    "options",
    [
        {"superresolution": 3},
        {"group": 0},
        {"dose_per_frame": -1.0},
        {"group": 2, "dose_per_frame": 1.0},
    ],
)
def test_options_without_sense_are_refused(tmp_path, options):
    movie_of(tmp_path / "movie.eer", xml=XML.format(n=10))
    with pytest.raises(ValueError):
        nm.open(tmp_path / "movie.eer", **options)


@pytest.mark.parametrize("name", ["movie.mrc", "movie.tif"])
@pytest.mark.parametrize("options", [{"superresolution": 2}, {"group": 2}, {"dose_per_frame": 1.0}])
def test_options_of_eer_are_refused_elsewhere(tmp_path, name, options):
    path = tmp_path / name
    if name.endswith("mrc"):
        nm.write(path, np.ones((4, 6, 8), np.uint8))
    else:
        path.write_bytes(tiff([page_of(np.ones(SHAPE, np.uint8))]))
    with pytest.raises(nm.MrczError, match="options of EER"):
        nm.open(path, **options)


def test_no_dose_no_groups_by_dose(tmp_path):
    movie_of(tmp_path / "movie.eer")
    with pytest.raises(nm.MrczError, match="names no total dose"):
        nm.open(tmp_path / "movie.eer", dose_per_frame=1.0)


def test_damage_is_told_by_frame(tmp_path):
    rng = np.random.default_rng(0)
    pages = [eer_page(events_of(rng, 0.5), SHAPE) for _ in range(3)]
    pages[1].data = b"\x7e\xff" * 200
    (tmp_path / "movie.eer").write_bytes(tiff(pages))
    with nm.open(tmp_path / "movie.eer") as movie:
        _ = movie[0], movie[2]
        with pytest.raises(nm.MrczError, match="frame 1"):
            _ = movie[1]


def test_an_eer_name_of_another_tiff_is_warned_of(tmp_path):
    frame = np.arange(512, dtype=np.uint8).reshape(SHAPE)
    (tmp_path / "movie.eer").write_bytes(tiff([page_of(frame)]))
    with pytest.warns(nm.MrczWarning, match="not EER-compressed"):
        movie = nm.open(tmp_path / "movie.eer")
    with movie:
        np.testing.assert_array_equal(movie[0], frame[::-1])


# Groups -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 12), size=st.integers(1, 12), rest=st.sampled_from(["keep", "drop"]))
def test_a_rest_is_kept_or_dropped_and_warned_of(n, size, rest):
    frames = np.random.default_rng(n).integers(0, 256, (n, 3, 4)).astype(np.uint8)
    stack = nm.Stack.from_array(frames)
    if size > n:
        with pytest.raises(ValueError, match="groups of"):
            stack.group(size, rest=rest)
        return
    if n % size:
        with pytest.warns(nm.MrczWarning, match=f"in groups of {size}"):
            grouped = stack.group(size, rest=rest)
    else:
        grouped = stack.group(size, rest=rest)
    starts = range(0, n if rest == "keep" else n - n % size, size)
    expected = [frames[i : i + size].sum(axis=0, dtype=int) for i in starts]
    np.testing.assert_array_equal(np.asarray(grouped), expected)
    np.testing.assert_array_equal(grouped[-1, 1:, 2], expected[-1][1:, 2])
    if size > 1:
        said = grouped.metadata["grouped"]
        last = n % size if n % size and rest == "keep" else size
        assert said == {"frames": n, "frames_per_group": size, "frames_in_last_group": last}


def test_a_rest_is_neither_kept_nor_dropped():
    with pytest.raises(ValueError, match="rest"):
        nm.Stack.from_array(np.zeros((4, 3, 3))).group(2, rest="what")


@pytest.mark.filterwarnings("always::napari_mrcz.MrczWarning")
def test_the_command_line_keeps_the_rest_and_says_so(napari_mrcz, tmp_path):
    frames = movie_of(tmp_path / "movie.eer")
    ran = napari_mrcz("compress", tmp_path / "movie.eer", "--group", 3, "--verify")
    assert ran.status == 0, ran.err
    assert "the last frame is the sum of 1, not of 3" in ran.err
    with nm.open(tmp_path / "movie.mrcz") as movie:
        assert movie.shape == (4, *SHAPE)
        np.testing.assert_array_equal(movie[3], frames[9])
        assert movie.metadata["grouped"]["frames_in_last_group"] == 1


# Crops ------------------------------------------------------------------------------------------

SLICES = st.slices(7)


@settings(max_examples=60, deadline=None)
@given(frames=st.slices(5), rows=st.slices(6), columns=SLICES, index=st.data())
def test_a_crop_is_that_of_the_array(frames, rows, columns, index):
    array = np.arange(5 * 6 * 7).reshape(5, 6, 7)
    expected = array[frames, rows, columns]
    stack = nm.Stack.from_array(array)
    if not expected.size:
        with pytest.raises(ValueError, match="nothing"):
            stack.select(frames, rows, columns)
        return
    crop = stack.select(frames=frames, rows=rows, columns=columns)
    np.testing.assert_array_equal(np.asarray(crop), expected)
    inner = index.draw(st.tuples(*(st.slices(size) for size in expected.shape)))
    np.testing.assert_array_equal(crop[inner], expected[inner])
    np.testing.assert_array_equal(crop[-1, 0], expected[-1, 0])
    assert crop[-1, 0, 0].shape == ()
    again = pickle.loads(pickle.dumps(crop))
    np.testing.assert_array_equal(np.asarray(again), expected)
