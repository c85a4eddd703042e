"""Frames that lie uncompressed in files, each at a place that is known: SMV, TVIPS, DM."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import MrczError
from napari_mrcz.format.files import RandomAccessFile, open_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LARGEST_SIDE = 2**16
"""More rows or columns than any camera has: what claims them is damaged."""

MOST_FRAMES = 2**24
"""More frames than any recording has: 40,000 a second for seven minutes."""

# Of movies in more files than these, a file is open only while it is read.
_MOST_OPEN = 8

Frame = npt.NDArray[Any]


@dataclass(frozen=True)
class FrameRun:
    """Frames of one file that follow each other at equal distances.

    Attributes
    ----------
    file : RandomAccessFile
        The file; it may be packed.
    offset : int
        Byte at which the pixels of the first frame begin.
    step : int
        Bytes from the pixels of one frame to those of the next.
    count : int
        Number of frames.
    """

    file: RandomAccessFile
    offset: int
    step: int
    count: int

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.file.path, self.offset, self.step, self.count)


class RawFrames:
    """Frames read as they are asked for, their rows turned into the order of MRC files.

    Parameters
    ----------
    runs : sequence of FrameRun
        Where the frames are, in order.
    page_shape : tuple of int
        Rows and columns of a frame.
    stored : numpy.dtype
        Pixel type in the files, with its byte order.
    """

    def __init__(
        self, runs: Sequence[FrameRun], page_shape: tuple[int, int], stored: np.dtype[Any]
    ) -> None:
        self.runs = tuple(runs)
        self._ends = list(itertools.accumulate(run.count for run in self.runs))
        self._page_shape = page_shape
        self._stored = stored

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return self._ends[-1], *self._page_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type, in native byte order."""
        return self._stored.newbyteorder("=")

    def read_frame(self, frame: int, out: Frame | None = None) -> Frame:
        """Read one frame.

        Raises
        ------
        MrczError
            If the file is gone, changed, or damaged where it is packed.
        """
        at = bisect.bisect_right(self._ends, frame)
        run = self.runs[at]
        offset = run.offset + run.step * (frame - (self._ends[at] - run.count))
        rows, columns = self._page_shape
        buffer = np.empty(rows * columns * self._stored.itemsize, np.uint8)
        got = run.file.read_into(offset, buffer.data)
        if len(self.runs) > _MOST_OPEN:
            run.file.close()
        if got != len(buffer):
            found = f"it ends after {got} of {len(buffer)} bytes; it was whole when opened"
            raise MrczError(run.file.path, found, frame=frame, offset=offset)
        flipped = buffer.view(self._stored).reshape(self._page_shape)[::-1]
        if out is None:
            return np.ascontiguousarray(flipped, self.dtype)
        out[...] = flipped
        return out

    def read_window(self, frame: int, window: tuple[Any, ...]) -> Frame:
        """Read one frame and return part of it."""
        return np.array(self.read_frame(frame)[window])

    def close(self) -> None:
        """Close the files; reading opens them again."""
        for run in self.runs:
            run.file.close()


def _reopened(path: Path, offset: int, step: int, count: int) -> FrameRun:
    return FrameRun(open_file(path), offset, step, count)
