"""The commands: which there are, how they are called, and those that write no movie.

Only the module of the command that is called is loaded.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mrcz import session
from napari_mrcz.cli import arguments
from napari_mrcz.cli.paths import Misused, movies_in
from napari_mrcz.cli.progress import bar, say, say_warning, write
from napari_mrcz.errors import MrczError
from napari_mrcz.naming import RemotePath, docs_url, has_movie_suffix

if TYPE_CHECKING:
    from napari_mrcz.correction.drift import Drift
    from napari_mrcz.stack import Stack

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
    """Run the command that the command line names; return its exit status, or raise `Misused`."""
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
    """Return the program with all commands, or the one that a command line, `words`, calls."""
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
        if hasattr(command, "declare") and not is_listed:
            command.declare()
        app.command(name, help=text)((lambda: None) if is_listed else command)
    return app


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


def info(
    files: arguments.Files,
    frames: Annotated[bool, typer.Option("--frames", help="Also list every frame.")] = False,
    as_json: arguments.Json = False,
) -> None:
    """Show header, metadata and history, and what is wrong with the header (see repair).

    Files may be of any format that is read. Of an MRC file that is packed (.gz, .bz2), only the
    header is unpacked. The exit status is 1 where a file is cut off or damaged, as far as that
    shows without reading the frames (see verify).
    """
    from napari_mrcz.cli import looking

    raise typer.Exit(looking.info(files, frames=frames, as_json=as_json))


DRIFT_KEYS = {
    "path": "The file.",
    "pixel_size": "Pixel size (z, y, x) in Å; 0 where the file does not say.",
    "group": "Frames per group.",
    "frames": "Middle of each group, as an index of the frames that were taken.",
    "shifts": "Of each group (y, x), in pixels, against the first one: how the specimen moved.",
    "fixed_pattern": "Height of the peak that stays over that of the specimen; null where it "
    "cannot be told, or no specimen was found.",
    "warnings": "Why the shifts should not be trusted; empty if all is well.",
}
"""Keys of ``drift --json``, and what is in them."""


@arguments.with_options
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
    as_json: arguments.Json = False,
    *,
    how: arguments.Saying,
) -> None:
    """Show how the specimen moved, and what fixed patterns do to it. Correct movies first.

    A quick look: one shift per group of frames, no patches, no dose weighting. A movie for a map
    goes to RELION, MotionCor or cryoSPARC.
    """
    from napari_mrcz.correction import estimate_drift
    from napari_mrcz.format.atomic import check_target
    from napari_mrcz.stack import Stack
    from napari_mrcz.stack import open as open_stack
    from napari_mrcz.stack import write as write_file
    from napari_mrcz.stack.sources import ArraySource

    selection = session.Selection(**given)
    found = movies_in(files)
    if aligned is not None:
        if len(found) > 1:
            raise Misused(f"--aligned is one file, for {len(found)} movies")
        check_target(aligned, overwrite=overwrite)
    status = 0
    for file in found:
        try:
            with open_stack(file) as whole, bar() as advance:
                movie = selection.of(whole)

                def tell(stage: str, done: int, total: int, name: str = file.name) -> None:
                    advance(f"{name}: {stage.lower()}", done, total)

                try:
                    drift = estimate_drift(movie, group, progress=tell)
                except ValueError as error:
                    raise MrczError(file, str(error)) from error
                for warning in drift.warnings:
                    say_warning(f"{file}: {warning}")
                write(*(_drift_json if as_json else _drift_text)(file, movie, drift, group))
                if aligned is not None:
                    what = {"group": group, "shifts": drift.shifts.tolist()}
                    image = drift.aligned_sum(progress=tell)[None]
                    total = Stack(ArraySource(image), movie.description, movie.header)
                    write_file(aligned, total, metadata={"aligned": what}, overwrite=overwrite)
                    say(f"the sum of the aligned frames is {aligned}")
        except MrczError as error:
            say(f"napari-mrcz: {error}", always=True)
            status = 1
    raise typer.Exit(status)


def _drift_json(file: Path, movie: Stack, drift: Drift, group: int) -> list[str]:
    fixed = drift.fixed_pattern
    values = [
        str(file),
        movie.pixel_size,
        group,
        drift.frames.tolist(),
        drift.shifts.round(4).tolist(),
        fixed if math.isfinite(fixed) else None,
        drift.warnings,
    ]
    return [json.dumps(dict(zip(DRIFT_KEYS, values, strict=True)))]


def _drift_text(file: Path, movie: Stack, drift: Drift, group: int) -> list[str]:
    _, size_y, size_x = movie.pixel_size
    n, y, x = movie.shape
    known = bool(size_y and size_x)
    lines = [
        str(file),
        f"  {n} frames of {y} x {x} pixels in {len(drift.shifts)} groups of {group}"
        + (f", {size_x:.5g} Å/pixel" if known else ""),
        f"  {'group':>5} {'frame':>7} {'y (pixels)':>11} {'x (pixels)':>11}"
        + (f" {'y (Å)':>8} {'x (Å)':>8}" if known else ""),
    ]
    for number, (frame, shift) in enumerate(zip(drift.frames, drift.shifts, strict=True)):
        line = f"  {number:>5} {frame:>7g} {shift[0]:>11.2f} {shift[1]:>11.2f}"
        in_angstroms = f" {shift[0] * size_y:>8.2f} {shift[1] * size_x:>8.2f}" if known else ""
        lines.append(line + in_angstroms)
    fixed = drift.fixed_pattern
    if math.isnan(fixed):
        said = "unknown: the specimen hardly moved"
    elif math.isinf(fixed):
        said = "no specimen was found beside it"
    else:
        said = f"{fixed:.2f} of the specimen's peak"
    return [*lines, f"  fixed pattern: {said}"]


@arguments.with_options
def verify(paths: arguments.Files, *, how: arguments.Working) -> None:
    """Decode every frame and compare it with its checksum; the exit status is 1 on damage.

    Files of other formats than MRC and MRCZ have no checksums; their frames are decoded.
    """
    from napari_mrcz.cli import looking

    status = looking.verify(paths, as_json=how.as_json, quiet=how.quiet, manifest=how.manifest)
    raise typer.Exit(status)


def bench(
    movie: Annotated[
        Path | None, typer.Argument(help="A movie (default: a simulated one).", show_default=False)
    ] = None,
    dose: Annotated[
        float, typer.Option(min=0, help="Electrons per pixel and frame of the simulated movie.")
    ] = 1.0,
    frames: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 20,
    shape: Annotated[
        tuple[int, int], typer.Option(help="Rows and columns of the simulated movie.")
    ] = (3838, 3710),
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions; times are medians.")] = 3,
    slow: Annotated[
        bool, typer.Option("--slow", help="Include ways that take minutes (xz).")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Folder on the disk to measure (default: a temporary one).")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for figures 2 and 3 of the article, as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write the results as JSON.")] = False,
) -> None:
    """Compare ways to store a movie: sizes, and times relative to copying the plain file.

    The ways of Table 1 of McLeod et al. (2018) whose programs are installed.
    """
    from dataclasses import asdict

    import numpy as np

    from napari_mrcz.cli.comparison import as_text, contestants, draw_figures, race
    from napari_mrcz.session.page import need_installed
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
    write(*([json.dumps([asdict(result) for result in results])] if as_json else as_text(results)))
    if figures is not None:
        with bar() as advance:
            draw_figures(pixels[0], figures, advance)
        say(f"figures are in {figures}")


_PLUGIN = "napari-mrcz"
# The others are opened from the menu.
_DOCKS = ("Movie", "Outliers", "Gain")


def open_(
    files: Annotated[
        list[Path], typer.Argument(help="Files, or folders of one sweep each.", show_default=False)
    ],
) -> None:
    """Open movies in napari, with the widgets Movie, Outliers and Gain."""
    for path in files:
        if path.is_dir() and not any(map(has_movie_suffix, os.listdir(path))):
            raise MrczError(path, "is a folder without a movie")
        if not path.exists() and not isinstance(path, RemotePath):
            raise MrczError(path, "is not there")
    _check_screen()
    _check_qt()
    import napari

    from napari_mrcz.plugin.hooks import asking, get_reader

    viewer = napari.Viewer(title=", ".join(path.name for path in files[:3]))
    for path in files:
        try:
            # Other plugins read other kinds of files.
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


def demo(
    screenshot: Annotated[
        Path | None,
        typer.Option(help="Save a picture of the window to this file and end.", show_default=False),
    ] = None,
    story: Annotated[
        bool, typer.Option("--story", help="Correct the session step by step, as with the widgets.")
    ] = False,
) -> None:
    """Write a simulated movie, demo.mrcz, and a session, demo-session, and open them in napari."""
    _check_qt()
    from napari_mrcz.plugin.demo import main, write_sample_movie, write_sample_session

    write_sample_movie(Path("demo.mrcz"))
    write_sample_session(Path("demo-session"))
    _check_screen("demo.mrcz and demo-session are written; the other commands need none")
    main(screenshot, story=story)


def _check_screen(advice: str = "Over ssh, use ssh -X; the other commands need none") -> None:
    """Raise `MrczError` without a screen: Qt would abort the program, with many messages."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, screens)):
        raise MrczError(None, "there is no screen for a window", advice=advice)


def _check_qt() -> None:
    """Raise `MrczError` if napari or Qt is missing."""
    try:
        import napari  # noqa: F401
        import qtpy.QtWidgets  # noqa: F401
    except (ImportError, RuntimeError) as error:  # qtpy without Qt raises either, by its version
        advice = "pip install 'napari-mrcz[all]'; the other commands need neither"
        raise MrczError(None, "a window needs napari and Qt", advice=advice) from error
