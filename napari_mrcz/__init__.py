"""Open, inspect, correct and save MRCZ movies of electron microscopy.

A movie is opened as a lazy `Stack`, corrections are applied to it frame by frame, and a `Stack` is
what is shown and what is saved::

    import napari_mrcz as nm

    movie = nm.open("movie.mrcz")
    nm.write("copy.mrcz", movie)
"""

from napari_mrcz.errors import MrczError, MrczWarning
from napari_mrcz.format import VerifyReport, verify
from napari_mrcz.stack import Stack, open, read, read_async, write, write_async

__all__ = [
    "MrczError",
    "MrczWarning",
    "Stack",
    "VerifyReport",
    "open",
    "read",
    "read_async",
    "verify",
    "write",
    "write_async",
]
