"""The few frames kept decoded, and the thread that decodes the next ones before they are asked for.

A viewer steps: forwards, backwards, every fifth frame. Two steps alike announce the next, which is
decoded while the person still looks at this one.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CACHE_NBYTES", "FrameCache"]

CACHE_NBYTES = 2**24
"""What is kept of a stack's frames by default, in bytes."""

_FEWEST_KEPT = 3
_FARTHEST_STEP = 16

Frame = npt.NDArray[Any]


class FrameCache:
    """The frames used last, and those that will be wanted next.

    Parameters
    ----------
    read : callable
        Gives frame i; called from any thread.
    n_frames : int
        Frames there are.
    frame_nbytes : int
        Size of one in bytes.
    read_ahead : bool
        Decode two frames ahead.
    nbytes : int
        What is kept, or three frames if that is more, those being decoded ahead included.
    """

    def __init__(
        self,
        read: Callable[[int], Frame],
        n_frames: int,
        frame_nbytes: int,
        *,
        read_ahead: bool = True,
        nbytes: int = CACHE_NBYTES,
    ) -> None:
        self._read = read
        self._n_frames = n_frames
        self._ahead = _FEWEST_KEPT - 1 if read_ahead else 0
        self._most_kept = max(_FEWEST_KEPT, nbytes // max(1, frame_nbytes))
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[Frame]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._last = 0
        self._step = 0
        self._clearings = 0
        self._on_forgotten: weakref.finalize[..., FrameCache] | None = None

    def get(self, frame: int) -> Frame:
        """Give a frame, read-only; decoded here unless it is there, or on its way."""
        with self._lock:
            future = self._kept.get(frame)
            # One that waits in the queue is taken over: here it is decoded at once.
            mine = future is None or future.cancel() or _failed(future)
            if future is None or mine:
                future = self._make_room_for(frame)
                future.set_running_or_notify_cancel()
            self._kept.move_to_end(frame)
            wanted = self._next(frame)
            clearings = self._clearings
        if mine:
            self._fill(future, frame)
        self._read_ahead(wanted, clearings)
        return future.result()

    def peek(self, frame: int) -> Frame | None:
        """Give a frame if it is there, without decoding, waiting, or keeping it longer."""
        with self._lock:
            future = self._kept.get(frame)
        if future is None or not future.done() or future.cancelled() or _failed(future):
            return None
        return future.result()

    def clear(self) -> None:
        """Forget all frames and end the thread."""
        with self._lock:
            pool, self._pool = self._pool, None
            if self._on_forgotten is not None:
                self._on_forgotten.detach()
            self._kept.clear()
            self._clearings += 1
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _next(self, frame: int) -> list[int]:
        """Say which frames will be wanted after this one."""
        step = frame - self._last
        if step == 0:
            return []
        # A neighbour is a step at once; a longer jump only when it is made twice.
        goes_on = abs(step) == 1 or (step == self._step and abs(step) <= _FARTHEST_STEP)
        self._last, self._step = frame, step
        if not goes_on:
            return []
        following = (frame + step * k for k in range(1, self._ahead + 1))
        return [f for f in following if 0 <= f < self._n_frames]

    def _read_ahead(self, wanted: list[int], clearings: int) -> None:
        for frame in wanted:
            with self._lock:
                if self._clearings != clearings:
                    return  # closed meanwhile: what is read now would open the file again
                if frame in self._kept:
                    continue
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix="napari-mrcz-ahead")
                    # A stack that is forgotten rather than closed leaves no thread behind.
                    self._on_forgotten = weakref.finalize(
                        self, self._pool.shutdown, wait=False, cancel_futures=True
                    )
                future = self._make_room_for(frame)
                # A program that ends takes no more work; the frame is then read when asked for.
                with contextlib.suppress(RuntimeError):
                    self._pool.submit(self._fill_unless_cancelled, future, frame)

    def _make_room_for(self, frame: int) -> Future[Frame]:
        """Enter a frame, with the lock held; the ones used longest ago go.

        One that is being decoded takes its memory in any case, and so stays.
        """
        self._kept.pop(frame, None)
        surplus = len(self._kept) - self._most_kept + 1
        oldest_first = [f for f, future in self._kept.items() if not future.running()]
        for old in oldest_first[: max(0, surplus)]:
            self._kept.pop(old).cancel()
        future: Future[Frame] = Future()
        self._kept[frame] = future
        return future

    def _fill_unless_cancelled(self, future: Future[Frame], frame: int) -> None:
        if future.set_running_or_notify_cancel():
            self._fill(future, frame)

    def _fill(self, future: Future[Frame], frame: int) -> None:
        try:
            pixels = self._read(frame)
        except BaseException as error:
            future.set_exception(error)
        else:
            pixels = pixels.view()
            pixels.flags.writeable = False
            future.set_result(pixels)


def _failed(future: Future[Frame]) -> bool:
    """Tell whether decoding failed, so that it is tried again."""
    return future.done() and not future.cancelled() and future.exception() is not None
