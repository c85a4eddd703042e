"""What a file says of its frames, beside the pixels themselves."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from napari_mrcz.format.extended import microscope_settings
from napari_mrcz.format.header import along_axes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_mrcz.format.extended import ExtendedHeader


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
    start : tuple of int
        First column, row and section within a larger image, in pixels.
    labels : tuple of str
        Text labels to be kept from a source.
    header : bytes
        A source's header, whose words that belong to other programs are kept; b"" for none.
    extended : ExtendedHeader or None
        A source's extended header, kept as it is.
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
    start: tuple[int, int, int] = (0, 0, 0)
    labels: tuple[str, ...] = ()
    header: bytes = b""
    extended: ExtendedHeader | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)
    writer: str = "napari-mrcz"
    path: str = ""

    def all_metadata(self, frames: int) -> dict[str, Any]:
        """Return the user's map, and under its kind the extended header decoded.

        Parameters
        ----------
        frames : int
            Frames that are described; an extended header that is of others is left out.
        """
        extended = self.extended
        if extended is None or not extended.describes(frames) or self._decoded is None:
            return dict(self.metadata)
        return {extended.decoded_as: self._decoded, **self.metadata}

    @cached_property
    def _decoded(self) -> Any:
        with contextlib.suppress(ValueError):  # opening the file has warned of it
            return None if self.extended is None else self.extended.decoded()
        return None

    @property
    def settings(self) -> tuple[tuple[float, float] | None, float]:
        """Pixel size (y, x) in Å and voltage in kV that the extended header has."""
        kind = "" if self.extended is None else self.extended.decoded_as
        return microscope_settings(kind, self._decoded)

    @property
    def scale(self) -> tuple[float, float, float]:
        """Pixel size along sections, rows and columns, wherever `axis_order` puts X, Y, Z."""
        return along_axes(self.pixel_size, self.axis_order)
