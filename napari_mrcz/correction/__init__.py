"""Corrections: array mathematics on frames and movies, of numpy and scipy alone.

A movie is anything of shape (n, y, x) that gives its frames when iterated. A correction is a small
frozen object: call it with a frame (y, x) and its index, ask it to `describe` itself.
"""

from napari_mrcz.correction.complex_parts import Amplitude, Phase
from napari_mrcz.correction.history import fingerprint, rebuild, register, replay

__all__ = [
    "Amplitude",
    "Phase",
    "fingerprint",
    "rebuild",
    "register",
    "replay",
]
