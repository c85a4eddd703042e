"""A stack whose frames take long to compute: the window shows a blank one until each is there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.plugin.shown import ShownStack

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt


class LateStack(ShownStack):
    """A stack that never keeps the window waiting for a frame.

    Asked as a viewer asks, in the window's thread, a frame that is not there yet is all 0, and
    `wanted` is told of it; across frames, where axes are turned, those that are there are shown.
    Other threads, single indices (``data[3]``) and whatever else computes with the frames wait as
    with any stack.

    Attributes
    ----------
    wanted : callable or None
        Called with (this stack, index) in the window's thread: has the frame computed in another
        and the layer drawn again. None to wait in the window's thread, too.
    """

    wanted: Callable[[LateStack, int], None] | None = None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index as `Stack` does; to a viewer, what is not there yet is 0."""
        in_window = threading.current_thread() is threading.main_thread()
        if self.wanted is None or not in_window or not _is_a_viewers(key, self.shape):
            return super().__getitem__(key)
        frames = range(len(self))[key[0]]
        if len(frames) == 1 and frames[0] in self.damaged:
            return super().__getitem__(key)
        found = [self._cache.peek(frame) for frame in frames]
        if len(frames) == 1 and found[0] is None:
            self.wanted(self, frames[0])
        blank = np.zeros(self.shape[1:], self.dtype)
        return np.stack([(blank if frame is None else frame)[key[1:]] for frame in found])


def _is_a_viewers(key: Any, shape: tuple[int, ...]) -> bool:
    """Tell whether all axes are sliced, and one of them to a single place: as napari asks."""
    return (
        isinstance(key, tuple)
        and len(key) == len(shape)
        and all(isinstance(part, slice) for part in key)
        and any(len(range(n)[part]) == 1 for n, part in zip(shape, key, strict=True))
    )
