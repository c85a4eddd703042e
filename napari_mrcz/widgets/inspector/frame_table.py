"""Where each frame lies, how well it is compressed, and whether it is whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_mrcz.errors import counted, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_mrcz.format import FrameReader, VerifyReport

# Name and meaning of each column.
COLUMNS = (
    ("Frame", "Counted from 0"),
    ("Offset", "Byte of the file at which the frame begins"),
    ("Size", "What the frame takes in the file"),
    ("Ratio", "Compression ratio: its size uncompressed by its size in the file"),
    ("Checksum", "Whether its bytes match their checksum, or decode where there is none"),
)


@dataclass(frozen=True)
class FrameTable:
    """The frames of one file.

    Attributes
    ----------
    path : str
        The file.
    offsets, sizes : sequence of int
        Bytes from the file's start; bytes taken.
    frame_nbytes : int
        Bytes of a frame, uncompressed.
    compressed, checksums : bool
        Whether frames are compressed, and whether the file has checksums.
    stamp : tuple of int
        Length and time of change of the file, by which one that was written anew is told.
    verified : bool
        Whether all frames were read since.
    faults : dict of int to str
        What is wrong with the frames that are damaged, as far as is known.
    """

    path: str
    offsets: Sequence[int] | npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.uint64]
    frame_nbytes: int
    compressed: bool
    checksums: bool
    stamp: tuple[int, int] = (0, 0)
    verified: bool = False
    faults: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, reader: FrameReader, stamp: tuple[int, int]) -> FrameTable:
        """Make the table of an open file."""
        header, index = reader.header, reader.index
        return cls(
            str(reader.path),
            index.offsets,
            index.sizes,
            reader.frame_nbytes if header.codec else header.frame_nbytes,
            bool(header.codec),
            index.xxh3 is not None,
            stamp,
        )

    def __len__(self) -> int:
        """Give the number of frames."""
        return len(self.offsets)

    def is_of_same_file(self, other: FrameTable) -> bool:
        """Tell whether nothing but what is known of the frames differs."""
        return (self.path, self.stamp, len(self)) == (other.path, other.stamp, len(other))

    def with_report(self, report: VerifyReport) -> FrameTable:
        """Give the same frames with what verifying them found."""
        return replace(self, verified=True, faults={f.frame: f.found for f in report.faults})

    def ratio(self, frame: int) -> float:
        """Give the compression ratio of a frame."""
        return self.frame_nbytes / max(1, int(self.sizes[frame]))

    def ratios(self) -> npt.NDArray[np.float64]:
        """Give the compression ratio of every frame."""
        return np.asarray(self.frame_nbytes / np.maximum(self.sizes, 1), np.float64)

    def curve(self, most: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give frames and ratios to be drawn: of many frames the extremes of each few."""
        ratios = self.ratios()
        count = len(ratios)
        if count <= most:
            return np.arange(count, dtype=np.float64), ratios
        starts = np.arange(0, count, -(-2 * count // most))
        low, high = (f.reduceat(ratios, starts) for f in (np.minimum, np.maximum))
        return np.repeat(starts.astype(np.float64), 2), np.stack([low, high], axis=1).reshape(-1)

    def texts(self, frame: int) -> tuple[str, ...]:
        """Give what is shown of a frame, one text for each of `COLUMNS`."""
        return (
            str(frame),
            f"{int(self.offsets[frame]):,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
            size_text(int(self.sizes[frame])),
            f"{self.ratio(frame):.2f}" if self.compressed else "1",
            self.state(frame),
        )

    def widest(self) -> tuple[str, ...]:
        """Give texts at least as wide as any that `texts` gives, in the same order."""
        if not len(self):
            return ("",) * len(COLUMNS)
        last, least = len(self) - 1, int(self.sizes.argmin())
        return (str(last), self.texts(last)[1], "8.88 MB", self.texts(least)[3], "damaged")

    def state(self, frame: int) -> str:
        """Give a word or two on whether a frame is whole."""
        if frame in self.faults:
            return "damaged"
        if not self.verified:
            return "unread" if self.checksums else "none"
        return "matches" if self.checksums else "decodes"

    def tip(self, frame: int) -> str:
        """Give more than the table has room for."""
        lines = [f"Frame {frame}: {int(self.sizes[frame])} bytes at {int(self.offsets[frame])}"]
        if frame in self.faults:
            lines.append(self.faults[frame])
        return "\n".join(lines)

    def summary(self) -> str:
        """Give all frames in a sentence or two."""
        count, stored = len(self), float(self.sizes.astype(np.float64).sum())
        frames = counted(count, "frame")
        if not self.compressed:
            said = f"{frames}, not compressed: {size_text(self.frame_nbytes)} each."
        else:
            ratios = self.ratios()
            said = (
                f"{frames} of {size_text(self.frame_nbytes)} in {size_text(stored)}: compressed "
                f"{self.frame_nbytes * count / max(1, stored):.2f} to 1"
            )
            said += f" ({ratios.min():.2f} to {ratios.max():.2f})." if count > 1 else "."
        return said + (" With checksums." if self.checksums else " No checksums.")

    def verdict(self) -> str:
        """Say how the verifying ended."""
        if self.faults:
            named = sorted(self.faults)
            some = ", ".join(map(str, named[:8])) + ("…" if len(named) > 8 else "")
            what = "1 frame is" if len(named) == 1 else f"{len(named)} frames are"
            return f"{what} damaged: {some}."
        if self.checksums:
            return f"All {len(self)} frames match their checksums."
        return f"All {len(self)} frames decode; without checksums more cannot be told."

    def as_map(self) -> dict[str, Any]:
        """Give the table for JSON."""
        return {
            "offset": [int(offset) for offset in self.offsets],
            "size": [int(size) for size in self.sizes],
            "ratio": [round(float(ratio), 4) for ratio in self.ratios()],
            "checksums": self.checksums,
            "verified": self.verified,
            "damaged": {str(frame): found for frame, found in self.faults.items()},
        }
