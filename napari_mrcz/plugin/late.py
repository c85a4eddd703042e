"""Frames that take long, at a URL or summed: the window goes on, and shows them when they come."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.errors import error_text, warn
from napari_mrcz.plugin.layers import ShownStack

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from napari.layers import Image


class LateStack(ShownStack):
    """A stack that never keeps the window waiting for a frame.

    Asked as a viewer asks, in the window's thread, a frame that is not there yet is all 0, and
    `wanted` is called; across frames, where axes are turned, those that are there are shown.
    Other threads, single indices (``data[3]``) and whatever else computes with the frames wait as
    with any stack.

    `wanted`: called with (this stack, index) in the window's thread: has the frame computed in
    another and the layer drawn again, or returns False to have it waited for. None to wait always.
    """

    wanted: Callable[[LateStack, int], bool | None] | None = None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index as `Stack` does; to a viewer, what is not there yet is 0."""
        in_window = threading.current_thread() is threading.main_thread()
        if self.wanted is None or not in_window or not _is_a_viewers(key, self.shape):
            return super().__getitem__(key)
        frames = range(len(self))[key[0]]
        if not frames:
            return super().__getitem__(key)
        found = [self._cache.peek(frame) for frame in frames]
        if len(frames) == 1:
            # What is there is taken as usual, which has the next ones read ahead.
            waits = frames[0] in self.damaged or found[0] is not None
            if waits or self.wanted(self, frames[0]) is False:
                return super().__getitem__(key)
        blank = np.zeros(self.shape[1:], self.dtype)
        return np.stack([(blank if frame is None else frame)[key[1:]] for frame in found])


def _is_a_viewers(key: Any, shape: tuple[int, ...]) -> bool:
    """Return whether all axes are sliced, and one of them to a single place: as napari asks."""
    return (
        isinstance(key, tuple)
        and len(key) == len(shape)
        and all(isinstance(part, slice) for part in key)
        and any(len(range(n)[part]) == 1 for n, part in zip(shape, key, strict=True))
    )


class FrameFetcher:
    """Reads the frame that a layer wanted last, in a thread, and has the layer drawn again.

    `layer`: of a `LateStack`.
    """

    def __init__(self, layer: Image) -> None:
        self._layer = weakref.ref(layer)
        self._lock = threading.Lock()
        self._wanted: int | None = None
        self._is_running = False

    def __call__(self, stack: LateStack, frame: int) -> bool:
        """Fetch a frame; return False in a script, which waits for it."""
        if not in_event_loop():
            return False
        with self._lock:
            self._wanted = frame
            if not self._is_running:
                self._is_running = True
                work = threading.Thread(
                    target=self._run, args=(stack,), name="napari-mrcz-late", daemon=True
                )
                work.start()
        return True

    def _run(self, stack: LateStack) -> None:
        while True:
            with self._lock:
                frame, self._wanted = self._wanted, None
                if frame is None:
                    self._is_running = False
                    return
            try:
                stack._cache.get(frame)
            except Exception as error:  # whatever else fails, others are still to be read
                warn(f"{error_text(error)} The frame is shown blank until it is looked at again")
            else:
                self._draw()

    def _draw(self) -> None:
        from superqt.utils import ensure_main_thread

        if (layer := self._layer()) is not None:
            ensure_main_thread(layer.refresh)(extent=False)


def in_event_loop() -> bool:
    """Return whether this thread is answering the user, rather than running a script."""
    from qtpy.QtCore import QThread  # not above: files are opened without Qt, too

    thread = QThread.currentThread()
    return thread is not None and thread.loopLevel() > 0
