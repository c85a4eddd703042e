"""Arrays packed into a footer, losslessly.

KOMA's average is the mean of many gain-normalised frames of counts: in each pixel a whole number
of counts, times the gain, over the number of frames. That number and the rest in the last bits take
a third of the room of the float32, whose lower bits look random.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format.chunks import (
    CHUNK_HEADER_NBYTES,
    check_chunk,
    compress,
    decompress,
    parse_chunk_header,
)

if TYPE_CHECKING:
    from pathlib import Path

_ARRAY, _MEAN = "__packed__", "__packed_mean__"
_LEVEL = 5
# What zstd expands to at most.
_MOST_UNPACKED = 2**15
# Exponents of a gain whose powers are the same on every machine.
_EXACT = (1.0, -1.0)
# The most frames that an average is looked for to be of, and pixels that are looked at.
_MOST_FRAMES, _SAMPLE = 2**17, 64
# Rows by which a gain's median is told.
_ROWS = 64
# How far from a whole number counts may be, and the share of pixels that must be as near.
_WHOLE, _SHARE = 0.02, 0.9

Array = npt.NDArray[Any]
Map = Mapping[str, Any]


def is_packed(value: Any) -> bool:
    """Return whether a value is what `packed` or `packed_mean` returned."""
    return isinstance(value, Mapping) and (_ARRAY in value or _MEAN in value)


def packed(array: Array, filter_: str = "shuffle") -> dict[str, Any]:
    """Return an array as a map of its type, shape and a blosc chunk."""
    array = np.ascontiguousarray(array)
    data = b""
    if array.size:
        # As one block: several would come in the order in which blosc's threads are done.
        data = compress(array, "zstd", _LEVEL, filter_, array.nbytes)
    return {_ARRAY: array.dtype.newbyteorder("<").str, "shape": list(array.shape), "data": data}


def packed_mean(mean: Array, gain: Map | None) -> dict[str, Any]:
    """Return an average of gain-normalised frames as a map.

    Parameters
    ----------
    mean : ndarray of float32, shape (y, x)
        The average.
    gain : dict, optional
        Description of the gain normalisation that the averaged frames had.

    Returns
    -------
    dict
        As whole counts, if it is a mean of such; else as `packed` returns it.
    """
    made = _packed_counts(mean, gain)
    # Counts take hardly more than half of the room; if these do, they were none.
    if made is None or packed_nbytes(made) > mean.nbytes // 2:
        plain = packed(mean)
        return plain if made is None or packed_nbytes(plain) < packed_nbytes(made) else made
    return made


def _packed_counts(mean: Array, gain: Map | None) -> dict[str, Any] | None:
    """Return an average as whole counts and what is left of each pixel; None if it is of none."""
    scale = _scale(gain, mean.shape) if mean.dtype == np.float32 and mean.ndim == 2 else None
    if scale is None:
        return None
    factor, dark = scale
    with np.errstate(all="ignore"):
        counts = mean / factor + dark
        frames = _frames_in(counts)
        if frames is None:
            return None
        counts *= frames
        np.rint(counts, out=counts)
    low = np.nanmin(counts, initial=np.inf, where=np.isfinite(counts))
    counts -= low
    outside = ~(counts < 2**31)  # also NaN
    counts[outside] = 0
    whole = counts.astype(np.min_scalar_type(int(counts.max())))
    predicted = _mean_of(whole, float(low), frames, factor, dark)
    rest = mean.view(np.int32) - predicted.view(np.int32)
    rest = rest.astype(np.result_type(*map(np.min_scalar_type, (rest.min(), rest.max()))))
    return {
        _MEAN: frames,
        "low": float(low),
        "counts": packed(whole, "bitshuffle"),
        "rest": packed(rest, "bitshuffle"),
        "xxh3": xxhash.xxh3_64_hexdigest(np.ascontiguousarray(mean).data),
    }


def packed_nbytes(made: Map) -> int:
    """Return how many bytes a packed array takes."""
    if _ARRAY in made:
        return len(made["data"])
    return packed_nbytes(made["counts"]) + packed_nbytes(made["rest"])


def unpacked(made: Any, path: Path, gain: Map | None = None) -> Array:
    """Return the array that was packed, read-only.

    Parameters
    ----------
    made : dict
        As `packed` or `packed_mean` returned it.
    path : Path
        The file, for messages.
    gain : dict, optional
        As `packed_mean` was given it.

    Raises
    ------
    MrczError
        If it is damaged.
    """
    try:
        if _MEAN in made:
            return _unpacked_mean(made, path, gain)
        shape, dtype, data = made["shape"], np.dtype(made[_ARRAY]), memoryview(made["data"])
        nbytes = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "iuf" or min(shape, default=0) < 0 or (not nbytes) != (not data):
            raise ValueError("it is none")
        out = np.empty(shape if nbytes <= _MOST_UNPACKED * len(data) else 0, dtype)
        if nbytes:
            header = parse_chunk_header(bytes(data[:CHUNK_HEADER_NBYTES]))
            where: dict[str, Any] = {"path": path, "frame": 0, "offset": 0}
            check_chunk(header, out.nbytes, len(data), **where)
            decompress(data, out, **where)
    except NotEnoughMemory:
        raise
    except (KeyError, TypeError, ValueError, IndexError, struct.error) as error:
        found = f"an array in its footer is damaged ({getattr(error, 'found', error)})"
        raise MrczError(path, found) from error
    out.flags.writeable = False
    return out


def _unpacked_mean(made: Map, path: Path, gain: Map | None) -> Array:
    whole, rest = (unpacked(made[name], path) for name in ("counts", "rest"))
    scale = _scale(gain, whole.shape)
    if scale is None or rest.shape != whole.shape:
        raise ValueError("its gain is another")
    predicted = _mean_of(whole, float(made["low"]), int(made[_MEAN]), *scale)
    out = (predicted.view(np.int32) + rest.astype(np.int32)).view(np.float32)
    if xxhash.xxh3_64_hexdigest(out.data) != made["xxh3"]:
        raise ValueError("its checksum does not match")
    out.flags.writeable = False
    return out


def _scale(gain: Map | None, shape: tuple[int, ...]) -> tuple[Array, Array] | None:
    """Return factor and dark of a gain, (y, x) as the frames lie; None if it is another.

    Of multiplications and divisions alone, which are the same on every machine.
    """
    if gain is None:
        return np.ones(shape), np.zeros(())
    from napari_mrcz.correction.orientation import orient

    try:
        exponent, turn = gain["gamma"], gain["orientation"]
        factor = np.array(orient(np.asarray(gain["reference"]), turn), np.float64)
        dark = gain.get("dark")
        dark = np.zeros(()) if dark is None else np.array(orient(dark, turn), np.float64)
    except (KeyError, TypeError, ValueError):
        return None
    if exponent not in _EXACT or factor.shape != shape or dark.shape not in ((), shape):
        return None
    usable = np.isfinite(factor) & (factor > 0)
    if not usable.all():
        # Filled defects have the median of all: one of a sample is near enough.
        some = factor[:: max(1, len(factor) // _ROWS)]
        some = some[np.isfinite(some) & (some > 0)]
        factor[~usable] = np.median(some) if some.size else 1
    return (1 / factor if exponent < 0 else factor), np.where(np.isfinite(dark), dark, 0)


def _mean_of(whole: Array, low: float, frames: int, factor: Array, dark: Array) -> Array:
    counts = whole.astype(np.float64)
    counts += low
    counts /= frames
    counts -= dark
    counts *= factor
    with np.errstate(over="ignore"):
        return counts.astype(np.float32)


def _frames_in(means: Array) -> int | None:
    """Return the least number that makes means of counts whole; None if there is none."""
    sample = means.reshape(-1)[:: max(1, means.size // _SAMPLE)]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return None
    step = max(1, 2**20 // sample.size)
    for first in range(1, _MOST_FRAMES, step):
        numbers = np.arange(first, first + step)
        counts = sample[:, None] * numbers
        near = (np.abs(counts - np.rint(counts)) < _WHOLE).mean(axis=0) >= _SHARE
        if near.any():
            return int(numbers[near.argmax()])
    return None
