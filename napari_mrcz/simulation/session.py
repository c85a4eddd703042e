"""Many exposures on one camera: a session with ageing hot pixels, and flats at many dose rates.

Nothing is held in memory: a stack is made when it is asked for, the same each time.

>>> session = simulate_session(60, 100, (512, 512), exceptions={7: CARBON_EDGE})
>>> for movie in session.iter_movies(): ...
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_mrcz.simulation.camera import Camera
from napari_mrcz.simulation.movie import Movie, simulate_movie
from napari_mrcz.simulation.scene import drift_path
from napari_mrcz.simulation.seeds import child_seed, stream
from napari_mrcz.simulation.specimen import VITREOUS_ICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from napari_mrcz.simulation.defects import Sites
    from napari_mrcz.simulation.specimen import Specimen


@dataclass(frozen=True, eq=False)
class Session:
    """Stacks taken one after the other on one camera. Made by `simulate_session`.

    Attributes
    ----------
    template : Movie
        What the stacks have in common, the camera above all.
    specimens : tuple of Specimen or None
        What was in the beam, for each stack; None is vacuum.
    drift : float
        Length of the specimen's path within a stack, in pixels.
    sites : Sites
        Every physical pixel that is defective at some time.
    births, deaths : ndarray of intp, shape (h,)
        For each hot site, the first stack in which it is hot and the first in which it is not.
    """

    template: Movie
    specimens: tuple[Specimen | None, ...]
    drift: float
    sites: Sites = field(repr=False)
    births: npt.NDArray[np.intp] = field(repr=False)
    deaths: npt.NDArray[np.intp] = field(repr=False)

    @property
    def n_stacks(self) -> int:
        """Number of stacks."""
        return len(self.specimens)

    @property
    def n_hot(self) -> npt.NDArray[np.intp]:
        """Hot physical pixels in each stack, (n_stacks,)."""
        return np.array([self._alive(index).sum() for index in range(self.n_stacks)])

    @property
    def cumulative_dose(self) -> npt.NDArray[np.float64]:
        """What the camera had received before each stack, in e⁻/pix, (n_stacks,)."""
        dose = self.template.dose * self.template.shape[0]
        return np.arange(self.n_stacks, dtype=np.float64) * dose

    def movie(self, index: int) -> Movie:
        """Give one stack.

        Parameters
        ----------
        index : int
            Which stack; negative ones count from the end.

        Returns
        -------
        Movie
            The same each time.

        Raises
        ------
        IndexError
            If there is no such stack.
        """
        if not -self.n_stacks <= index < self.n_stacks:
            raise IndexError(f"stack {index} of a session of {self.n_stacks}")
        index %= self.n_stacks
        seed = child_seed(self.template.seed, "stack", index)
        camera = self.template.camera
        return replace(
            self.template,
            specimen=self.specimens[index],
            defects=self.sites.defects(camera.super_resolution, self._alive(index)),
            drift=drift_path(self.template.shape[0], self.drift, stream(seed, "drift")),
            seed=seed,
        )

    def iter_movies(self) -> Iterator[Movie]:
        """Give the stacks in order of acquisition."""
        return (self.movie(index) for index in range(self.n_stacks))

    def _alive(self, index: int) -> npt.NDArray[np.bool_]:
        return (self.births <= index) & (index < self.deaths)


def simulate_session(
    n_stacks: int,
    n_frames: int = 40,
    shape: tuple[int, int] | None = None,
    *,
    dose: float = 1.0,
    specimen: Specimen | None = VITREOUS_ICE,
    exceptions: Mapping[int, Specimen | None] | None = None,
    camera: Camera | None = None,
    hot: tuple[float, float] = (3.9e-4, 8.6e-4),
    lifetime: float = 100.0,
    drift: float = 6.0,
    dose_rate: float = 4.0,
    pixel_size: float = 1.35,
    dtype: npt.DTypeLike = np.uint8,
    seed: int = 0,
) -> Session:
    """Simulate a session: the fixed pattern stays, hot pixels come, go and become more.

    Parameters
    ----------
    n_stacks : int
        How many.
    n_frames : int
        Of each stack.
    shape : tuple of int, optional
        Pixels (y, x) of a frame, as for `simulate_movie`.
    dose : float
        What comes in, in e⁻/pix/frame.
    specimen : Specimen, optional
        Of every stack, each with its own particles; None is vacuum.
    exceptions : dict of int to Specimen or None, optional
        Stacks with another specimen, by index: ``{7: CARBON_EDGE, 31: CRYSTALLINE_ICE}``.
    camera : Camera, optional
        The detector, as for `simulate_movie`.
    hot : tuple of float
        Fraction of the physical pixels that is hot in the first and in the last stack, linear in
        between. The default is the 5,500 and 12,300 pixels of a K2 in McLeod et al., preprint
        doi:10.1101/116533, fig. 7a. It replaces the camera's own `hot` and `very_hot`; their
        proportion stays.
    lifetime : float
        Mean number of stacks for which a pixel stays hot.
    drift : float
        Length of the specimen's path in each stack, in pixels.
    dose_rate : float
        What comes in, in e⁻/pix/s of a physical pixel.
    pixel_size : float
        In Å.
    dtype : dtype-like
        Of the frames, an integer or floating type.
    seed : int
        The same seed, the same session; not negative.

    Returns
    -------
    Session

    Raises
    ------
    ValueError
        If there is no stack, an exception has no stack, or a parameter is out of its range.
    """
    exceptions = exceptions or {}
    if n_stacks < 1 or not all(0 <= index < n_stacks for index in exceptions):
        raise ValueError(f"{n_stacks} stacks with exceptions at {sorted(exceptions)}")
    if min(hot) < 0 or lifetime < 1:
        raise ValueError(f"hot {hot} is not negative and lifetime {lifetime} at least one stack")
    template = simulate_movie(
        n_frames, shape, dose=dose, specimen=specimen, camera=camera, drift=drift,
        dose_rate=dose_rate, pixel_size=pixel_size, dtype=dtype, seed=seed,
    )  # fmt: skip
    n_pixels = template.camera.physical_shape[0] * template.camera.physical_shape[1]
    wanted = np.rint(np.linspace(*hot, n_stacks) * n_pixels).astype(int)
    births, deaths = _lives(wanted, lifetime, stream(seed, "lives"))
    specimens = tuple(exceptions.get(index, specimen) for index in range(n_stacks))
    sites = template.camera.sites(len(births))
    return Session(template, specimens, drift, sites, births, deaths)


def simulate_flats(
    dose_rates: Iterable[float],
    shape: tuple[int, int] | None = None,
    *,
    electrons: float = 400.0,
    camera: Camera | None = None,
    dtype: npt.DTypeLike = np.uint16,
    seed: int = 0,
) -> tuple[Movie, ...]:
    """Simulate flats at several dose rates: each a movie of one long frame in vacuum.

    Parameters
    ----------
    dose_rates : iterable of float
        In e⁻/pix/s of a physical pixel; each flat's `Movie.gamma` follows from its own.
    shape : tuple of int, optional
        Pixels (y, x) of a flat, as for `simulate_movie`.
    electrons : float
        What comes in in each flat, in e⁻/pix.
    camera : Camera, optional
        The detector, as for `simulate_movie`.
    dtype : dtype-like
        Of the frames, an integer or floating type.
    seed : int
        Of the camera where none is given, and of the flats' noise; not negative.

    Returns
    -------
    tuple of Movie
        In the order of the dose rates.

    Raises
    ------
    ValueError
        As for `simulate_movie`.
    """
    if camera is None:
        camera = Camera(shape or (1024, 1024), seed=seed)
    return tuple(
        simulate_movie(
            1, shape, dose=electrons, specimen=None, camera=camera, dtype=dtype,
            dose_rate=rate, seed=child_seed(seed, "flat", index),
        )
        for index, rate in enumerate(dose_rates)
    )  # fmt: skip


def _lives(
    wanted: npt.NDArray[np.int_], lifetime: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Give births and deaths of hot pixels, so that `wanted[i]` of them live in stack i."""
    births = np.empty(0, np.intp)
    deaths = np.empty(0, np.intp)
    for index, number in enumerate(wanted):
        alive = np.flatnonzero(deaths > index)
        missing = number - len(alive)
        if missing < 0:
            deaths[rng.choice(alive, -missing, replace=False)] = index
        else:
            births = np.append(births, np.full(missing, index))
            deaths = np.append(deaths, index + rng.geometric(1 / lifetime, missing))
    return births, deaths
