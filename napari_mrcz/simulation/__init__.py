"""Detectors with known truth: movies, sessions, flats, sweeps and raw frames.

For the demo, tests and benchmarks; seeded, so that the same call returns the same frames. Knows no
other room. Begin with `simulate_movie` in movie.py; camera.py is the detector and its bad pixels,
specimen.py what is in the beam, integrating.py frames that are not counted.
Images are (y, x), movies (n, y, x); doses are in e⁻/pix, lengths in Å or pixels as named.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
