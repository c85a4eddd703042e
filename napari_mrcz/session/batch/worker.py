"""What a dask worker of ours does when it starts, dask imports it there; and what is not said."""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What dask warns of where workers are ended at work: that they are, which was asked for. And that
# a scheduler is lost, which is said of each file.
_UNTOLD = {
    "distributed.worker": "Failed to communicate with scheduler during heartbeat",
    "distributed.worker.state_machine": "ended with CancelledError",
    "distributed.client": "Failed to reconnect to scheduler",
    "distributed.nanny": "Worker process still alive after",
}


@contextmanager
def untold() -> Iterator[None]:
    """Leave out of dask's log what is no news, or said otherwise, as long as the block lasts."""
    _hush()
    try:
        yield
    finally:
        for name in _UNTOLD:
            logging.getLogger(name).removeFilter(_is_told)


def _hush() -> None:
    for name in _UNTOLD:
        logging.getLogger(name).addFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    return _UNTOLD[record.name] not in record.getMessage()


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _hush()
