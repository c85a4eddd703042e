from .camera import GAMMA_COEFFICIENTS, Camera, Defects
from .integrating import RawMovie, Spots, Sweep, simulate_microed, simulate_raw
from .movie import Movie, SimulatedSession, simulate_flats, simulate_movie, simulate_session
from .specimen import CARBON_EDGE, CRYSTALLINE_ICE, VITREOUS_ICE, Specimen, drift_path

__all__ = [
    "CARBON_EDGE",
    "CRYSTALLINE_ICE",
    "GAMMA_COEFFICIENTS",
    "VITREOUS_ICE",
    "Camera",
    "Defects",
    "Movie",
    "RawMovie",
    "SimulatedSession",
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
