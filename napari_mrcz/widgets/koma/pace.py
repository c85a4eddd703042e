"""How fast a job on many stacks goes, and how long the rest will take."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from napari_mrcz.texts import size_text, time_text

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pace"]

# Less is over before it is read.
_SHORTEST_S = 0.5


class Pace:
    """Times what is reported; of many stacks it needs the first, to tell how long others take.

    Parameters
    ----------
    frame_nbytes : int
        Of a frame in memory; 0 if speed is of no interest.
    clock : callable
        Gives seconds.
    """

    def __init__(self, frame_nbytes: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._frame_nbytes = frame_nbytes
        self._clock = clock
        self._total = -1
        self._first = self._done = self._first_stack = 0
        self._start = clock()

    def text(self, stage: str, done: int, total: int) -> str:
        """Say it; what has another total, or begins again, is timed anew."""
        now, stack = self._clock(), _stack_in(stage)
        if total != self._total or done < self._done:
            self._total, self._start, self._first = total, now, done
            self._first_stack = stack
        self._done = done
        elapsed = now - self._start
        if done <= self._first or elapsed <= 0:
            return stage
        rate = (done - self._first) / elapsed
        left = (total - done) / rate
        said = [f"{size_text(rate * self._frame_nbytes)}/s"] if self._frame_nbytes else []
        if left >= _SHORTEST_S and (not stack or stack > self._first_stack):
            said.append(f"{time_text(left)} left")
        return f"{stage}\n{', '.join(said)}" if said else stage


def _stack_in(stage: str) -> int:
    """Give which stack a stage is about; 0 where it is about none."""
    found = re.search(r"stack (\d+) of", stage)
    return int(found[1]) if found else 0
