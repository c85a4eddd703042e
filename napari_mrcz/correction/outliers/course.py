"""Single pixels through some of a movie's frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.correction.outliers.frames import frame_reader
from napari_mrcz.correction.parallel import give_back

if TYPE_CHECKING:
    from napari_mrcz.correction.outliers.counts import SummedCounts

# Fewer frames do not show that a pixel is steady.
_FEWEST = 5
_SAMPLE = 2**16


def read_course(
    movie: Any, counts: SummedCounts, pixels: npt.NDArray[np.intp], most: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Read pixels in some frames.

    Parameters
    ----------
    movie : Stack or ndarray, shape (n, y, x)
        The frames.
    counts : SummedCounts
        Their sum.
    pixels : ndarray of intp, shape (k,)
        Flat indices.
    most : int
        Frames that are read, spread over the movie.

    Returns
    -------
    electrons : ndarray, shape (m, k)
        Without a pedestal.
    share : ndarray, shape (m,)
        Part of the sum's electrons that each frame has, by its ordinary pixels. No frames come
        back of a movie that has too few of them.
    """
    give_back()  # there is a frame to be read beside what the fit has found so far
    read_frame = frame_reader(movie)
    used = np.setdiff1d(np.arange(len(movie)), counts.left_out)
    if len(used) < _FEWEST:
        return np.zeros((0, len(pixels)), np.float32), np.zeros(0)
    chosen = used[np.unique(np.linspace(0, len(used) - 1, min(most, len(used))).astype(int))]
    # Whole rows: single pixels all over a frame would take as long as half of its pixels.
    step = max(1, counts.total.size // _SAMPLE)
    total = counts.total[::step].astype(np.float64) - counts.n_frames * counts.pedestal
    low, high = np.percentile(total, [1, 99])
    ordinary = (low <= total) & (total <= high)
    row, column = np.divmod(counts.defects, counts.shape[1])
    shown = row % step == 0
    ordinary[row[shown] // step, column[shown]] = False
    whole = max(float(total[ordinary].sum()), 1e-9)

    def work(index: int) -> tuple[npt.NDArray[np.float32], float]:
        frame = read_frame(index)
        own = frame.reshape(-1)[pixels].astype(np.float32)
        own -= np.float32(counts.pedestal)
        own /= np.float32(counts.per_electron)
        level = frame[::step][ordinary].astype(np.float64) - counts.pedestal
        return own, float(level.sum()) / whole

    # One after the other, as in `frames`: several at a time would take their memory.
    values, share = zip(*map(work, chosen.tolist()), strict=True)
    return np.stack(values), np.maximum(np.array(share), 0)
