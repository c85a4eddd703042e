"""Truncated pixels of MicroED: what was put in comes back, and weak intensities lose their bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import chisquare

from benchmarks.measure import Row, in_turns
from napari_mrcz.correction import ShiftedLognormal, TruncationModel
from napari_mrcz.simulation import simulate_microed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.simulation import Spots

# Wide as at low resolution, and so narrow that its lower end is three counts.
DISTRIBUTIONS = (
    ShiftedLognormal(4.5, 0.6, -40.0),
    ShiftedLognormal(2.5, 0.5, -8.0),
    ShiftedLognormal(1.2, 0.6, -2.0),
)
WEAK = 100.0  # Counts: twice the error of the spots at the edge.
_PEAK, _BOX = 4.0, 6  # Pixels: radius of the peak, half the measurement box.

Values = npt.NDArray[np.float64]


def rows() -> Iterator[Row]:
    """Measure parameters, histograms, intensities, beam centre and time."""
    yield from parameters()
    yield from below_zero()
    yield from intensities()
    yield from centres()
    yield from times()


def drawn(truth: ShiftedLognormal, n_pixels: int, seed: int) -> npt.NDArray[np.int64]:
    """Return whole counts with a known distribution, those below zero cut off."""
    normal = np.random.default_rng(seed).standard_normal(n_pixels)
    values = truth.shift + np.exp(truth.mu + truth.sigma * normal)
    return np.floor(values + 0.5).clip(0).astype(np.int64)


def parameters(seeds: int = 5) -> Iterator[Row]:
    """Fit counts of an annulus of a camera of 2048² pixels."""
    errors = []
    for truth in DISTRIBUTIONS:
        for seed in range(seeds):
            found = ShiftedLognormal.fit(np.bincount(drawn(truth, 420_000, seed)))
            pairs = zip(_three(found), _three(truth), strict=True)
            errors += [abs(one / other - 1) for one, other in pairs]
    yield Row("μ, σ, shift of 420k counts cut off at 0", "put in", max(errors), "off", most=0.05)


def _three(found: ShiftedLognormal | None) -> tuple[float, float, float]:
    return (found.mu, found.sigma, found.shift) if found is not None else (np.nan,) * 3


def below_zero(seeds: int = 10) -> Iterator[Row]:
    """Compare histograms of redrawn values with the distribution that was put in.

    The fit is to fifty times the pixels that are compared: a fit to those alone errs by as much
    as their histogram does, which the test does not know.
    """
    passed = []
    for truth in DISTRIBUTIONS:
        for seed in range(seeds):
            frame = drawn(truth, 2_000_000, seed).reshape(1000, 2000).astype(np.uint16)
            model = TruncationModel.fit(frame, (500, 1000), 1, seed=seed)
            corrected = model(frame, 0)[::50]
            values = np.arange(np.floor(truth.quantile(2e-3)), 1)
            edges = np.concatenate([[-np.inf], values[:-1] + 0.5, [0.5]])
            observed = np.histogram(corrected[corrected <= 0], edges)[0]
            expected = np.diff(truth.cdf(edges))
            test = chisquare(observed, expected * observed.sum() / expected.sum())
            passed.append(test.pvalue > 0.01)
    share = float(np.mean(passed))
    yield Row("histograms below zero, χ² at 1 %", f"{len(passed)} put in", share, "pass", least=0.9)


class Integrated(NamedTuple):
    """Integrated intensities of a sweep's spots, in counts.

    Attributes
    ----------
    resolution
        Distance from the beam, as a share of the largest one.
    true
        What was put in.
    recorded, corrected, whole
        Of the frames as the camera gave them, after the correction, and before zero cut them off.
    """

    resolution: Values
    true: Values
    recorded: Values
    corrected: Values
    whole: Values


def integrated(n_frames: int = 40, seed: int = 1) -> Integrated:
    """Integrate a sweep three times."""
    sweep = simulate_microed(n_frames, (512, 512), n_shells=100, seed=seed)
    model = TruncationModel.fit(sweep.frames, mask=sweep.beam_stop)
    corrected = np.stack([model(frame, i) for i, frame in enumerate(sweep.frames)])
    lit = _boxes(np.broadcast_to(~sweep.beam_stop, sweep.frames.shape), sweep.spots).all(axis=1)
    away = np.hypot(sweep.spots.y - sweep.center[0], sweep.spots.x - sweep.center[1])
    three = (integrate(f, sweep.spots) for f in (sweep.frames, corrected, sweep.true_counts))
    every = (away / away.max(), sweep.spots.intensity, *three)
    return Integrated(*(values[lit] for values in every))


def integrate(frames: npt.NDArray[Any], spots: Spots) -> Values:
    """Sum each spot's peak above the mean of what surrounds it, in a box of 13 × 13 pixels."""
    boxes = _boxes(frames, spots).astype(np.float64)
    offsets = np.indices((2 * _BOX + 1,) * 2).reshape(2, -1) - _BOX
    radius = np.hypot(*offsets)
    peak = radius <= _PEAK
    background = boxes[:, radius > _PEAK + 1].mean(axis=1)
    return boxes[:, peak].sum(axis=1) - peak.sum() * background


def _boxes(frames: npt.NDArray[Any], spots: Spots) -> npt.NDArray[Any]:
    """Return the pixels about each spot, (spots, 169)."""
    dy, dx = np.indices((2 * _BOX + 1,) * 2).reshape(2, -1) - _BOX
    y, x = np.rint(spots.y).astype(int), np.rint(spots.x).astype(int)
    return frames[spots.frame[:, None], y[:, None] + dy, x[:, None] + dx]


def intensities() -> Iterator[Row]:
    """Compare weak integrated intensities with those of the same frames, never cut off.

    These are what was put in, but for the noise of the electrons, which all three share.
    """
    found = integrated()
    weak = (found.true < WEAK) & (found.resolution > 0.5)
    true, whole = found.true[weak], found.whole[weak]
    for name, values in (("as recorded", found.recorded), ("corrected", found.corrected)):
        bias = float((values[weak] - whole).mean() / true.mean())
        noise = float((values[weak] - true).std() / (whole - true).std())
        low, high = (-0.05, 0.05) if name == "corrected" else (None, None)
        yield Row(f"weak intensities, {name}: bias", "never cut off", bias, "off", low, high)
        low, high = (0.97, 1.03) if name == "corrected" else (None, None)
        yield Row(f"their noise, {name}", "never cut off", noise, "×", low, high)


def centres(seeds: int = 10) -> Iterator[Row]:
    """Find the beam behind its stop, which is not masked."""
    errors = []
    for seed in range(seeds):
        sweep = simulate_microed(2, (512, 512), seed=seed)
        found = TruncationModel.fit(sweep.frames[:1]).center
        errors.append(np.hypot(*np.subtract(found or np.nan, sweep.center)))
    yield Row(
        "beam centre, one frame of 512²", f"{seeds} put in", max(errors), "pixels off", most=4
    )


def times() -> Iterator[Row]:
    """Correct a frame, against making it signed."""
    frame = simulate_microed(1, (2048, 2048), seed=1).frames[0]
    model = TruncationModel.fit(frame)
    ours, bare = in_turns(lambda: model(frame, 0), lambda: frame.astype(np.int16), rounds=5)
    yield Row("redrawing 30 % of a frame, 2048²", "`astype(int16)`", ours / bare, "× the time")
