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
        several = not isinstance(frames, int)
        frame = frames[0] if several and len(frames) == 1 else frames  # as napari asks for one
        if (
            self.wanted is None
            or not isinstance(frame, int)
            or threading.current_thread() is not threading.main_thread()
            or self._cache.peek(frame) is not None
            or frame in self.damaged
        ):
            return super().__getitem__(key)
        self.wanted(self, frame)
        blank = np.zeros(self.shape[1:], self.dtype)[window]
        return blank[np.newaxis] if several else blank
