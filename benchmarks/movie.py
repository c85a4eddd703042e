"""How soon the picture follows a range of frames that is dragged, in napari's real window.

And what the sums that make it possible, a spectrum and an estimate of drift take. Times of
processors do not depend on what else the machine does; those until something is seen do.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.qt import get_qapp

import napari_mrcz as nm
from benchmarks.dragging import until_drawn
from benchmarks.measure import Row, peak_nbytes
from benchmarks.outliers import large_movie
from napari_mrcz.plugin.demo import wait_until_idle
from napari_mrcz.simulation import Camera, Specimen, simulate_movie
from napari_mrcz.widgets.movie.model import FrameSums, picture_of, spectrum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEPS, _RESTS = 60, 10
_PATIENCE_S = 20.0
_MB = 1e6


def rows() -> Iterator[Row]:
    """Sum, drag, transform and align 40 frames of 4096 x 4096 in a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "movie.mrcz")
        nm.write(path, large_movie(40), pixel_size=1.0)
        yield from _alone(path)
        viewer = napari.Viewer()
        try:
            yield from _dragged(viewer, path)
        finally:
            viewer.close()
            get_qapp().processEvents()


def _alone(path: Path) -> Iterator[Row]:
    """Measure what is done in threads, without a window."""
    what = "40 frames of 4096²"
    with nm.open(path) as movie:
        kept: list[FrameSums] = []
        spent = _processor_time(lambda: kept.append(FrameSums(movie, _no_report)))
        yield Row(f"{what}: read once for sums of ranges", "", spent, "s of processors")
        sums = kept.pop()
        yield Row(f"{what}: sums kept", "", sums.nbytes / _MB, "MB")
        most = peak_nbytes(partial(_read_and_smooth, movie))
        yield Row(f"{what}: memory, reading, summing, low-pass", "", most / _MB, "MB", most=400)
        spent = max(
            _processor_time(lambda ends=ends: sums.exact(*ends, _no_report)) for ends in _ranges()
        )
        yield Row(f"{what}: any range at full size, longest", "", spent, "s of processors", most=1)
        total = sums.exact(0, 40, _no_report)
        spent = _processor_time(lambda: spectrum_of(total, (1.0, 1.0), _no_report))
        yield Row("spectrum of a sum of 4096²", "", spent, "s of processors")
        spent = _processor_time(lambda: nm.estimate_drift(movie))
        yield Row(f"{what}: drift", "", spent, "s of processors", most=5)
    yield _weak_ice()


def _weak_ice() -> Row:
    """Return the error of the shifts of ice without particles, the worst of some movies."""
    ice = Specimen(contrast=0.025, spacing=np.inf, thickness_variation=0.0)
    errors = []
    for seed in range(4):
        camera = Camera.ideal((1024, 1024), seed=seed)
        movie = simulate_movie(40, camera=camera, specimen=ice, drift=8.0, seed=seed)
        truth = movie.drift.reshape(8, 5, 2).mean(axis=1)
        error = nm.estimate_drift(movie.iter_frames()).shifts - truth
        error -= error.mean(axis=0)
        errors.append(float(np.sqrt(np.square(error).sum(axis=1).mean())))
    what = "drift of weak ice, 40 frames of 1024², 1 e⁻/pixel: error, worst of 4"
    return Row(what, "", max(errors), "pixels", most=0.2)


def _read_and_smooth(movie: nm.Stack) -> None:
    sums = FrameSums(movie, _no_report)
    picture_of(sums.exact(3, 31, _no_report), 1, 20.0, (1.0, 1.0))


def _dragged(viewer: napari.Viewer, path: Path) -> Iterator[Row]:
    viewer.window.resize(1500, 900)
    _, widget = viewer.window.add_plugin_dock_widget("napari-mrcz", "Movie")
    viewer.open(path, plugin="napari-mrcz")
    wait_until_idle([widget])
    widget.binning.setCurrentIndex(widget.binning.findData(1))
    wait_until_idle([widget])
    working, drawing = [], []
    for start, stop in _ranges():
        began = time.thread_time()
        widget.choice.range.setValue((start, stop - 1))
        working.append(1e3 * (time.thread_time() - began))
        drawing.append(1e3 * until_drawn(viewer, lambda: None))
    what = "range of frames dragged, 40 × 4096²"
    often = float(np.percentile(working, 95))
    yield Row(f"{what}: our own work, 95 %", "", often, "ms", most=50)
    yield Row(f"{what}: drawing after that, 95 %", "", float(np.percentile(drawing, 95)), "ms")
    resting, spent = [], []
    for start, stop in _ranges()[:_RESTS]:
        done: list[Any] = []
        widget.drawn.connect(done.append)
        began, before = time.perf_counter(), time.process_time()
        widget.choice.range.setValue((start, stop - 1))
        while not done and time.perf_counter() < began + _PATIENCE_S:
            get_qapp().processEvents()
        resting.append(time.perf_counter() - began)
        spent.append(time.process_time() - before)
        widget.drawn.disconnect(done.append)
        wait_until_idle([widget])
    yield Row(f"{what}: full detail, longest", "", max(spent), "s of processors", most=1)
    yield Row(f"{what}: full detail after it rests, longest", "", max(resting), "s", most=1)


def _ranges() -> list[tuple[int, int]]:
    """Return ranges as a hand drags them: one end, the other, and what is between."""
    rng = np.random.default_rng(0)
    ends = [sorted(rng.choice(41, 2, replace=False).tolist()) for _ in range(_STEPS)]
    return [(start, stop) for start, stop in ends]


def _processor_time(job: Callable[[], object]) -> float:
    began = time.process_time()
    job()
    return time.process_time() - began


def _no_report(stage: str, done: int, total: int | None) -> None:
    """Take what a job reports."""
