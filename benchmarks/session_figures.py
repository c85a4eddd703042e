"""Figures 9, 11 and 12 of the preprint (doi:10.1101/116533), drawn from the simulated camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import curve_fit

from benchmarks.drawing import panels, save
from benchmarks.session import DOSE_RATES, N_FRAMES, N_STACKS, RADII, frames_of, measured_gammas
from napari_mrcz.correction import GainNormalization
from napari_mrcz.correction.outliers import OutlierFilter
from napari_mrcz.session import Koma, Session
from napari_mrcz.session.report import correlation_with, cumulative_dose
from napari_mrcz.simulation import GAMMA_COEFFICIENTS, Camera, simulate_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_mrcz.stack import Stack

SHAPE = (384, 384)
_SPECIMENS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("tab:blue", "vacuum", {"specimen": None}),
    ("tab:orange", "ice", {}),
)


def figure_9(path: Path) -> None:
    """Draw gamma by dose rate: measured on flats, fitted with eq. 11, and what was put in."""
    gammas, curve = measured_gammas()
    figure, axes = panels(("dose rate / e⁻ pixel⁻¹ s⁻¹", "γ"))
    fine = np.linspace(DOSE_RATES[0], DOSE_RATES[-1], 400)
    a1, b1, a2, a3 = GAMMA_COEFFICIENTS
    axes.plot(fine, a1 * fine**b1 + a2 * fine + a3, color="0.75", lw=6, label="put in")
    axes.plot(fine, [curve(rate) for rate in fine], color="tab:green", label="eq. 11, fitted")
    axes.plot(DOSE_RATES, gammas, "x", color="black", ms=7, label="flats, eq. 10")
    save(figure, path, axes)


def figure_11(path: Path) -> None:
    """Draw the correlation of each stack's sum with the first one's, by the dose between them.

    The simulated hot pixels live for 20 stacks on average, so R falls exponentially, where the
    preprint's, of many lifetimes, falls with a power.
    """
    figure, axes = panels(("cumulative dose / e⁻ pixel⁻¹", "R with the first sum"))
    for color, name, specimen in _SPECIMENS:
        # Without the few very hot ones, a single one of which would be all there is to see.
        camera = Camera(SHAPE, very_hot=0, seed=5)
        session = simulate_session(
            120, 20, camera=camera, dose=5.0, lifetime=20, seed=5, **specimen
        )
        gain = GainNormalization(session.template.camera.gain_reference, session.template.gamma)
        movies = (movie.frames for movie in session.iter_movies())
        stacks = Session(movies, prepare=_applying(gain))
        dose, r = cumulative_dose(stacks)[1:], correlation_with(stacks)[1:]
        axes.plot(dose, r, ".", color=color, label=f"{name}, gain-normalised")
        if not specimen:
            continue
        (scale, length, level), _ = curve_fit(_decay, dose, r, p0=(r[0], dose[30], 0.0))
        label = f"{scale:.3f} exp(-d/{length:.0f}) {level:+.3f}"
        axes.plot(dose, _decay(dose, scale, length, level), color="goldenrod", label=label)
    save(figure, path, axes)


def figure_12(path: Path) -> None:
    """Draw the correlated noise after KOMA by its radius, with and without the outlier filter."""
    names = ("KOMA radius a / stacks", "mean pairwise R within a stack")
    figure, axes = panels(names, size=(7, 5))
    radii = np.array(RADII)
    for color, name, specimen in _SPECIMENS:
        session = simulate_session(N_STACKS, N_FRAMES, SHAPE, seed=3, **specimen)
        rng = np.random.default_rng(3)
        for prepare, style, label in ((None, "o--", name),
                                      (_filtered, "s-", f"{name}, outliers filtered")):  # fmt: skip
            frames = (frames_of(movie, rng, filled=False) for movie in session.iter_movies())
            koma = Koma(Session(frames, prepare=prepare), exclude=())
            r = koma.noise_curve(RADII)
            found, _ = curve_fit(_power, radii, r, p0=(r[0], -1.0, r[-1]), maxfev=20_000)
            label += f": {found[0]:.4f} a^{found[1]:.2f} {found[2]:+.5f}"
            axes.plot(radii, r, style, color=color, label=label, ms=4)
            before = koma.noise_curve([0])[0]
            axes.axhline(before, color=color, ls=":" if prepare else "-.", lw=1)
    axes.plot(radii, 1 / (2 * radii * N_FRAMES), color="black", lw=1, label="limit 1/(2 a n)")
    for style, label in (("-.", "without KOMA"), (":", "without KOMA, outliers filtered")):
        axes.plot([], [], style, color="black", lw=1, label=label)
    axes.set(xscale="log", yscale="log", ylim=(1e-4, None))
    axes.set_xticks(RADII, map(str, RADII))
    axes.minorticks_off()
    save(figure, path, axes)


def _applying(correction: GainNormalization) -> Callable[[Stack], Stack]:
    return lambda stack: stack.apply(correction)


def _filtered(stack: Stack) -> Stack:
    return stack.apply(OutlierFilter.fit(stack))


def _power(x: Any, scale: float, exponent: float, level: float) -> Any:
    return scale * np.asarray(x, np.float64) ** exponent + level


def _decay(x: Any, scale: float, length: float, level: float) -> Any:
    return scale * np.exp(-np.asarray(x) / length) + level
