"""A scheduler that may be lost: what is waited for from it is waited for no longer than it answers.

dask waits without end for a scheduler that has gone, or hangs, while results are due.
"""

from __future__ import annotations

import logging
import weakref
from asyncio import CancelledError
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 15.0
"""Seconds in which a scheduler answers."""
# After so many seconds without news it is asked; so many are given to saying farewell.
_QUIET_S, _FAREWELL_S = 5.0, 3.0
# What dask raises where they are gone for good.
_LOST = ("CancelledError", "FutureCancelledError", "CommClosedError", "ClosedClientError")
_LOGS = ("asyncio", "tornado.application", "distributed.client", "distributed.core")
# Those that were lost are not waited for again.
_lost: weakref.WeakSet[Any] = weakref.WeakSet()


class SchedulerLost(ConnectionError):
    """The scheduler of a cluster, or all its workers, cannot be reached any more."""

    def __init__(self) -> None:
        super().__init__(
            "the scheduler or its workers were lost; start them again, and this for what is left"
        )


def watched(client: Any, work: Callable[[], Any]) -> Any:
    """Do something that a scheduler is needed for.

    Raises
    ------
    SchedulerLost
        If it fails in whatever way because the scheduler was lost.
    """
    if client in _lost:
        raise SchedulerLost
    try:
        return work()
    except Exception as error:
        # Whatever dask calls it where it is lost.
        ask(client)
        if type(error).__name__ in _LOST:
            raise SchedulerLost from error
        raise


def ask(client: Any) -> int:
    """Return how many threads a cluster has.

    Raises
    ------
    SchedulerLost
        If the scheduler does not answer.
    """
    if client in _lost:
        raise SchedulerLost
    try:
        threads: dict[str, int] = client.sync(
            client.scheduler.ncores, workers=None, callback_timeout=PATIENCE_S
        )
    except Exception as error:
        _give_up(client)
        raise SchedulerLost from error
    return sum(threads.values())


def next_of(client: Any, done: SimpleQueue[Any]) -> Any:
    """Return the next of the futures that are put into a queue when they are done.

    Raises
    ------
    SchedulerLost
        If the scheduler is.
    """
    while True:
        try:
            return done.get(timeout=_QUIET_S)
        except Empty:
            ask(client)


def result_of(client: Any, future: Any) -> Any:
    """Wait for a result.

    Raises
    ------
    SchedulerLost
        If the scheduler is; otherwise what the work raised.
    """

    def wait() -> Any:
        while True:
            try:
                return future.result(timeout=_QUIET_S)
            except TimeoutError:
                if future.done() and future.status != "finished":
                    raise
                ask(client)

    return watched(client, wait)


def _give_up(client: Any) -> None:
    """Wait for a client's scheduler no more, and leave out of the log what dask trips over then."""
    _lost.add(client)
    for name in _LOGS:
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, OSError | CancelledError) and type(error).__name__ not in _LOST


def close(client: Any) -> None:
    """Close a client, whether its scheduler answers or not."""
    with suppress(Exception):  # nobody is there to be told
        client.close(timeout=0.1 if client in _lost else _FAREWELL_S)
