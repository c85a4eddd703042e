"""Print how each rule finds outliers, and the noise each way of replacing them leaves.

``python -m benchmarks.outlier_tables``: precision, recall and F1, medians over seeds, of every
rule in every kind of stack, and of the best that is possible; and the correlated noise.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
from scipy.special import gammainc

from benchmarks.outlier_cases import (
    CAMERAS,
    DOSES,
    WAYS,
    Case,
    detection,
    noise,
    ours,
    peers,
    score,
)
from napari_mrcz.simulation import VITREOUS_ICE

SEEDS = range(6)


def main() -> None:
    """Print the tables."""
    print_detection()
    print()
    print_noise()


def print_detection() -> None:
    """Print precision / recall / F1 of every rule on every kind of stack."""
    rules = {"poisson": ours, "normal": partial(ours, model="normal"), **peers(),
             "possible": possible}  # fmt: skip
    names = tuple(rules)
    print("| camera | specimen | frames × dose |", " | ".join(names), "|")
    print("|---|---|---|" + "---|" * len(names))
    for camera in CAMERAS:
        for specimen in (None, VITREOUS_ICE):
            for n_frames, dose in DOSES:
                scores = detection(camera, specimen, n_frames, dose, rules, SEEDS)
                shown = (" / ".join(f"{value:.3f}" for value in scores[name]) for name in names)
                what = "ice" if specimen else "vacuum"
                print(f"| {camera} | {what} | {n_frames} × {dose:g} e⁻ |", " | ".join(shown), "|")
                sys.stdout.flush()


def print_noise() -> None:
    """Print the correlated noise that each way of replacing outliers leaves."""
    names = tuple(WAYS)
    print("| camera | specimen | frames × dose: 10⁴ R |", " | ".join(names), "|")
    print("|---|---|---|" + "---|" * len(names))
    for camera in CAMERAS:
        for specimen in (None, VITREOUS_ICE):
            for n_frames, dose in DOSES:
                values = noise(camera, specimen, n_frames, dose, WAYS, SEEDS)
                shown = (f"{1e4 * values[name]:.2f}" for name in names)
                what = "ice" if specimen else "vacuum"
                print(f"| {camera} | {what} | {n_frames} × {dose:g} e⁻ |", " | ".join(shown), "|")
                sys.stdout.flush()


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


if __name__ == "__main__":
    main()
