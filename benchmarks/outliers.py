"""Outlier pixels: ours and other programs' rules, against what is known of the simulated camera."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import napari_mrcz as nm
from benchmarks.measure import Row, in_turns, peak_nbytes
from benchmarks.outlier_cases import CAMERAS, DOSES, WAYS, Case, detection, noise, ours, peers
from napari_mrcz.correction import OutlierFilter
from napari_mrcz.simulation import VITREOUS_ICE, Camera, simulate_movie

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SEEDS = range(3)


def rows() -> Iterator[Row]:
    """Measure what is found against the best of other rules, what is left, times and memory."""
    yield from found_rows()
    yield from noise_rows()
    yield contrast_row()
    yield from times()
    yield from memory()


def found_rows() -> Iterator[Row]:
    """Return our F1 and the best of the others', on ice, for each camera and dose."""
    rules = {"ours": ours, **peers()}
    for camera in CAMERAS:
        for n_frames, dose in DOSES:
            scores = detection(camera, VITREOUS_ICE, n_frames, dose, rules, SEEDS)
            f1 = {name: float(score[2]) for name, score in scores.items()}
            mine = f1.pop("ours")
            best = max(f1, key=lambda name: f1[name])
            yield Row(
                f"outliers found, {camera}, {n_frames} × {dose:g} e⁻", f"{best}: {f1[best]:.3f}",
                mine, "F1", least=round(f1[best], 3),
            )  # fmt: skip


def noise_rows() -> Iterator[Row]:
    """Return the correlated noise that is left in vacuum, the worst of the doses, per camera."""
    for camera in CAMERAS:
        ways = {name: WAYS[name] for name in ("before", "oracle", "sample")}
        left, apart = [], []
        for n_frames, dose in DOSES:
            values = noise(camera, None, n_frames, dose, ways, SEEDS)
            left.append(abs(values["sample"] / values["before"]))
            apart.append(abs(values["sample"] - values["oracle"]) / values["before"])
        if camera == "uniform":
            yield Row(
                "correlated noise left, uniform", "before", max(left), "× the noise", most=0.1
            )
        else:
            yield Row(
                f"correlated noise left, {camera}", "all outliers known, no other replaced",
                max(apart), "× the noise before, apart", most=0.1,
            )  # fmt: skip


def contrast_row() -> Row:
    """Return the worst change of the specimen's contrast in good pixels, of the doses."""
    changes = []
    for n_frames, dose in DOSES:
        case = Case("uniform", VITREOUS_ICE, n_frames, dose, 1)
        frames, outliers = case.movie.frames, case.fit()
        good = ~case.movie.defects.outliers
        truth = case.movie.rate[good] - case.movie.rate[good].mean()
        before = frames.sum(axis=0)[good]
        after = sum(outliers(frame, i).astype(np.int64) for i, frame in enumerate(frames))[good]
        changes.append(abs((after @ truth) / (before @ truth) - 1))
    return Row("contrast of ice after the filter", "before", max(changes), "changed", most=0.01)


def times() -> Iterator[Row]:
    """Time the filter on a large stack in memory, and a dragged threshold."""
    frames = large_movie(50)
    fitted = OutlierFilter.fit(frames)

    def to_float() -> None:
        for frame in frames:
            frame.astype(np.float32)

    def drag() -> npt.NDArray[np.int8]:
        return fitted.with_thresholds(hot=4.0).mask

    ours, theirs = in_turns(lambda: correct(frames), to_float, rounds=5)
    yield Row(
        "outlier filter: sum, fit, apply, 50 × 4096² uint8", "`astype(float32)` of each frame",
        ours / theirs, "× the time", most=1.3,
    )  # fmt: skip
    few, sparse = frames[:10], partial(fitted_frames, fitted, frames[:10])
    ours, theirs = in_turns(sparse, partial(dense, fitted, few), rounds=5)
    yield Row(
        "outlier filter applied", "w · frame + (1 − w) · fill of all pixels in float32",
        theirs / ours, "× faster",
    )  # fmt: skip
    (dragging,) = in_turns(drag)
    yield Row(
        "another threshold: mask and counts, 4096²", "one display frame", 1e3 * dragging, "ms",
        most=16.0,
    )  # fmt: skip


def fitted_frames(fitted: OutlierFilter, frames: npt.NDArray[Any]) -> None:
    """Apply a filter that was fitted."""
    for index, frame in enumerate(frames):
        fitted(frame, index)


def dense(fitted: OutlierFilter, frames: npt.NDArray[Any]) -> None:
    """Do what the preprint says (section 4, step 5) to every pixel of every frame."""
    weights = fitted.weight(fitted.sigma_image()).astype(np.float32)
    expected = np.full(weights.shape, fitted.mean / len(frames), np.float32)
    for frame in frames:
        np.add(weights * frame, (1 - weights) * expected)


def memory() -> Iterator[Row]:
    """Measure what the filter takes, of a movie in memory and of one in a file."""
    frames = large_movie(20)
    size = frames[0].nbytes
    yield Row(
        "memory, outlier filter, movie in memory", "one uint8 frame",
        peak_nbytes(lambda: correct(frames)) / size, "×", most=6.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=os.environ.get("NAPARI_MRCZ_BENCH")) as folder:
        path = Path(folder, "movie.mrcz")
        nm.write(path, frames)
        for what, job in (
            ("fit", partial(correct_file, path, applied=False)),
            ("fit, apply, step through", partial(correct_file, path, applied=True)),
            ("the filter held meanwhile", partial(hold_filter, path)),
        ):
            yield Row(
                f"memory, the same of a file: {what}", "one uint8 frame",
                peak_nbytes(job) / size, "×", most=6.0,
            )  # fmt: skip
        with nm.open(path) as movie:
            description = OutlierFilter.fit(movie).describe()
        yield Row(
            "memory, a file corrected as described before: step through", "one uint8 frame",
            peak_nbytes(partial(step_through, path, description)) / size, "×", most=6.0,
        )  # fmt: skip


def large_movie(n_frames: int) -> npt.NDArray[np.uint8]:
    """Return frames of 4096 x 4096, of 16 equal tiles."""
    camera = Camera.ideal((1024, 1024), hot=0.0045)
    return np.tile(simulate_movie(n_frames, camera=camera, seed=1).frames, (1, 4, 4))


def correct(frames: npt.NDArray[Any]) -> None:
    """Fit the filter and apply it to each frame."""
    outliers = OutlierFilter.fit(frames)
    for index, frame in enumerate(frames):
        outliers(frame, index)


def step_through(path: Path, description: Mapping[str, Any]) -> None:
    """Step through a file's movie, corrected as a worker does that did not fit the filter."""
    with nm.open(path) as movie:
        for _ in movie.apply(OutlierFilter.from_description(description)):
            pass


def hold_filter(path: Path) -> None:
    """Fit the filter to a file's movie and step through what it gives, the filter in a variable."""
    with nm.open(path) as movie:
        outliers = OutlierFilter.fit(movie)
        for _ in movie.apply(outliers):
            pass


def correct_file(path: Path, *, applied: bool) -> None:
    """Fit the filter to a file's movie and, if so wished, step through what it gives."""
    with nm.open(path) as movie:
        clean = movie.apply(OutlierFilter.fit(movie))
        for _ in clean if applied else ():
            pass
