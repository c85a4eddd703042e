"""Gain references where they may fail: few electrons, the wrong reference, none that is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Row
from napari_mrcz.correction import (
    ORIENTATIONS,
    GainNormalization,
    correlated_noise,
    estimate_gain,
    find_orientation,
    orient,
)
from napari_mrcz.errors import collected_warnings
from napari_mrcz.simulation import VITREOUS_ICE, Camera, Movie, simulate_movie

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["gain_rows"]

SEEDS = range(5)
SHAPE = (192, 256)
N_FRAMES = 20
INVERSE = {name: name for name in ORIENTATIONS} | {"rot90": "rot270", "rot270": "rot90"}

Image = npt.NDArray[Any]


def gain_rows() -> Iterator[Row]:
    """Measure which references are applied, which way round, and what that leaves."""
    for electrons in (1, 3, 10):
        yield from orientations(electrons)
    yield from refusals()
    yield from session_reference()


def orientations(electrons: float) -> Iterator[Row]:
    """Turn references each way: factors, reciprocals and super-resolution in turns."""
    right, helping, before, after = 0, 0, [], []
    for seed in SEEDS:
        movie = movie_of(electrons, seed)
        gain = movie.camera.gain_reference
        forms = (gain, _reciprocal(gain), gain.repeat(2, axis=0).repeat(2, axis=1))
        for number, name in enumerate(ORIENTATIONS):
            form = (number + seed) % len(forms)
            found = find_orientation(movie.frames, orient(forms[form], name))
            right += (found.best.orientation, found.best.reciprocal) == (INVERSE[name], form == 1)
            helping += found.helps
        good = ~movie.defects.outliers
        before.append(correlated_noise(movie.frames[:, good]))
        after.append(_noise_after(movie.frames, gain, good))
    many, n = f"of 8, {len(SEEDS)} seeds", len(SEEDS)
    what = f"gain, {electrons} e⁻/pixel in the sum"
    yield Row(f"{what}: orientations right", many, right / n, "of 8", least=8)
    yield Row(f"{what}: taken to help", many, helping / n, "of 8", least=7.5)
    fall = float(np.sum(after) / np.sum(before))
    yield Row(f"{what}: R after", f"R before: {np.mean(before):.2g}", fall, "×", most=1)


def refusals() -> Iterator[Row]:
    """Offer references to movies that they make worse, or do nothing to."""
    cases: dict[str, Callable[[Movie, int], tuple[Image, Image]]] = {
        "normalised already, floats": lambda movie, _: (_normalised(movie), _gain(movie)),
        "normalised already, rounded": lambda movie, _: (
            np.rint(100 * _normalised(movie)).astype(np.uint16),
            _gain(movie),
        ),
        "another camera's": lambda movie, seed: (
            movie.frames,
            Camera(SHAPE, seed=seed + 100).gain_reference,
        ),
        "noise": lambda movie, seed: (
            movie.frames,
            np.random.default_rng(seed).uniform(0.8, 1.25, SHAPE),
        ),
        "constant": lambda movie, _: (movie.frames, np.full(SHAPE, 1.5)),
    }
    for name, make in cases.items():
        refused = warned = n = 0
        ratios = []
        for electrons in (1, 10, 100):
            for seed in SEEDS:
                movie = movie_of(electrons, seed)
                frames, reference = make(movie, seed)
                found = find_orientation(frames, reference)
                refused += not found.helps
                warned += bool(found.warnings)
                n += 1
                if electrons > 1:
                    good = ~movie.defects.outliers
                    ratio = _noise_after(frames, reference, good) / correlated_noise(
                        frames[:, good]
                    )
                    ratios.append(ratio)
        against = f"{warned} of {n} warned; R would be × {np.median(ratios):.3g}"
        yield Row(f"gain, {name}: refused", against, refused, f"of {n}", least=n)


def session_reference() -> Iterator[Row]:
    """Make a reference of sums of one electron per pixel each."""
    for n_movies, least in ((10, None), (400, 1)):
        right, warned, ratios = 0, 0, []
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            response = np.exp(0.08 * rng.standard_normal(SHAPE))
            with collected_warnings() as said:
                reference = estimate_gain(rng.poisson(response) for _ in range(n_movies))
            frames = rng.poisson(np.broadcast_to(response, (N_FRAMES, *SHAPE)) / 2)
            found = find_orientation(frames, reference)
            right += found.helps and found.best.orientation == "identity"
            warned += bool(said)
            ratios.append(_noise_after(frames, reference) / correlated_noise(frames))
        what = f"gain, made of {n_movies} sums of 1 e⁻/pixel"
        n = len(SEEDS)
        if least:
            yield Row(
                f"{what}: found to help", f"{warned} of {n} warned", right, f"of {n}", least=n
            )
            yield Row(f"{what}: R after", "R before", float(np.median(ratios)), "×", most=0.6)
        else:
            against = f"R would be × {np.median(ratios):.3g}"
            yield Row(f"{what}: warned of", against, warned, f"of {n}", least=n)


def movie_of(electrons: float, seed: int) -> Movie:
    """Return a movie of ice with so many electrons per pixel in all."""
    camera = Camera(SHAPE, gamma=1.0, seed=seed)
    dose = electrons / N_FRAMES
    return simulate_movie(N_FRAMES, camera=camera, dose=dose, specimen=VITREOUS_ICE, seed=seed)


def _gain(movie: Movie) -> Image:
    return movie.camera.gain_reference


def _normalised(movie: Movie) -> Image:
    gain = GainNormalization(_gain(movie))
    return np.stack([gain(frame) for frame in movie.frames])


def _noise_after(frames: Image, reference: Image, good: Image | None = None) -> float:
    """Return the correlated noise of good pixels after applying a reference."""
    gain = GainNormalization(reference)
    good = np.ones(SHAPE, bool) if good is None else good
    return correlated_noise(gain(frame)[good] for frame in frames)


def _reciprocal(gain: Image) -> Image:
    return np.divide(1, gain, where=gain > 0, out=np.zeros_like(gain))
