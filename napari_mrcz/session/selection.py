"""Part of a movie: some of its frames, a rectangle of its pixels, sums of groups of frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from napari_mrcz.correction.options import Option, Options
from napari_mrcz.errors import MrczError, collected_warnings

if TYPE_CHECKING:
    from napari_mrcz.stack import Stack

_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?")
_CROP = re.compile(r"(\d+),(\d+),(\d+),(\d+)")


@dataclass(frozen=True)
class Selection(Options):
    """Part of a movie that is taken: some frames, a rectangle of their pixels, sums of groups."""

    frames: Annotated[
        str,
        Option(
            "Frames",
            "Frames as FROM:TO or FROM:TO:STEP; the first is 0, TO is excluded",
            unset="all",
            flag="--frames",
            advice="A range of dose, such as 0:20",
        ),
    ] = ""
    crop: Annotated[
        str,
        Option(
            "Crop",
            "Pixels as X,Y,WIDTH,HEIGHT; the first column and row are 0",
            unset="all",
            flag="--crop",
            advice="To look at a part, or send it",
        ),
    ] = ""
    group: Annotated[
        int,
        Option(
            "Group",
            "Frames summed into one; the last sum may have fewer",
            least=1,
            flag="--group",
            advice="For EER, and where single frames have too few electrons",
        ),
    ] = 1

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        _ = self._slice, self._rectangle

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out, and nothing summed."""
        return not self.chosen

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that are not their defaults."""
        found = {"frames": self.frames, "crop": self.crop, "group": self.group}
        return {name: value for name, value in found.items() if value not in ("", 1)}

    def of(self, movie: Stack) -> Stack:
        """Return the part of a movie, lazily; its metadata says which part it is.

        Raise `MrczError` where the movie does not have it.
        """
        if self.is_whole:
            return movie
        n, height, width = movie.shape
        wanted = range(n)[self._slice]
        ends = [end for end in (self._slice.start, self._slice.stop) if end is not None]
        if not wanted or any(not -n <= end <= n for end in ends):
            found = f"frames {self.frames} are asked for, where there are {n}"
            raise MrczError(movie.path, found, advice=f"Frames are 0 to {n - 1}")
        x, y, columns, rows = self._rectangle or (0, 0, width, height)
        if x + columns > width or y + rows > height:
            found = f"a crop of {self.crop}, where frames have {width} columns and {height} rows"
            raise MrczError(movie.path, found)
        if len(wanted) // self.group == 0:
            found = f"groups of {self.group} frames are asked for, where there are {len(wanted)}"
            raise MrczError(movie.path, found)
        part = movie
        if self.frames or self.crop:
            part = movie.select(self._slice, slice(y, y + rows), slice(x, x + columns))
            selected: dict[str, Any] = {"of_shape": list(movie.shape)}
            if self.frames:
                step = wanted.step
                selected |= {"first_frame": wanted[0], "last_frame": wanted[-1], "step": step}
            selected |= {"crop": [x, y, columns, rows]} if self.crop else {}
            metadata = dict(part.description.metadata)
            if "selected" in metadata:  # a part of a part
                selected["of"] = metadata["selected"]
            metadata["selected"] = selected
            part = part.described(metadata=metadata)
        with collected_warnings():  # `note` says it
            return part.group(self.group) if self.group > 1 else part

    def note(self, movie: Stack) -> list[str]:
        """Return a note if the last group of frames is smaller than the others."""
        left = len(range(len(movie))[self._slice]) % self.group
        return [f"the last frame is the sum of {left}, not of {self.group}"] if left else []

    @property
    def _slice(self) -> slice:
        if not self.frames:
            return slice(None)
        found = _SLICE.fullmatch(self.frames)
        parts = [int(part) if part else None for part in found.groups()] if found else []
        if not parts or parts[2] == 0:
            raise ValueError(
                f"frames are FROM:TO or FROM:TO:STEP, such as 0:20, not {self.frames!r}"
            )
        return slice(*parts)

    @property
    def _rectangle(self) -> tuple[int, int, int, int] | None:
        if not self.crop:
            return None
        found = _CROP.fullmatch(self.crop)
        x, y, columns, rows = map(int, found.groups()) if found else (0, 0, 0, 0)
        if not columns or not rows:
            raise ValueError(
                f"a crop is X,Y,WIDTH,HEIGHT in pixels, such as 0,0,512,512, not {self.crop!r}"
            )
        return x, y, columns, rows


WHOLE = Selection()
"""All frames and pixels."""
