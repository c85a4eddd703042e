"""Where the program begins: an interrupt ends it quietly even while its parts are being loaded."""

import os
import signal
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Load and run it; see `napari_mrcz.cli.main`."""
    # Not so where interrupts are ignored, as in the background of a shell.
    if is_heard := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from napari_mrcz.cli.main import main as run

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _end(*_: Any) -> None:
    """End at once: an exception may come out as another of what is being imported."""
    try:
        os.write(2, b"napari-mrcz: interrupted\n")
    finally:
        os._exit(130)
