"""Sessions in which KOMA fails, or would: simulated with numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from benchmarks.measure import Row
from benchmarks.regime_scenes import ice
from napari_mrcz.correction import KomaNormalization, correlated_noise
from napari_mrcz.errors import collected_warnings
from napari_mrcz.session import Koma

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["koma_rows"]

SHAPE = (192, 176)
SEEDS = range(3)
RADIUS, N_FRAMES, N_STACKS = 8, 20, 24

Image = npt.NDArray[Any]


def koma_rows() -> Iterator[Row]:
    """Measure KOMA with other doses, few stacks, an edge at one place, and mostly carbon."""
    yield from dose_rows()
    yield from few_rows()
    yield from edge_rows()
    yield from carbon_rows()


def camera(rng: np.random.Generator, strength: float = 0.05) -> Image:
    """Return a fixed pattern of pixels and columns."""
    pixels = rng.normal(0, strength, SHAPE) + rng.normal(0, strength / 3, (1, SHAPE[1]))
    return (1 + pixels).clip(0.1)


def session(
    rng: np.random.Generator, doses: Image, n_frames: Any = N_FRAMES, strength: float = 0.05,
    specimen: Callable[[], Image] | None = None,
) -> list[Image]:  # fmt: skip
    """Return stacks of counts, one per dose, on one camera."""
    pattern, lengths = camera(rng, strength), np.broadcast_to(n_frames, doses.shape)
    stacks = []
    for dose, n in zip(doses, lengths, strict=True):
        rate = dose * pattern * (1 if specimen is None else specimen())
        stacks.append(rng.poisson(rate, (n, *SHAPE)).astype(np.uint8))
    return stacks


def noise(stack: Image, correction: KomaNormalization) -> float:
    """Return R of corrected frames."""
    return correlated_noise(correction(frame, i) for i, frame in enumerate(stack))


def dose_rows() -> Iterator[Row]:
    """Change dose and number of frames within a session, in vacuum."""
    first = np.arange(N_STACKS) < N_STACKS // 2
    odd = np.arange(N_STACKS) % 2 == 1
    cases = {
        "dose 1, then 3": (np.where(first, 1.0, 3.0), N_FRAMES),
        "dose 1 and 3 in turn": (np.where(odd, 1.0, 3.0), N_FRAMES),
        "20 and 40 frames in turn": (np.ones(N_STACKS), np.where(odd, 20, 40)),
    }
    for name, (doses, n_frames) in cases.items():
        ours, unscaled = [], []
        for seed in SEEDS:
            stacks = session(np.random.default_rng(seed), doses, n_frames)
            koma = Koma(stacks, RADIUS)
            for i in range(0, N_STACKS, 3):
                limit = 1 / sum(len(stacks[j]) for j in koma.neighbours(i))
                ours.append(noise(stacks[i], koma[i]) / limit)
                mean = np.mean([stacks[j].mean(axis=0) for j in koma.neighbours(i)], axis=0)
                unscaled.append(noise(stacks[i], KomaNormalization(mean, 0.0)) / limit)
        against = f"1/(2 a n); as it was: {np.mean(unscaled):.2f}"
        yield Row(f"KOMA, {name}: R", against, float(np.mean(ours)), "×", most=1.3)


def few_rows() -> Iterator[Row]:
    """Normalise five movies of a good camera, whose averages are noisier than its pattern."""
    before, forced, ours, told = [], [], [], 0
    for seed in SEEDS:
        stacks = session(np.random.default_rng(seed), np.ones(5), 28, strength=0.025)
        with collected_warnings():
            koma, careful = Koma(stacks), Koma(stacks, even_if_worse=False)
            told += bool(koma.warnings)
            for i, stack in enumerate(stacks):
                before.append(correlated_noise(stack))
                forced.append(noise(stack, koma[i]))
                ours.append(noise(stack, careful[i]))
    against = f"before: {np.mean(before):.2g}; applied: {np.mean(forced):.2g}"
    worst = float(np.max(np.divide(ours, before)))
    said = f"{told} of {len(SEEDS)} warned"
    yield Row(f"KOMA, five movies ({said}): R", against, worst, "×", most=1)


def edge_rows() -> Iterator[Row]:
    """Look at a step of a quarter that is at the same place in every image."""
    step = np.where(np.arange(SHAPE[1]) < 0.4 * SHAPE[1], 0.75, 1.0) * np.ones(SHAPE)
    for length in (0, 32):
        errors, told = [], 0
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            doses = np.ones(N_STACKS)
            stacks = session(rng, doses, specimen=lambda rng=rng: step * ice(rng, SHAPE))
            koma = Koma(stacks, RADIUS, length=length)
            told += bool(koma.warnings)
            kept = koma[5](step) - step
            errors.append(uniform_filter(kept - kept.mean(), 5).std())
        said = f"{told} of {len(SEEDS)} warned"
        what = f"length {length} pixels" if length else "all subtracted"
        name = f"KOMA, a step of 0.25 in every image, {what} ({said}): error"
        bound = {"most": 0.025} if length else {}
        yield Row(name, f"{step.std():.3f}: it is gone", float(np.mean(errors)), "e⁻", **bound)


def carbon_rows() -> Iterator[Row]:
    """Count warnings where most micrographs, or none, show carbon."""
    for share in (0.0, 0.2, 0.6, 1.0):
        told = [_warns_of_carbon(seed, share) for seed in range(10)]
        bound = {"most": 0} if share < 0.5 else {"least": 1}
        name = f"KOMA, {share:.0%} of the session carbon: warned of"
        yield Row(name, f"{len(told)} sessions of 20", float(np.mean(told)), "of all", **bound)


def _warns_of_carbon(seed: int, share: float) -> bool:
    rng = np.random.default_rng(seed)
    bad: Collection[int] = set(rng.choice(20, round(20 * share), replace=False).tolist())
    stacks = []
    for i in range(20):
        specimen = ice(rng, SHAPE)
        if i in bad:
            y, x = np.indices(SHAPE)
            angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(-30, 30)
            film = np.cos(angle) * (x - 88) + np.sin(angle) * (y - 96) > place
            specimen = specimen * np.where(film, 0.7, 1.0)
        stacks.append(rng.poisson(20 * specimen, (2, *SHAPE)).astype(np.uint8))
    return any("high contrast" in said for said in Koma(stacks, 4).warnings)
