"""Fitting pixels into another pixel type: without loss, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from os import PathLike

LARGEST_FOUR_BIT = 15


def cast_lossless(
    frame: npt.NDArray[Any], dtype: np.dtype[Any], path: str | PathLike[str], index: int | None
) -> npt.NDArray[Any]:
    """Give `frame` as `dtype` if every value survives, else refuse.

    Raises
    ------
    MrczError
        Naming the frame and a way out.
    """
    if frame.dtype == dtype:
        return frame
    if frame.dtype.kind in "biu":
        _check_range(frame, dtype, path, index)
        return frame.astype(dtype)
    with np.errstate(over="ignore"):
        cast = frame.astype(dtype)
    if not _same(frame, cast):
        raise MrczError(
            path,
            f"{frame.dtype} values that {dtype} cannot hold exactly",
            frame=index,
            advice=f"Choose {dtype} as pixel type (dtype) to round them",
        )
    return cast


def cast_as_asked(
    frame: npt.NDArray[Any], dtype: np.dtype[Any], path: str | PathLike[str], index: int | None
) -> npt.NDArray[Any]:
    """Give `frame` as the `dtype` that was asked for: rounded, but never wrapped or cut off.

    Raises
    ------
    MrczError
        If a value is out of the type's range, not a number where integers are asked for, or
        complex where real numbers are.
    """
    if frame.dtype == dtype:
        return frame
    if frame.dtype.kind == "c" and dtype.kind != "c":
        raise MrczError(
            path,
            f"complex pixels cannot become {dtype}",
            frame=index,
            advice="Write their amplitude or phase",
        )
    if dtype.kind in "biu":
        if frame.dtype.kind == "f":
            frame = np.rint(frame)
        _check_range(frame, dtype, path, index)
        return frame.astype(dtype)
    with np.errstate(over="ignore"):
        cast = frame.astype(dtype)
    if not (np.isfinite(cast) | ~np.isfinite(frame)).all():
        raise MrczError(path, f"values beyond the range of {dtype}", frame=index)
    return cast


def _same(frame: npt.NDArray[Any], cast: npt.NDArray[Any]) -> bool:
    """Tell whether every value survived; part by part, where a NaN could hide the other's loss."""
    if frame.dtype.kind == "c":
        return _same(frame.real, cast.real) and _same(frame.imag, cast.imag)
    return bool(((cast == frame) | (frame != frame)).all())


def _check_range(
    frame: npt.NDArray[Any], dtype: np.dtype[Any], path: str | PathLike[str], index: int | None
) -> None:
    if not frame.size:
        return
    # As Python's numbers, which compare exactly: float32(2**31 - 1) is 2**31.
    low, high = frame.min().item(), frame.max().item()
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not (low >= least and high <= most):  # also false for NaN
        raise MrczError(
            path,
            f"values from {low} to {high}, where {dtype} holds {least} to {most}",
            frame=index,
            advice="Choose a pixel type (dtype) that holds them; float32 rounds where it must",
        )
