"""The few frames kept decoded, and the thread that decodes the next ones ahead.

A viewer steps: forwards, backwards, every fifth frame. Two equal steps predict the next, which is
decoded while the current frame is looked at.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from napari_mrcz.format.machine import Abandoned, abandonable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

CACHE_NBYTES = 2**24
"""What is kept of a stack's frames by default, in bytes."""

_FEWEST_KEPT = 3
_FARTHEST_STEP = 16
# How long closing waits for what is being read ahead: on a usual disk that is done by then, and
# the file may be renamed or deleted on Windows, too.
_CLOSING_S = 0.1

Frame = npt.NDArray[Any]


class FrameCache:
    """The frames used last, and those that will be wanted next.

    `read`: returns frame i; called from any thread; `n_frames`, `frame_nbytes`: number of frames,
    and bytes of each; `read_ahead`: decode two frames ahead; `nbytes`: bytes kept, or three frames
    if that is more, those being decoded ahead included; `close`: closes what `read` reads from,
    which a read ahead that `clear` did not wait for may have opened again.
    """

    def __init__(
        self,
        read: Callable[[int], Frame],
        n_frames: int,
        frame_nbytes: int,
        *,
        read_ahead: bool = True,
        nbytes: int = CACHE_NBYTES,
        close: Callable[[], None] | None = None,
    ) -> None:
        self._read = read
        self._close = close
        self._n_frames = n_frames
        self._ahead = _FEWEST_KEPT - 1 if read_ahead else 0
        self._most_kept = max(_FEWEST_KEPT, nbytes // max(1, frame_nbytes))
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Reading] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._last = 0
        self._step = 0
        self._clearings = 0
        self._on_forgotten: weakref.finalize[..., FrameCache] | None = None

    def get(self, frame: int) -> Frame:
        """Return a frame, read-only; decoded here unless it is there, or on its way."""
        while True:
            with self._lock:
                reading = self._kept.get(frame)
                # One that waits in the queue is taken over: here it is decoded at once.
                mine = reading is None or reading.cancel() or _failed(reading)
                if reading is None or mine:
                    reading = self._make_room_for(frame)
                    reading.set_running_or_notify_cancel()
                reading.is_wanted, reading.is_ahead = True, False
                self._kept.move_to_end(frame)
                wanted = self._next(frame)
                clearings = self._clearings
            if mine:
                self._fill(reading, frame)
            self._read_ahead(wanted, clearings)
            with contextlib.suppress(Abandoned):  # just before it was asked for: then here
                return reading.result()

    def peek(self, frame: int) -> Frame | None:
        """Return a frame if it is there, without decoding, waiting, or keeping it longer."""
        with self._lock:
            reading = self._kept.get(frame)
        if reading is None or not reading.done() or reading.cancelled() or _failed(reading):
            return None
        return reading.result()

    def clear(self) -> None:
        """Forget all frames and end the thread.

        What is being read ahead is abandoned, and hardly waited for: a slow disk may hold it up.
        """
        with self._lock:
            pool, self._pool = self._pool, None
            if self._on_forgotten is not None:
                self._on_forgotten.detach()
            running = self._abandon_all_but(())
            self._kept.clear()
            self._clearings += 1
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
            wait(running, _CLOSING_S)

    def _abandon_all_but(self, wanted: Collection[int]) -> list[_Reading]:
        """Drop, with the lock held, what is read or to be read ahead in vain; return the former."""
        running = []
        for frame, reading in list(self._kept.items()):
            if reading.is_ahead and frame not in wanted:
                if reading.running():
                    reading.is_wanted = False
                    running.append(reading)
                elif reading.cancel():
                    del self._kept[frame]
        return running

    def _next(self, frame: int) -> list[int]:
        """Return the frames that will be wanted after this one; abandon, locked, all others."""
        step = frame - self._last
        if step == 0:
            return []
        # A neighbour is a step at once; a longer jump only when it is made twice.
        goes_on = abs(step) == 1 or (step == self._step and abs(step) <= _FARTHEST_STEP)
        self._last, self._step = frame, step
        following = [frame + step * k for k in range(1, self._ahead + 1)] if goes_on else []
        wanted = [f for f in following if 0 <= f < self._n_frames]
        self._abandon_all_but((frame, *wanted))
        return wanted

    def _read_ahead(self, wanted: list[int], clearings: int) -> None:
        for frame in wanted:
            with self._lock:
                if self._clearings != clearings:
                    return  # closed meanwhile: what is read now would open the file again
                if (reading := self._kept.get(frame)) is not None and not _failed(reading):
                    continue
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix="napari-mrcz-ahead")
                    # A stack that is forgotten rather than closed leaves no thread behind.
                    self._on_forgotten = weakref.finalize(
                        self, self._pool.shutdown, wait=False, cancel_futures=True
                    )
                reading = self._make_room_for(frame)
                reading.is_ahead = True
                # A program that ends takes no more work, and the system may start no thread: the
                # frame is then read when asked for.
                try:
                    self._pool.submit(self._fill_ahead, reading, frame, clearings)
                except (RuntimeError, MemoryError):
                    reading.cancel()
                    self._kept.pop(frame, None)
                    return

    def _make_room_for(self, frame: int) -> _Reading:
        """Enter a frame, with the lock held; the ones used longest ago go.

        One that is being decoded takes its memory in any case, and so stays.
        """
        self._kept.pop(frame, None)
        surplus = len(self._kept) - self._most_kept + 1
        oldest_first = [f for f, reading in self._kept.items() if not reading.running()]
        for old in oldest_first[: max(0, surplus)]:
            self._kept.pop(old).cancel()
        reading = self._kept[frame] = _Reading()
        return reading

    def _fill_ahead(self, reading: _Reading, frame: int, clearings: int) -> None:
        if not reading.set_running_or_notify_cancel():
            return
        with abandonable(lambda: reading.is_wanted):
            self._fill(reading, frame)
        with self._lock:
            if isinstance(reading.exception(), Abandoned) and self._kept.get(frame) is reading:
                del self._kept[frame]
        if self._clearings != clearings and self._close is not None:
            self._close()  # closed meanwhile, and perhaps opened again for this

    def _fill(self, reading: _Reading, frame: int) -> None:
        try:
            pixels = self._read(frame)
        except Abandoned:
            reading.set_exception(Abandoned())  # another: a traceback would hold what was read
        except BaseException as error:
            reading.set_exception(error)
        else:
            pixels = pixels.view()
            pixels.flags.writeable = False
            reading.set_result(pixels)


class _Reading(Future[Frame]):
    """A frame that is there, is being read, or waits for it."""

    is_wanted = True
    is_ahead = False


def _failed(future: Future[Frame]) -> bool:
    """Return whether decoding failed, so that it is tried again."""
    return future.done() and not future.cancelled() and future.exception() is not None
