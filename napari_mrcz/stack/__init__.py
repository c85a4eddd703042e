"""The lazy stack of frames, and opening and saving it."""

from napari_mrcz.stack.files import open, read, read_async, write, write_async
from napari_mrcz.stack.sources import Correction, FrameSource
from napari_mrcz.stack.stack import Stack

__all__ = [
    "Correction",
    "FrameSource",
    "Stack",
    "open",
    "read",
    "read_async",
    "write",
    "write_async",
]
