"""Many stacks at once: which they are and in which order, their sums, KOMA, how the camera ages."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mrcz.session.ageing import (
        OutlierCensus,
        correlation_with,
        count_outliers,
        cumulative_dose,
        noise_within,
    )
    from napari_mrcz.session.koma import Koma
    from napari_mrcz.session.session import Session
    from napari_mrcz.session.summaries import sums_folder

__all__ = [
    "Koma",
    "OutlierCensus",
    "Session",
    "correlation_with",
    "count_outliers",
    "cumulative_dose",
    "noise_within",
    "sums_folder",
]

# Found when they are first asked for: to find the movies of a folder takes no scipy.
_PLACES = {"Koma": "koma", "Session": "session", "sums_folder": "summaries"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES.get(name, 'ageing')}"), name)
