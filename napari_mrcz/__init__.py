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
    from napari_mrcz.format import VerifyReport
    from napari_mrcz.references import read_reference
    from napari_mrcz.session import Koma, Session
    from napari_mrcz.stack import (
        Stack,
        open,
        original,
        read,
        read_async,
        verify,
        write,
        write_async,
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
    "estimate_gain",
    "find_orientation",
    "fit_gamma",
    "open",
    "original",
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

_ROOMS = {
    "correction": (
        "GainNormalization", "GammaCurve", "OutlierFilter", "TruncationModel", "correlated_noise",
        "count_electrons", "decimate", "estimate_gain", "find_orientation", "fit_gamma", "replay",
        "restore",
    ),
    "defects": ("read_defects", "write_defects"),
    "format": ("VerifyReport",),
    "references": ("read_reference",),
    "session": ("Koma", "Session"),
    "stack": ("Stack", "open", "original", "read", "read_async", "verify", "write", "write_async"),
}  # fmt: skip
# Found when they are first asked for: numpy takes longer to import than a command to tell its
# options, and scipy, which corrections need, longer than a movie to open.
_LATER = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
