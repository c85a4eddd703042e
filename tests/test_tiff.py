"""TIFF movies: all frames are read, whichever way a program stores them, or a warning says so."""

import json
import pickle
import re
import struct
import warnings
import zlib
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiff_writing import RawPage, page_of, tiff

import napari_mrcz as nm

SHAPE = (10, 12)
DTYPES = ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", ">u2", ">i4", ">f4", "c8", "?"]


def movie(n=6, dtype="u2", seed=0):
    values = np.random.default_rng(seed).integers(0, 100, (n, *SHAPE))
    return (values % 2 if dtype == "?" else values).astype(dtype)


def assert_read(path, frames):
    """Assert that a file is read whole, without a warning (they are errors in tests)."""
    with nm.open(path) as stack:
        assert stack.dtype == frames.dtype.newbyteorder("=")
        np.testing.assert_array_equal(np.asarray(stack), frames[:, ::-1])
        np.testing.assert_array_equal(stack[-1, 2:5, 3], frames[-1, ::-1][2:5, 3])
        assert stack.header is None


def assert_part(path, frames, said):
    """Assert that some frames are read, with a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stack = nm.open(path)
    with stack:
        assert any(re.search(said, str(warning.message)) for warning in caught), caught
        np.testing.assert_array_equal(np.asarray(stack), frames[:, ::-1])


# All is read --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES[:-1]),
    kind=st.sampled_from(["plain", "imagej", "ome", "shaped", "contiguous", "bigtiff"]),
    compression=st.sampled_from([None, None, "zlib", "zstd", "packbits", "lzw"]),
    rows=st.sampled_from([None, 3]),
    tile=st.booleans(),
    predictor=st.booleans(),
    data=st.data(),
)
def test_frames_of_tifffile(
    tmp_path_factory, n, dtype, kind, compression, rows, tile, predictor, data
):
    frames = movie(n, dtype)
    path = tmp_path_factory.mktemp("tiff") / "movie.tif"
    byteorder = ">" if dtype.startswith(">") else "<"
    white = data.draw(st.booleans()) and np.dtype(dtype).kind == "u" and kind != "imagej"
    photometric = "miniswhite" if white else "minisblack"
    options = {"photometric": photometric, "compression": compression, "byteorder": byteorder}
    if compression in ("zlib", "zstd", "lzw") and predictor and np.dtype(dtype).kind in "iu":
        options["predictor"] = True
    options |= {"tile": (16, 16)} if tile else {"rowsperstrip": rows}
    if kind == "imagej" and (compression or np.dtype(dtype).str[1:] not in ("u1", "u2", "f4")):
        kind = "plain"
    if kind == "ome" and np.dtype(dtype).name == "float16":
        kind = "plain"
    if kind == "contiguous" and (compression or tile):
        kind = "shaped"
    if kind == "imagej":
        del options["byteorder"]
        tifffile.imwrite(path, frames.astype(np.dtype(dtype)), imagej=True, **options)
    elif kind == "ome":
        tifffile.imwrite(path, frames, ome=True, metadata={"axes": "TYX"}, **options)
    elif kind == "shaped":
        tifffile.imwrite(path, frames, **options)
    elif kind == "contiguous":
        options["rowsperstrip"] = None
        tifffile.imwrite(path, frames, metadata={"truncate": True}, contiguous=True, **options)
    else:
        tifffile.imwrite(path, frames, metadata=None, bigtiff=kind == "bigtiff", **options)
    assert_read(path, frames)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4"])
def test_frames_of_pillow(tmp_path, compression, dtype):
    frames = movie(4, dtype)
    images = [Image.fromarray(frame) for frame in frames]
    path = tmp_path / "movie.tif"
    images[0].save(path, save_all=True, append_images=images[1:], compression=compression)
    assert_read(path, frames)


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i2", "i4", "f4"])
@pytest.mark.parametrize("predictor", [False, True])
def test_lzw_needs_no_further_package(tmp_path, dtype, predictor):
    frames = movie(3, dtype)
    path = tmp_path / "movie.tif"
    byteorder = ">" if dtype.startswith(">") else "<"
    tifffile.imwrite(path, frames, photometric="minisblack", compression="lzw", rowsperstrip=4,
                     predictor=predictor and dtype != "f4", byteorder=byteorder)  # fmt: skip
    with mock.patch("napari_mrcz.stack.tiff.TiffFrames._pages", side_effect=AssertionError):
        assert_read(path, frames)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", ["images", "hyperstack", "shaped"])
def test_frames_behind_one_directory(napari_mrcz, tmp_path, dtype, big, kind):
    """As ImageJ writes them beyond 4 GB, and tifffile on demand."""
    frames = movie(12, dtype)
    text = {
        "images": "ImageJ=1.54f\nimages=12\nslices=12\nloop=false\n",
        "hyperstack": "ImageJ=1.54f\nimages=12\nchannels=2\nslices=3\nframes=2\nhyperstack=true\n",
        "shaped": json.dumps({"shape": [3, 4, *SHAPE], "truncated": True}),
    }[kind]
    first = page_of(frames[0], _270=("text", text))
    path = tmp_path / "movie.tif"
    path.write_bytes(tiff([first], big=big, data_behind=frames[1:].tobytes()))
    assert_read(path, frames)
    ran = napari_mrcz("compress", path, "--verify", "--delete")
    assert ran.status == 0, ran.err
    assert not path.exists()
    np.testing.assert_array_equal(nm.read(tmp_path / "movie.mrcz"), frames[:, ::-1])


def test_a_directory_whose_size_of_pixels_wrapped_at_4_gb(tmp_path):
    """Its frames are where it says, as many as its description says."""
    frames = movie(3, "u1")
    page = page_of(frames[0], _270=("text", "ImageJ=1.54f\nimages=3\n"))
    page.tags[279] = ("long", 0)
    path = tmp_path / "movie.tif"
    path.write_bytes(tiff([page], data_behind=frames[1:].tobytes()))
    with mock.patch("napari_mrcz.stack.tiff_pages.WRAPPED", frames[0].nbytes):
        assert_read(path, frames)


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
    'UUID="urn:uuid:1">{}</OME>'
)


def ome(*images, size=(1, 1, 6)):
    """Return OME-XML of images, each given by its elements of TiffData."""
    z, c, t = size
    return OME.format("".join(
        f'<Image ID="Image:{i}"><Pixels DimensionOrder="XYCZT" SizeX="12" SizeY="10" SizeZ="{z}" '
        f'SizeC="{c}" SizeT="{t}" Type="uint16" PhysicalSizeX="0.1" PhysicalSizeXUnit="nm" '
        f'PhysicalSizeY="0.2" PhysicalSizeYUnit="nm">{data}</Pixels></Image>'
        for i, data in enumerate(images)
    ))  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)))
def test_planes_of_ome_come_in_their_own_order(tmp_path_factory, order):
    """Wherever their pages are in the file: page `order[i]` is plane i."""
    frames = movie(6)
    size = (2, 1, 3)
    blocks = "".join(
        f'<TiffData IFD="{page}" FirstZ="{plane % 2}" FirstT="{plane // 2}" PlaneCount="1"/>'
        for plane, page in enumerate(order)
    )
    pages = [page_of(frames[order.index(page)]) for page in range(6)]
    pages[0].tags[270] = ("text", ome(blocks, size=size))
    path = tmp_path_factory.mktemp("ome") / "movie.ome.tif"
    path.write_bytes(tiff(pages))
    assert_read(path, frames)
    with nm.open(path) as stack:
        assert stack.pixel_size == pytest.approx((0, 2, 1))


# Some is not read: a warning --------------------------------------------------------------------


def thumbnail(size=(4, 5), dtype=np.uint8, **tags):
    return page_of(np.ones(size, dtype), **tags)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([thumbnail()], [], "1 of 4x5 uint8"),
        ([], [thumbnail((10, 12), np.uint32)], "1 of 10x12 uint32"),
        ([thumbnail((10, 12), np.uint16, _254=("long", 1))], [], "1 of 10x12 uint16"),
        ([thumbnail()], [thumbnail(), thumbnail((20, 24))], "2 of 4x5 uint8, 1 of 20x24 uint8"),
    ],
)
@pytest.mark.filterwarnings("always::napari_mrcz.MrczWarning")
def test_pages_that_are_no_frames(napari_mrcz, tmp_path, before, after, said):
    frames = movie()
    path = tmp_path / "movie.tif"
    path.write_bytes(tiff([*before, *map(page_of, frames), *after]))
    assert_part(path, frames, said)
    ran = napari_mrcz("compress", path, "--verify", "--delete")
    assert ran.status == 0, ran.err
    assert path.exists()


def test_smaller_copies_are_no_frames(tmp_path):
    frames = movie(3)
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(frames, subifds=1, photometric="minisblack", metadata=None)
        writer.write(frames[:, ::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
    assert_part(path, frames, "pages below others")
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2, 4):
            writer.write(frames[:, ::step, ::step], subfiletype=int(step > 1), metadata=None,
                         photometric="minisblack")  # fmt: skip
    assert_part(path, frames, "3 of 5x6 uint16, 3 of 3x3 uint16")


def test_series_of_ome_beside_each_other(tmp_path):
    frames = movie(6)
    blocks = '<TiffData IFD="0" PlaneCount="4"/>', '<TiffData IFD="4" PlaneCount="2"/>'
    pages = [page_of(frame) for frame in frames]
    pages[0].tags[270] = ("text", ome(*blocks, size=(1, 1, 4)))
    path = tmp_path / "series.ome.tif"
    path.write_bytes(tiff(pages))
    assert_part(path, frames[:4], "2 images, of which the largest one is read")


def test_planes_in_other_files(tmp_path):
    frames = movie(4)
    other = '<UUID FileName="b.ome.tif">urn:uuid:2</UUID>'
    here = '<UUID FileName="renamed.ome.tif">urn:uuid:1</UUID>'
    blocks = (
        f'<TiffData IFD="0" FirstT="0" PlaneCount="4">{here}</TiffData>'
        f'<TiffData IFD="0" FirstT="4" PlaneCount="2">{other}</TiffData>'
    )
    pages = [page_of(frame) for frame in frames]
    pages[0].tags[270] = ("text", ome(blocks))
    path = tmp_path / "a.ome.tif"
    path.write_bytes(tiff(pages))
    assert_part(path, frames, r"4 of the 6 planes.*b\.ome\.tif")
    pages[0].tags[270] = ("text", OME.format('<BinaryOnly MetadataFile="m.ome" UUID="urn:2"/>'))
    path.write_bytes(tiff(pages))
    assert_part(path, frames, r"OME-XML is in another file, m\.ome")


@pytest.mark.parametrize("compression", [False, True])
def test_images_that_a_description_names_and_are_not_there(tmp_path, compression):
    frames = movie(5)
    page = page_of(frames[0], _270=("text", "ImageJ=1.54f\nimages=12\n"))
    path = tmp_path / "movie.tif"
    path.write_bytes(tiff([page], data_behind=frames[1:].tobytes()))
    content = path.read_bytes()
    assert_part(path, frames, "names 12 images, of which 5 are read")
    if compression:
        page = RawPage(zlib.compress(frames[0].tobytes()), SHAPE, 16, 8, page.tags)
        path.write_bytes(tiff([page], data_behind=bytes(content)))
        assert_part(path, frames[:1], "names 12 images, of which 1 are read")


def test_bytes_that_no_page_accounts_for(tmp_path):
    """Such as the planes of programs that describe them in tags of their own."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 80, 70)).astype(np.uint8)
    path = tmp_path / "movie.tif"
    path.write_bytes(tiff([page_of(frames[0])], data_behind=frames[1:].tobytes()))
    assert_part(path, frames[:1], "11.2 kB of the file belong to none of its pages")


def test_pixels_are_not_those_of_the_header(tmp_path):
    path, frames = tmp_path / "movie.tif", movie(3)
    path.write_bytes(tiff([page_of(frames[0], _273=("long", 0)), *map(page_of, frames[1:])]))
    with nm.open(path) as opened, pytest.raises(nm.MrczError, match=r"frame 0: .*\(0 bytes"):
        _ = opened[0]


def test_strips_may_be_padded(tmp_path):
    (frame,) = movie(1)
    tifffile.imwrite(tmp_path / "movie.tif", frame, rowsperstrip=2, metadata=None)
    content = bytearray((tmp_path / "movie.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "movie.tif") as file:
        counts = file.pages[0].tags[279]
    content[counts.valueoffset : counts.valueoffset + 2] = (2 * frame[0].nbytes + 6).to_bytes(
        2, "little"
    )
    (tmp_path / "movie.tif").write_bytes(content)
    assert_read(tmp_path / "movie.tif", frame[None])


def broken_chains(content, offsets):
    """Yield files whose chain of directories is broken behind its third page."""
    link = content.index(offsets[3].to_bytes(8, "little"), offsets[2])
    for place in (len(content) + 100, offsets[1], 7, 2**63):
        yield content[:link] + place.to_bytes(8, "little") + content[link + 8 :]


@pytest.mark.filterwarnings("always::napari_mrcz.MrczWarning")
def test_a_broken_chain_of_directories(napari_mrcz, tmp_path):
    frames = movie(6)
    path = tmp_path / "movie.tif"
    content = tiff([page_of(frame) for frame in frames])
    path.write_bytes(content)
    with tifffile.TiffFile(path) as file:
        offsets = [page.offset for page in file.pages]
    for broken in broken_chains(content, offsets):
        path.write_bytes(broken)
        assert_part(path, frames[:3], "only 3 of its frames can be read")
    ran = napari_mrcz("compress", path, "--verify", "--delete")
    assert ran.status == 0, ran.err
    assert path.exists()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_cut_off_anywhere_gives_its_whole_frames_or_an_error(tmp_path_factory, data):
    frames = movie(4)
    big = data.draw(st.booleans())
    path = tmp_path_factory.mktemp("cut") / "movie.tif"
    if data.draw(st.booleans()):
        content = tiff([page_of(frame) for frame in frames], big=big)
    else:
        tifffile.imwrite(path, frames, photometric="minisblack", metadata=None, bigtiff=big)
        content = path.read_bytes()
    size = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:size])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            stack = nm.open(path)
        except nm.MrczError:
            return
    with stack:
        warned = any(issubclass(warning.category, nm.MrczWarning) for warning in caught)
        assert warned or len(stack) == len(frames)  # where but a tag of the last page is lost
        np.testing.assert_array_equal(np.asarray(stack), frames[: len(stack), ::-1])


# What cannot be read ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 10, 12, 3), (10, 12, 4)])
def test_colours_are_refused(tmp_path, shape):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), photometric="rgb")
    with pytest.raises(nm.MrczError, match="Colour images and pages with a depth are not read"):
        nm.open(tmp_path / "a.tif")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_directories_end_in_an_error_or_pixels(tmp_path_factory, data):
    """Never in another exception, and soon."""
    content = bytearray(tiff([page_of(f, _270=("text", "some text")) for f in movie(3)]))
    start = content.index((3).to_bytes(2, "little") * 0 + b"", 720)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(start, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("bad") / "movie.tif"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nm.MrczWarning)
        try:
            with nm.open(path) as stack:
                if stack.nbytes < 2**24:
                    np.asarray(stack)
        except nm.MrczError:
            pass


# What a file says -------------------------------------------------------------------------------

SERIALEM = (
    "SerialEMCCD: Dose frac. image, scaled by 16.00  r/f 3\nCountRef_x_0000.dm4\ndefects_x_0000.txt"
)


def test_what_serialem_says_is_kept(napari_mrcz, tmp_path):
    path = tmp_path / "movie.tif"
    resolution = {f"_{code}": ("ratio", (10**9, 10 * 1)) for code in (282, 283)}
    pages = [page_of(frame) for frame in movie(3, "u1")]
    pages[0] = page_of(movie(3, "u1")[0], _270=("text", SERIALEM), _296=("short", 3),
                       _305=("text", "SerialEM"), _65100=("bytes", b"\x01\xff\x02 binary"),
                       **resolution)  # fmt: skip
    path.write_bytes(tiff(pages))

    def check(path):
        with nm.open(path) as stack:
            said = stack.metadata["tiff"]
            assert said["description"] == SERIALEM
            assert said["software"] == "SerialEM"
            assert said["serialem"] == {
                "scaled_by": 16.0,
                "rotation_and_flip": 3,
                "gain_reference": "CountRef_x_0000.dm4",
                "defects": "defects_x_0000.txt",
            }
            assert bytes(said["tag_65100"]) == b"\x01\xff\x02 binary"
            assert stack.pixel_size[1:] == pytest.approx((1.0, 1.0))

    check(path)
    for command, name in (("compress", "movie.tif"), ("decompress", "movie.mrcz")):
        assert napari_mrcz(command, tmp_path / name, "--verify").status == 0
    check(tmp_path / "movie.mrc")
    told = json.loads(napari_mrcz("info", path, "--json").out)
    assert told["metadata"]["tiff"]["description"] == SERIALEM
    assert told["pixel_size"][2] == pytest.approx(1)
    text = napari_mrcz("info", path).out
    assert "3 frames of 10 x 12 pixels, uint8, 1 Å/pixel" in text
    assert "CountRef_x_0000.dm4" in text


def test_descriptions_of_frames_are_kept(tmp_path):
    texts = [f"PixelSpacing = 1.25\nVoltage = 200\nTilt = {i}" for i in range(3)]
    pages = [page_of(f, _270=("text", t)) for f, t in zip(movie(3), texts, strict=True)]
    (tmp_path / "tilts.tif").write_bytes(tiff(pages))
    with nm.open(tmp_path / "tilts.tif") as stack:
        assert stack.metadata["tiff"]["descriptions"] == texts
        assert stack.pixel_size == (0, 1.25, 1.25)
        assert stack.description.voltage == 200


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ({296: ("short", 3), 282: ("ratio", (10**8, 2)), 283: ("ratio", (10**8, 4))}, (4, 2)),
        ({296: ("short", 2), 282: ("ratio", (254000000, 3))}, (0, 3)),
        ({296: ("short", 2), 282: ("ratio", (72, 1)), 283: ("ratio", (72, 1))}, (0, 0)),
        ({296: ("short", 3), 282: ("ratio", (0, 0)), 283: ("ratio", (1, 0))}, (0, 0)),
        ({296: ("short", 1), 282: ("ratio", (10**8, 2))}, (0, 0)),
        ({270: ("text", "ImageJ=1.5\nunit=nm\n"), 282: ("ratio", (10, 2)),
          283: ("ratio", (10, 1))}, (1, 2)),
        ({270: ("text", "ImageJ=1.5\nunit=\\u00B5m\n"), 282: ("ratio", (20000, 1)),
          283: ("ratio", (10000, 1))}, (1, 0.5)),
        ({270: ("text", "ImageJ=1.5\nunit=pixel\n"), 282: ("ratio", (1, 1))}, (0, 0)),
        ({270: ("text", "pixel size: 0.83 A")}, (0.83, 0.83)),
        ({270: ("text", "pixel size: 83 pm, 300 kV")}, (0.83, 0.83)),
    ],
)  # fmt: skip
def test_pixel_sizes(tmp_path, tags, size):
    page = page_of(movie(1)[0])
    page.tags.update(tags)
    (tmp_path / "a.tif").write_bytes(tiff([page]))
    with nm.open(tmp_path / "a.tif") as stack:
        assert stack.pixel_size[1:] == pytest.approx(size)


def test_xml_that_names_entities_is_text_and_no_more(tmp_path):
    bomb = '<!DOCTYPE OME [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><OME>&b;</OME>'
    page = page_of(movie(1)[0], _270=("text", bomb))
    (tmp_path / "a.tif").write_bytes(tiff([page]))
    with nm.open(tmp_path / "a.tif") as stack:
        assert stack.metadata["tiff"]["description"] == bomb


# Reading ----------------------------------------------------------------------------------------


def test_a_stack_is_pickled_closed_and_read_again(tmp_path):
    frames = movie(3)
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", compression="zlib", metadata=None)
    with nm.open(path) as stack:
        again = pickle.loads(pickle.dumps(stack))
        stack.close()
        np.testing.assert_array_equal(stack[1], frames[1, ::-1])
        np.testing.assert_array_equal(again[2], frames[2, ::-1])
        again.close()
        stack.close()
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(nm.MrczError, match="changed by another program"):
            _ = stack[0]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_too_little_memory_is_not_damage(tmp_path, compression):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, movie(), photometric="minisblack", compression=compression)
    with nm.open(path) as stack:
        decode = "napari_mrcz.stack.tiff.TiffFrames._decode"
        with (
            mock.patch(decode, side_effect=MemoryError),
            pytest.raises(MemoryError, match="a frame of 240 B"),
        ):
            _ = stack[1]
        np.testing.assert_array_equal(stack[1], movie()[1, ::-1])


# What is said beside pixels -----------------------------------------------------------------------


def metadata_of(path):
    with nm.open(path) as stack:
        return stack.metadata["tiff"]


def test_what_each_frame_says_is_kept(tmp_path):
    path = tmp_path / "movie.tif"
    pages = [
        page_of(frame, _306=("text", f"2026:01:01 00:00:0{at}"), _282=("ratio", (100 + at, 1)),
                _65100=("long", 7), **({"_65200": ("text", "only here")} if at == 1 else {}))
        for at, frame in enumerate(movie(3))
    ]  # fmt: skip
    path.write_bytes(tiff(pages))
    said = metadata_of(path)
    assert said["tag_65100"] == 7
    assert said["frames"] == {
        "date_time": [f"2026:01:01 00:00:0{at}" for at in range(3)],
        "x_resolution": [[100 + at, 1] for at in range(3)],
        "tag_65200": [None, "only here", None],
    }


def test_a_text_is_kept_beside_tifffiles_own(napari_mrcz, tmp_path):
    source, frames = tmp_path / "movie.tif", movie(5)
    tifffile.imwrite(source, frames, photometric="minisblack", description="SerialEM: r/f 3")
    napari_mrcz("compress", source, "-o", tmp_path / "out", "--verify", "--delete")
    assert not source.exists()
    said = metadata_of(tmp_path / "out" / "movie.mrcz")
    assert said["description"] == "SerialEM: r/f 3"
    assert json.loads(said["description_2"])["shape"] == list(frames.shape)


def test_how_values_are_meant_to_be_seen_is_kept(tmp_path):
    path, colours = tmp_path / "movie.tif", np.arange(768, dtype="u2").reshape(3, 256)
    tifffile.imwrite(path, movie(1, "u1")[0], photometric="palette", colormap=colours)
    said = metadata_of(path)
    assert said["photometric"] == 3
    np.testing.assert_array_equal(said["color_map"], colours.ravel())


@pytest.mark.parametrize("code", [400, 34665, 34853])
def test_directories_of_further_tags_are_kept(tmp_path, code):
    content = bytearray(tiff([page_of(frame, **{f"_{code}": ("long", 0)}) for frame in movie(2)]))
    text = b"a note of 24 characters\0"
    below = struct.pack("<QHHQQQ", 1, 37500, 7, len(text), len(content) + 36, 0) + text
    entry = struct.pack("<HHQ", code, 4, 1)
    for at in [match.end() for match in re.finditer(re.escape(entry), content)]:
        content[at : at + 8] = struct.pack("<Q", len(content))
    path = tmp_path / "movie.tif"
    path.write_bytes(content + below)
    names = {400: "global_parameters", 34665: "exif", 34853: "gps"}
    assert metadata_of(path)[names[code]] == {"tag_37500": text.decode().rstrip("\0")}


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"_330": ("long", 10**6)}, "pages below others"),
        ({"_34665": ("long", 10**6)}, "directory that its tag 34665 leads to"),
    ],
)
def test_directories_that_cannot_be_read(tmp_path, tags, said):
    path, frames = tmp_path / "movie.tif", movie(2)
    path.write_bytes(tiff([page_of(frame, **tags) for frame in frames]))
    assert_part(path, frames, said)


@pytest.mark.parametrize(("behind", "is_said"), [(b"a note " * 5, True), (bytes(999), False)])
def test_a_few_bytes_behind_the_last_page(tmp_path, behind, is_said):
    path, frames = tmp_path / "movie.tif", movie(2)
    path.write_bytes(tiff([page_of(frame) for frame in frames]) + behind)
    if is_said:
        assert_part(path, frames, "belong to none of its pages")
    else:
        assert_read(path, frames)


def test_numbers_of_another_type_than_usual(tmp_path):
    path, frames = tmp_path / "movie.tif", movie(2)
    tags = {"_282": ("short", 50), "_283": ("short", 50), "_296": ("short", 3)}
    path.write_bytes(tiff([page_of(frame, **tags) for frame in frames]))
    with nm.open(path) as stack:
        assert stack.metadata["tiff"]["x_resolution"] == 50
    path.write_bytes(tiff([page_of(frame, _273=("ratio", (8, 1))) for frame in frames]))
    with pytest.raises(nm.MrczError):
        nm.open(path)
