"""Where the program begins: Ctrl-C ends it in one line at any moment, without a traceback.

Python raises an interrupt wherever it happens to be. While a module is loaded it may come out as
another error, or leave half a module behind; in a callback that returns nothing (the end of an
object, say) it is printed and lost. There it waits until the program is out of that.
"""

import os
import signal
import sys
from typing import Any

__all__ = ["main"]

_AGAIN_S = 0.01
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


def _load_and_run(is_heard: bool = False) -> None:
    from napari_mrcz.cli.main import main as run

    if is_heard:
        signal.signal(signal.SIGINT, _interrupt)
    run()


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
    """End by an interrupt that came before or after all that heeds one."""
    if issubclass(kind, KeyboardInterrupt):
        _end()
    sys.__excepthook__(kind, error, traceback)


def _end(*_: Any) -> None:
    """End at once."""
    try:
        os.write(2, b"napari-mrcz: interrupted\n")
    finally:
        os._exit(130)
