"""What an index of a stack means: which frames, and which window of each."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def split_index(
    key: Any, shape: tuple[int, int, int]
) -> tuple[int | Sequence[int], tuple[Any, Any]]:
    """Split an index into frames and the window within each.

    Parameters
    ----------
    key : index
        As numpy takes it: integers, slices and an ellipsis; for the frames also a list of
        integers or booleans.
    shape : tuple of int
        The stack's, (n, y, x).

    Returns
    -------
    int or sequence of int
        One frame (whose axis is dropped), or several; none of them negative.
    tuple
        Index into rows and columns.

    Raises
    ------
    IndexError
        If it is out of range or of another kind.
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    # By identity: arrays among them would compare elementwise.
    ellipses = [at for at, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1 or len(parts) - len(ellipses) > 3:
        raise IndexError(f"too many indices for a stack of shape {shape}")
    at = ellipses[0] if ellipses else len(parts)
    missing = 3 - len(parts) + len(ellipses)
    parts[at : at + 1] = [slice(None)] * missing
    frames, rows, columns = parts
    window = _row_or_column(rows, shape[1]), _row_or_column(columns, shape[2])
    return _frame_numbers(frames, shape[0]), window


def _frame_numbers(part: Any, n: int) -> int | Sequence[int]:
    if isinstance(part, slice):
        return range(n)[part]
    try:
        array = np.asarray(part)
        if array.ndim == 0 and array.dtype.kind != "b":
            return _within(operator.index(part), n)
    except (TypeError, ValueError):  # ValueError: lists of lists of different lengths
        array = np.asarray(None)
    if array.ndim == 1 and array.dtype.kind == "b":
        if len(array) != n:
            raise IndexError(f"a mask of {len(array)} for {n} frames")
        return [int(i) for i in np.flatnonzero(array)]
    if array.ndim == 1 and (array.dtype.kind in "iu" or not array.size):
        return [_within(i, n) for i in array.tolist()]
    raise IndexError("frames are indexed by integers, slices or lists of them")


def _row_or_column(part: Any, size: int) -> Any:
    if isinstance(part, slice):
        return slice(None) if part == slice(0, size) or part == slice(0, size, 1) else part
    if isinstance(part, bool | np.bool_) or not hasattr(part, "__index__"):
        raise IndexError("rows and columns are indexed by integers and slices")
    return _within(operator.index(part), size)


def _within(index: int, size: int) -> int:
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of range for {size}")
    return index % size
