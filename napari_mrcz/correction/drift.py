"""Drift of the specimen during a movie: a quick look, and what fixed patterns do to it.

Hot pixels and an uncorrected gain stay where they are while the specimen drifts. They correlate at
shift 0 and pull the shifts of other programs to it, which is why movies are corrected before they
are aligned. McLeod et al., preprint doi:10.1101/116533. A movie for a map goes to RELION, MotionCor
or cryoSPARC: here are no patches and no dose weighting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, rfft2
from scipy.ndimage import map_coordinates, uniform_filter

from napari_mrcz.correction.alignment import (
    APART,
    HIGH_PASS,
    SIGNIFICANT,
    Alignment,
    Floats,
    Spectra,
    Transform,
    align,
    phases,
)
from napari_mrcz.correction.sums import RunningSum, binned_sum, in_order
from napari_mrcz.errors import counted, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_mrcz.correction.noise import Progress

Image = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

# Pixels of all groups together that are aligned by: of more, the middle of the image. And the
# height and width, in the middle, that fixed patterns are looked for in.
_MOST_PIXELS, _LARGEST = 2**28, 2048
# From this height or width on, pixels are binned by 2 for aligning: of the frequencies that are
# aligned by, nearly none are lost.
_BINNED = 1024
# Frequencies, in 1/pixel, above which there is little but noise.
_NOISE = 0.35
# Frequencies, in 1/pixel, whose peaks are compared: of the specimen, finer ones hold mostly noise.
_FINEST = 0.25
# Pixels between neighbouring groups, beside the usual, that no stage moves.
_JUMP = 5.0
# Points of the line along which peaks are shown.
_PLACES = 121
# Height of the fixed pattern's peak from which on it says to correct first; the part of frequencies
# that are independent under the window.
_HIGH, _OF_HANN = 0.1, 0.26
# Logarithm of how much more likely a specimen is than noise alone, from which on there is one:
# noise alone made 27 at most in 100 movies.
_EVIDENCE = 40.0
# Error of the shifts, in pixels, from which on it says so.
_UNCERTAIN = 0.2
# Height of the likelihood's second peak, over the first, from which on it says so: 0.3 at most in
# movies of ice; nearly 1 of crystals and along edges.
_REPEATS = 0.45
# Standard deviations beyond which a pixel is an outlier, and pixels that they are estimated by.
_OUTLYING, _SAMPLE = 6.0, 2**20
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
    error : float
        Expected error of `shifts` in pixels: the root of the mean squared distance from the truth.
        It has no meaning where `warnings` say that no specimen was found.
    """

    shifts: Floats
    frames: Floats
    fixed_pattern: float
    correlation: Floats
    warnings: tuple[str, ...]
    error: float
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
        total: Array | None = None
        groups = _grouped(self._movie, self._group)
        for done, ((one, _), shift) in enumerate(zip(groups, self.shifts, strict=True), 1):
            fy = np.fft.fftfreq(one.shape[0])[:, None]
            moved = rfft2(one.astype(np.float32, copy=False))
            moved *= phases(-shift, fy, np.fft.rfftfreq(one.shape[1])[None])
            total = moved if total is None else np.add(total, moved, out=total)
            shape = one.shape
            if progress is not None:
                progress("Aligning group", done, len(self.shifts))
        return irfft2(total, s=shape, overwrite_x=True)

    def pattern_in(self, movie: Any, progress: Progress | None = None) -> tuple[float, Floats]:
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
        say, n_groups = progress or (lambda stage, done, total: None), len(self.shifts)
        middles = []
        for one, _ in _grouped(movie, self._group):
            middles.append(_middle(one))
            say("Summing group", len(middles), n_groups)
        fixed, correlation, _ = _patterns(middles, _binning(one.shape), self.shifts)
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
    image is large) are aligned by maximum likelihood: each is the specimen, moved, beside a fixed
    pattern and noise, whose powers are measured ring by ring of spatial frequency. Neighbours are
    merged two by two first, so that a specimen is followed that no two groups show. The path is as
    smooth as the movie itself suggests. Then the power that groups have in common is split, ring by
    ring, in what moved along and what stayed: the mean over pairs of groups i, j of F_i F_j* is
    S exp(-i φ_ij) + P, with φ_ij known from the shifts. Memory: the sums of all groups, as integers
    where the frames are, of at most 2^28 pixels: of more, the middle of the image is used.

    References
    ----------
    .. [1] C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, MIT Press
       2006, chapter 5: the smoothness of the path.
    """
    if group < 1:
        raise ValueError(f"groups of {group} frames: use 1 or more")
    say = progress or (lambda stage, done, total: None)
    n_groups = max(1, len(movie) // group) if hasattr(movie, "__len__") else 0
    sums: list[Array] = []
    middles: list[Image] = []
    numbers: list[int] = []
    for one, number in _grouped(movie, group):
        middles.append(_middle(one))
        sums.append(_part(one, n_groups))
        numbers.append(number)
        say("Summing group", len(numbers), n_groups)
    if len(numbers) < 2:
        raise ValueError(
            f"{counted(sum(numbers), 'frame')} cannot be divided into two groups of {group}: "
            + ("use smaller groups" if sum(numbers) > 1 else "use the movie, not the sum of it")
        )
    frames = np.cumsum(numbers) - (np.array(numbers) + 1) / 2
    alignment = align(_spectra(sums, say), say)
    shifts = alignment.shifts - alignment.shifts[0]
    fixed, correlation, certain = _patterns(middles, _binning(one.shape), shifts)
    doubtful = fixed if certain or alignment.pattern or np.isnan(fixed) else 0.0
    doubts = _doubts(doubtful, shifts, alignment)
    return Drift(shifts, frames, fixed, correlation, tuple(doubts), alignment.error, movie, group)


def _spectra(sums: list[Array], say: Progress) -> Spectra:
    """Return transforms of the sums of groups, their outlier pixels replaced.

    `sums` is emptied: each image has room for its transform.
    """
    k = len(sums)
    whole = sums[0].astype(np.float32)
    for one in sums[1:]:
        whole += one
    level = float(whole.mean()) / k
    whole -= uniform_filter(whole, 9, mode="nearest")
    sample = whole.ravel()[:: -(-whole.size // _SAMPLE)]
    spread = 1.4826 * float(np.median(np.abs(sample)))
    outliers = np.abs(whole) > (_OUTLYING * spread if spread else np.inf)
    scale = _binning(whole.shape)
    ordinary = binned_sum((~outliers).astype(np.float32), scale, np.float32)
    holes = np.nonzero(ordinary == 0)
    around = np.maximum(_near(ordinary, holes), 1)
    shape = ordinary.shape
    window = np.outer(*(_fading(length) for length in shape))
    weight = window / np.maximum(ordinary, 1)
    spreads = []

    def transformed(index: int) -> Array:
        one, sums[index] = sums[index], np.empty(0)
        image = one - np.float32(one.mean())
        image[outliers] = 0
        image = binned_sum(image, scale, np.float32)
        near = _near(image, holes) / around
        image *= weight
        image[holes] = near * window[holes]
        spreads.append(float(np.ptp(image)))
        return rfft2(image, overwrite_x=True)

    with in_order(transformed, range(k), "napari-mrcz-drift") as transforms:
        groups = []
        for transform in transforms:
            groups.append(transform)
            say("Preparing group", len(groups), k)
    least = _CONSTANT * max(abs(level), 1e-30)
    if sum(spread >= least for spread in spreads) < 2:
        raise ValueError(
            "the frames do not vary from pixel to pixel, or those of one group alone: nothing can"
            " be aligned"
        )
    # Noise has the power of the dose, whatever a camera's zero and counts per electron are.
    high = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])) > _NOISE
    power = np.array([np.square(np.abs(group[high])).mean() for group in groups])
    doses = power / power.mean() if power.any() else np.ones(k)
    squares = np.square(window, dtype=np.float64)
    independent = squares.mean() ** 2 / np.square(squares).mean()
    return Spectra(groups, (shape[0], shape[1]), doses, np.full(2, scale), float(independent))


def _part(image: Array, n_groups: int) -> Array:
    """Return as much of an image, about its middle, as there is memory for in all groups."""
    share = min(1.0, math.sqrt(_MOST_PIXELS / (max(n_groups, 1) * image.size)))
    if share == 1:
        return image
    height, width = (int(share * length) for length in image.shape)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width].copy()


def _middle(one: Array) -> Image:
    """Return the middle of the sum of a group, binned, in units of its mean, less 1."""
    height, width = one.shape
    top, left = max(0, height - _LARGEST) // 2, max(0, width - _LARGEST) // 2
    part = one[top : top + _LARGEST, left : left + _LARGEST]
    binned = binned_sum(part, _binning(part.shape), np.float32)
    binned /= max(float(binned.mean()), 1e-6)
    binned -= 1
    return binned


def _binning(shape: tuple[int, ...]) -> int:
    return 2 if min(shape) > _BINNED else 1


def _patterns(middles: list[Image], binning: int, shifts: Floats) -> tuple[float, Floats, bool]:
    """Return `fixed_pattern`, `correlation`, and whether the former is more than noise makes."""
    shape = middles[0].shape
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    window = np.outer(*(np.hanning(length).astype(np.float32) for length in shape))
    recorded = [rfft2(image * window) for image in middles]
    fixed, certain = _fixed_pattern(recorded, shifts / binning, fy, fx, binning)
    correlation = _between_thirds(recorded, shifts / binning, fy, fx, shape)
    correlation[:, 0] *= binning
    return fixed, correlation, certain


def _grouped(movie: Any, group: int) -> Iterator[tuple[Array, int]]:
    """Yield the sum of each group of frames, and how many they are; a rest joins the last group."""
    held: tuple[Array, int] | None = None
    total: RunningSum | None = None
    number = 0
    for frame in movie:
        image = np.asarray(frame)
        if image.ndim != 2 or min(image.shape) < 32 or image.dtype.kind not in "buif":
            found = f"not {image.shape} {image.dtype}"
            raise ValueError(f"real frames of 32 x 32 pixels or more are needed, {found}")
        if total is None:
            total, number = RunningSum(image.shape, image.dtype, group), 0
        total.add(image)
        number += 1
        if number == group:
            if held is not None:
                yield held
            held, total = (_finite(total.total()), number), None
    if total is not None:
        rest = _finite(total.total())
        held = (
            (rest, number)
            if held is None
            else (np.add(held[0], rest, dtype=np.float32), held[1] + number)
        )
    if held is not None:
        yield held


def _finite(total: Array) -> Array:
    """Return a sum whose pixels that are not finite have the mean of the others."""
    if total.dtype.kind != "f":
        return total
    known = np.isfinite(total)
    if not known.any():
        raise ValueError("no pixel is finite in the sum of a group of frames")
    if not known.all():
        total = np.where(known, total, total.mean(where=known, dtype=np.float64))
    return total.astype(np.float32)


def _fading(length: int) -> Image:
    """Return weights along an axis: 1 inside, falling to 0 at both ends."""
    place = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    weight = np.clip(place / max(1, length // 16), 0, 1)
    return np.square(np.sin(np.pi / 2 * weight)).astype(np.float32)


def _near(image: Image, places: tuple[npt.NDArray[np.intp], ...]) -> Array:
    """Return the sum of the 9 x 9 pixels around each of some places."""
    padded = np.pad(image, 4)
    y, x = places
    total = np.zeros(len(y), np.float32)
    for down, right in np.ndindex(9, 9):
        total += padded[y + down, x + right]
    return total


def _fixed_pattern(
    transforms: list[Transform], shifts: Floats, fy: Array, fx: Array, binning: int
) -> tuple[float, bool]:
    """Return the height of the peak that stayed over that of the peak that moved along.

    And whether the one that stayed is higher than noise makes it.
    """
    factors = [phases(-shift, fy, fx) for shift in shifts]
    own = sum(np.square(np.abs(one)) for one in transforms)
    ring = np.rint(np.hypot(fy, fx) * fy.size).astype(np.intp)
    weight = np.full(ring.shape, 2.0)  # the half that is not stored is alike
    weight[:, 0] = 1
    number = np.bincount(ring.ravel(), weight.ravel())

    def by_ring(of_all: Any, of_each: Any) -> Floats:
        """Return the mean over all pairs of different groups, by ring."""
        pairs = (np.square(np.abs(of_all)) - of_each) * weight / (len(shifts) * (len(shifts) - 1))
        return np.bincount(ring.ravel(), pairs.ravel()) / number

    moved = by_ring(sum(one * p for one, p in zip(transforms, factors, strict=True)), own)
    stayed = by_ring(sum(transforms), own)
    cosine = by_ring(sum(factors), len(shifts))
    # The least-squares solution of moved = S + cP, stayed = cS + P, where it is one.
    rings = np.arange(number.size)
    inside = (rings >= HIGH_PASS) & (rings < fy.size * min(_FINEST * binning, 0.5))
    known = (rings >= HIGH_PASS) & (rings < fy.size / 2) & (1 - cosine**2 > APART)
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
    certain = still * number[known].sum() > SIGNIFICANT * math.sqrt(error.sum())
    return (float(still / height) if height > 0 else math.inf), bool(certain)


def _between_thirds(
    transforms: list[Transform], shifts: Floats, fy: Array, fx: Array, shape: tuple[int, ...]
) -> Floats:
    """Return distances, and the correlation of the movie's first and last third along a line."""
    third = max(1, len(transforms) // 3)
    high = np.hypot(fy * shape[0], fx * shape[1]) >= HIGH_PASS
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


def _doubts(fixed: float, shifts: Floats, alignment: Alignment) -> list[str]:
    doubts = []
    if found := alignment.evidence > _EVIDENCE:
        if fixed > _HIGH:
            doubts.append(
                f"A fixed pattern correlates {fixed:.2g} times as much as the specimen: correct"
                " outlier pixels and gain first."
            )
    else:
        doubts.append(
            "No specimen was found that all groups have in common: noise alone may have made these"
            " shifts. Use more frames per group, or a brighter or larger image."
        )
    if np.isnan(fixed):
        doubts.append(
            "The specimen moved too little to be distinguished from a fixed pattern, which would "
            "look the same: correct outlier pixels and gain first."
        )
    if found and (unlike := alignment.unlike):
        named = f"group {unlike[0]}" if len(unlike) == 1 else f"groups {listed(unlike, 8)}"
        doubts.append(
            f"The shifts of {named} (of 0 to {len(shifts) - 1}) may be false: little is seen there"
            " of what the other groups show."
        )
    if found and alignment.error > _UNCERTAIN:
        doubts.append(
            f"Shifts are uncertain by about {alignment.error:.2g} pixels, as there are few"
            " electrons or is little structure, or only along an edge."
        )
    if found and alignment.repeats > _REPEATS:
        doubts.append(
            "Other shifts fit nearly as well, as they do of crystals, edges and the rim of the"
            " beam: look whether the aligned sum is sharp."
        )
    steps = np.hypot(*np.diff(shifts, axis=0).T)
    if found and steps.max() > _JUMP + 4 * np.median(steps):
        doubts.append(
            f"Groups {int(steps.argmax())} and {int(steps.argmax()) + 1} are {steps.max():.0f}"
            " pixels apart, the others much less."
        )
    return doubts
