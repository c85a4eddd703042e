"""Opening, browsing, reading and writing movies, against `mrcz`, bare blosc and Shannon."""

from __future__ import annotations

import itertools
import os
import statistics
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
from napari_mrcz.format import FrameReader

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
    """Return `frames` counted frames of a K2, `distinct` of them different."""
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

    quick, slow = in_turns(lambda: first_frame(ours), lambda: mrcz.readMRC(str(ours)), rounds=7)
    yield Row("open, first frame of 60", "`mrcz.readMRC`", slow / quick, "× faster", least=25)
    of_60, of_600 = in_turns(lambda: first_frame(ours), lambda: first_frame(long), rounds=21)
    yield Row("open, first frame of 600", "the same of 60", of_600 / of_60, "× the time", most=1.2)
    whole, theirs = in_turns(
        lambda: nm.read(peers), lambda: mrcz.readMRC(str(peers)), rounds=9, before=os.sync
    )
    yield Row("read a peer's file", "`mrcz.readMRC`", theirs / whole, "× faster", least=1.3)


def browsing(folder: Path) -> Iterator[Row]:
    """Decode one frame; step through, the next frames decoded ahead while one is looked at."""
    path = folder / "60.mrcz"
    with FrameReader(path) as reader:
        chunks = [bytes(reader.read_stored(i)) for i in range(12)]
    out = np.empty(K2, np.int8)
    frame = itertools.cycle(range(0, 60, 7))
    bare = itertools.cycle(chunks)
    with nm.open(path, read_ahead=False) as plain, nm.open(path) as ahead:
        one, decompressed = in_turns(
            lambda: plain[next(frame)],
            lambda: blosc.decompress_ptr(next(bare), out.ctypes.data),
            rounds=61,
        )
        yield Row("one frame", "bare blosc decompress", one / decompressed, "× the time", most=1.15)
        waits = [waiting(stack) for stack in (plain, ahead, plain, ahead)]
        hurried, without = in_turns(lambda: hurrying(ahead), lambda: hurrying(plain), rounds=5)
    shorter = (waits[0] + waits[2]) / (waits[1] + waits[3])
    what = "wait for the next frame, 20 ms a look"
    yield Row(what, "without reading ahead", shorter, "× shorter", least=2)
    yield Row("stepping without a look", "without reading ahead", without / hurried, "× faster")


def hurrying(stack: nm.Stack) -> None:
    """Step through as fast as frames come: there is no time in which to read ahead."""
    for i in range(len(stack)):
        stack[i]


def waiting(stack: nm.Stack) -> float:
    """Step through, looking at each frame for 20 ms; return the median wait for a frame."""
    waits = []
    shown = np.empty(K2, np.float32)
    for i in range(len(stack)):
        start = time.perf_counter()
        frame = stack[i]
        waits.append(time.perf_counter() - start)
        until = time.perf_counter() + 0.020
        np.copyto(shown, frame)  # what a viewer does with it
        time.sleep(max(0.0, until - time.perf_counter()))
    return statistics.median(waits[2:])


def writing(folder: Path) -> Iterator[Row]:
    """Write as fast as `mrcz` does, and smaller; how near to Shannon's bound; read it again.

    Each writes a new file while the disk has nothing else to do, and is done when the file is on
    disk; each reads its own from the system's page cache.
    """
    ours, theirs = folder / "ours.mrcz", folder / "theirs.mrcz"

    def clear() -> None:
        for path in (ours, theirs):
            path.unlink(missing_ok=True)
        os.sync()

    budgets = {0.1: 1.12, 0.25: 1.11, 0.5: 1.05, 1.0: 1.08, 2.0: 1.025, 4.0: 1.02, 10.0: 1.01}
    faster: list[float] = []
    for mean, to_bound in budgets.items():
        movie = poisson(mean, 60)

        def write(movie: Frame = movie) -> None:
            nm.write(ours, movie)

        def write_theirs(movie: Frame = movie) -> None:
            mrcz.writeMRC(movie, str(theirs), compressor="zstd", clevel=1)
            # Ours is on disk when `write` returns: so must theirs be.
            descriptor = os.open(theirs, os.O_RDWR)
            os.fsync(descriptor)
            os.close(descriptor)

        quick, slow = in_turns(write, write_theirs, rounds=7, before=clear)
        write()
        write_theirs()
        faster.append(slow / quick)
        label = f"{mean:g} e⁻/pix/frame"
        yield Row(f"write, {label}", "`mrcz.writeMRC`, on disk", faster[-1], "× faster", least=1)
        whole, slow = in_turns(
            lambda: nm.read(ours), lambda: mrcz.readMRC(str(theirs)), rounds=7, before=os.sync
        )
        what = "`mrcz.readMRC` of its own"
        yield Row(f"read, {label}", what, slow / whole, "× faster", least=1.8)
        size, peer_size = ours.stat().st_size, theirs.stat().st_size
        bound = entropy(movie[:6]) * movie.nbytes
        yield Row(f"file, {label}", "`mrcz`'s", size / peer_size, "× the size", most=1)
        yield Row(f"file, {label}", "Shannon's bound", size / bound, "× the size", most=to_bound)
        if mean in (0.1, 1.0, 4.0, 10.0):
            yield Row(f"file, {label}", "plain int8", movie.nbytes / size, "× smaller")
    mean_of_all = statistics.geometric_mean(faster)
    what = "write, geometric mean of these"
    yield Row(what, "`mrcz.writeMRC`, on disk", mean_of_all, "× faster", least=1.15)


def entropy(frames: Frame) -> float:
    """Return the bytes of information a byte of these counts holds."""
    p = np.bincount(frames.ravel()) / frames.size
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum() / 8)


def memory(folder: Path) -> Iterator[Row]:
    """Count the frames that are in memory at once."""
    nbytes = K2[0] * K2[1]
    path, copy = folder / "60.mrcz", folder / "copy.mrcz"

    def browse() -> None:
        with nm.open(path) as stack:
            for i in (*range(20), *range(20, 0, -1), 59, 3, 30):
                stack[i].max()

    yield Row("memory, open and browse", "one frame", peak_nbytes(browse) / nbytes, "×", most=4)
    threads = 2
    with nm.open(path) as stack:
        peak = peak_nbytes(lambda: nm.write(copy, stack, threads=threads, overwrite=True))
    what = f"memory, read and write in {threads} threads"
    yield Row(what, "one frame", peak / nbytes, "×", most=threads + 3)
