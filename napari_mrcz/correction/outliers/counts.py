"""The sum of a movie's frames in electrons, in which outlier pixels are searched.

In the sum an outlier stays where it is and gathers strength, while the specimen drifts and blurs
(preprint doi:10.1101/116533, section 4, step 1).

Only single frames show the counts per electron, a pedestal, and frames unlike the others. Any of
them may be blank, saturated or damaged; so frames from all over the movie are looked at, and only
those count that are like most others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.sums import (
    RunningSum,
    give_back,
    in_order,
    smallest_sum_dtype,
    spread_over,
    sum_array,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# Pixels of a sample of the sum, and of a single frame.
_SAMPLE, _FRAME_SAMPLE = 2**18, 2**16
# Larger values, or those below the reciprocal, have no square in float32; a few pixels may be so.
_LARGEST, _FEW = 1e18, 0.01
# Rows and columns that are looked at from each border, and of these the most that may be odd; least
# difference of their level, and in standard deviations of the usual difference of lines.
_BESIDE, _WIDEST = 48, 8
_OTHER_LEVEL, _CERTAIN = 0.05, 8.0
# Pixels of the pieces of these lines that are compared; least part of the difference that a piece
# has, and part of the pieces that do.
_PIECE, _LEAST, _ALONG = 64, 0.4, 0.9
Image = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


class Area(NamedTuple):
    """A rectangle of defective pixels, wider than a line."""

    top: int
    bottom: int  # After its last row
    left: int
    right: int
    level: float  # Electrons of its pixels, over those around it
    is_certain: bool  # Nothing but the camera makes it; others may be the shadow of something
    is_border: bool = False  # Rows or columns at the border

    @property
    def name(self) -> str:
        """Its rows, if it is a border of some, else its columns."""
        is_row = self.bottom - self.top < self.right - self.left
        first, after = (self.top, self.bottom) if is_row else (self.left, self.right)
        name = "row" if is_row else "column"
        return f"{name} {first}" if after - first == 1 else f"{name}s {first} to {after - 1}"


@dataclass(frozen=True, eq=False)
class SummedCounts:
    """The sum of a movie's frames, and the numbers that convert it to electrons."""

    total: Image  # (y, x): the sum, in counts; an ordinary value where there is a defect
    n_frames: int  # Frames in it
    per_electron: float  # Counts that one electron adds
    gain: npt.NDArray[np.float32] | None  # (y, x): multiplies counts; finite and positive
    defects: npt.NDArray[np.intp]  # Flat indices of unusable pixels, in order
    are_counts: bool  # False where too many pixels are negative for counts of electrons
    pedestal: float = 0.0  # Counts of a pixel without electrons in one frame
    left_out: tuple[int, ...] = ()  # Frames that are not in the sum, being unlike the others
    pedestal_is_unknown: bool = False  # There seems to be one, which could not be measured
    areas: tuple[Area, ...] = ()  # Those found; pixels of the certain ones are defects

    @classmethod
    def of(
        cls,
        movie: Any,
        *,
        gain: npt.ArrayLike | None = None,
        defects: npt.ArrayLike | None = None,
        per_electron: float | None = None,
        pedestal: float | None = None,
    ) -> SummedCounts:
        """Sum a movie (n, y, x); pixels that are not finite, or have no usable gain, are defects.

        `gain` (y, x): 0, negative, infinite and NaN are not usable; `defects` (y, x): known ones;
        `per_electron`: by default measured from the noise of typical frames, or a sixteenth of the
        noise of numbers that are not counts; `pedestal`: by default measured from the skewness of
        the noise. Raise `ValueError` if the frames are not real numbers, of a size that no counts
        have, shapes differ, or no pixel is usable.
        """
        shape = tuple(getattr(movie, "shape", ()))
        if len(shape) != 3 or not all(shape):
            raise ValueError(f"outliers are looked for in frames (n, y, x), not in {shape}")
        if np.dtype(movie.dtype).kind not in "buif":
            raise ValueError(f"outliers are looked for in real numbers, not in {movie.dtype}")
        total = _sum(movie)
        factor = None
        unusable = []
        if defects is not None:
            unusable.append(_fitting("defects", defects, shape[1:]).astype(np.bool_))
        if total.dtype.kind == "f":
            unusable.append(_beyond(total))
        if gain is not None:
            factor = _fitting("a gain", gain, shape[1:]).astype(np.float32)
            unusable.append(~(np.isfinite(factor) & (factor > 0)))
            factor[unusable[-1]] = 1
        where = np.flatnonzero(np.any(unusable, axis=0)) if unusable else np.empty(0, np.intp)
        if where.size == total.size:
            raise ValueError("no pixel is usable: all are defects, not finite, or have no gain")
        if where.size:
            total = _with_ordinary(total, factor, where)
        step = max(1, total.size // _FRAME_SAMPLE)
        values = total[::step] if factor is None else total[::step] * factor[::step]
        shown = FrameStatistics(1.0, pedestal or 0.0)
        if float(np.mean(values < 0)) <= 0.1:
            usual = usual_pixels(values, step, where)
            if usual.any():
                mean = float(total[::step][usual].mean()) / shape[0]
                shown = FrameStatistics.of(movie, usual, step, mean, factor, pedestal)
                if pedestal is None and np.mean(total[::step] < shape[0] * shown.pedestal) > 0.1:
                    # It is not the same in all pixels.
                    shown = FrameStatistics.of(movie, usual, step, mean, factor, 0.0)
                    shown = replace(shown, pedestal_is_unknown=True)
        if shown.unlike:
            total = _without(total, movie, shown.unlike)
            if where.size:
                total = _with_ordinary(total, factor, where)
        n_frames = shape[0] - len(shown.unlike)
        values = total[::step] - n_frames * shown.pedestal
        if factor is not None:
            values = values * factor[::step]
        are_counts = float(np.mean(values < 0)) <= 0.1
        if per_electron is None and not are_counts:
            low, high = np.percentile(values, [15.87, 84.13])
            per_electron = float(high - low) / 32 or 1.0
        elif per_electron is None:
            per_electron = shown.per_electron
        if not isinstance(movie, np.ndarray):
            give_back()  # the memory of frames that were read
        return cls(
            total, n_frames, float(per_electron), factor, where, are_counts, shown.pedestal,
            shown.unlike, shown.pedestal_is_unknown,
        )  # fmt: skip

    def odd_borders(self) -> list[Area]:
        """Return rows and columns at the border whose level differs from those beside them.

        They are certain defects where this is so all along them; dead lines are found as such.
        """
        if min(self.shape) < 4 * _BESIDE:
            return []
        borders = [self._odd_border(axis, is_last) for axis in (0, 1) for is_last in (False, True)]
        return [border for border in borders if border is not None]

    def _odd_border(self, axis: int, is_last: bool) -> Area | None:
        """Return the odd rows (`axis` 0) or columns at the first or the last border."""
        part = slice(-_BESIDE, None) if is_last else slice(_BESIDE)
        sums = self.part((part, slice(None)) if axis == 0 else (slice(None), part))
        # From the border inward.
        lines = (sums.T if axis else sums)[:: -1 if is_last else 1]
        typical = np.median(lines[:, ::4])
        # Single hot pixels do not count.
        lines = np.minimum(lines, 4 * typical + 10)
        levels = lines.mean(axis=1, dtype=np.float64)
        steps = np.diff(levels)
        spread = 1.4826 * np.median(np.abs(steps[_WIDEST:]))
        least = max(_OTHER_LEVEL * abs(typical), _CERTAIN * spread)
        beyond = np.flatnonzero(np.abs(steps[:_WIDEST]) > least)
        # All lines from the border to the step differ from those behind it: a defective line
        # further in does not make a border of those before it.
        rests = {int(at) + 1: np.median(levels[at + 1 :][:_WIDEST]) for at in beyond}
        odd = [n for n, rest in rests.items() if (abs(levels[:n] - rest) > least / 2).all()]
        if not odd or rests[odd[-1]] <= 0:
            return None
        n = odd[-1]
        across = np.stack(np.divmod(self.defects, self.shape[1]))[axis]
        across = self.shape[axis] - 1 - across if is_last else across
        if np.count_nonzero(across < n) > n * lines.shape[1] / 2:
            return None
        level = float(levels[:n].mean() / rests[n])
        starts = np.arange(0, lines.shape[1], _PIECE)
        own, behind = (
            np.add.reduceat(some.mean(axis=0), starts)
            for some in (lines[:n], lines[n + 1 :][:_WIDEST])
        )
        apart = (own / np.maximum(behind, 1e-9) - 1) / (level - 1)
        is_certain = abs(level - 1) > 2 * _OTHER_LEVEL and level > 2 * _OTHER_LEVEL
        alike = bool(np.mean((apart > _LEAST) & (apart < 2 - _LEAST)) >= _ALONG)
        first, last = (-n, None) if is_last else (0, n)
        rows, columns = (
            range(length)[first:last] if along == axis else range(length)
            for along, length in enumerate(self.shape)
        )
        return Area(
            rows.start, rows.stop, columns.start, columns.stop, level, is_certain and alike,
            is_border=True,
        )  # fmt: skip

    def with_areas(self, areas: list[Area]) -> SummedCounts:
        """Return the same sum, in which pixels of areas that are certain are defects."""
        certain = [area for area in areas if area.is_certain]
        if not certain:
            return replace(self, areas=tuple(areas))
        bad = np.zeros(self.shape, np.bool_)
        bad.reshape(-1)[self.defects] = True
        for area in certain:
            bad[area.top : area.bottom, area.left : area.right] = True
        defects = np.flatnonzero(bad)
        total = _with_ordinary(self.total, self.gain, defects)
        return replace(self, total=total, defects=defects, areas=tuple(areas))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        y, x = self.total.shape
        return y, x

    @property
    def n_usable(self) -> int:
        """Pixels that are not defects."""
        return self.total.size - self.defects.size

    @property
    def are_electrons(self) -> bool:
        """Whether the sum is a whole number of electrons in each pixel."""
        is_whole = self.total.dtype.kind != "f" and self.gain is None
        return is_whole and self.per_electron == 1 and not self.pedestal

    def rows(self, top: int, bottom: int) -> tuple[Image, Image]:
        """Return rows as electrons, (raw, gain-normalised), each float32."""
        return self._electrons(slice(top, bottom))

    def part(self, place: tuple[slice, slice]) -> Image:
        """Return gain-normalised electrons of some rows and columns, float32."""
        return self._electrons(place)[1]

    def _electrons(self, place: slice | tuple[slice, slice]) -> tuple[Image, Image]:
        raw = self.total[place].astype(np.float32)
        if self.pedestal:
            raw -= np.float32(self.n_frames * self.pedestal)
        if self.per_electron != 1:
            raw *= np.float32(1 / self.per_electron)
        return raw, raw if self.gain is None else raw * self.gain[place]

    def raw(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Return the sums, in counts and without the pedestal, of pixels by flat index."""
        values: npt.NDArray[np.float32] = self.total.take(pixels).astype(np.float32)
        if self.pedestal:
            values -= np.float32(self.n_frames * self.pedestal)
        return values

    def normalised(self, pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Return the gain-normalised sums, in counts, of pixels by flat index."""
        values = self.raw(pixels)
        return values if self.gain is None else values * self.gain.take(pixels)

    def sample(self) -> list[tuple[int, int]]:
        """Return typical strips (top, bottom) of eight rows, spread over the image."""
        y, x = self.shape
        height = min(8, y)
        number = max(1, min(_SAMPLE // (height * x), y // height))
        tops = np.linspace(0, y - height, number).astype(int).tolist()
        return [(top, top + height) for top in tops]


def usual_pixels(values: Image, step: int, defects: npt.NDArray[np.intp]) -> Mask:
    """Mark the values of every `step`-th row that are neither very low or high, nor defects."""
    low, high = np.percentile(values, [1, 99])
    usual = (low <= values) & (values <= high)
    row, column = np.divmod(defects, values.shape[1])
    looked_at = row % step == 0
    usual[row[looked_at] // step, column[looked_at]] = False
    return usual


def _sum(movie: Any) -> Image:
    if isinstance(movie, np.ndarray):
        return sum_array(movie)
    if hasattr(movie, "frame_makers"):
        return np.asarray(movie.sum(dtype="smallest"))
    if hasattr(movie, "sum"):
        return np.asarray(movie.sum(axis=0, dtype=smallest_sum_dtype(movie.dtype, len(movie))))
    n, y, x = movie.shape
    running = RunningSum((y, x), movie.dtype, n)
    for frame in movie:
        running.add(np.asarray(frame))
    return running.total()


def _beyond(total: Image) -> Mask:
    """Mark pixels of a float sum that are not finite, or too large to be computed with.

    Raise `ValueError` if too many are too large, or all too small.
    """
    beyond = ~_usable(total)
    with np.errstate(invalid="ignore"):
        most = float(np.abs(total).max(where=~beyond, initial=0))
        large = np.count_nonzero(beyond & np.isfinite(total))
    if large > _FEW * total.size:
        raise ValueError(f"sums beyond {_LARGEST:g} are not counts of electrons")
    if 0 < most < 1 / _LARGEST:
        raise ValueError(f"sums of {most:.2g} at most are not counts of electrons")
    return beyond


def _usable(image: Image) -> Mask:
    if image.dtype.kind != "f":
        return np.ones(image.shape, np.bool_)
    largest = min(_LARGEST, float(np.finfo(image.dtype).max))
    return np.abs(image) <= largest


def _fitting(what: str, image: npt.ArrayLike, shape: tuple[int, ...]) -> Image:
    image = np.asarray(image)
    if image.shape != shape:
        raise ValueError(f"{what} of {image.shape} for frames of {shape}")
    return image


def _with_ordinary(
    total: Image, gain: npt.NDArray[np.float32] | None, defects: npt.NDArray[np.intp]
) -> Image:
    """Put the median of the usable pixels where there are defects."""
    usable = np.ones(total.size, np.bool_)
    usable[defects] = False
    some = np.flatnonzero(usable)
    some = some[:: max(1, some.size // _SAMPLE)]
    filled = total.flatten()
    if gain is None:
        filled[defects] = np.median(filled[some])
    else:
        factor = gain.reshape(-1)
        filled[defects] = np.median(filled[some] * factor[some]) / factor[defects]
    return filled.reshape(total.shape)


def _without(total: Image, movie: Any, frames: tuple[int, ...]) -> Image:
    """Return the sum without some of its frames."""
    read_frame = frame_reader(movie)
    if total.dtype.kind != "f":
        rest = total.copy()
        for index in frames:
            np.subtract(rest, read_frame(index), out=rest, casting="unsafe")
        return rest
    # A float cannot be subtracted from a sum without rounding; nor can NaN.
    running = RunningSum(total.shape, movie.dtype, len(movie))
    for index in range(len(movie)):
        if index not in frames:
            running.add(read_frame(index))
    rest = running.total()
    return np.where(_usable(rest), rest, 0)


# Places of the movie in which neighbouring frames are looked at.
_PLACES = 4
# A frame is like the others if its level, and the noise in relation to it, are within these factors
# of their medians.
_LEVEL, _NOISE = 5.0, 3.0
# A frame of up to so many times the dose stays in the sum.
_FLASH = 30.0
# Largest relative difference between the mean of all frames and that of the frames looked at.
_APART = 0.2
# A pedestal that is a smaller part of the mean is taken up by the fit.
_LEAST_PEDESTAL = 0.3
# Parts in which the image is looked at, and fewest pixels that are.
_PARTS, _FEWEST = 64, 8
# Standard deviations by which neighbours may differ and both be good.
_FARTHEST = 6.0
# Variance over mean that whole numbers cannot have: Poisson counts have 1.
_SUB_POISSON = 0.7
# Beyond these not all whole numbers are floats.
_WHOLE = 2.0**53


def frame_reader(movie: Any) -> Callable[[int], Image]:
    """Return a function that reads a frame (y, x), bypassing the cache of a stack."""
    if not hasattr(movie, "frame_makers"):
        return lambda index: np.asarray(movie[index])
    makers = list(movie.frame_makers())
    return lambda index: np.asarray(makers[index]())


@dataclass(frozen=True)
class FrameStatistics:
    """Properties of a movie that only its single frames show; see `SummedCounts`."""

    per_electron: float  # The variance over the mean, without the pedestal
    pedestal: float = 0.0
    unlike: tuple[int, ...] = ()  # Saturated or damaged frames, whose counts are not electrons
    # Counts vary less than electrons do, but there are too few frames to measure a pedestal
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

        `movie` (n, y, x): the frames; `usual` (y / step, x): ordinary pixels of every `step`-th
        row, which are looked at; `mean`: of these pixels, over all frames; `gain` (y, x): gain
        reference, for a movie of a single frame; `pedestal`: if it is known.
        """
        if np.count_nonzero(usual) < _FEWEST:
            return cls(1.0, pedestal or 0.0)
        read_frame = frame_reader(movie)

        def values(index: int) -> Values:
            rows = read_frame(index)[::step][usual].astype(np.float64)
            return np.where(np.isfinite(rows), rows, 0)

        n = len(movie)
        starts = np.array(spread_over(max(n - 1, 1), _PLACES))
        some = np.unique(np.concatenate([starts, np.minimum(starts + 1, n - 1)])).tolist()
        # One after the other: several at a time would take memory.
        read = {index: values(index) for index in some}
        like = np.ones(len(some), bool)
        if len(some) > 2:  # of two, neither is like the others
            like = _like(*np.array([_statistics(read[index]) for index in some]).T)
        good = [index for index, alike in zip(some, like, strict=True) if alike]
        level = float(np.mean([read[index].mean() for index in good]))
        unlike: tuple[int, ...] = ()
        if n > 2 and (not like.all() or abs(mean - level) > _APART * abs(level)):
            unlike = _unlike(values, n)
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


def _unlike(values: Callable[[int], Values], n_frames: int) -> tuple[int, ...]:
    """Return frames that would spoil the sum, by the usual pixels of each."""

    def work(index: int) -> tuple[float, float]:
        return _statistics(values(index))

    with in_order(work, range(n_frames), "napari-mrcz-outliers") as found:
        level, noise = np.array(list(found)).T
    # Frames with fewer counts add little to a sum.
    wrong = ~_like(level, noise, _FLASH) & (level > np.median(level))
    return tuple(np.flatnonzero(wrong).tolist()) if wrong.mean() < 0.5 else ()


def _statistics(values: Values) -> tuple[float, float]:
    """Return the mean of a frame, and the variance between neighbours over it."""
    level = float(values.mean())
    noise = float(np.diff(values).var()) / 2 / level if level > 0 else 0.0
    return level, noise


def _like(level: Values, noise: Values, most: float = _LEVEL) -> Mask:
    """Mark frames whose level and noise are like those of most others; all if none are."""
    some = level > 0
    if not some.any():
        return np.ones(len(level), bool)
    usual_level, usual_noise = np.median(level[some]), np.median(noise[some])
    like: Mask = some & (level <= most * usual_level) & (level >= usual_level / _LEVEL)
    if usual_noise > 0:
        like &= (noise <= _NOISE * usual_noise) & (noise >= usual_noise / _NOISE)
    return like if like.any() else np.ones(len(level), bool)


def _unit(values: Values) -> int:
    """Return the largest number that whole counts are multiples of, plus an offset; else 0."""
    if float(np.abs(values).max()) >= _WHOLE or not np.all(values == np.rint(values)):
        return 0
    return max(1, int(np.gcd.reduce((values - values.min()).astype(np.int64), initial=0)))


def _ratio(pairs: list[tuple[Image, Image]], pedestal: float) -> float:
    """Return the variance over the mean of a pixel from frame to frame.

    No fixed pattern adds to it. It is the median over parts of the image, as something may move or
    flash in some of them.
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


def _pedestal(frames: list[Values], pairs: list[tuple[Image, Image]]) -> float:
    """Measure the counts of a pixel without electrons, from the skewness of the noise.

    The mean of Poisson counts is the square of the variance over the third cumulant, whatever the
    counts per electron; the rest is the pedestal. The cumulant comes from differences of three
    frames, so that neither specimen nor fixed pattern adds to it.
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
            errors.append(product.std() / product.size**0.5)
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
