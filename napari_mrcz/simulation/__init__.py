"""A detector with known truth: movies, sessions and flats for demos, tests and benchmarks.

>>> from napari_mrcz.simulation import simulate_movie
>>> movie = simulate_movie(40, (1024, 1024), dose=1.0, seed=7)
>>> movie.frames, movie.defects.hot, movie.drift, movie.camera.gain_reference

Modules: `camera` (response, gain reference) with its `patterns` and `defects`; `specimen` and the
`scene` that moves it; `movie`; `session`; `microed`, diffraction patterns; `raw`, frames before
electrons are counted. Everything is seeded (`seeds`); nothing here knows the rest of the package.
Images are (y, x), movies (n, y, x); doses are in e⁻/pix, lengths in Å or pixels as is said.
"""

from napari_mrcz.simulation.camera import GAMMA_COEFFICIENTS, Camera
from napari_mrcz.simulation.defects import Defects
from napari_mrcz.simulation.microed import Spots, Sweep, simulate_microed
from napari_mrcz.simulation.movie import Movie, simulate_movie
from napari_mrcz.simulation.raw import RawMovie, simulate_raw
from napari_mrcz.simulation.scene import drift_path
from napari_mrcz.simulation.session import Session, simulate_flats, simulate_session
from napari_mrcz.simulation.specimen import CARBON_EDGE, CRYSTALLINE_ICE, VITREOUS_ICE, Specimen

__all__ = [
    "CARBON_EDGE",
    "CRYSTALLINE_ICE",
    "GAMMA_COEFFICIENTS",
    "VITREOUS_ICE",
    "Camera",
    "Defects",
    "Movie",
    "RawMovie",
    "Session",
    "Specimen",
    "Spots",
    "Sweep",
    "drift_path",
    "simulate_flats",
    "simulate_microed",
    "simulate_movie",
    "simulate_raw",
    "simulate_session",
]
