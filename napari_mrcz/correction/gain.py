"""Gain normalisation, with the exponent that the dose rate asks for.

McLeod et al., preprint doi:10.1101/116533, section 5.1, eq. 9::

    corrected = (raw - dark) * gain ** gamma
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.correction.history import described, register
from napari_mrcz.correction.orientation import Candidate, orient
from napari_mrcz.correction.sums import frame_sum, ordinary_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["GainNormalization", "estimate_gain", "fitted_gain"]

Frame = npt.NDArray[Any]


@register
@dataclass(frozen=True, eq=False)
class GainNormalization:
    """Multiply frames by a gain reference: (raw - dark) * gain ** gamma (eq. 9).

    Pixels whose gain is 0, negative, NaN or infinite are defective: they become 0 in every frame,
    as they do where a vendor marks them so, and are told by `defects`, so that an outlier filter
    can fill them. Nothing ever becomes infinite.

    Parameters
    ----------
    reference : array_like, shape (y, x)
        Factors for raw counts. Kept as float32, whole, also in a stack's history: a corrected
        file can then be redone, or undone, without looking for its reference. It takes about as
        much room there as one frame of float32.
    gamma : float
        Exponent; 1 is the plain reference, -1 divides by it (a reference that is the mean of
        counts, as those of EER movies are).
    dark : array_like, shape (y, x), optional
        Counts of a frame without a beam, subtracted first; lies the same way as the reference.
    orientation : str
        One of `ORIENTATIONS`, applied to reference and dark; `find_orientation` finds it.
    filled : bool
        The frames' defects hold likely counts already, as `OutlierFilter` puts there: they are
        multiplied by the typical gain instead of becoming 0.

    Raises
    ------
    ValueError
        If shapes differ, gamma is not finite, there is no such orientation, or no pixel has a
        gain that can be used.
    """

    reference: npt.NDArray[np.float32]
    gamma: float = 1.0
    dark: npt.NDArray[np.float32] | None = None
    orientation: str = "identity"
    filled: bool = False

    def __post_init__(self) -> None:
        """Take copies: what is frozen does not change with the caller's array."""
        reference = _frozen(self.reference)
        if reference.ndim != 2:
            raise ValueError(f"a gain reference has two axes, not the shape {reference.shape}")
        dark = None if self.dark is None else _frozen(self.dark)
        if dark is not None and dark.shape != reference.shape:
            raise ValueError(
                f"the dark {dark.shape} and the gain {reference.shape} differ in shape"
            )
        if not np.isfinite(self.gamma):
            raise ValueError(f"gamma is a number, not {self.gamma}")
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "dark", dark)
        object.__setattr__(self, "gamma", float(self.gamma))
        if not self._usable().any():
            raise ValueError("the gain reference has no pixel that can be used")

    def __call__(self, frame: Frame, index: int = 0) -> npt.NDArray[np.float32]:
        """Give the normalised frame.

        Parameters
        ----------
        frame : ndarray, shape (y, x)
            Raw counts.
        index : int
            Not used: every frame is treated alike.

        Returns
        -------
        ndarray of float32, shape (y, x)
        """
        if frame.shape != self.factor.shape:
            raise ValueError(
                f"a gain reference of {self.factor.shape} does not fit a frame of {frame.shape}; "
                "find_orientation tells how it does"
            )
        self.output_dtype(frame.dtype)
        out = np.empty(frame.shape, np.float32)
        dark = self.oriented_dark
        if dark is not None:
            frame = np.subtract(frame, dark, out=out, dtype=np.float32, casting="same_kind")
        # One rounding, whatever the counts' type: it is what other programs' float movies have.
        return np.multiply(frame, self._applied, out=out, dtype=np.float32, casting="same_kind")

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Give the pixel type after the correction: float32.

        Raises
        ------
        ValueError
            If the frames are complex.
        """
        if np.dtype(dtype).kind == "c":
            raise ValueError("complex frames have no gain")
        return np.dtype(np.float32)

    @cached_property
    def factor(self) -> npt.NDArray[np.float32]:
        """What raw counts are multiplied by, (y, x), as the frames lie; 0 where defective."""
        gain = orient(self.reference, self.orientation)
        usable = self._usable()
        factor: npt.NDArray[Any] = np.where(usable, gain, 0)
        if self.gamma != 1:
            # In float64, so that it rounds to the same float32 on every machine.
            power = np.power(
                factor, self.gamma, dtype=np.float64, where=usable, out=np.zeros(gain.shape)
            )
            power[power > np.finfo(np.float32).max] = 0
            factor = power
        return _frozen(factor)

    def _usable(self) -> npt.NDArray[np.bool_]:
        gain = orient(self.reference, self.orientation)
        usable: npt.NDArray[np.bool_] = np.isfinite(gain) & (gain > 0)
        if self.dark is not None:
            usable &= np.isfinite(orient(self.dark, self.orientation))
        return usable

    @cached_property
    def defects(self) -> npt.NDArray[np.bool_]:
        """Pixels that the reference marks as defective, (y, x), as the frames lie."""
        defects: npt.NDArray[np.bool_] = np.equal(self.factor, 0)
        defects.flags.writeable = False
        return defects

    @cached_property
    def _applied(self) -> npt.NDArray[np.float32]:
        if not self.filled or self.defects.all():
            return self.factor
        return _frozen(np.where(self.defects, np.median(self.factor[~self.defects]), self.factor))

    @cached_property
    def oriented_dark(self) -> npt.NDArray[np.float32] | None:
        """The dark as the frames lie, (y, x); 0 where it is not finite, i.e. defective."""
        if self.dark is None:
            return None
        dark = orient(self.dark, self.orientation)
        return _frozen(np.where(np.isfinite(dark), dark, 0))

    def describe(self) -> dict[str, Any]:
        """Say all that is needed to do it again, the reference itself included."""
        return described(
            self,
            gamma=self.gamma,
            orientation=self.orientation,
            reference=self.reference,
            reference_xxh3=xxhash.xxh3_64_hexdigest(self.reference.data),
            dark=self.dark,
            filled=self.filled,
        )

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again.

        Raises
        ------
        ValueError
            If the reference is not the one that was described.
        """
        made = cls(
            description["reference"],
            description["gamma"],
            description["dark"],
            description["orientation"],
            description.get("filled", False),
        )
        if xxhash.xxh3_64_hexdigest(made.reference.data) != description["reference_xxh3"]:
            raise ValueError("its reference does not match its checksum")
        return made


def fitted_gain(
    reference: npt.NDArray[Any],
    shape: tuple[int, int],
    gamma: float = 1.0,
    *,
    dark: npt.NDArray[Any] | None = None,
    orientation: str = "identity",
) -> GainNormalization:
    """Make the normalisation of frames whose pixels may be larger or smaller than the reference's.

    A reference of twice (super-resolution) or half as many pixels each way is brought to the
    frames' as `Candidate.prepare` does it.

    Parameters
    ----------
    reference : ndarray, shape (y, x)
        As it came.
    shape : tuple of int
        The frames' (y, x).
    gamma : float
        Exponent; where it is negative, the reference is divided by.
    dark : ndarray, shape (y, x), optional
        Lies the same way as the reference; where that has more or fewer pixels than the frames,
        the dark is as the frames are.
    orientation : str
        One of `ORIENTATIONS`, of the reference.

    Raises
    ------
    ValueError
        If the reference, so turned, or the dark does not fit the frames, or no pixel can be used.
    """
    if orient(reference, orientation).shape == shape:
        return GainNormalization(reference, gamma, dark, orientation)
    way = Candidate(orientation, gamma < 0, shape, np.nan)
    try:
        prepared = way.prepare(reference)
    except ValueError as error:
        turned = "" if orientation == "identity" else f", turned by {orientation},"
        raise ValueError(
            f"a reference of {reference.shape}{turned} does not fit frames of {shape}, "
            "neither as it is nor with twice or half as many pixels"
        ) from error
    if dark is not None and dark.shape != shape:
        raise ValueError(
            f"a reference of {reference.shape} for frames of {shape} needs a dark "
            f"of {shape}, not {dark.shape}"
        )
    return GainNormalization(prepared, abs(gamma), dark)


def estimate_gain(
    movies: Iterable[Any], masks: Iterable[npt.NDArray[np.bool_]] | None = None
) -> npt.NDArray[np.float32]:
    """Make a gain reference from a session: the reciprocal of the mean of many sums.

    Each sum counts by its electrons. Specimens differ from stack to stack and average out, the
    more the better: with m stacks a specimen's contrast is left at 1/sqrt(m) of itself.

    Parameters
    ----------
    movies : iterable of Stack or array_like, shape (n, y, x)
        Raw frames of one shape; an array (y, x) counts as a sum. One is held at a time.
    masks : iterable of ndarray of bool, shape (y, x), optional
        Outliers of each movie (`OutlierFilter.mask`), which do not count. Without it, pixels
        beyond 6 robust standard deviations do not.

    Returns
    -------
    ndarray of float32, shape (y, x)
        Factors of reciprocal mean 1; 0 for pixels that no movie has a value for.

    Raises
    ------
    ValueError
        If there is no movie, or shapes or numbers differ.
    """
    counted = expected = np.zeros(())
    mask_of = None if masks is None else iter(masks)
    for movie in movies:
        total = frame_sum(movie)
        if mask_of is None:
            good = ordinary_pixels(total)
        else:
            mask = next(mask_of, None)
            if mask is None:
                raise ValueError("there are fewer masks than movies")
            good = ~np.asarray(mask, np.bool_)
        if counted.shape not in ((), total.shape) or good.shape != total.shape:
            raise ValueError(f"sums of {counted.shape} and {total.shape}, a mask of {good.shape}")
        if not good.any():
            continue
        counted = counted + np.where(good, total, 0)
        expected = expected + good * total[good].mean()
    usable = counted > 0
    if not usable.any():
        raise ValueError("no movie has a pixel that counts")
    gain = np.divide(expected, counted, out=np.zeros(counted.shape), where=usable)
    gain[usable] *= np.mean(1 / gain[usable])
    return gain.astype(np.float32)


def _frozen(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    if np.iscomplexobj(values):
        raise ValueError("a reference has real values, not complex ones")
    array = np.array(values, np.float32, order="C")
    array.flags.writeable = False
    return array
