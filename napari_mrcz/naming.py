"""Suffixes of movies, order and units of what they say, the cache folder, the program's name."""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPRESSED_SUFFIX = ".mrcz"
PLAIN_SUFFIXES = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ali", ".preali")
SUFFIXES = (COMPRESSED_SUFFIX, *PLAIN_SUFFIXES)
TIFF_SUFFIXES = (".tif", ".tiff", ".eer")
# How such files begin: TIFF and BigTIFF, in either byte order.
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WRITTEN_TIFF_SUFFIXES = (".tif", ".tiff")
DM_SUFFIXES = (".dm3", ".dm4")
SMV_SUFFIXES = (".img", ".smv")
TVIPS_SUFFIX = ".tvips"
# Formats that are read; of them TIFF is written too, and SMV by `microed`.
FOREIGN_SUFFIXES = (*TIFF_SUFFIXES, *DM_SUFFIXES, *SMV_SUFFIXES, TVIPS_SUFFIX)
# Behind any of the others.
PACKED_SUFFIXES = (".gz", ".bz2")


def has_movie_suffix(name: str) -> bool:
    """Return whether a name ends as that of a file of any format that is read, packed or not."""
    return name.lower().endswith(with_packing((*SUFFIXES, *FOREIGN_SUFFIXES)))


def with_packing(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return suffixes as they are, and as they are when files are packed."""
    return (*suffixes, *(f"{suffix}{packed}" for suffix in suffixes for packed in PACKED_SUFFIXES))


def without_packing(path: Path) -> Path:
    """Return the path of a file that may be packed without the suffix that says so."""
    return path.with_suffix("") if path.suffix.lower() in PACKED_SUFFIXES else path


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/]")
if TYPE_CHECKING:
    _SystemPath = Path
else:
    _SystemPath = type(Path())  # of Python 3.11: it is not `Path` itself that is subclassed


class RemotePath(_SystemPath):
    """The URL of a file, where a path is expected: its name and suffix are those of the file.

    Nothing is there for what looks for files on this machine.
    """

    def __str__(self) -> str:
        # A path that is made of another, such as the folder of a file, has its parts alone.
        scheme, *rest = self.parts
        return self.__dict__.get("url") or f"{scheme}//{'/'.join(rest)}"

    def __fspath__(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return path_of, (str(self),)

    def absolute(self) -> Self:
        """Return the same: a URL is absolute."""
        return self


def path_of(path: str | os.PathLike[str]) -> Path:
    """Return a path, or the URL of a file as one.

    `path`: such as ``https://host/movie.mrcz`` or ``s3://bucket/movie.mrcz``.
    """
    text = os.fspath(path)
    if text.lower().startswith("file://"):
        from urllib.request import url2pathname

        return Path(url2pathname(text[len("file://") :]))
    if not _URL.match(text):
        return Path(path)
    is_web = text.lower().startswith("http")
    remote = RemotePath(re.split("[?#]", text)[0] if is_web else text)
    remote.__dict__["url"] = text
    return remote


_Key: TypeAlias = tuple[tuple[tuple[int, str], ...], ...]


def natural_key(name: str | os.PathLike[str]) -> tuple[_Key, str]:
    """Return a key by which movie_2 is sorted before movie_10, whatever the case of letters.

    `name`: a path is compared folder by folder.
    """
    text = os.fspath(name)
    parts = (re.split(r"([0-9]+)", part.casefold()) for part in re.split(r"[/\\]", text))
    key = tuple(tuple(map(_piece, range(len(part)), part)) for part in parts)
    # Names that are counted alike, such as 2 and 02, have an order all the same.
    return key, text


def _piece(position: int, piece: str) -> tuple[int, str]:
    """Return text as it is, and of a number (every second piece) its digits, longer ones later."""
    if position % 2 == 0:
        return -1, piece
    digits = piece.lstrip("0")
    return len(digits), digits


def legal_stem(name: str) -> str:
    """Return a name as that of a file, without suffix; "stack" where nothing is left of it."""
    legal = "".join("_" if c in '<>:"/\\|?*' or ord(c) < 32 else c for c in name)
    return legal.strip(" .") or "stack"


def decoded_text(raw: bytes) -> str:
    """Return bytes as text: UTF-8, or else Latin-1, in which all bytes have a meaning."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


# In Å. A scanner's dots per centimetre are none.
_PLAUSIBLE = (0.01, 1000.0)
# In kV, of any microscope; a higher number without a unit is in V.
_VOLTAGES = (1.0, 3000.0)

_ANGSTROMS = {
    "angstrom": 1.0, "Å": 1.0, "A": 1.0, "picometer": 0.01, "pm": 0.01, "nanometer": 10.0,
    "nm": 10.0, "micrometer": 1e4, "micron": 1e4, "um": 1e4, "\N{GREEK SMALL LETTER MU}m": 1e4,
    "millimeter": 1e7, "mm": 1e7, "meter": 1e10, "m": 1e10,
}  # fmt: skip


def angstroms(unit: str) -> float | None:
    """Return the length of a unit in Å.

    `unit`: its name or symbol. µ may be the Greek letter or the sign that looks like it, and Å the
    letter or the sign. The result: None if it is not a length that is known.
    """
    # Turns U+00B5 into the Greek letter, U+212B and A with a ring into the letter.
    return _ANGSTROMS.get(unicodedata.normalize("NFKC", unit))


def plausible(size: float) -> float:
    """Return a pixel size in Å, or 0.0 for unknown where no micrograph has such a one."""
    least, most = _PLAUSIBLE
    return size if least <= size <= most else 0.0


def kilovolts(voltage: float, unit: str = "") -> float:
    """Return a voltage in kV, or 0.0 for unknown where no microscope has such a one.

    `voltage`: the number; `unit`: "V", "kV" or a name such as "kilovolts"; decided by the number
    where it is empty.
    """
    least, most = _VOLTAGES
    if unit.lower().startswith("v") or (not unit and voltage > most):
        voltage /= 1000
    return voltage if least <= voltage <= most else 0.0


def size_zyx(pixel_size: float | Sequence[float]) -> tuple[float, float, float]:
    """Return a pixel size as (z, y, x) in Å.

    `pixel_size`: one number for all axes, (y, x) with z unknown, or (z, y, x). Raise `ValueError`
    if it is none of these, negative or not finite.
    """
    import numpy as np  # not above: a command lists its options without it

    sizes = np.atleast_1d(np.asarray(pixel_size, np.float64)).tolist()
    if len(sizes) == 1:
        sizes = sizes * 3
    elif len(sizes) == 2:
        sizes = [0.0, *sizes]
    if len(sizes) != 3 or not all(np.isfinite(s) and s >= 0 for s in sizes):
        raise ValueError(f"pixel size {pixel_size!r} is not a size, (y, x) or (z, y, x) in Å")
    return sizes[0], sizes[1], sizes[2]


@cache
def software() -> str:
    """Return name and version; the name alone where it runs without being installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return f"napari-mrcz {version('napari-mrcz')}"
    except PackageNotFoundError:
        return "napari-mrcz"


def docs_url(page: str) -> str:
    """Return the address of a page of the documentation of this version, such as "quality.md".

    It is installed with the program, so that it can be read where there is no network.
    """
    package = Path(__file__).parent
    installed = package / "resources" / "docs"
    folder = installed if installed.is_dir() else package.parent / "docs"
    return (folder / page).as_uri()


def cache_folder() -> Path:
    """Return the user's folder of files that can be made again; never one beside the user's own."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("napari-mrcz", appauthor=False))
