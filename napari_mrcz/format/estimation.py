"""How large a file will be, learnt from a few of its frames before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_mrcz.format.encoding import Encoding, compressed_fraction, shannon_fraction
from napari_mrcz.format.modes import frame_nbytes
from napari_mrcz.format.storage import LazyFrame, choose_storage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Estimate:
    """What a frame will take on disk.

    Attributes
    ----------
    encoding : Encoding
        Filter and block size as the writer will choose them.
    stored : numpy.dtype
        Pixel type in the file.
    frame_nbytes : float
        Mean size of a frame in bytes.
    bound_nbytes : float or None
        The least to which independent pixels can be compressed (Shannon's bound); None where a
        sample does not show it, as of most float images.
    """

    encoding: Encoding
    stored: np.dtype[Any]
    frame_nbytes: float
    bound_nbytes: float | None


def estimate(
    path: str | PathLike[str],
    samples: Iterable[LazyFrame],
    encoding: Encoding,
    dtype: npt.DTypeLike | None = None,
) -> Estimate:
    """Decide what `write_frames` would, and compress excerpts of the frames in that way.

    Parameters
    ----------
    path : path-like
        For messages.
    samples : iterable of ndarray, shape (y, x), or of functions that make them
        A few frames; only one is in memory at a time.
    encoding : Encoding
        As asked for.
    dtype : dtype-like or "uint4", optional
        Pixel type asked for.

    Raises
    ------
    MrczError
        If these frames cannot be stored so without loss.
    """
    storage, stored = choose_storage(path, samples, dtype, encoding, wide=False)
    rows, columns = storage.shape
    plain_nbytes = frame_nbytes(storage.mode, (rows, columns))
    bound = shannon_fraction(stored)
    return Estimate(
        storage.encoding,
        storage.stored,
        plain_nbytes * compressed_fraction(storage.encoding, stored),
        None if bound is None else bound * rows * columns * storage.stored.itemsize,
    )
