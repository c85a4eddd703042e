"""Tasks, one a file, run here or on dask workers; each ends in an `Outcome`, come what may."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from napari_mrcz.batch.outcome import Outcome
from napari_mrcz.batch.worker import untold
from napari_mrcz.errors import MrczError
from napari_mrcz.texts import failure_text
from napari_mrcz.threads import limit_threads

if sys.platform != "win32":
    from multiprocessing import resource_tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_mrcz.batch.task import Report, Task

__all__ = ["attempt", "cluster", "run_all"]

# A worker that died (memory, a node switched off) takes its task with it; another tries again.
_ATTEMPTS = 3
# What dask raises where they are gone for good.
_LOST = ("CancelledError", "FutureCancelledError", "CommClosedError", "ClosedClientError")
# Of workers here. dask has them give every large array back to the system at once and take the next
# one page by page, which took a third of their time; and it looks at what they do each 10 ms, and
# whether they, and what watches over them, are still quick each 20 ms.
_OF_WORKERS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 256 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
# Of whoever sends tasks: an average is as large as a frame, which is no reason for a warning.
_OF_SENDERS = {"distributed.admin.large-graph-warning-threshold": "1 PiB"}
# Tasks sent ahead, for each thread of the workers.
_QUEUED = 2


def run_all(
    tasks: Iterable[Task],
    *,
    client: Any = None,
    report: Callable[[Task, str, int, int], None] | None = None,
) -> Iterator[Outcome]:
    """Run tasks; give each one's outcome when it is there.

    Parameters
    ----------
    tasks : iterable of Task
        Independent of each other; taken as they are needed.
    client : dask.distributed.Client, optional
        Where to run them (see `cluster`); here, one after the other, without.
    report : callable, optional
        Called with (task, stage, frames done, frames) while a task runs here.

    Yields
    ------
    Outcome
        In the order of the tasks here, in that of their ends on a cluster.
    """
    if client is None:
        for task in tasks:
            yield attempt(task, _about(task, report))
        return
    from dask.distributed import as_completed

    # No more than keep the workers busy: what a task carries (a sum, say) waits where it is made.
    waiting = iter(tasks)
    try:
        workers = max(1, sum(client.nthreads().values()))
    except Exception:  # whatever dask calls it, the scheduler was lost before
        yield from (_lost(task) for task in waiting)
        return
    first = list(islice(waiting, workers * _QUEUED))
    submitted = {_submit(client, task): task for task in first}
    completed = as_completed(list(submitted), loop=client.loop)
    for future in completed:
        task = submitted.pop(future)
        try:
            outcome = future.result()
        except Exception as error:  # the workers themselves failed
            outcome = _undone(task, error)
        future.release()
        yield outcome
        for another in islice(waiting, 1):
            try:
                more = _submit(client, another)
            except Exception as error:  # the scheduler is lost, and with it all that wait
                yield from (_undone(task, error) for task in (another, *waiting))
                break
            submitted[more] = another
            completed.add(more)


def _undone(task: Task, error: Exception) -> Outcome:
    """Give the outcome of a task that no worker did."""
    if type(error).__name__ in _LOST:
        return _lost(task)
    return Outcome(task.source, error=f"{task.source}: {type(error).__name__}: {error}")


def _lost(task: Task) -> Outcome:
    said = "the scheduler or its workers were lost; start them again, and this for what is left"
    return Outcome(task.source, error=f"{task.source}: {said}")


def _submit(client: Any, task: Task) -> Any:
    if getattr(task, "overwrite", True) is False and not os.path.exists(task.target):  # type: ignore[attr-defined]
        # A worker that takes over from one that died may find its result.
        task = replace(task, overwrite=True)  # type: ignore[type-var]
    return client.submit(_attempt_alone, task, retries=_ATTEMPTS, pure=False)


def _attempt_alone(task: Task) -> Outcome:
    """Run a task on a worker, which is one of many and takes one processor."""
    limit_threads(1)
    return attempt(task)


def attempt(task: Task, report: Report | None = None) -> Outcome:
    """Run a task; what is wrong with its file becomes an outcome."""
    start = time.perf_counter()
    try:
        return task(report)
    except MrczError as error:
        failed = Outcome(task.source, error=str(error))
    except (OSError, ValueError, ArithmeticError, ImportError, MemoryError) as error:
        said = failure_text(error).removeprefix(f"{task.source}: ")
        failed = Outcome(task.source, error=f"{task.source}: {said}")
    return replace(failed, seconds=time.perf_counter() - start)


@contextmanager
def cluster(scheduler: str = "", workers: int = 0) -> Iterator[Any]:
    """Give a client of a dask cluster, or None where nothing is asked for.

    Parameters
    ----------
    scheduler : str
        Address of one that runs already.
    workers : int
        Processes to start here, otherwise.

    Raises
    ------
    MrczError
        If dask.distributed is not installed, or the scheduler has no address or does not answer.
    """
    if not scheduler and not workers:
        yield None
        return
    try:
        import dask
        from dask.distributed import Client, LocalCluster
        from distributed.comm.addressing import resolve_address
    except ImportError as error:
        advice = "pip install 'napari-mrcz[distributed]'"
        raise MrczError(None, "dask.distributed is not installed", advice=advice) from error
    # Never the default one: other work with dask in this process would go to it, and fail where
    # its scheduler is lost.
    if scheduler:
        try:
            resolve_address(scheduler)  # a client of what is no address waits long, then complains
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except ValueError as error:
            advice = "Write it as tcp://name:8786"
            raise MrczError(None, f"{scheduler!r} is no address: {error}", advice=advice) from error
        except OSError as error:
            advice = "Start one with: dask scheduler"
            raise MrczError(None, f"no scheduler answers at {scheduler}", advice=advice) from error
        with untold(), client, dask.config.set(_OF_SENDERS):
            yield client
        return
    with ExitStack() as closing:
        closing.enter_context(untold())
        with _interrupts_waiting():
            with dask.config.set(_OF_WORKERS):
                # A thread each: one task keeps all its worker's processors busy by itself.
                local = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    # Any port: the usual one is taken where another cluster runs, which warns.
                    dashboard_address="127.0.0.1:0",
                    preload=["napari_mrcz.batch.worker"],
                )
            closing.enter_context(local)
            # On one machine results come straight from the workers, not by way of the scheduler.
            client = Client(local, set_as_default=False, direct_to_workers=True)
            closing.enter_context(client)
        closing.enter_context(dask.config.set(_OF_SENDERS))
        yield client


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Let Ctrl-C wait until a cluster can be closed; processes begun meanwhile never hear of it.

    Half a cluster cannot be closed. Processes that have yet to load what would make them ignore
    Ctrl-C, which a terminal sends to all, would end with a traceback each.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with _sigint_blocked():
            yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Have threads begun meanwhile, and the processes that those begin, not hear of Ctrl-C."""
    if sys.platform == "win32":
        yield
        return
    # Begun by the first process that is spawned otherwise, and then it lets Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _about(task: Task, report: Callable[[Task, str, int, int], None] | None) -> Report | None:
    if report is None:
        return None
    return lambda stage, done, total: report(task, stage, done, total)
