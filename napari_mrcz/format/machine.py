"""What the machine lends this process: processors and memory; and work in threads, in order.

A batch system or a container lends a part of a node. With a thread for each of the node's
processors, all take turns on the few that were lent; and numpy gets room for any array from Linux,
which ends the process when the array is filled.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
import os
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from napari_mrcz.errors import NotEnoughMemory, is_out_of_memory, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

# Smaller arrays are allocated without asking, which takes a tenth of a millisecond.
_ASKED_FROM = 2**26
# Memory that `malloc` may keep when it is given back, as it does what is smaller than 32 MB.
_KEPT_NBYTES = 2**22
# A thread's stack, and the address space that the C library sets aside for what it allocates.
_THREAD_NBYTES = 2**27
# A process's own limits, and the fields of statm that say how much of each is taken.
_LIMITS = {"RLIMIT_AS": 0, "RLIMIT_DATA": 5}

_ROOT = Path("/")


def lent_processors() -> int:
    """Return how many processors this process may use at once: its affinity and its quota."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        allowed = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count()
    return max(1, min(allowed or 1, _quota()))


@functools.cache
def _quota() -> int:
    """Return the processors' worth of time that the control group may take; asked for once."""
    least = math.inf
    for folder in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            least = min(least, int(quota) / int(period))  # "max" is not a number, and no limit
        with contextlib.suppress(OSError, ValueError):
            paths = (folder / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            time, period_us = (int(path.read_text()) for path in paths)
            least = min(least, time / period_us if time > 0 else math.inf)
    return 2**31 if least == math.inf else math.ceil(least)


def available_memory() -> int | None:
    """Return how many bytes this process can still fill; None where the system does not say.

    The least of what the machine has, its control groups allow (both with what they would swap,
    and the copies of files that they would drop) and the process's own limits leave.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (_ROOT / "proc/meminfo").read_text().splitlines()
        machine = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        swap = machine.get("SwapFree", 0)
        left = [machine["MemAvailable"] + swap]
        left += [free + swap for free in _left_in_groups()]
        left += _left_of_own()
        return max(0, min(left))
    return None


def threads_with_room(nbytes: int) -> int:
    """Return for how many threads there is memory, if each fills so many bytes."""
    threads = [left // (_THREAD_NBYTES + nbytes) for left in _left_of_own()]
    if nbytes >= _ASKED_FROM and (left := available_memory()) is not None:
        threads.append(left // nbytes)
    return min(threads, default=2**31)


def _left_in_groups() -> Iterator[int]:
    names = (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    )
    for folder in _groups("memory"):
        for most, used, of_all in names:
            with contextlib.suppress(OSError, ValueError):
                free = int((folder / most).read_text()) - int((folder / used).read_text())
                fields = (folder / "memory.stat").read_text().split()
                for kind in ("active_file", "inactive_file"):
                    free += int(fields[fields.index(f"{of_all}{kind}") + 1])
                yield free


def _left_of_own() -> Iterator[int]:
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        for name, field in _LIMITS.items():
            most = resource.getrlimit(getattr(resource, name))[0]
            if most != resource.RLIM_INFINITY:
                taken = (_ROOT / "proc/self/statm").read_text().split()
                yield most - int(taken[field]) * mmap.PAGESIZE


def _groups(controller: str) -> Iterator[Path]:
    """Return the folders of this process's control groups that may limit it, parents included.

    See `man 7 cgroups`. In a container they may lie where the mount point is, whatever their name.
    """
    with contextlib.suppress(OSError):
        for line in (_ROOT / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            mount = _ROOT / "sys/fs/cgroup"
            if controllers:  # version 1: one tree for each
                if controller not in controllers.split(","):
                    continue
                mount /= controller
            own = mount / name.lstrip("/")
            yield own
            yield from (parent for parent in own.parents if parent.is_relative_to(mount))


def new_buffer(nbytes: int) -> memoryview:
    """Return memory, which goes back to the system when it is no longer used if it is much.

    `malloc` would keep what was allocated in one thread while another one allocates the next frame.
    Raise `MemoryError` if there is not enough.
    """
    import numpy as np

    if nbytes < _KEPT_NBYTES:
        return np.empty(nbytes, np.uint8).data  # not bytes, which would be set to 0 first
    try:
        if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
            return memoryview(mmap.mmap(-1, nbytes))
        memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise MemoryError(f"unable to allocate {nbytes} bytes") from None
    with contextlib.suppress(AttributeError, OSError):  # Linux alone; filled twice as fast then
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


class SpareMemory:
    """Memory of up to `most` arrays that are gone, for the next ones: new memory takes time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: list[memoryview] = []

    def array(self, nbytes: int) -> npt.NDArray[Any]:
        """Return an array of bytes that is not filled; its memory comes back when it is gone.

        Raise `MemoryError` if there is not enough.
        """
        import numpy as np

        try:
            memory = self._free.pop()
        except IndexError:
            memory = memoryview(b"")
        if len(memory) < nbytes:
            del memory
            memory = new_buffer(nbytes)
        return np.asarray(_Lease(memory, nbytes, self._give_back))

    def clear(self) -> None:
        """Return what is kept to the system."""
        self._free.clear()

    def _give_back(self, memory: memoryview) -> None:
        if len(self._free) < self._most:
            self._free.append(memory)


class _Lease:
    """What an array and its views hold as long as they use some memory."""

    def __init__(
        self, memory: memoryview, nbytes: int, give_back: Callable[[memoryview], None]
    ) -> None:
        import numpy as np

        self._memory, self._give_back = memory, give_back
        array = np.frombuffer(memory, np.uint8, nbytes)
        self.__array_interface__ = array.__array_interface__

    def __del__(self) -> None:
        self._give_back(self._memory)


def give_back() -> None:
    """Return memory that `malloc` keeps to the system, where it can."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # the GNU C library alone can
        ctypes.CDLL(None).malloc_trim(0)


def new_array(
    shape: tuple[int, ...], dtype: npt.DTypeLike, path: str | None, what: str, advice: str
) -> npt.NDArray[Any]:
    """Return an array that is not filled yet, of which all fits into memory.

    `shape`, `dtype`: as for `numpy.empty`; `path`, `what`, `advice`: for the error: the file, what
    the array holds, what else can be done. Raise `NotEnoughMemory` if there is not enough, before
    any of it is filled.
    """
    import numpy as np  # not before: the command line asks for processors without it

    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    left = available_memory() if nbytes >= _ASKED_FROM else None
    if left is None or nbytes <= left:
        with contextlib.suppress(MemoryError):
            return np.empty(shape, dtype)
    free = "" if left is None else f", where {size_text(left)} are free"
    raise NotEnoughMemory(path, f"{what} of {size_text(nbytes)}{free}", advice=advice)


Item = TypeVar("Item")
Result = TypeVar("Result")

_limit = 0


def processors() -> int:
    """Return how many threads a computation takes: the limit set, or one per processor lent."""
    return _limit or lent_processors()


def limit_threads(threads: int) -> None:
    """Limit the threads of a computation, where processes share processors; 0 for no limit."""
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

    `work` is called in one of the threads, and again if it fails for lack of memory; `items` are
    taken one by one, in the thread that takes the results; `threads`: how many there are at most;
    `nbytes`: memory that the work on one item takes, where it is much. Results come in the order of
    the items, or what `work` raised. When the context ends, early or by an error, nothing more is
    begun and the threads end.
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


def reported(
    items: Iterable[Item], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[Item]:
    """Yield items; call `progress` with (items done, total) after each, if it is given."""
    for done, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(done, total)


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
    """What is being read is not wanted any more. Not an error: what handles errors lets it pass."""


class _Wanted(threading.local):
    check: Callable[[], bool] | None = None


_wanted = _Wanted()


@contextmanager
def abandonable(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Run a block whose reading ends with `Abandoned` as soon as it is not wanted any more.

    `is_wanted`: asked between two pieces of a long reading, in this thread or those of `in_order`.
    """
    before, _wanted.check = _wanted.check, is_wanted
    try:
        yield
    finally:
        _wanted.check = before


def go_on_if_wanted() -> bool:
    """Return whether this thread's reading may be abandoned, and so is to be done in pieces.

    Raise `Abandoned` if it is not wanted any more.
    """
    if _wanted.check is None:
        return False
    if not _wanted.check():
        raise Abandoned
    return True


# Work that outlives the main thread -------------------------------------------------------------

_running: set[threading.Thread] = set()


def start_to_the_end(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread that is waited for when the program ends, and may start others until then.

    `work`: called in the thread; raises nothing; `name`: the thread's name.
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
# under way still needs; `concurrent.futures` has no public way to be called before. It was imported
# above, so that this, registered later, is called earlier.
threading._register_atexit(_wait_for_all)  # type: ignore[attr-defined]
