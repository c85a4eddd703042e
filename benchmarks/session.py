"""Gain, gamma, orientation, KOMA and decimation, against what is known of the simulated camera."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import napari_mrcz as nm
from benchmarks.measure import Row, in_turns
from napari_mrcz.correction import (
    ORIENTATIONS,
    GainNormalization,
    GammaCurve,
    decimate,
    find_orientation,
    fit_gamma,
    orient,
)
from napari_mrcz.correction.koma import contrast_scores, thumbnail
from napari_mrcz.correction.rolling import RollingAverage
from napari_mrcz.session import Koma
from napari_mrcz.simulation import (
    CARBON_EDGE,
    CRYSTALLINE_ICE,
    GAMMA_COEFFICIENTS,
    Camera,
    Movie,
    simulate_flats,
    simulate_movie,
    simulate_session,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOSE_RATES = np.geomspace(0.25, 9.0, 12)
RADII = (1, 2, 3, 4, 6, 8, 12, 18, 25)
N_STACKS = 60
N_FRAMES = 40

Frame = npt.NDArray[Any]


def rows() -> Iterator[Row]:
    """Measure gain, orientation, KOMA and decimation."""
    yield from gammas()
    yield from orientations()
    yield from koma_noise()
    yield from koma_exclusion()
    yield from koma_time()
    yield from decimation()
    yield from normalisation_time()


def gammas() -> Iterator[Row]:
    """Put gammas in and fit them from flats."""
    errors = []
    for gamma in (0.75, 0.85, 0.95, 1.0, 1.1):
        camera = Camera(gamma=gamma, seed=1)
        flat = simulate_flats([4.0], camera=camera, seed=1)[0].frames
        errors.append(abs(fit_gamma(flat, camera.gain_reference) - gamma))
    yield Row("gamma of a flat of 400 e⁻", "0.75 to 1.1 put in", max(errors), "off", most=0.01)
    _, curve = measured_gammas()
    found = [curve.a1, curve.b1, curve.a2, curve.a3]
    off = float(np.abs(np.divide(found, GAMMA_COEFFICIENTS) - 1).max())
    yield Row("eq. 11 from 12 dose rates", "coefficients put in", off, "off", most=0.05)


def measured_gammas(seed: int = 1) -> tuple[list[float], GammaCurve]:
    """Fit gamma to flats at twelve dose rates, and the curve to these."""
    camera = Camera(seed=seed)
    flats = simulate_flats(DOSE_RATES, camera=camera, electrons=1600, seed=seed)
    found = [fit_gamma(flat.frames, camera.gain_reference) for flat in flats]
    return found, GammaCurve.fit(DOSE_RATES, found)


def orientations(seeds: int = 20) -> Iterator[Row]:
    """Turn references every way, as factors and as reciprocals, and find out how."""
    inverse = {name: name for name in ORIENTATIONS} | {"rot90": "rot270", "rot270": "rot90"}
    right, margins = 0, []
    for seed in range(seeds):
        movie = simulate_movie(40, (256, 256), dose=0.5, seed=seed)
        gain = movie.camera.gain_reference
        flat = np.divide(1, gain, where=gain > 0, out=np.zeros_like(gain))
        for reciprocal, reference in ((False, gain), (True, flat)):
            for name in ORIENTATIONS:
                found = find_orientation(movie.frames, orient(reference, name))
                best = (found.best.orientation, found.best.reciprocal)
                right += best == (inverse[name], reciprocal)
                margins.append(found.margin)
    share = right / (16 * seeds)
    yield Row("orientations found, 40 × 0.5 e⁻, 256²", "16 ways, 20 seeds", share, "right", least=1)
    yield Row("margin of the right one", "the second", min(margins), "standard errors")


def koma_noise() -> Iterator[Row]:
    """Normalise by KOMA a session in vacuum whose outliers are filled by truth."""
    curve = noise_curves()["vacuum, outliers filled"]
    limit = 1 / (2 * np.array(RADII) * N_FRAMES)
    for radius in (4, 12, 25):
        over = (curve / limit)[RADII.index(radius)]
        yield Row(f"correlated noise, radius {radius}", "1/(2 a n)", over, "×", most=1.3)
    exponent = float(np.polyfit(np.log(RADII), np.log(curve), 1)[0])
    yield Row("its fall with the radius", "1/a", exponent, "exponent", least=-1.15, most=-0.85)


def noise_curves(shape: tuple[int, int] = (256, 256)) -> dict[str, npt.NDArray[np.float64]]:
    """Return R(a) of four sessions (fig. 12): vacuum and ice, with outliers and without."""
    curves = {}
    for name, specimen in (("vacuum", {"specimen": None}), ("ice", {})):
        session = simulate_session(N_STACKS, N_FRAMES, shape, seed=3, **specimen)
        for filled in (False, True):
            rng = np.random.default_rng(3)
            stacks = (frames_of(movie, rng, filled=filled) for movie in session.iter_movies())
            koma = Koma(stacks, exclude=())
            label = f"{name}, outliers {'filled' if filled else 'as they are'}"
            curves[label] = koma.noise_curve(RADII)
    return curves


def frames_of(movie: Movie, rng: np.random.Generator, *, filled: bool) -> Frame:
    """Return a movie's frames, its outliers drawn anew as good pixels would count."""
    frames = movie.frames
    if filled:
        bad = movie.defects.outliers
        frames = frames.copy()
        frames[:, bad] = rng.poisson(movie.rate[bad], (len(frames), np.count_nonzero(bad)))
    return frames


def koma_exclusion(seeds: int = 20) -> Iterator[Row]:
    """Find carbon and crystalline ice among good micrographs."""
    missed = alarms = bad_ones = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        bad = rng.choice(N_STACKS, 6, replace=False).tolist()
        kinds = {i: (CARBON_EDGE, CRYSTALLINE_ICE)[k % 2] for k, i in enumerate(bad)}
        session = simulate_session(N_STACKS, 1, (256, 256), exceptions=kinds, seed=seed)
        sums = (rng.poisson(N_FRAMES * movie.expected) for movie in session.iter_movies())
        _, scores = contrast_scores([thumbnail(total) for total in sums])
        found = set(np.flatnonzero(scores > 5).tolist())
        missed += len(set(bad) - found)
        alarms += len(found - set(bad))
        bad_ones += len(bad)
    yield Row("micrographs of high contrast missed", f"{bad_ones}", missed, "missed", most=0)
    yield Row("good micrographs left out", f"{seeds} sessions of 60", alarms, "left out", most=0)


def koma_time() -> Iterator[Row]:
    """Normalise one more stack, at a small and at a large radius."""
    rng = np.random.default_rng(0)
    few = [rng.poisson(40.0, (2048, 2048)).astype(np.uint16) for _ in range(4)]

    def walk(radius: int) -> Callable[[], Frame]:
        rolling = RollingAverage(lambda index: (few[index % 4], 40), range(400), radius)
        rolling.at(100)
        position = iter(range(101, 400))
        return lambda: rolling.at(next(position))

    small, large = in_turns(walk(4), walk(25), rounds=11)
    yield Row("KOMA, one more stack, radius 25", "radius 4", large / small, "×", most=1.15)


def decimation() -> Iterator[Row]:
    """Turn a float archive into integers and back."""
    movie = simulate_movie(20, (1024, 1024), seed=1)
    gain = GainNormalization(movie.camera.gain_reference)
    floats = np.stack([gain(frame) for frame in movie.frames])
    with tempfile.TemporaryDirectory(dir=os.environ.get("NAPARI_MRCZ_BENCH")) as folder:
        old, new = Path(folder, "float.mrc"), Path(folder, "counts.mrcz")
        nm.write(old, floats)
        with nm.open(old) as stack:
            nm.write(new, decimate(stack, gain))
        ratio = old.stat().st_size / new.stat().st_size
        with nm.open(new) as stack:
            same = np.array_equal(np.asarray(stack.apply(gain)), floats)
    yield Row("decimated, gain included", "MRC of float32", ratio, "× smaller", least=4)
    yield Row("and normalised again", "the float movie", float(same), "to the bit", least=1)


def normalisation_time() -> Iterator[Row]:
    """Normalise a frame, against making it float."""
    rng = np.random.default_rng(0)
    frame = rng.poisson(1.0, (4096, 4096)).astype(np.uint8)
    gain = GainNormalization(rng.uniform(0.9, 1.1, frame.shape), 0.9)
    ours, bare = in_turns(lambda: gain(frame, 0), lambda: frame.astype(np.float32), rounds=15)
    yield Row("gain normalisation, 4096²", "`astype(float32)`", ours / bare, "× the time")
