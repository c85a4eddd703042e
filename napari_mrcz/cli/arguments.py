"""Arguments and options that several commands have, with their help.

A command on many files has one parameter of the class `Saying`, `Working` or `Running`, and others
of `Given`: `with_options` makes options of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from napari_mrcz.cli.paths import prepare
from napari_mrcz.cli.progress import bar, listening, recorded, tell_outcomes
from napari_mrcz.correction.options import Declared, options_of
from napari_mrcz.naming import path_of

if TYPE_CHECKING:
    from napari_mrcz.session.tasks import Making, Outcome, Report

MANIFEST_SUFFIXES = (".csv", ".jsonl")

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Value = TypeVar("_Value", int, str)

# By another name, as type checkers want members that they can read.
_enum: Any = StrEnum


class Given(dict[str, Any]):
    """Options that were given on the command line, by their names; others are not in it.

    A command's parameter of ``Annotated[Given, options_of(KomaOptions)]`` is replaced by the
    options of the class that have a flag (`with_options`).
    """


NOTHING = Given()


def _hint(declared: Declared) -> tuple[Any, Any]:
    """Return annotation and default, by which typer makes an option."""
    option, default = declared.option, declared.default
    kind: Any = declared.kind
    said = option.help + (f", in {option.unit}" if option.unit else "")
    said += f", above {option.above:g}" if option.above is not None else ""
    if kind is bool:
        return Annotated[bool, typer.Option(option.flag, help=f"{said}.")], False
    more: dict[str, Any] = {"show_default": option.unset or str(default)}
    if option.choices:
        kind = _enum(declared.name, {str(value): str(value) for value in option.choices})
    elif option.is_file:
        kind, more = Path, {**more, "exists": True, "dir_okay": False}
    elif kind in (int, float):
        more |= {"min": option.least, "max": option.most}
    elif kind is not str:
        more["metavar"] = "Y X"
    return Annotated[kind | None, typer.Option(option.flag, help=f"{said}.", **more)], None


def given_options(known: Mapping[str, Declared], values: dict[str, Any]) -> Given:
    """Take the values of declared options out of those of a command line, and check them."""
    found = Given()
    together: dict[type, dict[str, Any]] = {}
    for name, (owner, key, _, _, option) in known.items():
        value = values.pop(name, None)
        if value is None or value is False:
            continue
        if option.choices:
            value = next(choice for choice in option.choices if str(choice) == value)
        found[name] = str(value.absolute()) if isinstance(value, Path) else value
        together.setdefault(owner, {})[key] = found[name]
        try:
            owner(**{key: found[name]})
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint=f"'{option.flag}'") from error
    try:
        for owner, chosen in together.items():
            owner(**chosen)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    return found


def only(cls: type, *names: str, **unset: str) -> dict[str, Declared]:
    """Return some options of a class, or all, with other texts for their defaults."""
    known = options_of(cls)
    return {
        name: known[name]._replace(option=replace(known[name].option, unset=unset[name]))
        if name in unset
        else known[name]
        for name in names or known
    }


def path(text: str) -> Path:
    """Return a path from the command line; refuse "", which would be the current folder."""
    if not text:
        raise typer.BadParameter("an empty name; is a variable of the shell not set?")
    return path_of(text)


def not_both(context: typer.Context, given: _Value) -> _Value:
    """Refuse a number of workers if a scheduler is given, too: it would do nothing."""
    if given and (context.params.get("workers") or context.params.get("scheduler")):
        raise typer.BadParameter(
            "--workers and --scheduler exclude each other: a scheduler has workers of its own"
        )
    return given


def _table_of_files(manifest: Path | None) -> Path | None:
    if manifest is not None and manifest.suffix.lower() not in MANIFEST_SUFFIXES:
        raise typer.BadParameter(f"a file of {' or '.join(MANIFEST_SUFFIXES)}")
    return manifest


Files = Annotated[
    list[Path],
    typer.Argument(
        help="Files, or folders with all movies in them.", parser=path, show_default=False
    ),
]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Output folder (default: next to each input).", parser=path
    ),
]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Output folder.", parser=path)]
Decimate = Annotated[
    Path | None,
    typer.Option(help="Gain reference by which float frames are divided to get counts."),
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help="Module with your own corrections, which the recipe names: a .py file or an "
        "installed module. May be given several times.",
        show_default=False,
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read the result back and compare every pixel.")
]
Delete = Annotated[
    bool, typer.Option("--delete", help="Delete sources whose results were verified.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Frames processed at a time (default: one per processor).")
]
Workers = Annotated[
    int, typer.Option(min=0, help="Number of dask worker processes.", callback=not_both)
]
Scheduler = Annotated[
    str, typer.Option(help="Address of a dask scheduler with workers.", callback=not_both)
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object per file.")]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        help="Skip results that are whole and of the same source, codec and pixel type or recipe.",
    ),
]
NoFooter = Annotated[
    bool, typer.Option("--no-footer", help="Write no footer (metadata, checksums) after plain MRC.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be written, without writing.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show only warnings and errors.")]
Log = Annotated[
    Path | None,
    typer.Option(help="File to which all messages are appended, with times.", parser=path),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        help="Table of the files, .csv or .jsonl: sizes, SHA-256 of source and target, errors.",
        parser=path,
        callback=_table_of_files,
    ),
]


@dataclass(frozen=True)
class Saying:
    """Options of all commands: how many threads, and where messages go."""

    threads: Threads = None
    quiet: Quiet = False
    log: Log = None

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Limit the threads, and log or hide messages, while the block lasts."""
        from napari_mrcz.format.machine import limit_threads, thread_limit

        before = thread_limit()
        with listening(self.log, quiet=self.quiet):
            limit_threads(self.threads or before)
            try:
                yield
            finally:
                limit_threads(before)


@dataclass(frozen=True)
class Working(Saying):
    """Options of commands that report on each file."""

    manifest: Manifest = None
    as_json: Json = False


@dataclass(frozen=True)
class Running(Working):
    """Options of commands that write one file per input."""

    overwrite: Overwrite = False
    skip_existing: SkipExisting = False
    dry_run: DryRun = False
    workers: Workers = 0
    scheduler: Scheduler = ""

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Refuse options that write files if nothing is to be written; then as `Saying.begun`."""
        if self.dry_run and (self.log or self.manifest):
            raise typer.BadParameter("--dry-run writes nothing, neither --log nor --manifest")
        with super().begun():
            yield

    @property
    def making(self) -> dict[str, Any]:
        """The options that `napari_mrcz.session.tasks.Making` takes."""
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
        """Run tasks, here or on workers, and print the outcome of each.

        `tasks`: one per file; `verb`: what is done, such as "compressed"; `work`: yields an outcome
        per file, if that is more than running the tasks; called with client and report, as
        `session.run.run_all` takes them. Raise `typer.Exit` with status 1 if a file failed.
        """
        from napari_mrcz.session.run import run_all

        sources, targets = [path_of(t.source) for t in tasks], [Path(t.target) for t in tasks]
        prepare(sources, targets, dry_run=self.dry_run)
        if self.dry_run:
            plans = run_all(map(_DryRun, tasks))
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
    """Return arguments of `session.run.run_all`: the client of a cluster, the report of a bar."""
    from napari_mrcz.session.run import cluster

    with cluster(scheduler, workers) as client, bar() as advance:
        yield {"client": client, "report": advance}


@dataclass(frozen=True)
class _DryRun:
    """A task that returns what another would do."""

    task: Making

    @property
    def source(self) -> str:
        return self.task.source

    def __call__(self, report: Report | None = None) -> Outcome:
        return self.task.planned()


def with_options(command: _Command) -> _Command:
    """Replace parameters that stand for several options by these, when `declare` is called.

    One is of a class above; others are `Given`, whose classes are in modules that are loaded then.
    """
    saying: dict[str, Any] = {}
    given: dict[str, Any] = {}

    @wraps(command)
    def called(**values: Any) -> None:
        ((name, kind),) = saying.items()
        how = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        chosen = {key: given_options(of, values) for key, of in given.items()}
        with how.begun():
            command(**values, **chosen, **{name: how})

    def declare() -> None:
        hints = get_type_hints(command, include_extras=True)
        found: dict[str, tuple[Any, Any]] = {}
        for name, parameter in inspect.signature(command).parameters.items():
            hint = hints[name]
            if inspect.isclass(hint) and issubclass(hint, Saying):
                saying[name] = hint
                kinds = get_type_hints(hint, include_extras=True)
                found |= {f.name: (kinds[f.name], f.default) for f in fields(hint)}
            elif get_args(hint)[:1] == (Given,):
                given[name] = get_args(hint)[1]
                found |= {key: _hint(of) for key, of in given[name].items() if of.option.flag}
            else:
                found[name] = hint, parameter.default
        called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint
                )
                for name, (hint, default) in found.items()
            ]
        )
        called.__annotations__ = {name: hint for name, (hint, _) in found.items()}

    called.declare = declare  # type: ignore[attr-defined]
    return called  # type: ignore[return-value]
