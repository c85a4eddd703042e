"""A session of 60 stacks on disk, corrected by one process, by workers, by a scheduler of its own.

The files that come of it must be the same, byte for byte; what is measured is how much faster.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import napari_mrcz as nm
from benchmarks.measure import Row
from napari_mrcz.correction.gain import GainStep
from napari_mrcz.correction.koma import KomaOptions
from napari_mrcz.correction.outliers.thresholds import OutlierStep
from napari_mrcz.session.correct import Correct, correct_all
from napari_mrcz.session.recipe import Recipe
from napari_mrcz.session.run import cluster
from napari_mrcz.simulation import simulate_session

if TYPE_CHECKING:
    from collections.abc import Iterator

N_STACKS, N_FRAMES, SHAPE = 60, 16, (1024, 1024)
TURNS = 3


class Corrected(NamedTuple):
    """How long it took, and what came of it."""

    seconds: float
    digests: dict[str, str]


def rows() -> Iterator[Row]:
    """Correct the session in each way; on one worker and on two by turns."""
    with tempfile.TemporaryDirectory(prefix="napari-mrcz-") as name:
        folder = Path(name)
        sources, recipe = make_session(folder)
        pixels = N_STACKS * N_FRAMES * SHAPE[0] * SHAPE[1]
        alone = correct(sources, folder / "one process", recipe, None)
        made, seconds, peaks = [alone.digests], {1: [], 2: []}, []
        for turn in range(TURNS):
            for workers, taken in seconds.items():
                with cluster(workers=workers) as client:
                    done = correct(sources, folder / f"{workers}, {turn}", recipe, client)
                    peaks += client.run(peak_rss).values()
                made.append(done.digests)
                taken.append(done.seconds)
        with scheduler_of_its_own() as address, cluster(address) as client:
            made.append(correct(sources, folder / "a scheduler", recipe, client).digests)
        one, two = (float(np.median(taken)) for taken in seconds.values())
        what = "session of 60 corrected"
        same = sum(digests == alone.digests for digests in made) / len(made)
        yield Row(f"{what}: the same files", "one process", same, "of all", least=1)
        yield Row(f"{what}, 2 workers", "1 worker", one / two, "× faster", least=1.7)
        yield Row(f"{what}, 2 workers", "one process", alone.seconds / two, "× faster")
        yield Row(f"{what}, a worker", "", pixels / one / 1e6, "Mpixel/s")
        sum_nbytes = 8 * SHAPE[0] * SHAPE[1]
        yield Row(
            f"{what}, memory of a worker", "one image of float64", max(peaks) / sum_nbytes, "×"
        )


def make_session(folder: Path) -> tuple[list[str], Recipe]:
    """Write stacks and a gain reference."""
    session = simulate_session(N_STACKS, N_FRAMES, SHAPE, seed=3)
    sources = []
    for index in range(N_STACKS):
        path = folder / f"{index:02}.mrcz"
        nm.write(path, session.movie(index).frames)
        sources.append(str(path))
    nm.write(folder / "gain.mrc", np.asarray(session.template.camera.gain_reference, np.float32))
    gain = GainStep(str(folder / "gain.mrc"))
    return sources, Recipe(OutlierStep(), gain, KomaOptions(12))


def correct(sources: list[str], target: Path, recipe: Recipe, client: Any) -> Corrected:
    """Correct them into a folder, which is deleted again."""
    target.mkdir()
    targets = [str(target / Path(source).name) for source in sources]
    start = time.perf_counter()
    for outcome in correct_all(map(Correct, sources, targets, repeat(recipe)), client=client):
        if not outcome.ok:
            raise RuntimeError(outcome.error)
    seconds = time.perf_counter() - start
    digests = {path.name: _digest(path) for path in target.iterdir()}
    shutil.rmtree(target)
    return Corrected(seconds, digests)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_rss() -> int:
    """Return the most memory that this process has had, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def scheduler_of_its_own() -> Iterator[str]:
    """Start a scheduler and two workers, each a program by itself; give the address."""
    address = f"tcp://127.0.0.1:{8786 + os.getpid() % 1000}"
    commands = [["scheduler", "--host", address, "--no-dashboard"]]
    commands += [["worker", address, "--nthreads", "1", "--no-dashboard"]] * 2
    programs = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "dask", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        yield address
    finally:
        for program in reversed(programs):
            program.terminate()
        for program in programs:
            program.wait()
