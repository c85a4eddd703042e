"""Sums of frames: exact, in the smallest type that holds them, several frames at a time.

Adding 8-bit frames to a 32-bit sum moves far more memory than the frames take. They go into a
16-bit sum first, which 257 of them cannot overflow, and as many more as its largest value leaves
room for. An array in memory is summed strip by strip, so that its sums stay in a cache. Other work
on parts of images is done in threads, too (`in_order`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from napari_mrcz import correction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Pixels of a strip: 1 MB of 16-bit sums; and of one of which several frames stay in a cache.
_STRIP, _SMALL_STRIP = 2**19, 2**17
# Frames that a 16-bit sum must have room for, to go on with it, and an 8-bit one.
_FEWEST, _LEAST_ROOM = 16, 4

Frame = npt.NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")


class RunningSum:
    """A sum of at most `n_frames` frames of a shape (y, x) and a dtype, added one by one."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, n_frames: int) -> None:
        self._shape = shape
        self._dtype = sum_dtype(dtype, n_frames)
        self._part_dtype, room = _part_of(np.dtype(dtype))
        self._part: Frame | None = None
        # No value of the part is farther from 0; a frame may add so much to it.
        self._farthest = 0
        self._limit, self._step = 0, 0
        if self._part_dtype is not None:
            self._limit = int(np.iinfo(self._part_dtype).max)
            self._step = self._limit // room
        self._total: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Add a frame (y, x)."""
        if self._part_dtype is None:
            if self._total is None:
                self._total = np.zeros(self._shape, self._dtype)
            with np.errstate(invalid="ignore"):  # inf and -inf have no sum: NaN says so
                np.add(self._total, frame, out=self._total, casting="unsafe")
            return
        if self._farthest + self._step > self._limit and not self._has_room(_FEWEST * self._step):
            self._empty_part()
        if self._part is None:
            self._part = np.zeros(self._shape, self._part_dtype)
        np.add(self._part, frame, out=self._part, casting="unsafe")
        self._farthest += self._step

    def merge(self, other: RunningSum) -> None:
        """Add another sum of the same kind, whose memory is taken over."""
        if self._part is None and other._part is not None:
            self._part, self._farthest = other._part, other._farthest
            other._part = None
        elif self._part is not None and other._part is not None:
            if self._has_room(other._farthest):
                self._part += other._part
                self._farthest += other._farthest
                other._part = None
            elif self._total is None:
                self._total = np.add(self._part, other._part, dtype=self._dtype)
                self._part, self._farthest = None, 0
                other._part = None
        for part in (other._part, other._total):
            if part is not None:
                self._grow(part)

    def total(self) -> Frame:
        """Return the sum, (y, x), of `sum_dtype`, or of 16 bits where 8-bit frames fit into them.

        No frames can be added afterwards.
        """
        if self._total is None and self._part is not None:
            part, self._part = self._part, None
            return part
        self._empty_part()
        if self._total is None:
            self._total = np.zeros(self._shape, self._dtype)
        return self._total

    def _has_room(self, more: int) -> bool:
        """Return whether so much can be added to any value of the part."""
        if self._part is not None and self._farthest + more > self._limit:
            self._farthest = max(int(self._part.max()), -int(self._part.min()))
        return self._farthest + more <= self._limit

    def _empty_part(self) -> None:
        if self._part is not None:
            self._grow(self._part)
        self._part, self._farthest = None, 0

    def _grow(self, part: Frame) -> None:
        if self._total is None:
            self._total = part.astype(self._dtype)
        else:
            self._total += part


def sum_array(frames: Frame) -> Frame:
    """Return the sum (y, x) of an array of frames (n, y, x), of a type as `RunningSum.total`.

    Floating frames are added in their order. Small counts in 8 bits are added in 8 bits, as many
    frames as have room, which is several times as fast.
    """
    n, y, x = frames.shape
    dtype = sum_dtype(frames.dtype, n)
    part_dtype, room = _part_of(frames.dtype)
    fits = n <= (room or n)
    total = np.zeros((y, x), part_dtype or dtype)
    height = max(1, (_STRIP if part_dtype is None else _SMALL_STRIP) // max(x, 1))
    small = frames.view(np.uint8) if frames.dtype.kind == "b" else frames

    def work(top: int) -> Frame:
        rows = np.s_[top : top + height]
        strip = total[rows] if fits else np.zeros(frames[0, rows].shape, dtype)
        are_small, first = part_dtype is not None, 0
        while first < n:
            part = small[first : first + (_FEWEST if are_small else room or n), rows]
            first += len(part)
            number = _room_in(part) if are_small else 0
            are_small = number >= _LEAST_ROOM
            if are_small:
                for start in range(0, len(part), number):
                    strip += np.add.reduce(part[start : start + number], dtype=part.dtype)
            else:
                strip += np.add.reduce(part, axis=0, dtype=part_dtype or dtype)
        narrow = strip.astype(part_dtype or dtype, copy=False)
        return narrow if fits or np.array_equal(narrow, strip) else strip

    tops = range(0, y, height)
    with in_order(work, tops, "napari-mrcz-sum") as strips:
        for top, strip in zip(tops, strips, strict=True):
            if strip.dtype.itemsize > total.itemsize:
                total = widened(total, dtype)
            if not fits:
                total[top : top + height] = strip
    return total


def _room_in(frames: Frame) -> int:
    """Return how many of these frames can be added up in their own type."""
    farthest = max(1, int(frames.max()), -int(frames.min()) if frames.dtype.kind == "i" else 0)
    return int(np.iinfo(frames.dtype).max) // farthest


class PackedSum:
    """A sum (y, x), compressed in memory: of few electrons to a third of 16 bits."""

    def __init__(self, total: Frame) -> None:
        self.shape, self.size, self.dtype = total.shape, total.size, total.dtype
        self._height = max(1, _STRIP // self.shape[1])

        def work(top: int) -> bytes:
            rows = np.ascontiguousarray(total[top : top + self._height])
            return bytes(blosc.compress(rows, b"lz4", 1, blosc.BITSHUFFLE))

        with in_order(work, range(0, self.shape[0], self._height), "napari-mrcz-sum") as parts:
            self._parts = list(parts)

    def unpacked(self) -> Frame:
        """Return the sum."""
        total = np.empty(self.shape, self.dtype)
        for number, part in enumerate(self._parts):
            blosc.decompress(part, total[number * self._height :][: self._height])
        return total


def widened(total: Frame, dtype: npt.DTypeLike) -> Frame:
    """Return a sum (y, x) in integers as wide or wider, in its own memory, never holding two.

    `total` is as `RunningSum.total` returns it, has no other reference, and is invalid afterwards.
    """
    dtype = np.dtype(dtype)
    if dtype == total.dtype:
        return total
    size, shape, factor = total.size, total.shape, dtype.itemsize // total.itemsize
    total.resize((factor * size,), refcheck=False)
    wide, narrow = total.view(dtype), total[:size]
    # From the end, so that nothing is overwritten before it was read.
    for stop in range(size, 0, -_STRIP):
        piece = np.s_[max(0, stop - _STRIP) : stop]
        wide[piece] = narrow[piece].astype(dtype)
    return wide.reshape(shape)


def binned_sum(image: Frame, factor: int, dtype: npt.DTypeLike) -> Frame:
    """Return the sum of each square of factor x factor pixels, in a type that holds it.

    Rows and columns that make no whole square are left out.
    """
    if factor == 1:
        return image.astype(dtype, copy=False)
    y, x = (length // factor for length in image.shape)
    image = image[: y * factor, : x * factor]
    # Whole rows first, then columns of what is left: several times as fast as a sum over two axes.
    rows = image[::factor].astype(dtype)
    for k in range(1, factor):
        np.add(rows, image[k::factor], out=rows, casting="unsafe")
    squares = rows[:, ::factor].copy()
    for k in range(1, factor):
        squares += rows[:, k::factor]
    return squares


def sum_dtype(dtype: npt.DTypeLike, n_frames: int) -> np.dtype[Any]:
    """Return the type that holds the sum of so many frames without overflow.

    int32 or int64 for integers (uint64 for uint64), float64 or complex128 else.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    if dtype.kind == "f":
        return np.dtype(np.float64)
    if dtype == np.uint64:
        return dtype
    largest = 1 if dtype.kind == "b" else max(abs(np.iinfo(dtype).min), np.iinfo(dtype).max)
    return np.dtype(np.int32 if largest * n_frames < 2**31 else np.int64)


def smallest_sum_dtype(dtype: npt.DTypeLike, n_frames: int) -> np.dtype[Any]:
    """Return `sum_dtype`, or one of 16 bits where that is enough for so many 8-bit frames."""
    part, room = _part_of(np.dtype(dtype))
    return part if part is not None and n_frames <= room else sum_dtype(dtype, n_frames)


def _part_of(dtype: np.dtype[Any]) -> tuple[np.dtype[Any] | None, int]:
    """Return the type of the small sum and how many frames it holds."""
    if dtype.kind == "b" or dtype == np.uint8:
        return np.dtype(np.uint16), 257
    if dtype == np.int8:
        return np.dtype(np.int16), 255
    return None, 0


def spread_over(n: int, most: int) -> list[int]:
    """Return the indices of at most `most` of n frames, spread evenly over all."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist()


def frame_sum(movie: Any) -> npt.NDArray[np.float64]:
    """Return the sum (y, x) of a movie (n, y, x); an array (y, x) counts as the sum itself.

    Raise `ValueError` if there are no frames, or they are not real numbers.
    """
    shape = getattr(movie, "shape", None)
    if shape is not None and len(shape) not in (2, 3):
        raise ValueError(f"an array of shape {tuple(shape)}, where frames (n, y, x) are expected")
    if shape is not None and len(shape) == 3 and not shape[0]:
        raise ValueError("a movie without frames")
    if hasattr(movie, "dtype"):
        _check_real(movie.dtype)
    if isinstance(movie, np.ndarray):
        total = sum_array(movie) if movie.ndim == 3 else movie
    elif hasattr(movie, "sum"):
        total = movie.sum(axis=0)
    else:
        frames = iter(movie)
        first = next(frames, None)
        if first is None:
            raise ValueError("a movie without frames")
        first = np.asarray(first)
        _check_real(first.dtype)
        total = first.astype(np.float64)
        for frame in frames:
            total += frame
    _check_real(total.dtype)
    total = np.asarray(total, np.float64)
    if total.ndim != 2 or not total.size:
        raise ValueError(f"frames sum to an array of shape {total.shape}, where (y, x) is expected")
    return total


def _check_real(dtype: np.dtype[Any]) -> None:
    if np.dtype(dtype).kind not in "buif":
        raise ValueError(f"frames of real numbers are summed, not of {dtype}")


def shows_nothing(image: npt.NDArray[Any]) -> bool:
    """Return whether an image is blank (all pixels alike) or saturated (most are at the top)."""
    finite = image[np.isfinite(image)]
    if not finite.size or (top := finite.max()) == finite.min():
        return True
    # Detectors that see one electron in each pixel have many ones.
    return bool(top > 1 and 2 * np.count_nonzero(finite == top) > finite.size)


def ordinary_pixels(image: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Mark the finite pixels within 6 robust standard deviations of the median, (y, x).

    A rule of thumb, for fits that a few hot pixels would pull away; `OutlierFilter` is the
    careful one.
    """
    finite: npt.NDArray[np.bool_] = np.isfinite(image)
    if not finite.any():
        return finite
    median = np.median(image[finite])
    distance = np.abs(image - median)
    # Counts so few that most pixels are alike have no spread by this measure: take Poisson's.
    level = abs(median)
    if level == 0:  # as for less than 0.7 counts a pixel
        values = image[finite]
        level = abs(values[values <= np.quantile(values, 0.99)].mean())
    deviation = max(1.4826 * float(np.median(distance[finite])), float(level) ** 0.5)
    return np.logical_and(finite, distance <= 6 * deviation)


@contextmanager
def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], name: str, *, alone: bool = False
) -> Iterator[Iterator[Result]]:
    """Call `work` with each item in several threads; the context is an iterator of ordered results.

    Corrections know neither the machine nor who else computes on it: `napari_mrcz` names the module
    that does (`correction.lender`). Without one, work is done in the caller's thread.

    `name`: of the threads; `alone`: use one thread, where items are too small for more.
    """
    if not correction.lender:
        yield map(work, items)
        return
    lender = import_module(correction.lender)
    with lender.in_order(work, items, 1 if alone else lender.processors(), name) as results:
        yield results


def both(
    one: Callable[[], Any], other: Callable[[], Any], *, alone: bool = False
) -> tuple[Any, Any]:
    """Return what two functions return; the first one runs in a thread, where there may be two."""
    if alone or not correction.lender or import_module(correction.lender).processors() < 2:
        return one(), other()
    with ThreadPoolExecutor(1, "napari-mrcz-both") as pool:
        try:
            first = pool.submit(one)
        except (RuntimeError, MemoryError):  # the system has no more threads
            return one(), other()
        second = other()
        return first.result(), second


def give_back() -> None:
    """Return freed memory to the system, so that the next allocation adds nothing to the peak."""
    if correction.lender:
        import_module(correction.lender).give_back()
