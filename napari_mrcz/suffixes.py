"""How the names of movies end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "COMPRESSED_SUFFIX",
    "DM_SUFFIXES",
    "FOREIGN_SUFFIXES",
    "PACKED_SUFFIXES",
    "PLAIN_SUFFIXES",
    "SMV_SUFFIXES",
    "SUFFIXES",
    "TIFF_SUFFIXES",
    "TVIPS_SUFFIX",
    "has_movie_suffix",
    "with_packing",
    "without_packing",
]

COMPRESSED_SUFFIX = ".mrcz"
PLAIN_SUFFIXES = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ali", ".preali")
SUFFIXES = (COMPRESSED_SUFFIX, *PLAIN_SUFFIXES)
TIFF_SUFFIXES = (".tif", ".tiff", ".eer")
DM_SUFFIXES = (".dm3", ".dm4")
SMV_SUFFIXES = (".img", ".smv")
TVIPS_SUFFIX = ".tvips"
# Formats that are read and not written (SMV is, by `microed`).
FOREIGN_SUFFIXES = (*TIFF_SUFFIXES, *DM_SUFFIXES, *SMV_SUFFIXES, TVIPS_SUFFIX)
# Behind any of the others.
PACKED_SUFFIXES = (".gz", ".bz2")


def has_movie_suffix(name: str) -> bool:
    """Return whether a name ends as that of an MRC or MRCZ file does, packed or not."""
    name = name.lower()
    for packed in PACKED_SUFFIXES:
        name = name.removesuffix(packed)
    return name.endswith(SUFFIXES)


def with_packing(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return suffixes as they are, and as they are when files are packed."""
    return (*suffixes, *(f"{suffix}{packed}" for suffix in suffixes for packed in PACKED_SUFFIXES))


def without_packing(path: Path) -> Path:
    """Return the path of a file that may be packed without the suffix that says so."""
    return path.with_suffix("") if path.suffix.lower() in PACKED_SUFFIXES else path
