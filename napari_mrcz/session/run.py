"""Run one task per file, here or on dask workers; every task returns an `Outcome`.

dask waits forever for a scheduler that is gone, or hangs: here nothing is waited for any longer
than the scheduler answers. Workers that are started here are set up for
images, and Ctrl-C ends them without a message of dask's.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import weakref
from asyncio import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, collected_warnings, failure_text, is_out_of_memory
from napari_mrcz.format.machine import limit_threads, thread_limit
from napari_mrcz.session.tasks import Outcome, Report, Task

if sys.platform != "win32":
    from multiprocessing import resource_tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# A worker that died (memory, a node switched off) takes its task with it; another tries again.
_ATTEMPTS = 3
# Errors of a task, other than `MrczError`, that concern its file.
_FAILURES = (OSError, ValueError, ArithmeticError, ImportError)
# Tasks sent ahead, for each thread of the workers.
_QUEUED = 2


def run_all(
    tasks: Iterable[Task], *, client: Any = None, report: Report | None = None
) -> Iterator[Outcome]:
    """Run tasks and return the outcome of each as it comes.

    `tasks`: independent of each other; taken as they are needed; `client`: where to run them (see
    `cluster`); here, one after the other, without; `report`: called with (file and stage, frames
    done, frames) while a task runs here. The result: in the order of the tasks here, in that of
    their ends on a cluster.
    """
    if client is None:
        for task in tasks:
            yield attempt(task, _about(task, report))
        return
    # No more than keep the workers busy: what a task carries (a sum, say) waits where it is made.
    waiting = iter(tasks)
    submitted: dict[Any, Task] = {}
    unsent: list[Task] = []
    done: SimpleQueue[Any] = SimpleQueue()

    def send(n: int) -> None:
        for task in islice(waiting, n):
            unsent.append(task)
            future = _submit(client, task)
            submitted[future] = unsent.pop()
            future.add_done_callback(done.put)

    try:
        send(max(1, ask(client)) * _QUEUED)
        while submitted:
            future = _next_of(client, done)
            try:
                outcome = result_of(client, future)
            except SchedulerLost:
                raise
            except Exception as error:  # the workers themselves failed
                task = submitted[future]
                said = f"{task.source}: {type(error).__name__}: {error}"
                outcome = Outcome(task.source, error=said)
            del submitted[future]
            future.release()
            yield outcome
            send(1)
    except SchedulerLost as lost:
        for task in (*submitted.values(), *unsent, *waiting):
            yield Outcome(task.source, error=f"{task.source}: {lost}")


def _submit(client: Any, task: Task) -> Any:
    if getattr(task, "overwrite", True) is False and not os.path.exists(task.target):  # type: ignore[attr-defined]
        # A worker that takes over from one that died may find its result.
        task = replace(task, overwrite=True)  # type: ignore[type-var]
    threads = thread_limit() or 1
    return watched(
        client, lambda: client.submit(_attempt_alone, task, threads, retries=_ATTEMPTS, pure=False)
    )


def _attempt_alone(task: Task, threads: int) -> Outcome:
    """Run a task on a worker, one of many on its machine, with so many threads."""
    limit_threads(threads)
    return attempt(task)


def attempt(task: Task, report: Report | None = None) -> Outcome:
    """Run a task; errors become its outcome, and what opening its files warns of its warnings."""
    start = time.perf_counter()
    with collected_warnings() as said:
        outcome = _outcome_of(task, report, start)
    names = [f"{name}: " for name in (outcome.source, outcome.target) if name]
    found = [next((s.removeprefix(n) for n in names if s.startswith(n)), s) for s in said]
    return replace(outcome, warnings=(*dict.fromkeys(found), *outcome.warnings))


def _outcome_of(task: Task, report: Report | None, start: float) -> Outcome:
    try:
        return task(report)
    except MrczError as error:
        where = f"{task.source}: " if error.path is None else ""
        failed = Outcome(task.source, error=f"{where}{error}")
    except Exception as error:
        said = failure_text(error).removeprefix(f"{task.source}: ")
        if not (isinstance(error, _FAILURES) or is_out_of_memory(error)):
            # A fault of ours, or a library's: the other files are still done.
            said = f"{type(error).__name__}: {said}"
        failed = Outcome(task.source, error=f"{task.source}: {said}")
    return replace(failed, seconds=time.perf_counter() - start)


def _about(task: Task, report: Report | None) -> Report | None:
    if report is None:
        return None
    name = Path(task.source).name
    return lambda stage, done, total: report(f"{name}: {stage}", done, total)


ANSWER_S = 15.0
"""Seconds within which a scheduler has to answer."""
# Seconds without news after which it is asked, and for closing the connection.
_QUIET_S, _CLOSING_S = 5.0, 3.0
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
    """Return what `work` returns; raise `SchedulerLost` if it fails as the scheduler is lost."""
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
    """Return how many threads a cluster has; raise `SchedulerLost` if it does not answer."""
    if client in _lost:
        raise SchedulerLost
    try:
        threads: dict[str, int] = client.sync(
            client.scheduler.ncores, workers=None, callback_timeout=ANSWER_S
        )
    except Exception as error:
        _lost.add(client)
        for name in _LOGS:  # of the errors that dask runs into from now on
            logging.getLogger(name).addFilter(_is_news)
        raise SchedulerLost from error
    return sum(threads.values())


def _next_of(client: Any, done: SimpleQueue[Any]) -> Any:
    """Return the next of the futures that are put into a queue when they are done."""
    while True:
        try:
            return done.get(timeout=_QUIET_S)
        except Empty:
            ask(client)


def result_of(client: Any, future: Any) -> Any:
    """Wait for a result; raise `SchedulerLost`, or what the work raised."""

    def wait() -> Any:
        while True:
            try:
                return future.result(timeout=_QUIET_S)
            except TimeoutError:
                if future.done() and future.status != "finished":
                    raise
                ask(client)

    return watched(client, wait)


@contextmanager
def _filtered(
    names: Iterable[str], is_shown: Callable[[logging.LogRecord], bool]
) -> Iterator[None]:
    """Show only some of the messages of loggers while the block lasts."""
    logs = [logging.getLogger(name) for name in names]

    def own(record: logging.LogRecord) -> bool:  # another block may have the same filter
        return is_shown(record)

    for log in logs:
        log.addFilter(own)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(own)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, OSError | CancelledError) and type(error).__name__ not in _LOST


def close(client: Any) -> None:
    """Close a client, whether its scheduler answers or not."""
    with suppress(Exception):  # nothing can be done about it
        client.close(timeout=0.1 if client in _lost else _CLOSING_S)


# For workers here. By default they return each large array to the system at once and take the next
# one page by page, which took a third of their time; and dask profiles them every 10 ms, and checks
# every 20 ms whether they still answer.
_OF_WORKERS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 256 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
# Loggers of dask that report workers which end while they start.
_OF_STARTING = (
    "distributed.nanny", "distributed.core", "distributed.worker", "tornado.application",
)  # fmt: skip
# For the process that sends tasks: an average as large as a frame needs no warning.
_OF_SENDERS = {"distributed.admin.large-graph-warning-threshold": "1 PiB"}


@contextmanager
def cluster(scheduler: str = "", workers: int = 0) -> Iterator[Any]:
    """Return a client of a dask cluster, or None without scheduler and workers.

    `scheduler`: address of one that runs already; `workers`: processes to start here, otherwise.
    Raise `MrczError` if dask.distributed is not installed, or the scheduler has no address or does
    not answer.
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
            # A client of a wrong address waits long before it fails.
            resolve_address(scheduler)
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except ValueError as error:
            advice = "Write it as tcp://name:8786"
            raise MrczError(
                None, f"{scheduler!r} is not an address: {error}", advice=advice
            ) from error
        except OSError as error:
            advice = "Start one with: dask scheduler"
            raise MrczError(None, f"no scheduler answers at {scheduler}", advice=advice) from error
        with ExitStack() as closing:
            closing.enter_context(_filtered(_EXPECTED, _is_unexpected))
            closing.callback(close, client)
            closing.enter_context(dask.config.set(_OF_SENDERS))
            yield client
        return
    closing = ExitStack()
    with _filtered(_EXPECTED, _is_unexpected):
        try:
            with _interrupts_waiting():
                with dask.config.set(_OF_WORKERS):
                    local = _local(LocalCluster, workers)
                closing.enter_context(local)
                # On one machine results come straight from the workers, not by way of the
                # scheduler.
                client = Client(local, set_as_default=False, direct_to_workers=True)
                closing.callback(close, client)
            with dask.config.set(_OF_SENDERS):
                yield client
        finally:
            # Half closed, its threads would print what they trip over when the program ends.
            with _interrupts_waiting(), _filtered(_LOGS, _is_news):
                closing.close()


def _local(cluster: Any, workers: int) -> Any:
    """Start workers here, with a thread each: one task keeps all its processors busy by itself."""
    try:
        with _filtered(_OF_STARTING, lambda record: False):  # the error below says it once
            return cluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                # Any port: the usual one is taken where another cluster runs, which warns.
                dashboard_address="127.0.0.1:0",
                preload=["napari_mrcz.session.run"],
            )
    except Exception as error:  # whatever dask calls it
        advice = "Ask for fewer --workers, or see whether there is memory for them"
        said = f"{workers} workers cannot be started: {'; '.join(_causes(error))}"
        raise MrczError(None, said, advice=advice) from error


def _causes(error: BaseException | None) -> list[str]:
    """Return an error and what led to it, each once, as parts of a line."""
    said = []
    while error is not None:
        said.append(failure_text(error).splitlines()[0].rstrip("."))
        error = error.__cause__
    return list(dict.fromkeys(said))


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Delay Ctrl-C until a cluster can be closed; block it for processes that are begun meanwhile.

    Half a cluster cannot be closed. A terminal sends Ctrl-C to all processes, which would end with
    a traceback each before they have loaded the code that ignores it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    if sys.platform != "win32":
        # Otherwise begun by the first process that is spawned, and lets Ctrl-C through again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


# Warnings of dask about workers that are ended while they work, which is intended, and about a
# scheduler that is lost, which is reported for each file.
_EXPECTED = {
    "distributed.worker": "Failed to communicate with scheduler during heartbeat",
    "distributed.worker.state_machine": "ended with CancelledError",
    "distributed.client": "Failed to reconnect to scheduler",
    "distributed.nanny": "Worker process still alive after",
}


def _is_unexpected(record: logging.LogRecord) -> bool:
    return _EXPECTED[record.name] not in record.getMessage()


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _EXPECTED:
        logging.getLogger(name).addFilter(_is_unexpected)
