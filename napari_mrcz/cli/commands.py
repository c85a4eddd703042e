"""The commands: which there are, how they are called, and what those on many files have in common.

Such a command has one parameter of a class below, and others of `arguments.Given`: `with_options`
makes options of them. Only the module of the command that is called is loaded.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from napari_mrcz import session
from napari_mrcz.cli import arguments
from napari_mrcz.cli.paths import Misused
from napari_mrcz.cli.progress import bar, listening, recorded, say, tell_outcomes, write
from napari_mrcz.errors import MrczError
from napari_mrcz.format.machine import processors
from napari_mrcz.naming import RemotePath, docs_url, has_movie_suffix

if TYPE_CHECKING:
    from napari_mrcz.session.tasks import Making, Outcome, Report

_Command = TypeVar("_Command", bound=Callable[..., Any])
# Some versions of typer bring a click of their own: whichever it is, this is its class.
_UsageError: Any = typer.BadParameter.__bases__[0]
# Commands in the order of the help, and the module that has each.
_MODULES = {
    "compress": "writing",
    "decompress": "writing",
    "convert": "writing",
    "restore": "writing",
    "sum": "writing",
    "drift": "commands",
    "info": "commands",
    "verify": "commands",
    "repair": "writing",
    "correct": "sessions",
    "microed": "writing",
    "count": "writing",
    "watch": "sessions",
    "session": "sessions",
    "bench": "commands",
    "open": "commands",
    "demo": "commands",
    "recipe": "sessions",
}


def called() -> int | None:
    """Run the command that the command line names and return its exit status.

    Raise `Misused` if the command line is wrong.
    """
    try:
        # The command itself: called, a `Typer` would have its own way to print a traceback.
        status: int | None = typer.main.get_command(program(sys.argv[1:])).main(
            standalone_mode=False
        )
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "napari-mrcz"
        message = error.format_message().replace("Value error, ", "")  # some versions of typer
        raise Misused(message, command) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    return status


def program(words: Sequence[str] = ()) -> typer.Typer:
    """Return the program; of its commands only the one that is called, or all.

    `words`: the command line.
    """
    app = typer.Typer(
        name="napari-mrcz",
        help="Compress, verify, inspect and correct movies of electron microscopes, MRC and MRCZ.",
        epilog=f"Documentation: {docs_url('index.md')}",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        callback=_options,
        invoke_without_command=True,
    )
    called = next((word for word in words if not word.startswith("-")), "")
    is_listed = bool(words) and called not in _MODULES  # their names are all that is needed
    for name in [called] if called in _MODULES else _MODULES:
        module = import_module(f"napari_mrcz.cli.{_MODULES[name]}")
        command = getattr(module, f"{name}_", None) or getattr(module, name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
            continue
        # Typer keeps the ends of lines in all paragraphs but the first, whatever the terminal's
        # width.
        paragraphs = (inspect.getdoc(command) or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        if is_listed:
            command = _nothing
        elif hasattr(command, "declare"):
            command.declare()
        app.command(name, help=text)(command)
    return app


def _nothing() -> None:
    """Stand for a command that is not called."""


def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", is_eager=True)
    ] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        write(f"napari-mrcz {version_of('napari-mrcz')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        write(*context.get_help().splitlines())


@dataclass(frozen=True)
class Saying:
    """Options of all commands: how many threads, and where messages go."""

    threads: arguments.Threads = None
    quiet: arguments.Quiet = False
    log: arguments.Log = None

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Limit the threads, and log or leave out what is said, as long as the block lasts."""
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

    manifest: arguments.Manifest = None
    as_json: arguments.Json = False

    def tell(self, outcomes: Iterable[Outcome], verb: str) -> None:
        """Print each outcome as it comes, and in the end how many there were.

        `outcomes`: one per file; `verb`: what was done to them, such as "compressed". Raise
        `typer.Exit` if one failed, with exit status 1.
        """
        with recorded(self.manifest) as take:
            status = tell_outcomes(map(take, outcomes), verb, as_json=self.as_json)
        if status:
            raise typer.Exit(status)


@dataclass(frozen=True)
class Running(Working):
    """Options of commands that write one file per input."""

    overwrite: arguments.Overwrite = False
    skip_existing: arguments.SkipExisting = False
    dry_run: arguments.DryRun = False
    workers: arguments.Workers = 0
    scheduler: arguments.Scheduler = ""

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

        `tasks`: one per file; `verb`: what is done, such as "compressed"; `work`: returns an
        outcome per file where that is more than doing the tasks; called with client and report, as
        `napari_mrcz.session.run.run_all` takes them. Raise `typer.Exit` if a file failed, with exit
        status 1.
        """
        from napari_mrcz.session.run import run_all

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
    """Return what `session.run.run_all` takes: a client of a cluster, and a bar's report."""
    from napari_mrcz.session.run import cluster

    with cluster(scheduler, workers) as client, bar() as advance:
        yield {"client": client, "report": advance}


@dataclass(frozen=True)
class _DryRun:
    """A task that only returns what it would do."""

    task: Making

    @property
    def source(self) -> str:
        return self.task.source

    def __call__(self, report: Report | None = None) -> Outcome:
        return self.task.planned()


def with_options(command: _Command) -> _Command:
    """Replace parameters that stand for several options by these, when `declare` is called.

    One is of a class above, with all that the class holds; others are `arguments.Given`, whose
    classes are in modules that are loaded then.
    """
    saying: dict[str, Any] = {}
    given: dict[str, Any] = {}

    @wraps(command)
    def called(**values: Any) -> None:
        ((name, kind),) = saying.items()
        how = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        chosen = {key: arguments.given_options(of, values) for key, of in given.items()}
        with how.begun(), _misuse_said():
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
            elif get_args(hint)[:1] == (arguments.Given,):
                given[name] = get_args(hint)[1]
                found |= arguments.declared_options(given[name])
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


@contextmanager
def _misuse_said() -> Iterator[None]:
    """Turn `Misused` into typer's error, which names the command."""
    try:
        yield
    except Misused as error:
        raise typer.BadParameter(str(error)) from error


def info(
    files: arguments.Files,
    frames: Annotated[bool, typer.Option("--frames", help="List every frame as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one object per file.")] = False,
) -> None:
    """Show header, metadata and history, and what is wrong with the header (see repair).

    Files may be of any format that is read. Of an MRC file that is packed (.gz, .bz2), only the
    header is unpacked. The exit status is 1 where a file is cut off or damaged, as far as that
    shows without reading the frames (see verify).
    """
    from napari_mrcz.cli import looking

    with _misuse_said():
        status = looking.info(files, frames=frames, as_json=as_json)
    raise typer.Exit(status)


@with_options
def drift(
    files: arguments.Files,
    given: Annotated[
        arguments.Given, arguments.only(session.Selection, "frames", "crop")
    ] = arguments.NOTHING,
    group: Annotated[
        int, typer.Option(min=1, help="Frames per group: 0.5 electrons per pixel or more.")
    ] = 5,
    aligned: Annotated[
        Path | None,
        typer.Option(
            help="File for the sum of the aligned frames: .mrc, .mrcz or .tif.",
            parser=arguments.path,
        ),
    ] = None,
    overwrite: arguments.Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one object per file.")] = False,
    *,
    how: Saying,
) -> None:
    """Show how the specimen moved, and what fixed patterns do to it. Correct movies first.

    A quick look: one shift per group of frames, no patches, no dose weighting. A movie for a map
    goes to RELION, MotionCor or cryoSPARC.
    """
    from napari_mrcz.cli import looking

    status = looking.drift(
        files,
        group=group,
        selection=session.Selection(**given),
        aligned=aligned,
        overwrite=overwrite,
        as_json=as_json,
    )
    raise typer.Exit(status)


@with_options
def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files, or folders: then all within.", parser=arguments.path, show_default=False
        ),
    ],
    *,
    how: Working,
) -> None:
    """Decode every frame and compare it with its checksum; the exit status is 1 on damage.

    Files of other formats than MRC and MRCZ have no checksums; their frames are decoded.
    """
    from napari_mrcz.cli import looking

    status = looking.verify(paths, as_json=how.as_json, quiet=how.quiet, manifest=how.manifest)
    raise typer.Exit(status)


def bench(
    movie: Annotated[
        Path | None, typer.Argument(help="A movie; one is simulated without.", show_default=False)
    ] = None,
    dose: Annotated[
        float, typer.Option(min=0, help="Of a simulated one: electrons a pixel and frame.")
    ] = 1.0,
    frames: Annotated[int, typer.Option(min=1, help="Frames that are taken.")] = 20,
    shape: Annotated[tuple[int, int], typer.Option(help="Rows and columns, simulated.")] = (
        3838,
        3710,
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Turns; times are medians.")] = 3,
    slow: Annotated[bool, typer.Option("--slow", help="Also what takes minutes (xz).")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="On the disk to be measured; a temporary one without.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for figures 2 and 3 of the article, as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as JSON.")] = False,
) -> None:
    """Compare ways to store a movie: sizes, times, beside copying the plain file.

    They are those of Table 1 of McLeod et al. (2018), as far as they are installed.
    """
    from dataclasses import asdict

    import numpy as np

    from napari_mrcz.cli.comparison import as_text, contestants, race
    from napari_mrcz.session.tables import need_installed
    from napari_mrcz.stack import open as open_stack

    if folder is not None and not folder.is_dir():
        raise MrczError(folder, "is not a folder")
    if figures is not None:
        need_installed("matplotlib.figure", "drawing figures")
        figures.mkdir(parents=True, exist_ok=True)
    if movie is None:
        say(f"{frames} simulated frames of {shape[0]} x {shape[1]} pixels, {dose:g} e-/pix/frame")
        rng = np.random.default_rng(1)
        pixels = np.empty((frames, *shape), np.uint8)
        for pixels_of_one in pixels:
            pixels_of_one[...] = rng.poisson(dose, shape)
    else:
        with open_stack(movie) as stack:
            pixels = stack[:frames]
    with bar() as advance:
        ways = list(contestants(pixels, slow=slow))
        results = race(pixels, ways, rounds=rounds, folder=folder, progress=advance)
    write(
        *([json.dumps([asdict(r) for r in results])] if as_json else as_text(results).splitlines())
    )
    if figures is not None:
        _draw(pixels[0], figures)


def _draw(frame: object, folder: Path) -> None:
    import numpy as np

    from napari_mrcz.cli import comparison

    one = np.asarray(frame)
    with bar() as advance:
        advance("figure 2a: doses", 0, 5)
        doses = comparison.by_dose()
        advance("figure 2b: levels", 1, 5)
        levels = comparison.by_level(one)
        advance("figure 2c: threads", 2, 5)
        threads = comparison.by_threads(one)
        advance("figure 2d: blocks", 3, 5)
        blocks = comparison.by_block(one)
        advance("figure 3: metadata", 4, 5)
        metadata = comparison.serialisations()
    comparison.draw_compression(
        doses, levels, threads, blocks, processors(), folder / "compression.png"
    )
    comparison.draw_serialisation(metadata, folder / "serialisation.png")
    say(f"figures are in {folder}")


_PLUGIN = "napari-mrcz"
# The others are opened from the menu.
_DOCKS = ("Movie", "Outliers", "Gain")


def open_(
    files: Annotated[
        list[Path],
        typer.Argument(help="Files, or folders of one sweep, each a layer.", show_default=False),
    ],
) -> None:
    """Open movies in napari, with the widgets Movie, Outliers and Gain beside them."""
    for path in files:
        if path.is_dir() and not any(map(has_movie_suffix, os.listdir(path))):
            raise MrczError(path, "is a folder without a movie")
        if not path.exists() and not isinstance(path, RemotePath):
            raise MrczError(path, "is not there")
    _with_window(lambda: _show(files))


def demo(
    screenshot: Annotated[
        Path | None,
        typer.Option(help="Save a picture of the window there and end.", show_default=False),
    ] = None,
    story: Annotated[
        bool,
        typer.Option("--story", help="Correct the session step by step, as with the widgets."),
    ] = False,
) -> None:
    """Write a simulated movie, demo.mrcz, and a session, demo-session, and open them in napari."""

    def run() -> None:
        from napari_mrcz.plugin.demo import main

        picture = [] if screenshot is None else ["--screenshot", str(screenshot)]
        main(["--story", *picture] if story else picture)

    _with_window(run)


def _with_window(show: Callable[[], None]) -> None:
    """Open a window, if napari, Qt and a screen are there.

    Raise `MrczError` if one is.
    """
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, screens)):
        # Qt would end the program, and say much.
        advice = "Over ssh, use ssh -X; the other commands need none"
        raise MrczError(None, "there is no screen for a window", advice=advice)
    try:
        import napari  # noqa: F401
        import qtpy.QtWidgets  # noqa: F401
    except (ImportError, RuntimeError) as error:  # qtpy without Qt raises either, by its version
        advice = "pip install 'napari-mrcz[all]'; the other commands need neither"
        raise MrczError(None, "a window needs napari and Qt", advice=advice) from error
    show()


def _show(files: list[Path]) -> None:
    import napari

    from napari_mrcz.plugin.eer_form import asking
    from napari_mrcz.plugin.hooks import get_reader

    viewer = napari.Viewer(title=", ".join(path.name for path in files[:3]))
    for path in files:
        try:
            # Other kinds of files are left to whoever reads them in napari.
            with asking():
                viewer.open(path, plugin=_PLUGIN if get_reader(str(path)) else None)
        except (MrczError, OSError, ValueError) as error:
            say(f"napari-mrcz: {error}")
    if not viewer.layers:
        viewer.close()
        raise typer.Exit(1)
    docks = [viewer.window.add_plugin_dock_widget(_PLUGIN, t, tabify=True)[0] for t in _DOCKS]
    docks[0].raise_()
    napari.run()
