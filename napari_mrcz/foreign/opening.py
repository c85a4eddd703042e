"""Opening a movie whatever its format is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.foreign.dm import open_dm
from napari_mrcz.foreign.smv import open_smv
from napari_mrcz.foreign.tiff import open_tiff
from napari_mrcz.foreign.tvips import open_tvips
from napari_mrcz.stack import Stack
from napari_mrcz.stack import open as open_stack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

__all__ = ["FOREIGN_SUFFIXES", "SMV", "open_movie", "open_sweep"]

_TIFF = (".tif", ".tiff")
_EER = (".eer",)
_DM = (".dm3", ".dm4")
SMV = (".img", ".smv")
_TVIPS = (".tvips",)
FOREIGN_SUFFIXES = (*_TIFF, *_EER, *_DM, *SMV, *_TVIPS)


def open_movie(path: str | PathLike[str]) -> Stack:
    """Open a movie of any format that is known, without decoding frames.

    Parameters
    ----------
    path : path-like
        MRC, MRCZ; TIFF; EER (needs ``napari-mrcz[eer]``); DM3 or DM4 (needs ``napari-mrcz[dm]``);
        SMV (needs ``napari-mrcz[microed]``); the first file of a TVIPS recording, ``_000.tvips``.

    Raises
    ------
    MrczError
        If it cannot be read, or needs what is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (*_TIFF, *_EER):
        return open_tiff(Path(path), flip=suffix in _TIFF)
    if suffix in _DM:
        return open_dm(Path(path))
    if suffix in SMV:
        return open_smv([Path(path)])
    if suffix in _TVIPS:
        return open_tvips(Path(path))
    return open_stack(path)


def open_sweep(paths: Sequence[str | PathLike[str]]) -> Stack:
    """Open files as one movie, one after the other, such as the images of a rotation series.

    Parameters
    ----------
    paths : sequence of path-like
        One or more, in order; see `sweeps`.

    Raises
    ------
    MrczError
        If one cannot be read.
    ValueError
        If there is none, or their frames differ in shape or type.
    """
    if len(paths) == 1:
        return open_movie(paths[0])
    if paths and all(Path(path).suffix.lower() in SMV for path in paths):
        return open_smv([Path(path) for path in paths])
    return Stack.joined([open_movie(path) for path in paths])
