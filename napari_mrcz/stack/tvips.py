"""Recordings of TVIPS cameras (`.tvips`): a header, then frames, each after a header of its own.

A long recording is cut into files ``name_000.tvips``, ``name_001.tvips`` and so on, of which only
the first has the header of them all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format import Description
from napari_mrcz.stack.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TvipsFrames", "is_continuation", "is_tvips", "open_tvips"]

_HEADER_NBYTES = 256
_HEADER = np.dtype(
    [
        (name, "<i4")
        for name in (
            *("size", "version", "columns", "rows", "bits", "column_offset", "row_offset"),
            *("column_binning", "row_binning", "pixel_size_nm", "high_tension_kV"),
            *("magnification", "frame_header_bytes"),
        )
    ]
)
_FRAME_HEADER_OF_VERSION_1 = 12
_PART = re.compile(r"^(.*)_(\d{3})$")

Frame = npt.NDArray[Any]


def is_tvips(head: bytes) -> bool:
    """Return whether a file that begins so is the first one of a recording."""
    if len(head) < _HEADER_NBYTES or head[208:212] == b"MAP ":
        return False
    fields = np.frombuffer(head, _HEADER, 1)[0]
    return bool(
        fields["size"] == _HEADER_NBYTES
        and fields["version"] in (1, 2)
        and fields["bits"] in (8, 16)
        and min(fields["rows"], fields["columns"]) > 0
    )


def open_tvips(path: Path) -> Stack:
    """Open a recording by its first file; its header is in ``metadata["tvips"]``."""
    frames = TvipsFrames(path)
    return Stack(
        frames,
        Description(
            path=str(frames.path),
            voltage=float(frames.header["high_tension_kV"]),
            metadata={"tvips": frames.header},
        ),
    )


def is_continuation(path: Path) -> bool:
    """Say whether a file is a later one of a recording whose first one lies beside it."""
    part = _PART.match(path.stem) if path.suffix.lower() == ".tvips" else None
    return bool(part and int(part[2]) and path.with_stem(f"{part[1]}_000").exists())


class TvipsFrames:
    """Frames of a recording, read as they are asked for.

    Parameters
    ----------
    path : Path
        Its first file.

    Raises
    ------
    MrczError
        If it is none, or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.header = _header(self.path)
        version = self.header["version"]
        own = self.header["frame_header_bytes"] if version == 2 else _FRAME_HEADER_OF_VERSION_1
        self._page_shape = self.header["rows"], self.header["columns"]
        self._dtype: np.dtype[Any] = np.dtype(np.uint8 if self.header["bits"] == 8 else np.uint16)
        self._before = own
        nbytes = own + self._page_shape[0] * self._page_shape[1] * self._dtype.itemsize
        # (file, offset) of each frame.
        self._places: list[tuple[Path, int]] = []
        for part in _parts(self.path):
            start = 0 if self._places else _HEADER_NBYTES
            n, rest = divmod(part.stat().st_size - start, nbytes)
            if n < 1 or rest:
                found = f"{n} frames of {nbytes} bytes and {rest} bytes more: it is cut off"
                raise MrczError(part, found, offset=start + n * nbytes)
            self._places += [(part, start + i * nbytes) for i in range(n)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return len(self._places), *self._page_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self._dtype

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Read one frame.

        Raises
        ------
        MrczError
            If the file is not as it was.
        """
        path, offset = self._places[frame]
        stored = self._dtype.newbyteorder("<")
        count = self._page_shape[0] * self._page_shape[1]
        try:
            pixels = np.fromfile(path, stored, count, offset=offset + self._before)
        except OSError as error:
            raise MrczError(path, f"cannot be read: {error.strerror}", frame=frame) from error
        if len(pixels) != count:
            raise MrczError(path, "it was cut off meanwhile", frame=frame, offset=offset)
        flipped = pixels.reshape(self._page_shape)[::-1]
        if out is None:
            return np.ascontiguousarray(flipped, self._dtype)
        out[...] = flipped
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Read one frame and give part of it."""
        return np.array(self.read_frame(frame)[window])

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _header(path: Path) -> dict[str, int]:
    try:
        with path.open("rb") as file:
            raw = file.read(_HEADER_NBYTES)
    except OSError as error:
        raise MrczError(path, f"cannot be opened: {error.strerror}") from error
    if len(raw) < _HEADER_NBYTES:
        raise MrczError(path, f"a file of {len(raw)} bytes, shorter than a header of TVIPS")
    fields = np.frombuffer(raw, _HEADER, 1)[0]
    header = {name: int(fields[name]) for name in _HEADER.names or ()}
    known = header["size"] == _HEADER_NBYTES and header["version"] in (1, 2)
    if not known:
        advice = "Only the first file of a recording has one: open name_000.tvips"
        raise MrczError(path, "no header of TVIPS", offset=0, advice=advice)
    pixels = header["bits"] in (8, 16) and min(header["rows"], header["columns"]) > 0
    if not pixels or not 0 <= header["frame_header_bytes"] < 2**20:
        found = f"{header['rows']} rows, {header['columns']} columns, {header['bits']} bits"
        raise MrczError(path, f"a damaged header of TVIPS: {found}", offset=8)
    return header


def _parts(path: Path) -> list[Path]:
    """Give the files of a recording: as many as there are without a gap."""
    parts = [path]
    named = _PART.match(path.stem)
    while named and (later := path.with_stem(f"{named[1]}_{len(parts):03d}")).exists():
        parts.append(later)
    return parts
