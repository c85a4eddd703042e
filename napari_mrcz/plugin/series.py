"""A four-dimensional lazy array on top of a stack, which has one axis of frames.

napari shows movies of a session as (movie, frame, y, x), volumes of a file as (volume, z, y, x).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_mrcz.stack import Stack


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
        """Give the number of parts."""
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
    """Give an index with one part for each of the four axes."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    at = next(i for i, part in enumerate(parts) if part is Ellipsis)
    missing = 5 - len(parts)
    parts[at : at + 1] = [slice(None)] * missing
    if missing < 0 or any(part is None or part is Ellipsis for part in parts):
        raise IndexError(f"{key!r} is no index of four axes")
    return tuple(parts)
