"""The dask workers that tasks go to: some of a cluster's, or processes started here.

Those that are started here are set up for images, and Ctrl-C ends them without a word of dask's.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, failure_text
from napari_mrcz.session.batch.scheduler import close
from napari_mrcz.session.batch.worker import untold

if sys.platform != "win32":
    from multiprocessing import resource_tracker

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    with ExitStack() as closing:
        closing.enter_context(untold())
        with _interrupts_waiting():
            with dask.config.set(_OF_WORKERS):
                local = _local(LocalCluster, workers)
            closing.enter_context(local)
            # On one machine results come straight from the workers, not by way of the scheduler.
            client = Client(local, set_as_default=False, direct_to_workers=True)
            closing.callback(close, client)
        closing.enter_context(dask.config.set(_OF_SENDERS))
        yield client


def _local(cluster: Any, workers: int) -> Any:
    """Start workers here, with a thread each: one task keeps all its processors busy by itself.

    Raises
    ------
    MrczError
        If one ends while it starts.
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
            preload=["napari_mrcz.session.batch.worker"],
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
