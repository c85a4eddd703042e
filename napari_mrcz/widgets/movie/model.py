"""Sums of any range of a movie's frames, their spectrum and drift; nothing here knows of a window.

A range that is dragged is shown at once, binned, as the difference of two sums kept on the way.
When the hand rests, the same range is summed at full size, from sums that are kept every few
frames and the frames between. What is kept takes at most 100 MB binned and 105 MB at full size.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz import correction
from napari_mrcz.correction.sums import binned_sum, smallest_sum_dtype, sum_dtype
from napari_mrcz.errors import MrczError, NotEnoughMemory
from napari_mrcz.format.machine import give_back, in_order, processors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_mrcz.correction import Drift
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report

# Height and width of a binned picture at most; a canvas has hardly more.
_PICTURE = 1024
# What is kept of a movie, in bytes.
_BINNED_NBYTES, _FULL_NBYTES = 100_000_000, 105_000_000
# Frames between sums at full size, at least: fewer are read as quickly.
_APART = 5
# Groups that drift is estimated by, at most, and frames in each as a rule.
_MOST_GROUPS, _GROUP = 24, 5
# Height and width of a spectrum's picture, about.
_SPECTRUM = 160
# Lines of a picture that are smoothed at a time.
_LINES = 256
# Rings of a spectrum over which its background is smoothed.
_SMOOTH = 12

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]


class FrameSums:
    """Sums of any range of a movie's frames, from sums that were kept when it was read once.

    `stack`: real frames (n, y, x), of which damaged ones count as 0; `report`: called with (stage,
    frames done, frames); what it raises ends the reading.
    """

    mean: float  # of all pixels

    def __init__(self, stack: Stack, report: Report) -> None:
        self.stack = stack
        self.damaged: dict[int, str] = {}  # why frames could not be read
        self._makers = list(stack.frame_makers())
        n, y, x = stack.shape
        self.binning = 1  # of the pictures that `quick` returns
        while max(y, x) > _PICTURE * self.binning:
            self.binning *= 2
        self._floating = stack.dtype.kind == "f"
        # Sums of frames 0 to k - 1, binned for each k of `_steps`, at full size for each of `_ends`
        self._steps, self._binned = [0], [np.zeros((1, 1), np.uint8)]
        self._ends: list[int] = []
        self._whole: list[Array] = []
        self._dtype = smallest_sum_dtype(stack.dtype, n)
        self._read(report)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(each.nbytes for each in (*self._binned, *self._whole))

    def quick(self, start: int, stop: int) -> Array:
        """Return the sum of frames start to stop - 1: the mean of `binning` x `binning` pixels.

        Where sums of every other frame, or fewer, could be kept, the range is rounded to those. The
        result, (y // binning, x // binning), is of the type of `exact` where nothing is binned: for
        pixels of another type, the graphics driver would compile its program anew while the range
        is dragged. Else it is float32.
        """
        first = _nearest(self._steps, start)
        last = _nearest(self._steps, stop)
        if first == last:
            last = min(first + 1, len(self._steps) - 1)
            first = last - 1
        high, low = self._binned[last], self._binned[first]
        narrow = max(high.itemsize, low.itemsize) < 4  # 16 bits, as a rule
        dtype = np.float32 if self._floating else np.int32 if narrow else np.int64
        with np.errstate(over="ignore", invalid="ignore"):
            picture = np.subtract(high, low, dtype=dtype, casting="unsafe").astype(np.float32)
        summed = self._steps[last] - self._steps[first]
        picture *= np.float32((stop - start) / (summed * self.binning**2))
        is_whole = self.binning == 1 and not self._floating
        return np.rint(picture, out=picture).astype(self._dtype) if is_whole else picture

    def exact(self, start: int, stop: int, report: Report) -> Array:
        """Return the sum of frames start to stop - 1, (y, x), read-only.

        Of integers it is exact, in the smallest type for all frames; of floating frames float64,
        added in their order, which is the sum by numpy, bit for bit.
        """
        total, plus, minus = self._plan(start, stop)
        frames, threads = [*plus, *minus], processors()
        # Floating frames take four times the memory of counts: none of them waits to be added.
        at_a_time = threads if self._floating else max(len(frames), 1)
        done = 0
        for first in range(0, len(frames), at_a_time):
            some = frames[first : first + at_a_time]
            with in_order(self._frame, some, threads, "napari-mrcz-movie") as found:
                for frame in found:
                    add = np.add if done < len(plus) else np.subtract
                    with np.errstate(over="ignore", invalid="ignore"):
                        add(total, frame, out=total, casting="unsafe")
                    done += 1
                    report("Summing frame", done, len(frames))
        give_back()
        total.flags.writeable = False
        return total

    def _plan(self, start: int, stop: int) -> tuple[Array, Sequence[int], Sequence[int]]:
        """Return a sum to begin with, and frames to be added and subtracted."""
        if self._floating:
            kept = bisect_right(self._ends, stop) - 1 if start == 0 else -1
            if kept >= 0:
                return self._whole[kept].copy(), range(self._ends[kept], stop), ()
            return np.zeros(self.stack.shape[1:], self._dtype), range(start, stop), ()
        ends = [0, *self._ends]
        low, high = _nearest(ends, start), _nearest(ends, stop)
        at_low, at_high = ends[low], ends[high]
        if low == high or abs(start - at_low) + abs(stop - at_high) >= stop - start:
            return np.zeros(self.stack.shape[1:], self._dtype), range(start, stop), ()
        # What is too small for the type on the way comes right at the end: integers wrap around.
        total = self._whole[high - 1].astype(self._dtype)
        if low:
            np.subtract(total, self._whole[low - 1], out=total, casting="unsafe")
        plus = [*range(start, at_low), *range(at_high, stop)]
        minus = [*range(at_low, start), *range(stop, at_high)]
        return total, plus, minus

    def _read(self, report: Report) -> None:
        n, y, x = self.stack.shape
        # Floating frames take more memory while they are read: less of them is kept.
        share = 2 if self._floating else 1
        parts = min(n // _APART, _FULL_NBYTES // (share * y * x * self._dtype.itemsize))
        wanted = {round(n * k / parts) for k in range(1, parts + 1)} if parts else set()
        total = np.zeros((y, x), self._dtype) if parts else None
        wide = sum_dtype(self.stack.dtype, n * self.binning**2)
        small = np.zeros((y // self.binning, x // self.binning), wide)
        self._binned = [small.astype(np.uint8)]
        every = 1

        def read(index: int) -> tuple[Array | None, Array]:
            frame = self._frame(index)
            dtype = smallest_sum_dtype(frame.dtype, self.binning**2)
            with np.errstate(over="ignore", invalid="ignore"):
                squares = binned_sum(frame, self.binning, dtype)
            return (None if total is None else frame), squares

        with in_order(read, range(n), processors(), "napari-mrcz-movie") as frames:
            for done, (frame, squares) in enumerate(frames, 1):
                with np.errstate(over="ignore", invalid="ignore"):
                    small += squares
                    if total is not None and frame is not None:
                        np.add(total, frame, out=total, casting="unsafe")
                if done % every == 0 or done == n:
                    self._steps.append(done)
                    self._binned.append(_kept(small))
                    if (
                        sum(one.nbytes for one in self._binned) > _BINNED_NBYTES // share
                        and done < n
                    ):
                        every *= 2
                        kept = [k for k, at in enumerate(self._steps) if at % every == 0]
                        self._steps = [self._steps[k] for k in kept]
                        self._binned = [self._binned[k] for k in kept]
                if total is not None and done in wanted:
                    self._ends.append(done)
                    self._whole.append(total if done == n else total.copy())
                report("Reading frame", done, n)
        give_back()
        finite = small[np.isfinite(small)].astype(np.float64)
        self.mean = float(finite.mean()) / (n * self.binning**2) if finite.size else 0.0

    def _frame(self, index: int) -> Array:
        try:
            return self._makers[index]()
        except NotEnoughMemory:
            raise
        except MrczError as error:
            self.damaged[index] = str(error)
            return np.zeros(self.stack.shape[1:], self.stack.dtype)


def _nearest(places: Sequence[int], wanted: int) -> int:
    """Return where in an ordered list the value is that is nearest to another."""
    right = min(bisect_left(places, wanted), len(places) - 1)
    left = max(0, right - 1)
    return left if wanted - places[left] <= places[right] - wanted else right


def _kept(small: Array) -> Array:
    """Return a binned sum in the smallest type that holds it."""
    if small.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return small.astype(np.float32)
    dtype = np.promote_types(np.min_scalar_type(small.min()), np.min_scalar_type(small.max()))
    return small.astype(dtype if dtype.kind in "iu" else small.dtype)


def picture_of(
    total: Array, binning: int, low_pass: float, pixel_size: tuple[float, float], frames: int = 1
) -> Array:
    """Return a sum (y, x) as it is looked at: itself where nothing is to be done, else float32.

    `binning`: the mean of as many by as many pixels is taken; `low_pass`: resolution in Å (pixels
    where their size is not known) at which a Gaussian filter halves the contrast; 0 for none;
    `pixel_size`: of the sum, (y, x) in Å; 0 where it is not known; `frames`: to be divided by, for
    an average.
    """
    if binning == 1 and not low_pass and frames == 1:
        return total
    with np.errstate(over="ignore", invalid="ignore"):
        picture = binned_sum(total, binning, np.float32)
        own = None if picture is total else picture
        picture = np.multiply(picture, np.float32(1 / (binning**2 * frames)), out=own)
    if low_pass:
        known = np.isfinite(picture)
        if not known.all():
            picture = np.where(known, picture, picture[known].mean() if known.any() else 0)
        steps = [(size or 1.0) * binning for size in pixel_size]
        _smooth(picture, low_pass, steps[1])
        _smooth(picture.T, low_pass, steps[0])
    return picture


def _smooth(lines: Image, low_pass: float, step: float) -> None:
    """Smooth the lines of a picture in place, some at a time; a Gaussian is one for each axis."""
    from scipy.fft import irfft, next_fast_len, rfft  # not before a filter is wanted

    length = lines.shape[1]
    # As far from a border as the filter reaches, the other border must not shine through.
    reach = min(length, round(low_pass / step))
    padded = next_fast_len(length + 2 * reach, True)
    passed = np.exp2(-np.square(np.fft.rfftfreq(padded, step) * low_pass)).astype(np.float32)
    pads = [(0, 0), (reach, padded - length - reach)]
    for first in range(0, len(lines), _LINES):
        part = lines[first : first + _LINES]
        smooth = irfft(rfft(np.pad(part, pads, mode="symmetric")) * passed, padded)
        part[...] = smooth[:, reach : reach + length]


def doses(stack: Stack) -> npt.NDArray[np.float64] | None:
    """Return the dose before each frame, and in all, in e⁻/Å², shape (n + 1,); None if unknown.

    By what a companion of the file says, an EER file, or our simulation.
    """
    said: Mapping[str, Any] = stack.metadata
    n, (_, y, x) = len(stack), stack.pixel_size
    dose = said.get("dose")
    if isinstance(dose, list | tuple) and len(dose) == n:
        each = np.array(dose, np.float64)
    elif isinstance(dose, int | float):
        each = np.full(n, dose / n)
    elif y and x and said.get("simulated") and isinstance(said.get("dose_per_frame"), float):
        each = np.full(n, said["dose_per_frame"] / (y * x))
    else:
        eer = said.get("eer")
        eer = eer if isinstance(eer, dict) else {}
        total = eer.get("totalDose")
        if not isinstance(total, int | float) or not (y and x):
            return None
        per = 1.0 if "pix" not in str(eer.get("totalDose.unit", "e/pixel")) else 1 / (y * x)
        each = np.full(n, total * per / n)
    if not (np.isfinite(each).all() and each.sum() > 0):
        return None
    return np.concatenate([[0.0], np.cumsum(each)])


@dataclass(frozen=True, eq=False)
class SpectrumShown:
    """A power spectrum as it is shown; in 1/Å, or in 1/pixel where the pixel size is not known."""

    # (t, t): its logarithm over the smooth background, so that Thon rings stand out; frequency 0 is
    # at [t // 2, t // 2].
    image: npt.NDArray[np.uint8]
    frequency: npt.NDArray[np.float64]  # (m,), of the rotational average
    radial: npt.NDArray[np.float64]  # (m,), in multiples of the noise at the finest frequencies
    step: tuple[float, float]  # from one pixel to the next, along (y, x)
    nyquist: float  # the lower one of both axes
    known: bool  # whether the pixel size is


def spectrum_of(total: Array, pixel_size: tuple[float, float], report: Report) -> SpectrumShown:
    """Compute the power spectrum of a sum."""
    found = correction.power_spectrum(total, pixel_size, progress=report)
    least = max(float(found.radial[1:].max()) * 1e-12, 1e-300)  # an image may be all one value
    radial = np.maximum(found.radial, least)
    radial[0] = radial[1]
    weights = np.hanning(2 * _SMOOTH + 1)
    padded = np.pad(np.log(radial), _SMOOTH, mode="reflect")
    background = np.convolve(padded, weights / weights.sum(), mode="valid")
    size = len(found.image)
    squared = [np.square(np.fft.fftshift(np.fft.fftfreq(size, step))) for step in found.pixel_size]
    frequency = np.sqrt(squared[0][:, None] + squared[1])
    flat = np.maximum(found.image, least) / np.exp(
        np.interp(frequency, found.frequency, background)
    )
    # As large as it is drawn: a pixel of the screen would show one of the noisy ones else.
    flat = np.log(binned_sum(flat, max(1, size // _SPECTRUM), np.float64))
    low, high = np.quantile(flat, (0.02, 0.997))
    shades = np.clip((flat - low) / max(high - low, 1e-9), 0, 1) * 255
    noise = float(np.median(radial[len(radial) * 4 // 5 :]))
    return SpectrumShown(
        shades.astype(np.uint8),
        found.frequency,
        radial / noise,
        (1 / (size * found.pixel_size[0]), 1 / (size * found.pixel_size[1])),
        0.5 / max(found.pixel_size),
        all(size > 0 for size in pixel_size),
    )


@dataclass(frozen=True, eq=False)
class DriftShown:
    """The drift of a movie, and what fixed patterns did to it before it was corrected here."""

    found: Drift
    # `fixed_pattern` and `correlation` as recorded; None of a movie that was not corrected here.
    before: tuple[float, npt.NDArray[np.float64]] | None


def drift_of(stack: Stack, group: int, report: Report) -> DriftShown:
    """Estimate the drift of a movie, and the fixed pattern before it was corrected."""
    found = correction.estimate_drift(stack, group, progress=report)
    recorded = stack.recorded()
    if recorded.history == stack.history or recorded.shape != stack.shape:
        return DriftShown(found, None)

    def before(stage: str, done: int, total: int | None) -> None:
        report(f"Before corrections: {stage.lower()}", done, total)

    return DriftShown(found, found.pattern_in(recorded, progress=before))


def usual_group(sums: FrameSums) -> int:
    """Return how many frames make a group to align: with half an electron per pixel, or more."""
    n = len(sums.stack)
    counted = 0 < sums.mean < 0.5 and sums.stack.dtype.kind in "iu"
    enough = int(np.ceil(0.5 / sums.mean)) if counted else 1
    return max(1, min(max(_GROUP, enough, -(-n // _MOST_GROUPS)), n // 2))


def part_of(
    stack: Stack, frames: tuple[int, int], corners: npt.NDArray[np.float64] | None
) -> tuple[Stack, tuple[int, int]]:
    """Return some frames of a movie, cut to a rectangle, and its first row and column; lazily.

    `frames`: the first, and the one after the last; `corners`: points (y, x) in pixels, (k, 2),
    whose bounding box is taken; None for whole frames. Raise `ValueError` if nothing of the movie
    is in it.
    """
    start, stop = frames
    window = [(0, length) for length in stack.shape[1:]]
    if corners is not None:
        low, high = np.rint(corners.min(axis=0) + 0.5), np.rint(corners.max(axis=0) + 0.5)
        window = [
            (max(0, int(a)), min(length, int(b)))
            for a, b, length in zip(low, high, stack.shape[1:], strict=True)
        ]
    if any(a >= b for a, b in window):
        raise ValueError("The rectangle is outside the movie: draw it on the picture.")
    rows, columns = (slice(*ends) for ends in window)
    part = stack.select(slice(start, stop), rows, columns)
    metadata = dict(part.description.metadata)
    dose = metadata.get("dose")  # of all frames
    if isinstance(dose, list | tuple) and len(dose) == len(stack):
        metadata["dose"] = list(dose[start:stop])
    elif isinstance(dose, int | float):
        metadata["dose"] = dose * (stop - start) / len(stack)
    return part.described(metadata=metadata), (window[0][0], window[1][0])
