"""Tasks, one a file, run here or on dask workers; each ends in an `Outcome`, come what may."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, collected_warnings, failure_text, is_out_of_memory
from napari_mrcz.format.threads import limit_threads, thread_limit
from napari_mrcz.session.batch.outcome import Outcome
from napari_mrcz.session.batch.scheduler import SchedulerLost, ask, next_of, result_of, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_mrcz.session.batch.task import Report, Task

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
    report: Callable[[Task, str, int, int], None] | None = None,
) -> Iterator[Outcome]:
    """Run tasks; give each one's outcome when it is there.

    Parameters
    ----------
    tasks : iterable of Task
        Independent of each other; taken as they are needed.
    client : dask.distributed.Client, optional
        Where to run them (see `batch.cluster`); here, one after the other, without.
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


def _about(task: Task, report: Callable[[Task, str, int, int], None] | None) -> Report | None:
    if report is None:
        return None
    return lambda stage, done, total: report(task, stage, done, total)
