"""The program ``napari-mrcz``: its commands, and what its exit status means.

0: all was done; 1: a file could not be used, or is damaged; 2: the command line is wrong;
130: interrupted. Data goes to the standard output, all else to the standard error.
"""

from __future__ import annotations

import inspect
import io
import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from napari_mrcz.cli import (
    benching,
    compressing,
    correcting,
    counting,
    looking,
    microed,
    reporting,
    showing,
    watching,
)
from napari_mrcz.cli.progress import forget, say, say_error, write
from napari_mrcz.errors import MrczError, failure_text, is_out_of_memory

_MISUSED, _INTERRUPTED = 2, 130
# Some versions of typer bring a click of their own: whichever it is, this is its class.
_UsageError: Any = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="napari-mrcz",
    help="Compress, verify, inspect and correct movies of electron microscopes, MRC and MRCZ.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _module in (
    compressing,
    looking,
    correcting,
    microed,
    counting,
    watching,
    reporting,
    benching,
    showing,
):
    _module.add_to(app)
for _command in app.registered_commands:
    # Typer keeps the ends of lines in all paragraphs but the first, whatever the terminal's width.
    _paragraphs = (inspect.getdoc(_command.callback) or "").split("\n\n")
    _command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in _paragraphs)


def main() -> None:
    """Run it, and end with its exit status; what is wrong is said in one line."""
    warnings.showwarning = _show_warning
    _open_what_is_closed()
    _write_all_letters()
    try:
        # The command itself: called, `app` would have its own way to print a traceback.
        status = typer.main.get_command(app).main(standalone_mode=False)
        # Now, as what cannot be written at the very end ends in a traceback.
        sys.stdout.flush()
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "napari-mrcz"
        message = error.format_message().replace("Value error, ", "")  # some versions of typer
        if not message:  # a group of commands without one: its help was written
            sys.exit(_MISUSED)
        _end(f"{message} ({command} --help tells more)", _MISUSED)
    except BrokenPipeError:  # whoever read the output has had enough
        forget(sys.stdout)
        sys.exit(1)
    except MrczError as error:
        _end(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _end("interrupted", _INTERRUPTED)
    except Exception as error:
        if not (isinstance(error, OSError | ValueError | ImportError) or is_out_of_memory(error)):
            raise
        _end(failure_text(error), 1)
    if status == _INTERRUPTED:  # some versions of typer give it instead of raising
        _end("interrupted", status)
    sys.exit(status)


@app.callback(invoke_without_command=True)
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


def _open_what_is_closed() -> None:
    """Put nothing in the place of standard streams that are closed.

    Else the next file to be opened would take their number, and what is said.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))


def _write_all_letters() -> None:
    """Write σ and Å as escapes where the output has no such letters, rather than fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end(said: str, status: int) -> NoReturn:
    say_error(said)
    try:
        sys.stdout.flush()
    except OSError:
        forget(sys.stdout)
    sys.exit(status)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    say(f"napari-mrcz: warning: {message}", always=True)
