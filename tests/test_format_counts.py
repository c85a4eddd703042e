"""Chunks of our own encoder: every blosc reads them, and they come near to Shannon's bound."""

import itertools
import subprocess
import sys

import blosc
import blosc2
import hypothesis.extra.numpy as numpy_data
import hypothesis.strategies as st
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import example, given, settings

from napari_mrcz.format.chunks import check_chunk, parse_chunk_header
from napari_mrcz.format.encoding import Encoding, choose_encoding, compress_counts

FILTERS = ("none", "shuffle", "bitshuffle")
LEVELS = (1, 3, 6, 9)
# Of Shannon's bound, at mean counts; budgets of the fastest and of the smallest level.
BUDGETS = {
    0.1: (1.11, 1.068),
    0.25: (1.075, 1.065),
    0.5: (1.04, 1.04),
    1.0: (1.07, 1.055),
    2.0: (1.025, 1.02),
    4.0: (1.02, 1.02),
    10.0: (1.01, 1.01),
}

integers = st.sampled_from(["i1", "u1", "<i2", "<u2", "<i4", "<u4"])
shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))
frames = integers.flatmap(
    lambda dtype: numpy_data.arrays(
        dtype,
        shapes,
        elements=st.integers(0, 3) | numpy_data.from_dtype(np.dtype(dtype)),
        fill=st.integers(0, 1),
    )
)


def assert_all_read(chunk: bytes, frame: np.ndarray) -> None:
    """Compare what numcodecs, python-blosc (and so `mrcz`) and blosc2 make of a chunk."""
    assert bytes(numcodecs.blosc.decompress(chunk)) == frame.tobytes()
    assert blosc.decompress(chunk) == frame.tobytes()
    out = np.empty_like(frame)
    blosc2.decompress2(chunk, dst=out.reshape(-1).view(np.uint8))
    assert np.array_equal(out, frame)


@given(
    frame=frames,
    level=st.sampled_from(LEVELS),
    filter_=st.sampled_from(FILTERS),
    block=st.integers(1, 5000),
)
@example(np.zeros((1, 1), np.uint8), 1, "bitshuffle", 16)
@example(np.full((64, 64), 255, np.uint8), 9, "bitshuffle", 2**20)
@example(np.arange(4096, dtype=np.uint16).reshape(64, 64), 9, "shuffle", 2**10)
def test_every_blosc_reads_it(frame: np.ndarray, level: int, filter_: str, block: int) -> None:
    chunk = compress_counts(frame, level, filter_, block)
    header = parse_chunk_header(chunk)
    check_chunk(header, frame.nbytes, len(chunk), path="x", frame=0, offset=0)
    assert header.ctbytes == len(chunk) <= frame.nbytes + 16
    assert_all_read(chunk, frame)


def over_bound(encoding: Encoding, frame: np.ndarray) -> float:
    p = np.bincount(frame.reshape(-1)) / frame.size
    bound = -(p[p > 0] * np.log2(p[p > 0])).sum() / 8 * frame.size
    return len(encoding.compress(frame)) / bound


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
@pytest.mark.parametrize("mean", BUDGETS)
def test_sizes_come_near_to_shannons_bound(mean: float, dtype: str) -> None:
    frame = np.random.default_rng(3).poisson(mean, (1024, 1024)).astype(dtype)
    fast = choose_encoding(Encoding(), [frame])
    small = choose_encoding(Encoding(level=9, as_counts=True), [frame])
    # Two-byte pixels have twice the planes, with a table and a header each.
    room = 0.01 if frame.itemsize == 2 else 0.0
    assert over_bound(fast, frame) <= BUDGETS[mean][0] + room
    assert over_bound(small, frame) <= BUDGETS[mean][1] + room


@settings(max_examples=8)
@given(mean=st.floats(0.005, 12), dtype=integers, seed=st.integers(0, 99))
def test_a_higher_level_is_never_larger(mean: float, dtype: str, seed: int) -> None:
    frame = np.random.default_rng(seed).poisson(mean, (128, 256)).astype(dtype)
    sizes = [len(compress_counts(frame, level, "bitshuffle", 2**20)) for level in LEVELS]
    assert sizes == sorted(sizes, reverse=True)


def test_bits_of_an_offset_take_no_room() -> None:
    counts = np.random.default_rng(6).poisson(0.5, (256, 256)).astype(np.uint16)
    plain, offset = (len(compress_counts(c, 1, "bitshuffle", 2**20)) for c in (counts, counts + 64))
    assert offset <= plain + 64
    few = compress_counts(1023 - counts, 1, "bitshuffle", 2**20)
    assert_all_read(few, 1023 - counts)
    assert len(few) < 1.5 * plain


def test_frames_with_repeats_are_left_to_blosc() -> None:
    ramp = np.add.outer(np.arange(1024), np.arange(1024)).astype(np.uint16)
    assert choose_encoding(Encoding(), [ramp]).as_counts is False
    assert choose_encoding(Encoding(), [ramp.astype(np.float32)]).as_counts is False
    assert choose_encoding(Encoding("lz4"), [ramp]).as_counts is False


DAMAGES = """
import sys
import blosc, numpy as np
from napari_mrcz.errors import MrczError
from napari_mrcz.format.chunks import decompress
from napari_mrcz.format.encoding import compress_counts

rng = np.random.default_rng(int(sys.argv[2]))
corpus = []
for dtype in ("u1", "<u2"):
    for filter_ in ("none", "shuffle", "bitshuffle"):
        for level, mean in ((1, 0.05), (1, 3), (9, 0.3)):
            frame = rng.poisson(mean, (64, 100)).astype(dtype)
            corpus.append((frame, compress_counts(frame, level, filter_, 2048)))

def damaged(chunk):
    raw = bytearray(chunk)
    blocks = -(-int.from_bytes(raw[4:8], "little") // int.from_bytes(raw[8:12], "little"))
    starts = [int.from_bytes(raw[i : i + 4], "little") for i in range(16, 16 + 4 * blocks, 4)]
    for _ in range(rng.integers(1, 4)):
        start = starts[rng.integers(blocks)]
        lowest, highest = [
            (0, 16),  # the header
            (16, 16 + 4 * blocks),  # where blocks begin
            (start, start + 4),  # how long one is
            (start + 4, start + 16),  # its zstd frame's header
            (start + 4, len(raw)),
        ][rng.integers(5)]
        place = min(int(rng.integers(lowest, highest)), len(raw) - 1)
        if rng.random() < 0.5:
            raw[place] ^= 1 << rng.integers(8)
        else:
            raw[place] = rng.integers(256)
    if rng.random() < 0.1:
        del raw[rng.integers(1, len(raw)) :]
    return bytes(raw)

def ours(chunk, frame):
    where = dict(path="x", frame=0, offset=0)
    out = np.empty_like(frame)
    if len(chunk) >= 16:
        decompress(memoryview(chunk), out, **where)

for number in range(int(sys.argv[1])):
    frame, chunk = corpus[number % len(corpus)]
    chunk = damaged(chunk)
    try:
        ours(chunk, frame)
    except MrczError:
        pass
    try:
        blosc.decompress(chunk)
    except Exception:
        pass
print("done")
"""


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_chunks_crash_no_reader(count: int) -> None:
    """Ours, and python-blosc, by which `mrcz` reads: an error, or wrong pixels at worst."""
    command = [sys.executable, "-X", "faulthandler", "-c", DAMAGES, str(count), "7"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


@pytest.mark.parametrize("noise", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_files_of_higher_levels_are_not_larger(noise: int) -> None:
    """Of an integrating camera, whose frames blosc's codecs make larger at some higher levels."""
    rng = np.random.default_rng(5)
    charge = 32 * rng.poisson(0.5, (256, 256)) + rng.normal(200, noise, (256, 256))
    frame = np.rint(charge).astype(np.uint16)
    sizes = [len(choose_encoding(Encoding(level=n), [frame]).compress(frame)) for n in range(1, 8)]
    assert all(b <= 1.001 * a for a, b in itertools.pairwise(sizes))


def test_the_first_frame_may_be_empty() -> None:
    """What is chosen suits the others."""
    empty, full = np.zeros((600, 600), np.uint8), np.random.default_rng(2).poisson(4, (600, 600))
    frames = [empty, full.astype(np.uint8), full.astype(np.uint8)]
    assert choose_encoding(Encoding(), frames).filter == "none"
