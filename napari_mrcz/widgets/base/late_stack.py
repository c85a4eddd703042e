"""A stack whose frames take long to compute: the window shows a blank one until each is there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.plugin.shown import ShownStack
from napari_mrcz.stack.indexing import split_index

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["LateStack"]


class LateStack(ShownStack):
    """A stack that never keeps the window waiting for a frame.

    Indexed in the window's thread, a frame that is not there yet is all 0, and `wanted` is told of
    it. Other threads, and whatever computes with the frames, wait as with any stack.

    Attributes
    ----------
    wanted : callable or None
        Called with (this stack, index) in the window's thread: has the frame computed in another
        and the layer drawn again. None to wait in the window's thread, too.
    """

    wanted: Callable[[LateStack, int], None] | None = None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index as `Stack` does; in the window's thread, what is not there yet is 0."""
        frames, window = split_index(key, self.shape)
        several = [frames] if isinstance(frames, int) else list(frames)
        frame = several[0] if len(several) == 1 else None
        if (
            self.wanted is None
            or frame is None
            or threading.current_thread() is not threading.main_thread()
            or self._cache.peek(frame) is not None
            or frame in self.damaged
        ):
            return super().__getitem__(key)
        self.wanted(self, frame)
        blank = np.zeros(self.shape[1:], self.dtype)[window]
        # napari asks for a frame as a slice of one.
        return blank if isinstance(frames, int) else blank[np.newaxis]
