"""How much of a gain reference's pattern is in a movie: what applying it adds or takes away.

Relative to its local mean, a sum of frames is 1 + p + noise with a fixed pattern p, and the factors
of a reference are 1 + g. Applied, they leave p + g: nothing where the reference is the right one
(p = -g), the variance of both where it is another camera's. All depends on the slope of -p on g,
here the *share* of the reference's pattern that is in the movie: applying the reference lowers the
correlated noise R (preprint doi:10.1101/116533, eq. 7) where the share exceeds 1/2.

The share is linear in the counts and thus known from few electrons, long before R itself is. Its
error by chance is the spread of the same product of the two images at all shifts against each
other: neither columns nor specimen nor smooth sweeps, of which an image has but a few, count for
more than they are worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

Image = npt.NDArray[Any]

# Sides of squares, in pixels, over which what is not pattern is averaged: specimen and illumination
# vary slowly, but some patterns do too. None is the mean of the whole image.
SCALES = (32, 80, None)
# The pattern is there if chance makes as much of it in no way of sixteen ...
_THERE = 4.0
# ... and lowers R if the share is above 1/2 by so many standard errors.
_HELPS = 1.5
# In robust standard deviations: what lies further off is no pattern, but defects.
_WILD = 6.0


@dataclass(frozen=True)
class Share:
    """How much of a reference's pattern is in a movie.

    Attributes
    ----------
    value : float
        1 if all of it is there, 0 if none is.
    chance : float
        Standard deviation of the value where none of the pattern is there.
    error : float
        Standard error of the value.
    pattern : float
        Standard deviation of the reference's pattern, over its mean.
    """

    value: float
    chance: float
    error: float
    pattern: float

    @property
    def significance(self) -> float:
        """By how many standard errors applying the reference lowers R; negative if it raises it."""
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


class Detail:
    """What is fine in a sum of frames, and comparing it with the patterns of references.

    Parameters
    ----------
    total : ndarray, shape (y, x)
        Counts, summed over frames.
    usable : ndarray of bool, shape (y, x)
        Pixels to look at.
    scale : int or None
        Side of the squares over which the specimen is averaged.

    Attributes
    ----------
    level : ndarray of float64, shape (y, x)
        Local mean of the counts; 0 where no pixel is usable.
    usable : ndarray of bool, shape (y, x)
        Of these pixels, those whose level is positive.
    """

    def __init__(self, total: Image, usable: Image, scale: int | None) -> None:
        self._scale = scale
        self.level = smoothed(total, usable, scale)
        self.usable = usable & (self.level > 0)
        self._excess = np.where(self.usable, total - self.level, 0.0)

    def pattern(self, response: Image, good: Image) -> Image:
        """Return the logarithm of a reference's factors without what is smooth, (y, x).

        Parameters
        ----------
        response : ndarray, shape (y, x)
            What pixels count per electron, the reciprocal of the factors.
        good : ndarray of bool, shape (y, x)
            Pixels whose response is known.

        Returns
        -------
        ndarray of float32, shape (y, x)
            0 where the pixel is not good or not usable.
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
        """Return how much of a pattern, as `pattern` returns it, is in the frames."""
        product, power = self.moments(pattern)
        mean = float(np.mean(self.level[self.usable])) if self.usable.any() else 0.0
        if not power > 0 or not mean > 0:
            return Share(0.0, np.inf, np.inf, 0.0)
        value = -product / power
        deviation = float(power / (np.count_nonzero(self.usable) * mean)) ** 0.5
        chance = self._spread(self._excess, pattern) / power
        left = self._excess + value * self.level * pattern
        return Share(value, chance, self._spread(left, pattern) / power, deviation)

    def moments(self, pattern: Image) -> tuple[float, float]:
        """Return Σ excess × pattern and Σ level × pattern²: minus their ratio is the share."""
        values = pattern.astype(np.float64)
        product = float((self._excess * values).sum())
        values *= values
        values *= self.level
        return product, float(values.sum())

    def lead(self, first: Image, second: Image) -> float:
        """Return by how many standard errors the first of two patterns explains more."""
        product, power = self.moments(first)
        difference = second - first
        left = self._excess - product / power * self.level * first if power > 0 else self._excess
        error = self._spread(left, difference)
        return float((self._excess * difference).sum()) / error if error > 0 else 0.0

    @staticmethod
    def _spread(one: Image, other: Image) -> float:
        """Return the standard deviation of Σ one × other over all shifts of one of them."""
        power = np.abs(scipy.fft.rfft2(one)) ** 2 * np.abs(scipy.fft.rfft2(other)) ** 2
        # The half of the spectrum that is not computed is the other half's mirror image.
        total = 2 * float(power.sum()) - float(power[:, 0].sum())
        if one.shape[1] % 2 == 0:
            total -= float(power[:, -1].sum())
        return float(np.sqrt(total)) / one.size


def smoothed(image: Image, usable: Image, scale: int | None) -> Image:
    """Return the mean of the usable pixels around each pixel, (y, x); 0 where there are none."""
    if scale is None:
        return np.full(image.shape, image[usable].mean() if usable.any() else 0.0)
    share = scipy.ndimage.uniform_filter(usable.astype(np.float64), scale)
    mean = scipy.ndimage.uniform_filter(np.where(usable, image, 0.0), scale)
    # The running sums of the filter leave rounding errors where nothing is usable.
    return np.where(share > 1e-6, mean / np.maximum(share, 1e-6), 0.0)
