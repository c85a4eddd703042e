"""Outlier pixels: ours and other programs' rules, against what is known of the simulated camera.

``python -m benchmarks.outliers`` prints two tables, medians over seeds: precision, recall and F1
of every rule, and the correlated noise that is left.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc

from benchmarks.measure import Row, in_turns, peak_nbytes
from benchmarks.outlier_rules import local_median, motioncor3, relion
from napari_mrcz.correction import OutlierFilter, correlated_noise
from napari_mrcz.simulation import VITREOUS_ICE, Camera, Movie, Specimen, simulate_movie

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPE = (512, 512)
SEEDS = range(6)
DOSES = ((40, 0.25), (40, 1.0), (100, 1.0), (30, 4.0))
"""Frames, and electrons per pixel and frame."""
CAMERAS: dict[str, Callable[[int], Camera]] = {
    "uniform": lambda seed: Camera.ideal(SHAPE, hot=0.0045, seed=seed),
    "patterned": lambda seed: Camera(SHAPE, very_hot=0, dark=0, dead=0, seed=seed),
    "with dark": lambda seed: Camera.ideal(SHAPE, hot=0.0045, dark=1e-3, dead=2e-4, seed=seed),
}
PEERS = {"RELION": relion, "MotionCor3": motioncor3, "median": local_median}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A simulated stack, what is wrong with it, and what is found."""

    camera: str
    specimen: Specimen | None
    n_frames: int
    dose: float
    seed: int

    @cached_property
    def movie(self) -> Movie:
        """The stack and its truth; 16 bits, so that nothing saturates."""
        return simulate_movie(
            self.n_frames, camera=CAMERAS[self.camera](self.seed), dose=self.dose,
            specimen=self.specimen, dtype=np.uint16, seed=self.seed,
        )  # fmt: skip

    @cached_property
    def gain(self) -> npt.NDArray[np.float32] | None:
        """The reference, where the camera is not uniform."""
        return self.movie.camera.gain_reference if self.camera == "patterned" else None

    @cached_property
    def total(self) -> npt.NDArray[np.float64]:
        """The sum of the frames, after the gain."""
        total = self.movie.frames.sum(axis=0, dtype=np.float64)
        return total if self.gain is None else total * self.gain

    def fit(self, **options: Any) -> OutlierFilter:
        """Fit our own filter."""
        return OutlierFilter.fit(self.movie.frames, gain=self.gain, **options)

    def score(self, mask: Mask) -> tuple[float, float, float]:
        """Give precision, recall and F1 of a mask."""
        return score(mask, self.movie.defects.outliers)


def rows() -> Iterator[Row]:
    """Measure whether every rule of others is met or beaten, the noise that is left, and times."""
    yield from worst_cases()
    yield from times()


def main() -> None:
    """Print the tables."""
    print_detection()
    print()
    print_noise()


def score(mask: Mask, truth: Mask) -> tuple[float, float, float]:
    """Give precision, recall and F1 of a mask."""
    found = np.count_nonzero(mask & truth)
    precision = found / max(1, np.count_nonzero(mask))
    recall = found / max(1, np.count_nonzero(truth))
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def detection(camera: str, specimen: Specimen | None, n_frames: int, dose: float) -> dict[str, Any]:
    """Give the median (precision, recall, F1) of each rule; "possible" knows the true rates."""
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for seed in SEEDS:
        case = Case(camera, specimen, n_frames, dose, seed)
        for model in ("poisson", "normal"):
            scores.setdefault(model, []).append(case.score(case.fit(model=model).mask != 0))
        for name, rule in PEERS.items():
            scores.setdefault(name, []).append(case.score(rule(case.total)))
        scores.setdefault("possible", []).append(possible(case))
    return {name: np.median(found, axis=0) for name, found in scores.items()}


def possible(case: Case) -> tuple[float, float, float]:
    """Score the best threshold on the probability of each count at its true expected rate."""
    raw = case.movie.frames.sum(axis=0, dtype=np.float64)
    expected = case.movie.rate.astype(np.float64) * case.n_frames
    above = gammainc(raw + 0.5, expected).reshape(-1)
    order = np.argsort(np.minimum(above, 1 - above) if case.camera == "with dark" else above)
    truth = case.movie.defects.outliers.reshape(-1)
    found = np.cumsum(truth[order])
    f1 = 2 * found / (np.arange(1, found.size + 1) + found[-1])
    mask = np.zeros(found.size, np.bool_)
    mask[order[: int(f1.argmax()) + 1]] = True
    return score(mask, truth)


def print_detection() -> None:
    """Print precision / recall / F1 of every rule on every kind of stack."""
    names = ("poisson", "normal", *PEERS, "possible")
    print("| camera | specimen | frames × dose |", " | ".join(names), "|")
    print("|---|---|---|" + "---|" * len(names))
    for camera in CAMERAS:
        for specimen in (None, VITREOUS_ICE):
            for n_frames, dose in DOSES:
                scores = detection(camera, specimen, n_frames, dose)
                shown = (" / ".join(f"{value:.3f}" for value in scores[name]) for name in names)
                what = "ice" if specimen else "vacuum"
                print(f"| {camera} | {what} | {n_frames} × {dose:g} e⁻ |", " | ".join(shown), "|")
                sys.stdout.flush()


def noise(camera: str, specimen: Specimen | None, n_frames: int, dose: float) -> dict[str, float]:
    """Give the median correlated noise before, after, and after replacing the true outliers."""
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        case = Case(camera, specimen, n_frames, dose, seed)
        frames = case.movie.frames
        everything = {
            "before": None,
            "sample": case.fit(),
            "expectation": case.fit(fill="expectation"),
            "preprint": case.fit(fill="expectation", model="normal"),
            # Knows the outliers, and takes nothing else for one.
            "oracle": case.fit(defects=case.movie.defects.outliers).with_thresholds(
                -np.inf, np.inf
            ),
        }
        for name, outliers in everything.items():
            corrected = frames if outliers is None else map(outliers, frames, range(len(frames)))
            found.setdefault(name, []).append(correlated_noise(corrected))
    return {name: float(np.median(values)) for name, values in found.items()}


def print_noise() -> None:
    """Print the correlated noise that each way of replacing outliers leaves."""
    names = ("before", "oracle", "sample", "expectation", "preprint")
    print("| camera | specimen | frames × dose: 10⁴ R |", " | ".join(names), "|")
    print("|---|---|---|" + "---|" * len(names))
    for camera in CAMERAS:
        for specimen in (None, VITREOUS_ICE):
            for n_frames, dose in DOSES:
                values = noise(camera, specimen, n_frames, dose)
                shown = (f"{1e4 * values[name]:.2f}" for name in names)
                what = "ice" if specimen else "vacuum"
                print(f"| {camera} | {what} | {n_frames} × {dose:g} e⁻ |", " | ".join(shown), "|")
                sys.stdout.flush()


def worst_cases() -> Iterator[Row]:
    """Give the worst of F1 against the best of the others, and of the noise that is left."""
    ahead, left, apart = [], [], []
    for camera in CAMERAS:
        for n_frames, dose in DOSES:
            scores = detection(camera, VITREOUS_ICE, n_frames, dose)
            ahead.append(scores["poisson"][2] / max(scores[name][2] for name in PEERS))
            values = noise(camera, None, n_frames, dose)
            if camera == "uniform":
                left.append(abs(values["sample"] / values["before"]))
            else:
                apart.append(abs(values["sample"] - values["oracle"]) / values["before"])
    yield Row(
        "outliers: F1, in the worst of 12 kinds of stack", "the best other rule in it",
        min(ahead), "×", least=1.0,
    )  # fmt: skip
    yield Row(
        "outliers: correlated noise left in vacuum, uniform camera", "before", max(left), "×",
        most=0.1,
    )  # fmt: skip
    yield Row(
        "outliers: the same, other cameras: away from what knowing the outliers leaves", "before",
        max(apart), "×", most=0.1,
    )  # fmt: skip


def times() -> Iterator[Row]:
    """Time the filter on a large stack in memory, and a dragged threshold."""
    camera = Camera.ideal((1024, 1024), hot=0.0045)
    frames = np.tile(simulate_movie(50, camera=camera, seed=1).frames, (1, 4, 4))
    fitted = OutlierFilter.fit(frames)

    def correct() -> None:
        outliers = OutlierFilter.fit(frames)
        for index, frame in enumerate(frames):
            outliers(frame, index)

    def to_float() -> None:
        for frame in frames:
            frame.astype(np.float32)

    def drag() -> npt.NDArray[np.int8]:
        return fitted.with_thresholds(hot=4.0).mask

    ours, theirs = in_turns(correct, to_float)
    shape = " × ".join(map(str, frames.shape))
    yield Row(
        f"outliers: sum, fit and apply, {shape} uint8", "astype(float32) frame by frame",
        ours / theirs, "× the time", most=2.0,
    )  # fmt: skip
    (dragging,) = in_turns(drag)
    yield Row("outliers: another threshold, mask and counts", "-", 1e3 * dragging, "ms", most=16.0)
    yield Row(
        "outliers: memory of sum, fit and apply", "float32 frames",
        peak_nbytes(correct) / (4 * frames[0].size), "frames", most=6.0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
