"""What is kept of a stack for the whole session: its sum, its variance, a thumbnail.

Each stack is read once, frame by frame; the summary goes to a cache folder, so that nothing is read
the next time, or, for a watch, to its output folder. Nothing is written beside a user's file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import msgpack
import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import fingerprint
from napari_mrcz.correction.koma import thumbnail
from napari_mrcz.format.atomic import write_file
from napari_mrcz.format.footer import from_tagged, to_plain
from napari_mrcz.naming import cache_folder
from napari_mrcz.stack.sources import sum_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from napari_mrcz.session.journal import MovieRecord
    from napari_mrcz.stack import Stack

_STRIP = 1 << 17
_LARGEST = 20 * 2**30
# After how many sums the folder is looked through again.
_SCAN_EVERY = 500
_IMAGE, _NUMBERS = ".sum.npy", ".json"


@dataclass(frozen=True, eq=False)
class StackSum:
    """A stack's sum and what else a session needs of it, as it is sent between processes."""

    total: npt.NDArray[Any]  # (y, x): sum of the frames
    n_frames: int  # Frames summed
    variance: float  # Σ var x_t, of each frame over its pixels
    thumbnail: npt.NDArray[np.float64]  # Of the mean frame, 16 x 16 cells


@dataclass(frozen=True)
class Surveyed:
    """What KOMA needs to know of a stack."""

    outliers: Mapping[str, Any] | None  # Description of the outlier filter that was fitted
    sum: StackSum  # Of the corrected frames
    acquired: datetime | None = None  # When, if the movie's metadata says so


@dataclass(frozen=True)
class Summary:
    """A `StackSum` whose sum is in a file."""

    n_frames: int  # As there
    variance: float
    thumbnail: npt.NDArray[np.float64]
    shape: tuple[int, int]  # Of a frame (y, x)
    path: str  # File with the sum

    @property
    def sum(self) -> npt.NDArray[Any]:
        """Sum of the frames, (y, x), mapped from the file, so that it takes hardly any memory.

        It is mapped each time: a mapping takes a file descriptor as long as it lives. Raise
        `OSError` or `ValueError` if the file is gone, or is damaged.
        """
        total: npt.NDArray[Any] = np.lib.format.open_memmap(self.path, mode="r")
        if total.shape != self.shape:
            raise ValueError(f"{self.path} has the shape {total.shape}, not {self.shape}")
        return total


def sums_folder() -> Path:
    """Return the folder where summaries are kept; it may be deleted at any time."""
    return cache_folder() / "sums"


class SummaryStore:
    """A folder of summaries, found by the key of their stack.

    It takes at most half of the free space, and at most 20 GB for sums that no session of this
    process needs: those that were used longest ago are deleted. The folder is scanned once; its
    size is then counted, and the folder scanned again now and then, as others write to it too.

    `folder`: made when it is first needed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._needed: dict[str, int] = {}  # bytes, used longest ago first
        self._idle: dict[str, int] = {}  # the same, of others
        self._nbytes = 0
        self._n_until_scan = 0
        with _lock:
            _stores.add(self)

    def load(self, key: str) -> Summary | None:
        """Return a summary, if it is there and whole."""
        image, numbers = self._paths(key)
        try:
            content = json.loads(numbers.read_bytes())
            small = np.array(content["thumbnail"], np.float64)
            shape = tuple(content["shape"])
            summary = Summary(content["n_frames"], content["variance"], small, shape, str(image))
            if not summary.sum.size:
                return None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        for path in (image, numbers):
            with contextlib.suppress(OSError):
                os.utime(path)
        self._take(key, summary.sum.nbytes)
        return summary

    def save(self, key: str, found: StackSum) -> Summary:
        """Write a sum to the folder; raise `OSError` if that fails."""
        image, numbers = self._paths(key)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(found.total.nbytes)
        # By the file's own `write`: NumPy's error on a full disk does not say that it is full.
        _replace(image, lambda file: np.save(SimpleNamespace(write=file.write), found.total))
        # The numbers come last: where they are, the image is whole.
        content = {
            "n_frames": found.n_frames,
            "variance": found.variance,
            "thumbnail": found.thumbnail.tolist(),
            "shape": found.total.shape,
        }
        _replace(numbers, lambda file: file.write(json.dumps(content).encode()))
        self._take(key, found.total.nbytes)
        shape = found.total.shape
        return Summary(found.n_frames, found.variance, found.thumbnail, shape, str(image))

    def discard(self, key: str) -> None:
        """Delete a summary, if it is there."""
        with _lock:
            self._nbytes -= self._needed.pop(key, 0) + self._idle.pop(key, 0)
        for path in self._paths(key):
            # On Windows a file that is mapped somewhere cannot be deleted, and stays.
            with contextlib.suppress(OSError):
                path.unlink()

    def release(self, keys: Iterable[str]) -> None:
        """Delete some summaries, and count the others as not needed by this session."""
        for key in keys:
            self.discard(key)
        with _lock, contextlib.suppress(OSError):
            if self._needed:
                self._needed.clear()
                self._n_until_scan = 0
                self._make_room(0)

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self._folder / f"{key}{_IMAGE}", self._folder / f"{key}{_NUMBERS}"

    def _take(self, key: str, nbytes: int) -> None:
        """Count a summary as needed, and as used last."""
        with _lock:
            self._nbytes += nbytes - self._needed.pop(key, 0) - self._idle.pop(key, 0)
            self._needed[key] = nbytes

    def _make_room(self, nbytes: int) -> None:
        """Delete what was used longest ago: others first, then what this session needs itself."""
        with _lock:
            if self._n_until_scan <= 0:
                self._scan()
            self._n_until_scan -= 1
            half = (shutil.disk_usage(self._folder).free + self._nbytes) // 2
            for kept, most in ((self._idle, min(_LARGEST, half)), (self._needed, half)):
                while kept and self._nbytes + nbytes > most:
                    self.discard(next(iter(kept)))

    def _scan(self) -> None:
        """Look through the folder."""
        stores = [store for store in _stores if store._folder == self._folder]
        needed = {key for store in stores for key in store._needed}
        found = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(_IMAGE):
                with contextlib.suppress(OSError):
                    state = entry.stat()
                    key = entry.name.removesuffix(_IMAGE)
                    found.append((state.st_mtime_ns, state.st_size, key))
        self._nbytes = sum(size for _, size, _ in found)
        self._idle = {key: size for _, size, key in sorted(found) if key not in needed}
        sizes = {key: size for _, size, key in found}
        self._needed = {key: sizes[key] for key in self._needed if key in sizes}
        self._n_until_scan = _SCAN_EVERY


# Those of this process: none deletes what another needs.
_lock = threading.RLock()
_stores: weakref.WeakSet[SummaryStore] = weakref.WeakSet()


def key_of(stack: Stack) -> str | None:
    """Return a key of a stack's file, as it is now, and corrections; None if it has no one file."""
    header = stack.header
    # Joined stacks carry path and header of their first one.
    if stack.path is None or header is None or header.nz < len(stack):
        return None
    try:
        state = os.stat(stack.path)
    except OSError:
        return None
    path = os.path.realpath(stack.path)
    return fingerprint([path, state.st_size, state.st_mtime_ns, stack.shape, stack.history])


def summarise(stack: Stack, progress: Callable[[int, int], None] | None = None) -> StackSum:
    """Sum the frames of a stack and their variances, in one pass, several frames at a time.

    `progress`: called with (frames done, frames); what it raises ends the summing. The sum has the
    smallest integers that hold it; floats are added in float64 and kept as float32, which loses
    millionths of the noise of a thousand electrons. Raise `ValueError` if the frames are complex,
    or too large for float32.
    """
    if stack.dtype.kind == "c":
        raise ValueError(f"stacks of a session are of real numbers, not of {stack.dtype}")
    makers = list(stack.frame_makers())
    variances = np.zeros(len(stack))

    def read(index: int) -> npt.NDArray[Any]:
        frame = makers[index]()
        variances[index] = _variance(frame)
        return frame

    total = _narrowed(sum_frames(read, stack.shape, stack.dtype, progress))
    small = thumbnail(total) / len(stack)
    return StackSum(total, len(stack), float(variances.sum()), small)


def _variance(frame: npt.NDArray[Any]) -> float:
    """Return the variance over the pixels; strips stay in the processor's cache."""
    flat = frame.reshape(-1)
    shift = float(flat[0])
    first = second = 0.0
    # A frame with pixels that are not numbers, or enormous, has no variance: nothing to warn of.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, _STRIP):
            strip = flat[start : start + _STRIP].astype(np.float64)
            strip -= shift
            first += float(strip.sum())
            # Not `strip @ strip`: BLAS has threads of its own, which would wait for each other's.
            second += float(np.square(strip, out=strip).sum())
    mean = first / flat.size
    return second / flat.size - mean * mean


def _narrowed(total: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a sum in the smallest integers that hold it, or in float32."""
    if total.dtype.kind == "f":
        with np.errstate(over="ignore"):
            narrowed = total.astype(np.float32)
        if (np.isinf(narrowed) != np.isinf(total)).any():
            largest = np.abs(total[np.isfinite(total)]).max()
            raise ValueError(
                f"sums of up to {largest:.2g}, more than float32 holds, are not counts"
            )
        return narrowed
    if total.dtype.kind not in "iu":
        return total
    low, high = np.min_scalar_type(int(total.min())), np.min_scalar_type(int(total.max()))
    return total.astype(np.promote_types(low, high))


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file and rename it, so that no reader sees half of it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


class Sums:
    """The sums of a watch in its output folder; a lost one is made again from its movie.

    `folder`: made when it is first needed; `recipe`: fingerprint of the recipe; sums by another one
    are ignored.
    """

    def __init__(self, folder: Path, recipe: str) -> None:
        self._folder = folder
        self._recipe = recipe

    def save(self, movie: MovieRecord, surveyed: Surveyed) -> None:
        """Write a sum; raise `MrczError` or `OSError` if that fails."""
        path = self._path(movie)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"of": self._key(movie), "outliers": surveyed.outliers, "sum": vars(surveyed.sum)}
        write_file(path, msgpack.packb(to_plain(content)), overwrite=True)

    def load(self, movie: MovieRecord) -> Surveyed | None:
        """Return a sum, if it is there and whole."""
        try:
            content = msgpack.unpackb(self._path(movie).read_bytes(), object_hook=from_tagged)
            if content["of"] != self._key(movie):
                return None
            return Surveyed(content["outliers"], StackSum(**content["sum"]))
        except (OSError, ValueError, KeyError, TypeError, msgpack.UnpackException):
            return None

    def discard(self, movie: MovieRecord) -> None:
        """Delete a sum, if it is there."""
        with contextlib.suppress(OSError):
            self._path(movie).unlink()

    def _key(self, movie: MovieRecord) -> list[str | int]:
        return [self._recipe, movie.version.size, movie.version.mtime_ns]

    def _path(self, movie: MovieRecord) -> Path:
        return self._folder / f"{movie.source}.sum"
