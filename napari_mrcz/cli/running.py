"""What all commands that work on many files have in common: how they run, and what they say.

A command has one parameter of a class below; `with_options` gives it the options of that class.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import typer

from napari_mrcz.cli import options
from napari_mrcz.cli.manifest import recorded
from napari_mrcz.cli.progress import bar, listening, tell_outcomes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari_mrcz.session.batch import Outcome
    from napari_mrcz.session.batch.making import Making
    from napari_mrcz.session.batch.task import Report, Task

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Saying:
    """How many threads a command takes, and where what it says goes."""

    threads: options.Threads = None
    quiet: options.Quiet = False
    log: options.Log = None

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Limit the threads, and log or leave out what is said, as long as the block lasts."""
        from napari_mrcz.format.threads import limit_threads, thread_limit

        before = thread_limit()
        with listening(self.log, quiet=self.quiet):
            limit_threads(self.threads or before)
            try:
                yield
            finally:
                limit_threads(before)


@dataclass(frozen=True)
class Working(Saying):
    """How a command tells of each file."""

    manifest: options.Manifest = None
    as_json: options.Json = False

    def tell(self, outcomes: Iterable[Outcome], verb: str) -> None:
        """Print each outcome as it comes, and in the end how many there were.

        Parameters
        ----------
        outcomes : iterable of Outcome
            One per file.
        verb : str
            What was done to them, such as "compressed".

        Raises
        ------
        typer.Exit
            If one failed, with exit status 1.
        """
        with recorded(self.manifest) as take:
            status = tell_outcomes(map(take, outcomes), verb, as_json=self.as_json)
        if status:
            raise typer.Exit(status)


@dataclass(frozen=True)
class Running(Working):
    """How a command makes one file of another, many times."""

    overwrite: options.Overwrite = False
    skip_existing: options.SkipExisting = False
    dry_run: options.DryRun = False
    workers: options.Workers = 0
    scheduler: options.Scheduler = ""

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Refuse options that write files if nothing is to be written; then as `Saying.begun`."""
        if self.dry_run and (self.log or self.manifest):
            raise typer.BadParameter("--dry-run writes nothing, neither --log nor --manifest")
        with super().begun():
            yield

    @property
    def making(self) -> dict[str, Any]:
        """What `napari_mrcz.session.batch.making.Making` takes of it."""
        return {
            "overwrite": self.overwrite,
            "skip_existing": self.skip_existing,
            "checksums": self.manifest is not None,
        }

    def run(
        self,
        tasks: Sequence[Making],
        verb: str,
        work: Callable[..., Iterable[Outcome]] | None = None,
    ) -> None:
        """Do tasks, here or on workers, and tell how it goes with each.

        Parameters
        ----------
        tasks : sequence of Making
            One per file.
        verb : str
            What is done, such as "compressed".
        work : callable, optional
            Returns an outcome per file where that is more than doing the tasks; called with client
            and report, as `napari_mrcz.session.batch.run_all` takes them.

        Raises
        ------
        typer.Exit
            If a file failed, with exit status 1.
        """
        from napari_mrcz.session.batch import run_all

        if self.dry_run:
            plans = run_all(map(_Plan, tasks))
            if tell_outcomes(plans, f"would be {verb}", as_json=self.as_json, skips=True):
                raise typer.Exit(1)
            return
        work = work or partial(run_all, tasks)
        with (
            recorded(self.manifest, overwrite=self.overwrite, continued=self.skip_existing) as take,
            at_work(self.scheduler, min(self.workers, len(tasks))) as how,  # others would idle
        ):
            outcomes = map(take, work(**how))
            status = tell_outcomes(outcomes, verb, as_json=self.as_json, skips=True)
        if status:
            raise typer.Exit(status)


@contextmanager
def at_work(scheduler: str, workers: int) -> Iterator[dict[str, Any]]:
    """Return what `session.batch.run_all` takes: a client of a cluster, and a bar's report."""
    from napari_mrcz.session.batch import cluster

    with cluster(scheduler, workers) as client, bar() as advance:

        def report(task: Task, stage: str, done: int, of: int) -> None:
            advance(f"{Path(task.source).name}: {stage}", done, of)

        yield {"client": client, "report": report}


@dataclass(frozen=True)
class _Plan:
    """What a task would do."""

    task: Making

    @property
    def source(self) -> str:
        return self.task.source

    def __call__(self, report: Report | None = None) -> Outcome:
        return self.task.planned()


def with_options(command: _Command) -> _Command:
    """Replace a command's parameter of a class above by options for all that the class holds."""
    hints = get_type_hints(command, include_extras=True)
    name, kind = next(
        (name, hint)
        for name, hint in hints.items()
        if inspect.isclass(hint) and issubclass(hint, Saying)
    )
    kinds = get_type_hints(kind, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name != name:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        parameters += [
            inspect.Parameter(
                f.name, parameter.KEYWORD_ONLY, default=f.default, annotation=kinds[f.name]
            )
            for f in fields(kind)
        ]

    @wraps(command)
    def called(**values: Any) -> None:
        how = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        with how.begun():
            command(**values, **{name: how})

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called  # type: ignore[return-value]
