"""Threads: how many; the same done to many things, in order; work that outlives the main thread."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["in_order", "limit_threads", "processors", "start_to_the_end", "thread_limit"]

Item = TypeVar("Item")
Result = TypeVar("Result")


_limit = 0


def processors() -> int:
    """Give how many threads a computation takes: one a processor, or what it was limited to."""
    return _limit or os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Let computations of this process take so many threads from now on; 0 for one a processor.

    For one of many processes that share a machine's processors.
    """
    global _limit
    _limit = threads


def thread_limit() -> int:
    """Return the limit that was set; 0 for none."""
    return _limit


@contextmanager
def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, name: str
) -> Iterator[Iterator[Result]]:
    """Give an iterator of ``work(item)``; at most `threads` + 1 results are waited for at a time.

    An executor's own ``map`` takes all items at once: where there are hundreds of thousands of
    frames, those that wait would take more memory than their pixels. One thread is the caller's:
    a process that may take one processor takes no second one.

    Parameters
    ----------
    work : callable
        Called in one of the threads.
    items : iterable
        Taken one by one, in the thread that takes the results.
    threads : int
        How many, at least 1.
    name : str
        What the threads are called.

    Yields
    ------
    iterator
        Results in the order of the items, or what `work` raised. When the context ends, early or
        by an error, nothing more is begun and the threads end.
    """
    if threads == 1:
        yield map(work, items)
        return
    pending: deque[Future[Result]] = deque()

    def results(pool: ThreadPoolExecutor) -> Iterator[Result]:
        for item in items:
            pending.append(pool.submit(work, item))
            del item  # the work is the one to hold it, as long as it needs it
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            yield results(pool)
        finally:
            for future in pending:
                future.cancel()


_running: set[threading.Thread] = set()


def start_to_the_end(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread that a program which ends waits for, and lets use executors until then.

    Parameters
    ----------
    work : callable
        Called in the thread; raises nothing.
    name : str
        What the thread is called.
    """

    def run() -> None:
        try:
            work()
        finally:
            _running.discard(threading.current_thread())

    thread = threading.Thread(target=run, name=name)
    _running.add(thread)
    thread.start()
    return thread


def _wait_for_all() -> None:
    for thread in list(_running):
        thread.join()


# Python joins threads only after it has closed all executors to new work, which a save that is
# under way still needs; `concurrent.futures` has no public way to be told before. It was imported
# above, so that this, registered later, is called earlier.
threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]
