"""Movies kept as counts: integers in the file, gain and KOMA in its footer, applied on opening.

A corrected movie of float32 takes 8 to 10 times the room of its counts. MRCZ stores integers and
applies the gain at the destination (McLeod et al., doi:10.1016/j.jsb.2017.11.012). A file that is
kept as counts has outlier pixels replaced; what is to be done to each frame after that (`pending`)
is in its footer. The references are files beside it, one per folder, named by their content. The
raw values of the replaced pixels are in the footer too: `keeping` writes such files, and restores
the original movie from them. Keys of the footer:

``pending``   corrections that the stored frames have not had, as in a history; large arrays are
              ``{path, xxh3}`` of a reference beside the file, or packed
``gain``      ``{path, xxh3}`` of the gain reference; ``dark`` likewise
``original``  what it takes to restore the movie that was corrected: see `keeping.Keeping`

Arrays are packed losslessly. KOMA's average is the mean of many gain-normalised frames of counts:
in each pixel a whole number of counts, times the gain, over the number of frames. That number and
the rest in the last bits take a third of the room of the float32, whose lower bits look random.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.errors import AnyPath, MrczError, NotEnoughMemory, warn
from napari_mrcz.format import FrameReader, chunks
from napari_mrcz.format.atomic import write_file
from napari_mrcz.format.files import file_nbytes, open_file
from napari_mrcz.format.footer import from_tagged, to_plain, value_at
from napari_mrcz.naming import RemotePath, path_of
from napari_mrcz.stack.sources import Correction, uncorrected

if TYPE_CHECKING:
    from napari_mrcz.stack.stack import Stack

NOTE = "kept_as_counts"
"""Key of the metadata, which other programs show, that says that the gain is not applied."""

PENDING, ORIGINAL = "pending", "original"
GAIN = "GainNormalization"
REFERENCES = {"reference": "gain", "dark": "dark"}
"""Keys of a step whose images are files beside the movie, and how their names begin."""

OURS = (PENDING, ORIGINAL, *REFERENCES.values())
"""Keys of the footer that are about counts."""

_REFERENCE_NAME = re.compile(r"(gain|dark)-[0-9a-f]{16}\.mrcz")
_ARRAY, _MEAN = "__packed__", "__packed_mean__"
_LEVEL = 5
# What zstd expands to at most.
_MOST_UNPACKED = 2**15
# Exponents of a gain whose powers are the same on every machine.
_EXACT = (1.0, -1.0)
# The most frames that an average may be of, and the pixels that show how many.
_MOST_FRAMES, _SAMPLE = 2**17, 64
# Rows that a gain's median is estimated from.
_ROWS = 64
# How far from a whole number counts may be, and the share of pixels that must be as near.
_WHOLE, _SHARE = 0.02, 0.9

Array = npt.NDArray[Any]
Map = Mapping[str, Any]
Rebuilt = tuple[Correction, dict[str, Any]]


def is_kept(other: Map) -> bool:
    """Return whether a footer's further keys are those of a file that is kept as counts."""
    return PENDING in other


def is_kept_file(path: AnyPath) -> bool:
    """Return whether a file is kept as counts, though it may be damaged."""
    try:
        with FrameReader(path) as reader:
            return is_kept(reader.footer.other) or NOTE in reader.metadata
    except MrczError:
        return False


def waiting(path: Path, other: Map) -> list[Map]:
    """Return the corrections that stored frames have not had; `MrczError` if they make no sense."""
    steps = other.get(PENDING, [])
    if isinstance(steps, list) and all(isinstance(value_at(s, "name"), str) for s in steps):
        return steps
    raise MrczError(path, "the corrections in its footer make no sense: it cannot be normalised")


def opened(stack: Stack, other: Map, *, counts: bool) -> Stack:
    """Return the frames of a file that is kept as counts, normalised or as they are stored.

    `stack`: the stored frames; `other`: the footer's further keys; `counts`: return the counts;
    references need not be there then. Raise `MrczError` if a reference is missing, or is another
    one, or a step cannot be rebuilt.
    """
    left = {key: value for key, value in stack.description.other.items() if key not in OURS}
    stack = stack.described(other=left)
    if counts:
        return stack
    metadata = {k: v for k, v in stack.description.metadata.items() if k != NOTE}
    history = list(stack.history)
    for correction, step in _corrections(path_of(stack.path or ""), other):
        stack = stack.apply(correction)
        history.append(step)
    return stack.described(history=tuple(history), metadata=metadata)


def problem_of(path: Path, other: Map) -> str:
    """Return why a file that is kept as counts cannot be normalised, or nothing."""
    try:
        for _ in _corrections(path, other):
            pass
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def summary_of(path: Path, other: Map, dtype: np.dtype[Any]) -> str:
    """Return a sentence on a file that is kept as counts; `MrczError` if its footer is damaged."""
    name = value_at(other, "gain", "path") or ""
    named = [
        f"gain in the footer ({name})" if step["name"] == GAIN else "KOMA in the footer"
        for step in waiting(path, other)
    ]
    if not named:
        return f"kept as counts ({dtype}); nothing else is to be applied"
    return f"kept as counts ({dtype}); {' and '.join(named)}, not applied to the stored pixels"


def kept_reader(movie: Stack) -> FrameReader | None:
    """Return what reads the file of a movie that is kept as counts; None of others.

    Frames that were corrected after it was opened count; others, such as sums and crops, do not.
    """
    source = uncorrected(movie._source)
    kept = isinstance(source, FrameReader) and is_kept(source.footer.other)
    return source if kept else None  # type: ignore[return-value]


def is_reference_name(name: str) -> bool:
    """Return whether a file's name is that of a reference of movies that are kept as counts."""
    return _REFERENCE_NAME.fullmatch(name) is not None


def copy_references(source: AnyPath, target: AnyPath) -> None:
    """Copy the references of a file that is kept as counts to the folder of its copy.

    Warn of one that cannot be read; raise `MrczError` if one cannot be written.
    """
    source = path_of(source)
    with FrameReader(source) as reader:
        other = reader.footer.other if is_kept(reader.footer.other) else {}
    for place in map(other.get, REFERENCES.values()):
        if not isinstance(place, Mapping):
            continue
        try:
            old = _beside(source, place)
            new = Path(target).with_name(old.name)
            if new.exists():
                continue
            with closing(open_file(old)) as original:
                content = original.read(0, original.nbytes)
        except MrczError as error:
            warn(f"{target}: it cannot be normalised without its reference. {error}")
            continue
        write_file(new, content, overwrite=True)


def _corrections(path: Path, other: Map) -> Iterator[Rebuilt]:
    """Yield the corrections that wait, in order, each with its description with all arrays."""
    gain = None
    for step in waiting(path, other):
        files = [v for key, v in step.items() if key in REFERENCES and isinstance(v, Mapping)]
        stamps = tuple(_stamp(path, place) for place in files)
        if step.get("name") == GAIN and files:
            # The same for all movies of a session.
            found = _rebuilt_once(stamps[0][0].parent, msgpack.packb(to_plain(step)), stamps)
            gain = found[1]
        else:
            found = _rebuilt(path, step, gain)
        yield found


@lru_cache(maxsize=1)
def _rebuilt_once(folder: Path, step: bytes, stamps: tuple[Any, ...]) -> Rebuilt:
    content = msgpack.unpackb(step, strict_map_key=False, object_hook=from_tagged)
    return _rebuilt(folder / "movie", content, None)


def _rebuilt(path: Path, step: Map, gain: Map | None) -> Rebuilt:
    from napari_mrcz.correction.history import rebuild

    resolved: dict[str, Any] = {}
    for key, value in step.items():
        if key in REFERENCES and isinstance(value, Mapping):
            value = _read_reference(path, value)
        elif is_packed(value):
            value = unpacked(value, path, gain)
        resolved[key] = value
    try:
        return rebuild(resolved), resolved
    except (ValueError, LookupError) as error:
        found = f"the gain is not applied: {error}"
        raise MrczError(path, found, advice="counts=True opens the counts alone") from error


def _beside(movie: Path, place: Map) -> Path:
    """Return the path of a reference, in the movie's folder whatever the footer says.

    Where the movie is a link, and no reference is beside that: beside the file itself.
    """
    name = Path(str(place.get("path"))).name
    if not is_reference_name(name):
        raise MrczError(movie, f"its footer names no reference, but {name!r}")
    beside = movie.with_name(name)
    if movie.is_symlink() and not beside.exists():
        own = movie.resolve().with_name(name)
        return own if own.exists() else beside
    return beside


def _stamp(movie: Path, place: Map) -> tuple[Path, int, int]:
    """Return path, size and time of a reference; raises `MrczError` if it is missing."""
    file = _beside(movie, place)
    try:
        if isinstance(file, RemotePath):
            return file, file_nbytes(file), 0
        status = os.stat(file)
    except (OSError, MrczError) as error:
        found = f"its reference {file.name} is missing beside it: it cannot be normalised"
        advice = f"Put {file.name} into {movie.parent}, or open the counts alone with counts=True"
        raise MrczError(movie, found, advice=advice) from error
    return file, status.st_size, status.st_mtime_ns


def _read_reference(movie: Path, place: Map) -> Array:
    file = _beside(movie, place)
    image, why = image_of(file)
    if image is None or xxhash.xxh3_64_hexdigest(image.data) != str(place.get("xxh3")):
        altered = "is not the reference that the movies beside it were made with: it was altered"
        advice = "Restore it from a copy; counts=True opens the counts of the movies alone"
        raise MrczError(file, why or altered, advice=advice)
    return image


def image_of(file: Path) -> tuple[Array | None, str]:
    """Return the image of a reference, or None and why it cannot be read."""
    try:
        with FrameReader(file) as reader:
            if reader.shape[0] == 1:
                image = np.ascontiguousarray(reader.read_frame(0))
                image.flags.writeable = False
                return image, ""
    except NotEnoughMemory:
        raise
    except MrczError as error:
        return None, error.found
    return None, ""


def is_packed(value: Any) -> bool:
    """Return whether a value is what `packed` or `packed_mean` returned."""
    return isinstance(value, Mapping) and (_ARRAY in value or _MEAN in value)


def packed(array: Array, filter_: str = "shuffle") -> dict[str, Any]:
    """Return an array as a map of its type, shape and a blosc chunk."""
    array = np.ascontiguousarray(array)
    data = b""
    if array.size:
        # As one block: several would come in the order in which blosc's threads are done.
        data = chunks.compress(array, "zstd", _LEVEL, filter_, array.nbytes)
    return {_ARRAY: array.dtype.newbyteorder("<").str, "shape": list(array.shape), "data": data}


def packed_mean(mean: Array, gain: Map | None) -> dict[str, Any]:
    """Return an average of gain-normalised frames as a map.

    `mean` (y, x): the average; `gain`: description of the gain normalisation that the averaged
    frames had. The result: as whole counts, if it is a mean of such; else as `packed` returns it.
    """
    made = _packed_counts(mean, gain)
    # Counts take hardly more than half of the room; if these do, they are no counts.
    if made is not None and packed_nbytes(made) <= mean.nbytes // 2:
        return made
    plain = packed(mean)
    return plain if made is None or packed_nbytes(plain) < packed_nbytes(made) else made


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

    `made`: as `packed` or `packed_mean` returned it; `path`: the file, for messages; `gain`: as
    `packed_mean` was given it. Raise `MrczError` if it is damaged.
    """
    try:
        if _MEAN in made:
            return _unpacked_mean(made, path, gain)
        shape, dtype, data = made["shape"], np.dtype(made[_ARRAY]), memoryview(made["data"])
        nbytes = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "iuf" or min(shape, default=0) < 0 or (not nbytes) != (not data):
            raise ValueError("impossible type or shape")
        out = np.empty(shape if nbytes <= _MOST_UNPACKED * len(data) else 0, dtype)
        if nbytes:
            chunks.decompress(data, out, path=path, frame=0, offset=0)
    except NotEnoughMemory:
        raise
    except (KeyError, TypeError, ValueError, IndexError, struct.error) as error:
        found = f"an array in its footer is damaged ({getattr(error, 'found', error)})"
        raise MrczError(path, found) from error
    out.flags.writeable = False
    return out


def _unpacked_mean(made: Map, path: Path, gain: Map | None) -> Array:
    whole, rest = (unpacked(made[name], path) for name in ("counts", "rest"))
    # Earlier versions turned the dark of any gain like that.
    for described in (gain, None if gain is None else {**gain, "dark_lies": ""}):
        scale = _scale(described, whole.shape)
        if scale is None or rest.shape != whole.shape:
            continue
        predicted = _mean_of(whole, float(made["low"]), int(made[_MEAN]), *scale)
        out = (predicted.view(np.int32) + rest.astype(np.int32)).view(np.float32)
        if xxhash.xxh3_64_hexdigest(out.data) == made["xxh3"]:
            out.flags.writeable = False
            return out
    raise ValueError("its gain is another, or its checksum does not match")


def _scale(gain: Map | None, shape: tuple[int, ...]) -> tuple[Array, Array] | None:
    """Return factor and dark of a gain, (y, x) as the frames lie; None if it is another.

    Of multiplications and divisions alone, which are the same on every machine.
    """
    if gain is None:
        return np.ones(shape), np.zeros(())
    from napari_mrcz.correction.gain import described_dark
    from napari_mrcz.correction.orientation import orient

    try:
        exponent = gain["gamma"]
        factor = np.array(orient(np.asarray(gain["reference"]), gain["orientation"]), np.float64)
        dark = described_dark({"dark": None, **gain})
        dark = np.zeros(()) if dark is None else np.array(dark, np.float64)
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
