"""DM3 and DM4 movies of DigitalMicrograph, mapped into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mrcz.errors import MrczError
from napari_mrcz.stack.stack import Stack
from napari_mrcz.units import angstroms, plausible

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_dm", "open_dm"]


def is_dm(head: bytes) -> bool:
    """Return whether a file that begins so is a DM3 or DM4 file."""
    if len(head) < 16 or head[208:212] == b"MAP ":
        return False
    version = int.from_bytes(head[:4], "big")
    at = {3: 8, 4: 12}.get(version)
    if at is None:
        return False
    little_endian = int.from_bytes(head[at : at + 4], "big")
    return little_endian in (0, 1) and any(head[4:at]) and max(head[at + 4 : at + 6]) <= 1


def open_dm(path: Path) -> Stack:
    """Open a movie."""
    try:
        from ncempy.io.dm import fileDM
    except ImportError as error:
        advice = "pip install 'napari-mrcz[dm]'"
        raise MrczError(path, "DM3 and DM4 files need ncempy", advice=advice) from error
    try:
        with path.open("rb") as content:
            if not content.read(1):
                # It would trip over an empty file once more when it lets go of it, and say so.
                raise MrczError(path, "an empty file")
    except OSError as error:
        raise MrczError(path, f"cannot be opened: {error.strerror}") from error
    try:
        with fileDM(str(path)) as file:
            pixels = file.getMemmap(0)
            image = int(file.numObjects > 1)  # a thumbnail comes before
            sizes = (file.zSize2, file.zSize, file.ySize, file.xSize)
            shape = tuple(int(size[image]) for size in sizes)
            # Of all axes in the file, x before y.
            x = sum(file.dataShape[:image])
            axes = [(float(file.scale[i]), str(file.scaleUnit[i])) for i in (x + 1, x)]
    except Exception as error:  # it has no error of its own for a damaged file
        raise MrczError(path, f"it is no DM file that can be read ({error!r})") from error
    if shape[0] > 1 or 1 in shape[2:]:
        raise MrczError(path, f"data of shape {shape}, where a movie has three axes")
    pixel = (plausible(scale * (angstroms(unit) or 0.0)) for scale, unit in axes)
    stack = Stack.from_array(pixels.reshape(shape[1:])[:, ::-1], pixel_size=(0.0, *pixel))
    return stack.described(path=str(path.absolute()))
