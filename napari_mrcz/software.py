"""What this program calls itself in the files it writes."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["software"]


@cache
def software() -> str:
    """Give name and version; the name alone where it runs without being installed."""
    try:
        return f"napari-mrcz {version('napari-mrcz')}"
    except PackageNotFoundError:
        return "napari-mrcz"
