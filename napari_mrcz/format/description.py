"""What a file says of its frames, beside the pixels themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_mrcz.format.header import along_axes

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Description"]


@dataclass(frozen=True)
class Description:
    """What a file says of its frames, beside the pixels themselves.

    Attributes
    ----------
    pixel_size : tuple of float
        z, y, x in Å; 0.0 for unknown.
    axis_order : tuple of int
        Which of X (1), Y (2), Z (3) columns, rows and sections run along.
    volume : bool
        Sections of a volume rather than frames of a movie.
    sections_per_volume : int or None
        Given for a stack of volumes.
    voltage, c3, gain : float
        kV, mm, counts per electron; 0 for unknown.
    origin : tuple of float
        X, Y, Z in Å.
    labels : tuple of str
        Text labels to be kept from a source.
    extended : tuple of (str, bytes)
        Kind and bytes of a source's extended header, kept as it is; ("", b"") for none.
    metadata : dict
        The user's map.
    history : tuple of dict
        Corrections applied.
    other : dict
        Further keys of the footer.
    writer : str
        Program and version.
    path : str
        The file that the frames come from; "" without one.
    """

    pixel_size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis_order: tuple[int, int, int] = (1, 2, 3)
    volume: bool = False
    sections_per_volume: int | None = None
    voltage: float = 0.0
    c3: float = 0.0
    gain: float = 0.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    labels: tuple[str, ...] = ()
    extended: tuple[str, bytes] = ("", b"")
    metadata: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)
    writer: str = "napari-mrcz"
    path: str = ""

    @property
    def scale(self) -> tuple[float, float, float]:
        """Pixel size along sections, rows and columns, wherever `axis_order` puts X, Y, Z."""
        return along_axes(self.pixel_size, self.axis_order)
