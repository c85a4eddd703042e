from .keeping import original
from .opening import open, open_sweep, sweeps
from .saving import VerifyReport, read, read_async, verify, write, write_async
from .sources import Correction, FrameSource
from .stack import Stack

__all__ = [
    "Correction",
    "FrameSource",
    "Stack",
    "VerifyReport",
    "open",
    "open_sweep",
    "original",
    "read",
    "read_async",
    "sweeps",
    "verify",
    "write",
    "write_async",
]
