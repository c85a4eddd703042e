"""What the doctor finds, and what it was found in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mrcz.format.header import Header, header_dtype
from napari_mrcz.format.header_reading import parse_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from napari_mrcz.format.layout import Layout


@dataclass(frozen=True)
class Finding:
    """One thing that a header says wrongly, or not at all.

    Attributes
    ----------
    field : str
        Name as in MRC2014, such as "MX MY MZ".
    sentence : str
        What is wrong with it, and for whom.
    found, proposed : str
        What the file has; what it should have, or what else to do where `mend` cannot help.
    patch : dict
        What `mend` writes: fields of `HEADER_DTYPE`, and ``nz`` and ``pixel_size`` (z, y, x in Å),
        from which the cell follows. Empty where it can do nothing.
    header : bytes
        The header in which it was found.
    """

    field: str
    sentence: str
    found: str
    proposed: str
    patch: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    header: bytes = dataclasses.field(default=b"", repr=False)

    @property
    def mendable(self) -> bool:
        """Whether `mend` can write what is proposed."""
        return bool(self.patch)

    def __str__(self) -> str:
        what = "proposed" if self.mendable else "not mended here"
        return f"{self.field}: {self.sentence} Found: {self.found}; {what}: {self.proposed}."


@dataclass(frozen=True)
class Patient:
    """A file as the checks see it.

    Attributes
    ----------
    layout : Layout
        What opening it found out.
    nbytes : int
        Its length.
    path : path-like
        Its name.
    pixel_size : float
        What the caller knows it to be, in Å; 0.0 for nothing.
    """

    layout: Layout
    nbytes: int
    path: str | PathLike[str]
    pixel_size: float = 0.0

    @property
    def header(self) -> Header:
        """The header as the whole file shows it to be; `nz` counts the frames that are there."""
        return self.layout.header

    @property
    def stated(self) -> Header:
        """The header as it says itself."""
        return parse_header(self.raw, self.path)

    @property
    def raw(self) -> bytes:
        """The header's bytes."""
        return self.layout.header.raw

    @property
    def record(self) -> np.void:
        """The header's fields as they are written, in the byte order of its sizes."""
        record: np.void = np.frombuffer(self.raw, header_dtype(self.header.byte_order))[0]
        return record

    @property
    def announced(self) -> int:
        """The frames of which the header speaks."""
        return int(self.record["n"][2])
