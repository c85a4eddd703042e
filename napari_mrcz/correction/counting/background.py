"""The background of raw frames: each pixel's offset, and the noise about it.

Also the common mode, by which all pixels of a frame, a row or a column are shifted in one frame,
and the pixels with noise of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.sums import spread_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Frames whose median shows which pixels were struck.
_FRAMES_OF_MEDIAN = 9
MOST_FRAMES = 64
"""Frames of a movie on which offsets are measured, at most."""

# Values farther above the offset than this, in read noises, were struck.
_STRUCK = 2.5
# No detector reads out larger values, whose squares overflow.
_BEYOND = 1e15
# Mean of a normal distribution that was cut off above 2.5 sigma, in sigmas.
_CUT_MEAN = -0.017638
# Variance of a median of n values of a normal distribution, times n.
_OF_MEDIAN = np.pi / 2
# Common mode is removed where it is above this, in read noises, and where that removes more noise
# than it adds: medians of short rows have errors, and electrons move them, too (by half as much).
_LEAST_WANDER, _AND_ELECTRONS = 0.15, 1.5
# Frames farther from the others than so many median deviations are blank or saturated.
_UNLIKE = 8.0
# Times that offsets and common mode are measured in turn.
_ROUNDS = 3
# Pixels with more than this times the variance of the others have noise of their own, if that is
# also so many standard deviations (of its logarithm, from nine tenths of the pixels) above: few
# frames, and electrons' outskirts, make it vary...
_OWN_VARIANCE, _TENTH, _DEVIATIONS, _DEAD = 2.2, 1.2816, 4.0, 5.0
# ...or those that are brightest of their neighbours, and this far above their offset in noises,
# more often than the pixels in such a square about them, at this probability, and so many times as
# often as their neighbours: Bragg spots are wider than a pixel.
_FLICKER, _SQUARE, _CHANCE, _WIDER = 5.0, 33, 1e-4, 2.0
# Rows whose medians are taken at a time.
_STRIP = 256
_LEAST = 1e-30
# With fewer frames, no pixel's variance is known.
_FEWEST_FRAMES = 6
_STILL = "the frames do not vary: these are not raw frames to count electrons in"

Levels = tuple[npt.NDArray[np.float32], ...]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Background:
    """Offset, read noise and common mode."""

    offset: npt.NDArray[np.float32]  # (y, x): mean of each pixel without electrons, in grey values
    noise: float  # Standard deviation about it, in grey values: of all pixels but the noisy ones
    # (y, x): pixels with noise of their own, such as flickering or hot ones, which are ignored
    noisy: Mask | None = None
    # One array per common mode, of the shape (1, 1) for whole frames, (y, 1) for rows and (1, x)
    # for columns: the typical median above the offset. A frame's own less this is removed from it.
    levels: Levels = ()
    # Standard deviation of the common mode from frame to frame, in grey values; 0 if too small
    wander: float = 0.0

    @classmethod
    def fit(
        cls, movie: Any, *, progress: Callable[[str, int, int], None] | None = None
    ) -> Background:
        """Measure it on frames spread over a movie.

        Electrons only ever add: values below a pixel's median are noise alone, and show its
        width; values well above were struck, and are left out of the mean.

        `movie` (n, y, x): raw frames, few of whose pixels were struck; `progress`: called after
        each frame with (text, frames done, frames). Raise `ValueError` if there are no frames, they
        do not vary, or hold values of no detector.
        """
        shape = tuple(getattr(movie, "shape", ()))
        if len(shape) != 3 or not all(shape[1:]):
            raise ValueError(f"electrons are counted in frames (n, y, x), not in {shape}")
        n = shape[0]
        if not n:
            raise ValueError("a background is measured on at least one frame")

        def frames(most: int, text: str) -> Iterator[npt.NDArray[Any]]:
            indices = spread_over(n, most)
            for done, index in enumerate(indices, 1):
                frame = np.asarray(movie[index])
                if not has_one_value(frame):
                    yield real(frame)
                if progress is not None:
                    progress(text, done, len(indices))

        first = list(frames(_FRAMES_OF_MEDIAN, "Reading for medians, frame"))
        if not first:
            raise ValueError(_STILL)
        if len(first) < 3:
            # No frame to compare with: all pixels are taken to be alike.
            offset = np.full(shape[1:], np.median(np.stack(first)), np.float32)
            return cls(offset, _below(frame - offset for frame in first))
        found = _of_few(first)
        sums = _Sums(found)
        for frame in frames(MOST_FRAMES, "Measuring offsets, frame"):
            sums.add(frame)
            del frame  # while the next one is read
        better = _moved(found, sums.offset(), first)
        noisy = sums.noisy()
        noise = _below(better.above(frame)[~noisy] for frame in first)
        return replace(better, noise=noise, noisy=noisy if noisy.any() else None)

    def steady(self, frame: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return a frame without its common mode, shape (y, x)."""
        steady = frame.astype(np.float32)
        for typical in self.levels:
            steady -= _medians(steady - self.offset, typical.shape) - typical
        return steady

    def above(self, frame: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return a frame above its background: without common mode and offsets, shape (y, x)."""
        return (self.steady(frame) if self.levels else frame) - self.offset

    @property
    def common_mode(self) -> str:
        """The parts that wander: "frames", "rows", "columns", "rows and columns", or ""."""
        if not self.wander:
            return ""
        names = [
            "frames" if level.size == 1 else "rows" if level.shape[1] == 1 else "columns"
            for level in self.levels
        ]
        return " and ".join(names)


def has_one_value(frame: npt.NDArray[Any]) -> bool:
    """Return whether all pixels have one value: a frame that was dropped, or is saturated."""
    return frame.size > 1 and bool(frame.max() == frame.min())


def real(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the frame; raise `ValueError` if its pixels are complex, or not finite."""
    if frame.dtype.kind not in "buif":
        raise ValueError(f"electrons are counted in frames of real numbers, not of {frame.dtype}")
    if frame.dtype.kind == "f":
        largest = min(_BEYOND, float(np.finfo(frame.dtype).max))
        if not (np.abs(frame) <= largest).all():
            advice = "replace those pixels first (OutlierFilter)"
            raise ValueError(f"a frame has pixels that are not charges, such as NaN; {advice}")
    return frame


def _of_few(frames: list[npt.NDArray[Any]]) -> Background:
    """Measure offsets, and which common mode there is, on a few frames."""
    n, shape = len(frames), frames[0].shape
    kinds = (1, 1), (shape[0], 1), (1, shape[1])
    wanders = [np.zeros((n, *kind), np.float32) for kind in kinds]
    steady = np.stack([frame.astype(np.float32) for frame in frames])
    for _ in range(_ROUNDS):
        # Of whole frames first, then the rest of rows and columns.
        offset = _middle(steady)
        for total in wanders:
            more = np.stack([_medians(frame - offset, total.shape[1:]) for frame in steady])
            more -= more.mean(axis=0)
            steady -= more
            total += more
    noise = _below(frame - offset for frame in steady)
    variances = []
    for total in wanders:
        error = _AND_ELECTRONS * _OF_MEDIAN * noise**2 * total[0].size / steady[0].size
        variance = float(np.square(total).sum()) / (n - 1) / total[0].size - error
        variances.append(variance if variance > max(error, (_LEAST_WANDER * noise) ** 2) else 0.0)
    if variances[0] > 0:
        # A few frames that are blank or saturated are not wander.
        apart = np.abs(wanders[0] - np.median(wanders[0]))
        alike = wanders[0][apart <= _UNLIKE * max(float(np.median(apart)), _LEAST_WANDER * noise)]
        size = float(alike.std())
        variances[0] = size**2 if size > _LEAST_WANDER * noise else 0.0
    kept = [kind for kind, size in zip(kinds[1:], variances[1:], strict=True) if size > 0]
    if not kept:
        # Whole frames are always levelled: one that was not looked at may jump. Medians of rows or
        # columns include those of whole frames.
        kept = [kinds[0]]
        for total in wanders[1:]:
            steady += total
    offset = _middle(steady)
    # Typical medians are those without wander.
    levels = [
        np.mean([_medians(frame - offset, kind) for frame in steady], axis=0) for kind in kept
    ]
    found = Background(offset, noise, None, tuple(levels), float(np.sqrt(sum(variances))))
    return replace(found, noise=_below(found.above(frame) for frame in frames))


def _moved(
    old: Background, apart: npt.NDArray[np.float32], frames: list[npt.NDArray[Any]]
) -> Background:
    """Return a background with offsets moved by `apart`, and the typical medians of these."""
    new = replace(old, offset=old.offset + apart)
    levels = [np.zeros(typical.shape, np.float32) for typical in old.levels]
    for raw in frames if old.levels else ():
        frame = raw.astype(np.float32)
        for typical, level in zip(old.levels, levels, strict=True):
            wander = _medians(frame - old.offset, typical.shape) - typical
            level += (_medians(frame - new.offset, typical.shape) - wander) / len(frames)
            frame -= wander
    return replace(new, levels=tuple(levels))


class _Sums:
    """Statistics of each pixel in frames where no electron struck it."""

    def __init__(self, background: Background) -> None:
        self._background = background
        shape = background.offset.shape
        self._number, self._total, self._squares = (np.zeros(shape, np.float32) for _ in range(3))
        self._strikes, self._least = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._n_frames = 0

    def add(self, frame: npt.NDArray[Any]) -> None:
        """Add a raw frame."""
        noise = self._background.noise
        above = self._background.above(frame)
        brightest = scipy.ndimage.maximum_filter(above, 3)
        quiet = (above < _STRUCK * noise) & (brightest < _FLICKER * noise)
        self._number += quiet
        self._strikes += (above > _FLICKER * noise) & (above == brightest)
        np.minimum(self._least, above, out=self._least)
        above[~quiet] = 0
        self._total += above
        self._squares += np.square(above)
        self._n_frames += 1

    def offset(self) -> npt.NDArray[np.float32]:
        """Return the offsets above those that were known before, shape (y, x)."""
        noise = self._background.noise
        mean = self._total / np.maximum(self._number, 1) - _CUT_MEAN * noise
        if self._n_frames < _FEWEST_FRAMES:
            # Electrons struck most of the frames, so that the median is one of theirs.
            mean = np.where(self._least < -_FLICKER * noise, self._least, mean)
        return mean.astype(np.float32)

    def noisy(self) -> Mask:
        """Return which pixels have noise of their own, shape (y, x)."""
        noisy = np.zeros(self._number.shape, np.bool_)
        y, x = np.nonzero(self._strikes > 2)
        others = scipy.ndimage.uniform_filter(self._strikes, _SQUARE, mode="nearest")[y, x]
        padded = np.pad(self._strikes, 1)
        beside = [padded[y + i, x + j] for i in range(3) for j in range(3)]
        others = np.maximum(others, _WIDER * np.median(beside, axis=0))
        noisy[y, x] = scipy.stats.poisson.sf(self._strikes[y, x] - 1, others) < _CHANCE
        if self._n_frames < _FEWEST_FRAMES:
            return noisy
        number = np.maximum(self._number, 1)
        variance = self._squares / number - np.square(self._total / number)
        median, most = np.quantile(variance, (0.5, 0.9))
        varies = np.log(max(most / max(median, _LEAST), 1)) / _TENTH
        ratio = max(_OWN_VARIANCE, float(np.exp(_DEVIATIONS * varies)))
        noisy |= variance > ratio * median
        # Dead pixels hardly vary. A noise below one grey value makes many of the others as still.
        if self._n_frames >= 2 * _FEWEST_FRAMES:
            noisy |= variance < median * (np.quantile(variance, 0.1) / max(median, _LEAST)) ** _DEAD
        # One that is hardly ever quiet has no known variance.
        noisy |= self._number < 0.1 * self._n_frames
        return noisy


def _middle(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the median of each pixel, shape (y, x); numpy's takes as much memory as the frames."""
    median = np.empty(frames.shape[1:], np.float32)
    for top in range(0, len(median), _STRIP):
        median[top : top + _STRIP] = np.median(frames[:, top : top + _STRIP], axis=0)
    return median


def _medians(frame: npt.NDArray[np.float32], kind: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return medians of a frame, of its rows or of its columns, of the shape `kind`."""
    axis = None if kind == (1, 1) else 1 if kind[1] == 1 else 0
    return np.median(frame, axis=axis, keepdims=True).astype(np.float32)


def _below(above: Iterable[npt.NDArray[Any]]) -> float:
    """Return the noise from values below the offset: half of a normal distribution.

    Raise `ValueError` if there are none.
    """
    squares, number = 0.0, 0
    for frame in above:
        below = frame[frame < 0]
        squares += float(np.square(below, dtype=np.float64).sum())
        number += below.size
    if not squares > 0:
        raise ValueError(_STILL)
    return float(np.sqrt(squares / number))
