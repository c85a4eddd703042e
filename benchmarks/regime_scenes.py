"""Movies in which corrections fail, simulated with numpy alone: independent of the package's own.

A scene is a rate per pixel and frame, with defects that are known; frames are Poisson draws of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCENES", "Scene"]

SHAPE = (384, 320)

Image = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A movie, and what is true of it.

    Attributes
    ----------
    frames : ndarray, shape (n, y, x)
        Counts.
    bad : ndarray of bool, shape (y, x)
        Outliers.
    alone : ndarray of bool, shape (y, x), optional
        Those of them that the regime is about, which are scored without the others too.
    structure : ndarray, shape (y, x), optional
        What the specimen adds to the sum of the frames, and should stay.
    untouched : ndarray of bool, shape (y, x), optional
        Good pixels of beads, edges and the like.
    levels : ndarray, shape (n,), optional
        Mean counts of each frame's good pixels, if what is filled in is measured.
    options : dict
        For `OutlierFilter.fit`.
    """

    frames: Image
    bad: Mask
    alone: Mask | None = None
    structure: Image | None = None
    untouched: Mask | None = None
    levels: Image | None = None
    options: dict[str, Any] = field(default_factory=dict)


def ice(rng: np.random.Generator, shape: tuple[int, int] = SHAPE, contrast: float = 0.04) -> Image:
    """Return the relative rate of a specimen in ice, 1 on average."""
    noise = gaussian_filter(rng.normal(size=shape), 6)
    return 1 + contrast * noise / noise.std()


def hot_pixels(
    rng: np.random.Generator,
    shape: tuple[int, int] = SHAPE,
    share: float = 0.003,
    excess: tuple[float, float] = (0.6, 3.0),
) -> Image:
    """Return the relative excess rate of single hot pixels, 0 elsewhere."""
    hot = rng.random(shape) < share
    return np.where(hot, rng.uniform(*excess, shape), 0)


def draw(rng: np.random.Generator, rate: Image, n: int, dtype: Any = np.uint16) -> Image:
    """Return n frames of counts of a constant rate."""
    return rng.poisson(rate, (n, *rate.shape)).astype(dtype)


def single(
    rng: np.random.Generator, n: int = 40, dose: float = 1.0, shape: tuple[int, int] = SHAPE,
    dtype: Any = np.uint16, dead: float = 5e-4,
) -> Scene:  # fmt: skip
    """Return single hot and dead pixels on ice."""
    excess = hot_pixels(rng, shape)
    stuck = (rng.random(shape) < dead) & (excess == 0)
    rate = dose * (ice(rng, shape) + excess) * ~stuck
    return Scene(draw(rng, rate, n, dtype), (excess > 0) | stuck)


def clusters(rng: np.random.Generator, n: int = 40, dose: float = 1.0) -> Scene:
    """Return dead and hot squares of 2 to 5 pixels, and lines of 1 to 3."""
    rate, bad = ice(rng), np.zeros(SHAPE, bool)
    places = [(20 + 40 * i, 20 + 40 * j) for i in range(9) for j in range(7)]
    rng.shuffle(places)
    for index, (y, x) in enumerate(places[:40]):
        side, is_hot = 2 + index % 4, index % 8 < 4
        where = np.s_[y : y + side, x : x + side]
        rate[where] = rate[where] * rng.uniform(2.5, 5) if is_hot else 0
        bad[where] = True
    for width, at in zip((1, 2, 3), rng.choice(np.arange(5, 300, 12), 3, False), strict=True):
        rate[:, at : at + width], bad[:, at : at + width] = 0, True
    for width, at in zip((1, 2), rng.choice(np.arange(5, 370, 12), 2, False), strict=True):
        where = np.s_[at : at + width, 40:280]
        rate[where], bad[where] = 3 * rate[where], True
    excess = hot_pixels(rng)
    return Scene(draw(rng, dose * (rate + excess * ~bad), n), bad | (excess > 0), alone=bad)


def weak_lines(rng: np.random.Generator, excess: float, n: int = 40, dose: float = 1.0) -> Scene:
    """Return rows and columns that count a little more, or less, than those beside them."""
    lines = np.zeros(SHAPE, bool)
    for width, at in zip((1, 2, 3), rng.choice(np.arange(5, 300, 12), 3, False), strict=True):
        lines[:, at : at + width] = True
    lines[rng.integers(5, 370)] = True
    pixels = hot_pixels(rng) * ~lines
    rate = dose * (ice(rng) * (1 + excess * lines) + pixels)
    return Scene(draw(rng, rate, n), lines | (pixels > 0))


def beads(rng: np.random.Generator, side: int, n: int = 30, dose: float = 4.0) -> Scene:
    """Return round dark beads of a width in pixels."""
    rate, excess = ice(rng), hot_pixels(rng)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = np.zeros(SHAPE, bool)
    for row, column in zip(rng.uniform(0, SHAPE[0], 40), rng.uniform(0, SHAPE[1], 40), strict=True):
        inside |= np.hypot(y - row, x - column) <= side / 2
    rate[inside] *= rng.uniform(0.1, 0.3)
    return Scene(draw(rng, dose * (rate + excess), n), excess > 0, untouched=inside & (excess == 0))


def edge(rng: np.random.Generator, dark: float, n: int = 30, dose: float = 4.0) -> Scene:
    """Return a round aperture, or the edge of carbon, beyond which the rate falls to a part."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(y - rng.uniform(150, 230), x - rng.uniform(120, 200)) - 140
    outside = distance > 0
    excess = hot_pixels(rng) * (not dark or 1) * ~(outside & (dark < 0.1))
    rate = np.where(outside, dark, 1.0) * ice(rng) + excess
    near = (np.abs(distance) < 4) & (excess == 0)
    return Scene(draw(rng, dose * rate, n), excess > 0, untouched=near)


def fringes(rng: np.random.Generator, amplitude: float, n: int = 30, dose: float = 4.0) -> Scene:
    """Return lattice fringes of two directions."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    wave = np.zeros(SHAPE)
    for _ in range(2):
        angle, spacing = rng.uniform(0, np.pi), rng.uniform(2.5, 5)
        phase = 2 * np.pi * (y * np.sin(angle) + x * np.cos(angle)) / spacing
        wave += amplitude / 2 * np.cos(phase + rng.uniform(0, 6))
    excess = hot_pixels(rng)
    rate = dose * (ice(rng) * (1 + wave) + excess)
    return Scene(draw(rng, rate, n), excess > 0, structure=n * dose * wave)


def sweep(rng: np.random.Generator, n: int = 30) -> Scene:
    """Return a diffraction sweep: Bragg spots that shine up for a few frames."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    background = 0.5 + 8 * np.exp(-np.hypot(y - 190, x - 160) / 40)
    excess = hot_pixels(rng, share=0.002, excess=(1, 6))
    spots = np.zeros((n, *SHAPE))
    for _ in range(150):
        at, row, column = rng.uniform(0, n), rng.uniform(8, 376), rng.uniform(8, 312)
        width = rng.uniform(0.8, 1.5)
        top, left = max(0, int(row) - 8), max(0, int(column) - 8)
        window = np.s_[top : top + 17, left : left + 17]
        profile = np.exp(-((y[window] - row) ** 2 + (x[window] - column) ** 2) / (2 * width**2))
        profile /= 2 * np.pi * width**2
        part = np.exp(-(((np.arange(n) - at) / rng.uniform(0.6, 1.5)) ** 2))
        spots[(slice(None), *window)] += rng.exponential(300) * part[:, None, None] * profile
    frames = rng.poisson(background + excess + spots).astype(np.uint16)
    return Scene(frames, excess > 0, structure=spots.sum(axis=0))


def bad_frames(rng: np.random.Generator, kind: str) -> Scene:
    """Return a movie two frames of which are blank, saturated or a flash."""
    scene = single(rng, 30, 2.0)
    frames = scene.frames.copy()
    for index in rng.choice(30, 2, False):
        frames[index] = {
            "blank": np.zeros(SHAPE),
            "saturated": np.full(SHAPE, 65535),
            "flash": rng.poisson(20.0, SHAPE),
        }[kind]
    return Scene(frames, scene.bad)


def pedestal(rng: np.random.Generator, counts: float, offset: float, noise: float) -> Scene:
    """Return what an integrating camera counts."""
    scene = single(rng, 40, 2.0)
    frames = counts * scene.frames + offset + rng.normal(0, noise, scene.frames.shape)
    return Scene(np.rint(frames).astype(np.uint16), scene.bad)


def changing(rng: np.random.Generator, doses: Image) -> Scene:
    """Return a movie whose frames differ in dose; levels are measured."""
    excess = hot_pixels(rng, share=0.01, excess=(2.0, 4.0))
    rate, defects = ice(rng) + excess, np.zeros(SHAPE, bool)
    defects[:, 100:104] = True
    defects[rng.random(SHAPE) < 0.005] = True
    frames = rng.poisson(doses[:, None, None] * np.where(defects, 20.0, rate)).astype(np.uint16)
    return Scene(frames, excess * ~defects > 0, levels=doses, options={"defects": defects})


SCENES: dict[str, Callable[[np.random.Generator], Scene]] = {
    "single pixels, 40 × 0.25 e⁻": lambda rng: single(rng, 40, 0.25),
    "single pixels, 40 × 1 e⁻": single,
    "single pixels, 3 × 10 e⁻, float32": lambda rng: single(rng, 3, 10.0, dtype=np.float32),
    "single pixels, 2 × 20 e⁻, 200 × 700": lambda rng: single(rng, 2, 20.0, (200, 700)),
    "clusters and lines, 40 × 0.25 e⁻": lambda rng: clusters(rng, 40, 0.25),
    "clusters and lines, 40 × 1 e⁻": clusters,
    "clusters and lines, 40 × 4 e⁻": lambda rng: clusters(rng, 40, 4.0),
    "lines of 1.3 times the rate, 40 × 1 e⁻": lambda rng: weak_lines(rng, 0.3),
    "lines of 0.8 times the rate, 40 × 4 e⁻": lambda rng: weak_lines(rng, -0.2, dose=4.0),
    "beads of 10 pixels": lambda rng: beads(rng, 10),
    "beads of 5 pixels": lambda rng: beads(rng, 5),
    "beads of 3 pixels": lambda rng: beads(rng, 3),
    "aperture": lambda rng: edge(rng, 0.0),
    "leaky aperture": lambda rng: edge(rng, 0.02),
    "carbon edge": lambda rng: edge(rng, 0.65),
    "fringes of 10 %": lambda rng: fringes(rng, 0.1),
    "fringes of 20 %": lambda rng: fringes(rng, 0.2),
    "diffraction sweep": sweep,
    "two blank frames": lambda rng: bad_frames(rng, "blank"),
    "two saturated frames": lambda rng: bad_frames(rng, "saturated"),
    "two frames of ten times the dose": lambda rng: bad_frames(rng, "flash"),
    "pedestal of 1000": lambda rng: pedestal(rng, 1, 1000, 0),
    "pedestal of 200, 30 counts per electron": lambda rng: pedestal(rng, 30, 200, 5),
    "dose falling from 3 to 0.5 e⁻": lambda rng: changing(rng, np.linspace(3, 0.5, 12)),
    "tilt series": lambda rng: changing(rng, 2 * np.cos(np.linspace(-1.1, 1.1, 12))),
    "blank frames, known defects": lambda rng: changing(rng, np.repeat([0, 1.5, 0, 2], 4)),
}
