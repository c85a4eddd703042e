"""Every pixel's place on a scale of probability: how far it is from what it should be.

Two models. "normal" is the preprint's: all pixels of the image have one mean, and the scale is
that of their electrons (doi:10.1101/116533, section 4). "poisson" expects of each pixel what its
neighbours tell (`background`), and gives the probability of its count, or more, as the
normal deviate that is as improbable: few counts are not normal, and no specimen is flat.

Places are kept as 16-bit codes of fine steps, counted once. All that follows, the fit, thresholds,
weights and masks, is done with the few thousand codes instead of millions of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.neighbours import over_neighbours
from napari_mrcz.correction.outliers.background import Background
from napari_mrcz.threads import in_order, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_mrcz.correction.outliers.counts import SummedCounts

__all__ = ["PixelScale", "normal_scale", "poisson_deviate", "poisson_scale"]

# Pixels worked on at a time: a few arrays of as many float32 stay in a second-level cache.
_STRIP = 2**17
# Codes of the Poisson scale: steps per deviate, the farthest deviate (what lies beyond is an
# outlier anyway), the code of 0, and how many codes there are.
_STEPS = 256
_FARTHEST = 40
_ZERO = _FARTHEST * _STEPS
_CODES = 2 * _ZERO + 1
# Numbers of electrons whose codes are looked up: some for each code.
_MOST_EDGES = 2**19

# With so many neighbours like it a pixel is no outlier, but at a corner or an edge of something.
_COMPANY = 8

Codes = npt.NDArray[np.uint16]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PixelScale:
    """Where every pixel stands.

    Parameters
    ----------
    codes : ndarray of uint16, shape (y, x)
        Place of each pixel, in steps; a defect's is nowhere in particular.
    places : ndarray, shape (k,)
        What a code stands for, ascending: electrons ("normal") or deviates ("poisson").
    n_pixels : ndarray of int64, shape (k,)
        Pixels with each code, defects left out.
    counted : slice
        Codes that the histogram counts; those before and after are outside its range.
    edges : ndarray of int, shape (m,)
        Edges of the histogram's bins, which are centred on whole electrons: the bin after edge j
        has the codes edges[j] <= code < edges[j + 1].
    dose : ndarray, shape (m,)
        The edges in electrons ("poisson": of a pixel of which as many are expected as of most).
    start : tuple of float
        Centre and standard deviation, in units of `places`, if there was nothing but noise.
    origin, unit : float
        Electrons of a pixel at place 0, and those from there to place 1, of a typical pixel.
    """

    codes: Codes
    places: Values
    n_pixels: npt.NDArray[np.int64]
    counted: slice
    edges: npt.NDArray[np.intp]
    dose: Values
    start: tuple[float, float]
    origin: float
    unit: float

    def outside(self, first: int, last: int) -> npt.NDArray[np.intp]:
        """Give the pixels, by flat index, with codes below `first` or from `last` on."""
        return _outside(self.codes, first, last)

    def sides(self, first: int, last: int) -> npt.NDArray[np.int8]:
        """Give -1 where codes are below `first`, 1 from `last` on, and 0 between, (y, x)."""
        y, x = self.codes.shape
        marked = np.empty((y, x), np.int8)

        def work(top: int, bottom: int) -> npt.NDArray[np.int8]:
            strip, marks = self.codes[top:bottom], marked[top:bottom]
            np.greater_equal(strip, last, out=marks.view(np.bool_))
            marks -= np.less(strip, first).view(np.int8)
            return marks

        for _ in _by_strips(work, (y, x)):
            pass
        return marked

    @property
    def edge_places(self) -> Values:
        """The edges in units of `places`: half a step below the code that follows."""
        return (self.places[self.edges - 1] + self.places[self.edges]) / 2


def normal_scale(counts: SummedCounts) -> PixelScale:
    """Give the gain-normalised electrons themselves; the histogram has the mean ± 8 √mean.

    Patterns wider than the noise widen the range. What lies outside is not counted in it.
    """
    values = np.concatenate([counts.rows(*strip)[1].reshape(-1) for strip in counts.sample()])
    low, middle, high = np.percentile(values, [15.87, 50, 84.13])
    within = np.abs(values - middle) <= 8 * max((high - low) / 2, abs(middle) ** 0.5, 0.5)
    mean = float(values[within].mean())
    noise = max(mean, 0.0) ** 0.5
    reach = 8 * max(noise, float(high - low) / 2, 0.25)
    first = int(np.floor(mean - reach))
    width = max(1, -(-int(2 * reach + 2) // 2**15))
    count = int(2 * reach + 2) // width + 2
    codes = np.empty(counts.shape, np.uint16)

    def work(top: int, bottom: int) -> npt.NDArray[np.int64]:
        step = counts.rows(top, bottom)[1] - np.float32(first)
        if width > 1:
            step /= np.float32(width)
        np.clip(np.rint(step, out=step), 0, count - 1, out=step)
        codes[top:bottom] = step
        return np.bincount(codes[top:bottom].reshape(-1), minlength=count)

    n_pixels = sum(_by_strips(work, counts.shape), np.zeros((), np.int64))
    n_pixels -= np.bincount(codes.reshape(-1)[counts.defects], minlength=count)
    places = first + width * np.arange(count, dtype=np.float64)
    edges = np.arange(1, count)
    dose = places[1:] - width / 2
    counted = slice(1, count - 1)
    start = (mean, max(noise, 0.5))
    return PixelScale(codes, places, n_pixels, counted, edges, dose, start, 0.0, 1.0)


def poisson_scale(counts: SummedCounts) -> PixelScale:
    """Give each pixel's Poisson deviate, its mean expected by its neighbours.

    Where a pixel may be an outlier it is expected anew, from those neighbours that are none.
    """
    background = Background.of(counts)
    codes = np.empty(counts.shape, np.uint16)

    def work(top: int, bottom: int) -> npt.NDArray[np.int64]:
        raw, expected = background.rows(counts, top, bottom)
        raw += np.float32(0.5)
        codes[top:bottom] = _codes(poisson_deviate(raw, expected))
        return np.bincount(codes[top:bottom].reshape(-1), minlength=_CODES)

    n_pixels = sum(_by_strips(work, counts.shape), np.zeros((), np.int64))
    n_pixels -= np.bincount(codes.reshape(-1)[counts.defects], minlength=_CODES)
    _expect_suspects_anew(counts, background, codes, n_pixels)
    places = (np.arange(_CODES) - float(_ZERO)) / _STEPS
    edges, dose = _whole_electrons(max(background.typical, 1e-3))
    counted, start = slice(0, _CODES), (0.0, 1.0)
    mean = max(background.typical, 0.0)
    return PixelScale(codes, places, n_pixels, counted, edges, dose, start, mean, mean**0.5)


def poisson_deviate(counted: Any, expected: Any) -> Any:
    """Give the normal deviate that is as improbable as a Poisson count.

    Parameters
    ----------
    counted : ndarray of float
        Counts, plus 1/2: the middle of the bin that a whole number stands for, when the
        distribution is continued to all numbers by the gamma function. It is overwritten.
    expected : ndarray of float
        Means, positive. It is overwritten.

    Returns
    -------
    ndarray of float

    References
    ----------
    Wilson and Hilferty (1931), doi:10.1073/pnas.17.12.684: the cube root of a gamma variate is
    nearly normal. Within 0.05 of exact for means from 5 and deviates from -3 to 4; counts that are
    far above their mean come out as a little more probable than they are.
    """
    # Far below its mean (under 1/27) the formula turns round.
    np.maximum(counted, expected / 20, out=counted)
    root = np.sqrt(counted, out=counted)
    expected *= root
    deviate = np.cbrt(expected, out=expected)
    np.subtract(root, deviate, out=deviate)
    deviate -= np.reciprocal(root, out=root) / 9
    deviate *= 3
    return deviate


def _expect_suspects_anew(
    counts: SummedCounts,
    background: Background,
    codes: Codes,
    n_pixels: npt.NDArray[np.int64],
) -> None:
    """Renew, in place, the codes of pixels beyond 3 sigma, and the count of pixels per code.

    What they should have counted tell those of their neighbours that are not beyond.
    """
    cumulated = np.cumsum(n_pixels)
    low, middle, high = np.searchsorted(cumulated, np.array([0.1587, 0.5, 0.8413]) * cumulated[-1])
    reach = int(max(3 * (high - low) / 2, 3 * _STEPS / 4))
    first, last = max(0, middle - reach), middle + reach + 1
    flat = codes.reshape(-1)
    # Defects are not suspected of anything, but tell nothing of others.
    flat[counts.defects] = middle
    suspects = _outside(codes, first, last)
    flat[counts.defects] = 0

    def work(pixels: Any, neighbours: Any, within: Any) -> tuple[npt.NDArray[Any], ...]:
        own, around = counts.normalised(pixels), counts.normalised(neighbours)
        beside = flat[neighbours]
        usable = (beside >= first) & (beside < last) & within
        mean = (around * usable).sum(axis=1) / np.maximum(usable.sum(axis=1), 1)
        # As far out as the pixel itself, but for its noise.
        electron = counts.per_electron
        noise = 1.5 * np.sqrt((np.maximum(own, 0) + 2 * electron) * electron)
        side = np.where(own > mean, 1, -1)
        alike = (around - own[:, None]) * side[:, None] >= -noise[:, None]
        return mean, usable.any(axis=1), (alike & within).sum(axis=1) >= _COMPANY

    mean, known, in_company = over_neighbours(work, suspects, counts.shape)
    around = mean / counts.per_electron
    gain = None if counts.gain is None else counts.gain.reshape(-1)[suspects]
    raw = counts.total.reshape(-1)[suspects] / counts.per_electron + 0.5
    anew = _codes(poisson_deviate(raw, background.expected(around, gain)))
    anew[~known] = flat[suspects[~known]]
    anew[in_company] = middle
    n_pixels -= np.bincount(flat[suspects], minlength=_CODES)
    n_pixels += np.bincount(anew, minlength=_CODES)
    flat[suspects] = anew


def _codes(deviate: Any) -> Codes:
    deviate *= _STEPS
    deviate += _ZERO
    np.rint(deviate, out=deviate)
    np.clip(deviate, 0, _CODES - 1, out=deviate)
    codes: Codes = deviate.astype(np.uint16)
    return codes


def _whole_electrons(typical: float) -> tuple[npt.NDArray[np.intp], Values]:
    """Give edges between whole electrons as codes, where `typical` ones are expected."""
    reach = 2 * _FARTHEST * typical**0.5
    most = typical + reach + _FARTHEST**2
    least = max(1.0, np.floor(typical / 20) + 1, np.floor(typical - reach))
    # Of very many electrons each code stands for several.
    electrons = np.arange(least, most, max(1.0, (most - least) // _MOST_EDGES))
    deviate = poisson_deviate(electrons.copy(), np.full(len(electrons), typical))
    # A pixel whose code is at the edge lies above it.
    edges = np.rint(deviate * _STEPS + 0.5).astype(np.intp) + _ZERO
    near = np.abs(deviate) <= _FARTHEST
    edges, first = np.unique(edges[near], return_index=True)
    return edges, electrons[near][first] - 0.5


def _outside(codes: Codes, first: int, last: int) -> npt.NDArray[np.intp]:
    """Give the pixels, by flat index, with codes below `first` or from `last` on."""

    def work(top: int, bottom: int) -> npt.NDArray[np.intp]:
        strip = codes[top:bottom]
        found: npt.NDArray[np.intp] = np.flatnonzero((strip < first) | (strip >= last))
        found += top * codes.shape[1]
        return found

    y, x = codes.shape
    return np.concatenate(list(_by_strips(work, (y, x))))


def _by_strips(
    work: Callable[[int, int], npt.NDArray[Any]], shape: tuple[int, int]
) -> Iterator[npt.NDArray[Any]]:
    """Do the rows (top, bottom) of an image, several strips at a time; give what the work gives."""
    height = max(1, _STRIP // shape[1])
    tops = range(0, shape[0], height)

    def strip(top: int) -> npt.NDArray[Any]:
        return work(top, min(shape[0], top + height))

    with in_order(strip, tops, processors(), "napari-mrcz-outliers") as strips:
        yield from strips
