"""How fast a job on many stacks goes, and how long the rest will take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from napari_mrcz.errors import size_text, time_text

if TYPE_CHECKING:
    from collections.abc import Callable

# Less is over before it is read.
_SHORTEST_S = 0.5


class Pace:
    """Times what is reported; it needs a stack's share of it, to tell how long the rest takes.

    Parameters
    ----------
    n_stacks : int
        That a job goes through.
    frame_nbytes : int
        Of a frame in memory; 0 if speed is of no interest.
    clock : callable
        Gives seconds.
    """

    def __init__(
        self,
        n_stacks: int = 1,
        frame_nbytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._n_stacks = n_stacks
        self._frame_nbytes = frame_nbytes
        self._clock = clock
        self._total = -1
        self._first = self._done = 0
        self._start = clock()

    def text(self, stage: str, done: int, total: int) -> str:
        """Return it as text; what has another total, or begins again, is timed anew."""
        now = self._clock()
        if total != self._total or done < self._done:
            self._total, self._start, self._first = total, now, done
        self._done = done
        elapsed = now - self._start
        timed = done - self._first
        if timed <= 0 or elapsed <= 0:
            return stage
        rate = timed / elapsed
        left = (total - done) / rate
        said = [f"{size_text(rate * self._frame_nbytes)}/s"] if self._frame_nbytes else []
        if left >= _SHORTEST_S and timed * self._n_stacks >= total:
            said.append(f"{time_text(left)} left")
        return f"{stage}\n{', '.join(said)}" if said else stage
