"""MRC and MRCZ files, byte by byte: header, chunks, footer; reading, writing, verifying."""

from napari_mrcz.format.description import Description
from napari_mrcz.format.encoding import (
    Encoding,
    choose_encoding,
    compressed_fraction,
    shannon_fraction,
)
from napari_mrcz.format.estimation import Estimate, estimate
from napari_mrcz.format.header import Header
from napari_mrcz.format.reader import FrameReader
from napari_mrcz.format.verification import FrameFault, VerifyReport, verify
from napari_mrcz.format.writer import Progress, write_frames

__all__ = [
    "Description",
    "Encoding",
    "Estimate",
    "FrameFault",
    "FrameReader",
    "Header",
    "Progress",
    "VerifyReport",
    "choose_encoding",
    "compressed_fraction",
    "estimate",
    "shannon_fraction",
    "verify",
    "write_frames",
]
