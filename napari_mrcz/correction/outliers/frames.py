"""What single frames tell: counts per electron, a pedestal, and frames unlike the others.

Any frame may be blank, saturated or damaged. So frames from all over the movie are looked at, and
only those count that are like most others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.parallel import in_order

if TYPE_CHECKING:
    from collections.abc import Callable

# Neighbouring frames are looked at in so many places of the movie.
_PLACES = 4
# A frame is like the others if its level, and its noise in relation to it, are within these factors
# of their medians.
_LEVEL, _NOISE = 5.0, 3.0
# A frame may have so many times the dose, and still be one of the sum.
_FLASH = 30.0
# How far the mean of all frames may be from that of the frames looked at.
_APART = 0.2
# A pedestal that is a smaller part of the mean changes nothing that the fit does not take up.
_LEAST_PEDESTAL = 0.3
# The image is looked at in so many parts.
_PARTS = 64
# Fewer pixels tell nothing.
_FEWEST = 8
# Standard deviations by which neighbours may differ and both be good.
_FARTHEST = 6.0
# Whole numbers cannot vary less than Poisson counts do.
_SUB_POISSON = 0.7
# Beyond these not all whole numbers are floats.
_WHOLE = 2.0**53

Image = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def frame_reader(movie: Any) -> Callable[[int], Image]:
    """Return what reads a frame (y, x), not through the cache of a stack."""
    if not hasattr(movie, "frame_makers"):
        return lambda index: np.asarray(movie[index])
    makers = list(movie.frame_makers())
    return lambda index: np.asarray(makers[index]())


@dataclass(frozen=True)
class FrameStatistics:
    """Properties of a movie that only its single frames show.

    Attributes
    ----------
    per_electron : float
        Counts that one electron adds: the variance over the mean, without the pedestal.
    pedestal : float
        Counts in a pixel without electrons, per frame.
    unlike : tuple of int
        Frames that are unlike the others: saturated or damaged; their counts are not electrons.
    pedestal_is_unknown : bool
        Counts vary less than electrons do, but there are too few frames to measure a pedestal.
    """

    per_electron: float
    pedestal: float = 0.0
    unlike: tuple[int, ...] = ()
    pedestal_is_unknown: bool = False

    @classmethod
    def of(
        cls,
        movie: Any,
        usual: Mask,
        step: int,
        mean: float,
        gain: Image | None = None,
        pedestal: float | None = None,
    ) -> FrameStatistics:
        """Measure them.

        Parameters
        ----------
        movie : Stack or ndarray, shape (n, y, x)
            The frames.
        usual : ndarray of bool, shape (y / step, x)
            Which pixels of every `step`-th row are ordinary ones.
        step : int
            Distance of the rows that are looked at.
        mean : float
            Of the usual pixels, over all frames.
        gain : ndarray, shape (y, x), optional
            Gain reference, for a movie of a single frame.
        pedestal : float, optional
            Counts without electrons, if they are known.
        """
        read_frame = frame_reader(movie)
        n = len(movie)
        frames = _Rows(read_frame, n, usual, step)
        if np.count_nonzero(usual) < _FEWEST:
            return cls(1.0, pedestal or 0.0)
        starts = np.unique(np.linspace(0, max(n - 2, 0), _PLACES).astype(int))
        some = np.unique(np.concatenate([starts, np.minimum(starts + 1, n - 1)])).tolist()
        read = frames.read(some)
        # Of two, neither is like the others.
        like = np.ones(len(some), bool)
        if len(some) > 2:
            like = _alike([read[index] for index in some])
        good = [index for index, alike in zip(some, like, strict=True) if alike]
        level = float(np.mean([read[index].mean() for index in good]))
        unlike: tuple[int, ...] = ()
        if n > 2 and (not like.all() or abs(mean - level) > _APART * abs(level)):
            unlike = frames.unlike()
        pairs = [(read[a], read[a + 1]) for a in good if a + 1 in good]
        unit = _unit(read[good[0]])
        found, unknown = pedestal or 0.0, False
        if pedestal is None and pairs:
            if len(good) > 2:
                found = _pedestal([read[index] for index in good], pairs)
            unknown = len(good) <= 2 and 0 < _ratio(pairs, 0.0) < _SUB_POISSON * unit
        ratio = _ratio(pairs, found)
        if not ratio:
            first = read_frame(0)[::step]
            if gain is not None:
                first = first * gain[::step]
            ratio = _neighbours_ratio(first - found, usual)
        if ratio and unit and (found == 0 or np.all((read[good[0]] - found) % unit == 0)):
            ratio = float(unit * max(1, round(ratio / unit)))
        return cls(ratio or 1.0, found, unlike, unknown)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The usual pixels of some rows of each frame."""

    frame: Callable[[int], Image]
    n_frames: int
    usual: Mask
    step: int

    def read(self, indices: list[int]) -> dict[int, npt.NDArray[np.float64]]:
        """Return those of some frames, by index."""
        # One after the other: several at a time would take memory for a few frames' time.
        return {index: self.values(index) for index in indices}

    def values(self, index: int) -> npt.NDArray[np.float64]:
        """Return those of one frame."""
        rows = self.frame(index)[:: self.step][self.usual].astype(np.float64)
        return np.where(np.isfinite(rows), rows, 0)

    def unlike(self) -> tuple[int, ...]:
        """Look at all frames; return those that would spoil the sum."""

        def work(index: int) -> tuple[float, float]:
            return _statistics(self.values(index))

        with in_order(work, range(self.n_frames), "napari-mrcz-outliers") as found:
            level, noise = np.array(list(found)).T
        # Frames with fewer counts add little to a sum, whatever is wrong with them.
        wrong = ~_like(level, noise, _FLASH) & (level > np.median(level))
        return tuple(np.flatnonzero(wrong).tolist()) if wrong.mean() < 0.5 else ()


def _statistics(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of a frame, and the variance between neighbours over it."""
    level = float(values.mean()) if values.size else 0.0
    noise = float(np.diff(values).var()) / 2 / level if level > 0 else 0.0
    return level, noise


def _alike(frames: list[npt.NDArray[np.float64]]) -> Mask:
    level, noise = np.array([_statistics(frame) for frame in frames]).T
    return _like(level, noise)


def _like(
    level: npt.NDArray[np.float64], noise: npt.NDArray[np.float64], most: float = _LEVEL
) -> Mask:
    """Mark frames whose level and noise are like those of most others; all if none are."""
    some = level > 0
    if not some.any():
        return np.ones(len(level), bool)
    usual_level, usual_noise = np.median(level[some]), np.median(noise[some])
    like: Mask = some & (level <= most * usual_level) & (level >= usual_level / _LEVEL)
    if usual_noise > 0:
        like &= (noise <= _NOISE * usual_noise) & (noise >= usual_noise / _NOISE)
    return like if like.any() else np.ones(len(level), bool)


def _unit(values: npt.NDArray[np.float64]) -> int:
    """Return the largest number that whole counts are multiples of, but for an offset; else 0."""
    largest = float(np.abs(values).max(initial=0))
    if largest >= _WHOLE or not np.all(values == np.rint(values)) or not values.size:
        return 0
    return max(1, int(np.gcd.reduce((values - values.min()).astype(np.int64), initial=0)))


def _ratio(pairs: list[tuple[Image, Image]], pedestal: float) -> float:
    """Return the variance over the mean of a pixel from frame to frame.

    No fixed pattern adds to it. The median over parts of the image: something may move, or shine
    up, in some of them.
    """
    ratios = []
    for one, other in pairs:
        # Between neighbours, as the specimen may have moved.
        difference = np.diff(one - other)
        starts = np.arange(0, difference.size, max(1, difference.size // _PARTS))
        size = np.diff(starts, append=difference.size)
        variance = np.add.reduceat(difference**2, starts) / size / 4
        level = np.add.reduceat((one + other)[1:], starts) / size / 2 - pedestal
        ratios.append(variance[level > 0] / level[level > 0])
    found = np.concatenate(ratios) if ratios else np.zeros(0)
    return float(np.median(found)) if found.size else 0.0


def _pedestal(frames: list[npt.NDArray[np.float64]], pairs: list[tuple[Image, Image]]) -> float:
    """Measure the counts of a pixel without electrons, from the skewness of the noise.

    Of Poisson counts the mean is the square of the variance over the third cumulant, whatever one
    electron counts; what is more than that is the pedestal. The cumulant comes from differences
    of three frames, so that neither specimen nor fixed pattern adds to it.
    """
    cumulants, errors = [], []
    for a, b in pairs:
        c = next((frame for frame in frames if frame is not a and frame is not b), None)
        if c is None:
            continue
        a, b, c = a - a.mean(), b - b.mean(), c - c.mean()
        for one, other in ((a, b), (b, a)):
            product = (one - other) ** 2 * (one - c)
            cumulants.append(product.mean())
            errors.append(product.std() / max(product.size, 1) ** 0.5)
    if not cumulants:
        return 0.0
    cumulant = float(np.mean(cumulants))
    mean = float(np.mean([frame.mean() for frame in frames]))
    if cumulant <= 5 * float(np.mean(errors)):
        return 0.0
    variance = float(np.mean([(a - b).var() / 2 for a, b in pairs]))
    signal = variance**2 / cumulant
    pedestal = mean - signal
    lowest = float(np.quantile(np.concatenate(frames), 1e-4))
    if pedestal < _LEAST_PEDESTAL * mean or lowest < _LEAST_PEDESTAL * pedestal:
        return 0.0
    # Where there are few electrons, a good part of the pixels has none of them.
    least = min(float(frame.min()) for frame in frames)
    empty = float(np.mean([np.mean(frame == least) for frame in frames]))
    if empty > 1e-3 and abs(least - pedestal) < signal:
        return least
    return pedestal


def _neighbours_ratio(frame: Image, usual: Mask) -> float:
    """Return variance over mean of one frame, from pixels next to each other."""
    both = usual[:, 1:] & usual[:, :-1]
    one, other = frame[:, 1:][both].astype(np.float64), frame[:, :-1][both].astype(np.float64)
    if not one.size:
        return 0.0
    level, apart = float(np.median(one + other)), np.abs(one - other)
    # Next to an outlier it is not the noise that differs.
    kept = apart <= _FARTHEST * max(1.4826 * float(np.median(apart)), max(level, 0) ** 0.5)
    level = float((one + other)[kept].mean()) if kept.any() else 0.0
    return float((one - other)[kept].var()) / level if level > 0 else 0.0
