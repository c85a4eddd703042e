"""Noise that frames share, a gain's pattern in it, counted electrons, power spectra.

Correlated noise: McLeod et al., preprint doi:10.1101/116533, section 4.1, eq. 7.

`Share` is the part of a gain reference's pattern that is in a movie. Relative to its local mean, a
sum of frames is 1 + p + noise with a fixed pattern p, and the factors of a reference are 1 + g.
Applied, they leave p + g: nothing where the reference is the right one (p = -g), the variance of
both where it is another camera's. The share is the slope of -p on g: applying the reference lowers
the correlated noise R where it exceeds 1/2. It is linear in the counts and thus known from few
electrons, long before R itself is. Its error is the spread of the same product of the two images
at all shifts against each other, which takes account of columns, specimen and smooth sweeps.

`looks_counted` decides whether pixels hold counted electrons: whole numbers whose zeros are real.

`power_spectrum` shows Thon rings, and how far they go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.sums import Result, in_order, ordinary_pixels
from napari_mrcz.naming import size_zyx

if TYPE_CHECKING:
    from collections.abc import Sequence

# Pixels worked on at a time, so that intermediate results stay in a cache.
_PIECE = 2**16
# Pieces that a thread takes at a time: one alone would take no longer than passing it on.
_AT_A_TIME = 16
# Larger images than this are worked on in several threads, and summed in float32 if their pixels
# have 8 bits: a sum in float64 would take eight frames' memory.
_LARGE = 2**22


def correlated_noise(movie: Any) -> float:
    """Return the mean Pearson correlation R of all pairs of a movie's frames (eq. 7).

    Parameters
    ----------
    movie : Stack or ndarray, shape (n, y, x)
        Real numbers; anything that yields frames (y, x) when iterated.

    Returns
    -------
    float
        -1 / (n - 1) to 1. NaN if fewer than two frames vary (a constant frame correlates with
        nothing and is left out), or if a pixel is NaN.

    Raises
    ------
    ValueError
        If there are fewer than two frames, they differ in shape, or are complex.

    Notes
    -----
    Frames are read once, and one image is kept. With z the frames standardised to mean 0 and
    variance 1, the variance of their sum is the sum of all n² correlations, of which n are 1:
    R = (var(Σ z) - n) / (n (n - 1)), which is exact; to 1e-7 for large frames of 8 bits, which
    are summed in single precision.
    """
    total: npt.NDArray[Any] | None = None
    n_frames = n = 0
    # Not through the cache of a stack, which would keep three of them.
    frames = (make() for make in movie.frame_makers()) if hasattr(movie, "frame_makers") else movie
    for frame in frames:
        image = np.asarray(frame)
        del frame
        if image.dtype.kind not in "buif":
            raise ValueError(f"correlations are those of real numbers, not of {image.dtype}")
        if total is None:
            is_coarse = image.itemsize == 1 and image.size >= _LARGE
            total, shape = np.zeros(image.size, "f4" if is_coarse else "f8"), image.shape
        elif image.shape != shape:
            raise ValueError(f"frame {n_frames} is {image.shape}, where the first is {shape}")
        n_frames += 1
        pixels = image.reshape(-1)
        deviation = _standard_deviation(pixels)
        if deviation != 0:
            n += 1
            _add(total, pixels, deviation)
        del image, pixels  # while the next one is read
    if total is None or n_frames < 2:
        raise ValueError(f"{n_frames} frames have no pairs to correlate")
    if n < 2:
        return math.nan
    return (_standard_deviation(total) ** 2 - n) / (n * (n - 1))


def _add(total: npt.NDArray[Any], pixels: npt.NDArray[Any], deviation: float) -> None:
    """Add a frame over its standard deviation; its mean does not change the sum's variance."""
    factor = total.dtype.type(1 / deviation)

    def work(piece: slice) -> None:
        total[piece] += pixels[piece] * factor

    _by_pieces(work, pixels.size)


def _standard_deviation(pixels: npt.NDArray[Any]) -> float:
    if not pixels.size:
        return 0.0
    # Around a typical value: squares of large numbers would lose the small differences.
    typical = np.median(pixels[:: max(1, pixels.size // 1000)]).astype(np.float64)
    if pixels.itemsize == 1:  # sums of a piece lose next to nothing in single precision
        typical = np.rint(typical).astype(np.float32)

    def work(piece: slice) -> tuple[float, float]:
        with np.errstate(over="ignore", invalid="ignore"):  # inf becomes NaN
            apart = pixels[piece] - typical
            return float(apart.sum()), float(np.einsum("i,i", apart, apart))

    sums, squares = map(sum, zip(*_by_pieces(work, pixels.size), strict=True))
    return math.sqrt(max(squares - sums * sums / pixels.size, 0.0) / pixels.size)


def _by_pieces(work: Callable[[slice], Result], size: int) -> list[Result]:
    """Return ``work(piece)`` of all pieces, which stay in a cache."""
    starts = range(0, size, _PIECE)

    def some(first: int) -> list[Result]:
        return [work(np.s_[start : start + _PIECE]) for start in starts[first : first + _AT_A_TIME]]

    firsts = range(0, len(starts), _AT_A_TIME)
    with in_order(some, firsts, "napari-mrcz-noise", alone=size < _LARGE) as parts:
        return [result for part in parts for result in part]


Image = npt.NDArray[Any]

# Sides of squares, in pixels, over which specimen and illumination are averaged: they vary slowly,
# but some patterns do too. None is the mean of the whole image.
SCALES = (32, 80, None)
# Where a specimen hides a pattern at these, its finest part may be clear. They come second: there,
# a reference made of few electrons is mostly noise, though it helps as a whole.
FINER_SCALES = (8, 16)
# The pattern is there if chance makes as much of it in none of sixteen orientations ...
_THERE = 4.0
# ... and lowers R if the share is above 1/2 by so many standard errors.
_HELPS = 1.5
# Robust standard deviations beyond which a pixel is a defect, not pattern.
_WILD = 6.0
# A specimen varies over the whole image, too: of a right reference so many standard errors less
# than all is in no movie.
_SHADED = 4.0
# Counts in squares that are compared to find edges, and steps over the usual one that are edges.
_COUNTS, _EDGE = 4000, 2.0
# Most pixels each way that show fine pattern and shading alike.
_SAMPLED = 512


@dataclass(frozen=True)
class Share:
    """The part of a reference's pattern that is in a movie."""

    value: float  # 1 for all of it, 0 for nothing
    chance: float  # Standard deviation of the value where none of the pattern is there
    error: float  # Standard error of the value
    pattern: float  # Standard deviation of the reference's pattern, over its mean

    @property
    def significance(self) -> float:
        """Standard errors by which applying the reference lowers R; negative if it raises it."""
        return (self.value - 0.5) / self.error if self.error < np.inf else 0.0

    @property
    def helps(self) -> bool:
        """Whether applying the reference lowers R, and not by chance."""
        return self.is_there and self.significance > _HELPS

    @property
    def is_there(self) -> bool:
        """Whether chance makes no such pattern of any movie."""
        return self.value > _THERE * self.chance

    @property
    def hurts(self) -> bool:
        """Whether applying the reference raises R, and not by chance."""
        return self.significance < -_HELPS and self.is_measured

    @property
    def is_measured(self) -> bool:
        """Whether the whole pattern, were it there, would be seen."""
        return _THERE * self.chance < 1

    @property
    def is_wrong(self) -> bool:
        """Whether it raises R, and a right reference would have more in any movie."""
        return self.value < 0.5 and 1 - self.value > _SHADED * self.error


class Detail:
    """Fine detail of a sum of frames, to be compared with the patterns of references.

    `total` (y, x): counts, summed over frames; `usable` (y, x): pixels to look at, of which those
    are kept whose `level` (y, x), the local mean of the counts, is positive; `scale`: side of the
    squares over which it is averaged, or areas, as `smoothed` takes them.
    """

    def __init__(self, total: Image, usable: Image, scale: int | Image | None) -> None:
        self._scale = scale
        self.level = smoothed(total, usable, scale)
        self.usable = usable & (self.level > 0)
        self._excess = np.where(self.usable, total - self.level, 0.0)
        self._power = np.abs(scipy.fft.rfft2(self._excess)) ** 2

    def pattern(self, response: Image, good: Image) -> Image:
        """Return the logarithm of a reference's factors without smooth variation, (y, x).

        `response` (y, x): counts of pixels per electron, the reciprocal of the factors; `good`
        (y, x): pixels whose response is known. The result is 0 where one is not good or not usable.
        """
        used = good & self.usable
        log = -np.log(response, where=used, out=np.zeros(response.shape))
        log -= smoothed(log, used, self._scale)
        values = log[used]
        if values.size:
            spread = 1.4826 * float(np.median(np.abs(values)))
            spread = max(spread, float(values.std()) / 2)
            used &= np.abs(log) <= _WILD * spread
        return np.where(used, log, 0).astype(np.float32)

    def share(self, pattern: Image) -> Share:
        """Return the share of a pattern, as `pattern` returns it, that is in the frames."""
        product, power = self.moments(pattern)
        mean = float(np.mean(self.level[self.usable])) if self.usable.any() else 0.0
        if not power > 0 or not mean > 0:
            return Share(0.0, np.inf, np.inf, 0.0)
        value = -product / power
        deviation = float(power / (np.count_nonzero(self.usable) * mean)) ** 0.5
        left = self._excess + value * self.level * pattern
        error = self._spread(np.abs(scipy.fft.rfft2(left)) ** 2, pattern) / power
        return Share(value, self.chance(pattern), error, deviation)

    def chance(self, pattern: Image) -> float:
        """Return the standard deviation of a pattern's share in frames without the pattern."""
        _, power = self.moments(pattern)
        return self._spread(self._power, pattern) / power if power > 0 else np.inf

    def moments(self, pattern: Image) -> tuple[float, float]:
        """Return Σ excess × pattern and Σ level × pattern²: minus their ratio is the share."""
        values = pattern.astype(np.float64)
        product = float((self._excess * values).sum())
        values *= values
        values *= self.level
        return product, float(values.sum())

    def lead(self, first: Image, second: Image) -> float:
        """Return the standard errors by which the first of two patterns explains more."""
        product, power = self.moments(first)
        difference = second - first
        left = self._excess - product / power * self.level * first if power > 0 else self._excess
        error = self._spread(np.abs(scipy.fft.rfft2(left)) ** 2, difference)
        return float((self._excess * difference).sum()) / error if error > 0 else 0.0

    @staticmethod
    def _spread(power: Image, other: Image) -> float:
        """Return the standard deviation of Σ one × other over all shifts, from one's power."""
        power = power * np.abs(scipy.fft.rfft2(other)) ** 2
        # The half of the spectrum that is not computed is the other half's mirror image.
        total = 2 * float(power.sum()) - float(power[:, 0].sum())
        if other.shape[1] % 2 == 0:
            total -= float(power[:, -1].sum())
        return float(np.sqrt(total)) / other.size


def sampled(image: Image) -> Image:
    """Return every k-th pixel each way of a whole image, which shows fine pattern and shading."""
    step = -(-max(image.shape) // _SAMPLED)
    return image[::step, ::step]


def shading(total: Image, response: Image, good: Image) -> Share:
    """Return the share of a reference's whole pattern, with its shading.

    `total`, `response`, `good` (y, x): see `Detail`, of all pixels as `sampled`. Areas between the
    edges of carbon or an aperture are compared each with its own mean.
    """
    usable = ordinary_pixels(total)
    areas = _areas(total, usable)
    detail = Detail(total, usable & (areas > 0), areas)
    return detail.share(detail.pattern(response, good))


def _areas(total: Image, usable: Image) -> Image:
    """Return numbers of the areas between edges, (y, x); 0 at edges and in small areas."""
    mean = max(float(total[usable].mean()), 1e-9) if usable.any() else 1.0
    side = int(max(min(max((_COUNTS / mean) ** 0.5, 8), min(total.shape) / 8), 1))
    log = np.log(np.maximum(smoothed(total, usable, side), 0.05 * mean))
    step = scipy.ndimage.morphological_gradient(log, size=side + 1)
    areas, _ = scipy.ndimage.label(step <= _EDGE * np.median(step))
    return np.where(np.bincount(areas.ravel())[areas] > 0.005 * areas.size, areas, 0)


def smoothed(image: Image, usable: Image, scale: int | Image | None) -> Image:
    """Return the mean of the usable pixels around each pixel, (y, x); 0 where there are none.

    `scale`: side of the square around a pixel; or numbers (y, x) of areas; None is the whole image.
    """
    if scale is None:
        return np.full(image.shape, image[usable].mean() if usable.any() else 0.0)
    if isinstance(scale, np.ndarray):
        number = np.bincount(scale[usable], minlength=scale.max() + 1)
        total = np.bincount(scale[usable], image[usable], minlength=number.size)
        return (total / np.maximum(number, 1))[scale]
    share = scipy.ndimage.uniform_filter(usable.astype(np.float64), scale)
    mean = scipy.ndimage.uniform_filter(np.where(usable, image, 0.0), scale)
    # The running sums of the filter leave rounding errors where nothing is usable.
    return np.where(share > 1e-6, mean / np.maximum(share, 1e-6), 0.0)


# Fewer pixels with one of two neighbouring values prove nothing.
_FEWEST = 60
# Above this mean no camera's zeros matter, and counts look like any noise.
_HIGHEST_MEAN = 30.0
# Twos over those expected from zeros and ones: contrast and spots make up to so many times as many,
# noise that was cut off at least so many, unless it is as narrow as one count.
_RATIO = 1.5
# Variance over mean, of all but the brightest values; and more strictly where hardly a pixel is 0.
_VARIANCE, _STRICT = (0.6, 3.0), (0.6, 1.6)
_BRIGHTEST = 0.02
# Tiles along each axis, within which the dose is nearly the same.
_TILES = 4
# Larger values are not counts of electrons.
_TOP = 1000


class CountedAlready(ValueError):
    """Frames hold counted electrons, where others are expected; `force` goes on all the same."""


def looks_counted(histogram: npt.ArrayLike) -> bool | None:
    """Return whether values are distributed as counted electrons are; None if that is uncertain.

    Poisson's distribution has as much variance as mean, and P(1)² = 2 P(0) P(2); noise of which
    everything below zero was made 0 has far more zeros. Uncertain are too few pixels, or too high
    a dose. `histogram`: number of pixels, all of about the same dose, with the value 0, 1, 2, ...
    """
    number = np.asarray(histogram, np.float64)
    # Counts may have been multiplied by a number per electron.
    unit = int(np.gcd.reduce(np.flatnonzero(number)))
    number = number[:: max(unit, 1)][:_TOP]
    total = number.sum()
    if not total:
        return None
    kept = max(int(np.searchsorted(np.cumsum(number), (1 - _BRIGHTEST) * total)) + 1, 3)
    number = np.append(number[:kept], np.zeros(3))
    values = np.arange(len(number))
    mean = float(number @ values / number.sum())
    variance = float(number @ np.square(values - mean) / number.sum())
    k, (least, most) = 1, _VARIANCE
    if min(number[:2]) < _FEWEST:
        # Where hardly a count is 0, the most frequent ones decide.
        k, (least, most) = max(int(number.argmax()), 1), _STRICT
    before, here, after = number[k - 1 : k + 2]
    if min(before, here) < _FEWEST or mean > _HIGHEST_MEAN:
        return None
    expected = here**2 * k / ((k + 1) * before)
    # Detectors that see one electron in each pixel and frame, at most, lack higher counts.
    enough = after <= _RATIO * expected + 4 * np.sqrt(expected + 1)
    return bool(enough and variance <= most * mean and (variance >= least * mean or mean < 1))


def tiles_look_counted(frames: npt.NDArray[Any]) -> bool:
    """Return whether most parts of some frames (n, y, x) hold counted electrons."""
    if frames.dtype.kind == "f" and not np.array_equal(frames, np.rint(frames)):
        return False
    if frames.min() < 0 or frames.max() > 2**31:
        return False

    def judged(values: npt.NDArray[Any]) -> bool | None:
        values = np.minimum(values.reshape(-1).astype(np.int64), 2**16)
        return looks_counted(np.bincount(values)) if values.size else None

    tiles = [
        judged(tile)
        for rows in np.array_split(frames, _TILES, axis=1)
        for tile in np.array_split(rows, _TILES, axis=2)
    ]
    if all(tile is None for tile in tiles):
        return bool(judged(frames))  # too few electrons in each: differences of dose matter little
    return 2 * tiles.count(True) > len(tiles)


# Called with the stage, how many are done, and of how many.
Progress = Callable[[str, int, int], None]


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
        transform = scipy.fft.rfft2(part * window)
        return np.square(transform.real) + np.square(transform.imag)

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
