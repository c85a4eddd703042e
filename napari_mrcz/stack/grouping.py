"""Sums of so many consecutive frames as frames of their own, e.g. of an EER movie's many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.stack.sources import FrameSource

GROUPED = "grouped"
"""Key of a stack's metadata: how many frames are in each of its frames."""

_WIDER = {"u": ("u1", "u2", "u4", "u8"), "i": ("i1", "i2", "i4", "i8")}


class GroupedSource:
    """Another source's frames, summed in groups.

    Parameters
    ----------
    source : FrameSource
        The frames.
    size : int
        Frames per group.
    keep_rest : bool
        Whether frames after the last whole group are a last, smaller one.

    Raises
    ------
    ValueError
        If there would be no group.
    """

    def __init__(self, source: FrameSource, size: int, keep_rest: bool) -> None:
        n = source.shape[0]
        if not 1 <= size <= n:
            raise ValueError(f"groups of {size} frames of a movie of {n}")
        self._source, self._size = source, size
        self._n = -(-n // size) if keep_rest else n // size
        self._dtype = _sum_dtype(source.dtype, size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, rows, columns."""
        return (self._n, *self._source.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest type of the same kind that no sum overflows."""
        return self._dtype

    def read_frame(self, frame: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return the sum of one group."""
        first, *others = self._frames(frame)
        total = np.empty(self.shape[1:], self._dtype) if out is None else out
        total[...] = self._source.read_frame(first)
        for index in others:
            total += self._source.read_frame(index)
        return total

    def read_window(self, frame: int, window: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Return part of the sum of one group."""
        parts = (self._source.read_window(index, window) for index in self._frames(frame))
        total = next(parts).astype(self._dtype)
        for part in parts:
            total += part
        return total

    def close(self) -> None:
        """Close the underlying files."""
        self._source.close()

    def _frames(self, frame: int) -> range:
        first = frame * self._size
        return range(first, min(first + self._size, self._source.shape[0]))


def _sum_dtype(dtype: np.dtype[Any], size: int) -> np.dtype[Any]:
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
        largest = size
    elif dtype.kind in "iu":
        largest = int(np.iinfo(dtype).max) * size
    else:
        return dtype
    wide = [np.dtype(name) for name in _WIDER[dtype.kind]]
    return next((w for w in wide if np.iinfo(w).max >= largest), wide[-1])
