"""Pictures of README and docs/quality.md: a movie before and after, and corrections gone wrong."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from napari_mrcz.correction import GainNormalization, OutlierFilter, correlated_noise
from napari_mrcz.simulation import Camera, simulate_movie
from napari_mrcz.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

_SHAPE, _SHOWN = (512, 512), 288
_GREYS = 32


@cache
def _stacks() -> tuple[Stack, Stack, Stack]:
    """Return a movie as recorded, corrected, and with the gain reference upside down."""
    camera = Camera(_SHAPE, hot=0.006, hot_excess=(0.6, 4.0), etching=0.15, seed=4)
    movie = simulate_movie(60, camera=camera, dose=2.0, seed=4)
    raw = Stack.from_array(movie.frames)
    filtered = raw.apply(OutlierFilter.fit(raw))
    gain = camera.gain_reference
    right, wrong = (GainNormalization(g, filled=True) for g in (gain, gain[::-1]))
    return raw, filtered.apply(right), filtered.apply(wrong)


def before_after(path: Path) -> None:
    """Draw one frame, the sum as recorded and the sum corrected."""
    raw, clean, _ = _stacks()
    _draw(
        path,
        ("one frame", raw[20], None),
        (f"sum of {len(raw)} frames, as recorded", raw.sum(axis=0), correlated_noise(raw)),
        ("sum, corrected", clean.sum(axis=0), correlated_noise(clean)),
    )


def good_and_bad(path: Path) -> None:
    """Draw sums of a movie that was corrected rightly, and wrongly, with the noise R of each."""
    _, clean, flipped = _stacks()
    frames = np.asarray(clean)
    emptied = frames - frames.mean(axis=0) + frames.mean()
    _draw(
        path,
        ("good: corrected", clean.sum(axis=0), correlated_noise(clean)),
        ("bad: gain upside down", flipped.sum(axis=0), correlated_noise(flipped)),
        ("bad: own mean subtracted", emptied.sum(axis=0), correlated_noise(emptied)),
    )


def _draw(path: Path, *images: tuple[str, npt.NDArray[Any], float | None]) -> None:
    figure = Figure(figsize=(9, 3.5), layout="compressed")
    every: Sequence[Any] = figure.subplots(1, len(images))
    least, most = np.percentile(images[-2][1], (1, 99.5))
    for axes, (title, image, noise) in zip(every, images, strict=True):
        limits = np.percentile(image, (1, 99.5)) if noise is None else (least, most)
        part = image[:_SHOWN, :_SHOWN]
        axes.imshow(part, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower")
        axes.set_title(title + ("" if noise is None else f"\nR = {noise:.3f}"), fontsize="medium")
        axes.set_axis_off()
    figure.savefig(path, dpi=100, metadata={"Software": None})
    # Noise does not compress; so many greys are enough for it.
    Image.open(path).convert("L").quantize(_GREYS).save(path, optimize=True)
