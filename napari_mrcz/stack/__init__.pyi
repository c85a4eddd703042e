from .files import (
    read,
    read_async,
    write,
    write_async,
)
from .kept import (
    original,
)
from .opening import (
    open,
)
from .sources import (
    Correction,
    FrameSource,
)
from .stack import (
    Stack,
)
from .sweeps import (
    open_sweep,
    sweeps,
)
from .verifying import (
    verify,
)

__all__ = [
    "Correction",
    "FrameSource",
    "Stack",
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
