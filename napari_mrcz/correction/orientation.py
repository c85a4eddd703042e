"""Which way round a gain reference lies: the first thing that goes wrong with it.

References come rotated or flipped against the movie (TIFF and DM4 count rows from the other end
than MRC), as factors or as their reciprocals, and with twice the pixels. The right way is the one
that leaves the least correlated noise (preprint doi:10.1101/116533, eq. 7) between the frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from napari_mrcz.correction.sums import ordinary_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["ORIENTATIONS", "Candidate", "OrientationSearch", "find_orientation", "orient"]

Image = npt.NDArray[Any]

# Specimen and illumination vary over more pixels than this, the patterns compared over fewer.
_SMOOTH = 32
# So many pixels each way, from the middle, tell with certainty; more only take longer.
_ENOUGH = 2048

_TURNS: dict[str, Callable[[Image], Image]] = {
    "identity": lambda image: image,
    "rot90": lambda image: np.rot90(image, 1),
    "rot180": lambda image: np.rot90(image, 2),
    "rot270": lambda image: np.rot90(image, 3),
    "flipud": np.flipud,
    "fliplr": np.fliplr,
    "transpose": np.transpose,
    "transverse": lambda image: np.rot90(image, 2).T,
}
ORIENTATIONS = tuple(_TURNS)
"""The eight, by their names in numpy; `transverse` mirrors at the other diagonal."""


def orient(image: Image, orientation: str) -> Image:
    """Turn or flip an image.

    Parameters
    ----------
    image : ndarray, shape (y, x)
        With row 0 on top, as numpy prints it, "rot90" turns counter-clockwise.
    orientation : str
        One of `ORIENTATIONS`.

    Returns
    -------
    ndarray, shape (y, x) or (x, y)
        A view.

    Raises
    ------
    ValueError
        If there is no such orientation.
    """
    if orientation not in _TURNS:
        raise ValueError(f"orientation {orientation!r} is none of {', '.join(ORIENTATIONS)}")
    return _TURNS[orientation](image)


@dataclass(frozen=True)
class Candidate:
    """One way to apply a reference, and what it leaves.

    Attributes
    ----------
    orientation : str
        One of `ORIENTATIONS`.
    reciprocal : bool
        The reference is divided by, not multiplied with.
    shape : tuple of int
        The frames' (y, x), to which a reference of half or twice as many pixels is brought.
    noise : float
        Correlated noise of the frames after applying it.
    """

    orientation: str
    reciprocal: bool
    shape: tuple[int, int]
    noise: float

    def prepare(self, reference: Image) -> npt.NDArray[np.float32]:
        """Give the reference as `GainNormalization` takes it for this movie.

        Parameters
        ----------
        reference : ndarray
            As it came.

        Returns
        -------
        ndarray of float32, shape (y, x)
            Factors; 0 where a pixel is defective.
        """
        response, good = _response(reference, reciprocal=self.reciprocal)
        turned = orient(response, self.orientation), orient(good, self.orientation)
        response, good = _resampled(*turned, self.shape)
        return np.where(good, 1 / response, 0).astype(np.float32)


@dataclass(frozen=True)
class OrientationSearch:
    """What was tried, the best first.

    Attributes
    ----------
    candidates : tuple of Candidate
        Ranked by the correlated noise that they leave.
    before : float
        Correlated noise without the reference. A best candidate that leaves no less says that
        the movie is normalised already, or that the reference is another camera's.
    margin : float
        By how much the best beats the second, in standard errors of their difference. Below
        about 5 it may be chance.
    error : float
        Standard error of all these noises: where frames have nothing in common, they scatter
        about 0 by so much.
    """

    candidates: tuple[Candidate, ...]
    before: float
    margin: float
    error: float = 0.0

    @property
    def best(self) -> Candidate:
        """The one that leaves the least correlated noise."""
        return self.candidates[0]


def find_orientation(
    movie: Any, reference: Image, *, progress: Callable[[int, int], None] | None = None
) -> OrientationSearch:
    """Find out how a gain reference is to be applied to a movie.

    All eight orientations that fit the frames, as factors and as reciprocals, in one pass over
    the movie: mean pairwise R after any factor follows from the sums of the frames and of their
    squares. Hot pixels are left out, and what varies smoothly (specimen, illumination, also the
    reference's own sweeps) is divided out, so that no carbon edge decides.

    Parameters
    ----------
    movie : Stack or array_like, shape (n, y, x)
        Raw frames, at least two; few electrons will do.
    reference : ndarray, shape (y, x)
        Of the frames' shape, turned or not, or of twice (super-resolution) or half as many
        pixels each way.
    progress : callable, optional
        Called, when all frames are read, with the ways that have been tried and how many there
        will be; what it raises ends the search.

    Returns
    -------
    OrientationSearch

    Raises
    ------
    ValueError
        If the reference fits in no orientation or has no good pixel, there are fewer than two
        frames, or they hold no counts that it could be compared with.
    """
    reference = np.asarray(reference)
    if reference.ndim != 2 or reference.dtype.kind not in "buif":
        raise ValueError(
            f"a reference is an image of real numbers, not {reference.dtype} of {reference.shape}"
        )
    if not (np.isfinite(reference) & (reference > 0)).any():
        raise ValueError("no pixel of the reference is positive: it normalises nothing")
    shape, n, total, squares = _moments(movie)
    fitting = _fitting(reference.shape, shape)
    told = progress or (lambda done, n_ways: None)
    told(0, 2 * len(fitting))
    usable = ordinary_pixels(total)
    level = _smoothed(total / n, usable)
    usable &= level > 0
    if not usable.any():
        raise ValueError("the frames hold no counts that a reference could be compared with")
    level[level <= 0] = 1
    total /= level
    squares /= level**2
    tried = []
    for reciprocal in (False, True):
        for way, factor, good in _factors(reference, shape, fitting, reciprocal=reciprocal):
            noise = _noise(n, total, squares, usable & good, factor)
            tried.append((noise, way, reciprocal, factor, good))
            told(len(tried), 2 * len(fitting))
    if not tried:
        raise ValueError(
            f"a reference of {reference.shape} fits frames of {shape} in no orientation, "
            "neither as it is nor with twice or half as many pixels"
        )
    tried.sort(key=lambda item: item[0])
    return OrientationSearch(
        tuple(Candidate(way, inverse, shape, noise) for noise, way, inverse, _, _ in tried),
        before=_noise(n, total, squares, usable, np.ones(total.shape)),
        margin=_margin(total, usable, tried[0][3:], tried[1][3:]),
        # Of n (n - 1) / 2 correlations, each of so many pixels.
        error=float(np.sqrt(2 / (n * (n - 1) * np.count_nonzero(usable)))),
    )


def _moments(movie: Any) -> tuple[tuple[int, int], int, Image, Image]:
    """Give the frames' shape, their number, and of their middle the sum and that of squares."""
    n = 0
    shape = (0, 0)
    total = squares = np.empty(0)
    for frame in movie:
        if frame.ndim != 2 or frame.dtype.kind not in "buif":
            raise ValueError(
                f"frames are images of real numbers, not {frame.dtype} of {frame.shape}"
            )
        counts = np.array(frame[_middle(frame.shape)], np.float64)
        if not n:
            shape = frame.shape
            total, squares = np.zeros(counts.shape), np.zeros(counts.shape)
        total += counts
        counts *= counts
        squares += counts
        n += 1
    if n < 2:
        raise ValueError(f"correlated noise needs at least two frames, not {n}")
    return shape, n, total, squares


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    starts = (max(size - _ENOUGH, 0) // 2 for size in shape)
    return tuple(slice(start, start + _ENOUGH) for start in starts)


def _noise(n: int, total: Image, squares: Image, usable: Image, factor: Image) -> float:
    """Give the mean R between frames times `factor`: (var Σx - Σ var x) / ((n - 1) Σ var x)."""
    if np.count_nonzero(usable) < 2:
        return np.inf
    weights = factor[usable]
    sums = total[usable] * weights
    # The frames' means are taken to be alike: their spread is of second order.
    variances = float(np.mean(squares[usable] * weights**2) - np.mean(sums) ** 2 / n)
    return (float(np.var(sums)) - variances) / ((n - 1) * variances) if variances > 0 else np.inf


def _margin(total: Image, usable: Image, first: Sequence[Image], second: Sequence[Image]) -> float:
    """Give the difference of two candidates' variances in standard errors of it."""
    usable = usable & first[1] & second[1]
    if np.count_nonzero(usable) < 2:
        return 0.0
    one, two = (
        np.square(_centred(total[usable] * factor[usable])) for factor, _ in (first, second)
    )
    difference = two - one
    error = float(difference.std()) / len(difference) ** 0.5
    return max(float(difference.mean()) / error, 0.0) if error > 0 else 0.0


def _centred(values: Image) -> Image:
    values = values / values.mean()
    return values - 1


def _fitting(reference: tuple[int, ...], frames: tuple[int, ...]) -> list[str]:
    """Give the orientations in which a reference of one shape fits frames of another."""
    twice, half = (tuple(factor * size for size in frames) for factor in (2, 0.5))
    return [
        way
        for way in ORIENTATIONS
        if orient(np.broadcast_to(np.False_, reference), way).shape in (frames, twice, half)
    ]


def _factors(
    reference: Image, shape: tuple[int, ...], fitting: list[str], *, reciprocal: bool
) -> Iterator[tuple[str, Image, Image]]:
    """Yield orientation, factor and usable pixels, for each orientation that fits."""
    response, good = _response(reference, reciprocal=reciprocal)
    for orientation in fitting:
        turned = _resampled(orient(response, orientation), orient(good, orientation), shape)
        values, usable = (image[_middle(shape)] for image in turned)
        smooth = _smoothed(values, usable)
        usable = usable & (smooth > 0)
        yield orientation, np.divide(smooth, values, where=usable, out=np.ones_like(smooth)), usable


def _response(reference: Image, *, reciprocal: bool) -> tuple[Image, Image]:
    """Give what pixels count per electron, and which are good."""
    values = np.asarray(reference, np.float64)
    good = np.isfinite(values) & (values > 0)
    values = np.where(good, values, 1)
    return values if reciprocal else 1 / values, good


def _resampled(response: Image, good: Image, shape: tuple[int, ...]) -> tuple[Image, Image]:
    """Bring a response to the frames' shape.

    Four sub-pixels count as one with the mean of their responses, so it is these, not the
    factors, that are averaged.
    """
    y, x = shape
    if response.shape == (y, x):
        return response, good
    if response.shape == (2 * y, 2 * x):
        every = good.reshape(y, 2, x, 2).min(axis=(1, 3))
        return response.reshape(y, 2, x, 2).mean(axis=(1, 3)), every
    if (2 * response.shape[0], 2 * response.shape[1]) == (y, x):
        return (
            response.repeat(2, axis=0).repeat(2, axis=1),
            good.repeat(2, axis=0).repeat(2, axis=1),
        )
    raise ValueError(f"a reference of {response.shape} does not fit frames of {shape}")


def _smoothed(image: Image, usable: Image) -> Image:
    """Give the local mean of the usable pixels; 0 where there are none."""
    share = uniform_filter(usable.astype(np.float64), _SMOOTH)
    mean = uniform_filter(np.where(usable, image, 0.0), _SMOOTH)
    # The running sums of the filter leave rounding errors where nothing is usable.
    return np.where(share > 1e-6, mean / np.maximum(share, 1e-6), 0.0)
