"""How commands and the KOMA widget grow with a session: CPU time and memory from 50 to 800 movies.

Movies are 8 frames of 256 x 256, made of 50 different ones. Each job runs in a process of its own,
which does it once with 5 movies first, so that imports count for nothing. Times are of the
processor (user and system): on a shared machine those of a clock tell little.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measure import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = (50, 200, 800)
FRAMES, SHAPE, DIFFERENT, WARM = 8, (256, 256), 50, 5
STACKS, RADII = 800, 41


def rows(sizes: tuple[int, ...] = SIZES) -> Iterator[Row]:
    """Run each job on sessions of these sizes; measure the noise curve of 800 stacks."""
    with tempfile.TemporaryDirectory(prefix="napari-mrcz-") as name:
        folder = Path(name)
        pool = make_movies(folder / "pool")
        for job in JOBS:
            measured = {n: _measured(job, link(pool, folder / f"{job} {n}", n), n) for n in sizes}
            for n in sizes:
                print(
                    f"{job}, {n} movies: {1000 * measured[n]['cpu'] / n:.1f} ms of CPU per movie, "
                    f"{1000 * measured[n]['wall'] / n:.1f} ms by the clock, "
                    f"{measured[n]['rss'] / 1e6:.0f} MB",
                    file=sys.stderr,
                    flush=True,
                )
            few, many = (measured[n] for n in (sizes[0], sizes[-1]))
            what = f"{job}, {sizes[-1]} movies"
            grown = (many["cpu"] / sizes[-1]) / (few["cpu"] / sizes[0])
            yield Row(f"{what}: CPU time per movie", f"{sizes[0]} movies", grown, "×", most=1.15)
            grown = many["rss"] / few["rss"]
            yield Row(f"{what}: memory", f"{sizes[0]} movies", grown, "×", most=1.2)
    start = time.process_time()
    noise_curve(STACKS, RADII)
    taken = time.process_time() - start
    yield Row(f"noise curve of {STACKS} stacks and {RADII} radii", "", taken, "CPU-s", most=2)


def noise_curve(n_stacks: int, n_radii: int) -> None:
    """Compute the noise by the radius from covariances."""
    from napari_mrcz.correction.koma import noise_by_radius

    noise = np.random.default_rng(0).normal(size=(n_stacks, 2000)) + np.linspace(0, 3, 2000)
    radii = sorted({0, *(round(r) for r in np.geomspace(1, (n_stacks - 1) // 2, n_radii + 9))})
    sums = np.cov(noise, bias=True), np.full(n_stacks, 60.0), np.full(n_stacks, 8)
    noise_by_radius(*sums, radii[:n_radii], np.full(n_stacks, 2.0))


def make_movies(folder: Path) -> list[Path]:
    """Write the different movies: shot noise upon a fixed pattern, some hot pixels."""
    import napari_mrcz as nm

    folder.mkdir()
    rng = np.random.default_rng(1)
    rate = rng.normal(2, 0.1, SHAPE).clip(0.5)
    rate[rng.random(SHAPE) < 1e-3] = 30
    paths = [folder / f"{i}.mrc" for i in range(DIFFERENT)]
    for path in paths:
        nm.write(path, rng.poisson(rate, (FRAMES, *SHAPE)).astype(np.uint8))
    return paths


def link(pool: list[Path], folder: Path, n: int) -> Path:
    """Make a session of n movies, and a small one beside it."""
    for inside, count in ((folder / "in", n), (folder / "warm", WARM)):
        inside.mkdir(parents=True)
        for i in range(count):
            shutil.copyfile(pool[i % len(pool)], inside / f"movie_{i:04}.mrc")
    (folder / "recipe.toml").write_text("[outliers]\n[koma]\nradius = 12\neven_if_worse = true\n")
    return folder


def _measured(job: str, folder: Path, n: int) -> dict[str, float]:
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "benchmarks.sessions", job, str(folder)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if ran.returncode:
        raise RuntimeError(f"{job} of {n}: {ran.stderr[-2000:]}")
    shutil.rmtree(folder)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _command(*arguments: Any) -> None:
    from napari_mrcz.cli.commands import called

    sys.argv = ["napari-mrcz", *map(str, arguments), "--quiet"]
    if status := called():
        raise RuntimeError(f"{arguments[0]} ended with {status}")


def _session(folder: Path, inside: str) -> None:
    _command(
        "session", folder / inside, "-r", folder / "recipe.toml", "-o", f"{folder / inside}.html"
    )


def _correct(folder: Path, inside: str) -> None:
    out = folder / f"{inside} out"
    _command("correct", folder / inside, "-r", folder / "recipe.toml", "-o", out)


def _watch(folder: Path, inside: str) -> None:
    out = folder / f"{inside} out"
    settings = ("--once", "--settle", 0, "-r", folder / "recipe.toml", "-o", out)
    _command("watch", folder / inside, *settings)


def _widget(folder: Path, inside: str) -> None:
    """Add a folder, read it, select all, tick one, wait for the curve."""
    from qtpy.QtWidgets import QApplication

    global _dock
    if _dock is None:
        import napari

        from napari_mrcz.widgets.koma.widget import KomaSession

        viewer = napari.Viewer(show=False)
        _dock = KomaSession(viewer)
    application = QApplication.instance()

    def settle() -> None:
        while _dock.busy:
            application.processEvents()
            time.sleep(0.005)
        application.processEvents()

    stacks = _dock.box.stacks
    _dock.box.add_paths([str(folder / inside)])
    _dock.reading.start_button.click()
    settle()
    stacks.selectAll()
    application.processEvents()
    stacks.model().setData(stacks.model().index(0), 0, 10)
    settle()
    stacks.select(_dock.koma.entries)
    application.processEvents()
    _dock.koma.remove(_dock.koma.entries)
    _dock.box.refresh()
    settle()


_dock: Any = None
JOBS: dict[str, Callable[[Path, str], None]] = {
    "session": _session,
    "correct": _correct,
    "watch": _watch,
    "widget": _widget,
}


def _child(job: str, folder: Path) -> None:
    JOBS[job](folder, "warm")
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    JOBS[job](folder, "in")
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "wall": wall, "rss": 1024 * after.ru_maxrss}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
