"""How many electrons a pixel should have counted, going by its 24 neighbours.

The specimen, the ice and the etching of the active layer change the rate from place to place. The
mean of the 5 x 5 neighbours follows them, but is noisy itself where counts are few; so it is drawn
towards the mean of the image as far as it is unreliable. How far, a straight line through pixels
against their neighbours tells: it is the best linear estimate, whatever the specimen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts

LEAST = 1e-3
"""Fewest electrons that are expected; a Poisson distribution needs a mean."""

# Where the neighbours have a smaller part of what is typical, there is no beam.
_EMPTY = 0.01

Image = npt.NDArray[Any]


@dataclass(frozen=True)
class Background:
    """Expected electrons, gain-normalised: offset + slope · (mean of the 24 neighbours).

    Parameters
    ----------
    offset, slope : float
        Slope 0 makes all of the image alike, 1 leaves all to the neighbours.
    ceiling : float
        A pixel with more electrons counts as a typical one for its neighbours: were it but cut
        off here, many hot pixels would make good ones among them look dark.
    typical : float
        Mean of the image, outliers left out.
    brightest : float
        Electrons in the brightest fiftieth of the image, narrow defects left out.
    """

    offset: float
    slope: float
    ceiling: float
    typical: float
    brightest: float = 0.0

    @classmethod
    def of(cls, counts: SummedCounts) -> Self:
        """Fit the line to strips of the image, outliers left out."""
        strips = counts.sample()
        # The lower of the left and the right neighbour is hardly ever a hot one.
        lower = [_lower_neighbour(counts.rows(top, bottom)[1]) for top, bottom in strips]
        usual, bright = map(float, np.percentile(np.concatenate(lower), [50, 99.9]))
        ceiling = bright + 5 * max(bright, 1.0) ** 0.5
        pixels, arounds = [], []
        for top, bottom in strips:
            pixels.append(counts.rows(top, bottom)[1].reshape(-1))
            arounds.append(_neighbours_mean(counts, top, bottom, ceiling, usual)[1].reshape(-1))
        pixel = np.concatenate(pixels).astype(np.float64)
        around = np.concatenate(arounds).astype(np.float64)
        good = pixel <= ceiling
        for _ in range(2):
            offset, slope = _line(around[good], pixel[good])
            error = pixel - offset - slope * around
            low, high = np.percentile(error, [15.87, 84.13])
            spread = max((high - low) / 2, max(float(pixel[good].mean()), 0.0) ** 0.5)
            good = np.abs(error) <= 4 * spread
        squares = np.concatenate([_squares(counts.rows(*strip)[1]) for strip in strips])
        brightest = float(np.quantile(squares, 0.98))
        return cls(offset, slope, ceiling, float(pixel[good].mean()), brightest)

    def rows(self, counts: SummedCounts, top: int, bottom: int) -> tuple[Image, Image]:
        """Return rows of raw electrons and of those expected, each float32."""
        raw, around = _neighbours_mean(counts, top, bottom, self.ceiling, self.typical)
        gain = None if counts.gain is None else counts.gain[top:bottom]
        expected = self.expected(around, gain)
        if around.min(initial=np.inf) <= _EMPTY * self.typical:
            # Where there is no beam, the rest of the image tells nothing.
            expected[around <= _EMPTY * self.typical] = LEAST
        return raw, expected

    def expected(self, around: Image, gain: Image | None) -> Image:
        """Return the raw electrons expected of pixels, from the means of their neighbours."""
        expected: Image = np.multiply(around, around.dtype.type(self.slope))
        expected += around.dtype.type(self.offset)
        np.maximum(expected, around.dtype.type(LEAST), out=expected)
        if gain is not None:
            expected /= gain
        return expected


def _squares(strip: Image) -> Image:
    """Return what two thirds of each piece of a strip exceed: narrow defects fill less of it."""
    length = min(16, strip.shape[1])
    pieces = strip[:, : strip.shape[1] // length * length]
    pieces = pieces.reshape(len(strip), -1, length).swapaxes(0, 1)
    thirds: Image = np.percentile(pieces.reshape(len(pieces), -1), 33, axis=1)
    return thirds


def _lower_neighbour(strip: Image) -> Image:
    if strip.shape[1] < 3:
        return strip.reshape(-1)
    return np.minimum(strip[:, :-2], strip[:, 2:]).reshape(-1)


def _neighbours_mean(
    counts: SummedCounts, top: int, bottom: int, ceiling: float, usual: float
) -> tuple[Image, Image]:
    """Return rows of raw electrons and the gain-normalised means of the 24 neighbours.

    Those beyond the ceiling are taken for usual ones. The image is mirrored at its borders.
    """
    first, last = max(0, top - 2), min(counts.shape[0], bottom + 2)
    raw, normalised = counts.rows(first, last)
    window = _mirrored(normalised, 2 - (top - first), 2 - (last - bottom))
    if float(normalised.max(initial=0)) > ceiling:
        window[window > np.float32(ceiling)] = np.float32(usual)
    # Sums of two, of four, of five: down the columns, then along the rows.
    pairs = window[:-1] + window[1:]
    fives = pairs[:-3] + pairs[2:-1]
    fives += window[4:]
    pairs = fives[:, :-1] + fives[:, 1:]
    around = pairs[:, :-3] + pairs[:, 2:-1]
    around += fives[:, 4:]
    around -= window[2:-2, 2:-2]
    around /= np.float32(24)
    return raw[top - first : top - first + bottom - top], around


def _mirrored(rows: Image, above: int, below: int) -> Image:
    """Return rows with two more columns on each side, and more rows, mirrored at the border."""
    y, x = rows.shape
    if min(y, x) < 5:
        return np.pad(rows, ((above, below), (2, 2)), mode="reflect")
    window = np.empty((y + above + below, x + 4), rows.dtype)
    window[above : above + y, 2:-2] = rows
    for k in range(above):
        window[k] = window[2 * above - k]
    for k in range(below):
        window[-1 - k] = window[-1 - 2 * below + k]
    window[:, [0, 1, -2, -1]] = window[:, [4, 3, -4, -5]]
    return window


def _line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Fit offset and slope, the slope within 0 and 1, by least squares."""
    x_mean, y_mean = float(x.mean()), float(y.mean())
    apart = x - x_mean
    variance = float((apart**2).mean())
    slope = float((apart * y).mean()) / variance if variance > 0 else 0.0
    slope = min(max(slope, 0.0), 1.0)
    return y_mean - slope * x_mean, slope
