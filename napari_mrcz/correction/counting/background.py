"""What a pixel reads where no electron struck: its offset, and the noise about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_FRAMES", "Background", "real"]

# A median of so many frames is near enough to tell which pixels were struck.
_FRAMES_OF_MEDIAN = 9
MOST_FRAMES = 64
"""On so many frames of a movie offsets are measured, at most."""

# Values farther above the offset than this were struck.
_STRUCK = 2.5
# No detector gives such values, whose squares are no numbers any more.
_BEYOND = 1e15
# Mean of a normal distribution that was cut off above 2.5 sigma, in sigmas.
_CUT_MEAN = -0.017638


@dataclass(frozen=True, eq=False)
class Background:
    """Offset and read noise.

    Attributes
    ----------
    offset : ndarray of float32, shape (y, x)
        Mean of each pixel where no electron struck, in grey values.
    noise : float
        Standard deviation about it, in grey values: the same for all pixels.
    """

    offset: npt.NDArray[np.float32]
    noise: float

    @classmethod
    def fit(
        cls, movie: Any, *, progress: Callable[[str, int, int], None] | None = None
    ) -> Background:
        """Measure it on frames spread over a movie.

        Electrons only ever add: what lies below a pixel's median is noise alone, and tells its
        width; values well above were struck, and are left out of the mean.

        Parameters
        ----------
        movie : Stack or ndarray, shape (n, y, x)
            Raw frames, few of whose pixels were struck.
        progress : callable, optional
            Called after each frame with what is done, frames done, and how many there will be.

        Raises
        ------
        ValueError
            If there are no frames, they do not vary, or hold what no detector gives.
        """
        shape = tuple(getattr(movie, "shape", ()))
        if len(shape) != 3 or not all(shape[1:]):
            raise ValueError(f"electrons are counted in frames (n, y, x), not in {shape}")
        n = shape[0]
        if not n:
            raise ValueError("a background is measured on at least one frame")
        few = np.unique(np.linspace(0, n - 1, min(n, _FRAMES_OF_MEDIAN)).astype(int))
        first = []
        for done, i in enumerate(few, 1):
            first.append(real(np.asarray(movie[int(i)])))
            if progress is not None:
                progress("Reading for medians, frame", done, len(few))
        frames = np.stack(first)
        if n < 3:
            # No frame to compare with: all pixels are taken to be alike.
            offset = np.full(frames.shape[1:], np.median(frames), np.float32)
        else:
            offset = np.median(frames, axis=0).astype(np.float32)
        noise = _below(frames, offset)
        if not noise > 0:
            raise ValueError(
                "the frames do not vary: these are no raw frames to count electrons in"
            )
        if n < 3:
            return cls(offset, noise)
        many = np.unique(np.linspace(0, n - 1, min(n, MOST_FRAMES)).astype(int))
        total = np.zeros(offset.shape, np.float32)
        number = np.zeros(offset.shape, np.float32)
        for done, i in enumerate(many, 1):
            apart = real(np.asarray(movie[int(i)])) - offset
            quiet = apart < _STRUCK * noise
            total += np.where(quiet, apart, 0)
            number += quiet
            if progress is not None:
                progress("Measuring offsets, frame", done, len(many))
        offset += total / np.maximum(number, 1) - np.float32(_CUT_MEAN * noise)
        return cls(offset, _below(frames, offset))


def real(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give a frame again, if all of its pixels are numbers.

    Raises
    ------
    ValueError
        If they are complex, or not finite.
    """
    if frame.dtype.kind not in "buif":
        raise ValueError(f"electrons are counted in frames of real numbers, not of {frame.dtype}")
    if frame.dtype.kind == "f":
        largest = min(_BEYOND, float(np.finfo(frame.dtype).max))
        if not (np.abs(frame) <= largest).all():
            advice = "replace those pixels first (OutlierFilter)"
            raise ValueError(f"a frame has pixels that are no charges, such as NaN; {advice}")
    return frame


def _below(frames: npt.NDArray[Any], offset: npt.NDArray[np.float32]) -> float:
    """Give the noise from what lies below the offset: a half of a normal distribution."""
    squares, number = 0.0, 0
    for frame in frames:
        apart = frame - offset
        below = apart[apart < 0]
        squares += float(np.square(below, dtype=np.float64).sum())
        number += below.size
    return float(np.sqrt(squares / number)) if number else 0.0
