"""A watch on the window's own thread: how long it is kept from its events, and by what."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import QTimer

_TICK_MS = 5


@dataclass(frozen=True)
class Gaps:
    """Times between ticks of a timer, in seconds.

    Attributes
    ----------
    work
        Processor time that the window's thread itself has used from each tick to the next.
    wait
        Time on the clock: grows with all that others do on the machine.
    """

    work: np.ndarray
    wait: np.ndarray


class EventLoopWatch:
    """Ticks as long as it is entered; `gaps` then tells of them.

    Meanwhile Python collects no garbage, which it would do in any gap it likes.
    """

    def __init__(self) -> None:
        self._timer = QTimer()
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._ticks: list[tuple[float, float]] = []

    def __enter__(self) -> EventLoopWatch:
        gc.collect()
        gc.disable()
        self._tick()
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.stop()
        self._tick()
        gc.enable()

    @property
    def gaps(self) -> Gaps:
        """What was measured."""
        work, wait = np.diff(self._ticks, axis=0).T
        return Gaps(work, wait)

    def _tick(self) -> None:
        self._ticks.append((time.thread_time(), time.perf_counter()))
