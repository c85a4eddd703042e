"""Sums of so many consecutive frames as a stack of their own, e.g. of an EER movie's many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_mrcz.stack.sources import FrameSource

__all__ = ["GroupedSource", "grouped"]

_WIDER = {"u": ("u1", "u2", "u4", "u8"), "i": ("i1", "i2", "i4", "i8")}


class GroupedSource:
    """Another source's frames, summed in groups.

    Parameters
    ----------
    source : FrameSource
        The frames.
    size : int
        Frames in a group. Those after the last whole group are left out: a shorter exposure
        among equal ones would be taken for what it is not.

    Raises
    ------
    ValueError
        If there is not one whole group.
    """

    def __init__(self, source: FrameSource, size: int) -> None:
        if not 1 <= size <= source.shape[0]:
            raise ValueError(f"groups of {size} frames of a movie of {source.shape[0]}")
        self._source, self._size = source, size
        self._dtype = _sum_dtype(source.dtype, size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, rows, columns."""
        n, y, x = self._source.shape
        return n // self._size, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest type of the same kind that no sum overflows."""
        return self._dtype

    def read_frame(self, frame: int, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Give the sum of one group."""
        first = frame * self._size
        total = np.empty(self.shape[1:], self._dtype) if out is None else out
        total[...] = self._source.read_frame(first)
        for index in range(first + 1, first + self._size):
            total += self._source.read_frame(index)
        return total

    def read_window(self, frame: int, window: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Give part of the sum of one group."""
        first = frame * self._size
        parts = (self._source.read_window(first + k, window) for k in range(self._size))
        total = next(parts).astype(self._dtype)
        for part in parts:
            total += part
        return total

    def close(self) -> None:
        """Let the files beneath go."""
        self._source.close()


def grouped(stack: Stack, size: int) -> Stack:
    """Give a lazy stack of the sums of `size` consecutive frames each.

    Raises
    ------
    ValueError
        If there is not one whole group.
    """
    return Stack(GroupedSource(stack._source, size), stack.description, stack.header)


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
