"""Measure background, spots and thresholds of a movie before its electrons are counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy

from napari_mrcz.correction.counting.background import MOST_FRAMES, Background, has_one_value, real
from napari_mrcz.correction.counting.events import (
    Events,
    Expected,
    draw,
    electron_threshold,
    find_events,
    patches_at,
    peaks,
    upper_threshold,
)
from napari_mrcz.correction.counting.spot import REACH, fit_spread, profile
from napari_mrcz.correction.noise import CountedAlready, tiles_look_counted
from napari_mrcz.correction.sums import spread_over
from napari_mrcz.errors import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable

# Charge threshold of the first search, and least charge of the spots from which the threshold is
# fitted, in standard deviations of noise.
_SIGMAS, _FAINT_SIGMAS = 5.0, 3.0
# Hardly an electron leaves so little of the median charge; misfit beside a bright one may.
_PART_OF_CHARGE = 0.3
# Spots from which the spread is measured: least brightness in standard deviations, and number.
_BRIGHT_SIGMAS, _MOST_SPOTS = 6.0, 4000
# Fewer of them may be noise, or pixels that are always bright.
_FEWEST_SPOTS = 10
# Brighter ones, in median charges, may be X-rays, whose spots differ.
_BRIGHTEST = 3.0
# They are alone where no other peak, of so many standard deviations, is within so many pixels.
_PEAK_SIGMAS, _LONELY = 4.0, 4
# Largest distance of a spot from itself, found again beside fainter ones.
_ITSELF = 0.5
# Parts of frames that are measured: number of frames, side in pixels, rounds.
_FRAMES, _SIDE, _ROUNDS = 16, 512, 3
# Frames that are enough at first, and for false spots.
_FRAMES_AT_FIRST, _FALSE_FRAMES = 8, 6
# Background is cut off here, in standard deviations; what that leaves of a normal distribution's.
_QUIET, _QUIET_STD = 3.0, 0.98658
# Offsets of fewer frames have errors that matter.
_FEW_FRAMES = 6
# Electrons closer than this pass for one, in pixels, or in spreads of wide spots.
_RESOLVED, _RESOLVED_SPREADS = 0.85, 1.7
# Charges of X-rays, in medians, and the share of them without an upper threshold.
_LONG, _TAIL = 5.0, 0.05
# Side of the square in which electrons strike equally often, in pixels.
_SQUARE = 33
# Limits beyond which a warning is due: the share of electrons lost in others, the expected F1, the
# wander in read noises, shares of noisy pixels and of spots too bright for electrons; the least
# spread in pixels; and the share of electrons that strike where others did, beside chance.
_LOST, _F1, _WANDER, _NOISY, _BRIGHT, _NARROW, _AGAIN = 0.03, 0.975, 0.7, 0.005, 0.002, 0.22, 0.01
# So many noisy pixels that touch are no chance.
_GROUP = 6
# Frames without their electrons are noise, as much above as below; where electrons are so dense
# that there is no background between them, the quantiles 0.99 and 0.01 add up to more than this.
_SKEW = 0.5
# With a larger share of pixels that are exactly 0, and none below, noise cannot be measured.
_ZEROS = 0.3
_FRAMES_OF_CHECK = 5
# Counts of electrons above which electrons may be counted still: those that are struck in some
# frames, by so many standard deviations, in so large a share of the pixels.
_HIGHEST_COUNT, _FAR, _LEAST_STRUCK = 5.0, 8.0, 3e-4


@dataclass(frozen=True, eq=False)
class MeasuredDetector:
    """Measurements on some frames of a movie."""

    background: Background  # Offset, noise, common mode, noisy pixels
    spread: float  # Standard deviation of a spot, in pixels
    threshold: float  # Least charge of an electron, in grey values
    upper: float | None  # Largest charge; None if there are too few electrons
    expected: Expected | None  # Effect of the threshold on electrons that are alone
    charges: npt.NDArray[np.float32]  # Of the spots above the threshold, in grey values
    n_frames: int  # Frames of the movie
    blank: list[int]  # Those of them with one value in all pixels, of the frames looked at
    n_pixels: int  # Pixels of the frames that the charges are in
    is_counted: bool  # Whether the frames seem to be counted already
    crowded: bool  # Whether there are too many electrons to measure the background between them
    again: float  # Share of pairs of frames in which an electron's pixel is struck not by chance

    @property
    def dose(self) -> float:
        """Electrons per pixel and frame."""
        return len(self.charges) / self.n_pixels

    @property
    def apart(self) -> float:
        """Share of electrons that have no other one too close to be resolved."""
        resolved = max(_RESOLVED, _RESOLVED_SPREADS * self.spread)
        near = max(self.dose, 1e-9) * np.pi * resolved**2
        return float(-np.expm1(-near) / near)

    @property
    def usual(self) -> tuple[float, ...]:
        """Median and standard deviation (by the quartiles) of charges; empty if there are few."""
        if len(self.charges) < 100 or self.crowded:
            return ()
        low, median, high = np.quantile(self.charges, (0.25, 0.5, 0.75)).tolist()
        return median, max((high - low) / 1.349, 0.1 * median)

    @property
    def expected_f1(self) -> float | None:
        """Harmonic mean of expected recall and precision; None if that is not known."""
        if self.expected is None or self.crowded:
            return None
        recall, precision = self.expected.recall * self.apart, self.expected.precision
        return 2 * recall * precision / max(recall + precision, 1e-9)

    def warnings(self, upper: float | None) -> tuple[str, ...]:
        """Return why counts should not be trusted, with advice."""
        background, said = self.background, []
        if self.is_counted:
            said.append(
                "The frames seem to be counted already: whole numbers with as much variance as "
                "mean. Counting them again finds no electrons."
            )
        if self.crowded and not self.is_counted:
            said.append(
                "The dose is too high: electrons overlap all over the frames, and neither the "
                "background nor single electrons can be measured. Use a lower dose rate or shorter "
                "frames."
            )
        elif (lost := 1 - self.apart) > _LOST and not self.is_counted:
            said.append(
                f"The dose of {self.dose:.3g} e⁻/pixel/frame is too high for spots of a spread of "
                f"{self.spread:.1f} pixel: {lost:.0%} of the electrons or more are lost in others "
                "beside them. Use a lower dose rate or shorter frames."
            )
        f1 = self.expected_f1
        if f1 is not None and f1 < _F1 and self.expected is not None and len(self.charges):
            found, right = self.expected.recall, self.expected.precision
            if found * right < self.apart:
                of_noise = charge_noise(background.noise, self.spread)
                noise = of_noise / float(np.median(self.charges))
                said.append(
                    f"The read noise is {noise:.0%} of an electron's charge: {1 - found:.0%} of "
                    f"the electrons are missed and {1 - right:.0%} of the counts are noise "
                    f"(expected F1 {f1:.2f})."
                )
        if self.spread < _NARROW:
            said.append(
                f"The spots are single pixels (spread {self.spread:.2f} pixel), which electrons "
                "hardly make: they may be noise or bad pixels. Look at some of them in the frames."
            )
        if self.again > _AGAIN:
            said.append(
                "Electrons strike the same pixels again more often than by chance: noisy pixels "
                "are counted that could not be set aside, or the frames have sharp bright spots. "
                "Use more frames, or check the detector's defects."
            )
        if background.noisy is not None and (share := float(background.noisy.mean())) > _NOISY:
            said.append(
                f"{int(background.noisy.sum())} pixels ({share:.1%}) have noise of their own, or "
                "none, and are set aside. Check the detector's dark reference and defects."
            )
        if background.noisy is not None:
            groups, _ = scipy.ndimage.label(background.noisy, np.ones((3, 3)))
            in_groups = np.bincount(groups[groups > 0])
            if n_groups := int(np.count_nonzero(in_groups >= _GROUP)):
                said.append(
                    f"{counted(n_groups, 'group')} of {_GROUP} or more pixels that touch vary more "
                    "than others and are set aside: defects, or bright spots such as Bragg peaks, "
                    "whose electrons are lost. Look at them in the sum of the frames; for spots "
                    "use a lower dose rate or shorter frames."
                )
        if self.blank:
            frames = f"{counted(len(self.blank), 'frame')} ({listed(self.blank, 5)})"
            said.append(
                f"Dropped or saturated, with one value in all pixels: {frames} of those looked at. "
                "No electrons are counted there."
            )
        if self.n_frames < _FEW_FRAMES:
            said.append(
                f"Offsets are less exact from {counted(self.n_frames, 'frame')}: up to "
                f"3 % of the electrons are missed. Use {_FEW_FRAMES} frames or more."
            )
        if upper is not None and len(self.charges):
            n_bright = int(np.count_nonzero(self.charges > upper))
            if (share := n_bright / len(self.charges)) > _BRIGHT:
                said.append(
                    f"{share:.1%} of the spots have more than {upper:.4g} grey values of charge, "
                    "too much for electrons, such as X-rays: they are set aside."
                )
        elif len(self.charges):
            tail = float(np.mean(self.charges > _LONG * np.median(self.charges)))
            if tail > _TAIL:
                said.append(
                    f"{tail:.0%} of the spots have more than {_LONG:g} times the usual charge, as "
                    "X-rays have, and no upper threshold was found: all their parts are counted. "
                    "Give an upper threshold."
                )
        if background.wander > _WANDER * background.noise:
            said.append(
                f"The background of {background.common_mode} wanders from frame to frame by "
                f"{background.wander:.3g} grey values ({background.wander / background.noise:.1f} "
                "times the read noise); this is removed from every frame. Check the read-out."
            )
        return tuple(said)


class _Excerpts:
    """The same window in the middle of a few frames of a movie, without common mode."""

    def __init__(self, movie: Any, background: Background) -> None:
        n, rows, columns = movie.shape
        top, left = max(0, rows - _SIDE) // 2, max(0, columns - _SIDE) // 2
        self.window = np.s_[top : top + _SIDE, left : left + _SIDE]
        self.blank: list[int] = []
        self.frames: list[npt.NDArray[Any]] = []
        for index in spread_over(n, _FRAMES):
            frame = np.asarray(movie[index])
            if has_one_value(frame):
                self.blank.append(index)
            else:
                self.frames.append(background.steady(real(frame))[self.window].copy())

    def above(self, background: Background, most: int) -> list[npt.NDArray[np.float32]]:
        """Return some of them, spread over all, above a background; noisy pixels are 0."""
        step = -(-len(self.frames) // most)
        above = [frame - background.offset[self.window] for frame in self.frames[::step]]
        if background.noisy is not None:
            for frame in above:
                frame[background.noisy[self.window]] = 0
        return above


def measured(
    movie: Any,
    *,
    threshold: float | None,
    spread: float | None,
    force: bool,
    progress: Callable[[str, int, int], None] | None,
) -> MeasuredDetector:
    """Measure a movie; see `ElectronCounting.fit`."""
    is_counted = _seems_counted(movie)
    if is_counted and not force:
        raise CountedAlready(
            "the frames seem to be counted already: whole numbers with as much variance as mean, "
            "without read noise; count raw frames, or force it"
        )
    background = Background.fit(movie, progress=progress)
    excerpts = _Excerpts(movie, background)
    noisy = None if background.noisy is None else background.noisy[excerpts.window]
    charge, spots = 0.0, _Spots(0.0, 0.0, 0.0, None)
    for number in range(1, _ROUNDS + 1):
        last = number == _ROUNDS
        above = excerpts.above(background, len(excerpts.frames) if last else _FRAMES_AT_FIRST)
        if spread is not None:
            width = float(spread)
        elif number == 1:
            width = _measure_spread(above, background.noise)
        else:
            width = spots.spread
        of_noise = charge_noise(background.noise, width)
        faint = max(_SIGMAS * of_noise, _PART_OF_CHARGE * charge)
        least = faint if threshold is None else float(threshold)
        spots = _Spots(width, least, background.noise, noisy)
        for done, frame in enumerate(above, 1):
            spots.add(frame, look_at_noise=last and done <= _FALSE_FRAMES)
            if progress is not None:
                progress(f"Finding electrons, round {number} of {_ROUNDS}, frame", done, len(above))
        n_measured = min(len(movie), MOST_FRAMES) if len(movie) > 2 else np.inf
        background = spots.background(background, n_measured)
        charges = np.concatenate(spots.charges)
        charge = float(np.median(charges)) if charges.size else 0.0
    expected = spots.expected(charge_noise(background.noise, width), threshold)
    if threshold is None and expected is not None:
        least = expected.threshold
    upper = upper_threshold(charges[charges > least])
    n_pixels = sum(frame.size for frame in excerpts.frames)
    return MeasuredDetector(
        background, width, least, upper, expected, charges[charges > least], len(movie),
        excerpts.blank, n_pixels, is_counted, spots.skew > _SKEW, spots.again,
    )  # fmt: skip


def charge_noise(noise: float, spread: float) -> float:
    """Return the standard deviation of a fitted charge, of pixels with such noise."""
    gathered = profile(np.zeros(1), spread)[0][0]
    return noise / float(np.square(gathered).sum())


def _seems_counted(movie: Any) -> bool:
    """Return whether frames hold counts; `ValueError` if their noise was cut off."""
    shape = tuple(getattr(movie, "shape", ()))
    if len(shape) != 3 or 0 in shape:
        return False  # `Background.fit` raises
    few = spread_over(shape[0], _FRAMES_OF_CHECK)
    shown = [frame for index in few if not has_one_value(frame := np.asarray(movie[index]))]
    if not shown:
        return False
    frames = np.stack([real(frame) for frame in shown])
    # Raw frames whose noise happens to be that of as many counts are struck here and there.
    typical = np.median(frames, axis=0)
    level, noise = float(np.median(typical)), 1.4826 * np.median(np.abs(frames - typical))
    far = _FAR * noise * np.sqrt(np.maximum(typical / max(level, 1), 1))
    is_raw = level > _HIGHEST_COUNT and np.mean(frames > typical + far) > _LEAST_STRUCK
    if not is_raw and tiles_look_counted(frames):
        return True
    zeros = float(np.mean(frames == 0))
    if zeros > _ZEROS and frames.min() == 0 and frames.max() > 0:
        raise ValueError(
            f"{zeros:.0%} of the pixels are exactly 0 and none is below: the frames were counted "
            "already, or the camera cut off their noise; count frames as they were read out"
        )
    return False


class _Spots:
    """Spots that were found in excerpts, and their statistics."""

    def __init__(
        self, spread: float, threshold: float, noise: float, noisy: npt.NDArray[np.bool_] | None
    ) -> None:
        self._spread, self._threshold, self._noise, self._noisy = spread, threshold, noise, noisy
        self._left: list[npt.NDArray[np.float64]] = []
        self._alone: list[npt.NDArray[np.float32]] = []
        self._false: list[npt.NDArray[np.float32]] = []
        self._patches: list[npt.NDArray[np.float64]] = []
        self._struck = np.zeros((1, 1))
        self.charges: list[npt.NDArray[np.float32]] = []

    @property
    def spread(self) -> float:
        """The spread of those that are alone and bright."""
        patches = np.concatenate(self._patches)
        return fit_spread(patches) if len(patches) >= _FEWEST_SPOTS else self._spread

    @property
    def skew(self) -> float:
        """Asymmetry of the residual's quantiles about its median, in noises."""
        low, median, high = np.quantile(self._residual, (0.01, 0.5, 0.99))
        return float(high + low - 2 * median) / self._noise

    @property
    def again(self) -> float:
        """Share of pairs of an electron and another frame that has one there, beside chance."""
        struck, others = self._struck, len(self._left) - 1
        by_chance = struck * scipy.ndimage.uniform_filter(struck, _SQUARE) * others / (others + 1)
        more = float((struck * (struck - 1) - by_chance).sum())
        surely = more - _SIGMAS * float(np.sqrt(2 * by_chance.sum()))
        return more / max(others * float(struck.sum()), 1) if surely > 0 else 0.0

    @property
    def _residual(self) -> npt.NDArray[np.float64]:
        residual = np.stack(self._left)
        return residual if self._noisy is None else residual[:, ~self._noisy]

    @property
    def _least(self) -> float:
        return min(_FAINT_SIGMAS * charge_noise(self._noise, self._spread), self._threshold)

    def add(self, frame: npt.NDArray[np.float32], *, look_at_noise: bool) -> None:
        """Find the spots of a frame above its background, and false ones."""
        events = self._find(frame, self._threshold)
        left = frame - draw(events, self._spread, frame.shape)
        self._left.append(left)
        where = np.stack([events.y, events.x], axis=1)
        edges = [np.arange(size + 1) - 0.5 for size in frame.shape]
        self._struck = self._struck + (np.histogramdd(where, edges)[0] > 0)
        if not look_at_noise:
            self._take_patches(frame, events)
            self.charges.append(events.charge)
            return
        found, false = self._find(frame, self._least), self._find(-left, self._least)
        self.charges.append(found.charge)
        # Beside electrons there may be misfits, which are neither electrons nor noise.
        self._alone.append(found.charge[_apart_from(found, events)])
        self._false.append(false.charge[_apart_from(false, events)])

    def _take_patches(self, frame: npt.NDArray[np.float32], events: Events) -> None:
        """Keep the pixels about events that are alone, and brighter than most."""
        some = _apart_from(events, events)
        if some.any():
            median = np.median(events.charge)
            some &= (events.charge > median) & (events.charge < _BRIGHTEST * median)
        at = np.rint(np.stack([events.y[some], events.x[some]], axis=1)).astype(np.intp) + REACH
        padded = np.pad(frame, REACH).astype(np.float64)
        self._patches.append(patches_at(padded, at[:, 0] * padded.shape[1] + at[:, 1])[0])

    def background(self, old: Background, n_measured: float) -> Background:
        """Measure the background again without the electrons that were found.

        Their faint outskirts had passed for background, in all pixels alike, so that a part of the
        frame is enough.
        """
        residual = self._residual
        level, noise = 0.0, old.noise
        for _ in range(_ROUNDS):
            quiet = residual[np.abs(residual - level) < _QUIET * noise]
            level, noise = float(quiet.mean()), float(quiet.std()) / _QUIET_STD
        # Each fitted spot follows the noise with its three parameters, and each offset with one.
        # An electron's pixels are not in their offset, whose error adds to the noise of few frames.
        n_found = sum(np.count_nonzero(charges > self._threshold) for charges in self.charges)
        power = 2 if n_measured < _FEW_FRAMES else 1
        freedom = (1 - 3 * n_found / residual.size) * (1 - 1 / n_measured) ** power
        levels = tuple(typical - np.float32(level) for typical in old.levels)
        noise /= float(np.sqrt(max(freedom, 0.3)))
        return replace(old, offset=old.offset + np.float32(level), noise=noise, levels=levels)

    def expected(self, noise: float, threshold: float | None) -> Expected | None:
        """Return the effect of the best threshold, or of the given one."""
        found, false = np.concatenate(self._alone), np.concatenate(self._false)
        return electron_threshold(found, false, self._least, noise, threshold)

    def _find(self, frame: npt.NDArray[Any], threshold: float) -> Events:
        return find_events(frame, self._spread, threshold, self._noise, noisy=self._noisy)


def _apart_from(some: Events, others: Events) -> npt.NDArray[np.bool_]:
    """Return which events have no others within a few pixels, except themselves."""
    if not len(some) or not len(others):
        return np.ones(len(some), np.bool_)
    at, near = (np.stack([events.y, events.x], axis=1) for events in (some, others))
    tree = scipy.spatial.cKDTree(near)
    within = tree.query_ball_point(at, _LONELY, return_length=True)
    itself = tree.query_ball_point(at, _ITSELF, return_length=True)
    return within == np.minimum(itself, 1)


def _measure_spread(above: list[npt.NDArray[np.float32]], noise: float) -> float:
    """Measure the spread on bright spots that are alone."""
    found: list[npt.NDArray[np.float64]] = []
    for part in above:
        frame = np.pad(part, REACH).astype(np.float64)
        bright, faint = (peaks(frame, s * noise) for s in (_BRIGHT_SIGMAS, _PEAK_SIGMAS))
        at, others = (np.stack(np.unravel_index(i, frame.shape), axis=1) for i in (bright, faint))
        tree = scipy.spatial.cKDTree(others)
        within = tree.query_ball_point(at, _LONELY, p=np.inf, return_length=True)
        found.append(patches_at(frame, bright[within == 1])[0])  # nothing but itself
        if sum(map(len, found)) >= _MOST_SPOTS:
            break
    patches = np.concatenate(found)[:_MOST_SPOTS]
    if len(patches) < _FEWEST_SPOTS:
        raise ValueError("nothing in these frames looks like a single electron")
    charges = patches.sum(axis=(1, 2))
    ordinary = patches[charges < _BRIGHTEST * np.median(charges)]
    return fit_spread(ordinary if len(ordinary) >= _FEWEST_SPOTS else patches)
