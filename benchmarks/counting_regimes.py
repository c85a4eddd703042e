"""Electron counting and truncated pixels where they fail: detectors unlike the ideal one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from benchmarks.counting import matched
from benchmarks.measure import Row
from napari_mrcz.correction import ElectronCounting, TruncationModel
from napari_mrcz.correction.counting.events import Events
from napari_mrcz.correction.noise import CountedAlready
from napari_mrcz.simulation import simulate_microed, simulate_raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.simulation import RawMovie

__all__ = ["counting_rows", "truncation_rows"]

SEEDS = range(3)
# What is simulated, and the least F1 that is asked for.
REGIMES: dict[str, tuple[dict[str, Any], float]] = {
    "an ideal detector": ({}, 0.98),
    "frames wander by 2 read noises": ({"frame_wander": 12.0}, 0.975),
    "rows wander by 2 read noises": ({"row_wander": 12.0}, 0.975),
    "columns wander by 2 read noises": ({"column_wander": 12.0}, 0.975),
    "0.5 % noisy and 0.2 % hot pixels": ({"noisy": 0.005, "hot": 0.002}, 0.975),
    "1 X-ray for 100 electrons": ({"x_rays": 2e-4}, 0.97),
    "read noise of 8 % of the charge": ({"noise": 16.0}, 0.905),
    "read noise of 11 % of the charge": ({"noise": 22.0}, 0.80),
    "spots of 0.3 pixel": ({"spread": 0.3}, 0.98),
    "0.05 e⁻/pix in a frame": ({"dose": 0.05}, 0.95),
}
_SHAPE, _N_FRAMES = (200, 216), 20
# The plain rule's threshold, in robust standard deviations of a pixel.
_SIGMAS = 5.0
_QUARTERS = 4


def counting_rows() -> Iterator[Row]:
    """Count in each regime, and by a plain rule: a threshold and the brightest of 3 × 3 pixels."""
    for name, (options, least) in REGIMES.items():
        ours, plain, warned = [], [], 0
        for seed in SEEDS:
            movie = simulate_raw(_N_FRAMES, _SHAPE, **options, seed=seed)
            counting = ElectronCounting.fit(movie.frames)
            warned += bool(counting.warnings)
            found = [counting.events(frame) for frame in movie.frames]
            ours.append(_scores(movie, found))
            plain.append(_scores(movie, _by_plain_rule(movie.frames)))
            if "spread" in options:
                yield _quarters(name, found)
        said = f" ({warned} of {len(SEEDS)} warned)" if warned else ""
        (recall, precision, f1), (_, _, theirs) = np.mean(ours, axis=0), np.mean(plain, axis=0)
        figures = f"recall {recall:.3f}, precision {precision:.3f}"
        yield Row(
            f"electrons, {name}{said}: {figures}",
            f"plain rule: {theirs:.3f}",
            f1,
            "F1",
            least=least,
        )
    counts = np.random.default_rng(0).poisson(0.5, (9, 256, 256)).astype(np.uint8)
    yield Row(
        "movie counted already", "", float(_is_refused(ElectronCounting, counts)), "refused", 1
    )


def truncation_rows() -> Iterator[Row]:
    """Refuse counted electrons at several doses, mask gaps, and take all else."""
    rng = np.random.default_rng(0)
    doses = (0.02, 0.1, 0.5, 2.0, 5.0)
    frames = [rng.poisson(dose, (4, 256, 256)).astype(np.uint8) for dose in doses]
    frames += [simulate_microed(3, (256, 256), counted=True, seed=s).frames for s in SEEDS]
    refused = float(np.mean([_is_refused(TruncationModel, f) for f in frames]))
    yield Row("counted diffraction, truncation", f"{len(frames)} sweeps", refused, "refused", 1)
    sweeps = [simulate_microed(3, (256, 256), seed=s).frames for s in range(10)]
    refused = float(np.mean([_is_refused(TruncationModel, f) for f in sweeps]))
    what = "truncated diffraction, truncation"
    yield Row(what, f"{len(sweeps)} sweeps", refused, "refused", most=0)
    hit, wrong = [], []
    for seed in SEEDS:
        sweep = simulate_microed(3, (256, 256), gaps=True, beam_stop=False, seed=seed)
        masked = TruncationModel.fit(sweep.frames).labels == 0
        hit.append(masked[sweep.shells == 0].mean())
        wrong.append(masked[sweep.shells > 0].mean())
    yield Row("gaps between modules: masked", "all of them", float(np.mean(hit)), "×", least=0.99)
    yield Row("other pixels: masked", "none", float(np.mean(wrong)), "×", most=0.001)


def _by_plain_rule(frames: npt.NDArray[Any]) -> list[Events]:
    """Take each pixel above a threshold that is the brightest of 3 × 3 for an electron."""
    apart = frames - np.median(frames, axis=0).astype(np.float32)
    noise = 1.4826 * np.median(np.abs(apart))
    found = []
    for frame in apart:
        y, x = np.nonzero((frame > _SIGMAS * noise) & (frame == maximum_filter(frame, 3)))
        found.append(Events(*(v.astype(np.float32) for v in (y, x, frame[y, x]))))
    return found


def _scores(movie: RawMovie, found: list[Events]) -> tuple[float, float, float]:
    """Return recall, precision and F1 of the events of all frames."""
    pairs = list(zip(movie.positions, found, strict=True))
    n_right = sum(len(matched(where, events)) for where, events in pairs)
    recall = n_right / sum(len(where) for where, _ in pairs)
    precision = n_right / max(sum(len(events) for _, events in pairs), 1)
    return recall, precision, 2 * recall * precision / max(recall + precision, 1e-9)


def _quarters(name: str, found: list[Events]) -> Row:
    """Compare how often electrons are in each quarter of a pixel."""
    inside = np.concatenate([(at + 0.5) % 1 for events in found for at in events[:2]])
    number, _ = np.histogram(inside, _QUARTERS, (0, 1))
    apart = float(np.abs(number / number.mean() - 1).max())
    return Row(f"electrons, {name}: in quarters of a pixel", "equal shares", apart, "off", most=0.1)


def _is_refused(kind: type[ElectronCounting | TruncationModel], frames: npt.NDArray[Any]) -> bool:
    try:
        kind.fit(frames)
    except CountedAlready:
        return True
    return False
