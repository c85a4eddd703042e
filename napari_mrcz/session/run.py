"""Tasks run here or on dask workers; each ends in an `Outcome`, whatever happens.

dask waits without end for a scheduler that has gone, or hangs, while results are due: here nothing
is waited for any longer than the scheduler answers. Workers that are started here are set up for
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
# Of what a task may raise besides `MrczError`, what concerns its file.
_FAILURES = (OSError, ValueError, ArithmeticError, ImportError)
# Tasks sent ahead, for each thread of the workers.
_QUEUED = 2


def run_all(
    tasks: Iterable[Task],
    *,
    client: Any = None,
    report: Report | None = None,
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
            future = next_of(client, done)
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
        client,
        lambda: client.submit(_attempt_alone, task, threads, retries=_ATTEMPTS, pure=False),
    )


def _attempt_alone(task: Task, threads: int) -> Outcome:
    """Run a task on a worker, one of many on its machine, with so many threads."""
    limit_threads(threads)
    return attempt(task)


def attempt(task: Task, report: Report | None = None) -> Outcome:
    """Run a task; what is wrong with its file becomes an outcome, what is odd its warnings."""
    start = time.perf_counter()
    with collected_warnings() as said:
        outcome = _outcome_of(task, report, start)
    # Those of its files, as opening them says; on a worker nobody else would hear of them.
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
    """Run a function that needs the scheduler, and return its result.

    Raise `SchedulerLost` if it fails in whatever way because the scheduler was lost.
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

    Raise `SchedulerLost` if the scheduler does not answer.
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

    Raise `SchedulerLost` if the scheduler is.
    """
    while True:
        try:
            return done.get(timeout=_QUIET_S)
        except Empty:
            ask(client)


def result_of(client: Any, future: Any) -> Any:
    """Wait for a result.

    Raise `SchedulerLost` if the scheduler is; otherwise what the work raised.
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


@contextmanager
def _only_news() -> Iterator[None]:
    """Leave out of the log what dask trips over while a cluster that is at work is closed."""
    logs = [logging.getLogger(name) for name in _LOGS]
    added = [log for log in logs if _is_news not in log.filters]
    for log in added:
        log.addFilter(_is_news)
    try:
        yield
    finally:
        for log in added:
            log.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, OSError | CancelledError) and type(error).__name__ not in _LOST


def close(client: Any) -> None:
    """Close a client, whether its scheduler answers or not."""
    with suppress(Exception):  # there is nobody to report to
        client.close(timeout=0.1 if client in _lost else _FAREWELL_S)


# Of workers here. dask has them give every large array back to the system at once and take the next
# one page by page, which took a third of their time; and it looks at what they do each 10 ms, and
# whether they, and what watches over them, are still quick each 20 ms.
_OF_WORKERS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 256 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
# What dask's log has to say of workers that end while they start.
_OF_STARTING = (
    "distributed.nanny", "distributed.core", "distributed.worker", "tornado.application",
)  # fmt: skip
# Of whoever sends tasks: an average is as large as a frame, which is no reason for a warning.
_OF_SENDERS = {"distributed.admin.large-graph-warning-threshold": "1 PiB"}


@contextmanager
def cluster(scheduler: str = "", workers: int = 0) -> Iterator[Any]:
    """Return a client of a dask cluster, or None where nothing is asked for.

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
            # A client of what is not an address waits long, then complains.
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
            closing.enter_context(untold())
            closing.callback(close, client)
            closing.enter_context(dask.config.set(_OF_SENDERS))
            yield client
        return
    closing = ExitStack()
    with untold():
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
            with _interrupts_waiting(), _only_news():
                closing.close()


def _local(cluster: Any, workers: int) -> Any:
    """Start workers here, with a thread each: one task keeps all its processors busy by itself.

    Raise `MrczError` if one ends while it starts.
    """
    logs = [logging.getLogger(name) for name in _OF_STARTING]
    for log in logs:
        log.addFilter(_nothing)  # what ended them is said once
    try:
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
    finally:
        for log in logs:
            log.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _causes(error: BaseException | None) -> list[str]:
    """Return an error and what led to it, each once, as parts of a line."""
    said = []
    while error is not None:
        said.append(failure_text(error).splitlines()[0].rstrip("."))
        error = error.__cause__
    return list(dict.fromkeys(said))


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Delay Ctrl-C until a cluster can be closed; processes begun meanwhile never receive it.

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
    """Block Ctrl-C for threads that are begun meanwhile, and for the processes they begin."""
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


# What dask warns of where workers are ended at work: that they are, which was asked for. And that
# a scheduler is lost, which is said of each file.
_UNTOLD = {
    "distributed.worker": "Failed to communicate with scheduler during heartbeat",
    "distributed.worker.state_machine": "ended with CancelledError",
    "distributed.client": "Failed to reconnect to scheduler",
    "distributed.nanny": "Worker process still alive after",
}


@contextmanager
def untold() -> Iterator[None]:
    """Leave out of dask's log what is not news, or said otherwise, as long as the block lasts."""
    _hush()
    try:
        yield
    finally:
        for name in _UNTOLD:
            logging.getLogger(name).removeFilter(_is_told)


def _hush() -> None:
    for name in _UNTOLD:
        logging.getLogger(name).addFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    return _UNTOLD[record.name] not in record.getMessage()


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _hush()
