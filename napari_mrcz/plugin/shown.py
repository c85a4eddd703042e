"""Lazy arrays for napari: damaged frames shown blank, series as four axes, and contrast limits.

One axis of frames becomes two: movies of a session (movie, frame, y, x), volumes of a file
(volume, z, y, x).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError, NotEnoughMemory, warn
from napari_mrcz.stack import Stack
from napari_mrcz.stack.stack import split_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt


class ShownStack(Stack):
    """A stack whose damaged frames are all 0 when they are indexed, with one warning each.

    So are frames while there is not enough memory for them. One bad frame must not keep a movie
    from being shown; sums, corrections, saving and ``np.asarray`` still raise `MrczError`, as they
    take frames from the source, not by index.
    """

    @cached_property
    def damaged(self) -> set[int]:
        """Frames that were found to be damaged and have been warned of."""
        return set()

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Return a stack of the same frames for a viewer."""
        return cls(stack._source, stack.description, stack.header, **stack._caching)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index as `Stack` does; what is damaged is 0."""
        try:
            return super().__getitem__(key)
        except MrczError as error:
            return self._with_blanks(key, error)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Return an iterator over the frames; a damaged one raises: who takes all computes."""
        return (super(ShownStack, self).__getitem__(i) for i in range(len(self)))

    def _with_blanks(self, key: Any, error: MrczError) -> npt.NDArray[Any]:
        frames, window = split_index(key, self.shape)
        blank = np.zeros(self.shape[1:], self.dtype)[window]
        if isinstance(frames, int):
            self._warn(frames, error)
            return blank
        found = []
        for frame in frames:
            try:
                found.append(super().__getitem__((frame, *window)))
            except MrczError as one:
                self._warn(frame, one)
                found.append(blank)
        return np.stack(found)

    def _warn(self, frame: int, error: MrczError) -> None:
        if isinstance(error, NotEnoughMemory):  # each time: there may be enough the next
            warn(f"{error}. It is shown blank as long as there is not enough")
        elif frame not in self.damaged:
            self.damaged.add(frame)
            warn(f"{error}. It is shown blank; the other frames can be used")


class StackSeries:
    """A stack cut into parts of equal length: (part, frame, y, x).

    Parameters
    ----------
    stack : Stack
        The frames, part after part.
    length : int
        Frames in a part.

    Raises
    ------
    ValueError
        If the stack cannot be cut so.
    """

    def __init__(self, stack: Stack, length: int) -> None:
        if length < 1 or len(stack) % length:
            raise ValueError(f"{len(stack)} frames cannot be cut into parts of {length}")
        self.stack = stack
        self.length = length

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Parts, frames in each, rows, columns."""
        n, y, x = self.stack.shape
        return n // self.length, self.length, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        return self.stack.dtype

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    @property
    def size(self) -> int:
        """Pixels in all frames."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        """Return the number of parts."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index like an array of shape (part, frame, y, x), each axis by itself."""
        parts, frames, *window = _four(key)
        numbers = np.add.outer(
            np.arange(len(self))[parts] * self.length, np.arange(self.length)[frames]
        )
        if not numbers.ndim:
            return self.stack[(int(numbers), *window)]
        found = self.stack[(numbers.reshape(-1).tolist(), *window)]
        return found.reshape(numbers.shape + found.shape[1:])

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Decode all frames."""
        return self.stack.__array__(dtype, copy).reshape(self.shape)

    def __deepcopy__(self, memo: dict[int, Any]) -> StackSeries:
        # Frames never change, so that a copy (napari's "Duplicate") may share their source.
        return StackSeries(self.stack.__deepcopy__(memo), self.length)

    def __repr__(self) -> str:
        return f"<StackSeries of {len(self)} parts of {self.stack!r}>"


def _four(key: Any) -> tuple[Any, ...]:
    """Return an index with one part for each of the four axes."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    missing = 5 - len(parts)
    parts[at : at + 1] = [slice(None)] * missing
    if missing < 0 or any(part is None or part is Ellipsis for part in parts):
        raise IndexError(f"{key!r} is no index of four axes")
    return tuple(parts)


Limits = tuple[float, float]

# Hot pixels of an ageing detector are less than 0.1 %, zeros outside a mask may be much more.
_PERCENTILES = (0.5, 99.5)
_SAMPLED_PIXELS = 2**17


def contrast_limits(frames: Iterable[npt.NDArray[Any]]) -> Limits:
    """Return the limits between which nearly all pixels of some frames lie.

    Parameters
    ----------
    frames : iterable of ndarray, shape (y, x)
        A few frames of real numbers; some 100,000 pixels of each are looked at.

    Returns
    -------
    tuple of float
        Black and white; black is the smaller. Whole numbers for integer frames.
    """
    pixels = np.concatenate([_sample(frame) for frame in frames])
    whole = pixels.dtype.kind in "biu"
    values = pixels.astype(np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, _PERCENTILES))
    if whole:
        low, high = math.floor(low), math.ceil(high)
    if low == high:
        low, high = _limits_around(low, values)
    return float(low), float(high)


def slider_range(limits: Limits, dtype: npt.DTypeLike) -> Limits:
    """Return the range of contrast sliders: the limits, and room to move them.

    Parameters
    ----------
    limits : tuple of float
        As `contrast_limits` returns them.
    dtype : dtype-like
        Of the pixels; integers have no room beyond what they can hold.
    """
    low, high = limits
    width = high - low
    wide_low, wide_high = low - 2 * width, high + 4 * width
    if low >= 0:  # counts, amplitudes and the like
        wide_low = min(low, 0.0)
    if np.dtype(dtype).kind in "iu":
        held = np.iinfo(dtype)
        wide_low, wide_high = max(wide_low, held.min), min(wide_high, held.max)
    return min(low, wide_low), max(high, wide_high)


def _limits_around(value: float, values: npt.NDArray[np.float64]) -> Limits:
    """Return limits where nearly all pixels have one value, such as 0 in sparse counts."""
    above, below = values[values > value], values[values < value]
    low = float(np.median(below)) if below.size else value
    high = float(np.median(above)) if above.size else value
    if low < high:
        return low, high
    # All alike: zeros are black, all else is grey.
    return (0.0, 1.0) if value == 0 else (value - abs(value), value + abs(value))


def _sample(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return pixels at even distances that fall into all columns alike."""
    flat = frame.reshape(-1)
    step = max(1, flat.size // _SAMPLED_PIXELS)
    while math.gcd(step, frame.shape[-1]) > 1:
        step += 1
    return flat[::step]
