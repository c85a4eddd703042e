"""The orientation of a gain reference: the first thing that goes wrong with it.

References come rotated or flipped against the movie (TIFF and DM4 count rows from the other end
than MRC), as factors or as their reciprocals, and with twice the pixels. The right way is the one
that leaves the least correlated noise (preprint doi:10.1101/116533, eq. 7) between the frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.noise import (
    FINER_SCALES,
    SCALES,
    Detail,
    Share,
    sampled,
    shading,
)
from napari_mrcz.correction.sums import ordinary_pixels, shows_nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Image = npt.NDArray[Any]

# Standard errors between two ways, below which it may be chance which of them is the better.
_SURE = 3.0
# Two patterns whose difference has less than this part of their variance are one.
_ALIKE = 1e-3
# A pattern of a smaller part of the mean is the rounding of a constant.
_FLAT = 1e-5
# Standard error of the share of shading with which it cannot be seen.
_UNSEEN = 0.25
# So many pixels each way, from the middle, are enough; more only take longer.
_ENOUGH = 2048

_TURNS: dict[str, Callable[[Image], Image]] = {
    "identity": lambda image: image,
    "rot90": lambda image: np.rot90(image, 1),
    "rot180": lambda image: np.rot90(image, 2),
    "rot270": lambda image: np.rot90(image, 3),
    "flipud": np.flipud,
    "fliplr": np.fliplr,
    "transpose": np.transpose,
    "transverse": lambda image: np.rot90(image, 2).T,
}
ORIENTATIONS = tuple(_TURNS)
"""The eight, by their names in numpy; `transverse` mirrors at the other diagonal."""


class NoCounts(ValueError):
    """The frames hold no counts that a reference could be compared with."""


def orient(image: Image, orientation: str) -> Image:
    """Return a view (y, x) of an image in one of `ORIENTATIONS`, else raise `ValueError`.

    With row 0 on top, as numpy prints it, "rot90" turns counter-clockwise.
    """
    if orientation not in _TURNS:
        raise ValueError(f"orientation {orientation!r} is not one of {', '.join(ORIENTATIONS)}")
    return _TURNS[orientation](image)


@dataclass(frozen=True)
class Candidate:
    """One way to apply a reference, and the noise that it leaves.

    Attributes
    ----------
    orientation : str
        One of `ORIENTATIONS`.
    reciprocal : bool
        The reference is divided by, not multiplied with.
    shape : tuple of int
        The frames' (y, x), to which a reference of half or twice as many pixels is resampled.
    noise : float
        Correlated noise of the frames after applying it.
    """

    orientation: str
    reciprocal: bool
    shape: tuple[int, int]
    noise: float

    def prepare(self, reference: Image) -> npt.NDArray[np.float32]:
        """Return a reference as read from its file as factors for this movie's frames.

        float32, of shape (y, x); 0 where a pixel is defective.
        """
        response, good = _response(reference, reciprocal=self.reciprocal)
        turned = orient(response, self.orientation), orient(good, self.orientation)
        response, good = _resampled(*turned, self.shape)
        return np.where(good, 1 / response, 0).astype(np.float32)


@dataclass(frozen=True)
class OrientationSearch:
    """The ways that were tried, the best first.

    Attributes
    ----------
    candidates : tuple of Candidate
        Ranked by the correlated noise that they leave.
    before : float
        Correlated noise without the reference.
    margin : float
        Standard errors by which the best explains more of the movie's pattern than the next one
        of another effect. Infinite where there is none.
    error : float
        Standard error of correlated noise.
    share : Share or None
        Share of the reference's pattern that is in the movie, as the best candidate turns it:
        about 1 if the reference is the right one; None where nothing was measured. Of fine detail,
        or of the whole pattern where its shading raises the noise.
    warnings : tuple of str
        Why the best candidate should not be applied, or be trusted; empty if all is well.
    """

    candidates: tuple[Candidate, ...]
    before: float
    margin: float
    error: float = 0.0
    share: Share | None = None
    warnings: tuple[str, ...] = ()

    @property
    def best(self) -> Candidate:
        """The one that leaves the least correlated noise."""
        return self.candidates[0]

    @property
    def significance(self) -> float:
        """Standard errors by which the best lowers correlated noise; below 0 it raises it."""
        return 0.0 if self.share is None else self.share.significance

    @property
    def helps(self) -> bool:
        """Whether the best lowers correlated noise significantly: else use no reference."""
        return self.share is not None and self.share.helps


def find_orientation(
    movie: Any, reference: Image, *, progress: Callable[[int, int], None] | None = None
) -> OrientationSearch:
    """Find the way to apply a gain reference to a movie, and whether it helps.

    All eight orientations that fit the frames are tried, as factors and as reciprocals, in one
    pass, by the correlated noise (preprint doi:10.1101/116533, eq. 7) of fine detail: hot pixels
    are left out, and smooth variation is divided out at the scale at which this movie would show
    the pattern best, so that no carbon edge decides. In doubt the finest detail alone decides.

    Parameters
    ----------
    movie : Stack or array_like, shape (n, y, x)
        Raw frames, at least two. One electron per pixel in their sum is enough for patterns of
        3 % in 256 x 256 pixels; four times the pixels need a fourth of the electrons.
    reference : ndarray, shape (y, x)
        Of the frames' shape, turned or not, or twice (super-resolution) or half of it.
    progress : callable, optional
        Called, when all frames are read, with (ways tried, ways); what it raises ends the search.

    Returns
    -------
    OrientationSearch
        Apply its `best` only where it `helps`: not for movies that are normalised already, for
        another camera's reference, one without a pattern, or too few electrons (see `warnings`).

    Raises
    ------
    ValueError
        If the reference fits in no orientation or has no good pixel, there are fewer than two
        frames, or they hold no counts that it could be compared with.
    """
    reference = np.asarray(reference)
    if reference.ndim != 2 or reference.dtype.kind not in "buif":
        raise ValueError(
            f"a reference is an image of real numbers, not {reference.dtype} of {reference.shape}"
        )
    if not (np.isfinite(reference) & (reference > 0)).any():
        raise ValueError("no pixel of the reference is positive: it normalises nothing")
    moments = _moments(movie)
    shape, total = moments.shape, moments.total
    fitting = fitting_orientations(reference.shape, shape)
    n_ways = 2 * len(fitting)
    report = progress or (lambda done, n_ways: None)
    report(0, n_ways)
    usable = ordinary_pixels(total)
    if not usable.any() or not total[usable].mean() > 0:
        raise NoCounts("the frames hold no counts that a reference could be compared with")
    if not fitting:
        raise ValueError(
            f"a reference of {reference.shape} fits frames of {shape} in no orientation, "
            "neither as it is nor with twice or half as many pixels"
        )

    def ways() -> Iterator[tuple[str, tuple[Image, Image]]]:
        return ((way, _turned(reference, way, shape)) for way in fitting)

    def search(scales: Sequence[int | None], tried: Callable[[int], None]) -> OrientationSearch:
        scale = _clearest(total, usable, (turned for _, turned in ways()), scales)
        return _compared(moments, Detail(total, usable, scale), ways(), tried)

    found = search(SCALES, lambda tried: report(tried, n_ways))
    share = found.share
    if found.warnings and share is not None and not share.hurts and share.pattern > _FLAT:
        # Carbon or crystals may hide all but the finest part of the pattern.
        finer = search(FINER_SCALES, lambda tried: report(n_ways, n_ways))
        found = found if finer.warnings else finer
    if not found.helps:
        return found
    factor = sampled(found.best.prepare(reference))
    good = factor > 0
    response = np.divide(1, factor, where=good, out=np.ones(factor.shape))
    whole = shading(moments.sample, response, good)
    size = f"{100 * whole.pattern:.2g} %"
    if whole.is_wrong:
        said = (
            f"The reference lies {_called(found.best)}, but its shading is wrong: only "
            f"{100 * whole.value:.0f} ± {100 * whole.error:.0f} % of its whole pattern ({size}) is "
            "in the movie; below 50 % it adds more correlated noise than it removes. Make it of an "
            "evenly illuminated flat, or use a movie that is evenly illuminated.",
        )
        return replace(found, share=whole, warnings=said)
    # Shading that is wrong brings more noise than the fine pattern takes away if it is stronger.
    if whole.error > _UNSEEN and found.share and whole.pattern > 2 * found.share.pattern:
        said = (
            f"Whether the shading of the reference ({size}) is right cannot be seen in this movie: "
            "its own is as strong, or it has too few electrons. Use a movie without a specimen.",
        )
        return replace(found, warnings=found.warnings + said)
    return found


def _compared(
    moments: _Moments,
    detail: Detail,
    ways: Iterable[tuple[str, tuple[Image, Image]]],
    tried: Callable[[int], None],
) -> OrientationSearch:
    """Search among orientations, each with a response and its good pixels, by a movie's detail."""
    n = moments.n
    before, spread = _noise(moments, detail)
    patterns: dict[str, Image] = {}
    candidates = []
    for way, turned in ways:
        patterns[way] = pattern = detail.pattern(*turned)
        product, power = detail.moments(pattern)
        for reciprocal, sign in ((False, 1), (True, -1)):  # divided by, it is the opposite
            added = (power + sign * 2 * product) / n / np.count_nonzero(detail.usable)
            noise = (before * spread + added) / max(spread + added, spread / 2)
            candidates.append(Candidate(way, reciprocal, moments.shape, noise))
            tried(len(candidates))
    # Ways that do the same, but for rounding, stay in the order of ORIENTATIONS.
    candidates.sort(key=lambda candidate: float(f"{candidate.noise:.9g}"))

    def pattern_of(candidate: Candidate) -> Image:
        pattern = patterns[candidate.orientation]
        return -pattern if candidate.reciprocal else pattern

    best = candidates[0]
    pattern = pattern_of(best)
    others = ((other, pattern_of(other)) for other in candidates[1:])
    # Patterns as like as those of mirrored columns do the same to frames.
    most = _ALIKE * float((pattern**2).sum())
    second, next_pattern = next(
        (o for o in others if float(((pattern - o[1]) ** 2).sum()) > most), (best, pattern)
    )
    margin = max(detail.lead(pattern, next_pattern), 0.0) if second is not best else np.inf
    share = detail.share(pattern)
    return OrientationSearch(
        tuple(candidates),
        before=before,
        margin=margin,
        # Of n (n - 1) / 2 correlations, each of so many pixels.
        error=float(np.sqrt(2 / (n * (n - 1) * np.count_nonzero(detail.usable)))),
        share=share,
        warnings=_doubts(share, best, second, margin, float(moments.total[detail.usable].mean())),
    )


def _clearest(
    total: Image,
    usable: Image,
    turned: Iterable[tuple[Image, Image]],
    scales: Sequence[int | None],
) -> int | None:
    """Return the scale at which the pattern, were it there, would be clearest in any orientation.

    The middle is enough: a specimen and a pattern vary alike everywhere.
    """
    window = middle(total.shape, _ENOUGH // 2)
    details = {scale: Detail(total[window], usable[window], scale) for scale in scales}
    chances = dict.fromkeys(scales, 0.0)
    for response, good in turned:
        for scale, detail in details.items():
            chance = detail.chance(detail.pattern(response[window], good[window]))
            chances[scale] = max(chances[scale], chance)
    return min(scales, key=chances.__getitem__)


def _doubts(
    share: Share, best: Candidate, second: Candidate, margin: float, electrons: float
) -> tuple[str, ...]:
    """Return why the best candidate should not be applied, or be trusted."""
    if not share.pattern > _FLAT:
        return ("The reference has no pattern (it is constant): applying it changes nothing.",)
    size = f"{100 * share.pattern:.2g} %"
    if not share.helps and not share.is_measured:
        return (
            f"The reference's pattern of {size} cannot be found in this movie of {electrons:.3g} "
            "counts per pixel in the sum. Use a movie of more electrons, without a specimen.",
        )
    if not share.helps:
        found = (
            f"{100 * share.value:.0f} ± {100 * share.error:.0f} % of its fixed pattern ({size}) is "
            "in the movie; below 50 % it adds more correlated noise than it removes."
        )
        if not share.hurts:
            return (
                f"It is uncertain whether the reference helps: {found} Use a movie of more "
                "electrons, without a specimen.",
            )
        if share.is_there:
            return (
                f"The reference does not help, though it lies {_called(best)}: {found} The frames "
                "may have a pedestal (subtract a dark reference), or the reference is noisy or "
                "too old.",
            )
        return (
            f"The reference does not help in any orientation: {found} The movie is normalised "
            "already, or the reference is another camera's.",
        )
    if margin < _SURE:
        return (
            f"The orientation is uncertain: {_called(best)} is only {margin:.1f} standard errors "
            f"ahead of {_called(second)}. Use a movie of more electrons.",
        )
    return ()


def _called(candidate: Candidate) -> str:
    return f"{candidate.orientation}{' (divided by)' if candidate.reciprocal else ''}"


@dataclass(frozen=True)
class _Moments:
    """Sums over a movie's frames; images are those of their middle."""

    shape: tuple[int, int]  # The frames' (y, x)
    n: int  # Frames summed: blank and saturated ones have nothing in common with others
    total: Image  # (y, x): sums of counts and of their squares
    squares: Image
    sample: Image  # (y, x): sums of counts of some pixels of the whole frames
    evenness: float  # Mean square of the frames' mean counts, over the square of their mean


def _moments(movie: Any) -> _Moments:
    """Sum a movie's frames, read once."""
    n_frames = 0
    means: list[float] = []
    shape = (0, 0)
    total = squares = sample = np.zeros(0)
    for frame in movie:
        if frame.ndim != 2 or frame.dtype.kind not in "buif":
            raise ValueError(
                f"frames are images of real numbers, not {frame.dtype} of {frame.shape}"
            )
        counts = np.array(frame[middle(frame.shape)], np.float64)
        if not n_frames:
            shape = frame.shape
            total, squares = np.zeros(counts.shape), np.zeros(counts.shape)
            sample = np.zeros(sampled(frame).shape)
        n_frames += 1
        if shows_nothing(counts):
            continue
        means.append(float(counts.mean(where=np.isfinite(counts))))
        sample += sampled(frame)
        total += counts
        counts *= counts
        squares += counts
    if n_frames < 2:
        raise ValueError(f"correlated noise needs at least two frames, not {n_frames}")
    if len(means) < 2:
        raise NoCounts("the frames hold no counts that a reference could be compared with")
    square = float(np.mean(means)) ** 2
    evenness = float(np.mean(np.square(means))) / square if square > 0 else 1.0
    return _Moments(shape, len(means), total, squares, sample, evenness)


def middle(shape: tuple[int, ...], most: int = _ENOUGH) -> tuple[slice, ...]:
    """Return the slices of the middle of an image, of at most `most` pixels each way."""
    starts = (max(size - most, 0) // 2 for size in shape)
    return tuple(slice(start, start + most) for start in starts)


def _noise(moments: _Moments, detail: Detail) -> tuple[float, float]:
    """Return the mean R between frames, and the variance of a frame, over the mean counts.

    Pixels weigh by their mean counts, as if each had the variance of these.
    """
    n, usable = moments.n, detail.usable
    level = detail.level[usable] / n
    total = moments.total[usable]
    apart = total - n * level
    # Of each frame about its own mean, which is larger for brighter ones.
    spread = moments.squares[usable] + moments.evenness * (n * level - 2 * total) * level
    variance = float(np.mean(spread / level)) / n
    if not variance > 0:
        return 0.0, 1.0
    shared = float(np.mean(apart**2 / level)) / n - variance
    return shared / ((n - 1) * variance), variance


def fitting_orientations(reference: tuple[int, ...], frames: tuple[int, ...]) -> list[str]:
    """Return the orientations in which a reference of one shape fits frames of another."""
    twice, half = (tuple(factor * size for size in frames) for factor in (2, 0.5))
    return [
        way
        for way in ORIENTATIONS
        if orient(np.broadcast_to(np.False_, reference), way).shape in (frames, twice, half)
    ]


def _turned(reference: Image, orientation: str, shape: tuple[int, int]) -> tuple[Image, Image]:
    """Return response and good pixels of the middle of the frames, in their orientation."""
    response, good = _response(reference, reciprocal=False)
    turned = _resampled(orient(response, orientation), orient(good, orientation), shape)
    return turned[0][middle(shape)], turned[1][middle(shape)]


def _response(reference: Image, *, reciprocal: bool) -> tuple[Image, Image]:
    """Return the counts of pixels per electron, and which are good."""
    values = np.asarray(reference, np.float64)
    good = np.isfinite(values) & (values > 0)
    values = np.where(good, values, 1)
    return values if reciprocal else 1 / values, good


def _resampled(response: Image, good: Image, shape: tuple[int, ...]) -> tuple[Image, Image]:
    """Resample a response to the frames' shape.

    Four sub-pixels count as one with the mean of their responses, so that these are averaged, not
    the factors.
    """
    y, x = shape
    if response.shape == (y, x):
        return response, good
    if response.shape == (2 * y, 2 * x):
        every = good.reshape(y, 2, x, 2).min(axis=(1, 3))
        return response.reshape(y, 2, x, 2).mean(axis=(1, 3)), every
    if (2 * response.shape[0], 2 * response.shape[1]) == (y, x):
        enlarged, every = (a.repeat(2, axis=0).repeat(2, axis=1) for a in (response, good))
        return enlarged, every
    raise ValueError(f"a reference of {response.shape} does not fit frames of {shape}")
