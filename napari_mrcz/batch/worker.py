"""What a dask worker of ours does when it starts; dask imports it there."""

from __future__ import annotations

import signal

__all__ = ["dask_setup"]


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
