"""Simulated stacks with known outliers; what rules find in them, and the noise that is left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.outlier_rules import local_median, motioncor3, relion
from napari_mrcz.correction import OutlierFilter, correlated_noise
from napari_mrcz.simulation import Camera, Movie, Specimen, simulate_movie

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SHAPE = (512, 512)
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
        """Return precision, recall and F1 of a mask."""
        return score(mask, self.movie.defects.outliers)


def score(mask: Mask, truth: Mask) -> tuple[float, float, float]:
    """Return precision, recall and F1 of a mask."""
    found = np.count_nonzero(mask & truth)
    precision = found / max(1, np.count_nonzero(mask))
    recall = found / max(1, np.count_nonzero(truth))
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def detection(
    camera: str,
    specimen: Specimen | None,
    n_frames: int,
    dose: float,
    rules: Mapping[str, Callable[[Case], tuple[float, float, float]]],
    seeds: Iterable[int],
) -> dict[str, Any]:
    """Return the median (precision, recall, F1) of each rule."""
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for seed in seeds:
        case = Case(camera, specimen, n_frames, dose, seed)
        for name, rule in rules.items():
            scores.setdefault(name, []).append(rule(case))
    return {name: np.median(found, axis=0) for name, found in scores.items()}


def ours(case: Case, model: str = "poisson") -> tuple[float, float, float]:
    """Score our own filter."""
    return case.score(case.fit(model=model).mask != 0)


def peers() -> dict[str, Callable[[Case], tuple[float, float, float]]]:
    """Return the others' rules, each to be scored on a case."""
    return {
        name: lambda case, rule=rule: case.score(rule(case.total)) for name, rule in PEERS.items()
    }


def noise(
    camera: str,
    specimen: Specimen | None,
    n_frames: int,
    dose: float,
    ways: Mapping[str, Callable[[Case], OutlierFilter | None]],
    seeds: Iterable[int],
) -> dict[str, float]:
    """Return the median correlated noise after each way of replacing outliers."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        case = Case(camera, specimen, n_frames, dose, seed)
        frames = case.movie.frames
        for name, way in ways.items():
            outliers = way(case)
            corrected = frames if outliers is None else map(outliers, frames, range(len(frames)))
            found.setdefault(name, []).append(correlated_noise(corrected))
    return {name: float(np.median(values)) for name, values in found.items()}


def oracle(case: Case) -> OutlierFilter:
    """Replace the outliers, which it knows, and nothing else."""
    return case.fit(defects=case.movie.defects.outliers).with_thresholds(-np.inf, np.inf)


WAYS: dict[str, Callable[[Case], OutlierFilter | None]] = {
    "before": lambda case: None,
    "oracle": oracle,
    "sample": Case.fit,
    "expectation": partial(Case.fit, fill="expectation"),
    "preprint": partial(Case.fit, fill="expectation", model="normal"),
}
