"""Where the program begins: Ctrl-C ends it in one line at any moment, without a traceback.

Python raises an interrupt wherever it happens to be. While a module is loaded it may come out as
another error, or leave half a module behind; in a callback that returns nothing (the end of an
object, say) it is printed and lost. There it waits until the program is out of that.
"""

import os
import signal
import sys
from typing import Any

_AGAIN_S = 0.01
# What numpy takes of the address space, with one thread.
_NUMERIC_NBYTES = 10**8
# What each further thread leaves for frames.
_LEFT_NBYTES = 2**29
_HAS_TIMER = hasattr(signal, "setitimer")


def main() -> None:
    """Load and run it; see `napari_mrcz.cli.main`."""
    # Not so where interrupts are ignored, as in the background of a shell.
    if not (is_heard := signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        _load_and_run()
        return
    signal.signal(signal.SIGINT, _end)
    sys.excepthook = _said_in_a_line
    sys.unraisablehook = _raised_again
    if _HAS_TIMER:
        signal.signal(signal.SIGALRM, _interrupt)
    try:
        _load_and_run(is_heard)
    finally:
        # All is done, or was said: what is left is to close.
        signal.signal(signal.SIGINT, _end)
        if _HAS_TIMER:  # it would end a process that has set its signals back
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _load_and_run(is_heard: bool = False) -> None:
    # Not before: an interrupt while they are loaded ends the program from now on.
    from napari_mrcz.errors import failure_text, is_out_of_memory

    try:
        _keep_within_what_was_lent()
        from napari_mrcz.cli.main import main as run
    except (MemoryError, ImportError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        os.write(2, f"napari-mrcz: {failure_text(error)}\n".encode())
        sys.exit(1)
    if is_heard:
        signal.signal(signal.SIGINT, _interrupt)
    run()


def _keep_within_what_was_lent() -> None:
    """Limit the threads of numeric libraries to the processors and the memory that were lent.

    They go by the machine's processors, each thread of which takes its own stack and buffers.
    """
    from napari_mrcz.errors import check_room_to_import
    from napari_mrcz.format.memory import lent_processors, threads_with_room

    threads = min(lent_processors(), threads_with_room(_LEFT_NBYTES))
    for name in ("OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS"):
        os.environ.setdefault(name, str(max(1, threads)))
    check_room_to_import("numpy", _NUMERIC_NBYTES)


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
    """Raise an interrupt again that came where Python can but print it."""
    if issubclass(ignored.exc_type, KeyboardInterrupt) and _HAS_TIMER:
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    else:
        sys.__unraisablehook__(ignored)


def _said_in_a_line(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """End by an interrupt that came before or after the command ran."""
    if issubclass(kind, KeyboardInterrupt):
        _end()
    sys.__excepthook__(kind, error, traceback)


def _end(*_: Any) -> None:
    """End at once."""
    try:
        os.write(2, b"napari-mrcz: interrupted\n")
    finally:
        os._exit(130)
