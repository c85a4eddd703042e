"""The lazy stack of frames: opening one of any format, and saving it.

Rows come in the order of MRC files, so that a movie and its gain reference, whatever their formats,
lie on each other: those of TIFF, DM, SMV and TVIPS begin at the top and are turned upside down, as
IMOD does, those of EER not.
"""

from napari_mrcz.stack.files import read, read_async, write, write_async
from napari_mrcz.stack.kept import original
from napari_mrcz.stack.opening import open
from napari_mrcz.stack.sources import Correction, FrameSource
from napari_mrcz.stack.stack import Stack
from napari_mrcz.stack.sweeps import open_sweep, sweeps
from napari_mrcz.stack.verifying import verify

__all__ = [
    "Correction",
    "FrameSource",
    "Stack",
    "open",
    "open_sweep",
    "original",
    "read",
    "read_async",
    "sweeps",
    "verify",
    "write",
    "write_async",
]
