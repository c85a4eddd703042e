"""Names of movies: the order in which a person counts them, and what every file system takes."""

from __future__ import annotations

import re

__all__ = ["legal_stem", "natural_key"]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Give a key by which movie_2 is sorted before movie_10, whatever the case of letters."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def legal_stem(name: str) -> str:
    """Give a name as that of a file, without suffix; "stack" where nothing is left of it."""
    legal = "".join("_" if c in '<>:"/\\|?*' or ord(c) < 32 else c for c in name)
    return legal.strip(" .") or "stack"
