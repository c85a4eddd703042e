"""How the camera has changed in the course of the session: what the session plots show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mrcz.session import correlation_with, count_outliers, cumulative_dose, noise_within

if TYPE_CHECKING:
    from napari_mrcz.session import Session
    from napari_mrcz.stack import Stack
    from napari_mrcz.widgets.base.job import Report
    from napari_mrcz.widgets.koma.outlier_fits import OutlierFits

Series = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ageing:
    """By stack, in order of acquisition (figs 7 and 11 of the preprint).

    Attributes
    ----------
    dose : ndarray
        Counted before each stack, electrons per pixel (counts where the files do not say what an
        electron adds).
    n_hot, n_dark : ndarray of int
        Outliers.
    noise : ndarray
        Mean R of the frames of each stack.
    correlation : ndarray
        R of each sum with the first one.
    """

    dose: Series
    n_hot: npt.NDArray[np.int64]
    n_dark: npt.NDArray[np.int64]
    noise: Series
    correlation: Series


def measure_ageing(
    session: Session, raw: Session, fits: OutlierFits, counts_per_electron: float, report: Report
) -> Ageing:
    """Find the outliers of each stack, and compare the sums.

    Parameters
    ----------
    session : Session
        Whose sums were read.
    raw : Session
        The same stacks with their outliers.
    fits : OutlierFits
        Finds them.
    counts_per_electron : float
        What one electron adds.
    report : callable
        Told of every frame; what it raises ends it.
    """
    n = len(raw)
    done = 0

    def fit(stack: Stack) -> object:
        stage = f"Finding outliers of stack {done + 1} of {n}"
        # In frames, for the stacks are of one length, or nearly.
        with fits.followed(lambda i, of: report(stage, 100 * done + 100 * i // of, 100 * n)):
            return fits.of(stack)

    def next_stack(finished: int, of: int) -> None:
        nonlocal done
        done = finished
        report(f"Finding outliers of stack {finished} of {n}", 100 * finished, 100 * n)

    census = count_outliers(raw, fit, progress=next_stack)
    told = partial(report, "Comparing the sums")
    return Ageing(
        cumulative_dose(session, counts_per_electron),
        census.n_hot,
        census.n_dark,
        noise_within(session, progress=told),
        correlation_with(session, progress=told),
    )
