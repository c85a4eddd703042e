"""Files worked on for a command, here or by dask's workers, and told of as they are done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.cli.progress import bar, tell_outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_mrcz.batch import Outcome, Task

__all__ = ["run"]


def run(
    work: Callable[..., Iterable[Outcome]],
    verb: str,
    scheduler: str = "",
    workers: int = 0,
    *,
    as_json: bool = False,
) -> int:
    """Have something done to files, and tell how it goes with each; give the exit status.

    Parameters
    ----------
    work : callable
        Gives an outcome a file; called with client and report, as `napari_mrcz.batch.run_all`
        takes them.
    verb : str
        What is done to them, such as "compressed".
    scheduler, workers, as_json
        As on the command line.
    """
    from napari_mrcz.batch import cluster

    with cluster(scheduler, workers) as client, bar() as advance:

        def report(task: Task, stage: str, done: int, of: int) -> None:
            advance(f"{Path(task.source).name}: {stage}", done, of)

        return tell_outcomes(work(client=client, report=report), verb, as_json=as_json)
