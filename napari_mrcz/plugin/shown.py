"""A stack as a viewer wants it: damaged frames are blank to look at, and an error to work with."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_mrcz.errors import MrczError, NotEnoughMemory, warn
from napari_mrcz.stack import Stack
from napari_mrcz.stack.indexing import split_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


class ShownStack(Stack):
    """A stack whose damaged frames are all 0 when they are indexed, with one warning each.

    So are frames for which there is not enough memory, as long as there is not.

    One bad frame must not keep a movie from being looked at. Whatever computes with the frames
    (sums, corrections, saving, ``np.asarray``) still raises `MrczError`: it takes them from the
    source, not by index.
    """

    @cached_property
    def damaged(self) -> set[int]:
        """Frames that were found to be damaged; their warnings were given."""
        return set()

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Give a stack of the same frames to be shown."""
        return cls(stack._source, stack.description, stack.header, **stack._caching)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index as `Stack` does; what is damaged is 0."""
        try:
            return super().__getitem__(key)
        except MrczError as error:
            return self._with_blanks(key, error)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Give the frames in order; a damaged one raises, as whoever takes all computes."""
        return (super(ShownStack, self).__getitem__(i) for i in range(len(self)))

    def _with_blanks(self, key: Any, error: MrczError) -> npt.NDArray[Any]:
        frames, window = split_index(key, self.shape)
        blank = np.zeros(self.shape[1:], self.dtype)[window]
        if isinstance(frames, int):
            self._warn(frames, error)
            return blank
        found = []
        for frame in frames:
            try:
                found.append(super().__getitem__((frame, *window)))
            except MrczError as one:
                self._warn(frame, one)
                found.append(blank)
        return np.stack(found)

    def _warn(self, frame: int, error: MrczError) -> None:
        if isinstance(error, NotEnoughMemory):  # each time: there may be enough the next
            warn(f"{error}. It is shown blank as long as there is not enough")
        elif frame not in self.damaged:
            self.damaged.add(frame)
            warn(f"{error}. It is shown blank; the other frames can be used")
