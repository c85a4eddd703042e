"""`TruncationModel`: gives pixels that a camera cut off at zero likely negative values again.

Hattne et al. (2016), J. Appl. Cryst. 49, 1029-1034, doi:10.1107/S1600576716007196. `regions` finds
pixels that count alike, fits the distribution of their counts, and draws values from it.

Every frame is fitted by itself, as in the paper: in a rotation series the background changes from
frame to frame, with thickness and orientation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.conversions import pedestal_of
from napari_mrcz.correction.history import DescribedByFields, register
from napari_mrcz.correction.noise import CountedAlready, looks_counted
from napari_mrcz.correction.options import Option, Options
from napari_mrcz.correction.regions import (
    ShiftedLognormal,
    annuli,
    draws,
    find_center,
    find_gaps,
    region_labels,
    valid_pixels,
)
from napari_mrcz.correction.sums import frame_sum, shows_nothing, spread_over
from napari_mrcz.errors import listed, with_minus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Frame = npt.NDArray[Any]

# Where pickles of earlier versions look for the model.
sys.modules[f"{__name__}.model"] = sys.modules[__name__]

# Counts from here on are not background of any camera; they share the histogram's last place.
_TOP = 2**16 - 1
# Larger floats are all whole, and none of them is a count.
_WHOLE = 2.0**53
_SIGNED = (np.int8, np.int16, np.int32, np.int64)
# On so many frames gaps are looked for, and whether counts are electrons.
_FRAMES_OF_CHECK = 24
# Regions of fewer pixels have parameters that are known badly.
_FEW_PIXELS = 500
# Largest error of a region's mean after the correction, in standard deviations of its counts, that
# is not said: this much times pixels over (pixels above zero) to the power 3/2, as simulated.
_UNSURE, _ERROR = 0.05, 0.5


@dataclass(frozen=True)
class TruncationOptions(Options):
    """How negative counts are restored; see `TruncationModel.fit`."""

    center: Annotated[
        tuple[float, float] | None,
        Option(
            "Centre",
            "Row and column of the beam, from 0, the bottom row being row 0, in all formats",
            unset="found",
            flag="--center",
            advice="Give it where the cross in the widget does not lie on the beam",
        ),
    ] = None
    n_annuli: Annotated[
        int,
        Option(
            "Annuli",
            "Annuli of equally many pixels, each fitted by itself",
            least=1,
            flag="--annuli",
            advice="Fewer where annuli have too few counts to be fitted",
        ),
    ] = 10
    mask: Annotated[
        str,
        Option(
            "Mask",
            "Pixels that are not valid, such as the beam stop's",
            unset="none",
            is_file=True,
            flag="--mask",
            advice="Give the beam stop's shadow: its zeros are not truncated counts",
        ),
    ] = ""
    regions: Annotated[
        str,
        Option(
            "Regions",
            "Label image of other regions than annuli",
            unset="none",
            is_file=True,
            flag="--regions",
            advice="For detectors whose background is not round",
        ),
    ] = ""
    offset: Annotated[
        int | None,
        Option(
            "Offset",
            "Added to all pixels",
            unit="counts",
            least=0,
            unset="0, in SMV as little as is needed",
            flag="--offset",
            advice="Leave it; programs that refuse negative counts need as much as the lowest",
        ),
    ] = None
    pedestal: Annotated[
        int | None,
        Option(
            "Pedestal",
            "Value at which counts were cut off",
            unit="counts",
            least=0,
            unset="that of the headers",
            flag="--pedestal",
            advice="Give it where the camera's program added one before it cut off",
        ),
    ] = None
    seed: Annotated[
        int,
        Option(
            "Seed",
            "Seed of the random values",
            least=0,
            flag="--seed",
            advice="Any other number shows how much depends on the draw",
        ),
    ] = 0
    force: Annotated[
        bool,
        Option(
            "Force",
            "Correct what seem to be counted electrons, too",
            flag="--force",
            advice="Only where you know that the counts were cut off",
        ),
    ] = False


@register
@dataclass(frozen=True, eq=False)
class TruncationModel(DescribedByFields):
    """Replaces zeros by values of 0 and less. Made by `TruncationModel.fit`.

    Call it with a frame and its index, or pass it to `Stack.apply`. Pixels above 0 stay as they
    are, and no value rises. Zeros of pixels that are not valid, or in a region of too few counts to
    fit, stay too. Where a pedestal was added after counts were cut off, pixels with that value are
    the zeros, and the pedestal stays in all pixels.

    Attributes
    ----------
    labels : ndarray of uint16, shape (y, x)
        The regions: 1 ... k, and 0 where pixels are not valid.
    parameters : ndarray, shape (n, k, 3)
        mu, sigma and shift of each frame's regions; NaN where there was too little to fit.
    zeros : ndarray of int, shape (n, k)
        How many pixels had no counts.
    smallest, largest : int
        Of all values after the correction, seed included.
    center : tuple of float or None
        Of the annuli, (y, x) in pixels; None where regions were given.
    seed : int
        Of the draws.
    pedestal : int
        Value of pixels without counts.
    n_changed : int
        Pixels of all frames that have another value after the correction.
    warnings : tuple of str
        Why the result should not be trusted, and what to do; empty if all is well.
    """

    title: ClassVar[str] = "Negative counts restored"

    labels: npt.NDArray[np.uint16]
    parameters: npt.NDArray[np.float64]
    zeros: npt.NDArray[np.int64]
    smallest: int
    largest: int
    center: tuple[float, float] | None = None
    seed: int = 0
    pedestal: int = 0
    n_changed: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts fit together, and freeze them."""
        for name, dtype in (("labels", np.uint16), ("parameters", float), ("zeros", np.int64)):
            array = np.array(getattr(self, name), dtype, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.center is not None:  # a list, as it comes back from a file
            object.__setattr__(self, "center", tuple(self.center))
        object.__setattr__(self, "warnings", tuple(self.warnings))
        n, k = self.zeros.shape
        if self.parameters.shape != (n, k, 3) or self.labels.max(initial=0) > k:
            raise ValueError(f"{self.parameters.shape} parameters do not fit {(n, k)} regions")

    @classmethod
    def fit(
        cls,
        movie: Any,
        center: tuple[float, float] | None = None,
        n_annuli: int = 10,
        mask: npt.ArrayLike | None = None,
        seed: int = 0,
        *,
        regions: npt.ArrayLike | None = None,
        pedestal: int | None = None,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Fit the counts of every region of every frame.

        Gaps between the detector's modules, which are 0 in every frame, are masked.

        Parameters
        ----------
        movie : Stack or array_like, shape (n, y, x) or (y, x)
            Diffraction patterns of whole counts, none negative, before any gain reference.
        center : tuple of float, optional
            Of the beam, (y, x) in pixels; by default found from the sum of the frames.
        n_annuli : int
            Annuli of equal numbers of pixels, each fitted by itself.
        mask : array_like of bool, shape (y, x), optional
            True where pixels are not valid, such as behind the beam stop. They stay as they are.
        seed : int
            Of the draws.
        regions : array_like of int, shape (y, x), optional
            Labels of other regions than annuli; 0 where pixels are not valid.
        pedestal : int, optional
            Value that was added to all pixels after counts were cut off; by default that of the
            movie's metadata, as read from an SMV header, or 0.
        force : bool
            Correct counted electrons, too, whose zeros are real and need no correction.
        progress : callable, optional
            Called with (frames done, frames); what it raises ends the fitting.

        Raises
        ------
        ValueError
            If there are no frames, shapes differ, values are below the pedestal or not whole, the
            metadata state several pedestals, or the counts are counted electrons.
        """
        frames = movie if hasattr(movie, "shape") else np.asarray(movie)
        frames = frames[np.newaxis] if len(frames.shape) == 2 else frames
        if len(frames.shape) != 3 or 0 in frames.shape:
            raise ValueError(f"frames of the shape {frames.shape}, where (n, y, x) is expected")
        _check_type(np.dtype(frames.dtype))
        if pedestal is None:
            pedestal = pedestal_of(getattr(frames, "metadata", {}))
        n, *shape = frames.shape
        sample = [np.asarray(frames[index]) for index in spread_over(n, _FRAMES_OF_CHECK)]
        valid = valid_pixels(tuple(shape), mask)
        gaps = valid & find_gaps(np.stack([frame == pedestal for frame in sample]))
        if regions is not None:
            labels = region_labels(regions, tuple(shape), ~valid)
            # A region that is nothing but a gap is kept as asked for; it has too few counts to fit.
            gaps &= np.isin(labels, np.unique(labels[~gaps]))
            labels, center = region_labels(regions, tuple(shape), ~valid | gaps), None
        else:
            mask = ~valid | gaps
            if center is None:
                center = find_center(_summed(frames) - n * pedestal, mask)
            labels = annuli(tuple(shape), center, n_annuli, mask)
        k = int(labels.max())
        electrons = _look_counted(sample, labels, k, pedestal)
        if electrons and not force:
            raise CountedAlready(
                "the counts seem to be counted electrons (variance as large as the mean, "
                "P(1)² near 2 P(0) P(2)): their zeros are real and were not cut off; leave them as "
                "they are, or force it"
            )
        parameters, zeros = np.full((n, k, 3), np.nan), np.zeros((n, k), np.int64)
        smallest = largest = pedestal
        n_changed = 0
        saturated: list[int] = []
        for index, frame in enumerate(frames):
            counted = histograms(_checked(frame, index, labels, pedestal), labels, k, pedestal)
            zeros[index] = counted[:, 0]
            for region, histogram in enumerate(counted):
                if (found := ShiftedLognormal.fit(histogram)) is not None:
                    parameters[index, region] = found.mu, found.sigma, found.shift
            _, drawn = draws(frame, labels, parameters[index], seed, index, pedestal)
            n_changed += int(np.count_nonzero(drawn))
            smallest = min(smallest, int(drawn.min(initial=0)) + pedestal)
            largest = max(largest, int(frame.max()))
            if frame.any() and shows_nothing(frame):
                saturated.append(index)
            if progress is not None:
                progress(index + 1, n)
        model = cls(labels, parameters, zeros, smallest, largest, center, seed, pedestal, n_changed)
        said = model._doubts(int(np.count_nonzero(gaps)), saturated, electrons=electrons)
        return replace(model, warnings=said)

    def __call__(self, frame: Frame, index: int) -> Frame:
        """Return frame (y, x) number `index` of the fitted movie, corrected, of `output_dtype`.

        Raise `ValueError` if it is not one of the frames that were fitted.
        """
        if frame.shape != self.labels.shape or not 0 <= index < len(self.parameters):
            raise ValueError(
                f"frame {index} of {frame.shape} is not one of the {len(self.parameters)} of "
                f"{self.labels.shape} that were fitted"
            )
        dtype = self.output_dtype(frame.dtype)
        if frame.dtype.kind != "f" and frame.max() > np.iinfo(dtype).max:
            raise ValueError(f"frame {index} has more counts than any that was fitted")
        fitted = self.labels, self.parameters[index], self.seed, index, self.pedestal
        pixels, drawn = draws(frame, *fitted)
        corrected = frame.astype(dtype)
        corrected.reshape(-1)[pixels] = drawn + self.pedestal
        return corrected

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the smallest signed type that holds all corrected frames of a `dtype`."""
        given = np.dtype(dtype)
        _check_type(given)
        if given.kind == "f":
            return given
        for candidate in _SIGNED:
            limits = np.iinfo(candidate)
            if limits.min <= self.smallest and self.largest <= limits.max:
                break
        return np.promote_types(candidate, given) if given.kind == "i" else np.dtype(candidate)

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return int(self.zeros.shape[1])

    @property
    def offset(self) -> int:
        """Number that makes all values 0 or more, for formats without negative numbers."""
        return max(0, -self.smallest)

    @property
    def n_unfitted(self) -> int:
        """Number of regions, of all frames, that have zeros and too few counts to fit."""
        return int(np.count_nonzero(np.isnan(self.parameters[:, :, 0]) & (self.zeros > 0)))

    @cached_property
    def radii(self) -> npt.NDArray[np.float64]:
        """Outer radius of each annulus, in pixels, (k,); `ValueError` for other regions."""
        if self.center is None:
            raise ValueError("regions that were given have no radius")
        y, x = np.nonzero(self.labels)
        radii = np.zeros(self.n_regions + 1)
        distances = np.hypot(y - self.center[0], x - self.center[1])
        np.maximum.at(radii, self.labels[y, x], distances)
        return radii[1:]

    def distribution(self, index: int, region: int) -> ShiftedLognormal | None:
        """Return the distribution of a region (1 ... k) of a frame; None where none was fitted."""
        mu, sigma, shift = self.parameters[index, region - 1].tolist()
        return None if np.isnan(mu) else ShiftedLognormal(mu, sigma, shift)

    def _doubts(self, n_gaps: int, saturated: list[int], *, electrons: bool) -> tuple[str, ...]:
        """Return the warnings of a fit: what was found, and what to do."""
        said = []
        if electrons:
            said.append(
                "The counts seem to be counted electrons, whose zeros are real: replacing them "
                "lowers all intensities. Use the movie as it was recorded."
            )
        if n_gaps:
            said.append(
                f"{n_gaps} pixels ({n_gaps / self.labels.size:.1%}) are 0 in every frame, such as "
                "gaps between modules: they are masked and stay 0."
            )
        if saturated:
            frames = f"frame{'s' * (len(saturated) > 1)} {listed(saturated, 5)}"
            said.append(f"Most pixels of {frames} have one value: leave saturated frames out.")
        if self.center is not None and not all(
            0 <= at < size for at, size in zip(self.center, self.labels.shape, strict=True)
        ):
            rows, columns = self.labels.shape
            said.append(
                f"The beam at row {self.center[0]:g}, column {self.center[1]:g} is outside of "
                f"frames of {rows} x {columns} pixels: check it, unless the detector is off-centre."
            )
        n_pixels = np.bincount(self.labels.reshape(-1), minlength=self.n_regions + 1)[1:]
        if self.n_regions and not self.zeros.any():
            said.append(
                "No pixel is 0 in any frame: nothing was cut off, or a pedestal was added, which "
                "has to be given."
            )
        if small := int(np.count_nonzero(n_pixels < _FEW_PIXELS)):
            said.append(
                f"{small} of {self.n_regions} regions have fewer than {_FEW_PIXELS} pixels: what "
                "is fitted to them is uncertain. Use fewer annuli or larger regions."
            )
        if self.n_unfitted:
            said.append(
                f"{self.n_unfitted} of {self.zeros.size} fits (regions of all frames) had too few "
                "counts: these zeros stay. Use fewer annuli, or mask what has no signal."
            )
        above = np.maximum(n_pixels - self.zeros, 1)
        error = np.where(np.isnan(self.parameters[:, :, 0]), 0, _ERROR * n_pixels / above**1.5)
        error[self.zeros == 0] = 0
        if unsure := int(np.count_nonzero(error > _UNSURE)):
            said.append(
                f"{unsure} of {self.zeros.size} fits have few counts above 0: the mean of such a "
                f"region is uncertain by up to {error.max():.1g} standard deviations of its "
                "counts. Use fewer annuli, or leave these pixels out with a mask."
            )
        at_bounds = sum(
            ShiftedLognormal(*fit).at_bounds for fit in self.parameters.reshape(-1, 3).tolist()
        )
        if at_bounds:
            said.append(
                f"{at_bounds} of {self.zeros.size} fits ended at their bounds: the counts have "
                "another distribution there. Check the mask and the annuli in the histograms."
            )
        return tuple(said)

    @staticmethod
    def said(step: Mapping[str, Any]) -> str:
        """Return how many zeros a described model replaced, and the smallest value."""
        smallest = int(step["smallest"]) - int(step.get("pedestal", 0))
        return f"{int(np.sum(step['zeros']))} zeros replaced, down to {with_minus(str(smallest))}"


def histograms(
    frame: Frame, labels: npt.NDArray[np.uint16], k: int, pedestal: int = 0
) -> npt.NDArray[np.int64]:
    """Count 0, 1, 2, ... above the pedestal in each region, (k, values); the last has the rest."""
    # Below it are pixels that are not valid, at most.
    values = np.clip(frame, pedestal, np.int64(_TOP + pedestal)).astype(np.int64) - pedestal
    width = int(values.max()) + 1
    places = labels.astype(np.int64) * width + values
    counted = np.bincount(places.reshape(-1), minlength=(k + 1) * width)
    return counted.reshape(k + 1, width)[1:]


def _look_counted(
    sample: list[Frame], labels: npt.NDArray[np.uint16], k: int, pedestal: int
) -> bool:
    """Return whether most zeros are in regions whose counts are distributed as electrons are."""
    pooled = np.zeros((k, _TOP + 1), np.int64)
    zeros = {True: 0, False: 0, None: 0}
    for index, frame in enumerate(sample):
        counted = histograms(_checked(frame, index, labels, pedestal), labels, k, pedestal)
        pooled[:, : counted.shape[1]] += counted
        for histogram in counted:
            zeros[looks_counted(histogram)] += int(histogram[0])
    if not zeros[True] and not zeros[False]:
        # Too few electrons in each frame.
        for histogram in pooled:
            zeros[looks_counted(histogram)] += int(histogram[0])
    return zeros[True] > zeros[False]


def _check_type(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iuf":
        raise ValueError(f"counts are numbers, not {dtype}")


def _summed(frames: Any) -> npt.NDArray[np.float64]:
    total = frame_sum(frames)
    if not (np.abs(total) <= _WHOLE).all():  # also where it is not a number
        for index, frame in enumerate(frames):
            _check_whole(frame, index)
    return total


def _checked(frame: Frame, index: int, labels: npt.NDArray[np.uint16], pedestal: int) -> Frame:
    """Return a frame if it holds counts that were cut off at the pedestal."""
    _check_whole(frame, index)
    if (frame < pedestal)[labels > 0].any():
        if not pedestal:
            raise ValueError(f"frame {index} has negative counts: none were cut off")
        least = int(frame[labels > 0].min())
        raise ValueError(f"frame {index} has values of {least} below the pedestal of {pedestal}")
    return frame


def _check_whole(frame: Frame, index: int) -> None:
    if frame.dtype.kind == "f" and not (
        np.abs(frame).max() <= _WHOLE and np.array_equal(frame, np.rint(frame))
    ):
        raise ValueError(f"frame {index} has other values than whole counts")
