"""Opening, browsing, reading and writing movies, against `mrcz`, bare blosc and Shannon."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blosc
import mrcz
import numpy as np
import numpy.typing as npt

import napari_mrcz as nm
from benchmarks.measure import Row, in_turns, peak_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator

K2 = (3838, 3710)
Frame = npt.NDArray[Any]


def rows() -> Iterator[Row]:
    """Measure the budgets of the format, the stack and their memory."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("NAPARI_MRCZ_BENCH")) as folder:
        yield from opening(Path(folder))
        yield from browsing(Path(folder))
        yield from writing(Path(folder))
        yield from memory(Path(folder))


def poisson(mean: float, frames: int, distinct: int = 6, seed: int = 0) -> Frame:
    """Give `frames` counted frames of a K2, `distinct` of them different."""
    rng = np.random.default_rng(seed)
    few = rng.poisson(mean, (min(distinct, frames), *K2)).astype(np.int8)
    return few[np.arange(frames) % len(few)]


def opening(folder: Path) -> Iterator[Row]:
    """Open a movie and see its first frame, whatever its length; read it whole."""
    movie = poisson(1.0, 60)
    ours, peers, long = folder / "60.mrcz", folder / "peer.mrcz", folder / "600.mrcz"
    nm.write(ours, movie)
    mrcz.writeMRC(movie, str(peers), compressor="zstd", clevel=1)
    blank = np.zeros(K2, np.int8)
    nm.write(long, (movie[0] if i == 0 else blank for i in range(600)))

    def first_frame(path: Path) -> None:
        with nm.open(path) as stack:
            stack[0].max()

    quick, slow = in_turns(lambda: first_frame(ours), lambda: mrcz.readMRC(str(ours)), rounds=5)
    yield Row("open, first frame of 60", "`mrcz.readMRC`", slow / quick, 25, "high", "× faster")
    of_60, of_600 = in_turns(lambda: first_frame(ours), lambda: first_frame(long), rounds=15)
    yield Row(
        "open, first frame of 600", "the same of 60", of_600 / of_60, 1.2, "low", "× the time"
    )
    whole, theirs = in_turns(lambda: nm.read(peers), lambda: mrcz.readMRC(str(peers)), rounds=5)
    yield Row("read a peer's file", "`mrcz.readMRC`", theirs / whole, 1.3, "high", "× faster")


def browsing(folder: Path) -> Iterator[Row]:
    """Decode one frame; step through, the next frames decoded ahead while one is looked at."""
    path = folder / "60.mrcz"
    chunks = chunks_of(path, 12)
    out = np.empty(K2, np.int8)
    stack = nm.Stack(nm.open(path)._source, nm.open(path).description, read_ahead=0)
    frame = iter(np.tile(np.arange(0, 60, 7), 100).tolist())
    bare = iter(np.tile(np.arange(12), 100).tolist())
    one, decompressed = in_turns(
        lambda: stack[next(frame)],
        lambda: blosc.decompress_ptr(chunks[next(bare)], out.ctypes.data),
        rounds=61,
    )
    yield Row("one frame", "bare blosc decompress", one / decompressed, 1.15, "low", "× the time")
    with nm.open(path) as ahead:
        waits = [waiting(stack), waiting(ahead), waiting(stack), waiting(ahead)]
    yield Row(
        "wait for the next frame, stepping, 20 ms a look",
        "without read-ahead",
        (waits[0] + waits[2]) / (waits[1] + waits[3]),
        2,
        "high",
        "× shorter",
    )
    stack.close()


def chunks_of(path: Path, count: int) -> list[bytes]:
    """Give the first chunks of a file as they are stored."""
    reader = nm.open(path)._source
    return [reader.read_stored(i) for i in range(count)]  # type: ignore[attr-defined]


def waiting(stack: nm.Stack) -> float:
    """Step through, looking at each frame for 20 ms; give the median wait for a frame."""
    waits = []
    shown = np.empty(K2, np.float32)
    for i in range(len(stack)):
        start = time.perf_counter()
        frame = stack[i]
        waits.append(time.perf_counter() - start)
        until = time.perf_counter() + 0.020
        np.copyto(shown, frame)  # what a viewer does with it
        time.sleep(max(0.0, until - time.perf_counter()))
    return float(np.median(waits[2:]))


def writing(folder: Path) -> Iterator[Row]:
    """Write as fast as `mrcz` does, and smaller; how near to Shannon's bound."""
    ours, theirs = folder / "ours.mrcz", folder / "theirs.mrcz"
    for mean, least, bound in ((1.0, 0.97, 1.10), (4.0, 0.90, 1.05), (10.0, 0.85, 1.02)):
        movie = poisson(mean, 40)

        def write(movie: Frame = movie) -> None:
            nm.write(ours, movie, overwrite=True)

        def write_theirs(movie: Frame = movie) -> None:
            mrcz.writeMRC(movie, str(theirs), compressor="zstd", clevel=1)
            # Ours is on disk when `write` returns: so must theirs be.
            descriptor = os.open(theirs, os.O_RDWR)
            os.fsync(descriptor)
            os.close(descriptor)

        quick, slow = in_turns(write, write_theirs, rounds=5)
        label = f"{mean:g} e⁻/pix/frame"
        yield Row(
            f"write, {label}", "`mrcz.writeMRC`, both to disk", slow / quick, 1, "high", "× faster"
        )
        sizes = ours.stat().st_size, theirs.stat().st_size
        yield Row(f"file, {label}", "`mrcz`'s", sizes[0] / sizes[1], least, "low", "× the size")
        p = np.bincount(movie[:6].ravel()) / movie[:6].size
        entropy = -(p[p > 0] * np.log2(p[p > 0])).sum() / 8 * movie.nbytes
        yield Row(
            f"file, {label}", "Shannon's bound", sizes[0] / entropy, bound, "low", "× the size"
        )


def memory(folder: Path) -> Iterator[Row]:
    """Count the frames that are in memory at once."""
    nbytes = K2[0] * K2[1]
    path, copy = folder / "60.mrcz", folder / "copy.mrcz"

    def browse() -> None:
        with nm.open(path) as stack:
            for i in (*range(20), *range(20, 0, -1), 59, 3, 30):
                stack[i].max()

    yield Row("open and browse", "frames", peak_nbytes(browse) / nbytes, 4, "low", "frames")
    threads = 2
    with nm.open(path) as stack:
        peak = peak_nbytes(lambda: nm.write(copy, stack, threads=threads, overwrite=True))
    yield Row("read and write", "frames", peak / nbytes, threads + 3, "low", "frames")
