"""Drift of the specimen during a movie: a quick look, and what fixed patterns do to it.

Hot pixels and an uncorrected gain stay where they are while the specimen drifts. They correlate at
shift 0 and pull the shifts to it, which is why movies are corrected before they are aligned.
McLeod et al., preprint doi:10.1101/116533. A movie for a map goes to RELION, MotionCor or
cryoSPARC: here are no patches and no dose weighting.

The power spectrum of an image shows Thon rings, and how far they go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2
from scipy.ndimage import uniform_filter, uniform_filter1d

from napari_mrcz.correction.sums import in_order, ordinary_pixels
from napari_mrcz.errors import listed
from napari_mrcz.naming import size_zyx

if TYPE_CHECKING:
    from collections.abc import Sequence

Image = npt.NDArray[np.float32]

# Part of the image that is looked at, in its middle: 4 million pixels have signal enough.
_LARGEST = 2048
# Frequencies to align by: weights fall to e^-1/2 at the upper one, in 1/pixel; below the lower one,
# in periods of the image, thickness and beam vary.
_LOW_PASS, _HIGH_PASS = 0.16, 6
# Pixels around the shift of its neighbour in which that of a group is looked for, and those that
# may be left when groups are moved by it.
_NEAR, _LEFT = 32, 4
# By how many standard deviations the peak of a group leads where it is to be trusted; noise alone
# makes 1.8 at most (see `_by_noise`).
_LEAD = 2.5
# Turns of aligning each group to the sum of the others.
_TURNS = 4
# Of 1 - c², where c is the mean cosine of the phases between groups: below it the peaks of specimen
# and fixed pattern are too near to each other.
_APART = 0.05
# Frequencies, in 1/pixel, whose peaks are compared: of the specimen, finer ones hold mostly noise.
_FINEST = 0.25
# Pixels between neighbouring groups, beside the usual, that no stage moves.
_JUMP = 5.0
# Height of the fixed pattern's peak from which on it says to correct first, and in standard
# deviations; the part of frequencies that are independent under the window.
_HIGH, _SIGNIFICANT, _OF_HANN = 0.1, 3.0, 0.26
# Error of a shift, in pixels, from which on it says so.
_UNCERTAIN = 0.2


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
    warnings : tuple of str
        Why the shifts should not be trusted; empty when all is well.
    """

    shifts: npt.NDArray[np.float64]
    frames: npt.NDArray[np.float64]
    fixed_pattern: float
    warnings: tuple[str, ...]
    _sums: list[Image] = field(repr=False)

    def aligned_sum(self) -> Image:
        """Return the sum of all frames, each group moved back by its shift.

        Returns
        -------
        ndarray of float32, shape (y, x)
            Shifted by Fourier interpolation; what leaves one border comes in at the other.
        """
        total = np.zeros(self._sums[0].shape, np.float32)
        for one, shift in zip(self._sums, self.shifts, strict=True):
            total += _moved(one, -shift)
        return total


def estimate_drift(movie: Any, group: int = 5) -> Drift:
    """Estimate how the specimen drifted, as one shift per group of frames.

    Parameters
    ----------
    movie : Stack or array_like, shape (n, y, x)
        Real frames in their order; corrected ones, as `fixed_pattern` says of others.
    group : int
        Frames that are summed (default: 5); 0.5 electrons per pixel or more should come of them. A
        rest that is smaller joins the last group.

    Returns
    -------
    Drift

    Raises
    ------
    ValueError
        If there are fewer than two groups, or frames are not real images of 32 x 32 pixels or more.

    Notes
    -----
    Sums of groups (their outlier pixels replaced by what is around them) are cross-correlated, in
    a band of frequencies, with the sum of the other groups, moved by the shifts found so far, a few
    times. Then the power that groups have in common is split, ring by ring of frequencies, in what
    moved along and what stayed: the mean over pairs of groups i, j of F_i F_j* is
    S exp(-i φ_ij) + P, with φ_ij known from the shifts. Memory: one float32 image per group.
    """
    if group < 1:
        raise ValueError(f"groups of {group} frames: use 1 or more")
    sums, frames = _grouped(movie, group)
    height, width = sums[0].shape
    top, left = max(0, height - _LARGEST) // 2, max(0, width - _LARGEST) // 2
    middle = np.s_[top : top + _LARGEST, left : left + _LARGEST]
    band, (fy, fx) = _band((min(height, _LARGEST), min(width, _LARGEST)))
    whole: Image = np.sum(sums, axis=0)[middle]
    outliers = ~ordinary_pixels(whole - _smoothed(whole))

    def cleaned(one: Image) -> Image:
        part = one[middle] / max(float(one.mean()), 1e-6)
        part -= part.mean()
        around = _smoothed(np.where(outliers, 0, part))
        around /= np.maximum(_smoothed((~outliers).astype(np.float32)), 0.1)
        return np.where(outliers, around, part)

    def aligned(
        parts: list[Image], weights: npt.NDArray[Any], reach: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        def banded(part: Image) -> npt.NDArray[Any]:
            transform: npt.NDArray[Any] = rfft2(part) * weights
            return transform

        with in_order(banded, parts, "napari-mrcz-drift") as transforms:
            return _aligned(list(transforms), fy, fx, whole.shape, reach)

    parts = [cleaned(one) for one in sums]
    rough, leads = aligned(parts, band, _NEAR)
    whole_pixels = np.rint(rough).astype(np.intp)
    # Again by what all groups show: rows and columns that moved in fade out.
    margin = np.minimum(np.ptp(whole_pixels, axis=0), np.array(whole.shape) // 4)
    common = np.outer(*(_fading(n, m) for n, m in zip(whole.shape, margin, strict=True)))
    rolled = [
        np.roll(part, tuple(-shift), (0, 1)) * common
        for part, shift in zip(parts, whole_pixels - whole_pixels[len(sums) // 2], strict=True)
    ]
    weights, variance = _likelihood(rolled, band, fy, fx)
    finest, _ = aligned(rolled, weights, _LEFT)
    shifts = _smoothed_path(whole_pixels + finest, variance)
    shifts -= shifts[0]
    window = np.outer(*(np.hanning(length).astype(np.float32) for length in whole.shape))
    recorded = [rfft2((one[middle] / max(float(one.mean()), 1e-6) - 1) * window) for one in sums]
    fixed, certain = _fixed_pattern(recorded, shifts, fy, fx)
    doubts = _doubts(fixed if certain or np.isnan(fixed) else 0.0, shifts, leads, variance)
    return Drift(shifts, frames, fixed, tuple(doubts), sums)


def _grouped(movie: Any, group: int) -> tuple[list[Image], npt.NDArray[np.float64]]:
    """Return the sums of groups of frames, and the middle of each group."""
    sums: list[Image] = []
    numbers: list[int] = []
    for frame in movie:
        image = np.asarray(frame)
        if image.ndim != 2 or min(image.shape) < 32 or image.dtype.kind not in "buif":
            raise ValueError(f"real frames of 32 x 32 pixels or more are needed, not {image.shape}")
        if not numbers or numbers[-1] == group:
            sums.append(np.zeros(image.shape, np.float32))
            numbers.append(0)
        sums[-1] += image
        numbers[-1] += 1
    if len(numbers) > 1 and numbers[-1] < group:
        rest = sums.pop()
        sums[-1] += rest
        numbers[-2:] = [sum(numbers[-2:])]
    if len(sums) < 2:
        raise ValueError(f"{sum(numbers)} frames make no two groups of {group}")
    ends = np.cumsum(numbers)
    return sums, ends - (np.array(numbers) + 1) / 2


def _band(shape: tuple[int, int]) -> tuple[Image, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return the band-pass that is aligned by, and frequencies in 1/pixel along y and x."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    low = np.exp(-(np.square(fy) + np.square(fx)) / (2 * _LOW_PASS**2))
    high = np.hypot(fy * shape[0], fx * shape[1]) >= _HIGH_PASS
    return (low * high).astype(np.float32), (fy, fx)


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
    shared = np.clip(uniform_filter1d(shared, 9), 0, own)
    noise = np.maximum(uniform_filter1d(own, 9) - shared, 1e-3 * own.max())
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
        near = shifts[neighbour[index]] if reach == _NEAR else np.zeros(2)
        shifts[index], _ = _shift(transforms[index], total, shape, near, reach)
        total += transforms[index] * _phases(-shifts[index], fy, fx)
    for _ in range(_TURNS):
        for index, one in enumerate(transforms):
            others = total - one * _phases(-shifts[index], fy, fx)
            near = shifts[neighbour[index]] if reach == _NEAR else np.zeros(2)
            shifts[index], leads[index] = _shift(one, others, shape, near, reach)
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


def _moved(image: Image, shift: npt.NDArray[np.float64]) -> Image:
    fy, fx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None]
    moved: Image = irfft2(rfft2(image) * _phases(shift, fy, fx), s=image.shape)
    return moved


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
    inside = (rings >= _HIGH_PASS) & (rings < fy.size * _FINEST)
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
            "The specimen moved too little to be told from a fixed pattern, which would look the"
            " same: correct outlier pixels and gain first."
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
    image: npt.ArrayLike, pixel_size: float | Sequence[float] = 0.0, *, tile: int = 512
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
        return np.square(np.abs(np.fft.fft2(part * window)))

    total = np.zeros((size, size))
    with in_order(power, corners, "napari-mrcz-spectrum") as powers:
        for one in powers:
            total += one
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
