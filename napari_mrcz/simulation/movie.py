"""Simulated movies, sessions and flats; any frame can be drawn alone and comes out the same.

>>> movie = simulate_movie(40, (1024, 1024), dose=1.0, seed=7)
>>> movie.frame(3)                      # one frame, its own random numbers
>>> for frame in movie.iter_frames():   # a long movie never sits in memory
>>> movie.frames                        # the whole, (n, y, x)
>>> movie.defects.hot, movie.drift, movie.rate, movie.camera.gain_reference  # the truth
>>> session = simulate_session(60, 100, (512, 512), exceptions={7: CARBON_EDGE})
>>> for movie in session.iter_movies(): ...
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.simulation.camera import Camera, Defects, Sites, child_seed, stream
from napari_mrcz.simulation.specimen import VITREOUS_ICE, Scene, Specimen, drift_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Pixels drawn at a time: numpy draws 8 bytes each, and a cache is small.
_STRIP = 1 << 18


@dataclass(frozen=True, eq=False)
class Movie:
    """Dose-fractionated frames and everything that made them. Made by `simulate_movie`.

    Attributes
    ----------
    camera : Camera
        The detector: `camera.gain_reference`, `camera.dark_reference`.
    defects : Defects
        Its outlier pixels at the time of this movie: masks `hot`, `dark`, `dead`, `clusters`.
    specimen : Specimen or None
        None is vacuum.
    drift : ndarray of float64, shape (n, 2)
        Displacement (y, x) of the specimen in each frame against the first, in pixels.
    dose : float
        Mean incident dose, in e⁻/pix/frame.
    doses : ndarray of float64, shape (n,)
        Incident dose of each frame.
    dose_rate : float
        Incident dose rate, in e⁻/pix/s of a *physical* pixel.
    pixel_size : float
        In Å.
    dtype : dtype
        Of the frames. Counts beyond its range saturate, as they do in a detector.
    seed : int
        Of this movie.
    """

    camera: Camera
    defects: Defects
    specimen: Specimen | None
    drift: npt.NDArray[np.float64]
    dose: float
    doses: npt.NDArray[np.float64]
    dose_rate: float
    pixel_size: float
    dtype: np.dtype[Any]
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns: (n, y, x)."""
        return len(self.drift), *self.camera.shape

    @property
    def frame_time(self) -> float:
        """Exposure time of one frame, in seconds."""
        return self.dose * self.camera.super_resolution**2 / self.dose_rate

    @property
    def gamma(self) -> float:
        """The exponent that the gain reference needs at this dose rate."""
        return self.camera.gamma_at(self.dose_rate)

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Return the counts of one frame, (y, x); a negative index counts from the end."""
        n = len(self.drift)
        if not -n <= index < n:
            raise IndexError(f"frame {index} of a movie of {n} frames")
        index %= n
        rate = self._with_defects(self.drift[index : index + 1])
        if self.camera.flicker:
            shape = self._flickering.shape
            is_off = stream(self.seed, "asleep", index).random(shape) < 0.5
            rate -= self.dose * np.where(is_off, self._flickering, np.float32(0))
        relative = np.float32(self.doses[index] / self.dose)
        if relative != 1:
            rate = (rate - self._dark_current) * relative + self._dark_current
        return self._counts(rate, stream(self.seed, "frame", index))

    def iter_frames(self) -> Iterator[npt.NDArray[Any]]:
        """Return the frames (y, x) one by one; only one is in memory."""
        return (self.frame(index) for index in range(len(self.drift)))

    @cached_property
    def frames(self) -> npt.NDArray[Any]:
        """Counts of all frames, (n, y, x): the same numbers as one by one."""
        frames = np.empty(self.shape, self.dtype)

        def draw(index: int) -> None:
            frames[index] = self.frame(index)

        with ThreadPoolExecutor() as pool:
            list(pool.map(draw, range(len(frames))))
        return frames

    @cached_property
    def rate(self) -> npt.NDArray[np.float32]:
        """Expected counts of a camera without defects, in e⁻/pix/frame, (y, x).

        The mean over the frames, with the specimen and the response of the camera.
        """
        return self.dose * self._transmission(self.drift) * self._response + self._dark_current

    @cached_property
    def expected(self) -> npt.NDArray[np.float32]:
        """Expected counts, defects included, in e⁻/pix/frame, (y, x)."""
        return self._with_defects(self.drift)

    def describe(self) -> dict[str, Any]:
        """Return the parameters, for a file's metadata, in the units of the attributes."""
        return {
            "simulated": True,
            "seed": self.seed,
            "dose_per_frame": self.dose,
            "dose_rate": self.dose_rate,
            "frame_time": self.frame_time,
            "pixel_size": self.pixel_size,
            "gamma": self.gamma,
            "counts_per_electron": self.camera.counts_per_electron,
            "super_resolution": self.camera.super_resolution,
            "drift": self.drift.round(3).tolist(),
            "n_hot": int(self.defects.hot.sum()),
            "n_dark": int(self.defects.dark.sum()),
            "n_dead": int(self.defects.dead.sum()),
        }

    @cached_property
    def _scene(self) -> Scene | None:
        if self.specimen is None:
            return None
        seed = child_seed(self.seed, "specimen")
        return Scene(self.specimen, self.camera.shape, self.pixel_size, seed)

    @cached_property
    def _response(self) -> npt.NDArray[np.float32]:
        return self.camera.response(self.dose_rate)

    @cached_property
    def _dark_current(self) -> npt.NDArray[np.float32]:
        return self.camera.dark_reference / np.float32(self.camera.counts_per_electron)

    @cached_property
    def _gain_and_offset(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Factor on every frame's transmission, and the term that is then added."""
        gain = self.dose * self._response * self.defects.response
        offset = self.dose * self.defects.excess + self._dark_current
        return gain, offset

    def _transmission(self, drift: npt.NDArray[np.float64]) -> npt.NDArray[np.float32] | np.float32:
        return np.float32(1) if self._scene is None else self._scene.averaged(drift)

    def _with_defects(self, drift: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        gain, offset = self._gain_and_offset
        return self._transmission(drift) * gain + offset

    @cached_property
    def _flickering(self) -> npt.NDArray[np.float32]:
        """Excess of the hot pixels that flicker, (y, x)."""
        rng = stream(self.camera.seed, "flicker")
        chosen = rng.random(self.defects.excess.shape) < self.camera.flicker
        return np.where(chosen, self.defects.excess, np.float32(0))

    def _counts(self, rate: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[Any]:
        counts = np.empty(rate.shape, self.dtype)
        limit = np.iinfo(self.dtype).max if self.dtype.kind in "iu" else None
        rows = max(1, _STRIP // rate.shape[1])
        for top in range(0, len(rate), rows):
            drawn: npt.NDArray[Any] = rng.poisson(rate[top : top + rows])
            drawn = drawn * self.camera.counts_per_electron
            if self.camera.pedestal or self.camera.read_noise:
                noise = rng.normal(self.camera.pedestal, self.camera.read_noise, drawn.shape)
                drawn = drawn + noise
                if limit is not None:
                    drawn = np.maximum(np.rint(drawn), np.iinfo(self.dtype).min)
            counts[top : top + rows] = drawn if limit is None else np.minimum(drawn, limit)
        return counts


def simulate_movie(
    n_frames: int = 40,
    shape: tuple[int, int] | None = None,
    *,
    dose: float | npt.ArrayLike = 1.0,
    specimen: Specimen | None = VITREOUS_ICE,
    camera: Camera | None = None,
    drift: float | npt.NDArray[np.float64] = 6.0,
    dose_rate: float = 4.0,
    pixel_size: float = 1.35,
    dtype: npt.DTypeLike = np.uint8,
    seed: int = 0,
) -> Movie:
    """Simulate a movie of a drifting specimen on a counting camera.

    Nothing is drawn yet: `Movie.frame`, `Movie.iter_frames` and `Movie.frames` do that.

    Parameters
    ----------
    n_frames : int
        Number of frames.
    shape : tuple of int, optional
        Pixels (y, x) of a frame; by default the camera's, or 1024 x 1024.
    dose : float or array_like, shape (n_frames,)
        Incident dose in e⁻/pix/frame, of all frames or of each: 0 is a blank one.
    specimen : Specimen, optional
        For example `CARBON_EDGE`; None is vacuum: a flat.
    camera : Camera, optional
        The detector, by default `Camera(shape, seed=seed)`; `Camera.ideal` has only Poisson noise.
    drift : float or array_like, shape (n_frames, 2)
        Length of the specimen's path in pixels, or the path itself: (y, x) of each frame, in
        pixels. Beyond 32 pixels the specimen's far side comes into view.
    dose_rate : float
        Incident dose rate in e⁻/pix/s of a physical pixel, on which gamma depends.
    pixel_size : float
        In Å.
    dtype : dtype-like
        Of the frames, an integer or floating type.
    seed : int
        The same seed, the same movie; not negative.

    Raises
    ------
    ValueError
        If shape and camera disagree, the path has another length, or a number is not positive.
    """
    camera = Camera(shape or (1024, 1024), seed=seed) if camera is None else camera
    if shape is not None and tuple(shape) != camera.shape:
        raise ValueError(f"shape {shape} is not the camera's {camera.shape}")
    if n_frames < 1:
        raise ValueError("n_frames must be positive")
    doses = np.array(np.broadcast_to(np.asarray(dose, np.float64), (n_frames,)))
    if doses.min() < 0 or min(doses.mean(), dose_rate, pixel_size) <= 0:
        raise ValueError("dose, dose_rate and pixel_size must be positive")
    dtype = np.dtype(dtype)
    if dtype.kind not in "iuf":
        raise ValueError(f"frames are integers or floating numbers, not {dtype}")
    if np.ndim(drift) == 0:
        drift = drift_path(n_frames, float(drift), stream(seed, "drift"))
    path = np.array(drift, np.float64)
    if path.shape != (n_frames, 2):
        raise ValueError(f"a drift path has shape ({n_frames}, 2), not {path.shape}")
    return Movie(
        camera=camera,
        defects=camera.defects,
        specimen=specimen,
        drift=path,
        dose=float(doses.mean()) if np.ndim(dose) else float(doses[0]),
        doses=doses,
        dose_rate=float(dose_rate),
        pixel_size=float(pixel_size),
        dtype=dtype,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class SimulatedSession:
    """Stacks taken one after the other on one camera. Made by `simulate_session`.

    Attributes
    ----------
    template : Movie
        The camera and other properties common to the stacks.
    specimens : tuple of Specimen or None
        Of each stack; None is vacuum.
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
        """Dose of the camera before each stack, in e⁻/pix, (n_stacks,)."""
        dose = self.template.dose * self.template.shape[0]
        return np.arange(self.n_stacks, dtype=np.float64) * dose

    def movie(self, index: int) -> Movie:
        """Return one stack, the same each time; a negative index counts from the end."""
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
        """Return the stacks in order of acquisition."""
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
) -> SimulatedSession:
    """Simulate a session: the fixed pattern stays, hot pixels come, go and become more.

    Parameters
    ----------
    n_stacks : int
        Number of stacks.
    n_frames : int
        Of each stack.
    shape, dose, camera, dose_rate, pixel_size, dtype, seed
        As for `simulate_movie`.
    specimen : Specimen, optional
        Of every stack, each with its own particles; None is vacuum.
    exceptions : dict of int to Specimen or None, optional
        Stacks with another specimen, by index: ``{7: CARBON_EDGE, 31: CRYSTALLINE_ICE}``.
    hot : tuple of float
        Fraction of the physical pixels that is hot in the first and in the last stack, linear in
        between. The default is the 5,500 and 12,300 pixels of a K2 in McLeod et al., preprint
        doi:10.1101/116533, fig. 7a. It replaces the camera's own `hot` and `very_hot`; their
        proportion stays.
    lifetime : float
        Mean number of stacks for which a pixel stays hot.
    drift : float
        Length of the specimen's path in each stack, in pixels.

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
    return SimulatedSession(template, specimens, drift, sites, births, deaths)


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
    shape, camera, dtype, seed
        As for `simulate_movie`, as are the errors.
    electrons : float
        Incident dose of each flat, in e⁻/pix.

    Returns
    -------
    tuple of Movie
        In the order of the dose rates.
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
    """Return births and deaths of hot pixels, so that `wanted[i]` of them live in stack i."""
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
