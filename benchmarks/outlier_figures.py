"""Figures 5, 6 and 7 of the preprint (doi:10.1101/116533), drawn from the simulated camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Circle
from scipy.ndimage import gaussian_filter

from benchmarks.drawing import panels, save
from napari_mrcz.correction import OutlierFilter, correlated_noise
from napari_mrcz.session import Session
from napari_mrcz.session.report import count_outliers, cumulative_dose
from napari_mrcz.simulation import Camera, Movie, simulate_movie, simulate_session

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

SHAPE = (512, 512)


def figure_5(path: Path) -> None:
    """Draw the cumulative histogram against the model, and the residual that gives thresholds.

    Both models of the same stack of 120 e⁻ per pixel: the preprint's and ours.
    """
    camera = Camera((1024, 1024), seed=2)
    movie = simulate_movie(100, camera=camera, dose=1.2, dtype=np.uint16, seed=2)
    axis = "distance from the centre / σ"
    figure, cumulative, normal, poisson = panels(
        (axis, "cumulative histogram / σ"), (axis, "residual / σ"), (axis, "residual / σ"),
        size=(11, 3.8),
    )  # fmt: skip
    for axes, model, title, color in (
        (normal, "normal", "the preprint's model", "tab:green"),
        (poisson, "poisson", "Poisson, neighbours", "tab:blue"),
    ):
        outliers = OutlierFilter.fit(movie.frames, gain=camera.gain_reference, model=model)
        fit = outliers.distribution
        cumulative.plot(fit.sigma, fit.sigma_of_histogram, color=color, label=title)
        axes.set_title(title, fontsize="medium")
        _draw_residual(axes, outliers)
    cumulative.plot([-8, 10], [-8, 10], "--", color="0.5", label="model")
    cumulative.set(xlim=(-8, 10), ylim=(-6, 6))
    save(figure, path, cumulative, normal)


def _draw_residual(axes: Axes, outliers: OutlierFilter) -> None:
    fit = outliers.distribution
    axes.plot(fit.sigma, fit.residual, color="tab:orange", label="residual")
    fine = np.linspace(-8, 10, 500)
    axes.plot(fine, outliers.weight(fine), color="tab:purple", label="weight")
    for number, tail in enumerate((outliers.dark_tail, outliers.hot_tail)):
        if tail is not None:
            ends = np.array([tail.intercept, tail.sigma[number and 1]])
            label = "line through a tail" if number else None
            axes.plot(ends, tail.slope * ends + tail.offset, "--", color="black", label=label)
    for threshold in outliers.thresholds[:2]:
        axes.axvline(threshold, color="0.6", lw=1)
        axes.annotate(f"{threshold:.2f}", (threshold, -3.4), rotation=90, ha="right", fontsize=8)
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.set(xlim=(-8, 10), ylim=(-6, 3))


def figure_6(path: Path) -> None:
    """Draw a patch of an ice image before and after the filter."""
    camera = Camera(SHAPE, hot=0.006, hot_excess=(0.6, 4.0), clustered=0.25, seed=4)
    movie = simulate_movie(60, camera=camera, dose=0.6, dtype=np.uint16, seed=4)
    gain, patch = camera.gain_reference, np.s_[100:300, 60:260]
    outliers = OutlierFilter.fit(movie.frames, gain=gain)
    # Dead pixels have a gain of 0; what they are filled with needs none.
    gain = np.where(gain > 0, gain, 1)
    after = sum(outliers(frame, i).astype(float) for i, frame in enumerate(movie.frames)) * gain
    before = movie.frames.sum(axis=0) * gain
    names = ("x / pixels", "y / pixels")
    figure, left, right = panels(names, names, size=(9, 4.4), sharey=True)
    figure.set_layout_engine("compressed")
    # White is what a particle never is.
    black, white = after[patch].min(), after[patch].max()
    for axes, image, title in ((left, before, "as it came"), (right, after, "outliers filtered")):
        shown = axes.imshow(
            image[patch], cmap="gray", vmin=black, vmax=white, interpolation="nearest"
        )
        axes.set_title(title, fontsize="medium")
    arrow = {"arrowstyle": "->", "color": "gold", "lw": 1.5}
    for y, x in _clusters(movie, patch)[:6]:
        left.annotate("", (x + 1, y - 1), (x + 17, y - 17), arrowprops=arrow)
    diameter = movie.specimen.diameter / movie.pixel_size
    y, x = _clearest_particle(movie, patch, diameter)
    for axes in (left, right):
        axes.add_patch(Circle((x, y), diameter / 2, ec="tab:cyan", fc="none", lw=1.5))
    figure.colorbar(shown, ax=[left, right], label="electrons per pixel")
    save(figure, path)


def _clusters(movie: Movie, patch: Any) -> list[tuple[int, int]]:
    """Return pixels (y, x) of the patch where several hot pixels touch, the strongest first."""
    strength = np.where(movie.defects.clusters & movie.defects.hot, movie.expected, 0)[patch]
    found: list[tuple[int, int]] = []
    for index in np.argsort(strength, axis=None)[::-1]:
        y, x = map(int, np.unravel_index(index, strength.shape))
        apart = all((y - v) ** 2 + (x - u) ** 2 > 400 for v, u in found)
        if strength[y, x] > 0 and apart and y > 20 and x < strength.shape[1] - 20:
            found.append((y, x))
    return found


def _clearest_particle(movie: Movie, patch: Any, diameter: float) -> tuple[int, int]:
    """Return the place (y, x) in the patch where the rate varies most within a particle's size."""
    contrast = (movie.rate * movie.camera.gain_reference - movie.dose) ** 2
    strength = gaussian_filter(contrast, diameter / 4)[patch]
    margin = round(diameter / 2) + 2
    inside = strength[margin:-margin, margin:-margin]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return int(y) + margin, int(x) + margin


def figure_7(path: Path) -> None:
    """Draw the share of outliers by the dose so far, and the noise that the filter takes away."""
    dose = "cumulative dose / e⁻ pixel⁻¹"
    figure, ageing, mature, noise = panels(
        (dose, "outlier pixels / %"), (dose, "outlier pixels / %"),
        (dose, "mean pairwise R within a stack"), size=(11, 3.6),
    )  # fmt: skip
    fresh = simulate_session(80, 20, SHAPE, dose=6.0, lifetime=40, seed=6, dtype=np.uint16)
    _draw_shares(ageing, fresh)
    ageing.set_title("after annealing", fontsize="medium")
    # A single very hot pixel would be all the noise of so small a camera.
    camera = Camera(SHAPE, very_hot=0, super_resolution=2, seed=7)
    old = simulate_session(
        30, 40, camera=camera, dose=0.525, dose_rate=7.0, hot=(0.005, 0.005), lifetime=40,
        seed=7, dtype=np.uint16,
    )  # fmt: skip
    _draw_shares(mature, old)
    mature.set_title("aged, super-resolution", fontsize="medium")
    gain = old.template.camera.gain_reference
    before, after = [], []
    for movie in old.iter_movies():
        frames = movie.frames
        outliers = OutlierFilter.fit(frames, gain=gain)
        before.append(correlated_noise(frames * gain))
        after.append(correlated_noise(outliers(f, i) * gain for i, f in enumerate(frames)))
    noise.plot(old.cumulative_dose, before, "o", ms=4, color="tab:red", label="as it came")
    noise.plot(old.cumulative_dose, after, "s", ms=4, color="tab:blue", label="outliers filtered")
    noise.set_title("the same", fontsize="medium")
    noise.set_ylim(0, 1.35 * max(before))
    save(figure, path, ageing, mature, noise)


def _draw_shares(axes: Axes, simulated: Any) -> None:
    gain = simulated.template.camera.gain_reference
    session = Session(movie.frames for movie in simulated.iter_movies())
    census = count_outliers(session, lambda stack: OutlierFilter.fit(stack, gain=gain))
    dose = cumulative_dose(session)
    share = 100 / gain.size
    true = simulated.n_hot * simulated.template.camera.super_resolution**2
    axes.plot(dose, share * true, color="0.7", lw=4, label="hot, put in")
    axes.plot(dose, share * census.n_hot, "o", ms=3, color="tab:red", label="hot, found")
    axes.plot(dose, share * census.n_dark, "s", ms=3, color="tab:blue", label="dark, found")
    axes.set_ylim(0, 1.45 * share * true.max())
