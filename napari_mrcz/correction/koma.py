"""Normalisation by the stacks acquired before and after: the knock-out moving average (KOMA).

McLeod et al., preprint doi:10.1101/116533, section 5.2: stack i becomes frames - K_i, where K_i is
the mean of the stacks within a radius, stack i itself knocked out, so that no ghost of its specimen
is subtracted from it. Here are the parts that need images only; `napari_mrcz.session` reads stacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.history import described, register
from napari_mrcz.correction.rolling import neighbours_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["KomaNormalization", "contrast_scores", "level_of", "noise_by_radius", "thumbnail"]

_CELLS = 16
_LEAST_SPREAD = 0.1


@register
@dataclass(frozen=True, eq=False)
class KomaNormalization:
    """Subtract what the neighbouring stacks have in common.

    Usually made by `Koma`. The average is noisy itself: as the mean of m frames, it leaves a
    correlated noise of 1/m between the frames, and never less.

    Parameters
    ----------
    average : array_like, shape (y, x)
        K_i, the mean frame of the neighbours; kept as float32.
    level : float
        Added back: mean(K_i), so that counts stay counts, or 0.
    index : int
        Which stack of the session it is for.
    neighbours : tuple of str
        The stacks averaged, by name, for the history.
    order : str
        What is known of the order that makes them neighbours, for the history.

    Raises
    ------
    ValueError
        If the average is no image.
    """

    average: npt.NDArray[np.float32]
    level: float
    index: int = 0
    neighbours: tuple[str, ...] = ()
    order: str = ""

    def __post_init__(self) -> None:
        """Take a copy."""
        average = np.array(self.average, np.float32, order="C")
        if average.ndim != 2:
            raise ValueError(f"an average has two axes, not the shape {average.shape}")
        average.flags.writeable = False
        object.__setattr__(self, "average", average)
        object.__setattr__(self, "level", float(self.level))
        object.__setattr__(self, "neighbours", tuple(self.neighbours))

    def __call__(self, frame: npt.NDArray[Any], index: int = 0) -> npt.NDArray[np.float32]:
        """Give the normalised frame.

        Parameters
        ----------
        frame : ndarray, shape (y, x)
            Of the stack that the average was made for.
        index : int
            Not used: every frame is treated alike.

        Returns
        -------
        ndarray of float32, shape (y, x)
        """
        if frame.shape != self.average.shape:
            raise ValueError(f"an average of {self.average.shape} for a frame of {frame.shape}")
        out = np.empty(frame.shape, np.float32)
        np.subtract(frame, self._deviation, out=out, dtype=np.float32, casting="same_kind")
        return out

    def output_dtype(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """Give the pixel type after the correction: float32."""
        return np.dtype(np.float32)

    @cached_property
    def _deviation(self) -> npt.NDArray[np.float32]:
        deviation: npt.NDArray[np.float32] = self.average - np.float32(self.level)
        return deviation

    def describe(self) -> dict[str, Any]:
        """Say all that is needed to do it again, the average itself included."""
        return described(
            self,
            average=self.average,
            level=self.level,
            index=self.index,
            neighbours=list(self.neighbours),
            **({"order": self.order} if self.order else {}),
        )

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build it again."""
        return cls(
            description["average"],
            description["level"],
            description["index"],
            tuple(description["neighbours"]),
            str(description.get("order", "")),
        )


def level_of(average: npt.NDArray[np.float64]) -> float:
    """Give the mean of the pixels that are numbers: what is added back of an average."""
    told = np.isfinite(average)
    if told.all():
        return float(average.mean())
    return float(average[told].mean()) if told.any() else 0.0


def thumbnail(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Give the means of 16 x 16 cells of an image, fewer where it has fewer pixels."""
    means: npt.NDArray[np.float64] = np.asarray(image, np.float64)
    starts = [np.arange(min(_CELLS, size)) * size // min(_CELLS, size) for size in image.shape]
    with np.errstate(invalid="ignore"):  # inf and -inf have no mean: NaN says so
        for axis, at in enumerate(starts):
            means = np.add.reduceat(means, at, axis)
    rows, columns = (np.diff(at, append=size) for at, size in zip(starts, image.shape, strict=True))
    means /= np.outer(rows, columns)
    return means


def contrast_scores(
    thumbnails: Sequence[npt.NDArray[Any]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Tell micrographs of high contrast, which must not enter an average, from the others.

    Carbon film and crystalline ice are seen at low resolution: the contrast of a micrograph is
    the standard deviation of its thumbnail from the session's median one (which has the camera's
    pattern), as a fraction of the mean where there is one to speak of. Its score is the distance
    of log(contrast) from the session's median in robust standard deviations (of at least 0.1,
    i.e. a tenth of the contrast).

    Parameters
    ----------
    thumbnails : sequence of ndarray, shape (y, x)
        One a stack, as `thumbnail` gives them.

    Returns
    -------
    contrasts, scores : ndarray, shape (n,)
        Good micrographs have scores below 3, carbon and crystals of 10 and more.
    """
    if not thumbnails:
        return np.zeros(0), np.zeros(0)
    cells = np.stack([np.ravel(image) for image in thumbnails]).astype(np.float64)
    cells = cells[:, np.isfinite(cells).all(axis=0)]
    if not cells.size:
        return np.zeros(len(cells)), np.zeros(len(cells))
    means = cells.mean(axis=1, keepdims=True)
    # Frames from which a background was subtracted have no mean to compare with.
    if (means > cells.std(axis=1, keepdims=True)).all():
        cells /= means
    contrasts: npt.NDArray[np.float64] = (cells - np.median(cells, axis=0)).std(axis=1)
    # A stack without any contrast is no outlier on the high side; its logarithm has no use.
    logarithms = np.log(np.maximum(contrasts, 1e-9))
    distances = logarithms - np.median(logarithms)
    spread = max(1.4826 * float(np.median(np.abs(distances))), _LEAST_SPREAD)
    return contrasts, distances / spread


def noise_by_radius(
    covariances: npt.NDArray[np.float64],
    variances: npt.NDArray[np.float64],
    n_frames: npt.NDArray[np.intp],
    radii: Sequence[int],
) -> npt.NDArray[np.float64]:
    """Give the correlated noise after KOMA for many radii (fig. 12), without touching a pixel.

    With x_t the frames of stack i, S their sum and K its average, the mean covariance of two
    frames of x_t - K is (var S - Σ var x_t)/(n(n - 1)) - 2 cov(S, K)/n + var K, their mean
    variance (Σ var x_t - 2 cov(S, K))/n + var K, and K is a sum of sums. R is the ratio of the
    two: equal to the mean Pearson R (eq. 7) where the frames of a stack vary alike.

    Parameters
    ----------
    covariances : ndarray, shape (m, m)
        Between the sums of m stacks, in order of acquisition; all enter averages.
    variances : ndarray, shape (m,)
        Σ var x_t of each stack.
    n_frames : ndarray, shape (m,)
        Frames of each stack.
    radii : sequence of int
        0 stands for no normalisation.

    Returns
    -------
    ndarray, shape (radii, m)
        NaN for stacks of one frame, and of frames without any variance.
    """
    stacks = range(len(n_frames))
    result = np.full((len(radii), len(stacks)), np.nan)
    for row, radius in enumerate(radii):
        for i in stacks:
            n = int(n_frames[i])
            if n < 2 or variances[i] <= 0:
                continue
            weights = np.zeros(len(stacks))
            if radius:
                near = neighbours_of(i, stacks, radius)
                weights[near] = 1 / (n_frames[near] * len(near))
            cov_sk = float(weights @ covariances[i])
            var_k = float(weights @ covariances @ weights)
            covariance = (covariances[i, i] - variances[i]) / (n * (n - 1)) - 2 * cov_sk / n + var_k
            result[row, i] = covariance / ((variances[i] - 2 * cov_sk) / n + var_k)
    return result
