"""How a camera changes in the course of a session, by the dose that it has received.

McLeod et al., preprint doi:10.1101/116533: outliers by dose (fig. 7), the correlation of the sums
with the first one (fig. 11), the average outlier map (video 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.koma import level_of
from napari_mrcz.correction.outliers import OutlierFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_mrcz.session.session import Session

    Progress = Callable[[int, int], None]

Series = npt.NDArray[np.float64]


def cumulative_dose(session: Session, counts_per_electron: float = 1.0) -> Series:
    """Return the electrons per pixel counted before each stack, (n_stacks,).

    Parameters
    ----------
    session : Session
    counts_per_electron : float
        What one electron adds to a pixel; a file's header may tell (`Stack.description.gain`).
    """
    received = [
        level_of(session.summary(i).thumbnail) * session.summary(i).n_frames
        for i in range(len(session))
    ]
    before: Series = np.concatenate([[0.0], np.cumsum(received)[:-1]]) / counts_per_electron
    return before


def correlation_with(
    session: Session, index: int = 0, *, progress: Progress | None = None
) -> Series:
    """Return Pearson's R between the sum of one stack and that of each, (n_stacks,) (fig. 11).

    It falls with the dose between them, as the camera's pixels change; what does not fall is the
    fixed pattern.

    Parameters
    ----------
    session : Session
    index : int
        Which stack the others are compared with.
    progress : callable, optional
        Called with (stacks done, stacks); what it raises ends it.
    """
    correlations = np.empty(len(session))
    for i in range(len(session)):
        c = session.covariances([index, i])
        correlations[i] = c[0, 1] / np.sqrt(c[0, 0] * c[1, 1])
        if progress is not None:
            progress(i + 1, len(session))
    return correlations


def noise_within(session: Session, *, progress: Progress | None = None) -> Series:
    """Return the correlated noise among the frames of each stack, (n_stacks,).

    The mean covariance of two frames over their mean variance, from sums alone; equal to the mean
    Pearson R (eq. 7) where the frames of a stack vary alike. NaN for a stack of one frame.

    Parameters
    ----------
    session : Session
    progress : callable, optional
        Called with (stacks done, stacks); what it raises ends it.
    """
    noise = np.full(len(session), np.nan)
    for i in range(len(session)):
        summary = session.summary(i)
        if summary.n_frames > 1 and summary.variance > 0:
            of_sum = session.covariances([i])[0, 0]
            pairs = (summary.n_frames - 1) * summary.variance
            noise[i] = (of_sum - summary.variance) / pairs
        if progress is not None:
            progress(i + 1, len(session))
    return noise


@dataclass(frozen=True, eq=False)
class OutlierCensus:
    """Outliers of each stack of a session.

    Attributes
    ----------
    n_hot, n_dark : ndarray of int, shape (n_stacks,)
        Pixels.
    share : ndarray of float32, shape (y, x)
        In what part of the stacks each pixel was an outlier.
    """

    n_hot: npt.NDArray[np.int64]
    n_dark: npt.NDArray[np.int64]
    share: npt.NDArray[np.float32]


def count_outliers(
    session: Session,
    fit: Callable[[Any], Any] = OutlierFilter.fit,
    *,
    progress: Progress | None = None,
) -> OutlierCensus:
    """Find the outliers of each stack, one stack at a time (fig. 7, video 1).

    Parameters
    ----------
    session : Session
        Of stacks as they came: filtered ones have no outliers.
    fit : callable
        Gives of a stack what has a `mask` (not 0 where a pixel is an outlier), `n_hot` and
        `n_dark`.
    progress : callable, optional
        Called with (stacks done, stacks); what it raises ends it.
    """
    hot, dark = [], []
    times = np.zeros(())
    for index in range(len(session)):
        with session.opened(index) as stack:
            found = fit(stack)
        hot.append(found.n_hot)
        dark.append(found.n_dark)
        times = times + (found.mask != 0)
        if progress is not None:
            progress(index + 1, len(session))
    share = (times / len(session)).astype(np.float32)
    return OutlierCensus(np.array(hot, np.int64), np.array(dark, np.int64), share)
