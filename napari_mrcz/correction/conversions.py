"""Corrections that change only how pixels are stored: decimated, complex to real, with an offset.

*Decimation.* Counts that a program multiplied by a gain reference take four bytes per pixel and do
not compress. Dividing them by the same reference restores integer counts without loss: times the
reference again, the float movie is identical to the last bit (but for the sign of a zero; preprint
doi:10.1101/116533, section 1, "decimation").

*Pedestals* are added for formats without negative numbers. ADSC's detectors and DIALS (dxtbx) have
IMAGE_PEDESTAL, Rigaku's DARK_PEDESTAL, simulations (nanoBragg, dxtbx's FormatSMVJHSim) ADC_OFFSET,
MOSFLM and the converters of MicroED ADCOFFSET, Leginon LEGINON_OFFSET.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.gain import GainNormalization, fitted_gain
from napari_mrcz.correction.history import SimpleCorrection, described, rebuild, register
from napari_mrcz.correction.orientation import ORIENTATIONS

_DTYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)


class DecimationError(ValueError):
    """A movie is not integer counts times this gain.

    Attributes
    ----------
    frame : int
        Index of the first such frame.
    n_astray : int
        Number of its pixels whose quotient is not near an integer.
    n_inexact : int
        Number of its pixels that differ only in their last bits from an integer's product.
    """

    def __init__(self, message: str, frame: int, n_astray: int, n_inexact: int) -> None:
        super().__init__(message)
        self.frame = frame
        self.n_astray = n_astray
        self.n_inexact = n_inexact


@register
@dataclass(frozen=True, eq=False)
class Decimation:
    """Divide float frames by their gain if that leaves integers. Made by `Decimation.fit`.

    Parameters
    ----------
    gain : GainNormalization
        Gain of the frames. Where it marks defects the counts are lost: they become 0, and the
        frames must be 0 there.
    dtype : dtype-like
        Integers that hold all counts.
    tolerance : float
        How far from an integer a quotient may lie.
    """

    title: ClassVar[str] = "Back to integer counts"

    gain: GainNormalization
    dtype: np.dtype[Any]
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Take the dtype in any form."""
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    @classmethod
    def fit(
        cls, movie: Any, gain: GainNormalization | npt.ArrayLike, *, tolerance: float = 1e-3
    ) -> Self:
        """Check that a movie can be decimated, and find the integers that hold its counts.

        Takes the parameters of `decimate`, and raises its errors.
        """
        if not isinstance(gain, GainNormalization):
            gain = GainNormalization(np.asarray(gain))
        widest = cls(gain, np.dtype(np.int64), tolerance)
        low = high = 0
        index = -1
        for index, frame in enumerate(movie):
            counts = widest(frame, index)
            low, high = min(low, int(counts.min())), max(high, int(counts.max()))
        if index < 0:
            raise ValueError("a movie without frames")
        for dtype in _DTYPES:
            limits = np.iinfo(dtype)
            if limits.min <= low and high <= limits.max:
                return cls(gain, np.dtype(dtype), tolerance)
        raise ValueError(f"counts from {low} to {high} fit in no integers of 32 bits")

    def __call__(self, frame: npt.NDArray[Any], index: int = 0) -> npt.NDArray[Any]:
        """Return the counts of a normalised frame (y, x), in `dtype`.

        Raise `DecimationError` with the frame's index if it is not integer counts times the gain.
        """
        if frame.shape != self.gain.factor.shape:
            raise ValueError(
                f"a gain reference of {self.gain.factor.shape} does not fit a frame of "
                f"{frame.shape}; find_orientation finds how it does"
            )
        if frame.dtype.kind not in "buif":
            raise ValueError(f"frame {index} holds {frame.dtype}, where counts are real numbers")
        with np.errstate(over="ignore"):
            normalised = np.asarray(frame, np.float32)
        if frame.dtype != np.float32 and not np.array_equal(normalised, frame):
            raise ValueError(f"frame {index} holds {frame.dtype} that float32 cannot hold")
        with np.errstate(over="ignore", invalid="ignore"):
            quotients = normalised * self._reciprocal
            if self._dark is not None:
                quotients += self._dark
            nearest = np.rint(quotients)
            # A float32 is off by 2^-24 of itself at most, once for the dark and once for the gain.
            astray = ~(np.abs(quotients - nearest) <= self.tolerance + 2.0**-22 * np.abs(quotients))
            # Pixels without a gain have a quotient of 0: there the frame itself has to be 0.
            counts = np.where(astray, 0, nearest).astype(self.dtype)
        differs = self.gain(counts, index) != normalised
        if differs.any():
            self._refuse(index, quotients, astray | (differs & self.gain.defects), differs)
        return counts

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the pixel type after the correction: the integers that hold all counts."""
        return self.dtype

    @cached_property
    def _reciprocal(self) -> npt.NDArray[np.float64]:
        factor = self.gain.factor
        return np.divide(1, factor, where=factor > 0, out=np.zeros(factor.shape), dtype=np.float64)

    @cached_property
    def _dark(self) -> npt.NDArray[np.float64] | None:
        dark = self.gain.oriented_dark
        return None if dark is None else np.where(self.gain.defects, 0.0, dark)

    def _refuse(
        self,
        index: int,
        quotients: npt.NDArray[np.float64],
        astray: npt.NDArray[np.bool_],
        differs: npt.NDArray[np.bool_],
    ) -> None:
        n_astray, n_inexact = int(astray.sum()), int((differs & ~astray).sum())
        if n_astray:
            found = quotients[astray]
            found = found[np.isfinite(found)]
            off = float(np.median(np.abs(found - np.rint(found)))) if found.size else np.nan
            cause = (
                f"are not near an integer (within {self.tolerance:g}; "
                f"they are off by {off:.2g} in the median)"
            )
            advice = (
                "it was interpolated, binned or filtered after its normalisation"
                if n_astray > 0.1 * astray.size
                else "some pixels were replaced after its normalisation"
            )
            advice += ", or this is not its gain reference"
        else:
            cause = "are near integers, but their last bits do not come back"
            advice = "this is nearly its gain reference, or it was rounded after its normalisation"
        raise DecimationError(
            f"frame {index}: {n_astray or n_inexact} of {astray.size} pixels {cause}: {advice}",
            index,
            n_astray,
            n_inexact,
        )

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to build it again, or to undo it: the gain is included."""
        gain = self.gain.describe()
        return described(self, gain=gain, dtype=self.dtype.str, tolerance=self.tolerance)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""
        gain = GainNormalization.from_description(description["gain"])
        return cls(gain, np.dtype(description["dtype"]), description["tolerance"])


def decimate(
    movie: Any, gain: GainNormalization | npt.ArrayLike, *, tolerance: float = 1e-3
) -> Any:
    """Turn a gain-normalised movie back into its integer counts, without loss.

    Parameters
    ----------
    movie : Stack or array_like, shape (n, y, x)
        Normalised frames of float. All are checked first.
    gain : GainNormalization or array_like, shape (y, x)
        The gain that they were normalised with, exactly.
    tolerance : float
        How far from an integer a quotient may lie, beside the float's own rounding.

    Returns
    -------
    Stack or ndarray, shape (n, y, x)
        Counts: a lazy stack of a stack, an array of anything else. The stack's history, and so
        the footer of the file it is written to, keeps the gain, and the footer's key `gain` says
        where; `restore` returns the float movie.

    Raises
    ------
    DecimationError
        If a frame has pixels that are not near an integer (the movie was interpolated, or the gain
        is another), or whose bits do not come back; with the figures.
    ValueError
        If there are no frames, or the gain does not fit them.
    """
    decimation = Decimation.fit(movie, gain, tolerance=tolerance)
    if hasattr(movie, "apply"):
        counts = movie.apply(decimation)
        place = {
            "path": f"history/{len(movie.history)}/gain/reference",
            "xxh3": counts.history[-1]["gain"]["reference_xxh3"],
        }
        return counts.described(other={**counts.description.other, "gain": place})
    return np.stack([decimation(frame, index) for index, frame in enumerate(movie)])


def decimate_by(movie: Any, reference: npt.NDArray[Any]) -> tuple[Any, str]:
    """Turn a gain-normalised movie back into counts by a reference in any orientation.

    Only the orientation that the frames were multiplied with leaves whole counts. `reference` may
    have the frames' shape, turned or not, or twice or half as many pixels. Return the counts, as
    `decimate` does, and the orientation. Raise `DecimationError` if no orientation leaves whole
    counts, with the figures of the first; `ValueError` if the reference fits in none.
    """
    failures: list[ValueError] = []
    for orientation in ORIENTATIONS:
        try:
            gain = fitted_gain(reference, movie.shape[1:], orientation=orientation)
        except ValueError as error:
            failures.append(error)
            continue
        try:
            return decimate(movie, gain), orientation
        except DecimationError as error:
            failures.append(error)
    first = next((f for f in failures if isinstance(f, DecimationError)), None)
    if first is None:
        raise failures[0]
    said = f"{first}. Nor does it in any other orientation"
    raise DecimationError(said, first.frame, first.n_astray, first.n_inexact) from first


def restore(history: Iterable[Mapping[str, Any]]) -> GainNormalization:
    """Return the normalisation that undoes the decimation at the end of a history, bit for bit.

    ``movie.apply(restore(movie.history))``; `ValueError` if the last step is another one.
    """
    steps = list(history)
    last = rebuild(steps[-1]) if steps else None
    if not isinstance(last, Decimation):
        raise ValueError(
            "the last step of this history is not a decimation, so there is none to undo"
        )
    return last.gain


class _ComplexPart(SimpleCorrection):
    """Real pixels of the precision of the complex ones."""

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return float32 for complex64, float64 for complex128."""
        return np.zeros((), dtype).real.dtype


@register
@dataclass(frozen=True)
class Amplitude(_ComplexPart):
    """The modulus of each pixel."""

    title = "Amplitude of complex pixels"

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return the amplitude of a complex frame, shape (y, x)."""
        return np.asarray(np.abs(frame))


@register
@dataclass(frozen=True)
class Phase(_ComplexPart):
    """The argument of each pixel, in radians from -π to π."""

    title = "Phase of complex pixels"

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return the phase of a complex frame, shape (y, x)."""
        return np.asarray(np.angle(frame))


_NAMES = re.compile(r"(\w+_)?PEDESTAL|(ADC|IMAGE|LEGINON)_?OFFSET", re.IGNORECASE)


@register
@dataclass(frozen=True)
class Pedestal(SimpleCorrection):
    """Adds an offset to counts, in an unsigned type; MOSFLM calls it ADCOFFSET.

    Attributes
    ----------
    offset : int
        In counts.
    dtype : str
        Type of the result. Counts beyond its range, which are saturated, become its largest value.
    """

    title = "Offset added"

    offset: int
    dtype: str = "uint16"

    def __call__(self, frame: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """Return the frame (y, x) with the offset; `ValueError` if a value stays negative."""
        raised = frame.astype(np.int64) + self.offset
        if raised.min(initial=0) < 0:
            raise ValueError(
                f"frame {index} has counts of {int(frame.min())}, and the offset is {self.offset}"
            )
        dtype = self.output_dtype(frame.dtype)
        return np.minimum(raised, np.iinfo(dtype).max).astype(dtype)

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the type of the result."""
        return np.dtype(self.dtype)

    @classmethod
    def said(cls, step: Mapping[str, Any]) -> str:
        """Return how much was added."""
        return f"{step['offset']} more in every pixel"


def pedestal_names(header: Mapping[str, Any]) -> list[str]:
    """Return the names of a header's fields that state a pedestal."""
    return [name for name in header if _NAMES.fullmatch(str(name))]


def pedestal_of(metadata: Mapping[str, Any]) -> int:
    """Return the pedestal that metadata state, themselves or in an SMV header; 0 for none.

    Raise `ValueError` if several are stated, or one that is not a whole number of 0 or more.
    """
    smv = metadata.get("smv")
    headers = [metadata, smv] if isinstance(smv, Mapping) else [metadata]
    stated = {
        f"{name} {value}": value
        for header in headers
        for name in pedestal_names(header)
        for value in (header[name] if isinstance(header[name], list) else [header[name]])
    }
    found = set()
    for text, value in stated.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not (number >= 0 and number.is_integer()):
            raise ValueError(f"the header states {text}, which is not a pedestal")
        found.add(int(number))
    if len(found) > 1:
        several = ", ".join(stated)
        raise ValueError(f"the headers state several pedestals: {several}; name the right one")
    return found.pop() if found else 0
