"""Gain normalisation, with an exponent that depends on the dose rate.

McLeod et al., preprint doi:10.1101/116533, section 5.1, eq. 9::

    corrected = (raw - dark) * gain ** gamma
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import xxhash

from napari_mrcz.correction.history import described, register
from napari_mrcz.correction.noise import SCALES, Detail, sampled, shading
from napari_mrcz.correction.options import Option, Options
from napari_mrcz.correction.orientation import ORIENTATIONS, Candidate, middle, orient
from napari_mrcz.correction.outliers.counts import FrameStatistics, usual_pixels
from napari_mrcz.correction.rolling import repeated_step
from napari_mrcz.correction.sums import frame_sum, ordinary_pixels, shows_nothing, spread_over
from napari_mrcz.errors import counted as number_of
from napari_mrcz.errors import warn, with_minus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Frame = npt.NDArray[Any]

NORMALISED = "The movie is gain-normalised already, as its history says."
BLANK = "The frames are blank or saturated: no gain reference can be compared with them."

# Value of "dark_lies" in a description; the first version turned darks as it did the reference.
_AS_FRAMES = "as the frames"
# Fraction of pixels without usable gain that no camera has.
_MANY_DEFECTS = 0.05
# Frames of a movie, and side of the square of pixels in their middle, that show a fixed pattern.
_FRAMES, _SIDE = 8, 768
# Rows that show whether frames are alike.
_ROWS = 256
# Chance takes one good pixel in so many images for a defect.
_NEVER = 100
# Part of the mean counts below which a pixel is a defect, not an insensitive one.
_DEAD = 0.05


@dataclass(frozen=True)
class GainStep(Options):
    """Frames are multiplied by the gain reference."""

    reference: Annotated[
        str,
        Option(
            "Reference",
            "Gain reference",
            is_file=True,
            flag="--gain",
            advice="Give the file that the camera's program wrote for this session",
        ),
    ] = ""
    orientation: Annotated[
        str,
        Option(
            "Orientation",
            "How the reference lies",
            choices={
                "auto": "as the first movie shows, and whether it multiplies or divides",
                **{name: name for name in ORIENTATIONS},
            },
            advice='Write "auto", as --gain does: it is applied only where it lowers the noise',
        ),
    ] = "identity"
    gamma: Annotated[
        float,
        Option(
            "Gamma",
            "Exponent of the reference; about -1 to divide by it",
            least=-10,
            most=10,
            step=0.01,
            advice="Leave it at 1, unless the Gain widget fitted another to a flat of this camera",
        ),
    ] = 1.0
    dark: Annotated[
        str,
        Option(
            "Dark",
            "Dark reference, as the frames lie, subtracted first",
            unset="none",
            is_file=True,
            advice="Only for cameras whose program does not subtract it",
        ),
    ] = ""

    @property
    def orientation_text(self) -> str:
        """The orientation, and whether it multiplies or divides."""
        return f"{self.orientation}, exponent {self.gamma:g}"

    def sentences(self) -> list[str]:
        """Describe these options to a person."""
        dark = f" after subtracting {self.dark}" if self.dark else ""
        turned = {"identity": "", "auto": ", turned as the first movie shows"}
        how = turned.get(self.orientation, f", turned by {self.orientation}")
        power = f" to the power of {self.gamma:g}" if self.gamma != 1 else ""
        return [f"Frames are multiplied by {self.reference}{power}{how}{dark}."]


@register
@dataclass(frozen=True, eq=False)
class GainNormalization:
    """Multiply frames by a gain reference: (raw - dark) * gain ** gamma (eq. 9).

    Pixels whose gain is 0, negative, NaN or infinite are defective: they become 0 in every frame,
    and are marked by `defects`, so that an outlier filter can fill them.

    Parameters
    ----------
    reference : array_like, shape (y, x)
        Factors for raw counts. Kept as float32, also in a stack's history, so that a correction
        can be undone without the file; there it takes the room of a frame of float32.
    gamma : float
        Exponent; 1 is the plain reference, -1 divides by it (a reference that is the mean of
        counts, as those of EER movies are).
    dark : array_like, shape (y, x), optional
        Counts of a frame without a beam, subtracted first, in the orientation of the frames.
    orientation : str
        One of `ORIENTATIONS`, applied to the reference; `find_orientation` finds it.
    filled : bool
        Defects hold likely counts already, from `OutlierFilter`: they are multiplied by the
        typical gain instead of becoming 0.
    warnings : tuple of str
        Why the result should not be trusted; those of the reference itself are added.

    Raises
    ------
    ValueError
        If shapes differ, gamma is not finite, there is no such orientation, or no pixel has a
        gain that can be used.
    """

    title: ClassVar[str] = "Gain normalised"
    table_options: ClassVar[type] = GainStep

    reference: npt.NDArray[np.float32]
    gamma: float = 1.0
    dark: npt.NDArray[np.float32] | None = None
    orientation: str = "identity"
    filled: bool = False
    warnings: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Take copies, which do not change with the caller's arrays."""
        reference = _frozen(self.reference)
        if reference.ndim != 2:
            raise ValueError(f"a gain reference has two axes, not the shape {reference.shape}")
        dark = None if self.dark is None else _frozen(self.dark)
        shape = orient(reference, self.orientation).shape
        if dark is not None and dark.shape != shape:
            raise ValueError(
                f"the dark {dark.shape} and the frames {shape} differ in shape: a dark lies as the "
                "frames do, however the gain is turned"
            )
        if not np.isfinite(self.gamma):
            raise ValueError(f"gamma is a number, not {self.gamma}")
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "dark", dark)
        said = [*self.warnings, *getattr(self.gamma, "warnings", ())]
        object.__setattr__(self, "gamma", float(self.gamma))
        usable = self._usable()
        values = orient(reference, self.orientation)[usable]
        if not values.size:
            raise ValueError("the gain reference has no pixel that can be used")
        if usable.size > 1 and not np.ptp(values) > 1e-5 * abs(float(values[0])):
            said.append("The gain reference is constant: it removes no fixed pattern.")
        if (part := 1 - values.size / usable.size) > _MANY_DEFECTS:
            said.append(
                f"{100 * part:.0f} % of the pixels have no usable gain (0, negative or not "
                "finite), more than a detector has: the reference may be damaged."
            )
        # Each once: a description has those of the reference already.
        object.__setattr__(self, "warnings", tuple(dict.fromkeys(said)))

    def __call__(self, frame: Frame, index: int = 0) -> npt.NDArray[np.float32]:
        """Return a frame (y, x) of raw counts, normalised, in float32; `index` is not used."""
        if frame.shape != self.factor.shape:
            raise ValueError(
                f"a gain reference of {self.factor.shape} does not fit a frame of {frame.shape}; "
                "find_orientation finds how it does"
            )
        self.output_dtype(frame.dtype)
        out = np.empty(frame.shape, np.float32)
        dark = self.oriented_dark
        if dark is not None:
            frame = np.subtract(frame, dark, out=out, dtype=np.float32, casting="same_kind")
        # One rounding, whatever the counts' type: it is what other programs' float movies have.
        with np.errstate(invalid="ignore"):  # inf times 0 is NaN
            return np.multiply(frame, self._applied, out=out, dtype=np.float32, casting="same_kind")

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Return the pixel type after the correction: float32; `ValueError` for complex frames."""
        if np.dtype(dtype).kind == "c":
            raise ValueError("complex frames have no gain")
        return np.dtype(np.float32)

    @cached_property
    def factor(self) -> npt.NDArray[np.float32]:
        """Factors of raw counts, (y, x), in the orientation of the frames; 0 where defective."""
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
            usable &= np.isfinite(self.dark)
        return usable

    @cached_property
    def defects(self) -> npt.NDArray[np.bool_]:
        """Pixels that the reference marks as defective, (y, x), in the frames' orientation."""
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
        """The dark, (y, x); 0 where it is not finite, i.e. defective."""
        dark = self.dark
        return None if dark is None else _frozen(np.where(np.isfinite(dark), dark, 0))

    def doubts(self, history: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
        """Return why frames with this history should not be normalised; empty if they may be."""
        return (NORMALISED,) if is_normalised(history) else ()

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to build it again, the reference itself included."""
        return described(
            self,
            gamma=self.gamma,
            orientation=self.orientation,
            reference=self.reference,
            reference_xxh3=xxhash.xxh3_64_hexdigest(self.reference.data),
            dark=self.dark,
            **({} if self.dark is None else {"dark_lies": _AS_FRAMES}),
            filled=self.filled,
            warnings=list(self.warnings),
        )

    @staticmethod
    def said(step: Mapping[str, Any]) -> str:
        """Return the exponent and the orientation of a described normalisation."""
        exponent = f"γ {with_minus(format(step['gamma'], 'g'))}" if step["gamma"] != 1 else ""
        turned = "" if step["orientation"] == "identity" else str(step["orientation"])
        return ", ".join(filter(None, (exponent, turned))) or "by a gain reference"

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again; `ValueError` if the reference is not the one that was described."""
        made = cls(
            description["reference"],
            description["gamma"],
            described_dark(description),
            description["orientation"],
            description.get("filled", False),
            tuple(description.get("warnings", ())),
        )
        if xxhash.xxh3_64_hexdigest(made.reference.data) != description["reference_xxh3"]:
            raise ValueError("its reference does not match its checksum")
        return made


def described_dark(description: Mapping[str, Any]) -> npt.NDArray[Any] | None:
    """Return a described normalisation's dark reference in the frames' orientation, (y, x)."""
    dark = description["dark"]
    if dark is None or description.get("dark_lies") == _AS_FRAMES:
        return dark
    return orient(np.asarray(dark), description["orientation"])


def is_normalised(history: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the frames with this history are multiplied by a gain reference."""
    normalised = False
    for step in history:
        if step.get("name") in ("GainNormalization", "Decimation"):
            normalised = step["name"] == "GainNormalization"
    return normalised


def doubts_of_gain(
    movie: Any, gain: GainNormalization, history: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, ...]:
    """Return why a movie (n, y, x) with this history should not be normalised by this gain.

    Judged on eight frames. Empty if the gain lowers correlated noise, or too little is known.
    """
    if found := gain.doubts(history):
        return found
    window = middle(gain.factor.shape, _SIDE)
    n_frames = 0
    total, sample = (np.zeros(part.shape) for part in (gain.factor[window], sampled(gain.factor)))
    for index in spread_over(len(movie), _FRAMES):
        frame = np.asarray(movie[index])
        if not shows_nothing(frame[window]):
            n_frames += 1
            total += frame[window]
            sample += sampled(frame)
    if not n_frames:
        return (BLANK,)
    if gain.oriented_dark is not None:
        total -= n_frames * gain.oriented_dark[window]
        sample -= n_frames * sampled(gain.oriented_dark)
    good = gain.factor > 0
    response = np.divide(1, gain.factor, where=good, out=np.ones(good.shape, np.float32))
    detail = Detail(total, ordinary_pixels(total), SCALES[0])
    share = detail.share(detail.pattern(response[window], good[window]))
    if not share.hurts:
        share = shading(sample, sampled(response), sampled(good))
        if not share.is_wrong:
            return ()
    part = with_minus(f"{100 * share.value:.0f} ± {100 * share.error:.0f} %")
    return (
        f"The gain reference does not fit this movie: {part} of its fixed pattern "
        f"({100 * share.pattern:.2g} %) is there. Below 50 % it adds more correlated noise than it "
        "removes. The movie is normalised already or has a pedestal, or the reference is turned, "
        "another camera's, noisy or of an uneven flat.",
    )


def fitted_gain(
    reference: npt.NDArray[Any],
    shape: tuple[int, int],
    gamma: float = 1.0,
    *,
    dark: npt.NDArray[Any] | None = None,
    orientation: str = "identity",
) -> GainNormalization:
    """Make the normalisation of frames of a shape (y, x) from a reference of their size or not.

    One of twice (super-resolution) or half as many pixels each way is resampled, as
    `Candidate.prepare` does it. `gamma`, `dark`, `orientation`: see `GainNormalization`. Raise
    `ValueError` if the reference, so turned, or the dark does not fit the frames, or no pixel can
    be used.
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

    Sums weigh by their electrons; blank and saturated ones, and such frames, do not count.
    Specimens differ from stack to stack and average out: of m stacks, 1/sqrt(m) of a specimen's
    contrast is left. Sums of one electron per pixel will do, if they are many.

    Parameters
    ----------
    movies : iterable of Stack or array_like, shape (n, y, x)
        Raw frames of one shape; an array (y, x) counts as a sum. One is held at a time.
    masks : iterable of ndarray of bool, shape (y, x), optional
        Outliers of each movie (`OutlierFilter.mask`), which do not count; by default, pixels
        beyond 6 robust standard deviations.

    Returns
    -------
    ndarray of float32, shape (y, x)
        Factors that keep the mean of frames; 0 for pixels without a value in any movie, or with
        less than 5 % of the counts where many are expected.

    Raises
    ------
    ValueError
        If there is no movie, or shapes or numbers differ.

    Warns
    -----
    MrczWarning
        If the factors are noisier than the fixed pattern is strong, so that applying them to
        other movies would raise correlated noise, with both figures; if that cannot be determined,
        as there is a single sum; if they show structure at the same place in all movies; or if
        movies or frames were left out.
    """
    # Of every other movie: the pattern is common to both.
    counted, expected = [np.zeros(())] * 2, [np.zeros(())] * 2
    n_movies = 0
    shape: tuple[int, ...] = ()
    last: Any = None
    given = chain(() if masks is None else masks, repeat(None))
    unlike: tuple[int, ...] = ()
    n_frames = n_unusable = 0
    for movie, mask in zip(movies, given, strict=False):
        total, unlike = _usable_sum(movie)
        n_frames += len(unlike)
        if masks is not None and mask is None:
            raise ValueError("there are fewer masks than movies")
        good = ordinary_pixels(total) if mask is None else ~np.asarray(mask, np.bool_)
        shape = shape or total.shape
        if shape != total.shape or good.shape != total.shape:
            raise ValueError(f"sums of {shape} and {total.shape}, a mask of {good.shape}")
        if not good.any() or shows_nothing(total):
            n_unusable += 1
            continue
        half = n_movies % 2
        counted[half] = counted[half] + np.where(good, total, 0)
        expected[half] = expected[half] + good * total[good].mean()
        n_movies += 1
        last = movie
    counts, mean = counted[0] + counted[1], expected[0] + expected[1]
    if not (counts > 0).any():
        raise ValueError("no movie has a pixel that counts")
    # A pixel without counts is a defect unless chance explains it.
    many = mean >= np.log(_NEVER * counts.size)
    usable = (mean > 0) & np.where(many, counts > _DEAD * mean, counts > 0)
    if are_whole := bool((counts == np.rint(counts)).all()):
        # One more makes the reciprocal of few right in the mean: E[1 / (n + 1)] is nearly 1 / E[n].
        usable |= (counts == 0) & (mean > 0) & ~many
    gain = np.divide(mean, counts + are_whole, out=np.zeros(counts.shape), where=usable)
    gain[usable] *= np.mean(counts[usable] / mean[usable])
    if n_movies == 1 and len(getattr(last, "shape", ())) == 3 and len(last) > 1:
        every_other = frame_sum(last[i] for i in range(1, len(last), 2) if i not in unlike)
        counted[1] = np.where(mean > 0, every_other, 0)
        counted[0] = counts - counted[1]
        part = counted[1].sum() / counts.sum()
        expected = [(1 - part) * mean, part * mean]
        n_movies = 2
    if n_unusable or n_frames:
        kinds = (n_unusable, "blank or saturated movie"), (n_frames, "saturated or damaged frame")
        parts = " and ".join(number_of(n, kind) for n, kind in kinds if n)
        warn(f"left out of the gain reference: {parts}")
    if n_movies > 1:
        _check_noise(counted, expected)
    else:
        warn("the gain reference is made of a single sum: how noisy it is cannot be determined")
    image = np.divide(counts, mean, out=np.full(counts.shape, np.nan), where=mean > 0)
    if step := repeated_step(image):
        warn(
            f"the gain reference shows structure with steps of {step:.0%} of the mean, such as a "
            "hole's edge or a beam stop at the same place in every movie: applied to other movies "
            "it leaves its image. Use movies without it"
        )
    return gain.astype(np.float32)


def _usable_sum(movie: Any) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
    """Return a movie's sum (y, x) without saturated or damaged frames, and which these are."""
    total = frame_sum(movie)
    if len(getattr(movie, "shape", ())) != 3 or len(movie) < 3:
        return total, ()
    step = max(1, total.shape[0] // _ROWS)
    rows = total[::step]
    usual = usual_pixels(rows, step, np.empty(0, np.intp))
    mean = float(rows[usual].mean()) / len(movie) if usual.any() else 0.0
    unlike = FrameStatistics.of(movie, usual, step, mean).unlike
    for index in unlike:
        total -= movie[index]
    return total, unlike


def _check_noise(counted: list[npt.NDArray[Any]], expected: list[npt.NDArray[Any]]) -> None:
    """Warn of a reference whose noise, which its halves do not share, exceeds its pattern."""
    usable = (expected[0] > 0) & (expected[1] > 0)
    usable &= ordinary_pixels(counted[0]) & ordinary_pixels(counted[1])
    if np.count_nonzero(usable) < 2:
        return
    one, other = (
        counts[usable] / mean[usable] for counts, mean in zip(counted, expected, strict=True)
    )
    shared = max(float(np.cov(one, other)[0, 1]), 0.0)
    noise = float(np.var(one - other)) / 4
    if noise > shared:
        more = f"about {noise / shared:.2g} times" if shared > 1e-2 * noise else "many times"
        warn(
            f"the gain reference is noisier ({100 * noise**0.5:.2g} %) than the fixed pattern is "
            f"strong ({100 * shared**0.5:.2g} %): applied to other movies it raises correlated "
            f"noise. Make it of {more} as many electrons"
        )


def _frozen(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    if np.iscomplexobj(values):
        raise ValueError("a reference has real values, not complex ones")
    array = np.array(values, np.float32, order="C")
    array.flags.writeable = False
    return array
