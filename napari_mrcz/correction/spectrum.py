"""The power spectrum of an image: Thon rings, and how far they go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.fft import rfft2

from napari_mrcz.correction.sums import in_order
from napari_mrcz.naming import size_zyx

if TYPE_CHECKING:
    from collections.abc import Sequence

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
