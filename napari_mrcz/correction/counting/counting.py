"""`ElectronCounting`: raw frames in, counts of electrons out; and `count_electrons`, of a movie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.counting.background import MOST_FRAMES, Background, real
from napari_mrcz.correction.counting.events import Events, draw, find_events, patches_at, peaks
from napari_mrcz.correction.counting.spot import REACH, fit_spread, profile
from napari_mrcz.correction.history import described, register

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ElectronCounting", "count_electrons"]

_SUPER_RESOLUTIONS = (1, 2, 4)
# Standard deviations of the charge that noise alone is taken for: one pixel in three million.
_SIGMAS = 5.0
# Hardly an electron leaves so little; next to one that left much, misfit may look like it.
_PART_OF_CHARGE = 0.3
# Spots that the spread is measured on are this bright, and there are so many at most.
_BRIGHT_SIGMAS = 6.0
_MOST_SPOTS = 4000
# Fewer of them may be noise, or pixels that are always bright.
_FEWEST_SPOTS = 10
# They are alone where no other peak, of so many standard deviations, is within so many pixels.
_PEAK_SIGMAS = 4.0
_LONELY = 4
# What is measured on parts of frames: so many, so large, so often.
_FRAMES, _SIDE, _ROUNDS = 16, 512, 3
# Of a spot that is fitted: its charge, row and column.
_PARAMETERS = 3
# What lies farther from the background is none; and what that leaves of a normal distribution.
_QUIET, _QUIET_STD = 3.0, 0.98658


@dataclass(frozen=True, eq=False)
class _Excerpts:
    """The same window of a few frames, of so many that the background was measured on."""

    window: tuple[slice, slice]
    frames: tuple[npt.NDArray[Any], ...]
    n_measured: int


@register
@dataclass(frozen=True, eq=False)
class ElectronCounting:
    """Counts electrons in raw frames. Made by `ElectronCounting.fit`.

    Attributes
    ----------
    background : Background
        Offset and noise.
    spread : float
        Standard deviation of the spot that an electron leaves, in pixels.
    threshold : float
        Charge from which a spot is an electron, in grey values.
    super_resolution : int
        Pixels of the counts along one of the detector's: 1, 2 or 4.
    """

    background: Background
    spread: float
    threshold: float
    super_resolution: int = 1

    def __post_init__(self) -> None:
        """Check the options."""
        if self.super_resolution not in _SUPER_RESOLUTIONS:
            raise ValueError(f"super-resolution is 1, 2 or 4, not {self.super_resolution}")
        if not self.threshold > 0:
            raise ValueError(f"a threshold is a positive charge, not {self.threshold}")

    @classmethod
    def fit(
        cls,
        movie: Any,
        *,
        threshold: float | None = None,
        spread: float | None = None,
        super_resolution: int = 1,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Self:
        """Measure background, spread and threshold on some frames of a movie.

        Parameters
        ----------
        movie : Stack or ndarray, shape (n, y, x)
            Raw frames, few of whose pixels were struck: up to some 0.05 e⁻/pix/frame.
        threshold : float, optional
            In grey values of charge; so much that noise alone hardly ever reaches it (5 of its
            standard deviations) where it is not given.
        spread : float, optional
            In pixels; measured on spots that are bright and alone where it is not given.
        super_resolution : int
            1, 2 or 4.
        progress : callable, optional
            Called after each frame with what is done, frames done, and how many there will be;
            what it raises ends the fit.

        Raises
        ------
        ValueError
            If the frames do not vary, are not of finite numbers, or nothing in them looks like an
            electron.
        """
        background = Background.fit(movie, progress=progress)
        excerpts = _excerpts(movie)
        charge = 0.0
        for number in range(1, _ROUNDS + 1):
            told = None
            if progress is not None:
                told = partial(progress, f"Finding electrons, round {number} of {_ROUNDS}, frame")
            width = _measure_spread(excerpts, background) if spread is None else float(spread)
            faint = max(_SIGMAS * charge_noise(background.noise, width), _PART_OF_CHARGE * charge)
            least = faint if threshold is None else float(threshold)
            counting = cls(background, width, least, super_resolution)
            background, charge = _without_electrons(excerpts, counting, told)
        return replace(counting, background=background)

    def with_threshold(self, threshold: float) -> Self:
        """Give the same with another threshold (grey values of charge)."""
        return replace(self, threshold=float(threshold))

    def events(self, frame: npt.NDArray[Any]) -> Events:
        """Find the electrons of a raw frame (y, x).

        Raises
        ------
        ValueError
            If it has another shape, or pixels that are not finite.
        """
        if frame.shape != self.background.offset.shape:
            raise ValueError(f"a background of {self._shape} for a frame of {frame.shape}")
        return find_events(
            real(frame) - self.background.offset, self.spread, self.threshold, self.background.noise
        )

    def __call__(self, frame: npt.NDArray[Any], index: int = 0) -> npt.NDArray[np.uint8]:
        """Give the counts of a raw frame.

        Returns
        -------
        ndarray of uint8, shape (y · super_resolution, x · super_resolution)
        """
        return self.counts(self.events(frame))

    def counts(self, events: Events) -> npt.NDArray[np.uint8]:
        """Give the image of how many electrons struck each pixel."""
        rows, columns = self.output_shape(self._shape)
        s = self.super_resolution
        # The middle of the first pixel is 0: its edge is at -0.5.
        y = np.clip(np.floor((events.y + 0.5) * s), 0, rows - 1).astype(np.intp)
        x = np.clip(np.floor((events.x + 0.5) * s), 0, columns - 1).astype(np.intp)
        counts = np.bincount(y * columns + x, minlength=rows * columns)
        # A signed byte, which mode 0 of MRC is, holds no more.
        return np.minimum(counts, 127).astype(np.uint8).reshape(rows, columns)

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Give the type of counts: uint8."""
        return np.dtype(np.uint8)

    def output_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Give rows and columns of the counts."""
        return shape[0] * self.super_resolution, shape[1] * self.super_resolution

    def describe(self) -> dict[str, Any]:
        """Say all that is needed to do it again, the offsets included."""
        return described(
            self,
            offset=self.background.offset,
            noise=self.background.noise,
            spread=self.spread,
            threshold=self.threshold,
            super_resolution=self.super_resolution,
        )

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""
        offset = np.asarray(description["offset"], np.float32)
        return cls(
            Background(offset, description["noise"]),
            description["spread"],
            description["threshold"],
            description["super_resolution"],
        )

    @cached_property
    def _shape(self) -> tuple[int, int]:
        y, x = self.background.offset.shape
        return y, x


def count_electrons(
    movie: Any, *, counting: ElectronCounting | None = None, super_resolution: int = 1
) -> Any:
    """Give the counts of a movie of raw frames, lazily.

    Parameters
    ----------
    movie : Stack
        Raw frames (n, y, x).
    counting : ElectronCounting, optional
        How; fitted to the movie where it is not given.
    super_resolution : int
        1, 2 or 4; of no account where `counting` is given.

    Returns
    -------
    Stack, shape (n, y · s, x · s)
        uint8; its pixel size is s times smaller.

    Raises
    ------
    ValueError
        If the frames do not vary, or nothing in them looks like an electron.
    """
    if counting is None:
        counting = ElectronCounting.fit(movie, super_resolution=super_resolution)
    z, y, x = movie.pixel_size
    s = counting.super_resolution
    return movie.apply(counting).described(pixel_size=(z, y / s, x / s))


def _excerpts(movie: Any) -> _Excerpts:
    n, rows, columns = movie.shape
    few = np.unique(np.linspace(0, n - 1, min(n, _FRAMES)).astype(int))
    top, left = max(0, rows - _SIDE) // 2, max(0, columns - _SIDE) // 2
    window = np.s_[top : top + _SIDE, left : left + _SIDE]
    frames = tuple(real(np.asarray(movie[int(i)])[window]) for i in few)
    return _Excerpts(window, frames, min(n, MOST_FRAMES))


def _without_electrons(
    excerpts: _Excerpts,
    counting: ElectronCounting,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Background, float]:
    """Measure the background anew where the electrons that were found are taken away.

    Also gives the median of their charges.

    Their faint outskirts had passed for background: as much for one pixel as for another, so that
    a part of the frame tells.
    """
    old = counting.background
    left, charges = [], []
    for done, frame in enumerate(excerpts.frames, 1):
        above = frame - old.offset[excerpts.window]
        events = find_events(above, counting.spread, counting.threshold, old.noise)
        charges.append(events.charge)
        left.append(above - draw(events, counting.spread, above.shape))
        if progress is not None:
            progress(done, len(excerpts.frames))
    residual = np.stack(left)
    level, noise = 0.0, old.noise
    for _ in range(_ROUNDS):
        quiet = residual[np.abs(residual - level) < _QUIET * noise]
        level, noise = float(quiet.mean()), float(quiet.std()) / _QUIET_STD
    found = np.concatenate(charges)
    # Each fitted spot follows the noise with three parameters of its own, and each offset with one.
    freedom = 1 - _PARAMETERS * found.size / residual.size - 1 / excerpts.n_measured
    noise /= np.sqrt(max(freedom, 0.5))
    charge = float(np.median(found)) if found.size else 0.0
    return Background(old.offset + np.float32(level), noise), charge


def charge_noise(noise: float, spread: float) -> float:
    """Give the standard deviation of a fitted charge, of pixels with such noise."""
    gathered = profile(np.zeros(1), spread)[0][0]
    return noise / float(np.square(gathered).sum())


def _measure_spread(excerpts: _Excerpts, background: Background) -> float:
    """Measure the spread on bright spots that are alone."""
    found: list[npt.NDArray[np.float64]] = []
    number = 0
    for raw in excerpts.frames:
        above = raw - background.offset[excerpts.window]
        frame = np.pad(above, REACH).astype(np.float64)
        bright = peaks(frame, _BRIGHT_SIGMAS * background.noise)
        lonely = _without_neighbours(
            bright, peaks(frame, _PEAK_SIGMAS * background.noise), frame.shape
        )
        patches, _ = patches_at(frame, lonely[: _MOST_SPOTS - number])
        found.append(patches)
        number += len(patches)
        if number >= _MOST_SPOTS:
            break
    if number < _FEWEST_SPOTS:
        raise ValueError("nothing in these frames looks like a single electron")
    return fit_spread(np.concatenate(found))


def _without_neighbours(
    bright: npt.NDArray[np.intp], all_peaks: npt.NDArray[np.intp], shape: tuple[int, ...]
) -> npt.NDArray[np.intp]:
    """Give those of some peaks that have no other one within a few pixels."""
    marked = np.zeros(shape, np.int32)
    marked.reshape(-1)[all_peaks] = 1
    sums = np.pad(marked.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y, x = np.divmod(bright, shape[1])
    top, bottom = np.maximum(y - _LONELY, 0), np.minimum(y + _LONELY + 1, shape[0])
    left, right = np.maximum(x - _LONELY, 0), np.minimum(x + _LONELY + 1, shape[1])
    corners = sums[bottom, right] - sums[top, right], sums[bottom, left] - sums[top, left]
    lonely: npt.NDArray[np.intp] = bright[corners[0] - corners[1] == 1]
    return lonely
