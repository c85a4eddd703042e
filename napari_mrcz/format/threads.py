"""Threads: how many; the same done to many things, in order; work that outlives the main thread."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from napari_mrcz.errors import is_out_of_memory
from napari_mrcz.format.memory import lent_processors, threads_with_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

_limit = 0


def processors() -> int:
    """Return how many threads a computation takes: one per processor lent, or the limit set."""
    return _limit or lent_processors()


def limit_threads(threads: int) -> None:
    """Limit the threads of a computation of this process; 0 for one per processor.

    For one of many processes that share a machine's processors.
    """
    global _limit
    _limit = threads


def thread_limit() -> int:
    """Return the limit that was set; 0 for none."""
    return _limit


@contextmanager
def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    name: str,
    *,
    nbytes: int = 0,
) -> Iterator[Iterator[Result]]:
    """Run ``work(item)`` in threads; at most `threads` + 1 results wait to be taken at a time.

    An executor's own ``map`` takes all items at once: where there are hundreds of thousands of
    frames, those that wait would take more memory than their pixels. One thread is the caller's:
    a process that may take one processor takes no second one.

    Memory that is short ends no work that can be done with less: no more threads are started than
    `nbytes` each leave room for, or than the system starts; and an item for which there was not
    enough memory is done again, as are all after it, in the caller's thread when the others are
    idle.

    `work` is called in one of the threads, and can be called again if it fails for lack of memory;
    `items` are taken one by one, in the thread that takes the results; `threads` is how many there
    are at most, at least 1; `nbytes` the memory that the work on one item takes, where it is much.
    Results come in the order of the items, or what `work` raised. When the context ends, early or
    by an error, nothing more is begun and the threads end.
    """
    threads = min(threads, threads_with_room(nbytes)) if threads > 1 else threads
    if threads <= 1:
        yield map(work, items)
        return
    crew = _Crew(work, threads, name)
    try:
        yield crew.results(items)
    finally:
        crew.end()


class _Call(Future[Result], Generic[Item, Result]):
    """One item, until it is worked on, and its result; the item again if memory was short."""

    def __init__(self, item: Item) -> None:
        super().__init__()
        self.items = [item]


class _Crew(Generic[Item, Result]):
    """Threads that take calls from a queue; started one by one, as there are calls."""

    def __init__(self, work: Callable[[Item], Result], threads: int, name: str) -> None:
        self._work = work
        self._most = threads
        self._name = name
        self._wanted = _wanted.check
        self._queue: SimpleQueue[_Call[Item, Result] | None] = SimpleQueue()
        self._pending: deque[_Call[Item, Result]] = deque()
        self._threads: list[threading.Thread] = []
        self._is_short = False

    def results(self, items: Iterable[Item]) -> Iterator[Result]:
        """Yield the results in order."""
        for item in items:
            self._start_another()
            if self._is_short or not self._threads:
                while self._pending:
                    yield self._next()
                yield self._work(item)
                continue
            call: _Call[Item, Result] = _Call(item)
            del item  # the work is the one to hold it, as long as it needs it
            self._pending.append(call)
            self._queue.put(call)
            del call
            if len(self._pending) > self._most:
                yield self._next()
        while self._pending:
            yield self._next()

    def end(self) -> None:
        """Cancel what has not begun, and wait for the threads to end."""
        for call in self._pending:
            call.cancel()
        self._queue.put(None)  # each thread hands it on
        for thread in self._threads:
            if thread.ident is not None:  # an interrupt may have come before it was started
                thread.join()

    def _next(self) -> Result:
        call = self._pending.popleft()
        try:
            return call.result()
        except BaseException as error:
            if not call.items or not is_out_of_memory(error):
                raise
        self._is_short = True
        for other in self._pending:  # what they hold is free when they are done
            other.exception()
        return self._work(call.items.pop())

    def _start_another(self) -> None:
        if len(self._threads) == self._most:
            return
        number = len(self._threads)
        thread = threading.Thread(target=self._run, name=f"{self._name}_{number}", daemon=True)
        # Listed before: an interrupt that comes while it is started leaves none to run on.
        self._threads.append(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # the system has no more: on with those there are
            self._threads.pop()
            self._most = number

    def _run(self) -> None:
        _wanted.check = self._wanted
        while (call := self._queue.get()) is not None:
            if call.set_running_or_notify_cancel():
                item = call.items.pop()
                try:
                    result = self._work(item)
                except BaseException as error:
                    if is_out_of_memory(error):
                        call.items.append(item)
                        _forget_frames(error)
                    call.set_exception(error)
                    del error
                else:
                    call.set_result(result)
                    del result
                del item
            del call
        self._queue.put(None)


def _forget_frames(error: BaseException | None) -> None:
    """Free what the work had allocated, which the tracebacks hold."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


# Reading that nobody may want any more ----------------------------------------------------------


class Abandoned(BaseException):
    """What is being read is not wanted any more. Not an error: what handles those lets it pass."""


class _Wanted(threading.local):
    check: Callable[[], bool] | None = None


_wanted = _Wanted()


@contextmanager
def abandonable(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Run a block whose reading ends with `Abandoned` as soon as it is not wanted any more.

    `is_wanted`: asked by whatever reads for long, between two pieces, in this thread or those of
    `in_order`.
    """
    before, _wanted.check = _wanted.check, is_wanted
    try:
        yield
    finally:
        _wanted.check = before


def go_on_if_wanted() -> bool:
    """Return whether this thread's reading may be abandoned, and so is to be done in pieces.

    Raise `Abandoned` if it does.
    """
    if _wanted.check is None:
        return False
    if not _wanted.check():
        raise Abandoned
    return True


# Work that outlives the main thread -------------------------------------------------------------

_running: set[threading.Thread] = set()


def start_to_the_end(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread that a program which ends waits for, and lets use threads until then.

    `work`: called in the thread; raises nothing; `name`: what the thread is called.
    """

    def run() -> None:
        try:
            work()
        finally:
            _running.discard(threading.current_thread())

    thread = threading.Thread(target=run, name=name)
    _running.add(thread)
    try:
        thread.start()
    except BaseException:
        _running.discard(thread)
        raise
    return thread


def _wait_for_all() -> None:
    for thread in list(_running):
        thread.join()


# Python joins threads only after it has closed all executors to new work, which a save that is
# under way still needs; `concurrent.futures` has no public way to be told before. It was imported
# above, so that this, registered later, is called earlier.
threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]
