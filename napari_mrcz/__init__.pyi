from .correction import (
    GainNormalization,
    GammaCurve,
    OutlierFilter,
    TruncationModel,
    correlated_noise,
    count_electrons,
    decimate,
    estimate_drift,
    estimate_gain,
    find_orientation,
    fit_gamma,
    power_spectrum,
    replay,
    restore,
)
from .errors import (
    MrczError,
    MrczWarning,
)
from .format import (
    VerifyReport,
)
from .session import (
    Koma,
    Session,
)
from .stack import (
    Stack,
    open,
    original,
    read,
    read_async,
    verify,
    write,
    write_async,
)
from .stack.references import (
    read_defects,
    read_reference,
    write_defects,
)

__all__ = [
    "GainNormalization",
    "GammaCurve",
    "Koma",
    "MrczError",
    "MrczWarning",
    "OutlierFilter",
    "Session",
    "Stack",
    "TruncationModel",
    "VerifyReport",
    "correlated_noise",
    "count_electrons",
    "decimate",
    "estimate_drift",
    "estimate_gain",
    "find_orientation",
    "fit_gamma",
    "open",
    "original",
    "power_spectrum",
    "read",
    "read_async",
    "read_defects",
    "read_reference",
    "replay",
    "restore",
    "verify",
    "write",
    "write_async",
    "write_defects",
]
