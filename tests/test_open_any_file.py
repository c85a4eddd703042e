"""What a file is, its bytes say: under any name, packed or not, it opens as itself."""

import bz2
import gzip
import json
import os
import tempfile
from collections import namedtuple
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from foreign_files import DmWriter, image, smv_bytes, write_tvips
from hypothesis import given, settings
from hypothesis import strategies as st
from tiff_writing import eer_page, page_of, tiff

import napari_mrcz as nm
from napari_mrcz.format.files import open_file
from napari_mrcz.naming import FOREIGN_SUFFIXES, SUFFIXES

FRAMES = np.random.default_rng(1).integers(0, 200, (3, 12, 16)).astype(np.uint16)
PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
NAMES = ["movie", "movie.dat", *(f"movie{s}" for s in (*SUFFIXES, *FOREIGN_SUFFIXES))]


def written(kind: str, folder: Path) -> tuple[bytes, np.ndarray]:
    """Return the bytes of a file and its frames."""
    path = folder / "written"
    if kind in ("mrc", "mrcz"):
        path = path.with_suffix(f".{kind}")
        nm.write(path, FRAMES, metadata={"a": 1}, overwrite=True)
        return path.read_bytes(), FRAMES
    if kind == "old mrc":  # without "MAP "
        path = path.with_suffix(".mrc")
        nm.write(path, FRAMES, footer=False, overwrite=True)
        content = bytearray(path.read_bytes())
        content[208:212] = bytes(4)
        return bytes(content), FRAMES
    if kind in ("tiff", "bigtiff", "zlib"):
        compression = "zlib" if kind == "zlib" else None
        tifffile.imwrite(path, FRAMES[:, ::-1], bigtiff=kind == "bigtiff", metadata=None,
                         photometric="minisblack", compression=compression)  # fmt: skip
        return path.read_bytes(), FRAMES
    if kind == "eer":
        events = [(0, 0), (7, 9), (40, 60)]
        frame = np.zeros((12, 16), np.uint8)
        for y, x in events:
            frame[y // 4, x // 4] = 1
        return tiff([eer_page(events, (12, 16))] * 3), np.array([frame] * 3)
    if kind in ("dm3", "dm4"):
        return DmWriter(int(kind[2])).images([image(FRAMES[:, ::-1])]), FRAMES
    if kind == "smv":
        return smv_bytes(FRAMES[0]), FRAMES[:1]
    return write_tvips(folder / "rec.tvips", FRAMES)[0].read_bytes(), FRAMES


KINDS = ["mrc", "mrcz", "old mrc", "tiff", "bigtiff", "zlib", "eer", "dm3", "dm4", "smv", "tvips"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    made = {kind: written(kind, folder) for kind in KINDS}
    return lambda kind: made[kind]  # whose text is short


@pytest.mark.filterwarnings("ignore:.*not EER-compressed:napari_mrcz.MrczWarning")
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(NAMES),
    packed=st.sampled_from(list(PACK)),
    suffix=st.sampled_from(list(PACK)),
)
def test_a_file_is_what_its_bytes_say(files, tmp_path_factory, kind, name, packed, suffix):
    content, frames = files(kind)
    path = tmp_path_factory.mktemp("any") / f"{name}{suffix}"
    path.write_bytes(PACK[packed](content))
    with nm.open(path) as stack:
        assert (stack.header is not None) == ("mrc" in kind)
        assert stack.path == str(path)
        np.testing.assert_array_equal(np.asarray(stack), frames)
        stack.close()
        np.testing.assert_array_equal(stack[len(stack) - 1], frames[-1])
    assert (nm.read(path) == frames).all()


@pytest.mark.parametrize("kind", KINDS)
def test_info_shows_every_format(napari_mrcz, files, tmp_path, kind):
    content, frames = files(kind)
    path = tmp_path / "movie.xyz"
    path.write_bytes(content)
    ran = napari_mrcz("info", path, "--json")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert tuple(told["shape"]) == frames.shape
    assert told["dtype"] == str(frames.dtype)
    assert napari_mrcz("info", path).out.startswith(str(path))


@pytest.mark.parametrize("suffix", [*SUFFIXES, *FOREIGN_SUFFIXES])
def test_packed_files_of_every_format_are_found_in_folders(napari_mrcz, tmp_path, suffix):
    nm.write(tmp_path / "plain.mrc", FRAMES)
    content = (tmp_path / "plain.mrc").read_bytes()
    for packing in (".gz", ".bz2"):
        source = tmp_path / packing / f"movie{suffix}{packing}"
        source.parent.mkdir()
        source.write_bytes(PACK[packing](content))
        target = tmp_path / f"out{packing}"
        ran = napari_mrcz(
            "correct" if suffix == ".mrcz" else "compress", source.parent, "-o", target
        )
        assert ran.status == 0, ran.err
        assert [path.name for path in target.iterdir()] == ["movie.mrcz"]


def test_packed_files_are_watched(napari_mrcz, files, tmp_path):
    (tmp_path / "in").mkdir()
    for kind, name in (("mrc", "a.mrc.gz"), ("tiff", "b.tif.bz2")):
        (tmp_path / "in" / name).write_bytes(PACK[Path(name).suffix](files(kind)[0]))
    ran = napari_mrcz("watch", tmp_path / "in", "-o", tmp_path / "out", "--once", "--settle", 0)
    assert ran.status == 0, ran.err
    for name in ("a.mrcz", "b.mrcz"):
        np.testing.assert_array_equal(nm.read(tmp_path / "out" / name), FRAMES)


# Unpacking --------------------------------------------------------------------------------------


def test_info_unpacks_no_more_of_an_mrc_file_than_its_header(napari_mrcz, tmp_path):
    nm.write(tmp_path / "plain.mrc", FRAMES, pixel_size=1.5, footer=False)
    packed = gzip.compress((tmp_path / "plain.mrc").read_bytes()[:2000])
    path = tmp_path / "movie.mrc.gz"
    path.write_bytes(packed[:-8])  # what follows is not there to be unpacked
    ran = napari_mrcz("info", path, "--json")
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert told["shape"] == [3, 12, 16]
    assert told["pixel_size"][2] == 1.5
    assert "only the header" in told["packed"]
    assert "only the header" in napari_mrcz("info", path, "--frames").out
    with pytest.raises(nm.MrczError, match="cannot be unpacked"):
        nm.open(path)


@settings(max_examples=6, deadline=None)
@given(data=st.data(), pack=st.sampled_from([".gz", ".bz2"]))
def test_any_part_of_a_packed_file_is_read(tmp_path_factory, data, pack):
    content = np.random.default_rng(0).integers(0, 3, 600_000).astype(np.uint8).tobytes()
    path = tmp_path_factory.getbasetemp() / f"parts{pack}"
    if not path.exists():
        path.write_bytes(PACK[pack](content))
    file = open_file(path)
    for _ in range(3):
        start = data.draw(st.integers(0, len(content) + 10))
        count = data.draw(st.integers(0, 2**18))
        assert file.read(start, count) == content[start : start + count]
    with file.stream() as stream:
        assert stream.seek(-5, 2) == len(content) - 5
        assert stream.read() == content[-5:]
    file.close()


def test_content_of_no_known_format_is_not_unpacked_beyond_belief(tmp_path):
    path = tmp_path / "bomb.tif.bz2"
    content = tiff([page_of(FRAMES[0])])
    path.write_bytes(bz2.compress(content + bytes(4 * 10**6)))
    with (
        mock.patch("napari_mrcz.format.files._LARGEST_SURPLUS", 2**20),
        pytest.raises(nm.MrczError, match="far more than such a file has"),
    ):
        nm.open(path)


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (30_000, r"takes 800 kB, and 30 kB are free in"),
        (0, r"takes more than is free|0 B are free"),
    ],
)
def test_a_disk_is_not_filled(tmp_path, free, said):
    path = tmp_path / "movie.mrc"
    nm.write(path, np.zeros((4, 250, 400), np.int16), footer=False)
    packed = tmp_path / "movie.mrc.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with mock.patch("shutil.disk_usage", lambda path: Usage(20 * free, 0, 2 * free)):
        with pytest.raises(nm.MrczError, match=said):
            nm.open(packed)
    assert nm.read(packed).shape == (4, 250, 400)


def test_a_full_disk_is_not_a_damaged_archive(tmp_path):
    nm.write(tmp_path / "movie.mrc", FRAMES, footer=False)
    packed = tmp_path / "movie.mrc.gz"
    packed.write_bytes(gzip.compress((tmp_path / "movie.mrc").read_bytes()))
    real = tempfile.mkstemp

    def full(**options):
        number, name = real(**options)
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, number)
        os.close(device)
        return number, name

    if not Path("/dev/full").exists():
        pytest.skip("there is no device that is full")
    with mock.patch("tempfile.mkstemp", full):
        with pytest.raises(nm.MrczError, match=r"No space left.*TMPDIR"):
            nm.open(packed)
