"""Drift of the specimen during a movie: a quick look, and what fixed patterns do to it.

Hot pixels and an uncorrected gain stay where they are while the specimen drifts. They correlate at
shift 0 and pull the shifts to it, which is why movies are corrected before they are aligned.
McLeod et al., preprint doi:10.1101/116533. A movie for a map goes to RELION, MotionCor or
cryoSPARC: here are no patches and no dose weighting.

The power spectrum of an image shows Thon rings, and how far they go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2
from scipy.ndimage import map_coordinates, uniform_filter, uniform_filter1d

from napari_mrcz.correction.sums import binned_sum, in_order, ordinary_pixels
from napari_mrcz.errors import counted, listed
from napari_mrcz.naming import size_zyx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Called with the stage, how many are done, and of how many.
Progress = Callable[[str, int, int], None]
Image = npt.NDArray[np.float32]

# Part of the image that is looked at, in its middle: 4 million pixels have signal enough.
_LARGEST = 2048
# From this height or width on, pixels are binned by 2 for aligning: of the frequencies that are
# aligned by, nearly none are lost.
_BINNED = 1024
# Frequencies to align by: weights fall to e^-1/2 at the upper one, in 1/pixel; below the lower one,
# in periods of the image, thickness and beam vary.
_LOW_PASS, _HIGH_PASS = 0.16, 6
# Pixels, or binned ones, around the shift of its neighbour in which that of a group is looked for,
# and those that may be left when groups are moved by it.
_NEAR, _LEFT = 32, 4
# By how many standard deviations the peak of a group leads where it is to be trusted; noise alone
# makes 1.8 at most (see `_by_noise`).
_LEAD = 2.5
# Turns of aligning each group to the sum of the others.
_TURNS = 4
# Of 1 - c², where c is the mean cosine of the phases between groups: below it the peaks of specimen
# and fixed pattern are too near to each other.
_APART = 0.05
# Rings of frequencies that are averaged for their power.
_RINGS = 9
# Frequencies, in 1/pixel, whose peaks are compared: of the specimen, finer ones hold mostly noise.
_FINEST = 0.25
# Pixels between neighbouring groups, beside the usual, that no stage moves.
_JUMP = 5.0
# Points of the line along which peaks are shown.
_PLACES = 121
# Height of the fixed pattern's peak from which on it says to correct first, and in standard
# deviations; the part of frequencies that are independent under the window.
_HIGH, _SIGNIFICANT, _OF_HANN = 0.1, 3.0, 0.26
# Error of a shift, in pixels, from which on it says so.
_UNCERTAIN = 0.25
# Differences between pixels, in units of their mean, that are none but of rounding.
_CONSTANT = 1e-5


@dataclass(frozen=True, eq=False)
class Drift:
    """How a specimen drifted, as `estimate_drift` finds it.

    Attributes
    ----------
    shifts : ndarray of float64, shape (k, 2)
        Of each group of frames, against the first one: pixels that the specimen moved along (y, x).
    frames : ndarray of float64, shape (k,)
        Middle of each group, as an index of frames.
    fixed_pattern : float
        Height of the cross-correlation's peak at shift 0, which fixed patterns make, in units of
        the specimen's peak. About 0 for a movie that is corrected; NaN where the specimen hardly
        moved, so that both peaks are one.
    correlation : ndarray of float64, shape (m, 2)
        The cross-correlation of the first and the last third of the movie, along a line through
        shift 0, where fixed patterns have their peak, and the specimen's shift: how far, in pixels,
        and how high, in units of the specimen's peak.
    warnings : tuple of str
        Why the shifts should not be trusted; empty when all is well.
    """

    shifts: npt.NDArray[np.float64]
    frames: npt.NDArray[np.float64]
    fixed_pattern: float
    correlation: npt.NDArray[np.float64]
    warnings: tuple[str, ...]
    _movie: Any = field(repr=False)
    _group: int = field(repr=False)

    def aligned_sum(self, progress: Progress | None = None) -> Image:
        """Return the sum of all frames, each group moved back by its shift; it reads them again.

        Parameters
        ----------
        progress : callable, optional
            Called with (stage, groups done, groups); what it raises ends the summing.

        Returns
        -------
        ndarray of float32, shape (y, x)
            Shifted by Fourier interpolation; what leaves one border comes in at the other.
        """
        total: npt.NDArray[Any] | None = None
        groups = _grouped(self._movie, self._group)
        for done, ((one, _), shift) in enumerate(zip(groups, self.shifts, strict=True), 1):
            fy = np.fft.fftfreq(one.shape[0])[:, None]
            moved = rfft2(one)
            moved *= _phases(-shift, fy, np.fft.rfftfreq(one.shape[1])[None])
            total = moved if total is None else np.add(total, moved, out=total)
            shape = one.shape
            if progress is not None:
                progress("Aligning group", done, len(self.shifts))
        aligned: Image = irfft2(total, s=shape, overwrite_x=True)
        return aligned

    def pattern_in(
        self, movie: Any, progress: Progress | None = None
    ) -> tuple[float, npt.NDArray[np.float64]]:
        """Measure the fixed pattern of the same frames, corrected otherwise, by these shifts.

        Parameters
        ----------
        movie : Stack or array_like, shape (n, y, x)
            Such as the frames before they were corrected.
        progress : callable, optional
            As for `estimate_drift`.

        Returns
        -------
        fixed_pattern, correlation
            As the attributes have them.
        """
        middles, _ = _middles(movie, self._group, progress or _ignore_progress)
        fixed, correlation, _ = _patterns(middles, self.shifts)
        return fixed, correlation


def estimate_drift(movie: Any, group: int = 5, *, progress: Progress | None = None) -> Drift:
    """Estimate how the specimen drifted, as one shift per group of frames.

    Parameters
    ----------
    movie : Stack or array_like, shape (n, y, x)
        Real frames in their order; corrected ones, as `fixed_pattern` says of others.
    group : int
        Frames that are summed (default: 5); 0.5 electrons per pixel or more should come of them. A
        rest that is smaller joins the last group.
    progress : callable, optional
        Called with (stage, groups done, groups); what it raises ends the estimate.

    Returns
    -------
    Drift

    Raises
    ------
    ValueError
        If there are fewer than two groups, or frames are not real images of 32 x 32 pixels or more.

    Notes
    -----
    Sums of groups (their outlier pixels replaced by what is around them; binned by 2 where the
    image is large) are cross-correlated, in a band of frequencies, with the sum of the other
    groups, moved by the shifts found so far, a few times. Then the power that groups have in common
    is split, ring by ring of frequencies, in what moved along and what stayed: the mean over pairs
    of groups i, j of F_i F_j* is S exp(-i φ_ij) + P, with φ_ij known from the shifts. Memory: the
    middle of the image, 2048 x 2048 pixels at most, in float32 for each group.
    """
    if group < 1:
        raise ValueError(f"groups of {group} frames: use 1 or more")
    say = progress or _ignore_progress
    middles, numbers = _middles(movie, group, say)
    if len(numbers) < 2:
        raise ValueError(
            f"{counted(sum(numbers), 'frame')} cannot be divided into two groups of {group}"
        )
    frames = np.cumsum(numbers) - (np.array(numbers) + 1) / 2
    whole: Image = np.sum(middles, axis=0)
    outliers = ~ordinary_pixels(whole - _smoothed(whole))
    binning = _binning(whole.shape)
    ordinary = binned_sum((~outliers).astype(np.float32), binning, np.float32)
    around = np.maximum(_smoothed(ordinary), 0.1 * binning**2)

    def cleaned(middle: Image) -> Image:
        part = binned_sum(np.where(outliers, 0, middle - middle.mean()), binning, np.float32)
        near = _smoothed(part)
        near /= around
        return np.where(ordinary > 0, part / np.maximum(ordinary, 1), near)

    with in_order(cleaned, middles, "napari-mrcz-drift") as images:
        parts = []
        for image in images:
            parts.append(image)
            say("Preparing group", len(parts), len(numbers))
    if max(float(np.ptp(part)) for part in parts) < _CONSTANT:
        raise ValueError("the frames do not vary from pixel to pixel: nothing can be aligned")
    shape = parts[0].shape
    band, (fy, fx) = _band(shape, binning)

    def aligned(
        images: list[Image], weights: npt.NDArray[Any], reach: int, stage: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        def banded(image: Image) -> npt.NDArray[Any]:
            transform: npt.NDArray[Any] = rfft2(image) * weights
            return transform

        with in_order(banded, images, "napari-mrcz-drift") as transforms:
            return _aligned(list(transforms), fy, fx, shape, reach, partial(say, stage))

    rough, leads = aligned(parts, band, _NEAR, "Aligning group")
    whole_pixels = np.rint(rough).astype(np.intp)
    # Again by what all groups show: rows and columns that moved in fade out.
    margin = np.minimum(np.ptp(whole_pixels, axis=0), np.array(shape) // 4)
    common = np.outer(*(_fading(n, m) for n, m in zip(shape, margin, strict=True)))
    rolled = [
        np.roll(part, tuple(-shift), (0, 1)) * common
        for part, shift in zip(parts, whole_pixels - whole_pixels[len(parts) // 2], strict=True)
    ]
    weights, variance = _likelihood(rolled, band, fy, fx)
    finest, _ = aligned(rolled, weights, _LEFT, "Refining group")
    shifts = _smoothed_path(whole_pixels + finest, variance)
    shifts -= shifts[0]
    shifts *= binning
    fixed, correlation, certain = _patterns(middles, shifts)
    doubtful = fixed if certain or np.isnan(fixed) else 0.0
    doubts = _doubts(doubtful, shifts, leads, variance * binning**2)
    return Drift(shifts, frames, fixed, correlation, tuple(doubts), movie, group)


def _ignore_progress(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


def _middles(movie: Any, group: int, say: Progress) -> tuple[list[Image], list[int]]:
    """Return the middle of the sum of each group, relative to its mean, and how many frames."""
    n_groups = max(1, len(movie) // group) if hasattr(movie, "__len__") else 0
    middles: list[Image] = []
    numbers: list[int] = []
    for one, number in _grouped(movie, group):
        height, width = one.shape
        top, left = max(0, height - _LARGEST) // 2, max(0, width - _LARGEST) // 2
        part = one[top : top + _LARGEST, left : left + _LARGEST]
        middles.append(part / max(float(one.mean()), 1e-6))
        numbers.append(number)
        say("Summing group", len(numbers), n_groups)
    return middles, numbers


def _binning(shape: tuple[int, ...]) -> int:
    return 2 if min(shape) > _BINNED else 1


def _patterns(
    middles: list[Image], shifts: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64], bool]:
    """Return `fixed_pattern`, `correlation`, and whether the former is more than noise makes."""
    binning = _binning(middles[0].shape)
    small = [_binned(middle, binning) - 1 for middle in middles]
    shape = small[0].shape
    _, (fy, fx) = _band(shape, binning)
    window = np.outer(*(np.hanning(length).astype(np.float32) for length in shape))
    recorded = [rfft2(image * window) for image in small]
    fixed, certain = _fixed_pattern(recorded, shifts / binning, fy, fx, binning)
    correlation = _between_thirds(recorded, shifts / binning, fy, fx, shape)
    correlation[:, 0] *= binning
    return fixed, correlation, certain


def _grouped(movie: Any, group: int) -> Iterator[tuple[Image, int]]:
    """Yield the sum of each group of frames, and how many they are; a rest joins the last group."""
    held: tuple[Image, int] | None = None
    total: Image | None = None
    number = 0
    for frame in movie:
        image = np.asarray(frame)
        if image.ndim != 2 or min(image.shape) < 32 or image.dtype.kind not in "buif":
            found = f"not {image.shape} {image.dtype}"
            raise ValueError(f"real frames of 32 x 32 pixels or more are needed, {found}")
        if total is None:
            total, number = np.zeros(image.shape, np.float32), 0
        total += image
        number += 1
        if number == group:
            if held is not None:
                yield held
            held, total = (_finite(total), number), None
    if total is not None:
        total = _finite(total)
        held = (total, number) if held is None else (held[0] + total, held[1] + number)
    if held is not None:
        yield held


def _finite(total: Image) -> Image:
    """Return a sum whose pixels that are not finite have the mean of the others."""
    known = np.isfinite(total)
    if known.all():
        return total
    if not known.any():
        raise ValueError("no pixel is finite in the sum of a group of frames")
    filled: Image = np.where(known, total, total.mean(where=known, dtype=np.float64))
    return filled.astype(np.float32)


def _band(
    shape: tuple[int, ...], binning: int
) -> tuple[Image, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return the band-pass that is aligned by, and frequencies in 1/pixel along y and x."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    low = np.exp(-(np.square(fy) + np.square(fx)) / (2 * (_LOW_PASS * binning) ** 2))
    high = np.hypot(fy * shape[0], fx * shape[1]) >= _HIGH_PASS
    return (low * high).astype(np.float32), (fy, fx)


def _binned(image: Image, binning: int) -> Image:
    """Return the mean of each square of pixels."""
    if binning == 1:
        return image
    mean = binned_sum(image, binning, np.float32)
    mean /= np.float32(binning**2)
    return mean


def _fading(length: int, margin: int) -> Image:
    """Return weights along an axis: 1 inside, falling to 0 at a margin from both ends."""
    place = np.minimum(np.arange(length), np.arange(length)[::-1]) - margin
    weight = np.clip(place / max(1, length // 8), 0, 1).astype(np.float32)
    smooth: Image = np.square(np.sin(np.pi / 2 * weight))
    return smooth


def _likelihood(
    parts: list[Image], band: Image, fy: npt.NDArray[Any], fx: npt.NDArray[Any]
) -> tuple[Image, float]:
    """Return weights by which aligned images tell their last shifts best, by rings of frequency.

    The likelihood of a shift is a cross-correlation with each frequency weighted by S / N / (S + N
    / (k - 1)): S is the power that k images have in common, N that of the noise of each. And return
    the variance of a shift along y or x, in pixels², as the curvature of the likelihood has it.
    """
    ring = np.rint(np.hypot(fy, fx) * fy.size).astype(np.intp)
    number = np.bincount(ring.ravel())
    total, own = 0, np.zeros(number.size)
    for part in parts:
        transform = rfft2(part)
        total = total + transform
        own += np.bincount(ring.ravel(), np.square(np.abs(transform)).ravel())
    k = len(parts)
    of_all = np.bincount(ring.ravel(), np.square(np.abs(total)).ravel())
    shared, own = (of_all - own) / (k * (k - 1)) / number, own / k / number
    shared, own = (uniform_filter1d(power, _RINGS) for power in (shared, own))
    # Less what noise alone makes of it, or rings without a signal would have one.
    chance = np.square(own) / (number * _RINGS * k * (k - 1))
    shared = np.clip(shared - chance / np.maximum(shared, np.sqrt(chance)), 0, own)
    noise = np.maximum(own - shared, 1e-3 * own.max())
    power = shared / noise / (shared + noise / (k - 1))
    weights: Image = (np.sqrt(power)[ring] * (band > 0)).astype(np.float32)
    if not weights.any():
        return band, math.inf
    # Of the frequencies of both halves, every other one is the conjugate of another.
    squared = np.square(2 * np.pi * np.arange(number.size) / fy.size) / 2
    inside = np.bincount(ring.ravel(), (band > 0).ravel())
    return weights, 1 / float((inside * squared * shared * power).sum())


def _aligned(
    transforms: list[npt.NDArray[Any]],
    fy: npt.NDArray[Any],
    fx: npt.NDArray[Any],
    shape: tuple[int, ...],
    reach: int,
    say: Callable[[int, int], None],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the shift of each group that correlates best with the others, moved back by theirs.

    It is looked for within `reach` of the shift of its neighbour, or of 0 where groups are aligned
    but for a few pixels. And return by how much it leads, as `_shift` does.
    """
    shifts, leads = np.zeros((len(transforms), 2)), np.zeros(len(transforms))
    first = len(transforms) // 2
    total = transforms[first].copy()
    # From the middle outwards, each to the sum of those that were aligned, from where its
    # neighbour is; then each to the sum of all others.
    outwards = [*range(first + 1, len(transforms)), *range(first - 1, -1, -1)]
    neighbour = [index - np.sign(index - first) for index in range(len(transforms))]
    for index in outwards:
        say(0, _TURNS * len(transforms))
        near = shifts[neighbour[index]] if reach == _NEAR else np.zeros(2)
        shifts[index], _ = _shift(transforms[index], total, shape, near, reach)
        total += transforms[index] * _phases(-shifts[index], fy, fx)
    for turn in range(_TURNS):
        for index, one in enumerate(transforms):
            say(turn * len(transforms) + index, _TURNS * len(transforms))
            # Moved back already: a parabola is right about a peak that is in its middle.
            moved = one * _phases(-shifts[index], fy, fx)
            others = total - moved
            near = (shifts[neighbour[index]] if reach == _NEAR else 0) - shifts[index]
            step, leads[index] = _shift(moved, others, shape, near, reach)
            shifts[index] += step
            total = others + one * _phases(-shifts[index], fy, fx)
    return shifts, leads


def _shift(
    one: npt.NDArray[Any],
    others: npt.NDArray[Any],
    shape: tuple[int, ...],
    near: npt.NDArray[np.float64],
    reach: int,
) -> tuple[npt.NDArray[np.float64], float]:
    """Return where the cross-correlation has its peak, by a parabola through it, as (y, x).

    It is looked for within `reach` of a place; if that is not the last few pixels, also further
    away, where it must be as high as no noise is. And return by how much it is higher than what is
    not next to it, in standard deviations: along an edge, and where there is noise alone, other
    places are as good.
    """
    correlation = irfft2(one * np.conj(others), s=shape)
    spread = max(float(correlation.std()), float(np.finfo(np.float32).tiny))
    places = [
        np.unique((np.arange(-reach, reach + 1) + round(float(middle))) % length)
        for middle, length in zip(near, shape, strict=True)
    ]
    part = correlation[np.ix_(*places)]
    at = np.unravel_index(int(part.argmax()), part.shape)
    peak = [int(place[i]) for place, i in zip(places, at, strict=True)]
    far = np.unravel_index(int(correlation.argmax()), shape)
    if reach == _NEAR and correlation[far] > max(
        float(part.max()), _by_noise(correlation.size) * spread
    ):
        peak = list(map(int, far))
    apart = [
        np.abs((place - top + length // 2) % length - length // 2) > reach // 2
        for place, top, length in zip(places, peak, shape, strict=True)
    ]
    elsewhere = part[apart[0][:, None] | apart[1]]
    lead = (float(correlation[*peak]) - float(elsewhere.max(initial=-np.inf))) / spread
    found = np.empty(2)
    for axis in (0, 1):
        around = [
            correlation[tuple((peak[a] + (step if a == axis else 0)) % shape[a] for a in (0, 1))]
            for step in (-1, 0, 1)
        ]
        bend = around[0] - 2 * around[1] + around[2]
        offset = 0.5 * (around[0] - around[2]) / bend if bend else 0.0
        found[axis] = (peak[axis] + offset + shape[axis] / 2) % shape[axis] - shape[axis] / 2
    return found, lead


def _by_noise(places: int) -> float:
    """Return how high peaks are, in standard deviations, where noise alone is aligned.

    The mean peak of k groups of noise, each moved to any of n places so that all agree as well as
    they can, is 2 sqrt(ln n) at most, whatever k: the random energy model, B. Derrida, Phys. Rev. B
    24 (1981) 2613.
    """
    return 2 * math.sqrt(math.log(places))


def _phases(
    shift: npt.NDArray[np.float64], fy: npt.NDArray[Any], fx: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Return factors by which a transform becomes that of the image moved by a shift."""
    along_y = np.exp(-2j * np.pi * shift[0] * fy).astype(np.complex64)
    along_x = np.exp(-2j * np.pi * shift[1] * fx).astype(np.complex64)
    phases: npt.NDArray[np.complex64] = along_y * along_x
    return phases


def _smoothed_path(shifts: npt.NDArray[np.float64], variance: float) -> npt.NDArray[np.float64]:
    """Return shifts as smooth as leaves the least error to be expected of them.

    Smoothed by second differences (E. T. Whittaker, 1923), as much as Mallows's C_p has it, which
    knows the variance of each shift: a path that is rough indeed stays so.
    """
    k = len(shifts)
    if k < 4 or not math.isfinite(variance):
        return shifts
    bend = np.diff(np.eye(k), 2, axis=0)
    rough, axes = np.linalg.eigh(bend.T @ bend)
    along = axes.T @ shifts
    best = math.inf, along
    for strength in np.geomspace(1e-3, 1e5, 50):
        keep = 1 / (1 + strength * np.clip(rough, 0, None))
        left = np.square((1 - keep)[:, None] * along).sum()
        risk = left / 2 + 2 * variance * keep.sum()
        if risk < best[0]:
            best = risk, keep[:, None] * along
    smooth: npt.NDArray[np.float64] = axes @ best[1]
    return smooth


def _fixed_pattern(
    transforms: list[npt.NDArray[Any]],
    shifts: npt.NDArray[np.float64],
    fy: npt.NDArray[Any],
    fx: npt.NDArray[Any],
    binning: int,
) -> tuple[float, bool]:
    """Return the height of the peak that stayed over that of the peak that moved along.

    And whether the one that stayed is higher than noise makes it.
    """
    phases = [_phases(-shift, fy, fx) for shift in shifts]
    own = sum(np.square(np.abs(one)) for one in transforms)
    ring = np.rint(np.hypot(fy, fx) * fy.size).astype(np.intp)
    weight = np.full(ring.shape, 2.0)  # the half that is not stored is alike
    weight[:, 0] = 1
    number = np.bincount(ring.ravel(), weight.ravel())

    def by_ring(of_all: Any, of_each: Any) -> npt.NDArray[np.float64]:
        """Return the mean over all pairs of different groups, by ring."""
        pairs = (np.square(np.abs(of_all)) - of_each) * weight / (len(shifts) * (len(shifts) - 1))
        mean: npt.NDArray[np.float64] = np.bincount(ring.ravel(), pairs.ravel()) / number
        return mean

    moved = by_ring(sum(one * p for one, p in zip(transforms, phases, strict=True)), own)
    stayed = by_ring(sum(transforms), own)
    cosine = by_ring(sum(phases), len(shifts))
    # The least-squares solution of moved = S + cP, stayed = cS + P, where it is one.
    rings = np.arange(number.size)
    inside = (rings >= _HIGH_PASS) & (rings < fy.size * min(_FINEST * binning, 0.5))
    known = (rings >= _HIGH_PASS) & (rings < fy.size / 2) & (1 - cosine**2 > _APART)
    if not known.any():
        return math.nan, False
    split = 1 - cosine[known] ** 2
    still = np.average((stayed - cosine * moved)[known] / split, weights=number[known])
    specimen = moved - still  # fixed patterns are alike at all frequencies, as hot pixels are
    specimen[known] = (moved - cosine * stayed)[known] / split
    height = np.average(specimen[inside], weights=number[inside])
    # Each ring has half as many frequencies that are independent, and the window leaves fewer.
    noise = np.square(np.bincount(ring.ravel(), (own * weight).ravel()) / number / len(shifts))
    error = (2 * noise * number)[known] / split / (_OF_HANN * len(shifts) * (len(shifts) - 1))
    certain = still * number[known].sum() > _SIGNIFICANT * math.sqrt(error.sum())
    return (float(still / height) if height > 0 else math.inf), bool(certain)


def _between_thirds(
    transforms: list[npt.NDArray[Any]],
    shifts: npt.NDArray[np.float64],
    fy: npt.NDArray[Any],
    fx: npt.NDArray[Any],
    shape: tuple[int, ...],
) -> npt.NDArray[np.float64]:
    """Return distances, and the correlation of the movie's first and last third along a line."""
    third = max(1, len(transforms) // 3)
    high = np.hypot(fy * shape[0], fx * shape[1]) >= _HIGH_PASS
    product = sum(transforms[-third:]) * np.conj(sum(transforms[:third])) * high
    correlation = irfft2(product, s=shape)
    moved = shifts[-third:].mean(axis=0) - shifts[:third].mean(axis=0)
    length = float(np.hypot(*moved))
    along = moved / length if length > 0.5 else np.array([0.0, 1.0])
    reach = min(max(length, 4.0), min(shape) / 4)
    places = np.linspace(-reach, 2 * reach, _PLACES)
    heights = map_coordinates(correlation, np.outer(along, places), order=1, mode="grid-wrap")
    peak = map_coordinates(correlation, moved[:, None], order=1, mode="grid-wrap")[0]
    unit = peak if peak > 0 else max(float(np.abs(heights).max()), 1e-30)
    return np.stack([places, heights / unit], axis=1)


def _doubts(
    fixed: float,
    shifts: npt.NDArray[np.float64],
    leads: npt.NDArray[np.float64],
    variance: float,
) -> list[str]:
    doubts = []
    weak = np.flatnonzero(leads < _LEAD)
    if fixed > _HIGH and 2 * weak.size < len(shifts):
        doubts.append(
            f"A fixed pattern correlates {fixed:.2g} times as much as the specimen: correct outlier"
            " pixels and gain first."
        )
    if np.isnan(fixed):
        doubts.append(
            "The specimen moved too little to be distinguished from a fixed pattern, which would "
            "look the same: correct outlier pixels and gain first."
        )
    if weak.size:
        named = f"group {weak[0]}" if weak.size == 1 else f"groups {listed(weak.tolist(), 8)}"
        doubts.append(
            f"The shifts of {named} (of 0 to {len(shifts) - 1}) may be false: other shifts fit"
            " nearly as well, as they do by noise alone or along an edge. Use more frames per"
            " group, and correct outlier pixels first."
        )
    elif (error := math.sqrt(2 * variance)) > _UNCERTAIN:
        doubts.append(
            f"Shifts are uncertain by {error:.2g} pixels or more, as there are few electrons or is"
            " little structure. Use more frames per group."
        )
    steps = np.hypot(*np.diff(shifts, axis=0).T)
    if not weak.size and steps.max() > _JUMP + 4 * np.median(steps):
        doubts.append(
            f"Groups {int(steps.argmax())} and {int(steps.argmax()) + 1} are {steps.max():.0f}"
            " pixels apart, the others much less."
        )
    return doubts


def _smoothed(image: Image) -> Image:
    smooth: Image = uniform_filter(image, 9, mode="nearest")
    return smooth


@dataclass(frozen=True, eq=False)
class PowerSpectrum:
    """A power spectrum, as `power_spectrum` computes it.

    Attributes
    ----------
    image : ndarray of float64, shape (t, t)
        Power; frequency 0 is at [t // 2, t // 2]. White noise of variance v has power v everywhere.
    radial : ndarray of float64, shape (m,)
        Rotational average of `image`, by rings of `frequency`.
    frequency : ndarray of float64, shape (m,)
        Mean frequency of each ring, from 0 to Nyquist's: in 1/Å, or in 1/pixel where the pixel size
        is not known.
    pixel_size : tuple of float
        (y, x) in Å; 1.0 where it is not known.
    """

    image: npt.NDArray[np.float64]
    radial: npt.NDArray[np.float64]
    frequency: npt.NDArray[np.float64]
    pixel_size: tuple[float, float]


def power_spectrum(
    image: npt.ArrayLike,
    pixel_size: float | Sequence[float] = 0.0,
    *,
    tile: int = 512,
    progress: Progress | None = None,
) -> PowerSpectrum:
    """Compute the power spectrum of an image, averaged over overlapping tiles (Welch's method).

    Parameters
    ----------
    image : array_like, shape (y, x)
        A frame or a sum, real. Pixels that are not finite count as the mean.
    pixel_size : float or sequence of float
        In Å: one number, (y, x) or (z, y, x); 0 where it is not known.
    tile : int
        Height and width of a tile in pixels, less for a smaller image (default: 512). Tiles
        overlap by half and are weighted by a Hann window.
    progress : callable, optional
        Called with (stage, tiles done, tiles); what it raises ends the computation.

    Returns
    -------
    PowerSpectrum

    Raises
    ------
    ValueError
        If the image is not two-dimensional, not real, or smaller than 8 x 8 pixels.

    References
    ----------
    .. [1] P. D. Welch, IEEE Trans. Audio Electroacoust. 15 (1967) 70-73,
       doi:10.1109/TAU.1967.1161901
    """
    pixels = np.asarray(image)
    if pixels.ndim != 2 or pixels.dtype.kind not in "buif" or min(pixels.shape) < 8:
        raise ValueError(f"a real image of at least 8 x 8 pixels is needed, not {pixels.shape}")
    size = min(tile, *pixels.shape)
    if size < 8:
        raise ValueError(f"tiles of {tile} pixels are too small: use 8 or more")
    window = np.hanning(size + 1)[:size]
    window = np.outer(window, window).astype(np.float32)
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    mean = float(finite.mean(dtype=np.float64)) if finite.size else 0.0
    corners = [
        (int(y), int(x))
        for y in _starts(pixels.shape[0], size)
        for x in _starts(pixels.shape[1], size)
    ]

    def power(corner: tuple[int, int]) -> npt.NDArray[Any]:
        y, x = corner
        part = pixels[y : y + size, x : x + size].astype(np.float32) - np.float32(mean)
        if pixels.dtype.kind == "f":
            part[~np.isfinite(part)] = 0
        part -= np.vdot(part, window) / window.sum()  # or the mean would spread over frequencies
        transform = rfft2(part * window)
        squared: npt.NDArray[Any] = np.square(transform.real) + np.square(transform.imag)
        return squared

    half = np.zeros((size, size // 2 + 1))
    with in_order(power, corners, "napari-mrcz-spectrum") as powers:
        for done, one in enumerate(powers, 1):
            half += one
            if progress is not None:
                progress("Transforming tile", done, len(corners))
    # The other half is the same, mirrored at frequency 0.
    mirrored = np.roll(half[::-1], 1, axis=0)[:, size - size // 2 - 1 : 0 : -1]
    total = np.hstack([half, mirrored])
    total /= len(corners) * float(np.square(window, dtype=np.float64).sum())
    step_y, step_x = (step or 1.0 for step in size_zyx(pixel_size)[1:])
    squared = np.square(np.fft.fftfreq(size, step_y))[:, None]
    frequency = np.sqrt(squared + np.square(np.fft.fftfreq(size, step_x)))
    # Rings as wide as one step of the finer axis, up to the lower of both Nyquist frequencies.
    width = 1 / (size * max(step_y, step_x))
    ring = np.rint(frequency / width).astype(np.intp)
    number = np.bincount(ring.ravel())[: size // 2 + 1]
    radial = np.bincount(ring.ravel(), total.ravel())[: size // 2 + 1] / number
    middle = np.bincount(ring.ravel(), frequency.ravel())[: size // 2 + 1] / number
    return PowerSpectrum(np.fft.fftshift(total), radial, middle, (step_y, step_x))


def _starts(length: int, size: int) -> npt.NDArray[np.intp]:
    """Return where tiles begin along an axis, so that all of it is covered."""
    number = max(1, -(-2 * (length - size) // size) + 1)
    return np.linspace(0, length - size, number).round().astype(np.intp)
