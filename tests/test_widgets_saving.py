"""What the Save widget decides and says, without a window."""

from pathlib import Path

import numpy as np
import pytest

import napari_mrcz as nm
from napari_mrcz.errors import error_text, size_text, time_text
from napari_mrcz.format.chunks import parse_chunk_header
from napari_mrcz.widgets.base.job import Cancelled, Pace
from napari_mrcz.widgets.save_stack.model import (
    Saved,
    SaveOptions,
    dtype_choices,
    estimate_file,
    save,
    suggest_path,
)

COUNTS = np.random.default_rng(4).poisson(1, (9, 128, 200)).astype(np.uint8)


@pytest.fixture
def stack() -> nm.Stack:
    """Return nine frames of counts."""
    return nm.Stack.from_array(COUNTS, pixel_size=(0, 1.5, 1.5))


def silent(stage: str, done: int, total: int | None) -> None:
    """Take a report."""


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mrcz", "lz4"), ("a.MRCZ", "lz4"), ("a.mrc", "none")]
)
def test_the_suffix_decides_whether_a_file_is_compressed(name, codec):
    """Whatever codec is chosen."""
    assert SaveOptions(name, codec="lz4").encoding.codec == codec


def test_problems_with_a_path_are_said(tmp_path):
    """Before anything is tried."""
    (tmp_path / "folder.mrc").mkdir()
    for path, said in [
        ("", "Choose a file"),
        (str(tmp_path / "a.tif"), "End the file's name in one of .mrcz .mrc"),
        (str(tmp_path / "folder.mrc"), "folder"),
        (str(tmp_path / "no" / "where" / "a.mrc"), "There is no folder"),
    ]:
        assert said in SaveOptions(path).problem()
    assert SaveOptions(str(tmp_path / "a.mrcz")).problem() == ""


@pytest.mark.parametrize("suffix", ["mrcz", "mrc"])
def test_the_estimate_is_what_is_then_written(stack, tmp_path, suffix):
    """Within two percent of the frames, from three of nine; header and footer are small."""
    options = SaveOptions(str(tmp_path / f"a.{suffix}"))
    expected = estimate_file(stack, options)
    saved = save(stack, options, silent)
    assert expected.memory_nbytes == COUNTS.nbytes == saved.memory_nbytes
    assert expected.nbytes == pytest.approx(saved.nbytes, rel=0.02, abs=2000)
    assert expected.bound_nbytes < expected.nbytes


def test_saving_reports_each_frame_of_each_stage(stack, tmp_path):
    """Then says what was saved, and that it is good."""
    said = []
    options = SaveOptions(str(tmp_path / "a.mrcz"), verify=True)
    saved = save(stack, options, lambda *step: said.append(step))
    assert said == [
        (stage, i, 9) for stage in ("Saving frame", "Verifying frame") for i in range(1, 10)
    ]
    assert saved.ok
    assert "Verified: all 9 frames match their checksums." in str(saved)
    with nm.open(options.path) as back:
        np.testing.assert_array_equal(np.asarray(back), COUNTS)
        assert back.pixel_size == (0, 1.5, 1.5)


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({"codec": "lz4", "level": 4, "filter": "shuffle", "block_size": 2**16}, ("lz4", 2**16)),
        ({"codec": "zlib", "filter": "none", "block_size": 2**17}, ("zlib", 2**17)),
    ],
)
def test_choices_end_up_in_the_file(tmp_path, chosen, found):
    """As the chunks say themselves."""
    stack = nm.Stack.from_array(np.tile(COUNTS[:2], (1, 4, 4)))
    options = SaveOptions(str(tmp_path / "a.mrcz"), **chosen)
    save(stack, options, silent)
    with nm.open(options.path) as back:
        chunk = parse_chunk_header(back._source.read_stored(0))
    assert (chunk.codec.removesuffix("hc"), chunk.blocksize) == found


def test_the_pixel_type_is_changed(stack, tmp_path):
    """Four bits are what a detector gave; compressed files hold them as bytes."""
    options = SaveOptions(str(tmp_path / "a.mrc"), dtype="uint4")
    save(stack, options, silent)
    with nm.open(options.path) as back:
        assert back.header.mode == 101
        np.testing.assert_array_equal(np.asarray(back), COUNTS)
    with pytest.raises(nm.MrczError, match="4 bits hold 0 to 15"):
        bright = nm.Stack.from_array(COUNTS + np.uint8(20))
        save(bright, SaveOptions(str(tmp_path / "b.mrc"), dtype="uint4"), silent)


@pytest.mark.parametrize("at", [1, 5])
def test_cancelling_leaves_the_old_file(stack, tmp_path, at):
    """And no litter."""
    path = tmp_path / "a.mrcz"
    path.write_bytes(b"what was there before")

    def cancel(stage, done, total):
        if done == at:
            raise Cancelled

    with pytest.raises(Cancelled):
        save(stack, SaveOptions(str(path)), cancel)
    assert path.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [path]


def test_cancelling_the_verifying_keeps_the_file(stack, tmp_path):
    """It is saved, and nothing is claimed of it."""

    def cancel(stage, done, total):
        if stage == "Verifying frame":
            raise Cancelled

    saved = save(stack, SaveOptions(str(tmp_path / "a.mrcz"), verify=True), cancel)
    assert saved.report is None
    assert "Verified" not in str(saved)
    with nm.open(saved.path) as back:
        assert len(back) == 9


def test_a_fault_that_verifying_finds_is_said(stack, tmp_path):
    """Naming the frame."""
    saved = save(stack, SaveOptions(str(tmp_path / "a.mrcz")), silent)
    with nm.open(saved.path) as back:
        middle = int(back._source.index.offsets[4]) + 40
    damaged = bytearray(saved.path.read_bytes())
    damaged[middle] ^= 1
    saved.path.write_bytes(damaged)
    found = Saved(saved.path, 1, 2, 0.1, nm.verify(saved.path))
    assert not found.ok
    assert "frame 4" in str(found)


def test_the_pace_is_told_by_the_clock():
    """Two frames a second, of 5 MB; a new stage begins anew."""
    now = 100.0
    pace = Pace(5_000_000, clock=lambda: now)
    assert pace("Saving frame", 1, 41) == "Saving frame 1 of 41"
    now += 10
    assert pace("Saving frame", 21, 41) == "Saving frame 21 of 41\n10 MB/s, 10 s left"
    now += 100
    assert pace("Verifying frame", 1, 41) == "Verifying frame 1 of 41"
    now += 3
    assert pace("Verifying frame", 31, 41).endswith("50 MB/s, 1.0 s left")
    assert pace("Verifying frame", 1, 41) == "Verifying frame 1 of 41"


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (41_943_040, "41.9 MB"), (3e12, "3 TB")],
)
def test_sizes_have_units(nbytes, text):
    """In powers of 1000, as disks are sold."""
    assert size_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (61, "1 min 1 s"), (3725, "1 h 2 min")],
)
def test_times_have_units(seconds, text):
    """One or two of them."""
    assert time_text(seconds) == text


def test_estimates_are_sentences(stack):
    """How much smaller, how near to the bound, by which means."""
    text = str(estimate_file(stack, SaveOptions("a.mrcz", filter="bitshuffle", block_size=2**14)))
    assert "times smaller than in memory; " in text
    assert "above the theoretical minimum; zstd for counts, bitshuffle, blocks of 16 KiB." in text
    assert str(estimate_file(stack, SaveOptions("a.mrc"))).startswith("As large as in memory; 4.")
    larger = str(estimate_file(stack, SaveOptions("a.mrc", dtype="float32")))
    assert larger.startswith("4 times larger than in memory")


def test_pixel_types_to_choose_from():
    """As it is, first; 4 bits only where nothing is compressed; complex stays complex."""
    compressed = dtype_choices(np.dtype(np.uint8), compressed=True)
    assert compressed[0] == ("uint8 (unchanged)", None)
    assert "uint4" not in dict(compressed).values()
    assert "uint8" not in dict(compressed).values()
    assert "uint4" in dict(dtype_choices(np.dtype(np.uint8), compressed=False)).values()
    assert dtype_choices(np.dtype(np.complex64), compressed=False) == [
        ("complex64 (unchanged)", None)
    ]


def test_paths_are_suggested(tmp_path):
    """Beside the source, but never the source; else at home."""
    nm.write(tmp_path / "movie.mrcz", COUNTS[:1])
    with nm.open(tmp_path / "movie.mrcz") as stack:
        assert suggest_path(stack, "movie", None, ".mrcz") == str(tmp_path / "movie-copy.mrcz")
        assert suggest_path(stack, "movie", None, ".mrc") == str(tmp_path / "movie.mrc")
        assert suggest_path(stack, "a/b: c?", None, ".mrc") == str(tmp_path / "a_b_c.mrc")
        other = tmp_path / "other"
        assert suggest_path(stack, "movie", other, ".mrcz") == str(other / "movie.mrcz")
    in_memory = nm.Stack.from_array(COUNTS)
    assert suggest_path(in_memory, "..", None, ".mrcz") == str(Path.home() / "stack.mrcz")


def test_errors_are_sentences():
    """Of a path only the name is shown; the folder is in the form."""
    error = nm.MrczError("/some/where/a.mrc", "cannot be written: disk full", advice="Make room")
    assert error_text(error) == "a.mrc: cannot be written: disk full. Make room."
    assert error_text(nm.MrczError(None, "an RGB image")) == "An RGB image."
    assert error_text(ValueError("no!")) == "No!"
