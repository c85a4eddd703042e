"""A fit of electron counting and what is shown of it; nothing here knows of a window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction import ElectronCounting, count_electrons
from napari_mrcz.correction.counting.background import Background

if TYPE_CHECKING:
    from napari_mrcz.correction.counting.events import Events
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

_FRAMES = 6
# A central part of large frames is enough for histograms.
_SIDE = 512
_BINS = 100
# Spots fainter than the threshold are shown too, so that one sees what it parts.
_FAINT = 0.5
# Of patches about single events: their side, and how they stand in the gallery.
_PATCH, _ROWS, _FEWEST_COLUMNS, _MOST_COLUMNS = 9, 4, 10, 40

# Middles of bins, and how much is in each.
Histogram = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Fit:
    """How electrons of a movie are counted, and what some of its frames show of it.

    The gallery has patches about single events, in grey values, put together as one picture: four
    in each column and as many columns as there are patches for, so that it can be cut off anywhere.
    """

    stack: Stack  # the raw movie
    counting: ElectronCounting  # with the threshold that was fitted, in detector pixels
    charges: npt.NDArray[np.float32]  # of spots, half the threshold and more, in grey values
    n_pixels: int  # of the frames that have these
    values: Histogram  # of pixels above their offsets, in grey values
    gallery: npt.NDArray[np.float32]  # (y, x)

    def chosen(self, threshold: float, super_resolution: int) -> ElectronCounting:
        """Return the counting with what the user has chosen."""
        return replace(self.counting.with_threshold(threshold), super_resolution=super_resolution)

    def counts(self, threshold: float, super_resolution: int) -> Stack:
        """Return the counts of the movie, lazily."""
        counting = self.chosen(threshold, super_resolution)
        counts: Stack = count_electrons(self.stack, counting=counting)
        return counts

    @property
    def threshold(self) -> float:
        """The threshold that was fitted, as it is shown."""
        return round(self.counting.threshold, 1)

    def sentence(self, threshold: float) -> str:
        """Return how many electrons are counted, and what was measured."""
        dose = int(np.count_nonzero(self.charges > threshold)) / self.n_pixels
        said = (
            f"{dose:.4f} e⁻/pixel/frame. Noise {self.counting.background.noise:.1f} grey values, "
            f"spots {self.counting.spread:.2f} pixels wide (standard deviation)."
        )
        if self.counting.expected_f1 is not None and threshold == self.threshold:
            said += f" Expected F1: {self.counting.expected_f1:.3f} (1 is perfect)."
        return said

    def charge_histogram(self) -> Histogram:
        """Return how often each charge occurs."""
        top = float(np.quantile(self.charges, 0.999)) if self.charges.size else 1.0
        return _histogram(self.charges, 0.0, top)

    def noise_curve(self) -> Histogram:
        """Return the normal distribution that noise alone has, in pixels of `values`."""
        middle, pixels = self.values
        noise = self.counting.background.noise
        curve = np.exp(-np.square(middle / noise) / 2) / (np.sqrt(2 * np.pi) * noise)
        curve *= pixels.sum() * (middle[1] - middle[0])
        seen = curve > 0.5
        return middle[seen], curve[seen]


def fit_counting(stack: Stack, report: Report, *, force: bool = False) -> Fit:
    """Fit background, spread and threshold, and look at some frames with them.

    Raise `ValueError` if these are no raw frames of single electrons.
    """
    counting = ElectronCounting.fit(stack, progress=report, force=force)
    faint = counting.with_threshold(_FAINT * counting.threshold)
    background = counting.background
    few = np.unique(np.linspace(0, len(stack) - 1, min(len(stack), _FRAMES)).astype(int))
    starts = (max(0, n - _SIDE) // 2 for n in stack.shape[1:])
    window = tuple(slice(start, start + _SIDE) for start in starts)
    known = np.ones(background.offset[window].shape, np.bool_)
    if background.noisy is not None:
        known = ~background.noisy[window]
    # Of the part of a frame above its background, which the whole frame tells.
    part = replace(
        faint, background=Background(np.zeros(known.shape, np.float32), background.noise, ~known)
    )
    charges, patches, values = [], [], []
    for done, index in enumerate(few, 1):
        report("Adding up charges, frame", done, len(few))
        above = background.above(np.asarray(stack[int(index)]))[window].astype(np.float32)
        events = part.events(above)
        charges.append(events.charge)
        values.append(above[known])
        patches += _patches(above, events, counting.threshold)
    pixels = np.concatenate(values)
    low, high = (float(v) for v in np.quantile(pixels, (0.0001, 0.9999)))
    return Fit(
        stack,
        counting,
        np.concatenate(charges),
        pixels.size,
        _histogram(pixels, low, high),
        _gallery(patches),
    )


def _histogram(values: npt.NDArray[Any], low: float, high: float) -> Histogram:
    number, edges = np.histogram(values.astype(np.float64), _BINS, (low, max(high, low + 1)))
    return (edges[1:] + edges[:-1]) / 2, number.astype(np.float64)


def _patches(
    above: npt.NDArray[np.float32], events: Events, threshold: float
) -> list[npt.NDArray[np.float32]]:
    """Return the pixels about events that are alone and whole."""
    reach = _PATCH // 2
    at = np.rint(np.stack([events.y, events.x], axis=1)).astype(int)
    found = []
    for (y, x), charge in zip(at.tolist(), events.charge.tolist(), strict=True):
        near = np.abs(at - (y, x)).max(axis=1) <= reach
        if charge < threshold or np.count_nonzero(near) > 1:
            continue
        patch = above[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        if patch.shape == (_PATCH, _PATCH):
            found.append(patch)
        if len(found) == _MOST_COLUMNS * _ROWS:
            break
    return found


def _gallery(patches: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Put patches below each other and side by side, a pixel apart."""
    step = _PATCH + 1
    columns = min(max(-(-len(patches) // _ROWS), _FEWEST_COLUMNS), _MOST_COLUMNS)
    picture = np.full((_ROWS * step - 1, columns * step - 1), np.nan, np.float32)
    for number, patch in enumerate(patches[: _ROWS * columns]):
        x, y = (step * k for k in divmod(number, _ROWS))
        picture[y : y + _PATCH, x : x + _PATCH] = patch
    return picture
