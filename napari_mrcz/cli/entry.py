"""The program ``napari-mrcz``: how it starts, how it ends, and its exit status.

0: all was done; 1: a file could not be used, or is damaged; 2: the command line is wrong;
130: interrupted. Data goes to the standard output, all else to the standard error.

Ctrl-C ends it with one line at any moment, without a traceback. Python raises an interrupt wherever
it is at the moment: while a module is loaded, that may become another error, or leave half a module
behind; in callbacks without a caller, such as `__del__`, it is printed and lost. There it is raised
again a moment later.

Modules are loaded where they are needed: a short command takes as long as what it loads.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Commands that need neither typer nor BLAS without options.
_QUICK = ("info", "verify")
_MISUSED, _INTERRUPTED = 2, 130
_AGAIN_S = 0.01
# What numpy takes of the address space, with one thread.
_NUMERIC_NBYTES = 10**8
# What each further thread leaves for frames.
_LEFT_NBYTES = 2**29
_HAS_TIMER = hasattr(signal, "setitimer")


def main() -> None:
    """Run the program; an interrupt ends it in one line at any moment."""
    # Interrupts may be ignored, as in the background of a shell.
    if not (is_heard := signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        _load_and_run()
        return
    signal.signal(signal.SIGINT, _end_at_once)
    sys.excepthook = _end_in_a_line
    sys.unraisablehook = _raised_again
    if _HAS_TIMER:
        signal.signal(signal.SIGALRM, _interrupt)
    try:
        _load_and_run(is_heard)
    finally:
        # All is done, or was reported.
        signal.signal(signal.SIGINT, _end_at_once)
        if _HAS_TIMER:  # it would end a process that has set its signals back
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _load_and_run(is_heard: bool = False) -> None:
    # Loaded here, where an interrupt ends the program.
    from napari_mrcz.errors import failure_text, is_out_of_memory

    try:
        _keep_within_what_was_lent()
        command = _loaded(sys.argv[1:])
    except (MemoryError, ImportError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        os.write(2, f"napari-mrcz: {failure_text(error)}\n".encode())
        sys.exit(1)
    if is_heard:
        signal.signal(signal.SIGINT, _interrupt)
    run(command)


def _keep_within_what_was_lent() -> None:
    """Limit the threads of numeric libraries to the processors and memory of this process.

    By default they start one per processor of the machine, each with its own stack and buffers.
    """
    from napari_mrcz.errors import check_room_to_import
    from napari_mrcz.format.machine import lent_processors, threads_with_room

    threads = max(1, min(lent_processors(), threads_with_room(_LEFT_NBYTES)))
    os.environ.setdefault("BLOSC_NTHREADS", str(threads))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1" if _is_quick(sys.argv[1:]) else str(threads))
    check_room_to_import("numpy", _NUMERIC_NBYTES)


def _is_quick(words: Sequence[str]) -> bool:
    """Return whether a command line is that of a quick command and names files alone."""
    # Shells of Windows leave patterns of files to the program: typer looks for them.
    if len(words) < 2 or words[0] not in _QUICK or os.name == "nt":
        return False
    return all(word and not word.startswith("-") for word in words[1:])


def _loaded(words: Sequence[str]) -> Callable[[], int | None]:
    """Load a command; return what runs it and returns its exit status."""
    if not _is_quick(words):
        from napari_mrcz.cli.commands import called

        return called
    from napari_mrcz.cli import looking
    from napari_mrcz.naming import path_of

    command = getattr(looking, words[0])
    return lambda: command([path_of(word) for word in words[1:]])


def run(command: Callable[[], int | None] | None = None) -> NoReturn:
    """Run a command and end with its exit status; errors are reported in one line.

    `command`: returns the exit status (default: that of the command line).
    """
    import warnings

    from napari_mrcz.cli.paths import Misused
    from napari_mrcz.cli.progress import forget, say_warning
    from napari_mrcz.errors import failure_text, is_out_of_memory

    warnings.showwarning = lambda message, *_, **__: say_warning(str(message))
    # The next file that is opened would take the number of a stream that is closed, and its text.
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))
    if hasattr(sys.stdout, "reconfigure"):  # σ and Å as escapes where it has no such letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = (command or _loaded(sys.argv[1:]))()
        # Now: an error at the very end would print a traceback.
        sys.stdout.flush()
    except Misused as error:
        if not str(error):  # a group without a command: its help was written
            sys.exit(_MISUSED)
        called = error.command or f"napari-mrcz {sys.argv[1]}"
        _end(f"{error} (see {called} --help)", _MISUSED)
    except BrokenPipeError:  # the program that reads the output has ended
        forget(sys.stdout)
        sys.exit(1)
    except KeyboardInterrupt:
        _end("interrupted", _INTERRUPTED)
    except Exception as error:
        if not (isinstance(error, OSError | ValueError | ImportError) or is_out_of_memory(error)):
            raise
        _end(failure_text(error), 1)
    if status == _INTERRUPTED:  # some versions of typer return it instead of raising
        _end("interrupted", status)
    sys.exit(status)


def _end(said: str, status: int) -> NoReturn:
    from napari_mrcz.cli.progress import forget, say_error

    say_error(said)
    try:
        sys.stdout.flush()
    except OSError:
        forget(sys.stdout)
    sys.exit(status)


def _interrupt(number: int, frame: Any) -> None:
    """Raise KeyboardInterrupt, as soon as no module is being loaded."""
    if _HAS_TIMER:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
                return
            frame = frame.f_back
    raise KeyboardInterrupt


def _raised_again(ignored: Any) -> None:
    """Raise an interrupt again that came where Python can only print it."""
    if issubclass(ignored.exc_type, KeyboardInterrupt) and _HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    else:
        sys.__unraisablehook__(ignored)


def _end_in_a_line(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """End by an interrupt that came before or after the command ran."""
    if issubclass(kind, KeyboardInterrupt):
        _end_at_once()
    sys.__excepthook__(kind, error, traceback)


def _end_at_once(*_: Any) -> None:
    try:
        os.write(2, b"napari-mrcz: interrupted\n")
    finally:
        os._exit(_INTERRUPTED)
