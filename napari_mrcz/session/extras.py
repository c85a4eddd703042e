"""Tables and figures: what they need that not everybody has installed, said before the work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_mrcz.errors import MrczError

if TYPE_CHECKING:
    from os import PathLike

TABLE_SUFFIXES = (".csv", ".parquet")


def check_table(path: str | PathLike[str]) -> None:
    """See that a table of this name can be written.

    Raises
    ------
    MrczError
        If its suffix is another, or what it needs is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise MrczError(path, f"a table as {suffix or 'no type'}", advice="Write .csv or .parquet")
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            advice = "pip install 'napari-mrcz[report]', or write a .csv"
            raise MrczError(path, "Parquet needs pyarrow", advice=advice) from error


def need_matplotlib() -> None:
    """See that there is something to draw with.

    Raises
    ------
    MrczError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        advice = "pip install 'napari-mrcz[report]'"
        raise MrczError(None, "drawing figures needs matplotlib", advice=advice) from error
