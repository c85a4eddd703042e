"""What this process may use of the machine: processors and memory, as far as the system says.

A batch system or a container lends a part of a node. What the node has is then of no use: a thread
for each of its processors takes turns with all others on the few that were lent, and numpy is
given room for an array (Linux promises any amount) that ends the process when it is filled.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import NotEnoughMemory, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

# Smaller arrays are allocated without asking, which takes a tenth of a millisecond.
_ASKED_FROM = 2**26
# Memory that `malloc` may keep when it is given back, as it does what is smaller than 32 MB.
_KEPT_NBYTES = 2**22
# A thread's stack, and the address space that the C library sets aside for what it allocates.
_THREAD_NBYTES = 2**27
# An own limit of a process, and the memory of its kind that it has taken: fields of statm.
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
            least = min(least, int(quota) / int(period))  # "max" is no number, and no limit
        with contextlib.suppress(OSError, ValueError):
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
            least = min(least, int(quota) / int(period) if int(quota) > 0 else math.inf)
    return 2**31 if least == math.inf else math.ceil(least)


def available_memory() -> int | None:
    """Return how many bytes this process can still fill; None where the system does not say.

    The least of what the machine has, its control groups allow (both with what they would swap,
    and the files' copies that they would drop) and the process's own limits leave.
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
    """Return memory that goes back to the system when it is no more used, where it is much.

    `malloc` keeps what is allocated in one thread and then in another one: a frame's time of it.

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
    """Memory of arrays that are gone, for the next ones: new memory takes the system its time.

    `most`: how many pieces are kept.
    """

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
    """Return memory that `malloc` keeps, for its next user, to the system, where it can."""
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
