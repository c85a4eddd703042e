"""Names of movies: the order in which a person counts them, and what every file system takes."""

from __future__ import annotations

import os
import re
from typing import TypeAlias

__all__ = ["legal_stem", "natural_key"]

_Key: TypeAlias = tuple[tuple[tuple[int, str], ...], ...]


def natural_key(name: str | os.PathLike[str]) -> tuple[_Key, str]:
    """Return a key by which movie_2 is sorted before movie_10, whatever the case of letters.

    Parameters
    ----------
    name : str or path-like
        A path is compared folder by folder.
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
