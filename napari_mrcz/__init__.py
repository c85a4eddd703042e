"""Open, inspect, correct and save MRCZ movies of electron microscopy.

A movie is opened as a lazy `Stack`, corrections are applied to it frame by frame, and a `Stack` is
what is shown and what is saved::

    import napari_mrcz as nm

    movie = nm.open("movie.mrcz")
    outliers = nm.OutlierFilter.fit(movie)
    nm.write("clean.mrcz", movie.apply(outliers))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_mrcz.errors import MrczError, MrczWarning
from napari_mrcz.format import VerifyReport, verify
from napari_mrcz.stack import Stack, open, read, read_async, write, write_async

if TYPE_CHECKING:
    from napari_mrcz.correction import (
        GainNormalization,
        GammaCurve,
        OutlierFilter,
        TruncationModel,
        correlated_noise,
        count_electrons,
        decimate,
        estimate_gain,
        find_orientation,
        fit_gamma,
        replay,
        restore,
    )
    from napari_mrcz.defects import read_defects, write_defects
    from napari_mrcz.references import read_reference
    from napari_mrcz.session import Koma, Session

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
    "estimate_gain",
    "find_orientation",
    "fit_gamma",
    "open",
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

# Found when they are first asked for: scipy, which these need, takes longer to import than a movie
# to open.
_LATER = {
    "GainNormalization": "correction",
    "GammaCurve": "correction",
    "Koma": "session",
    "OutlierFilter": "correction",
    "Session": "session",
    "TruncationModel": "correction",
    "correlated_noise": "correction",
    "count_electrons": "correction",
    "decimate": "correction",
    "estimate_gain": "correction",
    "find_orientation": "correction",
    "fit_gamma": "correction",
    "read_defects": "defects",
    "read_reference": "references",
    "replay": "correction",
    "restore": "correction",
    "write_defects": "defects",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
