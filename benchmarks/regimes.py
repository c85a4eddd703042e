"""Where corrections fail: movies unlike the usual ones, ours and other programs' rules.

Add a regime: for the outlier filter a scene in `regime_scenes.SCENES`; for another correction a
function that yields rows, in `REGIMES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.counting_regimes import counting_rows, truncation_rows
from benchmarks.gain_regimes import gain_rows
from benchmarks.koma_regimes import koma_rows
from benchmarks.measure import Row
from benchmarks.outlier_cases import PEERS, score
from benchmarks.regime_scenes import SCENES, Scene
from napari_mrcz.correction import OutlierFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEEDS = range(5)


def rows() -> Iterator[Row]:
    """Measure all regimes."""
    for regime in REGIMES:
        yield from regime()


def outlier_rows() -> Iterator[Row]:
    """Measure the outlier filter in each scene: what is found, and what is done to good pixels."""
    for name, make in SCENES.items():
        yield from scene_rows(name, make)


def scene_rows(name: str, make: Callable[[np.random.Generator], Scene]) -> Iterator[Row]:
    """Measure one scene, over `SEEDS`."""
    f1: dict[str, list[float]] = {}
    figures: dict[str, list[float]] = {}
    warned = 0
    for seed in SEEDS:
        scene = make(np.random.default_rng(seed))
        fitted = OutlierFilter.fit(scene.frames, **scene.options)
        warned += bool(fitted.warnings)
        known = scene.options.get("defects", np.zeros(scene.bad.shape, bool))
        mask = (fitted.mask != 0) & ~known
        f1.setdefault("ours", []).append(score(mask, scene.bad)[2])
        if scene.alone is not None:
            found = score(mask & (scene.alone | ~scene.bad), scene.alone)[2]
            figures.setdefault("alone", []).append(found)
        total = scene.frames.sum(axis=0, dtype=np.float64)
        for peer, rule in PEERS.items():
            f1.setdefault(peer, []).append(score(rule(total) & ~known, scene.bad)[2])
        figures.setdefault("false", []).append(np.count_nonzero(mask & ~scene.bad))
        figures.setdefault("expected", []).append(fitted.false_hot + fitted.false_dark)
        for figure, value in _of_good_pixels(scene, fitted).items():
            figures.setdefault(figure, []).append(value)
    said = f" ({warned} of {len(SEEDS)} warned)" if warned else ""
    mine = float(np.median(f1.pop("ours")))
    others = {peer: float(np.median(found)) for peer, found in f1.items()}
    # Of a few hundred outliers one or two decide.
    best = max(others.values())
    against = ", ".join(f"{peer} {found:.3f}" for peer, found in others.items())
    yield Row(f"{name}: outliers found{said}", against, mine, "F1", least=best - 0.005)
    false, expected = sum(figures["false"]), sum(figures["expected"])
    yield Row(
        f"{name}: good pixels taken for outliers", f"expected: {expected / len(SEEDS):.1f}",
        false / len(SEEDS), "pixels",
        least=max(0.0, (expected / 2 - 2 * expected**0.5 - 4) / len(SEEDS)),
        most=(2 * expected + 3 * expected**0.5 + 4) / len(SEEDS),
    )  # fmt: skip
    if "alone" in figures:
        alone = float(np.median(figures["alone"]))
        yield Row(f"{name}: without single pixels", "all of them", alone, "F1", least=0.98)
    if "kept" in figures:
        kept = float(np.median(figures["kept"]))
        yield Row(f"{name}: structure kept", "before", kept, "×", least=0.98)
    if "touched" in figures:
        touched = 100 * float(np.mean(figures["touched"]))
        yield Row(f"{name}: its pixels touched", "all of them", touched, "%", most=0.5)
    if "lowest" in figures:
        low, high = float(np.median(figures["lowest"])), float(np.median(figures["highest"]))
        yield Row(f"{name}: lowest fill", "good pixels of the frame", low, "×", least=0.95)
        yield Row(f"{name}: highest fill", "good pixels of the frame", high, "×", most=1.05)


def _of_good_pixels(scene: Scene, fitted: OutlierFilter) -> dict[str, float]:
    """Return what is measured of structure, edges and levels, where the scene has them."""
    found: dict[str, float] = {}
    if scene.structure is not None:
        good, shape = ~scene.bad, scene.structure
        before = scene.frames.sum(axis=0, dtype=np.float64)
        after = sum(fitted(f, i).astype(np.float64) for i, f in enumerate(scene.frames))
        # The part of the change that is like the structure.
        lost = ((before - after) * shape)[good].sum() / (shape**2)[good].sum()
        found["kept"] = 1 - float(lost)
    if scene.untouched is not None:
        found["touched"] = float((fitted.mask[scene.untouched] != 0).mean())
    if scene.levels is not None:
        put = fitted.replacement
        every = put.pixels[put.weights == 0]
        good = (fitted.mask == 0) & ~scene.bad
        fills = []
        for index, frame in enumerate(scene.frames):
            out = fitted(frame, index)
            level = float(out[good].mean())
            filled = float(out.reshape(-1)[every].mean())
            fills.append(filled / level if level else 1.0 + filled)
        found["lowest"], found["highest"] = min(fills), max(fills)
    return found


REGIMES: tuple[Callable[[], Iterator[Row]], ...] = (
    outlier_rows, koma_rows, gain_rows, counting_rows, truncation_rows,
)  # fmt: skip
"""Each yields the rows of one correction."""
