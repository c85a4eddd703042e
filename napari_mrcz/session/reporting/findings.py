"""What was found in a session: a row a movie, and what only all movies together can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_mrcz.session.recipe import Recipe


@dataclass(frozen=True)
class MovieRow:
    """What was found in one movie; None for what cannot be told.

    Attributes
    ----------
    number : int
        Its place in the order of acquisition, from 1.
    movie : str
        The file.
    frames, rows, columns : int or None
        Its shape.
    dose, dose_before : float or None
        Electrons per pixel counted in it, and in all usable movies before it.
    hot, dark : int or None
        Outlier pixels.
    noise_raw, noise_corrected : float or None
        Mean correlation of two of its frames (eq. 7 of doi:10.1101/116533) as recorded, and after
        the outlier filter (and the gain, where the recipe has one).
    contrast : float or None
        Standard deviation at low resolution, as a fraction of the mean.
    score : float or None
        Of the contrast: robust standard deviations from the session's median.
    high_contrast : bool or None
        Whether the score is beyond the limit, so that the movie enters no average.
    reason : str
        Why it is, or is not.
    remark : str
        What else is odd about it; empty if nothing is.
    warnings : tuple of str
        Of the fits: where they should not be trusted without a look.
    error : str
        Why the movie cannot be used; empty if it can.
    """

    number: int
    movie: str
    frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    dose: float | None = None
    dose_before: float | None = None
    hot: int | None = None
    dark: int | None = None
    noise_raw: float | None = None
    noise_corrected: float | None = None
    contrast: float | None = None
    score: float | None = None
    high_contrast: bool | None = None
    reason: str = ""
    remark: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found in a session.

    Attributes
    ----------
    movies : tuple of MovieRow
        In order of acquisition, those that cannot be used included.
    recipe : Recipe
        What was done to the movies before they were measured.
    order : str
        What is known of the order of the movies, such as "by acquisition time".
    limit : float
        Score beyond which a contrast is high.
    counts_per_electron : float
        What one electron adds to a pixel, for the doses.
    radii : tuple of int
        Radii a of KOMA; empty where fewer than three movies can be averaged.
    noise_by_radius : ndarray, shape (radii,)
        Correlated noise R(a) after KOMA, the mean over the movies that enter averages.
    noise_without : float
        The same without KOMA.
    frames_averaged : int
        Frames n of a movie, the median of those averaged: R(a) cannot fall below 1/(2an).
    outlier_share : ndarray of float32, shape (y, x), or None
        In what part of the movies each pixel was an outlier.
    warnings : tuple of str
        Of the session as a whole: where KOMA should not be trusted without a look.
    """

    movies: tuple[MovieRow, ...]
    recipe: Recipe
    order: str
    limit: float
    counts_per_electron: float
    radii: tuple[int, ...]
    noise_by_radius: npt.NDArray[np.float64]
    noise_without: float
    frames_averaged: int
    outlier_share: npt.NDArray[np.float32] | None
    warnings: tuple[str, ...] = ()

    @property
    def usable(self) -> list[MovieRow]:
        """The movies that could be read and are of the session's frame shape."""
        return [movie for movie in self.movies if not movie.error]

    @property
    def noise_limits(self) -> list[float]:
        """What R(a) cannot fall below at each radius: 1/(2an)."""
        return [1 / (2 * a * self.frames_averaged) for a in self.radii]
